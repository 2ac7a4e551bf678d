"""Evaluations beside the sidecar: kept whole, shown as gauges, and nothing notices a killed one."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import catalogue
import evaluated_lake as world
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from pyarrow import fs
from test_sidecar import beside
from test_supervisor import serving

from gateway.cli import evaluating
from gateway.cli.evaluating import Evaluating
from gateway.cli.main import run
from gateway.cli.terms import every_s
from gateway.errors import ExitCode, LakeError
from gateway.evaluate.entry import SCHEMA as SCHEMA_OF_ENTRIES
from gateway.sidecar.lake import Lake
from gateway.sidecar.lake.evaluations import (
    COUNTS,
    DAYS,
    NEWEST,
    SCHEMA,
    Evaluations,
    Kept,
    evaluation_in,
    staying,
)
from gateway.sidecar.metrics.evaluated import Evaluated

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
CANARIES = ("KanaRiGroupAzQ", "KanaRiGroupBzQ", "35-54")
COMMAND = [sys.executable, "-m", "gateway"]

WAIT_S = 60.0
"""What gives way may have to wait for all else that runs."""

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def evaluation(as_of: datetime = NOW, **more: Any) -> dict[str, Any]:
    """Return a small one: a promise that is broken, a goal without a figure, groups in breach."""
    promise = {
        "product": "cnp",
        "kind": "promise",
        "metric": "always-on",
        "basis": "all",
        "unit": "share",
        "value": 0.99,
        "interval": [0.98, 0.995],
        "verdict": "missed",
        "budget": {"share_left": -9.0},
    }
    goal = {
        **promise,
        "kind": "goal",
        "metric": "fraud_loss_bps",
        "basis": "mature",
        "unit": "bps",
        "value": None,
        "interval": [1.5, None],
        "verdict": "undecided",
        "budget": None,
    }
    groups = [
        {
            "product": "cnp",
            "metric": "false_positive_rate_ratio",
            "verdict": verdict,
            "by": {"age_band": name, "reference": CANARIES[2]},
            "gates": gates,
        }
        for name, verdict, gates in zip(
            (*CANARIES, f"{CANARIES[0]} × {CANARIES[1]}"),
            ("breach", "breach", None, "breach"),
            (True, True, True, False),
            strict=True,
        )
    ]
    return {
        "schema": SCHEMA,
        "as_of": as_of.isoformat(),
        "products": ["cnp"],
        "labels": [{"product": "cnp", "mature": 1}],
        "goals": [promise, goal],
        "fairness": groups,
        **more,
    }


def until(holds: Callable[[], bool], wait_s: float = WAIT_S) -> None:
    until_s = time.monotonic() + wait_s
    while not holds():
        assert time.monotonic() < until_s
        time.sleep(0.02)


def shown(collector: Evaluated) -> Samples:
    registry = CollectorRegistry()
    registry.register(collector)
    return samples(generate_latest(registry).decode())


def samples(text: str) -> Samples:
    return {
        (one.name, frozenset(one.labels.items())): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
        if "evaluation" in one.name or "budget_left" in one.name
    }


def plain(found: Samples) -> dict[str, float]:
    """Return the samples without labels."""
    return {
        name.removeprefix("gateway_evaluation_"): v for (name, of), v in found.items() if not of
    }


def scraped(address: str) -> str:
    with urllib.request.urlopen(address, timeout=10) as answer:
        text: str = answer.read().decode()
    return text


def figures_by_hand(told: Mapping[str, Any]) -> Samples:
    """What gauges are to say, in plain loops over the printed evaluation."""
    found: Samples = {}
    for one in told["goals"]:
        names = ("product", "kind", "metric", "basis", "unit")
        named = {name: one[name] for name in names}
        bounds = {"value": one["value"], "low": one["interval"][0], "high": one["interval"][1]}
        for bound, value in bounds.items():
            if value is not None:
                labels = frozenset({**named, "bound": bound}.items())
                found["gateway_evaluation_figure", labels] = value
        if one.get("budget") and one["budget"]["share_left"] is not None:
            labels = frozenset({"product": one["product"], "promise": one["metric"]}.items())
            found["gateway_error_budget_left_ratio", labels] = one["budget"]["share_left"]
    for section in ("goals", "money", "calibration", "drift", "fairness"):
        for one in told.get(section, ()):
            if one["verdict"] and one.get("gates") is not False:
                named = {"product": one["product"], "section": section}
                named |= {"metric": one["metric"], "verdict": one["verdict"]}
                key = "gateway_evaluation_verdicts", frozenset(named.items())
                found[key] = found.get(key, 0) + 1
    return found


def labelled(found: Samples) -> Samples:
    return {key: value for key, value in found.items() if key[1]}


# Kept in the lake


def test_the_form_that_is_kept_is_the_form_that_is_printed() -> None:
    assert SCHEMA == SCHEMA_OF_ENTRIES


@pytest.mark.parametrize("kind", ["local", "another"])
def test_what_was_kept_last_is_read_back(tmp_path: Path, kind: str) -> None:
    local = fs.LocalFileSystem()
    place = (
        Evaluations(local, str(tmp_path))
        if kind == "local"
        else Evaluations(fs.SubTreeFileSystem(str(tmp_path), local), "lake")
    )
    assert place.last(NOW) is None
    for hours in (3, 1, 2):
        place.keep(evaluation(NOW - timedelta(hours=hours), number=hours))
    assert place.last(NOW) == evaluation(NOW - timedelta(hours=1), number=1)
    assert place.last(NOW - timedelta(minutes=90)) == evaluation(NOW - timedelta(hours=2), number=2)
    assert [one.as_of for one in place.kept()] == [NOW - timedelta(hours=h) for h in (1, 2, 3)]


def test_one_that_cannot_be_read_is_left_out_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = Evaluations(fs.LocalFileSystem(), str(tmp_path))
    whole = evaluation(NOW - timedelta(days=1))
    place.keep(whole)
    newer = Path(place.keep(evaluation(NOW)))
    for damage in ("{", "[]", "{}", '{"schema": "gateway.evaluation/1", "as_of": "x"}', "\udcff"):
        newer.write_text(damage, errors="surrogateescape")
        caplog.clear()
        assert place.last(NOW) == whole
        assert str(newer) in caplog.text


TIMES = st.integers(0, 400 * 24).map(lambda hours: NOW - timedelta(hours=hours))


@settings(max_examples=60, deadline=None)
@given(st.lists(TIMES, unique=True))
def test_the_newest_stay_and_the_last_of_each_day(times: list[datetime]) -> None:
    stay = {one.as_of for one in staying(Kept(time, str(time)) for time in times)}
    newest_first = sorted(times, reverse=True)
    days = sorted({time.date() for time in times}, reverse=True)[:DAYS]
    assert stay == {
        *newest_first[:NEWEST],
        *(max(time for time in times if time.date() == day) for day in days),
    }


def test_what_is_not_to_stay_is_deleted_and_nothing_else(tmp_path: Path) -> None:
    place = Evaluations(fs.LocalFileSystem(), str(tmp_path))
    times = [NOW + timedelta(minutes=minute) for minute in range(NEWEST + 5)]
    folder = tmp_path / "evaluations"
    folder.mkdir()
    begun = [NOW - timedelta(days=2), NOW - timedelta(hours=1)]
    names = [f".{time:%Y-%m-%dT%H%M%S.%f}Z.json.tmp" for time in begun]
    for name in (*names, "note.txt"):
        (folder / name).touch()
    for time_ in times:
        place.keep(evaluation(time_))
    assert [one.as_of for one in place.kept()] == times[: -NEWEST - 1 : -1]
    left = {path.name for path in folder.iterdir()} - {Path(one.path).name for one in place.kept()}
    assert left == {names[1], "note.txt"}, "another process may be writing the younger one"


KEEPER = """
import sys
from datetime import datetime, UTC
from pyarrow import fs
from gateway.sidecar.lake.evaluations import Evaluations
place = Evaluations(fs.LocalFileSystem(), sys.argv[1])
while True:
    as_of = datetime.now(UTC).isoformat()
    place.keep({"schema": "gateway.evaluation/1", "as_of": as_of, "more": "x" * 100_000})
    print(as_of, flush=True)
"""


def test_a_killed_keeper_leaves_a_whole_one_no_older_than_it_said(tmp_path: Path) -> None:
    place = Evaluations(fs.LocalFileSystem(), str(tmp_path))
    for kill in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", KEEPER, str(tmp_path)], stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            said = [child.stdout.readline() for _ in range(5 + 7 * kill)]
            child.kill()
            said += child.stdout.readlines()
        last = place.last(datetime.now(UTC))
        assert last is not None
        assert last["as_of"] >= [line.strip() for line in said if line.endswith("\n")][-1]
        assert len(last["more"]) == 100_000
        assert len(place.kept()) <= NEWEST + 2


# Shown as gauges


def test_gauges_say_what_the_evaluation_says_and_how_old_it_is() -> None:
    at_s = NOW.timestamp()
    collector = Evaluated(900.0, lambda: at_s)
    assert plain(shown(collector)) == {"interval_seconds": 900.0, "failed": 0.0}
    collector.fail()
    assert plain(shown(collector)) == {"interval_seconds": 900.0, "failed": 1.0}
    collector.take(evaluation(), 2.5)
    at_s += 60.0
    found = shown(collector)
    assert labelled(found) == figures_by_hand(evaluation())
    expected = {"age_seconds": 60.0, "duration_seconds": 2.5, "interval_seconds": 900.0}
    assert plain(found) == {**expected, "failed": 0.0}
    collector.fail()
    assert plain(shown(collector)) == {**expected, "failed": 1.0}
    assert labelled(shown(collector)) == labelled(found)


HYPOTHESIS = {
    "product": "cnp",
    "id": "better",
    "claim": "Said by nobody else.",
    "metric": "approval_rate",
    "unit": "share",
    "started": "2026-08-01T00:00:00+00:00",
    "stopped": None,
    "verdict": "ship",
    "because": "goal_reached",
    "day": 9,
    "impact": {"intended": 0.03, "actual": 0.08, "interval": [0.03, None]},
    "looks": [],
}


def test_gauges_tell_of_hypotheses_that_run_and_of_no_claim() -> None:
    stopped = {**HYPOTHESIS, "id": "old", "stopped": "2026-09-01T00:00:00+00:00"}
    damaged = {"product": "cnp", "id": "odd", "error": "is no started hypothesis"}
    collector = Evaluated(900.0, lambda: NOW.timestamp())
    collector.take(evaluation(hypotheses=[HYPOTHESIS, stopped, damaged]))
    registry = CollectorRegistry()
    registry.register(collector)
    text = generate_latest(registry).decode()
    assert "nobody" not in text
    assert labelled(samples(text)) == figures_by_hand(evaluation())
    found = {
        (one.name.removeprefix("gateway_hypothesis_"), *sorted(one.labels.items())): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
        if "hypothesis" in one.name
    }
    better, odd = (("hypothesis", "better"), ("product", "cnp")), ("hypothesis", "odd")
    of = (better[0], ("metric", "approval_rate"), better[1], ("unit", "share"))
    assert found == {
        ("verdict", ("because", "goal_reached"), *better, ("verdict", "ship")): 1.0,
        ("verdict", ("because", "not_judged"), odd, better[1], ("verdict", "error")): 1.0,
        ("day", *better): 9.0,
        ("impact", ("bound", "value"), *of): 0.08,
        ("impact", ("bound", "low"), *of): 0.03,
        ("intended", *of): 0.03,
    }


@pytest.mark.parametrize(
    "broken",
    [
        {"hypotheses": [{**HYPOTHESIS, "impact": None}]},
        {"hypotheses": [3]},
        {"goals": None},
        {"goals": [{}]},
        {"goals": [{**evaluation()["goals"][0], "interval": [1.0]}]},
        {"goals": [{**evaluation()["goals"][0], "value": "much"}]},
        {"goals": [{**evaluation()["goals"][0], "budget": 3}]},
        {"fairness": [{"verdict": "breach"}]},
        {"as_of": "yesterday"},
        {"as_of": 3},
    ],
    ids=str,
)
def test_what_is_not_laid_out_as_an_evaluation_leaves_the_one_before(
    broken: dict[str, Any],
) -> None:
    collector = Evaluated(900.0, lambda: NOW.timestamp())
    collector.take(evaluation())
    with pytest.raises(LakeError):
        collector.take({**evaluation(NOW + timedelta(hours=1)), **broken})
    assert labelled(shown(collector)) == figures_by_hand(evaluation())


# Again and again, each in a process


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """A lake that has something to evaluate; what it says of it, the commands of tests make up."""
    folder = tmp_path / "lake"
    folder.mkdir()
    world.fill(folder, CANARIES)
    return folder


FAKE = """
import json, os, pathlib, sys, time
here = pathlib.Path(sys.argv[1])
with (here / "pids").open("a") as pids:
    print(os.getpid(), os.getpriority(os.PRIO_PROCESS, 0), file=pids)
does = (here / "does").read_text()
if does == "hangs":
    time.sleep(600)
if does == "fails":
    sys.exit(10)
if does == "evaluates":
    text = (here / "evaluation").read_text()
    from datetime import UTC, datetime
    print(json.dumps({**json.loads(text), "as_of": datetime.now(UTC).isoformat()}))
else:
    print(does)
"""


class Stage:
    """A command that does what it is told, in a folder, and the evaluator that runs it."""

    def __init__(self, folder: Path, lake: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.lake = lake
        (folder / "evaluation").write_text(json.dumps(evaluation()))
        self.shown = Evaluated(0.05)
        self.does("evaluates")

    def does(self, what: str) -> None:
        (self.folder / "next").write_text(what)
        (self.folder / "next").rename(self.folder / "does")

    def evaluating(self, **more: Any) -> Evaluating:
        command = [sys.executable, "-c", FAKE, str(self.folder)]
        often = {"every_s": 0.05, "first_s": 0.0, "retry_s": 0.05, **more}
        return Evaluating(str(self.lake), self.shown, command=command, **often)

    @property
    def plain(self) -> dict[str, float]:
        return plain(shown(self.shown))

    @property
    def started(self) -> list[tuple[int, int]]:
        """Return pid and niceness of each that was started."""
        with suppress(FileNotFoundError):
            lines = (self.folder / "pids").read_text().splitlines()
            return [(int(pid), int(nice)) for pid, nice in map(str.split, lines)]
        return []

    @property
    def last(self) -> int:
        return self.started[-1][0]

    def next_one(self) -> int:
        """Wait for one that starts from now on; return its pid."""
        count = len(self.started)
        until(lambda: len(self.started) > count)
        return self.last


@pytest.fixture
def stage(tmp_path: Path, lake: Path) -> Stage:
    return Stage(tmp_path / "stage", lake)


def kept(lake: Path) -> tuple[Kept, ...]:
    place = Lake.at(str(lake))
    return Evaluations(place.filesystem, place.root).kept()


def runs(pid: int) -> bool:
    """Say whether a process runs. One that its parent has not waited for yet does not."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    return False


def test_each_evaluation_is_shown_and_kept_and_comes_from_a_niced_process(stage: Stage) -> None:
    with stage.evaluating():
        until(lambda: len(kept(stage.lake)) >= NEWEST)
    assert labelled(shown(stage.shown)) == figures_by_hand(evaluation())
    assert {nice for _, nice in stage.started} == {19}
    assert len({pid for pid, _ in stage.started}) == len(stage.started)
    assert stage.plain["failed"] == 0.0
    assert 0.0 < stage.plain["duration_seconds"] < 20.0


@pytest.mark.parametrize("fault", ["killed", "hangs", "fails", "no JSON", "{}", ""])
def test_whatever_becomes_of_one_the_last_evaluation_stands_and_it_is_said_once(
    stage: Stage, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    caplog.set_level(logging.INFO)
    with stage.evaluating(limit_s=20.0 if fault != "hangs" else 0.5):
        until(lambda: "age_seconds" in stage.plain)
        stage.does("hangs" if fault == "killed" else fault)
        for _ in range(2):
            pid = stage.next_one()
            if fault == "killed":
                os.kill(pid, signal.SIGKILL)
        until(lambda: stage.plain["failed"] == 1.0)
        until(lambda: not runs(pid))
        before = kept(stage.lake)
        assert labelled(shown(stage.shown)) == figures_by_hand(evaluation())
        stage.next_one()
        assert kept(stage.lake) == before, "nothing of it is kept"
        age_s = stage.plain["age_seconds"]
        said = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
        assert len(said) == 1, "and again after an hour"
        assert "the last evaluation stands" in said[0]
        assert ("SIGKILL" in said[0]) == (fault == "killed")
        assert ("10 (LAKE)" in said[0]) == (fault == "fails")
        assert ("longer than 0.5 s" in said[0]) == (fault == "hangs")
        # It is well again: what hung is killed, so that nothing waits for it.
        stage.does("evaluates")
        if fault == "killed":
            os.kill(stage.last, signal.SIGKILL)
        until(lambda: stage.plain["failed"] == 0.0)
        assert stage.plain["age_seconds"] < age_s + 20.0
        until(lambda: "the lake is evaluated again" in caplog.text)


def test_what_fails_for_long_is_tried_less_often_and_said_by_the_hour(
    stage: Stage, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = stage.evaluating(every_s=900.0, retry_s=60.0)
    waits = [one._failed("why") for _ in range(6)]
    assert waits == [60.0, 120.0, 240.0, 480.0, 900.0, 900.0]
    assert caplog.text.count("was not evaluated") == 1
    hour_later_s = time.monotonic() + evaluating.SAY_S
    monkeypatch.setattr(time, "monotonic", lambda: hour_later_s)
    one._failed("why")
    assert caplog.text.count("was not evaluated") == 2
    assert "7 times in a row" in caplog.text


def test_its_end_ends_the_process_at_once(stage: Stage) -> None:
    stage.does("hangs")
    with stage.evaluating():
        until(lambda: len(stage.started) == 1)
        begun_s = time.monotonic()
    assert time.monotonic() - begun_s < evaluating.END_S
    assert not Path(f"/proc/{stage.last}").exists()
    assert len(stage.started) == 1
    assert stage.plain == {"interval_seconds": 0.05, "failed": 0.0}, "its end is no failure"


def test_a_lake_with_nothing_in_it_is_waited_for_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lake = tmp_path / "lake"
    stage = Stage(tmp_path / "stage", lake)
    looked = []
    with stage.evaluating() as one:
        step = one._step
        one._step = lambda: looked.append(1) or step()  # type: ignore[method-assign]
        until(lambda: len(looked) > 3)
        lake.mkdir()
        world.write_product(lake)
        count = len(looked)
        until(lambda: len(looked) > count + 3)
        assert stage.started == [], "a product has decided nothing yet"
        assert stage.plain["failed"] == 0.0
        world.fill(lake)
        until(lambda: "age_seconds" in stage.plain)
    assert caplog.text == ""


def test_a_lake_that_cannot_be_listed_is_said_and_looked_at_again(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    """A link leads to itself where its folder was: even root cannot look."""
    away = stage.lake.with_name("away")
    stage.lake.rename(away)
    stage.lake.symlink_to(stage.lake)
    with stage.evaluating():
        until(lambda: stage.plain["failed"] == 1.0)
        stage.lake.unlink()
        away.rename(stage.lake)
        until(lambda: stage.plain["failed"] == 0.0 and "age_seconds" in stage.plain)
    assert caplog.text.count("was not evaluated") == 1


def test_one_that_cannot_be_kept_is_shown_all_the_same(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    (stage.lake / "evaluations").touch()
    with stage.evaluating():
        until(lambda: "age_seconds" in stage.plain)
        assert labelled(shown(stage.shown)) == figures_by_hand(evaluation())
        until(lambda: stage.plain["failed"] == 1.0)
        (stage.lake / "evaluations").unlink()
        until(lambda: len(kept(stage.lake)) > 0)
    assert caplog.text.count("was not evaluated") == 1


@pytest.mark.parametrize(("age_s", "comes"), [(10.0, False), (7200.0, True)])
def test_the_last_one_is_shown_at_once_and_the_next_when_it_is_due(
    stage: Stage, age_s: float, comes: bool
) -> None:
    """Who is started again and again does not evaluate each time."""
    place = Lake.at(str(stage.lake))
    before = evaluation(datetime.now(UTC) - timedelta(seconds=age_s))
    Evaluations(place.filesystem, place.root).keep(before)
    stage.does("hangs")
    with stage.evaluating(every_s=3600.0, first_s=0.2):
        until(lambda: "age_seconds" in stage.plain)
        assert 0.0 <= stage.plain["age_seconds"] - age_s < 20.0
        if comes:
            until(lambda: len(stage.started) == 1)
        else:
            with pytest.raises(AssertionError):
                until(lambda: len(stage.started) > 0, 0.6)


# `gateway sidecar`


@contextmanager
def sidecar(tmp_path: Path, lake: Path, every: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    journal = tmp_path / "journal"
    journal.mkdir(exist_ok=True)
    with beside(journal, "--lake", str(lake), "--evaluate", every) as (process, address):
        yield process, address


def child_of(pid: int) -> int | None:
    """Return the evaluator that a sidecar runs; None where it runs none."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (thread / "children").read_text().split()):
            with suppress(FileNotFoundError, ProcessLookupError):
                # Between fork and exec it is still the sidecar's own command line.
                if b"\0evaluate\0" in Path(f"/proc/{child}/cmdline").read_bytes():
                    return child
    return None


def evaluator_of(pid: int) -> int:
    """Wait until a sidecar runs one; return its pid."""
    found: list[int] = []

    def is_there() -> bool:
        child = child_of(pid)
        found.extend([] if child is None else [child])
        return bool(found)

    until(is_there)
    return found[0]


@pytest.mark.slow
def test_a_sidecar_shows_what_is_evaluated_and_no_group_of_customers(
    tmp_path: Path, lake: Path
) -> None:
    """And the next sidecar shows it at once; its evaluator is killed, and nothing notices."""
    with sidecar(tmp_path, lake, "1s") as (process, address):
        until(lambda: "age_seconds" in plain(samples(scraped(address))))
        os.kill(evaluator_of(process.pid), signal.SIGKILL)
        until(lambda: plain(samples(scraped(address)))["failed"] == 1.0)
        text = scraped(address)
        assert "age_seconds" in plain(samples(text))
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == ExitCode.OK
    place = Lake.at(str(lake))
    last = Evaluations(place.filesystem, place.root).last(datetime.now(UTC))
    assert last is not None
    assert labelled(samples(text)) == figures_by_hand(last)
    told = json.dumps(last)
    for canary in CANARIES:
        assert canary in told, "or the search is blind"
        assert canary not in text
    assert "age_band" not in text
    with sidecar(tmp_path, lake, "1h") as (process, address):
        until(lambda: "age_seconds" in plain(samples(scraped(address))))
        text = scraped(address)
        assert labelled(samples(text)) == figures_by_hand(last)
        assert "duration_seconds" not in plain(samples(text)), "it was read back"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_evaluator_has_nothing_of_the_sidecars_and_ends_with_it(
    tmp_path: Path, lake: Path, number: signal.Signals
) -> None:
    with sidecar(tmp_path, lake, "1s") as (process, _):
        child = evaluator_of(process.pid)
        os.kill(child, signal.SIGSTOP)  # in the middle of its work, however fast the machine is
        ours, its = opened_by(process.pid), opened_by(child)
        assert any(one.startswith("socket:") for one in ours)
        assert any(one.endswith("/running") for one in ours)
        shared = {one for one in ours & its if not one.startswith("/dev/")}
        assert len(shared) == 2, f"its stdin's and its stdout's other ends: {shared}"
        assert all(one.startswith("pipe:") for one in shared)
        assert not any(one.startswith("socket:") or "journal" in one for one in its)
        process.send_signal(number)
        process.wait(20)
        if number is signal.SIGTERM:
            assert not Path(f"/proc/{child}").exists()
        else:
            os.kill(child, signal.SIGCONT)
            until(lambda: not runs(child))


@pytest.mark.slow
def test_a_gateway_that_ends_takes_the_evaluator_along(tmp_path: Path, lake: Path) -> None:
    """It is asked through `gateway serve`, and leaves its time at the end to the consumers."""
    folder = catalogue.write_folder(tmp_path / "test")
    ports = ("--http", "127.0.0.1:0", "--feedback", "127.0.0.1:0", "--workers", "1")
    asked = ("--sidecar", *ports, "--lake", str(lake), "--evaluate", "1s")
    with serving(folder, tmp_path / "journal", *asked) as gateway:
        child = evaluator_of(gateway.announced["sidecar"]["pid"])
        os.kill(child, signal.SIGSTOP)
        assert os.getpriority(os.PRIO_PROCESS, child) == 19
        assert os.getsid(child) == os.getsid(gateway.process.pid)
        assert gateway.ended() == ExitCode.OK
        until(lambda: not runs(child))  # a sidecar that took too long was killed


def opened_by(pid: int) -> set[str]:
    found = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found.add(str(link.readlink()))
    return found


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--evaluate", "15m"], "needs a lake"),
        (["--evaluate", "15m", "--lake", "x", "--once"], "goes on"),
        (["--evaluate", "often", "--lake", "x"], "no span of time"),
    ],
)
def test_what_a_sidecar_cannot_be_asked_to_evaluate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], says: str
) -> None:
    assert run(["sidecar", "--journal", str(tmp_path), *options]) == ExitCode.USAGE
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "often_s"),
    [("0", None), ("off", None), ("0s", None), ("15m", 900.0), ("1h", 3600.0), ("0.5s", 0.5)],
)
def test_how_often_is_a_span_of_time_or_never(text: str, often_s: float | None) -> None:
    assert every_s(text) == often_s


def test_a_sidecar_that_is_not_to_evaluate_shows_nothing_of_it(tmp_path: Path, lake: Path) -> None:
    with sidecar(tmp_path, lake, "off") as (process, address):
        assert "evaluation" not in scraped(address)
        assert child_of(process.pid) is None


# `gateway evaluate`


def test_one_that_a_sidecar_started_ends_when_its_stdin_does(lake: Path) -> None:
    with subprocess.Popen(
        [*COMMAND, "evaluate", "--lake", str(lake), "--attached", "--json", "--watch", "1h"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdout.readline()
        assert child.poll() is None
        child.stdin.close()
        assert child.wait(20) == ExitCode.INTERRUPTED


def test_watching_prints_a_line_each_until_ctrl_c(lake: Path) -> None:
    with subprocess.Popen(
        [*COMMAND, "evaluate", "--lake", str(lake), "--watch", "1s", "--json", "--keep"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(2)]
        (lake / "decisions").rename(lake / "away")  # it goes on whatever it finds
        lines.append(child.stdout.readline())
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=20)
    assert child.returncode == ExitCode.INTERRUPTED
    assert said.endswith("Interrupted.\n")
    assert "Traceback" not in said
    times = [evaluation_in(line, "stdout")["as_of"] for line in lines]
    assert times == sorted(set(times))
    assert {one.as_of.isoformat() for one in kept(lake)} >= set(times)


def test_nothing_is_kept_that_was_not_asked_for(lake: Path) -> None:
    assert run(["evaluate", "--lake", str(lake), "--json"]) == ExitCode.OK
    assert [one.name for one in (lake / "evaluations").iterdir()] == [COUNTS]
    past = ["--as-of", "2026-11-01", "--keep"]
    assert run(["evaluate", "--lake", str(lake), *past]) == ExitCode.OK
    assert [one.as_of for one in kept(lake)] == [datetime(2026, 11, 1, tzinfo=UTC)]


@pytest.mark.parametrize(
    "options",
    [
        ["--watch", "5m", "--as-of", "2026-11-01"],
        ["--keep", "--product", "cnp"],
        ["--keep", "--as-of", "2099-01-01"],
        ["--watch", "often"],
    ],
    ids=" ".join,
)
def test_what_contradicts_itself_is_refused(
    lake: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    assert run(["evaluate", "--lake", str(lake), *options]) == ExitCode.USAGE
    assert "Try: " in capsys.readouterr().err
    assert not (lake / "evaluations").exists()
