"""When a change began: steps and ramps in days, and series in which nothing changes."""

from __future__ import annotations

import numpy as np
import pytest

from gateway.evaluate.onset import SURE_DAYS, onset

DAY = np.arange(20_000, 20_063)
ONE = np.ones(len(DAY))


@pytest.fixture
def chance() -> np.random.Generator:
    return np.random.default_rng(8)


@pytest.mark.parametrize("by", [1.5, 3.0, 8.0])
def test_a_step_is_held_by_its_interval(chance: np.random.Generator, by: float) -> None:
    """`by`: in standard deviations of a day. Where it is not sure, it says so."""
    held, sure, exact, times = 0, 0, 0, 200
    for _ in range(times):
        first = int(chance.integers(5, 61))
        found = onset(DAY, chance.normal(0, 1, len(DAY)) + by * (np.arange(len(DAY)) >= first), ONE)
        if found:
            sure += 1
            held += found.earliest <= DAY[first] <= found.latest
            exact += found.day == DAY[first]
            assert found.latest - found.earliest < SURE_DAYS + 2
    assert sure >= {1.5: 0.3, 3.0: 0.9, 8.0: 0.99}[by] * times
    assert held >= 0.93 * sure
    assert exact >= {1.5: 0.3, 3.0: 0.7, 8.0: 0.97}[by] * sure


@pytest.mark.parametrize("slope", [0.5, 2.0])
def test_a_ramp_is_held_by_its_interval(chance: np.random.Generator, slope: float) -> None:
    held, sure, ramps, times = 0, 0, 0, 200
    for _ in range(times):
        first = int(chance.integers(20, 53))
        rise = slope * (np.arange(len(DAY)) - first + 0.5).clip(0)
        found = onset(DAY, chance.normal(0, 1, len(DAY)) + rise, ONE)
        if found:
            sure += 1
            ramps += found.shape == "ramp"
            held += found.earliest <= DAY[first] <= found.latest
    assert sure >= 0.9 * times
    assert held >= 0.93 * sure
    assert ramps >= 0.95 * sure


@pytest.mark.parametrize("common", [0.0, 0.4])
def test_nothing_began_where_nothing_changes(chance: np.random.Generator, common: float) -> None:
    """Days that hang together wander, which is no change."""
    found = 0
    for _ in range(400):
        noise = chance.normal(0, 1, len(DAY))
        for i in range(1, len(noise)):
            noise[i] += common * noise[i - 1]
        found += onset(DAY, noise, ONE) is not None
    assert found <= (16 if common else 12)


def test_days_that_are_not_known_are_passed_over(chance: np.random.Generator) -> None:
    figure = chance.normal(0, 0.1, len(DAY)) + 5.0 * (np.arange(len(DAY)) >= 40)
    figure[20:25] = np.nan
    weight = ONE.copy()
    figure[30], weight[30] = 1e9, 0.0
    found = onset(DAY, figure, weight)
    assert found is not None
    assert (found.day, found.earliest, found.latest) == (DAY[40],) * 3


def test_weights_say_which_days_count(chance: np.random.Generator) -> None:
    """A day of few decisions is far off by chance, and no change."""
    figure = chance.normal(0, 0.1, len(DAY)) + 1.0 * (np.arange(len(DAY)) >= 50)
    weight = ONE.copy()
    figure[5], weight[5] = 30.0, 1e-4
    found = onset(DAY, figure, weight)
    assert found is not None
    assert found.day == DAY[50]


def test_a_few_days_or_none_that_differ_say_nothing() -> None:
    assert onset(DAY[:5], np.array([0.0, 0, 0, 9, 9]), ONE[:5]) is None
    assert onset(DAY, np.full(len(DAY), 3.0), ONE) is None
    assert onset(DAY[:0], ONE[:0], ONE[:0]) is None


def test_the_errors_are_those_of_least_squares(chance: np.random.Generator) -> None:
    """The likeliest day is the one of the least weighted squares, fitted one by one."""
    for _ in range(20):
        weight = chance.uniform(0.2, 2, len(DAY))
        figure = chance.normal(0, 1, len(DAY)) + 6.0 * (np.arange(len(DAY)) >= 45)
        errors = {}
        for i in range(3, len(DAY)):
            for shape in ("step", "ramp"):
                if shape == "ramp" and len(DAY) - i <= 2:
                    continue
                since = (DAY - DAY[i] + 0.5).clip(0)
                column = since if shape == "ramp" else (since > 0).astype(float)
                design = np.stack([ONE, column], axis=1) * np.sqrt(weight)[:, None]
                wanted = figure * np.sqrt(weight)
                left = wanted - design @ np.linalg.lstsq(design, wanted, rcond=None)[0]
                errors[int(DAY[i]), shape] = float(left @ left)
        found = onset(DAY, figure, weight)
        assert found is not None
        assert (found.day, found.shape) == min(errors, key=lambda key: errors[key])
