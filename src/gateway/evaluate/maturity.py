"""How labels came in: fraud reported by age, week by week of what was decided. Pure."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import numpy as np

from gateway.evaluate.measures import Columns, masked
from gateway.evaluate.terms import Terms
from gateway.evaluate.view import of_product

AGES = (1, 3, 7, 14, 21, 30, 45, 60, 90, 120, 180)
"""Ages in days that are shown, as far as a product's labels take."""

WEEKS = 26

_MONDAY = np.datetime64("1970-01-05", "D")
_WEEK = timedelta(days=7)


def maturity(terms: Terms, columns: Columns, today: date) -> dict[str, Any]:
    """Return, for each week, how much of what went through was reported as fraud by which age.

    `columns`: the rows of `queries/cohorts.sql`. `reported`: of the week's payments, by age; null
    where its last day has not come to that age, so that each number is of the whole week. `share`:
    the same over `passed`.
    """
    rows = of_product(columns, terms.name)
    longest = terms.maturity.days
    ages = [age for age in AGES if age < longest] + [longest]
    day = rows["day"].astype("datetime64[D]")
    week = (day - _MONDAY).astype(np.int64) // 7
    n = rows["n"].astype(np.float64)
    delay = masked(rows["delay"], -1).astype(np.int64)
    cohorts = []
    for one in np.unique(week[n > 0])[-WEEKS:]:
        here = week == one
        begin = (_MONDAY + int(one) * 7).astype(date)
        youngest = (today - min(begin + _WEEK - timedelta(days=1), today)).days
        seen = here & (delay >= 0)
        passed = float(n[here].sum())
        reported = [
            float(n[seen & (delay < age)].sum()) if age <= youngest else None for age in ages
        ]
        cohorts.append(
            {
                "from": begin.isoformat(),
                "to": (begin + _WEEK - timedelta(days=1)).isoformat(),
                "passed": int(passed),
                "reported": [None if k is None else int(k) for k in reported],
                "share": [None if k is None else k / passed for k in reported],
            }
        )
    return {"product": terms.name, "ages_days": ages, "cohorts": cohorts}
