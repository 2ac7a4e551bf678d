"""Realised cost over the threshold, drawn: one panel a boundary. SVG by hand."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import exp, isnan, log

import numpy as np

from gateway.cli.labelled import Scored
from gateway.evaluate.thresholds import SHIFTS, Threshold
from gateway.product import minor_per_major

_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 320, 200, 72, 72, 24, 56
_REACH = 2.5
"""Of the log-odds to either side: farther away nobody would put a threshold."""

_BLUE, _GREY, _ORANGE = "#0072b2", "#555", "#d55e00"


def threshold_picture(one: Scored, boundaries: Sequence[Threshold]) -> str:
    """Return an SVG document: cost per 1,000 decisions against that of the plug-in threshold.

    The band is where 95% of the draws lie.
    """
    width = max(len(boundaries), 1) * (_LEFT + _WIDTH + _RIGHT)
    height = _TOP + _HEIGHT + _BOTTOM
    shapes = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="system-ui, sans-serif" font-size="12">'
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{_LEFT}" y="18" font-weight="bold">{escape(one.generation.name)}: '
        f"{escape(one.arm.name)}, realised cost over the threshold</text>",
    ]
    currency = one.generation.product.costs.currency
    for i, boundary in enumerate(boundaries):
        x = i * (_LEFT + _WIDTH + _RIGHT) + _LEFT
        shapes.append(f'<g transform="translate({x},{_TOP})">')
        shapes += _panel(boundary, currency, minor_per_major(currency))
        shapes.append("</g>")
    return "\n".join((*shapes, "</svg>\n"))


def _panel(one: Threshold, currency: str, unit: int) -> list[str]:
    shown = np.abs(SHIFTS) <= _REACH
    # A shift of +δ is a threshold whose log-odds are lower by δ.
    moved = -SHIFTS[shown][::-1]
    cost, low, high = (part[shown][::-1] / unit for part in one.curve)
    bottom, top = min(float(low.min()), 0.0), max(float(np.quantile(high, 0.9)), 0.0)
    span = (top - bottom) or 1.0
    middle = log(one.plug_in / (1 - one.plug_in))

    def x(shift: float) -> float:
        return round((shift + _REACH) / (2 * _REACH) * _WIDTH, 1)

    def y(value: float) -> float:
        return round(_HEIGHT - (value - bottom) / span * _HEIGHT, 1)

    def along(values: Sequence[float]) -> str:
        pairs = zip(moved.tolist(), values, strict=True)
        return " ".join(f"{x(shift)},{y(value)}" for shift, value in pairs)

    names = f"{one.lower.name} to {one.upper.name}".lower().replace("_", " ")
    band = [*along(low.tolist()).split(), *reversed(along(high.tolist()).split())]
    best = x(-one.shift.value)
    is_sure = not isnan(one.shift.error)
    sure = f"95%: {one.empirical.low:.2%} to {one.empirical.high:.2%}; " if is_sure else ""
    shapes = [
        f'<text y="-34" font-weight="bold">{names}</text>',
        f'<text y="-18" fill="{_GREY}">by the costs {one.plug_in:.2%}, by the labels '
        f"{one.empirical.value:.2%}</text>",
        f'<text y="-4" fill="{_GREY}">{sure}{one.verdict}</text>',
        f'<svg width="{_WIDTH}" height="{_HEIGHT}" overflow="hidden">'
        f'<polygon points="{" ".join(band)}" fill="{_BLUE}" opacity="0.15"/>'
        f'<polyline points="{along(cost.tolist())}" fill="none" stroke="{_BLUE}" '
        'stroke-width="2"/></svg>',
        f'<line y1="{y(0)}" x2="{_WIDTH}" y2="{y(0)}" stroke="{_GREY}" stroke-dasharray="2 4"/>',
        f'<line x1="{x(0)}" x2="{x(0)}" y2="{_HEIGHT}" stroke="{_GREY}" stroke-dasharray="4"/>',
        f'<line x1="{best}" x2="{best}" y2="{_HEIGHT}" stroke="{_ORANGE}"/>',
        f'<path d="M0 0V{_HEIGHT}H{_WIDTH}" fill="none" stroke="#333"/>',
        f'<text x="-6" y="10" text-anchor="end">{top:,.2f}</text>',
        f'<text x="-6" y="{_HEIGHT}" text-anchor="end">{bottom:,.2f}</text>',
        f'<text y="{_HEIGHT + 36}" fill="{_GREY}">across: threshold on P(fraud); up: {currency} '
        "per 1,000 decisions</text>",
    ]
    for shift in (-2.0, -1.0, 0.0, 1.0, 2.0):
        p = 1 / (1 + exp(-(middle + shift)))
        shapes.append(
            f'<text x="{x(shift)}" y="{_HEIGHT + 16}" text-anchor="middle">{p:.2%}</text>'
        )
    return shapes
