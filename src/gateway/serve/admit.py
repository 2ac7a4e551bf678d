"""The first stage: from a caller's bytes to a payment that can be decided, or a refusal.

All violations of a request stand in one answer. No text of a refusal holds a value that
the caller sent, but its own field names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status

from gateway.model import FieldViolation, Generation
from gateway.serve.front import MESSAGE_BYTES_MAX, Event, Metadata
from gateway.serve.response import ResponseEncoder
from gateway.v1.decision_pb2 import DecideRequest

INVALID_ARGUMENT: int = grpc.StatusCode.INVALID_ARGUMENT.value[0]
NOT_FOUND: int = grpc.StatusCode.NOT_FOUND.value[0]
RESOURCE_EXHAUSTED: int = grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]

UNKNOWN_PRODUCT = 0xFFFF
"""The product index of a refusal that names no product of ours."""

AHEAD_S_MAX = 86_400.0
"""event_time may be this far ahead of the gateway's clock; a retry or replay may be old."""

_TEXT_MAX = {"transaction_id": 128, "channel": 64, "subject": 256}
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(frozen=True, slots=True, eq=False)
class Serving:
    """One product generation as the hall holds it.

    `index` is its place in the journal's table of products, `number` its generation.
    """

    generation: Generation
    index: int
    responses: ResponseEncoder
    budget_ns: int
    currency: str
    number: int
    keeps_features: bool

    @staticmethod
    def of(generation: Generation, index: int) -> Serving:
        """Compile what the hot path needs of a generation."""
        product = generation.product
        return Serving(
            generation=generation,
            index=index,
            responses=ResponseEncoder(generation),
            budget_ns=round(product.latency.budget_ms * 1e6),
            currency=product.costs.currency,
            number=product.generation,
            keeps_features=product.records.features == "full",
        )


class Payment(NamedTuple):
    """An admitted call. `row` is its features as float32 bytes; times are monotonic."""

    call_id: int
    serving: Serving
    payload: bytes
    traceparent: bytes
    deadline_ns: float
    transaction_id: str
    amount_minor: int
    category: str
    event_s: float
    row: bytes
    defaulted: bool


class Refusal(NamedTuple):
    """A call that is the caller's to mend. `fields` names what broke a rule, never a value."""

    call_id: int
    code: int
    message: str
    details: bytes | None
    product: int
    fields: tuple[str, ...]
    traceparent: bytes


def admit(
    event: Event, arrived_ns: int, now_ns: int, wall_s: float, served: Mapping[str, Serving]
) -> Payment | Refusal:
    """Decode and check one Decide call.

    The deadline is the earlier of the caller's, counted from `now_ns`, and the product's
    budget, counted from `arrived_ns`.
    """
    _, call_id, _, payload, _, details = event
    assert payload is not None
    traceparent, seconds_left = b"", None
    if details is not None:
        metadata, _, seconds_left = details
        traceparent = _traceparent(metadata)

    def refuse(code: int, message: str, product: int, violations: list[FieldViolation]) -> Refusal:
        fields = tuple(violation.field for violation in violations)
        encoded = bad_request(code, message, violations) if violations else None
        return Refusal(call_id, code, message, encoded, product, fields, traceparent)

    if len(payload) > MESSAGE_BYTES_MAX:
        message = f"the message has {len(payload)} bytes, at most {MESSAGE_BYTES_MAX} are taken"
        return refuse(RESOURCE_EXHAUSTED, message, UNKNOWN_PRODUCT, [])
    try:
        request = DecideRequest.FromString(payload)
    except DecodeError:
        return refuse(INVALID_ARGUMENT, "not a DecideRequest", UNKNOWN_PRODUCT, [])
    name = request.product
    serving = served.get(name)
    if serving is None:
        if not name:
            missing = [FieldViolation("product", "is missing")]
            return refuse(INVALID_ARGUMENT, "1 violation: product", UNKNOWN_PRODUCT, missing)
        known = ", ".join(sorted(served))
        return refuse(NOT_FOUND, f"no such product; served: {known}", UNKNOWN_PRODUCT, [])

    schema = serving.generation.schema
    transaction_id, amount_minor = request.transaction_id, request.amount
    category, dense = request.category, request.dense
    when = request.event_time
    event_s = when.seconds + when.nanos * 1e-9
    violations: list[FieldViolation] = []
    if not transaction_id:
        violations.append(FieldViolation("transaction_id", "is missing"))
    if not 0.0 < event_s <= wall_s + AHEAD_S_MAX or not 0 <= when.nanos < 1_000_000_000:
        violations.append(_event_time(request, event_s))
    if amount_minor < 0:
        violations.append(FieldViolation("amount", "must not be negative"))
    if request.currency != serving.currency:
        violations.append(_currency(request, serving.currency))
    if category and not (len(category) == 4 and category.isascii() and category.isdigit()):
        violations.append(FieldViolation("category", "must be a four-digit MCC, or empty"))
    if len(transaction_id) > 128 or len(request.channel) > 64 or len(request.subject) > 256:
        violations += _too_long(request)

    defaulted = False
    if dense:
        row = dense
        if request.schema_fingerprint != schema.fingerprint or len(dense) != schema.row_bytes:
            violations += _dense(request, serving)
        elif violations:
            violations += _row_violations(serving, row)
        if request.features:
            violations.append(FieldViolation("features", "and dense are both given: send one"))
    else:
        named = {
            key: value.text if value.WhichOneof("kind") == "text" else value.number
            for key, value in request.features.items()
            if value.WhichOneof("kind")
        }
        row, wrong, defaulted = schema.encode(named)
        if wrong or violations:
            named_wrongly = {violation.field for violation in wrong}
            violations += wrong
            violations += [v for v in _row_violations(serving, row) if v.field not in named_wrongly]
    if violations:
        return refuse(INVALID_ARGUMENT, summary(violations), serving.index, violations)

    deadline_ns: float = arrived_ns + serving.budget_ns
    if seconds_left is not None:
        # A deadline that is over already is dated to the beginning of time.
        callers_ns = now_ns + seconds_left * 1e9 if seconds_left > 0.0 else 0.0
        deadline_ns = min(deadline_ns, callers_ns)
    return Payment(
        call_id,
        serving,
        payload,
        traceparent,
        deadline_ns,
        transaction_id,
        amount_minor,
        category,
        event_s,
        row,
        defaulted,
    )


def refuse_row(payment: Payment, violations: tuple[FieldViolation, ...]) -> Refusal:
    """Refuse an admitted payment whose features break their rules."""
    found = list(violations)
    message = summary(found)
    return Refusal(
        payment.call_id,
        INVALID_ARGUMENT,
        message,
        bad_request(INVALID_ARGUMENT, message, found),
        payment.serving.index,
        tuple(violation.field for violation in found),
        payment.traceparent,
    )


def bad_request(code: int, message: str, violations: list[FieldViolation]) -> bytes:
    """Return an encoded google.rpc.Status with every violation as a BadRequest."""
    detail = AnyMessage()
    detail.Pack(
        BadRequest(
            field_violations=[
                BadRequest.FieldViolation(field=violation.field, description=violation.description)
                for violation in violations
            ]
        )
    )
    encoded: bytes = Status(code=code, message=message, details=[detail]).SerializeToString()
    return encoded


def summary(violations: list[FieldViolation]) -> str:
    """Say the violations in one line, for callers that do not read details."""
    shown = "; ".join(f"{field} {description}" for field, description in violations[:5])
    count = len(violations)
    rest = f"; and {count - 5} more" if count > 5 else ""
    return f"{count} violation{'s' if count > 1 else ''}: {shown}{rest}"


def _traceparent(metadata: Metadata) -> bytes:
    """Return the caller's W3C trace context, or nothing where it is absent or malformed."""
    for key, value in metadata:
        if key == "traceparent" and isinstance(value, str):
            return value.encode() if _TRACEPARENT.fullmatch(value) else b""
    return b""


def _event_time(request: DecideRequest, event_s: float) -> FieldViolation:
    if not request.HasField("event_time"):
        return FieldViolation("event_time", "is missing")
    if not 0.0 < event_s < inf or not 0 <= request.event_time.nanos < 1_000_000_000:
        return FieldViolation("event_time", "is no time after 1970")
    return FieldViolation("event_time", "is more than a day ahead of the gateway's clock")


def _currency(request: DecideRequest, expected: str) -> FieldViolation:
    if not request.currency:
        return FieldViolation("currency", f"is missing, must be {expected}")
    return FieldViolation("currency", f"must be {expected}, in which the product's costs are")


def _too_long(request: DecideRequest) -> list[FieldViolation]:
    return [
        FieldViolation(field, f"must have at most {limit} characters")
        for field, limit in _TEXT_MAX.items()
        if len(getattr(request, field)) > limit
    ]


def _dense(request: DecideRequest, serving: Serving) -> list[FieldViolation]:
    schema = serving.generation.schema
    violations: list[FieldViolation] = []
    if request.schema_fingerprint != schema.fingerprint:
        stated = "is missing" if not request.schema_fingerprint else "is of another schema"
        violations.append(
            FieldViolation(
                "schema_fingerprint",
                f"{stated}; generation {serving.generation.product.generation} "
                f"has {schema.fingerprint}",
            )
        )
    if len(request.dense) != schema.row_bytes:
        violations.append(
            FieldViolation(
                "dense",
                f"has {len(request.dense)} bytes, must be {schema.row_bytes}: "
                f"{len(schema.features)} float32",
            )
        )
    return violations


def _row_violations(serving: Serving, row: bytes) -> tuple[FieldViolation, ...]:
    _, checked = serving.generation.schema.matrix([row])
    return checked[0].violations if checked else ()
