"""What labels say of scores: how well they rank. Pure."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


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
