"""The decisions that flip, drawn: a row for each pair of actions, a column for each amount band.

SVG by hand, as the cost lines are; it follows the reader's light or dark background, and every
number can be found again in the file.
"""

from __future__ import annotations

from html import escape
from math import sqrt

from gateway.cli.whatif_answer import verdict
from gateway.cli.whatif_replay import Replay
from gateway.product import Action

# Okabe and Ito's palette; the arrow and its word say the direction as well.
_STYLE = """<style>
svg { color: #1b1b1b; background: #ffffff; --milder: #009e73; --severer: #d55e00; --line: #d5d5d5; }
@media (prefers-color-scheme: dark) {
  svg { color: #ececec; background: #161616; --milder: #35c79b; --severer: #ff8a4d;
        --line: #3a3a3a; } }
text { fill: currentColor; } .quiet { opacity: 0.75; }
</style>"""

_LEFT, _TOP, _CELL, _ROW, _RADIUS = 190, 96, 130, 62, 24


def flips_picture(replay: Replay) -> str:
    """Return an SVG document. A circle's area is the number of decisions."""
    found, bands = replay.comparison, replay.band_names
    pairs = sorted(found.cross, key=lambda pair: -sum(found.cross[pair]))
    width = _LEFT + len(bands) * _CELL + 110
    height = _TOP + max(len(pairs), 1) * _ROW + 40
    said = escape(verdict(replay))
    shapes = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="system-ui, sans-serif" font-size="12" '
        'role="img" aria-labelledby="title says">',
        f'<title id="title">{escape(replay.new.name)}: decisions that flip</title>',
        f'<desc id="says">{said}</desc>',
        _STYLE,
        f'<text x="16" y="26" font-size="15" font-weight="bold">{escape(replay.new.name)}: '
        f"{found.flipped:,} of {found.decisions:,} decisions flip</text>",
        f'<text x="16" y="46" class="quiet">by what is answered, and by amount in '
        f"{escape(replay.currency)}; below each, of the decisions in its band</text>",
    ]
    for column, name in enumerate(bands):
        x = _LEFT + column * _CELL + _CELL // 2
        shapes.append(f'<text x="{x}" y="{_TOP - 16}" text-anchor="middle">{escape(name)}</text>')
    shapes.append(f'<text x="{width - 16}" y="{_TOP - 16}" text-anchor="end">together</text>')
    if not pairs:
        shapes.append(f'<text x="16" y="{_TOP + 24}">No decision flips.</text>')
    most = max((count for counts in found.cross.values() for count in counts), default=1)
    totals = {group.name: group.decisions for group in found.groups["amount"]}
    for row, pair in enumerate(pairs):
        shapes += _row(pair, found.cross[pair], row, [totals.get(name, 0) for name in bands], most)
    return "\n".join((*shapes, "</svg>\n"))


def _row(
    pair: tuple[Action, Action], counts: tuple[int, ...], row: int, totals: list[int], most: int
) -> list[str]:
    old, new = (action.spelling.replace("_", " ") for action in pair)
    way = "milder" if pair[1] < pair[0] else "severer"
    y, end = _TOP + row * _ROW + _ROW // 2, _LEFT + len(counts) * _CELL + 94
    shapes = [
        f'<line x1="16" y1="{_TOP + row * _ROW}" x2="{end}" y2="{_TOP + row * _ROW}" '
        'stroke="var(--line)"/>',
        f'<text x="16" y="{y}" font-weight="bold">{old} → {new}</text>',
        f'<text x="16" y="{y + 15}" class="quiet">{way}</text>',
        f'<text x="{end}" y="{y + 4}" text-anchor="end">{sum(counts):,}</text>',
    ]
    for column, (count, total) in enumerate(zip(counts, totals, strict=True)):
        if not count:
            continue
        x = _LEFT + column * _CELL + 30
        radius = max(1.5, round(_RADIUS * sqrt(count / most), 1))
        share = f"{count / total:.2%}" if total else ""
        shapes.append(
            f'<circle cx="{x}" cy="{y}" r="{radius}" fill="var(--{way})">'
            f"<title>{old} → {new}: {count:,}</title></circle>"
            f'<text x="{x + _RADIUS + 5}" y="{y}">{count:,}</text>'
            f'<text x="{x + _RADIUS + 5}" y="{y + 14}" font-size="11" class="quiet">{share}</text>'
        )
    return shapes
