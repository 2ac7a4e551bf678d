"""Groups of customers against a reference: who is declined more often, of those who are genuine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from gateway.evaluate.engine import GROUPS, Days
from gateway.evaluate.entry import Entry
from gateway.evaluate.intervals import Figure
from gateway.evaluate.measures import NOTHING, Measures
from gateway.evaluate.metrics import Told, false_positive_ratio
from gateway.evaluate.rates import pooled_design_effect, rate, rate_ratio
from gateway.evaluate.sums import Counts
from gateway.evaluate.verdicts import parities
from gateway.evaluate.view import EVER, View
from gateway.product import Fairness


class Pair(NamedTuple):
    """A group of customers and the one it is compared with: what they are called, and sums."""

    attribute: str
    group: str
    reference: str
    mine: Measures
    theirs: Measures

    @property
    def by(self) -> dict[str, str]:
        """What an entry says of whom it is about."""
        return {self.attribute: self.group, "reference": self.reference}


def fairness(view: View, calibrated: bool) -> Iterator[Entry]:
    """Yield each declared attribute's groups against its reference."""
    declared = view.terms.product.fairness
    if declared is None:
        return
    days = (EVER, view.last_mature)
    pairs = tuple(_pairs(declared, view.sums(days, "group", GROUPS)))
    for basis in ("explored", "model_implied", "bounds"):
        yield from _false_positives(view, declared, pairs, basis, days, calibrated)
    yield from _beside(view, pairs, days)


def _pairs(declared: Fairness, groups: Mapping[str, Measures]) -> Iterator[Pair]:
    for attribute, about in declared.attributes.items():
        reference, begin = about.reference, f"{attribute}="
        theirs = groups.get(begin + reference, NOTHING)
        for name, mine in groups.items():
            if name.startswith(begin) and name != begin + reference:
                yield Pair(attribute, name.removeprefix(begin), reference, mine, theirs)


def _false_positives(
    view: View,
    declared: Fairness,
    pairs: Sequence[Pair],
    basis: str,
    days: Days,
    calibrated: bool,
) -> Iterator[Entry]:
    """Yield how often genuine payments are declined, in one form: all pairs are one family."""
    low, high = declared.limit
    ratios = [
        false_positive_ratio(one.mine, one.theirs, basis, calibrated=calibrated) for one in pairs
    ]
    verdicts = parities(ratios, limits=(low, high), least_n=declared.min_n)
    gates = basis == "explored" and declared.gate == "false_positive_rate_ratio"
    for one, ratio, verdict in zip(pairs, ratios, verdicts, strict=True):
        yield view.entry(
            "false_positive_rate_ratio",
            Told(basis, ratio.figure, "ratio"),
            days,
            f"How many times as often a genuine payment of {one.group} is declined as one of "
            f"{one.reference}.",
            by=one.by,
            target=f"{low:g} to {high:g}",
            verdict=verdict.says if gates else "",
            because=verdict.because,
            more={
                "gates": gates,
                "p": verdict.p,
                "p_adjusted": verdict.p_adjusted,
                **_sides(ratio.one.figure, ratio.other.figure),
            },
        )


def _beside(view: View, pairs: Sequence[Pair], days: Days) -> Iterator[Entry]:
    """Yield the ratios that stand beside: no label is needed for them."""
    for metric, says, counts_of in BESIDE:
        for one in pairs:
            mine, theirs = counts_of(one.mine), counts_of(one.theirs)
            like = pooled_design_effect(
                Counts(np.stack([mine.k, theirs.k]), np.stack([mine.n, theirs.n]))
            )
            yield view.entry(
                metric,
                Told("all", rate_ratio(mine, theirs, like=like).figure, "ratio"),
                days,
                says.format(group=one.group, reference=one.reference),
                by=one.by,
                more=_sides(rate(mine, like=like), rate(theirs, like=like)),
            )


def _sides(mine: Figure, theirs: Figure) -> dict[str, Any]:
    """Return the rates that a ratio is made of, as JSON shows them."""
    return {
        name: {
            "value": one.value,
            "interval": [one.low, one.high],
            "n": one.n,
            "events": one.events,
            "because": one.reason,
        }
        for name, one in (("rate", mine), ("reference_rate", theirs))
    }


BESIDE: tuple[tuple[str, str, Callable[[Measures], Counts]], ...] = (
    (
        "approval_rate_ratio",
        "Share of {group}'s payments that went through over that of {reference}; below 0.8 the "
        "four-fifths rule of thumb would ask why.",
        lambda sums: Counts(sums["passed"], sums["n"]),
    ),
    (
        "decline_rate_ratio",
        "How many times as often a payment of {group} is declined as one of {reference}, frauds "
        "among them.",
        lambda sums: Counts(sums["declined"], sums["n"]),
    ),
    (
        "step_up_rate_ratio",
        "How many times as often {group} is asked for proof as {reference}.",
        lambda sums: Counts(sums["stepped_up"], sums["n"]),
    ),
)
