"""Intervals hold the truth as often as they say, in small worlds; `coverage.py` has the large."""

from __future__ import annotations

import numpy as np
import pytest
from coverage import QUICK, Declines, Losses, coverage

SEEDS = 200


@pytest.mark.parametrize("name", QUICK)
def test_intervals_hold_the_truth_as_often_as_they_say(name: str) -> None:
    rows = coverage(QUICK[name], SEEDS // 2 if name == "declines" else SEEDS)
    assert [row.name for row in rows if not row.covers] == []
    assert sum(row.said > 0.9 for row in rows) >= len(rows) / 2
    assert any(row.coverage < 1.0 for row in rows)


def test_a_model_that_is_off_misleads_what_it_implies_and_not_what_is_explored() -> None:
    """The test of the test: where p is wrong, model-implied intervals must be seen to fail."""
    world = Declines(many=2_500, base=0.02, small_base=0.02, threshold=0.06, off=1.2)
    honest = coverage(world, 40)
    assert [row.name for row in honest if not row.covers] == []

    class Believed(Declines):
        """The same payments, taken for what the model says they are."""

        def truth(self, base: float) -> dict:
            return world.truth(base)

        def sums(self, chance: np.random.Generator) -> list:
            return world.sums(chance)

    believed = coverage(Believed(small_base=0.02, base=0.02), 40)
    implied = [row for row in believed if row.name.endswith(", model_implied")]
    off = [row for row in implied if not row.name.startswith("ratio")]
    assert len(off) == 3
    assert max(row.coverage for row in off) < 0.6


def test_losses_that_a_few_make_need_a_cap() -> None:
    """What could not be mended, held so that nobody believes otherwise."""
    wild = Losses(many=800, rate=0.01, small_rate=0.01, sigma=2.2)
    (row,) = coverage(wild, SEEDS)
    assert not row.covers
