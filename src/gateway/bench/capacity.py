"""What a server can do: calls that the model decides in time, a second."""

from __future__ import annotations

import statistics

from gateway.bench.outcome import Outcome, level_of, median, outcome_of, round_name, sound
from gateway.bench.product import HEAVY, LIGHT, MEDIUM, SLOW, Kind
from gateway.bench.rig import Measured, Rig, Scope

IN_FLIGHT = {
    HEAVY.name: (8, 12, 16),
    LIGHT.name: (32, 64, 128),
    MEDIUM.name: (16, 32, 64),
    SLOW.name: (2, 4),
}
"""Closed loops to find capacity with: few enough to be in time, enough to keep it busy."""


def capacity(rig: Rig, scope: Scope, kind: Kind = HEAVY) -> Outcome:
    """Model decisions in time a second, with as many calls in flight as give the most."""
    rounds: list[Measured] = []
    closed: dict[int, list[Measured]] = {}
    seconds = max(0.3, min(2.0, scope.seconds / 4))
    for number in range(scope.rounds):
        for in_flight in IN_FLIGHT[kind.name]:
            what = round_name(f"capacity, {in_flight} in flight", number, scope)
            closed.setdefault(in_flight, []).append(rig.saturate(what, seconds, in_flight, kind))
    by_flight = {
        in_flight: statistics.median(one.count.goodput_per_s for one in measured)
        for in_flight, measured in closed.items()
    }
    rounds = [one for measured in closed.values() for one in measured]
    best = max(by_flight, key=lambda one: by_flight[one])
    count = median(closed[best])
    figures = {
        "product": kind.name,
        "capacity": by_flight[best],
        "in_flight": best,
        "by_in_flight": by_flight,
        "levels": [level_of(count, kind, None)],
    }
    broken = [
        line
        for in_flight, measured in closed.items()
        for line in sound(median(measured), kind, f"{in_flight} in flight")
    ]
    if not by_flight[best]:
        broken.append("the model decided nothing in time")
    # A closed loop has no schedule to lag behind.
    return outcome_of("capacity", figures, rounds, broken, timed=False)
