"""`gateway sidecar`, as a process behind a real gateway: spans, metrics and journal agree."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import callers
import catalogue
import pytest
from conftest import WAIT_S
from journalled import ARRIVAL_NS, GENERATION, MS, decision
from otlp_receiver import Receiver, listening, server_spans
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from test_supervisor import serving

from gateway.cli import sidecar, sidecar_lag
from gateway.cli.main import run
from gateway.errors import ExitCode
from gateway.journal import Decision, Record, Replied, Writer, read, segments, verify
from gateway.model import load_generation
from gateway.sidecar.lake.lake import Lake


@contextmanager
def beside(
    journal: Path, *more: str, http: str = "127.0.0.1:0"
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the sidecar; give the process, and where its metrics are."""
    command = [sys.executable, "-m", "gateway", "sidecar", "--journal", str(journal), "--json"]
    with subprocess.Popen(
        [*command, "--http", http, "--listen", "127.0.0.1:0", *more],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            yield process, json.loads(process.stdout.readline())["metrics"]
        finally:
            process.kill()


def counted(address: str) -> dict[str, float]:
    """Return each sample's sum over its labels, as Prometheus reads them."""
    asked = urllib.request.Request(
        address, headers={"Accept": "application/openmetrics-text; version=1.0.0"}
    )
    with urllib.request.urlopen(asked, timeout=10) as answer:
        text = answer.read().decode()
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


def until(holds: Callable[[], bool]) -> None:
    until_s = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < until_s
        time.sleep(0.05)


@pytest.mark.slow
def test_every_call_is_a_span_and_a_count_though_the_sidecar_is_killed(tmp_path: Path) -> None:
    """Three kills under load: at the end the collector has each decision's span, once."""
    folder = catalogue.write_folder(tmp_path / "test")
    journal = tmp_path / "journal"
    fingerprint = load_generation(folder).schema.fingerprint
    receiver = Receiver()
    with serving(folder, journal, "--workers", "2") as gateway, listening(receiver) as port:
        otlp = ("--otlp", f"http://127.0.0.1:{port}", "--lake", str(tmp_path / "lake"))
        with callers.calling("grpcio", gateway.address, fingerprint) as told:
            for _ in range(3):
                with beside(journal, *otlp):
                    told.wait_for(60)
                    until(lambda: len(server_spans(receiver)) > 0)
        assert told.failed == {}
        with beside(journal, *otlp) as (process, address):
            until(lambda: len(server_spans(receiver)) == len(told.answers))
            until(lambda: counted(address)["gateway_consumer_lag_records"] == 0)
            assert counted(address)["gateway_generation_info"] >= 1
            process.send_signal(signal.SIGTERM)
            assert process.wait(WAIT_S) == ExitCode.OK
        assert gateway.ended() == ExitCode.OK
    decisions = [
        item
        for segment in segments(journal)
        for item in read(segment)
        if isinstance(item, Record) and isinstance(item.entry, Decision)
    ]
    assert len(server_spans(receiver)) == len(decisions) == len(told.answers)
    assert receiver.altered == 0
    rows = Lake.at(str(tmp_path / "lake")).dataset("decisions").to_table()
    ids = rows.column("decision_id").to_pylist()
    assert sorted(ids) == sorted(told.answers.values())
    assert set(rows.column("product").to_pylist()) == {"test"}


def test_once_counts_what_is_there_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a collector that nobody is at holds nothing else back."""
    folder = catalogue.write_folder(tmp_path / "test")
    journal = tmp_path / "journal"
    fingerprint = load_generation(folder).schema.fingerprint
    with serving(folder, journal, "--workers", "1") as gateway:
        with callers.calling("grpcio", gateway.address, fingerprint) as told:
            told.wait_for(30)
        assert gateway.ended() == ExitCode.OK
    with beside(journal, "--otlp", "http://127.0.0.1:1") as (_, address):
        until(lambda: counted(address).get("gateway_decisions_total") == len(told.answers))
        behind = counted(address)["gateway_consumer_lag_records"]
        assert behind >= len(told.answers), "the spans wait"
    monkeypatch.setattr(sidecar, "ONCE_IDLE_S", 0.3)  # its gateway has ended, with every reply told
    once = ["sidecar", "--journal", str(journal), "--once", "--http", "127.0.0.1:0"]
    assert run(once) == ExitCode.OK


def test_a_worker_at_its_limit_drops_what_the_sidecar_has_and_counts_nothing(
    tmp_path: Path,
) -> None:
    """Two wings that meet in the journal's folder: one says what is shipped, one drops it."""
    folder = catalogue.write_folder(tmp_path / "test")
    journal, lake = tmp_path / "journal", tmp_path / "lake"
    fingerprint = load_generation(folder).schema.fingerprint
    with serving(folder, journal, "--workers", "1") as gateway:
        with callers.calling("grpcio", gateway.address, fingerprint) as told:
            told.wait_for(300)
        assert gateway.ended() == ExitCode.OK
    before = [segment.path for segment in segments(journal)]
    assert sum(path.stat().st_size for path in before) > 64 << 10
    command = [sys.executable, "-m", "gateway", "sidecar", "--journal", str(journal), "--once"]
    subprocess.run(
        [*command, "--http", "127.0.0.1:0", "--lake", str(lake)], timeout=WAIT_S, check=True
    )
    limit = ("--journal-max-bytes", str(128 << 10))
    with serving(folder, journal, "--workers", "1", *limit) as gateway:
        assert gateway.ended() == ExitCode.OK
    assert not any(path.exists() for path in before)
    report = verify(journal)
    assert report.ok
    assert sum(report.lost.values()) == 0
    assert len(Lake.at(str(lake)).dataset("decisions").to_table()) == len(told.answers)


def filled(journal: Path, count: int, boot_id: bytes) -> None:
    """Write a worker's journal: `count` calls, their replies, and the end."""
    with Writer.open(journal, worker=0, boot_id=boot_id, products=[GENERATION]) as writer:
        for _ in range(count):
            first = writer.append([decision().encode()])
            writer.append([Replied(first, ARRIVAL_NS + MS, (0,)).encode()])


def rows_of(lake: Path) -> int:
    return len(Lake.at(str(lake)).dataset("decisions").to_table())


def test_a_damaged_checkpoint_holds_its_own_consumer_back_alone(tmp_path: Path) -> None:
    journal, lake = tmp_path / "journal", tmp_path / "lake"
    filled(journal, 20, b"a" * 16)
    command = [sys.executable, "-m", "gateway", "sidecar", "--journal", str(journal), "--once"]
    once = [*command, "--http", "127.0.0.1:0", "--lake", str(lake)]
    subprocess.run(once, timeout=WAIT_S, check=True)
    assert rows_of(lake) == 20
    filled(journal, 30, b"b" * 16)
    checkpoint = journal / "sidecar" / "checkpoints" / "metrics.json"
    checkpoint.write_text("{", encoding="utf-8")
    ended = subprocess.run(once, timeout=WAIT_S, check=False, capture_output=True)
    assert ended.returncode == ExitCode.DAMAGED_JOURNAL, "who waits for the end is told"
    with beside(journal, "--lake", str(lake), "--keep", "0s") as (_, address):
        until(lambda: rows_of(lake) == 50)
        assert "gateway_decisions_total" not in counted(address)
        told = sidecar_lag.beside(journal)
        assert told is not None
        assert told.lags["metrics"] is None
        assert "metrics waits" in told.in_words
        assert checkpoint.read_text(encoding="utf-8") == "{", "it may be mended yet"
        checkpoint.unlink()
        until(lambda: counted(address).get("gateway_decisions_total") == 50)
    assert verify(journal).ok


def test_what_cannot_be_looked_up_is_left_out_and_all_else_is_shown(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    filled(journal, 20, b"a" * 16)
    with beside(journal) as (_, address):
        until(lambda: counted(address).get("gateway_decisions_total") == 20)
        until(lambda: counted(address)["gateway_consumer_lag_records"] == 0)
        journal.rename(tmp_path / "away")
        found = counted(address)
        assert found["gateway_decisions_total"] == 20
        assert "gateway_consumer_lag_records" not in found


def test_wrong_input_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = tmp_path / "journal"
    journal.mkdir()
    for arguments, said in (
        (["--journal", str(tmp_path / "none")], "there is no such folder"),
        (["--journal", str(journal), "--stages", "some"], "is notable or all"),
        (["--journal", str(journal), "--http", "0.0.0.0:1"], "no loopback address"),
        (["--journal", str(journal), "--token-file", str(tmp_path / "none")], "cannot be read"),
        (["--journal", str(journal), "--keep", "soon"], "is no span of time"),
        (["--journal", str(journal), "--otlp", "ftp://localhost"], "ftp"),
    ):
        assert run(["sidecar", *arguments]) == ExitCode.USAGE
        told = capsys.readouterr().err
        assert told.count("Error:") == 1
        assert said in told, told


def test_a_token_from_a_file_is_asked_for_and_stands_in_no_argument(tmp_path: Path) -> None:
    """On every address of this machine: metrics and page alike."""
    (tmp_path / "journal").mkdir()
    token = tmp_path / "token"
    token.write_text(f"{'t' * 40}\n")
    more = ("--token-file", str(token))
    with beside(tmp_path / "journal", *more, http="0.0.0.0:0") as (process, address):
        line = Path(f"/proc/{process.pid}/cmdline").read_text()
        assert "t" * 40 not in line
        for path in ("/", "/metrics", "/traces"):
            place = f"http://127.0.0.1:{urlsplit(address).port}{path}"
            with pytest.raises(urllib.error.HTTPError, match="401"):
                urllib.request.urlopen(place, timeout=WAIT_S)
            known = {"Authorization": f"Bearer {'t' * 40}"}
            asked = urllib.request.Request(place, headers=known)
            with pytest.raises(urllib.error.HTTPError, match="401"):
                urllib.request.urlopen(
                    urllib.request.Request(place, headers={"Authorization": "Bearer x"})
                )
            if path != "/traces":  # there is nothing in the journal yet
                with urllib.request.urlopen(asked, timeout=WAIT_S) as answer:
                    assert answer.status == 200
