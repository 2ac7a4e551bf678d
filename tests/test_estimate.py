"""The estimate of a step's cost settles at its quantile, finds a new one, and forgets."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.serve.hall.estimate import BASE_HALVES_NS, HALVES_NS, CostEstimate

MS = 1_000_000


@pytest.mark.parametrize("typical_ns", [20_000, 5 * MS])
def test_one_in_a_hundred_takes_longer(typical_ns: int) -> None:
    draw = random.Random(typical_ns)
    samples = [round(typical_ns * draw.lognormvariate(0, 0.3)) for _ in range(40_000)]
    estimate = CostEstimate({1: typical_ns}, 0)
    longer = 0
    for i, took_ns in enumerate(samples):
        longer += i >= 5_000 and took_ns > estimate.of(1, i)
        estimate.learn(1, took_ns, i)
    assert longer / 35_000 == pytest.approx(0.01, abs=0.004)
    assert estimate.of(1, 40_000) == pytest.approx(np.quantile(samples, 0.99), rel=0.3)


def test_a_new_cost_is_found_at_once_and_a_single_pause_is_none() -> None:
    estimate = CostEstimate({1: 50_000}, 0)
    estimate.learn(1, 40 * MS, 1)
    assert estimate.of(1, 1) <= 100_000
    for i in range(12):
        estimate.learn(1, 40 * MS, i)
    assert estimate.of(1, 12) >= 0.9 * 40 * MS


def test_what_is_not_tried_is_forgotten() -> None:
    """What was learned within seconds, what was measured before the first call within minutes."""
    estimate = CostEstimate({1: 10 * MS}, 0)
    for i in range(30):
        estimate.learn(1, 100 * MS, i)
    assert estimate.most(1, 25 * MS, 0) == 0
    assert estimate.most(1, 25 * MS, 3 * HALVES_NS) == 1
    assert estimate.of(1, 10 * HALVES_NS) > 8 * MS
    measured = CostEstimate({1: 100 * MS}, 0)
    assert measured.most(1, 25 * MS, 3 * HALVES_NS) == 0
    assert measured.most(1, 25 * MS, 3 * BASE_HALVES_NS) == 1


def test_more_rows_than_were_measured_cost_as_much_more_as_the_last_did() -> None:
    """A heavy model is not measured to the end: 40 ms a row, and 40 ms whatever the rows."""
    linear = CostEstimate({1: 40 * MS, 2: 80 * MS, 4: 160 * MS}, 0)
    flat = CostEstimate({1: 40 * MS, 2: 40 * MS, 4: 40 * MS}, 0)
    assert linear.of(16, 0) == pytest.approx(640 * MS)
    assert flat.of(128, 0) == pytest.approx(40 * MS)
    assert CostEstimate({1: 2_500 * MS}, 0).most(128, 3_000 * MS, 0) == 1


def test_what_one_row_was_thought_to_take_does_not_keep_many_from_being_tried() -> None:
    """A machine that stood still again and again is forgiven by the next thousand calls."""
    estimate = CostEstimate({1: 20_000, 128: 200_000}, 0)
    for i in range(10):
        estimate.learn(1, 40 * MS, i)
    assert estimate.most(128, MS, 10) == 0
    for i in range(10_000):
        estimate.learn(1, 20_000, 10 + i)
    assert estimate.most(128, MS, 20_000) >= 16


operations = st.lists(
    st.tuples(st.integers(1, 300), st.integers(1, 10**9), st.integers(0, 10**9)), max_size=60
)


@given(operations=operations, n=st.integers(0, 300), slack_ns=st.floats(0, 1e9))
def test_more_rows_never_take_less_and_as_many_are_taken_as_fit(
    operations: list[tuple[int, int, int]], n: int, slack_ns: float
) -> None:
    estimate, now_ns = CostEstimate({1: 1_000, 128: 50_000}, 0), 0
    for rows, took_ns, passed_ns in operations:
        now_ns += passed_ns
        estimate.learn(rows, took_ns, now_ns)
    costs = [estimate.of(rows, now_ns) for rows in range(1, 301)]
    assert costs == sorted(costs)
    most = estimate.most(n, slack_ns, now_ns)
    assert 0 <= most <= n
    assert most == 0 or costs[most - 1] <= slack_ns
    if most < n:
        assert costs[most] > slack_ns
