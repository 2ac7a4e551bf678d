"""The folder of a process's private socket: made by it, cleared away by who outlives it."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

SOCKET = "fallback.sock"

SOCKET_PATH_MAX = 107
"""Bytes of a Unix socket's path, on Linux."""

_SHORT = Path("/tmp")


def socket_folder() -> tempfile.TemporaryDirectory[str]:
    """Return a new folder for `SOCKET`; TMPDIR may be too long for one."""
    usual, prefix = Path(tempfile.gettempdir()), _prefix(os.getpid())
    room = SOCKET_PATH_MAX - len(prefix) - len(f"12345678/{SOCKET}")
    place = usual if len(str(usual)) < room else _SHORT
    return tempfile.TemporaryDirectory(prefix=prefix, dir=place)


def clear_away(pid: int) -> None:
    """Remove what a killed process could not. It must have ended, and have had our TMPDIR."""
    for place in {Path(tempfile.gettempdir()), _SHORT}:
        for left in place.glob(f"{_prefix(pid)}*"):
            shutil.rmtree(left, ignore_errors=True)


def _prefix(pid: int) -> str:
    return f"gateway-{pid}-"
