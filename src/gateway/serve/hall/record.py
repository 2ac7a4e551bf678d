"""Answers and refusals as journal entries."""

from __future__ import annotations

from math import inf, nan

from gateway.decide import draw, draw_key
from gateway.journal import DECISION_HEAD, Flag, Kind, Refused
from gateway.serve.hall.admit import Payment, Refusal
from gateway.serve.hall.answer import Answer
from gateway.v1.decision_pb2 import DecideRequest

_EXPIRED, _FEATURES_LEFT_OUT = int(Flag.EXPIRED), int(Flag.FEATURES_LEFT_OUT)
# The bits that a decision's flags and an entry's flags share.
_DECISIONS_FLAGS = int(Flag.NEAR_TIE | Flag.EXPLORED | Flag.OVERRIDDEN)
_KEPT = draw_key("records.features", "")


def decision_record(answer: Answer, response: bytes, after_ns: int) -> bytes:
    """Lay out a DECISION entry: the request and the response as they are, and the rest.

    `after_ns`: when it is handed to the writer, in nanoseconds after arrival.
    """
    payment, decision = answer.payment, answer.decision
    serving, request, flags = payment.serving, payment.payload, 0
    if payment.row is None:
        flags = _FEATURES_LEFT_OUT
    elif not serving.keeps_features:
        request, flags = _without_features(payment)
    if decision is not None:
        second_best, margin = decision.second_best, decision.margin
        probability, propensity = decision.probability, decision.propensity
        flags |= decision.flags & _DECISIONS_FLAGS
    else:
        second_best, margin, probability, propensity = 0, inf, nan, 1.0
        if payment.deadline_ns <= payment.arrival.at_ns:
            flags |= _EXPIRED
    head = DECISION_HEAD.pack(
        Kind.DECISION,
        flags,
        answer.action,
        second_best,
        answer.stand_in,
        serving.index,
        serving.number,
        answer.batch_size,
        payment.arrival.at_ns,
        max(int(payment.deadline_ns), 0),
        *answer.stamps,
        after_ns,
        answer.score,
        probability,
        propensity,
        margin,
        len(payment.traceparent),
        serving.arm,
        len(request),
        len(response),
    )
    return b"".join((head, payment.traceparent, request, response))


def refusal_record(refusal: Refusal, after_ns: int) -> bytes:
    """Lay out a REFUSED entry: what broke a rule, and none of the request's values."""
    return Refused(
        arrival_ns=refusal.arrival.at_ns,
        refused_after_ns=after_ns,
        code=refusal.code,
        product=refusal.product,
        traceparent=refusal.traceparent.decode(),
        fields=refusal.fields,
    ).encode()


def _without_features(payment: Payment) -> tuple[bytes, int]:
    """Return the request as `records.features` keeps it, and the flag that says so."""
    share = payment.serving.generation.product.records.share
    if share is not None and draw(payment.transaction_id, _KEPT) < share:
        return payment.payload, 0
    request = DecideRequest.FromString(payment.payload)
    request.ClearField("features")
    request.ClearField("dense")
    request.DiscardUnknownFields()
    return request.SerializeToString(), _FEATURES_LEFT_OUT
