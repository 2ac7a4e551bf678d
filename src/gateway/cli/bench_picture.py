"""A benchmark, drawn: latency percentiles against the budget, and the stand-ins' share below.

One panel a scenario, one column a level. SVG by hand, as the cost lines are; it follows the
reader's light or dark background, and every number can be found again in the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import ceil, floor, log10
from typing import Any

from gateway.cli.terms import microseconds

QUANTILES = (("p50", "p50"), ("p90", "p90"), ("p99", "p99"), ("p99_9", "p99.9"), ("max", "max"))

# One hue from light to dark reads as an order; each mark has its name beside it as well.
_STYLE = """<style>
svg { color: #1b1b1b; background: #ffffff; --bad: #b3261e; --line: #d5d5d5; --bar: #c77700;
      --p50: #7fb2d9; --p90: #5594c4; --p99: #2f74a8; --p99_9: #165584; --max: #08355a; }
@media (prefers-color-scheme: dark) {
  svg { color: #ececec; background: #161616; --bad: #ff8a80; --line: #3a3a3a; --bar: #ffb74d;
        --p50: #2f6f9f; --p90: #4a8bbd; --p99: #72acd8; --p99_9: #a3cdee; --max: #d6ebfb; } }
text { fill: currentColor; } .quiet { opacity: 0.75; }
</style>"""

_COLUMN, _LEFT, _HEIGHT, _BARS, _TOP, _BETWEEN = 140, 64, 220, 56, 66, 90


def bench_picture(found: Sequence[dict[str, Any]]) -> str:
    """Return an SVG document: a panel for each scenario, from what `--json` says of it."""
    widest = max((len(one["levels"]) for one in found), default=1)
    width = max(_LEFT + widest * _COLUMN + 40, 620)
    panel = _TOP + _HEIGHT + _BARS + _BETWEEN
    height = max(1, len(found)) * panel + 16
    says = _sentence(found)
    shapes = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="system-ui, sans-serif" font-size="12" '
        'role="img" aria-labelledby="title says">',
        '<title id="title">Latency against the budget, and stand-ins, by load</title>',
        f'<desc id="says">{escape(says)}</desc>',
        _STYLE,
    ]
    for row, one in enumerate(found):
        shapes.append(f'<g transform="translate({_LEFT},{row * panel + _TOP})">')
        shapes += _panel(one, len(one["levels"]) * _COLUMN)
        shapes.append("</g>")
    return "\n".join((*shapes, "</svg>\n"))


def _sentence(found: Sequence[dict[str, Any]]) -> str:
    """Say in words what the picture shows."""
    parts = []
    for one in found:
        worst = max(one["levels"], key=lambda level: level["stand_in_share"])
        late = sum(level["late"] for level in one["levels"])
        parts.append(
            f"{one['scenario']}: {late:,} late calls; stand-ins at most "
            f"{worst['stand_in_share']:.1%} of the answers, at {worst['level']}."
        )
    return " ".join(parts)


def _panel(found: dict[str, Any], width: int) -> list[str]:
    levels = found["levels"]
    times = [
        *(level["latency_us"][key] for level in levels for key, _ in QUANTILES),
        *(level["budget_us"] for level in levels),
    ]
    positive = [one for one in times if one > 0] or [1.0]
    low, high = floor(log10(min(positive))), max(ceil(log10(max(positive))), 1)
    high = max(high, low + 1)

    def y(us: float) -> float:
        share = (log10(max(us, 10.0**low)) - low) / (high - low)
        return round(_HEIGHT - share * _HEIGHT, 1)

    late = sum(level["late"] for level in levels)
    verdict = f"{late:,} late" + ("" if found["valid"] else "; the run proves nothing")
    shapes = [
        f'<text x="0" y="-40" font-size="15" font-weight="bold">{escape(found["scenario"])}: '
        f"{verdict}</text>",
        '<text x="0" y="-20" class="quiet">latency from the scheduled time, log scale; dashed: '
        "the budget</text>",
    ]
    for power in range(low, high + 1):
        at = y(10.0**power)
        shapes.append(
            f'<line x1="0" y1="{at}" x2="{width}" y2="{at}" stroke="var(--line)"/>'
            f'<text x="-6" y="{at + 4}" text-anchor="end" class="quiet">{_axis(power)}</text>'
        )
    for column, level in enumerate(levels):
        shapes += _column(level, column * _COLUMN, y)
    below = _HEIGHT + 34
    shapes.append(
        f'<text x="-6" y="{below + _BARS}" text-anchor="end" class="quiet">0 %</text>'
        f'<text x="-6" y="{below + 10}" text-anchor="end" class="quiet">100 %</text>'
        f'<text x="0" y="{below + _BARS + 20}" class="quiet">stand-ins, share of the answers'
        "</text>"
    )
    return shapes


def _column(level: dict[str, Any], x: int, y: Any) -> list[str]:
    """Draw one level: a mark a percentile, with its name, and the stand-ins below."""
    budget_y = y(level["budget_us"])
    shapes = [
        f'<line x1="{x}" y1="{budget_y}" x2="{x + _COLUMN}" y2="{budget_y}" '
        'stroke="var(--bad)" stroke-width="1.5" stroke-dasharray="5 4"/>'
    ]
    # Names stand beside their marks, pushed up where they would hide one another.
    named_y = float("inf")
    for key, name in QUANTILES:
        us = level["latency_us"][key]
        at = y(us)
        named_y = min(at, named_y - 12)
        shapes.append(
            f'<rect x="{x + 14}" y="{at - 2}" width="34" height="4" rx="2" fill="var(--{key})">'
            f"<title>{escape(level['level'])} {name}: {us:g} µs</title></rect>"
            f'<path d="M{x + 48} {at}L{x + 54} {named_y}" stroke="var(--line)"/>'
            f'<text x="{x + 57}" y="{named_y + 4}" font-size="11">{name} {microseconds(us)}</text>'
        )
    share = level["stand_in_share"]
    top, tall = _HEIGHT + 34, round(share * _BARS, 1)
    shapes.append(
        f'<text x="{x + 14}" y="{_HEIGHT + 18}" font-weight="bold">{escape(level["level"])}</text>'
        f'<line x1="{x}" y1="{top + _BARS}" x2="{x + _COLUMN}" y2="{top + _BARS}" '
        'stroke="currentColor"/>'
        f'<rect x="{x + 14}" y="{top + _BARS - tall}" width="34" height="{tall}" '
        'fill="var(--bar)"/>'
        f'<text x="{x + 53}" y="{top + _BARS - 4}" font-size="11">{share:.1%}</text>'
    )
    return shapes


def _axis(power: int) -> str:
    return microseconds(10.0**power)
