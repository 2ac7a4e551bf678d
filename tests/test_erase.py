"""`gateway erase`: a subject's rows leave the lake and stay away; the rest is told honestly."""

from __future__ import annotations

import fcntl
import io
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import catalogue
import pytest
from journalled import BOOT, GENERATION, MS, decision, refusal
from lake_calls import on_disk, read

from gateway.cli.main import run
from gateway.errors import ExitCode, JournalDamaged
from gateway.journal import Entry, Replied, Writer, segments
from gateway.sidecar.lake.decisions import pseudonym
from gateway.sidecar.lake.lake import Lake
from gateway.sidecar.lake.rows import Rows
from gateway.sidecar.lake.shipping import Shipping, subject_key
from gateway.sidecar.tail.checkpoint import Checkpoint
from gateway.sidecar.tail.retention import Retention
from gateway.sidecar.tail.tail import Tail

HERE = Path(__file__).parent
CALLS = 140
KEEP_S = 7 * 86_400.0

Said = Callable[..., str]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    """Run `erase`, which must end with `code`; return its stdout, or stderr where it fails.

    It never says a name.
    """

    def run_erase(*arguments: object, code: ExitCode = ExitCode.OK) -> str:
        assert run(["erase", *map(str, arguments)]) == code
        captured = capsys.readouterr()
        assert "customer" not in captured.out + captured.err
        if code == ExitCode.OK:
            return captured.out
        assert "Traceback" not in captured.err
        assert captured.err.count("Error:") == 1
        assert "Try:" in captured.err
        return captured.err

    return run_erase


def asked(n: int) -> Entry:
    """The call of a customer of seven."""
    request = catalogue.request(subject=f"customer-{n % 7}", transaction_id=f"t-{n}")
    now_ns = time.monotonic_ns()
    return decision(
        request=request.SerializeToString(), arrival_ns=now_ns, deadline_ns=now_ns + 25 * MS
    )


def write(writer: Writer, first: int, last: int) -> None:
    for n in range(first, last + 1):
        at = writer.append([asked(n).encode()])
        writer.append([Replied(at, time.monotonic_ns(), (0,)).encode()])


def ship(journal: Path, lake: Path) -> None:
    """What the sidecar does until nothing is new, with its own checkpoint and key."""
    state = journal / "sidecar"
    checkpoint = Checkpoint(state, "lake")
    rows = Rows(key=subject_key(state / "subject.key"), shape=lambda _: None)
    seconds = itertools.count(10**6)  # nobody waits for a reply
    tail = Tail(journal, checkpoint.load(), clock_ns=lambda: next(seconds) * 10**9)
    shipping = Shipping(tail, Lake.at(str(lake)), rows, checkpoint, ship_s=0)
    idle = 0
    while idle < 4:
        idle = 0 if shipping.step() else idle + 1


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    journal = tmp_path / "journal"
    with Writer.open(
        journal, worker=2, boot_id=BOOT, products=(GENERATION,), segment_bytes=16 << 10
    ) as writer:
        write(writer, 1, CALLS)
        writer.append([refusal().encode()])
    return journal


@pytest.fixture
def lake(tmp_path: Path, journal: Path) -> Path:
    ship(journal, tmp_path / "lake")
    return tmp_path / "lake"


def sent(lake: Path) -> list[int]:
    """Return which of the calls stand in the lake."""
    return sorted(int(row["transaction_id"].removeprefix("t-")) for row in read(Lake.at(str(lake))))


def others(*customers: int) -> list[int]:
    return [n for n in range(1, CALLS + 1) if n % 7 not in customers]


def test_a_subject_leaves_the_lake_and_the_journals_requests_are_told(
    journal: Path, lake: Path, said: Said
) -> None:
    where = ("--journal", journal, "--lake", lake)
    told = json.loads(said("customer-3", *where, "--dry-run", "--json"))
    assert (told["rows"], told["files"], told["dry_run"]) == (CALLS // 7, 1, True)
    assert sent(lake) == others()
    assert "Would erase 20 rows in 1 file of" in said("customer-3", *where, "--dry-run")
    retention = Retention(journal, journal / "sidecar", ["lake"], keep_s=KEEP_S, forget_s=KEEP_S)
    retention.publish()
    told = json.loads(said("customer-3", *where, "--json"))
    assert (told["rows"], told["files"], told["dry_run"]) == (20, 1, False)
    assert sent(lake) == others(3)
    held = told["journal"]
    assert (held["records"], held["unshipped"]) == (20, 0)
    there = {segment.path.name: segment.path for segment in segments(journal)}
    assert len(there) >= len(held["segments"]) > 1
    last_ns = max(there[name].stat().st_mtime_ns for name in held["segments"])
    assert held["until"][:19] == time.strftime(
        "%Y-%m-%dT%H:%M:%S", time.gmtime(last_ns // 10**9 + KEEP_S)
    )
    again = said("customer-3", *where)
    assert "Erased 0 rows in 0 files" in again
    assert "still holds 20 requests" in again
    assert "not before" in again
    for path in there.values():
        path.unlink()
    with Writer.open(journal, worker=2, boot_id=b"n" * 16):
        pass
    assert "holds no request of theirs" in said("customer-3", *where)


def test_what_no_sidecar_deletes_is_said(journal: Path, lake: Path, said: Said) -> None:
    where = ("--journal", journal, "--lake", lake)
    assert "No sidecar deletes segments by age" in said("customer-3", *where)
    assert json.loads(said("customer-3", *where, "--json"))["journal"]["until"] is None


def test_many_are_read_from_a_file_or_stdin(
    journal: Path, lake: Path, tmp_path: Path, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = ("--journal", journal, "--lake", lake, "--json")
    names = tmp_path / "names"
    names.write_bytes(b"customer-1\r\n\ncustomer-2\ncustomer-1\nnobody")
    told = json.loads(said("--from", names, *where))
    assert (told["subjects"], told["rows"]) == (3, 40)
    assert sent(lake) == others(1, 2)
    stdin = io.TextIOWrapper(io.BytesIO(b"customer-5\n"))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert json.loads(said("--from", "-", *where))["rows"] == 20
    assert sent(lake) == others(1, 2, 5)


def test_a_sidecar_that_has_lost_its_checkpoint_brings_nobody_back(
    journal: Path, lake: Path, said: Said
) -> None:
    said("customer-3", "--journal", journal, "--lake", lake)
    before = on_disk(Lake.at(str(lake)))
    (journal / "sidecar" / "checkpoints" / "lake.json").unlink()
    ship(journal, lake)
    assert sent(lake) == others(3)
    assert on_disk(Lake.at(str(lake))) == before


def test_what_is_not_shipped_yet_is_told_and_erased_by_the_next_run(
    journal: Path, lake: Path, said: Said
) -> None:
    """The journal's word of a customer comes behind the erasure."""
    where = ("--journal", journal, "--lake", lake)
    with Writer.open(journal, worker=2, boot_id=b"n" * 16, products=(GENERATION,)) as writer:
        write(writer, CALLS + 1, CALLS + 7)
        told = said("customer-3", *where)
        assert "Erased 20 rows" in told
        assert "1 request of them is not in the lake yet" in told
        ship(journal, lake)
        assert sent(lake) == [*others(3), *range(CALLS + 1, CALLS + 8)]
        assert json.loads(said("customer-3", *where, "--json"))["rows"] == 1
        assert sent(lake) == [n for n in range(1, CALLS + 8) if n % 7 != 3]


def test_who_compacts_is_waited_for(journal: Path, lake: Path, said: Said) -> None:
    lock = os.open(lake / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    done = threading.Event()

    def erase() -> None:
        said("customer-3", "--journal", journal, "--lake", lake)
        done.set()

    thread = threading.Thread(target=erase)
    thread.start()
    assert not done.wait(0.5)
    assert sent(lake) == others()
    os.close(lock)
    thread.join(60)
    assert done.is_set()
    assert sent(lake) == others(3)


def test_what_is_shipped_while_it_runs_is_looked_at_too(journal: Path, tmp_path: Path) -> None:
    """The second half comes when the first is being rewritten."""
    ship(journal, tmp_path / "lake")
    lake, key = Lake.at(str(tmp_path / "lake")), subject_key(journal / "sidecar" / "subject.key")
    theirs = pseudonym("customer-3", key)
    with Writer.open(journal, worker=2, boot_id=b"n" * 16, products=(GENERATION,)) as writer:
        write(writer, CALLS + 1, CALLS + 14)
        came = False

        def step(_: str) -> None:
            nonlocal came
            if not came:
                came = True
                ship(journal, tmp_path / "lake")

        lake._step = step
        assert lake.erase(theirs) == (22, 2)
    assert not any(row["subject"] == theirs for row in read(lake))


def test_what_a_killed_process_left_half_written_goes_an_hour_later(
    journal: Path, lake: Path
) -> None:
    (file,) = Lake.at(str(lake)).files("decisions")
    half = Path(file).with_name(f".{Path(file).name}.tmp")
    half.write_bytes(b"customer rows")
    now_ns = half.stat().st_mtime_ns
    for age_s, is_left in ((3599, True), (3601, False)):
        Lake.at(str(lake)).erase("0" * 32, now_ns=now_ns + age_s * 10**9)
        assert half.exists() == is_left


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ((), ExitCode.USAGE, "one of SUBJECT and --from"),
        (("customer-3", "--from", "-"), ExitCode.USAGE, "one of SUBJECT and --from"),
        (("",), ExitCode.USAGE, "names no subject"),
        (("--from", "{tmp}/none"), ExitCode.USAGE, "cannot be read"),
        (("--from", "{tmp}/empty"), ExitCode.USAGE, "names no subject"),
        (("--from", "{tmp}/latin"), ExitCode.USAGE, "no UTF-8"),
        (("customer-3", "--journal", "{tmp}/none"), ExitCode.JOURNAL, "no such folder"),
        (("customer-3", "--journal", "{tmp}"), ExitCode.JOURNAL, "there is no key"),
        (("customer-3", "--lake", "{tmp}/none"), ExitCode.LAKE, "no such folder"),
    ],
    ids=str,
)
def test_wrong_input_erases_nothing_and_makes_nothing(
    arguments: tuple[str, ...],
    code: ExitCode,
    says: str,
    journal: Path,
    lake: Path,
    tmp_path: Path,
    said: Said,
) -> None:
    (tmp_path / "empty").write_bytes(b"\n \n")
    (tmp_path / "latin").write_bytes(b"customer-\xe9\n")
    given = [one.replace("{tmp}", str(tmp_path)) for one in arguments]
    for option, value in (("--journal", journal), ("--lake", lake)):
        given += [] if option in given else [option, str(value)]
    assert says in said(*given, code=code)
    assert sent(lake) == others()
    assert not (tmp_path / "none").exists()
    assert not (tmp_path / "sidecar").exists()


def test_a_key_that_was_cut_or_a_damaged_journal_is_said(
    journal: Path, lake: Path, said: Said
) -> None:
    where = ("--journal", journal, "--lake", lake)
    (segment, *_) = segments(journal)
    content = bytearray(segment.path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    segment.path.write_bytes(content)
    assert "nobody can search" in said("customer-3", *where, code=ExitCode.DAMAGED_JOURNAL)
    assert sent(lake) == others(3)
    key = journal / "sidecar" / "subject.key"
    key.write_bytes(key.read_bytes()[:-1])
    assert "is no key" in said("customer-4", *where, code=ExitCode.DAMAGED_JOURNAL)
    assert sent(lake) == others(3)


def test_no_kill_loses_a_row_or_keeps_one() -> None:
    """SIGKILL before each step; then again, and what is shipped again brings none back."""
    ran = subprocess.run(
        [sys.executable, str(HERE / "erase_killed.py")],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert int(ran.stdout) >= 9  # three files, three steps each


@pytest.mark.parametrize("damaged", [b"", b"abc", bytes(33)])
def test_a_damaged_key_is_an_error_to_who_fills_the_lake_and_not_a_weaker_key(
    tmp_path: Path, damaged: bytes
) -> None:
    path = tmp_path / "sidecar" / "subject.key"
    key = subject_key(path)
    assert subject_key(path) == key
    path.write_bytes(damaged)
    with pytest.raises(JournalDamaged, match="is no key"):
        subject_key(path)
    assert path.read_bytes() == damaged, "a copy of it may be found"
