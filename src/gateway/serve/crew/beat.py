"""What a worker does between turns for those who watch it: a microsecond, every 50 ms."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

from gateway.serve.crew.board import Page, State
from gateway.serve.crew.stop import Stop
from gateway.serve.crew.tally import Tally

BEAT_NS = 50_000_000


class Beat:
    """Copies the tally to the worker's page, and asks it to end when its supervisor is gone."""

    def __init__(
        self,
        page: Page,
        supervisor: socket.socket,
        stop: Stop,
        *,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._page = page
        self._supervisor = supervisor
        self._stop = stop
        self._clock_ns = clock_ns
        self._next_ns = 0
        self._drains = False

    def __call__(self, tally: Tally) -> bool:
        """Beat, if it is time to. Return whether it was."""
        now_ns = self._clock_ns()
        if now_ns < self._next_ns:
            return False
        self._next_ns = now_ns + BEAT_NS
        self._page.beat(now_ns, tally)
        if not self._stop.asked and self._is_orphan():
            self._stop.ask()
        if self._stop.asked and not self._drains:
            self._drains = True
            self._page.tell(State.DRAINING)
        return True

    def serving(self) -> None:
        """Calls are answered from now on."""
        self._page.beat(self._clock_ns(), Tally())
        self._page.tell(State.SERVING)

    def last(self, tally: Tally) -> None:
        """The loop has ended: show the final counts."""
        self._page.beat(self._clock_ns(), tally)

    def _is_orphan(self) -> bool:
        try:
            return self._supervisor.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True
