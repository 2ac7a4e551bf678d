"""Real servers for tests: a hall behind either front, on a port of the system's choice."""

from __future__ import annotations

import fcntl
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import catalogue
import grpc
import pytest
from hypothesis import settings

from gateway.journal import Mode
from gateway.model import Generation, load_generation
from gateway.serve.succession.succession import Succession
from gateway.serve.worker import Ready, Settings, Stop, serve_loaded

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background by a shell: what the tests start would ignore Ctrl-C, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A machine that is busy elsewhere is no counterexample.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


WAIT_S = 60.0
"""For what comes when it comes: who waits so long has found a fault, not a busy machine."""


@dataclass(frozen=True)
class Running:
    """A worker on a thread of the test's process."""

    address: str
    journal: Path
    generation: Generation
    stop: Stop
    thread: threading.Thread
    channel: grpc.Channel
    succession: Succession

    @property
    def fingerprint(self) -> str:
        return self.generation.schema.fingerprint

    def swap(
        self, generation: Generation, measured_ns: dict[str, dict[int, int]] | None = None
    ) -> None:
        """Let it serve another generation, and wait until it does."""
        served = threading.Event()
        self.succession.propose(generation, measured_ns or {}, served.set)
        assert served.wait(WAIT_S)

    def ended(self) -> None:
        """Stop it, and wait until it has drained and sealed the journal."""
        self.stop.ask()
        self.thread.join(WAIT_S)
        assert not self.thread.is_alive()


def stand_still(pid: int) -> None:
    """Stop a process by SIGSTOP, and wait until each of its threads stands.

    A busy machine takes its time for that, and a thread that still runs hears what is sent next.
    """
    os.kill(pid, signal.SIGSTOP)
    until_s = time.monotonic() + WAIT_S
    threads = list(Path(f"/proc/{pid}/task").iterdir())
    while {(one / "stat").read_text().rpartition(")")[2].split()[0] for one in threads} != {"T"}:
        assert time.monotonic() < until_s
        time.sleep(0.001)


RUN = os.environ.get("PYTEST_XDIST_TESTRUNUID") or str(os.getpid())
TURNS = Path(tempfile.gettempdir()) / f"gateway-tests-{RUN}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Let tests that are marked `alone` run with no other beside them, in whatever process."""
    alone = item.get_closest_marker("alone") is not None
    with TURNS.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        return (yield)


def pytest_sessionfinish() -> None:
    TURNS.unlink(missing_ok=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the quick tests first."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


Serve = Callable[..., AbstractContextManager[Running]]


@pytest.fixture(scope="session")
def generation(tmp_path_factory: pytest.TempPathFactory) -> Generation:
    """The base product, loaded once."""
    return load_generation(catalogue.write_folder(tmp_path_factory.mktemp("base") / "test"))


@pytest.fixture(params=["native", "grpcio"])
def front(request: pytest.FixtureRequest) -> str:
    """Every test that takes this runs on both fronts."""
    return str(request.param)


@pytest.fixture
def serve(front: str, generation: Generation, tmp_path: Path) -> Serve:
    """Return a context manager that serves a generation on `front`, and `also` others."""

    @contextmanager
    def running(
        loaded: Generation = generation,
        *also: Generation,
        measured_ns: dict[str, dict[int, int]] | None = None,
        **changes: object,
    ) -> Iterator[Running]:
        settings = Settings(
            **{
                "folders": (),
                "listen": "127.0.0.1:0",
                "journal": tmp_path / "journal",
                "mode": Mode.PROCESS,
                "journal_max_bytes": 2**30,
                "front": front,
                "tls": None,
                "insecure": False,
                **changes,
            }
        )
        ready: list[Ready] = []
        failed: list[BaseException] = []
        is_ready, stop, succession = threading.Event(), Stop(), Succession(count())

        def announce(one: Ready) -> None:
            ready.append(one)
            is_ready.set()

        def work() -> None:
            try:
                serve_loaded(
                    settings,
                    settings.listen,
                    [(one, measured_ns or {}) for one in (loaded, *also)],
                    stop=stop,
                    announce=announce,
                    succession=succession,
                )
            except BaseException as error:
                failed.append(error)
                is_ready.set()

        thread = threading.Thread(target=work)
        thread.start()
        assert is_ready.wait(WAIT_S)
        if failed:
            thread.join()
            raise failed[0]
        try:
            with grpc.insecure_channel(ready[0].address) as channel:
                yield Running(
                    *(ready[0].address, settings.journal, loaded, stop, thread, channel, succession)
                )
        finally:
            stop.ask()
            thread.join(WAIT_S)
            assert not thread.is_alive()
            if failed:
                raise failed[0]

    return running
