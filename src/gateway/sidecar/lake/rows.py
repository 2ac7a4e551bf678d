"""Calls of the journal as tables of the lake. Pure: values in, values out.

```
decisions    one row a decision
refusals     one row a call that was refused as the caller's fault
shed         one row a run of calls that were turned away unread
late_scores  shadow scores whose decision was written before they came
late_replies the same, of replies
gaps         sequences that stand in no segment any more, or cannot be read
```

Money is in minor units, times in their name's unit, stage times from arrival to the stage's end.
The subject is a keyed pseudonym: who holds the key can find a customer's rows, nobody else can.
Product and date (UTC, of arrival) are no columns: they stand in the path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gateway.journal import Decision, Generation, Refused
from gateway.sidecar.lake.asides import Part, aside_parts, by_day
from gateway.sidecar.lake.columns import (
    boots,
    messages,
    place_of,
    received,
    replied_us,
    replies,
    table_of,
    trace_ids,
    transposed,
)
from gateway.sidecar.lake.decisions import decisions
from gateway.sidecar.lake.features import FeatureReader, Shape
from gateway.sidecar.lake.request import FlatRequest
from gateway.sidecar.lake.schema import unified
from gateway.sidecar.tail.call import Aside, Call


class Rows:
    """Turns batches into parts. `shape`: how a generation's requests are read, None: unknown.

    `key`: of the subjects' pseudonyms.
    """

    def __init__(self, *, key: bytes, shape: Callable[[Generation], Shape | None]) -> None:
        self._key = key
        self._shape = shape
        self._readers: dict[tuple[str, int, str], FeatureReader | None] = {}

    def parts(self, calls: Sequence[Call], asides: Iterable[Aside]) -> tuple[Part, ...]:
        """Return the rows of calls and of what stands beside them."""
        parts: list[Part] = []
        for (product, generation), ours in _by_generation(calls).items():
            reader = self._reader(generation)
            table = decisions(ours, generation, reader, key=self._key)
            parts += by_day("decisions", product, table)
        refused = [call for call in calls if isinstance(call.record.entry, Refused)]
        for product, refusals in _by_product(refused).items():
            parts += by_day("refusals", product, _refusals(refusals))
        parts += aside_parts(asides)
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


def _joined(parts: Sequence[Part]) -> tuple[Part, ...]:
    """Join the parts that go into one file, in the order of their sequences."""
    grouped: dict[tuple[str, str | None, str | None], list[pa.Table]] = {}
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
