"""How commands end: by a signal, by a closed pipe, by what a start cannot be; and what is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import catalogue
import pytest
from conftest import WAIT_S

from gateway.cli.main import run
from gateway.errors import ExitCode

COMMAND = [sys.executable, "-m", "gateway"]
ROOT = Path(__file__).parents[1]


@pytest.fixture
def product(tmp_path: Path) -> Path:
    return catalogue.write_folder(tmp_path / "product")


@pytest.fixture
def temp(tmp_path: Path) -> Path:
    """Where a command under test puts its temporary files, and nobody else."""
    folder = tmp_path / "temp"
    folder.mkdir()
    return folder


Complaint = Callable[..., str]


@pytest.fixture
def complaint(capsys: pytest.CaptureFixture[str]) -> Complaint:
    """Run a command that must fail with `code`: one error, one hint, and nothing on stdout."""

    def said(code: ExitCode, *arguments: object) -> str:
        assert run([str(argument) for argument in arguments]) == code
        captured = capsys.readouterr()
        assert captured.out == ""
        error, hint = captured.err.splitlines()
        assert error.startswith("Error: ")
        assert hint.startswith("Try: ")
        return error

    return said


@contextmanager
def started(temp: Path, *arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    """Start a command with a temporary folder of its own."""
    with subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(temp)},
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def read_until(child: subprocess.Popen[bytes], said: bytes) -> bytes:
    """Read stderr until it has said so; return it."""
    assert child.stderr is not None
    seen = b""
    while said not in seen:
        chunk = os.read(child.stderr.fileno(), 4096)
        assert chunk, seen
        seen += chunk
    return seen


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--tls-certificate", "PEM"], "needs both"),
        (["--tls-key", "PEM"], "needs both"),
        (["--tls-client-authority", "PEM"], "needs both"),
        (["--tls-certificate", "ABSENT", "--tls-key", "PEM"], "No such file"),
        (["--tls-certificate", "PEM", "--tls-key", "PEM"], "cannot be used for TLS"),
        (["--journal-max-bytes", ""], "'': is no size"),
        (["--journal-max-bytes", "1e9"], "'1e9': is no size"),
        (["--listen", "unix:"], "is no address"),
        (["--listen", "127.0.0.1:²"], "is no address"),
        (["--listen", "[::]:0"], "is open to other hosts"),
    ],
)
def test_serve_says_what_it_cannot_be_asked(
    complaint: Complaint, product: Path, tmp_path: Path, options: list[str], says: str
) -> None:
    pem = tmp_path / "file.pem"
    pem.write_text("neither certificate nor key")
    places = {"PEM": str(pem), "ABSENT": str(tmp_path / "absent.pem")}
    given = [places.get(option, option) for option in options]
    where = ["--journal", tmp_path / "j", "--front", "grpcio"]
    assert says in complaint(ExitCode.USAGE, "serve", product, *given, *where)


@pytest.mark.parametrize("front", ["native", "grpcio"])
@pytest.mark.parametrize("listen", ["192.0.2.1:0", "unix:/nowhere/gateway.sock"])
def test_serve_says_once_where_it_cannot_listen(
    product: Path, temp: Path, front: str, listen: str
) -> None:
    """Neither gRPC's own log lines nor error numbers stand around the message."""
    where = ["--listen", listen, "--insecure", "--front", front, "--journal", temp / "j"]
    with started(temp, "serve", product, *where) as child:
        out, error = child.communicate(timeout=WAIT_S)
    assert child.returncode == ExitCode.CANNOT_LISTEN
    assert out == b""
    first, second = error.decode().splitlines()
    assert first.startswith(f"Error: {listen}: ")
    assert "rrno" not in first
    assert second.startswith("Try: ")


@pytest.mark.parametrize("journal", ["/proc/journal", "FILE", "FILE/below"])
def test_a_journal_that_cannot_be_written(
    complaint: Complaint, product: Path, tmp_path: Path, journal: str
) -> None:
    file = tmp_path / "file"
    file.write_text("no folder")
    place = journal.replace("FILE", str(file))
    where = ["--listen", "127.0.0.1:0", "--journal", place]
    assert place in complaint(ExitCode.JOURNAL, "serve", product, *where)


def test_what_looks_like_markup_is_printed_as_it_is(complaint: Complaint) -> None:
    assert "no[red]where:x:" in complaint(ExitCode.USAGE, "check", "no[red]where:x:")


def test_the_demo_says_why_its_lake_cannot_be(complaint: Complaint) -> None:
    said = complaint(ExitCode.LAKE, "demo", "--once", "--payments", 1, "--lake", "no://where")
    assert "the server did not start: no://where" in said


@pytest.mark.parametrize(
    "option", ["--payments=0", "--payments=-5", "--months-payments=-1", "--seed=-1"]
)
def test_the_demo_takes_only_what_it_can_simulate(complaint: Complaint, option: str) -> None:
    assert option.split("=")[0] in complaint(ExitCode.USAGE, "demo", "--once", option)


def test_the_demo_passes_on_why_its_server_did_not_start(
    complaint: Complaint, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("no folder")
    said = complaint(ExitCode.JOURNAL, "demo", "--once", "--payments", 1, "--journal", file)
    assert f"the server did not start: {file}" in said


def test_check_answers_about_the_good_before_it_fails_for_the_bad(
    product: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["check", str(product), "nowhere"]) == ExitCode.USAGE
    captured = capsys.readouterr()
    assert "test generation 3" in captured.out
    assert captured.err.count("Error: ") == 1
    assert run(["check", str(product), "nowhere", "--json"]) == ExitCode.USAGE
    summary = json.loads(capsys.readouterr().out)
    assert [one["product"] for one in summary["products"]] == ["test"]
    assert summary["errors"] == ["nowhere: there is no product.yaml here"]


def test_ctrl_c_while_check_reads(product: Path, temp: Path) -> None:
    """A pipe in the file's place blocks the reader until the test lets it in."""
    path = product / "product.yaml"
    path.unlink()
    os.mkfifo(path)
    with started(temp, "check", product) as child:
        with path.open("wb"):
            child.send_signal(signal.SIGINT)
            out, error = child.communicate(timeout=WAIT_S)
        assert (out, error) == (b"", b"Interrupted.\n")
        assert child.returncode == ExitCode.INTERRUPTED


@pytest.mark.parametrize("front", ["native", "grpcio"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_ends_well_and_leaves_nothing(
    product: Path, temp: Path, front: str, number: signal.Signals
) -> None:
    where = ["--listen", "127.0.0.1:0", "--journal", temp.parent / "j", "--front", front]
    with started(temp, "serve", product, *where) as child:
        read_until(child, b"Next:")
        child.send_signal(number)
        out, error = child.communicate(timeout=WAIT_S)
    assert child.returncode == ExitCode.OK
    assert out.startswith(b"Serving test (generation 3) on 127.0.0.1:")
    assert b"Stopped." in error
    assert b"Traceback" not in error
    assert list(temp.iterdir()) == []


def test_serve_goes_on_when_nobody_reads_its_log(product: Path, temp: Path) -> None:
    """The reader of stderr leaves; the server still drains, seals, and says that all is well."""
    where = ["--listen", "127.0.0.1:0", "--journal", temp.parent / "j", "--json"]
    with started(temp, "serve", product, *where) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.readline()
        child.stderr.close()
        child.send_signal(signal.SIGTERM)
        assert child.wait(WAIT_S) == ExitCode.OK


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("number", "until"),
    [
        (signal.SIGINT, b"Simulating"),
        pytest.param(signal.SIGTERM, b"Asking", marks=pytest.mark.slow),
    ],
)
def test_a_stopped_demo_takes_its_server_along(
    temp: Path, number: signal.Signals, until: bytes
) -> None:
    with started(temp, "demo", "--once") as child:
        seen = read_until(child, until)
        (server,) = children_of(child.pid)
        child.send_signal(number)
        _, error = child.communicate(timeout=WAIT_S)
    assert child.returncode == ExitCode.INTERRUPTED
    assert (seen + error).count(b"Interrupted.") == 1
    assert b"Traceback" not in seen + error
    assert not Path(f"/proc/{server}").exists()
    assert list(temp.iterdir()) == []


@pytest.mark.slow
def test_a_demo_that_goes_on_says_how_far_what_is_behind_it_is(temp: Path) -> None:
    with started(temp, "demo", "--payments", 300, "--months-payments", 300) as child:
        said = read_until(child, b"The next round begins")
        assert b"Metrics: http://127.0.0.1:" in said
        assert b"Believed before them" in said
        assert b"fewer-turned-away, a-rule-will-do" in said
        child.send_signal(signal.SIGINT)
        out, _ = child.communicate(timeout=WAIT_S)
    assert child.returncode == ExitCode.INTERRUPTED
    shown = out.decode()
    (line,) = (one for one in shown.splitlines() if one.startswith("The sidecar runs"))
    for word in ("http://127.0.0.1:", "traces", "lake", "metrics", "more spans arrived"):
        assert word in line
    assert list(temp.iterdir()) == []


@pytest.mark.parametrize(
    "command", ["check --reference", "check MODEL", "check MODEL --json", "serve --help", "--help"]
)
def test_a_reader_that_leaves_at_once_is_no_error(command: str, temp: Path) -> None:
    """The pipe is closed before the command has said anything."""
    model = ROOT / "models" / "card-present"
    with started(temp, *command.replace("MODEL", str(model)).split()) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        assert child.wait(WAIT_S) == ExitCode.OK
        assert b"Traceback" not in child.stderr.read()
