"""`gateway trace`: a call's stages as a waterfall, from the journal alone."""

from __future__ import annotations

import heapq
import json as json_codec
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from gateway.cli.calls import call_at, calls_of, segments_since
from gateway.cli.terms import AtLeastOne, Json, notes, out, to_width
from gateway.cli.waterfall import HEADING, as_line, as_object, used_ns, waterfall
from gateway.errors import ExitCode, JournalDamaged, JournalError, UsageError
from gateway.journal import Damage, Decision, Record, Refused, parse_decision_id, read
from gateway.sidecar.tail.call import Call
from gateway.sidecar.traces.verdict import verdict

_LAST = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_TRACE_ID = re.compile(r"[0-9a-f]{32}")


def trace(
    call: Annotated[
        str | None,
        Parameter(
            name="ID",
            help="A decision's id, or the 32 digits of a trace's that a caller has sent. Where "
            "left out, calls are listed.",
        ),
    ] = None,
    /,
    *,
    journal: Annotated[Path, Parameter(help="The folder that serve was given as --journal.")] = (
        Path("journal")
    ),
    slow: Annotated[
        bool,
        Parameter(
            negative="",
            show_default=False,
            help="List those that used more than half of their budget, the slowest first.",
        ),
    ] = False,
    stood_in: Annotated[
        bool,
        Parameter(
            negative="", show_default=False, help="List those that the model did not decide."
        ),
    ] = False,
    errors: Annotated[
        bool,
        Parameter(
            negative="",
            show_default=False,
            help="List those that were refused, late, or whose reply nobody knows of.",
        ),
    ] = False,
    last: Annotated[str, Parameter(help="How far back: 90s, 15m, 1h or 7d.")] = "1h",
    limit: Annotated[int, Parameter(validator=AtLeastOne, help="At most so many rows.")] = 50,
    json: Json = False,
) -> int:
    """Draw where a call's time went, or list calls worth drawing.

    Stages stand against the budget, each with the slack that was left at its end; below them what
    shadow models made of the call, and what its worker did nearby: pauses, and calls it shed.
    """
    if call is not None:
        if slow or stood_in or errors:
            raise UsageError(
                "an ID and --slow, --stood-in or --errors do not go together",
                hint="Leave out the ID to list calls.",
            )
        text = call.strip().lower()
        if _TRACE_ID.fullmatch(text):
            return _draw_trace(journal, text, since_ns(last), limit, json=json)
        return _draw(journal, text, json=json)
    wanted = _filter(slow=slow, stood_in=stood_in, errors=errors)
    return _list(journal, wanted, since_ns(last), limit, slowest=slow, json=json)


def since_ns(last: str) -> int:
    """Return when a span of time that ends now began, as wall time.

    Raises:
        UsageError: it is none.
    """
    match = _LAST.fullmatch(last.strip().lower())
    if match is None:
        raise UsageError("is no span of time", subject=repr(last), hint="Write it as 15m or 1h.")
    return time.time_ns() - int(float(match[1]) * _SECONDS[match[2]] * 1e9)


def _draw(journal: Path, text: str, *, json: bool) -> int:
    try:
        place = parse_decision_id(text)
    except ValueError as error:
        raise UsageError(str(error), hint=f"gateway trace --journal {journal} lists ids.") from None
    found, around = call_at(journal, place)
    if json:
        print(json_codec.dumps(as_object(found, around), indent=2))
        return ExitCode.OK
    for line in waterfall(found, around, out.width):
        print(line)
    if isinstance(found.record.entry, Decision):
        notes.print(f"Next: gateway explain {text} --journal {journal}", markup=False)
    return ExitCode.OK


def _draw_trace(journal: Path, trace_id: str, since: int, limit: int, *, json: bool) -> int:
    """Draw every call of a caller's trace: its retries too."""
    damage: list[Damage] = []

    def is_in_trace(one: Call) -> bool:
        entry = one.record.entry
        return isinstance(entry, Decision | Refused) and entry.traceparent[3:35] == trace_id

    found = [one for one in _recent(journal, since, damage) if is_in_trace(one)][-limit:]
    if not found:
        raise JournalError(
            f"no call of trace {trace_id} is in what --last covers",
            subject=str(journal),
            hint="Reach further back with --last 7d.",
        )
    for one in found:
        if json:
            print(json_codec.dumps(as_object(one, ())))
        else:
            for line in (*waterfall(one, (), out.width), ""):
                print(line)
    return _told(damage, journal)


def _list(
    journal: Path,
    wanted: Callable[[Call], bool],
    since: int,
    limit: int,
    *,
    slowest: bool,
    json: bool,
) -> int:
    damage: list[Damage] = []
    count = 0

    def matching() -> Iterator[Call]:
        nonlocal count
        for one in _recent(journal, since, damage):
            if wanted(one):
                count += 1
                yield one

    rows: Iterable[Call]
    if slowest:
        rows = heapq.nlargest(limit, matching(), key=used_ns)
    else:
        rows = sorted(deque(matching(), maxlen=limit), key=_arrived_ns)
    if not json:
        print(to_width(HEADING))
    for one in rows:
        print(json_codec.dumps(as_object(one, ())) if json else to_width(as_line(one)))
    if count > limit:
        notes.print(f"{limit} of {count:,} calls; --limit shows more.", markup=False)
    elif not json:
        notes.print(f"{count:,} calls. Next: gateway trace ID --journal {journal}", markup=False)
    return _told(damage, journal)


def _filter(*, slow: bool, stood_in: bool, errors: bool) -> Callable[[Call], bool]:
    """Return what says whether a call is to be listed: any of what is asked for, or every one."""
    if not (slow or stood_in or errors):
        return lambda _: True

    def wanted(one: Call) -> bool:
        seen = verdict(one)
        return (slow and seen.slow) or (stood_in and seen.stood_in) or (errors and seen.error != "")

    return wanted


def _recent(journal: Path, since: int, damage: list[Damage]) -> Iterator[Call]:
    if not journal.is_dir():
        raise JournalError(
            "there is no such folder", subject=str(journal), hint="Name serve's --journal."
        )
    there = segments_since(journal, since)
    if not there:
        raise JournalError(
            "holds no segments of a journal", subject=str(journal), hint="Name serve's --journal."
        )

    def records() -> Iterator[Record]:
        for segment in there:
            for item in read(segment):
                if isinstance(item, Record):
                    yield item
                elif isinstance(item, Damage):
                    damage.append(item)

    for one in calls_of(records()):
        if _arrived_ns(one) >= since:
            yield one


def _arrived_ns(call: Call) -> int:
    """Return when a call arrived, as wall time; without a header, when its segment was begun."""
    entry = call.record.entry
    assert isinstance(entry, Decision | Refused)
    arrived_ns = call.record.wall_ns(entry.arrival_ns)
    return call.record.segment.name.created_ns if arrived_ns is None else arrived_ns


def _told(damage: list[Damage], journal: Path) -> int:
    if damage:
        raise JournalDamaged(
            f"damaged stretches of bytes: {len(damage)}",
            subject=str(journal),
            hint=f"gateway journal verify {journal} says which records are missing.",
        )
    return ExitCode.OK
