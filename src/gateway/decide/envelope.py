"""The lower envelope of cost lines: which action is cheapest at which probability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from gateway.decide.costs import CostLine
from gateway.product import Action


@dataclass(frozen=True, slots=True)
class Interval:
    """`action` is the cheapest from probability `low` to `high`."""

    low: float
    high: float
    action: Action


def lower_envelope(lines: Sequence[CostLine], amount_minor: float) -> tuple[Interval, ...]:
    """Return the intervals of [0, 1], from left to right, with each one's cheapest action.

    Where two lines cross, p_jk = (α_k − α_j)/(β_j − β_k). Equal lines go to the less severe
    action. Intervals of no width are left out.
    """
    ordered = sorted(lines, key=lambda line: line.action)
    at = [(line.action, *line.at(amount_minor)) for line in ordered]
    breakpoints = {0.0, 1.0}
    for i, (_, alpha_j, beta_j) in enumerate(at):
        for _, alpha_k, beta_k in at[i + 1 :]:
            if beta_j != beta_k:
                p = (alpha_k - alpha_j) / (beta_j - beta_k)
                if 0.0 < p < 1.0:
                    breakpoints.add(p)
    points = sorted(breakpoints)
    intervals: list[Interval] = []
    for low, high in pairwise(points):
        middle = (low + high) / 2.0
        action = min(at, key=lambda line: line[1] + line[2] * middle)[0]
        if intervals and intervals[-1].action == action:
            intervals[-1] = Interval(intervals[-1].low, high, action)
        else:
            intervals.append(Interval(low, high, action))
    return tuple(intervals)


def dominated(lines: Sequence[CostLine], amounts_minor: Sequence[float]) -> tuple[Action, ...]:
    """Return the actions that are the cheapest at no probability, for none of the amounts."""
    used = {
        interval.action for amount in amounts_minor for interval in lower_envelope(lines, amount)
    }
    return tuple(sorted(line.action for line in lines if line.action not in used))
