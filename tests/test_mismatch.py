"""Golden vectors that a model does not give: what is likely wrong with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import catalogue
import labelled_world as world
import numpy as np
import pytest
from numpy.typing import NDArray

from gateway.errors import ModelError
from gateway.model import Rows, load_generation
from gateway.model.mismatch import mismatch
from gateway.model.order import exchangeable, likely_orders, order_of, told
from gateway.product import Product

NAMES = ("amount", "hour", "velocity", "distance", "risk", "age")
WEIGHTS = np.array([0.9, -0.4, 0.3, 0.7, -1.2, 0.15])
ROWS = np.random.default_rng(0).normal(size=(32, 6)).astype(np.float32)
TOLERANCE = 1e-5


def product(names: tuple[str, ...] = NAMES) -> Product:
    return catalogue.product(features=[{"name": name, "type": "float"} for name in names])


def score(rows: Rows) -> list[float]:
    given_: list[float] = (1.0 / (1.0 + np.exp(-(rows @ WEIGHTS)))).tolist()
    return given_


def test_orders_of_columns_are_found() -> None:
    """All 720 of six columns: exchanges that only ever improve may stop short, but never lie."""
    features, expected, found = product().columns, score(ROWS), 0
    for order in permutations(range(6)):
        inverse = np.argsort(order)

        def trained_otherwise(rows: Rows, inverse: NDArray[np.intp] = inverse) -> list[float]:
            return score(rows[:, inverse])

        said = order_of(trained_otherwise, ROWS, expected, features, tolerance=TOLERANCE)
        assert said in (None, order)
        found += said == order
    assert found >= 700


@pytest.mark.parametrize("i", range(5))
def test_every_exchange_of_two_is_found(i: int) -> None:
    for j in range(i + 1, 6):
        order = list(range(6))
        order[i], order[j] = j, i

        def trained_otherwise(rows: Rows, order: list[int] = order) -> list[float]:
            return score(rows[:, order])

        says, _ = mismatch(
            trained_otherwise, ROWS, score(ROWS), product().columns, tolerance=TOLERANCE
        )
        assert f"{NAMES[i]} and {NAMES[j]} exchanged" in says


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (lambda rows: [1.0 - one for one in score(rows)], "it gives 1 − score"),
        (lambda rows: score(rows * 0.5), "made from another model"),
        (lambda rows: [float("nan")] * len(rows), "made from another model"),
    ],
    ids=["the other column", "another model", "no numbers"],
)
def test_what_is_wrong_is_named(other: Callable[[Rows], list[float]], says: str) -> None:
    said, hint = mismatch(other, ROWS, score(ROWS), product().columns, tolerance=TOLERANCE)
    assert says in said
    assert hint


def test_a_model_that_takes_no_other_order_is_another_model() -> None:
    def strict(rows: Rows) -> list[float]:
        if not np.array_equal(rows, ROWS):
            raise RuntimeError("no such text")
        return [0.5] * len(rows)

    said, _ = mismatch(strict, ROWS, score(ROWS), product().columns, tolerance=TOLERANCE)
    assert "another model" in said


def test_texts_are_not_exchanged_with_numbers() -> None:
    columns = catalogue.product().columns
    assert exchangeable(columns) == [(0, 1)]
    orders = list(likely_orders(columns))
    assert len(orders) == len(set(orders))
    assert (0, 1, 2) not in orders
    assert told((1, 0, 2), columns) == ("amount and ratio exchanged", "ratio, amount, entry_mode")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"order": (2, 1, 0, 3, 4, 5, 6)}, "velocity and amount exchanged"),
        ({"output": "probabilities[0]"}, "a swapped column of the output"),
        ({}, ""),
    ],
    ids=["columns", "output", "as it was"],
)
def test_a_folder_whose_golden_vectors_are_off_is_refused_by_its_cause(
    tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    order = changes.get("order", range(7))
    model = catalogue.logistic_model(world.WEIGHTS, world.INTERCEPT)
    rows = world.features(32, 9)
    names = [world.FEATURES[i] for i in order]
    folder = world.write_folder(
        tmp_path / "test",
        order=names,
        model=model,
        n=300,
        gates={"calibration": {}},
        champion={"golden": "golden.json", "output": changes.get("output", "probabilities[1]")},
    )
    # Made with columns and output as they should be: of the payments, not of the file.
    golden = {"features": rows[:, list(order)].tolist(), "scores": world.truth(rows).tolist()}
    (folder / "golden.json").write_text(json.dumps(golden))
    if not says:
        assert load_generation(folder).golden is not None
        return
    with pytest.raises(ModelError) as caught:
        load_generation(folder)
    assert says in str(caught.value)
    assert "golden vector" in str(caught.value)
