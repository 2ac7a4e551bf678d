"""What waits for one product's model: how much of it there may be."""

from __future__ import annotations

from gateway.model import Generation
from gateway.serve.hall.admit import Serving
from gateway.serve.hall.lane import Lane


def test_batches_that_end_at_once_do_not_close_a_lane(generation: Generation) -> None:
    """A model that raises takes no time; what a batch of 128 takes is still unknown, and long."""
    serving = Serving.of(generation, 0)
    lane = Lane(serving, {1: 40_000_000}, 0, in_annex=True)
    slack_ns = 250 * 40e6
    for i in range(20):
        lane.cost_ns.learn(2, 20_000, i)
        assert lane.room(i * 2_000_000, slack_ns) > 100
