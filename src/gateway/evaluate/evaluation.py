"""One evaluation: from sums to figures with verdicts, section by section.

goals        promises with their error budgets, and targets of the owners
money        what fraud and its prevention cost, by part of the traffic and over time
calibration  whether probabilities hold, by part, and by probability
fairness     groups of customers against a reference
drift        what comes in against the weeks before

Beside the sections stand tables by product: `declared`, its models and its calendar; `labels`, how
much is known; `latency`, how long answers took; `maturity`, how labels came in. Who reads the
records of hypotheses puts `hypotheses` there: what came of those that were started.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.evaluate import latency
from gateway.evaluate.counts import count
from gateway.evaluate.delay import Completed, completed, completed_ratio, curve
from gateway.evaluate.drifts import drifts
from gateway.evaluate.engine import Days, Engine, Given
from gateway.evaluate.entry import SCHEMA, Entry
from gateway.evaluate.fairness import fairness
from gateway.evaluate.intervals import Figure
from gateway.evaluate.maturity import maturity
from gateway.evaluate.measures import NOTHING, Columns, Measures, masked
from gateway.evaluate.metrics import BPS, METRICS, Sample, Told, share, told
from gateway.evaluate.miscalibration import where_it_matters
from gateway.evaluate.probabilities import calibration, holds, over_expected
from gateway.evaluate.rates import pooled_design_effect, ratio_of_sums
from gateway.evaluate.sums import BUCKETS, Amounts, Cohorts, Counts, Reports
from gateway.evaluate.terms import Terms
from gateway.evaluate.verdicts import amount_budget, budget, target
from gateway.evaluate.view import View, of_product


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What is known of products at a time. Sections by name, entries in their order.

    `tables`: what is no entry, by name: a row a product.
    """

    as_of: datetime
    products: tuple[str, ...]
    tables: Mapping[str, tuple[Mapping[str, Any], ...]]
    sections: Mapping[str, tuple[Entry, ...]]

    def as_object(self) -> dict[str, Any]:
        """Return what JSON shows."""
        return {
            "schema": SCHEMA,
            "as_of": self.as_of.isoformat(),
            "products": list(self.products),
            **{name: [dict(one) for one in rows] for name, rows in self.tables.items()},
            **{name: [one.as_object() for one in some] for name, some in self.sections.items()},
        }


def evaluate(engine: Engine, terms: Sequence[Terms], as_of: datetime) -> Evaluation:
    """Return the evaluation of products over what an engine sees. Raises LakeError."""
    count(engine, terms, as_of)
    sections: dict[str, list[Entry]] = {
        name: [] for name in ("goals", "money", "calibration", "drift", "fairness")
    }
    states = engine.read("states")
    cohorts = engine.read("cohorts")
    today = as_of.astimezone(UTC).date()
    window = today - latency.WINDOW + timedelta(days=1), today
    asked = {"first": window[0], "last": window[1], "as_of": as_of}
    times = engine.rows("latency", Given(asked, {}))
    tables: dict[str, list[Mapping[str, Any]]] = {
        name: [] for name in ("declared", "labels", "latency", "maturity")
    }
    for one in terms:
        view = View(engine, one, today)
        mature = view.sample(view.mature)
        calibrated = holds(over_expected(mature.sums))
        mature = replace(mature, calibrated=calibrated)
        sections["goals"] += [*promises(view), *goals(view, mature)]
        sections["money"] += [*money(view, mature), *late_labels(view, mature, cohorts)]
        sections["calibration"] += calibration(view, mature)
        sections["calibration"] += where_it_matters(view, as_of, mature.sums.total("foreseen"))
        sections["fairness"] += fairness(view, calibrated)
        tables["declared"].append(one.declared())
        tables["labels"].append(coverage(view, states))
        tables["latency"].append(latency.latency(one, times, *window))
        tables["maturity"].append(maturity(one, cohorts, today))
    sections["drift"] += drifts(engine, terms, as_of)
    return Evaluation(
        as_of,
        tuple(one.name for one in terms),
        {name: tuple(rows) for name, rows in tables.items()},
        {name: tuple(entries) for name, entries in sections.items()},
    )


def coverage(view: View, states: Columns) -> dict[str, Any]:
    """Return how many payments there are, by the state of their labels."""
    rows = of_product(states, view.terms.name)
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
    for days, by, sums in view.parts:
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
    rows = of_product(columns, view.terms.name)
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


SAYS = {
    "approval_rate": "Share of payments that went through.",
    "fraud_loss": "Fraud that was let through and has been reported.",
    "fraud_loss_bps": "Reported fraud of the turnover that went through, in basis points.",
    "false_positive_rate": "Of genuine payments, the share that is declined.",
    "insult_rate": "Genuine payments that are declined, of all payments.",
    "value_detection_rate": "Of all money that fraud would have taken, the share that was stopped.",
    "savings": "What deciding saved, of the cheaper of approving everything and declining it.",
    "step_up_success_rate": "Of customers who were asked for proof, the share that gave it.",
    "review_load": "Payments that an analyst has to look at, an hour.",
    "fraud_rate": "Of payments that went through, the share that was fraud.",
}
"""What each metric means."""
