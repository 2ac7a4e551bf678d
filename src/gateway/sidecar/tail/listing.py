"""Which segments a journal's directory holds, boot by boot; a header is read once."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from gateway.journal import Damage, Fault, Segment, segment_at
from gateway.journal.disk import refusal
from gateway.journal.segment import SUFFIX, SegmentName, parse_name

Boot = tuple[int, bytes]
"""Worker and boot id."""


@dataclass(frozen=True, slots=True)
class Boots:
    """The segments of each boot in their order, and the boots that have ended."""

    segments: dict[Boot, tuple[Segment, ...]]
    latest: dict[int, SegmentName]

    def is_over(self, boot: Boot, last: SegmentName) -> bool:
        """Say whether a boot whose last known segment is `last` has ended.

        A worker's journal has one writer at a time: where a later boot has begun, there is none.
        """
        latest = self.latest.get(boot[0])
        return latest is not None and latest.boot_id != boot[1] and latest > last


class Listing:
    """Looks at the directory. What is no segment by its name is told of once, in `strange`."""

    def __init__(self, directory: Path) -> None:
        self.strange: list[Damage] = []
        self._directory = directory
        self._names: dict[str, SegmentName] = {}
        self._known: dict[str, Segment] = {}
        self._told: set[str] = set()
        self._boots = Boots({}, {})

    def look(self) -> Boots:
        """Return what is there now.

        Raises:
            JournalError: the directory or a file cannot be read.
        """
        names = self._named()
        has_cut = any(not segment.has_begun for segment in self._known.values())
        if names.keys() == self._known.keys() and not has_cut:
            return self._boots
        self._names = names
        self._known = {name: self._segment(name) for name in names}
        self._boots = self._ordered()
        return self._boots

    def _named(self) -> dict[str, SegmentName]:
        try:
            found = os.listdir(self._directory)
        except OSError as error:
            raise refusal(error, "read the journal", self._directory) from error
        names = {}
        for name in found:
            parsed = self._names.get(name) or parse_name(name)
            if parsed:
                names[name] = parsed
            elif name.endswith(SUFFIX) and name not in self._told:
                self._told.add(name)
                self.strange.append(_unknown(self._directory / name))
        return names

    def _segment(self, name: str) -> Segment:
        known = self._known.get(name)
        return known if known and known.has_begun else segment_at(self._directory / name)

    def _ordered(self) -> Boots:
        in_order = sorted(self._known.values(), key=lambda segment: segment.name)
        kept = {
            recovered.segment: recovered.kept_bytes
            for segment in in_order
            if segment.header
            for recovered in segment.header.recovered
        }
        last_of_boot = {segment.boot: segment.path for segment in in_order if segment.has_begun}
        boots: dict[Boot, list[Segment]] = {}
        latest: dict[int, SegmentName] = {}
        for segment in in_order:
            name = segment.path.name
            is_last = not segment.has_begun or last_of_boot[segment.boot] == segment.path
            may_be_torn = is_last and name not in kept
            told = replace(segment, may_be_torn=may_be_torn, kept_bytes=kept.get(name))
            boots.setdefault(segment.boot, []).append(told)
            if segment.has_begun:
                latest[segment.name.worker] = segment.name
        return Boots({boot: tuple(found) for boot, found in boots.items()}, latest)


def _unknown(path: Path) -> Damage:
    try:
        length = path.stat().st_size
    except OSError as error:
        raise refusal(error, "look at the segment", path) from error
    return Damage(path, 0, length, Fault.NAME, detail="nothing of it is read")
