"""Names of columns: compared, guessed at, and made into names of features. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from gateway.errors import UsageError
from gateway.scaffold.table import Column, Table

_TIMES = {
    *("time", "date", "timestamp", "datetime", "dt", "ts", "epoch", "unix", "step", "booked"),
    *("created", "updated"),
}
_COUNTERS = ("uuid", "guid", "hash", "index", "rowid", "rownumber", "unnamed0", "column0")
"""Names without the word id; the last are a first column that has no name."""

_FEATURE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


def plain(name: str) -> str:
    """Return a name's letters and digits, in lower case: how names are compared."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def without_export(name: str) -> str:
    """Return an input's name without what TensorFlow's exporters put around it."""
    return re.sub(r"^serving_default_|:\d+$", "", name)


def is_id(column: Column) -> bool:
    """Return whether a column's name is an identifier's."""
    return _words(column.name)[-1:] == ["id"] or plain(column.name) in _COUNTERS


def is_time(column: Column) -> bool:
    """Return whether a column holds times, by its type or its name."""
    return column.is_time or bool(set(_words(column.name)) & _TIMES)


def tells(name: str, label: str) -> bool:
    """Return whether a column, by its name, is known only when the label is."""
    return plain(label) in plain(name) or "fraud" in plain(name)


def named(name: str, table: Table, option: str) -> Column:
    """Return a table's column. Raises UsageError where there is none of that name."""
    if name not in table.columns:
        folded = {there.casefold(): there for there in table.columns}
        near = get_close_matches(name.casefold(), folded, n=1)
        hint = f"Did you mean {folded[near[0]]!r}? " if near else ""
        raise UsageError(
            f"has no column {name!r}",
            subject=table.path,
            hint=f"{hint}{option} names a column; there are: {listed(table.columns)}.",
        )
    return table.columns[name]


def listed(names: Iterable[str]) -> str:
    """Return names set apart by commas, at most 40 of them."""
    names = list(names)
    more = f", ... ({len(names)} in all)" if len(names) > 40 else ""
    return (", ".join(names[:40]) + more) or "none"


def unique(names: Sequence[str]) -> list[str]:
    """Return names that features may have, each once: other characters become _."""
    given: dict[str, None] = {}
    for i, name in enumerate(names):
        safe = name
        if not _FEATURE.fullmatch(name):
            safe = re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip("_.-")[:90] or f"f{i}"
        free, count = safe, 2
        while free in given:
            free, count = f"{safe[:90]}_{count}", count + 1
        given[free] = None
    return list(given)


def _words(name: str) -> list[str]:
    parted = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", name)
    return [word.lower() for word in re.split(r"[^A-Za-z0-9]+", parted) if word]
