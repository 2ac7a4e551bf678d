"""A process beside the workers: how it begins, dies, is started again and ends."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from test_supervisor import gone, wait_until

from gateway.errors import ExitCode, GatewayError, ListenError
from gateway.serve.crew import companion as module
from gateway.serve.crew.backoff import LOOPING
from gateway.serve.crew.companion import Companion
from gateway.serve.crew.control import error_row

READY = "print(json.dumps({'metrics': sys.argv[1]}), flush=True)\n"
UNTIL_STDIN_ENDS = "sys.stdin.read()\n"
FOR_EVER = "while True: time.sleep(60)\n"


def of(code: str, *arguments: str) -> Companion:
    """Return a companion that runs some Python."""
    command = [sys.executable, "-c", "import json, os, signal, sys, time\n" + code, *arguments]
    return Companion("sidecar", lambda told: command)


def begun(one: Companion) -> None:
    asyncio.run(one.begin())


# Beginning


def test_what_it_says_it_cannot_be_is_the_error_that_it_was() -> None:
    error = ListenError("cannot be listened on", subject="--http x", hint="Another port.")
    row = json.dumps({"error": error_row(error)})
    with pytest.raises(ListenError) as raised:
        begun(of(f"print({row!r}); sys.exit(5)"))
    assert (str(raised.value), raised.value.hint) == (str(error), error.hint)
    assert raised.value.exit_code is ExitCode.CANNOT_LISTEN


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("sys.exit(3)", "exit code 3"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "killed by SIGKILL"),
        ("print('warning: something', flush=True)\n" + FOR_EVER, "it said what nobody asked"),
        ("print('{}', flush=True)\n" + FOR_EVER, "it said what nobody asked"),
        ("print('[1]', flush=True)\n" + FOR_EVER, "it said what nobody asked"),
    ],
)
def test_one_that_says_nothing_of_use_has_died(code: str, says: str) -> None:
    one = of(code)
    with pytest.raises(GatewayError, match="died while it started") as raised:
        begun(one)
    assert says in str(raised.value)
    assert gone(one.pid)


def test_one_that_never_says_anything_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEGIN_S_MAX", 0.2)
    one = of(FOR_EVER)

    async def work() -> None:
        with pytest.raises(GatewayError, match="was not ready within"):
            await one.begin()
        await one.end()

    asyncio.run(work())
    assert gone(one.pid)


def test_what_cannot_be_started_is_said() -> None:
    with pytest.raises(GatewayError, match="cannot be started: No such file"):
        begun(Companion("sidecar", lambda told: ["/nowhere/python"]))


# Dying


def test_it_is_started_again_with_what_it_told_and_said_once_in_a_while(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that dies each time: later each time, and not a line each time."""
    caplog.set_level(logging.WARNING)
    log, heard, asked_s = tmp_path / "log", [], []
    code = f"open({str(log)!r}, 'a').write(f'{{os.nice(0)}}\\n')\n" + READY
    code += "if sys.argv[1] == 'port-1': sys.stdin.read()\n"  # its death is not to be missed

    def command(told: Mapping[str, Any] | None) -> Sequence[str]:
        heard.append(told)
        asked_s.append(time.monotonic())
        return [sys.executable, "-c", "import json, os, sys, time\n" + code, f"port-{len(heard)}"]

    one = Companion("sidecar", command)

    async def work() -> None:
        stopping = asyncio.Event()
        await one.begin()
        keeping = asyncio.create_task(one.keep(stopping))
        await asyncio.sleep(0)
        one.kill()
        while len(heard) < 6:
            await asyncio.sleep(0.01)
        stopping.set()
        await keeping
        await one.end()

    asyncio.run(work())
    assert heard[:3] == [None, {"metrics": "port-1"}, {"metrics": "port-2"}]
    waits = [after - before for before, after in pairwise(asked_s[1:])]
    # 0, 0.1, 0.2, 0.4, 0.8 and what a start and an end take.
    assert all(wait >= 0.1 * 2**i for i, wait in enumerate(waits[:4])), waits
    niced = set(log.read_text().splitlines()[1:])
    assert niced == {str(min(19, os.nice(0) + 19))}, "from its first import on"
    said = [one.getMessage() for one in caplog.records]
    assert len(said) == 2, said
    assert "again at once. Decisions go on" in said[0]
    assert f"{LOOPING} times in a row" in said[1]


def test_a_stop_ends_the_wait_for_another_try(tmp_path: Path) -> None:
    one = of(READY + "sys.exit(1)", "x")

    async def work() -> float:
        stopping = asyncio.Event()
        await one.begin()
        one._backoff.deaths = 8  # the wait is ten seconds from here on
        keeping = asyncio.create_task(one.keep(stopping))
        while one._backoff.deaths == 8:
            await asyncio.sleep(0.01)
        begun_s = time.monotonic()
        stopping.set()
        await keeping
        await one.end()
        return time.monotonic() - begun_s

    assert asyncio.run(work()) < 5.0


# Ending


@pytest.mark.parametrize(
    ("code", "how"),
    [
        (READY + UNTIL_STDIN_ENDS + "sys.exit(0)", 0),
        (READY + FOR_EVER, -signal.SIGTERM),
        ("signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + READY + FOR_EVER, -signal.SIGKILL),
    ],
    ids=["it finishes", "it is told to stop", "it is killed"],
)
def test_it_has_time_to_finish_and_not_for_ever(
    code: str, how: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = of(code, "x")
    # So long for what it does not do; for what it does, as long as a busy machine takes.
    monkeypatch.setattr(module, "FINISH_S_MAX", 0.2 if how else 60.0)
    monkeypatch.setattr(module, "STOP_S_MAX", 0.2 if how == -signal.SIGKILL else 60.0)

    async def work() -> int | None:
        await one.begin()
        await one.end()
        assert one._process is not None
        return one._process.returncode

    assert asyncio.run(work()) == how


def test_one_that_was_killed_while_it_finishes_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a second Ctrl-C does."""
    monkeypatch.setattr(module, "FINISH_S_MAX", 60.0)
    one = of(READY + FOR_EVER, "x")

    async def work() -> float:
        await one.begin()
        begun_s = time.monotonic()
        ending = asyncio.create_task(one.end())
        await asyncio.sleep(0)
        one.kill()
        await ending
        return time.monotonic() - begun_s

    assert asyncio.run(work()) < module.FINISH_S_MAX / 2


def test_the_end_of_whoever_started_it_is_the_end_of_its_stdin(tmp_path: Path) -> None:
    """However that ended: nothing needs to be told."""
    told = tmp_path / "pid"
    child = READY + UNTIL_STDIN_ENDS
    parent = (
        "import asyncio, os, pathlib, signal, sys\n"
        "from gateway.serve.crew.companion import Companion\n"
        f"command = [sys.executable, '-c', {'import json, sys' + chr(10) + child!r}, 'x']\n"
        "one = Companion('sidecar', lambda told: command)\n"
        "asyncio.run(one.begin())\n"
        f"pathlib.Path({str(told)!r}).write_text(str(one.pid))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    code = os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", parent])
    assert code == -signal.SIGKILL
    pid = int(told.read_text())
    wait_until(lambda: gone(pid))
