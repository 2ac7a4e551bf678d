"""Histograms by key, filled a batch at a time. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

Key = TypeVar("Key", bound=Hashable)


class Example(NamedTuple):
    """One value that fell into a bucket, and the trace that it is from; `wall_s` is Unix time."""

    value: float
    trace_id: str
    wall_s: float


@dataclass(slots=True)
class Counts:
    """What fell into each bucket (the last one has no bound), their sum, and an example of each."""

    counts: list[int]
    total: float = 0.0
    examples: dict[int, Example] = field(default_factory=dict)


class Histogram(Generic[Key]):
    """Counts by key, each over its own bounds.

    `bounds` rise; a value equal to a bound is inside it, as Prometheus counts.
    """

    def __init__(self) -> None:
        self._bounds: dict[Key, tuple[float, ...]] = {}
        self._counts: dict[Key, Counts] = {}

    def add(
        self, key: Key, bounds: Sequence[float], value: float, example: Example | None = None
    ) -> None:
        """Count one value. The first call with a key settles its bounds."""
        counts = self._counts_of(key, bounds)
        place = bisect_left(self._bounds[key], value)
        counts.counts[place] += 1
        counts.total += value
        if example is not None:
            counts.examples[place] = example

    def add_all(
        self,
        key: Key,
        bounds: Sequence[float],
        values: NDArray[np.float64],
        example: Callable[[int], Example | None] | None = None,
    ) -> None:
        """Count an array of values, shape (n,); `example` makes one of a value's place in it."""
        if not len(values):
            return
        counts = self._counts_of(key, bounds)
        places = np.searchsorted(self._bounds[key], values, side="left")
        found = np.bincount(places)
        for place in np.flatnonzero(found).tolist():
            counts.counts[place] += int(found[place])
        counts.total += float(values.sum())
        if example is not None:
            fallen, last = np.unique(places[::-1], return_index=True)
            for place, from_end in zip(fallen.tolist(), last.tolist(), strict=True):
                found_there = example(len(values) - 1 - from_end)
                if found_there is not None:
                    counts.examples[place] = found_there

    def _counts_of(self, key: Key, bounds: Sequence[float]) -> Counts:
        counts = self._counts.get(key)
        if counts is None:
            self._bounds[key] = tuple(bounds)
            counts = self._counts[key] = Counts([0] * (len(bounds) + 1))
        return counts

    def rows(self) -> Iterator[tuple[Key, tuple[float, ...], Counts]]:
        """Yield each key with its bounds and counts."""
        for key, counts in self._counts.items():
            yield key, self._bounds[key], counts


def around(budget_s: float, common: Sequence[float]) -> tuple[float, ...]:
    """Return bounds that are cut to a budget: shares of it beside the common ones, rising.

    What stands close to one that is in already is left out, so that the budget itself stays.
    """
    own = [budget_s * share for share in (0.1, 0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 2.0)]
    kept = sorted(own)
    for bound in common:
        if all(abs(bound - one) > 0.05 * one for one in kept):
            kept.append(bound)
    return tuple(sorted(kept))
