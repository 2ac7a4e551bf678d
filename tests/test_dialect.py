"""Queries of DuckDB in Spark's words: macros are put in, names and types are Spark's."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("sqlglot")

from gateway.evaluate.dialect import macros_of, spoken, type_of
from gateway.evaluate.engine import query_text

MACROS = macros_of(query_text("layout"))


def test_a_macro_is_put_in_with_what_it_is_given_and_those_within_it() -> None:
    macros = macros_of(
        "-- Twice.\ncreate or replace temp macro twice(x) as x * 2;\n"
        "create or replace temp macro more(x, y) as twice(x + y) - t.x;\n"
    )
    said = spoken("select more(a | b, 3) as n from t", macros)
    assert said.text == "SELECT ((((a | b) + (3)) * 2) - t.x) AS n FROM t"
    assert said.tables == {"t"}


def test_what_is_made_is_named_apart_from_what_is_read() -> None:
    said = spoken(
        "create or replace temp table here as with c as (from a) "
        "select epoch_us(t) // 60 as m, hash(x) as h from c join b using (k) where t <= $as_of",
        {},
    )
    assert (said.target, said.tables, said.wanted) == ("here", {"a", "b"}, {"as_of"})
    for word in ("UNIX_MICROS(t) DIV 60", "XXHASH64(x)", ":as_of"):
        assert word.lower() in said.text.lower()
    assert "create" not in said.text.lower()


def test_the_logarithm_of_ten_is_exact() -> None:
    assert "log10(" in spoken("select log10(x) as n from t", {}).text.lower()


@pytest.mark.parametrize(
    ("duckdb", "spark"),
    [
        ("UBIGINT", "BIGINT"),
        ("UTINYINT", "SMALLINT"),
        ("USMALLINT", "INT"),
        ("VARCHAR", "STRING"),
        ('STRUCT(a DOUBLE, "b c" VARCHAR)', "STRUCT<a: DOUBLE, `b c`: STRING>"),
    ],
)
def test_types(duckdb: str, spark: str) -> None:
    assert type_of(duckdb) == spark


def test_no_macro_and_no_word_of_duckdb_is_left_in_any_query() -> None:
    left = {*MACROS, "epoch_us", "epoch_ms", "hash", "list_position", "struct_pack", "unnest"}
    asked = {"sign": "", "counted": "f", "of": "f.watch", "joined": "", "told": "memberships"}
    asked |= {"kind": "group", "watch": "null", "only": "", "name": "n", "facts": "facts"}
    asked |= {"struct_fields": "[]", "unit": "customer", "cells": "cells", "part": "''"}
    for name in ("facts", "heard", "evidence", "members_now", "cells", "groups", "bins", "counted"):
        for statement in filter(str.strip, query_text(name, asked).split(";\n")):
            words = set(re.findall(r"(\w+)\(", spoken(statement, MACROS).text.lower()))
            assert words, name
            assert not words & left, name
