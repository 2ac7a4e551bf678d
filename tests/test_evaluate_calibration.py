"""Figures of calibration: equal to scikit-learn's and to loops that anybody can read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from gateway.decide import EDGE
from gateway.evaluate import calibration as c

SHARED = Path(__file__).parents[2] / "shared" / "data"
"""Data sets that are no part of the project; tests that read them skip where they are absent."""

Floats = NDArray[np.float64]
EXACT = 1e-9


@dataclass(frozen=True)
class Case:
    p: Floats
    y: Floats
    amount: Floats
    category: NDArray[Any]


def simulated(n: int = 4000, seed: int = 0, scale: float = 1.0, shift: float = 0.0) -> Case:
    """Return payments whose log-odds are told `scale` times too far and shifted."""
    rng = np.random.default_rng(seed)
    z = rng.normal(-4.0, 1.8, n)
    y = (rng.random(n) < 1.0 / (1.0 + np.exp(-z))).astype(float)
    p = 1.0 / (1.0 + np.exp(-(scale * z + shift)))
    amount = np.rint(rng.lognormal(8.0, 1.2, n))
    category = rng.choice(np.array(["", "fuel", "grocery"], dtype=object), n)
    return Case(p, y, amount, category)


def _fitted(x: Floats, y: Floats, amount: Floats, category: NDArray[Any]) -> Case:
    """Return the probabilities of a model of half of the rows for the other half."""
    model = LogisticRegression(C=1.0, max_iter=200)
    centred = (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-12)
    model.fit(centred[::2], y[::2])
    p = model.predict_proba(centred[1::2])[:, 1]
    return Case(p, y[1::2], amount[1::2], category[1::2])


def handbook() -> Case:
    import pyarrow.parquet as pq

    path = SHARED / "fdh_card_transactions_2018-06-01_2018-08-10.parquet"
    if not path.exists():
        pytest.skip("the Fraud Detection Handbook's data are not here")
    names = ["TX_AMOUNT", "CUSTOMER_ID_AVG_AMOUNT_7DAY_WINDOW", "TERMINAL_ID_RISK_7DAY_WINDOW"]
    table = pq.read_table(path, columns=[*names, "TX_FRAUD"]).slice(0, 40_000)
    x = np.column_stack([table[name].to_numpy().astype(float) for name in names])
    y = table["TX_FRAUD"].to_numpy().astype(float)
    return _fitted(x, y, np.rint(100 * x[:, 0]), np.where(x[:, 0] > 60, "dear", ""))


def credit() -> Case:
    path = SHARED / "uci_credit_card_default.csv.gz"
    if not path.exists():
        pytest.skip("the UCI credit data are not here")
    table = np.loadtxt(path, delimiter=",", skiprows=1)[:16_000]
    x = table[:, [1, 6, 7, 8, 12, 18]]
    return _fitted(x, table[:, -1], np.rint(table[:, 1]), np.where(table[:, 2] > 1, "a", "b"))


@cache
def case(name: str) -> Case:
    return {"simulated": lambda: simulated(scale=1.3, shift=0.4), "handbook": handbook}.get(
        name, credit
    )()


datasets = pytest.mark.parametrize("name", ["simulated", "handbook", "credit"])


def lines(amount: Floats) -> tuple[Floats, Floats]:
    """Return three actions: approve, step up, decline."""
    zero = 0.0 * amount
    alphas = np.column_stack([zero, 60.0 + zero, 500.0 + 0.02 * amount])
    betas = np.column_stack([2500.0 + amount, 40.0 + 0.02 * amount, -500.0 - 0.02 * amount])
    return alphas, betas


# Against scikit-learn.


@datasets
def test_brier_log_loss_and_auc_are_those_of_scikit_learn(name: str) -> None:
    one = case(name)
    assert c.brier(one.p, one.y) == pytest.approx(brier_score_loss(one.y, one.p), abs=EXACT)
    clipped = np.clip(one.p, EDGE, 1 - EDGE)
    assert c.log_loss(one.p, one.y) == pytest.approx(log_loss(one.y, clipped), abs=EXACT)
    assert c.auc(one.p, one.y).value == pytest.approx(roc_auc_score(one.y, one.p), abs=EXACT)
    rounded = one.p.round(2)  # many ties
    assert c.auc(rounded, one.y).value == pytest.approx(roc_auc_score(one.y, rounded), abs=EXACT)


@datasets
def test_equal_mass_bins_are_those_of_scikit_learn(name: str) -> None:
    one = case(name)
    for p in (one.p, one.p.round(3)):
        observed, expected = calibration_curve(one.y, p, n_bins=10, strategy="quantile")
        bins = c.equal_mass_bins(p, one.y, 10)
        assert [b.observed for b in bins] == pytest.approx(observed.tolist(), abs=EXACT)
        assert [b.expected for b in bins] == pytest.approx(expected.tolist(), abs=EXACT)
        assert sum(b.n for b in bins) == len(p)


@datasets
def test_slope_and_intercept_are_those_of_scikit_learn(name: str) -> None:
    one = case(name)
    fitted = c.recalibration(one.p, one.y)
    assert fitted is not None
    oracle = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-14, max_iter=200)
    oracle.fit(c.logit(one.p)[:, None], one.y)
    assert fitted.slope == pytest.approx(float(oracle.coef_[0, 0]), abs=EXACT)
    assert fitted.intercept == pytest.approx(float(oracle.intercept_[0]), abs=EXACT)


# Against loops by hand.


def _solved(function: Any, low: float, high: float) -> float:
    """Return where a falling function is 0, by halving."""
    for _ in range(200):
        middle = (low + high) / 2.0
        low, high = (middle, high) if function(middle) > 0 else (low, middle)
    return (low + high) / 2.0


@datasets
def test_ratios_and_their_intervals_are_those_of_a_loop(name: str) -> None:
    one = case(name)
    z = NormalDist().inv_cdf(0.975)
    for weights in (None, one.amount):
        expected = observed = variance = 0.0
        for i, (p, y) in enumerate(zip(one.p.tolist(), one.y.tolist(), strict=True)):
            w = 1.0 if weights is None else float(weights[i])
            expected += w * p
            observed += w * y
            variance += w * w * p * (1.0 - p)
        given_ = c.observed_over_expected(one.p, one.y, weights)
        assert given_.value == pytest.approx(observed / expected, abs=EXACT)

        def score(r: float, o: float = observed, e: float = expected, v: float = variance) -> float:
            return (o - r * e) / math.sqrt(r * v)

        assert given_.low == pytest.approx(_solved(lambda r: score(r) - z, 1e-9, 50.0), abs=1e-7)
        assert given_.high == pytest.approx(_solved(lambda r: score(r) + z, 1e-9, 50.0), abs=1e-7)


@datasets
def test_spiegelhalter_wilson_and_costs_are_those_of_a_loop(name: str) -> None:
    one = case(name)
    top = bottom = 0.0
    for p, y in zip(one.p.tolist(), one.y.tolist(), strict=True):
        top += (y - p) * (1 - 2 * p)
        bottom += (1 - 2 * p) ** 2 * p * (1 - p)
    assert c.spiegelhalter_z(one.p, one.y) == pytest.approx(top / math.sqrt(bottom), abs=EXACT)

    z2 = NormalDist().inv_cdf(0.975) ** 2
    for k, n in ((0, 10), (3, 17), (10, 10), (5, 100_000)):
        low, high = c.wilson(k, n)
        for end in (low, high):
            # Wilson's ends are where the score test just does not refuse.
            assert (k / n - end) ** 2 == pytest.approx(z2 * end * (1 - end) / n, abs=EXACT)

    alphas, betas = lines(one.amount)
    total, without, constant = 0.0, 0.0, [0.0, 0.0, 0.0]
    rate = float(one.y.mean())
    for i in range(len(one.p)):
        pairs = list(zip(alphas[i].tolist(), betas[i].tolist(), strict=True))
        realised = [a + b * one.y[i] for a, b in pairs]
        by_p = [a + b * one.p[i] for a, b in pairs]
        by_rate = [a + b * rate for a, b in pairs]
        total += realised[by_p.index(min(by_p))]
        without += realised[by_rate.index(min(by_rate))]
        constant = [old + new for old, new in zip(constant, realised, strict=True)]
    arguments = (one.p, one.y, alphas, betas)
    assert c.action_costs(*arguments).sum() == pytest.approx(total, rel=EXACT)
    assert c.savings(*arguments).value == pytest.approx(1 - total / min(constant), abs=EXACT)
    added = c.savings_over_base_rate(*arguments).value
    assert added == pytest.approx(1 - total / without, abs=EXACT)


@datasets
def test_near_the_thresholds_is_what_a_loop_finds_there(name: str) -> None:
    one = case(name)
    alphas, betas = lines(one.amount)
    found = c.near(one.p, c.crossings(alphas, betas))
    grid = np.linspace(0.0, 1.0, 20_001)
    for i in range(0, len(one.p), 97):
        costs = alphas[i][:, None] + betas[i][:, None] * grid
        best = costs.argmin(axis=0)
        changes = grid[1:][np.diff(best) != 0]
        ratios = [one.p[i] / t for t in changes]
        if any(abs(math.log2(r)) > 0.99 and abs(math.log2(r)) < 1.01 for r in ratios if r > 0):
            continue  # at the edge: the grid is too coarse
        assert found[i] == any(0.5 <= r <= 2.0 for r in ratios)


@datasets
def test_standard_errors_are_those_of_the_information(name: str) -> None:
    """Of the curvature of the likelihood, by finite differences."""
    one = case(name)
    fitted = c.recalibration(one.p, one.y)
    assert fitted is not None
    x = c.logit(one.p)

    def likelihood(a: float, b: float) -> float:
        z = a + b * x
        return float((one.y * z - np.logaddexp(0, z)).sum())

    h, a, b = 1e-3, fitted.intercept, fitted.slope
    aa = (likelihood(a + h, b) - 2 * likelihood(a, b) + likelihood(a - h, b)) / h**2
    bb = (likelihood(a, b + h) - 2 * likelihood(a, b) + likelihood(a, b - h)) / h**2
    ab = (
        likelihood(a + h, b + h)
        - likelihood(a + h, b - h)
        - likelihood(a - h, b + h)
        + likelihood(a - h, b - h)
    ) / (4 * h**2)
    inverse = np.linalg.inv(-np.array([[aa, ab], [ab, bb]]))
    assert fitted.se_intercept == pytest.approx(math.sqrt(inverse[0, 0]), rel=1e-3)
    assert fitted.se_slope == pytest.approx(math.sqrt(inverse[1, 1]), rel=1e-3)


def test_delongs_interval_is_that_of_its_paper() -> None:
    """The structural components, as double loops."""
    one = simulated(600, seed=4)
    frauds, others = one.p[one.y > 0.5], one.p[one.y < 0.5]
    psi = (frauds[:, None] > others).astype(float) + 0.5 * (frauds[:, None] == others)
    m, n = psi.shape
    v10, v01 = psi.mean(axis=1), psi.mean(axis=0)
    variance = v10.var(ddof=1) / m + v01.var(ddof=1) / n
    found = c.auc(one.p, one.y)
    half = NormalDist().inv_cdf(0.975) * math.sqrt(variance)
    assert found.value == pytest.approx(psi.mean(), abs=EXACT)
    assert found.high - found.value == pytest.approx(min(half, 1 - psi.mean()), abs=EXACT)


# What figures are for.


def test_probabilities_that_hold_are_found_to_hold() -> None:
    """At 99.9 % the true value is in each interval, in 40 samples."""
    for seed in range(40):
        one = simulated(5000, seed)
        alphas, betas = lines(one.amount)
        sample = c.Sample(one.p, one.y, one.amount, alphas, betas, one.category)
        found = c.figures(sample, confidence=0.999)
        assert found.ratio.low < 1 < found.ratio.high
        assert found.money.low < 1 < found.money.high
        assert found.slope.low < 1 < found.slope.high
        assert abs(found.spiegelhalter_z) < 4
        assert all(near.ratio.low < 1 < near.ratio.high for near in found.near if near.frauds)
        assert found.excess_cost.low < 0.05 * found.cost.value
        assert found.savings_over_base_rate.value > 0


def test_what_was_bent_is_measured() -> None:
    bent = simulated(60_000, scale=2.0, shift=1.0)
    fitted = c.recalibration(bent.p, bent.y)
    assert fitted is not None
    assert fitted.slope == pytest.approx(0.5, abs=4 * fitted.se_slope)
    assert fitted.intercept == pytest.approx(-0.5, abs=4 * fitted.se_intercept)
    alphas, betas = lines(bent.amount)
    assert c.excess_cost(bent.p, bent.y, alphas, betas, confidence=0.99).low > 0
    right = fitted.of(bent.p)
    assert c.excess_cost(right, bent.y, alphas, betas, confidence=0.99).low < 0
    again = c.recalibration(right, bent.y)
    assert again is not None
    assert (again.intercept, again.slope) == pytest.approx((0.0, 1.0), abs=1e-6)


def test_payments_that_come_in_copies_are_no_more_evidence() -> None:
    """Each payment five times, in one cluster: the intervals are those of each once."""
    one = simulated(3000, seed=9)
    codes = np.repeat(np.arange(len(one.p)), 5)
    p, y = np.repeat(one.p, 5), np.repeat(one.y, 5)
    once, many = c.auc(one.p, one.y), c.auc(p, y, codes)
    assert many == pytest.approx(once, abs=2e-3)
    naive = c.observed_over_expected(p, y)
    once, many = c.observed_over_expected(one.p, one.y), c.observed_over_expected(p, y, None, codes)
    assert many == pytest.approx(once, rel=1e-6)
    assert naive.high - naive.low < 0.5 * (many.high - many.low)
    alone = c.recalibration(one.p, one.y, cluster=np.arange(len(one.p)))
    copies = c.recalibration(p, y, cluster=codes)
    assert alone is not None
    assert copies is not None
    assert copies.se_slope == pytest.approx(alone.se_slope, rel=1e-6)


probabilities = st.lists(
    st.tuples(st.floats(0.0, 1.0), st.booleans(), st.integers(0, 3)), min_size=1, max_size=60
)


@given(probabilities)
def test_no_figure_breaks_on_any_payments(rows: list[tuple[float, bool, int]]) -> None:
    """One class only, one payment, certainties, equal probabilities: NaN at the worst."""
    p = np.array([row[0] for row in rows])
    y = np.array([float(row[1]) for row in rows])
    cluster = np.array([row[2] for row in rows])
    amount = 100.0 * (1 + cluster)
    alphas, betas = lines(amount)
    names = np.array(["", "a", "b", "a"], dtype=object)[cluster]
    found = c.figures(c.Sample(p, y, amount, alphas, betas, names, cluster))
    assert found.n == len(rows)
    for one in (found.ratio, found.money, found.auc, found.cost, found.savings):
        assert math.isnan(one.value) or (
            one.low <= one.value + 1e-9 and one.value <= one.high + 1e-9
        )
    assert sum(b.n for b in found.bins) == len(rows)


@given(probabilities, st.floats(0.1, 10.0))
def test_the_unit_of_money_changes_no_ratio(
    rows: list[tuple[float, bool, int]], unit: float
) -> None:
    p = np.array([row[0] for row in rows])
    y = np.array([float(row[1]) for row in rows])
    amount = np.array([100.0 * (1 + row[2]) for row in rows])
    one = c.observed_over_expected(p, y, amount)
    other = c.observed_over_expected(p, y, unit * amount)
    assert other == pytest.approx(one, rel=1e-9, nan_ok=True)


def test_labels_that_are_told_without_an_error_have_no_slope() -> None:
    p = np.array([0.1, 0.2, 0.8, 0.9])
    assert c.recalibration(p, np.array([0.0, 0.0, 1.0, 1.0])) is None
    assert c.recalibration(p, np.zeros(4)) is None
