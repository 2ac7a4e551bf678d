"""The sidecar's page: the last evaluation, its age, and nothing that could be broken by it."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import evaluated_lake as world
import pytest

from gateway.cli import sidecar
from gateway.cli.evaluate import columns_of_tables
from gateway.errors import LakeError
from gateway.evaluate.engine import DuckDb
from gateway.evaluate.evaluation import evaluate
from gateway.evaluate.terms import terms_of
from gateway.product import parse
from gateway.sidecar.metrics.evaluated import Evaluated

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
def served(evaluated: Evaluated | None) -> Iterator[Any]:
    """Serve what sidecars do; give a function that asks for a path."""
    shown = () if evaluated is None else (evaluated,)
    with sidecar._answering("127.0.0.1:0", evaluated, *shown) as address:
        place = urlsplit(address)

        def asked(path: str, method: str = "GET") -> tuple[http.client.HTTPResponse, str]:
            connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=30)
            connection.request(method, path)
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
