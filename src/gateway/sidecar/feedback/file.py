"""The rows of a file, one by one, with their numbers: CSV as it is read, Parquet in batches.

A row that cannot be read is given out as such, and what follows is read on.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gateway.errors import UsageError

DELIMITERS = ",;\t|"
BATCH_ROWS = 4096
_HEAD_BYTES = 1 << 16
_HINT = "Save it as CSV in UTF-8 with a header, or as Parquet."


@dataclass(frozen=True, slots=True)
class Row:
    """One row: `number` is its line in a CSV, from 1 with the header, or its place in a Parquet.

    `cells`: in the order of the columns, empty where there is none; None: `problem` says why it
    cannot be read. `done`: the share of the file that was read, 0 to 1.
    """

    number: int
    cells: Sequence[str] | None
    done: float
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Sheet:
    """A file's columns and rows. `unit`: what a row's number counts."""

    columns: tuple[str, ...]
    rows: Iterator[Row]
    unit: str


@contextmanager
def opened(path: Path) -> Iterator[Sheet]:
    """Open a CSV (separated by comma, semicolon, tab or bar) or a Parquet file.

    Raises:
        UsageError: there is no such file, or it is neither, or empty.
    """
    subject = str(path)
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
        if not head.strip():
            raise UsageError("is empty", subject=subject, hint="Its first line names the columns.")
        if head.startswith(b"PAR1"):
            with closing(pq.ParquetFile(path)) as parquet:
                yield _of_parquet(parquet)
            return
        if b"\0" in head:
            raise UsageError("is neither CSV nor Parquet", subject=subject, hint=_HINT)
        # What is no UTF-8 is a bad row's, not the whole file's.
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
            yield _of_csv(text, subject)
    except OSError as error:
        raise UsageError(
            f"cannot be read: {error.strerror or 'it is damaged'}",
            subject=subject,
            hint="Name a CSV or Parquet file.",
        ) from None
    except pa.ArrowException:
        raise UsageError("is no whole Parquet file", subject=subject, hint=_HINT) from None


def _of_csv(text: Any, subject: str) -> Sheet:
    size = max(os.fstat(text.fileno()).st_size, 1)
    header = text.readline(_HEAD_BYTES)
    if len(header) == _HEAD_BYTES:
        raise UsageError(
            f"its first line has more than {_HEAD_BYTES:,} characters: it names no columns",
            subject=subject,
            hint=_HINT,
        )
    outside = "".join(header.split('"')[::2])
    delimiter = max(DELIMITERS, key=outside.count)
    try:
        names = [name.strip() for name in next(csv.reader([header], delimiter=delimiter), [])]
    except csv.Error:
        names = []
    if not any(names):
        raise UsageError(
            "has no header: its first line is empty",
            subject=subject,
            hint="The first line names the columns.",
        )
    _expect_unique(names, subject)
    reader = csv.reader(text, delimiter=delimiter)

    def rows() -> Iterator[Row]:
        while True:
            number = reader.line_num + 2  # the header is the first
            done = text.buffer.tell() / size
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error:
                yield Row(number, None, done, "cannot be read: a quote that does not end?")
                continue
            if not cells:
                continue
            if len(cells) != len(names):
                problem = f"has {len(cells)} cells, the header has {len(names)}"
                yield Row(number, None, done, problem)
            elif not all(map(_is_text, cells)):
                yield Row(number, None, done, "is not UTF-8")
            else:
                yield Row(number, [cell.strip() for cell in cells], done)

    return Sheet(tuple(names), rows(), "line")


def _is_text(cell: str) -> bool:
    return cell.isascii() or not any("\ud800" <= character <= "\udfff" for character in cell)


def _of_parquet(file: pq.ParquetFile) -> Sheet:
    names = tuple(file.schema_arrow.names)
    total = max(file.metadata.num_rows, 1)

    def rows() -> Iterator[Row]:
        number = 0
        # A group by itself: where one is damaged, those before it are read.
        batches = (
            batch
            for group in range(file.num_row_groups)
            for batch in file.iter_batches(BATCH_ROWS, row_groups=[group], use_threads=False)
        )
        for batch in batches:
            columns = [[_text(cell) for cell in column.to_pylist()] for column in batch.columns]
            for cells in zip(*columns, strict=True):
                number += 1
                yield Row(number, cells, number / total)

    return Sheet(names, rows(), "row")


def _text(cell: object) -> str:
    """Return a value as a CSV would hold it."""
    match cell:
        case None:
            return ""
        case datetime():
            # Arrow's times without a zone are UTC here, as texts without one are.
            return (cell if cell.tzinfo else cell.replace(tzinfo=UTC)).isoformat()
        case date():
            return cell.isoformat()
        case float() if cell != cell:
            return ""
        case float() if cell.is_integer():
            return str(int(cell))
    return str(cell).strip()


def _expect_unique(names: Sequence[str], subject: str) -> None:
    folded = [name.lower() for name in names]
    for place, name in enumerate(folded):
        if name not in folded[:place]:
            continue
        raise UsageError(
            f"has more than one column of the name of its column {place + 1}",
            subject=subject,
            hint="Rename one.",
        )
