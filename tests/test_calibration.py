"""Calibration maps against scikit-learn and against their definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from gateway.decide.calibration import (
    EDGE,
    Scaled,
    base_rate_odds_ratio,
    from_mapping,
    shift,
    shift_many,
)


def test_isotonic_equals_scikit_learn() -> None:
    chance = np.random.default_rng(3)
    scores = chance.random(5000)
    labels = chance.random(5000) < scores**2
    fitted = IsotonicRegression(out_of_bounds="clip").fit(scores, labels)
    curve = from_mapping(
        "isotonic", {"x": fitted.X_thresholds_.tolist(), "y": fitted.y_thresholds_.tolist()}
    )
    asked = np.concatenate([chance.random(10_000), scores, [0.0, 1.0]])
    expected = np.clip(fitted.predict(asked), EDGE, 1 - EDGE)
    assert np.abs(curve.many(asked) - expected).max() < 1e-9


@given(a=st.floats(0.05, 5), b=st.floats(-5, 5), score=st.floats(0, 1))
def test_platt_is_a_line_in_log_odds(a: float, b: float, score: float) -> None:
    mapped = from_mapping("platt", {"a": a, "b": b}).one(score)
    s = min(max(score, EDGE), 1 - EDGE)
    expected = a * math.log(s / (1 - s)) + b
    assert EDGE <= mapped <= 1 - EDGE
    if EDGE < mapped < 1 - EDGE:
        assert math.log(mapped / (1 - mapped)) == pytest.approx(expected, abs=1e-6)


def test_beta_with_equal_slopes_is_platt() -> None:
    beta = from_mapping("beta", {"a": 1.7, "b": 1.7, "c": -0.2})
    platt = from_mapping("platt", {"a": 1.7, "b": -0.2})
    scores = np.linspace(0, 1, 1001)
    assert beta.many(scores) == pytest.approx(platt.many(scores), rel=1e-9)


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        ("platt", {"a": 2.0, "b": 1.0}),
        ("beta", {"a": 0.5, "b": 2.0, "c": 0.0}),
        ("isotonic", {"x": [0.2, 0.4], "y": [0.0, 1.0]}),
    ],
)
def test_a_map_never_falls_and_is_clipped(kind: str, parameters: dict[str, float]) -> None:
    mapped = from_mapping(kind, parameters).many(np.linspace(0, 1, 2001))
    assert (np.diff(mapped) >= 0).all()
    assert mapped.min() >= EDGE
    assert mapped.max() <= 1 - EDGE


@pytest.mark.parametrize(
    ("kind", "parameters", "says"),
    [
        ("platt", {"a": 1}, "needs 'b'"),
        ("platt", {"a": -1, "b": 0}, "would fall"),
        ("beta", {"a": 1, "b": -1, "c": 0}, "would fall"),
        ("isotonic", {"x": [0, 0], "y": [0, 1]}, "rise strictly"),
        ("isotonic", {"x": [0, 1], "y": [1, 0]}, "must not fall"),
        ("isotonic", {"x": [0, 1], "y": [0, 2]}, "0..1"),
        ("isotonic", {"x": [0], "y": [0]}, "at least 2"),
        ("isotonic", {"x": "01", "y": [0, 1]}, "list of numbers"),
        ("platt", {"a": math.nan, "b": 0}, "finite"),
        ("spline", {}, "no calibration map"),
    ],
)
def test_what_makes_no_map_is_refused(kind: str, parameters: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        from_mapping(kind, parameters)


@given(p=st.floats(0.001, 0.999), a=st.floats(0.001, 0.5), b=st.floats(0.001, 0.5))
def test_a_base_rate_shift_moves_the_base_rate_and_back(p: float, a: float, b: float) -> None:
    """The old base rate maps to the new one, and the shift back undoes it."""
    ratio = base_rate_odds_ratio(a, b)
    assert shift(a, ratio) == pytest.approx(b, rel=1e-9)
    assert shift(shift(p, ratio), 1 / ratio) == pytest.approx(p, rel=1e-6, abs=2e-6)
    assert shift_many(np.array([p]), ratio)[0] == shift(p, ratio)


def test_undersampled_negatives_are_undone() -> None:
    """Dal Pozzolo 2015: negatives kept at rate b, p = b·p_s / (b·p_s − p_s + 1)."""
    kept, prior = 0.05, 0.002
    sampled_prior = prior / (prior + kept * (1 - prior))
    for p_s in (0.01, 0.3, 0.9):
        expected = kept * p_s / (kept * p_s - p_s + 1)
        ratio = base_rate_odds_ratio(sampled_prior, prior)
        assert shift(p_s, ratio) == pytest.approx(expected, rel=1e-9)


@given(a=st.floats(-3, 3).filter(bool), b=st.floats(-5, 5), score=st.floats(-1e6, 1e6))
def test_logistic_takes_any_score(a: float, b: float, score: float) -> None:
    curve = from_mapping("logistic", {"a": a, "b": b})
    assert curve.domain == (-math.inf, math.inf)
    mapped = curve.one(score)
    assert EDGE <= mapped <= 1 - EDGE
    if abs(a * score + b) < 13:
        assert math.log(mapped / (1 - mapped)) == pytest.approx(a * score + b, abs=1e-6)


@given(
    ends=st.tuples(st.floats(-100, 100), st.floats(-100, 100)).filter(
        lambda ends: abs(ends[0] - ends[1]) > 1e-3
    ),
    share=st.floats(0, 1),
    kind=st.sampled_from(["identity", "platt", "logistic"]),
)
def test_a_scale_brings_its_ends_to_0_and_1(
    ends: tuple[float, float], share: float, kind: str
) -> None:
    parameters = {} if kind == "identity" else {"a": 1.5, "b": -0.5}
    inner = from_mapping(kind, parameters)
    scaled = Scaled(inner, *ends)
    genuine, fraud = ends
    score = genuine + share * (fraud - genuine)
    assert scaled.one(score) == pytest.approx(inner.one(share), abs=1e-9)
    if kind != "logistic":
        assert scaled.domain == (min(ends), max(ends))
        assert scaled.one(min(max(score, min(ends)), max(ends))) <= 1.0
    many = np.array([genuine, fraud, score])
    assert scaled.many(many).tolist() == [scaled.one(one) for one in many.tolist()]
