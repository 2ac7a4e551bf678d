"""Lets the page look things up in the lake and the journal: a process each, one at a time.

What a look takes of memory goes with its process, it has the least share of the processor, and none
of the sidecar's sockets and locks. One that takes too long is killed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gateway.errors import GatewayError, JournalError, LakeError, UsageError
from gateway.serve.crew.priority import giving_way

LIMIT_S = 30.0

_KINDS = {one.__name__: one for one in (UsageError, LakeError, JournalError)}

MOST = 100
"""So many calls are listed."""


class Looking:
    """Looks up what the page asks for. `limit_s`: for the wait for its turn, and for the look."""

    def __init__(
        self,
        journal: Path,
        lake: str | None,
        *,
        limit_s: float = LIMIT_S,
        command: Sequence[str] | None = None,
    ) -> None:
        self._journal = journal
        self._lake = lake
        self._limit_s = limit_s
        self._command = giving_way(
            [sys.executable, "-P", "-m", "gateway.cli.look"] if command is None else command
        )
        self._turn = threading.Lock()

    def decision(self, decision_id: str) -> Mapping[str, Any]:
        """Return a decision with what came of it. Raises GatewayError."""
        return self._look("decision", id=decision_id)

    def decisions(self, figure: Mapping[str, Any], as_of: str | None) -> Mapping[str, Any]:
        """Return the decisions behind a figure, as known at a time. Raises GatewayError."""
        if self._lake is None:
            raise LakeError(
                "is not there", subject="the lake", hint="gateway sidecar --lake DIR fills one."
            )
        return self._look("decisions", figure=dict(figure), as_of=as_of)

    def traces(self, kind: str, last: str, product: str) -> Mapping[str, Any]:
        """Return calls of the last while, and how many there are. Raises GatewayError."""
        return self._look("traces", kind=kind, last=last, product=product, limit=MOST)

    def _look(self, what: str, **asked: Any) -> Mapping[str, Any]:
        place = {"lake": self._lake, "journal": str(self._journal)}
        if not self._turn.acquire(timeout=self._limit_s):
            raise GatewayError(
                "somebody else is looking something up", hint="Reload this page in a minute."
            )
        try:
            said = self._said(json.dumps({"what": what, **place, **asked}))
        finally:
            self._turn.release()
        if "error" in said:
            error = said["error"]
            raise _KINDS.get(error["kind"], GatewayError)(error["what"], hint=error["hint"])
        found: Mapping[str, Any] = said["answer"]
        return found

    def _said(self, asked: str) -> Mapping[str, Any]:
        """Run the process to its end. Raises GatewayError: it failed, or took too long.

        What it complains of may hold what stands in the lake, and goes nowhere.
        """
        with subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            process_group=0,
        ) as child:
            assert child.stdin is not None
            try:
                # Its stdin stays open: when it ends, so does the process.
                child.stdin.write(f"{asked}\n".encode())
                child.stdin.flush()
                said = _until_it_ends(child, self._limit_s)
            except subprocess.TimeoutExpired:
                raise GatewayError(
                    f"it took longer than {self._limit_s:g} s",
                    hint="Ask for fewer days, or in a terminal, where there is no limit: "
                    "gateway decisions, gateway trace.",
                ) from None
            except BrokenPipeError:
                said = b""
            finally:
                child.kill()
        try:
            found: Mapping[str, Any] = json.loads(said)
        except ValueError:
            raise GatewayError(
                "its process failed", hint="In a terminal it says why: gateway decisions."
            ) from None
        return found


def _until_it_ends(child: subprocess.Popen[bytes], limit_s: float) -> bytes:
    """Return what a process says. Raises TimeoutExpired."""
    said: list[bytes] = []
    stdout = child.stdout
    assert stdout is not None
    reader = threading.Thread(target=lambda: said.append(stdout.read()), daemon=True)
    reader.start()
    reader.join(limit_s)
    if reader.is_alive():
        child.kill()
        reader.join()
        raise subprocess.TimeoutExpired(child.args, limit_s)
    return said[0]
