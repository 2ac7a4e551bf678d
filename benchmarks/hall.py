"""Where the hall's time goes: microseconds of CPU a call, by batch size, without a front.

    python benchmarks/hall.py [--profile | --share [--seconds 5] [--json]]

The journal is real (mode `process`, in a temporary folder); the front takes replies and
does nothing.

`--share` asks what of a decision's CPU time journal and stamps take. It drives the native front
to saturation (h2load, as serving.py does) for the CPU time of a whole decision and for the
batches it forms, and measures here, by batch size, two ways:

- by leaving out: the hall as it is, less the hall with a writer that takes records and does
  nothing, no record laid out, and a clock that stands still. The two take turns.
- by adding up: the writer (the hall as it is, less the hall with that writer), one
  `decision_record` and one `Replied` timed alone, and the number of clock reads times the cost
  of one.

Every clock read counts, although deadlines need some of them too, and the larger of the two ways
is what is reported. Caches are warmer here than in a server: in a server both the parts and the
whole cost more.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import repeat
from pathlib import Path
from typing import Any
from unittest.mock import patch

from model import write_product
from serving import gateway_on, machine, median_batch, request_bytes, saturate, served

from gateway.journal import Decision, Kind, Replied, Writer
from gateway.model import load_generation
from gateway.serve.hall import recorder as recorder_module
from gateway.serve.hall.admit import Serving
from gateway.serve.hall.hall import Hall
from gateway.serve.hall.health import Health

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


class NoJournal:
    """Takes every record and writes none; keeps the last ones."""

    worker, boot_id, next_sequence = 0, bytes(16), 1
    last: Sequence[bytes] = ()

    def append(self, payloads: Sequence[bytes]) -> int:
        first, self.last = self.next_sequence, payloads
        self.next_sequence += len(payloads)
        return first

    def tick(self) -> None:
        pass


@dataclass(frozen=True)
class Share:
    """Microseconds of CPU a call in a batch of `batch`: the hall, journal and stamps, its parts."""

    batch: int
    hall_us: float
    left_out_us: float
    writer_us: float
    records_us: float
    replied_us: float
    clock_us: float

    @property
    def added_us(self) -> float:
        """What the parts come to, timed one by one."""
        return self.writer_us + self.records_us + self.replied_us + self.clock_us


class Bench:
    """Halls over one product, and the call that is repeated."""

    def __init__(self, folder: Path) -> None:
        generation = load_generation(folder)
        self.measured_ns = {generation.name: generation.champion.warm_up(time.monotonic_ns)}
        self._served = {generation.name: Serving.of(generation, 0)}
        metadata = (("user-agent", "h2load nghttp2/1.52.0"),)
        payload = request_bytes(folder)[5:]
        self.event = (0, 1, 0, payload, "peer", (metadata, "ipv4:127.0.0.1:1", None))

    def hall(self, journal: Any, clock_ns: Callable[[], int] = time.monotonic_ns) -> Hall:
        front = NoFront()
        return Hall(
            front=front,
            journal=journal,
            served=self._served,
            health=Health(front, ()),
            measured_ns=self.measured_ns,
            clock_ns=clock_ns,
        )

    def per_call_us(
        self, hall: Hall, batch: int, clock_ns: Callable[[], int] = time.monotonic_ns
    ) -> float:
        """Return the CPU time of one call in batches of `batch`."""
        events, turns = [self.event] * batch, max(1, 4000 // batch)
        begun_ns = time.thread_time_ns()
        for _ in range(turns):
            hall.turn(events, clock_ns())
        return (time.thread_time_ns() - begun_ns) / turns / batch / 1000


@contextmanager
def journal_in(scratch: str) -> Iterator[Writer]:
    with Writer.open(
        Path(scratch) / "journal", worker=0, boot_id=bytes(16), max_bytes=1 << 30
    ) as journal:
        yield journal


def timed_us(call: Callable[[], object]) -> float:
    """Return the median CPU time of a call that is repeated."""

    def once() -> float:
        begun_ns = time.thread_time_ns()
        for _ in repeat(None, 2000):
            call()
        return (time.thread_time_ns() - begun_ns) / 2_000_000

    return statistics.median(once() for _ in range(ROUNDS))


def clock_reads(bench: Bench, batch: int) -> float:
    """Return how often the hall reads its clock, a call."""
    reads = 0

    def clock_ns() -> int:
        nonlocal reads
        reads += 1
        return time.monotonic_ns()

    hall = bench.hall(NoJournal(), clock_ns)
    reads = 0
    hall.turn([bench.event] * batch, time.monotonic_ns())
    return reads / batch


def record_us(bench: Bench) -> float:
    """Return what laying out one DECISION record takes, with the arguments the hall gives it."""
    lay_out, given = recorder_module.decision_record, []

    def spied(*arguments: Any, **named: Any) -> bytes:
        given.append((arguments, named))
        return lay_out(*arguments, **named)

    with patch.object(recorder_module, "decision_record", spied):
        bench.hall(NoJournal()).turn([bench.event] * 8, time.monotonic_ns())
    arguments, named = given[-1]
    return timed_us(lambda: lay_out(*arguments, **named))


def replied_us(bench: Bench, batch: int) -> float:
    """Return what laying out one REPLIED entry takes, a call."""
    journal = NoJournal()
    hall = bench.hall(journal)
    hall.turn([bench.event] * batch, time.monotonic_ns())
    hall.idle()  # what is carried leaves
    entry = next(Replied.decode(one) for one in journal.last if one[0] == Kind.REPLIED)
    first, base_ns, offsets_ns = entry.first_sequence, entry.base_ns, list(entry.offsets_ns)
    return timed_us(lambda: Replied(first, base_ns, tuple(offsets_ns)).encode()) / len(offsets_ns)


def expect_decisions(bench: Bench, batch: int, still: Callable[[], int]) -> None:
    """Hold the hall under a clock that stands still to deciding all of a batch, as it would."""
    journal = NoJournal()
    bench.hall(journal, still).turn([bench.event] * batch, still())
    taken = [Decision.decode(one) for one in journal.last if one[0] == Kind.DECISION]
    if [(one.stand_in, one.batch_size) for one in taken] != [(0, batch)] * batch:
        raise SystemExit("the hall does something else under a still clock: not comparable")


def less(real: list[float], without: list[float]) -> float:
    """Return the median difference of neighbours, which what the machine does meanwhile spares."""
    return statistics.median(a - b for a, b in zip(real, without, strict=True))


def share_of(bench: Bench, journal: Writer, batch: int) -> Share:
    """Measure one batch size, the halls taking turns."""
    now_ns = time.monotonic_ns()
    still = repeat(now_ns).__next__
    expect_decisions(bench, batch, still)
    hall, unwritten = bench.hall(journal), bench.hall(NoJournal())
    unstamped = bench.hall(NoJournal(), still)
    real, no_writer, bare = [], [], []
    for _ in range(3 * ROUNDS):
        real.append(bench.per_call_us(hall, batch))
        no_writer.append(bench.per_call_us(unwritten, batch))
        with patch.object(recorder_module, "decision_record", lambda *_, **__: b""):
            bare.append(bench.per_call_us(unstamped, batch, still))
    writer_us, without_us = less(real, no_writer), less(real, bare)
    records_us, entry_us = record_us(bench), replied_us(bench, batch)
    reads = clock_reads(bench, batch)
    # REPLIED is laid out in both halls, and the still clock is called too.
    left_out_us = without_us + entry_us + reads * timed_us(still)
    return Share(
        batch=batch,
        hall_us=statistics.median(real),
        left_out_us=left_out_us,
        writer_us=writer_us,
        records_us=records_us,
        replied_us=entry_us,
        clock_us=reads * timed_us(time.monotonic_ns),
    )


def saturated_decision(folder: Path, scratch: str, seconds: int) -> tuple[float, int]:
    """Return a whole decision's CPU time in microseconds, and the median of the batch sizes.

    Of the native front on core 0, kept busy by h2load on core 1.
    """
    body, journal = Path(scratch) / "request.bin", Path(scratch) / "saturated"
    body.write_bytes(request_bytes(folder))
    with served(gateway_on(folder, str(journal))) as (port, pid):
        busy = saturate(port, pid, body, clients=4, streams=16, seconds=seconds)
    return busy.cpu_us, median_batch(journal)


def show_share(bench: Bench, folder: Path, scratch: str, asked: argparse.Namespace) -> None:
    decision_us, formed = saturated_decision(folder, scratch, asked.seconds)
    with journal_in(scratch) as journal:
        rows = [share_of(bench, journal, batch) for batch in sorted({1, 8, 64, formed})]
    there = next(row for row in rows if row.batch == formed)
    share = max(there.left_out_us, there.added_us) / decision_us
    if asked.json:
        found = [{**asdict(row), "added_us": row.added_us} for row in rows]
        print(
            json.dumps(
                {
                    "machine": machine(),
                    "decision_us": decision_us,
                    "batch": formed,
                    "share": share,
                    "by_batch": found,
                }
            )
        )
        return
    print(f"{machine()}; CPU µs a call\n")
    print(
        "| batch | hall | journal and stamps, by leaving out | by adding up "
        "| writer | record | replied | clock |"
    )
    print("| ---: |" + " ---: |" * 7)
    for row in rows:
        print(
            f"| {row.batch} | {row.hall_us:.2f} | {row.left_out_us:.2f} | {row.added_us:.2f} "
            f"| {row.writer_us:.2f} | {row.records_us:.2f} | {row.replied_us:.2f} "
            f"| {row.clock_us:.2f} |"
        )
    print(
        f"\nA decision of the saturated server takes {decision_us:.1f} µs of CPU in batches of "
        f"{formed}; journal and stamps are {share:.0%} of it."
    )


def show_profile(bench: Bench, scratch: str) -> None:
    with journal_in(scratch) as journal:
        hall = bench.hall(journal)
        for batch in (1, 64):
            profile = cProfile.Profile()
            profile.runcall(bench.per_call_us, hall, batch)
            print(f"batch of {batch}")
            pstats.Stats(profile).sort_stats("tottime").print_stats(60)


def show_batches(bench: Bench, scratch: str) -> None:
    with journal_in(scratch) as journal:
        hall = bench.hall(journal)
        print("| batch | µs a call | µs a turn |\n| ---: | ---: | ---: |")
        for batch in BATCHES:
            median = statistics.median(bench.per_call_us(hall, batch) for _ in range(ROUNDS))
            print(f"| {batch} | {median:.1f} | {median * batch:.0f} |")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asks = arguments.add_mutually_exclusive_group()
    asks.add_argument("--profile", action="store_true")
    asks.add_argument("--share", action="store_true", help="what journal and stamps take")
    arguments.add_argument("--seconds", type=int, default=5, help="of load, for --share")
    arguments.add_argument("--json", action="store_true", help="for --share")
    asked = arguments.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = write_product(Path(scratch) / "benchmark")
        bench = Bench(folder)
        if asked.share:
            show_share(bench, folder, scratch, asked)
        elif asked.profile:
            show_profile(bench, scratch)
        else:
            show_batches(bench, scratch)


if __name__ == "__main__":
    main()
