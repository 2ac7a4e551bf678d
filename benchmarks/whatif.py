"""How many recorded decisions a second `gateway whatif` replays on one core.

    python benchmarks/whatif.py [--records 200000] [--rounds 5]

A change of costs alone: scores come from the records. Thirty features a payment, sent as `dense`
and by name; the second line reads a watched feature out of each request too.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from model import write_product

from gateway.cli.whatif_replay import replayed
from gateway.journal import DECISION_HEAD, Generation, Kind, Mode, Replied, Writer
from gateway.model import Generation as Loaded
from gateway.model import load_generation
from gateway.serve.hall.response import ResponseEncoder
from gateway.v1.decision_pb2 import DecideRequest

START_S = 1_795_000_000
BATCH = 16


def requests(served: Loaded, count: int, *, named: bool) -> Iterator[tuple[DecideRequest, float]]:
    """Yield calls, and the scores that the model gives them."""
    chance = random.Random(1)
    features = served.schema.features
    for i in range(count):
        request = DecideRequest(
            product=served.name,
            transaction_id=f"transaction-{i:012}",
            amount=chance.randrange(100, 100_000),
            currency=served.product.costs.currency,
            category=chance.choice(["5411", "5912", "5541", "5732"]),
            channel=chance.choice(["ecommerce", "app"]),
            subject=f"customer-{chance.randrange(count // 10 + 1)}",
        )
        request.event_time.seconds = START_S + i // 100
        row = np.array([chance.random() for _ in features], dtype="<f4")
        if named:
            for feature, value in zip(features, row.tolist(), strict=True):
                request.features[feature.name].number = value
        else:
            request.dense = row.tobytes()
            request.schema_fingerprint = served.schema.fingerprint
        yield request, served.champion.score_one(served.schema.from_dense(row.tobytes()))


def decisions(served: Loaded, count: int, *, named: bool = False) -> Iterator[bytes]:
    """Yield records as the hall makes them, with times that stand still."""
    policy, encoder = served.policy, ResponseEncoder(served)
    for request, score in requests(served, count, named=named):
        index = policy.cost_class(request.amount, request.category)
        event_s = float(request.event_time.seconds)
        decided = policy.decide_one(score, request.amount, index, event_s)
        response = encoder.decision(b"0" * 32, decided, 300, event_s=event_s, defaulted=False)
        payload = request.SerializeToString()
        head = DECISION_HEAD.pack(
            *(Kind.DECISION, 0, decided.action, decided.second_best, 0, 0),
            *(served.product.generation, BATCH, 10**9, 10**9 + 25_000_000),
            *(1000, 2000, 3000, 4000, 300_000, score, decided.probability, 1.0),
            *(decided.margin, 0, 0, len(payload), len(response)),
        )
        yield head + payload + response


def write(journal: Path, served: Loaded, count: int, *, named: bool) -> int:
    """Write a journal as the hall does, in batches; return its bytes."""
    table = Generation(0, served.name, served.product.generation, served.digest, ("champion",))
    payloads = decisions(served, count, named=named)
    with Writer.open(
        journal, worker=0, boot_id=os.urandom(16), products=(table,), mode=Mode.PROCESS
    ) as writer:
        while batch := list(islice(payloads, BATCH)):
            first = writer.append(batch)
            writer.append([Replied(first, 10**9 + 400_000, (0,) * len(batch)).encode()])
    return sum(path.stat().st_size for path in journal.glob("*.journal"))


def changed(folder: Path, to: Path, *, watch: str = "") -> Path:
    """Copy a product's folder with another price, and a watched feature."""
    to.mkdir()
    for path in folder.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    yaml = to / "product.yaml"
    text = yaml.read_text(encoding="utf-8").replace("goodwill: 5", "goodwill: 9")
    yaml.write_text(text + (f"\nwatch: [{watch}]\n" if watch else ""), encoding="utf-8")
    return to


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--records", type=int, default=200_000)
    arguments.add_argument("--rounds", type=int, default=5)
    asked = arguments.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        here = Path(scratch)
        folder = write_product(here / "old")
        old = load_generation(folder)
        watched = old.schema.features[0].name
        sides = {
            "costs alone": load_generation(changed(folder, here / "new")),
            "and a watched feature": load_generation(
                changed(folder, here / "watching", watch=watched)
            ),
        }
        print("| features | change | bytes a record | records a second, median |")
        print("| --- | --- | ---: | ---: |")
        for named in (False, True):
            journal = here / f"journal-{named}"
            size = write(journal, old, asked.records, named=named)
            for what, new in sides.items():
                speeds = []
                for _ in range(asked.rounds):
                    begun = time.process_time()
                    replayed(old, new, journal)
                    speeds.append(asked.records / (time.process_time() - begun))
                sent = "by name" if named else "dense"
                speed = statistics.median(speeds)
                print(f"| {sent} | {what} | {size / asked.records:.0f} | {speed:,.0f} |")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
