"""What one payment gets, before it is laid out as a response and a record."""

from __future__ import annotations

from math import nan
from typing import NamedTuple

from gateway.decide import Decision
from gateway.product import StandIn
from gateway.serve.admit import Payment

Stamps = tuple[int, int, int, int]
"""Ends of admit, encode, infer and decide of one batch: ns after arrival, fitting a u32."""


class Answer(NamedTuple):
    """The model's decision, or a stand-in and its reason.

    `score` is the model's output as it came, NaN for a stand-in; `batch_size` how many rows
    went through the model with it, 0 where it did not.
    """

    payment: Payment
    action: int
    decision: Decision | None
    score: float
    stand_in: StandIn
    stamps: Stamps
    batch_size: int
    defaulted: bool


def stood_in(payment: Payment, reason: StandIn, stamps: Stamps, batch_size: int) -> Answer:
    """Return what the product chose beforehand for `reason`."""
    policy = payment.serving.generation.policy
    action = policy.stand_in(reason, payment.amount_minor, payment.category)
    return Answer(payment, action, None, nan, reason, stamps, batch_size, False)
