"""What the journal asks of a disk, and what it says when the disk refuses.

The three calls that can lose a record are behind `Disk`, so that tests can fail each of them.
`os` itself is one.
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Protocol

from gateway.errors import JournalError, JournalFull

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_RIGHT = "Give this user the right to write there, or name another --journal directory."
_IN_THE_WAY = "A file stands where the directory should be: name another --journal directory."
_HINTS = {
    errno.EACCES: _NO_RIGHT,
    errno.EPERM: _NO_RIGHT,
    errno.EROFS: "The file system is read-only: name another --journal directory.",
    errno.EEXIST: _IN_THE_WAY,
    errno.ENOTDIR: _IN_THE_WAY,
    errno.EMFILE: "Raise the limit of open files (ulimit -n).",
    errno.EIO: "The disk fails: see the kernel's log, and name a --journal directory elsewhere.",
}


class Disk(Protocol):
    """The calls of `os` that can lose a record. Each raises OSError."""

    def write(self, fd: int, frames: bytes, /) -> int:
        """Write some of `frames` and return how many bytes."""

    def fdatasync(self, fd: int, /) -> None:
        """Return when what was written is on the disk."""

    def ftruncate(self, fd: int, length: int, /) -> None:
        """Cut the file to `length` bytes."""


def refusal(error: OSError, operation: str, subject: Path) -> JournalError:
    """Say what the disk refused, as JournalFull where space is what it lacks."""
    what = f"cannot {operation}: {error.strerror or type(error).__name__}"
    if error.errno in _FULL:
        hint = "Free space on the disk, or give less to the journal with --journal-max-bytes."
        return JournalFull(what, subject=str(subject), hint=hint)
    hint = _HINTS.get(error.errno or 0, "Look whether the directory and its disk are in order.")
    return JournalError(what, subject=str(subject), hint=hint)
