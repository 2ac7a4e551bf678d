"""The cost lines of products, drawn: expected cost over P(fraud), and what is cheapest where.

One panel a category at one amount. SVG by hand: a few lines and bands, no dependency, and
every number can be found again in the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from gateway.decide import CostClass, lower_envelope
from gateway.model import Generation
from gateway.product import Action, minor_per_major

AMOUNT = 100
"""Major units of the payment that is drawn."""

P_MAX = 0.5
"""Thresholds of payments lie low: the right half would be empty."""

# Okabe and Ito's palette, told apart by the colour-blind too.
_COLOUR = {
    Action.APPROVE: "#009e73",
    Action.STEP_UP: "#0072b2",
    Action.REVIEW: "#e69f00",
    Action.DECLINE: "#d55e00",
}
_WIDTH, _HEIGHT, _LEFT, _TOP = 320, 200, 52, 46


def cost_picture(generations: Sequence[Generation]) -> str:
    """Return an SVG document: a row a product, a panel a category."""
    panels: list[str] = []
    columns = max(len(_first_classes(g.policy.classes)) for g in generations)
    for row, generation in enumerate(generations):
        for column, cost_class in enumerate(_first_classes(generation.policy.classes)):
            x, y = column * (_WIDTH + _LEFT + 16), row * (_HEIGHT + _TOP + 56)
            panels.append(f'<g transform="translate({x + _LEFT},{y + _TOP})">')
            panels += _panel(generation, cost_class)
            panels.append("</g>")
    width = columns * (_WIDTH + _LEFT + 16)
    height = len(generations) * (_HEIGHT + _TOP + 56)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="system-ui, sans-serif" font-size="12">'
        '<rect width="100%" height="100%" fill="white"/>'
    )
    return "\n".join((head, *panels, "</svg>\n"))


def _panel(generation: Generation, cost_class: CostClass) -> list[str]:
    currency = generation.product.costs.currency
    unit = minor_per_major(currency)
    amount = AMOUNT * unit
    intervals = lower_envelope(cost_class.lines, amount)
    cheapest = max(
        min(line.cost(p, amount) for line in cost_class.lines)
        for p in [P_MAX * i / 50 for i in range(51)]
    )
    top = max(cheapest * 2.2, 1.0)

    def x(p: float) -> float:
        return round(p / P_MAX * _WIDTH, 1)

    def y(cost: float) -> float:
        return round(_HEIGHT - cost / top * _HEIGHT, 1)

    name = cost_class.name or "any other category"
    harm = f", harm x{cost_class.harm:g}" if cost_class.harm > 1 else ""
    shapes = [
        f'<text x="0" y="-26" font-weight="bold">{escape(generation.name)}: {escape(name)}'
        f"{harm}</text>",
        f'<text x="0" y="-9" fill="#555">expected cost of a payment of {AMOUNT} {currency}</text>',
    ]
    for interval in intervals:
        low, high = x(min(interval.low, P_MAX)), x(min(interval.high, P_MAX))
        shapes.append(
            f'<rect x="{low}" y="0" width="{round(high - low, 1)}" height="{_HEIGHT}" '
            f'fill="{_COLOUR[interval.action]}" opacity="0.12"/>'
        )
        if 0.0 < interval.low < P_MAX:
            # Near the right edge the figure stands left of its line.
            place = (low - 3, "end") if low > _WIDTH - 40 else (low + 3, "start")
            shapes.append(
                f'<line x1="{low}" y1="0" x2="{low}" y2="{_HEIGHT}" stroke="#555" '
                f'stroke-dasharray="3 3"/><text x="{place[0]}" y="{_HEIGHT - 5}" '
                f'text-anchor="{place[1]}" fill="#555">{interval.low:.1%}</text>'
            )
    shapes.append(f'<svg width="{_WIDTH}" height="{_HEIGHT}" overflow="hidden">')
    for line in cost_class.lines:
        shapes.append(
            f'<line x1="0" y1="{y(line.cost(0.0, amount))}" x2="{_WIDTH}" '
            f'y2="{y(line.cost(P_MAX, amount))}" stroke="{_COLOUR[line.action]}" '
            'stroke-width="2"/>'
        )
    shapes.append("</svg>")
    shapes.append(
        f'<path d="M0 0V{_HEIGHT}H{_WIDTH}" fill="none" stroke="#333"/>'
        f'<text x="-6" y="10" text-anchor="end">{top / unit:,.0f}</text>'
        f'<text x="-6" y="{_HEIGHT}" text-anchor="end">0</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT + 16}" text-anchor="end">P(fraud) {P_MAX:.0%}</text>'
    )
    for i, line in enumerate(cost_class.lines):
        shapes.append(
            f'<text x="{i * 62}" y="{_HEIGHT + 34}" fill="{_COLOUR[line.action]}" '
            f'font-weight="bold">{line.action.name.lower().replace("_", " ")}</text>'
        )
    return shapes


def _first_classes(classes: Sequence[CostClass]) -> list[CostClass]:
    """Return each category's class at the amount that is drawn."""
    first: list[CostClass] = []
    for cost_class in classes:
        if not first or first[-1].name != cost_class.name:
            first.append(cost_class)
    return first
