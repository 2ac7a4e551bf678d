"""Groups are compared by every gate, in a lake whose truth is known; nothing gates but the gate."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

import evaluated_lake as world
import numpy as np
import pandas as pd
import pytest
from coverage import Declines, Foreseen
from fairlearn.metrics import (
    MetricFrame,
    count,
    false_positive_rate,
    selection_rate,
    true_positive_rate,
)
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.rates import confint_poisson_2indep

from gateway.cli.lake_terms import columns_of_tables
from gateway.evaluate import counts
from gateway.evaluate.deciding import wanted
from gateway.evaluate.engine import GROUPS, DuckDb
from gateway.evaluate.entry import SCHEMA, Entry
from gateway.evaluate.fairness import fairness
from gateway.evaluate.intervals import Share
from gateway.evaluate.measures import Measures, measures_of
from gateway.evaluate.power import exploration_rate_for_ratio, further_for_ratio
from gateway.evaluate.rates import expected_ratio
from gateway.evaluate.ratios import KINDS
from gateway.evaluate.sums import BUCKETS, Amounts
from gateway.evaluate.support import Supported, bounds, explored, supported_ratio
from gateway.evaluate.terms import Terms, terms_of
from gateway.evaluate.view import EVER, View
from gateway.product import parse
from gateway.product.promises import Fairness
from gateway.sidecar.metrics.evaluated import Evaluated

MODELS = Path(__file__).parents[1] / "models"
AS_OF = world.day(200)
DAYS = (EVER, world.day(100).date())
REFERENCE = {"age_band": "35-54", "sex": "M"}
GATES = (
    "false_positive_rate_ratio",
    "true_positive_rate_ratio",
    "approval_rate_ratio",
    "observed_expected_ratio",
)
OF_DECLINES = GATES[:2]
EXPLORE = 0.4
MIN_N = 150
Row = dict[str, Any]


@pytest.fixture(autouse=True)
def _no_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    """multipletests collects garbage whenever it is called: 50 ms here, with all that is loaded."""
    monkeypatch.setattr("gc.collect", lambda *_: 0)


def terms(
    gate: str = GATES[0],
    attributes: Sequence[str] = tuple(REFERENCE),
    references: Mapping[str, str] = MappingProxyType({}),
) -> Terms:
    text = (MODELS / "card-not-present" / "product.yaml").read_text()
    compared = {name: {**REFERENCE, **references}[name] for name in attributes}
    lines = "\n    ".join(f'{name}: {{reference: "{one}"}}' for name, one in compared.items())
    for before, after in (
        ("card-not-present", "cnp"),
        ("gate: false_positive_rate_ratio", f"gate: {gate}\n  min_n: {MIN_N}"),
        ('age_band: {reference: "35-54"}', lines),
    ):
        assert before in text
        text = text.replace(before, after)
    return terms_of(parse(text, "product.yaml"))


def drawn() -> tuple[list[Row], list[Row], list[Row]]:
    """Payments with their truth, `fraud`; labels of those that went through; two attributes.

    Genuine payments of 70+ are declined ten times as often; frauds on F are declined a quarter as
    often; the model believes a third of the frauds of 18-34. Few customers have sex X.
    """
    chance = random.Random(11)
    people = []
    for number in range(900):
        age = chance.choices(("35-54", "70+", "18-34", ""), (45, 20, 25, 10))[0]
        sex = chance.choices(("M", "F", "X", ""), (48, 40, 1, 11))[0]
        people.append((f"{number * 2_654_435_761 % 2**32:08x}{'0' * 24}", age, sex))
    decisions, labels = [], []
    for number in range(1, 12_000):
        subject, age, sex = chance.choice(people)
        fraud = chance.random() < 0.1
        stop = (0.15 if sex == "F" else 0.6) if fraud else (0.3 if age == "70+" else 0.03)
        against = chance.random() < stop
        let = against and chance.random() < EXPLORE
        row = world.decision(
            number,
            event_time=world.day(chance.random() * 60),
            subject=subject,
            action="approve" if let else "decline" if against else chance.choice(ACTIONS),
            explored=let,
            propensity=EXPLORE if let else 1 - EXPLORE if against else 1.0,
            probability=0.033 if age == "18-34" else 0.1,
            stand_in="deadline" if chance.random() < 0.05 else "none",
        )
        ended = None
        if row["action"] == "step_up":
            ended = chance.choice(("step_up_passed", "step_up_failed"))
            labels.append(world.label(number, ended, reported_time=row["event_time"]))
        through = row["action"] != "decline" and ended != "step_up_failed"
        if fraud and through:
            reported = row["event_time"] + timedelta(days=chance.random() * 20)
            labels.append(world.label(number, "chargeback", reported_time=reported))
        row |= {"fraud": fraud, "through": through, "age_band": age, "sex": sex}
        decisions.append(row)
    told = (
        world.attribute(subject, value, attribute=name)
        for subject, age, sex in people
        for name, value in (("age_band", age), ("sex", sex))
        if value
    )
    return decisions, labels, list(told)


ACTIONS = ("approve",) * 19 + ("step_up",)


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return drawn()[0]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DuckDb]:
    lake = tmp_path_factory.mktemp("lake")
    for table, some in zip(("decisions", "labels", "attributes"), drawn(), strict=True):
        world.write(lake, table, some)
    with DuckDb(world.files(lake), columns_of_tables()) as engine:
        counts.count(engine, [terms()], AS_OF)
        yield engine


@pytest.fixture(scope="module")
def entries(engine: DuckDb) -> list[Entry]:
    """Return the section of a product whose gate is false positives."""
    return section(engine, terms())


@pytest.fixture(scope="module", params=GATES)
def gated(request: pytest.FixtureRequest, engine: DuckDb) -> tuple[str, list[Entry]]:
    """Return each gate, with the section of a product that declares it."""
    return request.param, section(engine, terms(request.param))


def section(engine: DuckDb, of: Terms, calibrated: bool = True) -> list[Entry]:
    return list(fairness(View(engine, of, AS_OF.date()), calibrated))


def rates(rows: list[Row], predicted: str, names: Sequence[str], metric: Any) -> Any:
    """Return fairlearn's rate by group (or by intersection) and how many each has."""
    table = pd.DataFrame(rows)
    table["declined"] = table["action"] == "decline"
    return MetricFrame(
        metrics={"rate": metric, "n": count},
        y_true=table["fraud"],
        y_pred=table[predicted],
        sensitive_features=table[list(names)].replace("", "unknown"),
    ).by_group


def one(entries: Sequence[Entry], metric: str, basis: str, **by: str) -> Entry:
    (found,) = (
        entry
        for entry in entries
        if (entry.metric, entry.basis) == (metric, basis)
        and {k: v for k, v in entry.by.items() if k != "reference"} == by
    )
    return found


def alone(entry: Entry) -> bool:
    return len(entry.by) == 2


# --- Gates ------------------------------------------------------------------------------------


def test_every_gate_that_a_product_may_declare_is_one() -> None:
    declared = get_args(Fairness.model_fields["gate"].annotation)
    assert set(declared) == set(GATES)
    assert set(declared) <= KINDS.keys()


def test_the_declared_gate_alone_has_verdicts_and_only_in_its_deciding_form(
    gated: tuple[str, list[Entry]],
) -> None:
    gate, entries = gated
    deciding = "explored" if gate in OF_DECLINES else KINDS[gate].bases[0]
    gating = [entry for entry in entries if entry.more["gates"]]
    assert {(entry.metric, entry.basis) for entry in gating} == {(gate, deciding)}
    assert all(entry.target == "0.8 to 1.25" and entry.verdict for entry in gating)
    # Of each attribute every group but the reference, `unknown` among them.
    assert sorted(next(iter(entry.by.items())) for entry in gating) == [
        ("age_band", "18-34"),
        ("age_band", "70+"),
        ("age_band", "unknown"),
        ("sex", "F"),
        ("sex", "X"),
        ("sex", "unknown"),
    ]
    for entry in entries:
        if entry.metric != gate or entry.basis != deciding:
            assert (entry.verdict, entry.target, entry.more["gates"]) == ("", "", False)
    for metric in GATES:
        told = {entry.basis for entry in entries if entry.metric == metric}
        assert told == set(KINDS[metric].bases)


def test_each_gate_finds_the_group_that_it_is_for(gated: tuple[str, list[Entry]]) -> None:
    gate, entries = gated
    wronged = {
        "false_positive_rate_ratio": {"70+"},
        "true_positive_rate_ratio": {"F"},
        "approval_rate_ratio": set(),  # three of ten declined in error are not four fifths
        "observed_expected_ratio": {"18-34"},
    }[gate]
    breaches = {
        next(iter(entry.by.values()))
        for entry in entries
        if entry.more["gates"] and entry.verdict == "breach"
    }
    assert breaches == wronged
    if gate == "approval_rate_ratio":
        passed = one(entries, gate, "all", sex="F")
        assert (passed.verdict, passed.because) == ("pass", "interval_inside")


def test_breaches_are_held_to_holm_over_all_attributes_and_cells_to_benjamini_and_hochberg(
    gated: tuple[str, list[Entry]],
) -> None:
    gate, entries = gated
    for method, gates in (("holm", True), ("fdr_bh", False)):
        judged = [
            entry
            for entry in entries
            if entry.metric == gate and entry.verdict and entry.more["gates"] == gates
        ]
        family = [entry for entry in judged if entry.more["p"] is not None]
        assert len(family) > 3
        assert {next(iter(entry.by)) for entry in family} == set(
            REFERENCE if gates else ("age_band",)
        )
        want = multipletests([entry.more["p"] for entry in family], method=method)[1]
        adjusted = [entry.more["p_adjusted"] for entry in family]
        assert adjusted == pytest.approx(list(want), rel=1e-9, abs=0.0)
        for entry, p in zip(family, want, strict=True):
            assert (entry.verdict == "breach") == (p <= 0.05)


def test_model_and_bounds_never_gate_and_a_group_speaks_against_its_own_probabilities(
    engine: DuckDb,
    entries: list[Entry],
) -> None:
    metric = "false_positive_rate_ratio"
    implied = one(entries, metric, "model_implied", age_band="18-34")
    assert (implied.figure.value, implied.figure.reason) == (None, "not_calibrated")
    bounded = one(entries, metric, "bounds", sex="F")
    assert bounded.figure.reason == "bounds_only"
    assert all(
        entry.figure.reason == "not_calibrated"
        for entry in section(engine, terms(), calibrated=False)
        if entry.basis == "model_implied"
    )


# --- Figures against oracles ------------------------------------------------------------------


def test_ratios_of_rates_are_fairlearns_by_group_and_by_intersection(
    entries: list[Entry], rows: list[Row]
) -> None:
    compared = 0
    for metric, event in (("approval_rate_ratio", "through"), ("decline_rate_ratio", "declined")):
        cells = rates(rows, event, tuple(REFERENCE), selection_rate)
        base = cells.loc[tuple(REFERENCE.values()), "rate"]
        for (age, sex), cell in cells.iterrows():
            if (age, sex) != ("35-54", "M") and cell["n"] >= MIN_N:
                found = one(entries, metric, "all", age_band=age, sex=sex)
                assert found.by["reference"] == "35-54 × M"
                assert found.figure.n == cell["n"]
                assert found.figure.value == pytest.approx(cell["rate"] / base, rel=1e-9)
                compared += 1
        for name, reference in REFERENCE.items():
            groups = rates(rows, event, (name,), selection_rate)["rate"]
            for value in groups.index.drop(reference):
                found = one(entries, metric, "all", **{name: value})
                want = groups[value] / groups[reference]
                assert found.figure.value == pytest.approx(want, rel=1e-9)
    assert compared > 10


def test_explored_intervals_hold_the_truth_that_fairlearn_sees(
    entries: list[Entry], rows: list[Row]
) -> None:
    """Labels never tell of what was declined; the simulation does."""
    # What ended without a label belongs to no rate: a step-up that was failed.
    known = [row for row in rows if row["through"] or row["action"] == "decline"]
    for metric, rate in (
        ("false_positive_rate_ratio", false_positive_rate),
        ("true_positive_rate_ratio", true_positive_rate),
    ):
        for name, value in (("age_band", "70+"), ("age_band", "18-34"), ("sex", "F")):
            truth = rates(known, "declined", (name,), rate)["rate"]
            found = one(entries, metric, "explored", **{name: value}).figure
            assert found.low < truth[value] / truth[REFERENCE[name]] < found.high


def test_protection_is_a_plain_loops(entries: list[Entry], rows: list[Row]) -> None:
    """Of explored frauds, each stands for (1 - e)/e of the declined, set against those passed."""

    def protected(sex: str) -> float:
        odds = {True: 0.0, False: 0.0}
        declined = missed = 0
        for row in rows:
            if row["sex"] != sex:
                continue
            if row["explored"]:
                odds[row["fraud"]] += (1.0 - row["propensity"]) / row["propensity"]
            declined += row["action"] == "decline"
            missed += row["fraud"] and row["through"]
        stopped = declined * odds[True] / (odds[True] + odds[False])
        return stopped / (stopped + missed)

    found = one(entries, "true_positive_rate_ratio", "explored", sex="F")
    assert found.figure.value == pytest.approx(protected("F") / protected("M"), rel=1e-9)


def test_frauds_over_expected_are_a_plain_loops_and_the_interval_is_poissons(
    entries: list[Entry], rows: list[Row]
) -> None:

    def sums(age: str) -> tuple[float, float]:
        ours = [
            row
            for row in rows
            if row["age_band"] == age and row["through"] and row["stand_in"] == "none"
        ]
        return sum(row["fraud"] for row in ours), sum(row["probability"] for row in ours)

    (y1, x1), (y0, x0) = sums("18-34"), sums("35-54")
    within = one(entries, "observed_over_expected", "mature", age_band="18-34").figure
    assert within.value == pytest.approx(y1 / x1, rel=1e-9)
    ratio = one(entries, "observed_expected_ratio", "mature", age_band="18-34").figure
    assert ratio.value == pytest.approx(y1 / x1 / (y0 / x0), rel=1e-9)
    assert (ratio.low, ratio.high) == pytest.approx(
        confint_poisson_2indep(y1, x1, y0, x0, method="score"), rel=0.15
    )
    even = [Amounts(np.full(BUCKETS, y / BUCKETS), np.full(BUCKETS, x / BUCKETS)) for y, x in
            ((y1, x1), (y0, x0))]  # fmt: skip
    exact = expected_ratio(*even).figure
    # Student's t of 128 buckets instead of the normal, and nothing else.
    assert (exact.low, exact.high) == pytest.approx(
        confint_poisson_2indep(y1, x1, y0, x0, method="score"), rel=0.01
    )


def test_an_attribute_is_known_of_so_many_payments(entries: list[Entry], rows: list[Row]) -> None:
    for name in REFERENCE:
        found = one(entries, "attribute_known", "all", attribute=name)
        known = sum(row[name] != "" for row in rows)
        assert (found.figure.n, found.figure.events) == (len(rows), known)
        assert found.figure.value == pytest.approx(known / len(rows))
        assert name in found.says


def test_every_entry_is_json_without_nan_and_its_interval_holds_its_value(
    gated: tuple[str, list[Entry]],
) -> None:
    _, entries = gated
    told = json.loads(json.dumps([entry.as_object() for entry in entries], allow_nan=False))
    for entry in told:
        low, high = entry["interval"]
        if None in (entry["value"], low, high):
            assert entry["because"], entry
        else:
            assert low <= entry["value"] <= high, entry


def test_without_attributes_all_are_unknown_and_without_decisions_nothing_is_told(
    tmp_path: Path, rows: list[Row]
) -> None:
    world.write(tmp_path, "decisions", rows[:2_000])
    with DuckDb(world.files(tmp_path), columns_of_tables()) as engine:
        counts.count(engine, [terms()], AS_OF)
        entries = section(engine, terms())
        before = list(fairness(View(engine, terms(), world.day(0).date()), True))
    assert before == []
    (share,) = (entry for entry in entries if entry.by == {"attribute": "sex"})
    assert (share.figure.value, share.figure.n) == (0.0, 2_000.0)
    judged = [entry for entry in entries if entry.verdict]
    assert [entry.because for entry in judged] == ["too_few"] * 3
    for entry in judged:
        assert set(entry.by.values()) <= {"unknown", "35-54", "M", "35-54 × M"}
        assert f"about {MIN_N} more matured payments of {entry.by['reference']}" in entry.says


# --- Pairs ------------------------------------------------------------------------------------


def test_pairs_are_groups_and_no_more_than_pairs(engine: DuckDb, rows: list[Row]) -> None:
    groups = measured_groups(engine)
    pairs = {key: sums for key, sums in groups.items() if " × " in key}
    want: dict[str, int] = {}
    for row in rows:
        age, sex = row["age_band"] or "unknown", row["sex"] or "unknown"
        key = f"age_band × sex={age} × {sex}"
        want[key] = want.get(key, 0) + 1
    assert {key: sums.total("n") for key, sums in pairs.items()} == want
    for name in ("passed", "fraud", "declined_n", "explored_w2"):
        by_sex = sum(s.total(name) for key, s in pairs.items() if key.endswith(" × F"))
        assert by_sex == pytest.approx(groups["sex=F"].total(name))


def test_the_order_in_which_attributes_are_declared_is_nothing_to_their_pairs(
    engine: DuckDb, entries: list[Entry]
) -> None:
    other = section(engine, terms(attributes=("sex", "age_band")))
    cells = [[entry for entry in some if len(entry.by) == 3] for some in (entries, other)]
    assert cells[0] == cells[1]
    assert len(cells[0]) > 20


def test_small_cells_are_undecided_and_nothing_else_is_told_of_them(entries: list[Entry]) -> None:
    cells = [entry for entry in entries if not alone(entry) and len(entry.by) == 3]
    small = [entry for entry in cells if entry.because == "too_few"]
    assert {(entry.by["age_band"], entry.by["sex"]) for entry in small} >= {
        (age, "X") for age in ("18-34", "35-54", "70+")
    }
    for entry in small:
        assert (entry.verdict, entry.more["p"]) == ("undecided", None)
        about = [each for each in cells if each.by == entry.by]
        assert about == [entry]
    assert not any(entry.more["gates"] for entry in cells)
    broken = one(entries, GATES[0], "explored", age_band="70+", sex="M")
    assert (broken.verdict, broken.target) == ("breach", "0.8 to 1.25")


def test_intersections_are_not_counted_among_what_gates(entries: list[Entry]) -> None:
    gauges = Evaluated(every_s=60.0)
    told = {"fairness": [entry.as_object() for entry in entries], "goals": []}
    gauges.take({"schema": SCHEMA, "as_of": AS_OF.isoformat(), **told})
    counted = {
        sample.labels["verdict"]: sample.value
        for family in gauges.collect()
        if family.name == "gateway_evaluation_verdicts"
        for sample in family.samples
    }
    assert sum(counted.values()) == sum(entry.more["gates"] for entry in entries)
    assert counted["breach"] == 1


def test_one_attribute_has_no_intersections(engine: DuckDb, rows: list[Row]) -> None:
    entries = section(engine, terms(attributes=("age_band",)))
    assert {tuple(entry.by) for entry in entries} == {
        ("attribute",),
        ("age_band",),
        ("age_band", "reference"),
    }


# --- What would decide ------------------------------------------------------------------------


def test_the_undecided_say_in_numbers_and_words_what_would_decide_them(
    gated: tuple[str, list[Entry]],
) -> None:
    _, entries = gated
    undecided = [entry for entry in entries if entry.verdict == "undecided"]
    assert undecided
    for entry in undecided:
        more = entry.as_object()
        if entry.because == "too_few":
            assert more["needed_for"] == "figure"
            assert 0 < more["more_labels_needed"] <= MIN_N
        if more["more_labels_needed"] is not None:
            assert more["labels_needed_of"] in entry.says
        if more["exploration_needed"] is not None:
            assert more["exploration_now"] < more["exploration_needed"] < 1.0
            assert " % of declines" in entry.says
    for entry in entries:
        if entry.verdict != "undecided":
            assert "more_labels_needed" not in entry.more


def test_a_group_below_the_least_size_needs_as_many_as_it_is_short_of(
    entries: list[Entry], rows: list[Row]
) -> None:
    found = one(entries, GATES[0], "explored", sex="X")
    n = sum(row["sex"] == "X" for row in rows)
    assert 0 < n < MIN_N
    assert (found.because, found.more["more_labels_needed"]) == ("too_few", MIN_N - n)


def test_a_reference_below_the_least_size_judges_nobody(engine: DuckDb, rows: list[Row]) -> None:
    entries = section(engine, terms(references={"sex": "X"}))
    small = sum(row["sex"] == "X" for row in rows)
    for sex in ("M", "F", "unknown"):
        found = one(entries, GATES[0], "explored", sex=sex)
        assert (found.verdict, found.because) == ("undecided", "too_few")
        assert found.more["more_labels_needed"] == MIN_N - small
        assert f"about {MIN_N - small} more matured payments of X" in found.says


def test_labels_are_counted_of_what_the_figure_is_about(engine: DuckDb, rows: list[Row]) -> None:
    groups = measured_groups(engine)
    ours = [row for row in rows if row["sex"] == "F"]
    through = [row for row in ours if row["through"]]
    for metric, want in (
        ("false_positive_rate_ratio", [row for row in through if not row["fraud"]]),
        ("true_positive_rate_ratio", [row for row in through if row["fraud"]]),
        ("observed_expected_ratio", [row for row in through if row["stand_in"] == "none"]),
        ("approval_rate_ratio", ours),
    ):
        assert KINDS[metric].counted(groups["sex=F"]) == len(want)


def test_a_seeming_breach_needs_more_the_more_are_compared_and_a_seeming_pass_does_not(
    engine: DuckDb,
) -> None:
    groups = measured_groups(engine)
    kind = KINDS["decline_rate_ratio"]
    sides = groups["age_band=70+"], groups["age_band=35-54"]
    ratio = kind.make(*sides, "all", True)
    value = ratio.figure.value
    for limits, grows in (((0.5, value / 1.01), True), ((0.5, value * 1.01), False)):
        few, many = (
            wanted(kind, ratio, *sides, limits=limits, family=family).labels for family in (1, 20)
        )
        assert few > 0
        assert (many > 1.3 * few) if grows else (many == few)


def measured_groups(engine: DuckDb) -> dict[str, Measures]:
    return measures_of(engine.read("sums", DAYS, part="group", cells=GROUPS))["cnp"]


def measured(sums: Any) -> Measures:
    return Measures(sums._asdict())


SMALL = Declines(many=6_000, base=0.02, small_base=0.03, threshold=0.15, e=0.05)


def test_as_much_exploration_or_as_many_labels_decide_four_times_of_five() -> None:
    """What is asked for, from the figures that one world expects, decides in new worlds of it."""
    parts, chance = 20, np.random.default_rng(1)
    large = replace(SMALL, many=parts * SMALL.many).sums(chance)
    figures = [_worth(explored(s, "false_positive_rate"), 1.0 / parts) for s in large]
    known = [float((s.passed_genuine + s.explored_genuine).sum()) / parts for s in large]
    value = figures[0].figure.value / figures[1].figure.value
    limits = (value / 9.0, value / MARGIN)
    rate = exploration_rate_for_ratio(*figures, SMALL.e, tuple(known), limits=limits)
    assert 1.5 * SMALL.e < rate < 0.5
    labels = further_for_ratio(*(f.lowest for f in figures), known[0], limits=limits)
    more = labels.further / known[0]
    assert 0.3 < more < 5.0
    assert decided(SMALL) < 0.66
    assert decided(replace(SMALL, e=rate)) == pytest.approx(0.8, abs=0.12)
    assert decided(replace(SMALL, many=round(SMALL.many * (1.0 + more)))) == pytest.approx(
        0.8, abs=0.12
    )


MARGIN = 1.25


def _worth(figure: Supported, part: float) -> Supported:
    """Return a figure as if so small a part had been counted."""
    share = figure.lowest
    less = Share(share.events * part, share.trials * part, share.dof)
    return replace(figure, lowest=less, highest=less)


def decided(scene: Declines, worlds: int = 100) -> float:
    """Return in what share of worlds a ratio is told from the truth / MARGIN."""
    # Exploring moves the figure itself: what is let through is not declined.
    true = [scene.truth(b)["false_positive_rate"] for b in (SMALL.small_base, SMALL.base)]
    outside = 0
    for seed in range(worlds):
        sides = [
            explored(s, "false_positive_rate") for s in scene.sums(np.random.default_rng(seed))
        ]
        low = supported_ratio(*sides).figure.low
        outside += low is not None and low > true[0] / true[1] / MARGIN
    return outside / worlds


def test_no_exploration_helps_where_payments_themselves_are_too_few() -> None:
    one, other = Declines(many=1_500, e=0.5).sums(np.random.default_rng(5))
    figures = [explored(s, "false_positive_rate", least=1.0) for s in (one, other)]
    value = supported_ratio(*figures).figure.value
    known = tuple(float((s.passed_genuine + s.explored_genuine).sum()) for s in (one, other))
    near = (value / 1.02, value * 2.0)
    assert exploration_rate_for_ratio(*figures, 0.5, known, limits=near) is None
    by_bounds = [bounds(s, "false_positive_rate") for s in (one, other)]
    with pytest.raises(ValueError, match="bounds"):
        exploration_rate_for_ratio(*by_bounds, 0.5, known)
    far = (value / 4.0, value * 4.0)
    assert exploration_rate_for_ratio(*figures, 0.5, known, limits=far) is not None


def test_where_nothing_can_be_said_the_least_that_lets_something_be_is_told() -> None:
    kind = KINDS["false_positive_rate_ratio"]
    one, other = SMALL.sums(np.random.default_rng(1))
    thin, _ = replace(SMALL, many=1_500).sums(np.random.default_rng(1))

    def told(mine: Any) -> Any:
        sides = [measured(s) for s in (mine, other)]
        ratio = kind.make(*sides, "explored", False)
        return wanted(kind, ratio, *sides, limits=(0.8, 1.25), family=3)

    few = told(thin)
    effective = explored(thin, "false_positive_rate").effective
    assert 0.0 < effective < 50.0
    assert few.until == "figure"
    labels = kind.counted(measured(thin))
    assert few.labels == pytest.approx(labels * (50.0 / effective - 1.0), abs=1.0)
    let = float((thin.explored_genuine + thin.explored_fraud).sum())
    rate = let / (let + float(thin.declined_n.sum()))
    assert few.exploration == pytest.approx(rate * 50.0 / effective)
    assert "would let anything be said" in few.says("70+")
    nothing = np.zeros_like(one.declined_n)
    off = one._replace(
        **{name: nothing for name in one._fields if name.startswith("explored")},
        declined_n=nothing,
        declined_p=nothing,
        unreached_n=one.declined_n,
        unreached_p=one.declined_p,
    )
    unexplored = told(off)
    assert unexplored.labels is None
    assert unexplored.exploration == pytest.approx(50.0 / float(one.declined_n.sum()))
    beyond = told(one._replace(unreached_n=one.declined_n / 2, unreached_p=one.declined_p / 2))
    assert (beyond.labels, beyond.exploration) == (None, None)
    assert "does not reach" in beyond.says("70+")


# --- Intervals and words ----------------------------------------------------------------------


def test_intervals_of_protection_hold_the_truth_as_often_as_they_say() -> None:
    scene = Declines(many=3_000, base=0.02, small_base=0.03, threshold=0.06, e=0.1)
    small, large = (scene.truth(base)["true_positive_rate"] for base in (0.03, 0.02))
    held = said = 0
    for seed in range(150):
        sides = [measured(s) for s in scene.sums(np.random.default_rng(seed))]
        found = KINDS["true_positive_rate_ratio"].make(*sides, "explored", False).figure
        if found.low is not None:
            said += 1
            held += found.low <= small / large <= (found.high or np.inf)
    assert said > 100
    assert held / said > 0.95 - 3.0 * np.sqrt(0.95 * 0.05 / said)
    assert held < said


def test_sparse_sums_of_expected_frauds_are_told_without_nan() -> None:
    scene = Foreseen(many=12, payments=3.0, base=0.1)
    nothing = Amounts(np.zeros(BUCKETS), np.zeros(BUCKETS))
    reasons = set()
    for seed in range(200):
        one, other = scene.amounts(np.random.default_rng(seed))
        for pair in ((one, other), (one, nothing), (nothing, other)):
            found = expected_ratio(*pair)
            reasons.add(found.figure.reason)
            assert 0.0 <= found.p_beyond(1.25, above=True) <= 1.0
    assert {"no_observations", "one_cluster", "no_events_in_reference"} <= reasons


def test_each_text_names_the_error_and_who_bears_it_and_judges_nothing_by_law(
    gated: tuple[str, list[Entry]],
) -> None:
    _, entries = gated
    errors = ("in error", "missed", "misses", "not an error", "held up", "shows in no other")
    for entry in entries:
        assert any(error in entry.says for error in errors), entry.says
        values = [v for k, v in entry.by.items() if k not in ("reference", "attribute")]
        for value in values:
            assert value in entry.says
        for word in ("discriminat", "legal", "lawful", "complian", "violat"):
            assert word not in entry.says.lower()
    by_form = {
        basis: one(entries, GATES[0], basis, age_band="70+").says.split(",")[0]
        for basis in ("explored", "model_implied", "bounds")
    }
    assert len(set(by_form.values())) == 3
