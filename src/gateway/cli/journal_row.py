"""What a journal says, a row a call: as one line for people, as one JSON object for programs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from enum import IntEnum
from math import isfinite
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict

from gateway.cli.decide import as_json
from gateway.cli.terms import microseconds, utc_time
from gateway.journal import (
    Answered,
    Damage,
    Decision,
    Entry,
    Gap,
    Generation,
    Pause,
    Record,
    Refused,
    Rejected,
    Reply,
    Scored,
    ScoredCall,
    Shed,
    TornTail,
    decision_id,
    join_replied,
    read,
    segments,
)
from gateway.v1.decision_pb2 import Action, DecideRequest, DecideResponse, StandIn

Row = Answered | Record | Damage | TornTail


def rows_of(directory: Path) -> Iterator[Row]:
    """Yield every call with its reply, and in between what else the journal says.

    Raises:
        JournalError: a segment cannot be read.
    """
    asides: list[Record | Damage | TornTail] = []

    def records() -> Iterator[Record]:
        for segment in segments(directory):
            for item in read(segment):
                if not isinstance(item, Record):
                    asides.append(item)
                    continue
                if isinstance(item.entry, Gap | Pause | Shed | Generation | Rejected | Scored):
                    asides.append(item)
                yield item

    for answered in join_replied(records()):
        yield from asides
        asides.clear()
        yield answered
    yield from asides


def headed(time: str, action: str, p: str, used: str, what: str, product: str, note: str) -> str:
    """Set one row's columns. A decision id has 32 characters; what may be long comes last."""
    return f"{time:12} {action:7} {p:>8} {used:>7} {what:32} {product} {note}".rstrip()


HEADING = headed(
    "time (UTC)", "action", "P(fraud)", "used", "decision, or what is wrong", "product", ""
)


def as_line(row: Row) -> str:
    """Return a row as one line under HEADING."""
    if isinstance(row, Damage | TornTail):
        kind = "damage" if isinstance(row, Damage) else "torn"
        what = f"{row.length} bytes at {row.offset} of {row.path.name}"
        return headed("", kind, "", "", what, "", "")
    record = row.record if isinstance(row, Answered) else row
    entry = record.entry
    if isinstance(entry, Decision):
        return headed(
            _clock(record.wall_ns(entry.arrival_ns)),
            Action.Name(entry.action).lower().replace("_", " "),
            _percent(entry.probability) if isfinite(entry.probability) else "",
            microseconds(entry.record_after_ns / 1000),
            _id(record),
            _product(record) or "",
            _note(row, StandIn.Name(entry.stand_in).lower() if entry.stand_in else ""),
        )
    if isinstance(entry, Refused):
        return headed(
            _clock(record.wall_ns(entry.arrival_ns)),
            "refused",
            "",
            microseconds(entry.refused_after_ns / 1000),
            ", ".join(entry.fields) or f"status {entry.code}",
            _product(record) or "",
            _note(row, ""),
        )
    shown = ((name, len(value) if name == "calls" else value) for name, value in _details(entry))
    details = ", ".join(f"{name}={_plain(value)}" for name, value in shown)
    return headed("", type(entry).__name__.lower(), "", "", details, "", "")


def _note(row: Answered | Record, stand_in: str) -> str:
    """Say what is unusual: a stand-in, or a reply that did not reach its caller."""
    notes = [f"stood in: {stand_in.replace('_', ' ')}"] if stand_in else []
    if isinstance(row, Answered) and row.reply is not Reply.LEFT:
        notes.append(f"reply {row.reply.value}")
    return "; ".join(notes)


def _details(entry: Entry) -> Iterator[tuple[str, Any]]:
    for name in entry.__slots__:
        yield name, getattr(entry, name)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple):
        return [one._asdict() if isinstance(one, ScoredCall) else one for one in value]
    return value.name.lower() if isinstance(value, IntEnum) else value


def _percent(probability: float) -> str:
    """Return a share in at most seven characters: three decimals where it is small."""
    return f"{probability:.3%}" if probability < 0.1 else f"{probability:.2%}"


def as_object(row: Row, *, features: bool) -> dict[str, Any]:
    """Return a row as JSON values, times in µs; `features`: the request's too."""
    if isinstance(row, Damage | TornTail):
        kind = "damage" if isinstance(row, Damage) else "torn_tail"
        where = {"path": str(row.path), "offset": row.offset, "length": row.length}
        return {"kind": kind, **where}
    record = row.record if isinstance(row, Answered) else row
    entry = record.entry
    shown: dict[str, Any] = {
        "kind": type(entry).__name__.lower(),
        "sequence": record.sequence,
        "worker": record.segment.name.worker,
        "boot": record.segment.name.boot_id.hex(),
    }
    if not isinstance(row, Answered):
        return shown | {name: _plain(value) for name, value in _details(entry)}
    arrived_ns = entry.arrival_ns  # type: ignore[union-attr]
    shown["arrived"] = utc_time(record.wall_ns(arrived_ns))
    shown["product"] = _product(record)
    shown["traceparent"] = entry.traceparent or None  # type: ignore[union-attr]
    shown["reply"] = row.reply.value
    replied = None if row.replied_ns is None else (row.replied_ns - arrived_ns) / 1000
    if isinstance(entry, Refused):
        return shown | {
            "code": entry.code,
            "fields": list(entry.fields),
            "refused_us": entry.refused_after_ns / 1000,
            "replied_us": replied,
        }
    assert isinstance(entry, Decision)
    request = DecideRequest.FromString(entry.request)
    if not features:
        request.ClearField("features")
        request.ClearField("dense")
    return shown | {
        "decision_id": _id(record),
        "action": Action.Name(entry.action),
        "second_best": Action.Name(entry.second_best) if entry.second_best else None,
        "stand_in": StandIn.Name(entry.stand_in),
        "generation": entry.generation,
        "arm": _arm(record, entry.arm),
        "score": _finite(entry.score),
        "probability": _finite(entry.probability),
        "propensity": entry.propensity,
        "margin_minor": _finite(entry.margin),
        "flags": [flag.name.lower() for flag in entry.flags if flag.name],
        "batch_size": entry.batch_size,
        "stages_us": {
            "admit": entry.admit_after_ns / 1000,
            "encode": entry.encode_after_ns / 1000,
            "infer": entry.infer_after_ns / 1000,
            "decide": entry.decide_after_ns / 1000,
            "record": entry.record_after_ns / 1000,
            "reply": replied,
        },
        "request": MessageToDict(request, preserving_proto_field_name=True),
        "response": as_json(DecideResponse.FromString(entry.response)),
    }


def _id(record: Record) -> str:
    return decision_id(record.segment.name.boot_id, record.segment.name.worker, record.sequence)


def _arm(record: Record, place: int) -> str | int:
    """Return the name of the model that decided, or its place where that is not known."""
    generation = record.generation(record.entry.product)  # type: ignore[union-attr, arg-type]
    known = generation is not None and place < len(generation.arms)
    return generation.arms[place] if known and generation is not None else place


def _product(record: Record) -> str | None:
    generation = record.generation(record.entry.product)  # type: ignore[union-attr, arg-type]
    return None if generation is None else generation.product


def _clock(wall_ns: int | None) -> str:
    if wall_ns is None:
        return ""
    return datetime.fromtimestamp(wall_ns / 1e9, UTC).strftime("%H:%M:%S.%f")[:-3]


def _finite(number: float) -> float | None:
    return number if isfinite(number) else None
