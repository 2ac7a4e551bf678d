"""How a worker is asked to end."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stop:
    """Set by SIGTERM or SIGINT, by a supervisor that is gone, or by a test."""

    def __init__(self) -> None:
        self.asked = False

    def ask(self, *_: object) -> None:
        """Ask the worker to finish what it has received, and end."""
        self.asked = True


@contextmanager
def stop_on_signals(stop: Stop) -> Iterator[None]:
    """Let SIGTERM and SIGINT ask `stop` once; a second SIGINT interrupts."""

    def asked(number: int, _: FrameType | None) -> None:
        if stop.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.ask()

    before = {number: signal.signal(number, asked) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
