"""Reads segments in order, and says of every byte what it is.

What can be read is yielded as a `Record`; what cannot, as `Damage` or, at the end of what a killed
writer left behind, as a `TornTail`. Nothing is skipped in silence.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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
from gateway.journal.frame import Frame, Unframed, walk
from gateway.journal.segment import (
    MAX_HEADER,
    SUFFIX,
    Header,
    HeaderIncomplete,
    SegmentName,
    decode_header,
    parse_name,
)


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
    last_of_boot = {segment.boot: segment.path for segment in found}
    kept = {
        recovered.segment: recovered.kept_bytes
        for segment in found
        if segment.header
        for recovered in segment.header.recovered
    }
    return tuple(
        replace(
            segment,
            may_be_torn=last_of_boot[segment.boot] == segment.path
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
    path, last = segment.path, segment.name.first_sequence - 1
    if segment.header:
        segment.served.update((one.index, one) for one in segment.header.products)
    buffer = _read(path)
    counted = buffer if segment.kept_bytes is None else buffer[: segment.kept_bytes]
    sealed = False
    unframed: Unframed | None = None
    for part in walk(counted, segment.header_bytes, after=last):
        if isinstance(part, Unframed):
            unframed = part
            continue
        if unframed:
            yield _damage(segment, unframed, last, part.sequence - 1)
            unframed = None
        item = _record(segment, part)
        if isinstance(item, Record) and isinstance(item.entry, Generation):
            segment.served[item.entry.index] = item.entry
        yield item
        last = part.sequence
        sealed = isinstance(item, Record) and isinstance(item.entry, Sealed)
    if unframed and not sealed and _is_torn(segment, unframed):
        yield TornTail(path, unframed.offset, unframed.length)
    elif unframed:
        yield _damage(segment, unframed, last, last if sealed else None)
    if len(counted) < len(buffer):
        yield TornTail(path, len(counted), len(buffer) - len(counted))


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


def _read(path: Path, length: int = -1) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(length)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise refusal(error, "read the segment", path) from error


def _record(segment: Segment, frame: Frame) -> Record | Damage:
    try:
        entry = decode(frame.payload)
    except JournalError as error:
        return Damage(
            segment.path,
            frame.offset,
            frame.end - frame.offset,
            Fault.ENTRY,
            (frame.sequence, frame.sequence),
            error.what,
        )
    return Record(segment, frame.offset, frame.end, frame.sequence, entry)


def _damage(segment: Segment, unframed: Unframed, before: int, last: int | None) -> Damage:
    """Describe unframed bytes behind sequence `before`; without a header they are the header."""
    missing = None if last == before else (before + 1, last)
    fault, detail = Fault.FRAME, ""
    if _is_damaged_header(segment, unframed):
        fault, detail = Fault.HEADER, segment.header_problem
        if parse_name(segment.path.name) is None:
            fault = Fault.NAME
    return Damage(segment.path, unframed.offset, unframed.length, fault, missing, detail)


def _is_damaged_header(segment: Segment, unframed: Unframed) -> bool:
    return segment.header is None and unframed.offset == 0


def _is_torn(segment: Segment, tail: Unframed) -> bool:
    """Say whether unframed bytes at the end may be what a stopped writer left."""
    if _is_damaged_header(segment, tail):
        named = parse_name(segment.path.name) is not None
        return segment.may_be_torn and segment.header_is_cut and named
    return segment.may_be_torn
