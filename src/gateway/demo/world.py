"""A world of customers and merchants, and the payments made in it, in the order of time.

    world = build_world(np.random.default_rng(1), customers=500)
    for payment in world.payments(np.random.default_rng(2), days=7):
        ...

The same seeds give the same payments; a longer run begins with the shorter one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
from numpy.typing import NDArray

from gateway.demo.chapters import EVERYDAY, Chapters
from gateway.demo.crime import Crime
from gateway.demo.customers import AGE_BANDS, DEVICES, SHARES, Customers, build_customers
from gateway.demo.helping import Helping
from gateway.demo.history import History
from gateway.demo.merchants import Merchants, build_merchants
from gateway.demo.payment import CARD_NOT_PRESENT, CARD_PRESENT, Payment, Purchase
from gateway.demo.seasons import day_start_s
from gateway.demo.spending import Spending
from gateway.errors import UsageError

CURRENCY = "USD"
WARM_UP_DAYS = 7


@dataclass(frozen=True, slots=True)
class World:
    """Who lives here, and where they shop. `people`: what the pseudonyms begin with."""

    customers: Customers
    merchants: Merchants
    people: str = "customer"

    def purchases(
        self,
        rng: np.random.Generator,
        *,
        first_day: int = 0,
        days: int | None = None,
        chapters: Chapters = EVERYDAY,
    ) -> Iterator[Purchase]:
        """Yield what happens from `first_day` of the story on, for ever if `days` is None.

        Memory holds one day and the attacks that go on past it.
        """
        device_ids = count(len(self.customers) * DEVICES)
        spending = Spending(
            rng,
            self.customers,
            self.merchants,
            first_day=first_day,
            device_ids=device_ids,
            holiday=chapters.holiday,
        )
        crime = Crime(rng, self.customers, self.merchants, spending, device_ids, chapters.scenarios)
        helping = Helping(rng, self.customers, device_ids, chapters.helped_a_day)
        to_come: list[Purchase] = []
        for day in count(first_day) if days is None else range(first_day, first_day + days):
            to_come += spending.day(day)
            to_come += crime.day(day)
            if chapters.helped_a_day:
                to_come += helping.day(day)
            to_come.sort()
            end_s = day_start_s(day + 1)
            today = [purchase for purchase in to_come if purchase.time_s < end_s]
            del to_come[: len(today)]
            yield from today

    def payments(
        self,
        rng: np.random.Generator,
        *,
        first_day: int = 0,
        days: int | None = None,
        warm_up_days: int = WARM_UP_DAYS,
        chapters: Chapters = EVERYDAY,
    ) -> Iterator[Payment]:
        """Yield payments with their features, from `first_day` on, for ever if `days` is None.

        The `warm_up_days` before are lived through, so that histories are not empty, and not
        yielded. Transaction ids count from 0 in every run: make them unique across runs.
        """
        in_all = None if days is None else warm_up_days + days
        begins_s = day_start_s(first_day)
        history = History(self.customers, self.merchants)
        number = 0
        for purchase in self.purchases(
            rng, first_day=first_day - warm_up_days, days=in_all, chapters=chapters
        ):
            if purchase.time_s >= begins_s:
                yield self._payment(purchase, history.features(purchase), number)
                number += 1
            history.observe(purchase)

    def attributes(self) -> Iterator[tuple[str, Mapping[str, str]]]:
        """Yield every subject with its group attributes: for fairness, never for a model."""
        for customer, band in enumerate(self.customers.age_band.tolist()):
            yield self._subject(customer), {"age_band": AGE_BANDS[band].name}

    def _subject(self, customer: int) -> str:
        return f"{self.people}-{customer:06d}"

    def _payment(self, purchase: Purchase, features: tuple[float, ...], number: int) -> Payment:
        return Payment(
            product=CARD_NOT_PRESENT if purchase.online else CARD_PRESENT,
            transaction_id=f"demo-{number:09d}",
            event_time_s=purchase.time_s,
            amount_minor=purchase.amount_minor,
            currency=CURRENCY,
            mcc=self.merchants.mcc[purchase.merchant],
            channel=purchase.channel,
            subject=self._subject(purchase.customer),
            features=features,
            fraud=purchase.scenario != "",
            scenario=purchase.scenario,
            age_band=AGE_BANDS[self.customers.age_band[purchase.customer]].name,
            labels=purchase.labels,
        )


@dataclass(frozen=True, slots=True)
class Batch:
    """Payments of one product as columns of n rows.

    `features` is float32 (n, features), `fraud` bool, `event_time_s` float64,
    `amount_minor` int64; `payments` are the rows themselves.
    """

    features: NDArray[np.float32]
    fraud: NDArray[np.bool_]
    event_time_s: NDArray[np.float64]
    amount_minor: NDArray[np.int64]
    payments: tuple[Payment, ...]


def build_world(
    rng: np.random.Generator,
    *,
    customers: int = 1_000,
    shares: Sequence[float] = SHARES,
    people: str = "customer",
) -> World:
    """Draw a world of so many customers, `shares` of them of each age band.

    Raises:
        UsageError: fewer than one customer.
    """
    if customers < 1:
        raise UsageError(
            f"a world of {customers} customers pays nothing", hint="Ask for at least 1."
        )
    merchants = build_merchants(rng)
    return World(build_customers(rng, customers, merchants, shares=shares), merchants, people)


def batch(payments: Iterable[Payment], product: str) -> Batch:
    """Return the payments of one product as columns, in their order."""
    rows = tuple(payment for payment in payments if payment.product == product)
    return Batch(
        features=np.array([row.features for row in rows], dtype=np.float32),
        fraud=np.array([row.fraud for row in rows], dtype=np.bool_),
        event_time_s=np.array([row.event_time_s for row in rows], dtype=np.float64),
        amount_minor=np.array([row.amount_minor for row in rows], dtype=np.int64),
        payments=rows,
    )
