"""One reading of the journal for all consumers that keep up; who falls behind reads by himself.

To read and to join a call costs more than to make its span or its row. So a batch is read once, and
held until every consumer has had it, up to a bound; a consumer that is behind it (its collector is
dead, say) goes on with a tail of its own, and comes back when it has caught up.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from gateway.errors import JournalError
from gateway.sidecar.tail.call import Batch, Position
from gateway.sidecar.tail.tail import RECORDS_MAX, Tail, place_of

HELD_CALLS_MAX = 4 * RECORDS_MAX

HELD_BYTES_MAX = 32 << 20
"""Of the journal: what is held beyond is left to tails of their own."""

HELD_BATCHES_MAX = 256
"""The same of small ones: each holds a position, and that has a mark for every boot."""

NEAR_RECORDS = RECORDS_MAX
"""Who is so close behind in each boot reads up to the others, and joins them."""


class _Reading:
    """A tail that begins again where it was, should it fail midway: it may have let go of calls."""

    def __init__(self, opened: Callable[[Position], Tail], position: Position) -> None:
        self.at = position
        self._opened = opened
        self._tail: Tail | None = opened(position)

    def read(self) -> Batch | None:
        tail, self._tail = self._tail or self._opened(self.at), None
        try:
            batch = tail.read()
        except JournalError:
            self._tail = tail  # this it says before it lets go of anything
            raise
        self._tail = tail
        if batch is not None:
            self.at = batch.until
        return batch


class SharedTail:
    """Batches by their number, for `Share`s on threads of their own. `opened`: a new tail."""

    def __init__(self, opened: Callable[[Position], Tail]) -> None:
        self.opened = opened
        self._lock = threading.Lock()
        self._shares: list[Share] = []
        self._common: _Reading | None = None
        self._held: deque[Batch] = deque()
        self._first = 0

    def share(self, position: Position) -> Share:
        """Return what a consumer reads from, beginning at its checkpoint.

        The first one's is where the common reading begins: let it be the one that is the furthest.
        """
        with self._lock:
            if self._common is None:
                self._common = _Reading(self.opened, position)
            is_here = position == self._common.at and not self._held
            one = Share(self, position, self._first if is_here else None)
            self._shares.append(one)
            return one

    def after(self, number: int, calls_max: int) -> tuple[Batch | None, int | None]:
        """Return what follows the batches before `number`, and the number then; None: not held.

        Raises:
            JournalError: the journal cannot be read.
        """
        with self._lock:
            if number < self._first:
                return None, None
            if number == self._first + len(self._held):
                self._read()
            batch: Batch | None = None
            for i in range(number - self._first, len(self._held)):
                following = self._held[i]
                if batch and len(batch.calls) + len(following.calls) > calls_max:
                    break
                batch = batch.then(following) if batch else following
                number += 1
            return batch, number

    def joined(self, position: Position) -> tuple[Batch | None, int] | None:
        """Return all from `position` to where the others are, and the number that follows.

        None: that is too far, or not ahead of `position`.
        """
        with self._lock:
            at = self._read()
            if not _is_near(position, at):
                return None
            batch = self.opened(position).up_to(at)
            if batch is None and position != at:
                return None
            return batch, self._first + len(self._held)

    def drop(self) -> None:
        """Let go of what every consumer that shares has had, and of what is too much."""
        with self._lock:
            # Who has fallen behind will not come back for what is held: it is read up to it.
            numbers = [
                one.number
                for one in self._shares
                if one.number is not None and one.number >= self._first
            ]
            least = min(numbers, default=self._first + len(self._held))
            calls = sum(len(one.calls) + len(one.asides) for one in self._held)
            size = sum(one.size for one in self._held)
            while self._held and (
                self._first < least
                or calls > HELD_CALLS_MAX
                or size > HELD_BYTES_MAX
                or len(self._held) > HELD_BATCHES_MAX
            ):
                gone = self._held.popleft()
                self._first += 1
                calls -= len(gone.calls) + len(gone.asides)
                size -= gone.size

    def _read(self) -> Position:
        """Hold what follows, if anything does, and return where the common reading is then."""
        assert self._common is not None
        batch = self._common.read()
        if batch is not None:
            self._held.append(batch)
        return self._common.at


class Share:
    """One consumer's reading. One thread reads from it."""

    def __init__(self, shared: SharedTail, position: Position, number: int | None) -> None:
        self.number = number
        self.position = position
        self._shared = shared
        self._own: _Reading | None = None

    @property
    def is_shared(self) -> bool:
        """Say whether it has what the others have, and reads nothing by itself."""
        return self.number is not None

    def read(self, calls_max: int = RECORDS_MAX) -> Batch | None:
        """Return what is whole by now and was not given out; None where there is nothing new.

        Several batches come as one while they have `calls_max` calls together.

        Raises:
            JournalError: the journal cannot be read. Nothing is lost: try again.
        """
        batch = self._common(calls_max) if self.is_shared else self._alone()
        self._shared.drop()
        if batch is not None:
            self.position = batch.until
        return batch

    def _common(self, calls_max: int) -> Batch | None:
        assert self.number is not None
        batch, self.number = self._shared.after(self.number, calls_max)
        return batch if self.is_shared else self._alone()

    def _alone(self) -> Batch | None:
        try:
            joined = self._shared.joined(self.position)
        except JournalError:
            joined = None
        if joined is not None:
            self._own = None
            batch, self.number = joined
            return batch
        if self._own is None:
            self._own = _Reading(self._shared.opened, self.position)
        return self._own.read()


def _is_near(position: Position, target: Position) -> bool:
    """Say whether a little read on comes to `target`: in every boot, and nothing told twice."""
    if position.marks.keys() - target.marks.keys():
        return False
    for boot, to in target.marks.items():
        mark = position.marks.get(boot)
        if mark and (place_of(mark) > place_of(to) or mark.read_sequence > to.read_sequence):
            return False
        if to.sequence - (mark.sequence if mark else 0) > NEAR_RECORDS:
            return False
    return True
