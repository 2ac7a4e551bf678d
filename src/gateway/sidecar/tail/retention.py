"""Deletes segments that no consumer needs, and publishes which those are.

A consumer is whoever runs here, and whoever has a checkpoint that is younger than what is kept: one
that was taken away holds nothing for ever, one that is away for a while loses nothing. What counts
is a saved checkpoint. A consumer that never came to a segment needs it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from gateway.errors import GatewayError, JournalDamaged
from gateway.journal import Bound, Shipped, load_shipped, save_shipped
from gateway.journal.disk import refusal
from gateway.journal.segment import parse_name
from gateway.journal.spans import Span, merged
from gateway.sidecar.tail.call import Position
from gateway.sidecar.tail.checkpoint import Checkpoint, consumers
from gateway.sidecar.tail.listing import Boot, Boots, Listing

EVERY_S = 5.0
"""What is shipped is published so often."""

SAY_S = 60.0

log = logging.getLogger(__name__)


class Retention:
    """Of the journal in `journal`; checkpoints stand below `state`.

    `running`: the consumers that run here, by name. `keep_s`: a segment stays for so long after it
    was written last; None: nothing is deleted. `wall_ns`: now.
    """

    def __init__(
        self,
        journal: Path,
        state: Path,
        running: Sequence[str],
        *,
        keep_s: float | None,
        forget_s: float,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._journal = journal
        self._state = state
        self._running = tuple(running)
        self._keep_s = keep_s
        self._forget_s = forget_s
        self._wall_ns = wall_ns
        self._listing = Listing(journal)
        self._published = load_shipped(journal)

    def publish(self) -> Shipped:
        """Say what every consumer is past now, and return it.

        Raises:
            JournalError: a checkpoint or the directory cannot be read, or nothing be written.
        """
        positions = self._positions()
        boots = self._listing.look()
        shipped = Shipped(
            tuple(sorted(positions)),
            self._keep_s,
            bounds(list(positions.values()), boots),
            {
                boot: spans
                for boot, spans in self._published.dropped.items()
                if boot in boots.segments
            },
        )
        self._save(shipped)
        return shipped

    def drop(self) -> list[Path]:
        """Publish, then delete what was shipped and kept for long enough, oldest first; return it.

        Raises:
            JournalError: as `publish`, or a file cannot be deleted.
        """
        shipped = self.publish()
        due = [] if self._keep_s is None else self._due(shipped)
        if not due:
            return []
        # Before they go: who verifies the journal meanwhile must not miss them.
        self._save(replace(shipped, dropped=_with(shipped.dropped, self._listing.look(), due)))
        for path in due:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise refusal(error, "delete a shipped segment", path) from error
        return due

    def _due(self, shipped: Shipped) -> list[Path]:
        """Return what is to go: of each boot the oldest, as far as all of it is due."""
        assert self._keep_s is not None
        before_ns = self._wall_ns() - int(self._keep_s * 1e9)
        due = []
        for segments in self._listing.look().segments.values():
            for segment in segments:
                if not (shipped.holds(segment.path) and _written_ns(segment.path) < before_ns):
                    break
                due.append(segment.path)
        return sorted(due)

    def _positions(self) -> Mapping[str, Position]:
        """Return how far each consumer is, by name."""
        found: dict[str, Position] = {name: Position() for name in self._running}
        for checkpoint in consumers(self._state):
            if checkpoint.consumer not in found and self._is_forgotten(checkpoint):
                continue
            try:
                found[checkpoint.consumer] = checkpoint.load()
            except JournalDamaged:
                found[checkpoint.consumer] = Position()  # it may have to begin again
        return found

    def _is_forgotten(self, checkpoint: Checkpoint) -> bool:
        try:
            saved_ns = checkpoint.path.stat().st_mtime_ns
        except OSError:
            return True
        return saved_ns < self._wall_ns() - int(self._forget_s * 1e9)

    def _save(self, shipped: Shipped) -> None:
        if shipped != load_shipped(self._journal):
            save_shipped(self._journal, shipped)
        self._published = shipped


def bounds(positions: Sequence[Position], boots: Boots) -> dict[Boot, Bound]:
    """Return how far all of some positions are, in each boot that has segments."""
    found = {}
    for boot in boots.segments:
        marks = [position.marks.get(boot) for position in positions]
        reached = [
            (name, mark.is_finished)
            for mark in marks
            if mark and (name := parse_name(mark.segment))
        ]
        if reached and len(reached) == len(positions):
            found[boot] = Bound(*min(reached))
    return found


def _with(
    dropped: Mapping[Boot, Sequence[Span]], boots: Boots, due: Sequence[Path]
) -> dict[Boot, list[Span]]:
    """Add the sequences of segments that something of their boot follows."""
    found = {boot: list(spans) for boot, spans in dropped.items()}
    for boot, segments in boots.segments.items():
        gone = [segment for segment in segments if segment.path in due]
        if gone and len(gone) < len(segments):
            last = segments[len(gone)].name.first_sequence - 1
            spans = [*found.get(boot, ()), (gone[0].name.first_sequence, last)]
            found[boot] = merged(spans)
    return found


def _written_ns(path: Path) -> int:
    """Return when a segment was written last, as wall time; now gone: long ago."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise refusal(error, "look at the segment", path) from error


class Keeping:
    """Runs a retention on a thread of its own. A context manager: at its end once more."""

    def __init__(self, retention: Retention, *, every_s: float = EVERY_S) -> None:
        self._retention = retention
        self._every_s = every_s
        self._ends = threading.Event()
        self._said_s = float("-inf")
        self._thread = threading.Thread(target=self._work, name="retention", daemon=True)

    def __enter__(self) -> Keeping:
        self._drop()  # before a consumer is started: what it needs is not shipped from here on
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ends.set()
        self._thread.join()
        self._drop()

    def _work(self) -> None:
        while not self._ends.wait(self._every_s):
            self._drop()

    def _drop(self) -> None:
        try:
            for path in self._retention.drop():
                log.info("deleted %s: shipped, and kept for long enough", path.name)
        except GatewayError as error:
            if time.monotonic() - self._said_s >= SAY_S:
                log.error("retention waits: %s. %s", error, error.hint)
                self._said_s = time.monotonic()
        except Exception:
            log.exception("retention failed; it tries again")
