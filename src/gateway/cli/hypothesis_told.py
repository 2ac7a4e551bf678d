"""What came of a lake's hypotheses: its records, judged through an engine that has counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from gateway.evaluate.claims import Started, hypotheses
from gateway.evaluate.engine import Engine
from gateway.evaluate.terms import Terms
from gateway.sidecar.lake import Lake
from gateway.sidecar.lake.hypotheses import Begun, Damaged, records


def told_in(
    place: Lake, engine: Engine, terms: Sequence[Terms], as_of: datetime, product: str | None
) -> tuple[Mapping[str, Any], ...]:
    """Return what came of each hypothesis of a lake, or of a product of it, as JSON.

    One whose record is damaged, or that cannot be judged, has an `error`. Raises LakeError.
    """
    some = records(place.filesystem, place.root)
    wanted = [one for one in some if product in (None, one.product)]
    found = [
        {"product": one.product, "id": one.id, "error": f"{one.error}"}
        for one in wanted
        if isinstance(one, Damaged)
    ]
    begun = [started_of(one) for one in wanted if isinstance(one, Begun)]
    judged = hypotheses(engine, terms, begun, as_of)
    return tuple(sorted([*found, *judged], key=lambda one: (one["product"], one["id"])))


def started_of(one: Begun) -> Started:
    """Return a record as it is judged."""
    return Started(
        one.product,
        one.id,
        one.digest,
        one.declared,
        one.models,
        one.started,
        one.looks,
        one.stopped,
        one.outcome,
    )
