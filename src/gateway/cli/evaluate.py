"""`gateway evaluate`."""

from __future__ import annotations

import json as json_codec
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated

import pyarrow as pa
from cyclopts import Parameter
from rich.table import Table

from gateway.cli.terms import Json, notes, out
from gateway.errors import ExitCode, LakeError, UsageError
from gateway.evaluate.engine import DuckDb
from gateway.evaluate.entry import Entry
from gateway.evaluate.evaluation import Evaluation
from gateway.evaluate.evaluation import evaluate as evaluation_of
from gateway.evaluate.terms import Terms, terms_of
from gateway.product import parse
from gateway.sidecar.lake import Lake
from gateway.sidecar.lake.products import kept
from gateway.sidecar.lake.schema import SCHEMAS

TABLES = ("decisions", "labels", "attributes")


def evaluate(
    *,
    lake: Annotated[str, Parameter(help="The lake that a sidecar fills: a directory, or a URI.")],
    as_of: Annotated[
        str,
        Parameter(help="As known at that time: 2026-11-01, or 2026-11-01T12:00:00Z. Default: now."),
    ] = "",
    product: Annotated[str | None, Parameter(help="Only this one of the lake's products.")] = None,
    json: Json = False,
) -> int:
    """Say whether products keep their promises, what they cost, and for whom they fail.

    Reads decisions, labels and attributes of a lake. Figures about labels rest on mature payments;
    each has an interval, and a verdict where there is a target: undecided where the data do not
    say. What was declined has no label: figures about it are named explored, model_implied or
    bounds, and only the first decides.
    """
    when = _time(as_of)
    place = Lake.at(lake)
    terms = _terms(place, product)
    with DuckDb({table: place.files(table) for table in TABLES}, columns_of_tables()) as engine:
        found = evaluation_of(engine, terms, when)
    if json:
        print(json_codec.dumps(found.as_object(), indent=2))
    else:
        _show(found)
        notes.print(f"Next: gateway evaluate --lake {lake} --json", markup=False)
    return ExitCode.OK


def _time(text: str) -> datetime:
    if not text:
        return datetime.now(UTC)
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            "is no time",
            subject=f"--as-of {text}",
            hint="Write it as 2026-11-01 or 2026-11-01T12:00:00Z.",
        ) from None
    return when.replace(tzinfo=when.tzinfo or UTC)


def _terms(lake: Lake, wanted: str | None) -> tuple[Terms, ...]:
    """Return what each product of the lake is held to: by its newest generation."""
    newest = {one.product: one for one in kept(lake.filesystem, lake.root)}
    if not newest:
        raise LakeError(
            "holds no product",
            subject=lake.root,
            hint="Fill it: gateway sidecar --journal DIR --lake DIR.",
        )
    if wanted is not None and wanted not in newest:
        raise UsageError(
            "is no product of the lake",
            subject=f"--product {wanted}",
            hint=f"One of {', '.join(newest)}.",
        )
    names = newest if wanted is None else (wanted,)
    return tuple(terms_of(parse(newest[name].text, newest[name].path)) for name in names)


_SQL = {
    pa.string(): "varchar",
    pa.bool_(): "boolean",
    pa.int64(): "bigint",
    pa.float64(): "double",
}


def columns_of_tables() -> dict[str, dict[str, str]]:
    """Return the columns of tables that may have no file yet."""
    return {
        table: {
            "product": "varchar",
            **{
                field.name: "timestamptz"
                if pa.types.is_timestamp(field.type)
                else _SQL.get(field.type, "double")
                for field in SCHEMAS[table]
            },
        }
        for table in TABLES
    }


def _show(found: Evaluation) -> None:
    out.print(f"As of {found.as_of:%Y-%m-%d %H:%M} UTC")
    for label in found.labels:
        out.print(
            f"[bold]{label['product']}[/bold]: {label['decisions']:,} decisions; labels mature "
            f"after {label['maturity_days']} days: {label['mature']:,} mature, "
            f"{label['provisional']:,} provisional, {label['pending']:,} pending, "
            f"{label['reversed']:,} reversed; {label['without_label_for_ever']:,} declined, "
            "without a label for ever"
        )
    for section, entries in found.sections.items():
        if not entries:
            continue
        table = Table(
            "product", "", "figure", "95 %", "n", "target", "verdict",
            title=section, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0),
        )  # fmt: skip
        for one in entries:
            table.add_row(*_row(one))
        out.print(table)


def _row(one: Entry) -> Iterator[str]:
    part = ", ".join(f"{key} {value}" for key, value in one.by.items())
    yield one.product
    yield f"{one.metric} ({one.basis})" + (f", {part}" if part else "")
    yield _said(one.figure.value, one.unit)
    yield f"{_said(one.figure.low, one.unit)} to {_said(one.figure.high, one.unit)}"
    yield f"{one.figure.n:,.0f}"
    yield one.target
    yield f"[{_COLOURS.get(one.verdict, 'dim')}]{one.verdict or '·'}[/]" + (
        f" ({one.because or one.figure.reason})" if one.verdict == "undecided" else ""
    )


_COLOURS = {"met": "green", "pass": "green", "missed": "red", "breach": "red"}


def _said(value: float | None, unit: str) -> str:
    if value is None:
        return "?"
    if unit == "share":
        return f"{value:.3%}"
    return f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"
