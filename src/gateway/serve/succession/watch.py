"""Has a product's folder changed, and has it come to rest? Seen without reading a file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

LOOK_S = 0.2
"""A folder is looked at so often: a few `stat` calls, whatever the file system and the links."""

SETTLED_S = 0.4
"""A folder that changed is left alone until nothing has changed for so long."""

_FILES_MAX = 2_000
_DEPTH_MAX = 4

Signature = tuple[tuple[str, int, int, int], ...]
"""Each file's name, inode, size and time of change; a number of the system's errors instead."""


def signature(folder: Path) -> Signature:
    """Return what a folder looks like now; never raises.

    Names that begin with a dot are left out. What a symlink leads to is looked at, so that a link
    that is swapped (as Kubernetes swaps `..data`) is a change.
    """
    seen: list[tuple[str, int, int, int]] = []
    _look(folder.parent if folder.is_file() else folder, "", 0, seen)
    return tuple(sorted(seen))


def _look(path: Path, name: str, depth: int, seen: list[tuple[str, int, int, int]]) -> None:
    try:
        with os.scandir(path) as entries:
            # Files first: product.yaml is among them, however much else there is.
            found = sorted(entries, key=lambda entry: entry.is_dir())
    except OSError as error:
        seen.append((name, -(error.errno or 1), 0, 0))
        return
    for entry in found:
        if entry.name.startswith(".") or len(seen) >= _FILES_MAX:
            continue
        inner = f"{name}{entry.name}"
        if depth < _DEPTH_MAX and entry.is_dir():
            _look(path / entry.name, f"{inner}/", depth + 1, seen)
            continue
        try:
            stat = entry.stat()
        except OSError as error:  # a link that leads nowhere, or a file that has just gone
            seen.append((inner, -(error.errno or 1), 0, 0))
        else:
            seen.append((inner, stat.st_ino, stat.st_size, stat.st_mtime_ns))


class Watch:
    """One folder. `clock_s` is monotonic.

    What was `tried` is not offered again until it changes.
    """

    def __init__(
        self,
        folder: Path,
        *,
        clock_s: Callable[[], float],
        look: Callable[[Path], Signature] = signature,
    ) -> None:
        self.folder = folder
        self._clock_s = clock_s
        self._look = look
        self._tried: Signature | None = None
        self._seen: Signature | None = None
        self._since_s = 0.0

    def settled(self) -> Signature | None:
        """Look; return what the folder looks like where it was not tried so, and is at rest."""
        now, now_s = self._look(self.folder), self._clock_s()
        if now != self._seen:
            self._seen, self._since_s = now, now_s
        if now == self._tried or now_s - self._since_s < SETTLED_S:
            return None
        return now

    def tried(self, what: Signature | None) -> None:
        """Take in what was tried; None to be offered the folder again as it is."""
        self._tried = what
