"""Files of the lake by the ranges in their names: which count, and which are to be one. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from gateway.journal.spans import merged
from gateway.sidecar.tail.call import Range

TARGET_BYTES = 32 << 20
"""Files of this size are left as they are."""

FAN_IN = 8
"""So many files of a tier become one of the next."""

_SMALLEST_TIER_BYTES = 256 << 10
_NAME = re.compile(r"(\d{3})-([0-9a-f]{16})-(\d{15})-(\d{15})\.parquet", re.ASCII)


class FileName(NamedTuple):
    """A file's range. `boot`: the first 8 bytes of the boot id, in hex."""

    worker: int
    boot: str
    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.worker:03d}-{self.boot}-{self.first:015d}-{self.last:015d}.parquet"


class File(NamedTuple):
    """A file as the file system lists it."""

    name: FileName
    path: str
    size: int
    mtime_ns: int


def parse_file_name(name: str) -> FileName | None:
    """Read a file's name, or return None where it is none of the lake's."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    worker, boot, first, last = match.groups()
    return FileName(int(worker), boot, int(first), int(last))


def covers(one: FileName, other: FileName) -> bool:
    """Say whether the range of one file holds that of another, of the same boot."""
    same = (one.worker, one.boot) == (other.worker, other.boot)
    return same and one.first <= other.first and other.last <= one.last and one != other


def visible(files: Iterable[File]) -> list[File]:
    """Return the files that none in their folder covers, by boot and range."""
    seen: list[File] = []
    order = sorted(
        files, key=lambda f: (f.path.rpartition("/")[0], f.name._replace(last=-f.name.last))
    )
    for file in order:
        last = seen[-1] if seen else None
        same = last and last.path.rpartition("/")[0] == file.path.rpartition("/")[0]
        if not (last and same and covers(last.name, file.name)):
            seen.append(file)
    return seen


def by_boot(ranges: Iterable[Range]) -> dict[tuple[int, str], list[tuple[int, int]]]:
    """Return ranges as spans by worker and boot."""
    grouped: dict[tuple[int, str], list[tuple[int, int]]] = {}
    for worker, boot_id, first, last in ranges:
        grouped.setdefault((worker, boot_id[:8].hex()), []).append((first, last))
    return {boot: merged(spans) for boot, spans in grouped.items()}


def runs(
    files: Sequence[File], closed: dict[tuple[int, str], list[tuple[int, int]]], least_files: int
) -> Iterator[Sequence[File]]:
    """Yield the neighbours that are to be one file: of the smallest tier that has enough of them.

    A file grows eightfold a tier, so a row is rewritten a few times in all.
    """
    by_span: dict[tuple[int, str, int], list[File]] = {}
    for file in files:
        worker, boot, first, last = file.name
        for low, high in closed.get((worker, boot), ()):
            if low <= first and last <= high:
                by_span.setdefault((worker, boot, low), []).append(file)
    for neighbours in by_span.values():
        yield from _tiers(neighbours, least_files)


def _tiers(files: Sequence[File], least_files: int) -> Iterator[Sequence[File]]:
    limit = _SMALLEST_TIER_BYTES
    while True:
        limit = min(limit, TARGET_BYTES)
        runs = [run for run in _below(files, limit) if len(run) >= least_files]
        if runs or limit == TARGET_BYTES:
            yield from runs
            return
        limit *= FAN_IN


def _below(files: Sequence[File], limit: int) -> Iterator[Sequence[File]]:
    """Yield runs of neighbours that are each smaller than `limit`, and TARGET_BYTES together."""
    run: list[File] = []
    size = 0
    for file in files:
        if file.size >= limit or size + file.size > TARGET_BYTES:
            yield run
            run, size = [], 0
        if file.size < limit:
            run.append(file)
            size += file.size
    yield run
