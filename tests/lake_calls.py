"""Calls as the tail gives them out, made without a journal; and a lake's rows read back."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gateway.journal import (
    Decision,
    Flag,
    Generation,
    Record,
    Refused,
    Reply,
    ScoredCall,
    Segment,
)
from gateway.journal.segment import Header, SegmentName
from gateway.sidecar.lake.lake import Lake
from gateway.sidecar.tail.call import Call, Range
from gateway.v1.decision_pb2 import DecideRequest, DecideResponse

BOOT = bytes(range(16))
KEY = b"a key of the tests"
MS = 1_000_000
START_NS = 1_795_000_000 * 10**9  # 2026-11-18T11:06:40Z
SERVED = Generation(0, "test", 3, "ab" * 32, ("v1", "v2"))
TRACE = "0af7651916cd43dd8448eb211c80319c"


def segment(
    worker: int = 0, boot: bytes = BOOT, *, served: Sequence[Generation] = (SERVED,), **changes: Any
) -> Segment:
    header = Header(worker, boot, START_NS, 0, 1)
    values = {
        "path": Path("a.journal"),
        "name": SegmentName(START_NS, worker, boot, 1),
        "header": header,
        "header_bytes": 0,
        "header_problem": "",
        "header_is_cut": False,
        "served": {one.index: one for one in served},
    }
    return Segment(**{**values, **changes})


def request(i: int, **changes: Any) -> DecideRequest:
    one = DecideRequest(
        product="test",
        transaction_id=f"t-{i}",
        amount=100 * i,
        currency="USD",
        category="5411",
        channel="ecommerce",
        subject=f"customer-{i % 7}",
    )
    one.event_time.seconds = START_NS // 10**9 + i
    one.features["amount"].number = float(i)
    one.features["ratio"].number = i / 3
    one.features["entry_mode"].text = ("chip", "swipe", "keyed")[i % 3]
    for name, value in changes.items():
        setattr(one, name, value)
    return one


def response(i: int, *, stood_in: bool = False) -> DecideResponse:
    one = DecideResponse(action=1, product_generation=3, budget_us=25_000, elapsed_us=300)  # type: ignore[arg-type]
    if not stood_in:
        one.model.name, one.model.version, one.model.digest = "v1", "1.0", "cd" * 32
        one.probability, one.threshold = 0.25, 0.75
        for action, cost in ((1, 12.5 * i), (2, 60.0), (4, 0.0)):
            one.expected_costs.add(action=action, cost=cost)  # type: ignore[arg-type]
    return one


def record(i: int, where: Segment, **changes: Any) -> Record:
    """The decision of sequence i."""
    values: dict[str, Any] = {
        "flags": Flag(0),
        "action": 1,
        "second_best": 4,
        "stand_in": 0,
        "product": 0,
        "generation": 3,
        "batch_size": 2,
        "arrival_ns": i * MS,
        "deadline_ns": i * MS + 25 * MS,
        "admit_after_ns": 1000,
        "encode_after_ns": 2000,
        "infer_after_ns": 3000,
        "decide_after_ns": 4000,
        "record_after_ns": 340_000,
        "score": 0.5,
        "probability": 0.25,
        "propensity": 1.0,
        "margin": 12.0,
        "traceparent": f"00-{TRACE}-b7ad6b7169203331-01",
        "arm": 0,
        "request": request(i).SerializeToString(),
        "response": response(i).SerializeToString(),
    }
    return Record(where, 0, 0, i, Decision(**{**values, **changes}))


def call(i: int, where: Segment | None = None, **changes: Any) -> Call:
    where = where or segment()
    return Call(record(i, where, **changes), where.served.get(0), Reply.LEFT, i * MS + 400_000)


def calls(first: int, last: int, where: Segment | None = None, *, seed: int = 0) -> list[Call]:
    """Decisions, stand-ins and refusals of a range of sequences, none of which is left out."""
    where = where or segment()
    chance = random.Random(f"{seed}/{first}")
    made: list[Call] = []
    for i in range(first, last + 1):
        kind = chance.random()
        if kind < 0.1:
            refused = Refused(i * MS, 90_000, 3, 0, "", ("amount",))
            made.append(Call(Record(where, 0, 0, i, refused), SERVED, Reply.LEFT, None))
        elif kind < 0.2:
            stood_in = response(i, stood_in=True).SerializeToString()
            nan = math.nan
            made.append(call(i, where, stand_in=1, score=nan, probability=nan, response=stood_in))
        else:
            one = call(i, where)
            scored = ((1, ScoredCall(i, 0.4, 0.2, 4)),) if kind > 0.6 else ()
            made.append(Call(one.record, one.generation, one.reply, one.replied_ns, scored))
    return made


def range_of(calls: Sequence[Call]) -> Range:
    worker, boot = calls[0].record.segment.boot
    return Range(worker, boot, calls[0].record.sequence, calls[-1].record.sequence)


def read(lake: Lake, table: str = "decisions") -> list[dict[str, Any]]:
    """Return the rows of a table through `files`, in the order of worker and sequence."""
    rows: list[dict[str, Any]] = lake.dataset(table).to_table(use_threads=False).to_pylist()
    return sorted(rows, key=lambda row: (row["worker"], row["sequence"]))


def on_disk(lake: Lake) -> list[Path]:
    """Return every file below the lake's root, whatever it is."""
    return sorted(path for path in Path(lake.root).rglob("*") if path.is_file())


def rows_in(path: str) -> pa.Table:
    return pq.ParquetFile(path).read()
