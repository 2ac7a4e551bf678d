"""How the commands say money, times and sizes, and the parameters that several take."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from gateway.errors import UsageError

Json = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON, for programs.")]
Folder = Annotated[Path, Parameter(name="DIR", help="Folders with a product.yaml each.")]

out = Console(highlight=False)
if not out.is_terminal:
    # A pipe or a file has no width: let no row be folded.
    out = Console(highlight=False, width=200)
notes = Console(stderr=True, soft_wrap=True, highlight=False)

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
_UNIT = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def size_bytes(text: str) -> int:
    """Read a size such as 512MiB or 2G.

    Raises:
        UsageError: it is none.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError("is no size", subject=text, hint="Write it as 512MiB or 4G.")
    return int(float(match[1]) * _UNIT[match[2].upper()])


def money(minor: float, currency: str, minor_per_major: int) -> str:
    """Say an amount in its currency: 1234.5 minor units of USD are `12.35 USD`."""
    digits = len(str(minor_per_major)) - 1
    return f"{minor / minor_per_major:,.{digits}f} {currency}"


def microseconds(us: float) -> str:
    """Say a duration with three digits: `340 µs`, `1.24 ms`."""
    return f"{us:.0f} µs" if us < 1000 else f"{us / 1000:.3g} ms"
