"""The first stage: from a caller's bytes to a payment that can be decided, or a refusal.

All violations of a request stand in one answer. No text of a refusal holds a value that
the caller sent, but its own field names.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from math import inf, nan
from typing import Any, NamedTuple

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError, Message
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status

from gateway.decide import Policy, draw, draw_key
from gateway.journal import UNKNOWN_PRODUCT
from gateway.model import LOOKS_LIKE_A_PAN, Arm, Classifier, FieldViolation, Generation
from gateway.pan import holds_pan, masked
from gateway.serve.fronts.front import MESSAGE_BYTES_MAX, METADATA_BYTES_MAX, Event, Metadata
from gateway.serve.hall.head import DecideRequestHead
from gateway.serve.hall.response import ResponseEncoder
from gateway.v1.decision_pb2 import DecideRequest, FeatureValue

INVALID_ARGUMENT: int = grpc.StatusCode.INVALID_ARGUMENT.value[0]
NOT_FOUND: int = grpc.StatusCode.NOT_FOUND.value[0]
RESOURCE_EXHAUSTED: int = grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]

AHEAD_S_MAX = 86_400.0
"""event_time may be this far ahead of the gateway's clock; a retry or replay may be old."""

TRANSACTION_ID_MAX, CHANNEL_MAX, SUBJECT_MAX = 128, 64, 256
"""Characters."""

DETAILS_BYTES_MAX = 4096
"""Details travel in the trailers, of which a client takes 8 KiB: more would hide the code."""

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(frozen=True, slots=True, eq=False)
class Serving:
    """One product generation as the hall holds it, with the arm that decides.

    `index` is its place in the journal's table of products, `number` its generation, `arm` the
    place of the arm among the generation's models, `lane` the place of both in the hall, and `key`
    their name. `canaries` are asked first, in their order; `beside` are the arms that score what
    this one decides, with their places.
    """

    generation: Generation
    index: int
    arm: int
    lane: int
    key: str
    classifier: Classifier
    policy: Policy
    responses: ResponseEncoder
    budget_ns: int
    currency: str
    number: int
    keeps_features: bool
    masks_pans: bool
    transaction_id: re.Pattern[str] | None
    canaries: tuple[Canary, ...]
    beside: tuple[tuple[int, Arm], ...]

    @staticmethod
    def of(generation: Generation, index: int) -> Serving:
        """Compile what the hot path needs of a generation; its champion decides."""
        left, canaries = 1.0, []
        for place, arm in enumerate(generation.arms):
            if arm.mode == "canary":
                # Of what those before it left. Its own key: who it has stays with it as it grows.
                key = draw_key("canary", f"{generation.name}/{arm.name}")
                share = min(arm.share / left, 1.0) if left > 0.0 else 0.0
                left -= arm.share
                canaries.append(Canary(key, share, _serving(generation, index, place)))
        return _serving(generation, index, 0, tuple(canaries))

    @property
    def deciding(self) -> tuple[Serving, ...]:
        """The champion's and each canary's."""
        return (self, *(canary.serving for canary in self.canaries))

    def drawn(self, subject: str) -> Serving:
        """Return the arm that decides a subject's payments: a keyed hash, so that it stays."""
        for canary in self.canaries:
            if draw(subject, canary.key) < canary.share:
                return canary.serving
        return self


@dataclass(frozen=True, slots=True, eq=False)
class Canary:
    """An arm that decides its share, by a draw of the subject; the share is of what it is asked."""

    key: bytes
    share: float
    serving: Serving


def arm_key(generation: Generation, place: int) -> str:
    """Return an arm's name among all: the product's for its champion, else with its own."""
    return generation.name if place == 0 else f"{generation.name}/{generation.arms[place].name}"


def _serving(
    generation: Generation, index: int, place: int, canaries: tuple[Canary, ...] = ()
) -> Serving:
    product, arm = generation.product, generation.arms[place]
    pattern = product.transaction_id.pattern
    return Serving(
        generation=generation,
        index=index,
        arm=place,
        lane=index << 8 | place,
        key=arm_key(generation, place),
        classifier=arm.classifier,
        policy=arm.policy,
        responses=ResponseEncoder(generation, arm),
        budget_ns=round(product.latency.budget_ms * 1e6),
        currency=product.costs.currency,
        number=product.generation,
        keeps_features=product.records.features == "full",
        masks_pans=product.pan_guard == "mask",
        transaction_id=None if pattern is None else re.compile(pattern),
        canaries=canaries,
        beside=tuple((i, one) for i, one in enumerate(generation.arms) if i != place),
    )


class Arrival:
    """What arrived together: monotonic times in nanoseconds, and the wall clock's in seconds.

    `at_ns` is when the earliest of it can have come, `drained_ns` when the loop found it, and
    `admitted_ns`, set once all of it is read, when that was done.
    """

    __slots__ = ("admitted_ns", "at_ns", "drained_ns", "wall_s")

    def __init__(self, at_ns: int, drained_ns: int, wall_s: float) -> None:
        self.at_ns = at_ns
        self.drained_ns = drained_ns
        self.wall_s = wall_s
        self.admitted_ns = drained_ns


class Payment(NamedTuple):
    """An admitted call. `row` is its features as the model's bytes; times are monotonic.

    `payload` is the request laid out anew: what the caller's bytes held besides the fields of
    a DecideRequest, and fields that stood there twice, are not in it. Where `row` is None the
    features were not read, and are not in it either: the call can only be stood in for.
    """

    call_id: Any
    serving: Serving
    payload: bytes
    traceparent: bytes
    arrival: Arrival
    deadline_ns: float
    transaction_id: str
    amount_minor: int
    category: str
    event_s: float
    row: bytes | None
    defaulted: bool


class Refusal(NamedTuple):
    """A call that is the caller's to mend. `fields` names what broke a rule, never a value."""

    call_id: Any
    arrival: Arrival
    code: int
    message: str
    details: bytes | None
    product: int
    fields: tuple[str, ...]
    traceparent: bytes


def admit(
    event: Event, arrival: Arrival, served: Mapping[str, Serving], closed: Container[int] = ()
) -> Payment | Refusal:
    """Decode and check one Decide call.

    The deadline is the earlier of the caller's, counted from when the call was found, and the
    product's budget, counted from when it arrived. The features of a call whose lane is in
    `closed` are not read: it will be stood in for.
    """
    _, call_id, _, payload, _, details = event
    traceparent, seconds_left = b"", None
    if details is not None:
        metadata, _, seconds_left = details
        traceparent, metadata_bytes = _read(metadata)
        if metadata_bytes > METADATA_BYTES_MAX:
            message = f"the metadata are too long: at most {METADATA_BYTES_MAX} bytes are taken"
            return _refusal(call_id, arrival, RESOURCE_EXHAUSTED, message, traceparent)
    if payload is None or len(payload) > MESSAGE_BYTES_MAX:
        message = f"the message is too long: at most {MESSAGE_BYTES_MAX} bytes are taken"
        return _refusal(call_id, arrival, RESOURCE_EXHAUSTED, message, traceparent)
    request: DecideRequest | DecideRequestHead
    try:
        if closed:
            request, serving = _decoded(payload, served, closed)
        else:
            request = DecideRequest.FromString(payload)
            serving = _served(request, served)
    except DecodeError:
        message = "not a DecideRequest"
        return _refusal(call_id, arrival, INVALID_ARGUMENT, message, traceparent)
    if serving is None:
        return _unknown_product(call_id, arrival, request.product, served, traceparent)

    when = request.event_time
    event_s = when.seconds + when.nanos * 1e-9
    violations = _violations(request, serving, event_s, arrival.wall_s)
    row, defaulted = None, False
    if isinstance(request, DecideRequest):
        row, wrong, defaulted = _features(request, serving)
        if row is not None and (wrong or violations):
            fields = {violation.field for violation in wrong}
            wrong += [v for v in _row_violations(serving, row) if v.field not in fields]
        violations += wrong
    if violations:
        return refused_for(call_id, arrival, violations, serving, traceparent)

    request.DiscardUnknownFields()
    deadline_ns: float = arrival.at_ns + serving.budget_ns
    if seconds_left is not None:
        # A deadline that is over already is dated to the beginning of time.
        callers_ns = arrival.drained_ns + seconds_left * 1e9 if seconds_left > 0.0 else 0.0
        deadline_ns = min(deadline_ns, callers_ns)
    return Payment(
        call_id,
        serving,
        request.SerializeToString(),
        traceparent,
        arrival,
        deadline_ns,
        request.transaction_id,
        request.amount,
        request.category,
        event_s,
        row,
        defaulted,
    )


def _decoded(
    payload: bytes, served: Mapping[str, Serving], closed: Container[int]
) -> tuple[DecideRequest | DecideRequestHead, Serving | None]:
    """Return the request, without its features where its product is closed, and its product."""
    head = DecideRequestHead.FromString(payload)
    serving = _served(head, served)
    if serving is None or serving.lane in closed:
        return head, serving
    request = DecideRequest.FromString(payload)
    return request, _served(request, served)


def _served(
    request: DecideRequest | DecideRequestHead, served: Mapping[str, Serving]
) -> Serving | None:
    """Return what decides a call: who has no subject is told apart by the transaction."""
    serving = served.get(request.product)
    if serving is not None and serving.canaries:
        return serving.drawn(request.subject or request.transaction_id)
    return serving


def _violations(
    request: DecideRequest | DecideRequestHead, serving: Serving, event_s: float, wall_s: float
) -> list[FieldViolation]:
    """Check everything but the features; mask card numbers where the product says so."""
    violations: list[FieldViolation] = []
    transaction_id, category = request.transaction_id, request.category
    subject, channel = request.subject, request.channel
    if not 0.0 < event_s <= wall_s + AHEAD_S_MAX or not 0 <= request.event_time.nanos < 10**9:
        violations.append(_event_time(request, event_s))
    if request.amount < 0:
        violations.append(FieldViolation("amount", "must not be negative"))
    if request.currency != serving.currency:
        violations.append(_currency(request, serving.currency))
    if category and not (len(category) == 4 and category.isdigit() and category.isascii()):
        violations.append(FieldViolation("category", "must be a four-digit MCC, or empty"))
    if (
        not 0 < len(transaction_id) <= TRANSACTION_ID_MAX
        or len(channel) > CHANNEL_MAX
        or len(subject) > SUBJECT_MAX
    ):
        violations += _lengths(request)
        return violations
    if serving.transaction_id and not serving.transaction_id.fullmatch(transaction_id):
        pattern = "must match the product's transaction_id.pattern"
        violations.append(FieldViolation("transaction_id", pattern))
    if holds_pan(subject) or holds_pan(channel):
        violations += _guarded(request, serving)
    return violations


def _features(
    request: DecideRequest, serving: Serving
) -> tuple[bytes | None, list[FieldViolation], bool]:
    """Return the features as a row, None where there is none; what is wrong; was one defaulted."""
    schema, dense = serving.generation.schema, request.dense
    if dense:
        row, wrong = None, []
        if request.schema_fingerprint != schema.fingerprint or len(dense) != schema.dense_bytes:
            wrong = _dense(request, serving)
        else:
            row = schema.from_dense(dense)
        if request.features:
            wrong.append(FieldViolation("features", "and dense are both given: send one"))
        return row, wrong, False
    row, wrong, defaulted, pans = schema.encode(_named(request))
    if request.schema_fingerprint not in ("", schema.fingerprint):
        wrong.append(_fingerprint(serving))
    if pans:
        wrong += _guarded_features(request, pans, serving)
    return row, wrong, defaulted


def refused_for(
    call_id: Any,
    arrival: Arrival,
    violations: Sequence[FieldViolation],
    serving: Serving,
    traceparent: bytes,
) -> Refusal:
    """Refuse a call of a known product for all its violations."""
    message = summary(violations)
    return Refusal(
        call_id,
        arrival,
        INVALID_ARGUMENT,
        message,
        bad_request(INVALID_ARGUMENT, message, violations),
        serving.index,
        tuple(violation.field for violation in violations),
        traceparent,
    )


def bad_request(code: int, message: str, violations: Sequence[FieldViolation]) -> bytes:
    """Return an encoded google.rpc.Status with every violation as a BadRequest."""
    bad = BadRequest()
    for i, (field, description) in enumerate(violations):
        bad.field_violations.add(field=field, description=description)
        if bad.ByteSize() > DETAILS_BYTES_MAX and i + 1 < len(violations):
            more = f"{len(violations) - i - 1} more violations do not fit the answer"
            bad.field_violations.add(field="...", description=more)
            break
    return _status(code, message, bad)


def retry_info(code: int, message: str, retry_ms: int) -> bytes:
    """Return an encoded google.rpc.Status that says when to try again."""
    info = RetryInfo()
    info.retry_delay.FromMilliseconds(retry_ms)
    return _status(code, message, info)


def _status(code: int, message: str, content: Message) -> bytes:
    detail = AnyMessage()
    detail.Pack(content)
    encoded: bytes = Status(code=code, message=message, details=[detail]).SerializeToString()
    return encoded


def summary(violations: Sequence[FieldViolation]) -> str:
    """Say the violations in one line, for callers that do not read details."""
    shown = "; ".join(f"{field} {description}" for field, description in violations[:5])
    count = len(violations)
    rest = f"; and {count - 5} more" if count > 5 else ""
    return f"{count} violation{'s' if count > 1 else ''}: {shown}{rest}"


def _refusal(
    call_id: Any, arrival: Arrival, code: int, message: str, traceparent: bytes
) -> Refusal:
    return Refusal(call_id, arrival, code, message, None, UNKNOWN_PRODUCT, (), traceparent)


def _unknown_product(
    call_id: Any, arrival: Arrival, name: str, served: Mapping[str, Serving], traceparent: bytes
) -> Refusal:
    if name:
        message = f"no such product; served: {', '.join(sorted(served))}"
        return _refusal(call_id, arrival, NOT_FOUND, message, traceparent)
    missing = [FieldViolation("product", "is missing")]
    message = summary(missing)
    details = bad_request(INVALID_ARGUMENT, message, missing)
    return Refusal(
        *(call_id, arrival, INVALID_ARGUMENT, message, details),
        *(UNKNOWN_PRODUCT, ("product",), traceparent),
    )


def _read(metadata: Metadata) -> tuple[bytes, int]:
    """Return the caller's W3C trace context, and what its metadata take (RFC 9113, 6.5.2).

    Nothing for a context that is absent or malformed.
    """
    traceparent, size = b"", 32 * len(metadata)
    for key, value in metadata:
        size += len(key) + len(value)
        if key == "traceparent" and isinstance(value, str) and _TRACEPARENT.fullmatch(value):
            traceparent = value.encode()
    return traceparent, size


def _event_time(request: DecideRequest | DecideRequestHead, event_s: float) -> FieldViolation:
    if not request.HasField("event_time"):
        return FieldViolation("event_time", "is missing")
    if not 0.0 < event_s < inf or not 0 <= request.event_time.nanos < 1_000_000_000:
        return FieldViolation("event_time", "is no time after 1970")
    return FieldViolation("event_time", "is more than a day ahead of the gateway's clock")


def _currency(request: DecideRequest | DecideRequestHead, expected: str) -> FieldViolation:
    if not request.currency:
        return FieldViolation("currency", f"is missing, must be {expected}")
    return FieldViolation("currency", f"must be {expected}, in which the product's costs are")


def _lengths(request: DecideRequest | DecideRequestHead) -> list[FieldViolation]:
    violations: list[FieldViolation] = []
    if not request.transaction_id:
        violations.append(FieldViolation("transaction_id", "is missing"))
    for field, limit in (
        ("transaction_id", TRANSACTION_ID_MAX),
        ("channel", CHANNEL_MAX),
        ("subject", SUBJECT_MAX),
    ):
        if len(getattr(request, field)) > limit:
            violations.append(FieldViolation(field, f"must have at most {limit} characters"))
    return violations


def _value(value: FeatureValue) -> float | str:
    match value.WhichOneof("kind"):
        case "number":
            return value.number
        case "text":
            return value.text
    return nan  # neither: missing


def _named(request: DecideRequest) -> dict[str, float | str]:
    return {name: _value(value) for name, value in request.features.items()}


def _dense(request: DecideRequest, serving: Serving) -> list[FieldViolation]:
    schema = serving.generation.schema
    violations: list[FieldViolation] = []
    if request.schema_fingerprint != schema.fingerprint:
        violations.append(_fingerprint(serving, missing=not request.schema_fingerprint))
    if len(request.dense) != schema.dense_bytes:
        violations.append(
            FieldViolation(
                "dense",
                f"has {len(request.dense)} bytes, must be {schema.dense_bytes}: "
                f"{len(schema.features)} float32",
            )
        )
    return violations


def _fingerprint(serving: Serving, *, missing: bool = False) -> FieldViolation:
    generation = serving.generation
    return FieldViolation(
        "schema_fingerprint",
        f"{'is missing' if missing else 'is of another schema'}; generation "
        f"{generation.product.generation} has {generation.schema.fingerprint}",
    )


def _guarded(request: DecideRequest | DecideRequestHead, serving: Serving) -> list[FieldViolation]:
    """Mask the card numbers in a request's own texts, or say where they are."""
    found = [name for name in ("subject", "channel") if holds_pan(getattr(request, name))]
    if not serving.masks_pans:
        return [FieldViolation(name, LOOKS_LIKE_A_PAN) for name in found]
    for name in found:
        setattr(request, name, masked(getattr(request, name)))
    return []


def _guarded_features(
    request: DecideRequest, names: Sequence[str], serving: Serving
) -> list[FieldViolation]:
    if not serving.masks_pans:
        return [FieldViolation(f"features[{name}]", LOOKS_LIKE_A_PAN) for name in names]
    for name in names:
        request.features[name].text = masked(request.features[name].text)
    return []


def _row_violations(serving: Serving, row: bytes) -> tuple[FieldViolation, ...]:
    _, checked = serving.generation.schema.matrix([row])
    return checked[0].violations if checked else ()
