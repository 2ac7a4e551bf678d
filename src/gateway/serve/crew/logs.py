"""Log lines that a broken disk or model would repeat with every call, once a second."""

from __future__ import annotations

import logging


class OncePerSecond(logging.Filter):
    """Lets each message through once a second, and then says how often it was held back."""

    def __init__(self) -> None:
        super().__init__()
        self._held: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to log; messages are told apart by their text before arguments."""
        since_s, held = self._held.get(record.msg, (0.0, 0))
        if record.created - since_s < 1.0:
            self._held[record.msg] = (since_s, held + 1)
            return False
        self._held[record.msg] = (record.created, 0)
        if held:
            record.msg = f"{record.msg} (and {held} times more)"
        return True
