"""Saturated throughput and one-in-flight latency, as ratios to two servers of the same run.

    python benchmarks/serving.py [--rounds 3] [--seconds 5] [--cpu] [--json]

The baseline is what one writes by hand in Python; the floor is a C++ gRPC callback server that
burns, a call, what a bare `session.run` of one row took in the same round (build it with
`make -C benchmarks/floor`). Each round starts each server afresh on core 0 and drives it with
h2load (Debian's nghttp2-client) from core 1: 4 connections x 16 streams for throughput and CPU
time, one stream for latency. Medians over the rounds. The servers take turns within a round,
and another one begins each round, so that what the machine does meanwhile hits all of them.

`--cpu` compares CPU time a decision instead, at 5,000 calls a second a worker: one worker on core 0
with h2load on core 1, against two, one a core, beside an h2load of twice that. (Saturated, the two
would have to share their cores with their driver, and would get smaller batches of it.)
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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from cpu import cpu_us, rss_mb, tree_of
from google.protobuf.timestamp_pb2 import Timestamp
from model import FEATURES, write_product

from gateway.journal import Decision, Record, read, segments
from gateway.model import load_generation
from gateway.model.runtime import inference_session
from gateway.v1.decision_pb2 import DecideRequest

HERE = Path(__file__).parent
FLOOR = HERE / "floor" / "build" / "floor"
BASELINE_NAME = "baseline (grpc.aio, uvloop)"
FLOOR_NAME = "floor (C++, callbacks)"
TUNED_NAME = "the same, tuned"

MARGIN_S = 0.2
CLIENTS, WORKER_PER_S = 20, 5_000
SETTLE_S = 2.5
"""A gateway's spare process loads its libraries in the first seconds."""
"""Left out at both ends of a saturated run when CPU time is read."""
BARE_RUNS = 5000


@dataclass(frozen=True)
class Measured:
    """One server: saturated throughput and CPU time a call, then times of one call in flight.

    `busy`: the share of the saturated time in which the server ran. Well below 1 it was h2load, or
    a neighbour on the machine, that set the pace, and the ratio of CPU times says more.
    """

    server: str
    saturated_per_s: float
    cpu_us: float
    busy: float
    p50_us: float
    p99_us: float
    p999_us: float
    rss_mb: float


@dataclass(frozen=True)
class Saturated:
    """`shares`: of the CPU time, by process of the server's tree, its root first."""

    calls_per_s: float
    cpu_us: float
    shares: tuple[float, ...]


class Call(NamedTuple):
    """One answered call as h2load logged it."""

    sent_us: int  # since the epoch
    took_us: int


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
def served(command: list[str], cores: str = "0") -> Iterator[tuple[int, int]]:
    """Start a server on some cores; give its port and process id."""
    server = subprocess.Popen(
        ["taskset", "-c", cores, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        line = server.stdout.readline()
        if not line:
            raise SystemExit(f"did not start: {' '.join(command)}\nTry it by hand.")
        if "{" not in line:
            yield int(line), server.pid
        else:
            started = json.loads(line)
            time.sleep(SETTLE_S)
            yield int(started["address"].rpartition(":")[2]), server.pid
    finally:
        server.terminate()
        server.wait(10)
        server.stdout.close()


@contextmanager
def driven(
    port: int,
    body: Path,
    *,
    clients: int,
    streams: int,
    seconds: int,
    cores: str = "1",
    client_per_s: int | None = None,
) -> Iterator[list[Call]]:
    """Drive a server with h2load. What it logged stands in the list once the block has ended."""
    calls: list[Call] = []
    with tempfile.NamedTemporaryFile("r") as log:
        command = [
            *("taskset", "-c", cores, "h2load", "--warm-up-time=1", f"--duration={seconds}"),
            *(f"--clients={clients}", f"--max-concurrent-streams={streams}"),
            *("--header=content-type: application/grpc", "--header=te: trailers"),
            *(f"--data={body}", f"--log-file={log.name}"),
            *(() if client_per_s is None else (f"--rps={client_per_s}",)),
            f"http://127.0.0.1:{port}/gateway.v1.DecisionService/Decide",
        ]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as driver:
            try:
                yield calls
                failed = driver.wait(seconds + 30)
            finally:
                driver.kill()
        rows = [line.split("\t") for line in log]
    calls += [Call(int(row[0]), int(row[2])) for row in rows if row[1] == "200"]
    # At the end of its time h2load drops what is in flight.
    wrong = len(rows) - len(calls)
    if failed or not calls or wrong > clients * streams:
        raise SystemExit(f"h2load ended with {failed}; {wrong} of {len(rows)} calls failed")


def saturate(port: int, pid: int, body: Path, *, seconds: int, **how: Any) -> Saturated:
    """Keep a server busy; return its throughput, and the CPU time of its tree a call."""
    pids = tree_of(pid)
    with driven(port, body, seconds=seconds, **how) as calls:
        time.sleep(1 + MARGIN_S)  # the warm-up
        begun_us, before = time.time() * 1e6, [cpu_us([one]) for one in pids]
        time.sleep(seconds - 2 * MARGIN_S)
        ended_us, after = time.time() * 1e6, [cpu_us([one]) for one in pids]
    counted = sum(begun_us <= call.sent_us + call.took_us < ended_us for call in calls)
    if not counted:
        raise SystemExit("no call was answered while CPU time was read; try more --seconds")
    used = [later - earlier for earlier, later in zip(before, after, strict=True)]
    total = sum(used)
    shares = tuple(one / total for one in used)
    return Saturated(counted / (ended_us - begun_us) * 1e6, total / counted, shares)


def median_batch(journal: Path) -> int:
    """Return the size of the batch in which a journal's median decision was made.

    Of its last segments, which say enough.
    """
    entries = (
        one.entry
        for segment in segments(journal)[-3:]
        for one in read(segment)
        if type(one) is Record
    )
    sizes = sorted(entry.batch_size for entry in entries if type(entry) is Decision)
    return sizes[len(sizes) // 2]


def measure(name: str, command: list[str], body: Path, seconds: int) -> Measured:
    """Measure one server, saturated and then with one call in flight."""
    with served(command) as (port, pid):
        busy = saturate(port, pid, body, clients=4, streams=16, seconds=seconds)
        with driven(port, body, clients=1, streams=1, seconds=seconds) as calls:
            pass
        memory_mb = rss_mb(tree_of(pid))
    times = sorted(call.took_us for call in calls)
    return Measured(
        server=name,
        saturated_per_s=busy.calls_per_s,
        cpu_us=busy.cpu_us,
        busy=busy.cpu_us * busy.calls_per_s / 1e6,
        p50_us=times[len(times) // 2],
        p99_us=times[int(len(times) * 0.99)],
        p999_us=times[int(len(times) * 0.999)],
        rss_mb=memory_mb,
    )


def bare_run_us(model: Path) -> float:
    """Return the median time of a bare `session.run` on one row, on core 0, in microseconds."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {0})
    try:
        session = inference_session(model.read_bytes())
        wanted = [session.get_outputs()[1].name]
        row = np.random.default_rng(1).random((1, FEATURES), dtype=np.float32)
        fed, run, took_ns = {session.get_inputs()[0].name: row}, session.run, []
        for _ in range(BARE_RUNS):
            begun_ns = time.perf_counter_ns()
            run(wanted, fed)
            took_ns.append(time.perf_counter_ns() - begun_ns)
    finally:
        os.sched_setaffinity(0, cores)
    return statistics.median(took_ns) / 1000


def gateway_on(folder: Path, journal: str, *options: str) -> list[str]:
    """Return the command that serves the benchmark's product."""
    return [
        *(sys.executable, "-m", "gateway", "serve", str(folder), "--json"),
        *("--listen", "127.0.0.1:0", "--journal-max-bytes", "2GiB", "--journal", journal),
        *options,
    ]


def servers_on(folder: Path, scratch: str, model_us: float) -> dict[str, list[str]]:
    """Return the command of every server; without the floor if it is not built."""
    baseline = [sys.executable, str(HERE / "baseline.py"), str(folder / "model.onnx"), "0"]
    floor = [str(FLOOR), "--model-us", f"{model_us:.3f}"]
    return {
        BASELINE_NAME: baseline,
        **({FLOOR_NAME: floor} if FLOOR.exists() else {}),
        **({TUNED_NAME: [f"{FLOOR}-tuned", *floor[1:]]} if FLOOR.exists() else {}),
        "gateway, native front": gateway_on(folder, f"{scratch}/native"),
        "gateway, grpcio front": gateway_on(folder, f"{scratch}/grpcio", "--front", "grpcio"),
    }


def rotated(names: list[str], by: int) -> list[str]:
    """Return the names from another one on."""
    by %= len(names)
    return names[by:] + names[:by]


def median_of(rounds: list[Measured]) -> Measured:
    """Return one server's medians over the rounds."""
    fields = [name for name in Measured.__dataclass_fields__ if name != "server"]
    medians = {name: statistics.median(getattr(one, name) for one in rounds) for name in fields}
    return Measured(rounds[0].server, **medians)


def ratios(one: Measured, medians: Mapping[str, Measured]) -> dict[str, float | None]:
    """Return how one server compares; None where the floor is not built."""
    base, floor = medians[BASELINE_NAME], medians.get(FLOOR_NAME)
    return {
        "saturated_x_baseline": one.saturated_per_s / base.saturated_per_s,
        "saturated_x_floor": floor and one.saturated_per_s / floor.saturated_per_s,
        "cpu_x_floor": floor and one.cpu_us / floor.cpu_us,
        "p50_x_baseline": one.p50_us / base.p50_us,
        "p50_x_floor": floor and one.p50_us / floor.p50_us,
        "p999_x_own_p50": one.p999_us / one.p50_us,
    }


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


def compare_servers(folder: Path, body: Path, scratch: str, asked: argparse.Namespace) -> None:
    """Measure every server and print the table, or the JSON."""
    if not FLOOR.exists():
        print("The floor is left out: build it with make -C benchmarks/floor", file=sys.stderr)
    rounds: dict[str, list[Measured]] = {}
    bare_us = []
    for number in range(asked.rounds):
        bare_us.append(bare_run_us(folder / "model.onnx"))
        servers = servers_on(folder, scratch, bare_us[-1])
        for name in rotated(list(servers), number):
            rounds.setdefault(name, []).append(measure(name, servers[name], body, asked.seconds))
    medians = {name: median_of(rounds[name]) for name in servers}
    model_us = statistics.median(bare_us)
    if asked.json:
        rows = [{**asdict(one), **ratios(one, medians)} for one in medians.values()]
        print(json.dumps({**run_of(asked), "model_us": model_us, "servers": rows}))
        return
    print(f"{machine()}; {asked.rounds} rounds of {asked.seconds} s, medians;")
    print(f"a bare `session.run` of one row: {model_us:.1f} µs\n")
    print(
        "| server | saturated /s | x baseline | x floor "
        "| CPU µs a call | x floor | busy "
        "| p50 µs | x baseline | x floor | p99 µs | p99.9 µs | p99.9 / p50 | RSS MB |"
    )
    print("| --- |" + " ---: |" * 13)
    for one in medians.values():
        found = {
            name: "" if value is None else f"{value:.2f}"
            for name, value in ratios(one, medians).items()
        }
        print(
            f"| {one.server} | {one.saturated_per_s:,.0f} | {found['saturated_x_baseline']} "
            f"| {found['saturated_x_floor']} | {one.cpu_us:.1f} "
            f"| {found['cpu_x_floor']} | {one.busy:.0%} | {one.p50_us:.0f} "
            f"| {found['p50_x_baseline']} | {found['p50_x_floor']} | {one.p99_us:.0f} "
            f"| {one.p999_us:.0f} | {found['p999_x_own_p50']} | {one.rss_mb:.0f} |"
        )


def compare_workers(folder: Path, body: Path, scratch: str, asked: argparse.Namespace) -> None:
    """Measure CPU time a decision with one worker and with two; print both, and the ratio."""
    rounds: dict[int, list[Saturated]] = {1: [], 2: []}
    journals = {workers: Path(scratch) / str(workers) for workers in rounds}
    for number in range(asked.rounds):
        for workers in (1, 2) if number % 2 == 0 else (2, 1):
            options = ("--workers", str(workers), "--affinity")
            command = gateway_on(folder, str(journals[workers]), *options)
            own, drivers = ("0", "1") if workers == 1 else ("0,1", "0,1")
            with served(command, own) as (port, pid):
                busy = saturate(
                    *(port, pid, body),
                    clients=CLIENTS * workers,
                    streams=32,
                    client_per_s=WORKER_PER_S // CLIENTS,
                    seconds=asked.seconds,
                    cores=drivers,
                )
            rounds[workers].append(busy)
    cpu = {workers: statistics.median(one.cpu_us for one in rounds[workers]) for workers in rounds}
    calls = {
        workers: statistics.median(one.calls_per_s for one in rounds[workers]) for workers in rounds
    }
    batches = {workers: median_batch(journals[workers]) for workers in rounds}
    ratio = cpu[2] / cpu[1]
    if asked.json:
        rows = [
            {
                "workers": n,
                "cpu_us": cpu[n],
                "calls_per_s": calls[n],
                "batch": batches[n],
                "shares": rounds[n][-1].shares,
            }
            for n in rounds
        ]
        print(json.dumps({**run_of(asked), "workers": rows, "cpu_ratio": ratio}))
        return
    print(f"{machine()}; {asked.rounds} rounds of {asked.seconds} s, medians\n")
    print(
        "| workers | CPU µs a decision | decisions /s | batch | share of each process, last round |"
    )
    print("| ---: | ---: | ---: | ---: | --- |")
    for n in rounds:
        shares = ", ".join(f"{share:.0%}" for share in rounds[n][-1].shares)
        print(f"| {n} | {cpu[n]:.1f} | {calls[n]:,.0f} | {batches[n]} | {shares} |")
    print(f"\nTwo workers' CPU time a decision: {ratio:.2f} x one worker's")


def run_of(asked: argparse.Namespace) -> dict[str, object]:
    return {"machine": machine(), "rounds": asked.rounds, "seconds": asked.seconds}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--seconds", type=int, default=5)
    arguments.add_argument("--cpu", action="store_true", help="one worker against two")
    arguments.add_argument("--json", action="store_true")
    asked = arguments.parse_args()
    if asked.rounds < 1 or asked.seconds < 1:
        raise SystemExit("--rounds and --seconds are 1 or more")
    if shutil.which("h2load") is None:
        raise SystemExit("h2load is missing: apt-get install nghttp2-client")
    with tempfile.TemporaryDirectory() as scratch:
        folder = write_product(Path(scratch) / "benchmark")
        body = Path(scratch) / "request.bin"
        body.write_bytes(request_bytes(folder))
        compare = compare_workers if asked.cpu else compare_servers
        compare(folder, body, scratch, asked)


if __name__ == "__main__":
    main()
