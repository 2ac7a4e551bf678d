"""A segment that is open for appending.

It never puts a frame behind half a frame: what was written in part is cut away before the error is
raised, and where even that fails the file says so (`torn`) and must not be appended to again.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

from gateway.journal.directory import sync_directory
from gateway.journal.disk import Disk
from gateway.journal.segment import SegmentName


class SegmentFile:
    """One open file. `size`: bytes that count; `torn`: more than those may stand in it."""

    __slots__ = ("_disk", "_fd", "name", "path", "size", "torn")

    def __init__(self, path: Path, name: SegmentName, fd: int, disk: Disk) -> None:
        self.path = path
        self.name = name
        self.size = 0
        self.torn = False
        self._fd = fd
        self._disk = disk

    @classmethod
    def create(cls, path: Path, name: SegmentName, disk: Disk) -> Self:
        """Create the file, empty, for this user alone (0600). Raises OSError."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        return cls(path, name, os.open(path, flags, 0o600), disk)

    def begin(self, header: bytes, *, sync: bool) -> None:
        """Write the header and make the name durable. Raises OSError; the file is gone then."""
        try:
            self.append(header)
            if sync:
                self.sync()
            sync_directory(self.path.parent)
        except OSError:
            self.close()
            self.path.unlink(missing_ok=True)
            raise

    def append(self, frames: bytes) -> None:
        """Write all of `frames`, or none. Raises OSError."""
        try:
            written = self._disk.write(self._fd, frames)
            while written < len(frames):
                written += self._disk.write(self._fd, frames[written:])
        except OSError:
            self._cut_back()
            raise
        self.size += written

    def sync(self) -> None:
        """Wait until it is on the disk. Raises OSError, once: the kernel forgets what it lost."""
        self._disk.fdatasync(self._fd)

    def cut(self, size: int) -> None:
        """Give up what stands behind `size`, as far as the disk lets us; `torn` if it does not."""
        self.size = size
        self._cut_back()

    def stray_bytes(self) -> int:
        """Return how many bytes stand behind `size`, where they could not be cut away."""
        return max(0, os.fstat(self._fd).st_size - self.size)

    def close(self) -> None:
        """Close the file as it is."""
        os.close(self._fd)

    def _cut_back(self) -> None:
        try:
            self._disk.ftruncate(self._fd, self.size)
        except OSError:
            self.torn = True
