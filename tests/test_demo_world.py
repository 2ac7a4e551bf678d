"""The demo world is what it says it is, and the committed products fit it."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnxruntime
import pytest

from gateway.demo import CARD_NOT_PRESENT, CARD_PRESENT, Batch, Payment, World, batch, build_world
from gateway.demo.customers import AGE_BANDS
from gateway.demo.fraud import PERSUADED_ONSET_DAY
from gateway.demo.history import History
from gateway.demo.labels import fraud_labels
from gateway.demo.merchants import CATEGORIES, RISKS
from gateway.demo.payment import (
    CHECKOUTS,
    ENTRY_MODES,
    CardNotPresentFeatures,
    CardPresentFeatures,
    Label,
    Purchase,
)
from gateway.demo.seasons import DAY_S, day_start_s, traffic
from gateway.errors import UsageError
from gateway.product import Action, Category, Product, parse

MODELS = Path(__file__).parents[1] / "models"
PRODUCTS = (CARD_NOT_PRESENT, CARD_PRESENT)
FEATURES = {CARD_NOT_PRESENT: CardNotPresentFeatures, CARD_PRESENT: CardPresentFeatures}
TEST_FIRST_DAY = 185
"""The models were trained on days 0..179, of another world."""


@pytest.fixture(scope="module")
def world() -> World:
    return build_world(np.random.default_rng(7), customers=1_000)


@pytest.fixture(scope="module")
def payments(world: World) -> tuple[Payment, ...]:
    """Fifteen days of traffic that no model has seen."""
    return tuple(world.payments(np.random.default_rng(8), first_day=TEST_FIRST_DAY, days=15))


@pytest.fixture(scope="module")
def four_months(world: World) -> tuple[Purchase, ...]:
    """What happens on 120 days, without features."""
    return tuple(world.purchases(np.random.default_rng(10), days=120))


@pytest.fixture(scope="module", params=PRODUCTS)
def product(request: pytest.FixtureRequest) -> Product:
    path = MODELS / request.param / "product.yaml"
    return parse(path.read_text(encoding="utf-8"), str(path))


@pytest.fixture(scope="module")
def traffic_of(product: Product, payments: tuple[Payment, ...]) -> Batch:
    return batch(payments, product.name)


def small_world(customers: int = 60) -> World:
    return build_world(np.random.default_rng(1), customers=customers)


# --- what happens in the world ---------------------------------------------------------


def test_the_same_seeds_give_the_same_payments() -> None:
    def run(seed: int) -> list[Payment]:
        return list(small_world().payments(np.random.default_rng(seed), days=3))

    assert run(2) == run(2)
    assert run(2) != run(3)


def test_a_longer_run_begins_with_the_shorter_one() -> None:
    shorter = list(small_world().payments(np.random.default_rng(2), days=3))
    endless = small_world().payments(np.random.default_rng(2))
    assert list(islice(endless, len(shorter))) == shorter


def test_payments_come_in_the_order_of_time_inside_their_days(
    payments: tuple[Payment, ...],
) -> None:
    times = [payment.event_time_s for payment in payments]
    assert all(earlier <= later for earlier, later in pairwise(times))
    assert day_start_s(TEST_FIRST_DAY) <= times[0]
    assert times[-1] < day_start_s(TEST_FIRST_DAY + 15)
    assert len({payment.transaction_id for payment in payments}) == len(payments)


def test_an_empty_world_is_refused() -> None:
    with pytest.raises(UsageError, match="0 customers"):
        build_world(np.random.default_rng(1), customers=0)


def test_fraud_is_rare_in_both_products(four_months: tuple[Purchase, ...]) -> None:
    for online in (True, False):
        frauds = [purchase.scenario != "" for purchase in four_months if purchase.online == online]
        assert 0.003 <= sum(frauds) / len(frauds) <= 0.010


def test_age_bands_differ_in_their_base_rates(
    world: World, four_months: tuple[Purchase, ...]
) -> None:
    """Two bands at least, by more than four standard errors of their difference."""
    bands = [AGE_BANDS[band].name for band in world.customers.age_band.tolist()]
    payments_of = Counter(bands[purchase.customer] for purchase in four_months)
    frauds_of = Counter(bands[purchase.customer] for purchase in four_months if purchase.scenario)
    assert set(payments_of) == {band.name for band in AGE_BANDS}
    rates = {band: frauds_of[band] / n for band, n in payments_of.items()}
    low, high = min(rates, key=rates.__getitem__), max(rates, key=rates.__getitem__)
    variance = sum(rates[band] * (1 - rates[band]) / payments_of[band] for band in (low, high))
    assert rates[high] - rates[low] > 4 * variance**0.5


def test_the_age_band_is_an_attribute_of_the_subject_and_no_feature(
    world: World, payments: tuple[Payment, ...], product: Product
) -> None:
    attributes = dict(world.attributes())
    assert all(attributes[p.subject]["age_band"] == p.age_band for p in payments)
    declared = {feature.name for feature in product.features}
    assert declared.isdisjoint(product.fairness.attributes if product.fairness else ())


def test_the_mix_of_scenarios_changes_with_the_seasons(world: World) -> None:
    def mix(first_day: int) -> Counter[str]:
        """Without features: what happens is enough."""
        purchases = world.purchases(np.random.default_rng(3), first_day=first_day, days=8)
        return Counter(purchase.scenario for purchase in purchases if purchase.scenario)

    early, late = mix(0), mix(PERSUADED_ONSET_DAY + 60)
    assert early["persuaded"] == 0
    assert late["persuaded"] > 0
    assert early["counterfeit"] > 2 * late["counterfeit"]


def test_the_busiest_days_are_black_friday_to_the_monday_after() -> None:
    busiest = sorted(range(365), key=traffic)[-4:]
    days = {datetime.fromtimestamp(day_start_s(day), tz=UTC).date() for day in busiest}
    assert days == {date(2026, 11, 27) + timedelta(days=n) for n in range(4)}


# --- labels ----------------------------------------------------------------------------


def test_no_label_arrives_before_its_payment(payments: tuple[Payment, ...]) -> None:
    for payment in payments:
        reported = [label.reported_s for label in payment.labels]
        assert reported == sorted(reported)
        assert all(time_s > payment.event_time_s for time_s in reported)


def test_labels_arrive_in_their_windows_and_some_frauds_are_never_reported() -> None:
    rng = np.random.default_rng(4)
    reports = [fraud_labels(rng, 0.0, 5_000) for _ in range(2_000)]
    days = {
        kind: [
            label.reported_s / DAY_S for labels in reports for label in labels if label[0] == kind
        ]
        for kind in ("chargeback", "early_fraud_warning", "customer_denied")
    }
    assert min(days["chargeback"]) >= 5
    assert 60 < max(days["chargeback"]) <= 90
    assert max(days["customer_denied"]) <= 1
    assert np.median(days["early_fraud_warning"]) < np.median(days["chargeback"])
    assert 0.04 < sum(not labels for labels in reports) / len(reports) < 0.12


# --- features --------------------------------------------------------------------------


def test_features_have_the_declared_order_and_categories(product: Product) -> None:
    assert FEATURES[product.name]._fields == tuple(feature.name for feature in product.features)
    values = {
        "checkout": CHECKOUTS,
        "entry_mode": ENTRY_MODES,
        "mcc_risk": RISKS,
        "category": tuple(category.name for category in CATEGORIES),
    }
    for feature in product.features:
        if feature.type == "category":
            assert feature.values == values[feature.name]


def test_features_lie_within_their_declared_ranges(product: Product, traffic_of: Batch) -> None:
    in_declared_ranges(product, traffic_of.features)


def test_a_flood_of_payments_stays_in_the_declared_ranges(product: Product) -> None:
    """3,000 payments of one customer in an hour, each from its own device: memory is bounded."""
    world = small_world()
    online = product.name == CARD_NOT_PRESENT
    first = next(p for p in world.purchases(np.random.default_rng(2)) if p.online == online)
    flood = [
        first._replace(time_s=first.time_s + n, device=10_000 + n, amount_minor=50 + n * 600)
        for n in range(3_000)
    ]
    features = np.array(features_of(world, flood), dtype=np.float32)
    in_declared_ranges(product, features)


def in_declared_ranges(product: Product, features: np.ndarray) -> None:
    for feature, column in zip(product.features, features.T, strict=True):
        low, high = feature.min, feature.max
        if feature.type == "bool":
            low, high = 0.0, 1.0
        if feature.type == "category":
            low, high = 0.0, len(feature.values) - 1.0
        assert low is not None
        assert high is not None
        assert low <= column.min(), feature.name
        assert column.max() <= high, feature.name
        if feature.type != "float":
            assert (column == np.rint(column)).all(), feature.name


def features_of(world: World, purchases: list[Purchase]) -> list[tuple[float, ...]]:
    history = History(world.customers, world.merchants)
    features = []
    for purchase in purchases:
        features.append(history.features(purchase))
        history.observe(purchase)
    return features


def test_what_happens_later_changes_no_feature() -> None:
    """Another future, with other payments, leaves the past as it was."""
    world = small_world()
    purchases = list(world.purchases(np.random.default_rng(5), days=12))
    half = len(purchases) // 2
    future = [p._replace(amount_minor=p.amount_minor * 9, merchant=0) for p in purchases[half:]]
    assert (
        features_of(world, purchases)[:half] == features_of(world, purchases[:half] + future)[:half]
    )


def test_a_label_changes_no_feature_before_it_arrives() -> None:
    """Every fraud is reported at one moment, or never: features differ only after it."""
    world = small_world(customers=300)
    purchases = list(world.purchases(np.random.default_rng(6), days=12))
    arrives_s = day_start_s(9)
    told = [
        p._replace(labels=(Label("chargeback", arrives_s),))
        if p.scenario and p.time_s < arrives_s
        else p._replace(labels=())
        for p in purchases
    ]
    untold = [p._replace(labels=()) for p in purchases]
    pairs = list(zip(purchases, features_of(world, told), features_of(world, untold), strict=True))
    assert all(a == b for p, a, b in pairs if p.time_s < arrives_s)
    assert any(a != b for p, a, b in pairs if p.time_s >= arrives_s)


def test_velocity_and_novelty_agree_with_counting_the_past_again() -> None:
    """An oracle: the whole past is looked at for every payment, with no state kept."""
    world = small_world(customers=20)
    purchases = list(world.purchases(np.random.default_rng(9), days=12))
    for i, (purchase, features) in enumerate(
        zip(purchases, features_of(world, purchases), strict=True)
    ):
        past = [p for p in purchases[:i] if p.customer == purchase.customer]
        day = [p for p in past if p.time_s >= purchase.time_s - DAY_S]
        assert isinstance(features, CardNotPresentFeatures | CardPresentFeatures)
        assert features.count_24h == len(day)
        assert features.count_1h == sum(p.time_s >= purchase.time_s - 3_600 for p in past)
        assert features.merchants_24h == len({p.merchant for p in day})
        if any(p.merchant == purchase.merchant for p in past):
            assert features.new_merchant == 0.0
        if isinstance(features, CardNotPresentFeatures):
            assert features.count_7d == sum(p.time_s >= purchase.time_s - 7 * DAY_S for p in past)
            assert features.amount_24h == pytest.approx(sum(p.amount_minor for p in day) / 100)


# --- the committed products ------------------------------------------------------------


def pinned(product: Product) -> Path:
    return MODELS / product.name / product.models.champion.path


def score(product: Product, features: np.ndarray) -> np.ndarray:
    """Return column 1 of a bare `session.run`."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(pinned(product), options)
    column: np.ndarray = session.run(["probabilities"], {"features": features})[0][:, 1]
    return column.astype(np.float64)


def test_the_model_is_the_one_that_is_pinned_and_gives_its_golden_scores(
    product: Product,
) -> None:
    model = pinned(product).read_bytes()
    assert len(model) < 500_000
    assert hashlib.sha256(model).hexdigest() == product.models.champion.sha256
    golden = json.loads((pinned(product).parent / "golden.json").read_text())
    features = np.array(golden["features"], dtype=np.float32)
    assert features.shape == (len(golden["scores"]), len(product.features))
    assert len(features) >= 20
    np.testing.assert_allclose(score(product, features), golden["scores"], atol=1e-5)


def test_fraud_can_be_learnt_but_not_perfectly(product: Product, traffic_of: Batch) -> None:
    """AUC by counting pairs: how often a fraud scores above a genuine payment."""
    scores = score(product, traffic_of.features)
    genuine = np.sort(scores[~traffic_of.fraud])
    below = np.searchsorted(genuine, scores[traffic_of.fraud], side="left")
    assert 0.90 <= below.mean() / len(genuine) <= 0.985


@dataclass(frozen=True, slots=True)
class Truth:
    """One payment's cost under each action, in major units, if it is genuine and if fraud."""

    genuine: dict[Action, float]
    fraud: dict[Action, float]


def costs_of(product: Product, payment: Payment) -> Truth:
    """Write the specification's four formulas out, two cases each (decisioning notes, 2)."""
    costs, amount = product.costs, payment.amount_minor / 100
    fn, fp = costs.false_negative, costs.false_positive
    missed = fn.loss_rate * amount + fn.fee
    kappa = max(
        (harm(c, amount) for c in costs.categories.values() if payment.mcc in c.mcc), default=1.0
    )
    insult = fp.margin * amount * (1 - fp.retained) + kappa * fp.goodwill
    genuine = {Action.APPROVE: 0.0, Action.DECLINE: insult}
    fraud = {Action.APPROVE: missed, Action.DECLINE: costs.decline_of_fraud}
    if (s := costs.step_up) is not None:
        genuine[Action.STEP_UP] = (
            s.fee + (1 - s.genuine_pass) * insult + s.genuine_pass * kappa * s.friction
        )
        fraud[Action.STEP_UP] = s.fee + s.fraud_pass * (1 - s.liability_shift) * missed
    if (r := costs.review) is not None:
        held = r.specificity * kappa * r.hold.per_hour * r.hold.hours
        genuine[Action.REVIEW] = r.fee + (1 - r.specificity) * insult + held
        fraud[Action.REVIEW] = r.fee + (1 - r.sensitivity) * missed
    return Truth(genuine, fraud)


def harm(category: Category, amount: float) -> float:
    up_to = category.harm_up_to
    return 1.0 if up_to is not None and amount > up_to else category.harm


def probabilities(product: Product, scores: np.ndarray) -> np.ndarray:
    """Calibrate, then move the odds to the serving base rate."""
    source = pinned(product).parent / str(product.models.champion.calibration.path)
    calibration: dict[str, Any] = json.loads(source.read_text())
    assert calibration["kind"] == product.models.champion.calibration.kind
    if calibration["kind"] == "isotonic":
        mapped = np.interp(scores, calibration["x"], calibration["y"])
    else:
        s = np.clip(scores, 1e-6, 1 - 1e-6)
        log_odds = np.log(s / (1 - s))
        mapped = 1 / (1 + np.exp(-(calibration["a"] * log_odds + calibration["b"])))
    p = np.clip(mapped, 1e-6, 1 - 1e-6)
    base = product.models.champion.base_rate
    assert base is not None
    ratio = base.serving / (1 - base.serving) * (1 - base.calibrated_at) / base.calibrated_at
    shifted: np.ndarray = p * ratio / (p * ratio + 1 - p)
    return shifted


def test_probabilities_are_calibrated_at_the_serving_base_rate(
    product: Product, traffic_of: Batch
) -> None:
    """As many frauds as expected, within four standard errors and a fifth of drift."""
    p = probabilities(product, score(product, traffic_of.features))
    slack = 4 * np.sqrt((p * (1 - p)).sum()) + 0.2 * p.sum()
    assert abs(traffic_of.fraud.sum() - p.sum()) <= slack


def test_every_action_occurs_and_deciding_by_cost_saves_money(
    product: Product, traffic_of: Batch
) -> None:
    p = probabilities(product, score(product, traffic_of.features)).tolist()
    chosen: Counter[Action] = Counter()
    spent = approve_all = 0.0
    for payment, probability in zip(traffic_of.payments, p, strict=True):
        truth = costs_of(product, payment)
        action = min(
            sorted(truth.genuine),
            key=lambda a: (1 - probability) * truth.genuine[a] + probability * truth.fraud[a],
        )
        outcome = truth.fraud if payment.fraud else truth.genuine
        chosen[action] += 1
        spent += outcome[action]
        approve_all += outcome[Action.APPROVE]
    assert set(chosen) == set(product.actions)
    assert chosen[Action.APPROVE] > 0.85 * len(p)
    assert chosen[Action.DECLINE] < 0.02 * len(p)
    assert 1 - spent / approve_all > 0.2
