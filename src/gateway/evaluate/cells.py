"""Decisions added up, as the queries give them: columns of cells, summed by bucket of customers.

Pure. A cell is decisions of one product, day and bucket that are alike in all that is asked of
them; `n` says how many, and sums stand beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.evaluate.engine import Columns, masked
from gateway.evaluate.sums import BUCKETS

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

_TEXTS = ("product", "arm", "action", "kind", "step_up", "liable", "attribute", "value")
_FLAGS = ("stood_in", "explored", "reached", "fraud", "reversed")


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """m cells: texts as objects with '' for null, flags with null as False, all else float64."""

    columns: dict[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(self.columns["bucket"])

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.columns[name]

    def where(self, wanted: Flags) -> Cells:
        """Return those cells."""
        return Cells({name: column[wanted] for name, column in self.columns.items()})

    def sum(self, of: str | Floats = "n", where: Flags | None = None) -> Floats:
        """Return a column's sums by bucket, (B,), over all cells or some."""
        values = self.columns[of] if isinstance(of, str) else of
        places = self.columns["bucket"]
        if where is not None:
            values, places = values[where], places[where]
        sums: Floats = np.bincount(places, weights=values, minlength=BUCKETS).astype(np.float64)
        return sums

    def values(self, name: str) -> Iterator[Any]:
        """Yield the values that a column has, in order."""
        yield from np.unique(self.columns[name]).tolist()

    @property
    def days(self) -> tuple[date, date] | None:
        """The first and the last day; None where there is none."""
        if not len(self):
            return None
        day = self.columns["day"]
        return day.min().item(), day.max().item()


def cells_of(columns: Columns) -> Cells:
    """Return what a query gave as cells."""
    found: dict[str, NDArray[Any]] = {}
    for name, column in columns.items():
        if name in _TEXTS:
            found[name] = masked(column, "").astype(object)
        elif name in _FLAGS:
            found[name] = masked(column, False).astype(np.bool_)
        elif name == "day":
            found[name] = column.astype("datetime64[D]")
        elif name in ("bucket", "class", "band"):
            found[name] = masked(column, 0).astype(np.int64)
        else:
            found[name] = np.nan_to_num(masked(column, 0).astype(np.float64))
    return Cells(found)
