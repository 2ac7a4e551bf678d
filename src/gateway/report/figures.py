"""What sections are made of: a drawing with its words, and a table of exact numbers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

from gateway.report.sentence import Sentence, exactly, html


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
    head = "".join(f'<th scope="col">{html((one,))}</th>' for one in heads)
    body = "".join(
        f'<tr><th scope="row">{html(name)}</th>'
        + "".join(f"<td>{html(cell)}</td>" for cell in cells)
        + "</tr>"
        for name, *cells in rows
    )
    return (
        '<div class="wide" tabindex="0" role="group" aria-label="Table of numbers"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
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
