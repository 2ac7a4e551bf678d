"""Metrics against a plain loop over the same calls, read back as Prometheus reads them."""

from __future__ import annotations

import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest
from faulty_disk import crash
from hypothesis import given
from hypothesis import strategies as st
from journalled import ARRIVAL_NS, GENERATION, decision
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from gateway.journal import (
    Decision,
    Flag,
    Gap,
    Generation,
    Loss,
    Pause,
    Record,
    Refused,
    Rejected,
    Replied,
    Reply,
    Scored,
    ScoredCall,
    Segment,
    Shed,
    Writer,
)
from gateway.sidecar.metrics.buckets import Histogram, around
from gateway.sidecar.metrics.measures import Measures
from gateway.sidecar.metrics.metrics import COMMON_S, Metrics
from gateway.sidecar.tail.call import Batch, Call, Position
from gateway.sidecar.tail.checkpoint import Checkpoint
from gateway.sidecar.tail.lag import Lag
from gateway.sidecar.tail.tail import Tail

MS = 1_000_000
BATCH = 70
CNP = Generation(0, "cnp", 7, "ab" * 32, ("v7", "v8"))
CP = Generation(1, "cp", 2, "cd" * 32, ("m",))


def record(sequence: int, entry: Any) -> Record:
    header = SimpleNamespace(wall_ns=lambda ns: ns + 10**18)
    name = SimpleNamespace(worker=0, boot_id=b"b" * 16)
    segment = Segment(Path("x"), name, header, 0, "", False)  # type: ignore[arg-type]
    segment.served.update({0: CNP, 1: CP})
    return Record(segment, 0, 1, sequence, entry)


def decided(chance: random.Random, sequence: int) -> Call:
    generation = chance.choice((CNP, CP))
    arrival_ns = chance.randrange(10**9)  # some wait together
    stamps = sorted(chance.randrange(40 * MS) for _ in range(5))
    stand_in = chance.choice((0, 0, 0, 1, 2))
    entry = Decision(
        flags=Flag(chance.choice((0, 1, 2, 3))),
        action=chance.choice((1, 2, 4)),
        second_best=0,
        stand_in=stand_in,
        product=generation.index,
        generation=generation.generation,
        batch_size=0 if stand_in else chance.randrange(1, 100),
        arrival_ns=arrival_ns,
        deadline_ns=arrival_ns + 25 * MS,
        admit_after_ns=stamps[0],
        encode_after_ns=stamps[1],
        infer_after_ns=stamps[2],
        decide_after_ns=stamps[3],
        record_after_ns=stamps[4],
        score=0.5,
        probability=0.5,
        propensity=1.0,
        margin=1.0,
        traceparent="",
        arm=chance.randrange(len(generation.arms)),
        request=b"secret-subject",
        response=b"",
    )
    left = chance.random() < 0.9
    replied = arrival_ns + stamps[4] + chance.randrange(MS) if left else None
    beside = ((1, ScoredCall(sequence, 0.1, 0.1, 1)),) if generation is CNP else ()
    reply = Reply.LEFT if left else Reply.FOUND_NOBODY
    return Call(record(sequence, entry), generation, reply, replied, beside)


def shown(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(metrics)
    text = generate_latest(registry).decode()
    assert "secret" not in text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def labelled(name: str, **labels: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    return name, tuple(sorted(labels.items()))


def batch(calls: list[Call], *asides: Record) -> Batch:
    return Batch(tuple(calls), asides, (), Position())


def length(calls: list[Call], place: int) -> int:
    """Count who had arrived and was not encoded yet, in the batch and the one before it."""
    arrival_ns = calls[place].record.entry.arrival_ns  # type: ignore[union-attr]
    begin = max(place // BATCH - 1, 0) * BATCH
    known = [call.record.entry for call in calls[begin : (place // BATCH + 1) * BATCH]]
    ends_ns = [one.arrival_ns + one.encode_after_ns for one in known]  # type: ignore[union-attr]
    return sum(
        one.arrival_ns < arrival_ns < end_ns  # type: ignore[union-attr]
        for one, end_ns in zip(known, ends_ns, strict=True)
    )


def spent(call: Call) -> dict[str, float]:
    """Return what each stage of a call took, in seconds."""
    entry = call.record.entry
    assert isinstance(entry, Decision)
    ended_ns = entry.record_after_ns
    if call.replied_ns is not None:
        ended_ns = call.replied_ns - entry.arrival_ns
    ends_ns = {
        "admit": entry.admit_after_ns,
        "encode": entry.encode_after_ns,
        "infer": entry.infer_after_ns,
        "decide": entry.decide_after_ns,
        "record": entry.record_after_ns,
        "reply": ended_ns,
    }
    took, before_ns = {}, 0
    for stage, end_ns in ends_ns.items():
        took[stage] = max(end_ns - before_ns, 0) / 1e9
        before_ns = max(end_ns, before_ns)
    return took


def test_every_count_is_that_of_a_plain_loop() -> None:
    chance = random.Random(5)
    calls = [decided(chance, i) for i in range(500)]
    metrics = Metrics(trace_id=lambda call: f"{call.record.sequence:032x}")
    for start in range(0, 500, BATCH):
        metrics.take(batch(calls[start : start + BATCH]))
    found = shown(metrics)
    names = {1: "approve", 2: "step_up", 4: "decline"}
    reasons = {0: "none", 1: "deadline", 2: "overload"}
    counted: Counter[Any] = Counter()
    for call in calls:
        entry, generation = call.record.entry, call.generation
        assert isinstance(entry, Decision)
        assert generation is not None
        counted[
            labelled(
                "gateway_decisions_total",
                product=generation.product,
                generation=str(generation.generation),
                model=generation.arms[entry.arm],
                action=names[entry.action],
                stand_in=reasons[entry.stand_in],
            )
        ] += 1
    assert counted == {key: found[key] for key in found if key[0] == "gateway_decisions_total"}
    for product, generation in (("cnp", CNP), ("cp", CP)):
        own = [call for call in calls if call.generation is generation]
        took = [
            (call.replied_ns - call.record.entry.arrival_ns) / 1e9  # type: ignore[union-attr]
            if call.replied_ns is not None
            else call.record.entry.record_after_ns / 1e9  # type: ignore[union-attr]
            for call in own
        ]
        late = sum(
            call.replied_ns > call.record.entry.deadline_ns for call in own if call.replied_ns
        )  # type: ignore[union-attr]
        assert found[labelled("gateway_late_total", product=product)] == late
        labels = {
            "rpc_method": "gateway.v1.DecisionService/Decide",
            "rpc_response_status_code": "OK",
            "gateway_product": product,
        }
        name = "rpc_server_call_duration_seconds"
        assert found[labelled(f"{name}_count", **labels)] == len(own)
        for bound in around(0.025, COMMON_S):
            at_most = sum(one <= bound for one in took)
            assert found[labelled(f"{name}_bucket", le=f"{bound:.6g}", **labels)] == at_most
        waited = [length(calls, i) for i, call in enumerate(calls) if call.generation is generation]
        key = labelled("gateway_queue_length_sum", product=product)
        assert found[key] == sum(waited)
        stages = [stage for call in own for stage in spent(call).items()]
        for stage in ("admit", "encode", "infer", "decide", "record", "reply"):
            key = labelled("gateway_stage_duration_seconds_sum", product=product, stage=stage)
            assert found[key] == pytest.approx(sum(s for name, s in stages if name == stage))
    assert found[labelled("gateway_worker_starts_total", worker="0")] == 1
    scored = labelled("gateway_shadow_calls_total", product="cnp", model="v8", outcome="scored")
    assert found[scored] == sum(call.generation is CNP for call in calls)


def test_what_is_counted_does_not_wait_for_lags_that_take_long(tmp_path: Path) -> None:
    asked, answers = Event(), Event()

    def lags() -> dict[str, Lag]:
        asked.set()
        assert answers.wait(60)
        return {"lake": Lag(5, 900, 0)}

    calls = [decided(random.Random(1), 1)]

    class Once:
        position = Position()

        def read(self) -> Batch | None:
            return batch(calls)

    metrics = Metrics(trace_id=lambda _: "0" * 32, lags=lags)
    measures = Measures(Once(), metrics, Checkpoint(tmp_path, "metrics"))
    with ThreadPoolExecutor() as beside:
        shown_then = beside.submit(lambda: list(measures.collect()))
        assert asked.wait(60)
        try:
            assert beside.submit(measures.step).result(30) is not None
        finally:
            answers.set()
        assert "gateway_consumer_lag_records" in {one.name for one in shown_then.result(30)}


def test_a_generation_is_served_by_the_workers_that_are_there(tmp_path: Path) -> None:
    """Not by those that were killed, replaced or stopped since the sidecar began."""
    metrics, tail = Metrics(trace_id=lambda _: "0" * 32), Tail(tmp_path)
    key = labelled(
        "gateway_generation_info",
        product=GENERATION.product,
        generation=str(GENERATION.generation),
        digest=GENERATION.digest[:12],
        models=",".join(GENERATION.arms),
    )

    def served() -> float:
        while one := tail.read():
            metrics.take(one)
        return shown(metrics).get(key, 0)

    def worker(number: int, boot: bytes) -> Writer:
        writer = Writer.open(tmp_path, worker=number, boot_id=boot * 16, products=[GENERATION])
        first = writer.append([decision(stand_in=1).encode()])
        writer.append([Replied(first, ARRIVAL_NS + MS, (0,)).encode()])
        return writer

    killed, other = worker(0, b"a"), worker(1, b"b")
    assert served() == 2
    crash(killed)
    again = worker(0, b"c")
    assert served() == 2
    other.close()
    assert served() == 1
    replacement = worker(2, b"d")
    assert served() == 2
    for one in (again, replacement):
        one.close()
    assert served() == 0


def test_what_is_no_decision_is_counted_too() -> None:
    metrics = Metrics(
        trace_id=lambda _: "0" * 32, lags=lambda: {"lake": Lag(5, 900, 1_500_000_000)}
    )
    refused = Refused(0, MS, 3, 0, "", ("amount",))
    call = Call(record(1, refused), CNP, Reply.LEFT, 2 * MS)
    asides = (
        Shed(0, 1, 40),
        Pause(0, 30 * MS),
        Gap(Loss.DISK_FULL, 1, 9, 9, 0, 0, b"b" * 16),
        Rejected("cnp", "f", 8, "", ("no",)),
        Rejected("cnp", "f", 8, "", ()),
        Scored(0, 1, 6, 2, 0, ()),
        Generation(2, "cnp", 8, "ef" * 32, ("v8",)),
    )
    metrics.take(batch([call], *(record(i, aside) for i, aside in enumerate(asides))))
    found = shown(metrics)
    assert found[labelled("gateway_refusals_total", product="cnp", status="INVALID_ARGUMENT")] == 1
    assert found[labelled("gateway_shed_total")] == 40
    assert found[labelled("gateway_pauses_total")] == 1
    assert found[labelled("gateway_paused_seconds_total")] == 0.03
    assert found[labelled("gateway_lost_records_total", reason="disk_full")] == 9
    assert found[labelled("gateway_rejected_changes_total", product="cnp")] == 1
    for outcome, count in (("skipped", 6), ("failed", 2)):
        key = labelled("gateway_shadow_calls_total", product="cnp", model="v8", outcome=outcome)
        assert found[key] == count
    info = labelled(
        "gateway_generation_info", product="cnp", generation="8", digest="ef" * 6, models="v8"
    )
    assert found[info] == 1
    assert found[labelled("gateway_consumer_lag_records", consumer="lake")] == 5


def test_an_example_leads_from_a_bucket_to_a_trace() -> None:
    chance = random.Random(6)
    calls = [decided(chance, i) for i in range(50)]
    metrics = Metrics(trace_id=lambda call: f"{call.record.sequence:032x}")
    metrics.take(batch(calls))
    registry = CollectorRegistry(auto_describe=False)
    registry.register(metrics)
    families = text_string_to_metric_families(generate_latest(registry).decode())
    examples = [
        (sample.exemplar, float(sample.labels["le"]))
        for family in families
        for sample in family.samples
        if sample.exemplar is not None
    ]
    assert examples
    for example, bound in examples:
        assert example.value <= bound
        assert 0 <= int(example.labels["trace_id"], 16) < 50


@given(
    st.lists(st.floats(0, 10), max_size=50),
    st.lists(st.floats(0.001, 9), min_size=1, max_size=8, unique=True).map(sorted),
)
def test_a_histogram_counts_each_value_once_in_the_first_bucket_that_holds_it(
    values: list[float], bounds: list[float]
) -> None:
    histogram: Histogram[str] = Histogram()
    for value in values:
        histogram.add("k", bounds, value)
    for _, kept, counts in histogram.rows():
        assert kept == tuple(bounds)
        assert sum(counts.counts) == len(values)
        for i, bound in enumerate(bounds):
            assert sum(counts.counts[: i + 1]) == sum(value <= bound for value in values)


@given(st.floats(50e-6, 10))
def test_bounds_around_a_budget_rise_and_hold_it(budget_s: float) -> None:
    bounds = around(budget_s, COMMON_S)
    assert budget_s in bounds
    assert list(bounds) == sorted(set(bounds))
    assert bounds[0] <= 50e-6 * 1.06
