"""One product, seen on a day: its sums over days, its parts, and entries of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.evaluate.engine import ALL, CELLS, SEGMENTS, Days, Engine
from gateway.evaluate.entry import Entry
from gateway.evaluate.measures import NOTHING, Columns, Measures, masked, measures_of
from gateway.evaluate.metrics import Sample, Told, costs_of
from gateway.evaluate.sums import BUCKETS
from gateway.evaluate.terms import Terms

WINDOW = timedelta(days=90)
"""Goals are held to the mature decisions of so many days."""

EVER = date(1970, 1, 1)

BY = ("arm", "class", "band", "month", "segment")
"""Parts of the traffic that figures are told of."""


@dataclass(frozen=True, eq=False)
class View:
    """One product, seen on a day (UTC) through an engine."""

    engine: Engine
    terms: Terms
    today: date

    @property
    def last_mature(self) -> date:
        """The last day whose every payment is mature."""
        return self.today - self.terms.maturity - timedelta(days=1)

    @property
    def mature(self) -> Days:
        """The days that goals are held to."""
        return self.last_mature - WINDOW + timedelta(days=1), self.last_mature

    def last(self, window: timedelta) -> Days:
        """Return the days that end today."""
        return self.today - window + timedelta(days=1), self.today

    def sums(self, days: Days, part: str = ALL, cells: str = CELLS) -> dict[str, Measures]:
        """Return the product's sums over days, by part."""
        asked = (days, part, cells)
        if asked not in self._found:
            found = measures_of(self.engine.read("sums", days, part=part, cells=cells))
            self._found[asked] = found.get(self.terms.name, {})
        return self._found[asked]

    @cached_property
    def _found(self) -> dict[tuple[Days, str, str], dict[str, Measures]]:
        return {}

    def sample(self, days: Days) -> Sample:
        """Return what metrics are told of, over days."""
        rows = of_product(self.engine.read("costs", days), self.terms.name)
        hours = 24.0 * ((days[1] - days[0]).days + 1)
        sums = self.sums(days).get("", NOTHING)
        return Sample(self.terms, sums, costs_of(rows, self.terms), hours, calibrated=False)

    def entry(self, metric: str, one: Told, days: Days, says: str, **more: Any) -> Entry:
        """Return a figure over days as an entry."""
        return Entry(
            self.terms.name, metric, one.basis, one.figure, days, says, unit=one.unit, **more
        )

    @cached_property
    def parts(self) -> list[tuple[Days, dict[str, str], Measures]]:
        """Parts of the mature traffic: days, name and sums; months from the first on."""
        return list(self._parts())

    def _parts(self) -> Iterator[tuple[Days, dict[str, str], Measures]]:
        for part in BY:
            days = (EVER, self.last_mature) if part == "month" else self.mature
            cells, column = (SEGMENTS, "group") if part == "segment" else (CELLS, part)
            for value, sums in self.sums(days, column, cells).items():
                yield days, self.named(part, value), sums

    def named(self, part: str, value: str) -> dict[str, str]:
        """Return a part of the traffic by the names that people know."""
        if part == "segment":
            name, _, segment = value.partition("=")
            return {name: segment}
        if part == "class":
            return {"category": self.terms.classes[int(value)]}
        if part == "band":
            return {"amount": self.terms.bands[int(value)]}
        return {part: value}


def by_bucket(bucket: Any, values: Any) -> NDArray[np.float64]:
    """Return sums by bucket, (B,). `bucket`, `values`: (rows,)."""
    return np.bincount(bucket, weights=values, minlength=BUCKETS).astype(np.float64)


def of_product(columns: Columns, product: str) -> dict[str, Any]:
    """Return the rows of a product."""
    here = masked(columns["product"], "").astype(str) == product
    return {name: column[here] for name, column in columns.items()}
