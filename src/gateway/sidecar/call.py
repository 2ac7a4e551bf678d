"""What the tail gives out: whole calls, and what the journal says beside them.

A call is given out once its reply is known or cannot become known any more, and its shadow scores
have come or are not waited for any longer; a score that comes later is a `LateScored`.

Pure: values only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from gateway.journal import Generation, Record, Reply, ScoredCall


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a caller: its record, a Decision or a Refused, and what became of it.

    `generation`: None where the journal does not know it, or the call named no product that is
    served. `replied_ns`: monotonic, where the reply left. `scored`: by arm, what the models that
    did not decide made of it.
    """

    record: Record
    generation: Generation | None
    reply: Reply
    replied_ns: int | None
    scored: tuple[tuple[int, ScoredCall], ...] = ()


@dataclass(frozen=True, slots=True)
class LateScored:
    """A shadow score whose call was given out before. `record`: the Scored that holds it."""

    record: Record
    arm: int
    call: ScoredCall


Aside = Record | LateScored
"""What is no call: a record of Shed, Pause, Gap, Generation or Rejected, or a late score."""


class Range(NamedTuple):
    """Sequences of one worker's boot, both ends included."""

    worker: int
    boot_id: bytes
    first_sequence: int
    last_sequence: int


class Mark(NamedTuple):
    """Where a worker's boot is read up to: everything before `offset` bytes of `segment`'s file.

    `sequence`: of the last frame before it.
    """

    segment: str
    offset: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Position:
    """What a consumer checkpoints: a mark by (worker, boot id)."""

    marks: Mapping[tuple[int, bytes], Mark] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Batch:
    """Calls and asides, whole ranges of sequences of them; reading goes on at `until`."""

    calls: tuple[Call, ...]
    asides: tuple[Aside, ...]
    ranges: tuple[Range, ...]
    until: Position
