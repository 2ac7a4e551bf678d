"""How late reports come: equal to statsmodels' survival curve run backwards, honest when young."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from coverage import Late
from statsmodels.duration.survfunc import SurvfuncRight

from gateway.evaluate.delay import completed, completed_ratio, curve
from gateway.evaluate.sums import Cohorts, Reports

B = 16


def reports_of(
    chance: np.random.Generator, frauds: int, days: int = 60, middle: float = 8.0
) -> tuple[Reports, Cohorts, np.ndarray]:
    """Return what has been reported of frauds, the days they are of, and all delays, also those
    that have not come."""
    day = chance.integers(0, days, frauds)
    delay = np.floor(chance.exponential(middle, frauds)).astype(np.int64)
    age = (days - np.arange(days)).astype(np.int64)
    come = delay < age[day]
    bucket = chance.integers(0, B, int(come.sum()))
    reports = Reports(bucket, day[come], delay[come], np.ones(int(come.sum())))
    return reports, Cohorts(age, np.full((B, days), 500.0)), delay


def test_the_curve_is_the_survival_of_time_run_backwards() -> None:
    reports, cohorts, _ = reports_of(np.random.default_rng(1), 800)
    found = curve(reports, cohorts, 60, least=1.0)
    horizon = found.horizon
    oracle = SurvfuncRight(
        horizon - reports.delay,
        np.ones(len(reports.delay)),
        entry=np.maximum(horizon - cohorts.age[reports.cohort], 0),
    )
    want = dict(zip(oracle.surv_times, oracle.surv_prob, strict=True))
    assert len(want) > 20
    for time, prob in want.items():  # P(backwards time > t) = P(delay < horizon - t)
        assert found.value[horizon - int(time)] == pytest.approx(prob, rel=1e-9, abs=1e-12)


def test_it_does_not_take_the_early_reports_of_young_days_for_all() -> None:
    chance = np.random.default_rng(2)
    reports, cohorts, delay = reports_of(chance, 6_000)
    found = curve(reports, cohorts, 60)
    naive, truth = (reports.delay < 8).mean(), (delay < 8).mean() / (delay < found.horizon).mean()
    assert naive > truth + 0.03
    assert found.low[8] < truth < found.high[8]
    assert found.high[8] < naive


def test_old_days_alone_are_counted_as_they_are() -> None:
    chance = np.random.default_rng(3)
    delay = chance.integers(0, 30, 500)
    reports = Reports(chance.integers(0, B, 500), np.zeros(500, np.int64), delay, np.ones(500))
    found = curve(reports, Cohorts(np.array([90]), np.full((B, 1), 1e4)), 40)
    share = [(delay < a).mean() for a in range(41)]
    assert found.value == pytest.approx(share)
    assert found.at(500).value == 1.0
    assert found.settled_at() == int(np.argmax(np.array(share) >= 0.9))


def test_a_curve_goes_only_as_far_as_reports_speak() -> None:
    reports, cohorts, _ = reports_of(np.random.default_rng(4), 300)
    found = curve(reports, cohorts, 200)
    assert found.asked == 200
    assert found.horizon < 60
    assert found.at_risk[-1] >= 10.0
    empty = Reports(*(np.zeros(0, np.int64) for _ in range(3)), np.zeros(0))
    assert curve(empty, cohorts, 90) is None


def test_a_completed_rate_is_reports_over_those_that_should_be_there() -> None:
    reports, cohorts, _ = reports_of(np.random.default_rng(5), 3_000)
    of = curve(reports, cohorts, 40)
    days = cohorts.age <= 20
    found = completed(reports, cohorts, of, like=1.0, days=days)
    told = days & (of.value[np.minimum(cohorts.age, of.horizon)] >= 0.05)
    k = sum(told[c] and d < of.horizon for c, d in zip(reports.cohort, reports.delay, strict=True))
    due = sum(500.0 * B * of.at(int(a)).value for a in cohorts.age[told])
    assert found.figure.value == pytest.approx(k / due)
    assert found.figure.value > found.so_far.value
    assert found.provisional
    assert found.shown < 0.9
    old = completed(reports, cohorts, of, like=1.0, days=cohorts.age > 35)
    assert not old.provisional
    assert old.figure.value == pytest.approx(old.so_far.value, rel=0.02)
    assert old.too_young is None


def test_the_interval_has_the_curves_own_uncertainty_in_it() -> None:
    """Sixty old reports say how much 400 young ones are of all: F's error is the greater."""
    chance = np.random.default_rng(6)
    delay = np.concatenate([chance.integers(0, 30, 60), chance.integers(0, 8, 400)])
    cohort = np.repeat([0, 1], [60, 400])
    reports = Reports(chance.integers(0, B, 460), cohort, delay, np.ones(460))
    cohorts = Cohorts(np.array([60, 8]), np.full((B, 2), 1e4))
    of, young = curve(reports, cohorts, 30), np.array([False, True])
    found = completed(reports, cohorts, of, like=1.0, days=young).figure
    known = replace(of, without=np.tile(of.value, (B, 1)))
    sure = completed(reports, cohorts, known, like=1.0, days=young).figure
    assert found.value == sure.value
    assert found.low < sure.low < found.value < sure.high < found.high
    assert np.log(found.high / found.low) > 1.3 * np.log(sure.high / sure.low)


def test_ages_that_are_too_young_are_named_and_left_out() -> None:
    reports, cohorts, _ = reports_of(np.random.default_rng(7), 3_000, middle=25.0)
    of = curve(reports, cohorts, 50)
    found = completed(reports, cohorts, of, like=1.0, days=cohorts.age <= 5)
    assert found.too_young is not None
    assert of.at(found.too_young).value < 0.05 <= of.at(found.too_young + 1).value
    youngest = completed(reports, cohorts, of, like=1.0, days=cohorts.age <= found.too_young)
    assert (youngest.figure.value, youngest.figure.reason) == (None, "too_young")
    none = completed(reports, cohorts, None, like=1.0)
    assert (none.figure.reason, none.provisional) == ("too_young", True)
    assert none.so_far.value is not None


def test_a_report_that_cannot_have_been_seen_is_refused() -> None:
    cohorts = Cohorts(np.array([3, 2]), np.full((B, 2), 10.0))
    for bucket, cohort, delay in ((0, 1, 2), (0, 2, 0), (B, 0, 0), (0, 0, -1)):
        wrong = Reports(*(np.array([v]) for v in (bucket, cohort, delay)), np.ones(1))
        with pytest.raises(ValueError, match="report"):
            curve(wrong, cohorts, 90)


def test_sparse_reports_give_no_warning_and_no_nan() -> None:
    chance = np.random.default_rng(8)
    for _ in range(300):
        days, some = int(chance.integers(1, 6)), int(chance.integers(0, 8))
        age = chance.integers(0, 5, days)
        cohort = chance.integers(0, days, some)
        delay = chance.integers(0, 5, some)
        come = delay < age[cohort]
        reports = Reports(
            chance.integers(0, 3, some)[come], cohort[come], delay[come], np.ones(int(come.sum()))
        )
        decisions = chance.integers(0, 2, (3, days)) * 5.0
        np.add.at(decisions, (reports.bucket, reports.cohort), 1.0)
        cohorts = Cohorts(age, decisions)
        of = curve(reports, cohorts, 5, least=1.0)
        if of is not None:
            assert np.isfinite(of.value).all()
            assert (np.diff(of.value) >= -1e-12).all()
            assert (of.low <= of.value + 1e-9).all()
            assert (of.value <= of.high + 1e-9).all()
        completed(reports, cohorts, of, like=1.0)


def test_the_world_of_the_coverage_tells_its_own_truth() -> None:
    """The oracle of the oracle: what the simulation says it draws, it draws."""
    world = Late(rate=0.02, decisions=20_000.0)
    seen = {one.name: one for one in world(np.random.default_rng(1))}
    one = seen["completed rate, all days"]
    assert one.figure.value == pytest.approx(one.truth, rel=0.03)


def test_a_completed_ratio_of_money_is_what_it_will_be_and_its_interval_holds_the_truth() -> None:
    """Losses of 40 days that come with a delay; the truth is known as soon as all have come."""
    chance, hits, values = np.random.default_rng(6), 0, []
    age = np.arange(40, 0, -1)
    for _ in range(60):
        turnover = chance.poisson(40, (128, 40)) * 1_000.0
        frauds = chance.poisson(0.5, (128, 40))
        bucket, cohort = (
            np.repeat(np.indices(frauds.shape)[i].ravel(), frauds.ravel()) for i in (0, 1)
        )
        delay = chance.geometric(0.12, len(bucket)) - 1
        amount = chance.gamma(2.0, 50.0, len(bucket))
        within = delay < 30
        bucket, cohort, delay, amount = (x[within] for x in (bucket, cohort, delay, amount))
        seen = delay < age[cohort]
        lost = np.zeros((128, 40))
        np.add.at(lost, (bucket[seen], cohort[seen]), amount[seen])
        reports = Reports(bucket[seen], cohort[seen], delay[seen], np.ones(seen.sum()))
        late = curve(reports, Cohorts(age, turnover / 1_000.0), 30)
        figure = completed_ratio(lost, turnover, age, late)
        truth = 0.5 * 100.0 * (1 - 0.88**30) / 40_000.0
        values.append(figure.value / truth)
        hits += figure.low <= truth <= figure.high
    assert np.mean(values) == pytest.approx(1.0, abs=0.02)
    assert hits >= 60 * 0.95 - 3 * np.sqrt(60 * 0.95 * 0.05)
