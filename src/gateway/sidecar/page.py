"""What a browser is shown: the last evaluation as a page, its age, and its JSON; and the metrics.

    /                  the report of the last evaluation
    /evaluation.json   the same, as `gateway evaluate --json` prints it
    /metrics           for Prometheus

There is nothing that changes anything, and no script. Groups of customers are named here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any, Protocol

from gateway.errors import GatewayError
from gateway.report.entries import read
from gateway.report.page import report_html

StartResponse = Callable[[str, list[tuple[str, str]]], Any]
Application = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]

_HEADERS = [
    ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'"),
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
]

_MINUTE_S = 60


class Shown(Protocol):
    """What knows the last evaluation."""

    def last(self) -> tuple[Mapping[str, Any], float, bool] | None:
        """Return it, how old it is in seconds, and whether an attempt since then failed."""


class Page:
    """The page of what `shown` knows; None: nobody evaluates."""

    def __init__(self, shown: Shown | None, metrics: Application) -> None:
        self._shown = shown
        self._metrics = metrics
        self._drawn: tuple[Mapping[str, Any], str, str] | None = None

    def __call__(self, environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
        """Answer a request, as WSGI asks."""
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            return self._metrics(environ, start)
        if environ.get("REQUEST_METHOD") not in ("GET", "HEAD"):
            return _answer(start, "405 Method Not Allowed", "text/plain", "Only GET.\n")
        if path not in ("/", "/evaluation.json"):
            return _answer(
                start, "404 Not Found", "text/plain", "Here: /, /evaluation.json, /metrics\n"
            )
        last = None if self._shown is None else self._shown.last()
        if path == "/evaluation.json":
            if last is None:
                return _answer(start, "404 Not Found", "application/json", "null\n")
            return _answer(start, "200 OK", "application/json", json.dumps(last[0]))
        return _answer(start, "200 OK", "text/html", self._html(last))

    def _html(self, last: tuple[Mapping[str, Any], float, bool] | None) -> str:
        if last is None:
            return _nothing_yet(is_asked=self._shown is not None)
        evaluation, age_s, has_failed = last
        above = f"Evaluated {_ago(age_s)}." + (
            " The last attempt since then failed; the log says why." if has_failed else ""
        )
        drawn = self._drawn
        if drawn is None or drawn[0] is not evaluation or drawn[1] != above:
            try:
                page = report_html(read(evaluation, "the last evaluation"), above=above)
            except GatewayError as error:
                page = _page("The last evaluation cannot be shown", str(error))
            drawn = self._drawn = evaluation, above, page
        return drawn[2]


def _ago(age_s: float) -> str:
    minutes = int(age_s // _MINUTE_S)
    if minutes < 1:
        return "less than a minute ago"
    if minutes < 120:
        return f"{minutes} minute{'s' if minutes > 1 else ''} ago"
    return f"{minutes // 60} hours ago"


def _nothing_yet(*, is_asked: bool) -> str:
    if is_asked:
        return _page("Nothing has been evaluated yet", "Reload this page in a minute.")
    hint = "Nobody evaluates here: gateway sidecar --lake DIR --evaluate 15m"
    return _page("There is no evaluation", hint)


def _page(title: str, text: str) -> str:
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/><title>{escape(title)}'
        '</title><meta name="viewport" content="width=device-width, initial-scale=1"/>'
        "<style>:root{color-scheme:light dark}body{font-family:sans-serif;margin:3rem}</style>"
        f"</head><body><main><h1>{escape(title)}</h1><p>{escape(text)}</p>"
        '<p><a href="/metrics">Metrics</a></p></main></body></html>\n'
    )


def _answer(start: StartResponse, status: str, kind: str, text: str) -> Sequence[bytes]:
    content = text.encode()
    length = ("Content-Length", str(len(content)))
    start(status, [("Content-Type", f"{kind}; charset=utf-8"), length, *_HEADERS])
    return [content]
