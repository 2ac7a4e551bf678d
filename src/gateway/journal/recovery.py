"""What a writer finds at the end of a segment that an earlier one left behind."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import JournalDamaged
from gateway.journal.disk import Disk, refusal
from gateway.journal.frame import Frame, walk
from gateway.journal.segment import (
    MAX_HEADER,
    Dropped,
    Recovered,
    SegmentName,
    decode_header,
)


@dataclass(frozen=True, slots=True)
class Tail:
    """`kept_bytes`: up to the end of the last good frame; `last_sequence`: that frame's, if any."""

    kept_bytes: int
    cut_bytes: int
    last_sequence: int | None


def find_tail(buffer: bytes, *, first_sequence: int) -> Tail:
    """Find where a segment's good frames end.

    A segment with neither header nor frame is kept whole: there is nothing to append behind, and
    what it was can still be looked at.
    """
    try:
        _, start = decode_header(buffer)
    except JournalDamaged:
        start = 0
    kept_bytes, last_sequence = start, None
    for part in walk(buffer, start, after=first_sequence - 1):
        if isinstance(part, Frame):
            kept_bytes, last_sequence = part.end, part.sequence
    if kept_bytes == 0:
        kept_bytes = len(buffer)
    return Tail(kept_bytes, len(buffer) - kept_bytes, last_sequence)


def read_tail(path: Path, name: SegmentName) -> Tail:
    """Find where the file's good frames end. Raises JournalError where it cannot be read."""
    try:
        return find_tail(path.read_bytes(), first_sequence=name.first_sequence)
    except OSError as error:
        raise refusal(error, "read the segment", path) from error


def find_dropped(files: Sequence[tuple[SegmentName, Path]]) -> tuple[Dropped, ...]:
    """Return what the latest of a worker's headers that can be read says of what was dropped.

    Raises:
        JournalError: a file cannot be read.
    """
    for _, path in reversed(files):
        try:
            with path.open("rb") as file:
                header, _ = decode_header(file.read(MAX_HEADER))
        except JournalDamaged:
            continue
        except OSError as error:
            raise refusal(error, "read the segment", path) from error
        return header.dropped
    return ()


def find_torn(files: Sequence[tuple[SegmentName, Path]]) -> list[Recovered]:
    """Look at the latest of a worker's segments, and say how much of it counts if its tail is torn.

    Raises:
        JournalError: it cannot be read.
    """
    if not files:
        return []
    name, path = files[-1]
    tail = read_tail(path, name)
    return [Recovered(path.name, tail.kept_bytes, tail.cut_bytes)] if tail.cut_bytes else []


def cut_tail(path: Path, recovered: Recovered, disk: Disk) -> None:
    """Cut a torn tail off. Raises JournalError where the file cannot be cut."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            disk.ftruncate(fd, recovered.kept_bytes)
        finally:
            os.close(fd)
    except OSError as error:
        raise refusal(error, "cut the torn tail", path) from error
