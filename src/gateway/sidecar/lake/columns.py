"""Records as columns: what the tables of the lake have in common. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from gateway.journal import Record, Reply, decision_id
from gateway.sidecar.lake.schema import SCHEMAS, TIME
from gateway.sidecar.tail.call import Call


def table_of(name: str, columns: Mapping[str, Any]) -> pa.Table:
    """Return columns as a table of the lake, by its schema."""
    schema = SCHEMAS[name]
    arrays = []
    for field in schema:
        values = columns[field.name]
        done = isinstance(values, pa.Array) and values.type == field.type
        arrays.append(values if done else pa.array(values, type=field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def transposed(rows: Iterable[tuple[Any, ...]], width: int = 0) -> list[Sequence[Any]]:
    """Return the columns of rows; `width` empty ones where there are no rows."""
    return list(zip(*rows, strict=True)) or [()] * width


def messages(kind: Any, payloads: Sequence[bytes]) -> list[Any]:
    """Read messages; what cannot be read, which nobody wrote so, is an empty one."""
    try:
        return list(map(kind.FromString, payloads))
    except DecodeError:
        return [_message(kind, payload) for payload in payloads]


def _message(kind: Any, payload: bytes) -> Any:
    try:
        return kind.FromString(payload)
    except DecodeError:
        return kind()


def place_of(record: Record) -> tuple[int, bytes, int]:
    """Return the worker, boot id and sequence of a record."""
    name = record.segment.name
    return name.worker, name.boot_id, record.sequence


def decision_ids(places: Sequence[tuple[int, bytes, int]]) -> list[str]:
    """Return the decision ids of records' places."""
    heads = {
        boot: decision_id(boot[1], boot[0], 0)[:-_SEQUENCE_DIGITS]
        for boot in {place[:2] for place in places}
    }
    if len(heads) == 1:
        (head,) = heads.values()
        return [f"{head}{sequence:012x}" for _, _, sequence in places]
    return [f"{heads[worker, boot_id]}{sequence:012x}" for worker, boot_id, sequence in places]


_SEQUENCE_DIGITS = 12


def codes(numbers: Sequence[int]) -> pa.Array:
    """Return numbers of a byte as an array, to take texts by."""
    return pa.array(np.frombuffer(bytes(numbers), np.uint8))


def boots(boot_ids: Sequence[bytes]) -> list[str]:
    """Return the first 8 bytes of boot ids, in hex."""
    shown = {one: one[:8].hex() for one in set(boot_ids)}
    return [shown[one] for one in boot_ids]


def received(
    calls: Sequence[Call], arrival: NDArray[np.int64], otherwise_us: NDArray[np.int64]
) -> pa.Array:
    """Return the wall time of arrival; without a segment's header, of the event."""
    last, offset = None, None
    offsets: list[int | None] = []
    for call in calls:
        segment = call.record.segment
        if segment is not last:
            last, offset = segment, segment.header.wall_ns(0) if segment.header else None
        offsets.append(offset)
    known = np.array([base is not None for base in offsets], dtype=np.bool_)
    base_ns = np.array([base or 0 for base in offsets], dtype=np.int64)
    return pa.array(np.where(known, (arrival + base_ns) // 1000, otherwise_us)).cast(TIME)


def wall(record: Record, monotonic_ns: int) -> int | None:
    """Return the wall time of one of a record's stamps, in µs since the epoch."""
    wall_ns = record.wall_ns(monotonic_ns)
    return None if wall_ns is None else wall_ns // 1000


def reply_name(reply: Reply) -> str:
    """Return what became of a reply, as a word."""
    return _FATES[reply]


def replies(
    calls: Sequence[Call], arrival: NDArray[np.int64]
) -> tuple[NDArray[np.int64], list[str]]:
    """Return nanoseconds from arrival to the reply, -1 where it is not known, and its fate."""
    at = np.array([-1 if c.replied_ns is None else c.replied_ns for c in calls], dtype=np.int64)
    return np.where(at < 0, -1, np.maximum(at - arrival, 0)), [
        "left" if c.reply is Reply.LEFT else _FATES[c.reply] for c in calls
    ]


_FATES = {one: one.value.replace(" ", "_") for one in Reply}


def replied_us(replied_ns: NDArray[np.int64]) -> pa.Array:
    """Return what `replies` gives in µs, null where it is not known."""
    return pa.array((replied_ns / 1000).astype(np.float32), mask=replied_ns < 0)


def finite(numbers: Sequence[float]) -> pa.Array:
    """Return numbers, null for NaN and the infinities."""
    array = np.array(numbers, dtype=np.float64)
    return pa.array(array, mask=~np.isfinite(array))


def trace_ids(traceparents: Sequence[str]) -> list[str | None]:
    """Return the trace ids of W3C traceparents, None for what is none."""
    return [one[3:35] if len(one) >= 55 else None for one in traceparents]


def arm_name(arms: Sequence[str], place: int) -> str:
    """Return an arm's name, or its place where the journal does not know it."""
    return arms[place] if place < len(arms) else str(place)
