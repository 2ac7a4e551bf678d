"""Charts as inline SVG, with no script: rows of intervals on one axis, shares of a bar, a plane.
A heat map is a table.

Places are percentages, so that a chart is as wide as its reader has room and its text keeps its
size. What a chart draws stands beside it or below it in numbers: a row's drawing is hidden from who
listens, its words are not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from math import ceil, floor, log10
from typing import NamedTuple

from gateway.report.sentence import Sentence, html

_EDGE = 3.0
"""Percent that stay free on either side."""

_LEAST = 1e-12
"""What is less is 0 to an axis."""

_ROW, _PLANE, _FOOT, _SIDE = 26, 240, 24, 46


@dataclass(frozen=True, slots=True)
class Axis:
    """From numbers to places, in percent of a chart's width. `low` < `high`; both > 0 if log."""

    low: float
    high: float
    log: bool = False

    def place(self, value: float) -> float:
        """Return where a value stands; at an edge where it lies beyond."""
        if self.log:
            value = max(value, self.low)
            share = log10(value / self.low) / log10(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return round(_EDGE + (100 - 2 * _EDGE) * min(max(share, 0.0), 1.0), 2)

    def ticks(self) -> list[float]:
        """Return three to eight round numbers on the axis."""
        return _log_ticks(self.low, self.high) if self.log else _ticks(self.low, self.high)


def axis_of(values: Iterable[float | None], *, log: bool, around: Sequence[float] = ()) -> Axis:
    """Return an axis that holds values and what is drawn around them. Nothing: 0 to 1."""
    known = [x for x in (*values, *around) if x is not None and (x > _LEAST or not log)]
    if not known:
        return Axis(0.5, 2.0, log) if log else Axis(0.0, 1.0)
    low, high = min(known), max(known)
    if log:
        # Beyond a thousandfold, who lies further out stands at the edge.
        high = max(high * 1.15, low * 1.5)
        return Axis(max(low / 1.15, high / 1e5), high, log)
    low = min(low, 0.0)
    return Axis(low, high * 1.05 if high - low > _LEAST * max(1.0, -low) else low + max(1.0, -low))


class Mark(NamedTuple):
    """A row: its name and its numbers in words, and what is drawn. None is not drawn.

    `standing`: `good`, `bad`, `moved`, `open` or `none`: a shape and a colour.
    """

    name: Sentence
    told: Sentence
    value: float | None
    low: float | None
    high: float | None
    standing: str = "none"
    badge: str = ""


def rows(marks: Sequence[Mark], axis: Axis, unit: str, band: Sequence[float] = ()) -> str:
    """Draw a row for each mark. `band`: one number is a line to be held to, two a range."""
    shapes = [f'<ol class="rows" style="--n:{len(marks)}">']
    for mark in marks:
        badge = badge_of(mark.badge, mark.standing) if mark.badge else ""
        shapes.append(
            f'<li><span class="who">{badge}<span>{html(mark.name)}</span></span>'
            f"{_track(mark, axis, band)}"
            f'<span class="told">{html(mark.told)}</span></li>'
        )
    shapes.append(f'</ol><div class="scale" aria-hidden="true"><span></span>{_scale(axis, unit)}')
    shapes.append("<span></span></div>")
    return "".join(shapes)


def badge_of(word: str, standing: str) -> str:
    """Return a verdict as a shape and its word."""
    return (
        f'<span class="badge {standing}"><svg width="14" height="14" viewBox="-7 -7 14 14" '
        f'aria-hidden="true">{_SHAPES[standing]}</svg>{escape(word)}</span> '
    )


_SHAPES = {
    "good": '<circle r="5"/>',
    "bad": '<path d="M0-6.5 6.5 0 0 6.5-6.5 0Z"/>',
    "moved": '<path d="M0-6 6 5H-6Z"/>',
    "open": '<circle r="4.5" class="hollow"/>',
    "none": '<rect x="-4.5" y="-4.5" width="9" height="9"/>',
}


def _track(mark: Mark, axis: Axis, band: Sequence[float]) -> str:
    y = _ROW // 2
    inside = list(_band(axis, band, _ROW))
    if mark.low is not None or mark.high is not None:
        left = axis.place(axis.low if mark.low is None else mark.low)
        right = axis.place(axis.high if mark.high is None else mark.high)
        inside.append(
            f'<line class="reach" x1="{left}%" x2="{right}%" y1="{y}" y2="{y}"/>'
            + "".join(
                f'<line class="reach" x1="{x}%" x2="{x}%" y1="{y - 5}" y2="{y + 5}"/>'
                for x, end in ((left, mark.low), (right, mark.high))
                if end is not None and axis.low <= end <= axis.high  # beyond it there is no end
            )
        )
    if mark.value is not None:
        x = axis.place(mark.value)
        inside.append(_shape(x, y, mark.standing))
        if not axis.low <= mark.value <= axis.high:
            inside.append(_beyond(x, y, left=mark.value < axis.low))
    return (
        f'<svg class="track" height="{_ROW}" aria-hidden="true" focusable="false">'
        f"{''.join(inside)}</svg>"
    )


def _shape(x: float, y: float, standing: str) -> str:
    return (
        f'<svg class="mark {standing}" x="{x}%" y="{y}" overflow="visible">'
        f"{_SHAPES[standing]}</svg>"
    )


def _beyond(x: float, y: int, *, left: bool) -> str:
    """Draw that a value lies further out than the axis goes: 0 on a logarithmic one."""
    way = "M-8-4-13 0-8 4" if left else "M8-4 13 0 8 4"
    return (
        f'<svg class="mark" x="{x}%" y="{y}" overflow="visible"><path class="beyond" d="{way}"/>'
        "</svg>"
    )


def _band(axis: Axis, band: Sequence[float], height: int) -> Iterator[str]:
    if len(band) == 2:
        left, right = (axis.place(end) for end in band)
        yield (
            f'<rect class="band" x="{left}%" width="{round(right - left, 2)}%" height="{height}"/>'
        )
    for end in band:
        yield f'<line class="held" x1="{axis.place(end)}%" x2="{axis.place(end)}%" y2="{height}"/>'


def _scale(axis: Axis, unit: str) -> str:
    inside = "".join(
        f'<line class="tick" x1="{axis.place(at)}%" x2="{axis.place(at)}%" y2="5"/>'
        f'<text class="tick" x="{axis.place(at)}%" y="18" text-anchor="middle">'
        f"{_tick(at, unit)}</text>"
        for at in axis.ticks()
    )
    return f'<svg class="track" height="22" focusable="false">{inside}</svg>'


class Slice(NamedTuple):
    """A part of a bar: its share in 0 to 1, its words, and which of the patterns it has."""

    share: float
    name: str
    told: Sentence


def bar(slices: Sequence[Slice]) -> str:
    """Draw the parts of a whole, side by side, with a legend in numbers."""
    x, inside, legend = 0.0, [], []
    for i, one in enumerate(slices):
        width = round(100 * one.share, 3)
        inside.append(f'<rect class="part p{i}" x="{round(x, 3)}%" width="{width}%" height="28"/>')
        x += 100 * one.share
        legend.append(
            f'<li><svg width="14" height="14" aria-hidden="true"><rect class="part p{i}" '
            f'width="14" height="14"/></svg>{escape(one.name)}: {html(one.told)}</li>'
        )
    return (
        f'<svg class="bar" height="28" aria-hidden="true" focusable="false">{"".join(inside)}</svg>'
        f'<ul class="legend">{"".join(legend)}</ul>'
    )


class Dot(NamedTuple):
    """A point of a plane with its interval upwards; `x` a number, or a name's place from 0 on."""

    x: float
    value: float | None
    low: float | None
    high: float | None


def over_time(dots: Sequence[Dot], names: Sequence[str], unit: str, held: float | None) -> str:
    """Draw a value a month, with its interval; `held`: a line to be held to."""
    everything = [x for dot in dots for x in (dot.value, dot.low, dot.high)]
    up = axis_of(everything, log=True, around=[] if held is None else [held])
    along = [round(100 * (i + 0.5) / len(names), 2) for i in range(len(names))]
    shapes = [*_upright(up, unit, 0.0, 100.0)]
    if held is not None:
        y = _y(up, held)
        shapes.append(f'<line class="held" x1="0" x2="100%" y1="{y}" y2="{y}"/>')
    known = [(along[int(dot.x)], _y(up, dot.value)) for dot in dots if dot.value is not None]
    shapes += [
        f'<line class="path" x1="{x}%" y1="{y}" x2="{to_x}%" y2="{to_y}"/>'
        for (x, y), (to_x, to_y) in pairwise(known)
    ]
    shapes += [_dot(along[int(dot.x)], dot, up) for dot in dots]
    # A phone has room for every other name of a long series.
    every = ceil(len(names) / 6)
    shapes += [
        f'<text class="tick" x="{x}%" y="{_PLANE + 18}" text-anchor="middle">{escape(name)}</text>'
        for i, (x, name) in enumerate(zip(along, names, strict=True))
        if i % every == 0
    ]
    return _plane(shapes)


class Column(NamedTuple):
    """A bar of a histogram from one place of its axis to another: counts, one above the other."""

    low: float
    high: float
    counts: tuple[float, ...]


def histogram(columns: Sequence[Column], unit: str, held: float) -> str:
    """Draw counts over a logarithmic axis. `held`: the line that all of it is to stay left of."""
    ends = [end for one in columns for end in (one.low, one.high)]
    along = axis_of([*ends, held], log=True)
    most = max(sum(one.counts) for one in columns)
    shapes = []
    for one in columns:
        left, right = along.place(one.low), along.place(one.high)
        below = float(_PLANE)
        for i, count in enumerate(one.counts):
            height = round(count / most * (_PLANE - 12), 2)
            below = round(below - height, 2)
            if height:
                shapes.append(
                    f'<rect class="part s{i}" x="{left}%" width="{round(right - left, 2)}%" '
                    f'y="{below}" height="{height}"/>'
                )
    at = along.place(held)
    shapes.append(f'<line class="held" x1="{at}%" x2="{at}%" y2="{_PLANE}"/>')
    shapes += [
        f'<text class="tick" x="{along.place(at)}%" y="{_PLANE + 18}" text-anchor="middle">'
        f"{_tick(at, unit)}</text>"
        for at in along.ticks()
    ]
    return _plane(shapes)


def legend(names: Sequence[str]) -> str:
    """Say what the parts of a histogram's columns are."""
    return (
        '<ul class="legend">'
        + "".join(
            f'<li><svg width="14" height="14" aria-hidden="true"><rect class="part s{i}" '
            f'width="14" height="14"/></svg>{escape(name)}</li>'
            for i, name in enumerate(names)
        )
        + "</ul>"
    )


class Shade(NamedTuple):
    """Places of a series' days that something was, both included, and what it is called."""

    first: int
    last: int
    name: str


def day_by_day(
    values: Sequence[float | None],
    names: Sequence[str],
    unit: str,
    *,
    shades: Sequence[Shade] = (),
    held: float | None = None,
) -> str:
    """Draw a line over days, shaded where something was; days without a value are left out."""
    along = [round(100 * (i + 0.5) / len(names), 2) for i in range(len(names))]
    up = axis_of([*values, *([] if held is None else [held])], log=False)
    shapes = []
    for shade in shades:
        left, right = 100 * shade.first / len(names), 100 * (shade.last + 1) / len(names)
        shapes.append(
            f'<rect class="shade" x="{left:.2f}%" width="{right - left:.2f}%" height="{_PLANE}"/>'
            f'<text class="tick" x="{left:.2f}%" dx="4" y="14">{escape(shade.name)}</text>'
        )
    shapes += _upright(up, unit, 0.0, 100.0)
    if held is not None:
        y = _y(up, held)
        shapes.append(f'<line class="held" x1="0" x2="100%" y1="{y}" y2="{y}"/>')
    known = [
        (x, _y(up, value)) for x, value in zip(along, values, strict=True) if value is not None
    ]
    shapes += [
        f'<line class="path" x1="{x}%" y1="{y}" x2="{to_x}%" y2="{to_y}"/>'
        for (x, y), (to_x, to_y) in pairwise(known)
    ]
    if len(known) == 1:
        shapes.append(_shape(*known[0], "none"))
    every = ceil(len(names) / 5)
    shapes += [
        f'<text class="tick" x="{x}%" y="{_PLANE + 18}" text-anchor="middle">{escape(name)}</text>'
        for i, (x, name) in enumerate(zip(along, names, strict=True))
        if i % every == every // 2
    ]
    return _plane(shapes)


class Band(NamedTuple):
    """What was known behind a day, from 1 on: a value, and the interval that held it."""

    day: int
    value: float | None
    low: float | None
    high: float | None


_FAR = 4.0
"""A band is drawn so many times as far as it is in the end: what reached further is at the edge."""


def band_by_day(bands: Sequence[Band], unit: str, held: float) -> str:
    """Draw values over days and the band around them. `held`: a line; nothing is a line, too."""
    whole = [x for x in bands if x.low is not None and x.high is not None]
    reach = max((abs(end) for x in whole[-1:] for end in (x.low, x.high) if end), default=0.0)
    far = _FAR * max(reach, abs(held))
    ends = [min(max(x, -far), far) for one in whole for x in (one.low, one.high) if x is not None]
    up = axis_of(ends, log=False, around=[0.0, held])
    last = max(1, *(one.day for one in bands))
    width = round(100 / last, 2)
    shapes = [
        f'<rect class="band" x="{round(100 * (one.day - 1) / last, 2)}%" width="{width}%" '
        f'y="{_y(up, one.high)}" height="{round(_y(up, one.low) - _y(up, one.high), 1)}"/>'
        for one in whole
        if one.low is not None and one.high is not None
    ]
    shapes += _upright(up, unit, 0.0, 100.0)
    for kind, at in (("edge", 0.0), ("held", held)):
        y = _y(up, at)
        shapes.append(f'<line class="{kind}" x1="0" x2="100%" y1="{y}" y2="{y}"/>')
    known = [
        (round(100 * (one.day - 0.5) / last, 2), _y(up, one.value))
        for one in whole
        if one.value is not None
    ]
    shapes += [
        f'<line class="path" x1="{x}%" y1="{y}" x2="{to_x}%" y2="{to_y}"/>'
        for (x, y), (to_x, to_y) in pairwise(known)
    ]
    every = ceil(last / 6)
    shapes += [
        f'<text class="tick" x="{round(100 * (day - 0.5) / last, 2)}%" y="{_PLANE + 18}" '
        f'text-anchor="middle">{day}</text>'
        for day in range(every, last + 1, every)
    ]
    return _plane(shapes)


class Row(NamedTuple):
    """A row of a heat map: its name, what stands before its cells, and cells; None: not known."""

    name: Sentence
    before: Sentence
    cells: Sequence[tuple[float, Sentence] | None]


def heat_map(rows: Sequence[Row], corner: str, before: str, heads: Sequence[Sentence]) -> str:
    """Draw numbers as a table whose cells are the darker the greater they are."""
    most = max((cell[0] for row in rows for cell in row.cells if cell), default=0.0)
    head = "".join(f'<th scope="col">{html(one)}</th>' for one in heads)
    body = "".join(
        f'<tr><th scope="row">{html(row.name)}</th><td>{html(row.before)}</td>'
        + "".join(
            "<td></td>"
            if cell is None
            else f'<td style="--heat:{round(45 * cell[0] / most) if most else 0}%">'
            f"{html(cell[1])}</td>"
            for cell in row.cells
        )
        + "</tr>"
        for row in rows
    )
    return (
        '<div class="wide" tabindex="0" role="group" aria-label="Table of numbers">'
        f'<table class="heat"><thead><tr><th scope="col">{escape(corner)}</th>'
        f'<th scope="col">{escape(before)}</th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def against(dots: Sequence[Dot], unit: str, band: tuple[float, float] | None) -> str:
    """Draw what came over what was said, both on one logarithmic axis, with the line of equality.

    `band`: shares of what was said, between which it holds.
    """
    everything = [x for dot in dots for x in (dot.x, dot.value, dot.high)]
    both = axis_of(everything, log=True)
    shapes: list[str] = []
    for share in (*(band or ()), 1.0):
        ends = (both.low, both.high)
        (x1, x2), (y1, y2) = ([both.place(x) for x in ends], [_y(both, share * x) for x in ends])
        kind = "held" if share == 1.0 else "edge"
        shapes.append(f'<line class="{kind}" x1="{x1}%" y1="{y1}" x2="{x2}%" y2="{y2}"/>')
    shapes += _upright(both, unit, 0.0, 100.0)
    shapes += [
        f'<text class="tick" x="{both.place(at)}%" y="{_PLANE + 18}" text-anchor="middle">'
        f"{_tick(at, unit)}</text>"
        for at in both.ticks()
    ]
    shapes += [_dot(both.place(dot.x), dot, both) for dot in dots]
    return _plane(shapes)


def _plane(shapes: Sequence[str]) -> str:
    return (
        f'<div class="plane"><svg height="{_PLANE + _FOOT}" aria-hidden="true" focusable="false">'
        f'<rect class="ground" width="100%" height="{_PLANE}"/>{"".join(shapes)}</svg></div>'
    )


def _dot(x: float, dot: Dot, up: Axis) -> str:
    shape = ""
    if dot.low is not None and dot.high is not None:
        low, high = _y(up, dot.low), _y(up, dot.high)
        shape = f'<line class="reach" x1="{x}%" x2="{x}%" y1="{low}" y2="{high}"/>'
    if dot.value is None:
        return shape
    return shape + _shape(x, _y(up, dot.value), "none")


def _y(up: Axis, value: float) -> float:
    return round(_PLANE * (1 - up.place(value) / 100), 1)


def _upright(up: Axis, unit: str, left: float, right: float) -> Iterator[str]:
    for at in up.ticks():
        y = _y(up, at)
        yield (
            f'<line class="grid" x1="{left}%" x2="{right}%" y1="{y}" y2="{y}"/>'
            f'<text class="tick" x="-6" y="{y + 4}" text-anchor="end">{_tick(at, unit)}</text>'
        )


def _tick(value: float, unit: str) -> str:
    if unit == "us":
        return f"{value / 1000:g} ms" if value >= 1000 else f"{value:g} µs"
    shown = 100 * value if unit in ("share", "points") else value
    number = f"{shown:.6g}"
    if "e" in number:
        number = f"{shown:,.9f}".rstrip("0").rstrip(".")
    return f"{number}{' %' if unit == 'share' else ''}"


def _ticks(low: float, high: float) -> list[float]:
    step = 10.0 ** floor(log10((high - low) / 3))
    step *= next(x for x in (1, 2, 5, 10) if (high - low) / (step * x) <= 6)
    first = ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    powers = range(floor(log10(low)), ceil(log10(high)) + 1)
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        found = [
            round(step * 10.0**power, 12)
            for power in powers
            for step in steps
            if low <= step * 10.0**power <= high
        ]
        if len(found) >= 3:
            return found[:: ceil(len(found) / 6)]
    return found
