"""A call as a waterfall, as one row and as JSON: stages, slack, and what stood around it.

What a caller sent is not shown: no feature, no subject, no amount.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isfinite
from typing import Any

from google.protobuf.message import DecodeError

from gateway.cli.terms import microseconds, utc, utc_time
from gateway.journal import (
    Decision,
    Flag,
    Pause,
    Record,
    Refused,
    Reply,
    ScoredCall,
    Shed,
    decision_id,
)
from gateway.sidecar.tail.call import Call
from gateway.sidecar.traces.spans import server_span_id
from gateway.sidecar.traces.verdict import end_ns, stages, status, trace_id_of_caller, verdict
from gateway.v1.decision_pb2 import Action, DecideResponse, StandIn

_LABELS = 32
"""Columns before the bars."""

_WIDTH_MAX = 120

BOOT_ID_BYTES = 16


def waterfall(call: Call, around: Sequence[Record], width: int) -> Iterator[str]:
    """Yield the drawing's lines, at most `width` columns where it can be."""
    yield from _told(call)
    yield ""
    yield from _drawn(call, max(20, min(width, _WIDTH_MAX) - _LABELS))
    for arm, scored in call.scored:
        yield f"  shadow {_arm(call, arm)}: {_shadow(call, scored)}"
    for record in around:
        yield f"  {_nearby(call, record)}"


def headed(time: str, what: str, used: str, left: str, place: str, product: str, note: str) -> str:
    """Set one row's columns; what may be long comes last."""
    return f"{time:23} {what:8} {used:>8} {left:>9} {place:32} {product} {note}".rstrip()


HEADING = headed("time (UTC)", "answer", "used", "left", "id", "product", "")


def as_line(call: Call) -> str:
    """Return a call as one line under HEADING."""
    entry = _entry(call)
    is_decision = isinstance(entry, Decision)
    return headed(
        _clock(call.record.wall_ns(entry.arrival_ns)),
        _spoken(Action, entry.action) if isinstance(entry, Decision) else "refused",
        microseconds(used_ns(call) / 1000),
        _signed((entry.deadline_ns - end_ns(call)) / 1000) if isinstance(entry, Decision) else "",
        _id(call),
        call.generation.product if call.generation else "-",
        _notes(call) if is_decision else status(getattr(entry, "code", 2)),
    )


def as_object(call: Call, around: Sequence[Record]) -> dict[str, Any]:
    """Return a call as JSON values, times in µs after its arrival."""
    entry, seen, record = _entry(call), verdict(call), call.record
    arrived_ns = record.wall_ns(entry.arrival_ns)
    budget_ns = entry.deadline_ns - entry.arrival_ns if isinstance(entry, Decision) else None
    generation = call.generation
    shown: dict[str, Any] = {
        "id": _id(call),
        "kind": type(entry).__name__.lower(),
        "arrived": utc_time(arrived_ns) or None,
        "worker": record.segment.name.worker,
        "trace_id": trace_id(call),
        "caller_span_id": entry.traceparent[36:52] or None,
        "product": generation.product if generation else None,
        "generation": (generation.generation or None) if generation else None,
        "generation_digest": (generation.digest or None) if generation else None,
        "reply": call.reply.value,
        "slow": seen.slow,
        "stood_in": seen.stood_in,
        "late": seen.late,
        "error": seen.error or None,
        "budget_us": None if budget_ns is None else budget_ns / 1000,
        "used_us": used_ns(call) / 1000,
        "stages": [
            {
                "name": stage.name,
                "start_us": stage.start_ns / 1000,
                "end_us": stage.end_ns / 1000,
                "slack_us": None if budget_ns is None else (budget_ns - stage.end_ns) / 1000,
            }
            for stage in stages(call)
        ],
        "nearby": [_nearby_object(call, one) for one in around],
    }
    if isinstance(entry, Refused):
        return shown | {"code": status(entry.code), "fields": list(entry.fields)}
    response = _response(entry)
    model = response.model
    return shown | {
        "action": _named(Action, entry.action),
        "stand_in": _named(StandIn, entry.stand_in),
        "batch_size": entry.batch_size,
        "arm": _arm(call, entry.arm),
        "model": {"name": model.name, "version": model.version, "digest": model.digest}
        if response.HasField("model")
        else None,
        "probability": entry.probability if isfinite(entry.probability) else None,
        "threshold": response.threshold if response.HasField("threshold") else None,
        "margin_minor": entry.margin if isfinite(entry.margin) else None,
        "flags": [str(flag.name).lower() for flag in Flag if flag & entry.flags],
        "shadow": [
            {
                "arm": _arm(call, arm),
                "probability": scored.probability if isfinite(scored.probability) else None,
                "action": _named(Action, scored.action),
                "agrees": scored.action == entry.action,
            }
            for arm, scored in call.scored
        ],
    }


def trace_id(call: Call) -> str | None:
    """Return the id of a call's trace; None where a lake's row alone tells of a call without one.

    An id of our own is made of the whole boot id, and the lake keeps half of it.
    """
    if len(call.record.segment.name.boot_id) == BOOT_ID_BYTES:
        return server_span_id(call.record).trace_id.hex()
    return trace_id_of_caller(call) or None


def used_ns(call: Call) -> int:
    """Return what a call took, until its reply left or the last that is known of it."""
    return end_ns(call) - _entry(call).arrival_ns


def _told(call: Call) -> Iterator[str]:
    entry, record, generation = _entry(call), call.record, call.generation
    served = "-"
    if generation:
        number = f", generation {generation.generation}" if generation.generation else ""
        served = f"{generation.product}{number}"
    what = _spoken(Action, entry.action) if isinstance(entry, Decision) else "refused"
    yield f"{what.upper()}  {_id(call)}  {served}"
    whose = "its caller's" if entry.traceparent else "its own"
    when = utc_time(record.wall_ns(entry.arrival_ns)) or "at a time that is not known"
    yield f"  {when}, worker {record.segment.name.worker}"
    if (named := trace_id(call)) is not None:
        yield f"  trace {named}, {whose}"
    if isinstance(entry, Refused):
        yield f"  {status(entry.code)}: {', '.join(entry.fields) or 'no field is named'}"
        return
    rows = f"in a batch of {entry.batch_size}" if entry.batch_size else "not taken to its model"
    response = _response(entry)
    named = f"model {response.model.name} {response.model.version}".rstrip()
    model = f"{named}, " if response.HasField("model") else ""
    yield f"  {model}arm {_arm(call, entry.arm)}, {rows}"
    if isfinite(entry.probability):
        threshold = (
            f", threshold {response.threshold:.3%}" if response.HasField("threshold") else ""
        )
        yield f"  P(fraud) {entry.probability:.3%}{threshold}"
    if _notes(call):
        yield f"  {_notes(call)}"


def _drawn(call: Call, width: int) -> Iterator[str]:
    """Yield a bar a stage over the time that the call took, then that time against its budget."""
    entry = _entry(call)
    budget_ns = entry.deadline_ns - entry.arrival_ns if isinstance(entry, Decision) else None
    whole_ns = max(used_ns(call), 1)
    yield f"  {'stage':8}{'took':>9}{'left':>10}   0{microseconds(whole_ns / 1000):>{width - 1}}"
    for stage in stages(call):
        left = "" if budget_ns is None else _signed((budget_ns - stage.end_ns) / 1000)
        took = microseconds((stage.end_ns - stage.start_ns) / 1000)
        bar = _bar(stage.start_ns / whole_ns, stage.end_ns / whole_ns, width)
        if budget_ns is not None and 0 < budget_ns < whole_ns:
            bar = _marked(bar, int(budget_ns / whole_ns * width))
        yield f"  {stage.name:8}{took:>9}{left:>10}   {bar}".rstrip()
    if budget_ns is not None and budget_ns > 0:
        share = whole_ns / budget_ns
        bar = _bar(0, min(share, 1), width, "▒").ljust(width, "·")
        yield f"  {'budget':8}{microseconds(budget_ns / 1000):>9}{share:>9.0%}   {bar}"


def _bar(start: float, end: float, width: int, ink: str = "█") -> str:
    """Draw from `start` to `end`, shares of the width; what took any time can be seen."""
    first = min(int(start * width), width - 1)
    last = max(first + 1, min(round(end * width), width))
    return " " * first + ink * (last - first)


def _marked(bar: str, at: int) -> str:
    """Put the deadline's mark into a bar, where there is nothing."""
    padded = bar.ljust(at + 1)
    return padded if padded[at] != " " else f"{padded[:at]}│{padded[at + 1 :]}"


def _notes(call: Call) -> str:
    """Say what is unusual of a decision."""
    entry, seen = _entry(call), verdict(call)
    said = []
    if isinstance(entry, Decision):
        if entry.stand_in:
            said.append(f"stood in: {_spoken(StandIn, entry.stand_in)}")
        said += [
            str(flag.name).lower().replace("_", " ")
            for flag in (Flag.NEAR_TIE, Flag.EXPLORED, Flag.OVERRIDDEN, Flag.EXPIRED)
            if flag & entry.flags
        ]
    if seen.late:
        said.append("late")
    if call.reply is not Reply.LEFT:
        said.append(f"reply {call.reply.value}")
    return "; ".join(said)


def _shadow(call: Call, scored: ScoredCall) -> str:
    action = _spoken(Action, scored.action)
    verb = "agrees" if scored.action == getattr(_entry(call), "action", None) else "disagrees"
    return f"P(fraud) {scored.probability:.3%}, {action}: {verb}"


def _nearby(call: Call, record: Record) -> str:
    entry = record.entry
    shown = _nearby_object(call, record)
    offset_us = shown["start_us"]
    when = (
        f"{microseconds(-offset_us)} before it arrived"
        if offset_us < 0
        else f"{microseconds(offset_us)} after it arrived"
    )
    if isinstance(entry, Pause):
        return f"pause of {microseconds(shown['duration_us'])}, begun {when}"
    return f"shed unread: {shown['count']:,} calls, the first {when}"


def _nearby_object(call: Call, record: Record) -> dict[str, Any]:
    entry, arrival_ns = record.entry, _entry(call).arrival_ns
    if isinstance(entry, Pause):
        return {
            "kind": "pause",
            "start_us": (entry.start_ns - arrival_ns) / 1000,
            "duration_us": entry.duration_ns / 1000,
        }
    assert isinstance(entry, Shed)
    return {
        "kind": "shed",
        "start_us": (entry.first_arrival_ns - arrival_ns) / 1000,
        "duration_us": (entry.last_arrival_ns - entry.first_arrival_ns) / 1000,
        "count": entry.count,
    }


def _entry(call: Call) -> Decision | Refused:
    entry = call.record.entry
    assert isinstance(entry, Decision | Refused)
    return entry


def _id(call: Call) -> str:
    name = call.record.segment.name
    return decision_id(name.boot_id, name.worker, call.record.sequence)


def _arm(call: Call, place: int) -> str:
    arms = call.generation.arms if call.generation else ()
    return arms[place] if place < len(arms) else str(place)


def _response(entry: Decision) -> DecideResponse:
    try:
        return DecideResponse.FromString(entry.response)
    except DecodeError:
        return DecideResponse()


def _spoken(names: Any, number: int) -> str:
    """Return an enum's name in words."""
    return _named(names, number).lower().replace("_", " ")


def _named(names: Any, number: int) -> str:
    """Return an enum's name; what only a newer gateway knows as its number."""
    return str(names.Name(number)) if number in names.values() else str(number)


def _signed(us: float) -> str:
    return f"-{microseconds(-us)}" if us < 0 else microseconds(us)


def _clock(wall_ns: int | None) -> str:
    if wall_ns is None:
        return ""
    return f"{utc(wall_ns):%Y-%m-%d %H:%M:%S.%f}"[:-3]
