"""A file's rows as events: which column is what, and what is wrong with a row.

Columns go by the names of the contract's fields. No text of a violation holds a cell. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any

from gateway.errors import UsageError
from gateway.pan import masked
from gateway.product.suggest import suggest
from gateway.sidecar.feedback.admit import Violation
from gateway.sidecar.feedback.label import KINDS, LIABLE
from gateway.v1.decision_pb2 import Action
from gateway.v1.feedback_pb2 import FeedbackEvent, SubjectAttribute

_EPOCH = re.compile(r"[0-9]{9,16}", re.ASCII)
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}(?:\.0+)?", re.ASCII)
_ALIKE = 0.75

Message = FeedbackEvent | SubjectAttribute


@dataclass(frozen=True, slots=True)
class Form:
    """What a kind of file holds. `columns`: every one it may have, and how its cell is read.

    `required`: of each tuple one column has to be there. `given`: what --product and --source can
    stand for. `defaults`: the column that is taken where another is missing or its cell empty.
    """

    kind: type[FeedbackEvent] | type[SubjectAttribute]
    columns: Mapping[str, Callable[[Any, str, str], None]]
    required: tuple[tuple[str, ...], ...]
    given: tuple[str, ...]
    defaults: Mapping[str, str]


class _CellError(ValueError):
    """A cell is not what its column holds."""


def _as_text(message: Any, field: str, cell: str) -> None:
    setattr(message, field, cell)


def _as_time(message: Any, field: str, cell: str) -> None:
    try:
        if _EPOCH.fullmatch(cell):
            unit = 10 ** (max(len(cell) - 10, 0) // 3 * 3)  # s, ms or µs
            getattr(message, field).FromMicroseconds(int(cell) * 1_000_000 // unit)
            return
        when = datetime.fromisoformat(cell)
        when = when if when.tzinfo else when.replace(tzinfo=UTC)
        getattr(message, field).FromDatetime(when.astimezone(UTC))
    except (ValueError, OverflowError):
        raise _CellError("is no time: write 2026-11-18T11:06:40Z, or seconds since 1970") from None


def _as_amount(message: Any, _: str, cell: str) -> None:
    if not _WHOLE.fullmatch(cell):
        raise _CellError("is no whole number of minor units: 19.99 USD is 1999")
    message.amount = int(cell.partition(".")[0])


def _named(numbers: Mapping[str, int]) -> Callable[[Any, str, str], None]:
    def read(message: Any, field: str, cell: str) -> None:
        number = numbers.get(cell.lower())
        if number is None:
            raise _CellError(f"is none that is known. {suggest(cell, numbers)}")
        setattr(message, field, number)

    return read


_KINDS = {name: number for number, name in KINDS.items()}
_LIABLE = {name: number for number, name in LIABLE.items()}
_ACTIONS = {name.lower(): number for name, number in Action.items() if number}

LABELS = Form(
    FeedbackEvent,
    {
        "product": _as_text,
        "transaction_id": _as_text,
        "decision_id": _as_text,
        "kind": _named(_KINDS),
        "occurred_time": _as_time,
        "reported_time": _as_time,
        "amount_minor": _as_amount,
        "currency": _as_text,
        "liable": _named(_LIABLE),
        "source": _as_text,
        "source_event_id": _as_text,
        "supersedes": _as_text,
        "action": _named(_ACTIONS),
        "category": _as_text,
        "subject": _as_text,
    },
    (
        *(("product",), ("transaction_id", "decision_id"), ("kind",), ("occurred_time",)),
        *(("source",), ("source_event_id",)),
    ),
    ("product", "source"),
    {"reported_time": "occurred_time"},
)

ATTRIBUTES = Form(
    SubjectAttribute,
    {
        "subject": _as_text,
        "attribute": _as_text,
        "value": _as_text,
        "reported_time": _as_time,
        "source": _as_text,
    },
    (("subject",), ("attribute",), ("value",), ("reported_time",), ("source",)),
    ("source",),
    {},
)


class Reader:
    """Makes messages of a file's rows.

    `given`: values for rows that have none, by column. `left_out`: columns that are not read.

    Raises:
        UsageError: a column is missing, or one looks misspelt.
    """

    def __init__(
        self, form: Form, columns: Sequence[str], given: Mapping[str, str], subject: str
    ) -> None:
        self._form = form
        self._given = {name: value for name, value in given.items() if value}
        named = {name.lower(): i for i, name in enumerate(columns)}
        unknown = [name for name in columns if name.lower() not in form.columns]
        _expect_spelt(unknown, [name for name in form.columns if name not in named], subject)
        for alternatives in form.required:
            if not any(name in named or name in self._given for name in alternatives):
                raise _missing(alternatives, form, unknown, subject)
        self._places = {name: named[name] for name in form.columns if name in named}
        self.left_out = tuple(map(_shown, unknown))

    def message(self, cells: Sequence[str]) -> Message | tuple[Violation, ...]:
        """Return a row as a message, or what is wrong with it as far as the file tells."""
        texts = {name: cells[place] for name, place in self._places.items()}
        for name, value in self._given.items():
            texts[name] = texts.get(name) or value
        for name, other in self._form.defaults.items():
            texts[name] = texts.get(name) or texts.get(other, "")
        message, wrong = self._form.kind(), []
        for name, text in texts.items():
            if not text:
                continue
            try:
                self._form.columns[name](message, name, text)
            except (_CellError, UnicodeError) as error:
                said = str(error) if isinstance(error, _CellError) else "is no text"
                wrong.append(Violation(name, said))
        return tuple(wrong) or message


def _shown(name: str) -> str:
    """Return a column's name as it may be printed: where a header is missing, it is data."""
    plain = "".join(one if one.isprintable() else "?" for one in name)
    return masked(plain if len(plain) <= 40 else f"{plain[:39]}…")


def _expect_spelt(unknown: Collection[str], absent: Collection[str], subject: str) -> None:
    for name in unknown:
        alike = get_close_matches(name.lower()[:100], absent, n=1, cutoff=_ALIKE)
        if alike:
            raise UsageError(
                f"has a column {_shown(name)!r}, which is none that is read",
                subject=subject,
                hint=f"Did you mean {alike[0]}? Rename it, or leave it out.",
            )


def _missing(
    alternatives: Sequence[str], form: Form, unknown: Collection[str], subject: str
) -> UsageError:
    wanted = " or ".join(alternatives)
    hint = f"Columns: {', '.join(form.columns)}."
    if alternatives[0] in form.given:
        hint = f"Give it for all rows: --{alternatives[0]} NAME. {hint}"
    if unknown and len(unknown) <= 12:
        hint += f" Not read: {', '.join(map(_shown, unknown))}."
    return UsageError(f"has no column {wanted}", subject=subject, hint=hint)
