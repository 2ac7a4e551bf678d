"""Two arms compared at any look, as often as anybody looks: confidence sequences. Pure.

An interval of 95 % holds the truth at one look that was fixed before. Who looks each day and ends
when it pleases is fooled far oftener. A confidence sequence holds the truth at all looks together
with its probability: Robbins' normal mixture (1970) over what has been learnt so far,

    |θ̂ - θ| ≤ √( V · 2(1 + τ²/V)/(τ²/V) · ln(√(1 + τ²/V) / α) )

which is the asymptotic sequence of Waudby-Smith et al. (2021) with 1/V, the information, for time.
θ̂ are differences of ratios of sums over all days so far; V is what buckets of customers differ by
(the jackknife of `rates`). That is right although customers stay: what was estimated earlier is
what is estimated now and noise besides, so Cov(θ̂_s, θ̂_t) = V_t for s < t, and θ̂/V has
independent increments in 1/V, as the mixture wants.

Asymptotic means that it is wrong for few events, and frauds are few. Three rules for that:

- V is never less than it would be if both arms had the rate of both together, each dispersed as it
  is (the score's variance, not Wald's: an arm that few frauds came to by chance would seem sure
  of it), nor than single events of equal size make it.
- Buckets and events are finitely many: the reach is Student's, with as many degrees of freedom as
  there are clusters, or events if those are fewer.
- Nothing is said before both arms were to have `LEAST_EVENTS` events, by what they are worth.

τ is fixed before anything is seen, by the least effect that matters: the sequence is tightest
where it is just as wide as that effect. Sums at a look are all that counts: not the order of days,
nor how often was looked before.
"""

from __future__ import annotations

from math import log, log1p, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, ndtr, stdtrit, xlogy

from gateway.evaluate.rates import clusters_dof, left_out_variance
from gateway.evaluate.sums import Counts, Floats

ALPHA = 0.05
LEAST_EVENTS = 20.0
"""So many events each arm is to have had, by what they are worth, before anything is said."""

MISMATCH_ALPHA = 0.001
"""How rarely a right assignment may be called wrong: it throws an experiment away."""

CONCENTRATION = 1000.0
"""Of the shares that a wrong assignment may have, around the declared: off by 1.6 points at 1/2."""


class Side(NamedTuple):
    """One arm's sums by bucket, (..., B): its figure is Σ over / Σ under.

    `events`: how many decisions `over` is of; 0 where that is not known. `trials`: how many
    decisions could have been. Where amounts are heavy-tailed, `over` sums min(y, cap).
    """

    over: Floats
    under: Floats
    events: Floats
    trials: Floats

    @classmethod
    def of(cls, counts: Counts) -> Side:
        """Return the side of a rate."""
        return cls(counts.k, counts.n, counts.k, counts.n)


class Sequence(NamedTuple):
    """A confidence sequence at its looks, (...): NaN, and ends at infinity, where nothing is said.

    `information`: 1/V, 0 where nothing is said.
    """

    value: Floats
    low: Floats
    high: Floats
    information: Floats


def difference(one: Side, other: Side, *, effect: float, alpha: float = ALPHA) -> Sequence:
    """Return the sequence of one arm's figure less the other's. `effect`: the least that matters.

    A customer may be in both arms (each transaction drawn): buckets are left out of both at once.
    """
    seen = _seen(one, other)
    without = _without(one) - _without(other)
    with np.errstate(invalid="ignore"):
        spread = np.maximum(left_out_variance(without), seen.alike * seen.rate**2)
    value = _figure(one) - _figure(other)
    return _sequence(value, spread, seen, effect, alpha)


def ratio(one: Side, other: Side, *, effect: float, alpha: float = ALPHA) -> Sequence:
    """Return the sequence of one arm's figure over the other's, by their logarithms.

    `effect`: the least change that matters, as a share: -0.1 for a tenth less. `information` is
    that of the logarithm.
    """
    if effect <= -1.0:
        raise ValueError(f"a figure cannot change by {effect:g} of itself; must be above -1")
    seen = _seen(one, other)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.log(_figure(one)) - np.log(_figure(other))
        spread = left_out_variance(np.log(_without(one)) - np.log(_without(other)))
    spread = np.maximum(spread, seen.alike)
    told = _sequence(value, spread, seen, log1p(effect), alpha)
    with np.errstate(over="ignore"):
        return Sequence(np.exp(told.value), np.exp(told.low), np.exp(told.high), told.information)


def mixing(effect: float, alpha: float = ALPHA) -> float:
    """Return τ² of the mixture that is tightest where it is as wide as the effect.

    At information I a mixture with Iτ² = c = -2 ln α + ln(-2 ln α) + 1 is about the tightest there
    is (Waudby-Smith et al. 2021, B.2); I is where its reach is the effect.
    """
    if effect == 0.0:
        raise ValueError("the least effect that matters is 0, must be another number")
    c = -2.0 * log(alpha) + log(-2.0 * log(alpha)) + 1.0
    return c**2 * effect**2 / (2.0 * (1.0 + c) * log(sqrt(1.0 + c) / alpha))


def reach(variance: Floats, mixed: float, alpha: float = ALPHA) -> Floats:
    """Return how many standard errors a sequence reaches to either side, (...)."""
    learnt = mixed / variance
    return np.asarray(
        np.sqrt(2.0 * (1.0 + learnt) / learnt * (0.5 * np.log1p(learnt) - log(alpha)))
    )


def mismatch(drawn: Floats, shares: Floats) -> Floats:
    """Return the logarithm of the evidence against an assignment, (...), at any look.

    `drawn` (..., A): units in each arm so far, each drawn for itself: subjects where subjects are
    drawn, never their payments. `shares` (A,): as declared; what matters is their proportion. The
    multinomial's martingale with Dirichlet's mixture (Lindon and Malek 2022): were the shares
    right, it would ever reach ln(1/α) with probability α at the most, whoever looks when.
    """
    shares = np.asarray(shares, np.float64)
    if (shares <= 0.0).any():
        raise ValueError("each arm's share must be above 0")
    expected = shares / shares.sum()
    prior = CONCENTRATION * expected
    drawn = np.asarray(drawn, np.float64)
    mixed = (gammaln(prior + drawn) - gammaln(prior)).sum(axis=-1)
    mixed = mixed + gammaln(CONCENTRATION) - gammaln(CONCENTRATION + drawn.sum(axis=-1))
    return np.asarray(mixed - xlogy(drawn, expected).sum(axis=-1))


def mismatched(drawn: Floats, shares: Floats, alpha: float = MISMATCH_ALPHA) -> NDArray[np.bool_]:
    """Return whether an assignment is not what was declared, (...)."""
    return np.asarray(mismatch(drawn, shares) >= -log(alpha))


class _Seen(NamedTuple):
    """What both arms say together, (...).

    `rate`: the figure of both. `alike`: the variance of the logarithm of the arms' ratio, were they
    alike. `events`: of the arm that is to have fewer, by what they are worth. `dof`: of variances.
    """

    rate: Floats
    alike: Floats
    events: Floats
    dof: Floats


def _seen(one: Side, other: Side) -> _Seen:
    y, x, events, trials = (a.sum(-1) + b.sum(-1) for a, b in zip(one, other, strict=True))
    over = np.stack([one.over.sum(-1), other.over.sum(-1)])
    under = np.stack([one.under.sum(-1), other.under.sum(-1)])
    own = np.stack([left_out_variance(_without(one)), left_out_variance(_without(other))])
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = y / x
        share = np.where(trials > 0.0, events / np.where(trials > 0.0, trials, 1.0), 0.0)
        single = np.where(events > 0.0, y / np.where(events > 0.0, events, 1.0), 0.0)
        # Each arm's own: what customers differ by weighs more where there is more of each.
        dispersion = np.nan_to_num(own * under**2 / over, posinf=0.0)
        dispersion = np.maximum(dispersion, single * (1.0 - share))
        # Of shares above a half the rarer kind is what did not happen.
        rarer = (1.0 - share) * np.minimum(1.0, (1.0 - share) / np.maximum(share, 1e-12))
        expected = np.nan_to_num(rate * under / dispersion)
    worth = expected * rarer
    alike = np.where(expected > 0.0, 1.0 / np.where(expected > 0.0, expected, 1.0), np.inf)
    clusters = np.minimum(clusters_dof(one.under), clusters_dof(other.under))
    return _Seen(
        np.nan_to_num(rate), alike.sum(0), worth.min(0), np.minimum(clusters, worth.sum(0))
    )


def _figure(side: Side) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(side.over.sum(-1) / side.under.sum(-1))


def _without(side: Side) -> Floats:
    """Return the figure without each bucket, (..., B)."""
    y, x = side.over.sum(-1, keepdims=True), side.under.sum(-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((y - side.over) / (x - side.under))


def _sequence(
    value: Floats, variance: Floats, seen: _Seen, effect: float, alpha: float
) -> Sequence:
    says = (seen.events >= LEAST_EVENTS) & (seen.dof >= 1.0)
    says = says & np.isfinite(value) & np.isfinite(variance) & (variance > 0.0)
    variance = np.where(says, variance, 1.0)
    normal = reach(variance, mixing(effect, alpha), alpha)
    student = -stdtrit(np.where(says, seen.dof, 1.0), ndtr(-normal))
    far = np.where(says, np.sqrt(variance) * student, np.inf)
    middle = np.where(says, value, 0.0)
    return Sequence(value, middle - far, middle + far, np.where(says, 1.0 / variance, 0.0))
