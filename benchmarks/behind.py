"""How long it takes to list the decisions behind a figure, of a lake of so many.

    python benchmarks/behind.py [--millions 1,10] [--days 92] [--rounds 3] [--threads 1]

The lake is that of `evaluate.py`. Of each figure: how many decisions its days have, the median of
the rounds on the wall in this process, and once as the sidecar's page asks: a process of its own
with the least priority, with what it takes to start.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from evaluate import BEGIN, PRODUCT, World

from gateway.cli.behind import asked_of, behind_of
from gateway.cli.looking import Looking
from gateway.product import parse
from gateway.sidecar.lake import Lake

FIGURES = (
    ("always-on", 28, {}),
    ("fraud_loss", 90, {}),
    ("false_positive_rate", 90, {}),
    ("decline_rate_ratio", 0, {"age_band": "70+", "reference": "35-54"}),
)
"""Metric, its days (0: all), its part."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--millions", default="1,10")
    arguments.add_argument("--days", type=int, default=92)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--threads", type=int, default=1)
    asked = arguments.parse_args()
    product = parse(PRODUCT.read_text(), str(PRODUCT)).name
    print("| lake | figure | decisions of its days | s | s as the page asks |")
    print("| ---: | --- | ---: | ---: | ---: |")
    for millions in asked.millions.split(","):
        with tempfile.TemporaryDirectory() as scratch:
            n = int(float(millions) * 1e6)
            World(Path(scratch), n, asked.days, product)
            folder = Path(scratch) / "products" / f"product={product}"
            folder.mkdir(parents=True)
            (folder / f"{1:010}-{'a' * 12}.yaml").write_text(PRODUCT.read_text())
            measure(scratch, product, n, asked.days, asked.rounds, asked.threads)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\npeak memory {peak_mb:,.0f} MB, the writing of the lake included")


def measure(place: str, product: str, n: int, days: int, rounds: int, threads: int) -> None:
    """Print a row a figure."""
    lake, last = Lake.at(place), BEGIN.date() + timedelta(days=days - 1)
    looking = Looking(Path(place) / "journal", place, limit_s=600.0)
    for metric, span, by in FIGURES:
        first = last - timedelta(days=span - 1) if span else BEGIN.date().replace(year=1970)
        figure = {
            "product": product,
            "metric": metric,
            "from": str(first),
            "to": str(last),
            "by": by,
        }
        took_s, count = [], 0
        for _ in range(rounds):
            begun_s = time.perf_counter()
            told = behind_of(lake, asked_of(figure), datetime.now(UTC), threads=threads)
            took_s.append(time.perf_counter() - begun_s)
            count = told["count"]
        begun_s = time.perf_counter()
        looking.decisions(figure, None)
        page_s = time.perf_counter() - begun_s
        print(
            f"| {n:,} | {metric}, {span or days} days{', a group' if by else ''} | {count:,} | "
            f"{statistics.median(took_s):.2f} | {page_s:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
