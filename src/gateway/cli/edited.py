"""product.yaml changed by a command: tried before it is written, written whole or not at all."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.markup import escape

from gateway.cli.terms import out
from gateway.errors import ProductError, UsageError, Violation
from gateway.model import Generation, load_generation
from gateway.product.edit import content_of, flow, with_generation, with_key
from gateway.product.section import Key

Write = Annotated[
    bool,
    Parameter(
        name="--write",
        negative="",
        show_default=False,
        help="Put it into product.yaml, comments kept, and raise generation.",
    ),
]


def change_of(under: str, values: Mapping[str, Any], after: Generation | None) -> dict[str, Any]:
    """Return a change as JSON values; `after` is None where it was not written."""
    written = None
    if after is not None:
        written = {"generation": after.product.generation, "digest": after.digest}
    return {"under": under, "set": dict(values), "written": written}


def print_change(
    before: Generation, under: str, values: Mapping[str, Any], after: Generation | None
) -> None:
    """Print what product.yaml is to say, or says now."""
    path, number = escape(before.product.source.path), before.product.generation
    put = "Put into" if after is None else "Written into"
    out.print(f"{put} {path}, under {escape(under)}:", soft_wrap=True)
    for key, value in values.items():
        out.print(f"  {key}: {escape(flow(value))}", soft_wrap=True)
    if after is None:
        out.print(f"and raise generation to {number + 1}. With --write it is done.")
    else:
        out.print(
            f"generation {number} ({before.digest[:12]}…) became "
            f"{after.product.generation} ({after.digest[:12]}…)."
        )


def write_keys(source: Path, values: Mapping[Key, object]) -> Generation:
    """Set keys of a product.yaml, raise its generation by one, and return what it is now.

    Comments, order and all that is not named stay. The changed file is loaded first, from beside
    the one that it replaces: one that does not load is never written.

    Raises:
        UsageError: it cannot be written, or has changed meanwhile.
        ProductError, ModelError: with these values it is no product.
    """
    try:
        before = source.read_bytes()
        text = before.decode()
        for key, value in values.items():
            text = with_key(text, key, value)
        text = with_generation(text, int(content_of(text)["generation"]) + 1)
        mode = stat.S_IMODE(source.stat().st_mode)
        descriptor, name = tempfile.mkstemp(dir=source.parent, prefix=f".{source.name}.")
        beside = Path(name)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
                file.write(text)
                os.fchmod(file.fileno(), mode)
                file.flush()
                os.fsync(file.fileno())
            generation = _loaded(beside, source)
            if source.read_bytes() != before:
                raise UsageError("has changed meanwhile", subject=str(source), hint="Try again.")
            os.replace(beside, source)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"cannot be written: {error.strerror}", subject=str(source)) from None
    return generation


def _loaded(beside: Path, source: Path) -> Generation:
    """Load what is to be written; violations name the file that it is for."""
    try:
        return load_generation(beside)
    except ProductError as error:
        named = (
            Violation(str(source), one.line, one.key, one.problem, one.hint)
            for one in error.violations
        )
        raise ProductError(tuple(named)) from None
