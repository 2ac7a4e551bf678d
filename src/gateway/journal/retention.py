"""Keeps one worker's segments within --journal-max-bytes, and counts what that costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from gateway.errors import JournalFull
from gateway.journal.disk import refusal
from gateway.journal.losses import Losses
from gateway.journal.recovery import read_tail
from gateway.journal.segment import Dropped, SegmentName
from gateway.journal.spans import Span, merged, size

_TOLD_AGAIN = 16
"""So many runs of lost sequences are told again with each loss: they fit what is reserved."""


@dataclass(frozen=True, slots=True)
class Closed:
    """A segment that is not written any more. `last_sequence`: None where nobody counted yet."""

    path: Path
    name: SegmentName
    size: int
    last_sequence: int | None


def closed_segments(files: list[tuple[SegmentName, Path]]) -> list[Closed]:
    """Describe what earlier writers left; within a boot the next segment tells where one ended.

    Raises:
        JournalError: a file's size cannot be read.
    """
    closed = []
    for (name, path), following in zip_longest(files, files[1:]):
        goes_on = following and following[0].boot_id == name.boot_id
        last_sequence = following[0].first_sequence - 1 if goes_on else None
        closed.append(Closed(path, name, _size(path), last_sequence))
    return closed


class Retention:
    """The closed segments of one worker, oldest first."""

    def __init__(
        self,
        closed: list[Closed],
        *,
        max_bytes: int | None,
        shipped: Callable[[Path], bool] | None,
        dropped: Sequence[Dropped] = (),
    ) -> None:
        self._closed = closed
        self._max_bytes = max_bytes
        self._shipped = shipped or (lambda _path: False)
        self._closed_bytes = sum(segment.size for segment in closed)
        self._dropped: dict[bytes, list[Span]] = {}  # by boot
        self._lost: dict[bytes, list[Span]] = {}  # of them; the boot that lost last stands last
        for run in dropped:
            span = run.first_sequence, run.last_sequence
            for runs in (self._dropped, self._lost) if run.is_lost else (self._dropped,):
                runs[run.boot_id] = merged([*runs.get(run.boot_id, ()), span])

    @property
    def runs(self) -> tuple[Dropped, ...]:
        """What was dropped so far: the latest runs, for the headers of segments."""
        whole = [
            Dropped(boot_id, *run, is_lost=False)
            for boot_id, spans in self._dropped.items()
            for run in spans
            if run not in self._lost.get(boot_id, ())
        ]
        lost = [Dropped(boot_id, *run, is_lost=True) for boot_id, run in self._lost_runs()]
        return (*whole[-_TOLD_AGAIN:], *lost)

    def _lost_runs(self) -> list[tuple[bytes, Span]]:
        runs = [(boot_id, run) for boot_id, spans in self._lost.items() for run in spans]
        return runs[-_TOLD_AGAIN:]

    def add(self, segment: Closed) -> None:
        """Take in a segment that was closed just now."""
        self._closed.append(segment)
        self._closed_bytes += segment.size

    def make_room(self, open_bytes: int, losses: Losses) -> None:
        """Drop segments until the closed ones and `open_bytes` fit the limit; count into `losses`.

        Raises:
            JournalFull: no segment is left to drop, or it cannot be dropped.
        """
        if self._max_bytes is None or self._closed_bytes + open_bytes <= self._max_bytes:
            return
        self._forget_deleted()
        while self._closed_bytes + open_bytes > self._max_bytes:
            self._drop_one(losses)

    def _forget_deleted(self) -> None:
        """Leave out what the sidecar has deleted meanwhile, when every consumer was past it."""
        self._closed = [segment for segment in self._closed if segment.path.exists()]
        self._closed_bytes = sum(segment.size for segment in self._closed)

    def _drop_one(self, losses: Losses) -> None:
        """Unlink the oldest shipped segment, or else the oldest.

        What had been shipped is no loss, but its range is told, so that nobody misses it.
        """
        if not self._closed:
            raise JournalFull(
                "the open segment alone fills the journal's limit",
                hint="Raise --journal-max-bytes.",
            )
        shipped = next((segment for segment in self._closed if self._shipped(segment.path)), None)
        segment = shipped or self._closed[0]
        last_sequence = segment.last_sequence
        try:
            if last_sequence is None and segment.path.exists():
                last_sequence = read_tail(segment.path, segment.name).last_sequence
            segment.path.unlink(missing_ok=True)
        except OSError as error:
            what = refusal(error, "drop the oldest segment", segment.path)
            raise JournalFull(what.what, subject=what.subject, hint=what.hint) from error
        self._closed.remove(segment)
        self._closed_bytes -= segment.size
        first_sequence = segment.name.first_sequence
        if last_sequence is not None and last_sequence >= first_sequence:
            span = first_sequence, last_sequence
            self._tell(segment.name.boot_id, span, is_lost=shipped is None, losses=losses)

    def _tell(self, boot_id: bytes, span: Span, *, is_lost: bool, losses: Losses) -> None:
        """Say what was dropped of a boot so far, and what was lost of this worker.

        As a whole: entries that told of it stand in segments that are dropped themselves one day,
        perhaps unread. A reader counts a sequence once, however often it is told of.
        """
        self._dropped[boot_id] = merged([*self._dropped.get(boot_id, ()), span])
        if is_lost:
            losses.total += size([span])
            self._lost[boot_id] = merged([*self._lost.pop(boot_id, ()), span])
            for boot, run in self._lost_runs():
                losses.tell(boot, run, is_lost=True)
        run = next(one for one in self._dropped[boot_id] if one[0] <= span[0] <= one[1])
        if run not in self._lost.get(boot_id, ()):
            losses.tell(boot_id, run, is_lost=False)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise refusal(error, "look at the segment", path) from error
