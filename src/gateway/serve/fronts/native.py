"""The default front: `pygrpc_native`, whose HTTP/2 runs in Rust off the GIL.

It shows no arrival stamps, so each turn drains it completely, and a turn that was not short
looks once more before its replies. What is there by then came while the loop was busy, and
is dated to the previous drain; what is there behind the replies is dated to their begin.
What ends a wait is dated to the waking, unless the wait was longer than a pause: then to the
wait's begin. No call is dated later than it came by more than a short turn, or a tick.

Behind its replies a turn lets the front's own thread run, which writes them; then the loop lets
it run once more, looks, and waits. That takes a tenth from a single call's time: the next may be
there by then. To look for longer took more on one machine, nothing on another, and from the other
workers' time on both.

Reflection is a bidirectional stream, which this front cannot carry itself: it forwards
every method that it does not know to a grpcio server on a private Unix socket.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from select import select
from types import TracebackType

import grpc
from pygrpc_native import STREAM_SENT, NativeGrpcFront

from gateway.errors import ListenError
from gateway.serve.fronts.front import (
    DRAIN_NS_MAX,
    LONG_PAUSE_NS,
    METHODS,
    PAUSE_NS,
    QUIET_TICKS,
    STREAMS_MAX,
    TICK_MS,
    Event,
    Turn,
    bound_address,
)
from gateway.serve.fronts.reflection import enable_reflection
from gateway.serve.fronts.socket_folder import SOCKET, socket_folder

# What it logs of a port that is in use is said once already: in the ListenError.
logging.getLogger("pygrpc_native").setLevel(logging.ERROR)

TRANSPORT_METADATA_BYTES_MAX = 256 * 1024
"""Beyond it this front resets the call without a gRPC status; `admit` has the limit that counts."""

REFLECTIONS_MAX = 8
"""Reflection streams that are answered at once; an idle one takes a thread."""

DRAIN_MAX = 4096
BEHIND_NS = 5_000_000
"""What comes so soon after a pause may have waited for its end in a socket, where nobody looked."""

LULL_NS_MAX = 500_000_000
SHORT_TURN_NS = 500_000
FLUSH_S = 0.005


class NativeFront:
    """`target` is `host:port` or `unix:path`; port 0 lets the system choose.

    Raises:
        ListenError: on construction, if the address cannot be bound.
    """

    def __init__(
        self,
        target: str,
        *,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        io_threads: int = 1,
        reuse_port: bool = False,
    ) -> None:
        try:
            self._front = NativeGrpcFront(
                target,
                list(METHODS),
                io_threads=io_threads,
                call_details=True,
                max_concurrent_streams=STREAMS_MAX,
                max_metadata_size=TRANSPORT_METADATA_BYTES_MAX,
                reuse_port=reuse_port,
            )
        except (OSError, ValueError) as error:
            raise ListenError(
                _reason(error),
                subject=target,
                hint="Choose another address with --listen; port 0 lets the system choose.",
            ) from None
        self._clock_ns = clock_ns
        self._target = target
        self._stack = ExitStack()
        self._held: list[Event] = []
        self._looked_ns = self._drained_ns = 0
        self.reply = self._front.respond

    @property
    def address(self) -> str:
        """Where it listens."""
        return bound_address(self._target, self._front.bound_port)

    def __enter__(self) -> NativeFront:
        with ExitStack() as stack:
            stack.callback(self._front.close)
            folder = stack.enter_context(socket_folder())
            workers = stack.enter_context(ThreadPoolExecutor(REFLECTIONS_MAX, "reflection"))
            fallback = grpc.server(workers)
            enable_reflection(fallback)
            fallback.add_insecure_port(f"unix:{folder}/{SOCKET}")
            fallback.start()
            stack.callback(lambda: fallback.stop(None).wait())
            self._front.set_fallback(f"{folder}/{SOCKET}")
            self._front.start()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Closing cuts what the front's own thread has not written yet: the last replies.
        select([], [], [], FLUSH_S)
        self._stack.close()

    def run(self, hall: Turn, stopping: Callable[[], bool]) -> None:
        """Feed the hall until `stopping` and the front is drained."""
        receive, clock_ns = self._front.recv_batch_details, self._clock_ns
        drained_ns = clock_ns()
        stopped_ns, quiet_ticks, worst_ns = 0, 0, TICK_MS * 2_000_000
        paused_ns, behind_until_ns, has_turned = 0, 0, False
        while True:
            rested = hall.rest()
            # What the turn found at its own look came while it ran, what comes later did not.
            held, self._held = self._held, []
            arrived_ns = drained_ns if held else max(drained_ns, self._looked_ns)
            events: list[Event] | None = held
            if stopping():
                stopped_ns = stopped_ns or drained_ns
                stopped_for_ns = drained_ns - stopped_ns
                # What comes between the last look and the end is answered by nobody: end in a
                # lull, and where there is none, answer what was received and look no more.
                if stopped_for_ns < DRAIN_NS_MAX + LULL_NS_MAX:
                    events = held + (receive(DRAIN_MAX, 0) or [])
                is_quiet = quiet_ticks >= QUIET_TICKS or stopped_for_ns > DRAIN_NS_MAX
                if is_quiet and not events and not hall.is_busy:
                    return
            else:
                events = held + (receive(DRAIN_MAX, 0) or [])
            wait_ms = hall.wait_ms
            if not (events or rested) and wait_ms:
                if has_turned:
                    arrived_ns = clock_ns()  # nothing was there yet
                    os.sched_yield()
                    events = receive(DRAIN_MAX, 0)
                if not events:
                    waited_ns = clock_ns()
                    events = receive(DRAIN_MAX, wait_ms)
                    woken_ns = clock_ns()
                    arrived_ns = woken_ns if woken_ns - waited_ns <= PAUSE_NS else waited_ns
            now_ns = clock_ns()
            gap_ns = now_ns - drained_ns
            if gap_ns > PAUSE_NS:
                paused_ns, behind_until_ns = drained_ns, now_ns + BEHIND_NS
            elif now_ns < behind_until_ns:
                arrived_ns = paused_ns
            if gap_ns > worst_ns:
                worst_ns = gap_ns
                hall.looked_after(gap_ns)
            if gap_ns > (PAUSE_NS if events else LONG_PAUSE_NS):
                hall.paused(drained_ns, gap_ns)
            self._drained_ns = drained_ns = now_ns
            has_turned = bool(events)
            if events:
                quiet_ticks = 0
                hall.turn(events, arrived_ns)
            elif not wait_ms:
                hall.turn([], now_ns)
            else:
                quiet_ticks += 1
                hall.idle()

    def fail(
        self,
        call_id: int,
        code: int,
        message: str,
        details: bytes | None = None,
        retry_ms: int | None = None,  # noqa: ARG002
    ) -> bool:
        """End a call with a status. `retry_ms` is left out: the front keeps such trailers back."""
        trailing = None if details is None else (("grpc-status-details-bin", details),)
        return self._front.fail(call_id, code, message, trailing)

    def look(self) -> None:
        """Take in what has come so far: what comes from here on may be owed to a reply."""
        self._looked_ns = self._clock_ns()
        if self._looked_ns - self._drained_ns > SHORT_TURN_NS:
            self._held += self._front.recv_batch_details(DRAIN_MAX, 0) or ()

    def flush(self) -> None:
        """Give the processor to the front's own thread, where both share one."""
        os.sched_yield()

    def stream_send(self, call_id: int, payload: bytes) -> bool:
        """Send one message of a stream, without waiting."""
        return self._front.stream_try_send(call_id, payload) == STREAM_SENT


def _reason(error: Exception) -> str:
    if "in use" in str(error).lower():
        return "the port is in use"
    said = str(error).splitlines()[0].rpartition(": ")[2].partition(" (os error")[0]
    return f"cannot be listened on: {said}"
