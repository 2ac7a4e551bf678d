"""What a sidecar costs those who call: the gateway with and without it, by turns.

    python benchmarks/sidecar_beside.py [--rounds 5] [--seconds 5] [--rate 2000] [--quick]

One worker and its sidecar share the first core, the harshest case there is; the load generator has
the last. Each round goes through all arms, in another order each time: an open-loop Poisson load at
`--rate` for the percentiles (from the scheduled time), then a closed loop for the throughput.
Ratios are to the arm without a sidecar in the same round; `again` is that arm a second time, and
shows what a ratio is worth here.

    without    `gateway serve`
    beside     `--sidecar` with a collector that takes all, and a lake
    evaluating  the same, and the lake is evaluated without a pause
    dead ends  a collector that never answers, and a lake that cannot be written
    stopped    the sidecar stands still (SIGSTOP)
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from cpu import cpu_us
from sidecar import collect

from gateway.bench.machine import Cores, cores, machine
from gateway.bench.product import LIGHT, write_kind
from gateway.bench.rig import Rig
from gateway.bench.schedule import poisson
from gateway.cli.demo_server import Server, serving
from gateway.cli.sidecar_lag import beside
from gateway.model import read_product
from gateway.product import schema_fingerprint

IN_FLIGHT = 64
SETTLE_S = 1.5
PORTS = ("--http", "127.0.0.1:0", "--feedback", "127.0.0.1:0")
WITHOUT, AGAIN = "without", "again"
EVALUATING = "evaluating"
ARMS = (WITHOUT, "beside", EVALUATING, "dead ends", "stopped", AGAIN)


class Figures(NamedTuple):
    """Of one arm in one round. `sidecar_cpu`: its share of a core under the open loop."""

    p50_us: float
    p99_us: float
    p99_9_us: float
    late: int
    saturated_per_s: float
    sidecar_cpu: float


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--seconds", type=float, default=5.0)
    arguments.add_argument("--rate", type=float, default=2_000.0)
    arguments.add_argument("--quick", action="store_true", help="One short round: does it run?")
    asked = arguments.parse_args()
    if asked.quick:
        asked.rounds, asked.seconds = 1, 1.0
    places = cores()
    rng = np.random.default_rng(1)
    ours, theirs = multiprocessing.Pipe()
    collector = multiprocessing.Process(target=collect, args=(theirs,), daemon=True)
    collector.start()
    found: dict[str, list[Figures]] = {arm: [] for arm in ARMS}
    with (
        tempfile.TemporaryDirectory() as scratch,
        socket.create_server(("127.0.0.1", 0)) as silent,  # accepts, and never says a word
    ):
        folder = write_kind(Path(scratch) / LIGHT.name, LIGHT)
        ends = {
            "beside": (f"http://127.0.0.1:{ours.recv()}", "LAKE"),
            "dead ends": (f"http://127.0.0.1:{silent.getsockname()[1]}", "/proc/lake"),
        }
        ends["stopped"] = ends[EVALUATING] = ends["beside"]
        for number in range(asked.rounds):
            for arm in (*ARMS[number % len(ARMS) :], *ARMS[: number % len(ARMS)]):
                with tempfile.TemporaryDirectory(dir=scratch) as here:
                    otlp, lake = ends.get(arm, ("", ""))
                    options = () if not otlp else ("--sidecar", *PORTS)
                    if otlp:
                        place = f"{here}/lake" if lake == "LAKE" else lake
                        every = "1s" if arm == EVALUATING else "off"
                        options += ("--otlp", otlp, "--lake", place, "--evaluate", every)
                    journal = Path(here) / "journal"
                    with (
                        serving([folder], journal, options=options, cores=places.server) as server,
                        standing_still(journal, arm == "stopped"),
                    ):
                        time.sleep(SETTLE_S)  # a spare worker is made meanwhile
                        figures = measured(server, folder, journal, places, rng, asked)
                found[arm].append(figures)
                print(f"round {number + 1}, {arm}: {figures}", file=sys.stderr, flush=True)
    collector.terminate()
    print(", ".join(f"{key} {value}" for key, value in machine().items()))
    print(
        f"{asked.rate:,.0f} calls a second for {asked.seconds:g} s; {asked.rounds} rounds, medians"
    )
    show(found)


def measured(
    server: Server,
    folder: Path,
    journal: Path,
    places: Cores,
    rng: np.random.Generator,
    asked: argparse.Namespace,
) -> Figures:
    """Send one open loop, then one closed loop."""
    fingerprint = schema_fingerprint(read_product(folder).features)
    folders = {LIGHT.name: folder}
    rig = Rig(server, fingerprint, places, rng, lambda *_: None, folders=folders, journal=journal)
    rig.send("warm", poisson(rng, asked.rate, 0.5), LIGHT)
    pid = sidecar_pid(journal)
    begun_s, before_us = time.monotonic(), cpu_us([pid]) if pid else 0.0
    opened = rig.send("open", poisson(rng, asked.rate, asked.seconds), LIGHT).count
    used_us = (cpu_us([pid]) if pid else 0.0) - before_us
    share = used_us / 1e6 / (time.monotonic() - begun_s)
    closed = rig.saturate("closed", asked.seconds, IN_FLIGHT, LIGHT).count
    latency = opened.latency_us
    return Figures(
        latency["p50"], latency["p99"], latency["p99_9"], opened.late, closed.answered_per_s, share
    )


def sidecar_pid(journal: Path) -> int | None:
    """Return the sidecar's process, if there is one."""
    one = beside(journal)
    return one.presence.pid if one is not None and one.runs else None


@contextmanager
def standing_still(journal: Path, asked: bool) -> Iterator[None]:
    """Stop the sidecar while the context is open, if that is asked."""
    pid = sidecar_pid(journal) if asked else None
    if pid is None:
        yield
        return
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def show(found: dict[str, list[Figures]]) -> None:
    """Print a row an arm, each with its ratios to the arm without in the same rounds."""
    print(
        "| arm | p50 µs | p99 µs | x without | p99.9 µs | x without | late | saturated /s "
        "| x without | sidecar's cores |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for arm, rounds in found.items():
        p50, p99, p99_9, _, saturated, share = map(statistics.median, zip(*rounds, strict=True))
        ratios = [
            statistics.median(
                one[place] / other[place] for one, other in zip(rounds, found[WITHOUT], strict=True)
            )
            for place in (1, 2, 4)
        ]
        print(
            f"| {arm} | {p50:,.0f} | {p99:,.0f} | {ratios[0]:.2f} | {p99_9:,.0f} "
            f"| {ratios[1]:.2f} | {sum(one.late for one in rounds)} | {saturated:,.0f} "
            f"| {ratios[2]:.2f} | {share:.2f} |"
        )


if __name__ == "__main__":
    main()
