"""The Open Inference Protocol beside the hall: a model's own outputs for its own inputs.

Decisions come first. The hall hands a call over unread and sends what is done; the rest happens
on two threads. The reader decodes, checks and lays out answers. It does not take the interpreter
for long at a time: it rests after each call, longer while the hall is busy, and gives way to the
hall within half a millisecond. The runner runs the models, with the annex's low priority, and
lets decisions that wait go first. The reader keeps the common priority: whoever holds the
interpreter must not wait for the processor.

Calls wait by priority, then by deadline. What cannot be answered in time is not run.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from importlib.metadata import version
from itertools import count
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, NamedTuple

import grpc
from google.protobuf.message import DecodeError, Message

from gateway.inference import open_inference_pb2 as pb
from gateway.model import Generation
from gateway.product.suggest import suggest
from gateway.serve.crew.logs import OncePerSecond
from gateway.serve.crew.priority import step_back
from gateway.serve.fronts.front import (
    MODEL_INFER,
    MODEL_METADATA,
    MODEL_READY,
    SERVER_LIVE,
    SERVER_METADATA,
    SERVER_READY,
    Event,
    Front,
)
from gateway.serve.hall.admit import Arrival, bad_request, retry_info, summary
from gateway.serve.inference.offered import Offered, Offers
from gateway.serve.inference.tensors import Asked, read, response

UNREAD_MAX = 256
"""Calls that are not answered yet, whatever they ask: what comes on top is turned away unread."""

WAITING_MAX = 128
"""Calls that wait for a model: of more, the last in the order is turned away."""

LONGEST_NS = 10_000_000_000
"""No call takes longer: a worker that drains waits for what it has taken in."""

REST, REST_PRESSED = 3.0, 19.0
"""So many times as long as the reader works it rests; the latter while decisions wait."""

SWITCH_S = 0.0005
"""How long the hall may wait for a thread that holds the interpreter: Python's default is 5 ms."""

GIVE_WAY_NS, GIVE_WAY_LOOK_S = 20_000_000, 0.002
"""So long a run waits for decisions to be done, and so often it looks."""

LEAVING_MAX = 16
"""Answers that are sent in one turn of the hall."""

RETRY_MS = 20

_END_S = 2.0
_LAST = 2**64
_EXTENSIONS = ("schedule_policy",)

_INVALID_ARGUMENT: int = grpc.StatusCode.INVALID_ARGUMENT.value[0]
_NOT_FOUND: int = grpc.StatusCode.NOT_FOUND.value[0]
_RESOURCE_EXHAUSTED: int = grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
_DEADLINE_EXCEEDED: int = grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
_UNIMPLEMENTED: int = grpc.StatusCode.UNIMPLEMENTED.value[0]
_INTERNAL: int = grpc.StatusCode.INTERNAL.value[0]

_REQUESTS: Mapping[int, type[Message]] = {
    SERVER_LIVE: pb.ServerLiveRequest,
    SERVER_READY: pb.ServerReadyRequest,
    MODEL_READY: pb.ModelReadyRequest,
    SERVER_METADATA: pb.ServerMetadataRequest,
    MODEL_METADATA: pb.ModelMetadataRequest,
    MODEL_INFER: pb.ModelInferRequest,
}

log = logging.getLogger(__name__)
log.addFilter(OncePerSecond())


class _Fault(NamedTuple):
    """How a call ends that is not answered."""

    code: int
    message: str
    details: bytes | None = None
    retry_ms: int | None = None


class _Done(NamedTuple):
    """A call's end: its answer, a fault, or None where its caller left."""

    call_id: Any
    answer: bytes | _Fault | None


class _Came(NamedTuple):
    """A call as it arrived."""

    event: Event
    arrival: Arrival
    is_ready: bool


class _Left(NamedTuple):
    """A caller that waits no more."""

    call_id: Any


@dataclass(slots=True, eq=False)
class _Run:
    """A ModelInfer call on its way through its model. Times are monotonic.

    `is_over`: it was answered meanwhile. `values` are None where it was not run, `failed` where
    the model raised.
    """

    call_id: Any
    request_id: str
    model: Offered
    asked: Asked
    deadline_ns: float
    is_over: bool = False
    failed: bool = False
    values: list[Any] | None = None


_TIMEOUT = _Fault(
    _DEADLINE_EXCEEDED,
    "timeout: the model cannot answer by the call's deadline, its timeout parameter, or within "
    f"{LONGEST_NS // 10**9} s",
)
_TOO_MANY = _Fault(
    _RESOURCE_EXHAUSTED,
    (_TOO_MANY_SAID := "too many calls wait: try again later, or ask for several rows in one call"),
    retry_info(_RESOURCE_EXHAUSTED, _TOO_MANY_SAID, RETRY_MS),
    RETRY_MS,
)


class Inference:
    """The service. A context manager: it starts and ends threads; without them it is not there.

    All of it but `under_way` and `is_pressed` is for the hall's thread.
    """

    def __init__(self, front: Front, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._front = front
        self._clock_ns = clock_ns
        self._offers = Offers(())
        self._unanswered = 0
        self._inbox: SimpleQueue[_Came | _Left | _Run | None] = SimpleQueue()
        self._done: SimpleQueue[_Done] = SimpleQueue()
        # What the reader and the runner share, under `_changed`.
        self._changed = threading.Condition()
        self._waiting: list[tuple[int, float, int, _Run]] = []
        self._running: _Run | None = None
        self._ends = False
        self._serial = count()
        self._threads: list[threading.Thread] = []
        self._switch_s = sys.getswitchinterval()
        self.wake: Callable[[], None] = _nobody_waits
        self.is_pressed = False  # decisions wait: set by the hall

    def __enter__(self) -> Inference:
        sys.setswitchinterval(SWITCH_S)
        for work, name in ((self._read, "inference"), (self._run, "inference run")):
            thread = threading.Thread(target=work, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._changed:
            self._ends = True
            self._changed.notify_all()
        self._inbox.put(None)
        for thread in self._threads:
            thread.join(_END_S)
        sys.setswitchinterval(self._switch_s)

    # On the hall's thread.

    @property
    def is_busy(self) -> bool:
        """Whether any call waits for its answer."""
        return self._unanswered > 0

    @property
    def under_way(self) -> int:
        """How many calls wait for a model, or run in one, that were not answered yet."""
        with self._changed:
            return len(self._under_way())

    def serve(self, generations: Iterable[Generation]) -> None:
        """Serve the models of these generations from here on. What is under way goes on."""
        self._offers = Offers(generations)

    def submit(self, event: Event, arrival: Arrival, *, is_ready: bool) -> None:
        """Take in a call of one of the service's methods. `is_ready`: new calls are welcome."""
        call_id, method, payload = event[1:4]
        if not self._threads:
            self._front.fail(call_id, _UNIMPLEMENTED, "the service is not there")
        elif method in (SERVER_LIVE, SERVER_READY):
            # Answered whatever waits: they say how the loop is.
            _send(self._front, _Done(call_id, _state(method, payload or b"", is_ready)))
        elif self._unanswered >= UNREAD_MAX:
            _send(self._front, _Done(call_id, _TOO_MANY))
        else:
            self._unanswered += 1
            self._inbox.put(_Came(event, arrival, is_ready))

    def cancel(self, call_id: Any) -> None:
        """A caller left; whatever it had asked."""
        if self._unanswered:
            self._inbox.put(_Left(call_id))

    def leave(self) -> None:
        """Send some of what is done."""
        with suppress(Empty):
            for _ in range(LEAVING_MAX):
                done = self._done.get_nowait()
                self._unanswered -= 1
                _send(self._front, done)

    # On the reader's thread.

    def _read(self) -> None:
        rested_ns = 0
        came: _Came | _Left | _Run | None = None
        while True:
            del came  # what others replace must not be held while nobody asks
            try:
                came = self._inbox.get(timeout=self._due_s())
            except Empty:
                came = None
                self._give_up_what_is_due()
                continue
            if came is None:
                return
            if isinstance(came, _Came) and (wait_ns := rested_ns - self._clock_ns()) > 0:
                time.sleep(wait_ns / 1e9)
            begun_ns = time.thread_time_ns()
            try:
                self._look_at(came)
            except Exception as error:  # its text may hold a value
                log.error("a call of the inference service failed: %s", type(error).__name__)
                fault = _Fault(_INTERNAL, "the gateway failed")
                if isinstance(came, _Came):
                    self._end(came.event[1], fault)
                elif isinstance(came, _Run):
                    self._end(came.call_id, fault)
            self._give_up_what_is_due()
            worked_ns = time.thread_time_ns() - begun_ns
            rest = REST_PRESSED if self.is_pressed else REST
            rested_ns = self._clock_ns() + int(rest * worked_ns)

    def _look_at(self, came: _Came | _Left | _Run) -> None:
        match came:
            case _Came():
                answer = self._answer(came)
                if answer is not None:
                    self._end(came.event[1], answer)
            case _Left():
                self._forget(came.call_id)
            case _Run() if not came.is_over:
                came.is_over = True
                self._end(came.call_id, _outcome(came))

    def _answer(self, came: _Came) -> bytes | _Fault | None:
        """Return a call's answer; None if it waits for a model now."""
        method, payload, models = came.event[2], came.event[3] or b"", self._offers.by_name
        try:
            request: Any = _REQUESTS[method].FromString(payload)
        except DecodeError:
            return _malformed(method)
        if method == SERVER_METADATA:
            said = pb.ServerMetadataResponse(
                name="decision-gateway", version=version("decision-gateway"), extensions=_EXTENSIONS
            )
            return said.SerializeToString()
        if method == MODEL_READY:
            model = _named(request.name, request.version, models)
            ready = came.is_ready and isinstance(model, Offered)
            return pb.ModelReadyResponse(ready=ready).SerializeToString()
        if method == MODEL_METADATA:
            model = _named(request.name, request.version, models)
            return model if isinstance(model, _Fault) else model.metadata().SerializeToString()
        model = _named(request.model_name, request.model_version, models)
        return model if isinstance(model, _Fault) else self._queued(request, model, came)

    def _queued(self, request: Any, model: Offered, came: _Came) -> _Fault | None:
        """Let a call wait for its model, if nothing is wrong with it."""
        asked, wrong = read(request, model)
        if wrong:
            message = summary(wrong)
            return _Fault(
                _INVALID_ARGUMENT, message, bad_request(_INVALID_ARGUMENT, message, wrong)
            )
        run = _Run(came.event[1], request.id, model, asked, _deadline_ns(came, asked))
        entry = (asked.priority or _LAST, run.deadline_ns, next(self._serial), run)
        with self._changed:
            heappush(self._waiting, entry)
            surplus = max(self._waiting) if len(self._waiting) > WAITING_MAX else None
            if surplus is not None:
                self._waiting.remove(surplus)
                heapify(self._waiting)
            self._changed.notify()
        if surplus is not None:
            self._end(surplus[3].call_id, _TOO_MANY)
        return None

    def _forget(self, call_id: Any) -> None:
        """Do not run what a caller has left; what runs already runs for nobody."""
        with self._changed:
            left = [run for run in self._under_way() if run.call_id == call_id]
            self._drop(left)
        for run in left:
            self._end(run.call_id, None)

    def _give_up_what_is_due(self) -> None:
        now_ns = self._clock_ns()
        with self._changed:
            due = [run for run in self._under_way() if run.deadline_ns <= now_ns]
            self._drop(due)
        for run in due:
            self._end(run.call_id, _TIMEOUT)

    def _due_s(self) -> float | None:
        """Return in how many seconds the first of the deadlines is; None if there is none."""
        with self._changed:
            deadlines_ns = [run.deadline_ns for run in self._under_way()]
        if not deadlines_ns:
            return None
        return max(min(deadlines_ns) - self._clock_ns(), 0.0) / 1e9

    def _under_way(self) -> list[_Run]:
        """Return what waits and what runs, if nobody was told of its end. Under `_changed`."""
        waiting = [run for *_, run in self._waiting]
        running = self._running
        return waiting if running is None or running.is_over else [*waiting, running]

    def _drop(self, runs: list[_Run]) -> None:
        if runs:
            for run in runs:
                run.is_over = True
            self._waiting = [entry for entry in self._waiting if not entry[3].is_over]
            heapify(self._waiting)

    def _end(self, call_id: Any, answer: bytes | _Fault | None) -> None:
        self._done.put(_Done(call_id, answer))
        self.wake()

    # On the runner's thread.

    def _run(self) -> None:
        step_back()
        while True:
            with self._changed:
                self._running = None
                while not (self._waiting or self._ends):
                    self._changed.wait()
            self._give_way()
            with self._changed:
                if self._ends:
                    return
                if not self._waiting:  # its caller left
                    continue
                self._running = run = heappop(self._waiting)[3]
            self._take_to_its_model(run)
            self._inbox.put(run)
            del run

    def _give_way(self) -> None:
        """Let decisions go first: a little, for they may never end."""
        until_ns = self._clock_ns() + GIVE_WAY_NS
        while self.is_pressed and not self._ends and self._clock_ns() < until_ns:
            time.sleep(GIVE_WAY_LOOK_S)

    def _take_to_its_model(self, run: _Run) -> None:
        begun_ns, pace = self._clock_ns(), run.model.pace
        if begun_ns + pace.least_ns > run.deadline_ns:
            return
        try:
            session = run.model.classifier.session
            run.values = session.run(list(run.asked.outputs), run.asked.arrays)
        except Exception:  # ONNX Runtime's own, unrelated classes; their texts show values
            run.failed = True
            return
        took_ns = self._clock_ns() - begun_ns
        pace.least_ns = min(pace.least_ns or took_ns, took_ns)


def _deadline_ns(came: _Came, asked: Asked) -> float:
    """Return the earlier of a call's deadline and its timeout; there is one for every call."""
    arrival, details = came.arrival, came.event[5]
    deadline_ns: float = arrival.at_ns + LONGEST_NS
    if asked.timeout_us:
        deadline_ns = min(deadline_ns, arrival.at_ns + 1000 * asked.timeout_us)
    if details is not None and details[2] is not None:
        deadline_ns = min(deadline_ns, arrival.drained_ns + 1e9 * details[2])
    return deadline_ns


def _outcome(run: _Run) -> bytes | _Fault:
    if run.failed:
        return _Fault(
            _INVALID_ARGUMENT, "the model cannot run on these inputs: they fit its shapes and types"
        )
    if run.values is None:
        return _TIMEOUT
    answer = response(run.request_id, run.model, run.asked.outputs, run.values)
    return answer.SerializeToString()


def _state(method: int, payload: bytes, is_ready: bool) -> bytes | _Fault:
    """Return the answer of ServerLive or ServerReady."""
    try:
        _REQUESTS[method].FromString(payload)
    except DecodeError:
        return _malformed(method)
    if method == SERVER_LIVE:
        return pb.ServerLiveResponse(live=True).SerializeToString()
    return pb.ServerReadyResponse(ready=is_ready).SerializeToString()


def _malformed(method: int) -> _Fault:
    return _Fault(_INVALID_ARGUMENT, f"not a {_REQUESTS[method].DESCRIPTOR.name}")


def _named(name: str, wanted: str, models: Mapping[str, Offered]) -> Offered | _Fault:
    """Return the model of a name and version, or why there is none."""
    model = models.get(name)
    if model is None:
        return _Fault(_NOT_FOUND, f"no such model. {suggest(name, models)}")
    if wanted not in ("", model.version):
        return _Fault(_NOT_FOUND, f"no such version of {model.name}; served: {model.version}")
    return model


def _send(front: Front, done: _Done) -> None:
    if isinstance(done.answer, bytes):
        front.reply(done.call_id, done.answer)
    elif done.answer is not None:
        front.fail(done.call_id, *done.answer)


def _nobody_waits() -> None:
    pass
