"""Callers that never stop asking, through three implementations of gRPC, and what they were told.

Each call has its own transaction id, so that the journal can be held against the callers' list.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import catalogue
import grpc
from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.exceptions import GRPCError, StreamTerminatedError
from h2.exceptions import ProtocolError

from gateway.v1.decision_pb2 import DecideRequest, DecideResponse
from gateway.v1.decision_pb2_grpc import DecisionServiceStub

EXAMPLES = Path(__file__).parents[1] / "examples"
SERVICE_CONFIG = (EXAMPLES / "service-config.json").read_text(encoding="utf-8")
CHANNEL_ARGUMENTS = json.loads((EXAMPLES / "channel-arguments.json").read_text(encoding="utf-8"))
DECIDE = "/gateway.v1.DecisionService/Decide"
DEADLINE_S = 30.0
PAUSE_S = 0.002
"""Between two calls of a caller: the machine has something left for what is tested."""

KINDS = ("grpcio", "grpcio.aio", "grpclib")
BROKEN = (StreamTerminatedError, ProtocolError, OSError)
"""What grpclib raises where a connection ends; h2's where GOAWAY came between its own steps."""

_serial = count()


@dataclass
class Told:
    """Decision ids by transaction id, and what failed calls were told."""

    answers: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    changed: threading.Condition = field(default_factory=threading.Condition)
    stopped: bool = False
    broken: BaseException | None = None
    """What ended the caller itself."""

    def answered(self, asked: DecideRequest, answer: DecideResponse) -> None:
        with self.changed:
            self.answers[asked.transaction_id] = answer.decision_id
            self.changed.notify_all()

    def refused(self, asked: DecideRequest, why: str) -> None:
        self.failed[asked.transaction_id] = why

    def wait_for(self, more: int) -> None:
        """Wait until so many more calls were answered."""
        wanted = len(self.answers) + more
        with self.changed:
            self.changed.wait_for(lambda: self.broken or len(self.answers) >= wanted, 60)
        if self.broken is not None:
            raise self.broken
        assert len(self.answers) >= wanted


def options(*, published: bool) -> list[tuple[str, Any]]:
    """Return a channel's options; what is not published has neither retries nor waiting."""
    if published:
        return [*CHANNEL_ARGUMENTS.items(), ("grpc.service_config", SERVICE_CONFIG)]
    return [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]


def requests(fingerprint: str, kind: str) -> Iterator[DecideRequest]:
    while True:
        yield catalogue.request(fingerprint, transaction_id=f"{kind}-{next(_serial)}")


@contextmanager
def calling(
    kind: str, address: str, fingerprint: str, *, published: bool = True, channels: int = 2
) -> Iterator[Told]:
    """Ask through so many channels, with two calls in flight each, until the context is left."""
    told = Told()
    target = {"grpcio": _sync, "grpcio.aio": _aio, "grpclib": _grpclib}[kind]

    def work() -> None:
        try:
            target(address, fingerprint, told, channels, published)
        except BaseException as error:
            with told.changed:
                told.broken = error
                told.changed.notify_all()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield told
    finally:
        told.stopped = True
        thread.join(DEADLINE_S + 10)
        assert not thread.is_alive()
    assert told.broken is None


def _sync(address: str, fingerprint: str, told: Told, channels: int, published: bool) -> None:
    def ask(decide: Callable[..., DecideResponse]) -> None:
        for asked in requests(fingerprint, "grpcio"):
            if told.stopped:
                return
            try:
                told.answered(asked, decide(asked, timeout=DEADLINE_S))
            except grpc.RpcError as error:
                told.refused(asked, f"{error.code()} {error.details()}")
            time.sleep(PAUSE_S)

    with ExitStack() as stack:
        threads = []
        for _ in range(channels):
            channel = grpc.insecure_channel(address, options(published=published))
            decide = DecisionServiceStub(stack.enter_context(channel)).Decide
            threads += [threading.Thread(target=ask, args=(decide,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def _aio(address: str, fingerprint: str, told: Told, channels: int, published: bool) -> None:
    async def ask(decide: Callable[..., Awaitable[DecideResponse]]) -> None:
        for asked in requests(fingerprint, "aio"):
            if told.stopped:
                return
            try:
                told.answered(asked, await decide(asked, timeout=DEADLINE_S))
            except grpc.aio.AioRpcError as error:
                told.refused(asked, f"{error.code()} {error.details()}")
            await asyncio.sleep(PAUSE_S)

    async def work() -> None:
        opened = [
            grpc.aio.insecure_channel(address, options(published=published))
            for _ in range(channels)
        ]
        stubs = [DecisionServiceStub(channel) for channel in opened]
        try:
            await asyncio.gather(*(ask(stub.Decide) for stub in stubs * 2))
        finally:
            for channel in opened:
                await channel.close()

    asyncio.run(work())


def _grpclib(address: str, fingerprint: str, told: Told, channels: int, published: bool) -> None:
    async def ask(decide: Any) -> None:
        for asked in requests(fingerprint, "grpclib"):
            if told.stopped:
                return
            try:
                told.answered(asked, await _by_policy(decide, asked, published=published))
            except (GRPCError, *BROKEN) as error:
                told.refused(asked, repr(error))
            await asyncio.sleep(PAUSE_S)

    async def work() -> None:
        host, _, port = address.rpartition(":")
        opened = [Channel(host, int(port)) for _ in range(channels)]
        methods = [UnaryUnaryMethod(one, DECIDE, DecideRequest, DecideResponse) for one in opened]
        try:
            await asyncio.gather(*(ask(method) for method in methods * 2))
        finally:
            for channel in opened:
                channel.close()

    asyncio.run(work())


async def _by_policy(decide: Any, asked: DecideRequest, *, published: bool) -> DecideResponse:
    """Do by hand what SERVICE_CONFIG asks of a client that knows it."""
    (method,) = json.loads(SERVICE_CONFIG)["methodConfig"]
    policy, until_s = method["retryPolicy"], time.monotonic() + DEADLINE_S
    backoff_s, most_s = (float(policy[key][:-1]) for key in ("initialBackoff", "maxBackoff"))
    attempts = 1
    while True:
        left_s = until_s - time.monotonic()
        try:
            answer: DecideResponse = await decide(asked, timeout=max(left_s, 0.001))
            return answer
        except ConnectionRefusedError:
            # waitForReady: nobody listens at the moment; no attempt was made.
            if not published or left_s <= 0.0:
                raise
            await asyncio.sleep(0.05)
            continue
        except GRPCError as error:
            retryable = error.status.name in policy["retryableStatusCodes"]
            if not published or not retryable or attempts >= policy["maxAttempts"]:
                raise
        except BROKEN:
            if not published or attempts >= policy["maxAttempts"]:
                raise
        attempts += 1
        await asyncio.sleep(random.uniform(0.0, backoff_s))
        backoff_s = min(backoff_s * policy["backoffMultiplier"], most_s)
