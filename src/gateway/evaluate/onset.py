"""When a change began: in a series of daily figures, one after the other. Pure.

Two shapes are fitted at every day: a step, from one level to another, and a ramp, from a level on
steadily to the end. The better fit says when; the days that fit hardly worse say how sure that is
(the likelihood's set of 95 %: Siegmund 1988). Where days hang together they tell less, so the set
is wider by what neighbouring residuals have in common.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Places = NDArray[np.int64]

LIKELIHOOD = float(-2.0 * np.log(1.0 - np.sqrt(0.95)))
"""Twice the loss of log-likelihood up to which a day may be the one."""

CHANGED = 12.0
"""Twice the gain of log-likelihood from which on there is a change at all: the best of some sixty
days gains so much of noise in about one series of a hundred."""

SURE_DAYS = 14
"""A set of more days than this is not sure."""

_BEFORE, _AFTER = 3, 1
"""So many days are known before a change, and behind it."""

_COMMON_MAX = 0.8


class Onset(NamedTuple):
    """The likeliest first day of a change, and the first and last that it may have been."""

    day: int
    earliest: int
    latest: int
    shape: Literal["step", "ramp"]


def onset(day: Places, figure: Floats, weight: Floats) -> Onset | None:
    """Return when a series changed; None where it did not, or it is not sure when.

    `day` (n,), rising; `weight` (n,): one over the figure's variance, up to a factor.
    """
    known = np.isfinite(figure) & (weight > 0)
    day, figure, weight = day[known], figure[known], weight[known]
    n = len(day)
    if n < _BEFORE + _AFTER + 2:
        return None
    at = np.arange(_BEFORE, n - _AFTER + 1)
    since = (day - day[at, None] + 0.5).clip(0.0)
    ramps = since[n - at > 2]  # a ramp of two days is a step as well
    columns = _centred(np.concatenate([since > 0, ramps]).astype(np.float64), weight)
    begins = np.concatenate([at, at[n - at > 2]])
    flat = _centred(figure[None], weight)[0]
    slopes = (columns @ (weight * flat)) / (columns**2 @ weight)
    left = flat - slopes[:, None] * columns
    errors = left**2 @ weight
    all_error = float(flat**2 @ weight)
    if all_error <= 0.0:
        return None
    best = int(errors.argmin())
    least = max(float(errors[best]), 1e-12 * all_error)
    residual = left[best] * np.sqrt(weight)
    common = float(np.clip((residual[1:] @ residual[:-1]) / least, 0.0, _COMMON_MAX))
    wider = (1.0 + common) / (1.0 - common)
    if n * np.log(all_error / least) < CHANGED * wider:
        return None
    may = day[begins[errors <= least * float(np.exp(LIKELIHOOD * wider / n))]]
    if may.max() - may.min() >= SURE_DAYS:
        return None
    is_ramp = best >= len(at)
    # Of a ramp the first day hardly differs from the days before it.
    slack = 1 if is_ramp else 0
    return Onset(
        int(day[begins[best]]),
        int(may.min()) - slack,
        int(may.max()) + slack,
        "ramp" if is_ramp else "step",
    )


def _centred(rows: Floats, weight: Floats) -> Floats:
    """Return rows (m, n) less their weighted means."""
    centred: Floats = rows - (rows @ weight / weight.sum())[:, None]
    return centred
