"""What runs consumers: one that fails holds no other back, and what it says holds no value."""

from __future__ import annotations

from threading import Event

import pytest

from gateway.sidecar import wing
from gateway.sidecar.wing import Wing

SECRET = "customer-4711"


class Stumbles:
    """Fails in a way that nobody foresaw, with a value in its text, and then goes on."""

    name, idle_s = "stumbles", 0.01

    def __init__(self) -> None:
        self.steps, self.goes_on = 0, Event()

    def step(self) -> object | None:
        self.steps += 1
        if self.steps == 1:
            raise ValueError(f"{SECRET!r} is no number")
        self.goes_on.set()
        return None

    def stop(self) -> None:
        pass

    def settle(self) -> None:
        pass


class Walks(Stumbles):
    """Does not fail."""

    name = "walks"

    def step(self) -> object | None:
        self.goes_on.set()
        return None


def test_an_error_that_nobody_foresaw_is_told_by_its_place_and_not_by_its_text(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wing, "RETRY_S_MAX", 0.05)
    stumbles, walks = Stumbles(), Walks()
    with Wing([stumbles, walks]):
        assert walks.goes_on.wait(60)
        assert stumbles.goes_on.wait(60)
    assert SECRET not in caplog.text
    (line,) = [one.getMessage() for one in caplog.records]
    assert line.startswith("stumbles failed; it tries again: ValueError at ")
    assert "test_wing.py:" in line
