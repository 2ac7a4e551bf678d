"""The consumer that fills the lake: from the tail to Parquet files, then the checkpoint."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from gateway.errors import JournalDamaged, JournalError
from gateway.journal.directory import make_directory, sync_directory
from gateway.journal.disk import refusal
from gateway.sidecar.lake.compaction import Compaction
from gateway.sidecar.lake.lake import Lake
from gateway.sidecar.lake.products import Products
from gateway.sidecar.lake.pseudonyms import Pseudonyms
from gateway.sidecar.lake.rows import Rows
from gateway.sidecar.lake.schema import OF_JOURNAL
from gateway.sidecar.tail.call import Batch, Position, Range, Source
from gateway.sidecar.tail.checkpoint import Checkpoint
from gateway.sidecar.tail.tail import RECORDS_MAX

SHIP_S = 2.0
"""What comes within so long goes into one file, unless a batch is full before."""

IDLE_S = 0.25

KEY = "subject.key"
"""Beside the checkpoints: the key of the lake's pseudonyms."""
_KEY_BYTES = 32


class Shipping:
    """One step a batch; small files are joined now and then."""

    def __init__(
        self,
        source: Source,
        lake: Lake,
        rows: Rows,
        checkpoint: Checkpoint,
        *,
        products: Products | None = None,
        pseudonyms: Pseudonyms | None = None,
        ship_s: float = SHIP_S,
        clock_s: Callable[[], float] = time.monotonic,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._source = source
        self._lake = lake
        self._rows = rows
        self._checkpoint = checkpoint
        self._products = products
        self._pseudonyms = pseudonyms
        self._ship_s = ship_s
        self._clock_s = clock_s
        self._refused: Batch | None = None
        self._shipped = source.position
        self._next_s = 0.0
        self._compaction = Compaction(lake, OF_JOURNAL, clock_s=clock_s, wall_ns=wall_ns)

    @property
    def name(self) -> str:
        """Its name, in lags and log lines."""
        return self._checkpoint.consumer

    @property
    def position(self) -> Position:
        """Behind what is in the lake."""
        return self._shipped

    @property
    def idle_s(self) -> float:
        """Where it found nothing new, it looks again after so long."""
        return IDLE_S

    def stop(self) -> None:
        """Nothing here waits."""

    def settle(self) -> None:
        """Nothing: each step saves."""

    def step(self) -> Batch | None:
        """Ship the next batch; None where there is nothing new, or too little yet.

        Raises:
            LakeError: the lake does not take it; the same batch comes with the next step.
            JournalError: the journal cannot be read, or the checkpoint not be written: the lake has
                the batch, and takes nothing of it a second time.
        """
        now_s = self._clock_s()
        if self._refused is None and now_s < self._next_s:
            return None
        batch = self._refused or self._source.read()
        if batch is None:
            self._compaction.when_due(self._closed)
            return None
        self._refused = batch
        if self._pseudonyms is not None:
            self._pseudonyms.leave()
        if self._products is not None:
            self._products.keep({one.generation for one in batch.calls if one.generation})
        self._lake.ship(batch, self._rows)
        self._refused, self._shipped = None, batch.until
        self._checkpoint.save(batch.until)
        if len(batch.calls) < RECORDS_MAX // 2:  # it has caught up
            self._next_s = now_s + self._ship_s
        self._compaction.when_due(self._closed)
        return batch

    def _closed(self) -> Iterator[Range]:
        """Yield what is in the lake of each boot: nothing more comes into those ranges."""
        for (worker, boot_id), mark in self._shipped.marks.items():
            if mark.sequence:
                yield Range(worker, boot_id, 1, mark.sequence)


def known_key(path: Path) -> bytes:
    """Return the key of the subjects' pseudonyms, which has to be there: another finds nobody.

    Raises:
        JournalError: it is not there, is none, or cannot be read.
    """
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        raise JournalError(
            "there is no key: no sidecar has filled a lake from this journal",
            subject=str(path),
            hint="Name the --journal of the sidecar that fills the lake, or put back its key.",
        ) from None
    except OSError as error:
        raise refusal(error, "read the key of the subjects' pseudonyms", path) from error
    if len(key) != _KEY_BYTES:
        hint = "Put back a copy: with another key no row of the lake is found."
        what = f"is no key: it has {len(key)} bytes and not {_KEY_BYTES}"
        raise JournalDamaged(what, subject=str(path), hint=hint)
    return key


def subject_key(path: Path) -> bytes:
    """Return the key of the subjects' pseudonyms; it is made where there is none.

    Raises:
        JournalError: it cannot be read or written. JournalDamaged: what is there is no key.
    """
    try:
        if not path.exists():
            make_directory(path.parent)
            _make_key(path)
    except OSError as error:
        raise refusal(error, "keep the key of the subjects' pseudonyms", path) from error
    return known_key(path)


def _make_key(path: Path) -> None:
    """Write a key, durably: rows of a lake will go by it that outlives a power cut."""
    new = path.with_suffix(".new")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(os.urandom(_KEY_BYTES))
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    sync_directory(path.parent)
