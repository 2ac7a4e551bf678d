"""Why this action, and what would have changed it. Off the hot path.

Every "what if" is asked of the policy itself, payment by payment: an explanation cannot say
what the gateway would not do. All else is equal in each: the score stays when the amount or
the category changes, though a model that is fed them might give another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import floor, inf, log
from struct import pack, unpack
from typing import NamedTuple

from gateway.decide.calibration import shift
from gateway.decide.costs import CostLine
from gateway.decide.envelope import Interval, lower_envelope
from gateway.decide.policy import Asked, CostClass, Decision, Flag, Policy
from gateway.product import Action

AMOUNT_END_MAJOR = 10**12
"""No amount from this one on, in major units, is looked at."""


class Option(NamedTuple):
    """One of the product's actions: what it is expected to cost, in minor units.

    `dearer_minor`: than the chosen one; below 0 where an override rules the action out.
    """

    action: Action
    cost_minor: float
    dearer_minor: float
    ruled_out: bool


class Edge(NamedTuple):
    """A threshold beside the payment's probability, and the `action` beyond it.

    `log_odds_away` is signed, and infinite from a probability of 0 or 1. `score` is the first
    one, from the payment's own, that the model would have to give; None where none would do.
    """

    probability: float
    log_odds_away: float
    action: Action
    score: float | None


class OtherAmount(NamedTuple):
    """The nearest whole amount on one side, in minor units, that gets another `action`."""

    amount_minor: int
    action: Action


class OtherCategory(NamedTuple):
    """A category of costs.categories, "" for none of them, that gets another `action`."""

    name: str
    action: Action


class InForce(NamedTuple):
    """An override that holds for the payment: `action` or a more severe one iff p ≥ `at_least`."""

    action: Action
    at_least: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """One decision, taken apart.

    `calibrated` is the probability before the shifts, which are log-odds. `chosen` is the
    action of least expected cost among those that `overrides` leave; `decision.action` is
    another only where the payment was explored. `intervals` say what is chosen at which
    probability, for this amount, category and time.
    """

    score: float
    calibrated: float
    base_rate_shift: float
    calendar_shift: float
    decision: Decision
    chosen: Action
    cost_class: CostClass
    options: tuple[Option, ...]
    overrides: tuple[InForce, ...]
    intervals: tuple[Interval, ...]
    below: Edge | None
    above: Edge | None
    smaller: OtherAmount | None
    larger: OtherAmount | None
    categories: tuple[OtherCategory, ...]

    @property
    def nearest(self) -> Edge | None:
        """The edge at `decision.threshold`, None where no probability changes the action."""
        for edge in (self.below, self.above):
            if edge is not None and edge.probability == self.decision.threshold:
                return edge
        return None

    @property
    def explored(self) -> bool:
        """Whether the payment was let through to learn its label."""
        return bool(self.decision.flags & Flag.EXPLORED)

    @property
    def overridden(self) -> bool:
        """Whether an override took the choice from the cheapest action."""
        return bool(self.decision.flags & Flag.OVERRIDDEN)

    @property
    def near_tie(self) -> bool:
        """Whether the last bits of the model's arithmetic may have decided."""
        return bool(self.decision.flags & Flag.NEAR_TIE)


def served_probability(policy: Policy, score: float, event_s: float) -> float:
    """Return P(fraud) as `Policy.decide` has it: calibrated, then shifted."""
    ratio, calibrated = policy.odds_ratio(event_s), policy.calibration.one(score)
    return calibrated if ratio == 1.0 else shift(calibrated, ratio)


def log_odds(p: float) -> float:
    """Return ln(p/(1−p)), infinite at 0 and 1."""
    if p <= 0.0:
        return -inf
    return inf if p >= 1.0 else log(p / (1.0 - p))


def explain(policy: Policy, score: float, payment: Asked, *, minor_per_major: int) -> Explanation:
    """Take one decision apart. `score` lies where `policy` takes scores."""
    amount_minor, category, event_s = payment.amount_minor, payment.category, payment.event_s
    index = policy.cost_class(amount_minor, category)
    cost_class = policy.classes[index]
    own = policy.decide_one(score, amount_minor, index, event_s)
    overrides = _in_force(policy, index, event_s)
    first, last = _left(policy.actions, overrides, own.probability)
    least = own.costs[policy.actions.index(own.action)]
    low, high = _thresholds(cost_class.lines, overrides, own, amount_minor)

    def action_at(score: float, amount_minor: int, category: str) -> int:
        index = policy.cost_class(amount_minor, category)
        return policy.decide_one(score, amount_minor, index, event_s).action

    def edge(probability: float, beyond: float, end: float) -> Edge | None:
        if not 0.0 < probability < 1.0:
            return None
        away = log_odds(probability) - log_odds(own.probability)
        action = _action_beyond(cost_class.lines, overrides, own, amount_minor, beyond)
        at = _first_score(
            lambda score: action_at(score, amount_minor, category) != own.action, score, end
        )
        return Edge(probability, away, action, at)

    def other_amount(ends: Sequence[int], step: int) -> OtherAmount | None:
        start = amount_minor
        for end in ends:
            at = _first(lambda amount: action_at(score, amount, category) != own.action, start, end)
            if at is not None:
                return OtherAmount(at, Action(action_at(score, at, category)))
            start = end + step
        return None

    rises = policy.calibration.one(policy.score_low) <= policy.calibration.one(policy.score_high)
    genuine, fraud = (
        (policy.score_low, policy.score_high) if rises else (policy.score_high, policy.score_low)
    )
    smaller, larger = _ends(policy, amount_minor, category, AMOUNT_END_MAJOR * minor_per_major - 1)
    return Explanation(
        score=score,
        calibrated=policy.calibration.one(score),
        base_rate_shift=log(policy.base_odds_ratio),
        calendar_shift=log(policy.odds_ratio(event_s) / policy.base_odds_ratio),
        decision=policy.decide([score], [payment])[0],
        chosen=Action(own.action),
        cost_class=cost_class,
        options=tuple(
            Option(Action(action), cost, cost - least, not first <= k < last)
            for k, (action, cost) in enumerate(zip(policy.actions, own.costs, strict=True))
        ),
        overrides=overrides,
        intervals=_intervals(cost_class.lines, overrides, amount_minor),
        below=edge(low, low - _CLOSE * low, genuine),
        above=edge(high, high + _CLOSE * (1.0 - high), fraud),
        smaller=other_amount(smaller, -1),
        larger=other_amount(larger, +1),
        categories=tuple(
            OtherCategory(name, Action(action))
            for name, mcc in _categories(policy)
            if name != cost_class.name
            and (action := action_at(score, amount_minor, mcc)) != own.action
        ),
    )


_CLOSE = 1e-6
"""So far beyond a threshold, as a share of what lies beyond it, its other action is looked up."""


def _in_force(policy: Policy, index: int, event_s: float) -> tuple[InForce, ...]:
    return tuple(
        InForce(Action(policy.actions[bar.first]), bar.at_least)
        for bar in policy._bars[index]
        if event_s < bar.expires_s
    )


def _left(
    actions: Sequence[int], overrides: Sequence[InForce], probability: float
) -> tuple[int, int]:
    """Return the indices first..last-1 of the actions that the overrides leave."""
    first, last = 0, len(actions)
    for override in overrides:
        bar = actions.index(override.action)
        if probability >= override.at_least:
            first = max(first, bar)
        else:
            last = min(last, bar)
    return first, last


def _intervals(
    lines: Sequence[CostLine], overrides: Sequence[InForce], amount_minor: int
) -> tuple[Interval, ...]:
    """Return what is chosen at which probability. No action is chosen on both sides of a bar."""
    actions = [line.action for line in lines]
    bars = sorted({0.0, 1.0, *(one.at_least for one in overrides)})
    intervals: list[Interval] = []
    for low, high in pairwise(bars):
        first, last = _left(actions, overrides, (low + high) / 2.0)
        intervals += (
            Interval(max(one.low, low), min(one.high, high), one.action)
            for one in lower_envelope(lines[first:last], amount_minor)
            if one.low < high and one.high > low
        )
    return tuple(intervals)


def _thresholds(
    lines: Sequence[CostLine], overrides: Sequence[InForce], own: Decision, amount_minor: int
) -> tuple[float, float]:
    """Return the thresholds on either side of p, to the bits of `Policy.decide_one`."""
    p, low, high = own.probability, -inf, inf
    for override in overrides:
        if p >= override.at_least:
            low = max(low, override.at_least)
        else:
            high = min(high, override.at_least)
    first, last = _left([line.action for line in lines], overrides, p)
    allowed = [(line.action, *line.at(amount_minor)) for line in lines[first:last]]
    alpha, beta = next((alpha, beta) for action, alpha, beta in allowed if action == own.action)
    for _, other_alpha, other_beta in allowed:
        slope = beta - other_beta
        if slope > 0.0:
            high = min(high, (other_alpha - alpha) / slope)
        elif slope < 0.0:
            low = max(low, (other_alpha - alpha) / slope)
    return low, high


def _action_beyond(
    lines: Sequence[CostLine],
    overrides: Sequence[InForce],
    own: Decision,
    amount_minor: int,
    probability: float,
) -> Action:
    """Return the cheapest other action at a probability just beyond a threshold."""
    first, last = _left([line.action for line in lines], overrides, probability)
    others = [line for line in lines[first:last] if line.action != own.action]
    return min(others, key=lambda line: line.cost(probability, amount_minor)).action


def _ends(
    policy: Policy, amount_minor: int, category: str, most_minor: int
) -> tuple[list[int], list[int]]:
    """Return where to look for smaller and for larger amounts: up to each end in turn.

    Costs are lines in the amount within a class of costs, so an action, once lost between
    two ends, does not come back before the second.
    """
    smaller, larger = [0], [most_minor] if amount_minor < most_minor else []
    up_to = policy.classes[policy.class_of_mcc.get(category, 0)].harm_up_to_minor
    if amount_minor > up_to:
        smaller.insert(0, floor(up_to) + 1)
    elif up_to < most_minor:
        larger.insert(0, floor(up_to))
    return smaller, larger


def _categories(policy: Policy) -> list[tuple[str, str]]:
    """Return each category's name with one of its MCCs; "" and "" first, for none of them."""
    mcc_of = {index: mcc for mcc, index in policy.class_of_mcc.items()}
    named = [(policy.classes[index].name, mcc) for index, mcc in sorted(mcc_of.items())]
    return [("", ""), *named]


def _first(differs: Callable[[int], bool], start: int, end: int) -> int | None:
    """Return the number nearest to `start`, towards `end`, that differs; None if `end` does not.

    What differs, differs from there on to `end`.
    """
    if differs(start):
        return start
    if not differs(end):
        return None
    while abs(end - start) > 1:
        middle = (start + end) // 2
        start, end = (start, middle) if differs(middle) else (middle, end)
    return end


def _first_score(differs: Callable[[float], bool], start: float, end: float) -> float | None:
    """`_first` over all float64 in between: 64 steps, whatever the range."""
    at = _first(lambda i: differs(_number(i)), _ordinal(start), _ordinal(end))
    return None if at is None else _number(at)


def _ordinal(number: float) -> int:
    """Number the finite float64 in their order, 0.0 as 0."""
    bits: int = unpack("<q", pack("<d", number))[0]
    return bits if bits >= 0 else -(bits & 0x7FFF_FFFF_FFFF_FFFF)


def _number(ordinal: int) -> float:
    magnitude: float = unpack("<d", pack("<q", abs(ordinal)))[0]
    return magnitude if ordinal >= 0 else -magnitude
