"""What each action costs each payment, as arrays: expected at a probability, realised by a label.

An action's cost is α + β·p; with the label for p it is the realised cost. Both have the shadow
price of review in them where the product has one. Overrides are left out: these are the costs
that the derived thresholds come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.decide import Policy
from gateway.product import Action

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Places = NDArray[np.int64]


class Boundary(NamedTuple):
    """Where two actions cost the same, for the payments of which that is a threshold.

    From `threshold` (n,) on, `upper` is the cheapest and below it `lower` is. It is NaN where
    the two are no neighbours on the payment's lower envelope. `gap` (n,) is β_lower − β_upper,
    in minor units: going up costs threshold·gap for a genuine payment, and saves
    (1 − threshold)·gap for a fraud.
    """

    lower: Action
    upper: Action
    threshold: Floats
    gap: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Stakes:
    """Costs of n payments under each of k actions, in order of severity: cost = α + β·p.

    `alpha` and `beta` have shape (n, k), in minor units.
    """

    actions: tuple[Action, ...]
    alpha: Floats
    beta: Floats

    def chosen(self, p: Floats) -> Places:
        """Return the place of the cheapest action of each payment, (n,), at its P(fraud)."""
        best: Places = (self.alpha + self.beta * p[:, None]).argmin(axis=1)
        return best

    def realised(self, action: Places, fraud: Flags) -> Floats:
        """Return what each payment cost, (n,), in minor units, by its label."""
        rows = np.arange(len(action))
        costs: Floats = self.alpha[rows, action] + self.beta[rows, action] * fraud
        return costs

    def boundaries(self) -> tuple[Boundary, ...]:
        """Return the thresholds between each two actions that are neighbours somewhere."""
        found: list[Boundary] = []
        for j, k in combinations(range(len(self.actions)), 2):
            one = self._between(j, k)
            if not np.isnan(one.threshold).all():
                found.append(one)
        return tuple(found)

    def _between(self, j: int, k: int) -> Boundary:
        gap = self.beta[:, j] - self.beta[:, k]
        rise = self.alpha[:, k] - self.alpha[:, j]
        at = np.divide(rise, gap, out=np.full(len(gap), np.nan), where=gap > 0.0)
        at[~((at > 0.0) & (at < 1.0))] = np.nan
        costs = self.alpha + self.beta * np.nan_to_num(at)[:, None]
        here = costs[:, j]
        slack = 1e-9 * (1.0 + np.abs(here))
        for other in range(len(self.actions)):
            if other not in (j, k):
                at[costs[:, other] < here - slack] = np.nan
        return Boundary(self.actions[j], self.actions[k], at, gap)


def classes_of(policy: Policy, amount_minor: Places, category: Sequence[str]) -> Places:
    """Return the index of each payment's cost class, (n,), by its amount and its MCC."""
    pairs = zip(amount_minor.tolist(), category, strict=True)
    return np.array([policy.cost_class(amount, mcc) for amount, mcc in pairs], dtype=np.int64)


def stakes_of(policy: Policy, amount_minor: Places, classes: Places) -> Stakes:
    """Return the stakes of payments of these amounts and cost classes."""
    lines = np.array(
        [
            [(x.alpha, x.alpha_amount, x.beta, x.beta_amount) for x in one.lines]
            for one in policy.classes
        ]
    )
    amount = amount_minor.astype(np.float64)[:, None]
    own = lines[classes]
    return Stakes(
        actions=tuple(Action(action) for action in policy.actions),
        alpha=own[:, :, 0] + own[:, :, 1] * amount,
        beta=own[:, :, 2] + own[:, :, 3] * amount,
    )
