"""`gateway explain`: from a decision's id to its record, and to why it was made."""

from __future__ import annotations

import json as json_codec
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from google.protobuf.message import DecodeError

from gateway.cli.calls import find_record
from gateway.cli.decide import as_json, in_words
from gateway.cli.terms import Json
from gateway.cli.told import Case, Folders, Source, as_object, kept_source, source_of, told_of
from gateway.cli.told_in_words import say
from gateway.errors import ExitCode, JournalDamaged, UsageError
from gateway.journal import (
    Decision,
    Flag,
    Place,
    parse_decision_id,
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
    record = find_record(directory, place)
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
