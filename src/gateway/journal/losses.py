"""What a writer could not keep, until it can say so in the journal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from gateway.errors import JournalError, JournalFull
from gateway.journal.entry import Gap, Loss


class SyncError(JournalError):
    """Written, but whether it is on the disk is not known."""


def reason_of(error: BaseException) -> Loss:
    """Return the reason that a GAP entry gives for `error`."""
    if isinstance(error, SyncError):
        return Loss.SYNC_FAILED
    return Loss.DISK_FULL if isinstance(error, JournalFull) else Loss.WRITE_FAILED


class Losses:
    """Gaps of one worker that are not written yet. `total`: sequences lost in this boot."""

    def __init__(self, wall_ns: Callable[[], int], worker: int) -> None:
        self.pending: list[Gap] = []
        self.total = 0
        self._wall_ns = wall_ns
        self._worker = worker

    def add(
        self, reason: Loss, boot_id: bytes, first_sequence: int, last_sequence: int, count: int
    ) -> None:
        """Note a range. One that goes on where the last ended, for the same reason, joins it."""
        self.total += count
        last = self.pending[-1] if self.pending else None
        if (
            last is not None
            and (last.reason, last.boot_id) == (reason, boot_id)
            and last.last_sequence + 1 == first_sequence
            and (last.count == 0) == (count == 0)
        ):
            joined = replace(last, last_sequence=last_sequence, count=last.count + count)
            self.pending[-1] = joined
            return
        self.pending.append(
            Gap(
                reason,
                first_sequence,
                last_sequence,
                count,
                self._wall_ns(),
                self._worker,
                boot_id,
            )
        )
