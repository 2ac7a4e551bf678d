"""What the page looks up runs in a process of its own: bounded, one at a time, and it says no more
than its answer."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path

import evaluated_lake as world
import pytest
from conftest import WAIT_S

from gateway.cli.looking import Looking
from gateway.errors import GatewayError, LakeError, UsageError

ID = "0123456789abcdef-07-00000000002a"
GROUP = "group-canary"


def looking(tmp_path: Path, code: str, limit_s: float = WAIT_S) -> Looking:
    return Looking(tmp_path, "lake", limit_s=limit_s, command=[sys.executable, "-c", code])


def test_one_that_hangs_is_killed_with_a_good_message(tmp_path: Path) -> None:
    code = (
        f"import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(1000)"
    )
    with pytest.raises(GatewayError, match=r"longer than 1\.5 s") as caught:
        looking(tmp_path, code, 1.5).decision(ID)
    assert "fewer days" in caught.value.hint
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.parametrize(
    "code", ["1/0", "print('x')", "import os; os.kill(os.getpid(), 9)", "import os; os.close(0)"]
)
def test_one_that_fails_says_so_and_not_what_it_says(tmp_path: Path, code: str) -> None:
    with pytest.raises(GatewayError, match="its process failed") as caught:
        looking(tmp_path, code).decision(ID)
    assert "ZeroDivision" not in str(caught.value)


def test_what_is_asked_for_stands_on_stdin_and_not_among_arguments(tmp_path: Path) -> None:
    code = (
        "import json, sys; asked = json.loads(sys.stdin.readline())\n"
        "line = open('/proc/self/cmdline').read()\n"
        "print(json.dumps({'answer': {'asked': asked, 'line': line}}))"
    )
    found = looking(tmp_path, code).decisions({"by": {"age_band": GROUP}}, None)
    assert found["asked"]["figure"] == {"by": {"age_band": GROUP}}
    assert GROUP not in found["line"]


def test_one_is_looked_up_at_a_time(tmp_path: Path) -> None:
    """The second waits for its turn, and where that does not come it says so."""
    (tmp_path / "fifo").unlink(missing_ok=True)
    os.mkfifo(tmp_path / "fifo")
    code = (
        f"import json, sys; sys.stdin.readline(); open({str(tmp_path / 'begun')!r}, 'w').close()\n"
        f"open({str(tmp_path / 'fifo')!r}).read(); print(json.dumps({{'answer': {{}}}}))"
    )
    one = looking(tmp_path, code)
    first = threading.Thread(target=lambda: one.decision(ID))
    first.start()
    until_s = time.monotonic() + WAIT_S
    while not (tmp_path / "begun").exists():
        assert time.monotonic() < until_s
        time.sleep(0.01)
    one._limit_s = 0.2
    with pytest.raises(GatewayError, match="somebody else"):
        one.decision(ID)
    (tmp_path / "fifo").write_text("go on")
    first.join(WAIT_S)
    assert not first.is_alive()


def test_real_ones_answer_and_their_errors_keep_their_kind(tmp_path: Path) -> None:
    world.fill(tmp_path / "lake")
    one = Looking(tmp_path / "journal", str(tmp_path / "lake"), limit_s=WAIT_S)
    figure = {"product": "cnp", "metric": "approval_rate", "from": "2026-01-01", "to": "2100-01-01"}
    found = one.decisions(figure, None)
    assert found["count"] == 600
    assert json.loads(json.dumps(found)) == found
    with pytest.raises(UsageError, match="no product"):
        one.decisions({**figure, "product": "nix"}, None)
    with pytest.raises(LakeError, match="is not there"):
        one.decision(ID)
    with pytest.raises(LakeError, match="is not there"):
        Looking(tmp_path, None).decisions(figure, None)
