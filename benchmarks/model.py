"""The benchmark's model and product: 100 trees x 31 leaves over 30 features, made here.

Random splits cost what learned ones cost, so the benchmark needs no training library.
"""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import onnx
from onnx import TensorProto, helper

TREES, LEAVES, FEATURES = 100, 31, 30
NODE_FIELDS = (
    *("treeids", "nodeids", "featureids", "values", "modes", "truenodeids", "falsenodeids"),
    *("hitrates", "missing_value_tracks_true"),
)


def tree_ensemble(seed: int = 7) -> bytes:
    """Return an ONNX TreeEnsembleClassifier: float32 [n, 30] -> probabilities [n, 2]."""
    chance = random.Random(seed)
    nodes: dict[str, list] = {key: [] for key in NODE_FIELDS}
    leaves: list[tuple[int, int, float]] = []
    for tree in range(TREES):
        # Split a random leaf until there are enough, as leaf-wise boosting does.
        children: dict[int, tuple[int, int]] = {}
        open_leaves, count = [0], 1
        while len(open_leaves) < LEAVES:
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
                leaves.append((tree, node, chance.gauss(-0.03, 0.1)))
    ensemble = helper.make_node(
        "TreeEnsembleClassifier",
        ["features"],
        ["label", "probabilities"],
        domain="ai.onnx.ml",
        post_transform="LOGISTIC",
        classlabels_int64s=[0, 1],
        class_treeids=[tree for tree, _, _ in leaves],
        class_nodeids=[node for _, node, _ in leaves],
        class_ids=[1] * len(leaves),
        class_weights=[weight for _, _, weight in leaves],
        **{f"nodes_{key}": values for key, values in nodes.items()},
    )
    graph = helper.make_graph(
        [ensemble],
        "benchmark",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, FEATURES])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, [None]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2]),
        ],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def write_product(folder: Path) -> Path:
    """Write the benchmark's product folder, costs and isotonic calibration included."""
    folder.mkdir(parents=True, exist_ok=True)
    model = tree_ensemble()
    (folder / "model.onnx").write_bytes(model)
    points = [i / 50 for i in range(51)]
    (folder / "calibration.json").write_text(
        f'{{"kind": "isotonic", "x": {points}, "y": {[x**1.5 for x in points]}}}'
    )
    features = "\n".join(
        f"  - {{name: f{i}, type: float, min: -1000000, max: 1000000}}" for i in range(FEATURES)
    )
    (folder / "product.yaml").write_text(
        PRODUCT.format(sha256=hashlib.sha256(model).hexdigest(), features=features)
    )
    return folder


PRODUCT = """\
product: benchmark
generation: 1
owners: {{science: bench, engineering: bench, product: bench, operations: bench}}
latency: {{budget_ms: 25, contact_within_s: 60}}
stand_in:
  deadline: [{{up_to: 50, action: approve}}, {{action: step_up}}]
  overload: [{{up_to: 50, action: approve}}, {{action: step_up}}]
  model_unavailable: [{{action: step_up}}]
  model_error: [{{action: step_up}}]
on_record_failure: continue
models:
  champion:
    path: model.onnx
    sha256: {sha256}
    output: "probabilities[1]"
    calibration: {{kind: isotonic, path: calibration.json}}
    base_rate: {{calibrated_at: 0.02, serving: 0.002}}
features:
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
