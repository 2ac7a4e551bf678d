"""grpc.health.v1, answered by the hall itself: a loop that stands still is not healthy.

Names: "" (the gateway), each gRPC service, and `product/<name>`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from gateway.serve.front import Front

_Status = health_pb2.HealthCheckResponse
_NOT_FOUND: int = grpc.StatusCode.NOT_FOUND.value[0]
_INVALID_ARGUMENT: int = grpc.StatusCode.INVALID_ARGUMENT.value[0]


class Health:
    """The status of each name, and who watches it."""

    def __init__(self, front: Front, names: Iterable[str]) -> None:
        self._front = front
        self._status = dict.fromkeys(("", *names), _Status.NOT_SERVING)
        self._watchers: dict[Any, str | None] = {}
        # Watchers whose stream could not take the newest status yet.
        self._behind: set[Any] = set()

    def serving(self) -> None:
        """Everything is loaded and warm."""
        self._set_all(_Status.SERVING)

    def stopping(self) -> None:
        """No new calls, please: the gateway drains."""
        self._set_all(_Status.NOT_SERVING)

    @property
    def is_serving(self) -> bool:
        """Whether new calls are welcome."""
        return bool(self._status[""] == _Status.SERVING)

    def check(self, call_id: Any, payload: bytes) -> None:
        """Answer Check. NOT_FOUND for a name that is not served."""
        name = self._name(call_id, payload)
        if name is None:
            return
        status = self._status.get(name)
        if status is None:
            self._front.fail(call_id, _NOT_FOUND, "unknown service")
        else:
            self._front.reply(call_id, _Status(status=status).SerializeToString())

    def watch(self, call_id: Any, payload: bytes) -> None:
        """Answer Watch with the status now, and with each change."""
        name = self._name(call_id, payload)
        if name is not None:
            # A name that is not served is forgotten: it may be as long as a message.
            self._watchers[call_id] = name if name in self._status else None
            self._send(call_id)

    def cancel(self, call_id: Any) -> None:
        """The caller left."""
        self._watchers.pop(call_id, None)
        self._behind.discard(call_id)

    def catch_up(self) -> None:
        """Send again what a slow watcher's stream could not take."""
        for call_id in tuple(self._behind):
            self._send(call_id)

    def _set_all(self, status: int) -> None:
        for name in self._status:
            self._status[name] = status
        for call_id in self._watchers:
            self._send(call_id)

    def _send(self, call_id: Any) -> None:
        name = self._watchers[call_id]
        status = _Status.SERVICE_UNKNOWN if name is None else self._status[name]
        message = _Status(status=status).SerializeToString()
        if self._front.stream_send(call_id, message):
            self._behind.discard(call_id)
        else:
            self._behind.add(call_id)

    def _name(self, call_id: Any, payload: bytes) -> str | None:
        try:
            return str(health_pb2.HealthCheckRequest.FromString(payload).service)
        except DecodeError:
            self._front.fail(call_id, _INVALID_ARGUMENT, "not a HealthCheckRequest")
            return None
