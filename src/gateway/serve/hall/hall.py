"""The hall: whatever has arrived walks through

    admit ▶ encode ▶ infer ▶ decide ▶ record ▶ reply

in batches, on one thread. Nothing waits for a batch to fill; under load batches grow by
themselves, and every fixed cost is paid once a batch. The caller's faults become refusals,
ours become stand-ins, and no reply leaves before its record is in the journal.

A turn admits what has arrived, lets each payment wait in its product's lane, and then takes one
batch of one lane to its model: of the lane that had the least of the hall's time. Heavy models
run in the annex, and the hall collects what is done. So no product waits longer for another
than one batch takes, and what a lane has no room for is stood in for at once.
"""

from __future__ import annotations

import gc
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import compress

from gateway.journal import Generation, Rejected, Writer
from gateway.product import StandIn
from gateway.serve.crew.logs import OncePerSecond
from gateway.serve.crew.tally import Tally
from gateway.serve.fronts.front import (
    CALL,
    CHECK,
    DECIDE,
    MESSAGE_BYTES_MAX,
    SERVER_LIVE,
    TICK_MS,
    WATCH,
    Event,
    Front,
)
from gateway.serve.hall.admit import RESOURCE_EXHAUSTED, Arrival, Payment, Refusal, Serving, admit
from gateway.serve.hall.annex import IN_FLIGHT, Annex, Batch
from gateway.serve.hall.answer import Answer, stamps_of, stood_in, stood_in_at_once
from gateway.serve.hall.health import Health
from gateway.serve.hall.lane import BATCH_MAX, Lane
from gateway.serve.hall.recorder import Recorder
from gateway.serve.hall.scoring import Rows, encode, score
from gateway.serve.hall.shadow import Answered, Shadows
from gateway.serve.inference.inference import Inference

ANNEX_TICK_MS = 1
"""The loop wakes so often while a model in the annex works."""

LIGHT_NS = 100_000_000
"""For so long after a call of a light product the loop answers every arrival at once."""

REST_SHARE = 0.2
"""Without such calls the loop may rest while the annex is busy: so much of the shortest budget."""

SHED_SHARE = 0.5
"""Of the shortest budget: what would take longer even to stand in for is shed, unread."""

_TICKS_APART_NS = 50_000_000
_CYCLES_WHEN_IDLE = 5_000

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
        annex: Annex | None = None,
        shadows: Shadows | None = None,
        inference: Inference | None = None,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        """`measured_ns`: by `Serving.key` and number of rows, what its model took to warm up.

        `served`: by product; whose lanes' models are in the annex already, they stay there.
        """
        self._front = front
        self._served = dict(served)
        self._health = health
        self._clock_ns = clock_ns
        self._wall_s = wall_s
        self._annex = annex or Annex(clock_ns)
        self._shadows = shadows or Shadows(clock_ns)
        self._inference = inference or Inference(front, clock_ns)
        self._offer()
        self._journal = journal
        self._recorder = Recorder(front, journal, clock_ns)
        self._lanes: dict[int, Lane] = {}
        self._heavy: list[Lane] = []
        self._leaving: list[Lane] = []  # of generations that take no new calls
        # By product, the indices of those that have left and that the journal still lists.
        self._left: dict[str, list[int]] = {}
        for serving in served.values():
            self._open_lanes(serving, measured_ns or {})
        self._budget_ns = self._shortest_budget_ns()
        self._busy: list[Lane] = []  # light lanes in which payments wait
        self._served_ns = 0  # the hall's time that the lane served last has had
        self._closed: set[int] = set()  # lanes that had no room at the last look
        # What has arrived and was not read yet: (events, arrived_ns, drained_ns).
        self._unread: deque[tuple[list[Event], int, int]] = deque()
        self._unread_count = 0
        self._unread_each_ns = 20_000.0
        self._light_ns = 0  # when a light product was last asked
        self._ticked_ns = clock_ns()

    @property
    def tally(self) -> Tally:
        """What the hall has done so far."""
        return self._recorder.tally

    @property
    def is_busy(self) -> bool:
        """Whether any call that has arrived waits for its answer."""
        works = self._annex.is_busy or self._inference.is_busy
        return bool(self._busy or self._unread or works) or any(map(len, self._heavy))

    @property
    def wait_ms(self) -> int:
        """How long the front may wait for the next arrival before it calls `turn` or `idle`."""
        if self._busy or self._unread:
            return 0
        works = self._inference.is_busy or (self._heavy and self._annex.is_busy)
        return ANNEX_TICK_MS if works else TICK_MS

    def rest(self) -> bool:
        """Wait for the annex instead of the front, where nothing light is asked. False: do not.

        To look at each arrival would take from the models the time that they need: who is stood
        in for at once and asks again at once could starve them for ever.
        """
        if not self._heavy or self._busy or self._unread or not self._annex.is_busy:
            return False
        now_ns = self._clock_ns()
        if now_ns - self._light_ns < LIGHT_NS:
            return False
        due_ns = min(
            self._annex_due_ns(lane, now_ns)
            for lane in self._heavy
            if self._annex.in_flight(lane.index)
        )
        rest_ns = min(max(due_ns - now_ns, ANNEX_TICK_MS * 1e6), REST_SHARE * self._budget_ns)
        self._annex.wait(rest_ns / 1e9)
        return True

    def wake_with(self, wake: Callable[[], None]) -> None:
        """Let `wake` be called, on another thread, whenever the annex is done with a batch."""
        self._annex.wake = self._inference.wake = wake

    def turn(self, events: list[Event], arrived_ns: int) -> None:
        """Take in what has arrived, and take one batch of what waits to its model."""
        try:
            self._turn(events, arrived_ns)
        except Exception:
            # Nothing that is known gets here; whoever is not answered yet must not wait for ever.
            log.exception("a turn over %d events failed", len(events))
            self._recorder.give_up([event[1] for event in events if event[0] == CALL])

    def _turn(self, events: list[Event], arrived_ns: int) -> None:
        now_ns = self._clock_ns()
        if now_ns - self._ticked_ns > _TICKS_APART_NS:
            self._tick(now_ns)
        if self._unread or len(events) > BATCH_MAX:
            self._queue(events, arrived_ns, now_ns)
            events, arrived_ns, drained_ns = self._next_unread()
            self._take_in(events, Arrival(arrived_ns, drained_ns, self._wall_s()))
        elif events:
            self._take_in(events, Arrival(arrived_ns, now_ns, self._wall_s()))
        if self._heavy and self._annex.is_busy:
            self._collect()
        for lane in self._heavy:
            if len(lane):
                self._send_to_annex(lane)
                self._part_with_surplus(lane)
        if self._busy:
            self._serve(min(self._busy, key=_used) if len(self._busy) > 1 else self._busy[0])
            for lane in tuple(self._busy):
                self._part_with_surplus(lane)
        self._shadows.is_pressed = is_pressed = bool(self._busy or self._unread)
        self._inference.is_pressed = is_pressed or bool(self._heavy and self._annex.is_busy)
        if self._inference.is_busy:
            self._inference.leave()

    def idle(self) -> None:
        """Nothing arrived: do what can wait."""
        if self.is_busy:
            self.turn([], self._clock_ns())
        self._tick(self._clock_ns())
        if gc.get_count()[0] > _CYCLES_WHEN_IDLE:
            gc.collect()

    def _tick(self, now_ns: int) -> None:
        self._ticked_ns = now_ns
        self._recorder.carry(self._shadows.entries())
        self._recorder.tick()
        self._health.catch_up()

    def looked_after(self, gap_ns: int) -> None:
        """Take in how long the loop did not look at the front, where that was never longer."""
        self.tally.worst_pause_ns = gap_ns

    def paused(self, start_ns: int, duration_ns: int) -> None:
        """Record that the loop stood still."""
        self._recorder.paused(start_ns, duration_ns)

    # What is served.

    def succeed(
        self, serving: Serving, measured_ns: Mapping[str, Mapping[int, int]], entry: Generation
    ) -> None:
        """Serve a product's new generation from here on. Called between two turns.

        What waits in the lanes of the one before stays there, and is decided by that.

        Raises:
            JournalError: the journal cannot take the new generation: the one before is served on.
        """
        name = serving.generation.name
        self._journal.announce(entry)
        before = self._served[name]
        self._open_lanes(serving, measured_ns)
        self._served[name] = serving
        self._offer()
        self._budget_ns = self._shortest_budget_ns()
        self._leaving += [self._lanes[one.lane] for one in before.deciding]
        self._health.tell(f"generation/{name}", serving=True)

    def _offer(self) -> None:
        self._inference.serve(serving.generation for serving in self._served.values())

    @property
    def is_changing(self) -> bool:
        """Whether a generation that takes no new calls still has some under way."""
        return bool(self._leaving)

    def reject(self, rejected: Rejected) -> None:
        """Let the journal say that a change of a product is not served, and health show it.

        Without a reason it says that the folder holds again what is served.
        """
        self._recorder.carry([rejected.encode()])
        self._health.tell(f"generation/{rejected.product}", serving=not rejected.why)

    def left(self) -> list[Serving]:
        """Return the generations that have nothing under way any more, and forget them."""
        gone: list[Serving] = []
        for lane in tuple(self._leaving):
            if len(lane) or (lane.in_annex and self._annex.in_flight(lane.index)):
                continue
            self._leaving.remove(lane)
            del self._lanes[lane.index]
            if lane.in_annex:
                self._heavy.remove(lane)
                self._annex.close(lane.index)
            gone.append(lane.serving)
            index, name = lane.serving.index, lane.serving.generation.name
            if all(one.serving.index != index for one in self._leaving):
                # What shadows have said of it may not be in the journal yet: it has time until
                # another leaves.
                *before, _ = left = [*self._left.get(name, ()), index]
                for past in before:
                    if self._shadows.let_go(past):
                        self._journal.retire(past)
                        left.remove(past)
                self._left[name] = left
        return gone

    def _open_lanes(self, serving: Serving, measured_ns: Mapping[str, Mapping[int, int]]) -> None:
        now_ns = self._clock_ns()
        for one in serving.deciding:
            in_annex = one.lane in self._annex
            lane = Lane(one, measured_ns.get(one.key, {}), now_ns, in_annex=in_annex)
            self._lanes[one.lane] = lane
            if in_annex:
                self._heavy.append(lane)

    def _shortest_budget_ns(self) -> int:
        return min((one.budget_ns for one in self._served.values()), default=0)

    # What has arrived.

    def _queue(self, events: list[Event], arrived_ns: int, drained_ns: int) -> None:
        """Let events wait unread; shed those that could not even be stood in for in time."""
        limit = int(SHED_SHARE * self._budget_ns / self._unread_each_ns)
        room = max(limit - self._unread_count, BATCH_MAX)
        kept, beyond = events[:room], events[room:]
        if beyond:
            sheddable = [event[1] for event in beyond if event[0] == CALL and event[2] == DECIDE]
            kept += [event for event in beyond if event[0] != CALL or event[2] != DECIDE]
            retry_ms = max(1, round(self._unread_count * self._unread_each_ns / 1e6))
            self._recorder.shed(sheddable, arrived_ns, drained_ns, retry_ms)
        if kept:
            self._unread.append((kept, arrived_ns, drained_ns))
            self._unread_count += len(kept)

    def _next_unread(self) -> tuple[list[Event], int, int]:
        events, arrived_ns, drained_ns = self._unread.popleft()
        if len(events) > BATCH_MAX:
            self._unread.appendleft((events[BATCH_MAX:], arrived_ns, drained_ns))
            events = events[:BATCH_MAX]
        self._unread_count -= len(events)
        return events, arrived_ns, drained_ns

    def _take_in(self, events: list[Event], arrival: Arrival) -> None:
        """Let what can be decided wait in its lane; refuse, or stand in for, the others."""
        begun_ns = self._clock_ns()
        self._look_for_room(arrival.at_ns, begun_ns)
        payments, refusals = self._admit(events, arrival)
        arrival.admitted_ns = now_ns = self._clock_ns()
        if (
            len(payments) == 1
            and not (self._busy or refusals)
            and self._answered_alone(payments[0], now_ns)
        ):
            return
        answers: list[Answer] = []
        for lane, asked in self._by_lane(payments):
            if not lane.in_annex:
                self._light_ns = begun_ns
            taken = self._taken_in(lane, asked, arrival)
            for payment in asked[taken:]:
                answers.append(self._turned_away(lane, payment, begun_ns))
        if answers or refusals:
            self._recorder.leave(answers, refusals)
        if len(events) >= 16:
            each_ns = (self._clock_ns() - begun_ns) / len(events)
            self._unread_each_ns += 0.1 * (each_ns - self._unread_each_ns)

    def _answered_alone(self, payment: Payment, now_ns: int) -> bool:
        """Take a light payment to its model at once, where nothing waits. False: it has to."""
        lane = self._lanes[payment.serving.lane]
        if lane.in_annex or not lane.circuit.lets_through(now_ns):
            return False
        takes_ns = lane.cost_ns.of(1, now_ns) + self._recorder.cost_ns.of(1, now_ns)
        if payment.deadline_ns < now_ns + takes_ns:
            return False
        self._light_ns = now_ns
        self._answer_surely(lane, [payment])
        return True

    def _by_lane(self, payments: list[Payment]) -> Iterable[tuple[Lane, list[Payment]]]:
        if not payments:
            return ()
        if len(self._lanes) == 1 or len(payments) == 1:
            return ((self._lanes[payments[0].serving.lane], payments),)
        asked: dict[int, list[Payment]] = {}
        for payment in payments:
            asked.setdefault(payment.serving.lane, []).append(payment)
        return [(self._lanes[index], some) for index, some in asked.items()]

    def _taken_in(self, lane: Lane, asked: list[Payment], arrival: Arrival) -> int:
        """Let as many wait in a lane as it has room for; return how many, from the first on."""
        if lane.index in self._closed:
            return 0
        count, is_idle = len(asked), not len(lane)
        if count > 1 or not is_idle or lane.in_annex or self._busy:
            count = min(count, int(self._room(lane, arrival.at_ns, arrival.admitted_ns)))
            if count <= 0:
                return 0
        if is_idle and not lane.in_annex:
            # A lane that comes back has no credit from the time when it had no calls.
            lane.used_ns = max(lane.used_ns, self._served_ns)
            self._busy.append(lane)
        lane.put(asked if count == len(asked) else asked[:count])
        return count

    def _turned_away(self, lane: Lane, payment: Payment, now_ns: int) -> Answer:
        # Also an idle model would be too late for what has waited unseen.
        is_late = payment.deadline_ns <= now_ns + lane.cost_ns.of(1, now_ns)
        reason = StandIn.DEADLINE if is_late else StandIn.OVERLOAD
        return stood_in_at_once(payment, reason, self._clock_ns())

    def _look_for_room(self, arrived_ns: int, now_ns: int) -> None:
        """Close the lanes that have no room; their requests are read without the features."""
        if self._closed or self._unread or self._busy or self._heavy:
            self._closed = {
                lane.index
                for lane in self._lanes.values()
                if len(lane) and self._room(lane, arrived_ns, now_ns) < 1.0
            }

    def _room(self, lane: Lane, arrived_ns: int, now_ns: int) -> float:
        """Return how many of the calls that have just arrived can wait in a lane.

        At least one in a lane that has nothing to do: what its model can do then is for it to say.
        """
        deadline_ns = arrived_ns + lane.serving.budget_ns
        room = lane.room(now_ns, self._time_ns(lane, deadline_ns, now_ns))
        has_work = len(lane) or (lane.in_annex and self._annex.in_flight(lane.index))
        return room if has_work else max(1.0, room)

    def _time_ns(self, lane: Lane, deadline_ns: float, now_ns: int) -> float:
        """Return how much time a lane's model has for what waits there, until a deadline."""
        slack_ns = deadline_ns - now_ns - self._recorder.cost_ns.of(1, now_ns)
        if lane.in_annex:
            waits_ns = self._free_ns(lane, now_ns) - now_ns
            return slack_ns - self._annex_margin_ns(lane, now_ns) - waits_ns
        if len(self._busy) < 2 and (not self._busy or self._busy[0] is lane):
            return slack_ns
        others = [one for one in self._busy if one is not lane]
        others_ns = sum(one.backlog_ns(now_ns) for one in others)
        return max(slack_ns / (len(others) + 1), slack_ns - others_ns)

    def _part_with_surplus(self, lane: Lane) -> None:
        """Stand in for what a lane took in and turns out not to get done."""
        if len(lane):
            now_ns = self._clock_ns()
            time_ns = self._time_ns(lane, lane.last_deadline_ns, now_ns)
            if surplus := lane.surplus(now_ns, time_ns):
                self._stand_in_for(surplus, StandIn.OVERLOAD)
                if not len(lane) and not lane.in_annex:
                    self._busy.remove(lane)

    def _admit(self, events: list[Event], arrival: Arrival) -> tuple[list[Payment], list[Refusal]]:
        """Split what arrived into payments and refusals; health is answered at once."""
        payments: list[Payment] = []
        refusals: list[Refusal] = []
        served, closed = self._served, self._closed
        for event in events:
            try:
                if event[0] == CALL and event[2] == DECIDE:
                    one = admit(event, arrival, served, closed)
                    (payments if type(one) is Payment else refusals).append(one)  # type: ignore[arg-type]
                else:
                    self._attend(event, arrival)
            except Exception:
                log.exception("a call could not be admitted")
                self._recorder.give_up([event[1]])
        return payments, refusals

    def _attend(self, event: Event, arrival: Arrival) -> None:
        """Answer a call about health, hand one over, or take in that a caller has left."""
        kind, call_id, method, payload = event[:4]
        if kind != CALL:
            self._health.cancel(call_id)
            self._inference.cancel(call_id)
        elif len(payload or b"") > MESSAGE_BYTES_MAX:
            message = f"the message is too long: at most {MESSAGE_BYTES_MAX} bytes are taken"
            self._front.fail(call_id, RESOURCE_EXHAUSTED, message)
        elif method >= SERVER_LIVE:
            self._inference.submit(event, arrival, is_ready=self._health.is_serving)
        elif method == CHECK:
            self._health.check(call_id, payload or b"")
        elif method == WATCH:
            self._health.watch(call_id, payload or b"")

    # What waits for a model on the loop.

    def _serve(self, lane: Lane) -> None:
        """Take a batch of a lane to its model, and stand in for what cannot be decided in time."""
        begun_ns = self._clock_ns()
        if not lane.circuit.lets_through(begun_ns):
            self._stand_in_for(lane.clear(), StandIn.MODEL_ERROR)
        else:
            reply_ns = self._recorder.cost_ns.of(min(len(lane), BATCH_MAX), begun_ns)
            now_ns = begun_ns
            if late := lane.late(now_ns, now_ns, reply_ns):
                self._stand_in_for(late, StandIn.DEADLINE)
                now_ns = self._clock_ns()
            if batch := lane.batch(now_ns, now_ns, reply_ns):
                self._answer_surely(lane, batch)
        lane.used_ns += self._clock_ns() - begun_ns
        self._served_ns = lane.used_ns
        if not len(lane):
            self._busy.remove(lane)

    def _answer_surely(self, lane: Lane, batch: list[Payment]) -> None:
        """Answer a batch; a fault of ours costs the call it comes from, not the others."""
        try:
            answers, refusals, rows, batch = self._answer(lane, batch)
        except Exception:
            log.exception("a batch of %d calls failed", len(batch))
            if len(batch) == 1:
                self._stand_in_for(batch, StandIn.MODEL_ERROR)
            else:
                for payment in batch:
                    self._answer_surely(lane, [payment])
            return
        first = self._recorder.leave(answers, refusals)
        if lane.serving.beside and first and answers:
            self._shadows.take(Answered(lane.serving, rows, batch, answers, first))

    def _answer(
        self, lane: Lane, batch: list[Payment]
    ) -> tuple[list[Answer], list[Refusal], Rows, list[Payment]]:
        """Encode, infer and decide payments of one lane. Also returns the rows, and whose."""
        begun_ns = self._clock_ns()
        rows, batch, refusals, defaulted = encode(batch)
        if not batch:
            return [], refusals, rows, batch
        encode_ns = self._clock_ns()
        scores = score(lane.serving.classifier, rows)
        infer_ns = self._clock_ns()
        answers = self._decide(lane, batch, scores, defaulted, encode_ns, infer_ns)
        ended_ns = self._clock_ns()
        lane.cost_ns.learn(len(batch), ended_ns - begun_ns, ended_ns)
        return answers, refusals, rows, batch

    def _decide(
        self,
        lane: Lane,
        batch: Sequence[Payment],
        scores: list[float],
        defaulted: set[int],
        encode_ns: int,
        infer_ns: int,
    ) -> list[Answer]:
        """Turn scores into actions. What is no score, or comes too late, stands in."""
        answers: list[Answer] = []
        size, policy = len(batch), lane.serving.policy
        if not policy.takes(scores):
            scores = [policy.snapped(one) for one in scores]
            sound = [policy.takes([one]) for one in scores]
            for payment in compress(batch, [not is_sound for is_sound in sound]):
                stamps = stamps_of(payment, encode_ns, infer_ns, infer_ns)
                answers.append(stood_in(payment, StandIn.MODEL_ERROR, stamps, size))
            batch, scores = list(compress(batch, sound)), list(compress(scores, sound))
        lane.circuit.saw(bool(batch), infer_ns)
        decisions = policy.decide(scores, batch)
        decide_ns = self._clock_ns()
        last: Arrival | None = None
        for payment, decision, its_score in zip(batch, decisions, scores, strict=True):
            if payment.arrival is not last:
                last = payment.arrival
                stamps = stamps_of(payment, encode_ns, infer_ns, decide_ns)
            if payment.deadline_ns <= decide_ns:
                answers.append(stood_in(payment, StandIn.DEADLINE, stamps, size))
                continue
            was_defaulted = payment.defaulted or payment.call_id in defaulted
            answers.append(
                Answer(
                    payment,
                    decision.action,
                    decision,
                    its_score,
                    StandIn.NONE,
                    stamps,
                    size,
                    was_defaulted,
                )
            )
        return answers

    def _stand_in_for(self, payments: Sequence[Payment], reason: StandIn) -> None:
        now_ns = self._clock_ns()
        self._recorder.leave([stood_in_at_once(one, reason, now_ns) for one in payments], ())

    # What waits for a model in the annex.

    def _annex_margin_ns(self, lane: Lane, now_ns: int) -> float:
        """Return how long it may take from a batch that is done to its replies."""
        reply_ns = self._recorder.cost_ns.of(lane.batch_limit(now_ns), now_ns)
        return ANNEX_TICK_MS * 1e6 + reply_ns

    def _annex_due_ns(self, lane: Lane, now_ns: int) -> float:
        """Return when the first of what is under way has to be stood in for."""
        margin_ns = self._annex_margin_ns(lane, now_ns)
        return (
            min(
                batch.payments[min(batch.answered, len(batch.payments) - 1)].deadline_ns
                for batch in self._annex.in_flight(lane.index)
            )
            - margin_ns
        )

    def _free_ns(self, lane: Lane, now_ns: int) -> float:
        """Return when the model will have done what is under way."""
        free_ns = 0.0
        for one in self._annex.in_flight(lane.index):
            free_ns = max(free_ns, one.begun_ns or now_ns) + one.expected_ns
        return max(free_ns, now_ns)

    def _send_to_annex(self, lane: Lane) -> None:
        """Keep a lane's model in the annex at work, and stand in for what it cannot do in time."""
        now_ns = self._clock_ns()
        if not lane.circuit.lets_through(now_ns):
            self._stand_in_for(lane.clear(), StandIn.MODEL_ERROR)
            return
        under_way = self._annex.in_flight(lane.index)
        while len(lane):
            margin_ns, begin_ns = self._annex_margin_ns(lane, now_ns), self._free_ns(lane, now_ns)
            if late := lane.late(begin_ns, now_ns, margin_ns):
                self._stand_in_for(late, StandIn.DEADLINE)
            elif len(under_way) >= IN_FLIGHT:
                break
            elif batch := lane.batch(begin_ns, now_ns, margin_ns):
                self._submit(lane, batch)
            else:
                break
            now_ns = self._clock_ns()

    def _submit(self, lane: Lane, batch: list[Payment]) -> None:
        try:
            rows, batch, refusals, defaulted = encode(batch)
        except Exception:
            log.exception("a batch of %d calls could not be encoded", len(batch))
            self._stand_in_for(batch, StandIn.MODEL_ERROR)
            return
        if refusals:
            self._recorder.leave((), refusals)
        if batch:
            now_ns = self._clock_ns()
            expected_ns = lane.cost_ns.of(len(batch), now_ns)
            self._annex.submit(Batch(lane.index, batch, rows, defaulted, now_ns, expected_ns))

    def _collect(self) -> None:
        """Answer what the annex has done, and stand in for what it will not do in time."""
        for batch in self._annex.done():
            self._answer_from_annex(self._lanes[batch.lane], batch)
        for lane in self._heavy:
            now_ns = self._clock_ns()
            leaves_ns = now_ns + self._annex_margin_ns(lane, now_ns)
            for batch in self._annex.in_flight(lane.index):
                due = batch.answered
                while due < len(batch.payments) and batch.payments[due].deadline_ns <= leaves_ns:
                    due += 1
                if due > batch.answered:
                    self._stand_in_for(batch.payments[batch.answered : due], StandIn.DEADLINE)
                    batch.answered = due

    def _answer_from_annex(self, lane: Lane, batch: Batch) -> None:
        payments = batch.payments[batch.answered :]
        if batch.scores is None:
            self._stand_in_for(payments, StandIn.DEADLINE)
            return
        took_ns = batch.ended_ns - batch.begun_ns
        lane.cost_ns.learn(len(batch.payments), took_ns, batch.ended_ns)
        if not payments:
            return
        scores = batch.scores[batch.answered :]
        try:
            answers = self._decide(
                lane, payments, scores, batch.defaulted, batch.encoded_ns, batch.ended_ns
            )
        except Exception:
            log.exception("a batch of %d calls failed", len(payments))
            self._stand_in_for(payments, StandIn.MODEL_ERROR)
            return
        first = self._recorder.leave(answers, ())
        if lane.serving.beside and first:
            rows = batch.rows if isinstance(batch.rows, bytes) else batch.rows[batch.answered :]
            self._shadows.take(Answered(lane.serving, rows, payments, answers, first))


def _used(lane: Lane) -> int:
    return lane.used_ns
