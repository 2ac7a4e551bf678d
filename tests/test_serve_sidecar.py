"""`gateway serve --sidecar`: one command for both, and nothing behind the journal is felt."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import callers
import catalogue
import grpc
import numpy as np
import pytest
from conftest import WAIT_S, stand_still
from otlp_receiver import Receiver, hangs, listening, server_spans
from test_sidecar import counted
from test_supervisor import Running, children_of, gone, serving, wait_until

from gateway.cli import sidecar
from gateway.cli.main import run
from gateway.errors import ExitCode
from gateway.journal import Decision, Record, decision_id, read, segments
from gateway.model import load_generation
from gateway.sidecar.lake import Lake
from gateway.sidecar.presence import Presence, found, running
from gateway.v1.decision_pb2 import DecideRequest
from gateway.v1.decision_pb2_grpc import DecisionServiceStub

PORTS = ("--http", "127.0.0.1:0", "--feedback", "127.0.0.1:0")
ANY = ("--sidecar", *PORTS, "--workers", "1")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return catalogue.write_folder(tmp_path / "product")


@pytest.fixture
def fingerprint(folder: Path) -> str:
    return load_generation(folder).schema.fingerprint


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def recorded(journal: Path) -> list[str]:
    """Return the decision ids that the journal holds."""
    return [
        decision_id(segment.name.boot_id, segment.name.worker, item.sequence)
        for segment in segments(journal)
        for item in read(segment)
        if isinstance(item, Record) and isinstance(item.entry, Decision)
    ]


def rows(lake: Path) -> list[str]:
    """Return the decision ids that the lake shows, as often as it does."""
    dataset = Lake.at(str(lake)).dataset("decisions")
    found: list[str] = dataset.to_table(columns=["decision_id"]).column(0).to_pylist()
    return found


def now(journal: Path) -> tuple[Presence, bool]:
    told = found(journal / "sidecar")
    assert told is not None
    return told


def descendants_of(pid: int) -> set[int]:
    children = set()
    with suppress(FileNotFoundError):
        children = {int(x) for x in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}
    return children.union(*map(descendants_of, children)) if children else set()


def niceness_of(pid: int) -> set[int]:
    """Return the niceness of each thread."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return {int((one / "stat").read_text().rpartition(")")[2].split()[16]) for one in tasks}


# What cannot be


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--lake", "x"], ExitCode.USAGE, "--lake: is for the sidecar that --sidecar starts"),
        (
            ["--otlp", "http://localhost:1", "--http", "127.0.0.1:0"],
            ExitCode.USAGE,
            "--otlp --http",
        ),
        (["--sampled", "0.5"], ExitCode.USAGE, "--sampled: is for the sidecar"),
        (["--token-file", "x"], ExitCode.USAGE, "--token-file: is for the sidecar"),
        (["--sidecar", *PORTS, "--token-file", "no/x"], ExitCode.USAGE, "cannot be read"),
        (["--evaluate", "1h"], ExitCode.USAGE, "--evaluate: is for the sidecar"),
        (["--sidecar", *PORTS, "--evaluate", "1h"], ExitCode.USAGE, "needs a lake to evaluate"),
        (["--sidecar", "--sampled", "2"], ExitCode.USAGE, "sampled"),
        (["--sidecar", "--stages", "some"], ExitCode.USAGE, "stages"),
        (["--sidecar", "--feedback", "0.0.0.0:0"], ExitCode.USAGE, "open to other hosts"),
        (["--sidecar", "--feedback", "TAKEN"], ExitCode.CANNOT_LISTEN, "the port is in use"),
        (
            ["--sidecar", *PORTS[2:], "--http", "0.0.0.0:0"],
            ExitCode.USAGE,
            "no loopback",
        ),
        (["--sidecar", *PORTS, "--otlp", "ftp://x"], ExitCode.USAGE, "ftp://x"),
        (
            ["--sidecar", *PORTS[2:], "--http", "TAKEN"],
            ExitCode.CANNOT_LISTEN,
            "cannot be listened on",
        ),
        (["--sidecar", *PORTS, "--lake", "no://w"], ExitCode.LAKE, "no://w"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else None,
)
def test_what_a_sidecar_cannot_be_asked_keeps_the_gateway_from_serving(
    folder: Path,
    journal: Path,
    options: list[str],
    code: ExitCode,
    says: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """One error with its own exit code, nothing announced, nothing left running."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        given = [one.replace("TAKEN", f"127.0.0.1:{port}") for one in options]
        command = ["serve", str(folder), "--listen", "127.0.0.1:0", "--journal", str(journal)]
        assert run([*command, *given]) == code
    told_of = capfd.readouterr()
    assert told_of.out == ""
    assert told_of.err.count("Error:") == 1
    assert says in told_of.err
    assert "Traceback" not in told_of.err
    assert children_of(os.getpid()) == set()
    told = found(journal / "sidecar")
    assert told is None or not told[1]


def test_a_journal_has_one_sidecar(
    journal: Path,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A second one is refused; what one that ended has left is none."""
    monkeypatch.setattr(sidecar, "ONCE_IDLE_S", 0.2)  # there is nothing to come
    state = journal / "sidecar"
    one = Presence(os.getpid(), is_attached=False, checkpoints=str(state))
    with running(state, one):
        assert now(journal) == (one, True)
        assert run(["sidecar", "--journal", str(journal), "--once"]) == ExitCode.JOURNAL
        assert f"another sidecar (pid {os.getpid()})" in capsys.readouterr().err
    assert now(journal) == (one, False)
    with running(state, one) as tell:
        for lake in ("a" * 5000, "b", "c" * 9000, ""):
            tell(replace(one, lake=lake))
            assert now(journal) == (replace(one, lake=lake), True)
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "running").touch()
    assert found(tmp_path / "new") is None, "it had not said anything yet"
    again = ["sidecar", "--journal", str(journal), "--once", "--http", "127.0.0.1:0"]
    assert run([*again, "--checkpoints", str(tmp_path / "kept")]) == ExitCode.OK
    assert now(journal)[0].checkpoints == str(tmp_path / "kept")
    published = journal / "shipped.json"
    assert not published.exists(), "it decides nothing for who reads the journal otherwise"
    assert run(again) == ExitCode.OK
    assert published.exists()


# From start to end. It has five seconds for what is left, with what processor nobody else wants:
# where all of it is to be shipped, no other test may want it.


@pytest.mark.alone
def test_it_is_there_and_gives_way_and_all_is_behind_it_at_the_end(
    folder: Path,
    fingerprint: str,
    journal: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """kill -9: it is started again where it was, at the same address; each row and span once."""
    lake, log = tmp_path / "lake", tmp_path / "log"
    receiver = Receiver()
    with ExitStack() as stack:
        port = stack.enter_context(listening(receiver))
        more = (*ANY, "--lake", str(lake), "--otlp", f"http://127.0.0.1:{port}")
        gateway = stack.enter_context(serving(folder, journal, *more, log=log))
        told = gateway.announced["sidecar"]
        assert told["lake"] == str(lake)
        assert os.getsid(told["pid"]) == os.getsid(gateway.process.pid)
        assert niceness_of(told["pid"]) == {19}
        assert int(Path(f"/proc/{told['pid']}/oom_score_adj").read_text()) == 500
        assert told["feedback"].startswith("127.0.0.1:")
        assert counted(told["metrics"])["gateway_consumer_lag_records"] == 0
        with callers.calling("grpcio", gateway.address, fingerprint) as calls:
            calls.wait_for(50)
            os.kill(told["pid"], signal.SIGKILL)
            wait_until(lambda: now(journal)[1] and now(journal)[0].pid != told["pid"])
            wait_until(lambda: now(journal)[0].metrics == told["metrics"])
            calls.wait_for(50)
        assert calls.failed == {}
        wait_until(lambda: counted(told["metrics"])["gateway_consumer_lag_records"] == 0)
        assert niceness_of(now(journal)[0].pid) == {19}
        assert run(["status", "--journal", str(journal), "--json"]) == ExitCode.OK
        shown = json.loads(capsys.readouterr().out)["sidecar"]
        assert shown["running"]
        assert shown["metrics"] == told["metrics"]
        assert set(shown["consumers"]) == {"lake", "traces", "metrics"}
        left = descendants_of(gateway.process.pid)
        assert now(journal)[0].pid in left
        assert gateway.ended() == ExitCode.OK
        assert all(map(gone, left))
    assert sorted(rows(lake)) == sorted(recorded(journal)) == sorted(calls.answers.values())
    assert len(server_spans(receiver)) == len(calls.answers)
    assert "killed by SIGKILL; again at once" in log.read_text()
    assert "records behind" not in log.read_text()
    assert run(["status", "--journal", str(journal)]) == ExitCode.FAILED
    shown_after = capsys.readouterr().out
    assert "sidecar does not run any more; traces has all, lake has all" in shown_after


@pytest.mark.alone
def test_it_ends_after_a_gateway_that_was_killed_with_all_behind_it(
    folder: Path, fingerprint: str, journal: Path, tmp_path: Path
) -> None:
    lake = tmp_path / "lake"
    with serving(folder, journal, *ANY, "--lake", str(lake)) as gateway:
        with callers.calling("grpcio", gateway.address, fingerprint, published=False) as calls:
            calls.wait_for(50)
            left = descendants_of(gateway.process.pid)
            gateway.ended(signal.SIGKILL)
            calls.stopped = True
        wait_until(lambda: all(map(gone, left)))
    assert sorted(rows(lake)) == sorted(recorded(journal))
    assert set(calls.answers.values()) <= set(rows(lake))


def test_what_it_could_not_ship_is_said_and_stays_for_the_next(
    folder: Path, fingerprint: str, journal: Path, tmp_path: Path
) -> None:
    """A collector that hangs holds the end up for seconds; a gateway that comes after takes over
    from a sidecar that still waits for it."""
    receiver, log = Receiver(), tmp_path / "log"
    with listening(receiver) as port:
        more = (*ANY, "--otlp", f"http://127.0.0.1:{port}")
        for _ in range(100):
            receiver.faults.put(hangs)
        with serving(folder, journal, *more, log=log) as gateway:
            with callers.calling("grpcio", gateway.address, fingerprint) as calls:
                calls.wait_for(20)
            assert receiver.arrived.acquire(timeout=WAIT_S)
            gateway.ended(signal.SIGKILL)
            waits = now(journal)[0].pid
        with serving(folder, journal, *more, log=log) as gateway:
            wait_until(lambda: gone(waits))
            assert gateway.ended() == ExitCode.OK
        (behind,) = re.findall(r"traces ends (\d+) records behind", log.read_text())
        assert int(behind) >= len(calls.answers), "and the times of their replies"
        while not receiver.faults.empty():
            receiver.faults.get()
        with serving(folder, journal, *more) as gateway:
            wait_until(lambda: len(server_spans(receiver)) == len(calls.answers))
            assert gateway.ended() == ExitCode.OK


# And decisions go on as if it were not there


def asked(fingerprint: str, count: int) -> Iterator[DecideRequest]:
    """Payments over the whole range of amounts and scores, some of them not to be taken."""
    chance = np.random.default_rng(11)
    for i in range(count):
        amount = float(np.round(np.exp(chance.uniform(0, 9)), 2))
        features = [amount, chance.uniform(0, 30), float(chance.integers(0, 3))]
        yield catalogue.request(
            "" if i % 50 == 49 else fingerprint,
            transaction_id=f"same-{i}",
            amount=int(100 * amount),
            category=("5411", "5912", "7995")[i % 3],
            dense=np.array(features, dtype="<f4").tobytes(),
        )


def answers(gateway: Running, fingerprint: str, count: int) -> list[tuple[Any, ...]]:
    """Return what each payment was told, but for ids and times."""
    told: list[tuple[Any, ...]] = []
    with grpc.insecure_channel(gateway.address) as channel:
        decide = DecisionServiceStub(channel).Decide
        for request in asked(fingerprint, count):
            try:
                answer = decide(request, timeout=callers.DEADLINE_S)
            except grpc.RpcError as error:
                told.append((error.code(), error.details()))
                continue
            costs = tuple((one.action, one.cost) for one in answer.expected_costs)
            told.append((answer.action, answer.probability, costs, answer.stand_in))
    return told


def test_nothing_behind_the_journal_changes_a_decision(tmp_path: Path) -> None:
    """The same payments: alone; beside a sidecar whose collector hangs and whose lake cannot be
    written; and beside one that is stopped altogether. With a budget that no busy machine exhausts:
    a stand-in depends on the moment, what the model decides does not."""
    folder = catalogue.write_folder(tmp_path / "product", latency__budget_ms=5_000)
    fingerprint = load_generation(folder).schema.fingerprint
    count, receiver = 600, Receiver()
    for _ in range(1000):
        receiver.faults.put(hangs)
    with serving(folder, tmp_path / "alone", "--workers", "1") as gateway:
        alone = answers(gateway, fingerprint, count)
        assert gateway.ended() == ExitCode.OK
    with listening(receiver) as port:
        bad = (*ANY, "--lake", "/proc/lake", "--otlp", f"http://127.0.0.1:{port}")
        with serving(folder, tmp_path / "bad", *bad, log=tmp_path / "log") as gateway:
            beside = answers(gateway, fingerprint, count)
            wait_until(lambda: "lake waits" in (tmp_path / "log").read_text())
            assert receiver.arrived.acquire(timeout=WAIT_S)
            gateway.ended(signal.SIGKILL)  # its sidecar takes its time, and the next one none
    left = now(tmp_path / "bad")[0].pid
    with serving(folder, tmp_path / "stopped", *ANY) as gateway:
        stand_still(gateway.announced["sidecar"]["pid"])
        stopped = answers(gateway, fingerprint, count)
        gateway.process.send_signal(signal.SIGTERM)
        os.kill(gateway.announced["sidecar"]["pid"], signal.SIGCONT)
        assert gateway.process.wait(WAIT_S) == ExitCode.OK
    wait_until(lambda: gone(left))
    assert alone == beside == stopped
    assert {one[3] for one in alone if len(one) > 2} == {0}, "the model's, all of them"
    assert len({one[0] for one in alone}) > 2, "approved, declined and refused, at least"
    assert len(recorded(tmp_path / "bad")) == sum(len(one) > 2 for one in alone)
