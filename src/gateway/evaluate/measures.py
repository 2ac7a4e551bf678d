"""Sums by bucket of customers, as the queries give them: what metrics are made of. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.evaluate.sums import BUCKETS, SupportSums

Floats = NDArray[np.float64]
Columns = Mapping[str, NDArray[Any]]
"""Arrays of one length by name; what is null is masked."""

_KEYS = ("product", "part", "bucket")


@dataclass(frozen=True, slots=True, eq=False)
class Measures:
    """Sums of a part of a product: an array (B,) by name, as in `queries/sums.sql`."""

    columns: Mapping[str, Floats]

    def __getitem__(self, name: str) -> Floats:
        found = self.columns.get(name)
        return np.zeros(BUCKETS) if found is None else found

    def total(self, name: str) -> float:
        """Return a sum over all buckets."""
        return float(self[name].sum())

    @property
    def support(self) -> SupportSums:
        """What tells of declines."""
        return SupportSums(*(self[name] for name in SupportSums._fields))


NOTHING = Measures({})


def measures_of(columns: Columns) -> dict[str, dict[str, Measures]]:
    """Return rows of `queries/sums.sql` by product and part; what is null is 0."""
    names = [name for name in columns if name not in _KEYS]
    bucket = masked(columns["bucket"], 0).astype(np.int64)
    values = np.array([np.nan_to_num(masked(columns[name], 0.0)) for name in names], np.float64)
    found: dict[str, dict[str, Measures]] = {}
    for product, part, rows in grouped(columns["product"], columns["part"]):
        sums = np.zeros((len(names), BUCKETS))
        sums[:, bucket[rows]] = values[:, rows]
        ours = found.setdefault(product, {})
        ours[part] = Measures(dict(zip(names, sums, strict=True)))
    return found


def grouped(*keys: NDArray[Any]) -> Iterator[tuple[Any, ...]]:
    """Yield each combination of keys, as texts, with the places of its rows."""
    texts = [masked(key, "").astype(str) for key in keys]
    order = np.lexsort(texts[::-1])
    sorted_texts = [text[order] for text in texts]
    if not len(order):
        return
    changes = np.zeros(len(order), np.bool_)
    for text in sorted_texts:
        changes[1:] |= text[1:] != text[:-1]
    for rows in np.split(order, np.flatnonzero(changes)):
        yield (*(str(text[rows[0]]) for text in texts), rows)


def masked(column: NDArray[Any], fill: Any) -> NDArray[Any]:
    """Return a column with `fill` for null."""
    return column.filled(fill) if isinstance(column, np.ma.MaskedArray) else column
