"""Which declared keys the program does not act on yet. It says so instead of pretending."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.product.keys import ITEM
from gateway.product.product import Product
from gateway.product.section import Key

_CAPACITY = ("costs", "review", "per_hour")

NOT_ENFORCED: tuple[tuple[tuple[str, ...], str], ...] = (
    (_CAPACITY, "it has no shadow_price: capacity is not held; `gateway thresholds` prices it"),
)


@dataclass(frozen=True, slots=True)
class Unenforced:
    """A declared key without effect, the line (from 1) of its first use, and why."""

    key: str
    line: int
    why: str


def unenforced(product: Product) -> tuple[Unenforced, ...]:
    """Return the keys of the product's file that have no effect yet, in the table's order.

    An empty list declares nothing. A product that was not parsed from a file has no keys.
    """
    review = product.costs.review
    is_priced = review is not None and review.shadow_price is not None
    lines: dict[tuple[str, ...], int] = {}
    for key, line in product.source.lines.items():
        lines.setdefault(_generic(key), line)
    return tuple(
        Unenforced(
            ".".join(pattern).replace(f".{ITEM}", ITEM).removesuffix(ITEM), lines[pattern], why
        )
        for pattern, why in NOT_ENFORCED
        if pattern in lines and not (pattern == _CAPACITY and is_priced)
    )


def _generic(key: Key) -> tuple[str, ...]:
    return tuple(ITEM if isinstance(part, int) else part for part in key)
