"""A response laid out by hand against protobuf's own classes, in microseconds.

python benchmarks/encode.py
"""

from __future__ import annotations

import statistics
import tempfile
import timeit
from collections.abc import Callable
from pathlib import Path

from model import write_product

from gateway.model import load_generation
from gateway.serve.hall.response import ResponseEncoder
from gateway.v1.decision_pb2 import Action, DecideResponse, ReasonCode

ROUNDS, CALLS = 9, 20_000


def median_us(encode: Callable[[], bytes]) -> float:
    return statistics.median(timeit.repeat(encode, number=CALLS, repeat=ROUNDS)) / CALLS * 1e6


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        generation = load_generation(write_product(Path(scratch) / "benchmark"))
    encoder, champion = ResponseEncoder(generation), generation.champion
    decision = generation.policy.decide_one(0.3, 12_345, 0, 1.79e9)
    decision_id = "0123456789abcdef-00-000000000001"

    def by_hand() -> bytes:
        return encoder.decision(decision_id.encode(), decision, 300, event_s=0.0, defaulted=False)

    def by_classes() -> bytes:
        response = DecideResponse(
            decision_id=decision_id,
            action=Action.Name(decision.action),
            probability=decision.probability,
            threshold=decision.threshold,
            product_generation=generation.product.generation,
            budget_us=25_000,
            elapsed_us=300,
            recorded=True,
        )
        response.model.name, response.model.version = champion.name, champion.version
        response.model.digest = champion.digest
        response.reasons.add(code=ReasonCode.LEAST_EXPECTED_COST)
        for action, cost in zip(generation.policy.actions, decision.costs, strict=True):
            response.expected_costs.add(action=Action.Name(action), cost=cost)
        if decision.action == Action.STEP_UP:
            response.contact_by.FromSeconds(60)
        return response.SerializeToString()

    assert DecideResponse.FromString(by_hand()) == DecideResponse.FromString(by_classes())
    print(
        f"by hand {median_us(by_hand):.2f} µs, by protobuf's classes {median_us(by_classes):.2f} µs"
    )


if __name__ == "__main__":
    main()
