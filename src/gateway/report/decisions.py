"""The decisions behind a figure as a page: those that count against it first. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gateway.report.entries import Line
from gateway.report.figures import table
from gateway.report.frame import page, paragraphs
from gateway.report.reasons import Told, answered, came, share
from gateway.report.sentence import Link, Name, Sentence, count, figure, html
from gateway.report.story import title
from gateway.report.words import BASES, TITLES, spoken

_HEAD = ("decision", "time (UTC)", "answer", "P(fraud)", "labels since")


def decisions_html(told: Told, line: Line | None = None) -> str:
    """Return the page of the decisions behind a figure, as `gateway decisions --json` has them.

    `line`: the figure, where an evaluation has it.
    """
    named = title(line) if line else (TITLES.get(told["metric"]) or spoken(told["metric"]),)
    quiet: Sentence = (
        *(Name(told["product"]), ", payments ", *_days(told)),
        *((", ", BASES.get(told["basis"], spoken(told["basis"]))) if told["basis"] else ()),
    )
    head: Sentence = ("Decisions behind: ", *named)
    return page("Decisions behind a figure", head, quiet, _parts(told, line))


def _days(told: Told) -> Sentence:
    if told["from"] < "1971":
        return ("until ", Name(told["to"]))
    return ("of ", Name(told["from"]), " to ", Name(told["to"]))


def _parts(told: Told, line: Line | None) -> Iterator[str]:
    said: list[Sentence] = []
    if line is not None:
        said.append(("The figure is ", *figure(line), "."))
    said.append((count(told["count"]), " payments count for it."))
    if told["says"]:
        said.append((told["says"],))
    yield paragraphs(said)
    several = len(told["kinds"]) > 1
    for i, one in enumerate(told["kinds"]):
        rows = [row for row in told["decisions"] if row["kind"] == i]
        if not (rows or one["against"]):
            continue
        what = one["what"] if several else "payments"
        if what == "others":
            what = "other payments that count for it"
        yield f"<h2>{html((what[:1].upper() + what[1:],))}</h2>"
        yield paragraphs([_how_many(one)])
        if rows:
            yield table(what, _HEAD, [_row(told, row) for row in rows])


def _how_many(one: Mapping[str, Any]) -> Sentence:
    if not one["count"]:
        return ("There is none.",)
    if one["shown"] == one["count"]:
        return (count(one["count"]), f", {one['order']}.")
    return (count(one["count"]), " in all; here are ", count(one["shown"]), f", {one['order']}.")


def _row(told: Told, row: Mapping[str, Any]) -> tuple[str, ...]:
    p = row["probability"]
    return (
        html((Link(row["id"], f"/decisions/{row['id']}"),)),
        html((Name(row["time"][:19].replace("T", " ")),)),
        html(answered(row)),
        "" if p is None else html((share(p),)),
        html(came(row, told["currency"], told["minor_per_major"])),
    )
