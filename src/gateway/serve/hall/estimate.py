"""How long a step will take, before it is taken: a high quantile, learned as it goes. Pure.

A mean would let every second call come late, and the worst that was ever seen would turn
calls away for a pause that is long over. So each sample moves the estimate by a small step:
up where it took longer, down by a ninety-ninth of that where it did not, which settles where
one in a hundred takes longer (Robbins and Monro 1951; on the logarithm, so that the steps fit
microseconds and seconds alike).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import exp, inf

QUANTILE = 0.99
_STEP = 0.04
_UP, _DOWN = exp(_STEP * QUANTILE), exp(-_STEP * (1.0 - QUANTILE))

_LEAP = 2.0
"""A sample far above the estimate doubles it: ten samples find a cost a thousand times higher,
and a single pause of the machine is no new cost."""

_LONGER_MAX = 8
"""What takes longer time after time is a new cost, too: the steps up grow with it."""

BASE_HALVES_NS = 60_000_000_000
"""What was measured before the first call is trusted longer."""

_SHORTER_MAX, _FAR_DOWN = 200, 0.98
"""So many in a row that took less than half are no accident: the estimate falls faster."""

HALVES_NS = 1_000_000_000
"""What was not tried for so long counts half: or what once stood in would for ever."""

_DOUBLED = 2.5
"""Twice the rows take no longer than this many times as long: what is known of few bounds what
was thought of many, which might else not be tried again."""

_SMOOTH = 0.05

_BUCKETS = 33  # up to 2**32 rows


class CostEstimate:
    """Nanoseconds that a step takes for n rows, in buckets of powers of two of n.

    `measured_ns` has what was measured before the first call, by number of rows.
    """

    __slots__ = ("_base_ns", "_costs_ns", "_learned_ns", "_longer", "_means_ns", "_shorter")

    def __init__(self, measured_ns: Mapping[int, int], now_ns: int) -> None:
        self._costs_ns = [1.0] * _BUCKETS
        self._means_ns = [inf] * _BUCKETS
        self._learned_ns = now_ns
        self._longer = 0  # samples in a row that took longer than was estimated
        self._shorter = 0  # samples in a row that took less than half of it
        for n, cost_ns in measured_ns.items():
            self._raise(_bucket(n), float(cost_ns))
            self._means_ns[_bucket(n)] = float(cost_ns)
        if measured_ns:
            self._extrapolate(_bucket(max(measured_ns)))
        self._base_ns = self._costs_ns[:] if measured_ns else [0.0] * _BUCKETS

    def of(self, n: int, now_ns: int) -> float:
        """Return what n rows are estimated to take; more rows never take less."""
        cost_ns = self._costs_ns[(n - 1).bit_length()]
        idle_ns = now_ns - self._learned_ns
        if idle_ns < HALVES_NS:
            return cost_ns
        return _faded(cost_ns, self._base_ns[(n - 1).bit_length()], idle_ns)

    def mean(self, n: int, now_ns: int) -> float:
        """Return what n rows take on average: what many batches, one after the other, come to."""
        return min(self._means_ns[_bucket(n)], self.of(n, now_ns))

    def learn(self, n: int, took_ns: int, now_ns: int) -> None:
        """Take in that n rows took `took_ns`."""
        bucket = _bucket(n)
        idle_ns = now_ns - self._learned_ns
        if idle_ns >= HALVES_NS:
            both = zip(self._costs_ns, self._base_ns, strict=True)
            self._costs_ns = [_faded(cost_ns, base_ns, idle_ns) for cost_ns, base_ns in both]
        self._learned_ns = now_ns
        cost_ns, mean_ns = self._costs_ns[bucket], self._means_ns[bucket]
        mean_ns = took_ns if mean_ns == inf else mean_ns
        self._means_ns[bucket] = mean_ns + _SMOOTH * (min(took_ns, cost_ns * _LEAP) - mean_ns)
        if took_ns > cost_ns:
            leaps = took_ns > cost_ns * _LEAP
            self._shorter = 0
            self._longer = min(self._longer + 1, _LONGER_MAX)
            self._raise(bucket, cost_ns * (_LEAP if leaps else _UP**self._longer))
        else:
            self._longer = 0
            self._shorter = self._shorter + 1 if took_ns < 0.5 * cost_ns else 0
            down = _DOWN if self._shorter < _SHORTER_MAX else _FAR_DOWN
            self._lower(bucket, max(cost_ns * down, 1.0))

    def most(self, n: int, slack_ns: float, now_ns: int) -> int:
        """Return how many of n rows fit into the slack, 0 where not even one does.

        Whole buckets: what fits for 5 rows fits for 8.
        """
        while n and self.of(n, now_ns) > slack_ns:
            n = (1 << (_bucket(n) - 1)) if n > 1 else 0
        return n

    def _extrapolate(self, last: int) -> None:
        """Let more rows than were measured cost as much more as the last of those did."""
        costs_ns = self._costs_ns
        for i in range(last + 1, _BUCKETS):
            grown_ns = costs_ns[i - 1] - costs_ns[i - 2] if i > 1 else costs_ns[i - 1]
            costs_ns[i] = costs_ns[i - 1] + 2.0 * grown_ns

    def _raise(self, bucket: int, cost_ns: float) -> None:
        for i in range(bucket, _BUCKETS):
            self._costs_ns[i] = max(self._costs_ns[i], cost_ns)

    def _lower(self, bucket: int, cost_ns: float) -> None:
        costs_ns = self._costs_ns
        costs_ns[bucket] = cost_ns
        for i in range(bucket):
            costs_ns[i] = min(costs_ns[i], cost_ns)
        for i in range(bucket + 1, _BUCKETS):
            cost_ns *= _DOUBLED
            if costs_ns[i] <= cost_ns:
                break
            costs_ns[i] = cost_ns


def _faded(cost_ns: float, base_ns: float, idle_ns: int) -> float:
    least_ns = min(cost_ns, base_ns * float(0.5 ** (idle_ns / BASE_HALVES_NS)))
    return max(cost_ns * float(0.5 ** (idle_ns / HALVES_NS)), least_ns)


def _bucket(n: int) -> int:
    return (n - 1).bit_length()
