"""Sends a schedule, whatever the server does. `python -m gateway.bench.generator` runs one.

Open loop: each call leaves at its scheduled time, answers or not; only where every
connection carries as many calls as the server takes does a call wait for a free stream, and
that is counted. One thread, on a core of its own: it spins while a send is near or an answer
is due, and sleeps otherwise. The schedule, the requests and the lists are made before it
begins, and the collector is off.

A connection that is lost is made again at once. Calls that HTTP/2 says no server has looked
at (above a GOAWAY's last stream, REFUSED_STREAM) are sent once more, as every gRPC client
does; their clock runs on from the first schedule. Nothing else is retried.
"""

from __future__ import annotations

import gc
import os
import pickle
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.bench.connection import Ledger
from gateway.bench.frames import request
from gateway.bench.pool import Pool, address_of
from gateway.bench.schedule import Schedule
from gateway.errors import GatewayError

CONNECTIONS = 16
AT_ONCE = 32
"""Some 100 µs of sending: answers are dated no later than that."""

NEAR_NS = 1_500_000
"""A send that is nearer than this is waited for spinning: a poll may wake a millisecond late."""

LEAD_NS = 20_000_000


@dataclass(frozen=True, slots=True)
class Plan:
    """What to send, and how.

    `messages[which[i]]` is the i-th call's, with `placeholder` where its transaction id goes;
    ids are `run`, 8 hex digits, and the call's number. With `in_flight_max` no more calls
    than that are open at a time; with `closed_s` there is no schedule at all, and calls are
    sent for so long, each as soon as there is room. `at_once` calls leave, when so many are
    due, before the loop looks for answers again. `retries`: how often a call is sent again that
    ended as UNAVAILABLE.
    """

    address: str
    block: bytes
    messages: tuple[bytes, ...]
    placeholder: bytes
    run: str
    schedule_ns: Schedule
    which: NDArray[np.uint16]
    core: int | None = None
    connections: int = CONNECTIONS
    in_flight_max: int | None = None
    closed_s: float | None = None
    patience_s: float = 2.0
    at_once: int = AT_ONCE
    retries: int = 0


@dataclass(frozen=True, slots=True)
class Calls:
    """What became of every call; one item a call in each, times monotonic.

    `sent_ns` is 0 for a call that no connection took, `status` below 0 where no server gave one.
    `waited` is how many calls had to wait for a free stream, `resent` how many went out
    twice, `lost` how many connections ended.
    """

    begun_ns: int
    scheduled_ns: NDArray[np.int64]
    sent_ns: NDArray[np.int64]
    received_ns: NDArray[np.int64]
    status: NDArray[np.int16]
    which: NDArray[np.uint16]
    answers: tuple[bytes | None, ...]
    waited: int
    resent: int
    lost: int


def generate(
    plan: Plan,
    *,
    clock_ns: Callable[[], int] = time.monotonic_ns,
    begun: Callable[[int], None] = lambda _: None,
) -> Calls:
    """Send it all and collect the answers. `begun` is told when the schedule's zero is.

    Raises:
        UnreachableError: there are no connections within CONNECT_S.
    """
    requests = [request(plan.block, one, plan.placeholder) for one in plan.messages]
    which: list[int] = plan.which.tolist()
    ids = plan.run.encode() + b"%016x"
    ledger = Ledger(retries=plan.retries)
    pool = Pool(address_of(plan.address), plan.connections, ledger, clock_ns)
    try:
        pool.open(plan.address)
        zero_ns = clock_ns() + LEAD_NS
        begun(zero_ns)
        if plan.closed_s is None:
            schedule: list[int] = (plan.schedule_ns + zero_ns).tolist()
            count, last_ns = len(schedule), schedule[-1]
        else:
            schedule, count, last_ns = [], 0, zero_ns + round(plan.closed_s * 1e9)
        closed = plan.closed_s is not None
        limit = plan.in_flight_max or sys.maxsize
        end_ns = last_ns + round(plan.patience_s * 1e9)
        waiting: deque[int] = deque()
        sent_ns, variants = ledger.sent_ns, len(which)
        waited = after = 0
        at_once = plan.at_once

        def start(call: int) -> bool:
            return pool.start(call, requests[which[call % variants]], ids % call)

        while True:
            now_ns = clock_ns()
            # 1. What is due leaves: first what waits already, in its order.
            if ledger.again:
                waiting.extendleft(reversed(ledger.again))
                ledger.again.clear()
            started: list[int] = []
            while waiting and len(started) < at_once and start(waiting[0]):
                started.append(waiting.popleft())
            for _ in range(at_once):
                if closed:
                    if now_ns >= last_ns or after - ledger.done >= limit or now_ns < zero_ns:
                        break
                    call = ledger.open(now_ns)
                elif after < count and schedule[after] <= now_ns and after - ledger.done < limit:
                    call = ledger.open(schedule[after])
                else:
                    break
                after += 1
                if waiting or not start(call):
                    waiting.append(call)
                    waited += 1
                else:
                    started.append(call)
            if started:
                now_ns = clock_ns()
                for call in started:
                    # A call that went out before keeps its first time.
                    sent_ns[call] = sent_ns[call] or now_ns
                pool.flush()
            # 2. Is it over?
            in_flight = after - ledger.done
            if not in_flight and (now_ns >= last_ns if closed else after == count):
                break
            if now_ns >= end_ns:
                break
            # 3. What has come is read; with nothing near, the loop sleeps.
            next_ns = schedule[after] if after < count else end_ns
            asleep_ns = 0 if in_flight or closed else next_ns - now_ns - NEAR_NS
            pool.read(max(0, asleep_ns // 1_000_000))
    finally:
        pool.close()
    return Calls(
        begun_ns=zero_ns,
        scheduled_ns=np.array(ledger.scheduled_ns, np.int64),
        sent_ns=np.array(ledger.sent_ns, np.int64),
        received_ns=np.array(ledger.received_ns, np.int64),
        status=np.array(ledger.status, np.int16),
        which=plan.which[np.arange(len(ledger.status)) % variants],
        answers=tuple(ledger.answer),
        waited=waited,
        resent=len(ledger.resent),
        lost=pool.lost,
    )


def main() -> None:
    """Read a pickled Plan from stdin; write the zero's time as a line, then the pickled Calls.

    What went wrong is pickled in the place of the Calls.
    """
    plan: Plan = pickle.load(sys.stdin.buffer)
    if plan.core is not None:
        os.sched_setaffinity(0, {plan.core})
    gc.collect()
    gc.freeze()
    gc.disable()
    told = sys.stdout.buffer

    def begun(zero_ns: int) -> None:
        told.write(b"%d\n" % zero_ns)
        told.flush()

    outcome: Calls | GatewayError
    try:
        outcome = generate(plan, begun=begun)
    except GatewayError as error:
        told.write(b"0\n")
        outcome = error
    pickle.dump(outcome, told, pickle.HIGHEST_PROTOCOL)


if __name__ == "__main__":
    # Its classes must go by this module's name, not by `__main__`, to be read elsewhere.
    from gateway.bench.generator import main as run

    run()
