"""Rates and ratios of sums over decisions, with intervals as wide as customers ask for. Pure.

Payments of one customer are alike, and a customer's payments all lie in one bucket. So the sums of
buckets are independent, and how much they differ says how much a figure can be off, whatever
goes on inside. It is told by leaving out one at a time (the jackknife, which sees that a bucket
that holds much pulls the rate to itself):

    V(Σk/Σn) = (B-1)/B · Σ_b (r_-b - mean of r_-b)²,     r_-b = (Σk - k_b) / (Σn - n_b)

The design effect is V over what independent trials would have, r(1-r)/Σn; a share is worth
Σn / design effect trials (Rao and Scott 1992), and has its interval by them. Three rules for
what buckets cannot show well:

- The design effect is 1 or more: below it is chance.
- Few events hardly show that events come in bursts (the estimate's relative error is about
  √(2/B + 1/events)); then what counts *like* these have stands in, as far as their own number does
  not speak, but never to make an interval narrower than the own number does.
- Degrees of freedom are those of B buckets, or of fewer: if a few customers have most of what
  there is, and if events are few and come in bursts, V is itself known badly (Satterthwaite 1946).
  As far as the design effect is borrowed, it is not.
"""

from __future__ import annotations

from math import inf, isfinite, nan
from typing import Any, NamedTuple

import numpy as np

from gateway.evaluate.intervals import (
    CONFIDENCE,
    Figure,
    Reason,
    Share,
    newcombe_bounds,
    quantile,
    ratio_bounds,
    ratio_p_beyond,
    score_bounds,
    wilson_bounds,
)
from gateway.evaluate.sums import Amounts, Counts, Floats

_UNLIKE = 0.3
"""By how much design effects of groups truly differ, as a share of them: what `like` is worth."""


_RARE = 1e6
"""Trials for each event that is expected: of so many, binomial counts are Poisson's."""


class Worth(NamedTuple):
    """Shares as they are worth, (...), and the design effects that made them so."""

    share: Share
    design_effect: Floats


def checked(*sums: Floats) -> None:
    """Raise ValueError unless all are sums of one shape, finite and not negative."""
    if len({np.shape(one) for one in sums}) != 1 or np.ndim(sums[0]) < 1:
        shapes = ", ".join(str(np.shape(one)) for one in sums)
        raise ValueError(f"sums by bucket have shapes {shapes}, must have one, (..., B)")
    for one in sums:
        if not np.isfinite(one).all() or (one < 0.0).any():
            raise ValueError("sums by bucket must be finite and 0 or more")


def clusters_dof(weight: Floats, design_effect: Any = 1.0) -> Floats:
    """Return the degrees of freedom of a variance between buckets, (...): 0 where one has all.

    `weight` (..., B): what each bucket holds of what is compared. A bucket's variance goes with
    its weight, and what the design effect adds goes with the square of it (as if all of a bucket
    were alike, which is true of a large customer): v_b, of which Satterthwaite's is
    (Σv)²/Σv², less the one for the rate.
    """
    total, squares = weight.sum(axis=-1), (weight**2).sum(axis=-1)
    several = (weight > 0.0).sum(axis=-1) > 1
    more = (np.asarray(design_effect) - 1.0) * total / np.where(several, squares, 1.0)
    spread = weight + more[..., None] * weight**2
    squared = np.where(several, (spread**2).sum(axis=-1), 1.0)
    worth = np.where(several, spread.sum(axis=-1) ** 2 / squared, 1.0)
    return np.where(several, np.maximum(worth - 1.0, 1.0), 0.0)


def linear_variance(pull: Floats) -> Floats:
    """Return the variance of a figure, (...), of the pulls (..., B) of buckets on it."""
    buckets = pull.shape[-1]
    off = pull - pull.mean(axis=-1, keepdims=True)
    variance: Floats = buckets / max(buckets - 1, 1) * (off**2).sum(axis=-1)
    return variance


def left_out_variance(without: Floats) -> Floats:
    """Return the jackknife's variance of figures, (...), of those without one bucket, (..., B)."""
    buckets = without.shape[-1]
    off = without - without.mean(axis=-1, keepdims=True)
    variance: Floats = (buckets - 1) / buckets * (off**2).sum(axis=-1)
    return variance


def ratio_variance(over: Floats, under: Floats) -> Floats:
    """Return the variance of Σover/Σunder, (...), of sums (..., B), by leaving out each bucket.

    NaN where one bucket has all.
    """
    y, x = over.sum(axis=-1, keepdims=True), under.sum(axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return left_out_variance((y - over) / (x - under))


def own_design_effect(counts: Counts) -> Floats:
    """Return what the buckets themselves say of the design effect, (...): NaN where they are mute.

    Not held to 1 or more.
    """
    k, n = counts.k.sum(axis=-1), counts.n.sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = k / n
        alone = rate * (1.0 - rate) / n
        return np.asarray(ratio_variance(counts.k, counts.n) / alone)


def pooled_design_effect(counts: Counts) -> float:
    """Return the design effect of groups (G, B) taken together, each around its own rate.

    1 or more; 1 where nothing speaks.
    """
    k, n = counts.k.sum(axis=-1), counts.n.sum(axis=-1)
    weight = k * (1.0 - k / np.maximum(n, 1.0))
    own = own_design_effect(counts)
    speaks = np.isfinite(own) & (weight > 0.0)
    if not speaks.any():
        return 1.0
    return max(1.0, float(np.average(own[speaks], weights=weight[speaks])))


def steadied(own: Any, events: Any, buckets: int, like: float) -> Floats:
    """Return a design effect of what the buckets say, and of what is like it as far as they do not.

    `events`: of the rarer kind, on which `own` rests. A design effect differs from what it is like
    by about 30 %; its own error comes from the number of buckets and of bursts.
    """
    with np.errstate(divide="ignore"):
        error = 2.0 / buckets + own / np.asarray(events, np.float64)
    trust = _UNLIKE**2 / (_UNLIKE**2 + error)
    return np.asarray(np.maximum(own, trust * own + (1.0 - trust) * max(like, 1.0)))


def worth(counts: Counts, like: float = 1.0) -> Worth:
    """Return what shares (...) are worth. `like`: the design effect of counts like these."""
    checked(*counts)
    if (counts.k > counts.n).any():
        raise ValueError("there are more events than trials in a bucket")
    k, n = counts.k.sum(axis=-1), counts.n.sum(axis=-1)
    return worth_of(k, n, own_design_effect(counts), counts.n, like)


def worth_of(k: Any, n: Any, own: Any, weight: Floats, like: float) -> Worth:
    """Return what k events of n trials (...) are worth, of the design effect that buckets tell.

    `own`: not finite where they are mute. `weight` (..., B): what each bucket holds of the trials.
    """
    own = np.where(np.isfinite(own), np.maximum(own, 1.0), 1.0)
    buckets, events = weight.shape[-1], np.minimum(k, n - k)
    effect = steadied(own, events, buckets, like)
    clusters = clusters_dof(weight, own)
    bursts = (own - 1.0) / (2.0 * np.maximum(events, 1.0))
    noise = np.where(clusters > 0.0, 1.0 / np.maximum(clusters, 1.0), inf) + bursts
    # As far as the design effect is borrowed, its error is not that of the own buckets.
    dof = np.minimum((effect / own) ** 2 / noise, max(buckets - 1, 1))
    return Worth(Share(k / effect, n / effect, dof), effect)


def rate(counts: Counts, *, like: float, confidence: float = CONFIDENCE) -> Figure:
    """Return Σk/Σn of counts (B,), with Wilson's interval by what they are worth.

    `like`: the design effect that counts like these have, by `pooled_design_effect` of all groups,
    or of a longer time; 1.0 claims that events come singly. Where they come in bursts and few
    have come, the interval depends on it: nothing in five events tells bursts from single ones.
    """
    one = worth(counts, like)
    return share_figure(one.share, counts, float(one.design_effect), confidence)


def rates(
    counts: Counts, *, like: float = 1.0, confidence: float = CONFIDENCE
) -> tuple[Figure, ...]:
    """Return the rate of each group, of counts (G, B); few events borrow the design effect of all
    groups together, or `like` where that is more."""
    like = max(like, pooled_design_effect(counts))
    each = (Counts(k, n) for k, n in zip(counts.k, counts.n, strict=True))
    return tuple(rate(one, like=like, confidence=confidence) for one in each)


def share_figure(
    share: Share, counts: Counts, design_effect: float | None, confidence: float = CONFIDENCE
) -> Figure:
    """Return a share with Wilson's interval, or why it has none. `counts`: as counted, (B,)."""
    n, events = float(counts.n.sum()), float(counts.k.sum())
    if not share.trials > 0.0:
        return Figure(None, None, None, n, events, reason="no_observations")
    if not share.dof > 0.0:
        return Figure(float(share.value), None, None, n, events, reason="one_cluster")
    low, high = wilson_bounds(share, confidence=confidence)
    return Figure(float(share.value), float(low), float(high), n, events, design_effect)


def rate_difference(
    one: Counts, other: Counts, *, like: float, confidence: float = CONFIDENCE
) -> Figure:
    """Return the rate of one group less the other's, of counts (B,), with Newcombe's interval.

    `n` and `events` of the figure are the first group's.
    """
    a, b = _pair(one, other, like)
    n, events = float(one.n.sum()), float(one.k.sum())
    reason = _mute(a, b)
    if reason is not None:
        value = None if reason == "no_observations" else float(a.share.value - b.share.value)
        return Figure(value, None, None, n, events, reason=reason)
    low, high = newcombe_bounds(a.share, b.share, confidence=confidence)
    value = float(a.share.value - b.share.value)
    return Figure(value, float(low), float(high), n, events, float(a.design_effect))


class Ratio(NamedTuple):
    """A ratio of two shares: the figure, and the shares that its p-values are made from."""

    figure: Figure
    one: Share
    other: Share

    def p_beyond(self, limit: float, *, above: bool) -> float:
        """Return the p-value of the ratio not lying above (or below) a limit."""
        return ratio_p_beyond(self.one, self.other, limit, above=above)


def rate_ratio(
    one: Counts, reference: Counts, *, like: float, confidence: float = CONFIDENCE
) -> Ratio:
    """Return (Σk/Σn of one) / (Σk/Σn of the reference), of counts (B,) over the same buckets.

    The interval is that of the score, by what both are worth. A customer may be in both groups:
    buckets where both rates are off together, or against each other, show in

        u_b = (k1_b - r1·n1_b)/k1 - (k0_b - r0·n0_b)/k0,   V(log ratio) = B/(B-1) · Σ u_b²

    and both design effects grow by V over the sum of the groups' own, where that is more than 1.
    """
    a, b = _pair(one, reference, like)
    return ratio_of(a.share, b.share, one, float(a.design_effect), confidence)


def ratio_of(
    one: Share,
    other: Share,
    counts: Counts,
    design_effect: float | None,
    confidence: float = CONFIDENCE,
) -> Ratio:
    """Return the ratio of two shares; `counts` (B,): the first group's, as counted."""
    n, events = float(counts.n.sum()), float(counts.k.sum())

    def ratio(
        value: float | None, low: float | None, high: float | None, reason: Reason | None
    ) -> Ratio:
        return Ratio(Figure(value, low, high, n, events, design_effect, reason), one, other)

    if not (one.trials > 0.0 and other.trials > 0.0):
        return ratio(None, None, None, "no_observations")
    value = float(one.value / other.value) if other.value > 0.0 else None
    if not (one.dof > 0.0 and other.dof > 0.0):
        return ratio(value, None, None, "one_cluster")
    low, high = (float(end) for end in ratio_bounds(one, other, confidence=confidence))
    if value is None:
        return ratio(None, low, None, "no_events_in_reference")
    return ratio(value, low, high if isfinite(high) else None, None)


def ratio_of_sums(
    amounts: Amounts,
    *,
    like: float = 1.0,
    cap: float | None = None,
    confidence: float = CONFIDENCE,
) -> Figure:
    """Return Σy/Σx of amounts (B,), such as fraud's share of turnover; 1 basis point is 1e-4.

    The interval is that of `score_bounds`: frauds come rarely, each with an amount of its own.

    `cap`: the most a single y can be; where none came, it and the design effect `like` say what
    may yet come. Where single frauds are so different that a few make the sum (lognormal with
    σ of 1.5), no interval covers what has not been seen: sum min(y, cap).
    """
    checked(*amounts)
    y, x = (float(one.sum()) for one in amounts)
    if not x > 0.0:
        return Figure(None, None, None, x, y, reason="no_observations")
    value = y / x
    dof = float(clusters_dof(amounts.under))
    if not dof > 0.0:
        return Figure(value, None, None, x, y, reason="one_cluster")
    if y == 0.0:
        if cap is None:
            return Figure(0.0, 0.0, None, x, y, reason="no_events")
        most = quantile(confidence, dof) ** 2 * cap * max(like, 1.0) / x
        return Figure(0.0, 0.0, most, x, y)
    variance = float(ratio_variance(*amounts))
    low, high = score_bounds(value, variance, confidence=confidence, dof=dof)
    return Figure(value, low, high, x, y)


def expected_ratio(one: Amounts, other: Amounts, *, confidence: float = CONFIDENCE) -> Ratio:
    """Return (Σy/Σx of one) / (Σy/Σx of the other): y events (B,), x how many were expected.

    Were events independent, their number would vary as Poisson's at the most, so that x stands for
    an exposure and the interval is the score's for rates. By how much buckets differ more is the
    design effect; where few events came, that of both together stands in. `n` and `events` of the
    figure: the first one's x and y.
    """
    owns = [_own_spread(amounts) for amounts in (one, other)]
    events = [float(amounts.over.sum()) for amounts in (one, other)]
    speaks = [i for i in (0, 1) if np.isfinite(owns[i]) and events[i] > 0.0]
    like = 1.0
    if speaks:
        like = float(np.average([owns[i] for i in speaks], weights=[events[i] for i in speaks]))
    a, b = (
        worth_of(
            amounts.over.sum(), amounts.under.sum() * _RARE, own, amounts.under, max(1.0, like)
        )
        for amounts, own in zip((one, other), owns, strict=True)
    )
    effect = float(a.design_effect)
    return ratio_of(a.share, b.share, Counts(one.over, one.under), effect, confidence)


def _own_spread(amounts: Amounts) -> float:
    """Return by how much Σy/Σx varies between buckets, over what Poisson's would."""
    checked(*amounts)
    y, x = (float(one.sum()) for one in amounts)
    if not (y > 0.0 and x > 0.0):
        return nan
    return float(ratio_variance(*amounts)) * x**2 / y


def _pair(one: Counts, other: Counts, like: float) -> tuple[Worth, Worth]:
    """Return what both are worth, less what they are off together."""
    a, b = worth(one, like), worth(other, like)
    checked(one.k, other.k)
    if not (one.k.sum() > 0.0 and other.k.sum() > 0.0):
        return a, b
    pulls = [
        (counts.k - counts.k.sum() / counts.n.sum() * counts.n) / counts.k.sum()
        for counts in (one, other)
    ]
    apart = float(linear_variance(pulls[0]) + linear_variance(pulls[1]))
    together = float(linear_variance(pulls[0] - pulls[1]))
    more = max(1.0, together / apart) if apart > 0.0 else 1.0
    return _dearer(a, more), _dearer(b, more)


def _dearer(one: Worth, factor: float) -> Worth:
    share = one.share
    return Worth(
        Share(share.events / factor, share.trials / factor, share.dof), one.design_effect * factor
    )


def _mute(one: Worth, other: Worth) -> Reason | None:
    if not (one.share.trials > 0.0 and other.share.trials > 0.0):
        return "no_observations"
    return None if one.share.dof > 0.0 and other.share.dof > 0.0 else "one_cluster"
