"""The last evaluation as gauges: goals and promises with their intervals, and counts of verdicts.

No group of customers has a series of its own: fairness is told as how many groups are in breach, by
attribute. Figures of parts of the traffic are left to who reads the evaluation itself.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_BOUNDS = ("value", "low", "high")


class Evaluated(Collector):
    """Shows what it was given last, and its age; nothing before the first. For several threads."""

    def __init__(self, wall_s: Callable[[], float] = time.time) -> None:
        self._wall_s = wall_s
        self._lock = threading.Lock()
        self._last: tuple[Mapping[str, Any], float] | None = None

    def take(self, evaluation: Mapping[str, Any]) -> None:
        """Show an evaluation, as `gateway evaluate --json` prints it."""
        with self._lock:
            self._last = evaluation, self._wall_s()

    def collect(self) -> Iterator[Metric]:
        """Yield every family."""
        with self._lock:
            last = self._last
        if last is None:
            return
        evaluation, since_s = last
        age = GaugeMetricFamily(
            "gateway_evaluation_age_seconds", "How long ago the products were evaluated."
        )
        age.add_metric((), max(0.0, self._wall_s() - since_s))
        yield age
        yield from _figures(evaluation)
        yield _budgets(evaluation)
        yield _verdicts(evaluation)


def _figures(evaluation: Mapping[str, Any]) -> Iterator[Metric]:
    family = GaugeMetricFamily(
        "gateway_evaluation",
        "Goals and promises: the figure, and the ends of its 95 % interval.",
        labels=("product", "metric", "basis", "bound"),
    )
    for one in evaluation.get("goals", ()):
        low, high = one["interval"]
        for bound, value in zip(_BOUNDS, (one["value"], low, high), strict=True):
            if value is not None:
                family.add_metric((one["product"], one["metric"], one["basis"], bound), value)
    yield family


def _budgets(evaluation: Mapping[str, Any]) -> Metric:
    family = GaugeMetricFamily(
        "gateway_error_budget_left_ratio",
        "Of what a promise allows to go wrong in its window, the share that is left.",
        labels=("product", "promise"),
    )
    for one in evaluation.get("goals", ()):
        left = (one.get("budget") or {}).get("share_left")
        if left is not None:
            family.add_metric((one["product"], one["metric"]), left)
    return family


def _verdicts(evaluation: Mapping[str, Any]) -> Metric:
    family = GaugeMetricFamily(
        "gateway_evaluation_verdicts",
        "How many figures of a metric have a verdict; of fairness, how many groups.",
        labels=("product", "section", "metric", "verdict"),
    )
    # What is told beside the gate (intersections of groups) is not counted with it.
    counts = Counter(
        (one["product"], section, one["metric"], one["verdict"])
        for section, entries in evaluation.items()
        if isinstance(entries, list)
        for one in entries
        if isinstance(one, dict) and one.get("verdict") and one.get("gates") is not False
    )
    for labels, count in sorted(counts.items()):
        family.add_metric(labels, count)
    return family
