"""What one worker has done since it started: plain numbers that the hall counts up."""

from __future__ import annotations


class Tally:
    """Calls by how they ended, each in one of four; and the longest pause of the loop."""

    __slots__ = ("answered", "refused", "shed", "stood_in", "worst_pause_ns")

    def __init__(self) -> None:
        self.answered = 0
        """By the model."""
        self.stood_in = 0
        """By the product's stand-in."""
        self.refused = 0
        """The caller's fault."""
        self.shed = 0
        """Refused for want of capacity."""
        self.worst_pause_ns = 0
