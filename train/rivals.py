"""Make the two rivals of the demo's months: `python train/rivals.py`.

Writes models/card-not-present/knows-helpers.onnx, which was trained in months in which relatives
buy for others, as those of the demo do, and models/card-present/rule-of-thumb.onnx, which was not
trained at all. The first is better than the champion by what it knows, the second worse by what it
does not. Needs the extra `train`; about half a minute.
"""

from __future__ import annotations

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from gateway.demo import CARD_NOT_PRESENT, CARD_PRESENT, Payment, batch
from gateway.demo.months import draw_months
from gateway.demo.payment import CardPresentFeatures
from gateway.demo.seasons import DAY_S
from train import MODELS, OPSET, SEED, boosted, reproducible

SEEDS = range(SEED, SEED + 8)
"""Other customers than those of any demo that somebody asks for by a small seed."""

PAYMENTS = 65_000
ENDS_S = 20_000 * DAY_S

TIMES_USUAL = 4.0
SURE, UNSURE = 0.7, 0.0012


def main() -> None:
    """Live through months of other customers, and write both models."""
    payments: list[Payment] = []
    for seed in SEEDS:
        months = draw_months(seed, PAYMENTS, ENDS_S)
        # Nobody has seen the fraud that begins in the last weeks.
        payments += [one for one in months.payments if one.event_time_s < months.onset_s]
    _write(CARD_NOT_PRESENT, "knows-helpers", knows_helpers(payments))
    _write(CARD_PRESENT, "rule-of-thumb", rule_of_thumb())


def knows_helpers(payments: list[Payment]) -> onnx.ModelProto:
    """Fit 80 trees of 15 leaves on all payments: what it says are probabilities as they stand."""
    return boosted(
        batch(payments, CARD_NOT_PRESENT),
        n_estimators=80,
        num_leaves=15,
        learning_rate=0.07,
        min_child_samples=50,
        reg_lambda=1.0,
    )


def rule_of_thumb() -> onnx.ModelProto:
    """Say fraud where somebody pays four times the usual at a shop that is new to them.

    Of such payments one in 30 is fraud; it is as sure of them as if two in three were.
    """
    names = CardPresentFeatures._fields
    columns = [names.index("amount_to_usual"), names.index("new_merchant")]
    constants = {
        "columns": np.array(columns, np.int64),
        "limits": np.array([[TIMES_USUAL, 0.5]], np.float32),
        "sure": np.array([[SURE]], np.float32),
        "unsure": np.array([[UNSURE]], np.float32),
        "one": np.array([[1.0]], np.float32),
    }
    nodes = [
        helper.make_node("Gather", ["features", "columns"], ["seen"], axis=1),
        helper.make_node("Greater", ["seen", "limits"], ["beyond"]),
        helper.make_node("Cast", ["beyond"], ["counted"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMin", ["counted"], ["both"], axes=[1], keepdims=1),
        helper.make_node("Cast", ["both"], ["holds"], to=TensorProto.BOOL),
        helper.make_node("Where", ["holds", "sure", "unsure"], ["fraud"]),
        helper.make_node("Sub", ["one", "fraud"], ["genuine"]),
        helper.make_node("Concat", ["genuine", "fraud"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "rule-of-thumb",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, len(names)])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = helper.make_opsetid("", OPSET)
    return helper.make_model(graph, opset_imports=[opset], ir_version=8)


def _write(product: str, name: str, model: onnx.ModelProto) -> None:
    onnx.checker.check_model(model)
    path = MODELS / product / f"{name}.onnx"
    content = reproducible(model, name).SerializeToString()
    path.write_bytes(content)
    print(f"{product}: {path.name}, {len(content) / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
