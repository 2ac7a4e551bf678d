"""A segment file's header and its name.

```
offset  0   magic                 8 bytes, "GWJOURNL"
        8   version               u16
       10   worker                u16
       12   boot id               16 bytes
       28   created_wall_ns       u64
       36   created_monotonic_ns  u64
       44   first_sequence        u64
       52   length of the table   u32
       56   table                 JSON, UTF-8
        …   crc32c                u32
        …   frames                to the file's end
```

All little endian; `crc32c` covers everything before it. The table holds the products that were
served when the segment began, `recovered`: how much of earlier segments counts, and `dropped`: what
was dropped before, for the next process that writes and loses what said so. The name
repeats worker, boot id and first sequence, so that a damaged header does not cost the frames
behind it:

`<created ns, 20 digits>-<worker, 3>-<boot id, 32 hex>-<first sequence, 15>.journal`

Names of one worker sort in the order in which its segments were begun: the writer never puts a
time into a name that is not later than the one before, even if the clock was set back.

Pure: bytes and text in, values out.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from struct import Struct
from typing import Any, Self

from google_crc32c import value

from gateway.errors import JournalDamaged
from gateway.journal.entry import Generation

MAGIC = b"GWJOURNL"
VERSION = 1
MAX_TABLE = 1 << 20
"""Bytes of JSON. More is implausible."""

SUFFIX = ".journal"

_FIXED = Struct("<8sHH16sQQQI")
_CRC = Struct("<I")
MAX_HEADER = _FIXED.size + MAX_TABLE + _CRC.size
_NAME = re.compile(r"(\d{20})-(\d{3})-([0-9a-f]{32})-(\d{15})\.journal", re.ASCII)


class HeaderIncomplete(JournalDamaged):
    """The file ends before its header does: its writer was stopped while it began the file."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """Of an earlier segment, the first `kept_bytes` count; `cut_bytes` behind them were cut."""

    segment: str
    kept_bytes: int
    cut_bytes: int

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Self:
        """Read the JSON object. Raises KeyError or TypeError."""
        return cls(row["segment"], row["kept_bytes"], row["cut_bytes"])


@dataclass(frozen=True, slots=True)
class Dropped:
    """A run of sequences of one of the worker's boots that were dropped before the segment began.

    `is_lost`: all of them were lost; else others say what of it was.
    """

    boot_id: bytes
    first_sequence: int
    last_sequence: int
    is_lost: bool

    def row(self) -> list[Any]:
        """Return the JSON array."""
        return [self.boot_id.hex(), self.first_sequence, self.last_sequence, self.is_lost]

    @classmethod
    def from_row(cls, row: list[Any]) -> Self:
        """Read the JSON array. Raises ValueError or TypeError."""
        boot_id, first, last, is_lost = row
        return cls(bytes.fromhex(boot_id), int(first), int(last), is_lost is True)


@dataclass(frozen=True, slots=True)
class Header:
    """What a segment says about itself before its first frame."""

    worker: int
    boot_id: bytes
    created_wall_ns: int
    created_monotonic_ns: int
    first_sequence: int
    products: tuple[Generation, ...] = ()
    recovered: tuple[Recovered, ...] = ()
    dropped: tuple[Dropped, ...] = ()

    def wall_ns(self, monotonic_ns: int) -> int:
        """Turn a monotonic stamp of this boot into nanoseconds since the epoch."""
        return self.created_wall_ns + monotonic_ns - self.created_monotonic_ns

    def encode(self) -> bytes:
        """Return the header's bytes, checksum included."""
        table = json.dumps(
            {
                "products": [generation.row() for generation in self.products],
                "recovered": [asdict(recovered) for recovered in self.recovered],
                "dropped": [dropped.row() for dropped in self.dropped],
            }
        ).encode()
        covered = (
            _FIXED.pack(
                MAGIC,
                VERSION,
                self.worker,
                self.boot_id,
                self.created_wall_ns,
                self.created_monotonic_ns,
                self.first_sequence,
                len(table),
            )
            + table
        )
        return covered + _CRC.pack(value(covered))


@dataclass(frozen=True, slots=True, order=True)
class SegmentName:
    """A segment file's name, in the order in which segments were begun."""

    created_ns: int
    worker: int
    boot_id: bytes
    first_sequence: int

    def __str__(self) -> str:
        return (
            f"{self.created_ns:020d}-{self.worker:03d}-{self.boot_id.hex()}"
            f"-{self.first_sequence:015d}{SUFFIX}"
        )


def parse_name(name: str) -> SegmentName | None:
    """Read a segment's file name, or return None where it is none."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    created_ns, worker, boot_id, first_sequence = match.groups()
    return SegmentName(int(created_ns), int(worker), bytes.fromhex(boot_id), int(first_sequence))


def decode_header(buffer: bytes) -> tuple[Header, int]:
    """Read the header at the start of `buffer`; the number is where the first frame begins.

    Raises:
        HeaderIncomplete: the buffer ends before the header does.
        JournalDamaged: it is altered, or of a version that is not known.
    """
    if len(buffer) < _FIXED.size:
        raise HeaderIncomplete("the file ends before its header does")
    magic, version, worker, boot_id, wall_ns, monotonic_ns, first_sequence, length = (
        _FIXED.unpack_from(buffer)
    )
    if magic != MAGIC:
        raise JournalDamaged("the file does not begin as a journal segment does")
    end = _FIXED.size + length
    if length > MAX_TABLE:
        raise JournalDamaged(f"the header declares a table of {length} bytes")
    if len(buffer) < end + _CRC.size:
        raise HeaderIncomplete("the file ends before its header does")
    if (value(buffer[:end]),) != _CRC.unpack_from(buffer, end):
        raise JournalDamaged("the header's checksum is wrong")
    if version != VERSION:
        raise JournalDamaged(
            f"the segment is of version {version}, this gateway reads {VERSION}",
            hint="Read it with the gateway that wrote it.",
        )
    table = _decode_table(buffer[_FIXED.size : end])
    header = Header(worker, boot_id, wall_ns, monotonic_ns, first_sequence, *table)
    return header, end + _CRC.size


def _decode_table(
    table: bytes,
) -> tuple[tuple[Generation, ...], tuple[Recovered, ...], tuple[Dropped, ...]]:
    try:
        rows = json.loads(table)
        return (
            tuple(Generation.from_row(row) for row in rows["products"]),
            tuple(Recovered.from_row(row) for row in rows["recovered"]),
            tuple(Dropped.from_row(row) for row in rows.get("dropped", ())),  # earlier: none
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise JournalDamaged("the header's table cannot be read") from None
