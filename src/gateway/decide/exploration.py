"""Letting a few declines through to learn their labels, inside a daily loss.

A declined payment has no label. With probability `propensity` an eligible decline is
approved instead. The draw is a keyed hash of the transaction id, so a retry draws the
same, in any worker.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.decide.draw import draw, draw_key
from gateway.product import Exploration, minor_units


@dataclass(frozen=True, slots=True)
class Explorer:
    """Who is let through. `max_amount_minor` bounds the amount of each."""

    propensity: float
    max_amount_minor: float
    key: bytes

    def draws(self, transaction_id: str) -> bool:
        """Return whether this transaction is let through."""
        return draw(transaction_id, self.key) < self.propensity


def explorer(
    exploration: Exploration, *, product: str, worst_loss_minor: float, minor_per_major: int
) -> Explorer:
    """Turn the declared share and daily loss into one constant propensity.

    The expected loss a day is at most declines_per_day · propensity · worst_loss, where
    `worst_loss_minor` is the cost of a certain fraud at `max_amount`; so

        propensity = min(share, loss_per_day / (declines_per_day · worst_loss)).
    """
    propensity = exploration.share
    if worst_loss_minor > 0.0:
        bound = minor_units(exploration.loss_per_day, minor_per_major)
        propensity = min(propensity, bound / (exploration.declines_per_day * worst_loss_minor))
    return Explorer(
        propensity=propensity,
        max_amount_minor=minor_units(exploration.max_amount, minor_per_major),
        key=draw_key("exploration", exploration.salt or product),
    )
