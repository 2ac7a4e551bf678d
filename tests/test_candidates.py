"""Maps compared: figures against a hand-written loop, and which map is taken."""

from __future__ import annotations

import math

import numpy as np
import pytest
from test_thresholds import policy_of, stakes_of, world

from gateway.decide.calibration import shift
from gateway.evaluate.candidates import AS_IT_IS, Sample, compare, near_threshold
from gateway.evaluate.stakes import Stakes


def sample_of(
    n: int = 6000, *, a: float = 1.0, b: float = 0.0, seed: int = 5, clusters: int = 1500
) -> tuple[Sample, Stakes]:
    """Return payments whose scores' log-odds are a·z + b where those of fraud are z."""
    payments, amount, category = world(n, seed=seed, clusters=clusters)
    z = np.log(payments.p / (1 - payments.p))
    score = 1 / (1 + np.exp(-(a * z + b)))
    ones = np.ones(n)
    sample = Sample(
        score=score,
        fraud=payments.fraud,
        amount_minor=amount,
        cluster=payments.cluster,
        weight=ones,
        served=score,
        odds_ratio=ones,
        calm=ones > 0,
    )
    return sample, stakes_of(policy_of(["approve", "step_up", "decline"]), amount, category)


def test_figures_are_those_of_a_hand_written_loop() -> None:
    sample, stakes = sample_of(900, a=1.4, clusters=200)
    weight = np.where(sample.fraud, 0.3, 1.2)
    sample = sample._replace(weight=weight)
    first = compare(sample, stakes, np.random.default_rng(1), draws=20).candidates[0]
    assert first.kind == AS_IT_IS
    boundaries = stakes.boundaries()
    sums = dict.fromkeys(("w", "brier", "log", "y", "p", "ay", "ap", "ny", "np", "cost"), 0.0)
    for i in range(900):
        w, p, y = float(weight[i]), float(sample.served[i]), bool(sample.fraud[i])
        amount = float(sample.amount_minor[i])
        sums["w"] += w
        sums["brier"] += w * (p - y) ** 2
        sums["log"] -= w * math.log(p if y else 1 - p)
        sums["y"] += w * y
        sums["p"] += w * p
        sums["ay"] += w * amount * y
        sums["ap"] += w * amount * p
        if any(t / 2 <= p <= 2 * t for t in (float(one.threshold[i]) for one in boundaries)):
            sums["ny"] += w * y
            sums["np"] += w * p
        costs = [
            float(stakes.alpha[i, k] + stakes.beta[i, k] * p) for k in range(len(stakes.actions))
        ]
        k = costs.index(min(costs))
        sums["cost"] += w * float(stakes.alpha[i, k] + stakes.beta[i, k] * y)
    got = first.figures
    assert got.brier.value == pytest.approx(sums["brier"] / sums["w"], abs=1e-9)
    assert got.log_loss.value == pytest.approx(sums["log"] / sums["w"], abs=1e-9)
    assert got.observed_over_expected.value == pytest.approx(sums["y"] / sums["p"], abs=1e-9)
    assert got.money.value == pytest.approx(sums["ay"] / sums["ap"], abs=1e-9)
    assert got.near.value == pytest.approx(sums["ny"] / sums["np"], abs=1e-9)
    assert got.cost.value == pytest.approx(1000 * sums["cost"] / sums["w"], rel=1e-9)
    assert got.cost_change == (0, 0, 0, 0)


def test_a_calibrated_score_keeps_the_map_it_has() -> None:
    for seed in range(5):
        sample, stakes = sample_of(seed=seed)
        found = compare(sample, stakes, np.random.default_rng(1), draws=200)
        assert found.best.kind == AS_IT_IS
        assert found.failed == ()
        assert [one.kind for one in found.candidates] == [*(AS_IT_IS, "platt", "beta", "isotonic")]


@pytest.mark.parametrize(("a", "b"), [(1.0, 3.0), (2.5, 0.0), (0.4, -1.0)])
def test_a_score_that_is_off_gets_the_simplest_map_that_mends_it(a: float, b: float) -> None:
    """Trained on balanced classes, too sure, not sure enough: a line in log-odds mends each."""
    sample, stakes = sample_of(a=a, b=b)
    found = compare(sample, stakes, np.random.default_rng(1), draws=200)
    assert found.best.kind == "platt"
    assert found.best.fitted is not None
    assert found.best.fitted.parameters["a"] == pytest.approx(1 / a, rel=0.15)
    figures = found.best.figures
    assert figures.observed_over_expected.low < 1 < figures.observed_over_expected.high
    assert figures.near.low < 1 < figures.near.high
    assert figures.log_loss_change.high < 0
    assert figures.cost_change.high < 0


def test_what_no_line_mends_gets_a_curve() -> None:
    sample, stakes = sample_of(20_000, clusters=20_000)
    z = np.log(sample.score / (1 - sample.score))
    bent = 1 / (1 + np.exp(-np.where(z < -2, z / 6 - 5 / 3, z)))
    found = compare(
        sample._replace(score=bent, served=bent), stakes, np.random.default_rng(1), draws=200
    )
    assert found.best.kind == "isotonic"


def test_a_sample_of_another_base_rate_is_moved_to_the_one_that_is_served() -> None:
    """One genuine payment in ten: weights and the odds ratio undo it."""
    sample, stakes = sample_of(60_000, clusters=60_000)
    chance = np.random.default_rng(3)
    kept = sample.fraud | (chance.random(60_000) < 0.1)
    serving, share = float(sample.fraud.mean()), float(sample.fraud[kept].mean())
    ratio = serving / (1 - serving) * (1 - share) / share
    part = Sample(*(column[kept] for column in sample))
    weight = np.where(part.fraud, serving / share, (1 - serving) / (1 - share))
    part = part._replace(weight=weight, odds_ratio=np.full(len(weight), ratio))
    stakes = Stakes(stakes.actions, stakes.alpha[kept], stakes.beta[kept])
    found = compare(part, stakes, np.random.default_rng(1), draws=100)
    platt = next(one for one in found.candidates if one.kind == "platt")
    assert platt.figures.observed_over_expected.value == pytest.approx(1, abs=0.05)
    assert platt.fitted is not None
    raw = platt.fitted.map.one(0.1)
    assert shift(raw, ratio) == pytest.approx(0.1, rel=0.1)


def test_days_of_the_calendar_are_not_learned() -> None:
    sample, stakes = sample_of(10_000, clusters=10_000)
    calm = np.arange(10_000) % 4 != 0
    chance = np.random.default_rng(2)
    fraud = np.where(calm, sample.fraud, sample.fraud | (chance.random(10_000) < 0.3))
    stormy = sample._replace(fraud=fraud, calm=calm)
    one, other = (
        compare(x, stakes, np.random.default_rng(1), draws=10, kinds=["platt"])
        for x in (stormy, stormy._replace(fraud=np.where(calm, fraud, False)))
    )
    first, second = (found.candidates[1].fitted for found in (one, other))
    assert first is not None
    assert second is not None
    assert first.parameters == second.parameters


def test_a_score_that_falls_says_so_and_the_others_are_compared() -> None:
    sample, stakes = sample_of(2000)
    turned = sample._replace(score=1 - sample.score, served=1 - sample.score)
    found = compare(turned, stakes, np.random.default_rng(1), draws=20)
    assert dict(found.failed).keys() == {"platt", "beta"}
    assert "would fall" in dict(found.failed)["platt"]


def test_near_a_threshold_is_within_half_to_twice_of_it() -> None:
    _, stakes = sample_of(50)
    (first, *_) = stakes.boundaries()
    at = np.nan_to_num(first.threshold, nan=0.2)
    assert near_threshold(at * 0.51, stakes)[~np.isnan(first.threshold)].all()
    assert near_threshold(at * 1.99, stakes)[~np.isnan(first.threshold)].all()
    assert not near_threshold(np.full(50, 1e-6), stakes).any()
