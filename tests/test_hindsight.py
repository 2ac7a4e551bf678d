"""A decision is told whole: why, its trace, and whether it was right; and nothing that was sent."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from html import unescape
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import catalogue
import evaluated_lake as world
import pytest
from journalled import BOOT, MS, TRACEPARENT, response
from test_cli_trace import S, at, place, write
from test_trace_lake import shipped

from gateway.cli.hindsight import decision_of
from gateway.cli.main import run
from gateway.errors import ExitCode, GatewayError
from gateway.evaluate.hindsight import Known, hindsight
from gateway.journal import Entry, Flag, Refused, Replied, Scored, ScoredCall
from gateway.report.decision import decision_html
from gateway.sidecar.lake import Lake
from gateway.v1.decision_pb2 import DECLINE

CANARIES = ("customer-canary", "canary-channel", "777123")
DAY, MATURITY = date(2026, 6, 1), timedelta(days=30)


def costly() -> bytes:
    said = response()
    for action, cost in ((1, 1250.0), (2, 60.0), (4, 512.5)):
        said.expected_costs.add(action=action, cost=cost)  # type: ignore[arg-type]
    return said.SerializeToString()


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    now = time.monotonic_ns() - S // 10
    asked = catalogue.request(subject=CANARIES[0], channel=CANARIES[1])
    asked.features["amount"].number = float(CANARIES[2])
    stood_in = response(stand_in=2).SerializeToString()
    entries: list[Entry] = [
        at(now, response=costly(), request=asked.SerializeToString(), traceparent=TRACEPARENT),
        at(now, response=costly(), flags=Flag.EXPLORED | Flag.NEAR_TIE, propensity=0.02),
        at(now, stand_in=2, response=stood_in),
        Refused(now, 90_000, 3, 0, "", ("amount",)),
    ]
    beside = [
        Replied(1, now, (300_000, 21 * MS, 300_000, 100_000)),
        Scored(0, 1, 0, 0, 1, (ScoredCall(1, 0.5, 0.97, DECLINE),)),
    ]
    return write(tmp_path / "journal", entries, beside)


@pytest.fixture
def lake(journal: Path, tmp_path: Path) -> Lake:
    found = shipped(journal, tmp_path / "lake")
    folder = tmp_path / "lake" / "products" / "product=test"
    folder.mkdir(parents=True)
    text = json.dumps(catalogue.declared(product="test"), indent=1)
    (folder / f"{3:010}-{'c' * 12}.yaml").write_text(text)
    return found


def told(lake: Lake | None, journal: Path | None, sequence: int) -> dict[str, Any]:
    found = decision_of(lake, journal, place(sequence), datetime.now(UTC))
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]


@pytest.mark.parametrize("sequence", [1, 2, 3, 4])
def test_the_lake_and_the_journal_say_the_same(lake: Lake, journal: Path, sequence: int) -> None:
    ours, theirs = told(lake, None, sequence), told(None, journal, sequence)
    for one in (ours, theirs):
        one.pop("since")
        one.pop("trace_id")  # one of our own is made of the whole boot's id
        one.pop("caller_span_id")
        one["arrived"] = one["arrived"][:23]
    if sequence == 4:
        ours.pop("generation_digest"), theirs.pop("generation_digest")
        ours.pop("generation"), theirs.pop("generation")
    assert ours == theirs


def test_costs_margin_and_chance_are_the_answers(lake: Lake) -> None:
    one = told(lake, None, 1)
    assert one["why"]["expected_costs_minor"] == {"approve": 1250, "step_up": 60, "decline": 512.5}
    assert one["why"]["second_best"] == "decline"
    assert one["margin_minor"] == 12.5
    assert told(lake, None, 2)["why"]["propensity"] == 0.02
    assert told(lake, None, 3)["why"]["expected_costs_minor"] == {}


@pytest.mark.parametrize("sequence", [1, 2, 3, 4])
def test_a_page_is_whole_and_holds_nothing_that_was_sent(lake: Lake, sequence: int) -> None:
    one = told(lake, None, sequence)
    page = decision_html(one)
    ElementTree.fromstring(page.removeprefix("<!DOCTYPE html>\n"))
    assert "<script" not in page
    assert page.count('<svg class="track"') == len(one["stages"]) + (one["budget_us"] is not None)
    row = lake.find(place(sequence), "decisions") or {}
    assert sequence == 4 or row["subject"]
    for canary in (*CANARIES, str(row.get("subject")), str(row.get("transaction_id"))):
        assert canary not in page
        assert canary not in json.dumps(one)
    words = re.sub("<[^>]+>", "", unescape(page))
    said = {
        1: ("below the threshold of 50", "second best", "97.0 %"),
        2: ("let through to learn its label, as 2.0 %", "near tie"),
        3: ("more work had arrived than", "stand-in answered"),
        4: ("INVALID_ARGUMENT", "amount"),
    }
    for part in said[sequence]:
        assert part in words


def test_labels_that_came_since_are_told_by_transaction_or_decision(
    lake: Lake, tmp_path: Path
) -> None:
    row = lake.find(place(1), "decisions")
    assert row is not None
    assert told(lake, None, 1)["since"]["right"] == "open"
    now = datetime.now(UTC)
    base = {"product": "test", "reported_time": now, "transaction_id": row["transaction_id"]}
    money = {"amount_minor": 4321, "currency": "USD", "liable": "issuer"}
    warned = world.label(1, "early_fraud_warning", **base)
    charged = world.label(1, "chargeback", **base, **money)
    elsewhere = world.label(2, "chargeback", **{**base, "transaction_id": "another"})
    write_labels(lake, [warned, charged, elsewhere], 1)
    since = told(lake, None, 1)["since"]
    assert since["right"] == "wrong"
    assert (since["counts"]["kind"], since["counts"]["lost_minor"]) == ("chargeback", 4321)
    assert {one["kind"] for one in since["labels"]} == {"early_fraud_warning", "chargeback"}
    assert "43.2" in unescape(decision_html(told(lake, None, 1)))
    # By the decision's id alone, and what takes the fraud back.
    by_id = {**base, "transaction_id": None, "decision_id": place(1), "source_event_id": "w-1"}
    write_labels(
        lake,
        [
            world.label(1, "withdrawn", **{**by_id, "supersedes": one["source_event_id"]})
            | {"source_event_id": f"w-{one['source_event_id']}"}
            for one in (warned, charged)
        ],
        10,
    )
    since = told(lake, None, 1)["since"]
    assert since["right"] == "open"
    assert since["counts"]["reversed"]


def write_labels(lake: Lake, labels: Sequence[dict[str, Any]], first: int) -> None:
    from gateway.sidecar.lake.ranges import FileName

    name = str(FileName(0, world.BOOT, first, first + len(labels) - 1)).removesuffix(".parquet")
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    world.write(Path(lake.root), "labels", labels, name, today)


FRAUD = Known(kind="chargeback", fraud=True, lost_minor=5)
GENUINE = Known(kind="customer_confirmed")


@pytest.mark.parametrize(
    ("action", "known", "explored", "age_days", "right", "says"),
    [
        ("approve", FRAUD, False, 3, "wrong", "it went through"),
        ("approve", FRAUD, True, 3, "learned", "and rightly"),
        ("approve", GENUINE, False, 3, "right", "it went through"),
        ("approve", GENUINE, True, 3, "learned", "and wrongly"),
        ("approve", Known(), False, 3, "open", "until 2026-07-01"),
        ("approve", Known(), False, 30, "open", "until 2026-07-01"),
        ("approve", Known(), False, 31, "right", "no fraud was reported within 30 days"),
        ("approve", Known(), True, 31, "learned", "and wrongly"),
        ("approve", Known(reversed=True), False, 31, "right", "taken back"),
        ("decline", Known(), False, 400, "never", "nobody will"),
        ("decline", GENUINE, False, 3, "wrong", "it was stopped"),
        ("decline", FRAUD, False, 3, "right", "did not go through"),
        ("step_up", Known(step_up="step_up_failed"), False, 99, "never", "nobody knows"),
        ("step_up", Known(step_up="step_up_passed"), False, 99, "right", "no fraud"),
        ("step_up", Known("chargeback", True, step_up="step_up_failed"), False, 9, "right", ""),
        ("review", Known("analyst_fraud", True), False, 9, "right", "did not go through"),
        ("review", Known("chargeback", True), False, 9, "wrong", "it went through"),
    ],
)
def test_hindsight(
    action: str, known: Known, explored: bool, age_days: int, right: str, says: str
) -> None:
    today = DAY + timedelta(days=age_days)
    found = hindsight(action, known, explored=explored, day=DAY, today=today, maturity=MATURITY)
    assert found[0] == right
    assert says in found[1]


def test_the_command_says_it_in_words(lake: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["decisions", place(1), "--lake", lake.root]) == ExitCode.OK
    said = capsys.readouterr()
    for part in (place(1), "below the threshold", "is expected to cost", "What came of it", "v2"):
        assert part in said.out
    assert f"Next: gateway trace {place(1)}" in said.err
    assert not any(canary in said.out for canary in CANARIES)
    assert run(["decisions", place(4), "--lake", lake.root]) == ExitCode.OK
    assert "REFUSED" in capsys.readouterr().out


def test_what_is_not_there_is_said(lake: Lake, journal: Path) -> None:
    for sources in ((lake, None), (lake, journal), (None, journal)):
        with pytest.raises(GatewayError):
            decision_of(*sources, place(999), datetime.now(UTC))
    assert BOOT.hex()[:16] in place(1)
