"""A segment goes when every consumer is past it; else its loss is counted, to the record."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from faulty_disk import Clock, crash
from hypothesis import given, settings
from hypothesis import strategies as st
from lake_calls import read as rows_of
from test_tail import BOOT, SECOND_NS, asides_of, drained, filled, opened

from gateway.cli import sidecar
from gateway.cli.calls import call_at
from gateway.cli.main import run
from gateway.errors import ExitCode, JournalDamaged, JournalError
from gateway.journal import (
    Bound,
    Published,
    Record,
    Shipped,
    decode_shipped,
    load_shipped,
    parse_decision_id,
    read,
    save_shipped,
    segments,
    verify,
)
from gateway.journal import shipped as shipped_module
from gateway.journal.identity import decision_id
from gateway.journal.segment import SegmentName
from gateway.sidecar.lake.lake import Lake
from gateway.sidecar.lake.rows import Rows
from gateway.sidecar.metrics.measures import Measures
from gateway.sidecar.metrics.metrics import Metrics
from gateway.sidecar.tail.call import Batch, Gone
from gateway.sidecar.tail.checkpoint import Checkpoint
from gateway.sidecar.tail.lag import is_past
from gateway.sidecar.tail.retention import Keeping, Retention
from gateway.sidecar.tail.tail import Tail

LIMIT = 64 << 10
NEXT = b"c" * 16
LATER_NS = 2**62


class Reader:
    """A consumer as the sidecar has them: a tail, and a checkpoint that is saved behind it."""

    def __init__(self, journal: Path, name: str, **options: int) -> None:
        self.clock = Clock()
        self.checkpoint = Checkpoint(journal / "sidecar", name)
        done = self.checkpoint.load()
        self.tail = Tail(journal, done, clock_ns=self.clock, **options)

    def reads(self, looks: int = 2) -> list[Batch]:
        batches = drained(self.tail, looks)
        self.saves()
        return batches

    def saves(self) -> None:
        self.checkpoint.save(self.tail.position)


def retention(journal: Path, *running: str, keep_s: float | None = 0.0) -> Retention:
    """Now is far in the future: everything is old enough."""
    return Retention(
        journal, journal / "sidecar", running, keep_s=keep_s, forget_s=1, wall_ns=lambda: LATER_NS
    )


def files(journal: Path) -> list[Path]:
    return sorted(journal.glob("*.journal"))


def present(journal: Path) -> set[tuple[bytes, int]]:
    return {
        (item.segment.name.boot_id, item.sequence)
        for one in segments(journal)
        for item in read(one)
        if isinstance(item, Record)
    }


def lost(metrics: Metrics) -> float:
    """Return `gateway_lost_records_total` over all reasons."""
    return sum(
        sample.value
        for family in metrics.collect()
        for sample in family.samples
        if sample.name == "gateway_lost_records_total"
    )


# What is published


NAMES = st.builds(
    SegmentName,
    st.integers(0, 10**19),
    st.integers(0, 255),
    st.binary(min_size=16, max_size=16),
    st.integers(1, 10**14),
)


@given(
    names=st.lists(st.tuples(NAMES, st.booleans()), max_size=5),
    consumers=st.lists(st.from_regex(r"[a-z]{1,9}", fullmatch=True), max_size=4),
    keep_s=st.none() | st.floats(0, 1e9),
    dropped=st.lists(st.tuples(st.integers(1, 10**12), st.integers(1, 10**12)), max_size=3),
)
def test_what_is_published_is_read(names, consumers, keep_s, dropped):
    past = {(name.worker, name.boot_id): Bound(name, whole) for name, whole in names}
    spans = dict.fromkeys(past, dropped) if dropped else {}
    shipped = Shipped(tuple(consumers), keep_s, past, spans)
    assert decode_shipped(shipped.encode()) == shipped


def test_no_byte_of_it_may_flip_or_be_missing(tmp_path):
    name = SegmentName(7, 0, BOOT, 1)
    shipped = Shipped(("lake",), 7.0, {(0, BOOT): Bound(name, True)}, {(0, BOOT): [(1, 9)]})
    content = shipped.encode()
    for at in range(len(content)):
        for bit in (1, 4, 128):
            altered = bytearray(content)
            altered[at] ^= bit
            with pytest.raises(JournalDamaged):
                decode_shipped(bytes(altered))
        with pytest.raises(JournalDamaged):
            decode_shipped(content[:at])
    path = tmp_path / str(name)
    published = Published(tmp_path)
    assert not published(path)
    save_shipped(tmp_path, shipped)
    assert published(path)
    (tmp_path / "shipped.json").write_bytes(content[:-2])
    assert not published(path)
    save_shipped(tmp_path, shipped)
    assert published(path)
    (tmp_path / "shipped.json").unlink()
    assert not published(path)
    assert load_shipped(tmp_path) == Shipped()


@pytest.mark.parametrize("text", [b"{}", b"[]", b"null", b'{"version": 2}', b"\xff", b"[" * 99_999])
def test_what_is_well_summed_and_no_such_file_is_damaged(text):
    check = shipped_module.value(text)
    with pytest.raises(JournalDamaged):
        decode_shipped(b"%b\n%08x\n" % (text, check))


def test_what_is_published_is_what_every_consumer_is_past(tmp_path):
    writer = opened(tmp_path, segment_bytes=1000)
    filled(writer, 20)
    slow, fast = Reader(tmp_path, "lake", records_max=3), Reader(tmp_path, "metrics")
    for _ in range(4):
        slow.tail.read()
    slow.saves()
    fast.reads()
    shipped = retention(tmp_path, "lake", "metrics").publish()
    position = slow.checkpoint.load()
    passed = [path for path in files(tmp_path) if is_past(position, path)]
    assert 0 < len(passed) < len(files(tmp_path)) - 1
    assert [path for path in files(tmp_path) if shipped.holds(path)] == passed
    assert load_shipped(tmp_path) == shipped
    assert shipped.consumers == ("lake", "metrics")
    crash(writer)


def test_a_consumer_that_never_came_needs_everything(tmp_path):
    writer = opened(tmp_path, segment_bytes=1000)
    filled(writer, 20)
    Reader(tmp_path, "lake").reads()
    assert retention(tmp_path, "lake").publish().past
    assert not retention(tmp_path, "lake", "traces").publish().past
    crash(writer)


def test_a_consumer_that_was_taken_away_counts_until_it_is_forgotten(tmp_path):
    """Its checkpoint's age says so; a damaged one may have to begin again."""
    writer = opened(tmp_path, segment_bytes=1000)
    filled(writer, 20)
    Reader(tmp_path, "lake").reads()
    away = Reader(tmp_path, "traces", records_max=3)
    away.tail.read()
    away.saves()
    saved_ns = away.checkpoint.path.stat().st_mtime_ns

    def passed(age_s: float) -> int:
        state, now_ns = tmp_path / "sidecar", saved_ns + int(age_s * SECOND_NS)
        one = Retention(tmp_path, state, ["lake"], keep_s=0, forget_s=100, wall_ns=lambda: now_ns)
        shipped = one.publish()
        return sum(map(shipped.holds, files(tmp_path)))

    assert passed(99) < passed(101) == len(files(tmp_path)) - 1
    away.checkpoint.path.write_text("{")
    os.utime(away.checkpoint.path, ns=(saved_ns, saved_ns))
    assert passed(99) == 0
    crash(writer)


# The worker, at its limit


def test_a_writer_drops_what_is_shipped_and_counts_nothing(tmp_path):
    reader, keeper = Reader(tmp_path, "lake"), retention(tmp_path, "lake", keep_s=None)
    total = 0
    with opened(tmp_path, max_bytes=LIMIT, shipped=Published(tmp_path)) as writer:
        for _ in range(40):
            filled(writer, 30)
            total += sum(len(batch.calls) for batch in reader.reads())
            keeper.publish()
        assert total == 1200
        assert writer.lost == 0
        assert len(files(tmp_path)) <= 5
    report = verify(tmp_path)
    assert report.ok
    assert sum(report.lost.values()) == 0


def test_a_writer_without_a_limit_or_below_it_never_looks(tmp_path, monkeypatch):
    """Nothing is read on the hot path."""
    looked: list[Path] = []
    monkeypatch.setattr(Published, "__call__", lambda self, path: bool(looked.append(path)))
    with opened(tmp_path / "a", shipped=Published(tmp_path), segment_bytes=1000) as writer:
        filled(writer, 100)
    assert not looked
    with opened(tmp_path / "b", shipped=Published(tmp_path), max_bytes=LIMIT) as writer:
        filled(writer, 30)
        assert not looked
        filled(writer, 300)
    assert looked


def test_what_the_sidecar_deleted_makes_room_and_is_no_loss(tmp_path):
    reader = Reader(tmp_path, "lake")
    with opened(tmp_path, max_bytes=LIMIT, segment_bytes=8 << 10) as writer:  # nobody tells it
        for _ in range(20):
            filled(writer, 40)
            reader.reads()
            retention(tmp_path, "lake").drop()
        assert writer.lost == 0
    report = verify(tmp_path)
    assert report.ok, report.missing
    assert sum(report.lost.values()) == 0


def test_a_long_journal_at_its_limit_verifies_though_its_gaps_were_dropped_too(tmp_path):
    with opened(tmp_path, max_bytes=LIMIT) as writer:
        filled(writer, 3000)
        count = writer.lost
    report = verify(tmp_path)
    assert report.ok, report.missing
    first = min(sequence for _, sequence in present(tmp_path))
    assert count == first - 1 > 2 * LIMIT // 300


# The sidecar, by age


def test_a_segment_goes_when_it_is_shipped_and_old_and_not_before(tmp_path):
    writer = opened(tmp_path, segment_bytes=1000)
    filled(writer, 20)
    Reader(tmp_path, "lake").reads()
    paths = files(tmp_path)
    for age, path in enumerate(reversed(paths)):  # the newest was written now
        os.utime(path, ns=(LATER_NS, LATER_NS - age * SECOND_NS - SECOND_NS // 2))
    assert retention(tmp_path, "lake", keep_s=None).drop() == []
    assert retention(tmp_path, "lake", keep_s=1e6).drop() == []
    assert retention(tmp_path, "lake", "metrics", keep_s=0).drop() == []
    dropped = retention(tmp_path, "lake", keep_s=5).drop()
    assert dropped == paths[:-5]
    assert files(tmp_path) == paths[-5:]
    assert verify(tmp_path).ok
    assert retention(tmp_path, "lake", keep_s=0).drop() == paths[-5:-1]  # one is still written
    assert verify(tmp_path).ok
    with pytest.raises(JournalError, match="was shipped, and its segment deleted"):
        call_at(tmp_path, parse_decision_id(decision_id(BOOT, 0, 1)))
    filled(writer, 1)
    batches = Reader(tmp_path, "lake").reads()
    assert [len(batch.calls) for batch in batches] == [1]
    assert not [aside for aside in asides_of(batches) if isinstance(aside, Gone)]
    crash(writer)


def test_the_last_segment_of_a_boot_goes_once_the_next_boot_has_begun(tmp_path):
    writer = opened(tmp_path)
    filled(writer, 2)
    reader = Reader(tmp_path, "lake")
    reader.reads()
    crash(writer)
    assert retention(tmp_path, "lake").drop() == []
    with opened(tmp_path, NEXT):
        reader.reads()
        assert len(retention(tmp_path, "lake").drop()) == 1
        reader.reads()
        assert not retention(tmp_path, "lake").publish().past


def test_a_sidecar_killed_before_any_of_its_steps_loses_nothing(tmp_path, monkeypatch):
    """What is to go is published first: whoever verifies in between misses nothing."""
    writer = opened(tmp_path, segment_bytes=1000)
    filled(writer, 20)
    Reader(tmp_path, "lake").reads()
    paths = files(tmp_path)

    class Killed(BaseException):
        pass

    plain, left = Path.unlink, 0

    def unlink(path: Path, missing_ok: bool = False) -> None:
        nonlocal left
        if left == 0:
            raise Killed
        left -= 1
        plain(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    for allowed in range(3):
        left = allowed
        with pytest.raises(Killed):
            retention(tmp_path, "lake").drop()
        assert verify(tmp_path).ok
    monkeypatch.undo()
    assert files(tmp_path) == paths[3:]
    retention(tmp_path, "lake").drop()
    assert files(tmp_path) == paths[-1:]
    assert verify(tmp_path).ok
    crash(writer)


def test_what_cannot_be_deleted_is_said_and_tried_again(tmp_path, monkeypatch, caplog):
    with opened(tmp_path, segment_bytes=1000) as writer:
        filled(writer, 20)
    Reader(tmp_path, "lake").reads()
    count = len(files(tmp_path))

    def refuses(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuses)
    with Keeping(retention(tmp_path, "lake"), every_s=1000):
        assert len(files(tmp_path)) == count
        monkeypatch.undo()
    assert files(tmp_path) == []  # a seal says that nobody writes the last
    assert "retention waits" in caplog.text


# What is lost is counted


def shipping(lake: Lake) -> Callable[[Batch], int]:
    rows = Rows(key=b"k" * 32, shape=lambda _: None)
    return lambda batch: lake.ship(batch, rows)


def test_a_sidecar_that_was_away_counts_what_is_missing_to_the_record(tmp_path):
    """Its metrics, and its lake's table of gaps, against the sequences that stand nowhere."""
    journal, lake = tmp_path / "journal", Lake.at(str(tmp_path / "lake"))
    metrics, ship = Metrics(trace_id=lambda _: ""), shipping(lake)

    def reads() -> None:
        for batch in Reader(journal, "metrics").reads():
            metrics.take(batch)
        reader = Reader(journal, "lake")
        for batch in drained(reader.tail):
            ship(batch)
        reader.saves()
        retention(journal, "lake", "metrics", keep_s=None).publish()

    with opened(journal, max_bytes=LIMIT, shipped=Published(journal)) as writer:
        filled(writer, 100)
        reads()
        had = {sequence for _, sequence in present(journal)}
        filled(writer, 2000)  # and the sidecar is away
        writer.tick()
        missing = set(range(1, writer.next_sequence)) - {n for _, n in present(journal)}
        reads()
        assert lost(metrics) > 0
        filled(writer, 20)
        writer.tick()
        reads()
        unread = {n for n in missing if n > max(had)}
        assert len(unread) > 2000
        assert lost(metrics) == writer.lost
        assert len(unread) <= writer.lost <= len(missing)  # what had been read was shipped, too
        told: set[int] = set()
        for row in rows_of(lake, "gaps"):
            if row["count"]:
                told |= set(range(row["first_sequence"], row["last_sequence"] + 1))
        assert len(told) == writer.lost
        gone = [row for row in rows_of(lake, "gaps") if row["reason"] == "gone"]
        assert [(row["first_sequence"], row["last_sequence"]) for row in gone] == [
            (min(unread), max(unread))
        ]
        assert gone[0]["count"] == len(unread)
    assert verify(journal).ok


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(1, 300)),
        st.tuples(
            st.sampled_from(["lake", "metrics", "publish", "delete", "restart", "boot"]), st.just(0)
        ),
    ),
    max_size=25,
)


@settings(max_examples=40, deadline=None)
@given(steps=STEPS)
def test_whatever_is_away_the_lost_are_those_that_were_dropped_unshipped(tmp_path_factory, steps):
    """`restart` is the sidecar's, which counts from its checkpoint on; `boot` is the worker's."""
    journal = tmp_path_factory.mktemp("journal")
    metrics, readers = Metrics(trace_id=lambda _: ""), {}
    boots = (bytes([n] * 16) for n in itertools.count(1))

    def boot():
        return opened(journal, next(boots), max_bytes=LIMIT, shipped=Published(journal))

    def start() -> None:
        readers.update({name: Reader(journal, name) for name in ("lake", "metrics")})

    def reads(name: str) -> None:
        for batch in readers[name].reads():
            if name == "metrics":
                metrics.take(batch)

    start()
    writer, lost_before = boot(), 0
    for step, count in [*steps, ("write", 1), ("lake", 0), ("metrics", 0)]:
        match step:
            case "write":
                filled(writer, count)
                writer.tick()
            case "publish":
                retention(journal, "lake", "metrics", keep_s=None).publish()
            case "delete":
                retention(journal, "lake", "metrics").drop()
            case "restart":
                start()
            case "boot":
                writer.close()
                lost_before += writer.lost
                writer = boot()
            case _:
                reads(step)
    assert lost(metrics) == lost_before + writer.lost
    report = verify(journal)
    assert report.ok, report.missing
    writer.close()


def test_an_earlier_boots_records_are_counted_though_gone_is_told_behind_their_gap(tmp_path):
    metrics = Metrics(trace_id=lambda _: "")
    with opened(tmp_path, max_bytes=LIMIT) as writer:
        filled(writer, 150)
    reader = Reader(tmp_path, "metrics", records_max=10)
    batch = reader.tail.read()
    metrics.take(batch)
    before = writer.lost
    with opened(tmp_path, NEXT, max_bytes=LIMIT) as writer:
        while len([one for one in segments(tmp_path) if one.name.boot_id == BOOT]) > 1:
            filled(writer, 10)
        for batch in reader.reads():
            metrics.take(batch)
        assert lost(metrics) == before + writer.lost > 0


def test_what_was_counted_last_is_saved_though_nothing_follows(tmp_path):
    """Else a gateway that has no calls keeps its journal for the metrics."""
    writer, now_s = opened(tmp_path), 100.0
    checkpoint = Checkpoint(tmp_path / "sidecar", "metrics")
    tail, metrics = Tail(tmp_path, clock_ns=Clock()), Metrics(trace_id=lambda _: "")
    measures = Measures(tail, metrics, checkpoint, lambda: now_s)
    for _ in range(2):
        filled(writer, 1)
        assert measures.step()
    assert checkpoint.load() != measures.position
    now_s += 2
    assert measures.step() is None
    assert checkpoint.load() == measures.position
    crash(writer)


def test_once_ships_all_and_deletes_what_is_kept_for_no_time(tmp_path, monkeypatch):
    """The command itself; without a lake it deletes nothing, whatever --keep says."""
    journal, lake = tmp_path / "journal", tmp_path / "lake"
    writer = opened(journal, segment_bytes=4000)
    filled(writer, 100)
    crash(writer)
    count = len(files(journal))
    assert count > 5
    command = [sys.executable, "-m", "gateway", "sidecar", "--journal", str(journal), "--once"]
    command += ["--http", "127.0.0.1:0", "--keep", "0s"]
    with monkeypatch.context() as patch:
        patch.setattr(sidecar, "ONCE_IDLE_S", 1.8)  # a call may wait a second for its reply
        assert run(command[3:]) == ExitCode.OK
    assert len(files(journal)) == count
    subprocess.run([*command, "--lake", str(lake)], check=True, timeout=60, capture_output=True)
    assert len(files(journal)) == 1  # no seal says that nobody writes it any more
    assert len(rows_of(Lake.at(str(lake)))) == 100
    shown = subprocess.run(
        [sys.executable, "-m", "gateway", "journal", "verify", str(journal), "--json"],
        check=True,
        timeout=60,
        capture_output=True,
    )
    assert json.loads(shown.stdout)["ok"]
    said = subprocess.run([*command[:-1], "soon"], capture_output=True, text=True, timeout=60)
    assert said.returncode == ExitCode.USAGE
    assert "no span of time" in said.stderr
