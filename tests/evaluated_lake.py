"""Small lakes for the evaluator: rows as dictionaries, Parquet files as a sidecar writes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import catalogue
import pyarrow as pa
import pyarrow.parquet as pq

from gateway.sidecar.lake.ranges import FileName
from gateway.sidecar.lake.schema import SCHEMAS

BEGIN = datetime(2026, 6, 1, tzinfo=UTC)
BOOT = "00112233445566aa"


def day(number: float) -> datetime:
    return BEGIN + timedelta(days=number)


def decision(number: int, **more: Any) -> dict[str, Any]:
    """Return a decision's row: approved, in time, by the model, unless `more` says otherwise."""
    at = more.pop("event_time", day(number % 30))
    return {
        "product": "cnp",
        "decision_id": f"{BOOT}-00-{number:012x}",
        "transaction_id": f"t-{number}",
        "generation": 1,
        "event_time": at,
        "received": at,
        "amount_minor": 2_000,
        "currency": "USD",
        "category": "5999",
        "channel": "app",
        "subject": f"{number * 2_654_435_761 % 2**32:08x}{'0' * 24}",
        "action": "approve",
        "stand_in": "none",
        "arm": "champion",
        "probability": 0.01,
        "propensity": 1.0,
        "explored": False,
        "in_time": True,
        "worker": 0,
        "boot": BOOT,
        "sequence": number,
        **more,
    }


def traced(row: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Return a decision's row with all that a sidecar knows of it: times in µs, costs, model."""
    stood_in = row["stand_in"] != "none"
    known = {
        "digest": "ab" * 32,
        "second_best": None if stood_in else "step_up",
        "model": None if stood_in else "forest",
        "model_version": None if stood_in else "v1",
        "model_digest": None if stood_in else "cd" * 32,
        "threshold": None if stood_in else 0.125,
        "expected_cost": None
        if stood_in
        else {"approve": 20.0, "step_up": 61.0, "review": None, "decline": 512.0},
        "margin_minor": None if stood_in else 41.0,
        "near_tie": False,
        "overridden": False,
        "expired": False,
        "other_arms": [{"arm": "shadow", "score": 0.2, "probability": 0.25, "action": "decline"}],
        "budget_us": 25_000,
        "deadline_us": 25_000,
        "admit_us": 20.0,
        "encode_us": 120.0,
        "infer_us": 400.0,
        "decide_us": 450.0,
        "record_us": 500.0,
        "replied_us": 900.0,
        "reply": "left",
        "batch_size": 3,
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
    }
    return {**row, **known, **more}


def label(number: int, kind: str, **more: Any) -> dict[str, Any]:
    """Return a label's row about transaction `t-{number}`, reported a day after the begin."""
    reported = more.pop("reported_time", day(1))
    return {
        "product": "cnp",
        "transaction_id": f"t-{number}",
        "kind": kind,
        "occurred_time": reported,
        "reported_time": reported,
        "received": reported,
        "source": "bank",
        "source_event_id": f"{kind}-{number}",
        "worker": 0,
        "boot": BOOT,
        "sequence": 1,
        **more,
    }


def attribute(subject: str, value: str, **more: Any) -> dict[str, Any]:
    return {
        "subject": subject,
        "attribute": "age_band",
        "value": value,
        "reported_time": day(0),
        "source": "crm",
        "received": day(0),
        "worker": 1,
        "boot": BOOT,
        "sequence": 1,
        **more,
    }


def write(
    lake: Path,
    table: str,
    rows: Iterable[Mapping[str, Any]],
    name: str = "a",
    date: str = "2026-06-01",
) -> str:
    """Write rows of one product as one file; return its path."""
    rows = list(rows)
    product = rows[0].get("product")
    folder = lake / table
    if product is not None:
        folder /= f"product={product}"
    folder /= f"date={date}"
    folder.mkdir(parents=True, exist_ok=True)
    schema = SCHEMAS[table]
    columns = [pa.array([row.get(one.name) for row in rows]).cast(one.type) for one in schema]
    path = folder / f"{name}.parquet"
    written = pa.table(columns, schema=schema)
    if any("watch" in row for row in rows):
        written = written.append_column("watch", pa.array([row.get("watch") for row in rows]))
    pq.write_table(written, path)
    return str(path)


def write_by_day(lake: Path, table: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as a sidecar would: in the order in which they came, a file a day of arrival."""
    by_day: dict[str, list[dict[str, Any]]] = {}
    came = sorted(rows, key=lambda row: row["received"])
    for sequence, row in enumerate(came, 1):
        one = {**row, "sequence": sequence}
        if table == "decisions":
            one["decision_id"] = f"{BOOT}-00-{sequence:012x}"
        by_day.setdefault(f"{row['received']:%Y-%m-%d}", []).append(one)
    for date, some in by_day.items():
        first, last = some[0]["sequence"], some[-1]["sequence"]
        name = str(FileName(some[0]["worker"], BOOT, first, last)).removesuffix(".parquet")
        write(lake, table, some, name, date)


PROMISE = {
    "id": "always-on",
    "says": "We watch.",
    "sli": "scored_in_path",
    "objective": 0.999,
    "window": "28d",
}
LOSS = {"id": "zero", "says": "x", "sli": "customer_loss", "objective": 0, "window": "90d"}


def write_product(lake: Path, **changes: Any) -> None:
    """Write product `cnp` as a sidecar keeps it: promises, a goal, groups to compare."""
    values = {
        "product": "cnp",
        "promises": [PROMISE, LOSS],
        "goals": [{"metric": "fraud_loss_bps", "at_most": 8}],
        "fairness": {
            "gate": "false_positive_rate_ratio",
            "limit": [0.8, 1.25],
            "attributes": {"age_band": {"reference": "35-54"}},
        },
        "labels": {"maturity": {"chargeback": "90d"}},
        **changes,
    }
    folder = lake / "products" / "product=cnp"
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(catalogue.declared(**values), indent=1)
    (folder / f"{1:010}-{'a' * 12}.yaml").write_text(text)


def fill(lake: Path, groups: Sequence[str] = ("18-34", "35-54")) -> None:
    """Write a lake that can be evaluated: recent decisions, and customers of some groups."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    rows = [
        decision(number, event_time=today - timedelta(days=1 + number % 120))
        for number in range(600)
    ]
    write_product(lake)
    write(lake, "decisions", rows, name=str(FileName(0, BOOT, 0, 599)).removesuffix(".parquet"))
    some = [attribute(row["subject"], groups[i % len(groups)]) for i, row in enumerate(rows)]
    name = FileName(1, BOOT, 0, 599)
    write(lake, "attributes", some, name=str(name).removesuffix(".parquet"))


def files(lake: Path) -> dict[str, Sequence[str]]:
    return {
        table: sorted(str(path) for path in (lake / table).rglob("*.parquet"))
        for table in ("decisions", "labels", "attributes")
    }
