"""From admitted rows to scores: the matrix, and a model that may fail on it."""

from __future__ import annotations

import logging
from math import nan

import numpy as np
from numpy.typing import NDArray

from gateway.model import Classifier
from gateway.serve.crew.logs import OncePerSecond
from gateway.serve.hall.admit import Payment, Refusal, refused_for

log = logging.getLogger(__name__)
log.addFilter(OncePerSecond())

Rows = NDArray[np.float32] | bytes
"""A matrix, or the bytes of the only row."""


def encode(batch: list[Payment]) -> tuple[Rows, list[Payment], list[Refusal], set[int]]:
    """Return the rows of the payments whose features keep their rules, and those payments.

    Then the refusals of the others, and the call ids of rows that a default was put into.
    """
    schema = batch[0].serving.generation.schema
    rows = [payment.row or b"" for payment in batch]
    if len(rows) == 1 and schema.is_clean(rows[0]):
        return rows[0], batch, [], set()
    matrix, checked = schema.matrix(rows)
    if not checked:
        return matrix, batch, [], set()
    defaulted = {batch[i].call_id for i, row in checked.items() if row.defaulted}
    bad = {i: row.violations for i, row in checked.items() if row.violations}
    refusals = [
        refused_for(
            batch[i].call_id,
            batch[i].arrival,
            violations,
            batch[i].serving,
            batch[i].traceparent,
        )
        for i, violations in bad.items()
    ]
    kept = [i for i in range(len(batch)) if i not in bad]
    return matrix[kept], [batch[i] for i in kept], refusals, defaulted


def score(classifier: Classifier, rows: Rows) -> list[float]:
    """Run the model; rows it fails on are NaN. One bad row does not fail its batch."""
    if isinstance(rows, bytes):
        return _score_one(classifier, rows)
    try:
        return classifier.score(rows)
    except Exception as error:  # whatever a model raises is the model's error
        log.warning("the model failed on %d rows: %s", len(rows), type(error).__name__)
    return [score for row in rows for score in _score_one(classifier, row.tobytes())]


def _score_one(classifier: Classifier, row: bytes) -> list[float]:
    try:
        return [classifier.score_one(row)]
    except Exception as error:
        log.warning("the model failed on a row: %s", type(error).__name__)
        return [nan]
