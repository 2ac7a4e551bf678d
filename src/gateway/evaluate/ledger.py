"""What a comparison of two generations keeps of each payment: some forty bytes, in columns. Pure.

So a journal of any length can be read in parts, and each payment counted once in the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf, nan
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.decide import Policy
from gateway.evaluate.replay import (
    Codes,
    Flags,
    Floats,
    Outcomes,
    Payments,
    Places,
    Prices,
    outcomes,
)
from gateway.product import Action, Product

OLD_NEAR, NEW_NEAR, NOT_REPRODUCED, LATE, HIDDEN, OLD_EXPLORED, NEW_EXPLORED = (
    1 << bit for bit in range(7)
)
"""Marks of a payment: a near tie of either side; recorded otherwise than OLD gives; what NEW would
have answered too late; not let through, so that nobody saw what it was; explored by either side."""

BANDS_MAJOR = (20, 100, 500, 2000)
"""Amounts, in major units of a currency with cents, at which a band of amounts ends."""

_CANDIDATES = 64
"""So many are kept of each part: some of them may have been asked again."""


class Labels(NamedTuple):
    """Known outcomes: `key` (m,) of transactions, rising, and which of them were fraud."""

    key: Places
    is_fraud: Flags

    def of(self, key: Places) -> tuple[Flags, Flags]:
        """Return which of n transactions are labelled, and which are fraud."""
        if not len(self.key):
            return np.zeros(len(key), dtype=np.bool_), np.zeros(len(key), dtype=np.bool_)
        place = np.minimum(np.searchsorted(self.key, key), len(self.key) - 1)
        known = self.key[place] == key
        return known, known & self.is_fraud[place]


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """What was true of n recorded payments besides what is asked again.

    `transaction`, `subject` (n,): keys, equal for equal ones. `arrived_s`: wall clock. `action`,
    `flagged`: as recorded, and whether it was explored; `propensity`: of what was done.
    `in_time`: whether its reply left before its deadline. `elapsed_us`, `effective_us`: what it
    took, and what it might have taken. `segments`: a column of codes for each segment.
    """

    transaction: Places
    subject: Places
    arrived_s: Floats
    action: Codes
    explored: Flags
    propensity: Floats
    in_time: Flags
    elapsed_us: Floats
    effective_us: Floats
    segments: Mapping[str, Places]
    identity: Sequence[str]

    def of(self, rows: Places) -> Answered:
        """Return some of them, by index."""
        columns = {
            name: getattr(self, name)[rows]
            for name in self.__slots__
            if name not in ("segments", "identity")
        }
        segments = {name: codes[rows] for name, codes in self.segments.items()}
        return Answered(
            **columns, segments=segments, identity=[self.identity[i] for i in rows.tolist()]
        )

    def also(self, segment: str, codes: Places) -> Answered:
        """Return them with a segment more."""
        return replace(self, segments={**self.segments, segment: codes})


@dataclass(frozen=True, slots=True)
class Side:
    """One generation: how it decides, and what its product says of prices."""

    policy: Policy
    prices: Prices
    budget_us: float
    row_us: float = 0.0

    @classmethod
    def of(cls, product: Product, policy: Policy, row_us: float = 0.0) -> Side:
        """Return the side of a product; `row_us`: what its model takes for a row."""
        return cls(policy, Prices.of(product, policy), float(product.latency.budget_us), row_us)


class Large(NamedTuple):
    """A decision that differs: `row` in the ledger, and what is told of it."""

    row: int
    identity: str
    amount_minor: int
    category: str
    old: Action
    new: Action
    old_probability: float
    new_probability: float
    change_minor: float


class LabelledRows(NamedTuple):
    """Labelled rows: whether they were let through, so that their label could be seen, how many
    each stands for, and what both sides' actions cost by either side's prices and the label."""

    row: Places
    subject: NDArray[np.uint32]
    is_seen: Flags
    weight: Floats
    is_fraud: Flags
    differs: Flags
    old_by_new: Floats
    new_by_new: Floats
    old_by_old: Floats
    new_by_old: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """Columns of n payments. `transaction`, `subject`: keys. `arrived`: in TICK_S from
    the first call that was read.

    `marks`: OLD_NEAR and so on. `band`: of the amount. `by_new`, `by_old` (n,): what OLD's action
    costs by either side's figures, NaN where it has no cost. `flips` (m,): the rows that differ,
    and what that changes by either side's figures.
    """

    first: int
    transaction: Places
    subject: NDArray[np.uint32]
    arrived: NDArray[np.int32]
    in_time: Flags
    old: Codes
    new: Codes
    stand_in: Codes
    new_stand_in: Codes
    marks: Codes
    band: Codes
    by_new: NDArray[np.float32]
    by_old: NDArray[np.float32]
    flips: NDArray[np.int32]
    change_by_new: Floats
    change_by_old: Floats
    segments: Mapping[str, NDArray[np.uint16]]

    def __len__(self) -> int:
        return len(self.transaction)


TICK_S = 0.01
"""An eight months' journal fits: what is further from its first call counts as that far."""


@dataclass(slots=True)
class Ledger:
    """What the comparison keeps of each payment, in columns. `bands`: amounts, in minor units."""

    old: Side
    new: Side
    minor_per_major: int
    labels: Labels | None = None
    rows: int = 0
    epoch_s: float = 0.0
    large: list[Large] = field(default_factory=list)
    labelled: list[LabelledRows] = field(default_factory=list)
    parts: list[Kept] = field(default_factory=list)

    @property
    def bands(self) -> Floats:
        """Where bands of amounts end, in minor units."""
        scale = 100 if self.minor_per_major == 1 else 1
        return np.array([major * scale * self.minor_per_major for major in BANDS_MAJOR], float)

    def add(
        self,
        payments: Payments,
        answered: Answered,
        old_scores: Floats,
        new_scores: Floats,
    ) -> int:
        """Decide some payments on both sides and keep what differs. Returns the first one's row."""
        a = outcomes(self.old.policy, payments, old_scores)
        b = outcomes(self.new.policy, payments, new_scores)
        amount, flips = payments.amount_minor, a.action != b.action
        by_new = self._costs(self.new, b, a, b, amount)
        by_old = self._costs(self.old, a, a, b, amount)
        first = self.rows
        self.rows += len(payments)
        if not self.parts and len(payments):
            self.epoch_s = float(answered.arrived_s[0])
        rows = np.flatnonzero(flips)
        change = by_new[1][rows] - by_new[0][rows]
        # Where the other side's action has no price, the change has none, and so the decision.
        unpriced = [np.isnan(after) for _, after in (by_new, by_old)]
        self.parts.append(
            Kept(
                first=first,
                transaction=answered.transaction,
                subject=answered.subject.astype(np.uint32),
                arrived=np.rint((answered.arrived_s - self.epoch_s) / TICK_S)
                .clip(-(2**31), 2**31 - 1)
                .astype(np.int32),
                in_time=answered.in_time,
                old=a.action,
                new=b.action,
                stand_in=a.stand_in,
                new_stand_in=b.stand_in,
                marks=(
                    a.near_tie * OLD_NEAR
                    + b.near_tie * NEW_NEAR
                    + (a.action != answered.action) * NOT_REPRODUCED
                    + self._late(answered, a) * LATE
                    + (answered.action != Action.APPROVE) * HIDDEN
                    + a.explored * OLD_EXPLORED
                    + b.explored * NEW_EXPLORED
                ).astype(np.uint8),
                band=np.searchsorted(self.bands, amount, side="left").astype(np.uint8),
                by_new=np.where(unpriced[0], nan, by_new[0]).astype(np.float32),
                by_old=np.where(unpriced[1], nan, by_old[0]).astype(np.float32),
                flips=rows.astype(np.int32),
                change_by_new=change,
                change_by_old=by_old[1][rows] - by_old[0][rows],
                segments={
                    name: codes.astype(np.uint16) for name, codes in answered.segments.items()
                },
            )
        )
        self._remember_large(payments, answered, a, b, rows, change)
        if self.labels is not None:
            self._remember_labelled(answered, a, b, amount)
        return first

    def mark_in_time(self, rows: Places) -> None:
        """Say of earlier rows that their replies left in time."""
        for part in reversed(self.parts):
            own = rows[(rows >= part.first) & (rows < part.first + len(part))]
            part.in_time[own - part.first] = True
            if len(own) == len(rows):
                return
            rows = rows[rows < part.first]

    @property
    def segments(self) -> tuple[str, ...]:
        """The names of the segments that are kept."""
        return tuple(self.parts[0].segments) if self.parts else ()

    def _costs(
        self, side: Side, own: Outcomes, a: Outcomes, b: Outcomes, amount: Places
    ) -> tuple[Floats, Floats]:
        """Return what both sides' actions cost by one side's figures."""
        old = side.prices.cost(a.action, own.probability, amount, own.classes)
        return old, side.prices.cost(b.action, own.probability, amount, own.classes)

    def _late(self, answered: Answered, a: Outcomes) -> Flags:
        """Return which decisions NEW would have given too late, where all else stays as it was."""
        longer_us = self.new.row_us - self.old.row_us
        if longer_us == 0.0 and self.new.budget_us >= self.old.budget_us:
            return np.zeros(len(a.action), dtype=np.bool_)
        # Where the caller's own deadline was the earlier one, it still is.
        own = answered.effective_us < self.old.budget_us - 1.0
        budget = np.where(own, np.minimum(answered.effective_us, self.new.budget_us), inf)
        budget = np.minimum(budget, self.new.budget_us)
        late: Flags = (a.stand_in == 0) & (answered.elapsed_us + longer_us > budget)
        return late

    def _remember_large(
        self,
        payments: Payments,
        answered: Answered,
        a: Outcomes,
        b: Outcomes,
        flips: Places,
        change: Floats,
    ) -> None:
        first = self.parts[-1].first
        by_size = np.argsort(-np.abs(np.nan_to_num(change)), kind="stable")[:_CANDIDATES]
        for i, its_change in zip(flips[by_size].tolist(), change[by_size].tolist(), strict=True):
            self.large.append(
                Large(
                    first + i,
                    answered.identity[i],
                    int(payments.amount_minor[i]),
                    payments.categories[payments.category[i]],
                    Action(int(a.action[i])),
                    Action(int(b.action[i])),
                    float(a.probability[i]),
                    float(b.probability[i]),
                    its_change,
                )
            )
        if len(self.large) > 4 * _CANDIDATES:
            self.large.sort(key=lambda one: -abs(np.nan_to_num(one.change_minor)))
            del self.large[_CANDIDATES:]

    def _remember_labelled(
        self, answered: Answered, a: Outcomes, b: Outcomes, amount: Places
    ) -> None:
        assert self.labels is not None
        known, is_fraud = self.labels.of(answered.transaction)
        rows = np.flatnonzero(known)
        y, own = is_fraud[rows].astype(np.float64), amount[rows]

        def cost(side: Side, side_of: Outcomes, of: Outcomes) -> Floats:
            return side.prices.cost(of.action[rows], y, own, side_of.classes[rows])

        self.labelled.append(
            LabelledRows(
                self.parts[-1].first + rows,
                answered.subject[rows].astype(np.uint32),
                answered.action[rows] == Action.APPROVE,
                np.where(answered.explored[rows], 1.0 / answered.propensity[rows], 1.0),
                is_fraud[rows],
                a.action[rows] != b.action[rows],
                cost(self.new, b, a),
                cost(self.new, b, b),
                cost(self.old, a, a),
                cost(self.old, a, b),
            )
        )
