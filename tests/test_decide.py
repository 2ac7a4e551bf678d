"""The decision against a brute-force loop over actions, and against its theory."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, NamedTuple

import catalogue
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.decide import (
    CostLine,
    Flag,
    compile_policy,
    dominated,
    draw,
    draw_key,
    from_mapping,
    lower_envelope,
)
from gateway.product import Action

IDENTITY = from_mapping("identity", {})
NOW = datetime(2026, 11, 23, tzinfo=UTC).timestamp()
SEVERITY = [Action.APPROVE, Action.STEP_UP, Action.REVIEW, Action.DECLINE]


class Asked(NamedTuple):
    """What a decision needs of a payment."""

    transaction_id: str
    amount_minor: int
    category: str
    event_s: float


def oracle(costs: dict[str, Any], action: Action, p: float, amount: float, harm: float) -> float:
    """The notes' formulas, word for word, in major units."""
    fn, fp = costs["false_negative"], costs["false_positive"]
    c_fn = fn["loss_rate"] * amount + fn["fee"]
    c_fp = fp["margin"] * amount * (1 - fp["retained"]) + harm * fp["goodwill"]
    c_tp = costs.get("decline_of_fraud", 0.0)
    if action is Action.APPROVE:
        return p * c_fn
    if action is Action.DECLINE:
        return p * c_tp + (1 - p) * c_fp
    if action is Action.STEP_UP:
        s = costs["step_up"]
        genuine = (1 - s["genuine_pass"]) * c_fp + s["genuine_pass"] * harm * s["friction"]
        fraud = s["fraud_pass"] * (1 - s["liability_shift"]) * c_fn
        return s["fee"] + p * fraud + (1 - p) * genuine
    r = costs["review"]
    held = 0.0
    if r["meanwhile"] == "hold":
        held = r["specificity"] * harm * r["hold"]["per_hour"] * r["hold"]["hours"]
    genuine = (1 - r["specificity"]) * c_fp + held
    fee = r["fee"] + r.get("shadow_price", 0.0)
    return fee + p * (1 - r["sensitivity"]) * c_fn + (1 - p) * genuine


def random_costs(chance: random.Random) -> dict[str, Any]:
    """Costs over several magnitudes, with zeros wherever a product may have them."""

    def money(top: float) -> float:
        return chance.choice([0.0, round(chance.random() * top, 2), chance.random() * top])

    def share() -> float:
        return chance.choice([0.0, 1.0, chance.random()])

    return {
        "currency": chance.choice(["USD", "JPY", "KWD"]),
        "false_negative": {"loss_rate": chance.choice([1.0, 0.01 + share()]) % 1.01, "fee": 30.0},
        "false_positive": {"margin": share(), "retained": share(), "goodwill": 0.01 + money(20)},
        "decline_of_fraud": chance.choice([0.0, 5.0]),
        "step_up": {
            "fee": money(1),
            "genuine_pass": share(),
            "fraud_pass": share(),
            "liability_shift": share(),
            "friction": money(5),
        },
        "review": {
            "fee": money(8),
            "sensitivity": share(),
            "specificity": share(),
            "hold": {"per_hour": money(1), "hours": 4.0},
            "meanwhile": chance.choice(["hold", "approve"]),
            "per_hour": 20,
            "shadow_price": money(4),
        },
        "categories": {
            "pharmacy": {"mcc": ["5912"], "harm": 1 + money(5)},
            "fuel": {"mcc": ["5541"], "harm": 2.5, "harm_up_to": 150.0},
        },
    }


MINOR = {"USD": 100, "JPY": 1, "KWD": 1000}


def random_payments(chance: random.Random, n: int) -> tuple[list[float], list[int], list[str]]:
    scores = [chance.choice([0.0, 1.0, 0.5, chance.random() ** 6]) for _ in range(n)]
    amounts = [chance.choice([0, 1, 15_000, 15_001, chance.randrange(10**7)]) for _ in range(n)]
    return scores, amounts, [chance.choice(["", "5912", "5541", "9999"]) for _ in range(n)]


def harm_of(costs: dict[str, Any], mcc: str, amount: float) -> float:
    if mcc == "5912":
        return float(costs["categories"]["pharmacy"]["harm"])
    return 2.5 if mcc == "5541" and amount <= 150.0 else 1.0


@pytest.mark.parametrize("seed", range(10))
def test_the_action_is_the_cheapest_of_a_brute_force_loop(seed: int) -> None:
    """120,000 payments under 120 random sets of costs: ties, zeros and dominated actions too."""
    chance = random.Random(seed)
    for _ in range(12):
        costs = random_costs(chance)
        others = chance.sample(SEVERITY[1:], chance.randint(1, 3))
        actions = sorted([Action.APPROVE, *others])
        policy = compile_policy(
            catalogue.product(
                costs=costs,
                actions=[action.name.lower() for action in actions],
                stand_in={reason: [{"action": "approve"}] for reason in catalogue.REASONS},
            ),
            IDENTITY,
        )
        scores, amounts, mccs = random_payments(chance, 1000)
        decisions = policy.decide(
            scores, [Asked("t", *one, NOW) for one in zip(amounts, mccs, strict=True)]
        )
        unit = MINOR[costs["currency"]]
        for p, minor, mcc, decision in zip(scores, amounts, mccs, decisions, strict=True):
            amount = minor / unit
            harm = harm_of(costs, mcc, amount)
            expected = [oracle(costs, action, p, amount, harm) * unit for action in actions]
            assert decision.costs == pytest.approx(expected, rel=1e-9, abs=1e-6)
            least = min(expected)
            chosen = expected[actions.index(Action(decision.action))]
            assert chosen == pytest.approx(least, rel=1e-9, abs=1e-6)
            rest = sorted(expected)[1]
            assert decision.margin == pytest.approx(rest - least, rel=1e-9, abs=1e-5)


def test_a_tie_goes_to_the_less_severe_action() -> None:
    """At the threshold itself both cost the same: the customer has the benefit of the doubt."""
    policy = compile_policy(
        catalogue.binary(
            costs__false_negative={"loss_rate": 0.0, "fee": 10},
            costs__false_positive={"margin": 0.0, "goodwill": 10},
            costs__categories={},
        ),
        IDENTITY,
    )
    tied = policy.decide_one(0.5, 1000, 0, NOW)
    assert tied.action == Action.APPROVE
    assert tied.margin == 0.0
    assert tied.threshold == 0.5
    assert tied.flags & Flag.NEAR_TIE
    assert policy.decide_one(math.nextafter(0.5, 1), 1000, 0, NOW).action == Action.DECLINE


@pytest.mark.parametrize(
    ("amount", "mcc", "threshold"), [(2000, "", 0.107), (50_000, "", 0.028), (2000, "5912", 0.312)]
)
def test_the_worked_example_of_the_notes(amount: int, mcc: str, threshold: float) -> None:
    policy = compile_policy(catalogue.binary(), IDENTITY)
    index = policy.cost_class(amount, mcc)
    for score in (0.0, 0.01, 0.9):
        decision = policy.decide_one(score, amount, index, NOW)
        assert decision.threshold == pytest.approx(threshold, abs=5e-4)


@given(
    scale=st.floats(0.01, 100),
    constant=st.floats(0, 500),
    amount=st.integers(0, 10**7),
    p=st.floats(0, 1),
)
def test_elkans_invariances(scale: float, constant: float, amount: int, p: float) -> None:
    """Scaling all costs, or a constant on both actions of frauds, moves no threshold."""
    base = {
        "currency": "USD",
        "false_negative": {"loss_rate": 0.0, "fee": 80.0},
        "false_positive": {"margin": 0.0, "goodwill": 7.0},
        "decline_of_fraud": 3.0,
    }
    scaled = {
        "currency": "USD",
        "false_negative": {"loss_rate": 0.0, "fee": 80.0 * scale},
        "false_positive": {"margin": 0.0, "goodwill": 7.0 * scale},
        "decline_of_fraud": 3.0 * scale,
    }
    raised = {
        **base,
        "false_negative": {"loss_rate": 0.0, "fee": 80.0 + constant},
        "decline_of_fraud": 3.0 + constant,
    }
    decisions = [
        compile_policy(catalogue.binary(costs=costs), IDENTITY).decide_one(p, amount, 0, NOW)
        for costs in (base, scaled, raised)
    ]
    thresholds = [decision.threshold for decision in decisions]
    assert thresholds == pytest.approx([7.0 / (7.0 + 80.0 - 3.0)] * 3, rel=1e-9)
    if abs(p - thresholds[0]) > 1e-9:
        assert len({decision.action for decision in decisions}) == 1


CALIBRATIONS = [
    ("identity", {}),
    ("platt", {"a": 1.3, "b": -0.4}),
    ("beta", {"a": 0.8, "b": 1.2, "c": -0.3}),
    ("isotonic", {"x": [0.0, 0.1, 0.35, 0.8, 1.0], "y": [0.0, 0.02, 0.02, 0.6, 1.0]}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "parameters"), CALIBRATIONS)
def test_scalar_and_vector_path_give_the_same_bits(kind: str, parameters: dict[str, Any]) -> None:
    """240,000 payments over the four maps, with base rate, calendar, overrides, all actions."""
    chance = random.Random(kind)
    policy = compile_policy(
        catalogue.product(
            models__champion__base_rate={"calibrated_at": 0.02, "serving": 0.003},
            costs__review=catalogue.REVIEW,
            actions=["approve", "step_up", "review", "decline"],
            calendar=[
                {
                    "event": "sale",
                    "from": "2026-11-27",
                    "to": "2026-11-30",
                    "log_odds_shift": 0.3,
                }
            ],
            overrides=[
                {
                    "action": "decline",
                    "at_least": 0.6,
                    "category": "grocery",
                    "reason": "r",
                    "approver": "a",
                    "expires": "2026-11-28",
                }
            ],
        ),
        from_mapping(kind, parameters),
    )
    for _ in range(60):
        scores = [chance.random() ** chance.choice([1, 8]) for _ in range(1000)]
        amounts = [chance.randrange(10 ** chance.choice([3, 5, 7])) for _ in range(1000)]
        classes = [chance.randrange(len(policy.classes)) for _ in range(1000)]
        events = [NOW + chance.randrange(10 * 86_400) for _ in range(1000)]
        many = policy.decide_many(scores, amounts, classes, events)
        one = [
            policy.decide_one(*payment)
            for payment in zip(scores, amounts, classes, events, strict=True)
        ]
        # repr tells NaN from numbers and 0.0 from -0.0, and is exact.
        assert repr(many) == repr(one)


@pytest.mark.parametrize(("kind", "parameters"), CALIBRATIONS)
def test_choosing_many_gives_what_deciding_gives(kind: str, parameters: dict[str, Any]) -> None:
    """To the same bits, near ties too, under every rule that can bend a decision."""
    chance = random.Random(kind)
    sale = {"event": "sale", "from": "2026-11-27", "to": "2026-11-30", "log_odds_shift": 0.3}
    for changes in (
        {},
        {"calendar": [sale]},
        {
            "models__champion__base_rate": {"calibrated_at": 0.02, "serving": 0.003},
            "costs__review": catalogue.REVIEW,
            "actions": ["approve", "step_up", "review", "decline"],
            "calendar": [sale],
            "overrides": [
                override(at_least=0.6, category="grocery", expires="2026-11-28"),
                override(at_least=0.2, category="fuel", action="step_up"),
            ],
        },
        {"overrides": [override(at_least=0.05, action="step_up"), override(at_least=0.3)]},
    ):
        policy = compile_policy(catalogue.product(**changes), from_mapping(kind, parameters))
        mccs = ["", "5912", "5541", "5411", "9999"]
        scores = [chance.choice([0.05, 0.3, chance.random() ** 6]) for _ in range(2000)]
        amounts = [chance.choice([0, 15_000, 15_001, chance.randrange(10**6)]) for _ in scores]
        places = [chance.randrange(len(mccs)) for _ in scores]
        events = [NOW + chance.randrange(10 * 86_400) for _ in scores]
        classes = policy.cost_classes(np.array(amounts), mccs, np.array(places))
        pairs = zip(amounts, places, strict=True)
        assert classes.tolist() == [policy.cost_class(a, mccs[i]) for a, i in pairs]
        decided = policy.decide_many(scores, amounts, classes.tolist(), events)
        chosen = policy.choose_many(scores, amounts, classes, events)
        near = policy.near_ties(chosen, amounts, classes, events)
        assert chosen.probability.tolist() == [one.probability for one in decided]
        assert chosen.action.tolist() == [one.action for one in decided]
        assert [tuple(row) for row in chosen.costs.tolist()] == [one.costs for one in decided]
        assert near.tolist() == [bool(one.flags & Flag.NEAR_TIE) for one in decided]


@given(
    numbers=st.lists(st.tuples(*(st.integers(-50, 50).map(float),) * 4), min_size=1, max_size=4),
    amount=st.integers(0, 1000),
)
def test_the_envelope_is_the_least_of_its_lines_everywhere(
    numbers: list[tuple[float, float, float, float]], amount: int
) -> None:
    lines = [CostLine(action, *row) for action, row in zip(SEVERITY, numbers, strict=False)]
    intervals = lower_envelope(lines, amount)
    assert intervals[0].low == 0.0
    assert intervals[-1].high == 1.0
    assert all(a.high == b.low and a.action != b.action for a, b in pairwise(intervals))
    by_action = {line.action: line for line in lines}
    for interval in intervals:
        for step in range(11):
            p = interval.low + (interval.high - interval.low) * step / 10
            least = min(line.cost(p, amount) for line in lines)
            assert by_action[interval.action].cost(p, amount) == pytest.approx(least, abs=1e-6)


def test_an_action_that_is_never_cheapest_is_found() -> None:
    policy = compile_policy(catalogue.product(costs__step_up__fee=900), IDENTITY)
    assert dominated(policy.classes[0].lines, [100, 10_000, 50_000]) == (Action.STEP_UP,)


def override(**changes: Any) -> dict[str, Any]:
    return {
        "action": "decline",
        "at_least": 0.5,
        "reason": "the scheme asked",
        "approver": "risk committee",
        "expires": "2026-12-01",
        **changes,
    }


def test_an_override_holds_until_it_expires_by_event_time() -> None:
    """p ≥ at_least takes that action or a more severe one, below it none of them."""
    policy = compile_policy(catalogue.binary(overrides=[override()]), IDENTITY)
    free = compile_policy(catalogue.binary(), IDENTITY)
    before = datetime(2026, 12, 1, 23, 59, 59, tzinfo=UTC).timestamp()
    below = policy.decide_one(0.4, 2000, 0, before)
    assert below.action == Action.APPROVE
    assert below.threshold == 0.5
    assert below.flags & Flag.OVERRIDDEN
    assert policy.decide_one(0.5, 2000, 0, before).action == Action.DECLINE
    assert policy.decide_one(0.4, 2000, 0, before + 1) == free.decide_one(0.4, 2000, 0, before + 1)


def test_an_override_of_a_category_holds_above_its_harm_limit_too() -> None:
    policy = compile_policy(catalogue.binary(overrides=[override(category="fuel")]), IDENTITY)
    for amount, mcc, action in (
        (10_000, "5541", Action.APPROVE),
        (20_000, "5541", Action.APPROVE),
        (20_000, "5411", Action.DECLINE),
    ):
        decision = policy.decide_one(0.4, amount, policy.cost_class(amount, mcc), NOW)
        assert decision.action == action


def test_the_calendar_shifts_the_odds_on_its_days_only() -> None:
    sale = {"event": "sale", "from": "2026-11-27", "to": "2026-11-30", "log_odds_shift": 0.3}
    policy = compile_policy(catalogue.product(calendar=[sale]), IDENTITY)
    first = datetime(2026, 11, 27, tzinfo=UTC).timestamp()
    last = datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC).timestamp()
    for event_s, shifted in ((first - 1, False), (first, True), (last, True), (last + 1, False)):
        decision = policy.decide_one(0.2, 2000, 0, event_s)
        odds = 0.25 * (math.exp(0.3) if shifted else 1.0)
        assert decision.probability == pytest.approx(odds / (1 + odds), rel=1e-12)
        assert bool(decision.flags & Flag.CALENDAR_EVENT) == shifted


def test_exploration_lets_through_its_propensity_and_no_more() -> None:
    """The daily loss bounds it; a retry draws the same; large amounts and approvals never."""
    declared = {"share": 0.05, "max_amount": 200, "loss_per_day": 45_000}
    policy = compile_policy(catalogue.binary(exploration=declared), IDENTITY)
    assert policy.explorer is not None
    # worst loss: 200 + 25; 45,000 / (10,000 x 225) = 0.02 < 0.05
    assert policy.explorer.propensity == pytest.approx(0.02)
    ids = [f"t{i}" for i in range(40_000)]
    n = len(ids)

    def decide(score: float, minor: int) -> list[Any]:
        return policy.decide([score] * n, [Asked(one, minor, "", NOW) for one in ids])

    explored = decide(0.9, 20_000)
    let_through = [d for d in explored if d.action == Action.APPROVE]
    # four standard errors of a binomial
    assert abs(len(let_through) / n - 0.02) < 4 * math.sqrt(0.02 * 0.98 / n)
    assert {d.propensity for d in let_through} == {policy.explorer.propensity}
    assert {d.propensity for d in explored if d.action == Action.DECLINE} == {1 - 0.02}
    assert all(d.flags & Flag.EXPLORED for d in let_through)
    assert explored == decide(0.9, 20_000)
    assert {d.action for d in decide(0.9, 20_001)} == {Action.DECLINE}
    assert {d.propensity for d in decide(0.0, 100)} == {1.0}


def test_draws_of_different_purposes_are_independent() -> None:
    ids = [str(i) for i in range(20_000)]
    one, other = draw_key("exploration", "a"), draw_key("canary", "a")
    both = sum(draw(i, one) < 0.1 and draw(i, other) < 0.1 for i in ids)
    assert abs(both / len(ids) - 0.01) < 0.003


def test_a_stand_in_follows_its_bands() -> None:
    from gateway.product import StandIn

    policy = compile_policy(catalogue.product(), IDENTITY)
    assert policy.stand_in(StandIn.DEADLINE, 5000, "") == Action.APPROVE
    assert policy.stand_in(StandIn.DEADLINE, 5001, "") == Action.STEP_UP
    assert policy.stand_in(StandIn.MODEL_ERROR, 1, "5411") == Action.STEP_UP


def test_a_band_holds_the_amount_that_it_names() -> None:
    """19.99 USD is 1999 cents, though 19.99 * 100 is less in floating point."""
    from gateway.product import StandIn

    bands = [{"up_to": 19.99, "action": "approve"}, {"action": "step_up"}]
    policy = compile_policy(
        catalogue.product(
            stand_in=dict.fromkeys(catalogue.REASONS, bands),
            costs__categories={"fuel": {"mcc": [5541], "harm": 2, "harm_up_to": 19.99}},
        ),
        IDENTITY,
    )
    assert policy.stand_in(StandIn.DEADLINE, 1999, "") == Action.APPROVE
    assert policy.stand_in(StandIn.DEADLINE, 2000, "") == Action.STEP_UP
    assert policy.classes[policy.cost_class(1999, "5541")].harm == 2
    assert policy.classes[policy.cost_class(2000, "5541")].harm == 1


def test_the_last_day_there_is_means_never() -> None:
    policy = compile_policy(
        catalogue.binary(
            overrides=[override(expires="9999-12-31")],
            calendar=[
                {"event": "ever", "from": "2026-01-01", "to": "9999-12-31", "log_odds_shift": 10},
                {"event": "more", "from": "2026-01-01", "to": "9999-12-31", "log_odds_shift": 10},
                {"event": "most", "from": "2026-01-01", "to": "9999-12-31", "log_odds_shift": 10},
            ],
        ),
        IDENTITY,
    )
    decision = policy.decide_one(1e-3, 2000, 0, NOW)
    assert decision.action == Action.DECLINE
    assert 0.99 < decision.probability <= 1.0


def test_a_probability_at_an_overrides_bar_is_a_near_tie() -> None:
    policy = compile_policy(catalogue.binary(overrides=[override(at_least=0.3)]), IDENTITY)
    for p, near in ((0.3 - 1e-9, True), (0.3 + 1e-9, True), (0.31, False)):
        decision = policy.decide_one(p, 2000, 0, NOW)
        assert bool(decision.flags & Flag.NEAR_TIE) == near
        assert policy.decide_many([p], [2000], [0], [NOW]) == [decision]
