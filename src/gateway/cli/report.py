"""`gateway report`."""

from __future__ import annotations

import json as json_codec
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from gateway.cli.terms import Json, notes, save
from gateway.errors import ExitCode, LakeError, ProductError, UsageError
from gateway.product import parse
from gateway.report.entries import Evaluated, read
from gateway.report.markdown import report_markdown
from gateway.report.owners import OF_LABELS, concerns, owners_of
from gateway.report.page import report_html
from gateway.report.sentence import markdown as markdown_of
from gateway.report.verdicts import headline, worst_first
from gateway.sidecar.lake import Lake
from gateway.sidecar.lake.evaluations import Evaluations, evaluation_in
from gateway.sidecar.lake.products import newest

Owner = Literal["science", "engineering", "product", "operations"]

SCHEMA = "gateway.report/1"

STDIN = "-"
MOST_BYTES = 256 * 2**20
"""No evaluation is as large; a lake's Parquet, given by mistake, may be."""


def report(
    source: Annotated[
        str,
        Parameter(
            name="EVALUATION",
            allow_leading_hyphen=True,
            show_default=False,
            help="A file of what `gateway evaluate --json` prints; `-`: from stdin.",
        ),
    ] = "",
    /,
    *,
    lake: Annotated[
        str,
        Parameter(
            show_default=False,
            help="Instead of a file, the last evaluation that was kept in this lake: by a sidecar, "
            "or by `gateway evaluate --keep`.",
        ),
    ] = "",
    markdown: Annotated[
        bool,
        Parameter(
            negative="",
            show_default=False,
            help="At most 20 lines on stdout. The default, but for --html.",
        ),
    ] = False,
    html: Annotated[
        Path | None,
        Parameter(
            name="--html",
            show_default=False,
            metavar="FILE",
            help="Write one HTML file that needs nothing else: no network, no script.",
        ),
    ] = None,
    owner: Annotated[
        Owner | None, Parameter(help="What this owner of product.yaml needs, and no more.")
    ] = None,
    product: Annotated[str | None, Parameter(help="Only this product.")] = None,
    json: Json = False,
) -> int:
    """Tell every team whether products keep their promises, what they cost, and whom they fail.

    Reads one evaluation and shows its numbers, each with its interval: the verdict first, then what
    is worst. Groups of customers are named; share it with whom that may concern.
    """
    if json and markdown:
        raise UsageError(
            "are two forms of one stdout", subject="--json and --markdown", hint="Leave one out."
        )
    evaluation, name = evaluation_of(source, lake)
    found = read(evaluation, name, product)
    if html is not None:
        save(html, report_html(found, owner, _people(lake, found.products)), "Wrote")
    if json:
        print(json_codec.dumps(_object(evaluation, found, owner), indent=2))
        return ExitCode.OK
    if markdown or html is None:
        sys.stdout.write(report_markdown(found, owner))
    notes.print(f"Next: {_next(source, lake, html)}", markup=False)
    return ExitCode.OK


def _object(evaluation: Any, found: Evaluated, owner: str | None) -> dict[str, Any]:
    """Return what is judged, the worst first, and hypotheses: the evaluation's own entries, with
    their owners."""
    lines = [line for line in found.lines if concerns(line, owner)]
    entries = [
        (line, evaluation[line.section][int(line.at.rpartition("/")[2])])
        for line in worst_first(lines)
    ]
    know = owner is None or owner in OF_LABELS
    claims = [(x.at, int(x.at.rpartition("/")[2])) for x in found.tables.hypotheses if know]
    return {
        "schema": SCHEMA,
        "as_of": evaluation["as_of"],
        "owner": owner,
        "says": markdown_of(headline(lines)),
        "judged": [{"at": line.at, "owners": owners_of(line), **entry} for line, entry in entries],
        "hypotheses": [
            {"at": at, "owners": OF_LABELS, **evaluation["hypotheses"][i]} for at, i in claims
        ],
    }


def _people(lake: str, products: Sequence[str]) -> dict[str, list[str]]:
    """Return who the products' owners are, by role, where their files are at hand: in a lake."""
    if not lake:
        return {}
    place = Lake.at(lake)
    files = newest(place.filesystem, place.root)
    found: dict[str, list[str]] = {}
    for name in products:
        if name not in files:
            continue
        try:
            owners = parse(files[name].text, files[name].path).owners
        except ProductError:
            continue  # of an older form: the evaluation stands without its names
        for role, who in owners.model_dump().items():
            if who and who not in found.setdefault(role, []):
                found[role].append(who)
    return found


def evaluation_of(source: str, lake: str) -> tuple[Any, str]:
    """Return an evaluation as it stands, and its name. Raises UsageError, LakeError."""
    if source.startswith("-") and source != STDIN:
        raise UsageError("is no option", subject=source, hint="gateway report --help")
    if bool(source) == bool(lake):
        raise UsageError(
            "are two evaluations" if lake else "names no evaluation",
            subject=f"{source} and --lake {lake}" if lake else "gateway report",
            hint="Leave one out."
            if lake
            else "gateway report --lake DIR, or a file: gateway "
            "evaluate --lake DIR --json | gateway report -.",
        )
    if lake:
        return _last(lake), lake
    name = "stdin" if source == STDIN else source
    try:
        return evaluation_in(_bytes(source), name), name
    except RecursionError:
        raise LakeError(
            "is no evaluation: its JSON is too deep",
            subject=name,
            hint="Make it again: gateway evaluate --lake DIR --json.",
        ) from None


def _last(lake: str) -> Any:
    place = Lake.at(lake)
    if not place.is_there:
        raise LakeError(
            "is no lake", subject=lake, hint="A sidecar fills one: gateway sidecar --lake DIR."
        )
    found = Evaluations(place.filesystem, place.root).last(datetime.now(UTC))
    if found is None:
        raise LakeError(
            "keeps no evaluation yet", subject=lake, hint=f"gateway evaluate --lake {lake} --keep"
        )
    return found


def _bytes(source: str) -> bytes:
    try:
        if source == STDIN:
            if sys.stdin.isatty():
                raise UsageError(
                    "is a terminal",
                    subject="stdin",
                    hint="gateway evaluate --lake DIR --json | gateway report -",
                )
            found = sys.stdin.buffer.read(MOST_BYTES + 1)
        elif Path(source).is_dir():
            raise UsageError(
                "is a directory, and no evaluation",
                subject=source,
                hint=f"If it is a lake: gateway report --lake {source}.",
            )
        else:
            with Path(source).open("rb") as file:
                found = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # a NUL in a path is a ValueError
        raise UsageError(
            f"cannot be read: {getattr(error, 'strerror', None) or 'it is no path'}",
            subject=source,
            hint="Name a file that `gateway evaluate --json` wrote.",
        ) from None
    if len(found) > MOST_BYTES:
        raise LakeError(
            "is too large for an evaluation",
            subject=source,
            hint="Make it again: gateway evaluate --lake DIR --json.",
        )
    return found


def _next(source: str, lake: str, html: Path | None) -> str:
    if html is not None:
        return f"gateway evaluate --lake {lake or 'DIR'} --all"
    if source == STDIN:
        return "gateway evaluate --lake DIR --json | gateway report - --html report.html"
    return f"gateway report {f'--lake {lake}' if lake else source} --html report.html"
