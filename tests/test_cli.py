"""The command line as its users meet it: wrong input first."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import catalogue
import grpc
import pytest
from conftest import WAIT_S

from gateway.cli.demo_months import transaction_id
from gateway.cli.main import app, run
from gateway.decide.draw import draw, draw_key
from gateway.demo.months import draw_months
from gateway.errors import ExitCode
from gateway.journal import Mode, Writer
from gateway.sidecar.lake import Lake

ROOT = Path(__file__).parents[1]
PRODUCTS = [ROOT / "models" / name for name in ("card-not-present", "card-present")]
COMMAND = [sys.executable, "-m", "gateway"]


@pytest.fixture
def product(tmp_path: Path) -> Path:
    return catalogue.write_folder(tmp_path / "product")


Complaint = Callable[..., str]


@pytest.fixture
def complaint(capsys: pytest.CaptureFixture[str]) -> Complaint:
    """Run a command that must fail with `code`; return what it says, once and plainly."""

    def said(code: ExitCode, *arguments: object) -> str:
        assert run([str(argument) for argument in arguments]) == code
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "Traceback" not in captured.err
        assert captured.err.count("Error:") >= 1
        return captured.err

    return said


def test_a_missing_folder(complaint: Complaint) -> None:
    said = complaint(ExitCode.USAGE, "check", "nowhere")
    assert "nowhere: there is no product.yaml here" in said
    assert "Try:" in said


def test_every_typo_of_a_product_at_once(complaint: Complaint, product: Path) -> None:
    path = product / "product.yaml"
    text = path.read_text().replace('"loss_rate": 1.0', '"loss_rate": 10')
    path.write_text(text.replace('"goodwill"', '"godwill"'))
    line = 1 + text[: text.index('"loss_rate"')].count("\n")
    said = complaint(ExitCode.INVALID_PRODUCT, "check", product)
    assert f"{path}:{line}: costs.false_negative.loss_rate is 10, must be 0..1" in said
    assert "Did you mean 0.10?" in said
    assert "Did you mean goodwill?" in said


def test_an_altered_model(complaint: Complaint, product: Path) -> None:
    with (product / "model.onnx").open("ab") as model:
        model.write(b"x")
    assert "its sha256 is" in complaint(ExitCode.INVALID_MODEL, "check", product)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"models__champion__output": "nothing[1]"}, "has no output 'nothing'"),
        ({"models__champion__output": "probabilities[7]"}, "there is no column 7"),
        ({"models__champion__output": "probabilities"}, "none of them is named"),
        ({"models__champion__path": "absent.onnx"}, "there is no such file"),
        ({"models__champion__golden": "golden.json"}, "there is no such file"),
        ({"features": catalogue.BASE["features"][:2]}, "2 features are declared"),
        (
            {"models__champion__calibration": {"kind": "platt", "path": "product.yaml"}},
            "needs 'a'",
        ),
    ],
)
def test_a_model_that_does_not_fit(
    complaint: Complaint, tmp_path: Path, changes: dict[str, object], says: str
) -> None:
    folder = catalogue.write_folder(tmp_path / "product", **changes)
    said = complaint(ExitCode.INVALID_MODEL, "check", folder)
    assert says in " ".join(said.split())


def test_a_file_that_is_no_model(complaint: Complaint, tmp_path: Path) -> None:
    folder = catalogue.write_folder(tmp_path / "product", model=b"not an ONNX file")
    assert "is no ONNX file" in complaint(ExitCode.INVALID_MODEL, "check", folder)


def test_golden_vectors_that_another_model_gave(complaint: Complaint, tmp_path: Path) -> None:
    folder = catalogue.write_folder(tmp_path / "product", models__champion__golden="golden.json")
    golden = {"features": [[20.0, 1.0, 0.0]], "scores": [0.5]}
    (folder / "golden.json").write_text(json.dumps(golden))
    said = complaint(ExitCode.INVALID_MODEL, "check", folder)
    assert "golden vector 0: the score is off by" in said


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["frobnicate"], ExitCode.USAGE),
        (["check", "--frobnicate"], ExitCode.USAGE),
        (["check"], ExitCode.USAGE),
        (["serve"], ExitCode.USAGE),
        (["serve", "PRODUCT", "--listen", "nowhere"], ExitCode.USAGE),
        (["serve", "PRODUCT", "--listen", "0.0.0.0:0"], ExitCode.USAGE),
        (["serve", "PRODUCT", "--journal-max-bytes", "lots"], ExitCode.USAGE),
        (["serve", "PRODUCT", "--journal-max-bytes", "1"], ExitCode.JOURNAL),
        (["serve", "PRODUCT", "PRODUCT"], ExitCode.USAGE),
        (["serve", "PRODUCT", "--listen", "127.0.0.1:0", "--journal", "FILE"], ExitCode.JOURNAL),
        (["serve", "PRODUCT", "--tls-certificate", "absent"], ExitCode.USAGE),
        (["serve", "PRODUCT", "--tls-certificate", "FILE", "--tls-key", "FILE"], ExitCode.USAGE),
        (["decide", "absent.json"], ExitCode.USAGE),
        (["decide", "FILE"], ExitCode.USAGE),
        (["decide", "REQUEST", "--to", "127.0.0.1:1"], ExitCode.UNREACHABLE),
        (["decide", "REQUEST", "--to", "no address"], ExitCode.USAGE),
        (["journal", "verify", "absent"], ExitCode.JOURNAL),
        (["journal", "cat", "EMPTY"], ExitCode.JOURNAL),
    ],
)
def test_what_cannot_be_done_is_said_once(
    complaint: Complaint, product: Path, tmp_path: Path, arguments: list[str], code: ExitCode
) -> None:
    file, empty, request = tmp_path / "file", tmp_path / "empty", tmp_path / "request.json"
    file.write_text("neither JSON nor PEM")
    empty.mkdir()
    request.write_text('{"product": "test"}')
    places = {"PRODUCT": product, "FILE": file, "EMPTY": empty, "REQUEST": request}
    complaint(code, *(places.get(argument, argument) for argument in arguments))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is no JSON"),
        ("[]", "must be a JSON object"),
        ('{"produkt": "x"}', 'no field named "produkt"'),
        ('{"amount": "many"}', "amount"),
    ],
)
def test_a_request_that_is_none(complaint: Complaint, tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "request.json"
    path.write_text(text)
    assert says in complaint(ExitCode.USAGE, "decide", path)


def test_check_shows_the_thresholds_and_what_is_not_enforced(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    picture = tmp_path / "costs.svg"
    assert run(["check", *map(str, PRODUCTS), "--plot", str(picture)]) == ExitCode.OK
    shown = capsys.readouterr().out
    assert "golden vectors" in shown
    assert "pharmacy" in shown
    assert "Declared, not enforced yet" in shown
    assert picture.read_text().startswith("<svg")
    assert run(["check", *map(str, PRODUCTS), "--json"]) == ExitCode.OK
    products = json.loads(capsys.readouterr().out)["products"]
    for one in products:
        thresholds = {(t["category"], t["amount"]): t["intervals"] for t in one["thresholds"]}
        first = thresholds[None, 100]
        assert first[0]["action"] == "approve"
        assert thresholds["pharmacy", 100][1]["from"] > first[1]["from"]


VERBS = (
    *(["demo"], ["init"], ["check"], ["serve"], ["status"], ["decide"], ["explain"]),
    *(["sidecar"], ["label"]),
    *(["journal", "verify"], ["journal", "cat"]),
    *(["hypothesis", verb] for verb in ("list", "start", "show", "stop")),
)


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_help_has_examples_and_the_meaning_of_every_option(
    verb: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*verb, "--help"]) == ExitCode.OK
    shown = capsys.readouterr().out
    assert f"gateway {' '.join(verb)}" in shown[shown.index("Examples:") :]
    command = app
    for word in verb:
        command = command[word]
    for argument in command.assemble_argument_collection():
        assert argument.parameter.help, argument.name
        if argument.parameter.show is False:  # between our own processes
            continue
        assert argument.name.removeprefix("--") in shown


def test_no_arguments_say_where_to_start(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == ExitCode.OK
    shown = capsys.readouterr().out
    assert "Start here: gateway demo --once" in " ".join(shown.split())
    assert "8 DAMAGED_JOURNAL" in shown


@contextmanager
def serving(
    folders: list[Path], journal: Path, *more: str
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    command = [*COMMAND, "serve", *map(str, folders), "--listen", "127.0.0.1:0", "--json", *more]
    process = subprocess.Popen(
        [*command, "--journal", str(journal)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        yield json.loads(process.stdout.readline())["address"], process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def unhurried(folder: Path, place: Path) -> Path:
    """Copy a product's folder, with a budget that no busy machine exhausts: its model decides."""
    copy = place / folder.name
    shutil.copytree(folder, copy)
    patient_budget(copy)
    return copy


def patient_budget(folder: Path) -> None:
    """Give a product that budget."""
    text = (folder / "product.yaml").read_text(encoding="utf-8")
    text, found = re.subn(r"\bbudget_ms: \d+", "budget_ms: 10000", text)
    assert found == 1
    (folder / "product.yaml").write_text(text, encoding="utf-8")


def test_the_examples_are_decided_and_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From a request file to a decision in words, as JSON, and in the journal."""
    journal = tmp_path / "journal"
    products = [unhurried(folder, tmp_path) for folder in PRODUCTS]
    with serving(products, journal) as (address, process):
        for path in sorted((ROOT / "examples").glob("request-*.json")):
            decide = ["decide", str(path), "--to", address, "--timeout-ms", "20000"]
            assert run([*decide, "--json"]) == ExitCode.OK
            answer = json.loads(capsys.readouterr().out)
            assert (answer["stand_in"], answer["recorded"]) == ("NONE", True)
            assert run(decide) == ExitCode.OK
            assert "P(fraud) is" in capsys.readouterr().out
        wrong = tmp_path / "wrong.json"
        wrong.write_text('{"product": "card-present", "features": {"amont": 1}}')
        decide = ["decide", str(wrong), "--to", address, "--timeout-ms", "20000"]
        assert run(decide) == ExitCode.REFUSED
        assert "did you mean amount?" in capsys.readouterr().err
        port = ["serve", str(PRODUCTS[0]), "--listen", address, "--journal", str(tmp_path / "j2")]
        assert run(port) == ExitCode.CANNOT_LISTEN
        same = ["serve", str(PRODUCTS[0]), "--listen", "127.0.0.1:0", "--journal", str(journal)]
        assert run(same) == ExitCode.JOURNAL
        capsys.readouterr()
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == ExitCode.OK
    assert run(["journal", "verify", str(journal), "--json"]) == ExitCode.OK
    report = json.loads(capsys.readouterr().out)
    assert report["ok"]
    assert report["entries"]["decision"] == 4
    assert report["entries"]["refused"] == 1
    assert run(["journal", "cat", str(journal)]) == ExitCode.OK
    assert re.search(r"[0-9a-f]{16}-00-[0-9a-f]{12}", capsys.readouterr().out)
    assert run(["journal", "cat", str(journal), "--json", "--last", "2"]) == ExitCode.OK
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 2
    assert all("features" not in row.get("request", {}) for row in rows)


def test_a_damaged_journal_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = tmp_path / "journal"
    with Writer.open(journal, worker=0, boot_id=bytes(16), mode=Mode.PROCESS) as writer:
        writer.append([bytes([5]) + bytes(16)] * 20)
    (segment,) = journal.glob("*.journal")
    content = bytearray(segment.read_bytes())
    content[len(content) // 2] ^= 0xFF
    segment.write_bytes(content)
    assert run(["journal", "verify", str(journal)]) == ExitCode.DAMAGED_JOURNAL
    assert "Damaged" in capsys.readouterr().out


def test_ctrl_c_while_a_gateway_does_not_answer(tmp_path: Path) -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    asked, release = threading.Event(), threading.Event()

    def never(_request: bytes, _context: grpc.ServicerContext) -> bytes:
        asked.set()
        release.wait(WAIT_S)
        return b""

    handler = grpc.unary_unary_rpc_method_handler(never)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("gateway.v1.DecisionService", {"Decide": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    request = tmp_path / "request.json"
    request.write_text("{}")
    process = subprocess.Popen(
        [*COMMAND, "decide", str(request), "--to", f"127.0.0.1:{port}", "--timeout-ms", "60000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert asked.wait(WAIT_S)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=WAIT_S)
    release.set()
    server.stop(None).wait()
    assert process.returncode == ExitCode.INTERRUPTED
    assert "Traceback" not in error
    assert out == ""


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    pipe = subprocess.run(
        f"{sys.executable} -m gateway check --reference | head -1",
        shell=True,
        capture_output=True,
        text=True,
        check=True,
    )
    assert pipe.stderr == ""
    assert pipe.stdout.startswith("| key")


@pytest.mark.slow
def test_the_demos_months_stand_in_the_lake_as_they_were_drawn(tmp_path: Path) -> None:
    """Every payment and label of them, by drawing them again."""
    path, own = tmp_path / "lake", tmp_path / "own"
    shutil.copytree(PRODUCTS[1], own)
    asked = ["--payments", "200", "--months-payments", "2500", "--seed", "5", "--lake", str(path)]
    asked += ["--product", str(own)]
    shown = subprocess.run(
        [*COMMAND, "demo", "--once", "--json", *asked], capture_output=True, text=True, check=True
    )
    summary = json.loads(shown.stdout)
    told, lake = summary["months"], Lake.at(str(path))
    months = draw_months(5, 2500, int(datetime.fromisoformat(told["to"]).timestamp()))
    count = len(months.payments)
    assert told["decisions"] == sum(told["by_action"].values()) == count
    assert (told["errors"], told["lost"]) == ({}, 0)
    assert summary["journal"] == {"records": 700 + count}
    assert summary["spans"] == summary["lake"] == {"decisions": 700 + count}

    rows = {row["transaction_id"]: row for row in lake.dataset("decisions").to_table().to_pylist()}
    ids = [transaction_id(told["run"], number) for number in range(count)]
    for one, payment in zip(ids, months.payments, strict=True):
        row = rows[one]
        assert row["event_time"].timestamp() == pytest.approx(payment.event_time_s, abs=1e-3)
        assert (row["product"], row["amount_minor"], row["category"], row["channel"]) == (
            *(payment.product, payment.amount_minor, payment.mcc, payment.channel),
        )
    # The caller's own product is served as it is, the demo's as the day's.
    assert {(rows[one]["product"], rows[one]["generation"]) for one in ids} == {
        ("card-present", 1),
        ("card-not-present", int(told["to"][:10].replace("-", ""))),
    }
    # Half of its customers are the rival's, by the draw that everybody's canaries have.
    key, drawn = draw_key("canary", "card-not-present/knows-helpers"), set()
    for one, payment in zip(ids, months.payments, strict=True):
        if payment.product == "card-not-present":
            rival = draw(payment.subject, key) < 0.5
            assert rows[one]["arm"] == ("knows-helpers" if rival else "lightgbm-100x31")
            drawn.add(rival)
    assert drawn == {True, False}
    (claim,) = (path / "hypotheses").rglob("*.json")
    assert claim.stem == "fewer-turned-away", "of the caller's own product nothing is believed"
    started = datetime.fromisoformat(json.loads(claim.read_text())["started"])
    assert 0 < months.payments[0].event_time_s - started.timestamp() < 31 * 3_600

    explored = [one for one in ids if rows[one]["explored"]]
    assert len(explored) == told["explored"] > 0
    assert {rows[one]["propensity"] for one in explored} == {0.8}

    every = lake.dataset("labels").to_table().to_pylist()
    by_id = dict(zip(ids, months.payments, strict=True))
    labels = [label for label in every if label["transaction_id"] in by_id]
    assert len(labels) == told["labels"] > 0
    # And of the round's payments: who was reached, and what they answered.
    assert len(every) - len(labels) == summary["labels"] > 0
    for label in labels:
        payment, row = by_id[label["transaction_id"]], rows[label["transaction_id"]]
        assert label["decision_id"] == row["decision_id"]
        assert row["event_time"] <= label["occurred_time"] <= label["reported_time"]
        assert label["reported_time"].timestamp() <= months.ends_s
        assert row["action"] != "decline"
        if label["kind"] == "customer_denied":
            assert payment.fraud
        if label["kind"] == "customer_confirmed":
            assert not payment.fraud
    groups = lake.dataset("attributes").to_table().to_pylist()
    assert len(groups) == told["attributes"] == len(months.told)
    assert Counter(one["value"] for one in groups) == Counter(months.told.values())


@pytest.mark.slow
def test_the_demo_loses_nothing_and_serves_a_changed_copy_beside_its_own(tmp_path: Path) -> None:
    """The README's path: a new model scores beside the champion, and is replayed.

    With budgets that no busy machine exhausts: then nothing is late.
    """
    lake, journal, after = tmp_path / "lake", tmp_path / "journal", tmp_path / "next"
    (temp := tmp_path / "temp").mkdir()
    mine, other = (unhurried(folder, tmp_path) for folder in PRODUCTS)

    def ran(*arguments: object) -> str:
        return subprocess.run(
            [*COMMAND, *map(str, arguments)],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "COLUMNS": "100", "TMPDIR": str(temp)},
        ).stdout

    ran("models", "add", mine, ROOT / "examples" / "next" / "v2.onnx")
    labelled = ROOT / "examples" / "next" / "labelled.parquet"
    ran("calibrate", mine, "--arm", "v2", "--data", labelled, "--write")
    kept = ["--product", mine, "--product", other, "--lake", lake, "--journal", journal]
    demo = ("demo", "--once", "--json", *kept)
    summary = json.loads(ran(*demo, "--payments", 1500, "--months-payments", 0))
    # The warm-up's 500 as well; and whoever else counts comes to the same.
    assert summary["journal"] == {"records": 2000}
    assert summary["spans"] == summary["lake"] == {"decisions": 2000}
    assert Lake.at(str(lake)).dataset("decisions").count_rows() == 2000
    rows = [json.loads(line) for line in ran("journal", "cat", journal, "--json").splitlines()]
    assert [row["kind"] for row in rows].count("decision") == 2000
    assert summary["decisions"] == 1500
    assert summary["late"] == summary["lost"] == 0
    assert summary["months"] is None
    assert sum(summary["by_action"].values()) == 1500
    assert set(summary["latency_us"]) >= {"p50", "p99", "p99_9"}
    assert set(summary["savings"]) == {"card-not-present", "card-present"}
    assert list(temp.iterdir()) == []
    assert sum(len(row["calls"]) for row in rows if row["kind"] == "scored") > 100
    # Another one on the same journal: no transaction in common; spans are sent to its own receiver.
    summary = json.loads(ran(*demo, "--payments", 100, "--months-payments", 0))
    assert summary["lost"] == 0
    assert summary["journal"] == {"records": 2600}
    assert summary["spans"] == summary["lake"] == {"decisions": 2600}
    rows = [json.loads(line) for line in ran("journal", "cat", journal, "--json").splitlines()]
    ids = [row["request"]["transaction_id"] for row in rows if row["kind"] == "decision"]
    assert len(ids) == len(set(ids)) == 2600
    shutil.copytree(mine, after)
    ran("models", "promote", after, "v2", "--keep-as-shadow")
    told = json.loads(ran("whatif", mine, after, "--journal", journal, "--json"))
    assert told["product"] == "card-not-present"
