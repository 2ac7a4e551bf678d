"""The reference front: `grpc.aio`, on every platform, with TLS.

Everything runs on one asyncio loop, hall included. A handler puts its call on the list of
what has arrived and awaits its reply; one turn of the hall, scheduled behind the handlers
that are ready, answers the list. So batches form here as on the native front: by
themselves, under load.

What a call waits inside grpcio is not seen. What comes right behind a turn is dated to
that turn's begin, as on the native front; beyond that, grpcio's own queue is dark, and a
caller that leaves while a turn runs is recorded as answered. Where the clock is the
promise, use the native front.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any

import grpc
import uvloop

from gateway.errors import ListenError
from gateway.serve.fronts.front import (
    CALL,
    CANCEL,
    DRAIN_NS_MAX,
    LONG_PAUSE_NS,
    MESSAGE_BYTES_MAX,
    METADATA_BYTES_MAX,
    METHODS,
    PAUSE_NS,
    QUIET_TICKS,
    STREAMS_MAX,
    TICK_MS,
    Event,
    Tls,
    Turn,
    bound_address,
)
from gateway.serve.fronts.reflection import enable_reflection

_STATUS = {code.value[0]: code for code in grpc.StatusCode}
_SHUTTING_DOWN = (grpc.StatusCode.UNAVAILABLE.value[0], "the gateway is shutting down")

# What a waiting handler gets: reply bytes, or (code, message, trailers).
_Status = tuple[int, str, tuple[tuple[str, str | bytes], ...]]
_Answer = bytes | _Status

_STREAMED_MAX = 16
_LONG_TURN_NS = 1_000_000
# Shorter than a round trip: a call that was sent because of the turn's replies comes later.
_BEHIND_NS = 250_000

# A call comes to its handler in several rounds of the loop. Before a turn the loop goes round
# this often without a new arrival: under load the rounds bring other calls, to the same
# batch; a single call pays some tens of microseconds.
_LOOKS = 6
_BATCH_MAX = 64


@dataclass(slots=True, eq=False)
class _Stream:
    """The messages of a server stream that its caller has not read yet, and how it ends."""

    messages: deque[bytes] = field(default_factory=deque)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    status: _Status | None = None


class GrpcioFront:
    """`target` is `host:port` or `unix:path`; port 0 lets the system choose.

    Raises:
        ListenError: on entering, if the address cannot be bound.
    """

    def __init__(
        self,
        target: str,
        *,
        tls: Tls | None = None,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        reuse_port: bool = False,
    ) -> None:
        self._target = target
        self._tls = tls
        self._clock_ns = clock_ns
        self._reuse_port = reuse_port
        self._loop = uvloop.new_event_loop()
        self._port = 0
        self._arrived: list[Event] = []
        self._arrived_ns = 0
        # A call's id is what its handler waits on.
        self._waiting: set[asyncio.Future[_Answer] | _Stream] = set()
        # The begin of the turn that what arrives now may have waited for.
        self._behind_ns: int | None = None
        self._behind_until_ns = 0
        self._quiet_ticks = 0
        self._looked_at = self._looks = 0
        self._hall: Turn | None = None
        self._server: Any = None

    @property
    def address(self) -> str:
        """Where it listens."""
        return bound_address(self._target, self._port)

    def __enter__(self) -> GrpcioFront:
        try:
            self._loop.run_until_complete(self._start())
        except BaseException:
            self._loop.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._loop.run_until_complete(self._stop())
        self._loop.close()

    async def _start(self) -> None:
        self._server = server = grpc.aio.server(
            options=(
                ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
                ("grpc.max_metadata_size", METADATA_BYTES_MAX),
                ("grpc.max_concurrent_streams", STREAMS_MAX),
                ("grpc.so_reuseport", int(self._reuse_port)),
            )
        )
        # One generic handler, not one registration a method: grpc.aio spends a future and
        # a task on each registered method's wait, for every call.
        server.add_generic_rpc_handlers((_Methods(self._unary, self._stream),))
        enable_reflection(server)
        try:
            if self._tls is None:
                self._port = server.add_insecure_port(self._target)
            else:
                self._port = server.add_secure_port(self._target, _credentials(self._tls))
        except RuntimeError as error:
            raise ListenError(
                "the port is in use, or the address cannot be listened on",
                subject=self._target,
                hint="Choose another port with --listen, or port 0 to let the system choose.",
            ) from error
        await server.start()

    async def _stop(self) -> None:
        for call in tuple(self._waiting):
            self.fail(call, *_SHUTTING_DOWN)
        await self._server.stop(0.1)
        await asyncio.sleep(0)

    def run(self, hall: Turn, stopping: Callable[[], bool]) -> None:
        """Feed the hall until `stopping` and every call that arrived is answered."""
        self._hall = hall
        self._loop.run_until_complete(self._ticks(hall, stopping))

    async def _ticks(self, hall: Turn, stopping: Callable[[], bool]) -> None:
        hall.wake_with(self._wake)
        looked_ns = self._clock_ns()
        worst_ns = 2 * TICK_MS * 1_000_000
        stopped_ns: int | None = None
        while True:
            await asyncio.sleep(min(hall.wait_ms or TICK_MS, TICK_MS) / 1000)
            now_ns = self._clock_ns()
            gap_ns = now_ns - looked_ns
            if gap_ns > worst_ns:
                worst_ns = gap_ns
                hall.looked_after(gap_ns)
            if gap_ns > (PAUSE_NS if self._arrived else LONG_PAUSE_NS):
                hall.paused(looked_ns, gap_ns)
            looked_ns = now_ns
            self._quiet_ticks += 1
            if not self._arrived:
                hall.idle()
            if stopping():
                stopped_ns = stopped_ns or now_ns
                is_done = not self._arrived and not hall.is_busy
                quiet = self._quiet_ticks > QUIET_TICKS or now_ns - stopped_ns > DRAIN_NS_MAX
                if is_done and quiet:
                    return

    def _wake(self) -> None:
        """Let the hall look at what the annex has done: called on the annex's threads."""
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._go_on)

    def _go_on(self) -> None:
        """Call the hall again, without an arrival, as long as something waits in it."""
        assert self._hall is not None
        if not self._arrived:
            self._hall.turn([], self._clock_ns())
            if self._hall.wait_ms == 0:
                self._loop.call_soon(self._go_on)

    def _arrive(self, event: Event) -> None:
        if not self._arrived:
            self._arrived_ns = self._behind_ns or self._clock_ns()
            self._loop.call_soon(self._turn)
        self._arrived.append(event)

    def _turn(self) -> None:
        if len(self._arrived) > self._looked_at:
            self._looked_at, self._looks = len(self._arrived), _LOOKS
        if self._looks and len(self._arrived) < _BATCH_MAX:
            self._looks -= 1
            self._loop.call_soon(self._turn)
            return
        events, self._arrived, self._looked_at = self._arrived, [], 0
        assert self._hall is not None
        self._quiet_ticks = 0
        begun_ns = self._clock_ns()
        self._hall.turn(events, self._arrived_ns)
        if self._hall.wait_ms == 0:
            self._loop.call_soon(self._go_on)
        ended_ns = self._clock_ns()
        if ended_ns - begun_ns > _LONG_TURN_NS:
            self._behind_ns, self._behind_until_ns = begun_ns, ended_ns + _BEHIND_NS
            self._loop.call_soon(self._catch_up)

    def _catch_up(self) -> None:
        """Go round the loop until what waited behind a long turn has come to its handlers."""
        if self._clock_ns() < self._behind_until_ns:
            self._loop.call_soon(self._catch_up)
        else:
            self._behind_ns = None

    async def _unary(self, method: int, payload: bytes, context: Any) -> bytes:
        call: asyncio.Future[_Answer] = self._loop.create_future()
        self._waiting.add(call)
        self._arrive((CALL, call, method, payload, None, _details(context)))
        try:
            answer = await call
        except asyncio.CancelledError:
            self._arrive((CANCEL, call, 0, None, None, None))
            raise
        finally:
            self._waiting.discard(call)
        if type(answer) is bytes:
            return answer
        return await _abort(context, *answer)

    async def _stream(self, method: int, payload: bytes, context: Any) -> None:
        call = _Stream()
        self._waiting.add(call)
        self._arrive((CALL, call, method, payload, None, _details(context)))
        try:
            while call.status is None:
                await call.changed.wait()
                call.changed.clear()
                while call.messages:
                    if not await _written(context, call.messages.popleft()):
                        return
            await _abort(context, *call.status)
        finally:
            self._waiting.discard(call)
            if call.status is None:
                self._arrive((CANCEL, call, 0, None, None, None))

    def reply(self, call_id: Any, payload: bytes) -> bool:
        """Answer a unary call."""
        if call_id.done():
            return False
        call_id.set_result(payload)
        return True

    def fail(
        self,
        call_id: Any,
        code: int,
        message: str,
        details: bytes | None = None,
        retry_ms: int | None = None,
    ) -> bool:
        """End a call with a status."""
        trailing: list[tuple[str, str | bytes]] = []
        if details is not None:
            trailing.append(("grpc-status-details-bin", details))
        if retry_ms is not None:
            trailing.append(("grpc-retry-pushback-ms", str(retry_ms)))
        status = (code, message, tuple(trailing))
        if isinstance(call_id, _Stream):
            call_id.status = status
            call_id.changed.set()
        elif call_id.done():
            return False
        else:
            call_id.set_result(status)
        return True

    def look(self) -> None:
        """Nothing to do: what waits inside grpcio cannot be seen."""

    def flush(self) -> None:
        """Nothing to do: replies leave when the turn is over."""

    def stream_send(self, call_id: Any, payload: bytes) -> bool:
        """Send one message of a stream, without waiting."""
        if call_id not in self._waiting or len(call_id.messages) >= _STREAMED_MAX:
            return False
        call_id.messages.append(payload)
        call_id.changed.set()
        return True


class _Methods(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Gives each path of METHODS its handler, with bytes in and bytes out."""

    def __init__(
        self,
        unary: Callable[[int, bytes, Any], Awaitable[bytes]],
        stream: Callable[[int, bytes, Any], Awaitable[None]],
    ) -> None:
        self._handlers = {
            path: grpc.unary_stream_rpc_method_handler(partial(stream, number))
            if streaming
            else grpc.unary_unary_rpc_method_handler(partial(unary, number))
            for number, (path, streaming) in enumerate(METHODS)
        }

    def service(self, details: Any) -> Any:
        return self._handlers.get(details.method)


async def _written(context: Any, message: bytes) -> bool:
    """Send one message of a stream. False if its caller is gone."""
    try:
        await context.write(message)
    except Exception:  # grpcio's own, unrelated class; it would log where nothing is wrong
        return False
    return True


def _details(context: Any) -> Any:
    return (context.invocation_metadata() or (), "", context.time_remaining())


async def _abort(
    context: Any, code: int, message: str, trailing: tuple[tuple[str, str | bytes], ...]
) -> bytes:
    await context.abort(_STATUS[code], message, trailing)
    raise AssertionError("abort raises")


def _credentials(tls: Tls) -> Any:
    return grpc.ssl_server_credentials(
        ((tls.key, tls.certificate),),
        root_certificates=tls.client_authority,
        require_client_auth=tls.client_authority is not None,
    )
