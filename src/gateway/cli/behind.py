"""The decisions behind a figure, of a lake: the figure's place in an evaluation, and the files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

from gateway.cli.lake_terms import columns_of_tables, terms_in
from gateway.errors import LakeError, UsageError
from gateway.evaluate.behind import MOST, Asked, behind, part_of
from gateway.evaluate.engine import DuckDb
from gateway.evaluate.terms import Terms
from gateway.sidecar.lake import Lake

MEMORY = "1GB"

_POINTER = re.compile(r"/(\w+)/(\d{1,9})(?:/.*)?", re.ASCII)
_DAY = timedelta(days=1)


def asked_at(evaluation: Mapping[str, Any], pointer: str) -> Asked:
    """Return the figure that stands at a JSON pointer of an evaluation, such as /goals/3.

    Raises:
        UsageError: none stands there.
    """
    match = _POINTER.fullmatch(pointer)
    some = evaluation.get(match[1]) if match else None
    here = None
    if match and isinstance(some, list) and int(match[2]) < len(some):
        here = some[int(match[2])]
    if not isinstance(here, Mapping) or "metric" not in here:
        raise UsageError(
            "is the place of no figure in the evaluation",
            subject=f"--at {pointer}",
            hint="Such as /goals/0: a section's name and a number, as `gateway evaluate --json` "
            "has them.",
        )
    return asked_of(here)


def asked_of(figure: Mapping[str, Any]) -> Asked:
    """Return what an entry of an evaluation is a figure of. Raises UsageError: it is of no days."""
    for name in ("product", "metric", "from", "to"):
        if not figure.get(name):
            raise UsageError(f"has no {name}", subject="the figure", hint="Take another figure.")
    by = figure.get("by") or {}
    return Asked(
        product=str(figure["product"]),
        metric=str(figure["metric"]),
        first=day_of(str(figure["from"]), "from"),
        last=day_of(str(figure["to"]), "to"),
        basis=str(figure.get("basis") or ""),
        by={str(key): str(value) for key, value in by.items()},
        is_promise=figure.get("kind") == "promise",
    )


def day_of(text: str, name: str) -> date:
    """Read a day such as 2026-11-01. Raises UsageError."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise UsageError(
            "is no day", subject=f"{name} {text[:40]}", hint="Write it as 2026-11-01."
        ) from None


def behind_of(
    lake: Lake,
    asked: Asked,
    as_of: datetime | None,
    *,
    most: int = MOST,
    threads: int | None = None,
) -> dict[str, Any]:
    """Return the decisions behind a figure, as JSON shows them.

    Raises:
        UsageError: the figure is none of the lake's products'.
        LakeError: the lake is none, or cannot be read.
    """
    (terms,) = terms_in(lake, asked.product)
    files = _files(lake, terms, asked)
    with DuckDb(files, columns_of_tables(), memory=MEMORY, threads=threads) as engine:
        when = as_of or datetime.now(UTC)
        return behind(engine, terms, asked, when, files["decisions"], most=most)


def _files(lake: Lake, terms: Terms, asked: Asked) -> dict[str, tuple[str, ...]]:
    """Return the files that may say something: of the product, from the figure's days on.

    A file's day is that of the arrival; who asks says when the payment was, at most a day ahead.
    """
    since = "" if asked.first < date(1971, 1, 1) else str(asked.first - _DAY)
    files = {
        table: tuple(
            one.path
            for one in lake.files_since(table, since)
            if lake.product_of(one.path) == terms.name
        )
        for table in ("decisions", "labels")
    }
    if part_of(asked, terms).needs_groups:
        files["attributes"] = lake.files("attributes")
    if not files["decisions"]:
        raise LakeError(
            f"holds no decisions of {terms.name} from {asked.first} on",
            subject=lake.root,
            hint="Ask for other days, or look whether it is the lake that was evaluated.",
        )
    return files
