"""A server, and the loads of one scenario against it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gateway.bench.count import Answers, Count, count, read_answers
from gateway.bench.frames import RESOURCE_EXHAUSTED, request_block
from gateway.bench.generator import AT_ONCE, CONNECTIONS, Plan
from gateway.bench.load import Deed, Load, apply
from gateway.bench.machine import Cores
from gateway.bench.product import FEATURES, Kind
from gateway.bench.schedule import Schedule
from gateway.bench.traffic import PLACEHOLDER, messages


class Server(Protocol):
    """A running `gateway serve`."""

    @property
    def address(self) -> str:
        """Where it answers."""

    @property
    def pid(self) -> int:
        """Return the process to signal."""

    @property
    def workers(self) -> tuple[int, ...]:
        """Return its workers' processes, as they were when it began to answer."""


Progress = Callable[[str, float], None]
"""Told what is going on, and the share of it that is over."""


@dataclass(frozen=True, slots=True)
class Scope:
    """How long to measure: seconds a level, or calls a level where given; rounds of it.

    `swaps`: how many, where models are swapped; fewer where they would take more than `swaps_s`.
    """

    seconds: float
    rounds: int
    calls: int | None = None
    swaps: int = 200
    swaps_s: float = inf

    def seconds_at(self, rate_per_s: float) -> float:
        """Return how long a level lasts at a rate."""
        return self.seconds if self.calls is None else self.calls / rate_per_s


@dataclass(slots=True)
class Tally:
    """What the client can hold the journal to: the action by decision id, and what was shed."""

    actions: dict[str, int] = field(default_factory=dict)
    shed: int = 0


@dataclass(frozen=True, slots=True)
class Measured:
    """One load, read: what became of the first kind's calls, and of every other kind's."""

    load: Load
    answers: Answers
    count: Count
    others: tuple[Count, ...]
    budget_us: float


class Rig:
    """Sends loads to one server, and adds up what the journal must hold of them.

    `folders`: what it serves, by the products' names; `journal`: where it writes.
    """

    def __init__(
        self,
        server: Server,
        fingerprint: str,
        cores: Cores,
        rng: np.random.Generator,
        progress: Progress,
        *,
        folders: Mapping[str, Path],
        journal: Path,
    ) -> None:
        self.server = server
        self.folders = folders
        self.journal = journal
        self.cores = cores
        self.rng = rng
        self.tally = Tally()
        self._fingerprint = fingerprint
        self._progress = progress
        self._messages: dict[str, tuple[bytes, ...]] = {}

    def send(
        self,
        what: str,
        schedule: Schedule,
        *kinds: Kind,
        kind_of: NDArray[np.uint16] | None = None,
        in_flight_max: int | None = None,
        closed_s: float | None = None,
        deeds: Sequence[Deed] = (),
        at_once: int = AT_ONCE,
        retries: int = 0,
    ) -> Measured:
        """Send one schedule. With several kinds, `kind_of` says whose each call is."""
        pools = [self._requests(kind) for kind in kinds]
        size = max(1, len(schedule)) if closed_s is None else len(pools[0])
        which = self.rng.integers(0, len(pools[0]), size, np.uint16)
        if kind_of is not None:
            which += kind_of * np.uint16(len(pools[0]))
        plan = Plan(
            address=self.server.address,
            block=request_block(self.server.address),
            messages=tuple(one for pool in pools for one in pool),
            placeholder=PLACEHOLDER,
            run=f"{self.rng.integers(2**32):08x}",
            schedule_ns=schedule,
            which=which,
            core=self.cores.generator,
            connections=CONNECTIONS,
            in_flight_max=in_flight_max,
            closed_s=closed_s,
            at_once=at_once,
            retries=retries,
            patience_s=2.0 + max(kind.budget_ms for kind in kinds) / 1000,
        )
        load = apply(
            plan,
            self.cores.every,
            progress=lambda share: self._progress(what, share),
            deeds=deeds,
        )
        answers = read_answers(load.calls)
        actions = answers.action[answers.stand_in >= 0].tolist()
        self.tally.actions.update(zip(answers.decision_ids, actions, strict=True))
        self.tally.shed += int((load.calls.status == RESOURCE_EXHAUSTED).sum())
        whose = load.calls.which // len(pools[0])
        counts = [
            count(
                load.calls,
                answers,
                budget_us=kind.budget_us,
                gaps=load.witnessed.gaps,
                only=whose == number,
            )
            for number, kind in enumerate(kinds)
        ]
        return Measured(load, answers, counts[0], tuple(counts[1:]), kinds[0].budget_us)

    def saturate(self, what: str, seconds: float, in_flight: int, kind: Kind) -> Measured:
        """Keep so many calls in flight, for so long."""
        nothing: Schedule = np.zeros(0, np.int64)
        return self.send(what, nothing, kind, in_flight_max=in_flight, closed_s=seconds)

    def _requests(self, kind: Kind) -> tuple[bytes, ...]:
        if kind.name not in self._messages:
            self._messages[kind.name] = messages(
                self.rng,
                kind.name,
                fingerprint=self._fingerprint,
                features=FEATURES,
                event_s=int(time.time()),
            )
        return self._messages[kind.name]
