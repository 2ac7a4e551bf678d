"""Reads segments in order, and says of every byte what it is.

What can be read is yielded as a `Record`; what cannot, as `Damage` or, at the end of what a killed
writer left behind, as a `TornTail`. Nothing is skipped in silence.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path

from gateway.errors import JournalDamaged, JournalError
from gateway.journal.disk import refusal
from gateway.journal.entry import (
    FOUND_NOBODY,
    Decision,
    Entry,
    Generation,
    Refused,
    Replied,
    Sealed,
    decode,
)
from gateway.journal.frame import HEAD_BYTES, MAX_PAYLOAD, Frame, Unframed, parse, walk
from gateway.journal.segment import (
    MAX_HEADER,
    SUFFIX,
    Header,
    HeaderIncomplete,
    SegmentName,
    decode_header,
    parse_name,
)

_LENGTH_MIN = 2 * (HEAD_BYTES + MAX_PAYLOAD)  # holds a whole frame, whatever was read before it


@dataclass(frozen=True, slots=True)
class Segment:
    """One file. `name`: from the file's name, or from the header where the name tells nothing.

    `header`: None where it cannot be read; `header_problem` says why, `header_is_cut` that the file
    ends before it does. `may_be_torn`: the writer was stopped, or is still writing, so the last
    bytes may be half a frame. `kept_bytes`: a later
    writer found that only so much counts. `served`: the generations by index, of the header and of
    what was read so far.
    """

    path: Path
    name: SegmentName
    header: Header | None
    header_bytes: int
    header_problem: str
    header_is_cut: bool
    may_be_torn: bool = True
    kept_bytes: int | None = None
    served: dict[int, Generation] = field(default_factory=dict, compare=False, repr=False)

    @property
    def boot(self) -> tuple[int, bytes]:
        """Worker and boot id: within it a sequence stands once."""
        return self.name.worker, self.name.boot_id

    @property
    def has_begun(self) -> bool:
        """Say whether its header was written: the segment before it is not written any more."""
        return self.header is not None or not self.header_is_cut


@dataclass(frozen=True, slots=True)
class Record:
    """One entry and where it stands; `offset` and `end` are bytes in the segment's file."""

    segment: Segment
    offset: int
    end: int
    sequence: int
    entry: Entry

    def wall_ns(self, monotonic_ns: int) -> int | None:
        """Turn one of the entry's monotonic stamps into wall time; None without a header."""
        header = self.segment.header
        return header.wall_ns(monotonic_ns) if header else None

    def generation(self, index: int) -> Generation | None:
        """Return the generation that the entry's `product` stands for, if that is known."""
        return self.segment.served.get(index)


class Fault(Enum):
    """What is wrong with damaged bytes."""

    HEADER = "the header cannot be read"
    FRAME = "no frame with a good checksum and a rising sequence"
    ENTRY = "a good frame whose payload is no entry"
    NAME = "neither the file's name nor its header says what it is"


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes that were written and are not there any more.

    `missing`: first and last sequence that may have stood there; the last is None where no frame
    follows in the file. None as a whole where no sequence is missing.
    """

    path: Path
    offset: int
    length: int
    fault: Fault
    missing: tuple[int, int | None] | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class TornTail:
    """The rest of a write that did not come to its end. Nobody was told that it had."""

    path: Path
    offset: int
    length: int


def segments(directory: Path) -> tuple[Segment, ...]:
    """Return all workers' segments in the order in which they were begun.

    Raises:
        JournalError: the directory or a file cannot be read.
    """
    try:
        paths = [path for path in directory.iterdir() if path.name.endswith(SUFFIX)]
    except OSError as error:
        raise refusal(error, "read the journal", directory) from error
    found = sorted((segment_at(path) for path in paths), key=lambda segment: segment.name)
    # A file whose header was never written does not say that the one in front of it was ended.
    last_of_boot = {segment.boot: segment.path for segment in found if segment.has_begun}
    kept = {
        recovered.segment: recovered.kept_bytes
        for segment in found
        if segment.header
        for recovered in segment.header.recovered
    }
    return tuple(
        replace(
            segment,
            may_be_torn=(not segment.has_begun or last_of_boot[segment.boot] == segment.path)
            and segment.path.name not in kept,
            kept_bytes=kept.get(segment.path.name),
        )
        for segment in found
    )


def segment_at(path: Path) -> Segment:
    """Look at one file by itself.

    Raises:
        JournalError: the file cannot be read.
    """
    name = parse_name(path.name)
    header, header_bytes, problem, is_cut = None, 0, "", False
    try:
        header, header_bytes = decode_header(_read(path, MAX_HEADER))
    except JournalDamaged as error:
        problem, is_cut = error.what, isinstance(error, HeaderIncomplete)
    if name is None and header:
        name = SegmentName(
            header.created_wall_ns, header.worker, header.boot_id, header.first_sequence
        )
    unknown = SegmentName(0, 0, bytes(16), 0)
    return Segment(path, name or unknown, header, header_bytes, problem, is_cut)


def read(segment: Segment) -> Iterator[Record | Damage | TornTail]:
    """Yield what stands in the segment, in order, leaving out no byte behind the header.

    Nothing of a file that has gone since it was listed: the sequences tell that it is missing.

    Raises:
        JournalError: the file cannot be read.
    """
    _serve(segment)
    buffer = _read(segment.path)
    counted = buffer if segment.kept_bytes is None else buffer[: segment.kept_bytes]
    parts = walk(counted, segment.header_bytes, after=segment.name.first_sequence - 1)
    end = yield from _items(segment, parts, segment.name.first_sequence - 1)
    yield from _rest(segment, end)
    if len(counted) < len(buffer):
        yield TornTail(segment.path, len(counted), len(buffer) - len(counted))


@dataclass(frozen=True, slots=True)
class Between:
    """Between two frames of a segment: `sequence` is the last one's before `offset` bytes.

    `frame`: where that frame begins, None where it is not known.
    """

    offset: int
    sequence: int
    frame: int | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """Some of a segment, and where to read on. `at_end`: nothing more stands in the file now.

    `is_cut_back`: the frame before the part does not stand there any more; nothing was read.
    """

    items: tuple[Record | Damage | TornTail, ...]
    until: Between
    at_end: bool
    is_cut_back: bool = False


def read_on(segment: Segment, place: Between, *, length: int, is_closed: bool) -> Part:
    """Read about `length` bytes of the segment from `place` on.

    `is_closed`: no writer goes on in the file, so its end is judged as `read` does; else it is left
    for later. The frame before the place is looked at again: a writer whose disk did not take all
    of an append cuts back what it took, and goes on in its place.

    Raises:
        JournalError: the file cannot be read.
    """
    _serve(segment)
    base = place.offset if place.frame is None else place.frame
    skip, length = place.offset - base, max(length, _LENGTH_MIN)
    while True:
        buffer = _read(segment.path, skip + length, base)
        if place.frame is not None:
            before = parse(buffer, 0, after=place.sequence - 1)
            if before is None or before.sequence != place.sequence:
                return Part((), place, at_end=False, is_cut_back=True)
        at_end = len(buffer) < skip + length
        part = _part(segment, buffer, place, base, at_end=at_end, is_whole=is_closed and at_end)
        if part.items or at_end:
            return part
        length *= 2  # nothing but damage so far


def _part(
    segment: Segment, buffer: bytes, place: Between, base: int, *, at_end: bool, is_whole: bool
) -> Part:
    """Read what `buffer`, which stands at `base`, holds behind `place`."""
    skip = place.offset - base
    kept = segment.kept_bytes
    counted = buffer if kept is None else buffer[: max(kept - base, 0)]
    parts = walk(counted, skip, after=place.sequence, is_growing=not is_whole)
    found = _items(segment, parts, place.sequence, base)
    items: list[Record | Damage | TornTail] = []
    while True:
        try:
            items.append(next(found))
        except StopIteration as stop:
            end: _End = stop.value
            break
    offset = base + (end.unframed.offset if end.unframed else len(counted))
    if is_whole:
        items += _rest(segment, end, base)
        if len(counted) < len(buffer):
            behind = max(base + len(counted), place.offset)
            items.append(TornTail(segment.path, behind, base + len(buffer) - behind))
        offset = base + len(buffer)
    frame = place.frame if end.frame is None else end.frame
    return Part(tuple(items), Between(max(offset, place.offset), end.sequence, frame), at_end)


@dataclass(frozen=True, slots=True)
class _End:
    """How frames ended: the last one's sequence and place, whether it sealed, what is behind it."""

    sequence: int
    frame: int | None
    sealed: bool
    unframed: Unframed | None


def _serve(segment: Segment) -> None:
    """Know the generations of the header; what the segment announces itself comes on top."""
    if segment.header:
        for one in segment.header.products:
            segment.served.setdefault(one.index, one)


def _items(
    segment: Segment, parts: Iterable[Frame | Unframed], last: int, base: int = 0
) -> Generator[Record | Damage, None, _End]:
    """Yield what frames say, and damage between them. `base`: the buffer's place in the file."""
    sealed = False
    frame: int | None = None
    unframed: Unframed | None = None
    for part in parts:
        if isinstance(part, Unframed):
            unframed = part
            continue
        if unframed:
            yield _damage(segment, unframed, last, part.sequence - 1, base)
            unframed = None
        item = _record(segment, part, base)
        if isinstance(item, Record) and isinstance(item.entry, Generation):
            segment.served[item.entry.index] = item.entry
        yield item
        last, frame = part.sequence, part.offset + base
        sealed = isinstance(item, Record) and isinstance(item.entry, Sealed)
    return _End(last, frame, sealed, unframed)


def _rest(segment: Segment, end: _End, base: int = 0) -> Iterator[Damage | TornTail]:
    """Say what the bytes are that stand behind a segment's last frame."""
    if end.unframed is None:
        return
    if not end.sealed and _is_torn(segment, end.unframed, base):
        yield TornTail(segment.path, end.unframed.offset + base, end.unframed.length)
    else:
        last = end.sequence
        yield _damage(segment, end.unframed, last, last if end.sealed else None, base)


class Reply(Enum):
    """What became of the reply to a call."""

    LEFT = "left"
    FOUND_NOBODY = "found nobody"  # the caller had gone
    UNKNOWN = "unknown"  # the process died first, or the REPLIED entry is not read yet


@dataclass(frozen=True, slots=True)
class Answered:
    """A decision or a refusal, and its reply. `replied_ns`: monotonic, where the reply left."""

    record: Record
    reply: Reply
    replied_ns: int | None = None


def join_replied(records: Iterable[Record]) -> Iterator[Answered]:
    """Yield every decision and refusal with its reply, as soon as that is known.

    Those whose reply is never told come last. Holds what waits for its reply: one or two batches a
    worker, and all that a killed process left without.
    """
    waiting: dict[tuple[tuple[int, bytes], int], Record] = {}
    for record in records:
        boot, entry = record.segment.boot, record.entry
        if isinstance(entry, Decision | Refused):
            waiting[boot, record.sequence] = record
        if not isinstance(entry, Replied):
            continue
        for sequence, offset_ns in enumerate(entry.offsets_ns, entry.first_sequence):
            answered = waiting.pop((boot, sequence), None)
            if answered and offset_ns == FOUND_NOBODY:
                yield Answered(answered, Reply.FOUND_NOBODY)
            elif answered:
                yield Answered(answered, Reply.LEFT, entry.base_ns + offset_ns)
    for record in waiting.values():
        yield Answered(record, Reply.UNKNOWN)


def _read(path: Path, length: int = -1, offset: int = 0) -> bytes:
    try:
        with path.open("rb") as file:
            if offset:  # a pipe may stand there, which cannot seek
                file.seek(offset)
            return file.read(length)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise refusal(error, "read the segment", path) from error


def _record(segment: Segment, frame: Frame, base: int) -> Record | Damage:
    try:
        entry = decode(frame.payload)
    except JournalError as error:
        return Damage(
            segment.path,
            frame.offset + base,
            frame.end - frame.offset,
            Fault.ENTRY,
            (frame.sequence, frame.sequence),
            error.what,
        )
    return Record(segment, frame.offset + base, frame.end + base, frame.sequence, entry)


def _damage(
    segment: Segment, unframed: Unframed, before: int, last: int | None, base: int
) -> Damage:
    """Describe unframed bytes behind sequence `before`; without a header they are the header."""
    missing = None if last == before else (before + 1, last)
    fault, detail = Fault.FRAME, ""
    if _is_damaged_header(segment, unframed, base):
        fault, detail = Fault.HEADER, segment.header_problem
        if parse_name(segment.path.name) is None:
            fault = Fault.NAME
    return Damage(segment.path, unframed.offset + base, unframed.length, fault, missing, detail)


def _is_damaged_header(segment: Segment, unframed: Unframed, base: int) -> bool:
    return segment.header is None and unframed.offset + base == 0


def _is_torn(segment: Segment, tail: Unframed, base: int) -> bool:
    """Say whether unframed bytes at the end may be what a stopped writer left."""
    if _is_damaged_header(segment, tail, base):
        named = parse_name(segment.path.name) is not None
        return segment.may_be_torn and segment.header_is_cut and named
    return segment.may_be_torn
