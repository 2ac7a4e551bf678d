"""Journal, spans and lake agree to the decision, whatever was killed and whatever failed."""

from __future__ import annotations

from pathlib import Path

import pytest
from everything_killed import everything_killed


@pytest.mark.slow
def test_every_decision_is_a_span_and_a_row_once_whatever_is_killed(tmp_path: Path) -> None:
    """Four kills; `python tests/everything_killed.py` does thirty."""
    outcome = everything_killed(tmp_path, kills=4, seed=9)
    outcome.held()
    assert sum(outcome.killed.values()) == 4
