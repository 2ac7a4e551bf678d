"""A payment system in small: sends payments to a gateway and keeps what it saw.

Everything that the summary claims is counted here, on the caller's side: when a call was
sent, when its answer came, and which answers the journal must therefore hold.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
import numpy as np
import uvloop
from google.protobuf.timestamp_pb2 import Timestamp

from gateway.demo import Payment
from gateway.errors import UnreachableError
from gateway.v1.decision_pb2 import DecideRequest, DecideResponse

CHANNELS = 2
IN_FLIGHT = 4
TIMEOUT_S = 5.0
WITNESS_MS = 2
"""How often the client looks at its own clock, to know when it stood still itself."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One call as its caller saw it. `response` is None where an error came back."""

    payment: Payment
    sent_ns: int
    received_ns: int
    response: DecideResponse | None
    error: str = ""

    @property
    def latency_us(self) -> float:
        """From sending to having the answer."""
        return (self.received_ns - self.sent_ns) / 1000


@dataclass(frozen=True, slots=True)
class Replayed:
    """A finished replay. `stood_still` are the client's own pauses: (from_ns, to_ns)."""

    seen: tuple[Seen, ...]
    seconds: float
    stood_still: tuple[tuple[int, int], ...]


def request_of(payment: Payment, fingerprint: str, shift_s: float) -> DecideRequest:
    """Return the call of one payment, its event time moved by `shift_s`."""
    event_s = payment.event_time_s + shift_s
    return DecideRequest(
        product=payment.product,
        transaction_id=payment.transaction_id,
        event_time=Timestamp(seconds=int(event_s), nanos=int(event_s % 1 * 1e9)),
        amount=payment.amount_minor,
        currency=payment.currency,
        category=payment.mcc,
        channel=payment.channel,
        subject=payment.subject,
        dense=np.array(payment.features, dtype="<f4").tobytes(),
        schema_fingerprint=fingerprint,
    )


def replay(
    address: str,
    payments: Iterable[Payment],
    *,
    fingerprints: Mapping[str, str],
    shift_s: float,
    progress: Callable[[Seen], None],
) -> Replayed:
    """Send every payment, IN_FLIGHT at a time, and wait for the answers.

    Raises:
        UnreachableError: there is no connection within TIMEOUT_S.
    """
    with _collector_off():
        return uvloop.run(_replay(address, payments, fingerprints, shift_s, progress))


async def _replay(
    address: str,
    payments: Iterable[Payment],
    fingerprints: Mapping[str, str],
    shift_s: float,
    progress: Callable[[Seen], None],
) -> Replayed:
    seen: list[Seen] = []
    waiting = iter(payments)
    channels = [
        # Channels with equal arguments share one connection.
        grpc.aio.insecure_channel(address, options=(("gateway.channel", i),))
        for i in range(CHANNELS)
    ]
    calls = [
        channel.unary_unary(
            "/gateway.v1.DecisionService/Decide",
            request_serializer=DecideRequest.SerializeToString,
            response_deserializer=DecideResponse.FromString,
        )
        for channel in channels
    ]

    async def ask(call: Callable[..., object], payment: Payment) -> Seen:
        request = request_of(payment, fingerprints[payment.product], shift_s)
        sent_ns = time.monotonic_ns()
        try:
            response = await call(request, timeout=TIMEOUT_S)  # type: ignore[misc]
        except grpc.aio.AioRpcError as error:
            code = error.code().name
            return Seen(payment, sent_ns, time.monotonic_ns(), None, code)
        return Seen(payment, sent_ns, time.monotonic_ns(), response)

    async def ask_on(call: Callable[..., object]) -> None:
        for payment in waiting:
            one = await ask(call, payment)
            seen.append(one)
            progress(one)

    stood_still: list[tuple[int, int]] = []
    witness = asyncio.create_task(_watch_own_clock(stood_still))
    started = time.monotonic()
    try:
        # The first call on a connection pays for it: it is no payment's latency.
        async with asyncio.timeout(TIMEOUT_S):
            await asyncio.gather(*(channel.channel_ready() for channel in channels))
        started = time.monotonic()
        await asyncio.gather(*(ask_on(calls[i % CHANNELS]) for i in range(IN_FLIGHT)))
    except TimeoutError:
        raise UnreachableError("the gateway does not answer any more", subject=address) from None
    finally:
        witness.cancel()
        for channel in channels:
            await channel.close()
    return Replayed(tuple(seen), time.monotonic() - started, tuple(stood_still))


async def _watch_own_clock(stood_still: list[tuple[int, int]]) -> None:
    before_ns = time.monotonic_ns()
    while True:
        await asyncio.sleep(WITNESS_MS / 1000)
        now_ns = time.monotonic_ns()
        if now_ns - before_ns > 10 * WITNESS_MS * 1_000_000:
            stood_still.append((before_ns, now_ns))
        before_ns = now_ns


@contextmanager
def _collector_off() -> Iterator[None]:
    """A collection over the payments in memory would stop the client's clock for long."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
