"""product.yaml changed by a command: tried before it is written, written whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.markup import escape

from gateway.cli.terms import out
from gateway.model import Generation, read_folder
from gateway.model.registry import Registry
from gateway.model.revision import MEMORY, draft, held, next_number, present_in, revisions, write
from gateway.product import FrozenMapping
from gateway.product.edit import flow, with_generation, with_key
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


def write_keys(
    folder: Path, values: Mapping[Key, object], files: Mapping[str, bytes] = FrozenMapping()
) -> Generation:
    """Set keys of a folder's product.yaml, raise its generation, and return what it is now.

    Comments, order and all that is not named stay. What the folder would be is loaded first; what
    does not load is never written. What it was is kept, for `gateway models rollback`. `files` are
    new ones that the values name.

    Raises:
        UsageError: it cannot be written, or has changed meanwhile.
        ProductError, ModelError: with these values it is no product.
        JournalError: what it was cannot be kept.
    """
    with held(folder):
        present = present_in(folder)
        contents = present.contents or read_folder(folder)  # which says why it cannot be read
        memory = Registry(folder / MEMORY)
        text = present.text
        for key, value in values.items():
            text = with_key(text, key, value)
        known = revisions(contents.product.name, memory, None)
        text = with_generation(text, next_number(present, known, None))
        change = draft(present, text, {**contents.files, **files})
        write(change, memory, was_refused=False)
    return change.generation
