"""Saturated throughput and one-in-flight latency, as ratios to the baseline of the same run.

    python benchmarks/serving.py [--rounds 3] [--seconds 5] [--json]

Each round starts each server afresh on core 0 and drives it with h2load (Debian's
nghttp2-client) from core 1: 4 connections x 16 streams for throughput, one stream for
latency. Medians over the rounds. The servers take turns within a round, so that what the
machine does meanwhile hits all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from model import FEATURES, write_product

from gateway.model import load_generation
from gateway.v1.decision_pb2 import DecideRequest

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Measured:
    server: str
    saturated_per_s: float
    p50_us: float
    p99_us: float
    rss_mb: float


def request_bytes(folder: Path) -> bytes:
    """Return one gRPC-framed DecideRequest with 30 dense features."""
    row = np.random.default_rng(1).random(FEATURES, dtype=np.float32)
    message = DecideRequest(
        product="benchmark",
        transaction_id="benchmark-0001",
        event_time=Timestamp(seconds=int(time.time())),
        amount=12_345,
        currency="USD",
        category="5411",
        channel="ecommerce",
        subject="customer-42",
        dense=row.tobytes(),
        schema_fingerprint=load_generation(folder).schema.fingerprint,
    ).SerializeToString()
    return struct.pack(">BI", 0, len(message)) + message


@contextmanager
def served(command: list[str]) -> Iterator[tuple[int, int]]:
    """Start a server on core 0; give its port and process id."""
    server = subprocess.Popen(
        ["taskset", "-c", "0", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        line = server.stdout.readline()
        if not line:
            raise SystemExit(f"{command} did not start")
        port = json.loads(line)["address"].rpartition(":")[2] if "{" in line else line
        yield int(port), server.pid
    finally:
        server.terminate()
        server.wait(10)
        server.stdout.close()


def h2load(port: int, body: Path, *, clients: int, streams: int, seconds: int) -> list[float]:
    """Drive the server; return the response time of each call in microseconds."""
    with tempfile.NamedTemporaryFile("r") as log:
        subprocess.run(
            [
                *("taskset", "-c", "1", "h2load", "--warm-up-time=1", f"--duration={seconds}"),
                *(f"--clients={clients}", f"--max-concurrent-streams={streams}"),
                *("--header=content-type: application/grpc", "--header=te: trailers"),
                *(f"--data={body}", f"--log-file={log.name}"),
                f"http://127.0.0.1:{port}/gateway.v1.DecisionService/Decide",
            ],
            check=True,
            capture_output=True,
        )
        rows = [line.split("\t") for line in log]
    wrong = sum(row[1] != "200" for row in rows)
    # At the end of its time h2load drops what is in flight.
    if not rows or wrong > clients * streams:
        raise SystemExit(f"{wrong} of {len(rows)} calls failed")
    return [float(row[2]) for row in rows if row[1] == "200"]


def measure(name: str, command: list[str], body: Path, seconds: int) -> Measured:
    with served(command) as (port, pid):
        calls = h2load(port, body, clients=4, streams=16, seconds=seconds)
        times = sorted(h2load(port, body, clients=1, streams=1, seconds=seconds))
        status = Path(f"/proc/{pid}/status").read_text()
        rss_kb = int(status.split("VmRSS:")[1].split()[0])
    return Measured(
        server=name,
        saturated_per_s=len(calls) / seconds,
        p50_us=times[len(times) // 2],
        p99_us=times[int(len(times) * 0.99)],
        rss_mb=rss_kb / 1024,
    )


def machine() -> str:
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return f"{cpu}, {os.cpu_count()} cores, Python {platform.python_version()}"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--seconds", type=int, default=5)
    arguments.add_argument("--json", action="store_true")
    asked = arguments.parse_args()
    if shutil.which("h2load") is None:
        raise SystemExit("h2load is missing: apt-get install nghttp2-client")
    with tempfile.TemporaryDirectory() as scratch:
        folder = write_product(Path(scratch) / "benchmark")
        body = Path(scratch) / "request.bin"
        body.write_bytes(request_bytes(folder))
        gateway = [sys.executable, "-m", "gateway", "serve", str(folder), "--json"]
        gateway += ["--listen", "127.0.0.1:0", "--journal-max-bytes", "1GiB"]
        servers = {
            "baseline (grpc.aio, uvloop)": [
                *(sys.executable, str(HERE / "baseline.py"), str(folder / "model.onnx"), "0"),
            ],
            "gateway, native front": [*gateway, "--journal", f"{scratch}/native"],
            "gateway, grpcio front": [
                *(*gateway, "--journal", f"{scratch}/grpcio", "--front", "grpcio"),
            ],
        }
        rounds = [
            [measure(name, command, body, asked.seconds) for name, command in servers.items()]
            for _ in range(asked.rounds)
        ]
    medians = [
        Measured(
            name,
            *(
                statistics.median(getattr(one[i], field) for one in rounds)
                for field in ("saturated_per_s", "p50_us", "p99_us", "rss_mb")
            ),
        )
        for i, name in enumerate(servers)
    ]
    if asked.json:
        print(json.dumps({"machine": machine(), "servers": [asdict(one) for one in medians]}))
        return
    print(f"{machine()}; {asked.rounds} rounds of {asked.seconds:g} s, medians\n")
    print("| server | saturated /s | x baseline | p50 µs | x baseline | p99 µs | RSS MB |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    base = medians[0]
    for one in medians:
        print(
            f"| {one.server} | {one.saturated_per_s:,.0f} "
            f"| {one.saturated_per_s / base.saturated_per_s:.2f} | {one.p50_us:.0f} "
            f"| {one.p50_us / base.p50_us:.2f} | {one.p99_us:.0f} | {one.rss_mb:.0f} |"
        )


if __name__ == "__main__":
    main()
