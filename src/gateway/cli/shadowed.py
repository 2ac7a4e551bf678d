"""What a model scored in the shadow: scores that need no features to be replayed."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gateway.errors import GatewayError
from gateway.journal import Record, Scored, read, segments
from gateway.model import Generation, read_product
from gateway.model.registry import Registry
from gateway.product import Product

Boot = tuple[int, bytes]
Shadow = Mapping[Boot, tuple[NDArray[np.int64], NDArray[np.float64]]]
"""By boot: sequences, rising, and their scores."""


def shadow_scores(journal: Path, new: Generation) -> Shadow:
    """Return the scores that NEW's champion gave beside the generations that decided.

    Only those of generations whose folder is kept, and that fed the same model the same features:
    the registry says so by digest.

    Raises:
        JournalError: a segment or the registry cannot be read.
    """
    arms = _arms(journal, new)
    if not arms:
        return {}
    found: dict[Boot, tuple[array[int], array[float]]] = {}
    for segment in segments(journal):
        sequences, scores = found.setdefault(segment.boot, (array("q"), array("d")))
        for item in read(segment):
            entry = item.entry if isinstance(item, Record) else None
            if not isinstance(entry, Scored) or not isinstance(item, Record):
                continue
            served = item.generation(entry.product)
            if served is not None and arms.get(served.digest) == entry.arm:
                sequences.extend(call.sequence for call in entry.calls)
                scores.extend(call.score for call in entry.calls)
    return {boot: _columns(*columns) for boot, columns in found.items() if columns[0]}


def _columns(
    sequences: array[int], scores: array[float]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    sequence = np.array(sequences, dtype=np.int64)
    order = np.argsort(sequence, kind="stable")
    return sequence[order], np.array(scores, dtype=np.float64)[order]


def _arms(journal: Path, new: Generation) -> dict[str, int]:
    """Return which arm NEW's champion was, by the digests of generations that were served."""
    registry = Registry(journal / "generations")
    state = registry.state(new.name)
    arms: dict[str, int] = {}
    for past in state.history if state else ():
        try:
            product = read_product(registry.path(new.name, past.snapshot))
        except GatewayError:
            continue  # it was pruned, or an older gateway's: its features will do
        place = _place(product, new)
        if place is not None:
            arms[past.digest] = place
    return arms


def _place(product: Product, new: Generation) -> int | None:
    wanted = new.product.models.champion
    if product.features != new.product.features:
        return None
    for i, one in enumerate(product.models.challengers, 1):
        output = one.output or product.models.champion.output
        if one.sha256 == new.champion.digest and output == wanted.output:
            return i
    return None
