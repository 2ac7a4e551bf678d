"""Recorded payments, decided again as a generation's own policy would, and priced. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.decide import Policy, cost_line
from gateway.product import Action, Product, StandIn, minor_per_major

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Codes = NDArray[np.uint8]
Places = NDArray[np.int64]

ACTIONS = tuple(Action)


@dataclass(frozen=True, slots=True, eq=False)
class Payments:
    """n payments as both sides are asked. `category` (n,): places in `categories`, MCCs.

    `event_s`: Unix seconds. `stand_in` (n,): why the model did not decide, 0 where it did.
    """

    transaction_ids: Sequence[str]
    amount_minor: Places
    categories: Sequence[str]
    category: Places
    event_s: Floats
    stand_in: Codes

    def __len__(self) -> int:
        return len(self.amount_minor)

    def of(self, rows: Places) -> Payments:
        """Return some of the payments, by index."""
        return Payments(
            [self.transaction_ids[i] for i in rows.tolist()],
            self.amount_minor[rows],
            self.categories,
            self.category[rows],
            self.event_s[rows],
            self.stand_in[rows],
        )


@dataclass(frozen=True, slots=True, eq=False)
class Prices:
    """What every action costs, also those that the product does not take: α and β by class.

    `lines` (classes, actions, 4), in the order of `Action`; NaN where product.yaml has no price.
    """

    lines: Floats

    @classmethod
    def of(cls, product: Product, policy: Policy) -> Prices:
        """Return the prices of a product's cost classes."""
        unit = minor_per_major(product.costs.currency)
        lines = np.full((len(policy.classes), len(ACTIONS), 4), nan)
        for i, one in enumerate(policy.classes):
            for j, action in enumerate(ACTIONS):
                if getattr(product.costs, action.spelling, product) is None:
                    continue
                line = cost_line(action, product.costs, harm=one.harm, minor_per_major=unit)
                lines[i, j] = line.alpha, line.alpha_amount, line.beta, line.beta_amount
        return cls(lines)

    def cost(self, action: Codes, p: Floats, amount_minor: Places, classes: Places) -> Floats:
        """Return what an action costs each payment, in minor units; p may be a label."""
        alpha, alpha_amount, beta, beta_amount = self.lines[classes, action - 1].T
        amount = amount_minor.astype(np.float64)
        cost: Floats = (alpha + alpha_amount * amount) + (beta + beta_amount * amount) * p
        return cost


class Outcomes(NamedTuple):
    """What one side answers to n payments. `probability` is NaN where it stands in.

    `stand_in` (n,): why; `near_tie` and `explored` (n,) as in `decide.Flag`; `classes` (n,): the
    cost class. `explored` of a decline that was not drawn is False.
    """

    action: Codes
    probability: Floats
    stand_in: Codes
    near_tie: Flags
    explored: Flags
    classes: Places


def outcomes(policy: Policy, payments: Payments, scores: Floats) -> Outcomes:
    """Decide n payments as a gateway with this policy does. A score of NaN is a model's error."""
    n = len(payments)
    amount, events = payments.amount_minor, payments.event_s
    classes = policy.cost_classes(amount, payments.categories, payments.category)
    scores = _snapped(policy, scores)
    with np.errstate(invalid="ignore"):
        sound = (scores >= policy.score_low) & (scores <= policy.score_high)
    why = payments.stand_in.copy()
    why[(why == 0) & ~sound] = StandIn.MODEL_ERROR
    rows = np.flatnonzero(why == 0)
    action, p = np.zeros(n, dtype=np.uint8), np.full(n, nan)
    near, explored = np.zeros(n, dtype=np.bool_), np.zeros(n, dtype=np.bool_)
    if len(rows):
        asked = (amount[rows], classes[rows], events[rows])
        chosen = policy.choose_many(scores[rows], *asked)
        action[rows], p[rows] = chosen.action, chosen.probability
        near[rows] = policy.near_ties(chosen, *asked)
        explored[rows] = _explored(policy, payments, rows, chosen.action)
        action[explored] = Action.APPROVE
    for i in np.flatnonzero(why).tolist():
        mcc = payments.categories[payments.category[i]]
        action[i] = policy.stand_in(StandIn(int(why[i])), int(amount[i]), mcc)
    return Outcomes(action, p, why, near, explored, classes.astype(np.int64))


def _snapped(policy: Policy, scores: Floats) -> Floats:
    """Return `Policy.snapped` of each score."""
    low, high = policy.score_low, policy.score_high
    with np.errstate(invalid="ignore"):
        outside = np.flatnonzero((scores < low) | (scores > high))
    if not len(outside):
        return scores
    scores = scores.copy()
    scores[outside] = [policy.snapped(score) for score in scores[outside].tolist()]
    return scores


def _explored(policy: Policy, payments: Payments, rows: Places, action: Codes) -> Flags:
    """Return which of `rows` are declined but let through."""
    explorer, drawn = policy.explorer, np.zeros(len(rows), dtype=np.bool_)
    if explorer is None:
        return drawn
    small = payments.amount_minor[rows] <= explorer.max_amount_minor
    for i in np.flatnonzero((action == Action.DECLINE) & small).tolist():
        drawn[i] = explorer.draws(payments.transaction_ids[rows[i]])
    return drawn
