"""Requests that wait at the same time go to the disk together: one commit for all of them.

To sync takes milliseconds, during which others arrive. So the loop takes whatever waits, and comes
back, as the serving loop does; a request that is alone waits for nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from gateway.errors import JournalError

ROWS_MAX = 8000
"""In one commit. What waits beyond it has the next."""

CALLS_MAX = 64
"""So many are enough: those that go on coming do not hold them up."""

LOOKS = 8
"""A call comes to its handler in several rounds of the loop: so many without a new one end the
wait. One that is alone pays some tens of microseconds for them, and milliseconds for its commit."""

QUIET_S = 0.0005
"""Where calls came together before, so long without a new one ends it: to bring one in takes grpcio
a thread's turn, and a commit that has one call more is one commit less."""


class Together:
    """Lets `take` of all requests share calls of `keep`, which returns an answer a row.

    All on one event loop, which stands still while `keep` runs.
    """

    def __init__(self, keep: Callable[[Sequence[Any]], Sequence[Any]]) -> None:
        self._keep = keep
        self._is_crowded = False
        self._waiting: list[tuple[Sequence[Any], asyncio.Future[Sequence[Any]]]] = []

    async def take(self, rows: Sequence[Any]) -> Sequence[Any]:
        """Return an answer for each row, once they are on the disk.

        Raises:
            JournalError: none of them was kept.
        """
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Sequence[Any]] = loop.create_future()
        self._waiting.append((rows, answered))
        if len(self._waiting) == 1:
            self._look_again(loop, LOOKS)
        return await answered

    def _look_again(self, loop: asyncio.AbstractEventLoop, looks: int) -> None:
        there = len(self._waiting)
        if self._is_crowded and looks:
            loop.call_later(QUIET_S, self._look, loop, there, 1)
        else:
            loop.call_soon(self._look, loop, there, looks)

    def _look(self, loop: asyncio.AbstractEventLoop, seen: int, looks: int) -> None:
        """Let those join whose calls are coming; keep what there is when nobody new does."""
        has_grown = len(self._waiting) > seen
        if (has_grown or looks > 1) and len(self._waiting) < CALLS_MAX:
            self._look_again(loop, LOOKS if has_grown else looks - 1)
            return
        count, size = 0, 0
        while count < len(self._waiting) and (not count or size < ROWS_MAX):
            size += len(self._waiting[count][0])
            count += 1
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        self._is_crowded = count > 1
        if self._waiting:
            self._look_again(loop, 0)
        self._answer(batch)

    def _answer(self, batch: Sequence[tuple[Sequence[Any], asyncio.Future[Sequence[Any]]]]) -> None:
        try:
            answers = self._keep([row for rows, _ in batch for row in rows])
        except Exception as error:
            if len(batch) > 1 and not isinstance(error, JournalError):
                for one in batch:  # it is the fault of one of them: not of its neighbours
                    self._answer([one])
                return
            for _, answered in batch:
                if not answered.done():
                    answered.set_exception(error)
            return
        begin = 0
        for rows, answered in batch:
            if not answered.done():  # its caller may have left; what it sent is kept
                answered.set_result(answers[begin : begin + len(rows)])
            begin += len(rows)
