"""Whether probabilities hold: over all, by part, and by the probability that was given."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gateway.evaluate.engine import Days
from gateway.evaluate.entry import Entry
from gateway.evaluate.intervals import Figure
from gateway.evaluate.measures import Measures
from gateway.evaluate.metrics import Sample, Told
from gateway.evaluate.rates import rate, ratio_of_sums
from gateway.evaluate.sums import Amounts, Counts
from gateway.evaluate.terms import named_bin
from gateway.evaluate.view import View, by_bucket, of_product

OVER_EXPECTED = (0.8, 1.25)
"""Frauds that came over frauds expected: within it, probabilities hold."""


def over_expected(sums: Measures) -> Figure:
    """Return frauds that came over frauds that the model expected, of what it let through."""
    return ratio_of_sums(Amounts(sums["observed"], sums["expected"]), cap=1.0)


def holds(one: Figure) -> bool:
    """Return whether frauds over expected frauds lie within OVER_EXPECTED for sure."""
    low, high = OVER_EXPECTED
    return one.low is not None and one.high is not None and low <= one.low and one.high <= high


def strays(sums: Measures) -> bool:
    """Return whether frauds over expected frauds lie outside OVER_EXPECTED for sure."""
    one = over_expected(sums)
    low, high = OVER_EXPECTED
    return (one.low is not None and one.low > high) or (one.high is not None and one.high < low)


def calibration(view: View, mature: Sample) -> Iterator[Entry]:
    """Yield observed over expected: over all, by part, and by probability."""
    yield _held(view, mature.sums, view.mature, {})
    for days, by, sums in view.parts:
        yield _held(view, sums, days, by)
    yield from reliability(view)


def _held(view: View, sums: Measures, days: Days, by: dict[str, str]) -> Entry:
    one = over_expected(sums)
    low, high = OVER_EXPECTED
    return view.entry(
        "observed_over_expected",
        Told("mature", one, "ratio"),
        days,
        "Frauds that came over frauds that were expected: above 1 the model believes too little.",
        by=by,
        target=f"{low:g} to {high:g}",
        verdict="pass" if holds(one) else "breach" if strays(sums) else "undecided",
    )


def reliability(view: View) -> Iterator[Entry]:
    """Yield the share of fraud by the probability that was given."""
    rows = of_product(view.engine.read("bins_between", view.mature), view.terms.name)
    place = rows["bin"].astype(np.int64)
    for one in np.unique(place).tolist():
        here = place == one
        bucket = rows["bucket"][here].astype(np.int64)
        fraud, n, p = (by_bucket(bucket, rows[name][here]) for name in ("fraud", "n", "p"))
        yield view.entry(
            "fraud_rate_at_probability",
            Told("mature", rate(Counts(fraud, n), like=1.0)),
            view.mature,
            "Of payments that were given this probability, the share that was fraud.",
            by={"probability": named_bin(one)},
            more={"expected": float(p.sum() / n.sum())},
        )
