"""A label and a group attribute, as they are kept. Pure.

Texts that are not there are empty; times are microseconds since the epoch; a subject is its keyed
pseudonym already.
"""

from __future__ import annotations

from typing import NamedTuple

from gateway.v1.feedback_pb2 import FeedbackKind, Liable

KINDS = {number: name.lower() for name, number in FeedbackKind.items() if number}
"""By number: `chargeback`, as product.yaml, the lake and metrics say it."""

LIABLE = {number: name.lower() for name, number in Liable.items() if number}


class Label(NamedTuple):
    """What one source says became of one payment. Its key is (source, source_event_id)."""

    product: str
    transaction_id: str
    decision_id: str
    kind: int
    occurred_us: int
    reported_us: int
    amount_minor: int | None
    currency: str
    liable: int
    source: str
    source_event_id: str
    supersedes: str
    action: int
    category: str
    subject: str


class Attribute(NamedTuple):
    """A group that a subject belongs to. Its key is all but the value."""

    subject: str
    attribute: str
    value: str
    reported_us: int
    source: str


class KeptLabel(NamedTuple):
    """A label on the disk. `sequence`: its place among all labels of its store, from 1."""

    sequence: int
    received_us: int
    label: Label


class KeptAttribute(NamedTuple):
    """An attribute on the disk. `sequence`: its place among all attributes of its store."""

    sequence: int
    received_us: int
    attribute: Attribute
