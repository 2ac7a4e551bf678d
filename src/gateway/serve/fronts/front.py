"""What a front is: the gRPC transport, and nothing else.

A front hands the hall whatever calls have arrived, as one batch, and carries replies back
by call id. The hall knows no transport; a front knows no product. Two stand behind this
interface: `native` (HTTP/2 in Rust, off the GIL) and `grpcio` (the reference, with TLS).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

CALL = 0
CANCEL = 1

# (kind, call_id, method, payload, _, (metadata, peer, seconds_left)): the shape in which
# the native front delivers, so that nothing is repacked on the hot path. `method` is an
# index into METHODS; `seconds_left` is None for a caller without a deadline. A CANCEL has
# neither payload nor details.
Metadata = Sequence[tuple[str, str | bytes]]
# `call_id` is the front's own: the hall only carries it back.
Event = tuple[int, Any, int, bytes | None, Any, Any]

DECIDE, CHECK, WATCH = range(3)
SERVER_LIVE, SERVER_READY, MODEL_READY, SERVER_METADATA, MODEL_METADATA, MODEL_INFER = range(3, 9)
METHODS: tuple[tuple[str, bool], ...] = (
    ("/gateway.v1.DecisionService/Decide", False),
    ("/grpc.health.v1.Health/Check", False),
    ("/grpc.health.v1.Health/Watch", True),
    ("/inference.GRPCInferenceService/ServerLive", False),
    ("/inference.GRPCInferenceService/ServerReady", False),
    ("/inference.GRPCInferenceService/ModelReady", False),
    ("/inference.GRPCInferenceService/ServerMetadata", False),
    ("/inference.GRPCInferenceService/ModelMetadata", False),
    ("/inference.GRPCInferenceService/ModelInfer", False),
)
"""(path, server streaming) of each method, in the order of their numbers."""

MESSAGE_BYTES_MAX = 64 * 1024
METADATA_BYTES_MAX = 8 * 1024
STREAMS_MAX = 128
"""Concurrent calls on one connection; a client opens another, or waits."""

TICK_MS = 5
"""The loop wakes at least this often."""

PAUSE_NS = 20_000_000
"""A gap between two looks at the front longer than this is a pause."""

LONG_PAUSE_NS = 100_000_000
"""A pause this long is recorded even if no call had to wait for its end."""


QUIET_TICKS = 10
"""A stopping front is drained when nothing has arrived for this many ticks..."""

DRAIN_NS_MAX = 2_000_000_000
"""... or after this long, whatever still arrives."""


class Turn(Protocol):
    """What a front calls: the hall."""

    def turn(self, events: list[Event], arrived_ns: int) -> None:
        """Answer a batch. `arrived_ns`, monotonic, is when the earliest of it can have come."""

    def idle(self) -> None:
        """Nothing has arrived for a tick."""

    def paused(self, start_ns: int, duration_ns: int) -> None:
        """The loop stood still."""

    def looked_after(self, gap_ns: int) -> None:
        """So long, and longer than ever, passed between two looks at the front."""

    @property
    def wait_ms(self) -> int:
        """How long the front may wait for an arrival before it calls `turn` or `idle`."""

    @property
    def is_busy(self) -> bool:
        """Whether any call that has arrived waits for its answer."""

    def rest(self) -> bool:
        """Wait a little for something else than an arrival. False, at once: wait for arrivals."""

    def wake_with(self, wake: Callable[[], None]) -> None:
        """Call `wake`, on any thread, when `turn` is to be called without an arrival."""


class Front(Protocol):
    """One listening address. A context manager; entering it binds and starts."""

    @property
    def address(self) -> str:
        """Where it listens, with the port that the system gave: `host:port` or `unix:path`."""

    def run(self, hall: Turn, stopping: Callable[[], bool]) -> None:
        """Feed the hall until `stopping` and nothing that arrived is left."""

    def reply(self, call_id: Any, payload: bytes) -> bool:
        """Answer a unary call. False if its caller is gone."""

    def fail(
        self,
        call_id: Any,
        code: int,
        message: str,
        details: bytes | None = None,
        retry_ms: int | None = None,
    ) -> bool:
        """End a call with a status. False if its caller is gone.

        `details` is an encoded google.rpc.Status; `retry_ms` tells the caller when to try again
        (gRFC A6), where the front can.
        """

    def look(self) -> None:
        """Take in what has come so far: what comes from here on may be owed to a reply."""

    def flush(self) -> None:
        """Let what was answered leave before anything else is done."""

    def stream_send(self, call_id: Any, payload: bytes) -> bool:
        """Send one message of a stream, without waiting. False if it cannot take one."""


def bound_address(target: str, port: int) -> str:
    """Return where a front listens: `target`, with the port that the system gave."""
    if target.startswith("unix:"):
        return target
    return f"{target.rpartition(':')[0]}:{port}"


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM bytes. With `client_authority`, callers must show a certificate it signed."""

    certificate: bytes
    key: bytes
    client_authority: bytes | None = None
