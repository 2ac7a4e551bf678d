"""The corpus itself: its models are what they say they are, before any gateway sees them."""

from __future__ import annotations

import csv
import io
import signal
import subprocess
import sys
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from corpus import PRODUCTS, REFUSED, N, foreign, run
from sklearn.metrics import roc_auc_score

BARE = """
import os, resource, sys
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import numpy as np, onnxruntime
onnxruntime.set_default_logger_severity(4)
model = open(sys.argv[1], "rb").read()
for limit, most in (("AS", 2 << 30), ("STACK", 8 << 20), ("CORE", 0)):
    resource.setrlimit(getattr(resource, f"RLIMIT_{limit}"), (most, most))
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
print("loaded", flush=True)
if sys.argv[2] == "run":
    session.run(None, {"x": np.ones((1, 2), dtype=np.float32)})
    print("ran", flush=True)
"""


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_bare_score_ranks_fraud(name: str) -> None:
    one = foreign(name)
    score = one.score()
    assert score.shape == (N,)
    assert score.dtype == np.float64
    assert np.isfinite(score).all()
    assert 0 < one.is_fraud.sum() < N
    auc = roc_auc_score(one.is_fraud, score)
    assert auc > 0.55 if one.rising else auc < 0.45
    if one.kind == "label":
        assert set(score) == {0.0, 1.0}
    elif one.kind == "probability" or one.scale:
        low, high = sorted(one.scale or (0.0, 1.0))
        assert low <= score.min() < score.max() <= high
    else:
        assert score.min() < 0.0 or score.max() > 1.0, "it could pass for a probability"


def _read(text: str, like: list[Any]) -> Any:
    """Read a field of a CSV as what stands in its column."""
    if text == "":
        return None
    kind = next(type(value) for value in like if value is not None)
    return text == "True" if kind is bool else kind(text)


@pytest.mark.parametrize("name", [*PRODUCTS, *REFUSED])
def test_a_table_survives_a_csv(name: str) -> None:
    rows = foreign(name).rows
    assert {len(values) for values in rows.values()} == {N}
    written = io.StringIO(newline="")
    table = csv.writer(written)
    table.writerow(rows)
    table.writerows(zip(*rows.values(), strict=True))
    header, *lines = csv.reader(io.StringIO(written.getvalue(), newline=""))
    assert header == list(rows)
    for (column, values), read in zip(rows.items(), zip(*lines, strict=True), strict=True):
        assert [_read(text, values) for text in read] == values, column


@pytest.mark.parametrize("name", PRODUCTS)
def test_features_stand_as_the_inputs_take_them(name: str) -> None:
    one = foreign(name)
    session = onnxruntime.InferenceSession(one.model, providers=["CPUExecutionProvider"])
    ports = session.get_inputs()
    if name == "no-batch":
        assert ports[0].shape == [len(one.features)]
        return
    widths = [prod(dim for dim in port.shape[1:] if isinstance(dim, int)) for port in ports]
    if name != "free-width":
        assert sum(widths) == len(one.features)
    start = 0
    for port, width in zip(ports, widths, strict=True):
        if width == 1 and len(ports) > 1:
            assert one.features[start] == port.name
        start += width
    assert one.output.partition("[")[0] in [port.name for port in session.get_outputs()]


@pytest.mark.parametrize(
    ("name", "output"), [("double-splits", "probabilities"), ("int64-matrix", "p")]
)
def test_float32_is_too_coarse_for_some(name: str, output: str) -> None:
    one = foreign(name)
    dtype = np.float64 if name == "double-splits" else np.int64
    table = np.column_stack([one.rows[column] for column in one.features]).astype(dtype)
    (port,) = onnxruntime.InferenceSession(one.model).get_inputs()
    rounded = run(one.model, output, {port.name: table.astype(np.float32).astype(dtype)})
    assert np.abs(rounded[:, -1] - one.score()).max() > 0.1


def _bare(model: bytes, folder: Path, what: str) -> tuple[str, int]:
    """Open a model in a child process with limits."""
    path = folder / "model.onnx"
    path.write_bytes(model)
    command = [sys.executable, "-c", BARE, str(path), what]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    return done.stdout, done.returncode


_LONG = ("endless", "laughs", "memory-at-load", "deep")
"""What only costs time here: test_model_trial.py has such files opened by the gateway."""


@pytest.mark.parametrize("name", [n for n in REFUSED if not any(word in n for word in _LONG)])
def test_a_bare_session_fares_as_told(name: str, tmp_path: Path) -> None:
    one = foreign(name)
    for file, content in one.beside.items():
        (tmp_path / file).write_bytes(content)
    printed, ended = _bare(one.model, tmp_path, "load" if one.bare == "loads" else "run")
    loaded, code = printed.startswith("loaded"), ended
    match one.bare:
        case "loads":
            assert (loaded, code) == (True, 0)
        case "fails to load":
            assert (loaded, code) == (False, 1)
        case "fails to run":
            assert (loaded, code) == (True, 1)
            assert "ran" not in printed
        case "dies":
            assert code in (-signal.SIGFPE, -signal.SIGSEGV)


def test_a_score_may_be_no_function_of_its_row() -> None:
    table = np.linspace(-1.0, 1.0, 8, dtype=np.float32).reshape(4, 2)

    def scores(name: str, rows: Any) -> Any:
        return run(foreign(name).model, "p", {"x": rows})

    noisy = onnxruntime.InferenceSession(foreign("refused-random").model)
    first, again = (noisy.run(["p"], {"x": table})[0] for _ in range(2))
    assert (first != again).any(), "another session may well start with the same noise"
    beside = scores("refused-softmax-over-batch", table)
    assert (scores("refused-softmax-over-batch", table[:1]) != beside[:1]).all()
    assert len(scores("refused-one-for-all", table)) == 1
    assert np.isnan(scores("refused-nan", table)).all()
