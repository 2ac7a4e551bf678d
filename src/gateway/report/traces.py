"""Calls as a page of small waterfalls, each linked to its decision. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import urlencode

from gateway.report.charts import Axis
from gateway.report.frame import links, page, paragraphs
from gateway.report.reasons import Told, share
from gateway.report.sentence import Link, Name, Sentence, count, html
from gateway.report.waterfall import duration, legend, strip
from gateway.report.words import spoken

KINDS = {
    "slow": "More than half of their budget was used",
    "stood-in": "Calls that the model did not decide",
    "errors": "Calls that were refused, late, or whose reply nobody knows of",
    "all": "Every call",
}
_NEAR = 0.4
"""Where no call used more of its budget, bars are drawn larger."""

SPANS = ("15m", "1h", "1d", "7d")


def traces_html(told: Told, *, kind: str, last: str, product: str) -> str:
    """Return the page of calls. `told`: `count` in all, and some `calls` in their order."""
    head = f"{kind.capitalize().replace('-', ' ')} calls of the last {last}"
    quiet: Sentence = (KINDS[kind],)
    if product:
        quiet = (*quiet, ", of ", Name(product))
    return page(
        "Traces", (head.replace("All calls", "Calls"),), quiet, _parts(told, kind, last, product)
    )


def _parts(told: Told, kind: str, last: str, product: str) -> Iterator[str]:
    def to(**changes: str) -> str:
        asked = {"kind": kind, "last": last, "product": product, **changes}
        return f"/traces?{urlencode({name: one for name, one in asked.items() if one})}"

    yield links("Kinds of calls", {one: to(kind=one) for one in KINDS}, kind)
    yield links("Spans of time", {f"last {one}": to(last=one) for one in SPANS}, f"last {last}")
    calls = told["calls"]
    order = "the slowest first" if kind == "slow" else "the newest first"
    if not calls:
        yield paragraphs([("There is none.",)])
    else:
        many: Sentence = (count(told["count"]), " in all")
        if told["count"] > len(calls):
            many = (*many, "; here are ", count(len(calls)))
        axis = _axis(calls)
        says: Sentence = (*many, f", {order}. Bars are the stages of each call, ")
        if axis.high >= 1.0:
            says = (*says, "the dashed line is its deadline.")
        else:
            says = (*says, "up to ", share(axis.high), " of its budget.")
        yield paragraphs([says])
        several = len({one["product"] for one in calls}) > 1
        yield f'<figure>{legend(calls)}<ol class="rows calls">'
        for one in calls:
            yield _row(one, axis, with_product=several)
        yield "</ol></figure>"
    if told["damaged"]:
        yield "<p>The journal has damaged stretches: <code>gateway journal verify</code>.</p>"


def _axis(calls: Sequence[Mapping[str, Any]]) -> Axis:
    """Return an axis of shares of the budget: to the deadline, where any call came near it."""
    most = max(_share(one) for one in calls)
    return Axis(0.0, max(1.0, most) if most > _NEAR else max(most, 1e-6))


def _share(call: Mapping[str, Any]) -> float:
    return float(call["used_us"] / call["budget_us"]) if call["budget_us"] else 0.0


def _row(call: Mapping[str, Any], axis: Axis, *, with_product: bool) -> str:
    when = (call["arrived"] or "")[5:23].replace("T", " ")
    what = spoken((call.get("action") or "refused").lower())
    of = f" of {duration(call['budget_us'])}" if call["budget_us"] else ""
    notes = [f"{duration(call['used_us'])}{of}"]
    if call["stood_in"]:
        notes.append(f"stood in: {spoken(call['stand_in'].lower())}")
    if call["error"]:
        notes.append(spoken(call["error"]))
    product: Sentence = (", ", Name(call["product"])) if with_product and call["product"] else ()
    who = html((Link(call["id"], f"/decisions/{call['id']}"),))
    below = html((Name(when), f", {what}", *product))
    return (
        f'<li><span class="who"><span>{who}<br/><span class="quiet">{below}</span></span></span>'
        f"{strip(call, axis)}"
        f'<span class="told">{escape("; ".join(notes))}</span></li>'
    )
