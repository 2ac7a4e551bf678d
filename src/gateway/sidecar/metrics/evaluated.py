"""The last evaluation as gauges: goals and promises with their intervals, counts of verdicts, and
hypotheses that run.

No group of customers has a series: of fairness it is told how many are in breach, and what a figure
is a part of (`by`) is never looked at. Figures of parts are for who reads the evaluation itself.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.errors import LakeError
from gateway.sidecar.lake.evaluations import as_of_of

Labels = tuple[str, ...]
Pairs = list[tuple[Labels, float]]

FIGURE = ("product", "kind", "metric", "basis", "unit", "bound")
BUDGET = ("product", "promise")
VERDICT = ("product", "section", "metric", "verdict")
BOUNDS = ("value", "low", "high")

HYPOTHESIS = ("product", "hypothesis")
JUDGED = (*HYPOTHESIS, "verdict", "because")
IMPACT = (*HYPOTHESIS, "metric", "unit", "bound")
INTENDED = (*HYPOTHESIS, "metric", "unit")


@dataclass(frozen=True, slots=True)
class Told:
    """What gauges say of an evaluation: values by their labels, in the order of `FIGURE`,
    `BUDGET`, `VERDICT`, `JUDGED`, `HYPOTHESIS`, `IMPACT` and `INTENDED`."""

    as_of_s: float
    figures: Mapping[Labels, float]
    budgets: Mapping[Labels, float]
    verdicts: Mapping[Labels, int]
    judged: Mapping[Labels, float]
    days: Mapping[Labels, float]
    impacts: Mapping[Labels, float]
    intended: Mapping[Labels, float]


def told(evaluation: Mapping[str, Any]) -> Told:
    """Return what gauges say of an evaluation, as `gateway evaluate --json` prints it.

    Raises:
        LakeError: it is not laid out as one.
    """
    as_of_s = as_of_of(evaluation).timestamp()
    try:
        goals = evaluation["goals"]
        # Of what was stopped the lake tells: an alarm about it would never end.
        running = [one for one in evaluation.get("hypotheses", ()) if not one.get("stopped")]
        return Told(
            as_of_s,
            dict(_figures(goals)),
            dict(_budgets(goals)),
            _verdicts(evaluation),
            *map(dict, _hypotheses(running)),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise LakeError(
            f"is not laid out as an evaluation ({type(error).__name__})",
            subject="the evaluation",
            hint="Is it from another version? Evaluate again: gateway evaluate --lake DIR --keep.",
        ) from None


def _figures(goals: Any) -> Iterator[tuple[Labels, float]]:
    for one in goals:
        low, high = one["interval"]
        which = tuple(str(one[name]) for name in FIGURE[:-1])
        for bound, value in zip(BOUNDS, (one["value"], low, high), strict=True):
            if value is not None:
                yield (*which, bound), float(value)


def _budgets(goals: Any) -> Iterator[tuple[Labels, float]]:
    for one in goals:
        left = (one.get("budget") or {}).get("share_left")
        if left is not None:
            yield (str(one["product"]), str(one["metric"])), float(left)


def _hypotheses(running: Any) -> tuple[Pairs, Pairs, Pairs, Pairs]:
    """Return the values of `judged`, `days`, `impacts` and `intended`."""
    judged: Pairs = []
    days: Pairs = []
    impacts: Pairs = []
    intended: Pairs = []
    for one in running:
        which = (str(one["product"]), str(one["id"]))
        if one.get("error"):
            judged.append(((*which, "error", "not_judged"), 1.0))
            continue
        judged.append(((*which, str(one["verdict"]), str(one["because"])), 1.0))
        days.append((which, float(one["day"])))
        impact, of = one["impact"], (*which, str(one["metric"]), str(one["unit"]))
        intended.append((of, float(impact["intended"])))
        low, high = impact["interval"]
        for bound, value in zip(BOUNDS, (impact["actual"], low, high), strict=True):
            if value is not None:
                impacts.append(((*of, bound), float(value)))
    return judged, days, impacts, intended


def _verdicts(evaluation: Mapping[str, Any]) -> Mapping[Labels, int]:
    # What is told beside the gate (intersections of groups) is not counted with it.
    return Counter(
        (str(one["product"]), section, str(one["metric"]), str(one["verdict"]))
        for section, entries in evaluation.items()
        if isinstance(entries, list) and section != "hypotheses"
        for one in entries
        if isinstance(one, dict) and one.get("verdict") and one.get("gates") is not False
    )


class Evaluated(Collector):
    """Shows the evaluation that it was given last, its age, and how the last attempt went.

    One thread tells it, another one asks. `every_s`: how often there is to be one.
    """

    def __init__(self, every_s: float, wall_s: Callable[[], float] = time.time) -> None:
        self._every_s = every_s
        self._wall_s = wall_s
        self._lock = threading.Lock()
        self._told: Told | None = None
        self._evaluation: Mapping[str, Any] | None = None
        self._took_s: float | None = None
        self._has_failed = False

    def take(self, evaluation: Mapping[str, Any], took_s: float | None = None) -> None:
        """Show an evaluation. `took_s`: how long it took; None: one that was kept is read back.

        Raises:
            LakeError: it is not laid out as one; what was shown stays.
        """
        found = told(evaluation)
        with self._lock:
            self._told, self._has_failed = found, False
            self._evaluation = evaluation
            self._took_s = self._took_s if took_s is None else took_s

    def last(self) -> tuple[Mapping[str, Any], float, bool] | None:
        """Return the evaluation, its age in seconds, and whether an attempt since then failed."""
        with self._lock:
            told, evaluation, has_failed = self._told, self._evaluation, self._has_failed
        if told is None or evaluation is None:
            return None
        return evaluation, max(0.0, self._wall_s() - told.as_of_s), has_failed

    def fail(self) -> None:
        """Show that the last attempt came to nothing; the last evaluation stands."""
        with self._lock:
            self._has_failed = True

    def collect(self) -> Iterator[Metric]:
        """Yield every family; what is not known yet has no sample."""
        with self._lock:
            shown, took_s, has_failed = self._told, self._took_s, self._has_failed
        yield _family(
            "gateway_evaluation_figure",
            "Goals and promises as evaluated last: the figure, and the ends of its 95 % interval.",
            FIGURE,
            shown.figures if shown else {},
        )
        yield _family(
            "gateway_error_budget_left_ratio",
            "Of what a promise allows to go wrong in its window, the share that is left; below 0 "
            "where more went wrong.",
            BUDGET,
            shown.budgets if shown else {},
        )
        yield _family(
            "gateway_evaluation_verdicts",
            "How many figures of a metric have a verdict; of fairness, how many groups.",
            VERDICT,
            shown.verdicts if shown else {},
        )
        yield _family(
            "gateway_hypothesis_verdict",
            "1 for what is said of a hypothesis that runs, and why; `error` where its record is "
            "damaged, or nothing can be said.",
            JUDGED,
            shown.judged if shown else {},
        )
        yield _family(
            "gateway_hypothesis_day",
            "The mature day of a hypothesis on which its verdict fell; the last one while it runs.",
            HYPOTHESIS,
            shown.days if shown else {},
        )
        yield _family(
            "gateway_hypothesis_impact",
            "What came of a hypothesis: its metric's change from arm to arm, with the ends of an "
            "interval that holds at any look.",
            IMPACT,
            shown.impacts if shown else {},
        )
        yield _family(
            "gateway_hypothesis_intended",
            "The least change that matters, as it was declared before.",
            INTENDED,
            shown.intended if shown else {},
        )
        age_s = None if shown is None else max(0.0, self._wall_s() - shown.as_of_s)
        for name, says, value in (
            ("age_seconds", "How long ago the products were evaluated.", age_s),
            ("duration_seconds", "How long the last evaluation took.", took_s),
            ("interval_seconds", "How often there is to be one.", self._every_s),
            ("failed", "Whether the last attempt came to nothing.", float(has_failed)),
        ):
            values: dict[Labels, float] = {} if value is None else {(): value}
            yield _family(f"gateway_evaluation_{name}", says, (), values)


def _family(
    name: str, says: str, labels: Labels, values: Mapping[Labels, float]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, says, labels=labels)
    for which, value in sorted(values.items()):
        family.add_metric(which, value)
    return family
