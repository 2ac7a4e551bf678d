"""Probabilities where it matters: near the thresholds, and what it costs that they do not hold.

Everything else is sums; this is told of payments one by one, of a sample where they are many.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.evaluate.calibration import crossings, excess_cost, near, observed_over_expected
from gateway.evaluate.engine import Given
from gateway.evaluate.entry import Entry
from gateway.evaluate.intervals import Estimate, Figure
from gateway.evaluate.measures import Columns
from gateway.evaluate.metrics import Told
from gateway.evaluate.terms import Terms
from gateway.evaluate.view import View

Floats = NDArray[np.float64]

PAYMENTS = 100_000
"""So many of a product are looked at one by one."""

LEAST_FRAUDS = 10
"""Of fewer nothing is said in money."""


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """Payments that went through, (n,), and what their actions cost, (n, k): alpha + beta·p.

    In minor units. `cluster`: the customer, as a number.
    """

    p: Floats
    y: Floats
    cluster: NDArray[np.int64]
    place: NDArray[np.int64]
    alphas: Floats
    betas: Floats


def where_it_matters(view: View, as_of: datetime, count: float) -> Iterator[Entry]:
    """Yield frauds over expected near the thresholds, and what it costs that they do not agree.

    `count`: how many payments went through by the model in the view's mature days.

    Raises:
        LakeError: a file cannot be read.
    """
    some = _labelled(view, as_of, count)
    if not len(some.p):
        return
    at = near(some.p, crossings(some.alphas, some.betas))
    yield _near(view, some, at, {})
    for number, name in enumerate(view.terms.classes):
        here = at & (some.place == number)
        if here.any():
            yield _near(view, some, here, {"category": name})
    yield _cost(view, some, count)


def _near(view: View, some: Labelled, at: NDArray[np.bool_], by: dict[str, str]) -> Entry:
    ratio = observed_over_expected(some.p[at], some.y[at], cluster=some.cluster[at])
    return view.entry(
        "observed_over_expected_near_thresholds",
        Told("mature", _figure(ratio, some.p[at].sum(), some.y[at].sum()), "ratio"),
        view.mature,
        "Frauds that came over frauds that were expected, of payments within half and twice a "
        "probability at which another action becomes the cheapest: there an error flips decisions.",
        by=by,
        more={"payments": int(at.sum())},
    )


def _cost(view: View, some: Labelled, count: float) -> Entry:
    """Told over all payments that the sample stands for, in major units."""
    frauds = float(some.y.sum())
    figure = Figure(None, None, None, count, frauds, reason="no_events")
    if frauds >= LEAST_FRAUDS:
        each = excess_cost(some.p, some.y, some.alphas, some.betas, some.cluster)
        figure = _figure(Estimate(*(one * count / view.terms.unit for one in each)), count, frauds)
    return view.entry(
        "miscalibration_cost",
        Told("mature", figure, view.terms.product.costs.currency),
        view.mature,
        "What acting on the model's probabilities cost, of payments that went through, over what "
        "acting on probabilities put right by the other payments' labels would have; below 0, or "
        "around it, there is nothing to put right.",
        more={"payments": len(some.p)},
    )


def _labelled(view: View, as_of: datetime, count: float) -> Labelled:
    first, last = view.mature
    given = {
        "product": view.terms.name,
        "first": first,
        "last": last,
        "as_of": as_of,
        "share": min(1.0, PAYMENTS / count) if count else 1.0,
    }
    rows = _as_they_came(view.engine.rows("labelled", Given(given, {})))
    amount = rows["amount_minor"].astype(np.float64)
    place = rows["class"].astype(np.int64)
    alphas, betas = _lines(view.terms, place, amount)
    return Labelled(
        rows["p"].astype(np.float64),
        rows["fraud"].astype(np.float64),
        _clusters(rows["customer"]),
        place,
        alphas,
        betas,
    )


def _as_they_came(rows: Columns) -> Columns:
    """Return rows in one order, whatever engine gave them."""
    by = ("fraud", "amount_minor", "p", "pack", "received_us")
    order = np.lexsort([np.ma.getdata(rows[name]) for name in by])
    return {name: column[order] for name, column in rows.items()}


def _clusters(customer: NDArray[Any]) -> NDArray[np.int64]:
    """Return customers as numbers, in the order of their first payments: what an engine calls them
    is its own. Who has none is alone."""
    ids, first, place = np.unique(np.ma.getdata(customer), return_index=True, return_inverse=True)
    number = np.empty(len(ids), np.int64)
    number[np.argsort(first)] = np.arange(len(ids))
    known = number[place]
    alone = np.ma.getmaskarray(customer)
    known[alone] = -1 - np.arange(int(alone.sum()))
    return known


def _lines(terms: Terms, place: NDArray[np.int64], amount: Floats) -> tuple[Floats, Floats]:
    """Return what each action of the product costs each payment: alpha and beta, (n, k)."""
    alphas, betas = [], []
    for action in terms.product.actions:
        one = terms.prices[action.name.lower()]
        genuine = one.genuine[place] + one.genuine_share[place] * amount
        alphas.append(genuine)
        betas.append(one.fraud[place] + one.fraud_share[place] * amount - genuine)
    return np.column_stack(alphas), np.column_stack(betas)


def _figure(one: Estimate, n: float, events: float) -> Figure:
    if not all(isfinite(value) for value in one):
        return Figure(None, None, None, float(n), float(events), reason="no_observations")
    return Figure(float(one.value), float(one.low), float(one.high), float(n), float(events))
