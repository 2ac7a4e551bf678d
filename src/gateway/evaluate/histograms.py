"""How often each value of a decision came, by hour: what drift is looked for in.

A binning says what is told apart, and is made once, of the time that is compared with; histograms
are counted by it, a day at a time, and days add up: count each once, and keep it. All decisions of
a day would be more than the statistics need, so a sample of them is read, by a hash of their ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.evaluate.engine import Engine, Given
from gateway.evaluate.measures import masked

Floats = NDArray[np.float64]
Places = NDArray[np.int64]

What = Literal["action", "probability", "category", "channel", "watch", "feature"]
Kind = Literal["log_odds", "number", "text"]

GROUPS = 16
"""Groups of whole customers, of equal chance."""

EDGES = 9
FREQUENT = 30
"""So many values of a text are told apart; the others are one bin."""
LOG_ODDS_BINS = 84
"""Halves of log-odds: from -21 to 21, as far as a probability of 1e-9 or 1 - 1e-9 reaches."""

_LOG_ODDS_EDGES = tuple(
    float(1.0 / (1.0 + np.exp(-place / 2))) for place in range(-41, LOG_ODDS_BINS - 42)
)
"""The probabilities at which bins of log-odds end."""

NOT_GIVEN = -1
"""The place of what was not given."""

ROWS_PER_HOUR = 300
VALUES_PER_HOUR = 10_000
"""What is read of a product's hour at the most, in decisions and in values of fields."""
BINNING_ROWS = 50_000
"""What bins are made of."""

_BASE: tuple[tuple[What, Kind], ...] = (
    ("action", "text"),
    ("probability", "log_odds"),
    ("category", "text"),
    ("channel", "text"),
)
"""The fields that drift_told.sql reads of every decision, in its order."""

_STRUCTS: tuple[tuple[str, What], ...] = (("watch", "watch"), ("features", "feature"))


@dataclass(frozen=True, slots=True)
class Field:
    """Something that a decision has a value of.

    `edges`: rising; a number's bin is how many of them lie below it. `values`: the texts that are
    told apart, the most frequent first. `spelt_as_text`: a number that files hold as a text.
    """

    what: What
    name: str
    kind: Kind
    edges: tuple[float, ...] = ()
    values: tuple[str, ...] = ()
    spelt_as_text: bool = False

    @property
    def ordered(self) -> bool:
        """Whether its bins have an order."""
        return self.kind != "text"

    @property
    def bins(self) -> int:
        """How many bins it has besides what was not given."""
        if self.kind == "log_odds":
            return LOG_ODDS_BINS
        return len(self.edges) + 1 if self.kind == "number" else FREQUENT + 1

    def label(self, place: int, last: int | None = None) -> str:
        """Return what a bin holds, or the bins up to `last`, as it is read."""
        if place == NOT_GIVEN:
            return "not given"
        if self.kind == "text":
            return self.values[place] if place < len(self.values) else "other"
        edges = self.edges if self.kind == "number" else _LOG_ODDS_EDGES
        last = place if last is None else last
        low = f"{edges[place - 1]:.4g}" if place else ""
        high = f"{edges[last]:.4g}" if last < len(edges) else ""
        if low and high:
            return f"{low} to {high}"
        return f"up to {high}" if high else f"above {low}" if low else "any"


@dataclass(frozen=True, slots=True)
class Binning:
    """What is told apart of a product's decisions. A field is named by its place."""

    product: str
    fields: tuple[Field, ...]


class Sums(NamedTuple):
    """Counts `n` by `when`, `group`, `field` and `place`, all (m,)."""

    when: Places
    group: Places
    field: Places
    place: Places
    n: Places


@dataclass(frozen=True, slots=True, eq=False)
class Histograms:
    """What came, by a binning: `hours` by hour of event time since 1970, UTC, all in group 0;
    `days` by day since 1970 and group of customers."""

    binning: Binning
    hours: Sums
    days: Sums

    def of(self, field: int, begin: int, end: int) -> Floats:
        """Return a field's counts by hour and bin, (end - begin, 1 + bins): not given first."""
        return self._table(self.hours, field, begin, end, 1)[:, 0]

    def by_group(self, field: int, begin: int, end: int) -> Floats:
        """Return a field's counts by day, group and bin, (end - begin, GROUPS, 1 + bins)."""
        return self._table(self.days, field, begin, end, GROUPS)

    def _table(self, sums: Sums, field: int, begin: int, end: int, groups: int) -> Floats:
        wanted = (sums.field == field) & (sums.when >= begin) & (sums.when < end)
        when, group, _, place, n = (column[wanted] for column in sums)
        bins = self.binning.fields[field].bins
        shape = (end - begin, groups, 1 + bins)
        cell = np.ravel_multi_index((when - begin, group, np.minimum(place, bins - 1) + 1), shape)
        counts = np.bincount(cell, weights=n, minlength=int(np.prod(shape)))
        return counts.astype(np.float64).reshape(shape)


def joined(parts: Sequence[Histograms]) -> Histograms:
    """Return several days' histograms by one binning as one."""
    binning = parts[0].binning
    if any(one.binning != binning for one in parts):
        raise ValueError("histograms by different binnings do not add up")
    hours, days = (
        Sums(*(np.concatenate(columns) for columns in zip(*sums, strict=True)))
        for sums in ([one.hours for one in parts], [one.days for one in parts])
    )
    return Histograms(binning, hours, days)


def volumes(engine: Engine, as_of: datetime) -> Mapping[str, Mapping[int, int]]:
    """Return how many decisions each product has, by hour of event time since 1970."""
    columns = engine.rows("drift_counts", Given({"as_of": as_of}, {}))
    found: dict[str, dict[int, int]] = {}
    for product, hour, n in zip(
        *(columns[name].tolist() for name in ("product", "hour", "n")), strict=True
    ):
        found.setdefault(product, {})[hour] = n
    return found


def share_of(volume: Mapping[int, int], fields: int) -> float:
    """Return the share of a product's decisions to read: the busiest hours stay within bounds.

    It is halved and halved again, so that a little more traffic has the same.
    """
    rows = min(ROWS_PER_HOUR, VALUES_PER_HOUR // max(1, fields))
    busy = float(np.quantile(list(volume.values()), 0.9)) if volume else 0.0
    if busy <= rows:
        return 1.0
    return float(2.0 ** np.floor(np.log2(rows / busy)))


def binning_of(
    engine: Engine,
    product: str,
    begin: date,
    end: date,
    as_of: datetime,
    *,
    declared: Mapping[str, str],
    rows: int,
) -> Binning:
    """Return what is told apart of a product, by what it had from a day to before another.

    `declared`: the types of its features, by name: one that some file holds as a text is a number
    where it is declared as one. `rows`: how many decisions those days have. Fields without a value
    on these days are left out.

    Raises:
        LakeError: a file cannot be read.
    """
    fields = _fields(engine, declared)
    share = min(1.0, BINNING_ROWS / rows) if rows else 1.0
    _tell(engine, product, fields, begin, end, share, as_of)
    quantiles = engine.rows("drift_quantiles")
    frequent = engine.rows("drift_values")
    values: dict[int, list[str]] = {}
    for field, value in zip(frequent["field"].tolist(), frequent["value"].tolist(), strict=True):
        values.setdefault(field, []).append(value)
    edges: dict[int, tuple[float, ...]] = {}
    given: set[int] = set(range(len(_BASE)))
    for field, n, found in zip(
        quantiles["field"].tolist(),
        quantiles["given"].tolist(),
        _lists(quantiles["quantiles"]),
        strict=True,
    ):
        edges[field] = edges_of(found)
        if n:
            given.add(field)
    return Binning(
        product,
        tuple(
            Field(
                field.what,
                field.name,
                field.kind,
                edges.get(i, ()) if field.kind == "number" else (),
                tuple(values.get(i, ())) if field.kind == "text" else (),
                field.spelt_as_text,
            )
            for i, field in enumerate(fields)
            if i in given
        ),
    )


def edges_of(quantiles: Sequence[float]) -> tuple[float, ...]:
    """Return the edges that equal shares lie between; what is a share by itself has its own bin."""
    edges: list[float] = []
    for i, value in enumerate(quantiles):
        if value in quantiles[:i]:
            below = float(np.nextafter(value, -np.inf))
            if below not in edges:
                edges.insert(edges.index(value), below)
        else:
            edges.append(value)
    return tuple(edges)


def histograms_of(
    engine: Engine,
    binning: Binning,
    begin: date,
    end: date,
    as_of: datetime,
    *,
    share: float = 1.0,
) -> Histograms:
    """Return the histograms of the days from one to before another, of event time, UTC.

    `share`: how much of the decisions is read.

    Raises:
        LakeError: a file cannot be read.
    """
    _bins(engine, binning)
    _tell(engine, binning.product, binning.fields, begin, end, share, as_of)
    cells = engine.rows("drift_cells")
    by_hour = np.ma.getmaskarray(cells["day"])
    hours, days = (
        Sums(*(masked(cells[name], 0)[rows].astype(np.int64) for name in names))
        for names, rows in (
            (("hour", "group", "field", "place", "n"), by_hour),
            (("day", "group", "field", "place", "n"), ~by_hour),
        )
    )
    return Histograms(binning, hours, days)


def _fields(engine: Engine, declared: Mapping[str, str]) -> tuple[Field, ...]:
    """Return all that decisions of this lake have values of."""
    there = set(engine.rows("drift_columns")["name"].tolist())
    fields = [Field(what, what, kind) for what, kind in _BASE]
    for struct, what in _STRUCTS:
        if struct not in there:
            continue
        found = engine.rows("drift_fields", Given({}, {"struct": struct}))
        for name, type in zip(found["name"].tolist(), found["kind"].tolist(), strict=True):
            as_text = type == "VARCHAR"
            number = what == "feature" and (
                not as_text or declared.get(name, "category") != "category"
            )
            fields.append(
                Field(what, name, "number" if number else "text", spelt_as_text=number and as_text)
            )
    return tuple(fields)


def _tell(
    engine: Engine,
    product: str,
    fields: Sequence[Field],
    begin: date,
    end: date,
    share: float,
    as_of: datetime,
) -> None:
    values = {
        "product": product,
        "begin": _midnight(begin),
        "end": _midnight(end),
        "share": share,
    }
    engine.run("drift_told", as_of, Given(values, {"struct_fields": struct_fields(fields)}))


def struct_fields(fields: Sequence[Field]) -> str:
    """Return in SQL what drift_told.sql reads of watch and features: lists of structs.

    Names are what a product's file or its callers say: each is quoted.
    """
    lists: list[str] = []
    for struct, what in _STRUCTS:
        read: list[str] = []
        for i, field in enumerate(fields):
            if field.what != what:
                continue
            value = f'd.{struct}."{field.name.replace(chr(34), chr(34) * 2)}"'
            if field.spelt_as_text:
                value = f"try_cast({value} as double)"
            number, text = (
                (f"{value}::double", "null::varchar")
                if field.kind == "number"
                else ("null::double", f"{value}::varchar")
            )
            read.append(f"{{'field': {i}::usmallint, 'number': {number}, 'text': {text}}}")
        if read:
            # A struct that is null was not kept.
            lists.append(f"case when d.{struct} is null then [] else [{', '.join(read)}] end")
    return " || ".join(lists) if lists else "[]"


def _bins(engine: Engine, binning: Binning) -> None:
    """Hand the engine the small tables that drift_cells.sql finds bins by."""
    numbered = list(enumerate(binning.fields))
    edges = {
        f"e{k}": [field.edges[k] if k < len(field.edges) else float("inf") for _, field in numbered]
        for k in range(EDGES)
    }
    engine.define(
        "drift_binning",
        {"field": [i for i, _ in numbered], "kind": [f.kind for _, f in numbered], **edges},
        ("usmallint", "varchar", *["double"] * EDGES),
    )
    frequent = [
        (i, value, place) for i, field in numbered for place, value in enumerate(field.values)
    ]
    engine.define(
        "drift_frequent",
        {name: [row[k] for row in frequent] for k, name in enumerate(("field", "value", "place"))},
        ("usmallint", "varchar", "smallint"),
    )


def _lists(column: NDArray[Any]) -> Iterator[list[float]]:
    """Yield lists of a column; none where it is null."""
    nulls = np.ma.getmaskarray(column)
    for value, null in zip(np.ma.getdata(column), nulls, strict=True):
        yield [] if null or value is None else [float(one) for one in value]


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
