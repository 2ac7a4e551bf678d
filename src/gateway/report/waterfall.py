"""A call's stages as inline SVG: what `gateway trace ID` draws, for a page. Pure.

Stages stand over the time that the call took; below them that time stands against the budget.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from gateway.report.charts import Axis

COLOURS = {"admit": 2, "wait": 1, "encode": 1, "infer": 0, "decide": 3, "record": 4, "reply": 5}
"""The pattern of each stage: the longest stages have the strongest."""

_HEIGHT, _SMALL = 22, 16


def waterfall(call: Mapping[str, Any]) -> str:
    """Draw a call, as `gateway trace ID --json` has it."""
    used_us, budget_us = max(call["used_us"], 1e-3), call["budget_us"]
    axis = Axis(0.0, used_us)
    found = ['<ol class="rows stages">']
    for one in call["stages"]:
        inside = _bar(axis, one["start_us"], one["end_us"], one["name"], _HEIGHT)
        if budget_us is not None and 0 < budget_us < used_us:
            inside += _deadline(axis, budget_us, _HEIGHT)
        left = "" if one["slack_us"] is None else f"; {_left(one['slack_us'])}"
        took = duration(one["end_us"] - one["start_us"])
        found.append(_row(one["name"], inside, f"{took}{left}"))
    if budget_us is not None and budget_us > 0:
        whole = Axis(0.0, max(used_us, budget_us))
        inside = _bar(whole, 0.0, used_us, "budget", _HEIGHT) + _deadline(whole, budget_us, _HEIGHT)
        told = f"{duration(used_us)} of {duration(budget_us)}, {used_us / budget_us:.0%}"
        found.append(_row("budget", inside, told))
    found.append("</ol>")
    return "".join(found)


def strip(call: Mapping[str, Any], axis: Axis) -> str:
    """Draw a call's stages in one row over shares of its budget."""
    budget_us = call["budget_us"] or max(call["used_us"], 1e-3)
    inside = "".join(
        _bar(axis, one["start_us"] / budget_us, one["end_us"] / budget_us, one["name"], _SMALL)
        for one in call["stages"]
    )
    reaches = _deadline(axis, 1.0, _SMALL) if axis.high >= 1.0 else ""
    return _track(inside + reaches, _SMALL)


def legend(calls: Sequence[Mapping[str, Any]]) -> str:
    """Name the stages that are drawn."""
    there = {one["name"] for call in calls for one in call["stages"]}
    entries = "".join(
        f'<li><svg width="14" height="14" aria-hidden="true"><rect class="part p{place}" '
        f'width="14" height="14"/></svg>{escape(name)}</li>'
        for name, place in COLOURS.items()
        if name in there
    )
    return f'<ul class="legend">{entries}</ul>'


def nearby(call: Mapping[str, Any]) -> Iterator[str]:
    """Say what a call's worker did around it: pauses, and calls that it shed."""
    for one in call["nearby"]:
        start_us = one["start_us"]
        when = f"{duration(abs(start_us))} {'before' if start_us < 0 else 'after'} it arrived"
        if one["kind"] == "pause":
            yield f"A pause of {duration(one['duration_us'])} began {when}."
        else:
            yield f"{one['count']:,} calls were shed unread, the first {when}."


def duration(us: float) -> str:
    """Say a duration with three digits."""
    if us < 1000:
        return f"{us:.0f} µs"
    return f"{us / 1000:.3g} ms" if us < 999_500 else f"{us / 1e6:.3g} s"


def _left(slack_us: float) -> str:
    return f"{duration(-slack_us)} over" if slack_us < 0 else f"{duration(slack_us)} left"


def _row(name: str, inside: str, told: str) -> str:
    return (
        f'<li><span class="who">{escape(name)}</span>{_track(inside, _HEIGHT)}'
        f'<span class="told">{escape(told)}</span></li>'
    )


def _track(inside: str, height: int) -> str:
    return (
        f'<svg class="track" height="{height}" aria-hidden="true" focusable="false">{inside}</svg>'
    )


def _bar(axis: Axis, start: float, end: float, name: str, height: int) -> str:
    left, right = axis.place(start), axis.place(end)
    # What took any time can be seen.
    width = max(round(right - left, 2), 0.4)
    return (
        f'<rect class="part p{COLOURS.get(name, 2)}" x="{left}%" width="{width}%" y="3" '
        f'height="{height - 6}"/>'
    )


def _deadline(axis: Axis, at: float, height: int) -> str:
    x = axis.place(at)
    return f'<line class="held" x1="{x}%" x2="{x}%" y2="{height}"/>'
