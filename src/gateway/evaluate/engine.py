"""Runs the evaluator's queries over a lake's files: DuckDB, in this process.

The only file that knows DuckDB. An engine is given files by table, small tables by value, and runs
queries by their name; nobody else writes SQL.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from importlib.resources import files
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

import duckdb

from gateway.errors import LakeError
from gateway.evaluate.measures import Columns

Days = tuple[date, date]

CELLS = "cells"
GROUPS = "(select * from groups where kind = 'group')"
SEGMENTS = "(select * from groups where kind = 'segment')"
"""What is added up: all decisions, by groups of customers, or by watched segments."""

ALL = "all"
PARTS = {
    ALL: "''",
    "arm": "coalesce(arm, 'none')",
    "class": "class::varchar",
    "band": "band::varchar",
    "month": "strftime(day, '%Y-%m')",
    "group": "name || '=' || value",
}
"""What sums may be added up by, as SQL over cells."""

MEMORY = "3GB"


class Given(NamedTuple):
    """What a query is given: `values` for its $names, `texts` for its {names}.

    A text is SQL: whoever makes one quotes what is in it.
    """

    values: Mapping[str, Any]
    texts: Mapping[str, str]


NOTHING = Given({}, {})


class Engine(Protocol):
    """What runs queries."""

    def define(
        self, table: str, columns: Mapping[str, Sequence[Any]], kinds: Sequence[str]
    ) -> None:
        """Make a small table of these values. `kinds`: SQL types of its columns, in order."""

    def run(self, query: str, as_of: datetime, given: Given = NOTHING) -> None:
        """Run a query that makes a table."""

    def rows(self, query: str, given: Given = NOTHING) -> Columns:
        """Run a query and return its rows as columns."""

    def read(
        self, query: str, days: Days | None = None, *, part: str = ALL, cells: str = CELLS
    ) -> Columns:
        """Run a query over cells and return its rows as columns."""


class DuckDb:
    """Queries over Parquet files. A context manager.

    `paths`: the files of each table; a table of none has the columns of `schemas` and no row.

    Raises:
        LakeError: a file cannot be read.
    """

    def __init__(
        self,
        paths: Mapping[str, Sequence[str]],
        schemas: Mapping[str, Mapping[str, str]],
        *,
        memory: str = MEMORY,
        threads: int | None = None,
    ) -> None:
        # Nothing is fetched from anywhere: what is asked is in the library.
        self._connection = duckdb.connect(
            config={"memory_limit": memory, "autoinstall_known_extensions": "false"}
        )
        self._connection.execute("set TimeZone = 'UTC'")
        if threads:
            self._connection.execute(f"set threads={threads}")
        for table, schema in schemas.items():
            self._see(table, paths.get(table, ()), schema)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._connection.close()

    def define(
        self, table: str, columns: Mapping[str, Sequence[Any]], kinds: Sequence[str]
    ) -> None:
        """Make a small table of these values. `kinds`: SQL types of its columns, in order."""
        spelt = ", ".join(f"{name} {kind}" for name, kind in zip(columns, kinds, strict=True))
        self._connection.execute(f"create or replace temp table {table} ({spelt})")
        rows = list(zip(*columns.values(), strict=True))
        if rows:
            places = ", ".join("?" for _ in columns)
            self._connection.executemany(f"insert into {table} values ({places})", rows)

    def run(self, query: str, as_of: datetime, given: Given = NOTHING) -> None:
        """Run a query that makes a table. Raises LakeError."""
        self._execute(query, {**given.values, "as_of": as_of}, given.texts)

    def rows(self, query: str, given: Given = NOTHING) -> Columns:
        """Run a query and return its rows as columns, masked where null. Raises LakeError."""
        found: Columns = self._execute(query, given.values, given.texts).fetchnumpy()
        return found

    def read(
        self, query: str, days: Days | None = None, *, part: str = ALL, cells: str = CELLS
    ) -> Columns:
        """Run a query over cells of some days, both ends included; return its rows as columns.

        What is null is masked. `part`: what it adds up by, one of `PARTS`; `cells`: of all, or of
        groups. Raises LakeError.
        """
        parameters = {} if days is None else {"first": days[0], "last": days[1]}
        texts = {"part": PARTS[part], "cells": cells}
        found: Columns = self._execute(query, parameters, texts).fetchnumpy()
        return found

    def _see(self, table: str, paths: Sequence[str], schema: Mapping[str, str]) -> None:
        """Make a table visible; columns that no file has are null there."""
        if not paths:
            nulls = ", ".join(f"null::{kind} as {name}" for name, kind in schema.items())
            self._connection.execute(f"create view {table} as select {nulls} where false")
            return
        try:
            self._connection.execute(
                f"create view {table} as select * from read_parquet({_listed(paths)}, "
                "hive_partitioning=true, hive_types_autocast=false, union_by_name=true)"
            )
        except duckdb.Error as error:
            raise _refusal(error, table) from error

    def _execute(
        self, query: str, parameters: Mapping[str, Any], texts: Mapping[str, str]
    ) -> duckdb.DuckDBPyConnection:
        text = (files("gateway.evaluate.queries") / f"{query}.sql").read_text(encoding="utf-8")
        text = text.replace("{watch}", self._watched())
        for name, spelt in texts.items():
            text = text.replace(f"{{{name}}}", spelt)
        try:
            return self._connection.execute(text, dict(parameters))
        except duckdb.Error as error:
            raise _refusal(error, query) from error

    def _watched(self) -> str:
        """Return the segments that decisions carry, as a list in SQL."""
        described = self._connection.execute("describe decisions").fetchall()
        kind = next((row[1] for row in described if row[0] == "watch"), "")
        names = re.findall(r'(?:\(|, )"?([\w.-]+)"? [A-Z]', kind)
        value = "struct_pack(kind := 'segment', name := '{0}', value := d.watch.\"{0}\"::varchar)"
        packed = [value.format(name) for name in names]
        return "[" + ", ".join(packed) + "]" if packed else _NO_SEGMENTS


_NO_SEGMENTS = "[]::struct(kind varchar, name varchar, value varchar)[]"


def _listed(paths: Sequence[str]) -> str:
    return "[" + ", ".join("'" + path.replace("'", "''") + "'" for path in paths) + "]"


def _refusal(error: duckdb.Error, subject: str) -> LakeError:
    return LakeError(
        f"cannot be evaluated: {str(error).splitlines()[0][:200]}",
        subject=subject,
        hint="A file may have been joined meanwhile, or be damaged: try again; gateway journal "
        "verify and a new sidecar with an empty lake ship everything again.",
    )
