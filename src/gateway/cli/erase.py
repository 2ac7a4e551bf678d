"""`gateway erase`: a subject's rows leave the lake."""

from __future__ import annotations

import json as json_codec
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from google.protobuf.message import DecodeError
from rich.progress import BarColumn, Progress, TextColumn

from gateway.cli.terms import Json, notes, utc_time
from gateway.errors import ExitCode, JournalDamaged, JournalError, LakeError, UsageError
from gateway.journal import Decision, Record, Segment, TornTail, load_shipped, read, segments
from gateway.serve.hall.head import DecideRequestHead
from gateway.sidecar.feedback.store import FILE as LABELS
from gateway.sidecar.feedback.store import Store
from gateway.sidecar.lake.decisions import pseudonym
from gateway.sidecar.lake.evaluations import forget_counts
from gateway.sidecar.lake.lake import Erased, Lake
from gateway.sidecar.lake.shipping import KEY, known_key
from gateway.sidecar.tail.call import Position
from gateway.sidecar.tail.checkpoint import STATE, Checkpoint


def erase(
    subject: Annotated[
        str | None,
        Parameter(
            name="SUBJECT", help="As the gateway is told it. It stands in the shell's history then."
        ),
    ] = None,
    /,
    *,
    from_: Annotated[
        str | None,
        Parameter(
            name="--from",
            allow_leading_hyphen=True,
            help="Read subjects from a file, one a line; `-` is stdin.",
        ),
    ] = None,
    journal: Annotated[
        Path,
        Parameter(help="The journal that the lake is filled from: the pseudonyms' key is there."),
    ] = Path("journal"),
    lake: Annotated[str, Parameter(help="The lake that sidecar was given.")],
    dry_run: Annotated[
        bool, Parameter(negative="", show_default=False, help="Count, and change nothing.")
    ] = False,
    json: Json = False,
) -> int:
    """Rewrite the lake without a subject, and say where the journal still has it.

    Its decisions go, its attributes, and its labels, from the sidecar's store of labels too.
    The journal is not rewritten: its segments hold each request as it came, until retention drops
    them. A sidecar may run meanwhile. What was erased is not shipped again; what was not shipped
    yet will be: then erase again.
    """
    subjects = _subjects(subject, from_)
    if not journal.is_dir():
        raise JournalError(
            "there is no such folder",
            subject=str(journal),
            hint="Name the folder that serve and sidecar were given, with --journal.",
        )
    key = known_key(journal / STATE / KEY)
    place = Lake.at(lake)
    if not place.is_there:
        hint = "Name the --lake that `gateway sidecar` fills."
        raise LakeError("there is no such folder", subject=lake, hint=hint)
    done = _done(journal)  # before: what is shipped from here on may come behind the last look
    now_ns = time.time_ns()
    theirs = [pseudonym(one, key) for one in subjects]
    labels = _erased_labels(journal, place, theirs, dry_run=dry_run)
    if not dry_run:
        forget_counts(place.filesystem, place.root)
    erased = place.erase(*theirs, now_ns=now_ns, is_trial=dry_run)
    left = _left(journal, frozenset(subjects), done)
    if json:
        told = _object(erased, left, len(subjects), dry_run=dry_run)
        print(json_codec.dumps({**told, "store": labels}))
    else:
        verb = "Would erase" if dry_run else "Erased"
        if labels:
            print(f"{verb} {_count(labels, 'row')} in {journal}'s store of labels.")
        for line in _told(erased, left, journal, lake, dry_run=dry_run):
            print(line)
    if left.damaged:
        raise JournalDamaged(
            f"damaged stretches of bytes, which nobody can search: {left.damaged}",
            subject=str(journal),
            hint=f"gateway journal verify {journal} says where.",
        )
    return ExitCode.OK


@dataclass(frozen=True, slots=True)
class Left:
    """What the journal still holds of subjects: `records` in `segments`, the oldest first.

    `unshipped`: records that the lake does not have yet. `until_ns`: no sidecar deletes the last of
    the segments before; None where none deletes any by age. `damaged`: stretches of bytes.
    """

    records: int = 0
    segments: tuple[str, ...] = ()
    unshipped: int = 0
    until_ns: int | None = None
    damaged: int = 0


def _subjects(subject: str | None, source: str | None) -> tuple[str, ...]:
    """Return whom to erase. No error says a name."""
    if (subject is None) == (source is None):
        raise UsageError(
            "one of SUBJECT and --from is needed",
            hint="gateway erase --from - reads subjects from stdin, one a line.",
        )
    if subject is not None:
        lines = [subject]
    else:
        try:
            content = sys.stdin.buffer.read() if source == "-" else Path(str(source)).read_bytes()
            lines = content.decode("utf-8").split("\n")
        except OSError as error:
            raise UsageError(
                f"cannot be read: {error.strerror}",
                subject=f"--from {source}",
                hint="Name a file with a subject a line, or - for stdin.",
            ) from None
        except UnicodeDecodeError:
            hint = "Write a subject a line."
            raise UsageError("is no UTF-8", subject=f"--from {source}", hint=hint) from None
    found = dict.fromkeys(text for line in lines if (text := line.removesuffix("\r")).strip())
    if not found:
        raise UsageError("names no subject", hint="Write a subject a line.")
    return tuple(found)


def _erased_labels(journal: Path, lake: Lake, theirs: Sequence[str], *, dry_run: bool) -> int:
    """Erase from the store of labels, where there is one; the lake knows which are theirs."""
    path = journal / STATE / LABELS
    if not path.exists():
        return 0
    payments = lake.payments_of(*theirs)
    with Store(path) as store:
        return store.erase(
            *theirs,
            payments=payments.transactions,
            decisions=payments.decisions,
            is_trial=dry_run,
        )


def _done(journal: Path) -> Position:
    """Return what the lake has; the journal's begin where nobody knows."""
    try:
        return Checkpoint(journal / STATE, "lake").load()
    except JournalDamaged:
        return Position()


def _left(journal: Path, subjects: frozenset[str], done: Position) -> Left:
    """Look for subjects in the whole journal. `done`: what is in the lake."""
    there = segments(journal)
    records = unshipped = damaged = 0
    holding: list[Segment] = []
    with Progress(
        TextColumn("{task.description}"), BarColumn(), console=notes, transient=True
    ) as progress:
        task = progress.add_task("searching the journal", total=len(there))
        for segment in there:
            found = 0
            for item in read(segment):
                if isinstance(item, Record):
                    if _is_of(item, subjects):
                        found += 1
                        unshipped += not _is_shipped(item, done)
                elif not isinstance(item, TornTail):
                    damaged += 1
            records += found
            if found:
                holding.append(segment)
            progress.advance(task)
    names = tuple(segment.path.name for segment in holding)
    return Left(records, names, unshipped, _until_ns(journal, holding), damaged)


def _is_of(record: Record, subjects: frozenset[str]) -> bool:
    if not isinstance(record.entry, Decision):
        return False  # what was refused is kept without its bytes
    try:
        return DecideRequestHead.FromString(record.entry.request).subject in subjects
    except DecodeError:
        return False


def _is_shipped(record: Record, done: Position) -> bool:
    mark = done.marks.get(record.segment.boot)
    if mark is None:
        return False
    return record.sequence <= mark.sequence


def _until_ns(journal: Path, holding: list[Segment]) -> int | None:
    """Return when the last of some segments may be deleted by age, as wall time."""
    shipped = load_shipped(journal)
    if shipped.keep_s is None or not holding:
        return None
    written_ns = []
    for segment in holding:
        try:
            written_ns.append(segment.path.stat().st_mtime_ns)
        except OSError:
            continue  # deleted just now
    return max(written_ns) + int(shipped.keep_s * 1e9) if written_ns else None


def _object(erased: Erased, left: Left, subjects: int, *, dry_run: bool) -> dict[str, object]:
    return {
        "dry_run": dry_run,
        "subjects": subjects,
        "rows": erased.rows,
        "files": erased.files,
        "journal": {
            "records": left.records,
            "segments": list(left.segments),
            "unshipped": left.unshipped,
            "until": utc_time(left.until_ns) or None,
        },
    }


def _told(erased: Erased, left: Left, journal: Path, lake: str, *, dry_run: bool) -> Iterator[str]:
    verb = "Would erase" if dry_run else "Erased"
    yield f"{verb} {_count(erased.rows, 'row')} in {_count(erased.files, 'file')} of {lake}."
    if not left.records:
        yield f"{journal} holds no request of theirs."
        return
    yield (
        f"{journal} still holds {_count(left.records, 'request')} of theirs as they came, in "
        f"{_count(len(left.segments), 'segment')}:"
    )
    yield from (f"  {name}" for name in left.segments)
    if left.until_ns is None:
        yield "No sidecar deletes segments by age here: --journal-max-bytes drops them, or you do."
    else:
        until = utc_time(left.until_ns - left.until_ns % 10**9).removesuffix(".000000+00:00")
        yield f"The sidecar deletes the last of them not before {until} UTC."
    if left.unshipped:
        yield (
            f"{_count(left.unshipped, 'request')} of them {'is' if left.unshipped == 1 else 'are'} "
            "not in the lake yet. Next: let the sidecar catch up, and erase again."
        )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
