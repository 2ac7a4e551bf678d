"""Calls in the lake: one by its id, or those worth a look since a time.

A search reads the days that it asks for, of those the row groups whose times reach so far, and of
those the few columns that say which rows are wanted. The rest of the columns is read for the rows
that are shown alone; features, subjects and amounts for none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gateway.journal import Place, Record, ScoredCall
from gateway.journal.identity import parse_decision_id
from gateway.sidecar.lake.lake import Lake
from gateway.sidecar.lake.parquet import opened, refusal
from gateway.sidecar.lake.ranges import File
from gateway.sidecar.lake.recall import (
    DECISION,
    REFUSAL,
    call_of,
    scored_call,
    shed_of,
    wall_us,
)
from gateway.sidecar.tail.call import Call
from gateway.sidecar.traces.verdict import SLOW_SHARE, Kinds

_ASKED = {
    "decisions": (
        *("received", "sequence", "stand_in", "record_us", "replied_us", "deadline_us", "reply"),
    ),
    "refusals": ("received", "sequence", "refused_us", "replied_us", "reply"),
}
_SHOWN = {"decisions": DECISION, "refusals": REFUSAL}
_DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Found:
    """`calls`: those to show, in their order; `count`: how many there are in all."""

    calls: tuple[Call, ...]
    count: int


@dataclass(frozen=True, slots=True)
class _Hits:
    """Wanted rows of a row group: their places, and what they are ordered by."""

    table: str
    file: File
    group: int
    rows: NDArray[np.int64]
    sequence: NDArray[np.int64]
    received_us: NDArray[np.int64]
    used_ns: NDArray[np.int64]


Late = Mapping[tuple[int, str, int], tuple[str, int | None]]
"""Replies that were told of after their call: fate, and wall time in µs, by the call's place."""


def search(
    lake: Lake,
    since_ns: int,
    wanted: Kinds,
    *,
    limit: int,
    slowest: bool = False,
    held: Mapping[tuple[int, str], int] | None = None,
) -> Found:
    """Return the calls since `since_ns`, wall time: the latest `limit`, or the slowest.

    `held`: by worker and boot, the sequence from which on rows are left out.

    Raises:
        LakeError: the file system refuses, or a file is damaged.
    """
    since_us = since_ns // 1000
    late: Late | None = None
    hits: list[_Hits] = []
    for table in ("decisions", "refusals"):
        if table == "refusals" and not (wanted.is_every or wanted.errors):
            continue
        for file in lake.files_since(table, _date(since_us)):
            if wanted.product and lake.product_of(file.path) != wanted.product:
                continue
            worker, boot = file.name.worker, file.name.boot
            below = (held or {}).get((worker, boot), 2**63 - 1)
            if file.name.first >= below:
                continue
            columns = (*_ASKED[table], *(("trace_id",) if wanted.trace_id else ()))
            for group, read in _groups(lake, file, columns, since_us):
                if late is None and "unknown" in read["reply"].unique().to_pylist():
                    late = late_replies(lake)
                found = _hits(table, file, group, read, since_us, below, wanted, late or {})
                if found.rows.size:
                    hits.append(found)
    count = sum(one.rows.size for one in hits)
    chosen = _chosen(hits, limit, slowest=slowest)
    return Found(tuple(_shown(lake, hits, chosen, late or {})), int(count))


def find(lake: Lake, decision_id: str) -> tuple[Call, tuple[Record, ...]] | None:
    """Return the call of an id, and the calls that its worker shed on that day; None: not there.

    Raises:
        ValueError: the id is none.
        LakeError: the file system refuses, or a file is damaged.
    """
    place = parse_decision_id(decision_id)
    for table in ("decisions", "refusals"):
        row = lake.find(decision_id, table, _SHOWN[table])
        if row is None:
            continue
        at = place.worker, place.boot.hex(), place.sequence
        late = late_replies(lake) if row["reply"] == "unknown" else {}
        call = call_of(_told(row, at, late), row["product"])
        return _with_late_scores(lake, call, place), tuple(_shed(lake, row, place))
    return None


def late_replies(lake: Lake) -> Late:
    """Return what the lake knows of replies beside their calls: few, so all of them are read."""
    found: dict[tuple[int, str, int], tuple[str, int | None]] = {}
    for file in lake.files_since("late_replies", ""):
        for _, read in _groups(lake, file, ("decision_id", "reply", "replied"), None):
            for row in read.to_pylist():
                place = parse_decision_id(row["decision_id"])
                replied_us = None if row["replied"] is None else wall_us(row["replied"])
                told = row["reply"], replied_us
                found[place.worker, place.boot.hex(), place.sequence] = told
    return found


def _groups(
    lake: Lake, file: File, columns: Sequence[str], since_us: int | None
) -> Iterator[tuple[int, pa.Table]]:
    """Yield a file's row groups that may hold rows of `since_us` or later."""
    try:
        with opened(lake.filesystem, file.path) as groups:
            for group in range(groups.count):
                if since_us is None or groups.reaches(group, "received", _moment(since_us)):
                    yield group, groups.read(group, columns)
    except OSError as error:
        raise refusal(error, "read the lake", file.path) from error


def _hits(
    table: str,
    file: File,
    group: int,
    read: pa.Table,
    since_us: int,
    below: int,
    wanted: Kinds,
    late: Late,
) -> _Hits:
    """Say which rows of a row group are wanted. The verdict is that of `traces.verdict`."""
    received_us = read["received"].cast(pa.int64()).to_numpy()
    sequence = read["sequence"].to_numpy()
    replied_ns, unknown = _fates(file, read, received_us, sequence, late)
    rows = (received_us >= since_us) & (sequence < below)
    if wanted.trace_id:
        rows &= _texts(read["trace_id"]) == wanted.trace_id
    if table == "refusals":
        used_ns = np.where(replied_ns >= 0, replied_ns, _ns(read["refused_us"]))
        kinds = np.ones(len(rows), dtype=np.bool_)
    else:
        used_ns = np.where(replied_ns >= 0, replied_ns, _ns(read["record_us"]))
        budget_ns = read["deadline_us"].to_numpy() * 1000
        kinds = np.full(len(rows), wanted.is_every)
        if wanted.slow:
            kinds |= used_ns > SLOW_SHARE * budget_ns
        if wanted.stood_in:
            kinds |= _texts(read["stand_in"]) != "none"
        if wanted.errors:
            kinds |= (used_ns > budget_ns) | unknown
    places = np.flatnonzero(rows & kinds)
    return _Hits(table, file, group, places, sequence[places], received_us[places], used_ns[places])


def _fates(
    file: File,
    read: pa.Table,
    received_us: NDArray[np.int64],
    sequence: NDArray[np.int64],
    late: Late,
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return when each reply left, in ns from arrival and -1 for never, and whose fate nobody
    knows.
    """
    unknown = _texts(read["reply"]) == "unknown"
    replied_ns = np.where(_valid(read["replied_us"]), _ns(read["replied_us"]), -1)
    if late:
        for row in np.flatnonzero(unknown).tolist():
            told = late.get((file.name.worker, file.name.boot, int(sequence[row])))
            if told is not None:
                unknown[row] = told[0] == "unknown"
                if told[1] is not None:
                    replied_ns[row] = max(0, told[1] - int(received_us[row])) * 1000
    return replied_ns, unknown


def _chosen(hits: Sequence[_Hits], limit: int, *, slowest: bool) -> list[tuple[int, int]]:
    """Return (place in `hits`, place in its rows) of what is shown, in its order."""
    if not hits:
        return []
    owner = np.repeat(np.arange(len(hits)), [one.rows.size for one in hits])
    within = np.concatenate([np.arange(one.rows.size) for one in hits])
    sequence = np.concatenate([one.sequence for one in hits])
    received = np.concatenate([one.received_us for one in hits])
    if slowest:
        used = np.concatenate([one.used_ns for one in hits])
        order = np.lexsort((sequence, received, -used))[:limit]
    else:
        order = np.lexsort((sequence, received))[-limit:]
    return list(zip(owner[order].tolist(), within[order].tolist(), strict=True))


def _shown(
    lake: Lake, hits: Sequence[_Hits], chosen: Sequence[tuple[int, int]], late: Late
) -> list[Call]:
    """Read the chosen rows, each row group once."""
    by_group: dict[int, list[int]] = {}
    for owner, within in chosen:
        by_group.setdefault(owner, []).append(within)
    calls: dict[tuple[int, int], Call] = {}
    for owner, withins in by_group.items():
        one = hits[owner]
        name, product = one.file.name, lake.product_of(one.file.path)
        try:
            with opened(lake.filesystem, one.file.path) as groups:
                read = groups.read(one.group, _SHOWN[one.table])
        except OSError as error:
            raise refusal(error, "read the lake", one.file.path) from error
        rows = read.take(pa.array(one.rows[withins])).to_pylist()
        for within, row in zip(withins, rows, strict=True):
            told = _told(row, (name.worker, name.boot, row["sequence"]), late)
            calls[owner, within] = call_of(told, product)
    return [calls[place] for place in chosen]


def _told(row: Mapping[str, Any], at: tuple[int, str, int], late: Late) -> Mapping[str, Any]:
    """Return a row with the reply that was told of later, where there is one."""
    if row["reply"] != "unknown" or at not in late:
        return row
    reply, replied_us = late[at]
    after_us = None if replied_us is None else max(0, replied_us - wall_us(row["received"]))
    return {**row, "reply": reply, "replied_us": after_us}


def _with_late_scores(lake: Lake, call: Call, place: Place) -> Call:
    """Return the call with the scores that came after it was written."""
    own, generation = (
        f"{place.boot.hex()}-{place.worker:02x}-{place.sequence:012x}",
        call.generation,
    )
    found: list[tuple[str, ScoredCall]] = []
    for file in lake.files_since("late_scores", ""):
        name = file.name
        if (name.worker, name.boot) != (place.worker, place.boot.hex()):
            continue
        if name.last <= place.sequence:
            continue
        columns = ("decision_id", "arm", "score", "probability", "action")
        for _, read in _groups(lake, file, columns, None):
            for row in read.to_pylist():
                if row["decision_id"] == own:
                    found.append((row["arm"], scored_call(row, place.sequence)))
    if not found or generation is None:
        return call
    begin = len(generation.arms)
    arms = (*generation.arms, *(arm for arm, _ in found))
    scored = tuple((begin + i, one) for i, (_, one) in enumerate(found))
    return replace(call, generation=replace(generation, arms=arms), scored=(*call.scored, *scored))


def _shed(lake: Lake, row: Mapping[str, Any], place: Place) -> Iterator[Record]:
    """Yield the runs of calls that the worker shed on the row's day, and the day before."""
    day = _date(wall_us(row["received"]) - _DAY_US)
    columns = ("received", "received_last", "count", "worker", "boot", "sequence")
    for file in lake.files_since("shed", day):
        if (file.name.worker, file.name.boot) == (place.worker, place.boot.hex()):
            for _, read in _groups(lake, file, columns, None):
                for one in read.to_pylist():
                    if one["received"] is not None and one["received_last"] is not None:
                        yield shed_of(one, row)


def _ns(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Return single-precision µs as nanoseconds, as `recall.nanoseconds` does; null: 0."""
    us: NDArray[np.float64] = column.cast(pa.float64()).fill_null(0.0).to_numpy()
    return np.rint(us * 1000).astype(np.int64)


def _valid(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    valid: NDArray[np.bool_] = column.is_valid().to_numpy()
    return valid


def _texts(column: pa.ChunkedArray) -> NDArray[np.object_]:
    texts: NDArray[np.object_] = column.to_numpy()
    return texts


def _moment(us: int) -> datetime:
    return datetime.fromtimestamp(us // 1_000_000, UTC)


def _date(us: int) -> str:
    """Return a UTC day as the lake's paths have it."""
    return f"{_moment(max(us, 0)):%Y-%m-%d}"
