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

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.evaluate.cells import Cells, Floats
from gateway.evaluate.intervals import Figure, quantile
from gateway.evaluate.rates import (
    clusters_dof,
    linear_variance,
    pooled_design_effect,
    rate,
    ratio_of_sums,
)
from gateway.evaluate.sums import Amounts, Counts, SupportSums
from gateway.evaluate.support import (
    Supported,
    SupportedRatio,
    Target,
    bounds,
    explored,
    model_implied,
    supported_ratio,
)
from gateway.evaluate.terms import Terms

BPS = 1e4

_STOPPED = ("step_up_failed", "step_up_abandoned")


@dataclass(frozen=True, slots=True)
class Told:
    """A metric's figure, and what it rests on."""

    basis: str
    figure: Figure
    unit: str = "share"


def passed(cells: Cells) -> NDArray[np.bool_]:
    """Say which cells went through, so that labels tell of them."""
    stopped = np.isin(cells["step_up"], _STOPPED)
    caught = (cells["action"] == "review") & (cells["kind"] == "analyst_fraud")
    through: NDArray[np.bool_] = (cells["action"] != "decline") & ~stopped & ~caught
    return through


def support_sums(cells: Cells) -> SupportSums:
    """Return what tells of declines, by bucket, of mature cells."""
    through, fraud = passed(cells), cells["fraud"]
    let = cells["explored"]
    plain = through & ~let
    declined = cells["action"] == "decline"
    reached = declined & cells["reached"]
    unreached = declined & ~cells["reached"]
    return SupportSums(
        passed_genuine=cells.sum(where=plain & ~fraud),
        passed_fraud=cells.sum(where=plain & fraud),
        passed_p=cells.sum("p", plain),
        explored_genuine=cells.sum(where=let & ~fraud),
        explored_fraud=cells.sum(where=let & fraud),
        explored_p=cells.sum("p", let),
        explored_w_genuine=cells.sum("w", let & ~fraud),
        explored_w_fraud=cells.sum("w", let & fraud),
        explored_w_p=cells.sum("w_p", let),
        explored_w2=cells.sum("w2", let),
        declined_n=cells.sum(where=reached),
        declined_p=cells.sum("p", reached),
        unreached_n=cells.sum(where=unreached),
        unreached_p=cells.sum("p", unreached),
    )


def approval_rate(cells: Cells, _: Terms) -> Iterator[Told]:
    """Yield the share that went through."""
    counts = Counts(cells.sum(where=passed(cells)), cells.sum())
    yield Told("all", rate(counts, like=_like(counts)))


def fraud_loss(cells: Cells, terms: Terms) -> Iterator[Told]:
    """Yield reported amounts of fraud that went through, in major units: a total."""
    lost = cells.sum("loss_minor", passed(cells) & cells["fraud"]) / terms.unit
    yield Told("mature", _total(lost, cells.sum()), terms.product.costs.currency)


def fraud_loss_bps(cells: Cells, _: Terms) -> Iterator[Told]:
    """Yield the same of the turnover that went through."""
    through = passed(cells)
    lost = cells.sum("loss_minor", through & cells["fraud"]) * BPS
    amounts = Amounts(lost, cells.sum("amount_minor", through))
    yield Told("mature", ratio_of_sums(amounts, cap=_cap(cells, through)), "bps")


def false_positive_rate(cells: Cells, _: Terms, *, calibrated: bool) -> Iterator[Told]:
    """Yield P(decline | genuine) in three forms."""
    for one in three_forms(support_sums(cells), calibrated=calibrated):
        yield Told(one.basis, one.figure)


def three_forms(sums: SupportSums, *, calibrated: bool) -> tuple[Supported, ...]:
    """Return P(decline | genuine) as explored, model-implied, and bounded."""
    target: Target = "false_positive_rate"
    return (
        explored(sums, target),
        model_implied(sums, target, calibrated=calibrated),
        bounds(sums, target),
    )


def false_positive_ratio(
    one: Cells, other: Cells, basis: str, *, calibrated: bool
) -> SupportedRatio:
    """Return a group's P(decline | genuine) over another's, in one of the three forms."""
    forms = [three_forms(support_sums(cells), calibrated=calibrated) for cells in (one, other)]
    mine, theirs = (next(form for form in three if form.basis == basis) for three in forms)
    return supported_ratio(mine, theirs)


def insult_rate(cells: Cells, _: Terms, *, calibrated: bool) -> Iterator[Told]:
    """Yield genuine payments that were declined, of all payments, in three forms."""
    sums, n = support_sums(cells), float(cells.sum().sum())
    target: Target = "false_positive_share"
    for one in (
        explored(sums, target),
        model_implied(sums, target, calibrated=calibrated),
        bounds(sums, target),
    ):
        yield Told(one.basis, _of_all(one.false_positives, n))


def value_detection_rate(cells: Cells, _: Terms, *, calibrated: bool) -> Iterator[Told]:
    """Yield amounts of fraud that were declined, of all amounts of fraud."""
    through, fraud = passed(cells), cells["fraud"]
    missed = cells.sum("amount_minor", through & fraud)
    if calibrated:
        stopped = cells.sum("p_amount_minor", cells["action"] == "decline")
        yield Told("model_implied", ratio_of_sums(Amounts(stopped, stopped + missed), cap=None))
    else:
        yield Told("model_implied", _unsaid(cells, "not_calibrated"))


def savings(cells: Cells, terms: Terms, *, calibrated: bool) -> Iterator[Told]:
    """Yield what was saved of the cheaper of approving and of declining everything.

    Of what was declined the truth is the model's belief; of all else it is the label.
    """
    if not calibrated:
        yield Told("model_implied", _unsaid(cells, "not_calibrated"))
        return
    served = costs(cells, terms, None)
    everything = [costs(cells, terms, action) for action in ("approve", "decline")]
    best = min(everything, key=lambda one: float(one.sum()))
    yield Told("model_implied", _one_minus(served, best))


def step_up_success_rate(cells: Cells, _: Terms) -> Iterator[Told]:
    """Yield the share that passed, of step-ups whose end is known."""
    known = (cells["action"] == "step_up") & (cells["step_up"] != "")
    succeeded = known & (cells["step_up"] == "step_up_passed")
    counts = Counts(cells.sum(where=succeeded), cells.sum(where=known))
    yield Told("observed", rate(counts, like=_like(counts)))


def review_load(cells: Cells, _: Terms) -> Iterator[Told]:
    """Yield reviews an hour over the days."""
    days = cells.days
    hours = 24.0 * ((days[1] - days[0]).days + 1) if days else 0.0
    reviews = cells.sum(where=cells["action"] == "review")
    if not hours:
        yield Told("all", _unsaid(cells, "no_observations"), "an hour")
        return
    yield Told("all", _total(reviews / hours, cells.sum()), "an hour")


def costs(cells: Cells, terms: Terms, action: str | None) -> Floats:
    """Return what decisions cost by bucket, (B,), as served or had all been answered by `action`.

    In minor units. The truth is the label's where there is one, and the model's belief where the
    payment was declined: then fraud counts by p.
    """
    classes = cells["class"]
    n, amount = cells["n"], cells["amount_minor"]
    hidden = cells["action"] == "decline"
    fraud_n = np.where(hidden, cells["p"], np.where(cells["fraud"], n, 0.0))
    fraud_amount = np.where(hidden, cells["p_amount_minor"], np.where(cells["fraud"], amount, 0.0))
    total = np.zeros(len(cells))
    for name in cells.values("action") if action is None else (action,):
        prices = terms.prices.get(name)
        if prices is None:
            continue
        here = cells["action"] == name if action is None else np.ones(len(cells), np.bool_)
        cost = (
            prices.genuine[classes] * (n - fraud_n)
            + prices.genuine_share[classes] * (amount - fraud_amount)
            + prices.fraud[classes] * fraud_n
            + prices.fraud_share[classes] * fraud_amount
        )
        total = np.where(here, cost, total)
    return cells.sum(total)


METRICS: dict[str, Callable[..., Iterator[Told]]] = {
    "approval_rate": approval_rate,
    "fraud_loss": fraud_loss,
    "fraud_loss_bps": fraud_loss_bps,
    "false_positive_rate": false_positive_rate,
    "insult_rate": insult_rate,
    "value_detection_rate": value_detection_rate,
    "savings": savings,
    "step_up_success_rate": step_up_success_rate,
    "review_load": review_load,
}

OF_CALIBRATION = ("false_positive_rate", "insult_rate", "value_detection_rate", "savings")
"""Metrics that may rest on the model's own belief, and want to know whether that holds."""


def told(metric: str, cells: Cells, terms: Terms, *, calibrated: bool) -> tuple[Told, ...]:
    """Return a metric's figures over cells, the one that decides first."""
    if metric in OF_CALIBRATION:
        return tuple(METRICS[metric](cells, terms, calibrated=calibrated))
    return tuple(METRICS[metric](cells, terms))


def _like(counts: Counts) -> float:
    return pooled_design_effect(Counts(counts.k[None], counts.n[None]))


def _cap(cells: Cells, where: NDArray[np.bool_]) -> float | None:
    """Return the most that one fraud may be worth: ten mean payments, where none has come."""
    n = float(cells.sum(where=where).sum())
    return 10.0 * BPS * float(cells.sum("amount_minor", where).sum()) / n if n else None


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
    share = n / n.sum()
    error = float(np.sqrt(linear_variance(sums - total * share)))
    reach = quantile(0.95, dof) * error
    return Figure(total, max(0.0, total - reach), total + reach, float(n.sum()), total)


def _one_minus(cost: Floats, best: Floats) -> Figure:
    """Return 1 - Σcost/Σbest, linearised between buckets."""
    n, worth = float(np.count_nonzero(best)), float(best.sum())
    if not worth > 0.0:
        return Figure(None, None, None, n, 0.0, reason="no_observations")
    ratio = float(cost.sum()) / worth
    dof = float(clusters_dof(np.abs(best)))
    if not dof > 0.0:
        return Figure(1.0 - ratio, None, None, n, 0.0, reason="one_cluster")
    error = float(np.sqrt(linear_variance((cost - ratio * best) / worth)))
    reach = quantile(0.95, dof) * error
    return Figure(1.0 - ratio, 1.0 - ratio - reach, 1.0 - ratio + reach, n, 0.0)


def _unsaid(cells: Cells, reason: str) -> Figure:
    return Figure(None, None, None, float(cells.sum().sum()), 0.0, reason=reason)  # type: ignore[arg-type]
