"""Many workers on one address: their deaths, their replacement, their end, and what is shown."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import callers
import catalogue
import grpc
import pytest
from callers import Told
from conftest import WAIT_S, stand_still
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gateway.cli.main import run
from gateway.errors import (
    ExitCode,
    JournalError,
    ListenError,
    ModelError,
    ProductError,
    UsageError,
    Violation,
)
from gateway.journal import (
    Decision,
    Mode,
    Record,
    Rejected,
    Reply,
    decision_id,
    join_replied,
    read,
    segments,
    verify,
)
from gateway.model import load_generation
from gateway.serve import Settings, Tls, supervisor
from gateway.serve.crew.backoff import LONGEST_S, SOUND_S, Backoff
from gateway.serve.crew.beat import BEAT_NS, Beat
from gateway.serve.crew.board import Board, Gateway, State, Worker, joined, seen, supervised
from gateway.serve.crew.control import (
    Load,
    Loaded,
    NotLoaded,
    Order,
    Ready,
    decode_answer,
    decode_message,
    encode_error,
    encode_rejected,
)
from gateway.serve.crew.port import claimed
from gateway.serve.crew.stop import Stop
from gateway.serve.crew.tally import Tally
from gateway.v1.decision_pb2 import DecideRequest
from gateway.v1.decision_pb2_grpc import DecisionServiceStub

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return catalogue.write_folder(tmp_path / "product")


@dataclass
class Running:
    """`gateway serve` as a process, and what it announced."""

    process: subprocess.Popen[str]
    address: str
    pids: dict[int, int]
    journal: Path
    announced: dict[str, Any]

    def workers(self) -> tuple[Worker, ...]:
        with seen(self.journal) as (board, _):
            return board.workers()

    def until(self, holds: Callable[[tuple[Worker, ...]], bool]) -> tuple[Worker, ...]:
        """Read the board until it shows what is waited for."""
        until_s = time.monotonic() + WAIT_S
        while not holds(workers := self.workers()):
            assert time.monotonic() < until_s, workers
            time.sleep(0.01)  # the board is memory: nobody tells of its changes
        return workers

    def until_all_serve(self, count: int, *, without: tuple[int, ...] = ()) -> tuple[Worker, ...]:
        def serve(workers: tuple[Worker, ...]) -> bool:
            now_ns = time.monotonic_ns()
            serving = [one for one in workers if one.serves(now_ns) and one.pid not in without]
            return len(serving) == len(workers) == count

        return self.until(serve)

    def ended(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(WAIT_S + 10)


@contextmanager
def serving(
    folder: Path, journal: Path, *more: str, listen: str = "127.0.0.1:0", log: Path | None = None
) -> Iterator[Running]:
    command = [sys.executable, "-m", "gateway", "serve", str(folder), "--json", *more]
    command += ["--listen", listen, "--journal", str(journal)]
    with ExitStack() as stack:
        stderr = subprocess.DEVNULL if log is None else stack.enter_context(log.open("w"))
        process = stack.enter_context(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)
        )
        stack.callback(process.kill)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, log and log.read_text()
        told = json.loads(line)
        pids = {one["worker"]: one["pid"] for one in told["workers"]}
        yield Running(process, told["address"], pids, journal, told)


@pytest.fixture
def fingerprint(folder: Path) -> str:
    return load_generation(folder).schema.fingerprint


def gone(pid: int) -> bool:
    """Say whether a process that is nobody's zombie for long has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def children_of(pid: int) -> set[int]:
    return {int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def is_spare_loaded(gateway: Running) -> bool:
    """Say whether there is a third child, which has come to the last of its imports."""
    spares = children_of(gateway.process.pid) - {one.pid for one in gateway.workers()}
    return any("pygrpc_native" in Path(f"/proc/{pid}/maps").read_text() for pid in spares)


def is_pending(pid: int, number: signal.Signals) -> bool:
    """Say whether a signal waits for a process that stands still."""
    (pending,) = re.findall(r"ShdPnd:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    return bool(int(pending, 16) >> (number - 1) & 1)


def has_board(journal: Path) -> bool:
    try:
        with seen(journal):
            return True
    except JournalError:
        return False


def wait_until(holds: Callable[[], bool]) -> None:
    until_s = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < until_s
        time.sleep(0.01)


def recorded(journal: Path) -> dict[str, tuple[str, Reply]]:
    """Return each decision's transaction id and the fate of its reply, by decision id.

    A call that was tried again may have been decided twice.
    """
    records = (
        item for segment in segments(journal) for item in read(segment) if isinstance(item, Record)
    )
    decisions: dict[str, tuple[str, Reply]] = {}
    for one in join_replied(records):
        worker, boot_id = one.record.segment.boot
        if isinstance(entry := one.record.entry, Decision):
            transaction_id = DecideRequest.FromString(entry.request).transaction_id
            key = decision_id(boot_id, worker, one.record.sequence)
            decisions[key] = (transaction_id, one.reply)
    return decisions


# Deaths, replacement, restart


@contextmanager
def all_kinds(address: str, fingerprint: str, *, published: bool = True) -> Iterator[list[Told]]:
    """Ask through every implementation of gRPC, until the context is left."""
    with ExitStack() as stack:
        told = [
            stack.enter_context(callers.calling(kind, address, fingerprint, published=published))
            for kind in callers.KINDS
        ]
        for one in told:
            one.wait_for(50)
        yield told
        for one in told:
            one.wait_for(50)
        for one in told:
            one.stopped = True


@pytest.mark.slow
def test_no_death_replacement_or_restart_fails_a_call_with_the_published_configuration(
    folder: Path, fingerprint: str, tmp_path: Path
) -> None:
    """Through three implementations of gRPC, and no decision that they received is lost."""
    journal, more = tmp_path / "journal", ("--workers", "2")
    with ExitStack() as gateways:
        gateway = gateways.enter_context(serving(folder, journal, *more))
        # Who calls is asked to stop while somebody still answers.
        with all_kinds(gateway.address, fingerprint) as told:
            # kill -9: the other answers on, and the spare, which is loaded, takes its place.
            wait_until(lambda: is_spare_loaded(gateway))
            (spare,) = children_of(gateway.process.pid) - set(gateway.pids.values())
            os.kill(gateway.pids[1], signal.SIGKILL)
            for one in told:
                one.wait_for(5)
            workers = gateway.until_all_serve(2, without=(gateway.pids[1],))
            assert workers[1].pid == spare
            assert {one.number: one.restarts for one in workers} == {0: 0, 1: 1}
            assert workers[0].pid == gateway.pids[0]

            # A spare that is dead itself is none.
            wait_until(lambda: len(children_of(gateway.process.pid)) == 3)
            (spare,) = children_of(gateway.process.pid) - {one.pid for one in workers}
            os.kill(spare, signal.SIGKILL)
            os.kill(gateway.pids[0], signal.SIGKILL)
            before = [
                one.pid for one in gateway.until_all_serve(2, without=(gateway.pids[0], spare))
            ]

            # SIGHUP: new processes, and that is no restart after a death.
            gateway.process.send_signal(signal.SIGHUP)
            workers = gateway.until_all_serve(2, without=tuple(before))
            assert all(gone(pid) for pid in before)
            assert [one.restarts for one in workers] == [1, 1]

            # SIGTERM to all of it, and another one on the same port.
            assert gateway.ended() == ExitCode.OK
            again = gateways.enter_context(serving(folder, journal, *more, listen=gateway.address))
            assert again.address == gateway.address
    assert [one.failed for one in told] == [{}, {}, {}]
    wait_until(lambda: all(gone(pid) for pid in again.pids.values()))
    there = recorded(journal)
    for one in told:
        assert one.answers == {there[key][0]: key for key in one.answers.values()}
    assert verify(journal).ok


@pytest.mark.slow
def test_the_reference_front_is_replaced_without_a_failed_call(
    folder: Path, fingerprint: str, tmp_path: Path
) -> None:
    with (
        serving(folder, tmp_path / "journal", "--workers", "1", "--front", "grpcio") as gateway,
        all_kinds(gateway.address, fingerprint) as told,
    ):
        gateway.process.send_signal(signal.SIGHUP)
        gateway.until_all_serve(1, without=tuple(gateway.pids.values()))
    assert [one.failed for one in told] == [{}, {}, {}]


@pytest.mark.slow
def test_without_retries_no_call_fails_that_a_replaced_worker_had_received(
    folder: Path, fingerprint: str, tmp_path: Path
) -> None:
    """What the journal shows as answered has reached its caller."""
    journal = tmp_path / "journal"
    with serving(folder, journal, "--workers", "1") as gateway:
        with all_kinds(gateway.address, fingerprint, published=False) as told:
            gateway.process.send_signal(signal.SIGHUP)
            gateway.until_all_serve(1, without=tuple(gateway.pids.values()))
        assert gateway.ended() == ExitCode.OK
    answered = {key for one in told for key in one.answers}
    there = recorded(journal)
    left = {transaction for transaction, reply in there.values() if reply is Reply.LEFT}
    assert left - answered == set()
    assert {reply for _, reply in there.values()} <= {Reply.LEFT, Reply.FOUND_NOBODY}


@pytest.mark.slow
def test_what_cannot_start_backs_off_is_shown_and_harms_nobody_who_serves(
    folder: Path, fingerprint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a replacement it leaves the old one; after a death it is a crash loop, until repaired."""
    journal, log = tmp_path / "journal", tmp_path / "log"
    sound = (folder / "model.onnx").read_bytes()
    with serving(folder, journal, "--workers", "2", log=log) as gateway:
        (model,) = (journal / "generations").glob("*/*/model.onnx")
        model.chmod(0o600)
        model.write_bytes(sound + b"\0")
        gateway.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "worker 0 goes on" in log.read_text())
        workers = gateway.until_all_serve(2)
        assert {one.number: one.pid for one in workers} == gateway.pids
        assert "its replacement did not start" in log.read_text()

        os.kill(gateway.pids[0], signal.SIGKILL)
        with callers.calling("grpcio", gateway.address, fingerprint) as told:
            gateway.until(lambda workers: any(one.deaths >= 3 for one in workers))
            told.wait_for(50)
        wait_until(lambda: "worker 0 has died 3 times in a row" in log.read_text())
        assert told.failed == {}
        assert run(["status", "--journal", str(journal)]) == ExitCode.FAILED
        said = capsys.readouterr()
        assert "worker 0 dies again and again" in said.out
        assert "model.onnx" in said.out
        assert f"kill -HUP {gateway.process.pid}" in said.err
        lines = log.read_text().splitlines()
        delays = [line.rpartition("again in ")[2] for line in lines if "again in" in line]
        assert delays[:2] == ["0.1 s", "0.2 s"]
        (loop,) = [line for line in lines if "worker 0 has died 3 times in a row" in line]
        assert "Somebody altered a snapshot" in loop

        model.write_bytes(sound)
        gateway.process.send_signal(signal.SIGHUP)  # does not wait for the back-off
        gateway.until_all_serve(2, without=(gateway.pids[0],))
        model.write_bytes(b"")
        (worker, _) = gateway.workers()
        os.kill(worker.pid, signal.SIGKILL)
        gateway.until(lambda workers: workers[0].state is State.BACKING_OFF)
        assert gateway.ended() == ExitCode.OK


def test_workers_do_not_outlive_their_supervisor(
    folder: Path, fingerprint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = tmp_path / "journal"
    with serving(folder, journal, "--workers", "2") as gateway:
        with grpc.insecure_channel(gateway.address) as channel:
            asked = catalogue.request(fingerprint)
            DecisionServiceStub(channel).Decide(asked, timeout=WAIT_S, wait_for_ready=True)
        gateway.process.kill()
        gateway.process.wait()
        # Whoever is started in its place at once waits for them, and has the port and numbers.
        with serving(folder, journal, "--workers", "2", listen=gateway.address) as again:
            assert again.address == gateway.address
            assert all(gone(pid) for pid in gateway.pids.values())
            assert again.pids.keys() == {0, 1}
            assert again.ended() == ExitCode.OK
        assert run(["status", "--journal", str(journal)]) == ExitCode.FAILED
        assert "does not run any more" in capsys.readouterr().err
    report = verify(journal)
    assert report.ok
    assert [segment.sealed for segment in report.segments] == [True] * 4


# The end


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_worker_that_does_not_end_is_killed_in_time_or_at_a_second_ctrl_c(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    interrupted: bool,
) -> None:
    """One that stands still does not hear SIGTERM."""
    monkeypatch.setattr(supervisor, "END_S_MAX", 10 * WAIT_S if interrupted else 0.1)
    journal, pids = tmp_path / "journal", []

    def stop() -> None:
        wait_until(lambda: has_board(journal))
        with joined(journal) as board:
            wait_until(lambda: board.worker(0).state is State.SERVING)
            pids.append(board.worker(0).pid)
        stand_still(pids[0])
        os.kill(os.getpid(), signal.SIGINT)
        if interrupted:
            wait_until(lambda: is_pending(pids[0], signal.SIGTERM))
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=stop)
    thread.start()
    more = ["--listen", "127.0.0.1:0", "--journal", str(journal), "--workers", "1"]
    code = run(["serve", str(folder), *more])
    thread.join()
    assert gone(pids[0])
    said = capsys.readouterr().err
    if interrupted:
        assert code == ExitCode.INTERRUPTED
    else:
        assert code == ExitCode.FAILED
        assert "worker 0 did not drain: killed by SIGKILL" in said
        assert f"gateway journal verify {journal}" in said


def test_a_terminal_that_is_closed_ends_what_was_started_there(
    folder: Path, tmp_path: Path
) -> None:
    """SIGHUP from a terminal is no wish to replace the workers."""
    ours, theirs = os.openpty()
    command = ["setsid", "--ctty", sys.executable, "-m", "gateway", "serve", str(folder)]
    command += ["--listen", "127.0.0.1:0", "--journal", str(tmp_path / "journal")]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        said = b""
        while b"Next:" not in said:
            said += os.read(ours, 4096)
        workers = children_of(process.pid)
        os.close(ours)
        process.wait(WAIT_S)
    assert workers
    assert all(gone(pid) for pid in workers)


# Where they listen


@pytest.fixture
def complaint(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def said(code: ExitCode, *arguments: object) -> str:
        assert run([str(argument) for argument in arguments]) == code
        captured = capsys.readouterr()
        assert captured.out == ""
        error, hint = captured.err.splitlines()
        assert error.startswith("Error: ")
        assert hint.startswith("Try: ")
        return captured.err

    return said


@pytest.mark.parametrize("count", ["0", "-1", "256", "300"])
def test_a_number_of_workers_that_cannot_be(
    complaint: Callable[..., str], folder: Path, count: str
) -> None:
    assert f"{count} is no number of workers" in complaint(
        ExitCode.USAGE, "serve", folder, f"--workers={count}"
    )


def test_a_unix_socket_has_one_worker(complaint: Callable[..., str], folder: Path) -> None:
    said = complaint(ExitCode.USAGE, "serve", folder, "--workers=2", "--listen=unix:/tmp/x")
    assert "--workers 1" in said


def test_the_journals_limit_is_for_all_workers_and_a_replacement(
    complaint: Callable[..., str], folder: Path, tmp_path: Path
) -> None:
    more = ["--workers=3", "--journal-max-bytes=255K", "--journal", tmp_path / "j"]
    said = complaint(ExitCode.JOURNAL, "serve", folder, *more)
    assert "3 workers and a replacement" in said
    assert f"{256 << 10} or more" in said


def test_a_port_in_use_is_refused_whoever_uses_it(
    complaint: Callable[..., str], folder: Path, tmp_path: Path
) -> None:
    """Also another server of this user that shares its port, as a gateway's workers do."""
    more = ["--journal", tmp_path / "j", "--listen"]
    for options in ((), (socket.SO_REUSEPORT,)):
        with socket.socket() as other:
            for option in options:
                other.setsockopt(socket.SOL_SOCKET, option, 1)
            other.bind(("127.0.0.1", 0))
            other.listen()
            address = f"127.0.0.1:{other.getsockname()[1]}"
            said = complaint(ExitCode.CANNOT_LISTEN, "serve", folder, *more, address)
            assert f"{address}: the port is in use" in said


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "[::1]:0", "localhost:0"])
def test_a_claimed_port_is_shared_by_workers_and_refused_to_a_second_gateway(listen: str) -> None:
    with claimed(listen) as claim:
        host, _, port = claim.address.rpartition(":")
        assert host == listen.rpartition(":")[0]
        assert int(port) > 0
        with pytest.raises(ListenError, match="in use"), claimed(claim.address):
            pass
        family = socket.AF_INET6 if host == "[::1]" else socket.AF_INET
        place = (host.strip("[]"), int(port))
        for _ in range(2):
            with socket.socket(family) as worker:
                for option in (socket.SO_REUSEPORT, socket.SO_REUSEADDR):
                    worker.setsockopt(socket.SOL_SOCKET, option, 1)
                worker.bind(place)
                worker.listen()
                with socket.create_connection(place, WAIT_S):
                    worker.accept()[0].close()
    # What is left of the connections does not keep the next gateway out.
    with claimed(claim.address):
        pass


@pytest.mark.parametrize("front", ["native", "grpcio"])
def test_a_unix_socket_survives_kill_9_replacement_and_a_stranger(
    folder: Path, fingerprint: str, tmp_path: Path, front: str, complaint: Callable[..., str]
) -> None:
    path = tmp_path / "s"
    listen, more = f"unix:{path}", ("--front", front)
    with serving(folder, tmp_path / "j", *more, listen=listen) as gateway:
        assert gateway.address == listen

        def decide() -> None:
            with grpc.insecure_channel(listen, callers.options(published=True)) as channel:
                DecisionServiceStub(channel).Decide(catalogue.request(fingerprint), timeout=WAIT_S)

        decide()
        os.kill(gateway.pids[0], signal.SIGKILL)
        decide()
        (again,) = gateway.until_all_serve(1, without=(gateway.pids[0],))
        gateway.process.send_signal(signal.SIGHUP)
        gateway.until_all_serve(1, without=(again.pid,))
        decide()
        second = ["serve", folder, "--journal", tmp_path / "j2", "--listen", listen]
        assert "the socket is in use" in complaint(ExitCode.CANNOT_LISTEN, *second)
        decide()
        assert gateway.ended() == ExitCode.OK
        assert list(tmp_path.glob("s*")) == []


def test_a_file_that_is_no_socket_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("kept")
    with pytest.raises(ListenError, match="no socket"), claimed(f"unix:{path}"):
        pass
    assert path.read_text() == "kept"


# What is shown


def test_two_workers_share_the_calls_and_status_counts_each_once(
    folder: Path, fingerprint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Connections are spread by the kernel: of 8 new ones at a time, all go one way once in 128."""
    journal, sent, channels = tmp_path / "journal", 0, []
    with serving(folder, journal, "--workers", "2", "--affinity") as gateway:
        both: tuple[Worker, ...] = ()
        while sent < 160 and not (both and all(one.calls for one in both)):
            for _ in range(8):
                channel = grpc.insecure_channel(gateway.address, callers.options(published=True))
                channels.append(channel)
                DecisionServiceStub(channel).Decide(catalogue.request(fingerprint), timeout=WAIT_S)
                sent += 1
            both = gateway.until(lambda workers, sent=sent: sum(w.calls for w in workers) == sent)
        assert run(["status", "--journal", str(journal), "--json"]) == ExitCode.OK
        shown = json.loads(capsys.readouterr().out)
        assert run(["status", "--journal", str(journal)]) == ExitCode.OK
        table = capsys.readouterr()
        cores = [os.sched_getaffinity(pid) for pid in gateway.pids.values()]
        for channel in channels:
            channel.close()
        assert gateway.ended() == ExitCode.OK
    workers = shown["workers"]
    assert shown["address"] == gateway.address
    assert {one["worker"]: one["pid"] for one in workers} == gateway.pids
    assert all(one["state"] == "serving" and one["calls"] > 0 for one in workers)
    assert sum(one["calls"] for one in workers) == sent
    assert sum(one["share"] for one in workers) == pytest.approx(1.0)
    assert sum(one["connections"] for one in workers) == sent
    assert "worst pause" in table.out
    assert "Next: " in table.err
    assert all(len(one) == 1 for one in cores)
    if len(os.sched_getaffinity(0)) > 1:
        assert cores[0] != cores[1]


def test_health_tells_of_each_worker_and_of_one_that_stands_still(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever answers reads the board, so a stopped worker need not be asked."""
    journal = tmp_path / "journal"
    with serving(folder, journal, "--workers", "2") as gateway, ExitStack() as stack:
        stand_still(gateway.pids[1])
        stack.callback(os.kill, gateway.pids[1], signal.SIGCONT)
        check = answering(gateway.address, stack)

        def asked(name: str) -> Any:
            return check(health_pb2.HealthCheckRequest(service=name), timeout=WAIT_S).status

        wait_until(lambda: asked("worker/1") == NOT_SERVING)
        assert asked("worker/0") == asked("") == SERVING
        for name in ("worker/2", "worker/00", "worker/256", "worker/", "worker/0 "):
            with pytest.raises(grpc.RpcError) as raised:
                asked(name)
            assert raised.value.code() is grpc.StatusCode.NOT_FOUND
        assert run(["status", "--journal", str(journal)]) == ExitCode.FAILED
        said = capsys.readouterr()
        assert "not responding" in said.out
        assert f"kill -KILL {gateway.pids[1]}" in said.err


def answering(address: str, stack: ExitStack) -> Any:
    """Return Check on a connection to a worker that answers: the kernel may give others first."""
    while True:
        local = [("grpc.use_local_subchannel_pool", 1)]
        check = health_pb2_grpc.HealthStub(
            stack.enter_context(grpc.insecure_channel(address, local))
        ).Check
        try:
            check(health_pb2.HealthCheckRequest(), timeout=1)
        except grpc.RpcError:
            continue
        return check


def test_a_watched_worker_is_told_of_when_it_is_killed(folder: Path, tmp_path: Path) -> None:
    with (
        serving(folder, tmp_path / "journal", "--workers", "2") as gateway,
        ExitStack() as stack,
    ):
        # Of enough connections, one is to either worker.
        watches = []
        for _ in range(8):
            channel = stack.enter_context(
                grpc.insecure_channel(gateway.address, [("grpc.use_local_subchannel_pool", 1)])
            )
            watch = health_pb2_grpc.HealthStub(channel).Watch(
                health_pb2.HealthCheckRequest(service="worker/1"), timeout=WAIT_S
            )
            assert next(watch).status == SERVING
            watches.append(watch)
        os.kill(gateway.pids[1], signal.SIGKILL)
        told = []
        for watch in watches:
            try:
                told.append((next(watch).status, next(watch).status))
            except grpc.RpcError:
                continue  # it was the killed one's
        assert set(told) <= {(NOT_SERVING, SERVING), (SERVICE_UNKNOWN, NOT_SERVING)}


def test_status_says_what_it_cannot_show(complaint: Callable[..., str], tmp_path: Path) -> None:
    absent = ["status", "--journal", tmp_path / "absent"]
    assert "there is no such folder" in complaint(ExitCode.JOURNAL, *absent)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no gateway has run here" in complaint(ExitCode.JOURNAL, "status", "--journal", empty)
    (empty / "workers").write_bytes(b"something else")
    assert "is no board" in complaint(ExitCode.JOURNAL, "status", "--journal", empty)
    over = tmp_path / "over"
    over.mkdir()
    with supervised(over) as board:
        board.begin(Gateway(os.getpid(), 1, 1, "127.0.0.1:1"))
    said = complaint(ExitCode.FAILED, "status", "--journal", over)
    assert "does not run any more" in said


# The parts


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    with supervised(tmp_path) as made:
        made.begin(Gateway(7, 8, 2, "127.0.0.1:9"))
        yield made


def begin(board: Board, number: int, **changes: int) -> None:
    values: dict[str, Any] = {
        "why": "",
        "pid": 5,
        "wall_ns": 6,
        "now_ns": 7,
        "seat": number,
        "restarts": 0,
        "deaths": 0,
    }
    board.page(number).begin(**{**values, **changes})


def test_a_board_shows_every_reader_what_its_writers_wrote(board: Board, tmp_path: Path) -> None:
    begin(board, 255, seat=0, restarts=3, deaths=2)
    begin(board, 0, seat=1)
    tally = Tally()
    tally.answered, tally.stood_in, tally.refused, tally.shed = 1, 20, 300, 2**63
    tally.worst_pause_ns = 9
    with joined(tmp_path) as other:
        other.page(255).beat(11, tally)
        other.page(255).tell(State.SERVING, why="ünïcode " * 50)
    with seen(tmp_path) as (shown, is_supervised):
        assert is_supervised
        assert shown.gateway == Gateway(7, 8, 2, "127.0.0.1:9")
        last, first = shown.workers()
    assert (last.number, first.number) == (255, 0)
    assert (last.restarts, last.deaths, last.worst_pause_ns) == (3, 2, 9)
    assert last.calls == 321 + 2**63
    assert last.why.startswith("ünïcode ünïcode")
    assert last.serves(11)
    assert not last.serves(11 + 1_000_000_000)
    assert not first.serves(7)
    assert os.stat(tmp_path / "workers").st_mode & 0o777 == 0o600


def test_a_journal_has_one_supervisor(board: Board, tmp_path: Path) -> None:
    with (
        pytest.raises(Exception, match="another gateway writes this journal"),
        supervised(tmp_path),
    ):
        pass


def test_a_beat_copies_the_tally_every_50_ms_and_hears_that_the_supervisor_is_gone(
    board: Board,
) -> None:
    ours, theirs = socket.socketpair()
    stop, now_ns, tally = Stop(), [0], Tally()
    with theirs:
        beat = Beat(board.page(1), theirs, stop, clock_ns=lambda: now_ns[0])
        begin(board, 1)
        beat.serving()
        assert beat(tally)
        tally.answered = 5
        now_ns[0] = BEAT_NS - 1
        assert not beat(tally)
        assert board.worker(1).answered == 0
        now_ns[0] = BEAT_NS
        assert beat(tally)
        assert (board.worker(1).answered, board.worker(1).state) == (5, State.SERVING)
        assert not stop.asked
        ours.close()
        now_ns[0] = 2 * BEAT_NS
        beat(tally)
        assert stop.asked
        assert board.worker(1).state is State.DRAINING


def test_a_first_death_is_repaired_at_once_and_more_back_off_to_ten_seconds() -> None:
    backoff = Backoff()
    assert [backoff.died(1.0) for _ in range(4)] == [0.0, 0.1, 0.2, 0.4]
    assert [backoff.died(0.0) for _ in range(20)][-1] == LONGEST_S
    assert backoff.is_loop
    assert backoff.died(SOUND_S) == 0.0
    assert not backoff.is_loop


def test_an_order_and_an_error_arrive_as_they_were_sent() -> None:
    settings = Settings(
        (Path("a"), Path("b")),
        "127.0.0.1:1",
        Path("j"),
        Mode.POWER,
        9,
        "grpcio",
        Tls(b"\x00\xff", b"key", None),
        True,
        worker=3,
        reuse_port=True,
        core=1,
    )
    load = Load("p", 2, "ab" * 32, "/j/generations/p/2-abababababab", "cGxhbg==")
    order = Order(settings, (load,))
    assert Order.decode(order.encode()) == order
    for answer in (
        Ready("127.0.0.1:1", {"p": 2}),
        Loaded("p", "ab" * 32),
        NotLoaded.of(load, ModelError("w", hint="h")),
    ):
        assert decode_answer(answer.encode()) == answer
    rejected = Rejected("p", "models/p", 3, "", ("no", "no"))
    assert decode_message(load.encode()) == load
    assert decode_message(encode_rejected(rejected)) == rejected
    violations = (Violation("p.yaml", 3, "costs.fee", "is no number", "Write one."),)
    for error in (
        UsageError("w", subject="s", hint="h"),
        ModelError("w"),
        ProductError(violations),
    ):
        got: Any = decode_answer(encode_error(error))
        assert type(got) is type(error)
        assert (str(got), got.hint) == (str(error), error.hint)
        assert getattr(got, "violations", ()) == getattr(error, "violations", ())
