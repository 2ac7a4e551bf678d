"""Notes when a core did not run what should have run. `python -m gateway.bench.witness CORE`.

It sleeps a millisecond at a time and notes when it woke later than it asked for: a virtual
machine that was not given its processor, or another program. With real-time priority nothing
that the benchmark itself runs can delay it, so a gap is the machine's; without, a busy server
may look like one, and the run says so.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import FrameType

SLEEP_NS = 1_000_000
GAP_NS = 2_000_000
"""Later than this is a gap."""

PRIORITY = 50


@dataclass(frozen=True, slots=True)
class Seen:
    """What the witnesses saw: (from, to) of each gap, monotonic ns."""

    gaps: tuple[tuple[int, int], ...]
    real_time: bool


def watch(stopping: Callable[[float], bool], clock_ns: Callable[[], int]) -> list[tuple[int, int]]:
    """Sleep and look until `stopping`, which is given the seconds to sleep, is true."""
    gaps: list[tuple[int, int]] = []
    before_ns = clock_ns()
    over = False
    while not over:
        over = stopping(SLEEP_NS / 1e9)
        # The last sleep counts, too: a machine may stand still until the end.
        now_ns = clock_ns()
        if now_ns - before_ns > SLEEP_NS + GAP_NS:
            gaps.append((before_ns, now_ns))
        before_ns = now_ns
    return gaps


class Witnesses:
    """One witness a core, from entering to leaving; `seen` is what they saw, once left."""

    def __init__(self, cores: Iterable[int]) -> None:
        self._cores = tuple(cores)
        self._children: list[subprocess.Popen[str]] = []
        self.seen = Seen((), False)

    @property
    def pids(self) -> tuple[int, ...]:
        """Return the process of each."""
        return tuple(child.pid for child in self._children)

    def __enter__(self) -> Witnesses:
        """Start them, and wait until each is watching."""
        for core in self._cores:
            command = [sys.executable, "-m", "gateway.bench.witness", str(core)]
            self._children.append(
                subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    start_new_session=True,
                )
            )
        for child in self._children:
            assert child.stdout is not None
            child.stdout.readline()
        return self

    def __exit__(self, *raised: object) -> None:
        """Let them end, and hear them."""
        reports = []
        for child in self._children:
            said = child.communicate()[0]
            with contextlib.suppress(ValueError):
                reports.append(json.loads(said))
        gaps = sorted((begin, end) for report in reports for begin, end in report["gaps"])
        heard = len(reports) == len(self._cores) > 0
        self.seen = Seen(tuple(gaps), heard and all(report["real_time"] for report in reports))


def _real_time() -> bool:
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _stopped_by_signal() -> Iterator[list[int]]:
    asked: list[int] = []

    def ask(number: int, _: FrameType | None) -> None:
        asked.append(number)

    before = signal.signal(signal.SIGTERM, ask)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)


def main() -> None:
    """Watch one core until stdin ends or SIGTERM; then say what was seen, as JSON."""
    os.sched_setaffinity(0, {int(sys.argv[1])})
    real_time = _real_time()
    gc.collect()
    gc.freeze()
    gc.disable()
    with _stopped_by_signal() as asked:
        print("watching", flush=True)

        def stopping(seconds: float) -> bool:
            ready, _, _ = select.select([sys.stdin], [], [], seconds)
            return bool(ready or asked)

        gaps = watch(stopping, time.monotonic_ns)
    print(json.dumps({"gaps": gaps, "real_time": real_time}))


if __name__ == "__main__":
    main()
