"""From a lake's files to an evaluation: the queries in their order, then the mathematics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import combinations

from gateway.evaluate.engine import Engine
from gateway.evaluate.evaluation import Evaluation, evaluated
from gateway.evaluate.terms import Terms


def evaluate(engine: Engine, terms: Sequence[Terms], as_of: datetime) -> Evaluation:
    """Return the evaluation of products over what an engine sees.

    Raises:
        LakeError: a file cannot be read.
    """
    prepare(engine, terms, as_of)
    return evaluated(engine, terms, as_of)


def prepare(engine: Engine, terms: Sequence[Terms], as_of: datetime) -> None:
    """Let an engine add up what is known of products at a time. Raises LakeError."""
    engine.define(
        "products",
        {
            "product": [one.name for one in terms],
            "unit": [one.unit for one in terms],
            "contact_within_us": [one.contact_within_us for one in terms],
        },
        ("varchar", "integer", "bigint"),
    )
    categories = [(one.name, *category) for one in terms for category in one.categories]
    names = ("product", "mcc", "up_to_minor", "class", "class_above")
    engine.define(
        "categories",
        dict(zip(names, zip(*categories, strict=True), strict=True))
        if categories
        else dict.fromkeys(names, ()),
        ("varchar", "varchar", "bigint", "integer", "integer"),
    )
    compared = [row for one in terms for row in _compared(one)]
    engine.define(
        "compared",
        {
            "product": [product for product, _, _ in compared],
            "attribute": [attribute for _, attribute, _ in compared],
            "beside": [beside for _, _, beside in compared],
        },
        ("varchar", "varchar", "varchar"),
    )
    for query in ("superseded", "evidence", "cells", "groups"):
        engine.run(query, as_of)


def _compared(terms: Terms) -> Iterator[tuple[str, str, str | None]]:
    """Yield what customers are grouped by: each attribute, and each two of them, by name."""
    declared = terms.product.fairness
    if declared is None:
        return
    for attribute in declared.attributes:
        yield terms.name, attribute, None
    for one, beside in combinations(sorted(declared.attributes), 2):
        yield terms.name, one, beside
