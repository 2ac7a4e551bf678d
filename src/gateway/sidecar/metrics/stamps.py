"""The times of a batch's decisions as columns. Pure.

Counting a column costs a tenth of counting call by call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from gateway.sidecar.tail.call import Call

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_FIELDS = attrgetter(
    *("admit_after_ns", "encode_after_ns", "infer_after_ns", "decide_after_ns"),
    *("record_after_ns", "arrival_ns", "deadline_ns", "batch_size"),
)
_ENCODE, _RECORD, _ARRIVAL, _DEADLINE, _BATCH = 1, 4, 5, 6, 7  # places of fields


@dataclass(frozen=True, slots=True)
class Stamps:
    """Columns of n calls, in their order; times in nanoseconds, `replied` -1 where it is not known.

    `stages`: shape (n, 6), the stages' ends after arrival, the last one the call's own.
    """

    stages: Ints
    arrival: Ints
    deadline: Ints
    replied: Ints
    batch_size: Ints

    @property
    def took_s(self) -> Floats:
        """Seconds from arrival to the reply, or to the record where no reply is known."""
        took_s: Floats = self.stages[:, -1] / 1e9
        return took_s

    @property
    def budget_s(self) -> Floats:
        """Seconds from arrival to the deadline; 0 where it was over."""
        budget_s: Floats = np.maximum(self.deadline - self.arrival, 0) / 1e9
        return budget_s

    @property
    def is_late(self) -> NDArray[np.bool_]:
        """Whose reply left past its deadline."""
        return self.replied > self.deadline

    def stage_s(self) -> Floats:
        """Return what each stage took, shape (n, 6), in seconds; one that did not happen took 0."""
        ends = np.maximum.accumulate(self.stages, axis=1)
        stage_s: Floats = np.diff(ends, axis=1, prepend=0) / 1e9
        return stage_s

    def waits(self) -> Ints:
        """Return from when to when each call waited for its batch, shape (n, 2)."""
        return np.stack([self.arrival, self.arrival + self.stages[:, _ENCODE]], axis=1)

    def of(self, some: Sequence[int]) -> Stamps:
        """Return the columns of some of the calls."""
        if len(some) == len(self.arrival):
            return self
        one = np.asarray(some)
        return Stamps(
            self.stages[one],
            self.arrival[one],
            self.deadline[one],
            self.replied[one],
            self.batch_size[one],
        )


def stamps_of(calls: Sequence[Call]) -> Stamps:
    """Return the columns of calls whose records are decisions."""
    rows = [_FIELDS(call.record.entry) for call in calls]
    found = np.array(rows, dtype=np.int64)
    replied = np.array(
        [-1 if call.replied_ns is None else call.replied_ns for call in calls], dtype=np.int64
    )
    ended = np.where(replied < 0, found[:, _RECORD], replied - found[:, _ARRIVAL])
    stages = np.column_stack([found[:, : _RECORD + 1], ended])
    return Stamps(stages, found[:, _ARRIVAL], found[:, _DEADLINE], replied, found[:, _BATCH])


def lengths(waits: Ints, earlier: Ints) -> Ints:
    """Return how many calls waited as each one arrived: of these, and of an earlier batch.

    `waits`, `earlier`: shape (n, 2), from when to when a call waited.
    """
    both = np.concatenate([earlier, waits])
    arrivals, ends = np.sort(both[:, 0]), np.sort(both[:, 1])
    came = np.searchsorted(arrivals, waits[:, 0], side="left")
    gone = np.searchsorted(ends, waits[:, 0], side="right")
    waiting: Ints = np.maximum(came - gone, 0)
    return waiting
