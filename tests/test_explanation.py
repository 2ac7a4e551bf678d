"""An explanation says what the policy does, and what it would have done."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import catalogue
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_decide import IDENTITY, MINOR, NOW, Asked, override, random_costs

from gateway.decide import (
    Calibration,
    Explanation,
    Policy,
    Scaled,
    compile_policy,
    explain,
    from_mapping,
    log_odds,
    served_probability,
)
from gateway.product import Action

DAY_S = 86_400
FLATS = {"x": [0.0, 0.1, 0.35, 0.5, 0.8, 1.0], "y": [0.01, 0.02, 0.02, 0.3, 0.3, 0.9]}
MAPS: list[Calibration] = [
    IDENTITY,
    from_mapping("platt", {"a": 1.3, "b": -0.4}),
    from_mapping("beta", {"a": 0.8, "b": 1.2, "c": -0.3}),
    from_mapping("isotonic", FLATS),
    from_mapping("logistic", {"a": 0.7, "b": -1.0}),
    from_mapping("logistic", {"a": -3.0, "b": 0.5}),
    Scaled(from_mapping("platt", {"a": 1.1, "b": 0.2}), genuine=100.0, fraud=0.0),
]
BARS = {"step_up": 0.2, "review": 0.3, "decline": 0.6}
SALE = {"event": "sale", "from": "2026-11-27", "to": "2026-11-30", "log_odds_shift": 0.7}


@cache
def policies() -> list[tuple[Policy, int]]:
    """Costs, maps, base rates, calendars, overrides and exploration at random; minor units."""
    chance = random.Random(3)
    return [random_policy(chance) for _ in range(50)]


def random_policy(chance: random.Random) -> tuple[Policy, int]:
    costs = random_costs(chance)
    costs["false_negative"]["loss_rate"] = min(costs["false_negative"]["loss_rate"], 1.0)
    drawn = chance.sample(list(BARS), chance.randint(1, 3))
    changes: dict[str, Any] = {
        "costs": costs,
        "actions": ["approve", *(name for name in BARS if name in drawn)],
        "stand_in": {reason: [{"action": "approve"}] for reason in catalogue.REASONS},
        "overrides": [
            override(action=name, at_least=BARS[name], category=chance.choice([None, "fuel"]))
            for name in drawn
            if chance.random() < 0.3
        ],
        "calendar": [SALE],
    }
    if chance.random() < 0.5:
        changes["models__champion__base_rate"] = {"calibrated_at": 0.02, "serving": 0.003}
    if "decline" in drawn and chance.random() < 0.5:
        changes["exploration"] = {"share": 0.5, "max_amount": 500, "loss_per_day": 10**7}
    policy = compile_policy(catalogue.product(**changes), chance.choice(MAPS))
    return policy, MINOR[costs["currency"]]


def random_payment(chance: random.Random) -> Asked:
    return Asked(
        f"t-{chance.random()}",
        chance.choice([0, 1, 15_000, 15_001, chance.randrange(10 ** chance.choice([3, 5, 9]))]),
        chance.choice(["", "5912", "5541", "9999"]),
        NOW + chance.randrange(10 * DAY_S),
    )


def explained(seed: int, count: int) -> Iterator[tuple[Policy, Asked, Explanation]]:
    chance = random.Random(seed)
    for _ in range(count):
        policy, unit = chance.choice(policies())
        low, high = max(policy.score_low, -8.0), min(policy.score_high, 8.0)
        score = chance.choice([low, high, low + (high - low) * chance.random() ** 3])
        payment = random_payment(chance)
        yield policy, payment, explain(policy, score, payment, minor_per_major=unit)


def chosen(policy: Policy, score: float, payment: Asked, **changes: Any) -> Action:
    """What the policy itself chooses, exploration aside."""
    one = payment._replace(**changes)
    index = policy.cost_class(one.amount_minor, one.category)
    return Action(policy.decide_one(score, one.amount_minor, index, one.event_s).action)


def margin(policy: Policy, score: float, payment: Asked, **changes: Any) -> float:
    one = payment._replace(**changes)
    index = policy.cost_class(one.amount_minor, one.category)
    return policy.decide_one(score, one.amount_minor, index, one.event_s).margin


def test_it_agrees_with_the_policy_to_the_bit() -> None:
    for policy, payment, why in explained(0, 600):
        index = policy.cost_class(payment.amount_minor, payment.category)
        own = policy.decide_one(why.score, payment.amount_minor, index, payment.event_s)
        (answered,) = policy.decide([why.score], [payment])
        assert repr(why.decision) == repr(answered)
        assert why.chosen == own.action
        assert why.explored == (answered.action != own.action)
        assert why.cost_class is policy.classes[index]
        assert [option.cost_minor for option in why.options] == list(own.costs)
        assert [option.action for option in why.options] == list(policy.actions)
        assert served_probability(policy, why.score, payment.event_s) == own.probability
        if math.isnan(own.threshold):
            assert why.nearest is why.below is why.above is None
        else:
            assert why.nearest is not None
            assert why.nearest.probability == own.threshold


def test_the_shifts_add_up_in_log_odds() -> None:
    for _, _, why in explained(1, 300):
        if 1e-5 < why.calibrated < 1 - 1e-5:
            expected = log_odds(why.calibrated) + why.base_rate_shift + why.calendar_shift
            assert log_odds(why.decision.probability) == pytest.approx(expected, abs=1e-9)


def test_the_chosen_action_is_the_cheapest_that_is_not_ruled_out() -> None:
    overridden = 0
    for _, _, why in explained(2, 300):
        left = [option for option in why.options if not option.ruled_out]
        assert min(left, key=lambda option: option.cost_minor).action == why.chosen
        assert all(option.dearer_minor >= 0.0 for option in left)
        cheapest = min(why.options, key=lambda option: option.cost_minor)
        assert why.overridden == cheapest.ruled_out
        overridden += why.overridden
    assert overridden > 10


def test_the_intervals_say_what_is_chosen_at_every_probability() -> None:
    """Asked of the same policy with a score that is the probability served."""
    for policy, payment, why in explained(3, 300):
        bare = replace(
            policy,
            calibration=IDENTITY,
            score_low=0.0,
            score_high=1.0,
            base_odds_ratio=1.0,
            _event_bounds_s=(),
        )
        assert why.intervals[0].low == 0.0
        assert why.intervals[-1].high == 1.0
        for one in why.intervals:
            for step in (0.01, 0.5, 0.99):
                p = one.low + (one.high - one.low) * step
                at_p = chosen(bare, p, payment)
                assert at_p == one.action or margin(bare, p, payment) < 1e-6


def test_the_score_at_an_edge_is_the_first_that_crosses_it() -> None:
    """And where there is none, no score of the map's domain crosses."""
    crossed = unreached = 0
    for policy, payment, why in explained(4, 1_000):
        for edge, side in ((why.below, -1.0), (why.above, 1.0)):
            if edge is None:
                continue
            assert edge.log_odds_away * side > -1e-9
            ends = (policy.score_low, policy.score_high)
            if edge.score is None:
                unreached += 1
                p = [served_probability(policy, end, payment.event_s) * side for end in ends]
                assert max(p) <= edge.probability * side + 1e-12
                continue
            crossed += 1
            assert chosen(policy, edge.score, payment) == edge.action != why.chosen
            if edge.score != why.score:
                before = math.nextafter(edge.score, why.score)
                assert chosen(policy, before, payment) == why.chosen
    assert crossed > 200
    assert unreached > 20


def test_the_score_that_crosses_where_the_map_is_flat() -> None:
    """On a flat no score crosses; the first one does that leaves it."""
    costs = {
        "costs__false_negative": {"loss_rate": 0.0, "fee": 10},
        "costs__false_positive": {"margin": 0.0, "goodwill": 10.0 * 0.25 / 0.75},
        "costs__categories": {},
    }
    policy = compile_policy(catalogue.binary(**costs), from_mapping("isotonic", FLATS))
    payment = Asked("t", 1000, "", NOW)
    below = explain(policy, 0.2, payment, minor_per_major=100)
    assert below.above is not None
    assert below.above.probability == pytest.approx(0.25)
    assert below.above.score == pytest.approx(0.35 + 0.15 * 0.23 / 0.28)
    above = explain(policy, 0.7, payment, minor_per_major=100)
    assert above.below is not None
    assert above.below.score == pytest.approx(below.above.score)
    low = replace(policy, calibration=from_mapping("isotonic", {"x": [0, 1], "y": [0, 0.2]}))
    unreached = explain(low, 0.2, payment, minor_per_major=100)
    assert unreached.above is not None
    assert unreached.above.score is None


def nearest_amounts(
    policy: Policy, score: float, payment: Asked, far: int
) -> tuple[int | None, int | None]:
    """Brute force: ask amount by amount, up to `far` away."""
    own, amount = chosen(policy, score, payment), payment.amount_minor
    smaller, larger = range(amount - 1, max(-1, amount - far), -1), range(amount + 1, amount + far)
    found = [
        next((a for a in side if chosen(policy, score, payment, amount_minor=a) != own), None)
        for side in (smaller, larger)
    ]
    return found[0], found[1]


def test_the_nearest_amounts_are_those_of_a_brute_force_loop() -> None:
    """Whole amounts one by one, beside an edge and over the limits of harm too.

    Where two lines tie but for rounding, either may win on the way.
    """
    chance, found = random.Random(5), 0
    for policy, payment, why in explained(5, 300):
        amount = max(0, chance.choice([150, 15_000, 150_000, 400]) + chance.randint(-60, 60))
        payment = payment._replace(amount_minor=amount)
        why = explain(policy, why.score, payment, minor_per_major=1)
        edge = why.below or why.above
        if edge is None or edge.score is None:
            continue
        score = edge.score + (why.score - edge.score) * chance.random() * 0.01
        why = explain(policy, score, payment, minor_per_major=1)
        sides = nearest_amounts(policy, score, payment, far=100)
        for other, at in zip((why.smaller, why.larger), sides, strict=True):
            if at is not None:
                found += 1
                tie = margin(policy, score, payment, amount_minor=at) < 1e-9
                assert tie or (other is not None and other.amount_minor == at)
            elif other is not None:
                assert abs(other.amount_minor - amount) >= 100
    assert found > 20


def test_another_amount_is_decided_as_it_is_said() -> None:
    """At any distance: the amount before it keeps the action, and it has the other."""
    ends = 0
    for policy, payment, why in explained(6, 300):
        for other, step in ((why.smaller, 1), (why.larger, -1)):
            if other is None:
                continue
            assert chosen(policy, why.score, payment, amount_minor=other.amount_minor) == (
                other.action
            )
            assert other.action != why.chosen
            before = other.amount_minor + step
            assert chosen(policy, why.score, payment, amount_minor=before) == why.chosen
            ends += 1
    assert ends > 40


@cache
def ending_harm(up_to: float) -> Policy:
    """Where harm is 4, up to an amount, a payment of p = 0.6 is approved; above it is declined."""
    return compile_policy(
        catalogue.binary(
            costs__false_negative={"loss_rate": 0.0, "fee": 10},
            costs__false_positive={"margin": 0.0, "goodwill": 10},
            costs__categories={"fuel": {"mcc": [5541], "harm": 4, "harm_up_to": up_to}},
        ),
        IDENTITY,
    )


@given(amount=st.integers(0, 10**6), up_to=st.sampled_from([0.004, 150, 150.005, 10**9]))
def test_harm_that_ends_at_an_amount_is_crossed_there(amount: int, up_to: float) -> None:
    """Only the multiplier decides here, so both sides of its limit are the nearest amounts."""
    payment = Asked("t", amount, "5541", NOW)
    why = explain(ending_harm(up_to), 0.6, payment, minor_per_major=100)
    limit = math.floor(round(up_to * 100, 6))
    if amount <= limit:
        assert (why.chosen, why.smaller) == (Action.APPROVE, None)
        assert why.larger == (limit + 1, Action.DECLINE)
    else:
        assert (why.chosen, why.larger) == (Action.DECLINE, None)
        assert why.smaller == (limit, Action.APPROVE)


def test_no_amount_from_a_trillion_on_is_looked_at() -> None:
    """The lines cross at 5.6·10^13 minor units, whatever these are worth."""
    policy = compile_policy(
        catalogue.binary(
            costs__false_negative={"loss_rate": 1e-12, "fee": 0},
            costs__false_positive={"margin": 0.0, "goodwill": 5},
        ),
        IDENTITY,
    )
    for minor_per_major, reached in ((1, False), (10, False), (100, True)):
        why = explain(policy, 0.9, Asked("t", 5, "", NOW), minor_per_major=minor_per_major)
        assert (why.larger is not None) == reached


def test_the_categories_that_would_change_the_action_are_named() -> None:
    differ = 0
    for policy, payment, why in explained(7, 300):
        expected = {
            name: chosen(policy, why.score, payment, category=mcc)
            for name, mcc in (("", "9999"), ("pharmacy", "5912"), ("fuel", "5541"))
        }
        named = {name: action for name, action in expected.items() if action != why.chosen}
        assert dict(why.categories) == named
        assert len(why.categories) == len(named)
        differ += bool(named)
    assert differ > 10


def test_an_override_is_an_edge_and_rules_out() -> None:
    policy = compile_policy(catalogue.binary(overrides=[override()]), IDENTITY)
    why = explain(policy, 0.4, Asked("t", 2000, "", NOW), minor_per_major=100)
    assert why.overridden
    assert why.overrides == ((Action.DECLINE, 0.5),)
    assert [option.ruled_out for option in why.options] == [False, True]
    assert why.options[1].dearer_minor < 0.0
    assert why.nearest is why.above
    assert why.above is not None
    assert (why.above.probability, why.above.action, why.above.score) == (0.5, Action.DECLINE, 0.5)
    later = explain(policy, 0.4, Asked("t", 2000, "", NOW + 30 * DAY_S), minor_per_major=100)
    assert later.overrides == ()
    assert later.chosen == Action.DECLINE


def test_an_explored_payment_is_explained_as_the_decline_that_it_was_spared() -> None:
    declared = {"share": 1, "max_amount": 200, "loss_per_day": 10**9}
    policy = compile_policy(catalogue.binary(exploration=declared), IDENTITY)
    why = explain(policy, 0.9, Asked("t", 2000, "", NOW), minor_per_major=100)
    assert why.explored
    assert (why.decision.action, why.chosen) == (Action.APPROVE, Action.DECLINE)
    assert why.below is not None
    assert why.below.action == Action.APPROVE
