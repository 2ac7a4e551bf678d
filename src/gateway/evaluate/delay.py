"""How late reports come, and what is still to come. Pure.

F(τ) is the probability that a fraud has been reported by age τ, given that it is reported within
the horizon. Of recent days only the early reports have come (right truncation), so a mean over all
reports would say that reports come sooner than they do. Looked at backwards from the horizon, the
reports that can be seen are complete (reverse-time Kaplan-Meier; Lynden-Bell 1971):

    N(d) = reports with a delay of d days
    R(d) = reports with a delay of d or less, of cohorts that have been watched for more than d
    F(τ) = Π_{d ≥ τ} (1 - N(d)/R(d)),    0 ≤ d < horizon

A delay of d days has been seen where age > d; F(a) is what a cohort of age a has shown of its
reports. It holds while delays stay as they are: kinds of label differ, so each kind has its own.

A completion-adjusted rate is reports so far over the decisions whose reports should be there:

    r = Σ_c k_c / Σ_c n_c·F(age_c)

Its variance, F's own included, is that of leaving out one bucket at a time, F drawn up anew.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.evaluate.intervals import (
    CONFIDENCE,
    Estimate,
    Figure,
    Reason,
    Share,
    score_bounds,
    wilson_bounds,
)
from gateway.evaluate.rates import (
    checked,
    clusters_dof,
    left_out_variance,
    rate,
    share_figure,
    worth_of,
)
from gateway.evaluate.sums import Cohorts, Counts, Floats, Places, Reports

SETTLED = 0.9
"""A rate is provisional until as much as this of its reports should be there."""

LEAST_AT_RISK = 10.0
"""Reports that must speak of a delay for the curve to go as far."""

LEAST_SHOWN = 0.05
"""Ages by which less of the reports are in are too young to be multiplied up."""


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """F at ages of 0 to `horizon` whole days: P(reported by then | reported within the horizon).

    `value`, `low`, `high` (horizon + 1,); `without` (B, horizon + 1): without one bucket each.
    `at_risk` (horizon,): R. `asked`: the horizon that was asked for; where it is more, too little
    is known of late reports, and F is of those within `horizon` alone.
    """

    horizon: int
    asked: int
    value: Floats
    low: Floats
    high: Floats
    without: Floats
    at_risk: Floats

    def at(self, age: int) -> Estimate:
        """Return F(age), with its interval; 1 beyond the horizon."""
        place = min(max(age, 0), self.horizon)
        return Estimate(float(self.value[place]), float(self.low[place]), float(self.high[place]))

    def settled_at(self, share: float = SETTLED) -> int:
        """Return the least age by which as much is reported."""
        return int(np.argmax(self.value >= share))


@dataclass(frozen=True, slots=True)
class Completed:
    """A rate in three numbers, each over the same days.

    `so_far`: reports over decisions, which can only grow. `figure`: completion-adjusted. `shown`:
    of all reports within the horizon, the share that should be there. `provisional`: less than
    0.9. `too_young`: the greatest age in days that is left out of `figure`, because less than
    0.05 of its reports should be there; None where none is.
    """

    so_far: Figure
    figure: Figure
    shown: float | None
    provisional: bool
    too_young: int | None


def curve(
    reports: Reports,
    cohorts: Cohorts,
    horizon: int,
    *,
    least: float = LEAST_AT_RISK,
    confidence: float = CONFIDENCE,
) -> Curve | None:
    """Return F up to `horizon` days, or as far as `least` reports speak; None where none do."""
    _check(reports, cohorts)
    buckets = len(cohorts.decisions)
    longest = min(horizon, int(cohorts.age.max(initial=0)))
    n, risk = _reversed(reports, cohorts, buckets, longest)
    enough = np.flatnonzero(risk.sum(axis=0) >= least)
    if not len(enough):
        return None
    reach = int(enough.max()) + 1
    n, risk = n[:, :reach], risk[:, :reach]
    all_n, all_risk = n.sum(axis=0), risk.sum(axis=0)
    value = _product(all_n, all_risk)
    without = _product(all_n - n, all_risk - risk)
    variance = left_out_variance(without.T)
    # What independent reports would have as variance (Greenwood's, backwards): no less than that.
    with np.errstate(divide="ignore", invalid="ignore"):
        step = np.where(all_n > 0.0, all_n / (all_risk * np.maximum(all_risk - all_n, 0.5)), 0.0)
    greenwood = np.append(np.cumsum(step[::-1])[::-1], 0.0) * value**2
    variance = np.maximum(variance, greenwood)
    with np.errstate(divide="ignore", invalid="ignore"):
        trials = value * (1.0 - value) / variance
    # None came later, or none so soon: as many as could have.
    watched = np.append(all_risk, all_risk[-1])
    trials = np.where((value > 0.0) & (value < 1.0) & (variance > 0.0), trials, watched)
    dof = float(clusters_dof(n.sum(axis=1)))
    low, high = wilson_bounds(Share(value * trials, trials, dof), confidence=confidence)
    low[-1], high[0] = 1.0, 0.0  # by definition
    return Curve(reach, horizon, value, low, high, without, all_risk)


def completed(
    reports: Reports,
    cohorts: Cohorts,
    of: Curve | None,
    *,
    like: float,
    days: NDArray[np.bool_] | None = None,
    confidence: float = CONFIDENCE,
) -> Completed:
    """Return the rate of reported fraud of some days, as it will be at the curve's horizon.

    `days` (C,): which cohorts; all where left out. `of`: the curve of the same reports and buckets.
    `like`: the design effect of counts like these, as for `rate`.
    """
    _check(reports, cohorts)
    chosen = np.ones(len(cohorts.age), np.bool_) if days is None else days
    buckets = len(cohorts.decisions)
    within = reports.delay < (of.horizon if of is not None else np.iinfo(np.int64).max)
    some = chosen[reports.cohort] & within
    shape = (buckets, len(cohorts.age))
    k = np.zeros(shape)
    np.add.at(k, (reports.bucket[some], reports.cohort[some]), reports.count[some])
    n = cohorts.decisions * chosen
    counts = Counts(k.sum(axis=1), n.sum(axis=1))
    so_far = rate(counts, like=like, confidence=confidence)
    if of is None:
        young = Figure(None, None, None, so_far.n, so_far.events, reason="too_young")
        oldest = int(cohorts.age[chosen].max(initial=0))
        return Completed(so_far, young, None, True, oldest)
    age = np.clip(cohorts.age, 0, of.horizon)
    told = of.value[age] >= LEAST_SHOWN
    left_out = cohorts.age[chosen & ~told & (cohorts.decisions.sum(axis=0) > 0.0)]
    too_young = int(left_out.max()) if len(left_out) else None
    decided = float(n.sum())
    shown = float((n.sum(axis=0) * of.value[age]).sum()) / decided if decided > 0.0 else None
    figure = _adjusted(k * told, n * told, of, age, like, confidence)
    return Completed(so_far, figure, shown, shown is None or shown < SETTLED, too_young)


def completed_ratio(
    over: Floats,
    under: Floats,
    age: Places,
    of: Curve | None,
    *,
    confidence: float = CONFIDENCE,
) -> Figure:
    """Return Σ over / Σ under·F(age) of sums (B, C): what was reported over what it is a share of.

    For money: amounts of reported fraud over turnover. Cohorts of which too little has been shown
    are left out. The interval is that of `score_bounds`; F is drawn up anew without each bucket.
    """
    checked(over, under)
    n = float(under.sum())
    if of is None:
        return Figure(None, None, None, n, float(over.sum()), reason="too_young")
    place = np.clip(age, 0, of.horizon)
    told = of.value[place] >= LEAST_SHOWN
    over, under = over * told, under * told
    came, due = float(over.sum()), float((under @ of.value[place]).sum())
    if not due > 0.0:
        return Figure(None, None, None, n, came, reason="too_young")
    value = came / due
    if came == 0.0:
        return Figure(value, 0.0, None, n, came, reason="no_events")
    dof = float(clusters_dof(under.sum(axis=1)))
    others = ((under.sum(axis=0) - under) * of.without[:, place]).sum(axis=1)
    if not dof > 0.0 or not (others > 0.0).all():
        return Figure(value, None, None, n, came, reason="one_cluster")
    variance = float(left_out_variance((came - over.sum(axis=1)) / others))
    low, high = score_bounds(value, variance, confidence=confidence, dof=dof)
    return Figure(value, low, high, n, came)


def _adjusted(
    k: Floats, n: Floats, of: Curve, age: Places, like: float, confidence: float
) -> Figure:
    """Return Σk / Σ n·F(age) of k and n (B, C), with F's uncertainty in its interval."""
    mine, due = k.sum(axis=1), n @ of.value[age]
    counts = Counts(mine, n.sum(axis=1))
    events, trials = float(mine.sum()), float(due.sum())
    decided = float(counts.n.sum())
    if not trials > 0.0:
        reason: Reason = "too_young" if decided == 0.0 else "no_observations"
        return Figure(None, None, None, decided, events, reason=reason)
    value = events / trials
    if value > 1.0:
        # More reports than there can be: F is not that of these days.
        return Figure(None, None, None, decided, events, reason="too_young")
    own = 1.0
    if 0.0 < value < 1.0:
        others = ((n.sum(axis=0) - n) * of.without[:, age]).sum(axis=1)
        if not (others > 0.0).all():
            return Figure(value, None, None, decided, events, reason="one_cluster")
        left = (events - mine) / others
        own = float(left_out_variance(left)) * trials / (value * (1.0 - value))
    worth = worth_of(events, trials, own, counts.n, like)
    return share_figure(worth.share, counts, float(worth.design_effect), confidence)


def _reversed(
    reports: Reports, cohorts: Cohorts, buckets: int, horizon: int
) -> tuple[Floats, Floats]:
    """Return N and R by bucket, (B, horizon)."""
    seen = reports.delay < horizon
    bucket, delay, count = reports.bucket[seen], reports.delay[seen], reports.count[seen]
    n = np.zeros((buckets, horizon))
    np.add.at(n, (bucket, delay), count)
    # A report of delay d is at risk at d, d+1, ... up to the last delay that its cohort has seen.
    enters, leaves = np.zeros((buckets, horizon + 1)), np.zeros((buckets, horizon + 1))
    np.add.at(enters, (bucket, delay), count)
    until = np.minimum(cohorts.age[reports.cohort[seen]], horizon)
    np.add.at(leaves, (bucket, until), count)
    return n, np.cumsum(enters - leaves, axis=1)[:, :horizon]


def _product(n: Floats, risk: Floats) -> Floats:
    """Return F at 0..horizon, (..., horizon + 1), of N and R (..., horizon)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        stays = np.where(risk > 0.0, 1.0 - n / risk, 1.0)
    stays = np.clip(stays, 0.0, 1.0)
    one = np.ones((*stays.shape[:-1], 1))
    return np.concatenate([np.cumprod(stays[..., ::-1], axis=-1)[..., ::-1], one], axis=-1)


def _check(reports: Reports, cohorts: Cohorts) -> None:
    """Raise ValueError unless each report is of a bucket and a cohort, and could have been seen."""
    checked(cohorts.decisions)
    if cohorts.decisions.ndim != 2 or cohorts.decisions.shape[1] != len(cohorts.age):
        raise ValueError("decisions must be (B, C), with an age for each of C cohorts")
    shape = cohorts.decisions.shape
    if not len(reports.count):
        return
    checked(reports.count)
    for name, places, end in (
        ("bucket", reports.bucket, shape[0]),
        ("cohort", reports.cohort, shape[1]),
    ):
        if places.min() < 0 or places.max() >= end:
            raise ValueError(f"a report's {name} is none of the {end} there are")
    if reports.delay.min() < 0 or (reports.delay >= cohorts.age[reports.cohort]).any():
        raise ValueError("a report's delay is not within 0 and its cohort's age")
