"""One evaluation: from cells to figures with verdicts, section by section. Pure.

goals        promises with their error budgets, and targets of the owners
money        what fraud and its prevention cost, by part of the traffic and over time
calibration  whether probabilities hold, by part, and near the thresholds
fairness     groups of customers against a reference
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.evaluate import metrics
from gateway.evaluate.cells import Cells
from gateway.evaluate.delay import Completed, completed, curve
from gateway.evaluate.entry import SCHEMA, Entry
from gateway.evaluate.intervals import Figure
from gateway.evaluate.metrics import METRICS, Told, passed, told
from gateway.evaluate.rates import pooled_design_effect, rate, rate_ratio, ratio_of_sums
from gateway.evaluate.sums import BUCKETS, Amounts, Cohorts, Counts, Reports
from gateway.evaluate.terms import Terms
from gateway.evaluate.verdicts import amount_budget, budget, parities, target

WINDOW = timedelta(days=90)
"""Goals are held to the mature decisions of so many days."""

OVER_EXPECTED = (0.8, 1.25)
"""Frauds that came over frauds expected: within it, probabilities hold."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What is known of products at a time. Sections by name, entries in their order."""

    as_of: datetime
    products: tuple[str, ...]
    labels: tuple[Mapping[str, Any], ...]
    sections: Mapping[str, tuple[Entry, ...]]

    def as_object(self) -> dict[str, Any]:
        """Return what JSON shows."""
        return {
            "schema": SCHEMA,
            "as_of": self.as_of.isoformat(),
            "products": list(self.products),
            "labels": [dict(one) for one in self.labels],
            **{name: [one.as_object() for one in some] for name, some in self.sections.items()},
        }


def evaluated(terms: Sequence[Terms], cells: Cells, groups: Cells, as_of: datetime) -> Evaluation:
    """Return the evaluation of products from the cells of all of them."""
    sections: dict[str, list[Entry]] = {
        name: [] for name in ("goals", "money", "calibration", "fairness")
    }
    labels = []
    for one in terms:
        ours = cells.where(cells["product"] == one.name)
        theirs = groups.where(groups["product"] == one.name)
        view = View(one, ours, as_of)
        holds = calibrated(view)
        sections["goals"] += [*promises(view), *goals(view, holds=holds)]
        sections["money"] += money(view, holds=holds)
        sections["calibration"] += calibration(view)
        sections["fairness"] += fairness(view, theirs, holds=holds)
        labels.append(coverage(view))
    return Evaluation(
        as_of,
        tuple(one.name for one in terms),
        tuple(labels),
        {name: tuple(entries) for name, entries in sections.items()},
    )


@dataclass(frozen=True, slots=True)
class View:
    """A product's cells as of a time."""

    terms: Terms
    cells: Cells
    as_of: datetime

    @property
    def today(self) -> np.datetime64:
        """The day of `as_of`, UTC."""
        return np.datetime64(self.as_of.astimezone(UTC).date(), "D")

    def last(self, window: timedelta) -> Cells:
        """Return the cells of the days that end now."""
        return self._between(self.today - np.timedelta64(window.days - 1, "D"), self.today)

    def mature(self, window: timedelta | None = WINDOW) -> Cells:
        """Return the cells of days whose every payment is mature, the last of a window's days."""
        until = self.today - np.timedelta64(self.terms.maturity.days + 1, "D")
        first = (
            np.datetime64("0001-01-01", "D")
            if window is None
            else until - np.timedelta64(window.days - 1, "D")
        )
        return self._between(first, until)

    def entry(self, metric: str, one: Told, cells: Cells, says: str, **more: Any) -> Entry:
        """Return a figure over cells as an entry."""
        return Entry(
            self.terms.name, metric, one.basis, one.figure, cells.days, says, unit=one.unit, **more
        )

    def _between(self, first: np.datetime64, last: np.datetime64) -> Cells:
        day = self.cells["day"]
        return self.cells.where((day >= first) & (day <= last))


def coverage(view: View) -> dict[str, Any]:
    """Return what labels there are, by state of the payment."""
    cells = view.cells
    until = view.today - np.timedelta64(view.terms.maturity.days + 1, "D")
    is_mature = cells["day"] <= until
    known = cells["kind"] != ""
    through = passed(cells)

    def count(where: NDArray[np.bool_]) -> int:
        return int(cells.sum(where=where).sum())

    return {
        "product": view.terms.name,
        "maturity_days": view.terms.maturity.days,
        "decisions": count(np.ones(len(cells), np.bool_)),
        "without_label_for_ever": count(cells["action"] == "decline"),
        "pending": count(through & ~is_mature & ~known & ~cells["reversed"]),
        "provisional": count(through & ~is_mature & known),
        "reversed": count(cells["reversed"]),
        "mature": count(through & is_mature & ~cells["reversed"]),
    }


def promises(view: View) -> Iterator[Entry]:
    """Yield each promise: its SLI, held to its objective, with what is left of its error budget."""
    for promise in view.terms.product.promises:
        cells = view.last(promise.window)
        if promise.sli == "customer_loss":
            yield _customer_loss(view, promise.id, promise.says, promise.objective, cells)
            continue
        counts = _sli(promise.sli, cells)
        figure = rate(counts, like=pooled_design_effect(Counts(counts.k[None], counts.n[None])))
        verdict = target(figure, at_least=promise.objective)
        left = budget(float(counts.k.sum()), float(counts.n.sum()), promise.objective)
        yield view.entry(
            promise.id,
            Told("all", figure),
            cells,
            promise.says,
            target=f"at least {promise.objective:g}",
            verdict=verdict.says,
            because=verdict.because,
            more={"kind": "promise", "sli": promise.sli, "budget": left._asdict()},
        )


def _sli(sli: str, cells: Cells) -> Counts:
    if sli == "decided_within_budget":
        good = cells.sum("in_time")
        return Counts(good, good + cells.sum("late"))
    if sli == "scored_in_path":
        return Counts(cells.sum(where=~cells["stood_in"]), cells.sum())
    asked = cells["action"] == "step_up"
    return Counts(cells.sum("contacted_in_time", asked), cells.sum(where=asked))


def _customer_loss(view: View, name: str, says: str, objective: float, cells: Cells) -> Entry:
    where = cells["fraud"] & (cells["liable"] == "customer")
    lost = float(cells.sum("loss_minor", where).sum()) / view.terms.unit
    n, events = float(cells.sum().sum()), float(cells.sum(where=where).sum())
    left = amount_budget(lost, objective)
    kept = "met" if left.kept else "missed"
    figure = Figure(lost, lost, None, n, events, reason="too_young")
    return view.entry(
        name,
        Told("observed", figure, view.terms.product.costs.currency),
        cells,
        says,
        target=f"at most {objective:g}",
        verdict=kept if not left.kept or n else "undecided",
        because="interval_outside" if not left.kept else "too_young",
        more={"kind": "promise", "sli": "customer_loss", "budget": left._asdict()},
    )


def goals(view: View, *, holds: bool) -> Iterator[Entry]:
    """Yield each goal, over mature decisions; the same as observed so far and completed beside."""
    mature = view.mature()
    for goal in view.terms.product.goals:
        wanted = (
            {"at_most": goal.at_most} if goal.at_most is not None else {"at_least": goal.at_least}
        )
        side, limit = next(iter(wanted.items()))
        for i, one in enumerate(told(goal.metric, mature, view.terms, calibrated=holds)):
            judged = target(one.figure, **wanted) if i == 0 else None
            yield view.entry(
                goal.metric,
                one,
                mature,
                SAYS[goal.metric],
                target=f"{side.replace('_', ' ')} {limit:g}",
                verdict=judged.says if judged else "",
                because=judged.because if judged else "",
                more={"kind": "goal"},
            )


def money(view: View, *, holds: bool) -> Iterator[Entry]:
    """Yield every metric of money over all, by part of the traffic, and by month."""
    mature = view.mature(None)
    for metric in METRICS:
        if metric == "review_load" and "review" not in view.terms.prices:
            continue
        for one in told(metric, mature, view.terms, calibrated=holds):
            yield view.entry(metric, one, mature, SAYS[metric])
    for by, cells in parts(view, mature):
        for metric in ("fraud_loss_bps", "approval_rate", "false_positive_rate"):
            one = told(metric, cells, view.terms, calibrated=holds)[0]
            yield view.entry(metric, one, cells, SAYS[metric], by=by)
    yield from fraud_rates(view)


def fraud_rates(view: View) -> Iterator[Entry]:
    """Yield frauds among what went through: observed so far, completed, and mature alone."""
    recent = view.last(view.terms.maturity)
    says = SAYS["fraud_rate"]
    done = completed_rate(view, recent)
    if done is not None:
        yield view.entry("fraud_rate", Told("observed", done.so_far), recent, says)
        yield view.entry(
            "fraud_rate",
            Told("completed", done.figure),
            recent,
            says,
            more={"shown": done.shown, "provisional": done.provisional},
        )
    mature = view.mature()
    through = passed(mature)
    counts = Counts(mature.sum(where=through & mature["fraud"]), mature.sum(where=through))
    figure = rate(counts, like=pooled_design_effect(Counts(counts.k[None], counts.n[None])))
    yield view.entry("fraud_rate", Told("mature", figure), mature, says)


def completed_rate(view: View, recent: Cells) -> Completed | None:
    """Return the fraud rate of recent days with what is still to be reported; None: no reports."""
    everything = view.cells
    curve_of = _curve(everything, view.today, view.terms.maturity.days)
    reports, cohorts = _cohorts(recent, view.today)
    if not len(cohorts.age):
        return None
    return completed(reports, cohorts, curve_of, like=1.0)


def _curve(cells: Cells, today: np.datetime64, horizon: int) -> Any:
    reports, cohorts = _cohorts(cells, today)
    return curve(reports, cohorts, horizon) if len(cohorts.age) else None


def _cohorts(cells: Cells, today: np.datetime64) -> tuple[Reports, Cohorts]:
    days = np.unique(cells["day"])
    place = np.searchsorted(days, cells["day"])
    age = (today - days).astype(np.int64)
    through = passed(cells)
    decisions = np.zeros((BUCKETS, len(days)))
    np.add.at(decisions, (cells["bucket"][through], place[through]), cells["n"][through])
    delay = cells["delay"].astype(np.int64)
    seen = through & cells["fraud"] & (delay < age[place])
    reports = Reports(cells["bucket"][seen], place[seen], delay[seen], cells["n"][seen])
    return reports, Cohorts(age, decisions)


def parts(view: View, cells: Cells) -> Iterator[tuple[dict[str, str], Cells]]:
    """Yield parts of the traffic: by arm, category, band of amounts and month."""
    names: dict[str, Callable[[Cells], NDArray[Any]]] = {
        "arm": lambda c: c["arm"],
        "category": lambda c: np.array(view.terms.classes, object)[c["class"]],
        "amount": lambda c: np.array(view.terms.bands, object)[c["band"]],
        "month": lambda c: c["day"].astype("datetime64[M]").astype(str).astype(object),
    }
    for name, column in names.items():
        values = column(cells)
        for value in np.unique(values.astype(str)).tolist():
            yield {name: value}, cells.where(values == value)


def calibrated(view: View) -> bool:
    """Say whether the probabilities hold, so that the model's own belief may be shown."""
    one = over_expected(view.mature())
    low, high = OVER_EXPECTED
    return one.low is not None and one.high is not None and low <= one.low and one.high <= high


def over_expected(cells: Cells) -> Figure:
    """Return frauds that came over frauds that were expected, among what the model let through."""
    where = passed(cells) & (cells["p"] > 0.0) & ~cells["stood_in"]
    return ratio_of_sums(
        Amounts(cells.sum(where=where & cells["fraud"]), cells.sum("p", where)),
        cap=1.0,
    )


def calibration(view: View) -> Iterator[Entry]:
    """Yield observed over expected: over all, by part, and by bin of probability."""
    mature = view.mature()
    yield _held(view, mature, {})
    for by, cells in parts(view, mature):
        yield _held(view, cells, by)
    for place in mature.values("bin"):
        cells = mature.where(mature["bin"] == place)
        where = passed(cells) & ~cells["stood_in"]
        n = float(cells.sum(where=where).sum())
        if not n:
            continue
        counts = Counts(cells.sum(where=where & cells["fraud"]), cells.sum(where=where))
        figure = rate(counts, like=1.0)
        expected = float(cells.sum("p", where).sum()) / n
        low, high = (1.0 / (1.0 + np.exp(-(place + i) / 2.0)) for i in (0, 1))
        yield view.entry(
            "fraud_rate_at_probability",
            Told("mature", figure),
            cells,
            "Of payments that were given this probability, the share that was fraud.",
            by={"probability": f"{low:.4%} to {high:.4%}"},
            more={"expected": expected},
        )


def _held(view: View, cells: Cells, by: dict[str, str]) -> Entry:
    one = over_expected(cells)
    low, high = OVER_EXPECTED
    verdict = "undecided"
    if one.low is not None and one.high is not None:
        if low <= one.low and one.high <= high:
            verdict = "pass"
        elif one.low > high or one.high < low:
            verdict = "breach"
    return view.entry(
        "observed_over_expected",
        Told("mature", one, "ratio"),
        cells,
        "Frauds that came over frauds that were expected: above 1 the model believes too little.",
        by=by,
        target=f"{low:g} to {high:g}",
        verdict=verdict,
    )


def fairness(view: View, groups: Cells, *, holds: bool) -> Iterator[Entry]:
    """Yield each declared attribute's groups against its reference."""
    declared = view.terms.product.fairness
    if declared is None:
        return
    until = view.today - np.timedelta64(view.terms.maturity.days + 1, "D")
    mature = groups.where(groups["day"] <= until)
    for attribute, about in declared.attributes.items():
        yield from attribute_entries(
            view, mature.where(mature["attribute"] == attribute), attribute, about.reference, holds
        )


def attribute_entries(
    view: View, cells: Cells, attribute: str, reference: str, holds: bool
) -> Iterator[Entry]:
    """Yield one attribute: false positives in three forms, then the ratios beside them."""
    declared = view.terms.product.fairness
    assert declared is not None
    values = [one for one in cells.values("value") if one != reference]
    theirs = cells.where(cells["value"] == reference)
    target_says = f"{declared.limit[0]:g} to {declared.limit[1]:g}"
    for basis in ("explored", "model_implied", "bounds"):
        ratios = [
            metrics.false_positive_ratio(
                cells.where(cells["value"] == one), theirs, basis, calibrated=holds
            )
            for one in values
        ]
        low, high = declared.limit
        verdicts = parities(ratios, limits=(low, high), least_n=declared.min_n)
        for one, ratio, verdict in zip(values, ratios, verdicts, strict=True):
            gates = basis == "explored" and declared.gate == "false_positive_rate_ratio"
            yield view.entry(
                "false_positive_rate_ratio",
                Told(basis, ratio.figure, "ratio"),
                cells.where(cells["value"] == one),
                f"How many times as often a genuine payment of {one} is declined as one of "
                f"{reference}.",
                by={attribute: one, "reference": reference},
                target=target_says,
                verdict=verdict.says if gates else "",
                because=verdict.because,
                more={"gates": gates, "p": verdict.p, "p_adjusted": verdict.p_adjusted},
            )
    for metric, says, counts_of in BESIDE:
        base = counts_of(theirs)
        for one in values:
            mine = cells.where(cells["value"] == one)
            counts = counts_of(mine)
            like = pooled_design_effect(
                Counts(np.stack([counts.k, base.k]), np.stack([counts.n, base.n]))
            )
            yield view.entry(
                metric,
                Told("all", rate_ratio(counts, base, like=like).figure, "ratio"),
                mine,
                says.format(group=one, reference=reference),
                by={attribute: one, "reference": reference},
            )


BESIDE: tuple[tuple[str, str, Callable[[Cells], Counts]], ...] = (
    (
        "approval_rate_ratio",
        "Share of {group}'s payments that went through over that of {reference}; below 0.8 the "
        "four-fifths rule of thumb would ask why.",
        lambda c: Counts(c.sum(where=passed(c)), c.sum()),
    ),
    (
        "decline_rate_ratio",
        "How many times as often a payment of {group} is declined as one of {reference}, frauds "
        "among them.",
        lambda c: Counts(c.sum(where=c["action"] == "decline"), c.sum()),
    ),
    (
        "step_up_rate_ratio",
        "How many times as often {group} is asked for proof as {reference}.",
        lambda c: Counts(c.sum(where=c["action"] == "step_up"), c.sum()),
    ),
)


SAYS = {
    "approval_rate": "Share of payments that went through.",
    "fraud_loss": "Fraud that was let through and has been reported.",
    "fraud_loss_bps": "The same, of the turnover that went through, in basis points.",
    "false_positive_rate": "Of genuine payments, the share that is declined.",
    "insult_rate": "Genuine payments that are declined, of all payments.",
    "value_detection_rate": "Of all money that fraud would have taken, the share that was stopped.",
    "savings": "What deciding saved, of the cheaper of approving everything and declining it.",
    "step_up_success_rate": "Of customers who were asked for proof, the share that gave it.",
    "review_load": "Payments that an analyst has to look at, an hour.",
    "fraud_rate": "Of payments that went through, the share that was fraud.",
}
"""What each metric means."""
