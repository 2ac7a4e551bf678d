"""How threads and processes that must not be felt give way to the loop."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import suppress

NICENESS = 19
"""Below the hall's priority, as far as it goes: with 10 or 15 a light product's p99 doubled beside
a model of 40 ms on the same core, with 19 it stays. SCHED_IDLE would be less still: but such a
thread may hold the interpreter, and the hall would wait for whoever else has the processor."""


def step_back() -> None:
    """Give this thread the least share of the processor that is one."""
    with suppress(OSError):  # not on every platform, and no reason not to serve
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


def giving_way(command: Sequence[str]) -> list[str]:
    """Return the command of a process that has the least share from its first import on.

    A shell steps back for it: to run Python between fork and exec is not safe beside threads.
    """
    return ["/bin/sh", "-c", _GIVING_WAY, *command]


_GIVING_WAY = (
    f'if command -v nice >/dev/null; then exec nice -n {NICENESS} "$0" "$@"; '
    'else exec "$0" "$@"; fi'
)
