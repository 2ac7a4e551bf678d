"""When a consumer that fills the lake joins the small files of its tables: now and then."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable

from gateway.errors import LakeError
from gateway.sidecar.lake.lake import Lake
from gateway.sidecar.tail.call import Range

COMPACT_S = 60.0
_DAY_S = 86_400

log = logging.getLogger(__name__)


class Compaction:
    """Joins what is due, in yesterday's and today's folders of some tables."""

    def __init__(
        self,
        lake: Lake,
        tables: Collection[str],
        *,
        clock_s: Callable[[], float],
        wall_ns: Callable[[], int],
    ) -> None:
        self._lake = lake
        self._tables = tables
        self._clock_s = clock_s
        self._wall_ns = wall_ns
        self._due_s = clock_s() + COMPACT_S

    def when_due(self, closed: Callable[[], Iterable[Range]]) -> None:
        """Join small files of ranges that nothing more comes into; what the lake refuses is said.

        `closed` is asked only where it is time.
        """
        now_s = self._clock_s()
        if now_s < self._due_s:
            return
        self._due_s = now_s + COMPACT_S
        now_ns = self._wall_ns()
        days = [now_ns // 10**9 - age * _DAY_S for age in (0, 1)]
        dates = {time.strftime("%Y-%m-%d", time.gmtime(day)) for day in days}
        try:
            self._lake.compact(closed(), now_ns=now_ns, dates=dates, tables=self._tables)
        except LakeError as error:
            log.warning("small files are left as they are: %s", error)
