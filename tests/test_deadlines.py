"""Deadlines as they come over the wire, with no client library in between, on both fronts."""

from __future__ import annotations

import select
import time

import catalogue
import pytest
from conftest import Running, Serve

from gateway.bench.connection import Connection, Ledger
from gateway.bench.frames import OK, Request, request, request_block
from gateway.journal import Decision, Flag, join_replied, read, segments
from gateway.v1 import decision_pb2 as pb

DEADLINE_EXCEEDED = 4
ID = b"t" * 24


def call_of(address: str, timeout: bytes, fingerprint: str) -> Request:
    block = request_block(address, timeout_us=7)
    assert block.count(b"\x027u") == 1
    block = block.replace(b"\x027u", bytes([len(timeout)]) + timeout)
    asked = catalogue.request(fingerprint, transaction_id=ID.decode())
    return request(block, asked.SerializeToString(), ID)


def ask(running: Running, timeout: bytes) -> tuple[int, pb.DecideResponse | None]:
    """Send one call with `grpc-timeout: timeout`; return its status and answer."""
    ledger = Ledger()
    host, _, port = running.address.rpartition(":")
    connection = Connection((host, int(port)), ledger)
    call = ledger.open(time.monotonic_ns())
    asked = call_of(running.address, timeout, running.fingerprint)
    started, until_s = False, time.monotonic() + 60
    while not ledger.done:
        assert time.monotonic() < until_s
        started = started or connection.start(call, asked, ID)
        connection.flush()
        select.select([connection.socket], [], [], 0.1)
        while connection.read(time.monotonic_ns):
            pass
    connection.socket.close()
    answer = ledger.answer[call]
    return ledger.status[call], None if answer is None else pb.DecideResponse.FromString(answer[5:])


@pytest.mark.parametrize(
    ("timeout", "in_time"),
    [
        (b"0n", False),
        (b"1n", False),
        (b"1u", False),
        (b"876000H", True),  # 100 years
        (b"99999999H", True),  # the longest that the protocol can say
    ],
)
def test_a_deadline_that_has_passed_is_recorded_and_a_distant_one_is_the_budget(
    serve: Serve, front: str, timeout: bytes, in_time: bool
) -> None:
    """gRPC's core, under the grpcio front, knows no deadline shorter than a millisecond, and may
    end a call of none before anyone hears of it."""
    with serve() as running:
        status, answer = ask(running, timeout)
        running.ended()
    decisions = [
        answered.record.entry
        for segment in segments(running.journal)
        for answered in join_replied(one for one in read(segment) if hasattr(one, "entry"))
        if isinstance(answered.record.entry, Decision)
    ]
    if front == "grpcio" and not decisions:
        assert status == DEADLINE_EXCEEDED
        return
    (decision,) = decisions
    if in_time:
        assert status == OK
        assert answer is not None
        assert answer.stand_in == pb.NONE
        assert decision.deadline_ns == decision.arrival_ns + catalogue.BUDGET_MS * 1_000_000
        return
    assert status in (OK, DEADLINE_EXCEEDED)
    if front == "grpcio" and decision.stand_in == pb.NONE:
        assert decision.arrival_ns + decision.decide_after_ns < decision.deadline_ns
        assert decision.deadline_ns <= decision.arrival_ns + 1_000_000
        return
    assert answer is None or answer.stand_in == pb.DEADLINE
    assert decision.stand_in == pb.DEADLINE
    if front == "native" or decision.flags & Flag.EXPIRED:
        # In what gRPC's core makes of a nanosecond, the model may have been asked, in vain.
        assert decision.batch_size == 0, "it was not computed"
    if timeout == b"0n":
        assert decision.flags & Flag.EXPIRED or front == "grpcio"


@pytest.mark.parametrize("timeout", [b"-1S", b"1", b"S", b"123456789S", b"1.5S"])
def test_a_deadline_that_is_none_is_a_status_or_ignored_and_harms_nobody(
    serve: Serve, timeout: bytes
) -> None:
    with serve() as running:
        status, answer = ask(running, timeout)
        assert status != OK or (answer is not None and answer.recorded)
        assert ask(running, b"10S")[0] == OK
