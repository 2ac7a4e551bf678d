"""Evaluates a lake again and again beside the sidecar, each time in a process of its own.

What an evaluation takes of memory goes with its process. That process only reads; what it prints is
looked at, shown and kept here. So it may be killed at any moment: the last evaluation stands, with
its age, and nothing else notices.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from gateway.errors import ExitCode, GatewayError
from gateway.serve.crew.live import how_ended
from gateway.serve.crew.priority import giving_way
from gateway.sidecar.lake.evaluations import Evaluations, as_of_of, evaluation_in
from gateway.sidecar.lake.hypotheses import keep_told
from gateway.sidecar.lake.lake import Lake
from gateway.sidecar.lake.products import kept
from gateway.sidecar.metrics.evaluated import Evaluated

FIRST_S = 60.0
"""After a start the consumers have so long to themselves."""

LOOK_S = 5.0
"""A lake that holds nothing yet is looked at again after so long."""

LIMIT_S = 3600.0
"""One that takes longer hangs. Beside workers that need every core, it has a fiftieth of one."""

RETRY_S = 60.0
"""What failed is tried again after so long, then after twice as long each time."""

SAY_S = 3600.0
"""What goes on failing is said so often."""

END_S = 5.0

log = logging.getLogger(__name__)


class Evaluating:
    """A thread that evaluates a lake `every_s` seconds. A context manager.

    Entering it shows the last evaluation that was kept. `command`: what prints an evaluation as
    JSON, and ends when its stdin does.

    Raises:
        LakeError: the lake's file system is none that is known, or does not answer.
    """

    def __init__(
        self,
        lake: str,
        shown: Evaluated,
        *,
        every_s: float,
        command: Sequence[str] | None = None,
        first_s: float = FIRST_S,
        limit_s: float = LIMIT_S,
        retry_s: float = RETRY_S,
    ) -> None:
        self._place = lake
        self._lake = Lake.at(lake)
        self._kept = Evaluations(self._lake.filesystem, self._lake.root)
        self._shown = shown
        self._every_s = every_s
        self._command = giving_way(evaluation_of(lake) if command is None else command)
        self._first_s = min(first_s, every_s)
        self._limit_s = limit_s
        self._retry_s = retry_s
        self._has_looked = False
        self._failures = 0
        self._said_s = 0.0
        self._ends = threading.Event()
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._work, name="evaluate", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()
        # A file system that hangs holds nobody up.
        self._thread.join(END_S)

    def end(self) -> None:
        """Evaluate no more, and kill a process that does; waits for nothing."""
        with self._lock:
            self._ends.set()
            if self._child is not None:
                self._child.kill()

    def _work(self) -> None:
        wait_s = 0.0
        while not self._ends.wait(wait_s):
            try:
                wait_s = self._step()
            except GatewayError as error:
                wait_s = self._failed(str(error))
            except Exception as error:
                wait_s = self._failed(type(error).__name__)

    def _step(self) -> float:
        """Do what is due; return after how many seconds something is again. Raises GatewayError."""
        if not self._has_looked:
            self._has_looked = True  # where that fails, the next one is made all the same
            return self._look_back()
        if self._lake.is_empty or not kept(self._lake.filesystem, self._lake.root):
            return min(LOOK_S, self._every_s)
        self._evaluate()
        return self._every_s

    def _look_back(self) -> float:
        """Show what was kept last; return when the next one is due, not at once at each start."""
        now = datetime.now(UTC)
        last = self._kept.last(now)
        if last is None:
            return self._first_s
        self._shown.take(last)
        age_s = (now - as_of_of(last)).total_seconds()
        return max(self._first_s, self._every_s - age_s)

    def _evaluate(self) -> None:
        begun_s = time.monotonic()
        said = self._what_it_says()
        if self._ends.is_set():
            return
        evaluation = evaluation_in(said, "what was printed")
        self._shown.take(evaluation, time.monotonic() - begun_s)
        self._kept.keep(evaluation)
        # The process only reads: what it looked at is kept here, so that nobody need ask each day.
        keep_told(self._lake.filesystem, self._lake.root, evaluation.get("hypotheses", ()))
        if self._failures:
            log.info("the lake is evaluated again")
        self._failures = 0

    def _what_it_says(self) -> bytes:
        """Run the command to its end. Raises GatewayError: it failed, or took too long."""
        stdin, ours = os.pipe()
        try:
            child = self._started(stdin)
            os.close(stdin)
            stdin = -1
            if child is None:
                return b""
            with child:
                try:
                    said, _ = child.communicate(timeout=self._limit_s)
                except subprocess.TimeoutExpired:
                    child.kill()
                    raise GatewayError(f"it took longer than {self._limit_s:g} s") from None
        finally:
            os.close(ours)
            if stdin >= 0:
                os.close(stdin)
            with self._lock:
                self._child = None
        if child.returncode:
            raise GatewayError(f"its process ended with {_ending(child.returncode)}")
        return said

    def _started(self, stdin: int) -> subprocess.Popen[bytes] | None:
        """Start the command, unless all is to end.

        It has none of our files and sockets. It stays in our session, as Linux shares the processor
        among sessions first; Ctrl-C is for us alone. What it complains of may hold what stands in
        the lake, and is not for a log.
        """
        with self._lock:
            if self._ends.is_set():
                return None
            self._child = subprocess.Popen(
                self._command,
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                process_group=0,
            )
            return self._child

    def _failed(self, why: str) -> float:
        """Say that it failed, not each time; return after how many seconds it is tried again."""
        if self._ends.is_set():
            return 0.0
        self._shown.fail()
        self._failures += 1
        now_s = time.monotonic()
        if self._failures == 1 or now_s - self._said_s >= SAY_S:
            self._said_s = now_s
            often = f", {self._failures} times in a row" if self._failures > 1 else ""
            log.warning(
                "the lake was not evaluated%s: %s; the last evaluation stands. To see more: "
                "gateway evaluate --lake %s",
                often,
                why,
                self._place,
            )
        return float(min(self._every_s, self._retry_s * 2.0 ** min(self._failures - 1, 20)))


def evaluation_of(lake: str) -> list[str]:
    """Return the command that prints an evaluation of a lake, gives way, and ends with us."""
    # -P: what lies in the current folder is not imported.
    verb = [sys.executable, "-P", "-m", "gateway", "evaluate", "--attached", "--json"]
    return [*verb, f"--lake={lake}"]


def _ending(code: int) -> str:
    with suppress(ValueError):
        return f"{how_ended(code)} ({ExitCode(code).name})"
    return how_ended(code)
