"""Spans: each call one, the same whenever it is made, and nothing in it that must not leave."""

from __future__ import annotations

import itertools
import json
from typing import Any

import catalogue
import journalled
import pytest
from hypothesis import given
from hypothesis import strategies as st
from journalled import ARRIVAL_NS, BOOT, CALLER, MS, TRACE, TRACEPARENT, WALL_NS
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span, Status

from gateway.cli.waterfall import as_line, as_object, waterfall
from gateway.journal import (
    Decision,
    Flag,
    Gap,
    Generation,
    Loss,
    Pause,
    Refused,
    Rejected,
    Reply,
    ScoredCall,
    Shed,
    decision_id,
)
from gateway.sidecar.tail.call import Batch, Call, LateScored, Position, Range
from gateway.sidecar.traces.attributes import held, varint
from gateway.sidecar.traces.spans import Detail, SpanEncoder, server_span_id
from gateway.v1.decision_pb2 import APPROVE, DECLINE, FeatureValue

ALL = Detail(all_calls=True)
ERROR = Status.STATUS_CODE_ERROR
STAGES = ["admit", "encode", "infer", "decide", "record", "reply"]


def spans(call: Call, detail: Detail | None = None) -> list[Span]:
    return [Span.FromString(one) for one in SpanEncoder(detail).of_call(call)]


def said(span: Span) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in span.attributes:
        assert one.key not in found, f"{one.key} stands twice"
        kind = one.value.WhichOneof("value")
        value = getattr(one.value, kind)
        found[one.key] = (
            [item.string_value for item in value.values] if kind == "array_value" else value
        )
    return found


def test_a_call_is_one_server_span_with_everything_an_sre_asks_for() -> None:
    (span,) = spans(journalled.call())
    assert span.name == "gateway.v1.DecisionService/Decide"
    assert span.kind == Span.SPAN_KIND_SERVER
    assert span.start_time_unix_nano == WALL_NS + ARRIVAL_NS
    assert span.end_time_unix_nano == WALL_NS + ARRIVAL_NS + 300_000
    assert not span.HasField("status")
    attributes = said(span)
    slack = {key: attributes.pop(f"gateway.slack.{key}_us") for key in STAGES}
    stages = {key: attributes.pop(f"gateway.stage.{key}_us") for key in STAGES}
    assert stages == {
        "admit": 20.0, "encode": 30.0, "infer": 100.0, "decide": 20.0, "record": 30.0,
        "reply": 100.0,
    }  # fmt: skip
    assert slack == {
        "admit": 24_980.0, "encode": 24_950.0, "infer": 24_850.0, "decide": 24_830.0,
        "record": 24_800.0, "reply": 24_700.0,
    }  # fmt: skip
    assert attributes == {
        "rpc.system.name": "grpc",
        "rpc.method": "gateway.v1.DecisionService/Decide",
        "rpc.status_code": "OK",
        "gateway.product": "test",
        "gateway.generation": 3,
        "gateway.generation.digest": "cd" * 32,
        "gateway.arm": "v1",
        "gateway.model.name": "v1",
        "gateway.model.version": "1.0",
        "gateway.model.digest": "ab" * 32,
        "gateway.worker": 2,
        "gateway.decision_id": decision_id(BOOT, 2, 1),
        "gateway.action": "APPROVE",
        "gateway.stand_in": "NONE",
        "gateway.batch_size": 7,
        "gateway.product_budget_us": 25_000,
        "gateway.budget_us": 25_000.0,
        "gateway.probability": 0.25,
        "gateway.threshold": 0.5,
        "gateway.margin_minor": 12.5,
    }


def test_the_callers_trace_is_continued_and_without_one_the_ids_are_the_journals() -> None:
    (joined,) = spans(journalled.call(journalled.decision(traceparent=TRACEPARENT)))
    (own,) = spans(journalled.call())
    assert (joined.trace_id.hex(), joined.parent_span_id.hex()) == (TRACE, CALLER)
    assert joined.flags == 0x301  # sampled, and the parent is known to be remote
    assert (own.parent_span_id, own.flags) == (b"", 0x100)
    assert own.span_id == joined.span_id != b""
    assert len(own.trace_id) == 16
    for span, entry in ((joined, journalled.decision(traceparent=TRACEPARENT)), (own, None)):
        call = journalled.call(entry)
        assert server_span_id(call.record) == (span.trace_id, span.span_id)


@given(
    worker=st.integers(0, 255),
    first=st.integers(1, 2**48 - 1),
    second=st.integers(1, 2**48 - 1),
)
def test_a_span_sent_again_is_the_same_and_no_two_spans_share_an_id(
    worker: int, first: int, second: int
) -> None:
    calls = {n: journalled.call(sequence=n, worker=worker) for n in (first, second)}
    made = {n: SpanEncoder(ALL).of_call(call) for n, call in calls.items()}
    again = SpanEncoder(ALL)
    assert {n: again.of_call(call) for n, call in calls.items()} == made
    ids = [Span.FromString(one).span_id for encoded in made.values() for one in encoded]
    assert len(set(ids)) == len(ids) == 7 * len(calls)


def test_workers_and_boots_do_not_share_ids() -> None:
    # 1 and 12 against 11 and 2: what is hashed must not run together.
    pairs = [(1, 12), (11, 2), (1, 1), (11, 1), (1, 11)]
    found = {spans(journalled.call(sequence=n, worker=w))[0].trace_id for w, n in pairs}
    assert len(found) == len(pairs)


SLOW = journalled.call(replied_after_ns=13 * MS)
LATE = journalled.call(replied_after_ns=26 * MS)
STOOD_IN = journalled.call(journalled.decision(stand_in=2))
GONE = journalled.call(reply=Reply.FOUND_NOBODY)
DEAD = journalled.call(reply=Reply.UNKNOWN)


@pytest.mark.parametrize(
    ("call", "error"),
    [(SLOW, ""), (STOOD_IN, ""), (GONE, ""), (LATE, "late"), (DEAD, "reply_unknown")],
    ids=["slow", "stood in", "found nobody", "late", "reply unknown"],
)
def test_a_remarkable_call_has_its_stages_as_children_that_fill_it(call: Call, error: str) -> None:
    server, *children = spans(call)
    assert said(server).get("error.type", "") == error
    assert (server.status.code == ERROR) == bool(error)
    assert children[0].start_time_unix_nano == server.start_time_unix_nano
    assert children[-1].end_time_unix_nano == server.end_time_unix_nano
    for before, after in itertools.pairwise(children):
        assert before.end_time_unix_nano == after.start_time_unix_nano
    for child in children:
        assert (child.trace_id, child.parent_span_id) == (server.trace_id, server.span_id)
        assert child.kind == Span.SPAN_KIND_INTERNAL
        assert child.end_time_unix_nano > child.start_time_unix_nano
        used_us = (child.end_time_unix_nano - server.start_time_unix_nano) / 1000
        assert said(child) == {"gateway.slack_us": pytest.approx(25_000 - used_us)}


def test_the_stages_of_a_call_that_met_no_model_do_not_pretend_that_it_did() -> None:
    at_once = journalled.decision(
        stand_in=2, encode_after_ns=90_000, infer_after_ns=90_000, decide_after_ns=90_000
    )
    server, *children = spans(journalled.call(at_once))
    assert [child.name for child in children] == ["admit", "wait", "record", "reply"]
    assert said(server)["gateway.stand_in"] == "OVERLOAD"
    assert not {"gateway.probability", "gateway.threshold", "gateway.model.name"} & set(
        said(server)
    )


def test_a_quick_call_has_children_where_all_are_asked_for_or_it_is_sampled() -> None:
    call = journalled.call()
    assert [one.name for one in spans(call)[1:]] == []
    assert [one.name for one in spans(call, ALL)[1:]] == STAGES
    encoder = SpanEncoder(Detail(sampled_share=0.1))
    sampled = [len(encoder.of_call(journalled.call(sequence=n))) > 1 for n in range(2000)]
    assert 140 < sum(sampled) < 260


def test_a_refusal_is_an_error_and_names_only_fields_of_the_contract() -> None:
    canary = "features[4111111111111111]"
    entry = journalled.refusal(fields=("amount", canary, "4111111111111111"))
    server, *children = spans(journalled.call(entry))
    attributes = said(server)
    assert server.status.code == ERROR
    assert attributes["error.type"] == attributes["rpc.status_code"] == "INVALID_ARGUMENT"
    assert attributes["gateway.refused.fields"] == ["_OTHER", "amount", "features"]
    assert [child.name for child in children] == ["admit", "reply"]


def test_a_refusal_of_an_unknown_status_is_still_a_span() -> None:
    (server, *_) = spans(journalled.call(journalled.refusal(code=200)))
    assert said(server)["rpc.status_code"] == "UNKNOWN"


def test_shadow_arms_are_children_behind_the_reply() -> None:
    scored = ((1, ScoredCall(1, 0.7, 0.9, DECLINE)), (5, ScoredCall(1, 0.7, 0.1, APPROVE)))
    server, *children = spans(journalled.call(scored=scored), ALL)
    known, unknown = children[-2:]
    assert {known.name, unknown.name} == {"shadow"}
    assert known.start_time_unix_nano == server.end_time_unix_nano
    assert said(known) == {
        "gateway.arm": "v2",
        "gateway.action": "DECLINE",
        "gateway.shadow.agrees": False,
        "gateway.probability": 0.9,
    }
    assert said(unknown)["gateway.arm"] == "5"
    assert known.span_id != unknown.span_id


def test_flags_are_attributes() -> None:
    flags = Flag.NEAR_TIE | Flag.EXPLORED
    (span,) = spans(journalled.call(journalled.decision(flags=flags)))
    assert {"gateway.near_tie", "gateway.explored"} <= set(said(span))
    assert "gateway.expired" not in said(span)


def test_a_call_whose_segment_lost_its_header_has_a_span_that_says_so() -> None:
    (span,) = spans(journalled.call(header=False))
    assert said(span)["gateway.undated"] is True
    assert span.start_time_unix_nano == WALL_NS
    assert span.end_time_unix_nano == WALL_NS + 300_000


def test_a_response_that_cannot_be_read_costs_its_threshold_and_model_alone() -> None:
    entry = journalled.decision(response=b"\xff\xff")
    (span,) = spans(journalled.call(entry))
    assert said(span)["gateway.product"] == "test"
    assert "gateway.threshold" not in said(span)


def test_what_one_generation_says_is_not_said_of_another() -> None:
    """The constant part is kept: a worker's other arm and another product must not get it."""
    encoder = SpanEncoder()
    first = encoder.of_call(journalled.call())[0]
    other = Generation(1, "other", 9, "ee" * 32, ("w",))
    call = journalled.call(journalled.decision(product=1))
    second = encoder.of_call(Call(call.record, other, call.reply, call.replied_ns))[0]
    challenger = encoder.of_call(journalled.call(journalled.decision(arm=1)))[0]
    stood_in = encoder.of_call(journalled.call(journalled.decision(stand_in=1)))[0]
    told = [said(Span.FromString(one)) for one in (first, second, challenger, stood_in)]
    assert [one["gateway.product"] for one in told] == ["test", "other", "test", "test"]
    assert [one["gateway.arm"] for one in told] == ["v1", "w", "v2", "v1"]
    assert ["gateway.model.name" in one for one in told] == [True, True, True, False]


def test_a_caller_can_put_nothing_of_its_own_into_a_span() -> None:
    canary = "CANARY4111111111111111"
    request = catalogue.request()
    request.transaction_id = request.subject = request.channel = canary
    request.features["entry_mode"].CopyFrom(FeatureValue(text=canary))
    request.features["amount"].number = 424242.4242
    request.amount = 777_777_777
    entry = journalled.decision(
        request=request.SerializeToString(), stand_in=1, traceparent=TRACEPARENT
    )
    refused = journalled.refusal(fields=(canary, f"features[{canary}]"))
    encoder = SpanEncoder(ALL)
    made = b"".join(
        one
        for call in (entry, journalled.decision(request=request.SerializeToString()), refused)
        for one in encoder.of_call(journalled.call(call))
    )
    assert len(made) > 2000
    for text in (canary, "4111111111111111", "424242", "777777777"):
        assert text.encode() not in made
    value = FeatureValue(number=424242.4242).SerializeToString()
    assert value[1:] not in made
    assert request.SerializeToString() not in made
    assert varint(777_777_777) not in made


@pytest.mark.parametrize(
    ("entry", "name", "attributes", "is_error"),
    [
        (
            Shed(ARRIVAL_NS, ARRIVAL_NS + MS, 40),
            "gateway.v1.DecisionService/Decide",
            {"gateway.shed.count": 40, "rpc.status_code": "RESOURCE_EXHAUSTED"},
            True,
        ),
        (Pause(ARRIVAL_NS, 30 * MS), "gateway.pause", {"gateway.pause_us": 30_000.0}, False),
        (
            Gap(Loss.RETENTION, 1, 9, 9, WALL_NS, 0, BOOT),
            "gateway.gap",
            {"gateway.gap.reason": "RETENTION", "gateway.gap.count": 9},
            True,
        ),
        (journalled.GENERATION, "gateway.generation", {"gateway.generation": 3}, False),
        (
            Rejected("test", "/secret/folder", 4, "", ("why",)),
            "gateway.rejected",
            {"gateway.product": "test"},
            True,
        ),
    ],
)
def test_what_stands_beside_calls_has_a_span_of_its_own(
    entry: Any, name: str, attributes: dict[str, Any], is_error: bool
) -> None:
    record = journalled.record(entry, 17)
    (encoded,) = SpanEncoder().of_aside(record)
    span = Span.FromString(encoded)
    assert SpanEncoder().of_aside(record) == [encoded]
    assert span.name == name
    assert attributes.items() <= said(span).items()
    assert (span.status.code == ERROR) == is_error
    assert span.start_time_unix_nano <= span.end_time_unix_nano


def test_a_late_score_has_no_span() -> None:
    late = LateScored(journalled.record(Pause(0, 1)), 1, ScoredCall(1, 0.7, 0.9, DECLINE))
    assert SpanEncoder().of_aside(late) == []


@given(number=st.integers(0, 2**63))
def test_varints_are_protobufs(number: int) -> None:
    from google.protobuf.internal.decoder import _DecodeVarint  # type: ignore[attr-defined]

    assert _DecodeVarint(varint(number), 0) == (number, len(varint(number)))


def test_held_spans_are_the_field_of_scope_spans() -> None:
    made = SpanEncoder(ALL).of_call(journalled.call())
    scope = ScopeSpans.FromString(b"".join(held(b"\x12", one) for one in made))
    assert [one.SerializeToString() for one in scope.spans] == [
        Span.FromString(one).SerializeToString() for one in made
    ]


U8, U16, U32, U64 = (st.integers(0, 2**bits - 1) for bits in (8, 16, 32, 64))
SHIFTED = Detail(slow_share=0.5, sampled_share=0.5)
TEXTS = st.one_of(st.just(TRACEPARENT), st.text(st.characters(codec="ascii"), max_size=60))
STRANGE_CONTEXT = st.one_of(TEXTS, TEXTS.map(lambda text: text.ljust(55)[:55]))


@given(
    entry=st.one_of(
        st.builds(
            Decision,
            *(st.builds(Flag, U8), U8, U8, U8, U16, U32, U16, U64, U64, U32, U32, U32, U32, U32),
            *(st.floats(), st.floats(), st.floats(), st.floats(), STRANGE_CONTEXT, U8),
            *(st.binary(max_size=20), st.binary(max_size=200)),
        ),
        st.builds(
            Refused, U64, U32, U8, U16, STRANGE_CONTEXT, st.lists(st.text(max_size=9)).map(tuple)
        ),
    ),
    reply=st.sampled_from(Reply),
    replied_ns=U64,
    knows=st.booleans(),
    scored=st.lists(st.tuples(U8, st.builds(ScoredCall, U64, st.floats(), st.floats(), U8))),
)
def test_whatever_the_journal_can_hold_is_spans_that_a_collector_can_read(
    entry: Any, reply: Reply, replied_ns: int, knows: bool, scored: Any
) -> None:
    """A record that could not be made a span would hold back every one behind it."""
    call = Call(
        journalled.record(entry, header=knows),
        journalled.GENERATION if knows else None,
        reply,
        replied_ns if reply is Reply.LEFT else None,
        tuple(scored),
    )
    encoder = SpanEncoder(SHIFTED)
    made = encoder.of_call(call)
    server, *children = (Span.FromString(one) for one in made)
    assert SpanEncoder(SHIFTED).of_call(call) == made
    assert server_span_id(call.record) == (server.trace_id, server.span_id)
    for span in (server, *children):
        assert (len(span.trace_id), len(span.span_id)) == (16, 8)
        assert span.start_time_unix_nano <= span.end_time_unix_nano
        said(span)
    for child in children:
        assert child.parent_span_id == server.span_id
    assert "".join(waterfall(call, (), 80))
    assert as_line(call)
    json.dumps(as_object(call, ()))


def test_a_batch_is_the_spans_of_its_calls_and_of_what_stands_beside_them() -> None:
    calls = tuple(journalled.call(sequence=n) for n in (1, 2, 3))
    pause = journalled.record(Pause(ARRIVAL_NS, 30 * MS), 4)
    late = LateScored(pause, 1, ScoredCall(1, 0.7, 0.9, DECLINE))
    batch = Batch(calls, (pause, late), (Range(2, BOOT, 1, 4),), Position())
    encoder = SpanEncoder()
    expected = [one for call in calls for one in encoder.of_call(call)]
    assert list(encoder.of_batch(batch)) == expected + encoder.of_aside(pause)
