"""CPU a decision, memory and delay of `gateway sidecar`.

    python benchmarks/sidecar.py [--records 200000] [--rounds 3] [--live-s 20] [--rate 1000]

First the real command over a journal that is there already, to its end: the rate that it can keep
up with at most, and what a backlog takes of memory. CPU time is the process's own, less that of a
run over an empty journal; the collector takes bytes and answers, in a process of its own.
`metrics` has all of the reading in it, which the other consumers share.

Then beside a journal that grows as a worker's does, at `--rate` decisions a second: how long after
the reply a decision is counted in /metrics and stands in the lake.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import numpy as np
import pyarrow.parquet as pq
from cpu import cpu_us, rss_mb, tree_of
from model import write_product
from whatif import decisions, write

from gateway.journal import DECISION_HEAD, Replied, Writer
from gateway.journal import Generation as Row
from gateway.model import Generation, load_generation
from gateway.sidecar.lake import Lake


class Cost(NamedTuple):
    """Of one run: CPU seconds, seconds until all was behind it, and peak memory."""

    cpu_s: float
    seconds: float
    rss_mb: float


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--records", type=int, default=200_000)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--live-s", type=float, default=20.0)
    arguments.add_argument("--rate", type=int, default=1000)
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
        if asked.live_s:
            seen = live(here, served, asked.rate, asked.live_s, otlp)
            print(
                f"At {asked.rate:,} decisions a second, from reply to metrics: median "
                f"{np.median(seen.counted_s):.2f} s, at most {max(seen.counted_s):.2f} s; to the "
                f"lake: median {np.median(seen.shipped_s):.2f} s, at most "
                f"{max(seen.shipped_s):.2f} s; {1e6 * seen.cpu_s / seen.decisions:.0f} µs of CPU a "
                f"decision, asked for /metrics ten times a second; RSS {seen.rss_mb:.0f} MB"
            )
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


class Seen(NamedTuple):
    """Delays in seconds of decisions, as they were looked for; of the sidecar CPU and memory."""

    counted_s: list[float]
    shipped_s: list[float]
    decisions: int
    cpu_s: float
    rss_mb: float


def live(here: Path, served: Generation, rate: int, lasts_s: float, otlp: tuple[str, ...]) -> Seen:
    """Write as a worker does, every 10 ms, and look where it can be seen."""
    journal, lake = here / "growing", Lake.at(str(here / "growing-lake"))
    journal.mkdir(mode=0o700)
    command = [sys.executable, "-m", "gateway", "sidecar", "--journal", str(journal), "--json"]
    command += ["--listen", "127.0.0.1:0"]
    command += ["--http", "127.0.0.1:0", "--lake", lake.root, *otlp]
    table = Row(0, served.name, served.product.generation, served.digest, ("champion",))
    payloads = decisions(served, int(rate * lasts_s) + rate)
    written: list[float] = []
    counted_s: list[float] = []
    shipped_s: list[float] = []
    rows: dict[str, int] = {}
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child,
        Writer.open(journal, worker=0, boot_id=os.urandom(16), products=(table,)) as writer,
    ):
        assert child.stdout is not None
        address = json.loads(child.stdout.readline())["metrics"]
        before = cpu_us(tree_of(child.pid))
        begun = time.monotonic()
        counted = shipped = turn = 0
        while (now := time.monotonic()) < begun + lasts_s:
            due = int((now - begun) * rate) - len(written)
            if due > 0:
                first = writer.append([stamped(next(payloads)) for _ in range(due)])
                replied_ns = time.monotonic_ns()
                writer.append([Replied(first, replied_ns, (0,) * due).encode()])
                written += [replied_ns / 1e9] * due
            turn += 1
            if turn % 10 == 0:
                told = told_by(address)
                now = time.monotonic()
                counted_s += [now - one for one in written[counted:told]]
                counted = told
            if turn % 20 == 5:
                stands = standing(lake, rows)
                now = time.monotonic()
                shipped_s += [now - one for one in written[shipped:stands]]
                shipped = stands
            time.sleep(max(0.0, begun + turn / 100 - time.monotonic()))
        tree = tree_of(child.pid)
        cpu_s, rss = (cpu_us(tree) - before) / 1e6, rss_mb(tree)
        child.terminate()
    return Seen(counted_s, shipped_s, len(written), cpu_s, rss)


def stamped(payload: bytes) -> bytes:
    """Return a decision that has just been made."""
    head = list(DECISION_HEAD.unpack_from(payload))
    head[8] = time.monotonic_ns() - 400_000
    head[9] = head[8] + 25_000_000
    return DECISION_HEAD.pack(*head) + payload[DECISION_HEAD.size :]


def told_by(address: str) -> int:
    """Return how many decisions the metrics know."""
    with urllib.request.urlopen(address, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return sum(
        int(float(line.rpartition(" ")[2]))
        for line in lines
        if line.startswith("gateway_decisions_total{")
    )


def standing(lake: Lake, rows: dict[str, int]) -> int:
    """Return how many decisions stand in the lake; each file is looked at once."""
    paths = lake.files("decisions")
    for path in paths:
        if path not in rows:
            rows[path] = pq.read_metadata(path).num_rows
    return sum(rows[path] for path in paths)


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
