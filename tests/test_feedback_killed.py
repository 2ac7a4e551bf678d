"""A real sidecar that is killed while labels come: what it acknowledged is there, once."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import callers
import catalogue
import grpc
import pytest
import trustme
from conftest import WAIT_S
from feedback_events import event, journal_of
from lake_calls import read
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from otlp_receiver import Receiver, listening
from test_feedback_traces import attributes
from test_sidecar import counted, until
from test_supervisor import serving

from gateway.cli.main import run
from gateway.errors import ExitCode
from gateway.model import load_generation
from gateway.sidecar.feedback.store import FILE, Store
from gateway.sidecar.lake.lake import Lake
from gateway.v1.feedback_pb2 import ReportFeedbackRequest
from gateway.v1.feedback_pb2_grpc import FeedbackServiceStub

LABEL_SPAN = "gateway.v1.FeedbackService/ReportFeedback"


@dataclass
class Sidecar:
    process: subprocess.Popen[str]
    metrics: str
    feedback: str
    told: dict[str, Any]

    def ended(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(WAIT_S)


@contextmanager
def beside(journal: Path, *more: str, listen: str = "127.0.0.1:0") -> Iterator[Sidecar]:
    command = [sys.executable, "-m", "gateway", "sidecar", "--journal", str(journal), "--json"]
    command += ["--http", "127.0.0.1:0", "--listen", listen]
    with subprocess.Popen([*command, *more], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            told = json.loads(process.stdout.readline())
            yield Sidecar(process, told["metrics"], told["feedback"], told)
        finally:
            process.kill()


@dataclass
class Reported:
    """What a source was told, by event."""

    acknowledged: set[str] = field(default_factory=set)
    doubted: set[str] = field(default_factory=set)
    """Those whose call failed: they may be there or not, and are sent again."""


def report_until(stop: threading.Event, address: str, told: Reported, seed: int) -> None:
    """Send small requests, some of them again, until told to stop or the sidecar is gone."""
    chance = random.Random(seed)
    with grpc.insecure_channel(address) as channel:
        stub = FeedbackServiceStub(channel)  # type: ignore[no-untyped-call]
        while not stop.is_set():
            names = {f"{seed}-{chance.randrange(5000)}" for _ in range(chance.randrange(1, 6))}
            events = [event(0, source_event_id=name, transaction_id=name) for name in names]
            try:
                answer = stub.ReportFeedback(ReportFeedbackRequest(events=events), timeout=10)
            except grpc.RpcError:
                told.doubted |= names - told.acknowledged
                return
            assert answer.accepted + answer.duplicates == len(names), answer
            told.acknowledged |= names


@pytest.mark.slow
def test_every_acknowledged_label_is_in_the_store_and_once_in_the_lake(tmp_path: Path) -> None:
    """Three kills under traffic; at the end the collector has each label's span, once, too."""
    journal, lake = journal_of(tmp_path / "journal", "test"), str(tmp_path / "lake")
    receiver, told, chance = Receiver(), Reported(), random.Random(3)
    with listening(receiver) as port:
        more = ("--lake", lake, "--otlp", f"http://127.0.0.1:{port}")
        for life in range(3):
            with beside(journal, *more) as sidecar:
                stop = threading.Event()
                before = len(told.acknowledged)
                threads = [
                    threading.Thread(target=report_until, args=(stop, sidecar.feedback, told, seed))
                    for seed in (2 * life, 2 * life + 1)
                ]
                for thread in threads:
                    thread.start()
                wanted = before + chance.randrange(50, 200)
                until(lambda wanted=wanted: len(told.acknowledged) >= wanted)  # type: ignore[misc]
                sidecar.process.kill()
                stop.set()
                for thread in threads:
                    thread.join(WAIT_S)
        with beside(journal, *more) as sidecar:
            until(lambda: counted(sidecar.metrics)["gateway_consumer_lag_records"] == 0)
            assert sidecar.ended() == ExitCode.OK
    with Store(journal / "sidecar" / FILE) as store:
        kept = [one.label.source_event_id for one in store.labels(0, 10**6)]
    assert len(kept) == len(set(kept))
    assert told.acknowledged <= set(kept) <= told.acknowledged | told.doubted
    rows = [row["source_event_id"] for row in read(Lake.at(lake), "labels")]
    assert sorted(rows) == sorted(kept)
    assert len(receiver.spans) == len(kept)
    assert receiver.altered == 0


def linked(receiver: Receiver) -> list[tuple[Span, Span | None]]:
    """Return each label's span with the span of a decision that it is linked to."""
    with receiver.lock:
        spans = list(receiver.spans.values())
    found = []
    for span in spans:
        if span.name == LABEL_SPAN:
            links = [receiver.spans.get((link.trace_id, link.span_id)) for link in span.links]
            found.append((span, links[0] if links else None))
    return found


@pytest.mark.slow
def test_a_label_is_kept_counted_and_linked_to_its_decision(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A real gateway's decisions, one named by its id and one by its payment; and one unknown."""
    folder, journal = catalogue.write_folder(tmp_path / "test"), tmp_path / "journal"
    fingerprint = load_generation(folder).schema.fingerprint
    with serving(folder, journal, "--workers", "1") as gateway:
        with callers.calling("grpcio", gateway.address, fingerprint) as told:
            told.wait_for(10)
        assert gateway.ended() == ExitCode.OK
    (_, first_id), (second, second_id), *_ = told.answers.items()
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    path = tmp_path / "labels.csv"
    path.write_text(
        f"kind,transaction_id,decision_id,occurred_time,source_event_id\n"
        f"chargeback,,{first_id},{now},e-1\nrefund,{second},,{now},e-2\n"
        f"refund,nobody's,,{now},e-3\nrefund,,,,\n"
    )
    receiver, lake = Receiver(), str(tmp_path / "lake")
    with listening(receiver) as port:
        more = ("--lake", lake, "--otlp", f"http://127.0.0.1:{port}")
        with beside(journal, *more) as sidecar:
            assert sidecar.told["consumers"] == [
                *("traces", "lake", "metrics", "feedback_traces", "feedback")
            ]
            options = ["--product", "test", "--source", "desk", "--to", sidecar.feedback]
            assert run(["label", str(path), *options]) == ExitCode.REFUSED
            assert counted(sidecar.metrics)["gateway_labels_total"] == 4
            capsys.readouterr()
            other = ["sidecar", "--journal", str(journal), "--http", "127.0.0.1:0"]
            assert run([*other, "--listen", sidecar.feedback]) == ExitCode.JOURNAL
            assert run([*other, "--listen", "127.0.0.1:0"]) == ExitCode.JOURNAL
            assert capsys.readouterr().err.count("another sidecar (pid ") == 2
            (tmp_path / "other").mkdir()  # a journal has one sidecar
            other = ["sidecar", "--journal", str(tmp_path / "other"), "--http", "127.0.0.1:0"]
            assert run([*other, "--listen", sidecar.feedback]) == ExitCode.CANNOT_LISTEN
            assert "the port is in use" in capsys.readouterr().err
            until(lambda: len(linked(receiver)) == 3)
            until(lambda: counted(sidecar.metrics)["gateway_consumer_lag_records"] == 0)
            assert sidecar.ended() == ExitCode.OK
    links = [one and attributes(one)["gateway.decision_id"] for _, one in linked(receiver)]
    assert links == [first_id, second_id, None]
    rows = read(Lake.at(lake), "labels")
    assert [(row["kind"], row["transaction_id"], row["decision_id"]) for row in rows] == [
        ("chargeback", None, first_id),
        ("refund", second, None),
        ("refund", "nobody's", None),
    ]


def test_it_listens_on_a_socket_and_with_tls(tmp_path: Path) -> None:
    journal = journal_of(tmp_path / "journal", "test")
    socket = f"unix:{tmp_path}/labels.sock"
    asked = ReportFeedbackRequest(events=[event(1)])
    with beside(journal, listen=socket) as sidecar:
        assert sidecar.feedback == socket
        with grpc.insecure_channel(socket) as channel:
            stub = FeedbackServiceStub(channel)  # type: ignore[no-untyped-call]
            assert stub.ReportFeedback(asked, timeout=10).accepted == 1
        assert sidecar.ended() == ExitCode.OK
    assert not (tmp_path / "labels.sock").exists()
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "certificate.pem")
    tls = ("--tls-certificate", f"{tmp_path}/certificate.pem", "--tls-key", f"{tmp_path}/key.pem")
    with beside(journal, *tls, listen="localhost:0") as sidecar:
        trusted = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
        with grpc.secure_channel(sidecar.feedback, trusted) as channel:
            stub = FeedbackServiceStub(channel)  # type: ignore[no-untyped-call]
            assert stub.ReportFeedback(asked, timeout=10).duplicates == 1
        assert sidecar.ended() == ExitCode.OK


def test_what_keeps_it_from_taking_labels_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = journal_of(tmp_path / "journal", "test")
    (journal / "sidecar").mkdir()
    (journal / "sidecar" / FILE).write_bytes(b"no database" * 1000)
    here = ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]
    assert run(["sidecar", "--journal", str(journal), *here]) == ExitCode.DAMAGED_JOURNAL
    said = capsys.readouterr().err
    assert "it is no store of labels" in said
    assert "Put back a copy" in said
    for more, says in (
        (["--listen", "0.0.0.0:0"], "is open to other hosts"),
        (["--listen", "nowhere"], "is no address"),
        (["--tls-key", "absent.pem"], "needs both"),
    ):
        assert run(["sidecar", "--journal", str(journal), *more]) == ExitCode.USAGE
        said = capsys.readouterr().err
        assert says in said
        assert said.count("Error:") == 1
