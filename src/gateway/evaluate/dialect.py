"""The same queries in Spark's words: sqlglot translates, macros are put in. Pure.

What DuckDB and Spark say alike under other names is in `_NAMES`; what only one of them can say is
not in the queries that both run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import sqlglot
from sqlglot import exp

_NAMES = {"epoch_us": "unix_micros", "hash": "xxhash64"}
_TYPES = {
    exp.DataType.Type.UTINYINT: exp.DataType.Type.SMALLINT,
    exp.DataType.Type.USMALLINT: exp.DataType.Type.INT,
    exp.DataType.Type.UINT: exp.DataType.Type.BIGINT,
    exp.DataType.Type.UBIGINT: exp.DataType.Type.BIGINT,
}
"""Spark has no numbers without a sign."""

_MACRO = re.compile(r"create or replace temp macro (\w+)\(([^)]*)\) as\s+(.*)", re.DOTALL)


class Macro(NamedTuple):
    """A macro of DuckDB: what stands for a call of it."""

    parameters: tuple[str, ...]
    body: exp.Expression


class Spoken(NamedTuple):
    """A statement in Spark's words. `target`: the table that its rows are for; empty: for whoever
    asks. `tables`: what it reads. `wanted`: the values that it asks for, as `:name`."""

    target: str
    text: str
    tables: frozenset[str]
    wanted: frozenset[str]


def macros_of(text: str) -> dict[str, Macro]:
    """Return the macros that a file of queries makes, by name."""
    found = {}
    for statement in text.split(";\n"):
        match = _MACRO.search(statement)
        if match is not None:
            name, parameters, body = match.groups()
            found[name] = Macro(tuple(re.findall(r"\w+", parameters)), _read(body))
    return found


def spoken(statement: str, macros: Mapping[str, Macro]) -> Spoken:
    """Return what a statement of DuckDB reads, as Spark understands it; not what it makes."""
    tree = _read(statement)
    target = ""
    if isinstance(tree, exp.Create | exp.Insert):
        target, tree = tree.this.name, tree.expression
    tree = _expanded(tree, macros).transform(_renamed)
    within = {one.alias for one in tree.find_all(exp.CTE)}
    return Spoken(
        target,
        tree.sql(dialect="spark", comments=False),
        frozenset(one.name for one in tree.find_all(exp.Table)) - within,
        frozenset(_parameters(tree)),
    )


def type_of(kind: str) -> str:
    """Return a type of DuckDB as Spark writes it."""
    tree = exp.DataType.build(kind, dialect="duckdb")
    return tree.transform(_renamed).sql(dialect="spark")


def _read(text: str) -> exp.Expression:
    tree = sqlglot.parse_one(text, dialect="duckdb")
    assert isinstance(tree, exp.Expression)
    return tree


def _expanded(tree: exp.Expression, macros: Mapping[str, Macro]) -> exp.Expression:
    def put_in(node: exp.Expression) -> exp.Expression:
        if not isinstance(node, exp.Anonymous) or node.name.lower() not in macros:
            return node
        macro = macros[node.name.lower()]
        given = dict(zip(macro.parameters, node.expressions, strict=True))

        def argument(one: exp.Expression) -> exp.Expression:
            if isinstance(one, exp.Column) and not one.table and one.name in given:
                return exp.Paren(this=given[one.name].copy())
            return one

        body = macro.body.copy().transform(argument)
        return exp.Paren(this=_expanded(body, macros))

    return tree.transform(put_in)


def _renamed(node: exp.Expression) -> exp.Expression:
    if isinstance(node, exp.Anonymous) and node.name.lower() in _NAMES:
        return exp.Anonymous(this=_NAMES[node.name.lower()], expressions=node.expressions)
    if isinstance(node, exp.Log) and node.this.is_int and node.this.to_py() == 10:
        # By the logarithm of ten it is a little below 3 of a thousand.
        return exp.Anonymous(this="log10", expressions=[node.expression])
    if isinstance(node, exp.DataType) and node.this in _TYPES:
        node.set("this", _TYPES[node.this])
    return node


def _parameters(tree: exp.Expression) -> Iterator[str]:
    for one in tree.find_all(exp.Parameter, exp.Placeholder):
        yield one.name
