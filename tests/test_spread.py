"""A verified generation spreads over the workers: whatever they do meanwhile, all come to it."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from collections.abc import Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import catalogue
import pytest
from conftest import stand_still
from test_supervisor import children_of, gone, serving, wait_until

from gateway.errors import GatewayError, JournalError, ModelError
from gateway.journal import Rejected
from gateway.model.registry import STORE, Registry
from gateway.serve import supervisor
from gateway.serve.crew import live
from gateway.serve.crew.control import Load, Loaded, NotLoaded, Ready, decode_message
from gateway.serve.crew.live import Live
from gateway.serve.supervisor import Supervisor


def generation(number: int, product: str = "test") -> Load:
    return Load(product, number, f"{number:064x}", f"/store/{number}", "")


class Gateway:
    """A supervisor whose workers a test plays. `now`: what `Generations` would say is served."""

    def __init__(self, tmp_path: Path, *now: Load) -> None:
        settings = SimpleNamespace(folders=(), journal=tmp_path)
        nothing: Any = SimpleNamespace(take_over=lambda _: None, listen=lambda _: "")
        self.supervisor = Supervisor(settings, nothing, nothing, [None])  # type: ignore[arg-type]
        self.now = {load.product: load for load in now}
        self.supervisor._generations = SimpleNamespace(  # type: ignore[assignment]
            rejected=()
        )
        self.refresh()

    def refresh(self) -> None:
        self.supervisor._generations.loads = tuple(self.now.values())  # type: ignore[misc]

    async def spread(self, load: Load) -> GatewayError | None:
        """As `Generations` does it."""
        error = await self.supervisor._spread(load)
        if error is None:
            self.now[load.product] = load
            self.refresh()
        return error


class Played:
    """A worker that does what a test says, when it says so. `serves`: what it would answer with."""

    def __init__(self, gateway: Gateway, number: int, *, ready: bool = True) -> None:
        loop = asyncio.get_running_loop()
        self.told: asyncio.Queue[Load | Rejected] = asyncio.Queue()
        self.signals: list[signal.Signals] = []
        self.serves = {product: load.number for product, load in gateway.now.items()}
        self._end: asyncio.Future[int] = loop.create_future()
        self.process = SimpleNamespace(pid=number, returncode=None, send_signal=self._signalled)
        writer = SimpleNamespace(write=lambda line: self.told.put_nowait(decode_message(line)))
        digests = {load.product: load.digest for load in gateway.now.values()}
        self.live = Live(number, self.process, writer, loop.create_future(), digests)  # type: ignore[arg-type]
        self.live.ended = asyncio.create_task(self._until_ended())
        if ready:
            self.answers()
        gateway.supervisor._live.add(self.live)
        self._gateway = gateway

    async def _until_ended(self) -> int:
        code = await self._end
        self._gateway.supervisor._live.discard(self.live)
        return code

    def _signalled(self, number: signal.Signals) -> None:
        self.signals.append(number)

    def answers(self) -> None:
        self.live.ready.set_result(Ready("", {}))

    async def hears(self) -> Load:
        load = await asyncio.wait_for(self.told.get(), 20)
        assert isinstance(load, Load)
        return load

    def opens(self, load: Load) -> None:
        self.serves[load.product] = load.number
        self.live.heard(Loaded(load.product, load.digest))

    def opens_not(self, load: Load) -> None:
        self.live.heard(NotLoaded.of(load, ModelError("no memory")))

    async def opens_what_it_hears(self) -> None:
        while True:
            load = await self.told.get()
            if isinstance(load, Load):
                self.opens(load)

    def dies(self, code: int = -signal.SIGKILL) -> None:
        self.process.returncode = code
        self._end.set_result(code)


async def in_background(*work: Coroutine[Any, Any, Any]) -> list[asyncio.Task[Any]]:
    tasks = [asyncio.create_task(one) for one in work]
    await asyncio.sleep(0)
    return tasks


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 60))


def launched(gateway: Gateway, worker: Played) -> Coroutine[Any, Any, Live]:
    """Let the supervisor start a worker: the played one."""

    async def spawned(*_: object) -> Live:
        return worker.live

    supervisor: Any = gateway.supervisor
    supervisor._spawned = spawned
    supervisor._settings = live_settings()
    seat: Any = SimpleNamespace(core=None)
    return supervisor._launch(seat, worker.live.number)  # type: ignore[no-any-return]


def live_settings() -> Any:
    from gateway.journal import Mode
    from gateway.serve.crew.settings import Settings

    return Settings((), "", Path(), Mode.PROCESS, None, "native", None, False)  # type: ignore[arg-type]


def test_a_worker_that_begins_to_answer_while_a_generation_spreads_serves_it_too(
    tmp_path: Path,
) -> None:
    async def play() -> None:
        gateway = Gateway(tmp_path, generation(1))
        first = Played(gateway, 0)
        (spread,) = await in_background(gateway.spread(generation(2)))
        asked = await first.hears()
        late = Played(gateway, 1, ready=False)
        opens, launch = await in_background(late.opens_what_it_hears(), launched(gateway, late))
        late.answers()
        await asyncio.sleep(0.01)
        first.opens(asked)
        assert await spread is None
        await launch
        opens.cancel()
        assert late.serves == first.serves == {"test": 2}

    run(play())


def test_a_worker_that_catches_up_is_not_taken_back_to_what_was_before(tmp_path: Path) -> None:
    """While it opens what it has missed of one product, another product changes."""

    async def play() -> None:
        gateway = Gateway(tmp_path, generation(1, "a"), generation(1, "b"))
        late = Played(gateway, 1, ready=False)
        (launch,) = await in_background(launched(gateway, late))
        await asyncio.sleep(0.01)
        for name in "ab":
            assert await gateway.spread(generation(2, name)) is None, "there is nobody else"
        late.answers()
        missed = await late.hears()
        assert (missed.product, missed.number) == ("a", 2)
        (spread,) = await in_background(gateway.spread(generation(3, "b")))
        await asyncio.sleep(0.01)
        opens, *_ = await in_background(late.opens_what_it_hears())
        late.opens(missed)
        assert await spread is None
        await launch
        await asyncio.sleep(0.01)
        opens.cancel()
        assert late.serves == {"a": 2, "b": 3}

    run(play())


def test_what_the_first_worker_dies_of_does_not_reach_all_of_them(tmp_path: Path) -> None:
    async def play() -> None:
        gateway = Gateway(tmp_path, generation(1))
        workers = [Played(gateway, number) for number in range(4)]
        (spread,) = await in_background(gateway.spread(generation(2)))
        killed: list[Played] = []
        while not spread.done():
            await asyncio.sleep(0.01)
            for worker in workers:
                if worker not in killed and not worker.told.empty():
                    worker.dies()
                    killed.append(worker)
        error = await spread
        assert error is not None
        assert "SIGKILL" in str(error)
        assert len(killed) == 2, "one death may be chance"
        assert gateway.now["test"].number == 1

    run(play())


@pytest.mark.parametrize("code", [0, -signal.SIGKILL])
def test_one_worker_that_ends_meanwhile_keeps_nobody_from_a_generation(
    tmp_path: Path, code: int
) -> None:
    """It is replaced on SIGHUP, say, or killed by somebody."""

    async def play() -> None:
        gateway = Gateway(tmp_path, generation(1))
        workers = [Played(gateway, number) for number in range(3)]
        (spread,) = await in_background(gateway.spread(generation(2)))
        await asyncio.sleep(0.01)
        (first,) = (worker for worker in workers if not worker.told.empty())
        others = [worker for worker in workers if worker is not first]
        tasks = await in_background(*(worker.opens_what_it_hears() for worker in others))
        first.dies(code)
        assert await spread is None
        for task in tasks:
            task.cancel()
        assert [worker.serves for worker in others] == [{"test": 2}] * 2

    run(play())


def test_the_only_workers_death_is_no_reason_to_refuse_what_its_successor_opens(
    tmp_path: Path,
) -> None:
    async def play() -> None:
        gateway = Gateway(tmp_path, generation(1))
        only = Played(gateway, 0)
        (spread,) = await in_background(gateway.spread(generation(2)))
        await only.hears()
        only.dies()
        await asyncio.sleep(0.1)
        assert not spread.done()
        successor = Played(gateway, 0, ready=False)
        opens, launch = await in_background(
            successor.opens_what_it_hears(), launched(gateway, successor)
        )
        successor.answers()
        assert await spread is None
        await launch
        opens.cancel()
        assert successor.serves == {"test": 2}

    run(play())


def test_a_generation_that_leaves_no_worker_alive_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "AGAIN_S_MAX", 0.1)

    async def play() -> None:
        gateway = Gateway(tmp_path, generation(1))
        only = Played(gateway, 0)
        (spread,) = await in_background(gateway.spread(generation(2)))
        await only.hears()
        only.dies()
        assert "SIGKILL" in str(await spread)

    run(play())


def test_a_worker_that_may_still_open_what_is_refused_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "SWAP_S_MAX", 0.05)

    async def play() -> None:
        gateway = Gateway(tmp_path, generation(1))
        slow = Played(gateway, 0)
        error = await gateway.spread(generation(2))
        assert error is not None
        assert slow.signals == [signal.SIGTERM]

    run(play())


def test_a_worker_that_does_not_open_a_generation_goes_on(tmp_path: Path) -> None:
    async def play() -> None:
        gateway = Gateway(tmp_path, generation(1))
        first = Played(gateway, 0)
        (spread,) = await in_background(gateway.spread(generation(2)))
        first.opens_not(await first.hears())
        assert "no memory" in str(await spread)
        assert first.signals == []

    run(play())


@pytest.mark.slow
def test_a_gateway_that_is_to_stop_waits_for_no_verification(tmp_path: Path) -> None:
    """Gates over a large table take minutes; who stops a gateway kills it long before."""
    folder = catalogue.write_folder(tmp_path / "test", generation=3)
    later = catalogue.write_folder(tmp_path / "later", generation=4)
    with serving(folder, tmp_path / "journal", "--workers", "1", log=tmp_path / "log") as gateway:
        verifiers: list[int] = []

        def is_verified() -> bool:
            verifiers[:] = [
                pid
                for pid in children_of(gateway.process.pid)
                if b"gateway.serve.succession.verifier" in Path(f"/proc/{pid}/cmdline").read_bytes()
            ]
            return bool(verifiers)

        (later / "product.yaml").replace(folder / "product.yaml")
        wait_until(is_verified)
        (verifier,) = verifiers
        stand_still(verifier)
        assert gateway.ended() == 0
        wait_until(lambda: gone(verifier))
    state = Registry(tmp_path / "journal" / STORE).state("test")
    assert state is not None
    assert state.serving.generation == 3


def test_a_look_that_fails_does_not_end_the_looks_that_are_asked_for(tmp_path: Path) -> None:
    async def play() -> None:
        gateway = Gateway(tmp_path, generation(1))
        one, looks = gateway.supervisor, asyncio.Semaphore(0)

        async def reload() -> None:
            looks.release()
            raise RuntimeError("can't start new thread")

        one._generations.reload = reload  # type: ignore[method-assign]
        (keeper,) = await in_background(one._reload_when_asked())
        for _ in range(3):
            one._to_reload.set()
            await asyncio.wait_for(looks.acquire(), 20)
        one._stopping.set()
        await asyncio.wait_for(keeper, 20)

    run(play())


def test_a_machine_without_descriptors_ends_no_keeper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is short of them for a moment: what could not be started then is started later."""

    def refuses(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async def play() -> None:
        gateway = Gateway(tmp_path, generation(1))
        one: Any = gateway.supervisor
        with monkeypatch.context() as patch:
            patch.setattr(live.socket, "socketpair", refuses)
            with pytest.raises(GatewayError, match="Too many open files"):
                await live.opened()

        def no_number() -> int:
            raise JournalError("its lock cannot be opened: Too many open files")

        one._free_number = no_number
        seat: Any = SimpleNamespace(worker=Played(gateway, 0).live)
        assert not await one._replaced(seat)

    run(play())
