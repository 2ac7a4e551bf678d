"""Who spends: customers with a home, habits and devices, in age bands that differ.

The age band is an attribute by subject. It shapes behaviour and how often fraud strikes,
and is never a feature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.demo.merchants import (
    CATEGORIES,
    CATEGORY_INDEX,
    HOME_CITIES,
    LOCAL_SHOPS,
    WEB_SHOPS,
    Merchants,
)

DEVICES = 3
"""At most this many devices a customer uses as a habit."""


@dataclass(frozen=True, slots=True)
class AgeBand:
    """How a band of customers lives.

    `peak_hour` and `hour_spread` are when they buy; `likes` multiplies a category's share;
    `online` multiplies a category's online share; `activity` is payments a day.
    """

    name: str
    share: float
    activity: float
    spend: float
    peak_hour: float
    hour_spread: float
    online: float
    contactless: float
    gamers: float
    account_years: float
    likes: dict[str, float]


AGE_BANDS = (
    AgeBand(
        "18-34", 0.30, 1.50, 0.85, 17.5, 4.5, 1.25, 0.75, 0.30, 2.0,
        {"digital": 2.2, "restaurant": 1.4, "transit": 1.6, "pharmacy": 0.5},
    ),
    AgeBand(
        "35-54", 0.36, 1.40, 1.15, 15.0, 4.0, 1.00, 0.65, 0.08, 6.0,
        {"home": 1.3, "fuel": 1.2},
    ),
    AgeBand(
        "55-69", 0.22, 1.10, 1.10, 13.5, 3.3, 0.80, 0.50, 0.02, 10.0,
        {"pharmacy": 1.5, "travel": 1.4, "digital": 0.4},
    ),
    AgeBand(
        "70+", 0.12, 0.80, 0.80, 11.5, 2.6, 0.55, 0.35, 0.00, 14.0,
        {"pharmacy": 3.0, "grocery": 1.3, "digital": 0.15, "transit": 0.4},
    ),
)  # fmt: skip
SHARES = tuple(band.share for band in AGE_BANDS)


@dataclass(frozen=True, slots=True)
class Customers:
    """Arrays over all n customers; `preference` is cumulative over categories, (n, categories).

    `favourite_shop` and `favourite_web_shop` are numbers within a category, (n, categories).
    """

    age_band: NDArray[np.intp]
    home_city: NDArray[np.intp]
    x_km: NDArray[np.float64]
    y_km: NDArray[np.float64]
    activity: NDArray[np.float64]
    spend: NDArray[np.float64]
    peak_hour: NDArray[np.float64]
    hour_spread: NDArray[np.float64]
    online: NDArray[np.float64]
    contactless: NDArray[np.float64]
    gamer: NDArray[np.bool_]
    preference: NDArray[np.float64]
    favourite_shop: NDArray[np.intp]
    favourite_web_shop: NDArray[np.intp]
    devices: NDArray[np.intp]
    device_age_days: NDArray[np.float64]
    account_age_days: NDArray[np.float64]
    contact_age_days: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.age_band)


def build_customers(
    rng: np.random.Generator,
    n: int,
    merchants: Merchants,
    *,
    shares: Sequence[float] = SHARES,
) -> Customers:
    """Draw n customers, `shares` of them of each age band. Ages are as of day 0 of the story."""
    band = rng.choice(len(AGE_BANDS), size=n, p=shares)
    home = rng.integers(0, HOME_CITIES, n)
    account_age = rng.exponential(_of(band, "account_years") * 365.0) + 20.0
    shape = (n, len(CATEGORIES))
    return Customers(
        age_band=band,
        home_city=home,
        x_km=merchants.city_x_km[home] + rng.normal(0.0, 15.0, n),
        y_km=merchants.city_y_km[home] + rng.normal(0.0, 15.0, n),
        activity=_of(band, "activity") * rng.gamma(3.0, 1.0 / 3.0, n),
        spend=_of(band, "spend") * rng.lognormal(0.0, 0.35, n),
        peak_hour=_of(band, "peak_hour") + rng.normal(0.0, 1.5, n),
        hour_spread=_of(band, "hour_spread") * rng.uniform(0.7, 1.3, n),
        online=_of(band, "online") * rng.uniform(0.6, 1.3, n),
        contactless=np.clip(_of(band, "contactless") * rng.uniform(0.5, 1.4, n), 0.0, 0.95),
        gamer=rng.random(n) < _of(band, "gamers"),
        preference=_preferences(rng, band),
        favourite_shop=rng.integers(0, LOCAL_SHOPS, shape),
        favourite_web_shop=rng.integers(0, WEB_SHOPS, shape),
        devices=rng.integers(1, DEVICES + 1, n),
        device_age_days=np.minimum(rng.exponential(400.0, (n, DEVICES)), account_age[:, None]),
        account_age_days=account_age,
        contact_age_days=np.minimum(rng.exponential(500.0, n), account_age),
    )


def _of(band: NDArray[np.intp], trait: str) -> NDArray[np.float64]:
    values: NDArray[np.float64] = np.array([getattr(b, trait) for b in AGE_BANDS])[band]
    return values


def _preferences(rng: np.random.Generator, band: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return cumulative shares of the categories, each customer's own: (n, categories)."""
    shares = np.tile([c.share for c in CATEGORIES], (len(AGE_BANDS), 1))
    for row, age_band in enumerate(AGE_BANDS):
        for name, factor in age_band.likes.items():
            shares[row, CATEGORY_INDEX[name]] *= factor
    own = shares[band] * rng.gamma(2.0, 0.5, (len(band), len(CATEGORIES)))
    cumulative: NDArray[np.float64] = np.cumsum(own, axis=1)
    return cumulative / cumulative[:, -1:]
