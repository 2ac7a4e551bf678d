"""What can be answered, and why the model did not answer."""

from __future__ import annotations

from enum import IntEnum


class Action(IntEnum):
    """In order of severity; the numbers are those of `gateway.v1.Action`."""

    APPROVE = 1
    STEP_UP = 2
    """Ask the customer to prove who they are, for instance by 3-D Secure."""
    REVIEW = 3
    """Let an analyst look first."""
    DECLINE = 4

    @property
    def spelling(self) -> str:
        """The name as product.yaml spells it, such as `step_up`."""
        return self.name.lower()


class StandIn(IntEnum):
    """Why the model did not decide; the numbers are those of `gateway.v1.StandIn`."""

    NONE = 0
    """It did."""
    DEADLINE = 1
    """There was no time left inside the budget."""
    OVERLOAD = 2
    """More work had arrived than the product's share of capacity."""
    MODEL_UNAVAILABLE = 3
    """No model was loaded."""
    MODEL_ERROR = 4
    """The model failed, or gave what is no probability."""
