"""Counts each dropped record once, though two tell of it: who misses it, and who dropped it. Pure.

A consumer that was away finds a hole and calls it gone; behind it, or in another boot, stands the
GAP entry of the writer that made the hole; and it tells of it again with each that it makes.
"""

from __future__ import annotations

from gateway.journal import Gap
from gateway.journal.entry import Loss
from gateway.journal.spans import Span, merged, size
from gateway.sidecar.tail.call import Gone

Boot = tuple[int, bytes]


class Missing:
    """The sequences that were told of as dropped, by boot."""

    def __init__(self) -> None:
        self._spans: dict[Boot, list[Span]] = {}

    def gone(self, gone: Gone) -> int:
        """Return how many records a hole adds to what is lost; 0 where it has no known end."""
        if gone.last_sequence is None:
            return 0
        return self._add((gone.worker, gone.boot_id), gone.first_sequence, gone.last_sequence)

    def told(self, gap: Gap) -> int:
        """Return how many records a GAP entry adds to what is lost."""
        if gap.reason is not Loss.RETENTION:
            return gap.count
        if not gap.count:
            return 0
        return self._add((gap.worker, gap.boot_id), gap.first_sequence, gap.last_sequence)

    def _add(self, boot: Boot, first: int, last: int) -> int:
        """Take in a span; return how many of its sequences were not there."""
        before = self._spans.get(boot, [])
        joined = merged([*before, (first, last)])
        self._spans[boot] = joined
        return size(joined) - size(before)
