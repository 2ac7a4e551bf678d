"""One tree of errors. Each says what happened, to what, and what to try.

GatewayError
├── UsageError          the command line asks for what cannot be
├── ProductError        product.yaml breaks its contract; carries every violation
├── ModelError          an ONNX file is missing, altered, or no classifier we can serve
├── ListenError         the address cannot be listened on
├── UnreachableError    no gateway answers at the address
├── RefusedError        the gateway refused the call; its violations say why
├── CollectorError      the collector of traces refuses spans, or cannot be reached as configured
├── LakeError           the lake cannot be written, or cannot be read
└── JournalError        the journal cannot be written, or cannot be read
    ├── JournalFull     the disk, or the journal's own limit, is full
    └── JournalDamaged  bytes that were written are not there any more

A class's `exit_code` is what the command line ends with.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class ExitCode(IntEnum):
    """What a command's exit status means."""

    OK = 0
    FAILED = 1
    USAGE = 2
    INVALID_PRODUCT = 3
    INVALID_MODEL = 4
    CANNOT_LISTEN = 5
    UNREACHABLE = 6
    JOURNAL = 7
    DAMAGED_JOURNAL = 8
    REFUSED = 9
    LAKE = 10
    INTERRUPTED = 130


class GatewayError(Exception):
    """What went wrong (`what`), to what (`subject`), and what to try (`hint`)."""

    exit_code = ExitCode.FAILED

    def __init__(self, what: str, *, subject: str = "", hint: str = "") -> None:
        super().__init__(f"{subject}: {what}" if subject else what)
        self.what = what
        self.subject = subject
        self.hint = hint


class UsageError(GatewayError):
    exit_code = ExitCode.USAGE


@dataclass(frozen=True, slots=True, order=True)
class Violation:
    """One broken rule of a product.yaml.

    `line` is 1-based; `key` is the dotted path, such as `costs.false_negative.loss_rate`.
    """

    path: str
    line: int
    key: str
    problem: str
    hint: str = ""

    def __str__(self) -> str:
        hint = f" {self.hint}" if self.hint else ""
        subject = f"{self.key} " if self.key else ""
        return f"{self.path}:{self.line}: {subject}{self.problem}{hint}"


class ProductError(GatewayError):
    """Every violation of one product.yaml, in the order of its lines."""

    exit_code = ExitCode.INVALID_PRODUCT

    def __init__(self, violations: tuple[Violation, ...]) -> None:
        super().__init__("\n".join(str(violation) for violation in violations))
        self.violations = violations


class ModelError(GatewayError):
    exit_code = ExitCode.INVALID_MODEL


class ListenError(GatewayError):
    exit_code = ExitCode.CANNOT_LISTEN


class UnreachableError(GatewayError):
    exit_code = ExitCode.UNREACHABLE


class RefusedError(GatewayError):
    exit_code = ExitCode.REFUSED


class CollectorError(GatewayError):
    exit_code = ExitCode.UNREACHABLE


class LakeError(GatewayError):
    exit_code = ExitCode.LAKE


class JournalError(GatewayError):
    exit_code = ExitCode.JOURNAL


class JournalFull(JournalError):
    pass


class JournalDamaged(JournalError):
    exit_code = ExitCode.DAMAGED_JOURNAL
