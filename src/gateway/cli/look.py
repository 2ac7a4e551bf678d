"""Looks something up for the sidecar's page, in a process of its own: python -m gateway.cli.look.

A line of JSON on stdin says what, a line on stdout what there is, or why not. What is asked for may
name a group of customers, and does not stand among this process's arguments.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gateway.cli.attached import end_with_starter, step_back
from gateway.errors import GatewayError
from gateway.sidecar.traces.verdict import Kinds

KINDS: Mapping[str, Kinds] = {
    "slow": Kinds(slow=True),
    "stood-in": Kinds(stood_in=True),
    "errors": Kinds(errors=True),
    "all": Kinds(),
}


def answer(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was asked for. Raises GatewayError."""
    lake, journal = asked["lake"], Path(asked["journal"])
    match asked["what"]:
        case "decision":
            return _decision(lake, journal, asked["id"])
        case "decisions":
            return _decisions(lake, asked["figure"], asked["as_of"])
        case "traces":
            return _traces(lake, journal, asked)
    raise AssertionError(asked["what"])


def _decision(lake: str | None, journal: Path, text: str) -> dict[str, Any]:
    from gateway.cli.hindsight import decision_of
    from gateway.sidecar.lake import Lake

    return decision_of(Lake.at(lake) if lake else None, journal, text, datetime.now(UTC))


def _decisions(lake: str, figure: Mapping[str, Any], as_of: str | None) -> dict[str, Any]:
    from gateway.cli.behind import asked_of, behind_of
    from gateway.sidecar.lake import Lake

    when = None if as_of is None else datetime.fromisoformat(as_of)
    return behind_of(Lake.at(lake), asked_of(figure), when, threads=1)


def _traces(lake: str | None, journal: Path, asked: Mapping[str, Any]) -> dict[str, Any]:
    from dataclasses import replace

    from gateway.cli.sources import Sources
    from gateway.cli.trace import since_ns
    from gateway.cli.waterfall import as_object
    from gateway.sidecar.lake import Lake

    kinds = replace(KINDS[asked["kind"]], product=asked["product"])
    # A lake that holds no call yet may stand beside a journal, and a folder that is not there not.
    there = lake if lake and Lake.at(lake).is_there else None
    found, count, damage = Sources(journal, there).recent(
        kinds, since_ns(asked["last"]), asked["limit"]
    )
    if not kinds.slow:
        found = found[::-1]  # the latest first
    return {
        "count": count,
        "damaged": len(damage),
        "calls": [as_object(one, ()) for one in found],
    }


def main() -> None:
    """Answer the one question on stdin, and end with who asked it."""
    step_back()
    asked = json.loads(sys.stdin.buffer.readline())
    end_with_starter()
    try:
        said = {"answer": answer(asked)}
    except GatewayError as error:
        kind = type(error).__name__
        said = {"error": {"kind": kind, "what": str(error), "hint": error.hint}}
    sys.stdout.write(json.dumps(said))


if __name__ == "__main__":
    main()
