"""Follows one boot of a worker through its segments, step by step.

A step is one frame, or damage, or a hole, and the mark behind it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gateway.journal import Between, Damage, Gap, Generation, Part, Record, Sealed, Segment, read_on
from gateway.journal.entry import Loss
from gateway.journal.segment import SegmentName, parse_name
from gateway.journal.spans import without
from gateway.sidecar.tail.call import Aside, Gone, Mark
from gateway.sidecar.tail.listing import Boot

Step = tuple[Mark, Record | tuple[Aside, ...]]
"""What was read, a record or asides, and the mark behind it."""

_FIRST_APPEND_BYTES = 1 << 20
"""Holds a segment's first append, and so what its writer tells of losses before it."""

FIRST = SegmentName(0, 0, bytes(16), 0)
"""Before every segment."""


class CutBack(Exception):  # noqa: N818  no error: the writer's disk was full, and it said so
    """What was read last does not stand there any more: go back to the last mark."""


class Follower:
    """Reads on where `mark` is. `at_end`: all that stands there now was read.

    `sequence`: of the last frame that was read. `seen`: the latest segment that was ever there.
    """

    def __init__(self, boot: Boot, mark: Mark | None) -> None:
        self.at_end = False
        self.is_over = False  # and all of it was read
        self.sequence = mark.sequence if mark else 0
        self.name = (parse_name(mark.segment) if mark else None) or FIRST
        self.seen = self.name
        self._boot = boot
        self._is_finished = mark.is_finished if mark else True
        self._between = Between(mark.offset if mark else 0, self.sequence)
        self._begun_at = self._between.offset
        self._announced = mark.announced if mark else ()
        self._is_placed = False  # the mark was held to its file
        self._given_before = 0  # sequences up to it are read a second time
        self._hole: tuple[int, int] | None = None

    def read(self, found: Sequence[Segment], *, is_over: bool, length: int) -> list[Step]:
        """Read about `length` bytes on. `found`: the boot's segments; `is_over`: no more will come.

        Raises:
            CutBack: start again at the last mark.
            JournalError: a file cannot be read.
        """
        self.at_end = False
        segment = self._current(found, is_over)
        if segment is None:
            return self._ended(is_over)
        is_closed = is_over or _is_closed(segment, found)
        kept, offset = segment.kept_bytes, self._between.offset
        if kept is not None and offset > kept and offset > self._begun_at:
            raise CutBack
        if self._hole:
            length = max(length, _FIRST_APPEND_BYTES)
        part = read_on(segment, self._between, length=length, is_closed=is_closed)
        if not part.items and not segment.path.exists():
            return []  # dropped just now: the next look finds what follows
        if part.is_cut_back:
            raise CutBack
        is_done = part.at_end and is_closed
        steps = self._steps(segment, part, is_done)
        if is_done and not self._is_finished:
            self._is_finished = True
            steps.append((self._mark(segment, part.until.offset), ()))
        self.at_end = part.at_end and not self._is_finished
        return steps

    def _current(self, found: Sequence[Segment], is_over: bool) -> Segment | None:
        """Return the segment to read in: the one that was, or the next one that has begun."""
        if not self._is_finished:
            segment = next((one for one in found if one.name == self.name), None)
            if segment:
                self._place(segment)
                return segment
        segment = next((one for one in found if one.name > self.name), None)
        if segment is None or not (is_over or segment.has_begun or _is_closed(segment, found)):
            return None
        first = segment.name.first_sequence
        if not segment.has_begun:
            first -= 1  # its writer was stopped before it sealed the one before, or behind it
        self._hole = (self.sequence + 1, first - 1) if first > self.sequence + 1 else None
        self.name, self._is_finished, self._announced = segment.name, False, ()
        self._between = Between(segment.header_bytes, segment.name.first_sequence - 1)
        self._begun_at, self._is_placed = segment.header_bytes, True
        return segment

    def _place(self, segment: Segment) -> None:
        """Go to the mark; to the file's begin, where it is shorter now than it was."""
        if self._is_placed:
            return
        self._is_placed = True
        segment.served.update((one.index, one) for one in self._announced)
        try:
            is_shorter = segment.path.stat().st_size < self._between.offset
        except OSError:
            return  # to read it will tell
        if is_shorter:
            self._given_before, self._announced = self.sequence, ()
            self._between = Between(segment.header_bytes, segment.name.first_sequence - 1)

    def _ended(self, is_over: bool) -> list[Step]:
        """Nothing follows so far; say what is missing where nothing will."""
        self.at_end, self.is_over = True, is_over
        if not is_over or (self._is_finished and self.name >= self.seen):
            return []
        self.name, self._is_finished = self.seen, True
        gone = Gone(*self._boot, self.sequence + 1, None)
        mark = Mark(str(self.name), self._between.offset, self.sequence, is_finished=True)
        return [(mark, (gone,))]

    def _steps(self, segment: Segment, part: Part, is_done: bool) -> list[Step]:
        steps: list[Step] = []
        if self._hole and (part.items or is_done):
            steps += self._gone(segment, part.items)
        for item in part.items:
            if isinstance(item, Record):
                if item.sequence <= self._given_before:
                    continue
                self.sequence = item.sequence
                if isinstance(item.entry, Generation):
                    self._announced = (*self._announced, item.entry)
                self._is_finished = isinstance(item.entry, Sealed)
                steps.append((self._mark(segment, item.end), item))
            elif isinstance(item, Damage):
                if item.missing and item.missing[1] is not None:
                    self.sequence = max(self.sequence, item.missing[1])
                steps.append((self._mark(segment, item.offset + item.length), (item,)))
        self._between = part.until
        return steps

    def _gone(self, segment: Segment, items: Iterable[object]) -> list[Step]:
        """Say what is missing before the segment; what its writer could not write it tells itself.

        It does so with the first append: losses stand in the first part that is read.
        """
        assert self._hole is not None
        gaps = (one.entry for one in items if isinstance(one, Record))
        told = sorted(
            (gap.first_sequence, gap.last_sequence)
            for gap in gaps
            if isinstance(gap, Gap)
            and gap.reason is not Loss.RETENTION
            and (gap.worker, gap.boot_id) == self._boot
        )
        holes = without(self._hole, told)
        self.sequence, self._hole = self._hole[1], None
        gone = tuple(Gone(*self._boot, first, last) for first, last in holes)
        return [(self._mark(segment, segment.header_bytes), gone)] if gone else []

    def _mark(self, segment: Segment, offset: int) -> Mark:
        return Mark(segment.path.name, offset, self.sequence, 0, self._is_finished, self._announced)


def _is_closed(segment: Segment, found: Sequence[Segment]) -> bool:
    """Say whether a later one has begun: then nobody writes this one."""
    return any(one.name > segment.name and one.has_begun for one in found)
