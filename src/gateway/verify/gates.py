"""What a model must hold before it decides: figures, rules and verdicts.

The folder's files have been read, tried and opened when these are asked; what fails there (a
digest, a golden vector) is an error of its own before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from gateway.decide import Policy
from gateway.errors import ModelError, UsageError
from gateway.evaluate.calibration import Figures, Near, figures
from gateway.evaluate.intervals import Estimate, quantile
from gateway.model import Classifier, Generation, Rows
from gateway.model.generation import SCORE_TOLERANCE, Arm
from gateway.product import CalibrationGate, Challenger, Champion, Product, minor_per_major
from gateway.verify.cause import Suspect, likely_cause
from gateway.verify.sample import probabilities, sample_of, scores_of

if TYPE_CHECKING:
    from gateway.verify.labelled import Labelled

Verdict = Literal["pass", "fail", "undecided", "not checked"]

UNSCORED_MAX = 0.01
"""Of the labelled payments; a stand-in would answer each that the model has no number for."""

EXCESS_SHARE_MAX = 0.05
"""Of what decisions cost, where `excess_cost_per_1000` is left out."""

COST_RUNS = 200
_COST_ROUNDS = 3
_COST_NS = 2_000_000_000
"""A heavy model is timed for as long, and no longer."""

SCORING_NS = 15_000_000_000
"""CPU time of scoring labelled payments: of a heavy model fewer are scored, evenly spaced."""

_TIMED_ROWS = 128
_ROWS_MIN = 2000

ClockNs = Callable[[], int]


@dataclass(frozen=True, slots=True)
class Gate:
    """One rule that a model must hold, and how it does.

    `estimate`: the figure as a number with its interval, in the rule's unit. `why`: what is likely
    wrong with the model, and `hint` what to try; both are empty where the rule holds.
    """

    name: str
    arm: str
    mode: str
    figure: str
    rule: str
    verdict: Verdict
    estimate: Estimate | None = None
    why: str = ""
    hint: str = ""

    @property
    def refuses(self) -> bool:
        """Whether the model may not decide. A shadow does not: it is warned of."""
        return self.verdict == "fail" and self.mode != "shadow"

    @property
    def row(self) -> dict[str, str]:
        """What is shown of it, and kept."""
        return {name: getattr(self, name) for name in ("arm", "name", "figure", "rule", "verdict")}


@dataclass(frozen=True, slots=True)
class Report:
    """What the gates say of a generation. `figures`: by the arm's name, where there are labels."""

    gates: tuple[Gate, ...]
    figures: dict[str, Figures]


def run_gates(generation: Generation, base: Path, cpu_ns: ClockNs) -> tuple[Gate, ...]:
    """Return the gates of `examined`."""
    return examined(generation, base, cpu_ns).gates


def examined(generation: Generation, base: Path, cpu_ns: ClockNs) -> Report:
    """Hold every model of a generation to the product's gates.

    `base`: the folder of its product.yaml. `cpu_ns`: the clock of this thread's CPU time, such as
    `time.thread_time_ns`, so that a busy machine fails no model.
    """
    declared = generation.product.models.gates.calibration
    labelled, unreadable = None, None
    if declared.path is not None:
        from gateway.verify.labelled import read_labelled

        try:
            labelled = read_labelled(
                base / declared.path,
                generation.product,
                schema=generation.schema,
                rows_max=declared.rows,
            )
        except UsageError as error:
            unreadable = error
    gates: list[Gate] = []
    found: dict[str, Figures] = {}
    settings: tuple[Champion | Challenger, ...] = (
        generation.product.models.champion,
        *generation.product.models.challengers,
    )
    for arm, setting in zip(generation.arms, settings, strict=True):
        gates += _file_gates(arm, setting)
        rows = None if labelled is None or not len(labelled) else labelled.rows[:COST_RUNS]
        gates.append(_cost_gate(arm, generation.product, rows, cpu_ns))
        if labelled is None:
            gates.append(_unchecked(arm, unreadable))
            continue
        part = _affordable(arm, labelled, cpu_ns)
        more, figures_ = _calibration_gates(arm, setting, generation.product, part, cpu_ns)
        gates += more
        if figures_ is not None:
            found[arm.name] = figures_
    return Report(tuple(gates), found)


def expect_passed(gates: Sequence[Gate], subject: str) -> None:
    """Refuse a generation whose champion or canary fails a gate.

    Raises:
        ModelError: with a line for each gate that failed, and what is likely wrong.
    """
    refusing = [gate for gate in gates if gate.refuses]
    if refusing:
        hints = dict.fromkeys(gate.hint for gate in refusing if gate.hint)
        raise ModelError("\n".join(reasons(refusing)), subject=subject, hint=" ".join(hints))


def reasons(gates: Sequence[Gate]) -> tuple[str, ...]:
    """Return a line for each failed gate, and for each model what is likely wrong with it."""
    lines: list[str] = []
    for arm in dict.fromkeys(gate.arm for gate in gates):
        failed = [gate for gate in gates if gate.arm == arm and gate.verdict == "fail"]
        causes = dict.fromkeys(gate.why for gate in failed if gate.why)
        lines += (f"{arm}: likely cause: {cause}" for cause in causes)
        lines += (f"{arm}: {gate.name} is {gate.figure}, must be {gate.rule}" for gate in failed)
    return tuple(lines)


# The files.


def _file_gates(arm: Arm, setting: Champion | Challenger) -> Iterator[Gate]:
    pinned = setting.sha256 is not None
    yield Gate(
        "sha256",
        arm.name,
        arm.mode,
        f"{arm.classifier.digest[:12]}…",
        "as pinned",
        "pass" if pinned else "not checked",
        hint="" if pinned else "Pin the file: sha256 in product.yaml.",
    )
    golden = arm.golden
    yield Gate(
        "golden vectors",
        arm.name,
        arm.mode,
        "none" if golden is None else f"{golden.rows}, off by {golden.worst:.1e}",
        f"off by at most {SCORE_TOLERANCE:g}",
        "not checked" if golden is None else "pass",
        None if golden is None else Estimate(golden.worst, golden.worst, golden.worst),
        hint="Name a file of features and scores: golden." if golden is None else "",
    )


# The cost.


def _cost_gate(arm: Arm, product: Product, rows: Rows | None, cpu_ns: ClockNs) -> Gate:
    share = product.models.gates.cost.share_of_budget
    limit_us = product.latency.budget_us * share
    p99_us = infer_p99_us(arm.classifier, rows, cpu_ns, enough_us=limit_us)
    failed = p99_us > limit_us
    return Gate(
        "cost",
        arm.name,
        arm.mode,
        f"{_duration(p99_us)} a row (p99)",
        f"at most {_duration(limit_us)}",
        "fail" if failed else "pass",
        Estimate(p99_us, p99_us, p99_us),
        "the model is too heavy for the budget" if failed else "",
        "Export a smaller model (fewer trees or layers), or raise latency.budget_ms or "
        "models.gates.cost.share_of_budget."
        if failed
        else "",
    )


def infer_p99_us(
    classifier: Classifier, rows: Rows | None, cpu_ns: ClockNs, *, enough_us: float = 0.0
) -> float:
    """Return the 99th percentile of what one row takes, in µs of CPU time.

    Of COST_RUNS runs, or as many as two seconds have room for. Where that is more than
    `enough_us`, it is measured again, up to three times, and the least counts: a page fault is no
    cost of the model. `rows`: to be scored; where left out, the classifier's example.
    """
    batch = [classifier.example] if rows is None else [row.tobytes() for row in rows]
    least = np.inf
    left_ns = _COST_NS
    for _ in range(_COST_ROUNDS):
        times_ns: list[int] = []
        for i in range(COST_RUNS + 1):
            before_ns = cpu_ns()
            try:
                classifier.score_one(batch[i % len(batch)])
            except Exception:  # the gate of scores counts them
                classifier.score_one(classifier.example)
            times_ns.append(cpu_ns() - before_ns)
            left_ns -= times_ns[-1]
            if left_ns < 0 and i:
                break
        least = min(least, float(np.quantile(times_ns[1:], 0.99)) / 1000.0)
        if least <= enough_us or left_ns < 0:
            break
    return float(least)


# The probabilities.


def _unchecked(arm: Arm, unreadable: UsageError | None) -> Gate:
    if unreadable is not None:
        said = "; ".join(str(unreadable).splitlines())
        return Gate(
            "calibration",
            arm.name,
            arm.mode,
            "no labelled payments",
            "the file that models.gates.calibration names",
            "fail",
            why=f"the labelled payments cannot be read: {said}",
            hint=unreadable.hint,
        )
    return Gate(
        "calibration",
        arm.name,
        arm.mode,
        "no labelled payments",
        "probabilities hold",
        "not checked",
        hint="Name labelled payments that it was not trained on: "
        "models.gates.calibration: {path: labelled.parquet}.",
    )


def _affordable(arm: Arm, labelled: Labelled, cpu_ns: ClockNs) -> Labelled:
    """Return as many payments, evenly spaced, as the model can score in SCORING_NS."""
    head = labelled.rows[:_TIMED_ROWS]
    before_ns = cpu_ns()
    scores_of(arm.classifier.score, head)
    took_ns = max(1, cpu_ns() - before_ns)
    most = max(_ROWS_MIN, SCORING_NS * len(head) // took_ns)
    if len(labelled) <= most:
        return labelled
    return labelled.of(np.linspace(0, len(labelled) - 1, most).astype(np.intp))


def _calibration_gates(
    arm: Arm,
    setting: Champion | Challenger,
    product: Product,
    labelled: Labelled,
    cpu_ns: ClockNs,
) -> tuple[list[Gate], Figures | None]:
    declared = product.models.gates.calibration
    policy: Policy = arm.policy
    scores = scores_of(arm.classifier.score, labelled.rows)
    p = probabilities(policy, scores, labelled.event_s)
    known = ~np.isnan(p)
    gone = int((~known).sum())
    unscored = gone > UNSCORED_MAX * len(p)
    gates = [
        Gate(
            "scores",
            arm.name,
            arm.mode,
            f"{gone:,} of {len(p):,} missing",
            f"at most {UNSCORED_MAX:.0%}",
            "fail" if unscored else "pass",
            Estimate(float(gone), float(gone), float(gone)),
            "the model gives no number, or none in range, for payments as they come"
            if unscored
            else "",
            "Check missing, min and max of features, and the model's scale." if unscored else "",
        )
    ]
    part = labelled if not gone else labelled.of(known)
    if part.frauds < declared.frauds or part.frauds > len(part) - declared.frauds:
        gates.append(
            Gate(
                "calibration",
                arm.name,
                arm.mode,
                f"{part.frauds:,} frauds in {len(part):,} payments",
                f"{declared.frauds} frauds, and genuine payments",
                "undecided",
                hint="Label more payments, or lower models.gates.calibration.frauds.",
            )
        )
        return gates, None
    sample = sample_of(policy, p[known], part, declared.genuine_kept)
    found = figures(sample, confidence=declared.confidence)
    judged = list(_judged(found, declared, product))
    failed = {rule.name for rule in judged if rule.verdict == "fail"}
    cause = None
    if failed:
        suspect = Suspect(arm, setting, product, part, scores[known], sample, found, cpu_ns)
        cause = likely_cause(suspect, failed)
    for rule in judged:
        broken = rule.verdict == "fail"
        gates.append(
            Gate(
                rule.name,
                arm.name,
                arm.mode,
                rule.figure,
                rule.rule,
                rule.verdict,
                rule.estimate,
                cause.says if broken and cause is not None else "",
                cause.hint if broken and cause is not None else rule.hint,
            )
        )
    return gates, found


@dataclass(frozen=True, slots=True)
class _Judged:
    name: str
    figure: str
    rule: str
    verdict: Verdict
    estimate: Estimate | None
    hint: str = ""


_MORE = "Label more payments: the interval is wider than the rule."


def _judged(found: Figures, gate: CalibrationGate, product: Product) -> Iterator[_Judged]:
    """Yield each rule of the calibration gate with its verdict."""
    yield _within("AUC", found.auc, gate.auc, 1.0, f"at least {gate.auc:g}")
    yield _between("observed/expected", found.ratio, gate.observed_over_expected)
    yield _between("the same in money", found.money, gate.money)
    yield _between("slope", found.slope, gate.slope)
    yield _spiegelhalter(found, gate)
    overall, *categories = found.near
    yield _near("near thresholds", overall, gate)
    if categories:
        worst = max(categories, key=lambda one: _off(one.ratio, gate.near_threshold))
        yield _near(f"near thresholds, {worst.category}", worst, gate)
    yield _excess(found, gate, product)
    saved = found.savings_over_base_rate
    rule = f"at least {gate.savings:.0%} of costs"
    yield _within("savings", saved, gate.savings, np.inf, rule, percent=True)


def _between(name: str, estimate: Estimate, limits: tuple[float, float]) -> _Judged:
    low, high = limits
    return _within(name, estimate, low, high, f"{low:g}..{high:g}")


def _within(
    name: str, estimate: Estimate, low: float, high: float, rule: str, *, percent: bool = False
) -> _Judged:
    verdict = _verdict(estimate, low, high)
    hint = _MORE if verdict == "undecided" else ""
    return _Judged(name, _said(estimate, percent=percent), rule, verdict, estimate, hint)


def _verdict(estimate: Estimate, low: float, high: float) -> Verdict:
    """Fail only where the whole interval lies outside."""
    if isnan(estimate.value):
        return "undecided"
    if estimate.high < low or estimate.low > high:
        return "fail"
    return "pass" if low <= estimate.value <= high else "undecided"


def _off(estimate: Estimate, limits: tuple[float, float]) -> float:
    """Return how far outside the limits an interval lies: below 0 inside."""
    if isnan(estimate.value) or estimate.high <= 0.0:
        return -np.inf
    low, high = limits
    return max(float(np.log(low / estimate.high)), float(np.log(max(estimate.low, 1e-12) / high)))


def _spiegelhalter(found: Figures, gate: CalibrationGate) -> _Judged:
    z, most = found.spiegelhalter_z, quantile(gate.confidence)
    # With enough payments every model is off measurably: this tells, and refuses nothing.
    sound = abs(z) <= most
    return _Judged(
        "Spiegelhalter Z",
        f"{z:.2f}",
        f"{-most:.2f}..{most:.2f}",
        "pass" if sound else "undecided",
        Estimate(z, z, z),
        "" if sound else "It is off measurably; whether it matters, the other rules say.",
    )


def _near(name: str, near: Near, gate: CalibrationGate) -> _Judged:
    low, high = gate.near_threshold
    if not near.n:
        return _Judged(name, "no payments", f"{low:g}..{high:g}", "pass", None)
    verdict = _verdict(near.ratio, low, high)
    hint = _MORE if verdict == "undecided" else ""
    return _Judged(name, _said(near.ratio), f"{low:g}..{high:g}", verdict, near.ratio, hint)


def _excess(found: Figures, gate: CalibrationGate, product: Product) -> _Judged:
    currency = product.costs.currency
    per_1000 = 1000.0 / minor_per_major(currency)
    excess, cost = (
        Estimate(*(value * per_1000 for value in one)) for one in (found.excess_cost, found.cost)
    )
    limit = gate.excess_cost_per_1000
    if limit is None:
        limit = EXCESS_SHARE_MAX * cost.value
    verdict = _verdict(excess, -np.inf, limit)
    return _Judged(
        "excess cost per 1,000",
        "unknown"
        if isnan(excess.value)
        else f"{_sum(excess.value)} {currency} ({_sum(excess.low)} to {_sum(excess.high)})",
        f"at most {_sum(limit)} {currency}",
        verdict,
        excess,
        _MORE if verdict == "undecided" else "",
    )


def _said(estimate: Estimate, *, percent: bool = False) -> str:
    if isnan(estimate.value):
        return "unknown"
    value, low, high = (f"{one:.1%}" if percent else f"{one:.3g}" for one in estimate)
    return f"{value} ({low} to {high})"


def _sum(major: float) -> str:
    return f"{major:,.0f}" if abs(major) >= 100 else f"{major:.2f}"


def _duration(us: float) -> str:
    return f"{us:.0f} µs" if us < 1000 else f"{us / 1000:.3g} ms"
