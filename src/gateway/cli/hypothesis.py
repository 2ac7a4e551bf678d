"""`gateway hypothesis list`, `start`, `show` and `stop`."""

from __future__ import annotations

import json as json_codec
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any

from cyclopts import Parameter
from rich.table import Table

from gateway.cli.evaluate import TABLES, engine_over, store_of, terms_in, time_of
from gateway.cli.terms import Json, notes, out
from gateway.errors import ExitCode, LakeError, UsageError
from gateway.evaluate.arms import SIDES, incomparable, observed
from gateway.evaluate.counts import count
from gateway.evaluate.hypotheses import (
    Look,
    declared_of,
    digest,
    models_digest,
    outcome,
    read_again,
    written,
)
from gateway.evaluate.terms import Terms
from gateway.evaluate.view import View
from gateway.product import Hypothesis
from gateway.sidecar.lake import Lake
from gateway.sidecar.lake.hypotheses import Begun, begin, begun, end
from gateway.sidecar.lake.hypotheses import keep as keep_looks

_Id = Annotated[str, Parameter(help="The hypothesis's id, as the product declares it.")]
_Place = Annotated[str, Parameter(help="The lake that a sidecar fills: a directory, or a URI.")]
_Product = Annotated[
    str | None, Parameter(help="The product that declares it; needed where two have the id.")
]

_SAME = 1e-9

BECAUSE = {
    "declaration_changed": "the declaration, or a model of an arm, is not what it was at the start",
    "sample_ratio_mismatch": "the arms did not get the shares that were declared",
    "guardrail_broken": "a guardrail is broken for sure",
    "goal_not_reached": "the change is smaller for sure than what matters",
    "goal_reached": "the metric is better for sure, and no guardrail is worse than its margin",
    "days_over": "max_days are over, and nothing is sure",
    "too_few_days": "too few days are mature",
    "not_sure": "nothing is sure yet",
}


def list_(*, lake: _Place, json: Json = False) -> int:
    """List what products of a lake declare, what was started, and what came of it."""
    place = Lake.at(lake)
    terms = {term.name: term for term in terms_in(place, None)}
    declares = _declared(list(terms.values()))
    started = {(one.product, one.id): one for one in begun(place.filesystem, place.root)}
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
    _startable(one, own)
    now = datetime.now(UTC)
    models = models_digest(own.product.models, tuple(one.arms))
    record = Begun(of, id, digest(one), written(one), models, now.isoformat())
    path = begin(place.filesystem, place.root, record)
    out.print(
        f"Started {id} of {of}, frozen as {record.digest[:12]}; its first day is "
        f"{_first_day(record)} (UTC).",
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
    ended = None if record.stopped is None else record.outcome
    come = _come(place, record, when) if ended is None else ended
    if keep:
        record = keep_looks(place.filesystem, place.root, record, come["looks"])
    _print(record, come, json=json)
    return ExitCode.OK


def stop(id: _Id, /, *, lake: _Place, product: _Product = None, json: Json = False) -> int:
    """End a hypothesis, and keep what is known of it now."""
    place = Lake.at(lake)
    record = _started(place, id, product)
    come = {} if record.stopped is not None else _come(place, record, None)
    ended = end(place.filesystem, place.root, record, come, datetime.now(UTC))
    _print(ended, come, json=json)
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


def _startable(one: Hypothesis, terms: Terms) -> None:
    """Refuse what could never be judged. Raises UsageError."""
    try:
        declared = declared_of(one)
    except ValueError as error:
        raise UsageError(str(error), subject=one.id, hint="Complete it in product.yaml.") from None
    if unknown := incomparable(declared):
        raise UsageError(
            f"arms cannot be compared by {', '.join(unknown)}",
            subject=one.id,
            hint=f"Take one of {', '.join(SIDES)}.",
        )
    models = terms.product.models
    traffic = {one.name: one.share or 0.0 for one in models.challengers if one.mode == "canary"}
    traffic[models.champion.name] = 1.0 - sum(traffic.values())
    for arm, share in one.arms.items():
        if abs(traffic.get(arm, 0.0) - share) > _SAME:
            raise UsageError(
                f"{arm} decides {traffic.get(arm, 0.0):.4g} of the traffic, declared are {share:g}",
                subject=one.id,
                hint="Make models and the hypothesis's arms agree: "
                + ", ".join(f"{name} {part:.4g}" for name, part in traffic.items()),
            )


def _started(place: Lake, id: str, product: str | None) -> Begun:
    found = {(one.product, one.id): one for one in begun(place.filesystem, place.root)}
    record: Begun = _one_of(id, product, found)[1]
    return record


def _first_day(record: Begun) -> date:
    """Return the first whole day."""
    return datetime.fromisoformat(record.started).astimezone(UTC).date() + timedelta(days=1)


def _come(place: Lake, record: Begun, when: datetime | None) -> dict[str, Any]:
    """Return what came of a hypothesis, as JSON."""
    try:
        frozen = read_again(record.declared)
        declared = declared_of(frozen)
        kept = [Look.of(look) for look in record.looks]
    except (ValueError, TypeError, KeyError):
        raise LakeError(
            "is not what was started", subject=record.id, hint="Put back the lake's record."
        ) from None
    terms = terms_in(place, None)
    as_of = when or datetime.now(UTC)
    own = next((one for one in terms if one.name == record.product), None)
    if own is None:
        raise LakeError("is no product of the lake any more", subject=record.product)
    is_as_frozen = digest(frozen) == record.digest and not _is_changed(record, own)
    files = {table: place.files(table) for table in TABLES}
    store = store_of(place, None, lasting=when is None)
    with engine_over(place, files, store, None) as engine:
        count(engine, terms, as_of)
        view = View(engine, own, as_of.date())
        yesterday = as_of.date() - timedelta(days=1)
        mature = yesterday - (frozen.maturity or own.maturity)
        seen = observed(view, declared, frozen.unit, _first_day(record), yesterday, mature)
        return outcome(declared, seen, is_as_frozen=is_as_frozen, kept=kept).as_object()


def _is_changed(record: Begun, terms: Terms | None) -> bool:
    """Say whether a product declares a hypothesis, or its arms' models, otherwise than it did."""
    now = None if terms is None else _declared([terms]).get((record.product, record.id))
    if terms is None or now is None or digest(now) != record.digest:
        return True
    return models_digest(terms.product.models, tuple(now.arms)) != record.models


def _row(
    product: str, id: str, one: Hypothesis | None, record: Begun | None, terms: Terms | None
) -> dict[str, Any]:
    state = "declared" if record is None else "running" if record.stopped is None else "stopped"
    if state == "running" and record is not None and _is_changed(record, terms):
        state = "changed since"
    return {
        "product": product,
        "id": id,
        "state": state,
        "since": None if record is None else (record.stopped or record.started)[:10],
        "verdict": None if record is None or record.outcome is None else record.outcome["verdict"],
        "claim": one.claim if one is not None else record.declared["claim"] if record else None,
    }


def _print(record: Begun, come: Mapping[str, Any], *, json: bool) -> None:
    told = {
        "product": record.product,
        "id": record.id,
        "claim": record.declared["claim"],
        "digest": record.digest,
        "started": record.started,
        "stopped": record.stopped,
        **come,
    }
    if json:
        print(json_codec.dumps(told, indent=2))
        return
    impact, metric = come["impact"], record.declared["metric"]
    out.print(f"{record.id} of {record.product}: {record.declared['claim']}", markup=False)
    out.print(f"{come['verdict']}, day {come['day']}: {BECAUSE[come['because']]}", markup=False)
    low, high = impact["interval"]
    out.print(
        f"{metric}: intended {impact['intended']:+g}, actual {_number(impact['actual'])} "
        f"({_number(low)} to {_number(high)}, at any look)",
        markup=False,
    )
    looks = come["looks"]
    decided = next((look for look in looks if look["day"] == come["day"]), (looks or [None])[-1])
    for place, one in enumerate(record.declared["guardrails"]):
        _, low, high = decided["guardrails"][place] if decided else (None, None, None)
        out.print(
            f"guardrail {one['metric']}, margin {one['margin']:g}: "
            f"{_number(low)} to {_number(high)}",
            markup=False,
        )
    for before, look in zip([None, *looks], looks, strict=False):
        if before is None or before["because"] != look["because"]:
            out.print(f"from day {look['day']}: {look['says']}, {BECAUSE[look['because']]}")


def _number(value: float | None) -> str:
    return "not known" if value is None else f"{value:+.4g}"
