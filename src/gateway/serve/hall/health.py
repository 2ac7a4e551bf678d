"""grpc.health.v1, answered by the hall itself: a loop that stands still is not healthy.

Names: "" (the gateway), each gRPC service, `product/<name>`, `generation/<product>`, which is
NOT_SERVING while the newest change of a product's folder is refused and the generation before it
goes on, and `worker/<number>` for each worker of this gateway, which any of them answers from the
board.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from gateway.journal import MAX_WORKER
from gateway.serve.crew.board import Board, State
from gateway.serve.fronts.front import Front

_Status = health_pb2.HealthCheckResponse
_NOT_FOUND: int = grpc.StatusCode.NOT_FOUND.value[0]
_INVALID_ARGUMENT: int = grpc.StatusCode.INVALID_ARGUMENT.value[0]
_WORKER = re.compile(r"worker/(0|[1-9][0-9]{0,2})", re.ASCII)


class Health:
    """The status of each name, and who watches it."""

    def __init__(
        self,
        front: Front,
        names: Iterable[str],
        board: Board | None = None,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._front = front
        self._board = board
        self._clock_ns = clock_ns
        self._status = dict.fromkeys(("", *names), _Status.NOT_SERVING)
        self._watchers: dict[Any, str | None] = {}
        # Watchers whose stream could not take the newest status yet.
        self._behind: set[Any] = set()
        # Who watches a worker, and what they know of it.
        self._followers: dict[Any, int] = {}

    def serving(self) -> None:
        """Everything is loaded and warm."""
        self._set_all(_Status.SERVING)

    def stopping(self) -> None:
        """No new calls, please: the gateway drains."""
        self._set_all(_Status.NOT_SERVING)

    def tell(self, name: str, *, serving: bool) -> None:
        """Change the status of one name, and tell who watches it."""
        status = _Status.SERVING if serving and self.is_serving else _Status.NOT_SERVING
        if self._status.get(name) == status:
            return
        self._status[name] = status
        for call_id, watched in self._watchers.items():
            if watched == name:
                self._send(call_id)

    @property
    def is_serving(self) -> bool:
        """Whether new calls are welcome."""
        return bool(self._status[""] == _Status.SERVING)

    def check(self, call_id: Any, payload: bytes) -> None:
        """Answer Check. NOT_FOUND for a name that is not served."""
        name = self._name(call_id, payload)
        if name is None:
            return
        status = self._of(name)
        if status is None:
            self._front.fail(call_id, _NOT_FOUND, "unknown service")
        else:
            self._front.reply(call_id, _Status(status=status).SerializeToString())

    def watch(self, call_id: Any, payload: bytes) -> None:
        """Answer Watch with the status now, and with each change."""
        name = self._name(call_id, payload)
        if name is not None:
            # A name that is not served is forgotten: it may be as long as a message.
            status = self._of(name)
            self._watchers[call_id] = None if status is None else name
            if status is not None and name not in self._status:
                self._followers[call_id] = status
            self._send(call_id)

    def cancel(self, call_id: Any) -> None:
        """The caller left."""
        self._watchers.pop(call_id, None)
        self._behind.discard(call_id)
        self._followers.pop(call_id, None)

    def catch_up(self) -> None:
        """Send again what a slow watcher's stream could not take."""
        for call_id in tuple(self._behind):
            self._send(call_id)

    def follow_workers(self) -> None:
        """Tell those who watch a worker what has changed. Called now and then."""
        for call_id, known in self._followers.items():
            status = self._told(self._watchers[call_id])
            if status != known:
                self._followers[call_id] = status
                self._send(call_id)

    def _of(self, name: str) -> int | None:
        """Return a name's status. None for a name that is not served."""
        status = self._status.get(name)
        if status is not None or self._board is None:
            return status
        numbered = _WORKER.fullmatch(name)
        if numbered is None or int(numbered[1]) > MAX_WORKER:
            return None
        worker = self._board.worker(int(numbered[1]))
        if worker.state in (State.NONE, State.ENDED):
            return None
        serves = worker.serves(self._clock_ns())
        return int(_Status.SERVING if serves else _Status.NOT_SERVING)

    def _told(self, name: str | None) -> int:
        status = None if name is None else self._of(name)
        return int(_Status.SERVICE_UNKNOWN if status is None else status)

    def _set_all(self, status: int) -> None:
        for name in self._status:
            self._status[name] = status
        for call_id in self._watchers:
            self._send(call_id)

    def _send(self, call_id: Any) -> None:
        status = self._told(self._watchers[call_id])
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
