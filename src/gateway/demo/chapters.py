"""What a stretch of the story holds beside everyday life: a holiday, helpers, other crimes."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.demo.fraud import SCENARIOS, Scenario
from gateway.demo.seasons import Holiday


@dataclass(frozen=True, slots=True)
class Chapters:
    """By default there is nothing but everyday life.

    `helped_a_day`: purchases a day that somebody makes for a customer, by age band in their order.
    """

    scenarios: tuple[Scenario, ...] = SCENARIOS
    holiday: Holiday | None = None
    helped_a_day: tuple[float, ...] = ()


EVERYDAY = Chapters()
