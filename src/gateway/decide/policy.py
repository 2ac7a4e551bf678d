"""From scores to actions: the whole decision of one product generation, pure.

`Policy.decide` takes a batch and gives one `Decision` a payment. A small batch goes
through the scalar path, a larger one through NumPy; both give the same bits, so that a
retry decides the same whatever it is batched with. `SCALAR_UP_TO` was measured by
`benchmarks/decide.py`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import IntFlag
from math import exp, inf, nan
from sys import float_info
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from gateway.decide.calibration import Calibration, base_rate_odds_ratio, shift, shift_many
from gateway.decide.costs import CostLine, cost_line
from gateway.decide.exploration import Explorer, explorer
from gateway.decide.stand_in import StandInRule, stand_in_rule
from gateway.product import (
    Action,
    CalendarEvent,
    Challenger,
    Champion,
    Override,
    Product,
    StandIn,
    minor_per_major,
    minor_units,
)

SCALAR_UP_TO = 24
"""Batches up to this many payments are decided one by one."""

KERNEL_NOISE = 1e-6
"""ONNX Runtime's probabilities differ by up to this between batch sizes."""

SCORE_SLACK = 1e-5
"""A score this share of its range outside it is rounding, not an error of the model."""

_SHIFT_MAX = 20.0
"""Overlapping events shift the log-odds by this at the most: beyond, p is clipped anyway."""


class Flag(IntFlag):
    """What else there is to say of a decision."""

    NEAR_TIE = 1
    EXPLORED = 2
    OVERRIDDEN = 4
    CATEGORY_HARM = 8
    CALENDAR_EVENT = 16


# Plain ints: IntFlag's operators cost a microsecond each on the hot path.
_NEAR_TIE, _EXPLORED, _OVERRIDDEN, _CATEGORY_HARM, _CALENDAR_EVENT = (int(f) for f in Flag)


class Asked(Protocol):
    """What a decision needs of a payment, besides its score.

    `category` is its MCC; `event_s` is Unix seconds.
    """

    @property
    def transaction_id(self) -> str: ...  # noqa: D102 - named above
    @property
    def amount_minor(self) -> int: ...  # noqa: D102
    @property
    def category(self) -> str: ...  # noqa: D102
    @property
    def event_s(self) -> float: ...  # noqa: D102


class Decision(NamedTuple):
    """What one payment gets, and why. Costs and margin are in minor units.

    `costs` has every available action in order of severity; `second_best` is 0, and
    `margin` infinite, where there was no other action. An explored payment's second best is
    the decline that it was spared, and its margin is negative. `threshold` is the nearest
    probability at which the action would change, NaN where none would.
    """

    action: int
    second_best: int
    probability: float
    threshold: float
    margin: float
    propensity: float
    flags: int
    cost_class: int
    costs: tuple[float, ...]


class Chosen(NamedTuple):
    """What n payments get, as arrays: `Decision` without what only an answer needs.

    `probability` (n,); `action` (n,) uint8; `costs` (n, k) in minor units, an available action
    each, in order of severity. Nothing is explored.
    """

    probability: NDArray[np.float64]
    action: NDArray[np.uint8]
    costs: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Bar:
    """An override: the actions from index `first` up, exactly when p ≥ `at_least`."""

    first: int
    at_least: float
    expires_s: float


@dataclass(frozen=True, slots=True)
class CostClass:
    """The payments whose costs are alike: one category, or none.

    A category with `harm_up_to` has two classes, one after the other: up to that amount
    with its harm multiplier, and above it with 1.
    """

    name: str
    harm: float
    harm_up_to_minor: float
    lines: tuple[CostLine, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """One product generation's decision, compiled from its product.yaml.

    `classes[0]` is the payments of no category. `score_low` and `score_high` are the least and
    the greatest finite score that the calibration map takes.
    """

    actions: tuple[int, ...]
    calibration: Calibration
    score_low: float
    score_high: float
    base_odds_ratio: float
    classes: tuple[CostClass, ...]
    class_of_mcc: dict[str, int]
    stand_ins: dict[StandIn, StandInRule]
    explorer: Explorer | None
    _bars: tuple[tuple[_Bar, ...], ...]
    _class_flags: tuple[int, ...]
    _event_bounds_s: tuple[float, ...]
    _event_odds_ratios: tuple[float, ...]
    _rows: tuple[tuple[tuple[float, float, float, float], ...], ...]
    _coefficients: NDArray[np.float64]

    def takes(self, scores: Sequence[float]) -> bool:
        """Return whether each of n ≥ 1 scores lies where the map can read it. NaN does not."""
        # min and max may step over a NaN; a sum never does.
        total = sum(scores)
        return min(scores) >= self.score_low and max(scores) <= self.score_high and total == total

    def snapped(self, score: float) -> float:
        """Return the edge for a score just outside: float32 sums of trees end there."""
        low, high = self.score_low, self.score_high
        slack = SCORE_SLACK * (high - low)
        if slack == inf:
            return score
        if low - slack <= score < low:
            return low
        return high if high < score <= high + slack else score

    def cost_class(self, amount_minor: int, category: str) -> int:
        """Return the index of a payment's class."""
        index = self.class_of_mcc.get(category, 0)
        return index + 1 if amount_minor > self.classes[index].harm_up_to_minor else index

    def cost_classes(
        self,
        amounts_minor: NDArray[np.int64],
        categories: Sequence[str],
        category: NDArray[np.integer[Any]],
    ) -> NDArray[np.intp]:
        """`cost_class` for n payments; `category` (n,) are places in `categories`, MCCs."""
        first = np.array([self.class_of_mcc.get(mcc, 0) for mcc in categories], dtype=np.intp)
        up_to = np.array([one.harm_up_to_minor for one in self.classes])
        index = first[category]
        classes: NDArray[np.intp] = index + (amounts_minor > up_to[index])
        return classes

    def stand_in(self, reason: StandIn, amount_minor: int, category: str) -> Action:
        """Return the action that the product chose beforehand for `reason`."""
        return self.stand_ins[reason].choose(amount_minor, category)

    def odds_ratio(self, event_s: float) -> float:
        """Return base-rate and calendar shift together, at `event_s` (Unix seconds, UTC)."""
        if not self._event_bounds_s:
            return self.base_odds_ratio
        return self._event_odds_ratios[bisect_right(self._event_bounds_s, event_s)]

    def decide(self, scores: Sequence[float], payments: Sequence[Asked]) -> list[Decision]:
        """Decide a batch. Each score lies in 0..1."""
        if len(payments) <= SCALAR_UP_TO:
            decisions = [
                self.decide_one(
                    score,
                    payment.amount_minor,
                    self.cost_class(payment.amount_minor, payment.category),
                    payment.event_s,
                )
                for score, payment in zip(scores, payments, strict=True)
            ]
        else:
            decisions = self.decide_many(
                scores,
                [payment.amount_minor for payment in payments],
                [self.cost_class(payment.amount_minor, payment.category) for payment in payments],
                [payment.event_s for payment in payments],
            )
        if self.explorer is not None:
            for i, decision in enumerate(decisions):
                if decision.action == Action.DECLINE:
                    decisions[i] = self._explore(decision, payments[i])
        return decisions

    def decide_one(
        self, score: float, amount_minor: int, class_index: int, event_s: float
    ) -> Decision:
        """Decide one payment: the scalar path."""
        ratio = self.odds_ratio(event_s)
        p = self.calibration.one(score)
        if ratio != 1.0:
            p = shift(p, ratio)
        amount = float(amount_minor)
        lines = self._rows[class_index]
        alphas = [alpha + alpha_amount * amount for alpha, alpha_amount, _, _ in lines]
        betas = [beta + beta_amount * amount for _, _, beta, beta_amount in lines]
        costs = [alpha + beta * p for alpha, beta in zip(alphas, betas, strict=True)]

        first, last = 0, len(costs)  # the allowed actions are first..last-1
        low, high = -inf, inf
        flags = self._class_flags[class_index]
        least = min(costs)
        best = costs.index(least)
        if bars := self._bars[class_index]:
            free = best
            for bar in bars:
                if event_s < bar.expires_s:
                    if abs(p - bar.at_least) <= KERNEL_NOISE:
                        flags |= _NEAR_TIE
                    if p >= bar.at_least:
                        first, low = max(first, bar.first), max(low, bar.at_least)
                    else:
                        last, high = min(last, bar.first), min(high, bar.at_least)
            least = min(costs[first:last])
            best = costs.index(least, first)
            if best != free:
                flags |= _OVERRIDDEN
        if ratio != self.base_odds_ratio:
            flags |= _CALENDAR_EVENT
        alpha, beta = alphas[best], betas[best]
        second_best, margin = 0, inf
        for k in range(first, last):
            if k == best:
                continue
            slope, dearer = beta - betas[k], costs[k] - least
            if dearer < margin:
                margin, second_best, second_slope = dearer, self.actions[k], slope
            if slope != 0.0:
                crossing = (alphas[k] - alpha) / slope
                if slope > 0.0:
                    high = crossing if crossing < high else high
                else:
                    low = crossing if crossing > low else low
        if second_best and margin <= KERNEL_NOISE * abs(second_slope):
            flags |= _NEAR_TIE
        return Decision(
            self.actions[best],
            second_best,
            p,
            _nearest(p, low, high),
            margin,
            1.0,
            flags,
            class_index,
            tuple(costs),
        )

    def decide_many(
        self,
        scores: Sequence[float],
        amounts_minor: Sequence[int],
        class_indices: Sequence[int],
        events_s: Sequence[float],
    ) -> list[Decision]:
        """Decide n payments: the vector path, to the same bits as `decide_one`."""
        n, k = len(class_indices), len(self.actions)
        rows = np.arange(n)
        classes, events = np.asarray(class_indices), np.asarray(events_s, dtype=np.float64)
        ratio, p = self._probabilities(np.asarray(scores, dtype=np.float64), events)
        alphas, betas = self._lines(np.asarray(amounts_minor, dtype=np.float64), classes)
        costs = alphas + betas * p[:, None]

        compared, low, high = costs, np.full(n, -inf), np.full(n, inf)
        at_bar = np.zeros(n, dtype=np.bool_)
        allowed: NDArray[np.bool_] | None = None
        if self._barred(classes):
            allowed, low, high, at_bar = self._allowed(p, classes, events)
            compared = np.where(allowed, costs, inf)
        best = compared.argmin(axis=1)
        others = compared.copy()
        others[rows, best] = inf
        second = others.argmin(axis=1)
        margins = others[rows, second] - costs[rows, best]

        slopes = betas[rows, best][:, None] - betas
        rises = alphas - alphas[rows, best][:, None]
        if allowed is not None:
            slopes = np.where(allowed, slopes, 0.0)
        crossings = np.divide(rises, slopes, out=np.zeros((n, k)), where=slopes != 0.0)
        high = np.minimum(high, np.where(slopes > 0.0, crossings, inf).min(axis=1))
        low = np.maximum(low, np.where(slopes < 0.0, crossings, -inf).max(axis=1))
        below, above = p - low, high - p
        has_low, has_high = (low > 0.0) & (low < 1.0), (high > 0.0) & (high < 1.0)
        threshold = np.where(
            has_low & (~has_high | (below <= above)), low, np.where(has_high, high, nan)
        )
        flags = np.array(self._class_flags)[classes]
        flags |= np.where(ratio != self.base_odds_ratio, _CALENDAR_EVENT, 0)
        if allowed is not None:
            flags |= np.where(best != costs.argmin(axis=1), _OVERRIDDEN, 0)
        noise = KERNEL_NOISE * np.abs(slopes[rows, second])
        flags |= np.where((margins <= noise) | at_bar, _NEAR_TIE, 0)

        action_values = np.array(self.actions)
        return list(
            map(
                Decision._make,
                zip(
                    action_values[best].tolist(),
                    np.where(margins < inf, action_values[second], 0).tolist(),
                    p.tolist(),
                    threshold.tolist(),
                    margins.tolist(),
                    [1.0] * n,
                    flags.tolist(),
                    classes.tolist(),
                    map(tuple, costs.tolist()),
                    strict=True,
                ),
            )
        )

    def choose_many(
        self,
        scores: NDArray[np.float64] | Sequence[float],
        amounts_minor: NDArray[np.int64] | Sequence[int],
        class_indices: NDArray[np.integer[Any]] | Sequence[int],
        events_s: NDArray[np.float64] | Sequence[float],
    ) -> Chosen:
        """Choose n payments' actions as `decide_many` does, to the same bits, and no more.

        For whoever decides many and answers none. Exploration is not applied.
        """
        classes, events = np.asarray(class_indices), np.asarray(events_s, dtype=np.float64)
        _, p = self._probabilities(np.asarray(scores, dtype=np.float64), events)
        alphas, betas = self._lines(np.asarray(amounts_minor, dtype=np.float64), classes)
        costs = alphas + betas * p[:, None]
        compared = costs
        if self._barred(classes):
            compared = np.where(self._allowed(p, classes, events)[0], costs, inf)
        actions = np.array(self.actions, dtype=np.uint8)
        return Chosen(p, actions[compared.argmin(axis=1)], costs)

    def near_ties(
        self,
        chosen: Chosen,
        amounts_minor: NDArray[np.int64] | Sequence[int],
        class_indices: NDArray[np.integer[Any]] | Sequence[int],
        events_s: NDArray[np.float64] | Sequence[float],
    ) -> NDArray[np.bool_]:
        """Return which of the payments that `choose_many` was given have the flag NEAR_TIE."""
        classes, events = np.asarray(class_indices), np.asarray(events_s, dtype=np.float64)
        rows, others = np.arange(len(classes)), chosen.costs.copy()
        _, betas = self._lines(np.asarray(amounts_minor, dtype=np.float64), classes)
        near = np.zeros(len(classes), dtype=np.bool_)
        allowed: NDArray[np.bool_] | None = None
        if self._barred(classes):
            allowed, _, _, near = self._allowed(chosen.probability, classes, events)
            others[~allowed] = inf
        best = np.searchsorted(np.array(self.actions), chosen.action)
        others[rows, best] = inf
        second = others.argmin(axis=1)
        slopes = betas[rows, best] - betas[rows, second]
        if allowed is not None:
            slopes = np.where(allowed[rows, second], slopes, 0.0)
        margins = others[rows, second] - chosen.costs[rows, best]
        near |= margins <= KERNEL_NOISE * np.abs(slopes)
        return near

    def _probabilities(
        self, scores: NDArray[np.float64], events_s: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64] | float, NDArray[np.float64]]:
        """Return the odds ratios at the payments' times, and their P(fraud)."""
        p = self.calibration.many(scores)
        if self._event_bounds_s:
            place = np.searchsorted(self._event_bounds_s, events_s, side="right")
            ratio = np.array(self._event_odds_ratios)[place]
            return ratio, np.where(ratio != 1.0, shift_many(p, ratio), p)
        if self.base_odds_ratio != 1.0:
            p = shift_many(p, self.base_odds_ratio)
        return self.base_odds_ratio, p

    def _lines(
        self, amounts: NDArray[np.float64], classes: NDArray[np.integer[Any]]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return α and β of each action at each payment's amount, (n, k)."""
        c, amount = self._coefficients[classes], amounts[:, None]  # (n, 4, k)
        return c[:, 0] + c[:, 1] * amount, c[:, 2] + c[:, 3] * amount

    def _barred(self, classes: NDArray[np.integer[Any]]) -> bool:
        """Say whether any of the payments may have an override."""
        return any(self._bars) and any(self._bars[i] for i in np.unique(classes).tolist())

    def _allowed(
        self,
        p: NDArray[np.float64],
        classes: NDArray[np.integer[Any]],
        events_s: NDArray[np.float64],
    ) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
        """Return which actions (n, k) the overrides leave, the bars on either side of p, and
        whether p is at one of them."""
        allowed = np.ones((len(classes), len(self.actions)), dtype=np.bool_)
        low, high = np.full(len(p), -inf), np.full(len(p), inf)
        at_bar = np.zeros(len(p), dtype=np.bool_)
        for index in np.unique(classes).tolist():
            for bar in self._bars[index]:
                live = (classes == index) & (events_s < bar.expires_s)
                above, below = live & (p >= bar.at_least), live & (p < bar.at_least)
                at_bar |= live & (np.abs(p - bar.at_least) <= KERNEL_NOISE)
                allowed[above, : bar.first] = False
                allowed[below, bar.first :] = False
                low[above] = np.maximum(low[above], bar.at_least)
                high[below] = np.minimum(high[below], bar.at_least)
        return allowed, low, high, at_bar

    def _explore(self, decision: Decision, payment: Asked) -> Decision:
        explorer = self.explorer
        if explorer is None or payment.amount_minor > explorer.max_amount_minor:
            return decision
        if not explorer.draws(payment.transaction_id):
            return decision._replace(propensity=1.0 - explorer.propensity)
        approve, decline = decision.costs[0], decision.costs[-1]
        return decision._replace(
            action=Action.APPROVE.value,
            second_best=Action.DECLINE.value,
            margin=decline - approve,
            propensity=explorer.propensity,
            flags=decision.flags | _EXPLORED,
        )


def compile_policy(
    product: Product, calibration: Calibration, arm: Champion | Challenger | None = None
) -> Policy:
    """Compile what product.yaml declares into the numbers that a decision needs.

    `arm`: the model whose base rate holds; where left out, the champion.
    """
    unit = minor_per_major(product.costs.currency)
    actions = tuple(sorted(product.actions))
    categories = product.costs.categories
    classes, class_of_mcc = cost_classes(product, actions)
    rows = tuple(
        tuple((x.alpha, x.alpha_amount, x.beta, x.beta_amount) for x in cost_class.lines)
        for cost_class in classes
    )
    base = (arm or product.models.champion).base_rate
    base_ratio = 1.0 if base is None else base_rate_odds_ratio(base.calibrated_at, base.serving)
    bounds, ratios = _calendar(product.calendar, base_ratio)
    mccs = {name: frozenset(category.mcc) for name, category in categories.items()}
    explored = product.exploration
    return Policy(
        actions=tuple(action.value for action in actions),
        calibration=calibration,
        score_low=max(calibration.domain[0], -float_info.max),
        score_high=min(calibration.domain[1], float_info.max),
        base_odds_ratio=base_ratio,
        classes=classes,
        class_of_mcc=class_of_mcc,
        stand_ins={
            reason: stand_in_rule(bands, mccs=mccs, minor_per_major=unit)
            for reason, bands in product.stand_in.by_reason().items()
        },
        explorer=None
        if explored is None
        else explorer(
            explored,
            product=product.name,
            worst_loss_minor=classes[0].lines[0].cost(1.0, minor_units(explored.max_amount, unit)),
            minor_per_major=unit,
        ),
        _bars=tuple(_bars(product.overrides, cost_class.name, actions) for cost_class in classes),
        _class_flags=tuple(_CATEGORY_HARM if c.harm > 1.0 else 0 for c in classes),
        _event_bounds_s=bounds,
        _event_odds_ratios=ratios,
        _rows=rows,
        _coefficients=np.array(rows, dtype=np.float64).transpose(0, 2, 1).copy(),
    )


def cost_classes(
    product: Product, actions: Sequence[Action]
) -> tuple[tuple[CostClass, ...], dict[str, int]]:
    """Return what these actions cost by class of payments, and the classes of MCCs.

    The first is that of payments of no category; a category's second, above `harm_up_to`, follows
    its first.
    """
    unit = minor_per_major(product.costs.currency)
    classes = [_cost_class("", 1.0, inf, product, actions, unit)]
    class_of_mcc: dict[str, int] = {}
    for name, category in product.costs.categories.items():
        class_of_mcc.update(dict.fromkeys(category.mcc, len(classes)))
        up_to = inf if category.harm_up_to is None else minor_units(category.harm_up_to, unit)
        classes.append(_cost_class(name, category.harm, up_to, product, actions, unit))
        if up_to < inf:
            classes.append(_cost_class(name, 1.0, inf, product, actions, unit))
    return tuple(classes), class_of_mcc


def _cost_class(
    name: str, harm: float, up_to: float, product: Product, actions: Sequence[Action], unit: int
) -> CostClass:
    lines = tuple(
        cost_line(action, product.costs, harm=harm, minor_per_major=unit) for action in actions
    )
    return CostClass(name=name, harm=harm, harm_up_to_minor=up_to, lines=lines)


def _bars(
    overrides: Sequence[Override], category: str, actions: tuple[Action, ...]
) -> tuple[_Bar, ...]:
    """Return the overrides of one cost class: its own, and those for every category."""
    return tuple(
        _Bar(
            first=actions.index(override.action),
            at_least=override.at_least,
            expires_s=_end_of(override.expires),
        )
        for override in overrides
        if override.category is None or override.category == category
    )


def _calendar(
    events: Sequence[CalendarEvent], base_ratio: float
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the instants at which the odds ratio changes, and the ratio in between.

    Events that overlap add their log-odds shifts. Days are UTC days, both ends included.
    """
    if not events:
        return (), ()
    bounds = sorted({_start_of(e.starts) for e in events} | {_end_of(e.ends) for e in events})
    ratios = [base_ratio]
    for bound in bounds:
        shift_by = sum(
            e.log_odds_shift for e in events if _start_of(e.starts) <= bound < _end_of(e.ends)
        )
        shift_by = max(-_SHIFT_MAX, min(_SHIFT_MAX, shift_by))
        ratios.append(base_ratio * exp(shift_by) if shift_by else base_ratio)
    return tuple(bounds), tuple(ratios)


def _start_of(day: date) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()


def _end_of(day: date) -> float:
    return _start_of(day + timedelta(days=1)) if day < date.max else inf


def _nearest(p: float, low: float, high: float) -> float:
    has_low, has_high = 0.0 < low < 1.0, 0.0 < high < 1.0
    if has_low and (not has_high or p - low <= high - p):
        return low
    return high if has_high else nan
