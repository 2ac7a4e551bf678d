"""One boot's records wait here, in their order, for what later entries tell of them.

A call is whole once its reply is known and every model beside has scored it, or neither is waited
for any longer: by the journal's own times, or, where all that stands there was read, by the clock.
What stands behind a call waits with it, so that what was given out is always a run of sequences.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from gateway.journal import (
    FOUND_NOBODY,
    Decision,
    Gap,
    Generation,
    Pause,
    Record,
    Refused,
    Rejected,
    Replied,
    Reply,
    Scored,
    ScoredCall,
    Shed,
)
from gateway.sidecar.tail.call import Aside, Call, LateReply, LateScored, Mark
from gateway.sidecar.tail.follower import Step

WAITING_MAX = 16_384
"""Steps of one boot that wait; beyond them the first is given out as it is."""

WAITING_BYTES_MAX = 16 << 20
"""The same, of the journal's bytes."""

_UNANSWERED_MAX = 16_384


@dataclass(frozen=True, slots=True)
class Waits:
    """How long a call waits for its reply, and for the scores of the models beside."""

    reply_ns: int = 1_000_000_000
    scores_ns: int = 2_000_000_000


@dataclass(slots=True)
class Waiting:
    """A step. `stamp_ns`: when a call was recorded, monotonic of its boot; `missing`: arms."""

    mark: Mark
    size: int
    read_ns: int
    round: int
    asides: tuple[Aside, ...] = ()
    record: Record | None = None
    generation: Generation | None = None
    stamp_ns: int = 0
    reply: Reply = Reply.UNKNOWN
    replied_ns: int | None = None
    missing: int = 0
    scored: dict[int, ScoredCall] | None = None

    def given(self) -> Call | None:
        """Return the call, if it is one."""
        if self.record is None:
            return None
        scored = tuple(sorted(self.scored.items())) if self.scored else ()
        return Call(self.record, self.generation, self.reply, self.replied_ns, scored)


class Join:
    """What waits of one boot. `mark`: behind what was given out; None before the first.

    `last_sequence`: of what was read, 0 where nothing was.
    """

    def __init__(self, mark: Mark | None, waits: Waits) -> None:
        self.mark = mark
        self.late: list[LateReply | LateScored] = []
        self.last_sequence = 0
        self._waits = waits
        self._has_given = False
        self._told_before = mark.read_sequence if mark else 0
        self._given_before = mark.sequence if mark else 0
        self._queue: deque[Waiting] = deque()
        self.waiting_bytes = 0
        self._calls: dict[int, Waiting] = {}
        self._unanswered: dict[int, None] = {}
        self._latest_ns = 0

    @property
    def is_full(self) -> bool:
        """Say whether no more should be read before something is given out."""
        return len(self._queue) > WAITING_MAX or self.waiting_bytes > WAITING_BYTES_MAX

    @property
    def read_sequence(self) -> int:
        """What entries up to here tell of calls before `mark` was given out."""
        return self.last_sequence if self._has_given else max(self.last_sequence, self._told_before)

    @property
    def waiting(self) -> int:
        """How many steps wait."""
        return len(self._queue)

    def take(self, steps: Iterable[Step], *, now_ns: int, round_: int) -> None:
        """Take what was read, in its order. `round_`: the number of the look that read it."""
        for mark, item in steps:
            if isinstance(item, tuple):
                waiting = Waiting(mark, 0, now_ns, round_, item)
            else:
                waiting = Waiting(mark, item.end - item.offset, now_ns, round_)
                self._learn(item, waiting)
                self.last_sequence = item.sequence
            self._queue.append(waiting)
            self.waiting_bytes += waiting.size

    def next(
        self, *, now_ns: int, round_: int, at_end: bool, is_over: bool, forced: bool = False
    ) -> Waiting | None:
        """Take out the first step if it is whole.

        `at_end`: all that stands in the journal now was read. `is_over`: and no more will come.
        `forced`: give it out as it is.
        """
        if not self._queue:
            return None
        first = self._queue[0]
        if not (forced or is_over or self._is_whole(first, now_ns, round_, at_end)):
            return None
        self._queue.popleft()
        self._has_given = True
        self.waiting_bytes -= first.size
        self.mark = first.mark
        if first.record:
            self._calls.pop(first.record.sequence, None)
            if first.reply is Reply.UNKNOWN:
                self._unanswered[first.record.sequence] = None
                if len(self._unanswered) > _UNANSWERED_MAX:
                    del self._unanswered[next(iter(self._unanswered))]
        return first

    @property
    def first_mark(self) -> Mark | None:
        """Behind the first step that waits."""
        return self._queue[0].mark if self._queue else None

    @property
    def last_mark(self) -> Mark | None:
        """Behind all that was read."""
        return self._queue[-1].mark if self._queue else self.mark

    def _is_whole(self, first: Waiting, now_ns: int, round_: int, at_end: bool) -> bool:
        if self.last_sequence < self._told_before and not at_end:
            return False  # a restart: first read again what was told of calls before the mark
        if first.record is None:
            # What a full disk did not take whole is cut back at once: look a second time.
            return not (at_end and first.asides and first.round == round_)
        waits = self._waits
        if first.reply is Reply.UNKNOWN and not self._is_late(
            first, waits.reply_ns, now_ns, at_end
        ):
            return False
        return first.missing <= 0 or self._is_late(first, waits.scores_ns, now_ns, at_end)

    def _is_late(self, first: Waiting, wait_ns: int, now_ns: int, at_end: bool) -> bool:
        by_journal = self._latest_ns - first.stamp_ns >= wait_ns
        return by_journal or (at_end and now_ns - first.read_ns >= wait_ns)

    def _learn(self, record: Record, waiting: Waiting) -> None:
        """Note what the record says of itself, or of earlier calls."""
        entry = record.entry
        if isinstance(entry, Decision):
            waiting.stamp_ns = entry.arrival_ns + entry.record_after_ns
            self._call(record, waiting, entry.product)
            if entry.stand_in == 0 and waiting.generation and self._waits.scores_ns:
                waiting.missing = len(waiting.generation.arms) - 1
        elif isinstance(entry, Refused):
            waiting.stamp_ns = entry.arrival_ns + entry.refused_after_ns
            self._call(record, waiting, entry.product)
        elif isinstance(entry, Replied):
            self._reply(record, entry)
        elif isinstance(entry, Scored):
            self._score(record, entry)
        elif isinstance(entry, Shed | Pause | Gap | Generation | Rejected):
            waiting.asides = (record,)

    def _call(self, record: Record, waiting: Waiting, product: int) -> None:
        waiting.record, waiting.generation = record, record.generation(product)
        self._calls[record.sequence] = waiting
        self._latest_ns = max(self._latest_ns, waiting.stamp_ns)

    def _reply(self, record: Record, entry: Replied) -> None:
        self._latest_ns = max(self._latest_ns, entry.base_ns)
        for sequence, offset_ns in enumerate(entry.offsets_ns, entry.first_sequence):
            has_left = offset_ns != FOUND_NOBODY
            reply = Reply.LEFT if has_left else Reply.FOUND_NOBODY
            replied_ns = entry.base_ns + offset_ns if has_left else None
            call = self._calls.get(sequence)
            if call:
                call.reply, call.replied_ns = reply, replied_ns
            elif sequence in self._unanswered or self._may_be_late(record, sequence):
                self._unanswered.pop(sequence, None)
                self.late.append(LateReply(record, sequence, reply, replied_ns))

    def _score(self, record: Record, entry: Scored) -> None:
        for scored in entry.calls:
            call = self._calls.get(scored.sequence)
            if call:
                call.scored = call.scored or {}
                call.missing -= entry.arm not in call.scored
                call.scored[entry.arm] = scored
            elif self._was_given(scored.sequence) or self._may_be_late(record, scored.sequence):
                self.late.append(LateScored(record, entry.arm, scored))

    def _was_given(self, sequence: int) -> bool:
        """Say whether a call was given out since the start."""
        return self.mark is not None and self._given_before < sequence <= self.mark.sequence

    def _may_be_late(self, record: Record, sequence: int) -> bool:
        """Say whether a call was given out before the start, and the record not read by then."""
        return sequence <= self._given_before and record.sequence > self._told_before
