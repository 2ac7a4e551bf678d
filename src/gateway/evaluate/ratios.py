"""The ratios by which a group of customers is compared with a reference. Pure.

Decisions are taken as they were served, stand-ins and step-ups among them. Positive means declined:

    false_positive_rate_ratio  P(declined | genuine): who bears the false alarms
    true_positive_rate_ratio   P(declined | fraud): whom the product protects
    approval_rate_ratio        went through, of all: the four-fifths screen
    observed_expected_ratio    frauds that came over frauds expected: whom the model misjudges
    decline_rate_ratio         declined, of all
    step_up_rate_ratio         asked for proof, of all

The first two are about what declines hide, so each is told in three forms (`support`), of which
only the explored one decides. The intervals are the score's (Miettinen and Nurminen 1985), of what
both shares are worth (`rates`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from gateway.evaluate.intervals import Figure
from gateway.evaluate.measures import Measures
from gateway.evaluate.metrics import share
from gateway.evaluate.probabilities import over_expected
from gateway.evaluate.rates import Ratio, expected_ratio, pooled_design_effect, rate_ratio
from gateway.evaluate.sums import Amounts, Counts, SupportSums
from gateway.evaluate.support import (
    Supported,
    SupportedRatio,
    Target,
    bounds,
    explored,
    model_implied,
    supported_ratio,
)

FORMS = ("explored", "model_implied", "bounds")
"""Of what declines hide; the first decides."""

OF_FORM = {
    "explored": "By what exploration let through",
    "model_implied": "By the model's own probabilities",
    "bounds": "Whatever the declined were",
}


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of ratio.

    `bases`: what it is told by, the deciding one first. `says`: which error it means for whom, with
    {group} and {reference}. `labels`: the sums that count what further of would narrow it, and
    `label` what these are, in words. `side`: a group's own figure, where no
    ratio holds it.
    """

    bases: tuple[str, ...]
    says: str
    labels: tuple[str, ...]
    label: str
    make: Callable[[Measures, Measures, str, bool], Ratio | SupportedRatio]
    side: Callable[[Measures], Figure] | None = None

    def counted(self, sums: Measures) -> float:
        """Return how many labels (or decisions) the ratio rests on."""
        return sum(sums.total(name) for name in self.labels)


def _of_declines(
    target: Target,
) -> Callable[[Measures, Measures, str, bool], SupportedRatio]:
    def form(sums: SupportSums, basis: str, calibrated: bool) -> Supported:
        if basis == "explored":
            return explored(sums, target)
        if basis == "bounds":
            return bounds(sums, target)
        return model_implied(sums, target, calibrated=calibrated)

    def made(one: Measures, other: Measures, basis: str, calibrated: bool) -> SupportedRatio:
        mine, theirs = (form(sums.support, basis, calibrated) for sums in (one, other))
        return supported_ratio(mine, theirs)

    return made


def _of_all(events: str) -> Callable[[Measures, Measures, str, bool], Ratio]:
    def made(one: Measures, other: Measures, _: str, __: bool) -> Ratio:
        mine, theirs = (Counts(sums[events], sums["n"]) for sums in (one, other))
        like = pooled_design_effect(_stacked(mine, theirs))
        return rate_ratio(mine, theirs, like=like)

    return made


def _side(events: str) -> Callable[[Measures], Figure]:
    return lambda sums: share(sums[events], sums["n"])


def _stacked(one: Counts, other: Counts) -> Counts:
    return Counts(np.stack([one.k, other.k]), np.stack([one.n, other.n]))


def _of_expected(one: Measures, other: Measures, _: str, __: bool) -> Ratio:
    mine, theirs = (Amounts(sums["observed"], sums["expected"]) for sums in (one, other))
    return expected_ratio(mine, theirs)


KINDS: Mapping[str, Kind] = {
    "false_positive_rate_ratio": Kind(
        FORMS,
        "how many times as often a genuine payment of {group} is declined as one of {reference}. "
        "Above 1, honest customers of {group} are turned away in error more often.",
        ("passed_genuine", "explored_genuine"),
        "matured genuine payments",
        _of_declines("false_positive_rate"),
    ),
    "true_positive_rate_ratio": Kind(
        FORMS,
        "how many times as often a fraud on {group} is declined as one on {reference}. Below 1, "
        "frauds on {group} are missed more often: its customers are protected less.",
        ("passed_fraud", "explored_fraud"),
        "matured frauds",
        _of_declines("true_positive_rate"),
    ),
    "approval_rate_ratio": Kind(
        ("all",),
        "Share of {group}'s payments that went through over that of {reference}; below 0.8 the "
        "four-fifths rule of thumb would ask why. It does not tell a genuine payment of {group} "
        "that was stopped in error from a fraud that was stopped rightly, and hardly moves where "
        "nearly all is approved.",
        ("n",),
        "matured payments",
        _of_all("passed"),
        _side("passed"),
    ),
    "observed_expected_ratio": Kind(
        ("mature",),
        "Frauds over expected frauds of {group}, over the same of {reference}. Above 1, the model "
        "believes too little of {group}'s frauds, and more of them are missed; below 1, it "
        "believes too much, and genuine payments of {group} are suspected in error.",
        ("foreseen",),
        "matured payments",
        _of_expected,
        over_expected,
    ),
    "decline_rate_ratio": Kind(
        ("all",),
        "How many times as often a payment of {group} is declined as one of {reference}, frauds "
        "among them: not an error by itself, for {group} may be defrauded more often.",
        ("n",),
        "matured payments",
        _of_all("declined"),
        _side("declined"),
    ),
    "step_up_rate_ratio": Kind(
        ("all",),
        "How many times as often {group} is asked for proof as {reference}: above 1, customers of "
        "{group} are held up more often, the honest ones for nothing.",
        ("n",),
        "matured payments",
        _of_all("stepped_up"),
        _side("stepped_up"),
    ),
}
