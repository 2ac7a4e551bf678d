"""All workers' journals of a directory, followed from a consumer's position on, as batches.

It reads only when it is asked, and holds no more than a batch, and for each boot what waits in its
`Join`: a slow consumer slows the tail and nothing else. The writers never learn of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path

from gateway.errors import JournalError
from gateway.journal import Record, Segment
from gateway.journal.segment import SegmentName, parse_name
from gateway.sidecar.tail.call import Aside, Batch, Call, Mark, Position, Range
from gateway.sidecar.tail.follower import FIRST, CutBack, Follower, Step
from gateway.sidecar.tail.join import Join, Waiting, Waits
from gateway.sidecar.tail.listing import Boot, Boots, Listing

RECORDS_MAX = 4096
"""Calls and asides of a batch."""

BYTES_MAX = 8 << 20
"""Of the journal, in a batch."""

_READ_BYTES = 1 << 20
_HELD_BYTES_MAX = 32 << 20  # of all boots; what waits beyond is given out as it is

_EMPTY = Position()
_DEFAULT_WAITS = Waits()


class Tail:
    """Follows the journal in `directory` from `position` on.

    `clock_ns`: monotonic. `waits`: how long a call may wait for its reply and its scores.
    """

    def __init__(
        self,
        directory: Path,
        position: Position = _EMPTY,
        *,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        waits: Waits = _DEFAULT_WAITS,
        records_max: int = RECORDS_MAX,
        bytes_max: int = BYTES_MAX,
    ) -> None:
        self._listing = Listing(directory)
        self._clock_ns = clock_ns
        self._waits = waits
        self._records_max = records_max
        self._bytes_max = bytes_max
        self._lanes = {boot: _Lane(boot, mark, waits) for boot, mark in position.marks.items()}
        self._round = 0
        self._failure: JournalError | None = None

    @property
    def failure(self) -> JournalError | None:
        """Why the last look could not read all there is; None where it could."""
        return self._failure

    @property
    def position(self) -> Position:
        """Behind what was given out."""
        return Position({boot: mark for boot, lane in self._lanes.items() if (mark := lane.mark)})

    @property
    def waiting(self) -> int:
        """How many steps were read and wait for their replies or scores."""
        return sum(lane.join.waiting for lane in self._lanes.values())

    def read(self) -> Batch | None:
        """Return what is whole by now; None where there is nothing new. Never waits.

        Raises:
            JournalError: the directory or a file of it cannot be read, and nothing came of the
                others. Nothing is lost: try again.
        """
        self._failure = None
        boots = self._look()
        building = _Building(self._records_max, self._bytes_max)
        lanes = list(self._lanes.values())
        first = self._round % len(lanes) if lanes else 0
        for lane in (*lanes[first:], *lanes[:first]):
            if building.is_full:
                break
            try:
                self._advance(lane, boots, building)
            except JournalError as error:
                self._failure = error
            lane.tell(building)
        batch = self._batch(building)
        if batch is None and self._failure:
            raise self._failure
        return batch

    def up_to(self, until: Position) -> Batch | None:
        """Return all up to `until`, another tail's position, as one batch; the last of this tail.

        Nothing is told in it that the other had not read by then: it tells that itself, later. None
        where there is nothing before `until`, or not all of it can be read.

        Raises:
            JournalError: the directory or a file of it cannot be read.
        """
        boots = self._look()
        lanes = [
            (self._lanes.setdefault(boot, _Lane(boot, None, self._waits)), target)
            for boot, target in until.marks.items()
        ]
        for lane, target in lanes:
            while not lane.has_read(target) and self._read(lane, boots, target.read_sequence):
                pass
        building = _Building()
        for lane, target in lanes:
            lane.give_to(target, building)
            lane.tell(building)
        has_all = all(lane.mark and place_of(lane.mark) == place_of(to) for lane, to in lanes)
        batch = self._batch(building) if has_all else None
        return batch and replace(batch, until=until)

    def _look(self) -> Boots:
        """Look at the directory; take up new boots, and forget those that nothing is left of."""
        self._round += 1
        boots = self._listing.look()
        for boot, found in boots.segments.items():
            if boot not in self._lanes:
                self._lanes[boot] = _Lane(boot, None, self._waits)
            follower = self._lanes[boot].follower
            follower.seen = max(follower.seen, found[-1].name)
        left = [b for b, lane in self._lanes.items() if lane.is_done and b not in boots.segments]
        for boot in left:
            del self._lanes[boot]
        return boots

    def _advance(self, lane: _Lane, boots: Boots, building: _Building) -> None:
        """Read and give out until the batch is full or nothing more is whole."""
        # At the journal's end first look whether what was read last still stands there.
        is_reading = self._read(lane, boots) if lane.follower.at_end else True
        while True:
            has_room = self._held() < _HELD_BYTES_MAX
            lane.give(building, self._clock_ns(), self._round, forced=not has_room)
            if building.is_full or not is_reading:
                break
            is_reading = has_room and self._read(lane, boots)

    def _read(self, lane: _Lane, boots: Boots, last: int | None = None) -> bool:
        found = boots.segments.get(lane.boot, ())
        is_over = boots.is_over(lane.boot, found[-1].name if found else lane.follower.name)
        return lane.read(found, is_over, self._clock_ns(), self._round, last)

    def _held(self) -> int:
        return sum(lane.join.waiting_bytes for lane in self._lanes.values())

    def _batch(self, building: _Building) -> Batch | None:
        parts = sorted(building.parts.items())
        asides = [one for _, part in parts for one in part.asides] + self._listing.strange
        calls = [one for _, part in parts for one in part.calls]
        self._listing.strange.clear()
        if not (asides or calls or building.has_moved):
            return None
        ranges = tuple(part.range for _, part in parts if part.range)
        return Batch(tuple(calls), tuple(asides), ranges, self.position, building.size)


@dataclass(slots=True)
class _Part:
    """What a batch has of one boot."""

    calls: list[Call] = field(default_factory=list)
    asides: list[Aside] = field(default_factory=list)
    range: Range | None = None


@dataclass(slots=True)
class _Building:
    """A batch that is not full yet; None: it never is."""

    records_max: int | None = None
    bytes_max: int | None = None
    parts: dict[Boot, _Part] = field(default_factory=dict)
    has_moved: bool = False
    count: int = 0
    size: int = 0

    @property
    def is_full(self) -> bool:
        """Say whether nothing more goes in."""
        if self.records_max is not None and self.count >= self.records_max:
            return True
        return self.bytes_max is not None and self.size >= self.bytes_max

    def part(self, boot: Boot) -> _Part:
        """Return the boot's part; parts stand in the order of boots, whoever was read first."""
        return self.parts.setdefault(boot, _Part())

    def add(self, boot: Boot, step: Waiting) -> None:
        """Put a step in: a call, asides, or nothing but its size."""
        self.size += step.size
        call, part = step.given(), self.part(boot)
        if call:
            part.calls.append(call)
        part.asides += step.asides
        self.count += len(step.asides) + (call is not None)


class _Lane:
    """One boot: what follows it, and what waits of it."""

    def __init__(self, boot: Boot, mark: Mark | None, waits: Waits) -> None:
        self.boot = boot
        self.follower = Follower(boot, mark)
        self.join = Join(mark, waits)
        self._waits = waits
        self._told = mark

    @property
    def mark(self) -> Mark | None:
        """Behind what was given out, with how far was read."""
        mark = self.join.mark
        return mark and mark._replace(read_sequence=self.join.read_sequence)

    @property
    def is_done(self) -> bool:
        """Say whether the boot has ended and all of it was given out."""
        return self.follower.is_over and not self.join.waiting

    def read(
        self,
        found: Sequence[Segment],
        is_over: bool,
        now_ns: int,
        round_: int,
        last: int | None = None,
    ) -> bool:
        """Let a part of the journal wait for its turn, up to a sequence. False where is none."""
        try:
            steps = self.follower.read(found, is_over=is_over, length=_READ_BYTES)
        except CutBack:
            self._begin_again()
            return False
        if last is not None:
            steps = list(takewhile(lambda step: _sequence(step) <= last, steps))
        self.join.take(steps, now_ns=now_ns, round_=round_)
        return bool(steps)

    def give(self, building: _Building, now_ns: int, round_: int, *, forced: bool) -> None:
        """Give out what is whole; what is not, too, where `forced` or too much waits."""
        at_end, is_over = self.follower.at_end, self.follower.is_over
        while not building.is_full:
            step = self.join.next(
                now_ns=now_ns,
                round_=round_,
                at_end=at_end,
                is_over=is_over,
                forced=forced or self.join.is_full,
            )
            if step is None:
                return
            building.add(self.boot, step)

    def give_to(self, target: Mark, building: _Building) -> None:
        """Give out everything up to `target`, whole or not."""
        end = place_of(target)
        while (mark := self.join.first_mark) and place_of(mark) <= end:
            step = self.join.next(now_ns=0, round_=0, at_end=False, is_over=True)
            if step:
                building.add(self.boot, step)

    def has_read(self, target: Mark) -> bool:
        """Say whether what `target` knew was read."""
        last = self.join.last_mark
        if last is None or place_of(last) < place_of(target):
            return False
        return self.join.last_sequence >= target.read_sequence

    def tell(self, building: _Building) -> None:
        """Say in the batch what it covers of the boot, and what came late."""
        part = building.part(self.boot)
        part.asides += self.join.late
        self.join.late.clear()
        mark, told = self.join.mark, self._told
        if mark is None or mark == told:
            return
        self._told, building.has_moved = mark, True
        before = told.sequence if told else 0
        if mark.sequence > before:
            part.range = Range(*self.boot, before + 1, mark.sequence)

    def _begin_again(self) -> None:
        mark, late, seen = self.mark, self.join.late, self.follower.seen
        self.follower = Follower(self.boot, mark)
        self.follower.seen = seen
        self.join = Join(mark, self._waits)
        self.join.late = late


def _sequence(step: Step) -> int:
    mark, item = step
    return item.sequence if isinstance(item, Record) else mark.sequence


def place_of(mark: Mark) -> tuple[SegmentName, int, bool]:
    """Return where a mark stands among those of its boot."""
    return parse_name(mark.segment) or FIRST, mark.offset, mark.is_finished
