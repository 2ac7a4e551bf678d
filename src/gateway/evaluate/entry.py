"""One figure of an evaluation, as it is told: value, interval, n, verdict. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from gateway.evaluate.intervals import Figure

SCHEMA = "gateway.evaluation/1"
"""Rises with a change that breaks who reads it; what is only added keeps it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A figure of a product, over the decisions of some days.

    `basis`: what it rests on (`all` decisions; labels `observed` so far, `completed` by the curve
    of their delays, or `mature` alone; about declines `explored`, `model_implied` or `bounds`).
    `by`: the part of the decisions, such as {"category": "grocery"}; empty for all of them.
    `verdict` is empty where there is no target. `says`: what it means, in words.
    """

    product: str
    metric: str
    basis: str
    figure: Figure
    days: tuple[date, date] | None
    says: str
    by: Mapping[str, str] = field(default_factory=dict)
    unit: str = "share"
    target: str = ""
    verdict: str = ""
    because: str = ""
    more: Mapping[str, Any] = field(default_factory=dict)

    def as_object(self) -> dict[str, Any]:
        """Return what JSON shows."""
        one = self.figure
        return {
            "product": self.product,
            "metric": self.metric,
            "basis": self.basis,
            "by": dict(self.by),
            "value": one.value,
            "interval": [one.low, one.high],
            "n": one.n,
            "events": one.events,
            "unit": self.unit,
            "from": None if self.days is None else self.days[0].isoformat(),
            "to": None if self.days is None else self.days[1].isoformat(),
            "target": self.target or None,
            "verdict": self.verdict or None,
            "because": self.because or one.reason,
            "says": self.says,
            **self.more,
        }
