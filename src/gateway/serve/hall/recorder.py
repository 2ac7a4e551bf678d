"""The way out: a response and a record are laid out, the record appended, then the reply leaves.

No reply leaves before its record is in the journal. Where the journal cannot take it, the
product's `on_record_failure` decides what goes out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import grpc

from gateway.errors import JournalError
from gateway.journal import FOUND_NOBODY, Pause, Replied, Shed, Writer, decision_id, saturated
from gateway.product import StandIn
from gateway.serve.crew.logs import OncePerSecond
from gateway.serve.crew.tally import Tally
from gateway.serve.fronts.front import Front
from gateway.serve.hall.admit import RESOURCE_EXHAUSTED, Arrival, Refusal, retry_info
from gateway.serve.hall.answer import Answer, stood_in
from gateway.serve.hall.estimate import CostEstimate
from gateway.serve.hall.record import decision_record, refusal_record
from gateway.serve.hall.response import RECORDED
from gateway.v1.decision_pb2 import DecideResponse

_LATEST_NS = FOUND_NOBODY - 1
_INTERNAL: int = grpc.StatusCode.INTERNAL.value[0]

log = logging.getLogger(__name__)
log.addFilter(OncePerSecond())


class Recorder:
    """Takes answers and refusals to the journal, then to their callers."""

    def __init__(self, front: Front, journal: Writer, clock_ns: Callable[[], int]) -> None:
        self.tally = Tally()
        self.cost_ns = CostEstimate({}, clock_ns())
        self._front = front
        self._journal = journal
        self._clock_ns = clock_ns
        # A decision's id ends in the twelve digits of its sequence.
        self._id_prefix = decision_id(journal.boot_id, journal.worker, 0)[:-12].encode()
        # Entries that ride with the next append: reply times, pauses, shed calls.
        self._carried: list[bytes] = []

    def leave(self, answers: Sequence[Answer], refusals: Sequence[Refusal]) -> int:
        """Record and reply; a fault of ours costs the call it comes from, not the others.

        Returns the sequence of the first answer; 0 where they did not leave together.
        """
        recorded = self._journal.next_sequence
        try:
            return self._record_and_reply(answers, refusals)
        except Exception:
            log.exception("%d calls failed on their way out", len(answers) + len(refusals))
        if self._journal.next_sequence != recorded:
            # Past the record: whoever is not answered yet must not be recorded twice.
            self.give_up([*(a.payment.call_id for a in answers), *(r.call_id for r in refusals)])
        elif len(answers) + len(refusals) > 1:
            for answer in answers:
                self.leave([answer], ())
            for refusal in refusals:
                self.leave((), [refusal])
        elif answers and answers[0].decision is not None:
            self.leave([_failed(answers[0])], ())
        else:
            self.give_up([*(a.payment.call_id for a in answers), *(r.call_id for r in refusals)])
        return 0

    def carry(self, entries: Sequence[bytes]) -> None:
        """Let entries ride with the next append."""
        self._carried += entries

    def give_up(self, call_ids: Iterable[Any]) -> None:
        """End calls for which there is not even a stand-in."""
        for call_id in call_ids:
            self._front.fail(call_id, _INTERNAL, "the gateway failed on this call")

    def shed(
        self, call_ids: Sequence[Any], first_arrival_ns: int, last_arrival_ns: int, retry_ms: int
    ) -> None:
        """Turn calls away unread; the journal counts them."""
        message = "more calls have arrived than can be answered in time"
        details = retry_info(RESOURCE_EXHAUSTED, message, retry_ms)
        for call_id in call_ids:
            self._front.fail(call_id, RESOURCE_EXHAUSTED, message, details, retry_ms)
        self.tally.shed += len(call_ids)
        self._carried.append(Shed(first_arrival_ns, last_arrival_ns, len(call_ids)).encode())

    def paused(self, start_ns: int, duration_ns: int) -> None:
        """Record that the loop stood still."""
        self._carried.append(Pause(start_ns, duration_ns).encode())

    def tick(self) -> None:
        """Write what the last replies left to say; let the journal flush and try again."""
        if self._carried:
            self._append([])
        self._journal.tick()

    def _record_and_reply(self, answers: Sequence[Answer], refusals: Sequence[Refusal]) -> int:
        """Lay out every response and record, append them at once, then reply."""
        begun_ns = self._clock_ns()
        first = self._journal.next_sequence + len(self._carried)
        responses: list[bytes] = []
        records: list[bytes] = []
        last: Arrival | None = None
        after_ns = 0
        for sequence, answer in enumerate(answers, first):
            arrival = answer.payment.arrival
            if arrival is not last:
                last, after_ns = arrival, saturated(begun_ns - arrival.at_ns)
            response = _response(answer, self._id_prefix + b"%012x" % sequence, after_ns // 1000)
            responses.append(response)
            records.append(decision_record(answer, response, after_ns))
        for refusal in refusals:
            after_ns = saturated(begun_ns - refusal.arrival.at_ns)
            records.append(refusal_record(refusal, after_ns))
        if not self._append(records):
            responses = [
                _response(
                    _unrecorded(answer),
                    _id_of(response),
                    saturated(begun_ns - answer.payment.arrival.at_ns) // 1000,
                )[: -len(RECORDED)]
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
        ended_ns = clock_ns()
        self.cost_ns.learn(len(offsets_ns), ended_ns - begun_ns, ended_ns)
        self._carried.append(Replied(first, base_ns, tuple(offsets_ns)).encode())
        tally = self.tally
        for answer in answers:
            if answer.decision is None:
                tally.stood_in += 1
            else:
                tally.answered += 1
        tally.refused += len(refusals)
        return first

    def _append(self, records: list[bytes]) -> bool:
        """Append what is carried and `records` together. False if the journal cannot."""
        carried, self._carried = self._carried, []
        try:
            self._journal.append(carried + records)
        except JournalError as error:
            log.error("%s", error)
            return False
        return True


def _failed(answer: Answer) -> Answer:
    return stood_in(answer.payment, StandIn.MODEL_ERROR, answer.stamps, 0)


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
