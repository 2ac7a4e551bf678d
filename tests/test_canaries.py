"""Every value that a caller can send, sent once, and looked for wherever something is written.

A real gateway, sidecar and collector. Each field holds a canary of its own; each sink may hold the
canaries that `MAY_HOLD` gives it a reason for, must hold those (or the search is blind), and no
other.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from itertools import chain
from pathlib import Path
from typing import Any

import catalogue
import grpc
import numpy as np
import onnx
import pyarrow.parquet as pq
import pytest
from conftest import stand_still
from onnx import helper, numpy_helper
from otlp_receiver import Receiver, listening
from test_pan_guard import pans
from test_sidecar import counted, until
from test_supervisor import serving

from gateway.cli.main import run
from gateway.errors import ExitCode
from gateway.journal import Decision, Flag, Record, read, segments
from gateway.model import load_generation
from gateway.v1.decision_pb2 import DecideRequest

pytestmark = pytest.mark.slow

DECIDE = "/gateway.v1.DecisionService/Decide"
BUDGET_S = 0.06
SIDE, TIMES = 300, 3
FLOOD = 55
"""Calls at once of each product, of which it can do some dozen within the budget."""

ROUNDS = 50
"""Of floods at most, until calls were stood in for unread."""

GUARDS = {"test": "refuse", "masked": "mask"}
EVERY = ("spans", "metrics", "logs", "alerts", "trace", "answers", "journal", "checkpoints", "lake")
ALL = ("--limit", "10000")
DRAWN = 10
"""Calls to draw one by one, of the first and of the last."""

AROUND = 10_000
"""Bytes before and behind a planted canary."""

BINARY = ("journal", "checkpoints")
"""Sinks in which four bytes are looked for: in megabytes of spans they come by chance."""

NAMES = (
    *("transaction_id", "subject", "channel", "category", "currency", "feature_text"),
    *("feature_name", "header", "binary_header", "group_header", "group_field", "user_agent"),
    *("tracestate", "baggage", "bad_traceparent", "product", "method", "no_message"),
    *("long_header", "fingerprint"),
)
TEXTS = {name: f"KanaRi{i:02d}{name.replace('_', '')}zQ" for i, name in enumerate(NAMES)}
NUMBERS = {"feature_number": 731946.25, "dense_number": 613577.5}
AMOUNT = 481_516_234_207
TRACE_ID, SPAN_ID = "c0ffee15600dc0ffee15600dcafe0001", "feedfacecafe0002"
FIELDS = ("subject", "channel", "text", "number", "name")
KINDS = tuple(
    f"{when}{guard}" for when in ("", "late_", "crowded_") for guard in ("refuse", "mask")
)
PANS = {
    f"pan_{guard}_{field}": pan
    for (guard, field), pan in zip(
        [(guard, field) for guard in KINDS for field in FIELDS],
        pans(len(KINDS) * len(FIELDS), seed=41),
        strict=True,
    )
}

MAY_HOLD: Mapping[str, Mapping[str, str]] = {
    "journal": {
        "transaction_id": "the request is the record",
        "subject": "the request is the record",
        "channel": "the request is the record",
        "feature_text": "the request is the record; records.features could leave it out",
        "feature_number": "the request is the record; records.features could leave it out",
        "dense_number": "the request is the record; records.features could leave it out",
        "amount": "the request is the record",
        "feature_name": "a refusal says which field, and names none that looks like a card",
        "trace_id": "the caller's trace is continued",
        "span_id": "the caller's trace is continued",
    },
    "lake": {
        "transaction_id": "labels are joined by it",
        "channel": "a column",
        "feature_text": "a feature, as records.features keeps it",
        "feature_number": "a feature",
        "dense_number": "a feature",
        "amount": "a column",
        "feature_name": "a refusal's field",
        "trace_id": "leads to the call's trace",
    },
    "spans": {"trace_id": "the caller's trace", "span_id": "the caller's span is its parent"},
    "metrics": {"trace_id": "an exemplar"},
    "trace": {
        "trace_id": "is asked for by it",
        "span_id": "the caller's span",
        "feature_name": "a refusal's field, for who may read the journal",
    },
    "answers": {"feature_name": "told to the caller who sent it"},
}


@dataclass(frozen=True)
class Canary:
    """What is looked for: `texts` in any case of letters, `codes` as they are."""

    texts: tuple[bytes, ...]
    codes: tuple[bytes, ...] = ()
    short: tuple[bytes, ...] = ()
    digits: bytes = b""

    @property
    def forms(self) -> tuple[bytes, ...]:
        return (*self.texts, *self.codes, *((self.digits,) if self.digits else ()))

    def is_in(self, sink: Sink) -> bool:
        return (
            any(form.lower() in sink.lower for form in self.texts)
            or any(form in sink.data for form in self.codes)
            or (sink.is_binary and any(form in sink.data for form in self.short))
            or (self.digits != b"" and self.digits in sink.ungrouped)
        )


@dataclass(frozen=True)
class Sink:
    """Bytes that were written or sent, as they are and as they are searched."""

    data: bytes
    lower: bytes
    ungrouped: bytes
    is_binary: bool

    @staticmethod
    def of(name: str, data: bytes) -> Sink:
        return Sink(data, data.lower(), data.translate(None, b" -./_"), name in BINARY)


def text(value: str) -> Canary:
    """Return a text as it is, in hex, in UTF-16, and in base64 wherever it begins."""
    sent = value.encode()
    coded = []
    for before in range(3):
        whole = base64.b64encode(bytes(before) + sent).rstrip(b"=")
        coded.append(whole[(before * 8 + 5) // 6 : -1])
    return Canary((sent, sent.hex().encode()), (value.encode("utf-16-le"), *coded))


def number(value: float) -> Canary:
    """Return a number as digits, and as the bytes that files and messages hold it in."""
    whole = int(value)
    texts = {repr(value), f"{value:.6f}"} if value != whole else {str(whole), f"{whole:,}"}
    codes = {struct.pack("<d", value), struct.pack(">d", value)}
    short = {struct.pack("<f", value)}
    if value == whole:
        codes |= {struct.pack("<q", whole), struct.pack(">q", whole), varint(whole)}
    return Canary(tuple(one.encode() for one in texts), tuple(codes), tuple(short))


def varint(value: int) -> bytes:
    sent = bytearray()
    while value > 0x7F:
        sent.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*sent, value])


def card(digits: str) -> Canary:
    """Return a card number in any grouping, and as a number."""
    value = float(digits)
    return Canary(
        (repr(value).encode(),),
        (struct.pack("<d", value), struct.pack("<q", int(digits)), varint(int(digits))),
        digits=digits.encode(),
    )


def identity(digits: str) -> Canary:
    return Canary((digits.encode(),), (bytes.fromhex(digits),))


CANARIES: Mapping[str, Canary] = {
    **{name: text(value) for name, value in TEXTS.items()},
    **{name: number(value) for name, value in NUMBERS.items()},
    "amount": number(AMOUNT),
    "trace_id": identity(TRACE_ID),
    "span_id": identity(SPAN_ID),
    **{name: card(pan) for name, pan in PANS.items()},
}


def found(sinks: Mapping[str, bytes]) -> set[tuple[str, str]]:
    """Return which canary is in which sink."""
    return {
        (sink, name)
        for sink, seen in ((name, Sink.of(name, data)) for name, data in sinks.items())
        for name, canary in CANARIES.items()
        if canary.is_in(seen)
    }


# What is asked


def metadata(**more: str) -> tuple[tuple[str, str | bytes], ...]:
    return (
        ("x-request-tag", TEXTS["header"]),
        ("x-tag-bin", TEXTS["binary_header"].encode()),
        ("x-age-band", TEXTS["group_header"]),
        ("tracestate", f"vendor={TEXTS['tracestate']}"),
        ("baggage", f"user={TEXTS['baggage']}"),
        *more.items(),
    )


def whole(**changes: Any) -> DecideRequest:
    """Return a request that is taken, with a canary in each field that takes any."""
    sent = {
        "transaction_id": TEXTS["transaction_id"],
        "subject": TEXTS["subject"],
        "channel": TEXTS["channel"],
        "amount": AMOUNT,
    }
    asked = catalogue.request(**{**sent, **changes})
    asked.features["entry_mode"].text = TEXTS["feature_text"]
    asked.features["amount"].number = NUMBERS["feature_number"]
    # A field that the contract does not have: number 99, a text.
    group = TEXTS["group_field"].encode()
    asked.MergeFromString(varint(99 << 3 | 2) + varint(len(group)) + group)
    return asked


def dense(fingerprint: str) -> DecideRequest:
    asked = whole()
    asked.ClearField("features")
    asked.dense = np.array([NUMBERS["dense_number"], 1.0, 0.0], dtype="<f4").tobytes()
    asked.schema_fingerprint = fingerprint
    return asked


def with_card(kind: str, field: str, product: str) -> DecideRequest:
    pan = PANS[f"pan_{kind}_{field}"]
    asked = whole(product=product)
    match field:
        case "text":
            asked.features["entry_mode"].text = f"card {pan[:4]}-{pan[4:8]}-{pan[8:12]}-{pan[12:]}"
        case "number":
            asked.features["ratio"].number = float(pan)
        case "name":
            asked.features[pan].number = 1.0
        case _:
            setattr(asked, field, f"card {pan}")
    return asked


def cards(kind: str) -> Iterator[DecideRequest]:
    product = next(name for name, guard in GUARDS.items() if kind.endswith(guard))
    for field in FIELDS:
        yield with_card(kind, field, product)


def refused_ones() -> Iterator[DecideRequest]:
    yield whole(category=TEXTS["category"], currency=TEXTS["currency"])
    unknown = whole()
    unknown.features[TEXTS["feature_name"]].text = TEXTS["feature_text"]
    yield unknown
    yield whole(product=TEXTS["product"])
    yield whole(schema_fingerprint=TEXTS["fingerprint"])


def slow_model() -> bytes:
    """Return the catalogue's model with some milliseconds of work a row beside it."""
    model = onnx.load_from_string(catalogue.logistic_model())
    values = {
        "narrow": np.full((3, 1), 1e-6, dtype=np.float32),
        "cell": np.array([-1, 1, 1], dtype=np.int64),
        "square": np.array([1, SIDE, SIDE], dtype=np.int64),
        "nothing": np.array(0.0, dtype=np.float32),
        "flat": np.array([-1, 1], dtype=np.int64),
    }
    model.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in values.items())
    node = helper.make_node
    steps = [
        [node("MatMul", [f"m{i}", f"m{i}"], [f"p{i}"]), node("Tanh", [f"p{i}"], [f"m{i + 1}"])]
        for i in range(TIMES)
    ]
    work = [
        node("MatMul", ["features", "narrow"], ["drop"]),
        node("Reshape", ["drop", "cell"], ["dot"]),
        node("Expand", ["dot", "square"], ["m0"]),
        *chain.from_iterable(steps),
        node("ReduceMean", [f"m{TIMES}"], ["mean"], axes=[1, 2], keepdims=0),
        node("Mul", ["mean", "nothing"], ["none"]),
        node("Reshape", ["none", "flat"], ["column"]),
        node("Add", ["z", "column"], ["worked"]),
    ]
    first, *rest = model.graph.node
    rest[0].input[0] = "worked"
    del model.graph.node[:]
    model.graph.node.extend([first, *work, *rest])
    return bytes(model.SerializeToString())


def unread(journal: Path) -> int:
    """Return how many calls with a masked card were decided without their features' being read."""
    return sum(
        b"*" in item.entry.request and Flag.FEATURES_LEFT_OUT in item.entry.flags
        for segment in segments(journal)
        for item in read(segment)
        if isinstance(item, Record) and isinstance(item.entry, Decision)
    )


class Caller:
    """Asks, and keeps all that it was told."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self.told: list[str] = []

    def send(self, payload: bytes, path: str = DECIDE, **more: str) -> grpc.Future:
        method = self._channel.unary_unary(path, response_deserializer=None)
        return method.future(payload, metadata=metadata(**more), timeout=20)

    def status(self, call: grpc.Future) -> str:
        """Wait for a call's end; keep its answer or its error, and return its status."""
        if (error := call.exception()) is None:
            self.told.append(repr((call.result(), call.trailing_metadata())))
            return "OK"
        self.told.append(repr((error.details(), error.trailing_metadata())))
        return str(error.code().name)

    def ask(self, asked: DecideRequest, **more: str) -> str:
        return self.status(self.send(asked.SerializeToString(), **more))


def asks_everything(
    caller: Caller, fingerprint: str, pid: int, journal: Path, *, is_crowded: bool
) -> None:
    """Good calls, refused ones, and ones that a stopped worker reads too late."""
    traceparent = f"00-{TRACE_ID}-{SPAN_ID}-01"
    assert caller.ask(whole(), traceparent=traceparent) == "OK"
    assert caller.ask(dense(fingerprint), traceparent=f"00-{TEXTS['bad_traceparent']}-01") == "OK"
    for asked in refused_ones():
        assert caller.ask(asked) in ("INVALID_ARGUMENT", "NOT_FOUND")
    for asked in cards("refuse"):
        assert caller.ask(asked) == "INVALID_ARGUMENT"
    masked = [caller.ask(asked) for asked in cards("mask")]
    assert masked == ["OK", "OK", "OK", "INVALID_ARGUMENT", "INVALID_ARGUMENT"]
    raw = b"\xff\xff" + TEXTS["no_message"].encode()
    assert caller.status(caller.send(raw)) == "INVALID_ARGUMENT"
    missing = caller.send(b"", f"/gateway.v1.DecisionService/{TEXTS['method']}")
    assert caller.status(missing) == "UNIMPLEMENTED"
    too_long = whole().SerializeToString()
    assert caller.status(caller.send(too_long, **{"x-long": TEXTS["long_header"] * 400})) != "OK"
    stand_still(pid)
    try:
        kinds = ("late_refuse", "late_mask")
        late = [caller.send(one.SerializeToString()) for kind in kinds for one in cards(kind)]
        time.sleep(4 * BUDGET_S)  # the fault itself
    finally:
        os.kill(pid, signal.SIGCONT)
    assert {caller.status(call) for call in late} <= {"OK", "INVALID_ARGUMENT"}
    if is_crowded:
        until_crowded(caller, journal)
    # The last of its bucket is its example.
    assert caller.ask(whole(), traceparent=traceparent) == "OK"


def until_crowded(caller: Caller, journal: Path) -> None:
    """Ask more than the models can do: what has no room is stood in for, its features unread."""
    for _ in range(ROUNDS):
        crowd = [
            caller.send(whole(product=product).SerializeToString())
            for product in GUARDS
            for _ in range(FLOOD)
        ]
        for kind in ("crowded_refuse", "crowded_mask"):
            crowd += [caller.send(one.SerializeToString()) for one in cards(kind)]
        statuses = {caller.status(call) for call in crowd}
        assert statuses <= {"OK", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"}
        if unread(journal):
            return
    pytest.fail("no call was stood in for unread")


# Where it is looked for


@contextmanager
def sidecar(journal: Path, log: Path, *more: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-m", "gateway", "sidecar", "--journal", str(journal), "--json"]
    command += ["--http", "127.0.0.1:0", "--listen", "127.0.0.1:0", "--stages", "all", *more]
    with (
        log.open("w") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            yield process, json.loads(line)["metrics"]
        finally:
            process.kill()


def scraped(address: str) -> bytes:
    """Return what Prometheus is shown, in both of its formats."""
    formats = ("application/openmetrics-text; version=1.0.0", "text/plain; version=0.0.4")
    asked = [urllib.request.Request(address, headers={"Accept": one}) for one in formats]
    answers = []
    for one in asked:
        with urllib.request.urlopen(one, timeout=10) as answer:
            answers.append(answer.read())
    assert answers[0].endswith(b"# EOF\n")
    assert not answers[1].endswith(b"# EOF\n")
    return b"".join(answers)


def files(folder: Path) -> bytes:
    """Return the names and the bytes of all files below a folder."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return b"\n".join(str(path).encode() + b"\n" + path.read_bytes() for path in paths)


def rows(lake: Path) -> bytes:
    """Return every value of every table: Parquet's bytes are compressed."""
    told = []
    for path in sorted(lake.rglob("*.parquet")):
        table = pq.ParquetFile(path).read()
        told.append(f"{table.schema.to_string(show_schema_metadata=True)}\n{table.to_pylist()!r}")
    return "\n".join(told).encode()


def printed(*arguments: str) -> bytes:
    """Return what a command prints, to stdout and to stderr."""
    said, noted = StringIO(), StringIO()
    with redirect_stdout(said), redirect_stderr(noted):
        assert run(list(arguments)) == ExitCode.OK, noted.getvalue()
    return (said.getvalue() + noted.getvalue()).encode()


@pytest.fixture(scope="module", params=["native", "grpcio"])
def sinks(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """Ask everything of a real gateway; return the bytes of each sink.

    Models that can be crowded take their time to load: one front has them.
    """
    is_crowded = request.param == "native"
    home = tmp_path_factory.mktemp("canaries")
    journal, lake = home / "journal", home / "lake"
    promise = {"id": "in-time", "says": "x", "sli": "decided_within_budget", "objective": 0.99}
    folders = [
        catalogue.write_folder(
            home / name,
            slow_model() if is_crowded else None,
            product=name,
            pan_guard=guard,
            latency__budget_ms=BUDGET_S * 1000,
            promises=[{**promise, "window": "28d"}],
        )
        for name, guard in GUARDS.items()
    ]
    fingerprint = load_generation(folders[0]).schema.fingerprint
    receiver = Receiver()
    agent = (("grpc.primary_user_agent", TEXTS["user_agent"]),)
    with (
        listening(receiver) as port,
        serving(
            *(folders[0], journal, str(folders[1]), "--workers", "1", "--front", request.param),
            log=home / "gateway.log",
        ) as gateway,
        sidecar(
            *(journal, home / "sidecar.log", "--lake", str(lake)),
            *("--otlp", f"http://127.0.0.1:{port}"),
        ) as (beside, address),
    ):
        with grpc.insecure_channel(gateway.address, agent) as channel:
            caller = Caller(channel)
            (pid,) = gateway.pids.values()
            asks_everything(caller, fingerprint, pid, journal, is_crowded=is_crowded)
        assert gateway.ended() == ExitCode.OK
        assert gateway.process.stdout is not None
        logs = gateway.process.stdout.read().encode()
        until(lambda: counted(address)["gateway_consumer_lag_records"] == 0)
        metrics = scraped(address)
        beside.send_signal(signal.SIGTERM)
        assert beside.wait(60) == ExitCode.OK
        assert beside.stdout is not None
        logs += beside.stdout.read().encode()
    logs += (home / "gateway.log").read_bytes() + (home / "sidecar.log").read_bytes()
    ids = [
        json.loads(line)["id"]
        for line in printed("trace", "--journal", str(journal), "--json", *ALL).splitlines()
        if line.startswith(b"{")
    ]
    ids = ids[:DRAWN] + ids[-DRAWN:]
    named = [str(folder) for folder in folders]
    return {
        "spans": b"".join(one.SerializeToString() for one in receiver.requests)
        + repr(receiver.metadata).encode(),
        "metrics": metrics,
        "logs": logs,
        "alerts": printed("alerts", *named, "--grafana", str(home / "dashboard.json"))
        + (home / "dashboard.json").read_bytes(),
        "trace": b"".join(
            printed("trace", "--journal", str(journal), *more)
            for more in (
                *(["--json", *ALL], ["--slow", *ALL], ["--stood-in", *ALL], ["--errors", *ALL]),
                [TRACE_ID],
                *([one] for one in ids),
                *([one, "--json"] for one in ids),
            )
        ),
        "answers": "\n".join(caller.told).encode(),
        "checkpoints": files(journal / "sidecar"),
        "journal": files(journal),
        "lake": files(lake) + rows(lake),
    }


def allowed() -> set[tuple[str, str]]:
    return {(sink, name) for sink, names in MAY_HOLD.items() for name in names}


def test_nothing_that_a_caller_sent_is_where_nothing_gives_a_reason_for_it(
    sinks: dict[str, bytes],
) -> None:
    assert set(sinks) == set(EVERY)
    assert found(sinks) - allowed() == set()


def test_what_may_be_somewhere_is_there_so_that_the_search_can_see(
    sinks: dict[str, bytes],
) -> None:
    assert allowed() - found(sinks) == set()


def test_no_card_number_is_anywhere(sinks: dict[str, bytes]) -> None:
    """Not even in part: what stands for one keeps six digits and four."""
    assert not {name for _, name in allowed() if name.startswith("pan_")}
    assert {name for _, name in found(sinks) if name in PANS} == set()
    assert any(f"{pan[:6]}*".encode() in sinks["journal"] for pan in PANS.values()), "none masked"


def test_a_canary_in_whatever_form_is_found_in_whatever_sink(sinks: dict[str, bytes]) -> None:
    """The test's own test: each form of each canary, planted in the middle of each sink."""
    for sink, whole_of_it in sinks.items():
        half = len(whole_of_it) // 2
        data = whole_of_it[max(half - AROUND, 0) : half + AROUND]
        middle = len(data) // 2
        for name, canary in CANARIES.items():
            if (sink, name) in allowed():
                continue
            for form in (*canary.forms, *(canary.short if sink in BINARY else ())):
                planted = Sink.of(sink, data[:middle] + form + data[middle:])
                assert canary.is_in(planted), (sink, name, form)


def test_grouped_and_coded_forms_are_found() -> None:
    pan = next(iter(PANS))
    digits = PANS[pan]
    grouped = f"{digits[:4]} {digits[4:8]}-{digits[8:]}".encode()
    assert found({"logs": b"x" + grouped}) == {("logs", pan)}
    subject = TEXTS["subject"]
    for data in (
        base64.b64encode(f"ab{subject}c".encode()),
        base64.b64encode(f"a{subject}".encode()),
        subject.upper().encode(),
        json.dumps({"said": subject}).encode(),
    ):
        assert found({"logs": data}) == {("logs", "subject")}


def test_no_canary_is_part_of_another() -> None:
    for name, canary in CANARIES.items():
        data = b"\n".join(canary.forms)
        assert {found_name for _, found_name in found({"logs": data})} == {name}
