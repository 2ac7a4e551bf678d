"""Verdicts say no more than intervals allow; breaches are held to all that were compared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from coverage import Customers, Declines
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from gateway.evaluate.intervals import Figure, Share, ratio_bounds
from gateway.evaluate.power import (
    further_for_rate,
    further_for_ratio,
)
from gateway.evaluate.rates import Ratio, rate_ratio, ratio_of, share_figure, worth
from gateway.evaluate.sums import Counts
from gateway.evaluate.support import bounds, explored, supported_ratio
from gateway.evaluate.verdicts import Correction, amount_budget, budget, corrected, parities, target

B = 128
CORRECTIONS: tuple[Correction, ...] = ("holm", "fdr_bh")


def ratio(k1: float, n1: float, k0: float, n0: float) -> Ratio:
    one = Counts(np.full(B, k1 / B), np.full(B, n1 / B))
    return ratio_of(Share(k1, n1, B - 1.0), Share(k0, n0, B - 1.0), one, 1.0)


def test_a_target_is_met_or_missed_by_its_whole_interval_only() -> None:
    figure = Figure(0.05, 0.04, 0.06, 1000.0, 50.0)
    for at_most, says in ((0.06, "met"), (0.07, "met"), (0.05, "undecided"), (0.039, "missed")):
        assert target(figure, at_most=at_most).says == says
    for at_least, says in ((0.04, "met"), (0.01, "met"), (0.05, "undecided"), (0.061, "missed")):
        assert target(figure, at_least=at_least).says == says
    assert target(figure, at_most=0.04).says == "undecided"  # its end is not beyond the limit
    assert target(figure, at_most=0.5, least_n=1001.0) == ("undecided", "too_few")
    with pytest.raises(ValueError, match="at_most or at_least"):
        target(figure, at_most=0.1, at_least=0.1)


def test_a_side_that_is_open_decides_nothing_and_the_other_may() -> None:
    open_above = Figure(None, 0.2, None, 1000.0, 5.0, reason="no_events_in_reference")
    assert target(open_above, at_most=0.1) == ("missed", "interval_outside")
    assert target(open_above, at_least=0.1) == ("met", "interval_inside")
    assert target(open_above, at_most=0.5) == ("undecided", "no_events_in_reference")
    unsaid = Figure(None, None, None, 1000.0, 5.0, reason="not_calibrated")
    assert target(unsaid, at_most=0.5) == ("undecided", "not_calibrated")


def test_parity_is_pass_breach_or_undecided() -> None:
    found = parities(
        [
            ratio(5_000, 100_000, 50_000, 1_000_000),  # 1, narrow
            ratio(10_000, 100_000, 50_000, 1_000_000),  # 2, narrow
            ratio(2_500, 100_000, 50_000, 1_000_000),  # 1/2, narrow
            ratio(5, 100, 50_000, 1_000_000),  # 1, wide
            ratio(40, 99, 50_000, 1_000_000),  # 8, of 99
        ]
    )
    assert [one.says for one in found] == ["pass", "breach", "breach", "undecided", "undecided"]
    assert [one.because for one in found][3:] == ["interval_across", "too_few"]
    assert found[4].p is None
    assert found[0].p == 1.0


def test_a_breach_that_many_comparisons_explain_is_undecided() -> None:
    near = ratio(62, 1_000, 40_000, 1_000_000)
    limits = (0.5, float(ratio_bounds(near.one, near.other, confidence=0.98)[0]))  # p is 0.02
    assert parities([near], limits=limits)[0].says == "breach"
    others = [ratio(4_000, 100_000, 40_000, 1_000_000)] * 9
    found = parities([near, *others], limits=limits)
    assert (found[0].says, found[0].because) == ("undecided", "many_compared")
    assert found[0].p_adjusted == pytest.approx(10 * found[0].p)
    # Of ten true breaches beside it, a rule that bounds the share of false ones would let it pass.
    breaches = [ratio(90_000, 100_000, 40_000, 1_000_000)] * 10
    found = parities([near, *others, *breaches], limits=limits)
    assert [one.says for one in found] == ["undecided"] + ["pass"] * 9 + ["breach"] * 10
    too_small = ratio(4, 99, 40_000, 1_000_000)
    assert parities([near, too_small], limits=limits)[0].says == "breach"  # not of the family


def test_alone_a_breach_is_just_an_interval_outside() -> None:
    """p-values and intervals come of one test: without others, they never disagree."""
    chance = np.random.default_rng(3)
    outside = 0
    for _ in range(300):
        counts = replace(Customers(many=300, payments=5.0), rate=0.03, small_rate=0.09).counts(
            chance
        )
        one, other = (Counts(k, n) for k, n in zip(*counts, strict=True))
        found = rate_ratio(one, other, like=1.5)
        low, high = found.figure.low, found.figure.high
        beyond = (low is not None and low > 1.25) or (high is not None and high < 0.8)
        says = parities([found], least_n=1.0)[0].says
        assert (says == "breach") == beyond
        outside += beyond
    assert 20 < outside < 280


def test_ratios_of_what_declines_hide_are_judged_by_the_same_rule() -> None:
    one, other = Declines(many=12_000, small_base=0.02).sums(np.random.default_rng(3))
    by_exploration, by_bounds, refused = (
        supported_ratio(form(one), form(other))
        for form in (
            lambda s: explored(s, "false_positive_rate"),
            lambda s: bounds(s, "false_positive_rate"),
            lambda s: explored(s, "false_positive_rate", least=1e9),
        )
    )
    found = parities([by_exploration, by_bounds, refused])
    assert by_exploration.figure.low > 1.25
    assert found[0].says == "breach"
    assert found[1][:2] == ("undecided", "bounds_only")
    assert found[2][:2] == ("undecided", "too_few_explored")


def test_rarely_is_any_of_many_equal_groups_called_a_breach() -> None:
    """Twenty groups on the limit itself: in no more than 5 % of worlds is one of them a breach."""
    chance, called, worlds = np.random.default_rng(5), 0, 100
    reference = Share(1e6, 2e7, B - 1.0)
    for _ in range(worlds):
        k = chance.binomial(4_000, 0.05 * 1.25, 20)
        compared = [
            ratio_of(
                Share(float(x), 4_000.0, B - 1.0),
                reference,
                Counts(np.full(B, x / B), np.full(B, 4_000.0 / B)),
                1.0,
            )
            for x in k
        ]
        called += any(one.says == "breach" for one in parities(compared))
    assert called / worlds < 0.05 + 3 * np.sqrt(0.05 * 0.95 / worlds)


def test_an_error_budget_is_what_an_objective_leaves() -> None:
    found = budget(9_992, 10_000, 0.999)
    assert found.allowed == pytest.approx(10.0)
    assert (found.used, found.kept) == (8.0, True)
    assert found.left == pytest.approx(2.0)
    assert found.share_left == pytest.approx(0.2)
    over = budget(9_980, 10_000, 0.999)
    assert over.left == pytest.approx(-10.0)
    assert (over.share_left, over.kept) == (pytest.approx(-1.0), False)
    assert budget(9_980, 10_000, 0.999, window_total=40_000.0).left == pytest.approx(20.0)
    assert budget(9, 10, 0.9) == (pytest.approx(1.0), 1.0, 0.0, 0.0, True)
    assert budget(0, 0, 0.99).kept is None
    assert budget(10, 10, 1.0) == (0.0, 0.0, 0.0, None, True)
    assert budget(9, 10, 1.0).kept is False
    assert amount_budget(30.0, 100.0).share_left == pytest.approx(0.7)
    assert amount_budget(1.0, 0.0) == (0.0, 1.0, -1.0, None, False)
    for wrong in ((11, 10, 0.9), (-1, 10, 0.9), (1, 10, 1.1)):
        with pytest.raises(ValueError, match=r"good|objective"):
            budget(*wrong)


def test_as_many_further_labels_decide_a_ratio_four_times_of_five() -> None:
    chance, rate, true = np.random.default_rng(7), 0.02, 1.6
    seen = Share(true * rate * 1_000, 1_000.0, 127.0)
    other = Share(rate * 20_000, 20_000.0, 127.0)
    needed = further_for_ratio(seen, other, 1_000.0)
    n1, n0 = 1_000 + needed.further, int(20_000 * needed.factor)
    assert n1 == pytest.approx(1_000 * needed.factor, abs=1.0)
    k1, k0 = chance.binomial(n1, true * rate, 400), chance.binomial(n0, rate, 400)
    decided = [
        ratio(float(a), float(n1), float(b), float(n0)).figure.low > 1.25
        for a, b in zip(k1, k0, strict=True)
    ]
    assert np.mean(decided) == pytest.approx(0.8, abs=0.07)


def test_the_known_sizes_of_a_small_group_come_out() -> None:
    """158, 48 and 16 false positives tell a ratio of 1.25, 1.5 and 2 from 1 (large reference)."""
    for true, events in ((1.25, 158), (1.5, 48), (2.0, 16)):
        one, other = Share(1e-4 * true, 1.0, 1e9), Share(1e12 * 1e-4, 1e12, 1e9)
        needed = further_for_ratio(one, other, 1.0, limits=(1.0, 1.0))
        assert (1.0 + needed.further) * 1e-4 * true == pytest.approx(events, abs=1.0)


def test_as_many_further_labels_decide_a_rate_and_a_design_effect_multiplies_them() -> None:
    chance, true, limit = np.random.default_rng(8), 0.012, 0.01
    share = Share(true * 2_000, 2_000.0, 127.0)
    needed = further_for_rate(share, 2_000.0, limit)
    n = 2_000 + needed.further
    k = chance.binomial(n, true, 400)
    lows = [target(_rate(float(x), float(n)), at_most=limit).says == "missed" for x in k]
    assert np.mean(lows) == pytest.approx(0.8, abs=0.07)
    thrice = further_for_rate(Share(share.events / 3, share.trials / 3, 127.0), 2_000.0, limit)
    assert thrice.factor == pytest.approx(3 * needed.factor)
    assert further_for_rate(share, 2_000.0, true) == (None, None, None)
    assert further_for_rate(Share(0.0, 0.0, 0.0), 0.0, 0.1).reason == "no_observations"
    assert further_for_rate(share, 2_000.0, 0.9).further == 0


def _rate(k: float, n: float) -> Figure:
    counts = Counts(np.full(B, k / B), np.full(B, n / B))
    return share_figure(worth(counts).share, counts, 1.0)


@given(st.lists(st.floats(0.0, 1.0), max_size=12))
@settings(max_examples=30, deadline=None)
def test_corrections_are_statsmodels(p_values: list[float]) -> None:
    for correction in CORRECTIONS:
        found = corrected(p_values, correction)
        wanted = multipletests(p_values, method=correction)[1] if p_values else []
        assert found == pytest.approx(tuple(wanted), rel=1e-12, abs=0.0)
