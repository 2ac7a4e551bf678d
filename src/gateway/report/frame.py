"""What pages beside the report have in common: head, way back, title. No script, no fetch. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape

from gateway.report.sentence import Sentence, html
from gateway.report.style import STYLE

POLICY = "default-src 'none'; style-src 'unsafe-inline'"

BESIDE = {"Report": "/", "Traces": "/traces"}
"""Where every page leads, by name."""


def page(title: str, head: Sentence, quiet: Sentence, parts: Iterable[str]) -> str:
    """Return a page: its title, its headline, a line below it, and what stands in its main part."""
    below = f'<p class="quiet">{html(quiet)}</p>' if quiet else ""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"/>'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>"
        '<body class="look">'
        '<a class="skip" href="#main">Skip to the content</a><header>'
        f"{links('Pages', BESIDE)}<h1>{html(head)}</h1>{below}</header>"
        f'<main id="main">{"".join(parts)}</main></body></html>\n'
    )


def links(label: str, to: Mapping[str, str], current: str = "") -> str:
    """Return links as a navigation; `current`: the name of where one is."""
    entries = "".join(
        f'<li><a href="{escape(at)}"{_here(name == current)}>{escape(name)}</a></li>'
        for name, at in to.items()
    )
    return f'<nav aria-label="{escape(label)}"><ul>{entries}</ul></nav>'


def _here(is_here: bool) -> str:
    return ' aria-current="page"' if is_here else ""


def paragraphs(sentences: Iterable[Sentence]) -> str:
    """Return sentences as one paragraph; nothing for none."""
    said = " ".join(html(one) for one in sentences)
    return f"<p>{said}</p>" if said else ""
