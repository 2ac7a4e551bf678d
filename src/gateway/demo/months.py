"""Four months of payments that end now, with what an evaluation is to find built into them.

    helped         customers of 70 and more are helped more often: genuine payments that look like
                   fraud, so that a model that sees no age declines them more often
    holiday        three weeks in which other things are bought, for more, and more often
    persuaded      a fraud that begins in the last weeks, and that no model was trained on

All of it is drawn from a seed; only where the months end comes from outside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from math import ceil

import numpy as np

from gateway.demo.chapters import Chapters
from gateway.demo.fraud import SCENARIOS, impostor
from gateway.demo.payment import Label, Payment
from gateway.demo.seasons import Holiday, day_start_s
from gateway.demo.world import build_world

DAYS = 120
FIRST_DAY = 112
"""Of the story: it ends before `persuaded` begins."""

END_DAY = FIRST_DAY + DAYS
HOLIDAY = Holiday(END_DAY - 28, END_DAY - 9)
ONSET_DAY = END_DAY - 49

PEOPLE = "cardholder"
"""Others than the demo's customers: a pseudonym must not stand for two people."""

_SHARES = (0.26, 0.36, 0.18, 0.20)
_HELPED_A_DAY = (0.0015, 0.0045, 0.0045, 0.024)
_MORE_CRIME = {
    "card-testing": 2.7,
    "stolen-number": 2.7,
    "account-takeover": 2.7,
    "counterfeit": 1.2,
    "lost-or-stolen": 1.2,
}
"""Times what was done when the models were trained: of a few hundred customers there is little to
learn otherwise. About so much more that the models' probabilities hold on the whole, although they
take helpers for fraud.
"""
_IMPOSTORS = 8.0
_IMPOSTORS_GROW_DAYS = 7.0
_PAYMENTS_A_CUSTOMER = 143.0


_UNTOLD = 0.08


@dataclass(frozen=True, slots=True)
class Months:
    """Payments in the order of time, each known by its number there.

    `age_band`: every subject's; `told`: of those subjects of whom it is known. `holiday_s`,
    `onset_s` and `ends_s` are Unix seconds: the holiday's begin and end, when the new fraud
    begins, and the end of all.
    """

    payments: tuple[Payment, ...]
    age_band: Mapping[str, str]
    told: Mapping[str, str]
    holiday_s: tuple[float, float]
    onset_s: float
    ends_s: float


def draw_months(seed: int, payments: int, ends_s: int) -> Months:
    """Draw at most so many payments (1 or more); the last day ends at the midnight `ends_s`, UTC.

    The same seed and number give the same months, at another end moved by whole days.
    """
    rng = np.random.default_rng((seed, DAYS))
    customers = ceil(payments / _PAYMENTS_A_CUSTOMER) + 2
    world = build_world(rng, customers=customers, shares=_SHARES, people=PEOPLE)
    story = world.payments(rng, first_day=FIRST_DAY, days=DAYS, chapters=chapters())
    shift_s = ends_s - day_start_s(END_DAY)
    drawn = tuple(moved(payment, shift_s) for payment in story)
    age_band = {subject: groups["age_band"] for subject, groups in world.attributes()}
    untold = np.random.default_rng((seed, DAYS, 1)).random(customers) < _UNTOLD
    return Months(
        payments=drawn[-payments:],
        age_band=age_band,
        told={
            subject: band
            for (subject, band), silent in zip(age_band.items(), untold.tolist(), strict=True)
            if not silent
        },
        holiday_s=(
            float(day_start_s(HOLIDAY.begins) + shift_s),
            float(day_start_s(HOLIDAY.ends + 1) + shift_s),
        ),
        onset_s=float(day_start_s(ONSET_DAY) + shift_s),
        ends_s=float(ends_s),
    )


def holiday_of(ends_s: int) -> tuple[date, date]:
    """Return the holiday's first and last day (UTC) in months that end at the midnight `ends_s`."""
    first, last = (
        datetime.fromtimestamp(day_start_s(day) + ends_s - day_start_s(END_DAY), UTC).date()
        for day in (HOLIDAY.begins, HOLIDAY.ends)
    )
    return first, last


def chapters() -> Chapters:
    """Return what the months hold beside everyday life."""
    usual = (
        replace(scenario, per_thousand=scenario.per_thousand * _MORE_CRIME.get(scenario.name, 1.0))
        for scenario in SCENARIOS
    )
    new = impostor(ONSET_DAY, per_thousand=_IMPOSTORS, grows_days=_IMPOSTORS_GROW_DAYS)
    return Chapters((*usual, new), HOLIDAY, _HELPED_A_DAY)


def moved(payment: Payment, by_s: float) -> Payment:
    """Return a payment, and all that is reported about it, at another time."""
    labels = tuple(Label(label.kind, label.reported_s + by_s) for label in payment.labels)
    return replace(payment, event_time_s=payment.event_time_s + by_s, labels=labels)
