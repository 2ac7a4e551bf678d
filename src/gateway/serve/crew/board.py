"""The board: how each worker is doing, in a file that everybody may map and nobody waits for.

It lies in the journal's directory as `workers`: a page for the gateway, then one for each worker
number. All words are u64 of the machine's own byte order: nobody but this machine reads it.

```
page 0          0  magic       1  version       2  supervisor's pid   3  started, wall ns
                4  workers asked for            128  text: where it listens
page 1 + n      0  state       1  pid           2  started, wall ns   3  last beat, monotonic ns
                4  restarts    5  deaths in a row     6  seat
                7  answered    8  stood in      9  refused           10  shed
               11  worst pause, ns             128  text: why the last one in its seat died
```

A page has one writer at a time: its worker while that lives, and the supervisor before and after.
A word is written at once, a page is not: a reader may see one count newer than another.

The supervisor holds a lock on the file for as long as it lives, whatever happens to it.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from gateway.errors import JournalError
from gateway.journal import MAX_WORKER
from gateway.serve.crew.tally import Tally

NAME = "workers"
FRESH_NS = 1_000_000_000
"""A worker whose last beat is older does not serve, whatever it said before."""

_MAGIC = int.from_bytes(b"GWBOARD\n", "little")
_VERSION = 1
_PAGE = 256
_TEXT = 128
_SIZE = _PAGE * (2 + MAX_WORKER)
_TRIES, _TRY_S = 5, 0.02


class State(IntEnum):
    """What a worker does."""

    NONE = 0
    """The number was never used."""
    STARTING = 1
    SERVING = 2
    DRAINING = 3
    """It was told to end, and answers what it has received."""
    ENDED = 4
    BACKING_OFF = 5
    """It died, and is started again in a moment."""

    @property
    def spelling(self) -> str:
        """As people and health read it."""
        return self.name.lower().replace("_", "-")


@dataclass(frozen=True, slots=True)
class Gateway:
    """What stands of the gateway itself: its supervisor, and where it listens."""

    pid: int
    started_ns: int
    workers: int
    address: str


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker as the board shows it. `started_ns` is of the wall clock, `beat_ns` monotonic.

    `deaths`: how often in a row one in its seat died soon after its start; `why`: of what last.
    """

    number: int
    state: State
    pid: int
    started_ns: int
    beat_ns: int
    restarts: int
    deaths: int
    seat: int
    answered: int
    stood_in: int
    refused: int
    shed: int
    worst_pause_ns: int
    why: str

    @property
    def calls(self) -> int:
        """How many calls it has answered, in whatever way."""
        return self.answered + self.stood_in + self.refused + self.shed

    def serves(self, now_ns: int) -> bool:
        """Say whether it answers calls. `now_ns` is monotonic."""
        return self.state is State.SERVING and now_ns - self.beat_ns < FRESH_NS


_WORDS = (
    *("pid", "started_ns", "beat_ns", "restarts", "deaths", "seat"),
    *("answered", "stood_in", "refused", "shed", "worst_pause_ns"),
)


class Page:
    """One worker's page, for its writer."""

    def __init__(self, memory: memoryview, number: int) -> None:
        start = _PAGE * (1 + number)
        self._words = memory[start : start + _TEXT].cast("Q")
        self._text = memory[start + _TEXT : start + _PAGE]

    def begin(
        self,
        *,
        pid: int,
        wall_ns: int,
        now_ns: int,
        seat: int,
        restarts: int,
        deaths: int,
        why: str,
    ) -> None:
        """A worker starts; its counts begin at nothing. `why`: the last in its seat died of it."""
        words = self._words
        words[0] = State.NONE
        for i, value in enumerate((pid, wall_ns, now_ns, restarts, deaths, seat), 1):
            words[i] = value
        for i in range(7, 12):
            words[i] = 0
        self._write(why)
        words[0] = State.STARTING

    def tell(self, state: State, *, deaths: int | None = None, why: str = "") -> None:
        """Show another state; for a worker that ended, also why."""
        if deaths is not None:
            self._words[5] = deaths
        if why:
            self._write(why)
        self._words[0] = state

    def _write(self, why: str) -> None:
        self._text[:] = why.encode()[: len(self._text)].ljust(len(self._text), b"\0")

    def beat(self, now_ns: int, tally: Tally) -> None:
        """Show that the worker lives, and what it has done so far."""
        words = self._words
        words[3] = now_ns
        words[7] = tally.answered
        words[8] = tally.stood_in
        words[9] = tally.refused
        words[10] = tally.shed
        words[11] = tally.worst_pause_ns

    def clear(self) -> None:
        """Forget whoever had this number."""
        self._words[0] = State.NONE


class Board:
    """The mapped file."""

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory

    def page(self, number: int) -> Page:
        """Return a worker's page, to write on."""
        return Page(self._memory, number)

    def begin(self, gateway: Gateway) -> None:
        """Say what the gateway is."""
        words, text = self._memory[:_TEXT].cast("Q"), self._memory[_TEXT:_PAGE]
        words[2], words[3], words[4] = gateway.pid, gateway.started_ns, gateway.workers
        text[:] = gateway.address.encode()[: len(text)].ljust(len(text), b"\0")
        words[1], words[0] = _VERSION, _MAGIC

    @property
    def gateway(self) -> Gateway:
        """What the gateway is."""
        words = self._memory[:_TEXT].cast("Q")
        return Gateway(words[2], words[3], words[4], _read_text(self._memory[_TEXT:_PAGE]))

    def worker(self, number: int) -> Worker:
        """Return what a worker's page shows."""
        start = _PAGE * (1 + number)
        words = self._memory[start : start + _TEXT].cast("Q")
        text = _read_text(self._memory[start + _TEXT : start + _PAGE])
        counts = dict(zip(_WORDS, words[1:12].tolist(), strict=True))
        return Worker(number=number, state=State(words[0]), why=text, **counts)

    def workers(self) -> tuple[Worker, ...]:
        """Return all workers that are, or will be again, in the order of their seats."""
        first, size = _PAGE // 8, _PAGE // 8
        states = self._memory.cast("Q")[first::size].tolist()
        there = [n for n, state in enumerate(states) if state not in (State.NONE, State.ENDED)]
        return tuple(sorted(map(self.worker, there), key=lambda one: (one.seat, one.number)))


@contextmanager
def supervised(directory: Path) -> Iterator[Board]:
    """Make the board, and hold it as the one supervisor of this directory.

    Raises:
        JournalError: another supervisor holds it, or it cannot be made.
    """
    path = directory / NAME
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _cannot(error, path) from error
    try:
        _lock(fd, directory)
        try:
            # Not only as long as that, but there: a write to the map of a hole in a file ends
            # the process when the disk is full.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(fd, 0, _SIZE)
            os.ftruncate(fd, _SIZE)
        except OSError as error:
            raise _cannot(error, path) from error
        with _mapped(fd, writable=True) as board:
            yield board
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)  # the map holds the file open for longer
        os.close(fd)


@contextmanager
def joined(directory: Path) -> Iterator[Board]:
    """Open the supervisor's board as a worker. Raises JournalError."""
    path = directory / NAME
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise _cannot(error, path) from error
    try:
        with _mapped(fd, writable=True) as board:
            yield board
    finally:
        os.close(fd)


@contextmanager
def seen(directory: Path) -> Iterator[tuple[Board, bool]]:
    """Open the board to read it; also say whether its supervisor lives.

    Raises:
        JournalError: there is none, it is no board, or it cannot be read.
    """
    path = directory / NAME
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise _cannot(error, path) from error
    try:
        words = os.pread(fd, 16, 0)
        begins = _MAGIC.to_bytes(8, "little") + _VERSION.to_bytes(8, "little")
        if words != begins or os.fstat(fd).st_size != _SIZE:
            raise JournalError(
                "is no board of this gateway",
                subject=str(path),
                hint="It may be another version's: look with the gateway that serves.",
            )
        with _mapped(fd, writable=False) as board:
            yield board, _is_held(fd)
    finally:
        os.close(fd)


@contextmanager
def _mapped(fd: int, *, writable: bool) -> Iterator[Board]:
    access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
    # Not closed: pages of it may still be in somebody's hands. It goes with the last of them.
    yield Board(memoryview(mmap.mmap(fd, _SIZE, access=access)))


def _lock(fd: int, directory: Path) -> None:
    for _ in range(_TRIES):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError:
            time.sleep(_TRY_S)  # `gateway status` may be looking whether it is free
    raise JournalError(
        "another gateway writes this journal",
        subject=str(directory),
        hint="Stop the other `gateway serve`, or name another --journal directory.",
    )


def _is_held(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False


def _read_text(text: memoryview) -> str:
    return bytes(text).rstrip(b"\0").decode("utf-8", "replace")


def _cannot(error: OSError, path: Path) -> JournalError:
    return JournalError(
        f"the board cannot be used: {error.strerror}",
        subject=str(path),
        hint="Name the --journal directory of a gateway that may be read and written by you.",
    )
