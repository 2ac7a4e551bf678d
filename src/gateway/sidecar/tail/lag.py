"""What of the journal a consumer has not had yet."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import JournalError
from gateway.journal import Decision, Pause, Refused, Replied, Segment, Shed
from gateway.journal.disk import refusal
from gateway.journal.entry import decode
from gateway.journal.frame import HEAD_BYTES, MAX_PAYLOAD, Frame, parse, resynchronise, walk
from gateway.journal.segment import parse_name
from gateway.sidecar.tail.call import Mark, Position
from gateway.sidecar.tail.listing import Boots, Listing

_LOOK_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Lag:
    """What stands behind a consumer's position. `age_ns`: of the oldest of it, 0 for nothing."""

    records: int
    bytes: int
    age_ns: int


class Lags:
    """Of several consumers of one journal: a segment's header is read once. Any thread may ask."""

    def __init__(self, directory: Path) -> None:
        self._listing = Listing(directory)
        self._lock = threading.Lock()

    def of(self, positions: Mapping[str, Position], *, wall_ns: int) -> dict[str, Lag]:
        """Return each one's, by its name. `wall_ns`: now.

        Raises:
            JournalError: the directory or a file cannot be read.
        """
        with self._lock:
            boots = self._listing.look()
        return {
            name: _lag_of(boots, position, wall_ns=wall_ns) for name, position in positions.items()
        }


def is_past(position: Position, path: Path) -> bool:
    """Say whether all of a segment was given out before `position`."""
    name = parse_name(path.name)
    mark = position.marks.get((name.worker, name.boot_id)) if name else None
    at = parse_name(mark.segment) if mark else None
    if name is None or mark is None or at is None:
        return False
    return name < at or (name == at and mark.is_finished)


def _lag_of(boots: Boots, position: Position, *, wall_ns: int) -> Lag:
    records, size, age_ns = 0, 0, 0
    for boot, segments in boots.segments.items():
        mark = position.marks.get(boot)
        left = [one for one in segments if not is_past(position, one.path)]
        behind = sum(max(0, _size(one) - _begin(one, mark)) for one in left)
        if not behind:
            continue
        size += behind
        records += max(0, _last_sequence(left) - _before(left[0], mark))
        since_ns = _first_wall_ns(left, mark)
        age_ns = max(age_ns, wall_ns - since_ns if since_ns is not None else 0)
    return Lag(records, size, age_ns)


def _begin(segment: Segment, mark: Mark | None) -> int:
    """Return where what was not given out begins in a segment."""
    if mark and mark.segment == segment.path.name:
        return mark.offset
    return segment.header_bytes


def _before(first: Segment, mark: Mark | None) -> int:
    """Return the last sequence before what is left; what vanished does not count."""
    if mark and mark.segment == first.path.name:
        return mark.sequence
    return first.name.first_sequence - 1


def _size(segment: Segment) -> int:
    try:
        return segment.path.stat().st_size
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise refusal(error, "look at the segment", segment.path) from error


def _last_sequence(segments: list[Segment]) -> int:
    """Return the sequence of the last frame: found from the last file's end."""
    last = segments[-1]
    size, length = _size(last), _LOOK_BYTES
    while True:
        begin = max(last.header_bytes, size - length)
        found = _highest(_bytes(last, begin), last.name.first_sequence - 1)
        if found or begin == last.header_bytes or length > 2 * (HEAD_BYTES + MAX_PAYLOAD):
            return found or last.name.first_sequence - 1
        length *= 8


def _highest(buffer: bytes, after: int) -> int | None:
    frame = resynchronise(buffer, 0, after=after)
    highest = None
    while frame:
        highest = frame.sequence
        frame = parse(buffer, frame.end, after=highest)
    return highest


def _bytes(segment: Segment, begin: int, length: int = -1) -> bytes:
    try:
        with segment.path.open("rb") as file:
            file.seek(begin)
            return file.read(length)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise refusal(error, "read the segment", segment.path) from error


def _first_wall_ns(segments: list[Segment], mark: Mark | None) -> int | None:
    """Return when the first of what is left was written; its segment's begin where it says none."""
    first = segments[0]
    header = first.header
    if header is None:
        return None
    for length in (_LOOK_BYTES, 2 * (HEAD_BYTES + MAX_PAYLOAD)):
        buffer = _bytes(first, _begin(first, mark), length)
        for part in walk(buffer, 0, after=_before(first, mark), is_growing=True):
            stamp_ns = _stamp_ns(part.payload) if isinstance(part, Frame) else None
            if stamp_ns is not None:
                return header.wall_ns(stamp_ns)
        if len(buffer) < length:
            break
    return header.created_wall_ns


def _stamp_ns(payload: bytes) -> int | None:
    """Return the moment that an entry tells of, monotonic, if it tells of one."""
    try:
        entry = decode(payload)
    except JournalError:
        return None
    if isinstance(entry, Decision | Refused):
        return entry.arrival_ns
    if isinstance(entry, Replied):
        return entry.base_ns
    if isinstance(entry, Pause):
        return entry.start_ns
    return entry.first_arrival_ns if isinstance(entry, Shed) else None
