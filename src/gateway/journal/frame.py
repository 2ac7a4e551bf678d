"""The journal's frame: what stands between two offsets of a segment file.

```
offset  0        4        8                16                16 + length
        +--------+--------+----------------+-----------------+
        | length | crc32c |    sequence    |     payload     |
        |  u32   |  u32   |      u64       |  length bytes   |
        +--------+--------+----------------+-----------------+
```

All little endian. `crc32c` (Castagnoli) covers every byte but its own: length, sequence, payload.
A payload has at least one byte, so that no run of zeros is ever a frame. Sequences rise within a
worker's boot; one that does not is left over from something older, and is no frame either.

Pure: bytes in, values out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct

from google_crc32c import extend, value

from gateway.errors import JournalError

MAX_PAYLOAD = 1 << 20
"""Bytes. A longer payload is refused when written and implausible when read."""

MAX_SKIP = 1 << 32
"""No boot leaves out more sequences than this between two frames."""

_HEAD = Struct("<IIQ")
_COVERED = Struct("<IQ")
HEAD_BYTES = _HEAD.size

# A length from 1 to MAX_PAYLOAD as it lies in the file: finds candidates at the speed of `re`.
_PLAUSIBLE_LENGTH = re.compile(rb"(?!\0\0\0\0)..[\x00-\x10]\x00", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Frame:
    """A whole frame with a good checksum; `offset` and `end` are bytes from the file's start."""

    offset: int
    sequence: int
    payload: bytes

    @property
    def end(self) -> int:
        """Where the next frame begins."""
        return self.offset + HEAD_BYTES + len(self.payload)


@dataclass(frozen=True, slots=True)
class Unframed:
    """`length` bytes from `offset` on that hold no frame."""

    offset: int
    length: int


def encode(sequence: int, payload: bytes) -> bytes:
    """Frame one payload.

    Raises:
        JournalError: the payload is empty or longer than MAX_PAYLOAD.
    """
    length = len(payload)
    if not 0 < length <= MAX_PAYLOAD:
        raise JournalError(
            f"a payload of {length} bytes does not fit a frame (1 to {MAX_PAYLOAD})",
            subject=f"sequence {sequence}",
            hint="Refuse so large a request before it is decided.",
        )
    crc = extend(value(_COVERED.pack(length, sequence)), payload)
    return _HEAD.pack(length, crc, sequence) + payload


def parse(buffer: bytes, offset: int, *, after: int) -> Frame | None:
    """Return the frame at `offset` whose sequence is higher than `after`, or None."""
    body = offset + HEAD_BYTES
    if body > len(buffer):
        return None
    length, crc, sequence = _HEAD.unpack_from(buffer, offset)
    if not 0 < length <= min(MAX_PAYLOAD, len(buffer) - body):
        return None
    if not after < sequence <= after + MAX_SKIP:
        return None
    payload = buffer[body : body + length]
    if extend(value(_COVERED.pack(length, sequence)), payload) != crc:
        return None
    return Frame(offset, sequence, payload)


def resynchronise(buffer: bytes, offset: int, *, after: int) -> Frame | None:
    """Return the first frame at or behind `offset` with a sequence higher than `after`, or None.

    A frame that a payload carries inside itself would be found too, if the frame around it is
    damaged: the checksum tells accidents apart, not an adversary who can also damage the disk.
    """
    candidate = _PLAUSIBLE_LENGTH.search(buffer, offset)
    while candidate:
        frame = parse(buffer, candidate.start(), after=after)
        if frame:
            return frame
        candidate = _PLAUSIBLE_LENGTH.search(buffer, candidate.start() + 1)
    return None


def may_go_on(buffer: bytes, offset: int, *, after: int) -> bool:
    """Say whether the bytes at `offset` may be a frame's begin whose rest is not there yet."""
    body = offset + HEAD_BYTES
    if body > len(buffer):
        return True
    length, _, sequence = _HEAD.unpack_from(buffer, offset)
    is_plausible = bool(0 < length <= MAX_PAYLOAD and after < sequence <= after + MAX_SKIP)
    return is_plausible and body + length > len(buffer)


def walk(
    buffer: bytes, start: int, *, after: int, is_growing: bool = False
) -> Iterator[Frame | Unframed]:
    """Yield everything from `start` to the buffer's end, leaving out no byte.

    `after`: the sequence before the first. An `Unframed` that reaches the end may be a torn tail;
    any other one is followed by a frame, so it is damage. `is_growing`: more may follow behind the
    buffer, so what may be half a frame is not searched for frames that its payload carries.
    """
    offset = start
    while offset < len(buffer):
        frame = parse(buffer, offset, after=after)
        if frame is None and is_growing and may_go_on(buffer, offset, after=after):
            yield Unframed(offset, len(buffer) - offset)
            return
        if frame is None:
            frame = resynchronise(buffer, offset + 1, after=after)
            end = frame.offset if frame else len(buffer)
            yield Unframed(offset, end - offset)
        if frame is None:
            return
        yield frame
        offset, after = frame.end, frame.sequence
