"""What becomes of the demo's payments, reported to the sidecar as anybody's systems would."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp

from gateway.demo.payment import Payment
from gateway.demo.reports import Report, reports
from gateway.errors import GatewayError, UnreachableError
from gateway.v1.feedback_pb2 import (
    FeedbackEvent,
    ReportAttributesRequest,
    ReportFeedbackRequest,
    SubjectAttribute,
)
from gateway.v1.feedback_pb2_grpc import FeedbackServiceStub

MESSAGES = 1000
"""Of a request; the sidecar takes no more."""

TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Answered:
    """A payment and what was answered. `action` and `decision_id`: empty where nothing was.

    `key`: what the sources' ids of its events begin with; no run of digits in it may pass for a
    card number.
    """

    payment: Payment
    transaction_id: str
    decision_id: str
    action: str
    key: str


def report(
    address: str, answered: Sequence[Answered], rng: np.random.Generator, *, until_s: float
) -> int:
    """Tell the sidecar at `address` what is known by `until_s`. Return how much it took.

    Raises:
        UnreachableError: it does not answer.
        GatewayError: it refuses an event.
    """
    told = reports(
        [one.payment for one in answered],
        [one.action for one in answered],
        rng,
        until_s=until_s,
    )
    events = (
        _event(one, said) for one, found in zip(answered, told, strict=True) for said in found
    )
    with grpc.insecure_channel(address) as channel:
        stub = FeedbackServiceStub(channel)  # type: ignore[no-untyped-call]
        return sum(
            _taken(stub.ReportFeedback, ReportFeedbackRequest(events=some), address)
            for some in _in_requests(events)
        )


def report_attributes(address: str, attributes: Iterator[SubjectAttribute]) -> int:
    """Tell the sidecar which groups subjects belong to. Returns and raises as `report`."""
    with grpc.insecure_channel(address) as channel:
        stub = FeedbackServiceStub(channel)  # type: ignore[no-untyped-call]
        return sum(
            _taken(stub.ReportAttributes, ReportAttributesRequest(attributes=some), address)
            for some in _in_requests(attributes)
        )


def timestamp(unix_s: float) -> Timestamp:
    """Return a moment as protobuf has it."""
    return Timestamp(seconds=int(unix_s), nanos=int(unix_s % 1 * 1e9))


def _event(one: Answered, said: Report) -> FeedbackEvent:
    return FeedbackEvent(
        product=one.payment.product,
        transaction_id=one.transaction_id,
        decision_id=one.decision_id,
        kind=said.kind.upper(),
        occurred_time=timestamp(said.occurred_s),
        reported_time=timestamp(said.reported_s),
        amount=said.amount_minor,
        currency="" if said.amount_minor is None else one.payment.currency,
        liable=said.liable.upper() or None,
        source=said.source,
        source_event_id=f"{one.key}-{said.key}",
        supersedes=f"{one.key}-{said.supersedes}" if said.supersedes else "",
    )


def _in_requests(messages: Iterator[Any]) -> Iterator[list[Any]]:
    some: list[Any] = []
    for one in messages:
        some.append(one)
        if len(some) == MESSAGES:
            yield some
            some = []
    if some:
        yield some


def _taken(call: Callable[..., Any], request: Any, address: str) -> int:
    """Send a request, and return how many of it are on disk there."""
    try:
        answer = call(request, timeout=TIMEOUT_S)
    except grpc.RpcError as error:
        code = error.code().name
        raise UnreachableError(f"the sidecar takes no labels: {code}", subject=address) from None
    if answer.refused:
        first = answer.violations[0]
        raise GatewayError(
            f"{answer.refused:,} labels are refused: {first.field} {first.description}",
            subject=address,
        )
    return int(answer.accepted)
