"""What an evaluation's JSON says of hypotheses that were started, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.report.fields import WrongError, count_in, items, number_in, object_in, text_in


@dataclass(frozen=True, slots=True)
class Held:
    """A guardrail, and what came of it when the verdict fell. `at`: its JSON pointer.

    `is_kept`: within its margin for sure, or broken for sure; None: neither.
    """

    at: str
    metric: str
    unit: str
    margin: float
    value: float | None
    low: float | None
    high: float | None
    is_kept: bool | None


@dataclass(frozen=True, slots=True)
class Look:
    """What was known behind a mature day of a hypothesis."""

    at: str
    day: int
    says: str
    because: str
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Claim:
    """A hypothesis that was started. `error`: why it cannot be judged, and then nothing else.

    `arms`: what is compared with, and what is tried. `stopped`: empty while it runs.
    """

    at: str
    product: str
    id: str
    error: str
    claim: str = ""
    metric: str = ""
    unit: str = ""
    arms: tuple[str, ...] = ()
    stopped: str = ""
    verdict: str = ""
    because: str = ""
    says: str = ""
    day: int = 0
    intended: float = 0.0
    actual: float | None = None
    low: float | None = None
    high: float | None = None
    guardrails: tuple[Held, ...] = ()
    looks: tuple[Look, ...] = ()


def claim_in(one: Mapping[str, Any], at: str) -> Claim:
    """Return a hypothesis. Raises WrongError."""

    def text(name: str) -> str:
        return text_in(one.get(name), f"{at}/{name}")

    if one.get("error"):
        return Claim(at, text("product"), text("id"), text("error"))
    impact = object_in(one.get("impact"), f"{at}/impact")
    intended = number_in(impact.get("intended"), f"{at}/impact/intended")
    if intended is None:
        raise WrongError(f"{at}/impact/intended is no number")
    low, high = _pair(impact.get("interval"), f"{at}/impact/interval")
    return Claim(
        at,
        text("product"),
        text("id"),
        "",
        text("claim"),
        text("metric"),
        text("unit"),
        tuple(text_in(arm, f"{at}/arms") for arm in object_in(one.get("arms"), f"{at}/arms")),
        text_in(one.get("stopped") or "", f"{at}/stopped"),
        text("verdict"),
        text("because"),
        text("says"),
        count_in(one.get("day"), f"{at}/day"),
        intended,
        number_in(impact.get("actual"), f"{at}/impact/actual"),
        low,
        high,
        tuple(
            _held(object_in(held, f"{at}/guardrails/{i}"), f"{at}/guardrails/{i}")
            for i, held in items(one, "guardrails")
        ),
        tuple(
            _look(object_in(look, f"{at}/looks/{i}"), f"{at}/looks/{i}")
            for i, look in items(one, "looks")
        ),
    )


def _held(one: Mapping[str, Any], at: str) -> Held:
    margin = number_in(one.get("margin"), f"{at}/margin")
    if margin is None:
        raise WrongError(f"{at}/margin is no number")
    is_kept = one.get("is_kept")
    return Held(
        at,
        text_in(one.get("metric"), f"{at}/metric"),
        text_in(one.get("unit"), f"{at}/unit"),
        margin,
        number_in(one.get("value"), f"{at}/value"),
        *_pair(one.get("interval"), f"{at}/interval"),
        is_kept if isinstance(is_kept, bool) else None,
    )


def _look(one: Mapping[str, Any], at: str) -> Look:
    goal = one.get("goal")
    if not isinstance(goal, list) or len(goal) != 3:
        raise WrongError(f"{at}/goal is no value with its interval")
    value, low, high = (number_in(end, f"{at}/goal/{i}") for i, end in enumerate(goal))
    return Look(
        at,
        count_in(one.get("day"), f"{at}/day"),
        text_in(one.get("says"), f"{at}/says"),
        text_in(one.get("because"), f"{at}/because"),
        value,
        low,
        high,
    )


def _pair(found: Any, at: str) -> tuple[float | None, float | None]:
    if not isinstance(found, list) or len(found) != 2:
        raise WrongError(f"{at} is no pair")
    low, high = (number_in(end, f"{at}/{i}") for i, end in enumerate(found))
    return low, high
