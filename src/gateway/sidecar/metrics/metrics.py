"""Calls -> metrics: the same records that spans and rows are made of, counted.

Counts grow with what the tail gives out and begin at 0 with the process, as Prometheus expects.
No label holds what a caller sent: products, models and numbers of generations are the file's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

import numpy as np
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from gateway.journal import (
    Damage,
    Decision,
    Flag,
    Gap,
    Generation,
    Pause,
    Record,
    Refused,
    Rejected,
    Scored,
    Shed,
)
from gateway.product import Action, StandIn
from gateway.sidecar.metrics.buckets import Counts, Example, Histogram, around
from gateway.sidecar.metrics.missing import Missing
from gateway.sidecar.metrics.stamps import Ints, Stamps, lengths, stamps_of
from gateway.sidecar.tail.call import Batch, Call, Gone, LateReply, LateScored, Position
from gateway.sidecar.tail.lag import Lag

COMMON_S = (
    *(50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3),
    1.0,
)
"""Bounds of every duration, in seconds; each product's have its budget's shares beside them."""

SHARES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.5, 2.0)
"""Bounds of how much of its budget a call has used."""

SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)

QUEUES = (0.0, *SIZES, 256.0, 512.0, 1024.0)

Boot = tuple[int, bytes]

Labels = tuple[str, ...]

METHOD = "gateway.v1.DecisionService/Decide"
UNKNOWN = "unknown"

_STATUS = {0: "OK", 3: "INVALID_ARGUMENT", 5: "NOT_FOUND", 8: "RESOURCE_EXHAUSTED"}
_ACTIONS = {action.value: action.name.lower() for action in Action}
_STAND_INS = {reason.value: reason.name.lower() for reason in StandIn}
_STAGES = ("admit", "encode", "infer", "decide", "record", "reply")
_FLAGS = (
    (Flag.NEAR_TIE, "near_tie"),
    (Flag.EXPLORED, "explored"),
    (Flag.OVERRIDDEN, "overridden"),
)


_KINDS = attrgetter("generation", "arm", "action", "stand_in", "flags._value_")

_COUNTERS: dict[str, tuple[str, Labels]] = {
    "decisions": (
        "Answers, the model's or a stand-in's.",
        ("product", "generation", "model", "action", "stand_in"),
    ),
    "refusals": ("Calls that were the caller's fault.", ("product", "status")),
    "flags": ("Decisions of which more is to be said.", ("product", "flag")),
    "replies": ("What became of the replies.", ("product", "reply")),
    "late": ("Answers that left past their deadline.", ("product",)),
    "shadow_calls": (
        "Calls that a model scored beside the one that decided, or did not.",
        ("product", "model", "outcome"),
    ),
    "lost_records": ("Records that are in no segment any more.", ("reason",)),
    "rejected_changes": ("Changes of a folder that are not served.", ("product",)),
    "worker_starts": ("Times that a worker began to write its journal.", ("worker",)),
    "shed": ("Calls that were turned away unread.", ()),
    "pauses": ("Times that a loop stood still.", ()),
    "paused_seconds": ("How long loops stood still.", ()),
}

_LAGS: tuple[tuple[str, str, Callable[[Lag], float]], ...] = (
    ("records", "Records behind the journal's end.", lambda lag: lag.records),
    ("bytes", "Bytes behind the journal's end.", lambda lag: lag.bytes),
    ("seconds", "Age of the oldest record that waits.", lambda lag: lag.age_ns / 1e9),
)


@dataclass(slots=True)
class _Counts:
    """Everything that is only added up."""

    decisions: Counter[Labels] = field(default_factory=Counter)
    refused: Counter[Labels] = field(default_factory=Counter)
    flags: Counter[Labels] = field(default_factory=Counter)
    replies: Counter[Labels] = field(default_factory=Counter)
    late: Counter[Labels] = field(default_factory=Counter)
    beside: Counter[Labels] = field(default_factory=Counter)
    lost: Counter[Labels] = field(default_factory=Counter)
    rejected: Counter[Labels] = field(default_factory=Counter)
    starts: Counter[Labels] = field(default_factory=Counter)
    shed: int = 0
    pauses: int = 0
    paused_s: float = 0.0


class Metrics(Collector):
    """What Prometheus is shown. `take` and `counted` run on one thread, or under one lock.

    `trace_id` gives a call's, in hex; `lags` each consumer's lag by its name, and may take long.
    """

    def __init__(
        self,
        *,
        trace_id: Callable[[Call], str],
        lags: Callable[[], Mapping[str, Lag]] = dict,
    ) -> None:
        self._trace_id = trace_id
        self._lags = lags
        self._counts = _Counts()
        self._missing = Missing()
        self._durations: Histogram[Labels] = Histogram()
        self._stages: Histogram[Labels] = Histogram()
        self._uses: Histogram[Labels] = Histogram()
        self._sizes: Histogram[Labels] = Histogram()
        self._queues: Histogram[Labels] = Histogram()
        self._waits: dict[Boot, Ints] = {}
        self._boots: set[Boot] = set()
        self._bounds: dict[str, tuple[float, ...]] = {}
        self._served: dict[tuple[int, bytes, str], Generation] = {}
        self._ended: set[Boot] = set()

    def take(self, batch: Batch) -> None:
        """Count a batch."""
        decided: dict[Boot, list[Call]] = {}
        for call in batch.calls:
            if isinstance(call.record.entry, Decision):
                decided.setdefault(call.record.segment.boot, []).append(call)
            elif isinstance(call.record.entry, Refused):
                self._begun(call.record.segment.boot)
                self._refused(call, call.record.entry)
        for boot, calls in decided.items():
            self._begun(boot)
            self._decided(boot, calls)
        for aside in batch.asides:
            match aside:
                case LateScored():
                    self._scored(aside.record, aside.arm, 1)
                case LateReply():
                    pass  # its call was counted as it was given out
                case Gone():
                    self._gone(aside)
                case Damage():
                    self._counts.lost[("damage",)] += 1
                case _:
                    self._aside(aside)
        self._end(batch.until)

    def _end(self, until: Position) -> None:
        """Note whose journal has ended, and forget what of them has left the folder too."""
        left = self._ended - until.marks.keys()
        if left:
            self._waits = {boot: one for boot, one in self._waits.items() if boot not in left}
            self._served = {key: one for key, one in self._served.items() if key[:2] not in left}
        # Between two segments this holds of a worker too, for the moment of a rotation.
        self._ended = {boot for boot, mark in until.marks.items() if mark.is_finished}

    def _begun(self, boot: Boot) -> None:
        if boot not in self._boots:
            self._boots.add(boot)
            self._counts.starts[(str(boot[0]),)] += 1

    def _decided(self, boot: Boot, calls: Sequence[Call]) -> None:
        """Count one worker's decisions: its queue holds those of all products."""
        stamps = stamps_of(calls)
        waits = stamps.waits()
        queued = lengths(waits, self._waits.get(boot, waits[:0]))
        self._waits[boot] = waits
        places: dict[Generation | None, list[int]] = {}
        for place, call in enumerate(calls):
            places.setdefault(call.generation, []).append(place)
        for generation, some in places.items():
            ours = calls if len(places) == 1 else [calls[place] for place in some]
            self._of_generation(generation, ours, stamps.of(some), queued[some])
            if generation is not None:
                self._served[(*boot, generation.product)] = generation

    def _of_generation(
        self, generation: Generation | None, calls: Sequence[Call], stamps: Stamps, queued: Ints
    ) -> None:
        product = generation.product if generation else UNKNOWN
        self._count(generation, product, calls)
        if (stamps.replied >= 0).any():
            self._counts.late[(product,)] += int(stamps.is_late.sum())
        took_s, budget_s = stamps.took_s, stamps.budget_s

        def example(place: int) -> Example | None:
            return self._example(calls[place], float(took_s[place]))

        bounds = self._bounds_of(product, float(budget_s[0]))
        self._durations.add_all((METHOD, "OK", product), bounds, took_s, example)
        has_budget = budget_s > 0
        self._uses.add_all((product,), SHARES, took_s[has_budget] / budget_s[has_budget])
        for stage, stage_s in zip(_STAGES, stamps.stage_s().T, strict=True):
            self._stages.add_all((product, stage), COMMON_S, stage_s)
        sizes = stamps.batch_size[stamps.batch_size > 0]
        self._sizes.add_all((product,), SIZES, sizes.astype(np.float64))
        self._queues.add_all((product,), QUEUES, queued.astype(np.float64))

    def _count(self, generation: Generation | None, product: str, calls: Sequence[Call]) -> None:
        counts = self._counts
        for key, count in Counter(_KINDS(call.record.entry) for call in calls).items():
            number, arm, action, stand_in, flags = key
            counts.decisions[
                product,
                str(number),
                _arm(generation, arm),
                _ACTIONS.get(action, UNKNOWN),
                _STAND_INS.get(stand_in, "none"),
            ] += count
            for flag, name in _FLAGS:
                if flag & flags:
                    counts.flags[product, name] += count
        for reply, count in Counter(call.reply for call in calls).items():
            counts.replies[product, reply.name.lower()] += count
        for arm, count in Counter(arm for call in calls for arm, _ in call.scored).items():
            counts.beside[product, _arm(generation, arm), "scored"] += count

    def _refused(self, call: Call, entry: Refused) -> None:
        product = call.generation.product if call.generation else UNKNOWN
        status = _STATUS.get(entry.code, str(entry.code))
        self._counts.refused[product, status] += 1
        self._counts.replies[product, call.reply.name.lower()] += 1
        took_ns = entry.refused_after_ns
        if call.replied_ns is not None:
            took_ns = call.replied_ns - entry.arrival_ns
        example = self._example(call, took_ns / 1e9)
        self._durations.add((METHOD, status, product), COMMON_S, took_ns / 1e9, example)

    def _aside(self, record: Record) -> None:
        counts = self._counts
        match record.entry:
            case Shed() as shed:
                counts.shed += shed.count
            case Pause() as pause:
                counts.pauses += 1
                counts.paused_s += pause.duration_ns / 1e9
            case Gap() as gap:
                counts.lost[(gap.reason.name.lower(),)] += self._missing.told(gap)
            case Generation() as generation:
                self._served[(*record.segment.boot, generation.product)] = generation
            case Rejected() as rejected:
                counts.rejected[(rejected.product,)] += bool(rejected.why)
            case Scored() as scored:
                self._scored(record, scored.arm, 0, scored.skipped, scored.failed)

    def _scored(
        self, record: Record, arm: int, scored: int, skipped: int = 0, failed: int = 0
    ) -> None:
        generation = record.generation(record.entry.product)  # type: ignore[union-attr, arg-type]
        product = generation.product if generation else UNKNOWN
        name = _arm(generation, arm)
        for what, count in (("scored", scored), ("skipped", skipped), ("failed", failed)):
            if count:
                self._counts.beside[product, name, what] += count

    def _gone(self, gone: Gone) -> None:
        if gone.last_sequence is not None:
            self._counts.lost[("not_read_in_time",)] += self._missing.gone(gone)

    def _example(self, call: Call, took_s: float) -> Example | None:
        """Lead to the call's trace, where it is known when it was."""
        entry = call.record.entry
        assert isinstance(entry, Decision | Refused)
        wall_ns = call.record.wall_ns(entry.arrival_ns)
        return None if wall_ns is None else Example(took_s, self._trace_id(call), wall_ns / 1e9)

    def _bounds_of(self, product: str, budget_s: float) -> tuple[float, ...]:
        """Return the bounds of the first budget seen: a caller's own deadline may be shorter."""
        bounds = self._bounds.get(product)
        if bounds is None:
            bounds = around(budget_s, COMMON_S) if budget_s else COMMON_S
            self._bounds[product] = bounds
        return bounds

    # What is shown

    def collect(self) -> Iterator[Metric]:
        """Yield every family, in a settled order."""
        yield from self.counted()
        yield from self.behind()

    def counted(self) -> Iterator[Metric]:
        """Yield what was counted."""
        yield _histogram(
            "rpc_server_call_duration_seconds",
            "From arrival to the reply's leaving, of each call.",
            ("rpc_method", "rpc_response_status_code", "gateway_product"),
            self._durations,
        )
        yield _histogram(
            "gateway_budget_used_ratio",
            "Share of its budget, or its caller's deadline, that a decision took.",
            ("product",),
            self._uses,
        )
        yield _histogram(
            "gateway_stage_duration_seconds",
            "What each stage of a decision took; infer waits for its model included.",
            ("product", "stage"),
            self._stages,
        )
        yield _histogram(
            "gateway_batch_size",
            "Rows that went through the model together.",
            ("product",),
            self._sizes,
        )
        yield _histogram(
            "gateway_queue_length",
            "Calls of all products that waited in a worker as a call of this one arrived.",
            ("product",),
            self._queues,
        )
        counts = self._counts
        tables: dict[str, Mapping[Labels, float]] = {
            "decisions": counts.decisions,
            "refusals": counts.refused,
            "flags": counts.flags,
            "replies": counts.replies,
            "late": counts.late,
            "shadow_calls": counts.beside,
            "lost_records": counts.lost,
            "rejected_changes": counts.rejected,
            "worker_starts": counts.starts,
            "shed": {(): counts.shed},
            "pauses": {(): counts.pauses},
            "paused_seconds": {(): counts.paused_s},
        }
        for name, (help_, labels) in _COUNTERS.items():
            yield _counter(f"gateway_{name}", help_, labels, tables[name])
        yield self._generations()

    def behind(self) -> Iterator[Metric]:
        """Yield how far each consumer is behind."""
        lags = self._lags()
        for unit, help_, value in _LAGS:
            name = f"gateway_consumer_lag_{unit}"
            family = GaugeMetricFamily(name, help_, labels=("consumer",))
            for consumer, lag in sorted(lags.items()):
                family.add_metric((consumer,), value(lag))
            yield family

    def _generations(self) -> Metric:
        family = GaugeMetricFamily(
            "gateway_generation_info",
            "Workers that serve a generation of a product.",
            labels=("product", "generation", "digest", "models"),
        )
        serving = Counter(
            (one.product, str(one.generation), one.digest[:12], ",".join(one.arms))
            for (*boot, _), one in self._served.items()
            if tuple(boot) not in self._ended
        )
        for labels, workers in sorted(serving.items()):
            family.add_metric(labels, workers)
        return family


def _arm(generation: Generation | None, place: int) -> str:
    known = generation is not None and place < len(generation.arms)
    return generation.arms[place] if known and generation is not None else str(place)


def _counter(
    name: str, help_: str, labels: Iterable[str], counts: Mapping[tuple[str, ...], float]
) -> Metric:
    family = CounterMetricFamily(name, help_, labels=tuple(labels))
    for key, count in sorted(counts.items()):
        family.add_metric(key, count)
    return family


def _histogram(name: str, help_: str, labels: Iterable[str], found: Histogram[Labels]) -> Metric:
    family = HistogramMetricFamily(name, help_, labels=tuple(labels))
    for key, bounds, counts in sorted(found.rows(), key=lambda row: row[0]):
        family.add_metric(key, list(_cumulated(bounds, counts)), sum_value=counts.total)
    return family


def _cumulated(
    bounds: tuple[float, ...], counts: Counts
) -> Iterator[tuple[str, float] | tuple[str, float, Exemplar]]:
    so_far = 0
    for i, bound in enumerate((*(f"{one:.6g}" for one in bounds), "+Inf")):
        so_far += counts.counts[i]
        example = counts.examples.get(i)
        if example is None:
            yield bound, so_far
        else:
            trace = Exemplar({"trace_id": example.trace_id}, example.value, example.wall_s)
            yield bound, so_far, trace
