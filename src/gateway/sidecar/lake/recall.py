"""A row of the lake as the call that it was, as far as the columns know. Pure.

What the lake does not keep is not there: the caller's bytes, the second half of the boot id, and
with it the id of a trace that no caller began. Times count from the arrival.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan
from pathlib import Path
from typing import Any

from gateway.journal import (
    Decision,
    Flag,
    Generation,
    Record,
    Refused,
    Reply,
    ScoredCall,
    Segment,
    Shed,
)
from gateway.journal.segment import Header, SegmentName
from gateway.sidecar.lake.schema import ACTIONS, STAGES
from gateway.sidecar.tail.call import Call
from gateway.v1.decision_pb2 import DecideResponse, StandIn

DECISION = (
    *("generation", "digest", "received", "action", "stand_in", "arm", "model", "model_version"),
    *("model_digest", "probability", "threshold", "margin_minor", "near_tie", "explored"),
    *("overridden", "expired", "other_arms", "deadline_us", *STAGES, "replied_us", "reply"),
    *("batch_size", "trace_id", "worker", "boot", "sequence"),
)
"""The columns of decisions that `call_of` reads: no feature, no subject, no amount."""

REFUSAL = (
    *("received", "code", "fields", "refused_us", "replied_us", "reply", "trace_id"),
    *("worker", "boot", "sequence"),
)
"""The same of refusals."""

_FLAGS = {
    "near_tie": Flag.NEAR_TIE,
    "explored": Flag.EXPLORED,
    "overridden": Flag.OVERRIDDEN,
    "expired": Flag.EXPIRED,
}
_ACTIONS = {name: number for number, name in ACTIONS.items()}
_STAND_INS = {name.lower(): number for name, number in StandIn.items()}
_REPLIES = {one.value.replace(" ", "_"): one for one in Reply}


def call_of(row: Mapping[str, Any], product: str | None) -> Call:
    """Return the call of a row of decisions or refusals. `product`: from the file's path."""
    if "code" in row:
        served = None if product is None else Generation(0, product, 0, "")
        return _call(row, _refused(row), served)
    others: Sequence[Mapping[str, Any]] = row["other_arms"] or ()
    served = None
    if product is not None and row["digest"] is not None:
        arms = (row["arm"], *(one["arm"] for one in others))
        served = Generation(0, product, row["generation"], row["digest"], arms)
    scored = tuple(
        (place, scored_call(one, row["sequence"])) for place, one in enumerate(others, 1)
    )
    return _call(row, _decision(row, is_known=served is not None), served, scored)


def scored_call(row: Mapping[str, Any], sequence: int) -> ScoredCall:
    """Return what an arm beside made of a call; `row` as in `other_arms` and `late_scores`."""
    score, probability = _number(row["score"]), _number(row["probability"])
    return ScoredCall(sequence, score, probability, _ACTIONS.get(row["action"], 0))


def shed_of(row: Mapping[str, Any], arrived: Mapping[str, Any]) -> Record:
    """Return a run of calls that were turned away, its times from the arrival of another row."""
    first_us, last_us = (wall_us(row[name]) for name in ("received", "received_last"))
    arrived_us = wall_us(arrived["received"])
    shed = Shed((first_us - arrived_us) * 1000, (last_us - arrived_us) * 1000, row["count"])
    return Record(_segment(row), 0, 0, row["sequence"], shed)


def wall_us(moment: Any) -> int:
    """Return a timestamp of the lake in µs since the epoch; exact, where a float is not."""
    return int(moment.timestamp()) * 1_000_000 + int(moment.microsecond)


def nanoseconds(us: float | None) -> int:
    """Return a time of the lake, single precision in µs, in nanoseconds."""
    return 0 if us is None else round(us * 1000)


def _call(
    row: Mapping[str, Any],
    entry: Decision | Refused,
    served: Generation | None,
    scored: tuple[tuple[int, ScoredCall], ...] = (),
) -> Call:
    reply, replied_us = _REPLIES[row["reply"]], row["replied_us"]
    replied_ns = nanoseconds(replied_us) if reply is Reply.LEFT and replied_us is not None else None
    record = Record(_segment(row), 0, 0, row["sequence"], entry)
    return Call(record, served, reply, replied_ns, scored)


def _segment(row: Mapping[str, Any]) -> Segment:
    """Return a segment whose clock began with the row's arrival."""
    worker, boot_id = row["worker"], bytes.fromhex(row["boot"])
    received_ns = wall_us(row["received"]) * 1000
    header = Header(worker, boot_id, received_ns, 0, 1)
    return Segment(Path(), SegmentName(received_ns, worker, boot_id, 1), header, 0, "", False)


def _decision(row: Mapping[str, Any], *, is_known: bool) -> Decision:
    flags = Flag(0)
    for name, flag in _FLAGS.items():
        flags |= flag if row[name] else Flag(0)
    return Decision(
        flags=flags,
        action=_ACTIONS.get(row["action"], 0),
        second_best=0,
        stand_in=_STAND_INS.get(row["stand_in"], 0),
        product=0,
        generation=row["generation"] or 0,
        batch_size=row["batch_size"],
        arrival_ns=0,
        deadline_ns=row["deadline_us"] * 1000,
        **{f"{name.removesuffix('_us')}_after_ns": nanoseconds(row[name]) for name in STAGES},
        score=nan,
        probability=_number(row["probability"]),
        propensity=1.0,
        margin=_number(row["margin_minor"]),
        traceparent=_traceparent(row),
        arm=0 if is_known else _place(row["arm"]),
        request=b"",
        response=_response(row),
    )


def _refused(row: Mapping[str, Any]) -> Refused:
    after_ns, fields = nanoseconds(row["refused_us"]), tuple(row["fields"] or ())
    return Refused(0, after_ns, row["code"], 0, _traceparent(row), fields)


def _response(row: Mapping[str, Any]) -> bytes:
    said = DecideResponse()
    if row["threshold"] is not None:
        said.threshold = row["threshold"]
    if row["model"] is not None:
        said.model.name, said.model.version = row["model"], row["model_version"]
        said.model.digest = row["model_digest"]
    return said.SerializeToString()


def _traceparent(row: Mapping[str, Any]) -> str:
    """Return as much of it as the lake keeps: the trace's id, at its place."""
    return f"00-{row['trace_id']}" if row["trace_id"] else ""


def _place(arm: str | None) -> int:
    """Return an arm's place, where nobody knew its name."""
    return int(arm) if arm and arm.isdigit() else 0


def _number(value: float | None) -> float:
    return nan if value is None else value
