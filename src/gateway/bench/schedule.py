"""When each call is to be sent: made ahead, so that no answer can move the next call."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Schedule = NDArray[np.int64]
"""Nanoseconds after the start, in order."""


def poisson(rng: np.random.Generator, rate_per_s: float, seconds: float) -> Schedule:
    """Draw a Poisson process of `round(rate x seconds)` arrivals.

    Given their number, the arrivals of a Poisson process are as many uniform draws, sorted:
    so the number of calls is what was asked for, and the gaps are exponential all the same.
    """
    count = max(1, round(rate_per_s * seconds))
    return np.sort(rng.integers(0, max(1, round(seconds * 1e9)), count))


def steps(rng: np.random.Generator, *parts: tuple[float, float]) -> Schedule:
    """Draw one Poisson process after the other: each part is (rate a second, seconds)."""
    begins_ns = np.cumsum([0.0, *(seconds for _, seconds in parts)]) * 1e9
    drawn = [
        poisson(rng, *part) + round(begin) for part, begin in zip(parts, begins_ns, strict=False)
    ]
    return np.concatenate(drawn)


def burst(count: int) -> Schedule:
    """Return `count` arrivals at one instant."""
    return np.zeros(count, np.int64)
