"""Appends one worker's records to its segments, and never lets a loss go uncounted.

One thread calls it. `append` never waits for anything but the disk; `tick` does what can wait.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import Enum
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self

from gateway.errors import JournalError, JournalFull
from gateway.journal import frame
from gateway.journal.chain import Chain
from gateway.journal.directory import Lock, make_directory, segments_of
from gateway.journal.disk import Disk
from gateway.journal.entry import Generation, Sealed
from gateway.journal.identity import MAX_WORKER
from gateway.journal.losses import Losses, reason_of
from gateway.journal.recovery import cut_tail, find_dropped, find_torn
from gateway.journal.retention import Retention, closed_segments
from gateway.journal.segment_file import SegmentFile

SEGMENT_BYTES = 64 << 20
BUFFER_BYTES = 256 << 10
BUFFER_AGE_NS = 50_000_000
RETRY_NS = 50_000_000

MIN_JOURNAL_BYTES = 64 << 10
_SEGMENTS_KEPT = 4  # at least so many fit --journal-max-bytes, so that dropping one leaves most
_RESERVED_BYTES = 4 << 10  # of it, for what the journal says about itself: GAP and SEALED


class Mode(Enum):
    """When a record counts as taken."""

    BUFFERED = "buffered"  # in memory: a killed process loses up to 50 ms or 256 KiB
    PROCESS = "process"  # in the kernel: a killed process loses nothing
    POWER = "power"  # on the disk: a power cut loses nothing


class Writer:
    """The journal of one worker's boot. Open it with `Writer.open`, as a context manager."""

    def __init__(
        self,
        chain: Chain,
        *,
        worker: int,
        boot_id: bytes,
        mode: Mode,
        segment_bytes: int,
        lock: Lock,
        retention: Retention,
        wall_ns: Callable[[], int],
        monotonic_ns: Callable[[], int],
    ) -> None:
        self.worker = worker
        self.boot_id = boot_id
        self._chain = chain
        self._mode = mode
        self._segment_bytes = segment_bytes
        self._lock = lock
        self._retention = retention
        self._losses = Losses(wall_ns, worker)
        self._monotonic_ns = monotonic_ns
        self._next_sequence = 1
        self._buffer = bytearray()
        self._buffer_first = 0  # sequence
        self._buffer_since_ns = 0
        self._retry_ns = 0
        self._failure: JournalError | None = None
        self._closed = False

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        worker: int,
        boot_id: bytes,
        products: Sequence[Generation] = (),
        mode: Mode = Mode.PROCESS,
        max_bytes: int | None = None,
        segment_bytes: int = SEGMENT_BYTES,
        shipped: Callable[[Path], bool] | None = None,
        wall_ns: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        disk: Disk = os,
    ) -> Self:
        """Recover what the worker's last writer left, and begin a new segment.

        `boot_id`: 16 random bytes of this start. `max_bytes`: of all this worker's segments, None
        for no limit. `shipped`: says whether a segment may go without loss.

        Raises:
            JournalError: the directory cannot be used, another writer holds this worker's journal,
                or an argument is out of its range. JournalFull: no room for a segment.
        """
        _check(worker, boot_id, max_bytes)
        make_directory(directory)
        lock = Lock(directory, worker)
        try:
            files = segments_of(directory, worker)
            recovered = find_torn(files)
            limit = None if max_bytes is None else max_bytes - _RESERVED_BYTES
            if max_bytes is not None:
                segment_bytes = min(segment_bytes, max_bytes // _SEGMENTS_KEPT)
            retention = Retention(
                closed_segments(files),
                max_bytes=limit,
                shipped=shipped,
                dropped=find_dropped(files),
            )
            chain = Chain(
                directory,
                worker=worker,
                boot_id=boot_id,
                products=products,
                retention=retention,
                after_ns=files[-1][0].created_ns if files else 0,
                recovered=recovered,
                sync=mode is Mode.POWER,
                wall_ns=wall_ns,
                monotonic_ns=monotonic_ns,
                disk=disk,
            )
            writer = cls(
                chain,
                worker=worker,
                boot_id=boot_id,
                mode=mode,
                segment_bytes=segment_bytes,
                lock=lock,
                retention=retention,
                wall_ns=wall_ns,
                monotonic_ns=monotonic_ns,
            )
            writer._begin_segment()
        except BaseException:
            lock.release()
            raise
        for row in recovered:
            with suppress(JournalError):  # the new header says already what counts
                cut_tail(directory / row.segment, row, disk)
        return writer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def next_sequence(self) -> int:
        """The sequence that the first payload of the next `append` gets."""
        return self._next_sequence

    @property
    def failure(self) -> JournalError | None:
        """Why the last attempt to write failed; None while the journal is in order."""
        return self._failure

    @property
    def lost(self) -> int:
        """How many sequences this boot could not keep, or dropped before they were shipped."""
        return self._losses.total

    def append(self, payloads: Sequence[bytes]) -> int:
        """Give each payload the next sequence and write all of them, with one call of the disk.

        Returns the first sequence. What is refused is not in the journal, its sequences are used
        up, and a GAP entry counts them with the next append that succeeds.

        Raises:
            JournalFull: no space on the disk or within the limit.
            JournalError: the disk failed, or a payload fits no frame.
        """
        first = self._next_sequence
        if not payloads:
            return first
        was_in_order = self._failure is None
        # Used up even if this fails: the replies may carry them already.
        self._next_sequence = first + len(payloads)
        try:
            frames = b"".join(map(frame.encode, count(first), payloads))
            if self._mode is Mode.BUFFERED:
                self._keep(first, frames)
            else:
                self._commit(frames)
                self._rotate_if_over(self._segment_bytes)
        except BaseException as error:  # also one that is no JournalError leaves a gap
            lost = len(payloads)
            self._losses.add(reason_of(error), self.boot_id, first, first + lost - 1, lost)
            if was_in_order:  # else `tick` tries, once in a while
                self._resume()
            raise
        return first

    def announce(self, generation: Generation) -> int:
        """Append a GENERATION entry; headers of later segments list it too.

        Raises as `append`; then it is not announced.
        """
        before = self._chain.products
        self._chain.products = (*before, generation)
        try:
            return self.append([generation.encode()])
        except JournalError:
            self._chain.products = before
            raise

    def retire(self, index: int) -> None:
        """Leave a generation that nothing refers to any more out of later segments' headers."""
        self._chain.products = tuple(one for one in self._chain.products if one.index != index)

    def flush(self) -> None:
        """Write what `buffered` mode holds in memory. Raises as `append`, but loses nothing."""
        if self._buffer:
            self._commit(bytes(self._buffer))
            self._buffer.clear()
            self._rotate_if_over(self._segment_bytes)

    def tick(self) -> None:
        """Do what can wait: flush by age, try again after a failure, rotate early. Never raises.

        The loop calls it when idle, and at least every 5 ms.
        """
        now_ns = self._monotonic_ns()
        if self._failure and now_ns < self._retry_ns:
            return
        with suppress(JournalError):  # `failure` tells
            self._resume()
            if self._buffer and now_ns - self._buffer_since_ns >= BUFFER_AGE_NS:
                self.flush()
            self._tell_losses()
            if not self._buffer:
                self._rotate_if_over(self._segment_bytes // 8 * 7)

    def close(self) -> None:
        """Write what is left, seal the segment, wait for the disk, and let go of the lock.

        Raises:
            JournalError: something could not be written or synced; the journal is closed anyway.
        """
        if self._closed:
            return
        try:
            self._resume()
            self.flush()
            self._tell_losses()
            self._seal(self._open_segment(), sync=True)
        finally:
            self._closed = True
            self._chain.end()
            self._lock.release()

    def _keep(self, first: int, frames: bytes) -> None:
        """Hold frames in memory, as long as the disk takes what is held."""
        if self._closed or len(self._buffer) >= BUFFER_BYTES:
            raise self._refused_again()
        if not self._buffer:
            self._buffer_first = first
            self._buffer_since_ns = self._monotonic_ns()
        self._buffer += frames
        if len(self._buffer) >= BUFFER_BYTES:
            with suppress(JournalError):  # they are held still; `failure` tells
                self.flush()

    def _commit(self, frames: bytes) -> None:
        """Write frames, and the gaps that are due behind them, or leave the journal as it was."""
        segment = self._open_segment()
        try:
            self._make_room(len(frames))
            gaps = self._losses.pending
            if gaps:
                entries = [gap.encode() for gap in gaps]
                frames += b"".join(map(frame.encode, count(self._next_sequence), entries))
            self._chain.write(segment, frames, sync=False)
        except JournalError as error:
            self._failed(error)
            raise
        if gaps:
            self._next_sequence += len(gaps)
            self._losses.pending = []
        self._failure = None

    def _first_unwritten(self) -> int:
        return self._buffer_first if self._buffer else self._next_sequence

    def _rotate_if_over(self, size: int) -> None:
        """Seal a segment of `size` bytes or more and go on in a new one. Never raises.

        The new file is created first: out of descriptors, the old segment simply goes on.
        """
        segment = self._chain.segment
        if segment is None or segment.size < size:
            return
        try:
            successor = self._create_segment(self._next_sequence + 1)
            with suppress(JournalError):  # unsealed, counted as lost, and no reason to stay
                self._seal(segment, sync=False)
            self._chain.end()
            self._chain.begin(successor)
        except JournalError as error:
            self._failed(error)
            return
        with suppress(JournalError):  # `failure` tells, and the next append does
            self._tell_losses()

    def _seal(self, segment: SegmentFile, *, sync: bool) -> None:
        sequence = self._next_sequence
        self._next_sequence += 1
        try:
            self._chain.write(segment, frame.encode(sequence, Sealed().encode()), sync=sync)
        except JournalError as error:
            self._losses.add(reason_of(error), self.boot_id, sequence, sequence, 1)
            raise

    def _resume(self) -> None:
        """Begin a segment where the last was abandoned, and say in it what is missing."""
        if self._chain.segment or self._closed:
            return
        with suppress(JournalError):  # `failure` tells
            self._begin_segment()
            self._tell_losses()

    def _tell_losses(self) -> None:
        """Write the gaps that are due, unless frames with lower sequences must go first."""
        if self._losses.pending and not self._buffer:
            self._commit(b"")

    def _begin_segment(self) -> None:
        try:
            self._chain.begin(self._create_segment(self._first_unwritten()))
        except JournalError as error:
            self._failed(error)
            raise

    def _create_segment(self, first_sequence: int) -> SegmentFile:
        self._make_room(self._segment_bytes)
        return self._chain.create(first_sequence)

    def _make_room(self, new_bytes: int) -> None:
        self._retention.make_room(self._chain.open_bytes + new_bytes, self._losses)

    def _open_segment(self) -> SegmentFile:
        if self._chain.segment is None:
            raise self._refused_again()
        return self._chain.segment

    def _refused_again(self) -> JournalError:
        """Return why nothing is taken now, as an error of its own."""
        cause = self._failure
        if cause is None:
            return JournalError("the journal is closed", subject=f"worker {self.worker}")
        kind = JournalFull if isinstance(cause, JournalFull) else JournalError
        return kind(cause.what, subject=cause.subject, hint=cause.hint)

    def _failed(self, error: JournalError) -> None:
        self._failure = error
        self._retry_ns = self._monotonic_ns() + RETRY_NS


def _check(worker: int, boot_id: bytes, max_bytes: int | None) -> None:
    if not 0 <= worker <= MAX_WORKER:
        raise JournalError(
            f"worker {worker} is not one of 0 to {MAX_WORKER}", hint="See --workers."
        )
    if len(boot_id) != 16:
        raise JournalError(f"a boot id has 16 bytes, not {len(boot_id)}", hint="Use uuid4().bytes.")
    if max_bytes is not None and max_bytes < MIN_JOURNAL_BYTES:
        raise JournalError(
            f"{max_bytes} bytes are too few for a journal",
            hint=f"Give it --journal-max-bytes {MIN_JOURNAL_BYTES} or more.",
        )
