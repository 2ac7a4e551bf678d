"""What a lake says, added up: counted once, and again only where something else is known since.

A day's decisions come with labels of the weeks before. What is counted of a payment is taken away
and added anew when its label comes, is revised or taken back, when another answer to it counts, or
when its customer's group is another. So an evaluation after a day costs about that day, and what it
says is what counting everything says: `queries/cells.sql` adds in both cases, and takes away.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.evaluate.engine import Engine, Given
from gateway.evaluate.terms import Terms

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_JOIN_BEYOND = 1.5
"""Cells are joined when there are so many times as many as after the last time."""

_GROUPS = {
    "kind": "group",
    "of": "m.members",
    "joined": "left join members m on m.customer = f.customer",
    "told": "memberships",
}
_SEGMENTS = {"kind": "segment", "of": "f.watch", "joined": "", "told": "segments"}

_OF_TOUCHED = "where payment(s.product, s.transaction_id) in (select key from touched)"
_LINKED = """and (
    payment(l.product, coalesce(l.transaction_id, n.transaction_id)) in (select key from touched)
    or (l.source, l.source_event_id) in (select (source, event) from links)
    or (l.source, l.supersedes) in (select (source, event) from links)
)"""


def count(engine: Engine, terms: Sequence[Terms], as_of: datetime) -> None:
    """Let an engine count what is known of products at a time, or only what is new since.

    Raises:
        LakeError: a file cannot be read. What was counted before stands.
    """
    with engine.transaction():
        tables = tables_of(terms)
        for table, columns, kinds in tables:
            engine.define(table, columns, kinds)
        digest = hashlib.sha256(repr((tables, _queries())).encode()).hexdigest()
        before = _counted_before(engine, digest, as_of)
        first = _arrive(engine, as_of)
        engine.run("named" if engine.rows("unnamed")["n"][0] else "nobody_named", as_of)
        engine.run("members_now", as_of)
        engine.run("memberships", as_of)
        if before is None:
            _count_all(engine, as_of)
        else:
            _count_touched(engine, before, first, as_of)
        engine.run("counted_now", as_of, Given({"digest": digest}, {}))


def tables_of(
    terms: Sequence[Terms],
) -> list[tuple[str, dict[str, Sequence[Any]], tuple[str, ...]]]:
    """Return what products say, as small tables: names, columns and types."""
    categories = [(one.name, *category) for one in terms for category in one.categories]
    names = ("product", "mcc", "up_to_minor", "class", "class_above")
    compared = [
        (one.name, attribute)
        for one in terms
        if one.product.fairness is not None
        for attribute in one.product.fairness.attributes
    ]
    return [
        (
            "products",
            {
                "number": list(range(len(terms))),
                "product": [one.name for one in terms],
                "unit": [one.unit for one in terms],
                "contact_within_us": [one.contact_within_us for one in terms],
            },
            ("bigint", "varchar", "integer", "bigint"),
        ),
        (
            "categories",
            {name: [row[i] for row in categories] for i, name in enumerate(names)},
            ("varchar", "varchar", "bigint", "integer", "integer"),
        ),
        (
            "compared",
            {"product": [one for one, _ in compared], "attribute": [one for _, one in compared]},
            ("varchar", "varchar"),
        ),
    ]


def _queries() -> list[str]:
    """Return what counts of another version do not go on from."""
    room = files("gateway.evaluate.queries")
    texts = [one.read_text(encoding="utf-8") for one in room.iterdir() if one.name.endswith(".sql")]
    return [version("duckdb"), *sorted(texts)]


def _counted_before(engine: Engine, digest: str, as_of: datetime) -> datetime | None:
    """Return when it was counted last; None: it has to be counted from nothing."""
    engine.run("tables", as_of)
    found = engine.rows("counted_at")
    if len(found["digest"]):
        before = _EPOCH + timedelta(microseconds=int(found["as_of_us"][0]))
        if found["digest"][0] == digest and before <= as_of:
            return before
        engine.run("emptied", as_of)
    return None


def _arrive(engine: Engine, as_of: datetime) -> int:
    """Take the facts of files that were not counted yet; return the first one's number."""
    listed = engine.listed()
    names = ("name", "path", "stamp")
    columns = {name: [row[i] for row in listed] for i, name in enumerate(names)}
    engine.define("listed", columns, ("varchar", "varchar", "varchar"))
    first = int(engine.rows("next_unit")["unit"][0])
    engine.run("arrived", as_of)
    new = engine.rows("arrived_files")
    paths = {
        table: [path for of, path in zip(new["name"], new["path"], strict=True) if of == table]
        for table in ("decisions", "labels")
    }
    engine.see("arrived_labels", "labels", paths["labels"])
    engine.see("arrived_decisions", "decisions", paths["decisions"])
    if paths["decisions"]:
        engine.run("facts", as_of, Given({"first": first}, {"watch": engine.watched()}))
    return first


def _count_all(engine: Engine, as_of: datetime) -> None:
    _know(engine, as_of)
    if engine.is_spread:
        engine.run("counted", as_of, _texts(name="everything", facts="facts"))
        _add(engine, as_of, "everything")
        return
    keys = engine.rows("keys", Given({"as_of": as_of}, {}))["key"]
    engine.define("again", {"key": repeated(keys).tolist()}, ("ubigint",))
    several = "(from facts semi join again using (key))"
    engine.run("counted", as_of, _texts(name="retried", facts=several))
    as_of_us = (as_of - _EPOCH) // timedelta(microseconds=1)
    engine.run("everything", as_of, _texts(as_of_us=str(as_of_us)))
    _add(engine, as_of, "everything")


def _count_touched(engine: Engine, before: datetime, first: int, as_of: datetime) -> None:
    """Take away what was counted of payments that something else is known of; add them anew."""
    engine.run("members_changed", as_of)
    engine.run("touched", as_of, Given({"before": before, "first": first}, {}))
    engine.run("links", as_of)
    were = f"(from moved where unit < {first})"
    engine.run("counted", before, _texts(name="taken", facts=were))
    _add(engine, as_of, "taken", sign="-")
    engine.run("gone", as_of)
    _know(engine, as_of, only=_LINKED, of=_OF_TOUCHED)
    engine.run(
        "counted", as_of, _texts(name="given", facts="(from moved semi join units using (unit))")
    )
    _add(engine, as_of, "given")
    if engine.rows("grown")["times"][0] > _JOIN_BEYOND:
        for cells in ("cells", "groups"):
            engine.run("joined", as_of, _texts(cells=cells))
        engine.run("joined_bins", as_of)


def repeated(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return what is there more than once, once each. Sorts what it is given: a tenth of the time
    that a query's `group by` takes.
    """
    keys.sort()
    return np.unique(keys[1:][keys[1:] == keys[:-1]])


def _know(engine: Engine, as_of: datetime, *, only: str = "", of: str = "") -> None:
    """Work out what is known by then, of all payments or of some; and of customers."""
    engine.run("heard", as_of, _texts(only=only))
    engine.run("evidence", as_of, _texts(only=of))
    engine.run("members", as_of)


def _add(engine: Engine, as_of: datetime, counted: str, *, sign: str = "") -> None:
    """Add payments to the cells, or take them away, by what is known of them now."""
    texts = {"counted": counted, "sign": sign}
    engine.run("cells", as_of, _texts(**texts))
    engine.run("groups", as_of, _texts(**texts, **_GROUPS))
    if engine.rows("segmented")["n"][0]:
        engine.run("groups", as_of, _texts(**texts, **_SEGMENTS))
    engine.run("bins", as_of, _texts(**texts))


def _texts(**texts: str) -> Given:
    return Given({}, texts)
