"""How much is bought when: the week, the year, and Black Friday. Pure functions of a day.

A day is counted from `STORY_START_S`; day 0 is a Monday.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from math import cos, pi

DAY_S = 86_400
STORY_START_S = int(datetime(2026, 1, 5, tzinfo=UTC).timestamp())

_WEEK = (0.93, 0.90, 0.92, 0.98, 1.12, 1.20, 0.95)
_BLACK_FRIDAY_TRAFFIC = 1.8
_CHRISTMAS = 350
_THURSDAY = 3

HOLIDAY_TRAFFIC = 1.3
HOLIDAY_SPEND = 1.7
HOLIDAY_LIKES = {
    "travel": 4.0,
    "clothing": 2.2,
    "jewellery": 3.0,
    "electronics": 1.8,
    "restaurant": 1.4,
    "utilities": 0.5,
    "transit": 0.5,
    "grocery": 0.7,
}
"""What a category's share is multiplied by while people are on holiday."""


@dataclass(frozen=True, slots=True)
class Holiday:
    """Days of the story on which people buy more, other things, and for more. `ends`: the last."""

    begins: int
    ends: int

    def covers(self, day: int) -> bool:
        """Return whether a day belongs to it."""
        return self.begins <= day <= self.ends


def day_start_s(day: int) -> int:
    """Return the Unix second at which a day of the story begins."""
    return STORY_START_S + day * DAY_S


@cache
def traffic(day: int) -> float:
    """Return how many payments are made on a day, relative to an average one."""
    when = _date(day)
    of_year = when.timetuple().tm_yday
    year = 1.0 + 0.15 * cos(2.0 * pi * (of_year - _CHRISTMAS) / 365.0)
    sale = _BLACK_FRIDAY_TRAFFIC if is_black_friday(day) else 1.0
    return _WEEK[when.weekday()] * year * sale


@cache
def is_black_friday(day: int) -> bool:
    """Return whether a day lies between Black Friday and the Monday after it."""
    when = _date(day)
    november = date(when.year, 11, 1)
    thanksgiving = november + timedelta(days=(_THURSDAY - november.weekday()) % 7 + 21)
    return thanksgiving < when <= thanksgiving + timedelta(days=4)


def _date(day: int) -> date:
    return datetime.fromtimestamp(day_start_s(day), tz=UTC).date()
