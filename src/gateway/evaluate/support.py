"""What declines hide: a declined payment has no label. Three forms, never mixed, each named. Pure.

Over mature decisions, with the sums of `SupportSums` (its symbols: p, w = 1/e, and odds = w - 1):
N = Σ declined with e > 0, U = Σ unreached (declined with e = 0), G = Σ genuine payments that went
through (passed and explored), F = Σ frauds that went through. What is asked for is A, the genuine
ones among the declined: those are the false positives.

    false_positive_share  P(genuine | declined) = A / (N + U)
    false_positive_rate   P(declined | genuine) = A / (A + G)
    true_positive_rate    P(declined | fraud)   = A' / (A' + F), A' the frauds among the declined

**explored**: what was let through by chance speaks for what was declined. One explored payment
stands for odds declined ones, besides itself:

    ips              A = Σ odds·(1-y)                          unbiased whatever the model says
    self_normalised  A = N · Σ odds·(1-y) / Σ odds             ratio; less variance than ips
    doubly_robust    A = Σ_declined (1-p) + Σ odds·(p - y)     AIPW with the model's p: the less
                                                               variance, the better p is

and A' with y for 1-y (doubly_robust: N - A). All are unbiased or nearly, as long as e is what was
drawn with. Their effective sample size is (Σw)²/Σw² over explored; below `least` nothing is said.
Where U > 0, nothing speaks for the unreached: the interval goes from all of them fraud to none,
and there is no value (and no interval where all are unreached: that would be bounds). Whoever
wants one sums only decisions that exploration reaches (by amount).

**model_implied**: A = Σ_{declined, unreached} (1-p), over Σ (1-p) of all. It is what the model
believes of itself, so it is said only where its probabilities hold.

**bounds** (Manski 1990): A is between 0 and N + U; between (N+U)·(1 - most_fraud) and
(N+U)·(1 - least_fraud), if somebody declares to know as much. The interval holds the range and
its errors; there is no value.

Variances are linearised between buckets, of log odds = log A - log G; what few labels cannot show
is put in from Wilson's interval of A/N. A result is worth a `Share`, so that ratios of two groups
have the interval, and the p-value, of any ratio.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite, log
from typing import Literal, NamedTuple

import numpy as np

from gateway.evaluate.intervals import (
    CONFIDENCE,
    Figure,
    Reason,
    Share,
    quantile,
    ratio_bounds,
    ratio_p_beyond,
    score_bounds,
    wilson_bounds,
)
from gateway.evaluate.rates import checked, clusters_dof, linear_variance, ratio_variance, steadied
from gateway.evaluate.sums import Floats, SupportSums

Basis = Literal["explored", "model_implied", "bounds"]
Method = Literal["ips", "self_normalised", "doubly_robust"]
Target = Literal["false_positive_share", "false_positive_rate", "true_positive_rate"]

LEAST = 50.0
"""Of explored payments, by their effective sample size: below it, nothing is said."""

_CERTAIN = 1e12
"""What an end of 0 or 1 is worth that is so by declaration."""

_BEST_EFFECT = 0.25
"""How much of the variance a good model may take away at the most (doubly_robust)."""


@dataclass(frozen=True, slots=True)
class Supported:
    """A figure about declines, and what it is based on.

    `lowest`, `highest`: what it is worth if all that nothing speaks for were against it or for it;
    the same where the data give a value; None where nothing is said. `effective`: the effective
    sample size of the explored. `reached`: of the declines, the share that exploration reaches.
    """

    basis: Basis
    target: Target
    method: Method | None
    figure: Figure
    lowest: Share | None
    highest: Share | None
    effective: float
    reached: float | None

    @property
    def false_positives(self) -> Figure:
        """Of a false_positive_share: how many of the declined were genuine."""
        if self.target != "false_positive_share":
            raise ValueError(f"{self.target} counts no false positives")
        one = self.figure
        value, low, high = (
            None if end is None else end * one.n for end in (one.value, one.low, one.high)
        )
        return Figure(value, low, high, one.n, one.events, one.design_effect, one.reason)


@dataclass(frozen=True, slots=True)
class SupportedRatio:
    """A ratio of two groups' figures, of one basis. `figure.n`, `.events`: the first group's."""

    basis: Basis
    target: Target
    method: Method | None
    figure: Figure
    one: Supported
    other: Supported

    def p_beyond(self, limit: float, *, above: bool) -> float:
        """Return the p-value of the ratio not lying above (or below) a limit, whatever those are
        of whom nothing is known; 1 where nothing is said."""
        one, other = (
            (self.one.lowest, self.other.highest)
            if above
            else (self.one.highest, self.other.lowest)
        )
        if one is None or other is None:
            return 1.0
        return ratio_p_beyond(one, other, limit, above=above)


class _Hidden(NamedTuple):
    """A by bucket, linearised: its total, and each bucket's pull on it; and A/N alike."""

    total: float
    pull: Floats
    share: float
    share_pull: Floats


def explored(
    sums: SupportSums,
    target: Target,
    *,
    method: Method = "self_normalised",
    least: float = LEAST,
    confidence: float = CONFIDENCE,
) -> Supported:
    """Return a figure by what exploration let through, of sums (B,)."""
    _check(sums)
    t = _totals(sums)
    effective = _effective(t)
    if not _declines(t) > 0.0 and target == "false_positive_share":
        return _unsaid("explored", target, method, t, effective, "no_observations")
    if t.declined_n > 0.0 and not effective >= max(least, 1.0):
        return _unsaid("explored", target, method, t, effective, "too_few_explored")
    if t.unreached_n > 0.0 and not t.declined_n > 0.0:
        return _unsaid("explored", target, method, t, effective, "not_reached")
    if not _declines(t) > 0.0:
        return _nothing_declined("explored", target, method, sums, effective, confidence)
    hidden = _hidden(sums, method, genuine=target != "true_positive_rate")
    seen = min(float(t.explored_genuine), float(t.explored_fraud))
    dof = float(clusters_dof(sums.explored_w_genuine + sums.explored_w_fraud))
    by_share = _share_worth(hidden, seen, effective, dof, method)
    if method == "ips" and target == "false_positive_share":
        return _ips_share(t, hidden, by_share, confidence)
    ends = [
        _worth(sums, target, hidden, by_share, extra, dof, confidence)
        for extra in ((0.0, 1.0) if t.unreached_n > 0.0 else (0.0,))
    ]
    reason: Reason = "not_reached"
    return _said("explored", target, method, t, effective, ends[0], ends[-1], reason, confidence)


def model_implied(
    sums: SupportSums, target: Target, *, calibrated: bool, confidence: float = CONFIDENCE
) -> Supported:
    """Return a figure by the model's own probabilities, of sums (B,): only if they hold."""
    _check(sums)
    t = _totals(sums)
    effective = _effective(t)
    if not calibrated:
        return _unsaid("model_implied", target, None, t, effective, "not_calibrated")
    declined = sums.declined_n + sums.unreached_n
    fraud = sums.declined_p + sums.unreached_p
    passed = sums.passed_genuine + sums.passed_fraud + sums.explored_genuine + sums.explored_fraud
    passed_fraud = sums.passed_p + sums.explored_p
    if target == "false_positive_share":
        over, under = declined - fraud, declined
    elif target == "false_positive_rate":
        over, under = declined - fraud, declined - fraud + passed - passed_fraud
    else:
        over, under = fraud, fraud + passed_fraud
    total = float(under.sum())
    if not total > 0.0:
        return _unsaid("model_implied", target, None, t, effective, "no_observations")
    value = float(over.sum()) / total
    variance = float(np.nan_to_num(ratio_variance(over, under)))
    trials = min(total, value * (1.0 - value) / variance) if variance > 0.0 else total
    share = Share(value * trials, trials, float(clusters_dof(under)))
    return _said(
        "model_implied", target, None, t, effective, share, share, "bounds_only", confidence
    )


def bounds(
    sums: SupportSums,
    target: Target,
    *,
    least_fraud: float = 0.0,
    most_fraud: float = 1.0,
    confidence: float = CONFIDENCE,
) -> Supported:
    """Return what a figure can be whatever the declined were, of sums (B,).

    `least_fraud`, `most_fraud`: between what shares of the declined were fraud, as declared.
    """
    _check(sums)
    if not 0.0 <= least_fraud <= most_fraud <= 1.0:
        raise ValueError("least_fraud and most_fraud must be shares, the least first")
    t = _totals(sums)
    declined = sums.declined_n + sums.unreached_n
    known = _known(sums, target)
    effective = _effective(t)
    if not float((declined + known).sum()) > 0.0:
        return _unsaid("bounds", target, None, t, effective, "no_observations")
    shares = (1.0 - most_fraud, 1.0 - least_fraud)
    if target == "true_positive_rate":
        shares = (least_fraud, most_fraud)
    ends = []
    for part in shares:
        over = part * declined
        under = declined if target == "false_positive_share" else over + known
        total = float(under.sum())
        value = float(over.sum()) / total if total > 0.0 else part
        # The share of the declined is assumed, not counted: it has no error of its own.
        variance = float(np.nan_to_num(ratio_variance(over, under)))
        trials = _CERTAIN
        if 0.0 < value < 1.0:
            trials = min(total, value * (1.0 - value) / variance) if variance > 0.0 else total
        ends.append(Share(value * trials, trials, float(clusters_dof(declined + known))))
    return _said("bounds", target, None, t, effective, ends[0], ends[1], "bounds_only", confidence)


def supported_ratio(
    one: Supported, other: Supported, *, confidence: float = CONFIDENCE
) -> SupportedRatio:
    """Return one group's figure over the other's; raise ValueError unless both are alike."""
    if (one.basis, one.target, one.method) != (other.basis, other.target, other.method):
        raise ValueError(
            f"{one.target} by {one.method or one.basis} is not compared with "
            f"{other.target} by {other.method or other.basis}"
        )
    if one.method == "ips" and one.target == "false_positive_share":
        raise ValueError("ips tells sums, not shares: compare false_positive_rate instead")
    figure = _ratio_figure(one, other, confidence)
    return SupportedRatio(one.basis, one.target, one.method, figure, one, other)


def _ratio_figure(one: Supported, other: Supported, confidence: float) -> Figure:
    n, events = one.figure.n, one.figure.events
    for side in (one, other):
        if side.lowest is None or side.figure.reason == "one_cluster":
            return Figure(None, None, None, n, events, reason=side.figure.reason)
    low, high = 0.0, inf
    if one.lowest is not None and other.highest is not None:
        low = float(ratio_bounds(one.lowest, other.highest, confidence=confidence)[0])
    if one.highest is not None and other.lowest is not None:
        high = float(ratio_bounds(one.highest, other.lowest, confidence=confidence)[1])
    top = high if isfinite(high) else None
    a, b = one.figure.value, other.figure.value
    if a is None or b is None:
        reason = one.figure.reason if a is None else other.figure.reason
        return Figure(None, low, top, n, events, reason=reason)
    if not b > 0.0:
        return Figure(None, low, None, n, events, reason="no_events_in_reference")
    return Figure(a / b, low, top, n, events, reason=None if top is not None else "no_events")


def _check(sums: SupportSums) -> None:
    """Raise ValueError unless the sums could be those of probabilities and weights."""
    checked(*sums)
    passed = sums.passed_genuine + sums.passed_fraud
    shown = sums.explored_genuine + sums.explored_fraud
    for name, less, more in (
        ("passed_p is more than was passed", sums.passed_p, passed),
        ("explored_p is more than was explored", sums.explored_p, shown),
        ("declined_p is more than was declined", sums.declined_p, sums.declined_n),
        ("unreached_p is more than was unreached", sums.unreached_p, sums.unreached_n),
        ("a weight is below 1", sums.explored_genuine, sums.explored_w_genuine),
        ("a weight is below 1", sums.explored_fraud, sums.explored_w_fraud),
        ("a weight is below 1", shown, sums.explored_w2),
    ):
        if (less > more * (1.0 + 1e-9) + 1e-9).any():
            raise ValueError(f"sums by bucket: {name}")


def _totals(sums: SupportSums) -> SupportSums:
    """Return each sum over the buckets; the fields hold floats."""
    return SupportSums(*(float(one.sum()) for one in sums))  # type: ignore[arg-type]


def _effective(t: SupportSums) -> float:
    weight = t.explored_w_genuine + t.explored_w_fraud
    return float(weight**2 / t.explored_w2) if t.explored_w2 > 0.0 else 0.0


def _declines(t: SupportSums) -> float:
    return float(t.declined_n + t.unreached_n)


def _known(sums: SupportSums, target: Target) -> Floats:
    """Return who went through, of those that the target is about, (B,)."""
    if target == "false_positive_share":
        return np.zeros_like(sums.declined_n)
    if target == "false_positive_rate":
        return sums.passed_genuine + sums.explored_genuine
    return sums.passed_fraud + sums.explored_fraud


def _hidden(sums: SupportSums, method: Method, *, genuine: bool) -> _Hidden:
    """Return how many of the declined with e > 0 were genuine (or fraud)."""
    odds_genuine = sums.explored_w_genuine - sums.explored_genuine
    odds_fraud = sums.explored_w_fraud - sums.explored_fraud
    odds_p = sums.explored_w_p - sums.explored_p
    mine = odds_genuine if genuine else odds_fraud
    declined = sums.declined_n
    n = float(declined.sum())
    if not n > 0.0:
        none = np.zeros_like(declined)
        return _Hidden(0.0, none, 0.0, none)
    if method == "self_normalised":
        odds = odds_genuine + odds_fraud
        total_odds = float(odds.sum())
        share = float(mine.sum()) / total_odds if total_odds > 0.0 else 0.0
        share_pull = (mine - share * odds) / (total_odds or 1.0)
        return _Hidden(n * share, share * declined + n * share_pull, share, share_pull)
    if method == "doubly_robust":
        mine = declined - sums.declined_p + odds_p - odds_fraud
        mine = mine if genuine else declined - mine
    share = max(0.0, float(mine.sum()) / n)
    share = share if method == "ips" else min(1.0, share)
    return _Hidden(n * share, mine, share, (mine - share * declined) / n)


def _share_worth(
    hidden: _Hidden, seen: float, effective: float, dof: float, method: Method
) -> Share:
    """Return what A/N is worth. `seen`: labels of the rarer kind among the explored."""
    q = hidden.share
    if method == "ips":
        # A sum, not a share: its variance is all shown, but where none came.
        return Share(0.0, effective, dof)
    binomial = q * (1.0 - q) / effective if effective > 0.0 else 0.0
    own = float(linear_variance(hidden.share_pull)) / binomial if binomial > 0.0 else 1.0
    own = max(own, _BEST_EFFECT if method == "doubly_robust" else 1.0)
    trials = effective / float(steadied(own, seen, len(hidden.pull), 1.0))
    return Share(q * trials, trials, dof)


def _ips_share(t: SupportSums, hidden: _Hidden, none: Share, confidence: float) -> Supported:
    """Return A over declines by ips: A is a sum of weights, which knows nothing of N and may be
    above it, so it has the interval of a sum. `none`: what it is worth where none came."""
    declines, reached = _declines(t), float(t.declined_n)
    n, events = _counted(t, "false_positive_share")
    low, high = 0.0, float(wilson_bounds(none, confidence=confidence)[1]) * reached
    if hidden.total > 0.0:
        variance = float(linear_variance(hidden.pull))
        low, high = score_bounds(hidden.total, variance, confidence=confidence, dof=none.dof)
    unreached = declines - reached
    value = min(1.0, hidden.total / declines) if unreached == 0.0 else None
    if none.dof > 0.0:
        least, most = min(1.0, low / declines), min(1.0, (high + unreached) / declines)
        reason: Reason | None = None if value is not None else "not_reached"
        figure = Figure(value, least, most, n, events, reason=reason)
    else:
        figure = Figure(value, None, None, n, events, reason="one_cluster")
    return Supported(
        "explored", "false_positive_share", "ips", figure, None, None, _effective(t), _reached(t)
    )


def _worth(
    sums: SupportSums,
    target: Target,
    hidden: _Hidden,
    by_share: Share,
    extra: float,
    dof: float,
    confidence: float,
) -> Share:
    """Return what the target is worth, if a share `extra` of the unreached is counted as well."""
    over_pull = hidden.pull + extra * sums.unreached_n
    unreached = float(sums.unreached_n.sum())
    over = hidden.total + extra * unreached
    if target == "false_positive_share":
        rest_pull = sums.declined_n + sums.unreached_n - over_pull
        rest = float(sums.declined_n.sum()) + unreached - over
        if unreached == 0.0:
            return by_share
    else:
        rest_pull = _known(sums, target)
        rest = float(rest_pull.sum())
    n = float(sums.declined_n.sum())
    if not over > 0.0:
        # None came: as many trials as would expect as many as the explored could have shown.
        trials = by_share.trials * rest / n if n > 0.0 else rest
        return Share(0.0, trials, dof)
    if not rest > 0.0:
        trials = min(over, by_share.trials) if n > 0.0 else over
        return Share(trials, trials, dof)
    variance = float(linear_variance(over_pull / over - rest_pull / rest))
    if by_share.events > 0.0 or hidden.total == 0.0:
        variance += _unshown(hidden, by_share, over, n, confidence)
    value = over / (over + rest)
    # The floor is that of independent payments, each counted once.
    variance = max(variance, 1.0 / over + 1.0 / rest)
    trials = 1.0 / (value * (1.0 - value) * variance)
    return Share(value * trials, trials, dof)


def _unshown(hidden: _Hidden, by_share: Share, over: float, n: float, confidence: float) -> float:
    """Return the variance of log A that few labels cannot show: Wilson's, less the shown."""
    if not n > 0.0:
        return 0.0
    z = float(quantile(confidence, by_share.dof))
    if not isfinite(z):
        return 0.0
    low, high = (float(end) for end in wilson_bounds(by_share, confidence=confidence))
    q = hidden.share
    part = q * n / over
    shown = float(linear_variance(hidden.share_pull))
    if q > 0.0:
        # Near 1 the interval reaches further down than up; only at 1 is there no up.
        reach = log(high / low) / (2.0 if q < 1.0 else 1.0)
        return max(0.0, part**2 * ((reach / z) ** 2 - shown / q**2))
    return (high / z * n / over) ** 2


def _nothing_declined(
    basis: Basis,
    target: Target,
    method: Method | None,
    sums: SupportSums,
    effective: float,
    confidence: float,
) -> Supported:
    """Return a rate of 0: none was declined, so nothing is hidden."""
    t = _totals(sums)
    known = _known(sums, target)
    total = float(known.sum())
    if not total > 0.0:
        return _unsaid(basis, target, method, t, effective, "no_observations")
    share = Share(0.0, total, float(clusters_dof(known)))
    return _said(basis, target, method, t, effective, share, share, "not_reached", confidence)


def _unsaid(
    basis: Basis,
    target: Target,
    method: Method | None,
    t: SupportSums,
    effective: float,
    reason: Reason,
) -> Supported:
    n, events = _counted(t, target)
    figure = Figure(None, None, None, n, events, reason=reason)
    return Supported(basis, target, method, figure, None, None, effective, _reached(t))


def _said(
    basis: Basis,
    target: Target,
    method: Method | None,
    t: SupportSums,
    effective: float,
    lowest: Share,
    highest: Share,
    reason: Reason,
    confidence: float,
) -> Supported:
    """Return a figure by what its ends are worth; without a value, for `reason`, if they differ."""
    n, events = _counted(t, target)
    if not highest.trials > 0.0:
        return _unsaid(basis, target, method, t, effective, "no_observations")
    value = float(lowest.value) if lowest == highest else None
    if not (lowest.dof > 0.0 and highest.dof > 0.0):
        figure = Figure(value, None, None, n, events, reason="one_cluster")
    else:
        low = float(wilson_bounds(lowest, confidence=confidence)[0])
        high = float(wilson_bounds(highest, confidence=confidence)[1])
        figure = Figure(value, low, high, n, events, reason=None if value is not None else reason)
    return Supported(basis, target, method, figure, lowest, highest, effective, _reached(t))


def _counted(t: SupportSums, target: Target) -> tuple[float, float]:
    """Return how many declines (or declines and labels) a target is about, and what labels of its
    events exploration has shown."""
    declined = _declines(t)
    if target == "false_positive_share":
        return declined, float(t.explored_genuine)
    if target == "false_positive_rate":
        return declined + float(t.passed_genuine + t.explored_genuine), float(t.explored_genuine)
    return declined + float(t.passed_fraud + t.explored_fraud), float(t.explored_fraud)


def _reached(t: SupportSums) -> float | None:
    declined = _declines(t)
    return float(t.declined_n) / declined if declined > 0.0 else None
