"""New generations on their way into the hall: opened beside it, served between two turns.

The supervisor has had each verified by a process of its own. Here a thread of low priority opens
the models and runs them warm; what takes Python's time was done before, so the hall hardly feels
it. Then the loop itself exchanges one value for another. What a payment began with it ends with.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import pickle
import socket
import threading
import time
from base64 import b64decode
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import BinaryIO

from gateway.errors import GatewayError, JournalError, ModelError
from gateway.journal import Generation as JournalledGeneration
from gateway.journal import Rejected
from gateway.model import HEAVY_ROW_NS, Generation, Plan, opened
from gateway.serve.crew.control import Load, Loaded, NotLoaded, decode_message
from gateway.serve.crew.priority import step_back
from gateway.serve.hall.admit import Serving, arm_key
from gateway.serve.hall.annex import Annex
from gateway.serve.hall.hall import Hall

Measured = Mapping[str, Mapping[int, int]]
"""By `Serving.key` and number of rows: what a model takes, in nanoseconds."""

_RETRY_S = 0.5
"""A journal that cannot take the announcement is asked again after so long."""

_GIVES_UP_S = 60.0
"""After so long it is given up: before the supervisor stops waiting (`SWAP_S_MAX`), and says that
it is refused."""

_LEAVES_S = 5.0
"""A generation that still has calls under way so long after another took over is let go later."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Successor:
    """A generation that is ready to be served.

    On the loop `told` is called, once it is, or `failed`, if it never will be.
    """

    serving: Serving
    measured_ns: Measured
    entry: JournalledGeneration
    told: Callable[[], None]
    failed: Callable[[JournalError], None] | None


class Succession:
    """What is handed to the loop from other threads, and what the loop hands back.

    `indices` count the places in the journal's table of products: none is used twice in a boot.
    `is_settled` is set while `gone` has all of each generation that another took over from.
    """

    def __init__(self, indices: count[int]) -> None:
        self.gone: SimpleQueue[Serving] = SimpleQueue()
        self._indices = indices
        self._ready: deque[Successor] = deque()
        self._rejected: deque[Rejected] = deque()
        self.is_settled = threading.Event()
        self._leaving = False
        self._retry_s = 0.0
        self._waits_since_s: float | None = None

    def next_index(self) -> int:
        """Return a place in the journal's table of products."""
        return next(self._indices)

    def propose(
        self,
        generation: Generation,
        measured_ns: Measured,
        told: Callable[[], None],
        failed: Callable[[JournalError], None] | None = None,
    ) -> None:
        """Let a generation be served from the next turn on. On any thread.

        Where the journal cannot take that, it is tried again for a while; without `failed`, for
        ever.
        """
        serving = Serving.of(generation, self.next_index())
        self._ready.append(Successor(serving, measured_ns, journalled(serving), told, failed))

    def reject(self, rejected: Rejected) -> None:
        """Let the journal say that a change is not served. On any thread."""
        self._rejected.append(rejected)

    def __call__(self, hall: Hall, annex: Annex) -> None:
        """Do on the loop, between two turns, what has to be done there."""
        while self._rejected:
            hall.reject(self._rejected.popleft())
        while self._ready and time.monotonic() >= self._retry_s:
            one = self._ready[0]
            move_in(annex, one.serving, one.measured_ns)
            try:
                hall.succeed(one.serving, one.measured_ns, one.entry)
            except JournalError as error:
                for arm in one.serving.deciding:
                    if arm.lane in annex:
                        annex.close(arm.lane)
                self._put_off(one, error)
                return
            self._ready.popleft()
            self._waits_since_s = None
            self._leaving = True
            self.is_settled.clear()
            one.told()
        if self._leaving:
            for serving in hall.left():
                self.gone.put(serving)
            self._leaving = hall.is_changing
            if not self._leaving:
                self.is_settled.set()

    def _put_off(self, one: Successor, error: JournalError) -> None:
        now_s = time.monotonic()
        if self._waits_since_s is None:
            self._waits_since_s = now_s
        if one.failed is not None and now_s - self._waits_since_s >= _GIVES_UP_S:
            self._ready.popleft()
            self._waits_since_s = None
            one.failed(error)
            return
        log.error("a new generation waits: %s", error)
        self._retry_s = now_s + _RETRY_S


def journalled(serving: Serving) -> JournalledGeneration:
    """Return what the journal says of a generation."""
    generation = serving.generation
    return JournalledGeneration(
        index=serving.index,
        product=generation.name,
        generation=generation.product.generation,
        digest=generation.digest,
        arms=tuple(arm.name for arm in generation.arms),
    )


def warmed_up(generation: Generation, clock_ns: Callable[[], int]) -> dict[str, dict[int, int]]:
    """Run every model of a generation; return what each took, by `Serving.key`."""
    measured_ns: dict[str, dict[int, int]] = {}
    for place, arm in enumerate(generation.arms):
        found_ns = measured_ns[arm_key(generation, place)] = arm.classifier.warm_up(clock_ns)
        # A busy machine makes a row dearer, never cheaper; and by a row it is said where it runs.
        found_ns[1] = min(found_ns[1], arm.classifier.row_ns(clock_ns))
    return measured_ns


def move_in(annex: Annex, serving: Serving, measured_ns: Measured) -> None:
    """Let the models that take too long for the loop move into the annex; say which."""
    for one in serving.deciding:
        row_ns = measured_ns.get(one.key, {}).get(1, 0)
        if row_ns > HEAVY_ROW_NS:
            annex.open(one.lane, one.classifier)
            log.info(
                "%s: its model takes %.1f ms a row, so it runs on a thread of its own",
                one.key,
                row_ns / 1e6,
            )


def load(order: Load) -> Generation:
    """Open the models of a verified generation, from its snapshot.

    Raises:
        ModelError: one of them cannot be opened here, or is not what was verified.
    """
    plan: Plan = pickle.loads(b64decode(order.plan))  # our own supervisor's
    snapshot = Path(order.snapshot)
    for arm in plan.arms:
        _expect_unaltered(snapshot / arm.file, arm.digest)
    return opened(plan, lambda name: (snapshot / name, snapshot / name))


def _expect_unaltered(path: Path, digest: str) -> None:
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"cannot be read: {error.strerror}", subject=str(path)) from None
    if found != digest:
        raise ModelError(
            f"its sha256 is {found}, {digest} was verified",
            subject=str(path),
            hint="Somebody altered a snapshot. Raise the generation in product.yaml: the folder is "
            "verified again, and another snapshot taken.",
        )


class Loader:
    """The thread that hears of new generations from the supervisor, and opens them."""

    def __init__(self, said: BinaryIO, supervisor: socket.socket, succession: Succession) -> None:
        self._said = said
        self._supervisor = supervisor
        self._succession = succession
        self._thread = threading.Thread(target=self._listen, name="loader", daemon=True)

    def start(self) -> None:
        """Begin to listen. It ends with the process, or when the supervisor is gone."""
        self._thread.start()

    def _listen(self) -> None:
        step_back()
        with suppress(OSError, ValueError):  # the socket is closed: the worker ends
            for line in self._said:
                match decode_message(line):
                    case Load() as order:
                        self._load(order)
                    case Rejected() as rejected:
                        self._succession.reject(rejected)

    def _load(self, order: Load) -> None:
        decided: SimpleQueue[JournalError | None] = SimpleQueue()
        try:
            generation = load(order)
            # Processor time: the hall and other processes go on meanwhile.
            measured_ns = warmed_up(generation, time.thread_time_ns)
            self._succession.propose(
                generation, measured_ns, lambda: decided.put(None), decided.put
            )
        except GatewayError as error:
            self._say(NotLoaded.of(order, error))
            return
        except Exception as error:
            log.exception("generation %d of %s cannot be opened", order.number, order.product)
            what = ModelError(f"{type(error).__name__} while it was opened", subject=order.snapshot)
            self._say(NotLoaded.of(order, what))
            return
        del generation
        if (refused := decided.get()) is not None:
            self._say(NotLoaded.of(order, refused))
            return
        self._say(Loaded(order.product, order.digest))
        # The last to let go of a model pays for it: here, not on the loop.
        self._succession.is_settled.wait(_LEAVES_S)
        with suppress(Empty):
            while True:
                self._succession.gone.get_nowait()
        _give_back_memory()

    def _say(self, answer: Loaded | NotLoaded) -> None:
        with suppress(OSError):
            self._supervisor.sendall(answer.encode())


def _give_back_memory() -> None:
    """Let the C library return what a model has left: else a process grows with every swap."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
