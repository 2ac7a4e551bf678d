"""`gateway decisions`: which decisions are behind a figure, and what came of one."""

from __future__ import annotations

import json as json_codec
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

from cyclopts import Parameter

from gateway.cli.evaluate import time_of
from gateway.cli.report import evaluation_of
from gateway.cli.terms import AtLeastOne, Json, money, notes, out, to_width
from gateway.errors import ExitCode, UsageError
from gateway.report.reasons import came, headline, kinds, label, since, where, who, why
from gateway.report.sentence import plain
from gateway.sidecar.lake.evaluations import as_of_of


def decisions(
    decision: Annotated[
        str | None,
        Parameter(
            name="DECISION_ID", help="One decision: why this action, and what labels said since."
        ),
    ] = None,
    /,
    *,
    lake: Annotated[str, Parameter(help="The lake that a sidecar fills: a directory, or a URI.")],
    at: Annotated[
        str,
        Parameter(
            show_default=False,
            help="The figure, by its place in an evaluation: /goals/3. Reports say it of each.",
        ),
    ] = "",
    evaluation: Annotated[
        str,
        Parameter(
            show_default=False,
            allow_leading_hyphen=True,
            metavar="FILE",
            help="With --at: a file of what `gateway evaluate --json` prints; `-`: from stdin. "
            "Without it the last one that the lake keeps.",
        ),
    ] = "",
    product: Annotated[
        str, Parameter(show_default=False, help="Instead of --at: the figure's product.")
    ] = "",
    metric: Annotated[
        str,
        Parameter(
            show_default=False, help="Its metric, such as fraud_loss, or the id of a promise."
        ),
    ] = "",
    basis: Annotated[
        str, Parameter(show_default=False, help="What it rests on, such as explored.")
    ] = "",
    from_: Annotated[
        str, Parameter(name="--from", show_default=False, help="Its first day: 2026-11-01.")
    ] = "",
    to: Annotated[str, Parameter(show_default=False, help="Its last day.")] = "",
    by: Annotated[
        tuple[str, ...],
        Parameter(
            negative="",
            show_default=False,
            metavar="KEY=VALUE",
            help="Its part, as the evaluation has it: category=grocery, age_band=70+. Repeatable.",
        ),
    ] = (),
    as_of: Annotated[
        str,
        Parameter(
            show_default=False,
            help="As known at that time. With --at, when the evaluation was made; else now.",
        ),
    ] = "",
    limit: Annotated[int, Parameter(validator=AtLeastOne, help="At most so many rows.")] = 100,
    json: Json = False,
) -> int:
    """List the decisions behind a figure, those that count against it first; or tell of one.

    They are counted from the lake's files as the figure was. What an estimate rests on is said,
    where no decision is the figure itself. No subject, group or feature value is shown.
    """
    given = {"--product": product, "--metric": metric, "--from": from_, "--to": to}
    if decision is not None:
        if at or any(given.values()):
            raise UsageError(
                "an ID and a figure do not go together", hint="Leave one of the two out."
            )
        return _one(lake, decision.strip().lower(), json=json)
    # Loaded when asked for: --help does without DuckDB.
    from gateway.cli.behind import asked_at, asked_of, behind_of
    from gateway.sidecar.lake import Lake

    when = time_of(as_of)
    if at:
        if any(given.values()) or by:
            raise UsageError(
                "is a figure, and so are --product, --metric, --from, --to and --by",
                subject=f"--at {at}",
                hint="Leave one of the two out.",
            )
        found, _ = evaluation_of(evaluation, "" if evaluation else lake)
        asked, when = asked_at(found, at), when or as_of_of(found)
    else:
        missing = [name for name, value in given.items() if not value]
        if missing:
            raise UsageError(
                f"names no figure: {', '.join(missing)} missing",
                subject="gateway decisions",
                hint="gateway decisions --lake DIR --at /goals/0, or all of --product, --metric, "
                "--from, --to.",
            )
        figure = {"product": product, "metric": metric, "basis": basis, "from": from_, "to": to}
        asked = asked_of({**figure, "by": dict(_pair(one) for one in by)})
    told = behind_of(Lake.at(lake), asked, when, most=limit)
    if json:
        print(json_codec.dumps(told, indent=2))
        return ExitCode.OK
    for line in _listed(told):
        print(line)
    first = told["decisions"][0]["id"] if told["decisions"] else "DECISION_ID"
    notes.print(f"Next: gateway decisions {first} --lake {lake}", markup=False)
    return ExitCode.OK


def _pair(text: str) -> tuple[str, str]:
    key, is_pair, value = text.partition("=")
    if not is_pair or not key:
        raise UsageError("is no KEY=VALUE", subject=f"--by {text}", hint="Such as --by arm=v2.")
    return key, value


def _listed(told: Mapping[str, Any]) -> Iterator[str]:
    days = f"{told['from']} to {told['to']}"
    part = ", ".join(f"{key} {value}" for key, value in told["by"].items())
    yield f"{told['product']}, {told['metric']}{f', {part}' if part else ''}, {days}"
    yield f"{told['count']:,} payments count for it."
    for one in kinds(told):
        yield f"  {plain(one)}"
    if told["says"]:
        yield told["says"]
    if not told["decisions"]:
        return
    yield ""
    yield to_width(_row("time (UTC)", "id", "answer", "P(fraud)", "why", "since"))
    currency, unit = told["currency"], told["minor_per_major"]
    for row in told["decisions"]:
        p = row["probability"]
        yield to_width(
            _row(
                row["time"][:19].replace("T", " "),
                row["id"],
                (row["action"] or "?").replace("_", " "),
                "" if p is None else f"{p:.3%}",
                told["kinds"][row["kind"]]["what"].partition(",")[0].partition(":")[0],
                plain(came(row, currency, unit)),
            )
        )


def _row(time: str, name: str, action: str, p: str, what: str, since: str) -> str:
    return f"{time:19}  {name:32}  {action:8} {p:>9}  {what[:44]:44}  {since}".rstrip()


def _one(lake: str, text: str, *, json: bool) -> int:
    from gateway.cli.hindsight import decision_of
    from gateway.sidecar.lake import Lake

    told = decision_of(Lake.at(lake), None, text, datetime.now(UTC))
    if json:
        print(json_codec.dumps(told, indent=2))
        return ExitCode.OK
    for line in _in_words(told):
        out.print(line, markup=False, soft_wrap=True)
    notes.print(f"Next: gateway trace {text} --lake {lake}", markup=False)
    return ExitCode.OK


def _in_words(told: Mapping[str, Any]) -> Iterator[str]:
    yield f"{plain(headline(told)).upper()}  {told['id']}"
    yield f"  {plain(where(told))}"
    for sentence in why(told):
        yield f"  {plain(sentence)}"
    if told["kind"] == "decision":
        costs = told["why"]["expected_costs_minor"]
        for name, minor in sorted(costs.items(), key=lambda one: float(one[1])):
            cost = money(minor, told["why"]["currency"], told["why"]["minor_per_major"])
            chosen = " ◀" if name == told["action"].lower() else ""
            yield f"    {name.replace('_', ' '):<8} is expected to cost {cost:>16}{chosen}"
        yield "What came of it"
        for sentence in since(told):
            yield f"  {plain(sentence)}"
        for one in (told["since"] or {}).get("labels", ()):
            yield f"    {plain(label(one))}"
        for one in told["shadow"]:
            p = "" if one["probability"] is None else f" {one['probability']:.3%},"
            yield f"  shadow {one['arm']}: P(fraud){p} {one['action'].lower().replace('_', ' ')}"
    for name, value in who(told):
        yield f"  {name}: {plain(value)}"
