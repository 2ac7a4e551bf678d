"""Intervals of shares, ratios and differences: equal to statsmodels where trials are independent,
and standing at the counts where statsmodels' do not."""

from __future__ import annotations

from itertools import product
from math import inf, isnan

import numpy as np
import pytest
from statsmodels.stats.proportion import (
    confint_proportions_2indep,
    proportion_confint,
    score_test_proportions_2indep,
)

from gateway.evaluate.intervals import (
    Figure,
    Share,
    newcombe_bounds,
    pooled_dof,
    quantile,
    ratio_bounds,
    ratio_p,
    ratio_score,
    wilson_bounds,
)

COUNTS = [(1, 40), (3, 100), (7, 1000), (20, 90), (39, 40), (150, 1_000_000), (2000, 10_000)]


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_wilson_is_statsmodels(confidence: float) -> None:
    for k, n in [*COUNTS, (0, 10), (10, 10)]:
        low, high = wilson_bounds(Share(k, n, inf), confidence=confidence)
        want = proportion_confint(k, n, alpha=1 - confidence, method="wilson")
        assert (low, high) == pytest.approx(want, abs=1e-12, rel=1e-9)


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_newcombe_and_the_score_ratio_are_statsmodels(confidence: float) -> None:
    for (k1, n1), (k0, n0) in product(COUNTS, COUNTS):
        one, other, alpha = Share(k1, n1, inf), Share(k0, n0, inf), 1 - confidence
        got = newcombe_bounds(one, other, confidence=confidence)
        want = confint_proportions_2indep(k1, n1, k0, n0, method="newcomb", alpha=alpha)
        assert got == pytest.approx(want, rel=1e-9, abs=1e-9)
        for ratio in (0.5, 0.8, 1.0, 1.25, 3.0):
            test = score_test_proportions_2indep(k1, n1, k0, n0, value=ratio, compare="ratio")
            if isnan(test.statistic):
                continue
            assert ratio_score(one, other, ratio) == pytest.approx(
                test.statistic, rel=1e-9, abs=1e-9
            )
            assert ratio_p(one, other, ratio) == pytest.approx(test.pvalue, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_the_ends_of_a_ratio_are_statsmodels(confidence: float) -> None:
    """Its own search starts from the log interval and fails at times; where it ends, we agree."""
    agreed = 0
    for (k1, n1), (k0, n0) in product(COUNTS[:4] + COUNTS[5:], repeat=2):
        try:
            want = confint_proportions_2indep(
                k1, n1, k0, n0, compare="ratio", method="score", alpha=1 - confidence
            )
        except ValueError:
            continue
        got = ratio_bounds(Share(k1, n1, inf), Share(k0, n0, inf), confidence=confidence)
        assert got == pytest.approx(want, rel=1e-9, abs=1e-9)  # of its search
        agreed += 1
    assert agreed > 25


def test_a_p_value_says_what_the_interval_says() -> None:
    chance = np.random.default_rng(3)
    n1, n0 = chance.integers(5, 3000, 400), chance.integers(5, 3000, 400)
    one = Share(chance.binomial(n1, 0.02), n1, chance.uniform(2, 127, 400))
    other = Share(chance.binomial(n0, 0.03), n0, chance.uniform(2, 127, 400))
    low, high = ratio_bounds(one, other)
    for limit in (0.5, 0.8, 1.25, 2.0):
        inside = (low < limit) & (limit < high)
        assert np.array_equal(inside, ratio_p(one, other, limit) > 0.05)
    assert 0 < inside.sum() < 400


def test_counts_of_nought_leave_a_side_open_and_no_number_wrong() -> None:
    with np.errstate(all="raise"):
        low, high = ratio_bounds(Share(0, 100, inf), Share(10, 100, inf))
        assert low == 0 < high < 1
        assert ratio_score(Share(0, 100, inf), Share(10, 100, inf), high) == pytest.approx(
            -quantile(0.95)
        )
        low, high = ratio_bounds(Share(10, 100, inf), Share(0, 100, inf))
        assert low > 1
        assert high == inf
        for one, other in [((0, 50), (0, 50)), ((0, 0), (3, 50)), ((3, 50), (0, 0))]:
            assert ratio_bounds(Share(*one, inf), Share(*other, inf)) == (0, inf)
            assert ratio_p(Share(*one, inf), Share(*other, inf), 1.0) == 1.0
        assert wilson_bounds(Share(0, 0, inf)) == (0, 1)
        assert newcombe_bounds(Share(0, 0, inf), Share(1, 9, inf)) == pytest.approx((-1, 1), abs=1)


def test_no_degrees_of_freedom_say_nothing() -> None:
    one, other = Share(5, 50, 0), Share(5, 50, 60)
    assert wilson_bounds(one) == (0, 1)
    assert ratio_bounds(one, other) == (0, inf)
    assert ratio_p(one, other, 9.0) == 1.0
    assert pooled_dof(one, other) == 0
    assert pooled_dof(Share(1, 100, 30.0), Share(1, 1e9, 127.0)) == pytest.approx(30, rel=1e-3)


def test_a_figure_holds_no_nan_and_names_what_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="finite or None"):
        Figure(float("nan"), 0.0, 1.0, 1.0, 0.0)
    with pytest.raises(ValueError, match="reason"):
        Figure(None, 0.0, 1.0, 1.0, 0.0)
    assert Figure(None, 0.0, None, 1.0, 0.0, reason="no_events").reason == "no_events"
