"""Who looks each day is not fooled: sequences hold at all looks, and say nothing of too little."""

from __future__ import annotations

from dataclasses import replace
from math import log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from peeking import DAYS, WORLDS, World, added, sides, total
from scipy.integrate import quad
from scipy.stats import norm

from gateway.evaluate.sequential import (
    ALPHA,
    LEAST_EVENTS,
    MISMATCH_ALPHA,
    Side,
    difference,
    mismatch,
    mismatched,
    mixing,
    ratio,
    reach,
)
from gateway.evaluate.sums import Counts

B = 128
EXPERIMENTS = 100


def said(seed: int, world: World = WORLDS[3], experiments: int = 1) -> tuple[Side, Side]:
    """Return both arms' goal by experiment and day, not yet added up."""
    chance = np.random.default_rng(seed)
    pairs = (sides(world, chance, experiments, arm=arm) for arm in (True, False))
    one, other = (goal for goal, _ in pairs)
    return one, other


def test_no_more_is_shipped_falsely_than_declared_and_the_truth_is_held_at_all_looks() -> None:
    nulls = [world for world in WORLDS if world.null]
    found = [total(world, 7 + place, EXPERIMENTS) for place, world in enumerate(nulls)]
    error = 3.0 * (ALPHA * (1.0 - ALPHA) / (EXPERIMENTS * len(nulls))) ** 0.5
    assert np.mean([one.ship for one in found]) <= ALPHA + error
    assert np.mean([one.held for one in found]) >= 1.0 - ALPHA - error
    for world, one in zip(nulls, found, strict=True):
        assert one.passes(world, EXPERIMENTS), (world, one)
    # The worlds are hard enough to fool who takes an interval of one look.
    assert max(one.once for one in found if one.once < 0.9) > ALPHA + error


def test_a_change_as_large_as_declared_is_mostly_found() -> None:
    world = next(one for one in WORLDS if one.name == "30 % less" and one.rate == 0.003)
    assert total(world, 3, EXPERIMENTS).ship > 0.7


@pytest.mark.parametrize("sigma", [None, 1.0])
def test_ratios_hold_at_all_looks(sigma: float | None) -> None:
    world = World("30 % less", 0.005, change=-0.3, share=0.2, payments=12_000, sigma=sigma)
    found = ratio(*map(added, said(11, world, EXPERIMENTS)), effect=-0.3)
    held = ((found.low <= 0.7) & (found.high >= 0.7)).all(axis=1).mean()
    assert held >= 1.0 - ALPHA - 3.0 * (ALPHA / EXPERIMENTS) ** 0.5
    assert (found.high[:, -1] < 1.0).mean() > 0.5


@given(st.floats(1e-3, 1e3), st.floats(0.01, 0.2))
def test_a_sequence_ends_where_the_mixture_of_likelihoods_is_one_over_alpha(
    learnt: float, alpha: float
) -> None:
    z = float(reach(np.array(1.0), learnt, alpha))
    sd = learnt**0.5
    # The mixed integrand is a normal's: look where it is, it is narrow.
    middle, width = z * learnt / (1.0 + learnt), (learnt / (1.0 + learnt)) ** 0.5
    mixed, _ = quad(
        lambda theta: np.exp(theta * z - theta**2 / 2.0) * norm.pdf(theta, scale=sd),
        middle - 12.0 * width,
        middle + 12.0 * width,
    )
    assert mixed == pytest.approx(1.0 / alpha, rel=1e-6)


@given(st.floats(1e-5, 1.0), st.floats(0.001, 0.2), st.booleans())
def test_the_mixture_is_tightest_where_it_is_as_wide_as_the_effect(
    effect: float, alpha: float, is_less: bool
) -> None:
    mixed = mixing(-effect if is_less else effect, alpha)
    variances = np.geomspace(1e-6, 10.0, 20_001) * effect**2
    widths = reach(variances, mixed, alpha) * np.sqrt(variances)
    variance = variances[np.argmin(abs(widths - effect))]
    others = reach(np.array(variance), mixed * np.geomspace(0.01, 100.0, 2001), alpha)
    assert float(reach(variance, mixed, alpha)) <= others.min() * 1.001


@given(st.integers(0, 2**32 - 1), st.integers(1, DAYS))
def test_neither_order_of_days_nor_earlier_looks_count(seed: int, days: int) -> None:
    one, other = (Side(*(sums[0, :days] for sums in side)) for side in said(seed % 50))
    order = np.random.default_rng(seed).permutation(days)
    for compare in (difference, ratio):
        looked = compare(
            *(Side(*(np.cumsum(s, 0) for s in side)) for side in (one, other)), effect=0.1
        )
        shuffled = (Side(*(s[order].sum(0) for s in side)) for side in (one, other))
        once = compare(*shuffled, effect=0.1)
        np.testing.assert_allclose([end[-1] for end in looked], list(once), rtol=1e-9)


@given(st.integers(0, 50), st.floats(1e-3, 1e3))
def test_arms_may_be_named_the_other_way_round_and_units_do_not_matter(
    seed: int, scale: float
) -> None:
    one, other = map(added, said(seed, WORLDS[6]))
    there, back = difference(one, other, effect=0.001), difference(other, one, effect=-0.001)
    np.testing.assert_allclose(there.low, -back.high, rtol=1e-9)
    there, back = ratio(one, other, effect=0.1), ratio(other, one, effect=0.1)
    np.testing.assert_allclose(there.low, 1.0 / back.high, rtol=1e-9)
    scaled = (side._replace(over=side.over * scale) for side in (one, other))
    np.testing.assert_allclose(ratio(*scaled, effect=0.1).low, there.low, rtol=1e-6)


def test_customers_in_both_arms_are_compared_with_themselves() -> None:
    chance = np.random.default_rng(3)
    danger = chance.gamma(0.5, 2.0, B)
    n = np.full(B, 10_000.0)
    one, other = (Side.of(Counts(chance.poisson(n * 0.01 * danger) * 1.0, n)) for _ in "ab")
    apart = other._replace(over=other.over[::-1], events=other.events[::-1])
    paired, unpaired = (difference(one, two, effect=0.001) for two in (other, apart))
    assert paired.value == unpaired.value
    assert paired.information >= unpaired.information


@pytest.mark.parametrize("of", ["nothing", "no events", "few events", "one bucket"])
def test_of_too_little_nothing_is_said(of: str) -> None:
    n, k = np.full(B, 1000.0), np.zeros(B)
    if of == "nothing":
        n = np.zeros(B)
    if of == "few events":
        k[: int(LEAST_EVENTS) - 1] = 1.0
    if of == "one bucket":
        n, k = np.eye(B)[0] * 1e6, np.eye(B)[0] * 1e4
    side = Side.of(Counts(k, n))
    for compare in (difference, ratio):
        found = compare(side, side, effect=0.1)
        assert found.high == np.inf
        assert found.low <= 0.0
        assert found.information == 0.0


def test_an_arm_that_few_frauds_came_to_by_chance_is_not_sure_of_it() -> None:
    """The score's variance: an arm without any has none of its own, and is no surer for it."""
    n = np.full(B, 1000.0)
    none, some = np.zeros(B), np.zeros(B)
    some[:40] = 1.0
    spread = difference(Side.of(Counts(none, n)), Side.of(Counts(some, n)), effect=1e-4)
    assert spread.information <= 1.0 / (40.0 / (B * 1000.0) ** 2) * 1.01
    assert spread.high > spread.value


def test_two_large_customers_an_arm_are_no_many() -> None:
    """What a variance of two clusters does not know of itself, Student's reach does."""
    chance, experiments = np.random.default_rng(4), 2000
    arms = []
    for _ in range(2):
        rate = 0.05 * chance.gamma(10.0, 0.1, (experiments, 1, 2))
        n = np.full((experiments, 20, 2), 20_000)
        k = chance.binomial(n, rate).cumsum(axis=1).astype(float)
        arms.append(Side.of(Counts(k, n.cumsum(axis=1).astype(float))))
    found = difference(*arms, effect=0.03)
    held = ((found.low <= 0.0) & (found.high >= 0.0)).all(axis=1).mean()
    assert held >= 1.0 - ALPHA - 3.0 * (ALPHA * (1.0 - ALPHA) / experiments) ** 0.5


def test_an_effect_of_nought_is_refused() -> None:
    with pytest.raises(ValueError, match="least effect"):
        mixing(0.0)
    with pytest.raises(ValueError, match="above -1"):
        ratio(*said(1), effect=-1.0)


@given(
    st.lists(st.integers(0, 2), min_size=1, max_size=60),
    st.tuples(*[st.floats(0.01, 1.0)] * 3),
)
def test_the_evidence_against_an_assignment_is_an_urns(
    units: list[int], shares: tuple[float, float, float]
) -> None:
    """Unit by unit: what the mixture foretold, over what was declared."""
    expected = np.array(shares) / sum(shares)
    urn, evidence = 1000.0 * expected, 0.0
    for unit in units:
        evidence += log(urn[unit] / urn.sum()) - log(expected[unit])
        urn[unit] += 1.0
    drawn = np.bincount(units, minlength=3)
    assert mismatch(drawn, np.array(shares)) == pytest.approx(evidence, abs=1e-8)


def test_right_assignments_are_hardly_ever_called_wrong_and_wrong_ones_are() -> None:
    chance = np.random.default_rng(9)
    experiments, shares = 4000, np.array([0.9, 0.05])
    drawn = chance.multinomial(500, shares / shares.sum(), (experiments, DAYS)).cumsum(axis=1)
    alarmed = mismatched(drawn, shares).any(axis=1).mean()
    assert alarmed <= MISMATCH_ALPHA + 3.0 * (MISMATCH_ALPHA / experiments) ** 0.5
    wrong = chance.multinomial(500, [0.935, 0.065], (200, DAYS)).cumsum(axis=1)
    assert mismatched(wrong, shares).any(axis=1).mean() > 0.99
    with pytest.raises(ValueError, match="above 0"):
        mismatch(drawn, np.array([1.0, 0.0]))


def test_a_world_without_events_ships_nothing() -> None:
    nothing = total(replace(WORLDS[0], rate=1e-9), 1, 5)
    assert nothing.ship == nothing.stop == 0.0
    assert nothing.undecided == 1.0
