"""Reliability, drawn: what was said, what came, with the thresholds. SVG by hand."""

from __future__ import annotations

from html import escape
from math import log10

import numpy as np
from numpy.typing import NDArray

from gateway.cli.labelled import Scored
from gateway.decide.calibration import base_rate_odds_ratio, shift_many
from gateway.evaluate.calibration import Bin, equal_mass_bins
from gateway.evaluate.candidates import Candidate, Sample

Floats = NDArray[np.float64]

_SIZE, _LEFT, _TOP, _RIGHT, _BOTTOM = 320, 64, 56, 24, 56
_BINS, _TAIL = 10, 0.05
_DECADES_MIN, _DECADES_MAX = 2, 5
_BLUE, _GREY, _ORANGE = "#0072b2", "#555", "#e69f00"


def reliability_picture(one: Scored, sample: Sample, today: Candidate, chosen: Candidate) -> str:
    """Return an SVG document: a panel for the map as it is, and one for that to take.

    Both axes are logarithmic, for fraud is rare. Bins have as many payments each; the likeliest
    twentieth, where thresholds lie, has as many bins as all others. Where the file was sampled,
    probabilities are moved to the file's own share of fraud.
    """
    panels = [(f"as it is ({one.declared.calibration.kind})", today.p)]
    if chosen is not today:
        panels.append((f"{chosen.kind}, on customers it was not fitted to", chosen.p))
    ratio = base_rate_odds_ratio(one.serving, one.share) if one.is_sampled else 1.0
    thresholds = np.concatenate([b.threshold for b in one.stakes.boundaries()] or [np.empty(0)])
    at = shift_many(thresholds[~np.isnan(thresholds)], ratio)
    region = (float(np.quantile(at, 0.05)), float(np.quantile(at, 0.95))) if len(at) else None
    binned = [
        (title, _bins(shift_many(p, ratio), sample.fraud.astype(np.float64))) for title, p in panels
    ]
    least = min(
        min(value for value in (bin_.expected, bin_.observed) if value > 0)
        for _, bins in binned
        for bin_ in bins
        if bin_.expected > 0
    )
    decades = min(max(int(np.ceil(-log10(least))), _DECADES_MIN), _DECADES_MAX)
    width = len(binned) * (_LEFT + _SIZE + _RIGHT)
    height = _TOP + _SIZE + _BOTTOM
    shapes = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="system-ui, sans-serif" font-size="12">'
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{_LEFT}" y="18" font-weight="bold">{escape(one.generation.name)}: '
        f"{escape(one.arm.name)} on {len(sample.fraud):,} labelled payments</text>",
    ]
    for i, (title, bins) in enumerate(binned):
        x = i * (_LEFT + _SIZE + _RIGHT) + _LEFT
        shapes.append(f'<g transform="translate({x},{_TOP})">')
        shapes += _panel(title, bins, region, decades)
        shapes.append("</g>")
    return "\n".join((*shapes, "</svg>\n"))


def _bins(p: Floats, y: Floats) -> tuple[Bin, ...]:
    tail = p > np.quantile(p, 1.0 - _TAIL)
    parts = [part for part in (~tail, tail) if part.any()]
    return tuple(bin_ for part in parts for bin_ in equal_mass_bins(p[part], y[part], _BINS))


def _panel(
    title: str, bins: tuple[Bin, ...], region: tuple[float, float] | None, decades: int
) -> list[str]:
    def along(p: float) -> float:
        return round((1 + log10(max(p, 10.0**-decades)) / decades) * _SIZE, 1)

    def up(p: float) -> float:
        return round(_SIZE - along(p), 1)

    shapes = [f'<text y="-14">{escape(title)}</text>']
    if region is not None:
        low, high = along(region[0]), along(region[1])
        shapes.append(
            f'<rect x="{low}" width="{max(round(high - low, 1), 1)}" height="{_SIZE}" '
            f'fill="{_ORANGE}" opacity="0.15"/><text x="{low + 3}" y="12" fill="{_GREY}">'
            "thresholds</text>"
        )
    shapes.append(f'<line y1="{_SIZE}" x2="{_SIZE}" y2="0" stroke="{_GREY}" stroke-dasharray="4"/>')
    for power in range(-decades, 1):
        place = along(10.0**power)
        label = f"{10.0**power:.{max(0, -power - 2)}%}"
        shapes.append(
            f'<text x="{place}" y="{_SIZE + 16}" text-anchor="middle">{label}</text>'
            f'<text x="-6" y="{_SIZE - place + 4}" text-anchor="end">{label}</text>'
        )
    for bin_ in bins:
        x = along(bin_.expected)
        told = (
            f"{bin_.n:,} payments: {bin_.expected:.3%} expected, {bin_.observed:.3%} came "
            f"({bin_.low:.3%} to {bin_.high:.3%})"
        )
        shapes.append(
            f'<line x1="{x}" y1="{up(bin_.low)}" x2="{x}" y2="{up(bin_.high)}" stroke="{_BLUE}"/>'
            f'<circle cx="{x}" cy="{up(bin_.observed)}" r="4" fill="{_BLUE}"><title>{told}</title>'
            "</circle>"
        )
    shapes.append(
        f'<path d="M0 0V{_SIZE}H{_SIZE}" fill="none" stroke="#333"/>'
        f'<text y="{_SIZE + 36}" fill="{_GREY}">across: P(fraud) said; up: fraud that came, 95%'
        "</text>"
    )
    return shapes
