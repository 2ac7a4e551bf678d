"""Claims that were written down before their result was known, and what came of them. Pure.

A claim is frozen: the digest of what was declared is kept at the start, and a declaration that
reads otherwise later is another experiment. Its arms are compared on days whose labels are mature,
each day at most once, by confidence sequences (`sequential`): whoever looks when he likes is not
fooled by it.

    invalid     the declaration was changed, or the arms did not get the units they were to get
    stop        for sure a guardrail is broken, or the goal is not reached
    ship        for sure the goal is better than before, and no guardrail is worse than its margin
    undecided   the greatest number of days is over
    continue    none of these so far

To ship all must hold, so guardrails are not corrected for their number. A broken guardrail stops
before the least number of days is over; nothing else does. The first stop, ship or undecided stays
what it is; invalid takes it back.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from collections.abc import Sequence as Row
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.evaluate.intervals import Estimate
from gateway.evaluate.sequential import (
    ALPHA,
    MISMATCH_ALPHA,
    Sequence,
    Side,
    difference,
    mismatch,
)
from gateway.evaluate.sums import Floats
from gateway.product import Guardrail, Hypothesis, Models

Says = Literal["ship", "stop", "continue", "undecided", "invalid"]

Because = Literal[
    "declaration_changed",
    "sample_ratio_mismatch",
    "guardrail_broken",
    "goal_not_reached",
    "goal_reached",
    "days_over",
    "too_few_days",
    "not_sure",
]

WORSE = {
    "fraud_loss_bps": 1,
    "fraud_loss": 1,
    "false_positive_rate": 1,
    "insult_rate": 1,
    "approval_rate": -1,
    "value_detection_rate": -1,
    "savings": -1,
    "step_up_success_rate": -1,
    "review_load": 1,
}
"""The sign of a change of each metric that is for the worse."""


@dataclass(frozen=True, slots=True)
class Declared:
    """A hypothesis in numbers. `effect`: the least change of the metric that matters, signed.

    `arms`: what is compared with, and what is tried; `shares` of the traffic, each above 0.
    """

    id: str
    metric: str
    effect: float
    arms: tuple[str, str]
    shares: tuple[float, float]
    guardrails: tuple[Guardrail, ...]
    min_days: int
    max_days: int
    alpha: float = ALPHA

    def __post_init__(self) -> None:
        if self.effect == 0.0:
            raise ValueError("minimum_effect is 0, must be the change that matters")
        if len(set(self.arms)) != 2 or min(self.shares) <= 0.0:
            raise ValueError("arms must be two, each with a share above 0")


class Pair(NamedTuple):
    """One metric's sums by day and bucket, (T, B): of the arm that is tried, and of the other."""

    tried: Side
    other: Side


@dataclass(frozen=True, slots=True, eq=False)
class Observed:
    """What came on each mature day since the start, T of them; `guardrails` as declared.

    `drawn` (T or more, 2): units that came to an arm for the first time, in the order of `arms`;
    assignments need not wait for labels, so there may be later days.
    """

    goal: Pair
    guardrails: tuple[Pair, ...]
    drawn: Floats


class Look(NamedTuple):
    """What is known behind one day (from 1). NaN and infinities where too little is.

    `evidence`: the logarithm of what speaks against the assignment.
    """

    day: int
    says: Says
    because: Because
    goal: Estimate
    guardrails: tuple[Estimate, ...]
    evidence: float

    def as_object(self) -> dict[str, Any]:
        """Return what JSON shows; None for what is not known."""
        return {
            "day": self.day,
            "says": self.says,
            "because": self.because,
            "goal": [_known(end) for end in self.goal],
            "guardrails": [[_known(end) for end in one] for one in self.guardrails],
            "evidence_of_mismatch": self.evidence,
        }

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Look:
        """Return the look that was told so. Raises KeyError, TypeError, ValueError."""
        because = told["because"]
        return cls(
            int(told["day"]),
            _NAMES[because],
            because,
            _estimate(told["goal"]),
            tuple(_estimate(one) for one in told["guardrails"]),
            float(told["evidence_of_mismatch"]),
        )


class Impact(NamedTuple):
    """What was intended, and what came, with the sequence's interval.

    `is_reached`: the intended change or more for sure, or less for sure; None while it is open.
    """

    intended: float
    actual: Estimate
    is_reached: bool | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """A hypothesis so far: the verdict, since which day it is so, and all looks."""

    says: Says
    because: Because
    day: int
    impact: Impact
    looks: tuple[Look, ...]

    def as_object(self) -> dict[str, Any]:
        """Return what JSON shows; None for what is not known."""
        return {
            "verdict": self.says,
            "because": self.because,
            "day": self.day,
            "impact": {
                "intended": self.impact.intended,
                "actual": _known(self.impact.actual.value),
                "interval": [_known(self.impact.actual.low), _known(self.impact.actual.high)],
                "is_reached": self.impact.is_reached,
            },
            "looks": [look.as_object() for look in self.looks],
        }


def declared_of(hypothesis: Hypothesis) -> Declared:
    """Return what a hypothesis is judged by. Raises ValueError: it does not say enough."""
    missing = [name for name in ("minimum_effect", "stop") if getattr(hypothesis, name) is None]
    if missing:
        raise ValueError(f"{' and '.join(missing)} must be given before the result is known")
    if len(hypothesis.arms) != 2:
        raise ValueError(f"arms are {len(hypothesis.arms)}, must be two: champion, and a canary")
    assert hypothesis.minimum_effect is not None
    assert hypothesis.stop is not None
    (control, its_share), (tried, tried_share) = hypothesis.arms.items()
    return Declared(
        hypothesis.id,
        hypothesis.metric,
        hypothesis.minimum_effect,
        (control, tried),
        (its_share, tried_share),
        hypothesis.guardrails,
        hypothesis.stop.min_days,
        hypothesis.stop.max_days,
    )


def written(hypothesis: Hypothesis) -> dict[str, Any]:
    """Return all that a hypothesis says, as JSON; its arms in their order."""
    told = hypothesis.model_dump(mode="json")
    told["arms"] = [list(arm) for arm in hypothesis.arms.items()]
    if hypothesis.maturity is not None:
        told["maturity"] = f"{hypothesis.maturity.total_seconds():.0f}s"
    return told


def read_again(told: Mapping[str, Any]) -> Hypothesis:
    """Return the hypothesis that was written so. Raises ValueError."""
    return Hypothesis(**{**told, "arms": dict(told["arms"])})


def digest(hypothesis: Hypothesis) -> str:
    """Return what a declaration is frozen by: SHA-256 of all that it says."""
    return hashlib.sha256(json.dumps(written(hypothesis), sort_keys=True).encode()).hexdigest()


def models_digest(models: Models, arms: Row[str]) -> str:
    """Return what the models of arms are frozen by: SHA-256 of all that is declared of them.

    Another file, calibration or share under an arm's name is another arm.
    """
    champion = models.champion
    told = [champion.model_dump(mode="json")] if champion.name in arms else []
    told += [one.model_dump(mode="json") for one in models.challengers if one.name in arms]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def outcome(
    declared: Declared, observed: Observed, *, is_as_frozen: bool, kept: Row[Look] = ()
) -> Outcome:
    """Return what came of a hypothesis. `is_as_frozen`: its digest is that of the start.

    `kept`: looks of the first days, which stay as they were whatever labels say of those days now.
    """
    goal = _sequence(observed.goal, declared.effect, declared.alpha)
    held = [
        _sequence(pair, one.margin, declared.alpha)
        for one, pair in zip(declared.guardrails, observed.guardrails, strict=True)
    ]
    drawn = np.cumsum(observed.drawn, axis=0)
    evidence, later = np.split(mismatch(drawn, np.array(declared.shares)), [len(goal.value)])
    says = judged(declared, goal, held, evidence, is_as_frozen=is_as_frozen)
    because = reasons(declared, goal, held, evidence, is_as_frozen=is_as_frozen)
    looks = tuple(
        kept[place]
        if place < len(kept)
        else Look(
            place + 1,
            says[place],
            because[place],
            _at(goal, place),
            tuple(_at(one, place) for one in held),
            float(evidence[place]),
        )
        for place in range(min(len(says), declared.max_days))
    )
    last = _deciding(looks) if looks else Look(0, "continue", "too_few_days", _UNKNOWN, (), 0.0)
    seen = impact(declared.effect, last.goal)
    mismatched = np.flatnonzero(later >= -np.log(MISMATCH_ALPHA))
    if not is_as_frozen:
        return Outcome("invalid", "declaration_changed", last.day, seen, looks)
    if last.says != "invalid" and len(mismatched):
        day = len(evidence) + int(mismatched[0]) + 1
        return Outcome("invalid", "sample_ratio_mismatch", day, seen, looks)
    return Outcome(last.says, last.because, last.day, seen, looks)


def judged(
    declared: Declared,
    goal: Sequence,
    guardrails: Row[Sequence],
    evidence: Floats,
    *,
    is_as_frozen: bool = True,
) -> NDArray[np.str_]:
    """Return what each look says by itself, (..., T): of days from the first on."""
    because = reasons(declared, goal, guardrails, evidence, is_as_frozen=is_as_frozen)
    return _SAYS[np.searchsorted(_REASONS, because)]


def reasons(
    declared: Declared,
    goal: Sequence,
    guardrails: Row[Sequence],
    evidence: Floats,
    *,
    is_as_frozen: bool,
) -> NDArray[np.str_]:
    """Return why each look says what it says, (..., T): the first that holds, in this order."""
    day = np.broadcast_to(np.arange(1, evidence.shape[-1] + 1), evidence.shape)
    sign = 1.0 if declared.effect > 0.0 else -1.0
    low, high = (goal.low, goal.high) if sign > 0.0 else (-goal.high, -goal.low)
    broken, within = np.zeros(day.shape, np.bool_), np.ones(day.shape, np.bool_)
    for one, seen in zip(declared.guardrails, guardrails, strict=True):
        worst, best = (seen.high, seen.low) if WORSE[one.metric] > 0 else (-seen.low, -seen.high)
        broken |= best > one.margin
        within &= worst < one.margin
    mismatched = np.logical_or.accumulate(evidence >= -np.log(MISMATCH_ALPHA), axis=-1)
    found = [
        (np.full(day.shape, not is_as_frozen), "declaration_changed"),
        (mismatched, "sample_ratio_mismatch"),
        (broken, "guardrail_broken"),
        (day < declared.min_days, "too_few_days"),
        (high < abs(declared.effect), "goal_not_reached"),
        ((low > 0.0) & within, "goal_reached"),
        (day >= declared.max_days, "days_over"),
    ]
    return np.select([holds for holds, _ in found], [name for _, name in found], "not_sure")


def ended(says: NDArray[np.str_]) -> NDArray[np.str_]:
    """Return the verdict of looks (..., T): the first that is final, invalid before all."""
    final = (says != "continue") & (says != "invalid")
    first = np.take_along_axis(says, np.argmax(final, axis=-1)[..., None], axis=-1)[..., 0]
    invalid = (says == "invalid").any(axis=-1)
    return np.where(invalid, "invalid", np.where(final.any(axis=-1), first, "continue"))


def impact(intended: float, actual: Estimate) -> Impact:
    """Return the intended change beside what came."""
    low, high = actual.low, actual.high
    if intended < 0.0:
        low, high = -high, -low
    reached, short = low >= abs(intended), high < abs(intended)
    return Impact(intended, actual, True if reached else False if short else None)


def _estimate(told: Row[float | None]) -> Estimate:
    value, low, high = (
        unknown if end is None else float(end) for end, unknown in zip(told, _UNKNOWN, strict=True)
    )
    return Estimate(value, low, high)


def _known(number: float) -> float | None:
    return number if np.isfinite(number) else None


_UNKNOWN = Estimate(np.nan, -np.inf, np.inf)

_NAMES: dict[Because, Says] = {
    "declaration_changed": "invalid",
    "sample_ratio_mismatch": "invalid",
    "guardrail_broken": "stop",
    "goal_not_reached": "stop",
    "goal_reached": "ship",
    "days_over": "undecided",
    "too_few_days": "continue",
    "not_sure": "continue",
}
_REASONS = np.array(sorted(_NAMES))
_SAYS = np.array([_NAMES[name] for name in sorted(_NAMES)])


def _deciding(looks: Row[Look]) -> Look:
    """Return the look whose verdict stands; of an open one the last."""
    for says in (("invalid",), ("ship", "stop", "undecided")):
        for look in looks:
            if look.says in says:
                return look
    return looks[-1]


def _sequence(pair: Pair, effect: float, alpha: float) -> Sequence:
    tried, other = (Side(*(np.cumsum(sums, axis=0) for sums in side)) for side in pair)
    return difference(tried, other, effect=effect, alpha=alpha)


def _at(sequence: Sequence, place: int) -> Estimate:
    return Estimate(*(float(end[place]) for end in sequence[:3]))
