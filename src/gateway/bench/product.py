"""The benchmark's models and products, made here.

Random splits cost what learned ones cost, so the benchmark needs no training library. Trees
get cheaper a row the more rows come at once; a heavy model must not, or capacity would depend
on what is being measured. So a heavy model is the same trees behind layers of arithmetic
over a wide row, whose cost grows with the rows and with nothing else, and as many layers as
this machine needs for the wanted time.
"""

from __future__ import annotations

import hashlib
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from gateway.model.runtime import inference_session

TREES, LEAVES, FEATURES = 100, 31, 30
NODE_FIELDS = (
    *("treeids", "nodeids", "featureids", "values", "modes", "truenodeids", "falsenodeids"),
    *("hitrates", "missing_value_tracks_true"),
)

_TABLE_WIDTH = 32


@dataclass(frozen=True, slots=True)
class Kind:
    """One of the benchmark's products: its budget, and what a row of its model costs.

    `row_us` 0 is the bare trees; `width` is how wide the row of the layers is. `models`: how many
    there are that cost the same and say something else.
    """

    name: str
    budget_ms: float
    row_us: float = 0.0
    width: int = 8_192
    models: int = 1

    @property
    def budget_us(self) -> float:
        """Return the budget in microseconds."""
        return self.budget_ms * 1000


LIGHT = Kind("bench-light", 25.0)
# Cheap enough for the loop itself.
MEDIUM = Kind("bench-medium", 25.0, 200.0, models=2)
HEAVY = Kind("bench-heavy", 25.0, 1_000.0)
SLOW = Kind("bench-slow", 250.0, 40_000.0, 131_072)


def tree_ensemble(
    seed: int = 7,
    *,
    trees: int = TREES,
    leaves: int = LEAVES,
    layers: int = 0,
    width: int = 0,
    table_bytes: int = 0,
) -> bytes:
    """Return an ONNX classifier: float32 [n, 30] -> probabilities [n, 2].

    A TreeEnsembleClassifier; with `layers`, behind so many Tanh over `width` numbers a row; with
    `table_bytes`, behind a table of that size, of which each row looks a few numbers up.
    """
    nodes, leaf_weights = _grown(random.Random(seed), trees, leaves)
    before, features = _looked_up() if table_bytes else _layers(layers)
    columns: dict[str, Any] = {f"nodes_{key}": values for key, values in nodes.items()}
    ensemble = helper.make_node(
        "TreeEnsembleClassifier",
        [features],
        ["label", "probabilities"],
        domain="ai.onnx.ml",
        post_transform="LOGISTIC",
        classlabels_int64s=[0, 1],
        class_treeids=[tree for tree, _, _ in leaf_weights],
        class_nodeids=[node for _, node, _ in leaf_weights],
        class_ids=[1] * len(leaf_weights),
        class_weights=[weight for _, _, weight in leaf_weights],
        **columns,
    )
    constants = []
    if layers:
        repeats = np.array([1, width // FEATURES], np.int64)
        constants = [helper.make_tensor("repeats", TensorProto.INT64, [2], repeats)]
    elif table_bytes:
        shape = (max(FEATURES, table_bytes // (4 * _TABLE_WIDTH)), _TABLE_WIDTH)
        table = np.random.default_rng(seed).random(shape, np.float32)
        constants = [
            helper.make_tensor("table", TensorProto.FLOAT, shape, table.tobytes(), raw=True)
        ]
    if before:
        constants.append(helper.make_tensor("little", TensorProto.FLOAT, [1], [1e-6]))
    graph = helper.make_graph(
        [*before, ensemble],
        "benchmark",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, FEATURES])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, [None]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2]),
        ],
        constants,
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _grown(
    chance: random.Random, trees: int, leaves: int
) -> tuple[dict[str, list[Any]], list[tuple[int, int, float]]]:
    """Grow trees: the columns of their nodes, and (tree, node, weight) of each leaf."""
    nodes: dict[str, list[Any]] = {key: [] for key in NODE_FIELDS}
    weights: list[tuple[int, int, float]] = []
    for tree in range(trees):
        # Split a random leaf until there are enough, as leaf-wise boosting does.
        children: dict[int, tuple[int, int]] = {}
        open_leaves, count = [0], 1
        while len(open_leaves) < leaves:
            leaf = open_leaves.pop(chance.randrange(len(open_leaves)))
            children[leaf] = (count, count + 1)
            open_leaves += [count, count + 1]
            count += 2
        for node in range(count):
            split = node in children
            true, false = children.get(node, (0, 0))
            row = {
                "treeids": tree,
                "nodeids": node,
                "featureids": chance.randrange(FEATURES) if split else 0,
                "values": chance.random() if split else 0.0,
                "modes": "BRANCH_LEQ" if split else "LEAF",
                "truenodeids": true,
                "falsenodeids": false,
                "hitrates": 1.0,
                "missing_value_tracks_true": 0,
            }
            for key, value in row.items():
                nodes[key].append(value)
            if not split:
                weights.append((tree, node, chance.gauss(-0.03, 0.1)))
    return nodes, weights


def _layers(count: int) -> tuple[list[Any], str]:
    """Return the nodes before the trees, and the name of what they make of the features."""
    if not count:
        return [], "features"
    nodes = [helper.make_node("Tile", ["features", "repeats"], ["wide0"])]
    nodes += [helper.make_node("Tanh", [f"wide{i}"], [f"wide{i + 1}"]) for i in range(count)]
    return [*nodes, *_moved(f"wide{count}")], "moved"


def _looked_up() -> tuple[list[Any], str]:
    """Return nodes before the trees that look up what the table says of the greatest feature."""
    nodes = [
        helper.make_node("ArgMax", ["features"], ["place"], axis=1, keepdims=0),
        helper.make_node("Gather", ["table", "place"], ["found"]),
    ]
    return [*nodes, *_moved("found")], "moved"


def _moved(name: str) -> list[Any]:
    """Return nodes that move the features by the mean of a row of numbers.

    By less than matters to the score, which depends on it all the same: no optimizer may drop it.
    """
    return [
        helper.make_node("ReduceMean", [name], ["mean"], axes=[1], keepdims=1),
        helper.make_node("Mul", ["mean", "little"], ["nearly_nothing"]),
        helper.make_node("Add", ["features", "nearly_nothing"], ["moved"]),
    ]


def row_us(model: bytes, clock_ns: Callable[[], int] = time.perf_counter_ns) -> float:
    """Measure what one row costs in `session.run`, in microseconds: the median of some."""
    session = inference_session(model)
    row = np.random.default_rng(1).random((1, FEATURES), np.float32)
    times: list[int] = []
    begun_ns = clock_ns()
    while len(times) < 5 or (len(times) < 200 and clock_ns() - begun_ns < 200_000_000):
        before_ns = clock_ns()
        session.run(["probabilities"], {"features": row})
        times.append(clock_ns() - before_ns)
    return statistics.median(times) / 1000


def models_of(kind: Kind) -> tuple[bytes, ...]:
    """Return the kind's models; a row costs what the kind says, on this machine, now."""
    layers = _layers_of(kind)
    return tuple(
        tree_ensemble(seed, layers=layers, width=kind.width if layers else 0)
        for seed in range(7, 7 + kind.models)
    )


def _layers_of(kind: Kind) -> int:
    """Return how many layers make a row cost what the kind says."""
    if not kind.row_us:
        return 0
    few, many = 4, 24
    cheap = row_us(tree_ensemble(layers=few, width=kind.width))
    dear = row_us(tree_ensemble(layers=many, width=kind.width))
    layer_us = max((dear - cheap) / (many - few), 0.01)
    return few + max(1, round((kind.row_us - cheap) / layer_us))


def edition(model: bytes, number: int) -> bytes:
    """Return the same model as another file: nobody has seen it before.

    Two protobuf messages one after the other are one, its fields the last that were given.
    """
    return model + onnx.ModelProto(doc_string=f"edition {number}").SerializeToString()


def write_kind(folder: Path, kind: Kind) -> Path:
    """Write a kind's product folder, its models scaled to this machine.

    The first of them is served; the others lie beside it, as `model-1.onnx` and so on.
    """
    first, *others = models_of(kind)
    write_product(folder, first, name=kind.name, budget_ms=kind.budget_ms)
    for number, model in enumerate(others, 1):
        (folder / f"model-{number}.onnx").write_bytes(model)
    return folder


def write_product(
    folder: Path,
    model: bytes | None = None,
    *,
    name: str = "benchmark",
    budget_ms: float = 25.0,
) -> Path:
    """Write a product folder, costs and isotonic calibration included.

    `model` is the trees alone where none is given.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = tree_ensemble() if model is None else model
    (folder / "model.onnx").write_bytes(model)
    points = [i / 50 for i in range(51)]
    (folder / "calibration.json").write_text(
        f'{{"kind": "isotonic", "x": {points}, "y": {[x**1.5 for x in points]}}}'
    )
    text = product_text(File.of("model.onnx", model), name=name, budget_ms=budget_ms)
    (folder / "product.yaml").write_text(text)
    return folder


@dataclass(frozen=True, slots=True)
class File:
    """A model's file in the product's folder."""

    path: str
    sha256: str

    @classmethod
    def of(cls, path: str, model: bytes) -> File:
        """Return the file that holds these bytes."""
        return cls(path, hashlib.sha256(model).hexdigest())


def product_text(
    champion: File,
    *,
    name: str,
    budget_ms: float,
    generation: int = 1,
    shadow: File | None = None,
) -> str:
    """Return what product.yaml says."""
    features = "\n".join(
        f"  - {{name: f{i}, type: float, min: -1000000, max: 1000000}}" for i in range(FEATURES)
    )
    return PRODUCT.format(
        name=name,
        generation=generation,
        budget_ms=f"{budget_ms:g}",
        champion=MODEL.format(path=champion.path, sha256=champion.sha256),
        challengers=""
        if shadow is None
        else CHALLENGERS.format(path=shadow.path, sha256=shadow.sha256),
        features=features,
    )


MODEL = """\
    path: {path}
    sha256: {sha256}
    output: "probabilities[1]"
    calibration: {{kind: isotonic, path: calibration.json}}
    base_rate: {{calibrated_at: 0.02, serving: 0.002}}
"""

CHALLENGERS = (
    """\
  challengers:
  - name: challenger
    mode: shadow
"""
    + MODEL
)

PRODUCT = """\
product: {name}
generation: {generation}
owners: {{science: bench, engineering: bench, product: bench, operations: bench}}
latency: {{budget_ms: {budget_ms}, contact_within_s: 60}}
stand_in:
  deadline: [{{up_to: 50, action: approve}}, {{action: step_up}}]
  overload: [{{up_to: 50, action: approve}}, {{action: step_up}}]
  model_unavailable: [{{action: step_up}}]
  model_error: [{{action: step_up}}]
on_record_failure: continue
models:
  champion:
{champion}{challengers}features:
{features}
costs:
  currency: USD
  false_negative: {{loss_rate: 1.0, fee: 25}}
  false_positive: {{margin: 0.02, retained: 0.0, goodwill: 5}}
  step_up:
    {{fee: 0.1, genuine_pass: 0.95, fraud_pass: 0.1, liability_shift: 0.8, friction: 0.5}}
  categories:
    pharmacy: {{mcc: [5912], harm: 4}}
    grocery: {{mcc: [5411], harm: 3}}
    fuel: {{mcc: [5541, 5542], harm: 2, harm_up_to: 150}}
actions: [approve, step_up, decline]
"""
