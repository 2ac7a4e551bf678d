"""What a round of the demo came to, and its months, as tables and bars."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from gateway.cli.decide import in_words
from gateway.cli.demo_account import Served
from gateway.cli.demo_behind import Counted
from gateway.cli.replay import IN_FLIGHT, Replayed, Seen, request_of
from gateway.cli.sidecar_lag import beside
from gateway.cli.terms import microseconds, money, out
from gateway.demo import CARD_NOT_PRESENT
from gateway.demo.truth import Turned
from gateway.product import Action, Product
from gateway.sidecar.traces.receiver import Receiver


def show(
    summary: dict[str, Any],
    replayed: Replayed,
    served: dict[str, Served],
    behind: Counted | None = None,
    turned: Mapping[str, Turned] | None = None,
) -> None:
    """Draw a round; at the end also what is behind it, and the months by what was `turned` away."""
    out.print()
    out.print(
        f"[bold]{summary['decisions']:,} decisions[/bold] in {summary['seconds']:.1f} s "
        f"({summary['decisions_per_second']:,.0f} a second: as fast as one Python client asks, "
        f"{IN_FLIGHT} in flight)"
    )
    _show_latency(summary, replayed)
    for name, one in sorted(served.items()):
        _show_actions(name, one.product, summary["by_category"].get(name, {}))
    _show_savings(summary["savings"])
    lost, late = summary["lost"], summary["late"]
    out.print(
        f"Against the journal: {summary['recorded']:,} records, "
        f"[{'red' if lost else 'green'}]{lost} lost[/], "
        f"[{'red' if late else 'green'}]{late} late[/]."
    )
    if behind is not None:
        _show_behind(behind)
    if turned is not None:
        show_months(summary["months"], turned)
    for error, count in summary["errors"].items():
        out.print(f"[red]{count:,} calls failed[/red]: {error}")
    out.print("\n[bold]Three of them in words[/bold]")
    for sample in _samples(replayed.seen):
        assert sample.response is not None
        fingerprint = served[sample.payment.product].fingerprint
        in_words(request_of(sample.payment, fingerprint, 0.0), sample.response)
        truth = f"fraud ({sample.payment.scenario})" if sample.payment.fraud else "genuine"
        out.print(f"  The simulator knows: {truth}.", style="dim")


def _show_behind(behind: Counted) -> None:
    style = "green" if behind.agree else "red"
    out.print(
        f"Behind it: [{style}]{behind.spans:,} spans[/] at a collector and "
        f"[{style}]{behind.lake:,} rows[/] in the lake, of {behind.journal:,} decisions "
        "(the warm-up's are among them)."
    )


def show_months(months: Mapping[str, Any], turned: Mapping[str, Turned]) -> None:
    """Say what the months were, and what the simulator alone knows of them."""
    begins, ends = (months[key].partition("T")[0] for key in ("from", "to"))
    out.print(
        f"\n[bold]Four months[/bold], {begins} to {ends}: {months['decisions']:,} decisions, "
        f"{months['labels']:,} labels, {months['attributes']:,} customers' age bands, "
        f"{months['explored']:,} declines let through to learn from."
    )
    rates = ", ".join(f"{group} {one.rate:.1%}" for group, one in turned.items())
    out.print(
        "  The simulator knows which genuine payments are declined, of "
        f"{CARD_NOT_PRESENT} by age: {rates}."
    )
    for error, count in months["errors"].items():
        out.print(f"[red]{count:,} calls failed[/red]: {error}")


def show_hypotheses(claims: Sequence[Mapping[str, Any]], lake: str | None) -> None:
    """Say what was believed before the months, and what came of it. `lake`: where more is told."""
    if not claims:
        return
    out.print("\n[bold]Believed before the months, and what came of it[/bold]")
    for one in claims:
        colour = {"ship": "green", "stop": "red", "invalid": "red"}.get(one.get("verdict", ""), "")
        verdict = Text(one.get("verdict", "not judged"), style=colour or "dim")
        day = f", day {one['day']}: {one['says']}" if "day" in one else f": {one['error']}"
        out.print(Text.assemble(f"  {one['product']}, {one['id']}: ", verdict, day), soft_wrap=True)
        if "claim" in one:
            out.print(f"    “{one['claim']}”", style="dim", markup=False, soft_wrap=True)
    place = "lake" if lake is None else lake
    told = f"gateway hypothesis show {claims[0]['id']} --lake {place}"
    first = "" if lake is not None else "gateway demo --once --lake lake, then "
    out.print(f"  More of one: {first}{told}", markup=False, highlight=False, soft_wrap=True)


def show_sidecar(journal: Path, receiver: Receiver, recorded: Collection[str]) -> None:
    """Say where the sidecar is and how far; and what has arrived since it was said last."""
    sidecar = beside(journal)
    arrived = receiver.decisions({one.partition("-")[0] for one in recorded})
    receiver.forget()
    if sidecar is not None:
        out.print(f"\nThe {sidecar.in_words}; {arrived:,} more spans arrived", markup=False)


def _show_latency(summary: dict[str, Any], replayed: Replayed) -> None:
    """Draw the latency percentiles against the budget, as the caller measured them."""
    budget = max(summary["budget_us"].values())
    latencies = np.array([one.latency_us for one in replayed.seen])
    for label, q in (("p50", 50), ("p90", 90), ("p99", 99), ("p99.9", 99.9), ("max", 100)):
        value = float(np.percentile(latencies, q))
        filled = min(40, max(1, round(value / budget * 40)))
        bar = "█" * filled + "·" * (40 - filled)
        out.print(f"  {label:>6} {microseconds(value):>8} {bar} budget {microseconds(budget)}")


def _show_actions(name: str, product: Product, by_mcc: dict[str, dict[str, int]]) -> None:
    names = {mcc: label for label, c in product.costs.categories.items() for mcc in c.mcc}
    by_category: dict[str, Counter[str]] = {}
    for mcc, actions in by_mcc.items():
        by_category.setdefault(names.get(mcc, "any other"), Counter()).update(actions)
    columns = [action.name.lower() for action in sorted(product.actions)]
    out.print()
    table = Table(
        "category",
        *(column.replace("_", " ") for column in columns),
        "payments",
        title=f"What {name} decided",
        title_justify="left",
        box=None,
        pad_edge=False,
        padding=(0, 3, 0, 0),
    )
    for category, actions in sorted(by_category.items()):
        total = sum(actions.values())
        table.add_row(category, *(f"{actions[c] / total:.1%}" for c in columns), f"{total:,}")
    out.print(table)


def _show_savings(savings: dict[str, Any]) -> None:
    out.print()
    table = Table(
        *("product", "approve all", "decline all", "as decided", "saved"),
        title="What it cost, knowing which payments were fraud",
        title_justify="left",
        box=None,
        pad_edge=False,
        padding=(0, 3, 0, 0),
    )
    for name, one in savings.items():
        costs = (
            money(one[key] * 100, one["currency"], 100)
            for key in ("approve_all", "decline_all", "cost")
        )
        share = "no fraud" if one["savings"] is None else f"{one['savings']:.0%} of the cheaper"
        table.add_row(name, *costs, f"[bold]{share}[/bold]")
    out.print(table)
    out.print()


def _samples(seen: Sequence[Seen]) -> list[Seen]:
    """Choose one answer of each of the three most severe actions, frauds first."""
    chosen: dict[int, Seen] = {}
    for one in seen:
        if one.response is None or one.response.stand_in:
            continue
        before = chosen.setdefault(one.response.action, one)
        if (
            one.payment.fraud
            and not before.payment.fraud
            and one.response.action != Action.APPROVE.value
        ):
            chosen[one.response.action] = one
    return [chosen[action] for action in sorted(chosen, reverse=True)][:3]
