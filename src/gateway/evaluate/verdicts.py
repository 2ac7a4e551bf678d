"""What figures say of targets, limits and budgets: no more than their intervals allow. Pure.

A target is met or missed where the whole interval lies on one side of it; a ratio passes where its
whole interval lies within the limits and is a breach where it lies wholly outside. Everything else
is undecided, never good by default.

Where many groups are compared, some will seem outside by chance: breaches are held to Holm's
correction (1979) over all that are compared, whose p-values come from the same test as the
intervals. To pass is not corrected: all groups together pass only if each does, and that is
no likelier to be wrong than the likeliest one alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np

from gateway.evaluate.intervals import CONFIDENCE, Figure, Reason

LIMITS = (0.8, 1.25)

Correction = Literal["holm", "fdr_bh"]
"""For many comparisons: none of the breaches is false, or few of them are."""

Because = Literal[
    "interval_inside", "interval_outside", "interval_across", "too_few", "many_compared"
]
"""Why a verdict is what it is, besides a figure's own reason:

- interval_inside, interval_outside: the whole interval is on one side.
- interval_across: it is on both.
- too_few: fewer were counted than was asked to judge.
- many_compared: outside by its own interval, not among as many as were compared.
"""


class Verdict(NamedTuple):
    """What a figure says of a target."""

    says: Literal["met", "missed", "undecided"]
    because: Because | Reason


class Parity(NamedTuple):
    """What a ratio says of its limits. `p`, `p_adjusted`: of its lying within them; None where it
    is not judged."""

    says: Literal["pass", "breach", "undecided"]
    because: Because | Reason
    p: float | None = None
    p_adjusted: float | None = None


class Compared(Protocol):
    """A ratio that is held to limits."""

    @property
    def figure(self) -> Figure:
        """The ratio, with its interval."""

    def p_beyond(self, limit: float, *, above: bool) -> float:
        """Return the p-value of the ratio not lying beyond a limit."""


class Budget(NamedTuple):
    """What a promise allows to go wrong in its window, in the unit of what is counted.

    `left` is below 0 where more was used than allowed. `share_left`: of what is allowed; None
    where nothing is. `kept`: not more used than allowed; None where nothing was counted.
    """

    allowed: float
    used: float
    left: float
    share_left: float | None
    kept: bool | None


def target(
    figure: Figure,
    *,
    at_most: float | None = None,
    at_least: float | None = None,
    least_n: float = 0.0,
) -> Verdict:
    """Return whether a figure meets its target; a figure of fewer than `least_n` is not judged."""
    if (at_most is None) == (at_least is None):
        raise ValueError("a target has at_most or at_least, and not both")
    if figure.n < least_n:
        return Verdict("undecided", "too_few")
    low, high = figure.low, figure.high
    if at_most is not None:
        met, missed = high is not None and high <= at_most, low is not None and low > at_most
    else:
        assert at_least is not None
        met, missed = low is not None and low >= at_least, high is not None and high < at_least
    if met:
        return Verdict("met", "interval_inside")
    if missed:
        return Verdict("missed", "interval_outside")
    return Verdict("undecided", figure.reason or "interval_across")


def parities(
    compared: Sequence[Compared],
    *,
    limits: tuple[float, float] = LIMITS,
    least_n: float = 100.0,
    sizes: Sequence[float] | None = None,
    correction: Correction = "holm",
    confidence: float = CONFIDENCE,
) -> tuple[Parity, ...]:
    """Return what ratios say of limits, in their order. All are one family: all groups of all
    attributes that one gate compares. Intervals must be of the same confidence.

    `sizes`: how many decisions each is of, held to `least_n`; their figures' n where left out.
    """
    low, high = limits
    sizes = [one.figure.n for one in compared] if sizes is None else sizes
    enough = [size >= least_n for size in sizes]
    judged = [one for one, is_enough in zip(compared, enough, strict=True) if is_enough]
    p_values = [
        min(one.p_beyond(high, above=True), one.p_beyond(low, above=False)) for one in judged
    ]
    adjusted = corrected(p_values, correction)
    breaches = (p <= 1.0 - confidence for p in adjusted)
    said = zip(p_values, adjusted, breaches, strict=True)
    return tuple(
        _parity(one, limits, *next(said)) if is_enough else Parity("undecided", "too_few")
        for one, is_enough in zip(compared, enough, strict=True)
    )


def corrected(p_values: Sequence[float], correction: Correction) -> tuple[float, ...]:
    """Return p-values for as many as are compared, in their order.

    Holm (1979), a step down: max over smaller ones of (m - i)·p_(i). Benjamini and Hochberg (1995),
    a step up: min over greater ones of m/(i + 1)·p_(i). Both at most 1; statsmodels is the oracle,
    and not used, for to import it takes as long as the rest of a small evaluation.
    """
    p = np.asarray(p_values, np.float64)
    order, m = np.argsort(p, kind="stable"), len(p)
    rank = np.arange(m)
    if correction == "holm":
        stepped = np.maximum.accumulate((m - rank) * p[order])
    else:
        stepped = np.minimum.accumulate((m / (rank + 1) * p[order])[::-1])[::-1]
    adjusted = np.empty(m)
    adjusted[order] = np.minimum(stepped, 1.0)
    return tuple(adjusted.tolist())


def budget(
    good: float, total: float, objective: float, *, window_total: float | None = None
) -> Budget:
    """Return the error budget of a share that must reach an objective, such as 0.999.

    `good` of `total` events of the window so far. `window_total`: how many the whole window will
    have; those so far where left out.
    """
    if not 0.0 <= good <= total:
        raise ValueError("good events are between 0 and all events")
    if not 0.0 <= objective <= 1.0:
        raise ValueError("an objective is a share, 0..1")
    of = total if window_total is None else max(total, window_total)
    return _budget((1.0 - objective) * of, total - good, counted=total > 0.0)


def amount_budget(used: float, objective: float) -> Budget:
    """Return the budget of an amount that must not exceed its objective, such as a loss."""
    if used < 0.0 or objective < 0.0:
        raise ValueError("amounts are 0 or more")
    return _budget(objective, used, counted=True)


def _budget(allowed: float, used: float, *, counted: bool) -> Budget:
    # 1 - 0.9 is less than a tenth by the last bit: one bad event of ten is allowed.
    kept = used <= allowed * (1.0 + 1e-9)
    left = max(allowed - used, 0.0) if kept else allowed - used
    return Budget(
        allowed, used, left, left / allowed if allowed > 0.0 else None, kept if counted else None
    )


def _parity(
    one: Compared, limits: tuple[float, float], p: float, adjusted: float, breach: bool
) -> Parity:
    figure, adjusted = one.figure, float(adjusted)
    low, high = figure.low, figure.high
    if breach:
        return Parity("breach", "interval_outside", p, adjusted)
    if low is not None and high is not None and limits[0] <= low and high <= limits[1]:
        return Parity("pass", "interval_inside", p, adjusted)
    outside = (low is not None and low > limits[1]) or (high is not None and high < limits[0])
    if outside:
        return Parity("undecided", "many_compared", p, adjusted)
    return Parity("undecided", figure.reason or "interval_across", p, adjusted)
