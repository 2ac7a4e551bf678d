"""The scenarios: what is sent, what is measured of it, and which promise that could break."""

from __future__ import annotations

import os
import signal
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gateway.bench.capacity import capacity
from gateway.bench.count import Count, fate, median_of, recovery_ms, windows
from gateway.bench.load import Deed
from gateway.bench.outcome import Outcome, level_of, median, outcome_of, round_name, sound
from gateway.bench.product import HEAVY, LIGHT, MEDIUM, SLOW, Kind
from gateway.bench.rig import Measured, Rig, Scope
from gateway.bench.schedule import burst, poisson, steps
from gateway.bench.swap import swap

LEVELS = (0.5, 0.9, 1.5, 3.0)
"""Of capacity."""

GENERATOR_PER_S = 20_000.0
"""The generator is not asked for more: on one core its own lag would grow."""

IDLE_S = 0.0002
"""A call alone takes about so long."""

BESIDE_PER_S = 300.0
BESIDE_LOAD = 2.0
"""Of the slow product's capacity: saturated."""

RESTART_S = 12.0
"""A new worker needs some seconds until the old one may go."""

RETRIES = 4
"""As in `examples/service-config.json`: five attempts."""

_NOT_REPLACED = (
    "no connection ended: nothing was replaced while calls were sent; give it longer (--seconds)"
)

PEAK_MAX = 1.15
"""Goodput may be so much over the capacity that was measured before."""

BURST = 500
WINDOW_MS = 100.0

GOODPUT_RATIO_MIN, RECOVERY_MS_MAX, TAIL_MAX, BESIDE_MAX = 0.9, 1000.0, 5.0, 1.25


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario's name, what it is about in a line, the products it needs, and how it runs."""

    name: str
    says: str
    kinds: tuple[Kind, ...]
    run: Callable[[Rig, Scope], Outcome]


def idle(rig: Rig, scope: Scope) -> Outcome:
    """One call in flight, and the next when it is answered: a wait is nobody else's."""
    seconds = scope.seconds if scope.calls is None else scope.calls * IDLE_S
    rounds = [
        rig.saturate(round_name("idle", number, scope), seconds, 1, LIGHT)
        for number in range(scope.rounds)
    ]
    count = median(rounds)
    p50, tail = count.latency_us["p50"], count.latency_us["p99_9"]
    ratio = round(tail / p50, 2) if p50 else 0.0
    broken = sound(count, LIGHT)
    if ratio > TAIL_MAX:
        broken.append(f"p99.9 is {ratio:g} x p50, more than {TAIL_MAX:g} x")
    level = level_of(count, LIGHT, None)
    return outcome_of("idle", {"tail_ratio": ratio, "levels": [level]}, rounds, broken, timed=False)


def overload(rig: Rig, scope: Scope) -> Outcome:
    """From half to three times capacity, and back."""
    found, rounds, counts = _levels(rig, scope, HEAVY)
    recovered, step = _recovery(rig, scope, found["capacity"])
    last = found["levels"][-1]
    best = max(one["goodput_per_s"] for one in found["levels"])
    ratio = round(last["goodput_per_s"] / best, 4) if best else 0.0
    figures = {
        "goodput_ratio": ratio,
        "stand_in_share": last["stand_in_share"],
        "recovery_ms": recovered,
        **found,
    }
    broken = [*_levels_sound(counts, HEAVY), *sound(step.count, HEAVY, "step to 3 x and back")]
    if ratio < GOODPUT_RATIO_MIN:
        broken.append(f"goodput at 3 x capacity is {ratio:.0%} of the peak, less than 90 %")
    if recovered is None or recovered > RECOVERY_MS_MAX:
        took = "never" if recovered is None else f"after {recovered:.0f} ms"
        broken.append(f"after the step stand-ins were back at what they were {took}, not in 1 s")
    return outcome_of(
        "overload", figures, [*rounds, step], broken, doubts=_doubts(found["capacity"], best)
    )


def light(rig: Rig, scope: Scope) -> Outcome:
    """The same levels for a light model: the curve of goodput and stand-ins."""
    found, rounds, counts = _levels(rig, scope, LIGHT)
    best = max(one["goodput_per_s"] for one in found["levels"])
    last = found["levels"][-1]
    figures = {
        "goodput_ratio": round(last["goodput_per_s"] / best, 4) if best else 0.0,
        "stand_in_share": last["stand_in_share"],
        **found,
    }
    broken = _levels_sound(counts, LIGHT)
    return outcome_of("light", figures, rounds, broken)


def beside(rig: Rig, scope: Scope) -> Outcome:
    """A fast product alone, and beside a slow one that has more to do than it can."""
    slow_per_s = BESIDE_LOAD * 1e6 / SLOW.row_us
    alone: list[Measured] = []
    shared: list[Measured] = []
    seconds = scope.seconds_at(BESIDE_PER_S)
    for number in range(max(3, scope.rounds)):
        fast = poisson(rig.rng, BESIDE_PER_S, seconds)
        alone.append(rig.send(f"alone, round {number + 1}", fast, LIGHT))
        both = np.concatenate([fast, poisson(rig.rng, slow_per_s, seconds)])
        whose = np.zeros(len(both), np.uint16)
        whose[len(fast) :] = 1
        order = np.argsort(both, kind="stable")
        what = f"beside, round {number + 1}"
        shared.append(rig.send(what, both[order], LIGHT, SLOW, kind_of=whose[order]))
    ratios = [
        b.count.latency_us["p99"] / a.count.latency_us["p99"]
        for a, b in zip(alone, shared, strict=True)
    ]
    ratio = round(statistics.median(ratios), 3)
    counts = [median(alone), median(shared)]
    slow = median_of([one.others[0] for one in shared])
    figures = {
        "p99_ratio": ratio,
        "p99_ratios": [round(one, 3) for one in ratios],
        "slow_per_s": slow_per_s,
        "levels": [
            level_of(counts[0], LIGHT, None, what="alone"),
            level_of(counts[1], LIGHT, None, what="beside bench-slow"),
            level_of(slow, SLOW, None, what="bench-slow itself"),
        ],
    }
    broken = [
        *sound(counts[0], LIGHT, "alone"),
        *sound(counts[1], LIGHT, "beside bench-slow"),
        *sound(slow, SLOW),
    ]
    if ratio > BESIDE_MAX:
        broken.append(f"p99 beside the slow product is {ratio:g} x alone, more than {BESIDE_MAX:g}")
    return outcome_of("beside", figures, [*alone, *shared], broken)


def burst_of_500(rig: Rig, scope: Scope) -> Outcome:
    """So many calls at one instant."""
    rounds: list[Measured] = []
    levels, counts, broken = [], [], []
    for kind in (LIGHT, HEAVY):
        mine = [
            rig.send(f"burst, {kind.name}", burst(BURST), kind, at_once=BURST)
            for _ in range(scope.rounds)
        ]
        count = median(mine)
        answered_ms = max(
            float(one.load.calls.received_ns.max() - one.load.calls.begun_ns) / 1e6 for one in mine
        )
        level = level_of(count, kind, None)
        level |= {"all_answered_ms": round(answered_ms, 2), "calls": BURST}
        levels.append(level)
        counts.append(count)
        rounds += mine
        broken += sound(count, kind)
    figures = {"levels": levels}
    # 500 sends take a millisecond or two: that is the burst, and no lag.
    return outcome_of("burst", figures, rounds, broken, timed=False)


def restart(rig: Rig, scope: Scope) -> Outcome:
    """Half of capacity, and every worker replaced meanwhile: SIGHUP after a quarter of it.

    Sent by a client that tries again as the published configuration says.
    """
    found = capacity(rig, Scope(min(scope.seconds, 4.0), 1))
    rate = LEVELS[0] * found.figures["capacity"]
    seconds = max(RESTART_S, scope.seconds_at(rate))
    deed = Deed(seconds / 4, lambda: os.kill(rig.server.pid, signal.SIGHUP))
    rounds = [
        rig.send(
            round_name("restart", number, scope),
            poisson(rig.rng, rate, seconds),
            HEAVY,
            deeds=[deed],
            retries=RETRIES,
        )
        for number in range(scope.rounds)
    ]
    count = median(rounds)
    gaps_ms = [_worst_gap_ms(one) for one in rounds]
    ended = [one.load.calls.lost for one in rounds]
    why = [] if min(ended) else [_NOT_REPLACED]
    figures = {
        "worst_gap_ms": max(gaps_ms),
        "connections_lost": sum(ended),
        "resent": count.resent,
        "capacity": found.figures["capacity"],
        "levels": [level_of(count, HEAVY, found.figures["capacity"], ratio=LEVELS[0])],
    }
    return outcome_of("restart", figures, rounds, sound(count, HEAVY), doubts=why)


SCENARIOS = {
    one.name: one
    for one in (
        Scenario("idle", "one call in flight at a time", (LIGHT,), idle),
        Scenario("capacity", "as many decisions in time as there can be", (HEAVY,), capacity),
        Scenario("overload", "0.5 to 3 x capacity, a model of 1 ms", (HEAVY,), overload),
        Scenario("light", "the same levels, a model of some µs", (LIGHT,), light),
        Scenario("beside", "a fast product beside a slow one", (LIGHT, SLOW), beside),
        Scenario("burst", "500 calls at one instant", (LIGHT, HEAVY), burst_of_500),
        Scenario("restart", "every worker replaced under load", (HEAVY,), restart),
        Scenario("swap", "another model every few seconds, under load", (MEDIUM,), swap),
    )
}


def _levels(
    rig: Rig, scope: Scope, kind: Kind
) -> tuple[dict[str, Any], list[Measured], list[Count]]:
    """Find capacity, then send each level; rounds take the levels in turn."""
    found = capacity(rig, Scope(scope.seconds, 1), kind)
    most = found.figures["capacity"]
    rates = {ratio: min(ratio * most, GENERATOR_PER_S) for ratio in LEVELS}
    rounds: dict[float, list[Measured]] = {ratio: [] for ratio in LEVELS}
    for number in range(scope.rounds):
        for ratio, rate in rates.items():
            schedule = poisson(rig.rng, max(rate, 1.0), scope.seconds_at(max(rate, 1.0)))
            what = round_name(f"{ratio:g} x capacity", number, scope)
            rounds[ratio].append(rig.send(what, schedule, kind))
    counts = [median(measured) for measured in rounds.values()]
    levels = [
        level_of(count, kind, most, ratio=ratio) for ratio, count in zip(rates, counts, strict=True)
    ]
    figures = {"product": kind.name, "capacity": most, "levels": levels}
    return figures, [one for measured in rounds.values() for one in measured], counts


def _doubts(most: float, best: float) -> list[str]:
    """Return why the levels may not be what they are called."""
    if best <= PEAK_MAX * most:
        return []
    return [
        f"a level had {best / most:.2f} x what was measured as capacity: the machine was busy "
        "then, and the levels were lower than they say; leave it alone while it measures"
    ]


def _recovery(rig: Rig, scope: Scope, most: float) -> tuple[float | None, Measured]:
    """Step to three times capacity and back; return after how many ms all was as before."""
    calm_s, storm_s = min(1.0, scope.seconds), min(5.0, scope.seconds)
    low, high = LEVELS[0] * most, LEVELS[-1] * most
    schedule = steps(rig.rng, (low, calm_s), (high, storm_s), (low, 2.0))
    step = rig.send("step to 3 x and back", schedule, HEAVY)
    calls = step.load.calls
    what = fate(calls, step.answers, step.budget_us, step.load.witnessed.gaps)
    bad = ~what.good & ~what.excused
    window_ns = round(WINDOW_MS * 1e6)
    after_ns = calls.scheduled_ns - calls.begun_ns
    first = windows(after_ns, bad, window_ns, 0)[: max(1, round(calm_s * 1000 / WINDOW_MS))]
    ended_ns = round((calm_s + storm_s) * 1e9)
    later = windows(after_ns, bad, window_ns, ended_ns)
    return recovery_ms(later, float(np.nanmax(first)), WINDOW_MS), step


def _worst_gap_ms(measured: Measured) -> float:
    """Return the longest time without an answer, from the first to the last."""
    received_ns = np.sort(measured.load.calls.received_ns[measured.answers.stand_in >= 0])
    return round(float(np.diff(received_ns).max(initial=0)) / 1e6, 2)


def _levels_sound(counts: Sequence[Count], kind: Kind) -> list[str]:
    return [
        line
        for ratio, count in zip(LEVELS, counts, strict=True)
        for line in sound(count, kind, f"{ratio:g} x")
    ]
