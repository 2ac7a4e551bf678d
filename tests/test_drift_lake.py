"""From a lake's files to what is said of drift: what one product's callers changed, and no more."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gateway.evaluate.drift import drift_of
from gateway.evaluate.engine import DuckDb
from gateway.evaluate.histograms import binning_of, histograms_of, share_of
from gateway.sidecar.lake.schema import SCHEMAS, fitted, unified_schema

BEGIN = date(2026, 9, 7)
WEEKS = 6
A_DAY = 600
AS_OF = datetime(2026, 12, 1, tzinfo=UTC)
CHANGED = 38
"""The day from 0 on which callers begin to leave `age` out, and send amounts in another unit."""


def write(folder: Path) -> list[str]:
    chance = np.random.default_rng(5)
    paths: list[str] = []
    for day in range(7 * WEEKS):
        n = A_DAY
        at = datetime(2026, 9, 7, tzinfo=UTC) + timedelta(days=day)
        seconds = np.sort(chance.integers(0, 86400, n))
        when = pa.array(
            [at + timedelta(seconds=int(s)) for s in seconds], pa.timestamp("us", "UTC")
        )
        amount = chance.lognormal(3, 1, n) * (10 if day >= CHANGED else 1)
        age = pa.array(chance.normal(40, 10, n), mask=chance.random(n) < 0.6 * (day >= CHANGED))
        features = pa.StructArray.from_arrays(
            [pa.array(amount), age, pa.array(chance.choice(["chip", "nfc"], n).tolist())],
            ["amount", "age", "entry"],
        )
        table = pa.table(
            {
                "decision_id": [f"{day:04x}{i:04x}" for i in chance.permutation(n)],
                "sequence": np.arange(n) + day * n,
                "event_time": when,
                "received": when,
                "subject": [f"{i:02x}" for i in chance.integers(0, 256, n)],
                "action": chance.choice(["approve", "decline"], n, p=[0.97, 0.03]).tolist(),
                "probability": chance.beta(0.5, 20, n),
                "category": chance.choice(["5411", "5999"], n).tolist(),
                "channel": chance.choice(["pos", "web"], n).tolist(),
                "features": features,
            }
        )
        schema = unified_schema([SCHEMAS["decisions"], table.schema])
        path = folder / "product=cards" / f"date={at.date()}" / "part.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(fitted(table, schema), path)
        paths.append(str(path))
    return paths


def test_what_changed_in_the_lake_is_told_with_its_day(tmp_path: Path) -> None:
    end = BEGIN + timedelta(days=7 * WEEKS)
    with DuckDb({"decisions": write(tmp_path)}, {"decisions": {}}) as engine:
        hours = "select epoch_ms(event_time) // 3600000, count(*) from decisions group by all"
        volume = dict(engine._connection.execute(hours).fetchall())
        assert sum(volume.values()) == A_DAY * 7 * WEEKS
        usual = end - timedelta(days=7)
        declared = {"amount": "float", "age": "float", "entry": "category"}
        by = binning_of(
            engine, "cards", BEGIN, usual, AS_OF, declared=declared, rows=sum(volume.values())
        )
        share = share_of(volume, len(by.fields))
        seen = histograms_of(engine, by, BEGIN, end, AS_OF, share=share)
    found = {one.name: one for one in drift_of(seen, (end - date(1970, 1, 1)).days * 24)}
    drifted = {name for name, one in found.items() if one.verdict == "drifted"}
    assert drifted == {"amount", "age"}
    assert {one.verdict for name, one in found.items() if name not in drifted} == {"steady"}
    for name in drifted:
        assert found[name].began == BEGIN + timedelta(days=CHANGED)
    assert found["age"].bins[0].label == "not given"
    assert found["age"].ks is not None
    assert found["age"].ks < 0.05  # who gives it is as old as before
    assert found["amount"].n == 7 * A_DAY
