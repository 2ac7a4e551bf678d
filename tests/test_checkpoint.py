"""A consumer goes on where it was; a segment stays until all are past it; a lag is what it says."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from faulty_disk import Clock, crash
from test_tail import BOOT, DECISION, drained, filled, opened

from gateway.errors import JournalDamaged, JournalError
from gateway.journal import Generation, Pause, Replied, Writer, segment_at
from gateway.sidecar.tail import listing
from gateway.sidecar.tail.call import Mark, Position
from gateway.sidecar.tail.checkpoint import Checkpoint, consumers
from gateway.sidecar.tail.lag import Lag, Lags
from gateway.sidecar.tail.tail import Tail

NAME = f"01700000000000000000-003-{BOOT.hex()}-000000000000001.journal"
MARK = Mark(NAME, 400, 17, 23, True, (Generation(2, "cnp", 9, "d9", ("v9", "v10")),))
POSITION = Position({(3, BOOT): MARK})


def lag(directory: Path, position: Position, *, wall_ns: int) -> Lag:
    """Look at the directory for one consumer, as nobody had looked before."""
    return Lags(directory).of({"one": position}, wall_ns=wall_ns)["one"]


def test_what_was_saved_is_loaded_and_nothing_saved_is_the_begin(tmp_path):
    checkpoint = Checkpoint(tmp_path, "lake")
    assert checkpoint.load() == Position()
    checkpoint.save(POSITION)
    assert Checkpoint(tmp_path, "lake").load() == POSITION
    assert Checkpoint(tmp_path, "spans").load() == Position()
    assert [one.consumer for one in consumers(tmp_path)] == ["lake"]
    assert checkpoint.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "change",
    [
        lambda row: row.update(version=2),
        lambda row: row.pop("done"),
        lambda row: row["done"][0].update(offset=-1),
        lambda row: row["done"][0].update(sequence="7"),
        lambda row: row["done"][0].update(segment="../../etc/passwd"),
        lambda row: row["done"][0].update(worker=4),
        lambda row: row["done"][0].update(boot="00"),
        lambda row: row["done"][0].update(announced=[{}]),
        lambda row: row.update(done=[row["done"]]),
    ],
)
def test_a_checkpoint_that_was_altered_is_an_error_that_says_what_to_try(tmp_path, change):
    checkpoint = Checkpoint(tmp_path, "lake")
    checkpoint.save(POSITION)
    row = json.loads(checkpoint.path.read_text())
    change(row)
    checkpoint.path.write_text(json.dumps(row))
    with pytest.raises(JournalDamaged, match="cannot be read") as raised:
        checkpoint.load()
    assert "Delete it" in raised.value.hint


@pytest.mark.parametrize("text", [b"", b"\xff", b"[]", b"[" * 100_000, b'{"version": 1'])
def test_a_checkpoint_that_is_none_is_an_error(tmp_path, text):
    checkpoint = Checkpoint(tmp_path, "lake")
    checkpoint.path.parent.mkdir()
    checkpoint.path.write_bytes(text)
    with pytest.raises(JournalDamaged):
        checkpoint.load()


def test_a_save_that_the_disk_refuses_leaves_what_was_saved(tmp_path, monkeypatch):
    checkpoint = Checkpoint(tmp_path, "lake")
    checkpoint.save(POSITION)

    def refuses(_fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuses)
        with pytest.raises(JournalError, match="cannot save the checkpoint"):
            checkpoint.save(Position())
    assert checkpoint.load() == POSITION


def test_a_consumer_that_is_killed_while_it_saves_finds_one_or_the_other(tmp_path):
    """A process saves two states in turn until it is killed, ten times over."""
    code = (
        "import sys; from pathlib import Path;"
        "from gateway.sidecar.tail.call import Position;"
        "from gateway.sidecar.tail.checkpoint import Checkpoint;"
        "from test_checkpoint import POSITION;"
        "one = Checkpoint(Path(sys.argv[1]), 'lake');"
        "one.save(POSITION); print(flush=True);"
        "[one.save(p) for _ in iter(int, 1) for p in (Position(), POSITION)]"
    )
    tests = str(Path(__file__).parent)
    path = os.pathsep.join([tests, *sys.path])
    for _ in range(3):
        child = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
        )
        with child:
            assert child.stdout
            child.stdout.readline()
            child.kill()
        assert Checkpoint(tmp_path, "lake").load() in (POSITION, Position())


def test_a_lag_is_what_is_left_in_records_bytes_and_age(tmp_path):
    wall, monotonic = Clock(10_000), Clock(1000)
    writer = opened(tmp_path, segment_bytes=2000, wall_ns=wall, monotonic_ns=monotonic)
    assert lag(tmp_path, Position(), wall_ns=10_500) == Lag(0, 0, 0)
    filled(writer, 30)
    size = sum(path.stat().st_size for path in tmp_path.glob("*.journal"))
    tail = Tail(tmp_path, clock_ns=Clock(), records_max=7)
    before = lag(tmp_path, tail.position, wall_ns=10_500)
    assert before.records == writer.next_sequence - 1
    assert 0 < before.bytes < size
    assert before.age_ns == 500
    while tail.read():
        position = tail.position
        left = lag(tmp_path, position, wall_ns=10_500)
        sequence = position.marks[0, BOOT].sequence
        assert left.records == writer.next_sequence - 1 - sequence
    assert lag(tmp_path, tail.position, wall_ns=10_500) == Lag(0, 0, 0)
    late = replace(DECISION, arrival_ns=4000, request=bytes(500_000))
    writer.append([late.encode()])
    left = lag(tmp_path, tail.position, wall_ns=15_000)
    assert (left.records, left.age_ns) == (2, 2000)  # it filled the segment, which was sealed
    crash(writer)


def test_lags_of_many_are_each_ones_and_a_header_is_read_once(tmp_path, monkeypatch):
    writer = opened(tmp_path, segment_bytes=2000)
    filled(writer, 30)
    tail, positions = Tail(tmp_path, clock_ns=Clock(), records_max=7), {}
    while tail.read():
        positions[str(len(positions))] = tail.position
    looked = []

    def counted(path):
        looked.append(path)
        return segment_at(path)

    monkeypatch.setattr(listing, "segment_at", counted)
    lags = Lags(tmp_path)
    for _ in range(3):
        found = lags.of(positions, wall_ns=0)
    assert sorted(looked) == sorted(tmp_path.glob("*.journal"))
    for name, position in positions.items():
        assert found[name] == lag(tmp_path, position, wall_ns=0)
    assert len({one.records for one in found.values()}) == len(positions) > 3
    crash(writer)


def test_two_consumers_progress_apart(tmp_path):
    """A dead collector does not hold the lake back."""
    with opened(tmp_path) as writer:
        filled(writer, 5)
    lake, spans = Tail(tmp_path, clock_ns=Clock()), Tail(tmp_path, clock_ns=Clock())
    assert sum(len(batch.calls) for batch in drained(lake)) == 5
    assert lag(tmp_path, spans.position, wall_ns=0).records == 11
    assert sum(len(batch.calls) for batch in drained(spans)) == 5


def test_a_checkpoint_carries_what_a_mark_needs_across_a_restart(tmp_path):
    writer: Writer = opened(tmp_path / "journal")
    writer.announce(Generation(2, "cnp", 9, "d9", ("v9",)))
    writer.append([Pause(0, 0).encode()])
    tail = Tail(tmp_path / "journal", clock_ns=Clock())
    drained(tail)
    checkpoint = Checkpoint(tmp_path, "lake")
    checkpoint.save(tail.position)
    first = writer.append([replace(DECISION, product=2).encode()])
    writer.append([Replied(first, 0, (0,)).encode()])
    again = Tail(tmp_path / "journal", checkpoint.load(), clock_ns=Clock())
    (batch,) = drained(again)
    assert [call.generation.generation for call in batch.calls] == [9]
    crash(writer)
