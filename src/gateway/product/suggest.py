"""What the writer of a product.yaml may have meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

_SHOWN_MAX = 12


def suggest(name: str, names: Iterable[str]) -> str:
    """Return a hint: the name most like `name`, or else the names there are."""
    there = tuple(names)
    folded = {known.lower(): known for known in there}
    # A name of any length is compared by its beginning only: difflib is quadratic.
    wanted = name[:100].lower().replace("-", "_").strip()
    alike = get_close_matches(wanted, folded, n=1) or get_close_matches(name[:100], folded, n=1)
    if alike:
        return f"Did you mean {folded[alike[0]]}?"
    if not there:
        return ""
    end = ", …" if len(there) > _SHOWN_MAX else "."
    return f"Known: {', '.join(there[:_SHOWN_MAX])}{end}"


def share(value: float) -> str:
    """Return a share as one would write it: 0.1 as 0.10, 0.025 as 0.025."""
    cents = f"{value:.2f}"
    return cents if float(cents) == value else f"{value:.10g}"


def shown(value: object) -> str:
    """Return a value of a YAML file as a message shows it, on one short line."""
    match value:
        case None:
            return "empty"
        case bool():
            return str(value).lower()
        case str():
            return repr(value if len(value) <= 40 else value[:37] + "...")
        case int() | float():
            return str(value)
        case dict():
            return "a mapping"
        case list():
            return "a list"
    return repr(value)[:40]
