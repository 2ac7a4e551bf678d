"""From what a caller sent to the row that the model sees, by the declared rules."""

from __future__ import annotations

import math
import struct
from typing import Any

import catalogue
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model.features import FeatureSchema, feature_schema

FEATURES: list[dict[str, Any]] = [
    {"name": "amount", "type": "float", "min": 0, "max": 1000},
    {"name": "clipped", "type": "float", "min": -1, "max": 1, "out_of_range": "clip"},
    {"name": "count", "type": "int", "min": 0},
    {"name": "flag", "type": "bool"},
    {"name": "mode", "type": "category", "values": ["chip", "swipe", "keyed"], "unknown": "keyed"},
    {"name": "strict", "type": "category", "values": ["a", "b"], "missing": "b"},
    {"name": "defaulted", "type": "float", "missing": 7.5},
    {"name": "sparse", "type": "float", "missing": "nan"},
]
GOOD: dict[str, float | str] = {
    "amount": 10.0,
    "clipped": 0.5,
    "count": 3.0,
    "flag": 1.0,
    "mode": "swipe",
    "strict": "a",
    "defaulted": 1.0,
    "sparse": 2.0,
}
NAN = math.nan


@pytest.fixture(scope="module")
def schema() -> FeatureSchema:
    return feature_schema(catalogue.product(features=FEATURES).features)


def row_of(
    schema: FeatureSchema, named: dict[str, float | str]
) -> tuple[list[float], set[str], bool]:
    """Return the row, the fields that broke a rule, and whether a default was used."""
    encoded, violations, defaulted = schema.encode(named)
    matrix, checked = schema.matrix([encoded])
    fields = {violation.field for violation in violations}
    if checked:
        fields |= {violation.field for violation in checked[0].violations}
        defaulted |= checked[0].defaulted
    return matrix[0].tolist(), fields, defaulted


def test_a_good_row_is_taken_as_it_is(schema: FeatureSchema) -> None:
    row, violations, defaulted = row_of(schema, GOOD)
    assert row == [10.0, 0.5, 3.0, 1.0, 1.0, 0.0, 1.0, 2.0]
    assert not violations
    assert not defaulted


@pytest.mark.parametrize(
    ("name", "value", "outcome"),
    [
        ("amount", 1001.0, "refused"),
        ("amount", -0.5, "refused"),
        ("amount", None, "refused"),
        ("amount", NAN, "refused"),
        ("amount", math.inf, "refused"),
        ("amount", "10", "refused"),
        ("clipped", 5.0, 1.0),
        ("clipped", -5.0, -1.0),
        ("clipped", math.inf, "refused"),
        ("clipped", 1e300, "refused"),
        ("count", 2.5, "refused"),
        ("count", -1.0, "refused"),
        ("flag", 2.0, "refused"),
        ("flag", 0.5, "refused"),
        ("flag", None, "refused"),
        ("mode", "contactless", 2.0),
        ("mode", 1.0, 1.0),
        ("mode", 9.0, 2.0),
        ("mode", None, "refused"),
        ("strict", "c", "refused"),
        ("strict", None, 1.0),
        ("defaulted", None, 7.5),
        ("defaulted", NAN, 7.5),
        ("sparse", None, NAN),
        ("sparse", -math.inf, "refused"),
    ],
)
def test_each_rule(
    schema: FeatureSchema, name: str, value: float | str | None, outcome: float | str
) -> None:
    """Refused and named, or replaced by what product.yaml declares."""
    named = {key: one for key, one in GOOD.items() if key != name or value is not None}
    if value is not None:
        named[name] = value
    row, violations, _ = row_of(schema, named)
    if outcome == "refused":
        assert violations == {f"features[{name}]"}
    else:
        assert not violations
        assert row[list(GOOD).index(name)] == pytest.approx(outcome, nan_ok=True)


def test_a_name_that_does_not_exist_is_suggested_for(schema: FeatureSchema) -> None:
    _, violations, _ = schema.encode({**GOOD, "ammount": 1.0})
    assert violations[0].description == "is no feature of this product; did you mean amount?"


def test_a_callers_name_is_not_echoed_unless_it_looks_like_one(schema: FeatureSchema) -> None:
    _, violations, _ = schema.encode({**GOOD, "4111 1111 1111 1111": 1.0})
    assert violations[0].field == "features[?]"


@given(
    rows=st.lists(
        st.lists(
            st.one_of(
                st.floats(width=32),
                st.sampled_from([0.0, 1.0, 2.0, 0.5, NAN]),
            ),
            min_size=8,
            max_size=8,
        ),
        min_size=1,
        max_size=6,
    )
)
def test_a_batch_is_checked_as_its_rows_one_by_one(
    schema: FeatureSchema, rows: list[list[float]]
) -> None:
    """And what passes lies within every declared range."""
    packed = [struct.pack("<8f", *row) for row in rows]
    matrix, checked = schema.matrix(packed)
    for i, row in enumerate(packed):
        alone, alone_checked = schema.matrix([row])
        mine, its = checked.get(i), alone_checked.get(0)
        assert (mine is None) == (its is None)
        if mine is not None and its is not None:
            assert mine.violations == its.violations
            assert mine.defaulted == its.defaulted
            if mine.violations:
                continue
        assert np.array_equal(matrix[i], alone[0], equal_nan=True)
        amount, clipped, count, flag, mode, strict, defaulted, sparse = matrix[i].tolist()
        assert 0 <= amount <= 1000
        assert -1 <= clipped <= 1
        assert count >= 0
        assert count == int(count)
        assert flag in (0.0, 1.0)
        assert mode in (0.0, 1.0, 2.0)
        assert strict in (0.0, 1.0)
        assert math.isfinite(defaulted)
        assert not math.isinf(sparse)
