"""Another generation takes over between two turns, under load: nobody fails, nobody sees both."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
import weakref
from collections import Counter
from dataclasses import replace
from itertools import count
from pathlib import Path

import callers
import catalogue
import grpc
import numpy as np
import pytest
from conftest import WAIT_S, Running, Serve
from test_supervisor import serving, wait_until

from gateway.journal import Decision, Generation, Record, Rejected, Scored, read, segments, verify
from gateway.model import Generation as Loaded
from gateway.model import load_generation
from gateway.model.registry import Registry
from gateway.serve.hall import shadow as shadow_module
from gateway.v1 import decision_pb2 as pb
from gateway.v1.decision_pb2_grpc import DecisionServiceStub

HEAVY_NS = 40_000_000
STRICT = catalogue.logistic_model(bias=0.0)
BOLD = catalogue.logistic_model(bias=-8.0)


def loaded(folder: Path, number: int, model: bytes | None = None, **changes: object) -> Loaded:
    """Load a product with a budget that a busy machine keeps."""
    changes = {"latency__budget_ms": 10_000, **changes}
    return load_generation(catalogue.write_folder(folder, model, generation=number, **changes))


def with_challengers(folder: Path, number: int, *challengers: dict[str, object]) -> Loaded:
    """Return a generation with challengers; v8 is strict, v9 bold."""
    folder.mkdir()
    (folder / "v8.onnx").write_bytes(STRICT)
    (folder / "v9.onnx").write_bytes(BOLD)
    return loaded(folder, number, models__challengers=list(challengers))


def records(journal: Path) -> list[Record]:
    found = [item for segment in segments(journal) for item in read(segment)]
    assert all(isinstance(item, Record) for item in found)
    return found  # type: ignore[return-value]


def ask(running: Running, calls: int) -> list[pb.DecideResponse]:
    stub = DecisionServiceStub(running.channel)
    answers: list[pb.DecideResponse] = []
    for first in range(0, calls, 100):  # so many streams fit one connection
        futures = [
            stub.Decide.future(
                catalogue.request(running.fingerprint, transaction_id=f"t-{i}", subject=f"s-{i}")
            )
            for i in range(first, min(first + 100, calls))
        ]
        answers += [future.result(60) for future in futures]
    return answers


def wait_for_entries(journal: Path, holds: object) -> list[Record]:
    until_s = time.monotonic() + 60
    while True:
        found = records(journal)
        if holds(found):  # type: ignore[operator]
            return found
        assert time.monotonic() < until_s
        time.sleep(0.02)


@pytest.mark.slow
def test_a_call_sees_one_generation_from_end_to_end(
    serve: Serve, front: str, generation: Loaded, tmp_path: Path
) -> None:
    """Thirty swaps under callers that do not stop: each answer, and its record, is of one."""
    one, other = loaded(tmp_path / "one", 4), loaded(tmp_path / "other", 5, STRICT)
    digests = {4: one.champion.digest, 5: other.champion.digest}
    with serve(one) as running:
        with callers.calling("grpcio", running.address, running.fingerprint) as told:
            for i in range(30):
                running.swap((other, one)[i % 2])
                told.wait_for(5)
        running.ended()
    assert told.failed == {}
    assert verify(running.journal).ok
    seen: Counter[int] = Counter()
    for record in records(running.journal):
        entry = record.entry
        if isinstance(entry, Decision):
            answer = pb.DecideResponse.FromString(entry.response)
            assert answer.stand_in == pb.NONE
            assert answer.product_generation == entry.generation
            assert answer.model.digest == digests[entry.generation]
            known = record.generation(entry.product)
            assert known is not None
            assert (known.generation, known.product) == (entry.generation, "test")
            seen[entry.generation] += 1
    assert set(seen) == {4, 5}
    indices = [r.entry.index for r in records(running.journal) if isinstance(r.entry, Generation)]
    assert len(indices) == len(set(indices)) == 30


def test_what_waits_for_the_model_before_is_decided_by_it(
    serve: Serve, generation: Loaded, tmp_path: Path
) -> None:
    """The one before goes when its last call is answered, and then nothing holds its model."""
    begun, gate = threading.Event(), threading.Event()
    old, new = loaded(tmp_path / "old", 4), loaded(tmp_path / "new", 5)
    score = old.champion.score_one

    def score_one(row: bytes) -> float:
        begun.set()
        assert gate.wait(60)
        return score(row)

    latency = old.product.latency.model_copy(update={"budget_ms": 3_000})
    slow = replace(
        old,
        product=old.product.model_copy(update={"latency": latency}),
        champion=replace(old.champion, score_one=score_one),
    )
    gone = weakref.ref(score_one)
    with serve(generation) as running:
        running.swap(slow, {"test": {1: HEAVY_NS}})
        assert running.succession.gone.get(timeout=60).number == 3
        stub = DecisionServiceStub(running.channel)
        waiting = stub.Decide.future(catalogue.request(transaction_id="old"))
        assert begun.wait(60)
        running.swap(new)
        assert stub.Decide(catalogue.request(transaction_id="new")).product_generation == 5
        assert not waiting.done()
        gate.set()
        answer = waiting.result(60)
        assert (answer.product_generation, answer.stand_in) == (4, pb.NONE)
        serving = running.succession.gone.get(timeout=60)
        assert serving.number == 4
        assert stub.Decide(catalogue.request(transaction_id="after")).product_generation == 5
        del serving, slow, waiting, score_one
        until_s = time.monotonic() + 60
        while gone() is not None and time.monotonic() < until_s:
            gc.collect()
            stub.Decide(catalogue.request(transaction_id=f"{time.monotonic_ns()}"))
        assert gone() is None
        running.ended()
    assert verify(running.journal).ok


def test_a_heavier_generation_moves_beside_the_loop_and_back(
    serve: Serve, generation: Loaded, tmp_path: Path
) -> None:
    heavy, light = loaded(tmp_path / "heavy", 4), loaded(tmp_path / "light", 5)
    with serve(generation) as running:
        running.swap(heavy, {"test": {1: 2_000_000}})
        (answer,) = ask(running, 1)
        assert (answer.product_generation, answer.stand_in) == (4, pb.NONE)
        assert any(thread.name == "annex" for thread in threading.enumerate())
        running.swap(light, {"test": {1: 20_000}})
        (answer,) = ask(running, 1)
        assert (answer.product_generation, answer.stand_in) == (5, pb.NONE)
        running.ended()
    assert not any(thread.name == "annex" for thread in threading.enumerate())


def test_a_shadow_scores_every_call_and_changes_no_answer(serve: Serve, tmp_path: Path) -> None:
    alone = loaded(tmp_path / "alone", 4)
    shadowed = with_challengers(tmp_path / "shadowed", 4, {"name": "v8", "mode": "shadow"})
    with serve(shadowed) as running:
        answers = ask(running, 60)
        running.ended()
    found = records(running.journal)
    decisions = {r.sequence: r.entry for r in found if isinstance(r.entry, Decision)}
    scored = [r.entry for r in found if isinstance(r.entry, Scored)]
    calls = {call.sequence: call for one in scored for call in one.calls}
    assert {one.arm for one in scored} == {1}
    assert sum(one.failed for one in scored) == 0
    assert calls
    assert calls.keys() <= decisions.keys()
    assert sum(one.skipped for one in scored) == len(decisions) - len(calls)
    row = np.array([[20.0, 1.0, 0.0]], dtype=np.float32)
    (expected,) = shadowed.challengers[0].classifier.score(row)
    (own,) = alone.champion.score(row)
    for call in calls.values():
        assert call.score == pytest.approx(expected, abs=1e-6)
        decision = shadowed.challengers[0].policy.decide_one(call.score, 2_000, 2, 1.8e9)
        assert (call.probability, call.action) == (decision.probability, decision.action)
    for answer in answers:
        assert answer.model.name == "v1"
        assert answer.probability == pytest.approx(own, abs=1e-6)
    assert verify(running.journal).ok


def test_a_shadow_that_fails_or_is_slow_is_counted_and_delays_nobody(
    serve: Serve, tmp_path: Path
) -> None:
    """The slow one is at its first batch until all have their answers."""
    generation = with_challengers(
        tmp_path / "both", 4, {"name": "v8", "mode": "shadow"}, {"name": "v9", "mode": "shadow"}
    )
    broken, slow = generation.challengers
    answered = threading.Event()

    def fails(_: object) -> list[float]:
        raise RuntimeError("no")

    def waits(rows: np.ndarray) -> list[float]:
        assert answered.wait(60)
        time.sleep(0.05)
        return [0.5] * len(rows)

    arms = (
        replace(broken, classifier=replace(broken.classifier, score=fails, score_one=fails)),
        replace(slow, classifier=replace(slow.classifier, score=waits)),
    )
    with serve(replace(generation, challengers=arms)) as running:
        answers = [answer for _ in range(30) for answer in ask(running, 20)]
        answered.set()
        running.ended()
    assert all(answer.stand_in == pb.NONE for answer in answers)
    found = [r.entry for r in records(running.journal)]
    decided = sum(isinstance(entry, Decision) for entry in found)
    scored = [entry for entry in found if isinstance(entry, Scored)]
    for arm in (1, 2):
        own = [one for one in scored if one.arm == arm]
        assert sum(len(one.calls) + one.failed + one.skipped for one in own) == decided
    assert not any(one.calls for one in scored if one.arm == 1)
    assert any(one.failed for one in scored if one.arm == 1)
    assert any(one.skipped for one in scored if one.arm == 2)


def test_a_canary_decides_its_share_by_subject_and_everybody_scores(
    serve: Serve, tmp_path: Path
) -> None:
    """Sticky: the same subject, the same model. Every arm's probability is in the journal."""
    generation = with_challengers(
        tmp_path / "canary", 4, {"name": "v8", "mode": "canary", "share": 0.3}
    )
    with serve(generation) as running:
        first, second = ask(running, 300), ask(running, 300)
        running.ended()
    models = [answer.model.name for answer in first]
    assert models == [answer.model.name for answer in second]
    assert set(models) == {"v1", "v8"}
    assert abs(models.count("v8") / 300 - 0.3) < 4 * (0.3 * 0.7 / 300) ** 0.5
    found = records(running.journal)
    beside = {
        call.sequence: one.arm
        for r in found
        if isinstance(one := r.entry, Scored)
        for call in one.calls
    }
    decided = {r.sequence: r.entry.arm for r in found if isinstance(r.entry, Decision)}
    assert set(beside.values()) == {0, 1}
    assert all(arm == 1 - decided[sequence] for sequence, arm in beside.items())
    skipped = sum(r.entry.skipped for r in found if isinstance(r.entry, Scored))
    assert len(beside) + skipped == len(decided)


def test_a_canarys_subjects_stay_as_its_share_grows(tmp_path: Path) -> None:
    from gateway.serve.hall.admit import Serving

    taken: list[set[str]] = []
    for number, share in enumerate((0.05, 0.3, 0.9)):
        generation = with_challengers(
            tmp_path / f"{number}",
            number + 1,
            {"name": "v8", "mode": "canary", "share": share},
            {"name": "v9", "mode": "canary", "share": (1.0 - share) / 2},
        )
        serving = Serving.of(generation, 0)
        drawn = {f"s-{i}": serving.drawn(f"s-{i}").arm for i in range(4_000)}
        taken.append({subject for subject, arm in drawn.items() if arm == 1})
        for arm, expected in ((1, share), (2, (1.0 - share) / 2)):
            found = sum(one == arm for one in drawn.values()) / 4_000
            assert abs(found - expected) <= 4 * (expected * (1 - expected) / 4_000) ** 0.5
    assert taken[0] < taken[1] < taken[2]


def test_a_refused_change_is_in_the_journal_and_on_health(serve: Serve, generation: Loaded) -> None:
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    rejected = Rejected("test", "models/test", 4, "ab" * 32, ("costs.fee is no number",))
    with serve(generation) as running:
        health = health_pb2_grpc.HealthStub(running.channel)

        def status(name: str) -> int:
            return int(health.Check(health_pb2.HealthCheckRequest(service=name)).status)

        serving = health_pb2.HealthCheckResponse.SERVING
        assert status("generation/test") == serving
        running.succession.reject(rejected)
        wait_for_entries(running.journal, lambda found: any(r.entry == rejected for r in found))
        assert status("generation/test") == health_pb2.HealthCheckResponse.NOT_SERVING
        assert status("product/test") == status("") == serving
        running.succession.reject(replace(rejected, why=()))
        until_s = time.monotonic() + 60
        while status("generation/test") != serving:
            assert time.monotonic() < until_s
        running.ended()


def test_later_segments_name_the_generations_that_still_serve(
    serve: Serve, generation: Loaded, tmp_path: Path
) -> None:
    """Two hundred swaps do not make every header longer."""
    others = [loaded(tmp_path / f"{i}", 4 + i) for i in range(2)]
    indices = count(1)
    with serve(generation, journal_max_bytes=256 << 10) as running:
        for i in range(20):
            running.swap(others[i % 2])
            next(indices)
            ask(running, 100)
        running.ended()
    headers = [one.header for one in segments(running.journal)]
    assert len(headers) > 1
    assert all(header is not None and len(header.products) <= 3 for header in headers[1:])
    for record in records(running.journal):
        if isinstance(record.entry, Decision):
            assert record.generation(record.entry.product) is not None


@pytest.mark.slow
@pytest.mark.parametrize("front", ["native"])
def test_every_kind_of_change_under_load_in_real_processes(front: str, tmp_path: Path) -> None:
    """Good edits, bad ones, a folder away, links swapped as Kubernetes does, kill -9 of all.

    Both workers come to the newest good generation, no call fails, and every record's generation
    was served.
    """
    releases = tmp_path / "releases"
    for number in (3, 4, 5, 6):
        catalogue.write_folder(releases / f"{number}", generation=number, latency__budget_ms=10_000)
    folder, journal, log = tmp_path / "mounted", tmp_path / "journal", tmp_path / "log"
    folder.mkdir()
    (folder / "..data").symlink_to(releases / "3")
    for name in ("product.yaml", "model.onnx"):
        (folder / name).symlink_to(f"..data/{name}")
    fingerprint = load_generation(folder).schema.fingerprint
    registry = Registry(journal / "generations")

    def serves(number: int, refused: str = "") -> bool:
        state = registry.state("test")
        assert state is not None
        why = " ".join(state.refused.why) if state.refused else ""
        return state.serving.generation == number and (refused in why if refused else not why)

    def link(number: int) -> None:
        (folder / "..new").symlink_to(releases / f"{number}")
        (folder / "..new").replace(folder / "..data")

    def write(text: str) -> None:
        (folder / "product.new").write_text(text)
        (folder / "product.new").replace(folder / "product.yaml")

    text = (releases / "6" / "product.yaml").read_text()
    with serving(folder, journal, "--workers", "2", log=log) as gateway:
        with callers.calling("grpcio", gateway.address, fingerprint) as told:
            link(4)
            wait_until(lambda: serves(4))
            told.wait_for(20)
            folder.rename(tmp_path / "away")
            wait_until(lambda: serves(4, "there is no product.yaml"))
            (tmp_path / "away").rename(folder)
            wait_until(lambda: serves(4))
            link(5)
            wait_until(lambda: serves(5))
            write(text[: len(text) // 2])
            wait_until(lambda: serves(5, "product.yaml"))
            write(text.replace('"generation": 6', '"generation": 5').replace("0.95", "0.94"))
            wait_until(lambda: serves(5, "was served with other content"))
            write(text)
            wait_until(lambda: serves(6))
            told.wait_for(20)
            os.kill(gateway.pids[0], signal.SIGKILL)
            gateway.until_all_serve(2, without=(gateway.pids[0],))
            told.wait_for(20)
            gateway.process.send_signal(signal.SIGUSR1)
            wait_until(lambda: (registry.state("test") or told).looked_ns > 0)  # type: ignore[union-attr]
        lost = set(told.failed.values())
        write("{}")
        gateway.process.kill()
        gateway.process.wait()
    with serving(folder, journal, "--workers", "1", log=log) as gateway:
        assert serves(6, "product.yaml")
        with grpc.insecure_channel(gateway.address) as channel:
            answer = DecisionServiceStub(channel).Decide(
                catalogue.request(fingerprint), timeout=10, wait_for_ready=True
            )
        assert answer.product_generation == 6
        assert gateway.ended() == 0
    assert lost <= {"UNAVAILABLE"}, "of the worker that was killed"
    numbers: set[int] = set()
    for segment in segments(journal):
        for item in read(segment):
            if isinstance(item, Record) and isinstance(item.entry, Decision):
                known = item.generation(item.entry.product)
                assert known is not None
                assert known.generation == item.entry.generation
                assert item.entry.stand_in == pb.NONE
                numbers.add(known.generation)
    assert numbers == {3, 4, 5, 6}
    state = registry.state("test")
    assert state is not None
    assert [past.generation for past in state.history] == [3, 4, 5, 6]


@pytest.mark.parametrize("front", ["native"])
def test_a_worker_that_ends_lets_no_caller_wait_for_its_shadows(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the loop has ended nobody answers: the front must not look as if somebody did."""
    monkeypatch.setattr(shadow_module, "_END_S_MAX", 60.0)
    generation = with_challengers(tmp_path / "slow", 4, {"name": "v8", "mode": "shadow"})
    (shadow,) = generation.challengers
    begun, gate = threading.Event(), threading.Event()

    def waits(rows: np.ndarray) -> list[float]:
        begun.set()
        assert gate.wait(60)
        return [0.5] * len(rows)

    slow = replace(shadow, classifier=replace(shadow.classifier, score=waits))
    with serve(replace(generation, challengers=(slow,))) as running:
        ask(running, 20)
        assert begun.wait(60)
        running.stop.ask()
        until_s = time.monotonic() + 60
        while any(one.name == "inference" for one in threading.enumerate()):
            assert time.monotonic() < until_s
            time.sleep(0.01)
        with pytest.raises(grpc.RpcError) as caught:
            DecisionServiceStub(running.channel).Decide(catalogue.request(), timeout=10)
        assert running.thread.is_alive(), "the shadow is still at it"
        gate.set()
        running.ended()
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    decided = sum(isinstance(r.entry, Decision) for r in records(running.journal))
    scored = [r.entry for r in records(running.journal) if isinstance(r.entry, Scored)]
    assert sum(len(one.calls) + one.skipped for one in scored) == decided == 20


@pytest.mark.parametrize("front", ["native"])
def test_what_shadows_say_late_names_a_generation_that_the_journal_knows(
    serve: Serve, generation: Loaded, tmp_path: Path
) -> None:
    """Under pressure they stand still, while generations come and go and segments end."""
    shadowed = with_challengers(tmp_path / "slow", 4, {"name": "v8", "mode": "shadow"})
    (shadow,) = shadowed.challengers
    begun, gate = threading.Event(), threading.Event()

    def waits(rows: np.ndarray) -> list[float]:
        begun.set()
        assert gate.wait(40)
        return [0.5] * len(rows)

    slow = replace(shadow, classifier=replace(shadow.classifier, score=waits))
    others = [loaded(tmp_path / f"{i}", 5 + i) for i in range(3)]
    with serve(replace(shadowed, challengers=(slow,)), journal_max_bytes=256 << 10) as running:
        ask(running, 20)
        assert begun.wait(60)
        for other in others:
            running.swap(other)
            ask(running, 100)
        gate.set()
        wait_for_entries(
            running.journal, lambda found: any(isinstance(r.entry, Scored) for r in found)
        )
        running.swap(loaded(tmp_path / "8", 8))
        ask(running, 300)
        running.ended()
    found = records(running.journal)
    scored = [r for r in found if isinstance(r.entry, Scored)]
    assert scored
    for record in scored:
        known = record.generation(record.entry.product)  # type: ignore[union-attr]
        assert known is not None
        assert known.generation == 4
    last = segments(running.journal)[-1].header
    assert last is not None
    assert len(last.products) <= 3, "they are let go of, when all is said"


@pytest.mark.parametrize("front", ["native"])
def test_swaps_under_a_shadow_make_no_header_longer(serve: Serve, tmp_path: Path) -> None:
    """Its entries come all the time, and keep nothing that has said all."""
    both = [
        with_challengers(tmp_path / f"{i}", 4 + i, {"name": "v8", "mode": "shadow"})
        for i in range(2)
    ]
    with serve(both[0], journal_max_bytes=256 << 10) as running:
        for i in range(1, 13):
            with callers.calling("grpcio", running.address, running.fingerprint) as told:
                told.wait_for(20)
                running.swap(both[i % 2])
        # Segments go on to begin until the shadows of all swaps have had their say.
        swapped = {one.path for one in segments(running.journal)}
        until_s = time.monotonic() + WAIT_S
        longest = 5
        while longest > 4:
            ask(running, 100)
            new = [one for one in segments(running.journal) if one.path not in swapped]
            if new and new[-1].header is not None:
                longest = len(new[-1].header.products)
            assert time.monotonic() < until_s, longest
        running.ended()
