"""Groups of customers against a reference: who is declined in error, whom fraud is not kept from.

One ratio of `ratios` is the product's gate: its deciding form has a verdict for each group, breach
by Holm's correction over all groups of all attributes. Intersections of two attributes are told
beside it, by Benjamini and Hochberg's, and never gate. No verdict is a legal one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from gateway.evaluate.deciding import Wanted, too_few, wanted
from gateway.evaluate.engine import GROUPS, Days
from gateway.evaluate.entry import Entry
from gateway.evaluate.intervals import Figure
from gateway.evaluate.measures import NOTHING, Measures
from gateway.evaluate.members import UNKNOWN, Member, alone, crossed, named, values
from gateway.evaluate.metrics import Told, share
from gateway.evaluate.probabilities import over_expected, strays
from gateway.evaluate.rates import Ratio
from gateway.evaluate.ratios import KINDS, OF_FORM
from gateway.evaluate.support import SupportedRatio
from gateway.evaluate.verdicts import Correction, Parity, parities
from gateway.evaluate.view import EVER, View
from gateway.product.promises import Fairness


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """What all comparisons of a product share. `calibrated`: its model's belief may be shown."""

    view: View
    declared: Fairness
    days: Days
    calibrated: bool


class Row(NamedTuple):
    """A group's ratio of a metric, on a basis."""

    metric: str
    basis: str
    member: Member
    ratio: Ratio | SupportedRatio


def fairness(view: View, calibrated: bool) -> Iterator[Entry]:
    """Yield the declared attributes' groups and intersections against their references.

    `calibrated`: the model's own belief may be shown.
    """
    declared = view.terms.product.fairness
    if declared is None:
        return
    frame = Frame(view, declared, (EVER, view.last_mature), calibrated)
    groups = view.sums(frame.days, "group", GROUPS)
    yield from known(frame, groups)
    yield from compared(frame, list(alone(declared, groups)))
    yield from calibration_within(frame, groups)
    yield from intersections(frame, list(crossed(declared, groups)))


def known(frame: Frame, groups: Mapping[str, Measures]) -> Iterator[Entry]:
    """Yield of each attribute, of how many payments it is known."""
    for attribute in frame.declared.attributes:
        ours = values(groups, attribute)
        if not ours:
            continue
        n = np.sum([sums["n"] for sums in ours.values()], axis=0)
        unknown = ours.get(UNKNOWN, NOTHING)["n"]
        yield frame.view.entry(
            "attribute_known",
            Told("all", share(n - unknown, n)),
            frame.days,
            f"Of matured payments, the share whose customer's {attribute} is known; the others are "
            f"a group of their own, {UNKNOWN}: who is wronged among them shows in no other group.",
            by={"attribute": attribute},
            more={"gates": False},
        )


def compared(frame: Frame, members: Sequence[Member]) -> Iterator[Entry]:
    """Yield each ratio on each basis, the gate's first; with verdicts where it gates."""
    for metric in _gate_first(frame.declared):
        for basis in KINDS[metric].bases:
            rows = [_row(frame, metric, basis, member) for member in members]
            if metric == frame.declared.gate and basis == KINDS[metric].bases[0]:
                yield from _judged(frame, rows, "holm", gates=True)
            else:
                yield from (_told(frame, row) for row in rows)


def calibration_within(frame: Frame, groups: Mapping[str, Measures]) -> Iterator[Entry]:
    """Yield frauds over expected frauds of each group, the reference among them."""
    for attribute in frame.declared.attributes:
        for value, sums in values(groups, attribute).items():
            name = named(attribute, value)
            yield frame.view.entry(
                "observed_over_expected",
                Told("mature", over_expected(sums), "ratio"),
                frame.days,
                f"Frauds on {name} that came over frauds that were expected: above 1 the model "
                f"believes too little, and misses frauds on {name}; below 1 too much, and genuine "
                f"payments of {name} are suspected in error.",
                by={attribute: value},
                more={"gates": False},
            )


def intersections(frame: Frame, cells: Sequence[Member]) -> Iterator[Entry]:
    """Yield each ratio in its deciding form; of small cells the gate's alone, undecided."""
    for metric in _gate_first(frame.declared):
        basis = KINDS[metric].bases[0]
        if metric == frame.declared.gate:
            rows = [_row(frame, metric, basis, cell) for cell in cells]
            yield from _judged(frame, rows, "fdr_bh", gates=False)
            continue
        for cell in cells:
            if _size(cell) >= frame.declared.min_n:
                yield _told(frame, _row(frame, metric, basis, cell))


def _gate_first(declared: Fairness) -> Iterator[str]:
    yield declared.gate
    yield from (metric for metric in KINDS if metric != declared.gate)


def _row(frame: Frame, metric: str, basis: str, member: Member) -> Row:
    # What a group's own labels speak against is not implied by the model, whatever it is over all.
    implied = frame.calibrated and not (strays(member.sums) or strays(member.theirs))
    ratio = KINDS[metric].make(member.sums, member.theirs, basis, implied)
    return Row(metric, basis, member, ratio)


def _size(member: Member) -> float:
    return min(member.n, member.reference_n)


def _told(frame: Frame, row: Row, needs: str = "", **more: Any) -> Entry:
    says = KINDS[row.metric].says.format(group=row.member.name, reference=row.member.reference)
    if row.basis in OF_FORM:
        says = f"{OF_FORM[row.basis]}, {says}"
    return frame.view.entry(
        row.metric,
        Told(row.basis, row.ratio.figure, "ratio"),
        frame.days,
        f"{says} {needs}".strip(),
        by={**row.member.by, "reference": row.member.reference},
        **{**more, "more": {**_sides(row), **more.get("more", {"gates": False})}},
    )


def _figures(row: Row) -> tuple[Figure, Figure]:
    if isinstance(row.ratio, SupportedRatio):
        return row.ratio.one.figure, row.ratio.other.figure
    side = KINDS[row.metric].side
    assert side is not None
    return side(row.member.sums), side(row.member.theirs)


def _sides(row: Row) -> dict[str, Any]:
    """Return the figures that a ratio is made of, as JSON shows them."""
    sides = zip(("rate", "reference_rate"), _figures(row), strict=True)
    return {
        name: {
            "value": one.value,
            "interval": [one.low, one.high],
            "n": one.n,
            "events": one.events,
            "because": one.reason,
        }
        for name, one in sides
    }


def _judged(
    frame: Frame, rows: Sequence[Row], correction: Correction, *, gates: bool
) -> Iterator[Entry]:
    """Yield ratios with their verdicts, and what would decide the undecided."""
    low, high = frame.declared.limit
    verdicts = parities(
        [row.ratio for row in rows],
        limits=(low, high),
        least_n=frame.declared.min_n,
        sizes=[_size(row.member) for row in rows],
        correction=correction,
    )
    family = sum(verdict.p is not None for verdict in verdicts)
    for row, verdict in zip(rows, verdicts, strict=True):
        more = {"gates": gates, "p": verdict.p, "p_adjusted": verdict.p_adjusted}
        needs = ""
        if verdict.says == "undecided":
            needed, who = _needed(frame.declared, row, verdict, family)
            more |= needed.as_object()
            needs = needed.says(who)
        yield _told(
            frame,
            row,
            needs,
            target=f"{low:g} to {high:g}",
            verdict=verdict.says,
            because=verdict.because,
            more=more,
        )


def _needed(declared: Fairness, row: Row, verdict: Parity, family: int) -> tuple[Wanted, str]:
    """Return what would decide a ratio, and of whom that is."""
    one = row.member
    if verdict.because == "too_few":
        return too_few(one.name, one.n, one.reference, one.reference_n, declared.min_n)
    kind = KINDS[row.metric]
    needed = wanted(kind, row.ratio, one.sums, one.theirs, limits=declared.limit, family=family)
    return needed, one.name
