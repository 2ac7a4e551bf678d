"""Histograms of the lake against a loop over its rows: every cell, sampled or not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from math import floor, inf, log, nextafter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gateway.evaluate.engine import DuckDb
from gateway.evaluate.histograms import (
    FREQUENT,
    ROWS_PER_HOUR,
    VALUES_PER_HOUR,
    Binning,
    Histograms,
    binning_of,
    edges_of,
    histograms_of,
    joined,
    share_of,
    struct_fields,
)
from gateway.sidecar.lake.schema import SCHEMAS, fitted, unified_schema

BEGIN = date(2026, 10, 5)
DAYS = 3
AS_OF = datetime(2026, 11, 1, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ODD = "am\"o'unt"
"""A feature that is named so that SQL must quote it."""

Rows = list[dict[str, Any]]


def rows_of(product: str, seed: int, count: int) -> Rows:
    """Return decisions; some days' features were not kept, some were received too late."""
    chance = np.random.default_rng(seed)
    rows: Rows = []
    for i in range(count):
        at = datetime(2026, 10, 5, tzinfo=UTC) + timedelta(
            seconds=float(chance.integers(0, DAYS * 86400))
        )
        number: float | None = float(np.round(chance.normal(), 3))
        features: dict[str, Any] | None = {
            ODD: [number, None, inf][int(chance.choice(3, p=[0.9, 0.07, 0.03]))],
            "mostly_0": float(chance.choice([0.0, 0.0, 0.0, 2.5, 3.5])),
            "merchant": f"m{min(60, int(chance.zipf(1.3)))}" if chance.random() < 0.9 else None,
            "clash": number if product == "a" else f"t{i % 3}",
        }
        rows.append(
            {
                "sequence": i,
                "decision_id": f"{product}{i:06x}{int(chance.integers(0, 256)):02x}",
                "transaction_id": f"t{i}",
                "event_time": at,
                "received": at if chance.random() < 0.97 else AS_OF + timedelta(hours=1),
                "subject": f"{int(chance.integers(0, 16)):x}0ff" if i % 5 else None,
                "action": str(chance.choice(["approve", "decline"], p=[0.9, 0.1])),
                "probability": float(chance.beta(0.3, 4)) if i % 11 else None,
                "category": str(chance.choice(["5411", "5999"])),
                "channel": "web" if i % 7 else None,
                "watch": {"channel": "web" if i % 2 else "pos"},
                "features": features if chance.random() < 0.8 else None,
            }
        )
    return rows


def write(folder: Path, product: str, rows: Rows) -> str:
    table = pa.Table.from_pylist(rows)
    number = pa.float64() if product == "a" else pa.string()
    kinds = [(ODD, pa.float64()), ("mostly_0", pa.float64()), ("merchant", pa.string())]
    features = pa.struct([*kinds, ("clash", number)])
    place = table.schema.get_field_index("features")
    table = table.set_column(
        place, "features", pa.array([row["features"] for row in rows], features)
    )
    schema = unified_schema([SCHEMAS["decisions"], table.schema])
    kept = [name for name in schema.names if name in table.schema.names]
    types = [
        SCHEMAS["decisions"].field(n) if n in SCHEMAS["decisions"].names else table.schema.field(n)
        for n in kept
    ]
    path = folder / f"product={product}" / "date=2026-10-05" / "part.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(fitted(table, pa.schema(types)), path)
    return str(path)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[DuckDb, dict[str, Rows]]]:
    folder = tmp_path_factory.mktemp("lake")
    rows = {"a": rows_of("a", 1, 3000), "b": rows_of("b", 2, 500)}
    paths = [write(folder, product, one) for product, one in rows.items()]
    with DuckDb({"decisions": paths}, {"decisions": {}}, threads=1) as engine:
        yield engine, rows


def known(rows: Rows) -> Rows:
    return [row for row in rows if row["received"] <= AS_OF]


def binning(engine: DuckDb, product: str = "a", rows: int = 3000) -> Binning:
    declared = {ODD: "float", "mostly_0": "float", "merchant": "category"}
    declared["clash"] = "float" if product == "a" else "category"
    end = BEGIN + timedelta(days=DAYS)
    return binning_of(engine, product, BEGIN, end, AS_OF, declared=declared, rows=rows)


def counted(rows: Rows, by: Binning) -> tuple[Counter[Any], Counter[Any]]:
    """Return cells by hour and by day and group, a row and a value at a time."""
    hours: Counter[Any] = Counter()
    days: Counter[Any] = Counter()
    for row in rows:
        hour = int((row["event_time"] - EPOCH).total_seconds()) // 3600
        hexed = (row["subject"] or row["decision_id"][-1:])[0]
        for place, field in enumerate(by.fields):
            held = {"watch": row["watch"], "feature": row["features"]}.get(field.what, row)
            if held is None:
                continue
            value = held[field.name]
            if value is None:
                found = -1
            elif field.kind == "log_odds":
                p = max(value, 1e-9)
                found = max(-42, floor(2 * log(p / max(1 - value, 1e-9)))) + 42
            elif field.kind == "number":
                found = sum(float(value) > edge for edge in field.edges)
            else:
                found = field.values.index(value) if value in field.values else FREQUENT
            hours[hour, place, found] += 1
            days[hour // 24, int(hexed, 16), place, found] += 1
    return hours, days


def cells(found: Histograms) -> tuple[Counter[Any], Counter[Any]]:
    hours = zip(*(found.hours[i].tolist() for i in (0, 2, 3, 4)), strict=True)
    days = zip(*(column.tolist() for column in found.days), strict=True)
    return Counter({key[:-1]: key[-1] for key in hours}), Counter(
        {key[:-1]: key[-1] for key in days}
    )


@pytest.mark.parametrize("product", ["a", "b"])
def test_every_cell_is_what_a_loop_over_the_rows_counts(
    lake: tuple[DuckDb, dict[str, Rows]], product: str
) -> None:
    engine, rows = lake
    by = binning(engine, product)
    found = histograms_of(engine, by, BEGIN, BEGIN + timedelta(days=DAYS), AS_OF)
    for got, want in zip(cells(found), counted(known(rows[product]), by), strict=True):
        assert got - want == want - got == Counter()
    assert {field.name: field.kind for field in by.fields}["clash"] == (
        "number" if product == "a" else "text"
    )


def test_bins_are_equal_shares_and_the_most_frequent_values(
    lake: tuple[DuckDb, dict[str, Rows]],
) -> None:
    engine, rows = lake
    by = {field.name: field for field in binning(engine).fields}
    kept = [row["features"] for row in known(rows["a"]) if row["features"]]
    amounts = [one[ODD] for one in kept if one[ODD] is not None]
    want = np.quantile(amounts, np.arange(1, 10) / 10, method="inverted_cdf")
    assert by[ODD].edges == pytest.approx(want)
    assert by["mostly_0"].edges[:2] == (nextafter(0.0, -inf), 0.0)
    merchants = Counter(one["merchant"] for one in kept if one["merchant"])
    ordered = sorted(merchants, key=lambda name: (-merchants[name], name))
    assert list(by["merchant"].values) == ordered[:FREQUENT]


def test_days_add_up_and_groups_hold_what_hours_hold(
    lake: tuple[DuckDb, dict[str, Rows]],
) -> None:
    engine, _ = lake
    by = binning(engine)
    ends = [BEGIN + timedelta(days=i) for i in range(DAYS + 1)]
    whole = histograms_of(engine, by, ends[0], ends[-1], AS_OF)
    parts = [histograms_of(engine, by, a, b, AS_OF) for a, b in pairwise(ends)]
    assert cells(joined(parts)) == cells(whole)
    first = (BEGIN - date(1970, 1, 1)).days
    for place in range(len(by.fields)):
        hours = whole.of(place, first * 24, (first + DAYS) * 24)
        days = whole.by_group(place, first, first + DAYS)
        assert (hours.reshape(DAYS, 24, -1).sum(axis=1) == days.sum(axis=1)).all()
        assert hours.sum() > 0


def test_a_sample_is_the_same_each_time_and_as_large_as_asked(
    lake: tuple[DuckDb, dict[str, Rows]],
) -> None:
    engine, rows = lake
    by = binning(engine)
    end = BEGIN + timedelta(days=DAYS)
    once, again, more, whole = (
        cells(histograms_of(engine, by, BEGIN, end, AS_OF, share=share))
        for share in (0.3, 0.3, 0.6, 1.0)
    )
    assert once == again
    assert once[1] <= more[1] <= whole[1]  # a larger sample holds a smaller one
    n = sum(count for (_, place, _), count in once[0].items() if place == 0)
    total = len(known(rows["a"]))
    assert abs(n - 0.3 * total) < 4 * (0.21 * total) ** 0.5


def test_the_share_keeps_busy_hours_within_bounds() -> None:
    assert share_of(dict.fromkeys(range(99), ROWS_PER_HOUR), 30) == 1.0
    assert share_of(dict.fromkeys(range(99), 10 * ROWS_PER_HOUR), 30) == 1 / 16
    busy = share_of(dict.fromkeys(range(99), ROWS_PER_HOUR), 1000)
    assert busy * ROWS_PER_HOUR * 1000 <= VALUES_PER_HOUR


def test_a_lake_without_features_has_fields_all_the_same(tmp_path: Path) -> None:
    rows = rows_of("a", 3, 200)
    columns = {
        name: [row[name] for row in rows]
        for name in (
            "decision_id",
            "sequence",
            "event_time",
            "received",
            "subject",
            "action",
            "probability",
        )
    }
    path = tmp_path / "product=a" / "date=2026-10-05" / "part.parquet"
    path.parent.mkdir(parents=True)
    schema = SCHEMAS["decisions"]
    pq.write_table(fitted(pa.table(columns), schema), path)
    with DuckDb({"decisions": [str(path)]}, {"decisions": {}}) as engine:
        by = binning_of(engine, "a", BEGIN, BEGIN + timedelta(days=3), AS_OF, declared={}, rows=200)
        found = histograms_of(engine, by, BEGIN, BEGIN + timedelta(days=3), AS_OF)
    assert [field.name for field in by.fields] == ["action", "probability", "category", "channel"]
    assert found.hours.n.sum() == 4 * len(known(rows))
    assert struct_fields(by.fields) == "[]"


@pytest.mark.parametrize(
    ("quantiles", "edges"),
    [
        ([], ()),
        ([1.0, 2.0, 3.0], (1.0, 2.0, 3.0)),
        ([0.0, 0.0, 0.0, 7.0], (nextafter(0.0, -inf), 0.0, 7.0)),
        ([1.0, 2.0, 2.0], (1.0, nextafter(2.0, -inf), 2.0)),
        ([3.0] * 9, (nextafter(3.0, -inf), 3.0)),
    ],
)
def test_what_is_a_share_by_itself_has_its_own_bin(
    quantiles: Sequence[float], edges: tuple[float, ...]
) -> None:
    assert edges_of(quantiles) == edges


def test_histograms_by_different_binnings_do_not_add_up(
    lake: tuple[DuckDb, dict[str, Rows]],
) -> None:
    engine, _ = lake
    one, other = (
        histograms_of(engine, binning(engine, name), BEGIN, BEGIN + timedelta(days=1), AS_OF)
        for name in "ab"
    )
    with pytest.raises(ValueError, match="do not add up"):
        joined([one, other])
