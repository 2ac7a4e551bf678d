"""The demo's months hold what an evaluation is to find, and tell of it as sources do."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import pytest

from gateway.bench.traffic import PLACEHOLDER
from gateway.cli.demo import MONTHS
from gateway.cli.demo_months import CHUNK, run_of, transaction_id
from gateway.demo import CARD_NOT_PRESENT, CARD_PRESENT, Payment, World, build_world
from gateway.demo.chapters import EVERYDAY, Chapters
from gateway.demo.fraud import SCENARIOS
from gateway.demo.merchants import CATEGORIES
from gateway.demo.months import DAYS, Months, chapters, draw_months, holiday_of
from gateway.demo.payment import CardNotPresentFeatures, Purchase
from gateway.demo.products import EXPLORATION, MATURITY, for_months
from gateway.demo.reports import Report, reports
from gateway.demo.seasons import DAY_S, Holiday, day_start_s
from gateway.demo.truth import UNKNOWN, Turned, false_positives
from gateway.model import load_generation
from gateway.product import Action, parse

MODELS = Path(__file__).parents[1] / "models"
ENDS_S = int(datetime(2026, 11, 26, tzinfo=UTC).timestamp())
REFERENCE, OLDEST = "35-54", "70+"
ACTIONS = ("approve", "step_up", "review", "decline")


@pytest.fixture(scope="module")
def months() -> Months:
    return draw_months(1, 20_000, ENDS_S)


@cache
def large_months() -> Months:
    """As `gateway demo` draws them."""
    return draw_months(1, MONTHS, ENDS_S)


@cache
def small_world() -> World:
    return build_world(np.random.default_rng(1), customers=120)


class Decided(NamedTuple):
    """What the shipped model and costs say of a payment."""

    action: int
    probability: float


def decided(payments: Sequence[Payment], product: str) -> dict[int, Decided]:
    """Decide a product's payments, by their numbers."""
    generation = load_generation(MODELS / product)
    policy, model = generation.policy, generation.champion
    numbers = [n for n, payment in enumerate(payments) if payment.product == product]
    rows = [payments[n] for n in numbers]
    features = np.array([row.features for row in rows], dtype=np.float32)
    scores = np.concatenate(
        [model.score(features[at : at + 256]) for at in range(0, len(rows), 256)]
    )
    chosen = policy.choose_many(
        scores,
        [row.amount_minor for row in rows],
        [policy.cost_class(row.amount_minor, row.mcc) for row in rows],
        [row.event_time_s for row in rows],
    )
    said = map(Decided, chosen.action.tolist(), chosen.probability.tolist())
    return dict(zip(numbers, said, strict=True))


# --- the months as a whole ---------------------------------------------------------------


def test_another_end_moves_the_same_months_by_whole_days(months: Months) -> None:
    later = draw_months(1, 500, ENDS_S + 3 * DAY_S)
    sooner = draw_months(1, 500, ENDS_S)
    for one, other in zip(sooner.payments, later.payments, strict=True):
        assert other.event_time_s == one.event_time_s + 3 * DAY_S
        assert [label.reported_s - 3 * DAY_S for label in other.labels] == [
            label.reported_s for label in one.labels
        ]
        assert replace(other, event_time_s=0, labels=()) == replace(one, event_time_s=0, labels=())
    assert draw_months(2, 500, ENDS_S).payments != sooner.payments


def test_four_months_end_at_the_midnight(months: Months) -> None:
    times = [payment.event_time_s for payment in months.payments]
    assert times == sorted(times)
    assert ENDS_S - DAYS * DAY_S <= times[0] < ENDS_S - (DAYS - 20) * DAY_S
    assert ENDS_S - DAY_S < times[-1] < ENDS_S == months.ends_s
    assert 0.9 * 20_000 < len(months.payments) <= 20_000


@pytest.mark.parametrize("most", [1, 7, 1_000])
def test_there_are_at_most_so_many_payments(most: int) -> None:
    assert 0.5 * most < len(draw_months(3, most, ENDS_S).payments) <= most


def test_an_hour_of_the_day_is_the_same_for_the_model_and_for_the_clock(months: Months) -> None:
    at = CardNotPresentFeatures._fields.index("hour")
    online = [payment for payment in months.payments if payment.product == CARD_NOT_PRESENT]
    assert all(one.features[at] == one.event_time_s % DAY_S // 3_600 for one in online)


def test_nobody_in_the_months_is_a_customer_of_the_live_demo(months: Months) -> None:
    live = {subject for subject, _ in build_world(np.random.default_rng(1)).attributes()}
    assert live.isdisjoint(months.age_band)
    assert {payment.subject for payment in months.payments} <= set(months.age_band)


def test_of_a_few_customers_the_age_is_unknown(months: Months) -> None:
    assert months.told.items() <= months.age_band.items()
    assert all(one.age_band == months.age_band[one.subject] for one in months.payments)
    assert 0.7 < len(months.told) / len(months.age_band) < 1.0


def test_ids_are_those_that_the_load_generator_makes_across_its_loads() -> None:
    numbers = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5]
    for number in numbers:
        load, call = transaction_id("a1b2c3", number - number % CHUNK)[:8], number % CHUNK
        assert transaction_id("a1b2c3", number).encode() == load.encode() + b"%016x" % call
        assert len(transaction_id("a1b2c3", number)) == len(PLACEHOLDER)
    assert len({transaction_id("a1b2c3", number) for number in numbers}) == len(numbers)
    assert {len(run_of(wall_ns)) for wall_ns in (0, 1_000_000, 10**18, 2**62)} == {6}


# --- the group that is treated worse -----------------------------------------------------


def rates(payments: Sequence[Payment], group_of: dict[str, str]) -> dict[str, Turned]:
    actions = decided(payments, CARD_NOT_PRESENT)
    declined = {number for number, one in actions.items() if one.action == Action.DECLINE}
    return false_positives(((n, payments[n]) for n in actions), declined, group_of)


def test_the_oldest_are_declined_more_often_because_others_help_them(months: Months) -> None:
    """By more than two standard errors above the limit; and without helpers not so."""
    found = rates(months.payments, dict(months.age_band))
    ratio = found[OLDEST].rate / found[REFERENCE].rate
    error = (1 / found[OLDEST].declined + 1 / found[REFERENCE].declined) ** 0.5
    assert ratio > 1.25 * np.exp(2 * error)

    alone = replace(chapters(), helped_a_day=())
    world = build_world(np.random.default_rng(1), customers=150)
    payments = list(
        world.payments(np.random.default_rng(2), first_day=112, days=60, chapters=alone)
    )
    ages = {subject: groups["age_band"] for subject, groups in world.attributes()}
    unhelped = rates(payments, ages)
    assert unhelped[OLDEST].rate < 0.5 * found[OLDEST].rate


def test_helpers_change_nothing_for_those_whom_nobody_helps() -> None:
    world = small_world()
    helped = Chapters(helped_a_day=(0.0, 0.0, 0.0, 0.5))
    bands = world.customers.age_band

    def counts(story: Chapters) -> Counter[int]:
        purchases = world.purchases(np.random.default_rng(4), days=30, chapters=story)
        return Counter(int(bands[one.customer]) for one in purchases)

    usual, more = counts(EVERYDAY), counts(helped)
    oldest = 3
    expected = 0.5 * 30 * int((bands == oldest).sum())
    assert more[oldest] - usual[oldest] == pytest.approx(expected, rel=0.35)
    for band in (0, 1, 2):
        assert more[band] == pytest.approx(usual[band], rel=0.12)


def test_the_truth_agrees_with_counting_one_by_one(months: Months) -> None:
    payments = months.payments[:3_000]
    declined = set(range(0, 3_000, 7))
    found = false_positives(enumerate(payments), declined, months.told)
    assert UNKNOWN in found
    assert sum(one.genuine for one in found.values()) == sum(not p.fraud for p in payments)
    for group, one in found.items():
        mine = [
            number in declined
            for number, payment in enumerate(payments)
            if months.told.get(payment.subject, UNKNOWN) == group and not payment.fraud
        ]
        assert (one.genuine, one.declined) == (len(mine), sum(mine))
        assert one.rate == pytest.approx(np.mean(mine))


# --- the holiday -------------------------------------------------------------------------


def test_a_holiday_changes_what_is_bought_and_for_how_much_and_nothing_before_it() -> None:
    world, holiday = small_world(), Holiday(10, 24)

    def year(story: Chapters) -> list[Purchase]:
        return list(world.purchases(np.random.default_rng(5), days=40, chapters=story))

    usual, with_holiday = year(EVERYDAY), year(Chapters(holiday=holiday))
    begins_s, ends_s = day_start_s(10), day_start_s(25)

    def before(purchases: Iterable[Purchase]) -> list[Purchase]:
        return list(takewhile(lambda one: one.time_s < begins_s, purchases))

    assert before(with_holiday) == before(usual)
    inside = [one for one in with_holiday if begins_s <= one.time_s < ends_s and not one.scenario]
    after = [one for one in with_holiday if one.time_s >= ends_s and not one.scenario]
    category = world.merchants.category

    def share(purchases: list[Purchase], name: str) -> float:
        return float(
            np.mean([CATEGORIES[category[one.merchant]].name == name for one in purchases])
        )

    assert share(inside, "travel") > 2 * share(after, "travel")
    assert share(inside, "grocery") < share(after, "grocery")
    assert np.median([one.amount_minor for one in inside]) > 1.4 * np.median(
        [one.amount_minor for one in after]
    )
    assert len(inside) / 15 > 1.1 * len(after) / 15


def test_the_months_have_their_holiday_where_the_calendar_says(months: Months) -> None:
    first, last = holiday_of(ENDS_S)
    begins_s, ends_s = months.holiday_s
    assert datetime.fromtimestamp(begins_s, UTC).date() == first
    assert datetime.fromtimestamp(ends_s - 1, UTC).date() == last
    genuine = [payment for payment in months.payments if not payment.fraud]
    inside = [p.amount_minor for p in genuine if begins_s <= p.event_time_s < ends_s]
    outside = [p.amount_minor for p in genuine if p.event_time_s < begins_s]
    assert np.median(inside) > 1.4 * np.median(outside)


@pytest.mark.parametrize("name", [CARD_NOT_PRESENT, CARD_PRESENT])
def test_the_holiday_is_announced_to_one_product_and_only_what_the_months_need_is_changed(
    name: str,
) -> None:
    text = (MODELS / name / "product.yaml").read_text(encoding="utf-8")
    changed = for_months(
        text, holiday=(date(2026, 10, 29), date(2026, 11, 17)), generation=20261126
    )
    before, after = parse(text, "before"), parse(changed, "after")
    events = [(one.event, one.starts, one.ends) for one in after.calendar]
    announced = [("holiday", date(2026, 10, 29), date(2026, 11, 17))]
    assert events == (announced if name == CARD_NOT_PRESENT else [])
    assert after.generation == 20261126
    assert before.exploration is not None
    assert after.exploration is not None
    assert after.exploration.share > before.exploration.share
    kept = {"generation", "exploration", "labels", "calendar", "source"}
    assert after.model_dump(exclude=kept) == before.model_dump(exclude=kept)
    comments = [line for line in text.splitlines() if line.startswith("#")]
    assert [line for line in changed.splitlines() if line.startswith("#")] == comments


# --- the new fraud -----------------------------------------------------------------------


def test_a_new_fraud_begins_in_the_last_weeks_and_the_model_does_not_see_it(
    months: Months,
) -> None:
    known = {scenario.name for scenario in SCENARIOS}
    frauds = [payment for payment in months.payments if payment.fraud]
    new = [payment for payment in frauds if payment.scenario not in known]
    assert {payment.scenario for payment in new} == {"impostor"}
    assert months.onset_s <= min(payment.event_time_s for payment in new)
    assert ENDS_S - 60 * DAY_S < months.onset_s < ENDS_S - 30 * DAY_S
    assert len(new) > 20

    caught: dict[bool, list[bool]] = defaultdict(list)
    for number, one in decided(months.payments, CARD_NOT_PRESENT).items():
        payment = months.payments[number]
        if payment.fraud:
            caught[payment.scenario in known].append(one.action != Action.APPROVE)
    assert np.mean(caught[False]) < 0.5 * np.mean(caught[True])


def test_the_months_are_large_enough_to_show_it() -> None:
    """As `gateway demo` draws them: calibration, then its loss, and explored declines by group."""
    months = large_months()
    expected: dict[bool, float] = defaultdict(float)
    variance: dict[bool, float] = defaultdict(float)
    frauds: Counter[bool] = Counter()
    explorable: Counter[str] = Counter()
    matured_s = ENDS_S - int(MATURITY.removesuffix("d")) * DAY_S
    for number, one in decided(months.payments, CARD_NOT_PRESENT).items():
        payment = months.payments[number]
        late = payment.event_time_s >= months.onset_s
        expected[late] += one.probability
        variance[late] += one.probability * (1 - one.probability)
        frauds[late] += payment.fraud
        within = payment.amount_minor <= EXPLORATION["max_amount"] * 100
        if one.action == Action.DECLINE and within and payment.event_time_s < matured_s:
            explorable[months.told.get(payment.subject, UNKNOWN)] += 1
    off = {late: (frauds[late] - expected[late]) / variance[late] ** 0.5 for late in frauds}
    assert abs(off[False]) < 3
    assert off[True] > 6
    for group in (REFERENCE, OLDEST):
        assert explorable[group] * EXPLORATION["share"] > 60


# --- what is reported --------------------------------------------------------------------


def told(months: Months, action: str, *, until_s: float = float("inf")) -> list[list[Report]]:
    payments = months.payments
    rng = np.random.default_rng(6)
    return reports(payments, [action] * len(payments), rng, until_s=until_s)


@pytest.mark.parametrize("action", ["", "decline"])
def test_nobody_reports_about_what_was_declined_or_never_answered(
    months: Months, action: str
) -> None:
    assert not any(told(months, action))


@pytest.mark.parametrize("action", ["approve", "step_up", "review"])
def test_events_come_in_an_order_that_can_be(months: Months, action: str) -> None:
    for payment, found in zip(months.payments, told(months, action), strict=True):
        by_key = {(one.source, one.key): one for one in found}
        assert len(by_key) == len(found)
        for one in found:
            assert payment.event_time_s <= one.occurred_s <= one.reported_s
            if one.supersedes:
                assert by_key[one.source, one.supersedes].reported_s < one.reported_s


def test_what_is_reported_later_is_not_known_yet(months: Months) -> None:
    for known, all_of_it in zip(
        told(months, "approve", until_s=ENDS_S), told(months, "approve"), strict=True
    ):
        assert known == [one for one in all_of_it if one.reported_s <= ENDS_S]
    late = [one for found in told(months, "approve") for one in found if one.reported_s > ENDS_S]
    assert {"chargeback", "early_fraud_warning"} <= {one.kind for one in late}


def stands(found: Sequence[Report]) -> set[str]:
    """Return the kinds that nothing supersedes, without what only takes back."""
    gone = {(one.source, one.supersedes) for one in found if one.supersedes}
    return {
        one.kind for one in found if (one.source, one.key) not in gone and one.kind != "withdrawn"
    }


def test_in_the_end_no_genuine_payment_stands_as_fraud_though_some_did_before(
    months: Months,
) -> None:
    says_fraud = {"chargeback", "early_fraud_warning", "customer_denied", "analyst_fraud"}
    revised: Counter[str] = Counter()
    noticed = 0
    for payment, found in zip(months.payments, told(months, "approve"), strict=True):
        said = {one.kind for one in found} & says_fraud
        if payment.fraud:
            noticed += bool(stands(found) & says_fraud)
            revised["part"] += any(one.key == "chargeback-of-a-part" for one in found)
        else:
            assert not stands(found) & says_fraud
            revised.update(said)
    assert set(revised) == {"part", "chargeback", "early_fraud_warning"}
    assert 0.8 < noticed / sum(payment.fraud for payment in months.payments) < 0.97


@pytest.mark.parametrize(
    ("action", "kind"),
    [
        ("step_up", "step_up_failed"),
        ("step_up", "step_up_abandoned"),
        ("review", "analyst_fraud"),
    ],
)
def test_what_was_stopped_is_never_charged_back(months: Months, action: str, kind: str) -> None:
    stopped = [found for found in told(months, action) if kind in {one.kind for one in found}]
    assert len(stopped) > 20
    for found in stopped:
        assert {one.kind for one in found} <= {kind, "customer_contacted"}


def test_one_decision_changes_nothing_that_is_told_of_another_payment(months: Months) -> None:
    payments = months.payments[:2_000]
    mixed = [ACTIONS[n % 4] for n in range(len(payments))]
    found = reports(payments, mixed, np.random.default_rng(6), until_s=ENDS_S)
    for n, action in enumerate(mixed):
        if n % 50 == 0:
            same = [action] * len(payments)
            alone = reports(payments, same, np.random.default_rng(6), until_s=ENDS_S)
            assert alone[n] == found[n]
