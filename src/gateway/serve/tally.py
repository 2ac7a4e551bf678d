"""What a worker has done since it started, in plain counts."""

from __future__ import annotations


class Tally:
    """Calls by how they ended, and the longest that the loop stood still.

    `answered` counts the model's decisions and stand-ins, `stood_in` the latter of them.
    """

    __slots__ = ("answered", "refused", "shed", "stood_in", "worst_pause_ns")

    def __init__(self) -> None:
        self.answered = 0
        self.stood_in = 0
        self.refused = 0
        self.shed = 0
        self.worst_pause_ns = 0
