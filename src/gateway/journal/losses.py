"""What a writer could not keep, until it can say so in the journal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from gateway.errors import JournalError, JournalFull
from gateway.journal.entry import Gap, Loss
from gateway.journal.spans import Span


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
        self._append(reason, boot_id, first_sequence, last_sequence, count)

    def tell(self, boot_id: bytes, span: Span, *, is_lost: bool) -> None:
        """Note a run of dropped sequences: all of them lost, or none that others do not count.

        It takes the place of those of its kind that it covers. `total` is the caller's.
        """
        first, last = span
        self.pending = [
            gap
            for gap in self.pending
            if gap.reason is not Loss.RETENTION
            or gap.boot_id != boot_id
            or (gap.count > 0) != is_lost
            or not (first <= gap.first_sequence and gap.last_sequence <= last)
        ]
        self._append(Loss.RETENTION, boot_id, first, last, last - first + 1 if is_lost else 0)

    def _append(
        self, reason: Loss, boot_id: bytes, first_sequence: int, last_sequence: int, count: int
    ) -> None:
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
