"""The metrics of goals, from cells: each over the decisions that it is about. Pure.

Labels tell of payments that went through: approved ones, and step-ups that were not failed or
abandoned. What was declined has none; figures about it come in three forms (`support`).

    approval_rate         went through, of all
    fraud_loss            reported amounts of fraud that went through, in minor units
    fraud_loss_bps        the same of the turnover that went through, in basis points
    false_positive_rate   P(decline | genuine)
    insult_rate           genuine payments that were declined, of all payments
    value_detection_rate  amounts of fraud that were declined, of all amounts of fraud
    savings               1 - cost / the cheaper of approving and declining all (Bahnsen 2014)
    step_up_success_rate  passed, of step-ups whose end is known
    review_load           reviews an hour
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.evaluate.intervals import CONFIDENCE, Figure, quantile
from gateway.evaluate.measures import Floats, Measures
from gateway.evaluate.rates import (
    clusters_dof,
    linear_variance,
    pooled_design_effect,
    rate,
    ratio_of_sums,
)
from gateway.evaluate.sums import BUCKETS, Amounts, Counts, SupportSums
from gateway.evaluate.support import (
    Supported,
    Target,
    bounds,
    explored,
    model_implied,
)
from gateway.evaluate.terms import Prices, Terms

BPS = 1e4


@dataclass(frozen=True, slots=True)
class Told:
    """A metric's figure, and what it rests on."""

    basis: str
    figure: Figure
    unit: str = "share"


def approval_rate(sums: Measures, _: Terms) -> Iterator[Told]:
    """Yield the share that went through."""
    yield Told("all", share(sums["passed"], sums["n"]))


def fraud_loss(sums: Measures, terms: Terms) -> Iterator[Told]:
    """Yield reported amounts of fraud that went through, in major units: a total."""
    yield Told("mature", _total(sums["loss"] / terms.unit, sums["n"]), terms.product.costs.currency)


def fraud_loss_bps(sums: Measures, _: Terms) -> Iterator[Told]:
    """Yield the same of the turnover that went through."""
    amounts = Amounts(sums["loss"] * BPS, sums["passed_amount"])
    yield Told("mature", ratio_of_sums(amounts, cap=_cap(sums)), "bps")


def false_positive_rate(sums: Measures, _: Terms, *, calibrated: bool) -> Iterator[Told]:
    """Yield P(decline | genuine) in three forms."""
    for one in three_forms(sums.support, "false_positive_rate", calibrated=calibrated):
        yield Told(one.basis, one.figure)


def three_forms(
    sums: SupportSums, target: Target, *, calibrated: bool
) -> tuple[Supported, Supported, Supported]:
    """Return a figure about declines as explored, model-implied, and bounded."""
    return (
        explored(sums, target),
        model_implied(sums, target, calibrated=calibrated),
        bounds(sums, target),
    )


def insult_rate(sums: Measures, _: Terms, *, calibrated: bool) -> Iterator[Told]:
    """Yield genuine payments that were declined, of all payments, in three forms."""
    for one in three_forms(sums.support, "false_positive_share", calibrated=calibrated):
        yield Told(one.basis, _of_all(one.false_positives, sums.total("n")))


def value_detection_rate(sums: Measures, _: Terms, *, calibrated: bool) -> Iterator[Told]:
    """Yield amounts of fraud that were declined, of all amounts of fraud."""
    if not calibrated:
        yield Told("model_implied", _unsaid(sums, "not_calibrated"))
        return
    stopped = sums["declined_p_amount"]
    amounts = Amounts(stopped, stopped + sums["fraud_amount"])
    yield Told("model_implied", ratio_of_sums(amounts, cap=_cap(sums)))


def step_up_success_rate(sums: Measures, _: Terms) -> Iterator[Told]:
    """Yield the share that passed, of step-ups whose end is known."""
    yield Told("observed", share(sums["step_up_passed"], sums["step_up_known"]))


def review_load(sums: Measures, _: Terms, *, hours: float) -> Iterator[Told]:
    """Yield reviews an hour over so many hours."""
    if not hours:
        yield Told("all", _unsaid(sums, "no_observations"), "an hour")
        return
    yield Told("all", _total(sums["reviewed"] / hours, sums["n"]), "an hour")


def savings(costs: Costs | None, *, calibrated: bool) -> Iterator[Told]:
    """Yield what was saved of the cheaper of approving and of declining everything.

    Of what was declined the truth is the model's belief; of all else it is the label.
    """
    if costs is None or not calibrated:
        reason = "not_calibrated" if costs is not None else "no_observations"
        figure = Figure(None, None, None, 0.0, 0.0, reason=reason)  # type: ignore[arg-type]
        yield Told("model_implied", figure)
        return
    best = min((costs.approve_all, costs.decline_all), key=lambda one: float(one.sum()))
    yield Told("model_implied", _one_minus(costs.served, best, costs.n))


@dataclass(frozen=True, slots=True, eq=False)
class Costs:
    """What decisions cost by bucket, (B,), in minor units: as served, and answered otherwise."""

    served: Floats
    approve_all: Floats
    decline_all: Floats
    n: float


def costs_of(rows: Mapping[str, NDArray[Any]], terms: Terms) -> Costs | None:
    """Return the costs of a product's rows of `queries/costs.sql`.

    None where there are none, or an action was served that its product no longer has a price of.
    """
    place, actions = rows["class"].astype(np.int64), rows["action"].astype(str)
    if not len(actions) or not set(actions.tolist()) <= terms.prices.keys():
        return None
    bucket = rows["bucket"].astype(np.int64)

    def cost(prices: Prices, some: NDArray[np.bool_]) -> Floats:
        classes = place[some]
        genuine_n, fraud_n = (rows["n"] - rows["fraud"])[some], rows["fraud"][some]
        genuine_amount = (rows["amount"] - rows["fraud_amount"])[some]
        found = (
            prices.genuine[classes] * genuine_n
            + prices.genuine_share[classes] * genuine_amount
            + prices.fraud[classes] * fraud_n
            + prices.fraud_share[classes] * rows["fraud_amount"][some]
        )
        return np.bincount(bucket[some], weights=found, minlength=BUCKETS).astype(np.float64)

    everything = np.ones(len(bucket), np.bool_)
    served = np.zeros(BUCKETS)
    for action in np.unique(actions).tolist():
        served = served + cost(terms.prices[action], actions == action)
    return Costs(
        served,
        cost(terms.prices["approve"], everything),
        cost(terms.prices["decline"], everything),
        float(rows["n"].sum()),
    )


def share(events: Floats, trials: Floats) -> Figure:
    """Return a rate of counts by bucket."""
    counts = Counts(events, trials)
    return rate(counts, like=pooled_design_effect(Counts(events[None], trials[None])))


_PLAIN = {
    "approval_rate": approval_rate,
    "fraud_loss": fraud_loss,
    "fraud_loss_bps": fraud_loss_bps,
    "step_up_success_rate": step_up_success_rate,
}
_OF_BELIEF = {
    "false_positive_rate": false_positive_rate,
    "insult_rate": insult_rate,
    "value_detection_rate": value_detection_rate,
}
METRICS = (*_PLAIN, *_OF_BELIEF, "savings", "review_load")


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Decisions that a metric is told of. `calibrated`: the model's own belief may be shown."""

    terms: Terms
    sums: Measures
    costs: Costs | None
    hours: float
    calibrated: bool


def told(metric: str, sample: Sample) -> tuple[Told, ...]:
    """Return a metric's figures, the one that decides first."""
    if metric in _PLAIN:
        return tuple(_PLAIN[metric](sample.sums, sample.terms))
    if metric in _OF_BELIEF:
        make = _OF_BELIEF[metric]
        return tuple(make(sample.sums, sample.terms, calibrated=sample.calibrated))
    if metric == "savings":
        return tuple(savings(sample.costs, calibrated=sample.calibrated))
    return tuple(review_load(sample.sums, sample.terms, hours=sample.hours))


def _cap(sums: Measures) -> float | None:
    """Return the most that one fraud may be worth: ten mean payments, where none has come."""
    n = sums.total("passed")
    return 10.0 * BPS * sums.total("passed_amount") / n if n else None


def _of_all(figure: Figure, n: float) -> Figure:
    if not n:
        return Figure(None, None, None, n, 0.0, reason="no_observations")
    value, low, high = (
        None if end is None else end / n for end in (figure.value, figure.low, figure.high)
    )
    return Figure(value, low, high, n, figure.events, figure.design_effect, figure.reason)


def _total(sums: Floats, n: Floats) -> Figure:
    """Return a total of sums by bucket, with an interval by what differs between buckets."""
    total = float(sums.sum())
    dof = float(clusters_dof(n))
    if not dof > 0.0:
        return Figure(total, None, None, float(n.sum()), total, reason="one_cluster")
    error = float(np.sqrt(linear_variance(sums - total * n / n.sum())))
    reach = float(quantile(CONFIDENCE, dof)) * error
    return Figure(total, max(0.0, total - reach), total + reach, float(n.sum()), total)


def _one_minus(cost: Floats, best: Floats, n: float) -> Figure:
    """Return 1 - Σcost/Σbest, linearised between buckets."""
    worth = float(best.sum())
    if not worth > 0.0:
        return Figure(None, None, None, n, 0.0, reason="no_observations")
    ratio = float(cost.sum()) / worth
    dof = float(clusters_dof(np.abs(best)))
    if not dof > 0.0:
        return Figure(1.0 - ratio, None, None, n, 0.0, reason="one_cluster")
    error = float(np.sqrt(linear_variance((cost - ratio * best) / worth)))
    reach = float(quantile(CONFIDENCE, dof)) * error
    return Figure(1.0 - ratio, 1.0 - ratio - reach, 1.0 - ratio + reach, n, 0.0)


def _unsaid(sums: Measures, reason: str) -> Figure:
    return Figure(None, None, None, sums.total("n"), 0.0, reason=reason)  # type: ignore[arg-type]
