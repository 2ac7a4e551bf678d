"""Foreign models, from a file and a table to a decision: `init`, `check`, `serve`, `Decide`.

The oracle is a bare `session.run` of the corpus, which no line of the gateway has touched.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import catalogue
import numpy as np
import pytest
from conftest import Serve
from corpus import PRODUCTS, REFUSED, Foreign, foreign
from test_fronts import journalled, patient
from test_scaffold import tried_here

from gateway.cli.main import run
from gateway.errors import ExitCode
from gateway.journal import Decision
from gateway.model import Generation
from gateway.scaffold import Asked, checked, write_product
from gateway.v1.decision_pb2 import DecideRequest
from gateway.v1.decision_pb2_grpc import DecisionServiceStub

pytestmark = pytest.mark.slow

ASKED = range(0, 210, 10)
"""Rows of each model that are asked for over gRPC."""

TOLERANCE = 2e-6
"""Of a score, or of its share where it is more than 1: kernels differ between batch sizes."""


def write_table(one: Foreign, path: Path) -> Path:
    """Write a model's labelled table as a scientist would have it."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(one.rows)
        writer.writerows(zip(*one.rows.values(), strict=True))
    return path


@pytest.fixture(scope="module")
def products(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Generation]:
    """Every model of the corpus that can be a product, by way of `gateway init`."""
    place = tmp_path_factory.mktemp("corpus")

    def made(name: str) -> Generation:
        one = foreign(name)
        model = place / f"{name}.onnx"
        model.write_bytes(one.model)
        return checked(
            write_product(
                Asked(
                    model=model,
                    folder=place / name,
                    data=write_table(one, place / f"{name}.csv"),
                    label=one.label,
                    features=tuple(one.features) if one.extras else (),
                )
            )
        )

    # A child process takes half a second, and there are three a model: every sixth pays it.
    tried = PRODUCTS[::6]
    with pytest.MonkeyPatch.context() as patch:
        tried_here(patch)
        loaded = {name: made(name) for name in PRODUCTS if name not in tried}
    return loaded | {name: made(name) for name in tried}


def request_of(generation: Generation, one: Foreign, row: int) -> DecideRequest:
    """Ask for one row of the table by the names that `init` gave its columns, in their order."""
    asked = catalogue.request(product=generation.name, transaction_id=f"{one.name}-{row}")
    asked.ClearField("features")
    asked.currency = generation.product.costs.currency
    for feature, column in zip(generation.product.columns, one.features, strict=True):
        value: Any = one.rows[column][row]
        if isinstance(value, str):
            asked.features[feature.name].text = value
        elif value is not None:
            asked.features[feature.name].number = float(value)
    return asked


def test_every_model_serves_the_score_that_a_bare_session_gives(
    serve: Serve, products: dict[str, Generation]
) -> None:
    """And the probability is what its scale and calibration make of that score."""
    with serve(*map(patient, products.values())) as running:
        decide = DecisionServiceStub(running.channel).Decide
        answers: dict[tuple[str, int], Any] = {}
        for name, generation in products.items():
            calls = {
                row: decide.future(request_of(generation, foreign(name), row), timeout=60)
                for row in ASKED
            }
            answers |= {(name, row): call.result() for row, call in calls.items()}
        running.ended()
    scores: dict[tuple[str, int], float] = {}
    for answered in journalled(running.journal):
        entry = answered.record.entry
        assert isinstance(entry, Decision)
        name, _, row = DecideRequest.FromString(entry.request).transaction_id.rpartition("-")
        scores[name, int(row)] = entry.score
    for name, generation in products.items():
        bare = foreign(name).score()
        output = generation.product.models.champion.output
        for row in ASKED:
            answer, score = answers[name, row], scores[name, row]
            assert answer.stand_in == 0, (name, row)
            expected = generation.policy.calibration.one(generation.policy.snapped(score))
            assert answer.probability == pytest.approx(expected, abs=1e-12)
            if f"{output.name}[{output.column}]" == foreign(name).output or not output.column:
                assert score == pytest.approx(bare[row], abs=TOLERANCE, rel=TOLERANCE), (name, row)


def test_what_init_found_out_about_each_score(products: dict[str, Generation]) -> None:
    """Where the bare score is P(fraud) it is served as such; else P(fraud) rises with it."""
    for name, generation in products.items():
        one = foreign(name)
        bare = one.score()
        rows = [request_of(generation, one, row) for row in range(len(bare))]
        matrix = generation.schema.matrix(
            [
                generation.schema.encode(
                    {
                        key: value.text if value.WhichOneof("kind") == "text" else value.number
                        for key, value in asked.features.items()
                    }
                ).row
                for asked in rows
            ]
        )[0]
        policy = generation.policy
        served = np.array(
            [policy.calibration.one(policy.snapped(s)) for s in generation.champion.score(matrix)]
        )
        if one.kind == "probability":
            assert served == pytest.approx(bare, abs=1e-5), name
            continue
        assert ((served > 0.0) & (served < 1.0)).all() or one.scale, name
        better, worse = served[one.is_fraud].mean(), served[~one.is_fraud].mean()
        assert better > worse, name


# test_model_trial.py has those that cost all of their limit.
LIMITS = ("never loads", "never runs")


@pytest.mark.parametrize(
    "name", [n for n in REFUSED if foreign(n).bare not in LIMITS and "memory" not in n]
)
def test_what_cannot_be_a_product_is_refused_and_says_why(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = foreign(name)
    model = tmp_path / "foreign.onnx"
    model.write_bytes(one.model)
    for beside, content in one.beside.items():
        (tmp_path / beside).write_bytes(content)
    code = run(["init", str(model), str(tmp_path / "product")])
    said = " ".join(capsys.readouterr().err.split())
    assert code in (ExitCode.INVALID_MODEL, ExitCode.USAGE), said
    assert one.why.lower() in said.lower()
