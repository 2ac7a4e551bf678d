"""A request through the intake: each event admitted or refused, the good ones kept, all counted."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.model.registry import Registry
from gateway.sidecar.feedback.admit import Violation, Violations, admit, admit_attribute
from gateway.sidecar.feedback.label import KINDS, Attribute, Label
from gateway.sidecar.feedback.store import Store, Taken
from gateway.v1.feedback_pb2 import FeedbackEvent, SubjectAttribute

UNKNOWN = "unknown"

_CONFLICT = Violation(
    "source_event_id",
    "was sent before with another content: send a new source_event_id, with `supersedes` naming "
    "this one",
)
_CIRCLE = Violation(
    "supersedes", "leads back to this event: a correction names what it corrects, not the reverse"
)
_OTHER_GROUP = Violation(
    "value", "is another than this source gave for the same reported_time: send a later one"
)
_OF_LABELS = {Taken.CONFLICT: _CONFLICT, Taken.CIRCLE: _CIRCLE}
_OF_ATTRIBUTES = {Taken.CONFLICT: _OTHER_GROUP}


Answer = Taken | Violations
"""What became of one message: kept, known already, or what is wrong with it."""


class Counts(Collector):
    """What Prometheus is shown. The intake counts on one thread, Prometheus asks on another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._labels: Counter[tuple[str, str, str]] = Counter()
        self._attributes: Counter[tuple[str, ...]] = Counter()

    def label(self, product: str, kind: int, outcome: str) -> None:
        """Count a label. `product`: one that is served, or UNKNOWN."""
        with self._lock:
            self._labels[product, KINDS.get(kind, UNKNOWN), outcome] += 1

    def attribute(self, outcome: str) -> None:
        """Count an attribute; of what it says nothing is told."""
        with self._lock:
            self._attributes[(outcome,)] += 1

    def collect(self) -> Iterator[Metric]:
        """Yield both families, as they are now."""
        with self._lock:
            labels, attributes = dict(self._labels), dict(self._attributes)
        family = CounterMetricFamily(
            "gateway_labels",
            "Labels that were reported, by what became of them.",
            labels=("product", "kind", "outcome"),
        )
        for key, count in sorted(labels.items()):
            family.add_metric(key, count)
        yield family
        family = CounterMetricFamily(
            "gateway_attributes",
            "Group attributes that were reported, by what became of them.",
            labels=("outcome",),
        )
        for named, count in sorted(attributes.items()):
            family.add_metric(named, count)
        yield family


class Products:
    """The products that a gateway with this journal serves, or has served."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._known: frozenset[str] = frozenset()

    def among(self, names: set[str]) -> frozenset[str]:
        """Return all that are known; looked up anew where one of `names` is not.

        Raises:
            JournalError: the store of generations cannot be listed.
        """
        if not names <= self._known:
            self._known = frozenset(self._registry.products())
        return self._known


class Intake:
    """Takes requests, on one thread. `wall_us`: the clock; `pseudonym`: stands for a subject."""

    def __init__(
        self,
        store: Store,
        products: Products,
        pseudonym: Callable[[str], str],
        counts: Counts,
        wall_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._store = store
        self._products = products
        self._pseudonym = pseudonym
        self._counts = counts
        self._wall_us = wall_us

    def labels(self, events: Sequence[FeedbackEvent]) -> list[Answer]:
        """Keep the good ones of some events. What is accepted or a duplicate is on the disk.

        Raises:
            JournalError: nothing was kept.
        """
        now_us = self._wall_us()
        known = self._products.among({event.product for event in events})
        found = [
            admit(event, now_us=now_us, products=known, pseudonym=self._pseudonym)
            for event in events
        ]
        good = [one for one in found if isinstance(one, Label)]
        answers = _answers(found, self._store.add_labels(good, now_us), _OF_LABELS)
        for event, answer in zip(events, answers, strict=True):
            product = event.product if event.product in known else UNKNOWN
            self._counts.label(product, event.kind, _outcome(answer))
        return answers

    def attributes(self, messages: Sequence[SubjectAttribute]) -> list[Answer]:
        """Keep the good ones of some attributes. As `labels`."""
        now_us = self._wall_us()
        found = [
            admit_attribute(message, now_us=now_us, pseudonym=self._pseudonym)
            for message in messages
        ]
        good = [one for one in found if isinstance(one, Attribute)]
        answers = _answers(found, self._store.add_attributes(good, now_us), _OF_ATTRIBUTES)
        for answer in answers:
            self._counts.attribute(_outcome(answer))
        return answers


def _answers(
    found: Sequence[Label | Attribute | Violations],
    taken: Sequence[Taken],
    refused: Mapping[Taken, Violation],
) -> list[Answer]:
    """Put what became of the good ones between what is wrong with the others."""
    left = iter(taken)
    answers: list[Answer] = []
    for one in found:
        if isinstance(one, Label | Attribute):
            what = next(left)
            answers.append((refused[what],) if what in refused else what)
        else:
            answers.append(one)
    return answers


def _outcome(answer: Answer) -> str:
    return answer.value if isinstance(answer, Taken) else "refused"
