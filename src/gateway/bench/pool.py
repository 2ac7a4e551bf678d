"""The generator's connections: calls go round, and each place is filled again when it falls empty.

Never waits but where it is told how long, and never decides what is sent.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from contextlib import suppress

from gateway.bench.connection import Connection, Ledger, Lost
from gateway.bench.frames import Request
from gateway.errors import UnreachableError

READS = 4
CONNECT_S = 10.0
AGAIN_NS = 5_000_000
"""Between two tries to make a connection that was refused."""


def address_of(address: str) -> tuple[str, int] | str:
    """Return what a socket connects to: of `host:port`, or of `unix:path`."""
    if address.startswith("unix:"):
        return address.removeprefix("unix:")
    host, _, port = address.rpartition(":")
    return socket.getaddrinfo(host, int(port), socket.AF_INET, socket.SOCK_STREAM)[0][4][:2]  # type: ignore[return-value]


class Pool:
    """`count` connections to one address. What becomes of calls goes to the ledger."""

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
