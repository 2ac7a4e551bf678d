"""What an evaluation costs: of a whole lake, and of one more day.

    python benchmarks/evaluate.py [--millions 1,10] [--days 92] [--rounds 3] [--threads 2]

Writes a lake as a sidecar would: decisions of so many days, chargebacks and confirmations that come
late, age bands of customers. Each round counts it from nothing into an empty store, then a day of
decisions and of labels more; the baseline, in the same round and process, is one `group by` over
decisions joined with labels. Times are medians; CPU is that of all threads.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import statistics
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gateway.cli.lake_terms import columns_of_tables
from gateway.evaluate.engine import DuckDb
from gateway.evaluate.evaluation import evaluate
from gateway.evaluate.terms import Terms, terms_of
from gateway.product import parse
from gateway.sidecar.lake.schema import SCHEMAS

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
BOOT = "00112233445566aa"
DAY_US = 86_400_000_000
TABLES = ("decisions", "labels", "attributes")
PRODUCT = Path(__file__).parents[1] / "models" / "card-not-present" / "product.yaml"
BARE = (
    "select d.action, l.kind, count(*), sum(d.amount_minor) "
    "from decisions d left join labels l using (product, transaction_id) group by all"
)


class Spent(NamedTuple):
    """Seconds: on the wall, and of all threads."""

    wall: float
    cpu: float


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--millions", default="1,10")
    arguments.add_argument("--days", type=int, default=92)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--threads", type=int, default=2)
    asked = arguments.parse_args()
    terms = terms_of(parse(PRODUCT.read_text(), str(PRODUCT)))
    print(
        "| decisions | bare s | full s | x bare | a day more s | of full | CPU s: bare, full, day |"
    )
    print("| ---: | ---: | ---: | ---: | ---: | ---: | --- |")
    for millions in asked.millions.split(","):
        with tempfile.TemporaryDirectory() as scratch:
            lake = World(Path(scratch), int(float(millions) * 1e6), asked.days, terms.name)
            rounds = [once(lake, terms, asked.threads) for _ in range(asked.rounds)]
        wall, cpu = (
            [statistics.median(one[i][which] for one in rounds) for i in range(3)]
            for which in (0, 1)
        )
        bare, full, more = wall
        print(
            f"| {lake.decisions:,} | {bare:.2f} | {full:.2f} | {full / bare:.1f} | {more:.2f} | "
            f"1/{full / more:.1f} | {cpu[0]:.2f}, {cpu[1]:.2f}, {cpu[2]:.2f} |",
            flush=True,
        )
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\npeak memory {peak_mb:,.0f} MB, the writing of the lake included")


def once(lake: World, terms: Terms, threads: int) -> tuple[Spent, Spent, Spent]:
    """Return what the baseline, all days but the last, and that one took."""
    with tempfile.TemporaryDirectory() as scratch:
        store = str(Path(scratch) / "counts")
        before, now = (BEGIN + timedelta(days=days) for days in (lake.days, lake.days + 1))

        def spent(days: int, as_of: datetime, *, bare: bool = False) -> Spent:
            files = lake.files(days)
            with DuckDb(files, columns_of_tables(), store=store, threads=threads) as engine:
                wall_s, cpu_s = time.perf_counter(), time.process_time()
                if bare:
                    engine._connection.execute(BARE).fetchall()
                else:
                    evaluate(engine, [terms], as_of)
                return Spent(time.perf_counter() - wall_s, time.process_time() - cpu_s)

        return (
            spent(lake.days, before, bare=True),
            spent(lake.days, before),
            spent(lake.days + 1, now),
        )


class World:
    """A lake of `days` days and one more, that a seed determines."""

    def __init__(self, root: Path, decisions: int, days: int, product: str) -> None:
        self.root, self.days, self.product = root, days, product
        self.decisions = decisions // days * days
        self._chance = np.random.default_rng(1)
        customers = max(1000, decisions // 100)
        self._subjects = np.array(
            [
                hashlib.md5(str(i).encode(), usedforsecurity=False).hexdigest()
                for i in range(customers)
            ]
        )
        labels = [self._day(day, decisions // days) for day in range(days + 1)]
        columns = [np.concatenate(one) for one in zip(*labels, strict=True)]
        self._labels(*columns)
        self._attributes(customers)

    def files(self, days: int) -> dict[str, list[str]]:
        """Return the files that were there after so many days."""
        end = f"date={(BEGIN + timedelta(days=days)).date().isoformat()}"
        return {
            table: sorted(
                str(path)
                for path in (self.root / table).rglob("*.parquet")
                if path.parent.name < end
            )
            for table in TABLES
        }

    def _day(self, day: int, n: int) -> tuple[np.ndarray, ...]:
        """Write a day's decisions; return its labels: transaction, reported, amount, kind."""
        chance = self._chance
        start = int(BEGIN.timestamp() * 1e6) + day * DAY_US
        at = np.sort(start + chance.integers(0, DAY_US, n))
        amount = (np.exp(chance.normal(3.5, 1.2, n)) * 100).astype(np.int64) + 1
        p = 1.0 / (1.0 + np.exp(-chance.normal(-5.5, 1.6, n)))
        fraud = chance.random(n) < p
        wanted = np.where(p > 0.3, "decline", np.where(p > 0.02, "step_up", "approve"))
        explored = (wanted == "decline") & (chance.random(n) < 0.02)
        action = np.where(explored, "approve", wanted)
        sequence = np.arange(n) + day * n + 1
        transaction = np.char.add("transaction-", np.char.zfill(sequence.astype(str), 12))
        when = pa.array(at).cast(pa.timestamp("us", tz="UTC"))
        columns = {
            "decision_id": np.char.add(f"{BOOT}-00-", [f"{one:012x}" for one in sequence]),
            "transaction_id": transaction,
            "generation": np.full(n, 1, np.uint32),
            "digest": np.full(n, "ab" * 32),
            "event_time": when,
            "received": when,
            "amount_minor": amount,
            "currency": np.full(n, "USD"),
            "category": np.array(["5411", "5541", "5812", "5912", "5999", "7995"])[
                chance.integers(0, 6, n)
            ],
            "channel": np.where(chance.random(n) < 0.7, "web", "app"),
            "subject": self._subjects[chance.integers(0, len(self._subjects), n)],
            "action": action,
            "stand_in": np.where(chance.random(n) < 0.001, "deadline", "none"),
            "arm": np.full(n, "champion"),
            "model": np.full(n, "m"),
            "score": p,
            "probability": p,
            "propensity": np.where(explored, 0.02, np.where(action == "decline", 0.98, 1.0)),
            "explored": explored,
            "budget_us": np.full(n, 25_000, np.uint32),
            "replied_us": chance.exponential(500, n).astype(np.float32),
            "reply": np.full(n, "left"),
            "in_time": chance.random(n) < 0.9999,
            "worker": np.zeros(n, np.uint16),
            "boot": np.full(n, BOOT),
            "sequence": sequence,
        }
        name = f"000-{BOOT}-{sequence[0]:015d}-{sequence[-1]:015d}"  # as `ranges.FileName`
        self._write("decisions", BEGIN + timedelta(days=day), name, columns, n)
        charged = np.flatnonzero((action != "decline") & fraud & (chance.random(n) < 0.9))
        fine = np.flatnonzero((action != "decline") & ~fraud & (chance.random(n) < 0.04))
        some = np.concatenate([charged, fine])
        late_days = np.concatenate([chance.exponential(15, len(charged)), chance.random(len(fine))])
        kind = np.repeat(["chargeback", "customer_confirmed"], [len(charged), len(fine)])
        reported = at[some] + (late_days * DAY_US).astype(np.int64)
        return transaction[some], reported, amount[some], kind

    def _labels(
        self, transaction: np.ndarray, reported: np.ndarray, amount: np.ndarray, kind: np.ndarray
    ) -> None:
        """Write labels by the day on which they come, as far as the days go."""
        days = (reported - int(BEGIN.timestamp() * 1e6)) // DAY_US
        for day in range(self.days + 1):
            (here,) = np.nonzero(days == day)
            when = pa.array(reported[here]).cast(pa.timestamp("us", tz="UTC"))
            n = len(here)
            columns = {
                "transaction_id": transaction[here],
                "kind": kind[here],
                "occurred_time": when,
                "reported_time": when,
                "received": when,
                "amount_minor": amount[here],
                "currency": np.full(n, "USD"),
                "liable": np.full(n, "merchant"),
                "source": np.full(n, "bank"),
                "source_event_id": here.astype(str),
                "worker": np.zeros(n, np.uint16),
                "boot": np.full(n, BOOT),
                "sequence": here + 1,
            }
            self._write(
                "labels",
                BEGIN + timedelta(days=day),
                f"000-{BOOT}-{day:015d}-{day:015d}",
                columns,
                n,
            )

    def _attributes(self, n: int) -> None:
        when = pa.array(np.full(n, int(BEGIN.timestamp() * 1e6))).cast(pa.timestamp("us", tz="UTC"))
        columns = {
            "subject": self._subjects,
            "attribute": np.full(n, "age_band"),
            "value": np.array(["18-34", "35-54", "55-69", "70+"])[np.arange(n) % 4],
            "reported_time": when,
            "received": when,
            "source": np.full(n, "crm"),
            "worker": np.ones(n, np.uint16),
            "boot": np.full(n, BOOT),
            "sequence": np.arange(n) + 1,
        }
        self._write("attributes", BEGIN, f"001-{BOOT}-{1:015d}-{n:015d}", columns, n)

    def _write(
        self, table: str, day: datetime, name: str, columns: dict[str, object], n: int
    ) -> None:
        schema = SCHEMAS[table]
        made = [
            pa.array(columns[one.name]).cast(one.type)
            if one.name in columns
            else pa.nulls(n, one.type)
            for one in schema
        ]
        folder = self.root / table
        if table != "attributes":
            folder /= f"product={self.product}"
        folder /= f"date={day.date().isoformat()}"
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(
            pa.table(made, schema=schema), folder / f"{name}.parquet", compression="zstd"
        )


if __name__ == "__main__":
    main()
