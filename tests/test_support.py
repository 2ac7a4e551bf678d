"""What declines hide: unbiased by exploration, named by basis, and refused where nothing speaks."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from coverage import TARGETS, Declines

from gateway.evaluate.rates import rate_ratio
from gateway.evaluate.sums import Counts, SupportSums
from gateway.evaluate.support import (
    Method,
    bounds,
    explored,
    model_implied,
    supported_ratio,
)

METHODS: tuple[Method, ...] = ("ips", "self_normalised", "doubly_robust")


def sums_of(
    y: np.ndarray, p: np.ndarray, against: np.ndarray, e: np.ndarray, let: np.ndarray
) -> SupportSums:
    """Return sums of payments, each a bucket of its own, as the definitions read."""
    passed, shown, hidden = ~against, against & let, against & ~let
    w = 1.0 / np.where(e > 0.0, e, 1.0)
    return SupportSums(
        *(passed * v for v in (1.0 - y, y, p)),
        *(shown * v for v in (1.0 - y, y, p, w * (1.0 - y), w * y, w * p, w * w)),
        *((hidden & (e > 0.0)) * v for v in (np.ones(len(y)), p)),
        *((hidden & (e == 0.0)) * v for v in (np.ones(len(y)), p)),
    )


@pytest.mark.parametrize("method", ["ips", "doubly_robust"])
def test_over_all_draws_of_exploration_the_declined_genuine_are_told_exactly(
    method: Method,
) -> None:
    """Every one of the 1,024 draws, by its chance: the mean is the truth, whatever p says."""
    chance = np.random.default_rng(4)
    m, passed = 10, 40
    y = np.concatenate([np.array([0, 1, 0, 0, 1, 0, 0, 1, 0, 0]), np.arange(passed) % 8 == 0])
    y = y.astype(float)
    p = np.concatenate([np.clip(0.15 + 0.7 * y[:m], 0, 1), chance.uniform(0, 0.2, passed)])
    against = np.arange(m + passed) < m
    e = np.where(against, np.tile([0.45, 0.55], (m + passed) // 2), 0.5)
    mean = dict.fromkeys(("false_positive_rate", "true_positive_rate"), 0.0)
    for draw in product([False, True], repeat=m):
        let = np.concatenate([np.array(draw), np.zeros(passed, bool)])
        weight = float(np.prod(np.where(let[:m], e[:m], 1.0 - e[:m])))
        sums = sums_of(y, p, against, e, let)
        for target, through in (
            ("false_positive_rate", sums.passed_genuine + sums.explored_genuine),
            ("true_positive_rate", sums.passed_fraud + sums.explored_fraud),
        ):
            value = explored(sums, target, method=method, least=0.0).figure.value or 0.0
            mean[target] += weight * value / (1.0 - value) * float(through.sum())
    hidden = 1.0 - e[:m]
    # Where p is good no estimate is cut at 0; in 2 of 1,000 draws none or all are let through.
    assert mean["false_positive_rate"] == pytest.approx((hidden * (1 - y[:m])).sum(), rel=4e-3)
    assert mean["true_positive_rate"] == pytest.approx((hidden * y[:m]).sum(), rel=4e-3)


def test_the_self_normalised_share_is_what_the_weights_say() -> None:
    one = Declines(many=8_000, weights=True, threshold=0.04).sums(np.random.default_rng(2))[1]
    odds_genuine = (one.explored_w_genuine - one.explored_genuine).sum()
    odds_fraud = (one.explored_w_fraud - one.explored_fraud).sum()
    found = explored(one, "false_positive_share")
    assert found.figure.value == pytest.approx(odds_genuine / (odds_genuine + odds_fraud))
    assert found.false_positives.value == pytest.approx(found.figure.value * one.declined_n.sum())
    w = (one.explored_w_genuine + one.explored_w_fraud).sum()
    assert found.effective == pytest.approx(w**2 / one.explored_w2.sum())
    assert found.effective < (one.explored_genuine + one.explored_fraud).sum()


def test_equal_weights_make_the_effective_size_the_number_explored() -> None:
    one = Declines(many=8_000).sums(np.random.default_rng(2))[1]
    found = explored(one, "false_positive_rate")
    assert found.effective == pytest.approx((one.explored_genuine + one.explored_fraud).sum())


def test_bounds_hold_what_the_other_forms_say() -> None:
    one = Declines(many=8_000, threshold=0.04).sums(np.random.default_rng(7))[1]
    for target in TARGETS:
        wide = bounds(one, target).figure
        assert wide.value is None
        assert wide.reason == "bounds_only"
        for found in (
            *(explored(one, target, method=method) for method in METHODS),
            model_implied(one, target, calibrated=True),
        ):
            assert wide.low <= found.figure.low < found.figure.high
            assert found.figure.value <= wide.high
        told = bounds(one, target, least_fraud=0.1, most_fraud=0.5).figure
        assert wide.low < told.low < told.high < wide.high


def test_without_exploration_of_some_there_is_no_value_but_a_range() -> None:
    world = Declines(many=8_000, threshold=0.04, unreached=0.3)
    one = world.sums(np.random.default_rng(7))[1]
    for target in TARGETS:
        for method in METHODS:
            found = explored(one, target, method=method)
            assert (found.figure.value, found.figure.reason) == (None, "not_reached")
            assert found.reached == pytest.approx(0.7, abs=0.1)
            assert found.figure.low < world.truth(world.base)[target] < found.figure.high


def test_without_any_exploration_bounds_are_not_passed_off_as_explored() -> None:
    one = Declines(many=8_000, unreached=1.0).sums(np.random.default_rng(7))[1]
    assert one.unreached_n.sum() > 0.0
    for target in TARGETS:
        found = explored(one, target).figure
        assert (found.value, found.low, found.high) == (None, None, None)
        assert found.reason == "not_reached"
        assert bounds(one, target).figure.low is not None


def test_too_little_exploration_is_refused_and_so_is_a_model_that_does_not_hold() -> None:
    one, other = Declines(many=1_500).sums(np.random.default_rng(1))
    found = explored(one, "false_positive_rate")
    assert (found.figure.value, found.figure.reason) == (None, "too_few_explored")
    assert found.effective < 50.0
    assert explored(one, "false_positive_rate", least=1.0).figure.value is not None
    found = model_implied(one, "false_positive_rate", calibrated=False)
    assert (found.figure.value, found.figure.reason) == (None, "not_calibrated")
    ratio = supported_ratio(found, model_implied(other, "false_positive_rate", calibrated=False))
    assert (ratio.figure.value, ratio.figure.reason) == (None, "not_calibrated")
    assert ratio.p_beyond(1.25, above=True) == 1.0


def test_forms_are_never_mixed() -> None:
    one, other = Declines(many=8_000).sums(np.random.default_rng(1))
    by_model = model_implied(other, "false_positive_rate", calibrated=True)
    for found in (
        explored(one, "false_positive_rate", least=1.0),
        bounds(one, "false_positive_rate"),
        model_implied(one, "true_positive_rate", calibrated=True),
    ):
        with pytest.raises(ValueError, match="not compared"):
            supported_ratio(found, by_model)
    assert supported_ratio(by_model, by_model).basis == "model_implied"


def test_if_all_labels_were_seen_a_ratio_is_that_of_counts() -> None:
    """With bounds that leave nothing open, both ways to a ratio are one."""
    one, other = Declines(many=8_000).sums(np.random.default_rng(1))
    tied = [bounds(s, "false_positive_rate", least_fraud=0.0, most_fraud=0.0) for s in (one, other)]
    ratio = supported_ratio(*tied).figure
    counts = [
        Counts(
            s.declined_n + s.unreached_n,
            s.declined_n + s.unreached_n + s.passed_genuine + s.explored_genuine,
        )
        for s in (one, other)
    ]
    want = rate_ratio(*counts, like=1.0).figure
    assert ratio.value == pytest.approx(want.value, rel=1e-12)
    assert (ratio.low, ratio.high) == pytest.approx((want.low, want.high), rel=0.02)


def test_bounds_of_a_ratio_say_nothing_unless_somebody_declares_something() -> None:
    one, other = Declines(many=8_000).sums(np.random.default_rng(1))
    ratio = supported_ratio(*(bounds(s, "false_positive_rate") for s in (one, other))).figure
    assert (ratio.value, ratio.low, ratio.high) == (None, 0.0, None)
    told = [bounds(s, "false_positive_rate", least_fraud=0.1, most_fraud=0.5) for s in (one, other)]
    ratio = supported_ratio(*told)
    assert 0.2 < ratio.figure.low < 1.0 < ratio.figure.high < 6.0
    assert ratio.p_beyond(ratio.figure.high, above=False) == pytest.approx(0.05, abs=1e-6)
    assert ratio.p_beyond(ratio.figure.low, above=True) == pytest.approx(0.05, abs=1e-6)


def test_sums_that_no_payments_have_are_refused() -> None:
    one = Declines(many=1_500).sums(np.random.default_rng(1))[0]
    for wrong in (
        one._replace(declined_p=one.declined_n + 1.0),
        one._replace(explored_w_genuine=one.explored_genuine / 2.0),
        one._replace(passed_p=one.passed_p * np.nan),
    ):
        with pytest.raises(ValueError, match="sums by bucket"):
            model_implied(wrong, "false_positive_rate", calibrated=True)


def test_if_every_explored_payment_was_genuine_the_rest_may_still_not_be() -> None:
    b = 128
    chance = np.random.default_rng(3)
    shown = chance.multinomial(60, np.full(b, 1 / b)).astype(float)
    hidden = chance.multinomial(60 * 19, np.full(b, 1 / b)).astype(float)
    nought = np.zeros(b)
    passed = np.full(b, 400.0)
    for genuine, fraud in ((shown, nought), (nought, shown)):
        sums = SupportSums(
            *(passed, passed / 200, passed / 200, genuine, fraud, shown / 2),
            *(20 * genuine, 20 * fraud, 10 * shown, 400 * shown, hidden, hidden / 2),
            *(nought, nought),
        )
        found = explored(sums, "false_positive_share").figure
        if fraud is nought:
            assert found.value == found.high == 1.0
            assert 0.9 < found.low < 0.96
        else:
            assert found.value == found.low == 0.0
            assert 0.04 < found.high < 0.1
        for target in TARGETS:
            for method in METHODS:
                figure = explored(sums, target, method=method).figure
                assert figure.low < figure.high


def test_sparse_sums_give_no_warning_and_no_nan() -> None:
    chance = np.random.default_rng(8)
    said = 0
    for _ in range(400):
        n = int(chance.integers(1, 9))
        made = []
        for _ in range(2):
            y = (chance.random(n) < chance.choice([0.0, 0.5, 1.0])).astype(float)
            against = chance.random(n) < chance.choice([0.0, 0.5, 1.0])
            e = chance.choice([0.0, 0.3, 1.0], n)
            sums = sums_of(y, chance.random(n), against, e, chance.random(n) < e)
            made.append(sums)
        for target in TARGETS:
            for form in (
                lambda s, t: explored(s, t, least=0.5),
                lambda s, t: explored(s, t, least=0.5, method="doubly_robust"),
                lambda s, t: model_implied(s, t, calibrated=True),
                bounds,
            ):
                one, other = (form(s, target) for s in made)
                ratio = supported_ratio(one, other)
                said += ratio.figure.value is not None
                assert 0.0 <= ratio.p_beyond(1.25, above=True) <= 1.0
                if one.figure.low is not None and one.figure.value is not None:
                    assert -1e-12 <= one.figure.low <= one.figure.value + 1e-9
                    assert one.figure.value - 1e-9 <= one.figure.high <= 1.0
            explored(made[0], target, least=0.5, method="ips")
    assert said > 100
