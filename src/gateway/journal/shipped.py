"""What every consumer of the journal is past: said by the sidecar, read by a writer that must drop.

`<journal>/shipped.json`, a line of JSON and a line with its crc32c in hex:

    {"version": 1, "consumers": [name, …], "keep_s": 604800.0 or null,
     "past": [{"segment": file name, "whole": true}, …],
     "dropped": [{"worker": 0, "boot": 32 hex digits, "first": 1, "last": 99}, …]}

`past`: of each boot, everything before the segment, and the segment itself where `whole`.
`dropped`: sequences whose segments were deleted because every consumer was past them.

What it says stays true when nobody goes on writing it: who was past a segment remains so. It
appears by rename. Where it is absent or damaged, nothing counts as shipped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google_crc32c import value

from gateway.errors import JournalDamaged
from gateway.journal.directory import sync_directory
from gateway.journal.disk import refusal
from gateway.journal.segment import SegmentName, parse_name
from gateway.journal.spans import Span

NAME = "shipped.json"
VERSION = 1

_BYTES_MAX = 4 << 20
"""More is implausible: a boot takes two hundred."""

Boot = tuple[int, bytes]
"""Worker and boot id."""


@dataclass(frozen=True, slots=True)
class Bound:
    """Everything of a boot before the segment `name`; that too, where it `is_whole`."""

    name: SegmentName
    is_whole: bool


@dataclass(frozen=True, slots=True)
class Shipped:
    """`consumers`: by name, those that `past` and `dropped` speak for.

    `keep_s`: how long a segment stays after that; None where nobody deletes any.
    """

    consumers: tuple[str, ...] = ()
    keep_s: float | None = None
    past: Mapping[Boot, Bound] = field(default_factory=dict)
    dropped: Mapping[Boot, Sequence[Span]] = field(default_factory=dict)

    def holds(self, path: Path) -> bool:
        """Say whether every consumer is past the segment at `path`."""
        name = parse_name(path.name)
        bound = self.past.get((name.worker, name.boot_id)) if name else None
        if name is None or bound is None:
            return False
        return name < bound.name or (name == bound.name and bound.is_whole)

    def encode(self) -> bytes:
        """Return the file's bytes."""
        row = {
            "version": VERSION,
            "consumers": list(self.consumers),
            "keep_s": self.keep_s,
            "past": [
                {"segment": str(one.name), "whole": one.is_whole} for one in self.past.values()
            ],
            "dropped": [
                {"worker": worker, "boot": boot_id.hex(), "first": first, "last": last}
                for (worker, boot_id), spans in self.dropped.items()
                for first, last in spans
            ],
        }
        text = json.dumps(row).encode()
        return b"%b\n%08x\n" % (text, value(text))


class Published:
    """What the file in a journal's directory says: whether a segment is shipped.

    It is looked at when it is asked, and read where it is another one than before.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / NAME
        self._seen: tuple[int, int, int] | None = None
        self._shipped = Shipped()

    def __call__(self, path: Path) -> bool:
        """Say whether every consumer is past the segment; never raises."""
        try:
            found = self._path.stat()
        except OSError:
            return False
        seen = found.st_ino, found.st_mtime_ns, found.st_size
        if seen != self._seen:
            self._shipped, self._seen = load_shipped(self._path.parent), seen
        return self._shipped.holds(path)


def load_shipped(directory: Path) -> Shipped:
    """Return what was published in a journal's directory; nothing where that cannot be read."""
    try:
        with (directory / NAME).open("rb") as file:
            return decode_shipped(file.read(_BYTES_MAX))
    except (OSError, JournalDamaged):
        return Shipped()


def save_shipped(directory: Path, shipped: Shipped) -> None:
    """Publish, durably and by rename.

    Raises:
        JournalError: it cannot be written; what was published before stands.
    """
    path = directory / NAME
    new = path.with_suffix(".new")
    try:
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(shipped.encode())
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
        sync_directory(directory)
    except OSError as error:
        raise refusal(error, "publish what is shipped", path) from error


def decode_shipped(content: bytes) -> Shipped:
    """Read what `Shipped.encode` wrote.

    Raises:
        JournalDamaged: it did not.
    """
    text, _, check = content.partition(b"\n")
    try:
        if check != b"%08x\n" % value(text):
            raise ValueError("its checksum is wrong")
        return _decoded(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise JournalDamaged(
            "what is shipped cannot be read",
            subject=NAME,
            hint="Delete it: a running sidecar writes it again.",
        ) from None


def _decoded(row: dict[str, Any]) -> Shipped:
    if row["version"] != VERSION:
        raise ValueError("another version")
    past: dict[Boot, Bound] = {}
    for one in row["past"]:
        name = parse_name(one["segment"])
        if name is None:
            raise ValueError("no segment")
        past[name.worker, name.boot_id] = Bound(name, one["whole"] is True)
    dropped: dict[Boot, list[Span]] = {}
    for one in row["dropped"]:
        boot = int(one["worker"]), bytes.fromhex(one["boot"])
        dropped.setdefault(boot, []).append((int(one["first"]), int(one["last"])))
    keep_s = row["keep_s"]
    return Shipped(
        tuple(map(str, row["consumers"])), None if keep_s is None else float(keep_s), past, dropped
    )
