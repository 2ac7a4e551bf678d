"""What sections are made of: a drawing with its words, and a table of exact numbers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from html import escape

from gateway.report.sentence import Sentence, exactly, html

NUMBERS = "Table of numbers"
"""What who listens is told of a table below a figure."""


def figure_of(caption: Sentence, drawing: str) -> str:
    """Return a drawing under the words that say what it shows; of no drawing the words alone."""
    if not drawing:
        return f"<p>{html(caption)}</p>"
    return f"<figure><figcaption>{html(caption)}</figcaption>{drawing}</figure>"


def table_of(heads: Sequence[str], rows: Sequence[Sequence[Sentence]]) -> str:
    """Return a table that opens when asked, numbers with all their digits; the first cell of a row
    is its name."""
    if not rows:
        return ""
    table = bare_table(heads, [[exactly(cell) for cell in row] for row in rows])
    return f"<details><summary>All numbers</summary>{table}</details>"


def bare_table(heads: Sequence[str], rows: Sequence[Sequence[Sentence]]) -> str:
    """Return a table that is open."""
    return table(NUMBERS, heads, [[html(cell) for cell in row] for row in rows])


def table(label: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of HTML cells that scrolls by itself; each row's first cell names it."""
    heads = "".join(f'<th scope="col">{escape(one)}</th>' for one in head)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{one}</td>" for one in row[1:])}</tr>'
        for row in rows
    )
    return (
        f'<div class="wide" tabindex="0" role="group" aria-label="{escape(label)}"><table>'
        f"<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def days_between(first: str, last: str) -> list[str]:
    """Return all days from one to another; none where either is no day, or they are too many."""
    try:
        begin, end = date.fromisoformat(first), date.fromisoformat(last)
    except ValueError:
        return []
    n = (end - begin).days + 1
    return [(begin + timedelta(days=i)).isoformat() for i in range(n)] if n <= _MOST_DAYS else []


_MOST_DAYS = 1000
