"""The models that do not decide: they score what another one has decided, afterwards.

A thread of low priority looks every few milliseconds for what the hall has answered, and makes an
entry for the journal of what each other arm says of it. The hall hands over what it has in its
hands and never waits: under load the thread stands still, and what it does not come to is counted.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from itertools import compress
from types import TracebackType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.decide import draw, draw_key
from gateway.journal import Scored, ScoredCall
from gateway.model import Arm
from gateway.serve.crew.logs import OncePerSecond
from gateway.serve.crew.priority import step_back
from gateway.serve.hall.admit import Payment, Serving
from gateway.serve.hall.answer import Answer
from gateway.serve.hall.scoring import Rows, score

LOOK_S = 0.005
"""Woken by each answer, the thread would take the hall's time just when the next call comes."""

WAITING_MAX = 512
"""Batches that wait to be scored; what comes on top is skipped."""

ROWS_MAX = 64
"""Rows of one run: Python's share of it holds the hall up no longer than this takes."""

RUN_NS = 20_000_000
"""A run of a slow model takes about so long at the most, so that others have their turn."""

_PASS_NS = 500_000_000
"""What a group of calls may take all arms together: the rest of it is skipped."""

_END_S_MAX = 5.0

log = logging.getLogger(__name__)
log.addFilter(OncePerSecond())


class Answered(NamedTuple):
    """A batch that was answered: `rows` are those of `payments`; `first` answers' sequence."""

    serving: Serving
    rows: Rows
    payments: Sequence[Payment]
    answers: Sequence[Answer]
    first: int


class Shadows:
    """Scores beside. A context manager: it starts a thread with the first batch, and ends it.

    `is_pressed`: the hall sets it while calls wait; then nothing is scored.
    """

    def __init__(self, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self.is_pressed = False
        self._clock_ns = clock_ns
        self._waiting: deque[Answered] = deque()
        self._entries: deque[bytes] = deque()
        self._skipped: Counter[Serving] = Counter()
        # Batches by `Serving.index`: the hall counts what it took, and of what entries it has all;
        # the thread counts what it is done with.
        self._taken: Counter[int] = Counter()
        self._done: Counter[int] = Counter()
        self._told: dict[int, int] = {}
        self._row_ns: dict[int, float] = {}  # by the arm's session, what a row took lately
        self._thread: threading.Thread | None = None
        self._ends = threading.Event()

    def __enter__(self) -> Shadows:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ends.set()
        if self._thread is not None:
            self._thread.join(_END_S_MAX)
        for batch in self._waiting:
            self._skipped[batch.serving] += len(batch.answers)
        self._waiting.clear()

    def take(self, batch: Answered) -> None:
        """Let a batch be scored by the other arms, if there is time."""
        if len(self._waiting) >= WAITING_MAX:
            self._skipped[batch.serving] += len(batch.answers)
            return
        self._taken[batch.serving.index] += 1
        self._waiting.append(batch)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="shadows", daemon=True)
            self._thread.start()

    def entries(self) -> list[bytes]:
        """Return what there is to be written since the last look."""
        entries: list[bytes] = []
        told = dict(self._done)  # before their entries are taken: those are there already
        while self._entries:
            entries.append(self._entries.popleft())
        if self._skipped:
            for serving, count in self._skipped.items():
                entries += [
                    Scored(serving.index, place, count, 0, 0, ()).encode()
                    for place, _ in serving.beside
                ]
            self._skipped.clear()
        self._told = told
        return entries

    def let_go(self, index: int) -> bool:
        """Forget a generation that takes no calls any more. False: there is more to be said of it.

        `index`: its place in the journal's table of products.
        """
        is_skipped = any(serving.index == index for serving in self._skipped)
        if is_skipped or self._told.get(index, 0) != self._taken[index]:
            return False
        del self._done[index], self._taken[index]
        return True

    def _work(self) -> None:
        step_back()
        while not self._ends.wait(LOOK_S):
            if not self.is_pressed:
                self._work_off()
        self._work_off()

    def _work_off(self) -> None:
        until_ns = self._clock_ns() + _PASS_NS
        while self._waiting and self._clock_ns() < until_ns:
            batches = [self._waiting.popleft()]
            count = len(batches[0].answers)
            while self._waiting and self._waiting[0].serving is batches[0].serving:
                count += len(self._waiting[0].answers)
                if count > ROWS_MAX:
                    break
                batches.append(self._waiting.popleft())
            try:
                self._score(batches, until_ns)
            except Exception:
                log.exception("%d calls could not be scored beside", count)
            self._done[batches[0].serving.index] += len(batches)
            if self.is_pressed and not self._ends.is_set():
                return

    def _score(self, batches: Sequence[Answered], until_ns: int) -> None:
        serving = batches[0].serving
        matrix, payments, sequences = _joined(batches)
        for place, arm in serving.beside:
            chosen = _drawn(serving, arm, payments)
            if not chosen.any():
                continue
            step = self._rows_at_once(arm)
            for start in range(0, len(payments), step):
                if self._clock_ns() > until_ns:
                    left = int(chosen[start:].sum())
                    self._entries.append(Scored(serving.index, place, left, 0, 0, ()).encode())
                    break
                part = slice(start, start + step)
                some = chosen[part]
                entry = self._entry(
                    serving,
                    place,
                    arm,
                    matrix[part][some],
                    list(compress(payments[part], some)),
                    list(compress(sequences[part], some)),
                )
                self._entries.append(entry)

    def _rows_at_once(self, arm: Arm) -> int:
        row_ns = self._row_ns.get(id(arm.classifier), 0.0)
        return max(1, min(ROWS_MAX, int(RUN_NS / row_ns))) if row_ns else ROWS_MAX

    def _entry(
        self,
        serving: Serving,
        place: int,
        arm: Arm,
        rows: NDArray[np.floating],
        payments: Sequence[Payment],
        sequences: Sequence[int],
    ) -> bytes:
        policy, before_ns = arm.policy, self._clock_ns()
        scores = score(arm.classifier, rows)
        took_ns = self._clock_ns() - before_ns
        self._row_ns[id(arm.classifier)] = took_ns / len(rows)
        if not policy.takes(scores):
            scores = [policy.snapped(one) for one in scores]
        sound = [policy.takes([one]) for one in scores]
        payments, sequences = list(compress(payments, sound)), list(compress(sequences, sound))
        scores = list(compress(scores, sound))
        calls: tuple[ScoredCall, ...] = ()
        if scores:
            amounts = [payment.amount_minor for payment in payments]
            chosen = policy.choose_many(
                scores,
                amounts,
                [policy.cost_class(payment.amount_minor, payment.category) for payment in payments],
                [payment.event_s for payment in payments],
            )
            told = zip(
                *(sequences, scores, chosen.probability.tolist(), chosen.action.tolist()),
                strict=True,
            )
            calls = tuple(map(ScoredCall._make, told))
        failed = len(rows) - len(calls)
        return Scored(serving.index, place, 0, failed, took_ns, calls).encode()


def _joined(
    batches: Sequence[Answered],
) -> tuple[NDArray[np.floating], list[Payment], list[int]]:
    """Return the rows of all that was answered with a row, its payments and sequences."""
    matrices: list[NDArray[np.floating]] = []
    payments: list[Payment] = []
    sequences: list[int] = []
    for serving, rows, asked, answers, first in batches:
        if isinstance(rows, bytes):
            rows = np.frombuffer(rows, dtype=serving.classifier.dtype).reshape(1, -1)
        place = {payment.call_id: i for i, payment in enumerate(asked)}
        # Answers stand in another order than rows where the model failed on some of them.
        matrices.append(rows[[place[answer.payment.call_id] for answer in answers]])
        payments += [answer.payment for answer in answers]
        sequences += range(first, first + len(answers))
    return np.concatenate(matrices), payments, sequences


def _drawn(serving: Serving, arm: Arm, payments: Sequence[Payment]) -> NDArray[np.bool_]:
    """Return which payments an arm scores: a shadow its share of them, the others all."""
    if arm.mode != "shadow" or arm.share >= 1.0:
        return np.ones(len(payments), dtype=np.bool_)
    key = draw_key("shadow", f"{serving.generation.name}/{arm.name}")
    return np.array([draw(payment.transaction_id, key) < arm.share for payment in payments])
