"""Why a model does not give the scores that its golden vectors say."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from gateway.model.inputs import Rows
from gateway.model.order import order_of, told
from gateway.product import Feature


def mismatch(
    score: Callable[[Rows], list[float]],
    rows: Rows,
    expected: Sequence[float],
    features: Sequence[Feature],
    *,
    tolerance: float,
) -> tuple[str, str]:
    """Return what is likely wrong, and what to try.

    `rows` (n, columns) as `score` takes them, with n `expected` scores, of which some are off by
    more than `tolerance`.
    """
    given, wanted = np.array(score(rows), dtype=np.float64), np.asarray(expected)
    allowed = tolerance * np.maximum(1.0, np.abs(wanted))
    if (np.abs(1.0 - given - wanted) <= allowed).all():
        return (
            "it gives 1 − score: a swapped column of the output, or a model of P(genuine)",
            "Name the other column of the output, or turn it round: scale: [1, 0].",
        )
    order = order_of(score, rows, expected, features, tolerance=tolerance)
    if order is not None:
        what, right = told(order, features)
        return (
            f"columns are permuted: with {what} it gives the scores that are expected",
            f"List features in the order that the model was trained with: {right}.",
        )
    return (
        "the vectors were made from another model, or another output of it",
        "Make golden vectors of this model, or put back the one that they were made from.",
    )
