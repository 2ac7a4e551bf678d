"""Who looks each day: how often is an experiment wrongly shipped, and how often rightly?

    python tests/peeking.py --experiments 1000

Simulated experiments: customers in 128 buckets for each arm, of unequal size and unequal danger
that stays with them, frauds in bursts, 60 days with a look behind each. A row is a world: in
`alike` the arms are alike, so that each "ship" is false; in `harm` the goal is reached and a
guardrail is broken at its margin, so that each "ship" is false too; in the others the arm is
better by as much as is said, and "ship" is right (the power). `held`: in how many the sequence
held the truth at all looks. A false rate passes if it is no more than three Monte Carlo standard
errors above α. `once`: what an interval of 95 %, looked at as often, would have shipped falsely.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt
from typing import NamedTuple

import numpy as np

from gateway.evaluate.hypotheses import Declared, ended, judged
from gateway.evaluate.rates import left_out_variance
from gateway.evaluate.sequential import ALPHA, Sequence, Side, difference
from gateway.product import Guardrail

B = 128
DAYS = 60
MIN_DAYS = 14
AT_ONCE = 125


@dataclass(frozen=True)
class World:
    """`change`: of the arm's rate, as a share of the base rate. `share`: of the traffic, the arm's.

    `sigma`: of the logarithm of a fraud's amount; None for rates. `aimed`: the effect declared.
    `broken`: the guardrail (an approval rate) is just as much worse as it may be.
    """

    name: str
    rate: float
    change: float = 0.0
    payments: int = 20_000
    share: float = 0.5
    burst: float = 1.5
    uneven: float = 0.5
    sigma: float | None = None
    aimed: float = -0.3
    broken: bool = False

    @property
    def null(self) -> bool:
        return self.change == 0.0 or self.broken


class Rates(NamedTuple):
    """What a world's experiments came to, as shares of them."""

    ship: float
    stop: float
    undecided: float
    held: float
    once: float
    days: float

    def passes(self, world: World, experiments: int) -> bool:
        reach = 3.0 * sqrt(ALPHA * (1.0 - ALPHA) / experiments)
        return self.held >= 1.0 - ALPHA - reach and (not world.null or self.ship <= ALPHA + reach)


MARGIN = 0.01
APPROVED = 0.95

WORLDS = (
    World("alike", 0.001, payments=40_000),
    World("alike, bursts of 3", 0.001, payments=40_000, burst=3.0),
    World("alike, arm of 5 %", 0.001, payments=40_000, share=0.05),
    World("alike", 0.003),
    World("alike", 0.01, payments=6_000),
    World("alike, arm of 5 %", 0.01, payments=6_000, share=0.05),
    World("alike, losses", 0.001, payments=40_000, sigma=1.0),
    World("alike, losses", 0.01, payments=6_000, sigma=1.0),
    World("alike, losses, arm of 10 %", 0.005, payments=12_000, sigma=1.5, share=0.1),
    World("harm", 0.003, change=-0.5, broken=True),
    World("10 % less", 0.003, change=-0.1),
    World("30 % less", 0.001, change=-0.3, payments=40_000),
    World("30 % less", 0.003, change=-0.3),
    World("30 % less", 0.01, change=-0.3, payments=6_000),
    World("30 % less, bursts of 3", 0.003, change=-0.3, burst=3.0),
    World("50 % less", 0.003, change=-0.5),
    World("50 % less, arm of 5 %", 0.003, change=-0.5, share=0.05),
    World("50 % less losses", 0.003, change=-0.5, sigma=1.0),
)


def sides(
    world: World, chance: np.random.Generator, experiments: int, *, arm: bool
) -> tuple[Side, Side]:
    """Return an arm's goal and guardrail by experiment and day, (E, T, B), not yet added up."""
    customers = experiments, 1, B
    size = chance.gamma(4.0, 0.25, customers)
    danger = chance.gamma(1.0 / world.uneven**2, world.uneven**2, customers)
    share = world.share if arm else 1.0 - world.share
    rate = world.rate * (1.0 + world.change if arm else 1.0)
    shape = experiments, DAYS, B
    n = chance.poisson(np.broadcast_to(world.payments * share / B * size, shape))
    bursts = chance.poisson(n * rate / world.burst * danger)
    more = chance.negative_binomial(np.maximum(bursts, 1), 1.0 / world.burst)
    events = np.minimum(bursts + np.where(bursts > 0, more, 0), n)
    n, k = n.astype(float), events.astype(float)
    approved = APPROVED - (MARGIN if arm and world.broken else 0.0)
    through = n - chance.binomial(n.astype(int), 1.0 - approved)
    guardrail = Side(through, n, through, n)
    if world.sigma is None:
        return Side(k, n, k, n), guardrail
    amounts = np.minimum(chance.lognormal(0.0, world.sigma, int(events.sum())), CAP)
    lost = np.bincount(np.repeat(np.arange(k.size), events.ravel()), amounts, k.size)
    turnover = chance.normal(n, 0.5 * np.sqrt(n)).clip(0.0)
    return Side(lost.reshape(shape), turnover, k, n), guardrail


CAP = 10.0


def mean_amount(sigma: float | None) -> float:
    """Return the mean of min(amount, CAP)."""
    if sigma is None:
        return 1.0
    draws = np.random.default_rng(1).lognormal(0.0, sigma, 4_000_000)
    return float(np.minimum(draws, CAP).mean())


def added(side: Side) -> Side:
    return Side(*(np.cumsum(sums, axis=1) for sums in side))


def experiments_of(world: World, seed: int, experiments: int) -> Iterator[Rates]:
    for start in range(0, experiments, AT_ONCE):
        yield rates_of(world, seed + start, min(AT_ONCE, experiments - start))


def rates_of(world: World, seed: int, experiments: int) -> Rates:
    chance = np.random.default_rng(seed)
    mean = mean_amount(world.sigma)
    effect = world.aimed * world.rate * mean
    goal, guardrail = (
        tuple(map(added, pair))
        for pair in zip(
            sides(world, chance, experiments, arm=True),
            sides(world, chance, experiments, arm=False),
            strict=True,
        )
    )
    declared = Declared(
        "simulated", "fraud_loss_bps", effect, ("champion", "arm"),
        (1.0 - world.share, world.share), (Guardrail(metric="approval_rate", margin=MARGIN),),
        MIN_DAYS, DAYS,
    )  # fmt: skip
    found = difference(*goal, effect=effect)
    held = difference(*guardrail, effect=MARGIN)
    says = judged(declared, found, [held], np.zeros((experiments, DAYS)))
    last = ended(says)
    truth = world.change * world.rate * mean
    inside = (found.low <= truth) & (truth <= found.high)
    day = 1 + np.argmax(says != "continue", axis=1)
    return Rates(
        float(np.mean(last == "ship")),
        float(np.mean(last == "stop")),
        float(np.mean(last == "undecided")),
        float(inside.all(axis=1).mean()),
        float(naive(goal, found)[:, MIN_DAYS - 1 :].any(axis=1).mean()),
        float(np.median(day)),
    )


def naive(goal: tuple[Side, Side], found: Sequence) -> np.ndarray:
    """Return where an interval of one look would have said less."""
    one, other = goal
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = left_out_variance(one.over / one.under.sum(-1, keepdims=True)) + (
            left_out_variance(other.over / other.under.sum(-1, keepdims=True))
        )
        return found.value + 1.96 * np.sqrt(spread * B * B / (B - 1) ** 2) < 0.0


def total(world: World, seed: int, experiments: int) -> Rates:
    weights = [min(AT_ONCE, experiments - start) for start in range(0, experiments, AT_ONCE)]
    each = np.array(list(experiments_of(world, seed, experiments)))
    return Rates(*np.average(each, axis=0, weights=weights).tolist())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiments", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    error = sqrt(ALPHA * (1.0 - ALPHA) / asked.experiments)
    print(f"{asked.experiments} experiments a row, alpha {ALPHA:.1%}, its error {error:.2%}\n")
    print("| world | base rate | ship | stop | undecided | held at all looks | once | days | |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    fails = 0
    for place, world in enumerate(WORLDS):
        one = total(world, asked.seed + 100_000 * place, asked.experiments)
        passes = one.passes(world, asked.experiments)
        fails += not passes
        print(
            f"| {world.name} | {world.rate:.1%} | {one.ship:.1%} | {one.stop:.1%} "
            f"| {one.undecided:.1%} | {one.held:.1%} | {one.once:.1%} | {one.days:.0f} "
            f"| {'false ' if world.null else ''}{'ok' if passes else 'FAILS'} |",
            flush=True,
        )
    return 1 if fails else 0


if __name__ == "__main__":
    sys.exit(main())
