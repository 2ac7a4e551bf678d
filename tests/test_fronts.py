"""One suite, two fronts: what a gRPC caller may rely on, whichever carries the call."""

from __future__ import annotations

import errno
import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import catalogue
import grpc
import numpy as np
import pytest
from conftest import Running, Serve
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from gateway.errors import ListenError
from gateway.journal import (
    Answered,
    Decision,
    Flag,
    Refused,
    Reply,
    Shed,
    join_replied,
    read,
    segments,
    verify,
)
from gateway.model import Generation
from gateway.serve.hall import hall as hall_module
from gateway.serve.hall import recorder as recorder_module
from gateway.serve.hall.answer import Answer
from gateway.v1 import decision_pb2 as pb
from gateway.v1.decision_pb2_grpc import DecisionServiceStub

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
DECIDE = "/gateway.v1.DecisionService/Decide"
DEADLINE_S = 15
"""Of a call in a crowd; less than a patient product's budget."""


def decide(running: Running, asked: pb.DecideRequest, **options: object) -> pb.DecideResponse:
    return DecisionServiceStub(running.channel).Decide(asked, **{"timeout": 10, **options})


def refused(running: Running, asked: pb.DecideRequest) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        decide(running, asked)
    return caught.value


def raw(running: Running, payload: bytes, path: str = DECIDE) -> grpc.RpcError:
    """Send bytes as they are; return the status error."""
    with pytest.raises(grpc.RpcError) as caught:
        running.channel.unary_unary(path)(payload, timeout=10)
    return caught.value


def journalled(journal: Path) -> list[Answered]:
    return [
        answered
        for segment in segments(journal)
        for answered in join_replied(item for item in read(segment) if hasattr(item, "entry"))
    ]


def slow(generation: Generation, gate: threading.Event, entered: threading.Event) -> Generation:
    """Return the generation with a model that waits at `gate`."""

    def score(batch: np.ndarray) -> list[float]:
        entered.set()
        assert gate.wait(60)
        return generation.champion.score(batch)

    def score_one(row: bytes) -> float:
        entered.set()
        assert gate.wait(60)
        return generation.champion.score_one(row)

    champion = replace(generation.champion, score=score, score_one=score_one)
    return replace(generation, champion=champion)


def patient(generation: Generation) -> Generation:
    """Return the generation with a budget of 20 s."""
    latency = generation.product.latency.model_copy(update={"budget_ms": 20_000.0})
    product = generation.product.model_copy(update={"latency": latency})
    return replace(generation, product=product)


def brief(generation: Generation) -> Generation:
    """Return the generation with a budget of 25 ms."""
    latency = generation.product.latency.model_copy(update={"budget_ms": 25.0})
    product = generation.product.model_copy(update={"latency": latency})
    return replace(generation, product=product)


def heard(channel: grpc.Channel) -> None:
    """Wait until the native front has read what was sent before on this connection.

    What it does not know it refuses itself, whatever its loop is at.
    """
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/no.Such/Service")(b"", timeout=20)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_decision_has_everything_and_stands_in_the_journal(serve: Serve) -> None:
    with serve() as running:
        asked = catalogue.request(running.fingerprint)
        response = decide(running, asked, metadata=(("traceparent", TRACEPARENT),))
        running.ended()
    row = np.frombuffer(asked.dense, dtype="<f4").reshape(1, -1)
    (score,) = running.generation.champion.score(row)
    assert response.probability == pytest.approx(score, abs=1e-6)
    assert [one.action for one in response.expected_costs] == [pb.APPROVE, pb.STEP_UP, pb.DECLINE]
    assert response.action == min(response.expected_costs, key=lambda one: one.cost).action
    assert response.stand_in == pb.NONE
    assert response.recorded
    assert 0 < response.elapsed_us < response.budget_us == catalogue.BUDGET_MS * 1000
    (answered,) = journalled(running.journal)
    entry = answered.record.entry
    assert isinstance(entry, Decision)
    assert entry.request == asked.SerializeToString()
    assert pb.DecideResponse.FromString(entry.response) == response
    assert response.decision_id.endswith(f"{answered.record.sequence:012x}")
    assert entry.traceparent == TRACEPARENT
    assert answered.reply is Reply.LEFT
    ends = (
        *(entry.admit_after_ns, entry.encode_after_ns, entry.infer_after_ns),
        *(entry.decide_after_ns, entry.record_after_ns),
    )
    assert list(ends) == sorted(ends)
    assert answered.replied_ns is not None
    assert answered.replied_ns >= entry.arrival_ns + entry.record_after_ns
    assert verify(running.journal).ok


def test_named_and_dense_features_decide_the_same(serve: Serve) -> None:
    with serve() as running:
        dense = decide(running, catalogue.request(running.fingerprint))
        named = decide(running, catalogue.request())
    assert named.probability == dense.probability
    assert named.action == dense.action


def test_all_violations_stand_in_one_answer_and_no_value_does(serve: Serve) -> None:
    with serve() as running:
        asked = catalogue.request(
            transaction_id="", amount=-31337, currency="XYZZY", category="54-1", subject="s" * 300
        )
        asked.ClearField("event_time")
        asked.features["amount"].number = 98765432.0
        asked.features["ratio"].text = "telltale"
        asked.features["fantasy"].text = "telltale"
        del asked.features["entry_mode"]
        error = refused(running, asked)
        running.ended()
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    (detail,) = rpc_status.from_call(error).details
    bad = BadRequest()
    assert detail.Unpack(bad)
    found = {violation.field for violation in bad.field_violations}
    assert found == {
        *("transaction_id", "amount", "currency", "category", "subject", "event_time"),
        *("features[amount]", "features[entry_mode]", "features[ratio]", "features[fantasy]"),
    }
    said = str(bad) + error.details()
    journal_bytes = b"".join(path.read_bytes() for path in running.journal.iterdir())
    for value in ("31337", "XYZZY", "54-1", "98765432", "telltale"):
        assert value not in said
        assert value.encode() not in journal_bytes
    (answered,) = journalled(running.journal)
    assert isinstance(answered.record.entry, Refused)
    assert set(answered.record.entry.fields) == found


@pytest.mark.parametrize(
    ("payload", "path", "code"),
    [
        (b"", DECIDE, grpc.StatusCode.INVALID_ARGUMENT),
        (b"\xff\xff\xff\xff", DECIDE, grpc.StatusCode.INVALID_ARGUMENT),
        (b"\x0a\x04nope", DECIDE, grpc.StatusCode.NOT_FOUND),
        (b"\x0a" + b"\x00" * 70_000, DECIDE, grpc.StatusCode.RESOURCE_EXHAUSTED),
        (b"", "/gateway.v1.DecisionService/Nothing", grpc.StatusCode.UNIMPLEMENTED),
        (b"", "/no.Such/Service", grpc.StatusCode.UNIMPLEMENTED),
        (b"\xff", "/grpc.health.v1.Health/Check", grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_status_codes(serve: Serve, payload: bytes, path: str, code: grpc.StatusCode) -> None:
    """And the worker answers on after each."""
    with serve() as running:
        error = raw(running, payload, path)
        assert error.code() is code
        assert "Traceback" not in error.details()
        assert decide(running, catalogue.request()).recorded


def test_a_wrong_fingerprint_or_length_is_refused_with_the_right_one(serve: Serve) -> None:
    with serve() as running:
        for changes in ({"schema_fingerprint": "0" * 16}, {"dense": b"1234567"}):
            error = refused(running, catalogue.request(running.fingerprint, **changes))
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        error = refused(running, catalogue.request(running.fingerprint, schema_fingerprint=""))
        assert running.fingerprint in error.details()
        both = catalogue.request(running.fingerprint)
        both.features["ratio"].number = 1.0
        assert "both" in refused(running, both).details()


@pytest.mark.parametrize("value", ["garbage", "00-" + "0" * 32 + "-b7ad6b7169203331-01", ""])
def test_a_malformed_traceparent_is_left_out(serve: Serve, value: str) -> None:
    with serve() as running:
        decide(running, catalogue.request(), metadata=(("traceparent", value), ("x-bin", b"\x00")))
        running.ended()
    (answered,) = journalled(running.journal)
    assert answered.record.entry.traceparent == ""


def test_a_callers_deadline_ends_the_call_and_the_record_says_who_left(
    serve: Serve, front: str, generation: Generation
) -> None:
    gate, entered = threading.Event(), threading.Event()
    with serve(slow(generation, gate, entered)) as running:
        grpc.channel_ready_future(running.channel).result(20)
        call = DecisionServiceStub(running.channel).Decide.future(catalogue.request(), timeout=1)
        assert entered.wait(60)
        assert call.exception().code() is grpc.StatusCode.DEADLINE_EXCEEDED
        if front == "native":
            heard(running.channel)
        gate.set()
        running.ended()
    (answered,) = journalled(running.journal)
    # grpcio hears nothing while a turn runs: it takes the reply and drops it.
    assert answered.reply is (Reply.FOUND_NOBODY if front == "native" else Reply.LEFT)
    entry = answered.record.entry
    # An arrival may be dated early, and gRPC rounds: about the caller's second, not the budget.
    assert entry.deadline_ns - entry.arrival_ns < 2_000_000_000 < catalogue.BUDGET_MS * 1_000_000


def test_what_waited_past_its_budget_gets_the_stand_in(
    serve: Serve, front: str, generation: Generation
) -> None:
    """So is the one whose own model took too long: its decision would be past its deadline."""
    if front == "grpcio":
        pytest.skip("what a call waits inside grpcio is dark")
    gate, entered = threading.Event(), threading.Event()
    with serve(slow(brief(generation), gate, entered)) as running:
        stub = DecisionServiceStub(running.channel)
        first = stub.Decide.future(catalogue.request(), timeout=10)
        assert entered.wait(60)
        second = stub.Decide.future(catalogue.request(amount=9_000), timeout=10)
        heard(running.channel)
        # The second call's budget is over when the model comes back.
        threading.Timer(0.2, gate.set).start()
        late = second.result()
        assert first.result().stand_in == pb.DEADLINE
    assert late.stand_in == pb.DEADLINE
    assert late.action == pb.STEP_UP
    assert late.elapsed_us > late.budget_us


def test_a_cancelled_call_is_recorded_and_found_nobody(
    serve: Serve, front: str, generation: Generation
) -> None:
    gate, entered = threading.Event(), threading.Event()
    with serve(slow(generation, gate, entered)) as running:
        call = DecisionServiceStub(running.channel).Decide.future(catalogue.request(), timeout=10)
        assert entered.wait(60)
        call.cancel()
        # A call on the same connection comes behind the cancellation.
        other = DecisionServiceStub(running.channel).Decide.future(catalogue.request(), timeout=10)
        if front == "native":
            heard(running.channel)
        gate.set()
        assert other.result().recorded
        running.ended()
    replies = [answered.reply for answered in journalled(running.journal)]
    left_first = Reply.FOUND_NOBODY if front == "native" else Reply.LEFT
    assert replies == [left_first, Reply.LEFT]


@pytest.mark.parametrize("wrong", [lambda _: float("nan"), lambda _: 1.5, lambda _: 1 / 0])
def test_a_broken_model_stands_in_and_the_worker_lives(
    serve: Serve, generation: Generation, wrong: object
) -> None:
    champion = replace(
        generation.champion, score_one=wrong, score=lambda batch: [wrong(row) for row in batch]
    )
    broken = replace(generation, champion=champion)
    with serve(broken) as running:
        response = decide(running, catalogue.request())
        assert response.stand_in == pb.MODEL_ERROR
        assert response.action == pb.STEP_UP
        assert response.recorded
        assert not response.HasField("probability")


def test_a_thousand_concurrent_calls_are_all_answered_once(
    serve: Serve, generation: Generation
) -> None:
    with serve(patient(generation)) as running:
        channels = [
            grpc.insecure_channel(running.address, options=(("gateway.channel", i),))
            for i in range(8)
        ]
        stubs = [DecisionServiceStub(channel) for channel in channels]
        futures = [
            stubs[i % 8].Decide.future(catalogue.request(transaction_id=f"t-{i}"), timeout=30)
            for i in range(1_000)
        ]
        answers = [future.result() for future in futures]
        for channel in channels:
            channel.close()
        running.ended()
    assert len({answer.decision_id for answer in answers}) == 1_000
    by_id = {
        pb.DecideResponse.FromString(one.record.entry.response).decision_id: one
        for one in journalled(running.journal)
    }
    for i, answer in enumerate(answers):
        entry = by_id[answer.decision_id].record.entry
        assert pb.DecideRequest.FromString(entry.request).transaction_id == f"t-{i}"
        assert entry.action == answer.action
    assert verify(running.journal).ok


def test_health_check_and_watch_see_it_serving_and_stopping(serve: Serve) -> None:
    with serve() as running:
        health = health_pb2_grpc.HealthStub(running.channel)
        for name in ("", "gateway.v1.DecisionService", "product/test"):
            status = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=10).status
            assert status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as caught:
            health.Check(health_pb2.HealthCheckRequest(service="product/nope"), timeout=10)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        unknown = health.Watch(health_pb2.HealthCheckRequest(service="nope"), timeout=10)
        assert next(unknown).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        unknown.cancel()
        watch = health.Watch(health_pb2.HealthCheckRequest(service="product/test"), timeout=20)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        running.stop.ask()
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(grpc.RpcError):
            next(watch)


def test_reflection_lists_the_services_and_describes_them(serve: Serve) -> None:
    with serve() as running:
        stub = reflection_pb2_grpc.ServerReflectionStub(running.channel)
        asked = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(
                file_containing_symbol="gateway.v1.DecisionService"
            ),
        ]
        listed, described = stub.ServerReflectionInfo(iter(asked), timeout=10)
    names = {service.name for service in listed.list_services_response.service}
    assert {"gateway.v1.DecisionService", "grpc.health.v1.Health"} <= names
    files = [
        FileDescriptorProto.FromString(content)
        for content in described.file_descriptor_response.file_descriptor_proto
    ]
    assert any(service.name == "DecisionService" for file in files for service in file.service)


def test_a_stop_answers_what_was_received_and_seals_the_journal(
    serve: Serve, front: str, generation: Generation
) -> None:
    gate, entered = threading.Event(), threading.Event()
    with serve(slow(generation, gate, entered)) as running:
        stub = DecisionServiceStub(running.channel)
        first = stub.Decide.future(catalogue.request(), timeout=10)
        assert entered.wait(60)
        waiting = [
            stub.Decide.future(catalogue.request(transaction_id=f"w-{i}"), timeout=10)
            for i in range(50)
        ]
        if front == "native":
            heard(running.channel)
        running.stop.ask()
        gate.set()
        assert first.result().recorded
        assert all(future.result().recorded for future in waiting)
        running.ended()
    assert len(journalled(running.journal)) == 51
    assert all(segment.sealed for segment in verify(running.journal).segments)


def test_a_port_in_use_is_said_plainly(serve: Serve) -> None:
    with (
        serve() as running,
        pytest.raises(ListenError, match="in use"),
        serve(listen=running.address, journal=running.journal.parent / "other"),
    ):
        pass


def test_a_unix_socket_serves_too(serve: Serve, tmp_path: Path) -> None:
    with serve(listen=f"unix:{tmp_path}/gateway.sock") as running:
        assert decide(running, catalogue.request()).recorded


@pytest.mark.parametrize("rule", ["continue", "stand_in"])
def test_a_journal_that_cannot_take_it_is_said_and_the_products_rule_holds(
    serve: Serve, generation: Generation, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    product = generation.product.model_copy(update={"on_record_failure": rule})
    with serve(replace(generation, product=product)) as running:

        def full(*_: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        before = decide(running, catalogue.request())
        with monkeypatch.context() as patched:
            patched.setattr(os, "write", full)
            patched.setattr(os, "pwrite", full)
            patched.setattr(os, "writev", full)
            during = decide(running, catalogue.request())
        after = decide(running, catalogue.request())
        running.ended()
    assert before.recorded
    assert after.recorded
    assert not during.recorded
    assert during.stand_in == (pb.NONE if rule == "continue" else pb.MODEL_UNAVAILABLE)
    report = verify(running.journal)
    assert report.ok
    assert sum(report.lost.values()) > 0
    ids = {
        pb.DecideResponse.FromString(one.record.entry.response).decision_id
        for one in journalled(running.journal)
    }
    assert ids == {before.decision_id, after.decision_id}


@pytest.mark.parametrize(("keeps", "kept"), [("none", False), ("full", True)])
def test_features_stay_in_the_journal_only_where_the_product_says_so(
    serve: Serve, generation: Generation, keeps: str, kept: bool
) -> None:
    records = generation.product.records.model_copy(update={"features": keeps})
    product = generation.product.model_copy(update={"records": records})
    asked = catalogue.request(generation.schema.fingerprint)
    with serve(replace(generation, product=product)) as running:
        assert decide(running, asked).recorded
        running.ended()
    (answered,) = journalled(running.journal)
    entry = answered.record.entry
    assert (entry.request == asked.SerializeToString()) == kept
    assert pb.DecideRequest.FromString(entry.request).transaction_id == "t-1"
    assert bool(entry.flags & Flag.FEATURES_LEFT_OUT) != kept
    stored = b"".join(path.read_bytes() for path in running.journal.iterdir())
    assert (asked.dense in stored) == kept


@pytest.mark.parametrize("names", [150, 2_000])
def test_many_violations_are_still_the_callers_fault_and_cost_no_one_else(
    serve: Serve, names: int
) -> None:
    """The details fit the trailers of a stock client, and say how many are left out."""
    with serve() as running:
        asked = catalogue.request()
        for i in range(names):
            asked.features[f"unknown_{i}"].number = 1.0
        error = refused(running, asked)
        running.ended()
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    (detail,) = rpc_status.from_call(error).details
    bad = BadRequest()
    assert detail.Unpack(bad)
    assert "more" in bad.field_violations[-1].description
    (answered,) = journalled(running.journal)
    # A busy machine takes its time, but not as often as there are names.
    assert answered.record.entry.refused_after_ns < 1_000_000_000


def test_a_score_that_rounding_carried_past_one_is_certain_fraud(
    serve: Serve, generation: Generation
) -> None:
    champion = replace(generation.champion, score_one=lambda _: 1.0000002)
    with serve(replace(generation, champion=champion)) as running:
        answer = decide(running, catalogue.request())
    assert answer.stand_in == pb.NONE
    assert answer.probability == 1.0
    assert answer.action == pb.DECLINE


@pytest.mark.parametrize("fatal", ["b-7"])
def test_a_fault_of_ours_costs_the_call_it_comes_from_and_no_other(
    serve: Serve,
    front: str,
    generation: Generation,
    fatal: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The others of its batch are decided, it is stood in for, and all are recorded once."""
    laid_out = recorder_module.decision_record

    def faulty(answer: Answer, *more: object) -> bytes:
        if answer.payment.transaction_id == fatal and answer.decision is not None:
            raise RuntimeError("a fault of ours")
        return laid_out(answer, *more)

    gate, entered = threading.Event(), threading.Event()
    monkeypatch.setattr(recorder_module, "decision_record", faulty)
    with serve(slow(patient(generation), gate, entered)) as running:
        stub = DecisionServiceStub(running.channel)
        first = stub.Decide.future(catalogue.request(), timeout=20)
        assert entered.wait(60)
        batch = {
            f"b-{i}": stub.Decide.future(catalogue.request(transaction_id=f"b-{i}"), timeout=20)
            for i in range(20)
        }
        if front == "native":
            heard(running.channel)
        gate.set()
        assert first.result().recorded
        answers = {name: future.result() for name, future in batch.items()}
        running.ended()
    for name, answer in answers.items():
        assert answer.recorded
        assert answer.stand_in == (pb.MODEL_ERROR if name == fatal else pb.NONE)
    assert len(journalled(running.journal)) == 21
    assert verify(running.journal).ok


def test_what_cannot_even_be_read_in_time_is_shed_counted_and_told_when_to_come_again(
    serve: Serve, front: str, generation: Generation, monkeypatch: pytest.MonkeyPatch
) -> None:
    if front == "grpcio":
        pytest.skip("its batches form while calls come to their handlers, never 300 at once")
    monkeypatch.setattr(hall_module, "SHED_SHARE", 0.0)
    gate, entered = threading.Event(), threading.Event()
    with serve(slow(patient(generation), gate, entered)) as running:
        channels = [
            grpc.insecure_channel(running.address, options=(("gateway.channel", i),))
            for i in range(3)
        ]
        stubs = [DecisionServiceStub(channel) for channel in channels]
        first = stubs[0].Decide.future(catalogue.request(), timeout=20)
        assert entered.wait(60)
        futures = [
            stubs[i % 3].Decide.future(catalogue.request(transaction_id=f"s-{i}"), timeout=20)
            for i in range(300)
        ]
        for channel in channels:
            heard(channel)
        gate.set()
        assert first.result().recorded
        errors = [error for future in futures if (error := future.exception()) is not None]
        answered = len(futures) - len(errors)
        after = decide(running, catalogue.request(transaction_id="after"))
        for channel in channels:
            channel.close()
        running.ended()
    assert after.recorded
    assert errors
    for error in errors:
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        (detail,) = rpc_status.from_call(error).details
        info = RetryInfo()
        assert detail.Unpack(info)
        assert info.retry_delay.ToMilliseconds() >= 1
    told = [item.entry for one in segments(running.journal) for item in read(one)]
    assert sum(one.count for one in told if isinstance(one, Shed)) == len(errors)
    assert sum(isinstance(one, Decision) for one in told) == answered + 2


def test_a_callers_deadline_does_not_grow_with_its_place_in_the_queue(
    serve: Serve, front: str, generation: Generation
) -> None:
    """300 calls are more than one batch: the last one's deadline is still the caller's."""
    if front == "grpcio":
        pytest.skip("its batches form while calls come to their handlers, never 300 at once")
    gate, entered = threading.Event(), threading.Event()

    def score(batch: np.ndarray) -> list[float]:
        until_ns = time.monotonic_ns() + 150_000_000
        while time.monotonic_ns() < until_ns:
            pass
        return generation.champion.score(batch)

    stuck = slow(patient(generation), gate, entered)
    stuck = replace(stuck, champion=replace(stuck.champion, score=score))
    sent_ns: dict[str, int] = {}
    with serve(stuck) as running:
        channels = [
            grpc.insecure_channel(running.address, options=(("gateway.channel", i),))
            for i in range(3)
        ]
        stubs = [DecisionServiceStub(channel) for channel in channels]
        first = stubs[0].Decide.future(catalogue.request(transaction_id="first"), timeout=10)
        assert entered.wait(60)
        futures = []
        for i in range(300):
            asked = catalogue.request(transaction_id=f"d-{i}")
            futures.append(stubs[i % 3].Decide.future(asked, timeout=DEADLINE_S))
            sent_ns[asked.transaction_id] = time.monotonic_ns()
        for channel in channels:
            heard(channel)
        gate.set()
        assert first.result().recorded
        assert all(future.result().recorded for future in futures)
        for channel in channels:
            channel.close()
        running.ended()
    grown_ms = [
        (answered.record.entry.deadline_ns - sent_ns[name]) / 1e6 - DEADLINE_S * 1e3
        for answered in journalled(running.journal)
        if (name := pb.DecideRequest.FromString(answered.record.entry.request).transaction_id)
        in sent_ns
    ]
    assert len(grown_ms) == 300
    # A batch in front takes 150 ms. What was read while the first call was at its model is dated to
    # that turn's begin: a deadline may lie before the caller's, by what sending took.
    assert max(grown_ms) < 140
