"""The sidecar's page: the last evaluation, its age, and nothing that could be broken by it."""

from __future__ import annotations

import base64
import http.client
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from html import escape, unescape
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qs, urlsplit

import evaluated_lake as world
import pytest

from gateway.cli.lake_terms import columns_of_tables
from gateway.cli.sidecar_http import TOKEN_VARIABLE, answering, token_of
from gateway.errors import GatewayError, LakeError, UsageError
from gateway.evaluate.engine import DuckDb
from gateway.evaluate.evaluation import evaluate
from gateway.evaluate.terms import terms_of
from gateway.product import parse
from gateway.sidecar import guard
from gateway.sidecar.metrics.evaluated import Evaluated
from gateway.sidecar.page import Looks

MODELS = Path(__file__).parents[1] / "models"
AS_OF = world.day(100)


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    lake = tmp_path_factory.mktemp("lake")
    world.write(lake, "decisions", [world.decision(number) for number in range(300)])
    world.write(lake, "labels", [world.label(number, "chargeback") for number in range(20)])
    text = (MODELS / "card-not-present" / "product.yaml").read_text()
    terms = terms_of(parse(text.replace("card-not-present", "cnp"), "product.yaml"))
    with DuckDb(world.files(lake), columns_of_tables()) as engine:
        found = evaluate(engine, [terms], AS_OF).as_object()
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]


class Clock:
    """Wall time that a test sets."""

    def __init__(self) -> None:
        self.now_s = AS_OF.timestamp()

    def __call__(self) -> float:
        return self.now_s


@contextmanager
def served(
    evaluated: Evaluated | None, looks: Looks | None = None, *, token: str | None = None
) -> Iterator[Any]:
    """Serve what sidecars do; give a function that asks for a path."""
    shown = () if evaluated is None else (evaluated,)
    with answering("127.0.0.1:0", evaluated, *shown, looks=looks, token=token) as address:
        place = urlsplit(address)

        def asked(
            path: str, method: str = "GET", headers: Mapping[str, str] = MappingProxyType({})
        ) -> tuple[http.client.HTTPResponse, str]:
            connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=30)
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            text = answer.read().decode()
            connection.close()
            return answer, text

        yield asked


def test_the_last_evaluation_is_shown_with_its_age(evaluation: dict[str, Any]) -> None:
    clock = Clock()
    evaluated = Evaluated(60.0, clock)
    with served(evaluated) as asked:
        answer, text = asked("/")
        assert (answer.status, "Nothing has been evaluated yet" in text) == (200, True)
        assert asked("/evaluation.json")[0].status == 404
        evaluated.take(evaluation)
        assert "<p>Evaluated less than a minute ago.</p>" in asked("/")[1]
        clock.now_s += 61 * 60
        text = asked("/")[1]
        assert "<p>Evaluated 61 minutes ago.</p>" in text
        (fraud,) = [
            one
            for one in evaluation["goals"]
            if one["metric"] == "fraud_loss_bps" and one["basis"] == "mature"
        ]
        assert str(fraud["value"]) in re.findall(r'<data value="([^"]+)"', text)
        answer, text = asked("/evaluation.json")
        assert answer.headers["Content-Type"].startswith("application/json")
        assert json.loads(text) == evaluation


def test_what_fails_after_it_leaves_it_and_says_so(evaluation: dict[str, Any]) -> None:
    evaluated = Evaluated(60.0, Clock())
    evaluated.take(evaluation)
    with served(evaluated) as asked:
        with pytest.raises(LakeError):
            evaluated.take({"as_of": "yesterday"})
        evaluated.fail()
        text = asked("/")[1]
        assert "The last attempt since then failed; the log says why." in text
        # What gauges can read and a page cannot is said, too.
        evaluated.take({**evaluation, "money": [{"metric": "odd"}]})
        assert "The last evaluation cannot be shown" in asked("/")[1]


def test_nothing_runs_and_nothing_is_fetched(evaluation: dict[str, Any]) -> None:
    evaluated = Evaluated(60.0, Clock())
    evaluated.take(evaluation)
    with served(evaluated) as asked:
        answer, text = asked("/")
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert answer.headers["Cache-Control"] == "no-store"
        assert "<script" not in text
        assert asked("/", "POST")[0].status == 405
        assert asked("/../etc/passwd")[0].status == 404
        assert "gateway_evaluation_age_seconds" in asked("/metrics")[1]


def test_where_nobody_evaluates_the_page_says_how() -> None:
    with served(None) as asked:
        assert "--evaluate 15m" in asked("/")[1]


class Looked:
    """What a page looks things up in: answers that a test sets, and what it was asked."""

    def __init__(self, found: dict[str, Any] | GatewayError) -> None:
        self.found = found
        self.asked: list[Any] = []

    def _answer(self, *asked: Any) -> dict[str, Any]:
        self.asked.append(asked)
        if isinstance(self.found, GatewayError):
            raise self.found
        return self.found

    def decision(self, decision_id: str) -> dict[str, Any]:
        return self._answer("decision", decision_id)

    def decisions(self, figure: Mapping[str, Any], as_of: str | None) -> dict[str, Any]:
        return self._answer("decisions", figure, as_of)

    def traces(self, kind: str, last: str, product: str) -> dict[str, Any]:
        return self._answer("traces", kind, last, product)


NOTHING: dict[str, Any] = {
    "product": "cnp",
    "metric": "x",
    "basis": "",
    "from": "2026-06-01",
    "to": "2026-06-02",
    "says": "",
    "count": 0,
    "kinds": [],
    "decisions": [],
    "currency": "USD",
    "minor_per_major": 100,
}
ID = "0123456789abcdef-07-00000000002a"


def test_every_figures_link_asks_for_that_figure(evaluation: dict[str, Any]) -> None:
    evaluated, looked = Evaluated(60.0, Clock()), Looked(NOTHING)
    evaluated.take(evaluation)
    with served(evaluated, looked) as asked:
        links = set(re.findall(r'href="(/decisions\?[^"]+)"', asked("/")[1]))
        figures = [
            one
            for section in ("goals", "money", "calibration", "drift", "fairness")
            for one in evaluation[section]
            if one["from"]
        ]
        assert len(links) == len(figures) > 30
        for link in sorted(links)[::9]:
            answer, text = asked(unescape(link))
            assert answer.status == 200
            assert "Decisions behind" in text
            _, figure, as_of = looked.asked[-1]
            at = parse_qs(urlsplit(unescape(link)).query)["at"][0].strip("/").split("/")
            assert figure == evaluation[at[0]][int(at[1])]
            assert as_of == evaluation["as_of"]


def test_a_link_of_an_older_page_leads_to_its_own_figure_or_says_that_it_cannot(
    evaluation: dict[str, Any],
) -> None:
    evaluated, looked = Evaluated(60.0, Clock()), Looked(NOTHING)
    evaluated.take(evaluation)
    with served(evaluated, looked) as asked:
        (link, *_) = re.findall(r'href="(/decisions\?at=/goals/0[^"]*)"', asked("/")[1])
        goals = evaluation["goals"][::-1]
        for day in range(1, 5):
            later = (AS_OF + timedelta(days=day)).isoformat()
            evaluated.take({**evaluation, "as_of": later, "goals": goals})
            asked("/")
            answer, text = asked(unescape(link))
            if day < 3:
                assert looked.asked[-1][1] == evaluation["goals"][0]
            else:
                assert answer.status == 400
                assert "shown no longer" in text
        assert asked("/decisions?at=/goals/0")[0].status == 200
        assert looked.asked[-1][1] == goals[0]


def test_a_figure_may_be_asked_for_by_name(evaluation: dict[str, Any]) -> None:
    looked = Looked(NOTHING)
    with served(None, looked) as asked:
        query = "product=cnp&metric=fraud_loss&from=2026-06-01&to=2026-06-30&age_band=70%2B"
        assert asked(f"/decisions?{query}")[0].status == 200
        figure = looked.asked[-1][1]
        assert figure["by"] == {"age_band": "70+"}
        assert (figure["product"], figure["to"]) == ("cnp", "2026-06-30")


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/decisions", 400, "product, metric, from, to missing"),
        ("/decisions?at=/goals/0", 400, "nothing has been evaluated"),
        ("/decisions?product=cnp", 400, "metric, from, to missing"),
        ("/decisions/nix", 404, "Here: "),
        (f"/decisions/{ID}x", 404, "Here: "),
        ("/traces?kind=nix", 400, "One of slow"),
        ("/traces?last=nix", 400, "no span of time"),
        (f"/traces?product={'x' * 5000}", 400, "too much"),
        ("/traces?" + "&".join(f"{i}=1" for i in range(100)), 400, "too much"),
    ],
)
def test_what_cannot_be_shown_says_why(path: str, status: int, says: str) -> None:
    looked = Looked(NOTHING)
    with served(None, looked) as asked:
        answer, text = asked(path)
        assert (answer.status, says in unescape(text)) == (status, True)
        assert looked.asked == []


def test_what_is_looked_for_in_vain_says_why_and_escapes_it() -> None:
    for error, path, status in (
        (LakeError("is not there <b>", hint="Try."), f"/decisions/{ID}", 404),
        (LakeError("is not there <b>", hint="Try."), "/traces", 503),
        (UsageError("is none <b>"), "/traces", 400),
        (GatewayError("it took longer than 30 s <b>"), f"/decisions/{ID}", 503),
    ):
        with served(None, Looked(error)) as asked:
            answer, text = asked(path)
            assert answer.status == status
            assert escape(str(error)) in text
            assert "<b>" not in text
            assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
    with served(None) as asked:
        assert "nobody looks anything up" in asked("/traces")[1]


TOKEN = "correct horse battery staple"


def basic(token: str, user: str = "anybody") -> str:
    return f"Basic {base64.b64encode(f'{user}:{token}'.encode()).decode()}"


@pytest.mark.parametrize("path", ["/", "/metrics", "/evaluation.json", "/traces", "/nix"])
def test_a_token_is_asked_for_before_anything(path: str) -> None:
    with served(None, Looked({"count": 0, "damaged": 0, "calls": []}), token=TOKEN) as asked:
        wrong = (
            *("", "Bearer", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", TOKEN, f"Digest {TOKEN}"),
            *(basic(""), basic(TOKEN, TOKEN)[:-4], "Basic !!!", f"Basic {TOKEN}", basic("x")),
            basic(TOKEN.upper()),
        )
        for one in wrong:
            answer, text = asked(path, headers={"Authorization": one} if one else {})
            assert answer.status == 401, one
            assert answer.headers["WWW-Authenticate"].startswith("Basic realm=")
            assert TOKEN not in text
        for one in (f"Bearer {TOKEN}", f"bearer  {TOKEN} ", basic(TOKEN), basic(TOKEN, "")):
            assert asked(path, headers={"Authorization": one})[0].status in (200, 404), one
        # Whoever has it may ask by any name.
        named = {"Authorization": basic(TOKEN), "Host": "gateway.example"}
        assert asked(path, headers=named)[0].status in (200, 404)


def test_a_tokens_comparison_takes_no_short_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """It compares digests of one length, whatever was sent, by hmac.compare_digest."""
    seen: list[tuple[int, int]] = []
    plain = guard.hmac.compare_digest

    def watched(one: bytes, other: bytes) -> bool:
        seen.append((len(one), len(other)))
        return plain(one, other)

    monkeypatch.setattr(guard.hmac, "compare_digest", watched)
    with served(None, token=TOKEN) as asked:
        for one in ("", "x", TOKEN, "y" * 500):
            asked("/", headers={"Authorization": f"Bearer {one}"})
    assert seen == [(32, 32)] * 4


@pytest.mark.parametrize("path", ["/", "/metrics", "/traces"])
def test_a_page_of_elsewhere_cannot_ask_by_a_name_that_leads_here(path: str) -> None:
    with served(None, Looked({"count": 0, "damaged": 0, "calls": []})) as asked:
        wrong = ("evil.example", "evil.example:9464", "127.0.0.1.evil.example", "localhost.x", "")
        for host in (*wrong, "[::2]:1", "127.0.0.1@evil.example", "0.0.0.0"):
            assert asked(path, headers={"Host": host})[0].status == 421, host
        for host in ("127.0.0.1", "localhost", "LOCALHOST:80", "[::1]:9464", "127.0.0.1:1"):
            assert asked(path, headers={"Host": host})[0].status == 200, host


@pytest.mark.parametrize("address", ["0.0.0.0:0", "127.0.0.2:0", "[::]:0", "example.org:0"])
def test_beyond_loopback_without_a_token_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="no token") as caught, answering(address, None):
        pass
    assert "--token-file" in caught.value.hint
    with pytest.raises(UsageError, match="no address"), answering("nowhere", None):
        pass


def test_beyond_loopback_with_a_token_is_answered() -> None:
    """On all of this machine's addresses; asked at loopback, by another name."""
    with answering("0.0.0.0:0", None, token=TOKEN) as address:
        port = urlsplit(address).port
        connection = http.client.HTTPConnection("127.0.0.2", port, timeout=30)
        connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
        assert connection.getresponse().status == 200
        connection.close()


def test_a_token_comes_from_a_file_or_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"  {TOKEN}\n")
    assert token_of(file, {TOKEN_VARIABLE: "y" * 20}) == TOKEN
    assert token_of(None, {TOKEN_VARIABLE: TOKEN}) == TOKEN
    assert token_of(None, {}) is None
    for content in (b"", b"short", b"\n\n", b"\xff" * 40, f"{TOKEN}\n{TOKEN}".encode()):
        file.write_bytes(content)
        with pytest.raises(UsageError, match="holds no token") as caught:
            token_of(file, {})
        assert "openssl" in caught.value.hint
    with pytest.raises(UsageError, match="cannot be read"):
        token_of(tmp_path / "nix", {})
