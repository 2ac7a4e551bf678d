"""An evaluation in at most 20 lines of Markdown, verdict first: for a pull request or a chat."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gateway.report.claims import Claim
from gateway.report.entries import Evaluated, Line
from gateway.report.hypotheses import change, intended, sure
from gateway.report.owners import OF_LABELS, concerns, owners_of
from gateway.report.sentence import Name as Named
from gateway.report.sentence import Sentence, figure, markdown, target
from gateway.report.story import budget, costs, left_over, title
from gateway.report.verdicts import headline, worst_first
from gateway.report.words import BASES, TITLES, WHY, spoken

LINES = 20
"""So many lines that are not empty, at most."""

_RULE = "| --- | --- | --- | --- | --- | --- |"
_AROUND = 4  # the headline, the table's head of two lines, and what is left over
_MOST_COSTS = 4
_MOST_CLAIMS = 4

_SIGNS = {
    **dict.fromkeys(("missed", "breach"), "✗"),
    **dict.fromkeys(("met", "pass", "steady", "explained"), "✓"),
    "drifted": "▲",
    "ship": "✓",
    **dict.fromkeys(("stop", "invalid"), "✗"),
    "undecided": "?",
}


def report_markdown(found: Evaluated, owner: str | None = None) -> str:
    """Return the report of an evaluation, or what one owner needs of it."""
    lines = [line for line in found.lines if concerns(line, owner)]
    judged = worst_first(lines)
    spent = list(_costs(found, lines))[:_MOST_COSTS]
    worth = [line for line in judged if line.verdict != "steady"]
    know = owner is None or owner in OF_LABELS
    claims = sure(found.tables.hypotheses) if know else []
    told = claims[:_MOST_CLAIMS]
    shown = worth[: LINES - _AROUND - len(spent) - len(told)]
    rest: list[Line | Claim] = [*worth[len(shown) :], *claims[len(told) :]]
    rest += [line for line in judged if line.verdict == "steady"]
    whom = f" For {owner}." if owner else ""
    rows = [
        f"**{markdown(headline(lines))}**{whom} As of {found.as_of:%Y-%m-%d %H:%M} UTC, "
        "95 % intervals in brackets.",
    ]
    if shown or told or spent:
        head = ("", "| verdict | product | what | figure | target | owner |", _RULE)
        rows += [*head, *(_row(line) for line in shown), *map(_claim, told), *spent]
    if rest:
        rows += ["", f"Not shown: {markdown(left_over(rest))}."]
    return "\n".join(rows) + "\n"


def _row(line: Line) -> str:
    cells: Sequence[Sentence] = (
        (f"{_SIGNS.get(line.verdict, '·')} ", Named(line.verdict)),
        (Named(line.product),),
        title(line),
        _told(line),
        target(line),
        (owners_of(line)[0],),
    )
    return f"| {' | '.join(markdown(cell) for cell in cells)} |"


def _claim(one: Claim) -> str:
    cells: Sequence[Sentence] = (
        (f"{_SIGNS[one.verdict]} ", Named(one.verdict)),
        (Named(one.product),),
        (Named(one.id), ": ", Named(one.claim)),
        (*change(one), ", ", TITLES.get(one.metric) or spoken(one.metric), "; ", Named(one.says)),
        ("intended ", *intended(one)),
        (OF_LABELS[0],),
    )
    return f"| {' | '.join(markdown(cell) for cell in cells)} |"


def _told(line: Line) -> Sentence:
    told = figure(line)
    if line.value is None:
        return told
    if line.basis == "explored":
        told = (*told, f", {BASES[line.basis]}")
    spent = budget(line)
    if spent:
        told = (*told, "; budget: ", *spent)
    if line.verdict == "undecided" and line.because in WHY:
        told = (*told, f"; {WHY[line.because]}")
    return told


def _costs(found: Evaluated, lines: Sequence[Line]) -> Iterator[str]:
    for product in found.products:
        said = [*costs([line for line in lines if line.product == product])]
        if said:
            words = " ".join(markdown(one) for one in said)
            yield f"| costs | {markdown((Named(product),))} | {words} | | | product |"
