"""`gateway trace`: where a call's time went, and which calls are worth looking at."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import catalogue
import grpc
import journalled
import pytest
from conftest import Serve
from journalled import BOOT, GENERATION, MS, TRACE, TRACEPARENT, decision, refusal
from opentelemetry.instrumentation.grpc import client_interceptor
from opentelemetry.instrumentation.grpc.grpcext import intercept_channel
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from otlp_receiver import Receiver, listening

from gateway.cli.calls import calls_of, segments_since
from gateway.cli.main import run
from gateway.cli.waterfall import waterfall
from gateway.errors import ExitCode
from gateway.journal import (
    FOUND_NOBODY,
    Entry,
    Flag,
    Pause,
    Record,
    Replied,
    Reply,
    Scored,
    ScoredCall,
    Shed,
    Writer,
    decision_id,
    read,
    segments,
)
from gateway.sidecar.traces.collector import Collector, resource_of
from gateway.sidecar.traces.otlp import Exporter
from gateway.sidecar.traces.spans import Detail, SpanEncoder
from gateway.v1.decision_pb2 import DECLINE
from gateway.v1.decision_pb2_grpc import DecisionServiceStub

Said = Callable[..., str]
S = 1_000_000_000


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    """Run `trace`, which must end with `code`; return its stdout, or stderr where it fails."""

    def run_trace(*arguments: object, code: ExitCode = ExitCode.OK) -> str:
        assert run(["trace", *map(str, arguments)]) == code
        captured = capsys.readouterr()
        if code == ExitCode.OK:
            return captured.out
        assert "Traceback" not in captured.err
        assert captured.err.count("Error:") == 1
        assert "Try:" in captured.err
        return captured.err

    return run_trace


def place(sequence: int) -> str:
    return decision_id(BOOT, 2, sequence)


def write(journal: Path, *parts: Iterable[Entry], segment_bytes: int = 1 << 20) -> Path:
    with Writer.open(
        journal, worker=2, boot_id=BOOT, products=(GENERATION,), segment_bytes=segment_bytes
    ) as writer:
        for entries in parts:
            writer.append([entry.encode() for entry in entries])
    return journal


def at(now_ns: int, after_ns: int = 25 * MS, **changes: object) -> Any:
    return decision(arrival_ns=now_ns, deadline_ns=now_ns + after_ns, **changes)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Eight calls a tenth of a second ago, in this order, and one an hour and more ago."""
    now = time.monotonic_ns() - S // 10
    entries: list[Entry] = [
        at(now, traceparent=TRACEPARENT, flags=Flag.NEAR_TIE),  # 1, quick
        at(now, record_after_ns=20 * MS),  # 2, slow
        at(now, stand_in=2),  # 3
        refusal(arrival_ns=now),  # 4
        at(now, record_after_ns=28 * MS),  # 5, late
        at(now),  # 6, found nobody
        at(now),  # 7, nobody knows
        at(now - 2 * 3600 * S, record_after_ns=24 * MS),  # 8, slow, long ago
        at(now, record_after_ns=22 * MS, traceparent=TRACEPARENT),  # 9, slow
    ]
    offsets = [300_000, 21 * MS, 300_000, 100_000, 30 * MS, FOUND_NOBODY]
    beside = [
        Replied(1, now, tuple(offsets)),
        Replied(9, now, (23 * MS,)),
        Pause(now - 40 * MS, 30 * MS),
        Pause(now - 4 * S, 30 * MS),
        Shed(now + 1 * MS, now + 2 * MS, 1234),
        Scored(0, 1, 0, 0, 1, (ScoredCall(1, 0.5, 0.97, DECLINE),)),
    ]
    return write(tmp_path / "journal", entries, beside)


def test_a_waterfall_shows_stages_slack_model_shadow_and_what_was_near(
    journal: Path, said: Said
) -> None:
    drawn = said(place(1), "--journal", journal)
    assert f"APPROVE  {place(1)}  test, generation 3" in drawn
    assert f"trace {TRACE}, its caller's" in drawn
    assert "model v1 1.0, arm v1, in a batch of 7" in drawn
    assert "P(fraud) 25.000%, threshold 50.000%" in drawn
    assert "near tie" in drawn
    rows = {line.split()[0]: line.split() for line in drawn.splitlines() if "█" in line}
    assert list(rows) == ["admit", "encode", "infer", "decide", "record", "reply"]
    assert rows["infer"][1:5] == ["100", "µs", "24.9", "ms"]
    assert "shadow v2: P(fraud) 97.000%, decline: disagrees" in drawn
    assert "pause of 30 ms, begun 40 ms before it arrived" in drawn
    assert drawn.count("pause of") == 1
    assert "shed unread: 1,234 calls, the first 1 ms after it arrived" in drawn


def test_the_bars_of_a_waterfall_follow_each_other_and_fill_its_width() -> None:
    call = journalled.call()
    bars = [line[32:] for line in waterfall(call, (), 92) if "█" in line]
    ends = [(len(bar) - len(bar.lstrip(" ")), len(bar)) for bar in bars]
    assert ends[0][0] == 0
    assert ends[-1][1] == 60
    assert all(before[1] == after[0] for before, after in itertools.pairwise(ends))
    infer = ends[2]
    assert infer[1] - infer[0] == 20  # 100 of 300 µs


@pytest.mark.parametrize("width", [1, 20, 40, 80, 400])
def test_a_waterfall_of_a_late_call_marks_its_deadline_at_any_width(width: int) -> None:
    late = journalled.call(replied_after_ns=50 * MS)
    lines = list(waterfall(late, (), width))
    assert "late" in "\n".join(lines)
    assert any("│" in line for line in lines)
    assert max(map(len, lines)) <= max(width, 80)


def test_json_says_what_the_drawing_says(journal: Path, said: Said) -> None:
    told = json.loads(said(place(1), "--journal", journal, "--json"))
    assert told["trace_id"] == TRACE
    assert told["arm"] == told["model"]["name"] == "v1"
    assert told["budget_us"] == 25_000
    assert told["stages"][2] == {
        "name": "infer", "start_us": 50.0, "end_us": 150.0, "slack_us": 24_850.0,
    }  # fmt: skip
    assert told["shadow"] == [
        {"arm": "v2", "probability": 0.97, "action": "DECLINE", "agrees": False}
    ]
    assert [one["kind"] for one in told["nearby"]] == ["pause", "shed"]
    assert "request" not in told


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), [1, 2, 3, 4, 5, 6, 7, 9]),
        (("--slow",), [5, 9, 2]),
        (("--stood-in",), [3]),
        (("--errors",), [4, 5, 7]),
        (("--stood-in", "--errors"), [3, 4, 5, 7]),
        (("--slow", "--last", "3h"), [5, 8, 9, 2]),
        (("--last", "0.0001s"), []),
        (("--slow", "--limit", "2"), [5, 9]),
        (("--limit", "2"), [7, 9]),
        (("--product", "test", "--limit", "2"), [7, 9]),
        (("--product", "another"), []),
    ],
    ids=str,
)
def test_lists_hold_what_was_asked_for_and_nothing_else(
    options: tuple[str, ...], expected: list[int], journal: Path, said: Said
) -> None:
    lines = said(*options, "--journal", journal, "--json").splitlines()
    assert [json.loads(line)["id"] for line in lines] == [place(n) for n in expected]
    rows = said(*options, "--journal", journal).splitlines()[1:]
    assert [next(word for word in row.split() if "-02-" in word) for row in rows] == [
        place(n) for n in expected
    ]


def test_a_row_says_why_it_is_there(journal: Path, said: Said) -> None:
    text = said("--journal", journal)
    for reason in ("INVALID_ARGUMENT", "stood in: overload", "late", "reply found nobody",
                   "reply unknown", "-5 ms"):  # fmt: skip
        assert reason in text


def test_every_row_can_be_drawn(journal: Path, said: Said) -> None:
    for sequence in range(1, 10):
        assert place(sequence) in said(place(sequence), "--journal", journal)
        json.loads(said(place(sequence), "--journal", journal, "--json"))


def test_a_callers_trace_id_finds_its_calls_and_their_retries(journal: Path, said: Said) -> None:
    drawn = said(TRACE, "--journal", journal)
    assert [n for n in range(1, 10) if place(n) in drawn] == [1, 9]
    lines = said(TRACE, "--journal", journal, "--json").splitlines()
    assert {json.loads(line)["trace_id"] for line in lines} == {TRACE}
    assert "no call of trace" in said("f" * 32, "--journal", journal, code=ExitCode.JOURNAL)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("nonsense",), ExitCode.USAGE, "no decision id"),
        ((place(1), "--slow"), ExitCode.USAGE, "do not go together"),
        (("--last", "soon"), ExitCode.USAGE, "no span of time"),
        ((place(10),), ExitCode.USAGE, "of a replied"),
        ((place(99),), ExitCode.JOURNAL, "holds no such decision"),
        ((decision_id(bytes(16), 2, 1),), ExitCode.JOURNAL, "holds nothing of the worker"),
    ],
    ids=str,
)
def test_what_cannot_be_shown_is_said(
    arguments: tuple[str, ...], code: ExitCode, says: str, journal: Path, said: Said
) -> None:
    assert says in said(*arguments, "--journal", journal, code=code)


@pytest.mark.parametrize("arguments", [(), (place(1),), (TRACE,)], ids=str)
def test_a_journal_that_is_not_there_is_named(
    arguments: tuple[str, ...], tmp_path: Path, said: Said
) -> None:
    text = said(*arguments, "--journal", tmp_path / "absent", code=ExitCode.JOURNAL)
    assert "no such folder" in text


def test_damage_is_told_behind_what_can_be_read(journal: Path, said: Said) -> None:
    (segment,) = journal.glob("*.journal")
    content = bytearray(segment.read_bytes())
    content[len(content) // 2] ^= 0xFF
    segment.write_bytes(content)
    assert "damaged" in said("--journal", journal, code=ExitCode.DAMAGED_JOURNAL)


def test_a_call_is_joined_across_segments(tmp_path: Path, said: Said) -> None:
    now = time.monotonic_ns()
    journal = write(
        tmp_path / "journal",
        [at(now)],
        [at(now) for _ in range(3000)],
        [Replied(1, now, (777_000,)), Scored(0, 1, 0, 0, 1, (ScoredCall(1, 0.5, 0.9, 1),))],
        segment_bytes=64 << 10,
    )
    assert len(segments(journal)) > 1
    told = json.loads(said(place(1), "--journal", journal, "--json"))
    assert (told["used_us"], told["reply"]) == (777.0, "left")
    assert len(told["shadow"]) == 1


def test_segments_that_ended_before_the_window_are_not_read(tmp_path: Path) -> None:
    now = time.monotonic_ns()
    journal = write(tmp_path / "journal", *([[at(now)] * 200] * 20), segment_bytes=64 << 10)
    there = segments(journal)
    assert len(there) > 2
    assert segments_since(journal, 0) == there
    after_second = there[2].name.created_ns + 1
    assert segments_since(journal, after_second) == there[2:]


def test_calls_are_given_out_while_the_journal_is_read_and_none_twice() -> None:
    """What is held does not grow with the journal."""
    given: list[int] = []

    def records() -> Iterable[Record]:
        for n in range(1, 20_001):
            arrival_ns = n * MS
            yield journalled.record(at(arrival_ns), n)
            assert n - len(given) < 3_100

    for call in calls_of(records()):
        given.append(call.record.sequence)
        assert call.reply is Reply.UNKNOWN
    assert given == list(range(1, 20_001))


def test_trace_starts_without_a_model_grpc_or_numpy() -> None:
    code = "import gateway.cli.trace, sys; print(*{m.partition('.')[0] for m in sys.modules})"
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert not {"onnxruntime", "grpc", "numpy", "pyarrow"} & set(shown.stdout.split())


def test_a_real_workers_calls_are_traces_and_hold_nothing_of_what_callers_sent(
    serve: Serve, said: Said
) -> None:
    """From a caller with a trace context to a collector: every call once, no canary."""
    canary = "CANARYx4x1x1x1"
    with serve() as running:
        stub = DecisionServiceStub(running.channel)
        for n in range(20):
            asked = catalogue.request(running.fingerprint, transaction_id=f"{canary}-{n}")
            asked.subject = asked.channel = canary
            stub.Decide(asked, timeout=20, metadata=(("traceparent", TRACEPARENT),))
        asked.currency = canary
        asked.features[canary].text = canary
        with pytest.raises(grpc.RpcError):
            stub.Decide(asked, timeout=20)
        running.ended()
        found = [
            item
            for segment in segments(running.journal)
            for item in read(segment)
            if isinstance(item, Record)
        ]
        calls = list(calls_of(found))
        assert len(calls) == 21
        assert {call.reply for call in calls} == {Reply.LEFT}
        encoder, receiver = SpanEncoder(Detail(all_calls=True)), Receiver()
        with listening(receiver) as port:
            resource = resource_of({}, host="h", version="1")
            with Exporter(Collector(f"127.0.0.1:{port}"), resource) as exporter:
                sent = exporter.export(one for call in calls for one in encoder.of_call(call))
        assert sent.accepted == len(receiver.spans) > 21 * 3
        servers = [one for one in receiver.spans.values() if one.name.endswith("Decide")]
        assert len(servers) == 21
        assert [one.trace_id.hex() for one in servers].count(TRACE) == 20
        exported = b"".join(one.SerializeToString() for one in receiver.requests)
        listed = said("--journal", running.journal, "--json")
        drawn = said(TRACE, "--journal", running.journal)
    for text in (exported, listed.encode(), drawn.encode()):
        assert b"CANARY" not in text


def test_a_caller_with_real_instrumentation_is_the_parent_of_our_span(serve: Serve) -> None:
    """One trace across both processes: OpenTelemetry's own client interceptor begins it."""
    finished = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(finished))
    with serve() as running:
        channel = intercept_channel(running.channel, client_interceptor(provider))
        asked = catalogue.request(running.fingerprint, transaction_id="t-1")
        DecisionServiceStub(channel).Decide(asked, timeout=20)
        running.ended()
        (segment,) = segments(running.journal)
        (call,) = calls_of(item for item in read(segment) if isinstance(item, Record))
    (client,) = finished.get_finished_spans()
    provider.shutdown()
    (server, *_) = map(Span.FromString, SpanEncoder().of_call(call))
    assert client.context is not None
    assert int.from_bytes(server.trace_id, "big") == client.context.trace_id
    assert int.from_bytes(server.parent_span_id, "big") == client.context.span_id
    # An arrival behind a pause is dated to the pause's start, which may be before the call's own.
    assert client.start_time is not None
    assert abs(client.start_time - server.start_time_unix_nano) < 5 * S
