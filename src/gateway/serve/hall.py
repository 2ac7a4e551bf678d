"""The hall: whatever has arrived walks once through

    admit ▶ encode ▶ infer ▶ decide ▶ record ▶ reply

as one batch, on one thread. Nothing waits for a batch to fill; under load batches grow by
themselves, and every fixed cost is paid once a batch. The caller's faults become refusals,
ours become stand-ins, and no reply leaves before its record is in the journal.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from math import inf, nan
from typing import NamedTuple

import grpc
import numpy as np
from numpy.typing import NDArray

from gateway.decide import Decision, draw, draw_key
from gateway.errors import JournalError
from gateway.journal import (
    DECISION_HEAD,
    FOUND_NOBODY,
    Flag,
    Kind,
    Pause,
    Refused,
    Replied,
    decision_id,
    saturated,
)
from gateway.journal import Writer as Journal
from gateway.product import StandIn
from gateway.serve.admit import Payment, Refusal, Serving, admit, refuse_row
from gateway.serve.front import CALL, CHECK, DECIDE, WATCH, Event, Front
from gateway.serve.health import Health
from gateway.serve.response import RECORDED
from gateway.v1.decision_pb2 import DecideRequest

BATCH_MAX = 128
"""Calls that walk together at the most: a bound on how long one turn takes."""

_KEPT = draw_key("records.features", "")
_JOURNALLED_FLAGS = int(Flag.NEAR_TIE | Flag.EXPLORED | Flag.OVERRIDDEN)

_INTERNAL: int = grpc.StatusCode.INTERNAL.value[0]

log = logging.getLogger(__name__)


class Stamps(NamedTuple):
    """Ends of the stages of one batch, monotonic nanoseconds."""

    admit_ns: int
    encode_ns: int
    infer_ns: int
    decide_ns: int


class Answer(NamedTuple):
    """What one payment gets: the model's decision, or a stand-in and its reason."""

    payment: Payment
    action: int
    decision: Decision | None
    score: float
    stand_in: StandIn
    stamps: Stamps
    batch_size: int
    defaulted: bool


class Hall:
    """The serving loop's body. `front` carries the replies, `journal` takes the records."""

    def __init__(
        self,
        *,
        front: Front,
        journal: Journal,
        served: Mapping[str, Serving],
        health: Health,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        self._front = front
        self._journal = journal
        self._served = served
        self._health = health
        self._clock_ns = clock_ns
        self._wall_s = wall_s
        # A decision's id ends in the twelve digits of its sequence.
        self._id_prefix = decision_id(journal.boot_id, journal.worker, 0)[:-12].encode()
        # Entries that ride with the next append: reply times, pauses.
        self._carried: list[bytes] = []

    def turn(self, events: list[Event], arrived_ns: int) -> None:
        """Answer everything in `events`, whatever happens on the way."""
        for start in range(0, len(events), BATCH_MAX):
            batch = events[start : start + BATCH_MAX]
            try:
                self._walk(batch, arrived_ns)
            except Exception:  # a fault of ours must not take the loop down
                log.exception("a batch of %d calls failed", len(batch))
                for event in batch:
                    if event[0] == CALL:
                        self._front.fail(event[1], _INTERNAL, "the gateway failed on this call")

    def idle(self) -> None:
        """Write what the last replies left to say; let the journal flush and try again."""
        if self._carried:
            self._append([])
        self._journal.tick()
        self._health.catch_up()

    def paused(self, start_ns: int, duration_ns: int) -> None:
        """Record that the loop stood still."""
        self._carried.append(Pause(start_ns, duration_ns).encode())

    def _walk(self, events: list[Event], arrived_ns: int) -> None:
        payments, refusals = self._admit(events, arrived_ns)
        admit_ns = self._clock_ns()
        answers: list[Answer] = []
        for batch in _by_product(payments):
            answered, refused = self._answer(batch, admit_ns)
            answers += answered
            refusals += refused
        if answers or refusals:
            self._record_and_reply(answers, refusals, arrived_ns)

    def _admit(self, events: list[Event], arrived_ns: int) -> tuple[list[Payment], list[Refusal]]:
        """Split what arrived into payments and refusals; health is answered at once."""
        payments: list[Payment] = []
        refusals: list[Refusal] = []
        now_ns, wall_s = self._clock_ns(), self._wall_s()
        for event in events:
            kind, call_id, method, payload = event[:4]
            if kind == CALL and method == DECIDE:
                admitted = admit(
                    event,
                    arrived_ns=arrived_ns,
                    now_ns=now_ns,
                    wall_s=wall_s,
                    served=self._served,
                )
                if isinstance(admitted, Payment):
                    payments.append(admitted)
                else:
                    refusals.append(admitted)
            elif kind != CALL:
                self._health.cancel(call_id)
            elif method == CHECK:
                self._health.check(call_id, payload or b"")
            elif method == WATCH:
                self._health.watch(call_id, payload or b"")
        return payments, refusals

    def _answer(self, batch: list[Payment], admit_ns: int) -> tuple[list[Answer], list[Refusal]]:
        """Encode, infer and decide the payments of one product."""
        in_time = [payment for payment in batch if payment.deadline_ns > admit_ns]
        late = [payment for payment in batch if payment.deadline_ns <= admit_ns]
        stamps = Stamps(admit_ns, admit_ns, admit_ns, admit_ns)
        answers = [_stood_in(p, StandIn.DEADLINE, stamps, len(batch)) for p in late]
        if not in_time:
            return answers, []

        generation = in_time[0].serving.generation
        matrix, checked = generation.schema.matrix([payment.row for payment in in_time])
        refusals = [
            refuse_row(in_time[i], row.violations) for i, row in checked.items() if row.violations
        ]
        if refusals:
            kept = [i for i in range(len(in_time)) if i not in checked or not checked[i].violations]
            if not kept:
                return answers, refusals
            matrix = matrix[kept]
            checked = {new: checked[i] for new, i in enumerate(kept) if i in checked}
            in_time = [in_time[i] for i in kept]
        encode_ns = self._clock_ns()
        scores = self._score(generation.champion.score, matrix)
        sound = (scores >= 0.0) & (scores <= 1.0)  # NaN fails both
        infer_ns = self._clock_ns()

        scored = in_time
        if not sound.all():
            stamps = Stamps(admit_ns, encode_ns, infer_ns, infer_ns)
            broken = np.flatnonzero(~sound).tolist()
            answers += [
                _stood_in(in_time[i], StandIn.MODEL_ERROR, stamps, len(in_time)) for i in broken
            ]
            scored = [in_time[i] for i in np.flatnonzero(sound).tolist()]
            scores = scores[sound]
        decisions = generation.policy.decide(
            scores,
            [payment.amount_minor for payment in scored],
            [payment.category for payment in scored],
            [payment.event_s for payment in scored],
            [payment.transaction_id for payment in scored],
        )
        stamps = Stamps(admit_ns, encode_ns, infer_ns, self._clock_ns())
        size = len(in_time)
        defaulted = {id(in_time[i]) for i, row in checked.items() if row.defaulted}
        answers += [
            Answer(
                payment,
                decision.action,
                decision,
                score,
                StandIn.NONE,
                stamps,
                size,
                payment.defaulted or id(payment) in defaulted,
            )
            for payment, decision, score in zip(scored, decisions, scores.tolist(), strict=True)
        ]
        return answers, refusals

    def _score(
        self,
        score: Callable[[NDArray[np.float32]], NDArray[np.float64]],
        matrix: NDArray[np.float32],
    ) -> NDArray[np.float64]:
        """Run the model; rows it fails on are NaN. One bad row does not fail its batch."""
        try:
            return score(matrix)
        except Exception as error:  # whatever a model raises is the model's error
            log.warning("the model failed on %d rows: %s", len(matrix), type(error).__name__)
            if len(matrix) == 1:
                return np.full(1, nan)
        return np.concatenate([self._score(score, matrix[i : i + 1]) for i in range(len(matrix))])

    def _record_and_reply(
        self, answers: list[Answer], refusals: list[Refusal], arrived_ns: int
    ) -> None:
        """Lay out every record and response, append them at once, then reply."""
        record_ns = self._clock_ns()
        elapsed_us = min((record_ns - arrived_ns) // 1000, 0xFFFFFFFF)
        first = self._journal.next_sequence + len(self._carried)
        records: list[bytes] = []
        responses: list[bytes] = []
        for answer in answers:
            response = self._response(answer, first + len(records), elapsed_us)
            responses.append(response)
            records.append(_record(answer, response, arrived_ns, record_ns))
        for refusal in refusals:
            records.append(_refused(refusal, arrived_ns, record_ns))

        if not self._append(records):
            responses = [
                self._unrecorded(answer, response, elapsed_us)
                for answer, response in zip(answers, responses, strict=True)
            ]
        clock_ns, reply = self._clock_ns, self._front.reply
        base_ns = clock_ns()
        offsets: list[int] = []
        for answer, response in zip(answers, responses, strict=True):
            found = reply(answer.payment.call_id, response)
            offsets.append(saturated(clock_ns() - base_ns) if found else FOUND_NOBODY)
        for refusal in refusals:
            found = self._front.fail(
                refusal.call_id, refusal.code, refusal.message, refusal.details
            )
            offsets.append(saturated(clock_ns() - base_ns) if found else FOUND_NOBODY)
        self._carried.append(Replied(first, base_ns, tuple(offsets)).encode())

    def _append(self, records: list[bytes]) -> bool:
        """Append what is carried and `records` together. False if the journal cannot."""
        carried, self._carried = self._carried, []
        try:
            self._journal.append(carried + records)
        except JournalError as error:
            log.error("%s", error)
            return False
        return True

    def _response(self, answer: Answer, sequence: int, elapsed_us: int) -> bytes:
        payment, decision = answer.payment, answer.decision
        decision_id = self._id_prefix + b"%012x" % sequence
        encoder = payment.serving.responses
        if decision is not None:
            return encoder.decision(
                decision_id,
                decision,
                elapsed_us,
                event_s=payment.event_s,
                cost_class=payment.serving.generation.policy.cost_class(
                    payment.amount_minor, payment.category
                ),
                defaulted=answer.defaulted,
            )
        return encoder.stand_in(
            decision_id, answer.action, answer.stand_in, elapsed_us, payment.event_s
        )

    def _unrecorded(self, answer: Answer, response: bytes, elapsed_us: int) -> bytes:
        """Answer by `on_record_failure`: the decision as it is, or the stand-in. Not recorded."""
        payment = answer.payment
        product = payment.serving.generation.product
        if product.on_record_failure == "stand_in" and answer.decision is not None:
            stood_in = _stood_in(payment, StandIn.MODEL_UNAVAILABLE, answer.stamps, 1)
            response = self._response(stood_in, 0, elapsed_us)
        return response.removesuffix(RECORDED)


def _by_product(payments: list[Payment]) -> Iterable[list[Payment]]:
    if len({payment.serving.index for payment in payments}) <= 1:
        return (payments,) if payments else ()
    batches: dict[int, list[Payment]] = {}
    for payment in payments:
        batches.setdefault(payment.serving.index, []).append(payment)
    return batches.values()


def _stood_in(payment: Payment, reason: StandIn, stamps: Stamps, batch_size: int) -> Answer:
    policy = payment.serving.generation.policy
    action = policy.stand_in(reason, payment.amount_minor, payment.category)
    return Answer(payment, action, None, nan, reason, stamps, batch_size, False)


def _record(answer: Answer, response: bytes, arrived_ns: int, record_ns: int) -> bytes:
    """Lay out a DECISION entry: the request and the response as they are, and the rest."""
    payment, decision, stamps = answer.payment, answer.decision, answer.stamps
    generation = payment.serving.generation
    request, flags = payment.payload, 0
    if generation.product.records.features != "full":
        request, left_out = _kept(payment)
        flags = int(Flag.FEATURES_LEFT_OUT) if left_out else 0
    if decision is not None:
        second_best, margin = decision.second_best, decision.margin
        probability, propensity = decision.probability, decision.propensity
        flags |= decision.flags & _JOURNALLED_FLAGS
    else:
        second_best, margin, probability, propensity = 0, inf, nan, 1.0
        if payment.deadline_ns <= arrived_ns:
            flags |= int(Flag.EXPIRED)
    head = DECISION_HEAD.pack(
        Kind.DECISION,
        flags,
        answer.action,
        second_best,
        answer.stand_in,
        payment.serving.index,
        generation.product.generation,
        answer.batch_size,
        arrived_ns,
        max(int(payment.deadline_ns), 0),
        saturated(stamps.admit_ns - arrived_ns),
        saturated(stamps.encode_ns - arrived_ns),
        saturated(stamps.infer_ns - arrived_ns),
        saturated(stamps.decide_ns - arrived_ns),
        saturated(record_ns - arrived_ns),
        answer.score,
        probability,
        propensity,
        margin,
        len(payment.traceparent),
        0,
        len(request),
        len(response),
    )
    return b"".join((head, payment.traceparent, request, response))


def _refused(refusal: Refusal, arrived_ns: int, record_ns: int) -> bytes:
    return Refused(
        arrival_ns=arrived_ns,
        refused_after_ns=saturated(record_ns - arrived_ns),
        code=refusal.code,
        product=refusal.product,
        traceparent=refusal.traceparent.decode(),
        fields=refusal.fields,
    ).encode()


def _kept(payment: Payment) -> tuple[bytes, bool]:
    """Return the request as `records.features` keeps it, and whether features were left out."""
    records = payment.serving.generation.product.records
    if records.features == "sampled" and draw(payment.transaction_id, _KEPT) < (
        records.share or 0.0
    ):
        return payment.payload, False
    request = DecideRequest.FromString(payment.payload)
    request.ClearField("features")
    request.ClearField("dense")
    return request.SerializeToString(), True
