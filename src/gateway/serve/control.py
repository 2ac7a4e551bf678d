"""What a supervisor and its workers tell each other: JSON, a line a message, over a socket pair.

The supervisor sends a worker one `Order`, and then nothing: that its end is open says that it
lives. The worker answers `Ready` once, or the error that it ends with.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from gateway import errors
from gateway.errors import GatewayError, ProductError, Violation
from gateway.serve.settings import Settings


@dataclass(frozen=True, slots=True)
class Order:
    """What a worker is to do. `trials`: of model files, what others were told about them."""

    settings: Settings
    trials: dict[str, Any]

    def encode(self) -> bytes:
        """Return the message."""
        return _line({"settings": self.settings.row(), "trials": self.trials})

    @classmethod
    def decode(cls, line: bytes) -> Order:
        """Read the message."""
        row = json.loads(line)
        return cls(Settings.from_row(row["settings"]), row["trials"])


@dataclass(frozen=True, slots=True)
class Ready:
    """A worker answers calls. `products`: the generation of each; `trials`: what it learned."""

    address: str
    products: dict[str, int]
    trials: dict[str, Any]

    def encode(self) -> bytes:
        """Return the message."""
        return _line({"ready": asdict(self)})


def encode_error(error: GatewayError) -> bytes:
    """Return the message of a worker that ends with an error."""
    kinds = [kind.__name__ for kind in type(error).__mro__ if kind.__module__ == errors.__name__]
    violations = error.violations if isinstance(error, ProductError) else ()
    return _line(
        {
            "kind": kinds[0],
            "what": error.what,
            "subject": error.subject,
            "hint": error.hint,
            "violations": [asdict(violation) for violation in violations],
        }
    )


def decode_answer(line: bytes) -> Ready | GatewayError:
    """Read what a worker said."""
    row = json.loads(line)
    if "ready" in row:
        return Ready(**row["ready"])
    if row["violations"]:
        return ProductError(tuple(Violation(**violation) for violation in row["violations"]))
    kind: type[GatewayError] = getattr(errors, row["kind"])
    return kind(row["what"], subject=row["subject"], hint=row["hint"])


def _line(row: dict[str, Any]) -> bytes:
    return json.dumps(row).encode() + b"\n"
