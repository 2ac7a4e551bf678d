"""What a replay found, in words: tables in a terminal, and Markdown for a pull request."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite

from rich.markup import escape
from rich.table import Table

from gateway.cli.terms import microseconds, out
from gateway.cli.whatif_replay import Replay, changed_keys, day_and_time
from gateway.evaluate.bootstrap import Interval
from gateway.evaluate.whatif import Comparison, Flip, Group, Money, Realised
from gateway.product import Action

_GROUPS_SHOWN = 8
_ROWS_MAX = 18
"""Of the Markdown's table, besides its two lines of head."""


def verdict(replay: Replay) -> str:
    """Say in a sentence or two what would change."""
    found = replay.comparison
    more = found.late_under_new + found.new_model_errors
    stood_in = f" {more:,} decisions more would have been stood in for." if more else ""
    if not found.flipped:
        same = f"No decision flips: {found.decisions:,} decisions are the same under both."
        return same + stood_in
    said = (
        f"{found.flipped:,} of {found.decisions:,} decisions flip "
        f"({found.flipped / found.decisions:.2%}). {_cost_said(replay)}{stood_in}"
    )
    if found.realised is not None and found.realised.labelled == 0:
        said += (
            " No label is of a payment that was recorded: they are joined by transaction_id, "
            "as the caller gave it."
        )
    elif found.realised is not None and found.realised.differing:
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
    low, high = (replay.money(end, sign=True).partition(" ")[0] for end in (of.low, of.high))
    return f"95 %: {low} to {high}"


def _realised_said(replay: Replay, of: Realised) -> str:
    if not of.has_support:
        return (
            f"Labels give no verdict: {of.support:.0f} effective labels among the decisions that "
            "differ."
        )
    return f"By labels of what was let through, {_change_said(replay, of.by_new)}."


def as_markdown(replay: Replay) -> str:
    """Return at most 20 lines of table, the verdict before them."""
    found, seen = replay.comparison, replay.seen
    rows = [(_cell(name), _cell(text)) for name, text in _facts(replay)]
    for flip in sorted(found.flips, key=lambda one: -one.decisions)[: _ROWS_MAX - len(rows)]:
        change = replay.money(flip.change_by_new_minor, sign=True)
        rows.append((f"flip: {_arrow(flip)}", f"{flip.decisions:,} · {change} by NEW's figures"))
    spare = _spare_rows(replay)
    while len(rows) < _ROWS_MAX and (row := next(spare, None)):
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


def _facts(replay: Replay) -> Iterator[tuple[str, str]]:
    """Yield what a reviewer looks at first, each as a name and a text."""
    found = replay.comparison
    yield (
        "generation",
        f"{replay.old.product.generation} ({replay.old.digest[:12]}) → "
        f"{replay.new.product.generation} ({replay.new.digest[:12]})",
    )
    keys = changed_keys(replay.old, replay.new)
    more = f" and {len(keys) - 4} more" if len(keys) > 4 else ""
    yield "changed", (", ".join(keys[:4]) or "nothing") + more
    begun, ended = (day_and_time(one)[:16] for one in (found.from_s, found.to_s))
    yield (
        "records",
        f"{found.decisions:,} decisions of {found.subjects:,} subjects, {begun} to {ended} UTC"
        f"{_left_out(replay)}",
    )
    for name, action in (("approval rate", Action.APPROVE), ("decline rate", Action.DECLINE)):
        old, new = found.share(found.old_actions, action), found.share(found.new_actions, action)
        yield name, f"{old:.2%} → {new:.2%}"
    yield from _costs(replay)
    if found.old_explored or found.new_explored:
        yield "let through by exploration", f"{found.old_explored:,} → {found.new_explored:,}"
    yield "near ties", f"{found.old_near_ties:,} → {found.new_near_ties:,}"
    yield "stand-ins", _stand_ins_said(replay)
    yield "latency", _latency_said(replay)


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
    for name, text in _facts(replay):
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


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _arrow(flip: Flip) -> str:
    return f"{_said(flip.old)} → {_said(flip.new)}"


def _said(action: Action) -> str:
    return action.spelling.replace("_", " ")
