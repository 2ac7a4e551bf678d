"""What a browser is shown: the last evaluation, the decisions behind its figures, and their traces.

    /                  the report of the last evaluation
    /decisions?…       the decisions behind a figure: at=/goals/3, or product, metric, from, to, by
    /decisions/<id>    one decision: why, where its time went, what came of it
    /traces?…          calls that were slow, stood in or failed, with small waterfalls
    /evaluation.json   the last evaluation, as `gateway evaluate --json` prints it
    /metrics           for Prometheus

There is nothing that changes anything, and no script. Groups of customers are named on the report
and in what is asked for; of a decision neither group nor subject is shown, nor what a caller sent.
"""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple, Protocol
from urllib.parse import parse_qsl, urlencode

from gateway.errors import GatewayError, JournalError, LakeError, UsageError
from gateway.report.decision import decision_html
from gateway.report.decisions import decisions_html
from gateway.report.entries import Evaluated, Line, read
from gateway.report.frame import BESIDE, POLICY, page
from gateway.report.page import report_html
from gateway.report.traces import KINDS, traces_html

StartResponse = Callable[[str, list[tuple[str, str]]], Any]
Application = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]

_HEADERS = [
    ("Content-Security-Policy", POLICY),
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
]

_MINUTE_S = 60
_HELD = 3
"""So many evaluations are known: a page that was opened before the last one still leads on."""

_HERE = "Here: /, /decisions, /traces, /evaluation.json, /metrics\n"
_DECISION = re.compile(r"/decisions/([0-9a-f]{16}-[0-9a-f]{2}-[0-9a-f]{12})", re.ASCII)
_POINTER = re.compile(r"(/[a-z]+/\d{1,9})(?:/.*)?", re.ASCII)
_LAST = re.compile(r"\d{1,6}(?:\.\d{1,3})?[smhd]", re.ASCII)
_FIGURE = ("product", "metric", "basis", "from", "to")
_OF_PAGE = ("as_of", "kind")
_MOST_ASKED = 4096


class Shown(Protocol):
    """What knows the last evaluation."""

    def last(self) -> tuple[Mapping[str, Any], float, bool] | None:
        """Return it, how old it is in seconds, and whether an attempt since then failed."""


class Looks(Protocol):
    """What looks things up, as JSON. Each raises GatewayError."""

    def decision(self, decision_id: str) -> Mapping[str, Any]:
        """Return a decision with what came of it."""

    def decisions(self, figure: Mapping[str, Any], as_of: str | None) -> Mapping[str, Any]:
        """Return the decisions behind a figure, an entry of an evaluation, as known at a time."""

    def traces(self, kind: str, last: str, product: str) -> Mapping[str, Any]:
        """Return calls of the last while, and how many there are."""


class _Answer(NamedTuple):
    status: str
    kind: str
    text: str


class Page:
    """The page of what `shown` knows (None: nobody evaluates) and `looks` finds (None: nothing)."""

    def __init__(
        self, shown: Shown | None, metrics: Application, looks: Looks | None = None
    ) -> None:
        self._shown = shown
        self._metrics = metrics
        self._looks = looks
        self._drawn: tuple[Mapping[str, Any], str, str] | None = None
        self._lock = threading.Lock()
        self._held: OrderedDict[str, Mapping[str, Any]] = OrderedDict()

    def __call__(self, environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
        """Answer a request, as WSGI asks."""
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            return self._metrics(environ, start)
        if environ.get("REQUEST_METHOD") not in ("GET", "HEAD"):
            return _sent(start, _Answer("405 Method Not Allowed", "text/plain", "Only GET.\n"))
        return _sent(start, self._answer(path, environ.get("QUERY_STRING", "")))

    def _answer(self, path: str, query: str) -> _Answer:
        last = None if self._shown is None else self._shown.last()
        if last is not None:
            self._hold(last[0])
        if path == "/":
            return _Answer("200 OK", "text/html", self._html(last))
        if path == "/evaluation.json":
            if last is None:
                return _Answer("404 Not Found", "application/json", "null\n")
            return _Answer("200 OK", "application/json", json.dumps(last[0]))
        found = _DECISION.fullmatch(path)
        if found is None and path not in ("/decisions", "/traces"):
            return _Answer("404 Not Found", "text/plain", _HERE)
        try:
            if self._looks is None:
                raise UsageError("nobody looks anything up here", hint="gateway sidecar --lake DIR")
            if found is not None:
                return _shown(decision_html(self._looks.decision(found[1])))
            asked = _asked(query)
            if path == "/traces":
                return _shown(_traces(self._looks, asked))
            return _shown(self._decisions(self._looks, asked))
        except UsageError as error:
            return _failed("400 Bad Request", error)
        except (LakeError, JournalError) as error:
            is_one = found is not None
            return _failed("404 Not Found" if is_one else "503 Service Unavailable", error)
        except GatewayError as error:
            return _failed("503 Service Unavailable", error)

    def _html(self, last: tuple[Mapping[str, Any], float, bool] | None) -> str:
        if last is None:
            return _nothing_yet(is_asked=self._shown is not None)
        evaluation, age_s, has_failed = last
        above = f"Evaluated {_ago(age_s)}." + (
            " The last attempt since then failed; the log says why." if has_failed else ""
        )
        drawn = self._drawn
        if drawn is None or drawn[0] is not evaluation or drawn[1] != above:
            drawn = self._drawn = evaluation, above, self._report(evaluation, above)
        return drawn[2]

    def _report(self, evaluation: Mapping[str, Any], above: str) -> str:
        as_of = str(evaluation.get("as_of"))

        def behind(pointer: str) -> str:
            # With its time: the next evaluation may have another figure there.
            return f"/decisions?{urlencode({'at': pointer, 'as_of': as_of}, safe='/:')}"

        try:
            return report_html(
                read(evaluation, "the last evaluation"),
                above=above,
                behind=None if self._looks is None else behind,
                beside={} if self._looks is None else BESIDE,
            )
        except GatewayError as error:
            return _told("The last evaluation cannot be shown", str(error))

    def _hold(self, evaluation: Mapping[str, Any]) -> None:
        with self._lock:
            self._held[str(evaluation.get("as_of"))] = evaluation
            while len(self._held) > _HELD:
                self._held.popitem(last=False)

    def _decisions(self, looks: Looks, asked: Mapping[str, str]) -> str:
        """Return the page of the decisions behind a figure. Raises GatewayError."""
        if "at" in asked:
            evaluation, line = self._figure(asked["at"], asked.get("as_of"))
            section, place = line.at.strip("/").split("/")
            figure = evaluation[section][int(place)]
            return decisions_html(looks.decisions(figure, str(evaluation["as_of"])), line)
        missing = [name for name in _FIGURE if name != "basis" and not asked.get(name)]
        if missing:
            raise UsageError(
                f"no figure is named: {', '.join(missing)} missing",
                hint="Follow a figure of the report, or ask for ?product=…&metric=…&from=…&to=…",
            )
        by = {name: one for name, one in asked.items() if name not in (*_FIGURE, *_OF_PAGE)}
        figure = {name: asked.get(name, "") for name in _FIGURE}
        if asked.get("kind"):
            figure["kind"] = asked["kind"]
        return decisions_html(looks.decisions({**figure, "by": by}, asked.get("as_of")))

    def _figure(self, pointer: str, as_of: str | None) -> tuple[Mapping[str, Any], Line]:
        """Return an evaluation, and the figure that stands at a place of it. Raises UsageError."""
        with self._lock:
            held = dict(self._held)
        if not held:
            raise UsageError("nothing has been evaluated yet", hint="Try again in a minute.")
        evaluation = held.get(next(reversed(held)) if as_of is None else as_of)
        if evaluation is None:
            raise UsageError(
                "that evaluation is shown no longer", hint="Go back to the report, and reload it."
            )
        match = _POINTER.fullmatch(pointer)
        found: Evaluated = read(evaluation, "the evaluation")
        for line in found.lines:
            if match is not None and line.at == match[1]:
                return evaluation, line
        raise UsageError("no figure stands there", hint="Follow a figure of the report.")


def _asked(query: str) -> dict[str, str]:
    """Return what is asked for, by name. Raises UsageError."""
    if len(query) > _MOST_ASKED:
        raise UsageError("too much is asked for")
    try:
        return dict(parse_qsl(query, max_num_fields=32))
    except ValueError:
        raise UsageError("too much is asked for") from None


def _traces(looks: Looks, asked: Mapping[str, str]) -> str:
    kind, last = asked.get("kind", "slow"), asked.get("last", "1h")
    product = asked.get("product", "")
    if kind not in KINDS:
        raise UsageError("there is no such kind", hint=f"One of {', '.join(KINDS)}.")
    if not _LAST.fullmatch(last):
        raise UsageError("that is no span of time", hint="Such as last=15m or last=1h.")
    told = looks.traces(kind, last, product)
    return traces_html(told, kind=kind, last=last, product=product)


def _ago(age_s: float) -> str:
    minutes = int(age_s // _MINUTE_S)
    if minutes < 1:
        return "less than a minute ago"
    if minutes < 120:
        return f"{minutes} minute{'s' if minutes > 1 else ''} ago"
    return f"{minutes // 60} hours ago"


def _nothing_yet(*, is_asked: bool) -> str:
    if is_asked:
        return _told("Nothing has been evaluated yet", "Reload this page in a minute.")
    hint = "Nobody evaluates here: gateway sidecar --lake DIR --evaluate 15m"
    return _told("There is no evaluation", hint)


def _told(title: str, text: str) -> str:
    metrics = '<p><a href="/metrics">Metrics</a></p>'
    return page(title, (title,), (), [f"<p>{escape(text)}</p>", metrics])


def _shown(text: str) -> _Answer:
    return _Answer("200 OK", "text/html", text)


def _failed(status: str, error: GatewayError) -> _Answer:
    said = [f"<p>{escape(one)}</p>" for one in (str(error), error.hint) if one]
    return _Answer(status, "text/html", page("Not shown", ("This cannot be shown",), (), said))


def _sent(start: StartResponse, answer: _Answer) -> Sequence[bytes]:
    content = answer.text.encode()
    length = ("Content-Length", str(len(content)))
    start(answer.status, [("Content-Type", f"{answer.kind}; charset=utf-8"), length, *_HEADERS])
    return [content]
