"""What each feature did to one payment's probability: leave-one-out to its reference value.

One feature at a time is set to what it usually is, and the row is scored again. That asks
the model itself, whatever it is, and costs a run of a few rows; it tells what each feature
did by itself, so the effects of features that speak of the same thing do not add up.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isnan, nan
from pathlib import Path
from statistics import median_low, mode
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.decide import EDGE, log_odds
from gateway.errors import UsageError
from gateway.model.inputs import Rows
from gateway.product import UNSEEN, Feature, Product

FeatureValue = float | bool | str | None
"""A number, a category's text, or None for a value that is missing."""

FEATURES_MAX = 5_000
CHUNK_ROWS = 128


class Effect(NamedTuple):
    """What one feature did.

    `log_odds` is how much its value moved the log-odds of the served probability away from
    `probability`, which its `reference` would have given: above 0 towards fraud.
    """

    feature: str
    value: FeatureValue
    reference: FeatureValue
    log_odds: float
    probability: float


class LeftOut(NamedTuple):
    """A feature whose effect cannot be told."""

    feature: str
    why: str


@dataclass(frozen=True, slots=True)
class Attribution:
    """The effects of all features, the strongest first, and those that are left out."""

    effects: tuple[Effect, ...]
    left_out: tuple[LeftOut, ...]


def attribute(
    columns: Sequence[Feature],
    row: Rows,
    references: Sequence[float | None],
    *,
    score: Callable[[Rows], list[float]],
    probability_of: Callable[[float], float],
) -> Attribution:
    """Set each of `columns` to its reference, and score the row again.

    `row` has shape (columns,) and the model's dtype; `score` maps (n, columns) to n scores,
    `probability_of` a score to the probability that is served, NaN where it is none.

    Raises:
        UsageError: there are more than FEATURES_MAX columns.
    """
    if len(columns) > FEATURES_MAX:
        raise UsageError(
            f"has {len(columns):,} features: at most {FEATURES_MAX:,} are told apart one by one",
            subject="the model",
        )
    usual = np.array([nan if one is None else one for one in references], dtype=row.dtype)
    same = (row == usual) | (np.isnan(row) & np.isnan(usual))
    moved = [i for i, one in enumerate(references) if one is not None and not same[i]]
    own, given = nan, dict[int, float]()
    # The row itself leads each chunk: what a model gives depends on the batch in the last bits.
    for start in range(0, max(len(moved), 1), CHUNK_ROWS - 1):
        chunk = moved[start : start + CHUNK_ROWS - 1]
        rows = np.repeat(row[None], len(chunk) + 1, axis=0)
        rows[np.arange(1, len(chunk) + 1), chunk] = usual[chunk]
        own, *others = map(probability_of, _scores(score, rows))
        given.update(zip(chunk, others, strict=True))
    effects: list[Effect] = []
    left_out: list[LeftOut] = []
    for i, (column, reference) in enumerate(zip(columns, references, strict=True)):
        probability = given.get(i, own)
        if reference is None:
            left_out.append(LeftOut(column.name, _NO_REFERENCE))
        elif isnan(probability):
            left_out.append(LeftOut(column.name, "the model gives no probability at its reference"))
        else:
            effect = _log_odds(own) - _log_odds(probability)
            value, usually = value_of(column, row[i]), value_of(column, usual[i])
            effects.append(Effect(column.name, value, usually, effect, probability))
    effects.sort(key=lambda effect: -abs(effect.log_odds))
    return Attribution(tuple(effects), tuple(left_out))


_NO_REFERENCE = "it has no reference, no default where it is missing, and no golden vectors"


def references(
    columns: Sequence[Feature], golden: NDArray[np.float64] | None
) -> tuple[float | None, ...]:
    """Return the usual value of each column, as the model is fed it; None where none is known.

    What is declared as `reference`; else what is usual in the golden vectors (n, columns), the
    lower median of numbers, the mode of anything else; else the default of `missing`, which may
    stand for the worst.
    """
    return tuple(
        _reference(column, () if golden is None else golden[:, i].tolist())
        for i, column in enumerate(columns)
    )


def golden_features(folder: Path, product: Product) -> NDArray[np.float64] | None:
    """Return the golden vectors' features (n, columns) of a folder that loads, or None."""
    declared = product.models.champion.golden
    if declared is None:
        return None
    base = folder if folder.is_dir() else folder.parent
    try:
        content = json.loads((base / declared).read_bytes())
        features = np.array(content["features"], dtype=np.float64)  # null is NaN
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return features if features.ndim == 2 and features.shape[1] == len(product.columns) else None


def value_of(column: Feature, number: Any) -> FeatureValue:
    """Return what a number of a row stands for. `number`: a NumPy scalar of the row's dtype."""
    if np.isnan(number):
        return None
    if column.type == "category":
        code = int(number)
        return column.values[code] if 0 <= code < len(column.values) else UNSEEN
    if column.type == "bool":
        return bool(number)
    # A float32 in its own digits: 0.1, not 0.10000000149011612.
    return int(number) if column.type == "int" else float(str(number))


def _reference(column: Feature, golden: Sequence[float]) -> float | None:
    if column.reference is not None:
        return _fed(column, column.reference)
    known = [value for value in golden if not isnan(value)]
    if known:
        return median_low(known) if column.type in ("float", "int") else mode(known)
    return None if column.missing == "refuse" else _fed(column, column.missing)


def _fed(column: Feature, declared: str | float) -> float:
    is_text = isinstance(declared, str)
    return float(column.values.index(declared)) if is_text else float(declared)


def _scores(score: Callable[[Rows], list[float]], rows: Rows) -> list[float]:
    """Score rows; those that the model fails on are NaN. One bad row does not fail the others."""
    try:
        return score(rows)
    except Exception:  # whatever a model raises is the model's error
        return [nan] if len(rows) == 1 else [_scores(score, row[None])[0] for row in rows]


def _log_odds(probability: float) -> float:
    return log_odds(min(max(probability, EDGE), 1.0 - EDGE))
