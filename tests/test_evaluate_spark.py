"""Spark counts what DuckDB counts: every entry, value, interval, number and verdict is the same."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import evaluated_lake as world
import months_lake
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from coverage import WORLDS, B, Customers

from gateway.cli.lake_terms import TABLES, columns_of_tables
from gateway.cli.main import run
from gateway.cli.spark_session import master_of, session_of
from gateway.errors import UsageError
from gateway.evaluate import histograms, miscalibration
from gateway.evaluate.engine import DuckDb
from gateway.evaluate.evaluation import evaluate
from gateway.evaluate.terms import Terms, terms_of
from gateway.product import parse
from gateway.sidecar.lake import Lake
from gateway.sidecar.lake.several import files

MODELS = Path(__file__).parents[1] / "models"
TOLERANCE = 1e-9
MONTHS = 20_000
ENGINE = "spark://local[2]"
IN_HASTE = {
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    "spark.sql.shuffle.partitions": "1",
}
"""What runs once is compiled in haste."""

pytestmark = [
    pytest.mark.slow,
    # PySpark's own, of what it imports.
    pytest.mark.filterwarnings("ignore::FutureWarning:pyspark", "ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    """One session: the JVM takes longer to start than small lakes take to count."""
    pytest.importorskip("sqlglot")
    pytest.importorskip("pyspark")
    if shutil.which("java") is None:
        pytest.skip("there is no Java")
    session = session_of(ENGINE, IN_HASTE)
    yield session
    session.stop()


class Months(NamedTuple):
    """The demo's months: in one lake, and in three that as many hosts filled."""

    one: list[Lake]
    three: list[Lake]
    terms: list[Terms]
    payments: int


@pytest.fixture(scope="module")
def months(tmp_path_factory: pytest.TempPathFactory) -> Months:
    root = tmp_path_factory.mktemp("months")
    one, three = [root / "one"], [root / name for name in "abc"]
    for lakes in (one, three):
        found = months_lake.write(lakes, MONTHS)
    opened = [[Lake.at(str(place)) for place in lakes] for lakes in (one, three)]
    return Months(*opened, months_lake.terms(found), len(found.payments))


def by_duckdb(lakes: Sequence[Lake], terms: Sequence[Terms], as_of: datetime) -> dict[str, Any]:
    paths = {table: files(lakes, table) for table in TABLES}
    with DuckDb(paths, columns_of_tables()) as engine:
        return evaluate(engine, terms, as_of).as_object()


def by_spark(
    session: Any, lakes: Sequence[Lake], terms: Sequence[Terms], as_of: datetime
) -> dict[str, Any]:
    from gateway.evaluate.spark import Spark

    paths = {table: files(lakes, table) for table in TABLES}
    with Spark(session, paths, columns_of_tables()) as engine:
        return evaluate(engine, terms, as_of).as_object()


def differences(one: Any, other: Any, at: str = "") -> Iterator[str]:
    """Yield where two evaluations are not the same; sums of doubles come in any order."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        for key, value in one.items():
            yield from differences(value, other[key], f"{at}.{key}")
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple):
        if len(one) != len(other):
            yield f"{at}: {len(one)} and {len(other)}"
        for i, pair in enumerate(zip(one, other, strict=False)):
            yield from differences(*pair, f"{at}[{i}]")
    elif isinstance(one, float) or isinstance(other, float):
        if one is None or other is None or abs(one - other) > TOLERANCE * max(abs(one), abs(other)):
            yield f"{at}: {one} and {other}"
    elif one != other:
        yield f"{at}: {one} and {other}"


def test_a_difference_is_seen() -> None:
    one = {"a": [1.0, {"n": None}]}
    assert not list(differences(one, {"a": [1.0 + 1e-12, {"n": None}]}))
    for other in ({"a": [1.0 + 1e-7, {"n": None}]}, {"a": [1.0, {"n": 0}]}, {"a": [1.0]}, {}):
        assert list(differences(one, other))


def test_three_lakes_are_what_one_lake_is(
    months: Months,
) -> None:
    """Retries and labels that came to another host than the decision, subjects that all know."""
    one, three, terms, payments = months
    together = by_duckdb(one, terms, months_lake.ENDS)
    assert not list(differences(together, by_duckdb(three, terms, months_lake.ENDS)))
    alone = by_duckdb(three[:1], terms, months_lake.ENDS)
    assert alone["labels"][0]["decisions"] < 0.5 * together["labels"][0]["decisions"]
    decided = sum(one["decisions"] for one in together["labels"])
    assert decided == payments  # a retry is no other payment


def test_a_copy_of_a_lake_counts_once(months: Months, tmp_path: Path) -> None:
    one, _, terms, _ = months
    copy = Lake.at(str(shutil.copytree(one[0].root, tmp_path / "copy")))
    twice = by_duckdb([*one, copy], terms, months_lake.ENDS)
    assert not list(differences(by_duckdb(one, terms, months_lake.ENDS), twice))


def test_spark_says_of_three_hosts_lakes_what_duckdb_says_of_one(
    spark: Any,
    months: Months,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Samples are small here, so that both have to draw the same ones."""
    monkeypatch.setattr(miscalibration, "PAYMENTS", 3_000)
    monkeypatch.setattr(histograms, "BINNING_ROWS", 4_000)
    monkeypatch.setattr(histograms, "ROWS_PER_HOUR", 6)
    one, three, terms, _ = months
    told = by_duckdb(one, terms, months_lake.ENDS)
    assert not list(differences(told, by_spark(spark, three, terms, months_lake.ENDS)))
    assert all(len(told[name]) > 10 for name in ("goals", "money", "calibration", "fairness"))
    assert len([one for one in told["drift"] if one["value"] is not None]) > 10


# --- worlds whose truth is known ----------------------------------------------------------------

TEN = [(name, one) for name, one in WORLDS.items() if isinstance(one, Customers)][:10]


def payments_of(product: str, seen: Customers, seed: int, first: int) -> tuple[Any, Any, Any]:
    """Return a world's payments as rows: as many by group and bucket as the world has drawn."""
    counts = seen.counts(np.random.default_rng(seed))
    decisions, labels, attributes = [], [], {}
    for group, age in enumerate(("70+", "35-54")):
        for bucket in range(B):
            frauds = int(counts.k[group, bucket])
            for i in range(int(counts.n[group, bucket])):
                number = first + len(decisions)
                who = f"{2 * bucket + group:02x}{group}{i % 5}{seed:02x}{'0' * 26}"
                attributes[who] = age
                at = world.day(number % 7 + (number % 86_399) / 86_400)
                decisions.append(
                    world.decision(
                        number,
                        product=product,
                        event_time=at,
                        subject=who,
                        probability=round(0.001 + 0.3 * (number * 7919 % 1000) / 1000, 6),
                    )
                )
                if i < frauds:
                    labels.append(
                        world.label(number, "chargeback", product=product, reported_time=at)
                    )
    return decisions, labels, attributes


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Lake], list[Terms]]:
    """Ten worlds, of ten seeds, each a product of one lake."""
    place = tmp_path_factory.mktemp("worlds")
    text = (MODELS / "card-not-present" / "product.yaml").read_text()
    terms, number, known = [], 1, {}
    for seed, (_, one) in enumerate(TEN):
        product = f"world-{seed}"
        terms.append(terms_of(parse(text.replace("card-not-present", product), product)))
        decisions, labels, attributes = payments_of(product, one, seed, number)
        known |= attributes
        end = number + len(decisions)
        name = f"000-{world.BOOT}-{number:015d}-{end:015d}"
        world.write(place, "decisions", decisions, name=name)
        world.write(place, "labels", labels, name=name)
        number = end + 1
    rows = [world.attribute(who, age) for who, age in known.items()]
    world.write(place, "attributes", rows, name=f"001-{world.BOOT}-{1:015d}-{len(rows):015d}")
    return [Lake.at(str(place))], terms


def test_spark_says_of_ten_worlds_what_duckdb_says(
    spark: Any, worlds: tuple[list[Lake], list[Terms]]
) -> None:
    lakes, terms = worlds
    told = by_duckdb(lakes, terms, world.day(130))
    assert not list(differences(told, by_spark(spark, lakes, terms, world.day(130))))
    for seed, (_, one) in enumerate(TEN):
        counts = one.counts(np.random.default_rng(seed))
        rate = next(
            entry
            for entry in told["money"]
            if entry["metric"] == "fraud_rate"
            and entry["basis"] == "mature"
            and entry["product"] == f"world-{seed}"
        )
        assert (rate["n"], rate["events"]) == (counts.n.sum(), counts.k.sum())


# --- files of other columns ----------------------------------------------------------------------


def test_files_of_other_columns_are_read_as_duckdb_reads_them(spark: Any, tmp_path: Path) -> None:
    """A feature that was a number and is a text, one that is new, a struct that was not kept."""
    from gateway.evaluate.spark import Spark

    odd = 'a "b`.c'
    told = [
        [{"clash": 1.5, odd: 2.0}, None, {"clash": None, odd: None}],
        [{"clash": "x", "new": 3}, {"clash": "7.25", "new": None}],
        [None],
    ]
    paths = []
    for day, structs in enumerate(told):
        folder = tmp_path / "[b]" / "product=it's" / f"date=2026-06-0{day + 1}"
        folder.mkdir(parents=True)
        columns: dict[str, Any] = {"decision_id": [f"{day}{i}" for i in range(len(structs))]}
        if day < 2:
            columns["features"] = structs
        pq.write_table(pa.table(columns, metadata={"day": str(day)}), folder / "a.parquet")
        paths.append(str(folder / "a.parquet"))
    asked = "select decision_id, product, date, features from decisions"
    said = []
    with DuckDb({"decisions": paths}, {"decisions": {}}) as engine:
        engine.told(f"create temp table seen as {asked}", {}, "seen")
        said.append(engine.arrow("seen").sort_by("decision_id").to_pylist())
    with Spark(spark, {"decisions": paths}, {"decisions": {}}) as there:
        there._fetch("seen", asked, "seen")
        said.append(there.arrow("seen").sort_by("decision_id").to_pylist())
    assert said[0] == said[1]
    assert said[0][0]["features"]["clash"] == "1.5"
    assert said[0][1]["features"] is None
    assert {row["product"] for row in said[0]} == {"it's"}


# --- as it is typed -------------------------------------------------------------------------------


def test_the_command_says_with_spark_what_it_says_without(
    spark: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world.fill(tmp_path)
    said = []
    for engine in ("duckdb", ENGINE):
        options = ["--as-of", "2026-11-26", "--counts", "off", "--json", "--engine", engine]
        assert run(["evaluate", "--lake", str(tmp_path), *options]) == 0
        said.append(json.loads(capsys.readouterr().out))
    assert not list(differences(*said))


@pytest.mark.parametrize("engine", ["spark", "spark://somewhere", "duck", "local[0]", "yarn"])
def test_no_engine_is_said(engine: str) -> None:
    with pytest.raises(UsageError, match="is no engine"):
        master_of(engine)


def test_counts_that_spark_would_not_keep_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--engine", ENGINE, "--counts", str(tmp_path / "counts")]
    assert run(["evaluate", "--lake", str(tmp_path), *options]) == 2
    assert "Spark counts all each time" in capsys.readouterr().err


def test_engines_by_their_names() -> None:
    names = ("spark://local", "local[2]", "spark://local[3]", "spark://10.0.0.5:7077")
    assert [*map(master_of, names)] == ["local[*]", "local[2]", "local[3]", names[-1]]


def test_without_spark_it_is_said_what_to_install(tmp_path: Path) -> None:
    world.fill(tmp_path)
    code = (
        "import sys; sys.modules['pyspark'] = None; from gateway.cli.main import run;"
        f"sys.exit(run(['evaluate', '--lake', {str(tmp_path)!r}, '--engine', 'local[1]']))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert "pip install 'decision-gateway[spark]'" in " ".join(ran.stderr.split())


def test_without_java_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sqlglot")
    pytest.importorskip("pyspark")
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(UsageError, match="needs Java"):
        session_of(ENGINE)
