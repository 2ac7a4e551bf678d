"""Where money is spent: categories with their real MCCs, cities, and merchants in them.

Merchants stand in blocks, so that a place and a category give an index by arithmetic:
first the shops, (city, category, LOCAL_SHOPS), then the web shops, (category, WEB_SHOPS).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

RISKS = ("low", "medium", "high")


@dataclass(frozen=True, slots=True)
class Category:
    """A kind of merchant. `median` is a usual amount in major units, `spread` its log-sigma."""

    name: str
    mccs: tuple[str, ...]
    risk: str
    median: float
    spread: float
    share: float
    online: float


CATEGORIES = (
    Category("grocery", ("5411",), "low", 38.0, 0.60, 0.25, 0.12),
    Category("pharmacy", ("5912",), "low", 22.0, 0.60, 0.07, 0.25),
    Category("fuel", ("5541", "5542"), "medium", 42.0, 0.35, 0.10, 0.00),
    Category("restaurant", ("5812", "5814"), "low", 24.0, 0.60, 0.17, 0.25),
    Category("clothing", ("5651",), "medium", 60.0, 0.60, 0.08, 0.55),
    Category("electronics", ("5732",), "high", 160.0, 0.80, 0.05, 0.65),
    Category("digital", ("5816",), "high", 12.0, 0.70, 0.10, 1.00),
    Category("travel", ("4511", "7011"), "medium", 260.0, 0.70, 0.03, 0.85),
    Category("jewellery", ("5944",), "high", 220.0, 0.80, 0.01, 0.40),
    Category("home", ("5200",), "low", 70.0, 0.80, 0.05, 0.40),
    Category("utilities", ("4900",), "low", 80.0, 0.40, 0.04, 0.95),
    Category("transit", ("4111",), "low", 6.0, 0.50, 0.05, 0.35),
)
CATEGORY_INDEX = {category.name: index for index, category in enumerate(CATEGORIES)}

CITIES = 36
"""The first `HOME_CITIES` are at home, the rest abroad."""
HOME_CITIES = 28
LOCAL_SHOPS = 4
WEB_SHOPS = 16

_SHOPS = CITIES * len(CATEGORIES) * LOCAL_SHOPS
_WEB_SHOPS = len(CATEGORIES) * WEB_SHOPS
_COUNTRY_KM = 1_500.0
_ABROAD_KM = 4_000.0
_CITY_KM = 12.0
_UPGRADE_DAYS = (-200, 500)
"""Between these days of the story shops replace terminals that only read the stripe."""
_FUEL_UPGRADE_LATER_DAYS = 150


Indices = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Merchants:
    """Arrays over all merchants. `chip_day`: from then on the terminal reads chips.

    `appeal` is how much fraudsters like it, 1 on average within a category. `city` is -1
    and the position meaningless for a web shop.
    """

    category: NDArray[np.intp]
    mcc: tuple[str, ...]
    city: NDArray[np.intp]
    x_km: NDArray[np.float64]
    y_km: NDArray[np.float64]
    chip_day: NDArray[np.float64]
    appeal: NDArray[np.float64]
    city_x_km: NDArray[np.float64]
    city_y_km: NDArray[np.float64]


Index = TypeVar("Index", int, NDArray[np.intp])


def shop(city: Index, category: Index, number: Index) -> Index:
    """Return the merchants with these numbers, 0..LOCAL_SHOPS-1, of a city and category."""
    return (city * len(CATEGORIES) + category) * LOCAL_SHOPS + number


def web_shop(category: Index, number: Index) -> Index:
    """Return the web shops with these numbers, 0..WEB_SHOPS-1, of a category."""
    return _SHOPS + category * WEB_SHOPS + number


def build_merchants(rng: np.random.Generator) -> Merchants:
    """Place cities and merchants at random."""
    reach = np.where(np.arange(CITIES) < HOME_CITIES, _COUNTRY_KM, _ABROAD_KM)
    city_x, city_y = rng.uniform(0.0, 1.0, (2, CITIES)) * reach
    city_x[HOME_CITIES:] += 2.0 * _COUNTRY_KM

    shops = np.arange(_SHOPS)
    city = np.concatenate([shops // (len(CATEGORIES) * LOCAL_SHOPS), np.full(_WEB_SHOPS, -1)])
    category = np.concatenate(
        [shops // LOCAL_SHOPS % len(CATEGORIES), np.arange(_WEB_SHOPS) // WEB_SHOPS]
    )
    merchants = _SHOPS + _WEB_SHOPS
    chip_day = rng.uniform(*_UPGRADE_DAYS, merchants)
    chip_day += np.where(category == CATEGORY_INDEX["fuel"], _FUEL_UPGRADE_LATER_DAYS, 0.0)
    mcc_draw = rng.random(merchants)
    return Merchants(
        category=category,
        mcc=tuple(
            mccs[int(draw * len(mccs))]
            for mccs, draw in zip(
                (CATEGORIES[c].mccs for c in category.tolist()), mcc_draw.tolist(), strict=True
            )
        ),
        city=city,
        x_km=city_x[city] + rng.normal(0.0, _CITY_KM, merchants),
        y_km=city_y[city] + rng.normal(0.0, _CITY_KM, merchants),
        chip_day=chip_day,
        appeal=rng.lognormal(-0.32, 0.8, merchants),
        city_x_km=city_x,
        city_y_km=city_y,
    )
