"""The decisions behind a figure are those that it counts: held to the evaluation, and to a loop."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import evaluated_lake as world
import pytest

from gateway.cli.behind import asked_at, asked_of, behind_of
from gateway.cli.lake_terms import columns_of_tables, terms_in
from gateway.cli.main import run
from gateway.errors import ExitCode, UsageError
from gateway.evaluate.behind import Asked
from gateway.evaluate.engine import DuckDb
from gateway.evaluate.evaluation import evaluate
from gateway.sidecar.lake import Lake

ROOT = Path(__file__).parents[1]
AS_OF = world.day(80)
GROUP, CANARY = "group-canary-70+", "subject-canary"
DAYS = (date(2026, 6, 20), date(2026, 7, 20))
EVERY = 10**6

FRAUDS = ("chargeback", "customer_denied")

Row = dict[str, Any]


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """Payments of ten weeks, of every kind, some asked twice, each with its `truth`."""
    chance = random.Random(7)
    made = []
    for number in range(1, 2001):
        at = world.day(chance.random() * 75)
        fraud = chance.random() < 0.08
        against = chance.random() < (0.5 if fraud else 0.06)
        explored = against and chance.random() < 0.4
        action = (
            "decline"
            if against and not explored
            else chance.choices(("approve", "step_up", "review"), (8, 1, 1))[0]
        )
        row = world.decision(
            number,
            event_time=at,
            received=at + timedelta(milliseconds=5),
            watch={"channel": chance.choice(("app", "web"))},
            category=chance.choice(("5411", "5999", "5912")),
            amount_minor=chance.choice((300, 1_000, 12_000, 150_000)),
            probability=chance.choice((0.001, 0.02, 0.3, None)),
            action=action,
            explored=explored,
            propensity=0.4 if explored else 0.6 if against else 1.0,
            stand_in=chance.choices(("none", "deadline"), (30, 1))[0],
            in_time=chance.choices((True, False, None), (30, 1, 1))[0],
            arm=chance.choice(("v1", "v2")),
            subject=f"{chance.randrange(300) * 2_654_435_761 % 2**32:08x}{'0' * 24}",
            fraud=fraud,
        )
        made.append(row)
        if chance.random() < 0.1:  # asked again: of answers in time the last one counts
            made.append(
                {**row, "received": at + timedelta(seconds=1), "stand_in": "overload", "arm": "v1"}
            )
    return made


@pytest.fixture(scope="module")
def lake(rows: list[Row], tmp_path_factory: pytest.TempPathFactory) -> Lake:
    place = tmp_path_factory.mktemp("lake")
    chance = random.Random(8)
    labels: list[Row] = []
    for row in rows:
        number, at = int(row["transaction_id"][2:]), row["event_time"]
        if row["action"] == "decline" or row["stand_in"] == "overload":
            continue
        if row["fraud"] and chance.random() < 0.9:
            late = at + timedelta(days=chance.random() * 15)
            who = chance.choice(("issuer", "customer"))
            told: Row = {"reported_time": late, "liable": who}
            row["kind"], row["liable"] = chance.choice(FRAUDS), who
            if row["kind"] == "chargeback":  # the other says no amount
                told |= {"amount_minor": row["amount_minor"] - 1, "currency": "USD"}
            labels.append(world.label(number, row["kind"], **told))
        elif chance.random() < 0.1:
            labels.append(world.label(number, "customer_confirmed", reported_time=at))
        if row["action"] == "step_up":
            how = chance.choice(("step_up_passed", "step_up_failed", "step_up_abandoned"))
            labels.append(world.label(number, how, reported_time=at))
            row["step_up"] = how
            if chance.random() < 0.7:
                when = at + timedelta(seconds=chance.choice((5, 500)))
                labels.append(world.label(number, "customer_contacted", reported_time=when))
                row["contacted"] = when
    subjects = sorted({row["subject"] for row in rows})
    groups = [world.attribute(one, ("35-54", GROUP)[i % 2]) for i, one in enumerate(subjects[30:])]
    world.write_by_day(place, "decisions", rows)
    world.write_by_day(place, "labels", labels)
    world.write_by_day(place, "attributes", [{**one, "worker": 1} for one in groups])
    folder = place / "products" / "product=cnp"
    folder.mkdir(parents=True)
    text = (ROOT / "models" / "card-not-present" / "product.yaml").read_text()
    for old, new in (("card-not-present", "cnp"), ("chargeback: 90d", "chargeback: 21d")):
        assert old in text
        text = text.replace(old, new)
    (folder / f"{1:010}-{'a' * 12}.yaml").write_text(text)
    return Lake.at(str(place))


@pytest.fixture(scope="module")
def evaluation(lake: Lake) -> dict[str, Any]:
    files = {table: lake.files(table) for table in ("decisions", "labels", "attributes")}
    with DuckDb(files, columns_of_tables()) as engine:
        found = evaluate(engine, terms_in(lake, None), AS_OF).as_object()
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]


OF_LABELS = ("kind", "liable", "step_up", "contacted")


def counted(rows: list[Row]) -> Iterator[Row]:
    """Yield the answer of each payment that counts: the last that was in time, or the last."""
    by_payment: dict[str, list[Row]] = {}
    for row in rows:
        by_payment.setdefault(row["transaction_id"], []).append(row)
    for some in by_payment.values():
        known = some[0]
        best = max(some, key=lambda row: (row["in_time"] is True, row["received"]))
        # What labels said is of the payment.
        yield {
            **best,
            **{x: known[x] for x in ("kind", "step_up", "contacted", "liable") if x in known},
        }


def through(row: Row) -> bool:
    failed = row.get("step_up") in ("step_up_failed", "step_up_abandoned")
    return row["action"] != "decline" and not failed


def is_fraud(row: Row) -> bool:
    return row.get("kind") in FRAUDS


CONTACT = timedelta(seconds=60)
ORACLE: Mapping[str, tuple[Callable[[Row], bool], Callable[[Row], bool]]] = {
    "in-time": (lambda x: x["in_time"] is not None, lambda x: not x["in_time"]),
    "always-on": (lambda x: True, lambda x: x["stand_in"] != "none"),
    "reach-you": (
        lambda x: x["action"] == "step_up",
        lambda x: "contacted" not in x or x["contacted"] > x["event_time"] + CONTACT,
    ),
    "zero-liability": (lambda x: True, lambda x: is_fraud(x) and x["liable"] == "customer"),
    "approval_rate": (lambda x: True, lambda x: not through(x)),
    "fraud_loss": (lambda x: True, lambda x: through(x) and is_fraud(x)),
    "fraud_loss_bps": (through, is_fraud),
    "fraud_rate": (through, is_fraud),
    "step_up_success_rate": (
        lambda x: "step_up" in x,
        lambda x: x["step_up"] != "step_up_passed",
    ),
    "review_load": (lambda x: True, lambda x: x["action"] == "review"),
    "observed_over_expected": (
        lambda x: through(x) and x["stand_in"] == "none",
        is_fraud,
    ),
    "decline_rate_ratio": (lambda x: True, lambda x: x["action"] == "decline"),
}
"""By metric: which payments count, and which of them against it."""


def asked(metric: str, **more: Any) -> Asked:
    return Asked("cnp", metric, *DAYS, **more)


def expected(
    rows: list[Row], asked: Asked, part: Callable[[Row], bool]
) -> tuple[set[str], set[str]]:
    counts, against = ORACLE[asked.metric]
    here = [
        row
        for row in counted(rows)
        if asked.first <= row["event_time"].date() <= asked.last and part(row) and counts(row)
    ]
    name = "transaction_id"
    return {row[name] for row in here}, {row[name] for row in here if against(row)}


def transactions(lake: Lake, told: Mapping[str, Any], *, against: bool) -> set[str]:
    """Return of which payments the decisions of a list are."""
    ids = {
        row["id"]
        for row in told["decisions"]
        if not against or told["kinds"][row["kind"]]["against"]
    }
    table = lake.dataset("decisions").to_table(columns=["decision_id", "transaction_id"])
    return {row["transaction_id"] for row in table.to_pylist() if row["decision_id"] in ids}


@pytest.mark.parametrize("metric", ORACLE)
def test_those_that_count_and_those_against_are_a_loops(
    lake: Lake, rows: list[Row], metric: str
) -> None:
    one = asked(metric)
    told = behind_of(lake, one, AS_OF, most=EVERY)
    all_, against = expected(rows, one, lambda _: True)
    assert len(against) > 1 or metric == "zero-liability"
    assert against < all_
    assert told["count"] == len(all_)
    assert transactions(lake, told, against=False) == all_
    assert transactions(lake, told, against=True) == against
    assert sum(kind["count"] for kind in told["kinds"]) == len(all_)


PARTS: Mapping[str, tuple[dict[str, str], Callable[[Row], bool]]] = {
    "category": ({"category": "grocery"}, lambda x: x["category"] == "5411"),
    "amount": ({"amount": "50 to 200"}, lambda x: 5_000 <= x["amount_minor"] < 20_000),
    "arm": ({"arm": "v2"}, lambda x: x["arm"] == "v2"),
    "segment": ({"channel": "web"}, lambda x: x["watch"]["channel"] == "web"),
    "month": ({"month": "2026-07"}, lambda x: x["event_time"].month == 7),
    "two": (
        {"channel": "web", "arm": "v1"},
        lambda x: x["watch"]["channel"] == "web" and x["arm"] == "v1",
    ),
}


@pytest.mark.parametrize("name", PARTS)
def test_a_part_is_the_part_that_the_evaluation_has(lake: Lake, rows: list[Row], name: str) -> None:
    by, part = PARTS[name]
    for metric in ("fraud_loss", "approval_rate"):
        one = asked(metric, by=by)
        told = behind_of(lake, one, AS_OF, most=EVERY)
        all_, against = expected(rows, one, part)
        assert 0 < len(all_) < 1000
        assert (
            transactions(lake, told, against=False),
            transactions(lake, told, against=True),
        ) == (
            all_,
            against,
        )


def test_a_group_is_selected_and_neither_it_nor_a_subject_is_told(
    lake: Lake, rows: list[Row]
) -> None:
    subjects = sorted({row["subject"] for row in rows})
    unknown, ours = set(subjects[:30]), set(subjects[31::2])
    for group, theirs in ((GROUP, ours), ("unknown", unknown)):
        by = {"age_band": group, "reference": "35-54"}
        one = asked("decline_rate_ratio", by=by)
        told = behind_of(lake, one, AS_OF, most=EVERY)
        all_, against = expected(rows, one, lambda x: x["subject"] in theirs)  # noqa: B023
        assert transactions(lake, told, against=False) == all_
        assert transactions(lake, told, against=True) == against
        shown = json.dumps({**told, "by": {}})
        assert GROUP not in shown
        assert not any(subject in shown for subject in subjects)
    known = behind_of(lake, asked("attribute_known", by={"attribute": "age_band"}), AS_OF)
    assert known["kinds"][0]["count"] == len(
        expected(rows, asked("approval_rate"), lambda x: x["subject"] in unknown)[0]
    )


def test_every_figure_of_an_evaluation_has_its_decisions(
    lake: Lake, evaluation: dict[str, Any]
) -> None:
    """One of each metric, basis and part: counted as the figure was, where it is a count."""
    seen: dict[tuple[Any, ...], str] = {}
    for section in ("goals", "money", "calibration", "drift", "fairness"):
        for i, one in enumerate(evaluation[section]):
            key = section, one["metric"], one["basis"], *sorted(set(one["by"]) - {"reference"})
            if one["from"] and one["n"]:
                seen.setdefault(key, f"/{section}/{i}")
    assert len(seen) > 40
    exact = 0
    for (section, metric, *_), pointer in seen.items():
        entry = evaluation[section][int(pointer.rpartition("/")[2])]
        told = behind_of(lake, asked_at(evaluation, pointer), AS_OF)
        assert len(told["decisions"]) == min(told["count"], 100), pointer
        kinds = [row["kind"] for row in told["decisions"]]
        assert kinds == sorted(kinds)
        against = sum(one["count"] for one in told["kinds"] if one["against"])
        if metric in ("approval_rate", "in-time", "always-on", "reach-you"):
            assert (told["count"], told["count"] - against) == (entry["n"], entry["events"]), (
                pointer
            )
            exact += 1
        elif metric == "fraud_rate_at_probability" or (metric, entry["basis"]) == (
            "fraud_rate",
            "mature",
        ):
            assert (told["count"], against) == (entry["n"], entry["events"]), pointer
            exact += 1
        elif metric in ("approval_rate_ratio", "decline_rate_ratio", "step_up_rate_ratio"):
            assert told["count"] == entry["rate"]["n"], pointer
            exact += 1
    assert exact > 10


def test_what_cannot_be_counted_says_so(lake: Lake) -> None:
    explored = behind_of(lake, asked("false_positive_rate", basis="explored"), AS_OF, most=EVERY)
    assert "exploration let through" in explored["says"]
    first = explored["kinds"][0]
    assert "let through to learn" in first["what"]
    assert first["against"]
    some = [row for row in explored["decisions"] if row["kind"] == 0]
    assert some
    assert all(row["explored"] and not row["fraud"] for row in some)
    declined = [row for row in explored["decisions"] if row["kind"] == 2]
    assert {row["action"] for row in declined} == {"decline"}
    believed = [row["probability"] for row in declined if row["probability"] is not None]
    assert believed == sorted(believed)
    implied = behind_of(lake, asked("false_positive_rate", basis="model_implied"), AS_OF)
    assert "No single decision" in implied["says"]
    assert "is not told" in behind_of(lake, asked("of_tomorrow"), AS_OF)["says"]


def test_frauds_come_by_what_they_took_and_labels_count_as_known_then(lake: Lake) -> None:
    told = behind_of(lake, asked("fraud_loss"), AS_OF)
    some = [row for row in told["decisions"] if row["kind"] == 0]
    taken = [row["lost_minor"] for row in some if row["label"] == "chargeback"]
    assert len(taken) > 5
    assert taken == sorted(taken, reverse=True)
    assert all(x % 100 == 99 for x in taken)  # what was reported, not the payment's amount
    unsaid = [i for i, row in enumerate(some) if row["label"] == "customer_denied"]
    assert {some[i]["lost_minor"] for i in unsaid} == {None}
    assert unsaid[0] < len(taken)  # ordered by the payment's, which is not told
    newest = behind_of(lake, asked("in-time"), AS_OF)
    first = [row["time"] for row in newest["decisions"] if row["kind"] == 0]
    assert len(first) > 5
    assert first == sorted(first, reverse=True)
    early = datetime.combine(DAYS[0], datetime.min.time(), UTC) + timedelta(days=5)
    before = behind_of(lake, asked("fraud_loss"), early)
    assert 0 < before["count"] < told["count"]
    assert before["kinds"][0]["count"] < told["kinds"][0]["count"]


@pytest.mark.parametrize(
    ("figure", "says"),
    [
        (asked("fraud_loss", by={"planet": "mars"}), "no part"),
        (asked("fraud_loss", by={"category": "nix"}), "no part"),
        (asked("nix", is_promise=True), "no promise"),
        (replace(asked("fraud_loss"), product="nix"), "no product"),
    ],
)
def test_what_is_no_figure_is_refused(lake: Lake, figure: Asked, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        behind_of(lake, figure, AS_OF)


@pytest.mark.parametrize(
    "pointer", ["", "/", "/goals", "/goals/99999", "/goals/-1", "/as_of/0", "goals/0", "/nix/0"]
)
def test_a_place_of_no_figure_is_refused(evaluation: dict[str, Any], pointer: str) -> None:
    with pytest.raises(UsageError, match="no figure"):
        asked_at(evaluation, pointer)


def test_values_of_parts_are_values_and_never_sql(lake: Lake) -> None:
    texts = ("'; drop table facts; --", "$limit", "{part}", "x' or 'a'='a")
    for key, text in zip(("channel", "arm", "age_band", "month"), texts, strict=True):
        told = behind_of(lake, asked("approval_rate", by={key: text}), AS_OF)
        assert told["count"] == 0


def test_the_command_takes_a_place_or_flags_and_both_say_the_same(
    lake: Lake, evaluation: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "e.json"
    file.write_text(json.dumps(evaluation))
    (place,) = [i for i, one in enumerate(evaluation["goals"]) if one["metric"] == "always-on"]
    entry = evaluation["goals"][place]
    at = ["decisions", "--lake", lake.root, "--at", f"/goals/{place}", "--evaluation", str(file)]
    assert run([*at, "--json"]) == ExitCode.OK
    told = json.loads(capsys.readouterr().out)
    flags = ["--product", "cnp", "--metric", "always-on", "--from", entry["from"]]
    flags += ["--to", entry["to"], "--basis", "all", "--as-of", evaluation["as_of"]]
    assert run(["decisions", "--lake", lake.root, *flags, "--json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out) == told
    assert run(at) == ExitCode.OK
    said = capsys.readouterr()
    assert told["decisions"][0]["id"] in said.out
    assert f"{entry['n']:,.0f} payments count for it" in said.out
    assert "Next: gateway decisions " in said.err
    by = ["decisions", "--lake", lake.root, *flags, "--by", f"age_band={GROUP}", "--json"]
    assert run(by) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["count"] < told["count"]


FLAGS = ("--product", "cnp")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "names no figure"),
        (["--product", "cnp", "--metric", "x"], "--from, --to missing"),
        (["--at", "/goals/0", "--product", "cnp"], "Leave one of the two out"),
        (["--at", "/goals/0"], "keeps no evaluation"),
        (["0123456789abcdef-07-00000000002a", "--at", "/goals/0"], "do not go together"),
        (["0123456789abcdef-07-00000000002a"], "is not there"),
        (["nix"], "is no decision id"),
        (["--product", "cnp", "--metric", "x", "--from", "a", "--to", "b"], "is no day"),
        (
            [*FLAGS, "--metric", "x", "--from", "2026-07-01", "--to", "2026-07-02", "--by", "x"],
            "no KEY=VALUE",
        ),
        (
            [*FLAGS, "--metric", "fraud_loss", "--from", "2030-07-01", "--to", "2030-07-02"],
            "holds no decisions",
        ),
    ],
)
def test_wrong_input_says_what_to_try(
    lake: Lake, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["decisions", "--lake", lake.root, *arguments]) != ExitCode.OK
    shown = capsys.readouterr()
    assert says in shown.err
    assert "Try: " in shown.err
    assert shown.out == ""


def test_an_entry_without_days_is_refused() -> None:
    with pytest.raises(UsageError, match="has no from"):
        asked_of({"product": "cnp", "metric": "x", "from": None, "to": None})
