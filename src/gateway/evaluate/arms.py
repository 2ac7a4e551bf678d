"""What came to each arm of a hypothesis, by day and bucket of customers, as the engine counted it.

A day counts when every payment of it is mature; units are counted on the day that they came first.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta

import numpy as np

from gateway.evaluate.engine import Engine, Given
from gateway.evaluate.hypotheses import Declared, Observed, Pair
from gateway.evaluate.measures import NOTHING, Measures, masked
from gateway.evaluate.metrics import BPS
from gateway.evaluate.sequential import Side
from gateway.evaluate.view import View

_EPOCH = date(1970, 1, 1)
_UNITS = {"subject": "customer", "transaction": "key"}


def _approval_rate(sums: Measures) -> Side:
    return Side(sums["passed"], sums["n"], sums["passed"], sums["n"])


def _fraud_loss_bps(sums: Measures) -> Side:
    return Side(sums["loss"] * BPS, sums["passed_amount"], sums["fraud"], sums["passed"])


def _false_positive_rate(sums: Measures) -> Side:
    hidden = sums["explored_w_genuine"] - sums["explored_genuine"]
    genuine = hidden + sums["passed_genuine"] + sums["explored_genuine"]
    return Side(hidden, genuine, sums["explored_genuine"], sums["n"])


def _insult_rate(sums: Measures) -> Side:
    hidden = sums["explored_w_genuine"] - sums["explored_genuine"]
    return Side(hidden, sums["n"], sums["explored_genuine"], sums["n"])


def _step_up_success_rate(sums: Measures) -> Side:
    known, passed = sums["step_up_known"], sums["step_up_passed"]
    return Side(passed, known, passed, known)


SIDES: dict[str, Callable[[Measures], Side]] = {
    "approval_rate": _approval_rate,
    "fraud_loss_bps": _fraud_loss_bps,
    "false_positive_rate": _false_positive_rate,
    "insult_rate": _insult_rate,
    "step_up_success_rate": _step_up_success_rate,
}
"""Metrics that arms are compared by: ratios of sums that labels tell of. What was declined shows
by exploration."""


def incomparable(declared: Declared) -> tuple[str, ...]:
    """Return the metrics of a hypothesis that arms cannot be compared by."""
    metrics = (declared.metric, *(one.metric for one in declared.guardrails))
    return tuple(metric for metric in metrics if metric not in SIDES)


def observed(
    view: View, declared: Declared, unit: str, first: date, last: date, last_mature: date
) -> Observed:
    """Return what came from the first day on: of mature days, and units of all days to the last.

    Behind its greatest number of days an experiment is over: who is drawn then is none of it.
    """
    last = min(last, first + timedelta(days=declared.max_days - 1))
    mature = max(0, min((last_mature - first).days + 1, (last - first).days + 1))
    days = [first + timedelta(days=place) for place in range(mature)]
    sums = view.sums((first, days[-1]), "day_and_arm") if days else {}

    def pair(metric: str) -> Pair:
        control, tried = (
            _stacked([sums.get(f"{day} {arm}", NOTHING) for day in days], metric)
            for arm in declared.arms
        )
        return Pair(tried, control)

    return Observed(
        pair(declared.metric),
        tuple(pair(one.metric) for one in declared.guardrails),
        _drawn(view.engine, view.terms.name, declared, unit, first, last),
    )


def _stacked(days: list[Measures], metric: str) -> Side:
    sides = [SIDES[metric](one) for one in days]
    empty = SIDES[metric](NOTHING)
    return Side(
        *(
            np.array([side[i] for side in sides]).reshape(-1, len(empty[i]))
            for i in range(len(empty))
        )
    )


def _drawn(
    engine: Engine, product: str, declared: Declared, unit: str, first: date, last: date
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    drawn = np.zeros((max(0, (last - first).days + 1), 2))
    ends = {"first": (first - _EPOCH).days, "last": (last - _EPOCH).days}
    given = Given({"product": product, **ends}, {"unit": _UNITS[unit]})
    rows = engine.rows("drawn", given)
    place = (rows["day"].astype("datetime64[D]") - np.datetime64(first, "D")).astype(int)
    arms = masked(rows["arm"], "").astype(str)
    for i, arm in enumerate(declared.arms):
        drawn[place[arms == arm], i] += rows["n"][arms == arm]
    return drawn
