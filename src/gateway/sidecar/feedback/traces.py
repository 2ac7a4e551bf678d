"""The consumer that sends a span for each label, and then remembers that it did.

What a label is linked to is looked up once and kept until the span was delivered: one that is sent
again is the same, though the lake may know more by then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from gateway.sidecar.feedback.decided import Decided
from gateway.sidecar.feedback.label import KeptLabel
from gateway.sidecar.feedback.shipping import lag_of
from gateway.sidecar.feedback.spans import label_span
from gateway.sidecar.feedback.store import Progress, Store
from gateway.sidecar.tail.lag import Lag
from gateway.sidecar.traces.otlp import Exporter, Sent
from gateway.sidecar.traces.spans import SpanId

ROWS_MAX = 2000
"""Labels in one step."""

IDLE_S = 1.0
SETTLE_S = 5.0
"""A label waits so long for its decision to come to the lake."""


class LabelTraces:
    """One step a batch. Its checkpoint is in the store."""

    name = "feedback_traces"
    idle_s = IDLE_S

    def __init__(
        self,
        store: Store,
        decided: Decided,
        exporter: Exporter,
        *,
        settle_s: float = SETTLE_S,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._store = store
        self._decided = decided
        self._exporter = exporter
        self._settle_us = round(settle_s * 1e6)
        self._wall_ns = wall_ns

    def hurry(self) -> None:
        """Wait for no decision any more: all that were made are in the lake, or will not be."""
        self._settle_us = 0

    def stop(self) -> None:
        """End a step that waits for the collector."""
        self._exporter.stop()

    def settle(self) -> None:
        """Nothing: each step saves."""

    def lag(self, now_ns: int) -> Lag:
        """Return what has not been sent yet. Raises JournalError."""
        done = self._store.progress(self.name)
        return lag_of(self._store, done._replace(attributes=2**62), now_ns)

    def step(self) -> Sent | None:
        """Deliver the spans of the next labels; None where none is due.

        Raises:
            CollectorError: the collector refuses them, or was stopped; they come again.
            LakeError: their decisions cannot be looked up.
            JournalError: the store cannot be read or written.
        """
        until_us = self._wall_ns() // 1000 - self._settle_us
        done = self._store.progress(self.name)
        labels = self._store.labels(done.labels, ROWS_MAX, until_us=until_us)
        if not labels:
            return None
        store_id = self._store.store_id
        spans = [
            label_span(kept, store_id, link)
            for kept, link in zip(labels, self._links(labels, done.labels), strict=True)
        ]
        sent = self._exporter.export(spans)
        self._store.save_progress(self.name, Progress(labels[-1].sequence))
        return sent

    def _links(self, labels: Sequence[KeptLabel], done: int) -> list[SpanId | None]:
        """Return what each label's span is linked to: as it was found the first time."""
        known = self._store.links(labels[0].sequence, labels[-1].sequence)
        new = [one for one in labels if one.sequence not in known]
        if new:
            found = self._decided.spans_of([one.label for one in new])
            told = {one.sequence: link for one, link in zip(new, found, strict=True)}
            self._store.save_links(told, done)
            known.update(told)
        links = (known[one.sequence] for one in labels)
        return [None if link is None else SpanId(*link) for link in links]
