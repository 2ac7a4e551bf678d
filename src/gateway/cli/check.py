"""`gateway check`."""

from __future__ import annotations

import json as json_codec
import time
from collections.abc import Sequence
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.markup import escape
from rich.table import Table

from gateway.cli.cost_picture import cost_picture
from gateway.cli.gates_table import gates_tables, reliability_table
from gateway.cli.terms import Folder, Json, microseconds, money, notes, out, save
from gateway.decide import CostClass, Interval, dominated, lower_envelope
from gateway.errors import ExitCode, GatewayError, ProductError, UsageError
from gateway.model import HEAVY_ROW_NS, Generation, load_generation
from gateway.product import lint, minor_per_major, unenforced
from gateway.product import reference as key_reference
from gateway.verify import Report, examined, expect_passed, reasons

AMOUNTS = (5, 20, 100, 500, 2000)
"""Major units at which thresholds are shown."""


def check(
    *folders: Folder,
    plot: Annotated[
        Path | None, Parameter(help="Draw the cost lines and thresholds as an SVG.")
    ] = None,
    reference: Annotated[
        bool,
        Parameter(
            name="--reference",
            negative="",
            show_default=False,
            help="Print every key of product.yaml.",
        ),
    ] = False,
    json: Json = False,
) -> int:
    """Check products: every violation, each model's gates, derived thresholds.

    Exit code 3 where a product.yaml breaks its rules, 4 where a model does or fails a gate.
    """
    if reference:
        print(key_reference())
        return ExitCode.OK
    if not folders:
        raise UsageError("no product folder is named", hint="gateway check models/card-present")
    loaded: list[tuple[Generation, Report]] = []
    failed: list[GatewayError] = []
    for folder in folders:
        try:
            generation = load_generation(folder)
            base = folder if folder.is_dir() else folder.parent
            report = examined(generation, base, time.thread_time_ns)
            loaded.append((generation, report))
            expect_passed(report.gates, str(folder))
        except GatewayError as error:
            failed.append(error)
    if plot is not None and loaded:
        save(plot, cost_picture([generation for generation, _ in loaded]))
    if json:
        summary = {
            "products": [
                {**summarised(generation), **_judged(report)} for generation, report in loaded
            ],
            "errors": [text for error in failed for text in str(error).splitlines()],
        }
        print(json_codec.dumps(summary, indent=2))
        return failed[0].exit_code if failed else ExitCode.OK
    for generation, report in loaded:
        _print(generation, report)
    if failed:
        violations = tuple(v for e in failed if isinstance(e, ProductError) for v in e.violations)
        others = [error for error in failed if not isinstance(error, ProductError)]
        if not others:
            raise ProductError(violations)
        hint = "; ".join(error.hint for error in others if error.hint)
        what = "\n".join(str(error) for error in failed)
        raise type(others[0])(what, hint=hint)
    names = " ".join(str(folder) for folder in folders)
    notes.print(f"Next: gateway serve {names}", markup=False)
    return ExitCode.OK


def summarised(generation: Generation) -> dict[str, Any]:
    """Return what check knows of a product, as JSON values."""
    product, policy = generation.product, generation.policy
    unit = minor_per_major(product.costs.currency)
    row_ns = generation.champion.row_ns(time.monotonic_ns)
    return {
        "product": product.name,
        "generation": product.generation,
        "digest": generation.digest,
        "model": {
            "name": generation.champion.name,
            "version": generation.champion.version,
            "sha256": generation.champion.digest,
            "opset": generation.trial.opset,
            "producer": generation.trial.producer,
            "inputs": [port._asdict() for port in generation.trial.inputs],
            "outputs": [port._asdict() for port in generation.trial.outputs],
            "output": _output(generation),
            "sample_scores": _score_range(generation),
            "sample_failures": _sample_failures(generation),
            "row_us": row_ns / 1000,
            "runs_on_the_loop": row_ns <= HEAVY_ROW_NS,
        },
        "features": len(product.columns),
        "feature_names": [column.name for column in product.columns],
        "schema_fingerprint": generation.schema.fingerprint,
        "golden": None
        if generation.golden is None
        else {"rows": generation.golden.rows, "worst": generation.golden.worst},
        "thresholds": [
            {
                "category": cost_class.name or None,
                "harm": cost_class.harm,
                "amount": amount,
                "intervals": [
                    {"action": i.action.name.lower(), "from": i.low, "to": i.high}
                    for i in lower_envelope(cost_class.lines, amount * unit)
                ],
            }
            for cost_class, amount in _shown(policy.classes, unit)
        ],
        "dominated": [action.name.lower() for action in _dominated(generation)],
        "exploration_propensity": None if policy.explorer is None else policy.explorer.propensity,
        "overrides": [override.model_dump(mode="json") for override in product.overrides],
        "warnings": [str(warning) for warning in lint(product)],
        "questions": [
            {"line": line, "question": question} for line, question in product.source.questions
        ],
        "not_enforced_yet": [
            {"key": one.key, "line": one.line, "why": one.why} for one in unenforced(product)
        ],
    }


def _judged(report: Report) -> dict[str, Any]:
    """Return the gates, and the figures behind them, as JSON values: NaN is null."""
    return {
        "gates": [_plain(asdict(gate)) for gate in report.gates],
        "calibration": {name: _plain(asdict(one)) for name, one in report.figures.items()},
    }


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def _print(generation: Generation, report: Report) -> None:
    product, champion = generation.product, generation.champion
    out.print(
        f"[bold]{escape(product.name)}[/bold] generation {product.generation}, "
        f"budget {product.latency.budget_ms:g} ms"
    )
    golden = generation.golden
    vectors = (
        f"{golden.rows} golden vectors, worst difference {golden.worst:.1e}"
        if golden is not None
        else "no golden vectors"
    )
    name = escape(f"{champion.name} {champion.version}")
    out.print(f"  model {name} ({champion.digest[:12]}…), {vectors}", soft_wrap=True)
    low, high = _score_range(generation)
    trial = generation.trial
    out.print(
        f"  score: {escape(_output(generation))}, {low:.4g} to {high:.4g} for "
        f"{len(trial.scores)} sample rows; {_mapped(generation)}",
        soft_wrap=True,
    )
    row_ns = champion.row_ns(time.monotonic_ns)
    out.print(f"  a row takes it {microseconds(row_ns / 1000)}: it runs {_place(row_ns)}")
    fingerprint = generation.schema.fingerprint
    out.print(f"  {len(product.columns)} features, schema fingerprint {fingerprint}")
    _print_gates(report)
    _print_thresholds(generation)
    for action in _dominated(generation):
        out.print(
            f"  [yellow]{action.name.lower()} is dominated[/yellow]: the cheapest at no "
            "probability, for none of these amounts and categories"
        )
    _print_hand_set(generation)
    failures = _sample_failures(generation)
    if failures:
        out.print(
            f"  [yellow]Warning[/yellow]: the model gives no number for {failures} of "
            f"{len(trial.scores)} sample rows: a stand-in would answer such payments. "
            "Do min, max and missing say what it takes?",
            soft_wrap=True,
        )
    for warning in lint(product):
        out.print(f"  [yellow]Warning[/yellow]: {escape(str(warning))}", soft_wrap=True)
    if product.source.questions:
        out.print("  Still asked: answer each, and remove its comment")
        for line, question in product.source.questions:
            out.print(f"    line {line}: {escape(question)}", style="yellow", soft_wrap=True)
    declared = unenforced(product)
    if declared:
        out.print("  Declared, not enforced yet:")
        for one in declared:
            out.print(f"    line {one.line}: {escape(one.key)} ({one.why})", style="dim")
    out.print()


def _print_gates(report: Report) -> None:
    for table in gates_tables(gate.row for gate in report.gates):
        out.print(table)
    for arm, figures in report.figures.items():
        out.print(reliability_table(arm, figures))
    for arm, hint in dict.fromkeys((g.arm, g.hint) for g in report.gates if not g.why and g.hint):
        out.print(f"  {escape(arm)}: {escape(hint)}", style="dim", soft_wrap=True)
    # What refuses a product is said at the end, as an error.
    for line in reasons([gate for gate in report.gates if not gate.refuses]):
        out.print(f"  [yellow]Warning[/yellow]: {escape(line)}", soft_wrap=True)


def _place(row_ns: int) -> str:
    """Say where the server runs a model that takes so long for a row."""
    return "on the loop" if row_ns <= HEAVY_ROW_NS else "beside the loop, on a thread of its own"


def _output(generation: Generation) -> str:
    name, column = generation.product.models.champion.output
    return name if column is None else f"{name}[{column}]"


def _score_range(generation: Generation) -> tuple[float, float]:
    scores = [score for score in generation.trial.scores if score == score]
    return min(scores), max(scores)


def _sample_failures(generation: Generation) -> int:
    return sum(score != score for score in generation.trial.scores)


def _mapped(generation: Generation) -> str:
    """Say how a score becomes P(fraud)."""
    arm = generation.product.models.champion
    steps = []
    if arm.scale is not None:
        steps.append("scaled from {:g}..{:g}".format(*arm.scale))
    if arm.calibration.kind != "identity":
        steps.append(f"calibrated ({arm.calibration.kind})")
    if arm.base_rate is not None:
        rates = arm.base_rate
        steps.append(f"moved from {rates.calibrated_at:.3g} to {rates.serving:.3g} fraud")
    return ", ".join(steps) or "taken as P(fraud)"


def _print_thresholds(generation: Generation) -> None:
    unit = minor_per_major(generation.product.costs.currency)
    currency = generation.product.costs.currency
    table = Table(
        "category",
        *(f"{amount:,} {currency}" for amount in AMOUNTS),
        title="From which P(fraud) on each action is the cheapest",
        title_justify="left",
        box=None,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    rows: dict[str, list[str]] = {}
    for cost_class, amount in _shown(generation.policy.classes, unit):
        intervals = lower_envelope(cost_class.lines, amount * unit)
        rows.setdefault(cost_class.name, []).append(_said(intervals))
    for name, cells in rows.items():
        table.add_row(name or "any other", *cells)
    out.print(table)


def _print_hand_set(generation: Generation) -> None:
    product, explorer = generation.product, generation.policy.explorer
    for override in product.overrides:
        where = f" in {override.category}" if override.category else ""
        out.print(
            f"  Override{where}: {override.action.name.lower()} from {override.at_least:g}, "
            f"until {override.expires} ({escape(override.reason)}; {escape(override.approver)})"
        )
    declared = product.exploration
    if explorer is None or declared is None:
        return
    bound = "loss_per_day" if explorer.propensity < declared.share else "share"
    out.print(
        f"  Exploration: {explorer.propensity:.3%} of the declines up to "
        f"{money(explorer.max_amount_minor, product.costs.currency, _unit(generation))} are let "
        f"through, bounded by {bound} (at {declared.declines_per_day:,} declines a day)",
        soft_wrap=True,
    )


def _shown(classes: Sequence[CostClass], unit: int) -> list[tuple[CostClass, int]]:
    """Return each category once for each amount: the class that holds there."""
    shown: list[tuple[CostClass, int]] = []
    for i, cost_class in enumerate(classes):
        if i and classes[i - 1].name == cost_class.name:
            continue
        for amount in AMOUNTS:
            above = amount * unit > cost_class.harm_up_to_minor
            shown.append((classes[i + 1] if above else cost_class, amount))
    return shown


def _said(intervals: Sequence[Interval]) -> str:
    """Say an envelope: `step up 0.8%, decline 31%`; what begins at 0 comes first, bare."""
    return "\n".join(
        name if interval.low == 0.0 else f"{name} {_percent(interval.low)}"
        for interval in intervals
        for name in [interval.action.name.lower().replace("_", " ")]
    )


def _percent(share: float) -> str:
    """Return a share in at most five characters: five amounts have to fit 80 columns."""
    return f"{share:.2%}" if share < 0.1 else f"{share:.1%}"


def _dominated(generation: Generation) -> tuple[Any, ...]:
    unit = _unit(generation)
    per_class = [
        set(dominated(cost_class.lines, [amount * unit for amount in AMOUNTS]))
        for cost_class in generation.policy.classes
    ]
    return tuple(sorted(set.intersection(*per_class)))


def _unit(generation: Generation) -> int:
    return minor_per_major(generation.product.costs.currency)
