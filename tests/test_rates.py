"""Rates by bucket: equal to fairlearn by group, to statsmodels' cluster variance, and never NaN."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest
import statsmodels.api as sm
from coverage import Customers
from fairlearn.metrics import MetricFrame, count, false_positive_rate, selection_rate
from statsmodels.stats.proportion import proportion_confint

from gateway.evaluate.intervals import wilson_bounds
from gateway.evaluate.rates import (
    clusters_dof,
    own_design_effect,
    pooled_design_effect,
    rate,
    rate_difference,
    rate_ratio,
    rates,
    ratio_of_sums,
    worth,
)
from gateway.evaluate.sums import Amounts, Counts

B = 128


def by_bucket(bucket: np.ndarray, values: np.ndarray, buckets: int = B) -> np.ndarray:
    return np.bincount(bucket, values.astype(float), buckets)


def test_rates_of_groups_are_fairlearns() -> None:
    chance = np.random.default_rng(5)
    n = 20_000
    group, bucket = chance.choice(["a", "b", "c"], n, p=[0.7, 0.25, 0.05]), chance.integers(0, B, n)
    fraud = chance.random(n) < 0.02
    declined = chance.random(n) < np.where(fraud, 0.5, 0.03)
    frame = MetricFrame(
        metrics={"decline": selection_rate, "fpr": false_positive_rate, "n": count},
        y_true=fraud,
        y_pred=declined,
        sensitive_features=group,
    ).by_group
    genuine = ~fraud
    for metric, event, of in (("decline", declined, genuine | fraud), ("fpr", declined, genuine)):
        counts = Counts(
            np.stack([by_bucket(bucket, event & of & (group == g)) for g in "abc"]),
            np.stack([by_bucket(bucket, of & (group == g)) for g in "abc"]),
        )
        found = rates(counts)
        assert [one.value for one in found] == pytest.approx(list(frame[metric]), rel=1e-12)
        one, reference = (Counts(counts.k[i], counts.n[i]) for i in (2, 0))
        ratio = rate_ratio(one, reference, like=1.0).figure.value
        assert ratio == pytest.approx(frame[metric]["c"] / frame[metric]["a"], rel=1e-12)


def clustered(counts: Counts) -> float:
    """Return statsmodels' cluster-robust variance over that of independent trials."""
    k, n = counts.k.astype(int), counts.n.astype(int)
    y = np.concatenate([np.repeat([1.0, 0.0], [a, b - a]) for a, b in zip(k, n, strict=True)])
    fitted = sm.OLS(y, np.ones(len(y))).fit(
        cov_type="cluster", cov_kwds={"groups": np.repeat(np.arange(B), n)}
    )
    return fitted.bse[0] ** 2 / (y.mean() * (1 - y.mean()) / len(y))


def test_the_design_effect_is_statsmodels_cluster_variance() -> None:
    chance = np.random.default_rng(1)
    even = Counts(chance.binomial(200, chance.beta(1, 20, B)).astype(float), np.full(B, 200.0))
    assert own_design_effect(even) == pytest.approx(clustered(even), rel=1e-9)
    assert clustered(even) > 3.0
    k, n = (one[1] for one in Customers(kind="bursts", rate=0.03).counts(chance))
    uneven = Counts(k, n)
    assert own_design_effect(uneven) == pytest.approx(clustered(uneven), rel=0.02)


def test_a_bucket_that_pulls_the_rate_to_itself_is_seen_to() -> None:
    """Residuals of a bucket with a third of all are too small; without it, they are not."""
    n = np.full(B, 100.0)
    n[0] = 6_000.0
    counts = Counts(np.append(600.0, np.tile([4.0, 6.0], B)[: B - 1]), n)
    without = (counts.k.sum() - counts.k) / (n.sum() - n)
    want = (B - 1) / B * ((without - without.mean()) ** 2).sum()
    alone = counts.k.sum() / n.sum()
    assert own_design_effect(counts) == pytest.approx(want / (alone * (1 - alone) / n.sum()))
    assert own_design_effect(counts) > 1.5 * clustered(counts)


def test_independent_events_in_many_buckets_have_nearly_statsmodels_interval() -> None:
    y = np.random.default_rng(2).random(200_000) < 0.01
    found = rate(Counts(y.astype(float), np.ones(len(y))), like=1.0)
    want = proportion_confint(int(y.sum()), len(y), method="wilson")
    assert (found.low, found.high) == pytest.approx(want, rel=1e-4)
    assert found.design_effect == pytest.approx(1.0, abs=1e-4)


def test_a_design_effect_is_never_below_one_and_few_events_borrow_it() -> None:
    even = Counts(np.full(B, 2.0), np.full(B, 100.0))  # as even as chance would not make it
    assert own_design_effect(even) == pytest.approx(0.0)
    assert worth(even).design_effect == 1.0
    few = Counts(np.eye(1, B).ravel() * 3.0, np.full(B, 100.0))  # three events of one customer
    alone, borrowed = worth(few, like=1.0), worth(few, like=9.0)
    assert 1.0 < float(alone.design_effect) < float(borrowed.design_effect) < 9.0
    many = Counts(np.tile([8.0, 0.0, 0.0, 0.0], B // 4), np.full(B, 100.0))
    assert float(worth(many, like=20.0).design_effect) < 20.0
    assert worth(many, like=1.0).design_effect == own_design_effect(many) > 5.0


def test_few_customers_leave_few_degrees_of_freedom() -> None:
    one_big = np.full(B, 1.0)
    one_big[0] = 10_000.0
    assert clusters_dof(np.full(B, 7.0)) == B - 1
    assert clusters_dof(one_big) == 1.0
    assert clusters_dof(np.eye(1, B).ravel()) == 0.0
    assert clusters_dof(np.zeros(B)) == 0.0


def test_customers_who_are_in_both_groups_against_each_other_widen_the_ratio() -> None:
    """Where one group's bucket is high when the other's is low, errors add up more than alone."""
    chance = np.random.default_rng(9)
    n = np.full(B, 300.0)
    swing = chance.uniform(-1.0, 1.0, B)
    up, down = (chance.binomial(300, 0.1 * (1 + s)).astype(float) for s in (swing, -swing))
    against = rate_ratio(Counts(up, n), Counts(down, n), like=1.0).figure
    apart = rate_ratio(Counts(up, n), Counts(chance.permutation(down), n), like=1.0).figure
    assert against.value == pytest.approx(apart.value)
    # Twice the variance: errors of both groups add up as they stand, not as squares.
    assert np.log(against.high / against.low) > 1.25 * np.log(apart.high / apart.low)


def test_what_cannot_be_said_is_none_and_named() -> None:
    nought, some = np.zeros(B), np.full(B, 10.0)
    one = np.eye(1, B).ravel() * 20.0
    assert rate(Counts(nought, nought), like=1.0).reason == "no_observations"
    alone = rate(Counts(one / 2, one), like=1.0)
    assert (alone.value, alone.low, alone.high, alone.reason) == (0.5, None, None, "one_cluster")
    none = rate(Counts(nought, some), like=1.0)
    assert none.value == none.low == 0.0 < none.high < 0.005
    assert rate(Counts(some, some), like=1.0).high == 1.0
    assert rate(Counts(some, some), like=1.0).low > 0.99
    ratio = rate_ratio(Counts(some / 2, some), Counts(nought, some), like=1.0).figure
    assert (ratio.value, ratio.high, ratio.reason) == (None, None, "no_events_in_reference")
    assert ratio.low > 50.0
    ratio = rate_ratio(Counts(nought, some), Counts(some / 2, some), like=1.0).figure
    assert ratio.value == ratio.low == 0.0 < ratio.high < 0.02
    both = rate_ratio(Counts(nought, some), Counts(nought, some), like=1.0).figure
    assert (both.value, both.low, both.high) == (None, 0.0, None)
    apart = rate_difference(Counts(nought, nought), Counts(some / 2, some), like=1.0)
    assert apart.reason == "no_observations"
    loss = ratio_of_sums(Amounts(nought, some))
    assert (loss.value, loss.low, loss.high, loss.reason) == (0.0, 0.0, None, "no_events")
    assert 0.0 < ratio_of_sums(Amounts(nought, some), cap=5.0).high < 0.03
    assert ratio_of_sums(Amounts(one, nought)).reason == "no_observations"
    assert ratio_of_sums(Amounts(one, one)).reason == "one_cluster"


@pytest.mark.parametrize(
    "counts",
    [
        Counts(np.full(B, 2.0), np.full(B, 1.0)),
        Counts(np.full(B, np.nan), np.full(B, 1.0)),
        Counts(np.full(B, -1.0), np.full(B, 1.0)),
        Counts(np.full(B, 1.0), np.full(B + 1, 1.0)),
        Counts(np.float64(1.0), np.float64(2.0)),
    ],
)
def test_what_are_no_counts_is_refused(counts: Counts) -> None:
    with pytest.raises(ValueError, match=r"bucket|finite|shape"):
        rate(counts, like=1.0)


def test_sparse_counts_give_no_warning_and_no_nan() -> None:
    """Figures refuse NaN, and warnings are errors here: whatever is empty, it is handled."""
    chance = np.random.default_rng(11)
    for _ in range(300):
        buckets = int(chance.integers(1, 6))
        n = chance.integers(0, 4, (2, buckets)) * chance.integers(0, 2, (2, buckets))
        k = chance.binomial(n, chance.choice([0.0, 0.3, 1.0]))
        counts = Counts(k.astype(float), n.astype(float))
        one, other = (Counts(*pair) for pair in zip(*counts, strict=True))
        for figure in (
            *rates(counts),
            rate_ratio(one, other, like=2.0).figure,
            rate_difference(one, other, like=2.0),
            ratio_of_sums(Amounts(one.k, one.n)),
        ):
            if figure.value is not None and figure.low is not None and figure.high is not None:
                assert figure.low <= figure.value <= figure.high
        assert pooled_design_effect(counts) >= 1.0


def test_ten_million_decisions_are_as_quick_as_ten() -> None:
    """Only sums come in: the arrays are as long for any number of decisions."""
    big = Counts(np.full((50, B), 40.0), np.full((50, B), 80_000.0))
    found = rates(big)
    assert len(found) == 50
    assert found[0].n == 80_000.0 * B
    low, high = wilson_bounds(worth(big).share)
    assert (found[0].low, found[0].high) == (low[0], high[0])
    assert high[0] < inf
