"""From a caller's message to a label or an attribute, or to everything that is wrong with it.

No text of a violation holds a value that the caller sent. Pure: the clock, the key of the
pseudonyms and the products that are served are given.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

from gateway.journal import parse_decision_id
from gateway.pan import holds_pan
from gateway.product import EXPONENTS
from gateway.product.suggest import suggest
from gateway.sidecar.feedback.label import KINDS, Attribute, Label
from gateway.v1.decision_pb2 import Action
from gateway.v1.feedback_pb2 import FeedbackEvent, FeedbackKind, Liable, SubjectAttribute

AHEAD_US_MAX = 86_400_000_000
"""A time may be this far ahead of the sidecar's clock: a source's may go wrong, by a zone too."""

TEXT_MAX = {
    "transaction_id": 128,
    "source_event_id": 128,
    "supersedes": 128,
    "subject": 256,
    "value": 128,
}
"""Characters."""

_SOURCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}", re.ASCII)
_ATTRIBUTE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", re.ASCII)  # as product.yaml's
_CATEGORY = re.compile(r"[0-9]{4}", re.ASCII)
_GUARDED = ("source", "source_event_id", "supersedes", "subject", "value")
"""Not `transaction_id`, which is the caller's own key: the gateway does not search it either."""

_US_MAX = 2**62

LOOKS_LIKE_A_PAN = "looks like a payment card number"


class Violation(NamedTuple):
    """What keeps a message out. `field`: its name in the contract."""

    field: str
    description: str


Violations = tuple[Violation, ...]


def admit(
    event: FeedbackEvent,
    *,
    now_us: int,
    products: Collection[str],
    pseudonym: Callable[[str], str],
) -> Label | Violations:
    """Return an event as a label, or its violations. `now_us`: wall time."""
    violations = tuple(_wrong_with(event, now_us, products))
    if violations:
        return violations
    return Label(
        event.product,
        event.transaction_id,
        event.decision_id,
        event.kind,
        _us(event.occurred_time),
        _us(event.reported_time),
        event.amount if event.HasField("amount") else None,
        event.currency,
        event.liable,
        event.source,
        event.source_event_id,
        event.supersedes,
        event.action,
        event.category,
        pseudonym(event.subject) if event.subject else "",
    )


def admit_attribute(
    message: SubjectAttribute, *, now_us: int, pseudonym: Callable[[str], str]
) -> Attribute | Violations:
    """Return an attribute as it is kept, or its violations. `now_us`: wall time."""
    violations = (
        *_texts(message, "subject", "value", required=("subject", "value")),
        *_attribute_name(message.attribute),
        *_source(message.source),
        *_time(message, "reported_time", now_us),
    )
    if violations:
        return violations
    return Attribute(
        pseudonym(message.subject),
        message.attribute,
        message.value,
        _us(message.reported_time),
        message.source,
    )


def _wrong_with(
    event: FeedbackEvent, now_us: int, products: Collection[str]
) -> Iterator[Violation]:
    yield from _product(event.product, products)
    yield from _payment(event)
    if event.kind not in KINDS:
        known = ", ".join(name.upper() for name in KINDS.values())
        yield Violation("kind", f"is {'unknown' if event.kind else 'missing'}, must be of {known}")
    times = [*_time(event, "occurred_time", now_us), *_time(event, "reported_time", now_us)]
    yield from times
    if not times and _us(event.reported_time) < _us(event.occurred_time):
        yield Violation("reported_time", "is before occurred_time")
    yield from _money(event)
    if event.liable not in Liable.values():
        yield Violation("liable", "is unknown, must be ISSUER, MERCHANT or CUSTOMER")
    yield from _source(event.source)
    yield from _texts(event, "source_event_id", "supersedes", required=("source_event_id",))
    yield from _texts(event, "subject")
    if event.supersedes and event.supersedes == event.source_event_id:
        yield Violation("supersedes", "is the event itself")
    if event.kind == FeedbackKind.WITHDRAWN and not event.supersedes:
        yield Violation("supersedes", "is missing: WITHDRAWN takes an earlier event back")
    yield from _advice(event)


def _product(name: str, products: Collection[str]) -> Iterator[Violation]:
    if not name:
        yield Violation("product", "is missing")
    elif name not in products:
        hint = suggest(name, sorted(products)) or "This gateway has served none yet."
        yield Violation("product", f"is none that this gateway serves. {hint}")


def _payment(event: FeedbackEvent) -> Iterator[Violation]:
    is_advice = event.kind == FeedbackKind.STAND_IN_ADVICE
    if event.decision_id and is_advice:
        yield Violation("decision_id", "cannot be: the gateway decided nothing here")
    elif event.decision_id and not _is_decision_id(event.decision_id):
        yield Violation("decision_id", "is none, such as 0123456789abcdef-07-00000000002a")
    if not event.transaction_id and (is_advice or not event.decision_id):
        more = "" if is_advice else ", and so is decision_id: give one"
        yield Violation("transaction_id", f"is missing{more}")
    yield from _texts(event, "transaction_id")


def _is_decision_id(text: str) -> bool:
    try:
        parse_decision_id(text)
    except ValueError:
        return False
    return True


def _money(event: FeedbackEvent) -> Iterator[Violation]:
    if event.amount < 0:
        yield Violation("amount", "must not be negative")
    if event.HasField("amount") and not event.currency:
        yield Violation("currency", "is missing: the amount has none")
    elif event.currency and not event.HasField("amount"):
        yield Violation("amount", "is missing: there is a currency")
    elif event.currency and event.currency not in EXPONENTS:
        yield Violation("currency", "is no active ISO 4217 code, such as USD")


def _advice(event: FeedbackEvent) -> Iterator[Violation]:
    """Check what only calls that never reached the gateway have: their decisions have the rest."""
    if event.kind == FeedbackKind.STAND_IN_ADVICE:
        if not event.action:
            yield Violation("action", "is missing: what did the caller do?")
        elif event.action not in Action.values():
            yield Violation("action", "is unknown, must be APPROVE, STEP_UP, REVIEW or DECLINE")
        if event.category and not _CATEGORY.fullmatch(event.category):
            yield Violation("category", "must be a four-digit MCC, or empty")
        return
    for field in ("action", "category"):
        if getattr(event, field):
            yield Violation(field, "is of STAND_IN_ADVICE alone: a decision has its own")


def _source(name: str) -> Iterator[Violation]:
    if not name:
        yield Violation("source", "is missing")
    elif not _SOURCE.fullmatch(name):
        yield Violation("source", "must be at most 64 letters, digits and . _ : / -")
    elif holds_pan(name):
        yield Violation("source", LOOKS_LIKE_A_PAN)


def _attribute_name(name: str) -> Iterator[Violation]:
    if not name:
        yield Violation("attribute", "is missing")
    elif not _ATTRIBUTE.fullmatch(name):
        yield Violation("attribute", "must be a name such as age_band, as in product.yaml")
    elif holds_pan(name):
        yield Violation("attribute", LOOKS_LIKE_A_PAN)


def _texts(message: Any, *fields: str, required: Collection[str] = ()) -> Iterator[Violation]:
    for field in fields:
        text, limit = getattr(message, field), TEXT_MAX[field]
        if not text:
            if field in required:
                yield Violation(field, "is missing")
        elif len(text) > limit:
            yield Violation(field, f"must have at most {limit} characters")
        elif field in _GUARDED and holds_pan(text):
            yield Violation(field, LOOKS_LIKE_A_PAN)


def _time(message: Any, field: str, now_us: int) -> Iterator[Violation]:
    if not message.HasField(field):
        yield Violation(field, "is missing")
        return
    stamp = getattr(message, field)
    if not (0 <= stamp.nanos < 10**9 and 0 < _us(stamp) < _US_MAX):
        yield Violation(field, "is no time after 1970")
    elif _us(stamp) > now_us + AHEAD_US_MAX:
        yield Violation(field, "is more than a day ahead of the sidecar's clock")


def _us(stamp: Any) -> int:
    return int(stamp.seconds * 1_000_000 + stamp.nanos // 1000)
