"""How much more must be seen until an undecided figure is decided. Pure.

If the truth is what the estimate is, the interval will lie on one side of a limit with a chance of
`power` once the figure is worth as many trials as

    rate   n = ((z_α·√(L(1-L)) + z_β·√(r(1-r))) / (r - L))²          (the score's error at L)
    ratio  v₁ + v₀ = (ln(ratio / L) / (z_α + z_β))²,   v = (1-p)/events  (variances of the logs)

with L the nearest limit. Trials are effective ones, so that the design effect stays in: what a
share is worth grows with what is counted. Both groups of a ratio grow together, as time does.
"""

from __future__ import annotations

from math import ceil, log, sqrt
from typing import NamedTuple

from gateway.evaluate.intervals import CONFIDENCE, Reason, Share, quantile
from gateway.evaluate.support import Supported
from gateway.evaluate.verdicts import LIMITS

POWER = 0.8


class Needed(NamedTuple):
    """How much more is needed. `factor`: of all that has been seen, how much it must become.

    `further`: mature labels besides those that were counted. Both are None where the estimate lies
    on the limit, or too little is known to say; then `reason` may name it.
    """

    factor: float | None
    further: int | None
    reason: Reason | None = None


def further_for_rate(
    share: Share, n: float, limit: float, *, power: float = POWER, confidence: float = CONFIDENCE
) -> Needed:
    """Return what decides a rate against a limit. `n`: trials as counted."""
    if not (share.trials > 0.0 and share.dof > 0.0):
        return Needed(None, None, "no_observations")
    value = float(share.value)
    if value == limit:
        return Needed(None, None)
    reach = quantile(confidence) * sqrt(limit * (1.0 - limit))
    reach += _z(power) * sqrt(value * (1.0 - value))
    return _grown((reach / (value - limit)) ** 2 / share.trials, n)


def further_for_ratio(
    one: Share,
    other: Share,
    n: float,
    *,
    limits: tuple[float, float] = LIMITS,
    power: float = POWER,
    confidence: float = CONFIDENCE,
) -> Needed:
    """Return what decides a ratio against limits. `n`: the first group's trials as counted."""
    factor, reason = _ratio_factor(one, other, limits, power, confidence)
    return Needed(None, None, reason) if factor is None else _grown(factor, n)


def exploration_rate_for_ratio(
    one: Supported,
    other: Supported,
    rate: float,
    labelled: tuple[float, float],
    *,
    limits: tuple[float, float] = LIMITS,
    power: float = POWER,
    confidence: float = CONFIDENCE,
) -> float | None:
    """Return what share of declines must be explored for a ratio to be decided by as much traffic.

    None where no share would do, or too little is known to say. `rate`: the share so far;
    `labelled`: of each group, how many went through of those that the figure is about (genuine
    ones, frauds). Exploration's part of a variance goes with its odds, (1 - rate)/rate; what the
    payments themselves vary by, 1/A + 1/labelled, stays. Raises ValueError for figures that no
    exploration changes.
    """
    sides = (one, other)
    for side in sides:
        if side.basis != "explored":
            raise ValueError(f"exploration does not change a figure that is {side.basis}")
    if not 0.0 < rate < 1.0 or any(
        side.lowest is None or side.figure.value is None for side in sides
    ):
        return None
    shares = [side.lowest for side in sides if side.lowest is not None]
    factor, _ = _ratio_factor(shares[0], shares[1], limits, power, confidence)
    if factor is None:
        return None
    now = stays = 0.0
    for share, known in zip(shares, labelled, strict=True):
        value = float(share.value)
        if not (0.0 < value < 1.0 and known > 0.0):
            return None
        now += (1.0 - value) / float(share.events)
        hidden = known * value / (1.0 - value)
        stays += (1.0 - value) ** 2 * (1.0 / hidden + 1.0 / known)
    if not now / factor > stays:
        return None
    odds = (now / factor - stays) / max(now - stays, 1e-12) * (1.0 - rate) / rate
    return 1.0 / (1.0 + odds)


def _ratio_factor(
    one: Share, other: Share, limits: tuple[float, float], power: float, confidence: float
) -> tuple[float | None, Reason | None]:
    for side, none in ((one, "no_events"), (other, "no_events_in_reference")):
        if not (side.trials > 0.0 and side.dof > 0.0):
            return None, "no_observations"
        if not side.events > 0.0:
            return None, none  # type: ignore[return-value]
    ratio = float(one.value / other.value)
    nearest = min(abs(log(ratio / limit)) for limit in limits)
    if nearest == 0.0:
        return None, None
    now = sum((1.0 - float(side.value)) / float(side.events) for side in (one, other))
    return now / (nearest / (quantile(confidence) + _z(power))) ** 2, None


def _grown(factor: float, n: float) -> Needed:
    return Needed(factor, max(0, ceil(n * (factor - 1.0))))


def _z(power: float) -> float:
    """Return the normal quantile of a one-sided chance."""
    if not 0.5 <= power < 1.0:
        raise ValueError("power is a chance, 0.5 or more and below 1")
    return float(quantile(2.0 * power - 1.0))
