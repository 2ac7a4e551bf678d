"""The gates of a product's models as tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby

from rich.markup import escape
from rich.table import Table

_STYLES = {"pass": "green", "fail": "red", "undecided": "yellow", "not checked": "dim"}


def gates_tables(rows: Iterable[Mapping[str, str]]) -> Iterator[Table]:
    """Yield a table for each model: of each gate its name, figure, rule and verdict.

    `rows` have those and `arm`, as `Gate.row` gives them.
    """
    for arm, gates in groupby(rows, key=lambda row: row.get("arm", "")):
        table = Table(
            "gate",
            "figure",
            "rule",
            "verdict",
            title=f"What {escape(arm) or 'the model'} must hold",
            title_justify="left",
            box=None,
            pad_edge=False,
            padding=(0, 1, 0, 0),
        )
        for row in gates:
            verdict = escape(row["verdict"])
            style = _STYLES.get(row["verdict"])
            table.add_row(
                *(escape(row[key]) for key in ("name", "figure", "rule")),
                f"[{style}]{verdict}[/{style}]" if style else verdict,
            )
        yield table
