"""What a sidecar makes of the journal and of labels: its consumers, put together."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import JournalError
from gateway.sidecar.feedback.decided import Decided
from gateway.sidecar.feedback.shipping import LabelShipping
from gateway.sidecar.feedback.store import Store
from gateway.sidecar.feedback.traces import SETTLE_S, LabelTraces
from gateway.sidecar.lake.lake import Lake
from gateway.sidecar.lake.products import Products
from gateway.sidecar.lake.pseudonyms import Pseudonyms
from gateway.sidecar.lake.rows import Rows
from gateway.sidecar.lake.shipping import Shipping
from gateway.sidecar.lake.snapshots import Snapshots
from gateway.sidecar.metrics.measures import Measures
from gateway.sidecar.metrics.metrics import Metrics
from gateway.sidecar.tail.begun import BegunLater
from gateway.sidecar.tail.call import Call, Position, Source
from gateway.sidecar.tail.checkpoint import Checkpoint
from gateway.sidecar.tail.lag import Lag, Lags
from gateway.sidecar.tail.shared import SharedTail
from gateway.sidecar.tail.tail import Tail
from gateway.sidecar.traces.otlp import Exporter
from gateway.sidecar.traces.spans import Detail, SpanEncoder, server_span_id
from gateway.sidecar.traces.traces import Traces
from gateway.sidecar.wing import Consumer, Step

METRICS, TRACES, LAKE = "metrics", "traces", "lake"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a sidecar is asked for. `lake`: where; None: none is filled.

    `exporter`: opens a connection to the collector; None: no trace is sent. `once`: it ends when
    all is behind it, so that nothing waits for what may come. `kept`: where checkpoints stand.
    `store`: opens a connection to the store of labels. `key`: of the lake's pseudonyms.
    """

    journal: Path
    kept: Path
    key: bytes
    store: Callable[[], Store]
    exporter: Callable[[], Exporter] | None
    detail: Detail
    lake: str | None
    once: bool


@dataclass(frozen=True, slots=True)
class Consumers:
    """`of_journal` read the journal, `of_labels` the store of labels; `measures` is of the first.

    `lags`: how far each is behind, by its name.
    """

    of_journal: Sequence[Consumer]
    of_labels: Sequence[LabelShipping | LabelTraces]
    measures: Measures
    lags: Callable[[], Mapping[str, Lag]]

    @property
    def all(self) -> list[Step]:
        """Each has a thread of its own."""
        return [*self.of_journal, *self.of_labels]


def consumers_of(asked: Asked) -> Consumers:
    """Put them together. Nothing is read of the journal yet.

    Raises:
        JournalError: the store cannot be opened; or, asked for once, a checkpoint not be read.
        LakeError: the lake's file system is none that is known, or does not answer.
    """
    sources = _sources(asked)
    of_journal: list[Consumer] = []
    of_labels: list[LabelShipping | LabelTraces] = []
    if asked.exporter is not None:
        checkpoint, source = sources[TRACES]
        encoder = SpanEncoder(asked.detail)
        of_journal.append(Traces(source, encoder, asked.exporter(), checkpoint))
        decided = Decided(asked.journal, None if asked.lake is None else Lake.at(asked.lake))
        settle_s = 0.0 if asked.once else SETTLE_S
        of_labels.append(LabelTraces(asked.store(), decided, asked.exporter(), settle_s=settle_s))
    if asked.lake is not None:
        checkpoint, source = sources[LAKE]
        served, lake = Snapshots(asked.journal), Lake.at(asked.lake)
        rows = Rows(key=asked.key, shape=served.shape)
        said = Products(lake.filesystem, lake.root, served.text)
        # Each its own: a lake remembers for one thread what its folders hold.
        of_journal.append(
            Shipping(
                source,
                lake,
                rows,
                checkpoint,
                products=said,
                pseudonyms=Pseudonyms(lake.filesystem, lake.root, asked.key),
            )
        )
        of_labels.append(LabelShipping(asked.store(), Lake.at(asked.lake)))
    checkpoint, source = sources[METRICS]
    behind = _lags_of(asked.journal, of_journal, of_labels)
    measures = Measures(source, Metrics(trace_id=_trace_id, lags=behind), checkpoint)
    of_journal.append(measures)
    return Consumers(of_journal, of_labels, measures, behind)


def _lags_of(
    journal: Path, of_journal: Sequence[Consumer], of_labels: Sequence[LabelShipping | LabelTraces]
) -> Callable[[], Mapping[str, Lag]]:
    """Return what says how far consumers are; it leaves out, with a line in the log, who cannot.

    The sequences may still grow behind it.
    """
    lags = Lags(journal)

    def behind() -> Mapping[str, Lag]:
        now_ns = time.time_ns()
        found: dict[str, Lag] = {}
        try:
            found |= lags.of({one.name: one.position for one in of_journal}, wall_ns=now_ns)
        except JournalError as error:
            log.warning("how far the journal's consumers are cannot be said: %s", error)
        for one in of_labels:
            try:
                found[one.name] = one.lag(now_ns)
            except JournalError as error:
                log.warning("how far %s is cannot be said: %s", one.name, error)
        return found

    return behind


def _sources(asked: Asked) -> dict[str, tuple[Checkpoint, Source]]:
    """Return each consumer's checkpoint and what it reads from: one reading for who keeps up."""
    is_asked = {METRICS: True, TRACES: asked.exporter is not None, LAKE: asked.lake is not None}
    checkpoints = [Checkpoint(asked.kept, name) for name, wanted in is_asked.items() if wanted]
    common = SharedTail(lambda position: Tail(asked.journal, position))
    found: dict[str, tuple[Checkpoint, Source]] = {}
    begun: list[tuple[Position, Checkpoint]] = []
    for one in checkpoints:
        try:
            begun.append((one.load(), one))
        except JournalError:
            if asked.once:
                raise
            found[one.consumer] = one, BegunLater(one, common.share)
    # The furthest first: the common reading begins there.
    for position, one in sorted(begun, key=lambda pair: -pair[0].records):
        found[one.consumer] = one, common.share(position)
    return found


def _trace_id(call: Call) -> str:
    return server_span_id(call.record).trace_id.hex()
