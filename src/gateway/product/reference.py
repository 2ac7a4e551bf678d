"""The key reference: every key of product.yaml as one Markdown table."""

from __future__ import annotations

from enum import Enum
from typing import Any

from pydantic_core import PydanticUndefined

from gateway.product.keys import ITEM, Entry, entries


def reference() -> str:
    """Return a Markdown table with a row for each key: type, default, range and meaning."""
    head = ["| key | type | default | must be | meaning |", "| --- | --- | --- | --- | --- |"]
    return "\n".join([*head, *(_row(entry) for entry in entries().values())]) + "\n"


def _row(entry: Entry) -> str:
    key = ".".join(entry.pattern).replace(f".{ITEM}", ITEM)
    cells = (f"`{key}`", entry.kind, _default(entry), entry.says, entry.field.description or "")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _default(entry: Entry) -> str:
    if entry.field.is_required():
        return "required"
    if entry.field.default_factory is not None:
        return "derived"
    default: Any = entry.field.default
    if default is PydanticUndefined or default is None:
        return "none"
    if isinstance(default, str | int | float) and not isinstance(default, Enum):
        return f"{default:g}" if isinstance(default, float) else str(default)
    if isinstance(default, tuple) and default:
        return f"[{', '.join(f'{one:g}' for one in default)}]"
    return "its defaults" if hasattr(default, "model_fields_set") else "empty"
