"""Products for tests: a small one in every detail legal, and changes to it."""

from __future__ import annotations

import copy
import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from onnx import TensorProto, helper, numpy_helper

from gateway.product import Product, parse
from gateway.v1.decision_pb2 import DecideRequest

BUDGET_MS = 10_000
"""A budget that no busy machine exhausts: the model decides, and no stand-in does. Whose subject is
the budget declares its own."""

BASE: dict[str, Any] = {
    "product": "test",
    "generation": 3,
    "owners": {"science": "s", "engineering": "e", "product": "p", "operations": "o"},
    "latency": {"budget_ms": BUDGET_MS, "contact_within_s": 60},
    "stand_in": {
        "deadline": [{"up_to": 50, "action": "approve"}, {"action": "step_up"}],
        "overload": [{"up_to": 50, "action": "approve"}, {"action": "step_up"}],
        "model_unavailable": [{"action": "step_up"}],
        "model_error": [{"action": "step_up"}],
    },
    "on_record_failure": "continue",
    "models": {
        "champion": {
            "name": "v1",
            "version": "1.0",
            "path": "model.onnx",
            "sha256": "0" * 64,
            "output": "probabilities[1]",
        }
    },
    "features": [
        {"name": "amount", "type": "float", "min": 0, "max": 1000000},
        {"name": "ratio", "type": "float", "missing": 1.0},
        {
            "name": "entry_mode",
            "type": "category",
            "values": ["chip", "swipe", "keyed"],
            "unknown": "keyed",
        },
    ],
    "costs": {
        "currency": "USD",
        "false_negative": {"loss_rate": 1.0, "fee": 25},
        "false_positive": {"margin": 0.02, "retained": 0.0, "goodwill": 5},
        "step_up": {
            "fee": 0.10,
            "genuine_pass": 0.95,
            "fraud_pass": 0.10,
            "liability_shift": 0.80,
            "friction": 0.50,
        },
        "categories": {
            "pharmacy": {"mcc": [5912], "harm": 4},
            "grocery": {"mcc": [5411], "harm": 3},
            "fuel": {"mcc": [5541, 5542], "harm": 2, "harm_up_to": 150},
        },
    },
    "actions": ["approve", "step_up", "decline"],
}

REASONS = ("deadline", "overload", "model_unavailable", "model_error")

REVIEW = {
    "fee": 4,
    "sensitivity": 0.80,
    "specificity": 0.98,
    "hold": {"per_hour": 0.20, "hours": 4},
    "meanwhile": "hold",
}


def declared(**changes: Any) -> dict[str, Any]:
    """Return the base product with top-level keys replaced; a dotted key reaches deeper.

    `None` removes the key.
    """
    values = copy.deepcopy(BASE)
    for key, value in changes.items():
        *path, last = key.split("__")
        place = values
        for step in path:
            place = place.setdefault(step, {})
        if value is None:
            place.pop(last, None)
        else:
            place[last] = value
    return values


def product(**changes: Any) -> Product:
    """Parse the base product with changes; JSON is YAML."""
    return parse(json.dumps(declared(**changes), indent=1), "test/product.yaml")


def binary(**changes: Any) -> Product:
    """Return a product that only approves or declines."""
    stand_in = [{"up_to": 50, "action": "approve"}, {"action": "decline"}]
    return product(
        **{
            "actions": ["approve", "decline"],
            "stand_in": dict.fromkeys(REASONS, stand_in),
            "costs__step_up": None,
            **changes,
        }
    )


WEIGHTS = (0.002, 0.8, 1.1)
BIAS = -4.0


def logistic_model(
    weights: Sequence[float] = WEIGHTS, bias: float = BIAS, *, output: str = "probabilities"
) -> bytes:
    """Return an ONNX logistic regression: float32 [n, features] -> probabilities [n, 2]."""
    values = {
        "w": np.array([[w] for w in weights], dtype=np.float32),
        "b": np.array([bias], dtype=np.float32),
        "one": np.array([1.0], dtype=np.float32),
    }
    nodes = [
        helper.make_node("Gemm", ["features", "w", "b"], ["z"]),
        helper.make_node("Sigmoid", ["z"], ["p"]),
        helper.make_node("Sub", ["one", "p"], ["q"]),
        helper.make_node("Concat", ["q", "p"], [output], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "logistic",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, len(weights)])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [None, 2])],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()


def write_folder(folder: Path, model: bytes | None = None, **changes: Any) -> Path:
    """Write the base product, with changes, and its model; pin the model."""
    folder.mkdir(parents=True, exist_ok=True)
    content = logistic_model() if model is None else model
    (folder / "model.onnx").write_bytes(content)
    pinned = {"models__champion__sha256": hashlib.sha256(content).hexdigest(), **changes}
    text = json.dumps(declared(**pinned), indent=1)
    (folder / "product.yaml").write_text(text, encoding="utf-8")
    return folder


def request(fingerprint: str = "", **changes: Any) -> DecideRequest:
    """Return a request that the base product takes: dense with a fingerprint, else named."""
    asked = DecideRequest(
        product="test",
        transaction_id="t-1",
        event_time=Timestamp(seconds=int(time.time())),
        amount=2_000,
        currency="USD",
        category="5411",
        channel="ecommerce",
        subject="customer-1",
    )
    if fingerprint:
        asked.dense = np.array([20.0, 1.0, 0.0], dtype="<f4").tobytes()
        asked.schema_fingerprint = fingerprint
    else:
        asked.features["amount"].number = 20.0
        asked.features["ratio"].number = 1.0
        asked.features["entry_mode"].text = "chip"
    for name, value in changes.items():
        setattr(asked, name, value)
    return asked
