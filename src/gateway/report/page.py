"""An evaluation as one HTML file: no script, nothing from elsewhere, every number from the JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from types import MappingProxyType
from typing import NamedTuple

from gateway.report.charts import badge_of
from gateway.report.entries import Evaluated, Line
from gateway.report.figures import table
from gateway.report.frame import POLICY, links
from gateway.report.hypotheses import shipping
from gateway.report.owners import OF_LABELS, OWNERS, concerns, owners_of
from gateway.report.sections import SECTIONS
from gateway.report.sentence import (
    Link,
    Name,
    Sentence,
    count,
    counted,
    figure,
    html,
    linked,
    target,
)
from gateway.report.story import budget, costs, in_danger, title, undecided_groups, worse_off
from gateway.report.style import STYLE
from gateway.report.tables import Tables
from gateway.report.verdicts import BAD, headline, is_in_danger, standing, worst_first

_IN_STRIP = 12


MOST_BYTES = 2 * 10**6


class Depth(NamedTuple):
    """How much of each product a page tells. What it leaves out, it says."""

    sections: bool
    tables: bool
    left_out: str


_DEPTHS = (
    Depth(sections=True, tables=True, left_out=""),
    Depth(sections=True, tables=False, left_out="Of so many products the tables are left out. "),
    Depth(sections=False, tables=False, left_out="Of so many products the charts are left out. "),
)


People = Mapping[str, Sequence[str]]
"""Who an owner is, by role: people, teams or addresses, as products name them."""


def report_html(
    found: Evaluated,
    owner: str | None = None,
    people: People = MappingProxyType({}),
    *,
    above: str = "",
    behind: Callable[[str], str] | None = None,
    beside: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Return the page of an evaluation, or what one owner needs of it. `above`: said first.

    `behind`: where the decisions behind a figure are, by the figure's JSON pointer; without it the
    page says how to ask for them. `beside`: other pages' addresses, by name.

    It is as deep as fits in MOST_BYTES; of very many products even the least may not.
    """
    page = ""
    for depth in _DEPTHS:
        page = _page(found, owner, people, depth, above, beside)
        if behind is not None:
            places = {line.at: behind(line.at) for line in found.lines if line.begin}
            page = linked(page.replace(_ASK, ""), places)
        if len(page.encode()) <= MOST_BYTES:
            break
    return page


_ASK = (
    "The decisions behind a figure: <code>gateway decisions --lake DIR --at PLACE</code>, its "
    "place being in the tables. "
)


def _page(
    found: Evaluated,
    owner: str | None,
    people: People,
    depth: Depth,
    above: str,
    beside: Mapping[str, str],
) -> str:
    lines = [line for line in found.lines if concerns(line, owner)]
    products = [
        (f"product-{i + 1}", product, [line for line in lines if line.product == product])
        for i, product in enumerate(found.products)
    ]
    when = f"{found.as_of:%Y-%m-%d %H:%M} UTC"
    whom = f" for {owner}" if owner else ""
    know = owner is None or owner in OF_LABELS
    parts = [
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>',
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>',
        # Whatever a name might smuggle in: nothing runs, nothing is fetched.
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"/>',
        f"<title>Report{whom}, as of {when}</title><style>{STYLE}</style></head><body>",
        '<a class="skip" href="#main">Skip to the report</a>',
        f"<header>{links('Pages', beside) if beside else ''}<h1>{html(headline(lines))}</h1>"
        f"{f'<p>{escape(above)}</p>' if above else ''}"
        f'<p class="quiet">Report{whom}'
        f"{html(_named(owner, people))}, as known at "
        f'<time datetime="{found.as_of.isoformat()}">{when}</time>. Brackets hold 95 % intervals; '
        "a verdict is given only where the whole interval lies on one side of its target.</p>",
        _navigation(products),
        '</header><main id="main">',
        *_strip(lines),
        *([] if owner else _by_owner(lines, people)),
    ]
    for place, product, some in products:
        tables = found.tables.of(product) if know else Tables()
        parts += _product(place, product, some, tables, depth)
    parts.append(
        "</main><footer><p>Made by <code>gateway report</code> of <code>gateway evaluate</code>'s "
        "JSON. "
        f"{depth.left_out}{'One product: --product NAME. ' if depth.left_out else ''}"
        f"{_ASK}"
        "Each number on this page carries its exact value and its place there.</p></footer>"
        "</body></html>\n"
    )
    return "".join(parts)


def _navigation(products: Sequence[tuple[str, str, Sequence[Line]]]) -> str:
    links = "".join(
        f'<li><a href="#{place}">{html((Name(product),))}</a></li>'
        for place, product, _ in products
    )
    return f'<nav aria-label="Products"><ul>{links}</ul></nav>'


def _strip(lines: Sequence[Line]) -> Iterator[str]:
    """Yield the worst verdicts as tiles."""
    alarming = [
        line
        for line in worst_first(lines)
        if line.verdict in BAD or line.verdict == "drifted" or is_in_danger(line)
    ]
    if not alarming:
        return
    moved = Counter(line.product for line in alarming if line.section == "drift")
    tiles = _first_drifts(alarming)
    yield '<h2 class="first">What needs attention</h2><ul class="strip">'
    for line in tiles[:_IN_STRIP]:
        spent, held = budget(line), target(line)
        others = 0
        if line.section == "drift":
            held, others = (), moved[line.product] - 1
        yield (
            f'<li class="{standing(line.verdict)}">'
            f'<span class="product">{html((Name(line.product),))} · '
            f"{owners_of(line)[0]}</span>"
            f"{badge_of(line.verdict, standing(line.verdict))}{html(title(line))}"
            f'<span class="told">{html(figure(line))}'
            f"{html(('; asked: ', *held)) if held else ''}"
            f"{html(('; budget: ', *spent)) if spent else ''}"
            f"{html(('; and ', count(others), ' more drifted')) if others else ''}</span></li>"
        )
    yield "</ul>"
    if len(tiles) > _IN_STRIP:
        yield f'<p class="quiet">{html((count(len(tiles) - _IN_STRIP), " more below."))}</p>'


def _first_drifts(lines: Sequence[Line]) -> list[Line]:
    """Leave out all but the first drift of each product: what moved moves much with it."""
    kept: list[Line] = []
    for line in lines:
        if line.section != "drift" or not any(
            x.section == "drift" and x.product == line.product for x in kept
        ):
            kept.append(line)
    return kept


def _named(owner: str | None, people: People) -> Sentence:
    """Return who an owner is, in brackets; empty: nobody is named."""
    names = people.get(owner or "", ())
    listed: Sentence = ()
    for name in names:
        listed = (*listed, ", " if listed else "", Name(name))
    return (" (", *listed, ")") if listed else ()


def _by_owner(lines: Sequence[Line], people: People) -> Iterator[str]:
    """Yield for each owner what he answers for, in counts."""
    yield "<h2>Who answers for it</h2>"
    heads = ("owner", "bad", "drifted", "undecided", "good", "first of all")
    yield table("Verdicts by owner", heads, [_owned(lines, one, people) for one in OWNERS])


def _owned(lines: Sequence[Line], owner: str, people: People) -> Sequence[str]:
    """Return an owner's row."""
    mine = [line for line in worst_first(lines) if owners_of(line)[0] == owner]
    looks = [standing(line.verdict) for line in mine]
    first: Sentence = (Name(mine[0].product), ", ", *title(mine[0])) if mine else ("–",)
    counts = [(count(looks.count(one)),) for one in ("bad", "moved", "open", "good")]
    return [html(one) for one in ((owner, *_named(owner, people)), *counts, first)]


def _product(
    place: str, product: str, lines: Sequence[Line], tables: Tables, depth: Depth
) -> Iterator[str]:
    yield f'<section id="{place}" aria-labelledby="{place}-name">'
    yield f'<h2 id="{place}-name">{html((Name(product),))}</h2>'
    for about, said in (
        ("In danger", in_danger(lines)),
        ("Worse off", worse_off(lines)),
        ("What it costs", costs(lines)),
        ("Should it ship", shipping(tables.hypotheses)),
    ):
        words = " ".join(html(one) for one in said)
        if words:
            yield f"<p><b>{about}.</b> {words}</p>"
    open_ = undecided_groups(lines)
    if open_:
        whether = ", too little is known to say whether their customers are worse off."
        yield f"<p>{html(('Of ', *counted(open_, 'group'), whether))}</p>"
    sections = [
        (f"{place}-{i + 1}", name, content)
        for i, (name, make) in enumerate(SECTIONS.items())
        if depth.sections and (content := make(lines, tables, exact=depth.tables))
    ]
    links = "".join(f"<li>{html((Link(name, at),))}</li>" for at, name, _ in sections)
    if links:
        yield f'<nav aria-label="Sections of {place}"><ul>{links}</ul></nav>'
    for at, name, content in sections:
        yield f'<h3 id="{at}">{name}</h3>{content}'
    yield "</section>"
