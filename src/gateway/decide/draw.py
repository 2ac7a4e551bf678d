"""Chance without a random number: a keyed hash of an id, so that a retry draws the same."""

from __future__ import annotations

from hashlib import blake2b

_SCALE = float(2**64)


def draw_key(purpose: str, salt: str) -> bytes:
    """Return the key of one kind of draw; draws of different purposes are independent."""
    return blake2b(f"{purpose}/{salt}".encode(), digest_size=32).digest()


def draw(text: str, key: bytes) -> float:
    """Return a number uniform over ids, in 0..1, the same for the same id and key."""
    digest = blake2b(text.encode(), digest_size=8, key=key).digest()
    return int.from_bytes(digest, "big") / _SCALE
