"""Point-in-time features: what was known of customer and merchant just before a payment.

`History.features` reads, `History.observe` writes; both must see payments in the order of
time. A fraud counts against its merchant from the moment at which it is first reported,
never before. Memory is bounded by the customers and merchants, not by the payments.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections import deque
from math import exp, hypot, log, log1p

from gateway.demo.customers import Customers
from gateway.demo.merchants import (
    CATEGORIES,
    RISKS,
    Merchants,
    shop,
    web_shop,
)
from gateway.demo.payment import CardNotPresentFeatures, CardPresentFeatures, Purchase
from gateway.demo.seasons import DAY_S, day_start_s

WEEK_S = 7.0 * DAY_S
RATIO_MAX = 100.0
DAYS_MAX = 7_300.0
DISTANCE_KM_MAX = 20_000.0
SPEED_KMH_MAX = 2_000.0
COUNT_MAX = 500
"""A customer's last week is kept up to this many payments; a merchant's hour too."""
KNOWN_MERCHANTS_MAX = 200
KNOWN_DEVICES_MAX = 10

_SMALL_MINOR = 1_000
_HOUR_S = 3_600.0
_LEARNING_RATE = 0.05
_RISK_HALF_LIFE_S = 45.0 * DAY_S
_PRIOR_PAYMENTS = 40.0
_PRIOR_RISK = 0.006
_PRIOR_HOURS = 0.25
_RISK_OF = tuple(float(RISKS.index(category.risk)) for category in CATEGORIES)


class _CustomerState:
    """What is remembered of one customer; the first three lists are the last week's."""

    __slots__ = (
        "amounts_minor", "devices", "hours", "known", "last_shop", "log_usual",
        "log_usual_in", "merchants", "payments", "times",
    )  # fmt: skip

    def __init__(self, known: list[int], devices: dict[int, float], log_spend: float) -> None:
        self.times: list[float] = []
        self.amounts_minor: list[int] = []
        self.merchants: list[int] = []
        self.known = dict.fromkeys(known)
        self.devices = devices
        self.hours = [0.0] * 24
        self.payments = 0
        self.log_usual = log(35.0) + log_spend
        self.log_usual_in = [log(category.median) + log_spend for category in CATEGORIES]
        self.last_shop: tuple[float, float, float] | None = None


class _MerchantState:
    """Decaying counts of payments and reported frauds, and the times of the last hour."""

    __slots__ = ("hour", "payments", "reported", "since_s")

    def __init__(self, since_s: float) -> None:
        self.payments = 0.0
        self.reported = 0.0
        self.since_s = since_s
        self.hour: deque[float] = deque(maxlen=COUNT_MAX)

    def decay(self, now_s: float) -> None:
        """Let the counts fade to what they weigh now."""
        kept = 0.5 ** ((now_s - self.since_s) / _RISK_HALF_LIFE_S)
        self.payments *= kept
        self.reported *= kept
        self.since_s = now_s

    def count_1h(self, now_s: float) -> int:
        """Return how many payments it has had in the last hour."""
        while self.hour and self.hour[0] < now_s - _HOUR_S:
            self.hour.popleft()
        return len(self.hour)


class History:
    """The memory of one simulated card issuer."""

    def __init__(self, customers: Customers, merchants: Merchants) -> None:
        self._customers = customers
        self._category = merchants.category.tolist()
        self._x_km, self._y_km = merchants.x_km.tolist(), merchants.y_km.tolist()
        self._account_since_s = (
            day_start_s(0) - customers.account_age_days * float(DAY_S)
        ).tolist()
        self._of_customer: dict[int, _CustomerState] = {}
        self._of_merchant: dict[int, _MerchantState] = {}
        self._reports: list[tuple[float, int]] = []

    def features(self, purchase: Purchase) -> CardNotPresentFeatures | CardPresentFeatures:
        """Return the features of a payment that is about to be made."""
        self._hear_reports(purchase.time_s)
        customer = self._customer(purchase.customer)
        merchant = self._merchant(purchase.merchant, purchase.time_s)
        if purchase.online:
            return self._card_not_present(purchase, customer, merchant)
        return self._card_present(purchase, customer, merchant)

    def observe(self, purchase: Purchase) -> None:
        """Remember a payment that was made."""
        time_s, number, minor = purchase.time_s, purchase.merchant, purchase.amount_minor
        customer = self._customer(purchase.customer)
        _forget_before(customer, time_s - WEEK_S)
        customer.times.append(time_s)
        customer.amounts_minor.append(minor)
        customer.merchants.append(number)
        customer.hours[int(time_s % DAY_S // _HOUR_S)] += 1.0
        customer.payments += 1
        _remember(customer.known, number, KNOWN_MERCHANTS_MAX)
        category, amount = self._category[number], log(minor / 100.0)
        customer.log_usual += _LEARNING_RATE * (amount - customer.log_usual)
        usual_in = customer.log_usual_in
        usual_in[category] += 3.0 * _LEARNING_RATE * (amount - usual_in[category])
        if purchase.online:
            if purchase.device not in customer.devices:
                if len(customer.devices) >= KNOWN_DEVICES_MAX:
                    del customer.devices[next(iter(customer.devices))]
                customer.devices[purchase.device] = time_s
        else:
            customer.last_shop = (time_s, self._x_km[number], self._y_km[number])

        merchant = self._merchant(number, time_s)
        merchant.decay(time_s)
        merchant.payments += 1.0
        merchant.hour.append(time_s)
        if purchase.scenario and purchase.labels:
            heapq.heappush(self._reports, (purchase.labels[0].reported_s, number))

    def _hear_reports(self, now_s: float) -> None:
        while self._reports and self._reports[0][0] <= now_s:
            reported_s, number = heapq.heappop(self._reports)
            merchant = self._merchant(number, reported_s)
            merchant.decay(max(reported_s, merchant.since_s))
            merchant.reported += 1.0

    def _card_not_present(
        self, purchase: Purchase, customer: _CustomerState, merchant: _MerchantState
    ) -> CardNotPresentFeatures:
        time_s, amount = purchase.time_s, purchase.amount_minor / 100.0
        category = self._category[purchase.merchant]
        hour = int(time_s % DAY_S // _HOUR_S)
        times, amounts_minor = customer.times, customer.amounts_minor
        day_ago = bisect_left(times, time_s - DAY_S)
        since_device_s = customer.devices.get(purchase.device)
        return CardNotPresentFeatures(
            amount=amount,
            log_amount=log1p(amount),
            hour=hour,
            weekday=_weekday(time_s),
            hour_share=_hour_share(customer, hour),
            amount_to_usual=min(amount / exp(customer.log_usual), RATIO_MAX),
            amount_to_category=min(amount / exp(customer.log_usual_in[category]), RATIO_MAX),
            seconds_since_last=_seconds_since_last(times, time_s),
            count_1h=len(times) - bisect_left(times, time_s - _HOUR_S),
            count_24h=len(times) - day_ago,
            count_7d=len(times) - bisect_left(times, time_s - WEEK_S),
            small_count_24h=sum(minor <= _SMALL_MINOR for minor in amounts_minor[day_ago:]),
            amount_24h=sum(amounts_minor[day_ago:]) / 100.0,
            merchants_24h=len(set(customer.merchants[day_ago:])),
            new_merchant=float(purchase.merchant not in customer.known),
            merchant_risk=_risk(merchant, time_s),
            merchant_count_1h=merchant.count_1h(time_s),
            new_device=float(since_device_s is None),
            device_age_days=0.0
            if since_device_s is None
            else min(max(time_s - since_device_s, 0.0) / DAY_S, DAYS_MAX),
            devices=len(customer.devices),
            ip_distance_km=min(purchase.distance_km, DISTANCE_KM_MAX),
            country_mismatch=float(purchase.abroad),
            shipping_mismatch=float(purchase.shipping_mismatch),
            account_age_days=min(
                (time_s - self._account_since_s[purchase.customer]) / DAY_S, DAYS_MAX
            ),
            contact_age_days=min(purchase.contact_age_days, DAYS_MAX),
            checkout=purchase.checkout,
            mcc_risk=_RISK_OF[category],
            category=category,
        )

    def _card_present(
        self, purchase: Purchase, customer: _CustomerState, merchant: _MerchantState
    ) -> CardPresentFeatures:
        time_s, amount = purchase.time_s, purchase.amount_minor / 100.0
        times = customer.times
        day_ago = bisect_left(times, time_s - DAY_S)
        return CardPresentFeatures(
            amount=amount,
            log_amount=log1p(amount),
            hour=int(time_s % DAY_S // _HOUR_S),
            weekday=_weekday(time_s),
            amount_to_usual=min(amount / exp(customer.log_usual), RATIO_MAX),
            seconds_since_last=_seconds_since_last(times, time_s),
            count_1h=len(times) - bisect_left(times, time_s - _HOUR_S),
            count_24h=len(times) - day_ago,
            merchants_24h=len(set(customer.merchants[day_ago:])),
            new_merchant=float(purchase.merchant not in customer.known),
            merchant_risk=_risk(merchant, time_s),
            distance_km=min(purchase.distance_km, DISTANCE_KM_MAX),
            speed_kmh=self._speed_kmh(customer, purchase),
            country_mismatch=float(purchase.abroad),
            entry_mode=purchase.entry_mode,
            mcc_risk=_RISK_OF[self._category[purchase.merchant]],
        )

    def _speed_kmh(self, customer: _CustomerState, purchase: Purchase) -> float:
        """Return how fast the card has travelled since the last shop."""
        if customer.last_shop is None:
            return 0.0
        last_s, x_km, y_km = customer.last_shop
        number = purchase.merchant
        away_km = hypot(self._x_km[number] - x_km, self._y_km[number] - y_km)
        # Nobody walks in and out in less than six minutes.
        hours = max((purchase.time_s - last_s) / _HOUR_S, 0.1)
        return min(away_km / hours, SPEED_KMH_MAX)

    def _customer(self, number: int) -> _CustomerState:
        state = self._of_customer.get(number)
        if state is None:
            state = self._of_customer[number] = self._stranger(number)
        return state

    def _stranger(self, number: int) -> _CustomerState:
        """Return what the issuer knows of a customer from before the simulation."""
        customers = self._customers
        home = int(customers.home_city[number])
        shops = customers.favourite_shop[number].tolist()
        web_shops = customers.favourite_web_shop[number].tolist()
        known = [shop(home, kind, favourite) for kind, favourite in enumerate(shops)]
        known += [web_shop(kind, favourite) for kind, favourite in enumerate(web_shops)]
        ages_days = customers.device_age_days[number].tolist()
        in_use = int(customers.devices[number])
        devices = {
            number * len(ages_days) + slot: day_start_s(0) - ages_days[slot] * DAY_S
            for slot in range(in_use)
        }
        return _CustomerState(known, devices, log(float(customers.spend[number])))

    def _merchant(self, number: int, now_s: float) -> _MerchantState:
        state = self._of_merchant.get(number)
        if state is None:
            state = self._of_merchant[number] = _MerchantState(now_s)
        return state


def _risk(merchant: _MerchantState, now_s: float) -> float:
    """Return the share of a merchant's payments that were reported as fraud by now.

    Recent ones weigh more (half-life 45 days); a merchant with few payments is drawn
    towards the average.
    """
    merchant.decay(now_s)
    reported = merchant.reported + _PRIOR_PAYMENTS * _PRIOR_RISK
    return min(reported / (merchant.payments + _PRIOR_PAYMENTS), 1.0)


def _hour_share(customer: _CustomerState, hour: int) -> float:
    """Return the share of a customer's payments within an hour of this hour of the day."""
    hours = customer.hours
    near = hours[hour - 1] + hours[hour] + hours[(hour + 1) % 24]
    return (near + 3.0 * _PRIOR_HOURS) / (customer.payments + 24.0 * _PRIOR_HOURS)


def _seconds_since_last(times: list[float], now_s: float) -> float:
    return min(now_s - times[-1], WEEK_S) if times else WEEK_S


def _weekday(time_s: float) -> int:
    """Return 0 for a Monday (UTC). The first day of Unix time was a Thursday."""
    return int(time_s // DAY_S + 3) % 7


def _forget_before(customer: _CustomerState, oldest_s: float) -> None:
    """Drop payments older than the week, not one by one, and keep to COUNT_MAX."""
    old = bisect_left(customer.times, oldest_s)
    if len(customer.times) >= COUNT_MAX:
        old = max(old, COUNT_MAX // 10)
    if old >= 16:
        del customer.times[:old], customer.amounts_minor[:old], customer.merchants[:old]


def _remember(known: dict[int, None], number: int, at_most: int) -> None:
    if number not in known:
        if len(known) >= at_most:
            del known[next(iter(known))]
        known[number] = None
