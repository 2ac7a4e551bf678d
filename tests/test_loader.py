"""A worker opens what its supervisor has had verified, says so, and lets go of what was before."""

from __future__ import annotations

import gc
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import catalogue
import pytest
from conftest import Running, Serve
from test_supervisor import wait_until

from gateway.errors import GatewayError, JournalFull
from gateway.journal import Mode, Writer
from gateway.model import Generation
from gateway.serve import worker
from gateway.serve.crew.control import Load, Loaded, NotLoaded, Ready, decode_answer
from gateway.serve.crew.settings import Settings
from gateway.serve.crew.stop import Stop
from gateway.serve.hall.admit import Serving
from gateway.serve.succession import succession, verifier
from gateway.serve.succession.succession import Loader, Succession
from gateway.serve.succession.verification import Question, Verified, answer_of
from gateway.v1 import decision_pb2 as pb
from gateway.v1.decision_pb2_grpc import DecisionServiceStub

Answers = Iterator[Loaded | NotLoaded | Ready | GatewayError]


def verified(folder: Path, number: int, **changes: Any) -> Load:
    """Return a generation as the supervisor gets it."""
    changes = {"latency__budget_ms": 10_000, **changes}
    catalogue.write_folder(folder, generation=number, **changes)
    question = Question(
        str(folder), str(folder.parent / "store"), "test", "", 0, {}, True, False, {}
    )
    answer = answer_of(verifier.answer(question))
    assert isinstance(answer, Verified), answer
    return answer.load


@contextmanager
def loader(running: Running) -> Iterator[Callable[[Load], Loaded | NotLoaded]]:
    """Play the supervisor of a worker on a thread: yields how to have it load, and hear."""
    ours, theirs = socket.socketpair()
    with ours, theirs, theirs.makefile("rb") as said, ours.makefile("rb") as answers:
        one = Loader(said, theirs, running.succession)
        one.start()
        ours.settimeout(20)

        def load(what: Load) -> Loaded | NotLoaded:
            ours.sendall(what.encode())
            answer = decode_answer(answers.readline())
            assert isinstance(answer, Loaded | NotLoaded)
            return answer

        try:
            yield load
        finally:
            ours.shutdown(socket.SHUT_RDWR)
            one._thread.join(60)
        assert not one._thread.is_alive()


def answered_by(running: Running) -> int:
    answer: pb.DecideResponse = DecisionServiceStub(running.channel).Decide(catalogue.request())
    return answer.product_generation


def held(number: int) -> int:
    """Return how many arms of a generation are still in memory."""
    gc.collect()
    return sum(type(one) is Serving and one.number == number for one in gc.get_objects())


@pytest.mark.parametrize("front", ["native"])
def test_nothing_is_held_of_a_canary_that_has_left(
    serve: Serve, generation: Generation, tmp_path: Path
) -> None:
    """Its champion leaves first, and must not be taken for the whole of it."""
    (tmp_path / "four").mkdir()
    (tmp_path / "four" / "v8.onnx").write_bytes(catalogue.logistic_model(bias=0.0))
    canary = {"name": "v8", "mode": "canary", "share": 0.3}
    four = verified(tmp_path / "four", 4, models__challengers=[canary])
    five = verified(tmp_path / "five", 5)
    with serve(generation) as running, loader(running) as load:
        assert isinstance(load(four), Loaded)
        assert held(4) == 2
        assert isinstance(load(five), Loaded)
        wait_until(lambda: held(4) == 0)
        assert answered_by(running) == 5


def test_nothing_is_held_of_the_generation_that_a_worker_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its models may be large, and the worker's own frames stand as long as it serves."""
    four, five = verified(tmp_path / "four", 4), verified(tmp_path / "five", 5)
    models: list[weakref.ref[Callable[[bytes], float]]] = []

    def load(one: Load) -> Generation:
        found = succession.load(one)
        score = found.champion.score_one

        def score_one(row: bytes) -> float:
            return score(row)

        models.append(weakref.ref(score_one))
        return replace(found, champion=replace(found.champion, score_one=score_one))

    monkeypatch.setattr(worker, "load", load)
    settings = Settings(
        folders=(),
        listen="127.0.0.1:0",
        journal=tmp_path / "journal",
        mode=Mode.PROCESS,
        journal_max_bytes=2**30,
        front="native",
        tls=None,
        insecure=False,
    )
    stop, is_ready, served, loads = (
        Stop(),
        threading.Event(),
        threading.Event(),
        Succession(count()),
    )

    def announced(_: worker.Ready) -> None:
        is_ready.set()

    def work() -> None:
        worker.serve(settings, (four,), stop=stop, announce=announced, succession=loads)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert is_ready.wait(60)
        (model,) = models
        assert model() is not None
        loads.propose(succession.load(five), {}, served.set)
        assert served.wait(60)
        assert loads.gone.get(timeout=60).number == 4
        wait_until(lambda: gc.collect() >= 0 and model() is None)
    finally:
        stop.ask()
        thread.join(60)
    assert not thread.is_alive()


@pytest.mark.parametrize("front", ["native"])
def test_what_the_journal_does_not_take_is_given_up_and_never_served(
    serve: Serve, generation: Generation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would be served after the supervisor has said that it is not."""
    four, five = verified(tmp_path / "four", 4), verified(tmp_path / "five", 5)
    announce, is_full = Writer.announce, [True]
    tried_s: list[float] = []

    def announced(journal: Writer, entry: Any) -> int:
        if is_full[0]:
            tried_s.append(time.monotonic())
            raise JournalFull("no space is left", subject="the disk")
        return announce(journal, entry)

    monkeypatch.setattr(Writer, "announce", announced)
    monkeypatch.setattr(succession, "_RETRY_S", 0.01)
    monkeypatch.setattr(succession, "_GIVES_UP_S", 0.5)
    with serve(generation) as running, loader(running) as load:
        answer = load(four)
        assert isinstance(answer, NotLoaded)
        assert "no space is left" in answer.why
        assert len(tried_s) > 1
        assert tried_s[-1] - tried_s[0] <= 30
        is_full[0] = False
        assert answered_by(running) == 3
        assert isinstance(load(five), Loaded)
        assert answered_by(running) == 5


@pytest.mark.parametrize("front", ["native"])
def test_a_worker_that_ends_takes_no_new_generation(
    serve: Serve, generation: Generation, tmp_path: Path
) -> None:
    """It may end because it was late with that very one, which is refused by then."""
    four = verified(tmp_path / "four", 4)
    begun, gate, served = threading.Event(), threading.Event(), threading.Event()
    score = generation.champion.score_one

    def score_one(row: bytes) -> float:
        begun.set()
        assert gate.wait(60)
        return score(row)

    slow = replace(
        generation,
        product=generation.product.model_copy(
            update={"latency": generation.product.latency.model_copy(update={"budget_ms": 20_000})}
        ),
        champion=replace(generation.champion, score_one=score_one),
    )
    with serve(slow, measured_ns={"test": {1: 40_000_000}}) as running:
        waiting = DecisionServiceStub(running.channel).Decide.future(catalogue.request())
        assert begun.wait(60)
        running.stop.ask()
        running.succession.propose(succession.load(four), {}, served.set)
        assert not served.wait(0.3), "the loop has come round many times"
        gate.set()
        assert waiting.result(60).product_generation == 3
        running.ended()
        assert not served.is_set()


_ENDS_BESIDE_A_MODEL = """
import sys, threading
from pathlib import Path
from gateway.model import load_generation
from gateway.serve import child

champion = load_generation(Path(sys.argv[1])).champion
row, begun = b"\\0" * 12, threading.Event()

def work():
    while True:
        champion.score_one(row)
        begun.set()

threading.Thread(target=work, daemon=True).start()
begun.wait()
child.main = lambda: 7
child.run()
"""


def test_a_worker_that_ends_while_a_model_works_ends_in_order(tmp_path: Path) -> None:
    """Not with SIGABRT: a stop in the middle of a swap is no failure."""
    folder = catalogue.write_folder(tmp_path / "test")
    command = [sys.executable, "-c", _ENDS_BESIDE_A_MODEL, str(folder)]
    ended = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (7, b"")
