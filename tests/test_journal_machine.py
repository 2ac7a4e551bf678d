"""Nothing acknowledged is ever lost, and every loss is counted, in whatever order things fail.

The model is a dictionary. Hypothesis appends, kills the writer, tears tails, reopens, and lets the
disk fail; after each step everything is read back and compared.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from faulty_disk import IO_ERROR, NO_SPACE, Clock, FaultyDisk, crash, entries
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from gateway.errors import JournalError
from gateway.journal import Entry, Gap, Generation, Mode, Pause, Sealed, Writer, verify
from gateway.journal.frame import encode
from gateway.journal.writer import RETRY_NS

Place = tuple[bytes, int]


def places(entry: Entry) -> set[Place]:
    """What a GAP entry tells of; nothing for another one."""
    if not isinstance(entry, Gap):
        return set()
    told = range(entry.first_sequence, entry.last_sequence + 1)
    return {(entry.boot_id, sequence) for sequence in told}


class JournalMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.disk = FaultyDisk()
        self.clock = Clock()
        self.writer: Writer | None = None
        self.boots = 0
        self.number = 0
        self.acknowledged: dict[Place, Pause] = {}
        self.refused: dict[Place, Pause] = {}
        self.untold: set[Place] = set()  # lost, and the writer was killed before it could tell

    @initialize(mode=st.sampled_from([Mode.PROCESS, Mode.POWER]))
    def begin(self, mode: Mode) -> None:
        self.mode = mode
        self.open()

    @precondition(lambda self: self.writer is None)
    @rule()
    def open(self) -> None:
        self.boots += 1
        self.boot_id = self.boots.to_bytes(16, "big")
        try:
            self.writer = Writer.open(
                self.directory,
                worker=0,
                boot_id=self.boot_id,
                products=[Generation(0, "cnp", self.boots, "d")],
                mode=self.mode,
                segment_bytes=400,
                wall_ns=self.clock,
                monotonic_ns=self.clock,
                disk=self.disk,
            )
        except JournalError:
            self.disk.mend()

    @precondition(lambda self: self.writer is not None)
    @rule(count=st.integers(1, 4))
    def append(self, count: int) -> None:
        first = self.writer.next_sequence
        pauses = [Pause(self.number + i, i) for i in range(count)]
        self.number += count
        wanted = {(self.boot_id, first + i): pause for i, pause in enumerate(pauses)}
        try:
            assert self.writer.append([pause.encode() for pause in pauses]) == first
        except JournalError:
            self.refused |= wanted
        else:
            self.acknowledged |= wanted

    @precondition(lambda self: self.writer is not None)
    @rule(later_ns=st.sampled_from([0, RETRY_NS]))
    def tick(self, later_ns: int) -> None:
        self.clock.advance(later_ns)
        self.writer.tick()

    @rule(error=st.sampled_from([NO_SPACE, IO_ERROR]), after_bytes=st.integers(0, 120))
    def write_fails(self, error: int, after_bytes: int) -> None:
        self.disk.fail_write(error, after_bytes)

    @rule(length=st.integers(1, 50))
    def write_is_short(self, length: int) -> None:
        self.disk.writes.append((0, length))

    @rule()
    def sync_fails(self) -> None:
        self.disk.syncs.append(IO_ERROR)

    @rule()
    def cut_fails(self) -> None:
        self.disk.cuts.append(IO_ERROR)

    @rule()
    def disk_is_mended(self) -> None:
        self.disk.mend()

    @precondition(lambda self: self.writer is not None)
    @rule(torn=st.integers(0, 60))
    def kill(self, torn: int) -> None:
        """The process dies, perhaps in the middle of a write that nobody was told of."""
        self.untold |= self.pending()
        written = self.writer._chain.segment
        half = encode(self.writer.next_sequence, Pause(1, 1).encode())[:-1][:torn]
        crash(self.writer)
        if written:
            with written.path.open("ab") as file:
                file.write(half)
        self.writer = None

    @precondition(lambda self: self.writer is not None)
    @rule()
    def close(self) -> None:
        self.disk.mend()
        self.writer.close()
        self.writer = None

    @invariant()
    def nothing_acknowledged_is_lost(self) -> None:
        found = entries(self.directory)
        pauses = {place: entry for place, entry in found.items() if isinstance(entry, Pause)}
        assert {place: pauses.get(place) for place in self.acknowledged} == self.acknowledged
        # What was refused may stand there only where the disk would not even be cut back.
        others = {place: pause for place, pause in pauses.items() if place not in self.acknowledged}
        assert others.items() <= self.refused.items()
        assert all(isinstance(entry, Pause | Gap | Sealed) for entry in found.values()), found

    @invariant()
    def every_loss_is_counted(self) -> None:
        report = verify(self.directory)
        assert not report.damage, report.damage
        told = {place for entry in entries(self.directory).values() for place in places(entry)}
        unwritten = self.pending() | self.untold
        assert self.refused.keys() <= told | unwritten
        assert not self.acknowledged.keys() & told
        missing = {
            (hole.boot_id, sequence)
            for hole in report.missing
            for sequence in range(hole.first_sequence, hole.last_sequence + 1)
        }
        assert missing <= unwritten

    def pending(self) -> set[Place]:
        """What the writer has lost and could not tell yet."""
        gaps = self.writer._losses.pending if self.writer else []
        return {place for gap in gaps for place in places(gap)}

    def teardown(self) -> None:
        if self.writer is not None:
            crash(self.writer)
        shutil.rmtree(self.directory)


TestJournalMachine = JournalMachine.TestCase
TestJournalMachine.settings = settings(max_examples=60, stateful_step_count=40)
