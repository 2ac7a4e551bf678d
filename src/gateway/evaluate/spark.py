"""Runs the evaluator's heavy queries on Spark: what reads decisions, labels and attributes.

The only file that knows Spark. What is added up there is small, comes back as Arrow, and is the
same tables in the DuckDB of this process: all later queries run there, unchanged. Counted is all,
each time: nothing is kept for the next evaluation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any

import pyarrow.parquet as pq
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql.functions import col, lit, struct, when
from pyspark.sql.types import DataType, StructField, StructType

from gateway.errors import LakeError
from gateway.evaluate.dialect import Spoken, macros_of, spoken, type_of
from gateway.evaluate.engine import NOTHING, DuckDb, Given, query_text
from gateway.evaluate.measures import Columns

SETTINGS = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.caseSensitive": "true",
    "spark.sql.sources.partitionColumnTypeInference.enabled": "false",
}
"""What answers depend on; a session of its own has them, whatever the cluster's are."""

_SPREAD = frozenset(
    (
        *("facts", "named", "members_now", "heard", "evidence", "members", "everything"),
        *("drift_told", "summed"),
    )
)
"""Tables that Spark makes. All others are made here, of those that come back."""

_ADDED_UP = "summed"
"""The table that comes back each time."""

_READ_AGAIN = frozenset(("facts", "evidence", "everything"))
"""Tables that several queries read: kept in the executors' memory, or on their disks."""

_MADE = re.compile(r"^(?:create or replace (?:temp )?table|insert into) (\w+)", re.MULTILINE)

_READ = frozenset(("decisions", "labels", "attributes"))
"""Tables of files. A query that reads one of these, or one that Spark makes, is Spark's to answer:
its rows have to be few."""

_TOLD = ("drift_quantiles", "drift_values")
"""Queries over a sample that is small enough to come back."""

_OF_FOOTERS = ("drift_columns", "drift_fields")
"""Queries that ask for columns alone."""


class Spark(DuckDb):
    """Queries over Parquet files that every executor sees under the same path. A context manager.

    `session`: with which a session of its own is begun; it is not stopped.

    Raises:
        LakeError: a file cannot be read, or Spark could not do what it was asked.
    """

    is_spread = True

    def __init__(
        self,
        session: SparkSession,
        paths: Mapping[str, Sequence[str]],
        schemas: Mapping[str, Mapping[str, str]],
    ) -> None:
        self._session = session.newSession()
        for name, value in SETTINGS.items():
            self._session.conf.set(name, value)
        self._macros = macros_of(query_text("layout"))
        self._seen: dict[tuple[str, ...], DataFrame] = {}
        self._kept: list[DataFrame] = []
        self._small: set[str] = set()
        self._is_told = False
        super().__init__(paths, schemas)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for one in self._kept:
            one.unpersist()
        super().__exit__(kind, error, traceback)

    def define(
        self, table: str, columns: Mapping[str, Sequence[Any]], kinds: Sequence[str]
    ) -> None:
        """Make a small table of these values, here; Spark gets it when a query asks for it."""
        super().define(table, columns, kinds)
        self._small.add(table)

    def see(self, view: str, table: str, paths: Sequence[str]) -> None:
        """Make files of a table visible under another name. Raises LakeError.

        Here its columns are known, of all files' footers; the rows are read by Spark.
        """
        super().see(view, table, paths)
        try:
            self._frame(view, tuple(paths)).createOrReplaceTempView(view)
        except (PySparkException, OSError) as error:
            raise _refusal(error, table) from error

    def run(self, query: str, as_of: datetime, given: Given = NOTHING) -> None:
        """Run a query that makes a table, there or here. Raises LakeError."""
        if query == "memberships":
            self._told_apart()
        values = {**given.values, "as_of": as_of}
        for statement in filter(str.strip, query_text(query, given.texts).split(";\n")):
            made = _MADE.search(statement)
            if made is not None and made[1] in _SPREAD:
                self._make(spoken(statement, self._macros), values, query)
            else:
                self.told(statement, values, query)

    def rows(self, query: str, given: Given = NOTHING) -> Columns:
        """Run a query and return its rows as columns, masked where null. Raises LakeError."""
        if query in _TOLD and self._is_told:
            self._fetch("drift_told", "select * from drift_told", query)
            self._is_told = False
        if query in _TOLD or query in _OF_FOOTERS:
            return super().rows(query, given)
        said = spoken(query_text(query, given.texts), self._macros)
        if not said.tables & (_READ | _SPREAD):
            return super().rows(query, given)
        self._fetch("asked", self._result(said, given.values, query), query)
        return self.fetched("select * from asked")

    def _make(self, said: Spoken, values: Mapping[str, Any], query: str) -> None:
        found = self._result(said, values, query)
        if said.target == _ADDED_UP:
            self._fetch(_ADDED_UP, found, query)
            return
        self._is_told = self._is_told or said.target == "drift_told"
        if said.target in _READ_AGAIN:
            found = found.persist()
            self._kept.append(found)
        found.createOrReplaceTempView(said.target)

    def _result(self, said: Spoken, values: Mapping[str, Any], query: str) -> DataFrame:
        try:
            for table in sorted(said.tables & self._small):
                self._session.createDataFrame(self.arrow(table)).createOrReplaceTempView(table)
                self._small.discard(table)
            return self._session.sql(said.text, {one: values[one] for one in said.wanted})
        except PySparkException as error:
            raise _refusal(error, query) from error

    def _fetch(self, name: str, rows: DataFrame | str, query: str) -> None:
        """Bring rows here as a table."""
        try:
            found = rows if isinstance(rows, DataFrame) else self._session.sql(rows)
            self.take(name, found.toArrow())
        except PySparkException as error:
            raise _refusal(error, query) from error

    def _told_apart(self) -> None:
        """Bring the texts here that say which groups and segments there are, each once."""
        members = "select distinct members from members_now"
        self._fetch("members_now", members, "memberships")
        watched = "select distinct watch from facts where watch is not null"
        self._fetch("watched", watched, "memberships")
        self.insert("facts", "watched", by_name=True)

    def _frame(self, view: str, paths: tuple[str, ...]) -> DataFrame:
        """Return the rows of files, with the columns that DuckDB sees in them all."""
        kinds = {name: DataType.fromDDL(type_of(kind)) for name, kind in self.described(view)}
        if not paths:
            nulls = [lit(None).cast(kind).alias(name) for name, kind in kinds.items()]
            return self._session.range(0).select(*nulls)
        if paths not in self._seen:
            alike: dict[Any, list[str]] = {}
            for path in paths:
                schema = pq.read_schema(path).remove_metadata()
                alike.setdefault((_base(path), schema), []).append(path)
            frames = [self._read(base, some, kinds) for (base, _), some in alike.items()]
            together = frames[0]
            for one in frames[1:]:
                together = together.unionAll(one)
            self._seen[paths] = together
        return self._seen[paths]

    def _read(self, base: str, paths: Sequence[str], kinds: Mapping[str, DataType]) -> DataFrame:
        """Read files of the same columns as rows of these kinds."""
        super().see("alike", "alike", paths[:1])
        have = {name: DataType.fromDDL(type_of(kind)) for name, kind in self.described("alike")}
        schema = StructType([StructField(name, kind) for name, kind in have.items()])
        # A session of Spark would read a footer itself, a job for each schema.
        reader = self._session.read.option("basePath", f"file:{base}").schema(schema)
        found = reader.parquet(*map(_spelt, paths)).withColumn("file_index", lit(0))
        return found.select(
            *(
                _fitted(col(f"`{name}`"), have.get(name), kind).cast(kind).alias(name)
                for name, kind in kinds.items()
            )
        )


def _fitted(column: Column, have: DataType | None, want: DataType) -> Column:
    """Return a column as another kind; what a struct does not have is null in it."""
    if have is None:
        return lit(None).cast(want)
    if have == want:
        return column
    if not (isinstance(have, StructType) and isinstance(want, StructType)):
        return column.cast(want)
    held = {field.name: field.dataType for field in have.fields}
    fields = [
        _fitted(column.getField(field.name), held.get(field.name), field.dataType).alias(field.name)
        for field in want.fields
    ]
    return when(column.isNotNull(), struct(*fields))


def _base(path: str) -> str:
    """Return the folder from which on folders' names are values of columns."""
    match = re.fullmatch(r"(.*?)(?:/[^/=]+=[^/]*)*/[^/]+", path)
    return match[1] if match else path


def _spelt(path: str) -> str:
    """Return a path as Spark takes it literally."""
    return "file:" + re.sub(r"([\[\]{}*?\\])", r"\\\1", path)


def _refusal(error: Exception, subject: str) -> LakeError:
    said = next(iter(str(error).splitlines()), "") or type(error).__name__
    return LakeError(
        f"Spark cannot evaluate it: {said[:200]}",
        subject=subject,
        hint="Every executor has to see the lake under the same path. A file may have been joined "
        "meanwhile: try again.",
    )
