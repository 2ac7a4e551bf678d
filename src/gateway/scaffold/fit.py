"""What labels say of scores: how well they rank, and the logistic map that fits them. Pure."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

_STEPS = 100
_RIDGE = 1e-9
_CONVERGED = 1e-10


def auc(scores: Floats, fraud: Flags) -> float:
    """Return P(a fraud's score is above a genuine one's), ties counted half; NaN for one class.

    Mann and Whitney (1947): by the sum of the frauds' mean ranks.
    """
    frauds = int(fraud.sum())
    others = len(fraud) - frauds
    if not frauds or not others:
        return math.nan
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean_rank = last - (counts - 1) / 2
    ranks = float(mean_rank[place][fraud].sum())
    return (ranks - frauds * (frauds + 1) / 2) / (frauds * others)


def chance_error(frauds: int, others: int) -> float:
    """Return the standard deviation of the AUC of scores that tell nothing.

    Mann and Whitney (1947); ties make it smaller.
    """
    return math.sqrt((frauds + others + 1) / (12 * frauds * others))


def fit_logistic(scores: Floats, fraud: Flags) -> tuple[float, float]:
    """Return a, b of P(fraud) = sigmoid(a·score + b), by maximum likelihood.

    With Platt's smoothed targets (1999), (n₊ + 1)/(n₊ + 2) and 1/(n₋ + 2), the fit is finite
    also where the scores separate the classes. Newton's steps, halved while they make it
    worse, on standardised scores; the ridge only keeps a step from dividing by nothing.
    """
    centre, spread = float(scores.mean()), float(scores.std())
    if not spread > 0.0:
        spread = 1.0
    x = (scores - centre) / spread
    frauds = int(fraud.sum())
    others = len(fraud) - frauds
    target = np.where(fraud, (frauds + 1) / (frauds + 2), 1 / (others + 2))
    weights = np.array([0.0, math.log((frauds + 1) / (others + 1))])
    loss = _loss(weights, x, target)
    for _ in range(_STEPS):
        p = _sigmoid(weights[0] * x + weights[1])
        off, v = p - target, p * (1 - p)
        gradient = np.array([off @ x, off.sum()])
        cross = v @ x
        hessian = np.array([[v @ (x * x) + _RIDGE, cross], [cross, v.sum() + _RIDGE]])
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
    a = float(weights[0]) / spread
    return a, float(weights[1]) - a * centre


def _sigmoid(z: Floats) -> Floats:
    e = np.exp(-np.abs(z))
    p: Floats = np.where(z >= 0, 1.0, e) / (1.0 + e)
    return p


def _loss(weights: Floats, x: Floats, target: Floats) -> float:
    """Return the negative log-likelihood: sum of log(1 + e^z) − target·z."""
    z = weights[0] * x + weights[1]
    return float((np.logaddexp(0.0, z) - target * z).sum())
