"""Calls -> what is said of them. Pure.

Every call is one of: answered in time by the model (goodput), answered by a stand-in, late,
excused (late while the machine stood still), shed (RESOURCE_EXHAUSTED) or failed (any other
error, or no answer). Percentiles are of the answered calls and count from the *scheduled*
time: a generator that a slow server held up would otherwise not see what it did not send.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from gateway.bench.frames import OK, RESOURCE_EXHAUSTED, STATUS_NAMES
from gateway.bench.generator import Calls
from gateway.v1.decision_pb2 import DecideResponse, StandIn

GRACE_US = 1_000.0
"""An answer is late when it comes more than the budget and this after it was sent."""

LAG_US_MAX = 1_000.0
"""A generator whose own lag has a higher p99 measures itself."""

EXCUSED_MAX = 0.001
"""Of the calls; a machine that stands still more often is none to measure on."""

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99_9": 0.999, "max": 1.0}

Mask = NDArray[np.bool_]
Times = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Answers:
    """What the answers say; one item a call in each. `stand_in` is -1 where none came."""

    stand_in: NDArray[np.int8]
    action: NDArray[np.int8]
    elapsed_us: NDArray[np.int64]
    decision_ids: tuple[str, ...]


def read_answers(calls: Calls) -> Answers:
    """Decode every message that came with status OK; one that cannot be read is no answer."""
    count = len(calls.status)
    stand_in = np.full(count, -1, np.int8)
    action = np.zeros(count, np.int8)
    elapsed_us = np.zeros(count, np.int64)
    ids: list[str] = []
    for call in np.flatnonzero(calls.status == OK):
        framed = calls.answers[call] or b""
        try:
            answer = DecideResponse.FromString(framed[5:])
        except DecodeError:
            continue
        if not answer.decision_id:
            continue
        stand_in[call], action[call] = answer.stand_in, answer.action
        elapsed_us[call] = answer.elapsed_us
        ids.append(answer.decision_id)
    return Answers(stand_in, action, elapsed_us, tuple(ids))


def percentiles_us(times_ns: Times) -> dict[str, float]:
    """Return QUANTILES in microseconds: each a time that was measured, none in between."""
    if not len(times_ns):
        return dict.fromkeys(QUANTILES, 0.0)
    found = np.quantile(times_ns, list(QUANTILES.values()), method="inverted_cdf") / 1000
    return {name: round(float(one), 1) for name, one in zip(QUANTILES, found, strict=True)}


def overlaps(begin_ns: Times, end_ns: Times, gaps: Sequence[tuple[int, int]]) -> Mask:
    """Return which of the intervals have a moment in common with a gap."""
    found = np.zeros(len(begin_ns), bool)
    for begin, end in gaps:
        found |= (begin_ns < end) & (begin < end_ns)
    return found


@dataclass(frozen=True, slots=True)
class Count:
    """What became of the calls of one load, or of one product's in it."""

    sent: int
    answered: int
    late: int
    excused: int
    shed: int
    failed: int
    stand_ins: dict[str, int]
    failures: dict[str, int]
    goodput_per_s: float
    sent_per_s: float
    answered_per_s: float
    latency_us: dict[str, float]
    lag_us: dict[str, float]
    waited: int
    resent: int

    @property
    def stand_in_share(self) -> float:
        """Return the stand-ins' share of the answers."""
        return round(sum(self.stand_ins.values()) / max(1, self.answered), 4)


@dataclass(frozen=True, slots=True)
class Fate:
    """Of each call: whether it was answered, and if so whether too late or by a stand-in."""

    answered: Mask
    late: Mask
    excused: Mask
    stood_in: Mask

    @property
    def good(self) -> Mask:
        """Whether the model decided in time."""
        return self.answered & ~self.late & ~self.excused & ~self.stood_in


def fate(calls: Calls, answers: Answers, budget_us: float, gaps: Sequence[tuple[int, int]]) -> Fate:
    """Say of each call what it got."""
    answered = answers.stand_in >= 0
    over = answered & (calls.received_ns - calls.sent_ns > (budget_us + GRACE_US) * 1000)
    excused = over & overlaps(calls.sent_ns, calls.received_ns, gaps)
    return Fate(answered, over & ~excused, excused, answers.stand_in > 0)


def count(
    calls: Calls,
    answers: Answers,
    *,
    budget_us: float,
    gaps: Sequence[tuple[int, int]] = (),
    only: Mask | None = None,
) -> Count:
    """Count the calls, or those that `only` names.

    Rates are over the time from the first schedule to the last of schedule and answer.
    """
    mine = np.ones(len(calls.status), bool) if only is None else only
    what = fate(calls, answers, budget_us, gaps)
    shed = calls.status == RESOURCE_EXHAUSTED
    sent = mine & (calls.sent_ns > 0)
    answered = mine & what.answered
    seconds = _seconds(calls, mine)
    names = Counter(StandIn.Name(int(one)) for one in answers.stand_in[answered & what.stood_in])
    return Count(
        sent=int(sent.sum()),
        answered=int(answered.sum()),
        late=int((mine & what.late).sum()),
        excused=int((mine & what.excused).sum()),
        shed=int((mine & shed).sum()),
        failed=int((mine & ~what.answered & ~shed).sum()),
        failures=_failures(calls, mine & ~what.answered & ~shed),
        stand_ins=dict(sorted(names.items())),
        goodput_per_s=round(float((mine & what.good).sum()) / seconds, 1),
        sent_per_s=round(float(sent.sum()) / seconds, 1),
        answered_per_s=round(float(answered.sum()) / seconds, 1),
        latency_us=percentiles_us((calls.received_ns - calls.scheduled_ns)[answered]),
        lag_us=percentiles_us((calls.sent_ns - calls.scheduled_ns)[sent]),
        waited=calls.waited,
        resent=calls.resent,
    )


def _failures(calls: Calls, failed: Mask) -> dict[str, int]:
    """Return how often each status came, or what came in its place."""
    unsent = failed & (calls.sent_ns == 0)
    names = Counter(
        STATUS_NAMES.get(int(status), str(status)) for status in calls.status[failed & ~unsent]
    )
    if unsent.any():
        names["never sent"] = int(unsent.sum())
    return dict(sorted(names.items()))


def _seconds(calls: Calls, mine: Mask) -> float:
    if not mine.any():
        return 1.0
    begin_ns = calls.scheduled_ns[mine].min()
    end_ns = max(calls.scheduled_ns[mine].max(), calls.received_ns[mine].max())
    return max(float(end_ns - begin_ns) / 1e9, 1e-6)


def windows(times_ns: Times, marked: Mask, window_ns: int, begin_ns: int) -> NDArray[np.float64]:
    """Return the share of marked items in each window from `begin_ns` on; NaN for an empty one."""
    places = (times_ns - begin_ns) // window_ns
    inside = places >= 0
    size = int(places.max()) + 1 if inside.any() else 0
    total = np.bincount(places[inside], minlength=size)
    hits = np.bincount(places[inside & marked], minlength=size)
    with np.errstate(invalid="ignore"):
        return np.asarray(hits / np.where(total, total, np.nan), np.float64)


def recovery_ms(
    shares: NDArray[np.float64], before: float, window_ms: float, *, in_a_row: int = 3
) -> float | None:
    """Return when the share is back at `before`: the begin of the first windows that stay there.

    `shares` begin at the step's end. None if it never is. Empty windows prove nothing.
    """
    calm = np.nan_to_num(shares, nan=1.0) <= before
    for first in range(len(calm) - in_a_row + 1):
        if calm[first : first + in_a_row].all():
            return first * window_ms
    return None


def doubts(
    counts: Sequence[Count], *, timed: bool, real_time: bool, shared: bool
) -> tuple[str, ...]:
    """Return why these counts prove nothing, each with what to do; none if they do.

    With `timed`, the generator's lag counts: a closed loop or a burst has none to speak of.
    """
    found: list[str] = []
    if shared:
        found.append("server and generator share one core: run on a machine with two or more")
    worst_us = max((one.lag_us["p99"] for one in counts), default=0.0)
    if timed and worst_us > LAG_US_MAX:
        held = sum(one.waited for one in counts)
        if held:
            why = (
                f"{held:,} calls waited for a free stream: the server does not keep up, and how "
                "late it is cannot be told from when they were sent"
            )
        else:
            why = "leave the machine alone while it measures, or ask for less"
        found.append(
            f"the generator's own lag has a p99 of {worst_us / 1000:.1f} ms, more than 1 ms: {why}"
        )
    sent, excused = sum(one.sent for one in counts), sum(one.excused for one in counts)
    if excused > EXCUSED_MAX * max(1, sent):
        witness = "" if real_time else "; the witnesses had no real-time priority: run as root"
        found.append(
            f"the machine stood still under {excused / max(1, sent):.2%} of the calls, more than "
            f"0.1 %: leave it alone while it measures, or take a dedicated one{witness}"
        )
    return tuple(found)


def median_of(counts: Sequence[Count]) -> Count:
    """Return several rounds as one: what was counted is added up, what was measured is medians.

    The greatest latency and lag stay the greatest.
    """

    def by_name(field: str) -> dict[str, int]:
        total: Counter[str] = Counter()
        for one in counts:
            total.update(getattr(one, field))
        return dict(sorted(total.items()))

    def added(field: str) -> int:
        return sum(getattr(one, field) for one in counts)

    def median(field: str) -> float:
        return round(float(statistics.median(getattr(one, field) for one in counts)), 1)

    def medians(field: str) -> dict[str, float]:
        rounds: list[dict[str, float]] = [getattr(one, field) for one in counts]
        found = {key: statistics.median(one[key] for one in rounds) for key in QUANTILES}
        return {key: round(one, 1) for key, one in found.items()} | {
            "max": max(one["max"] for one in rounds)
        }

    return Count(
        sent=added("sent"),
        answered=added("answered"),
        late=added("late"),
        excused=added("excused"),
        shed=added("shed"),
        failed=added("failed"),
        stand_ins=by_name("stand_ins"),
        failures=by_name("failures"),
        goodput_per_s=median("goodput_per_s"),
        sent_per_s=median("sent_per_s"),
        answered_per_s=median("answered_per_s"),
        latency_us=medians("latency_us"),
        lag_us=medians("lag_us"),
        waited=added("waited"),
        resent=added("resent"),
    )
