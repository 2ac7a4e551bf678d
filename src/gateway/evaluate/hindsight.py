"""Whether a decision was right, as far as labels say by now. Pure, but for what an engine reads."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Literal

from gateway.evaluate.behind import know, moment, plain
from gateway.evaluate.counts import tables_of
from gateway.evaluate.engine import Engine, Given
from gateway.evaluate.terms import Terms

Right = Literal["right", "wrong", "learned", "open", "never"]

GENUINE = ("customer_confirmed", "analyst_genuine")
_FAILED = ("step_up_failed", "step_up_abandoned")
_OF_ONE = "and coalesce(l.transaction_id, n.transaction_id) = $transaction"


@dataclass(frozen=True, slots=True)
class Known:
    """What counts of what labels say of a payment; `kind` is empty where nothing does."""

    kind: str = ""
    fraud: bool = False
    lost_minor: int | None = None
    liable: str = ""
    step_up: str = ""
    reversed: bool = False
    reported: str | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """A label, as it came."""

    kind: str
    reported: str | None
    amount_minor: int | None
    currency: str
    liable: str
    corrects: bool


def known_of(
    engine: Engine, terms: Terms, transaction: str, as_of: datetime
) -> tuple[Known, tuple[Event, ...]]:
    """Return what labels that an engine sees say of a payment by then. Raises LakeError."""
    for table, columns, kinds in tables_of([terms]):
        engine.define(table, columns, kinds)
    for query in ("layout", "tables"):
        engine.run(query, as_of)
    one = {"transaction": transaction}
    know(engine, as_of, Given(one, {"only": _OF_ONE}))
    counts = engine.rows("label_verdict", Given(one, {}))
    known = Known()
    if len(counts["kind"]):
        row = {name: plain(counts, name, 0) for name in counts}
        known = Known(
            row["kind"] or "",
            bool(row["fraud"]),
            row["lost_minor"],
            row["liable"] or "",
            row["step_up"] or "",
            bool(row["reversed"]),
            moment(row["reported_us"]),
        )
    events = engine.rows("label_events", Given(one, {}))
    return known, tuple(_event(events, i) for i in range(len(events["kind"])))


def _event(columns: Any, i: int) -> Event:
    row = {name: plain(columns, name, i) for name in columns}
    return Event(
        row["kind"],
        moment(row["reported_us"]),
        row["amount_minor"],
        row["currency"] or "",
        row["liable"] or "",
        bool(row["corrects"]),
    )


def hindsight(
    action: str, known: Known, *, explored: bool, day: date, today: date, maturity: timedelta
) -> tuple[Right, str]:
    """Say whether an action was right: a word for programs, and a sentence.

    `action`: as the lake has it; `day`: of the payment; from `maturity` on silence is genuine.
    """
    stopped = action == "decline" or known.step_up in _FAILED
    stopped |= action == "review" and known.kind == "analyst_fraud"
    if known.fraud:
        if stopped:
            return "right", "It was a fraud, and it did not go through."
        if explored:
            return "learned", (
                "It was a fraud. It was let through to learn; by cost it would have been declined, "
                "and rightly."
            )
        return "wrong", "It was a fraud, and it went through."
    if known.kind in GENUINE:
        if stopped:
            return "wrong", "It was genuine, and it was stopped."
        if explored:
            return "learned", (
                "It was genuine. It was let through to learn; by cost it would have been declined, "
                "and wrongly."
            )
        return "right", "It was genuine, and it went through."
    if action == "decline":
        return "never", "Nobody knows, and nobody will: what was declined has no label."
    if stopped:
        return "never", "The customer did not prove to be who pays; what it was nobody knows."
    ends = day + maturity
    if today > ends:
        taken_back = (
            "a report of fraud was taken back" if known.reversed else "no fraud was reported"
        )
        said = f"As far as is known it was genuine: {taken_back} within {maturity.days} days."
        if explored:
            return "learned", f"{said} By cost it would have been declined, and wrongly."
        return "right", f"{said} It went through."
    return "open", f"Fraud may still be reported until {ends}."
