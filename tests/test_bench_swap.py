"""What is said of swaps under load is what happened: against oracles, and a real server."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from gateway.bench import editor, swap
from gateway.bench.count import Answers, count
from gateway.bench.editor import Editor
from gateway.bench.generator import Calls
from gateway.bench.interval import CALLS_MIN, Interval, Timed, between, ratio
from gateway.bench.load import Load
from gateway.bench.machine import cores, resident_bytes
from gateway.bench.phase import AFTER_NS, Phase, Stretch, Swap, grown, stretch_of
from gateway.bench.product import MEDIUM, File, edition, product_text, tree_ensemble, write_kind
from gateway.bench.rig import Measured, Rig, Scope
from gateway.bench.swap import outcome_of_phases, shadow_ratios, swapped
from gateway.bench.witness import Seen
from gateway.cli import bench
from gateway.cli.bench_account import account
from gateway.cli.demo_server import serving
from gateway.model import load_generation, read_product
from gateway.model.runtime import inference_session
from gateway.product import schema_fingerprint

MS = 1_000_000
MIB = 1 << 20


def measured(took_ms: list[float], *, stood_in: tuple[int, ...] = (), gaps=()) -> Measured:  # type: ignore[no-untyped-def]
    """One call a millisecond, from 1 s on, each answered after its time."""
    size = len(took_ms)
    due_ns = 1000 * MS + np.arange(size, dtype=np.int64) * MS
    which = np.zeros(size, np.uint16)
    calls = Calls(
        begun_ns=1000 * MS,
        scheduled_ns=due_ns,
        sent_ns=due_ns,
        received_ns=due_ns + (np.array(took_ms) * MS).astype(np.int64),
        status=np.zeros(size, np.int16),
        which=which,
        answers=(None,) * size,
        waited=0,
        resent=0,
        lost=0,
    )
    stand_in = np.zeros(size, np.int8)
    stand_in[list(stood_in)] = 1
    answers = Answers(stand_in, np.ones(size, np.int8), np.zeros(size, np.int64), ())
    counted = count(calls, answers, budget_us=MEDIUM.budget_us, gaps=gaps)
    return Measured(Load(calls, Seen(tuple(gaps), True)), answers, counted, (), MEDIUM.budget_us)


def swap_at(begun_ms: int, served_ms: int | None, *, resident: int | None = 100 * MIB) -> Swap:
    served_ns = None if served_ms is None else (1000 + served_ms) * MS - AFTER_NS
    return Swap(2, (1000 + begun_ms) * MS, served_ns, resident)


# --- intervals ----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_a_p99_is_that_of_a_hand_written_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    due, took = rng.integers(0, 400, 600), rng.integers(1, 10**6, 600)
    begin, end = (int(one) for one in sorted(rng.integers(0, 401, 2)))
    calls = zip(due.tolist(), took.tolist(), strict=True)
    inside = sorted(ns for at, ns in calls if begin <= at < end)
    wanted = None
    if len(inside) >= CALLS_MIN:
        wanted = inside[math.ceil(0.99 * len(inside) - 1e-9) - 1] / 1000
    assert Timed.of(due, took).p99_us(Interval(begin, end)) == wanted


def test_between_swaps_that_overlap_is_nothing() -> None:
    rests = between([Interval(10, 30), Interval(25, 40)], Interval(0, 50))
    assert rests == (Interval(0, 10), Interval(30, 25), Interval(40, 50))
    timed = Timed.of(np.full(500, 27, np.int64), np.ones(500, np.int64))
    assert timed.p99_us(rests[1]) is None
    assert ratio(timed, [rests[1]], [rests[0]]) is None


# --- a load with swaps --------------------------------------------------------------------


class TestStretch:
    def test_a_swap_is_held_against_the_calls_around_it(self) -> None:
        """The first swap doubles p99, the second leaves it as it is, the third is never served."""
        took = [1.0] * 4000
        took[500:1000] = [2.0] * 500
        # From its edit on nothing is control, and nothing that was served either.
        took[3000:4000] = [50.0] * 1000
        one = stretch_of(
            measured(took), (swap_at(500, 1000), swap_at(2000, 2500), swap_at(3000, None))
        )
        assert one.swap_ratios == [2.0, 1.0]
        assert one.noise == [1.0, 1.0]
        assert Phase("it", (one,)).figures["p99_ratio_p95"] == 2.0
        assert (len(one.swaps), Phase("it", (one,)).figures["swaps"]) == (3, 2)

    def test_the_time_after_a_swap_belongs_to_it(self) -> None:
        took = [1.0] * 3000
        begins = 1000 - AFTER_NS // MS
        took[begins:1000] = [3.0] * (1000 - begins)
        assert stretch_of(measured(took), (swap_at(500, 1000),)).swap_ratios == [3.0]

    def test_calls_under_which_the_machine_stood_still_tell_nothing(self) -> None:
        took = [1.0] * 2000
        took[700:720] = [40.0] * 20
        gap = ((1000 + 719) * MS, (1000 + 740) * MS)
        swaps = (swap_at(500, 1000),)
        held = stretch_of(measured(took, stood_in=(705, 1500)), swaps)
        assert (held.swap_ratios, len(held.stood_in_ns)) == ([40.0], 2)
        assert Phase("it", (held,)).stood_in_swapping == 1
        excused = stretch_of(measured(took, stood_in=(705, 1500), gaps=[gap]), swaps)
        assert (excused.swap_ratios, len(excused.stood_in_ns)) == ([1.0], 1)

    def test_a_shadow_is_held_against_the_time_without_one(self) -> None:
        # Without (of another model), without, with, without, with, without.
        took = [9.0] * 1000 + [1.0] * 1000 + [1.2] * 1000 + [1.0] * 1000
        took += [1.5] * 1000 + [1.0] * 1000
        swaps = tuple(swap_at(at, at + 300) for at in range(1000, 6000, 1000))
        found = shadow_ratios([stretch_of(measured(took), swaps)])
        assert found == pytest.approx((1.2, 1.5))


def test_memory_is_held_against_that_after_the_tenth_swap_or_half_of_them() -> None:
    def held(*mib: float) -> tuple[Swap, ...]:
        return tuple(swap_at(0, 400, resident=round(one * MIB)) for one in mib)

    assert grown(held(*[50.0] * 9, 100.0, *[500.0] * 20, 120.0)) == 1.2
    assert grown(held(80.0, 100.0, 300.0, 110.0)) == 1.1
    assert grown(held(100.0)) == 1.0
    assert grown((*held(100.0), swap_at(0, 400, resident=None))) is None
    assert resident_bytes([os.getpid()]) == pytest.approx(
        int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"), rel=0.2
    )
    assert resident_bytes([os.getpid(), 2**31 - 1]) is None


# --- the verdict --------------------------------------------------------------------------


def calm(*, stood_in: tuple[int, ...] = (), took: float = 1.0, shadow: float = 1.0) -> Stretch:
    """Five swaps, each of `took` x what calls take around it; `shadow` x in every other rest."""
    times = []
    for rest in range(6):
        times += [shadow if rest in (2, 4) else 1.0] * 500 + [took] * 500
    swaps = tuple(swap_at(1000 * i + 500, 1000 * i + 1000) for i in range(5))
    return stretch_of(measured(times, stood_in=stood_in), swaps)


def verdict(**phases: Stretch) -> tuple[str, ...]:
    names = ("first", "medium", "large", "beside")
    four = [Phase(name, (phases.get(name, calm()),)) for name in names]
    return outcome_of_phases(4000.0, *four).broken


def test_a_server_that_nobody_notices_swapping_keeps_its_promises() -> None:
    assert verdict() == ()
    assert verdict(medium=calm(took=1.25), beside=calm(shadow=1.1)) == ()


def test_each_promise_that_a_swap_can_break_is_named() -> None:
    slow, unserved, larger = calm(took=1.6), calm(), calm()
    unserved = replace(
        unserved, swaps=(*unserved.swaps[:-1], replace(unserved.swaps[-1], served_ns=None))
    )
    last = replace(larger.swaps[-1], resident_bytes=120 * MIB)
    larger = replace(larger, swaps=(*larger.swaps[:-1], last))
    assert verdict(medium=slow) == (
        "p99 in a swap is 1.6 x around it, more than 1.25 (medium)",
        "p99 in the worst of twenty swaps is 1.6 x around it, more than 1.5 (medium)",
    )
    assert verdict(first=calm(stood_in=(7, 700))) == (
        "2 calls were answered by a stand-in, 1 of them in swaps (first)",
    )
    assert verdict(large=unserved) == ("1 of 5 edits were not served in their time (large)",)
    assert verdict(large=larger) == (
        "memory is 1.2 x after the first swaps, more than 1.1 (large)",
    )
    assert verdict(beside=calm(shadow=1.2)) == (
        "p99 with a shadow is 1.2 x without it, more than 1.1 (beside)",
    )
    shed = replace(calm(), count=replace(calm().count, shed=3))
    assert verdict(medium=shed) == ("3 calls were shed (medium)",)
    late = measured([1.0] * 999 + [27.0])
    assert "1 of 1,000 calls were late" in verdict(large=stretch_of(late, calm().swaps))[0]


def test_figures_that_too_few_calls_tell_of_are_doubted() -> None:
    few = stretch_of(measured([1.0] * 50), (swap_at(10, 20),))
    phases = [Phase(name, (few,)) for name in ("first", "medium", "large", "beside")]
    found = outcome_of_phases(4000.0, *phases)
    assert found.figures["p99_ratio"] is found.figures["shadow_p99_ratio"] is None
    assert len(found.doubts) == 3


# --- what is done in which order ----------------------------------------------------------


class Planned:
    """The scenario on a server that is not there: what it asks for, and the folder's texts."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, took_ms: int) -> None:
        write_kind(folder, replace(MEDIUM, row_us=0.0))
        self.folder, self.took_ms = folder, took_ms
        self.seconds = 0.0
        self.edits: dict[str, list[tuple[str, str | None]]] = {}
        monkeypatch.setattr(swap, "LARGE_BYTES", MIB)
        monkeypatch.setattr(swap, "swapped", self.swapped)
        most = SimpleNamespace(figures={"capacity": 4000.0})
        monkeypatch.setattr(swap, "capacity", lambda *_: most)
        monkeypatch.setattr(editor.os, "kill", lambda pid, number: None)

    def swapped(
        self,
        rig: Rig,
        edits: Editor,
        what: str,
        deeds: list[Callable[[], None]],
        rate_per_s: float,
        period_s: float,
        rest_s: float,
    ) -> Phase:
        assert rate_per_s == (1000.0 if what == "a large model" else 2000.0)
        self.seconds += rest_s + len(deeds) * period_s
        for deed in deeds:
            deed()
            product = read_product(self.folder)
            assert product.generation == edits.generation
            others = [one.path for one in product.models.challengers]
            edit = (product.models.champion.path, others[0] if others else None)
            self.edits.setdefault(what, []).append(edit)
        every_ms = self.took_ms + 500
        begins = range(500, 500 + every_ms * len(deeds), every_ms)
        swaps = tuple(swap_at(at, at + self.took_ms) for at in begins)
        times = [1.0] * (every_ms * len(deeds) + 1000)
        return Phase(what, (stretch_of(measured(times), swaps),))

    def run(self, scope: Scope) -> None:
        server = SimpleNamespace(pid=0, workers=(os.getpid(),))
        rig = SimpleNamespace(
            folders={MEDIUM.name: self.folder}, journal=self.folder / "journal", server=server
        )
        swap.swap(rig, scope)  # type: ignore[arg-type]


def test_the_scenario_swaps_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = Planned(tmp_path / "it", monkeypatch, 700)
    planned.run(Scope(20.0, 1, swaps=60))
    small = planned.edits["another model"]
    assert small == [(f"edition-{number}.onnx", None) for number in range(3, 63)]
    assert planned.edits["a large model"] == [
        (f"large-{number % 2}.onnx", None) for number in range(6)
    ]
    none, one = ("model.onnx", None), ("model.onnx", "model-1.onnx")
    assert planned.edits["a shadow beside"] == [none, one, none, one, none, one, none]
    # Old files go, and those that the folder may still need stay.
    assert sorted(path.name for path in (tmp_path / "it").glob("edition-*")) == [
        "edition-61.onnx",
        "edition-62.onnx",
    ]


@pytest.mark.parametrize(("took_ms", "swaps"), [(1_250, 18), (2_250, 11), (3_250, 9)])
def test_a_quick_run_takes_less_than_two_minutes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, took_ms: int, swaps: int
) -> None:
    """Each load costs a second or two more, and there are eight."""
    planned = Planned(tmp_path / "it", monkeypatch, took_ms)
    planned.run(Scope(6.0, 1, swaps=30, swaps_s=bench.QUICK_SWAPS_S))
    assert planned.seconds < 100
    assert len(planned.edits["another model"]) >= swaps
    assert len(planned.edits["a large model"]) >= 2


# --- the models ---------------------------------------------------------------------------


def test_an_edition_is_another_file_and_the_same_model() -> None:
    model = tree_ensemble(trees=3)
    again = edition(model, 7)
    assert File.of("a", model).sha256 != File.of("a", again).sha256
    rows = np.random.default_rng(1).random((5, 30), np.float32)
    scores = [
        inference_session(one).run(["probabilities"], {"features": rows})[0]
        for one in (model, again)
    ]
    assert (scores[0] == scores[1]).all()


def test_a_table_weighs_and_is_looked_up() -> None:
    """Scores move with what the table says, where it says something great."""
    light = tree_ensemble(trees=3)
    heavy = tree_ensemble(trees=3, table_bytes=MIB)
    assert len(heavy) - len(light) == pytest.approx(MIB, rel=0.01)
    rows = np.random.default_rng(1).random((200, 30), np.float32)
    loud = onnx.ModelProto.FromString(heavy)
    (table,) = (one for one in loud.graph.initializer if one.name == "table")
    table.raw_data = (np.full(MIB // 4, 5e5, np.float32)).tobytes()
    scores = [
        inference_session(one).run(["probabilities"], {"features": rows})[0]
        for one in (light, heavy, loud.SerializeToString())
    ]
    assert np.abs(scores[0] - scores[1]).mean() < 1e-3
    assert np.abs(scores[0] - scores[2]).mean() > 1e-2


# --- a real server ------------------------------------------------------------------------


def served(edits: Editor, generation: int) -> bool:
    edits.look()
    (one,) = edits.since(generation - 1)
    return one.served_ns is not None


def until(what: Callable[[], bool], says: str) -> None:
    give_up_s = time.monotonic() + 60
    while not what():
        assert time.monotonic() < give_up_s, says
        time.sleep(0.05)


@pytest.mark.slow
def test_three_swaps_of_a_real_server_are_seen_in_their_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A new model, a shadow beside it, and none again: each is served, counted and shown."""
    folder, journal, places = write_kind(tmp_path / "it", MEDIUM), tmp_path / "journal", cores()
    with serving([folder], journal, cores=places.server) as server:
        assert len(server.workers) == 1
        rig = Rig(
            server,
            schema_fingerprint(read_product(folder).features),
            places,
            np.random.default_rng(1),
            lambda *_: None,
            folders={MEDIUM.name: folder},
            journal=journal,
        )
        edits = Editor(rig, MEDIUM)
        champion, other = (
            File.of(name, (folder / name).read_bytes()) for name in ("model.onnx", "model-1.onnx")
        )
        deeds = [
            partial(edits.serve_new, (folder / "model-1.onnx").read_bytes()),
            partial(edits.serve, champion, other),
            partial(edits.serve, champion),
        ]
        stretches = []
        for number, deed in enumerate(deeds, 2):
            phase = swapped(rig, edits, "three", [deed], 200.0, 1.5, 0.5)
            # A busy machine may take longer than the load.
            until(partial(served, edits, number), f"generation {number} is served")
            swaps = edits.since(number - 1)
            stretches.append(replace(phase.stretches[0], swaps=swaps))
    phase = Phase("three", tuple(stretches))
    assert [one.generation for one in phase.served] == [2, 3, 4]
    times = [ns for one in phase.served for ns in (one.begun_ns, one.served_ns or 0)]
    assert times == sorted(times)
    for one in stretches:
        assert one.whole.begin_ns < one.swaps[0].begun_ns < one.whole.end_ns
        assert (one.count.sent, one.count.failed) == (400, 0)
    figures = phase.figures
    assert 0 < figures["swap_ms"] <= figures["swap_ms_max"]
    assert figures["rss_mib"] > 20
    assert 0.5 < figures["rss_ratio"] < 2
    held = account(journal, rig.tally)
    assert (held["unrecorded"], held["answered"]) == (0, held["recorded"])
    assert held["scored"] > 0
    assert load_generation(folder).product.generation == 4
    found = bench._found(outcome_of_phases(1000.0, phase, phase, phase, phase), held, places)
    assert json.loads(json.dumps(found))["swaps"] == 3
    assert found["failed"] == found["large"]["failed"] == 0
    bench._show(found)
    shown = capsys.readouterr().out
    for part in ("swap:", "swaps: 3", "a large model: swaps: 3", "a shadow scored"):
        assert part in shown


def test_the_text_of_a_generation_is_a_product(tmp_path: Path) -> None:
    folder = write_kind(tmp_path / "it", replace(MEDIUM, row_us=0.0))
    one, other = (
        File.of(name, (folder / name).read_bytes()) for name in ("model.onnx", "model-1.onnx")
    )
    assert one.sha256 != other.sha256
    text = product_text(other, name="x", budget_ms=25.0, generation=9, shadow=one)
    (folder / "product.yaml").write_text(text)
    generation = load_generation(folder)
    assert (generation.product.generation, generation.champion.digest) == (9, other.sha256)
    assert [(arm.mode, arm.classifier.digest) for arm in generation.arms][1:] == [
        ("shadow", one.sha256)
    ]
