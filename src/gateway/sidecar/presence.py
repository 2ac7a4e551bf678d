"""That a sidecar runs, and where: a file beside the journal that it holds a lock on while it lives.

`<state>/running`: one line of JSON, padded. The lock is the file's own, so it is written in its
place, and stays when its writer has ended: who looks learns what ran last, and whether it does.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from gateway.errors import JournalError
from gateway.journal.directory import make_directory
from gateway.journal.disk import refusal

NAME = "running"

HAND_OVER_S = 15.0
"""How long one that nobody needs any more may take to end."""

_BYTES_MIN = 4095
"""So long at least: one that says more than the one before is whole after one write as well."""

_TRIES, _TRY_S = 50, 0.02
_PASSING_S = 0.1


@dataclass(frozen=True, slots=True)
class Presence:
    """What a sidecar says of itself.

    `is_attached`: a gateway started it, and it ends with that. `checkpoints`: where its consumers'
    stand. `metrics` is empty until it answers there, `lake` where it fills none; `consumers` are
    those that read the journal.
    """

    pid: int
    is_attached: bool
    checkpoints: str
    metrics: str = ""
    lake: str = ""
    consumers: tuple[str, ...] = ()


@contextmanager
def running(state: Path, one: Presence) -> Iterator[Callable[[Presence], None]]:
    """Be the one sidecar of a journal while the context is open; yields what tells more of it.

    A sidecar whose gateway was killed goes on until all is behind it; one that a gateway starts
    takes over from it at once.

    Raises:
        JournalError: another one runs, or the file cannot be written.
    """
    make_directory(state)
    path = state / NAME
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise refusal(error, "say that a sidecar runs", path) from error
    try:
        _take(fd, state, one)

        def tell(more: Presence) -> None:
            text = json.dumps(asdict(more)).encode().ljust(_BYTES_MIN) + b"\n"
            try:
                os.pwrite(fd, text, 0)  # over what stood there: at no moment is there nothing
                os.ftruncate(fd, len(text))
            except OSError as error:
                raise refusal(error, "say where the sidecar is", path) from error

        tell(one)
        yield tell
    finally:
        os.close(fd)


def found(state: Path) -> tuple[Presence, bool] | None:
    """Return the sidecar that ran last, and whether it still does; None where none ever did.

    Raises:
        JournalError: the file cannot be read, or is none.
    """
    path = state / NAME
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise refusal(error, "look for the sidecar", path) from error
    try:
        is_held = not _locked(fd, fcntl.LOCK_SH)
        if not os.fstat(fd).st_size:
            return None  # the first one is about to say it, or never came to that
        return _read(fd, path), is_held
    finally:
        os.close(fd)  # and with it our lock


def _take(fd: int, state: Path, one: Presence) -> None:
    until_s = time.monotonic() + _PASSING_S  # `gateway status` may be looking
    asked_to_end = 0
    while not _locked(fd, fcntl.LOCK_EX):
        time.sleep(_TRY_S)
        if time.monotonic() < until_s:
            continue
        other = _read(fd, state / NAME)
        if not (one.is_attached and other.is_attached) or asked_to_end == other.pid:
            raise JournalError(
                f"another sidecar (pid {other.pid}) reads this journal",
                subject=str(state.parent),
                hint="Stop it first, or leave it: one sidecar does it all.",
            )
        # Its gateway has let go of the journal: it would not be ours otherwise.
        asked_to_end = other.pid
        with suppress(ProcessLookupError):
            os.kill(other.pid, signal.SIGTERM)
        until_s = time.monotonic() + HAND_OVER_S


def _locked(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(fd: int, path: Path) -> Presence:
    for _ in range(_TRIES):
        with suppress(ValueError, KeyError, TypeError):
            row = json.loads(os.pread(fd, 1 << 16, 0))
            return Presence(**{**row, "consumers": tuple(row["consumers"])})
        time.sleep(_TRY_S)  # it may be writing
    raise JournalError(
        "it does not say which sidecar runs",
        subject=str(path),
        hint="Delete it where no sidecar runs; another version may have written it.",
    )
