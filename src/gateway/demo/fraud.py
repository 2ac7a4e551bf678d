"""How fraud is done, and how that changes: scenarios with their own onset and intensity.

    card testing        stolen numbers tried out with small amounts, then used; comes in waves
    stolen number       one purchase or two, meant to look like everybody's
    account takeover    high amounts from a new device, after the contact details changed
    counterfeit         a copied stripe, far from home; fades as terminals learn to read chips
    lost or stolen      the card itself, tapped near home until somebody notices
    persuaded           customers talked into paying, from their own device; begins in September

The last one begins after the models that are shipped were trained: it is what drift is for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import exp, pi, sin

import numpy as np

from gateway.demo.customers import Customers
from gateway.demo.labels import fraud_labels
from gateway.demo.merchants import (
    CATEGORIES,
    CATEGORY_INDEX,
    CITIES,
    HOME_CITIES,
    LOCAL_SHOPS,
    WEB_SHOPS,
    Merchants,
    shop,
    web_shop,
)
from gateway.demo.payment import CHECKOUTS, ENTRY_MODES, Purchase

PERSUADED_ONSET_DAY = 240

_FADES_DAYS = 150.0
_WAVE_DAYS = 45.0
_HOUR_S = 3_600.0
_BRAZEN = 0.25
"""Share of online payments that hide neither their country nor their distance."""
SPOOFED = 0.55
"""Share of online attacks whose device looks like the victim's: malware, a stolen session."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One attack: who suffers, from when on, and by which device.

    `device` is what a web shop sees, `own_device` one of the victim's: the same where the
    attacker spoofs it. `contact_age_days` is the age of the victim's own contact details.
    """

    rng: np.random.Generator
    customers: Customers
    merchants: Merchants
    scenario: str
    day: int
    start_s: float
    victim: int
    device: int
    own_device: int
    contact_age_days: float

    def later(self, low_s: float, high_s: float) -> float:
        """Draw a delay in seconds."""
        return float(self.rng.uniform(low_s, high_s))

    def one_of(self, *names: str) -> int:
        """Draw a category's index by name."""
        return CATEGORY_INDEX[names[int(self.rng.integers(len(names)))]]

    def price(self, category: int, times: float) -> int:
        """Draw an amount in minor units: `times` what the victim would spend there."""
        kind = CATEGORIES[category]
        usual = kind.median * float(self.customers.spend[self.victim])
        drawn = usual * times * float(self.rng.lognormal(0.0, 0.8 * kind.spread))
        return max(50, round(drawn * 100))

    def online(
        self,
        time_s: float,
        category: int,
        amount_minor: int,
        *,
        guest: float,
        ships_elsewhere: float,
        favourite: float = 0.0,
        own_device: bool = False,
        contact_age_days: float | None = None,
    ) -> Purchase:
        """Buy from a web shop; `guest`, `ships_elsewhere`, `favourite` are probabilities.

        `favourite`: of buying where the victim does, to look like them.
        """
        rng = self.rng
        brazen = not own_device and rng.random() < _BRAZEN
        distance = rng.uniform(100.0, 6_000.0) if brazen else 15.0 + rng.exponential(35.0)
        if rng.random() < favourite:
            usual = int(self.customers.favourite_web_shop[self.victim, category])
            merchant = web_shop(category, usual)
        else:
            shops = web_shop(np.full(WEB_SHOPS, category), np.arange(WEB_SHOPS))
            merchant = self._appealing(shops)
        checkout = "guest" if rng.random() < guest else ("account", "wallet")[rng.integers(2)]
        return Purchase(
            time_s=time_s,
            customer=self.victim,
            merchant=merchant,
            online=True,
            entry_mode=0,
            checkout=CHECKOUTS.index(checkout),
            channel="app" if rng.random() < 0.3 else "web",
            amount_minor=amount_minor,
            device=self.own_device if own_device else self.device,
            distance_km=float(distance),
            abroad=bool(brazen and rng.random() < 0.6),
            shipping_mismatch=bool(rng.random() < ships_elsewhere),
            contact_age_days=self.contact_age_days
            if contact_age_days is None
            else contact_age_days,
            scenario=self.scenario,
            labels=fraud_labels(rng, time_s, amount_minor),
        )

    def in_person(
        self, time_s: float, city: int, category: int, amount_minor: int, *, entry_mode: str
    ) -> Purchase:
        """Buy in a shop of a city."""
        shops = shop(
            np.full(LOCAL_SHOPS, city), np.full(LOCAL_SHOPS, category), np.arange(LOCAL_SHOPS)
        )
        merchant = self._appealing(shops, without_chip=entry_mode == "swipe")
        away = np.hypot(
            self.merchants.x_km[merchant] - self.customers.x_km[self.victim],
            self.merchants.y_km[merchant] - self.customers.y_km[self.victim],
        )
        return Purchase(
            time_s=time_s,
            customer=self.victim,
            merchant=merchant,
            online=False,
            entry_mode=ENTRY_MODES.index(entry_mode),
            checkout=0,
            channel="unattended" if category == CATEGORY_INDEX["fuel"] else "terminal",
            amount_minor=amount_minor,
            device=self.own_device,
            distance_km=float(away),
            abroad=city >= HOME_CITIES,
            shipping_mismatch=False,
            contact_age_days=self.contact_age_days,
            scenario=self.scenario,
            labels=fraud_labels(self.rng, time_s, amount_minor),
        )

    def _appealing(self, shops: np.ndarray, *, without_chip: bool = False) -> int:
        weight = self.merchants.appeal[shops]
        if without_chip:
            weight = weight * np.where(self.merchants.chip_day[shops] > self.day, 1.0, 0.05)
        return int(self.rng.choice(shops, p=weight / weight.sum()))


@dataclass(frozen=True, slots=True)
class Scenario:
    """`per_thousand`: attacks a day and 1,000 customers where `intensity(day)` is 1.

    `targets` weighs the age bands, in their order.
    """

    name: str
    per_thousand: float
    targets: tuple[float, float, float, float]
    intensity: Callable[[int], float]
    attack: Callable[[Scene], list[Purchase]]


def _card_testing(scene: Scene) -> list[Purchase]:
    rng, time_s = scene.rng, scene.start_s
    at_the_pump = rng.random() < 0.25
    home = int(scene.customers.home_city[scene.victim])
    purchases: list[Purchase] = []
    for _ in range(int(rng.integers(2, 7))):
        small = int(rng.integers(100, 900))
        if at_the_pump:
            mode = "swipe" if rng.random() < 0.7 else "keyed"
            purchases.append(
                scene.in_person(time_s, home, CATEGORY_INDEX["fuel"], small, entry_mode=mode)
            )
        else:
            digital = CATEGORY_INDEX["digital"]
            purchases.append(scene.online(time_s, digital, small, guest=0.6, ships_elsewhere=0.0))
        time_s += scene.later(30.0, 900.0)
    if rng.random() < 0.6:
        kind = scene.one_of("electronics", "clothing", "digital")
        time_s += scene.later(600.0, 12 * _HOUR_S)
        amount = scene.price(kind, 2.0)
        purchases.append(scene.online(time_s, kind, amount, guest=0.6, ships_elsewhere=0.5))
    return purchases


def _stolen_number(scene: Scene) -> list[Purchase]:
    time_s = scene.start_s
    purchases: list[Purchase] = []
    for _ in range(1 if scene.rng.random() < 0.7 else 2):
        kind = scene.one_of("electronics", "clothing", "restaurant", "grocery", "home", "travel")
        purchases.append(
            scene.online(
                time_s,
                kind,
                scene.price(kind, 1.2),
                guest=0.3,
                ships_elsewhere=0.2,
                favourite=0.55,
            )
        )
        time_s += scene.later(_HOUR_S, 20 * _HOUR_S)
    return purchases


def _account_takeover(scene: Scene) -> list[Purchase]:
    rng, time_s = scene.rng, scene.start_s
    changed = float(rng.uniform(0.0, 4.0)) if rng.random() < 0.5 else None
    purchases: list[Purchase] = []
    for _ in range(int(rng.integers(1, 4))):
        kind = scene.one_of("electronics", "jewellery", "travel", "clothing")
        purchases.append(
            scene.online(
                time_s,
                kind,
                scene.price(kind, float(rng.uniform(1.5, 4.0))),
                guest=0.05,
                ships_elsewhere=0.6,
                contact_age_days=changed,
            )
        )
        time_s += scene.later(300.0, 6 * _HOUR_S)
    return purchases


def _counterfeit(scene: Scene) -> list[Purchase]:
    rng, time_s = scene.rng, scene.start_s
    city = int(rng.integers(0, CITIES))
    purchases: list[Purchase] = []
    for _ in range(int(rng.integers(2, 5))):
        kind = scene.one_of("electronics", "clothing", "grocery", "fuel", "jewellery")
        amount = scene.price(kind, 1.8)
        purchases.append(scene.in_person(time_s, city, kind, amount, entry_mode="swipe"))
        time_s += scene.later(900.0, 3 * _HOUR_S)
    return purchases


def _lost_or_stolen(scene: Scene) -> list[Purchase]:
    rng, time_s = scene.rng, scene.start_s
    home = int(scene.customers.home_city[scene.victim])
    purchases: list[Purchase] = []
    for _ in range(int(rng.integers(2, 7))):
        kind = scene.one_of("grocery", "fuel", "restaurant", "clothing", "electronics")
        mode = "contactless" if rng.random() < 0.85 else "chip"
        amount = scene.price(kind, 1.3)
        if mode == "contactless":
            amount = min(amount, 10_000)
        purchases.append(scene.in_person(time_s, home, kind, amount, entry_mode=mode))
        time_s += scene.later(300.0, 2 * _HOUR_S)
    return purchases


def _impostor(scene: Scene) -> list[Purchase]:
    kind = scene.one_of("utilities", "clothing", "home", "grocery", "digital", "travel")
    amount = scene.price(kind, 1.3)
    return [
        scene.online(
            scene.start_s,
            kind,
            amount,
            guest=0.1,
            ships_elsewhere=0.05,
            favourite=0.7,
            own_device=True,
        )
    ]


def _persuaded(scene: Scene) -> list[Purchase]:
    kind = scene.one_of("digital", "travel", "electronics")
    amount = scene.price(kind, 12.0 if kind == CATEGORY_INDEX["digital"] else 2.5)
    return [
        scene.online(scene.start_s, kind, amount, guest=0.3, ships_elsewhere=0.1, own_device=True)
    ]


SCENARIOS = (
    Scenario(
        "card-testing", 0.28, (1.5, 0.9, 0.8, 0.8),
        lambda day: 1.0 + 0.6 * sin(2.0 * pi * day / _WAVE_DAYS), _card_testing,
    ),
    Scenario("stolen-number", 0.8, (0.8, 0.9, 1.2, 1.8), lambda _day: 1.0, _stolen_number),
    Scenario(
        "account-takeover", 0.50, (0.6, 0.8, 1.5, 3.0),
        lambda day: min(2.0, 0.7 + day / 300.0), _account_takeover,
    ),
    Scenario(
        "counterfeit", 0.9, (0.7, 1.0, 1.3, 1.8),
        lambda day: exp(-max(day, 0) / _FADES_DAYS), _counterfeit,
    ),
    Scenario("lost-or-stolen", 0.4, (1.2, 0.8, 1.0, 3.0), lambda _day: 1.0, _lost_or_stolen),
    Scenario(
        "persuaded", 1.6, (0.6, 0.8, 1.4, 2.8),
        lambda day: min(1.0, max(0.0, (day - PERSUADED_ONSET_DAY) / 30.0)), _persuaded,
    ),
)  # fmt: skip


def impostor(onset_day: int, *, per_thousand: float, grows_days: float) -> Scenario:
    """Return a scenario of its own: a shop that customers know, and another takes the money.

    Customers pay as they always do, from their own device, where they always pay; it begins on
    `onset_day` and has grown to `per_thousand` attacks a day after `grows_days`.
    """
    return Scenario(
        "impostor",
        per_thousand,
        (1.0, 1.0, 1.0, 1.0),
        lambda day: min(1.0, max(0.0, (day - onset_day) / grows_days)),
        _impostor,
    )
