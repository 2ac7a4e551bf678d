"""A hostile or broken ONNX file harms a child process, and nobody else."""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import catalogue
import numpy as np
import pytest
from conftest import Serve
from onnx import ModelProto, TensorProto, helper, numpy_helper
from test_fronts import decide

from gateway.errors import ModelError
from gateway.model import load_generation
from gateway.model.trial import Trial, try_model
from gateway.product import Limits, Output

CARD = Path(__file__).parents[1] / "models" / "card-present"
OUTPUT = Output("probabilities", 1)


def tried(model: bytes, **limits: float) -> Trial:
    rows = [[20.0, 1.0, 0.0]]
    return try_model(
        model,
        subject="model.onnx",
        limits=Limits(**limits),
        output=OUTPUT,
        columns=(None,) * 3,
        rows=rows,
    )


def refused(model: bytes, **limits: float) -> ModelError:
    with pytest.raises(ModelError) as caught:
        tried(model, **limits)
    assert str(caught.value).startswith("model.onnx: ")
    assert "Traceback" not in str(caught.value)
    return caught.value


def edited(change: Callable[[ModelProto], None]) -> bytes:
    proto = ModelProto.FromString(catalogue.logistic_model())
    change(proto)
    return proto.SerializeToString()


def behind(*nodes: object, **initializers: np.ndarray) -> Callable[[ModelProto], None]:
    """Return an edit that adds the scalar `extra`, made by `nodes`, to the model's sum."""

    def change(proto: ModelProto) -> None:
        graph = proto.graph
        gemm = graph.node[0]
        gemm.output[0] = "z0"
        rest = list(graph.node[1:])
        del graph.node[1:]
        graph.node.extend([*nodes, helper.make_node("Add", ["z0", "extra"], ["z"]), *rest])
        graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in initializers.items())

    return change


def loop(trips: str) -> list[object]:
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["on"]),
            helper.make_node("Add", ["sum", "step"], ["more"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, [1]),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]),
        ],
        [numpy_helper.from_array(np.ones(1, dtype=np.float32), "step")],
    )
    return [helper.make_node("Loop", [trips, "yes", "start"], ["extra"], body=body)]


LOOP = {"yes": np.array(True), "start": np.zeros(1, dtype=np.float32)}
FOREVER = np.array(10**15, dtype=np.int64)


def endless_load(proto: ModelProto) -> None:
    """Constant folding runs the loop before the session is there."""
    behind(*loop("trips"), trips=FOREVER, **LOOP)(proto)


def endless_run(proto: ModelProto) -> None:
    """The loop's trips depend on the input: the session opens, and never answers."""
    nodes = [
        helper.make_node("ReduceMax", ["features"], ["top"], keepdims=0),
        helper.make_node("Cast", ["top"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Mul", ["whole", "many"], ["trips"]),
        *loop("trips"),
    ]
    behind(*nodes, many=FOREVER, **LOOP)(proto)


def too_large(proto: ModelProto) -> None:
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros"], ["extra"], keepdims=0),
    ]
    behind(*nodes, shape=np.array([2**38], dtype=np.int64))(proto)


def external(location: str) -> Callable[[ModelProto], None]:
    def change(proto: ModelProto) -> None:
        weights = proto.graph.initializer[0]
        weights.ClearField("raw_data")
        weights.data_location = TensorProto.EXTERNAL
        weights.external_data.add(key="location", value=location)

    return change


def hidden_external(proto: ModelProto) -> None:
    """In a tensor of a subgraph's attribute, where a look at the initializers does not find it."""
    endless_load(proto)
    (step,) = next(n for n in proto.graph.node if n.op_type == "Loop").attribute[0].g.initializer
    step.data_location = TensorProto.EXTERNAL
    step.external_data.add(key="location", value="/etc/passwd")


def custom(proto: ModelProto) -> None:
    proto.graph.node[1].domain = "com.acme"
    proto.opset_import.add(domain="com.acme", version=1)


def claims_much(proto: ModelProto) -> None:
    weights = proto.graph.initializer[0]
    weights.ClearField("raw_data")
    del weights.dims[:]
    weights.dims.extend([10**6, 10**6])


def short_of_bytes(proto: ModelProto) -> None:
    proto.graph.initializer[0].raw_data = b"\0" * 4


def unknown_operator(proto: ModelProto) -> None:
    proto.graph.node[1].op_type = "Sygmoid"


def from_the_future(proto: ModelProto) -> None:
    proto.opset_import[0].version = 999


BROKEN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is no ONNX file"),
    "garbage": (b"PK\x03\x04 nothing of it", "is no ONNX file"),
    "truncated": (catalogue.logistic_model()[:200], "is no ONNX file"),
    "external": (edited(external("weights.bin")), "external data"),
    "external outside": (edited(external("../../../etc/passwd")), "external data"),
    "external below": (edited(hidden_external), "external data"),
    "custom operator": (edited(custom), "custom operators: com.acme.Sigmoid"),
    "claims much": (edited(claims_much), "would take 3,814,697 MiB"),
    "short of bytes": (edited(short_of_bytes), "needs 12 bytes, but has 4"),
    "unknown operator": (edited(unknown_operator), "ONNX Runtime cannot open it"),
    "future": (edited(from_the_future), "ONNX Runtime cannot open it"),
    "too large": (edited(too_large), "takes more than 2,048 MiB"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused_and_says_why(name: str) -> None:
    model, says = BROKEN[name]
    assert says in str(refused(model))


@pytest.mark.parametrize("change", [endless_load, endless_run])
def test_a_model_that_never_finishes_is_given_up(change: Callable[[ModelProto], None]) -> None:
    said = refused(edited(change), load_s=1.5)
    assert said.what == "it took more time than the 1.5 s that it has to open and score"
    assert "load_s can be raised" in said.hint
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    assert not [pid for pid in children if b"gateway.model.child" in _command(pid)]


def test_a_model_that_crashes_takes_only_the_child_with_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A segmentation fault in the child: its interpreter is replaced by one that has it."""
    crash = tmp_path / "python"
    crash.write_text("#!/bin/sh\ncat > /dev/null\nkill -SEGV $$\n")
    crash.chmod(0o700)
    monkeypatch.setattr("sys.executable", str(crash))
    said = refused(catalogue.logistic_model(bias=-3.5)).what
    assert said == "it crashed the child process that opened it (SIGSEGV)"


def test_what_was_tried_once_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model = catalogue.logistic_model(bias=-4.25)
    before = tried(model)
    monkeypatch.setattr("sys.executable", "/nonexistent")
    assert tried(model) is before
    assert before.scores == pytest.approx([1 / (1 + np.exp(4.25 - 0.04 - 0.8))], rel=1e-5)
    assert [port.name for port in before.inputs] == ["features"]
    assert before.operators == ("Concat", "Gemm", "Sigmoid", "Sub")


@pytest.mark.slow
@pytest.mark.parametrize("front", ["native"], indirect=True)
def test_a_server_serves_on_while_every_broken_file_is_refused(
    serve: Serve, tmp_path: Path
) -> None:
    sparse = tmp_path / "sparse" / "model.onnx"
    with serve() as running:
        for i, (model, says) in enumerate(BROKEN.values()):
            folder = catalogue.write_folder(tmp_path / str(i), model)
            with pytest.raises(ModelError, match=says.replace("(", r"\(")):
                load_generation(folder)
            assert decide(running, catalogue.request()).stand_in == 0
        catalogue.write_folder(sparse.parent)
        os.truncate(sparse, 2 * 2**30)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(ModelError, match="larger than 512 MiB"):
            load_generation(sparse.parent)
        assert decide(running, catalogue.request()).stand_in == 0
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


def test_every_corrupted_kibibyte_is_noticed(tmp_path: Path) -> None:
    folder = shutil.copytree(CARD, tmp_path / "card")
    path = folder / "v1.onnx"
    good = path.read_bytes()
    for place in range(0, len(good), 1024):
        path.write_bytes(good[:place] + bytes([good[place] ^ 0x40]) + good[place + 1 :])
        with pytest.raises(ModelError, match="its sha256 is"):
            load_generation(folder)


@pytest.mark.slow
def test_a_corrupted_file_that_was_pinned_anew_is_refused_or_scores_the_same(
    tmp_path: Path,
) -> None:
    """The golden vectors see what the digest was made to forgive."""
    folder = shutil.copytree(CARD, tmp_path / "card")
    model, product = folder / "v1.onnx", folder / "product.yaml"
    good, declared = model.read_bytes(), product.read_text()
    whole, harmless = load_generation(folder), 0
    rows = np.array([[0.5] * whole.champion.columns], dtype=whole.champion.dtype)
    for place in range(97, len(good), 512):
        bad = good[:place] + bytes([good[place] ^ 0x40]) + good[place + 1 :]
        model.write_bytes(bad)
        pinned = hashlib.sha256(bad).hexdigest()
        product.write_text(declared.replace(whole.champion.digest, pinned))
        try:
            loaded = load_generation(folder)
        except ModelError:
            continue
        harmless += 1
        # What the golden vectors let through is within their tolerance elsewhere, too.
        assert loaded.champion.score(rows) == pytest.approx(whole.champion.score(rows), abs=1e-3)
    assert harmless < 6


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"models__champion__output": "label"}, "is a label, which is no probability"),
        ({"models__champion__scale": [0, 0.001]}, "is no probability: it gave"),
    ],
)
def test_a_score_that_is_no_probability_needs_a_map(
    tmp_path: Path, changes: dict[str, object], says: str
) -> None:
    def with_label(proto: ModelProto) -> None:
        proto.graph.node.append(
            helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0)
        )
        proto.graph.output.append(helper.make_tensor_value_info("label", TensorProto.INT64, [None]))

    folder = catalogue.write_folder(tmp_path / "product", edited(with_label), **changes)
    with pytest.raises(ModelError, match=says):
        load_generation(folder)
    curve = {"kind": "isotonic", "x": [0, 1], "y": [0.01, 0.4]}
    mapped = {**changes, "models__champion__calibration": curve, "models__champion__scale": None}
    catalogue.write_folder(folder, edited(with_label), **mapped)
    assert load_generation(folder).policy.takes([0.0, 1.0])


def _command(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
