"""What the evaluator's queries hand over: sums over decisions, by bucket of customers. Pure.

A customer is hashed into one of B buckets (128), the same one every day and in every query, so that
whole customers stay together and the sums of days add up. An array (B,) has one sum a bucket, 0.0
where a bucket has nothing; all arrays of one value are equally long. Leading axes, such as groups
(G, B), may stand before the buckets. All are float64.

Symbols, for one decision: y is 1 for fraud, 0 for genuine; p the model's P(fraud), calibrated,
as recorded; D is 1 where the policy would decline; O is 1 where such a payment was let through by
exploration; e the logged probability of that, given D = 1; w = 1/e. Only decisions whose label is
mature count: y is known wherever the payment went through.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Places = NDArray[np.int64]

BUCKETS = 128


class Counts(NamedTuple):
    """Events among trials, k ≤ n in each bucket, (..., B): Σ event, Σ 1."""

    k: Floats
    n: Floats


class Amounts(NamedTuple):
    """Two sums whose ratio is the figure, (..., B): Σ y and Σ x, as money lost and turned over.

    Where the amounts of single payments are heavy-tailed, sum min(y, cap): declare the cap.
    """

    over: Floats
    under: Floats


class SupportSums(NamedTuple):
    """All that explored, model-implied and bounded figures need, each (..., B).

    Three kinds of decision, each counted in one: *passed* (D = 0, went through, y known),
    *explored* (D = 1, O = 1: let through against the policy, y known), *declined* (D = 1, O = 0,
    y never known). Of the declined, those with e > 0 could have been let through, and the explored
    speak for them; those with e = 0 (above exploration's greatest amount, or exploration off) are
    *unreached*: nothing speaks for them. What ended otherwise without a label (a step-up that
    was abandoned, a payment that its sender withdrew) belongs to none.

    `passed_genuine` Σ(1-y), `passed_fraud` Σy, `passed_p` Σp: over passed.
    `explored_genuine` Σ(1-y), `explored_fraud` Σy, `explored_p` Σp,
    `explored_w_genuine` Σw(1-y), `explored_w_fraud` Σwy, `explored_w_p` Σwp, `explored_w2` Σw²:
    over explored.
    `declined_n` Σ1, `declined_p` Σp: over declined with e > 0.
    `unreached_n` Σ1, `unreached_p` Σp: over declined with e = 0.

    What the estimators want besides follows: with odds (1-e)/e = w-1, Σ(1-e)/e·(1-y) is
    explored_w_genuine - explored_genuine, and likewise for y and p.
    """

    passed_genuine: Floats
    passed_fraud: Floats
    passed_p: Floats
    explored_genuine: Floats
    explored_fraud: Floats
    explored_p: Floats
    explored_w_genuine: Floats
    explored_w_fraud: Floats
    explored_w_p: Floats
    explored_w2: Floats
    declined_n: Floats
    declined_p: Floats
    unreached_n: Floats
    unreached_p: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Reports:
    """Reports of fraud of one kind of label, as GROUP BY bucket, cohort, delay gives them, (m,).

    `cohort`: the place, from 0, of the day of the decisions in `Cohorts`. `delay`: whole days from
    decision to report; a report on the same day has 0. `count`: how many. Only first reports of a
    decision count, and only those with delay < age of their cohort.
    """

    bucket: Places
    cohort: Places
    delay: Places
    count: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Cohorts:
    """Days of decisions that reports may be about: C of them.

    `age` (C,): for how many whole days of delay each has been watched; what has delay < age has
    been seen. `decisions` (B, C): decisions that went through.
    """

    age: Places
    decisions: Floats
