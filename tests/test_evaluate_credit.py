"""Real labelled decisions with groups: rates by group are those of a direct computation.

A model of the UCI credit data decides about customers whom it has not seen, through a real gateway;
labels and groups come through its sidecar; `gateway evaluate` reads what is in the lake then. What
it is held against is made of the answers that the client got and of the data set, with pandas. A
declined customer's default stands in the data set, too: so the truth is known that figures about
declines are after.
"""

from __future__ import annotations

import csv
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import catalogue
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from fairlearn.metrics import MetricFrame, false_positive_rate, selection_rate
from numpy.typing import NDArray
from scipy.stats import binom
from test_supervisor import Running, serving, wait_until

from gateway.bench.frames import OK, request_block
from gateway.bench.generator import Plan
from gateway.bench.load import apply
from gateway.bench.traffic import PLACEHOLDER
from gateway.cli.sidecar_lag import beside
from gateway.errors import ExitCode
from gateway.model import load_generation
from gateway.sidecar.lake import Lake
from gateway.v1 import decision_pb2 as pb

DATA = Path(__file__).parents[2] / "shared" / "data" / "uci_credit_card_default.csv.gz"
pytestmark = pytest.mark.skipif(not DATA.exists(), reason="the UCI credit data are not here")

TRAINED, ASKED = 12_000, 8_000
PRODUCT = "credit"
SHARES = (0.6, 0.3)
"""What exploration lets through in the first generation, and in the second: weights differ."""

RETRIED = 100
MATURITY_DAYS, AGES_DAYS = 35, (40, 100)
PAID = 0.75
"""Of an amount, what a default takes."""

REFERENCES = {"age_band": "30-39", "sex": "male", "education": "university", "married": "no"}
UNKNOWN = "unknown"
LEAST = 50
"""So many have to be explored, by their effective number, for anything to be said."""

EXACT = 1e-9
GENEROUS_MS = 10_000

BESIDE = {
    "decline_rate_ratio": "declined",
    "approval_rate_ratio": "through",
    "step_up_rate_ratio": "stepped_up",
}
Entry = dict[str, Any]


# The product


@dataclass(frozen=True)
class Customers:
    """Whom nobody trained on: one row a customer, and what the model is fed."""

    table: pd.DataFrame
    features: NDArray[np.float32]
    columns: list[str]
    model: bytes
    probability: NDArray[np.float64]


def customers() -> Customers:
    """Train on some, and return others, with the model."""
    from skl2onnx import to_onnx
    from sklearn.ensemble import GradientBoostingClassifier

    data = pd.read_csv(DATA).sample(frac=1.0, random_state=5).reset_index(drop=True)
    groups = ["ID", "SEX", "EDUCATION", "MARRIAGE", "AGE"]
    label = data.columns[-1]
    x = data.drop(columns=[*groups, label]).astype(np.float32)
    columns = [name.lower() for name in x.columns]
    x, y = x.to_numpy(), data[label].to_numpy()
    estimator = GradientBoostingClassifier(n_estimators=40, subsample=0.5, random_state=0)
    estimator.fit(x[:TRAINED], y[:TRAINED])
    model = to_onnx(
        estimator,
        x[:1],
        options={id(estimator): {"zipmap": False}},
        target_opset={"": 17, "ai.onnx.ml": 3},
    ).SerializeToString()
    held_out = slice(TRAINED, TRAINED + ASKED)
    some = data[held_out].reset_index(drop=True)
    table = pd.DataFrame(
        {
            "subject": [f"customer-{one}" for one in some["ID"]],
            "amount": some["LIMIT_BAL"].astype(int) * 100,
            "default": some[label].astype(bool),
            "channel": np.where(some["PAY_0"] > 0, "late", "on-time"),
            "sex": some["SEX"].map({1: "male", 2: "female"}),
            "age_band": np.select(
                [some["AGE"] < 30, some["AGE"] < 40, some["AGE"] < 50],
                ["21-29", "30-39", "40-49"],
                "50+",
            ),
            "education": some["EDUCATION"]
            .map({1: "graduate", 2: "university", 3: "high school"})
            .fillna("other"),
            "married": np.where(some["MARRIAGE"] == 1, "yes", "no"),
        }
    )
    probability = estimator.predict_proba(x[held_out])[:, 1]
    return Customers(table, x[held_out], columns, model, probability)


def write_product(folder: Path, given: Customers, generation: int) -> None:
    """Write the product's next generation, as one change."""
    share = SHARES[generation - 1]
    declared = catalogue.declared(
        product=PRODUCT,
        generation=generation,
        latency={"budget_ms": GENEROUS_MS},
        models__champion={
            "name": "boosted",
            "version": "1",
            "path": "model.onnx",
            "sha256": hashlib.sha256(given.model).hexdigest(),
            "output": "probabilities[1]",
        },
        features=[{"name": name, "type": "float", "missing": 0.0} for name in given.columns],
        costs={
            "currency": "TWD",
            "false_negative": {"loss_rate": PAID, "fee": 0},
            "false_positive": {"margin": 0.16, "retained": 0.0, "goodwill": 0},
            "step_up": {
                "fee": 100,
                "genuine_pass": 0.8,
                "fraud_pass": 0.5,
                "liability_shift": 0.0,
                "friction": 0,
            },
        },
        # All declines may be let through: a loss a day that binds nothing.
        exploration={
            "share": share,
            "max_amount": 1_000_000,
            "loss_per_day": 10_000_000,
            "declines_per_day": 1,
        },
        goals=[
            {"metric": "false_positive_rate", "at_most": 0.2},
            {"metric": "approval_rate", "at_least": 0.5},
        ],
        fairness={
            "gate": "false_positive_rate_ratio",
            "limit": [0.8, 1.25],
            "attributes": {name: {"reference": one} for name, one in REFERENCES.items()},
        },
        watch=["channel"],
        labels={"maturity": {"chargeback": f"{MATURITY_DAYS}d"}},
    )
    folder.mkdir(exist_ok=True)
    (folder / "model.onnx").write_bytes(given.model)
    new = folder / "product.new"
    new.write_text(json.dumps(declared, indent=1))
    new.replace(folder / "product.yaml")


# What the client did and was told


def ask(
    gateway: Running, given: Customers, rows: range, fingerprint: str, times_s: NDArray[np.int64]
) -> list[pb.DecideResponse]:
    """Ask about customers, sixteen at a time, and return the answers in their order."""
    messages = tuple(
        pb.DecideRequest(
            product=PRODUCT,
            transaction_id=PLACEHOLDER.decode(),
            event_time={"seconds": int(times_s[i])},
            amount=int(given.table["amount"][i]),
            currency="TWD",
            channel=given.table["channel"][i],
            subject=given.table["subject"][i],
            dense=given.features[i].astype("<f4").tobytes(),
            schema_fingerprint=fingerprint,
        ).SerializeToString()
        for i in rows
    )
    plan = Plan(
        address=gateway.address,
        block=request_block(gateway.address),
        messages=messages,
        placeholder=PLACEHOLDER,
        run=run_of(rows.start),
        schedule_ns=np.zeros(len(rows), np.int64),
        which=np.arange(len(rows), dtype=np.uint16),
        connections=4,
        in_flight_max=16,
        patience_s=60.0,
        at_once=16,
    )
    calls = apply(plan, ()).calls
    assert (calls.status == OK).all()
    assert len(calls.answers) == len(rows)
    return [pb.DecideResponse.FromString((one or b"")[5:]) for one in calls.answers]


def run_of(begin: int) -> str:
    """Return the first 8 hex digits of a load's ids. The ids decide who is explored: no chance."""
    return f"c4ed{begin:04x}"


def told(answer: pb.DecideResponse) -> dict[str, Any]:
    """Return what an answer says, with the propensity of what exploration let through."""
    (chance,) = [one.contribution for one in answer.reasons if one.code == pb.EXPLORATION] or [None]
    return {
        "action": pb.Action.Name(answer.action).lower(),
        "probability": answer.probability,
        "stand_in": answer.stand_in,
        "generation": answer.product_generation,
        "explored": chance is not None,
        "propensity": chance,
    }


def with_ends(answered: pd.DataFrame) -> pd.DataFrame:
    """Add what became of each: one step-up in eight was left unanswered."""
    table = answered.copy()
    table["declined"] = table["action"] == "decline"
    table["stepped_up"] = table["action"] == "step_up"
    table["abandoned"] = table["stepped_up"] & (table.index % 8 == 0)
    table["through"] = ~table["declined"] & ~table["abandoned"]
    # What its policy says of it, before exploration.
    table["turned_down"] = table["declined"] | table["explored"]
    return table


def write_labels(path: Path, table: pd.DataFrame, times_s: NDArray[np.int64]) -> int:
    """Write how step-ups ended, and the defaults of whom was let through; return how many."""
    days = 5 + np.arange(len(table)) % 26
    some = table["through"] & table["default"]
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(
            [
                "transaction_id",
                "kind",
                "occurred_time",
                "amount_minor",
                "currency",
                "source_event_id",
            ]
        )
        for i in np.flatnonzero(table["stepped_up"]):
            end = "step_up_abandoned" if table["abandoned"][i] else "step_up_passed"
            rows.writerow([table["transaction_id"][i], end, times_s[i] + 60, "", "", f"s-{i}"])
        for i in np.flatnonzero(some):
            loss = int(PAID * table["amount"][i])
            at = times_s[i] + 86_400 * days[i]
            rows.writerow([table["transaction_id"][i], "chargeback", at, loss, "TWD", f"c-{i}"])
    return int(table["stepped_up"].sum() + some.sum())


def write_groups(path: Path, table: pd.DataFrame, known_s: int) -> int:
    """Write groups, some of them first told wrongly, and none of one customer in eleven."""
    n = 0
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["subject", "attribute", "value", "reported_time"])
        for attribute in REFERENCES:
            for i, (subject, group) in enumerate(
                zip(table["subject"], table[attribute], strict=True)
            ):
                if group == UNKNOWN:
                    continue
                if i % 50 == 0:
                    rows.writerow([subject, attribute, "mistaken", known_s - 86_400])
                    n += 1
                rows.writerow([subject, attribute, group, known_s])
                n += 1
    return n


def command(*arguments: str) -> dict[str, Any]:
    """Run one of gateway's commands as a process and return its JSON."""
    ended = subprocess.run(
        [sys.executable, "-m", "gateway", *arguments, "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == ExitCode.OK, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def rows_of(lake: Path, table: str) -> int:
    return sum(pq.read_metadata(path).num_rows for path in Lake.at(str(lake)).files(table))


def has_all(journal: Path) -> bool:
    """Say whether no consumer of the sidecar has anything before it."""
    sidecar = beside(journal)
    assert sidecar is not None
    return all(lag is not None and not lag.records for lag in sidecar.lags.values())


@dataclass(frozen=True)
class World:
    """All that was asked and answered, by customer, and what the evaluator says of it."""

    table: pd.DataFrame
    expected: NDArray[np.float64]
    evaluation: dict[str, Any]

    def entries(self, section: str, metric: str, **where: str) -> list[Entry]:
        """Return entries of a metric; `where`: their basis."""
        return [
            one
            for one in self.evaluation[section]
            if one["metric"] == metric and all(one[key] == value for key, value in where.items())
        ]

    def overall(self, section: str, metric: str, basis: str) -> Entry:
        """Return the one entry that is of all traffic and of no goal."""
        (one,) = [
            one
            for one in self.entries(section, metric, basis=basis)
            if not one["by"] and "kind" not in one
        ]
        return one

    def alone(self, metric: str, basis: str) -> list[Entry]:
        """Return what is said of single attributes' groups."""
        found = self.entries("fairness", metric, basis=basis)
        return [one for one in found if len(one["by"]) == 2]

    def by_group(self) -> Iterator[tuple[str, str, pd.DataFrame]]:
        """Yield attribute, group, and the group's customers."""
        for attribute in REFERENCES:
            for group, some in self.table.groupby(attribute):
                yield attribute, str(group), some

    def ratios(self, metric: str, basis: str) -> Iterator[tuple[Entry, pd.DataFrame, pd.DataFrame]]:
        """Yield each group's entry of a ratio, its customers, and those of the reference."""
        found = self.alone(metric, basis)
        assert len(found) == sum(self.table[one].nunique() - 1 for one in REFERENCES)
        for one in found:
            attribute = next(iter(one["by"]))
            of = self.table.groupby(attribute).get_group
            assert one["by"]["reference"] == REFERENCES[attribute]
            yield one, of(one["by"][attribute]), of(REFERENCES[attribute])

    def sides(self, metric: str, basis: str) -> dict[tuple[str, str], Entry]:
        """Return the rates that ratios are made of, by attribute and group, references too."""
        sides: dict[tuple[str, str], Entry] = {}
        for one in self.alone(metric, basis):
            attribute = next(iter(one["by"]))
            sides[attribute, one["by"][attribute]] = one["rate"]
            sides[attribute, one["by"]["reference"]] = one["reference_rate"]
        return sides


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    here = tmp_path_factory.mktemp("credit")
    folder, journal, lake = here / "product", here / "journal", here / "lake"
    given = customers()
    given.table.loc[given.table.index % 11 == 0, list(REFERENCES)] = UNKNOWN
    write_product(folder, given, 1)
    fingerprint = load_generation(folder).schema.fingerprint
    now_s = int(datetime.now(UTC).timestamp())
    youngest, oldest = AGES_DAYS
    ages = np.random.default_rng(2).integers(86_400 * youngest, 86_400 * oldest, ASKED)
    times_s = now_s - ages
    with ExitStack() as stack:
        sidecar = ("--sidecar", "--http", "127.0.0.1:0", "--feedback", "127.0.0.1:0")
        gateway = stack.enter_context(
            serving(folder, journal, "--workers", "1", *sidecar, "--lake", str(lake))
        )
        first, second = range(ASKED // 2), range(ASKED // 2, ASKED)
        answers = ask(gateway, given, first, fingerprint, times_s)
        again = ask(gateway, given, range(RETRIED), fingerprint, times_s)
        assert [one.action for one in again] == [one.action for one in answers[:RETRIED]]
        answers[:RETRIED] = again  # the last one that was in time is the one that counts
        write_product(folder, given, 2)
        command("models", "reload", "--journal", str(journal))
        answers += ask(gateway, given, second, fingerprint, times_s)
        answered = given.table.join(pd.DataFrame(map(told, answers)))
        answered["transaction_id"] = [
            f"{run_of(some.start)}{number:016x}"
            for some in (first, second)
            for number in range(len(some))
        ]
        table = with_ends(answered)
        labels = write_labels(here / "labels.csv", table, times_s)
        attributes = write_groups(here / "groups.csv", table, now_s - 86_400 * oldest)
        to = ("--to", gateway.announced["sidecar"]["feedback"])
        sent = command(
            "label", str(here / "labels.csv"), "--product", PRODUCT, "--source", "bank", *to
        )
        assert sent["accepted"] == labels
        sent = command("label", str(here / "groups.csv"), "--attributes", "--source", "crm", *to)
        assert sent["accepted"] == attributes
        wait_until(lambda: has_all(journal))
        assert gateway.ended() == ExitCode.OK
    held = {name: rows_of(lake, name) for name in ("decisions", "labels", "attributes")}
    assert held == {"decisions": ASKED + RETRIED, "labels": labels, "attributes": attributes}
    evaluation = command("evaluate", "--lake", str(lake))
    return World(table, given.probability, evaluation)


# The direct computation


def odds(shown: pd.DataFrame) -> pd.Series[float]:
    """Return how many of the declined each explored customer stands for."""
    e = shown["propensity"].astype(float)
    return (1.0 - e) / e


def explored_rate(some: pd.DataFrame) -> float:
    """P(declined | genuine), by those that exploration let through."""
    shown = some[some["explored"]]
    stands_for = odds(shown)
    share = (stands_for * ~shown["default"]).sum() / stands_for.sum()
    hidden = some["declined"].sum() * share
    genuine = (some["through"] & ~some["default"]).sum()
    return float(hidden / (hidden + genuine))


def implied_rate(some: pd.DataFrame) -> float:
    """The same as the model believes."""
    genuine = 1.0 - some["probability"]
    declined = genuine[some["declined"]].sum()
    return float(declined / (declined + genuine[some["through"]].sum()))


def true_rate(some: pd.DataFrame) -> float:
    """The same as it is. Who left a step-up unanswered was neither declined nor let through."""
    genuine = some[~some["default"] & ~some["abandoned"]]
    return float(genuine["declined"].mean())


def effective(some: pd.DataFrame) -> float:
    w = 1.0 / some.loc[some["explored"], "propensity"]
    return float(w.sum() ** 2 / (w**2).sum()) if len(w) else 0.0


def close(value: float | None, wanted: float) -> bool:
    return value is not None and value == pytest.approx(wanted, abs=EXACT, rel=EXACT)


def missed_at_most(intervals: int) -> int:
    """Return how many of 95 % intervals may miss, but for one world in a thousand."""
    return int(binom.ppf(0.999, intervals, 0.05))


# What is to be evaluated


def test_the_model_decided_all_and_in_every_way(world: World) -> None:
    """What a client was told is what scikit-learn says, and there is something to compare."""
    table = world.table
    assert (table["stand_in"] == pb.NONE).all()
    np.testing.assert_allclose(table["probability"], world.expected, atol=1e-5)
    assert table["generation"].value_counts().to_dict() == {1: ASKED // 2, 2: ASKED // 2}
    shown = table[table["explored"]]
    assert set(zip(shown["generation"], shown["propensity"], strict=True)) == {
        (1, SHARES[0]),
        (2, SHARES[1]),
    }
    for generation, share in enumerate(SHARES, start=1):
        some = table[(table["generation"] == generation) & table["turned_down"]]
        low, high = binom.interval(0.9999, len(some), share)
        assert low <= some["explored"].sum() <= high
    assert min(table["declined"].sum(), table["stepped_up"].sum(), len(shown)) > 200


def test_every_payment_is_counted_once(world: World) -> None:
    (found,) = world.evaluation["labels"]
    table = world.table
    assert found["decisions"] == len(table), "retries are one payment"
    assert found["maturity_days"] == MATURITY_DAYS
    assert found["without_label_for_ever"] == len(table) - table["through"].sum()
    assert found["mature"] == table["through"].sum()
    assert (found["pending"], found["provisional"], found["reversed"]) == (0, 0, 0)


# All together


def test_rates_of_all_are_a_direct_computation(world: World) -> None:
    table = world.table
    through = table[table["through"]]
    frauds = through["default"].sum()

    one = world.overall("money", "approval_rate", "all")
    assert (one["n"], one["events"]) == (len(table), len(through))
    assert close(one["value"], len(through) / len(table))

    one = world.overall("money", "fraud_rate", "mature")
    assert (one["n"], one["events"]) == (len(through), frauds)
    assert close(one["value"], frauds / len(through))

    one = world.overall("money", "fraud_loss", "mature")
    lost = (PAID * through.loc[through["default"], "amount"]).astype(int).sum()
    assert close(one["value"], lost / 100)
    one = world.overall("money", "fraud_loss_bps", "mature")
    assert close(one["value"], 1e4 * lost / through["amount"].sum())

    one = world.overall("calibration", "observed_over_expected", "mature")
    assert one["events"] == frauds
    assert close(one["value"], frauds / through["probability"].sum())
    assert one["verdict"] == "pass", "it was trained on customers like these"

    ended = table[table["stepped_up"]]
    one = world.overall("money", "step_up_success_rate", "observed")
    assert (one["n"], one["events"]) == (len(ended), (~ended["abandoned"]).sum())


def test_false_positives_of_all_and_of_segments_are_a_direct_computation(world: World) -> None:
    """In three forms: and the truth, which only the data set knows, is where they say."""
    parts = [("", world.table), *world.table.groupby("channel")]
    for segment, some in parts:
        by = {"channel": segment} if segment else {}
        (one,) = [
            found
            for found in world.entries("money", "false_positive_rate", basis="explored")
            if found["by"] == by and "kind" not in found
        ]
        genuine = some["through"] & ~some["default"]
        assert one["n"] == some["declined"].sum() + genuine.sum()
        assert one["events"] == (some["explored"] & ~some["default"]).sum()
        assert close(one["value"], explored_rate(some)), segment
        assert one["interval"][0] <= true_rate(some) <= one["interval"][1], segment
        (one,) = [
            found
            for found in world.entries("money", "approval_rate", basis="all")
            if found["by"] == by and "kind" not in found
        ]
        assert (one["n"], one["events"]) == (len(some), some["through"].sum())
    one = world.overall("money", "false_positive_rate", "model_implied")
    assert close(one["value"], implied_rate(world.table))
    one = world.overall("money", "false_positive_rate", "bounds")
    assert one["value"] is None
    assert one["interval"][0] < true_rate(world.table) < one["interval"][1]


# By group


def test_rates_and_ratios_by_group_are_a_direct_computation(world: World) -> None:
    """Every attribute, every group, whoever is unknown among them, and each reference."""
    for metric, column in BESIDE.items():
        sides = world.sides(metric, "all")
        for attribute, group, some in world.by_group():
            one = sides.pop((attribute, group))
            assert (one["n"], one["events"]) == (len(some), some[column].sum())
            assert close(one["value"], some[column].mean())
            assert one["interval"][0] < one["value"] < one["interval"][1]
        assert not sides, "no group that nobody is in: what was mistaken was put right"
        for one, mine, theirs in world.ratios(metric, "all"):
            assert (one["n"], one["events"]) == (len(mine), mine[column].sum())
            assert close(one["value"], mine[column].mean() / theirs[column].mean()), one["by"]
            assert one["interval"][0] < one["value"] < one["interval"][1]


def test_false_positive_rates_by_group_are_a_direct_computation_and_hold_the_truth(
    world: World,
) -> None:
    """Explored: to 1e-9, and the true rate is within, as often as 95 % intervals hold it. Where few
    were explored, nothing is said. Bounds hold it always."""
    forms = {
        basis: world.sides("false_positive_rate_ratio", basis)
        for basis in ("explored", "model_implied", "bounds")
    }
    said, missed = 0, []
    for attribute, group, some in world.by_group():
        declined, genuine = some["declined"].sum(), (some["through"] & ~some["default"]).sum()
        one = forms["explored"][attribute, group]
        assert one["n"] == declined + genuine
        assert one["events"] == (some["explored"] & ~some["default"]).sum()
        if effective(some) < LEAST:
            assert one["value"] is None
            assert one["because"] == "too_few_explored"
        else:
            said += 1
            assert close(one["value"], explored_rate(some)), (attribute, group)
            low, high = one["interval"]
            missed += [(attribute, group)] if not low <= true_rate(some) <= high else []
        one = forms["model_implied"][attribute, group]
        assert close(one["value"], implied_rate(some)), (attribute, group)
        one = forms["bounds"][attribute, group]
        low, high = one["interval"]
        assert one["value"] is None
        assert low <= true_rate(some) <= high
        assert low == 0.0, "as if all that were declined were frauds"
        assert high >= declined / (declined + genuine), "as if none was"
    assert said >= 12
    assert len(missed) <= missed_at_most(said), missed


def test_ratios_of_false_positive_rates_are_a_direct_computation_and_hold_the_truth(
    world: World,
) -> None:
    said, missed = 0, []
    for one, mine, theirs in world.ratios("false_positive_rate_ratio", "explored"):
        assert one["gates"]
        if effective(mine) < LEAST:
            assert (one["value"], one["verdict"]) == (None, "undecided")
            continue
        said += 1
        assert close(one["value"], explored_rate(mine) / explored_rate(theirs)), one["by"]
        low, high = one["interval"]
        missed += [one["by"]] if not low <= true_rate(mine) / true_rate(theirs) <= high else []
    assert said >= 8
    assert len(missed) <= missed_at_most(said), missed
    for one, mine, theirs in world.ratios("false_positive_rate_ratio", "model_implied"):
        assert close(one["value"], implied_rate(mine) / implied_rate(theirs)), one["by"]
        assert not one["gates"]
    for one, mine, theirs in world.ratios("false_positive_rate_ratio", "bounds"):
        low, high = one["interval"]
        assert low <= true_rate(mine) / true_rate(theirs) <= (np.inf if high is None else high)
        assert (one["value"], one["gates"]) == (None, False)


@pytest.mark.parametrize("attribute", REFERENCES)
def test_rates_by_group_are_fairlearns(world: World, attribute: str) -> None:
    table = world.table
    for metric, column in BESIDE.items():
        frame = by_fairlearn(table, attribute, selection_rate, "default", column)
        sides = world.sides(metric, "all")
        assert {group for name, group in sides if name == attribute} == {*frame.index}
        for group, rate in frame.items():
            assert close(sides[attribute, group]["value"], rate)

    # Of the explored, weighed by how many of the declined each stands for: how many are genuine.
    shown = table[table["explored"]].assign(genuine=lambda one: ~one["default"])
    share = by_fairlearn(shown, attribute, selection_rate, "default", "genuine", odds(shown))
    hidden = share * table.groupby(attribute)["declined"].sum()
    genuine = (table["through"] & ~table["default"]).groupby(table[attribute]).sum()
    for group, rate in (hidden / (hidden + genuine)).items():
        one = world.sides("false_positive_rate_ratio", "explored")[attribute, group]
        assert one["value"] is None or close(one["value"], rate), group

    # And the truth that they are held to.
    ended = table[~table["abandoned"]]
    frame = by_fairlearn(ended, attribute, false_positive_rate, "default", "declined")
    for group, rate in frame.items():
        assert close(true_rate(table[table[attribute] == group]), rate), group


def by_fairlearn(
    table: pd.DataFrame,
    attribute: str,
    metric: Callable[..., float],
    truth: str,
    said: str,
    weights: pd.Series[float] | None = None,
) -> pd.Series[float]:
    """Return a metric of fairlearn's by group."""
    frame = MetricFrame(
        metrics=metric,
        y_true=table[truth],
        y_pred=table[said],
        sensitive_features=table[attribute],
        sample_params=None if weights is None else {"sample_weight": weights},
    )
    return frame.by_group
