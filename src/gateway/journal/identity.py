"""A decision's id: where it stands in the journal, as text of fixed length.

`0123456789abcdef-07-00000000002a`: the first 8 bytes of the boot id, the worker, the sequence, each
in lower-case hex. Whoever holds the id can find the record; the caller learns no more from it than
how many records the worker has written since it started.
"""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_WORKER = 0xFF
MAX_SEQUENCE = 0xFFFF_FFFF_FFFF

_PATTERN = re.compile(r"([0-9a-f]{16})-([0-9a-f]{2})-([0-9a-f]{12})", re.ASCII)


class Place(NamedTuple):
    """What a decision id says; `boot` is the first 8 bytes of the boot id."""

    boot: bytes
    worker: int
    sequence: int


def decision_id(boot_id: bytes, worker: int, sequence: int) -> str:
    """Return the id: 32 characters. `boot_id`: 16 bytes."""
    return f"{boot_id[:8].hex()}-{worker:02x}-{sequence:012x}"


def parse_decision_id(text: str) -> Place:
    """Read a decision id. Raises ValueError where `text` is none."""
    match = _PATTERN.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{text[:64]!r} is no decision id, such as 0123456789abcdef-07-00000000002a"
        )
    boot, worker, sequence = match.groups()
    return Place(bytes.fromhex(boot), int(worker, 16), int(sequence, 16))
