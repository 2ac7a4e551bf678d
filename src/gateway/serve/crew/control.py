"""What a supervisor and its workers tell each other: JSON, a line a message, over a socket pair.

The supervisor sends a worker one `Order`, and then each new generation that is to be served
(`Load`) or is refused: that its end is open says that it lives. The worker answers `Ready` once, or
the error that it ends with, and `Loaded` or `NotLoaded` to each generation.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from gateway import errors
from gateway.errors import GatewayError, ProductError, Violation
from gateway.journal import Rejected
from gateway.serve.crew.settings import Settings


@dataclass(frozen=True, slots=True)
class Load:
    """A verified generation of a product, to be served.

    `snapshot`: the directory with its files; `plan`: the pickled `gateway.model.Plan`, in base64,
    so that a worker need not read product.yaml beside its calls.
    """

    product: str
    number: int
    digest: str
    snapshot: str
    plan: str

    def encode(self) -> bytes:
        """Return the message."""
        return _line({"load": asdict(self)})


@dataclass(frozen=True, slots=True)
class Order:
    """What a worker is to do."""

    settings: Settings
    loads: tuple[Load, ...]

    def encode(self) -> bytes:
        """Return the message."""
        return _line({"settings": self.settings.row(), "loads": [asdict(x) for x in self.loads]})

    @classmethod
    def decode(cls, line: bytes) -> Order:
        """Read the message."""
        row = json.loads(line)
        return cls(Settings.from_row(row["settings"]), tuple(Load(**x) for x in row["loads"]))


def encode_rejected(rejected: Rejected) -> bytes:
    """Return the message that a change is not served, for the journal of one worker."""
    return _line({"rejected": asdict(rejected)})


def decode_message(line: bytes) -> Load | Rejected:
    """Read what a supervisor says after its order."""
    row = json.loads(line)
    if "load" in row:
        return Load(**row["load"])
    rejected = row["rejected"]
    return Rejected(**{**rejected, "why": tuple(rejected["why"])})


@dataclass(frozen=True, slots=True)
class Ready:
    """A worker answers calls. `products`: the generation of each."""

    address: str
    products: dict[str, int]

    def encode(self) -> bytes:
        """Return the message."""
        return _line({"ready": asdict(self)})


@dataclass(frozen=True, slots=True)
class Loaded:
    """A worker serves a new generation."""

    product: str
    digest: str

    def encode(self) -> bytes:
        """Return the message."""
        return _line({"loaded": asdict(self)})


@dataclass(frozen=True, slots=True)
class NotLoaded:
    """A worker could not open a new generation, and serves the one before."""

    product: str
    digest: str
    why: str
    hint: str

    @staticmethod
    def of(order: Load, error: GatewayError) -> NotLoaded:
        """Say why an order could not be followed."""
        return NotLoaded(order.product, order.digest, str(error), error.hint)

    def encode(self) -> bytes:
        """Return the message."""
        return _line({"not_loaded": asdict(self)})


def encode_error(error: GatewayError) -> bytes:
    """Return the message of a worker that ends with an error."""
    return _line(error_row(error))


def error_row(error: GatewayError) -> dict[str, Any]:
    """Return an error as JSON values."""
    kinds = [kind.__name__ for kind in type(error).__mro__ if kind.__module__ == errors.__name__]
    violations = error.violations if isinstance(error, ProductError) else ()
    return {
        "kind": kinds[0],
        "what": error.what,
        "subject": error.subject,
        "hint": error.hint,
        "violations": [asdict(violation) for violation in violations],
    }


def decode_answer(line: bytes) -> Ready | Loaded | NotLoaded | GatewayError:
    """Read what a worker said."""
    row = json.loads(line)
    if "ready" in row:
        return Ready(**row["ready"])
    if "loaded" in row:
        return Loaded(**row["loaded"])
    if "not_loaded" in row:
        return NotLoaded(**row["not_loaded"])
    return error_of(row)


def error_of(row: dict[str, Any]) -> GatewayError:
    """Read what `error_row` returned."""
    if row["violations"]:
        return ProductError(tuple(Violation(**violation) for violation in row["violations"]))
    kind: type[GatewayError] = getattr(errors, row["kind"])
    return kind(row["what"], subject=row["subject"], hint=row["hint"])


def _line(row: dict[str, Any]) -> bytes:
    return json.dumps(row).encode() + b"\n"
