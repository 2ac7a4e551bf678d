"""What a lake is evaluated by: its products' terms, and the columns of its tables."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from gateway.errors import LakeError, UsageError
from gateway.evaluate.terms import Terms, terms_of
from gateway.product import parse
from gateway.sidecar.lake import Lake
from gateway.sidecar.lake.schema import SCHEMAS
from gateway.sidecar.lake.several import newest_of

TABLES = ("decisions", "labels", "attributes")

_NAME_ONE = "Name the --lake that a sidecar fills: gateway demo --once --lake lake makes one."


def terms_in(lake: Lake, wanted: str | None) -> tuple[Terms, ...]:
    """Return what each product of the lake is held to: by its newest generation."""
    return terms_of_all([lake], wanted)


def terms_of_all(lakes: Sequence[Lake], wanted: str | None) -> tuple[Terms, ...]:
    """Return what each product of several lakes is held to: by its newest generation of any."""
    for lake in lakes:
        if not lake.is_there:
            raise LakeError("there is no such folder", subject=lake.root, hint=_NAME_ONE)
    products = newest_of(lakes)
    if not products:
        raise LakeError(
            "holds no product",
            subject=", ".join(lake.root for lake in lakes),
            hint="Fill it: gateway sidecar --journal DIR --lake DIR.",
        )
    if wanted is not None and wanted not in products:
        raise UsageError(
            "is no product of the lake",
            subject=f"--product {wanted}",
            hint=f"One of {', '.join(products)}.",
        )
    names = products if wanted is None else (wanted,)
    return tuple(terms_of(parse(products[name].text, products[name].path)) for name in names)


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
