"""Whatever becomes of a product's folder, what is served is the newest good generation of it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import catalogue
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from gateway.errors import GatewayError, ModelError, ProductError
from gateway.journal import Rejected
from gateway.model.registry import STORE, Registry
from gateway.product import edit
from gateway.serve.crew.control import Load
from gateway.serve.succession import verifier
from gateway.serve.succession.generations import Generations
from gateway.serve.succession.verification import Answer, Question, answer_of
from gateway.serve.succession.watch import SETTLED_S, Signature, Watch, signature

MODELS = {f"m{i}.onnx": catalogue.logistic_model(bias=-4.0 - i) for i in range(3)}


async def verified_here(question: Question) -> Answer:
    """Verify in this process: the same code, without a process each."""
    row = await asyncio.to_thread(verifier.answer, question)
    return answer_of(json.loads(json.dumps(row)))


class OneLook(asyncio.Event):
    """Set by whoever waits for it: `keep` looks at each folder once, and ends."""

    async def wait(self) -> Literal[True]:
        self.set()
        return True


class Workers:
    """Stand-ins for worker processes: they serve what they are told, or do not open it."""

    def __init__(self) -> None:
        self.serves: dict[str, Load] = {}
        self.told: list[Rejected] = []
        self.fails = False

    async def spread(self, load: Load) -> GatewayError | None:
        if self.fails:
            return ModelError("there is no memory left for it")
        self.serves[load.product] = load
        return None


def product_text(number: int, *, model: str = "m0.onnx", fee: float = 25.0) -> str:
    import hashlib

    values = catalogue.declared(
        generation=number,
        costs__false_negative__fee=fee,
        models__champion__path=model,
        models__champion__sha256=hashlib.sha256(MODELS[model]).hexdigest(),
        models__challengers=[{"name": "rival", "path": "m2.onnx", "mode": "shadow"}],
    )
    return json.dumps(values, indent=1)


def write(path: Path, text: str) -> None:
    """As editors write: beside, then by rename."""
    beside = path.with_suffix(".new")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


class FolderMachine(RuleBasedStateMachine):
    """Edits, bad edits, promotions, rollbacks, crashes and restarts, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.base = Path(tempfile.mkdtemp())
        self.folder, self.journal = self.base / "product", self.base / "journal"
        self.folder.mkdir()
        for name, content in MODELS.items():
            (self.folder / name).write_bytes(content)
        self.now_s = 0.0
        self.good: list[tuple[int, str]] = []  # every generation that was served, and its text
        self.is_refused = False

    @property
    def yaml(self) -> Path:
        return self.folder / "product.yaml"

    def run(self, what: Callable[[], object]) -> None:
        asyncio.run(what())  # type: ignore[arg-type]

    def start(self) -> None:
        """A new supervisor, and new workers: whatever was before is gone."""
        self.workers = Workers()

        async def begin() -> None:
            self.generations = Generations(
                [self.folder],
                self.journal,
                spread=self.workers.spread,
                tell=self.workers.told.append,
                verify=verified_here,
                wall_ns=lambda: int(1e18 + self.now_s * 1e9),
                clock_s=lambda: self.now_s,
            )
            await self.generations.begin()
            self.workers.serves = {load.product: load for load in self.generations.loads}

        self.run(begin)

    def look(self) -> None:
        """Let the folder come to rest, and be looked at."""

        async def glances() -> None:
            for _ in range(3):
                await self.generations.keep(OneLook())
                self.now_s += SETTLED_S + 0.01

        self.run(glances)

    @property
    def number(self) -> int:
        return self.good[-1][0]

    @property
    def text(self) -> str:
        return self.good[-1][1]

    def takes(self, text: str) -> None:
        self.good.append((edit.content_of(text)["generation"], text))
        self.is_refused = False

    @initialize()
    def first(self) -> None:
        text = product_text(1)
        write(self.yaml, text)
        self.takes(text)
        self.start()

    @rule(more=st.integers(1, 3), fee=st.integers(0, 50), model=st.sampled_from(["m0", "m1"]))
    def edit(self, more: int, fee: int, model: str) -> None:
        highest = max(number for number, _ in self.good)
        text = product_text(highest + more, model=f"{model}.onnx", fee=fee)
        write(self.yaml, text)
        self.look()
        self.takes(text)

    @rule(fee=st.integers(51, 99))
    def edit_without_a_new_number(self, fee: int) -> None:
        write(self.yaml, product_text(self.number, fee=fee))
        self.look()
        self.is_refused = True

    @rule(cut=st.floats(0.05, 0.95))
    def half_of_a_file(self, cut: float) -> None:
        text = product_text(self.number + 1)
        write(self.yaml, text[: int(len(text) * cut)])
        self.look()
        self.is_refused = True

    @rule()
    def another_model_under_the_name(self) -> None:
        text = product_text(self.number + 1, model="m1.onnx")
        (self.folder / "m1.onnx").write_bytes(MODELS["m1.onnx"][:-7])
        write(self.yaml, text)
        self.look()
        (self.folder / "m1.onnx").write_bytes(MODELS["m1.onnx"])
        write(self.yaml, "{}")
        self.look()
        self.is_refused = True

    @rule()
    def away_and_back(self) -> None:
        away = self.base / "away"
        self.folder.rename(away)
        self.look()
        assert self.generations.rejected
        away.rename(self.folder)
        write(self.yaml, self.text)
        self.look()
        self.is_refused = False

    @rule()
    def promote(self) -> None:
        import hashlib

        if (
            "rival" not in self.text
            or edit.content_of(self.text)["models"]["champion"].get("name") == "rival"
        ):
            return
        sha256 = hashlib.sha256(MODELS["m2.onnx"]).hexdigest()
        text = edit.promoted(self.text, "rival", sha256=sha256)
        highest = max(number for number, _ in self.good)
        text = edit.with_generation(text, highest + 1)
        write(self.yaml, text)
        self.look()
        self.takes(text)

    @precondition(lambda self: len(self.good) > 1)
    @rule(data=st.data())
    def roll_back(self, data: st.DataObject) -> None:
        _, before = self.good[data.draw(st.integers(0, len(self.good) - 2))]
        highest = max(number for number, _ in self.good)
        text = edit.with_generation(before, highest + 1)
        write(self.yaml, text)
        self.look()
        self.takes(text)

    @precondition(lambda self: len(self.good) > 1)
    @rule()
    def restore_what_was_served(self) -> None:
        """A deployment that goes back to the very same file: that number means that file."""
        number, text = self.good[-2]
        write(self.yaml, text)
        self.look()
        if text != self.text:
            self.good.append((number, text))
        self.is_refused = False

    @rule()
    def workers_cannot_open_it(self) -> None:
        highest = max(number for number, _ in self.good)
        write(self.yaml, product_text(highest + 1, fee=77))
        self.workers.fails = True
        self.look()
        self.workers.fails = False
        self.is_refused = True

    @rule()
    def crash_and_start_again(self) -> None:
        try:
            text = self.yaml.read_text()
            number = edit.content_of(text).get("generation")
        except GatewayError:
            number = None
        self.start()
        if number == max(n for n, _ in self.good) + 1 and '"fee": 77' in text:
            self.takes(text)  # the workers of before could not open it

    @invariant()
    def the_newest_good_one_is_served(self) -> None:
        if not self.good:
            return
        number, text = self.good[-1]
        (load,) = self.generations.loads
        assert self.workers.serves["test"] == load
        assert (load.number, (Path(load.snapshot) / "product.yaml").read_text()) == (number, text)
        assert bool(self.generations.rejected) == self.is_refused
        state = Registry(self.journal / STORE).state("test")
        assert state is not None
        assert (state.serving.generation, state.serving.digest) == (load.number, load.digest)
        assert (state.refused is not None) == self.is_refused
        assert state.history[-1].digest == load.digest

    def teardown(self) -> None:
        for place in self.base.rglob("*"):
            if place.is_dir() and not place.is_symlink():
                place.chmod(0o700)
        shutil.rmtree(self.base)


FolderMachine.TestCase.settings = settings(
    max_examples=5, stateful_step_count=12, suppress_health_check=list(HealthCheck), deadline=None
)
TestTheNewestGoodGeneration = pytest.mark.slow(FolderMachine.TestCase)


class Folder:
    """A folder whose looks a test sets."""

    def __init__(self) -> None:
        self.looks: Signature = ()
        self.now_s = 100.0
        self.watch = Watch(Path("x"), clock_s=lambda: self.now_s, look=lambda _: self.looks)

    def at(self, now_s: float, looks: object) -> Signature | None:
        self.now_s, self.looks = now_s, (("a", hash(looks), 0, 0),)
        return self.watch.settled()


def test_a_folder_is_offered_when_it_has_been_at_rest() -> None:
    folder = Folder()
    assert folder.at(0.0, "one") is None
    assert folder.at(SETTLED_S / 2, "two") is None, "it still moves"
    assert folder.at(SETTLED_S, "two") is None
    settled = folder.at(SETTLED_S * 1.6, "two")
    assert settled is not None
    folder.watch.tried(settled)
    assert folder.at(10.0, "two") is None, "what was tried is not tried again"
    assert folder.at(11.0, "three") is None
    assert folder.at(11.1, "two") is None, "it is as it was"
    folder.watch.tried(None)
    assert folder.at(20.0, "two") == settled


def test_what_a_link_leads_to_is_seen(tmp_path: Path) -> None:
    """As Kubernetes swaps a ConfigMap: ..data leads to another directory."""
    folder = tmp_path / "mounted"
    folder.mkdir()
    for name in ("..2026_a", "..2026_b"):
        (folder / name).mkdir()
        (folder / name / "product.yaml").write_text("same length " + name)
    (folder / "..data").symlink_to("..2026_a")
    (folder / "product.yaml").symlink_to("..data/product.yaml")
    before = signature(folder)
    assert len(before) == 1
    (folder / "..data.new").symlink_to("..2026_b")
    (folder / "..data.new").replace(folder / "..data")
    assert signature(folder) != before
    assert signature(tmp_path / "nowhere") == signature(tmp_path / "nowhere")


def test_a_folder_that_was_never_good_is_an_error(tmp_path: Path) -> None:
    folder = catalogue.write_folder(tmp_path / "test", generation=0)

    async def begin() -> None:
        workers = SimpleNamespace(spread=None, tell=None)
        await Generations(
            [folder],
            tmp_path / "journal",
            spread=workers.spread,
            tell=workers.tell,
            verify=verified_here,
        ).begin()

    with pytest.raises(ProductError):
        asyncio.run(begin())


def test_a_folder_that_is_good_again_is_said_as_loudly_as_one_that_went_bad(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = catalogue.write_folder(tmp_path / "test")
    good = (folder / "product.yaml").read_text()
    workers = Workers()

    async def bad_and_good() -> None:
        generations = Generations(
            [folder],
            tmp_path / "journal",
            spread=workers.spread,
            tell=workers.told.append,
            verify=verified_here,
        )
        await generations.begin()
        for text in ("generation: [", good):
            write(folder / "product.yaml", text)
            await generations.reload()
        await generations.reload()

    with caplog.at_level("INFO"):
        asyncio.run(bad_and_good())
    bad, back = caplog.messages
    assert "what its folder holds now is refused, generation 3 is served on" in bad
    assert "its folder holds again what is served, generation 3" in back


def test_where_the_snapshot_is_gone_too_the_folder_is_what_is_wrong(tmp_path: Path) -> None:
    folder, journal = catalogue.write_folder(tmp_path / "test"), tmp_path / "journal"
    workers = Workers()

    async def begin() -> None:
        await Generations(
            [folder],
            journal,
            spread=workers.spread,
            tell=workers.told.append,
            verify=verified_here,
        ).begin()

    asyncio.run(begin())
    (snapshot,) = (journal / "generations" / "test").glob("3-*")
    snapshot.rename(tmp_path / "gone")
    (folder / "product.yaml").write_text("generation: [")
    with pytest.raises(ProductError, match=r"product\.yaml:1: YAML syntax"):
        asyncio.run(begin())


def test_a_torn_model_is_named_and_not_the_generations_number(tmp_path: Path) -> None:
    """To raise the number, as the other answer says, would not help."""
    folder = catalogue.write_folder(tmp_path / "test")
    store = str(tmp_path / "store")
    first = verifier.answer(Question(str(folder), store, "", "", 0, {}, True, False, {}))
    load = first["verified"]["load"]
    served, number = load["digest"], load["number"]
    (folder / "model.onnx").write_bytes((folder / "model.onnx").read_bytes()[:100])
    numbers = {str(number): served}
    again = Question(str(folder), store, "test", served, number, numbers, False, False, {})
    said = str(verifier.answer(again)["refused"]["error"])
    assert "sha256" in said
    assert "Raise it" not in said


def test_a_file_that_changes_while_it_is_read_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = catalogue.write_folder(tmp_path / "test")
    looks = iter(range(10))
    monkeypatch.setattr(verifier, "signature", lambda _: next(looks))
    question = Question(str(folder), str(tmp_path / "store"), "", "", 0, {}, True, False, {})
    assert verifier.answer(question) == {"unchanged": False}
    (folder / "product.yaml").write_text("generation: [")
    assert verifier.answer(question) == {"unchanged": False}, "half of a change is no error"
    assert not os.path.exists(tmp_path / "store")


def test_a_change_is_seen_whatever_else_lies_in_the_folder(tmp_path: Path) -> None:
    """Links that lead nowhere, and more files than are looked at."""
    folder = catalogue.write_folder(tmp_path / "test")
    for i in range(20):
        (folder / f"gone-{i}").symlink_to(tmp_path / "nowhere")
    (folder / "shards").mkdir()
    for i in range(2_100):
        (folder / "shards" / f"{i}").touch()
    before = signature(folder)
    assert before == signature(folder)
    for name in ("product.yaml", "model.onnx"):
        (folder / name).write_bytes((folder / name).read_bytes() + b" ")
        assert signature(folder) != before, name
        before = signature(folder)
