"""`gateway trace`: a call's stages as a waterfall, from the journal or the lake."""

from __future__ import annotations

import json as json_codec
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from gateway.cli.sources import Sources
from gateway.cli.terms import AtLeastOne, Json, notes, out, span_ns, to_width
from gateway.cli.waterfall import HEADING, as_line, as_object, waterfall
from gateway.errors import ExitCode, JournalDamaged, JournalError, LakeError, UsageError
from gateway.journal import Damage, Decision, parse_decision_id
from gateway.sidecar.traces.verdict import Kinds

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
    journal: Annotated[
        Path | None,
        Parameter(
            help="The folder that serve was given as --journal; `journal` where neither is named."
        ),
    ] = None,
    lake: Annotated[
        str | None,
        Parameter(
            help="The lake that sidecar was given: for calls that are in the journal no more. "
            "Where both are named, the journal is read first."
        ),
    ] = None,
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
    product: Annotated[str, Parameter(show_default=False, help="List those of one product.")] = "",
    limit: Annotated[int, Parameter(validator=AtLeastOne, help="At most so many rows.")] = 50,
    json: Json = False,
) -> int:
    """Draw where a call's time went, or list calls worth drawing.

    Stages stand against the budget, each with the slack that was left at its end; below them what
    shadow models made of the call, and what its worker did nearby: pauses, and calls it shed. The
    lake knows no pauses.
    """
    if lake is None and journal is None:
        journal = Path("journal")
    sources = Sources(journal, lake)
    if call is not None:
        if slow or stood_in or errors or product:
            raise UsageError(
                "an ID and --slow, --stood-in, --errors or --product do not go together",
                hint="Leave out the ID to list calls.",
            )
        text = call.strip().lower()
        if _TRACE_ID.fullmatch(text):
            return _draw_trace(sources, text, since_ns(last), limit, json=json)
        return _draw(sources, text, json=json)
    kinds = Kinds(slow=slow, stood_in=stood_in, errors=errors, product=product)
    return _list(sources, kinds, since_ns(last), limit, json=json)


def since_ns(last: str) -> int:
    """Return when a span of time that ends now began, as wall time.

    Raises:
        UsageError: it is none.
    """
    return time.time_ns() - span_ns(last)


def _draw(sources: Sources, text: str, *, json: bool) -> int:
    try:
        place = parse_decision_id(text)
    except ValueError as error:
        raise UsageError(str(error), hint=f"gateway trace {sources} lists ids.") from None
    found, around, is_journal = sources.call_at(place)
    if json:
        print(json_codec.dumps(as_object(found, around), indent=2))
        return ExitCode.OK
    for line in waterfall(found, around, out.width):
        print(line)
    if is_journal and isinstance(found.record.entry, Decision):
        notes.print(f"Next: gateway explain {text} --journal {sources.journal}", markup=False)
    return ExitCode.OK


def _draw_trace(sources: Sources, trace_id: str, since: int, limit: int, *, json: bool) -> int:
    """Draw every call of a caller's trace: its retries too."""
    found, _, damage = sources.recent(Kinds(trace_id=trace_id), since, limit)
    if not found:
        kind = LakeError if sources.journal is None else JournalError
        raise kind(
            f"no call of trace {trace_id} is in what --last covers",
            subject=str(sources.subject),
            hint="Reach further back with --last 7d"
            + (", or name a --lake." if sources.lake is None else "."),
        )
    for one in found:
        if json:
            print(json_codec.dumps(as_object(one, ())))
        else:
            for line in (*waterfall(one, (), out.width), ""):
                print(line)
    return _told(damage, sources.journal)


def _list(sources: Sources, kinds: Kinds, since: int, limit: int, *, json: bool) -> int:
    rows, count, damage = sources.recent(kinds, since, limit)
    if not json:
        print(to_width(HEADING))
    for one in rows:
        print(json_codec.dumps(as_object(one, ())) if json else to_width(as_line(one)))
    if count > limit:
        notes.print(f"{limit} of {count:,} calls; --limit shows more.", markup=False)
    elif not json:
        notes.print(f"{count:,} calls. Next: gateway trace ID {sources}", markup=False)
    return _told(damage, sources.journal)


def _told(damage: Sequence[Damage], journal: Path | None) -> int:
    if damage:
        raise JournalDamaged(
            f"damaged stretches of bytes: {len(damage)}",
            subject=str(journal),
            hint=f"gateway journal verify {journal} says which records are missing.",
        )
    return ExitCode.OK
