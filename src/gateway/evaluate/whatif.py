"""What differs between two sides that were asked the same, and what that costs. Pure.

What was asked again is left out, decisions are counted, and money gets intervals: by the bootstrap
over subjects, both sides by the same draw.

Expected cost is told twice, by each side's own probabilities and prices. By NEW's own figures
NEW's choice is never the dearer one, but for exploration and overrides: that is how it chooses.
Where the model or its calibration differs, only labels tell which side is right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import NamedTuple

import numpy as np

from gateway.evaluate.bootstrap import (
    DRAWS,
    Interval,
    cluster_sums,
    drawn_sums,
    groups_of,
    interval,
)
from gateway.evaluate.replay import (
    ACTIONS,
    HIDDEN,
    LATE,
    NEW_EXPLORED,
    NEW_NEAR,
    NOT_REPRODUCED,
    OLD_EXPLORED,
    OLD_NEAR,
    Codes,
    Column,
    Flags,
    Floats,
    LabelledRows,
    Large,
    Ledger,
    Places,
    change_of,
)
from gateway.product import Action, StandIn

LARGEST = 10
"""Decisions that are named, of those that change the most money."""

SUPPORT_MIN = 50.0
"""With fewer effective labels among the decisions that differ there is no verdict on them."""


class Group(NamedTuple):
    """The decisions of one segment. Changes: minor units, of those that have a price."""

    name: str
    decisions: int
    flips: int
    milder: int
    severer: int
    change_by_new_minor: float
    change_by_old_minor: float


class Flip(NamedTuple):
    """The decisions that go from one action to another."""

    old: Action
    new: Action
    decisions: int
    change_by_new_minor: float
    change_by_old_minor: float


class Money(NamedTuple):
    """What both sides' decisions cost by one side's figures, in minor units.

    `decisions` have a price; `per_1000` is the change, with its interval; `total` its sum.
    """

    decisions: int
    old_per_1000_minor: float
    new_per_1000_minor: float
    per_1000: Interval
    total: Interval


class Realised(NamedTuple):
    """What labels say, of payments that were let through: minor units, by NEW's prices.

    `labelled`: decisions with a label; `seen`: of them, those whose label the recorded action let
    be seen; `explored` of these, let through by chance, each standing for 1 / propensity.
    `differing`: seen decisions that differ; `support`: their effective number. `hidden`: decisions
    that differ and whose recorded action hid the label.
    """

    labelled: int
    seen: int
    explored: int
    frauds: int
    differing: int
    support: float
    hidden: int
    by_new: Money
    by_old: Money

    @property
    def has_support(self) -> bool:
        """Whether enough labels stand behind it for a verdict."""
        return self.support >= SUPPORT_MIN


@dataclass(frozen=True, slots=True)
class Comparison:
    """What differs between two sides, over `decisions` payments, each counted once.

    `retries`: records left out because their payment was asked again. `late_under_new`: decisions
    that NEW's model or budget would have made stand-ins.
    """

    decisions: int
    retries: int
    subjects: int
    from_s: float
    to_s: float
    flips: tuple[Flip, ...]
    groups: Mapping[str, tuple[Group, ...]]
    cross: Mapping[tuple[Action, Action], tuple[int, ...]]
    old_actions: Mapping[Action, int]
    new_actions: Mapping[Action, int]
    old_near_ties: int
    new_near_ties: int
    near_tie_flips: int
    old_explored: int
    new_explored: int
    not_reproduced: int
    stand_ins: Mapping[StandIn, int]
    stand_in_flips: int
    new_model_errors: int
    late_under_new: int
    by_new: Money
    by_old: Money
    realised: Realised | None
    largest: tuple[Large, ...]

    @property
    def flipped(self) -> int:
        """How many decisions differ."""
        return sum(flip.decisions for flip in self.flips)

    def share(self, side: Mapping[Action, int], action: Action) -> float:
        """Return the share of one action in a side's answers."""
        return side.get(action, 0) / self.decisions if self.decisions else nan


def compared(
    ledger: Ledger,
    names: Mapping[str, Sequence[str]],
    band_names: Sequence[str],
    chance: np.random.Generator,
    draws: int = DRAWS,
) -> Comparison:
    """Compare the two sides of a ledger. `names`: of each segment's codes."""
    if not ledger.rows:
        raise ValueError("a ledger without a row compares nothing")
    kept = _last_in_time(ledger)

    def column(name: str) -> Column:
        return ledger.column(name)[kept]

    old, new = column("old"), column("new")
    flips = old != new
    by_new, by_old = _floats(column("by_new")), _floats(column("by_old"))
    marks, why = _marks(ledger, kept), column("stand_in")
    arrived_s, band = _floats(column("arrived_s")), column("band")
    subject = np.unique(column("subject"), return_inverse=True)[1].astype(np.int64)
    group, groups = groups_of(subject, chance)
    draw = _Draw(group, groups, chance, draws)
    segments = {name: (column(f"segment {name}"), names[name]) for name in ledger.segments}
    segments["amount"] = (band, band_names)
    pairs = [(x, y) for x in ACTIONS for y in ACTIONS if x != y]
    pair_flips = {pair: flips & (old == pair[0]) & (new == pair[1]) for pair in pairs}
    return Comparison(
        decisions=len(old),
        retries=ledger.rows - len(old),
        subjects=int(subject.max()) + 1,
        from_s=float(arrived_s.min()),
        to_s=float(arrived_s.max()),
        flips=tuple(
            Flip(*pair, int(of.sum()), _sum(by_new[of]), _sum(by_old[of]))
            for pair, of in pair_flips.items()
            if of.any()
        ),
        groups={
            name: _groups(codes, known, old, new, by_new, by_old)
            for name, (codes, known) in segments.items()
        },
        cross={
            pair: tuple(np.bincount(band[of], minlength=len(band_names)).tolist())
            for pair, of in pair_flips.items()
            if of.any()
        },
        old_actions=_counts(old),
        new_actions=_counts(new),
        old_near_ties=int((marks & OLD_NEAR > 0).sum()),
        new_near_ties=int((marks & NEW_NEAR > 0).sum()),
        near_tie_flips=int((flips & (marks & (OLD_NEAR | NEW_NEAR) > 0)).sum()),
        old_explored=int((marks & OLD_EXPLORED > 0).sum()),
        new_explored=int((marks & NEW_EXPLORED > 0).sum()),
        not_reproduced=int((marks & NOT_REPRODUCED > 0).sum()),
        stand_ins={
            StandIn(reason): int((why == reason).sum())
            for reason in StandIn
            if reason and (why == reason).any()
        },
        stand_in_flips=int((flips & (why > 0)).sum()),
        new_model_errors=int(((why == 0) & (column("new_stand_in") > 0)).sum()),
        late_under_new=int((marks & LATE > 0).sum()),
        by_new=_money(_floats(column("by_new_old")), by_new, draw),
        by_old=_money(_floats(column("by_old_old")), by_old, draw),
        realised=_realised(ledger, kept, flips, draw),
        largest=_largest(ledger, kept),
    )


class _Draw(NamedTuple):
    """How clusters are drawn: the group of each row, how many there are, and the chance."""

    group: Places
    groups: int
    chance: np.random.Generator
    draws: int


def _last_in_time(ledger: Ledger) -> Flags:
    """Return the rows that count: of each transaction the last that was in time, or the last."""
    key = ledger.column("transaction")
    order = np.lexsort((ledger.column("arrived_s"), ledger.column("in_time"), key))
    ordered = key[order]
    is_last = np.append(ordered[1:] != ordered[:-1], True)
    kept = np.zeros(ledger.rows, dtype=np.bool_)
    kept[order[is_last]] = True
    return kept


def _floats(column: Column) -> Floats:
    return column.astype(np.float64)


def _sum(values: Floats) -> float:
    return float(np.nansum(values))


def _counts(actions: Column) -> dict[Action, int]:
    counted = np.bincount(actions.astype(np.int64), minlength=len(ACTIONS) + 1)
    return {action: int(counted[action]) for action in ACTIONS if counted[action]}


def _groups(
    codes: Column,
    names: Sequence[str],
    old: Column,
    new: Column,
    by_new: Floats,
    by_old: Floats,
) -> tuple[Group, ...]:
    place = codes.astype(np.int64)

    def count(weights: Column | None = None) -> Floats:
        return np.bincount(place, weights=weights, minlength=len(names)).astype(np.float64)

    decisions, milder, severer = count(), count(new < old), count(new > old)
    changes = count(np.nan_to_num(by_new)), count(np.nan_to_num(by_old))
    return tuple(
        Group(
            name,
            int(decisions[i]),
            int(milder[i] + severer[i]),
            int(milder[i]),
            int(severer[i]),
            float(changes[0][i]),
            float(changes[1][i]),
        )
        for i, name in enumerate(names)
        if decisions[i]
    )


def _money(
    before: Floats,
    change: Floats,
    draw: _Draw,
    weight: Floats | None = None,
    of: Places | None = None,
) -> Money:
    """Sum up a cost and its change. `of`: the kept rows that these are; NaN has no price."""
    group = draw.group if of is None else draw.group[of]
    priced = ~np.isnan(change) & ~np.isnan(before)
    w = np.ones(len(change)) if weight is None else weight
    w, before, change, group = w[priced], before[priced], change[priced], group[priced]
    count, total = float(w.sum()), float((change * w).sum())
    none = Interval(nan, nan, nan, nan)
    if not len(change):
        return Money(0, nan, nan, none, none)
    base = float((before * w).sum()) / count * 1000.0
    if not change.any():
        # No draw of nothing is anything.
        nought = Interval(0.0, 0.0, 0.0, 0.0)
        return Money(len(change), base, base, nought, nought)
    sums = cluster_sums(np.column_stack((change * w, w)), group, draw.groups)
    drawn = np.concatenate(list(drawn_sums(sums, draw.chance, draw.draws)))
    with np.errstate(invalid="ignore", divide="ignore"):
        per_1000 = drawn[:, 0] / drawn[:, 1] * 1000.0
    value = total / count * 1000.0
    return Money(
        len(change),
        base,
        base + value,
        interval(value, per_1000),
        interval(total, drawn[:, 0]),
    )


def _realised(ledger: Ledger, kept: Flags, flips: Flags, draw: _Draw) -> Realised | None:
    if ledger.labels is None:
        return None
    parts = LabelledRows._make(map(np.concatenate, zip(*ledger.labelled, strict=True)))
    rows = np.flatnonzero(kept[parts.row])
    own = LabelledRows._make(column[rows] for column in parts)
    place = (np.cumsum(kept) - 1)[own.row]
    differing = flips[place]
    labelled = ledger.column("labelled")[kept].astype(np.bool_)
    seen = np.zeros(len(flips), dtype=np.bool_)
    seen[place] = True
    w = own.weight[differing]
    return Realised(
        labelled=int(labelled.sum()),
        seen=len(place),
        explored=int((own.weight > 1.0).sum()),
        frauds=int(own.is_fraud.sum()),
        differing=int(differing.sum()),
        support=float(w.sum() ** 2 / (w**2).sum()) if len(w) else 0.0,
        hidden=int((flips & ~seen & (_marks(ledger, kept) & HIDDEN > 0)).sum()),
        by_new=_money(
            own.old_by_new,
            change_of(own.old_by_new, own.new_by_new, differing),
            draw,
            own.weight,
            place,
        ),
        by_old=_money(
            own.old_by_old,
            change_of(own.old_by_old, own.new_by_old, differing),
            draw,
            own.weight,
            place,
        ),
    )


def _marks(ledger: Ledger, kept: Flags) -> Codes:
    return ledger.column("marks")[kept].astype(np.uint8)


def _largest(ledger: Ledger, kept: Flags) -> tuple[Large, ...]:
    there = [one for one in ledger.large if kept[one.row]]
    there.sort(key=lambda one: (-abs(float(np.nan_to_num(one.change_minor))), one.row))
    return tuple(there[:LARGEST])
