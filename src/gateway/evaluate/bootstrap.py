"""Intervals by the bootstrap: clusters are drawn whole, with what belongs together. Pure.

Payments of one customer are alike, so that n payments tell less than n independent ones would;
drawing customers, not payments, keeps the intervals honest (Cameron, Gelbach and Miller 2008).
A difference is drawn as one column, so that both sides see the same draw: it is paired.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.evaluate.intervals import CONFIDENCE

Floats = NDArray[np.float64]
Places = NDArray[np.int64]

DRAWS = 2_000
CLUSTERS_MAX = 4_000
"""More clusters than this are drawn in as many groups of whole clusters: it bounds the work."""

_CHUNK_CELLS = 1 << 20


class Interval(NamedTuple):
    """An estimate with the bounds that the draws leave around it, and their standard error."""

    value: float
    low: float
    high: float
    error: float

    @property
    def excludes_nought(self) -> bool:
        """Whether it lies on one side of 0."""
        return self.low > 0.0 or self.high < 0.0


def groups_of(
    cluster: Places, chance: np.random.Generator, most: int = CLUSTERS_MAX
) -> tuple[Places, int]:
    """Return a group from 0 for each row, (n,), and how many there are: clusters, or up to `most`
    groups of whole clusters."""
    ids, place = np.unique(cluster, return_inverse=True)
    if len(ids) <= most:
        return place.astype(np.int64), len(ids)
    group = chance.permutation(len(ids)) % most
    return group[place].astype(np.int64), most


def cluster_sums(values: Floats, group: Places, groups: int) -> Floats:
    """Return the sums of values (n, m) over each group, (groups, m)."""
    return _sums(values.T, group, groups)


def drawn_sums(sums: Floats, chance: np.random.Generator, draws: int = DRAWS) -> Iterator[Floats]:
    """Yield the totals of each draw, (some, m) at a time: `draws` rows in all.

    A draw takes as many groups as there are, with replacement.
    """
    groups = len(sums)
    some = max(1, _CHUNK_CELLS // groups)
    for begin in range(0, draws, some):
        count = min(some, draws - begin)
        taken = chance.integers(0, groups, (count, groups)) + groups * np.arange(count)[:, None]
        times = np.bincount(taken.ravel(), minlength=count * groups).reshape(count, groups)
        yield times.astype(np.float64) @ sums


def interval(value: float, drawn: Floats, confidence: float = CONFIDENCE) -> Interval:
    """Return the percentile interval of `drawn` (draws,) around a value.

    Draws that are no number are left out.
    """
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return Interval(value, np.nan, np.nan, np.nan)
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(drawn, [tail, 1.0 - tail])
    return Interval(value, float(low), float(high), float(drawn.std()))


def ratio_intervals(
    pairs: Iterable[tuple[Floats, Floats]],
    cluster: Places,
    chance: np.random.Generator,
    *,
    draws: int = DRAWS,
    confidence: float = CONFIDENCE,
) -> tuple[Interval, ...]:
    """Return the ratio of the sums of each pair of columns (n,), over and under, with its interval.

    All pairs see the same draws, so that intervals of differences are paired.
    """
    group, groups = groups_of(cluster, chance)
    sums = _sums((column for pair in pairs for column in pair), group, groups)
    drawn = np.concatenate(list(drawn_sums(sums, chance, draws)))
    total = sums.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios, drawn_ratios = total[::2] / total[1::2], drawn[:, ::2] / drawn[:, 1::2]
    return tuple(
        interval(float(ratio), drawn_ratios[:, i], confidence) for i, ratio in enumerate(ratios)
    )


def mean_intervals(
    values: Floats,
    cluster: Places,
    chance: np.random.Generator,
    *,
    weights: Floats | None = None,
    draws: int = DRAWS,
    confidence: float = CONFIDENCE,
) -> tuple[Interval, ...]:
    """Return the weighted mean of each column of values (n, m), with its interval.

    A mean is drawn as sum over weight, both of the drawn clusters: clusters differ in size.
    """
    w = np.ones(len(values)) if weights is None else weights
    pairs = ((column * w, w) for column in values.T)
    return ratio_intervals(pairs, cluster, chance, draws=draws, confidence=confidence)


def _sums(columns: Iterable[Floats], group: Places, groups: int) -> Floats:
    """Return the sums of columns (n,) over each group, (groups, columns)."""
    sums: Floats = np.stack(
        [
            np.bincount(group, weights=column, minlength=groups).astype(np.float64)
            for column in columns
        ],
        axis=1,
    )
    return sums
