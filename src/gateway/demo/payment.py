"""What the simulator gives: a payment as a caller would send it, and the truth about it.

The gateway sees everything up to `features`. What follows is the truth: labels reach it
when they are reported, attributes only through the fairness door, and whether it was
fraud never, for those that nobody reports.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

CARD_NOT_PRESENT = "card-not-present"
CARD_PRESENT = "card-present"

ENTRY_MODES = ("chip", "contactless", "swipe", "keyed")
CHECKOUTS = ("account", "wallet", "guest")
CHANNELS = ("web", "app", "terminal", "unattended")


class Label(NamedTuple):
    """What somebody reported about a payment, and when (Unix seconds).

    `kind` is `early_fraud_warning`, `chargeback`, `customer_denied` or `customer_confirmed`.
    """

    kind: str
    reported_s: float


class CardNotPresentFeatures(NamedTuple):
    """The inputs of the model card-not-present, in its declared order.

    Money is in major units, distance in km. A category stands as its index in the declared
    values. Everything is known at the moment of the payment.
    """

    amount: float
    log_amount: float
    hour: float
    weekday: float
    hour_share: float
    amount_to_usual: float
    amount_to_category: float
    seconds_since_last: float
    count_1h: float
    count_24h: float
    count_7d: float
    small_count_24h: float
    amount_24h: float
    merchants_24h: float
    new_merchant: float
    merchant_risk: float
    merchant_count_1h: float
    new_device: float
    device_age_days: float
    devices: float
    ip_distance_km: float
    country_mismatch: float
    shipping_mismatch: float
    account_age_days: float
    contact_age_days: float
    checkout: float
    mcc_risk: float
    category: float


class CardPresentFeatures(NamedTuple):
    """The inputs of the model card-present, in its declared order; units as above."""

    amount: float
    log_amount: float
    hour: float
    weekday: float
    amount_to_usual: float
    seconds_since_last: float
    count_1h: float
    count_24h: float
    merchants_24h: float
    new_merchant: float
    merchant_risk: float
    distance_km: float
    speed_kmh: float
    country_mismatch: float
    entry_mode: float
    mcc_risk: float


@dataclass(frozen=True, slots=True)
class Payment:
    """One payment.

    `event_time_s` is Unix seconds, `amount_minor` minor units of `currency`. `subject` is a
    pseudonym. `features` stand in the product's declared order. `labels` are sorted by when
    they are reported; `scenario` is empty for a genuine payment.
    """

    product: str
    transaction_id: str
    event_time_s: float
    amount_minor: int
    currency: str
    mcc: str
    channel: str
    subject: str
    features: tuple[float, ...]
    fraud: bool
    scenario: str
    age_band: str
    labels: tuple[Label, ...]


class Purchase(NamedTuple):
    """What happened in the world, before anybody made features of it.

    `customer` and `merchant` are indices, `entry_mode` and `checkout` those of their tuples
    (0 where the other product's). `distance_km` is the customer's home to the merchant, or
    to the place of the IP address; `abroad` whether that is in another country.
    """

    time_s: float
    customer: int
    merchant: int
    online: bool
    entry_mode: int
    checkout: int
    channel: str
    amount_minor: int
    device: int
    distance_km: float
    abroad: bool
    shipping_mismatch: bool
    contact_age_days: float
    scenario: str
    labels: tuple[Label, ...]
