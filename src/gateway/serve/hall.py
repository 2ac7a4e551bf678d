"""The hall: whatever has arrived walks once through

    admit ▶ encode ▶ infer ▶ decide ▶ record ▶ reply

as one batch, on one thread. Nothing waits for a batch to fill; under load batches grow by
themselves, and every fixed cost is paid once a batch. The caller's faults become refusals,
ours become stand-ins, and no reply leaves before its record is in the journal.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import compress
from math import inf, nan
from operator import attrgetter

import grpc
import numpy as np
from numpy.typing import NDArray

from gateway.errors import JournalError
from gateway.journal import (
    FOUND_NOBODY,
    U32_MAX,
    Pause,
    Replied,
    Writer,
    decision_id,
    saturated,
)
from gateway.model import Classifier
from gateway.product import StandIn
from gateway.serve.admit import (
    RESOURCE_EXHAUSTED,
    Payment,
    Refusal,
    Serving,
    admit,
    refused_for,
)
from gateway.serve.answer import Answer, Stamps, stood_in
from gateway.serve.circuit import Circuit
from gateway.serve.estimate import CostEstimate
from gateway.serve.front import CALL, CHECK, DECIDE, MESSAGE_BYTES_MAX, WATCH, Event, Front
from gateway.serve.health import Health
from gateway.serve.logs import OncePerSecond
from gateway.serve.record import decision_record, refusal_record
from gateway.serve.response import RECORDED
from gateway.serve.tally import Tally
from gateway.v1.decision_pb2 import DecideResponse

BATCH_MAX = 128
"""Calls that walk together at the most: a bound on how long one turn takes."""

_LATEST_NS = FOUND_NOBODY - 1
_INTERNAL: int = grpc.StatusCode.INTERNAL.value[0]

log = logging.getLogger(__name__)
log.addFilter(OncePerSecond())


class Hall:
    """The serving loop's body. `front` carries the replies, `journal` takes the records."""

    def __init__(
        self,
        *,
        front: Front,
        journal: Writer,
        served: Mapping[str, Serving],
        health: Health,
        measured_ns: Mapping[str, Mapping[int, int]] | None = None,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        """`measured_ns`: by product and number of rows, what its model took to warm up."""
        self.tally = Tally()
        self._front = front
        self._journal = journal
        self._served = served
        self._health = health
        self._clock_ns = clock_ns
        self._wall_s = wall_s
        # A decision's id ends in the twelve digits of its sequence.
        self._id_prefix = decision_id(journal.boot_id, journal.worker, 0)[:-12].encode()
        known_ns, now_ns = measured_ns or {}, clock_ns()
        self._infer_ns = [CostEstimate(known_ns.get(name, {}), now_ns) for name in served]
        self._reply_ns = CostEstimate({}, now_ns)
        self._circuits = [Circuit() for _ in served]
        # Entries that ride with the next append: reply times, pauses.
        self._carried: list[bytes] = []

    def turn(self, events: list[Event], arrived_ns: int) -> None:
        """Answer everything in `events`, whatever happens on the way."""
        now_ns = self._clock_ns()
        for start in range(0, len(events), BATCH_MAX):
            self._walk_surely(events[start : start + BATCH_MAX], arrived_ns, now_ns)

    def idle(self) -> None:
        """Write what the last replies left to say; let the journal flush and try again."""
        if self._carried:
            self._append([])
        self._journal.tick()
        self._health.catch_up()

    def paused(self, start_ns: int, duration_ns: int) -> None:
        """Record that the loop stood still."""
        self._carried.append(Pause(start_ns, duration_ns).encode())
        self.tally.worst_pause_ns = max(self.tally.worst_pause_ns, duration_ns)

    def _walk_surely(self, events: list[Event], arrived_ns: int, now_ns: int) -> None:
        """Walk a batch; a fault of ours costs the call it comes from, not the others."""
        recorded = self._journal.next_sequence
        try:
            self._walk(events, arrived_ns, now_ns)
            return
        except Exception:
            log.exception("a batch of %d calls failed", len(events))
        if self._journal.next_sequence != recorded:
            # Past the record: whoever is not answered yet must not be recorded twice.
            self._give_up(events)
        elif len(events) > 1:
            for event in events:
                self._walk_surely([event], arrived_ns, now_ns)
        else:
            self._last_resort(events, arrived_ns, now_ns)

    def _last_resort(self, events: list[Event], arrived_ns: int, now_ns: int) -> None:
        """Stand in for one call that failed on its way."""
        try:
            payments, refusals = self._admit(events, arrived_ns, now_ns)
            stamps = _stamps(arrived_ns, now_ns, now_ns, now_ns, now_ns)
            answers = [stood_in(one, StandIn.MODEL_ERROR, stamps, 0) for one in payments]
            self._record_and_reply(answers, refusals, arrived_ns)
        except Exception:
            log.exception("no stand-in either")
            self._give_up(events)

    def _give_up(self, events: list[Event]) -> None:
        for event in events:
            if event[0] == CALL:
                self._front.fail(event[1], _INTERNAL, "the gateway failed on this call")

    def _walk(self, events: list[Event], arrived_ns: int, now_ns: int) -> None:
        payments, refusals = self._admit(events, arrived_ns, now_ns)
        admit_ns = self._clock_ns()
        answers: list[Answer] = []
        due_ns = inf  # when the first of `answers` has to be answered
        for batch in _by_product(payments):
            index = batch[0].serving.index
            infer_ns, circuit = self._infer_ns[index], self._circuits[index]
            while batch:
                now_ns = self._clock_ns()
                if not circuit.lets_through(now_ns):
                    stamps = _stamps(arrived_ns, admit_ns, now_ns, now_ns, now_ns)
                    answers += [stood_in(one, StandIn.MODEL_ERROR, stamps, 0) for one in batch]
                    break
                fits, late = self._affordable(batch, infer_ns, len(answers), now_ns)
                stamps = _stamps(arrived_ns, admit_ns, now_ns, now_ns, now_ns)
                answers += [stood_in(one, StandIn.DEADLINE, stamps, 0) for one in batch[:late]]
                chunk, batch = batch[late : late + fits], batch[late + fits :]
                if not chunk:
                    break
                if answers and now_ns + infer_ns.of(fits, now_ns) > due_ns:
                    self._record_and_reply(answers, refusals, arrived_ns)
                    answers, refusals, due_ns = [], [], inf
                answered, refused = self._answer(chunk, arrived_ns, admit_ns)
                answers += answered
                refusals += refused
                due_ns = min(due_ns, chunk[0].deadline_ns)
                if batch:
                    # What is decided leaves before the next of its product are.
                    self._record_and_reply(answers, refusals, arrived_ns)
                    answers, refusals, due_ns = [], [], inf
        if answers or refusals:
            self._record_and_reply(answers, refusals, arrived_ns)

    def _affordable(
        self, batch: list[Payment], infer_ns: CostEstimate, before: int, now_ns: int
    ) -> tuple[int, int]:
        """Sort a batch by deadline. Return how many of it can be decided together in time, and
        how many in front of those cannot be, even alone.

        `before`: answers that leave with them.
        """
        if len(batch) > 1:
            batch.sort(key=_deadline)
        for late, payment in enumerate(batch):
            count = len(batch) - late
            slack_ns = payment.deadline_ns - now_ns - self._reply_ns.of(before + count, now_ns)
            fits = infer_ns.most(count, slack_ns, now_ns)
            if fits:
                return fits, late
        return 0, len(batch)

    def _admit(
        self, events: list[Event], arrived_ns: int, now_ns: int
    ) -> tuple[list[Payment], list[Refusal]]:
        """Split what arrived into payments and refusals; health is answered at once."""
        payments: list[Payment] = []
        refusals: list[Refusal] = []
        wall_s, served = self._wall_s(), self._served
        for event in events:
            kind, call_id, method, payload = event[:4]
            if kind == CALL and method == DECIDE:
                admitted = admit(event, arrived_ns, now_ns, wall_s, served)
                if type(admitted) is Payment:
                    payments.append(admitted)
                else:
                    refusals.append(admitted)  # type: ignore[arg-type]
            elif kind != CALL:
                self._health.cancel(call_id)
            elif len(payload or b"") > MESSAGE_BYTES_MAX:
                self._front.fail(call_id, RESOURCE_EXHAUSTED, "the message is too long")
            elif method == CHECK:
                self._health.check(call_id, payload or b"")
            elif method == WATCH:
                self._health.watch(call_id, payload or b"")
        return payments, refusals

    def _answer(
        self, batch: list[Payment], arrived_ns: int, admit_ns: int
    ) -> tuple[list[Answer], list[Refusal]]:
        """Encode, infer and decide payments of one product; what came too late stands in."""
        answers: list[Answer] = []
        serving, begun_ns = batch[0].serving, self._clock_ns()
        generation = serving.generation
        refusals: list[Refusal] = []
        defaulted: Collection[int] = ()
        if len(batch) == 1 and generation.schema.is_clean(batch[0].row):
            encode_ns = self._clock_ns()
            scores = _score_one(generation.champion, batch[0].row)
        else:
            matrix, batch, refusals, defaulted = _encode(batch)
            if not batch:
                return answers, refusals
            encode_ns = self._clock_ns()
            scores = _score(generation.champion, matrix)
        infer_ns = self._clock_ns()
        size = len(batch)
        policy = generation.policy
        if not policy.takes(scores):
            stamps = _stamps(arrived_ns, admit_ns, encode_ns, infer_ns, infer_ns)
            scores = [policy.snapped(score) for score in scores]
            sound = [policy.takes([score]) for score in scores]
            unsound = compress(batch, [not is_sound for is_sound in sound])
            answers += [stood_in(one, StandIn.MODEL_ERROR, stamps, size) for one in unsound]
            batch, scores = list(compress(batch, sound)), list(compress(scores, sound))
        self._circuits[serving.index].saw(bool(batch), infer_ns)
        decisions = policy.decide(scores, batch)
        decide_ns = self._clock_ns()
        self._infer_ns[serving.index].learn(size, decide_ns - begun_ns, decide_ns)
        stamps = _stamps(arrived_ns, admit_ns, encode_ns, infer_ns, decide_ns)
        for payment, decision, score in zip(batch, decisions, scores, strict=True):
            if payment.deadline_ns <= decide_ns:
                answers.append(stood_in(payment, StandIn.DEADLINE, stamps, size))
                continue
            was_defaulted = payment.defaulted or payment.call_id in defaulted
            answers.append(
                Answer(
                    payment,
                    decision.action,
                    decision,
                    score,
                    StandIn.NONE,
                    stamps,
                    size,
                    was_defaulted,
                )
            )
        return answers, refusals

    def _record_and_reply(
        self, answers: list[Answer], refusals: list[Refusal], arrived_ns: int
    ) -> None:
        """Lay out every response and record, append them at once, then reply."""
        begun_ns = self._clock_ns()
        after_ns = saturated(begun_ns - arrived_ns)
        first = self._journal.next_sequence + len(self._carried)
        responses: list[bytes] = []
        records: list[bytes] = []
        for sequence, answer in enumerate(answers, first):
            response = _response(answer, self._id_prefix + b"%012x" % sequence, after_ns // 1000)
            responses.append(response)
            records.append(decision_record(answer, response, arrived_ns, after_ns))
        for refusal in refusals:
            records.append(refusal_record(refusal, arrived_ns, after_ns))
        if not self._append(records):
            responses = [
                _response(_unrecorded(answer), _id_of(response), after_ns // 1000)[: -len(RECORDED)]
                for answer, response in zip(answers, responses, strict=True)
            ]

        clock_ns, reply, fail = self._clock_ns, self._front.reply, self._front.fail
        self._front.look()
        base_ns = clock_ns()
        offsets_ns: list[int] = []
        for answer, response in zip(answers, responses, strict=True):
            found = reply(answer.payment.call_id, response)
            offsets_ns.append(min(clock_ns() - base_ns, _LATEST_NS) if found else FOUND_NOBODY)
        for refusal in refusals:
            found = fail(refusal.call_id, refusal.code, refusal.message, refusal.details)
            offsets_ns.append(min(clock_ns() - base_ns, _LATEST_NS) if found else FOUND_NOBODY)
        self._front.flush()
        stood_in = sum(answer.stand_in is not StandIn.NONE for answer in answers)
        self.tally.stood_in += stood_in
        self.tally.answered += len(answers) - stood_in
        self.tally.refused += len(refusals)
        ended_ns = clock_ns()
        self._reply_ns.learn(len(answers) + len(refusals), ended_ns - begun_ns, ended_ns)
        self._carried.append(Replied(first, base_ns, tuple(offsets_ns)).encode())

    def _append(self, records: list[bytes]) -> bool:
        """Append what is carried and `records` together. False if the journal cannot."""
        carried, self._carried = self._carried, []
        try:
            self._journal.append(carried + records)
        except JournalError as error:
            log.error("%s", error)
            return False
        return True


_deadline = attrgetter("deadline_ns")


def _by_product(payments: list[Payment]) -> Iterable[list[Payment]]:
    if len(payments) <= 1:
        return (payments,) if payments else ()
    batches: dict[int, list[Payment]] = {}
    for payment in payments:
        batches.setdefault(payment.serving.index, []).append(payment)
    return batches.values()


def _encode(
    batch: list[Payment],
) -> tuple[NDArray[np.float32], list[Payment], list[Refusal], set[int]]:
    """Return the matrix of the payments whose features keep their rules, and those payments.

    Then the refusals of the others, and the call ids of rows that a default was put into.
    """
    schema = batch[0].serving.generation.schema
    matrix, checked = schema.matrix([payment.row for payment in batch])
    if not checked:
        return matrix, batch, [], set()
    defaulted = {batch[i].call_id for i, row in checked.items() if row.defaulted}
    bad = {i: row.violations for i, row in checked.items() if row.violations}
    refusals = [
        refused_for(batch[i].call_id, violations, batch[i].serving, batch[i].traceparent)
        for i, violations in bad.items()
    ]
    kept = [i for i in range(len(batch)) if i not in bad]
    return matrix[kept], [batch[i] for i in kept], refusals, defaulted


def _score(champion: Classifier, matrix: NDArray[np.float32]) -> list[float]:
    """Run the model; rows it fails on are NaN. One bad row does not fail its batch."""
    try:
        return champion.score(matrix)
    except Exception as error:  # whatever a model raises is the model's error
        log.warning("the model failed on %d rows: %s", len(matrix), type(error).__name__)
    return [score for row in matrix for score in _score_one(champion, row.tobytes())]


def _score_one(champion: Classifier, row: bytes) -> list[float]:
    try:
        return [champion.score_one(row)]
    except Exception as error:
        log.warning("the model failed on a row: %s", type(error).__name__)
        return [nan]


def _stamps(
    arrived_ns: int, admit_ns: int, encode_ns: int, infer_ns: int, decide_ns: int
) -> Stamps:
    stamps = (
        admit_ns - arrived_ns,
        encode_ns - arrived_ns,
        infer_ns - arrived_ns,
        decide_ns - arrived_ns,
    )
    if stamps[3] <= U32_MAX:
        return stamps
    admit, encode, infer, decide = map(saturated, stamps)
    return admit, encode, infer, decide


def _response(answer: Answer, decision_id: bytes, elapsed_us: int) -> bytes:
    payment, decision = answer.payment, answer.decision
    encoder = payment.serving.responses
    if decision is None:
        return encoder.stand_in(
            decision_id, answer.action, answer.stand_in, elapsed_us, payment.event_s
        )
    return encoder.decision(
        decision_id, decision, elapsed_us, event_s=payment.event_s, defaulted=answer.defaulted
    )


def _id_of(response: bytes) -> bytes:
    return DecideResponse.FromString(response).decision_id.encode()


def _unrecorded(answer: Answer) -> Answer:
    """Return what goes out although the journal could not take it: `on_record_failure`."""
    product = answer.payment.serving.generation.product
    if product.on_record_failure == "continue" or answer.decision is None:
        return answer
    return stood_in(answer.payment, StandIn.MODEL_UNAVAILABLE, answer.stamps, 1)
