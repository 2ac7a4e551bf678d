"""Distinct requests of one product, encoded before the load begins."""

from __future__ import annotations

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp

from gateway.v1.decision_pb2 import DecideRequest

PLACEHOLDER = b"00000000-transaction-id0"
"""As long as the ids that take its place: 8 hex digits of the run, 16 of the call."""

MESSAGES = 400
_MCCS = ("5411", "5541", "5812", "5912", "5999", "7995")


def messages(
    rng: np.random.Generator,
    product: str,
    *,
    fingerprint: str,
    features: int,
    event_s: int,
    count: int = MESSAGES,
) -> tuple[bytes, ...]:
    """Draw requests: each its own row, amount and category, the transaction id left open."""
    return tuple(
        DecideRequest(
            product=product,
            transaction_id=PLACEHOLDER.decode(),
            event_time=Timestamp(seconds=event_s),
            amount=int(rng.lognormal(8.0, 1.2)) + 1,
            currency="USD",
            category=str(rng.choice(_MCCS)),
            channel="ecommerce",
            subject=f"customer-{number}",
            dense=rng.random(features, np.float32).astype("<f4").tobytes(),
            schema_fingerprint=fingerprint,
        ).SerializeToString()
        for number in range(count)
    )
