"""Where FeedbackService listens: a grpc.aio server on an event loop and a thread of its own.

Labels are few beside decisions, so one thread takes them all; a stream or a watcher that stays open
holds no thread.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from types import TracebackType
from typing import Any, Self

import grpc

from gateway.errors import ListenError
from gateway.sidecar.feedback.intake import Intake
from gateway.sidecar.feedback.service import MESSAGE_BYTES_MAX, FeedbackService

log = logging.getLogger(__name__)

METADATA_BYTES_MAX = 8 * 1024
STREAMS_MAX = 128
"""Concurrent calls on one connection."""

CALLS_MAX = 512
"""Of all connections; what is more is RESOURCE_EXHAUSTED."""

GRACE_S = 1.0
"""So long calls that are under way may take when the server stops."""


class FeedbackServer:
    """A context manager: entering it listens. `target`: HOST:PORT or unix:PATH.

    `credentials`: grpc's, for TLS. `reuse_port`: the port is held by a socket that does not listen.

    Raises:
        ListenError: on entering, the address cannot be listened on.
    """

    def __init__(
        self, target: str, intake: Intake, *, credentials: Any = None, reuse_port: bool = False
    ) -> None:
        self.port = 0
        self._target = target
        self._intake = intake
        self._credentials = credentials
        self._reuse_port = reuse_port
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_said)
        self._thread = threading.Thread(target=self._loop.run_forever, name="feedback service")
        self._server: Any = None
        self._service: FeedbackService | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        finally:
            self._end()

    async def _start(self) -> None:
        server = grpc.aio.server(
            options=(
                ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
                ("grpc.max_metadata_size", METADATA_BYTES_MAX),
                ("grpc.max_concurrent_streams", STREAMS_MAX),
                ("grpc.so_reuseport", int(self._reuse_port)),
            ),
            maximum_concurrent_rpcs=CALLS_MAX,
        )
        self._service = FeedbackService(self._intake)
        self._service.add_to(server)
        try:
            if self._credentials is None:
                self.port = server.add_insecure_port(self._target)
            else:
                self.port = server.add_secure_port(self._target, self._credentials)
        except RuntimeError:
            raise ListenError(
                "the port is in use, or the address cannot be listened on",
                subject=self._target,
                hint="Choose another address with --listen; port 0 lets the system choose.",
            ) from None
        await server.start()
        self._server = server

    async def _stop(self) -> None:
        assert self._service is not None
        self._service.stopping()
        await asyncio.sleep(0)  # who watches health is told first
        await self._server.stop(GRACE_S)

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _said(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what nobody waited for any more, without the error's own text: it may hold a value."""
    error = context.get("exception")
    log.error("%s: %s", context["message"], type(error).__name__ if error else "no error")


def credentials(certificate: bytes, key: bytes, client_authority: bytes | None) -> Any:
    """Return grpc's credentials of PEM bytes."""
    return grpc.ssl_server_credentials(
        ((key, certificate),),
        root_certificates=client_authority,
        require_client_auth=client_authority is not None,
    )
