"""What to answer when the model cannot: the band of the amount and category says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.product import Action, StandInBand, minor_units


@dataclass(frozen=True, slots=True)
class StandInRule:
    """The bands of one stand-in reason, with amounts in minor units and MCCs spelled out."""

    bands: tuple[tuple[float, frozenset[str] | None, Action], ...]

    def choose(self, amount_minor: int, category: str) -> Action:
        """Return the action of the first band that holds the amount and the MCC."""
        for up_to, mccs, action in self.bands:
            if amount_minor <= up_to and (mccs is None or category in mccs):
                return action
        raise AssertionError("parse refuses bands that leave an amount out")


def stand_in_rule(
    bands: Sequence[StandInBand], *, mccs: dict[str, frozenset[str]], minor_per_major: int
) -> StandInRule:
    """Compile bands; `mccs` gives the merchant category codes of each category name."""
    return StandInRule(
        tuple(
            (
                float("inf") if band.up_to is None else minor_units(band.up_to, minor_per_major),
                frozenset().union(*(mccs[name] for name in band.categories))
                if band.categories
                else None,
                band.action,
            )
            for band in bands
        )
    )
