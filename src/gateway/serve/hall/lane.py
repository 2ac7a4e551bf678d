"""One arm's way through the hall: what waits for its model, and what that will cost.

Earliest deadline first. The newest is turned away where what waits already would take until its
deadline, so that what does wait is decided in time, in batches of a useful size: a queue that
takes everything has, under overload, nothing but calls that are nearly late.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter

from gateway.serve.hall.admit import Payment, Serving
from gateway.serve.hall.circuit import Circuit
from gateway.serve.hall.estimate import CostEstimate

BATCH_MAX = 128
"""Calls that walk together at the most: a bound on how long one turn takes."""

QUANTUM_NS = 1_000_000
"""A batch on the loop takes no longer than this, so that the others' calls are seen."""

SHARE_OF_BUDGET = 0.25
"""A batch beside the loop takes no more than this of its product's budget."""

_WORTH = 1.1
"""A batch is worth its fixed costs where a row costs so little more than in the largest one."""

_PLAN_NS = 1_000_000
_SMOOTH = 0.2
_DOUBT = 0.05

_deadline = attrgetter("deadline_ns")


class Lane:
    """The queue of one arm of a product, its model's cost, and what it had of the hall's time.

    `in_annex`: its model runs beside the loop.
    """

    __slots__ = (
        "_backlogged_ns",
        "_fresh",
        "_plan",
        "_plan_until_ns",
        "_quantum_ns",
        "_waiting",
        "circuit",
        "cost_ns",
        "in_annex",
        "index",
        "serving",
        "used_ns",
    )

    def __init__(
        self, serving: Serving, measured_ns: Mapping[int, int], now_ns: int, *, in_annex: bool
    ) -> None:
        self.serving = serving
        self.index = serving.lane
        self.in_annex = in_annex
        self.cost_ns = CostEstimate(measured_ns, now_ns)
        self.circuit = Circuit()
        self.used_ns = 0
        self._quantum_ns = serving.budget_ns * SHARE_OF_BUDGET if in_annex else float(QUANTUM_NS)
        self._backlogged_ns = 0.0
        self._plan, self._plan_until_ns = (1, 0.0, 0.0), 0
        self._waiting: list[Payment] = []  # by deadline
        self._fresh: list[Payment] = []  # as they came

    def __len__(self) -> int:
        return len(self._waiting) + len(self._fresh)

    def put(self, payments: list[Payment]) -> None:
        """Let payments wait for the model. The list is the lane's from here on."""
        if self._fresh:
            self._fresh += payments
        else:
            self._fresh = payments

    def clear(self) -> list[Payment]:
        """Take out everything that waits."""
        self._sort()
        return self._taken(len(self._waiting))

    def batch_limit(self, now_ns: int) -> int:
        """Return how many rows go through the model together at the most; at least one."""
        return self._planned(now_ns)[0]

    def backlog_ns(self, now_ns: int) -> float:
        """Return how long what waits will take."""
        return self._each_ns(now_ns) * len(self)

    def room(self, now_ns: int, slack_ns: float) -> float:
        """Return how many more calls can wait and still be decided within `slack_ns`."""
        _, _, last_ns = self._planned(now_ns)
        ahead = max(0.0, slack_ns - last_ns) / self._each_ns(now_ns)
        return ahead + 1.0 - len(self)

    def _planned(self, now_ns: int) -> tuple[int, float, float]:
        """Return the batch limit, what a row costs in such a batch, and the least worth it.

        They hold for a millisecond: estimates do not move faster.
        """
        if now_ns < self._plan_until_ns:
            return self._plan
        # On average: single batches take longer now and then, and smaller ones would not help.
        limit, batch_ns = 1, self.cost_ns.mean(1, now_ns)
        while limit < BATCH_MAX:
            # Twice the rows in one batch never take longer than in two.
            larger_ns = min(self.cost_ns.mean(2 * limit, now_ns), 2.0 * batch_ns)
            if larger_ns > self._quantum_ns:
                break
            limit, batch_ns = 2 * limit, larger_ns
        each_ns = batch_ns / limit
        # Whoever waits longest has time left for a batch that is worth its fixed costs; but a
        # batch that nobody has seen yet, and that may take all of the budget, closes no lane.
        last = 1
        while (
            last < limit
            and self.cost_ns.of(last, now_ns) > _WORTH * each_ns * last
            and self.cost_ns.of(2 * last, now_ns) <= 2.0 * self._quantum_ns
        ):
            last *= 2
        self._plan = limit, each_ns, self.cost_ns.of(last, now_ns)
        self._plan_until_ns = now_ns + _PLAN_NS
        return self._plan

    @property
    def last_deadline_ns(self) -> float:
        """The latest deadline of what waits."""
        self._sort()
        return self._waiting[-1].deadline_ns

    def surplus(self, now_ns: int, time_ns: float) -> list[Payment]:
        """Take out, from the latest deadline on, what `time_ns` until then is too short for.

        An estimate moves by 4 % with a single batch: so much more may stay.
        """
        self._sort()
        lacking = -self.room(now_ns, time_ns) - _DOUBT * len(self._waiting)
        count = min(int(lacking), len(self._waiting))
        if count <= 0:
            return []
        surplus = self._waiting[-count:]
        del self._waiting[-count:]
        return surplus

    def late(self, begin_ns: float, now_ns: int, reply_ns: float) -> list[Payment]:
        """Take out what cannot be in time, even alone, if its model begins at `begin_ns`.

        `reply_ns`: from the model to the caller.
        """
        self._sort()
        alone_ns = begin_ns + self.cost_ns.of(1, now_ns) + reply_ns
        count = 0
        for payment in self._waiting:
            if payment.deadline_ns >= alone_ns:
                break
            count += 1
        return self._taken(count)

    def batch(self, begin_ns: float, now_ns: int, reply_ns: float) -> list[Payment]:
        """Take out a batch that is in time if its model begins at `begin_ns`."""
        self._sort()
        if not self._waiting:
            return []
        slack_ns = self._waiting[0].deadline_ns - begin_ns - reply_ns
        limit = self.batch_limit(now_ns)
        count = self.cost_ns.most(min(len(self._waiting), limit), slack_ns, now_ns)
        if count < len(self._waiting):
            each_ns = self.cost_ns.mean(count or 1, now_ns) / (count or 1)
            before_ns = self._backlogged_ns or each_ns
            self._backlogged_ns = before_ns + _SMOOTH * (each_ns - before_ns)
        else:
            self._backlogged_ns = 0.0
        return self._taken(count)

    def _each_ns(self, now_ns: int) -> float:
        """Return what a row costs in the batches that are formed.

        As long as some have to wait, that is what it was lately: where deadlines let batches be
        small only, fewer calls can wait, until there is time for larger ones again.
        """
        return max(self._backlogged_ns, self._planned(now_ns)[1])

    def _taken(self, count: int) -> list[Payment]:
        if not count:
            return []
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        return taken

    def _sort(self) -> None:
        fresh = self._fresh
        if not fresh:
            return
        self._fresh = []
        if len(fresh) > 1:
            fresh.sort(key=_deadline)
        if not self._waiting:
            self._waiting = fresh
            return
        in_order = self._waiting[-1].deadline_ns <= fresh[0].deadline_ns
        self._waiting += fresh
        if not in_order:
            self._waiting.sort(key=_deadline)
