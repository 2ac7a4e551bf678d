"""`gateway whatif`: recorded decisions under a changed folder, against a brute-force loop."""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import catalogue
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Serve
from test_cli_journal import BOOT, damage, decision

from gateway.cli.main import run
from gateway.decide import cost_line
from gateway.errors import ExitCode
from gateway.journal import Entry, Flag, Generation, Mode, Replied, Scored, ScoredCall, Writer
from gateway.model import Generation as Loaded
from gateway.model import load_generation
from gateway.model.registry import Registry, Served, State
from gateway.product import Action, StandIn
from gateway.v1.decision_pb2 import DecideRequest, DecideResponse
from gateway.v1.decision_pb2_grpc import DecisionServiceStub

MS = 1_000_000
START_S = 1_795_000_000  # a day in November 2026
MCCS = ("5411", "5912", "5541", "5732", "")
EXPLORED = {"exploration": {"share": 0.3, "max_amount": 400, "loss_per_day": 10**9}}
BASE = {"watch": ["channel", "entry_mode"], **EXPLORED}

Told = Callable[..., dict[str, Any]]


class Asked(NamedTuple):
    transaction_id: str
    amount_minor: int
    category: str
    event_s: float


@dataclass(frozen=True)
class Call:
    """One recorded call: what was asked, the model's score, and why it stood in, if it did."""

    request: DecideRequest
    score: float
    stand_in: int = 0
    in_time: bool = True
    arm_digest: str = ""

    @property
    def asked(self) -> Asked:
        one = self.request
        return Asked(one.transaction_id, one.amount, one.category, float(one.event_time.seconds))


def calls(n: int, *, seed: int = 1, stand_ins: float = 0.05) -> list[Call]:
    """Payments whose scores are those of the base model on their features."""
    chance = random.Random(seed)
    made: list[Call] = []
    for i in range(n):
        amount = chance.choice([500, 1999, 4_000, 15_000, 15_001, 60_000, chance.randrange(10**6)])
        ratio = chance.random() * 4
        mode = chance.randrange(3)
        request = catalogue.request(
            transaction_id=f"t-{seed}-{i}",
            amount=amount,
            category=chance.choice(MCCS),
            channel=chance.choice(["ecommerce", "moto"]),
            subject=f"customer-{chance.randrange(n // 4 + 1)}",
        )
        request.event_time.seconds = START_S + i
        request.features["amount"].number = amount / 100
        request.features["ratio"].number = ratio
        request.features["entry_mode"].text = ("chip", "swipe", "keyed")[mode]
        z = float(np.dot(catalogue.WEIGHTS, [amount / 100, ratio, mode])) + catalogue.BIAS
        score = float(np.float32(1.0 / (1.0 + math.exp(-z))))
        if chance.random() < stand_ins:
            made.append(Call(request, math.nan, chance.choice([1, 2, 3, 4])))
        else:
            made.append(Call(request, score))
    return made


def entry(call: Call, served: Loaded, index: int = 0, **changes: Any) -> Entry:
    """The record that a gateway serving `served` writes of a call."""
    policy, asked = served.policy, call.asked
    flags, propensity, probability = 0, 1.0, math.nan
    response = DecideResponse(product_generation=served.product.generation, recorded=True)
    if call.stand_in:
        action: int = policy.stand_in(StandIn(call.stand_in), asked.amount_minor, asked.category)
        response.stand_in = call.stand_in  # type: ignore[assignment]
    else:
        (decided,) = policy.decide([call.score], [asked])
        action, propensity, probability = decided.action, decided.propensity, decided.probability
        flags = decided.flags & 7
        response.model.digest = call.arm_digest or served.champion.digest
    response.action = action  # type: ignore[assignment]
    values = {
        "flags": Flag(flags),
        "action": action,
        "stand_in": call.stand_in,
        "product": index,
        "generation": served.product.generation,
        "arm": 1 if call.arm_digest else 0,
        "arrival_ns": (call.request.event_time.seconds - START_S) * 1000 * MS,
        "deadline_ns": (call.request.event_time.seconds - START_S) * 1000 * MS + 25 * MS,
        "score": call.score,
        "probability": probability,
        "propensity": propensity,
        "request": call.request.SerializeToString(),
        "response": response.SerializeToString(),
        **changes,
    }
    return decision(**values)


def write(
    journal: Path,
    recorded: Iterable[Call],
    served: Loaded,
    *,
    worker: int = 0,
    late: frozenset[int] = frozenset(),
    entries: Sequence[Entry] | None = None,
    segment_bytes: int = 64 << 20,
) -> bytes:
    """Write calls as the real writer does, each with its reply. Returns the boot id."""
    boot = bytes([worker]) * 16
    table = Generation(0, served.name, served.product.generation, served.digest, ("v1",))
    made = [entry(call, served) for call in recorded] if entries is None else entries
    with Writer.open(
        journal,
        worker=worker,
        boot_id=boot,
        products=(table,),
        mode=Mode.PROCESS,
        segment_bytes=segment_bytes,
        wall_ns=lambda: START_S * 10**9,
        monotonic_ns=lambda: 0,
    ) as writer:
        for i, one in enumerate(made):
            sequence = writer.append([one.encode()])
            arrival_ns = one.arrival_ns  # type: ignore[union-attr]
            after_ns = 40 * MS if i in late else MS
            writer.append([Replied(sequence, arrival_ns + after_ns, (0,)).encode()])
    return boot


class Expected(NamedTuple):
    flips: Counter[tuple[str, str]]
    by_new_minor: float
    by_old_minor: float
    old_minor: float
    priced: int


def oracle(
    recorded: Sequence[Call],
    old: Loaded,
    new: Loaded,
    new_score: Callable[[Call], float] = lambda call: call.score,
) -> Expected:
    """Decide each call on both sides by the scalar path, and price both by the cost lines."""
    flips: Counter[tuple[str, str]] = Counter()
    by_new = by_old = total = 0.0
    priced = 0
    for call in recorded:
        asked, answers = call.asked, []
        for side, score in ((old, call.score), (new, new_score(call))):
            if call.stand_in:
                reason = StandIn(call.stand_in)
                action = side.policy.stand_in(reason, asked.amount_minor, asked.category)
                answers.append((action, None))
            else:
                (decided,) = side.policy.decide([score], [asked])
                answers.append((Action(decided.action), decided))
        (was, a), (now, b) = answers
        if was != now:
            flips[was.spelling, now.spelling] += 1
        for side, own in ((new, b), (old, a)):
            costs = side.product.costs
            if own is None or any(getattr(costs, a.spelling, costs) is None for a in (was, now)):
                continue
            harm = side.policy.classes[own.cost_class].harm
            before, after = (
                cost_line(action, costs, harm=harm, minor_per_major=100).cost(
                    own.probability, asked.amount_minor
                )
                for action in (was, now)
            )
            if side is new:
                by_new += after - before
                total += before
                priced += 1
            else:
                by_old += after - before
    return Expected(flips, by_new, by_old, total, priced)


def folder(path: Path, model: bytes | None = None, **changes: Any) -> Path:
    return catalogue.write_folder(path, model, **{**BASE, **changes})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where NEW is written again and again: a model is tried once for each place."""
    return tmp_path_factory.mktemp("new") / "test"


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("old") / "test")


@pytest.fixture(scope="module")
def recorded() -> list[Call]:
    return calls(1500)


@pytest.fixture(scope="module")
def journal(old: Path, recorded: list[Call], tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("journal")
    served = load_generation(old)
    write(place, recorded[:900], served)
    write(place, recorded[900:], served, worker=1)
    return place


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Told:
    """Run whatif with --json and return what it printed."""

    def say(*arguments: object) -> dict[str, Any]:
        assert run(["whatif", *map(str, arguments), "--json"]) == ExitCode.OK
        printed: dict[str, Any] = json.loads(capsys.readouterr().out)
        return printed

    return say


def held(said: dict[str, Any], expected: Expected, n: int) -> None:
    """Hold what was said against the oracle."""
    flips = {(one["from"], one["to"]): one["decisions"] for one in said["flips"]["by_action"]}
    assert flips == dict(expected.flips)
    assert said["flips"]["decisions"] == sum(expected.flips.values())
    assert said["records"]["decisions"] == n
    by_new, by_old = (said["expected_cost"][side] for side in ("by_new", "by_old"))
    assert by_new["decisions"] == expected.priced
    assert by_new["change_minor"]["value"] == pytest.approx(expected.by_new_minor, rel=1e-9)
    assert by_old["change_minor"]["value"] == pytest.approx(expected.by_old_minor, rel=1e-9)
    assert by_new["old_per_1000_minor"] == pytest.approx(
        expected.old_minor / expected.priced * 1000, rel=1e-6
    )
    for name, groups in said["flips"].items():
        if name.startswith("by_") and name != "by_action":
            assert sum(group["decisions"] for group in groups) == n, name
            assert sum(group["flips"] for group in groups) == said["flips"]["decisions"], name


DEARER = {"costs__false_positive": {"margin": 0.05, "goodwill": 20}}

CHANGES: dict[str, dict[str, Any]] = {
    "costs": DEARER,
    "a category more": {
        "costs__categories": {
            **catalogue.BASE["costs"]["categories"],
            "electronics": {"mcc": [5732], "harm": 5},
        }
    },
    "an action less": {
        "actions": ["approve", "decline"],
        "stand_in": {key: [{"action": "decline"}] for key in catalogue.REASONS},
    },
    "an action more": {
        "actions": ["approve", "step_up", "review", "decline"],
        "costs__review": {**catalogue.REVIEW, "fee": 0.2, "meanwhile": "approve"},
    },
    "stand-ins": {"stand_in": {key: [{"action": "decline"}] for key in catalogue.REASONS}},
    "calibration": {"models__champion__calibration": {"kind": "platt", "a": 1.4, "b": -1.0}},
    "base rate": {"models__champion__base_rate": {"calibrated_at": 0.02, "serving": 0.1}},
    "calendar": {
        "calendar": [
            {"event": "sale", "from": "2026-11-01", "to": "2026-11-30", "log_odds_shift": 1.5}
        ]
    },
    "an override": {
        "overrides": [
            {
                "action": "decline",
                "at_least": 0.5,
                "category": "grocery",
                "reason": "r",
                "approver": "a",
                "expires": "2027-01-01",
            }
        ]
    },
    "no exploration": {"exploration": None},
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_says_what_a_loop_over_the_records_says(
    name: str, old: Path, journal: Path, recorded: list[Call], told: Told, place: Path
) -> None:
    """Flips by action, and money by both sides' figures; two workers' records."""
    new = folder(place, generation=4, **CHANGES[name])
    said = told(old, new, "--journal", journal)
    expected = oracle(recorded, load_generation(old), load_generation(new))
    assert expected.flips, "the change must change something"
    held(said, expected, len(recorded))
    assert said["records"]["workers"] == [0, 1]
    assert said["records"]["not_what_old_gives"] == 0
    assert said["records"]["scored_anew"] == 0
    assert said["stand_ins"]["more_by_deadline"] == 0
    believes = name in ("calibration", "base rate", "calendar")
    assert said["expected_cost"]["probabilities_differ"] == believes


def test_the_same_folder_changes_nothing_at_all(old: Path, journal: Path, told: Told) -> None:
    said = told(old, old, "--journal", journal)
    assert said["flips"]["decisions"] == 0
    assert said["changed"] == []
    for side in ("by_new", "by_old"):
        nought = {"value": 0.0, "low": 0.0, "high": 0.0}
        assert said["expected_cost"][side]["change_minor"] == nought
        assert said["expected_cost"][side]["change_per_1000_minor"] == nought
    assert said["approval_rate"]["old"] == said["approval_rate"]["new"] > 0
    assert said["verdict"].startswith("No decision flips")


OTHER_MODEL = catalogue.logistic_model((0.001, 1.2, 0.9), -3.5)


def scored(new: Loaded) -> Callable[[Call], float]:
    def score(call: Call) -> float:
        features = call.request.features
        row = [features["amount"].number, features["ratio"].number]
        mode = ("chip", "swipe", "keyed").index(features["entry_mode"].text)
        return new.champion.score(np.array([[*row, mode]], dtype=np.float32))[0]

    return score


def test_another_model_scores_what_features_were_kept(
    old: Path, told: Told, tmp_path: Path
) -> None:
    """What was recorded without features is counted and left out; stand-ins need none."""
    served, recorded = load_generation(old), calls(400, seed=2)
    entries = []
    for i, call in enumerate(recorded):
        if i % 4 == 0 and not call.stand_in:
            bare = DecideRequest.FromString(call.request.SerializeToString())
            bare.ClearField("features")
            entries.append(
                entry(
                    call,
                    served,
                    request=bare.SerializeToString(),
                    flags=Flag.FEATURES_LEFT_OUT,
                )
            )
        else:
            entries.append(entry(call, served))
    write(tmp_path / "journal", (), served, entries=entries)
    new = folder(tmp_path / "test", OTHER_MODEL)
    kept = [call for i, call in enumerate(recorded) if i % 4 or call.stand_in]
    loaded = load_generation(new)
    said = told(old, new, "--journal", tmp_path / "journal")
    held(said, oracle(kept, served, loaded, scored(loaded)), len(kept))
    assert said["records"]["left_out"] == {"features not kept": len(recorded) - len(kept)}
    assert said["records"]["scored_anew"] == sum(not call.stand_in for call in kept)
    assert said["latency_us"]["row"]["new"]["p50"] > 0
    assert "labels tell which are right" in said["verdict"]


def test_a_challengers_scores_need_no_features(old: Path, told: Told, tmp_path: Path) -> None:
    """What ran in the shadow is replayed by its recorded scores; what it skipped is left out."""
    digest = hashlib.sha256(OTHER_MODEL).hexdigest()
    shadow = {"name": "v2", "path": "v2.onnx", "sha256": digest, "mode": "shadow"}
    was = folder(tmp_path / "was", models__challengers=[shadow], records={"features": "none"})
    (was / "v2.onnx").write_bytes(OTHER_MODEL)
    served, recorded = load_generation(was), calls(120, seed=12)
    new = load_generation(folder(tmp_path / "test", OTHER_MODEL))
    registry = Registry(tmp_path / "journal" / "generations")
    files = {path.name: path.read_bytes() for path in was.iterdir()}
    kept = registry.snapshot("test", 3, served.digest, files)
    state = State("test", str(was), Served(3, served.digest, 1, kept.name))
    registry.write(state.taking(state.serving))
    table = Generation(0, "test", 3, served.digest, ("v1", "v2"))
    scored_by_shadow = []
    with Writer.open(
        tmp_path / "journal", worker=0, boot_id=BOOT, products=(table,), mode=Mode.PROCESS
    ) as writer:
        for i, call in enumerate(recorded):
            bare = DecideRequest.FromString(call.request.SerializeToString())
            bare.ClearField("features")
            made = entry(
                call, served, request=bare.SerializeToString(), flags=Flag.FEATURES_LEFT_OUT
            )
            sequence = writer.append([made.encode()])
            if not call.stand_in and i % 3:
                score = scored(new)(call)
                scored_by_shadow.append(ScoredCall(sequence, score, 0.5, 1))
        writer.append([Scored(0, 1, 0, 0, 1000, tuple(scored_by_shadow)).encode()])
    said = told(was, tmp_path / "test", "--journal", tmp_path / "journal")
    counted = [call for i, call in enumerate(recorded) if call.stand_in or i % 3]
    held(said, oracle(counted, served, new, scored(new)), len(counted))
    assert said["records"]["scores_from_shadow"] == len(scored_by_shadow) > 50
    assert said["records"]["scored_anew"] == 0
    # Scores of another model under the same name would be no help.
    other = folder(tmp_path / "other", catalogue.logistic_model((0.001, 1.3, 0.9), -3.5))
    only_stand_ins = told(was, other, "--journal", tmp_path / "journal")
    assert only_stand_ins["records"]["decisions"] == sum(bool(one.stand_in) for one in recorded)


def test_a_canarys_record_is_scored_by_the_champion(
    old: Path, told: Told, place: Path, tmp_path: Path
) -> None:
    """The score in it is the canary's; both sides ask their own model."""
    served = load_generation(old)
    plain = calls(60, seed=3, stand_ins=0.0)
    by_canary = [Call(call.request, 0.999, arm_digest="ab" * 32) for call in plain[::3]]
    write(tmp_path / "journal", [*plain[1::3], *by_canary], served)
    new = folder(place, generation=4, **DEARER)
    said = told(old, new, "--journal", tmp_path / "journal")
    own = [Call(call.request, scored(served)(call)) for call in plain[::3]]
    held(said, oracle([*plain[1::3], *own], served, load_generation(new)), 40)
    assert said["records"]["scored_anew"] == 20
    assert said["records"]["not_what_old_gives"] > 0


def test_features_in_another_order_are_read_by_their_names(
    old: Path, told: Told, tmp_path: Path
) -> None:
    """`dense` bytes of OLD's schema become rows of NEW's, with a default for what is new."""
    served, recorded = load_generation(old), calls(200, seed=4)
    dense = []
    for call in recorded:
        one = DecideRequest.FromString(call.request.SerializeToString())
        mode = ("chip", "swipe", "keyed").index(one.features["entry_mode"].text)
        row = [one.features["amount"].number, one.features["ratio"].number, mode]
        one.ClearField("features")
        one.dense, one.schema_fingerprint = (
            np.array(row, "<f4").tobytes(),
            served.schema.fingerprint,
        )
        dense.append(Call(one, call.score, call.stand_in))
    write(tmp_path / "journal", dense, served)
    amount, ratio, mode_feature = catalogue.BASE["features"]
    more = {"name": "more", "type": "float", "missing": 0.5}
    turned = {**mode_feature, "values": ["keyed", "chip", "swipe"]}
    model = catalogue.logistic_model((0.8, 0.3, 0.002, 2.0), -4.0)
    new = folder(tmp_path / "test", model, features=[ratio, turned, amount, more])
    loaded = load_generation(new)

    def score(call: Call) -> float:
        values = np.frombuffer(call.request.dense, "<f4")
        row = [[values[1], (int(values[2]) + 1) % 3, values[0], 0.5]]
        return loaded.champion.score(np.array(row, dtype=np.float32))[0]

    said = told(old, new, "--journal", tmp_path / "journal")
    held(said, oracle(dense, served, loaded, score), len(dense))
    modes = {one["name"] for one in said["flips"]["by_feature:entry_mode"]}
    assert modes == {"chip", "swipe", "keyed"}


def test_of_what_was_asked_again_the_last_in_time_counts(
    old: Path, told: Told, place: Path, tmp_path: Path
) -> None:
    """Across workers, whatever order their segments are read in; a late answer does not."""
    served = load_generation(old)
    first, second, third = (calls(40, seed=5, stand_ins=0.0) for _ in range(3))
    for again, later_s in ((second, 1000), (third, 2000)):
        for call in again:
            call.request.event_time.seconds += later_s
            call.request.amount = call.request.amount * 3 + later_s
    write(tmp_path / "journal", second, served, worker=0)
    write(tmp_path / "journal", [*first, *third], served, worker=1, late=frozenset(range(60, 80)))
    new = folder(place, generation=4, **DEARER)
    counted = [*third[:20], *second[20:]]
    said = told(old, new, "--journal", tmp_path / "journal")
    held(said, oracle(counted, served, load_generation(new)), 40)
    assert said["records"]["retries"] == 80


def test_many_segments_an_open_one_and_a_torn_tail(
    old: Path, told: Told, place: Path, tmp_path: Path
) -> None:
    """A killed worker's last record is half there: all others count, and its bytes are named."""
    served, recorded = load_generation(old), calls(300, seed=6)
    write(tmp_path / "journal", recorded, served, segment_bytes=32 << 10)
    paths = sorted((tmp_path / "journal").glob("*.journal"))
    assert len(paths) > 3
    content = paths[-1].read_bytes()
    # SEALED and the last reply go, and half of what stood before them.
    paths[-1].write_bytes(content[: len(content) - 17 - 41 - 30])
    new = folder(place, generation=4, **DEARER)
    said = told(old, new, "--journal", tmp_path / "journal")
    held(said, oracle(recorded[:-1], served, load_generation(new)), 299)
    assert said["records"]["torn_bytes"] > 100
    assert said["records"]["damaged_bytes"] == 0


def test_what_is_damaged_is_counted_and_the_rest_replayed(
    old: Path, told: Told, place: Path, tmp_path: Path
) -> None:
    served, recorded = load_generation(old), calls(100, seed=11)
    write(tmp_path / "journal", recorded, served)
    damage(tmp_path / "journal")
    new = folder(place, generation=4, **DEARER)
    said = told(old, new, "--journal", tmp_path / "journal")
    assert said["records"]["decisions"] in (99, 100)  # it may be a reply that was hit
    assert said["records"]["damaged_bytes"] > 0
    assert said["records"]["torn_bytes"] == 0


def test_a_shorter_budget_makes_stand_ins_of_what_took_longer(
    old: Path, told: Told, place: Path, tmp_path: Path
) -> None:
    served, recorded = load_generation(old), calls(100, seed=7, stand_ins=0.0)
    entries = [
        entry(call, served, record_after_ns=(9 if i < 30 else 2) * MS)
        for i, call in enumerate(recorded)
    ]
    write(tmp_path / "journal", (), served, entries=entries)
    new = folder(place, generation=4, latency={"budget_ms": 5})
    said = told(old, new, "--journal", tmp_path / "journal")
    assert said["stand_ins"]["more_by_deadline"] == 30
    assert "30 decisions more would have been stood in for" in said["verdict"]
    assert said["flips"]["decisions"] == 0
    longer = folder(place, generation=4, latency={"budget_ms": 50})
    assert (
        told(old, longer, "--journal", tmp_path / "journal")["stand_ins"]["more_by_deadline"] == 0
    )


def test_labels_price_what_was_let_through(
    old: Path, journal: Path, recorded: list[Call], told: Told, place: Path, tmp_path: Path
) -> None:
    """Explored payments stand for the declines they were drawn from; other labels do not count."""
    chance = random.Random(8)
    fraud = {call.asked.transaction_id: chance.random() < 0.3 for call in recorded}
    table = pa.table({"transaction_id": list(fraud), "is_fraud": list(fraud.values())})
    pq.write_table(table, tmp_path / "labels.parquet")
    new = folder(place, generation=4, **DEARER)
    served, loaded = load_generation(old), load_generation(new)
    total, weights, seen, explored, hidden = 0.0, [], 0, 0, 0
    for call in recorded:
        asked, answers = call.asked, []
        for side in (served, loaded):
            if call.stand_in:
                reason = StandIn(call.stand_in)
                action = side.policy.stand_in(reason, asked.amount_minor, asked.category)
                answers.append((action, 0, 1.0))
            else:
                (one,) = side.policy.decide([call.score], [asked])
                answers.append((Action(one.action), one.flags, one.propensity))
        (was, flags, propensity), (now, _, _) = answers
        if was is not Action.APPROVE:
            hidden += was != now
            continue
        seen += 1
        was_explored = bool(flags & Flag.EXPLORED)
        explored += was_explored
        if was == now:
            continue
        index = loaded.policy.cost_class(asked.amount_minor, asked.category)
        y = float(fraud[asked.transaction_id])
        harm = loaded.policy.classes[index].harm
        before, after = (
            cost_line(action, loaded.product.costs, harm=harm, minor_per_major=100).cost(
                y, asked.amount_minor
            )
            for action in (was, now)
        )
        weights.append(1.0 / propensity if was_explored else 1.0)
        total += weights[-1] * (after - before)
    said = told(old, new, "--journal", journal, "--labels", tmp_path / "labels.parquet")
    realised = said["realised_cost"]
    assert weights
    assert realised["labelled"] == len(recorded)
    assert (realised["seen"], realised["explored"]) == (seen, explored)
    assert realised["differing"] == len(weights)
    assert realised["hidden"] == hidden > 0
    assert realised["support"] == pytest.approx(sum(weights) ** 2 / sum(w * w for w in weights))
    assert realised["by_new"]["change_minor"]["value"] == pytest.approx(total, rel=1e-9)
    if realised["support"] < 50:
        assert "Labels give no verdict" in said["verdict"]


def test_labels_of_other_payments_are_no_silent_nothing(
    old: Path, journal: Path, told: Told, place: Path, tmp_path: Path
) -> None:
    """As where the caller's transaction ids are not the ones of the table."""
    table = pa.table({"transaction_id": ["no", "such"], "is_fraud": [True, False]})
    pq.write_table(table, tmp_path / "labels.parquet")
    new = folder(place, generation=4, **DEARER)
    said = told(old, new, "--journal", journal, "--labels", tmp_path / "labels.parquet")
    assert said["realised_cost"]["labelled"] == 0
    assert "No label is of a payment that was recorded" in said["verdict"]


def test_a_served_payment_is_replayed_to_its_own_action(
    serve: Serve, generation: Loaded, told: Told, tmp_path: Path
) -> None:
    """By a real gateway, while its journal is open: what it answered is what OLD gives."""
    new = catalogue.write_folder(tmp_path / "test", generation=4, **DEARER)
    with serve() as running:
        decide = DecisionServiceStub(running.channel).Decide
        answers = []
        for call in calls(80, seed=9, stand_ins=0.0):
            call.request.event_time.GetCurrentTime()
            answers.append((decide(call.request, timeout=5), call))
        same = catalogue.write_folder(tmp_path / "same" / "test")
        said = told(same, new, "--journal", running.journal)
    sound = [(answer, call) for answer, call in answers if not answer.stand_in]
    assert said["records"]["decisions"] == 80
    assert said["records"]["not_what_old_gives"] == 0
    expected = Counter()
    for answer, call in sound:
        (new_one,) = load_policy(new).decide([call.score], [call.asked])
        if new_one.action != answer.action:
            expected[Action(answer.action).spelling, Action(new_one.action).spelling] += 1
    flips = {(one["from"], one["to"]): one["decisions"] for one in said["flips"]["by_action"]}
    assert flips == dict(expected)
    known = {answer.decision_id for answer, _ in answers}
    assert {one["decision_id"] for one in said["largest"]} <= known


def load_policy(path: Path) -> Any:
    return load_generation(path).policy


def test_the_served_generation_is_old_where_one_folder_is_named(
    old: Path, recorded: list[Call], told: Told, place: Path, tmp_path: Path
) -> None:
    served = load_generation(old)
    write(tmp_path / "journal", recorded[:50], served)
    registry = Registry(tmp_path / "journal" / "generations")
    files = {path.name: path.read_bytes() for path in old.iterdir()}
    kept = registry.snapshot("test", 3, served.digest, files)
    registry.write(State("test", str(old), Served(3, served.digest, 1, kept.name)))
    new = folder(place, generation=4, **DEARER)
    said = told(new, "--journal", tmp_path / "journal")
    assert said["old"]["digest"] == served.digest
    assert said["old"]["folder"] == str(kept)
    held(said, oracle(recorded[:50], served, load_generation(new)), 50)


def test_payments_of_one_customer_count_as_one_draw(
    told: Told, place: Path, tmp_path: Path
) -> None:
    """Nine copies of each payment tell no more than one: the interval stays as wide; the copies
    as customers of their own would make it a third."""
    old = folder(tmp_path / "test", exploration=None)
    served, plain = load_generation(old), calls(300, seed=10, stand_ins=0.0)
    new = folder(place, generation=4, exploration=None, **DEARER)
    widths = {}
    for name in ("one customer", "customers of their own"):
        recorded = []
        for i, call in enumerate(plain):
            for copy in range(9):
                one = DecideRequest.FromString(call.request.SerializeToString())
                one.transaction_id = f"{i}-{copy}"
                one.subject = f"c-{i}" if name == "one customer" else f"c-{i}-{copy}"
                recorded.append(Call(one, call.score))
        write(tmp_path / name, recorded, served)
        change = told(old, new, "--journal", tmp_path / name)["expected_cost"]["by_new"]
        interval = change["change_per_1000_minor"]
        assert interval["low"] < interval["value"] < interval["high"]
        widths[name] = interval["high"] - interval["low"]
    assert 2.4 < widths["one customer"] / widths["customers of their own"] < 3.7


def test_the_markdown_is_short_and_the_picture_has_its_numbers(
    old: Path,
    journal: Path,
    place: Path,
    tmp_path: Path,
    told: Told,
    capsys: pytest.CaptureFixture[str],
) -> None:
    new = folder(place, generation=4, **DEARER)
    said = told(old, new, "--journal", journal, "--picture", tmp_path / "flips.svg")
    asked = ["whatif", str(old), str(new), "--journal", str(journal), "--markdown", "-"]
    assert run(asked) == ExitCode.OK
    text = capsys.readouterr().out
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) <= 20
    assert {line.count("|") for line in table} == {3}
    assert text.startswith(f"**What-if, test:** {said['verdict']}")
    root = ElementTree.parse(tmp_path / "flips.svg").getroot()
    drawn = [one.text or "" for one in root.iter() if one.tag.endswith("}title")][1:]
    shown: Counter[str] = Counter()
    for title in drawn:
        name, _, count = title.partition(": ")
        shown[name] += int(count.replace(",", ""))
    assert shown == {
        f"{one['from']} → {one['to']}".replace("_", " "): one["decisions"]
        for one in said["flips"]["by_action"]
    }


def test_the_same_journal_gives_the_same_intervals_in_every_process(
    old: Path, journal: Path, place: Path
) -> None:
    new = folder(place, generation=4, **DEARER)
    command = [sys.executable, "-m", "gateway", "whatif", old, new, "--journal", journal, "--json"]
    told = {
        subprocess.run(
            [str(one) for one in command],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(told) == 1


def test_the_terminal_says_the_verdict_and_the_largest_decision(
    old: Path, journal: Path, place: Path, told: Told, capsys: pytest.CaptureFixture[str]
) -> None:
    new = folder(place, generation=4, **DEARER)
    said = told(old, new, "--journal", journal)
    assert run(["whatif", str(old), str(new), "--journal", str(journal)]) == ExitCode.OK
    captured = capsys.readouterr()
    assert said["verdict"] in captured.out
    largest = said["largest"][0]
    assert largest["decision_id"] in captured.out
    changes = [abs(one["change_by_new_minor"] or 0.0) for one in said["largest"]]
    assert changes == sorted(changes, reverse=True)
    assert "Next: gateway whatif" in captured.err


def test_what_cannot_be_compared_is_said(
    old: Path, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = folder(tmp_path / "other", product="other")
    served = load_generation(old)
    write(tmp_path / "journal", calls(3), served)
    write(tmp_path / "others", calls(1), load_generation(other))
    (tmp_path / "labels.csv").write_text("id,is_fraud\n1,0\n2,1\n")
    new = folder(place, generation=4, **DEARER)
    journal = ("--journal", tmp_path / "journal")
    for arguments, code, says in (
        ((), ExitCode.USAGE, "takes one or two product folders"),
        ((old, new, other), ExitCode.USAGE, "not 3"),
        ((old, other, *journal), ExitCode.USAGE, "its product is other"),
        ((new, *journal), ExitCode.USAGE, "keeps no served generation of test"),
        ((old, new, "--journal", tmp_path / "no"), ExitCode.JOURNAL, "no such folder"),
        ((old, new, "--journal", tmp_path / "others"), ExitCode.USAGE, "no decisions, of test"),
        ((old, new, *journal, "--json", "--markdown", "-"), ExitCode.USAGE, "both want stdout"),
        ((old, new, *journal, "--picture", tmp_path / "no" / "x.svg"), ExitCode.USAGE, "written"),
        (
            (old, new, *journal, "--labels", tmp_path / "labels.csv"),
            ExitCode.USAGE,
            "labels are joined by it",
        ),
    ):
        assert run(["whatif", *map(str, arguments)]) == code, says
        captured = capsys.readouterr()
        assert captured.out == ""
        assert says in captured.err
        assert captured.err.count("Error:") == 1
        assert "Try:" in captured.err
