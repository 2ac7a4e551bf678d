"""What the journal says beside its calls, as tables of the lake. Pure.

What comes late is told when it is read, which is ahead of what a batch covers; so its rows stand
under their own sequences, and `split` gives them ranges of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from gateway.journal import Damage, Gap, Record, Scored, Shed, decision_id
from gateway.journal.segment import parse_name
from gateway.sidecar.lake.columns import arm_name, place_of, reply_name, table_of, wall
from gateway.sidecar.lake.schema import ACTIONS, SCHEMAS
from gateway.sidecar.tail.call import Aside, Batch, Call, Gone, LateReply, LateScored, Range

_DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of one table, product and UTC day; None: not known."""

    table: str
    product: str | None
    date: str | None
    rows: pa.Table


def aside_parts(asides: Iterable[Aside]) -> list[Part]:
    """Return the rows of what is no call; pauses and generations have none."""
    grouped: dict[tuple[str, str | None, str | None], list[tuple[Any, ...]]] = {}
    for aside in asides:
        for table, product, date, row in _rows(aside):
            grouped.setdefault((table, product, date), []).append(row)
    parts = []
    for (table, product, date), rows in grouped.items():
        columns = zip(*rows, strict=True)
        named = dict(zip(SCHEMAS[table].names, map(list, columns), strict=True))
        parts.append(Part(table, product, date, table_of(table, named)))
    return parts


def _rows(aside: Aside) -> Iterator[tuple[str, str | None, str | None, tuple[Any, ...]]]:
    place = place_of_aside(aside)
    if place is None:
        return
    worker, boot_id, sequence = place
    here = worker, boot_id[:8].hex(), sequence
    match aside:
        case Record(entry=Shed() as shed):
            first = wall(aside, shed.first_arrival_ns)
            last = wall(aside, shed.last_arrival_ns)
            yield "shed", None, _date(first), (first, last, shed.count, *here)
        case Record(entry=Gap() as gap):
            found_us = gap.wall_ns // 1000
            lost = gap.worker, gap.boot_id[:8].hex(), gap.first_sequence, gap.last_sequence
            lost_why = found_us, gap.reason.name.lower()
            yield "gaps", None, _date(found_us), (*lost_why, *lost, gap.count, *here)
        case Gone():
            first, until = aside.first_sequence, aside.last_sequence
            count = None if until is None else until - first + 1
            yield "gaps", None, None, (None, "gone", *here[:2], first, until, count, *here)
        case Damage(missing=(int(first), until)):
            count = None if until is None else until - first + 1
            yield "gaps", None, None, (None, "damaged", *here[:2], first, until, count, *here)
        case LateScored(record=Record(entry=Scored() as scored) as record, arm=arm, call=call):
            generation = record.generation(scored.product)
            arms, product = (generation.arms, generation.product) if generation else ((), None)
            verdict = arm_name(arms, arm), call.score, call.probability, ACTIONS.get(call.action)
            called = decision_id(boot_id, worker, call.sequence)
            yield "late_scores", product, _begun(record), (called, *verdict, *here)
        case LateReply(record=record, reply=reply, replied_ns=replied_ns):
            replied = None if replied_ns is None else wall(record, replied_ns)
            called = decision_id(boot_id, worker, aside.sequence)
            fate = called, reply_name(reply), replied
            yield "late_replies", None, _begun(record), (*fate, *here)


def place_of_aside(aside: Aside) -> tuple[int, bytes, int] | None:
    """Return the worker, boot id and sequence under which an aside's rows stand; None: nowhere."""
    match aside:
        case Record():
            return place_of(aside)
        case LateScored() | LateReply():
            return place_of(aside.record)
        case Gone():
            return aside.worker, aside.boot_id, aside.first_sequence
        case Damage(missing=(int(first), _)):
            name = parse_name(aside.path.name)
            return (name.worker, name.boot_id, first) if name else None
    return None


def split(batch: Batch) -> Iterator[tuple[Range, list[Call], list[Aside]]]:
    """Yield a batch's ranges, each with what stands in it; then what stands outside of them."""
    calls: dict[tuple[int, bytes], list[Call]] = {}
    beside: dict[tuple[int, bytes], list[tuple[int, Aside]]] = {}
    late: dict[tuple[int, bytes], list[tuple[int, Aside]]] = {}
    for call in batch.calls:
        calls.setdefault(call.record.segment.boot, []).append(call)
    for aside in batch.asides:
        place = place_of_aside(aside)
        if place is not None:
            kind = late if isinstance(aside, LateScored | LateReply) else beside
            kind.setdefault(place[:2], []).append((place[2], aside))
    for one in batch.ranges:
        boot, first, last = one[:2], one.first_sequence, one.last_sequence
        ours = beside.get(boot, [])
        yield (
            one,
            [c for c in calls.get(boot, ()) if first <= c.record.sequence <= last],
            [aside for sequence, aside in ours if first <= sequence <= last],
        )
        beside[boot] = [item for item in ours if not first <= item[0] <= last]
    for boot, items in late.items():
        sequences = [sequence for sequence, _ in items]
        yield Range(*boot, min(sequences), max(sequences)), [], [aside for _, aside in items]
    for boot, items in beside.items():
        for sequence, aside in items:
            yield Range(*boot, sequence, sequence), [], [aside]


def by_day(table: str, product: str | None, rows: pa.Table) -> list[Part]:
    """Split rows by the UTC day on which they were received, in order."""
    days = rows["received"].cast(pa.int64()).to_numpy() // _DAY_US
    met: Sequence[int] = np.unique(days).tolist()
    if len(met) == 1:
        return [Part(table, product, _date(met[0] * _DAY_US), rows)]
    return [
        Part(table, product, _date(one * _DAY_US), rows.filter(pa.array(days == one)))
        for one in met
    ]


def _begun(record: Record) -> str | None:
    """Return the day on which the record's segment was begun."""
    header = record.segment.header
    return _date(header.created_wall_ns // 1000) if header else None


def _date(us: int | None) -> str | None:
    return None if us is None else str(np.datetime64(us, "us").astype("datetime64[D]"))
