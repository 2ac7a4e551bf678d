"""CPU a decision and memory of `gateway sidecar`, each consumer by itself and all together.

    python benchmarks/sidecar.py [--records 200000] [--rounds 3]

The real command over a journal that is there already, to its end: what it may at most keep up
with. CPU time is the process's own, less that of a run over an empty journal; the collector takes
bytes and answers, in a process of its own. `tail` is what the first consumer pays for reading.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import grpc
from model import write_product
from whatif import write

from gateway.model import load_generation


class Cost(NamedTuple):
    """Of one run: CPU seconds, seconds until all was behind it, and peak memory."""

    cpu_s: float
    seconds: float
    rss_mb: float


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--records", type=int, default=200_000)
    arguments.add_argument("--rounds", type=int, default=3)
    asked = arguments.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        here = Path(scratch)
        served = load_generation(write_product(here / "product"))
        journal, empty = here / "journal", here / "empty"
        empty.mkdir()
        size = write(journal, served, asked.records, named=False)
        ours, theirs = multiprocessing.Pipe()
        collector = multiprocessing.Process(target=collect, args=(theirs,), daemon=True)
        collector.start()
        otlp = ("--otlp", f"http://127.0.0.1:{ours.recv()}")
        runs: dict[str, tuple[str, ...]] = {
            "metrics": (),
            "metrics, lake": ("--lake", "LAKE"),
            "metrics, spans": otlp,
            "metrics, spans with children": (*otlp, "--stages", "all"),
            "all": (*otlp, "--lake", "LAKE"),
        }
        print(f"{asked.records:,} decisions, {size / asked.records:.0f} bytes each in the journal")
        print("| consumers | CPU µs a decision | decisions a second | peak RSS MB |")
        print("| --- | ---: | ---: | ---: |")
        for name, options in runs.items():
            costs = [once(journal, here, options) for _ in range(asked.rounds)]
            idle = once(empty, here, options)
            cpu_s = statistics.median(one.cpu_s for one in costs) - idle.cpu_s
            seconds = statistics.median(one.seconds for one in costs) - idle.seconds
            rss_mb = max(one.rss_mb for one in costs)
            print(
                f"| {name} | {1e6 * cpu_s / asked.records:.1f} | {asked.records / seconds:,.0f} "
                f"| {rss_mb:.0f} |"
            )
            sys.stdout.flush()
        collector.terminate()


def once(journal: Path, here: Path, options: tuple[str, ...]) -> Cost:
    """Run the sidecar over a journal from its begin to its end."""
    with tempfile.TemporaryDirectory(dir=here) as scratch:
        place = Path(scratch) / "journal"
        place.mkdir()
        for path in (*journal.glob("*.journal"),):
            os.link(path, place / path.name)
        command = [sys.executable, "-m", "gateway", "sidecar", "--journal", str(place), "--once"]
        command += ["--http", "127.0.0.1:0"]
        command += [f"{scratch}/lake" if one == "LAKE" else one for one in options]
        begun = time.monotonic()
        child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.monotonic() - begun
        if status:
            assert child.stderr is not None
            raise SystemExit(child.stderr.read())
        return Cost(usage.ru_utime + usage.ru_stime, seconds, usage.ru_maxrss / 1024)


def collect(to: Connection) -> None:
    """Take whatever comes, and say so."""

    class Sink(grpc.GenericRpcHandler):
        def service(self, _: Any) -> grpc.RpcMethodHandler:
            return grpc.unary_unary_rpc_method_handler(lambda *_: b"")

    server = grpc.server(ThreadPoolExecutor(2), handlers=(Sink(),))
    to.send(server.add_insecure_port("127.0.0.1:0"))
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
