"""`gateway serve`, as a process of the demo's own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import ExitCode, GatewayError

STOP_S = 20.0
"""How long the server may take to drain."""


@dataclass(frozen=True, slots=True)
class Server:
    """`gateway serve`, as a process of its own."""

    child: subprocess.Popen[str]
    address: str

    def stop(self) -> None:
        """Ask it to finish and wait until it has."""
        _stop(self.child)


@contextmanager
def serving(folders: Sequence[Path], journal: Path) -> Iterator[Server]:
    """Serve the products on a port of the system's choice, as long as the context is open.

    Raises:
        GatewayError: what kept it from starting, with its exit code.
    """
    command = [sys.executable, "-m", "gateway", "serve", *map(str, folders), "--json"]
    command += ["--listen", "127.0.0.1:0", "--journal", str(journal)]
    with (
        tempfile.TemporaryFile("w+") as said,
        # Ctrl-C is for the demo: it stops the server itself.
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=said, text=True, start_new_session=True
        ) as child,
    ):
        assert child.stdout is not None
        try:
            line = child.stdout.readline()
            if not line:
                code = child.wait(STOP_S)
                said.seek(0)
                raise _did_not_start(said.read(), code)
            yield Server(child, json.loads(line)["address"])
        finally:
            _stop(child)


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
