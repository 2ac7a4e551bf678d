"""The hall on a clock of the test's own: no model answer comes past its deadline."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import catalogue
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.model import Generation
from gateway.product import StandIn
from gateway.serve.admit import Serving
from gateway.serve.circuit import FAILURES, OPEN_NS
from gateway.serve.estimate import CostEstimate
from gateway.serve.front import CALL, DECIDE
from gateway.serve.hall import Hall
from gateway.v1.decision_pb2 import DecideResponse

US, MS = 1_000, 1_000_000
APPEND_NS, REPLY_NS = 10 * US, 2 * US


@dataclass
class World:
    """A clock that work moves, a front and a journal that take everything at a price."""

    now_ns: int = 10**12
    replied: dict[int, tuple[int, DecideResponse]] = field(default_factory=dict)
    next_sequence: int = 1
    worker: int = 0
    boot_id: bytes = bytes(16)

    def clock(self) -> int:
        return self.now_ns

    def append(self, records: list[bytes]) -> None:
        self.next_sequence += len(records)
        self.now_ns += APPEND_NS

    def tick(self) -> None:
        pass

    def reply(self, call_id: int, payload: bytes) -> bool:
        self.now_ns += REPLY_NS
        self.replied[call_id] = (self.now_ns, DecideResponse.FromString(payload))
        return True

    def fail(self, call_id: int, code: int, message: str, details: bytes | None = None) -> bool:
        raise AssertionError(message)

    def look(self) -> None:
        pass

    def flush(self) -> None:
        pass


def generation_of(
    base: Generation, world: World, budget_ms: float, cost_ns: Callable[[int], int]
) -> Generation:
    """Return the generation with a model that takes `cost_ns` of the world's time for n rows."""

    def score(rows: Any) -> list[float]:
        world.now_ns += cost_ns(len(rows))
        return [0.01] * len(rows)

    def score_one(row: bytes) -> float:
        return score([row])[0]

    latency = base.product.latency.model_copy(update={"budget_ms": budget_ms})
    product = base.product.model_copy(update={"latency": latency})
    champion = replace(base.champion, score=score, score_one=score_one)
    return replace(base, product=product, champion=champion)


def hall_of(world: World, generation: Generation, measured_ns: dict[int, int]) -> Hall:
    return Hall(
        front=world,
        journal=world,
        served={"test": Serving.of(generation, 0)},
        health=SimpleNamespace(catch_up=lambda: None),
        measured_ns={"test": measured_ns},
        clock_ns=world.clock,
    )


def walk(world: World, hall: Hall, arrivals_ns: Iterable[int]) -> dict[int, int]:
    """Let calls arrive at their times; return each one's arrival as the front dates it."""
    payload = catalogue.request().SerializeToString()
    waiting = sorted(arrivals_ns)
    dated: dict[int, int] = {}
    while waiting:
        world.now_ns = max(world.now_ns, waiting[0])
        count = sum(1 for at_ns in waiting if at_ns <= world.now_ns)
        arrived_ns = min(waiting[0], world.now_ns)
        events = [(CALL, len(dated) + i, DECIDE, payload, None, None) for i in range(count)]
        dated |= {event[1]: arrived_ns for event in events}
        waiting = waiting[count:]
        hall.turn(events, arrived_ns)
    return dated


class Oracle(CostEstimate):
    """Knows the true cost of every batch."""

    cost_ns: Callable[[int], int]

    def of(self, n: int, now_ns: int) -> float:
        return float(self.cost_ns(1 << max(n - 1, 0).bit_length()))


costs = st.tuples(st.integers(5 * US, 8 * MS), st.integers(0, 300 * US))
gaps = st.lists(
    st.one_of(st.just(0), st.integers(0, 200 * US), st.integers(0, 20 * MS)),
    min_size=20,
    max_size=250,
)


@settings(max_examples=60)
@given(cost=costs, gaps=gaps, budget_ms=st.floats(1, 40))
def test_no_model_answer_is_past_its_deadline(
    generation: Generation, cost: tuple[int, int], gaps: list[int], budget_ms: float
) -> None:
    """And every call is answered, whatever the pattern of arrivals, the budget and the model."""

    def cost_ns(n: int) -> int:
        return cost[0] + cost[1] * n

    world = World()
    served = generation_of(generation, world, budget_ms, cost_ns)
    hall = hall_of(world, served, {n: cost_ns(n) for n in (1, 2, 4, 8, 16, 32, 64, 128)})
    arrivals_ns: list[int] = []
    at_ns = world.now_ns
    for gap in gaps:
        at_ns += gap
        arrivals_ns.append(at_ns)
    dated = walk(world, hall, arrivals_ns)
    assert world.replied.keys() == dated.keys()
    reserve_ns = APPEND_NS + REPLY_NS * len(gaps)
    for call_id, (replied_ns, response) in world.replied.items():
        if response.stand_in == StandIn.NONE:
            assert replied_ns <= dated[call_id] + budget_ms * MS + reserve_ns


def shares(base: Generation, load: float, oracle: bool) -> float:
    """Return the share of stand-ins at a multiple of what the model can do, 25 ms budget."""

    def cost_ns(n: int) -> int:
        return 200 * US + 100 * US * n

    world = World()
    hall = hall_of(
        world,
        generation_of(base, world, 25, cost_ns),
        {n: cost_ns(n) for n in (1, 2, 4, 8, 16, 32, 64, 128)},
    )
    if oracle:
        known = Oracle({}, 0)
        Oracle.cost_ns = staticmethod(cost_ns)
        hall._infer_ns = [known]
    gap_ns = 100 * US / load
    walk(world, hall, [world.now_ns + round(i * gap_ns) for i in range(3_000)])
    stood_in = [one for _, one in world.replied.values() if one.stand_in]
    return len(stood_in) / len(world.replied)


@pytest.mark.parametrize("load", [0.5, 0.9, 1.5, 3.0])
def test_no_more_stands_in_than_for_an_oracle(generation: Generation, load: float) -> None:
    """The oracle knows what each batch will cost; the estimate has to learn it."""
    learned, known = (shares(generation, load, oracle) for oracle in (False, True))
    assert learned <= known + 0.05
    assert learned < 0.01 or load > 1
    assert learned < 0.95, "the model starves"


def test_a_circuit_opens_and_tries_again(generation: Generation) -> None:
    world, asked = World(), []

    def fails(n: int) -> int:
        asked.append(world.now_ns)
        raise ValueError("no")

    hall = hall_of(world, generation_of(generation, world, 25, fails), {})
    start_ns = world.now_ns
    walk(world, hall, [start_ns + i * MS for i in range(FAILURES + 50)])
    assert all(one.stand_in == StandIn.MODEL_ERROR for _, one in world.replied.values())
    assert len(asked) == FAILURES
    walk(world, hall, [start_ns + 2 * OPEN_NS])
    assert len(asked) == FAILURES + 1
