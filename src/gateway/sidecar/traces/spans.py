"""From calls to OTLP spans: one server span a call, children where there is something to see.

A span's ids come from (boot, worker, sequence, stage) alone, so that one that is sent again is the
same span. The server span continues the caller's W3C context and carries the stages' times; calls
that were slow, stood in, refused, failed or sampled have a child span a stage as well.

Never in a span: a feature, a subject, a group, the payment's id or amount, or a field's name that
the caller chose.

Spans are `opentelemetry.proto.trace.v1.Span` as bytes, laid out by hand: the protobuf classes cost
more than everything else together (`benchmarks/spans.py` has the figures).

Pure: no clock, no chance, no network.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from math import isfinite
from struct import Struct
from typing import NamedTuple

from google.protobuf.message import DecodeError
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from gateway.journal import (
    Decision,
    Flag,
    Gap,
    Generation,
    Pause,
    Record,
    Refused,
    Rejected,
    Reply,
    Shed,
    decision_id,
)
from gateway.sidecar.tail.call import Aside, Batch, Call
from gateway.sidecar.traces.attributes import Numbers, attribute, attributes, failed
from gateway.sidecar.traces.verdict import SLOW_SHARE, stages, status
from gateway.v1.decision_pb2 import Action, DecideRequest, DecideResponse, StandIn

METHOD = "gateway.v1.DecisionService/Decide"
CONSTANTS_MAX = 4096
"""How many generations' constant attributes are kept laid out."""

_TRACEPARENT_LENGTH = 55
_U64_MAX = 2**64 - 1
_HAS_IS_REMOTE, _IS_REMOTE = 0x100, 0x200
_STAGES = ("admit", "encode", "infer", "decide", "record")
_TRACE, _STAGE_SLOT = slice(0, 16), {name: 24 + 8 * i for i, name in enumerate(_STAGES)}
_STAGE_SLOT["wait"] = _STAGE_SLOT["encode"]  # the same stretch of a call that met no model
_SERVER = slice(16, 24)

# Fields of Span: trace_id, span_id, start, end; parent_span_id; flags. And one attribute.
_IDS = Struct("<2s16s2s8ssQsQ")
_PARENT = Struct("<2s8s")
_FLAGS = Struct("<2sI")
_IN_TRACE, _IS, _UNDER = b"\x0a\x10", b"\x12\x08", b"\x22\x08"
_START, _END, _FLAGGED = b"\x39", b"\x41", b"\x85\x01"
_DECISION_ID = attribute("gateway.decision_id", "0" * 32)[:-32]

_BASE = Numbers(
    "gateway.budget_us",
    *(f"gateway.stage.{name}_us" for name in _STAGES),
    *(f"gateway.slack.{name}_us" for name in _STAGES),
)
_REPLY = Numbers("gateway.stage.reply_us", "gateway.slack.reply_us")
_PROBABILITY = Numbers("gateway.probability")
_MARGIN = Numbers("gateway.margin_minor")
_THRESHOLD = Numbers("gateway.threshold")
_SLACK = Numbers("gateway.slack_us")


def _head(name: str, kind: int) -> bytes:
    return Span(name=name, kind=kind).SerializeToString()  # type: ignore[arg-type]


_SERVER_HEAD = _head(METHOD, Span.SPAN_KIND_SERVER) + b"".join(
    (attribute("rpc.system.name", "grpc"), attribute("rpc.method", METHOD))
)
_CHILD_HEAD = {name: _head(name, Span.SPAN_KIND_INTERNAL) for name in (*_STAGES, "wait", "reply")}
_ACTION = {number: attributes(action=name) for name, number in Action.items()}
_STAND_IN = {number: attributes(stand_in=name) for name, number in StandIn.items()}
_STATUS = {code: attribute("rpc.status_code", status(code)) for code in range(18)}
_FLAG = {
    bits: b"".join(attributes(**{str(flag.name).lower(): True}) for flag in Flag if flag & bits)
    for bits in range(32)
}
_REPLY_LOST = {
    Reply.LEFT: b"",
    Reply.FOUND_NOBODY: attributes(reply="found_nobody"),
    Reply.UNKNOWN: attributes(reply="unknown"),
}
_LATE, _REPLY_UNKNOWN = failed("late"), failed("reply_unknown")
_UNDATED = attributes(undated=True)
_UNKNOWN_FIELD = "_OTHER"


@dataclass(frozen=True, slots=True)
class Detail:
    """Which calls have a child span a stage, besides those that failed, were refused or stood in.

    `slow_share`: those that used more than this share of their budget. `sampled_share`: of the
    others, chosen by their ids. `all_calls`: every one.
    """

    slow_share: float = SLOW_SHARE
    sampled_share: float = 0.0
    all_calls: bool = False


class SpanId(NamedTuple):
    """Where a call's server span stands: what a link to it says."""

    trace_id: bytes
    span_id: bytes


def server_span_id(record: Record) -> SpanId:
    """Return the ids of a call's server span."""
    name, entry = record.segment.name, record.entry
    assert isinstance(entry, Decision | Refused)
    slots = _slots(name.boot_id, name.worker, record.sequence)
    trace_id, _ = _context(entry.traceparent, slots)
    return SpanId(trace_id, slots[_SERVER])


def span_at(boot_id: bytes, worker: int, sequence: int, trace_id: bytes | None) -> SpanId:
    """Return the same by a call's place, and its caller's trace where it sent one."""
    slots = _slots(boot_id, worker, sequence)
    return SpanId(trace_id or slots[_TRACE], slots[_SERVER])


class SpanEncoder:
    """Turns calls, and what stands beside them, into spans.

    Keeps what is the same for all calls of a generation; holds nothing of a call.
    """

    def __init__(self, detail: Detail | None = None) -> None:
        self._detail = detail or Detail()
        self._sampled_below = int(self._detail.sampled_share * 2**32)
        self._constants: dict[object, bytes] = {}

    def of_batch(self, batch: Batch) -> Iterator[bytes]:
        """Yield the spans of everything in a batch of the tail."""
        for call in batch.calls:
            yield from self.of_call(call)
        for aside in batch.asides:
            yield from self.of_aside(aside)

    def of_call(self, call: Call) -> list[bytes]:
        """Return the call's server span, then its children where it has any."""
        entry = call.record.entry
        if isinstance(entry, Decision):
            return self._decided(call, entry)
        assert isinstance(entry, Refused)
        return self._refused(call, entry)

    def of_aside(self, aside: Aside) -> list[bytes]:
        """Return the span of what is no call; a trace of its own.

        Calls that were shed have one span together: nothing is known of each. A late score has
        none: its trace is not known any more.
        """
        if not isinstance(aside, Record):
            return []
        described = _described(aside)
        if described is None:
            return []
        name, start_ns, end_ns, rest = described
        where = aside.segment.name
        slots = _slots(where.boot_id, where.worker, aside.sequence)
        ids = _ids(slots[_TRACE], slots[_SERVER], start_ns, end_ns)
        kind = Span.SPAN_KIND_SERVER if name == METHOD else Span.SPAN_KIND_INTERNAL
        return [ids + _head(name, kind) + attributes(worker=where.worker) + rest]

    def _decided(self, call: Call, entry: Decision) -> list[bytes]:
        record = call.record
        where = record.segment.name
        slots = _slots(where.boot_id, where.worker, record.sequence)
        base_ns, clock = _base_ns(record, entry.arrival_ns)
        trace_id, context = _context(entry.traceparent, slots)
        budget_ns = entry.deadline_ns - entry.arrival_ns
        admit, encode, infer = entry.admit_after_ns, entry.encode_after_ns, entry.infer_after_ns
        decide, recorded = entry.decide_after_ns, entry.record_after_ns
        parts = [
            b"",
            _SERVER_HEAD,
            context,
            clock,
            self._constant(call, entry),
            _DECISION_ID,
            decision_id(where.boot_id, where.worker, record.sequence).encode(),
            _ACTION.get(entry.action, b""),
            _STAND_IN.get(entry.stand_in, b""),
            _FLAG[entry.flags & 31],
            _batch_size(entry.batch_size),
            _BASE.pack(
                budget_ns / 1000,
                admit / 1000,
                (encode - admit) / 1000,
                (infer - encode) / 1000,
                (decide - infer) / 1000,
                (recorded - decide) / 1000,
                (budget_ns - admit) / 1000,
                (budget_ns - encode) / 1000,
                (budget_ns - infer) / 1000,
                (budget_ns - decide) / 1000,
                (budget_ns - recorded) / 1000,
            ),
        ]
        used_ns = recorded
        if call.replied_ns is not None:
            used_ns = call.replied_ns - entry.arrival_ns
            parts.append(_REPLY.pack((used_ns - recorded) / 1000, (budget_ns - used_ns) / 1000))
        if not entry.stand_in:
            parts.append(_PROBABILITY.pack(entry.probability))
            if isfinite(entry.margin):
                parts.append(_MARGIN.pack(entry.margin))
            parts.append(_threshold(entry.response))
        remarkable = entry.stand_in != 0 or used_ns > self._detail.slow_share * budget_ns
        if call.reply is Reply.LEFT:
            parts.append(_STATUS[0])
        else:
            remarkable = True
            parts.append(_REPLY_LOST[call.reply])
            if call.reply is Reply.FOUND_NOBODY:
                parts.append(_STATUS[1])
        if used_ns > budget_ns:
            remarkable = True
            parts.append(_LATE)
        elif call.reply is Reply.UNKNOWN:
            parts.append(_REPLY_UNKNOWN)
        end_ns = base_ns + used_ns
        parts[0] = _ids(trace_id, slots[_SERVER], base_ns, end_ns)
        spans = [b"".join(parts)]
        if remarkable or self._is_sampled(slots):
            spans += _children(call, trace_id, slots, base_ns, budget_ns)
            spans += _shadows(call, trace_id, slots, end_ns)
        return spans

    def _refused(self, call: Call, entry: Refused) -> list[bytes]:
        record = call.record
        where = record.segment.name
        slots = _slots(where.boot_id, where.worker, record.sequence)
        base_ns, clock = _base_ns(record, entry.arrival_ns)
        trace_id, context = _context(entry.traceparent, slots)
        used_ns = entry.refused_after_ns
        if call.replied_ns is not None:
            used_ns = call.replied_ns - entry.arrival_ns
        fields = sorted({_declared(field) for field in entry.fields})
        server = b"".join(
            (
                _ids(trace_id, slots[_SERVER], base_ns, base_ns + used_ns),
                _SERVER_HEAD,
                context,
                clock,
                self._constant(call, entry),
                _STATUS.get(entry.code, _STATUS[2]),
                _REPLY_LOST[call.reply],
                failed(status(entry.code)),
                attributes(refused__fields=fields) if fields else b"",
            )
        )
        return [server, *_children(call, trace_id, slots, base_ns, None)]

    def _constant(self, call: Call, entry: Decision | Refused) -> bytes:
        """Return what all calls of a generation that one arm decided have in common."""
        arm, by_model = -1, False
        if isinstance(entry, Decision):
            arm, by_model = entry.arm, not entry.stand_in
        segment = call.record.segment.name
        # An index of the table of products is not used twice in a boot.
        key = (segment.boot_id, segment.worker, entry.product, arm, by_model)
        known = self._constants.get(key)
        if known is None:
            known = _laid_out(call.generation, segment.worker, arm, entry)
            if len(self._constants) >= CONSTANTS_MAX:
                self._constants.clear()
            if call.generation is not None:
                self._constants[key] = known
        return known

    def _is_sampled(self, slots: bytes) -> bool:
        if self._detail.all_calls:
            return True
        return int.from_bytes(slots[_SERVER][:4], "little") < self._sampled_below


def _slots(boot_id: bytes, worker: int, sequence: int) -> bytes:
    """Return 64 bytes: a trace id, the server span's, and one id for each of five stages."""
    return blake2b(b"%b%d/%d" % (boot_id, worker, sequence), digest_size=64).digest()


def _further(slots: bytes, stage: str) -> bytes:
    """Return the id of a span that has no slot."""
    return blake2b(slots + stage.encode(), digest_size=8).digest()


def _base_ns(record: Record, arrival_ns: int) -> tuple[int, bytes]:
    """Return when a call arrived, as wall time.

    Where a segment's header is lost, when its name says that it was begun.
    """
    header = record.segment.header
    if header is None:
        return record.segment.name.created_ns, _UNDATED
    return header.created_wall_ns + arrival_ns - header.created_monotonic_ns, b""


def _ids(trace_id: bytes, span_id: bytes, start_ns: int, end_ns: int) -> bytes:
    """Return a span's ids and times; a time that OTLP cannot say is the nearest that it can."""
    if not 0 <= start_ns <= end_ns <= _U64_MAX:
        start_ns = min(max(start_ns, 0), _U64_MAX)
        end_ns = min(max(end_ns, start_ns), _U64_MAX)
    return _IDS.pack(_IN_TRACE, trace_id, _IS, span_id, _START, start_ns, _END, end_ns)


def _context(traceparent: str, slots: bytes) -> tuple[bytes, bytes]:
    """Return the trace's id, and the fields that say whose child the span is.

    The serving wing writes down a sound traceparent or none; what is neither counts as none.
    """
    if len(traceparent) == _TRACEPARENT_LENGTH:
        try:
            trace_id = bytes.fromhex(traceparent[3:35])
            parent = bytes.fromhex(traceparent[36:52])
            flags = int(traceparent[53:55], 16) & 0xFF | _HAS_IS_REMOTE | _IS_REMOTE
        except ValueError:
            pass
        else:
            if len(trace_id) == 16 and len(parent) == 8:  # fromhex passes over blanks
                known = _PARENT.pack(_UNDER, parent) + _FLAGS.pack(_FLAGGED, flags)
                return trace_id, known
    return slots[_TRACE], _FLAGS.pack(_FLAGGED, _HAS_IS_REMOTE)


_BATCH_SIZE: dict[int, bytes] = {}


def _batch_size(rows: int) -> bytes:
    known = _BATCH_SIZE.get(rows)
    if known is None:  # a batch has at most some thousand rows, and its field two bytes
        known = _BATCH_SIZE[rows] = attributes(batch_size=rows)
    return known


def _threshold(response: bytes) -> bytes:
    try:
        message = DecideResponse.FromString(response)
    except DecodeError:
        return b""
    if not message.HasField("threshold"):
        return b""
    return _THRESHOLD.pack(message.threshold)


def _laid_out(
    generation: Generation | None, worker: int, arm: int, entry: Decision | Refused
) -> bytes:
    parts = [attributes(worker=worker)]
    if generation is not None:
        parts.append(
            attributes(
                product=generation.product,
                generation=generation.generation,
                generation__digest=generation.digest,
            )
        )
        if 0 <= arm < len(generation.arms):
            parts.append(attributes(arm=generation.arms[arm]))
    if isinstance(entry, Decision):
        try:
            response = DecideResponse.FromString(entry.response)
        except DecodeError:
            return b"".join(parts)
        parts.append(attributes(product_budget_us=response.budget_us))
        if response.HasField("model"):
            model = response.model
            parts.append(
                attributes(
                    model__name=model.name, model__version=model.version, model__digest=model.digest
                )
            )
    return b"".join(parts)


def _declared(field: str) -> str:
    """Return the name of a field of the contract; a feature's own name may be the caller's."""
    root = field.partition("[")[0].partition(".")[0]
    return root if root in DecideRequest.DESCRIPTOR.fields_by_name else _UNKNOWN_FIELD


def _children(
    call: Call, trace_id: bytes, slots: bytes, base_ns: int, budget_ns: int | None
) -> list[bytes]:
    spans = []
    under = _PARENT.pack(_UNDER, slots[_SERVER])
    for name, start_ns, end_ns in stages(call):
        slot = _STAGE_SLOT.get(name)
        span_id = _further(slots, name) if slot is None else slots[slot : slot + 8]
        ids = _ids(trace_id, span_id, base_ns + start_ns, base_ns + end_ns)
        slack = b"" if budget_ns is None else _SLACK.pack((budget_ns - end_ns) / 1000)
        spans.append(ids + under + _CHILD_HEAD[name] + slack)
    return spans


def _shadows(call: Call, trace_id: bytes, slots: bytes, end_ns: int) -> list[bytes]:
    """Return a span for each arm that scored the call afterwards.

    The journal does not keep when: they stand behind the reply, without a length.
    """
    entry = call.record.entry
    under = _PARENT.pack(_UNDER, slots[_SERVER])
    spans = []
    for arm, scored in call.scored:
        stage = f"shadow/{arm}"
        ids = _ids(trace_id, _further(slots, stage), end_ns, end_ns)
        arms = call.generation.arms if call.generation else ()
        said = attributes(
            arm=arms[arm] if arm < len(arms) else str(arm),
            action=Action.Name(scored.action) if scored.action in Action.values() else "UNKNOWN",
            shadow__agrees=scored.action == getattr(entry, "action", None),
        )
        spans.append(
            b"".join(
                (
                    ids,
                    under,
                    _head("shadow", Span.SPAN_KIND_INTERNAL),
                    said,
                    _PROBABILITY.pack(scored.probability),
                )
            )
        )
    return spans


def _described(aside: Record) -> tuple[str, int, int, bytes] | None:
    """Return an aside's name, its start and end as wall time, and its attributes."""
    entry = aside.entry
    created_ns = aside.segment.name.created_ns
    match entry:
        case Shed():
            start_ns, clock = _base_ns(aside, entry.first_arrival_ns)
            end_ns = start_ns + max(entry.last_arrival_ns - entry.first_arrival_ns, 0)
            said = attributes(shed__count=entry.count) + _STATUS[8] + failed(status(8))
            return METHOD, start_ns, end_ns, said + clock
        case Pause():
            start_ns, clock = _base_ns(aside, entry.start_ns)
            said = Numbers("gateway.pause_us").pack(entry.duration_ns / 1000)
            return "gateway.pause", start_ns, start_ns + entry.duration_ns, said + clock
        case Gap():
            said = attributes(gap__reason=entry.reason.name, gap__count=entry.count)
            is_loss = failed("gap") if entry.count else b""
            return "gateway.gap", entry.wall_ns, entry.wall_ns, said + is_loss
        case Generation():
            said = attributes(
                product=entry.product,
                generation=entry.generation,
                generation__digest=entry.digest,
            )
            return "gateway.generation", created_ns, created_ns, said + _UNDATED
        case Rejected():
            said = attributes(product=entry.product, generation=entry.generation)
            return "gateway.rejected", created_ns, created_ns, said + failed("rejected") + _UNDATED
    return None
