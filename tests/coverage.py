"""Do 95 % intervals hold the truth 95 times of 100? By worlds whose truth is known.

    python tests/coverage.py --seeds 200

Customers have random effects and may be defrauded in bursts; declines have no labels but for
the 1 to 5 % that are explored; fraud has a base rate of 0.1 to 2 %; reports are late, and those of
the last days have not come. A row is one interval: its nominal and its observed coverage, the Monte
Carlo standard error of that, the median width as a share of the truth, and in how many worlds there
was an interval. It covers if it is no more than three standard errors short.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import erf, inf, log, sqrt
from statistics import median
from typing import NamedTuple

import numpy as np

from gateway.evaluate.delay import completed, curve
from gateway.evaluate.intervals import Figure
from gateway.evaluate.rates import (
    expected_ratio,
    pooled_design_effect,
    rate_difference,
    rate_ratio,
    rates,
    ratio_of_sums,
)
from gateway.evaluate.sums import Amounts, Cohorts, Counts, Reports, SupportSums
from gateway.evaluate.support import Target, bounds, explored, model_implied, supported_ratio

B = 128
NOMINAL = 0.95
TARGETS: tuple[Target, ...] = (
    "false_positive_share",
    "false_positive_rate",
    "true_positive_rate",
)


class Seen(NamedTuple):
    """One interval of one seed, and what it should hold."""

    name: str
    truth: float
    figure: Figure


@dataclass(frozen=True)
class Row:
    name: str
    said: float
    coverage: float
    width: float
    seeds: int

    @property
    def error(self) -> float:
        return sqrt(NOMINAL * (1.0 - NOMINAL) / max(1, self.seeds * self.said))

    @property
    def covers(self) -> bool:
        return self.said == 0.0 or self.coverage >= NOMINAL - 3.0 * self.error


def holds(seen: Seen) -> bool:
    low, high = seen.figure.low, seen.figure.high
    return (low is None or low <= seen.truth) and (high is None or seen.truth <= high)


def width(seen: Seen) -> float:
    low, high = seen.figure.low, seen.figure.high
    return inf if low is None or high is None else (high - low) / abs(seen.truth or 1.0)


def coverage(world: Callable[[np.random.Generator], Iterator[Seen]], seeds: int) -> list[Row]:
    """Return a row for each interval of a world, in the world's order."""
    rows: dict[str, list[Seen]] = {}
    for seed in range(seeds):
        for seen in world(np.random.default_rng(seed)):
            rows.setdefault(seen.name, []).append(seen)
    made = []
    for name, all_seen in rows.items():
        told = [one for one in all_seen if (one.figure.low, one.figure.high) != (None, None)]
        covered = sum(map(holds, told)) / len(told) if told else 0.0
        wide = median(map(width, told)) if told else inf
        made.append(Row(name, len(told) / len(all_seen), covered, wide, len(all_seen)))
    return made


# --- Events of customers ----------------------------------------------------------------------


@dataclass(frozen=True)
class Customers:
    """`many` customers with about `payments` each; a part of them in the small group.

    `uneven`: customers' sizes are Pareto's (1.2), up to a third of all payments.
    `kind`: "single" events are independent; "alike" customers have a rate of their own (intraclass
    correlation 0.05); in "bursts", 3 of 10 payments of a few customers are events.
    """

    many: int = 2_000
    payments: float = 8.0
    rate: float = 0.005
    small_rate: float = 0.0075
    small: float = 0.15
    kind: str = "alike"
    uneven: bool = False

    def counts(self, chance: np.random.Generator) -> Counts:
        """Return counts (2, B): the small group, the others."""
        n = chance.poisson(self.payments * chance.gamma(1.0, 1.0, self.many))
        if self.uneven:
            size = self.payments * (0.2 + chance.pareto(1.2, self.many))
            n = np.minimum(size, self.payments * self.many / 3.0).astype(int)
        small = chance.random(self.many) < self.small
        p = np.where(small, self.small_rate, self.rate)
        if self.kind == "alike":
            p = chance.beta(19.0 * p, 19.0 * (1.0 - p))
        elif self.kind == "bursts":
            p = np.where(chance.random(self.many) < p / 0.3, 0.3, 0.0)
        k = chance.binomial(n, p)
        bucket = chance.integers(0, B, self.many)
        parts = [
            (
                np.bincount(bucket[part], k[part].astype(float), B),
                np.bincount(bucket[part], n[part].astype(float), B),
            )
            for part in (small, ~small)
        ]
        return Counts(np.stack([k for k, _ in parts]), np.stack([n for _, n in parts]))

    def __call__(self, chance: np.random.Generator) -> Iterator[Seen]:
        counts = self.counts(chance)
        one, other = (Counts(k, n) for k, n in zip(counts.k, counts.n, strict=True))
        like = pooled_design_effect(counts)
        both = rates(counts)
        yield Seen("rate, large group", self.rate, both[1])
        yield Seen("rate, small group", self.small_rate, both[0])
        yield Seen(
            "ratio of rates",
            self.small_rate / self.rate,
            rate_ratio(one, other, like=like).figure,
        )
        yield Seen(
            "difference of rates",
            self.small_rate - self.rate,
            rate_difference(one, other, like=like),
        )


@dataclass(frozen=True)
class Losses(Customers):
    """Money lost over money turned over; amounts are lognormal, capped where a cap is declared."""

    sigma: float = 1.0
    cap: float | None = None

    def __call__(self, chance: np.random.Generator) -> Iterator[Seen]:
        counts = self.counts(chance)
        k, n = (one.sum(axis=0) for one in counts)

        def amounts(count: np.ndarray) -> np.ndarray:
            place = np.repeat(np.arange(B), count.astype(int))
            each = np.exp(self.sigma * chance.standard_normal(len(place)))
            return np.bincount(place, np.minimum(each, self.cap or inf), B)

        over = amounts(k)
        under = amounts(n - k) + over
        truth = self.rate * (1.0 - self.small) + self.small_rate * self.small
        yield Seen("loss over turnover", truth, ratio_of_sums(Amounts(over, under), cap=self.cap))


# --- Declines -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Declines:
    """Payments with a risk z ~ customer + payment; the model says sigmoid(z), truth is
    sigmoid(z - off); what is above `threshold` is declined, and explored with chance e.

    `weights`: half of the payments are explored with e/3 only. `unreached`: this share is never.
    The small group has a risk of its own.
    """

    many: int = 3_000
    payments: float = 6.0
    base: float = 0.004
    small_base: float = 0.006
    small: float = 0.3
    e: float = 0.05
    threshold: float = 0.08
    off: float = 0.0
    weights: bool = False
    unreached: float = 0.0
    between: float = 0.8
    within: float = 1.4

    def truth(self, base: float) -> dict[Target, float]:
        """Return the targets by integrating over z."""
        sd = sqrt(self.between**2 + self.within**2)
        z = np.linspace(-9.0, 9.0, 200_001)
        mass = np.exp(-(z**2) / 2.0)
        z = log(base) + sd * z
        fraud = 1.0 / (1.0 + np.exp(-(z - self.off)))
        e = self.e * (2.0 / 3.0 if self.weights else 1.0) * (1.0 - self.unreached)
        out = mass * (1.0 / (1.0 + np.exp(-z)) > self.threshold) * (1.0 - e)
        return {
            "false_positive_share": float((out * (1.0 - fraud)).sum() / out.sum()),
            "false_positive_rate": float(
                (out * (1.0 - fraud)).sum() / (mass * (1.0 - fraud)).sum()
            ),
            "true_positive_rate": float((out * fraud).sum() / (mass * fraud).sum()),
        }

    def sums(self, chance: np.random.Generator) -> list[SupportSums]:
        """Return the sums of the small group, and of the others."""
        n = chance.poisson(self.payments * chance.gamma(1.5, 1.0 / 1.5, self.many))
        who = np.repeat(np.arange(self.many), n)
        small = chance.random(self.many) < self.small
        risk = self.between * chance.standard_normal(self.many)
        risk += np.log(np.where(small, self.small_base, self.base))
        z = risk[who] + self.within * chance.standard_normal(len(who))
        p, fraud = 1.0 / (1.0 + np.exp(-z)), 1.0 / (1.0 + np.exp(-(z - self.off)))
        y = chance.random(len(who)) < fraud
        e = np.full(len(who), self.e)
        if self.weights:
            e = np.where(chance.random(len(who)) < 0.5, e, e / 3.0)
        e = np.where(chance.random(len(who)) < self.unreached, 0.0, e)
        against = p > self.threshold
        let = against & (chance.random(len(who)) < e)
        bucket = chance.integers(0, B, self.many)[who]
        w = 1.0 / np.where(e > 0.0, e, 1.0)

        def total(part: np.ndarray, value: np.ndarray | float) -> np.ndarray:
            values = np.broadcast_to(value, part.shape)[part].astype(float)
            return np.bincount(bucket[part], values, B)

        made = []
        for group in (small[who], ~small[who]):
            passed, shown = group & ~against, group & let
            hidden = group & against & ~let
            made.append(
                SupportSums(
                    passed_genuine=total(passed, ~y),
                    passed_fraud=total(passed, y),
                    passed_p=total(passed, p),
                    explored_genuine=total(shown, ~y),
                    explored_fraud=total(shown, y),
                    explored_p=total(shown, p),
                    explored_w_genuine=total(shown, w * ~y),
                    explored_w_fraud=total(shown, w * y),
                    explored_w_p=total(shown, w * p),
                    explored_w2=total(shown, w * w),
                    declined_n=total(hidden & (e > 0.0), 1.0),
                    declined_p=total(hidden & (e > 0.0), p),
                    unreached_n=total(hidden & (e == 0.0), 1.0),
                    unreached_p=total(hidden & (e == 0.0), p),
                )
            )
        return made

    def __call__(self, chance: np.random.Generator) -> Iterator[Seen]:
        one, other = self.sums(chance)
        small, large = self.truth(self.small_base), self.truth(self.base)
        for target in TARGETS:
            ratio = small[target] / large[target]
            for method in ("ips", "self_normalised", "doubly_robust"):
                figures = [explored(s, target, method=method) for s in (one, other)]
                yield Seen(f"{target}, explored by {method}", large[target], figures[1].figure)
                yield Seen(f"{target}, small group, {method}", small[target], figures[0].figure)
                if (target, method) != ("false_positive_share", "ips"):
                    yield Seen(
                        f"ratio of {target}, {method}", ratio, supported_ratio(*figures).figure
                    )
            figures = [bounds(s, target) for s in (one, other)]
            yield Seen(f"{target}, bounds", large[target], figures[1].figure)
            if self.off == 0.0:
                figures = [model_implied(s, target, calibrated=True) for s in (one, other)]
                yield Seen(f"{target}, model_implied", large[target], figures[1].figure)
                yield Seen(
                    f"ratio of {target}, model_implied", ratio, supported_ratio(*figures).figure
                )


# --- Frauds over expected frauds ----------------------------------------------------------------


@dataclass(frozen=True)
class Foreseen:
    """Payments with a probability p (Beta's, of mean `base`), of which r·p are fraud: r is `off` in
    the small group. `spread`: customers' own r is Gamma's, of this variance."""

    many: int = 2_000
    payments: float = 6.0
    base: float = 0.01
    small: float = 0.2
    off: float = 1.5
    spread: float = 0.0

    def amounts(self, chance: np.random.Generator) -> list[Amounts]:
        """Return frauds and expected frauds by bucket: the small group's, the others'."""
        n = chance.poisson(self.payments * chance.gamma(1.5, 1.0 / 1.5, self.many))
        who = np.repeat(np.arange(self.many), n)
        small = chance.random(self.many) < self.small
        own = np.where(small, self.off, 1.0)
        if self.spread:
            own = own * chance.gamma(1.0 / self.spread, self.spread, self.many)
        p = chance.beta(0.5, 0.5 / self.base - 0.5, len(who))
        y = chance.random(len(who)) < np.minimum(own[who] * p, 1.0)
        bucket = chance.integers(0, B, self.many)[who]
        return [
            Amounts(
                np.bincount(bucket[part], y[part].astype(float), B),
                np.bincount(bucket[part], p[part], B),
            )
            for part in (small[who], ~small[who])
        ]

    def __call__(self, chance: np.random.Generator) -> Iterator[Seen]:
        one, other = self.amounts(chance)
        yield Seen("ratio of frauds over expected", self.off, expected_ratio(one, other).figure)


# --- Late reports -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Late:
    """Frauds on each of `days` days, reported after a lognormal delay; today is the last day.

    `bursts`: a customer has one or more frauds within two days, and reports them about together.
    """

    days: int = 150
    decisions: float = 600.0
    rate: float = 0.002
    horizon: int = 90
    middle: float = 12.0
    sigma: float = 0.9
    bursts: bool = False

    def shown(self, age: float) -> float:
        """Return P(delay < age)."""
        if age <= 0.0:
            return 0.0
        return 0.5 + 0.5 * erf(log(age / self.middle) / (self.sigma * sqrt(2.0)))

    def __call__(self, chance: np.random.Generator) -> Iterator[Seen]:
        decisions = chance.poisson(self.decisions / B, (B, self.days)).astype(float)
        extra = 1.0 if self.bursts else 0.0
        frauds = self.decisions * self.days * self.rate
        many = chance.poisson(frauds / (1.0 + extra))
        each = 1 + chance.poisson(extra, many)
        bucket = np.repeat(chance.integers(0, B, many), each)
        first = np.repeat(chance.integers(0, self.days, many), each)
        # Days wrap around, so that each has as many.
        day = (first + (chance.integers(0, 2, len(first)) if extra else 0)) % self.days
        shared = sqrt(0.5) if self.bursts else 0.0
        z = shared * np.repeat(chance.standard_normal(many), each)
        z += sqrt(1.0 - shared**2) * chance.standard_normal(len(first))
        delay = np.floor(self.middle * np.exp(self.sigma * z)).astype(np.int64)
        age = (self.days - np.arange(self.days)).astype(np.int64)
        come = delay < age[day]
        reports = Reports(bucket[come], day[come], delay[come], np.ones(int(come.sum())))
        cohorts = Cohorts(age, decisions)
        of = curve(reports, cohorts, self.horizon)
        if of is None:
            return
        for at in (3, 10, 30, 60):
            truth = self.shown(at) / self.shown(of.horizon)
            value, low, high = of.at(at)
            yield Seen(f"F({at})", truth, Figure(value, low, high, 1.0, 1.0))
        truth = self.rate * self.shown(of.horizon)
        like = 2.0 if self.bursts else 1.0
        for name, days in (("last 30 days", age <= 30), ("last 60 days", age <= 60)):
            found = completed(reports, cohorts, of, like=like, days=days)
            yield Seen(f"completed rate, {name}", truth, found.figure)
        found = completed(reports, cohorts, of, like=like)
        yield Seen("completed rate, all days", truth, found.figure)


WORLDS: dict[str, Callable[[np.random.Generator], Iterator[Seen]]] = {
    "single events, 0.1 %": Customers(kind="single", rate=0.001, small_rate=0.0015),
    "single events, 2 %": Customers(kind="single", rate=0.02, small_rate=0.02),
    "customers alike, 0.1 %": Customers(rate=0.001, small_rate=0.001),
    "customers alike, 0.5 %": Customers(),
    "customers alike, 2 %": Customers(rate=0.02, small_rate=0.03, small=0.05),
    "bursts, 0.5 %": Customers(kind="bursts"),
    "bursts, 2 %": Customers(kind="bursts", rate=0.02, small_rate=0.02),
    "bursts, 0.2 %, many": Customers(kind="bursts", many=10_000, rate=0.002, small_rate=0.003),
    "bursts, 20 events in all": Customers(kind="bursts", many=600, rate=0.004, small_rate=0.004),
    "uneven customers, single": Customers(kind="single", uneven=True, rate=0.002, small_rate=0.002),
    "uneven customers, alike": Customers(uneven=True),
    "15 customers in the small group": Customers(
        many=3_000, small=0.005, payments=40.0, rate=0.1, small_rate=0.1
    ),
    "frauds over expected": Foreseen(),
    "frauds over expected, few": Foreseen(many=400, base=0.004),
    "frauds over expected, uneven": Foreseen(payments=30.0, base=0.03, spread=2.0, off=0.5),
    "losses, 1 %, σ 1": Losses(rate=0.01, small_rate=0.01),
    "losses, 0.2 %, σ 1": Losses(rate=0.002, small_rate=0.002),
    "losses, 0.5 %, σ 1.5, capped": Losses(rate=0.005, small_rate=0.005, sigma=1.5, cap=5.0),
    "losses, 0.5 %, bursts, capped": Losses(
        kind="bursts", rate=0.005, small_rate=0.005, sigma=1.5, cap=5.0, many=6_000
    ),
    "declines, e 5 %": Declines(many=12_000),
    "declines, e 1 %": Declines(many=20_000, e=0.01, threshold=0.02),
    "declines, e 3 %, model off": Declines(many=15_000, e=0.03, off=0.7, threshold=0.05),
    "declines, e 5 % and 1.7 %": Declines(many=15_000, weights=True, threshold=0.04),
    "declines, a third unreached": Declines(many=12_000, unreached=0.33, threshold=0.05),
    "late, 0.1 %": Late(rate=0.001),
    "late, 0.5 %": Late(rate=0.005),
    "late, bursts, 0.3 %": Late(rate=0.003, bursts=True),
    "late, bursts, many": Late(rate=0.003, bursts=True, decisions=4_000.0),
}

UNMENDED: dict[str, Callable[[np.random.Generator], Iterator[Seen]]] = {
    "uneven customers in bursts: the largest were spared or not": Customers(
        kind="bursts", uneven=True, rate=0.01, small_rate=0.01
    ),
    "losses, σ 1.5, no cap: the greatest have not come": Losses(
        rate=0.005, small_rate=0.005, sigma=1.5
    ),
}
"""Where what was seen says too little of what was not, and no interval made of it can hold."""

QUICK: dict[str, Callable[[np.random.Generator], Iterator[Seen]]] = {
    "few single events": Customers(kind="single", many=600, rate=0.002, small_rate=0.003),
    "customers alike": Customers(many=800),
    "bursts": Customers(kind="bursts", many=800, rate=0.02, small_rate=0.02),
    "losses": Losses(many=800, rate=0.01, small_rate=0.01),
    "declines": Declines(many=2_000, base=0.02, small_base=0.03, threshold=0.06),
    "foreseen": Foreseen(many=800),
    "foreseen, uneven": Foreseen(many=800, payments=30.0, base=0.03, spread=1.0),
    "late": Late(rate=0.002),
}


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("--seeds", type=int, default=200)
    asked.add_argument("--only", default="", help="worlds whose name holds this")
    given = asked.parse_args()
    short = 0
    for name, world in {**WORLDS, **UNMENDED}.items():
        if given.only not in name:
            continue
        print(f"\n{name}{' (not mended)' if name in UNMENDED else ''}")
        print(f"  {'interval':52} nominal coverage  MC SE  width  said")
        for row in coverage(world, given.seeds):
            short += not row.covers and name not in UNMENDED
            print(
                f"  {row.name:52} {NOMINAL:7.3f} {row.coverage:8.3f} {row.error:6.3f} "
                f"{row.width:6.2f} {row.said:5.2f} {'' if row.covers else ' SHORT'}",
                flush=True,
            )
    print(f"\n{short} intervals are short that should not be")
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
