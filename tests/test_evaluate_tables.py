"""What stands beside the figures: how long answers took, how labels came in, which models decide.

Held against loops over the very rows that were written.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from datetime import date, timedelta
from typing import Any

import catalogue
import evaluated_lake as world
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.cli.lake_terms import columns_of_tables
from gateway.evaluate.engine import DuckDb
from gateway.evaluate.evaluation import evaluate
from gateway.evaluate.latency import PER_DECADE, WINDOW, quantile
from gateway.evaluate.terms import terms_of
from gateway.product import parse

AS_OF = world.day(120)
MATURITY = 30
BUDGET_US = 20_000

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def rows() -> tuple[Rows, Rows]:
    """Decisions of 120 days and more, some not answered and some not yet received; chargebacks."""
    chance = random.Random(11)
    decisions: Rows = []
    labels: Rows = []
    for number in range(1, 4001):
        at = world.day(chance.random() * 122)
        took = chance.lognormvariate(7.5, 1.2)
        declined = chance.random() < 0.1
        decisions.append(
            world.decision(
                number,
                event_time=at,
                # A few come long after their event.
                received=at + timedelta(days=3 if chance.random() < 0.05 else 0),
                replied_us=None if chance.random() < 0.02 else took,
                deadline_us=int(chance.choice((BUDGET_US, 4_000))),
                stand_in="deadline" if chance.random() < 0.1 else "none",
                action="decline" if declined else "approve",
            )
        )
        if not declined and chance.random() < 0.2:
            late = at + timedelta(days=chance.random() * 45)
            labels.append(
                world.label(
                    number, "chargeback", reported_time=late, received=late, liable="issuer"
                )
            )
    return decisions, labels


@pytest.fixture(scope="module")
def evaluation(rows: tuple[Rows, Rows], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    lake = tmp_path_factory.mktemp("lake")
    world.write(lake, "decisions", rows[0])
    world.write(lake, "labels", rows[1])
    declared = catalogue.declared(
        product="cnp",
        latency={"budget_ms": BUDGET_US / 1000},
        labels={"maturity": {"chargeback": f"{MATURITY}d"}},
    )
    product = parse(_yaml(declared), "product.yaml")
    with DuckDb(world.files(lake), columns_of_tables()) as engine:
        return evaluate(engine, [terms_of(product)], AS_OF).as_object()


def _yaml(declared: dict[str, Any]) -> str:
    return json.dumps(declared, indent=1)


def test_times_are_those_of_every_answer_that_left_in_the_window(
    evaluation: dict[str, Any], rows: tuple[Rows, Rows]
) -> None:
    (found,) = evaluation["latency"]
    first = AS_OF.date() - WINDOW + timedelta(days=1)
    answered = [
        row
        for row in rows[0]
        if first <= row["event_time"].date() <= AS_OF.date()
        and row["received"] <= AS_OF
        and row["replied_us"] is not None
    ]
    assert (found["from"], found["to"]) == (first.isoformat(), AS_OF.date().isoformat())
    assert found["budget_us"] == BUDGET_US
    assert found["n"] == len(answered) > 500
    late = [row for row in answered if np.float32(row["replied_us"]) > row["deadline_us"]]
    assert found["late"] == len(late) > 20

    times = np.array([row["replied_us"] for row in answered])
    step = 10 ** (1 / PER_DECADE)
    for name, share in (("p50_us", 0.5), ("p90_us", 0.9), ("p99_us", 0.99), ("p999_us", 0.999)):
        true = np.quantile(times, share, method="inverted_cdf")
        assert true / step / 1.01 <= found[name] <= true * step * 1.01

    for one, after in zip(found["bins"], found["bins"][1:], strict=False):
        assert one["to_us"] == after["from_us"]
    for one in found["bins"]:
        here = [row for row in answered if one["from_us"] <= row["replied_us"] < one["to_us"]]
        lates = sum(row["replied_us"] > row["deadline_us"] for row in here)
        instead = sum(
            row["stand_in"] != "none" and row["replied_us"] <= row["deadline_us"] for row in here
        )
        # Edges are printed with four digits.
        assert one["late"] == pytest.approx(lates, abs=1)
        assert one["stood_in"] == pytest.approx(instead, abs=1)
        assert one["by_model"] == pytest.approx(len(here) - lates - instead, abs=1)
    assert sum(x["by_model"] + x["stood_in"] + x["late"] for x in found["bins"]) == found["n"]

    days = Counter(row["event_time"].date().isoformat() for row in answered)
    assert {one["day"]: one["n"] for one in found["days"]} == days
    assert sum(one["late"] for one in found["days"]) == found["late"]


@given(
    times=st.lists(st.floats(1.0, 1e9), min_size=1, max_size=200),
    share=st.floats(0.001, 1.0),
)
def test_a_quantile_is_never_further_off_than_its_bin(times: list[float], share: float) -> None:
    bins = np.floor(PER_DECADE * np.log10(times)).astype(np.int64)
    found = quantile(bins, np.ones(len(times)), share)
    true = np.quantile(times, share, method="inverted_cdf")
    step = 10 ** (1 / PER_DECADE)
    assert found is not None
    assert true / step * 0.99 <= found <= true * step * 1.01


def test_of_nothing_there_is_no_quantile() -> None:
    assert quantile(np.array([], np.int64), np.array([]), 0.5) is None


def test_a_cohort_shows_what_was_reported_by_each_age_and_nothing_of_ages_it_has_not(
    evaluation: dict[str, Any], rows: tuple[Rows, Rows]
) -> None:
    (found,) = evaluation["maturity"]
    ages = found["ages_days"]
    assert ages == [1, 3, 7, 14, 21, MATURITY]
    decided = {row["transaction_id"]: row for row in rows[0] if row["received"] <= AS_OF}
    reported = {row["transaction_id"]: row["reported_time"] for row in rows[1]}
    weeks: dict[date, list[dict[str, Any]]] = {}
    for row in decided.values():
        if row["action"] != "decline":
            day = row["event_time"].date()
            weeks.setdefault(day - timedelta(days=day.weekday()), []).append(row)
    assert [one["from"] for one in found["cohorts"]] == [w.isoformat() for w in sorted(weeks)]
    told = 0
    for one, (begin, some) in zip(found["cohorts"], sorted(weeks.items()), strict=True):
        assert one["passed"] == len(some)
        last = min(begin + timedelta(days=6), AS_OF.date())
        for age, count, share in zip(ages, one["reported"], one["share"], strict=True):
            if (AS_OF.date() - last).days < age:
                assert count is None
                assert share is None
                continue
            delays = [
                (reported[row["transaction_id"]].date() - row["event_time"].date()).days
                for row in some
                if row["transaction_id"] in reported and reported[row["transaction_id"]] <= AS_OF
            ]
            assert count == sum(delay < age for delay in delays)
            assert share == pytest.approx(count / len(some))
            told += count
    assert told > 100


def test_arms_have_the_shares_that_they_decide() -> None:
    declared = catalogue.declared(product="cnp")
    models = declared["models"]
    models["challengers"] = [
        {"name": "next", "path": "next.onnx", "mode": "canary", "share": 0.1},
        {"name": "other", "path": "other.onnx", "mode": "shadow"},
    ]
    found = terms_of(parse(_yaml(declared), "product.yaml")).declared()
    shares = {one["arm"]: (one["role"], one["share"]) for one in found["arms"]}
    champion = models["champion"].get("name", "champion")
    assert shares == {
        champion: ("champion", pytest.approx(0.9)),
        "next": ("canary", 0.1),
        "other": ("shadow", None),
    }
