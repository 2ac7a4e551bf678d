"""`gateway explain` and `gateway decide --explain`: wrong input first, then what they say."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import catalogue
import numpy as np
import pytest
from test_cli import serving
from test_cli_journal import BOOT, damage, decision

from gateway.cli.main import app, run
from gateway.errors import ExitCode, UsageError
from gateway.journal import (
    Entry,
    Flag,
    Gap,
    Generation,
    Loss,
    Mode,
    Refused,
    Replied,
    Writer,
    decision_id,
)
from gateway.model import attribute, load_generation, references
from gateway.model.attribution import FEATURES_MAX
from gateway.product import Feature
from gateway.v1.decision_pb2 import DecideRequest, DecideResponse

ID = decision_id(BOOT, 0, 1)
PATIENT = ("--timeout-ms", 20_000)
UNHURRIED_MS = 5_000
"""A budget that no busy machine exhausts: these tests are about what the model says."""

REVIEWED = {
    "product": "bare",
    "records": {"features": "none"},
    "models__champion__base_rate": {"calibrated_at": 0.02, "serving": 0.003},
}

Said = Callable[..., str]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place with models/test, models/bare, and a folder that does not parse."""
    here = tmp_path_factory.mktemp("here")
    unhurried = {"latency__budget_ms": UNHURRIED_MS}
    golden_too = {"models__champion__golden": "golden.json"}
    catalogue.write_folder(here / "models" / "test", **golden_too, **unhurried)
    golden = {"features": [[20.0, 1.0, 0.0], [30.0, 2.0, 2.0], [500.0, 3.0, 2.0]]}
    matrix = np.array(golden["features"], dtype=np.float64)
    z = matrix @ np.array(catalogue.WEIGHTS) + catalogue.BIAS
    golden["scores"] = (1.0 / (1.0 + np.exp(-z))).tolist()
    (here / "models" / "test" / "golden.json").write_text(json.dumps(golden))
    catalogue.write_folder(here / "models" / "bare", **REVIEWED, **unhurried)
    (here / "models" / "broken").mkdir()
    (here / "models" / "broken" / "product.yaml").write_text("product: test\nproduct: test\n")
    return here / "models"


@pytest.fixture
def here(models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand beside the models."""
    monkeypatch.chdir(models.parent)
    return models


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    """Run a command that must end with `code`; return its stdout, or stderr where it fails."""

    def run_explain(*arguments: object, code: ExitCode = ExitCode.OK) -> str:
        assert run([str(argument) for argument in arguments]) == code
        captured = capsys.readouterr()
        if code == ExitCode.OK:
            return captured.out
        assert captured.out == ""
        assert "Traceback" not in captured.err
        assert captured.err.count("Error:") == 1
        assert "Try:" in captured.err
        return captured.err

    return run_explain


def write(journal: Path, entries: Iterable[Entry]) -> Path:
    """Write a journal of generation 3 of `test`; of which folder is not known."""
    served = Generation(index=0, product="test", generation=3, digest="")
    with Writer.open(
        journal, worker=0, boot_id=BOOT, products=(served,), mode=Mode.PROCESS
    ) as writer:
        writer.append([entry.encode() for entry in entries])
    return journal


def request(**features: float | str) -> DecideRequest:
    """The base request of a hot payment, with changes to its features."""
    asked = catalogue.request(amount=60_000)
    for name, value in {"amount": 600.0, "ratio": 3.0, "entry_mode": "keyed", **features}.items():
        setattr(asked.features[name], "text" if isinstance(value, str) else "number", value)
    return asked


def answer(asked: DecideRequest, folder: Path, score: float) -> tuple[bytes, dict[str, Any]]:
    """What a gateway that serves `folder` would answer, and the fields of its record."""
    generation = load_generation(folder)
    policy = generation.policy
    decided = policy.decide_one(
        score,
        asked.amount,
        policy.cost_class(asked.amount, asked.category),
        asked.event_time.seconds,
    )
    response = DecideResponse(
        decision_id=ID,
        action=decided.action,
        probability=decided.probability,
        threshold=decided.threshold,
        product_generation=generation.product.generation,
        recorded=True,
    )
    response.model.digest = generation.champion.digest
    fields = {"score": score, "probability": decided.probability, "action": decided.action}
    return response.SerializeToString(), fields


@pytest.fixture(scope="module")
def journal(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sequence 1 is a decision of models/test, 2 its reply, 3 a refusal; 98 and 99 are lost."""
    asked = request()
    response, fields = answer(asked, models / "test", 0.4)
    entries = (
        decision(request=asked.SerializeToString(), response=response, **fields),
        Replied(1, 11_000_000, (0,)),
        Refused(10_000_000, 900_000, 3, 0, "", ("amount",)),
        Gap(Loss.DISK_FULL, 98, 99, 2, 1, 0, BOOT),
    )
    return write(tmp_path_factory.mktemp("records") / "journal", entries)


@pytest.mark.parametrize(
    ("identity", "code", "says"),
    [
        ("42", ExitCode.USAGE, "is no decision id, such as"),
        (ID[:-1], ExitCode.USAGE, "is no decision id"),
        (decision_id(BOOT, 0, 2), ExitCode.USAGE, "is the place of no decision"),
        (decision_id(BOOT, 0, 3), ExitCode.USAGE, "was refused, not decided"),
        (decision_id(BOOT, 0, 77), ExitCode.JOURNAL, "holds no such decision"),
        (decision_id(BOOT, 0, 98), ExitCode.JOURNAL, "was not kept: disk full"),
        (decision_id(BOOT, 7, 1), ExitCode.JOURNAL, "holds nothing of the worker"),
        (decision_id(bytes(16), 0, 1), ExitCode.JOURNAL, "holds nothing of the worker"),
    ],
)
def test_an_id_that_leads_to_no_decision(
    identity: str, code: ExitCode, says: str, journal: Path, said: Said
) -> None:
    assert says in said("explain", identity, "--journal", journal, code=code)


def test_a_journal_that_is_none_or_damaged(said: Said, journal: Path, tmp_path: Path) -> None:
    explain = ("explain", ID, "--journal")
    assert "no such folder" in said(*explain, tmp_path / "absent", code=ExitCode.JOURNAL)
    assert "no segments" in said(*explain, tmp_path, code=ExitCode.JOURNAL)
    broken = write(tmp_path / "journal", [decision()] * 3)
    damage(broken)
    middle = decision_id(BOOT, 0, 2)
    lost = said("explain", middle, "--journal", broken, code=ExitCode.DAMAGED_JOURNAL)
    assert "damaged where its record may have stood" in lost


@pytest.mark.parametrize(
    "changes", [{"request": b"\xff"}, {"response": b"\xff"}, {"response": b"\x10\x63"}]
)
def test_a_record_that_another_gateway_wrote(
    changes: dict[str, bytes], said: Said, tmp_path: Path
) -> None:
    newer = write(tmp_path / "journal", [decision(**changes)])
    explain = ("explain", ID, "--journal", newer)
    assert "is no message that" in said(*explain, code=ExitCode.DAMAGED_JOURNAL)


def test_a_folder_that_does_not_help(said: Said, journal: Path, here: Path) -> None:
    explain = ("explain", ID, "--journal", journal, "--product")
    assert "there is no product.yaml" in said(*explain, "absent", code=ExitCode.USAGE)
    assert "holds bare, not the" in said(*explain, here / "bare", code=ExitCode.USAGE)
    assert run([str(one) for one in (*explain, here / "broken")]) == ExitCode.INVALID_PRODUCT


def test_a_folder_without_an_explanation(said: Said, here: Path, tmp_path: Path) -> None:
    (tmp_path / "request.json").write_text('{"product": "test"}')
    decide = ("decide", tmp_path / "request.json", "--product", here / "test")
    assert "Add --explain" in said(*decide, code=ExitCode.USAGE)
    other = ("decide", tmp_path / "request.json", "--explain", "--product", here / "bare")
    assert "holds bare, not the" in said(*other, code=ExitCode.USAGE)


def test_a_decision_in_words(said: Said, journal: Path, here: Path) -> None:
    shown = said("explain", f" {ID.upper()} ", "--journal", journal)
    for words in (
        "step up 600.00 USD (test, t-1)",
        "Step up is expected to cost the least; decline, the next best,",
        "Grocery: what a genuine customer suffers counts 3 times.",
        "the model's score (v1 1.0)  0.4",
        "40.000% ▲",
        "░ approve  ▒ step up from",
        "P(fraud)  below ",
        "amount    no other amount",
        "What moved it: each feature by itself, against its reference",
        "amount   600    30 ",
    ):
        assert words in shown
    assert "Warning" not in shown
    assert "Note" not in shown


def test_a_recorded_decision_is_explained_to_the_bit(said: Said, journal: Path, here: Path) -> None:
    shown = json.loads(said("explain", ID, "--journal", journal, "--json"))
    why, given = shown["explanation"]["decision"], shown["response"]
    assert why["action"] == why["least_cost_action"] == given["action"] == "STEP_UP"
    assert why["probability"] == why["score"] == given["probability"] == 0.4
    policy = load_generation(here / "test").policy
    own = policy.decide_one(0.4, 60_000, policy.cost_class(60_000, "5411"), 0.0)
    assert [one["cost_minor"] for one in why["expected_costs"]] == list(own.costs)
    assert why["threshold"] == own.threshold
    assert why["amount_minor"] == 60_000
    assert shown["explanation"]["warnings"] == []
    assert shown["explanation"]["folder"] == "models/test"


def test_without_the_folder_the_answer_alone_is_told(
    said: Said, journal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = said("explain", ID, "--journal", journal)
    assert "Told from the answer alone" in shown
    assert "--product DIR" in shown
    told = json.loads(said("explain", ID, "--journal", journal, "--json"))["explanation"]
    assert told["decision"] is told["folder"] is told["features"] is None


def test_another_generation_is_said_and_explained_anyway(
    said: Said, journal: Path, models: Path, tmp_path: Path
) -> None:
    later = catalogue.write_folder(tmp_path / "later", generation=4)
    other = catalogue.write_folder(tmp_path / "other", catalogue.logistic_model(bias=-1.0))
    dearer = catalogue.write_folder(tmp_path / "dearer", costs__step_up__fee=900)

    def told(*folders: Path) -> dict[str, Any]:
        named = [part for folder in folders for part in ("--product", str(folder))]
        shown = said("explain", ID, "--journal", journal, "--json", *named)
        explanation: dict[str, Any] = json.loads(shown)["explanation"]
        assert explanation["decision"] is not None
        return explanation

    assert "is generation 4, and generation 3 decided" in told(later)["warnings"][0]
    rescored = told(other)
    assert "has another model" in rescored["warnings"][0]
    assert rescored["decision"]["score"] != 0.4
    contradicted = told(dearer)
    assert "The gateway answered STEP_UP at P(fraud) 0.4" in contradicted["warnings"][-1]
    assert contradicted["decision"]["action"] == "DECLINE"
    # The folder that decided goes before others of its name.
    assert told(later, other, models / "test")["warnings"] == []


@pytest.fixture(scope="module")
def served(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of a gateway that serves models/test and models/bare, and its journal."""
    journal = tmp_path_factory.mktemp("served") / "journal"
    with serving([models / "test", models / "bare"], journal) as (address, _):
        yield address, journal


def written(asked: DecideRequest) -> dict[str, Any]:
    """A request as its user writes it."""
    features = {
        name: value.text if value.HasField("text") else value.number
        for name, value in asked.features.items()
    }
    plain = ("product", "transaction_id", "amount", "currency", "category")
    return {name: getattr(asked, name) for name in plain} | {"features": features}


@pytest.mark.parametrize("product", ["test", "bare"])
def test_decide_explains_what_it_was_answered(
    product: str, served: tuple[str, Path], said: Said, here: Path, tmp_path: Path
) -> None:
    """Beside the answer, and later from the record: the same, features kept or not."""
    (address, journal), path = served, tmp_path / "request.json"
    asked = request()
    asked.product = product
    path.write_text(json.dumps(written(asked)))
    decide = ("decide", path, "--to", address, *PATIENT, "--explain")
    assert "What would have changed the action" in said(*decide)
    shown = json.loads(said(*decide, "--json"))
    given, now = shown["response"], shown["explanation"]
    assert given["stand_in"] == "NONE"
    identity = given["decision_id"]
    later = json.loads(said("explain", identity, "--journal", journal, "--json"))
    then = later["explanation"]
    assert later["response"] == given
    assert now["decision"]["probability"] == pytest.approx(given["probability"], rel=1e-5)
    assert then["decision"]["probability"] == given["probability"]
    assert [one["cost_minor"] for one in then["decision"]["expected_costs"]] == [
        one["cost"] for one in given["expected_costs"]
    ]
    assert now["decision"]["intervals"] == then["decision"]["intervals"]
    assert now["warnings"] == then["warnings"] == []
    assert now["features"] is not None
    if product == "test":
        assert then["features"] == now["features"]
    else:
        assert then["features"] is None
        assert "kept without the features" in then["notes"][0]


def test_a_changed_folder_is_known_by_its_digest(
    served: tuple[str, Path], said: Said, here: Path, tmp_path: Path
) -> None:
    """A real server's journal knows it; the generation's number and the model are the same."""
    (address, journal), path = served, tmp_path / "request.json"
    path.write_text(json.dumps(written(request())))
    given = json.loads(said("decide", path, "--to", address, *PATIENT, "--json"))
    assert given["stand_in"] == "NONE"
    identity = given["decision_id"]
    changed = catalogue.write_folder(tmp_path / "test", latency__budget_ms=UNHURRIED_MS + 1)
    explain = ("explain", identity, "--journal", journal, "--json", "--product", changed)
    (warning,) = json.loads(said(*explain))["explanation"]["warnings"]
    assert "was changed since it decided" in warning


def stood_in(models: Path, tmp_path: Path, **changes: Any) -> Path:
    asked = request()
    response = DecideResponse(
        decision_id=ID, action=2, stand_in=1, product_generation=3, recorded=True
    )
    nothing = {"stand_in": 1, "score": math.nan, "probability": math.nan}
    entry = decision(
        **{
            "request": asked.SerializeToString(),
            "response": response.SerializeToString(),
            **nothing,
            **changes,
        }
    )
    return write(tmp_path / "journal", [entry])


def test_a_stand_in_says_its_reason_its_band_and_what_the_model_says(
    said: Said, here: Path, tmp_path: Path
) -> None:
    explain = ("explain", ID, "--journal", stood_in(here, tmp_path))
    shown = said(*explain)
    assert "There was no time left inside the budget" in shown
    (line,) = (line for line in shown.splitlines() if "stand_in.deadline[1]" in line)
    lines = (here / "test" / "product.yaml").read_text().splitlines()
    number = int(line.partition("line ")[2].partition(")")[0])
    assert '"action": "step_up"' in "".join(lines[number - 1 : number + 2])
    assert "What the model would have decided" in shown
    told = json.loads(said(*explain, "--json"))["explanation"]
    assert told["is_hypothesis"]
    assert told["stand_in"]["band"] == "stand_in.deadline[1]"
    champion = load_generation(here / "test").champion
    row = np.array([600.0, 3.0, 2.0], dtype=np.float32)
    assert told["decision"]["score"] == champion.score_one(row.tobytes())
    assert told["features"] is not None


def test_a_stand_in_without_features_says_that_the_model_cannot_be_asked(
    said: Said, here: Path, tmp_path: Path
) -> None:
    flags = Flag.FEATURES_LEFT_OUT | Flag.EXPIRED
    asked = catalogue.request(amount=4_000)
    asked.ClearField("features")
    journal = stood_in(here, tmp_path, flags=flags, request=asked.SerializeToString())
    shown = said("explain", ID, "--journal", journal)
    assert "The caller's own deadline was over when the call arrived." in shown
    assert "stand_in.deadline[0]" in shown
    assert "amounts up to 50.00 USD" in shown
    assert "Without its features the model cannot be asked." in shown


def test_a_request_that_does_not_fit_the_folder_is_explained_from_its_score(
    said: Said, journal: Path, tmp_path: Path
) -> None:
    """No value of it is said, only the names of its features."""
    features = [{"name": "hour", "type": "int"}, *catalogue.BASE["features"][1:]]
    folder = catalogue.write_folder(tmp_path / "product", features=features, generation=3)
    explain = ("explain", ID, "--journal", journal, "--product", folder, "--json")
    told = json.loads(said(*explain))["explanation"]
    assert told["decision"]["score"] == 0.4
    assert told["features"] is None
    (note,) = (note for note in told["notes"] if "does not fit" in note)
    assert note.endswith("features[amount], features[hour].")


@pytest.mark.parametrize("bias", [-300.0, 300.0])
def test_a_probability_of_nothing_or_everything_is_said_too(
    bias: float, said: Said, tmp_path: Path
) -> None:
    folder = catalogue.write_folder(tmp_path / "product", catalogue.logistic_model(bias=bias))
    score = float(bias > 0)
    response, fields = answer(request(), folder, score)
    entry = decision(request=request().SerializeToString(), response=response, **fields)
    explain = ("explain", ID, "--journal", write(tmp_path / "journal", [entry]))
    assert "What would have changed" in said(*explain, "--product", folder)
    told = json.loads(said(*explain, "--product", folder, "--json"))["explanation"]
    assert told["decision"]["probability"] == score
    edges = [told["decision"]["below"], told["decision"]["above"]]
    assert [edge["log_odds_away"] for edge in edges if edge] == [None]


def test_defaults_that_stood_in_are_named(said: Said, here: Path, tmp_path: Path) -> None:
    asked = request(entry_mode="a-new-one")
    del asked.features["ratio"]
    response, fields = answer(asked, here / "test", 0.4)
    entry = decision(request=asked.SerializeToString(), response=response, **fields)
    explain = ("explain", ID, "--journal", write(tmp_path / "journal", [entry]))
    shown = said(*explain)
    assert "Declared defaults or limits stood in for: entry_mode, ratio." in shown
    assert "a-new-one" not in shown


def test_help_has_examples_and_the_meaning_of_every_option(said: Said) -> None:
    for verb in ("explain", "decide"):
        shown = said(verb, "--help")
        assert "gateway explain" in shown or "--explain" in shown[shown.index("Examples:") :]
        for argument in app[verb].assemble_argument_collection():
            assert argument.parameter.help, argument.name


# What each feature did


def columns(*changes: dict[str, Any]) -> tuple[Feature, ...]:
    return tuple(
        Feature(**{"name": f"f{i}", "type": "float", **change}) for i, change in enumerate(changes)
    )


def test_a_logistic_models_effects_are_its_weights_times_the_differences() -> None:
    """Whatever shifts the log-odds of all; over several chunks, the strongest first."""
    chance = np.random.default_rng(4)
    n = 300
    weights, row, usual = (chance.normal(0.0, 0.1, n) for _ in range(3))
    usual[:5] = row[:5]
    sizes: list[int] = []

    def score(rows: Any) -> list[float]:
        sizes.append(len(rows))
        return (1.0 / (1.0 + np.exp(-rows @ weights))).tolist()  # type: ignore[no-any-return]

    def probability_of(score: float) -> float:
        odds = 0.2 * score / (1.0 - score)
        return odds / (1.0 + odds)

    told = attribute(
        columns(*[{}] * n), row, usual.tolist(), score=score, probability_of=probability_of
    )
    expected = {f"f{i}": w * d for i, (w, d) in enumerate(zip(weights, row - usual, strict=True))}
    assert {one.feature: one.log_odds for one in told.effects} == pytest.approx(expected, abs=1e-9)
    strengths = [abs(one.log_odds) for one in told.effects]
    assert strengths == sorted(strengths, reverse=True)
    assert sum(strength == 0.0 for strength in strengths) == 5
    assert max(sizes) <= 128
    assert sum(sizes) == 295 + len(sizes)


def test_a_reference_is_declared_or_usual_or_none() -> None:
    """The declared reference, the golden vectors, the default where missing, in this order."""
    kinds = {"type": "category", "values": ["a", "b", "c"]}
    golden = np.array([[5.0, 7.0, np.nan, 1.0, 2.0, 1.0], [1.0, 6.0, np.nan, 1.0, 2.0, 0.0]] * 2)
    usual = columns(
        {"reference": 2.0, "missing": 3.0},
        {"missing": 3.0},
        {},
        {"type": "bool"},
        kinds,
        {**kinds, "reference": "c"},
    )
    assert references(usual, golden) == (2.0, 6.0, None, 1.0, 2.0, 2.0)
    assert references(usual, None) == (2.0, 3.0, None, None, None, 2.0)
    (nothing,) = references(columns({"missing": math.nan}), None)
    assert nothing is not None
    assert math.isnan(nothing)
    assert references(columns({}), np.array([[1.0], [9.0], [2.0], [4.0]])) == (2.0,)


def test_values_are_said_as_they_were_declared() -> None:
    told = attribute(
        columns(
            {}, {"type": "int"}, {"type": "bool"}, {"type": "category", "values": ["a", "b"]}, {}
        ),
        np.array([0.1, 3.0, 1.0, 1.0, np.nan], dtype=np.float32),
        (0.2, 4.0, 0.0, 0.0, 1.0),
        score=lambda rows: np.nansum(rows, axis=1).tolist(),  # type: ignore[no-any-return]
        probability_of=lambda score: score / 100.0,
    )
    values = {one.feature: (one.value, one.reference) for one in told.effects}
    assert values == {
        "f0": (0.1, 0.2),
        "f1": (3, 4),
        "f2": (True, False),
        "f3": ("b", "a"),
        "f4": (None, 1.0),
    }
    assert isinstance(values["f1"][0], int)


def test_what_cannot_be_told_is_left_out_and_the_rest_is_told() -> None:
    """A feature without reference, and those at whose reference the model fails or gives NaN."""

    def score(rows: Any) -> list[float]:
        if (rows[:, 1] == 9.0).any():
            raise RuntimeError("the model's own")
        return [math.nan if row[2] == 9.0 else 0.1 + row[3] for row in rows]

    told = attribute(
        columns({}, {}, {}, {}),
        np.zeros(4),
        (None, 9.0, 9.0, 0.2),
        score=score,
        probability_of=lambda score: score,
    )
    assert [one.feature for one in told.effects] == ["f3"]
    assert told.effects[0].log_odds == pytest.approx(math.log(1 / 9) - math.log(3 / 7))
    assert {one.feature: one.why for one in told.left_out}.keys() == {"f0", "f1", "f2"}


def test_too_many_features_are_refused() -> None:
    many = columns({}) * (FEATURES_MAX + 1)
    with pytest.raises(UsageError, match="at most 5,000"):
        attribute(
            many,
            np.zeros(len(many)),
            [0.0] * len(many),
            score=lambda rows: [0.5] * len(rows),
            probability_of=lambda score: score,
        )
