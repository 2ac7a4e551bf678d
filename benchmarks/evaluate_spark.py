"""What an evaluation costs by Spark, beside DuckDB over the same lake.

    pip install 'decision-gateway[spark]'
    python benchmarks/evaluate_spark.py [--millions 1,3,10] [--days 92] [--rounds 3]
        [--engines duckdb,local[1],local[2]] [--scratch DIR]

The lake is that of `evaluate.py`; each time all is counted from nothing. An engine has a process of
its own, and its first evaluation is told apart: there the JVM starts and compiles. CPU is that of
all its processes; what is shuffled is told by Spark itself. Answers are compared: they must agree.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
from evaluate import BEGIN, PRODUCT, World

from gateway.cli.lake_terms import columns_of_tables
from gateway.cli.spark_session import session_of
from gateway.evaluate.engine import DuckDb
from gateway.evaluate.evaluation import evaluate
from gateway.evaluate.terms import terms_of
from gateway.product import parse

TOLERANCE = 1e-9


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--millions", default="1,3,10")
    arguments.add_argument("--days", type=int, default=92)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--engines", default="duckdb,local[1],local[2]")
    arguments.add_argument("--scratch", help="where lakes are written; on a disk that has the room")
    arguments.add_argument("--one", help=argparse.SUPPRESS)
    asked = arguments.parse_args()
    if asked.one:
        print(json.dumps(measured(asked.one, Path(asked.scratch), asked.days, asked.rounds)))
        return
    memory_gb = psutil.virtual_memory().total / 2**30
    print(f"{psutil.cpu_count()} cores, {memory_gb:.0f} GB, {platform.platform()}; ", end="")
    print(f"load {psutil.getloadavg()[0]:.1f} at the start\n")
    print("| decisions | engine | first s | s | CPU s | MB shuffled | x DuckDB | agrees |")
    print("| ---: | --- | ---: | ---: | ---: | ---: | ---: | --- |")
    for millions in asked.millions.split(","):
        with tempfile.TemporaryDirectory(dir=asked.scratch) as scratch:
            terms = terms_of(parse(PRODUCT.read_text(), str(PRODUCT)))
            lake = World(Path(scratch), int(float(millions) * 1e6), asked.days, terms.name)
            told: dict[str, dict[str, Any]] = {}
            for engine in asked.engines.split(","):
                told[engine] = one = _apart(engine, scratch, asked)
                base = next(iter(told.values()))
                cpu, median = one["cpu_s"], one["s"]
                agrees = not any(_differ(base["says"], one["says"]))
                print(
                    f"| {lake.decisions:,} | {engine} | {one['first_s']:.1f} | {median:.1f} | "
                    f"{cpu:.1f} | {one['shuffled_mb']:.0f} | {median / base['s']:.1f} | "
                    f"{'yes' if agrees else 'NO'} |",
                    flush=True,
                )


def _apart(engine: str, scratch: str, asked: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", engine, "--scratch", scratch]
    command += ["--days", str(asked.days), "--rounds", str(asked.rounds)]
    ran = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


def measured(engine: str, root: Path, days: int, rounds: int) -> dict[str, Any]:
    """Return the first evaluation's seconds, and medians of the others."""
    terms = terms_of(parse(PRODUCT.read_text(), str(PRODUCT)))
    lake = World.__new__(World)
    lake.root = root
    files, as_of = lake.files(days), BEGIN + timedelta(days=days)
    begun = time.perf_counter()
    session = None if engine == "duckdb" else session_of(engine)
    wall_s, cpu_s, says = [], [], {}
    for _ in range(rounds + 1):
        at, before = time.perf_counter() if wall_s else begun, _cpu_s()
        with _opened(session, files) as one:
            says = evaluate(one, [terms], as_of).as_object()
        wall_s.append(time.perf_counter() - at)
        cpu_s.append(_cpu_s() - before)
    shuffled = 0.0 if session is None else _shuffled_mb(session) / (rounds + 1)
    return {
        "first_s": wall_s[0],
        "s": statistics.median(wall_s[1:]),
        "cpu_s": statistics.median(cpu_s[1:]),
        "shuffled_mb": shuffled,
        "says": says,
    }


def _opened(session: Any, files: Any) -> DuckDb:
    if session is None:
        return DuckDb(files, columns_of_tables())
    from gateway.evaluate.spark import Spark

    return Spark(session, files, columns_of_tables())


def _cpu_s() -> float:
    ours = psutil.Process()
    return sum(sum(one.cpu_times()[:2]) for one in [ours, *ours.children(recursive=True)])


def _shuffled_mb(session: Any) -> float:
    """Return what executors have written for each other so far."""
    found = session.sparkContext._jsc.sc().statusStore().executorList(True)
    return sum(found.apply(i).totalShuffleWrite() for i in range(found.size())) / 2**20


def _differ(one: Any, other: Any) -> Any:
    if isinstance(one, dict):
        for key in one:
            yield from _differ(one[key], other.get(key))
    elif isinstance(one, list):
        if len(one) != len(other):
            yield one
        for pair in zip(one, other, strict=False):
            yield from _differ(*pair)
    elif isinstance(one, float) and other is not None:
        if not math.isclose(one, other, rel_tol=TOLERANCE):
            yield one
    elif one != other:
        yield one


if __name__ == "__main__":
    main()
