"""The published client configuration does what it says: a client ignores what it cannot read."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import callers
import catalogue
import grpc
import pytest

from gateway.v1.decision_pb2 import DecideResponse
from gateway.v1.decision_pb2_grpc import DecisionServiceStub

METHOD = json.loads(callers.SERVICE_CONFIG)["methodConfig"][0]
POLICY = METHOD["retryPolicy"]
ATTEMPTS = POLICY["maxAttempts"]
Decide = Callable[[bytes, Any], bytes]


@contextmanager
def server(decide: Decide, address: str = "127.0.0.1:0") -> Iterator[str]:
    serving = grpc.server(ThreadPoolExecutor(4))
    handler = {"Decide": grpc.unary_unary_rpc_method_handler(decide)}
    serving.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("gateway.v1.DecisionService", handler),)
    )
    port = serving.add_insecure_port(address)
    serving.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        serving.stop(None).wait()


def failing(code: grpc.StatusCode, times: int, tries: list[float]) -> Decide:
    """Fail so often, then answer."""

    def decide(_request: bytes, context: Any) -> bytes:
        tries.append(time.monotonic())
        if len(tries) <= times:
            context.abort(code, "not now")
        return DecideResponse(decision_id="x").SerializeToString()

    return decide


def ask(address: str, timeout_s: float = 10.0) -> str:
    with grpc.insecure_channel(address, callers.options(published=True)) as channel:
        answer = DecisionServiceStub(channel).Decide(catalogue.request(), timeout=timeout_s)
        return str(answer.decision_id)


@pytest.mark.parametrize("code", ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "CANCELLED"])
def test_a_call_that_was_not_taken_is_tried_again_within_a_payments_deadline(code: str) -> None:
    assert code in POLICY["retryableStatusCodes"]
    tries: list[float] = []
    with server(failing(grpc.StatusCode[code], ATTEMPTS - 1, tries)) as address:
        assert ask(address) == "x"
    assert len(tries) == ATTEMPTS
    # At the most 2 + 4 + 8 + 16 ms, but for the machine.
    first_s, most_s = (float(POLICY[key][:-1]) for key in ("initialBackoff", "maxBackoff"))
    waits_s = [min(first_s * POLICY["backoffMultiplier"] ** i, most_s) for i in range(ATTEMPTS - 1)]
    assert sum(waits_s) * 1.2 < 0.05, "with gRPC's jitter"


def test_a_call_is_not_tried_for_ever_nor_for_what_is_its_own_fault() -> None:
    for code, expected in (("UNAVAILABLE", ATTEMPTS), ("INVALID_ARGUMENT", 1)):
        tries: list[float] = []
        with server(failing(grpc.StatusCode[code], 99, tries)) as address:
            with pytest.raises(grpc.RpcError) as raised:
                ask(address)
            assert raised.value.code() is grpc.StatusCode[code]
        assert len(tries) == expected


def test_a_call_waits_for_a_gateway_that_starts_and_no_longer_than_its_deadline() -> None:
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{held.getsockname()[1]}"
        with pytest.raises(grpc.RpcError) as raised:
            ask(address, timeout_s=0.05)
        assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        answers: list[str] = []
        asking = threading.Thread(target=lambda: answers.append(ask(address)))
        asking.start()
        asking.join(0.2)
        assert asking.is_alive()
        with server(failing(grpc.StatusCode.UNAVAILABLE, 0, []), address):
            asking.join(60)
    assert answers == ["x"]


def test_each_channel_has_a_connection_of_its_own() -> None:
    peers: set[str] = set()

    def decide(_request: bytes, context: Any) -> bytes:
        peers.add(context.peer())
        return DecideResponse().SerializeToString()

    with server(decide) as address:
        channels = [
            grpc.insecure_channel(address, callers.options(published=True)) for _ in range(4)
        ]
        for channel in channels:
            DecisionServiceStub(channel).Decide(catalogue.request(), timeout=10)
        for channel in channels:
            channel.close()
    assert len(peers) == 4
