"""Purchases that a relative or a carer makes for a customer, with the customer's card.

They are genuine, and look like an account that was taken over: a device that the issuer has not
seen, contact details that were just changed, parcels that go elsewhere, shops that are new to the
customer, more at once than usual. Whoever is helped more often is therefore declined more often by
a model that sees no age: that is how one group comes to be treated worse.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gateway.demo.customers import Customers
from gateway.demo.labels import CONFIRMED_SHARE, confirmed
from gateway.demo.merchants import CATEGORIES, CATEGORY_INDEX, WEB_SHOPS, web_shop
from gateway.demo.payment import CHECKOUTS, Purchase
from gateway.demo.seasons import DAY_S, day_start_s

_BOUGHT = ("electronics", "clothing", "home", "travel", "jewellery", "pharmacy", "grocery")
_BOUGHT_SHARE = (0.24, 0.26, 0.16, 0.10, 0.06, 0.09, 0.09)
_TIMES_USUAL = (1.2, 3.5)
_NEW_CONTACT = 0.5
_ELSEWHERE = 0.6
_FAR = 0.25
_GUEST = 0.1


@dataclass(frozen=True, slots=True)
class Helping:
    """Draws the day's purchases of helpers. `a_day`: purchases a customer, by age band."""

    rng: np.random.Generator
    customers: Customers
    device_ids: Iterator[int]
    a_day: tuple[float, ...]

    def day(self, day: int) -> list[Purchase]:
        """Return what helpers buy on a day, in no order."""
        expected = np.array(self.a_day)[self.customers.age_band]
        bought = self.rng.poisson(expected)
        return [
            self._purchase(day, customer)
            for customer in np.repeat(np.arange(len(expected)), bought).tolist()
        ]

    def _purchase(self, day: int, customer: int) -> Purchase:
        rng = self.rng
        category = CATEGORY_INDEX[str(rng.choice(_BOUGHT, p=_BOUGHT_SHARE))]
        kind = CATEGORIES[category]
        usual = kind.median * float(self.customers.spend[customer])
        amount = usual * rng.uniform(*_TIMES_USUAL) * rng.lognormal(0.0, 0.8 * kind.spread)
        # A helper shops in the evening, when their own day is over.
        time_s = day_start_s(day) + min(rng.normal(20.0, 2.5) % 24.0 * 3_600.0, DAY_S - 1.0)
        far = rng.random() < _FAR
        guest = rng.random() < _GUEST
        changed = rng.uniform(0.0, 4.0) if rng.random() < _NEW_CONTACT else 400.0
        return Purchase(
            time_s=float(time_s),
            customer=customer,
            merchant=web_shop(category, int(rng.integers(WEB_SHOPS))),
            online=True,
            entry_mode=0,
            checkout=CHECKOUTS.index("guest" if guest else "account"),
            channel="app" if rng.random() < 0.3 else "web",
            amount_minor=max(50, round(float(amount) * 100)),
            device=next(self.device_ids),
            distance_km=float(rng.uniform(100.0, 6_000.0) if far else 15.0 + rng.exponential(35.0)),
            abroad=bool(far and rng.random() < 0.6),
            shipping_mismatch=bool(rng.random() < _ELSEWHERE),
            contact_age_days=float(changed),
            scenario="",
            labels=confirmed(float(time_s), float(rng.random()))
            if rng.random() < CONFIRMED_SHARE
            else (),
        )
