"""Known outcomes of recorded payments: a table with transaction ids and a label."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gateway.errors import UsageError
from gateway.evaluate.ledger import Labels
from gateway.scaffold.label import find_label, one_sided
from gateway.scaffold.names import listed, plain
from gateway.scaffold.table import CELLS_MAX, read_table

IDS = ("transactionid", "txnid", "txid", "transaction", "transactionreference")
"""Names that the column of transaction ids has, without case and punctuation."""


def read_outcomes(path: Path, label: str | None, fraud: str | None) -> Labels:
    """Read the outcomes in a Parquet file or CSV. A transaction with any fraud is one.

    Raises:
        UsageError: no such file, no column of ids or of labels, or more cells than are read.
    """
    table = read_table(path, rows_max=CELLS_MAX)
    if table.rows < table.rows_in_file:
        raise UsageError(
            f"has more than {CELLS_MAX:,} cells",
            subject=str(path),
            hint="Keep transaction_id and the label, and leave the other columns out.",
        )
    ids = [column for column in table.columns.values() if plain(column.name) in IDS]
    if not ids:
        raise UsageError(
            "has no column transaction_id: labels are joined by it",
            subject=str(path),
            hint=f"There are: {listed(table.columns)}.",
        )
    column = min(ids, key=lambda one: IDS.index(plain(one.name)))
    found = find_label(table, [column.name], label, fraud)
    if found is None:
        alike = one_sided(table, [column.name])
        why = f"label {alike.name!r} says the same of every row" if alike else ""
        raise UsageError(
            why or "has no column that is a label by its name",
            subject=str(path),
            hint=f"--label names it; there are: {listed(table.columns)}.",
        )
    texts = column.texts.tolist()
    rows = [i for i in np.flatnonzero(found.known).tolist() if texts[i] is not None]
    keys = np.array([hash(texts[i]) for i in rows], dtype=np.int64)
    distinct, place = np.unique(keys, return_inverse=True)
    is_fraud = np.bincount(place, weights=found.fraud[rows], minlength=len(distinct)) > 0
    return Labels(distinct, is_fraud)
