"""One decision, whole: why this action, its trace, and what labels have said of it since."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from math import isfinite
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from gateway.cli.calls import call_at, is_near
from gateway.cli.lake_terms import columns_of_tables
from gateway.cli.waterfall import as_object
from gateway.errors import GatewayError, JournalError, LakeError, UsageError
from gateway.evaluate.engine import DuckDb
from gateway.evaluate.hindsight import hindsight, known_of
from gateway.evaluate.terms import Terms, terms_of
from gateway.journal import Decision, Flag, Place, Record, decision_id, parse_decision_id
from gateway.product import minor_per_major, parse
from gateway.sidecar.lake import Lake
from gateway.sidecar.lake.products import newest
from gateway.sidecar.lake.schema import ACTIONS
from gateway.sidecar.lake.search import find
from gateway.sidecar.tail.call import Call
from gateway.v1.decision_pb2 import DecideRequest, DecideResponse

SCHEMA = "gateway.decision/1"

MEMORY = "512MB"

_MORE = (
    *("transaction_id", "event_time", "currency", "action", "second_best", "propensity"),
    *("expected_cost", "explored", "sequence"),
)
_DAY = timedelta(days=1)


def decision_of(
    lake: Lake | None, journal: Path | None, text: str, now: datetime
) -> dict[str, Any]:
    """Return a decision or a refusal as JSON shows it (`SCHEMA`): the lake is asked first.

    Raises:
        UsageError: the text is no id of a call.
        LakeError, JournalError: it is not there, or a source cannot be read.
    """
    try:
        place = parse_decision_id(text)
    except ValueError as error:
        raise UsageError(str(error), hint="It is in the answer to the call.") from None
    call, around, row = _found(lake, journal, place)
    shown = {"schema": SCHEMA, **as_object(call, around), "why": None, "since": None}
    entry = call.record.entry
    if not isinstance(entry, Decision):
        return shown
    row = row or _row_of(entry)
    shown["why"] = _why(row)
    if lake is not None and call.generation is not None:
        shown["since"] = _since(lake, call.generation.product, place, row, now)
    return shown


def _found(
    lake: Lake | None, journal: Path | None, place: Place
) -> tuple[Call, tuple[Record, ...], dict[str, Any] | None]:
    """Return the call, what stood around it, and its row where the lake has one."""
    own = decision_id(place.boot, place.worker, place.sequence)
    if lake is not None:
        found = find(lake, own)
        if found is not None:
            call, around = found
            near = tuple(one for one in around if is_near(one, call))
            return call, near, lake.find(own, "decisions", _MORE)
    if journal is not None:
        try:
            return *call_at(journal, place), None
        except JournalError as error:
            if lake is None or error.exit_code is not JournalError.exit_code:
                raise
    raise LakeError(
        "is not there",
        subject=own,
        hint="It may not be shipped yet, be past its retention, or have been erased.",
    )


def _row_of(entry: Decision) -> dict[str, Any]:
    """Return of a journal's record what a row of the lake would say."""
    try:
        request = DecideRequest.FromString(entry.request)
        response = DecideResponse.FromString(entry.response)
    except DecodeError:
        request, response = DecideRequest(), DecideResponse()
    costs = {ACTIONS.get(one.action): one.cost for one in response.expected_costs}
    return {
        "transaction_id": request.transaction_id,
        "event_time": request.event_time.ToDatetime(UTC),
        "currency": request.currency,
        "action": ACTIONS.get(entry.action),
        "second_best": ACTIONS.get(entry.second_best),
        "propensity": entry.propensity if isfinite(entry.propensity) else None,
        "expected_cost": costs,
        "explored": Flag.EXPLORED in entry.flags,
    }


def _why(row: Mapping[str, Any]) -> dict[str, Any]:
    costs = row["expected_cost"] or {}
    return {
        "currency": row["currency"],
        "minor_per_major": _unit(row["currency"]),
        "expected_costs_minor": {name: x for name, x in costs.items() if name and x is not None},
        "second_best": row["second_best"],
        "propensity": row["propensity"],
        "paid": _iso(row["event_time"]),
    }


def _unit(currency: str | None) -> int:
    try:
        return minor_per_major(currency or "")
    except (GatewayError, KeyError, ValueError):
        return 1


def _iso(when: datetime | None) -> str | None:
    return None if when is None else when.astimezone(UTC).isoformat()


def _since(
    lake: Lake, product: str, place: Place, row: Mapping[str, Any], now: datetime
) -> dict[str, Any] | None:
    """Return what labels say of a decision by now; None: the lake does not know its product."""
    terms = _terms(lake, product)
    paid = row["event_time"]
    if terms is None or paid is None:
        return None
    day = paid.astimezone(UTC).date()
    with DuckDb(_files(lake, product, place, day), columns_of_tables(), memory=MEMORY) as engine:
        known, events = known_of(engine, terms, row["transaction_id"] or "", now)
    right, says = hindsight(
        row["action"] or "",
        known,
        explored=bool(row["explored"]),
        day=day,
        today=now.astimezone(UTC).date(),
        maturity=terms.maturity,
    )
    return {
        "right": right,
        "says": says,
        "counts": asdict(known) if known.kind or known.step_up or known.reversed else None,
        "labels": [asdict(one) for one in events],
        "maturity_days": terms.maturity.days,
    }


def _terms(lake: Lake, product: str) -> Terms | None:
    kept = newest(lake.filesystem, lake.root).get(product)
    if kept is None:
        return None
    try:
        return terms_of(parse(kept.text, kept.path))
    except GatewayError:
        return None  # of an older form


def _files(lake: Lake, product: str, place: Place, day: date) -> dict[str, list[str]]:
    """Return the product's labels from the payment on, and the decision's own file: labels may name
    it by its id alone."""
    labels = lake.files_since("labels", str(day - _DAY))
    own = (
        one.path
        for one in lake.files_since("decisions", "")
        if (one.name.worker, one.name.boot) == (place.worker, place.boot.hex())
        and one.name.first <= place.sequence <= one.name.last
    )
    return {
        "labels": [one.path for one in labels if lake.product_of(one.path) == product],
        "decisions": [one for one in own if lake.product_of(one) == product],
    }
