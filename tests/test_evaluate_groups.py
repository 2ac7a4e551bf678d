"""Groups of customers: all that one gate compares is one family."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import evaluated_lake as world
import pytest
from statsmodels.stats.multitest import multipletests

from gateway.cli.lake_terms import columns_of_tables
from gateway.evaluate.engine import DuckDb
from gateway.evaluate.evaluation import evaluate
from gateway.evaluate.terms import terms_of
from gateway.product import parse

MODELS = Path(__file__).parents[1] / "models"
BANDS, REGIONS = ("35-54", "18-34", "70+"), ("north", "south", "east", "west")
OFTEN = {"18-34": 0.3, "south": 0.3}
"""Who is declined more often than others are, and how much."""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The fairness of a product that compares two attributes: one group of each is off."""
    chance = random.Random(7)
    decisions, attributes = [], []
    for number in range(1, 6001):
        row = world.decision(number)
        band, region = chance.choice(BANDS), chance.choice(REGIONS)
        turned_down = chance.random() < 0.2 + OFTEN.get(band, 0.0) + OFTEN.get(region, 0.0)
        explored = turned_down and chance.random() < 0.5
        declined = turned_down and not explored
        row |= {"explored": explored, "propensity": 0.5 if turned_down else 1.0}
        decisions.append(row | {"action": "decline" if declined else "approve"})
        attributes += [
            world.attribute(row["subject"], band),
            world.attribute(row["subject"], region, attribute="region"),
        ]
    lake = tmp_path_factory.mktemp("lake")
    world.write(lake, "decisions", decisions)
    world.write(lake, "attributes", attributes)
    one = '    age_band: {reference: "35-54"}'
    text = (MODELS / "card-not-present" / "product.yaml").read_text()
    assert one in text
    text = text.replace(one, f'{one}\n    region: {{reference: "north"}}')
    product = parse(text.replace("card-not-present", "cnp"), "product.yaml")
    with DuckDb(world.files(lake), columns_of_tables()) as engine:
        found = evaluate(engine, [terms_of(product)], world.day(150))
    entries: list[dict[str, Any]] = found.as_object()["fairness"]
    return entries


def test_holms_family_is_all_groups_of_all_attributes(told: list[dict[str, Any]]) -> None:
    """An attribute more is no chance more of a false alarm."""
    ratios = [one for one in told if one.get("gates")]
    groups = [one["by"].get("age_band") or one["by"]["region"] for one in ratios]
    assert sorted(groups) == sorted((*BANDS[1:], *REGIONS[1:]))
    wanted = multipletests([one["p"] for one in ratios], method="holm")[1]
    assert [one["p_adjusted"] for one in ratios] == pytest.approx(wanted.tolist(), rel=1e-9)


def test_who_is_declined_more_often_is_found_in_each_attribute(told: list[dict[str, Any]]) -> None:
    gates = [one for one in told if one.get("gates")]
    breaches = {
        group for one in gates if one["verdict"] == "breach" for group in one["by"].values()
    }
    assert breaches == {*OFTEN, BANDS[0], REGIONS[0]}


def test_a_ratio_tells_the_rates_that_it_is_made_of(told: list[dict[str, Any]]) -> None:
    """Of every group and of the reference; what has no value has its range, and why."""
    ratios = [one for one in told if "reference" in one["by"] and len(one["by"]) == 2]
    assert len({one["metric"] for one in ratios}) == 6
    for one in ratios:
        if one["metric"] == "observed_expected_ratio":
            continue  # of frauds, over what was expected: no rate
        mine, theirs = one["rate"], one["reference_rate"]
        assert (mine["n"], mine["events"]) == (one["n"], one["events"])
        for side in (mine, theirs):
            low, high = side["interval"]
            if low is None or high is None:
                assert side["because"]
                continue
            assert 0.0 <= low <= high <= 1.0
            if one["basis"] == "bounds":
                assert (side["value"], side["because"]) == (None, "bounds_only")
                continue
            assert low <= side["value"] <= high
            if one["basis"] == "all":
                assert side["value"] == pytest.approx(side["events"] / side["n"], rel=1e-12)
        if one["value"] is not None:
            assert one["value"] == pytest.approx(mine["value"] / theirs["value"], rel=1e-9)
