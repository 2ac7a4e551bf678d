"""A world of payments whose true probability of fraud is known, and models of it.

`payments` are drawn with their labels from a logistic truth, so that a logistic model that is
trained on them holds its probabilities, and each of the broken ones is broken in one way.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import catalogue
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

FEATURES = ("amount", "hour", "velocity", "distance", "merchant_risk", "new_merchant", "age_days")
WEIGHTS = np.array([0.006, 0.04, 0.55, 0.012, 3.5, 1.1, -0.02])
INTERCEPT = -7.6
N = 30_000

Floats = NDArray[np.float64]


def features(n: int, seed: int) -> Floats:
    """Return n payments' features, (n, 7)."""
    rng = np.random.default_rng(seed)
    return np.column_stack(
        [
            np.round(np.minimum(rng.lognormal(3.4, 1.0, n), 900.0), 2),
            rng.integers(0, 24, n),
            rng.poisson(1.2, n),
            np.minimum(rng.exponential(30.0, n), 400.0),
            rng.beta(1.0, 12.0, n),
            rng.integers(0, 2, n),
            rng.integers(0, 60, n),
        ]
    ).astype(np.float64)


def truth(x: Floats) -> Floats:
    """Return the true probability of fraud of each payment."""
    return 1.0 / (1.0 + np.exp(-(INTERCEPT + x @ WEIGHTS)))


def labels(x: Floats, seed: int) -> NDArray[np.bool_]:
    return np.random.default_rng(seed).random(len(x)) < truth(x)


@cache
def training() -> tuple[Floats, NDArray[np.bool_]]:
    x = features(60_000, 1)
    return x, labels(x, 2)


@cache
def onnx_of(kind: str) -> bytes:
    """Return a trained model: good, balanced, weak, shuffled (labels) or trees."""
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = training()
    estimator: Any = make_pipeline(StandardScaler(), LogisticRegression(C=1e6))
    if kind == "balanced":
        estimator = make_pipeline(
            StandardScaler(), LogisticRegression(C=1e6, class_weight="balanced")
        )
    elif kind == "weak":
        x = np.column_stack([np.zeros(len(x)), x[:, 1], *[np.zeros(len(x))] * 5])
        estimator = make_pipeline(StandardScaler(), LogisticRegression())
    elif kind == "shuffled":
        from sklearn.tree import DecisionTreeClassifier

        estimator = DecisionTreeClassifier(max_depth=8, min_samples_leaf=50, random_state=0)
        y = np.random.default_rng(7).permutation(y)
    elif kind == "trees":
        from sklearn.ensemble import GradientBoostingClassifier

        estimator = GradientBoostingClassifier(n_estimators=25, max_depth=2, random_state=0)
        x, y = x[:30_000], y[:30_000]
    estimator.fit(x, y.astype(int))
    made = to_onnx(
        estimator,
        x[:1].astype(np.float32),
        options={id(estimator): {"zipmap": False}},
        target_opset={"": 17, "ai.onnx.ml": 3},
    )
    return bytes(made.SerializeToString())


def write_labelled(path: Path, n: int = N, seed: int = 3, **columns: Any) -> Path:
    """Write labelled payments that no model was trained on. `columns` replace or add some."""
    x = features(n, seed)
    rng = np.random.default_rng(seed + 100)
    table = {name: x[:, i] for i, name in enumerate(FEATURES)}
    table |= {
        "is_fraud": labels(x, seed + 1).astype(int),
        "mcc": rng.choice([5912, 5411, 5541, 5999], n),
        "customer_id": rng.integers(0, n // 3, n),
        "time": 1_760_000_000 + np.arange(n) * 60,
    }
    table |= columns
    pq.write_table(pa.table({k: v for k, v in table.items() if v is not None}), path)
    return path


def write_folder(
    folder: Path,
    kind: str = "good",
    *,
    order: Sequence[str] = FEATURES,
    gates: dict[str, Any] | None = None,
    champion: dict[str, Any] | None = None,
    challengers: Sequence[dict[str, Any]] = (),
    model: bytes | None = None,
    **columns: Any,
) -> Path:
    """Write a product with a model of this kind and labelled payments.

    `order`: that in which product.yaml lists the features; the model wants that of FEATURES.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = onnx_of(kind) if model is None else model
    (folder / "model.onnx").write_bytes(model)
    write_labelled(folder / "labelled.parquet", **columns)
    declared = catalogue.declared(
        features=[{"name": name, "type": "float", "missing": 0.0} for name in order]
    )
    models = declared["models"]
    models["champion"] |= {
        "sha256": hashlib.sha256(model).hexdigest(),
        "output": "probabilities[1]",
        **(champion or {}),
    }
    for one in challengers:
        entry = {"path": f"{one['name']}.onnx", **one}
        (folder / entry["path"]).write_bytes(onnx_of(entry.pop("kind")))
        models.setdefault("challengers", []).append(entry)
    models["gates"] = {"calibration": {"path": "labelled.parquet"}, **(gates or {})}
    (folder / "product.yaml").write_text(json.dumps(declared, indent=1))
    return folder
