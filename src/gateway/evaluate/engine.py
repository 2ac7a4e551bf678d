"""Runs the evaluator's queries over a lake's files: DuckDB, in this process.

The only file that knows DuckDB. An engine is given files by table, small tables by value, and runs
queries by their name; nobody else writes SQL.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import date, datetime
from functools import cache
from importlib.resources import files
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

import duckdb
import pyarrow as pa

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
    "day_and_arm": "strftime(day, '%Y-%m-%d') || ' ' || coalesce(arm, 'none')",
    "class": "class::varchar",
    "band": "band::varchar",
    "month": "strftime(day, '%Y-%m')",
    "group": "name || '=' || value",
}
"""What sums may be added up by, as SQL over cells."""

MEMORY = "3GB"
IN_MEMORY = ":memory:"
_NO_STAMPS: Mapping[str, str] = {}

_SIGNED = {"UTINYINT": "SMALLINT", "USMALLINT": "INTEGER", "UBIGINT": "DECIMAL(20, 0)"}
"""Types that not every engine has."""

_COUNTED = ("decisions", "labels")
"""Tables whose files are counted once."""


class Given(NamedTuple):
    """What a query is given: `values` for its $names, `texts` for its {names}.

    A text is SQL: whoever makes one quotes what is in it.
    """

    values: Mapping[str, Any]
    texts: Mapping[str, str]


NOTHING = Given({}, {})


class Engine(Protocol):
    """What runs queries. `is_spread`: rows are not brought together to be looked at one by one."""

    is_spread: bool

    def define(
        self, table: str, columns: Mapping[str, Sequence[Any]], kinds: Sequence[str]
    ) -> None:
        """Make a small table of these values. `kinds`: SQL types of its columns, in order."""

    def run(self, query: str, as_of: datetime, given: Given = NOTHING) -> None:
        """Run a query that makes a table."""

    def rows(self, query: str, given: Given = NOTHING) -> Columns:
        """Run a query and return its rows as columns."""

    def recall(self, keys: Sequence[str]) -> dict[str, bytes]:
        """Return what was noted under keys, where something was."""

    def note(self, values: Mapping[str, bytes]) -> None:
        """Note something for later."""

    def forget(self, but: Collection[str]) -> None:
        """Forget what is noted under other keys."""

    def transaction(self) -> AbstractContextManager[None]:
        """Let all that is changed meanwhile be there, or nothing of it."""

    def listed(self) -> list[tuple[str, str, str]]:
        """Return the files that are counted once: table, path, and what says that it is another."""

    def see(self, view: str, table: str, paths: Sequence[str]) -> None:
        """Make files of a table visible under another name."""

    def watched(self) -> str:
        """Return, as SQL, the text that says a decision's watched segments."""

    def read(
        self, query: str, days: Days | None = None, *, part: str = ALL, cells: str = CELLS
    ) -> Columns:
        """Run a query over cells and return its rows as columns."""


class StoreError(Exception):
    """A store is another process's now, or is none."""


class DuckDb:
    """Queries over Parquet files. A context manager.

    `paths`: the files of each table; a table of none has the columns of `schemas` and no row.
    `stamps`: by path, what is another when a file is another. `store`: a file that keeps what was
    counted.

    Raises:
        LakeError: a file cannot be read.
        StoreError: the store is another process's now, or is none.
    """

    is_spread = False

    def __init__(
        self,
        paths: Mapping[str, Sequence[str]],
        schemas: Mapping[str, Mapping[str, str]],
        *,
        stamps: Mapping[str, str] = _NO_STAMPS,
        store: str = IN_MEMORY,
        memory: str = MEMORY,
        threads: int | None = None,
    ) -> None:
        # Nothing is fetched from anywhere: what is asked is in the library.
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": memory,
            "autoinstall_known_extensions": "false",
            "preserve_insertion_order": "false",
        }
        try:
            self._connection = duckdb.connect(store, config=config)
        except duckdb.Error as error:
            raise StoreError(str(error).splitlines()[0][:200]) from error
        self._connection.execute("set TimeZone = 'UTC'")
        if threads:
            self._connection.execute(f"set threads={threads}")
        self._paths = paths
        self._stamps = stamps
        self._schemas = schemas
        self._execute("layout", {}, {})
        for table in schemas:
            self.see(table, table, paths.get(table, ()))

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
        return self.rows(query, Given(parameters, texts))

    def recall(self, keys: Sequence[str]) -> dict[str, bytes]:
        """Return what was noted under keys, where something was, in the order of the keys."""
        rows = self._connection.execute(
            "select key, value from notes where key in (select unnest($keys))", {"keys": list(keys)}
        ).fetchall()
        found = dict(rows)
        return {key: found[key] for key in keys if key in found}

    def note(self, values: Mapping[str, bytes]) -> None:
        """Note something for later."""
        self._connection.executemany("insert into notes values (?, ?)", list(values.items()))

    def forget(self, but: Collection[str]) -> None:
        """Forget what is noted under other keys."""
        self._connection.execute(
            "delete from notes where key not in (select unnest($keys))", {"keys": list(but)}
        )

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Let all that is changed meanwhile be there, or nothing of it."""
        self._connection.begin()
        try:
            yield
        except BaseException:
            self._connection.rollback()
            raise
        self._connection.commit()

    def listed(self) -> list[tuple[str, str, str]]:
        """Return the files that are counted once: table, path and stamp."""
        return [
            (table, path, self._stamps.get(path, ""))
            for table in _COUNTED
            for path in self._paths.get(table, ())
        ]

    def see(self, view: str, table: str, paths: Sequence[str]) -> None:
        """Make files of a table visible under another name. Raises LakeError.

        `file_index`: the place of a row's file among `paths`. Columns that no file has are null.
        """
        create = f"create or replace temp view {view} as "
        if not paths:
            nulls = {**self._schemas[table], "file_index": "ubigint"}
            spelt = ", ".join(f"null::{kind} as {name}" for name, kind in nulls.items())
            self._connection.execute(f"{create} select {spelt} where false")
            return
        try:
            self._connection.execute(
                f"{create} select *, file_index from read_parquet({_listed(paths)}, "
                "hive_partitioning=true, hive_types_autocast=false, union_by_name=true)"
            )
        except duckdb.Error as error:
            raise _refusal(error, table) from error

    def watched(self) -> str:
        """Return, as SQL, the text that says a decision's watched segments."""
        kind = dict(self.described("arrived_decisions")).get("watch", "")
        names = re.findall(r'(?:\(|, )"?([\w.-]+)"? [A-Z]', kind)
        said = [f"'{name}=' || d.watch.\"{name}\"::varchar" for name in names]
        return f"nullif(concat_ws(chr(31), {', '.join(said)}), '')" if said else "null"

    def described(self, table: str) -> list[tuple[str, str]]:
        """Return a table's columns and their types."""
        return [row[:2] for row in self._connection.execute(f"describe {table}").fetchall()]

    def fetched(self, text: str) -> Columns:
        """Return the rows of a query of one's own as columns, masked where null."""
        found: Columns = self._connection.execute(text).fetchnumpy()
        return found

    def take(self, table: str, rows: pa.Table) -> None:
        """Make a table of rows of Arrow."""
        self._connection.register("taken_in", rows)
        self._connection.execute(f"create or replace temp table {table} as from taken_in")
        self._connection.unregister("taken_in")

    def insert(self, table: str, rows: str, *, by_name: bool = False) -> None:
        """Add the rows of one table to another, by the places of columns or by their names."""
        how = "by name" if by_name else ""
        self._connection.execute(f"insert into {table} {how} from {rows}")

    def arrow(self, table: str) -> pa.Table:
        """Return a table's rows; its numbers have signs."""
        kinds = (
            f'"{name}"::{_SIGNED.get(kind, kind)} as "{name}"'
            for name, kind in self.described(table)
        )
        return self._connection.sql(f"select {', '.join(kinds)} from {table}").to_arrow_table()

    def _execute(
        self, query: str, parameters: Mapping[str, Any], texts: Mapping[str, str]
    ) -> duckdb.DuckDBPyConnection:
        """Run the statements of a query, each with what it asks for; return the last one's rows."""
        found = self._connection
        for statement in filter(str.strip, query_text(query, texts).split(";\n")):
            found = self.told(statement, parameters, query)
        return found

    def told(
        self, statement: str, parameters: Mapping[str, Any], query: str
    ) -> duckdb.DuckDBPyConnection:
        """Run one statement of a query with what it asks for. Raises LakeError."""
        wanted = set(re.findall(r"\$(\w+)", statement))
        try:
            return self._connection.execute(statement, {name: parameters[name] for name in wanted})
        except duckdb.Error as error:
            raise _refusal(error, query) from error


def query_text(query: str, texts: Mapping[str, str] = NOTHING.texts) -> str:
    """Return a query's statements with what is put in."""
    text = _read(query)
    for name, spelt in texts.items():
        text = text.replace(f"{{{name}}}", spelt)
    return text


@cache
def _read(query: str) -> str:
    return (files("gateway.evaluate.queries") / f"{query}.sql").read_text(encoding="utf-8")


def _listed(paths: Sequence[str]) -> str:
    return "[" + ", ".join("'" + path.replace("'", "''") + "'" for path in paths) + "]"


def _refusal(error: duckdb.Error, subject: str) -> LakeError:
    return LakeError(
        f"cannot be evaluated: {str(error).splitlines()[0][:200]}",
        subject=subject,
        hint="A file may have been joined meanwhile, or be damaged: try again; gateway journal "
        "verify and a new sidecar with an empty lake ship everything again.",
    )
