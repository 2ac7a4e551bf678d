"""The demo's months as a lake, or as several that hosts filled: answered, retried, reported.

The same rows whatever the number of lakes: a host's rows bear its boot, days overlap, a retry comes
to another host than the first try, labels come to any host, some to two.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gateway.demo.months import Months, draw_months, holiday_of
from gateway.demo.products import for_months
from gateway.demo.reports import reports
from gateway.evaluate.terms import Terms, terms_of
from gateway.model import load_generation
from gateway.product import parse
from gateway.sidecar.lake.ranges import FileName
from gateway.sidecar.lake.schema import ACTIONS, SCHEMAS

MODELS = Path(__file__).parents[1] / "models"
PRODUCTS = ("card-not-present", "card-present")
ENDS = datetime(2026, 11, 26, tzinfo=UTC)
FILE_DAYS = 28
Row = dict[str, Any]


def texts(months: Months) -> dict[str, str]:
    """Return what each product says in the months."""
    first, last = (datetime.fromtimestamp(one, UTC).date() for one in months.holiday_s)
    assert holiday_of(first.year)
    return {
        name: for_months(
            (MODELS / name / "product.yaml").read_text(), holiday=(first, last), generation=1
        )
        for name in PRODUCTS
    }


def terms(months: Months) -> list[Terms]:
    return [terms_of(parse(text, name)) for name, text in texts(months).items()]


def write(lakes: Sequence[Path], payments: int = 4_000, hosts: int = 3, seed: int = 1) -> Months:
    """Write the months; `hosts` filled `lakes`, one each or all the same. Return the months."""
    months = draw_months(seed, payments, int(ENDS.timestamp()))
    chance = random.Random(seed)
    decisions, labels = _told(months, chance, hosts)
    attributes = [
        {"subject": subject(one), "attribute": "age_band", "value": band, "source": "crm"}
        | dict.fromkeys(("reported_time", "received"), ENDS - timedelta(days=130))
        | {"host": chance.randrange(hosts)}
        for one, band in months.told.items()
    ]
    for name, text in texts(months).items():
        for lake in lakes:
            folder = lake / "products" / f"product={name}"
            folder.mkdir(parents=True)
            (folder / f"{1:010}-{'a' * 12}.yaml").write_text(text)
    for worker, (table, rows) in enumerate(
        {"decisions": decisions, "labels": labels, "attributes": attributes}.items()
    ):
        _files(lakes, table, rows, worker=max(0, worker - 1))
    return months


def subject(name: str) -> str:
    """Return a pseudonym, whose first digits are any."""
    return f"{random.Random(name).getrandbits(128):032x}"


def _told(months: Months, chance: random.Random, hosts: int) -> tuple[list[Row], list[Row]]:
    """Return decisions and labels; `host`: which host each came to."""
    decisions: list[Row] = []
    told: list[str] = []
    generations = {name: load_generation(MODELS / name) for name in PRODUCTS}
    scored = _scores(months, generations)
    for number, payment in enumerate(months.payments):
        product = generations[payment.product].product
        at = datetime.fromtimestamp(payment.event_time_s, UTC)
        received = at + timedelta(microseconds=chance.randrange(900_000))
        p, action = scored[number]
        explored = action == "decline" and chance.random() < 0.3
        features = {
            one.name: None if chance.random() < 0.01 else _plain(value)
            for one, value in zip(product.columns, payment.features, strict=True)
        }
        row = {
            "product": payment.product,
            "transaction_id": payment.transaction_id,
            "generation": 1,
            "event_time": at,
            "received": received,
            "amount_minor": payment.amount_minor,
            "currency": payment.currency,
            "category": payment.mcc,
            "channel": payment.channel,
            "subject": subject(payment.subject) if chance.random() < 0.97 else None,
            "action": "approve" if explored else action,
            "stand_in": "deadline" if chance.random() < 0.002 else "none",
            "arm": "champion" if chance.random() < 0.9 else "challenger",
            "probability": p,
            "propensity": 0.3 if explored else 0.7 if action == "decline" else 1.0,
            "explored": explored,
            "in_time": chance.random() < 0.999,
            "replied_us": chance.choice((10.0, 100.0, 1_000.0, chance.expovariate(1e-3), None)),
            "deadline_us": 5_000,
            "watch": {"channel": payment.channel},
            "features": features if chance.random() < 0.9 else None,
            "host": chance.randrange(hosts),
        }
        decisions.append(row)
        told.append(row["action"])
        if chance.random() < 0.03:
            late = received + timedelta(milliseconds=chance.randrange(30, 900))
            again = {"received": late, "host": (row["host"] + 1) % hosts, "in_time": True}
            decisions.append(row | again)
    labels = []
    found = reports(months.payments, told, np.random.default_rng(6), until_s=ENDS.timestamp())
    for payment, events in zip(months.payments, found, strict=True):
        for event in events:
            row = {
                "product": payment.product,
                "transaction_id": payment.transaction_id,
                "kind": event.kind,
                "occurred_time": datetime.fromtimestamp(event.occurred_s, UTC),
                "reported_time": datetime.fromtimestamp(event.reported_s, UTC),
                "received": datetime.fromtimestamp(event.reported_s, UTC),
                "amount_minor": event.amount_minor,
                "liable": event.liable or None,
                "source": event.source,
                "source_event_id": event.key,
                "supersedes": event.supersedes or None,
                "host": chance.randrange(hosts),
            }
            labels.append(row)
            if chance.random() < 0.05:
                later = row["received"] + timedelta(minutes=1)
                labels.append(row | {"received": later, "host": (row["host"] + 1) % hosts})
    return decisions, labels


def _scores(months: Months, generations: Mapping[str, Any]) -> dict[int, tuple[float, str]]:
    found: dict[int, tuple[float, str]] = {}
    for name, generation in generations.items():
        numbers = [i for i, one in enumerate(months.payments) if one.product == name]
        rows = [months.payments[i] for i in numbers]
        features = np.array([row.features for row in rows], dtype=np.float32)
        scores = np.concatenate(
            [generation.champion.score(features[at : at + 256]) for at in range(0, len(rows), 256)]
        )
        policy = generation.policy
        chosen = policy.choose_many(
            scores,
            [row.amount_minor for row in rows],
            [policy.cost_class(row.amount_minor, row.mcc) for row in rows],
            [row.event_time_s for row in rows],
        )
        for i, p, action in zip(
            numbers, chosen.probability.tolist(), chosen.action.tolist(), strict=True
        ):
            found[i] = p, ACTIONS[action]
    return found


def _plain(value: Any) -> Any:
    return value if isinstance(value, str) else float(value)


def _files(lakes: Sequence[Path], table: str, rows: Iterable[Row], *, worker: int) -> None:
    """Write rows by host, product and weeks; a host numbers its rows as they come."""
    sorted_rows = sorted(rows, key=lambda row: row["received"])
    parts: dict[tuple[int, str | None, str], list[Row]] = {}
    sequences: dict[int, int] = {}
    for row in sorted_rows:
        host = row["host"]
        sequences[host] = sequence = sequences.get(host, 0) + 1
        boot = f"{host + 1:016x}"
        days = (row["received"] - ENDS).days // FILE_DAYS * FILE_DAYS
        date = (ENDS + timedelta(days=days)).date().isoformat()
        place = {"worker": worker, "boot": boot, "sequence": sequence}
        if table == "decisions":
            place["decision_id"] = f"{boot}-{worker:02x}-{sequence:012x}"
        parts.setdefault((host, row.get("product"), date), []).append(row | place)
    for (host, product, date), some in parts.items():
        folder = lakes[host % len(lakes)] / table
        folder /= f"product={product}" if product else ""
        folder /= f"date={date}"
        folder.mkdir(parents=True, exist_ok=True)
        first, last = some[0]["sequence"], some[-1]["sequence"]
        schema = SCHEMAS[table]
        columns = [pa.array([row.get(one.name) for row in some]).cast(one.type) for one in schema]
        made = pa.table(columns, schema=schema)
        for name in ("watch", "features") if table == "decisions" else ():
            made = made.append_column(name, pa.array([row[name] for row in some]))
        pq.write_table(made, folder / str(FileName(worker, f"{host + 1:016x}", first, last)))
