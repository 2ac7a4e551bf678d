"""Labels and attributes on the disk, each once by its key: what is acknowledged is here.

One SQLite file, `<journal>/sidecar/feedback.sqlite`, in WAL mode with `synchronous=FULL`: a commit
that returned survives a power cut. Rows are appended and never changed; each table counts its own
sequence, which never goes back, and one transaction at a time writes, so that whoever has read up
to a sequence has missed nothing before it.

    labels       sequence, received_us, then Label's fields; unique by (source, source_event_id)
    attributes   sequence, received_us, then Attribute's; unique by all but value
    progress     how far a consumer is, by its name
    links        the span that a label's was linked to, so that it is linked to the same again

The store's id, 16 random bytes made with it, is what a boot id is to the journal.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from itertools import takewhile
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from gateway.errors import JournalDamaged, JournalError, JournalFull
from gateway.journal.directory import make_directory, sync_directory
from gateway.journal.disk import refusal
from gateway.sidecar.feedback.label import Attribute, KeptAttribute, KeptLabel, Label

FILE = "feedback.sqlite"
VERSION = 1
"""Of the tables."""

STORE_ID_BYTES = 16
BUSY_S = 5.0
"""So long a writer waits for another process's transaction."""

CHAIN_MAX = 1000
"""So many corrections of corrections are followed to see whether they lead back."""

_LABEL = ", ".join(Label._fields)
_ATTRIBUTE = ", ".join(Attribute._fields)
_SAME_PLACE = "source = ? AND source_event_id = ?"
_SAME_GROUP = "subject = ? AND attribute = ? AND reported_us = ? AND source = ?"
_KEYS_AT_ONCE = 400

_TABLES = """
CREATE TABLE store (id BLOB NOT NULL);
CREATE TABLE labels (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    received_us INTEGER NOT NULL,
    product TEXT NOT NULL,
    transaction_id TEXT NOT NULL,
    decision_id TEXT NOT NULL,
    kind INTEGER NOT NULL,
    occurred_us INTEGER NOT NULL,
    reported_us INTEGER NOT NULL,
    amount_minor INTEGER,
    currency TEXT NOT NULL,
    liable INTEGER NOT NULL,
    source TEXT NOT NULL,
    source_event_id TEXT NOT NULL,
    supersedes TEXT NOT NULL,
    action INTEGER NOT NULL,
    category TEXT NOT NULL,
    subject TEXT NOT NULL,
    UNIQUE (source, source_event_id)
);
CREATE TABLE attributes (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    received_us INTEGER NOT NULL,
    subject TEXT NOT NULL,
    attribute TEXT NOT NULL,
    value TEXT NOT NULL,
    reported_us INTEGER NOT NULL,
    source TEXT NOT NULL,
    UNIQUE (subject, attribute, reported_us, source)
);
CREATE TABLE progress (
    consumer TEXT PRIMARY KEY,
    labels INTEGER NOT NULL,
    attributes INTEGER NOT NULL
);
CREATE TABLE links (sequence INTEGER PRIMARY KEY, trace_id BLOB, span_id BLOB);
"""


class Taken(Enum):
    """What became of a row."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    """Its key is taken by another content."""
    CIRCLE = "circle"
    """What it supersedes leads back to it: none of them would count."""


class Progress(NamedTuple):
    """The last sequences that a consumer is done with; 0: none."""

    labels: int = 0
    attributes: int = 0


class Store:
    """One connection to the file. Threads share it, one statement at a time; a context manager.

    Raises:
        JournalError: on entering, the file cannot be opened. JournalDamaged: it is no such store.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store_id = b""
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None

    def __enter__(self) -> Self:
        make_directory(self.path.parent)
        try:
            # SQLite gives its other two files the permissions of this one.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            sync_directory(self.path.parent)
        except OSError as error:
            raise refusal(error, "open the store of labels", self.path) from error
        with self._told("open the store of labels"):
            self._db = sqlite3.connect(
                self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
            )
            try:
                self.store_id = self._opened(self._db)
            except BaseException:
                self._db.close()
                raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None

    def _opened(self, db: sqlite3.Connection) -> bytes:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA secure_delete = ON")  # what is erased is gone from the file
        db.execute("BEGIN IMMEDIATE")
        try:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version == 0:
                for statement in filter(str.strip, _TABLES.split(";")):
                    db.execute(statement)
                db.execute("INSERT INTO store VALUES (?)", (os.urandom(STORE_ID_BYTES),))
                db.execute(f"PRAGMA user_version = {VERSION}")
            elif version != VERSION:
                raise JournalError(
                    f"is of version {version}, this program knows {VERSION}",
                    subject=str(self.path),
                    hint="Use the program that wrote it, or a newer one.",
                )
            (store_id,) = db.execute("SELECT id FROM store").fetchone()
            db.execute("COMMIT")
        except BaseException:
            db.execute("ROLLBACK")
            raise
        return bytes(store_id)

    # What the service writes

    def add_labels(self, labels: Sequence[Label], received_us: int) -> list[Taken]:
        """Keep labels, and say what became of each. When this returns they are on the disk.

        Raises:
            JournalError: they cannot be written: none is kept. JournalFull: no space.
        """
        return self._add("labels", _LABEL, _SAME_PLACE, _key_of_label, labels, received_us)

    def add_attributes(self, attributes: Sequence[Attribute], received_us: int) -> list[Taken]:
        """Keep attributes, and say what became of each. As `add_labels`."""
        return self._add(
            "attributes", _ATTRIBUTE, _SAME_GROUP, _key_of_attribute, attributes, received_us
        )

    def _add(
        self,
        table: str,
        columns: str,
        same: str,
        key_of: Callable[[Any], tuple[Any, ...]],
        rows: Sequence[tuple[Any, ...]],
        received_us: int,
    ) -> list[Taken]:
        if not rows:
            return []
        marks = ", ".join("?" * (1 + len(rows[0])))
        insert = f"INSERT INTO {table} (received_us, {columns}) VALUES ({marks})"
        known = f"SELECT {columns} FROM {table} WHERE {same}"
        taken = []
        with self._writing() as db:
            for row in rows:
                found = db.execute(known, key_of(row)).fetchone()
                if found is None and isinstance(row, Label) and _closes_a_circle(db, row):
                    taken.append(Taken.CIRCLE)
                elif found is None:
                    db.execute(insert, (received_us, *row))
                    taken.append(Taken.ACCEPTED)
                else:
                    taken.append(Taken.DUPLICATE if found == row else Taken.CONFLICT)
        return taken

    # What consumers read

    def labels(self, after: int, limit: int, *, until_us: int = 2**62) -> list[KeptLabel]:
        """Return labels behind a sequence, in order, up to the first received after `until_us`.

        Raises JournalError.
        """
        rows = self._after("labels", _LABEL, after, limit)
        return [
            KeptLabel(sequence, received, Label(*row))
            for sequence, received, *row in takewhile(lambda row: row[1] <= until_us, rows)
        ]

    def attributes(self, after: int, limit: int) -> list[KeptAttribute]:
        """Return attributes behind a sequence, in order. Raises JournalError."""
        return [
            KeptAttribute(sequence, received, Attribute(*row))
            for sequence, received, *row in self._after("attributes", _ATTRIBUTE, after, limit)
        ]

    def _after(self, table: str, columns: str, after: int, limit: int) -> list[Any]:
        query = f"SELECT sequence, received_us, {columns} FROM {table} WHERE sequence > ?"
        with self._reading() as db:
            return db.execute(f"{query} ORDER BY sequence LIMIT ?", (after, limit)).fetchall()

    def last(self) -> Progress:
        """Return the last sequences of both tables. Raises JournalError."""
        with self._reading() as db:
            rows = dict(db.execute("SELECT name, seq FROM sqlite_sequence"))
        return Progress(rows.get("labels", 0), rows.get("attributes", 0))

    def behind(self, done: Progress) -> tuple[int, int | None]:
        """Return how many rows stand behind a consumer, and when the oldest was received.

        Raises JournalError.
        """
        query = "SELECT count(*), min(received_us) FROM {} WHERE sequence > ?"
        with self._reading() as db:
            labels = db.execute(query.format("labels"), (done.labels,)).fetchone()
            attributes = db.execute(query.format("attributes"), (done.attributes,)).fetchone()
        since = [one for _, one in (labels, attributes) if one is not None]
        return labels[0] + attributes[0], min(since, default=None)

    def progress(self, consumer: str) -> Progress:
        """Return how far a consumer is. Raises JournalError."""
        query = "SELECT labels, attributes FROM progress WHERE consumer = ?"
        with self._reading() as db:
            row = db.execute(query, (consumer,)).fetchone()
        return Progress(*row) if row else Progress()

    def save_progress(self, consumer: str, done: Progress) -> None:
        """Remember how far a consumer is, durably. Raises JournalError."""
        with self._writing() as db:
            db.execute("INSERT OR REPLACE INTO progress VALUES (?, ?, ?)", (consumer, *done))

    def links(self, first: int, last: int) -> dict[int, tuple[bytes, bytes] | None]:
        """Return what was found for labels of a range: a trace's and a span's id, or None.

        Raises JournalError.
        """
        query = "SELECT sequence, trace_id, span_id FROM links WHERE sequence BETWEEN ? AND ?"
        with self._reading() as db:
            rows = db.execute(query, (first, last)).fetchall()
        return {
            sequence: None if trace_id is None else (bytes(trace_id), bytes(span_id))
            for sequence, trace_id, span_id in rows
        }

    def save_links(self, found: Mapping[int, tuple[bytes, bytes] | None], done: int) -> None:
        """Remember what was found; what stands up to `done` was sent, and is forgotten.

        Raises JournalError.
        """
        rows = [(sequence, *(link or (None, None))) for sequence, link in found.items()]
        with self._writing() as db:
            db.execute("DELETE FROM links WHERE sequence <= ?", (done,))
            db.executemany("INSERT OR IGNORE INTO links VALUES (?, ?, ?)", rows)

    # Erasing

    def erase(
        self,
        *subjects: str,
        payments: Collection[tuple[str, str]] = (),
        decisions: Collection[str] = (),
        is_trial: bool = False,
    ) -> int:
        """Delete what is kept of subjects, by their pseudonyms; return how many rows.

        `payments`, `decisions`: (product, transaction id) and the ids of their decisions, whose
        labels mostly name no subject: `Lake.payments_of`. `is_trial`: count only. An event that is
        sent again afterwards is a new one.

        Raises:
            JournalError: it cannot be written, or another process keeps it in the file's log: erase
                again.
        """
        wanted: list[tuple[str, str, Sequence[Sequence[str]]]] = [
            ("labels WHERE subject", "?", [(one,) for one in subjects]),
            ("attributes WHERE subject", "?", [(one,) for one in subjects]),
            ("labels WHERE decision_id", "?", [(one,) for one in sorted(decisions)]),
            ("labels WHERE (product, transaction_id)", "(?, ?)", sorted(payments)),
        ]
        erased = 0
        with self._writing(is_trial=is_trial) as db:
            for where, mark, keys in wanted:
                for some in _cut(keys, _KEYS_AT_ONCE):
                    marks = ", ".join([mark] * len(some))
                    values = f"VALUES {marks}" if mark != "?" else marks
                    query = f"DELETE FROM {where} IN ({values})"
                    erased += db.execute(query, [text for key in some for text in key]).rowcount
        if not is_trial:
            self._cut_the_log()
        return erased

    def _cut_the_log(self) -> None:
        with self._lock, self._told("erase from the store of labels"):
            query = "PRAGMA wal_checkpoint(TRUNCATE)"
            ((is_busy, _, _),) = self._connection().execute(query).fetchall()
        if is_busy:
            raise JournalError(
                "what was erased is still in its log: another process reads there",
                subject=str(self.path),
                hint="Erase again.",
            )

    @contextmanager
    def _writing(self, *, is_trial: bool = False) -> Iterator[sqlite3.Connection]:
        """Let one transaction through, whole and durable, or not at all: as always in a trial."""
        with self._lock, self._told("write to the store of labels"):
            db = self._connection()
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("ROLLBACK" if is_trial else "COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._told("read the store of labels"):
            yield self._connection()

    def _connection(self) -> sqlite3.Connection:
        if self._db is None:
            raise JournalError("the store of labels is closed", subject=str(self.path))
        return self._db

    @contextmanager
    def _told(self, operation: str) -> Iterator[None]:
        """Say SQLite's errors as ours: what, where, what to try; never a value."""
        try:
            yield
        except sqlite3.Error as error:
            raise _refusal(error, operation, self.path) from None


def _closes_a_circle(db: sqlite3.Connection, label: Label) -> bool:
    """Say whether what a label supersedes was superseded, in however many steps, by itself."""
    if not label.supersedes:
        return False
    query = f"""
        WITH RECURSIVE earlier (id) AS (
            VALUES (?) UNION
            SELECT supersedes FROM labels JOIN earlier ON source_event_id = id
            WHERE source = ? AND supersedes != '' LIMIT {CHAIN_MAX}
        )
        SELECT 1 FROM earlier WHERE id = ?
    """
    where = label.supersedes, label.source, label.source_event_id
    return db.execute(query, where).fetchone() is not None


def _key_of_label(label: Label) -> tuple[str, str]:
    return label.source, label.source_event_id


def _key_of_attribute(one: Attribute) -> tuple[str, str, int, str]:
    return one.subject, one.attribute, one.reported_us, one.source


def _cut(rows: Sequence[Any], size: int) -> Iterable[Sequence[Any]]:
    return (rows[begin : begin + size] for begin in range(0, len(rows), size))


_SAID: tuple[tuple[str, type[JournalError], str, str], ...] = (
    ("SQLITE_FULL", JournalFull, "no space is left", "Free space on the disk."),
    (
        "SQLITE_READONLY",
        JournalError,
        "it is read-only",
        "Give this user the right to write there, or name another --journal directory.",
    ),
    (
        "SQLITE_BUSY",
        JournalError,
        "another process writes to it",
        "Run one sidecar a journal.",
    ),
    (
        "SQLITE_CANTOPEN",
        JournalError,
        "it cannot be opened",
        "Give this user the right to write there, or name another --journal directory.",
    ),
    ("SQLITE_IOERR", JournalError, "the disk fails", "See the kernel's log."),
    (
        "SQLITE_CORRUPT",
        JournalDamaged,
        "it is damaged",
        "Put back a copy. Without one move it away: what is in the lake stays there.",
    ),
    (
        "SQLITE_NOTADB",
        JournalDamaged,
        "it is no store of labels",
        "Put back a copy. Without one move it away: what is in the lake stays there.",
    ),
)


def _refusal(error: sqlite3.Error, operation: str, path: Path) -> JournalError:
    name = getattr(error, "sqlite_errorname", "") or ""
    for start, kind, said, hint in _SAID:
        if name.startswith(start):
            return kind(f"cannot {operation}: {said}", subject=str(path), hint=hint)
    hint = "Look whether the directory and its disk are in order."
    return JournalError(f"cannot {operation}: {name or 'it failed'}", subject=str(path), hint=hint)
