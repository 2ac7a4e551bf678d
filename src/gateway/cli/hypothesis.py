"""`gateway hypothesis list`, `start`, `show` and `stop`."""

from __future__ import annotations

import json as json_codec
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

from cyclopts import Parameter
from rich.table import Table

from gateway.cli.evaluate import engine_over, store_of, time_of
from gateway.cli.hypothesis_start import start_at
from gateway.cli.hypothesis_told import started_of
from gateway.cli.lake_terms import TABLES, terms_in
from gateway.cli.terms import Json, notes, out
from gateway.errors import ExitCode, UsageError
from gateway.evaluate.claims import BECAUSE, came, first_day, is_changed, is_over, told
from gateway.evaluate.counts import count
from gateway.evaluate.terms import Terms
from gateway.evaluate.view import View
from gateway.product import Hypothesis
from gateway.sidecar.lake import Lake
from gateway.sidecar.lake.hypotheses import Begun, Damaged, end, records
from gateway.sidecar.lake.hypotheses import keep as keep_looks

_Id = Annotated[str, Parameter(help="The hypothesis's id, as the product declares it.")]
_Place = Annotated[str, Parameter(help="The lake that a sidecar fills: a directory, or a URI.")]
_Product = Annotated[
    str | None, Parameter(help="The product that declares it; needed where two have the id.")
]


def list_(*, lake: _Place, json: Json = False) -> int:
    """List what products of a lake declare, what was started, and what came of it."""
    place = Lake.at(lake)
    terms = {term.name: term for term in terms_in(place, None)}
    declares = _declared(list(terms.values()))
    started = {(one.product, one.id): one for one in records(place.filesystem, place.root)}
    rows = [
        _row(*key, declares.get(key), started.get(key), terms.get(key[0]))
        for key in sorted({*declares, *started})
    ]
    if json:
        print(json_codec.dumps(rows, indent=2))
        return ExitCode.OK
    table = Table("product", "id", "state", "since", "verdict", "claim", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(str(value or "") for value in row.values()))
    out.print(table if rows else "No product of the lake declares a hypothesis.")
    return ExitCode.OK


def start(id: _Id, /, *, lake: _Place, product: _Product = None) -> int:
    """Freeze a hypothesis as it is declared now. Its first day is the next one (UTC)."""
    place = Lake.at(lake)
    terms = terms_in(place, None)
    declares = _declared(terms)
    of, one = _one_of(id, product, declares)
    own = next(term for term in terms if term.name == of)
    record, path = start_at(place, one, own, datetime.now(UTC))
    out.print(
        f"Started {id} of {of}, frozen as {record.digest[:12]}; its first day is "
        f"{first_day(started_of(record))} (UTC).",
        markup=False,
    )
    notes.print(f"Kept as {path}", markup=False)
    notes.print(f"Next: gateway hypothesis show {id} --lake {lake}", markup=False)
    return ExitCode.OK


def show(
    id: _Id,
    /,
    *,
    lake: _Place,
    product: _Product = None,
    as_of: Annotated[
        str,
        Parameter(help="As known at that time: 2026-11-01, or 2026-11-01T12:00:00Z. Default: now."),
    ] = "",
    keep: Annotated[
        bool,
        Parameter(
            negative="",
            show_default=False,
            help="Keep each day's look in the lake: labels that are revised later change it no "
            "more. Best asked each day.",
        ),
    ] = False,
    json: Json = False,
) -> int:
    """Say what is known of a started hypothesis."""
    place, when = Lake.at(lake), time_of(as_of)
    if keep and when is not None and when > datetime.now(UTC):
        raise UsageError(
            "has not come yet, and its looks would be kept for ever",
            subject=f"--as-of {as_of}",
            hint="Leave --keep out.",
        )
    record = _started(place, id, product)
    known = when or datetime.now(UTC)
    come = _come(place, record, known, lasting=when is None)
    if keep:
        record = keep_looks(place.filesystem, place.root, record, come["looks"])
    _print(record, come, known, json=json)
    return ExitCode.OK


def stop(id: _Id, /, *, lake: _Place, product: _Product = None, json: Json = False) -> int:
    """End a hypothesis, and keep what is known of it now."""
    place = Lake.at(lake)
    record = _started(place, id, product)
    now = datetime.now(UTC)
    come = {} if record.stopped is not None else _come(place, record, now, lasting=True)
    ended = end(place.filesystem, place.root, record, come, now)
    _print(ended, come, now, json=json)
    return ExitCode.OK


def _declared(terms: Sequence[Terms]) -> dict[tuple[str, str], Hypothesis]:
    return {(term.name, one.id): one for term in terms for one in term.product.hypotheses}


def _one_of(id: str, product: str | None, among: Mapping[tuple[str, str], Any]) -> tuple[str, Any]:
    """Return the one of an id, and its product. Raises UsageError."""
    found = [(of, one) for (of, name), one in among.items() if name == id and product in (None, of)]
    if len(found) == 1:
        return found[0]
    if found:
        products = ", ".join(of for of, _ in found)
        raise UsageError(f"is of {products}", subject=id, hint="Say --product.")
    known = ", ".join(sorted({name for _, name in among})) or "none"
    raise UsageError("is not there", subject=id, hint=f"There are: {known}.")


def _started(place: Lake, id: str, product: str | None) -> Begun:
    """Return a record. Raises UsageError: it is not there; LakeError: it is damaged."""
    some = records(place.filesystem, place.root)
    found = {(one.product, one.id): one for one in some}
    record: Begun | Damaged = _one_of(id, product, found)[1]
    if isinstance(record, Damaged):
        raise record.error
    return record


def _come(place: Lake, record: Begun, as_of: datetime, *, lasting: bool) -> Mapping[str, Any]:
    """Return what came of a hypothesis, as JSON. `lasting`: what is counted may be kept."""
    one = started_of(record)
    if is_over(one, as_of) and one.outcome is not None:
        return one.outcome
    terms = terms_in(place, None)
    own = next((one for one in terms if one.name == record.product), None)
    files = {table: place.files(table) for table in TABLES}
    with engine_over(place, files, store_of(place, None, lasting=lasting), None) as engine:
        count(engine, terms, as_of)
        view = None if own is None else View(engine, own, as_of.astimezone(UTC).date())
        return came(view, one)


def _row(
    product: str,
    id: str,
    one: Hypothesis | None,
    record: Begun | Damaged | None,
    terms: Terms | None,
) -> dict[str, Any]:
    told = {"product": product, "id": id, "state": _state(record, terms)}
    claim = None if one is None else one.claim
    if record is None or isinstance(record, Damaged):
        return {**told, "since": None, "verdict": None, "claim": claim}
    return {
        **told,
        "since": (record.stopped or record.started)[:10],
        "verdict": None if record.outcome is None else record.outcome.get("verdict"),
        "claim": claim or record.declared.get("claim"),
    }


def _state(record: Begun | Damaged | None, terms: Terms | None) -> str:
    if record is None:
        return "declared"
    if isinstance(record, Damaged):
        return "damaged"
    if record.stopped is not None:
        return "stopped"
    return "changed since" if is_changed(started_of(record), terms) else "running"


def _print(record: Begun, come: Mapping[str, Any], as_of: datetime, *, json: bool) -> None:
    found = told(started_of(record), come, as_of)
    if json:
        print(json_codec.dumps(found, indent=2))
        return
    impact = found["impact"]
    out.print(f"{record.id} of {record.product}: {found['claim']}", markup=False)
    out.print(f"{found['verdict']}, day {found['day']}: {found['says']}", markup=False)
    low, high = impact["interval"]
    out.print(
        f"{found['metric']}: intended {impact['intended']:+g}, actual {_number(impact['actual'])} "
        f"({_number(low)} to {_number(high)}, at any look)",
        markup=False,
    )
    for one in found["guardrails"]:
        low, high = one["interval"]
        out.print(
            f"guardrail {one['metric']}, margin {one['margin']:g}: "
            f"{_number(low)} to {_number(high)}",
            markup=False,
        )
    looks = found["looks"]
    for before, look in zip([None, *looks], looks, strict=False):
        if before is None or before["because"] != look["because"]:
            out.print(f"from day {look['day']}: {look['says']}, {BECAUSE[look['because']]}")


def _number(value: float | None) -> str:
    return "not known" if value is None else f"{value:+.4g}"
