"""What a product is held to, in numbers that an evaluation needs: from its product.yaml. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from math import inf
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.decide import CostClass, cost_classes
from gateway.product import Action, Product, minor_per_major
from gateway.product.models import Challenger, Champion

Floats = NDArray[np.float64]

MATURITY = timedelta(days=90)
"""Where product.yaml does not say when silence means that there was no fraud."""

OTHER = "other"
"""Payments of no category of `costs.categories`."""

BANDS_MAJOR = (5, 20, 50, 200, 1000)
"""Where bands of amounts begin, in major units: as in `queries/cells.sql`."""


class Category(NamedTuple):
    """An MCC's cost class, and that above an amount. `up_to_minor`: None where there is none."""

    mcc: str
    up_to_minor: int | None
    cost_class: int
    class_above: int


class Prices(NamedTuple):
    """What an action costs by cost class, (C,): fixed and as a share of the amount, by the truth.

    In minor units; genuine: α + α'·amount, fraud: (α + β) + (α' + β')·amount.
    """

    genuine: Floats
    genuine_share: Floats
    fraud: Floats
    fraud_share: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Terms:
    """`maturity`: from that age on silence means that a payment was genuine.

    `prices` by the action's name, with approve and decline always; `classes`: names of categories
    by cost class.
    """

    product: Product
    unit: int
    maturity: timedelta
    contact_within_us: int | None
    categories: tuple[Category, ...]
    classes: tuple[str, ...]
    prices: dict[str, Prices]

    @property
    def name(self) -> str:
        """The product's name."""
        return self.product.name

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands of amounts, in their order."""
        edges = [f"{edge:,}" for edge in BANDS_MAJOR]
        between = (f"{low} to {high}" for low, high in pairwise(edges))
        return (f"below {edges[0]}", *between, f"{edges[-1]} and more")

    def declared(self) -> dict[str, Any]:
        """Return what a reader of figures wants to know of the product, as JSON."""
        models, latency = self.product.models, self.product.latency
        canaries = [one for one in models.challengers if one.mode == "canary"]
        shares = {one.name: one.share or 0.0 for one in canaries}
        left = 1.0 - sum(shares.values())
        roles: list[tuple[Champion | Challenger, str]] = [(models.champion, "champion")]
        roles += [(one, one.mode) for one in models.challengers]
        return {
            "product": self.name,
            "generation": self.product.generation,
            "currency": self.product.costs.currency,
            "budget_us": latency.budget_us,
            "calendar": [
                {"event": one.event, "from": one.starts.isoformat(), "to": one.ends.isoformat()}
                for one in self.product.calendar
            ],
            "arms": [
                {
                    "arm": one.name,
                    "role": role,
                    "share": left if role == "champion" else shares.get(one.name),
                    "version": one.version,
                    "digest": one.sha256,
                }
                for one, role in roles
            ],
        }


def terms_of(product: Product) -> Terms:
    """Return what an evaluation of the product needs."""
    actions = tuple(sorted({*product.actions, Action.APPROVE, Action.DECLINE}))
    classes, class_of_mcc = cost_classes(product, actions)
    declared = product.labels.maturity
    contact_s = product.latency.contact_within_s
    return Terms(
        product=product,
        unit=minor_per_major(product.costs.currency),
        maturity=max(declared.values(), default=MATURITY),
        contact_within_us=None if contact_s is None else round(contact_s * 1e6),
        categories=tuple(
            _category(mcc, place, classes[place]) for mcc, place in class_of_mcc.items()
        ),
        classes=tuple(one.name or OTHER for one in classes),
        prices={
            action.name.lower(): _prices(classes, number) for number, action in enumerate(actions)
        },
    )


def _category(mcc: str, place: int, one: CostClass) -> Category:
    if one.harm_up_to_minor == inf:
        return Category(mcc, None, place, place)
    return Category(mcc, int(one.harm_up_to_minor), place, place + 1)


def _prices(classes: Sequence[CostClass], action: int) -> Prices:
    lines = [one.lines[action] for one in classes]
    alpha, alpha_amount, beta, beta_amount = np.array(
        [(one.alpha, one.alpha_amount, one.beta, one.beta_amount) for one in lines]
    ).T
    return Prices(alpha, alpha_amount, alpha + beta, alpha_amount + beta_amount)


def named_bin(place: int) -> str:
    """Return what a bin of probabilities is called: halves of log-odds, from `place` on."""
    low, high = (1.0 / (1.0 + np.exp(-(place + i) / 2.0)) for i in (0, 1))
    return f"{low:.4%} to {high:.4%}"
