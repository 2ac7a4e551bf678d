"""The lake: Parquet files that anyone may read while it grows.

```
decisions/product=…/date=…/<worker>-<boot>-<first sequence>-<last sequence>.parquet
refusals/product=…/date=…/…    late_scores/product=…/date=…/…
shed/date=…/…    gaps/date=…/…    late_replies/date=…/…
labels/product=…/date=…/…    attributes/date=…/…    of the store of labels, by its own sequences
```

A file holds all rows that a range of the journal has for its folder, and its name is the range. It
appears whole, by rename; what a folder has of a range is not written a second time. So a range that
is shipped again, even cut otherwise, doubles nothing and needs no database.

`compact` joins small files into one whose range covers theirs. From the rename on `files` leaves
the small ones out; they are deleted when no reader should have them open any more. A raw glob may
see both meanwhile.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from pyarrow import fs

from gateway.errors import LakeError
from gateway.journal import parse_decision_id
from gateway.journal.spans import merged
from gateway.sidecar.lake.asides import Part, split
from gateway.sidecar.lake.parquet import (
    ROW_GROUP_ROWS,
    TEMPORARY,
    footer,
    make_folder,
    opened,
    refusal,
    row_groups,
    write_whole,
)
from gateway.sidecar.lake.ranges import (
    FAN_IN,
    File,
    FileName,
    by_boot,
    covers,
    parse_file_name,
    runs,
    visible,
)
from gateway.sidecar.lake.rows import Rows
from gateway.sidecar.lake.schema import SCHEMAS, fitted, unified_schema
from gateway.sidecar.tail.call import Batch, Range

WITHOUT_PRODUCT = ("shed", "gaps", "late_replies", "attributes")

OF_SUBJECTS = ("labels", "attributes", "decisions")
"""Tables that have a subject, in the order in which one is erased: decisions tell which labels are
its own, also to who comes after one who was killed."""

NULL = "__HIVE_DEFAULT_PARTITION__"
"""Stands for null in a path, as Hive, Arrow, DuckDB and Spark write and read it."""


BOOT_ID = b"gateway.boot"
"""In a file's metadata: all 16 bytes of the boot id, of which its name has the first 8."""

_FORGOTTEN_NS = 3_600_000_000_000
_FOLDERS_MAX = 512

PARTITIONING = ds.partitioning(
    pa.schema([("product", pa.string()), ("date", pa.string())]), flavor="hive"
)


class Erased(NamedTuple):
    """What was erased, or would be: rows, and the files that they stood in."""

    rows: int
    files: int


class Payments(NamedTuple):
    """What some decisions are called: (product, transaction id), and decision ids."""

    transactions: frozenset[tuple[str, str]] = frozenset()
    decisions: frozenset[str] = frozenset()

    def of(self, product: str | None) -> dict[str, list[str]]:
        """Return a product's, by the columns of labels."""
        named = sorted(one for name, one in self.transactions if name == product)
        return {"transaction_id": named, "decision_id": sorted(self.decisions)}


class Lake:
    """The lake below `root` of a file system. One process a (worker, boot) writes to it.

    `step` is called with the name of each step that changes the disk, before it: for tests.
    """

    def __init__(
        self,
        filesystem: fs.FileSystem,
        root: str,
        *,
        step: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.filesystem = filesystem
        self.root = root.rstrip("/")
        self._step = step
        self._held: dict[str, dict[tuple[int, str], list[tuple[int, int]]]] = {}

    @classmethod
    def at(cls, place: str) -> Lake:
        """Open the lake at a path or a URI that pyarrow.fs knows, such as `s3://bucket/lake`.

        Raises:
            LakeError: no file system is known by that name, or it does not answer.
        """
        try:
            if "://" not in place:
                return cls(fs.LocalFileSystem(), os.path.abspath(place))
            return cls(*fs.FileSystem.from_uri(place))
        except (OSError, pa.ArrowInvalid, NotImplementedError) as error:
            hint = "Name a directory, or a URI such as s3://bucket/lake."
            raise LakeError(str(error)[:200], subject=place, hint=hint) from error

    @property
    def is_there(self) -> bool:
        """Whether its root is a folder. Raises LakeError: the file system refuses."""
        try:
            (info,) = self.filesystem.get_file_info([self.root])
        except OSError as error:
            raise refusal(error, "look at the lake", self.root) from error
        return info.type is fs.FileType.Directory

    @property
    def is_empty(self) -> bool:
        """Whether it holds no day of any table. Raises LakeError: the file system refuses."""
        return next(self._folders(SCHEMAS, None), None) is None

    def ship(self, batch: Batch, rows: Rows) -> int:
        """Write a batch's rows, a range after the other; return how many. Raises as `write`."""
        return sum(
            self.write(one, rows.parts(calls, asides)) for one, calls, asides in split(batch)
        )

    def write(self, held: Range, parts: Sequence[Part]) -> int:
        """Write all that a range of the journal has for the lake; return the rows written.

        What the lake has of the range is left as it is.

        Raises:
            LakeError: the file system refuses. Some files of the range may be there, each whole:
                ship the range again.
        """
        return sum(self._write(held, part) for part in parts)

    def _write(self, held: Range, part: Part) -> int:
        folder = self._folder(part.table, part.product, part.date)
        boot = held.worker, held.boot_id[:8].hex()
        written = 0
        for first, last in self._missing(folder, boot, held.first_sequence, held.last_sequence):
            whole = (first, last) == (held.first_sequence, held.last_sequence)
            rows = part.rows if whole else _between(part.rows, first, last)
            if not rows.num_rows:
                continue
            path = f"{folder}/{FileName(*boot, first, last)}"
            rows = rows.replace_schema_metadata(
                {**(rows.schema.metadata or {}), BOOT_ID: held.boot_id.hex()}
            )
            try:
                written += write_whole(
                    self.filesystem, path, rows.schema, iter((rows,)), self._step
                )
            except OSError as error:
                self._held.pop(folder, None)
                raise refusal(error, "write to the lake", path) from error
            self._held[folder].setdefault(boot, []).append((first, last))
        return written

    def _folder(self, table: str, product: str | None, date: str | None) -> str:
        day = f"date={date or NULL}"
        if table in WITHOUT_PRODUCT:
            return f"{self.root}/{table}/{day}"
        return f"{self.root}/{table}/product={product or NULL}/{day}"

    def _missing(
        self, folder: str, boot: tuple[int, str], first: int, last: int
    ) -> Sequence[tuple[int, int]]:
        """Return the parts of a range that no file in the folder covers."""
        if folder not in self._held:
            self._held[folder] = self._look(folder)
            while len(self._held) > _FOLDERS_MAX:
                self._held.pop(next(iter(self._held)))
        covered = self._held[folder].get(boot)
        if not covered:
            return ((first, last),)
        covered[:] = merged(covered)
        missing = []
        for low, high in covered:
            if high < first or low > last:
                continue
            if low > first:
                missing.append((first, low - 1))
            first = high + 1
        if first <= last:
            missing.append((first, last))
        return missing

    def _look(self, folder: str) -> dict[tuple[int, str], list[tuple[int, int]]]:
        held: dict[tuple[int, str], list[tuple[int, int]]] = {}
        try:
            self._step("make the folder")
            make_folder(self.filesystem, folder)
        except OSError as error:
            raise refusal(error, "make a folder of the lake", folder) from error
        for file in self._list(folder):
            worker, boot, first, last = file.name
            held.setdefault((worker, boot), []).append((first, last))
        return held

    def files(self, table: str) -> tuple[str, ...]:
        """Return the paths of a table's files, by name: every row stands in one of them, once.

        Raises:
            LakeError: the file system refuses.
        """
        listed = self._list(f"{self.root}/{_known(table)}", recursive=True)
        return tuple(sorted(file.path for file in visible(listed)))

    def files_since(self, table: str, date: str) -> tuple[File, ...]:
        """Return what `files` does of the days from `date` on, and of those that nobody knows.

        `date`: such as 2026-11-18; empty for every day. Other days' folders are not listed.

        Raises:
            LakeError: the file system refuses.
        """
        return tuple(
            file
            for folder in self._day_folders(_known(table))
            if (day := folder.rpartition("/date=")[2]) >= date or day == NULL
            for file in visible(self._list(folder))
        )

    def find(
        self, decision_id: str, table: str = "decisions", columns: Sequence[str] | None = None
    ) -> dict[str, Any] | None:
        """Return a call's row with its `product`, or None: files' names say where it may stand.

        Raises:
            ValueError: the id is none.
            LakeError: the file system refuses, or a file is damaged.
        """
        boot, worker, sequence = parse_decision_id(decision_id)
        for file in visible(self._list(f"{self.root}/{_known(table)}", recursive=True)):
            name = file.name
            if (name.worker, name.boot) != (worker, boot.hex()):
                continue
            if not name.first <= sequence <= name.last:
                continue
            try:
                with opened(self.filesystem, file.path) as groups:
                    for i in range(groups.count):
                        if not groups.reaches(i, "sequence", sequence, sequence):
                            continue
                        group = groups.read(i, columns)
                        found = group.filter(pc.equal(group["sequence"], sequence)).to_pylist()
                        if found:
                            return {**found[0], "product": self.product_of(file.path)}
            except OSError as error:
                raise refusal(error, "read the lake", file.path) from error
        return None

    @staticmethod
    def product_of(path: str) -> str | None:
        """Return the product that a file's path names."""
        product = path.rpartition("/product=")[2].partition("/")[0]
        return None if product == NULL else product

    def dataset(self, table: str) -> ds.Dataset:
        """Return a table as it is now, with `product` and `date` from the paths.

        Columns that a file does not have are null there. A reader that takes longer than
        `compact`'s grace may find that a file has gone: open the dataset again.

        Raises:
            LakeError: the file system refuses.
        """
        paths = self.files(table)
        try:
            schemas = [footer(self.filesystem, path)[0] for path in paths]
            schema = unified_schema([SCHEMAS[table], *schemas])
            for field in PARTITIONING.schema:
                schema = schema.append(field)
            return ds.dataset(
                list(paths),
                schema=schema,
                format="parquet",
                filesystem=self.filesystem,
                partitioning=PARTITIONING,
                partition_base_dir=f"{self.root}/{table}",
            )
        except OSError as error:
            raise refusal(error, "read the lake", self.root) from error

    def compact(
        self,
        closed: Iterable[Range],
        *,
        now_ns: int,
        dates: Collection[str] | None = None,
        tables: Collection[str] = tuple(SCHEMAS),
        least_files: int = FAN_IN,
        grace_s: float = 60.0,
    ) -> int:
        """Join small files that lie inside a closed range, and delete what is left of earlier
        joins; return how many files were joined.

        `closed`: ranges that were shipped whole, such as all of a boot before the checkpoint; what
        is shipped of one later counts as there already. `now_ns`: wall time. `dates`: only these
        days; without, the whole lake is listed. `tables`: only these. `least_files`: fewer are left
        for later; 2 for a boot that has ended. `grace_s`: how long a joined file stays for those
        who have it open.

        Another process that compacts or erases is not waited for: then nothing is done.

        Raises:
            LakeError: the file system refuses, or a file is damaged; what could be done in other
                folders is done. Nothing is lost or doubled.
        """
        done = by_boot(closed)
        joined, failure = 0, None
        with self._locked(wait=False) as is_ours:
            for folder in self._folders(tables, dates) if is_ours else ():
                try:
                    listed = self._list(folder, temporary=True)
                    self._sweep(listed, now_ns=now_ns, grace_ns=int(grace_s * 1e9))
                    for run in runs(visible(_whole(listed)), done, least_files):
                        self._join(folder, run)
                        joined += len(run)
                except LakeError as error:
                    failure = failure or error
        if failure:
            raise failure
        return joined

    def _join(self, folder: str, run: Sequence[File]) -> None:
        name = run[0].name._replace(last=run[-1].name.last)
        path = f"{folder}/{name}"
        try:
            footers = [footer(self.filesystem, file.path) for file in run]
            schema = unified_schema([schema for schema, _ in footers])
            groups = (
                fitted(group, schema)
                for file in run
                for group in row_groups(self.filesystem, file.path)
            )
            write_whole(
                self.filesystem,
                path,
                schema,
                _gathered(groups, schema),
                self._step,
                rows=sum(count for _, count in footers),
            )
        except OSError as error:
            raise refusal(error, "compact the lake", path) from error

    def _sweep(self, listed: Sequence[File], *, now_ns: int, grace_ns: int) -> None:
        """Delete files that another covers, and what a killed process left half written."""
        seen = visible(_whole(listed))
        counting = {file.path for file in seen}
        for file in listed:
            if file.path.endswith(TEMPORARY):
                is_due = file.mtime_ns + _FORGOTTEN_NS < now_ns
            elif file.path in counting:
                continue
            else:
                cover = next(one for one in seen if covers(one.name, file.name))
                is_due = cover.mtime_ns + grace_ns <= now_ns
            if not is_due:
                continue
            self._step("delete")
            try:
                self.filesystem.delete_file(file.path)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise refusal(error, "delete from the lake", file.path) from error

    def payments_of(self, *subjects: str) -> Payments:
        """Return what subjects' decisions are called, by their pseudonyms.

        Raises:
            LakeError: the file system refuses, or a file is damaged.
        """
        columns, wanted = ["subject", "transaction_id", "decision_id"], {"subject": subjects}
        transactions: set[tuple[str, str]] = set()
        decisions: set[str] = set()
        for file in visible(self._list(f"{self.root}/decisions", recursive=True)):
            product = self.product_of(file.path)
            try:
                for group in row_groups(self.filesystem, file.path, columns):
                    theirs = group.filter(_are_among(group, wanted))
                    decisions.update(theirs["decision_id"].to_pylist())
                    if product:
                        named = theirs["transaction_id"].to_pylist()
                        transactions.update((product, one) for one in named if one)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise refusal(error, "read the lake", file.path) from error
        return Payments(frozenset(transactions), frozenset(decisions))

    def erase(self, *subjects: str, now_ns: int | None = None, is_trial: bool = False) -> Erased:
        """Rewrite every table that has subjects without these, by their pseudonyms.

        Their labels are also those of their decisions, which mostly name no subject. What the store
        of labels keeps is erased there, by `Store.erase` with `payments_of`, before.

        A file that held nothing else stays, empty: its range is not shipped again. What is shipped
        while this runs is looked at, too; what is shipped later of an earlier call is not. Who
        compacts is waited for. `now_ns`: wall time, to delete what a killed process left half
        written an hour ago; `is_trial`: count only.

        Raises:
            LakeError: the file system refuses. Files stay whole; erase again.
        """
        rows = files = 0
        with self._locked(wait=True):
            payments = self.payments_of(*subjects)
            for table in OF_SUBJECTS:
                seen: set[str] = set()
                while True:
                    # Covered files too: a reader may still look at them, and nobody else deletes
                    # them.
                    listed = self._list(f"{self.root}/{table}", recursive=True, temporary=True)
                    counting = {file.path for file in visible(_whole(listed))}
                    new = [file for file in listed if file.path not in seen]
                    for file in new:
                        seen.add(file.path)
                        theirs: dict[str, Sequence[str]] = {"subject": subjects}
                        if table == "labels":
                            theirs |= payments.of(self.product_of(file.path))
                        found = self._erase_from(file, theirs, now_ns, is_trial=is_trial)
                        if found and file.path in counting:
                            rows, files = rows + found, files + 1
                    if is_trial or not new:
                        break
        return Erased(rows, files)

    def _erase_from(
        self,
        file: File,
        theirs: Mapping[str, Sequence[str]],
        now_ns: int | None,
        *,
        is_trial: bool,
    ) -> int:
        """Erase from one file, which may be gone by now; return the rows."""
        try:
            if not file.path.endswith(TEMPORARY):
                return self._erase(file.path, theirs, is_trial=is_trial)
            is_left = now_ns is not None and file.mtime_ns + _FORGOTTEN_NS < now_ns
            if is_left and not is_trial:
                self._step("delete")
                self.filesystem.delete_file(file.path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise refusal(error, "erase from the lake", file.path) from error
        return 0

    def _erase(self, path: str, theirs: Mapping[str, Sequence[str]], *, is_trial: bool) -> int:
        """Rewrite a file without the rows that have one of `theirs`, by column; return how many."""
        found = sum(
            pc.sum(_are_among(group, theirs)).as_py() or 0
            for group in row_groups(self.filesystem, path, list(theirs))
        )
        if found and not is_trial:
            schema, _ = footer(self.filesystem, path)
            kept = (
                group.filter(pc.invert(_are_among(group, theirs)))
                for group in row_groups(self.filesystem, path)
            )
            write_whole(self.filesystem, path, schema, kept, self._step)
        return int(found)

    def _folders(self, tables: Collection[str], dates: Collection[str] | None) -> Iterator[str]:
        for table in tables:
            for folder in self._day_folders(table):
                if dates is None or folder.rpartition("/date=")[2] in dates:
                    yield folder

    def _day_folders(self, table: str) -> Iterator[str]:
        top = f"{self.root}/{table}"
        for parent in [top] if table in WITHOUT_PRODUCT else self._subfolders(top):
            yield from self._subfolders(parent)

    def _subfolders(self, folder: str) -> list[str]:
        infos = self._infos(folder, recursive=False)
        return sorted(info.path for info in infos if info.type is fs.FileType.Directory)

    def _list(self, folder: str, *, recursive: bool = False, temporary: bool = False) -> list[File]:
        files = []
        for info in self._infos(folder, recursive=recursive):
            base = info.base_name
            is_temporary = base.startswith(".") and base.endswith(TEMPORARY)
            if is_temporary and not temporary:
                continue
            name = parse_file_name(base[1 : -len(TEMPORARY)] if is_temporary else base)
            if name and info.type is fs.FileType.File:
                files.append(File(name, info.path, info.size, info.mtime_ns or 0))
        return files

    def _infos(self, folder: str, *, recursive: bool) -> list[Any]:
        selector = fs.FileSelector(folder, recursive=recursive, allow_not_found=True)
        try:
            return list(self.filesystem.get_file_info(selector))
        except OSError as error:
            raise refusal(error, "list the lake", folder) from error

    @contextmanager
    def _locked(self, *, wait: bool) -> Iterator[bool]:
        """Let one process at a time rewrite files. Only a local file system can say so."""
        if not isinstance(self.filesystem, fs.LocalFileSystem) or not os.path.isdir(self.root):
            yield True
            return
        path = f"{self.root}/.lock"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise refusal(error, "lock the lake", path) from error
        try:
            is_ours = False
            with suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                is_ours = True
            yield is_ours
        finally:
            os.close(descriptor)


def _known(table: str) -> str:
    if table not in SCHEMAS:
        raise LakeError(f"has no table {table}", subject="the lake", hint=", ".join(SCHEMAS))
    return table


def _whole(listed: Sequence[File]) -> list[File]:
    """Leave out what is half written."""
    return [file for file in listed if not file.path.endswith(TEMPORARY)]


def _are_among(rows: pa.Table, values: Mapping[str, Sequence[str]]) -> Any:
    """Return for each row whether any of some columns has one of its values."""
    found = pa.repeat(False, rows.num_rows)
    for column, those in values.items():
        if those:
            among = pc.is_in(rows[column].combine_chunks(), value_set=pa.array(those, pa.string()))
            found = pc.or_(found, pc.fill_null(among, False))
    return found


def _between(rows: pa.Table, first: int, last: int) -> pa.Table:
    inside = pc.and_(
        pc.greater_equal(rows["sequence"], first), pc.less_equal(rows["sequence"], last)
    )
    return rows.filter(inside)


def _gathered(groups: Iterable[pa.Table], schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield row groups of a good size, made of small ones."""
    held: list[pa.Table] = []
    rows = 0
    for group in groups:
        held.append(group)
        rows += group.num_rows
        if rows >= ROW_GROUP_ROWS:
            yield pa.concat_tables(held)
            held, rows = [], 0
    if held or rows == 0:
        yield pa.concat_tables(held) if held else schema.empty_table()
