"""`gateway whatif`: recorded decisions under a changed folder, against a brute-force loop."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import catalogue
import numpy as np
import pytest
from test_cli_journal import decision

from gateway.cli.main import run
from gateway.decide import cost_line
from gateway.errors import ExitCode
from gateway.journal import Entry, Flag, Generation, Mode, Replied, Writer
from gateway.model import Generation as Loaded
from gateway.model import load_generation
from gateway.product import Action, StandIn
from gateway.v1.decision_pb2 import DecideRequest, DecideResponse

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
        "stand_in": dict.fromkeys(catalogue.REASONS, [{"action": "decline"}]),
    },
    "an action more": {
        "actions": ["approve", "step_up", "review", "decline"],
        "costs__review": {**catalogue.REVIEW, "fee": 0.2, "meanwhile": "approve"},
    },
    "stand-ins": {"stand_in": dict.fromkeys(catalogue.REASONS, [{"action": "decline"}])},
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
