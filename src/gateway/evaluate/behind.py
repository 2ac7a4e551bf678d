"""The decisions behind a figure: which count for it, and which of them count against it.

They are counted from the lake's files as the figure was, by the same facts and the same evidence,
and over its days alone. What an estimate rests on is said, where no decision is the figure itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np

from gateway.errors import UsageError
from gateway.evaluate.counts import repeated, tables_of
from gateway.evaluate.engine import Engine, Given
from gateway.evaluate.measures import Columns
from gateway.evaluate.members import UNKNOWN
from gateway.evaluate.terms import Terms, named_bin

SCHEMA = "gateway.decisions/1"

NEWEST = "the newest first"

MOST = 100
"""So many decisions are shown."""

ACROSS = "probability"
REFERENCE = "reference"
_BINS = range(-42, 85)


@dataclass(frozen=True, slots=True)
class Asked:
    """A figure, as an evaluation names it: of which product, which metric, which part, which days.

    `basis` and `by` as in an entry; `is_promise`: `metric` is the id of a promise.
    """

    product: str
    metric: str
    first: date
    last: date
    basis: str = ""
    by: Mapping[str, str] = field(default_factory=dict)
    is_promise: bool = False


class Kind(NamedTuple):
    """Payments that are alike to a figure. `where`, `weight`: SQL over `seen`; the greatest first.

    `what`: in words, of many; `order`: which are shown first.
    """

    where: str
    what: str
    order: str = NEWEST
    weight: str = "days_of(pack) * 24 + hour_of(pack)"
    against: bool = True


class Rule(NamedTuple):
    """What a figure counts (SQL over `seen`), what counts against it, and what there is to say."""

    counts: str
    kinds: tuple[Kind, ...]
    says: str = ""


_COSTLIEST = ("the costliest first", "lost_minor")
_UNLIKELIEST = ("first those that the model believed in least", "-p")

_LET_THROUGH = Kind("went_through and fraud", "frauds that were let through", *_COSTLIEST)
_UNFORESEEN = Kind("fraud", "frauds that came", *_UNLIKELIEST)
_EXPLORED_GENUINE = Kind(
    "explored and not fraud",
    "payments that would have been declined, were let through to learn, and were no fraud as far "
    "as is known",
)
_EXPLORED_FRAUD = Kind(
    "explored and fraud",
    "frauds that would have been declined, and were let through to learn",
    *_COSTLIEST,
    against=False,
)
_DECLINED = Kind(
    "action = 'decline'",
    "payments that were declined, of which nobody knows what they were",
    *_UNLIKELIEST,
)

_OF_FORM = {
    "explored": "It is an estimate: what was declined has no label. What exploration let through "
    "by chance speaks for it, each such payment for as many as its propensity says.",
    "model_implied": "It is an estimate: what was declined has no label, and counts here by the "
    "probability that the model gave it. No single decision is right or wrong in it.",
    "bounds": "It is a range: what was declined has no label, and the ends are all of it genuine "
    "and all of it fraud.",
}

_EVERYTHING = "true"
_FORESEEN = "went_through and not stood_in"

_RULES: Mapping[str, Rule] = {
    "decided_within_budget": Rule(
        "(in_time or late)", (Kind("late", "answers that left behind their deadline"),)
    ),
    "scored_in_path": Rule(_EVERYTHING, (Kind("stood_in", "stand-ins: the model did not decide"),)),
    "contacted_within": Rule(
        "action = 'step_up'",
        (
            Kind(
                "not coalesce(event_us >= contact_us, false)",
                "step-ups whose customer was not reached in time, as far as is known",
            ),
        ),
    ),
    "customer_loss": Rule(
        _EVERYTHING,
        (Kind("fraud and liable = 'customer'", "frauds that a customer pays for", *_COSTLIEST),),
    ),
    "approval_rate": Rule(
        _EVERYTHING, (Kind("not went_through", "payments that did not go through"),)
    ),
    "fraud_loss": Rule(_EVERYTHING, (_LET_THROUGH,)),
    "fraud_loss_bps": Rule("went_through", (_LET_THROUGH,)),
    "fraud_rate": Rule("went_through", (_LET_THROUGH,)),
    "false_positive_rate": Rule(_EVERYTHING, (_EXPLORED_GENUINE, _EXPLORED_FRAUD, _DECLINED)),
    "value_detection_rate": Rule(
        "(action = 'decline' or (went_through and fraud))",
        (_LET_THROUGH, _DECLINED._replace(against=False)),
    ),
    "savings": Rule(
        _EVERYTHING,
        (_LET_THROUGH, _DECLINED),
        "It compares what all decisions cost with what the cheaper of approving and of declining "
        "everything would have; these are the ones that may have cost the most.",
    ),
    "step_up_success_rate": Rule(
        "action = 'step_up' and step_up is not null",
        (Kind("step_up <> 'step_up_passed'", "step-ups that were not passed"),),
    ),
    "review_load": Rule(
        _EVERYTHING, (Kind("action = 'review'", "payments that an analyst had to look at"),)
    ),
    "observed_over_expected": Rule(
        _FORESEEN,
        (_UNFORESEEN,),
        "It compares the frauds that came with the sum of the probabilities of all that went "
        "through.",
    ),
    "observed_over_expected_near_thresholds": Rule(
        _FORESEEN,
        (_UNFORESEEN,),
        "It looks at payments near the thresholds alone; here are all frauds that the model let "
        "through, near or not.",
    ),
    "miscalibration_cost": Rule(
        _FORESEEN,
        (_UNFORESEEN,),
        "It is an estimate over all payments: what acting on the probabilities cost more than "
        "right ones would have. No single decision is it; here are the frauds that the model let "
        "through.",
    ),
    "fraud_rate_at_probability": Rule(_FORESEEN, (_UNFORESEEN,)),
    "true_positive_rate_ratio": Rule(
        "(action = 'decline' or fraud)",
        (
            Kind(
                "went_through and fraud and not explored",
                "frauds that were not declined",
                *_COSTLIEST,
            ),
            _EXPLORED_FRAUD,
            _DECLINED._replace(against=False),
        ),
    ),
    "decline_rate_ratio": Rule(
        _EVERYTHING, (Kind("action = 'decline'", "payments that were declined"),)
    ),
    "step_up_rate_ratio": Rule(
        _EVERYTHING, (Kind("action = 'step_up'", "payments whose customer was asked for proof"),)
    ),
    "attribute_known": Rule(_EVERYTHING, ()),
}
_SAME = {
    "insult_rate": "false_positive_rate",
    "false_positive_rate_ratio": "false_positive_rate",
    "approval_rate_ratio": "approval_rate",
    "observed_expected_ratio": "observed_over_expected",
}
_DRIFT = "psi"
_ANY = Rule(
    _EVERYTHING,
    (),
    "How a single decision counts for this figure is not told; here are those of its days.",
)
_OF_DRIFT = Rule(
    _EVERYTHING,
    (),
    "It compares how often values came with how often they did before. No single decision is "
    "against it; here are those of its days.",
)


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """The decisions that a figure is about, as SQL over `seen` with its values."""

    where: str
    values: Mapping[str, Any]
    needs_groups: bool = False


def rule_of(asked: Asked, terms: Terms) -> Rule:
    """Return what counts for a figure, and what against it. Raises UsageError: no such promise."""
    metric = asked.metric
    if metric == _DRIFT:
        return _OF_DRIFT
    if asked.is_promise or metric not in {*_RULES, *_SAME}:
        slis = {one.id: one.sli for one in terms.product.promises}
        if asked.is_promise and metric not in slis:
            raise UsageError(
                "is no promise of the product",
                subject=metric,
                hint=f"One of {', '.join(slis)}." if slis else "It has none.",
            )
        metric = slis.get(metric, metric)
    rule = _RULES.get(_SAME.get(metric, metric), _ANY)
    said = " ".join(one for one in (_OF_FORM.get(asked.basis, ""), rule.says) if one)
    if metric == "attribute_known":
        unknown, _ = _group(asked.by.get("attribute", ""), UNKNOWN, "known")
        kinds = (Kind(unknown, "payments of customers of whom it is not known"),)
        return Rule(rule.counts, kinds, said)
    if REFERENCE in asked.by:
        said += " It compares a group with its reference; here are the group's own payments."
    return Rule(rule.counts, rule.kinds, said.strip())


def part_of(asked: Asked, terms: Terms) -> Part:
    """Return which decisions a figure is about.

    Raises:
        UsageError: a key or a value of `by` is none of the product's.
    """
    wheres, values, needs_groups = [], dict[str, Any](), asked.metric == "attribute_known"
    if asked.metric == _DRIFT:
        return Part("true", values)
    for i, (key, value) in enumerate(asked.by.items()):
        if key == "attribute" and asked.metric == "attribute_known":
            values["g_known"] = f"{value}="
            continue
        if key == REFERENCE:
            continue
        name = f"g_{i}"
        where, value_given = _condition(asked, terms, key, value, name)
        needs_groups |= "members" in where
        wheres.append(where)
        if f"${name}" in where:
            values[name] = value_given
    return Part(" and ".join(wheres) or "true", values, needs_groups)


def _condition(
    asked: Asked, terms: Terms, key: str, value: str, name: str
) -> tuple[str, str | int]:
    """Return SQL that says whether a payment is of a part, and the value that it asks for."""
    fairness = terms.product.fairness
    if fairness is not None and key in fairness.attributes:
        return _group(key, value, name.removeprefix("g_"))
    if key == "category" and value in terms.classes:
        return f"class = ${name}", terms.classes.index(value)
    if key == "amount" and value in terms.bands:
        return f"band = ${name}", terms.bands.index(value)
    if key == "arm":
        return f"coalesce(arm, 'none') = ${name}", value
    if key == "month":
        return f"strftime(day, '%Y-%m') = ${name}", value
    if key == ACROSS and asked.metric == "fraud_rate_at_probability":
        names = {named_bin(one): one for one in _BINS}
        if value in names:
            return f"has_bin(pack) and bin_of(pack) = ${name}", names[value]
    elif key in terms.product.watch:
        return f"list_contains(string_split(watch, chr(31)), ${name})", f"{key}={value}"
    raise UsageError(
        "is no part of the product's decisions",
        subject=f"{key}={value}" if fairness is None else key,
        hint="Take `by` as the evaluation has it: gateway evaluate --lake DIR --json.",
    )


def _group(key: str, value: str, name: str) -> tuple[str, str]:
    """Return SQL that says whether a customer is of a group, and the value that it asks for."""
    if value == UNKNOWN:
        given = f"{key}="
        return (
            f"len(list_filter(string_split(coalesce(members, ''), chr(31)), "
            f"lambda x: starts_with(x, $g_{name}))) = 0"
        ), given
    return f"list_contains(string_split(members, chr(31)), $g_{name})", f"{key}={value}"


def behind(
    engine: Engine,
    terms: Terms,
    asked: Asked,
    as_of: datetime,
    paths: Sequence[str],
    *,
    most: int = MOST,
) -> dict[str, Any]:
    """Return the decisions behind a figure, as JSON shows them (`SCHEMA`).

    `engine`: over the files of the product's decisions, `paths` in their order, and of its labels.

    Raises:
        UsageError: the figure is none of the product's.
        LakeError: a file cannot be read.
    """
    rule, part = rule_of(asked, terms), part_of(asked, terms)
    _prepare(engine, terms, asked, as_of, needs_groups=part.needs_groups)
    kinds = (*rule.kinds, Kind("true", "others", against=False))
    texts = {
        "part": part.where,
        "counts": rule.counts,
        "kind": _cases(kinds, (str(i) for i in range(len(kinds)))),
        "weight": _cases(kinds, (one.weight for one in kinds)),
    }
    values = {**part.values, "first": asked.first, "last": asked.last}
    counted = engine.rows("behind_counts", Given(values, texts))
    counts = dict(zip(counted["kind"].tolist(), counted["n"].tolist(), strict=True))
    engine.run("behind_top", as_of, Given({**values, "limit": most}, texts))
    rows = sorted(_shown(engine, paths), key=lambda row: _place(row, kinds))
    shown = [sum(row["kind"] == i for row in rows) for i in range(len(kinds))]
    return {
        "schema": SCHEMA,
        "as_of": as_of.isoformat(),
        "product": asked.product,
        "metric": asked.metric,
        "basis": asked.basis,
        "by": dict(asked.by),
        "currency": terms.product.costs.currency,
        "minor_per_major": terms.unit,
        "from": asked.first.isoformat(),
        "to": asked.last.isoformat(),
        "says": rule.says,
        "count": sum(counts.values()),
        "kinds": [
            {
                "what": one.what,
                "order": one.order,
                "against": one.against,
                "count": counts.get(i, 0),
                "shown": shown[i],
            }
            for i, one in enumerate(kinds)
        ],
        "decisions": rows,
    }


def _place(row: Mapping[str, Any], kinds: Sequence[Kind]) -> tuple[int, float]:
    """Return what orders rows anew: facts know of a time its hour alone."""
    is_by_time = kinds[row["kind"]].order == NEWEST
    newest = -datetime.fromisoformat(row["time"]).timestamp() if is_by_time else 0.0
    return row["kind"], newest


def _cases(kinds: Sequence[Kind], values: Iterator[str]) -> str:
    pairs = zip(kinds, values, strict=True)
    spelt = " ".join(f"when {one.where} then {value}" for one, value in pairs)
    return f"(case {spelt} end)"


def _prepare(
    engine: Engine, terms: Terms, asked: Asked, as_of: datetime, *, needs_groups: bool
) -> None:
    """Take the facts of the figure's days, and what is known of their payments."""
    for table, columns, kinds in tables_of([terms]):
        engine.define(table, columns, kinds)
    for query in ("layout", "tables"):
        engine.run(query, as_of)
    know(engine, as_of)
    if needs_groups:
        engine.run("members_now", as_of)
        engine.run("members", as_of)
    end = asked.last + timedelta(days=1)
    days = {"first": f"{asked.first}T00:00:00Z", "end": f"{end}T00:00:00Z"}
    engine.run("behind_days", as_of, Given({}, days))
    engine.run("facts", as_of, Given({"first": 0}, {"watch": engine.watched()}))
    keys = engine.rows("keys", Given({"as_of": as_of}, {}))["key"]
    engine.define("again", {"key": repeated(keys).tolist()}, ("ubigint",))
    several = "(from facts semi join again using (key))"
    engine.run("counted", as_of, Given({}, {"name": "retried", "facts": several}))
    as_of_us = round(as_of.timestamp() * 1e6)
    engine.run("everything", as_of, Given({}, {"as_of_us": str(as_of_us)}))
    engine.run("behind_seen", as_of)


_ALL_LABELS = Given({}, {"only": ""})


def know(engine: Engine, as_of: datetime, only: Given = _ALL_LABELS) -> None:
    """Work out what labels say by then, of all payments or of some (`only`)."""
    engine.run("named" if engine.rows("unnamed")["n"][0] else "nobody_named", as_of)
    engine.run("heard", as_of, only)
    engine.run("evidence", as_of, Given({}, {"only": ""}))


def _shown(engine: Engine, paths: Sequence[str]) -> Iterator[dict[str, Any]]:
    units = engine.rows("behind_units")
    if not len(units["unit"]):
        return
    engine.see("shown_files", "decisions", [paths[int(one)] for one in units["unit"]])
    reach = {
        "first_us": int(units["first_us"].min()),
        "last_us": int(units["last_us"].max()),
    }
    columns = engine.rows("behind_rows", Given(reach, {}))
    for i in range(len(columns["place"])):
        row = {name: plain(columns, name, i) for name in columns}
        yield {
            "id": row["decision_id"],
            "kind": int(row["kind"]),
            "time": moment(row["event_us"]),
            "action": row["action"],
            "arm": row["arm"],
            "stand_in": None if row["stand_in"] == "none" else row["stand_in"],
            "explored": bool(row["explored"]),
            "in_time": row["in_time"],
            "probability": row["probability"],
            "threshold": row["threshold"],
            "label": row["label"],
            "fraud": bool(row["fraud"]),
            "lost_minor": row["lost_minor"],
            "currency": row["currency"],
            "reported": moment(row["reported_us"]),
        }


def plain(columns: Columns, name: str, i: int) -> Any:
    """Return a value as Python has it; None for null."""
    value = columns[name][i]
    if value is None or value is np.ma.masked:
        return None
    return value.item() if hasattr(value, "item") else value


def moment(us: int | None) -> str | None:
    """Return a time, ISO 8601 in UTC, of µs since 1970."""
    if us is None:
        return None
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)).isoformat()
