"""Every call of the journal is a span at the collector, through kills, refusals and full disks."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from grpc import StatusCode
from journalled import ARRIVAL_NS, BOOT, GENERATION, decision, refusal
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from otlp_receiver import Receiver, listening, refuses, rejects, takes_and_says_nothing

from gateway.errors import CollectorError, JournalError
from gateway.journal import Decision, Record, Replied, Writer, decision_id, read, segments
from gateway.sidecar.tail.checkpoint import Checkpoint
from gateway.sidecar.tail.tail import Tail
from gateway.sidecar.traces import otlp
from gateway.sidecar.traces.collector import Collector, resource_of
from gateway.sidecar.traces.otlp import Exporter
from gateway.sidecar.traces.spans import SpanEncoder
from gateway.sidecar.traces.traces import Traces

CALLS = 600
ALONE = replace(GENERATION, arms=("v1",))  # no shadow to wait for
SIDECAR = """
import sys
from pathlib import Path
from gateway.sidecar.tail.checkpoint import Checkpoint
from gateway.sidecar.traces.collector import Collector, resource_of
from gateway.sidecar.traces.otlp import Exporter
from gateway.sidecar.traces.spans import SpanEncoder
from gateway.sidecar.tail.tail import Tail
from gateway.sidecar.traces.traces import Traces
journal, state, target = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
checkpoint = Checkpoint(state, "traces")
tail = Tail(journal, checkpoint.load(), records_max=20)
with Exporter(Collector(target), resource_of({}, host="h", version="1")) as exporter:
    traces = Traces(tail, SpanEncoder(), exporter, checkpoint)
    while traces.step() is not None or traces.step() is not None:
        print("step", flush=True)
    print("done", flush=True)
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp, "BACKOFF_FIRST_S", 0.01)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Calls of two workers, every tenth refused, each with its reply."""
    for worker in (0, 1):
        with Writer.open(
            tmp_path / "journal", worker=worker, boot_id=BOOT, products=(ALONE,),
            segment_bytes=64 << 10,
        ) as writer:  # fmt: skip
            for _ in range(0, CALLS // 2, 10):
                entries = [*(decision() for _ in range(9)), refusal()]
                first = writer.append([one.encode() for one in entries])
                writer.append([Replied(first, ARRIVAL_NS, (300_000,) * 10).encode()])
    return tmp_path / "journal"


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


def calls_at(receiver: Receiver) -> int:
    return sum(one.kind == Span.SPAN_KIND_SERVER for one in receiver.spans.values())


def decisions_at(receiver: Receiver) -> set[str]:
    return {
        attribute.value.string_value
        for one in receiver.spans.values()
        for attribute in one.attributes
        if attribute.key == "gateway.decision_id"
    }


def traces(journal: Path, state: Path, port: int) -> Iterator[Traces]:
    checkpoint = Checkpoint(state, "traces")
    tail = Tail(journal, checkpoint.load(), records_max=50)
    resource = resource_of({}, host="h", version="1")
    with Exporter(Collector(f"127.0.0.1:{port}", timeout_s=5), resource) as exporter:
        yield Traces(tail, SpanEncoder(), exporter, checkpoint)


def drain(one: Traces) -> tuple[int, int]:
    accepted = rejected = 0
    # What a killed writer may still have written is looked for twice.
    while (sent := one.step() or one.step()) is not None:
        accepted, rejected = accepted + sent.accepted, rejected + sent.rejected
    return accepted, rejected


def test_every_call_of_every_worker_is_a_span_and_the_next_start_sends_none_again(
    journal: Path, tmp_path: Path, receiver: Receiver
) -> None:
    with listening(receiver) as port:
        for one in traces(journal, tmp_path / "state", port):
            accepted, rejected = drain(one)
            assert (accepted, rejected) == (len(receiver.spans), 0)
        assert calls_at(receiver) == CALLS
        assert decisions_at(receiver) == {
            decision_id(BOOT, segment.name.worker, item.sequence)
            for segment in segments(journal)
            for item in read(segment)
            if isinstance(item, Record) and isinstance(item.entry, Decision)
        }
        for one in traces(journal, tmp_path / "state", port):
            drain(one)
    assert receiver.sent_again == 0


def test_a_sidecar_that_is_killed_again_and_again_loses_and_doubles_no_span(
    journal: Path, tmp_path: Path, receiver: Receiver
) -> None:
    """SIGKILL behind a random step; among the collector's faults, taken without an answer."""
    draw = random.Random(6)
    kills = 0
    with listening(receiver) as port:
        while True:
            receiver.faults.put(
                draw.choice([takes_and_says_nothing, refuses(StatusCode.UNAVAILABLE)])
            )
            arguments = (str(journal), str(tmp_path / "state"), f"127.0.0.1:{port}")
            with subprocess.Popen(
                [sys.executable, "-c", SIDECAR, *arguments], stdout=subprocess.PIPE, text=True
            ) as sidecar:
                assert sidecar.stdout is not None
                for _ in range(draw.randint(3, 6)):
                    if sidecar.stdout.readline() == "done\n":
                        break
                else:
                    os.kill(sidecar.pid, signal.SIGKILL)
                    kills += 1
                    continue
                assert sidecar.wait(60) == 0
                break
    assert kills >= 4
    assert calls_at(receiver) == CALLS
    assert receiver.altered == 0, "a span that was sent again is the same span"
    assert receiver.sent_again > 0


def test_what_the_collector_refuses_comes_again_and_the_checkpoint_waits_for_it(
    journal: Path, tmp_path: Path, receiver: Receiver
) -> None:
    state = tmp_path / "state"
    with listening(receiver) as port:
        for one in traces(journal, state, port):
            receiver.faults.put(refuses(StatusCode.UNAUTHENTICATED))
            receiver.faults.put(refuses(StatusCode.UNAUTHENTICATED))
            for _ in range(2):
                with pytest.raises(CollectorError, match="UNAUTHENTICATED"):
                    one.step()
            assert Checkpoint(state, "traces").load().marks == {}
            drain(one)
    assert calls_at(receiver) == CALLS


def test_rejected_spans_are_counted_and_hold_nothing_back(
    journal: Path, tmp_path: Path, receiver: Receiver
) -> None:
    receiver.faults.put(rejects(7))
    with listening(receiver) as port:
        for one in traces(journal, tmp_path / "state", port):
            accepted, rejected = drain(one)
    assert rejected == 7
    assert accepted == len(receiver.spans)


def test_a_checkpoint_that_cannot_be_written_costs_a_repetition_and_no_span(
    journal: Path, tmp_path: Path, receiver: Receiver
) -> None:
    state = tmp_path / "state"
    (state / "checkpoints" / "traces.json").mkdir(parents=True)  # nothing can be renamed over it
    with listening(receiver) as port:
        checkpoint = Checkpoint(state, "traces")
        tail = Tail(journal, records_max=50)
        resource = resource_of({}, host="h", version="1")
        with Exporter(Collector(f"127.0.0.1:{port}"), resource) as exporter:
            one = Traces(tail, SpanEncoder(), exporter, checkpoint)
            with pytest.raises(JournalError):
                one.step()
            (state / "checkpoints" / "traces.json").rmdir()
            drain(one)
    assert calls_at(receiver) == CALLS
    assert json.loads(checkpoint.path.read_text())["done"]
