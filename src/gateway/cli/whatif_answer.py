"""What a replay found: as JSON, as tables in a terminal, and as Markdown for a pull request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite
from typing import Any

from rich.markup import escape
from rich.table import Table

from gateway.cli.recorded import Seen
from gateway.cli.terms import microseconds, money, out
from gateway.evaluate.bootstrap import Interval
from gateway.evaluate.replay import Large
from gateway.evaluate.whatif import Comparison, Flip, Group, Money, Realised
from gateway.model import Generation
from gateway.product import Action, minor_per_major

VERSION = 1
"""Of the JSON: it rises when a key goes or changes its meaning."""

_GROUPS_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Replay:
    """A journal under two generations.

    `left_out`: why and how many decisions could not be replayed. `reused` scores are the
    records', `rescored` were made anew. `row_us`: p50 and p99 of OLD's and NEW's model for a row,
    measured here, where the models differ. `elapsed_us`, `infer_us`: of the records.
    """

    old: Generation
    new: Generation
    comparison: Comparison
    seen: Seen
    left_out: Counter[str]
    reused: int
    rescored: int
    row_us: tuple[Mapping[str, float], ...] | None
    elapsed_us: Mapping[str, float]
    infer_us: Mapping[str, float]
    band_names: tuple[str, ...]

    @property
    def currency(self) -> str:
        """Of all its money."""
        return self.new.product.costs.currency

    def money(self, minor: float, *, sign: bool = False) -> str:
        """Say an amount of minor units."""
        said = money(abs(minor) if sign else minor, self.currency, minor_per_major(self.currency))
        return f"{'+' if minor > 0 else '-' if minor < 0 else ''}{said}" if sign else said

    @property
    def believes_otherwise(self) -> bool:
        """Whether the two sides see other probabilities: expected costs cannot say who is right."""
        return _beliefs(self.old) != _beliefs(self.new)


def as_object(replay: Replay, folders: tuple[str, str]) -> dict[str, Any]:
    """Return it as JSON values. Money is in minor units, times are in µs."""
    found, seen = replay.comparison, replay.seen
    return {
        "version": VERSION,
        "verdict": verdict(replay),
        "product": replay.new.name,
        "currency": replay.currency,
        "minor_per_major": minor_per_major(replay.currency),
        "old": _side(replay.old, folders[0]),
        "new": _side(replay.new, folders[1]),
        "changed": list(changed(replay.old, replay.new)),
        "records": {
            "decisions": found.decisions,
            "read": seen.decisions,
            "retries": found.retries,
            "left_out": dict((replay.left_out + seen.left_out).items()),
            "damaged_bytes": seen.damaged_bytes,
            "torn_bytes": seen.torn_bytes,
            "from": _time(found.from_s),
            "to": _time(found.to_s),
            "generations": {str(one): count for one, count in sorted(seen.generations.items())},
            "workers": sorted(seen.workers),
            "subjects": found.subjects,
            "not_what_old_gives": found.not_reproduced,
            "scores_reused": replay.reused,
            "scored_anew": replay.rescored,
        },
        "flips": {
            "decisions": found.flipped,
            "share": found.flipped / found.decisions,
            "by_action": [_flip(flip) for flip in found.flips],
            **{
                f"by_{name}" if name in _FIXED else f"by_feature:{name}": [
                    _group(group) for group in groups
                ]
                for name, groups in found.groups.items()
            },
        },
        "actions": {
            "old": {action.spelling: count for action, count in found.old_actions.items()},
            "new": {action.spelling: count for action, count in found.new_actions.items()},
        },
        "approval_rate": _rates(found, Action.APPROVE),
        "decline_rate": _rates(found, Action.DECLINE),
        "near_ties": {
            "old": found.old_near_ties,
            "new": found.new_near_ties,
            "among_flips": found.near_tie_flips,
        },
        "expected_cost": {
            "by_new": _money(found.by_new),
            "by_old": _money(found.by_old),
            "probabilities_differ": replay.believes_otherwise,
        },
        "realised_cost": None if found.realised is None else _realised(found.realised),
        "stand_ins": {
            "recorded": {reason.name.lower(): n for reason, n in found.stand_ins.items()},
            "flips": found.stand_in_flips,
            "more_by_model_error": found.new_model_errors,
            "more_by_deadline": found.late_under_new,
            "not_modelled": ["queueing", "overload", "stand-ins that would have been decisions"],
        },
        "latency_us": {
            "row": None
            if replay.row_us is None
            else {"old": dict(replay.row_us[0]), "new": dict(replay.row_us[1])},
            "recorded": {
                "elapsed": dict(replay.elapsed_us),
                "infer": dict(replay.infer_us),
            },
            "budget": {
                "old": replay.old.product.latency.budget_us,
                "new": replay.new.product.latency.budget_us,
            },
        },
        "largest": [_large(one) for one in found.largest],
    }


def verdict(replay: Replay) -> str:
    """Say in a sentence or two what would change."""
    found = replay.comparison
    if not found.flipped:
        return f"No decision flips: {found.decisions:,} decisions are the same under both."
    said = (
        f"{found.flipped:,} of {found.decisions:,} decisions flip "
        f"({found.flipped / found.decisions:.2%}). {_cost_said(replay)}"
    )
    if found.realised is not None and found.realised.differing:
        said += f" {_realised_said(replay, found.realised)}"
    return said


def _cost_said(replay: Replay) -> str:
    by_new, by_old = replay.comparison.by_new, replay.comparison.by_old
    said = (
        f"By NEW's figures {_change_said(replay, by_new)}; by OLD's {_change_said(replay, by_old)}."
    )
    if replay.believes_otherwise:
        said += " They see other probabilities: labels tell which are right."
    return said


def _change_said(replay: Replay, of: Money) -> str:
    change = of.per_1000
    if not isfinite(change.value):
        return "nothing can be priced"
    if change.value == 0.0:
        return "the cost is the same"
    word = "more" if change.value > 0 else "less"
    unsure = "" if change.excludes_nought else ", which may be chance"
    return (
        f"1,000 decisions cost {replay.money(abs(change.value))} {word}"
        f" ({_bounds(replay, change)}{unsure})"
    )


def _bounds(replay: Replay, of: Interval) -> str:
    return f"95 %: {replay.money(of.low, sign=True)} to {replay.money(of.high, sign=True)}"


def _realised_said(replay: Replay, of: Realised) -> str:
    if not of.has_support:
        return (
            f"Labels give no verdict: {of.support:.0f} effective labels among the decisions that "
            "differ."
        )
    return f"By labels of what was let through, {_change_said(replay, of.by_new)}."


def as_markdown(replay: Replay, folders: tuple[str, str]) -> str:
    """Return at most 20 rows of table, the verdict before them."""
    found, seen = replay.comparison, replay.seen
    rows = [(_cell(name), _cell(text)) for name, text in _facts(replay, folders)]
    for flip in sorted(found.flips, key=lambda one: -one.decisions)[: 19 - len(rows)]:
        change = replay.money(flip.change_by_new_minor, sign=True)
        rows.append((f"flip: {_arrow(flip)}", f"{flip.decisions:,} · {change} by NEW's figures"))
    spare = _spare_rows(replay)
    while len(rows) < 19 and (row := next(spare, None)):
        rows.append(row)
    lines = [
        f"**What-if, {replay.new.name}:** {verdict(replay)}",
        "",
        "| | OLD → NEW |",
        "| --- | --- |",
        *(f"| {name} | {text} |" for name, text in rows),
    ]
    if found.not_reproduced:
        lines += [
            "",
            f"{found.not_reproduced:,} of {seen.decisions:,} recorded actions are not what OLD "
            "gives: other generations decided them.",
        ]
    return "\n".join(lines) + "\n"


def _facts(replay: Replay, folders: tuple[str, str]) -> Iterator[tuple[str, str]]:
    """Yield what a reviewer looks at first, each as a name and a text."""
    found = replay.comparison
    yield (
        "generation",
        f"{replay.old.product.generation} ({replay.old.digest[:12]}) → "
        f"{replay.new.product.generation} ({replay.new.digest[:12]})",
    )
    keys = changed(replay.old, replay.new)
    more = f" and {len(keys) - 4} more" if len(keys) > 4 else ""
    yield "changed", (", ".join(keys[:4]) or "nothing") + more
    yield (
        "records",
        f"{found.decisions:,} decisions of {found.subjects:,} subjects, "
        f"{_time(found.from_s)[:16]} to {_time(found.to_s)[:16]} UTC{_left_out(replay)}",
    )
    for name, action in (("approval rate", Action.APPROVE), ("decline rate", Action.DECLINE)):
        old, new = found.share(found.old_actions, action), found.share(found.new_actions, action)
        yield name, f"{old:.2%} → {new:.2%}"
    yield from _costs(replay)
    yield "near ties", f"{found.old_near_ties:,} → {found.new_near_ties:,}"
    yield "stand-ins", _stand_ins_said(replay)
    yield "latency", _latency_said(replay)
    del folders


def _costs(replay: Replay) -> Iterator[tuple[str, str]]:
    found = replay.comparison
    costs = [("NEW's", found.by_new, "cost"), ("OLD's", found.by_old, "cost")]
    if found.realised is not None:
        costs.append(("NEW's", found.realised.by_new, "realised cost"))
        costs.append(("OLD's", found.realised.by_old, "realised cost"))
    for whose, of, what in costs:
        name = f"{what} of 1,000, by {whose} figures"
        if not of.decisions:
            yield name, "nothing can be priced"
            continue
        change = of.per_1000
        yield (
            name,
            f"{replay.money(of.old_per_1000_minor)} → {replay.money(of.new_per_1000_minor)}; "
            f"{replay.money(change.value, sign=True)} ({_bounds(replay, change)})"
            f"{_priced(of, found)}",
        )
    if found.realised is not None:
        of_labels = found.realised
        yield (
            "labels",
            f"{of_labels.seen:,} payments that were let through ({of_labels.explored:,} by "
            f"exploration), {of_labels.frauds:,} frauds; {of_labels.differing:,} of them differ, "
            f"{of_labels.support:.0f} effective. {of_labels.hidden:,} that differ were not "
            "let through: their labels are hidden",
        )


def _priced(of: Money, found: Comparison) -> str:
    """Say how many decisions have a cost, where not all have: a stand-in has no probability."""
    return "" if of.decisions == found.decisions else f", of {of.decisions:,} that have a cost"


def _spare_rows(replay: Replay) -> Iterator[tuple[str, str]]:
    """Yield rows that are told where there is room: the segments that change the most."""
    found = replay.comparison
    groups = [
        (name, group) for name, members in found.groups.items() for group in members if group.flips
    ]
    for name, group in sorted(groups, key=lambda one: -one[1].flips):
        yield (
            _cell(f"{name}: {group.name or 'none'}"),
            f"{group.flips:,} of {group.decisions:,} flip ({group.flips / group.decisions:.1%}): "
            f"{group.milder:,} milder, {group.severer:,} severer",
        )


def _stand_ins_said(replay: Replay) -> str:
    found = replay.comparison
    recorded = sum(found.stand_ins.values())
    more = found.late_under_new + found.new_model_errors
    return (
        f"{recorded:,} recorded, {found.stand_in_flips:,} of them answer otherwise; "
        f"{more:,} decisions more would have been stood in for (queues not modelled)"
    )


def _latency_said(replay: Replay) -> str:
    if replay.row_us is None:
        elapsed = replay.elapsed_us
        if not elapsed:
            return "the model is the same; no decision was recorded"
        return (
            f"the model is the same; recorded p50 {microseconds(elapsed['p50'])}, "
            f"p99 {microseconds(elapsed['p99'])}"
        )
    old, new = replay.row_us
    return (
        f"a row, measured here: p50 {microseconds(old['p50'])} → {microseconds(new['p50'])}, "
        f"p99 {microseconds(old['p99'])} → {microseconds(new['p99'])}"
    )


def _left_out(replay: Replay) -> str:
    found = replay.comparison
    parts = [f"{found.retries:,} retries"] if found.retries else []
    missing = replay.left_out + replay.seen.left_out
    parts += [f"{count:,} left out: {why}" for why, count in missing.items() if count]
    if replay.seen.damaged_bytes:
        parts.append(f"{replay.seen.damaged_bytes:,} bytes damaged")
    return f" ({'; '.join(parts)})" if parts else ""


def show(replay: Replay, folders: tuple[str, str]) -> None:
    """Print it for a terminal."""
    found = replay.comparison
    out.print(
        f"[bold]{escape(replay.new.name)}[/bold]: {escape(folders[0])} → {escape(folders[1])}"
    )
    out.print(f"  {escape(verdict(replay))}", soft_wrap=True)
    out.print()
    facts = _table("", "OLD → NEW")
    for name, text in _facts(replay, folders):
        facts.add_row(escape(name), escape(text))
    out.print(facts)
    if found.not_reproduced:
        out.print(
            f"[yellow]Warning[/yellow]: {found.not_reproduced:,} recorded actions are not what OLD "
            "gives: another generation, or a canary, decided them.",
            soft_wrap=True,
        )
    if not found.flipped:
        return
    out.print()
    flips = _table("flip", "decisions", "change by NEW's", "by OLD's")
    for flip in sorted(found.flips, key=lambda one: -one.decisions):
        flips.add_row(
            _arrow(flip),
            f"{flip.decisions:,}",
            replay.money(flip.change_by_new_minor, sign=True),
            replay.money(flip.change_by_old_minor, sign=True),
        )
    out.print(flips)
    for name, groups in found.groups.items():
        _show_groups(replay, name, [group for group in groups if group.flips])
    _show_largest(replay)


def _show_groups(replay: Replay, name: str, groups: list[Group]) -> None:
    if not groups:
        return
    out.print()
    table = _table(name, "decisions", "flips", "milder", "severer", "change by NEW's", "by OLD's")
    shown = groups if name == "amount" else sorted(groups, key=lambda one: -one.flips)
    for group in shown[:_GROUPS_SHOWN]:
        table.add_row(
            escape(group.name or "none"),
            f"{group.decisions:,}",
            f"{group.flips / group.decisions:.2%}",
            f"{group.milder:,}",
            f"{group.severer:,}",
            replay.money(group.change_by_new_minor, sign=True),
            replay.money(group.change_by_old_minor, sign=True),
        )
    out.print(table)


def _show_largest(replay: Replay) -> None:
    out.print()
    table = _table("the decisions that change the most", "amount", "P(fraud)", "flip", "change")
    for one in replay.comparison.largest:
        told = isfinite(one.new_probability)
        table.add_row(
            one.identity,
            replay.money(one.amount_minor),
            f"{one.old_probability:.2%} → {one.new_probability:.2%}" if told else "stood in",
            f"{_said(one.old)} → {_said(one.new)}",
            replay.money(one.change_minor, sign=True) if isfinite(one.change_minor) else "",
        )
    out.print(table)


def _table(*columns: str) -> Table:
    return Table(*columns, box=None, pad_edge=False, padding=(0, 2, 0, 0))


def changed(old: Generation, new: Generation) -> tuple[str, ...]:
    """Return the keys of product.yaml that differ, by their dotted paths, but `generation`."""
    one = dict(_leaves(old.product.model_dump(mode="json"), ()))
    other = dict(_leaves(new.product.model_dump(mode="json"), ()))
    keys = dict.fromkeys((*one, *other))
    nothing = object()
    return tuple(
        ".".join(key)
        for key in keys
        if key != ("generation",) and one.get(key, nothing) != other.get(key, nothing)
    )


def _leaves(value: Any, key: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict) and value:
        for name, child in value.items():
            yield from _leaves(child, (*key, str(name)))
    else:
        yield key, repr(value)


def _beliefs(generation: Generation) -> tuple[object, ...]:
    champion, policy = generation.product.models.champion, generation.policy
    return (
        generation.champion.digest,
        champion.output,
        policy.calibration,
        champion.base_rate,
        generation.product.calendar,
    )


_FIXED = ("category", "amount", "channel")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _arrow(flip: Flip) -> str:
    return f"{_said(flip.old)} → {_said(flip.new)}"


def _said(action: Action) -> str:
    return action.spelling.replace("_", " ")


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(sep=" ", timespec="seconds")[:19]


def _finite(number: float) -> float | None:
    return number if isfinite(number) else None


def _side(generation: Generation, folder: str) -> dict[str, Any]:
    champion = generation.champion
    return {
        "folder": folder,
        "generation": generation.product.generation,
        "digest": generation.digest,
        "model": {
            "name": champion.name,
            "version": champion.version,
            "sha256": champion.digest,
        },
    }


def _rates(found: Comparison, action: Action) -> dict[str, float]:
    return {
        "old": found.share(found.old_actions, action),
        "new": found.share(found.new_actions, action),
    }


def _flip(flip: Flip) -> dict[str, Any]:
    return {
        "from": flip.old.spelling,
        "to": flip.new.spelling,
        "decisions": flip.decisions,
        "change_by_new_minor": flip.change_by_new_minor,
        "change_by_old_minor": flip.change_by_old_minor,
    }


def _group(group: Group) -> dict[str, Any]:
    return {**group._asdict(), "share": group.flips / group.decisions}


def _money(of: Money) -> dict[str, Any]:
    return {
        "decisions": of.decisions,
        "old_per_1000_minor": _finite(of.old_per_1000_minor),
        "new_per_1000_minor": _finite(of.new_per_1000_minor),
        "change_per_1000_minor": _interval(of.per_1000),
        "change_minor": _interval(of.total),
    }


def _interval(of: Interval) -> dict[str, float | None]:
    return {"value": _finite(of.value), "low": _finite(of.low), "high": _finite(of.high)}


def _realised(of: Realised) -> dict[str, Any]:
    counts = of._asdict()
    counts.update(by_new=_money(of.by_new), by_old=_money(of.by_old), has_support=of.has_support)
    return counts


def _large(one: Large) -> dict[str, Any]:
    return {
        "decision_id": one.identity,
        "amount_minor": one.amount_minor,
        "category": one.category,
        "from": one.old.spelling,
        "to": one.new.spelling,
        "old_probability": _finite(one.old_probability),
        "new_probability": _finite(one.new_probability),
        "change_by_new_minor": _finite(one.change_minor),
    }
