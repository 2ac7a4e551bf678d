"""`gateway serve`, as a process of the demo's or the benchmark's own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from gateway.errors import ExitCode, GatewayError

STOP_S = 30.0
"""How long the server may take to drain, and its sidecar to finish."""


@dataclass(frozen=True, slots=True)
class Server:
    """`gateway serve`, as a process of its own. `workers`: their processes, as it began.

    `metrics`: where its sidecar answers Prometheus, `feedback`: where it takes labels; empty where
    it has none.
    """

    child: subprocess.Popen[str]
    address: str
    workers: tuple[int, ...]
    metrics: str = ""
    feedback: str = ""

    @property
    def pid(self) -> int:
        """Return the process that takes signals."""
        return self.child.pid

    def stop(self) -> None:
        """Ask it to finish and wait until it has."""
        _stop(self.child)


@contextmanager
def serving(
    folders: Sequence[Path],
    journal: Path,
    *,
    options: Sequence[str] = (),
    cores: Iterable[int] | None = None,
) -> Iterator[Server]:
    """Serve the products on a port of the system's choice, as long as the context is open.

    `options` are further ones of `gateway serve`. With `cores` it runs on those alone.

    Raises:
        GatewayError: what kept it from starting, with its exit code.
    """
    command = [sys.executable, "-m", "gateway", "serve", *map(str, folders), "--json"]
    command += ["--listen", "127.0.0.1:0", "--journal", str(journal), *options]
    with (
        tempfile.TemporaryFile("w+") as said,
        _started(command, said, cores) as child,
    ):
        assert child.stdout is not None
        try:
            line = child.stdout.readline()
            if not line:
                code = child.wait(STOP_S)
                said.seek(0)
                raise _did_not_start(said.read(), code)
            ready = json.loads(line)
            workers = tuple(one["pid"] for one in ready["workers"])
            beside = ready["sidecar"] or {"metrics": "", "feedback": ""}
            yield Server(child, ready["address"], workers, beside["metrics"], beside["feedback"])
        finally:
            _stop(child)


@contextmanager
def interrupted_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the command as Ctrl-C does: its server must not outlive it."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _started(
    command: Sequence[str], said: IO[str], cores: Iterable[int] | None
) -> subprocess.Popen[str]:
    """Start a child on some cores: it inherits them, and we have ours back."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, before if cores is None else cores)
    # Under nohup it would inherit that SIGHUP means nothing; we replace its workers with it.
    hangup = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        # Ctrl-C is for us: we stop the server ourselves.
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=said, text=True, start_new_session=True
        )
    finally:
        signal.signal(signal.SIGHUP, hangup)
        os.sched_setaffinity(0, before)


def _stop(child: subprocess.Popen[str]) -> None:
    """Let the server drain; kill one that takes too long, or at a second Ctrl-C."""
    child.terminate()
    try:
        child.wait(STOP_S)
    except BaseException:
        child.kill()
        raise


def _did_not_start(said: str, code: int) -> GatewayError:
    """Pass on what the server said, with its exit code."""
    what, _, hint = said.strip().partition("\nTry: ")
    error = GatewayError(
        f"the server did not start: {what.removeprefix('Error: ')}", hint=hint.strip()
    )
    error.exit_code = ExitCode(code) if code in set(ExitCode) else ExitCode.FAILED
    return error
