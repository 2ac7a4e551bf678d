"""The page's section of reply times: a distribution against the budget, and days."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.report.charts import Column, day_by_day, histogram, legend
from gateway.report.entries import Line
from gateway.report.figures import figure_of, table_of
from gateway.report.sentence import Name, Number, Sentence
from gateway.report.tables import Tables, Times

KINDS = {
    "by_model": "answered by the model",
    "stood_in": "answered by a stand-in",
    "late": "later than the deadline",
}

_QUANTILES = {"p50_us": "p50", "p99_us": "p99", "p999_us": "p99.9"}


def latency(_: Sequence[Line], tables: Tables, *, exact: bool) -> str:
    """Return how long answers took."""
    return "".join(_times(one, exact=exact) for one in tables.latency if one.n and one.bins)


def _times(one: Times, *, exact: bool) -> str:
    budget = Number(f"{one.at}/budget_us", one.budget_us, "us")
    columns = [
        Column(x["from_us"], x["to_us"], tuple(x.get(kind, 0.0) for kind in KINDS))
        for x in one.bins
        if 0 < x.get("from_us", 0.0) < x.get("to_us", 0.0)
    ]
    if not columns:
        return ""
    taken = [
        (f"{who} ", Number(f"{one.at}/{name}", one.quantiles[name], "us"))
        for name, who in _QUANTILES.items()
        if name in one.quantiles
    ]
    within: Sentence = tuple(
        part for i, some in enumerate(taken) for part in (*((", ",) if i else ()), *some)
    )
    caption: Sentence = (
        *("Of ", Number(f"{one.at}/n", one.n, "n"), " answers from ", Name(one.begin), " to "),
        *(Name(one.end), ", ", Number(f"{one.at}/late", one.late, "n"), " came late; of all, "),
        *within,
        *(". The dashed line is the budget, ", budget, "; across is time, on a logarithmic scale."),
    )
    found = figure_of(caption, histogram(columns, "us", one.budget_us) + legend([*KINDS.values()]))
    known = [(i, day, of["p99_us"]) for i, (day, of) in enumerate(one.days) if "p99_us" in of]
    if len(known) > 1:
        place, worst, took = max(known, key=lambda x: x[2])
        says: Sentence = (
            *("p99 day by day. The slowest day was ", Name(worst)),
            *(", ", Number(f"{one.at}/days/{place}/p99_us", took, "us"), "."),
        )
        drawing = day_by_day([x[2] for x in known], [x[1][5:] for x in known], "us")
        found += figure_of(says, drawing)
    return found + (_numbers(one) if exact else "")


def _numbers(one: Times) -> str:
    def number(place: int, of: str, name: str, unit: str, value: float | None) -> Sentence:
        return () if value is None else (Number(f"{one.at}/{of}/{place}/{name}", value, unit),)

    bins: list[Sequence[Sentence]] = [
        [
            (
                *number(i, "bins", "from_us", "us", x.get("from_us")),
                " to ",
                *number(i, "bins", "to_us", "us", x.get("to_us")),
            ),
            *(number(i, "bins", kind, "n", x.get(kind)) for kind in KINDS),
        ]
        for i, x in enumerate(one.bins)
        if any(x.get(kind) for kind in KINDS)
    ]
    days: list[Sequence[Sentence]] = [
        [
            (Name(day),),
            *(
                number(i, "days", name, unit, of.get(name))
                for name, unit in (("n", "n"), ("late", "n"), ("p50_us", "us"), ("p99_us", "us"))
            ),
        ]
        for i, (day, of) in enumerate(one.days)
    ]
    return table_of(["time", *KINDS.values()], bins) + table_of(
        ["day", "answers", "late", "p50", "p99"], days
    )
