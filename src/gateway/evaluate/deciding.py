"""What would decide a comparison of groups that is undecided, in numbers and in words. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import Any, Literal

from gateway.evaluate.intervals import CONFIDENCE, Share
from gateway.evaluate.measures import Measures
from gateway.evaluate.power import exploration_rate_for_ratio, further_for_ratio
from gateway.evaluate.rates import Ratio
from gateway.evaluate.ratios import Kind
from gateway.evaluate.support import LEAST, SupportedRatio

MOST = 0.99
"""What is explored beyond it would be no decline any more."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """How much more is needed.

    `until`: a "verdict", or a "figure", where too little is known to say what decides, and this is
    the least that says anything. `labels`: so many more of `label` of the group, while the
    reference's grow alike. `exploration`: the share of declines to let through, instead, by as
    much traffic; `explored`: the share so far. None where it does not help or cannot be said.
    """

    until: Literal["verdict", "figure"]
    labels: int | None
    label: str
    exploration: float | None = None
    explored: float | None = None
    because: str = ""

    def as_object(self) -> dict[str, Any]:
        """Return what JSON shows."""
        return {
            "needed_for": self.until,
            "more_labels_needed": self.labels,
            "labels_needed_of": self.label,
            "exploration_needed": self.exploration,
            "exploration_now": self.explored,
        }

    def says(self, group: str) -> str:
        """Return it in words."""
        ways = list(self._ways(group))
        if not ways:
            return self.because or "The data so far do not say how many more would decide it."
        if self.until == "figure":
            return f"At least {' or '.join(ways)} would let anything be said."
        return f"If it is what it seems, {', or '.join(ways)}, would decide it."

    def _ways(self, group: str) -> Iterator[str]:
        if self.labels is not None:
            yield f"about {_round(self.labels):,} more {self.label} of {group}"
        if self.exploration is not None:
            yield f"exploring {100 * self.exploration:.2g} % of declines"


def too_few(
    group: str, size: float, reference: str, other: float, least: int
) -> tuple[Wanted, str]:
    """Return what lets a comparison be judged, and in which group that is needed."""
    short, who = (least - size, group) if size < least else (least - other, reference)
    return Wanted("figure", ceil(short), "matured payments"), who


def wanted(
    kind: Kind,
    ratio: Ratio | SupportedRatio,
    one: Measures,
    other: Measures,
    *,
    limits: tuple[float, float],
    family: int,
) -> Wanted:
    """Return what decides a ratio of two groups' sums, of a family of so many comparisons.

    A ratio that seems to be a breach is held to the family (Bonferroni's share of the error); one
    that seems to pass is not.
    """
    if isinstance(ratio, SupportedRatio) and ratio.figure.value is None:
        return _to_be_said(kind, ratio, one, other)
    pair = _shares(ratio)
    if pair is None:
        return Wanted("verdict", None, kind.label)
    value = ratio.figure.value
    inside = value is None or limits[0] <= value <= limits[1]
    confidence = CONFIDENCE if inside else 1.0 - (1.0 - CONFIDENCE) / max(1, family)
    needed = further_for_ratio(*pair, kind.counted(one), limits=limits, confidence=confidence)
    labels = needed.further or None
    if not isinstance(ratio, SupportedRatio):
        return Wanted("verdict", labels, kind.label)
    now = _rate((one, other))
    rate = exploration_rate_for_ratio(
        ratio.one,
        ratio.other,
        now,
        (kind.counted(one), kind.counted(other)),
        limits=limits,
        confidence=confidence,
    )
    if rate is not None and not now < rate <= MOST:
        rate = None
    return Wanted("verdict", labels, kind.label, rate, now)


def _shares(ratio: Ratio | SupportedRatio) -> tuple[Share, Share] | None:
    if isinstance(ratio, Ratio):
        return ratio.one, ratio.other
    one, other = ratio.one.lowest, ratio.other.lowest
    return None if one is None or other is None else (one, other)


def _to_be_said(kind: Kind, ratio: SupportedRatio, one: Measures, other: Measures) -> Wanted:
    """Return what lets an explored figure be said of both groups: LEAST explored payments of each,
    by their effective number."""
    now = _rate((one, other))
    reason = ratio.figure.reason
    if reason not in ("too_few_explored", "not_reached"):
        return Wanted("figure", None, kind.label, None, now)
    rates: list[float] = []
    factors: list[float | None] = []
    for sums, side in ((one, ratio.one), (other, ratio.other)):
        reached, beyond = sums.total("declined_n"), sums.total("unreached_n")
        declines = reached + beyond + _explored(sums)
        if beyond and (reached or _explored(sums)):
            return Wanted("figure", None, kind.label, None, now, _OUT_OF_REACH)
        if not declines or side.effective >= LEAST:
            continue
        rates.append(
            _rate((sums,)) * LEAST / side.effective if side.effective else LEAST / declines
        )
        factors.append(LEAST / side.effective if side.effective else None)
    known = [factor for factor in factors if factor is not None]
    labels = None
    if known and len(known) == len(factors):
        labels = ceil(kind.counted(one) * (max(known) - 1.0)) or None
    rate = max(rates, default=None)
    because = ""
    if rate is not None and rate > MOST:
        rate, because = None, _TOO_FEW_DECLINES
    return Wanted("figure", labels, kind.label, rate, now, because)


_OUT_OF_REACH = (
    "Exploration does not reach all of their declines (it ends at its greatest amount): no number "
    "of labels decides it."
)
_TOO_FEW_DECLINES = "There are too few declines: exploring all of them would not say it."


def _explored(sums: Measures) -> float:
    return sums.total("explored_genuine") + sums.total("explored_fraud")


def _rate(groups: tuple[Measures, ...]) -> float:
    """Return the share that was let through, of what would have been declined."""
    let = sum(_explored(sums) for sums in groups)
    kept = sum(sums.total("declined_n") + sums.total("unreached_n") for sums in groups)
    return let / (let + kept) if let + kept else 0.0


def _round(n: int) -> int:
    """Return a number to two digits."""
    return round(n, 1 - floor(log10(n))) if n else 0
