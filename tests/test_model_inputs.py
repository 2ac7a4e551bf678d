"""Columns laid over a model's inputs, and scores read out of its outputs."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import ModelError
from gateway.model.inputs import Port, plan_feeds
from gateway.model.outputs import reader
from gateway.product import Output

FLOAT = "tensor(float)"


def ports(*shapes: tuple[Any, ...], kind: str = FLOAT) -> list[Port]:
    return [Port(f"x{i}", kind, shape) for i, shape in enumerate(shapes)]


dims = st.lists(st.integers(1, 4), min_size=0, max_size=3)


@given(tails=st.lists(dims, min_size=1, max_size=4), n=st.integers(1, 5), free=st.booleans())
def test_each_input_takes_the_next_columns(tails: list[list[int]], n: int, free: bool) -> None:
    """Whatever the shapes: laid side by side again, the inputs are the rows."""
    widths = [prod(tail) for tail in tails]
    columns = sum(widths)
    batch: Any = "n" if free else n
    shapes = [(batch, *tail) for tail in tails]
    feeds = plan_feeds(ports(*shapes), [None] * columns, "m")
    if not feeds.batched:  # one input [k] of k columns is one row
        return
    assert feeds.batch == (None if free else n)
    rows = np.arange(n * columns, dtype=np.float32).reshape(n, columns)
    arrays = list(feeds.of(rows).values())
    assert [array.shape for array in arrays] == [(n, *tail) for tail in tails]
    assert np.array_equal(np.hstack([array.reshape(n, -1) for array in arrays]), rows)


@pytest.mark.parametrize(
    ("shapes", "columns", "tails"),
    [
        ([(None, None)], 7, [(7,)]),
        ([()], 3, [(3,)]),
        ([(None, "time", 4)], 12, [(3, 4)]),
        ([(None, 3), (None, None)], 5, [(3,), (2,)]),
        ([(None,), (None, 1)], 2, [(), (1,)]),
        ([(-1, 0)], 4, [(4,)]),
    ],
)
def test_a_free_dimension_takes_what_is_left(
    shapes: list[tuple[Any, ...]], columns: int, tails: list[tuple[int, ...]]
) -> None:
    feeds = plan_feeds(ports(*shapes), [None] * columns, "m")
    assert [feed.tail for feed in feeds.inputs] == tails


def test_an_input_of_one_row_without_a_batch() -> None:
    feeds = plan_feeds(ports((4,)), [None] * 4, "m")
    assert feeds.batch == 1
    assert feeds.of(np.ones((1, 4), dtype=np.float32))["x0"].shape == (4,)


@pytest.mark.parametrize(
    ("given_ports", "columns", "says"),
    [
        ([], 1, "no inputs"),
        (ports((None, 3)), 4, "take 3 columns, but 4 features"),
        (ports((6, "n", 3)), 18, "as if the batch were not first"),
        (ports((None, 3), (8, 2)), 5, "do not share their first dimension"),
        (ports((4, 3), (8, 2)), 5, "do not share their first dimension"),
        (ports((None, "t", "f")), 6, "one other dimension is free"),
        (ports((None, "t", 4)), 6, "which 6 columns do not fill"),
        (ports((None, 1), kind="tensor(string)"), 1, "takes texts, but feature 0"),
        (ports((None, 1), kind="seq(tensor(float))"), 1, "cannot be fed"),
        (ports((None, 1), kind="tensor(bfloat16)"), 1, "cannot be fed"),
    ],
)
def test_what_cannot_be_fed_is_said(given_ports: list[Port], columns: int, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        plan_feeds(given_ports, [None] * columns, "m")


def read(kind: str, output: Output, given: Any, n: int) -> list[float]:
    return reader([Port(output.name, kind, ())], output, "m")(given, n)


MAPS = [{0: 0.9, 1: 0.1}, {0: 0.2, 1: 0.8}]
WORDS = [{"genuine": 0.9, "fraud": 0.1}, {"genuine": 0.2, "fraud": 0.8}]
SCORES = np.array([[0.9, 0.1], [0.2, 0.8]])


@pytest.mark.parametrize(
    ("kind", "column", "given", "scores"),
    [
        (FLOAT, 1, SCORES, [0.1, 0.8]),
        (FLOAT, None, SCORES[:, 1], [0.1, 0.8]),
        (FLOAT, None, SCORES[:, 1:], [0.1, 0.8]),
        (FLOAT, 3, np.arange(8.0).reshape(2, 2, 2), [3.0, 7.0]),
        ("tensor(double)", 0, SCORES[:, 1:, None], [0.1, 0.8]),
        ("seq(map(int64,tensor(float)))", 1, MAPS, [0.1, 0.8]),
        ("seq(map(string,tensor(float)))", "fraud", WORDS, [0.1, 0.8]),
        ("seq(map(string,tensor(float)))", 1, [{"0": 0.3, "1": 0.7}] * 2, [0.7, 0.7]),
        ("tensor(int64)", 1, np.array([1, 0]), [1.0, 0.0]),
        ("tensor(int64)", -1, np.array([[-1], [1]]), [1.0, 0.0]),
        ("tensor(int64)", None, np.array([3, 4]), [3.0, 4.0]),
        ("tensor(bool)", 1, np.array([True, False]), [1.0, 0.0]),
        ("tensor(string)", "fraud", np.array(["ok", "fraud"], dtype=object), [0.0, 1.0]),
    ],
)
def test_a_score_is_read_by_output_and_column(
    kind: str, column: int | str | None, given: Any, scores: list[float]
) -> None:
    assert read(kind, Output("p", column), given, 2) == scores


@pytest.mark.parametrize(
    ("kind", "column", "given", "says"),
    [
        (FLOAT, None, SCORES, "has 2 columns, and none of them is named"),
        (FLOAT, 2, SCORES, "there is no column 2"),
        (FLOAT, -1, SCORES, "is no column"),
        (FLOAT, "fraud", SCORES, "is no column"),
        (FLOAT, 1, SCORES[:1], "2 rows give an output of shape"),
        (FLOAT, None, np.float32(1.0), "2 rows give an output of shape"),
        ("seq(map(string,tensor(float)))", None, WORDS, "none is named"),
        ("seq(map(string,tensor(float)))", "frod", WORDS, "has no class 'frod'"),
        ("seq(map(string,tensor(float)))", "fraud", WORDS[:1], "no 2 maps"),
        ("tensor(string)", None, np.array(["a", "b"]), "no class is named"),
        ("seq(tensor(float))", 1, [SCORES], "holds no score"),
    ],
)
def test_what_holds_no_score_is_said(
    kind: str, column: int | str | None, given: Any, says: str
) -> None:
    with pytest.raises(ModelError, match=says):
        read(kind, Output("p", column), given, 2)


def test_one_row_may_come_without_its_batch() -> None:
    assert read(FLOAT, Output("p", 1), np.array([0.25, 0.75]), 1) == [0.75]
    assert read(FLOAT, Output("p"), np.float32(0.75), 1) == [0.75]


def test_an_output_that_is_not_there_is_answered_with_those_that_are() -> None:
    with pytest.raises(ModelError) as caught:
        reader([Port("a", FLOAT, ()), Port("b", FLOAT, ())], Output("c"), "m")
    assert caught.value.hint == "Its outputs: a, b."
