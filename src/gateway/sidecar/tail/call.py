"""What the tail gives out: whole calls, and what the journal says beside them.

A call is given out once its reply is known or cannot become known any more, and its shadow scores
have come or are not waited for any longer; a score that comes later is a `LateScored`.

Pure: values only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from gateway.journal import Damage, Generation, Record, Reply, ScoredCall


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a caller: its record, a Decision or a Refused, and what became of it.

    `generation`: None where the journal does not know it, or the call named no product that is
    served. `replied_ns`: monotonic, where the reply left. `scored`: by arm, what the models that
    did not decide made of it.
    """

    record: Record
    generation: Generation | None
    reply: Reply
    replied_ns: int | None
    scored: tuple[tuple[int, ScoredCall], ...] = ()


@dataclass(frozen=True, slots=True)
class LateScored:
    """A shadow score whose call was given out before. `record`: the Scored that holds it."""

    record: Record
    arm: int
    call: ScoredCall


@dataclass(frozen=True, slots=True)
class LateReply:
    """The reply to a call that was given out as UNKNOWN. `record`: the Replied that tells of it."""

    record: Record
    sequence: int
    reply: Reply
    replied_ns: int | None


@dataclass(frozen=True, slots=True)
class Gone:
    """Sequences that stand in no segment any more, were not read before, and no loss explains.

    Retention dropped them, or someone deleted the file. `last_sequence`: None where nothing of the
    boot follows, so that nobody can tell how many there were.
    """

    worker: int
    boot_id: bytes
    first_sequence: int
    last_sequence: int | None


Aside = Record | LateScored | LateReply | Gone | Damage
"""What is no call: a record of Shed, Pause, Gap, Generation or Rejected, or what came too late, or
what cannot be read."""


class Range(NamedTuple):
    """Sequences of one worker's boot, both ends included."""

    worker: int
    boot_id: bytes
    first_sequence: int
    last_sequence: int


class Mark(NamedTuple):
    """Where a worker's boot is read up to: everything before `offset` bytes of `segment`'s file.

    `sequence`: of the last frame before it. `read_sequence`: so far was read ahead, for replies and
    scores: what those told of calls before the mark is given out. `is_finished`: nothing follows in
    the segment. `announced`: the generations that it began to serve before `offset`.
    """

    segment: str
    offset: int
    sequence: int
    read_sequence: int = 0
    is_finished: bool = False
    announced: tuple[Generation, ...] = ()


@dataclass(frozen=True, slots=True)
class Position:
    """What a consumer checkpoints: a mark by (worker, boot id)."""

    marks: Mapping[tuple[int, bytes], Mark] = field(default_factory=dict)

    @property
    def records(self) -> int:
        """How many frames stand before it: of two positions the one with more is further."""
        return sum(mark.sequence for mark in self.marks.values())


@dataclass(frozen=True, slots=True)
class Batch:
    """Calls and asides, whole ranges of sequences of them; reading goes on at `until`.

    `size`: bytes of the journal.
    """

    calls: tuple[Call, ...]
    asides: tuple[Aside, ...]
    ranges: tuple[Range, ...]
    until: Position
    size: int = 0

    def then(self, other: Batch) -> Batch:
        """Return this batch and the one that follows it as one."""
        ranges = {one[:2]: one for one in self.ranges}
        for worker, boot_id, first, last in other.ranges:
            before = ranges.get((worker, boot_id))
            ranges[worker, boot_id] = Range(worker, boot_id, before[2] if before else first, last)
        return Batch(
            self.calls + other.calls,
            self.asides + other.asides,
            tuple(ranges.values()),
            other.until,
            self.size + other.size,
        )


class Source(Protocol):
    """What a consumer reads from: a tail, or its share of a common one."""

    @property
    def position(self) -> Position:
        """Behind what was given out."""

    def read(self) -> Batch | None:
        """Return what is whole by now; None where there is nothing new. Never waits.

        Raises:
            JournalError: the journal cannot be read. Nothing is lost: try again.
        """
