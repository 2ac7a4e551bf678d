"""Train the two demo models again, from the simulator alone: `python train/train.py`.

Writes, for each product under models/, the ONNX file, its calibration map and its golden
vectors, and puts the file's sha256 and the base rates into product.yaml. The same versions
of the libraries give the same bytes. Needs the extra `train`; about a minute.

Three periods, one after the other: the model is fitted on the first, calibrated on the
second and measured on the third. Genuine payments of the first two are down-sampled, as is
usual with so few frauds; the gateway undoes that by `base_rate`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import lightgbm
import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType as LightGbmFloats
from ruamel.yaml import YAML
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from gateway.demo import CARD_NOT_PRESENT, CARD_PRESENT, Batch, Payment, batch, build_world

MODELS = Path(__file__).parents[1] / "models"
SEED = 20_260_105
CUSTOMERS = 2_500
TRAIN_UNTIL_DAY, CALIBRATE_UNTIL_DAY, TEST_UNTIL_DAY = 120, 180, 220
GENUINE_KEPT = 0.10
GOLDEN_ROWS = 32
OPSET = 15
SCORE_EDGE = 1e-6
"""Scores are clipped to [SCORE_EDGE, 1 - SCORE_EDGE] before their logarithm is taken."""

Floats = NDArray[np.float64]
Score = Callable[[NDArray[np.float32]], Floats]
Calibration = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Periods:
    """One product's payments; genuine ones of `train` and `calibrate` are down-sampled."""

    train: Batch
    calibrate: Batch
    test: Batch
    serving_base_rate: float


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one product's model is fitted and exported, and how its scores are calibrated."""

    product: str
    onnx_name: str
    fit: Callable[[Batch], onnx.ModelProto]
    calibrate: Callable[[Floats, NDArray[np.bool_]], Calibration]


def main() -> None:
    """Train every product, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("products", nargs="*", default=[r.product for r in RECIPES])
    parser.add_argument("--models", type=Path, default=MODELS, help="folder of the products")
    wanted = parser.parse_args()
    recipes = [recipe for recipe in RECIPES if recipe.product in wanted.products]
    for recipe, periods in zip(recipes, simulate([r.product for r in recipes]), strict=True):
        train(recipe, periods, wanted.models / recipe.product)


def simulate(products: list[str]) -> list[Periods]:
    """Live through every period once, keeping what the products need."""
    world = build_world(np.random.default_rng(SEED), customers=CUSTOMERS)
    thin = np.random.default_rng(SEED + 1)
    payments = world.payments(np.random.default_rng(SEED + 2), days=TEST_UNTIL_DAY)
    begins_s = None
    periods: tuple[list[Payment], ...] = ([], [], [])
    seen = {product: [0, 0] for product in products}
    for payment in payments:
        if payment.product not in seen:
            continue
        begins_s = payment.event_time_s if begins_s is None else begins_s
        day = (payment.event_time_s - begins_s) / 86_400
        period = (day >= TRAIN_UNTIL_DAY) + (day >= CALIBRATE_UNTIL_DAY)
        seen[payment.product][payment.fraud] += 1
        if period == 2 or payment.fraud or thin.random() < GENUINE_KEPT:
            periods[period].append(payment)
    return [
        Periods(
            train=batch(periods[0], product),
            calibrate=batch(periods[1], product),
            test=batch(periods[2], product),
            serving_base_rate=seen[product][1] / sum(seen[product]),
        )
        for product in products
    ]


def train(recipe: Recipe, periods: Periods, folder: Path) -> None:
    """Fit, calibrate and measure one model, and write what the product needs of it."""
    model = reproducible(recipe.fit(periods.train), recipe.product).SerializeToString()
    score = open_score(model)
    calibration = recipe.calibrate(score(periods.calibrate.features), periods.calibrate.fraud)
    (folder / recipe.onnx_name).write_bytes(model)
    stem = Path(recipe.onnx_name).stem
    write_json(folder / f"{stem}.calibration.json", calibration)
    write_json(folder / "golden.json", golden(periods.test, score))
    write_pins(
        folder / "product.yaml",
        sha256=hashlib.sha256(model).hexdigest(),
        calibrated_at=float(periods.calibrate.fraud.mean()),
        serving=periods.serving_base_rate,
    )
    scores = score(periods.test.features)
    print(
        f"{recipe.product}: {len(model) / 1e3:.0f} kB, "
        f"{len(periods.train.fraud):,} train, {int(periods.train.fraud.sum()):,} frauds; "
        f"test {len(scores):,}: AUC {roc_auc_score(periods.test.fraud, scores):.4f}, "
        f"AP {average_precision_score(periods.test.fraud, scores):.4f}"
    )


def fit_lightgbm(batch: Batch) -> onnx.ModelProto:
    """Fit 100 trees of 31 leaves. Categories are their indices: no ONNX set-splits needed."""
    return boosted(
        batch,
        n_estimators=100,
        num_leaves=31,
        learning_rate=0.06,
        min_child_samples=40,
        reg_lambda=5.0,
        subsample=0.8,
        subsample_freq=1,
        colsample_bytree=0.7,
    )


def boosted(batch: Batch, **settings: float) -> onnx.ModelProto:
    """Fit trees by LightGBM's settings, the same ones each time."""
    booster = lightgbm.LGBMClassifier(
        **settings,
        random_state=SEED,
        n_jobs=1,
        deterministic=True,
        force_row_wise=True,
        verbose=-1,
    ).fit(batch.features, batch.fraud.astype(np.int64))
    inputs = [("features", LightGbmFloats([None, batch.features.shape[1]]))]
    exported: onnx.ModelProto = convert_lightgbm(
        booster, initial_types=inputs, zipmap=False, target_opset=OPSET
    )
    return exported


def fit_network(batch: Batch) -> onnx.ModelProto:
    """Fit a network of 32 and 16 units on standardised features."""
    pipeline = make_pipeline(
        StandardScaler(),
        MLPClassifier(
            (32, 16), alpha=1e-3, learning_rate_init=3e-3, max_iter=60,
            early_stopping=True, n_iter_no_change=12, random_state=SEED,
        ),
    ).fit(batch.features, batch.fraud.astype(np.int64))  # fmt: skip
    exported: onnx.ModelProto = to_onnx(
        pipeline,
        initial_types=[("features", FloatTensorType([None, batch.features.shape[1]]))],
        options={"zipmap": False},
        target_opset=OPSET,
    )
    return exported


def calibrate_isotonic(scores: Floats, fraud: NDArray[np.bool_]) -> Calibration:
    """Fit a rising map through the mean score and the fraud rate of each level.

    A level of k frauds in n payments stands at (k + π)/(n + 1), π the base rate: no level is
    as certain as its few payments seem.
    """
    level = IsotonicRegression().fit_transform(scores, fraud.astype(np.float64))
    _, group, n = np.unique(level, return_inverse=True, return_counts=True)
    x = np.bincount(group, weights=scores) / n
    y = (np.bincount(group, weights=fraud) + fraud.mean()) / (n + 1.0)
    y = IsotonicRegression().fit_transform(np.arange(len(y)), y, sample_weight=n)
    rises = np.concatenate([[True], np.diff(np.round(x, 6)) > 0])
    return {
        "kind": "isotonic",
        "x": np.round(x[rises], 6).tolist(),
        "y": np.round(y[rises], 6).tolist(),
    }


def calibrate_platt(scores: Floats, fraud: NDArray[np.bool_]) -> Calibration:
    """Fit p = sigmoid(a·logit(score) + b). Platt (1999), on the log-odds of the score."""
    clipped = np.clip(scores, SCORE_EDGE, 1.0 - SCORE_EDGE)
    log_odds = np.log(clipped / (1.0 - clipped))
    fitted = LogisticRegression(C=1e6).fit(log_odds[:, None], fraud)
    return {
        "kind": "platt",
        "a": round(float(fitted.coef_[0, 0]), 6),
        "b": round(float(fitted.intercept_[0]), 6),
    }


def reproducible(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """Name the graph and sort its opsets: the converters draw a name, and hash the order."""
    model.graph.name = name
    opsets = sorted(model.opset_import, key=lambda opset: opset.domain)
    del model.opset_import[:]
    model.opset_import.extend(opsets)
    return model


def open_score(model: bytes) -> Score:
    """Return the model as a function from float32 (n, features) to P(fraud), float64 (n,)."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def score(features: NDArray[np.float32]) -> Floats:
        column: Floats = session.run(["probabilities"], {"features": features})[0][:, 1]
        return column.astype(np.float64)

    return score


def golden(test: Batch, score: Score) -> dict[str, Any]:
    """Return rows of the test period, half of them frauds, with what the model gives."""
    half = GOLDEN_ROWS // 2
    rows = np.concatenate([np.flatnonzero(~test.fraud)[:half], np.flatnonzero(test.fraud)[:half]])
    features = test.features[rows]
    return {"features": features.tolist(), "scores": score(features).tolist()}


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write one key a line, and one row of a matrix a line."""
    lines = []
    for key, value in content.items():
        text = json.dumps(value)
        if isinstance(value, list) and value and isinstance(value[0], list):
            text = "[\n    " + ",\n    ".join(json.dumps(row) for row in value) + "\n  ]"
        lines.append(f'  "{key}": {text}')
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def write_pins(path: Path, *, sha256: str, calibrated_at: float, serving: float) -> None:
    """Put the model's digest and the base rates into product.yaml; not a byte else changes."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    champion = YAML().load("".join(lines))["models"]["champion"]
    pins = (
        (champion.lc.value("sha256"), sha256),
        (champion["base_rate"].lc.value("calibrated_at"), f"{calibrated_at:.5f}"),
        (champion["base_rate"].lc.value("serving"), f"{serving:.5f}"),
    )
    # From the end, so that a new length moves no place that is still to be written.
    for (line, column), value in sorted(pins, reverse=True):
        before, after = lines[line][:column], lines[line][column:]
        lines[line] = before + re.sub(r"^[^\s,}]+", value, after)
    path.write_text("".join(lines), encoding="utf-8")


RECIPES = (
    Recipe(CARD_NOT_PRESENT, "v1.onnx", fit_lightgbm, calibrate_isotonic),
    Recipe(CARD_PRESENT, "v1.onnx", fit_network, calibrate_platt),
)


if __name__ == "__main__":
    main()
