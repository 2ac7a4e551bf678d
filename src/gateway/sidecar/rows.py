"""Calls of the journal as tables of the lake. Pure: values in, values out.

```
decisions    one row a decision
refusals     one row a call that was refused as the caller's fault
shed         one row a run of calls that were turned away unread
late_scores  shadow scores whose decision was written before they came
gaps         sequences that stand in no segment any more
```

Money is in minor units, times in their name's unit, stage times from arrival to the stage's end.
The subject is a keyed pseudonym: who holds the key can find a customer's rows, nobody else can.
Product and date (UTC, of arrival) are no columns: they stand in the path.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from gateway.journal import (
    Decision,
    Flag,
    Gap,
    Generation,
    Record,
    Refused,
    Reply,
    Scored,
    Shed,
    decision_id,
)
from gateway.sidecar.call import Batch, Call, LateScored
from gateway.sidecar.features import FeatureReader, Shape
from gateway.sidecar.request import FlatRequest, FlatResponse, read_costs
from gateway.v1.decision_pb2 import Action, DecideResponse, StandIn

VERSION = 1
"""Of the tables' columns. A column that is added keeps it: old files read as null there."""

PSEUDONYM_BYTES = 16

_TIME = pa.timestamp("us", tz="UTC")
ACTIONS = {value: name.lower() for name, value in Action.items() if value}
_STAND_INS = {value: name.lower() for name, value in StandIn.items()}
_COSTS = pa.struct([(name, pa.float64()) for name in ACTIONS.values()])
_ARM = pa.struct(
    [
        ("arm", pa.string()),
        ("score", pa.float64()),
        ("probability", pa.float64()),
        ("action", pa.string()),
    ]
)
_PLACE = [("worker", pa.uint16()), ("boot", pa.string()), ("sequence", pa.int64())]
_STAGES = ("admit_us", "encode_us", "infer_us", "decide_us", "record_us")


def _schema(table: str, fields: Sequence[tuple[str, pa.DataType]]) -> pa.Schema:
    return pa.schema(fields, metadata={"gateway.table": table, "gateway.version": str(VERSION)})


SCHEMAS: Mapping[str, pa.Schema] = {
    "decisions": _schema(
        "decisions",
        [
            ("decision_id", pa.string()),
            ("transaction_id", pa.string()),
            ("generation", pa.uint32()),
            ("digest", pa.string()),  # of the product's folder
            ("event_time", _TIME),
            ("received", _TIME),
            ("amount_minor", pa.int64()),
            ("currency", pa.string()),
            ("category", pa.string()),
            ("channel", pa.string()),
            ("subject", pa.string()),
            ("action", pa.string()),
            ("second_best", pa.string()),
            ("stand_in", pa.string()),
            ("arm", pa.string()),
            ("model", pa.string()),
            ("model_version", pa.string()),
            ("model_digest", pa.string()),
            ("score", pa.float64()),
            ("probability", pa.float64()),
            ("threshold", pa.float64()),
            ("expected_cost", _COSTS),
            ("margin_minor", pa.float64()),
            ("propensity", pa.float64()),
            ("near_tie", pa.bool_()),
            ("explored", pa.bool_()),
            ("overridden", pa.bool_()),
            ("expired", pa.bool_()),
            ("other_arms", pa.list_(_ARM)),
            ("budget_us", pa.uint32()),
            ("deadline_us", pa.int64()),  # the effective one, from arrival
            *((name, pa.float32()) for name in _STAGES),
            ("replied_us", pa.float32()),
            ("reply", pa.string()),
            ("in_time", pa.bool_()),  # null where it is not known whether the reply left
            ("batch_size", pa.uint16()),
            ("trace_id", pa.string()),
            *_PLACE,
        ],
    ),
    "refusals": _schema(
        "refusals",
        [
            ("received", _TIME),
            ("code", pa.uint8()),  # the gRPC status
            ("fields", pa.list_(pa.string())),
            ("refused_us", pa.float32()),
            ("replied_us", pa.float32()),
            ("reply", pa.string()),
            ("trace_id", pa.string()),
            *_PLACE,
        ],
    ),
    "shed": _schema(
        "shed", [("received", _TIME), ("received_last", _TIME), ("count", pa.uint32()), *_PLACE]
    ),
    "late_scores": _schema(
        "late_scores", [("decision_id", pa.string()), *((f.name, f.type) for f in _ARM), *_PLACE]
    ),
    "gaps": _schema(
        "gaps",
        [
            ("found", _TIME),
            ("reason", pa.string()),
            ("lost_worker", pa.uint16()),
            ("lost_boot", pa.string()),
            ("first_sequence", pa.int64()),
            ("last_sequence", pa.int64()),
            ("count", pa.int64()),
            *_PLACE,
        ],
    ),
}
"""Each table's columns; decisions have `watch` and `features` behind them, by product."""


_Model = tuple[str | None, str | None, str | None]


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of one table, product and day. `product`: None where it is not known."""

    table: str
    product: str | None
    date: str
    rows: pa.Table


class Rows:
    """Turns batches into parts. `shape`: how a generation's requests are read, None: unknown.

    `key`: of the subjects' pseudonyms.
    """

    def __init__(self, *, key: bytes, shape: Callable[[Generation], Shape | None]) -> None:
        self._key = key
        self._shape = shape
        self._readers: dict[tuple[str, int, str], FeatureReader | None] = {}

    def parts(self, calls: Sequence[Call], asides: Iterable[Any]) -> tuple[Part, ...]:
        """Return the rows of calls and of what stands beside them."""
        parts: list[Part] = []
        for (product, generation), ours in _by_generation(calls).items():
            reader = self._reader(generation)
            table = decisions(ours, generation, reader, key=self._key)
            parts += by_day("decisions", product, table)
        refused = [call for call in calls if isinstance(call.record.entry, Refused)]
        for product, refusals in _by_product(refused).items():
            parts += by_day("refusals", product, _refusals(refusals))
        beside = list(asides)
        records = [one for one in beside if isinstance(one, Record)]
        parts += by_day("shed", None, _shed([r for r in records if isinstance(r.entry, Shed)]))
        parts += by_day("gaps", None, _gaps([r for r in records if isinstance(r.entry, Gap)]))
        parts += _late([one for one in beside if isinstance(one, LateScored)])
        return _joined(parts)

    def _reader(self, generation: Generation | None) -> FeatureReader | None:
        if generation is None:
            return None
        key = generation.product, generation.generation, generation.digest
        if key not in self._readers:
            shape = self._shape(generation)
            if shape is None:
                return None  # asked again: its snapshot may be there the next time
            self._readers[key] = FeatureReader(shape)
        return self._readers[key]


def split(batch: Batch) -> Iterable[tuple[Any, list[Call], list[Any]]]:
    """Yield each range of a batch with the calls and asides that stand in it."""
    calls: dict[tuple[int, bytes], list[Call]] = {}
    asides: dict[tuple[int, bytes], list[Any]] = {}
    for call in batch.calls:
        calls.setdefault(call.record.segment.boot, []).append(call)
    for aside in batch.asides:
        record = aside.record if isinstance(aside, LateScored) else aside
        asides.setdefault(record.segment.boot, []).append(aside)
    for one in batch.ranges:
        boot = one.worker, one.boot_id
        first, last = one.first_sequence, one.last_sequence
        yield (
            one,
            [c for c in calls.get(boot, ()) if first <= c.record.sequence <= last],
            [a for a in asides.get(boot, ()) if first <= _sequence(a) <= last],
        )


def pseudonym(subject: str, key: bytes) -> str:
    """Return what stands for a subject in the lake: 32 hex digits."""
    return hmac.digest(key, subject.encode(), "sha256")[:PSEUDONYM_BYTES].hex()


_OF_ENTRY = attrgetter(
    *("flags", "action", "second_best", "stand_in", "batch_size", "arrival_ns", "deadline_ns"),
    *("admit_after_ns", "encode_after_ns", "infer_after_ns", "decide_after_ns", "record_after_ns"),
    *("score", "probability", "propensity", "margin", "arm", "traceparent"),
    *("request", "response"),
)
_OF_REQUEST = attrgetter(
    *("transaction_id", "amount", "currency", "category", "channel", "subject"),
    *("event_time.seconds", "event_time.nanos"),
)


def decisions(
    calls: Sequence[Call],
    generation: Generation | None,
    reader: FeatureReader | None,
    *,
    key: bytes,
) -> pa.Table:
    """Return the decisions of one generation, a row each in their order."""
    columns = _columns(_OF_ENTRY(call.record.entry) for call in calls)
    flags, action, second_best, stand_in, batch_size, arrival_ns, deadline_ns = columns[:7]
    stages = columns[7:12]
    score, probability, propensity, margin, arm, traceparent, requests, responses = columns[12:]
    read = _messages(FlatRequest, requests)
    transaction, amount, currency, category, channel, subject, seconds, nanos = _columns(
        map(_OF_REQUEST, read)
    )
    answers = _messages(FlatResponse, responses)
    flag = np.array(flags, dtype=np.uint8)
    arrival = np.array(arrival_ns, dtype=np.int64)
    deadline = np.array(deadline_ns, dtype=np.int64) - arrival
    event_us = np.array(seconds, dtype=np.int64) * 1_000_000 + np.array(nanos, np.int64) // 1000
    places = [_place(call.record) for call in calls]
    worker, boot_id, sequence = _columns(places)
    replied, reply = _replies(calls, arrival)
    in_time = pa.array(replied <= deadline, mask=replied < 0)
    arms = generation.arms if generation else ()
    decided_by = _models(arm, stand_in, responses)
    key_of: dict[str, str] = {}
    for one in set(subject):
        if one:
            key_of[one] = pseudonym(one, key)
    known = {
        "decision_id": [decision_id(b, w, s) for w, b, s in places],
        "transaction_id": transaction,
        "generation": [call.record.entry.generation for call in calls],  # type: ignore[union-attr]
        "digest": pa.nulls(len(calls), pa.string())
        if generation is None
        else pa.repeat(generation.digest, len(calls)),
        "event_time": pa.array(event_us).cast(_TIME),
        "received": _received(calls, arrival, event_us),
        "amount_minor": amount,
        "currency": currency,
        "category": category,
        "channel": channel,
        "subject": [key_of.get(one) for one in subject],
        "action": list(map(ACTIONS.get, action)),
        "second_best": list(map(ACTIONS.get, second_best)),
        "stand_in": list(map(_STAND_INS.get, stand_in)),
        "arm": [_arm_name(arms, place) for place in arm],
        "model": [one[0] for one in decided_by],
        "model_version": [one[1] for one in decided_by],
        "model_digest": [one[2] for one in decided_by],
        "score": _finite(score),
        "probability": _finite(probability),
        "threshold": [one.threshold if one.HasField("threshold") else None for one in answers],
        "expected_cost": _expected_costs(answers),
        "margin_minor": _finite(margin),
        "propensity": propensity,
        "near_tie": flag & Flag.NEAR_TIE > 0,
        "explored": flag & Flag.EXPLORED > 0,
        "overridden": flag & Flag.OVERRIDDEN > 0,
        "expired": flag & Flag.EXPIRED > 0,
        "other_arms": _other_arms(calls, arms),
        "budget_us": [one.budget_us for one in answers],
        "deadline_us": deadline // 1000,
        **{
            name: (np.array(ends, dtype=np.float64) / 1000).astype(np.float32)
            for name, ends in zip(_STAGES, stages, strict=True)
        },
        "replied_us": _replied_us(replied),
        "reply": reply,
        "in_time": in_time,
        "batch_size": batch_size,
        "trace_id": _trace_ids(traceparent),
        "worker": worker,
        "boot": _boots(boot_id),
        "sequence": sequence,
    }
    table = _table("decisions", known)
    return table if reader is None else _with_features(table, read, flag, reader)


def _with_features(
    table: pa.Table, requests: Sequence[Any], flag: NDArray[np.uint8], reader: FeatureReader
) -> pa.Table:
    kept = flag & Flag.FEATURES_LEFT_OUT == 0
    shape = reader.shape
    is_read = shape.keeps_features or any(map(reader.is_feature, shape.watch))
    matrix = reader.matrix(requests if is_read else ())
    watched: dict[str, pa.Array] = {}
    for name in reader.shape.watch:
        segments = reader.segments(matrix, kept, name)
        if segments is None and name in ("channel", "currency", "category"):
            segments = table[name].combine_chunks()
        if segments is not None:
            watched[name] = segments
    if watched:
        struct = pa.StructArray.from_arrays(list(watched.values()), list(watched))
        table = table.append_column("watch", struct)
    features = reader.struct(matrix, kept)
    return table if features is None else table.append_column("features", features)


def _refusals(calls: Sequence[Call]) -> pa.Table:
    entries: list[Any] = [call.record.entry for call in calls]
    arrival = np.array([entry.arrival_ns for entry in entries], dtype=np.int64)
    replied, reply = _replies(calls, arrival)
    worker, boot_id, sequence = _columns(_place(call.record) for call in calls)
    after_ns = np.array([entry.refused_after_ns for entry in entries], dtype=np.float64)
    return _table(
        "refusals",
        {
            "received": _received(calls, arrival, np.zeros(len(calls), np.int64)),
            "code": [entry.code for entry in entries],
            "fields": [list(entry.fields) for entry in entries],
            "refused_us": (after_ns / 1000).astype(np.float32),
            "replied_us": _replied_us(replied),
            "reply": reply,
            "trace_id": _trace_ids([entry.traceparent for entry in entries]),
            "worker": worker,
            "boot": _boots(boot_id),
            "sequence": sequence,
        },
    )


def _shed(records: Sequence[Record]) -> pa.Table:
    worker, boot_id, sequence = _columns(map(_place, records), 3)
    entries: list[Any] = [record.entry for record in records]
    return _table(
        "shed",
        {
            "received": _walls([r.wall_ns(e.first_arrival_ns) for r, e in _pairs(records)]),
            "received_last": _walls([r.wall_ns(e.last_arrival_ns) for r, e in _pairs(records)]),
            "count": [entry.count for entry in entries],
            "worker": worker,
            "boot": _boots(boot_id),
            "sequence": sequence,
        },
    )


def _gaps(records: Sequence[Record]) -> pa.Table:
    worker, boot_id, sequence = _columns(map(_place, records), 3)
    entries: list[Any] = [record.entry for record in records]
    return _table(
        "gaps",
        {
            "found": _walls([entry.wall_ns for entry in entries]),
            "reason": [entry.reason.name.lower() for entry in entries],
            "lost_worker": [entry.worker for entry in entries],
            "lost_boot": _boots([entry.boot_id for entry in entries]),
            "first_sequence": [entry.first_sequence for entry in entries],
            "last_sequence": [entry.last_sequence for entry in entries],
            "count": [entry.count for entry in entries],
            "worker": worker,
            "boot": _boots(boot_id),
            "sequence": sequence,
        },
    )


def _late(late: Sequence[LateScored]) -> list[Part]:
    """Return late scores by product, on the day on which the segment was begun that holds them."""
    grouped: dict[tuple[str | None, str], list[tuple[Any, ...]]] = {}
    for one in late:
        record, entry = one.record, one.record.entry
        assert isinstance(entry, Scored)
        generation = record.generation(entry.product)
        arms = generation.arms if generation else ()
        worker, boot_id, sequence = _place(record)
        header = record.segment.header
        day = _day(header.created_wall_ns // 1000 if header else 0)
        row = (
            decision_id(boot_id, worker, one.call.sequence),
            *(_arm_name(arms, one.arm), one.call.score, one.call.probability),
            *(ACTIONS.get(one.call.action), worker, boot_id[:8].hex(), sequence),
        )
        grouped.setdefault((generation.product if generation else None, day), []).append(row)
    names = SCHEMAS["late_scores"].names
    return [
        Part(
            "late_scores",
            product,
            day,
            _table(
                "late_scores", dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
            ),
        )
        for (product, day), rows in grouped.items()
    ]


def by_day(table: str, product: str | None, rows: pa.Table) -> list[Part]:
    """Split rows by the UTC day of their first time column, in order."""
    if not rows.num_rows:
        return []
    times = rows["found" if table == "gaps" else "received"]
    days = times.cast(pa.int64()).to_numpy() // 86_400_000_000
    met = np.unique(days)
    if len(met) == 1:
        return [Part(table, product, _day(int(met[0]) * 86_400_000_000), rows)]
    return [
        Part(table, product, _day(int(one) * 86_400_000_000), rows.filter(pa.array(days == one)))
        for one in met
    ]


def unified(tables: Sequence[pa.Table]) -> pa.Table:
    """Join tables of different columns: what one does not have is null there.

    A feature that was a number in one and a text in another is a text.
    """
    if len(tables) == 1:
        return tables[0]
    schema = unified_schema([table.schema for table in tables])
    return pa.concat_tables([fitted(table, schema) for table in tables])


def unified_schema(schemas: Sequence[pa.Schema]) -> pa.Schema:
    """Return the columns of all; the newest schema's metadata."""
    fields: dict[str, pa.DataType] = {}
    for schema in schemas:
        for field in schema:
            fields[field.name] = _wider(fields.get(field.name), field.type)
    versions = [schema.metadata or {} for schema in schemas]
    newest = max(versions, key=lambda one: int(one.get(b"gateway.version", b"0")))
    return pa.schema(list(fields.items()), metadata=newest)


def _wider(one: pa.DataType | None, other: pa.DataType) -> pa.DataType:
    if one is None or one == other:
        return other
    if pa.types.is_struct(one) and pa.types.is_struct(other):
        fields = {field.name: field.type for field in one}
        for field in other:
            fields[field.name] = _wider(fields.get(field.name), field.type)
        return pa.struct(list(fields.items()))
    if pa.types.is_list(one) and pa.types.is_list(other):
        return pa.list_(_wider(one.value_type, other.value_type))
    numeric = (pa.types.is_integer, pa.types.is_floating)
    if all(any(is_kind(kind) for is_kind in numeric) for kind in (one, other)):
        both = pa.types.is_integer(one) and pa.types.is_integer(other)
        return pa.int64() if both else pa.float64()
    return one if pa.types.is_null(other) else other if pa.types.is_null(one) else pa.string()


def fitted(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return the table with the columns of `schema`; it has to be one that covers the table's."""
    if table.schema.equals(schema):
        return table.replace_schema_metadata(schema.metadata)
    columns = [
        _fit(table[field.name].combine_chunks(), field.type)
        if field.name in table.schema.names
        else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _fit(array: Any, kind: pa.DataType) -> pa.Array:
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.nulls(0, array.type)
    if array.type == kind:
        return array
    if pa.types.is_struct(kind) and pa.types.is_struct(array.type):
        # Its own fields, not `flatten`: a null row is null as a whole, by the mask.
        held = {field.name: i for i, field in enumerate(array.type)}
        columns = [
            _fit(array.field(held[field.name]), field.type)
            if field.name in held
            else pa.nulls(len(array), field.type)
            for field in kind
        ]
        return pa.StructArray.from_arrays(columns, fields=list(kind), mask=array.is_null())
    return array.cast(kind)


def _joined(parts: Sequence[Part]) -> tuple[Part, ...]:
    """Join the parts that go into one file, in the order of their sequences."""
    grouped: dict[tuple[str, str | None, str], list[pa.Table]] = {}
    for part in parts:
        grouped.setdefault((part.table, part.product, part.date), []).append(part.rows)
    joined = []
    for (table, product, date), tables in grouped.items():
        rows = unified(tables)
        if len(tables) > 1:
            rows = rows.take(pc.sort_indices(rows, sort_keys=[("sequence", "ascending")]))
        joined.append(Part(table, product, date, rows))
    return tuple(joined)


def _by_generation(
    calls: Sequence[Call],
) -> Mapping[tuple[str | None, Generation | None], list[Call]]:
    """Group decisions; where the journal does not know the product, the request does."""
    grouped: dict[tuple[str | None, Generation | None], list[Call]] = {}
    last: Generation | None = None
    ours: list[Call] = []
    for call in calls:
        entry, generation = call.record.entry, call.generation
        if not isinstance(entry, Decision):
            continue
        if generation is None:
            product = _messages(FlatRequest, [entry.request])[0].product or None
            grouped.setdefault((product, None), []).append(call)
            continue
        if generation is not last:
            last, ours = generation, grouped.setdefault((generation.product, generation), [])
        ours.append(call)
    return grouped


def _by_product(calls: Sequence[Call]) -> Mapping[str | None, list[Call]]:
    grouped: dict[str | None, list[Call]] = {}
    for call in calls:
        product = call.generation.product if call.generation else None
        grouped.setdefault(product, []).append(call)
    return grouped


def _table(name: str, columns: Mapping[str, Any]) -> pa.Table:
    schema = SCHEMAS[name]
    arrays = []
    for field in schema:
        values = columns[field.name]
        done = isinstance(values, pa.Array) and values.type == field.type
        arrays.append(values if done else pa.array(values, type=field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def _columns(rows: Iterable[tuple[Any, ...]], width: int = 0) -> list[Sequence[Any]]:
    return list(zip(*rows, strict=True)) or [()] * width


def _messages(kind: Any, payloads: Sequence[bytes]) -> list[Any]:
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


def _place(record: Record) -> tuple[int, bytes, int]:
    name = record.segment.name
    return name.worker, name.boot_id, record.sequence


def _pairs(records: Sequence[Record]) -> list[tuple[Record, Any]]:
    return [(record, record.entry) for record in records]


def _sequence(aside: Any) -> int:
    sequence: int = aside.record.sequence if isinstance(aside, LateScored) else aside.sequence
    return sequence


def _boots(boot_ids: Sequence[bytes]) -> list[str]:
    shown = {one: one[:8].hex() for one in set(boot_ids)}
    return [shown[one] for one in boot_ids]


def _received(
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
    return pa.array(np.where(known, (arrival + base_ns) // 1000, otherwise_us)).cast(_TIME)


def _walls(walls_ns: Sequence[int | None]) -> pa.Array:
    return pa.array([(one or 0) // 1000 for one in walls_ns], type=pa.int64()).cast(_TIME)


def _replies(
    calls: Sequence[Call], arrival: NDArray[np.int64]
) -> tuple[NDArray[np.int64], list[str]]:
    """Return nanoseconds from arrival to the reply, -1 where it is not known, and its fate."""
    at = np.array([-1 if c.replied_ns is None else c.replied_ns for c in calls], dtype=np.int64)
    return np.where(at < 0, -1, np.maximum(at - arrival, 0)), [_FATES[c.reply] for c in calls]


_FATES = {one: one.value.replace(" ", "_") for one in Reply}


def _replied_us(replied_ns: NDArray[np.int64]) -> pa.Array:
    return pa.array((replied_ns / 1000).astype(np.float32), mask=replied_ns < 0)


def _finite(numbers: Sequence[float]) -> pa.Array:
    array = np.array(numbers, dtype=np.float64)
    return pa.array(array, mask=~np.isfinite(array))


def _trace_ids(traceparents: Sequence[str]) -> list[str | None]:
    return [one[3:35] if len(one) >= 55 else None for one in traceparents]


def _arm_name(arms: Sequence[str], place: int) -> str:
    return arms[place] if place < len(arms) else str(place)


def _models(
    arms: Sequence[int], stand_ins: Sequence[int], responses: Sequence[bytes]
) -> list[_Model]:
    """Return who decided, by row: an arm's model is the same in all its generation's answers."""
    models: dict[int, _Model] = {}
    rows: list[_Model] = []
    for arm, stand_in, response in zip(arms, stand_ins, responses, strict=True):
        if stand_in:
            rows.append(_NO_MODEL)
            continue
        if arm not in models:
            model = _messages(DecideResponse, [response])[0].model
            models[arm] = model.name, model.version, model.digest
        rows.append(models[arm])
    return rows


_NO_MODEL: _Model = (None, None, None)


_COST_PLACES = np.full(256, len(ACTIONS))
"""The column of each action; the last is of what is none."""
_COST_PLACES[list(ACTIONS)] = range(len(ACTIONS))


def _expected_costs(answers: Sequence[Any]) -> pa.Array:
    rows = np.full((len(answers), len(ACTIONS) + 1), np.nan)
    entries: list[bytes] = []
    counts: list[int] = []
    for answer in answers:
        held = len(entries)
        entries += answer.expected_costs
        counts.append(len(entries) - held)
    actions, costs = read_costs(entries)
    rows[np.repeat(np.arange(len(answers)), counts), _COST_PLACES[actions]] = costs
    rows = rows[:, :-1]
    missing = np.isnan(rows)
    arrays = [
        pa.array(np.ascontiguousarray(rows[:, i]), mask=missing[:, i]) for i in range(len(ACTIONS))
    ]
    return pa.StructArray.from_arrays(
        arrays, fields=list(_COSTS), mask=pa.array(missing.all(axis=1))
    )


def _other_arms(calls: Sequence[Call], arms: Sequence[str]) -> pa.Array:
    offsets = [0]
    rows: list[tuple[str, float, float, str | None]] = []
    for call in calls:
        for arm, scored in call.scored:
            action = ACTIONS.get(scored.action)
            rows.append((_arm_name(arms, arm), scored.score, scored.probability, action))
        offsets.append(len(rows))
    names, scores, probabilities, actions = _columns(rows, 4)
    values = pa.StructArray.from_arrays(
        [
            pa.array(names, pa.string()),
            _finite(scores),
            _finite(probabilities),
            pa.array(actions, pa.string()),
        ],
        fields=list(_ARM),
    )
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)


def _day(us: int) -> str:
    return str(np.datetime64(us, "us").astype("datetime64[D]"))
