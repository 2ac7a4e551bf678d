"""A process that the supervisor keeps beside the workers, and knows nothing more of.

It says one line of JSON on stdout when it is ready, or, as `control.error_row` has it, why it
cannot be. The end of its stdin says that the supervisor has ended, or asks it to finish.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from gateway.errors import GatewayError
from gateway.serve.crew import priority
from gateway.serve.crew.backoff import LOOPING, Backoff
from gateway.serve.crew.control import error_of
from gateway.serve.crew.live import how_ended

BEGIN_S_MAX = 60.0
"""One that is not ready by then keeps the gateway from serving."""

FINISH_S_MAX = 8.0
"""One that has not finished so long after its stdin ended is stopped, and then killed."""

STOP_S_MAX = 2.0

SAY_S = 60.0
"""Of one that dies again and again it is said so often."""

log = logging.getLogger(__name__)


class Companion:
    """`command`: what to run, from what it told when it was ready last, None before.

    Its process stays in the supervisor's session: Linux shares the processor among sessions before
    it looks at niceness.
    """

    def __init__(
        self, name: str, command: Callable[[Mapping[str, Any] | None], Sequence[str]]
    ) -> None:
        self.name = name
        self.told: dict[str, Any] | None = None
        self._command = command
        self._process: asyncio.subprocess.Process | None = None
        self._backoff = Backoff()
        self._said_s = -SAY_S

    @property
    def pid(self) -> int:
        """Its process, the last one where it has ended."""
        return self._process.pid if self._process else 0

    async def begin(self) -> None:
        """Start it, and wait until it is ready.

        Raises:
            GatewayError: it cannot be started, or says why it cannot go on, or does not answer.
        """
        try:
            await asyncio.wait_for(self._start(), BEGIN_S_MAX)
        except TimeoutError:
            raise GatewayError(
                f"the {self.name} was not ready within {BEGIN_S_MAX:g} s", hint="Start again."
            ) from None

    async def keep(self, stopping: asyncio.Event) -> None:
        """Start it again whenever it has died, until `stopping`."""
        while True:
            begun_s, died, why = time.monotonic(), self.pid, ""
            try:
                if self._process is None or self._process.returncode is not None:
                    if not await _done_before(stopping, self._start(giving_way=True)):
                        return
                    log.info("the %s runs again (pid %d)", self.name, self.pid)
                assert self._process is not None
                died = self.pid
                if not await _done_before(stopping, self._process.wait()):
                    return
                why = how_ended(self._process.returncode or 0)
            except GatewayError as error:
                why = str(error)
            delay_s = self._backoff.died(time.monotonic() - begun_s)
            self._mourn(died, why, delay_s)
            if not await _done_before(stopping, asyncio.sleep(delay_s)):
                return

    async def end(self) -> None:
        """Let it finish what the workers have left; stop one that takes too long."""
        process = self._process
        if process is None:
            return
        if self.told is None:
            self.kill()  # it has not begun
        assert process.stdin is not None
        process.stdin.close()
        for wait_s, number in ((FINISH_S_MAX, signal.SIGTERM), (STOP_S_MAX, signal.SIGKILL)):
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), wait_s)
                return
            log.warning("the %s has not finished: %s", self.name, number.name)
            with suppress(ProcessLookupError):
                process.send_signal(number)
        await process.wait()

    def kill(self) -> None:
        """End it at once; what it was at stays for the next start."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()

    async def _start(self, *, giving_way: bool = False) -> None:
        command = list(self._command(self.told))
        if giving_way:
            # While the workers answer calls, not even its imports are to be felt.
            command = priority.giving_way(command)
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                process_group=0,  # Ctrl-C is for the supervisor
            )
        except OSError as error:
            raise GatewayError(
                f"the {self.name} cannot be started: {error.strerror}",
                hint="Look at the machine's limits: memory, processes, open files.",
            ) from None
        self._process = process
        assert process.stdout is not None
        row = _row(await process.stdout.readline())
        if row and "error" not in row:
            self.told = row
            return
        if row is None:
            self.kill()
        code = await process.wait()
        if row:
            raise error_of(row["error"])
        how = how_ended(code) if row is not None else "it said what nobody asked"
        raise GatewayError(
            f"the {self.name} died while it started ({how})",
            hint="What it said before stands above.",
        )

    def _mourn(self, pid: int, why: str, delay_s: float) -> None:
        now_s, deaths = time.monotonic(), self._backoff.deaths
        if deaths not in (1, LOOPING) and now_s - self._said_s < SAY_S:
            return
        self._said_s = now_s
        again = f"again in {delay_s:g} s" if delay_s else "again at once"
        often = f", {deaths} times in a row" if deaths > 1 else ""
        log.warning(
            "the %s (pid %d) died%s: %s; %s. Decisions go on", self.name, pid, often, why, again
        )


def _row(line: bytes) -> dict[str, Any] | None:
    """Read what it said; nothing where its stdout ended before, None where that is no answer."""
    if not line:
        return {}
    with suppress(ValueError):
        row = json.loads(line)
        if isinstance(row, dict) and row:
            return row
    return None


async def _done_before(stopping: asyncio.Event, work: Any) -> bool:
    """Do something unless `stopping` comes first; return whether it was done."""
    doing, stopped = asyncio.ensure_future(work), asyncio.create_task(stopping.wait())
    await asyncio.wait({doing, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if stopping.is_set() and not doing.done():
        doing.cancel()
        await asyncio.wait({doing})
        return False
    await doing
    return not stopping.is_set()
