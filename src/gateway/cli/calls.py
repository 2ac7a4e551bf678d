"""The journal's calls, each with its reply and its shadow scores, for a person who looks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from gateway.errors import JournalDamaged, JournalError, UsageError
from gateway.journal import (
    FOUND_NOBODY,
    Damage,
    Decision,
    Gap,
    Pause,
    Place,
    Record,
    Refused,
    Replied,
    Reply,
    Scored,
    ScoredCall,
    Segment,
    Shed,
    load_shipped,
    read,
    segments,
)
from gateway.sidecar.tail.call import Call
from gateway.sidecar.traces.verdict import end_ns

_AFTER_NS = 3_000_000_000
"""Replies and shadow scores stand no further behind their call than this."""

_NEAR_NS = 100_000_000
"""A pause, or calls that were shed, so long before or after a call may have to do with it."""


def segments_since(directory: Path, since_ns: int) -> tuple[Segment, ...]:
    """Return the segments that may hold calls that arrived at `since_ns`, wall time, or later."""
    there = segments(directory)
    next_of_boot: dict[tuple[int, bytes], int] = {}
    kept = []
    for segment in reversed(there):
        following_ns = next_of_boot.get(segment.boot)
        next_of_boot[segment.boot] = segment.name.created_ns
        if following_ns is None or following_ns >= since_ns:
            kept.append(segment)
    return tuple(reversed(kept))


def calls_of(records: Iterable[Record]) -> Iterator[Call]:
    """Yield every decision and refusal, once nothing more is to come of it.

    Holds what arrived in the last three seconds of each worker.
    """
    open_calls: dict[tuple[int, bytes], dict[int, _Open]] = {}
    for record in records:
        waiting = open_calls.setdefault(record.segment.boot, {})
        match record.entry:
            case Decision() | Refused() as entry:
                yield from _settled(waiting, entry.arrival_ns - _AFTER_NS)
                waiting[record.sequence] = _Open(record)
            case Replied() as entry:
                for sequence, offset_ns in enumerate(entry.offsets_ns, entry.first_sequence):
                    if sequence in waiting:
                        waiting[sequence].reply(entry.base_ns, offset_ns)
            case Scored() as entry:
                for scored in entry.calls:
                    if scored.sequence in waiting:
                        waiting[scored.sequence].scored.append((entry.arm, scored))
    for waiting in open_calls.values():
        for one in waiting.values():
            yield one.call()


def call_at(directory: Path, place: Place) -> tuple[Call, tuple[Record, ...]]:
    """Return the call at a place, and the pauses and shed calls of its worker around it.

    Raises:
        JournalError: it is not there, or the journal cannot be read.
        UsageError: something else stands at the place.
    """
    record = find_record(directory, place)
    if not isinstance(record.entry, Decision | Refused):
        raise UsageError(
            f"is the place of no call, but of a {type(record.entry).__name__.lower()}",
            subject=f"sequence {record.sequence} in {directory}",
            hint=f"gateway journal cat {directory} says what stands there.",
        )
    one, around = _Open(record), []
    for other in _onward(directory, record):
        match other.entry:
            case Replied() as entry:
                at = record.sequence - entry.first_sequence
                if 0 <= at < len(entry.offsets_ns):
                    one.reply(entry.base_ns, entry.offsets_ns[at])
            case Scored() as entry:
                one.scored += [(entry.arm, it) for it in entry.calls if it[0] == record.sequence]
            case Pause() | Shed():
                around.append(other)
    call = one.call()
    return call, tuple(it for it in around if is_near(it, call))


def _onward(directory: Path, record: Record) -> Iterator[Record]:
    """Yield what the worker wrote in the record's segment and later, as far as it may matter."""
    name, entry = record.segment.name, record.entry
    assert isinstance(entry, Decision | Refused)
    for segment in segments(directory):
        if segment.boot != record.segment.boot or segment.name < name:
            continue
        for item in read(segment):
            other = item.entry if isinstance(item, Record) else None
            if isinstance(other, Decision | Refused):
                if other.arrival_ns > entry.arrival_ns + _AFTER_NS:
                    return
            elif isinstance(item, Record):
                yield item


def is_near(aside: Record, call: Call) -> bool:
    """Say whether a pause, or calls that were shed, may have to do with a call."""
    entry, own = aside.entry, call.record.entry
    assert isinstance(own, Decision | Refused)
    if isinstance(entry, Pause):
        start_ns, stop_ns = entry.start_ns, entry.start_ns + entry.duration_ns
    else:
        assert isinstance(entry, Shed)
        start_ns, stop_ns = entry.first_arrival_ns, entry.last_arrival_ns
    return start_ns <= end_ns(call) + _NEAR_NS and stop_ns >= own.arrival_ns - _NEAR_NS


class _Open:
    """A call that more may be told of."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.fate = Reply.UNKNOWN
        self.replied_ns: int | None = None
        self.scored: list[tuple[int, ScoredCall]] = []

    def reply(self, base_ns: int, offset_ns: int) -> None:
        if offset_ns == FOUND_NOBODY:
            self.fate = Reply.FOUND_NOBODY
        else:
            self.fate, self.replied_ns = Reply.LEFT, base_ns + offset_ns

    def call(self) -> Call:
        entry = self.record.entry
        assert isinstance(entry, Decision | Refused)
        generation = self.record.generation(entry.product)
        scored = tuple(sorted(self.scored))
        return Call(self.record, generation, self.fate, self.replied_ns, scored)


def _settled(waiting: dict[int, _Open], before_ns: int) -> Iterator[Call]:
    while waiting:
        sequence, one = next(iter(waiting.items()))
        entry = one.record.entry
        assert isinstance(entry, Decision | Refused)
        if entry.arrival_ns >= before_ns:
            return
        del waiting[sequence]
        yield one.call()


def find_record(directory: Path, place: Place) -> Record:
    """Return the record at a place.

    Raises:
        JournalError: it is not there, or the journal cannot be read.
    """
    if not directory.is_dir():
        raise JournalError(
            "there is no such folder",
            subject=str(directory),
            hint="Name the folder that serve was given, with --journal.",
        )
    there = segments(directory)
    own = own_segments(there, place)
    damage: Damage | None = None
    for segment in own:
        for item in read(segment):
            if isinstance(item, Record):
                if item.sequence == place.sequence:
                    return item
            elif isinstance(item, Damage) and _covers(item.missing, place.sequence):
                damage = item
    if damage is not None:
        raise JournalDamaged(
            f"{damage.length} bytes are damaged where its record may have stood",
            subject=f"{damage.path.name} at {damage.offset}",
            hint=f"gateway journal verify {directory} says what is missing.",
        )
    raise _not_there(directory, there, place, known=bool(own))


def own_segments(there: Iterable[Segment], place: Place) -> list[Segment]:
    """Return the segments of the worker and boot that a decision id names."""
    return [one for one in there if (one.name.boot_id[:8], one.name.worker) == place[:2]]


def _covers(missing: tuple[int, int | None] | None, sequence: int) -> bool:
    if missing is None:
        return False
    first, last = missing
    return first <= sequence and (last is None or sequence <= last)


def _not_there(
    directory: Path, there: Sequence[Segment], place: Place, *, known: bool
) -> JournalError:
    """Say why a record is not there, as far as the journal knows."""
    subject, hint = str(directory), "Name the folder that serve was given, with --journal."
    if not there:
        return JournalError("holds no segments of a journal", subject=subject, hint=hint)
    for segment in there:
        for item in read(segment):
            gap = item.entry if isinstance(item, Record) else None
            if (
                isinstance(gap, Gap)
                and (gap.boot_id[:8], gap.worker) == place[:2]
                and _covers((gap.first_sequence, gap.last_sequence), place.sequence)
            ):
                reason = gap.reason.name.lower().replace("_", " ")
                what = f"its record was not kept: {reason}"
                return JournalError(what, subject=subject, hint="Look in a copy of the journal.")
    for (worker, boot_id), spans in load_shipped(directory).dropped.items():
        if (boot_id[:8], worker) == place[:2] and any(
            _covers(span, place.sequence) for span in spans
        ):
            what = "its record was shipped, and its segment deleted"
            return JournalError(what, subject=subject, hint="Look in a copy of the journal.")
    what = "holds no such decision" if known else "holds nothing of the worker that gave this id"
    hint = f"gateway journal cat {directory} prints the ids that are there."
    return JournalError(what, subject=subject, hint=hint)
