"""`gateway init` as its users meet it: wrong input first."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import catalogue
import pytest
from onnx import TensorProto, helper
from test_scaffold import payments, tried_here, written_as

from gateway.cli.main import run
from gateway.errors import ExitCode, ModelError
from gateway.model import load_generation
from gateway.scaffold import folder as folders


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    tried_here(monkeypatch)


Init = Callable[..., tuple[int, str, str]]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a model and a labelled table."""
    (tmp_path / "model.onnx").write_bytes(catalogue.logistic_model((0.01, 1.0), -2.0))
    written_as(tmp_path / "data.csv", payments())
    return tmp_path


@pytest.fixture
def init(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Init:
    """Run `gateway init` there: its exit code, stdout and stderr."""
    monkeypatch.chdir(place)

    def ran(*arguments: str) -> tuple[int, str, str]:
        code = run(["init", *arguments])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return code, said.out, said.err

    return ran


USAGE, MODEL = ExitCode.USAGE, ExitCode.INVALID_MODEL
WITH_DATA = ("model.onnx", "new", "--data", "data.csv")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["model.onnx"], USAGE, "requires an argument"),
        (["absent.onnx", "new"], USAGE, "absent.onnx: there is no such file"),
        ([".", "new"], USAGE, "is a folder"),
        (["data.csv", "new"], MODEL, "is no ONNX file"),
        (["model.onnx", "."], USAGE, "is not empty: data.csv, model.onnx"),
        (["model.onnx", "data.csv"], USAGE, "is no folder"),
        (["model.onnx", "data.csv/x"], USAGE, "cannot be written"),
        (["model.onnx", "new", "--name", "No Name"], USAGE, "must be lower-case letters"),
        (["model.onnx", "new", "--label", "is_fraud"], USAGE, "--label needs a table"),
        (["model.onnx", "new", "--fraud", "1"], USAGE, "--fraud needs a table"),
        (["model.onnx", "new", "--features", "a"], USAGE, "--features needs a table"),
        (["model.onnx", "new", "--output", "a[b"], USAGE, "is no output"),
        (["model.onnx", "new", "--output", "a"], USAGE, "--output is one of: probabilities[0]"),
        (["model.onnx", "new", "--data", "absent.csv"], USAGE, "absent.csv: cannot be read"),
        (["model.onnx", "new", "--data", "model.onnx"], USAGE, "is neither CSV nor Parquet"),
        ([*WITH_DATA, "--label", "isfraud"], USAGE, "Did you mean 'is_fraud'?"),
        ([*WITH_DATA, "--label", "amount"], USAGE, "must have 2 to 10"),
        ([*WITH_DATA, "--fraud", "yes"], USAGE, "--fraud is one of: 0, 1."),
        ([*WITH_DATA, "--features", "amount"], USAGE, "names 1 columns, but the model takes 2"),
    ],
)
def test_wrong_input(
    init: Init, place: Path, arguments: list[str], code: ExitCode, says: str
) -> None:
    """Says what is wrong and what to try, and writes nothing."""
    before = sorted(place.rglob("*"))
    ended, out, err = init(*arguments)
    assert (ended, out) == (code, "")
    assert says in err
    assert "Try:" in err
    assert sorted(place.rglob("*")) == before


def test_what_was_guessed_and_what_is_asked(init: Init, place: Path) -> None:
    code, out, err = init(*WITH_DATA)
    assert code == ExitCode.OK
    assert "Next: gateway check new" in err
    rows = [" ".join(line.split()) for line in out.splitlines()]
    assert rows[0] == "new in new"
    assert any(row.startswith("label is_fraud = 1 by its name") for row in rows)
    assert any(row.startswith("output probabilities[1] AUC 0.") for row in rows)
    assert any(row.startswith("product: what does turning away a genuine customer") for row in rows)
    assert sorted(path.name for path in (place / "new").iterdir()) == [
        *("golden.json", "model.onnx", "product.yaml", "request.json"),
    ]
    assert run(["check", "new"]) == ExitCode.OK


def test_the_same_as_json(init: Init) -> None:
    code, out, _ = init(*WITH_DATA, "--json", "--name", "cards")
    said: dict[str, Any] = json.loads(out)
    assert code == ExitCode.OK
    assert said["product"] == "cards"
    assert said["label"] == {"name": "is_fraud", "fraud": "1", "why": "by its name, 2 values"}
    assert said["output"]["name"] == "probabilities[1]"
    assert said["output"]["auc"] > 0.5
    assert said["columns"]["left_out"] == []
    assert said["golden_rows"] == 32
    assert len(said["asks"]) > 10


def test_force_overwrites_its_own_files_and_no_other(init: Init, place: Path) -> None:
    """Also where the model lies in the folder already."""
    before = {name: (place / name).read_bytes() for name in ("model.onnx", "data.csv")}
    (place / "notes.txt").write_text("mine")
    (place / "product.yaml").write_text("old")
    code, _, _ = init("model.onnx", ".", "--data", "data.csv", "--force", "--name", "here")
    assert code == ExitCode.OK
    assert {name: (place / name).read_bytes() for name in before} == before
    assert (place / "notes.txt").read_text() == "mine"
    assert (place / "product.yaml").read_text() != "old"
    assert run(["check", "."]) == ExitCode.OK


def test_a_folder_that_check_refuses_is_left_for_repair(
    init: Init, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: Path) -> None:
        raise ModelError("is off its golden vectors", subject=str(folder), hint="Look at it.")

    monkeypatch.setattr(folders, "load_generation", refuse)
    code, out, err = init(*WITH_DATA)
    assert (code, out) == (ExitCode.INVALID_MODEL, "")
    assert "is off its golden vectors" in err
    assert "mend new/product.yaml, then gateway check new" in " ".join(err.split())
    assert (place / "new" / "product.yaml").exists()


def identity(columns: int) -> bytes:
    """Return a model that hands its columns on: no classifier."""
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, columns]) for name in "xy"
    ]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])], "identity", ports[:1], ports[1:]
    )
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()


@pytest.mark.parametrize("more", [(), ("--force",), ("--json",)])
def test_a_model_that_is_no_classifier_leaves_nothing_behind(
    init: Init, place: Path, more: tuple[str, ...]
) -> None:
    (place / "identity.onnx").write_bytes(identity(16))
    (place / "there").mkdir()
    before = sorted(place.rglob("*"))
    for folder in ("new", "there"):
        ended, out, err = init("identity.onnx", folder, *more)
        assert (ended, out) == (MODEL, "")
        said = " ".join(err.split())
        assert "'y' has 16 columns, rows do not sum to 1, and none is named as a class" in said
        assert "--data TABLE" in said
        assert "--output is one of 'y[0]', 'y[1]', 'y[2]', ..." in said
        assert sorted(place.rglob("*")) == before
    # Whoever knows better says so, and answers for it.
    assert init("identity.onnx", "new", "--output", "y[2]")[0] == ExitCode.OK
    assert run(["check", "new"]) == ExitCode.OK


def test_limits_are_kept_and_written_down(tmp_path: Path) -> None:
    """A model that is only large is let in, and serve lets it in again."""
    model = tmp_path / "m.onnx"
    model.write_bytes(catalogue.logistic_model())
    folder = tmp_path / "product"
    given = ["--load-s", "60", "--memory-mib", "512"]
    assert run(["init", str(model), str(folder), *given]) == ExitCode.OK
    limits = load_generation(folder).product.models.limits
    assert (limits.load_s, limits.memory_mib, limits.file_mib) == (60.0, 512, 512)
    assert run(["init", str(model), str(tmp_path / "b"), "--load-s", "0"]) == ExitCode.USAGE
