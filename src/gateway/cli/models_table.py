"""How `gateway models` says what is served, what was refused, and what a change changes."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from gateway.cli.terms import out
from gateway.errors import GatewayError
from gateway.model import Contents, read_folder
from gateway.model.folder import arms_in
from gateway.model.registry import GateVerdict, ServedArm, State
from gateway.model.revision import Draft, Present
from gateway.product import Champion

DIGEST_SHOWN = 12
_STYLES = {"pass": "green", "fail": "red", "undecided": "yellow", "not checked": "dim"}


@dataclass(frozen=True, slots=True)
class Row:
    """A product: what a gateway says of it, and what stands in its folder.

    `state` is None where no gateway has served the folder, `present` where the folder cannot be
    read; `why` says so then. `is_served`: a gateway that runs serves it.
    """

    state: State | None = None
    present: Present | None = None
    why: str = ""
    is_served: bool = False

    @property
    def challengers(self) -> tuple[str, ...]:
        """The names of the challengers in the folder."""
        if self.present is None or self.present.contents is None:
            return ()
        return tuple(one.name for one in self.present.contents.product.models.challengers)


@dataclass(frozen=True, slots=True)
class Change:
    """A change of a folder. `unserved`: where what it replaced is kept, if that never loaded.

    `source`: where files come from that the folder did not have.
    """

    draft: Draft
    is_written: bool
    unserved: Path | None = None
    gates: tuple[GateVerdict, ...] = ()
    source: str = "from the generation that comes back"


def summarised(row: Row) -> dict[str, Any]:
    """Return what is known of a product, as JSON values."""
    state, present = row.state, row.present
    known = state.row() if state is not None else {}
    name = present.product if present is not None else None
    return {
        "product": state.product if state else name,
        "folder": state.folder if state else str(present.folder) if present else None,
        "serving": known.get("serving"),
        "is_served": row.is_served,
        "refused": known.get("refused"),
        "history": known.get("history", []),
        "looked_ns": known.get("looked_ns", 0),
        "in_folder": None if present is None else _present_row(present),
    }


def _present_row(present: Present) -> dict[str, Any]:
    contents = present.contents
    return {
        "generation": present.number,
        "digest": contents.digest if contents else None,
        "arms": [
            {name: getattr(arm, name) for name in ("name", "version", "sha256", "mode", "share")}
            for arm in _arms(contents)
        ],
        "why": _why(present),
    }


def changed_row(change: Change) -> dict[str, Any]:
    """Return a change as JSON values."""
    draft = change.draft
    return {
        "product": draft.generation.name,
        "folder": str(draft.present.folder),
        "written": change.is_written,
        "before": _end_row(draft.present.number, draft.present.contents),
        "after": _end_row(draft.contents.product.generation, draft.contents),
        "gates": [asdict(gate) for gate in change.gates],
        "files_restored": sorted(draft.missing),
        "kept_unserved": str(change.unserved) if change.unserved else None,
        "diff": "".join(_diff(draft)),
    }


def _end_row(number: int | None, contents: Contents | None) -> dict[str, Any]:
    champion = next(iter(_arms(contents)), None)
    return {
        "generation": number,
        "digest": contents.digest if contents else None,
        "champion": None
        if champion is None
        else {"name": champion.name, "version": champion.version, "sha256": champion.sha256},
    }


def print_change(change: Change, what: str) -> None:
    """Print what a change changes: digests before and after, and the lines."""
    draft = change.draft
    ends = (
        (draft.present.number, draft.present.contents),
        (draft.contents.product.generation, draft.contents),
    )
    verb = "" if change.is_written else " (not written: --dry-run)"
    out.print(f"{escape(draft.generation.name)}: {escape(what)}{verb}")
    table = Table(box=None, pad_edge=False, header_style="")
    for heading in ("", "before", "after"):
        table.add_column(heading, overflow="fold")
    champions = [next(iter(_arms(contents)), None) for _, contents in ends]
    table.add_row("generation", *(_or_none(number) for number, _ in ends))
    table.add_row("digest", *(contents.digest if contents else "none" for _, contents in ends))
    table.add_row("champion", *(_or_none(one and f"{one.name} {one.version}") for one in champions))
    table.add_row("sha256", *(one.sha256 if one else "none" for one in champions))
    out.print(table)
    _print_gates(change.gates)
    for name in sorted(draft.missing):
        verb = "is written" if change.is_written else "would be written"
        out.print(f"{escape(name)} {verb}, {escape(change.source)}")
    if change.unserved is not None:
        out.print(f"What it replaces was never served; kept as {escape(str(change.unserved))}")
    for line in _diff(draft):
        style = {"+": "green", "-": "red"}.get(line[0])
        out.print(escape(line.rstrip("\r\n")), style=style, soft_wrap=True)


def print_rows(rows: Sequence[Row]) -> None:
    """Print all products, a blank line between them."""
    for i, row in enumerate(rows):
        if i:
            out.print()
        _print_row(row)


def print_outcomes(states: Sequence[State]) -> None:
    """Print what is served of each product, and what was refused."""
    for state in states:
        serving = state.serving
        out.print(
            f"{escape(state.product)}: generation {serving.generation} "
            f"({serving.digest[:DIGEST_SHOWN]}) is served since {_when(serving.since_ns)}",
            soft_wrap=True,
        )
        _print_refused(state)


def _print_row(row: Row) -> None:
    state, present = row.state, row.present
    name = state.product if state else (present.product if present else None) or "?"
    folder = state.folder if state else str(present.folder) if present else ""
    out.print(f"[bold]{escape(name)}[/bold]  {escape(folder)}", soft_wrap=True)
    if state is not None:
        serving = state.serving
        says = "serving" if row.is_served else "[yellow]not served now[/yellow], last was"
        out.print(
            f"{says} generation {serving.generation}  digest {serving.digest[:DIGEST_SHOWN]}  "
            f"since {_when(serving.since_ns)}",
            soft_wrap=True,
        )
        _print_arms(serving.arms)
        _print_gates(serving.gates)
        _print_refused(state)
    if present is None:
        out.print(f"[red]in the folder[/red]: {escape(row.why)}", soft_wrap=True)
    else:
        _print_present(present, state)
    if state is not None and len(state.history) > 1:
        past = (f"{one.generation} ({_when(one.since_ns)})" for one in state.history[:-1])
        out.print(f"before: {', '.join(past)}", soft_wrap=True)


def _print_present(present: Present, state: State | None) -> None:
    contents = present.contents
    number = "no generation" if present.number is None else f"generation {present.number}"
    if contents is None:
        out.print(f"[red]in the folder[/red]: {number}, which does not load:", soft_wrap=True)
        for line in _why(present):
            out.print(f"  {escape(line)}", soft_wrap=True)
        return
    digest = contents.digest
    if state is None:
        out.print(f"in the folder: {number}  digest {digest[:DIGEST_SHOWN]}", soft_wrap=True)
        _print_arms(_arms(contents))
    elif digest != state.serving.digest and not (state.refused and state.refused.digest == digest):
        out.print(
            f"in the folder: {number}  digest {digest[:DIGEST_SHOWN]}, "
            "which the gateway has not looked at yet",
            soft_wrap=True,
        )


def _print_arms(arms: Sequence[ServedArm]) -> None:
    table = Table(box=None, pad_edge=False, header_style="")
    for heading in ("  model", "version", "mode", "share", "sha256"):
        table.add_column(heading, justify="right" if heading == "share" else "left")
    for arm in arms:
        cells = (f"  {arm.name}", arm.version, arm.mode, f"{arm.share:.4g}")
        table.add_row(*map(escape, cells), arm.sha256[:DIGEST_SHOWN])
    out.print(table)


def _print_gates(gates: Sequence[GateVerdict]) -> None:
    if not gates:
        return
    has_arms = any(gate.arm for gate in gates)
    table = Table(box=None, pad_edge=False, header_style="")
    for heading in ("  gate", *(("model",) if has_arms else ()), "figure", "rule", "verdict"):
        table.add_column(heading)
    for gate in gates:
        figure = gate.figure if isinstance(gate.figure, str) else _or_none(gate.figure)
        style = _STYLES.get(gate.verdict, "")
        verdict = f"[{style}]{escape(gate.verdict)}[/{style}]" if style else escape(gate.verdict)
        arm = (gate.arm,) if has_arms else ()
        table.add_row(*map(escape, (f"  {gate.name}", *arm, figure, gate.rule)), verdict)
    out.print(table)


def _print_refused(state: State) -> None:
    refused = state.refused
    if refused is None:
        return
    number = "a change" if refused.generation is None else f"generation {refused.generation}"
    digest = f" ({refused.digest[:DIGEST_SHOWN]})" if refused.digest else ""
    out.print(f"[red]refused[/red] {number}{digest} {_when(refused.at_ns)}:", soft_wrap=True)
    for line in refused.why:
        out.print(f"  {escape(line)}", soft_wrap=True)
    _print_gates(refused.gates)


def _arms(contents: Contents | None) -> tuple[ServedArm, ...]:
    """Return what a folder declares, its files' digests where it pins none."""
    if contents is None:
        return ()
    return tuple(
        ServedArm(
            arm.name,
            arm.version,
            arm.sha256 or sha256(contents.files[arm.path]).hexdigest(),
            "champion" if isinstance(arm, Champion) else arm.mode,
            1.0 if isinstance(arm, Champion) or arm.share is None else arm.share,
        )
        for _, arm in arms_in(contents.product)
    )


def _why(present: Present) -> list[str]:
    """Say why a folder does not load, or nothing."""
    if present.contents is not None:
        return []
    try:
        read_folder(present.folder)
    except GatewayError as error:
        return str(error).splitlines()
    return []


def _diff(draft: Draft) -> list[str]:
    path = str(draft.present.path)
    was = draft.present.text.splitlines(keepends=True)
    will_be = draft.text.splitlines(keepends=True)
    return [
        line if line.endswith("\n") else f"{line}\n"
        for line in difflib.unified_diff(was, will_be, path, path, n=1)
    ]


def _when(wall_ns: int) -> str:
    return f"{datetime.fromtimestamp(wall_ns // 10**9, UTC):%Y-%m-%d %H:%M:%SZ}"


def _or_none(value: object) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
