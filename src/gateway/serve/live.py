"""The supervisor's child processes: those that wait for an order, and those that have one."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass, field

from gateway.errors import GatewayError
from gateway.serve.control import Ready

_MESSAGE_BYTES_MAX = 1 << 24


@dataclass(slots=True, eq=False)
class Idle:
    """A process that has no order yet."""

    process: asyncio.subprocess.Process
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


@dataclass(slots=True, eq=False)
class Live:
    """A process with an order. `ready` is set when it answers; `ended` gives its exit code."""

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


async def opened() -> Idle:
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
    return Idle(process, reader, writer)


async def dismissed(idle: Idle) -> None:
    """Let a process that has no order go, and wait until it has."""
    await closed(idle.writer)
    with suppress(ProcessLookupError):
        idle.process.kill()  # it has nothing to finish
    await idle.process.wait()


async def closed(writer: asyncio.StreamWriter) -> None:
    """Close our end, and wait until it is."""
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()
