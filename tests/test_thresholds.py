"""Thresholds from labels against brute force, bootstrap intervals, and the price of review."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import catalogue
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gateway.decide import Policy, compile_policy, from_mapping, lower_envelope
from gateway.evaluate.bootstrap import drawn_sums, groups_of, mean_intervals
from gateway.evaluate.stakes import Stakes, classes_of
from gateway.evaluate.stakes import stakes_of as stakes_of_classes
from gateway.evaluate.thresholds import (
    SHIFTS,
    Payments,
    Threshold,
    bands_of,
    review_price,
    round_bands,
    thresholds,
)
from gateway.product import Action

Floats = NDArray[np.float64]

IDENTITY = from_mapping("identity", {})
ALL = ["approve", "step_up", "review", "decline"]
MCCS = ["", "5912", "5541"]
CATEGORIES = {
    "pharmacy": {"mcc": ["5912"], "harm": 4},
    "fuel": {"mcc": ["5541"], "harm": 2, "harm_up_to": 150},
}
REVIEW = {
    "fee": 4,
    "sensitivity": 0.9,
    "specificity": 0.98,
    "per_hour": 20,
    "hold": {"per_hour": 0.2, "hours": 1},
}
COSTS = {**catalogue.BASE["costs"], "categories": CATEGORIES, "review": REVIEW}


def policy_of(actions: list[str] | None = None, **changes: Any) -> Policy:
    costs = {**COSTS, **changes}
    stand_in = {reason: [{"action": "approve"}] for reason in catalogue.REASONS}
    product = catalogue.product(costs=costs, actions=actions or ALL, stand_in=stand_in)
    return compile_policy(product, IDENTITY)


def stakes_of(policy: Policy, amount: NDArray[np.int64], category: list[str]) -> Stakes:
    return stakes_of_classes(policy, amount, classes_of(policy, amount, category))


def world(
    n: int, *, seed: int = 5, off_by: float = 0.0, clusters: int = 0
) -> tuple[Payments, NDArray[np.int64], list[str]]:
    """Return payments whose odds of fraud are e^off_by times what p says, amounts and MCCs."""
    chance = np.random.default_rng(seed)
    log_odds = chance.normal(-2.5, 1.5, n)
    fraud = chance.random(n) < 1 / (1 + np.exp(-(log_odds + off_by)))
    cluster = chance.integers(0, clusters, n) if clusters else np.arange(n)
    amount = np.maximum(chance.lognormal(8.0, 1.2, n).astype(np.int64), 1)
    category = [MCCS[i] for i in chance.integers(0, len(MCCS), n)]
    return Payments(1 / (1 + np.exp(-log_odds)), fraud, cluster, np.ones(n)), amount, category


def found(
    payments: Payments, stakes: Stakes, *, draws: int = 200, seed: int = 1
) -> dict[str, Threshold]:
    everything = {"all": np.ones(len(payments.p), dtype=np.bool_)}
    chance = np.random.default_rng(seed)
    return {
        f"{one.lower.name}-{one.upper.name}": one
        for _, one in thresholds(stakes, payments, everything, chance, draws=draws)
    }


def test_boundaries_are_those_of_the_lower_envelope() -> None:
    """Each payment's thresholds, from the arrays and from `lower_envelope`'s own loop."""
    policy = policy_of()
    _, amount, category = world(400)
    boundaries = stakes_of(policy, amount, category).boundaries()
    seen = 0
    for i, (minor, mcc) in enumerate(zip(amount.tolist(), category, strict=True)):
        lines = policy.classes[policy.cost_class(minor, mcc)].lines
        intervals = lower_envelope(lines, minor)
        expected = {(left.action, right.action): right.low for left, right in pairwise(intervals)}
        got = {
            (one.lower, one.upper): float(one.threshold[i])
            for one in boundaries
            if not math.isnan(one.threshold[i])
        }
        assert got.keys() == expected.keys()
        assert list(got.values()) == pytest.approx([expected[key] for key in got], abs=1e-12)
        seen += len(got)
    assert seen > 500


def test_chosen_and_realised_are_what_the_policy_decides_and_what_a_loop_pays() -> None:
    policy = policy_of()
    payments, amount, category = world(500)
    stakes = stakes_of(policy, amount, category)
    action = stakes.chosen(payments.p)
    paid = stakes.realised(action, payments.fraud)
    for i, (minor, mcc) in enumerate(zip(amount.tolist(), category, strict=True)):
        index = policy.cost_class(minor, mcc)
        decision = policy.decide_one(float(payments.p[i]), minor, index, 0.0)
        assert stakes.actions[action[i]] == decision.action
        (line,) = (x for x in policy.classes[index].lines if x.action == decision.action)
        assert paid[i] == pytest.approx(line.cost(float(payments.fraud[i]), minor))


def test_the_empirical_threshold_is_the_cheapest_of_a_brute_force_loop() -> None:
    policy = policy_of(["approve", "decline"])
    payments, amount, category = world(1500, off_by=1.0)
    stakes = stakes_of(policy, amount, category)
    (one,) = found(payments, stakes, draws=10).values()
    (boundary,) = stakes.boundaries()
    odds = np.log(payments.p / (1 - payments.p))
    costs = []
    for shift in SHIFTS:
        moved = 1 / (1 + np.exp(-(odds + shift)))
        action = (moved >= boundary.threshold - 1e-13).astype(np.int64)
        costs.append(float(stakes.realised(action, payments.fraud).mean()) * 1000)
    assert one.curve.cost == pytest.approx(np.array(costs) - costs[len(SHIFTS) // 2], abs=1e-6)
    assert one.shift.value == SHIFTS[int(np.argmin(costs))]
    typical = float(np.median(np.log(boundary.threshold / (1 - boundary.threshold))))
    assert one.plug_in == pytest.approx(1 / (1 + math.exp(-typical)))
    assert one.empirical.value == pytest.approx(1 / (1 + math.exp(one.shift.value - typical)))


@pytest.mark.parametrize("off_by", [-1.5, 1.5])
def test_a_gap_is_told_with_its_direction_and_its_price(off_by: float) -> None:
    payments, amount, category = world(40_000, off_by=off_by, clusters=4000)
    one = found(payments, stakes_of(policy_of(["approve", "decline"]), amount, category))[
        "APPROVE-DECLINE"
    ]
    assert one.verdict == "miscalibrated"
    assert one.shift.low <= off_by + 0.25
    assert one.shift.high >= off_by - 0.25
    assert one.shift.excludes_nought
    assert (one.empirical.value < one.plug_in) == (off_by > 0)
    assert 0 < one.saving.low < one.saving.value < one.saving.high


def test_gaps_of_two_cells_that_point_apart_are_told_in_each() -> None:
    high, amount, category = world(20_000, off_by=1.5, seed=1)
    low, amount_low, category_low = world(20_000, off_by=-1.5, seed=2)
    both = Payments(*(np.concatenate(pair) for pair in zip(high, low, strict=True)))
    both = both._replace(cluster=np.arange(40_000))
    first = np.arange(40_000) < 20_000
    stakes = stakes_of(
        policy_of(["approve", "decline"]),
        np.concatenate((amount, amount_low)),
        category + category_low,
    )
    cells = {"high": first, "low": ~first, "empty": first & ~first}
    chance = np.random.default_rng(1)
    rows = dict(thresholds(stakes, both, cells, chance, draws=200))
    assert set(rows) == {"high", "low"}
    assert {row.verdict for row in rows.values()} == {"miscalibrated"}
    assert rows["high"].shift.low > 0 > rows["low"].shift.high


def test_calibrated_probabilities_have_no_gap() -> None:
    """In 20 worlds at most one is called miscalibrated, and the plug-in is inside the interval."""
    gaps = inside = 0
    for seed in range(20):
        payments, amount, category = world(6000, seed=seed)
        stakes = stakes_of(policy_of(["approve", "decline"]), amount, category)
        (one,) = found(payments, stakes).values()
        assert one.verdict != "too few labels"
        gaps += one.verdict == "miscalibrated"
        inside += one.empirical.low <= one.plug_in <= one.empirical.high
    assert gaps <= 1
    assert inside >= 16


def test_few_frauds_give_no_verdict() -> None:
    payments, amount, category = world(60)
    for one in found(payments, stakes_of(policy_of(), amount, category)).values():
        assert one.verdict == "too few labels"
        assert math.isnan(one.saving.value)
        assert math.isnan(one.shift.error)
        assert not math.isnan(one.empirical.value)


@given(scale=st.sampled_from([0.5, 4.0, 64.0]), seed=st.integers(0, 1000))
@settings(max_examples=15)
def test_costs_that_are_scaled_move_no_threshold_and_scale_the_money(
    scale: float, seed: int
) -> None:
    payments, amount, category = world(800, seed=seed, off_by=0.7)
    stakes = stakes_of(policy_of(), amount, category)
    larger = Stakes(stakes.actions, stakes.alpha * scale, stakes.beta * scale)
    before, after = (found(payments, one, draws=30) for one in (stakes, larger))
    assert before.keys() == after.keys()
    for key, one in before.items():
        other = after[key]
        assert (one.plug_in, one.shift, one.verdict) == (other.plug_in, other.shift, other.verdict)
        assert other.saving.value == pytest.approx(one.saving.value * scale, nan_ok=True)


@given(add=st.floats(0.0, 50.0), seed=st.integers(0, 1000))
@settings(max_examples=15)
def test_what_every_action_costs_moves_no_threshold(add: float, seed: int) -> None:
    _, amount, category = world(300, seed=seed)
    stakes = stakes_of(policy_of(), amount, category)
    dearer = Stakes(stakes.actions, stakes.alpha + add, stakes.beta)
    for one, other in zip(stakes.boundaries(), dearer.boundaries(), strict=True):
        np.testing.assert_allclose(one.threshold, other.threshold, rtol=1e-9, atol=1e-12)


def test_weights_count_as_so_many_payments() -> None:
    payments, amount, category = world(1000, off_by=1.0)
    twice = np.where(payments.fraud, 3.0, 1.0)
    weighed = found(
        payments._replace(weight=twice), stakes_of(policy_of(), amount, category), draws=10
    )
    again = np.repeat(np.arange(1000), twice.astype(np.int64))
    repeated = Payments(payments.p[again], payments.fraud[again], again, np.ones(len(again)))
    stakes = stakes_of(policy_of(), amount[again], [category[i] for i in again.tolist()])
    for key, one in found(repeated, stakes, draws=10).items():
        assert weighed[key].curve.cost == pytest.approx(one.curve.cost)
        assert weighed[key].shift.value == one.shift.value


# The bootstrap.


def test_an_interval_covers_the_mean_and_is_as_wide_as_theory_says() -> None:
    chance = np.random.default_rng(2)
    covered = 0
    for _ in range(100):
        values = chance.exponential(size=(300, 1))
        (one,) = mean_intervals(values, np.arange(300), chance, draws=400)
        covered += one.low <= 1.0 <= one.high
        assert one.error == pytest.approx(values.std() / math.sqrt(300), rel=0.2)
    assert covered >= 87


def test_payments_of_one_cluster_are_drawn_together() -> None:
    """Each value 10 times over in its own cluster is as uncertain as once."""
    chance = np.random.default_rng(3)
    once = chance.normal(size=(500, 1))
    (alone,) = mean_intervals(once, np.arange(500), chance)
    tenfold = np.repeat(once, 10, axis=0)
    (together,) = mean_intervals(tenfold, np.repeat(np.arange(500), 10), chance)
    (apart,) = mean_intervals(tenfold, np.arange(5000), chance)
    assert together.error == pytest.approx(alone.error, rel=0.1)
    assert apart.error == pytest.approx(alone.error / math.sqrt(10), rel=0.1)
    assert together.value == pytest.approx(alone.value)


def test_a_paired_difference_is_narrower_than_its_sides() -> None:
    chance = np.random.default_rng(4)
    one = chance.normal(size=2000)
    other = one + chance.normal(0.1, 0.05, 2000)
    a, b, difference = mean_intervals(
        np.column_stack((one, other, other - one)), np.arange(2000), chance
    )
    assert difference.error < 0.1 * min(a.error, b.error)
    assert difference.value == pytest.approx(b.value - a.value)
    assert difference.low > 0


def test_many_clusters_are_drawn_in_groups_that_are_whole() -> None:
    cluster = np.arange(1000) // 2
    group, groups = groups_of(cluster, np.random.default_rng(1), most=50)
    assert groups == 50
    assert set(group.tolist()) == set(range(50))
    assert (group[::2] == group[1::2]).all()
    drawn = np.concatenate(list(drawn_sums(np.ones((50, 1)), np.random.default_rng(1), draws=33)))
    assert (drawn == 50).all()
    assert drawn.shape == (33, 1)


# Amount bands and the price of review.


def test_bands_are_round_numbers_in_any_currency() -> None:
    amounts = np.random.default_rng(1).lognormal(8, 1, 5000)
    edges = round_bands(amounts, 100)
    assert np.quantile(amounts, [0.5, 0.8, 0.95]).tolist() == pytest.approx(
        [2972, 6805, 15_260], rel=0.05
    )
    assert edges == (20.0, 50.0, 200.0)
    yen = round_bands(amounts * 100, 1)
    assert all(str(int(edge))[0] in "125" for edge in yen)
    assert bands_of(np.array([1, 2000, 2001]), (2000.0,)).tolist() == [0, 0, 1]


@given(
    capacity=st.floats(0.0, 400.0),
    per_hour=st.sampled_from([10.0, 1000.0]),
    priced_at=st.sampled_from([0.0, 150.0]),
    seed=st.integers(0, 100),
)
@settings(max_examples=40)
def test_the_shadow_price_is_the_least_that_fits_the_capacity(
    capacity: float, per_hour: float, priced_at: float, seed: int
) -> None:
    payments, amount, category = world(400, seed=seed)
    changed = {**REVIEW, "shadow_price": priced_at / 100}
    stakes = stakes_of(policy_of(review=changed), amount, category)
    found = review_price(
        stakes,
        payments.p,
        payments.weight,
        priced_at=priced_at,
        payments_per_hour=per_hour,
        capacity_per_hour=capacity,
    )

    def reviews(price: float) -> float:
        repriced = {**REVIEW, "shadow_price": price / 100}
        again = stakes_of(policy_of(review=repriced), amount, category)
        chosen = again.chosen(payments.p)
        return float((chosen == again.actions.index(Action.REVIEW)).mean()) * per_hour

    assert found.wanted == pytest.approx(reviews(0.0))
    assert found.taken <= capacity or found.shadow_price == 0
    assert found.taken == pytest.approx(reviews(found.shadow_price), abs=1e-9 + per_hour / 400)
    assert (found.shadow_price == 0) == (found.wanted <= capacity)
    assert found.cost_per_1000 >= 0
    if found.shadow_price > 0.01:
        assert reviews(found.shadow_price - 0.02) > capacity - per_hour / 400


def test_a_product_without_review_has_no_price_of_it() -> None:
    payments, amount, category = world(50)
    stakes = stakes_of(policy_of(["approve", "decline"]), amount, category)
    with pytest.raises(ValueError, match="none of the product's actions"):
        review_price(
            stakes,
            payments.p,
            payments.weight,
            priced_at=0.0,
            payments_per_hour=1.0,
            capacity_per_hour=1.0,
        )
