"""`gateway demo`."""

from __future__ import annotations

import json as json_codec
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
from cyclopts import Parameter
from cyclopts.validators import Number
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from gateway.cli.demo_account import Served, actions_in, served_as, summary_of
from gateway.cli.demo_behind import (
    Places,
    counted,
    places,
    records_left,
    wait_until_behind,
)
from gateway.cli.demo_labels import Answered, report
from gateway.cli.demo_months import (
    Told,
    copied_for_months,
    run_of,
    send_months,
    start_hypotheses,
    verdicts,
)
from gateway.cli.demo_picture import show, show_hypotheses, show_months, show_sidecar
from gateway.cli.demo_server import Server, interrupted_by_sigterm, serving
from gateway.cli.replay import Replayed, Seen, replay
from gateway.cli.sidecar_lag import Beside
from gateway.cli.terms import AtLeastOne, Json, notes
from gateway.demo import Payment, build_world
from gateway.demo.months import draw_months, moved
from gateway.demo.products import product_folders
from gateway.demo.seasons import DAY_S
from gateway.errors import ExitCode, UsageError
from gateway.model import read_product
from gateway.product import Action
from gateway.sidecar.traces.receiver import Receiver

WARM_UP = 500
"""Calls before the measurement: the machine's caches and the client's are cold."""
ROUND = 10_000
MONTHS = 65_000
SHOWN_AFTER_S = 1.0
"""A wait that is over sooner needs no progress bar."""

NEXT_ROUND = "The next round begins. Ctrl-C ends the demo."


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
    served = {one.product.name: one for one in map(served_as, folders)}
    rng = np.random.default_rng(seed)
    story = build_world(rng).payments(rng)
    with (
        interrupted_by_sigterm(),
        places(journal, lake) as here,
        Receiver() as receiver,
    ):
        stage = _Stage(here, receiver, served, story, payments, seed, once=once, quiet=json)
        replayed, labels = _rounds(stage, folders, months_follow=months_payments > 0)
        told = None
        if months_payments:
            told = _months(stage, folders, product, months_payments)
        recorded = actions_in(here.journal)
        behind = counted(recorded, receiver, here.lake)
        summary = {**summary_of(replayed, served, recorded), **behind.row, "labels": labels}
        summary["months"] = None if told is None else told.summary(recorded)
        claims = [] if told is None or json else verdicts(here.lake)
    if json:
        print(json_codec.dumps(summary, indent=2))
    else:
        show(summary, replayed, served, behind, None if told is None else told.turned)
        show_hypotheses(claims, lake)
        notes.print(f"Next: {_next(journal, lake)}", markup=False, soft_wrap=True)
    parts = [summary, summary["months"] or {"lost": 0, "errors": {}}]
    is_whole = behind.agree and not any(part["lost"] or part["errors"] for part in parts)
    return ExitCode.OK if is_whole else ExitCode.FAILED


def _next(journal: Path | None, lake: str | None) -> str:
    if lake is not None:
        return f"gateway evaluate --lake {lake}"
    if journal is not None:
        return f"gateway journal cat {journal}"
    return "gateway demo --once --lake lake, to evaluate what it leaves"


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

    def serving(
        self, folders: Sequence[Path], *, evaluated: bool = False
    ) -> AbstractContextManager[Server]:
        options = self.here.options(self.receiver, evaluated=evaluated)
        return serving(folders, self.here.journal, options=options)

    def ask(self, server: Server) -> tuple[Replayed, int]:
        """Ask about a round's payments, after the warm-up's, and report what became of them.

        Return what the caller saw, and how many labels were taken.
        """
        if not self.once:
            said = f"Metrics: {server.metrics}; spans go to {self.receiver.address}"
            notes.print(said, markup=False)
        run = f"{self.seed}-{time.time_ns():x}"
        traffic = _draw(self.story, self.payments + WARM_UP, run, quiet=self.quiet)
        # The story's last payment happens now; no payment happens in the future.
        shift_s = time.time() - traffic[-1].event_time_s
        warm_up = _replay(server, traffic[:WARM_UP], self.served, shift_s, quiet=True)
        replayed = _replay(server, traffic[WARM_UP:], self.served, shift_s, quiet=self.quiet)
        answered = [_answered(one, shift_s) for one in (*warm_up.seen, *replayed.seen)]
        rng = np.random.default_rng((self.seed, 2))
        return replayed, report(server.feedback, answered, rng, until_s=time.time())

    def show(self, replayed: Replayed) -> None:
        recorded = actions_in(self.here.journal)
        show(summary_of(replayed, self.served, recorded), replayed, self.served)
        show_sidecar(self.here.journal, self.receiver, recorded)

    def finish(self, server: Server) -> None:
        """Let all that is recorded arrive, and end the server."""
        _catch_up(self.here.journal, quiet=self.quiet)
        server.stop()


def _answered(one: Seen, shift_s: float) -> Answered:
    """Return a payment of a round as it happened, and what was answered."""
    response, known_as = one.response, one.payment.transaction_id
    payment = moved(one.payment, shift_s)
    # Without the seed, which may look like anything.
    key = known_as.partition("-")[2]
    if response is None:
        return Answered(payment, known_as, "", "", key)
    action = Action(response.action).name.lower()
    return Answered(payment, known_as, response.decision_id, action, key)


def _rounds(stage: _Stage, folders: Sequence[Path], *, months_follow: bool) -> tuple[Replayed, int]:
    """Play a round, and where this is not to end and no months follow, one after the other.

    Return what the last caller saw, and how many labels were taken of it.
    """
    with stage.serving(folders) as server:
        replayed, labels = stage.ask(server)
        while not (stage.once or months_follow):
            stage.show(replayed)
            notes.print(NEXT_ROUND)
            replayed, labels = stage.ask(server)
        if not stage.once:
            stage.show(replayed)
        if months_follow:
            server.stop()  # what its sidecar leaves, the next one ships
        else:
            stage.finish(server)
    return replayed, labels


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
    believed = start_hypotheses(stage.here.lake, changed, months)
    with stage.serving([*changed, *own], evaluated=not stage.once) as server:
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
            show_months(told.summary(actions_in(stage.here.journal)), told.turned)
            page = server.metrics.removesuffix("metrics")
            notes.print(f"What they show, evaluated each minute: {page}", markup=False)
            notes.print(
                f"Believed before them, and judged there too: {', '.join(believed)}",
                markup=False,
                soft_wrap=True,
            )
        while not stage.once:
            notes.print(NEXT_ROUND)
            stage.show(stage.ask(server)[0])
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
            for tell in shown:
                tell(left)

        wait_until_behind(journal, seen)
