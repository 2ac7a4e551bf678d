"""A thread a consumer, each with a tail, a checkpoint and a pace of its own.

What one of them waits for holds no other back: a collector that refuses traces leaves the lake and
the metrics as they are.
"""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Protocol

from gateway.errors import GatewayError
from gateway.sidecar.tail.call import Position

RETRY_S, RETRY_S_MAX = 0.5, 10.0
"""One that failed tries again, after twice as long each time."""

SAY_S = 10.0
"""What goes wrong is said so often, however often it does."""

log = logging.getLogger(__name__)


class Step(Protocol):
    """What has a thread of its own in the wing."""

    @property
    def name(self) -> str:
        """Its name, in lags and log lines."""

    @property
    def idle_s(self) -> float:
        """Where it found nothing new, it looks again after so long."""

    def step(self) -> object | None:
        """Take the next batch; None where there is nothing new.

        Raises:
            GatewayError: it could not; the same batch comes with the next step.
        """

    def stop(self) -> None:
        """End a step that waits. Any thread may call it."""

    def settle(self) -> None:
        """Save what is not saved yet, behind the last step.

        Raises:
            GatewayError: it cannot be saved, and comes again after the next start.
        """


class Consumer(Step, Protocol):
    """What makes something of the journal."""

    @property
    def position(self) -> Position:
        """How far it is: what stands before it will not be needed again."""


class Wing:
    """Runs consumers. A context manager: entering it starts a thread each.

    `idle_s_max`: stop each consumer once it has found nothing new for so long; None: never.
    """

    def __init__(
        self,
        consumers: Sequence[Step],
        *,
        idle_s_max: float | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.consumers = consumers
        self._idle_s_max = idle_s_max
        self._clock_s = clock_s
        self._ends = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, args=(one,), name=one.name, daemon=True)
            for one in consumers
        ]

    def __enter__(self) -> Wing:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        for thread in self._threads:
            thread.join()

    def stop(self) -> None:
        """Ask every consumer to end."""
        self._ends.set()
        for one in self.consumers:
            one.stop()

    @property
    def is_working(self) -> bool:
        """Whether any consumer has not ended yet."""
        return any(thread.is_alive() for thread in self._threads)

    def _work(self, consumer: Step) -> None:
        self._step_on(consumer)
        try:
            consumer.settle()
        except GatewayError as error:
            log.error("%s ends behind its checkpoint: %s. %s", consumer.name, error, error.hint)

    def _step_on(self, consumer: Step) -> None:
        retry_s, idle_since_s, said_s = RETRY_S, self._clock_s(), -SAY_S
        while not self._ends.is_set():
            try:
                found = consumer.step()
            except GatewayError as error:
                now_s = self._clock_s()
                if now_s - said_s >= SAY_S and not self._ends.is_set():
                    log.error("%s waits: %s. %s", consumer.name, error, error.hint)
                    said_s = now_s
                self._ends.wait(retry_s)
                retry_s = min(2.0 * retry_s, RETRY_S_MAX)
                continue
            except Exception as error:
                log.error("%s failed; it tries again: %s", consumer.name, _place_of(error))
                self._ends.wait(RETRY_S_MAX)
                continue
            retry_s = RETRY_S
            if found is not None:
                idle_since_s = self._clock_s()
                continue
            if self._idle_s_max is not None and self._clock_s() - idle_since_s > self._idle_s_max:
                return
            self._ends.wait(consumer.idle_s)


def _place_of(error: Exception) -> str:
    """Return what an error is and where it was raised; its text may hold what a caller sent."""
    frames = reversed(traceback.extract_tb(error.__traceback__))
    places = (f"{frame.filename}:{frame.lineno}" for frame in frames)
    return f"{type(error).__name__} at {' < '.join(places)}"
