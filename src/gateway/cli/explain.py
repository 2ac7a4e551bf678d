"""`gateway explain`: from a decision's id to its record, and to why it was made."""

from __future__ import annotations

import json as json_codec
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from google.protobuf.message import DecodeError

from gateway.cli.decide import as_json, in_words
from gateway.cli.terms import Json
from gateway.cli.told import Case, Folders, Source, as_object, kept_source, source_of, told_of
from gateway.cli.told_in_words import say
from gateway.errors import ExitCode, JournalDamaged, JournalError, UsageError
from gateway.journal import (
    Damage,
    Decision,
    Flag,
    Gap,
    Place,
    Record,
    Segment,
    parse_decision_id,
    read,
    segments,
)
from gateway.product import Action, StandIn
from gateway.v1.decision_pb2 import DecideRequest, DecideResponse


def explain(
    decision: Annotated[
        str, Parameter(name="DECISION_ID", help="As the answer or `gateway journal cat` has it.")
    ],
    /,
    *,
    journal: Annotated[Path, Parameter(help="The folder that serve was given as --journal.")] = (
        Path("journal")
    ),
    product: Folders = (),
    json: Json = False,
) -> int:
    """Say why a recorded decision was made, and what would have changed it.

    The journal has the request, the score and the answer, and beside it the generation that
    decided; or --product names a folder with the costs and the model. A warning says so where
    that is not the generation that decided.
    """
    try:
        place = parse_decision_id(decision.strip().lower())
    except ValueError as error:
        raise UsageError(str(error), hint=f"gateway journal cat {journal} prints them.") from None
    case = _recorded(journal, place)
    source = None if product else kept_source(journal, case)
    show(case, source or source_of(case.request.product, product, case.response), json=json)
    return ExitCode.OK


def show(case: Case, source: Source, *, json: bool) -> None:
    """Print an answer and its explanation."""
    told = told_of(case, source)
    if json:
        both = {"response": as_json(case.response), "explanation": as_object(told)}
        print(json_codec.dumps(both, indent=2))
    else:
        in_words(case.request, case.response)
        say(told)


def _recorded(directory: Path, place: Place) -> Case:
    """Find a decision's record.

    Raises:
        JournalError: it is not there, or the journal cannot be read.
        UsageError: the id is that of another kind of entry.
    """
    record = _find(directory, place)
    entry = record.entry
    if not isinstance(entry, Decision):
        kind = type(entry).__name__.lower()
        raise UsageError(
            "is the place of no decision" if kind != "refused" else "was refused, not decided",
            subject=f"sequence {record.sequence} in {directory}",
            hint=f"gateway journal cat {directory} says what stands there.",
        )
    try:
        request = DecideRequest.FromString(entry.request)
        response = DecideResponse.FromString(entry.response)
        Action(response.action), StandIn(response.stand_in)
    except (DecodeError, ValueError):
        raise JournalDamaged(
            "its request or response is no message that this gateway knows",
            subject=f"the record at {record.offset} of {record.segment.path.name}",
            hint="A newer gateway may have written it; explain it with that one.",
        ) from None
    decided = record.generation(entry.product)
    return Case(
        request=request,
        response=response,
        score=entry.score,
        features_left_out=Flag.FEATURES_LEFT_OUT in entry.flags,
        expired=Flag.EXPIRED in entry.flags,
        digest=decided.digest if decided else "",
    )


def _find(directory: Path, place: Place) -> Record:
    """Return a record."""
    if not directory.is_dir():
        raise JournalError(
            "there is no such folder",
            subject=str(directory),
            hint="Name the folder that serve was given, with --journal.",
        )
    there = segments(directory)
    own = [one for one in there if (one.name.boot_id[:8], one.name.worker) == place[:2]]
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
    what = "holds no such decision" if known else "holds nothing of the worker that gave this id"
    hint = f"gateway journal cat {directory} prints the ids that are there."
    return JournalError(what, subject=subject, hint=hint)
