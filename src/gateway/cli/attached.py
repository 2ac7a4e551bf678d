"""A sidecar that `gateway serve` started: it steps back, and ends with it.

The gateway holds the other end of stdin. When that ends, the gateway has ended, however it did: the
sidecar goes on until no worker writes any more and all is behind its consumers, or for some seconds
if they do not get there. What could not begin is said on stdout, as the supervisor reads errors.
"""

from __future__ import annotations

import json
import logging
import os
import select
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import ParamSpec

from gateway.errors import ExitCode, GatewayError, JournalError
from gateway.serve.crew.board import FRESH_NS, seen
from gateway.serve.crew.control import error_row
from gateway.serve.crew.priority import NICENESS
from gateway.sidecar.tail.lag import Lag

FINISH_S = 5.0
"""So long the consumers may take for what the last worker has left."""

OOM_SCORE = "500"
_LOOK_S = 0.2
_STDIN = 0

log = logging.getLogger(__name__)

Asked = ParamSpec("Asked")


def errors_told(verb: Callable[Asked, int]) -> Callable[Asked, int]:
    """Let a verb that runs `attached` tell its supervisor why it cannot."""

    @wraps(verb)
    def told(*args: Asked.args, **options: Asked.kwargs) -> int:
        try:
            return verb(*args, **options)
        except GatewayError as error:
            if not options.get("attached"):
                raise
            print(json.dumps({"error": error_row(error)}), flush=True)
            return error.exit_code

    return told


def step_back() -> None:
    """Give every thread of this process, and those to come, the least share that is one.

    SCHED_IDLE would be less: on a machine whose every core is saturated it is a three-hundredth of
    one, and Prometheus would learn nothing of an overload as long as it lasts. Niceness 19 is five
    times that, and all that nobody else wants. As SCHED_BATCH it never takes a worker's place by
    waking up. Niceness counts within a session (`succession.verification`): this has the workers'.
    Where memory runs out, the kernel is to take it before them.
    """
    if sys.platform != "linux":
        os.nice(NICENESS)
        return
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE, encoding="ascii")
    for thread in os.listdir("/proc/self/task"):
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, int(thread), NICENESS)
            os.sched_setscheduler(int(thread), os.SCHED_BATCH, os.sched_param(0))


def end_with_starter() -> None:
    """End this process, at once, when whoever holds the other end of its stdin has ended."""

    def watch() -> None:
        while os.read(_STDIN, 1 << 10):
            pass
        os._exit(ExitCode.INTERRUPTED)

    threading.Thread(target=watch, name="starter", daemon=True).start()


class Attachment:
    """Says when an attached sidecar is to end. `lags`: what each consumer has not had yet."""

    def __init__(self, journal: Path, lags: Callable[[], Mapping[str, Lag]]) -> None:
        self._journal = journal
        self._lags = lags
        self._supervisor = os.getppid()
        self._is_cut = False
        self._next_s = 0.0
        self._until_s: float | None = None
        self._waits_for: frozenset[str] = frozenset()

    @property
    def is_cut(self) -> bool:
        """Whether the gateway has ended, as seen last."""
        return self._is_cut

    @property
    def waits_for(self) -> frozenset[str]:
        """Who is behind yet, as seen last, once all that the gateway wrote is written."""
        return self._waits_for

    def is_over(self) -> bool:
        """Look whether it is; cheap as long as the gateway is there."""
        self._is_cut = self._is_cut or _has_ended(_STDIN)
        now_s = time.monotonic()
        if not self._is_cut or now_s < self._next_s:
            return False
        self._next_s = now_s + _LOOK_S
        if self._until_s is None:
            if _is_written(self._journal, self._supervisor):
                return False
            self._until_s = now_s + FINISH_S
        self._waits_for = frozenset(_behind(self._lags))
        return now_s >= self._until_s or not self._waits_for

    def say_what_is_left(self) -> None:
        """Say how far the consumers did not get; it is there for the next start."""
        for name, lag in _behind(self._lags).items():
            log.warning(
                "%s ends %s records behind: they stay in the journal, for the next start",
                name,
                f"{lag.records:,}",
            )


def _behind(lags: Callable[[], Mapping[str, Lag]]) -> dict[str, Lag]:
    try:
        return {name: lag for name, lag in lags().items() if lag.records}
    except JournalError as error:
        log.warning("how far the consumers are cannot be said: %s", error)
        return {}


def _is_written(journal: Path, supervisor: int) -> bool:
    """Say whether a worker of that supervisor, which has ended, still writes the journal.

    The board says it: to try a worker's lock would be in the way of who takes it next.
    """
    now_ns = time.monotonic_ns()
    try:
        with seen(journal) as (board, _):
            is_its = board.gateway.pid == supervisor
            return is_its and any(now_ns - one.beat_ns < FRESH_NS for one in board.workers())
    except JournalError:
        return False


def _has_ended(fd: int) -> bool:
    ready, _, _ = select.select([fd], [], [], 0)
    return bool(ready) and not os.read(fd, 1 << 10)
