"""How many workers there are, on which processors, and how much each may keep."""

from __future__ import annotations

import os

from gateway.errors import JournalError, UsageError
from gateway.journal import MAX_WORKER, MIN_JOURNAL_BYTES
from gateway.serve.crew.settings import Settings


def allowed_cores() -> list[int]:
    """Return the processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def checked_count(settings: Settings, workers: int | None, cores: int) -> int:
    """Return how many workers to start; None asks for one less than there are processors.

    Raises:
        UsageError: so many cannot be.
    """
    if workers is None:
        return 1 if settings.is_unix else max(1, min(cores - 1, MAX_WORKER))
    if not 1 <= workers <= MAX_WORKER:
        raise UsageError(
            f"{workers} is no number of workers",
            subject="--workers",
            hint=f"Give 1 to {MAX_WORKER}; without it, one less than there are processors.",
        )
    if settings.is_unix and workers > 1:
        raise UsageError(
            f"{workers} workers cannot share a Unix socket",
            subject=settings.listen,
            hint="Listen on HOST:PORT, or give --workers 1.",
        )
    return workers


def journal_share(total: int, workers: int) -> int:
    """Return what each writer may keep: so many workers, and one that replaces another.

    Raises:
        JournalError: it is too little for a journal.
    """
    share = total // (workers + 1)
    if share < MIN_JOURNAL_BYTES:
        each = f"{workers} worker{'s' if workers > 1 else ''} and a replacement"
        raise JournalError(
            f"{total} bytes are too few for the journals of {each}",
            hint=f"Give it --journal-max-bytes {MIN_JOURNAL_BYTES * (workers + 1)} or more.",
        )
    return share
