"""When a worker that died is started again. Pure."""

from __future__ import annotations

SOUND_S = 10.0
"""A worker that served so long was well: its death is a first one."""

FIRST_S = 0.1
LONGEST_S = 10.0
LOOPING = 3
"""So many deaths in a row are a crash loop."""


class Backoff:
    """Counts a worker's deaths in a row."""

    def __init__(self) -> None:
        self.deaths = 0

    def died(self, served_s: float) -> float:
        """Take in a death; return how many seconds to wait: none for the first in a row."""
        self.deaths = 1 if served_s >= SOUND_S else self.deaths + 1
        if self.deaths == 1:
            return 0.0
        return min(FIRST_S * 2.0 ** min(self.deaths - 2, 10), LONGEST_S)

    @property
    def is_loop(self) -> bool:
        """Whether it dies again and again."""
        return self.deaths >= LOOPING
