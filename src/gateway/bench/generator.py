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
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.bench.connection import Connection, Ledger, Lost
from gateway.bench.frames import Request, request
from gateway.bench.schedule import Schedule
from gateway.errors import GatewayError, UnreachableError

CONNECTIONS = 16
AT_ONCE = 32
"""Some 100 µs of sending: answers are dated no later than that."""

READS = 4
CONNECT_S = 10.0
AGAIN_NS = 5_000_000
"""Between two tries to make a connection that was refused."""

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
    due, before the loop looks for answers again.
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
    ledger = Ledger()
    pool = _Pool(address_of(plan.address), plan.connections, ledger, clock_ns)
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


def address_of(address: str) -> tuple[str, int] | str:
    """Return what a socket connects to: of `host:port`, or of `unix:path`."""
    if address.startswith("unix:"):
        return address.removeprefix("unix:")
    host, _, port = address.rpartition(":")
    return socket.getaddrinfo(host, int(port), socket.AF_INET, socket.SOCK_STREAM)[0][4][:2]  # type: ignore[return-value]


class _Pool:
    """The connections; each place is filled again as soon as its connection is over."""

    def __init__(
        self,
        address: tuple[str, int] | str,
        count: int,
        ledger: Ledger,
        clock_ns: Callable[[], int],
    ) -> None:
        self._address = address
        self._ledger = ledger
        self._clock_ns = clock_ns
        self._epoll = select.epoll()
        self._places: list[Connection | None] = [None] * count
        self._leaving: list[Connection] = []
        self._by_number: dict[int, Connection] = {}
        self._written: set[Connection] = set()
        self._full: set[Connection] = set()
        self._turn = 0
        self._again_ns = 0
        self._holes = count
        self.lost = 0

    def open(self, name: str) -> None:
        """Make all connections, and wait until the server has spoken on each."""
        end_ns = self._clock_ns() + round(CONNECT_S * 1e9)
        while not all(one is not None and one.opened for one in self._places):
            if self._clock_ns() > end_ns:
                raise UnreachableError(
                    "no gateway answers", subject=name, hint="Is `gateway serve` running there?"
                )
            self.read(5)
        self.lost = 0

    def start(self, call: int, request: Request, transaction_id: bytes) -> bool:
        """Give a call to the next connection that takes one. False if none does."""
        places = self._places
        count = len(places)
        for step in range(count):
            connection = places[(self._turn + step) % count]
            if connection is not None and connection.start(call, request, transaction_id):
                self._turn = (self._turn + step + 1) % count
                self._written.add(connection)
                return True
        return False

    def flush(self) -> None:
        """Write to every connection that a call was given to."""
        for connection in self._written:
            self._flush(connection)
        self._written.clear()

    def read(self, timeout_ms: int) -> None:
        """Take in what has come, or wait for it; fill empty places."""
        if self._holes:
            self._fill()
            timeout_ms = min(timeout_ms, AGAIN_NS // 1_000_000)
        for number, mask in self._epoll.poll(timeout_ms / 1000, READS):
            connection = self._by_number[number]
            try:
                if mask & ~select.EPOLLOUT:
                    connection.read(self._clock_ns)
            except Lost:
                self._lose(connection)
                continue
            # Acknowledgements, and what did not fit before.
            self._flush(connection)
            if connection.going_away and connection in self._places:
                self._places[self._places.index(connection)] = None
                self._leaving.append(connection)
                self._holes += 1

    def close(self) -> None:
        """End every connection."""
        for connection in self._by_number.values():
            connection.socket.close()
        self._epoll.close()

    def _fill(self) -> None:
        now_ns = self._clock_ns()
        if now_ns < self._again_ns:
            return
        for place, there in enumerate(self._places):
            if there is not None:
                continue
            try:
                connection = Connection(self._address, self._ledger)
            except OSError:
                self._again_ns = now_ns + AGAIN_NS
                return
            self._places[place] = connection
            self._holes -= 1
            self._by_number[connection.socket.fileno()] = connection
            self._full.add(connection)
            self._epoll.register(connection.socket, select.EPOLLIN | select.EPOLLOUT)

    def _flush(self, connection: Connection) -> None:
        try:
            is_empty = connection.flush()
        except Lost:
            self._lose(connection)
            return
        if is_empty and connection in self._full:
            self._full.discard(connection)
            self._epoll.modify(connection.socket, select.EPOLLIN)
        elif not is_empty and connection not in self._full:
            self._full.add(connection)
            self._epoll.modify(connection.socket, select.EPOLLIN | select.EPOLLOUT)

    def _lose(self, connection: Connection) -> None:
        number = connection.socket.fileno()
        if self._by_number.pop(number, None) is None:
            return
        self._epoll.unregister(number)
        with suppress(Lost):
            # A send may fail before what the server said last is read: answers, a GOAWAY.
            while connection.read(self._clock_ns):
                pass
        now_ns = self._clock_ns()
        if not connection.opened:
            # Refused: not at once again.
            self._again_ns = now_ns + AGAIN_NS
        self.lost += connection.opened
        self._full.discard(connection)
        if connection in self._leaving:
            self._leaving.remove(connection)
        else:
            self._places[self._places.index(connection)] = None
            self._holes += 1
        connection.lose(now_ns)


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
    except UnreachableError as error:
        told.write(b"0\n")
        outcome = error
    pickle.dump(outcome, told, pickle.HIGHEST_PROTOCOL)


if __name__ == "__main__":
    # Its classes must go by this module's name, not by `__main__`, to be read elsewhere.
    from gateway.bench.generator import main as run

    run()
