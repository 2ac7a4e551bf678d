"""`gateway decide`: what it takes, what it refuses before it asks, and what it says."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import catalogue
import pytest
from conftest import Running, Serve
from google.protobuf.json_format import MessageToDict

from gateway.cli.decide import in_words
from gateway.cli.main import run
from gateway.errors import ExitCode
from gateway.v1.decision_pb2 import DecideResponse

Ask = Callable[..., int]
PATIENT = ("--timeout-ms", "20000")


@pytest.fixture
def front() -> str:
    """One front is enough here: the conformance suite holds them to the same answers."""
    return "native"


def asked(**changes: Any) -> dict[str, Any]:
    """Return the base request as its user writes it, with changes; None leaves a field out."""
    values = MessageToDict(catalogue.request(), preserving_proto_field_name=True)
    values["features"] = {"amount": 20.0, "ratio": 1, "entry_mode": "chip"}
    return {name: value for name, value in {**values, **changes}.items() if value is not None}


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    def run_decide(values: object, *more: str) -> int:
        path = tmp_path / "request.json"
        path.write_text(values if isinstance(values, str) else json.dumps(values))
        return run(["decide", str(path), *PATIENT, *more])

    return run_decide


@pytest.mark.parametrize(
    "value",
    [
        *(None, [1], {}, {"number": 1, "text": "x"}, {"zahl": 1}, math.nan, math.inf, 10**400),
        *({"number": 10**400}, {"number": "1"}, {"text": 1}),
    ],
)
def test_a_feature_is_a_finite_number_or_a_text(
    value: object, ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    values = asked(features={"[red]ratio": value})
    assert ask(values) == ExitCode.USAGE
    said = capsys.readouterr().err
    assert "features[[red]ratio] must be a finite number or a text" in said
    assert "Try:" in said


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[" * 100_000,
        '{"amount": ' + "9" * 400 + "}",
        '{"amount": ' + "9" * 5000 + "}",
        '{"amount": 1.5}',
        '{"event_time": "yesterday"}',
        '{"features": [1]}',
        '"text"',
    ],
)
def test_what_is_no_request_is_one_short_message(
    text: str, ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(text) == ExitCode.USAGE
    captured = capsys.readouterr()
    assert captured.out == ""
    error, hint = captured.err.splitlines()
    assert error.startswith("Error: ")
    assert hint.startswith("Try: ")
    assert len(error) < 500


@pytest.mark.parametrize(
    "to",
    [
        *("", "nowhere", "no address", "unix:", ":1", "127.0.0.1", "127.0.0.1:99999"),
        *("127.0.0.1:²", "http://127.0.0.1:50051"),
    ],
)
def test_what_is_no_address_is_not_asked(
    to: str, ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(asked(), "--to", to) == ExitCode.USAGE
    assert "is no address" in capsys.readouterr().err


@pytest.mark.parametrize("to", ["127.0.0.1:1", "[::1]:1", "unix:/nowhere/gateway.sock"])
def test_where_nobody_listens(to: str, ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(asked(), "--to", to) == ExitCode.UNREACHABLE
    assert f"{to}: no gateway answers\nTry: Start one: gateway serve" in capsys.readouterr().err


@pytest.mark.parametrize("timeout_ms", ["0", "-1", "nan", "inf", "soon"])
def test_a_timeout_is_a_time(timeout_ms: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["decide", "-", "--timeout-ms", timeout_ms]) == ExitCode.USAGE
    assert "--timeout-ms" in capsys.readouterr().err


@pytest.fixture
def running(serve: Serve) -> Running:
    with serve() as one:
        yield one


def test_a_request_comes_from_a_file_or_from_stdin_with_or_without_a_bom(
    running: Running, ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    to = ("--to", running.address)
    written_out = {"amount": {"number": 20.0}, "ratio": True, "entry_mode": {"text": "chip"}}
    for values in (asked(), asked(features=written_out), "\ufeff" + json.dumps(asked())):
        assert ask(values, *to, "--json") == ExitCode.OK
        assert json.loads(capsys.readouterr().out)["action"] == "APPROVE"
    command = [sys.executable, "-m", "gateway", "decide", "-", "--json", *PATIENT, *to]
    child = subprocess.run(
        command, input=json.dumps(asked(event_time=None)).encode(), capture_output=True
    )
    assert child.returncode == ExitCode.OK
    assert json.loads(child.stdout)["action"] == "APPROVE"
    assert child.stderr == b"event_time is not given: now.\n"


def test_every_violation_stands_on_a_line_of_its_own(
    running: Running, ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = asked(currency="EUR", category="food", features={"amont": 1, "ratio": "much"})
    assert ask(wrong, "--to", running.address) == ExitCode.REFUSED
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"Error: {running.address}: INVALID_ARGUMENT:"
    fields = {line.split()[0] for line in lines[1:-1]}
    assert fields == {
        *("currency", "category", "features[amont]"),
        *("features[amount]", "features[ratio]", "features[entry_mode]"),
    }
    assert lines[-1].startswith("Try: ")


def test_an_unknown_product_names_those_that_are_served(
    running: Running, ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(asked(product="tset"), "--to", running.address) == ExitCode.REFUSED
    assert "NOT_FOUND: no such product; served: test" in capsys.readouterr().err


def test_words_print_what_the_caller_wrote_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither markup nor emoji codes of a transaction id are taken for such."""
    request = catalogue.request(transaction_id="[red]:x:[/]")
    in_words(request, DecideResponse(action=1, stand_in=1, recorded=False))
    said = capsys.readouterr().out
    assert "[red]:x:[/]" in said
    assert "The model did not decide (deadline)" in said
    assert "NOT RECORDED" in said
