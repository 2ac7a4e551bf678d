"""What is likely wrong with a model whose probabilities do not hold.

Each suspicion is tried on the labelled payments themselves: the other side of the output, columns
in another order, odds moved to another base rate. What puts the figures right is the cause.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from math import exp, inf, isfinite, log
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gateway.evaluate.calibration import (
    Figures,
    Floats,
    Recalibration,
    Sample,
    auc,
    observed_over_expected,
    recalibration,
)
from gateway.evaluate.intervals import UNKNOWN, Estimate
from gateway.model import Classifier, Rows
from gateway.model.generation import Arm
from gateway.model.order import Order, exchangeable, exchanged, likely_orders, told
from gateway.product import Challenger, Champion, Feature, Product
from gateway.verify.sample import probabilities

if TYPE_CHECKING:
    from gateway.verify.labelled import Labelled

_TRIED_ROWS = 3000
"""Rows of a search for another order: as many frauds as there are, up to a half."""

_SEARCH_NS = 6_000_000_000
"""CPU time of the search for another order."""

_PAIRS_MAX = 500
_PAIRS_AGAIN = 60
_EXCHANGES_MAX = 8
_EXCHANGES_SURE, _EXCHANGES_HELD = 1, 3
"""So few exchanges make no noise rank; so few more where probabilities hold then, too."""

_HELD_ROWS = 20_000
_STEP = 0.005
_GAIN = 0.02
"""Of the AUC: what an exchange, and another order as a whole, must add to be believed."""

_RANKS = 0.6
"""The AUC that the right order must have for certain: noise ranks a little in some order."""

_SURE = 0.9999

_NEARLY_ONE = (0.8, 1.25)
_BALANCED = (0.25, 0.75)
"""The share of fraud that a model trained on balanced classes believes in."""


@dataclass(frozen=True, slots=True)
class Cause:
    """What is likely wrong, and what to try."""

    says: str
    hint: str


@dataclass(frozen=True, slots=True, eq=False)
class Suspect:
    """A model that fails a gate, and what is known of it: n labelled payments and its scores.

    `cpu_ns`: the clock that bounds the search.
    """

    arm: Arm
    setting: Champion | Challenger
    product: Product
    labelled: Labelled
    scores: Floats
    sample: Sample
    figures: Figures
    cpu_ns: Callable[[], int]


def likely_cause(suspect: Suspect, failed: Collection[str]) -> Cause:
    """Return the likeliest cause. `failed`: the names of the gates that it fails."""
    other_side = 1.0 - suspect.figures.auc.value
    is_other = other_side >= suspect.product.models.gates.calibration.auc
    found = None
    if is_other and _is_sound(suspect, suspect.figures.recalibration, sign=-1.0):
        found = _swapped_output(suspect)
    found = found or _permuted_columns(suspect)
    if found is None and "AUC" in failed:
        found = _swapped_output(suspect) if is_other else _weak(suspect)
    found = found or _wrong_odds(suspect) or _wrong_slope(suspect)
    if found is None and "savings" in failed:
        found = _weak(suspect)
    return found or _local(suspect)


def _is_sound(suspect: Suspect, fitted: Recalibration | None, *, sign: float = 1.0) -> bool:
    """Return whether log-odds reach about as far as they should."""
    low, high = suspect.product.models.gates.calibration.slope
    return fitted is not None and low <= sign * fitted.slope <= high


# The other side of the output.


def _swapped_output(suspect: Suspect) -> Cause:
    figures = suspect.figures
    output = suspect.setting.output or suspect.product.models.champion.output
    name = output.name if output.column is None else f"{output.name}[{output.column}]"
    says = (
        f"output {name} ranks fraud below genuine payments (AUC {figures.auc.value:.3f}; its other "
        f"side has {1 - figures.auc.value:.3f}): it is P(genuine), or another swapped column"
    )
    other = _other_column(output.column)
    low, high = suspect.arm.policy.calibration.domain
    if isfinite(low) and isfinite(high):
        p = probabilities(suspect.arm.policy, low + high - suspect.scores, suspect.labelled.event_s)
        ratio = observed_over_expected(p, suspect.sample.y)
        says += f". 1 − score has observed/expected {ratio.value:.2f}"
    hint = (
        f'Name the column of fraud: output: "{output.name}[{other}]".'
        if other is not None
        else "Turn it round: scale: [1, 0]."
    )
    return Cause(says, f"{hint} Or the label's value of fraud is the wrong one.")


def _other_column(column: int | str | None) -> int | None:
    return {0: 1, 1: 0}.get(column) if isinstance(column, int) else None


# Columns in another order.


@dataclass(frozen=True, slots=True, eq=False)
class _Trial:
    """Rows to be scored in another order of columns; half of them confirm what the others found.

    `rising`: 1 where a high score means fraud, else -1. `until_ns`: of CPU time, when to stop.
    """

    classifier: Classifier
    rows: Rows
    y: Floats
    rising: float
    cpu_ns: Callable[[], int]
    until_ns: int

    def auc(self, order: Sequence[int]) -> float:
        """Return the AUC of the half that is searched; -inf where the model takes no such rows."""
        if self.cpu_ns() > self.until_ns:
            return -inf
        scores = self.scores(self.rows[::2], order)
        return -inf if scores is None else auc(scores, self.y[::2]).value

    def confirmed(self, order: Sequence[int]) -> Estimate:
        """Return the AUC of the other half."""
        scores = self.scores(self.rows[1::2], order)
        return UNKNOWN if scores is None else auc(scores, self.y[1::2], confidence=_SURE)

    def scores(self, rows: Rows, order: Sequence[int]) -> Floats | None:
        """Return what rises with P(fraud), (n,); None where the model takes no such rows."""
        moved = np.ascontiguousarray(rows[:, list(order)])
        try:
            scores = self.rising * np.array(self.classifier.score(moved), dtype=np.float64)
        except Exception:  # ONNX Runtime raises its own, unrelated classes
            return None
        return scores if np.isfinite(scores).all() else None


def _permuted_columns(suspect: Suspect) -> Cause | None:
    trial = _trial(suspect)
    order, exchanges = _other_order(trial, suspect.product.columns, suspect.labelled.file_order)
    if order == tuple(range(len(order))):
        return None
    return _confirmed(suspect, trial, order, exchanges=exchanges)


def _other_order(trial: _Trial, features: Sequence[Feature], in_file: Order) -> tuple[Order, int]:
    """Return the order that ranks best, or the declared one; and how many exchanges led there."""
    same = tuple(range(len(features)))
    best, best_auc = same, trial.auc(same)
    for order in likely_orders(features, in_file):
        reached = trial.auc(order)
        if reached > best_auc + _STEP:
            best, best_auc = order, reached
    path = _exchanges(trial, features, best, best_auc)
    if best != same and len(path) > 1:
        # An order that people use and exchanges on top: exchanges alone may be the shorter way.
        alone = _exchanges(trial, features, same, trial.auc(same))
        path = min(path, alone, key=lambda one: (-round(_reached(trial, one), 2), len(one)))
    aucs = [trial.confirmed(order).value for order in path]
    # The first that ranks as well as any: exchanges that gain no more are noise.
    ranked = zip(path, aucs, strict=True)
    best = next(order for order, reached in ranked if reached >= max(aucs) - _STEP)
    return best, path.index(best)


def _exchanges(
    trial: _Trial, features: Sequence[Feature], start: Order, start_auc: float
) -> list[Order]:
    """Return the orders on the way from `start`, an exchange of two columns each."""
    path, reached = [start], start_auc
    pairs = _pairs(trial, features, start, start_auc)
    while len(path) <= _EXCHANGES_MAX:
        order = path[-1]
        tried = sorted(((trial.auc(exchanged(order, i, j)), i, j) for i, j in pairs), reverse=True)
        if not tried or tried[0][0] <= reached + _STEP:
            break
        reached, i, j = tried[0]
        path.append(exchanged(order, i, j))
        # What gained nothing then gains nothing now, but for the columns that were moved.
        pairs = [(a, b) for _, a, b in tried[:_PAIRS_AGAIN]]
        pairs += [pair for pair in exchangeable(features) if {i, j} & {*pair} and pair not in pairs]
    return path


def _reached(trial: _Trial, path: Sequence[Order]) -> float:
    return max(trial.confirmed(order).value for order in path)


def _pairs(
    trial: _Trial, features: Sequence[Feature], order: Order, reached: float
) -> list[tuple[int, int]]:
    """Return the pairs of columns to be exchanged; of many, those with one that matters."""
    pairs = exchangeable(features)
    if len(pairs) <= _PAIRS_MAX:
        return pairs
    draw = np.random.default_rng(0)
    moved: list[tuple[float, int]] = []
    for i in range(len(features)):
        rows = trial.rows.copy()
        rows[:, order[i]] = draw.permutation(rows[:, order[i]])
        moved.append((abs(replace(trial, rows=rows).auc(order) - reached), i))
    matter = {i for _, i in sorted(moved, reverse=True)[: max(1, _PAIRS_MAX // len(features))]}
    return [pair for pair in pairs if matter & {*pair}]


def _trial(suspect: Suspect) -> _Trial:
    y = suspect.sample.y
    frauds, others = np.flatnonzero(y > 0.5), np.flatnonzero(y <= 0.5)
    frauds = frauds[_spaced(len(frauds), _TRIED_ROWS // 2)]
    others = others[_spaced(len(others), _TRIED_ROWS - len(frauds))]
    # Both halves get every other fraud and every other genuine payment.
    picked = np.concatenate([frauds[: len(frauds) // 2 * 2], others])
    probe = np.quantile(suspect.scores, [0.1, 0.9])
    low, high = probabilities(suspect.arm.policy, probe, np.zeros(2)).tolist()
    rising = -1.0 if high < low else 1.0
    until_ns = suspect.cpu_ns() + _SEARCH_NS
    rows, classifier = suspect.labelled.rows[picked], suspect.arm.classifier
    return _Trial(classifier, rows, y[picked], rising, suspect.cpu_ns, until_ns)


def _spaced(n: int, most: int) -> NDArray[np.intp]:
    return np.linspace(0, n - 1, min(n, most)).astype(np.intp)


def _confirmed(suspect: Suspect, trial: _Trial, order: Order, *, exchanges: int) -> Cause | None:
    """Return the cause if the rows that were not searched say so as well.

    And if log-odds reach as far as they should then: some order makes any model rank better. After
    many `exchanges` that may be all there is to it, and both causes are named.
    """
    was, now = trial.confirmed(range(len(order))), trial.confirmed(order)
    if not (now.value - was.value >= _GAIN and now.low > max(was.value, _RANKS)):
        return None
    scores = trial.scores(trial.rows, order)
    if scores is None:
        return None
    p = probabilities(suspect.arm.policy, trial.rising * scores, np.zeros(len(scores)))
    known = ~np.isnan(p)
    if not _is_sound(suspect, recalibration(p[known], trial.y[known])):
        return None
    what, right = told(order, suspect.product.columns)
    rises = f"with {what} the AUC rises from {was.value:.3f} to {now.value:.3f}"
    listed = (
        "List features in the order that the model was trained with; as far as the labels tell: "
        f"{right}."
    )
    if exchanges > _EXCHANGES_SURE and not _holds(suspect, trial, order, exchanges):
        return Cause(
            f"columns are permuted, or the model is weak and ranks better in some order: {rises}",
            f"{listed} If they stand in that order already, train it on more data or better "
            "features.",
        )
    return Cause(f"columns are permuted: {rises}", listed)


def _holds(suspect: Suspect, trial: _Trial, order: Order, exchanges: int) -> bool:
    """Return whether as many frauds come as are expected in another order, after few exchanges."""
    if exchanges > _EXCHANGES_HELD:
        return False
    rows = _spaced(len(suspect.labelled), _HELD_ROWS)
    scores = trial.scores(suspect.labelled.rows[rows], order)
    if scores is None:
        return False
    p = probabilities(suspect.arm.policy, trial.rising * scores, np.zeros(len(scores)))
    known = ~np.isnan(p)
    low, high = suspect.product.models.gates.calibration.observed_over_expected
    ratio = observed_over_expected(p[known], suspect.sample.y[rows][known])
    return low <= ratio.value <= high


# No better than no model.


def _weak(suspect: Suspect) -> Cause:
    found = suspect.figures
    saved = found.savings_over_base_rate
    return Cause(
        f"the model is weak: it hardly tells fraud from genuine payments (AUC {found.auc.value:.3f}"
        f", {found.auc.low:.3f} to {found.auc.high:.3f}), and acting on it saves "
        f"{saved.value:.1%} of the costs without a model",
        "Train it on more data or better features, and check that features mean here what they "
        "meant there.",
    )


# The odds.


def _wrong_odds(suspect: Suspect) -> Cause | None:
    """Odds that are off by one factor: of another base rate than the payments have."""
    found = suspect.figures.recalibration
    if found is None:
        return None
    rate = suspect.figures.frauds / (suspect.sample.decisions or suspect.figures.n)
    believed = _believed_rate(found.shift, rate)
    sure = abs(found.shift) > max(log(1.2), 3.0 * found.se_shift)
    if not sure:
        return None
    straight = _NEARLY_ONE[0] <= found.slope <= _NEARLY_ONE[1]
    balanced = _BALANCED[0] <= believed <= _BALANCED[1] and rate < _BALANCED[0]
    if not straight and not balanced:
        return None
    factor = exp(-found.shift)
    off = f"{factor:.3g} times too high" if factor > 1 else f"{1 / factor:.3g} times too low"
    declared = suspect.setting.base_rate
    if balanced:
        says = (
            f"the odds are {off}, as of a model trained on balanced classes (fraud and genuine "
            f"about 1:1, or class_weight balanced) and not calibrated: these payments have "
            f"{rate:.3%} fraud"
        )
    else:
        says = (
            f"the odds are {off}, as of a model calibrated where {believed:.3g} of the payments "
            f"were fraud: these have {rate:.3g}"
        )
    if declared is not None and 0.5 < rate / declared.calibrated_at < 2.0:
        hint = (
            f"The payments have the base rate of calibrated_at, {declared.calibrated_at:g}. Where "
            "genuine ones were left out of the file, say models.gates.calibration.genuine_kept: "
            f"{min(1.0, exp(found.shift) ** -1):.3g}; else leave base_rate out."
        )
    elif declared is not None:
        hint = (
            f"base_rate moves them from {declared.calibrated_at:g} to {declared.serving:g}: "
            "correct it, or run gateway calibrate."
        )
    elif straight:
        hint = (
            f"Put base_rate: {{calibrated_at: {believed:.4g}, serving: {rate:.4g}}} beside the "
            "model, or run gateway calibrate."
        )
    else:
        hint = "Run gateway calibrate on labelled payments."
    return Cause(says, hint)


def _believed_rate(shift: float, rate: float) -> float:
    """Return the base rate at which odds that are off by `shift` would be right."""
    return 1.0 / (1.0 + exp(shift) * (1.0 - rate) / rate)


def _wrong_slope(suspect: Suspect) -> Cause | None:
    slope = suspect.figures.slope
    if suspect.figures.recalibration is None or _NEARLY_ONE[0] <= slope.value <= _NEARLY_ONE[1]:
        return None
    if slope.value < 1:
        says = (
            f"the model is too sure of itself (slope {slope.value:.2f}): log-odds reach "
            f"{1 / max(slope.value, 1e-3):.2g} times too far, as of one that was fitted too "
            "closely and not calibrated"
        )
    else:
        says = (
            f"the model is not sure enough (slope {slope.value:.2f}): log-odds reach "
            f"{1 / slope.value:.2g} of how far they should, as of averaged trees or a smooth score"
        )
    return Cause(says, "Run gateway calibrate on labelled payments.")


def _local(suspect: Suspect) -> Cause:
    """Name where the probabilities are off, if neither odds nor slope are as a whole."""
    low, high = suspect.product.models.gates.calibration.near_threshold
    off = [near for near in suspect.figures.near if near.ratio.low > high or near.ratio.high < low]
    refitted = recalibration(suspect.sample.p, suspect.sample.y)
    if off:
        where = ", ".join(near.category or "all categories" for near in off)
        says = (
            f"the probabilities are off near the thresholds ({where}): "
            f"{off[0].expected:.3%} expected, {off[0].observed:.3%} came"
        )
    elif refitted is None:
        says = "the probabilities tell fraud from genuine without an error: is the label a feature?"
    else:
        says = (
            f"the probabilities are off (intercept {refitted.intercept:.2f}, slope "
            f"{refitted.slope:.2f} of the log-odds)"
        )
    return Cause(says, "Run gateway calibrate on labelled payments like those to be served.")
