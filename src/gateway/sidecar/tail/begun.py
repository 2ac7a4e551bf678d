"""What a consumer reads from whose checkpoint could not be read when the sidecar began.

It waits for a checkpoint that can be read, or for none, and holds no other consumer back meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.sidecar.tail.call import Batch, Position, Source
from gateway.sidecar.tail.checkpoint import Checkpoint

_BEGIN = Position()


class BegunLater:
    """Looks at `checkpoint` whenever it is asked; `opened` gives what to read from there on."""

    def __init__(self, checkpoint: Checkpoint, opened: Callable[[Position], Source]) -> None:
        self._checkpoint = checkpoint
        self._opened = opened
        self._source: Source | None = None

    @property
    def position(self) -> Position:
        """Behind what was given out; the journal's begin as long as nobody knows."""
        return self._source.position if self._source else _BEGIN

    def read(self) -> Batch | None:
        """Return what follows, as a `Source` does.

        Raises:
            JournalDamaged: the checkpoint can still not be read.
            JournalError: it, or the journal, cannot be read.
        """
        if self._source is None:
            self._source = self._opened(self._checkpoint.load())
        return self._source.read()
