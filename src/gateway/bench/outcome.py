"""What a scenario found, and what every load of it is held to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gateway.bench.count import GRACE_US, Count, median_of
from gateway.bench.product import Kind
from gateway.bench.rig import Measured, Scope


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a scenario found. `counts` are of every load; with `timed`, their lag must be small.

    `doubts` are why it may prove nothing, besides what the counts tell.
    """

    name: str
    figures: dict[str, Any]
    counts: tuple[Count, ...]
    timed: bool
    broken: tuple[str, ...]
    real_time: bool
    doubts: tuple[str, ...] = ()


def median(rounds: Sequence[Measured]) -> Count:
    """Return several rounds as one count."""
    return median_of([one.count for one in rounds])


def round_name(what: str, number: int, scope: Scope) -> str:
    """Return what a load is called while it runs."""
    return what if scope.rounds == 1 else f"{what}, round {number + 1}"


def level_of(
    count: Count,
    kind: Kind,
    most: float | None,
    *,
    ratio: float | None = None,
    what: str | None = None,
) -> dict[str, Any]:
    """Return a row of the table; `offered_ratio` is what was really sent, of capacity."""
    return {
        "level": what or (kind.name if ratio is None else f"{ratio:g} x"),
        "product": kind.name,
        "ratio": ratio,
        "offered_ratio": round(count.sent_per_s / most, 3) if most else None,
        "budget_us": kind.budget_us,
        **asdict(count),
        "stand_in_share": count.stand_in_share,
    }


def sound(count: Count, kind: Kind, where: str = "") -> list[str]:
    """Return what no load may do: be late, or fail."""
    broken = []
    place = f"{where}, {kind.name}" if where else kind.name
    if count.late:
        over_ms = (kind.budget_us + GRACE_US) / 1000
        broken.append(
            f"{count.late:,} of {count.sent:,} calls were late (over {over_ms:g} ms; {place})"
        )
    if count.failed:
        how = ", ".join(f"{times:,} {name}" for name, times in count.failures.items())
        broken.append(f"{count.failed:,} calls failed: {how} ({place})")
    return broken


def outcome_of(
    name: str,
    figures: dict[str, Any],
    rounds: Sequence[Measured],
    broken: Sequence[str],
    *,
    timed: bool = True,
    doubts: Sequence[str] = (),
) -> Outcome:
    """Return what a scenario found in these rounds."""
    return Outcome(
        name=name,
        figures=figures,
        counts=tuple(count for one in rounds for count in (one.count, *one.others)),
        timed=timed,
        broken=tuple(broken),
        real_time=all(one.load.witnessed.real_time for one in rounds),
        doubts=tuple(doubts),
    )
