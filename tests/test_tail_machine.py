"""Every record comes out once, in order, whatever writers, disks, retention and the tail do.

The model is what was appended. Hypothesis appends, replies, scores, kills, reopens, fails the disk,
drops segments, and stops the tail anywhere; what it gave out behind its checkpoint is forgotten, as
by a consumer that was killed.
"""

from __future__ import annotations

import gc
import shutil
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from faulty_disk import NO_SPACE, Clock, FaultyDisk, crash
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from test_tail import BESIDE, DECISION, SECOND_NS

from gateway.errors import JournalError
from gateway.journal import (
    Pause,
    Record,
    Replied,
    Reply,
    Scored,
    ScoredCall,
    Writer,
    reader,
)
from gateway.journal.frame import encode
from gateway.journal.segment import parse_name
from gateway.journal.writer import RETRY_NS
from gateway.sidecar.tail import shared, tail
from gateway.sidecar.tail.call import Batch, Call, Gone, LateReply, LateScored, Position
from gateway.sidecar.tail.checkpoint import _decoded, _encoded
from gateway.sidecar.tail.shared import Share, SharedTail
from gateway.sidecar.tail.tail import Tail

Place = tuple[int, bytes, int]
CALL = replace(DECISION, product=BESIDE.index)
WORKERS = st.sampled_from([0, 1])


class TailMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.clock = Clock()
        self.disk = FaultyDisk()
        self.writers: dict[int, Writer] = {}
        self.boots = 0
        self.calls: dict[Place, None] = {}
        self.pauses: dict[Place, None] = {}
        self.refused: set[Place] = set()
        self.replies: dict[Place, Place] = {}  # the call, and where its reply is told
        self.scores: dict[tuple[Place, int], Place] = {}
        self.dropped: set[tuple[int, bytes]] = set()
        self.untold: set[tuple[int, bytes]] = set()
        self.given: list[Batch] = []
        self.saved: list[Batch] = []
        self.position = Position()
        self.patches: list[Any] = []

    @initialize(length=st.sampled_from([1, 1 << 20]))
    def begin(self, length: int) -> None:
        """Read a frame or a segment at a time."""
        self.patch(reader, "_LENGTH_MIN", length)
        self.patch(tail, "_READ_BYTES", length)
        self.restart()

    def patch(self, module: object, name: str, value: int) -> None:
        self.patches.append(patch.object(module, name, value))
        self.patches[-1].start()

    @rule(worker=WORKERS)
    def open(self, worker: int) -> None:
        if worker in self.writers:
            return
        self.boots += 1
        try:
            self.writers[worker] = Writer.open(
                self.directory,
                worker=worker,
                boot_id=self.boots.to_bytes(16, "big"),
                products=[BESIDE],
                segment_bytes=1200,
                wall_ns=self.clock,
                monotonic_ns=self.clock,
                disk=self.disk,
            )
        except JournalError:
            self.disk.mend()

    def appended(self, worker: int, payloads: list[bytes]) -> list[Place]:
        """Append; return where the payloads stand, nothing where they were refused."""
        writer = self.writers[worker]
        first = writer.next_sequence
        places = [(worker, writer.boot_id, first + i) for i in range(len(payloads))]
        try:
            writer.append(payloads)
        except JournalError:
            self.refused.update(places)
            return []
        return places

    @rule(worker=WORKERS, count=st.integers(1, 4), pauses=st.integers(0, 2))
    def call(self, worker: int, count: int, pauses: int) -> None:
        self.open(worker)
        if worker in self.writers:
            call = replace(CALL, arrival_ns=self.clock())
            payloads = [call.encode()] * count + [Pause(1, 2).encode()] * pauses
            places = self.appended(worker, payloads)
            self.calls |= dict.fromkeys(places[:count])
            self.pauses |= dict.fromkeys(places[count:])

    def open_calls(self, worker: int) -> list[Place]:
        writer = self.writers.get(worker)
        return [one for one in self.calls if writer and one[:2] == (worker, writer.boot_id)]

    @rule(worker=WORKERS)
    def serve(self, worker: int) -> None:
        """What is usual: calls with their replies, and the tail looks."""
        self.call(worker, 3, 0)
        for _ in range(3):
            self.reply(worker)
        self.score(worker, 1, 3)
        self.read(1)

    @rule(worker=WORKERS)
    def reply(self, worker: int) -> None:
        for call in self.open_calls(worker):
            if call not in self.replies:
                told = self.appended(worker, [Replied(call[2], self.clock(), (call[2],)).encode()])
                if told:
                    self.replies[call] = told[0]
                return

    @rule(worker=WORKERS, arm=st.sampled_from([1, 2]), count=st.integers(1, 3))
    def score(self, worker: int, arm: int, count: int) -> None:
        wanted = [one for one in self.open_calls(worker) if (one, arm) not in self.scores][:count]
        if wanted:
            rows = tuple(ScoredCall(one[2], 0.5, 0.5, 1) for one in wanted)
            for told in self.appended(worker, [Scored(1, arm, 0, 0, 1, rows).encode()]):
                self.scores |= {(one, arm): told for one in wanted}

    @rule(ns=st.sampled_from([RETRY_NS, SECOND_NS, 2 * SECOND_NS]))
    def later(self, ns: int) -> None:
        self.clock.advance(ns)
        for writer in self.writers.values():
            writer.tick()

    @rule(after_bytes=st.integers(0, 400))
    def disk_is_full(self, after_bytes: int) -> None:
        self.disk.fail_write(NO_SPACE, after_bytes)

    @rule(worker=WORKERS, torn=st.integers(0, 90), rotates=st.booleans())
    def kill(self, worker: int, torn: int, rotates: bool) -> None:
        writer = self.writers.pop(worker, None)
        if writer:
            if writer._losses.pending:
                self.untold.add((worker, writer.boot_id))
            segment = writer._chain.segment
            half = encode(writer.next_sequence, CALL.encode())[:torn]
            if rotates:
                with suppress(JournalError):
                    writer._create_segment(writer.next_sequence + 1)
            crash(writer)
            if segment:
                with segment.path.open("ab") as file:
                    file.write(half)

    @rule(worker=WORKERS)
    def close(self, worker: int) -> None:
        writer = self.writers.pop(worker, None)
        if writer:
            self.disk.mend()
            writer.close()

    @rule(number=st.integers(0, 3))
    def drop(self, number: int) -> None:
        """Retention takes one of the oldest segments that are not written any more."""
        held = {
            writer._chain.segment.path for writer in self.writers.values() if writer._chain.segment
        }
        closed = [path for path in sorted(self.directory.glob("*.journal")) if path not in held]
        for path in closed[number : number + 1]:
            name = parse_name(path.name)
            self.dropped.add((name.worker, name.boot_id))
            path.unlink()

    @rule(times=st.integers(1, 4))
    def read(self, times: int) -> None:
        for _ in range(times):
            batch = self.tail.read()
            if batch:
                self.given.append(batch)

    @rule()
    def save(self) -> None:
        """The consumer has shipped what it was given; the position goes through its file."""
        self.position = _decoded(_encoded(self.tail.position))
        self.saved = list(self.given)

    @rule(records_max=st.sampled_from([1, 3, 4096]), saves=st.booleans())
    def restart(self, records_max: int = 3, saves: bool = False) -> None:
        if saves:
            self.save()
        self.given = list(self.saved)
        self.tail = Tail(
            self.directory, self.position, clock_ns=self.clock, records_max=records_max
        )

    @rule(worker=WORKERS, batches=st.integers(1, 3))
    def hand_over(self, worker: int, batches: int) -> None:
        """A tail that is behind reads up to another one, which goes on in its place."""
        self.restart(saves=True)
        ahead = self.tail
        for _ in range(batches):
            ahead.read()
        self.call(worker, 2, 1)
        self.reply(worker)
        self.restart()
        until = ahead.position
        batch = self.tail.up_to(until)
        if batch:
            assert batch.until == until
            self.given.append(batch)
            self.tail = ahead
        else:
            self.restart()

    @invariant()
    def each_call_came_once_and_in_order(self) -> None:
        last: dict[tuple[int, bytes], int] = {}
        for batch in self.given:
            for call in batch.calls:
                *boot, sequence = place(call)
                assert last.get(tuple(boot), 0) < sequence
                last[tuple(boot)] = sequence
                assert place(call) in self.calls
                assert place(call) not in self.refused

    def drained(self) -> None:
        """Let everything end, and read all of it."""
        for worker in (0, 1):
            self.close(worker)
            self.open(worker)
            self.close(worker)
        idle = 0
        while idle < 3:
            self.clock.advance(2 * SECOND_NS)
            batch = self.tail.read()
            idle = 0 if batch else idle + 1
            self.given += [batch] if batch else []

    def teardown(self) -> None:
        try:
            self.disk.mend()
            self.drained()
            self.each_call_came_once_and_in_order()
            self.nothing_is_missing()
        finally:
            for one in self.patches:
                one.stop()
            for writer in self.writers.values():
                crash(writer)
            shutil.rmtree(self.directory)

    def nothing_is_missing(self) -> None:
        calls = {place(one): one for batch in self.given for one in batch.calls}
        asides = [one for batch in self.given for one in batch.asides]
        pauses = [p for one in asides if isinstance(one, Record) for p in paused(one)]
        gone = [one for one in asides if isinstance(one, Gone)]
        ends = {one[:2]: one.last_sequence for batch in self.given for one in batch.ranges}
        assert len(pauses) == len(set(pauses))
        for wanted, found in ((self.calls, calls.keys()), (self.pauses, set(pauses))):
            assert found <= wanted.keys()
            for missing in wanted.keys() - found:
                assert missing[:2] in self.dropped, missing
                # Nobody knows of the end of a boot that was dropped before a tail ever saw it.
                assert is_gone(missing, gone) or missing[2] > ends.get(missing[:2], 0), missing
            assert not any(is_gone(one, gone) for one in found)
        for one in gone:
            boot = (one.worker, one.boot_id)
            assert boot in self.dropped | self.untold
        self.replies_and_scores_came_once(calls, asides, gone)

    def replies_and_scores_came_once(self, calls, asides, gone) -> None:
        late = [one for one in asides if isinstance(one, LateReply)]
        told = [(*one.record.segment.boot, one.sequence) for one in late]
        told += [place for place, one in calls.items() if one.reply is Reply.LEFT]
        assert len(told) == len(set(told))
        for call, at in self.replies.items():
            assert (call in told) == (call in calls and not is_gone(at, gone)) or at[
                :2
            ] in self.dropped
        scored = [
            ((*one.record.segment.boot, one.call.sequence), one.arm)
            for one in asides
            if isinstance(one, LateScored)
        ]
        scored += [(place, arm) for place, one in calls.items() for arm, _ in one.scored]
        assert len(scored) == len(set(scored))
        for (call, arm), at in self.scores.items():
            assert ((call, arm) in scored) or at[:2] in self.dropped, (call, arm, at)


def place(call: Call) -> Place:
    return (*call.record.segment.boot, call.record.sequence)


def paused(record: Record) -> list[Place]:
    is_pause = isinstance(record.entry, Pause)
    return [(*record.segment.boot, record.sequence)] if is_pause else []


def is_gone(at: Place, gone: list[Gone]) -> bool:
    worker, boot_id, sequence = at
    return any(
        (one.worker, one.boot_id) == (worker, boot_id)
        and one.first_sequence <= sequence
        and (one.last_sequence is None or sequence <= one.last_sequence)
        for one in gone
    )


class SharedMachine(TailMachine):
    """The same of a consumer that shares its reading with another one, at another pace."""

    @initialize(
        length=st.sampled_from([1, 1 << 20]),
        calls=st.sampled_from([1, 5, 1 << 20]),
        near=st.sampled_from([2, 1 << 20]),
    )
    def begin(self, length: int, calls: int = 1, near: int = 1 << 20) -> None:
        """Let go early, or late."""
        self.patch(shared, "HELD_CALLS_MAX", calls)
        self.patch(shared, "NEAR_RECORDS", near)
        super().begin(length)

    @rule(
        records_max=st.sampled_from([1, 3, 4096]),
        saves=st.booleans(),
        first=st.booleans(),
        begins=st.booleans(),
    )
    def restart(
        self, records_max: int = 3, saves: bool = False, first: bool = True, begins: bool = False
    ) -> None:
        """`first`: the common reading begins where we are. `begins`: the other's at the begin."""
        if saves:
            self.save()
        self.given = list(self.saved)
        common = SharedTail(
            lambda at: Tail(self.directory, at, clock_ns=self.clock, records_max=records_max)
        )
        theirs = Position() if begins else self.position
        if first:
            self.tail = common.share(self.position)
            self.other = common.share(theirs)
        else:
            self.other = common.share(theirs)
            self.tail = common.share(self.position)

    @rule(times=st.integers(1, 4))
    def the_other_reads(self, times: int) -> None:
        for _ in range(times):
            self.other.read()

    @rule(calls_max=st.sampled_from([1, 3, 4096]))
    def reads_some(self, calls_max: int) -> None:
        batch = self.tail.read(calls_max)
        if batch:
            self.given.append(batch)

    @rule()
    def hand_over(self) -> None:
        """Stands for nothing here."""


def test_a_consumer_that_keeps_up_reads_nothing_by_itself(tmp_path: Path) -> None:
    """Three consumers, one journal: it is read once; who was behind comes back."""
    clock, opened = Clock(), []

    def tail_at(position: Position) -> Tail:
        opened.append(Tail(tmp_path, position, clock_ns=clock, records_max=4))
        return opened[-1]

    common = SharedTail(tail_at)
    spans, rows, counts = (common.share(Position()) for _ in range(3))
    given: dict[str, list[int]] = {"spans": [], "rows": [], "counts": []}

    def take(name: str, share: Share) -> None:
        while batch := share.read():
            given[name] += [call.record.sequence for call in batch.calls]

    with (
        patch.object(shared, "HELD_CALLS_MAX", 8),
        Writer.open(tmp_path, worker=0, boot_id=b"b" * 16, products=[BESIDE]) as writer,
    ):
        for turn in range(40):
            first = writer.append([replace(CALL, stand_in=1).encode()] * 2)
            writer.append([Replied(first, clock(), (first, first)).encode()])
            take("rows", rows)
            take("counts", counts)
            if turn == 30:
                assert not spans.number or spans.number < rows.number
                assert len(opened) == 1
            if turn > 30:
                take("spans", spans)
    assert given["spans"] == given["rows"] == given["counts"]
    assert len(given["spans"]) == 80
    assert spans.is_shared
    assert rows.is_shared
    assert len(opened) > 1


def test_a_consumer_that_hangs_lets_the_others_hold_no_more_than_they_need(
    tmp_path: Path,
) -> None:
    """However small the batches are: each has a mark for every boot."""
    clock = Clock()
    common = SharedTail(lambda position: Tail(tmp_path, position, clock_ns=clock))
    hung, rows, counts = (common.share(Position()) for _ in range(3))

    def held() -> int:
        gc.collect()
        return sum(isinstance(one, Batch) for one in gc.get_objects())

    before, most, given = held(), 0, 0
    with (
        patch.object(shared, "HELD_BATCHES_MAX", 8),
        Writer.open(tmp_path, worker=0, boot_id=b"b" * 16, products=[BESIDE]) as writer,
    ):
        for _ in range(30):
            first = writer.append([replace(CALL, stand_in=1).encode()])
            writer.append([Replied(first, clock(), (first,)).encode()])
            for share in (rows, counts):
                while batch := share.read():
                    given += len(batch.calls)
            most = max(most, held() - before)
        assert given == 2 * 30
        assert most <= 8
        assert held() - before <= 1, "the others have had it all"
        while batch := hung.read():
            given += len(batch.calls)
        assert given == 3 * 30


@pytest.mark.parametrize("is_shared", [True, False])
def test_a_reading_that_fails_midway_begins_again_where_it_was(
    tmp_path: Path, is_shared: bool
) -> None:
    """Memory runs out, say, when calls were taken out of what waits and are in no batch yet."""
    common = SharedTail(lambda position: Tail(tmp_path, position, clock_ns=Clock()))
    share, other = common.share(Position()), common.share(Position())
    with Writer.open(tmp_path, worker=0, boot_id=b"b" * 16, products=[BESIDE]) as writer:
        for _ in range(3):
            first = writer.append([replace(CALL, stand_in=1).encode()])
            writer.append([Replied(first, 0, (first,)).encode()])
    if not is_shared:
        share.number = None
        with patch.object(shared, "NEAR_RECORDS", -1):
            assert_fails_once_and_loses_nothing(share)
    else:
        assert_fails_once_and_loses_nothing(share)
        assert len(other.read().calls) == 3


def assert_fails_once_and_loses_nothing(share: Share) -> None:
    whole = Tail._batch

    def fails(tail: Tail, building: Any) -> Any:
        if building.count:
            raise MemoryError
        return whole(tail, building)

    with patch.object(Tail, "_batch", fails), pytest.raises(MemoryError):
        share.read()
    batch = share.read()
    assert batch is not None
    assert len(batch.calls) == 3


TestSharedMachine = SharedMachine.TestCase
TestSharedMachine.settings = settings(max_examples=60, stateful_step_count=40)
TestTailMachine = TailMachine.TestCase
TestTailMachine.settings = settings(max_examples=60, stateful_step_count=40)
