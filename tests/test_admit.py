"""Whatever bytes arrive, admission gives a payment or a refusal, and leaks nothing."""

from __future__ import annotations

import time

import catalogue
import pytest
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.model import Generation
from gateway.serve.fronts.front import CALL, DECIDE
from gateway.serve.hall.admit import Arrival, Payment, Refusal, Serving, admit
from gateway.v1.decision_pb2 import DecideRequest

MS = 1_000_000
IN_ALL = 100.0 + catalogue.BUDGET_MS
"""When a call that arrived at 100 ms has had its budget."""


@pytest.fixture(scope="session")
def serving(generation: Generation) -> Serving:
    return Serving.of(generation, 0)


def admitted(
    serving: Serving, payload: bytes, seconds_left: float | None = None
) -> Payment | Refusal:
    return admit(
        (CALL, 1, DECIDE, payload, None, ((), "peer", seconds_left)),
        Arrival(100 * MS, 101 * MS, time.time()),
        {"test": serving},
    )


@given(payload=st.binary(max_size=300))
@settings(max_examples=500)
def test_random_bytes_are_refused_or_admitted(serving: Serving, payload: bytes) -> None:
    assert isinstance(admitted(serving, payload), Payment | Refusal)


@given(data=st.data())
@settings(max_examples=500)
def test_mutated_requests_are_refused_or_admitted(serving: Serving, data: st.DataObject) -> None:
    good = bytearray(catalogue.request(serving.generation.schema.fingerprint).SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(good) - 1))
        good[place] = data.draw(st.integers(0, 255))
    outcome = admitted(serving, bytes(good))
    if isinstance(outcome, Refusal) and outcome.details is not None:
        status = Status.FromString(outcome.details)
        bad = BadRequest()
        assert status.details[0].Unpack(bad)
        assert [one.field for one in bad.field_violations] == list(outcome.fields)


TEXT = st.text(max_size=20)


@given(
    asked=st.builds(
        DecideRequest,
        product=st.sampled_from(["test", "", "other"]),
        transaction_id=TEXT,
        amount=st.integers(-(2**63), 2**63 - 1),
        currency=st.sampled_from(["USD", "EUR", ""]),
        category=st.one_of(st.just("5411"), TEXT),
        channel=TEXT,
        subject=TEXT,
        dense=st.binary(max_size=24),
        schema_fingerprint=TEXT,
    )
)
@settings(max_examples=300)
def test_any_request_is_refused_or_admitted(serving: Serving, asked: DecideRequest) -> None:
    outcome = admitted(serving, asked.SerializeToString())
    if isinstance(outcome, Payment):
        assert outcome.amount_minor >= 0
        assert outcome.transaction_id
        assert len(outcome.row) == serving.generation.schema.dense_bytes


@pytest.mark.parametrize(
    ("seconds_left", "deadline_ms"),
    [(None, IN_ALL), (0.010, 111.0), (11.0, IN_ALL), (3e9, IN_ALL), (0.0, 0.0), (-1.0, 0.0)],
)
def test_the_deadline_is_the_earlier_one(
    serving: Serving, seconds_left: float | None, deadline_ms: float
) -> None:
    """The budget counts from arrival, the caller's deadline from now; over is over."""
    outcome = admitted(serving, catalogue.request().SerializeToString(), seconds_left)
    assert isinstance(outcome, Payment)
    assert outcome.deadline_ns == pytest.approx(deadline_ms * MS)


@pytest.mark.parametrize(
    ("seconds", "nanos", "says"),
    [
        (0, 0, "after 1970"),
        (-5, 0, "after 1970"),
        (2**60, 0, "ahead"),
        (1_700_000_000, -1, "after 1970"),
        (1_700_000_000, 2_000_000_000, "after 1970"),
    ],
)
def test_an_impossible_event_time_is_refused(
    serving: Serving, seconds: int, nanos: int, says: str
) -> None:
    asked = catalogue.request()
    asked.event_time.seconds, asked.event_time.nanos = seconds, nanos
    outcome = admitted(serving, asked.SerializeToString())
    assert isinstance(outcome, Refusal)
    assert outcome.fields == ("event_time",)
    assert says in outcome.message


def test_no_violation_is_left_for_a_second_answer(serving: Serving) -> None:
    """Dense features are checked too when something else is wrong already."""
    asked = catalogue.request(serving.generation.schema.fingerprint, currency="EUR")
    asked.dense = bytes(4) + b"\x00\x00\xc0\x7f" + b"\x00\x00\x80\x7f"  # 0, NaN, infinity
    outcome = admitted(serving, asked.SerializeToString())
    assert isinstance(outcome, Refusal)
    assert outcome.fields == ("currency", "features[entry_mode]")


SECRET = b"smuggled-value"


@pytest.mark.parametrize(
    "smuggled",
    [
        b"\x9a\x06\x0e" + SECRET,  # an unknown field of the request
        b"\x42\x0e" + SECRET + b"\x42\x01s",  # subject, twice: the last one counts
        b"\x1a\x10\x9a\x06\x0d" + SECRET[:13],  # an unknown field in event_time
        b"\x4a\x1d\x0a\x06amount\x12\x13\x9a\x06\x10" + SECRET + b"!!",  # and in a feature's value
    ],
)
def test_what_is_no_field_of_a_request_is_not_kept(serving: Serving, smuggled: bytes) -> None:
    good = catalogue.request()
    outcome = admitted(serving, smuggled + good.SerializeToString())
    assert isinstance(outcome, Payment)
    assert SECRET[:13] not in outcome.payload
    assert DecideRequest.FromString(outcome.payload) == good


@given(data=st.data())
@settings(max_examples=300)
def test_what_is_kept_is_the_request_and_nothing_else(
    serving: Serving, data: st.DataObject
) -> None:
    payload = bytearray(catalogue.request().SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(payload)))
        payload[at:at] = data.draw(st.binary(max_size=12))
    outcome = admitted(serving, bytes(payload))
    if isinstance(outcome, Payment):
        kept = DecideRequest.FromString(outcome.payload)
        kept.DiscardUnknownFields()
        assert len(kept.SerializeToString()) == len(outcome.payload)
