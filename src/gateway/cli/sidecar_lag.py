"""Which sidecar runs beside a journal, and how far each of its consumers is behind.

Read from what it writes down (its presence, its checkpoints), so that it is also known of one that
is dead or stands still.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.errors import JournalDamaged
from gateway.sidecar.presence import Presence, found
from gateway.sidecar.tail.call import Position
from gateway.sidecar.tail.checkpoint import STATE, Checkpoint
from gateway.sidecar.tail.lag import Lag, Lags


@dataclass(frozen=True, slots=True)
class Beside:
    """The sidecar that ran last beside a journal.

    `lags`: by consumer; None where its checkpoint cannot be read.
    """

    presence: Presence
    runs: bool
    lags: dict[str, Lag | None]

    @property
    def row(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {
            "pid": self.presence.pid,
            "running": self.runs,
            "metrics": self.presence.metrics or None,
            "lake": self.presence.lake or None,
            "consumers": {
                name: one
                and {"records": one.records, "bytes": one.bytes, "age_s": one.age_ns / 1e9}
                for name, one in self.lags.items()
            },
        }

    @property
    def in_words(self) -> str:
        """Where it is, and how far: one line."""
        one = self.presence
        runs = f"runs (pid {one.pid}), {one.metrics}" if self.runs else "does not run any more"
        behind = ", ".join(_behind(name, lag) for name, lag in self.lags.items())
        return f"sidecar {runs}; {behind}" if behind else f"sidecar {runs}"


def beside(journal: Path) -> Beside | None:
    """Return the journal's sidecar; None where none ever ran.

    Raises:
        JournalError: what it wrote, or the journal, cannot be read.
    """
    told = found(journal / STATE)
    if told is None:
        return None
    presence, runs = told
    kept = Path(presence.checkpoints)
    positions = {name: _position(Checkpoint(kept, name)) for name in presence.consumers}
    known = {name: position for name, position in positions.items() if position is not None}
    lags = Lags(journal).of(known, wall_ns=time.time_ns())
    return Beside(presence, runs, {name: lags.get(name) for name in positions})


def _position(checkpoint: Checkpoint) -> Position | None:
    """Return how far a consumer is; None where its checkpoint is damaged."""
    try:
        return checkpoint.load()
    except JournalDamaged:
        return None


def _behind(name: str, one: Lag | None) -> str:
    if one is None:
        return f"{name} waits: its checkpoint cannot be read"
    if not one.records:
        return f"{name} has all"
    return f"{name} is {one.records:,} records behind ({one.age_ns / 1e9:.0f} s)"
