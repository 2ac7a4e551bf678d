"""Swaps under load, read: what p99 was while they went on, over what it was around them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from gateway.bench.count import Count, median_of, overlaps
from gateway.bench.interval import Interval, Timed, Times, between, ratio
from gateway.bench.rig import Measured

AFTER_NS = 250_000_000
"""A swap is over so long after the new generation is served: the old one's memory goes back."""


@dataclass(frozen=True, slots=True)
class Swap:
    """One edit: when it began, and when all workers served it, monotonic; None if they never did.

    `resident_bytes` is what the workers held, some time afterwards; None if one has ended.
    """

    generation: int
    begun_ns: int
    served_ns: int | None
    resident_bytes: int | None


@dataclass(frozen=True, slots=True)
class Stretch:
    """One load, and the swaps in it.

    `stood_in_ns`: when the calls were due that a stand-in answered, without the machine's excuse.
    """

    count: Count
    timed: Timed
    whole: Interval
    swaps: tuple[Swap, ...]
    stood_in_ns: Times
    real_time: bool

    @property
    def changes(self) -> tuple[Interval, ...]:
        """Return the time that each swap took; one that was not served, all of its period."""
        nexts = (*(one.begun_ns for one in self.swaps[1:]), self.whole.end_ns)
        return tuple(
            Interval(one.begun_ns, next_ns if one.served_ns is None else one.served_ns + AFTER_NS)
            for one, next_ns in zip(self.swaps, nexts, strict=True)
        )

    @property
    def rests(self) -> tuple[Interval, ...]:
        """Return the time before the first swap, between them, and after the last."""
        return between(self.changes, self.whole)

    @property
    def swap_ratios(self) -> list[float]:
        """Return p99 in each swap that was served over p99 in the rests around it."""
        found = (
            ratio(self.timed, [change], around)
            for one, change, around in zip(
                self.swaps, self.changes, pairwise(self.rests), strict=True
            )
            if one.served_ns is not None
        )
        return [one for one in found if one is not None]

    @property
    def noise(self) -> list[float]:
        """Return p99 in the rest after each swap over that in the one before."""
        found = (ratio(self.timed, [after], [before]) for before, after in pairwise(self.rests))
        return [one for one in found if one is not None]

    def rest_ratios(self, places: Iterable[int]) -> list[float]:
        """Return p99 in rests, by their places, over that in the two around each."""
        rests = self.rests
        found = (
            ratio(self.timed, [rests[place]], [rests[place - 1], rests[place + 1]])
            for place in places
        )
        return [one for one in found if one is not None]


@dataclass(frozen=True, slots=True)
class Phase:
    """Swaps of one kind, in as many loads as they need."""

    what: str
    stretches: tuple[Stretch, ...]

    @property
    def count(self) -> Count:
        """Return what became of all calls."""
        return median_of([one.count for one in self.stretches])

    @property
    def swaps(self) -> tuple[Swap, ...]:
        """Return all that were asked for."""
        return tuple(one for stretch in self.stretches for one in stretch.swaps)

    @property
    def served(self) -> tuple[Swap, ...]:
        """Return those that were served before the load was over."""
        return tuple(one for one in self.swaps if one.served_ns is not None)

    @property
    def stood_in(self) -> int:
        """Return how many calls a stand-in answered."""
        return sum(len(one.stood_in_ns) for one in self.stretches)

    @property
    def stood_in_swapping(self) -> int:
        """Return how many of them were due while a swap went on."""
        return sum(
            any(change.begin_ns <= due_ns < change.end_ns for change in one.changes)
            for one in self.stretches
            for due_ns in one.stood_in_ns.tolist()
        )

    @property
    def took_ms_max(self) -> float | None:
        """Return what the longest swap took, from the edit until all workers served it."""
        return quantile(self._took_ms, 1.0, 0)

    @property
    def figures(self) -> dict[str, Any]:
        """Return what is said of it, as JSON values; None where too little was seen.

        `noise_ratio`: p99 after a swap over p99 before it, which tells what `p99_ratio` is worth.
        """
        ratios = [one for stretch in self.stretches for one in stretch.swap_ratios]
        noise = [one for stretch in self.stretches for one in stretch.noise]
        return {
            "swaps": len(self.served),
            "swaps_asked": len(self.swaps),
            "failed": sum(one.count.failed for one in self.stretches),
            "stood_in": self.stood_in,
            "stood_in_swapping": self.stood_in_swapping,
            "p99_ratio": quantile(ratios, 0.5),
            "p99_ratio_p95": quantile(ratios, 0.95),
            "noise_ratio": quantile(noise, 0.5),
            "noise_ratio_p95": quantile(noise, 0.95),
            "swap_ms": quantile(self._took_ms, 0.5, 0),
            "swap_ms_max": self.took_ms_max,
            "rss_mib": round((self.swaps[-1].resident_bytes or 0) / 2**20, 1),
            "rss_ratio": grown(self.swaps),
        }

    @property
    def _took_ms(self) -> list[float]:
        return [(one.served_ns - one.begun_ns) / 1e6 for one in self.served if one.served_ns]


def stretch_of(measured: Measured, swaps: tuple[Swap, ...]) -> Stretch:
    """Read one load. Calls under which the machine stood still tell nothing of a swap."""
    calls, gaps = measured.load.calls, measured.load.witnessed.gaps
    answered = measured.answers.stand_in >= 0
    sound = answered & ~overlaps(calls.scheduled_ns, calls.received_ns, gaps)
    due_ns = calls.scheduled_ns[sound]
    end_ns = int(calls.scheduled_ns.max(initial=calls.begun_ns))
    return Stretch(
        count=measured.count,
        timed=Timed.of(due_ns, calls.received_ns[sound] - due_ns),
        whole=Interval(calls.begun_ns, end_ns),
        swaps=swaps,
        stood_in_ns=calls.scheduled_ns[sound & (measured.answers.stand_in > 0)],
        real_time=measured.load.witnessed.real_time,
    )


def grown(swaps: Sequence[Swap]) -> float | None:
    """Return the workers' memory after the last swap over that after the tenth.

    Of fewer than twenty: over that half of the way. None if it is not known.
    """
    settled = swaps[min(10, len(swaps) // 2) - 1] if len(swaps) > 1 else swaps[0]
    first, last = settled.resident_bytes, swaps[-1].resident_bytes
    return round(last / first, 3) if first and last else None


def quantile(found: Sequence[float], q: float, digits: int = 3) -> float | None:
    """Return a quantile that was measured, rounded; None of nothing."""
    if not found:
        return None
    return round(float(np.quantile(found, q, method="inverted_cdf")), digits)
