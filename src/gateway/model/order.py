"""Orders of columns: those that people use, and what tells one from another. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations

import numpy as np

from gateway.model.inputs import Rows
from gateway.product import Feature

Order = tuple[int, ...]
"""The model's i-th column is fed the product's column order[i]."""

_ROTATIONS_MAX = 60
_PAIRS_MAX = 2000
_EXCHANGES_MAX = 12


def likely_orders(features: Sequence[Feature], in_file: Order = ()) -> Iterator[Order]:
    """Yield orders that columns often come in, besides the declared one.

    As in a file, by name, by type, back to front, and moved on by some places.
    """
    same = tuple(range(len(features)))
    orders = (
        in_file or same,
        tuple(sorted(same, key=lambda i: features[i].name)),
        tuple(sorted(same, key=lambda i: features[i].name.lower())),
        tuple(sorted(same, key=lambda i: features[i].type == "category")),
        tuple(sorted(same, key=lambda i: features[i].type != "category")),
        same[::-1],
        *(same[i:] + same[:i] for i in range(1, min(len(same), _ROTATIONS_MAX))),
    )
    yield from (order for order in dict.fromkeys(orders) if order != same)


def exchangeable(features: Sequence[Feature]) -> list[tuple[int, int]]:
    """Return the pairs of columns that can stand in each other's place."""
    pairs = combinations(range(len(features)), 2)
    return [
        (i, j)
        for i, j in pairs
        if (features[i].type == "category") == (features[j].type == "category")
    ]


def exchanged(order: Sequence[int], i: int, j: int) -> Order:
    """Return an order with two places exchanged."""
    other = list(order)
    other[i], other[j] = other[j], other[i]
    return tuple(other)


def order_of(
    score: Callable[[Rows], list[float]],
    rows: Rows,
    expected: Sequence[float],
    features: Sequence[Feature],
    *,
    tolerance: float,
) -> Order | None:
    """Return the order of columns in which the model gives the scores that are expected.

    `rows` (n, columns); None where no order that was tried gives them, each within `tolerance`.
    """
    wanted = np.asarray(expected)
    allowed = tolerance * np.maximum(1.0, np.abs(wanted))

    def off(order: Order) -> float:
        """Return by how much scores differ together; infinite where it takes no such rows."""
        try:
            given = np.array(score(np.ascontiguousarray(rows[:, list(order)])), dtype=np.float64)
        except Exception:  # ONNX Runtime raises its own, unrelated classes
            return np.inf
        excess = np.maximum(np.abs(given - wanted) - allowed, 0.0)
        return float(excess.sum()) if np.isfinite(excess).all() else np.inf

    same = tuple(range(len(features)))
    tried = [(off(order), order) for order in (same, *likely_orders(features))]
    least, best = min(tried)
    pairs = exchangeable(features)
    for _ in range(_EXCHANGES_MAX if len(pairs) <= _PAIRS_MAX else 0):
        if least == 0.0:
            break
        reached, order = min((off(exchanged(best, i, j)), exchanged(best, i, j)) for i, j in pairs)
        if not reached < least:
            break
        least, best = reached, order
    return best if least == 0.0 and best != same else None


def told(order: Order, features: Sequence[Feature]) -> tuple[str, str]:
    """Return what is in another order, in words, and the right order."""
    names = [features[i].name for i, place in enumerate(order) if i != place]
    what = (
        f"{' and '.join(names)} exchanged"
        if len(names) == 2
        else f"{len(names)} of {len(order)} features in another order ({', '.join(names[:6])}"
        f"{', ...' if len(names) > 6 else ''})"
    )
    right = ", ".join(features[i].name for i in order[:40])
    return what, right + (", ..." if len(order) > 40 else "")
