"""`gateway bench`."""

from __future__ import annotations

import json as json_codec
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from cyclopts import Parameter
from cyclopts.validators import Number
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from gateway.bench.count import doubts
from gateway.bench.machine import Cores, cores, machine
from gateway.bench.outcome import Outcome
from gateway.bench.product import Kind, write_kind
from gateway.bench.rig import Rig, Scope
from gateway.bench.scenario import SCENARIOS, Scenario
from gateway.cli.bench_account import account
from gateway.cli.bench_picture import bench_picture
from gateway.cli.demo_server import interrupted_by_sigterm, serving
from gateway.cli.terms import AtLeastOne, Json, microseconds, notes, out
from gateway.errors import ExitCode, UsageError
from gateway.model import read_product
from gateway.product import schema_fingerprint

SECONDS, QUICK_SECONDS = 20.0, 6.0
SWAPS, QUICK_SWAPS = 200, 30
QUICK_SWAPS_S = 42.0
"""All of `--quick` is to be over in two minutes, on a slow machine too: then swaps are fewer."""


def bench(
    *scenarios: Annotated[
        str,
        Parameter(
            name="SCENARIO",
            help="Any of "
            + ", ".join(f"{s.name} ({s.says})" for s in SCENARIOS.values())
            + ". All of them where none is named.",
        ),
    ],
    quick: Annotated[
        bool,
        Parameter(
            negative="",
            show_default=False,
            help=f"Measure {QUICK_SECONDS:g} s a level instead of {SECONDS:g}, and up to "
            f"{QUICK_SWAPS} swaps instead of {SWAPS}.",
        ),
    ] = False,
    seconds: Annotated[
        float | None,
        Parameter(validator=Number(gt=0), help="Measure so long a level."),
    ] = None,
    calls: Annotated[
        int | None,
        Parameter(validator=AtLeastOne, help="Measure so many calls a level, however long."),
    ] = None,
    rounds: Annotated[
        int, Parameter(validator=AtLeastOne, help="Rounds; what is measured is their median.")
    ] = 1,
    swaps: Annotated[
        int | None,
        Parameter(validator=AtLeastOne, help="Swap models so many times, in the scenario swap."),
    ] = None,
    workers: Annotated[
        int | None,
        Parameter(validator=AtLeastOne, help="Worker processes. Default: the server's own."),
    ] = None,
    seed: Annotated[
        int, Parameter(validator=Number(gte=0), help="Another seed, other arrivals.")
    ] = 1,
    picture: Annotated[
        Path | None, Parameter(help="Draw latency against the budget, and stand-ins, as an SVG.")
    ] = None,
    json: Json = False,
) -> int:
    """Measure whether the gateway keeps its promises: nothing late, from idle to overload.

    Starts `gateway serve` on a core of its own with models made for this machine, and sends
    it Poisson arrivals from another core, each at its scheduled time whatever the server
    does. Latencies count from the scheduled time. An answer is late when it comes more than
    the budget and 1 ms after it was really sent. Leave the machine alone meanwhile.

    Exit code 1 where a promise was broken, or the run proves nothing.
    """
    asked = _asked(scenarios)
    if picture is not None:
        # Not after a quarter of an hour.
        _draw([], picture)
    length_s = seconds or (QUICK_SECONDS if quick else SECONDS)
    scope = Scope(length_s, rounds, calls, swaps or SWAPS)
    if quick and swaps is None:
        scope = replace(scope, swaps=QUICK_SWAPS, swaps_s=QUICK_SWAPS_S)
    places = cores(workers or 1)
    rng = np.random.default_rng(seed)
    options = () if workers is None else ("--workers", str(workers))
    found: list[dict[str, Any]] = []
    with (
        interrupted_by_sigterm(),
        tempfile.TemporaryDirectory(prefix="gateway-bench-") as scratch,
        bar(json) as tell,
    ):
        folders = _Folders(Path(scratch), tell)
        for scenario in asked:
            journal = Path(scratch) / f"journal-{scenario.name}"
            found.append(_run(scenario, scope, folders, journal, places, rng, options, tell))
    if picture is not None:
        _draw(found, picture)
    if json:
        print(json_codec.dumps(_joined(found), indent=2))
    else:
        for one in found:
            _show(one)
        _show_machine()
        notes.print(
            f"Drawn: {picture}" if picture else "Next: gateway bench --picture bench.svg",
            markup=False,
        )
    kept = all(one["valid"] and not one["broken"] for one in found)
    return ExitCode.OK if kept else ExitCode.FAILED


def _draw(found: Sequence[dict[str, Any]], picture: Path) -> None:
    try:
        picture.write_text(bench_picture(found), encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"cannot be written: {error.strerror}",
            subject=str(picture),
            hint="Name an SVG file in a folder that is there.",
        ) from None


def _asked(names: Sequence[str]) -> list[Scenario]:
    for name in names:
        if name not in SCENARIOS:
            raise UsageError(
                "is no scenario", subject=repr(name), hint=f"One of {', '.join(SCENARIOS)}."
            )
    return [SCENARIOS[name] for name in names or SCENARIOS]


SETTLE_S = 3.0
"""A server's first seconds, which its spare worker takes from the others."""

Tell = Callable[[str, float], None]

Figures = Mapping[str, tuple[str, Callable[[Any], str]]]
"""By name: what each is called, and how it is said."""


@contextmanager
def bar(quiet: bool) -> Iterator[Tell]:
    """Show what is going on. Nothing is drawn but when told: a thread would cost a core."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=notes,
        disable=quiet or not notes.is_terminal,
        auto_refresh=False,
        transient=True,
    ) as progress:
        task = progress.add_task("", total=1.0)
        before = ""

        def tell(what: str, share: float) -> None:
            nonlocal before
            if what != before and not (quiet or notes.is_terminal):
                notes.print(f"{what}…", markup=False)
            if what != before:
                progress.reset(task, description=what)
            before = what
            if notes.is_terminal and not quiet:
                progress.update(task, completed=share, refresh=True)

        yield tell


class _Folders:
    """The products' folders, each made when it is first needed."""

    def __init__(self, scratch: Path, tell: Tell) -> None:
        self._scratch = scratch
        self._tell = tell
        self._made: dict[str, Path] = {}

    def of(self, kind: Kind) -> Path:
        """Return a kind's folder; the model is scaled to this machine once a run."""
        if kind.name not in self._made:
            self._tell(f"making {kind.name}", 0.0)
            self._made[kind.name] = write_kind(self._scratch / kind.name, kind)
        return self._made[kind.name]


def _run(
    scenario: Scenario,
    scope: Scope,
    folders: _Folders,
    journal: Path,
    places: Cores,
    rng: np.random.Generator,
    options: Sequence[str],
    tell: Tell,
) -> dict[str, Any]:
    """Run one scenario on a server of its own, and hold the journal to what its client saw."""
    mine = [folders.of(kind) for kind in scenario.kinds]
    fingerprint = schema_fingerprint(read_product(mine[0]).features)
    tell(f"{scenario.name}: starting the server", 0.0)
    # Retention would drop what the client's counts are held against.
    options = (*options, "--journal-max-bytes", "64GiB")
    with serving(mine, journal, options=options, cores=places.server) as server:
        # Its supervisor makes a spare worker meanwhile, which nobody announces.
        time.sleep(SETTLE_S)
        rig = Rig(
            server,
            fingerprint,
            places,
            rng,
            _named(tell, scenario.name),
            folders={kind.name: folders.of(kind) for kind in scenario.kinds},
            journal=journal,
        )
        outcome = scenario.run(rig, scope)
    tell(f"{scenario.name}: reading the journal", 0.0)
    return _found(outcome, account(journal, rig.tally), places)


def _named(tell: Tell, name: str) -> Tell:
    return lambda what, share: tell(f"{name}: {what}", share)


def _found(outcome: Outcome, accounted: dict[str, int], places: Cores) -> dict[str, Any]:
    """Return what is printed as JSON, of one scenario."""
    invalid = (
        outcome.doubts
        + _unscored(outcome, accounted)
        + doubts(
            outcome.counts,
            timed=outcome.timed,
            real_time=outcome.real_time,
            shared=places.shared,
        )
    )
    broken = list(dict.fromkeys(outcome.broken))
    if accounted["unrecorded"]:
        broken.append(f"{accounted['unrecorded']:,} answers do not stand in the journal")
    return {
        "scenario": outcome.name,
        "late": sum(one.late for one in outcome.counts),
        "excused": sum(one.excused for one in outcome.counts),
        "shed": sum(one.shed for one in outcome.counts),
        "failed": sum(one.failed for one in outcome.counts),
        **outcome.figures,
        "valid": not invalid,
        "invalid_because": list(invalid),
        "broken": broken,
        "witness_real_time": outcome.real_time,
        "journal": accounted,
        "cores": {"server": sorted(places.server), "generator": places.generator},
        "machine": machine(),
    }


def _unscored(outcome: Outcome, accounted: dict[str, int]) -> tuple[str, ...]:
    """Say so where a shadow cost nothing because it did nothing."""
    if "shadow_p99_ratio" not in outcome.figures or accounted["scored"]:
        return ()
    return ("the shadow scored nothing: with it is the same as without it",)


def _joined(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Return one object: the scenario's own, or all of them in a list."""
    if len(found) == 1:
        return found[0]
    return {
        "late": sum(one["late"] for one in found),
        "valid": all(one["valid"] for one in found),
        "broken": [f"{one['scenario']}: {line}" for one in found for line in one["broken"]],
        "machine": machine(),
        "scenarios": found,
    }


def _times(ratio: float | None) -> str:
    return "not known" if ratio is None else f"{ratio:g} x"


def _milliseconds(ms: float | None) -> str:
    return "not known" if ms is None else microseconds(ms * 1000)


_FIGURES: Figures = {
    "capacity": ("capacity", lambda x: f"{x:,.0f} decisions/s"),
    "goodput_ratio": ("goodput at the highest load", lambda x: f"{x:.0%} of the peak"),
    "recovery_ms": ("back to normal after", lambda x: "never" if x is None else f"{x:.0f} ms"),
    "tail_ratio": ("p99.9", lambda x: f"{x:g} x p50"),
    "p99_ratio": ("p99 beside the slow product", lambda x: f"{x:g} x alone"),
    "worst_gap_ms": ("longest time without an answer", lambda x: f"{x:.1f} ms"),
    "connections_lost": ("connections lost", lambda x: f"{x:,}"),
}

_SWAP_FIGURES: Figures = {
    "swaps": ("swaps", lambda x: f"{x:,}"),
    "stood_in": ("stand-ins", lambda x: f"{x:,}"),
    "stood_in_swapping": ("of them in swaps", lambda x: f"{x:,}"),
    "swap_ms": ("a swap takes", _milliseconds),
    "swap_ms_max": ("at most", _milliseconds),
    "p99_ratio": ("p99", lambda x: f"{_times(x)} what it is otherwise"),
    "p99_ratio_p95": ("in the worst of twenty", _times),
    "noise_ratio_p95": ("by chance alone", _times),
    "rss_ratio": ("memory after all swaps", _times),
    "shadow_p99_ratio": ("p99 with a shadow", _times),
}


def _show(found: dict[str, Any]) -> None:
    """Print a scenario: the verdict first, then the table, then what stands beside it."""
    scenario = SCENARIOS[found["scenario"]]
    out.print()
    if not found["valid"]:
        verdict = "[yellow]proves nothing[/yellow]"
    elif found["broken"]:
        verdict = "[red]broken[/red]"
    else:
        verdict = "[green]kept[/green]"
    out.print(f"[bold]{scenario.name}[/bold]: {verdict} ({scenario.says})")
    for line in found["invalid_because"]:
        out.print(f"  [yellow]invalid[/yellow]: {line}", soft_wrap=True)
    for line in found["broken"]:
        out.print(f"  [red]broken[/red]: {line}", soft_wrap=True)
    out.print(_table(found["levels"]))
    if "large" in found:
        _show_figures(found, _SWAP_FIGURES)
        _show_figures(found["large"], _SWAP_FIGURES, "a large model: ")
    else:
        _show_figures(found, _FIGURES)
    if not found["witness_real_time"]:
        out.print(
            "  the witnesses had no real-time priority: a busy server may look like a machine that "
            "stood still; run as root",
            style="yellow",
            soft_wrap=True,
        )
    accounted = found["journal"]
    beside = ""
    if accounted["scored"] or accounted["skipped"]:
        beside = f"; a shadow scored {accounted['scored']:,} and skipped {accounted['skipped']:,}"
    out.print(
        f"  journal: {accounted['recorded']:,} records, {accounted['unrecorded']:,} answers "
        f"without one, {accounted['unaccounted']:,} shed calls unaccounted{beside}",
        style="dim",
        soft_wrap=True,
    )


def _show_figures(found: dict[str, Any], figures: Figures, whose: str = "") -> None:
    said = [f"{what}: {say(found[key])}" for key, (what, say) in figures.items() if key in found]
    if said:
        out.print(f"  {whose}" + " · ".join(said), soft_wrap=True)


def _table(levels: Sequence[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 2))
    table.add_column("level")
    for name in ("sent/s", "good/s", "stand-ins", "late", "excused", "shed", "failed"):
        table.add_column(name, justify="right")
    for name in ("p50", "p90", "p99", "p99.9", "max", "lag p99"):
        table.add_column(name, justify="right")
    for level in levels:
        name = level["level"]
        offered = level["offered_ratio"]
        if offered is not None and abs(offered - level["ratio"]) > 0.1 * level["ratio"]:
            name += f" (really {offered:.2g} x)"
        red = "[red]{:,}[/red]"
        table.add_row(
            name,
            f"{level['sent_per_s']:,.0f}",
            f"{level['goodput_per_s']:,.0f}",
            _stand_ins(level),
            (red if level["late"] else "{:,}").format(level["late"]),
            f"{level['excused']:,}",
            f"{level['shed']:,}",
            (red if level["failed"] else "{:,}").format(level["failed"]),
            *(microseconds(level["latency_us"][q]) for q in ("p50", "p90", "p99", "p99_9", "max")),
            microseconds(level["lag_us"]["p99"]),
        )
    return table


def _stand_ins(level: dict[str, Any]) -> str:
    if not level["stand_ins"]:
        return "0 %"
    main = max(level["stand_ins"], key=level["stand_ins"].__getitem__)
    return f"{level['stand_in_share']:.1%} {main.lower().replace('_', ' ')}"


def _show_machine() -> None:
    on = machine()
    out.print(
        f"\n{on['cpu']}, {on['cores']} cores, Linux {on['kernel']}, Python {on['python']}, "
        f"onnxruntime {on['onnxruntime']}",
        style="dim",
        soft_wrap=True,
    )
