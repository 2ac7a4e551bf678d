"""Rows to try a model on, made of what product.yaml says of its features. Pure.

The golden vectors where there are any; then rows in which each column is drawn from them,
or from its declared range. The same product gives the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gateway.product import UNSEEN, Feature

GOLDEN_MAX = 64
DRAWN = 64


def sample_rows(
    columns: Sequence[Feature], golden: NDArray[np.float64] | Sequence[Sequence[float]]
) -> list[list[float]]:
    """Return rows of `columns`: the first of `golden` (m, columns), and DRAWN more."""
    draw = np.random.default_rng(0)
    known = np.asarray(golden, dtype=np.float64).reshape(-1, len(columns))
    drawn = np.empty((DRAWN, len(columns)))
    for i, column in enumerate(columns):
        drawn[:, i] = (
            draw.choice(known[:, i], DRAWN) if len(known) else _values(column, draw, DRAWN)
        )
    return [*known[:GOLDEN_MAX].tolist(), *drawn.tolist()]


def _values(column: Feature, draw: np.random.Generator, n: int) -> NDArray[np.float64]:
    if column.type == "category":
        codes = len(column.values) + (column.unknown == UNSEEN)
        return draw.integers(0, codes, n).astype(np.float64)
    if column.type == "bool":
        return draw.integers(0, 2, n).astype(np.float64)
    usual = column.reference if isinstance(column.reference, float) else 0.0
    low = -np.inf if column.min is None else column.min
    high = np.inf if column.max is None else column.max
    if np.isfinite(low) and np.isfinite(high):
        values = draw.uniform(low, high, n)
    else:
        values = np.clip(draw.normal(usual, 1.0 + abs(usual), n), low, high)
    return np.rint(values) if column.type == "int" else values
