"""A worker that stands still, and a wall clock that jumps: what its callers and its journal see."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import catalogue
import grpc
import pytest
from conftest import stand_still

from gateway.journal import Decision, Pause, Record, read, segments, verify
from gateway.v1 import decision_pb2 as pb
from gateway.v1.decision_pb2_grpc import DecisionServiceStub

MS = 1_000_000
BEHIND_NS = 5 * MS
"""What comes so soon behind a pause may have waited in a socket, and is dated to its start."""
FAKETIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))


@contextmanager
def server(
    folder: Path, journal: Path, front: str, **environment: str
) -> Iterator[tuple[str, int]]:
    """Serve with one worker; give its address and process id."""
    command = [sys.executable, "-m", "gateway", "serve", str(folder), "--json", "--workers", "1"]
    command += ["--listen", "127.0.0.1:0", "--journal", str(journal), "--front", front]
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            env={**os.environ, **environment},
        ) as process,
    ):
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            said.seek(0)
            assert line, said.read()
            started = json.loads(line)
            yield started["address"], started["workers"][0]["pid"]
        finally:
            process.terminate()
            process.wait(60)


def entries(journal: Path) -> list[Any]:
    found = [item for segment in segments(journal) for item in read(segment)]
    return [item.entry for item in found if isinstance(item, Record)]


def wall_s(environment: dict[str, str]) -> float:
    """Return what a process with such an environment takes the time to be."""
    code = [sys.executable, "-c", "import time; print(time.time())"]
    said = subprocess.run(
        code, env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    return float(said.stdout)


@pytest.mark.alone
def test_a_worker_that_stood_still_dates_what_waited_to_the_pause_and_records_it(
    tmp_path: Path,
) -> None:
    """SIGSTOP for 200 ms: no model answer pretends that it was in time."""
    folder = catalogue.write_folder(tmp_path / "product", latency__budget_ms=100)
    with (
        server(folder, tmp_path / "journal", "native") as (address, pid),
        grpc.insecure_channel(address) as channel,
    ):
        stub = DecisionServiceStub(channel)
        while stub.Decide(catalogue.request(), timeout=10).stand_in != pb.NONE:
            pass  # it serves, in time, before it stands still
        stand_still(pid)
        stopped_ns = time.monotonic_ns()
        waiting = [
            stub.Decide.future(catalogue.request(transaction_id=f"w-{i}"), timeout=10)
            for i in range(20)
        ]
        brief = stub.Decide.future(catalogue.request(transaction_id="brief"), timeout=0.1)
        assert brief.exception().code() is grpc.StatusCode.DEADLINE_EXCEEDED
        time.sleep(max(0.0, 0.2 - (time.monotonic_ns() - stopped_ns) / 1e9))
        continued_ns = time.monotonic_ns()
        os.kill(pid, signal.SIGCONT)
        answers = [future.result() for future in waiting]
        assert stub.Decide(catalogue.request(transaction_id="after"), timeout=10).recorded
    told = entries(tmp_path / "journal")
    (end_ns,) = (
        one.start_ns + one.duration_ns
        for one in told
        if isinstance(one, Pause)
        and one.start_ns <= stopped_ns + 10 * MS
        and one.start_ns + one.duration_ns >= continued_ns
    )
    waited = {}
    for one in told:
        if isinstance(one, Decision) and b"w-" in one.request:
            # A busy machine may read some of them later than that: those came visibly later.
            if one.arrival_ns <= stopped_ns + 10 * MS:
                waited[pb.DecideResponse.FromString(one.response).decision_id] = one
            else:
                assert one.arrival_ns >= end_ns + BEHIND_NS
    assert waited
    for answer in answers:
        if answer.decision_id in waited:
            assert answer.stand_in == pb.DEADLINE
            assert answer.elapsed_us >= 150_000
            assert waited[answer.decision_id].batch_size == 0, "it was not computed"
    assert verify(tmp_path / "journal").ok


@pytest.mark.skipif(not FAKETIME, reason="needs Debian's faketime")
@pytest.mark.parametrize("front", ["native", "grpcio"])
@pytest.mark.parametrize("step", ["+3600", "-3600"])
def test_a_wall_clock_that_jumps_by_an_hour_changes_nothing(
    tmp_path: Path, front: str, step: str
) -> None:
    folder = catalogue.write_folder(tmp_path / "product", latency__budget_ms=20_000)
    offset = tmp_path / "offset"
    offset.write_text("+0")
    faked = {
        "LD_PRELOAD": str(FAKETIME[0]),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_NO_CACHE": "1",
    }
    answers: list[pb.DecideResponse] = []
    begun_ns = time.monotonic_ns()
    with (
        server(folder, tmp_path / "journal", front, **faked) as (address, _),
        grpc.insecure_channel(address) as channel,
    ):
        stub = DecisionServiceStub(channel)
        for i in range(300):
            if i == 100:
                (tmp_path / "next").write_text(step)
                (tmp_path / "next").replace(offset)
                assert wall_s(faked) == pytest.approx(time.time() + float(step), abs=60)
            asked = catalogue.request(transaction_id=f"t-{i}")
            answers.append(stub.Decide(asked, timeout=60))
    assert len({(one.action, one.probability, one.stand_in) for one in answers}) == 1
    assert answers[0].stand_in == pb.NONE
    decisions = [one for one in entries(tmp_path / "journal") if isinstance(one, Decision)]
    assert len(decisions) == 300
    # In no order: what comes behind a pause is dated to its start, as early as the call before.
    assert all(begun_ns <= one.arrival_ns <= time.monotonic_ns() for one in decisions)
    assert {one.deadline_ns - one.arrival_ns for one in decisions} == {20_000 * MS}
    assert verify(tmp_path / "journal").ok
