"""Reads a whole journal and says whether anything that was written is missing from it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gateway.journal.entry import Gap, Kind, Loss, kind_of
from gateway.journal.reader import Damage, Record, Segment, TornTail, read, segments
from gateway.journal.shipped import load_shipped
from gateway.journal.spans import Span, merged, size, without

Boot = tuple[int, bytes]
"""Worker and boot id."""


@dataclass(frozen=True, slots=True)
class Missing:
    """Sequences of a boot that stand in no segment and that no GAP entry explains."""

    worker: int
    boot_id: bytes
    first_sequence: int
    last_sequence: int


@dataclass(frozen=True, slots=True)
class SegmentReport:
    """One file. `last_sequence`: None where it holds no frame. `torn_bytes`: at its end."""

    path: Path
    worker: int
    boot_id: bytes
    first_sequence: int
    last_sequence: int | None
    entries: Mapping[Kind, int]
    sealed: bool
    torn_bytes: int
    damage: tuple[Damage, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """A journal as it stands. `cut_bytes`: torn tails that writers found on opening and cut.

    `lost`: sequences by the reason that their GAP entries give. `ok` does not ask whether something
    was lost and counted, only whether something is missing that nobody counted.
    """

    segments: tuple[SegmentReport, ...]
    cut_bytes: int
    lost: Mapping[Loss, int]
    missing: tuple[Missing, ...]

    @property
    def entries(self) -> Mapping[Kind, int]:
        """How many entries of each kind there are."""
        return sum((Counter(segment.entries) for segment in self.segments), Counter[Kind]())

    @property
    def torn_bytes(self) -> int:
        """Bytes of torn tails that are still in the files."""
        return sum(segment.torn_bytes for segment in self.segments)

    @property
    def damage(self) -> tuple[Damage, ...]:
        """All damage, in the order of the segments."""
        return tuple(damage for segment in self.segments for damage in segment.damage)

    @property
    def ok(self) -> bool:
        """No damage, and every sequence is there or accounted for."""
        return not self.damage and not self.missing


@dataclass(slots=True)
class _Sequences:
    """Which sequences of one boot were seen: `holes` are ranges that were stepped over."""

    next_sequence: int = 1
    holes: list[tuple[int, int]] = field(default_factory=list)

    def expect(self, sequence: int) -> None:
        if sequence > self.next_sequence:
            self.holes.append((self.next_sequence, sequence - 1))
            self.next_sequence = sequence

    def see(self, sequence: int) -> None:
        self.expect(sequence)
        self.next_sequence = max(self.next_sequence, sequence + 1)


def verify(directory: Path) -> Report:
    """Read every segment of every worker.

    Raises:
        JournalError: the directory or a file cannot be read. Damage is no error here, but reported.
    """
    seen: defaultdict[Boot, _Sequences] = defaultdict(_Sequences)
    gaps: list[Gap] = []
    found = segments(directory)
    reports = tuple(_inspect(segment, seen[segment.boot], gaps) for segment in found)
    dropped = [
        ((segment.name.worker, run.boot_id), (run.first_sequence, run.last_sequence), run.is_lost)
        for segment in found
        if segment.header
        for run in segment.header.dropped
    ]
    lost = _lost(gaps, [(boot, span) for boot, span, is_lost in dropped if is_lost])
    cut_bytes = sum(
        recovered.cut_bytes
        for segment in found
        if segment.header
        for recovered in segment.header.recovered
    )
    explained: defaultdict[Boot, list[tuple[int, int]]] = defaultdict(list)
    for boot, spans in load_shipped(directory).dropped.items():
        explained[boot] += spans
    for boot, span, _ in dropped:
        explained[boot].append(span)
    for gap in gaps:
        explained[gap.worker, gap.boot_id].append((gap.first_sequence, gap.last_sequence))
    return Report(reports, cut_bytes, lost, _unexplained(seen, explained))


def _inspect(segment: Segment, seen: _Sequences, gaps: list[Gap]) -> SegmentReport:
    """Count one segment's entries; what it says about sequences goes into `seen` and `gaps`."""
    entries: Counter[Kind] = Counter()
    damage: list[Damage] = []
    torn_bytes, last_sequence, last_kind = 0, None, None
    # A file is created before the one in front of it is sealed: a writer that was stopped in
    # between never used the sequence of that seal.
    seen.expect(segment.name.first_sequence - (not segment.has_begun))
    for item in read(segment):
        if isinstance(item, Damage):
            damage.append(item)
        elif isinstance(item, TornTail):
            torn_bytes += item.length
        else:
            seen.see(item.sequence)
            last_sequence, last_kind = item.sequence, kind_of(item.entry)
            entries[last_kind] += 1
            gaps += _gap_of(item)
    return SegmentReport(
        segment.path,
        *segment.boot,
        segment.name.first_sequence,
        last_sequence,
        entries,
        last_kind is Kind.SEALED,
        torn_bytes,
        tuple(damage),
    )


def _gap_of(record: Record) -> list[Gap]:
    return [record.entry] if isinstance(record.entry, Gap) else []


def _lost(gaps: list[Gap], dropped: list[tuple[Boot, Span]]) -> Counter[Loss]:
    """Count what is lost, by reason; what was dropped is told of again and again.

    `dropped`: what headers say of it.
    """
    lost: Counter[Loss] = Counter()
    runs: defaultdict[Boot, list[Span]] = defaultdict(list)
    for gap in gaps:
        if gap.reason is not Loss.RETENTION:
            lost[gap.reason] += gap.count
        elif gap.count:
            runs[gap.worker, gap.boot_id].append((gap.first_sequence, gap.last_sequence))
    for boot, span in dropped:
        runs[boot].append(span)
    for spans in runs.values():
        lost[Loss.RETENTION] += size(merged(spans))
    return lost


def _unexplained(
    seen: Mapping[Boot, _Sequences], explained: Mapping[Boot, list[tuple[int, int]]]
) -> tuple[Missing, ...]:
    """Take what GAP entries explain away from the holes, and what was deleted as shipped."""
    return tuple(
        Missing(*boot, *rest)
        for boot, sequences in seen.items()
        for hole in sequences.holes
        for rest in without(hole, sorted(explained.get(boot, ())))
    )
