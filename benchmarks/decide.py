"""The scalar and the vector path of the decision, in microseconds a payment.

    python benchmarks/decide.py

`gateway.decide.policy.SCALAR_UP_TO` is the batch size up to which the scalar path wins.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from model import write_product

from gateway.model import load_generation

BATCHES = (1, 4, 8, 12, 16, 20, 24, 32, 64, 128)
ROUNDS = 9


def median_us(decide: Callable[[], object], batch: int) -> float:
    rounds = max(1, 4000 // batch)
    times = []
    for _ in range(ROUNDS):
        begun_ns = time.perf_counter_ns()
        for _ in range(rounds):
            decide()
        times.append((time.perf_counter_ns() - begun_ns) / rounds / batch / 1000)
    return statistics.median(times)


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        policy = load_generation(write_product(Path(scratch) / "benchmark")).policy
    chance = random.Random(1)
    print("| batch | scalar | vector |\n| ---: | ---: | ---: |")
    for batch in BATCHES:
        payments = [
            (chance.random(), chance.randrange(100_000), chance.randrange(5), 1.79e9)
            for _ in range(batch)
        ]
        scores, amounts, classes, events = (list(column) for column in zip(*payments, strict=True))
        scalar = median_us(lambda p=payments: [policy.decide_one(*one) for one in p], batch)
        vector = median_us(
            lambda s=scores, a=amounts, c=classes, e=events: policy.decide_many(s, a, c, e), batch
        )
        print(f"| {batch} | {scalar:.2f} | {vector:.2f} |")


if __name__ == "__main__":
    main()
