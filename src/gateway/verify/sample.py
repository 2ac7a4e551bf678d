"""Labelled payments with what a model and its product make of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gateway.decide import Policy
from gateway.decide.calibration import shift_many
from gateway.evaluate.calibration import Floats, Sample
from gateway.evaluate.stakes import classes_of, stakes_of
from gateway.model import Rows

if TYPE_CHECKING:
    from gateway.verify.labelled import Labelled

Score = Callable[[Rows], list[float]]

_CHUNK = 4096


def scores_of(score: Score, rows: Rows) -> Floats:
    """Return a score for each of n rows; NaN where the model fails on one."""
    found: list[Floats] = []
    for start in range(0, len(rows), _CHUNK):
        part = rows[start : start + _CHUNK]
        try:
            found.append(np.array(score(part), dtype=np.float64))
        except Exception:  # ONNX Runtime raises its own, unrelated classes
            found.append(np.array([_one(score, part[i : i + 1]) for i in range(len(part))]))
    return np.concatenate(found) if found else np.empty(0)


def _one(score: Score, row: Rows) -> float:
    try:
        return score(row)[0]
    except Exception:
        return np.nan


def probabilities(policy: Policy, scores: Floats, event_s: Floats) -> Floats:
    """Return P(fraud) as it would be served; NaN where the policy cannot read a score."""
    low, high = policy.score_low, policy.score_high
    snapped = scores.copy()
    for i in np.flatnonzero((scores < low) | (scores > high)).tolist():
        snapped[i] = policy.snapped(float(scores[i]))
    with np.errstate(invalid="ignore"):
        readable = (snapped >= low) & (snapped <= high)
    p = np.full(len(scores), np.nan)
    mapped = policy.calibration.many(snapped[readable])
    times, place = np.unique(event_s[readable], return_inverse=True)
    ratios = np.array([policy.odds_ratio(event) for event in times.tolist()])
    ratio = ratios[place] if len(times) else np.empty(0)
    p[readable] = np.where(ratio != 1.0, shift_many(mapped, ratio), mapped)
    return p


def cost_lines(
    policy: Policy, amount_minor: NDArray[np.int64], category: NDArray[np.object_]
) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Return each payment's cost class (n,), and α and β (n, actions) in minor units."""
    classes = classes_of(policy, amount_minor, category.tolist())
    stakes = stakes_of(policy, amount_minor, classes)
    return classes, stakes.alpha, stakes.beta


def sample_of(policy: Policy, p: Floats, labelled: Labelled, genuine_kept: float = 1.0) -> Sample:
    """Join labelled payments with their probabilities (n,) and their cost lines.

    `genuine_kept`: the share of genuine payments that the file kept. Among the others fraud is
    likelier, and a genuine payment stands for several: odds and genuine costs are divided by it,
    which leaves every decision as it is.
    """
    classes, alphas, betas = cost_lines(policy, labelled.amount_minor, labelled.category)
    names = np.array([cost_class.name for cost_class in policy.classes], dtype=np.object_)
    frauds = labelled.frauds
    return Sample(
        p=p if genuine_kept == 1.0 else p / (p + genuine_kept * (1.0 - p)),
        y=labelled.is_fraud.astype(np.float64),
        amount=labelled.amount_minor.astype(np.float64),
        alphas=alphas / genuine_kept,
        betas=betas + alphas - alphas / genuine_kept,
        category=names[classes],
        cluster=labelled.cluster,
        decisions=frauds + (len(labelled) - frauds) / genuine_kept,
    )
