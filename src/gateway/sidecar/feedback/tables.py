"""What the store keeps, as tables of the lake. Pure.

A row stands on the UTC day on which it was received, as all of the lake does, and not on that of
its `reported_time`: so a day's folder grows on that day alone, years of labels that are brought in
at once make a few files and not a thousand, and what was known at some moment is what stands on
the days before it.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from gateway.sidecar.feedback.label import KINDS, LIABLE, KeptAttribute, KeptLabel
from gateway.sidecar.lake.asides import Part, by_day
from gateway.sidecar.lake.columns import table_of, transposed
from gateway.sidecar.lake.schema import ACTIONS, ATTRIBUTES, LABELS, TIME


def label_parts(kept: Sequence[KeptLabel], store_id: bytes) -> list[Part]:
    """Return labels as the lake's, a part a product and day."""
    by_product: dict[str, list[KeptLabel]] = {}
    for one in kept:
        by_product.setdefault(one.label.product, []).append(one)
    return [
        part
        for product, ours in by_product.items()
        for part in by_day("labels", product, _labels(ours, store_id))
    ]


def attribute_parts(kept: Sequence[KeptAttribute], store_id: bytes) -> list[Part]:
    """Return attributes as the lake's, a part a day."""
    if not kept:
        return []
    sequence, received_us, attributes = transposed(kept)
    subject, attribute, value, reported_us, source = transposed(attributes)
    rows = table_of(
        "attributes",
        {
            "subject": subject,
            "attribute": attribute,
            "value": value,
            "reported_time": _times(reported_us),
            "source": source,
            "received": _times(received_us),
            **_place(ATTRIBUTES, store_id, sequence),
        },
    )
    return by_day("attributes", None, rows)


def _labels(kept: Sequence[KeptLabel], store_id: bytes) -> pa.Table:
    labels = [one.label for one in kept]
    return table_of(
        "labels",
        {
            "transaction_id": _texts([one.transaction_id for one in labels]),
            "decision_id": _texts([one.decision_id for one in labels]),
            "kind": [KINDS[one.kind] for one in labels],
            "occurred_time": _times([one.occurred_us for one in labels]),
            "reported_time": _times([one.reported_us for one in labels]),
            "received": _times([one.received_us for one in kept]),
            "amount_minor": [one.amount_minor for one in labels],
            "currency": _texts([one.currency for one in labels]),
            "liable": [LIABLE.get(one.liable) for one in labels],
            "source": [one.source for one in labels],
            "source_event_id": [one.source_event_id for one in labels],
            "supersedes": _texts([one.supersedes for one in labels]),
            "action": [ACTIONS.get(one.action) for one in labels],
            "category": _texts([one.category for one in labels]),
            "subject": _texts([one.subject for one in labels]),
            **_place(LABELS, store_id, [one.sequence for one in kept]),
        },
    )


def _place(worker: int, store_id: bytes, sequence: Sequence[int]) -> dict[str, object]:
    count = len(sequence)
    return {
        "worker": [worker] * count,
        "boot": [store_id[:8].hex()] * count,
        "sequence": sequence,
    }


def _times(us: Sequence[int]) -> pa.Array:
    return pa.array(us, pa.int64()).cast(TIME)


def _texts(texts: Sequence[str]) -> list[str | None]:
    return [text or None for text in texts]
