"""What customers buy on a day, by their habits: genuine payments only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.demo.customers import DEVICES, Customers
from gateway.demo.labels import CONFIRMED_SHARE, confirmed
from gateway.demo.merchants import (
    CATEGORIES,
    CATEGORY_INDEX,
    CITIES,
    HOME_CITIES,
    LOCAL_SHOPS,
    WEB_SHOPS,
    Indices,
    Merchants,
    shop,
    web_shop,
)
from gateway.demo.payment import CHECKOUTS, ENTRY_MODES, Label, Purchase
from gateway.demo.seasons import (
    DAY_S,
    HOLIDAY_LIKES,
    HOLIDAY_SPEND,
    HOLIDAY_TRAFFIC,
    Holiday,
    day_start_s,
    is_black_friday,
    traffic,
)

_MEDIAN = np.array([c.median for c in CATEGORIES])
_SPREAD = np.array([c.spread for c in CATEGORIES])
_ONLINE = np.array([c.online for c in CATEGORIES])
_DIGITAL, _FUEL = CATEGORY_INDEX["digital"], CATEGORY_INDEX["fuel"]
_NOTHING_TO_SHIP = (_DIGITAL, CATEGORY_INDEX["travel"], CATEGORY_INDEX["utilities"])
_CHIP, _CONTACTLESS, _SWIPE, _KEYED = range(len(ENTRY_MODES))
_CONTACTLESS_UP_TO_MINOR = 10_000
IP_BLUR_KM = 30.0

# Shares of days or payments on which something unusual, and genuine, happens.
_TRIP_STARTS = 0.006
_TRIP_DAYS = (2, 11)
_NEW_PHONE = 0.003
_NEW_CONTACT = 0.002
_FRESH_DEVICE = 0.05
_SPLURGE = 0.02
_VPN = 0.04
_GIFT = 0.07
_FAVOURITE = 0.7
_GAME_BURST = 0.35


@dataclass(frozen=True, slots=True)
class _Basket:
    """Columns of one day's payments, all of shape (n,)."""

    who: Indices
    time_s: NDArray[np.float64]
    category: Indices
    online: NDArray[np.bool_]


class Spending:
    """The customers' lives from day to day: trips, new phones, and what they buy.

    `device_ids` gives ids that no device has yet.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        customers: Customers,
        merchants: Merchants,
        *,
        first_day: int,
        device_ids: Iterator[int],
        holiday: Holiday | None = None,
    ) -> None:
        n = len(customers)
        self._rng = rng
        self._customers = customers
        self._merchants = merchants
        self._device_ids = device_ids
        self._holiday = holiday
        self._on_holiday = _other_shares(customers.preference, HOLIDAY_LIKES)
        self._cumulative_activity = np.cumsum(customers.activity)
        self._trip_until = np.full(n, first_day)
        self._trip_city = customers.home_city.copy()
        self.contact_since_s = day_start_s(0) - customers.contact_age_days * DAY_S
        self.device = np.arange(n * DEVICES).reshape(n, DEVICES)
        """The devices in use, (n, DEVICES): the first `customers.devices` of each row."""

    def day(self, day: int) -> list[Purchase]:
        """Return the day's genuine payments, in no order."""
        self._live(day)
        basket = self._basket(day)
        merchant, city = self._places(basket, day)
        amount_minor = self._amounts(basket, day)
        distance_km, abroad = self._distances(basket, merchant, city)
        n = len(basket.who)
        entry_mode = self._entry_modes(basket, merchant, amount_minor, day)
        checkout = self._rng.choice(len(CHECKOUTS), n, p=(0.55, 0.25, 0.20))
        gift = self._rng.random(n) < _GIFT
        ships = basket.online & ~np.isin(basket.category, _NOTHING_TO_SHIP)
        contact_age = (basket.time_s - self.contact_since_s[basket.who]) / DAY_S
        return list(
            map(
                Purchase,
                basket.time_s.tolist(),
                basket.who.tolist(),
                merchant.tolist(),
                basket.online.tolist(),
                entry_mode.tolist(),
                checkout.tolist(),
                self._channels(basket),
                amount_minor.tolist(),
                self._devices(basket.who),
                distance_km.tolist(),
                abroad.tolist(),
                (ships & gift).tolist(),
                np.maximum(contact_age, 0.0).tolist(),
                ("",) * n,
                self._labels(basket.time_s),
            )
        )

    def _live(self, day: int) -> None:
        """Start trips, replace phones, change addresses."""
        rng, n = self._rng, len(self._customers)
        leaves = (self._trip_until <= day) & (rng.random(n) < _TRIP_STARTS)
        self._trip_until = np.where(leaves, day + rng.integers(*_TRIP_DAYS, n), self._trip_until)
        self._trip_city = np.where(leaves, rng.integers(0, CITIES, n), self._trip_city)
        for customer in np.flatnonzero(rng.random(n) < _NEW_PHONE).tolist():
            slot = int(rng.integers(0, self._customers.devices[customer]))
            self.device[customer, slot] = next(self._device_ids)
        self.contact_since_s[rng.random(n) < _NEW_CONTACT] = day_start_s(day)

    def _basket(self, day: int) -> _Basket:
        rng, customers = self._rng, self._customers
        total = self._cumulative_activity[-1]
        is_holiday = self._is_holiday(day)
        busy = traffic(day) * (HOLIDAY_TRAFFIC if is_holiday else 1.0)
        preference = self._on_holiday if is_holiday else customers.preference
        n = rng.poisson(total * busy)
        who = np.searchsorted(self._cumulative_activity, rng.random(n) * total, side="right")
        hour = rng.normal(customers.peak_hour[who], customers.hour_spread[who]) % 24.0
        category = (rng.random(n)[:, None] > preference[who]).sum(axis=1)

        # Players buy several small things in a row: card testing looks like it.
        plays = customers.gamer[who] & (category == _DIGITAL) & (rng.random(n) < _GAME_BURST)
        again = np.repeat(np.flatnonzero(plays), rng.integers(1, 5, int(plays.sum())))
        who = np.concatenate([who, who[again]])
        hour = np.concatenate([hour, hour[again] + rng.uniform(0.01, 0.5, len(again))])
        category = np.concatenate([category, category[again]])

        share = _ONLINE[category] * customers.online[who] * (1.3 if is_black_friday(day) else 1.0)
        share = np.where(_ONLINE[category] >= 1.0, 1.0, np.minimum(share, 0.97))
        online = rng.random(len(who)) < share
        # Whoever plays past midnight is counted to the day on which they began.
        time_s = day_start_s(day) + np.minimum(hour * 3600.0, DAY_S - 1e-3)
        return _Basket(who, time_s, category, online)

    def _places(self, basket: _Basket, day: int) -> tuple[Indices, Indices]:
        """Return the merchants, and the cities where the customers are."""
        rng, customers = self._rng, self._customers
        n = len(basket.who)
        travels = self._trip_until[basket.who] > day
        city = np.where(travels, self._trip_city[basket.who], customers.home_city[basket.who])
        habitual = rng.random(n) < _FAVOURITE
        local = np.where(
            habitual & ~travels,
            customers.favourite_shop[basket.who, basket.category],
            rng.integers(0, LOCAL_SHOPS, n),
        )
        web = np.where(
            habitual,
            customers.favourite_web_shop[basket.who, basket.category],
            rng.integers(0, WEB_SHOPS, n),
        )
        merchant = np.where(
            basket.online, web_shop(basket.category, web), shop(city, basket.category, local)
        )
        return merchant, city

    def _is_holiday(self, day: int) -> bool:
        return self._holiday is not None and self._holiday.covers(day)

    def _amounts(self, basket: _Basket, day: int) -> NDArray[np.int64]:
        rng, n = self._rng, len(basket.who)
        usual = _MEDIAN[basket.category] * self._customers.spend[basket.who]
        usual = usual * (HOLIDAY_SPEND if self._is_holiday(day) else 1.0)
        amount = usual * np.exp(_SPREAD[basket.category] * rng.normal(0.0, 1.0, n))
        amount *= np.where(rng.random(n) < _SPLURGE, rng.uniform(3.0, 8.0, n), 1.0)
        minor: NDArray[np.int64] = np.clip(np.rint(amount * 100.0), 50, 2_000_000).astype(np.int64)
        return minor

    def _distances(
        self, basket: _Basket, merchant: Indices, city: Indices
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        rng, customers, places = self._rng, self._customers, self._merchants
        n = len(basket.who)
        x = np.where(basket.online, places.city_x_km[city], places.x_km[merchant])
        y = np.where(basket.online, places.city_y_km[city], places.y_km[merchant])
        distance = np.hypot(x - customers.x_km[basket.who], y - customers.y_km[basket.who])
        # An IP address says the region, not the house.
        distance += np.where(basket.online, rng.exponential(IP_BLUR_KM, n), 0.0)
        vpn = basket.online & (rng.random(n) < _VPN)
        distance = np.where(vpn, rng.uniform(100.0, 6_000.0, n), distance)
        abroad = (city >= HOME_CITIES) | (vpn & (rng.random(n) < 0.5))
        return distance, abroad

    def _entry_modes(
        self, basket: _Basket, merchant: Indices, amount_minor: NDArray[np.int64], day: int
    ) -> Indices:
        rng, n = self._rng, len(basket.who)
        taps = rng.random(n) < self._customers.contactless[basket.who]
        mode = np.where(taps & (amount_minor <= _CONTACTLESS_UP_TO_MINOR), _CONTACTLESS, _CHIP)
        worn_chip = rng.random(n) < 0.004
        mode = np.where((self._merchants.chip_day[merchant] > day) | worn_chip, _SWIPE, mode)
        mode = np.where(rng.random(n) < 0.006, _KEYED, mode)
        return np.where(basket.online, 0, mode)

    def _channels(self, basket: _Basket) -> list[str]:
        app = self._rng.random(len(basket.who)) < 0.45
        in_person = np.where(basket.category == _FUEL, "unattended", "terminal")
        channels: list[str] = np.where(
            basket.online, np.where(app, "app", "web"), in_person
        ).tolist()
        return channels

    def _devices(self, who: Indices) -> list[int]:
        rng, n = self._rng, len(who)
        slot = (rng.random(n) ** 2 * self._customers.devices[who]).astype(np.intp)
        devices: list[int] = self.device[who, slot].tolist()
        for i in np.flatnonzero(rng.random(n) < _FRESH_DEVICE).tolist():
            devices[i] = next(self._device_ids)
        return devices

    def _labels(self, time_s: NDArray[np.float64]) -> list[tuple[Label, ...]]:
        labels: list[tuple[Label, ...]] = [()] * len(time_s)
        asked = np.flatnonzero(self._rng.random(len(time_s)) < CONFIRMED_SHARE)
        draws = self._rng.random(len(asked))
        for i, draw in zip(asked.tolist(), draws.tolist(), strict=True):
            labels[i] = confirmed(float(time_s[i]), draw)
        return labels


def _other_shares(
    preference: NDArray[np.float64], likes: Mapping[str, float]
) -> NDArray[np.float64]:
    """Return cumulative shares of the categories, some of them liked more or less."""
    shares = np.diff(preference, axis=1, prepend=0.0)
    for name, factor in likes.items():
        shares[:, CATEGORY_INDEX[name]] *= factor
    cumulative: NDArray[np.float64] = np.cumsum(shares, axis=1)
    return cumulative / cumulative[:, -1:]
