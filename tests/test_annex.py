"""Heavy models beside the loop, behind real fronts: the loop goes on, and no answer is late."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import catalogue
import grpc
import numpy as np
from conftest import Running, Serve

from gateway.journal import verify
from gateway.model import Generation
from gateway.v1 import decision_pb2 as pb
from gateway.v1.decision_pb2_grpc import DecisionServiceStub

HEAVY = {"heavy": {1: 40_000_000}}


def heavy(generation: Generation, seconds: float, budget_ms: float) -> Generation:
    """Return a product whose model works for so long without holding the interpreter."""

    def score(rows: np.ndarray) -> list[float]:
        time.sleep(seconds)
        return generation.champion.score(rows)

    latency = generation.product.latency.model_copy(update={"budget_ms": budget_ms})
    values = {"latency": latency, "name": "heavy"}
    champion = replace(
        generation.champion,
        score=score,
        score_one=lambda row: score(np.frombuffer(row, dtype="<f4").reshape(1, -1))[0],
    )
    product = generation.product.model_copy(update=values)
    return replace(generation, product=product, champion=champion)


def ask(running: Running, product: str, count: int) -> list[grpc.Future]:
    stub = DecisionServiceStub(running.channel)
    return [
        stub.Decide.future(catalogue.request(product=product, transaction_id=f"{product}-{i}"))
        for i in range(count)
    ]


def test_light_calls_are_answered_while_a_heavy_model_works(
    serve: Serve, generation: Generation
) -> None:
    begun, gate = threading.Event(), threading.Event()
    slow = heavy(generation, 0.0, 20_000)

    def score_one(row: bytes) -> float:
        begun.set()
        assert gate.wait(60)
        return generation.champion.score_one(row)

    slow = replace(slow, champion=replace(slow.champion, score_one=score_one))
    with serve(generation, slow, measured_ns=HEAVY) as running:
        (waiting,) = ask(running, "heavy", 1)
        assert begun.wait(60)
        for light in ask(running, "test", 20):
            assert light.result(60).stand_in == pb.NONE
        assert not waiting.done()
        gate.set()
        answer = waiting.result(60)
        assert answer.stand_in == pb.NONE
        assert answer.recorded
        running.ended()
    assert verify(running.journal).ok


def test_what_a_heavy_model_cannot_do_in_time_is_stood_in_for_meanwhile(
    serve: Serve, generation: Generation
) -> None:
    """It was measured at 40 ms, its budget is 100, and it ends when all have their answer."""
    gate = threading.Event()
    slow = heavy(generation, 0.0, 100)

    def waits(rows: np.ndarray) -> list[float]:
        assert gate.wait(60)
        return [0.5] * len(rows)

    champion = replace(slow.champion, score=waits, score_one=lambda _: waits(np.zeros(1))[0])
    with serve(replace(slow, champion=champion), measured_ns=HEAVY) as running:
        answers = [future.result(60) for future in ask(running, "heavy", 12)]
        gate.set()
    assert {answer.stand_in for answer in answers} <= {pb.DEADLINE, pb.OVERLOAD}


def test_a_stop_waits_for_what_a_heavy_model_has_in_hand(
    serve: Serve, generation: Generation
) -> None:
    with serve(heavy(generation, 0.3, 10_000), measured_ns=HEAVY) as running:
        futures = ask(running, "heavy", 3)
        assert futures[0].result(60).stand_in == pb.NONE
        running.stop.ask()
        answers = [future.result(60) for future in futures]
        running.ended()
    assert all(answer.stand_in == pb.NONE and answer.recorded for answer in answers)
    assert all(segment.sealed for segment in verify(running.journal).segments)


def test_a_heavy_model_that_raises_stands_in(serve: Serve, generation: Generation) -> None:
    def broken(_: object) -> list[float]:
        raise RuntimeError("no")

    slow = heavy(generation, 0.0, 10_000)
    slow = replace(slow, champion=replace(slow.champion, score=broken, score_one=broken))
    with serve(slow, measured_ns=HEAVY) as running:
        for future in ask(running, "heavy", 5):
            assert future.result(60).stand_in == pb.MODEL_ERROR
