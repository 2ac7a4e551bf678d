"""Groups of customers against a reference: who is declined more often, of those who are genuine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from gateway.evaluate.engine import GROUPS, Days
from gateway.evaluate.entry import Entry
from gateway.evaluate.measures import NOTHING, Measures
from gateway.evaluate.metrics import Told, false_positive_ratio
from gateway.evaluate.rates import pooled_design_effect, rate_ratio
from gateway.evaluate.sums import Counts
from gateway.evaluate.verdicts import parities
from gateway.evaluate.view import EVER, View


def fairness(view: View, calibrated: bool) -> Iterator[Entry]:
    """Yield each declared attribute's groups against its reference."""
    declared = view.terms.product.fairness
    if declared is None:
        return
    days = (EVER, view.last_mature)
    groups = view.sums(days, "group", GROUPS)
    for attribute, about in declared.attributes.items():
        ours = {
            name.removeprefix(f"{attribute}="): sums
            for name, sums in groups.items()
            if name.startswith(f"{attribute}=")
        }
        yield from _attribute(view, ours, attribute, about.reference, days, calibrated)


def _attribute(
    view: View,
    groups: Mapping[str, Measures],
    attribute: str,
    reference: str,
    days: Days,
    calibrated: bool,
) -> Iterator[Entry]:
    """Yield one attribute: false positives in three forms, then the ratios beside them."""
    declared = view.terms.product.fairness
    assert declared is not None
    low, high = declared.limit
    theirs = groups.get(reference, NOTHING)
    others = {name: sums for name, sums in groups.items() if name != reference}
    for basis in ("explored", "model_implied", "bounds"):
        ratios = [
            false_positive_ratio(sums, theirs, basis, calibrated=calibrated)
            for sums in others.values()
        ]
        verdicts = parities(ratios, limits=(low, high), least_n=declared.min_n)
        gates = basis == "explored" and declared.gate == "false_positive_rate_ratio"
        for name, ratio, verdict in zip(others, ratios, verdicts, strict=True):
            yield view.entry(
                "false_positive_rate_ratio",
                Told(basis, ratio.figure, "ratio"),
                days,
                f"How many times as often a genuine payment of {name} is declined as one of "
                f"{reference}.",
                by={attribute: name, "reference": reference},
                target=f"{low:g} to {high:g}",
                verdict=verdict.says if gates else "",
                because=verdict.because,
                more={"gates": gates, "p": verdict.p, "p_adjusted": verdict.p_adjusted},
            )
    for metric, says, counts_of in BESIDE:
        base = counts_of(theirs)
        for name, sums in others.items():
            mine = counts_of(sums)
            like = pooled_design_effect(
                Counts(np.stack([mine.k, base.k]), np.stack([mine.n, base.n]))
            )
            yield view.entry(
                metric,
                Told("all", rate_ratio(mine, base, like=like).figure, "ratio"),
                days,
                says.format(group=name, reference=reference),
                by={attribute: name, "reference": reference},
            )


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
