"""The consumer that makes traces: from the tail to the collector, and then the checkpoint.

A checkpoint is saved behind what was delivered, so that a sidecar that is killed sends its last
batch again; a span that is sent again has the ids that it had.
"""

from __future__ import annotations

from gateway.sidecar.tail.call import Batch, Position, Source
from gateway.sidecar.tail.checkpoint import Checkpoint
from gateway.sidecar.traces.otlp import Exporter, Sent
from gateway.sidecar.traces.spans import SpanEncoder

IDLE_S = 1.0
"""What comes within so long is sent together: to send and to save costs as much as 500 spans."""


class Traces:
    """One step a batch. `source` begins where `checkpoint` says; nobody else reads from it."""

    def __init__(
        self, source: Source, encoder: SpanEncoder, exporter: Exporter, checkpoint: Checkpoint
    ) -> None:
        self._source = source
        self._encoder = encoder
        self._exporter = exporter
        self._checkpoint = checkpoint
        self._refused: Batch | None = None
        self._delivered = source.position

    @property
    def name(self) -> str:
        """Its name, in lags and log lines."""
        return self._checkpoint.consumer

    @property
    def position(self) -> Position:
        """Behind what was delivered."""
        return self._delivered

    @property
    def idle_s(self) -> float:
        """Where it found nothing new, it looks again after so long."""
        return IDLE_S

    def stop(self) -> None:
        """End a step that waits for the collector."""
        self._exporter.stop()

    def settle(self) -> None:
        """Nothing: each step saves."""

    def step(self) -> Sent | None:
        """Deliver the next batch; None where there is nothing new. Waits for the collector alone.

        Raises:
            CollectorError: the collector refuses the batch, or was stopped; it comes again with the
                next step, and the checkpoint stays.
            JournalError: the journal cannot be read, or the checkpoint not be written: the spans of
                the batch were delivered, and are sent again should the sidecar be killed.
        """
        batch = self._refused or self._source.read()
        if batch is None:
            return None
        self._refused = batch
        sent = self._exporter.export(self._encoder.of_batch(batch))
        self._refused, self._delivered = None, batch.until
        self._checkpoint.save(batch.until)
        return sent
