"""A model that fails again and again is left alone for a while, then tried again."""

from __future__ import annotations

FAILURES = 8
"""Batches in a row of which the model answered no row."""

OPEN_NS = 1_000_000_000


class Circuit:
    """Open while a model is left alone; then one batch is let through to try it."""

    __slots__ = ("_failures", "_open_until_ns")

    def __init__(self) -> None:
        self._failures = 0
        self._open_until_ns = 0

    def lets_through(self, now_ns: int) -> bool:
        """Return whether the model may be asked."""
        return now_ns >= self._open_until_ns

    def saw(self, answered: bool, now_ns: int) -> None:
        """Take in whether the model answered any row of a batch."""
        if answered:
            self._failures = 0
            return
        self._failures += 1
        if self._failures >= FAILURES:
            self._open_until_ns = now_ns + OPEN_NS
