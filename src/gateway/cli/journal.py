"""`gateway journal verify` and `gateway journal cat`."""

from __future__ import annotations

import json as json_codec
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from gateway.cli.journal_row import HEADING, Row, as_line, as_object, rows_of
from gateway.cli.terms import AtLeastOne, Json, notes, out, to_width
from gateway.errors import ExitCode, JournalDamaged, JournalError
from gateway.journal import Damage, Missing, Report, segments
from gateway.journal import verify as verify_journal

Directory = Annotated[
    Path, Parameter(name="DIR", help="The folder that serve was given as --journal.")
]


def verify(directory: Directory = Path("journal"), /, *, json: Json = False) -> int:
    """Read every record and say whether any is missing or damaged.

    A torn tail, what a killed process left half written, is no damage: nobody was told that
    it had been taken.
    """
    _expect(directory)
    report = verify_journal(directory)
    if json:
        print(json_codec.dumps(summarised(report), indent=2))
    else:
        _print(report)
    if not report.ok:
        raise JournalDamaged(
            f"damaged stretches of bytes: {len(report.damage)}, "
            f"missing ranges of sequences: {len(report.missing)}",
            subject=str(directory),
            hint=f"gateway journal cat {directory} prints what can be read.",
        )
    notes.print(f"Next: gateway journal cat {directory}", markup=False)
    return ExitCode.OK


def summarised(report: Report) -> dict[str, Any]:
    """Return what verify found, as JSON values."""
    return {
        "ok": report.ok,
        "segments": len(report.segments),
        "entries": {kind.name.lower(): count for kind, count in sorted(report.entries.items())},
        "torn_bytes": report.torn_bytes,
        "cut_bytes": report.cut_bytes,
        "lost": {loss.name.lower(): count for loss, count in report.lost.items()},
        "damage": [
            {
                "path": str(one.path),
                "offset": one.offset,
                "length": one.length,
                "fault": one.fault.value,
                "missing_sequences": one.missing,
            }
            for one in report.damage
        ],
        "missing": [
            {
                "worker": one.worker,
                "boot": one.boot_id.hex(),
                "first": one.first_sequence,
                "last": one.last_sequence,
            }
            for one in report.missing
        ],
    }


def cat(
    directory: Directory = Path("journal"),
    /,
    *,
    last: Annotated[
        int | None, Parameter(validator=AtLeastOne, help="Only so many, the latest.")
    ] = None,
    features: Annotated[
        bool,
        Parameter(negative="", show_default=False, help="With --json: the request's features too."),
    ] = False,
    json: Json = False,
) -> int:
    """Print the records: one row a call, or one JSON object a line.

    Damage stands as a row of its own, where it is; the exit code is then 8.
    """
    _expect(directory)
    damage: list[Damage] = []
    rows: Iterable[Row] = _noting(damage, rows_of(directory))
    if last is not None:
        rows = deque(rows, maxlen=last)
    if not json:
        print(to_width(HEADING))
    for row in rows:
        if json:
            print(json_codec.dumps(as_object(row, features=features)))
        else:
            print(to_width(as_line(row)))
    if damage:
        raise JournalDamaged(
            f"damaged stretches of bytes: {len(damage)}",
            subject=str(directory),
            hint=f"gateway journal verify {directory} says which records are missing.",
        )
    return ExitCode.OK


def _noting(damage: list[Damage], rows: Iterable[Row]) -> Iterator[Row]:
    for row in rows:
        if isinstance(row, Damage):
            damage.append(row)
        yield row


def _expect(directory: Path) -> None:
    if not directory.is_dir():
        raise JournalError(
            "there is no such folder", subject=str(directory), hint="Name serve's --journal."
        )
    if not segments(directory):
        raise JournalError(
            "holds no segments of a journal",
            subject=str(directory),
            hint="Name serve's --journal, or the --journal that gateway demo was given.",
        )


def _print(report: Report) -> None:
    print(f"{'entries':>9} {'sequences':>17} {'state':6} segment")
    for segment in report.segments:
        state = "sealed" if segment.sealed else "open"
        sequences = f"{segment.first_sequence}..{segment.last_sequence or '-'}"
        count = sum(segment.entries.values())
        print(f"{count:>9,} {sequences:>17} {state:6} {segment.path.name}")
        if segment.torn_bytes:
            print(f"{'':9} a torn tail of {segment.torn_bytes} bytes, which nobody was told of")
    counted = ", ".join(
        f"{count:,} {kind.name.lower()}" for kind, count in sorted(report.entries.items())
    )
    print(f"{counted or 'no entries'}.")
    for loss, count in report.lost.items():
        print(f"Lost and counted: {count:,} ({loss.name.lower().replace('_', ' ')}).")
    for damage in report.damage:
        out.print(f"[red]Damaged[/red]: {_where(damage)}", soft_wrap=True)
    for missing in report.missing:
        out.print(f"[red]Missing[/red]: {_which(missing)}", soft_wrap=True)
    print("The journal is in order." if report.ok else "The journal is damaged.")


def _where(damage: Damage) -> str:
    lacking = ""
    if damage.missing is not None:
        first, last = damage.missing
        lacking = f"; sequences {first}..{'?' if last is None else last} may have stood there"
    bytes_there = f"{damage.length} bytes at {damage.offset} of {damage.path.name}"
    return f"{bytes_there}: {damage.fault.value}{lacking}"


def _which(missing: Missing) -> str:
    sequences = f"{missing.first_sequence}..{missing.last_sequence}"
    return f"worker {missing.worker}, boot {missing.boot_id.hex()}, sequences {sequences}"
