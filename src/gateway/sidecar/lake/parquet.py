"""How the lake's Parquet files are written: whole or not at all, and small.

Encodings are those that DuckDB, Polars, pandas and Spark 3.3 and later read.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from posixpath import dirname
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from gateway.errors import LakeError

ROW_GROUP_ROWS = 16_384
"""More would be read a little faster, and compacted in more memory."""

TEMPORARY = ".tmp"
"""Ends the name of a file that is still being written; it begins with a dot, too."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_ERRNO = re.compile(r"\[errno (\d+)\]", re.IGNORECASE)
_HINTS = {
    **dict.fromkeys(
        _FULL, "Free space there, or name another --lake: the journal keeps what is not shipped."
    ),
    errno.EROFS: "The file system is read-only: name another --lake.",
    errno.EACCES: "Give this user the right to write there, or name another --lake.",
    errno.EPERM: "Give this user the right to write there, or name another --lake.",
    errno.ENOTDIR: "A file stands where a directory should be: name another --lake.",
    errno.EEXIST: "A file stands where a directory should be: name another --lake.",
    errno.ENOENT: "It was removed meanwhile: list the lake again.",
}

_DELTA_TEXTS = ("decision_id", "transaction_id", "source_event_id")
_PLAIN_TEXTS = ("trace_id",)


def refusal(error: OSError, operation: str, subject: str) -> LakeError:
    """Say what the file system refused."""
    number = error.errno
    if number is None and (told := _ERRNO.search(str(error))):
        number = int(told[1])
    said = os.strerror(number) if number else str(error)[:200] or type(error).__name__
    hint = _HINTS.get(number or 0, "Look whether the lake's file system is in order.")
    return LakeError(f"cannot {operation}: {said}", subject=subject, hint=hint)


def write_whole(
    filesystem: fs.FileSystem,
    path: str,
    schema: pa.Schema,
    tables: Iterator[pa.Table],
    step: Callable[[str], None],
    *,
    rows: int | None = None,
) -> int:
    """Write tables of `schema` to `path`, which is there whole or not at all; return the rows.

    What is there already is replaced. On a local file system it is on the disk when this returns.
    `rows`: how many there have to be.

    Raises:
        OSError: the file system refuses; nothing is left but what was there before.
        LakeError: there are other rows than `rows`; the same.
    """
    written = 0
    with whole(filesystem, path, step) as sink:
        with pq.ParquetWriter(sink, schema, **_options(schema)) as writer:
            if schema.metadata:
                writer.add_key_value_metadata(schema.metadata)
            for table in tables:
                writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
                written += table.num_rows
        if rows not in (None, written):
            raise LakeError(f"{written} rows, where {rows} were read", subject=path)
    return written


@contextmanager
def whole(
    filesystem: fs.FileSystem, path: str, step: Callable[[str], None] = lambda _: None
) -> Iterator[pa.NativeFile]:
    """Yield what to write; with the context's end it stands at `path`, whole, or nothing does.

    What is there already is replaced. On a local file system it is on the disk then.

    Raises:
        OSError: the file system refuses; nothing is left but what was there before.
    """
    folder, _, name = path.rpartition("/")
    temporary = f"{folder}/.{name}{TEMPORARY}"
    try:
        step("write")
        with filesystem.open_output_stream(temporary) as sink:
            yield sink
        _sync(filesystem, temporary)
        step("rename")
        filesystem.move(temporary, path)
        step("sync")
        _sync(filesystem, folder)
    except BaseException:
        with suppress(OSError):
            filesystem.delete_file(temporary)
        raise


def make_folder(filesystem: fs.FileSystem, folder: str) -> None:
    """Make a folder with its parents, and make that durable. Raises OSError."""
    missing, parent = [], folder
    if isinstance(filesystem, fs.LocalFileSystem):
        while parent not in ("", "/") and not os.path.isdir(parent):
            missing.append(parent)
            parent = dirname(parent)
    filesystem.create_dir(folder, recursive=True)
    for made in missing:
        _sync(filesystem, dirname(made) or ".")


class Groups:
    """An open file's row groups, from 0; `count` of them."""

    def __init__(self, file: pq.ParquetFile) -> None:
        self.count: int = file.num_row_groups
        self._file = file
        self._names = set(file.schema_arrow.names)

    def reaches(self, group: int, column: str, least: Any, most: Any = None) -> bool:
        """Say whether a row group may hold a value of at least `least`, and at most `most`."""
        metadata = self._file.metadata
        place = metadata.schema.names.index(column) if column in self._names else -1
        found = metadata.row_group(group).column(place).statistics if place >= 0 else None
        if found is None or not found.has_min_max:
            return True
        return bool(found.max >= least and (most is None or found.min <= most))

    def read(self, group: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Return a row group; of `columns` those that the file has not are null."""
        if columns is None:
            return self._file.read_row_group(group, use_threads=False)
        there = [name for name in columns if name in self._names]
        rows = self._file.read_row_group(group, there, use_threads=False)
        for name in columns:
            if name not in self._names:
                rows = rows.append_column(name, pa.nulls(rows.num_rows))
        return rows


@contextmanager
def opened(filesystem: fs.FileSystem, path: str) -> Iterator[Groups]:
    """Open a file to read some of it. Raises OSError, or LakeError: it is damaged."""
    with _opened(filesystem, path) as file:
        yield Groups(file)


def row_groups(
    filesystem: fs.FileSystem, path: str, columns: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """Yield a file's rows, a row group at a time. Raises OSError, or LakeError: it is damaged."""
    with _opened(filesystem, path) as file:
        for i in range(file.num_row_groups):
            yield file.read_row_group(i, columns, use_threads=False)


def footer(filesystem: fs.FileSystem, path: str) -> tuple[pa.Schema, int]:
    """Return a file's schema and rows. Raises OSError, or LakeError: it is damaged."""
    with _opened(filesystem, path) as file:
        return file.schema_arrow, file.metadata.num_rows


@contextmanager
def _opened(filesystem: fs.FileSystem, path: str) -> Iterator[pq.ParquetFile]:
    with filesystem.open_input_file(path) as source:
        try:
            file = pq.ParquetFile(source)
        except pa.ArrowInvalid as error:
            hint = "Move it away. Where the journal still has its range, that is shipped again."
            raise LakeError("is no whole Parquet file", subject=path, hint=hint) from error
        yield file


def _sync(filesystem: fs.FileSystem, path: str) -> None:
    """Make a file or a folder durable where the file system is local; others do so themselves."""
    if not isinstance(filesystem, fs.LocalFileSystem):
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _options(schema: pa.Schema) -> dict[str, object]:
    """Return the writer's settings: dictionaries for what repeats, deltas for what rises."""
    encodings: dict[str, str] = {}
    dictionary: list[str] = []
    for field in schema:
        for path, kind in _leaves(field.name, field.type):
            if path in _DELTA_TEXTS:
                encodings[path] = "DELTA_BYTE_ARRAY"
            elif path == "sequence" or pa.types.is_timestamp(kind):
                encodings[path] = "DELTA_BINARY_PACKED"
            elif not pa.types.is_boolean(kind) and path not in _PLAIN_TEXTS:
                dictionary.append(path)
    return {
        "compression": "zstd",
        "compression_level": 1,
        "use_dictionary": dictionary,
        "column_encoding": encodings,
        "write_statistics": ["received", "event_time", "reported_time", "sequence"],
        "store_schema": False,
    }


def _leaves(path: str, kind: pa.DataType) -> Iterator[tuple[str, pa.DataType]]:
    if pa.types.is_struct(kind):
        for field in kind:
            yield from _leaves(f"{path}.{field.name}", field.type)
    elif pa.types.is_list(kind):
        yield from _leaves(f"{path}.list.element", kind.value_type)
    else:
        yield path, kind
