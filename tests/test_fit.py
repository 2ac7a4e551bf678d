"""Fitted calibration maps against scikit-learn, against brute force, and by what they promise."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.calibration import _SigmoidCalibration
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from gateway.decide import EDGE
from gateway.evaluate.fit import (
    fit,
    fit_beta,
    fit_isotonic,
    fit_logistic,
    folds_of,
    kinds_for,
    out_of_fold,
)

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

SHARED = Path("/work/shared/data")
MADE = ("simulated, overconfident", "simulated, many ties", "simulated, rare fraud")
RISK = "TERMINAL_ID_RISK_7DAY_WINDOW"
NAMED = (*MADE, "uci_credit_card_default.csv.gz", "fdh_card_transactions")


def scores_and_labels(name: str) -> tuple[Floats, Flags]:
    """Return scores in 0..1, float32 as a model gives them, and labels."""
    chance = np.random.default_rng(len(name))
    if name in MADE:
        n = 20_000
        truth = chance.normal({MADE[0]: -1.5, MADE[1]: -1.0, MADE[2]: -5.0}[name], 1.5, n)
        fraud = chance.random(n) < 1 / (1 + np.exp(-truth))
        scores = 1 / (1 + np.exp(-(2.0 * truth + 1.0)))
        if name == MADE[1]:
            scores = np.round(scores, 2)
        return scores.astype(np.float32).astype(np.float64), fraud
    if name.startswith("uci"):
        path = SHARED / name
        if not path.exists():
            pytest.skip(f"{path} is not here")
        with gzip.open(path, "rt") as file:
            names = [part.strip('"') for part in file.readline().strip().split(",")]
            table = np.loadtxt(file, delimiter=",", usecols=range(len(names)), quotechar='"')
        fraud = table[:, -1] > 0.5
        features = table[:, 1:-1]
    else:
        pq = pytest.importorskip("pyarrow.parquet")
        found = sorted(SHARED.glob(f"{name}*.parquet"))
        if not found:
            pytest.skip(f"{name} is not here")
        rows = pq.read_table(found[0], columns=["TX_AMOUNT", RISK, "TX_FRAUD"])
        rows = rows.slice(0, 60_000)
        fraud = rows["TX_FRAUD"].to_numpy() > 0
        amount, risk = (rows[c].to_numpy().astype(np.float64) for c in rows.column_names[:2])
        features = np.stack((amount, np.sqrt(amount), risk), axis=1)
    spread = features.std(axis=0)
    standard = (features - features.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    model = LogisticRegression(max_iter=200, C=1.0).fit(standard[::2], fraud[::2])
    scores = model.predict_proba(standard)[:, 1].astype(np.float32).astype(np.float64)
    return scores, fraud


def log_odds(scores: Floats) -> Floats:
    s = np.clip(scores, EDGE, 1 - EDGE)
    return np.log(s / (1 - s))


def smoothed(fraud: Flags) -> Floats:
    frauds = int(fraud.sum())
    return np.where(fraud, (frauds + 1) / (frauds + 2), 1 / (len(fraud) - frauds + 2))


def loss_of(p: Floats, target: Floats) -> float:
    return -float((target * np.log(p) + (1 - target) * np.log1p(-p)).sum())


@pytest.mark.parametrize("name", NAMED)
def test_isotonic_equals_scikit_learn_between_and_outside_the_scores(name: str) -> None:
    scores, fraud = scores_and_labels(name)
    theirs = IsotonicRegression(out_of_bounds="clip", y_min=0, y_max=1).fit(scores, fraud)
    ours = fit("isotonic", scores, fraud).map
    asked = np.concatenate([scores, np.linspace(0, 1, 5001)])
    expected = np.clip(theirs.predict(asked), EDGE, 1 - EDGE)
    assert np.abs(ours.many(asked) - expected).max() < 1e-9


@pytest.mark.parametrize("name", NAMED)
def test_platt_equals_the_exact_optimum_and_scikit_learns_sigmoid(name: str) -> None:
    """scikit-learn's own search stops earlier; its optimum, by Newton's method, is ours."""
    scores, fraud = scores_and_labels(name)
    z, target = log_odds(scores), smoothed(fraud)
    for x, (a, b) in (
        (z, (fit("platt", scores, fraud).parameters[k] for k in "ab")),
        (scores, fit_logistic(scores, fraud)),
    ):
        ours = 1 / (1 + np.exp(-(a * x + b)))
        exact = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-12, max_iter=200)
        centre, spread = x.mean(), x.std()
        standard = (x - centre) / spread
        exact.fit(
            np.concatenate([standard, standard])[:, None],
            np.repeat([1, 0], len(x)),
            sample_weight=np.concatenate([target, 1 - target]),
        )
        best = exact.predict_proba(standard[:, None])[:, 1]
        assert np.abs(ours - best).max() < 1e-9
        theirs = _SigmoidCalibration().fit(x, fraud).predict(x)
        assert np.abs(ours - theirs).max() < 2e-3
        assert loss_of(ours, target) <= loss_of(theirs, target) + 1e-9


@pytest.mark.parametrize("name", MADE)
def test_beta_is_the_bounded_optimum(name: str) -> None:
    scores, fraud = scores_and_labels(name)
    scores, fraud = scores[:4000], fraud[:4000]
    s, target = np.clip(scores, EDGE, 1 - EDGE), smoothed(fraud)

    def loss(abc: Floats) -> float:
        z = abc[0] * np.log(s) - abc[1] * np.log1p(-s) + abc[2]
        return float((np.logaddexp(0.0, z) - target * z).sum())

    found = minimize(loss, [1.0, 1.0, 0.0], bounds=[(0, None), (0, None), (None, None)])
    ours = np.array(fit_beta(scores, fraud))
    assert (ours[:2] >= 0).all()
    assert loss(ours) <= found.fun + 1e-9


def test_beta_keeps_a_slope_at_nought_where_the_best_would_fall() -> None:
    chance = np.random.default_rng(8)
    scores = chance.random(20_000)
    fraud = chance.random(20_000) < np.where(scores < 0.5, 0.4 - 0.6 * scores, 0.1 + scores / 2)
    a, b, _ = fit_beta(scores, fraud)
    assert min(a, b) == 0.0
    assert max(a, b) > 0.0
    assert (np.diff(fit("beta", scores, fraud).map.many(np.linspace(0, 1, 999))) >= 0).all()


def pooled(y: list[float], w: list[float]) -> list[float]:
    """Pool adjacent violators, as it is told to beginners."""
    blocks: list[list[float]] = []
    for value, weight in zip(y, w, strict=True):
        blocks.append([value * weight, weight, 1])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] >= blocks[-1][0] / blocks[-1][1]:
            total, weight, count = blocks.pop()
            blocks[-1][0] += total
            blocks[-1][1] += weight
            blocks[-1][2] += count
    return [total / weight for total, weight, count in blocks for _ in range(int(count))]


pairs = st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=2, max_size=60).filter(
    lambda rows: len({s for s, _ in rows}) > 1 and len({y for _, y in rows}) == 2
)


@given(pairs)
def test_isotonic_is_the_pooled_curve_rises_and_expects_what_was_observed(
    rows: list[tuple[int, bool]],
) -> None:
    scores = np.array([s / 12 for s, _ in rows])
    fraud = np.array([y for _, y in rows])
    x, y = fit_isotonic(scores, fraud)
    places = sorted(set(scores.tolist()))
    groups = [fraud[scores == place] for place in places]
    expected = pooled([float(g.mean()) for g in groups], [float(len(g)) for g in groups])
    assert np.interp(places, x, y) == pytest.approx(expected, abs=1e-12)
    assert (np.diff(x) > 0).all()
    assert (np.diff(y) >= 0).all()
    assert float(np.interp(scores, x, y).sum()) == pytest.approx(float(fraud.sum()))
    curve = fit("isotonic", scores, fraud).map
    assert curve.one(0.5) == curve.many(np.array([0.5]))[0]


@given(pairs, st.sampled_from(["platt", "beta", "isotonic", "logistic"]))
def test_a_fitted_map_rises_and_stays_inside_nought_and_one(
    rows: list[tuple[int, bool]], kind: str
) -> None:
    scores = np.array([s / 12 for s, _ in rows])
    fraud = np.array([y for _, y in rows])
    fitted, says = None, ""
    try:
        fitted = fit(kind, scores, fraud)
    except ValueError as error:
        says = str(error)
    if fitted is None:
        assert kind in ("platt", "beta", "logistic")
        assert "fall" in says or "a is 0" in says
        return
    mapped = fitted.map.many(np.linspace(0, 1, 101))
    steps = np.diff(mapped)
    assert (steps >= 0).all() or (kind == "logistic" and (steps <= 0).all())
    assert mapped.min() >= EDGE
    assert mapped.max() <= 1 - EDGE


@pytest.mark.parametrize(
    ("kind", "says"),
    [("platt", "would fall"), ("beta", "would fall"), ("spline", "no calibration map")],
)
def test_what_cannot_be_fitted_says_why(kind: str, says: str) -> None:
    scores = np.linspace(0, 1, 100)
    with pytest.raises(ValueError, match=says):
        fit(kind, scores, scores < 0.5)
    with pytest.raises(ValueError, match="all alike"):
        fit(kind, scores, scores > 2)
    with pytest.raises(ValueError, match="every score"):
        fit(kind, np.full(100, 0.3), scores < 0.5)


def test_only_scores_in_nought_to_one_have_log_odds() -> None:
    assert kinds_for(np.array([0.0, 1.0])) == ("identity", "platt", "beta", "isotonic")
    assert kinds_for(np.array([-3.0, 0.5])) == ("logistic", "isotonic")


@given(
    st.lists(st.tuples(st.integers(0, 30), st.booleans()), min_size=4, max_size=200),
    st.integers(2, 7),
    st.integers(0, 2**32),
)
def test_no_cluster_is_in_two_folds_and_each_fold_teaches(
    rows: list[tuple[int, bool]], folds: int, seed: int
) -> None:
    cluster = np.array([c for c, _ in rows])
    fraud = np.array([y for _, y in rows])
    guilty = {c for c, y in rows if y}
    innocent = {c for c, y in rows if not y}
    chance = np.random.default_rng(seed)
    if min(len(guilty), len(innocent)) < 2:
        with pytest.raises(ValueError, match="cannot be parted"):
            folds_of(cluster, fraud, chance, folds=folds)
        return
    fold = folds_of(cluster, fraud, chance, folds=folds)
    for one in set(cluster.tolist()):
        assert len(set(fold[cluster == one].tolist())) == 1
    held = set(fold.tolist())
    assert len(held) == min(folds, len(guilty), len(innocent))
    for one in held:
        assert fraud[fold == one].any(), "each fold has a fraud"


def test_a_payment_is_mapped_by_what_other_clusters_taught() -> None:
    """A cluster whose labels are turned round changes others' probabilities, not its own."""
    chance = np.random.default_rng(1)
    scores = chance.random(3000)
    fraud = chance.random(3000) < scores
    cluster = np.arange(3000) // 10
    fold = folds_of(cluster, fraud, chance)
    turned = np.where(fold == 0, ~fraud, fraud)
    before = out_of_fold("isotonic", scores, fraud, fold)
    after = out_of_fold("isotonic", scores, turned, fold)
    assert (before[fold == 0] == after[fold == 0]).all()
    assert (before[fold != 0] != after[fold != 0]).any()
