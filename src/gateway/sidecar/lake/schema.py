"""The columns of the lake's tables, and how tables of different versions become one. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from gateway.v1.decision_pb2 import Action

VERSION = 1
"""Of the tables' columns. A column that is added keeps it: old files read as null there."""


TIME = pa.timestamp("us", tz="UTC")


ACTIONS = {value: name.lower() for name, value in Action.items() if value}


COSTS = pa.struct([(name, pa.float64()) for name in ACTIONS.values()])


ARM = pa.struct(
    [
        ("arm", pa.string()),
        ("score", pa.float64()),
        ("probability", pa.float64()),
        ("action", pa.string()),
    ]
)


_PLACE = [("worker", pa.uint16()), ("boot", pa.string()), ("sequence", pa.int64())]


STAGES = ("admit_us", "encode_us", "infer_us", "decide_us", "record_us")


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
            ("event_time", TIME),
            ("received", TIME),
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
            ("expected_cost", COSTS),
            ("margin_minor", pa.float64()),
            ("propensity", pa.float64()),
            ("near_tie", pa.bool_()),
            ("explored", pa.bool_()),
            ("overridden", pa.bool_()),
            ("expired", pa.bool_()),
            ("other_arms", pa.list_(ARM)),
            ("budget_us", pa.uint32()),
            ("deadline_us", pa.int64()),  # the effective one, from arrival
            *((name, pa.float32()) for name in STAGES),
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
            ("received", TIME),
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
        "shed", [("received", TIME), ("received_last", TIME), ("count", pa.uint32()), *_PLACE]
    ),
    "late_scores": _schema(
        "late_scores", [("decision_id", pa.string()), *((f.name, f.type) for f in ARM), *_PLACE]
    ),
    "late_replies": _schema(
        "late_replies",
        [("decision_id", pa.string()), ("reply", pa.string()), ("replied", TIME), *_PLACE],
    ),
    "gaps": _schema(
        "gaps",
        [
            ("found", TIME),
            ("reason", pa.string()),
            ("lost_worker", pa.uint16()),
            ("lost_boot", pa.string()),
            ("first_sequence", pa.int64()),
            ("last_sequence", pa.int64()),
            ("count", pa.int64()),
            *_PLACE,
        ],
    ),
    "labels": _schema(
        "labels",
        [
            ("transaction_id", pa.string()),
            ("decision_id", pa.string()),
            ("kind", pa.string()),
            ("occurred_time", TIME),
            ("reported_time", TIME),
            ("received", TIME),
            ("amount_minor", pa.int64()),
            ("currency", pa.string()),
            ("liable", pa.string()),
            ("source", pa.string()),
            ("source_event_id", pa.string()),
            ("supersedes", pa.string()),  # an earlier source_event_id of the same source
            ("action", pa.string()),  # of stand_in_advice: what the caller did
            ("category", pa.string()),  # the same
            ("subject", pa.string()),
            *_PLACE,
        ],
    ),
    "attributes": _schema(
        "attributes",
        [
            ("subject", pa.string()),
            ("attribute", pa.string()),
            ("value", pa.string()),
            ("reported_time", TIME),
            ("source", pa.string()),
            ("received", TIME),
            *_PLACE,
        ],
    ),
}
"""Each table's columns, the place in the journal last.

Decisions have `watch` and `features` behind them, by product. Labels and attributes come from the
store of labels: `boot` is its id, `worker` LABELS or ATTRIBUTES, and `sequence` the store's. Both
are only added to: of labels that supersede each other the one that nothing supersedes counts (of
two that supersede the same, the later by `reported_time`, then by `sequence`), and of a subject's
attributes of one name the one of the latest `reported_time`.
"""

OF_LABELS = ("labels", "attributes")
OF_JOURNAL = tuple(table for table in SCHEMAS if table not in OF_LABELS)

LABELS, ATTRIBUTES = 0, 1
"""Stand for the worker: the store counts the two tables apart."""


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
    # Of one version the one that says most: older files do not say their boot's whole id.
    newest = max(versions, key=lambda one: (int(one.get(b"gateway.version", b"0")), len(one)))
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
