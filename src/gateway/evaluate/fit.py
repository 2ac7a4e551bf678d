"""Calibration maps fitted to labels: what `decide.calibration` maps with. Pure.

    platt      sigmoid(a·logit(score) + b)   for scores in 0..1
    logistic   sigmoid(a·score + b)          for any score: Platt (1999) as he wrote it, and
                                             scikit-learn's `CalibratedClassifierCV(sigmoid)`
    beta       sigmoid(a·ln s − b·ln(1−s) + c), a, b ≥ 0: Kull, Silva Filho and Flach (2017)
    isotonic   the monotone curve of least squares, by pooling adjacent violators

The first three are fitted by maximum likelihood with Platt's smoothed targets,
(n₊ + 1)/(n₊ + 2) and 1/(n₋ + 2), so that they are finite also where scores separate the classes.
`platt` equals scikit-learn's sigmoid where that is given the log-odds of the scores.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from gateway.decide import EDGE, Calibration, from_mapping

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Places = NDArray[np.int64]

FOLDS = 5

_STEPS = 100
_RIDGE = 1e-9
_CONVERGED = 1e-10


@dataclass(frozen=True, slots=True)
class Fitted:
    """A map with the parameters that `from_mapping` reads."""

    kind: str
    parameters: Mapping[str, Any]
    map: Calibration = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "map", from_mapping(self.kind, self.parameters))


def kinds_for(scores: Floats) -> tuple[str, ...]:
    """Return the kinds of maps that scores can have, the simplest first."""
    if scores.min() >= 0.0 and scores.max() <= 1.0:
        return "identity", "platt", "beta", "isotonic"
    return "logistic", "isotonic"


def fit(kind: str, scores: Floats, fraud: Flags) -> Fitted:
    """Fit a map of one kind.

    Args:
        kind: of `decide.calibration`'s maps.
        scores: shape (n,), finite; in 0..1 for platt and beta.
        fraud: shape (n,), which payments were fraud.

    Raises:
        ValueError: the labels make no rising map of these scores; says why.
    """
    if kind == "identity":
        return Fitted(kind, {})
    if not fraud.any() or fraud.all():
        raise ValueError("the labels are all alike")
    if scores.min() == scores.max():
        raise ValueError("every score is the same")
    match kind:
        case "platt":
            a, b = fit_logistic(_log_odds(scores), fraud)
            parameters = {"a": a, "b": b}
        case "logistic":
            a, b = fit_logistic(scores, fraud)
            parameters = {"a": a, "b": b}
        case "beta":
            a, b, c = fit_beta(scores, fraud)
            parameters = {"a": a, "b": b, "c": c}
        case "isotonic":
            x, y = fit_isotonic(scores, fraud)
            return Fitted(kind, {"x": x.tolist(), "y": y.tolist()})
        case _:
            raise ValueError(f"{kind!r} is no calibration map that is fitted")
    if kind == "platt" and parameters["a"] <= 0.0:
        raise ValueError("frauds score no higher than genuine payments: the map would fall")
    return Fitted(kind, parameters)


def fit_logistic(scores: Floats, fraud: Flags) -> tuple[float, float]:
    """Return a, b of P(fraud) = sigmoid(a·score + b), by maximum likelihood.

    With Platt's smoothed targets (1999) the fit is finite also where the scores separate the
    classes.
    """
    weights, _ = _likeliest(scores[None, :], fraud)
    return float(weights[0]), float(weights[1])


def fit_beta(scores: Floats, fraud: Flags) -> tuple[float, float, float]:
    """Return a, b, c of P(fraud) = sigmoid(a·ln s − b·ln(1−s) + c), with a and b at least 0.

    The likelihood is concave: where its maximum has a slope below 0, the best of the bounded
    ones has that slope, or the other, at 0.
    """
    s = np.clip(scores, EDGE, 1.0 - EDGE)
    columns = np.stack((np.log(s), -np.log1p(-s)))
    (a, b, c), _ = _likeliest(columns, fraud)
    if a >= 0.0 and b >= 0.0:
        return float(a), float(b), float(c)
    edges: list[tuple[float, tuple[float, float, float]]] = []
    for kept in (0, 1):
        (slope, intercept), loss = _likeliest(columns[kept : kept + 1], fraud)
        if slope >= 0.0:
            ab = (float(slope), 0.0) if kept == 0 else (0.0, float(slope))
            edges.append((loss, (*ab, float(intercept))))
    if not edges:
        raise ValueError("frauds score no higher than genuine payments: the map would fall")
    return min(edges)[1]


def fit_isotonic(scores: Floats, fraud: Flags) -> tuple[Floats, Floats]:
    """Return the points (x, y) of the rising curve of least squares; at least two.

    Payments of equal scores count together. Within a level only its two ends are kept: the
    curve is the same.
    """
    x, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    means = np.bincount(place, weights=fraud) / counts
    y = np.clip(isotonic_regression(means, weights=counts.astype(np.float64)).x, 0.0, 1.0)
    y = np.maximum.accumulate(y)  # pooled means may differ in their last bits
    kept = np.ones(len(x), dtype=np.bool_)
    kept[1:-1] = (y[1:-1] != y[:-2]) | (y[1:-1] != y[2:])
    return x[kept], y[kept]


def folds_of(
    cluster: Places, fraud: Flags, chance: np.random.Generator, *, folds: int = FOLDS
) -> Places:
    """Return a fold for each payment, shape (n,): all of a cluster's payments are in one.

    Clusters with the most frauds are dealt out first, each to the fold with the fewest frauds,
    then with the fewest payments.

    Raises:
        ValueError: fewer than two clusters have frauds, or genuine payments.
    """
    _, place = np.unique(cluster, return_inverse=True)
    frauds = np.bincount(place, weights=fraud).astype(np.int64)
    payments = np.bincount(place)
    guilty = int((frauds > 0).sum())
    folds = min(folds, guilty, int((payments > frauds).sum()))
    if folds < 2:
        raise ValueError(f"{guilty} cluster with frauds cannot be parted into folds")
    fold_of = np.empty(len(payments), dtype=np.int64)
    order = chance.permutation(len(payments))
    order = order[np.lexsort((-payments[order], -frauds[order]))]
    dealt_frauds, dealt = [0] * folds, [0] * folds
    for one in order.tolist():
        fold = min(range(folds), key=lambda f: (dealt_frauds[f], dealt[f]))
        if not frauds[one]:
            fold = min(range(folds), key=dealt.__getitem__)
        fold_of[one] = fold
        dealt_frauds[fold] += int(frauds[one])
        dealt[fold] += int(payments[one])
    return fold_of[place]


def out_of_fold(
    kind: str, scores: Floats, fraud: Flags, fold: Places, taught: Flags | None = None
) -> Floats:
    """Return P(fraud) of each payment, shape (n,), by the map fitted to the other folds.

    `taught` (n,): the payments that maps are fitted to; all, where left out.

    Raises:
        ValueError: as `fit`.
    """
    p = np.empty(len(scores))
    for held in np.unique(fold):
        inside = fold == held
        others = ~inside if taught is None else ~inside & taught
        p[inside] = fit(kind, scores[others], fraud[others]).map.many(scores[inside])
    return p


def _log_odds(scores: Floats) -> Floats:
    s = np.clip(scores, EDGE, 1.0 - EDGE)
    odds: Floats = np.log(s / (1.0 - s))
    return odds


def _likeliest(columns: Floats, fraud: Flags) -> tuple[Floats, float]:
    """Return the slope of each column (d, n) and the intercept, (d + 1,), and their loss.

    Newton's steps, halved while they make it worse, on standardised columns; the ridge only
    keeps a step from dividing by nothing.
    """
    centre, spread = columns.mean(axis=1), columns.std(axis=1)
    spread = np.where(spread > 0.0, spread, 1.0)
    x = np.vstack(((columns - centre[:, None]) / spread[:, None], np.ones(columns.shape[1])))
    frauds = int(fraud.sum())
    others = len(fraud) - frauds
    target = np.where(fraud, (frauds + 1) / (frauds + 2), 1 / (others + 2))
    weights = np.zeros(len(x))
    weights[-1] = math.log((frauds + 1) / (others + 1))
    loss = _loss(weights, x, target)
    for _ in range(_STEPS):
        p = _sigmoid(weights @ x)
        gradient = x @ (p - target)
        hessian = (x * (p * (1.0 - p))) @ x.T + _RIDGE * np.eye(len(x))
        step = np.linalg.solve(hessian, gradient)
        for halved in range(30):
            tried = weights - step / 2**halved
            new_loss = _loss(tried, x, target)
            if new_loss <= loss:
                break
        else:
            break
        moved = float(np.abs(tried - weights).max())
        weights, loss = tried, new_loss
        if moved < _CONVERGED:
            break
    slopes = weights[:-1] / spread
    return np.append(slopes, weights[-1] - slopes @ centre), loss


def _sigmoid(z: Floats) -> Floats:
    e = np.exp(-np.abs(z))
    p: Floats = np.where(z >= 0, 1.0, e) / (1.0 + e)
    return p


def _loss(weights: Floats, x: Floats, target: Floats) -> float:
    """Return the negative log-likelihood: sum of log(1 + e^z) − target·z."""
    z = weights @ x
    return float((np.logaddexp(0.0, z) - target * z).sum())
