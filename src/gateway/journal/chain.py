"""One boot's segments, one after the other: of these at most one is open.

A segment whose file cannot be trusted any more is abandoned, unsealed; the next one's header says
how much of it counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from gateway.journal.disk import Disk, refusal
from gateway.journal.entry import Generation
from gateway.journal.losses import SyncError
from gateway.journal.retention import Closed, Retention
from gateway.journal.segment import Header, Recovered, SegmentName
from gateway.journal.segment_file import SegmentFile


class Chain:
    """Begins, writes and ends segments. `segment`: the open one, if any."""

    def __init__(
        self,
        directory: Path,
        *,
        worker: int,
        boot_id: bytes,
        products: Sequence[Generation],
        retention: Retention,
        after_ns: int,
        recovered: Sequence[Recovered],
        sync: bool,
        wall_ns: Callable[[], int],
        monotonic_ns: Callable[[], int],
        disk: Disk,
    ) -> None:
        """`after_ns`: of the latest segment's name. `sync`: wait for the disk in every write."""
        self.segment: SegmentFile | None = None
        self.products = tuple(products)
        self._directory = directory
        self._worker = worker
        self._boot_id = boot_id
        self._retention = retention
        self._latest_ns = after_ns
        self._recovered = list(recovered)
        self._sync = sync
        self._wall_ns = wall_ns
        self._monotonic_ns = monotonic_ns
        self._disk = disk
        self._ended: list[SegmentFile] = []  # since the open one began

    @property
    def open_bytes(self) -> int:
        """Bytes in segments that retention does not know yet."""
        size = self.segment.size if self.segment else 0
        return size + sum(file.size for file in self._ended) if self._ended else size

    def create(self, first_sequence: int) -> SegmentFile:
        """Create the next segment's file, beside the open segment. Raises JournalError."""
        self._latest_ns = max(self._wall_ns(), self._latest_ns + 1)
        name = SegmentName(self._latest_ns, self._worker, self._boot_id, first_sequence)
        path = self._directory / str(name)
        try:
            return SegmentFile.create(path, name, self._disk)
        except OSError as error:
            raise refusal(error, "create a segment", path) from error

    def begin(self, segment: SegmentFile) -> None:
        """Write a created file's header and go on in it.

        Raises:
            JournalError: the header cannot be written; the file is gone then.
        """
        header = Header(
            self._worker,
            self._boot_id,
            self._wall_ns(),
            self._monotonic_ns(),
            segment.name.first_sequence,
            self.products,
            tuple(self._recovered),
            self._retention.runs,
        )
        try:
            segment.begin(header.encode(), sync=self._sync)
        except OSError as error:
            raise refusal(error, "begin a segment", segment.path) from error
        for ended in self._ended:
            last_sequence = segment.name.first_sequence - 1
            self._retention.add(Closed(ended.path, ended.name, ended.size, last_sequence))
        self.segment, self._ended, self._recovered = segment, [], []

    def write(self, segment: SegmentFile, frames: bytes, *, sync: bool) -> None:
        """Write all of `frames` to the open segment, or none.

        Raises:
            SyncError: whether they are on the disk is not known; the segment is abandoned.
            JournalError: the disk did not take them. JournalFull: for lack of space.
        """
        size = segment.size
        try:
            segment.append(frames)
        except OSError as error:
            if segment.torn:
                self._abandon(segment)
            raise refusal(error, "write", segment.path) from error
        if not (sync or self._sync):
            return
        try:
            segment.sync()
        except OSError as error:
            # Never again: a second fsync would succeed and mean nothing.
            segment.cut(size)
            self._abandon(segment)
            failure = refusal(error, "sync", segment.path)
            raise SyncError(failure.what, subject=failure.subject, hint=failure.hint) from error

    def end(self) -> None:
        """Close the open segment's file, if there is one."""
        if self.segment:
            self.segment.close()
            self._ended.append(self.segment)
            self.segment = None

    def _abandon(self, segment: SegmentFile) -> None:
        stray_bytes = segment.stray_bytes()
        self._recovered.append(Recovered(segment.path.name, segment.size, stray_bytes))
        self.end()
