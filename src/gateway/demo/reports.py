"""What is reported about a payment, by what was decided: the truth as its sources tell it.

What was declined is never reported about, and what a step-up or an analyst stopped neither: there
is no payment. Of what went through the world's own labels are told, a few of them wrong at first:

    a chargeback of all of it becomes one of a part
    a genuine customer's chargeback is taken back when the merchant wins it
    a warning about a genuine payment is corrected when the customer confirms

Sources tell nothing that is still to come: what is reported after `until_s` is not there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from gateway.demo.payment import Payment
from gateway.demo.seasons import DAY_S

DISPUTES, ISSUER, CHALLENGES, ANALYSTS = "disputes", "issuer", "3-d-secure", "fraud-desk"
"""Who says so."""

_REACHED_IN_TIME = 0.98
_GENUINE_PASSES, _FRAUD_PASSES, _FAILS = 0.95, 0.20, 0.5
_FRAUD_FOUND, _GENUINE_FOUND = 0.85, 0.98
_MERCHANT_PAYS = 0.5
_PARTIAL = 0.10
_FALSE_WARNING, _LOST_DISPUTE, _REFUND = 0.002, 0.002, 0.006
_DRAWS = 8


class Report(NamedTuple):
    """One event, named as product.yaml names its kind. Times are Unix seconds.

    `key`: its id at the source; `supersedes`: that of the event which it corrects or takes back.
    `amount_minor` is None, `liable` empty, where it is about no money.
    """

    kind: str
    occurred_s: float
    reported_s: float
    source: str
    key: str
    supersedes: str = ""
    amount_minor: int | None = None
    liable: str = ""


def reports(
    payments: Sequence[Payment],
    actions: Sequence[str],
    rng: np.random.Generator,
    *,
    until_s: float,
) -> list[list[Report]]:
    """Return what is known of each payment by `until_s`. `actions`: empty where none was told.

    One payment's action changes nothing for another.
    """
    draws = rng.random((len(payments), _DRAWS)).tolist()
    return [
        [one for one in _of(payment, action, drawn) if one.reported_s <= until_s]
        for payment, action, drawn in zip(payments, actions, draws, strict=True)
    ]


def _of(payment: Payment, action: str, draws: Sequence[float]) -> Iterator[Report]:
    *checked, fate, when, later = draws
    if action in ("", "decline"):
        return
    if action == "step_up":
        yield from _challenge(payment, checked)
        if not _passes(payment, checked[0]):
            return
    if action == "review":
        found = checked[0] < (_FRAUD_FOUND if payment.fraud else 1.0 - _GENUINE_FOUND)
        at_s = payment.event_time_s + 300.0 + checked[1] * 7_200.0
        kind = "analyst_fraud" if found else "analyst_genuine"
        yield Report(kind, at_s, at_s, ANALYSTS, kind)
        if found:
            return
    merchant_pays = action == "step_up" and checked[3] < _MERCHANT_PAYS
    liable = "merchant" if merchant_pays else "issuer"
    yield from _told(payment, liable, fate, later)
    if not payment.fraud:
        yield from _mistaken(payment, liable, fate, when, later)


def _passes(payment: Payment, draw: float) -> bool:
    return draw < (_FRAUD_PASSES if payment.fraud else _GENUINE_PASSES)


def _challenge(payment: Payment, draws: Sequence[float]) -> Iterator[Report]:
    """Tell when the customer was reached, and how they answered."""
    soon = draws[1] < _REACHED_IN_TIME
    reached_s = payment.event_time_s + (2.0 + 40.0 * draws[2] if soon else 90.0 + 600.0 * draws[2])
    yield Report("customer_contacted", reached_s, reached_s, CHALLENGES, "contact")
    kind = "step_up_passed"
    if not _passes(payment, draws[0]):
        kind = "step_up_failed" if draws[3] < _FAILS else "step_up_abandoned"
    ended_s = reached_s + 5.0 + 60.0 * draws[4]
    yield Report(kind, ended_s, ended_s + 1.0, CHALLENGES, "answer")


def _told(payment: Payment, liable: str, fate: float, later: float) -> Iterator[Report]:
    """Tell what the world has to say; a chargeback of some is corrected later."""
    whole, about_s = payment.amount_minor, payment.event_time_s
    for label in payment.labels:
        about_money = label.kind in ("chargeback", "early_fraud_warning")
        yield Report(
            label.kind,
            about_s if about_money else label.reported_s,
            label.reported_s,
            DISPUTES if label.kind == "chargeback" else ISSUER,
            label.kind,
            amount_minor=whole if about_money else None,
            liable=liable if label.kind == "chargeback" else "",
        )
        if label.kind == "chargeback" and fate < _PARTIAL:
            yield Report(
                label.kind,
                about_s,
                label.reported_s + (3.0 + 7.0 * later) * DAY_S,
                DISPUTES,
                "chargeback-of-a-part",
                supersedes="chargeback",
                amount_minor=max(1, round(whole * (0.3 + 0.5 * later))),
                liable=liable,
            )


def _mistaken(
    payment: Payment, liable: str, fate: float, when: float, later: float
) -> Iterator[Report]:
    """Tell of a genuine payment what turns out not to be so; or that it was given back."""
    amount, about_s = payment.amount_minor, payment.event_time_s
    if fate < _FALSE_WARNING:
        warned_s = about_s + (1.0 + 20.0 * when) * DAY_S
        heard_s = warned_s + (0.2 + 4.0 * later) * DAY_S
        warning = "early_fraud_warning"
        yield Report(warning, about_s, warned_s, ISSUER, warning, amount_minor=amount)
        yield Report(
            *("customer_confirmed", heard_s, heard_s, ISSUER, "after-a-warning"),
            supersedes=warning,
        )
    elif fate < _FALSE_WARNING + _LOST_DISPUTE:
        charged_s = about_s + (8.0 + 20.0 * when) * DAY_S
        won_s = charged_s + (5.0 + 25.0 * later) * DAY_S
        yield Report(
            *("chargeback", about_s, charged_s, DISPUTES, "chargeback"),
            amount_minor=amount,
            liable=liable,
        )
        yield Report("withdrawn", won_s, won_s, DISPUTES, "won", supersedes="chargeback")
    elif fate < _FALSE_WARNING + _LOST_DISPUTE + _REFUND:
        back_s = about_s + (1.0 + 14.0 * when) * DAY_S
        yield Report("refund", back_s, back_s, "merchants", "refund", amount_minor=amount)
