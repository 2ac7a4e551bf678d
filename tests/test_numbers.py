"""A generation's number means one content for ever, whatever happened to folders and processes."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Coroutine
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import catalogue
import pytest
from test_generations import OneLook, Workers, verified_here, write

from gateway.errors import GatewayError, ModelError, ProductError
from gateway.model.registry import KEEP, STORE, Registry, State
from gateway.serve.crew.control import Load
from gateway.serve.succession.generations import TRIALS_MAX, Generations
from gateway.serve.succession.verification import Answer, Question, Refused, Verified
from gateway.serve.succession.watch import SETTLED_S


class Gateway:
    """A supervisor's generations, and workers that do what they are told."""

    def __init__(self, journal: Path) -> None:
        self.journal = journal
        self.now_s = 0.0
        self.workers = Workers()

    def generations(self, *folders: Path, **changes: Any) -> Generations:
        return Generations(
            folders,
            self.journal,
            **{
                "spread": self.workers.spread,
                "tell": self.workers.told.append,
                "verify": verified_here,
                "clock_s": lambda: self.now_s,
                **changes,
            },
        )

    async def begun(self, *folders: Path, **changes: Any) -> Generations:
        one = self.generations(*folders, **changes)
        await one.begin()
        return one

    async def look(self, generations: Generations) -> None:
        for _ in range(2):
            await generations.keep(OneLook())
            self.now_s += SETTLED_S + 0.01

    def state(self, product: str = "test") -> State:
        state = Registry(self.journal / STORE).state(product)
        assert state is not None
        return state


def edit(folder: Path, number: int, **changes: object) -> None:
    """Change a folder as an editor does."""
    beside = folder.parent / f"{folder.name}.edited"
    shutil.rmtree(beside, ignore_errors=True)
    catalogue.write_folder(beside, generation=number, **changes)
    write(folder / "product.yaml", (beside / "product.yaml").read_text())


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 60))


def test_a_number_means_the_same_in_another_folder(tmp_path: Path) -> None:
    """As where each release has a folder of its own."""

    async def play() -> None:
        gateway = Gateway(tmp_path / "journal")
        one = catalogue.write_folder(tmp_path / "one", generation=7)
        other = catalogue.write_folder(tmp_path / "other", generation=7, latency__budget_ms=77)
        await gateway.begun(one)
        with pytest.raises(ProductError, match="was served with other content"):
            await gateway.begun(other)
        edit(other, 8)
        (load,) = (await gateway.begun(other)).loads
        assert load.number == 8
        state = gateway.state()
        assert [past.generation for past in state.history] == [7, 8]
        assert state.folder == str(other)

    run(play())


def test_a_folder_goes_on_with_the_product_that_it_had_last(tmp_path: Path) -> None:
    """It was another product's before; what it holds now is no product at all."""

    async def play() -> None:
        gateway = Gateway(tmp_path / "journal")
        folder = catalogue.write_folder(tmp_path / "one", generation=7, product="alpha")
        await gateway.begun(folder)
        for number in (2, 3):
            edit(folder, number, product="omega")
            await gateway.begun(folder)
        assert [past.generation for past in gateway.state("omega").history] == [2, 3]
        write(folder / "product.yaml", "{}")
        (load,) = (await gateway.begun(folder)).loads
        assert (load.product, load.number) == ("omega", 3)

    run(play())


def test_a_number_is_remembered_when_the_history_is_not(tmp_path: Path) -> None:
    async def play() -> None:
        gateway = Gateway(tmp_path / "journal")
        folder = catalogue.write_folder(tmp_path / "one", generation=1)
        generations = await gateway.begun(folder)
        edit(folder, 9)
        await gateway.look(generations)
        for _ in range(KEEP // 2):
            for number in (1, 2):
                edit(folder, number)
                await gateway.look(generations)
        assert gateway.state().serving.generation == 2
        assert 9 not in {past.generation for past in gateway.state().history}
        edit(folder, 9, latency__budget_ms=99)
        await gateway.look(generations)
        assert gateway.workers.serves["test"].number == 2
        refused = gateway.state().refused
        assert refused is not None
        assert refused.generation == 9

    run(play())


def test_what_one_worker_may_have_served_when_all_died_keeps_its_number(tmp_path: Path) -> None:
    async def play() -> None:
        gateway = Gateway(tmp_path / "journal")
        folder = catalogue.write_folder(tmp_path / "one", generation=1)
        reached = asyncio.Event()

        async def spread(load: Load) -> GatewayError | None:
            await gateway.workers.spread(load)
            reached.set()
            await asyncio.Event().wait()  # the supervisor is killed before the others do
            return None

        generations = await gateway.begun(folder, spread=spread)
        edit(folder, 2)
        look = asyncio.create_task(gateway.look(generations))
        await reached.wait()
        look.cancel()
        kept = (folder / "product.yaml").read_text()
        edit(folder, 2, latency__budget_ms=99)
        again = await gateway.begun(folder)
        assert [load.number for load in again.loads] == [1]
        assert any("other content" in line for line in again.rejected[0].why)
        write(folder / "product.yaml", kept)
        await gateway.look(again)
        assert [load.number for load in again.loads] == [2]

    run(play())


def test_what_no_worker_opened_has_not_taken_its_number(tmp_path: Path) -> None:
    async def play() -> None:
        gateway = Gateway(tmp_path / "journal")
        folder = catalogue.write_folder(tmp_path / "one", generation=1)
        generations = await gateway.begun(folder)
        gateway.workers.fails = True
        edit(folder, 2)
        await gateway.look(generations)
        gateway.workers.fails = False
        edit(folder, 2, latency__budget_ms=99)
        await gateway.look(generations)
        assert gateway.workers.serves["test"].number == 2

    run(play())


def test_what_is_to_be_served_is_not_cleared_away(tmp_path: Path) -> None:
    """However many generations the store has, and whatever this one's number is."""

    async def play() -> None:
        gateway = Gateway(tmp_path / "journal")
        folder = catalogue.write_folder(tmp_path / "one", generation=1)
        there: list[bool] = []

        async def spread(load: Load) -> GatewayError | None:
            there.append((Path(load.snapshot) / "model.onnx").is_file())
            return await gateway.workers.spread(load)

        generations = await gateway.begun(folder, spread=spread)
        for number in range(2, KEEP + 4):
            edit(folder, number)
            await gateway.look(generations)
        assert there == [True] * (KEEP + 2)
        assert len(Registry(gateway.journal / STORE).snapshots("test")) == KEEP

    run(play())


def test_what_is_known_of_models_does_not_grow_for_ever(tmp_path: Path) -> None:
    async def play() -> None:
        gateway = Gateway(tmp_path / "journal")
        folder = catalogue.write_folder(tmp_path / "one", generation=1)
        asked: list[Question] = []
        serial = count()

        async def verified(question: Question) -> Answer:
            asked.append(question)
            answer = await verified_here(replace(question, trials={}))
            if isinstance(answer, Verified):
                trials = {**question.trials, **{f"{next(serial)}": None for _ in range(10)}}
                answer = replace(answer, trials=trials)
            return answer

        generations = await gateway.begun(folder, verify=verified)
        for number in range(2, 12):
            edit(folder, number)
            await gateway.look(generations)
        assert len(asked) == 11
        assert len(asked[-1].trials) == TRIALS_MAX
        assert f"{next(serial) - 11}" in asked[-1].trials, "the newest are kept"

    run(play())


def test_a_restart_does_not_refuse_what_it_serves(tmp_path: Path) -> None:
    """A gate that measures time fails on a machine that is busy as it starts."""

    async def play() -> None:
        gateway = Gateway(tmp_path / "journal")
        folder = catalogue.write_folder(tmp_path / "one", generation=1)
        await gateway.begun(folder)
        digest = gateway.state().serving.digest

        async def verified(question: Question) -> Answer:
            if question.is_snapshot:
                return await verified_here(question)
            return Refused(ModelError("a row takes too long"), 1, digest, [])

        again = await gateway.begun(folder, verify=verified)
        assert [load.number for load in again.loads] == [1]
        assert again.rejected == ()
        assert gateway.workers.told == []
        assert gateway.state().refused is None

    run(play())


def test_a_product_that_is_verified_for_long_delays_no_other(tmp_path: Path) -> None:
    """To go back is one command, whatever another product's gates are at."""

    async def play() -> None:
        gateway = Gateway(tmp_path / "journal")
        slow = catalogue.write_folder(tmp_path / "slow", generation=1, product="a-slow")
        quick = catalogue.write_folder(tmp_path / "quick", generation=1, product="quick")
        reached, stopping = asyncio.Event(), asyncio.Event()

        async def verified(question: Question) -> Answer:
            if question.product == "a-slow":
                reached.set()
                await asyncio.Event().wait()
            return await verified_here(question)

        generations = await gateway.begun(slow, quick, verify=verified, clock_s=time.monotonic)
        edit(slow, 2, product="a-slow")
        keeper = asyncio.create_task(generations.keep(stopping))
        await reached.wait()
        edit(quick, 2, product="quick")
        while "quick" not in gateway.workers.serves:
            await asyncio.sleep(0.01)
        edit(quick, 3, product="quick")
        reload = asyncio.create_task(generations.reload())
        while gateway.workers.serves["quick"].number != 3:
            await asyncio.sleep(0.01)
        for task in (keeper, reload):
            task.cancel()
        await asyncio.wait({keeper, reload})

    run(play())
