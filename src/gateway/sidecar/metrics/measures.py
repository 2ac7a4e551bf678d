"""The consumer that counts: from the tail to what Prometheus is shown."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from gateway.sidecar.metrics.metrics import Metrics
from gateway.sidecar.tail.call import Batch, Position
from gateway.sidecar.tail.checkpoint import Checkpoint, Progress
from gateway.sidecar.tail.tail import Tail

SAVE_S = 2.0
"""Its checkpoint is saved so often: what a killed sidecar counts again, it counts from 0."""


class Measures(Collector):
    """One step a batch, on one thread; Prometheus asks on another."""

    def __init__(
        self,
        tail: Tail,
        metrics: Metrics,
        checkpoint: Checkpoint,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tail = tail
        self._metrics = metrics
        self._checkpoint = checkpoint
        self._clock_s = clock_s
        self._saved_s = 0.0
        self._unsaved: Position | None = None
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """Its name, in lags and log lines."""
        return self._checkpoint.consumer

    @property
    def position(self) -> Position:
        """Behind what was counted."""
        return self._tail.position

    def stop(self) -> None:
        """Nothing here waits."""

    def step(self) -> Batch | None:
        """Count the next batch; None where there is nothing new.

        Raises:
            JournalError: the journal cannot be read, or the checkpoint not be written.
        """
        batch = self._tail.read()
        if batch is not None:
            with self._lock:
                self._metrics.take(batch)
            self._unsaved = batch.until
        # Also when nothing new comes: until it is saved, the journal is kept for it.
        if self._unsaved is not None and self._clock_s() - self._saved_s >= SAVE_S:
            self._saved_s = self._clock_s()
            self._checkpoint.save(Progress(done=self._unsaved))
            self._unsaved = None
        return batch

    def collect(self) -> Iterator[Metric]:
        """Yield every family, as it is now."""
        with self._lock:
            found = list(self._metrics.collect())
        yield from found
