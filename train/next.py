"""Make what a data scientist brings: another model, and labelled payments. `python train/next.py`.

Writes examples/next/v2.onnx, a model for card-not-present, and examples/next/labelled.parquet,
payments that came later, with what became of them. The model is trained as many are: on as many
frauds as genuine payments, so its scores are no probabilities. Needs the extra `train`.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gateway.demo import CARD_NOT_PRESENT, Payment, batch, build_world
from gateway.model import read_product
from train import SEED, boosted, reproducible

ROOT = Path(__file__).parents[1]
CUSTOMERS = 4_000
TRAIN_UNTIL_DAY = 150
LABELLED = 25_000


def main() -> None:
    """Live through the days once; train on the first, write the labels of the last."""
    world = build_world(np.random.default_rng(SEED + 10), customers=CUSTOMERS)
    chance = np.random.default_rng(SEED + 11)
    frauds: list[Payment] = []
    genuine: list[Payment] = []
    later: list[Payment] = []
    begins_s = None
    for payment in world.payments(np.random.default_rng(SEED + 12)):
        begins_s = payment.event_time_s if begins_s is None else begins_s
        if payment.product != CARD_NOT_PRESENT:
            continue
        if (payment.event_time_s - begins_s) / 86_400 < TRAIN_UNTIL_DAY:
            (frauds if payment.fraud else genuine).append(payment)
        else:
            later.append(payment)
            if len(later) == LABELLED:
                break
    kept = chance.choice(len(genuine), len(frauds), replace=False)
    write_model([*frauds, *(genuine[i] for i in sorted(kept))])
    write_labelled(later)


def write_model(payments: list[Payment]) -> None:
    """Fit 100 trees of 15 leaves on payments of which half are fraud."""
    drawn = batch(payments, CARD_NOT_PRESENT)
    fitted = boosted(
        drawn,
        n_estimators=100,
        num_leaves=15,
        learning_rate=0.08,
        min_child_samples=20,
        reg_lambda=5.0,
    )
    path = ROOT / "examples" / "next" / "v2.onnx"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(reproducible(fitted, "card-not-present-v2").SerializeToString())
    print(f"{path.name}: {len(payments):,} payments, half of them fraud")


def write_labelled(payments: list[Payment]) -> None:
    """Write payments as a warehouse would hold them: a column a feature, categories as texts."""
    product = read_product(ROOT / "models" / CARD_NOT_PRESENT)
    drawn = batch(payments, CARD_NOT_PRESENT)
    columns: dict[str, pa.Array] = {
        "transaction_id": pa.array([one.transaction_id for one in payments]),
        "customer_id": pa.array([one.subject for one in payments]).dictionary_encode(),
        "event_time": pa.array(
            [datetime.fromtimestamp(int(one.event_time_s), UTC) for one in payments],
            pa.timestamp("s", "UTC"),
        ),
        "mcc": pa.array([one.mcc for one in payments]).dictionary_encode(),
    }
    for feature, values in zip(product.columns, drawn.features.T, strict=True):
        if feature.type == "category":
            texts = np.array(feature.values)[values.astype(int)]
            columns[feature.name] = pa.array(texts.tolist()).dictionary_encode()
        else:
            columns[feature.name] = pa.array(values, pa.float32())
    if "amount" not in columns:
        columns["amount"] = pa.array([one.amount_minor / 100 for one in payments])
    columns["is_fraud"] = pa.array(drawn.fraud)
    path = ROOT / "examples" / "next" / "labelled.parquet"
    pq.write_table(pa.table(columns), path, compression="zstd", compression_level=19)
    print(
        f"{path.name}: {len(payments):,} payments, {int(drawn.fraud.sum())} frauds, "
        f"{path.stat().st_size / 1e6:.1f} MB"
    )


if __name__ == "__main__":
    main()
