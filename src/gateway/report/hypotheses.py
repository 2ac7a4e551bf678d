"""The page's section of hypotheses: whether each should ship, what was intended and what came, its
guardrails, and how it came to that day by day. And a row of each verdict for Markdown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from gateway.report.charts import Band, Mark, axis_of, badge_of, band_by_day, rows
from gateway.report.claims import Claim, Held
from gateway.report.entries import Line
from gateway.report.fields import is_number
from gateway.report.figures import figure_of, table_of
from gateway.report.sentence import Name, Number, Sentence, count, counted, html
from gateway.report.tables import Tables
from gateway.report.verdicts import standing
from gateway.report.words import TITLES, UPWARDS, spoken

SURE = ("invalid", "stop", "ship")
"""Verdicts that somebody is to act upon, the most urgent first."""

_SHOULD = {
    "ship": "Ship it: ",
    "stop": "Do not ship it: ",
    "invalid": "It is no result, do not decide by it: ",
    "undecided": "It was not shown, so do not ship it for this: ",
    "continue": "It is too early to say: ",
}


def hypotheses(_: Sequence[Line], tables: Tables, *, exact: bool) -> str:
    """Return what came of a product's hypotheses."""
    some = tables.hypotheses
    if not some:
        return ""
    ships = sum(x.verdict == "ship" for x in some)
    not_ = sum(x.verdict in ("stop", "invalid", "undecided") for x in some)
    caption: Sentence = (
        *("Of ", *counted(len(some), "claim"), " that was" if len(some) == 1 else " that were"),
        *(" written down before anything was known, ", count(ships), " should ship and "),
        *(count(not_), " should not. Brackets hold intervals that are right at any look."),
    )
    return f"<p>{html(caption)}</p>" + "".join(_claim(x, exact=exact) for x in some)


def _claim(one: Claim, *, exact: bool) -> str:
    head = html((Name(one.id),))
    if one.error:
        badge = badge_of("not judged", "bad")
        return f"<h4>{badge}{head}</h4><p>{html((Name(one.error), '.'))}</p>"
    badge = badge_of(one.verdict, standing(one.verdict))
    control, *tried = one.arms or ("",)
    words: Sentence = (
        *("“", Name(one.claim), "” "),
        *((Name(tried[-1]), " against ", Name(control), ".") if tried else ()),
    )
    return (
        f"<h4>{badge}{head}</h4><p>{html(words)}</p><p><b>{html(should(one))}</b></p>"
        f"{_impact(one)}{_guardrails(one)}{_days(one)}{_history(one)}"
        + (_numbers(one) if exact else "")
    )


def should(one: Claim) -> Sentence:
    """Say whether a hypothesis's arm should ship, and why."""
    ended: Sentence = (" It was stopped on ", Name(one.stopped[:10]), ".") if one.stopped else ()
    began: Sentence = (
        ("; so it is since mature day ", Number(f"{one.at}/day", one.day, "n"))
        if one.verdict in (*SURE, "undecided") and one.day
        else ()
    )
    before = _SHOULD.get(one.verdict, f"{spoken(one.verdict)}: ")
    return (before, Name(one.says), *began, ".", *ended)


def shipping(some: Iterable[Claim]) -> Iterator[Sentence]:
    """Yield of each hypothesis that runs whether its arm should ship."""
    for one in some:
        if not one.error and not one.stopped:
            yield (Name(one.id), ": ", *should(one))


def change(one: Claim) -> Sentence:
    """Say what came of a hypothesis, with its interval; or that it is not known."""
    at, unit = f"{one.at}/impact", _difference(one.unit)
    if one.actual is None:
        return ("not known yet",)
    value = Number(f"{at}/actual", one.actual, unit)
    return (value, *_between(f"{at}/interval", one.low, one.high, unit))


def intended(one: Claim) -> Sentence:
    """Say the least change that matters."""
    return (Number(f"{one.at}/impact/intended", one.intended, _difference(one.unit), "exact"),)


def sure(some: Iterable[Claim]) -> list[Claim]:
    """Return those whose verdict somebody is to act upon, the most urgent first."""
    return sorted(
        (x for x in some if x.verdict in SURE and not x.error and not x.stopped),
        key=lambda x: (SURE.index(x.verdict), x.at),
    )


def _impact(one: Claim) -> str:
    if one.actual is None:
        known: Sentence = ("of what came too little is known to say anything.",)
    else:
        known = ("what came is ", *change(one), ".")
    caption: Sentence = (
        *(_metric(one.metric)[:1].upper() + _metric(one.metric)[1:], ": intended is a change of "),
        *(*intended(one), " or more that way; "),
        *known,
        " The dashed line is what was intended.",
    )
    marks = [
        Mark(("intended",), intended(one), one.intended, None, None),
        Mark(("actual",), change(one), one.actual, one.low, one.high, standing(one.verdict)),
    ]
    axis = axis_of([one.actual, one.low, one.high], log=False, around=[0.0, one.intended])
    return figure_of(caption, rows(marks, axis, _difference(one.unit), [one.intended]))


def _guardrails(one: Claim) -> str:
    if not one.guardrails:
        return ""
    kept = sum(x.is_kept is True for x in one.guardrails)
    broken = sum(x.is_kept is False for x in one.guardrails)
    caption: Sentence = (
        *(
            "Of ",
            *counted(len(one.guardrails), "guardrail"),
            ", ",
            count(kept),
            " is" * (kept == 1),
        ),
        *(" are" * (kept != 1), " kept for sure and ", count(broken), " broken for sure. Across: "),
        "how many times its margin a metric got worse, the dashed line being all of it; further "
        "left is better.",
    )
    marks = [_held(x) for x in one.guardrails]
    ends = [end for mark in marks for end in (mark.value, mark.low, mark.high)]
    axis = axis_of(ends, log=False, around=[0.0, 1.2])
    return figure_of(caption, rows(marks, axis, "ratio", [1.0]))


def _held(one: Held) -> Mark:
    unit = _difference(one.unit)
    sign = -1.0 if one.metric in UPWARDS else 1.0
    value, low, high = (_times(x, sign * one.margin) for x in (one.value, one.low, one.high))
    if sign < 0.0:
        low, high = high, low
    told: Sentence = ("not known yet",)
    if one.value is not None:
        told = (
            Number(f"{one.at}/value", one.value, unit),
            *_between(f"{one.at}/interval", one.low, one.high, unit),
        )
    way = "-" if sign < 0.0 else ""
    margin = Number(f"{one.at}/margin", one.margin, unit, "exact")
    words: Sentence = (*told, f"; at the worst {way}", margin)
    verdict, look = {
        True: ("kept", "good"),
        False: ("broken", "bad"),
        None: ("open", "open"),
    }[one.is_kept]
    return Mark((_metric(one.metric),), words, value, low, high, look, verdict)


def _times(change: float | None, margin: float) -> float | None:
    """Return a change as a multiple of a margin; None: it is not known, or cannot be drawn."""
    if change is None or margin == 0.0:
        return None
    found = change / margin
    return found if is_number(found) else None


def _days(one: Claim) -> str:
    known = [x for x in one.looks if x.low is not None and x.high is not None]
    if len(known) < 2:
        return ""
    last = known[-1]
    caption: Sentence = (
        "Day by day, what was known: the line is the change so far, the band the interval that "
        "holds at all looks together; it narrows as days become mature. The dashed line is what "
        "was intended, the dotted one no change; what the whole band is above or below is sure. "
        "The first day that says anything is ",
        *(Number(f"{known[0].at}/day", known[0].day, "n"), ", the last one "),
        *(Number(f"{last.at}/day", last.day, "n"), "."),
    )
    bands = [Band(x.day, x.value, x.low, x.high) for x in one.looks]
    return figure_of(caption, band_by_day(bands, _difference(one.unit), one.intended))


def _history(one: Claim) -> str:
    changes = [next(run) for _, run in groupby(one.looks, key=lambda x: (x.says, x.because))]
    if len(changes) < 2:
        return ""
    told = "".join(
        f"<li>{html(('From day ', Number(f'{x.at}/day', x.day, 'n'), ': '))}"
        f"{badge_of(x.says, standing(x.says))}{html((spoken(x.because), '.'))}</li>"
        for x in changes
    )
    return f"<details><summary>How it came to that</summary><ul>{told}</ul></details>"


def _numbers(one: Claim) -> str:
    """Return the looks as a table."""
    unit = _difference(one.unit)
    cells: list[list[Sentence]] = [
        [
            ("day ", Number(f"{x.at}/day", x.day, "n")),
            ("not known",)
            if x.value is None
            else (
                Number(f"{x.at}/goal/0", x.value, unit),
                *_between(f"{x.at}/goal", x.low, x.high, unit, first=1),
            ),
            (spoken(x.says), ", ", spoken(x.because)),
        ]
        for x in one.looks
    ]
    return table_of(["behind", "change", "verdict"], cells)


def _between(at: str, low: float | None, high: float | None, unit: str, first: int = 0) -> Sentence:
    """Return an interval in brackets; that there is none yet, in words."""
    if low is None or high is None:
        return (" (nothing is sure)",)
    ends = (Number(f"{at}/{first + i}", x, unit, "bare") for i, x in enumerate((low, high)))
    lower, upper = ends
    return (" (", lower, " to ", upper, ")")


def _metric(name: str) -> str:
    return TITLES.get(name) or spoken(name)


def _difference(unit: str) -> str:
    """Return the unit of a difference: of shares it is points."""
    return "points" if unit == "share" else unit
