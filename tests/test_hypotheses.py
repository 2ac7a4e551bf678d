"""Claims and what came of them: frozen, judged as a plain reading would, and never taken back."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.evaluate.hypotheses import (
    Declared,
    Look,
    Observed,
    Pair,
    declared_of,
    digest,
    ended,
    judged,
    outcome,
)
from gateway.evaluate.sequential import MISMATCH_ALPHA, Sequence, Side
from gateway.evaluate.sums import Counts
from gateway.product import Guardrail, Hypothesis

B = 128
DECLARED = Declared(
    "fewer-insults",
    "insult_rate",
    -0.01,
    ("champion", "t82"),
    (0.5, 0.5),
    (Guardrail(metric="approval_rate", margin=0.01),),
    min_days=5,
    max_days=20,
)
WRITTEN: dict[str, Any] = {
    "id": "fewer-insults",
    "claim": "A higher threshold insults fewer.",
    "metric": "insult_rate",
    "minimum_effect": -0.01,
    "arms": {"champion": 0.5, "t82": 0.5},
    "guardrails": [{"metric": "approval_rate", "margin": 0.01}],
    "stop": {"min_days": 5, "max_days": 20},
}


def rate(of: float, days: int = 20, seed: int = 1) -> Side:
    chance = np.random.default_rng(seed)
    n = np.full((days, B), 100.0)
    return Side.of(Counts(chance.binomial(100, of, (days, B)).astype(float), n))


def seen(
    insults: float, approved: float = 0.9, days: int = 20, drawn: tuple[int, int] = (500, 500)
) -> Observed:
    return Observed(
        Pair(rate(insults, days, 1), rate(0.05, days, 2)),
        (Pair(rate(approved, days, 3), rate(0.9, days, 4)),),
        np.tile(np.array(drawn, float), (days, 1)),
    )


@pytest.mark.parametrize(
    ("observed", "says", "because", "day"),
    [
        (seen(0.03), "ship", "goal_reached", 5),
        (seen(0.07), "stop", "goal_not_reached", 5),
        (seen(0.03, approved=0.8), "stop", "guardrail_broken", 1),
        (seen(0.03, days=4), "continue", "too_few_days", 4),
        (seen(0.03, approved=0.89, days=19), "continue", "not_sure", 19),
        (seen(0.03, approved=0.89), "undecided", "days_over", 20),
        (seen(0.03, drawn=(500, 600)), "invalid", "sample_ratio_mismatch", None),
        (seen(0.03, days=0), "continue", "too_few_days", 0),
    ],
)
def test_a_verdict_is_what_came(
    observed: Observed, says: str, because: str, day: int | None
) -> None:
    found = outcome(DECLARED, observed, is_as_frozen=True)
    assert (found.says, found.because) == (says, because)
    assert day is None or found.day == day


def test_a_changed_declaration_is_no_result() -> None:
    found = outcome(DECLARED, seen(0.03), is_as_frozen=False)
    assert (found.says, found.because, found.day) == ("invalid", "declaration_changed", 1)


def test_intended_and_actual_stand_side_by_side() -> None:
    found = outcome(replace(DECLARED, min_days=20), seen(0.03), is_as_frozen=True)
    assert found.impact.intended == -0.01
    assert found.impact.actual.value == pytest.approx(-0.02, abs=0.002)
    assert found.impact.actual.high < -0.01
    assert found.impact.is_reached
    assert outcome(DECLARED, seen(0.07), is_as_frozen=True).impact.is_reached is False
    assert outcome(DECLARED, seen(0.04, days=6), is_as_frozen=True).impact.is_reached is None


def test_what_came_later_changes_no_verdict_but_to_invalid() -> None:
    good, bad = seen(0.03, days=20), seen(0.07, days=20)
    turned = (
        np.concatenate([before[:6], after[6:]])
        for before, after in zip(good.goal.tried, bad.goal.tried, strict=True)
    )
    later = Observed(Pair(Side(*turned), good.goal.other), good.guardrails, good.drawn)
    first = outcome(DECLARED, good, is_as_frozen=True)
    found = outcome(DECLARED, later, is_as_frozen=True)
    assert (found.says, found.day, found.impact) == (first.says, first.day, first.impact)
    assert len(found.looks) == 20
    drawn = good.drawn.copy()
    drawn[10:] = (500, 900)
    broken = Observed(good.goal, good.guardrails, drawn)
    found = outcome(DECLARED, broken, is_as_frozen=True)
    assert found.says == "invalid"
    assert found.day > 10


@pytest.mark.parametrize(
    "change",
    [
        {"id": "other"},
        {"claim": "Another one."},
        {"metric": "approval_rate"},
        {"minimum_effect": -0.02},
        {"unit": "transaction"},
        {"arms": {"champion": 0.5, "t82": 0.4}},
        {"arms": {"t82": 0.5, "champion": 0.5}},
        {"guardrails": []},
        {"guardrails": [{"metric": "approval_rate", "margin": 0.02}]},
        {"maturity": "30d"},
        {"stop": {"min_days": 5, "max_days": 21}},
    ],
)
def test_any_change_of_a_declaration_shows(change: dict[str, Any]) -> None:
    frozen = digest(Hypothesis(**WRITTEN))
    assert digest(Hypothesis(**dict(reversed(WRITTEN.items())))) == frozen
    assert digest(Hypothesis(**WRITTEN | change)) != frozen


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"minimum_effect": 0}, "minimum_effect is 0"),
        ({"minimum_effect": None}, "minimum_effect must be given"),
        ({"minimum_effect": None, "stop": None}, "minimum_effect and stop must be given"),
        ({"arms": {"champion": 0.5}}, "arms are 1, must be two"),
        ({"arms": {"champion": 0.5, "t82": 0}}, "share above 0"),
    ],
)
def test_what_cannot_be_judged_is_refused(change: dict[str, Any], said: str) -> None:
    assert declared_of(Hypothesis(**WRITTEN)) == DECLARED
    with pytest.raises(ValueError, match=said):
        declared_of(Hypothesis(**WRITTEN | change))


def test_a_wrong_assignment_shows_before_labels_are_mature() -> None:
    early = seen(0.03, days=3)
    drawn = np.tile([500.0, 500.0], (30, 1))
    drawn[20:] = (500.0, 900.0)
    found = outcome(DECLARED, replace(early, drawn=drawn), is_as_frozen=True)
    assert (found.says, found.because) == ("invalid", "sample_ratio_mismatch")
    assert 20 < found.day <= 30
    assert len(found.looks) == 3


def test_looks_that_were_kept_stay_whatever_labels_say_later() -> None:
    first = outcome(DECLARED, seen(0.03, days=8), is_as_frozen=True)
    kept = [Look.of(json.loads(json.dumps(look.as_object()))) for look in first.looks]
    later = outcome(DECLARED, seen(0.07, days=12), is_as_frozen=True, kept=kept)
    assert (later.says, later.day, later.impact) == ("ship", first.day, first.impact)
    assert [look.because for look in later.looks[8:]] == ["goal_not_reached"] * 4
    changed = outcome(DECLARED, seen(0.03, days=8), is_as_frozen=False, kept=kept)
    assert changed.says == "invalid"
    little = outcome(DECLARED, seen(0.0, days=1), is_as_frozen=True).looks[0]
    again = Look.of(json.loads(json.dumps(little.as_object())))
    assert again.goal[1:] == little.goal[1:]


ends = st.tuples(*[st.floats(-3.0, 3.0)] * 2).map(sorted)
one_look = st.tuples(ends, ends, ends, st.sampled_from([-5.0, 0.0, 6.8, 7.0]))


@given(st.lists(one_look, min_size=1, max_size=8), st.sampled_from([-1.0, 1.0]))
def test_looks_are_judged_as_a_plain_reading_does(looks: list[Any], effect: float) -> None:
    declared = replace(
        DECLARED,
        effect=effect,
        guardrails=(
            Guardrail(metric="approval_rate", margin=1.0),
            Guardrail(metric="fraud_loss", margin=1.0),
        ),
        min_days=2,
        max_days=6,
    )

    def sequence(place: int) -> Sequence:
        low, high = np.array([look[place] for look in looks]).T
        return Sequence((low + high) / 2.0, low, high, np.ones(len(looks)))

    found = judged(
        declared, sequence(0), [sequence(1), sequence(2)], np.array([look[3] for look in looks])
    )
    wrong, plain, final = False, [], None
    for day, (goal, approval, loss, evidence) in enumerate(looks, 1):
        wrong = wrong or evidence >= -np.log(MISMATCH_ALPHA)
        better = goal[0] > 0.0 if effect > 0.0 else goal[1] < 0.0
        short = goal[1] < 1.0 if effect > 0.0 else goal[0] > -1.0
        if wrong:
            says = "invalid"
        elif approval[1] < -1.0 or loss[0] > 1.0:
            says = "stop"
        elif day < 2:
            says = "continue"
        elif short:
            says = "stop"
        elif better and approval[0] > -1.0 and loss[1] < 1.0:
            says = "ship"
        else:
            says = "undecided" if day >= 6 else "continue"
        plain.append(says)
        final = final or (says if says not in ("continue", "invalid") else None)
    assert found.tolist() == plain
    assert ended(found) == ("invalid" if wrong else final or "continue")
