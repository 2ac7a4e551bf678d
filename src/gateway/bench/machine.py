"""The machine: which core does what, and what the figures were measured on."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Cores:
    """Where the server and the generator run; on one core they share it."""

    server: frozenset[int]
    generator: int

    @property
    def every(self) -> tuple[int, ...]:
        """Return all of them, in order."""
        return tuple(sorted(self.server | {self.generator}))

    @property
    def shared(self) -> bool:
        """Whether the generator takes from the server what it measures."""
        return self.generator in self.server


def cores(workers: int = 1) -> Cores:
    """Give the generator the last core, and the server the first; or all others to workers."""
    allowed = sorted(os.sched_getaffinity(0))
    others = allowed[:-1] or allowed
    return Cores(frozenset(others if workers > 1 else others[:1]), allowed[-1])


def machine() -> dict[str, str | int]:
    """Name the machine and what runs on it."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count() or 1,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "onnxruntime": version("onnxruntime"),
    }


def _cpu() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@contextmanager
def in_the_background() -> Iterator[None]:
    """Let this process run only where a core is idle: it draws bars while others measure.

    Its children are not touched.
    """
    reset = os.SCHED_RESET_ON_FORK
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_IDLE | reset, os.sched_param(0))
    try:
        yield
    finally:
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def resident_bytes(pids: Iterable[int]) -> int | None:
    """Return the memory that these processes hold, all together; None if one has ended.

    Read from `statm`, which does not stop them to count.
    """
    try:
        pages = (int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) for pid in pids)
        return sum(pages) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return None
