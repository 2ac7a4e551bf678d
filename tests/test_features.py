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

from gateway.errors import ModelError
from gateway.model.features import FeatureSchema, feature_schema
from gateway.model.inputs import Port, plan_feeds
from gateway.product import UNSEEN_TEXT, columns_of

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
    encoded, violations, defaulted, _ = schema.encode(named)
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
        ("clipped", math.inf, 1.0),
        ("clipped", -math.inf, -1.0),
        ("clipped", 1e300, 1.0),
        ("amount", 1e300, "refused"),
        ("defaulted", 1e300, "refused"),
        ("defaulted", 4111111111111111.0, "refused"),
        ("mode", "x" * 257, "refused"),
        ("mode", "x" * 256, 2.0),
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
    violations = schema.encode({**GOOD, "ammount": 1.0}).violations
    assert violations[0].description == "is no feature of this product; did you mean amount?"


def test_a_callers_name_is_not_echoed_unless_it_looks_like_one(schema: FeatureSchema) -> None:
    violations = schema.encode({**GOOD, "4111 1111 1111 1111": 1.0}).violations
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


def wide_schema(features: list[dict[str, Any]], *ports: Port) -> FeatureSchema:
    declared = catalogue.product(features=features).features
    columns = [
        (*f.values, UNSEEN_TEXT) if f.type == "category" else None for f in columns_of(declared)
    ]
    return feature_schema(declared, plan_feeds(ports, columns, "model"))


def test_a_double_keeps_what_float32_would_round() -> None:
    schema = wide_schema(
        [{"name": "a", "type": "float"}, {"name": "n", "type": "int"}],
        Port("a", "tensor(double)", (None, 1)),
        Port("n", "tensor(int64)", (None, 1)),
    )
    row = schema.encode({"a": 1e9 + 0.25, "n": 2.0**53 - 1}).row
    matrix, checked = schema.matrix([row])
    assert not checked
    assert matrix.tolist() == [[1e9 + 0.25, 2.0**53 - 1]]
    dense = np.array([0.1, 3.0], dtype="<f4").tobytes()
    assert schema.matrix([schema.from_dense(dense)])[0].tolist() == [[float(np.float32(0.1)), 3.0]]


@pytest.mark.parametrize(("kind", "least", "largest"), [("int8", -128, 127), ("uint16", 0, 65535)])
def test_a_number_that_an_input_cannot_hold_is_out_of_range(
    kind: str, least: int, largest: int
) -> None:
    schema = wide_schema([{"name": "n", "type": "int"}], Port("n", f"tensor({kind})", (None, 1)))
    for value, fine in ((least, True), (largest, True), (least - 1, False), (largest + 1, False)):
        row, violations, _ = row_of(schema, {"n": float(value)})
        assert (not violations) is fine, value
        assert row == [value]


def test_a_text_that_the_model_has_not_seen_is_fed_as_such() -> None:
    texts = [{"name": "mode", "type": "category", "values": ["chip", "swipe"], "unknown": "unseen"}]
    port = Port("mode", "tensor(string)", (None, 1))
    schema = wide_schema(texts, port)
    feeds = plan_feeds([port], [("chip", "swipe", UNSEEN_TEXT)], "model")
    matrix, checked = schema.matrix([schema.encode({"mode": m}).row for m in ("swipe", "phone")])
    assert not checked
    assert feeds.of(matrix)["mode"].tolist() == [["swipe"], [UNSEEN_TEXT]]
    with pytest.raises(ModelError, match=r"unknown is unseen, but its input takes float32"):
        wide_schema(texts, Port("mode", "tensor(float)", (None, 1)))


def test_repeated_features_stand_in_a_row() -> None:
    declared = [{"name": "v", "type": "float", "max": 1, "repeat": 3}, {"name": "w", "type": "int"}]
    product = catalogue.product(features=declared)
    schema = feature_schema(product.features)
    written_out = [{"name": f"v.{i}", "type": "float", "max": 1} for i in range(3)]
    spelt = catalogue.product(features=[*written_out, declared[1]])
    assert schema.fingerprint == feature_schema(spelt.features).fingerprint
    row, violations, _ = row_of(schema, {"v.0": 0.0, "v.1": 0.5, "v.2": 2.0, "w": 1.0})
    assert violations == {"features[v.2]"}
    assert row == [0.0, 0.5, 2.0, 1.0]


def test_a_card_number_in_a_text_is_named_and_never_shown(schema: FeatureSchema) -> None:
    encoded = schema.encode({**GOOD, "mode": "4111 1111 1111 1111"})
    assert encoded.pans == ("mode",)
    assert "4111" not in str(encoded.violations)


def test_a_signalling_nan_is_missing_like_any_other(schema: FeatureSchema) -> None:
    """Warnings are errors here: NumPy's rint would give one."""
    row = bytes.fromhex("0100a07f") * len(GOOD)
    _, checked = schema.matrix([row])
    assert {violation.description for violation in checked[0].violations} == {"is missing"}
