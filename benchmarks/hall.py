"""Where the hall's time goes: microseconds a call, by batch size, without a front.

    python benchmarks/hall.py [--profile]

The journal is real (mode `process`, in a temporary folder); the front takes replies and
does nothing.
"""

from __future__ import annotations

import cProfile
import pstats
import statistics
import sys
import tempfile
import time
from pathlib import Path

from model import write_product
from serving import request_bytes

from gateway.journal import Writer
from gateway.model import load_generation
from gateway.serve.admit import Serving
from gateway.serve.hall import Hall
from gateway.serve.health import Health

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
ROUNDS = 7


class NoFront:
    """Takes every reply."""

    def reply(self, _call_id: int, _payload: bytes) -> bool:
        return True

    def fail(self, _call_id: int, _code: int, message: str, _details: bytes | None = None) -> bool:
        raise AssertionError(message)

    def look(self) -> None:
        pass

    def flush(self) -> None:
        pass

    def stream_send(self, _call_id: int, _payload: bytes) -> bool:
        return True


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = write_product(Path(scratch) / "benchmark")
        generation = load_generation(folder)
        generation.champion.warm_up(time.monotonic_ns)
        payload = request_bytes(folder)[5:]
        served = {generation.name: Serving.of(generation, 0)}
        metadata = (("user-agent", "h2load nghttp2/1.52.0"),)
        event = (0, 1, 0, payload, "peer", (metadata, "ipv4:127.0.0.1:1", None))
        front = NoFront()
        with Writer.open(
            Path(scratch) / "journal", worker=0, boot_id=bytes(16), max_bytes=1 << 30
        ) as journal:
            hall = Hall(
                front=front,
                journal=journal,
                served=served,
                health=Health(front, ()),
            )

            def per_call_us(batch: int) -> float:
                events, turns = [event] * batch, max(1, 4000 // batch)
                begun_ns = time.perf_counter_ns()
                for _ in range(turns):
                    hall.turn(events, time.monotonic_ns())
                return (time.perf_counter_ns() - begun_ns) / turns / batch / 1000

            if "--profile" in sys.argv:
                for batch in (1, 64):
                    profile = cProfile.Profile()
                    profile.runcall(per_call_us, batch)
                    print(f"batch of {batch}")
                    pstats.Stats(profile).sort_stats("tottime").print_stats(60)
                return
            print("| batch | µs a call | µs a turn |\n| ---: | ---: | ---: |")
            for batch in BATCHES:
                median = statistics.median(per_call_us(batch) for _ in range(ROUNDS))
                print(f"| {batch} | {median:.1f} | {median * batch:.0f} |")


if __name__ == "__main__":
    main()
