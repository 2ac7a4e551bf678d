"""The supervisor's child processes: those that wait for an order, and those that have one."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from gateway.errors import GatewayError, ModelError
from gateway.serve.crew.control import Load, Loaded, NotLoaded, Ready

SWAP_S_MAX = 120.0
"""A worker that has not opened a new generation so long after it was told is replaced."""

_MESSAGE_BYTES_MAX = 1 << 28


@dataclass(slots=True, eq=False)
class Idle:
    """A process that has no order yet."""

    process: asyncio.subprocess.Process
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


@dataclass(slots=True, eq=False)
class Live:
    """A process with an order. `ready` is set when it answers; `ended` gives its exit code.

    `serves`: the digest of each product's generation that it serves.
    """

    number: int
    process: asyncio.subprocess.Process
    writer: asyncio.StreamWriter
    ready: asyncio.Future[Ready]
    serves: dict[str, str]
    ended: asyncio.Task[int] = field(init=False)
    ready_s: float = 0.0
    error: GatewayError | None = None
    _asked: dict[tuple[str, str], asyncio.Future[GatewayError | None]] = field(default_factory=dict)

    @property
    def how(self) -> str:
        """Say how it ended."""
        if self.error is not None:
            return str(self.error)
        return how_ended(self.process.returncode or 0)

    async def serve(self, load: Load) -> GatewayError | None:
        """Let it serve a generation. Return why it does not, None where it does or has ended."""
        if self.serves.get(load.product) == load.digest or self.ended.done():
            return None
        answer: asyncio.Future[GatewayError | None] = asyncio.get_running_loop().create_future()
        self._asked[load.product, load.digest] = answer
        self.writer.write(load.encode())
        both: set[asyncio.Future[Any]] = {answer, self.ended}
        await asyncio.wait(both, timeout=SWAP_S_MAX, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        if self.ended.done():
            return None
        return GatewayError(
            f"worker {self.number} did not open it within {SWAP_S_MAX:g} s", subject=load.product
        )

    def is_asked(self, load: Load) -> bool:
        """Say whether it was told of a generation and has not answered."""
        return (load.product, load.digest) in self._asked

    def heard(self, answer: Loaded | NotLoaded) -> None:
        """Take in what it said of a new generation."""
        error = None
        if isinstance(answer, Loaded):
            self.serves[answer.product] = answer.digest
        else:
            error = ModelError(answer.why, hint=answer.hint)
        asked = self._asked.pop((answer.product, answer.digest), None)
        if asked is not None and not asked.done():
            asked.set_result(error)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it is still there."""
        with suppress(ProcessLookupError):
            self.process.send_signal(number)


def how_ended(code: int) -> str:
    """Say how a process ended, from what asyncio gives as its exit code."""
    if code >= 0:
        return f"exit code {code}"
    known = -code in set(signal.Signals)
    return f"killed by {signal.Signals(-code).name if known else f'signal {-code}'}"


async def opened() -> Idle:
    """Start a process that waits for its order.

    Raises:
        GatewayError: the machine does not let us.
    """
    try:
        ours, theirs = socket.socketpair()
    except OSError as error:
        raise _cannot_start(error) from None
    with theirs:
        command = [sys.executable, "-P", "-u", "-m", "gateway.serve.child"]
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                str(theirs.fileno()),
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=2,  # ours is for what is announced
                process_group=0,  # Ctrl-C is for the supervisor: it stops them itself
            )
        except OSError as error:
            ours.close()
            raise _cannot_start(error) from None
    reader, writer = await asyncio.open_connection(sock=ours, limit=_MESSAGE_BYTES_MAX)
    return Idle(process, reader, writer)


def _cannot_start(error: OSError) -> GatewayError:
    return GatewayError(
        f"a worker cannot be started: {error.strerror}",
        hint="Look at the machine's limits: memory, processes, open files.",
    )


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
