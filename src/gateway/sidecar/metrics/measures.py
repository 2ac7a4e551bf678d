"""The consumer that counts: from the tail to what Prometheus is shown."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from gateway.sidecar.metrics.metrics import Metrics
from gateway.sidecar.tail.call import Batch, Position, Source
from gateway.sidecar.tail.checkpoint import Checkpoint

SAVE_S = 2.0
"""Its checkpoint is saved so often, and at the end: what a killed sidecar counts again, it counts
from 0."""

IDLE_S = 0.25
"""Counted within a second of the reply: this, and until the journal tells of the reply."""


class Measures(Collector):
    """One step a batch, on one thread; Prometheus asks on another."""

    def __init__(
        self,
        source: Source,
        metrics: Metrics,
        checkpoint: Checkpoint,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
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
        return self._source.position

    @property
    def idle_s(self) -> float:
        """Where it found nothing new, it looks again after so long."""
        return IDLE_S

    def stop(self) -> None:
        """Nothing here waits."""

    def step(self) -> Batch | None:
        """Count the next batch; None where there is nothing new.

        Raises:
            JournalError: the journal cannot be read, or the checkpoint not be written.
        """
        batch = self._source.read()
        if batch is not None:
            with self._lock:
                self._metrics.take(batch)
            self._unsaved = batch.until
        if self._clock_s() - self._saved_s >= SAVE_S:
            self.settle()
        return batch

    def settle(self) -> None:
        """Save how far it is. Raises JournalError."""
        if self._unsaved is not None:
            self._saved_s = self._clock_s()
            self._checkpoint.save(self._unsaved)
            self._unsaved = None

    def collect(self) -> Iterator[Metric]:
        """Yield every family, as it is now. What counts does not wait for what is looked up."""
        with self._lock:
            found = list(self._metrics.counted())
        yield from found
        yield from self._metrics.behind()
