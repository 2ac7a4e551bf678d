"""A disk that fails when told to, a clock that stands still, and ways to stop a writer."""

from __future__ import annotations

import errno
import os
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from gateway.journal import Entry, Record, Writer, read, segments


@dataclass
class FaultyDisk:
    """`os`, but each write first takes an outcome from `writes`: an errno, or bytes to take."""

    writes: deque[tuple[int, int]] = field(default_factory=deque)
    syncs: deque[int] = field(default_factory=deque)
    cuts: deque[int] = field(default_factory=deque)
    calls: list[str] = field(default_factory=list)

    def fail_write(self, error: int, after_bytes: int = 0) -> None:
        """Let the next write take `after_bytes`, and then raise `error`."""
        if after_bytes:
            self.writes.append((0, after_bytes))
        self.writes.append((error, 0))

    def write(self, fd: int, frames: bytes) -> int:
        self.calls.append("write")
        error, length = self.writes.popleft() if self.writes else (0, len(frames))
        if error:
            raise OSError(error, os.strerror(error))
        return os.write(fd, frames[:length])

    def fdatasync(self, fd: int) -> None:
        self.calls.append("fdatasync")
        if self.syncs and (error := self.syncs.popleft()):
            raise OSError(error, os.strerror(error))

    def ftruncate(self, fd: int, length: int) -> None:
        self.calls.append("ftruncate")
        if self.cuts and (error := self.cuts.popleft()):
            raise OSError(error, os.strerror(error))
        os.ftruncate(fd, length)

    def mend(self) -> None:
        self.writes.clear()
        self.syncs.clear()
        self.cuts.clear()


@dataclass
class Clock:
    now_ns: int = 1_700_000_000_000_000_000

    def __call__(self) -> int:
        return self.now_ns

    def advance(self, ns: int) -> None:
        self.now_ns += ns


def crash(writer: Writer) -> None:
    """What SIGKILL does: the kernel closes the files, and nothing else happens."""
    writer._chain.end()
    writer._lock.release()
    writer._closed = True


def entries(directory: Path) -> dict[tuple[bytes, int], Entry]:
    """Every entry that can be read, by boot id and sequence; each must stand there once."""
    found: dict[tuple[bytes, int], Entry] = {}
    for segment in segments(directory):
        for item in read(segment):
            if isinstance(item, Record):
                key = segment.name.boot_id, item.sequence
                assert key not in found
                found[key] = item.entry
    return found


NO_SPACE = errno.ENOSPC
IO_ERROR = errno.EIO
