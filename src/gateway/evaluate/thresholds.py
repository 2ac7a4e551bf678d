"""Where actions begin: by the costs (plug-in), and by what the labels say was cheapest. Pure.

A payment goes up from one action to its neighbour when p ≥ t, and t follows from the costs and
the amount. The estimator shifts p's log-odds by δ, for all payments of a cell alike, and takes
the δ that costs least by the labels: the empirical threshold is t shifted by −δ. Where p is
calibrated the two agree but for noise; where they do not, p is off just where it decides, by
about that factor of the odds.

δ goes in steps of `STEP` up to `REACH` either way; of equally cheap ones the one nearest 0 is
taken. Intervals are drawn over clusters. The least of many costs looks cheaper than it is, so
the saving is cross-fitted: each fold of clusters is acted on by the δ that the others taught.
(The interval of a minimiser is rough, Abrevaya and Huang 2005: a gap counts where the saving's
interval lies above 0, too.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from statistics import NormalDist
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.evaluate.bootstrap import (
    DRAWS,
    Interval,
    drawn_sums,
    groups_of,
    interval,
    mean_intervals,
)
from gateway.evaluate.fit import folds_of
from gateway.evaluate.intervals import CONFIDENCE
from gateway.evaluate.stakes import Boundary, Stakes
from gateway.product import Action

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Places = NDArray[np.int64]

STEP, REACH = 0.05, 4.0
SHIFTS: Floats = np.arange(-round(REACH / STEP), round(REACH / STEP) + 1, dtype=np.float64) * STEP
"""The δ that are tried, in rising order, 0 in the middle."""

FRAUDS_MIN = 30
"""With fewer frauds, or genuine payments, near a threshold no verdict is given."""

_HOME = len(SHIFTS) // 2
_NEAREST_FIRST = np.argsort(np.abs(SHIFTS), kind="stable")

Verdict = Literal["agrees", "miscalibrated", "too few labels"]


class Payments(NamedTuple):
    """Labelled payments, n of each: P(fraud) as it is served, label, cluster, weight.

    The weights make of the sample what is served; they are 1 where it is that already.
    """

    p: Floats
    fraud: Flags
    cluster: Places
    weight: Floats


class Curve(NamedTuple):
    """Cost per 1,000 decisions over δ (`SHIFTS`), against δ = 0, with the draws' 95% band.

    In minor units.
    """

    cost: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Threshold:
    """One boundary of one cell. Thresholds are those of its median payment.

    `shift` is δ: above 0 fraud is likelier than p says. `saving` is what acting on the empirical
    threshold would have saved per 1,000 decisions of the whole data, cross-fitted, in minor
    units. `frauds` and `payments` count those within `REACH` of the threshold; where these are
    too few there are no intervals.
    """

    lower: Action
    upper: Action
    payments: int
    frauds: int
    plug_in: float
    empirical: Interval
    shift: Interval
    saving: Interval
    verdict: Verdict
    curve: Curve


def thresholds(
    stakes: Stakes,
    payments: Payments,
    cells: Mapping[str, Flags],
    chance: np.random.Generator,
    *,
    draws: int = DRAWS,
) -> Iterator[tuple[str, Threshold]]:
    """Yield the boundaries of each cell that has any, cell by cell.

    Args:
        stakes: of the same n payments.
        payments: as above.
        cells: masks (n,) by name; they may overlap.
        chance: for the draws and the folds.
        draws: of the bootstrap.
    """
    boundaries = stakes.boundaries()
    log_odds = _log_odds(payments.p)
    rows = [
        _row(name, boundary, payments, log_odds, mask & ~np.isnan(boundary.threshold))
        for name, mask in cells.items()
        for boundary in boundaries
    ]
    telling = sum(row.is_telling for row in rows)
    for row in rows:
        if row.here.any():
            yield row.name, _threshold(row, payments, chance, draws, telling)


class _Row(NamedTuple):
    """One boundary in one cell: `here` (n,) are its payments, `edge` the δ from which on each of
    them goes up."""

    name: str
    boundary: Boundary
    here: Flags
    edge: Floats
    payments: int
    frauds: int

    @property
    def is_telling(self) -> bool:
        """Whether there are labels enough for a verdict."""
        return min(self.frauds, self.payments - self.frauds) >= FRAUDS_MIN


def _row(name: str, boundary: Boundary, payments: Payments, log_odds: Floats, here: Flags) -> _Row:
    edge = _log_odds(boundary.threshold[here]) - log_odds[here]
    near = np.abs(edge) <= REACH
    frauds = int(payments.fraud[here][near].sum())
    return _Row(name, boundary, here, edge, int(near.sum()), frauds)


def _threshold(
    row: _Row, payments: Payments, chance: np.random.Generator, draws: int, telling: int
) -> Threshold:
    here = row.here
    at, gap = row.boundary.threshold[here], row.boundary.gap[here]
    fraud, cluster = payments.fraud[here], payments.cluster[here]
    # What going up costs, by the label.
    weight = payments.weight[here] / float(payments.weight.sum())
    rise = 1000.0 * weight * gap * (at - fraud)
    place = np.searchsorted(SHIFTS, row.edge - 1e-12)

    group, groups = groups_of(cluster, chance)
    sums = _steps(rise, place, group, groups)
    curve = _curves(sums.sum(axis=0)[None, :])
    best, typical = float(_cheapest(curve)[0]), float(np.median(_log_odds(at)))
    shift, saving = Interval(best, nan, nan, nan), Interval(nan, nan, nan, nan)
    low = high = curve[0]
    verdict: Verdict = "too few labels"
    if row.is_telling and groups > 1:
        drawn = np.concatenate([_curves(part) for part in drawn_sums(sums, chance, draws)])
        shift = interval(best, _cheapest(drawn))
        low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
        saved = _cross_fitted(rise, place, fraud, cluster, chance)
        if saved is not None:
            n = len(saved)
            (mean,) = mean_intervals(saved[:, None], cluster, chance, draws=draws)
            saving = Interval(*(n * figure for figure in mean))
            least = min(saving.low, saving.value - _sure(telling) * saving.error)
            verdict = "miscalibrated" if shift.excludes_nought and least > 0.0 else "agrees"
    # A typical payment's threshold, and the same shifted: the higher δ, the lower it is.
    empirical = Interval(
        _probability(typical - shift.value),
        _probability(typical - shift.high),
        _probability(typical - shift.low),
        nan,
    )
    return Threshold(
        lower=row.boundary.lower,
        upper=row.boundary.upper,
        payments=row.payments,
        frauds=row.frauds,
        plug_in=_probability(typical),
        empirical=empirical,
        shift=shift,
        saving=saving,
        verdict=verdict,
        curve=Curve(curve[0], low, high),
    )


def _sure(rows: int) -> float:
    """Return how many standard errors are sure (95%) where so many rows are looked at."""
    return NormalDist().inv_cdf(1.0 - (1.0 - CONFIDENCE) / 2.0 / max(rows, 1))


def _steps(rise: Floats, place: Places, group: Places, groups: int) -> Floats:
    """Return what each group's costs go up by at each δ, (groups, shifts)."""
    inside = place < len(SHIFTS)
    flat = group[inside] * len(SHIFTS) + place[inside]
    cells = groups * len(SHIFTS)
    sums = np.bincount(flat, weights=rise[inside], minlength=cells).astype(np.float64)
    return sums.reshape(groups, len(SHIFTS))


def _curves(steps: Floats) -> Floats:
    """Return costs over δ against δ = 0, (m, shifts)."""
    curves = steps.cumsum(axis=1)
    against: Floats = curves - curves[:, _HOME : _HOME + 1]
    return against


def _cheapest(curves: Floats) -> Floats:
    """Return the δ that costs least on each curve, (m,): of equal ones the nearest to 0."""
    # Sums in another order differ in their last bits: that is no cheaper δ.
    slack = 1e-9 * (1.0 + np.abs(curves).max(axis=1, keepdims=True))
    least = curves <= curves.min(axis=1, keepdims=True) + slack
    shifts: Floats = SHIFTS[_NEAREST_FIRST[least[:, _NEAREST_FIRST].argmax(axis=1)]]
    return shifts


def _cross_fitted(
    rise: Floats, place: Places, fraud: Flags, cluster: Places, chance: np.random.Generator
) -> Floats | None:
    """Return what each payment would have saved under the δ that other folds taught, (n,)."""
    try:
        fold = folds_of(cluster, fraud, chance)
    except ValueError:
        return None
    saved = np.zeros(len(rise))
    steps = _steps(rise, place, fold, int(fold.max()) + 1)
    for held in range(len(steps)):
        taught = _curves((steps.sum(axis=0) - steps[held])[None, :])
        shift = int(np.searchsorted(SHIFTS, _cheapest(taught)[0] - STEP / 2))
        inside = fold == held
        goes_up, went_up = place[inside] <= shift, place[inside] <= _HOME
        saved[inside] = rise[inside] * (went_up.astype(np.float64) - goes_up)
    return saved


def round_bands(amount_minor: Floats | Places, minor_per_major: int) -> tuple[float, ...]:
    """Return edges of amount bands in major units: 1-2-5 numbers near the data's quantiles."""
    edges: list[float] = []
    for quantile in np.quantile(amount_minor, [0.5, 0.8, 0.95]).tolist():
        major = max(quantile / minor_per_major, 1.0)
        power = 10.0 ** np.floor(np.log10(major))
        nice = min((1, 2, 5, 10), key=lambda one: abs(np.log(one * power / major)))
        edges.append(float(nice * power))
    return tuple(sorted(set(edges)))


class Price(NamedTuple):
    """What a scarce review is worth. Money in minor units, rates in payments an hour.

    `shadow_price` is added to each review's cost; `wanted` are the reviews an hour without it,
    `taken` with it. `cost_per_1000` is what the capacity costs per 1,000 decisions: the expected
    cost with it above that without it, the price itself left out.
    """

    shadow_price: float
    wanted: float
    taken: float
    capacity: float
    cost_per_1000: float


def review_price(
    stakes: Stakes,
    p: Floats,
    weight: Floats,
    *,
    priced_at: float,
    payments_per_hour: float,
    capacity_per_hour: float,
    resolution: float = 0.01,
) -> Price:
    """Return the least shadow price at which the expected reviews fit the capacity.

    By bisection over whole multiples of `resolution` (minor units): reviews only get fewer as
    their price rises. `priced_at` is the shadow price that the stakes have already.

    Raises:
        ValueError: review is none of the actions.
    """
    if Action.REVIEW not in stakes.actions:
        raise ValueError("review is none of the product's actions")
    at = stakes.actions.index(Action.REVIEW)
    free = stakes.alpha.copy()
    free[:, at] -= priced_at
    costs = free + stakes.beta * p[:, None]
    share = weight / weight.sum()

    def reviewed(price: float) -> Flags:
        priced = costs.copy()
        priced[:, at] += price
        chosen: Flags = priced.argmin(axis=1) == at
        return chosen

    def reviews(price: float) -> float:
        return float(share[reviewed(price)].sum()) * payments_per_hour

    wanted = reviews(0.0)
    below, enough = 0, 0
    if wanted > capacity_per_hour:
        others = np.delete(costs, at, axis=1).min(axis=1)
        enough = int(np.ceil(max(float((others - costs[:, at]).max()), 0.0) / resolution)) + 1
        while enough - below > 1:
            middle = (below + enough) // 2
            if reviews(middle * resolution) > capacity_per_hour:
                below = middle
            else:
                enough = middle
    price = enough * resolution
    priced = costs.copy()
    priced[:, at] += price
    rows = np.arange(len(p))
    dearer = costs[rows, priced.argmin(axis=1)] - costs.min(axis=1)
    return Price(
        shadow_price=price,
        wanted=wanted,
        taken=reviews(price),
        capacity=capacity_per_hour,
        cost_per_1000=float((dearer * share).sum()) * 1000.0,
    )


def bands_of(amount_minor: Places, edges_minor: Sequence[float]) -> Places:
    """Return the band of each amount, (n,): 0 is up to and with the first edge."""
    return np.searchsorted(np.array(edges_minor), amount_minor, side="left").astype(np.int64)


def _log_odds(p: Floats) -> Floats:
    q = np.clip(p, 1e-15, 1.0 - 1e-15)
    odds: Floats = np.log(q) - np.log1p(-q)
    return odds


def _probability(log_odds: float) -> float:
    return float(1.0 / (1.0 + np.exp(-log_odds)))
