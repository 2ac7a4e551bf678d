"""What is written comes out of the tail once, in order, with its reply; what is lost is told."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest
from faulty_disk import Clock, FaultyDisk, crash, entries

from gateway.errors import JournalError
from gateway.journal import (
    FOUND_NOBODY,
    Damage,
    Decision,
    Flag,
    Gap,
    Generation,
    Loss,
    Pause,
    Record,
    Refused,
    Replied,
    Reply,
    Scored,
    ScoredCall,
    Writer,
    reader,
    verify,
)
from gateway.journal.frame import encode
from gateway.sidecar.tail import tail as tail_module
from gateway.sidecar.tail.call import Batch, Call, Gone, LateReply, LateScored, Position, Range
from gateway.sidecar.tail.join import Waits
from gateway.sidecar.tail.tail import Tail

BOOT = b"b" * 16
DECISION = Decision(
    Flag(0), 1, 0, 0, 0, 0, 1, 1000, 26_000, 1, 2, 3, 4, 5, 0.5, 0.5, 1.0, 9.0, "", 0, b"q", b"a"
)
ALONE = Generation(0, "cnp", 7, "d7", ("v7",))
BESIDE = Generation(1, "cnp", 8, "d8", ("v8", "v9", "v10"))
SECOND_NS = 1_000_000_000


def opened(directory: Path, boot_id: bytes = BOOT, **options) -> Writer:
    options.setdefault("products", [ALONE, BESIDE])
    return Writer.open(directory, worker=options.pop("worker", 0), boot_id=boot_id, **options)


def drained(tail: Tail, looks: int = 2) -> list[Batch]:
    """Read until `looks` looks in a row found nothing."""
    batches, idle = [], 0
    while idle < looks:
        batch = tail.read()
        idle = 0 if batch else idle + 1
        batches += [batch] if batch else []
    return batches


def calls_of(batches: list[Batch]) -> list[Call]:
    return [call for batch in batches for call in batch.calls]


def asides_of(batches: list[Batch]) -> list[object]:
    found = [aside for batch in batches for aside in batch.asides]
    return [aside.entry if isinstance(aside, Record) else aside for aside in found]


def test_calls_come_with_their_replies_and_asides_beside_them(tmp_path):
    refused = Refused(1000, 5, 3, 0xFFFF, "", ("amount",))
    with opened(tmp_path) as writer:
        first = writer.append([DECISION.encode(), refused.encode(), Pause(1, 2).encode()])
        writer.append([Replied(first, 5000, (10, FOUND_NOBODY)).encode()])
    batches = drained(Tail(tmp_path, clock_ns=Clock()))
    told = [(c.record.sequence, c.generation, c.reply, c.replied_ns) for c in calls_of(batches)]
    assert told == [(1, ALONE, Reply.LEFT, 5010), (2, None, Reply.FOUND_NOBODY, None)]
    assert asides_of(batches) == [Pause(1, 2)]
    assert [one for batch in batches for one in batch.ranges] == [Range(0, BOOT, 1, 5)]


def test_a_call_waits_a_second_for_its_reply_and_a_later_one_is_told_beside(tmp_path):
    clock = Clock(0)
    writer = opened(tmp_path)
    tail = Tail(tmp_path, clock_ns=clock)
    first = writer.append([DECISION.encode()])
    assert drained(tail) == []
    clock.advance(SECOND_NS - 1)
    assert drained(tail) == []
    clock.advance(1)
    (call,) = calls_of(drained(tail))
    assert (call.reply, call.replied_ns) == (Reply.UNKNOWN, None)
    writer.append([Replied(first, 7, (1,)).encode()])
    (late,) = asides_of(drained(tail))
    assert isinstance(late, LateReply)
    assert (late.sequence, late.reply, late.replied_ns) == (1, Reply.LEFT, 8)
    crash(writer)


def test_a_reply_cannot_come_any_more_once_the_next_boot_has_begun(tmp_path):
    writer = opened(tmp_path)
    writer.append([DECISION.encode()])
    tail = Tail(tmp_path, clock_ns=Clock())
    assert drained(tail) == []
    crash(writer)
    assert drained(tail) == []
    with opened(tmp_path, b"c" * 16):
        (call,) = calls_of(drained(tail))
    assert call.reply is Reply.UNKNOWN


def test_scores_beside_are_waited_for_and_a_later_one_is_told_beside(tmp_path):
    clock = Clock(0)
    scored = [ScoredCall(1, 0.1, 0.2, 3), ScoredCall(2, 0.3, 0.4, 1)]
    writer = opened(tmp_path)
    tail = Tail(tmp_path, clock_ns=clock)
    canary = replace(DECISION, product=1, arm=1)
    writer.append([canary.encode(), canary.encode(), DECISION.encode()])
    writer.append([Replied(1, 0, (1, 2, 3)).encode()])
    writer.append([Scored(1, 2, 0, 0, 9, tuple(scored)).encode()])
    writer.append([Scored(1, 0, 0, 0, 9, (scored[0],)).encode()])
    (call,) = calls_of(drained(tail))
    assert call.generation == BESIDE
    assert call.scored == ((0, scored[0]), (2, scored[0]))
    clock.advance(2 * SECOND_NS)
    assert [c.scored for c in calls_of(drained(tail))] == [((2, scored[1]),), ()]
    writer.append([Scored(1, 0, 0, 0, 9, (scored[1],)).encode()])
    (late,) = asides_of(drained(tail))
    assert isinstance(late, LateScored)
    assert (late.arm, late.call) == (0, scored[1])
    crash(writer)


def test_a_backlog_waits_by_its_own_times_not_by_the_clock(tmp_path):
    """The clock stands still; a second of the journal's own time has passed all the same."""
    with opened(tmp_path) as writer:
        writer.append([DECISION.encode()])
        writer.append([replace(DECISION, arrival_ns=2 * SECOND_NS).encode()])
        writer.append([Replied(2, 2 * SECOND_NS, (1,)).encode()])
    tail = Tail(tmp_path, clock_ns=Clock())
    assert [c.reply for c in calls_of(drained(tail))] == [Reply.UNKNOWN, Reply.LEFT]


def test_a_restart_in_mid_segment_knows_the_generations_that_were_announced_before(tmp_path):
    newer = Generation(2, "cnp", 9, "d9", ("v11",))
    writer = opened(tmp_path)
    writer.announce(newer)
    writer.append([Pause(0, 0).encode()])
    tail = Tail(tmp_path, clock_ns=Clock())
    (batch,) = drained(tail)
    first = writer.append([replace(DECISION, product=2).encode()])
    writer.append([Replied(first, 0, (0,)).encode()])
    (call,) = calls_of(drained(Tail(tmp_path, batch.until, clock_ns=Clock())))
    assert call.generation == newer
    crash(writer)


def test_what_came_late_is_told_once_across_a_restart_wherever_that_is(tmp_path):
    """A score that was joined is not told again as late, one that was late is not lost."""
    clock = Clock(0)
    writer = opened(tmp_path)
    beside = replace(DECISION, product=1)
    writer.append([beside.encode(), beside.encode()])
    writer.append([Replied(1, 0, (0, 0)).encode()])
    one, two = ScoredCall(1, 0.1, 0.2, 3), ScoredCall(2, 0.3, 0.4, 1)
    writer.append([Scored(1, 1, 0, 0, 9, (one, two)).encode()])
    writer.append([Scored(1, 2, 0, 0, 9, (one,)).encode()])
    (before,) = drained(Tail(tmp_path, clock_ns=clock))
    assert [call.record.sequence for call in before.calls] == [1]
    writer.append([Scored(1, 2, 0, 0, 9, (replace_score(one), two)).encode()])
    again = Tail(tmp_path, before.until, clock_ns=clock)
    batches = drained(again)
    (late,) = [aside for aside in asides_of(batches) if isinstance(aside, LateScored)]
    assert late.call == replace_score(one)
    (call,) = calls_of(batches)
    assert [arm for arm, _ in call.scored] == [1, 2]
    crash(writer)


def test_a_restart_gives_out_nothing_before_it_has_read_again_what_was_known(tmp_path):
    """Else the next restart would take the score of the first call, long joined, for a late one."""
    beside = replace(DECISION, product=1)
    writer = opened(tmp_path)
    writer.append([beside.encode(), DECISION.encode(), DECISION.encode()])
    writer.append([Replied(1, 0, (0, 0, 0)).encode()])
    for arm in (1, 2):
        writer.append([Scored(1, arm, 0, 0, 9, (ScoredCall(1, 0.1, 0.2, 3),)).encode()])
    first = Tail(tmp_path, clock_ns=Clock(), records_max=1).read()
    assert [arm for arm, _ in first.calls[0].scored] == [1, 2]
    with patch.object(reader, "_LENGTH_MIN", 1), patch.object(tail_module, "_READ_BYTES", 1):
        second = Tail(tmp_path, first.until, clock_ns=Clock(), records_max=1).read()
    batches = drained(Tail(tmp_path, second.until, clock_ns=Clock()))
    assert asides_of([second, *batches]) == []
    assert [c.record.sequence for c in calls_of([second, *batches])] == [2, 3]
    crash(writer)


def replace_score(call: ScoredCall) -> ScoredCall:
    return call._replace(score=0.9)


def filled(writer: Writer, count: int) -> None:
    for _ in range(count):
        first = writer.append([replace(DECISION, request=bytes(100)).encode()])
        writer.append([Replied(first, 0, (0,)).encode()])


def test_segments_that_vanish_before_they_are_read_are_counted(tmp_path):
    writer = opened(tmp_path, segment_bytes=1000)
    filled(writer, 30)
    paths = sorted(tmp_path.glob("*.journal"))
    assert len(paths) > 4
    tail = Tail(tmp_path, clock_ns=Clock(), records_max=1)
    first = tail.read()
    assert first
    start = int(paths[3].name.split("-")[3].partition(".")[0])
    for path in paths[:3]:
        path.unlink()
    again = Tail(tmp_path, first.until, clock_ns=Clock())
    batches = drained(again)
    (gone,) = [aside for aside in asides_of(batches) if isinstance(aside, Gone)]
    after = first.until.marks[0, BOOT].sequence
    assert gone == Gone(0, BOOT, after + 1, start - 1)
    assert min(c.record.sequence for c in calls_of(batches)) >= start
    crash(writer)


def test_a_boot_that_vanished_unread_is_told_of_though_nobody_knows_how_much(tmp_path):
    writer = opened(tmp_path)
    filled(writer, 3)
    tail = Tail(tmp_path, clock_ns=Clock(), records_max=1)
    batch = tail.read()
    crash(writer)
    for path in tmp_path.glob("*.journal"):
        path.unlink()
    with opened(tmp_path, b"c" * 16):
        again = Tail(tmp_path, batch.until, clock_ns=Clock())
        asides = asides_of(drained(again))
    assert Gone(0, BOOT, batch.until.marks[0, BOOT].sequence + 1, None) in asides


def test_a_segment_that_was_seen_and_vanished_unread_is_told_of(tmp_path):
    """The one before it was read to its end, so only the look tells that there was another."""
    writer = opened(tmp_path, segment_bytes=600)
    filled(writer, 9)
    first, *others = sorted(tmp_path.glob("*.journal"))
    tail = Tail(tmp_path, clock_ns=Clock(), records_max=1)
    calls = calls_of([tail.read()])
    crash(writer)
    for path in others:
        path.unlink()
    with opened(tmp_path, b"c" * 16):
        batches = drained(tail)
    calls += calls_of(batches)
    assert [aside for aside in asides_of(batches) if isinstance(aside, Gone)] == [
        Gone(0, BOOT, int(others[0].name.split("-")[3].partition(".")[0]), None)
    ]
    assert 0 < len(calls) < 9
    assert first.exists()


def test_what_a_full_disk_refused_is_no_hole_its_writer_tells_of_it(tmp_path):
    disk, clock = FaultyDisk(), Clock()
    writer = opened(tmp_path, disk=disk, monotonic_ns=clock)
    writer.append([Pause(1, 1).encode()])
    tail = Tail(tmp_path, clock_ns=clock)
    drained(tail)
    disk.fail_write(28)
    disk.cuts.append(5)
    disk.fail_write(28, 10)
    for _ in range(2):
        with pytest.raises(JournalError):
            writer.append([Pause(2, 2).encode()])
    disk.mend()
    clock.advance(SECOND_NS)
    writer.tick()
    writer.append([Pause(3, 3).encode()])
    asides = asides_of(drained(tail))
    assert not [one for one in asides if isinstance(one, Gone)]
    assert Pause(3, 3) in asides
    assert sum(one.count for one in asides if isinstance(one, Gap)) == 2
    crash(writer)


def test_what_was_read_before_it_was_cut_back_is_not_given_out(tmp_path):
    """A disk takes one and a half frames, the tail looks, the writer cuts back and goes on."""
    writer = opened(tmp_path)
    writer.append([Pause(1, 1).encode()])
    tail = Tail(tmp_path, clock_ns=Clock())
    assert asides_of(drained(tail)) == [Pause(1, 1)]
    (path,) = tmp_path.glob("*.journal")
    size = path.stat().st_size
    half = encode(2, Pause(2, 2).encode()) + encode(3, Pause(3, 3).encode())[:9]
    with path.open("ab") as file:
        file.write(half)
    assert tail.read() is None
    with path.open("r+b") as file:
        file.truncate(size)
        file.seek(size)
        gap = Gap(Loss.DISK_FULL, 2, 3, 2, 0, 0, BOOT)
        file.write(encode(4, gap.encode()) + encode(5, Pause(5, 5).encode()))
    assert asides_of(drained(tail)) == [gap, Pause(5, 5)]
    crash(writer)


def test_damage_is_told_and_stepped_over(tmp_path):
    writer = opened(tmp_path)
    writer.append([Pause(i, i).encode() for i in range(5)])
    (path,) = tmp_path.glob("*.journal")
    raw = bytearray(path.read_bytes())
    raw[raw.index(Pause(2, 2).encode()) + 3] ^= 1
    path.write_bytes(raw)
    asides = asides_of(drained(Tail(tmp_path, clock_ns=Clock())))
    (damage,) = [one for one in asides if isinstance(one, Damage)]
    assert damage.missing == (3, 3)
    assert [one.start_ns for one in asides if isinstance(one, Pause)] == [0, 1, 3, 4]
    crash(writer)


def test_a_file_that_is_no_segment_is_told_of_once(tmp_path):
    (tmp_path / "copy-of-a.journal").write_bytes(b"?" * 9)
    tail = Tail(tmp_path, clock_ns=Clock())
    (damage,) = asides_of(drained(tail))
    assert (damage.path.name, damage.length) == ("copy-of-a.journal", 9)


def test_a_frame_in_the_making_is_not_searched_for_frames_in_its_payload(tmp_path):
    writer = opened(tmp_path)
    inner = encode(2, Pause(66, 66).encode())
    outer = encode(1, replace(DECISION, request=inner + bytes(99)).encode())
    (path,) = tmp_path.glob("*.journal")
    whole = path.read_bytes()
    path.write_bytes(whole + outer[:-50])
    tail = Tail(tmp_path, clock_ns=Clock())
    assert drained(tail) == []
    path.write_bytes(whole + outer + encode(2, Replied(1, 0, (0,)).encode()))
    batches = drained(tail)
    assert [c.record.sequence for c in calls_of(batches)] == [1]
    assert asides_of(batches) == []
    crash(writer)


def test_a_backlog_is_read_in_batches_and_held_in_bounds(tmp_path):
    for number in range(3):
        with opened(tmp_path, bytes([number]) * 16, worker=number) as writer:
            filled(writer, 500)
    tail = Tail(tmp_path, clock_ns=Clock(), records_max=64)
    batches = drained(tail)
    assert len(calls_of(batches)) == 1500
    assert max(len(batch.calls) for batch in batches) == 64


def test_a_tail_reads_up_to_where_another_one_is_and_tells_what_that_one_knew(tmp_path):
    clock = Clock(0)
    writer = opened(tmp_path, segment_bytes=3000)
    filled(writer, 10)
    first = writer.append([DECISION.encode()] * 3)
    tail = Tail(tmp_path, clock_ns=clock)
    done = tail.read()
    assert tail.read() is None
    clock.advance(SECOND_NS)
    ahead = tail.read()
    assert len(ahead.calls) == 3
    writer.append([Replied(first, 0, (0, 0, 0)).encode()])
    filled(writer, 20)
    crash(writer)
    batch = Tail(tmp_path, done.until, clock_ns=Clock(0)).up_to(ahead.until)
    assert (batch.ranges, batch.until) == (ahead.ranges, ahead.until)
    assert [c.record.sequence for c in batch.calls] == [c.record.sequence for c in ahead.calls]
    assert {call.reply for call in batch.calls} == {Reply.UNKNOWN}  # the other tells them as late
    assert len(calls_of(drained(tail))) == 20
    assert Tail(tmp_path, ahead.until).up_to(ahead.until) is None


def test_a_consumer_may_do_without_the_scores_beside(tmp_path):
    """Metrics must tell of a call within a second of its reply."""
    writer = opened(tmp_path)
    writer.append([replace(DECISION, product=1).encode()])
    writer.append([Replied(1, 0, (1,)).encode()])
    waiting, hasty = (
        Tail(tmp_path, clock_ns=Clock(), waits=waits) for waits in (Waits(), Waits(scores_ns=0))
    )
    assert calls_of(drained(waiting)) == []
    assert len(calls_of(drained(hasty))) == 1
    crash(writer)


def test_a_segment_that_cannot_be_read_costs_nothing_that_others_gave(tmp_path, monkeypatch):
    """Batches of the other workers come whole, and its own once it can be read."""
    for worker in (0, 1, 2):
        with opened(tmp_path, worker=worker) as writer:
            filled(writer, 3)
    tail = Tail(tmp_path, clock_ns=Clock())
    open_file = Path.open

    def refuses(path: Path, *args: object) -> object:
        if "-001-" in path.name:
            raise PermissionError(errno.EACCES, "Permission denied")
        return open_file(path, *args)

    tail._listing.look()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuses)
        workers = [call.record.segment.name.worker for call in tail.read().calls]
        assert sorted(workers) == [0] * 3 + [2] * 3
        assert "cannot read the segment" in str(tail.failure)
        with pytest.raises(JournalError, match="cannot read the segment"):
            drained(tail)
    assert [call.record.segment.name.worker for call in calls_of(drained(tail))] == [1] * 3
    assert tail.failure is None


def test_a_file_that_was_cut_behind_a_mark_is_read_again_and_told_once(tmp_path):
    """A power cut took the end of a file that was shipped already."""
    writer = opened(tmp_path)
    writer.append([Pause(i, 1).encode() for i in range(5)])
    tail = Tail(tmp_path, clock_ns=Clock())
    assert len(asides_of(drained(tail))) == 5
    crash(writer)
    (path,) = tmp_path.glob("*.journal")
    os.truncate(path, path.stat().st_size - 50)
    with opened(tmp_path, b"c" * 16) as writer:
        writer.append([Pause(9, 1).encode()])
    again = Tail(tmp_path, tail.position, clock_ns=Clock())
    assert asides_of(drained(again)) == [Pause(9, 1)]


def test_a_writer_killed_while_it_rotates_leaves_no_hole(tmp_path):
    """The next file is there, the seal of the one before is not: that sequence was never used."""
    writer = opened(tmp_path)
    filled(writer, 2)
    writer._create_segment(writer.next_sequence + 1)
    crash(writer)
    with opened(tmp_path, b"c" * 16):
        batches = drained(Tail(tmp_path, clock_ns=Clock()))
    assert len(calls_of(batches)) == 2
    assert asides_of(batches) == []
    assert verify(tmp_path).ok


WRITES = """
import os, sys, time
from dataclasses import replace
from pathlib import Path
from gateway.journal import Pause, Replied, Writer
from test_tail import ALONE, BESIDE, DECISION
call = replace(DECISION, request=bytes(300)).encode()
with Writer.open(Path(sys.argv[1]), worker=0, boot_id=os.urandom(16), products=[ALONE, BESIDE],
                 segment_bytes=60_000) as writer:
    print(flush=True)
    carried = []
    while True:
        first = writer.append([*carried, call, call, call]) + len(carried)
        carried = [Replied(first, 0, (1, 2, 3)).encode(), Pause(1, 2).encode()]
        time.sleep(0.0002)
"""


def test_a_tail_beside_writers_that_are_killed_gives_out_what_stands_there_once(tmp_path):
    """Real processes: the tail looks while they write, rotate and die, and restarts itself."""
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    position, calls, asides = Position(), [], []
    for _ in range(4):
        child = subprocess.Popen(
            [sys.executable, "-c", WRITES, str(tmp_path)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
        )
        with child:
            assert child.stdout
            child.stdout.readline()
            tail = Tail(tmp_path, position, records_max=500)
            count = len(calls) + 3000
            while len(calls) < count:
                batch = tail.read()
                if batch:
                    calls += [(*c.record.segment.boot, c.record.sequence) for c in batch.calls]
                    asides += batch.asides
                    position = batch.until
            child.kill()
    with opened(tmp_path):  # the last boot has ended, too
        tail = Tail(tmp_path, position)
        for batch in drained(tail):
            calls += [(*c.record.segment.boot, c.record.sequence) for c in batch.calls]
            asides += batch.asides
    stand = {
        (0, *place): entry
        for place, entry in entries(tmp_path).items()
        if isinstance(entry, Decision | Pause)
    }
    written = {place for place, entry in stand.items() if isinstance(entry, Decision)}
    assert len(calls) == len(set(calls)) == len(written)
    assert set(calls) == written
    assert [one for one in asides if not isinstance(one, Record)] == []
    assert len(asides) == len(stand) - len(written)


def test_a_directory_that_cannot_be_read_is_an_error_and_may_come_back(tmp_path):
    tail = Tail(tmp_path / "journal", Position(), clock_ns=Clock())
    with pytest.raises(JournalError, match="cannot read the journal"):
        tail.read()
    with opened(tmp_path / "journal") as writer:
        filled(writer, 1)
    assert len(calls_of(drained(tail))) == 1
