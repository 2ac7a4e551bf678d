"""How far each consumer of the journal is: one small JSON file each, whole or not at all.

`<state>/checkpoints/<consumer>.json`:

    {"version": 1, "done": [mark, …]}

A file appears by rename and is synced with its directory: what was saved before a power cut is
there after it, or what was saved before that.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from gateway.errors import JournalDamaged
from gateway.journal import Generation
from gateway.journal.directory import make_directory, sync_directory
from gateway.journal.disk import refusal
from gateway.journal.segment import parse_name
from gateway.sidecar.tail.call import Mark, Position

VERSION = 1

STATE = "sidecar"
"""Below the journal's directory: what a sidecar keeps for itself."""

FOLDER = "checkpoints"


class Checkpoint:
    """One consumer's file. A writer that was killed leaves no more behind than a `.new` file."""

    def __init__(self, state: Path, consumer: str) -> None:
        if not consumer.isidentifier():
            raise ValueError(f"{consumer!r} is no name for a consumer")
        self.consumer = consumer
        self.path = state / FOLDER / f"{consumer}.json"

    def load(self) -> Position:
        """Return what was saved last; the journal's begin where nothing was.

        Raises:
            JournalDamaged: the file is there, and is no checkpoint.
            JournalError: it cannot be read.
        """
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            return Position()
        except OSError as error:
            raise refusal(error, "read the checkpoint", self.path) from error
        try:
            return _decoded(json.loads(text))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise JournalDamaged(
                "the checkpoint cannot be read",
                subject=str(self.path),
                hint="Delete it, and the consumer ships the whole journal again; what it ships "
                "twice is recognised. Or put back a copy.",
            ) from None

    def save(self, position: Position) -> None:
        """Replace what was saved, durably.

        Raises:
            JournalError: it cannot be written; what was saved before stands. JournalFull: no space.
        """
        make_directory(self.path.parent)
        new = self.path.with_suffix(".new")
        try:
            fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(json.dumps(_encoded(position)).encode())
                file.flush()
                os.fsync(file.fileno())
            new.replace(self.path)
            sync_directory(self.path.parent)
        except OSError as error:
            raise refusal(error, "save the checkpoint", self.path) from error


def consumers(state: Path) -> tuple[Checkpoint, ...]:
    """Return every consumer that has a checkpoint, by name.

    Raises:
        JournalError: the folder cannot be read.
    """
    try:
        paths = sorted((state / FOLDER).glob("*.json"))
    except OSError as error:
        raise refusal(error, "list the checkpoints", state / FOLDER) from error
    return tuple(Checkpoint(state, path.stem) for path in paths if path.stem.isidentifier())


def _encoded(position: Position) -> dict[str, Any]:
    return {"version": VERSION, "done": _rows(position)}


def _rows(position: Position) -> list[dict[str, Any]]:
    return [
        {
            "worker": worker,
            "boot": boot_id.hex(),
            "segment": mark.segment,
            "offset": mark.offset,
            "sequence": mark.sequence,
            "read_sequence": mark.read_sequence,
            "is_finished": mark.is_finished,
            "announced": [generation.row() for generation in mark.announced],
        }
        for (worker, boot_id), mark in position.marks.items()
    ]


def _decoded(row: dict[str, Any]) -> Position:
    if row["version"] != VERSION:
        raise ValueError("another version")
    return _position(row["done"])


def _position(rows: list[dict[str, Any]]) -> Position:
    return Position({_boot(row): _mark(row) for row in rows})


def _boot(row: dict[str, Any]) -> tuple[int, bytes]:
    boot_id = bytes.fromhex(row["boot"])
    if len(boot_id) != 16:
        raise ValueError("no boot id")
    return _number(row["worker"]), boot_id


def _mark(row: dict[str, Any]) -> Mark:
    name = parse_name(row["segment"])
    if name is None or (name.worker, name.boot_id) != _boot(row):
        raise ValueError("no segment of the boot")
    return Mark(
        row["segment"],
        _number(row["offset"]),
        _number(row["sequence"]),
        _number(row["read_sequence"]),
        bool(row["is_finished"]),
        tuple(Generation.from_row(one) for one in row["announced"]),
    )


def _number(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError("no number")
    return value
