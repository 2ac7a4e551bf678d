"""How the commands say money, times and sizes, and the parameters that several take."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number
from rich.console import Console

from gateway.errors import UsageError

Json = Annotated[
    bool,
    Parameter(name="--json", negative="", show_default=False, help="Print JSON, for programs."),
]
Insecure = Annotated[
    bool,
    Parameter(negative="", show_default=False, help="Listen on other hosts' networks without TLS."),
]
Folder = Annotated[Path, Parameter(name="DIR", help="Folders with a product.yaml each.")]
AtLeastOne = Number(gte=1)


class Output(Console):
    """Stdout. `main` ends quietly when its reader has seen enough; rich would end with 1."""

    def on_broken_pipe(self) -> None:
        """Let the BrokenPipeError that is being dealt with go on."""
        raise


class _Notes(Console):
    """Stderr. A server does not stop because nobody reads its log; rich would end it."""

    def on_broken_pipe(self) -> None:
        """Say it to nobody."""


out = Output(highlight=False, emoji=False)
if not out.is_terminal:
    # A pipe or a file has no width: let no row be folded.
    out = Output(highlight=False, emoji=False, width=200)
notes = _Notes(stderr=True, soft_wrap=True, highlight=False, emoji=False)

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_UNIT = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def span_ns(text: str) -> int:
    """Read a span of time such as 90s, 15m, 1h or 7d.

    Raises:
        UsageError: it is none.
    """
    match = _SPAN.fullmatch(text.strip().lower())
    if match is None:
        raise UsageError("is no span of time", subject=repr(text), hint="Write it as 15m or 1h.")
    return int(float(match[1]) * _SECONDS[match[2]] * 1e9)


def every_s(text: str) -> float | None:
    """Read how often something is to be done, such as 15m; None where it is never: `0` or `off`.

    Raises:
        UsageError: it is neither.
    """
    if text.strip().lower() in ("0", "off"):
        return None
    return span_ns(text) / 1e9 or None


def size_bytes(text: str) -> int:
    """Read a size such as 512MiB or 2G.

    Raises:
        UsageError: it is none.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError("is no size", subject=repr(text), hint="Write it as 512MiB or 4G.")
    return int(float(match[1]) * _UNIT[match[2].upper()])


def utc_time(wall_ns: int | None) -> str:
    """Return a wall time in ISO 8601, to the microsecond; nothing where it is not known."""
    if wall_ns is None:
        return ""
    return utc(wall_ns).isoformat(timespec="microseconds")


def utc(wall_ns: int) -> datetime:
    """Return a wall time, without what is less than a microsecond."""
    seconds, rest_ns = divmod(wall_ns, 10**9)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest_ns // 1000)


def save(path: Path, text: str, did: str = "Drew") -> None:
    """Write a file that a command was asked for, and say so on stderr.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"cannot be written: {error.strerror}",
            subject=str(path),
            hint="Name a file in a folder that is there.",
        ) from None
    notes.print(f"{did} {path}", markup=False)


def to_width(line: str) -> str:
    """Cut a line at a terminal's edge; in a pipe or a file it stays whole."""
    if not out.is_terminal or len(line) <= out.width:
        return line
    return f"{line[: out.width - 1]}…"


def money(minor: float, currency: str, minor_per_major: int) -> str:
    """Say an amount in its currency: 1234.5 minor units of USD are `12.35 USD`."""
    digits = len(str(minor_per_major)) - 1
    return f"{minor / minor_per_major:,.{digits}f} {currency}"


def microseconds(us: float) -> str:
    """Say a duration with three digits: `340 µs`, `1.24 ms`, `2.5 s`."""
    if us < 1000:
        return f"{us:.0f} µs"
    return f"{us / 1000:.3g} ms" if us < 999_500 else f"{us / 1e6:.3g} s"
