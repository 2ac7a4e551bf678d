"""Workers and the sidecar are killed under load, and what is behind the sidecar fails meanwhile.

    PYTHONPATH=src:tests python tests/everything_killed.py [--kills 30] [--seed 1]

At the end journal, spans and lake must agree to the decision. A part of the kills hits the sidecar
before a step of the lake (between a join's rename and the deletion of what was joined, too). The
collector refuses, hangs, is slow, takes spans and fails before its answer, and rejects some; the
lake's disk is full or read-only: a small file system of its own where one may be mounted, else a
file stands where the lake should be.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

import callers
import catalogue
import grpc
import pyarrow.parquet as pq
from otlp_receiver import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
    Receiver,
    hangs,
    is_server,
    listening,
    refuses,
    server_spans,
    spans_of,
    takes_and_says_nothing,
)
from test_supervisor import Running, serving

from gateway.journal import Decision, Record, decision_id, read, segments
from gateway.model import load_generation
from gateway.sidecar.lake.lake import Lake
from gateway.sidecar.traces.spans import server_span_id

WAIT_S = 90.0
STEPS = ("delete", "rename", "write", "sync")
NO_STEP = ("none", 1)
Ids = tuple[bytes, bytes]


@dataclass
class Outcome:
    """Decisions by where they stand; `rejected`: spans that the collector did not want."""

    killed: dict[str, int] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)
    journal: set[str] = field(default_factory=set)
    lake: list[str] = field(default_factory=list)
    wanted: set[Ids] = field(default_factory=set)
    spans: set[Ids] = field(default_factory=set)
    rejected: set[Ids] = field(default_factory=set)
    altered: int = 0
    files: int = 0
    deleted: int = 0

    def held(self) -> None:
        """Hold each against the others."""
        assert self.told <= self.journal, "an answer is in no journal"
        assert len(self.lake) == len(set(self.lake)), "a row stands twice"
        assert set(self.lake) == self.journal, f"{len(set(self.lake) ^ self.journal)} rows differ"
        seen = self.spans | self.rejected
        assert seen == self.wanted, f"{len(seen ^ self.wanted)} spans differ"
        assert self.altered == 0, "a span that was sent again is another one"
        assert self.deleted, "no file of the lake was ever joined, and what it was deleted"


def everything_killed(here: Path, kills: int, seed: int) -> Outcome:
    """Kill so often; return what stands where."""
    chance = random.Random(seed)
    folder = catalogue.write_folder(here / "test")
    fingerprint = load_generation(folder).schema.fingerprint
    journal, outcome, receiver = here / "journal", Outcome(), Receiver()
    with ExitStack() as stack:
        disk = stack.enter_context(lake_disk(here))
        gateway = stack.enter_context(serving(folder, journal, "--workers", "2"))
        port = stack.enter_context(listening(receiver))
        told = stack.enter_context(callers.calling("grpcio", gateway.address, fingerprint))
        options = ["--journal", str(journal), "--lake", str(disk.lake), "--json"]
        options += ["--http", "127.0.0.1:0", "--listen", "127.0.0.1:0"]
        options += ["--otlp", f"http://127.0.0.1:{port}"]
        faults = Faults(chance, receiver, disk, outcome)
        sidecar = stack.enter_context(dying_sidecar(here / "steps", options))
        deaths = cycle((step, count) for count in (1, 2, 3) for step in STEPS)
        for number in range(kills):
            faults.begin()
            told.wait_for(chance.randrange(10, 60))
            if number % 3 == 1:
                outcome.killed["worker"] = outcome.killed.get("worker", 0) + 1
                kill_a_worker(gateway, chance)
            else:
                where = sidecar.killed(chance)
                outcome.killed[where] = outcome.killed.get(where, 0) + 1
                faults.end()
                sidecar.start(*next(deaths) if number % 3 == 2 else NO_STEP)
        faults.end()
        told.stopped = True
        gateway.until_all_serve(2)
        sidecar.killed(chance)
        assert gateway.ended() == 0
        outcome.told = set(told.answers.values())
        for record in decisions(journal):
            boot, worker = record.segment.name.boot_id, record.segment.name.worker
            outcome.journal.add(decision_id(boot, worker, record.sequence))
            outcome.wanted.add(server_span_id(record))
        sidecar.start(*NO_STEP)
        until(
            lambda: (
                len(server_spans(receiver) | outcome.rejected) >= len(outcome.wanted)
                and len(rows(disk.lake)) >= len(outcome.journal)
                # Small files are joined now and then: by the last life at the latest.
                and joined(here / "steps")
            )
        )
        sidecar.process.send_signal(signal.SIGTERM)
        assert sidecar.process.wait(30) == 0
        outcome.lake, outcome.spans = rows(disk.lake), server_spans(receiver)
        outcome.altered, outcome.files = receiver.altered, len(files(disk.lake))
        outcome.deleted = joined(here / "steps")
    return outcome


class Sidecar:
    """One life after the other."""

    def __init__(self, steps: Path, options: list[str]) -> None:
        self._steps, self._options = steps, options

    def start(self, step: str, number: int) -> None:
        """Start one that is bound to die before the lake's `number`th such step."""
        script = Path(__file__).with_name("sidecar_that_dies.py")
        command = [sys.executable, str(script), str(self._steps), step, str(number)]
        environment = {**os.environ, "OTEL_EXPORTER_OTLP_TIMEOUT": "1000"}
        self.process = subprocess.Popen(
            [*command, *self._options],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            text=True,
        )
        self.step = step
        assert self.process.stdout is not None
        self.process.stdout.readline()  # it runs, or has died already

    def end(self) -> None:
        """Leave nothing of this life."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def killed(self, chance: random.Random) -> str:
        """Let it die before its step; kill it anywhere, where that does not come."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(chance.random() * 0.5 if self.step == "none" else 5.0)
        died = self.process.poll() is not None
        self.end()
        assert not died or self.process.returncode == -signal.SIGKILL, self.process.returncode
        return f"sidecar before {self.step}" if died else "sidecar"


@contextmanager
def dying_sidecar(steps: Path, options: list[str]) -> Iterator[Sidecar]:
    """Give the first life; end the last one."""
    sidecar = Sidecar(steps, options)
    sidecar.start(*NO_STEP)
    try:
        yield sidecar
    finally:
        sidecar.end()


class Faults:
    """What fails now, of the collector and of the lake's disk."""

    def __init__(
        self, chance: random.Random, receiver: Receiver, disk: Disk, outcome: Outcome
    ) -> None:
        self._chance, self._receiver, self._disk = chance, receiver, disk
        self._outcome = outcome

    def begin(self) -> None:
        """Let something fail, or nothing."""
        for _ in range(self._chance.randrange(3)):
            self._receiver.faults.put(
                self._chance.choice(
                    (
                        refuses(grpc.StatusCode.UNAVAILABLE),
                        refuses(grpc.StatusCode.RESOURCE_EXHAUSTED, retry_after_s=0.2),
                        hangs,
                        self._is_slow,
                        takes_and_says_nothing,
                        self._rejects,
                    )
                )
            )
        self._chance.choice((self._disk.full, self._disk.read_only, self._disk.mended))()

    def end(self) -> None:
        """Let the disk be in order again."""
        self._disk.mended()

    def _is_slow(
        self, receiver: Receiver, request: ExportTraceServiceRequest, context: object
    ) -> None:
        threading.Event().wait(0.3)

    def _rejects(
        self, receiver: Receiver, request: ExportTraceServiceRequest, context: object
    ) -> ExportTraceServiceResponse:
        """Take all but two; those are not sent again, says OTLP."""
        spans = spans_of(request)
        receiver.take(spans[2:])
        with receiver.lock:
            self._outcome.rejected |= {
                (one.trace_id, one.span_id) for one in spans[:2] if is_server(one)
            }
        answer = ExportTraceServiceResponse()
        answer.partial_success.rejected_spans = len(spans[:2])
        return answer


class Disk:
    """The lake's file system, and its faults. `is_own`: it was mounted for this."""

    def __init__(self, here: Path, *, is_own: bool) -> None:
        self._mount = here / "disk"
        self.lake = self._mount / "lake"
        self._is_own = is_own

    def full(self) -> None:
        """Leave no byte."""
        self.mended()
        if not self._is_own:
            self.read_only()
            return
        with (self._mount / "filler").open("wb") as filler, suppress(OSError):
            while True:
                filler.write(bytes(1 << 20))
                filler.flush()

    def read_only(self) -> None:
        """Let nothing be written; where no file system is our own, let the lake be no folder."""
        self.mended()
        if self._is_own:
            remount(self._mount, "ro")
        elif self.lake.is_dir():
            self.lake.rename(self._mount / "away")
            self.lake.write_text("in the way")

    def mended(self) -> None:
        """Let all be in order."""
        if self._is_own:
            remount(self._mount, "rw")
            (self._mount / "filler").unlink(missing_ok=True)
        elif self.lake.is_file():
            self.lake.unlink()
            (self._mount / "away").rename(self.lake)


@contextmanager
def lake_disk(here: Path) -> Iterator[Disk]:
    """Mount a small file system for the lake, where that is allowed."""
    mount = here / "disk"
    mount.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(mount)],
        check=False,
        capture_output=True,
    )
    disk = Disk(here, is_own=mounted.returncode == 0)
    try:
        yield disk
    finally:
        disk.mended()
        if mounted.returncode == 0:
            subprocess.run(["umount", "--lazy", str(mount)], check=True)
        else:
            shutil.rmtree(mount)


def remount(mount: Path, how: str) -> None:
    """Remount; a file that is open for writing makes it busy for a moment."""
    command = ["mount", "-o", f"remount,{how}", str(mount)]
    until(lambda: subprocess.run(command, check=False, capture_output=True).returncode == 0)


def kill_a_worker(gateway: Running, chance: random.Random) -> None:
    workers = [one for one in gateway.workers() if one.serves(time.monotonic_ns())]
    if workers:
        with suppress(ProcessLookupError):
            os.kill(chance.choice(workers).pid, signal.SIGKILL)


def until(holds: Callable[[], bool]) -> None:
    until_s = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < until_s, "it does not come to agree"
        time.sleep(0.05)


def decisions(journal: Path) -> Iterator[Record]:
    for segment in segments(journal):
        for item in read(segment):
            if isinstance(item, Record) and isinstance(item.entry, Decision):
                yield item


def joined(steps: Path) -> int:
    """Return how often what was joined was deleted."""
    return steps.read_text().split().count("delete")


def files(lake: Path) -> tuple[str, ...]:
    return Lake.at(str(lake)).files("decisions")


def rows(lake: Path) -> list[str]:
    """Return the decision ids in the lake, as `files` shows them."""
    found: list[str] = []
    with suppress(FileNotFoundError):  # joined while we read: the next look is right
        for path in files(lake):
            found += pq.read_table(path, columns=["decision_id"])["decision_id"].to_pylist()
    return found


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--kills", type=int, default=30)
    arguments.add_argument("--seed", type=int, default=int(time.time()))
    asked = arguments.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        outcome = everything_killed(Path(scratch), asked.kills, asked.seed)
    print(
        json.dumps(
            {
                "seed": asked.seed,
                "seconds": round(time.monotonic() - begun, 1),
                "killed": outcome.killed,
                "told": len(outcome.told),
                "journal": len(outcome.journal),
                "rows": len(outcome.lake),
                "rows, distinct": len(set(outcome.lake)),
                "spans, distinct": len(outcome.spans),
                "spans that the collector rejected": len(outcome.rejected - outcome.spans),
                "files": outcome.files,
                "joined and deleted": outcome.deleted,
            },
            indent=2,
        )
    )
    outcome.held()


if __name__ == "__main__":
    main()
