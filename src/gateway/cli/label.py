"""`gateway label`."""

from __future__ import annotations

import json as json_codec
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import grpc
from cyclopts import Parameter
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from gateway.cli.decide import target_of
from gateway.cli.terms import Json, notes, out
from gateway.errors import ExitCode, GatewayError, RefusedError, UnreachableError, UsageError
from gateway.sidecar.feedback.admit import Violation
from gateway.sidecar.feedback.file import Row, opened
from gateway.sidecar.feedback.sheet import ATTRIBUTES, LABELS, Form, Message, Reader
from gateway.v1.feedback_pb2 import ReportAttributesRequest, ReportFeedbackRequest
from gateway.v1.feedback_pb2_grpc import FeedbackServiceStub

CHUNK_ROWS = 1000
CHUNK_BYTES = 900_000
"""Of a message; the sidecar takes 1 MiB."""

ROW_BYTES_MAX = 1 << 16
"""More than any row that is taken has."""

TIMEOUT_S = 30.0
SHOWN_MAX = 20
"""Bad rows on stderr."""

LISTED_MAX = 1000
"""Bad rows in the JSON."""

BAR_AFTER_S = 1.0


def label(
    file: Annotated[
        Path, Parameter(name="FILE", help="CSV with a header, or Parquet: a row an event.")
    ],
    /,
    *,
    to: Annotated[str, Parameter(help="HOST:PORT or unix:PATH of the sidecar's --listen.")] = (
        "127.0.0.1:50052"
    ),
    product: Annotated[str, Parameter(help="The product of rows that name none.")] = "",
    source: Annotated[str, Parameter(help="Who says so, where a row does not name it.")] = "",
    attributes: Annotated[
        bool,
        Parameter(
            negative="",
            show_default=False,
            help="The file holds group attributes: subject, attribute, value, reported_time, "
            "source.",
        ),
    ] = False,
    json: Json = False,
) -> int:
    """Send a file of labels, or of group attributes, to a running sidecar, a chunk at a time.

    A bad row is said with its line, the good ones go in, and the exit code is 9. Sent again, a file
    is all duplicates.
    """
    if attributes and product:
        raise UsageError("--product is of labels", hint="Attributes are of subjects: leave it out.")
    form = ATTRIBUTES if attributes else LABELS
    given = {"source": source} if attributes else {"product": product, "source": source}
    target, told = target_of(to), Told()
    with _counting(told), ExitStack() as stack:
        sheet = stack.enter_context(opened(file))
        reader = Reader(form, sheet.columns, given, str(file))
        if reader.left_out:
            notes.print(f"Not read: {', '.join(reader.left_out)}", markup=False)
        channel = stack.enter_context(grpc.insecure_channel(target))
        send = _sender(channel, form, to)
        bar = stack.enter_context(_Bar(file.name))
        for chunk in _chunks(sheet.rows, reader):
            for number, violations in sorted(_sent(chunk, send, told)):
                _say(told, sheet.unit, number, violations)
            bar.at(chunk.done)
    if not told.rows:
        raise UsageError("has a header, but no rows", subject=str(file))
    options = ["--attributes"] if attributes else []
    options += [text for name, value in given.items() if value for text in (f"--{name}", value)]
    again = shlex.join(("gateway", "label", str(file), *options, "--to", to))
    _conclude(told, file, to, again, json=json)
    return ExitCode.REFUSED if told.refused else ExitCode.OK


@dataclass(slots=True)
class Told:
    """What became of a file's rows so far. `listed`: the first bad ones, by number."""

    accepted: int = 0
    duplicates: int = 0
    refused: int = 0
    listed: list[tuple[int, tuple[Violation, ...]]] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """How many rows that is."""
        return self.accepted + self.duplicates + self.refused


@contextmanager
def _counting(told: Told) -> Iterator[None]:
    """Let an error of a file that cannot be read on say how far it came."""
    try:
        yield
    except UsageError as error:
        there = told.accepted + told.duplicates
        if not there:
            raise
        raise UsageError(
            f"{error.what}; {there:,} rows before it are on disk there",
            subject=error.subject,
            hint=error.hint,
        ) from None


@dataclass(slots=True)
class _Chunk:
    """Messages of one request with their rows' numbers, and the bad rows between them."""

    messages: list[Message] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    bad: list[tuple[int, tuple[Violation, ...]]] = field(default_factory=list)
    size: int = 0
    done: float = 0.0


def _chunks(rows: Iterator[Row], reader: Reader) -> Iterator[_Chunk]:
    chunk = _Chunk()
    for row in rows:
        chunk.done = row.done
        if row.cells is None:
            chunk.bad.append((row.number, (Violation("", row.problem),)))
        else:
            found = reader.message(row.cells)
            if isinstance(found, tuple):
                chunk.bad.append((row.number, found))
            elif found.ByteSize() > ROW_BYTES_MAX:
                chunk.bad.append((row.number, (Violation("", "is too long"),)))
            else:
                chunk.messages.append(found)
                chunk.numbers.append(row.number)
                chunk.size += found.ByteSize() + 4
        full = len(chunk.messages) >= CHUNK_ROWS or chunk.size >= CHUNK_BYTES
        if full or len(chunk.bad) >= CHUNK_ROWS:
            yield chunk
            chunk = _Chunk()
    if chunk.numbers or chunk.bad:
        yield chunk


def _sent(
    chunk: _Chunk, send: Callable[[Sequence[Message], Told], Any], told: Told
) -> list[tuple[int, tuple[Violation, ...]]]:
    """Send what is good of a chunk, book it, and return its bad rows."""
    bad = list(chunk.bad)
    if chunk.messages:
        answer = send(chunk.messages, told)
        told.accepted += answer.accepted
        told.duplicates += answer.duplicates
        wrong: dict[int, list[Violation]] = {}
        for one in answer.violations:
            field = "amount_minor" if one.field == "amount" else one.field
            wrong.setdefault(one.index, []).append(Violation(field, one.description))
        bad += [(chunk.numbers[index], tuple(found)) for index, found in wrong.items()]
    told.refused += len(bad)
    return bad


def _say(told: Told, unit: str, number: int, violations: tuple[Violation, ...]) -> None:
    if len(told.listed) < LISTED_MAX:
        told.listed.append((number, violations))
    if len(told.listed) <= SHOWN_MAX:
        said = "; ".join(f"{name} {what}".strip() for name, what in violations)
        notes.print(f"{unit} {number}: {said}", markup=False)


def _sender(channel: grpc.Channel, form: Form, to: str) -> Callable[[Sequence[Message], Told], Any]:
    stub = FeedbackServiceStub(channel)  # type: ignore[no-untyped-call]

    def send(messages: Sequence[Any], told: Told) -> Any:
        try:
            if form is ATTRIBUTES:
                request = ReportAttributesRequest(attributes=messages)
                return stub.ReportAttributes(request, timeout=TIMEOUT_S)
            return stub.ReportFeedback(ReportFeedbackRequest(events=messages), timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            raise _failed(error, to, told) from None

    return send


def _failed(error: Any, to: str, told: Told) -> GatewayError:
    """Turn a gRPC error into ours, with how far it came."""
    code, details = error.code(), error.details() or ""
    so_far = ""
    if told.rows:
        so_far = f"; {told.accepted + told.duplicates:,} rows are on disk there"
    again = "Send the file again: what was taken is recognised."
    if code == grpc.StatusCode.UNIMPLEMENTED:
        hint = "Labels go to `gateway sidecar`, where it says --listen, and not to the gateway."
        return UnreachableError("takes no labels", subject=to, hint=hint)
    if code == grpc.StatusCode.UNAVAILABLE and not details.startswith("nothing was kept"):
        hint = again if told.rows else "Start one: gateway sidecar --journal journal"
        return UnreachableError(f"no sidecar answers{so_far}", subject=to, hint=hint)
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        what = f"no answer came within {TIMEOUT_S:g} s{so_far}"
        return UnreachableError(what, subject=to, hint=again)
    return RefusedError(f"{code.name}: {details[:500]}{so_far}", subject=to, hint=again)


class _Bar(AbstractContextManager["_Bar"]):
    """A bar on stderr for what takes longer than a second."""

    def __init__(self, name: str) -> None:
        self._since_s = time.monotonic()
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            console=notes,
            transient=True,
            disable=not notes.is_terminal,
        )
        self._name = name
        self._task: Any = None

    def __exit__(self, *_: object) -> None:
        if self._task is not None:
            self._progress.stop()

    def at(self, done: float) -> None:
        """Show that so much of the file is done, 0 to 1."""
        if self._task is None:
            if time.monotonic() - self._since_s < BAR_AFTER_S:
                return
            self._progress.start()
            self._task = self._progress.add_task(self._name, total=1.0)
        self._progress.update(self._task, completed=done)


def _conclude(told: Told, file: Path, to: str, again: str, *, json: bool) -> None:
    hidden = told.refused - SHOWN_MAX
    if hidden > 0:
        notes.print(f"… and {hidden:,} more rows are refused.", markup=False)
    if json:
        print(json_codec.dumps(_as_object(told, file)))
    else:
        parts = [f"{told.accepted:,} taken", f"{told.duplicates:,} known already"]
        parts.append(f"{told.refused:,} refused")
        out.print(f"{file}: {told.rows:,} rows, {', '.join(parts)}", markup=False, soft_wrap=True)
    if told.refused:
        hint = f"Mend them and send the file again, what was taken is recognised: {again}"
    elif "--attributes" in again:
        hint = "Next: gateway evaluate --lake LAKE compares the groups, once they are shipped."
    else:
        hint = f"Next: gateway label GROUPS.csv --attributes --to {to}"
    notes.print(hint, markup=False)


def _as_object(told: Told, file: Path) -> dict[str, Any]:
    return {
        "file": str(file),
        "rows": told.rows,
        "accepted": told.accepted,
        "duplicates": told.duplicates,
        "refused": told.refused,
        "violations": [
            {"row": number, "field": name, "description": what}
            for number, violations in told.listed
            for name, what in violations
        ],
    }
