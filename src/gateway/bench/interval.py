"""What a change costs those who call meanwhile: latencies in it over those around it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CALLS_MIN = 100
"""A p99 of fewer is their maximum."""

Times = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Interval:
    """From `begin_ns` to before `end_ns`, monotonic. Empty where it ends before it begins."""

    begin_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True)
class Timed:
    """The calls that were answered: when each was due, in order, and what it took from then."""

    due_ns: Times
    took_ns: Times

    @classmethod
    def of(cls, due_ns: Times, took_ns: Times) -> Timed:
        """Put calls in order."""
        order = np.argsort(due_ns, kind="stable")
        return cls(due_ns[order], took_ns[order])

    def p99_us(self, *intervals: Interval) -> float | None:
        """Return p99 of the calls that were due in any of the intervals; None of too few."""
        found = np.concatenate([self._within(one) for one in intervals])
        if len(found) < CALLS_MIN:
            return None
        return float(np.quantile(found, 0.99, method="inverted_cdf")) / 1000

    def _within(self, one: Interval) -> Times:
        first, end = np.searchsorted(self.due_ns, [one.begin_ns, one.end_ns])
        return self.took_ns[first : max(first, end)]


def between(changes: Sequence[Interval], whole: Interval) -> tuple[Interval, ...]:
    """Return what is left of the whole: before the first change, between them, after the last."""
    begins = [whole.begin_ns, *(one.end_ns for one in changes)]
    ends = [*(one.begin_ns for one in changes), whole.end_ns]
    return tuple(Interval(begin, end) for begin, end in zip(begins, ends, strict=True))


def ratio(timed: Timed, tested: Sequence[Interval], control: Sequence[Interval]) -> float | None:
    """Return p99 in some intervals over p99 in others; None where either has too few calls."""
    here_us, there_us = timed.p99_us(*tested), timed.p99_us(*control)
    if here_us is None or not there_us:
        return None
    return here_us / there_us
