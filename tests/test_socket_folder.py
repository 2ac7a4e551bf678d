"""What a front keeps in a folder of its own is gone when its process is, however that ended."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from gateway.serve.fronts.socket_folder import clear_away

LISTENS = """
import signal, socket
from gateway.serve.fronts.socket_folder import SOCKET, socket_folder
folder, listener = socket_folder(), socket.socket(socket.AF_UNIX)
listener.bind(f"{folder.name}/{SOCKET}")
print(folder.name, flush=True)
signal.pause()
"""


@pytest.mark.parametrize("is_long", [False, True])
def test_what_a_killed_process_left_is_cleared_away_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, is_long: bool
) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as top:
        usual = Path(top) / ("d" * (150 if is_long else 1))
        usual.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(usual))
        both = [
            subprocess.Popen(
                [sys.executable, "-c", LISTENS],
                env={**os.environ, "TMPDIR": str(usual)},
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(2)
        ]
        killed, lives = both
        try:
            left, kept = (Path(one.stdout.readline().strip()) for one in both if one.stdout)
            assert left.parent == kept.parent == (Path("/tmp") if is_long else usual)
            killed.kill()
            killed.wait()
            assert list(left.iterdir()) != []
            clear_away(killed.pid)
            assert not left.exists()
            assert list(kept.iterdir()) != []
        finally:
            for one in both:
                one.kill()
                one.communicate()
            clear_away(lives.pid)
