"""Whatever arrives, on either front: an action or a status each time, and the worker lives."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from math import inf, nan
from threading import Event

import fuzz
import grpc
import numpy as np
import pytest
from conftest import Running, Serve
from fuzz import ACTIONS, ANSWERED, DECIDE, EVENT_S, FEATURES, FINGERPRINT, NAMES, Ask, Tally
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.model import Generation, load_generation
from gateway.v1.decision_pb2 import DecideRequest, DecideResponse, FeatureValue

# No wall-clock deadlines: they time the machine. The same examples in every run.
REPEATABLE = settings(max_examples=200, deadline=None, derandomize=True, database=None)

ANY_TEXT = st.one_of(st.sampled_from(fuzz.TEXTS), st.text(max_size=300))
ANY_NUMBER = st.one_of(st.sampled_from(fuzz.NUMBERS), st.floats())
INT64 = st.one_of(st.sampled_from(fuzz.WHOLE), st.integers(-(2**63), 2**63 - 1))


def feature_value(kind: object) -> FeatureValue:
    if isinstance(kind, str):
        return FeatureValue(text=kind)
    return FeatureValue() if kind is None else FeatureValue(number=kind)


def with_features(asked: DecideRequest, features: dict[str, object]) -> DecideRequest:
    for name, value in features.items():
        asked.features[name].CopyFrom(feature_value(value))
    return asked


LEGAL_VALUES = {
    "amount": st.floats(-1e9, 1e9),  # clipped
    "ratio": st.floats(-(2.0**127), 2.0**127, width=32),
    "age_days": st.floats(-1000, 2.0**127, width=32),
    "tries": st.integers(0, 1000).map(float),
    "known": st.sampled_from([0.0, 1.0]),
    "entry_mode": st.sampled_from(["chip", "swipe", "keyed"]),
    "country": st.sampled_from(["DE", "ÖS", "US"]),
}
LEFT_OUT = st.sampled_from([feature["name"] for feature in FEATURES if "missing" in feature])
TRANSACTION_ID = st.text(min_size=1, max_size=128)


@st.composite
def legal_requests(draw: st.DrawFn) -> DecideRequest:
    """A request that keeps every rule."""
    asked = DecideRequest(
        product="test",
        transaction_id=draw(TRANSACTION_ID),
        event_time={
            "seconds": draw(st.integers(1, EVENT_S)),
            "nanos": draw(st.integers(0, 999_999_999)),
        },
        amount=draw(st.integers(0, 2**63 - 1)),
        currency="USD",
        category=draw(st.one_of(st.just(""), st.from_regex("[0-9]{4}", fullmatch=True))),
        channel=draw(st.text(max_size=64)),
        subject=draw(st.text("abcdef -", max_size=256)),
    )
    features = draw(st.fixed_dictionaries(LEGAL_VALUES))
    if draw(st.booleans()):
        asked.dense, asked.schema_fingerprint = dense(features), FINGERPRINT
        return asked
    for name in draw(st.sets(LEFT_OUT)):
        features[name] = None
    return with_features(asked, features)


def dense(features: dict[str, object]) -> bytes:
    row = [
        feature["values"].index(features[name]) if feature["type"] == "category" else features[name]
        for name, feature in zip(NAMES, FEATURES, strict=True)
    ]
    return np.array(row, dtype="<f4").tobytes()


ANY_FIELD = {
    **dict.fromkeys(("product", "transaction_id", "currency", "category", "channel"), ANY_TEXT),
    **dict.fromkeys(("subject", "schema_fingerprint"), ANY_TEXT),
    "amount": INT64,
    "dense": st.binary(max_size=60),
}
ANY_TIME = st.builds(Timestamp, seconds=INT64, nanos=st.integers(-(2**31), 2**31 - 1))
ANY_FEATURES = st.dictionaries(
    st.one_of(st.sampled_from(NAMES), ANY_TEXT),
    st.one_of(st.none(), ANY_NUMBER, ANY_TEXT),
    max_size=12,
)


@st.composite
def any_requests(draw: st.DrawFn) -> DecideRequest:
    """A legal request, and whatever in the place of some of its fields."""
    asked = draw(legal_requests())
    for name, value in draw(st.fixed_dictionaries({}, optional=ANY_FIELD)).items():
        setattr(asked, name, value)
    if draw(st.booleans()):
        asked.event_time.CopyFrom(draw(ANY_TIME))
    return with_features(asked, draw(ANY_FEATURES))


@pytest.fixture(scope="session")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Generation:
    return load_generation(fuzz.write_product(tmp_path_factory.mktemp("fuzz") / "test"))


def outcome(running: Running, asked: DecideRequest) -> str:
    """Send a request; return the name of the action or the status that came, or what else."""
    try:
        answer = running.channel.unary_unary(DECIDE)(asked.SerializeToString(), timeout=20)
    except grpc.RpcError as error:
        return error.code().name
    return fuzz.decided(answer, Counter())[0]


def test_any_request_gets_an_action_or_a_status(serve: Serve, fuzzed: Generation) -> None:
    with serve(fuzzed) as running:

        @REPEATABLE
        @given(asked=any_requests())
        def holds(asked: DecideRequest) -> None:
            assert outcome(running, asked) in ANSWERED

        holds()


def test_a_request_that_keeps_every_rule_gets_an_action(serve: Serve, fuzzed: Generation) -> None:
    with serve(fuzzed) as running:

        @REPEATABLE
        @given(asked=legal_requests())
        def holds(asked: DecideRequest) -> None:
            assert outcome(running, asked) in ACTIONS

        holds()


def test_a_seed_gives_the_same_requests_and_every_kind_of_them() -> None:
    first, second = (list(islice(fuzz.Requests(7), 3_000)) for _ in range(2))
    assert first == second
    assert len({ask.kind for ask in first}) == 27
    assert first != list(islice(fuzz.Requests(8), 3_000))


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server that answers by the status whose number it is sent, or with what it is sent."""
    monkeypatch.setattr(fuzz, "HANG_S", 0.3)
    release = Event()
    by_number = {code.value[0]: code for code in grpc.StatusCode}

    def decide(payload: bytes, context: grpc.ServicerContext) -> bytes:
        if payload == b"never":
            release.wait(60)
        if len(payload) == 1:
            context.abort(by_number[payload[0]], "")
        return payload

    handler = grpc.unary_unary_rpc_method_handler(decide)
    server = grpc.server(ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("gateway.v1.DecisionService", {"Decide": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    release.set()
    server.stop(None).wait()


def response(**changes: object) -> bytes:
    right = {"action": "APPROVE", "probability": 0.5, "recorded": True}
    return DecideResponse(**right | changes).SerializeToString()


def test_what_is_no_answer_is_a_fault(broken: str) -> None:
    """The fuzzer tells: this is the test of the test."""
    cost = {"action": "APPROVE", "cost": inf}
    faults = {
        bytes([grpc.StatusCode.UNKNOWN.value[0]]): "UNKNOWN",
        bytes([grpc.StatusCode.INTERNAL.value[0]]): "INTERNAL",
        bytes([grpc.StatusCode.CANCELLED.value[0]]): "CANCELLED",
        b"never": "HANG",
        b"\xff\xff": "NO RESPONSE",
        response(action=0): "NO ACTION",
        response(action=99): "NO ACTION",
        response(probability=nan): "NO NUMBER",
        response(expected_costs=[cost]): "NO NUMBER",
        response(recorded=False): "UNRECORDED",
    }
    sound = {
        response(): "APPROVE",
        bytes([grpc.StatusCode.NOT_FOUND.value[0]]): "NOT_FOUND",
    }
    tally = Tally()
    asks = enumerate(Ask(str(i), payload) for i, payload in enumerate([*faults, *sound]))
    asyncio.run(fuzz.send_all(broken, asks, tally, channels=1, in_flight=4))
    assert tally.done == len(faults) + len(sound)
    assert {fault["index"]: fault["outcome"] for fault in tally.faults} == dict(
        enumerate(faults.values())
    )


@pytest.mark.slow
def test_4000_random_and_mutated_requests(front: str) -> None:
    """The worker is a child, watched from outside: its memory, log, journal and end."""
    command = [sys.executable, fuzz.__file__, "--front", front, "--requests", "4000"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert run.stdout, run.stderr[-2_000:]
    summary = json.loads(run.stdout)
    assert summary["wrong"] == [], summary["faults"]
    assert run.returncode == 0
