"""`gateway journal verify` and `cat`: what is there, what is damaged, and how it reads."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import catalogue
import pytest
from rich.console import Console

from gateway.cli import terms
from gateway.cli.main import run
from gateway.errors import ExitCode
from gateway.journal import (
    Decision,
    Entry,
    Flag,
    Gap,
    Generation,
    Loss,
    Mode,
    Pause,
    Refused,
    Replied,
    Writer,
    decision_id,
)
from gateway.v1.decision_pb2 import APPROVE, DECLINE, DecideResponse

CAT = [sys.executable, "-m", "gateway", "journal", "cat"]
BOOT = bytes(range(16))
MS = 1_000_000


def decision(**changes: object) -> Decision:
    values: dict[str, object] = {
        "flags": Flag(0),
        "action": APPROVE,
        "second_best": DECLINE,
        "stand_in": 0,
        "product": 0,
        "generation": 3,
        "batch_size": 1,
        "arrival_ns": 10 * MS,
        "deadline_ns": 35 * MS,
        "admit_after_ns": 1000,
        "encode_after_ns": 2000,
        "infer_after_ns": 3000,
        "decide_after_ns": 4000,
        "record_after_ns": 340_000,
        "score": 0.5,
        "probability": 0.25,
        "propensity": 1.0,
        "margin": 12.0,
        "traceparent": "",
        "arm": 0,
        "request": catalogue.request().SerializeToString(),
        "response": DecideResponse(action=APPROVE).SerializeToString(),
    }
    return Decision(**{**values, **changes})  # type: ignore[arg-type]


EVERY_KIND: tuple[Entry, ...] = (
    decision(),
    Replied(1, 11 * MS, (0,)),
    decision(stand_in=1, probability=float("nan"), score=float("nan")),
    Refused(10 * MS, 900_000, 3, 0, "", ("amount", "features[colour]")),
    Gap(Loss.DISK_FULL, 8, 9, 2, 1, 0, BOOT),
    Pause(1 * MS, 30 * MS),
    Generation(0, "test", 4, "ab" * 32, ("v1",)),
)


def write(journal: Path, entries: Iterable[Entry]) -> Path:
    """Write a journal of one product, generation 3 of `test`."""
    served = Generation(index=0, product="test", generation=3, digest="00" * 32, arms=("v1",))
    with Writer.open(
        journal, worker=0, boot_id=BOOT, products=(served,), mode=Mode.PROCESS
    ) as writer:
        writer.append([entry.encode() for entry in entries])
    return journal


def damage(journal: Path) -> None:
    (segment,) = journal.glob("*.journal")
    content = bytearray(segment.read_bytes())
    content[len(content) // 2] ^= 0xFF
    segment.write_bytes(content)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return write(tmp_path / "journal", EVERY_KIND)


@pytest.mark.parametrize("verb", ["verify", "cat"])
@pytest.mark.parametrize(
    ("place", "says"), [("absent", "no such folder"), ("file", "folder"), ("empty", "no segments")]
)
def test_what_is_no_journal_is_named(
    verb: str, place: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "empty").mkdir()
    assert run(["journal", verb, str(tmp_path / place)]) == ExitCode.JOURNAL
    captured = capsys.readouterr()
    assert captured.out == ""
    assert str(tmp_path / place) in captured.err
    assert says in captured.err
    assert "Try:" in captured.err


def test_every_kind_of_entry_has_a_row_and_an_object(
    journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["journal", "cat", str(journal)]) == ExitCode.OK
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.startswith("time (UTC)")
    assert run(["journal", "cat", str(journal), "--json"]) == ExitCode.OK
    objects = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == len(objects)
    kinds = {one["kind"] for one in objects}
    assert kinds == {"decision", "refused", "gap", "pause", "generation"}
    first = next(line for line in lines if decision_id(BOOT, 0, 1) in line)
    assert first.split()[1:] == ["approve", "25.00%", "340", "µs", decision_id(BOOT, 0, 1), "test"]
    stood_in = next(line for line in lines if decision_id(BOOT, 0, 3) in line)
    assert "stood in: deadline" in stood_in
    assert "%" not in stood_in
    refused = next(line for line in lines if "refused" in line)
    assert "amount, features[colour]" in refused


def test_features_are_shown_only_when_asked_for(
    journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for more, there in (((), False), (("--features",), True)):
        assert run(["journal", "cat", str(journal), "--json", *more]) == ExitCode.OK
        first = json.loads(capsys.readouterr().out.splitlines()[0])
        assert ("features" in first["request"]) is there


@pytest.mark.parametrize("wanted", ["0", "-1", "many"])
def test_last_must_be_a_count(
    wanted: str, journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["journal", "cat", str(journal), "--last", wanted]) == ExitCode.USAGE
    assert "--last" in capsys.readouterr().err


def test_last_are_the_latest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = write(tmp_path / "journal", [decision()] * 30)
    assert run(["journal", "cat", str(journal), "--last", "2"]) == ExitCode.OK
    _, *lines = capsys.readouterr().out.splitlines()
    assert [line.split()[5] for line in lines] == [decision_id(BOOT, 0, n) for n in (29, 30)]


def test_no_row_is_folded_on_a_terminal_of_80_columns(
    journal: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What does not fit is cut at the edge; the decision id always fits."""
    monkeypatch.setattr(terms, "out", Console(width=80, force_terminal=True))
    assert run(["journal", "cat", str(journal)]) == ExitCode.OK
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert any(decision_id(BOOT, 0, 1) in line for line in lines)


@pytest.mark.parametrize("verb", ["verify", "cat"])
def test_damage_is_exit_code_8_and_the_rest_is_still_shown(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = write(tmp_path / "journal", [decision()] * 20)
    damage(journal)
    for more in ((), ("--json",)):
        assert run(["journal", verb, str(journal), *more]) == ExitCode.DAMAGED_JOURNAL
        captured = capsys.readouterr()
        assert "damage" in captured.out.lower()
        assert captured.err.count("Error:") == 1
        assert "Try: gateway journal" in captured.err
        if verb == "verify" and more:
            report = json.loads(captured.out)
            assert not report["ok"]
            assert report["entries"]["decision"] == 19
        if verb == "cat" and more:
            kinds = [json.loads(line)["kind"] for line in captured.out.splitlines()]
            assert sorted(kinds) == ["damage"] + ["decision"] * 19


def test_a_torn_tail_is_no_damage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The writer was killed in the middle of a frame: its seal and half an entry are missing."""
    journal = write(tmp_path / "journal", [decision()] * 3)
    (segment,) = journal.glob("*.journal")
    segment.write_bytes(segment.read_bytes()[:-60])
    assert run(["journal", "verify", str(journal)]) == ExitCode.OK
    assert "torn tail" in capsys.readouterr().out
    assert run(["journal", "cat", str(journal)]) == ExitCode.OK
    assert "torn" in capsys.readouterr().out


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More rows than a pipe holds."""
    return write(tmp_path_factory.mktemp("large") / "journal", [decision()] * 3000)


def reading(journal: Path, *more: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*CAT, str(journal), *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_rows_come_before_the_journal_ends_and_a_reader_may_leave(
    large: Path, more: tuple[str, ...]
) -> None:
    with reading(large, *more) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.readline()
        child.stdout.close()
        assert child.wait(60) == ExitCode.OK
        assert child.stderr.read() == b""


def test_ctrl_c_in_the_middle_of_cat(large: Path) -> None:
    with reading(large) as child:
        assert child.stdout is not None
        assert child.stdout.readline()
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=20)
        assert child.returncode == ExitCode.INTERRUPTED
        assert said == b"Interrupted.\n"


@pytest.mark.parametrize("verb", ["verify", "cat"])
def test_ctrl_c_while_a_slow_disk_is_read(verb: str, journal: Path) -> None:
    """A pipe in a segment's place blocks the reader until the test lets it in."""
    (segment,) = journal.glob("*.journal")
    segment.unlink()
    os.mkfifo(segment)
    with subprocess.Popen(
        [*CAT[:-1], verb, str(journal)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        with segment.open("wb"):
            child.send_signal(signal.SIGINT)
            out, said = child.communicate(timeout=20)
        assert child.returncode == ExitCode.INTERRUPTED
        assert (out, said) == (b"", b"Interrupted.\n")
