"""How long answers took, against the budget: a distribution, and its quantiles by day. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.evaluate.measures import Columns
from gateway.evaluate.terms import Terms
from gateway.evaluate.view import of_product

WINDOW = timedelta(days=28)

PER_DECADE = 40
"""Bins of a power of ten in `queries/latency.sql`: a quantile is known to within 3 %."""

_SHOWN_PER_DECADE = 10
_QUANTILES = {"p50_us": 0.5, "p90_us": 0.9, "p99_us": 0.99, "p999_us": 0.999}

Bins = NDArray[np.int64]
Floats = NDArray[np.float64]


def latency(terms: Terms, columns: Columns, first: date, last: date) -> dict[str, Any]:
    """Return how long a product's answers took, as JSON.

    `columns`: the rows of `queries/latency.sql`, days from `first` to `last`. `late`: later than
    the call's own deadline, which is the budget or less. A quantile of nothing is null.
    """
    rows = of_product(columns, terms.name)
    bins, n = rows["bin"].astype(np.int64), rows["n"].astype(np.float64)
    stood_in, late = rows["stood_in"].astype(np.bool_), rows["late"].astype(np.bool_)
    day = rows["day"].astype("datetime64[D]")
    return {
        "product": terms.name,
        "from": first.isoformat(),
        "to": last.isoformat(),
        "budget_us": terms.product.latency.budget_us,
        "n": int(n.sum()),
        "late": int(n[late].sum()),
        **{name: quantile(bins, n, at) for name, at in _QUANTILES.items()},
        "bins": _shown(bins, n, stood_in, late),
        "days": [
            {
                "day": str(one),
                "n": int(n[here].sum()),
                "late": int(n[here & late].sum()),
                "p50_us": quantile(bins[here], n[here], 0.5),
                "p99_us": quantile(bins[here], n[here], 0.99),
            }
            for one in np.unique(day)
            for here in [day == one]
        ],
    }


def quantile(bins: Bins, n: Floats, share: float) -> float | None:
    """Return the time in µs that so great a share took at most; None of nothing.

    Within its bin times are taken to lie evenly on the logarithmic scale.
    """
    if not n.sum() > 0:
        return None
    at, place = np.unique(bins, return_inverse=True)
    count = np.bincount(place, weights=n)
    below = np.cumsum(count)
    wanted = share * below[-1]
    i = int(np.searchsorted(below, wanted))
    within = (wanted - (below[i] - count[i])) / count[i]
    return float(f"{10 ** ((at[i] + within) / PER_DECADE):.3g}")


def _shown(
    bins: Bins, n: Floats, stood_in: NDArray[np.bool_], late: NDArray[np.bool_]
) -> list[Mapping[str, Any]]:
    """Return a histogram of tenths of a power of ten, from the first to the last that has any."""
    if not len(bins):
        return []
    coarse = bins // (PER_DECADE // _SHOWN_PER_DECADE)
    first = int(coarse.min())
    size = int(coarse.max()) - first + 1

    def counts(some: NDArray[np.bool_]) -> list[int]:
        found = np.bincount(coarse[some] - first, weights=n[some], minlength=size)
        return [int(one) for one in found]

    kinds = counts(~stood_in & ~late), counts(stood_in & ~late), counts(late)
    return [
        {
            "from_us": _edge(first + i),
            "to_us": _edge(first + i + 1),
            "by_model": by_model,
            "stood_in": in_place,
            "late": late_ones,
        }
        for i, (by_model, in_place, late_ones) in enumerate(zip(*kinds, strict=True))
    ]


def _edge(place: int) -> float:
    return float(f"{10 ** (place / _SHOWN_PER_DECADE):.4g}")
