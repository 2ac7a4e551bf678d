"""What an evaluation of the months is held against: the truth that only the simulator knows."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from gateway.demo.payment import Payment

UNKNOWN = "unknown"
"""The group of a subject of whom nothing is said."""


@dataclass(frozen=True, slots=True)
class Turned:
    """Genuine payments of a group, and how many of them were declined."""

    genuine: int
    declined: int

    @property
    def rate(self) -> float:
        """P(decline | genuine); 0 where there is none."""
        return self.declined / self.genuine if self.genuine else 0.0


def false_positives(
    payments: Iterable[tuple[int, Payment]],
    declined: Collection[int],
    group_of: Mapping[str, str],
) -> dict[str, Turned]:
    """Count by group, of payments with their numbers, those that were genuine.

    `declined`: the numbers of what was declined; with those that exploration let through it is
    what would have been. `group_of`: by subject.
    """
    genuine: dict[str, int] = {}
    turned: dict[str, int] = {}
    for number, payment in payments:
        if not payment.fraud:
            group = group_of.get(payment.subject, UNKNOWN)
            genuine[group] = genuine.get(group, 0) + 1
            turned[group] = turned.get(group, 0) + (number in declined)
    return {group: Turned(n, turned[group]) for group, n in sorted(genuine.items())}
