"""`gateway hypothesis` as typed: declared, frozen, judged on a lake, ended, never rewritten."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import catalogue
import evaluated_lake as world
import pyarrow.parquet as pq
import pytest

from gateway.cli.main import run
from gateway.errors import ExitCode

DAYS = 30
HYPOTHESIS: dict[str, Any] = {
    "id": "more-approved",
    "claim": "t82 approves more, and costs no more fraud.",
    "metric": "approval_rate",
    "minimum_effect": 0.03,
    "arms": {"v1": 0.5, "t82": 0.5},
    "guardrails": [{"metric": "fraud_loss_bps", "margin": 400}],
    "maturity": "5d",
    "stop": {"min_days": 7, "max_days": 20},
}

Typed = Callable[..., tuple[int, str, str]]


def declare(lake: Path, *, share: float = 0.5, file: str = "1", **changes: Any) -> None:
    models = catalogue.declared()["models"]
    rival = {"name": "t82", "mode": "canary", "share": share, "sha256": file * 64}
    world.write_product(
        lake,
        hypotheses=[HYPOTHESIS | changes],
        models={**models, "challengers": [rival]},
        labels={"maturity": {"chargeback": "5d"}},
    )


def fill(
    lake: Path, approved: float, *, tried: float = 0.5, seed: int = 5, nameless: int = 0
) -> None:
    """Write a month that begins tomorrow: customers stay in their arm, frauds come a day later.

    `nameless`: so many payments of the tried arm besides, without a subject.
    """
    chance = random.Random(seed)
    tomorrow = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(1)
    arms = {f"{n * 2_654_435_761 % 2**32:08x}{'0' * 24}": chance.random() for n in range(4_000)}
    subjects = list(arms)
    rows, labels = [], []
    for number in range(1, 9_001):
        subject = chance.choice(subjects)
        arm = "t82" if arms[subject] < tried else "v1"
        at = tomorrow + timedelta(days=chance.random() * DAYS)
        passes = chance.random() < (approved if arm == "t82" else 0.8)
        action = "approve" if passes else "decline"
        rows.append(world.decision(number, event_time=at, subject=subject, arm=arm, action=action))
        if passes and chance.random() < 0.02:
            when = at + timedelta(days=1)
            labels.append(world.label(number, "chargeback", reported_time=when))
    for number in range(10_000, 10_000 + nameless):
        at = tomorrow + timedelta(days=chance.random() * DAYS)
        rows.append(world.decision(number, event_time=at, subject=None, arm="t82"))
    for table, some in (("decisions", rows), ("labels", labels)):
        world.write(lake, table, some, name=f"000-{world.BOOT}-{1:015d}-{len(some):015d}")


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    declare(tmp_path / "lake")
    return tmp_path / "lake"


@pytest.fixture
def typed(lake: Path, capsys: pytest.CaptureFixture[str]) -> Typed:
    def typed(verb: str, *words: str) -> tuple[int, str, str]:
        code = run(["hypothesis", verb, *words, "--lake", str(lake)])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return typed


def shown(typed: Typed, days: int = DAYS + 7) -> dict[str, Any]:
    as_of = (datetime.now(UTC) + timedelta(days=days)).isoformat()
    code, told, error = typed("show", "more-approved", "--as-of", as_of, "--json")
    assert code == ExitCode.OK, error
    found: dict[str, Any] = json.loads(told)
    return found


def test_what_is_better_ships_with_its_impact_and_its_history(lake: Path, typed: Typed) -> None:
    fill(lake, 0.9)
    assert "declared" in typed("list")[1]
    code, told, _ = typed("start", "more-approved")
    assert code == ExitCode.OK
    assert "frozen as" in told
    found = shown(typed)
    assert (found["verdict"], found["because"]) == ("ship", "goal_reached")
    assert 7 <= found["day"] <= 20
    impact = found["impact"]
    assert impact["intended"] == 0.03
    assert impact["interval"][0] < 0.1 < impact["interval"][1]
    assert [look["day"] for look in found["looks"]] == list(range(1, 21))
    early = shown(typed, days=9)
    assert early["looks"] == found["looks"][: len(early["looks"])], "an earlier look said the same"
    assert early["verdict"] == "continue"
    as_of = (datetime.now(UTC) + timedelta(days=40)).isoformat()
    _, words, _ = typed("show", "more-approved", "--as-of", as_of)
    assert "the metric is better for sure" in words
    assert "guardrail fraud_loss_bps, margin 400" in words


def test_what_is_worse_stops(lake: Path, typed: Typed) -> None:
    fill(lake, 0.7)
    typed("start", "more-approved")
    assert shown(typed)["because"] == "goal_not_reached"


def test_arms_that_got_other_shares_are_no_result(lake: Path, typed: Typed) -> None:
    fill(lake, 0.9, tried=0.4)
    typed("start", "more-approved")
    found = shown(typed)
    assert (found["verdict"], found["because"]) == ("invalid", "sample_ratio_mismatch")
    assert shown(typed, days=5)["looks"] == []


def test_payments_of_nobody_are_no_customers(lake: Path, typed: Typed) -> None:
    declare(lake, unit="subject")
    fill(lake, 0.9, nameless=2_000)
    typed("start", "more-approved")
    assert shown(typed)["verdict"] == "ship"


def test_drawn_transactions_are_counted_each(lake: Path, typed: Typed) -> None:
    declare(lake, unit="transaction")
    fill(lake, 0.9, nameless=2_000)
    typed("start", "more-approved")
    assert shown(typed)["because"] == "sample_ratio_mismatch"


def test_a_label_that_is_revised_later_changes_no_look_that_was_kept(
    lake: Path, typed: Typed
) -> None:
    fill(lake, 0.9)
    typed("start", "more-approved")
    path = lake / "hypotheses/product=cnp/more-approved.json"
    # As if it had been started, and everything had come, two months ago.
    begun = json.loads(path.read_text())
    shift = timedelta(days=60)
    begun["started"] = (datetime.fromisoformat(begun["started"]) - shift).isoformat()
    path.write_text(json.dumps(begun))
    for table in ("decisions", "labels"):
        (file,) = (lake / table).rglob("*.parquet")
        rows = pq.read_table(file, partitioning=None).to_pylist()
        moved = [
            {name: at - shift if isinstance(at, datetime) else at for name, at in row.items()}
            for row in rows
        ]
        world.write(lake, table, [{"product": "cnp", **row} for row in moved], name=file.stem)
    code, told, _ = typed("show", "more-approved", "--keep", "--json")
    assert code == ExitCode.OK
    before = json.loads(told)
    assert before["verdict"] == "ship"
    assert len(json.loads(path.read_text())["looks"]) == 20
    labels = [
        world.label(number, "chargeback", reported_time=datetime.now(UTC), sequence=number)
        for number in range(1, 9_000)
    ]
    name = f"001-{world.BOOT}-{1:015d}-{len(labels):015d}"
    world.write(lake, "labels", labels, name=name)
    after = json.loads(typed("show", "more-approved", "--json")[1])
    assert after["looks"] == before["looks"]
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"looks": []}))
    assert json.loads(typed("show", "more-approved", "--json")[1])["looks"] != before["looks"]
    code, _, error = typed("show", "more-approved", "--keep", "--as-of", "2999-01-01")
    assert code == ExitCode.USAGE
    assert "has not come yet" in error


@pytest.mark.parametrize("change", [{"minimum_effect": 0.01}, {"id": "another"}, {"file": "2"}])
def test_a_declaration_that_was_changed_is_no_result(
    lake: Path, typed: Typed, change: dict[str, Any]
) -> None:
    fill(lake, 0.9)
    typed("start", "more-approved")
    declare(lake, **change)
    found = shown(typed)
    assert (found["verdict"], found["because"]) == ("invalid", "declaration_changed")
    assert found["impact"]["intended"] == 0.03, "judged by what was frozen"
    assert "changed since" in typed("list")[1]


def test_what_ended_stays_as_it_was(lake: Path, typed: Typed) -> None:
    fill(lake, 0.9)
    typed("start", "more-approved")
    assert typed("stop", "more-approved")[0] == ExitCode.OK
    assert "too_few_days" in (lake / "hypotheses/product=cnp/more-approved.json").read_text()
    assert shown(typed)["verdict"] == "continue"
    assert "stopped" in typed("list")[1]
    code, _, error = typed("stop", "more-approved")
    assert code == ExitCode.USAGE
    assert "was stopped at" in error
    code, _, error = typed("start", "more-approved")
    assert code == ExitCode.USAGE
    assert "never started twice" in error


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"stop": None}, "stop must be given"),
        ({"metric": "savings"}, "arms cannot be compared by savings"),
        ({"arms": {"v1": 0.5, "t83": 0.5}}, "t83 decides 0 of the traffic"),
        ({"share": 0.05}, "declared are 0.5"),
        ({"id": "another"}, "is not there"),
    ],
)
def test_what_could_not_be_judged_is_not_started(
    lake: Path, typed: Typed, change: dict[str, Any], said: str
) -> None:
    declare(lake, **change)
    code, _, error = typed("start", "more-approved")
    assert code == ExitCode.USAGE
    assert said in " ".join(error.split())
    assert not (lake / "hypotheses").exists()


def test_a_record_that_was_tampered_with_is_refused(lake: Path, typed: Typed) -> None:
    fill(lake, 0.9)
    typed("start", "more-approved")
    path = lake / "hypotheses/product=cnp/more-approved.json"
    record = json.loads(path.read_text())
    record["declared"]["minimum_effect"] = 0.001
    path.write_text(json.dumps(record))
    assert shown(typed)["because"] == "declaration_changed"
    path.write_text("{}")
    code, _, error = typed("show", "more-approved")
    assert code == ExitCode.LAKE
    assert "is no started hypothesis" in error
