"""Where heavy models run: beside the hall, on a thread each, with less of the processor.

ONNX Runtime lets go of the interpreter while it works, so the hall goes on: it admits, stands in
and answers light products, and collects what is done. A model's thread has a lower priority than
the hall, and at most IN_FLIGHT batches at a time: what waits beyond that waits in its lane,
where its deadline is watched.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from types import TracebackType

from gateway.model import Classifier
from gateway.serve.crew.priority import step_back
from gateway.serve.hall.admit import Payment
from gateway.serve.hall.scoring import Rows, score

IN_FLIGHT = 2
"""Batches of one model: one that is computed, and the next, so that its thread never waits."""

_END_S = 2.0

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Batch:
    """Payments of one lane on their way through its model, earliest deadline first.

    `answered`: so many in front were stood in for meanwhile. `scores` are None until it is done,
    and stay so where its time had passed before its turn came.
    """

    lane: int
    payments: list[Payment]
    rows: Rows
    defaulted: set[int]
    encoded_ns: int
    expected_ns: float
    answered: int = 0
    scores: list[float] | None = None
    begun_ns: int = 0
    ended_ns: int = 0


@dataclass(slots=True, eq=False)
class _Room:
    """One model and its thread."""

    classifier: Classifier
    batches: SimpleQueue[Batch | None] = field(default_factory=SimpleQueue)
    in_flight: list[Batch] = field(default_factory=list)


class Annex:
    """The heavy models by their lane. A context manager: it ends their threads."""

    def __init__(self, clock_ns: Callable[[], int]) -> None:
        self._rooms: dict[int, _Room] = {}
        self._done: SimpleQueue[Batch] = SimpleQueue()
        self._clock_ns = clock_ns
        self._threads: list[threading.Thread] = []
        self._seen: list[Batch] = []
        self.wake: Callable[[], None] = _nobody_waits

    def __enter__(self) -> Annex:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for room in self._rooms.values():
            room.batches.put(None)
        for thread in self._threads:
            thread.join(_END_S)

    def open(self, lane: int, classifier: Classifier) -> None:
        """Let a model move in, on a thread of its own."""
        room = self._rooms[lane] = _Room(classifier)
        thread = threading.Thread(target=self._work, args=(room,), name="annex", daemon=True)
        thread.start()
        self._threads.append(thread)

    def close(self, lane: int) -> None:
        """Let a model that has nothing under way go; its thread ends by itself."""
        self._rooms.pop(lane).batches.put(None)
        self._threads = [thread for thread in self._threads if thread.is_alive()]

    def __contains__(self, lane: int) -> bool:
        return lane in self._rooms

    @property
    def is_busy(self) -> bool:
        """Whether any batch is under way."""
        return any(room.in_flight for room in self._rooms.values())

    def in_flight(self, lane: int) -> list[Batch]:
        """Return a lane's batches under way, in their order."""
        return self._rooms[lane].in_flight

    def submit(self, batch: Batch) -> None:
        """Let a batch be scored."""
        room = self._rooms[batch.lane]
        room.in_flight.append(batch)
        room.batches.put(batch)

    def done(self) -> list[Batch]:
        """Return the batches that were finished since the last look."""
        finished, self._seen = self._seen, []
        with suppress(Empty):
            while True:
                finished.append(self._done.get_nowait())
        for batch in finished:
            self._rooms[batch.lane].in_flight.remove(batch)
        return finished

    def wait(self, timeout_s: float) -> None:
        """Wait until a batch is done, at most so long."""
        with suppress(Empty):
            self._seen.append(self._done.get(timeout=timeout_s))

    def _work(self, room: _Room) -> None:
        step_back()
        while (batch := room.batches.get()) is not None:
            batch.begun_ns = self._clock_ns()
            if batch.begun_ns < batch.payments[-1].deadline_ns:
                batch.scores = score(room.classifier, batch.rows)
            batch.ended_ns = self._clock_ns()
            self._done.put(batch)
            self.wake()


def _nobody_waits() -> None:
    pass
