"""The supervisor: keeps so many workers serving one address, and does nothing else.

It loads no model and answers no call. Each worker is a process of its own; one that dies is
started again, one that is to be replaced goes on until its successor answers, and when the
supervisor itself dies, they drain and end.

Beside the workers there is a spare: a process that has loaded its libraries and waits for an
order, so that a dead worker's place is taken in a third of the time, on a busy machine above all.

A seat is a worker's place among the others, from 0; a number is what a living process writes the
journal as. A replacement and the worker that it replaces have the same seat and two numbers.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

from gateway.errors import GatewayError, JournalError, UsageError
from gateway.journal import MAX_WORKER, MIN_JOURNAL_BYTES, is_held, make_directory
from gateway.serve.address import checked_address
from gateway.serve.backoff import Backoff
from gateway.serve.board import Board, Gateway, State, supervised
from gateway.serve.control import Order, Ready, decode_answer
from gateway.serve.port import Claim, claimed
from gateway.serve.settings import Settings

START_S_MAX = 300.0
"""A worker that does not answer by then is given up."""

END_S_MAX = 20.0
"""A worker that has not ended so long after SIGTERM is killed."""

SPARE_AFTER_S = 1.0
"""The spare is started when the machine has had so long for the workers themselves."""

_MESSAGE_BYTES_MAX = 1 << 24

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Started:
    """All workers answer calls. `products`: each with its generation; `workers`: number, pid."""

    address: str
    products: dict[str, int]
    workers: tuple[tuple[int, int], ...]


def supervise(
    settings: Settings,
    *,
    workers: int | None,
    affinity: bool,
    announce: Callable[[Started], None],
) -> None:
    """Serve with so many workers until SIGTERM or SIGINT; replace all of them at each SIGHUP.

    `workers`: None for one less than the processors that this process may use, at least one.
    `settings.journal_max_bytes` is for all of them together.

    Raises:
        GatewayError: what kept it from starting, or a worker from ending well.
        KeyboardInterrupt: at a second SIGINT.
    """
    if not settings.folders:
        raise UsageError("no product folder is named", hint="For example: models/card-not-present")
    cores = _cores()
    count_ = _checked_count(settings, workers, len(cores))
    if affinity and not hasattr(os, "sched_setaffinity"):
        raise UsageError("--affinity needs Linux", hint="Leave it out.")
    checked_address(settings.listen, tls=settings.tls is not None, insecure=settings.insecure)
    if settings.tls is not None and settings.front == "native":
        raise UsageError("the native front has no TLS", hint="Add --front grpcio.")
    share = _share(settings.journal_max_bytes, count_)
    make_directory(settings.journal)
    with ExitStack() as stack:
        board = stack.enter_context(supervised(settings.journal))
        claim = stack.enter_context(claimed(settings.listen))
        board.begin(Gateway(os.getpid(), time.time_ns(), count_, claim.address))
        one = replace(settings, journal_max_bytes=share, reuse_port=not claim.is_unix)
        pinned = [cores[seat % len(cores)] if affinity else None for seat in range(count_)]
        asyncio.run(Supervisor(one, claim, board, pinned).run(announce))


def _cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _checked_count(settings: Settings, workers: int | None, cores: int) -> int:
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


def _share(total: int, workers: int) -> int:
    """Return what each writer may keep: so many workers, and one that replaces another."""
    share = total // (workers + 1)
    if share < MIN_JOURNAL_BYTES:
        each = f"{workers} worker{'s' if workers > 1 else ''} and a replacement"
        raise JournalError(
            f"{total} bytes are too few for the journals of {each}",
            hint=f"Give it --journal-max-bytes {MIN_JOURNAL_BYTES * (workers + 1)} or more.",
        )
    return share


@dataclass(slots=True, eq=False)
class _Idle:
    """A process that has no order yet."""

    process: asyncio.subprocess.Process
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


@dataclass(slots=True, eq=False)
class _Worker:
    """One process. `ready` is set when it answers; `ended` gives its exit code."""

    number: int
    process: asyncio.subprocess.Process
    ready: asyncio.Future[Ready]
    ended: asyncio.Task[int] = field(init=False)
    ready_s: float = 0.0
    error: GatewayError | None = None

    @property
    def how(self) -> str:
        """Say how it ended."""
        if self.error is not None:
            return str(self.error)
        code = self.process.returncode or 0
        if code >= 0:
            return f"exit code {code}"
        known = -code in set(signal.Signals)
        return f"killed by {signal.Signals(-code).name if known else f'signal {-code}'}"

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it is still there."""
        with suppress(ProcessLookupError):
            self.process.send_signal(number)


async def _opened() -> _Idle:
    """Start a process that waits for its order.

    Raises:
        GatewayError: the machine does not let us.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        command = [sys.executable, "-P", "-u", "-m", "gateway.serve.child"]
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                str(theirs.fileno()),
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=2,  # ours is for what is announced
                start_new_session=True,  # Ctrl-C is for the supervisor: it stops them itself
            )
        except OSError as error:
            ours.close()
            raise GatewayError(
                f"a worker cannot be started: {error.strerror}",
                hint="Look at the machine's limits: memory, processes, open files.",
            ) from None
    reader, writer = await asyncio.open_connection(sock=ours, limit=_MESSAGE_BYTES_MAX)
    return _Idle(process, reader, writer)


async def _dismissed(idle: _Idle) -> None:
    """Let a process that has no order go, and wait until it has."""
    await _closed(idle.writer)
    with suppress(ProcessLookupError):
        idle.process.kill()  # it has nothing to finish
    await idle.process.wait()


async def _closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


@dataclass(slots=True, eq=False)
class _Seat:
    """A worker's place. Who holds `lock` starts or replaces its worker."""

    index: int
    core: int | None
    worker: _Worker = field(init=False)
    backoff: Backoff = field(default_factory=Backoff)
    restarts: int = 0
    why: str = ""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    hurry: asyncio.Event = field(default_factory=asyncio.Event)


class Supervisor:
    """`pinned`: for each seat, the processor that its worker keeps to, or None."""

    def __init__(
        self, settings: Settings, claim: Claim, board: Board, pinned: Sequence[int | None]
    ) -> None:
        self._settings = settings
        self._claim = claim
        self._board = board
        self._pinned = pinned
        self._live: set[_Worker] = set()
        self._spare: _Idle | None = None
        self._spare_taken = asyncio.Event()
        self._taken: set[int] = set()
        self._trials: dict[str, object] = {}
        self._had_terminal = _has_terminal()
        self._stopping = asyncio.Event()
        self._to_replace = asyncio.Event()
        self._interrupted = False
        self._ended_badly: list[GatewayError] = []

    async def run(self, announce: Callable[[Started], None]) -> None:
        """Start all workers, `announce`, and keep them until a signal asks to stop.

        Raises as `supervise`.
        """
        for number in range(MAX_WORKER + 1):
            if self._board.worker(number).state and not is_held(self._settings.journal, number):
                self._board.page(number).clear()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop)
        loop.add_signal_handler(signal.SIGINT, self._interrupt)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup stays nohup
            loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        try:
            await self._serve(announce)
        finally:
            self._stopping.set()
            await asyncio.gather(*map(self._end, tuple(self._live)))
            if self._spare is not None:
                await _dismissed(self._spare)
            for caught in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                loop.remove_signal_handler(caught)
        if self._interrupted:
            raise KeyboardInterrupt
        if self._ended_badly:
            raise self._ended_badly[0]

    async def _serve(self, announce: Callable[[Started], None]) -> None:
        try:
            # The first alone: what keeps it from serving would keep them all.
            seats = [await self._seated(0)]
            seats += await asyncio.gather(*map(self._seated, range(1, len(self._pinned))))
        except GatewayError:
            if self._stopping.is_set():
                return
            raise
        if self._stopping.is_set():
            return
        first = seats[0].worker.ready.result()
        workers = tuple((seat.worker.number, seat.worker.process.pid) for seat in seats)
        announce(Started(self._claim.address, first.products, workers))
        keepers = [asyncio.create_task(self._keep(seat)) for seat in seats]
        keepers.append(asyncio.create_task(self._replace_when_asked(seats)))
        keepers.append(asyncio.create_task(self._keep_spare()))
        await self._stopping.wait()
        await asyncio.gather(*map(self._end, tuple(self._live)), *keepers)

    def _stop(self) -> None:
        self._stopping.set()

    def _interrupt(self) -> None:
        if self._stopping.is_set():
            self._interrupted = True
            for worker in self._live:
                worker.signal(signal.SIGKILL)
        self._stopping.set()

    def _hang_up(self) -> None:
        if self._had_terminal and not _has_terminal():
            self._stopping.set()  # whoever started it has closed the window
        else:
            self._to_replace.set()

    # Starting

    async def _seated(self, index: int) -> _Seat:
        seat = _Seat(index, self._pinned[index])
        seat.worker = await self._launch(seat, self._free_number())
        return seat

    def _free_number(self) -> int:
        """Take the lowest number that no living process has."""
        journal = self._settings.journal
        for number in range(MAX_WORKER + 1):
            # What a supervisor before this one has left may still drain.
            if number not in self._taken and not is_held(journal, number):
                self._taken.add(number)
                return number
        raise JournalError(
            "every worker number is in use",
            subject=str(journal),
            hint="Stop the other `gateway serve`, or name another --journal directory.",
        )

    async def _launch(self, seat: _Seat, number: int) -> _Worker:
        """Start a process for a seat and wait until it answers.

        Raises:
            GatewayError: why it does not.
        """
        settings = replace(
            self._settings, worker=number, listen=self._claim.listen(number), core=seat.core
        )
        worker = await self._spawned(Order(settings, self._trials), seat)
        if self._stopping.is_set():
            worker.signal(signal.SIGTERM)
        both: set[asyncio.Future[object]] = {worker.ready, worker.ended}  # type: ignore[arg-type]
        await asyncio.wait(both, timeout=START_S_MAX, return_when=asyncio.FIRST_COMPLETED)
        if not worker.ready.done():
            if not worker.ended.done():
                worker.error = GatewayError(
                    f"worker {number} did not answer within {START_S_MAX:g} s", hint="Start again."
                )
                worker.signal(signal.SIGKILL)
                await worker.ended
            raise worker.error or GatewayError(
                f"worker {number} died while it started ({worker.how})",
                hint="What it said before stands above.",
            )
        ready = worker.ready.result()
        self._trials.update(ready.trials)
        try:
            self._claim.take_over(number)
        except GatewayError:
            await self._end(worker)
            raise
        worker.ready_s = time.monotonic()
        return worker

    async def _spawned(self, order: Order, seat: _Seat) -> _Worker:
        number, idle = order.settings.worker, self._spare
        if idle is None or idle.process.returncode is not None:
            idle = await _opened()
        else:
            self._spare = None
            self._spare_taken.set()
        self._board.page(number).begin(
            pid=idle.process.pid,
            wall_ns=time.time_ns(),
            now_ns=time.monotonic_ns(),
            seat=seat.index,
            restarts=seat.restarts,
            deaths=seat.backoff.deaths,
            why=seat.why,
        )
        idle.writer.write(order.encode())
        ready: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
        worker = _Worker(number, idle.process, ready)
        worker.ended = asyncio.create_task(self._follow(worker, idle.reader, idle.writer))
        self._live.add(worker)
        return worker

    async def _follow(
        self, worker: _Worker, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> int:
        """Hear what a worker says until it has ended. Return its exit code."""
        with suppress(ConnectionError):
            async for line in reader:
                match decode_answer(line):
                    case Ready() as ready:
                        worker.ready.set_result(ready)
                    case GatewayError() as error:
                        worker.error = error
        code = await worker.process.wait()
        await _closed(writer)
        self._live.discard(worker)
        # What a killed worker could not remove.
        for left in Path(tempfile.gettempdir()).glob(f"gateway-{worker.process.pid}-*"):
            shutil.rmtree(left, ignore_errors=True)
        self._board.page(worker.number).tell(State.ENDED)
        return code

    # Keeping

    async def _keep(self, seat: _Seat) -> None:
        """Start a seat's worker again whenever it has died."""
        while True:
            worker = seat.worker
            await asyncio.wait({worker.ended})
            async with seat.lock:
                if self._stopping.is_set():
                    return
                if seat.worker is worker:
                    await self._revive(seat)

    async def _revive(self, seat: _Seat) -> None:
        dead = seat.worker
        served_s, why, hint = time.monotonic() - dead.ready_s, dead.how, ""
        for attempt in count():
            delay_s = seat.backoff.died(served_s)
            seat.why = why
            self._mourn(seat, attempt, why, hint, delay_s)
            page = self._board.page(dead.number)
            page.tell(State.BACKING_OFF, deaths=seat.backoff.deaths, why=why)
            if await self._stopped_within(delay_s, seat.hurry):
                page.tell(State.ENDED)
                return
            seat.restarts += 1
            try:
                seat.worker = await self._launch(seat, dead.number)
            except GatewayError as error:
                if self._stopping.is_set():
                    return
                served_s, why, hint = 0.0, str(error), error.hint
            else:
                log.info("worker %d serves again", seat.worker.number)
                return

    def _mourn(self, seat: _Seat, attempt: int, why: str, hint: str, delay_s: float) -> None:
        """Say that a worker died; of a crash loop, what to try."""
        dead, again = seat.worker, f"again in {delay_s:g} s" if delay_s else "again at once"
        what = "did not start again" if attempt else f"(pid {dead.process.pid}) died"
        log.warning("worker %d %s: %s; %s", dead.number, what, why, again)
        if seat.backoff.is_loop:
            log.error(
                "worker %d has died %d times in a row. %s",
                dead.number,
                seat.backoff.deaths,
                hint or "Try: gateway check; SIGHUP to this process starts it at once.",
            )

    async def _stopped_within(self, seconds: float, *hurry: asyncio.Event) -> bool:
        """Wait so long, or until `hurry`. Return whether we are to stop."""
        for event in hurry:
            event.clear()
        await self._first_of(self._stopping, *hurry, timeout_s=seconds)
        return self._stopping.is_set()

    async def _first_of(self, *events: asyncio.Event, timeout_s: float | None = None) -> None:
        waits = [asyncio.create_task(event.wait()) for event in events]
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    async def _keep_spare(self) -> None:
        """Have a spare, always but for the moments after it was taken."""
        while not await self._stopped_within(SPARE_AFTER_S):
            self._spare_taken.clear()
            try:
                self._spare = await _opened()
            except GatewayError as error:
                log.warning("there is no spare: %s", error)
                continue
            await self._first_of(self._stopping, self._spare_taken)

    # Replacing

    async def _replace_when_asked(self, seats: Sequence[_Seat]) -> None:
        while True:
            await self._first_of(self._stopping, self._to_replace)
            if self._stopping.is_set():
                return
            self._to_replace.clear()
            await self._replace(seats)

    async def _replace(self, seats: Sequence[_Seat]) -> None:
        """Replace every worker, one by one; stop at the first that does not go."""
        for seat in seats:
            if seat.lock.locked():
                seat.hurry.set()  # it is being started again already
                continue
            async with seat.lock:
                if self._stopping.is_set() or not await self._replaced(seat):
                    return
        log.info("replaced %d worker%s", len(seats), "s" if len(seats) > 1 else "")

    async def _replaced(self, seat: _Seat) -> bool:
        old = seat.worker
        number = self._free_number()
        try:
            new = await self._launch(seat, number)
        except GatewayError as error:
            self._taken.discard(number)
            if not self._stopping.is_set():
                log.error(
                    "worker %d goes on: its replacement did not start: %s. %s",
                    old.number,
                    error,
                    error.hint,
                )
            return False
        seat.worker = new
        await self._end(old)
        self._taken.discard(old.number)
        return True

    # Ending

    async def _end(self, worker: _Worker) -> None:
        """Let a worker finish what it has received; kill one that takes too long."""
        worker.signal(signal.SIGTERM)
        done, _ = await asyncio.wait({worker.ended}, timeout=END_S_MAX)
        if not done:
            log.error("worker %d did not end within %g s: killed", worker.number, END_S_MAX)
            worker.signal(signal.SIGKILL)
            await worker.ended
        code = worker.process.returncode
        if worker.error is not None:
            self._ended_badly.append(worker.error)
        elif code and code != -signal.SIGTERM:
            self._ended_badly.append(
                GatewayError(
                    f"worker {worker.number} did not drain: {worker.how}",
                    hint=f"gateway journal verify {self._settings.journal}",
                )
            )
