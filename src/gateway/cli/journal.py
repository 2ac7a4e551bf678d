"""`gateway journal verify` and `gateway journal cat`."""

from __future__ import annotations

import json as json_codec
from collections.abc import Iterator
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from google.protobuf.json_format import MessageToDict
from rich.markup import escape
from rich.table import Column, Table

from gateway.cli.decide import as_json
from gateway.cli.terms import Json, microseconds, notes, out
from gateway.errors import ExitCode, JournalError
from gateway.journal import (
    Answered,
    Damage,
    Decision,
    Gap,
    Generation,
    Pause,
    Record,
    Refused,
    Reply,
    TornTail,
    decision_id,
    join_replied,
    read,
    segments,
)
from gateway.journal import verify as verify_journal
from gateway.v1.decision_pb2 import Action, DecideRequest, DecideResponse, StandIn

Directory = Annotated[Path, Parameter(help="The folder that serve was given as --journal.")]


def verify(directory: Directory = Path("journal"), *, json: Json = False) -> int:
    """Read every record and say whether any is missing or damaged.

    A torn tail, what a killed process left half written, is no damage: nobody was told that
    it had been taken.
    """
    _expect(directory)
    report = verify_journal(directory)
    damage: list[dict[str, Any]] = [
        {
            "path": str(one.path),
            "offset": one.offset,
            "length": one.length,
            "fault": one.fault.value,
            "missing_sequences": one.missing,
        }
        for one in report.damage
    ]
    missing = [
        {
            "worker": one.worker,
            "boot": one.boot_id.hex(),
            "first": one.first_sequence,
            "last": one.last_sequence,
        }
        for one in report.missing
    ]
    entries = {kind.name.lower(): count for kind, count in sorted(report.entries.items())}
    lost = {loss.name.lower(): count for loss, count in report.lost.items()}
    if json:
        summary = {
            "ok": report.ok,
            "segments": len(report.segments),
            "entries": entries,
            "torn_bytes": report.torn_bytes,
            "cut_bytes": report.cut_bytes,
            "lost": lost,
            "damage": damage,
            "missing": missing,
        }
        print(json_codec.dumps(summary, indent=2))
    else:
        table = Table("segment", "entries", "sequences", "state", box=None, pad_edge=False)
        for segment in report.segments:
            state = "sealed" if segment.sealed else "open"
            if segment.torn_bytes:
                state += f", torn tail of {segment.torn_bytes} bytes"
            if segment.damage:
                state += f", [red]{len(segment.damage)} damaged[/red]"
            table.add_row(
                segment.path.name,
                f"{sum(segment.entries.values()):,}",
                f"{segment.first_sequence}..{segment.last_sequence or '-'}",
                state,
            )
        out.print(table)
        counted = ", ".join(f"{count:,} {name}" for name, count in entries.items())
        out.print(f"{counted or 'no entries'}.")
        for name, count in lost.items():
            out.print(f"Lost and counted: {count:,} ({name.replace('_', ' ')}).")
        for one in damage:
            out.print(
                f"[red]Damaged[/red]: {one['path']}, {one['length']} bytes at {one['offset']}: "
                f"{one['fault']}; sequences {one['missing_sequences']}"
            )
        for one in missing:
            out.print(
                f"[red]Missing[/red]: worker {one['worker']}, boot {one['boot']}, "
                f"sequences {one['first']}..{one['last']}"
            )
        out.print("The journal is in order." if report.ok else "[red]The journal is damaged.[/red]")
    notes.print(f"Next: gateway journal cat {directory}")
    return ExitCode.OK if report.ok else ExitCode.DAMAGED_JOURNAL


def cat(
    directory: Directory = Path("journal"),
    *,
    last: Annotated[int | None, Parameter(help="Only so many, the latest.")] = None,
    features: Annotated[
        bool, Parameter(negative="", help="With --json: the request's features too.")
    ] = False,
    json: Json = False,
) -> int:
    """Print the records: one row a call, or one JSON object a line."""
    _expect(directory)
    rows = _entries(directory)
    if last is not None:
        rows = iter(list(rows)[-last:] if last > 0 else [])
    if json:
        for row in rows:
            print(json_codec.dumps(_as_object(row, features), default=str))
        return ExitCode.OK
    table = Table(
        *("time", "product", "action", "P(fraud)", "used", "note"),
        Column("decision or fields", no_wrap=True),
        box=None,
        pad_edge=False,
    )
    for row in rows:
        table.add_row(*_as_row(row))
    out.print(table)
    return ExitCode.OK


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


def _entries(directory: Path) -> Iterator[Answered | Record | Damage | TornTail]:
    """Yield every call with its reply, and in between what else the journal says."""
    asides: list[Record | Damage | TornTail] = []

    def records() -> Iterator[Record]:
        for segment in segments(directory):
            for item in read(segment):
                if not isinstance(item, Record):
                    asides.append(item)
                    continue
                if isinstance(item.entry, Gap | Pause | Generation):
                    asides.append(item)
                yield item

    for answered in join_replied(records()):
        yield from asides
        asides.clear()
        yield answered
    yield from asides


def _as_object(row: Answered | Record | Damage | TornTail, features: bool) -> dict[str, Any]:
    if isinstance(row, Damage | TornTail):
        kind = "damage" if isinstance(row, Damage) else "torn_tail"
        return {
            "kind": kind,
            "path": str(row.path),
            "offset": row.offset,
            "length": row.length,
        }
    record = row.record if isinstance(row, Answered) else row
    entry = record.entry
    shown: dict[str, Any] = {
        "kind": type(entry).__name__.lower(),
        "sequence": record.sequence,
        "worker": record.segment.name.worker,
        "boot": record.segment.name.boot_id.hex(),
    }
    if not isinstance(row, Answered):
        names = [name for name in entry.__slots__ if name not in ("boot_id",)]
        return shown | {name: getattr(entry, name) for name in names}
    arrived_ns = entry.arrival_ns  # type: ignore[union-attr]
    shown["arrived"] = _time(record.wall_ns(arrived_ns))
    shown["product"] = _product(record)
    shown["traceparent"] = entry.traceparent or None  # type: ignore[union-attr]
    shown["reply"] = row.reply.value
    replied = None if row.replied_ns is None else (row.replied_ns - arrived_ns) / 1000
    if isinstance(entry, Refused):
        return shown | {
            "code": entry.code,
            "fields": list(entry.fields),
            "refused_us": entry.refused_after_ns / 1000,
            "replied_us": replied,
        }
    assert isinstance(entry, Decision)
    request = DecideRequest.FromString(entry.request)
    if not features:
        request.ClearField("features")
        request.ClearField("dense")
    return shown | {
        "decision_id": _id(record),
        "action": Action.Name(entry.action),
        "second_best": Action.Name(entry.second_best) if entry.second_best else None,
        "stand_in": StandIn.Name(entry.stand_in),
        "generation": entry.generation,
        "score": _finite(entry.score),
        "probability": _finite(entry.probability),
        "propensity": entry.propensity,
        "margin_minor": _finite(entry.margin),
        "flags": [flag.name.lower() for flag in entry.flags if flag.name],
        "batch_size": entry.batch_size,
        "stages_us": {
            "admit": entry.admit_after_ns / 1000,
            "encode": entry.encode_after_ns / 1000,
            "infer": entry.infer_after_ns / 1000,
            "decide": entry.decide_after_ns / 1000,
            "record": entry.record_after_ns / 1000,
            "reply": replied,
        },
        "request": MessageToDict(request, preserving_proto_field_name=True),
        "response": as_json(DecideResponse.FromString(entry.response)),
    }


def _as_row(row: Answered | Record | Damage | TornTail) -> tuple[str, ...]:
    if isinstance(row, Damage | TornTail):
        what = "[red]damage[/red]" if isinstance(row, Damage) else "torn tail"
        where = f"{row.path.name} at {row.offset}: {row.length} bytes"
        return ("", "", what, "", "", "", where)
    record = row.record if isinstance(row, Answered) else row
    entry = record.entry
    if isinstance(entry, Decision):
        return (
            _clock(record.wall_ns(entry.arrival_ns)),
            _product(record) or "",
            Action.Name(entry.action).lower().replace("_", " "),
            "" if not isfinite(entry.probability) else f"{entry.probability:.3%}",
            microseconds(entry.record_after_ns / 1000),
            _note(row, StandIn.Name(entry.stand_in).lower() if entry.stand_in else ""),
            _id(record),
        )
    if isinstance(entry, Refused):
        return (
            _clock(record.wall_ns(entry.arrival_ns)),
            _product(record) or "",
            "[yellow]refused[/yellow]",
            "",
            microseconds(entry.refused_after_ns / 1000),
            _note(row, ""),
            escape(", ".join(entry.fields)),
        )
    name = type(entry).__name__.lower()
    details = ", ".join(
        f"{field}={getattr(entry, field)}" for field in entry.__slots__ if field != "boot_id"
    )
    return ("", "", name, "", "", "", details)


def _note(row: Answered | Record, stand_in: str) -> str:
    """Say what is unusual: a stand-in, or a reply that did not reach its caller."""
    notes = [f"stood in: {stand_in.replace('_', ' ')}"] if stand_in else []
    if isinstance(row, Answered) and row.reply is not Reply.LEFT:
        notes.append(f"reply {row.reply.value}")
    return "; ".join(notes)


def _id(record: Record) -> str:
    return decision_id(record.segment.name.boot_id, record.segment.name.worker, record.sequence)


def _product(record: Record) -> str | None:
    header = record.segment.header
    index = record.entry.product  # type: ignore[union-attr]
    if header is None:
        return None
    return next((one.product for one in header.products if one.index == index), None)


def _time(wall_ns: int | None) -> str:
    if wall_ns is None:
        return ""
    return datetime.fromtimestamp(wall_ns / 1e9, UTC).isoformat(timespec="microseconds")


def _clock(wall_ns: int | None) -> str:
    if wall_ns is None:
        return ""
    return datetime.fromtimestamp(wall_ns / 1e9, UTC).strftime("%H:%M:%S.%f")[:-3]


def _finite(number: float) -> float | None:
    return number if isfinite(number) else None
