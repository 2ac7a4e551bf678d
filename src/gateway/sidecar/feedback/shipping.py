"""The consumer that fills the lake's `labels` and `attributes` from the store.

A file holds what a range of the store's sequences has for its folder, and its name is the range, as
with the journal: what is shipped again writes the same or nothing. The lake may refuse for as long
as it likes; what was acknowledged waits in the store.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from gateway.sidecar.feedback.store import Progress, Store
from gateway.sidecar.feedback.tables import attribute_parts, label_parts
from gateway.sidecar.lake.compaction import Compaction
from gateway.sidecar.lake.lake import Lake
from gateway.sidecar.lake.schema import ATTRIBUTES, LABELS, OF_LABELS
from gateway.sidecar.tail.call import Range
from gateway.sidecar.tail.lag import Lag

ROWS_MAX = 20_000
"""Of each table in one step."""

SHIP_S = 2.0
"""What comes within so long goes into one file."""

IDLE_S = 0.25


class LabelShipping:
    """One step a batch. Its checkpoint is in the store, one for each lake."""

    name = "feedback"
    idle_s = IDLE_S

    def __init__(
        self,
        store: Store,
        lake: Lake,
        *,
        ship_s: float = SHIP_S,
        clock_s: Callable[[], float] = time.monotonic,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._store = store
        self._lake = lake
        self._checkpoint = f"{self.name} {lake.root}"
        self._ship_s = ship_s
        self._clock_s = clock_s
        self._next_s = 0.0
        self._compaction = Compaction(lake, OF_LABELS, clock_s=clock_s, wall_ns=wall_ns)

    def stop(self) -> None:
        """Nothing here waits."""

    def settle(self) -> None:
        """Nothing: each step saves."""

    def lag(self, now_ns: int) -> Lag:
        """Return what the lake does not have yet. Raises JournalError."""
        return lag_of(self._store, self._store.progress(self._checkpoint), now_ns)

    def step(self) -> Progress | None:
        """Ship what is new; None where nothing is, or too little yet.

        Raises:
            LakeError: the lake does not take it; the same comes with the next step.
            JournalError: the store cannot be read or written.
        """
        now_s = self._clock_s()
        if now_s < self._next_s:
            return None
        self._next_s = now_s + self._ship_s
        done = self._store.progress(self._checkpoint)
        shipped = self._ship(done)
        self._compaction.when_due(lambda: self._closed(shipped))
        if shipped == done:
            return None
        self._store.save_progress(self._checkpoint, shipped)
        if ROWS_MAX in (shipped.labels - done.labels, shipped.attributes - done.attributes):
            self._next_s = 0.0  # there is more
        return shipped

    def _ship(self, done: Progress) -> Progress:
        """Write what stands behind `done`, and return how far that was."""
        store_id = self._store.store_id
        labels = self._store.labels(done.labels, ROWS_MAX)
        if labels:
            held = Range(LABELS, store_id, done.labels + 1, labels[-1].sequence)
            self._lake.write(held, label_parts(labels, store_id))
            done = done._replace(labels=held.last_sequence)
        attributes = self._store.attributes(done.attributes, ROWS_MAX)
        if attributes:
            held = Range(ATTRIBUTES, store_id, done.attributes + 1, attributes[-1].sequence)
            self._lake.write(held, attribute_parts(attributes, store_id))
            done = done._replace(attributes=held.last_sequence)
        return done

    def _closed(self, shipped: Progress) -> list[Range]:
        """Return what is in the lake of each table: nothing more comes into those ranges."""
        return [
            Range(worker, self._store.store_id, 1, last)
            for worker, last in ((LABELS, shipped.labels), (ATTRIBUTES, shipped.attributes))
            if last
        ]


def lag_of(store: Store, done: Progress, now_ns: int) -> Lag:
    """Return what stands in the store behind a consumer; its bytes are not counted."""
    count, since_us = store.behind(done)
    age_ns = 0 if since_us is None else max(0, now_ns - since_us * 1000)
    return Lag(count, 0, age_ns)
