"""Sentences of words, names and numbers; laid out as Markdown or as HTML.

Words are ours. A name is whatever came from the JSON, hostile or not. A number knows its place.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from html import escape
from typing import NamedTuple

from gateway.report.entries import Line
from gateway.report.words import WHY, said, spoken

_LONGEST = 400
_PLAIN = re.compile(r"(?:[^\W_]|(?<=[^\W_])_+(?=[^\W_])|[ .,;:!?'’()/%+&=×–—-])*")


class Number(NamedTuple):
    """A number of the JSON. `at`: its JSON pointer; empty: counted here, of verdicts.

    `unit`, `how`: as `words.said` takes them.
    """

    at: str
    value: float
    unit: str
    how: str = ""

    def __str__(self) -> str:
        return said(self.value, self.unit, self.how)


class Name(NamedTuple):
    """A text of the JSON: a product, a group, an owner's own words."""

    text: str


class Link(NamedTuple):
    """Words that lead to a place on the page, or from `/` on to another page."""

    words: str
    to: str


class Behind(NamedTuple):
    """A figure's place in the JSON, for who asks for the decisions behind it."""

    at: str


Part = str | Number | Name | Link | Behind
Sentence = tuple[Part, ...]


def count(n: int) -> Number:
    """Return a count that was made here."""
    return Number("", n, "n")


def counted(n: int, one: str, many: str = "") -> Sentence:
    """Return a count with its noun."""
    return (count(n), f" {one if n == 1 else many or one + 's'}")


def figure(line: Line) -> Sentence:
    """Return a line's value with its interval, or why there is none."""
    value, ends = line.value, interval(line)
    if value is None:
        ends = _in_unit(ends)
        why = WHY.get(line.because, spoken(line.because)) or "no reason is given"
        return ("somewhere in ", *ends, f" ({why})") if ends else ("not known: ", why)
    shown = Number(f"{line.at}/value", value, line.unit)
    if line.section == "drift":
        # Its interval is no interval: up to there noise alone may come.
        return (shown, ", by chance up to ", ends[-1]) if line.high is not None else (shown,)
    return (shown, " (", *ends, ")") if ends else (shown,)


def exactly(sentence: Sentence) -> Sentence:
    """Return a sentence whose numbers are said with all their digits."""
    return tuple(x._replace(how=f"exact {x.how}") if isinstance(x, Number) else x for x in sentence)


def interval(line: Line) -> Sentence:
    """Return the ends of a line's interval; nothing where both are open."""
    low, high = (
        None if end is None else Number(f"{line.at}/interval/{i}", end, line.unit, "bare")
        for i, end in enumerate((line.low, line.high))
    )
    if low is not None and high is not None:
        return (low, " to ", high)
    if low is not None:
        return (low, " or more")
    return () if high is None else (high, " or less")


def _in_unit(ends: Sentence) -> Sentence:
    """Return an interval that no value stands before: its last number in its unit."""
    last = max((i for i, x in enumerate(ends) if isinstance(x, Number)), default=-1)
    return tuple(
        x._replace(how="") if isinstance(x, Number) and i == last else x for i, x in enumerate(ends)
    )


_DECIMAL = r"(-?\d{1,30}(?:\.\d{1,30})?(?:e[+-]?\d{1,2})?)"
_LIMIT = re.compile(rf"at (least|most) {_DECIMAL}", re.ASCII)
_BAND = re.compile(rf"{_DECIMAL} to {_DECIMAL}", re.ASCII)


def limit(line: Line) -> tuple[str, float] | None:
    """Return the side (`least`, `most`) and the value of a line's target; None: it is no limit."""
    match = _LIMIT.fullmatch(line.target)
    return None if match is None else (match[1], float(match[2]))


def band(line: Line) -> tuple[float, float] | None:
    """Return the two ends of a line's target; None: it has not two."""
    match = _BAND.fullmatch(line.target)
    return None if match is None else (float(match[1]), float(match[2]))


def target(line: Line) -> Sentence:
    """Return what a line is held to."""
    one, two = limit(line), band(line)
    at = f"{line.at}/target"
    if one is not None:
        return (f"at {one[0]} ", Number(at, one[1], line.unit, "exact"))
    if two is not None:
        first = Number(at, two[0], "n", "exact")
        return (first, " to ", Number(at, two[1], line.unit, "exact"))
    return (Name(line.target),) if line.target else ()


def plain(sentence: Sentence) -> str:
    """Lay a sentence out as text."""
    return "".join(_plain(part) for part in sentence)


_OF_VALUE = re.compile(r'<data value="[^"<>]*" data-at="(/\w+/\d+)/value">[^<>]*</data>')
_PLACE = re.compile(r'<code class="behind">(/\w+/\d+)</code>')


def linked(page: str, to: Mapping[str, str]) -> str:
    """Let figures' values, and their places, of what `html` laid out lead somewhere.

    `to`: addresses by the figures' JSON pointers; others lead nowhere.
    """

    def of_value(match: re.Match[str]) -> str:
        if match[1] not in to:
            return match[0]
        words = "Decisions behind this figure"
        return f'<a class="behind" href="{escape(to[match[1]])}" title="{words}">{match[0]}</a>'

    def of_place(match: re.Match[str]) -> str:
        if match[1] not in to:
            return ""
        words = f"Decisions behind {match[1]}"
        return f'<a href="{escape(to[match[1]])}" aria-label="{words}">list</a>'

    return _PLACE.sub(of_place, _OF_VALUE.sub(of_value, page))


def markdown(sentence: Sentence) -> str:
    """Lay a sentence out for a cell of a table in Markdown."""
    return "".join(_markdown_name(x.text) if isinstance(x, Name) else _plain(x) for x in sentence)


def _plain(part: Part) -> str:
    match part:
        case Name(text):
            return clean(text)
        case Link(words, _):
            return words
        case Behind(at):
            return at
    return str(part)


def _markdown_name(text: str) -> str:
    """Return a name that Markdown reads as it stands: what is unusual as code."""
    text = clean(text)
    if _PLAIN.fullmatch(text) and "://" not in text and "www." not in text:
        return text
    return "`" + text.replace("`", "ʼ").replace("|", "\\|") + "`"


def html(sentence: Sentence) -> str:
    """Lay a sentence out as HTML."""
    return "".join(_html(part) for part in sentence)


def _html(part: Part) -> str:
    match part:
        case Number(at, value, _):
            place = f' data-at="{escape(at)}"' if at else ' class="count"'
            return f'<data value="{value!r}"{place}>{part}</data>'
        case Name(text):
            return f'<bdi class="name">{escape(clean(text))}</bdi>'
        case Link(words, to):
            place = to if to.startswith("/") else f"#{to}"
            return f'<a href="{escape(place)}">{escape(words)}</a>'
        case Behind(at):
            return f'<code class="behind">{escape(at)}</code>'
    return escape(part)


def clean(text: str) -> str:
    """Return a text on one line, without what steers a terminal or turns its direction."""
    shown = "".join("\ufffd" if unicodedata.category(x)[0] == "C" else x for x in text)
    shown = " ".join(shown.split())
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 1]}…"
