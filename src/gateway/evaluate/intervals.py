"""Intervals of shares, and of what two shares make together, from effective counts. Pure.

Whatever a share was estimated from (counts, weights, reports that are still coming), its interval
needs three numbers: how many events and how many trials would tell as much if all were
independent, and how many degrees of freedom their variance has. So one way serves all: Wilson for
a share, Newcombe for a difference, the score of Miettinen and Nurminen for a ratio; they stand at
counts of nought, where intervals of log or of estimate ± error do not.

All functions take floats or arrays that broadcast, and return what the arrays make.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite, nan, sqrt
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtr, stdtrit

Floats = NDArray[np.float64]

CONFIDENCE = 0.95

_HALVINGS = 52
_LOG_REACH = 46.0
"""Ratios are looked for between e^-46 and e^46: 1e-20 and 1e20."""

Reason = Literal[
    "no_observations",
    "no_events",
    "no_events_in_reference",
    "one_cluster",
    "too_few_explored",
    "not_reached",
    "not_calibrated",
    "bounds_only",
    "too_young",
]
"""Why a figure, or a side of its interval, cannot be said:

- no_observations: nothing was counted.
- no_events: none came, so that nothing tells how large one is.
- no_events_in_reference: the other group has none to compare with.
- one_cluster: all is in one bucket; what varies between customers does not show.
- too_few_explored: the explored payments tell less than the least that was asked.
- not_reached: some of the declines had no chance to be let through.
- not_calibrated: the model's probabilities do not hold, so that they imply nothing.
- bounds_only: the data leave a range, and no value in it is likelier than another.
- too_young: too little of what will be reported has been.
"""


class Estimate(NamedTuple):
    """A figure and its interval. NaN where the data do not say."""

    value: float
    low: float
    high: float


UNKNOWN = Estimate(nan, nan, nan)


class Share(NamedTuple):
    """A share by what it is worth: events and trials as if independent, degrees of freedom.

    Floats, or arrays of one shape. `dof` is 0 where there are not two clusters.
    """

    events: Any
    trials: Any
    dof: Any

    @property
    def value(self) -> Any:
        """The share itself; NaN where nothing was tried."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.float64(self.events) / self.trials


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure as it can be said. None is not known; `reason` names why, once anything is None.

    `low`, `high`: its interval; a side that is None has no end there. `events`, `n`: what was
    counted, as counted (weights where there are weights). `design_effect`: by how much clusters
    (and weights) multiply the variance.
    """

    value: float | None
    low: float | None
    high: float | None
    n: float
    events: float
    design_effect: float | None = None
    reason: Reason | None = None

    def __post_init__(self) -> None:
        for said in (self.value, self.low, self.high):
            if said is not None and not isfinite(said):
                raise ValueError("a figure is finite or None; say None and the reason")
        if None in (self.value, self.low, self.high) and self.reason is None:
            raise ValueError("a figure with a None in it names the reason")


def quantile(confidence: float, dof: Any = inf) -> Any:
    """Return how many standard errors a two-sided interval reaches to either side.

    Student's t with `dof` degrees of freedom (normal at infinity); infinite at none.
    """
    dof = np.asarray(dof, np.float64)
    with np.errstate(invalid="ignore"):
        some = stdtrit(np.where((dof > 0.0) & (dof < inf), dof, 1.0), 0.5 + confidence / 2.0)
    z = np.where(dof < inf, some, ndtri(0.5 + confidence / 2.0))
    reach = np.where(dof > 0.0, z, inf)
    return reach if reach.ndim else float(reach)


def wilson(
    successes: float, n: float, *, confidence: float = CONFIDENCE, dof: float = inf
) -> tuple[float, float]:
    """Return Wilson's interval of a share (1927)."""
    low, high = wilson_bounds(Share(successes, n, dof), confidence=confidence)
    return float(low), float(high)


def wilson_bounds(share: Share, *, confidence: float = CONFIDENCE) -> tuple[Floats, Floats]:
    """Return the ends of Wilson's interval: 0 and 1 where nothing is known."""
    n = np.asarray(share.trials, np.float64)
    z2 = np.asarray(quantile(confidence, share.dof)) ** 2
    known = (n > 0.0) & np.isfinite(z2)
    n, z2 = np.where(known, n, 1.0), np.where(known, z2, 0.0)
    p = np.clip(np.where(known, share.events, 0.5) / n, 0.0, 1.0)
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = np.sqrt(z2 * (p * (1 - p) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    # By the formula both are 0 or 1 to the last bits only.
    low = np.where(p == 0.0, 0.0, np.maximum(0.0, middle - half))
    high = np.where(p == 1.0, 1.0, np.minimum(1.0, middle + half))
    return np.where(known, low, 0.0), np.where(known, high, 1.0)


def score_bounds(
    value: float, variance: float, *, confidence: float = CONFIDENCE, dof: float = inf
) -> tuple[float, float]:
    """Return the ends of the interval of a sum of events that each bring something, above 0.

    Its variance grows with it, so a sum s is spoken against where the one that came is further
    from s than errors would be at s (a score interval, as Wilson's for rare events). It is worth
    value²/variance events of equal size, and its variance is known no better than from as many:
    these are the degrees of freedom at the most.
    """
    events = value**2 / variance if variance > 0.0 else inf
    half = quantile(confidence, min(dof, max(1.0, events))) ** 2 / (2.0 * events)
    root = sqrt(half * (half + 2.0))
    # Both ends multiply to the square of the value; so written, the low one keeps its digits.
    return value / (1.0 + half + root), value * (1.0 + half + root)


def newcombe_bounds(
    one: Share, other: Share, *, confidence: float = CONFIDENCE
) -> tuple[Floats, Floats]:
    """Return the ends of Newcombe's interval (1998, method 10) of one share less the other."""
    low, high = wilson_bounds(one, confidence=confidence)
    other_low, other_high = wilson_bounds(other, confidence=confidence)
    p = np.where(np.isnan(one.value), 0.5, one.value)
    q = np.where(np.isnan(other.value), 0.5, other.value)
    down = np.sqrt((p - low) ** 2 + (other_high - q) ** 2)
    up = np.sqrt((high - p) ** 2 + (q - other_low) ** 2)
    return np.maximum(-1.0, p - q - down), np.minimum(1.0, p - q + up)


def ratio_score(one: Share, other: Share, ratio: Any) -> Floats:
    """Return the score statistic of one / other = ratio (Miettinen and Nurminen 1985).

    About normal where the ratio is true; above 0 where the observed one is greater.
    """
    x1, n1, x0, n0 = np.broadcast_arrays(
        *(np.asarray(v, np.float64) for v in (one.events, one.trials, other.events, other.trials))
    )
    r = np.asarray(ratio, np.float64)
    n = n1 + n0
    # The likeliest share of the other, were the ratio true: a·q² + b·q + c = 0, smaller root.
    a, b, c = n * r, -(n1 * r + x1 + n0 + x0 * r), x1 + x0
    with np.errstate(divide="ignore", invalid="ignore"):
        q = 2.0 * c / (np.sqrt(np.maximum(b * b - 4.0 * a * c, 0.0)) - b)
        p = np.minimum(q * r, 1.0)
        spread = p * (1.0 - p) / n1 + r * r * q * (1.0 - q) / n0
        spread = spread * np.where(n > 1.0, n / (n - 1.0), 1.0)
        off = x1 / n1 - r * x0 / n0
        score = off / np.sqrt(spread)
    return np.where(off == 0.0, 0.0, score)


def ratio_bounds(
    one: Share, other: Share, *, confidence: float = CONFIDENCE
) -> tuple[Floats, Floats]:
    """Return the ends of the interval of ratios that the score does not speak against.

    0 and infinity where nothing does.
    """
    z = np.asarray(quantile(confidence, pooled_dof(one, other)))
    known = (
        np.isfinite(z)
        & (np.asarray(one.trials) > 0.0)
        & (np.asarray(other.trials) > 0.0)
        & (np.asarray(one.events) + np.asarray(other.events) > 0.0)
    )
    sign = np.array([1.0, -1.0]).reshape((2, *[1] * np.ndim(known)))
    below = np.full((2, *np.shape(known)), -_LOG_REACH)
    above = -below
    for _ in range(_HALVINGS):
        middle = (below + above) / 2.0
        # The score falls as the ratio grows.
        further = ratio_score(one, other, np.exp(middle)) > sign * z
        below, above = np.where(further, middle, below), np.where(further, above, middle)
    low, high = np.exp((below + above) / 2.0)
    low = np.where(known & (np.asarray(one.events) > 0.0), low, 0.0)
    return low, np.where(known & (np.asarray(other.events) > 0.0), high, inf)


def ratio_p(one: Share, other: Share, ratio: Any) -> Floats:
    """Return the two-sided p-value of one / other = ratio: below α just where the interval of
    confidence 1 - α does not hold the ratio. 1 where nothing is known."""
    dof = np.asarray(pooled_dof(one, other), np.float64)
    score = np.abs(ratio_score(one, other, ratio))
    p = 2.0 * stdtr(np.where(dof > 0.0, dof, 1.0), -np.where(np.isnan(score), 0.0, score))
    return np.where(dof > 0.0, p, 1.0)


def ratio_p_beyond(one: Share, other: Share, limit: float, *, above: bool) -> float:
    """Return the p-value of one / other not lying beyond a limit: below α just where the interval
    of confidence 1 - α lies wholly above it (or below it). 1 where the estimate does not."""
    score = float(ratio_score(one, other, limit))
    beyond = score > 0.0 if above else score < 0.0
    return float(ratio_p(one, other, limit)) if beyond else 1.0


def pooled_dof(one: Share, other: Share) -> Any:
    """Return the degrees of freedom of two variances together (Satterthwaite 1946).

    As they are where both shares are equal: variance goes by one over trials.
    """
    n1, n0, d1, d0 = (
        np.asarray(v, np.float64) for v in (one.trials, other.trials, one.dof, other.dof)
    )
    known = (n1 > 0.0) & (n0 > 0.0) & (d1 > 0.0) & (d0 > 0.0)
    n1, n0, d1, d0 = (np.where(known, v, 1.0) for v in (n1, n0, d1, d0))
    with np.errstate(divide="ignore"):
        part = n0 / (n1 + n0)  # of the variance, what is one's
        dof = 1.0 / (part**2 / d1 + (1.0 - part) ** 2 / d0)
    return np.where(known, dof, 0.0)
