"""What differs between two sides that were asked the same, and what that costs. Pure.

What was asked again is left out, decisions are counted, and money gets intervals: by the bootstrap
over subjects, both sides by the same draw.

Expected cost is told twice, by each side's own probabilities and prices. By NEW's own figures
NEW's choice is never the dearer one, but for exploration and overrides: that is how it chooses.
Where the model or its calibration differs, only labels tell which side is right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.evaluate.bootstrap import (
    DRAWS,
    Interval,
    cluster_sums,
    drawn_sums,
    groups_of,
    interval,
)
from gateway.evaluate.ledger import (
    HIDDEN,
    LATE,
    NEW_EXPLORED,
    NEW_NEAR,
    NOT_REPRODUCED,
    OLD_EXPLORED,
    OLD_NEAR,
    TICK_S,
    Kept,
    LabelledRows,
    Large,
    Ledger,
)
from gateway.evaluate.replay import ACTIONS, Flags, Floats, Places
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
    clusters = _Clusters.of(ledger, chance)
    named = {name: names[name] for name in ledger.segments} | {"amount": band_names}
    tally = _Tally(named, clusters)
    for part in ledger.parts:
        tally.add(part, kept[part.first : part.first + len(part)])
    draw = _Draw(chance, draws)
    counted = tally.counted
    return Comparison(
        decisions=tally.decisions,
        retries=ledger.rows - tally.decisions,
        subjects=clusters.subjects,
        from_s=ledger.epoch_s + TICK_S * tally.arrived[0],
        to_s=ledger.epoch_s + TICK_S * tally.arrived[1],
        flips=tuple(
            Flip(*pair, int(tally.cross[pair].sum()), *tally.pair_changes[pair].tolist())
            for pair in sorted(tally.cross)
        ),
        groups={name: _groups(tally.groups[name], own) for name, own in named.items()},
        cross={pair: tuple(counts.tolist()) for pair, counts in sorted(tally.cross.items())},
        old_actions=_by_action(tally.actions[0]),
        new_actions=_by_action(tally.actions[1]),
        old_near_ties=counted["old near"],
        new_near_ties=counted["new near"],
        near_tie_flips=counted["near flips"],
        old_explored=counted["old explored"],
        new_explored=counted["new explored"],
        not_reproduced=counted["not reproduced"],
        stand_ins={
            reason: int(tally.stand_ins[reason])
            for reason in StandIn
            if reason and tally.stand_ins[reason]
        },
        stand_in_flips=counted["stand-in flips"],
        new_model_errors=counted["model errors"],
        late_under_new=counted["late"],
        by_new=_money(tally.by_new, draw),
        by_old=_money(tally.by_old, draw),
        realised=_realised(ledger, kept, clusters, counted["hidden flips"], draw),
        largest=_largest(ledger, kept),
    )


class _Draw(NamedTuple):
    """How often clusters are drawn, and by what chance."""

    chance: np.random.Generator
    draws: int


@dataclass(frozen=True, slots=True)
class _Clusters:
    """Subjects, each with the group that it is drawn with."""

    ids: NDArray[np.uint32]
    group: Places
    groups: int

    @classmethod
    def of(cls, ledger: Ledger, chance: np.random.Generator) -> _Clusters:
        ids = np.unique(np.concatenate([np.unique(part.subject) for part in ledger.parts]))
        group, groups = groups_of(np.arange(len(ids)), chance)
        return cls(ids, group, groups)

    @property
    def subjects(self) -> int:
        """How many there are."""
        return len(self.ids)

    def group_of(self, subject: NDArray[np.uint32]) -> Places:
        """Return the group of each row, (n,)."""
        groups: Places = self.group[np.searchsorted(self.ids, subject)]
        return groups


class _Sums:
    """What costs and changes of rows add up to, by cluster. `rows` have a cost."""

    def __init__(self, groups: int) -> None:
        self.rows = 0
        self.before = 0.0
        self.by_group = np.zeros((groups, 2))

    def add(self, before: Floats, change: Floats, group: Places, weight: Floats) -> None:
        """Add n rows; those with a NaN have no cost."""
        priced = ~np.isnan(before) & ~np.isnan(change)
        w, change, group = weight[priced], change[priced], group[priced]
        self.rows += len(change)
        self.before += float((before[priced] * w).sum())
        self.by_group += cluster_sums(np.column_stack((change * w, w)), group, len(self.by_group))


class _Tally:
    """Counts and sums over the payments that count, part by part."""

    def __init__(self, names: Mapping[str, Sequence[str]], clusters: _Clusters) -> None:
        self.decisions = 0
        self.arrived = (2**31, -(2**31))
        self.actions = np.zeros((2, len(ACTIONS) + 1), dtype=np.int64)
        self.stand_ins = np.zeros(len(StandIn), dtype=np.int64)
        self.counted: Counter[str] = Counter()
        self.cross: dict[tuple[Action, Action], Places] = {}
        self.pair_changes: dict[tuple[Action, Action], Floats] = {}
        # decisions, milder, severer, change by NEW's figures, by OLD's
        self.groups = {name: np.zeros((5, len(own))) for name, own in names.items()}
        self.by_new, self.by_old = _Sums(clusters.groups), _Sums(clusters.groups)
        self._clusters = clusters
        self._bands = len(names["amount"])

    def add(self, part: Kept, kept: Flags) -> None:
        """Add the payments of a part that count."""
        if not kept.any():
            return
        n, old, new = int(kept.sum()), part.old, part.new
        flips, changes = np.zeros(len(part), dtype=np.bool_), np.zeros((2, len(part)))
        flips[part.flips] = True
        changes[:, part.flips] = part.change_by_new, part.change_by_old
        flips &= kept
        self.decisions += n
        arrived = part.arrived[kept]
        self.arrived = (
            min(self.arrived[0], int(arrived.min())),
            max(self.arrived[1], int(arrived.max())),
        )
        for side, actions in enumerate((old, new)):
            self.actions[side] += np.bincount(actions[kept], minlength=len(ACTIONS) + 1)
        self.stand_ins += np.bincount(part.stand_in[kept], minlength=len(StandIn))
        self._count(part, kept, flips)
        self._flips(part, flips, np.nan_to_num(changes))
        weight, group = np.ones(n), self._clusters.group_of(part.subject[kept])
        for money, before, change in (
            (self.by_new, part.by_new, changes[0]),
            (self.by_old, part.by_old, changes[1]),
        ):
            money.add(before[kept].astype(np.float64), change[kept], group, weight)
        moves = np.stack((np.ones(len(part)), new < old, new > old, *np.nan_to_num(changes)))
        columns: dict[str, NDArray[Any]] = {**part.segments, "amount": part.band}
        for name, codes in columns.items():
            own, sums = codes[kept], self.groups[name]
            for i, weights in enumerate(moves):
                sums[i] += np.bincount(own, weights=weights[kept], minlength=sums.shape[1])

    def _count(self, part: Kept, kept: Flags, flips: Flags) -> None:
        marks, why = part.marks, part.stand_in
        for name, rows in (
            ("old near", kept & (marks & OLD_NEAR > 0)),
            ("new near", kept & (marks & NEW_NEAR > 0)),
            ("near flips", flips & (marks & (OLD_NEAR | NEW_NEAR) > 0)),
            ("old explored", kept & (marks & OLD_EXPLORED > 0)),
            ("new explored", kept & (marks & NEW_EXPLORED > 0)),
            ("not reproduced", kept & (marks & NOT_REPRODUCED > 0)),
            ("late", kept & (marks & LATE > 0)),
            ("hidden flips", flips & (marks & HIDDEN > 0)),
            ("stand-in flips", flips & (why > 0)),
            ("model errors", kept & (why == 0) & (part.new_stand_in > 0)),
        ):
            self.counted[name] += int(rows.sum())

    def _flips(self, part: Kept, flips: Flags, changes: Floats) -> None:
        rows = np.flatnonzero(flips)
        code = part.old[rows].astype(np.int64) * 16 + part.new[rows]
        for one in np.unique(code).tolist():
            pair, own = (Action(one // 16), Action(one % 16)), rows[code == one]
            bands = np.bincount(part.band[own], minlength=self._bands)
            self.cross[pair] = self.cross.get(pair, 0) + bands
            self.pair_changes[pair] = self.pair_changes.get(pair, 0.0) + changes[:, own].sum(axis=1)


def _last_in_time(ledger: Ledger) -> Flags:
    """Return the rows that count: of each transaction the last that was in time, or the last."""
    kept = np.ones(ledger.rows, dtype=np.bool_)
    ordered = np.concatenate([part.transaction for part in ledger.parts])
    ordered.sort()
    again = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    del ordered
    if not len(again):
        return kept
    rows, key, arrived, in_time = [], [], [], []
    for part in ledger.parts:
        place = np.minimum(np.searchsorted(again, part.transaction), len(again) - 1)
        own = np.flatnonzero(again[place] == part.transaction)
        rows.append(part.first + own)
        key.append(place[own])
        arrived.append(part.arrived[own])
        in_time.append(part.in_time[own])
    row, keys = np.concatenate(rows), np.concatenate(key)
    order = np.lexsort((np.concatenate(arrived), np.concatenate(in_time), keys))
    earlier = order[np.append(keys[order][1:] == keys[order][:-1], False)]
    kept[row[earlier]] = False
    return kept


def _by_action(counted: Places) -> dict[Action, int]:
    return {action: int(counted[action]) for action in ACTIONS if counted[action]}


def _groups(sums: Floats, names: Sequence[str]) -> tuple[Group, ...]:
    return tuple(
        Group(name, int(n), int(milder + severer), int(milder), int(severer), by_new, by_old)
        for name, (n, milder, severer, by_new, by_old) in zip(names, sums.T.tolist(), strict=True)
        if n
    )


def _money(sums: _Sums, draw: _Draw) -> Money:
    """Put intervals around what was summed up."""
    total, count = sums.by_group.sum(axis=0).tolist()
    if not sums.rows:
        none = Interval(nan, nan, nan, nan)
        return Money(0, nan, nan, none, none)
    before = sums.before / count * 1000.0
    if not sums.by_group[:, 0].any():
        # No draw of nothing is anything.
        nought = Interval(0.0, 0.0, 0.0, 0.0)
        return Money(sums.rows, before, before, nought, nought)
    drawn = np.concatenate(list(drawn_sums(sums.by_group, draw.chance, draw.draws)))
    with np.errstate(invalid="ignore", divide="ignore"):
        per_1000 = drawn[:, 0] / drawn[:, 1] * 1000.0
    value = total / count * 1000.0
    return Money(
        sums.rows,
        before,
        before + value,
        interval(value, per_1000),
        interval(total, drawn[:, 0]),
    )


def _realised(
    ledger: Ledger, kept: Flags, clusters: _Clusters, hidden: int, draw: _Draw
) -> Realised | None:
    if ledger.labels is None:
        return None
    parts = LabelledRows._make(map(np.concatenate, zip(*ledger.labelled, strict=True)))
    counts = kept[parts.row]
    own = LabelledRows._make(column[counts & parts.is_seen] for column in parts)
    group = clusters.group_of(own.subject)
    sums = []
    for before, after in ((own.old_by_new, own.new_by_new), (own.old_by_old, own.new_by_old)):
        sums.append(_Sums(clusters.groups))
        sums[-1].add(before, np.where(own.differs, after - before, 0.0), group, own.weight)
    w = own.weight[own.differs]
    return Realised(
        labelled=int(counts.sum()),
        seen=len(own.row),
        explored=int((own.weight > 1.0).sum()),
        frauds=int(own.is_fraud.sum()),
        differing=len(w),
        support=float(w.sum() ** 2 / (w**2).sum()) if len(w) else 0.0,
        hidden=hidden,
        by_new=_money(sums[0], draw),
        by_old=_money(sums[1], draw),
    )


def _largest(ledger: Ledger, kept: Flags) -> tuple[Large, ...]:
    there = [one for one in ledger.large if kept[one.row]]
    there.sort(key=lambda one: (-abs(float(np.nan_to_num(one.change_minor))), one.row))
    return tuple(there[:LARGEST])
