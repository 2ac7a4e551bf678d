"""When the truth arrives: within a day, weeks or months later, or never."""

from __future__ import annotations

from math import exp

import numpy as np

from gateway.demo.payment import Label
from gateway.demo.seasons import DAY_S

CHARGEBACK_DAYS = (5.0, 90.0)
WARNING_DAYS = (1.0, 30.0)
CONFIRMED_SHARE = 0.04
"""Share of genuine payments whose customer says so within a day."""

_UNNOTICED = 0.08
_UNNOTICED_SMALL = 0.35
_SMALL_MINOR = 500
_DENIED = 0.20
_WARNED = 0.60
_CHARGED_BACK = 0.85


def fraud_labels(rng: np.random.Generator, time_s: float, amount_minor: int) -> tuple[Label, ...]:
    """Draw what is reported about one fraud, sorted by time; nothing for the unnoticed.

    A small amount is overlooked more often. The early warning of the issuer comes before
    the chargeback that follows from it.
    """
    unnoticed = _UNNOTICED_SMALL if amount_minor <= _SMALL_MINOR else _UNNOTICED
    notice, denies, warns, charges, warned, charged, denied = rng.random(7).tolist()
    if notice < unnoticed:
        return ()
    labels: list[Label] = []
    if denies < _DENIED:
        labels.append(Label("customer_denied", time_s + 300.0 + denied * (DAY_S - 300.0)))
    warning_days = _skewed(warned, WARNING_DAYS)
    if warns < _WARNED:
        labels.append(Label("early_fraud_warning", time_s + warning_days * DAY_S))
    if charges < _CHARGED_BACK or not labels:
        days = max(_skewed(charged, CHARGEBACK_DAYS), warning_days + 1.0)
        labels.append(Label("chargeback", time_s + days * DAY_S))
    return tuple(sorted(labels, key=lambda label: label.reported_s))


def confirmed(time_s: float, draw: float) -> tuple[Label, ...]:
    """Return a genuine customer's confirmation, within a day; `draw` is uniform in 0..1."""
    return (Label("customer_confirmed", time_s + 60.0 + draw * (DAY_S - 60.0)),)


def _skewed(draw: float, days: tuple[float, float]) -> float:
    """Map a uniform draw to days: most soon, a long tail up to the last."""
    low, high = days
    rate = 4.0
    return low + (high - low) * (exp(rate * draw) - 1.0) / (exp(rate) - 1.0)
