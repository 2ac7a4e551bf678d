"""What can be told of a decision by whoever has the product's folder, and as JSON.

The folder is loaded here, beside the gateway: nothing runs on its hot path. What cannot be
told is noted with its reason, and the rest is told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import isfinite, nan
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from cyclopts import Parameter

from gateway.decide import Edge, Explanation, OtherAmount, explain, served_probability
from gateway.errors import GatewayError, UsageError
from gateway.model import (
    Attribution,
    FeatureSchema,
    Generation,
    Rows,
    as_decided,
    attribute,
    golden_features,
    load_generation,
    read_product,
    references,
)
from gateway.model.registry import STORE, Registry
from gateway.product import Action, Override, Product, StandIn, minor_per_major
from gateway.v1.decision_pb2 import DecideRequest, DecideResponse

Folders = Annotated[
    tuple[Path, ...],
    Parameter(
        name="--product",
        negative="",
        show_default=False,
        help="The product's folder, as it is served; may be given more than once. Where left "
        "out: the one of that name in ., ./* and ./models/*.",
    ),
]

CLOSE = 1e-4
"""A served probability that differs by more was not given by this folder."""


@dataclass(frozen=True, slots=True)
class Case:
    """What is explained: a request, its answer, and what the journal knows besides.

    `score` is NaN, and `digest`, of the generation that decided, empty where not known.
    """

    request: DecideRequest
    response: DecideResponse
    score: float = nan
    features_left_out: bool = False
    expired: bool = False
    digest: str = ""


class Source(NamedTuple):
    """The product's folder and what it holds, or why it does not help."""

    folder: Path | None
    generation: Generation | None
    missing: str = ""


class Band(NamedTuple):
    """The band of a product's stand_in that answers, and its line; None: up to any amount."""

    place: str
    line: int
    up_to_minor: float | None
    categories: tuple[str, ...]
    action: Action


@dataclass(slots=True)
class Told:
    """What can be said of a case.

    `warnings` say how the folder differs from what decided, `notes` what cannot be told and
    why, `replaced` which features a declared default stood in for. Of a stand-in, `why` is
    what the model would have decided.
    """

    case: Case
    source: Source
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    band: Band | None = None
    why: Explanation | None = None
    attribution: Attribution | None = None


class _Payment(NamedTuple):
    transaction_id: str
    amount_minor: int
    category: str
    event_s: float


def source_of(name: str, folders: Sequence[Path], response: DecideResponse | None = None) -> Source:
    """Find and load the folder of a product: one of `folders`, or of those close by.

    Where several have its name, the one that decided `response` goes first.

    Raises:
        GatewayError: none of `folders` has the product, or one of them does not load.
    """
    found: list[tuple[bool, Path]] = []
    others: list[str] = []
    for folder in folders or _close_by():
        try:
            product = read_product(folder)
        except GatewayError:
            if folders:
                raise
            continue
        others.append(product.name)
        if product.name == name:
            found.append((response is not None and not _decided(product, response), folder))
    if not found and folders:
        raise UsageError(
            f"holds {' and '.join(others)}, not the product that is to be explained",
            subject=", ".join(map(str, folders)),
            hint="Name the folder that it is served from.",
        )
    if not found:
        return Source(None, None, "the product's folder is not here; name it with --product DIR")
    folder = min(found, key=lambda one: one[0])[1]
    try:
        return Source(folder, _loaded(folder, response))
    except GatewayError as error:
        if folders:
            raise
        return Source(folder, None, f"the product's folder does not load: {error}")


def kept_source(journal: Path, case: Case) -> Source | None:
    """Load the generation that decided from the snapshots in a journal's directory, if it is there.

    Raises:
        GatewayError: the store cannot be read, or the snapshot does not load.
    """
    if not case.digest:
        return None
    for snapshot in Registry(journal / STORE).snapshots(case.request.product):
        if case.digest.startswith(snapshot.digest_start):
            return Source(snapshot.path, _loaded(snapshot.path, case.response))
    return None


def _loaded(folder: Path, response: DecideResponse | None) -> Generation:
    """Load a folder; the model that decided stands in it as its champion."""
    generation = load_generation(folder)
    if response is None:
        return generation
    return as_decided(generation, response.model.name, response.model.digest)


def told_of(case: Case, source: Source) -> Told:
    """Tell what the folder, the request and the answer allow."""
    told, generation = Told(case, source), source.generation
    if generation is None or source.folder is None:
        told.notes.append(f"Told from the answer alone: {source.missing}.")
        return told
    request, product = case.request, generation.product
    payment = _Payment(
        request.transaction_id,
        request.amount,
        request.category,
        request.event_time.seconds + request.event_time.nanos * 1e-9,
    )
    told.warnings += _differences(case, source.folder, generation)
    if request.currency != product.costs.currency:
        told.notes.append(f"The folder's costs are in {product.costs.currency}: no cost is told.")
        return told
    if case.response.stand_in:
        told.band = _band(generation, StandIn(case.response.stand_in), payment)
    row = _row(told, generation.schema)
    score = _score(told, generation, row)
    if score is None:
        return told
    per_major = minor_per_major(product.costs.currency)
    told.why = explain(generation.policy, score, payment, minor_per_major=per_major)
    told.warnings += _contradictions(told.why, case.response)
    if row is not None:
        try:
            told.attribution = _attributed(source.folder, generation, row, payment.event_s)
        except UsageError as error:
            told.notes.append(f"What its features did is not told: {error}.")
    return told


def _close_by() -> list[Path]:
    here = Path()
    places = [here, *sorted(here.glob("*/")), *sorted(here.glob("models/*/"))]
    return [place for place in places if (place / "product.yaml").is_file()]


def _decided(product: Product, response: DecideResponse) -> bool:
    models = product.models
    pinned = [models.champion.sha256, *(one.sha256 for one in models.challengers)]
    same_model = response.model.digest in ("", *pinned)
    return same_model and product.generation == response.product_generation


def _differences(case: Case, folder: Path, generation: Generation) -> Iterator[str]:
    """Say how a folder is not the generation that decided."""
    decided, number = case.response.product_generation, generation.product.generation
    model, what = case.response.model.digest, ""
    if decided != number:
        what = f"is generation {number}, and generation {decided} decided"
    elif model and model != generation.champion.digest:
        what = "has another model than the one that decided, under the same generation number"
    elif case.digest and case.digest != generation.digest:
        what = "was changed since it decided, under the same generation number"
    if what:
        yield f"{folder} {what}. What follows is what this folder would decide."


def _contradictions(why: Explanation, response: DecideResponse) -> Iterator[str]:
    """Say where the folder, asked again, gives another answer than was given."""
    if response.stand_in:
        return
    own = why.decision
    if own.action != response.action or abs(own.probability - response.probability) > CLOSE:
        given = f"{Action(response.action).name} at P(fraud) {response.probability:.6g}"
        mine = f"{Action(own.action).name} at {own.probability:.6g}"
        yield f"The gateway answered {given}; this folder gives {mine}."


def _band(generation: Generation, reason: StandIn, payment: _Payment) -> Band:
    bands = generation.policy.stand_ins[reason].bands
    at = next(
        i
        for i, (up_to, mccs, _) in enumerate(bands)
        if payment.amount_minor <= up_to and (mccs is None or payment.category in mccs)
    )
    up_to, _, action = bands[at]
    name = reason.name.lower()
    return Band(
        f"stand_in.{name}[{at}]",
        generation.product.source.line(("stand_in", name, at)),
        up_to if isfinite(up_to) else None,
        generation.product.stand_in.by_reason()[reason][at].categories,
        action,
    )


def _row(told: Told, schema: FeatureSchema) -> Rows | None:
    """Return the row that the model is fed, of shape (columns,); or note why there is none."""
    request = told.case.request
    if told.case.features_left_out:
        told.notes.append(
            "The record was kept without the features (product.yaml, records.features): "
            "what they did is not told."
        )
        return None
    wrong: list[str] = []
    if not request.dense:
        named = {name: _value(request, name) for name in request.features}
        row, violations = schema.encode(named)[:2]
        wrong += [violation.field for violation in violations]
        for feature in schema.features:
            text = named.get(feature.name)
            if isinstance(text, str) and text not in feature.values:
                told.replaced.append(feature.name)
    elif request.schema_fingerprint == schema.fingerprint:
        row = schema.from_dense(request.dense)
    else:
        told.notes.append("The request's dense features are of another schema than this folder's.")
        return None
    matrix, checked = schema.matrix([row])
    wrong += [violation.field for one in checked.values() for violation in one.violations]
    if wrong:
        fields = ", ".join(dict.fromkeys(wrong))
        told.notes.append(f"The request does not fit this folder's features: {fields}.")
        return None
    fed: Rows = matrix[0]
    given = np.frombuffer(row, dtype=fed.dtype)
    kept = (given == fed) | (np.isnan(given) & np.isnan(fed))
    told.replaced += [
        f.name for f, is_kept in zip(schema.features, kept.tolist(), strict=True) if not is_kept
    ]
    return fed


def _value(request: DecideRequest, name: str) -> float | str:
    value = request.features[name]
    kind = value.WhichOneof("kind")
    return nan if kind is None else value.text if kind == "text" else value.number


def _score(told: Told, generation: Generation, row: Rows | None) -> float | None:
    """Return the recorded score where this model gave it, else what it gives; None with a note."""
    case, policy = told.case, generation.policy
    own = case.response.model.digest == generation.champion.digest
    score = case.score
    if row is not None and not (own and isfinite(score)):
        try:
            score = policy.snapped(generation.champion.score_one(row.tobytes()))
        except Exception as error:  # whatever a model raises is the model's error
            told.notes.append(f"The model fails on this payment: {type(error).__name__}.")
            return None
    elif isfinite(score) and not own:
        told.warnings.append("The score is that of the model that decided, not of this folder's.")
    if row is None and not isfinite(score):
        told.notes.append("Without its features the model cannot be asked.")
        return None
    if not policy.takes([score]):
        told.notes.append("The model gives no score for it that can be read as a probability.")
        return None
    return score


def _attributed(folder: Path, generation: Generation, row: Rows, event_s: float) -> Attribution:
    policy, columns = generation.policy, generation.product.columns

    def probability_of(score: float) -> float:
        snapped = policy.snapped(score)
        return served_probability(policy, snapped, event_s) if policy.takes([snapped]) else nan

    return attribute(
        columns,
        row,
        references(columns, golden_features(folder, generation.product)),
        score=generation.champion.score,
        probability_of=probability_of,
    )


def overrides_of(product: Product, why: Explanation) -> list[Override]:
    """Return what product.yaml says of the overrides that are in force."""
    in_force = set(why.overrides)
    return [
        one
        for one in product.overrides
        if one.category in (None, why.cost_class.name) and (one.action, one.at_least) in in_force
    ]


def as_object(told: Told) -> dict[str, Any]:
    """Return it as JSON values; amounts are in minor units, and named so."""
    source, attribution = told.source, told.attribution
    return {
        "folder": None if source.folder is None else str(source.folder),
        "digest": None if source.generation is None else source.generation.digest,
        "warnings": told.warnings,
        "notes": told.notes,
        "replaced_features": told.replaced,
        "stand_in": _band_object(told),
        "is_hypothesis": bool(told.case.response.stand_in),
        "decision": _why_object(told),
        "features": None
        if attribution is None
        else {
            "effects": [effect._asdict() for effect in attribution.effects],
            "left_out": [left_out._asdict() for left_out in attribution.left_out],
        },
    }


def _band_object(told: Told) -> dict[str, Any] | None:
    band, response = told.band, told.case.response
    if band is None:
        return None
    return {
        "reason": StandIn(response.stand_in).name,
        "callers_deadline_was_over": told.case.expired,
        "band": band.place,
        "line": band.line,
        "up_to_minor": band.up_to_minor,
        "categories": list(band.categories),
        "action": band.action.name,
    }


def _why_object(told: Told) -> dict[str, Any] | None:
    why, generation = told.why, told.source.generation
    if why is None or generation is None:
        return None
    return {
        "action": Action(why.decision.action).name,
        "least_cost_action": why.chosen.name,
        "amount_minor": told.case.request.amount,
        "currency": generation.product.costs.currency,
        "score": why.score,
        "calibrated_probability": why.calibrated,
        "base_rate_log_odds": why.base_rate_shift,
        "calendar_log_odds": why.calendar_shift,
        "probability": why.decision.probability,
        "category": why.cost_class.name or None,
        "harm": why.cost_class.harm,
        "expected_costs": [
            {
                "action": option.action.name,
                "cost_minor": option.cost_minor,
                "dearer_minor": option.dearer_minor,
                "ruled_out": option.ruled_out,
            }
            for option in why.options
        ],
        "intervals": [
            {"action": one.action.name, "from": one.low, "to": one.high} for one in why.intervals
        ],
        "threshold": None if why.nearest is None else why.nearest.probability,
        "below": _edge_object(why.below),
        "above": _edge_object(why.above),
        "smaller_amount": _amount_object(why.smaller),
        "larger_amount": _amount_object(why.larger),
        "other_categories": [
            {"category": name or None, "action": action.name} for name, action in why.categories
        ],
        "overrides": [
            one.model_dump(mode="json") | {"action": one.action.name}
            for one in overrides_of(generation.product, why)
        ],
        "overridden": why.overridden,
        "explored": why.explored,
        "near_tie": why.near_tie,
    }


def _edge_object(edge: Edge | None) -> dict[str, Any] | None:
    if edge is None:
        return None
    away = edge.log_odds_away
    return {
        "probability": edge.probability,
        "log_odds_away": away if isfinite(away) else None,
        "action": edge.action.name,
        "score": edge.score,
    }


def _amount_object(other: OtherAmount | None) -> dict[str, Any] | None:
    if other is None:
        return None
    return {"amount_minor": other.amount_minor, "action": other.action.name}
