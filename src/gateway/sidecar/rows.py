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

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gateway.journal import Decision, Gap, Generation, Record, Refused, Scored, Shed, decision_id
from gateway.sidecar.call import Batch, Call, LateScored, Range
from gateway.sidecar.columns import (
    arm_name,
    boots,
    messages,
    place_of,
    received,
    replied_us,
    replies,
    table_of,
    trace_ids,
    transposed,
    walls,
)
from gateway.sidecar.decisions import decisions
from gateway.sidecar.features import FeatureReader, Shape
from gateway.sidecar.request import FlatRequest
from gateway.sidecar.schema import ACTIONS, SCHEMAS, unified


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


def split(batch: Batch) -> Iterable[tuple[Range, list[Call], list[Any]]]:
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


def _refusals(calls: Sequence[Call]) -> pa.Table:
    entries: list[Any] = [call.record.entry for call in calls]
    arrival = np.array([entry.arrival_ns for entry in entries], dtype=np.int64)
    replied, reply = replies(calls, arrival)
    worker, boot_id, sequence = transposed(place_of(call.record) for call in calls)
    after_ns = np.array([entry.refused_after_ns for entry in entries], dtype=np.float64)
    return table_of(
        "refusals",
        {
            "received": received(calls, arrival, np.zeros(len(calls), np.int64)),
            "code": [entry.code for entry in entries],
            "fields": [list(entry.fields) for entry in entries],
            "refused_us": (after_ns / 1000).astype(np.float32),
            "replied_us": replied_us(replied),
            "reply": reply,
            "trace_id": trace_ids([entry.traceparent for entry in entries]),
            "worker": worker,
            "boot": boots(boot_id),
            "sequence": sequence,
        },
    )


def _shed(records: Sequence[Record]) -> pa.Table:
    worker, boot_id, sequence = transposed(map(place_of, records), 3)
    entries: list[Any] = [record.entry for record in records]
    return table_of(
        "shed",
        {
            "received": walls([r.wall_ns(e.first_arrival_ns) for r, e in _pairs(records)]),
            "received_last": walls([r.wall_ns(e.last_arrival_ns) for r, e in _pairs(records)]),
            "count": [entry.count for entry in entries],
            "worker": worker,
            "boot": boots(boot_id),
            "sequence": sequence,
        },
    )


def _gaps(records: Sequence[Record]) -> pa.Table:
    worker, boot_id, sequence = transposed(map(place_of, records), 3)
    entries: list[Any] = [record.entry for record in records]
    return table_of(
        "gaps",
        {
            "found": walls([entry.wall_ns for entry in entries]),
            "reason": [entry.reason.name.lower() for entry in entries],
            "lost_worker": [entry.worker for entry in entries],
            "lost_boot": boots([entry.boot_id for entry in entries]),
            "first_sequence": [entry.first_sequence for entry in entries],
            "last_sequence": [entry.last_sequence for entry in entries],
            "count": [entry.count for entry in entries],
            "worker": worker,
            "boot": boots(boot_id),
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
        worker, boot_id, sequence = place_of(record)
        header = record.segment.header
        day = _day(header.created_wall_ns // 1000 if header else 0)
        row = (
            decision_id(boot_id, worker, one.call.sequence),
            *(arm_name(arms, one.arm), one.call.score, one.call.probability),
            *(ACTIONS.get(one.call.action), worker, boot_id[:8].hex(), sequence),
        )
        grouped.setdefault((generation.product if generation else None, day), []).append(row)
    names = SCHEMAS["late_scores"].names
    return [
        Part(
            "late_scores",
            product,
            day,
            table_of(
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
            product = messages(FlatRequest, [entry.request])[0].product or None
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


def _pairs(records: Sequence[Record]) -> list[tuple[Record, Any]]:
    return [(record, record.entry) for record in records]


def _sequence(aside: Any) -> int:
    sequence: int = aside.record.sequence if isinstance(aside, LateScored) else aside.sequence
    return sequence


def _day(us: int) -> str:
    return str(np.datetime64(us, "us").astype("datetime64[D]"))
