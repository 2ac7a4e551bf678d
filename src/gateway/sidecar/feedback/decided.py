"""Where the decision that a label speaks of has its span.

By the decision's id: its row in the lake, whose files' names say where it can stand, or its record
in the journal. By the transaction's: the product's rows in the lake, the newest first, as far as a
bound; a payment further back is not found. A label without a decision has no link.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from gateway.errors import JournalError, LakeError
from gateway.journal import (
    Decision,
    Place,
    Record,
    Segment,
    parse_decision_id,
    read,
    segments,
)
from gateway.sidecar.feedback.label import Label
from gateway.sidecar.lake.lake import BOOT_ID, Lake
from gateway.sidecar.lake.parquet import footer, refusal, row_groups
from gateway.sidecar.lake.ranges import FileName, parse_file_name
from gateway.sidecar.traces.spans import SpanId, server_span_id, span_at

ROWS_MAX = 1_000_000
"""Of a product so many decisions are looked through for the transactions of a batch of labels."""

_COLUMNS = ["transaction_id", "sequence", "trace_id"]


class _File(NamedTuple):
    path: str
    name: FileName


class Decided:
    """Looks decisions up. `lake`: None where there is none."""

    def __init__(self, journal: Path, lake: Lake | None, *, rows_max: int = ROWS_MAX) -> None:
        self._journal = journal
        self._lake = lake
        self._rows_max = rows_max
        self._boots: dict[tuple[int, str], bytes | None] = {}

    def spans_of(self, labels: Sequence[Label]) -> list[SpanId | None]:
        """Return the server span of each label's decision; None where it is not found.

        Raises:
            LakeError: the lake cannot be listed or read.
        """
        # What was not known of a boot may be by now.
        self._boots = {boot: known for boot, known in self._boots.items() if known}
        places = {parse_decision_id(one.decision_id) for one in labels if one.decision_id}
        wanted: dict[str, set[str]] = {}
        for one in labels:
            if not one.decision_id:
                wanted.setdefault(one.product, set()).add(one.transaction_id)
        files = self._files() if places or wanted else []
        by_place = self._at(places, files)
        by_payment = {
            (product, transaction): span
            for product, transactions in wanted.items()
            for transaction, span in self._of(product, transactions, files).items()
        }
        return [
            by_place.get(parse_decision_id(one.decision_id))
            if one.decision_id
            else by_payment.get((one.product, one.transaction_id))
            for one in labels
        ]

    def _files(self) -> list[_File]:
        paths = self._lake.files("decisions") if self._lake else ()
        named = ((path, parse_file_name(path.rpartition("/")[2])) for path in paths)
        return [_File(path, name) for path, name in named if name]

    def _at(self, places: Collection[Place], files: Iterable[_File]) -> dict[Place, SpanId | None]:
        """Return the spans of the decisions at some places: each file is read once at the most."""
        left: dict[tuple[int, str], set[int]] = {}
        for place in places:
            left.setdefault((place.worker, place.boot.hex()), set()).add(place.sequence)
        found: dict[Place, SpanId | None] = {}
        for path, name in files:
            ours = left.get((name.worker, name.boot), set())
            inside = [one for one in ours if name.first <= one <= name.last]
            for rows in self._rows(path) if inside else ():
                some = rows.filter(pc.is_in(rows["sequence"], pa.array(inside, pa.int64())))
                for row in some.to_pylist():
                    place = Place(bytes.fromhex(name.boot), name.worker, row["sequence"])
                    found[place] = self._span(path, name, row)
                    ours.discard(place.sequence)
        return found | self._in_journal({one for one in places if one not in found})

    def _of(
        self, product: str, transactions: set[str], files: Iterable[_File]
    ) -> Mapping[str, SpanId | None]:
        """Return the span of each transaction's last decision, as far as one is found."""
        found: dict[str, SpanId | None] = {}
        left, looked = set(transactions), 0
        for path, name in _newest_first(files, product):
            if not left or looked >= self._rows_max:
                break
            for rows in self._rows(path):
                looked += rows.num_rows
                inside = pc.is_in(rows["transaction_id"], pa.array(sorted(left), pa.string()))
                for row in rows.filter(inside).to_pylist():  # a later row of the file stands
                    found[row["transaction_id"]] = self._span(path, name, row)
            left -= found.keys()
        return found

    def _rows(self, path: str) -> Iterator[Any]:
        """Yield what there is to see of a file; of one that is gone or damaged, nothing."""
        assert self._lake is not None
        try:
            yield from row_groups(self._lake.filesystem, path, _COLUMNS)
        except (FileNotFoundError, LakeError):
            return
        except OSError as error:
            raise refusal(error, "read the lake", path) from error

    def _span(self, path: str, name: FileName, row: Mapping[str, Any]) -> SpanId | None:
        """Return the span of a row; None where nobody knows its boot's whole id any more."""
        boot = name.worker, name.boot
        if boot not in self._boots:
            self._boots[boot] = self._boot_id(path, name)
        boot_id, trace_id = self._boots[boot], row["trace_id"]
        if boot_id is None:
            return None
        traced = bytes.fromhex(trace_id) if trace_id else None
        return span_at(boot_id, name.worker, row["sequence"], traced)

    def _boot_id(self, path: str, name: FileName) -> bytes | None:
        """Return a boot's whole id: from a file of the lake, or from its segments' names."""
        assert self._lake is not None
        with suppress(OSError, LakeError):
            said = (footer(self._lake.filesystem, path)[0].metadata or {}).get(BOOT_ID)
            if said:
                return bytes.fromhex(said.decode())
        for segment in self._segments():
            if (segment.name.worker, segment.name.boot_id[:8].hex()) == (name.worker, name.boot):
                return segment.name.boot_id
        return None

    def _in_journal(self, places: Collection[Place]) -> dict[Place, SpanId | None]:
        """Return the same from the journal: each segment is read once at the most."""
        found: dict[Place, SpanId | None] = {}
        if not places:
            return found
        following: dict[tuple[int, bytes], int] = {}
        for segment in reversed(self._segments()):
            name = segment.name
            boot = name.worker, name.boot_id
            until = following.get(boot, 2**63)
            following[boot] = name.first_sequence
            inside = {
                one.sequence
                for one in places
                if (one.worker, one.boot) == (name.worker, name.boot_id[:8])
                and name.first_sequence <= one.sequence < until
            }
            for record in _decisions(segment, inside):
                place = Place(name.boot_id[:8], name.worker, record.sequence)
                found[place] = server_span_id(record)
        return found

    def _segments(self) -> Sequence[Segment]:
        try:
            return segments(self._journal)
        except JournalError:
            return ()


def _decisions(segment: Segment, sequences: Collection[int]) -> Iterator[Record]:
    """Yield the decisions of some sequences, as far as the segment still has them."""
    left = set(sequences)
    try:
        for item in read(segment) if left else ():
            if isinstance(item, Record) and item.sequence in left:
                left.discard(item.sequence)
                if isinstance(item.entry, Decision):
                    yield item
                if not left:
                    return
    except JournalError:
        return  # dropped meanwhile


def _newest_first(files: Iterable[_File], product: str) -> list[_File]:
    """Return a product's files, those of the last day first, and of a day the last range."""
    ours = [one for one in files if f"/product={product}/" in one.path]
    return sorted(
        ours,
        key=lambda one: (one.path.rpartition("/date=")[2].partition("/")[0], one.name.last),
        reverse=True,
    )
