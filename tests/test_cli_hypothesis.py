"""`gateway hypothesis` as typed: declared, frozen, judged on a lake, ended, never rewritten."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import catalogue
import evaluated_lake as world
import pyarrow.parquet as pq
import pytest
from test_evaluating import until

from gateway.cli.evaluating import Evaluating
from gateway.cli.main import run
from gateway.errors import ExitCode, LakeError
from gateway.sidecar.lake import Lake
from gateway.sidecar.lake.hypotheses import keep_told
from gateway.sidecar.metrics.evaluated import Evaluated

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


def move_back(lake: Path, shift: timedelta) -> None:
    """As if it had been started, and everything had come, so long ago."""
    path = lake / "hypotheses/product=cnp/more-approved.json"
    begun = json.loads(path.read_text())
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
    move_back(lake, timedelta(days=60))
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


def test_who_is_drawn_behind_the_greatest_number_of_days_is_none_of_it(
    lake: Path, typed: Typed
) -> None:
    fill(lake, 0.9)
    at = datetime.now(UTC) + timedelta(days=25)
    rows = [
        world.decision(number, event_time=at, subject=f"{number:032x}", arm="v1")
        for number in range(20_000, 24_000)
    ]
    world.write(lake, "decisions", rows, name=f"001-{world.BOOT}-{1:015d}-{len(rows):015d}")
    typed("start", "more-approved")
    assert shown(typed)["verdict"] == "ship"


# What everybody is told


Told = Callable[..., dict[str, Any]]


@pytest.fixture
def evaluated(lake: Path, capsys: pytest.CaptureFixture[str]) -> Told:
    def evaluated(*words: str) -> dict[str, Any]:
        assert run(["evaluate", "--lake", str(lake), "--json", *words]) == ExitCode.OK
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return evaluated


def later(days: int) -> str:
    return (datetime.now(UTC) + timedelta(days=days)).isoformat()


def test_an_evaluation_tells_what_show_tells(lake: Path, typed: Typed, evaluated: Told) -> None:
    """While it runs, at any time; and when it was stopped, what was known then."""
    fill(lake, 0.9)
    assert evaluated()["hypotheses"] == []
    typed("start", "more-approved")
    for as_of in (later(5), later(9), later(37)):
        told = json.loads(typed("show", "more-approved", "--as-of", as_of, "--json")[1])
        assert evaluated("--as-of", as_of)["hypotheses"] == [told]
        assert evaluated("--as-of", as_of, "--product", "cnp")["hypotheses"] == [told]
    assert (told["verdict"], told["metric"], told["unit"]) == ("ship", "approval_rate", "share")
    assert (
        told["says"] == "the metric is better for sure, and no guardrail is worse than its margin"
    )
    (guardrail,) = told["guardrails"]
    assert guardrail["margin"] == 400
    assert guardrail["is_kept"]
    assert guardrail["interval"] == told["looks"][told["day"] - 1]["guardrails"][0][1:]
    assert evaluated("--as-of", "2026-01-01")["hypotheses"] == [], "it had not been started"
    before = later(0)
    typed("stop", "more-approved")
    stopped = json.loads(typed("show", "more-approved", "--json")[1])
    assert stopped["stopped"]
    assert evaluated()["hypotheses"] == evaluated("--as-of", later(37))["hypotheses"] == [stopped]
    assert evaluated("--as-of", before)["hypotheses"][0]["stopped"] is None, "known then"


@pytest.mark.parametrize(
    "damage",
    [
        "{",
        "[]",
        "\udcff",
        {"started": 3},
        {"started": "yesterday"},
        {"declared": {}},
        {"declared": []},
        {"looks": [{}]},
        {"looks": None},
        {"product": "other"},
        {"stopped": "2026-01-01", "outcome": {"looks": []}},
    ],
    ids=str,
)
def test_what_cannot_be_judged_is_told_and_harms_nothing(
    lake: Path, typed: Typed, evaluated: Told, capsys: pytest.CaptureFixture[str], damage: Any
) -> None:
    declare(lake)
    typed("start", "more-approved")
    path = lake / "hypotheses/product=cnp/more-approved.json"
    whole = json.loads(path.read_text())
    other = lake / "hypotheses/product=cnp/another.json"
    text = damage if isinstance(damage, str) else json.dumps({**whole, "id": "another", **damage})
    other.write_text(text, errors="surrogateescape")
    gone = lake / "hypotheses/product=gone/more-approved.json"
    gone.parent.mkdir()
    gone.write_text(json.dumps({**whole, "product": "gone"}))
    fill(lake, 0.9)
    wrong, right, absent = evaluated()["hypotheses"]
    assert (wrong["product"], wrong["id"]) == ("cnp", "another")
    assert "another" in wrong["error"]
    assert right["verdict"] == "continue"
    assert "is no product of the lake any more" in absent["error"]
    assert [one["product"] for one in evaluated("--product", "cnp")["hypotheses"]] == ["cnp"] * 2
    assert run(["evaluate", "--lake", str(lake)]) == ExitCode.OK
    words = " ".join(capsys.readouterr().out.split())
    assert "cnp, hypothesis another: not judged" in words
    assert "cnp, hypothesis more-approved: continue, day 0: too few days are mature" in words
    assert typed("show", "more-approved", "--product", "cnp")[0] == ExitCode.OK
    assert typed("show", "another")[0] == ExitCode.LAKE
    code, listed, _ = typed("list", "--json")
    assert code == ExitCode.OK
    states = {(one["product"], one["id"]): one["state"] for one in json.loads(listed)}
    assert states["cnp", "more-approved"] == "running"
    assert states["gone", "more-approved"] == "changed since"


# What a sidecar keeps of it


def test_a_record_that_cannot_be_opened_is_told_as_damaged(
    lake: Path, typed: Typed, evaluated: Told
) -> None:
    fill(lake, 0.9)
    typed("start", "more-approved")
    path = lake / "hypotheses/product=cnp/more-approved.json"
    path.unlink()
    path.mkdir()
    (told,) = evaluated()["hypotheses"]
    assert told["error"]
    assert "damaged" in typed("list")[1]


def record_of(lake: Path) -> dict[str, Any]:
    found = json.loads((lake / "hypotheses/product=cnp/more-approved.json").read_text())
    return dict(found)


def test_a_sidecar_keeps_each_look_of_what_runs(lake: Path, typed: Typed) -> None:
    """As `show --keep` does; of a changed declaration none, and what was stopped stays."""
    fill(lake, 0.9)
    typed("start", "more-approved")
    move_back(lake, timedelta(days=60))
    declare(lake, minimum_effect=0.01)
    shows = Evaluated(0.1)
    with Evaluating(str(lake), shows, every_s=0.1, first_s=0.0, retry_s=0.1):
        until(lambda: shows.last() is not None)
        assert record_of(lake)["looks"] == []
        declare(lake)
        until(lambda: bool(record_of(lake)["looks"]))
    kept = record_of(lake)
    assert len(kept["looks"]) == 20
    assert kept["stopped"] is None
    typed("show", "more-approved", "--keep")
    assert record_of(lake) == kept
    typed("stop", "more-approved")
    stopped = record_of(lake)
    place = Lake.at(str(lake))
    told = json.loads(typed("show", "more-approved", "--json")[1])
    for one in (told, {**told, "stopped": None}):
        more = [*told["looks"], {**told["looks"][-1], "day": 21}]
        keep_told(place.filesystem, place.root, [{**one, "looks": more}])
        assert record_of(lake) == stopped


@pytest.mark.parametrize(
    "odd", [{"digest": "0" * 64}, {"started": "2026-01-01"}, {"looks": [{"day": 2}]}], ids=str
)
def test_looks_of_another_start_are_not_kept(lake: Path, typed: Typed, odd: Any) -> None:
    typed("start", "more-approved")
    record, place = record_of(lake), Lake.at(str(lake))
    told = {**record, "looks": [{"day": 1}], "because": "not_sure", "stopped": None}
    keep_told(place.filesystem, place.root, [{**told, **odd}])
    assert record_of(lake) == record
    keep_told(place.filesystem, place.root, [{"error": "x"}, told])
    assert record_of(lake)["looks"] == [{"day": 1}]


def test_one_that_cannot_be_kept_keeps_no_other_from_it(lake: Path, typed: Typed) -> None:
    typed("start", "more-approved")
    record, place = record_of(lake), Lake.at(str(lake))
    told = {**record, "looks": [{"day": 1}], "because": "not_sure", "stopped": None}
    with pytest.raises(LakeError):
        keep_told(place.filesystem, place.root, [{**told, "id": "absent"}, {}, told])
    assert record_of(lake)["looks"] == [{"day": 1}]


KEEPER = """
import json, sys
from gateway.sidecar.lake import Lake
from gateway.sidecar.lake.hypotheses import keep_told, records
place = Lake.at(sys.argv[1])
(one,) = records(place.filesystem, place.root)
told = {"product": one.product, "id": one.id, "digest": one.digest, "started": one.started}
looks = []
while True:
    looks.append({"day": len(looks) + 1, "more": "x" * 10_000})
    keep_told(place.filesystem, place.root, [{**told, "looks": looks}])
    print(len(looks), flush=True)
"""


def test_a_killed_keeper_leaves_all_looks_that_it_had_kept(lake: Path, typed: Typed) -> None:
    typed("start", "more-approved")
    with subprocess.Popen(
        [sys.executable, "-c", KEEPER, str(lake)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        said = [child.stdout.readline() for _ in range(30)]
        child.kill()
        said += child.stdout.readlines()
    looks = record_of(lake)["looks"]
    assert len(looks) >= int([line for line in said if line.endswith("\n")][-1])
    assert [look["day"] for look in looks] == list(range(1, len(looks) + 1))
    assert typed("show", "more-approved")[0] == ExitCode.LAKE, "they are no looks"
