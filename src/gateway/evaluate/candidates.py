"""Calibration maps compared on labelled payments: how well each holds, and what it costs. Pure.

Each kind of map is fitted with folds of whole clusters, and judged on the payments that it was
not fitted to. What is served today stands beside them. All figures are drawn together, so that
differences are paired.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.decide.calibration import EDGE, shift_many
from gateway.evaluate.bootstrap import DRAWS, Interval, mean_intervals, ratio_intervals
from gateway.evaluate.calibration import near
from gateway.evaluate.fit import Fitted, fit, folds_of, kinds_for, out_of_fold
from gateway.evaluate.stakes import Stakes

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Places = NDArray[np.int64]

AS_IT_IS = "as it is"
"""The map that product.yaml has."""

_LEAST_P = 1e-15
_TAUGHT_MIN = 0.5


class Sample(NamedTuple):
    """Labelled payments, n of each.

    `score`: as the map takes it, after `scale`. `weight` makes of the sample what is served.
    `served`: P(fraud) as it is today. `odds_ratio`: what a new map's odds are multiplied by, base
    rate and calendar together. `calm`: outside the calendar's events.
    """

    score: Floats
    fraud: Flags
    amount_minor: Places
    cluster: Places
    weight: Floats
    served: Floats
    odds_ratio: Floats
    calm: Flags


class Figures(NamedTuple):
    """How well probabilities hold. Costs are per 1,000 decisions, in minor units.

    `near` is observed over expected where p lies within half to twice a threshold. The last two
    are differences to the map as it is; below 0 is better.
    """

    brier: Interval
    log_loss: Interval
    observed_over_expected: Interval
    money: Interval
    near: Interval
    cost: Interval
    log_loss_change: Interval
    cost_change: Interval


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """One map. `fitted` is None for the map as it is; `p` (n,) is out of fold, as served."""

    kind: str
    fitted: Fitted | None
    p: Floats
    figures: Figures


class Comparison(NamedTuple):
    """All maps, the map as it is first, then the simpler first; and the one to take.

    No map is the identity twice.

    `failed`: kinds that could not be fitted, and why. `near` counts the payments, and frauds, near
    a threshold under the map as it is.
    """

    candidates: tuple[Candidate, ...]
    best: Candidate
    failed: tuple[tuple[str, str], ...]
    near: tuple[int, int]


def compare(
    sample: Sample,
    stakes: Stakes,
    chance: np.random.Generator,
    *,
    kinds: Sequence[str] | None = None,
    draws: int = DRAWS,
) -> Comparison:
    """Fit every kind of map, judge it, and say which to take.

    The map to take is the simplest of those whose log loss is within one standard error of the
    least, and whose cost is within one of the cheapest of these (Breiman and others, 1984). The
    map as it is stays unless that one is better (`improves`).

    Raises:
        ValueError: the labels cannot be parted into folds; says why.
    """
    fold = folds_of(sample.cluster, sample.fraud, chance)
    taught = _taught(sample)
    maps: list[tuple[str, Fitted | None, Floats]] = [(AS_IT_IS, None, sample.served)]
    failed: list[tuple[str, str]] = []
    for kind in kinds_for(sample.score) if kinds is None else kinds:
        try:
            p = out_of_fold(kind, sample.score, sample.fraud, fold, taught)
            fitted = fit(kind, sample.score[taught], sample.fraud[taught])
        except ValueError as error:
            failed.append((kind, str(error)))
            continue
        p = shift_many(p, sample.odds_ratio)
        if not (kind == "identity" and np.allclose(p, sample.served, rtol=0.0, atol=2 * EDGE)):
            maps.append((kind, fitted, p))
    losses = {kind: _losses(p, sample, stakes) for kind, _, p in maps}
    figures = _figures(losses, sample, chance, draws)
    candidates = tuple(Candidate(kind, fitted, p, figures[kind]) for kind, fitted, p in maps)
    close = losses[AS_IT_IS].near
    return Comparison(
        candidates=candidates,
        best=_best(candidates, losses, sample, chance, draws),
        failed=tuple(failed),
        near=(int(close.sum()), int((close & sample.fraud).sum())),
    )


def near_threshold(p: Floats, stakes: Stakes) -> Flags:
    """Return which payments (n,) lie within half to twice one of their thresholds."""
    thresholds = [boundary.threshold for boundary in stakes.boundaries()]
    return near(p, np.column_stack([*thresholds, np.full(len(p), np.nan)]))


class _Losses(NamedTuple):
    p: Floats
    brier: Floats
    log: Floats
    cost: Floats
    near: Flags


def _taught(sample: Sample) -> Flags:
    """Return the payments to fit to: calm days, where these have at least half of the frauds.

    On other days the calendar shifts the odds behind the map, which is not to learn that too.
    """
    calm = int((sample.calm & sample.fraud).sum())
    if calm >= _TAUGHT_MIN * int(sample.fraud.sum()):
        return sample.calm
    return np.ones(len(sample.calm), dtype=np.bool_)


def _losses(p: Floats, sample: Sample, stakes: Stakes) -> _Losses:
    y = sample.fraud
    q = np.clip(p, _LEAST_P, 1.0 - _LEAST_P)
    return _Losses(
        p=p,
        brier=(p - y) ** 2,
        log=-np.where(y, np.log(q), np.log1p(-q)),
        cost=1000.0 * stakes.realised(stakes.chosen(p), y),
        near=near_threshold(p, stakes),
    )


def _figures(
    losses: dict[str, _Losses], sample: Sample, chance: np.random.Generator, draws: int
) -> dict[str, Figures]:
    intervals = ratio_intervals(_pairs(losses, sample), sample.cluster, chance, draws=draws)
    width = len(Figures._fields)
    return {kind: Figures(*intervals[i * width : (i + 1) * width]) for i, kind in enumerate(losses)}


def _pairs(losses: dict[str, _Losses], sample: Sample) -> Iterator[tuple[Floats, Floats]]:
    """Yield what is to be divided for each of `Figures`, map by map."""
    w, amount = sample.weight, sample.weight * sample.amount_minor
    today = losses[AS_IT_IS]
    for one in losses.values():
        yield w * one.brier, w
        yield w * one.log, w
        yield w * sample.fraud, w * one.p
        yield amount * sample.fraud, amount * one.p
        yield w * sample.fraud * one.near, w * one.p * one.near
        yield w * one.cost, w
        yield w * (one.log - today.log), w
        yield w * (one.cost - today.cost), w


def _best(
    candidates: Sequence[Candidate],
    losses: dict[str, _Losses],
    sample: Sample,
    chance: np.random.Generator,
    draws: int,
) -> Candidate:
    today, *others = candidates
    if not others:
        return today
    surest = min(others, key=lambda one: one.figures.log_loss.value)
    above = [losses[one.kind].log - losses[surest.kind].log for one in others]
    good = _within(others, above, sample, chance, draws)
    cheapest = min(good, key=lambda one: one.figures.cost.value)
    dearer = [losses[one.kind].cost - losses[cheapest.kind].cost for one in good]
    best = _within(good, dearer, sample, chance, draws)[0]
    return best if improves(best, today) else today


def improves(candidate: Candidate, today: Candidate) -> bool:
    """Return whether a map is surely better than the map as it is, and not surely dearer (95%).

    Its log loss is surely less; or it is less, and what was expected is surely off today, overall
    or near the thresholds, and not under this map.
    """
    figures = candidate.figures
    if figures.cost_change.low > 0.0:
        return False
    if figures.log_loss_change.high < 0.0:
        return True
    return is_off(today) and not is_off(candidate) and figures.log_loss_change.value < 0.0


def is_off(candidate: Candidate) -> bool:
    """Return whether surely another number of frauds came than was expected (95%)."""
    ratios = (candidate.figures.observed_over_expected, candidate.figures.near)
    return any(one.low > 1.0 or one.high < 1.0 for one in ratios)


def _within(
    candidates: Sequence[Candidate],
    above: Sequence[Floats],
    sample: Sample,
    chance: np.random.Generator,
    draws: int,
) -> list[Candidate]:
    """Return the candidates whose loss is at most one standard error above the least."""
    differences = mean_intervals(
        np.stack(above, axis=1), sample.cluster, chance, weights=sample.weight, draws=draws
    )
    return [
        one
        for one, difference in zip(candidates, differences, strict=True)
        if difference.value <= difference.error
    ]
