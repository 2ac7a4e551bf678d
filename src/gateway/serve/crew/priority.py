"""How threads that must not be felt give way to the loop."""

from __future__ import annotations

import os
import threading
from contextlib import suppress

NICENESS = 19
"""Below the hall's priority, as far as it goes: with 10 or 15 a light product's p99 doubled beside
a model of 40 ms on the same core, with 19 it stays. SCHED_IDLE would be less still: but such a
thread may hold the interpreter, and the hall would wait for whoever else has the processor."""


def step_back() -> None:
    """Give this thread the least share of the processor that is one."""
    with suppress(OSError):  # not on every platform, and no reason not to serve
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
