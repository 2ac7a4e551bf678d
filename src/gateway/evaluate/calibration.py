"""How well probabilities hold on labelled payments: figures, each with its interval. Pure.

`p` (n,) are probabilities, `y` (n,) is 1 where a payment was fraud, else 0; `weights` (n,) are
amounts where money counts. `cluster` (n,) is equal for payments that are not independent: all
intervals are as wide as the clusters ask for. Where it is left out, each payment stands alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import inf, isfinite, log, nan, sqrt
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.decide import EDGE
from gateway.evaluate.intervals import CONFIDENCE, UNKNOWN, Estimate, quantile, wilson

Floats = NDArray[np.float64]
Truths = NDArray[np.bool_]
Codes = NDArray[np.int64]

FOLDS = 5
_NEWTON_STEPS = 200
_CONVERGED = 1e-8
"""Of the last step: Newton's error behind it is its square."""

_SLOPE_MAX = 1e3
"""Where the labels are told apart without an error, the slope has no end."""


_CONDITION_MAX = 1e12
"""Of the information: beyond it, probabilities are too alike to have a slope."""


class Bin(NamedTuple):
    """Payments of alike probabilities: how many, what was expected, and what came of them."""

    n: int
    expected: float
    observed: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Recalibration:
    """logit P(y) = intercept + slope · logit p, by maximum likelihood, and standard errors.

    `shift`: the intercept where the slope is 1, which is the logarithm of what the odds are off
    by. A model whose probabilities hold has 0, 1 and 0.
    """

    intercept: float
    slope: float
    shift: float
    se_intercept: float
    se_slope: float
    se_shift: float

    def of(self, p: Floats) -> Floats:
        """Return probabilities put right."""
        return _sigmoid(self.intercept + self.slope * logit(p))


def logit(p: Floats) -> Floats:
    """Return log-odds; what is nearer than EDGE to 0 or 1 is put at EDGE."""
    clipped = np.clip(p, EDGE, 1.0 - EDGE)
    odds: Floats = np.log(clipped / (1.0 - clipped))
    return odds


def observed_over_expected(
    p: Floats,
    y: Floats,
    weights: Floats | None = None,
    cluster: Codes | None = None,
    *,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """Return Σwy / Σwp, and which ratios the data do not speak against.

    A ratio r belongs to the interval where the sum that came lies within the errors of r times
    the sum that was expected, as they would be if r were true (a score interval): so that rare,
    large frauds that did not happen to come count as well.
    """
    w = np.ones(len(p)) if weights is None else weights
    expected, observed = float((w * p).sum()), float((w * y).sum())
    if not expected > 0.0:
        return UNKNOWN
    variance = float((w**2 * p * (1.0 - p)).sum()) * design_effect(w * (y - p), cluster)
    # |observed - r·expected| = z·sqrt(r·variance), solved for r.
    half = quantile(confidence) ** 2 * variance / (2.0 * expected)
    root = sqrt(half * (half + 2.0 * observed))
    return Estimate(
        observed / expected,
        (observed + half - root) / expected,
        (observed + half + root) / expected,
    )


def design_effect(residuals: Floats, cluster: Codes | None) -> float:
    """Return by what clusters multiply the variance of a sum: 1 or more."""
    if cluster is None:
        return 1.0
    alone = float((residuals**2).sum())
    return max(1.0, float((_summed(residuals, cluster) ** 2).sum()) / alone) if alone else 1.0


def recalibration(
    p: Floats, y: Floats, weights: Floats | None = None, cluster: Codes | None = None
) -> Recalibration | None:
    """Return the logistic regression of y on logit p; None where y does not determine it.

    Standard errors are those of the model; with clusters, of the sandwich between them.
    """
    w = np.ones(len(p)) if weights is None else weights
    x = logit(p)
    both = np.column_stack([np.ones(len(p)), x])
    free = _newton(both, y, w, np.zeros(len(p)), cluster)
    if free is None or abs(free[0][1]) > _SLOPE_MAX:
        return None
    fixed = _newton(both[:, :1], y, w, x, cluster)
    if fixed is None:
        return None
    (intercept, slope), (se_intercept, se_slope) = free
    (shift,), (se_shift,) = fixed
    return Recalibration(intercept, slope, shift, se_intercept, se_slope, se_shift)


def _newton(
    x: Floats, y: Floats, w: Floats, offset: Floats, cluster: Codes | None
) -> tuple[list[float], list[float]] | None:
    """Return the coefficients of the most likely logistic model, and their standard errors."""
    rate = float((w * y).sum()) / float(w.sum()) if len(y) else 0.0
    if not 0.0 < rate < 1.0:
        return None
    coefficients: Floats = np.zeros(x.shape[1])
    coefficients[0] = log(rate / (1.0 - rate)) - float(np.median(offset))
    likelihood = -inf
    step: Floats = np.zeros(x.shape[1])
    for _ in range(_NEWTON_STEPS):
        z = offset + x @ coefficients
        small = np.exp(-np.abs(z))
        reached = float((w * (y * z - np.maximum(z, 0.0) - np.log1p(small))).sum())
        if reached < likelihood - 1e-9 * abs(likelihood):
            step /= 2.0  # too far: half of it
            coefficients -= step
            continue
        likelihood = reached
        q = np.where(z >= 0.0, 1.0, small) / (1.0 + small)
        information = (x * (w * q * (1.0 - q))[:, None]).T @ x
        try:
            step = np.asarray(np.linalg.solve(information, x.T @ (w * (y - q))), np.float64)
        except np.linalg.LinAlgError:
            return None
        coefficients = coefficients + step
        if np.abs(step).max() < _CONVERGED * (1.0 + np.abs(coefficients).max()):
            break
    else:
        return None
    if np.linalg.cond(information) > _CONDITION_MAX:
        return None
    inverse = np.linalg.inv(information)
    if cluster is not None:
        scores = np.column_stack(
            [_summed(column, cluster) for column in (x * (w * (y - q))[:, None]).T]
        )
        inverse = inverse @ (scores.T @ scores) @ inverse
    errors = np.sqrt(np.diag(inverse))
    return coefficients.tolist(), errors.tolist()


def spiegelhalter_z(p: Floats, y: Floats) -> float:
    """Return Spiegelhalter's Z (1986): normal with variance 1 where the probabilities hold."""
    gain = 1.0 - 2.0 * p
    variance = float((gain**2 * p * (1.0 - p)).sum())
    return float(((y - p) * gain).sum()) / sqrt(variance) if variance else nan


def brier(p: Floats, y: Floats) -> float:
    """Return the mean squared difference of probability and truth; the least is the best."""
    return float(((p - y) ** 2).mean())


def log_loss(p: Floats, y: Floats) -> float:
    """Return the mean negative log-likelihood in nats; the least is the best."""
    z = logit(p)
    return float((np.logaddexp(0.0, z) - y * z).mean())


def equal_mass_bins(
    p: Floats, y: Floats, bins: int = 10, *, confidence: float = CONFIDENCE
) -> tuple[Bin, ...]:
    """Return payments in bins of as many each; equal probabilities stay together.

    Fraud is rare: in bins of equal width nearly all payments share the first.
    """
    edges = np.quantile(p, np.linspace(0.0, 1.0, bins + 1))
    place = np.searchsorted(edges[1:-1], p)
    counts = np.bincount(place, minlength=bins)
    expected = np.bincount(place, weights=p, minlength=bins)
    frauds = np.bincount(place, weights=y, minlength=bins)
    return tuple(
        Bin(n, total / n, k / n, *wilson(k, n, confidence=confidence))
        for n, total, k in zip(counts.tolist(), expected.tolist(), frauds.tolist(), strict=True)
        if n
    )


def auc(
    p: Floats, y: Floats, cluster: Codes | None = None, *, confidence: float = CONFIDENCE
) -> Estimate:
    """Return how often a fraud has a higher probability than a genuine payment; ties are a half.

    The interval is DeLong's (1988); with clusters, of their sums.
    """
    fraud = y > 0.5
    m, n = int(fraud.sum()), int((~fraud).sum())
    if m < 2 or n < 2:
        return UNKNOWN
    ranks, within = _midranks(p), np.empty(len(p))
    within[fraud], within[~fraud] = _midranks(p[fraud]), _midranks(p[~fraud])
    beaten = (ranks - within) / np.where(fraud, n, m)  # of the other kind, the share below
    value = float(beaten[fraud].mean())
    placed = np.where(fraud, beaten, 1.0 - beaten) - value
    pull = placed / np.where(fraud, sqrt(m * (m - 1)), sqrt(n * (n - 1)))
    sums = pull if cluster is None else _summed(pull, cluster)
    half = quantile(confidence) * sqrt(float((sums**2).sum()))
    return Estimate(value, max(0.0, value - half), min(1.0, value + half))


def crossings(alphas: Floats, betas: Floats) -> Floats:
    """Return the probabilities at which the cheapest of k actions changes: (n, k·(k-1)/2).

    `alphas`, `betas` (n, k): each action costs alpha + beta·p. NaN where two actions are never
    the cheapest together.
    """
    found: list[Floats] = []
    for i, j in combinations(range(alphas.shape[1]), 2):
        slope = betas[:, i] - betas[:, j]
        at = np.divide(
            alphas[:, j] - alphas[:, i], slope, out=np.full(len(slope), nan), where=slope != 0.0
        )
        with np.errstate(invalid="ignore"):
            cost = alphas[:, i] + betas[:, i] * at
            least = (alphas + betas * at[:, None]).min(axis=1)
            cheapest = cost <= least + 1e-9 * (1.0 + np.abs(least))
            at[~(cheapest & (at > 0.0) & (at < 1.0))] = nan
        found.append(at)
    return np.column_stack(found) if found else np.empty((len(alphas), 0))


def near(p: Floats, thresholds: Floats) -> Truths:
    """Return which of p (n,) lie within half and twice one of their thresholds (n, m)."""
    with np.errstate(invalid="ignore"):
        inside = (thresholds / 2.0 <= p[:, None]) & (p[:, None] <= 2.0 * thresholds)
    return np.asarray(inside.any(axis=1))


def action_costs(p: Floats, y: Floats, alphas: Floats, betas: Floats) -> Floats:
    """Return what each payment costs (n,) where the cheapest action by p meets the truth y."""
    best = (alphas + betas * p[:, None]).argmin(axis=1)
    rows = np.arange(len(p))
    cost: Floats = alphas[rows, best] + betas[rows, best] * y
    return cost


def cross_fitted(p: Floats, y: Floats, cluster: Codes | None = None) -> Floats:
    """Return p (n,) put right by `recalibration`, each by what the other folds' labels say.

    All payments of a cluster are in one fold of FOLDS. Where the others do not say, p stays.
    """
    codes = np.arange(len(p)) if cluster is None else np.unique(cluster, return_inverse=True)[1]
    dealt = np.random.default_rng(0).permutation(int(codes.max()) + 1 if len(p) else 0) % FOLDS
    fold = dealt[codes]
    right, z = p.copy(), logit(p)
    for i in range(FOLDS):
        held = fold == i
        kept = ~held
        x = np.column_stack([np.ones(int(kept.sum())), z[kept]])
        fitted = _newton(x, y[kept], np.ones(len(x)), np.zeros(len(x)), None)
        if fitted is not None and abs(fitted[0][1]) <= _SLOPE_MAX:
            intercept, slope = fitted[0]
            right[held] = _sigmoid(intercept + slope * z[held])
    return right


def excess_cost(
    p: Floats,
    y: Floats,
    alphas: Floats,
    betas: Floats,
    cluster: Codes | None = None,
    *,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """Return what miscalibration costs a decision, in the unit of alphas.

    The realised cost of acting on p, less that of acting on `cross_fitted` probabilities: those
    know nothing of a payment's own label, so that noise is not billed. It may be below 0 where
    there is nothing to put right.
    """
    right = cross_fitted(p, y, cluster)
    rows = np.arange(len(p))
    acted = (alphas + betas * p[:, None]).argmin(axis=1)
    better = (alphas + betas * right[:, None]).argmin(axis=1)
    excess = alphas[rows, acted] - alphas[rows, better]
    by_fraud = betas[rows, acted] - betas[rows, better]
    realised = mean(excess + by_fraud * y, cluster, confidence=confidence)
    # Where few payments flip, those frauds that did not come are an error that no label shows.
    unseen = sqrt(float((by_fraud**2 * right * (1.0 - right)).sum())) / len(p)
    half = max(realised.high - realised.value, quantile(confidence) * unseen)
    return Estimate(realised.value, realised.value - half, realised.value + half)


def savings(
    p: Floats,
    y: Floats,
    alphas: Floats,
    betas: Floats,
    cluster: Codes | None = None,
    *,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """Return the share of costs that acting on p saves, against the best single action for all.

    1 − cost / min over actions of (cost of that action for every payment).
    """
    constant = alphas + betas * y[:, None]
    least = constant[:, int(constant.sum(axis=0).argmin())]
    return _saved(action_costs(p, y, alphas, betas), least, cluster, confidence)


def savings_over_base_rate(
    p: Floats,
    y: Floats,
    alphas: Floats,
    betas: Floats,
    cluster: Codes | None = None,
    *,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """Return the share of costs that acting on p saves, against acting on the base rate.

    Without a model, amount and category still choose an action: this is what the model adds.
    """
    without = action_costs(np.full(len(p), float(y.mean())), y, alphas, betas)
    return _saved(action_costs(p, y, alphas, betas), without, cluster, confidence)


def mean(values: Floats, cluster: Codes | None, *, confidence: float = CONFIDENCE) -> Estimate:
    """Return a mean, with an interval by the sums of clusters."""
    n, value = len(values), float(values.mean())
    off = values - value
    sums = off if cluster is None else _summed(off, cluster)
    half = quantile(confidence) * sqrt(float((sums**2).sum())) / n
    return Estimate(value, value - half, value + half)


def _saved(cost: Floats, without: Floats, cluster: Codes | None, confidence: float) -> Estimate:
    base = float(without.sum())
    if not base > 0.0:
        return UNKNOWN
    share = float(cost.sum()) / base
    off = (cost - share * without) / base  # the pull of each payment on the ratio
    sums = off if cluster is None else _summed(off, cluster)
    half = quantile(confidence) * sqrt(float((sums**2).sum()))
    return Estimate(1.0 - share, 1.0 - share - half, 1.0 - share + half)


def _summed(values: Floats, cluster: Codes) -> Floats:
    codes = np.unique(cluster, return_inverse=True)[1]
    sums: Floats = np.bincount(codes, weights=values).astype(np.float64)
    return sums


def _midranks(values: Floats) -> Floats:
    """Return ranks from 1; equal values share the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    shared: Floats = (last - (counts - 1) / 2.0)[place]
    return shared


def _sigmoid(z: Floats) -> Floats:
    half: Floats = 0.5 * (1.0 + np.tanh(0.5 * z))
    return half


@dataclass(frozen=True, slots=True)
class Near:
    """The payments near a threshold, in one category or all: what was expected, what came.

    `low`, `high`: Wilson's interval of the observed share.
    """

    category: str
    n: int
    frauds: int
    expected: float
    observed: float
    low: float
    high: float
    ratio: Estimate

    @property
    def holds(self) -> bool:
        """Whether Wilson's interval has the mean probability in it."""
        return self.low <= self.expected <= self.high


@dataclass(frozen=True, slots=True)
class Figures:
    """All there is to say of the probabilities of one model on labelled payments.

    Costs are in the unit of the cost lines. `by_category`: observed over expected, by name.
    `near`: overall first, then each category.
    """

    n: int
    frauds: int
    mean_p: float
    ratio: Estimate
    money: Estimate
    recalibration: Recalibration | None
    slope: Estimate
    spiegelhalter_z: float
    brier: float
    log_loss: float
    auc: Estimate
    bins: tuple[Bin, ...]
    by_category: tuple[tuple[str, Estimate], ...]
    near: tuple[Near, ...]
    cost: Estimate
    excess_cost: Estimate
    savings: Estimate
    savings_over_base_rate: Estimate


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """n labelled payments with their probabilities and cost lines (n, k).

    `category` (n,): names, empty for none. `decisions`: how many the payments stand for, where
    that is not n.
    """

    p: Floats
    y: Floats
    amount: Floats
    alphas: Floats
    betas: Floats
    category: NDArray[Any]
    cluster: Codes | None = None
    decisions: float | None = None


def figures(sample: Sample, *, confidence: float = CONFIDENCE) -> Figures:
    """Return every figure of one model. Categories share the chance of an error between them."""
    p, y, cluster = sample.p, sample.y, sample.cluster
    lines = (sample.alphas, sample.betas)
    fitted = recalibration(p, y, cluster=cluster)
    names = [str(name) for name in np.unique(sample.category.astype(str)) if name]
    shared = 1.0 - (1.0 - confidence) / max(1, len(names))
    parts = [(name, sample.category == name) for name in names]
    at = near(p, crossings(*lines))
    share = 1.0 if sample.decisions is None else len(p) / sample.decisions
    return Figures(
        n=len(p),
        frauds=int(y.sum()),
        mean_p=float(p.mean()),
        ratio=observed_over_expected(p, y, cluster=cluster, confidence=confidence),
        money=observed_over_expected(p, y, sample.amount, cluster, confidence=confidence),
        recalibration=fitted,
        slope=UNKNOWN if fitted is None else _around(fitted.slope, fitted.se_slope, confidence),
        spiegelhalter_z=spiegelhalter_z(p, y),
        brier=brier(p, y),
        log_loss=log_loss(p, y),
        auc=auc(p, y, cluster, confidence=confidence),
        bins=equal_mass_bins(p, y, confidence=confidence),
        by_category=tuple((name, _ratio_of(sample, part, shared)) for name, part in parts),
        near=(
            _near(sample, "", at, confidence),
            *(_near(sample, name, at & part, shared) for name, part in parts),
        ),
        cost=_times(mean(action_costs(p, y, *lines), cluster, confidence=confidence), share),
        excess_cost=UNKNOWN
        if fitted is None
        else _times(excess_cost(p, y, *lines, cluster, confidence=confidence), share),
        savings=savings(p, y, *lines, cluster, confidence=confidence),
        savings_over_base_rate=savings_over_base_rate(p, y, *lines, cluster, confidence=confidence),
    )


def _times(estimate: Estimate, factor: float) -> Estimate:
    return Estimate(*(factor * value for value in estimate))


def _around(value: float, error: float, confidence: float) -> Estimate:
    half = quantile(confidence) * error
    return Estimate(value, value - half, value + half) if isfinite(half) else UNKNOWN


def _ratio_of(sample: Sample, part: Truths, confidence: float) -> Estimate:
    cluster = None if sample.cluster is None else sample.cluster[part]
    return observed_over_expected(
        sample.p[part], sample.y[part], cluster=cluster, confidence=confidence
    )


def _near(sample: Sample, name: str, part: Truths, confidence: float) -> Near:
    n, frauds = int(part.sum()), int(sample.y[part].sum())
    expected = float(sample.p[part].mean()) if n else nan
    low, high = wilson(frauds, n, confidence=confidence)
    ratio = _ratio_of(sample, part, confidence)
    return Near(name, n, frauds, expected, frauds / n if n else nan, low, high, ratio)
