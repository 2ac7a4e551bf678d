"""Make the README's foreign model again: `python train/foreign.py`.

Writes examples/foreign/payments.csv, labelled payments of the simulator as a scientist would
have them, and examples/foreign/fraud.onnx, a scikit-learn pipeline fitted on them and exported
by skl2onnx as it comes: an input a column, texts for texts, and a ZipMap behind. Needs the
extra `train`; about half a minute.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from gateway.demo import CARD_PRESENT, Payment, build_world
from gateway.model import read_product

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples" / "foreign"
SEED = 20_260_210
CUSTOMERS, DAYS = 2_500, 120
GENUINE_KEPT = 0.02
NUMBERS = ("amount", "hour", "distance_km", "seconds_since_last", "merchant_risk")
TEXTS = ("entry_mode", "mcc")
OPSET = 15


def main() -> None:
    """Simulate, fit, export."""
    product = read_product(ROOT / "models" / CARD_PRESENT)
    names = [feature.name for feature in product.features]
    modes = next(feature.values for feature in product.features if feature.name == "entry_mode")
    thin = np.random.default_rng(SEED + 1)

    def row(payment: Payment) -> dict[str, Any]:
        features = dict(zip(names, payment.features, strict=True))
        numbers = {name: f"{features[name]:.8g}" for name in NUMBERS}
        texts = {"entry_mode": modes[int(features["entry_mode"])], "mcc": payment.mcc}
        return {**numbers, **texts, "is_fraud": int(payment.fraud)}

    world = build_world(np.random.default_rng(SEED), customers=CUSTOMERS)
    rows = [
        row(payment)
        for payment in world.payments(np.random.default_rng(SEED + 2), days=DAYS)
        if payment.product == CARD_PRESENT and (payment.fraud or thin.random() < GENUINE_KEPT)
    ]
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "payments.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, rows[0], lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    (FOLDER / "fraud.onnx").write_bytes(exported(rows))
    frauds = sum(one["is_fraud"] for one in rows)
    print(f"{len(rows):,} payments, {frauds:,} frauds")


def exported(rows: list[dict[str, Any]]) -> bytes:
    """Fit on the rows and return the ONNX file."""
    numbers = [[float(one[name]) for name in NUMBERS] for one in rows]
    words = [[one[name] for name in TEXTS] for one in rows]
    table = np.hstack([np.array(numbers, dtype=object), np.array(words, dtype=object)])
    texts = list(range(len(NUMBERS), table.shape[1]))
    encoded = ColumnTransformer(
        [("texts", OneHotEncoder(handle_unknown="ignore"), texts)], remainder="passthrough"
    )
    forest = RandomForestClassifier(40, max_depth=8, min_samples_leaf=5, random_state=SEED)
    pipeline = make_pipeline(encoded, forest)
    pipeline.fit(table, [one["is_fraud"] for one in rows])
    inputs = [(name, FloatTensorType([None, 1])) for name in NUMBERS]
    inputs += [(name, StringTensorType([None, 1])) for name in TEXTS]
    model = to_onnx(pipeline, initial_types=inputs, target_opset=OPSET)
    model.producer_version = ""
    content: bytes = model.SerializeToString()
    return content


if __name__ == "__main__":
    main()
