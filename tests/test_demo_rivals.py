"""The demo's two rivals: the better one ships and the worse one is stopped, as they were made."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import evaluated_lake as world
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from test_demo_months import ENDS_S, MODELS, large_months

from gateway.cli.demo_months import copied_for_months, start_hypotheses, transaction_id
from gateway.cli.demo_picture import show_hypotheses
from gateway.cli.hypothesis_told import told_in
from gateway.cli.lake_terms import columns_of_tables
from gateway.demo import CARD_NOT_PRESENT, CARD_PRESENT, Payment
from gateway.demo.products import product_folders
from gateway.demo.reports import reports
from gateway.demo.rivals import RIVALS
from gateway.demo.seasons import DAY_S
from gateway.evaluate.counts import count
from gateway.evaluate.engine import DuckDb
from gateway.evaluate.terms import terms_of
from gateway.model import Generation, load_generation
from gateway.product import Action
from gateway.serve.hall.admit import Serving
from gateway.sidecar.lake import Lake
from gateway.sidecar.lake.hypotheses import Begun, records
from gateway.sidecar.lake.schema import SCHEMAS

AS_OF = datetime.fromtimestamp(ENDS_S + 3_600, UTC)
RUN = "a1b2c3"


class Decided(NamedTuple):
    """What each arm says of a product's payments, (arms, n), and which arm decides them, (n,)."""

    numbers: list[int]
    payments: list[Payment]
    actions: NDArray[np.uint8]
    probabilities: NDArray[np.float64]
    cost_minor: NDArray[np.float64]
    arm: NDArray[np.int64]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return copied_for_months(product_folders(), tmp_path_factory.mktemp("products"), ENDS_S)


@pytest.fixture(scope="module")
def generations(folders: list[Path]) -> dict[str, Generation]:
    return {one.name: one for one in map(load_generation, folders)}


@pytest.fixture(scope="module")
def decided(generations: Mapping[str, Generation]) -> dict[str, Decided]:
    return {name: _decided(one) for name, one in generations.items()}


def _decided(generation: Generation) -> Decided:
    everything = large_months().payments
    # Behind the greatest number of days nothing counts.
    numbers = [
        n
        for n, one in enumerate(everything)
        if one.product == generation.name and one.event_time_s < ENDS_S - 39 * DAY_S
    ]
    payments = [everything[n] for n in numbers]
    features = np.array([one.features for one in payments], dtype=np.float32)
    amounts = np.array([one.amount_minor for one in payments])
    policy = generation.policy
    classes = np.array([policy.cost_class(one.amount_minor, one.mcc) for one in payments])
    events = [one.event_time_s for one in payments]
    fraud = np.array([one.fraud for one in payments], np.float64)
    # Each subject is drawn as the hall draws him.
    serving = Serving.of(generation, 0)
    drawn = {one.subject: serving.drawn(one.subject).arm for one in payments}
    actions, probabilities, costs = [], [], []
    for arm in generation.arms:
        scores = np.concatenate(
            [arm.classifier.score(features[at : at + 512]) for at in range(0, len(features), 512)]
        )
        chosen = arm.policy.choose_many(scores, amounts, classes, events)
        actions.append(chosen.action)
        probabilities.append(chosen.probability)
        alphas, betas = policy._lines(amounts.astype(float), classes)
        place = np.searchsorted(policy.actions, chosen.action)
        costs.append((alphas + betas * fraud[:, None])[np.arange(len(place)), place])
    return Decided(
        numbers,
        payments,
        np.array(actions),
        np.array(probabilities),
        np.array(costs),
        np.array([drawn[one.subject] for one in payments]),
    )


def truth(one: Decided) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """Return by arm, had it decided all: genuine payments declined, frauds approved, and costs."""
    fraud = np.array([payment.fraud for payment in one.payments])
    turned = (one.actions[:, ~fraud] == Action.DECLINE).mean(axis=1)
    approved = (one.actions[:, fraud] == Action.APPROVE).sum(axis=1)
    return turned, approved, one.cost_minor.sum(axis=1)


def test_one_rival_is_better_in_all_and_the_other_worse(decided: Mapping[str, Decided]) -> None:
    turned, approved, cost = truth(decided[CARD_NOT_PRESENT])
    assert turned[1] < 0.5 * turned[0]
    assert approved[1] < approved[0]
    assert cost[1] < 0.9 * cost[0]
    turned, approved, cost = truth(decided[CARD_PRESENT])
    assert turned[1] > 5 * turned[0]
    assert approved[1] > 1.5 * approved[0]
    assert cost[1] > 1.5 * cost[0]


def test_rivals_are_frozen_by_their_files(folders: list[Path]) -> None:
    for folder in folders:
        product = load_generation(folder).product
        (rival,) = product.models.challengers
        assert rival.sha256
        assert (MODELS / product.name / rival.path).read_bytes() == (
            folder / rival.path
        ).read_bytes()
        (claim,) = product.hypotheses
        assert claim.id == RIVALS[product.name].believed["id"]
        assert sum(claim.arms.values()) == 1.0


def test_what_is_constructed_is_what_comes_out(
    tmp_path: Path,
    folders: list[Path],
    decided: Mapping[str, Decided],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By the lake that such a demo leaves, and what a sidecar judges of it; and of a second demo in
    the same lake, the first start stands."""
    months, place = large_months(), Lake.at(str(tmp_path))
    explored = np.random.default_rng(3)
    for one in decided.values():
        _written(tmp_path, one, explored)
    assert start_hypotheses(str(tmp_path), folders, months) == [
        "fewer-turned-away",
        "a-rule-will-do",
    ]
    before = records(place.filesystem, place.root)
    assert {one.started[11:] for one in before if isinstance(one, Begun)} == {"18:00:00+00:00"}
    later = replace(months, payments=months.payments[5_000:])
    start_hypotheses(str(tmp_path), folders, later)
    assert records(place.filesystem, place.root) == before
    terms = [terms_of(load_generation(folder).product) for folder in folders]
    with DuckDb(world.files(tmp_path), columns_of_tables()) as engine:
        count(engine, terms, AS_OF)
        good, bad = told_in(place, engine, terms, AS_OF, None)
    assert (good["id"], good["verdict"], good["because"]) == (
        *("fewer-turned-away", "ship", "goal_reached"),
    )
    assert (bad["id"], bad["verdict"]) == ("a-rule-will-do", "stop")
    assert bad["because"] in ("guardrail_broken", "goal_not_reached")
    assert 14 <= good["day"] <= 80
    assert good["impact"]["interval"][1] < 0.0
    assert all(one["looks"][0]["day"] == 1 and len(one["looks"]) == 80 for one in (good, bad))
    assert all(one["looks"][-1]["evidence_of_mismatch"] < 3 for one in (good, bad))
    damaged = {"product": "card-present", "id": "odd", "error": "is no started hypothesis"}
    show_hypotheses([good, bad, damaged], "my-lake")
    said = capsys.readouterr().out
    assert f"fewer-turned-away: ship, day {good['day']}: {good['says']}" in said
    assert f"a-rule-will-do: stop, day {bad['day']}: {bad['says']}" in said
    assert "odd: not judged: is no started hypothesis" in said
    assert good["claim"] in said
    assert "gateway hypothesis show fewer-turned-away --lake my-lake" in said


def _written(lake: Path, one: Decided, explored: np.random.Generator) -> None:
    """Write what such a demo would leave of a product: rows of decisions, and labels."""
    n = np.arange(len(one.payments))
    action = one.actions[one.arm, n]
    let = (action == Action.DECLINE) & (explored.random(len(n)) < 0.8)
    propensity = np.where(let, 0.8, np.where(action == Action.DECLINE, 0.2, 1.0))
    done = [Action.APPROVE if x else Action(a) for a, x in zip(action, let, strict=True)]
    names = [x.name.lower() for x in done]
    arms = [RIVALS[one.payments[0].product].name if arm else "champion" for arm in one.arm]
    champion = {CARD_NOT_PRESENT: "lightgbm-100x31", CARD_PRESENT: "mlp-32x16"}
    arms = [champion[one.payments[0].product] if arm == "champion" else arm for arm in arms]
    ids = [transaction_id(RUN, number) for number in one.numbers]
    times = pa.array([int(p.event_time_s * 1e6) for p in one.payments], pa.timestamp("us", "UTC"))
    columns = {
        "transaction_id": ids,
        "decision_id": ids,
        "event_time": times,
        "received": times,
        "amount_minor": [p.amount_minor for p in one.payments],
        "category": [p.mcc for p in one.payments],
        "subject": [_pseudonym(p.subject) for p in one.payments],
        "arm": arms,
        "action": names,
        "stand_in": ["none"] * len(n),
        "probability": one.probabilities[one.arm, n],
        "propensity": propensity,
        "explored": let,
        "in_time": [True] * len(n),
        "worker": [0] * len(n),
        "boot": [world.BOOT] * len(n),
        "sequence": one.numbers,
    }
    _write(lake, "decisions", one.payments[0].product, columns)
    told = reports(one.payments, names, np.random.default_rng((1, 1)), until_s=ENDS_S)
    _write(lake, "labels", one.payments[0].product, _labels(list(zip(ids, told, strict=True))))


def _labels(told: Sequence[tuple[str, Sequence[Any]]]) -> dict[str, Any]:
    some = [(id, one) for id, reported in told for one in reported]

    def times(name: str) -> Any:
        micros = [int(getattr(one, name) * 1e6) for _, one in some]
        return pa.array(micros, pa.timestamp("us", "UTC"))

    def event(id: str, key: str) -> str | None:
        return f"{id}-{key}" if key else None

    return {
        "transaction_id": [id for id, _ in some],
        "kind": [one.kind for _, one in some],
        "occurred_time": times("occurred_s"),
        "reported_time": times("reported_s"),
        "received": times("reported_s"),
        "source": [one.source for _, one in some],
        "source_event_id": [event(id, one.key) for id, one in some],
        "supersedes": [event(id, one.supersedes) for id, one in some],
        "amount_minor": [one.amount_minor for _, one in some],
        "liable": [one.liable or None for _, one in some],
    }


def _write(lake: Path, table: str, product: str, columns: Mapping[str, Any]) -> None:
    n = len(columns["transaction_id"])
    schema = SCHEMAS[table]
    arrays = [
        pa.array(columns[one.name]).cast(one.type) if one.name in columns else pa.nulls(n, one.type)
        for one in schema
    ]
    folder = lake / table / f"product={product}" / "date=2026-11-26"
    folder.mkdir(parents=True)
    pq.write_table(pa.table(arrays, schema=schema), folder / f"{table}.parquet")


def _pseudonym(subject: str) -> str:
    return hashlib.blake2b(subject.encode(), digest_size=16).hexdigest()
