"""How an evaluation is told in a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from gateway.cli.terms import out
from gateway.evaluate.entry import Entry
from gateway.evaluate.evaluation import Evaluation


def show(found: Evaluation, *, everything: bool) -> None:
    """Print an evaluation: what is judged and what is over all, or every figure."""
    out.print(f"As of {found.as_of:%Y-%m-%d %H:%M} UTC")
    for label in found.tables["labels"]:
        out.print(
            f"[bold]{label['product']}[/bold]: {label['decisions']:,} decisions; labels mature "
            f"after {label['maturity_days']} days: {label['mature']:,} mature, "
            f"{label['provisional']:,} provisional, {label['pending']:,} pending, "
            f"{label['reversed']:,} reversed; {label['without_label_for_ever']:,} declined, "
            "without a label for ever"
        )
    left_out = 0
    for section, entries in found.sections.items():
        shown = [one for one in entries if everything or _matters(section, one)]
        left_out += len(entries) - len(shown)
        if not shown:
            continue
        table = Table(
            "product", "", "figure", "95 %", "n", "target", "verdict",
            title=section, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0),
        )  # fmt: skip
        for one in shown:
            table.add_row(*_row(one))
        out.print(table)
    for claim in found.tables["hypotheses"]:
        out.print(_hypothesis(claim), soft_wrap=True)
    for one in _worst(found):
        text = Text.assemble((one.verdict, "red"), f" {one.product}, {_what(one)}: {one.says}")
        out.print(text, soft_wrap=True)
    if left_out:
        out.print(f"[dim]{left_out:,} more figures, by part and by form: --all[/dim]")


def _hypothesis(one: Mapping[str, Any]) -> Text:
    """Say in a line what came of a hypothesis."""
    named = f"{one['product']}, hypothesis {one['id']}: "
    if one.get("error"):
        return Text.assemble(named, ("not judged", "red"), f": {one['error']}")
    impact = one["impact"]
    low, high = (_said(end, one["unit"]) for end in impact["interval"])
    return Text.assemble(
        named,
        (one["verdict"], _COLOURS.get(one["verdict"], "dim")),
        f", day {one['day']}: {one['says']}; {one['metric']}: intended "
        f"{_said(impact['intended'], one['unit'])}, actual {_said(impact['actual'], one['unit'])} "
        f"({low} to {high})",
        "; stopped" if one["stopped"] else "",
    )


def _matters(section: str, one: Entry) -> bool:
    """Say whether it is judged, or is over all and says something."""
    if section == "drift":
        return one.verdict in ("drifted", "explained")
    if section == "fairness":
        return bool(one.verdict) and (bool(one.more.get("gates")) or one.verdict == "breach")
    if section == "calibration":
        return not one.by
    return bool(one.verdict) or (section == "money" and not one.by and one.figure.value is not None)


def _worst(found: Evaluation) -> list[Entry]:
    """Return what is missed or in breach, for which there are words."""
    return [
        one
        for section in ("goals", "fairness")
        for one in found.sections[section]
        if one.verdict in ("missed", "breach") and _matters(section, one)
    ]


def _row(one: Entry) -> Iterator[str]:
    yield one.product
    yield _what(one)
    yield _said(one.figure.value, one.unit)
    yield f"{_said(one.figure.low, one.unit)} to {_said(one.figure.high, one.unit)}"
    yield f"{one.figure.n:,.0f}"
    yield one.target
    because = one.because or one.figure.reason
    yield f"[{_COLOURS.get(one.verdict, 'dim')}]{one.verdict or '·'}[/]" + (
        f" ({because})" if one.verdict == "undecided" and because else ""
    )


def _what(one: Entry) -> str:
    """Return the metric, what it rests on, and the part of the traffic."""
    parts = (key if key == value else f"{key} {value}" for key, value in one.by.items())
    return ", ".join((f"{one.metric} ({one.basis})", *parts))


_COLOURS = {
    **dict.fromkeys(("met", "pass", "ship"), "green"),
    **dict.fromkeys(("missed", "breach", "stop", "invalid"), "red"),
}


def _said(value: float | None, unit: str) -> str:
    if value is None:
        return "?"
    if unit == "share":
        return f"{value:.3%}"
    return f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"
