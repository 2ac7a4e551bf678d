"""The evaluator against a plain loop over the same rows, its groups against fairlearn."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import evaluated_lake as world
import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import MetricFrame, count, selection_rate

from gateway.cli.lake_terms import columns_of_tables
from gateway.evaluate import counts
from gateway.evaluate.engine import CELLS, GROUPS, SEGMENTS, DuckDb
from gateway.evaluate.evaluation import Evaluation, evaluate
from gateway.evaluate.measures import Measures, measures_of
from gateway.evaluate.terms import BANDS_MAJOR, Terms, terms_of
from gateway.product import parse

MODELS = Path(__file__).parents[1] / "models"
AS_OF = world.day(200)
DAYS = (world.day(0).date(), world.day(60).date())
BANDS = ("18-34", "35-54", "70+")
Row = dict[str, Any]


@pytest.fixture(scope="module")
def terms() -> Terms:
    text = (MODELS / "card-not-present" / "product.yaml").read_text()
    return terms_of(parse(text.replace("card-not-present", "cnp"), "product.yaml"))


@pytest.fixture(scope="module")
def rows() -> tuple[list[Row], list[Row], list[Row]]:
    """Decisions with retries, labels of all sorts, and attributes of most customers."""
    chance = random.Random(3)
    decisions, labels = [], []
    for number in range(1, 1500):
        customer = chance.randrange(150)
        p = min(0.999, chance.expovariate(8))
        action = "decline" if p > 0.5 else "step_up" if p > 0.2 else "approve"
        explored = action == "decline" and chance.random() < 0.3
        row = world.decision(
            number,
            event_time=world.day(chance.random() * 60),
            amount_minor=chance.choice((300, 1_999, 2_000, 16_000, 70_000, 250_000)),
            category=chance.choice(("5411", "5912", "5541", "5999")),
            subject=f"{customer * 2_654_435_761 % 2**32:08x}{'0' * 24}",
            action="approve" if explored else action,
            explored=explored,
            propensity=0.3 if explored else 0.7 if action == "decline" else 1.0,
            probability=p,
            stand_in=chance.choice(("none",) * 9 + ("deadline",)),
            in_time=chance.choice((True,) * 9 + (False, None)),
            arm=chance.choice(("champion", "canary")),
            watch={
                "channel": chance.choice(("app", "web")),
                "checkout": chance.choice(("x", None)),
            },
        )
        decisions.append(row)
        if chance.random() < 0.05:  # a retry that was answered otherwise
            late = row["event_time"] + timedelta(seconds=1)
            again = {**row, "decision_id": f"{world.BOOT}-01-{number:012x}", "received": late}
            decisions.append({**again, "action": "step_up", "in_time": chance.random() < 0.5})
        reported = row["event_time"] + timedelta(days=chance.random() * 40)
        if chance.random() < p:
            labels.append(
                world.label(
                    number,
                    chance.choice(("chargeback", "customer_denied")),
                    reported_time=reported,
                    amount_minor=chance.choice((None, 100)),
                    liable=chance.choice(("customer", "issuer")),
                )
            )
        elif chance.random() < 0.2:
            labels.append(world.label(number, "customer_confirmed", reported_time=reported))
        if action == "step_up":
            end = chance.choice(("step_up_passed", "step_up_failed", "step_up_abandoned"))
            labels.append(world.label(number, end, reported_time=row["event_time"]))
    subjects = sorted({row["subject"] for row in decisions})
    attributes = [world.attribute(one, chance.choice(BANDS)) for one in subjects[10:]]
    attributes += [
        world.attribute(one, chance.choice(BANDS), reported_time=world.day(1))
        for one in subjects[10:20]
    ]
    return decisions, labels, attributes


@pytest.fixture(scope="module")
def engine(
    rows: tuple[list[Row], list[Row], list[Row]],
    terms: Terms,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[DuckDb]:
    lake = tmp_path_factory.mktemp("lake")
    for table, some in zip(("decisions", "labels", "attributes"), rows, strict=True):
        world.write(lake, table, some)
    with DuckDb(world.files(lake), columns_of_tables()) as engine:
        counts.count(engine, [terms], AS_OF)
        yield engine


def counted(decisions: list[Row]) -> list[Row]:
    """Return the answers that count, one a transaction."""
    found: dict[str, Row] = {}
    for row in sorted(decisions, key=lambda r: (bool(r["in_time"]), r["received"])):
        found[row["transaction_id"]] = row
    return list(found.values())


def by_hand(
    rows: tuple[list[Row], list[Row], list[Row]], terms: Terms, part: str
) -> dict[str, dict[str, np.ndarray]]:
    decisions, labels, attributes = rows
    known: dict[str, dict[str, Row]] = defaultdict(dict)
    for one in labels:
        known[one["transaction_id"]][one["kind"]] = one
    group: dict[str, Row] = {}
    for one in attributes:
        before = group.get(one["subject"])
        if before is None or one["reported_time"] > before["reported_time"]:
            group[one["subject"]] = one
    found: dict[str, dict[str, np.ndarray]] = defaultdict(
        lambda: defaultdict(lambda: np.zeros(128))
    )
    for row in counted(decisions):
        if not DAYS[0] <= row["event_time"].date() <= DAYS[1]:
            continue
        told = known[row["transaction_id"]]
        fraud_label = told.get("chargeback") or told.get("customer_denied")
        fraud = fraud_label is not None
        stopped = "step_up_failed" in told or "step_up_abandoned" in told
        through = row["action"] != "decline" and not stopped
        bucket = int(row["subject"][:2], 16) // 2
        said = group[row["subject"]]["value"] if row["subject"] in group else "unknown"
        names = {
            "all": "",
            "arm": row["arm"],
            "class": str(_class(terms, row)),
            "band": str(sum(row["amount_minor"] >= edge * 100 for edge in BANDS_MAJOR)),
            "month": f"{row['event_time']:%Y-%m}",
            "group": f"age_band={said}",
        }
        if part == "segment":
            watched = {name: value for name, value in row["watch"].items() if value}
            places = [found[f"{name}={value}"] for name, value in watched.items()]
        else:
            places = [found[names[part]]]
        p, w = row["probability"], 1 / row["propensity"]
        loss = (fraud_label.get("amount_minor") or row["amount_minor"]) if fraud_label else 0
        let, declined = row["explored"], row["action"] == "decline"
        adds = {
            "n": 1,
            "passed": through,
            "passed_amount": through * row["amount_minor"],
            "fraud": through and fraud,
            "loss": loss if through else 0,
            "customer_loss": loss if fraud_label and fraud_label["liable"] == "customer" else 0,
            "passed_genuine": through and not let and not fraud,
            "passed_fraud": through and not let and fraud,
            "passed_p": p if through and not let else 0,
            "explored_genuine": let and not fraud,
            "explored_w_fraud": w if let and fraud else 0,
            "explored_w_p": w * p if let else 0,
            "explored_w2": w * w if let else 0,
            "declined_n": declined,
            "declined_p": p if declined else 0,
            "declined_p_amount": p * row["amount_minor"] if declined else 0,
            "by_model": row["stand_in"] == "none",
            "in_time": row["in_time"] is True,
            "late": row["in_time"] is False,
            "expected": p if through and row["stand_in"] == "none" else 0,
            "observed": through and row["stand_in"] == "none" and fraud,
            "step_up_known": row["action"] == "step_up" and any(k.startswith("step") for k in told),
            "step_up_passed": row["action"] == "step_up" and "step_up_passed" in told,
        }
        for mine in places:
            for name, value in adds.items():
                mine[name][bucket] += value
    return found


def _class(terms: Terms, row: Row) -> int:
    for mcc, up_to, one, above in terms.categories:
        if mcc == row["category"]:
            return one if up_to is None or row["amount_minor"] <= up_to else above
    return 0


@pytest.mark.parametrize("part", ["all", "arm", "class", "band", "month", "group", "segment"])
def test_sums_are_a_plain_loops(
    part: str, engine: DuckDb, rows: tuple[list[Row], list[Row], list[Row]], terms: Terms
) -> None:
    cells = {"group": GROUPS, "segment": SEGMENTS}.get(part, CELLS)
    column = "group" if part == "segment" else part
    found = measures_of(engine.read("sums", DAYS, part=column, cells=cells))["cnp"]
    wanted = by_hand(rows, terms, part)
    assert found.keys() == wanted.keys()
    for value, columns in wanted.items():
        for name, sums in columns.items():
            np.testing.assert_allclose(
                found[value][name], sums, rtol=1e-9, err_msg=f"{value} {name}"
            )


def test_rates_by_group_are_fairlearns(
    engine: DuckDb, rows: tuple[list[Row], list[Row], list[Row]]
) -> None:
    decisions, _, attributes = rows
    latest = {one["subject"]: one["value"] for one in attributes}
    table = pd.DataFrame(
        [
            {
                "declined": row["action"] == "decline",
                "group": latest.get(row["subject"], "unknown"),
            }
            for row in counted(decisions)
            if DAYS[0] <= row["event_time"].date() <= DAYS[1]
        ]
    )
    frame = MetricFrame(
        metrics={"rate": selection_rate, "n": count},
        y_true=table["declined"],
        y_pred=table["declined"],
        sensitive_features=table["group"],
    )
    groups: dict[str, Measures] = measures_of(
        engine.read("sums", DAYS, part="group", cells=GROUPS)
    )["cnp"]
    for group, row in frame.by_group.iterrows():
        sums = groups[f"age_band={group}"]
        assert sums.total("n") == row["n"]
        assert sums.total("declined") / sums.total("n") == pytest.approx(row["rate"], abs=1e-12)


def test_an_evaluation_says_undecided_where_data_are_thin_and_never_nan(
    engine: DuckDb, terms: Terms
) -> None:
    found: Evaluation = evaluate(engine, [terms], AS_OF)
    told = found.as_object()
    for section in ("goals", "money", "calibration", "fairness"):
        assert told[section], section
        for entry in told[section]:
            low, high = entry["interval"]
            for value in (entry["value"], low, high):
                assert value is None or np.isfinite(value)
            if entry["value"] is not None and low is not None and high is not None:
                assert low <= entry["value"] <= high, entry
            if None in (entry["value"], low, high):
                assert entry["because"], entry
    gates = [one for one in told["fairness"] if one.get("gates")]
    assert gates
    assert {one["basis"] for one in gates} == {"explored"}
