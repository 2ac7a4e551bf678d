"""Journal records and calls without a journal: what tests of the sidecar's pure parts take."""

from __future__ import annotations

from pathlib import Path

import catalogue

from gateway.journal import (
    Decision,
    Entry,
    Flag,
    Generation,
    Record,
    Refused,
    Reply,
    ScoredCall,
    Segment,
    decision_id,
)
from gateway.journal.segment import Header, SegmentName
from gateway.sidecar.tail.call import Call
from gateway.v1.decision_pb2 import APPROVE, DECLINE, DecideResponse

BOOT = bytes(range(16))
WALL_NS = 1_790_000_000_000_000_000
MS = 1_000_000
ARRIVAL_NS = 5_000 * MS
TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{CALLER}-01"
GENERATION = Generation(0, "test", 3, "cd" * 32, ("v1", "v2"))


def response(sequence: int = 1, *, stand_in: int = 0, worker: int = 2) -> DecideResponse:
    said = DecideResponse(
        decision_id=decision_id(BOOT, worker, sequence),
        action=APPROVE,
        product_generation=3,
        stand_in=stand_in,  # type: ignore[arg-type]
        budget_us=25_000,
        elapsed_us=300,
        recorded=True,
    )
    if not stand_in:
        said.probability, said.threshold = 0.25, 0.5
        said.model.name, said.model.version, said.model.digest = "v1", "1.0", "ab" * 32
    return said


def decision(**changes: object) -> Decision:
    stand_in = int(changes.get("stand_in", 0))  # type: ignore[call-overload]
    nan = float("nan")
    values: dict[str, object] = {
        "flags": Flag(0),
        "action": APPROVE,
        "second_best": 0 if stand_in else DECLINE,
        "stand_in": stand_in,
        "product": 0,
        "generation": 3,
        "batch_size": 0 if stand_in else 7,
        "arrival_ns": ARRIVAL_NS,
        "deadline_ns": ARRIVAL_NS + 25 * MS,
        "admit_after_ns": 20_000,
        "encode_after_ns": 50_000,
        "infer_after_ns": 150_000,
        "decide_after_ns": 170_000,
        "record_after_ns": 200_000,
        "score": nan if stand_in else 0.5,
        "probability": nan if stand_in else 0.25,
        "propensity": 1.0,
        "margin": float("inf") if stand_in else 12.5,
        "traceparent": "",
        "arm": 0,
        "request": catalogue.request().SerializeToString(),
        "response": response(stand_in=stand_in).SerializeToString(),
    }
    return Decision(**{**values, **changes})  # type: ignore[arg-type]


def refusal(**changes: object) -> Refused:
    values: dict[str, object] = {
        "arrival_ns": ARRIVAL_NS,
        "refused_after_ns": 90_000,
        "code": 3,
        "product": 0,
        "traceparent": "",
        "fields": ("amount", "features[colour]"),
    }
    return Refused(**{**values, **changes})  # type: ignore[arg-type]


def record(entry: Entry, sequence: int = 1, *, worker: int = 2, header: bool = True) -> Record:
    name = SegmentName(WALL_NS, worker, BOOT, 1)
    head = Header(worker, BOOT, WALL_NS, 0, 1, (GENERATION,))
    segment = Segment(Path(str(name)), name, head if header else None, 0, "", False)
    return Record(segment, 0, 0, sequence, entry)


def call(
    entry: Entry | None = None,
    sequence: int = 1,
    *,
    reply: Reply = Reply.LEFT,
    replied_after_ns: int = 300_000,
    scored: tuple[tuple[int, ScoredCall], ...] = (),
    worker: int = 2,
    header: bool = True,
) -> Call:
    return Call(
        record(entry or decision(), sequence, worker=worker, header=header),
        GENERATION,
        reply,
        ARRIVAL_NS + replied_after_ns if reply is Reply.LEFT else None,
        scored,
    )
