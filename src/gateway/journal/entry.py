"""What a frame's payload says. Its first byte is the kind; all numbers are little endian.

```
DECISION    one call that was answered: u8 kind, the fixed part, traceparent, request, response
REFUSED     one call that was refused as the caller's fault; none of the request's values
REPLIED     when the replies to a run of sequences left, and which of them found nobody
GAP         sequences that stand in no segment any more, and why
PAUSE       the loop stood still
SHED        calls that were turned away unread, because not even a stand-in would have been in time
GENERATION  a product's generation begins to be served
REJECTED    a change of a product's folder that is not served, and why
SCORED      what models beside the one that decided made of earlier calls
SEALED      the last frame of a segment that was closed in order
```

`*_ns` without further word is the monotonic clock of the boot; the segment's header turns it into
wall time. `*_after_ns` counts from the entry's own arrival, as u32, saturating (`saturated`).

Pure: no file, no clock. What an action or a stand-in number means is the business of gateway.v1.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import IntEnum, IntFlag, unique
from struct import Struct, error, pack, unpack_from
from typing import Any, NamedTuple, Self

from gateway.errors import JournalDamaged

U32_MAX = 0xFFFF_FFFF
FOUND_NOBODY = U32_MAX
"""In `Replied.offsets_ns`: the caller had gone when the reply was ready."""

UNKNOWN_PRODUCT = 0xFFFF
"""In `Refused.product`: the call named no product that is served."""


def saturated(ns: int) -> int:
    """Return `ns` as it fits a u32: 4.29 s stands for everything longer."""
    return min(max(ns, 0), U32_MAX)


@unique
class Kind(IntEnum):
    """The first byte of a payload."""

    DECISION = 1
    REFUSED = 2
    REPLIED = 3
    GAP = 4
    PAUSE = 5
    GENERATION = 6
    SEALED = 7
    SHED = 8
    REJECTED = 9
    SCORED = 10


class Flag(IntFlag):
    """What else was true of a decision."""

    NEAR_TIE = 1
    EXPLORED = 2
    OVERRIDDEN = 4
    EXPIRED = 8  # the caller's deadline was already over on arrival
    FEATURES_LEFT_OUT = 16  # the request was kept without its features


_FLAGS = tuple(Flag(flags) for flags in range(256))


@unique
class Loss(IntEnum):
    """Why sequences are missing."""

    DISK_FULL = 1
    WRITE_FAILED = 2
    SYNC_FAILED = 3  # written, but whether they are on the disk is not known
    RETENTION = 4  # dropped to stay within the journal's limit


DECISION_HEAD = Struct("<BBBBBHIHQQ5IddddBBII")
"""The hot path packs a decision with this and appends the three byte strings:

`kind, flags, action, second_best, stand_in, product, generation, batch_size, arrival_ns,
deadline_ns, admit, encode, infer, decide, record (ends, ns after arrival), score, probability,
propensity, margin, len(traceparent), arm, len(request), len(response)`
"""

_REFUSED_HEAD = Struct("<BQIBHBH")
_REPLIED_HEAD = Struct("<BQQI")
_GAP = Struct("<BBQQQQH16s")
_PAUSE = Struct("<BQQ")
_SHED = Struct("<BQQI")
_LENGTH = Struct("<H")
_SCORED_HEAD = Struct("<BHBIIQI")
_SCORED_ROW = Struct("<QddB")


@dataclass(frozen=True, slots=True)
class Decision:
    """One answered call.

    `product`: index in the table of products. `second_best`: 0 where there is none. `deadline_ns`:
    the effective one. `score`: the model's output as it came, NaN for a stand-in. `margin`: minor
    units to the second best. `arm`: index in the generation's models, champion 0. `request` and
    `response`: protobuf bytes, as received and as sent.
    """

    flags: Flag
    action: int
    second_best: int
    stand_in: int
    product: int
    generation: int
    batch_size: int
    arrival_ns: int
    deadline_ns: int
    admit_after_ns: int
    encode_after_ns: int
    infer_after_ns: int
    decide_after_ns: int
    record_after_ns: int
    score: float
    probability: float
    propensity: float
    margin: float
    traceparent: str
    arm: int
    request: bytes
    response: bytes

    def encode(self) -> bytes:
        """Return the payload. Raises struct.error for a number outside its field."""
        traceparent = self.traceparent.encode("ascii")
        head = DECISION_HEAD.pack(
            Kind.DECISION,
            self.flags,
            self.action,
            self.second_best,
            self.stand_in,
            self.product,
            self.generation,
            self.batch_size,
            self.arrival_ns,
            self.deadline_ns,
            self.admit_after_ns,
            self.encode_after_ns,
            self.infer_after_ns,
            self.decide_after_ns,
            self.record_after_ns,
            self.score,
            self.probability,
            self.propensity,
            self.margin,
            len(traceparent),
            self.arm,
            len(self.request),
            len(self.response),
        )
        return b"".join((head, traceparent, self.request, self.response))

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Read what `encode` wrote. Raises struct.error or ValueError for anything else."""
        fixed = DECISION_HEAD.unpack_from(payload)
        traceparent_bytes, arm, request_bytes, response_bytes = fixed[-4:]
        request = DECISION_HEAD.size + traceparent_bytes
        response = request + request_bytes
        _expect_length(payload, response + response_bytes)
        traceparent = payload[DECISION_HEAD.size : request].decode("ascii")
        variable = (traceparent, arm, payload[request:response], payload[response:])
        return cls(_FLAGS[fixed[1]], *(*fixed[2:-4], *variable))


@dataclass(frozen=True, slots=True)
class Refused:
    """One call that was refused: `code` is the gRPC status, `fields` name what was wrong.

    Names only: a value, or the request's bytes, may be what must not be kept.
    """

    arrival_ns: int
    refused_after_ns: int
    code: int
    product: int
    traceparent: str
    fields: tuple[str, ...]

    def encode(self) -> bytes:
        """Return the payload. Raises struct.error above 65,535 fields or bytes in a name."""
        traceparent = self.traceparent.encode("ascii")
        head = _REFUSED_HEAD.pack(
            Kind.REFUSED,
            self.arrival_ns,
            self.refused_after_ns,
            self.code,
            self.product,
            len(traceparent),
            len(self.fields),
        )
        names = [name.encode() for name in self.fields]
        return b"".join((head, traceparent, *(_LENGTH.pack(len(name)) + name for name in names)))

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Read what `encode` wrote. Raises struct.error or ValueError for anything else."""
        _, arrival_ns, refused_after_ns, code, product, traceparent_bytes, count = (
            _REFUSED_HEAD.unpack_from(payload)
        )
        offset = _REFUSED_HEAD.size + traceparent_bytes
        traceparent = payload[_REFUSED_HEAD.size : offset].decode("ascii")
        fields = []
        for _ in range(count):
            (length,) = _LENGTH.unpack_from(payload, offset)
            start = offset + _LENGTH.size
            offset = start + length
            fields.append(payload[start:offset].decode())
        _expect_length(payload, offset)
        return cls(arrival_ns, refused_after_ns, code, product, traceparent, tuple(fields))


@dataclass(frozen=True, slots=True)
class Replied:
    """The reply to sequence `first_sequence + i` left `offsets_ns[i]` after `base_ns`.

    FOUND_NOBODY as an offset: the caller had gone.
    """

    first_sequence: int
    base_ns: int
    offsets_ns: tuple[int, ...]

    def encode(self) -> bytes:
        """Return the payload. Raises struct.error for a number outside its field."""
        count = len(self.offsets_ns)
        head = _REPLIED_HEAD.pack(Kind.REPLIED, self.first_sequence, self.base_ns, count)
        return head + pack(f"<{count}I", *self.offsets_ns)

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Read what `encode` wrote. Raises struct.error or ValueError for anything else."""
        _, first_sequence, base_ns, count = _REPLIED_HEAD.unpack_from(payload)
        _expect_length(payload, _REPLIED_HEAD.size + 4 * count)
        return cls(first_sequence, base_ns, unpack_from(f"<{count}I", payload, _REPLIED_HEAD.size))


@dataclass(frozen=True, slots=True)
class Gap:
    """Sequences `first_sequence` to `last_sequence` of a worker's boot are in no segment.

    `count` of them are lost. With RETENTION these are all or none: a run of dropped sequences is
    told as a whole each time that it grows, and 0 says that others count what is lost of it.
    """

    reason: Loss
    first_sequence: int
    last_sequence: int
    count: int
    wall_ns: int
    worker: int
    boot_id: bytes

    def encode(self) -> bytes:
        """Return the payload. Raises struct.error for a number outside its field."""
        return _GAP.pack(
            Kind.GAP,
            self.reason,
            self.first_sequence,
            self.last_sequence,
            self.count,
            self.wall_ns,
            self.worker,
            self.boot_id,
        )

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Read what `encode` wrote. Raises struct.error or ValueError for anything else."""
        _, reason, *rest = _GAP.unpack(payload)
        return cls(Loss(reason), *rest)


@dataclass(frozen=True, slots=True)
class Pause:
    """The loop did not come round for `duration_ns` from `start_ns` on."""

    start_ns: int
    duration_ns: int

    def encode(self) -> bytes:
        """Return the payload. Raises struct.error for a number outside its field."""
        return _PAUSE.pack(Kind.PAUSE, self.start_ns, self.duration_ns)

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Read what `encode` wrote. Raises struct.error for anything else."""
        _, start_ns, duration_ns = _PAUSE.unpack(payload)
        return cls(start_ns, duration_ns)


@dataclass(frozen=True, slots=True)
class Shed:
    """`count` calls that arrived between the two times were turned away, without a record each.

    Nothing of them was read: neither their product nor their deadline is known.
    """

    first_arrival_ns: int
    last_arrival_ns: int
    count: int

    def encode(self) -> bytes:
        """Return the payload. Raises struct.error for a number outside its field."""
        return _SHED.pack(Kind.SHED, self.first_arrival_ns, self.last_arrival_ns, self.count)

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Read what `encode` wrote. Raises struct.error for anything else."""
        return cls(*_SHED.unpack(payload)[1:])


@dataclass(frozen=True, slots=True)
class Generation:
    """A product's generation is served from here on, as `index` of this boot's products.

    An index is never used twice within a boot. `digest`: of the product's folder. `arms`: the names
    of its models, champion first. Also a row of the table in a segment's header.
    """

    index: int
    product: str
    generation: int
    digest: str
    arms: tuple[str, ...] = ()

    def row(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {
            "index": self.index,
            "product": self.product,
            "generation": self.generation,
            "digest": self.digest,
            "arms": list(self.arms),
        }

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Self:
        """Read the JSON object; unknown keys are a newer writer's. Raises KeyError, TypeError."""
        return cls(
            row["index"],
            row["product"],
            row["generation"],
            row["digest"],
            tuple(row.get("arms", ())),
        )

    def encode(self) -> bytes:
        """Return the payload: the kind, then JSON in UTF-8."""
        return bytes((Kind.GENERATION,)) + json.dumps(self.row()).encode()

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Read what `encode` wrote. Raises ValueError, KeyError, TypeError for anything else."""
        return cls.from_row(json.loads(payload[1:]))


@dataclass(frozen=True, slots=True)
class Rejected:
    """A product's folder holds what is not served: the generation before goes on.

    `generation` is 0, and `digest` empty, where the folder could not be read so far.
    """

    product: str
    folder: str
    generation: int
    digest: str
    why: tuple[str, ...]

    def encode(self) -> bytes:
        """Return the payload: the kind, then JSON in UTF-8."""
        return bytes((Kind.REJECTED,)) + json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Read what `encode` wrote. Raises ValueError, KeyError, TypeError for anything else."""
        row = json.loads(payload[1:])
        return cls(**{**row, "why": tuple(row["why"])})


class ScoredCall(NamedTuple):
    """What an arm that did not decide made of the call of an earlier sequence.

    `action`: what it would have been, without exploration.
    """

    sequence: int
    score: float
    probability: float
    action: int


@dataclass(frozen=True, slots=True)
class Scored:
    """One arm of a generation beside those that decided: `calls`, and how many it left out.

    `product`: index in the table of products. `arm`: place in the generation's models. `skipped`:
    calls that a model decided since the last such entry, and that there was no time to score;
    `failed`: calls that it gave no probability for. `took_ns`: what the model took for `calls`.
    """

    product: int
    arm: int
    skipped: int
    failed: int
    took_ns: int
    calls: tuple[ScoredCall, ...]

    def encode(self) -> bytes:
        """Return the payload. Raises struct.error for a number outside its field."""
        head = _SCORED_HEAD.pack(
            *(Kind.SCORED, self.product, self.arm, self.skipped, self.failed, self.took_ns),
            len(self.calls),
        )
        return head + b"".join(_SCORED_ROW.pack(*call) for call in self.calls)

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Read what `encode` wrote. Raises struct.error or ValueError for anything else."""
        _, *fixed, count = _SCORED_HEAD.unpack_from(payload)
        _expect_length(payload, _SCORED_HEAD.size + count * _SCORED_ROW.size)
        rows = _SCORED_ROW.iter_unpack(payload[_SCORED_HEAD.size :])
        product, arm, skipped, failed, took_ns = fixed
        calls = tuple(map(ScoredCall._make, rows))
        return cls(product, arm, skipped, failed, took_ns, calls)


@dataclass(frozen=True, slots=True)
class Sealed:
    """Nothing follows in this segment, and nothing was meant to."""

    def encode(self) -> bytes:
        """Return the payload: the kind alone."""
        return bytes((Kind.SEALED,))

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Read what `encode` wrote. Raises ValueError for anything else."""
        _expect_length(payload, 1)
        return cls()


Entry = Decision | Refused | Replied | Gap | Pause | Shed | Generation | Rejected | Scored | Sealed

_ENTRIES: dict[int, type[Entry]] = {
    Kind.DECISION: Decision,
    Kind.REFUSED: Refused,
    Kind.REPLIED: Replied,
    Kind.GAP: Gap,
    Kind.PAUSE: Pause,
    Kind.GENERATION: Generation,
    Kind.SEALED: Sealed,
    Kind.SHED: Shed,
    Kind.REJECTED: Rejected,
    Kind.SCORED: Scored,
}


def kind_of(entry: Entry) -> Kind:
    """Return the kind that `entry` is written as."""
    return next(Kind(kind) for kind, its_class in _ENTRIES.items() if isinstance(entry, its_class))


def decode(payload: bytes) -> Entry:
    """Read one payload.

    Raises:
        JournalDamaged: it is of no known kind, or not what its kind demands. The message carries
            nothing of the payload but the kind.
    """
    kind = payload[0] if payload else 0
    if kind not in _ENTRIES:
        raise JournalDamaged(
            f"an entry of unknown kind {kind}",
            hint="A newer gateway may have written it; read the journal with that one.",
        )
    try:
        return _ENTRIES[kind].decode(payload)
    except (error, ValueError, KeyError, TypeError, RecursionError):
        raise JournalDamaged(
            f"a {Kind(kind).name} entry that cannot be decoded",
            hint="The checksum is good: it was written so. Please report it.",
        ) from None


def _expect_length(payload: bytes, length: int) -> None:
    if len(payload) != length:
        raise ValueError(f"{len(payload)} bytes where {length} are declared")
