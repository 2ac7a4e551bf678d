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
import signal
import time
from collections.abc import Callable, Container, Coroutine, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

from gateway.errors import GatewayError, JournalError, UsageError
from gateway.journal import MAX_WORKER, Rejected, is_held, make_directory
from gateway.serve.crew.backoff import LOOPING, Backoff
from gateway.serve.crew.board import Board, Gateway, State, supervised
from gateway.serve.crew.companion import Companion
from gateway.serve.crew.control import (
    Load,
    Loaded,
    NotLoaded,
    Order,
    Ready,
    decode_answer,
    encode_rejected,
)
from gateway.serve.crew.crew import allowed_cores, checked_count, journal_share
from gateway.serve.crew.live import Idle, Live, closed, dismissed, opened
from gateway.serve.crew.port import Claim, claimed
from gateway.serve.crew.settings import Settings
from gateway.serve.fronts.address import checked_address
from gateway.serve.fronts.socket_folder import clear_away
from gateway.serve.succession.generations import Generations

START_S_MAX = 300.0
"""A worker that does not answer by then is given up."""

END_S_MAX = 20.0
"""A worker that has not ended so long after SIGTERM is killed."""

ORPHANS_S_MAX = 5.0
"""How long to wait for workers whose supervisor was killed: they have the port, and drain."""

AGAIN_S_MAX = 10.0
"""Where the only worker died while it opened a generation, its successor is waited for."""

_GLANCE_S = 0.05

SPARE_AFTER_S = 1.0
"""The spare is started when the machine has had so long for the workers themselves."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Started:
    """All workers answer calls. `products`: each with its generation; `workers`: number, pid.

    `companion`: what the process beside them told, and its pid; None where there is none.
    """

    address: str
    products: dict[str, int]
    workers: tuple[tuple[int, int], ...]
    companion: dict[str, Any] | None = None


def supervise(
    settings: Settings,
    *,
    workers: int | None,
    affinity: bool,
    announce: Callable[[Started], None],
    companion: Companion | None = None,
) -> None:
    """Serve with so many workers until SIGTERM or SIGINT; replace all of them at each SIGHUP.

    A change of a product's folder is verified, and served without a worker's end; SIGUSR1 asks
    for a look at all of them at once.

    `workers`: None for one less than the processors that this process may use, at least one.
    `settings.journal_max_bytes` is for all of them together. `companion`: a process that is to be
    there as long as they are, and somewhat longer; one that cannot begin keeps them from serving.

    Raises:
        GatewayError: what kept it from starting, or a worker from ending well.
        KeyboardInterrupt: at a second SIGINT.
    """
    if not settings.folders:
        raise UsageError("no product folder is named", hint="For example: models/card-not-present")
    cores = allowed_cores()
    count_ = checked_count(settings, workers, len(cores))
    if affinity and not hasattr(os, "sched_setaffinity"):
        raise UsageError("--affinity needs Linux", hint="Leave it out.")
    checked_address(settings.listen, tls=settings.tls is not None, insecure=settings.insecure)
    if settings.tls is not None and settings.front == "native":
        raise UsageError("the native front has no TLS", hint="Add --front grpcio.")
    share = journal_share(settings.journal_max_bytes, count_)
    make_directory(settings.journal)
    with ExitStack() as stack:
        board = stack.enter_context(supervised(settings.journal))
        _outwait(board, settings.journal)
        claim = stack.enter_context(claimed(settings.listen))
        board.begin(Gateway(os.getpid(), time.time_ns(), count_, claim.address))
        one = replace(settings, journal_max_bytes=share, reuse_port=not claim.is_unix)
        pinned = [cores[seat % len(cores)] if affinity else None for seat in range(count_)]
        asyncio.run(Supervisor(one, claim, board, pinned, companion).run(announce))


def _outwait(board: Board, journal: Path) -> None:
    """Let the workers of a supervisor that was killed drain, and forget them."""
    until_s = time.monotonic() + ORPHANS_S_MAX
    for number in range(MAX_WORKER + 1):
        if board.worker(number).state is State.NONE:
            continue
        while is_held(journal, number):
            if time.monotonic() >= until_s:
                log.warning("worker %d of a gateway before this one still runs", number)
                break
            time.sleep(0.02)
        else:
            board.page(number).clear()


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


@dataclass(slots=True, eq=False)
class _Seat:
    """A worker's place. Who holds `lock` starts or replaces its worker."""

    index: int
    core: int | None
    worker: Live = field(init=False)
    backoff: Backoff = field(default_factory=Backoff)
    restarts: int = 0
    why: str = ""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    hurry: asyncio.Event = field(default_factory=asyncio.Event)


class Supervisor:
    """`pinned`: for each seat, the processor that its worker keeps to, or None."""

    def __init__(
        self,
        settings: Settings,
        claim: Claim,
        board: Board,
        pinned: Sequence[int | None],
        companion: Companion | None = None,
    ) -> None:
        self._settings = settings
        self._claim = claim
        self._board = board
        self._pinned = pinned
        self._companion = companion
        self._live: set[Live] = set()
        self._spare: Idle | None = None
        self._spare_taken = asyncio.Event()
        self._taken: set[int] = set()
        self._generations = Generations(
            settings.folders, settings.journal, spread=self._spread, tell=self._tell
        )
        self._telling = asyncio.Lock()  # who holds it tells workers what to serve
        self._had_terminal = _has_terminal()
        self._stopping = asyncio.Event()
        self._to_replace = asyncio.Event()
        self._to_reload = asyncio.Event()
        self._interrupted = False
        self._keepers: list[asyncio.Task[Any]] = []

    async def run(self, announce: Callable[[Started], None]) -> None:
        """Start all workers, `announce`, and keep them until a signal asks to stop.

        Raises as `supervise`.
        """
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop)
        loop.add_signal_handler(signal.SIGINT, self._interrupt)
        loop.add_signal_handler(signal.SIGUSR1, self._to_reload.set)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup stays nohup
            loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        try:
            await self._serve(announce)
        finally:
            self._stopping.set()
            ends = await asyncio.gather(*map(self._end, tuple(self._live)))
            await asyncio.gather(*self._keepers)
            if self._spare is not None:
                await dismissed(self._spare)
            if self._companion is not None:
                await self._companion.end()  # after the workers: it finishes what they have left
            for caught in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
                loop.remove_signal_handler(caught)
        if self._interrupted:
            raise KeyboardInterrupt
        for bad_end in filter(None, ends):
            raise bad_end

    async def _serve(self, announce: Callable[[Started], None]) -> None:
        try:
            # The first worker loads its libraries while the folders are verified.
            self._spare = await opened()
            if await self._unless_stopped(self._begin()):
                return
            # The first alone: what keeps it from serving would keep them all.
            seats = [await self._seated(0)]
            others = map(self._seated, range(1, len(self._pinned)))
            for seat in await asyncio.gather(*others, return_exceptions=True):
                if isinstance(seat, BaseException):
                    raise seat
                seats.append(seat)
        except GatewayError:
            if self._stopping.is_set():
                return
            raise
        if self._stopping.is_set():
            return
        first = seats[0].worker.ready.result()
        workers = tuple((seat.worker.number, seat.worker.process.pid) for seat in seats)
        beside = self._companion
        told = None if beside is None else {**(beside.told or {}), "pid": beside.pid}
        announce(Started(self._claim.address, first.products, workers, told))
        kept: list[Coroutine[Any, Any, Any]] = [
            *map(self._keep, seats),
            self._replace_when_asked(seats),
            self._keep_spare(),
            # Whatever they wait for, a verification above all: nothing of it is left to be done.
            self._unless_stopped(self._generations.keep(self._stopping)),
            self._reload_when_asked(),
        ]
        if beside is not None:
            kept.append(beside.keep(self._stopping))
        self._keepers = [asyncio.create_task(one) for one in kept]
        await self._stopping.wait()

    def _stop(self) -> None:
        self._stopping.set()

    def _interrupt(self) -> None:
        if self._stopping.is_set():
            self._interrupted = True
            for worker in self._live:
                worker.signal(signal.SIGKILL)
            if self._companion is not None:
                self._companion.kill()
        self._stopping.set()

    def _hang_up(self) -> None:
        if self._had_terminal and not _has_terminal():
            self._stopping.set()  # whoever started it has closed the window
        else:
            self._to_replace.set()

    # Starting

    async def _begin(self) -> None:
        """Verify the folders, and start what is beside the workers meanwhile.

        Raises:
            GatewayError: why either cannot be.
        """
        begun = [asyncio.create_task(self._generations.begin())]
        if self._companion is not None:
            begun.append(asyncio.create_task(self._companion.begin()))
        try:
            await asyncio.gather(*begun)
        finally:
            for one in begun:
                one.cancel()
            await asyncio.wait(begun)

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

    async def _launch(self, seat: _Seat, number: int) -> Live:
        """Start a process for a seat and wait until it answers.

        Raises:
            GatewayError: why it does not.
        """
        settings = replace(
            self._settings, worker=number, listen=self._claim.listen(number), core=seat.core
        )
        worker = await self._spawned(Order(settings, self._generations.loads), seat)
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
        try:
            self._claim.take_over(number)
        except GatewayError:
            await self._end(worker)
            raise
        worker.ready_s = time.monotonic()
        # What has changed while it started; what is spreading now it hears of here, afterwards.
        async with self._telling:
            for load in self._generations.loads:
                await self._expect_to_serve(worker, load)
        for rejected in self._generations.rejected:
            worker.writer.write(encode_rejected(rejected))
        return worker

    async def _spawned(self, order: Order, seat: _Seat) -> Live:
        number = order.settings.worker
        idle, self._spare = self._spare, None
        if idle is not None:
            self._spare_taken.set()
            if idle.process.returncode is not None:  # it was killed while it waited
                await dismissed(idle)
                idle = None
        idle = idle or await opened()
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
        serves = {load.product: load.digest for load in order.loads}
        worker = Live(number, idle.process, idle.writer, ready, serves)
        worker.ended = asyncio.create_task(self._follow(worker, idle.reader, idle.writer))
        self._live.add(worker)
        return worker

    async def _follow(
        self, worker: Live, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> int:
        """Hear what a worker says until it has ended. Return its exit code."""
        with suppress(ConnectionError):
            async for line in reader:
                match decode_answer(line):
                    case Ready() as ready:
                        worker.ready.set_result(ready)
                    case GatewayError() as error:
                        worker.error = error
                    case Loaded() | NotLoaded() as answer:
                        worker.heard(answer)
        code = await worker.process.wait()
        await closed(writer)
        self._live.discard(worker)
        clear_away(worker.process.pid)
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
        if seat.backoff.deaths == LOOPING:
            log.error(
                "worker %d has died %d times in a row. %s",
                dead.number,
                seat.backoff.deaths,
                hint or "Try: gateway check; SIGHUP to this process starts it at once.",
            )

    async def _unless_stopped(self, work: Coroutine[Any, Any, None]) -> bool:
        """Do something that may take long. Return whether we are to stop instead."""
        doing, stopped = asyncio.create_task(work), asyncio.create_task(self._stopping.wait())
        await asyncio.wait({doing, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not doing.done():
            doing.cancel()
            await asyncio.wait({doing})
            return True
        doing.result()
        return self._stopping.is_set()

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
                self._spare = await opened()
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
        old, number = seat.worker, None
        try:
            number = self._free_number()
            new = await self._launch(seat, number)
        except GatewayError as error:
            if number is not None:
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
        bad_end = await self._end(old)
        if bad_end is not None:
            log.error("%s. %s", bad_end, bad_end.hint)
        self._taken.discard(old.number)
        return True

    # New generations

    async def _spread(self, load: Load) -> GatewayError | None:
        """Let the workers serve a generation, one before the others. Return why it does not."""
        async with self._telling:
            asked: set[Live] = set()
            died: GatewayError | None = None
            while worker := await self._another(asked, 0.0 if died is None else AGAIN_S_MAX):
                asked.add(worker)
                error = await worker.serve(load)
                if error is not None:
                    if worker.is_asked(load):
                        # It may open it still: nobody is to serve what is refused.
                        worker.signal(signal.SIGTERM)
                    return error
                if worker.serves.get(load.product) == load.digest:
                    break
                if not worker.process.returncode:
                    continue  # it was replaced meanwhile
                if died is not None:
                    return died
                # One death may be chance; what two die of is not shown to the others.
                died = GatewayError(
                    f"worker {worker.number} died while it opened it: {worker.how}",
                    subject=load.product,
                    hint="Look at the memory that it may have. gateway models reload tries it "
                    "again.",
                )
            else:
                if died is not None:
                    return died
            others = [other for other in self._live if other.ready.done()]
            await asyncio.gather(*(self._expect_to_serve(other, load) for other in others))
        return None

    async def _another(self, asked: Container[Live], within_s: float) -> Live | None:
        """Return a worker that answers and is none of those, if there is one so soon."""
        until_s = time.monotonic() + within_s
        while True:
            for worker in self._live:
                if worker.ready.done() and worker not in asked:
                    return worker
            if time.monotonic() >= until_s or await self._stopped_within(_GLANCE_S):
                return None

    async def _expect_to_serve(self, worker: Live, load: Load) -> None:
        """Let a worker serve what another one serves already; one that cannot is replaced."""
        if (error := await worker.serve(load)) is not None:
            log.error("worker %d is started again: %s. %s", worker.number, error, error.hint)
            worker.signal(signal.SIGTERM)

    def _tell(self, rejected: Rejected) -> None:
        for worker in self._live:
            if worker.ready.done():
                worker.writer.write(encode_rejected(rejected))

    async def _reload_when_asked(self) -> None:
        while True:
            await self._first_of(self._stopping, self._to_reload)
            if self._stopping.is_set():
                return
            self._to_reload.clear()
            try:
                await self._unless_stopped(self._generations.reload())
            except Exception:
                # What is served goes on; the next look may fare better.
                log.exception("a look at the folders failed")

    # Ending

    async def _end(self, worker: Live) -> GatewayError | None:
        """Let a worker finish what it has received; kill one that takes too long.

        Returns why it did not end well.
        """
        worker.signal(signal.SIGTERM)
        done, _ = await asyncio.wait({worker.ended}, timeout=END_S_MAX)
        if not done:
            log.error("worker %d did not end within %g s: killed", worker.number, END_S_MAX)
            worker.signal(signal.SIGKILL)
            await worker.ended
        code = worker.process.returncode
        if worker.error is not None or not code or code == -signal.SIGTERM:
            return worker.error
        return GatewayError(
            f"worker {worker.number} did not drain: {worker.how}",
            hint=f"gateway journal verify {self._settings.journal}",
        )
