"""Drift: distances against scipy and a loop, alarms against simulated traffic.

Simulated traffic has a daily course of volume, and shares that depend on the hour of the week, so
that what is compared without regard to hours would differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from math import log
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.distance import jensenshannon
from scipy.stats import chi2, ks_2samp, norm
from statsmodels.stats.multitest import multipletests

from gateway.evaluate.drift import (
    Drift,
    design_effect,
    distances,
    drift_of,
    holm,
    jensen_shannon,
    kolmogorov,
    layout_of,
    without_greatest,
)
from gateway.evaluate.histograms import GROUPS, Binning, Field, Histograms, Sums
from gateway.product import CalendarEvent

Floats = NDArray[np.float64]

EDGES = tuple(norm.ppf(np.arange(1, 10) / 10).tolist())
WEEKS, WEEK = 9, 168
HOURS = WEEKS * WEEK
BEGIN = 2900 * WEEK
END = BEGIN + HOURS
HOUR = np.arange(HOURS)


def day_of(hour: int) -> date:
    """Return the day of an hour of the simulated time."""
    return date(1970, 1, 1) + timedelta(days=(BEGIN + hour) // 24)


def number(name: str) -> Field:
    return Field("feature", name, "number", edges=EDGES)


def text(name: str, values: Sequence[str]) -> Field:
    return Field("watch", name, "text", values=tuple(values))


def normal_shares(mean: Floats) -> Floats:
    """Return the shares of ten bins of normal values, and none that was not given: (..., 11)."""
    ends = np.concatenate([[-np.inf], EDGES, [np.inf]])
    shares = np.diff(norm.cdf(ends - mean[..., None]), axis=-1)
    return np.concatenate([np.zeros((*mean.shape, 1)), shares], axis=-1)


def volume(a_week: int) -> Floats:
    course = 1 + 0.8 * np.sin(2 * np.pi * HOUR / 24)
    return course / course[:WEEK].sum() * a_week


def drawn(
    chance: np.random.Generator, a_week: int, shares: Floats, hourly: Floats | None = None
) -> Floats:
    """Return counts by hour, group and bin of decisions that are independent."""
    n = volume(a_week) if hourly is None else hourly
    counts = chance.poisson(np.repeat(n[:, None] / GROUPS, GROUPS, axis=1))
    return chance.multinomial(counts, shares[:, None, :]).astype(np.float64)


def histograms(fields: Sequence[Field], counts: Sequence[Floats]) -> Histograms:
    """Return histograms of counts (HOURS, GROUPS, 1 + bins) a field."""

    def sums(parts: Sequence[Floats], first: int) -> Sums:
        columns: list[list[Any]] = [[], [], [], [], []]
        for field, part in enumerate(parts):
            when, group, place = np.nonzero(part)
            n = part[when, group, place]
            one = (when + first, group, np.full(len(when), field), place - 1, n)
            for column, values in zip(columns, one, strict=True):
                column.append(values.astype(np.int64))
        return Sums(*(np.concatenate(column) for column in columns))

    by_hour = [part.sum(axis=1, keepdims=True) for part in counts]
    by_day = [part.reshape(-1, 24, *part.shape[1:]).sum(axis=1) for part in counts]
    binning = Binning("cards", tuple(fields))
    return Histograms(binning, sums(by_hour, BEGIN), sums(by_day, BEGIN // 24))


def traffic(
    chance: np.random.Generator,
    a_week: int,
    fields: int = 1,
    moved: Floats | float = 0.0,
    weekly_sd: float = 0.0,
) -> Histograms:
    """Return numbers whose mean depends on the hour of the week, and moves by `moved` (HOURS,)."""
    counts = []
    for i in range(fields):
        mean = 0.3 * np.sin(2 * np.pi * HOUR / WEEK + i) + moved
        mean = mean + np.repeat(chance.normal(0, 1, WEEKS), WEEK) * weekly_sd
        counts.append(drawn(chance, a_week, normal_shares(mean)))
    return histograms([number(f"f{i}") for i in range(fields)], counts)


def since(hour: int, by: float) -> Floats:
    return np.where(hour <= HOUR, by, 0.0)


def verdicts(found: Sequence[Drift]) -> list[str]:
    return [one.verdict for one in found]


LAST_WEEK = HOURS - WEEK


# Distances.


@given(
    now=st.lists(st.integers(0, 40), min_size=4, max_size=4),
    then=st.lists(st.integers(0, 400), min_size=4, max_size=4),
)
def test_distances_are_scipys_and_a_loops(now: list[int], then: list[int]) -> None:
    if not sum(now) or not sum(then):
        return
    seen = distances(np.array([now], float), np.array([then], float))
    m, n = sum(now), sum(then)
    want = 0.0
    for a, b in zip(now, then, strict=True):
        q, p = (a + 0.5) / (m + 2), (b + 0.5) / (n + 2)
        want += (q - p) * log(q / p)
    assert seen.psi == pytest.approx(want, rel=1e-9, abs=1e-12)
    assert jensen_shannon(seen.now, seen.then) == pytest.approx(
        np.nan_to_num(jensenshannon(now, then, base=2)), abs=1e-7
    )
    field = Field("feature", "f", "number", edges=(1.0, 2.0, 3.0))
    plain = [np.array([[0.0, *counts]]) for counts in (now, then)]
    layout = layout_of(field, *plain)
    ks = kolmogorov(layout, *(layout.join(one)[0] for one in plain))
    place = layout.group[1:]
    samples = [np.repeat(place, counts) for counts in (now, then)]
    with np.errstate(divide="ignore"):  # of its p-value, for one row
        want = ks_2samp(*samples, method="asymp").statistic
    assert ks == pytest.approx(want, abs=1e-12)


def test_slots_are_weighed_as_the_window_has_them() -> None:
    """Shares by hour are the same, but the window's volume is at other hours: no distance."""
    shares = np.array([[0.9, 0.1], [0.2, 0.8]])
    now = shares * np.array([[1000.0], [100.0]])
    then = shares * np.array([[300.0], [9000.0]])
    seen = distances(now, then)
    assert seen.now == pytest.approx(seen.then)
    m = 1100.0
    assert (seen.m, seen.n) == pytest.approx((m, m**2 / (1000**2 / 300 + 100**2 / 9000)))
    nothing = distances(np.array([[5.0, 5.0], [0.0, 0.0]]), np.array([[0.0, 0.0], [9.0, 1.0]]))
    assert (nothing.m, nothing.psi) == (0.0, 0.0)


def test_small_bins_are_joined_and_what_is_new_is_not() -> None:
    field = text("channel", [f"v{i}" for i in range(30)])
    then = np.concatenate([[0.0], [5000.0, 4000.0], np.full(28, 3.0), [10.0]])[None]
    now = np.concatenate([[100.0], [500.0, 0.0], np.full(27, 1.0), [300.0], [0.0]])[None]
    layout = layout_of(field, now, then)
    assert layout.labels == ("not given", "v0", "v1", "v29", "other")
    assert layout.join(now)[0].tolist() == [100.0, 500.0, 0.0, 300.0, 27.0]
    assert layout.join(then).sum() == then.sum()


def test_small_neighbours_are_joined() -> None:
    then = np.array([[0, 1, 2, 3000, 1, 4000, 3000, 2, 1, 0, 0]], float)
    layout = layout_of(number("f"), then, then)
    assert layout.join(then)[0].tolist() == [3003.0, 4001.0, 3003.0]
    assert layout.labels[0].startswith("up to ")
    assert layout.labels[-1].startswith("above ")


def test_holm_is_statsmodels(chance: np.random.Generator) -> None:
    for n in (1, 2, 7, 40):
        ps = chance.random(n) ** 3
        want = multipletests(ps, method="holm")[1]
        assert holm(ps.tolist()) == pytest.approx(want.tolist())
    assert holm([None, 0.01, None, 0.5]) == [None, 0.02, None, 0.5]


def test_draws_without_the_greatest_are_as_simulated(chance: np.random.Generator) -> None:
    for dof, draws in ((1, 8), (9, 8), (3, 4)):
        sample = chance.chisquare(dof, (40_000, draws))
        want = np.sort(sample, axis=1)[:, :-1].mean() / dof
        assert without_greatest(dof, draws) == pytest.approx(want, rel=0.02)
    assert without_greatest(5.0, 2) == 1.0


def test_a_design_effect_is_how_much_more_the_shares_vary(chance: np.random.Generator) -> None:
    """Customers of 20 equal decisions each: the variance is twenty times as large."""
    shares = np.array([0.5, 0.3, 0.2])
    alike, free = [], []
    for _ in range(200):
        customers = chance.multinomial(2000 // GROUPS, shares, GROUPS)
        alike.append(design_effect(20.0 * customers))
        free.append(design_effect(chance.multinomial(2500, shares, GROUPS).astype(float)))
    assert np.mean(alike) == pytest.approx(20, rel=0.1)
    assert np.mean(free) < 1.3
    assert design_effect(np.zeros((GROUPS, 3))) == 1.0


@pytest.fixture
def chance() -> np.random.Generator:
    return np.random.default_rng(11)


# No change, no alarm.


@pytest.mark.parametrize(("a_week", "times"), [(200, 25), (1_000, 20), (10_000, 8), (100_000, 3)])
def test_nothing_alarms_where_nothing_changes(
    chance: np.random.Generator, a_week: int, times: int
) -> None:
    """Not of twelve fields together, even if any effect would do; and PSI is as large as chance."""
    alarms, beyond, said = 0, [], []
    for _ in range(times):
        seen = traffic(chance, a_week, 12)
        found, any_effect = (drift_of(seen, END, effect=effect) for effect in (0.1, 0.0))
        alarms += "drifted" in verdicts(found) or "drifted" in verdicts(any_effect)
        beyond += [one.value / one.chance for one in found if one.value and one.chance]
        said += verdicts(found)
    assert alarms <= 1
    assert np.mean(beyond) == pytest.approx(1.0, abs=0.25)
    if a_week >= 1_000:
        assert said.count("steady") > 0.95 * len(said)


def test_a_fixed_threshold_would_alarm_on_few_decisions(chance: np.random.Generator) -> None:
    """What the noise floor is for: of 20 categories PSI is a tenth by chance, at 250 a week."""
    names = [f"v{i}" for i in range(20)]
    shares = np.tile([0.0, *[0.05] * 20, *[0.0] * 11], (HOURS, 1))
    found = [
        drift_of(histograms([text("merchant", names)], [drawn(chance, 250, shares)]), END)[0]
        for _ in range(30)
    ]
    fixed = sum(one.value is not None and one.value > 0.1 for one in found)
    assert fixed >= 4
    assert "drifted" not in verdicts(found)


def test_weeks_that_differ_by_themselves_are_noise(chance: np.random.Generator) -> None:
    """Each week's mean lies elsewhere, by a tenth of a standard deviation: most exceed what chance
    could do, and hardly one alarms, even where an effect of 0.005 would do."""
    found = [
        one
        for _ in range(12)
        for one in drift_of(traffic(chance, 20_000, 5, weekly_sd=0.1), END, effect=0.005)
    ]
    by_chance = [
        (one.value or 0) > chi2.ppf(0.999, 9) / 9 * one.chance
        for one in found
        if one.chance is not None
    ]
    assert sum(by_chance) > 30
    assert verdicts(found).count("drifted") <= 2


def test_decisions_of_one_customer_are_not_many(chance: np.random.Generator) -> None:
    """Few customers who come and go, each with a favourite: weeks differ by who is there."""
    exceeded, naive = 0, 0
    times, n, customers = 25, 2_000, 200
    for _ in range(times):
        favourite, group = chance.integers(0, 10, customers), chance.integers(0, GROUPS, customers)
        counts = np.zeros((HOURS, GROUPS, 11))
        for week in range(WEEKS):
            active = chance.gamma(1, size=customers) * (chance.random(customers) < 0.3)
            who = chance.choice(customers, n, p=active / active.sum())
            bins = np.where(chance.random(n) < 0.8, favourite[who], chance.integers(0, 10, n))
            np.add.at(counts, (week * WEEK + chance.integers(0, WEEK, n), group[who], bins + 1), 1)
        (one,) = drift_of(histograms([number("f")], [counts]), END, effect=0.0)
        assert one.value is not None
        assert one.noise_floor is not None
        exceeded += one.value > one.noise_floor
        naive += one.value > chi2.ppf(0.99, 9) * (1 / n + 1 / (8 * n))
    assert exceeded <= 1
    assert naive == times


def test_traffic_at_other_hours_is_no_drift(chance: np.random.Generator) -> None:
    """Nights have other shares than days; the last week has its volume at night."""
    night = HOUR % 24 < 6
    shares = normal_shares(np.where(night, 1.5, 0.0))
    hourly = np.where(night, 20.0, 100.0)
    hourly[LAST_WEEK:] = np.where(night, 200.0, 40.0)[LAST_WEEK:]
    counts = drawn(chance, 0, shares, hourly)
    (one,) = drift_of(histograms([number("f")], [counts]), END)
    assert one.verdict == "steady"
    whole = [counts[a:b].sum(axis=(0, 1))[None] for a, b in ((LAST_WEEK, HOURS), (0, LAST_WEEK))]
    assert distances(*whole).psi > 0.3  # what hours hide


# A change, an alarm.


@pytest.mark.parametrize(
    ("a_week", "by", "effect", "least", "most"),
    [
        (1_000, 0.2, 0.1, 0.0, 0.05),  # PSI 0.04: below what counts
        (1_000, 0.2, 0.01, 0.1, 0.9),
        (2_000, 0.2, 0.01, 0.7, 1.0),
        (5_000, 0.2, 0.01, 0.98, 1.0),
        (200, 0.6, 0.1, 0.3, 1.0),
        (1_000, 0.6, 0.1, 0.98, 1.0),
    ],
)
def test_a_shift_is_found_as_often_as_stated(
    chance: np.random.Generator, a_week: int, by: float, effect: float, least: float, most: float
) -> None:
    """`by`: in standard deviations."""
    found = [
        one
        for _ in range(12)
        for one in drift_of(traffic(chance, a_week, 4, since(LAST_WEEK, by)), END, effect=effect)
    ]
    assert least <= verdicts(found).count("drifted") / len(found) <= most


@pytest.mark.parametrize("a_week", [500, 5_000])
def test_a_changed_mix_of_categories_is_found(chance: np.random.Generator, a_week: int) -> None:
    """A channel that had a tenth has a quarter; another mix beside it stays."""
    shares = np.tile([0.0, 0.6, 0.3, 0.1, *[0.0] * 28], (HOURS, 1))
    now = np.array([0.0, 0.5, 0.25, 0.25, *[0.0] * 28])
    moved = np.where(HOUR[:, None] >= LAST_WEEK, now, shares)
    found = 0
    for _ in range(10):
        counts = [drawn(chance, a_week, one) for one in (moved, shares)]
        fields = [text("channel", ["pos", "web", "app"]), text("entry", ["chip", "nfc", "key"])]
        one, other = drift_of(histograms(fields, counts), END)
        found += one.verdict == "drifted"
        assert other.verdict != "drifted"
        assert one.ks is None
        bins = {bin.label: bin for bin in one.bins}
        assert bins["app"].now == pytest.approx(0.25, abs=0.08)
        assert bins["app"].then == pytest.approx(0.1, abs=0.03)
    assert found >= (10 if a_week > 500 else 8)


def test_what_is_no_longer_given_and_what_is_new_alarm(chance: np.random.Generator) -> None:
    usual = np.tile(normal_shares(np.zeros(1)), (HOURS, 1))
    missing = usual * 0.8
    missing[:, 0] = 0.2
    gone = np.where(HOUR[:, None] >= LAST_WEEK, missing, usual)
    known = np.tile([0.0, 0.7, 0.3, *[0.0] * 29], (HOURS, 1))
    new = np.where(HOUR[:, None] >= LAST_WEEK, np.array([0.0, 0.5, 0.2, *[0.0] * 28, 0.3]), known)
    fields = [number("f"), text("merchant", ["a", "b"])]
    found = drift_of(histograms(fields, [drawn(chance, 2000, one) for one in (gone, new)]), END)
    assert verdicts(found) == ["drifted", "drifted"]
    assert found[0].bins[0].label == "not given"
    assert found[0].bins[0].then == 0
    assert found[1].bins[-1].label == "other"


@pytest.mark.parametrize("weeks_ago", [1, 2, 4])
def test_a_drift_does_not_become_the_usual_within_weeks(
    chance: np.random.Generator, weeks_ago: int
) -> None:
    begin = HOURS - weeks_ago * WEEK
    found = drift_of(traffic(chance, 5_000, 3, since(begin, 0.5)), END)
    assert verdicts(found) == ["drifted"] * 3
    for one in found:
        assert one.began == day_of(begin)
        assert one.weeks == 9 - weeks_ago
        assert any("before it changed" in note for note in one.notes) == (weeks_ago > 1)


def test_one_freak_week_does_not_hide_a_drift(chance: np.random.Generator) -> None:
    freak = np.where(HOUR // WEEK == 3, 1.0, 0.0)
    (one,) = drift_of(traffic(chance, 20_000, 1, freak + since(LAST_WEEK, 1.0)), END)
    assert one.verdict == "drifted"
    assert one.rank in (1, 2)


# When it began.


@pytest.mark.parametrize("a_week", [2_000, 20_000])
@pytest.mark.parametrize("shape", ["step", "ramp"])
def test_the_day_that_it_began(chance: np.random.Generator, a_week: int, shape: str) -> None:
    sure, held, times = 0, 0, 20
    for _ in range(times):
        ago = 24 * int(chance.integers(4, 7) if shape == "step" else chance.integers(9, 14))
        begin = HOURS - ago
        moved = since(begin, 1.0) if shape == "step" else ((HOUR - begin) / ago).clip(0) * 1.5
        (one,) = drift_of(traffic(chance, a_week, 1, moved), END)
        assert one.verdict == "drifted"
        if one.began is not None and one.began_between is not None:
            sure += 1
            early, late = one.began_between
            held += early <= day_of(begin) <= late
            assert early <= one.began <= late
            assert (late - early).days <= 15
    assert sure >= 0.9 * times
    assert held >= 0.9 * sure


# Events.


def event(name: str, first: int, last: int) -> CalendarEvent:
    return CalendarEvent.model_validate(
        {
            "event": name,
            "from": day_of(first).isoformat(),
            "to": day_of(last).isoformat(),
            "log_odds_shift": 0.3,
        }
    )


def test_an_event_explains_what_it_holds_and_no_more(chance: np.random.Generator) -> None:
    sale = event("black-friday", HOURS - 96, HOURS - 48)
    during = (HOUR >= HOURS - 96) & (HOUR < HOURS - 24)
    only_then = traffic(chance, 5_000, 2, np.where(during, 1.2, 0.0))
    assert verdicts(drift_of(only_then, END)) == ["drifted"] * 2
    found = drift_of(only_then, END, calendar=[sale])
    assert verdicts(found) == ["explained"] * 2
    assert all(one.explained_by == "black-friday" and one.began is None for one in found)
    whole_week = traffic(chance, 5_000, 2, since(LAST_WEEK, 1.2))
    found = drift_of(whole_week, END, calendar=[sale])
    assert verdicts(found) == ["drifted"] * 2
    assert all("outside black-friday" in one.notes[-1] for one in found)
    quiet = drift_of(traffic(chance, 5_000, 2), END, calendar=[sale])
    assert verdicts(quiet) == ["steady"] * 2
    assert all(one.explained_by is None for one in quiet)


def test_events_leave_the_references(chance: np.random.Generator) -> None:
    """Two weeks of the eight were events: left in, they would blur what is usual."""
    weeks = HOUR // WEEK
    odd = np.where((weeks == 2) | (weeks == 5), 2.0, 0.0)
    odd[HOUR % WEEK >= 120] = 0.0
    seen = traffic(chance, 5_000, 1, odd)
    calendar = [event(f"e{w}", w * WEEK, w * WEEK + 119) for w in (2, 5)]
    (one,) = drift_of(seen, END, calendar=calendar)
    (blurred,) = drift_of(seen, END)
    assert one.verdict == "steady"
    assert one.weeks == 6
    assert any("6 of 8" in note for note in one.notes)
    assert one.value is not None
    assert blurred.value is not None
    assert blurred.value > 5 * one.value


# Too little to say.


@pytest.mark.parametrize(
    ("a_week", "past", "why"),
    [
        (40, 8, ""),
        (5_000, 0, "0 of 8 reference weeks"),
        (5_000, 1, "one reference week does not say how much weeks differ"),
    ],
)
def test_too_little_is_undecided(
    chance: np.random.Generator, a_week: int, past: int, why: str
) -> None:
    mean = since(LAST_WEEK, 2.0)
    counts = drawn(chance, a_week, normal_shares(mean))
    counts[: HOURS - (past + 1) * WEEK] = 0
    (one,) = drift_of(histograms([number("f")], [counts]), END)
    assert one.verdict == "undecided"
    assert not why or why in one.notes


def test_hours_that_are_new_have_nothing_to_be_compared_with(
    chance: np.random.Generator,
) -> None:
    hourly = np.where((HOUR % 24 < 12) == (HOUR >= LAST_WEEK), 100.0, 0.0)
    counts = drawn(chance, 0, normal_shares(since(LAST_WEEK, 1.0)), hourly)
    (one,) = drift_of(histograms([number("f")], [counts]), END)
    assert (one.verdict, one.value) == ("undecided", None)
    assert one.notes == ("the references have hardly anything at these hours",)


def test_few_references_do_with_a_note(chance: np.random.Generator) -> None:
    counts = drawn(chance, 5_000, normal_shares(since(LAST_WEEK, 1.0)))
    counts[: HOURS - 5 * WEEK] = 0
    (one,) = drift_of(histograms([number("f")], [counts]), END)
    assert one.verdict == "drifted"
    assert (one.weeks, one.notes[0]) == (4, "4 of 8 reference weeks")
    assert one.rank == 1


def test_what_has_one_value_is_steady_and_what_has_none_undecided(
    chance: np.random.Generator,
) -> None:
    one_value = np.tile([0.0, 1.0, *[0.0] * 30], (HOURS, 1))
    counts = drawn(chance, 2_000, one_value)
    fields = [text("channel", ["web"]), text("entry", [])]
    found = drift_of(histograms(fields, [counts, np.zeros_like(counts)]), END)
    assert verdicts(found) == ["steady", "undecided"]
    assert found[0].value == 0.0


def test_a_window_of_hours_is_compared_with_the_same_hours(chance: np.random.Generator) -> None:
    """Six hours of one afternoon, against that afternoon of the weeks before."""
    for by, verdict in ((0.0, "steady"), (1.0, "drifted")):
        seen = traffic(chance, 100_000, 1, since(HOURS - 6, by))
        (one,) = drift_of(seen, END, hours=6)
        assert one.verdict == verdict
        assert one.weeks == 8
