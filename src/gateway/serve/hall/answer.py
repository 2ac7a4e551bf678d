"""What one payment gets, before it is laid out as a response and a record."""

from __future__ import annotations

from math import nan
from typing import NamedTuple

from gateway.decide import Decision
from gateway.journal import U32_MAX, saturated
from gateway.product import StandIn
from gateway.serve.hall.admit import Payment

Stamps = tuple[int, int, int, int]
"""Ends of admit, encode, infer and decide: ns after arrival, fitting a u32."""


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


def stood_in_at_once(payment: Payment, reason: StandIn, now_ns: int) -> Answer:
    """Return the stand-in of a payment that did not come to its model."""
    return stood_in(payment, reason, stamps_of(payment, now_ns, now_ns, now_ns), 0)


def stamps_of(payment: Payment, encode_ns: int, infer_ns: int, decide_ns: int) -> Stamps:
    """Return the ends of a payment's stages, given on the clock, from its arrival on."""
    arrival = payment.arrival
    arrived_ns = arrival.at_ns
    stamps = (
        arrival.admitted_ns - arrived_ns,
        encode_ns - arrived_ns,
        infer_ns - arrived_ns,
        decide_ns - arrived_ns,
    )
    if stamps[3] <= U32_MAX:
        return stamps
    admit, encode, infer, decide = map(saturated, stamps)
    return admit, encode, infer, decide
