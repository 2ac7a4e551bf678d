"""Evaluates a lake again and again, each time in a process of its own, beside the sidecar."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

log = logging.getLogger(__name__)


class Evaluating:
    """A thread that runs `gateway evaluate --json` every so often. A context manager.

    What an evaluation takes of memory goes with its process; it is niced, as decisions come first.
    One that fails is said, and the last one stands.
    """

    def __init__(
        self, lake: str, every_s: float, take: Callable[[Mapping[str, Any]], None]
    ) -> None:
        self._command = [sys.executable, "-m", "gateway", "evaluate", "--lake", lake, "--json"]
        self._every_s = every_s
        self._take = take
        self._ends = threading.Event()
        self._child: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._work, name="evaluate", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ends.set()
        child = self._child
        if child is not None:
            child.kill()
        self._thread.join()

    def _work(self) -> None:
        while not self._ends.is_set():
            self._evaluate()
            self._ends.wait(self._every_s)

    def _evaluate(self) -> None:
        with subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=_last_in_line,
        ) as child:
            self._child = child
            said, why = child.communicate()
        self._child = None
        if self._ends.is_set():
            return
        if child.returncode:
            log.warning("the lake was not evaluated: %s", why.strip().replace("\n", " ")[:300])
            return
        self._take(json.loads(said))


def _last_in_line() -> None:
    os.nice(19)
