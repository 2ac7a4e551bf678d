"""Maps from a model's score to P(fraud), and the shift to another base rate.

A map is fitted once, at the base rate of its own data; `shift` then moves the odds to
the base rate that is served, and to the calendar's events. Each map has a scalar and a
vector form that agree to the last bit: only + - * / and comparisons are vectorised
(IEEE 754 rounds them the same everywhere); exp and log are not, so the maps that need
them loop over `math`.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

EDGE = 1e-6
"""A map's output is clipped to [EDGE, 1 - EDGE]: no finite evidence makes a payment certain."""


_TOP = 1.0 - EDGE


_UNIT = (0.0, 1.0)
_ANY = (-math.inf, math.inf)


class Calibration(Protocol):
    """A monotone map from score to probability. `domain`: the scores (low, high) it is for."""

    @property
    def domain(self) -> tuple[float, float]: ...  # noqa: D102 - named above

    def one(self, score: float) -> float:
        """Map one score."""

    def many(self, scores: Floats) -> Floats:
        """Map scores of shape (n,), float64, to the same bits as `one`."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The model's output is already calibrated. It is not clipped."""

    domain = _UNIT

    def one(self, score: float) -> float:
        """Return the score itself."""
        return score

    def many(self, scores: Floats) -> Floats:
        """Return the scores themselves."""
        return scores


class _Elementwise:
    __slots__ = ()
    domain = _UNIT

    def one(self, score: float) -> float:
        raise NotImplementedError

    def many(self, scores: Floats) -> Floats:
        """Map scores of shape (n,) one by one: `math.exp` and NumPy's differ in the last bit."""
        return np.array([self.one(score) for score in scores.tolist()], dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Platt(_Elementwise):
    """sigmoid(a·logit(score) + b). Platt (1999), on the log-odds of the score."""

    a: float
    b: float

    def one(self, score: float) -> float:
        """Map one score in 0..1."""
        s = _clip(score)
        return _clip(_sigmoid(self.a * math.log(s / (1.0 - s)) + self.b))


@dataclass(frozen=True, slots=True)
class Beta(_Elementwise):
    """sigmoid(a·ln s − b·ln(1−s) + c). Kull, Silva Filho and Flach (2017)."""

    a: float
    b: float
    c: float

    def one(self, score: float) -> float:
        """Map one score in 0..1."""
        s = _clip(score)
        return _clip(_sigmoid(self.a * math.log(s) - self.b * math.log(1.0 - s) + self.c))


@dataclass(frozen=True, slots=True)
class Logistic(_Elementwise):
    """sigmoid(a·score + b), of a score that need not lie in 0..1. Platt (1999), as he wrote it.

    a < 0 where a low score means fraud.
    """

    a: float
    b: float
    domain = _ANY

    def one(self, score: float) -> float:
        """Map one score."""
        return _clip(_sigmoid(self.a * score + self.b))


@dataclass(frozen=True, slots=True)
class Scaled:
    """A map behind (score − genuine) / (fraud − genuine): what a 0-100 score, or P(genuine), needs.

    A score in 0..1 that rounding took past its ends is put back.
    """

    inner: Calibration
    genuine: float
    fraud: float
    domain: tuple[float, float] = field(init=False, repr=False, compare=False)
    _bounded: bool = field(init=False, repr=False, compare=False)
    _width: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        low, high = sorted((self.genuine, self.fraud))
        bounded = self.inner.domain == _UNIT
        object.__setattr__(self, "domain", (low, high) if bounded else _ANY)
        object.__setattr__(self, "_bounded", bounded)
        object.__setattr__(self, "_width", self.fraud - self.genuine)

    def one(self, score: float) -> float:
        """Map one score."""
        s = (score - self.genuine) / self._width
        if self._bounded:
            s = 0.0 if s < 0.0 else 1.0 if s > 1.0 else s
        return self.inner.one(s)

    def many(self, scores: Floats) -> Floats:
        """Map scores of shape (n,)."""
        s = (scores - self.genuine) / self._width
        return self.inner.many(np.minimum(np.maximum(s, 0.0), 1.0) if self._bounded else s)


@dataclass(frozen=True, slots=True)
class Isotonic:
    """Linear between the points (x, y), level outside them. x rises strictly, y never falls."""

    x: tuple[float, ...]
    y: tuple[float, ...]
    domain: tuple[float, float] = field(init=False, repr=False, compare=False)
    _x: Floats = field(init=False, repr=False, compare=False)
    _y: Floats = field(init=False, repr=False, compare=False)
    _slope: Floats = field(init=False, repr=False, compare=False)
    _slopes: tuple[float, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y) or len(self.x) < 2:
            raise ValueError("an isotonic map needs x and y of the same length, at least 2")
        if any(b <= a for a, b in zip(self.x, self.x[1:], strict=False)):
            raise ValueError("an isotonic map's x must rise strictly")
        if any(b < a for a, b in zip(self.y, self.y[1:], strict=False)):
            raise ValueError("an isotonic map's y must not fall")
        if not (self.y[0] >= 0.0 and self.y[-1] <= 1.0):
            raise ValueError("an isotonic map's y must lie in 0..1")
        x, y = np.array(self.x, dtype=np.float64), np.array(self.y, dtype=np.float64)
        with np.errstate(over="ignore"):
            slope = np.append(np.diff(y) / np.diff(x), 0.0)
        if not np.isfinite(slope).all():
            raise ValueError("an isotonic map's x lie too close together")
        unit = self.x[0] >= 0.0 and self.x[-1] <= 1.0
        object.__setattr__(self, "domain", _UNIT if unit else _ANY)
        object.__setattr__(self, "_x", x)
        object.__setattr__(self, "_y", y)
        object.__setattr__(self, "_slope", slope)
        object.__setattr__(self, "_slopes", tuple(slope.tolist()))

    def one(self, score: float) -> float:
        """Map one score."""
        x = self.x
        s = x[0] if score < x[0] else x[-1] if score > x[-1] else score
        i = bisect_right(x, s) - 1
        return _clip(self._slopes[i] * (s - x[i]) + self.y[i])

    def many(self, scores: Floats) -> Floats:
        """Map scores of shape (n,)."""
        s = np.minimum(np.maximum(scores, self.x[0]), self.x[-1])
        i = np.searchsorted(self._x, s, side="right") - 1
        mapped = self._slope[i] * (s - self._x[i]) + self._y[i]
        return np.minimum(np.maximum(mapped, EDGE), _TOP)


def from_mapping(kind: str, parameters: Mapping[str, Any]) -> Calibration:
    """Build a map from the parameters of product.yaml or of a calibration JSON.

    Raises:
        ValueError: what is missing or makes no monotone map.
    """
    try:
        match kind:
            case "identity":
                return Identity()
            case "platt":
                return Platt(a=_slope(parameters, "a"), b=_number(parameters, "b"))
            case "beta":
                a, b = _slope(parameters, "a", floor=0.0), _slope(parameters, "b", floor=0.0)
                return Beta(a=a, b=b, c=_number(parameters, "c"))
            case "logistic":
                a = _number(parameters, "a")
                if a == 0.0:
                    raise ValueError("a is 0: every score would mean the same")
                return Logistic(a=a, b=_number(parameters, "b"))
            case "isotonic":
                return Isotonic(x=_numbers(parameters, "x"), y=_numbers(parameters, "y"))
    except KeyError as missing:
        raise ValueError(f"a {kind} map needs {missing}") from None
    raise ValueError(f"{kind!r} is no calibration map: identity, platt, isotonic, beta or logistic")


def shift(probability: float, odds_ratio: float) -> float:
    """Multiply the odds of one probability by `odds_ratio`.

    A base rate π moves to π' by the ratio [π'/(1−π')]·[(1−π)/π]; a log-odds shift d by e^d.
    """
    q = _clip(probability)
    return q * odds_ratio / (q * odds_ratio + (1.0 - q))


def shift_many(probabilities: Floats, odds_ratios: Floats | float) -> Floats:
    """`shift` for shape (n,), to the same bits."""
    q = np.minimum(np.maximum(probabilities, EDGE), _TOP)
    moved = q * odds_ratios
    shifted: Floats = moved / (moved + (1.0 - q))
    return shifted


def base_rate_odds_ratio(calibrated_at: float, serving: float) -> float:
    """Return the odds ratio between two base rates."""
    return (serving / (1.0 - serving)) * ((1.0 - calibrated_at) / calibrated_at)


def _clip(p: float) -> float:
    # Comparisons, not min and max: this runs for every payment.
    if p < EDGE:
        return EDGE
    return _TOP if p > _TOP else p


def _sigmoid(z: float) -> float:
    # Either branch keeps exp's argument negative: no overflow.
    if z >= 0.0:
        return 1.0 / (1.0 + math.exp(-z))
    e = math.exp(z)
    return e / (1.0 + e)


def _number(parameters: Mapping[str, Any], key: str) -> float:
    value = parameters[key]
    try:
        number = math.nan if isinstance(value, bool | str) else float(value)
    except (OverflowError, TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{key} must be a finite number")
    return number


def _slope(parameters: Mapping[str, Any], key: str, floor: float | None = None) -> float:
    value = _number(parameters, key)
    if (floor is None and value <= 0.0) or (floor is not None and value < floor):
        raise ValueError(f"{key} is {value}: the map would fall where the score rises")
    return value


def _numbers(parameters: Mapping[str, Any], key: str) -> tuple[float, ...]:
    values = parameters[key]
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise ValueError(f"{key} must be a list of numbers")
    return tuple(_number({key: value}, key) for value in values)
