"""Where calls are read for a person who looks: the journal, the lake, or one behind the other."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.cli.calls import call_at, calls_of, is_near, segments_since
from gateway.cli.waterfall import used_ns
from gateway.errors import JournalDamaged, JournalError, LakeError
from gateway.journal import Damage, Decision, Place, Record, Refused, decision_id, read, segments
from gateway.sidecar.tail.call import Call
from gateway.sidecar.traces.verdict import Kinds

if TYPE_CHECKING:  # Arrow is loaded only where a lake is read
    from gateway.sidecar.lake.lake import Lake

_JOURNAL_HINT = "Name serve's --journal."
_LAKE_HINT = "Name the --lake that `gateway sidecar` fills."


@dataclass(frozen=True, slots=True)
class Sources:
    """A journal's folder, a lake's place, or both: then the journal is asked first."""

    journal: Path | None
    lake: str | None

    def __str__(self) -> str:
        """Return the options that name them."""
        named = (("--journal", self.journal), ("--lake", self.lake))
        return " ".join(f"{option} {value}" for option, value in named if value is not None)

    @property
    def subject(self) -> Path | str | None:
        """What an error is about."""
        return self.lake if self.journal is None else self.journal

    def call_at(self, place: Place) -> tuple[Call, tuple[Record, ...], bool]:
        """Return the call at a place, what stood around it, and whether the journal told it.

        Raises:
            JournalError: it is not there, or the journal cannot be read.
            LakeError: the same of the lake.
            UsageError: something else stands at the place.
        """
        if self.journal is not None:
            try:
                return *call_at(self.journal, place), True
            except JournalError as error:
                if self.lake is None:
                    raise _with_lake(error) from None
        assert self.lake is not None
        from gateway.sidecar.lake.search import find

        found = find(_opened(self.lake), decision_id(place.boot, place.worker, place.sequence))
        if found is None:
            where = "the lake holds no such call"
            if self.journal is not None:
                where += f", and {self.journal} neither"
            raise LakeError(
                where,
                subject=self.lake,
                hint="It may not be shipped yet, or it was erased: gateway trace "
                f"{self} lists the ids that are there.",
            )
        call, around = found
        return call, tuple(one for one in around if is_near(one, call)), False

    def recent(
        self, kinds: Kinds, since_ns: int, limit: int
    ) -> tuple[list[Call], int, list[Damage]]:
        """Return calls since a wall time, the latest or the slowest `limit` of them; how many
        there are in all; and what of the journal is damaged.

        Raises:
            JournalError, LakeError: a source is not there, holds nothing, or cannot be read.
        """
        damage: list[Damage] = []
        calls: list[Call] = []
        count, held, nothing = 0, {}, None
        if self.journal is not None:
            try:
                calls, count = _of_journal(self.journal, kinds, since_ns, limit, damage)
                held = _held(self.journal)
            except JournalError as error:
                if self.lake is None or isinstance(error, JournalDamaged):
                    raise
                nothing = error
        if self.lake is not None:
            may_be_empty = self.journal is not None and nothing is None
            lake = _opened(self.lake, may_be_empty=may_be_empty)
            more, more_count = _of_lake(lake, kinds, since_ns, limit, held)
            calls = _ordered([*more, *calls], limit, slowest=kinds.slow)
            count += more_count
        return calls, count, damage


def _of_journal(
    journal: Path, kinds: Kinds, since_ns: int, limit: int, damage: list[Damage]
) -> tuple[list[Call], int]:
    count = 0

    def matching() -> Iterator[Call]:
        nonlocal count
        for one in _recent(journal, since_ns, damage):
            if kinds.holds(one):
                count += 1
                yield one

    kept: Iterable[Call]
    if kinds.slow:
        kept = heapq.nlargest(limit, matching(), key=used_ns)
    else:
        kept = deque(matching(), maxlen=limit)
    return _ordered(kept, limit, slowest=kinds.slow), count


def _ordered(calls: Iterable[Call], limit: int, *, slowest: bool) -> list[Call]:
    """Return the slowest first, or the latest last."""
    if slowest:
        return sorted(calls, key=used_ns, reverse=True)[:limit]
    return sorted(calls, key=arrived_ns)[-limit:]


def _of_lake(
    lake: Lake, kinds: Kinds, since_ns: int, limit: int, held: Mapping[tuple[int, str], int]
) -> tuple[list[Call], int]:
    from gateway.sidecar.lake.search import search

    found = search(lake, since_ns, kinds, limit=limit, slowest=kinds.slow, held=held)
    return list(found.calls), found.count


def _opened(place: str, *, may_be_empty: bool = False) -> Lake:
    """Open a lake that is there, and holds something where it may not be empty.

    Raises:
        LakeError: it is not, or does not.
    """
    from gateway.sidecar.lake.lake import Lake

    lake = Lake.at(place)
    if not lake.is_there:
        raise LakeError("there is no such folder", subject=place, hint=_LAKE_HINT)
    if not may_be_empty and lake.is_empty:
        raise LakeError("holds no calls", subject=place, hint=_LAKE_HINT)
    return lake


def _held(journal: Path) -> dict[tuple[int, str], int]:
    """Return from which sequence on the journal has a boot's calls; before it the lake is asked."""
    held: dict[tuple[int, str], int] = {}
    for segment in segments(journal):
        name = segment.name
        held.setdefault((name.worker, name.boot_id[:8].hex()), name.first_sequence)
    return held


def _recent(journal: Path, since: int, damage: list[Damage]) -> Iterator[Call]:
    if not journal.is_dir():
        raise JournalError("there is no such folder", subject=str(journal), hint=_JOURNAL_HINT)
    there = segments_since(journal, since)
    if not there:
        raise JournalError(
            "holds no segments of a journal", subject=str(journal), hint=_JOURNAL_HINT
        )

    def records() -> Iterator[Record]:
        for segment in there:
            for item in read(segment):
                if isinstance(item, Record):
                    yield item
                elif isinstance(item, Damage):
                    damage.append(item)

    for one in calls_of(records()):
        if arrived_ns(one) >= since:
            yield one


def arrived_ns(call: Call) -> int:
    """Return when a call arrived, as wall time; without a header, when its segment was begun."""
    entry = call.record.entry
    assert isinstance(entry, Decision | Refused)
    arrived = call.record.wall_ns(entry.arrival_ns)
    return call.record.segment.name.created_ns if arrived is None else arrived


def _with_lake(error: JournalError) -> JournalError:
    """Say that the lake may still know what is in the journal no more."""
    hint = f"{error.hint} What the journal has dropped may be in the lake: add --lake DIR."
    return type(error)(error.what, subject=error.subject, hint=hint.strip())
