"""The journal's directory: made private, and written by one process a worker.

A directory that is there already keeps the permissions that its owner gave it.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from gateway.errors import JournalError
from gateway.journal.disk import refusal
from gateway.journal.segment import SegmentName, parse_name


def make_directory(directory: Path) -> None:
    """Make the directory with its parents, each for this user alone (0700).

    Raises:
        JournalError: it cannot be made or written, or is no directory.
    """
    try:
        missing = [path for path in (directory, *directory.parents) if not path.exists()]
        for path in reversed(missing):
            path.mkdir(mode=0o700, exist_ok=True)
        if not directory.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "it is no directory")
        if not os.access(directory, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "no permission to write")
    except OSError as error:
        raise refusal(error, "use the journal's directory", directory) from error


def sync_directory(directory: Path) -> None:
    """Make the directory's own entries durable. Raises OSError."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def segments_of(directory: Path, worker: int) -> list[tuple[SegmentName, Path]]:
    """Return the worker's segment files in the order in which they were begun.

    Raises:
        JournalError: the directory cannot be read.
    """
    try:
        named = [(parse_name(path.name), path) for path in directory.iterdir()]
    except OSError as error:
        raise refusal(error, "list the journal", directory) from error
    return sorted((name, path) for name, path in named if name and name.worker == worker)


def is_held(directory: Path, worker: int) -> bool:
    """Say whether a process writes this worker's segments.

    Raises:
        JournalError: the lock file cannot be made.
    """
    fd = _lock_file(directory, worker)
    try:
        return not _locked(fd)
    finally:
        os.close(fd)


def _lock_file(directory: Path, worker: int) -> int:
    path = directory / f"{worker:03d}.lock"
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise refusal(error, "make the lock file", path) from error


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


class Lock:
    """Held by the one process that writes a worker's segments; the kernel frees it on death."""

    def __init__(self, directory: Path, worker: int) -> None:
        """Take the lock.

        Raises:
            JournalError: another writer holds it, or the lock file cannot be made.
        """
        self._fd = _lock_file(directory, worker)
        if not _locked(self._fd):
            os.close(self._fd)
            raise JournalError(
                f"another writer holds the journal of worker {worker}",
                subject=str(directory / f"{worker:03d}.lock"),
                hint="Stop the other `gateway serve`, or name another --journal directory.",
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    def release(self) -> None:
        """Let another writer in. The file stays: to unlink it would race with who waits for it."""
        os.close(self._fd)
