"""The server as a process of its own: its clock as a caller sees it, and its death."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import catalogue
import grpc
import pytest

from gateway.journal import Decision, Mode, Record, Writer, decision_id, read, segments, verify
from gateway.model import load_generation
from gateway.v1.decision_pb2_grpc import DecisionServiceStub

KILLS = 5
CALLERS = 4


@contextmanager
def server(folder: Path, journal: Path, *more: str) -> Iterator[tuple[Callable[[], None], str]]:
    """Give what kills the supervisor and its worker at one blow, and their address."""
    command = [sys.executable, "-m", "gateway", "serve", str(folder), "--json"]
    command += ["--listen", "127.0.0.1:0", "--journal", str(journal), *more]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    try:
        started = json.loads(process.stdout.readline())
        worker = os.pidfd_open(started["workers"][0]["pid"])

        def kill() -> None:
            process.kill()
            signal.pidfd_send_signal(worker, signal.SIGKILL)
            select.select([worker], [], [], 20)

        yield kill, started["address"]
        os.close(worker)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def recorded(journal: Path) -> dict[str, int]:
    return {
        decision_id(segment.name.boot_id, segment.name.worker, item.sequence): item.entry.action
        for segment in segments(journal)
        for item in read(segment)
        if isinstance(item, Record) and isinstance(item.entry, Decision)
    }


@pytest.mark.alone
@pytest.mark.parametrize("front", ["native", "grpcio"])
def test_no_answer_claims_to_have_taken_longer_than_its_caller_waited(
    tmp_path: Path, front: str
) -> None:
    """A call that a reply caused cannot have waited for that reply's turn.

    A server that is descheduled between a reply and its next look may still err, and on a busy
    machine one in four did: the usual call may not.
    """
    folder = catalogue.write_folder(tmp_path / "product")
    fingerprint = load_generation(folder).schema.fingerprint
    with (
        server(folder, tmp_path / "journal", "--front", front) as (_, address),
        grpc.insecure_channel(address) as channel,
    ):
        decide = DecisionServiceStub(channel).Decide
        longer = 0
        for _ in range(400):
            sent_ns = time.monotonic_ns()
            answer = decide(catalogue.request(fingerprint), timeout=10)
            longer += answer.elapsed_us > (time.monotonic_ns() - sent_ns) / 1000
    assert longer < 200


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_every_decision_that_a_client_received_survives_kills(tmp_path: Path) -> None:
    """The oracle is the client's own list; each kill comes at another moment of the load."""
    folder = catalogue.write_folder(tmp_path / "product")
    fingerprint = load_generation(folder).schema.fingerprint
    journal = tmp_path / "journal"
    told: dict[str, int] = {}
    for kill in range(KILLS):
        with server(folder, journal, "--workers", "1") as (kill_all, address):
            enough = threading.Event()
            wanted = 20 + 74 * kill

            def call(
                address: str = address,
                enough: threading.Event = enough,
                wanted: int = len(told) + wanted,
            ) -> None:
                with grpc.insecure_channel(address) as channel:
                    decide = DecisionServiceStub(channel).Decide
                    try:
                        while True:
                            answer = decide(catalogue.request(fingerprint), timeout=10)
                            told[answer.decision_id] = answer.action
                            if len(told) >= wanted:
                                enough.set()
                    except grpc.RpcError:
                        return

            callers = [threading.Thread(target=call) for _ in range(CALLERS)]
            for caller in callers:
                caller.start()
            assert enough.wait(60)
            kill_all()
            for caller in callers:
                caller.join()
    there = recorded(journal)
    assert {key: there.get(key) for key in told} == told
    assert verify(journal).ok
    with Writer.open(journal, worker=0, boot_id=bytes(16), mode=Mode.PROCESS) as writer:
        writer.append([])
    assert verify(journal).ok
    assert len(told) > 20 * KILLS
