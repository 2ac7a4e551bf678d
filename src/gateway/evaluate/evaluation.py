"""One evaluation: from sums to figures with verdicts, section by section.

goals        promises with their error budgets, and targets of the owners
money        what fraud and its prevention cost, by part of the traffic and over time
calibration  whether probabilities hold, by part, and by probability
fairness     groups of customers against a reference
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.evaluate.delay import Completed, completed, completed_ratio, curve
from gateway.evaluate.drifts import drifts
from gateway.evaluate.engine import ALL, CELLS, GROUPS, SEGMENTS, Days, Engine
from gateway.evaluate.entry import SCHEMA, Entry
from gateway.evaluate.intervals import Figure
from gateway.evaluate.measures import NOTHING, Columns, Measures, masked, measures_of
from gateway.evaluate.metrics import (
    BPS,
    METRICS,
    Sample,
    Told,
    costs_of,
    false_positive_ratio,
    share,
    told,
)
from gateway.evaluate.rates import pooled_design_effect, rate, rate_ratio, ratio_of_sums
from gateway.evaluate.sums import BUCKETS, Amounts, Cohorts, Counts, Reports
from gateway.evaluate.terms import Terms
from gateway.evaluate.verdicts import amount_budget, budget, parities, target

WINDOW = timedelta(days=90)
"""Goals are held to the mature decisions of so many days."""

EVER = date(1970, 1, 1)

OVER_EXPECTED = (0.8, 1.25)
"""Frauds that came over frauds expected: within it, probabilities hold."""

BY = ("arm", "class", "band", "month", "segment")
"""Parts of the traffic that figures are told of."""


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


def evaluated(engine: Engine, terms: Sequence[Terms], as_of: datetime) -> Evaluation:
    """Return the evaluation of products from the cells that an engine holds. Raises LakeError."""
    sections: dict[str, list[Entry]] = {
        name: [] for name in ("goals", "money", "calibration", "drift", "fairness")
    }
    states = engine.read("states")
    cohorts = engine.read("cohorts")
    labels = []
    for one in terms:
        view = View(engine, one, as_of.astimezone(UTC).date())
        mature = view.sample(view.mature)
        holds = _holds(over_expected(mature.sums))
        mature = replace(mature, calibrated=holds)
        sections["goals"] += [*promises(view), *goals(view, mature)]
        sections["money"] += [*money(view, mature), *late_labels(view, mature, cohorts)]
        sections["calibration"] += calibration(view, mature)
        sections["fairness"] += fairness(view, holds)
        labels.append(coverage(view, states))
    sections["drift"] += drifts(engine, terms, as_of)
    return Evaluation(
        as_of,
        tuple(one.name for one in terms),
        tuple(labels),
        {name: tuple(entries) for name, entries in sections.items()},
    )


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """One product, seen on a day (UTC) through an engine."""

    engine: Engine
    terms: Terms
    today: date

    @property
    def last_mature(self) -> date:
        """The last day whose every payment is mature."""
        return self.today - self.terms.maturity - timedelta(days=1)

    @property
    def mature(self) -> Days:
        """The days that goals are held to."""
        return self.last_mature - WINDOW + timedelta(days=1), self.last_mature

    def last(self, window: timedelta) -> Days:
        """Return the days that end today."""
        return self.today - window + timedelta(days=1), self.today

    def sums(self, days: Days, part: str = ALL, cells: str = CELLS) -> dict[str, Measures]:
        """Return the product's sums over days, by part."""
        found = measures_of(self.engine.read("sums", days, part=part, cells=cells))
        return found.get(self.terms.name, {})

    def sample(self, days: Days) -> Sample:
        """Return what metrics are told of, over days."""
        rows = _of_product(self.engine.read("costs", days), self.terms.name)
        hours = 24.0 * ((days[1] - days[0]).days + 1)
        sums = self.sums(days).get("", NOTHING)
        return Sample(self.terms, sums, costs_of(rows, self.terms), hours, calibrated=False)

    def entry(self, metric: str, one: Told, days: Days, says: str, **more: Any) -> Entry:
        """Return a figure over days as an entry."""
        return Entry(
            self.terms.name, metric, one.basis, one.figure, days, says, unit=one.unit, **more
        )

    def parts(self) -> Iterator[tuple[Days, dict[str, str], Measures]]:
        """Yield parts of the mature traffic: days, name and sums; months from the first on."""
        for part in BY:
            days = (EVER, self.last_mature) if part == "month" else self.mature
            cells, column = (SEGMENTS, "group") if part == "segment" else (CELLS, part)
            for value, sums in self.sums(days, column, cells).items():
                yield days, self.named(part, value), sums

    def named(self, part: str, value: str) -> dict[str, str]:
        """Return a part of the traffic by the names that people know."""
        if part == "segment":
            name, _, segment = value.partition("=")
            return {name: segment}
        if part == "class":
            return {"category": self.terms.classes[int(value)]}
        if part == "band":
            return {"amount": self.terms.bands[int(value)]}
        return {part: value}


def coverage(view: View, states: Columns) -> dict[str, Any]:
    """Return how many payments there are, by the state of their labels."""
    rows = _of_product(states, view.terms.name)
    day = rows["day"].astype("datetime64[D]")
    is_mature = day <= np.datetime64(view.last_mature, "D")
    through, known, reversed_ = (
        rows[name].astype(np.bool_) for name in ("went_through", "is_known", "reversed")
    )

    def count(where: Any) -> int:
        return int(rows["n"][where].sum())

    return {
        "product": view.terms.name,
        "maturity_days": view.terms.maturity.days,
        "first_day": str(day.min()) if len(day) else None,
        "last_day": str(day.max()) if len(day) else None,
        "last_mature_day": view.last_mature.isoformat(),
        "decisions": count(np.ones(len(day), np.bool_)),
        "without_label_for_ever": count(~through),
        "pending": count(through & ~is_mature & ~known & ~reversed_),
        "provisional": count(through & ~is_mature & known),
        "mature": count(through & is_mature & ~reversed_),
        "reversed": count(reversed_),
    }


def promises(view: View) -> Iterator[Entry]:
    """Yield each promise: its SLI, held to its objective, with what is left of its error budget."""
    for promise in view.terms.product.promises:
        days = view.last(promise.window)
        sums = view.sums(days).get("", NOTHING)
        if promise.sli == "customer_loss":
            yield _customer_loss(view, promise.id, promise.says, promise.objective, days, sums)
            continue
        counts = _sli(promise.sli, sums)
        figure = share(counts.k, counts.n)
        verdict = target(figure, at_least=promise.objective)
        left = budget(float(counts.k.sum()), float(counts.n.sum()), promise.objective)
        yield view.entry(
            promise.id,
            Told("all", figure),
            days,
            promise.says,
            target=f"at least {promise.objective:g}",
            verdict=verdict.says,
            because=verdict.because,
            more={"kind": "promise", "sli": promise.sli, "budget": left._asdict()},
        )


def _sli(sli: str, sums: Measures) -> Counts:
    if sli == "decided_within_budget":
        return Counts(sums["in_time"], sums["in_time"] + sums["late"])
    if sli == "scored_in_path":
        return Counts(sums["by_model"], sums["n"])
    return Counts(sums["contacted_in_time"], sums["stepped_up"])


def _customer_loss(
    view: View, name: str, says: str, objective: float, days: Days, sums: Measures
) -> Entry:
    """Held to what is reported so far: more may come, so that kept is said of mature days alone."""
    lost = sums.total("customer_loss") / view.terms.unit
    left = amount_budget(lost, objective)
    figure = Figure(
        lost, lost, None, sums.total("n"), sums.total("customer_frauds"), reason="too_young"
    )
    is_over = days[1] <= view.last_mature
    return view.entry(
        name,
        Told("observed", figure, view.terms.product.costs.currency),
        days,
        says,
        target=f"at most {objective:g}",
        verdict="missed" if not left.kept else "met" if is_over else "undecided",
        because="interval_outside" if not left.kept else "too_young",
        more={"kind": "promise", "sli": "customer_loss", "budget": left._asdict()},
    )


def goals(view: View, mature: Sample) -> Iterator[Entry]:
    """Yield each goal, over mature decisions."""
    for goal in view.terms.product.goals:
        side, limit = (
            ("at_most", goal.at_most) if goal.at_most is not None else ("at_least", goal.at_least)
        )
        for i, one in enumerate(told(goal.metric, mature)):
            judged = target(one.figure, **{side: limit}) if i == 0 else None  # type: ignore[arg-type]
            yield view.entry(
                goal.metric,
                one,
                view.mature,
                SAYS[goal.metric],
                target=f"{side.replace('_', ' ')} {limit:g}",
                verdict=judged.says if judged else "",
                because=judged.because if judged else "",
                more={"kind": "goal"},
            )


def money(view: View, mature: Sample) -> Iterator[Entry]:
    """Yield every metric of money over all, and the first ones by part of the traffic."""
    for metric in METRICS:
        if metric == "review_load" and "review" not in view.terms.prices:
            continue
        for one in told(metric, mature):
            yield view.entry(metric, one, view.mature, SAYS[metric])
    for days, by, sums in view.parts():
        here = replace(mature, sums=sums, costs=None)
        for metric in ("fraud_loss_bps", "approval_rate", "false_positive_rate"):
            yield view.entry(metric, told(metric, here)[0], days, SAYS[metric], by=by)


def late_labels(view: View, mature: Sample, columns: Columns) -> Iterator[Entry]:
    """Yield figures of the days that are not mature: observed so far, and completed.

    The curve of delays is drawn from all days, mature ones too. What is mature stands beside it.
    """
    recent = _recent(view, columns)
    if recent is not None:
        days = view.last(view.terms.maturity)
        more = {"shown": recent.rate.shown, "provisional": recent.rate.provisional}
        for metric, unit, observed, full in (
            ("fraud_rate", "share", recent.rate.so_far, recent.rate.figure),
            ("fraud_loss_bps", "bps", recent.loss_so_far, recent.loss),
        ):
            says = SAYS[metric]
            yield view.entry(metric, Told("observed", observed, unit), days, says)
            yield view.entry(metric, Told("completed", full, unit), days, says, more=more)
    figure = share(mature.sums["fraud"], mature.sums["passed"])
    yield view.entry("fraud_rate", Told("mature", figure), view.mature, SAYS["fraud_rate"])


@dataclass(frozen=True, slots=True)
class Recent:
    """What the days that are not mature say: how many are fraud, and what that takes (in bps)."""

    rate: Completed
    loss_so_far: Figure
    loss: Figure


def _recent(view: View, columns: Columns) -> Recent | None:
    """Return what labels say so far of the days that are not mature; None: nothing went through."""
    rows = _of_product(columns, view.terms.name)
    if not len(rows["n"]):
        return None
    day = rows["day"].astype("datetime64[D]")
    days, place = np.unique(day, return_inverse=True)
    age = (np.datetime64(view.today, "D") - days).astype(np.int64)
    bucket, n = rows["bucket"].astype(np.int64), rows["n"].astype(np.float64)
    delay = masked(rows["delay"], -1).astype(np.int64)
    seen = (delay >= 0) & (delay < age[place])

    def table(values: Any, some: Any) -> NDArray[np.float64]:
        found = np.zeros((BUCKETS, len(days)))
        filled = np.nan_to_num(masked(values, 0.0).astype(np.float64))
        np.add.at(found, (bucket[some], place[some]), filled[some])
        return found

    everything = np.ones(len(n), np.bool_)
    watched = Cohorts(age, table(n, everything))
    reports = Reports(bucket[seen], place[seen], delay[seen], n[seen])
    horizon = view.terms.maturity.days
    young = (age >= 0) & (age < horizon)
    late = curve(reports, watched, horizon)
    counts = Counts(table(n, seen).sum(axis=1), watched.decisions.sum(axis=1))
    like = pooled_design_effect(Counts(counts.k[None], counts.n[None]))
    lost, turnover = table(rows["loss"], seen) * young * BPS, table(rows["amount"], everything)
    turnover = turnover * young
    return Recent(
        completed(reports, watched, late, like=like, days=young),
        ratio_of_sums(Amounts(lost.sum(axis=1), turnover.sum(axis=1))),
        completed_ratio(lost, turnover, age, late),
    )


def over_expected(sums: Measures) -> Figure:
    """Return frauds that came over frauds that the model expected, of what it let through."""
    return ratio_of_sums(Amounts(sums["observed"], sums["expected"]), cap=1.0)


def _holds(one: Figure) -> bool:
    low, high = OVER_EXPECTED
    return one.low is not None and one.high is not None and low <= one.low and one.high <= high


def calibration(view: View, mature: Sample) -> Iterator[Entry]:
    """Yield observed over expected: over all, by part, and by probability."""
    yield _held(view, mature.sums, view.mature, {})
    for days, by, sums in view.parts():
        yield _held(view, sums, days, by)
    yield from reliability(view)


def _held(view: View, sums: Measures, days: Days, by: dict[str, str]) -> Entry:
    one = over_expected(sums)
    low, high = OVER_EXPECTED
    outside = (one.low is not None and one.low > high) or (one.high is not None and one.high < low)
    return view.entry(
        "observed_over_expected",
        Told("mature", one, "ratio"),
        days,
        "Frauds that came over frauds that were expected: above 1 the model believes too little.",
        by=by,
        target=f"{low:g} to {high:g}",
        verdict="pass" if _holds(one) else "breach" if outside else "undecided",
    )


def reliability(view: View) -> Iterator[Entry]:
    """Yield the share of fraud by the probability that was given."""
    rows = _of_product(view.engine.read("bins", view.mature), view.terms.name)
    place = rows["bin"].astype(np.int64)
    for one in np.unique(place).tolist():
        here = place == one
        bucket = rows["bucket"][here].astype(np.int64)
        fraud, n, p = (_by_bucket(bucket, rows[name][here]) for name in ("fraud", "n", "p"))
        low, high = (1.0 / (1.0 + np.exp(-(one + i) / 2.0)) for i in (0, 1))
        yield view.entry(
            "fraud_rate_at_probability",
            Told("mature", rate(Counts(fraud, n), like=1.0)),
            view.mature,
            "Of payments that were given this probability, the share that was fraud.",
            by={"probability": f"{low:.4%} to {high:.4%}"},
            more={"expected": float(p.sum() / n.sum())},
        )


def fairness(view: View, holds: bool) -> Iterator[Entry]:
    """Yield each declared attribute's groups against its reference."""
    declared = view.terms.product.fairness
    if declared is None:
        return
    days = (EVER, view.last_mature)
    groups = view.sums(days, "group", GROUPS)
    for attribute, about in declared.attributes.items():
        ours = {
            name.removeprefix(f"{attribute}="): sums
            for name, sums in groups.items()
            if name.startswith(f"{attribute}=")
        }
        yield from _attribute(view, ours, attribute, about.reference, days, holds)


def _attribute(
    view: View,
    groups: Mapping[str, Measures],
    attribute: str,
    reference: str,
    days: Days,
    holds: bool,
) -> Iterator[Entry]:
    """Yield one attribute: false positives in three forms, then the ratios beside them."""
    declared = view.terms.product.fairness
    assert declared is not None
    low, high = declared.limit
    theirs = groups.get(reference, NOTHING)
    others = {name: sums for name, sums in groups.items() if name != reference}
    for basis in ("explored", "model_implied", "bounds"):
        ratios = [
            false_positive_ratio(sums, theirs, basis, calibrated=holds) for sums in others.values()
        ]
        verdicts = parities(ratios, limits=(low, high), least_n=declared.min_n)
        gates = basis == "explored" and declared.gate == "false_positive_rate_ratio"
        for name, ratio, verdict in zip(others, ratios, verdicts, strict=True):
            yield view.entry(
                "false_positive_rate_ratio",
                Told(basis, ratio.figure, "ratio"),
                days,
                f"How many times as often a genuine payment of {name} is declined as one of "
                f"{reference}.",
                by={attribute: name, "reference": reference},
                target=f"{low:g} to {high:g}",
                verdict=verdict.says if gates else "",
                because=verdict.because,
                more={"gates": gates, "p": verdict.p, "p_adjusted": verdict.p_adjusted},
            )
    for metric, says, counts_of in BESIDE:
        base = counts_of(theirs)
        for name, sums in others.items():
            mine = counts_of(sums)
            like = pooled_design_effect(
                Counts(np.stack([mine.k, base.k]), np.stack([mine.n, base.n]))
            )
            yield view.entry(
                metric,
                Told("all", rate_ratio(mine, base, like=like).figure, "ratio"),
                days,
                says.format(group=name, reference=reference),
                by={attribute: name, "reference": reference},
            )


BESIDE: tuple[tuple[str, str, Callable[[Measures], Counts]], ...] = (
    (
        "approval_rate_ratio",
        "Share of {group}'s payments that went through over that of {reference}; below 0.8 the "
        "four-fifths rule of thumb would ask why.",
        lambda sums: Counts(sums["passed"], sums["n"]),
    ),
    (
        "decline_rate_ratio",
        "How many times as often a payment of {group} is declined as one of {reference}, frauds "
        "among them.",
        lambda sums: Counts(sums["declined"], sums["n"]),
    ),
    (
        "step_up_rate_ratio",
        "How many times as often {group} is asked for proof as {reference}.",
        lambda sums: Counts(sums["stepped_up"], sums["n"]),
    ),
)


def _by_bucket(bucket: Any, values: Any) -> NDArray[np.float64]:
    return np.bincount(bucket, weights=values, minlength=BUCKETS).astype(np.float64)


def _of_product(columns: Columns, product: str) -> dict[str, Any]:
    here = masked(columns["product"], "").astype(str) == product
    return {name: column[here] for name, column in columns.items()}


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
