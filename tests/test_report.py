"""The report: every number is the JSON's, whoever named what; a team gets what it needs."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import evaluated_lake as world
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_hypotheses import DECLARED, WRITTEN, seen

from gateway.cli.lake_terms import columns_of_tables
from gateway.cli.main import run
from gateway.errors import ExitCode, LakeError, UsageError
from gateway.evaluate.claims import Started, told
from gateway.evaluate.engine import DuckDb
from gateway.evaluate.evaluation import evaluate
from gateway.evaluate.hypotheses import Observed, outcome
from gateway.evaluate.terms import terms_of
from gateway.product import parse
from gateway.report.entries import Line, read
from gateway.report.markdown import LINES, report_markdown
from gateway.report.owners import OWNERS, owners_of
from gateway.report.page import MOST_BYTES, report_html
from gateway.report.tables import COUNTED
from gateway.report.verdicts import is_judged
from gateway.sidecar.lake.evaluations import SCHEMA

MODELS = Path(__file__).parents[1] / "models"

SCRIPT = "<script>alert(1)</script>"
HOSTILE = (SCRIPT, '"><img src=x onerror=alert(1)>', "a|b`c`\n# d", "*70*_+_&amp;\u202ex")
"""Names that groups and channels of the world have."""

Evaluation = dict[str, Any]


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """What is evaluated of a lake whose groups and channels are named by an enemy; many genuine
    payments of one group are declined, and in the last week all channels are one.
    """
    lake = tmp_path_factory.mktemp("lake")
    fill(lake)
    text = (MODELS / "card-not-present" / "product.yaml").read_text()
    for old, new in (("card-not-present", "cnp"), ("chargeback: 90d", "chargeback: 21d")):
        assert old in text
        text = text.replace(old, new)
    product = parse(text, "product.yaml")
    with DuckDb(world.files(lake), columns_of_tables()) as engine:
        found = evaluate(engine, [terms_of(product)], world.day(140)).as_object()
    found["hypotheses"] = hypotheses()
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]


def hypotheses() -> list[dict[str, Any]]:
    """What came of claims that an enemy wrote: of each verdict one, and one that is damaged."""
    started = Started("cnp", "", "0" * 64, {}, "0" * 64, world.day(0).isoformat())

    def one(id: str, observed: Observed, *, frozen: bool = True, **more: Any) -> dict[str, Any]:
        declared = {**WRITTEN, "claim": HOSTILE[2], "arms": [["v1", 0.5], [SCRIPT, 0.5]]} | more
        stopped = world.day(100).isoformat() if id == "stopped" else None
        own = replace(started, id=id, declared=declared, stopped=stopped)
        come = outcome(DECLARED, observed, is_as_frozen=frozen).as_object()
        return told(own, come, world.day(140))

    return [
        one("ships", seen(0.03)),
        one("breaks", seen(0.03, approved=0.8), metric="fraud_loss_bps"),
        one("falls-short", seen(0.07)),
        one("changed", seen(0.03), frozen=False),
        one("open", seen(0.03, approved=0.89)),
        one("young", seen(0.03, days=4)),
        one("unborn", seen(0.03, days=0)),
        one("stopped", seen(0.03)),
        {"product": "cnp", "id": SCRIPT, "error": f"{SCRIPT} is no started hypothesis"},
    ]


def fill(lake: Path) -> None:
    chance = random.Random(5)
    groups = ("35-54", "18-34", SCRIPT, HOSTILE[3])
    decisions, labels, attributes = [], [], []
    for number in range(1, 8001):
        at = world.day(chance.random() * 140)
        group, channel = chance.choice(groups), chance.choice((*HOSTILE[1:3], "app", "web"))
        if at > world.day(133):
            channel = HOSTILE[1]
        fraud = chance.random() < 0.03
        turned_down = chance.random() < (0.5 if fraud else 0.35 if group == SCRIPT else 0.08)
        explored = turned_down and chance.random() < 0.5
        row = world.decision(
            number,
            event_time=at,
            watch={"channel": channel},
            probability=chance.choice((0.001, 0.01, 0.2)),
            amount_minor=chance.choice((1_000, 12_000, 150_000)),
            explored=explored,
            propensity=0.5 if turned_down else 1.0,
            action="decline" if turned_down and not explored else "approve",
            stand_in="deadline" if chance.random() < 0.02 else "none",
        )
        decisions.append(row)
        attributes.append(world.attribute(row["subject"], group))
        if fraud and row["action"] == "approve":
            late = at + timedelta(days=chance.random() * 20)
            labels.append(
                world.label(
                    number,
                    "chargeback",
                    reported_time=late,
                    amount_minor=row["amount_minor"],
                    currency="USD",
                    liable="issuer",
                )
            )
    world.write(lake, "decisions", decisions)
    world.write(lake, "labels", labels)
    world.write(lake, "attributes", attributes)


class Told(NamedTuple):
    """A number on the page: its place in the JSON, its exact value, its text, where it stands."""

    at: str
    value: str
    text: str
    inside: int


class Page(HTMLParser):
    """What a browser would see of a page: elements, numbers, names, and all other words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.numbers: list[Told] = []
        self.counts: list[str] = []
        self.names: list[str] = []
        self.words: list[str] = []
        self.places: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[tuple[str, dict[str, str | None], int]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag != "meta":
            self._open.append((tag, dict(attrs), len(self.elements)))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        tag, attributes, _ = self._open[-1] if self._open else ("", {}, 0)
        if tag == "data" and attributes.get("data-at"):
            value, at = attributes["value"], attributes["data-at"]
            assert value is not None
            assert at is not None
            self.numbers.append(Told(at, value, data, self._open[-2][2]))
        elif tag == "data":
            assert attributes["value"] == data.replace(",", "")
            self.counts.append(data)
        elif tag == "bdi":
            self.names.append(data)
        elif attributes.get("class") == "behind":
            self.places.append(data)
        elif tag not in ("style", "time", "title") and attributes.get("class") != "tick":
            self.words.append(data)


def at(evaluation: Evaluation, pointer: str) -> Any:
    found: Any = evaluation
    for name in pointer.split("/")[1:]:
        found = found[int(name)] if isinstance(found, list) else found[name]
    return found


def is_rounded(text: str, value: float, *, percent: bool) -> bool:
    """Whether a text is a value, rounded to the digits that it has."""
    match = re.match(r"-?[\d,]*\.?\d+", text)
    assert match, text
    digits = match[0].replace(",", "")
    decimals = len(digits.partition(".")[2])
    exact = 100 * value if percent else value
    return abs(float(digits) - exact) <= 0.5000001 * 10.0**-decimals


def unit_of(evaluation: Evaluation, pointer: str) -> str:
    """Return the unit that stands nearest around a number."""
    found: Any = evaluation
    unit = None
    for name in pointer.split("/")[1:]:
        found = found[int(name)] if isinstance(found, list) else found[name]
        unit = found.get("unit", unit) if isinstance(found, dict) else unit
    return str(unit)


OF_UNIT = re.compile(
    r"/(value|interval/[01]|target|expected|impact/(actual|intended)|margin|goal/[012])$"
)
OF_SHARE = re.compile(r"/(maturity/\d+/cohorts/\d+/share/\d+|declared/\d+/arms/\d+/share)$")


@pytest.mark.parametrize("owner", [None, *OWNERS])
def test_every_number_on_the_page_is_the_jsons(evaluation: Evaluation, owner: str | None) -> None:
    page = Page(report_html(read(evaluation, "x"), owner))
    assert len(page.numbers) > 10
    for one in page.numbers:
        found = at(evaluation, one.at)
        if one.at.endswith("/target"):
            assert float(one.value) in [float(x) for x in re.findall(r"[\d.]+", found)]
        else:
            assert float(one.value) == found
        percent = unit_of(evaluation, one.at) == "share" and bool(OF_UNIT.search(one.at))
        percent |= bool(OF_SHARE.match(one.at))
        shown = float(one.value)
        if one.at.endswith("_us"):
            assert one.text.endswith(" ms") == (shown >= 1000), one
            shown = shown / 1000 if shown >= 1000 else shown
        assert is_rounded(one.text, shown, percent=percent), one


def test_there_is_no_number_that_does_not_say_where_it_is_from(evaluation: Evaluation) -> None:
    page = Page(report_html(read(evaluation, "x")))
    # A quantile is called by its name.
    words = re.sub(r"95 %|p99\.9|p99|p50", "", " ".join(page.words))
    assert re.findall(r".{20}\d", words) == []


def test_every_row_says_where_its_decisions_are_and_a_page_that_can_leads_there(
    evaluation: Evaluation,
) -> None:
    found = read(evaluation, "x")
    page = Page(report_html(found))
    assert len(page.places) > 100
    assert {line.at for line in found.lines if line.at.startswith("/fairness")} <= {*page.places}
    assert all("metric" in at(evaluation, one) for one in page.places)
    linked = Page(report_html(found, behind=lambda pointer: f"/d?at={pointer}&x=<>"))
    assert linked.places == []
    assert "gateway decisions" not in " ".join(linked.words)
    links = [more["href"] for tag, more in linked.elements if tag == "a"]
    dated = {line.at for line in found.lines if line.begin}
    values = [
        one.at
        for one in linked.numbers
        if re.fullmatch(r"/\w+/\d+/value", one.at) and one.at.removesuffix("/value") in dated
    ]
    for pointer in (*page.places, *(one.removesuffix("/value") for one in values)):
        assert f"/d?at={pointer}&x=<>" in links
    assert sum("/d?at=" in str(one) for one in links) == len(page.places) + len(values)
    assert linked.numbers == [
        one._replace(inside=other.inside)
        for one, other in zip(page.numbers, linked.numbers, strict=True)
    ]


def test_no_value_stands_without_the_interval_that_the_json_has(evaluation: Evaluation) -> None:
    page = Page(report_html(read(evaluation, "x")))
    beside = {(one.inside, one.at) for one in page.numbers}
    values = [one for one in page.numbers if one.at.endswith("/value")]
    assert len(values) > 50
    for one in values:
        entry = one.at.removesuffix("/value")
        if entry.startswith("/drift"):
            assert (one.inside, f"{entry}/interval/1") in beside
            continue
        for i, end in enumerate(at(evaluation, entry)["interval"]):
            assert end is None or (one.inside, f"{entry}/interval/{i}") in beside, one


def test_every_figure_of_the_json_is_on_the_page(evaluation: Evaluation) -> None:
    page = Page(report_html(read(evaluation, "x")))
    shown = {one.at for one in page.numbers}
    for section in ("goals", "money", "calibration", "drift", "fairness"):
        for i, one in enumerate(evaluation[section]):
            if one["value"] is not None:
                assert f"/{section}/{i}/value" in shown
    for name in COUNTED:
        assert f"/labels/0/{name}" in shown


def test_the_headline_counts_the_verdicts(evaluation: Evaluation) -> None:
    def judged(section: str, *verdicts: str) -> int:
        return sum(
            one["verdict"] in verdicts
            for one in evaluation[section]
            if section != "fairness" or one["gates"]
            if section != "calibration" or not one["by"]
        )

    missed, worse = judged("goals", "missed"), judged("fairness", "breach")
    models, moved = judged("calibration", "breach"), judged("drift", "drifted")
    open_ = judged("goals", "undecided") + judged("fairness", "undecided")
    good = judged("goals", "met") + judged("fairness", "pass")
    assert min(missed, worse, models, moved, open_) > 0
    first = report_markdown(read(evaluation, "x")).splitlines()[0]
    numbers = [n for n in (missed, worse, models, moved, open_, good) if n]
    headline = first.partition(".")[0]
    assert [int(x) for x in re.findall(r"\d+", headline)] == numbers
    page = Page(report_html(read(evaluation, "x")))
    assert [int(x) for x in page.counts[: len(numbers)]] == numbers


def test_what_the_product_owner_asks_is_said_first(evaluation: Evaluation) -> None:
    """Which promise is in danger, which group is worse off and by how much, what it costs."""
    text = report_html(read(evaluation, "x"), "product")
    first = re.sub(r"<[^>]+>", "", text.partition('<section id="product-1"')[2])[:2000]
    danger, worse, costs = (first.index(x) for x in ("In danger.", "Worse off.", "What it costs."))
    assert danger < worse < costs
    assert "The promise always-on" in first[danger:worse]
    breach = next(one for one in evaluation["fairness"] if one["verdict"] == "breach")
    assert breach["by"]["age_band"] == SCRIPT
    assert escape(SCRIPT) in first[worse:costs]
    assert f"{breach['value']:.3g} times" in first[worse:costs]
    loss = next(one for one in evaluation["money"] if one["metric"] == "fraud_loss")
    assert f"{loss['value']:,.0f} USD" in first[costs:]


def test_names_of_an_enemy_are_names(evaluation: Evaluation) -> None:
    page = Page(report_html(read(evaluation, "x")))
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "img", "iframe", "object", "link", "base", "form"}
    assert not [name for _, some in page.elements for name in some if name.startswith("on")]
    for name in HOSTILE[:2]:
        assert any(name in one for one in page.names)
    assert not any("\u202e" in one or "\n" in one for one in page.names)


def test_the_page_is_one_file_well_formed_and_small(evaluation: Evaluation) -> None:
    text = report_html(read(evaluation, "x"))
    assert len(text.encode()) < MOST_BYTES
    ElementTree.fromstring(text.removeprefix("<!DOCTYPE html>\n"))
    page = Page(text)
    places = [some["id"] for _, some in page.elements if "id" in some]
    assert len(set(places)) == len(places)
    for _, some in page.elements:
        assert "src" not in some
        assert "href" not in some or (some["href"] or "").removeprefix("#") in places
    assert not re.search(r"url\(|@import|https?:", text)


def percent(shape: ElementTree.Element, name: str) -> float:
    return float(shape.attrib[name].removesuffix("%"))


def compared_with_its_line(
    evaluation: Evaluation, pointer: str, track: ElementTree.Element, x: float
) -> None:
    """A change stands on its side of what was intended, a guardrail's beyond its margin or not."""
    (line,) = track.findall("line[@class='held']")
    around, value = at(evaluation, pointer.rpartition("/")[0]), at(evaluation, pointer)
    reach = track.find("line[@class='reach']")
    if reach is not None:
        assert percent(reach, "x1") - 0.02 <= x <= percent(reach, "x2") + 0.02
    side = x - percent(line, "x1")
    if pointer.endswith("/intended"):
        assert side == pytest.approx(0.0, abs=0.02)
    elif pointer.endswith("/actual"):
        assert (side > 0) == (value > around["intended"])
    else:
        assert (side > 0) == (-value > around["margin"]), "of approvals fewer are worse"


def test_what_is_drawn_stands_where_its_numbers_are(evaluation: Evaluation) -> None:
    """In each row: the value within its interval, and on its side of what it is held to."""
    root = ElementTree.fromstring(
        report_html(read(evaluation, "x")).removeprefix("<!DOCTYPE html>\n")
    )
    drawn = beyond = claims = 0
    for row in root.iter("li"):
        track = row.find("svg[@class='track']")
        if track is None:
            continue
        told = {x.attrib["data-at"]: float(x.attrib["value"]) for x in row.iter("data")}
        ends = ("/value", "/actual", "/intended")
        value = next((at for at in told if at.endswith(ends)), "")
        mark = next((x for x in track.findall("svg") if "mark" in x.attrib["class"]), None)
        assert (mark is not None) <= bool(value)
        if mark is None or value.startswith("/drift"):
            continue
        if value.startswith("/hypotheses"):
            claims += 1
            compared_with_its_line(evaluation, value, track, percent(mark, "x"))
            continue
        drawn += 1
        x = percent(mark, "x")
        reach = track.find("line[@class='reach']")
        if reach is not None:
            assert percent(reach, "x1") - 0.02 <= x <= percent(reach, "x2") + 0.02
        entry = at(evaluation, value.removesuffix("/value"))
        held = [percent(one, "x1") for one in track.findall("line[@class='held']")]
        limits = [float(x) for x in re.findall(r"[\d.]+", entry["target"] or "")]
        if len(held) == len(limits) == 2:
            assert (x < held[0], x > held[1]) == (told[value] < limits[0], told[value] > limits[1])
            beyond += x > held[1]
        elif len(held) == len(limits) == 1:
            least = entry["target"].startswith("at least")
            wrong = told[value] < limits[0] if least else told[value] > limits[0]
            assert (x > held[0]) == wrong
            beyond += wrong
    assert claims == 3 * 7 + 1, "intended, actual and a guardrail, where anything is known"
    assert drawn > 20
    assert beyond >= 3


def test_shares_of_a_bar_are_those_of_its_numbers(evaluation: Evaluation) -> None:
    root = ElementTree.fromstring(
        report_html(read(evaluation, "x")).removeprefix("<!DOCTYPE html>\n")
    )
    (bar,) = root.findall(".//svg[@class='bar']")
    labels = evaluation["labels"][0]
    widths = [percent(part, "width") for part in bar]
    wanted = [100 * labels[name] / labels["decisions"] for name in COUNTED]
    assert widths == pytest.approx(wanted, abs=0.001)
    assert sum(widths) == pytest.approx(100, abs=0.01)


def times(evaluation: Evaluation, n: int) -> Evaluation:
    """Return an evaluation of so many products alike."""
    names = [f"cnp-{i}" for i in range(n)]
    return {
        "schema": SCHEMA,
        "as_of": evaluation["as_of"],
        "products": names,
        **{
            section: [{**one, "product": name} for name in names for one in evaluation[section]]
            for section in ("labels", "goals", "money", "calibration", "drift", "fairness")
        },
    }


def test_of_many_products_the_page_stays_small_and_says_what_it_leaves_out(
    evaluation: Evaluation,
) -> None:
    whole = report_html(read(evaluation, "x"))
    assert "left out" not in whole
    some = report_html(read(times(evaluation, 20), "x"))
    assert len(some.encode()) <= MOST_BYTES
    assert "tables are left out" in some
    many = report_html(read(times(evaluation, 120), "x"))
    assert len(many.encode()) <= MOST_BYTES
    assert "charts are left out" in many


CELL = re.compile(r"(?<!\\)\|")


@pytest.mark.parametrize("owner", [None, *OWNERS])
@pytest.mark.parametrize("products", [1, 30])
def test_markdown_has_its_verdict_first_and_few_lines(
    evaluation: Evaluation, products: int, owner: str | None
) -> None:
    text = report_markdown(read(times(evaluation, products), "x"), owner)
    lines = [line for line in text.splitlines() if line]
    assert len(lines) <= LINES
    assert lines[0].startswith("**")
    table = [line for line in lines if line.startswith("|")]
    assert {len(CELL.split(line)) for line in table} == {8}
    verdicts = [line.split("|")[1].split()[-1] for line in table[2:]]
    bad = [one in ("missed", "breach") for one in verdicts]
    assert bad == sorted(bad, reverse=True)
    if products > 1:
        assert "Not shown: " in lines[-1] or owner == "operations"


def test_markdown_reads_the_names_of_an_enemy_as_code(evaluation: Evaluation) -> None:
    text = report_markdown(read(evaluation, "x"))
    outside = re.sub(r"`[^`]*`", "", text)
    assert SCRIPT in text
    assert not re.search(r"[<>]|\u202e", outside)


NAMES = st.text(max_size=30) | st.sampled_from(HOSTILE)


@settings(max_examples=60, deadline=None)
@given(names=st.lists(NAMES, min_size=4, max_size=4))
def test_any_names_are_laid_out(evaluation: Evaluation, names: list[str]) -> None:
    """Whatever a product, a group, a promise and its words are called."""
    product, group, promise, says = names
    changed = json.loads(json.dumps(evaluation))
    for section in ("labels", "goals", "money", "calibration", "drift", "fairness"):
        for one in changed[section]:
            one["product"] = product
            if "reference" in one.get("by", {}):
                one["by"]["age_band"] = group
    changed["products"] = [product]
    changed["goals"][0] |= {"metric": promise, "says": says, "verdict": "missed"}
    found = read(changed, "x")
    ElementTree.fromstring(report_html(found).removeprefix("<!DOCTYPE html>\n"))
    table = [line for line in report_markdown(found).split("\n") if line.startswith("|")]
    assert {len(CELL.split(line)) for line in table} == {8}


MOST = 9e29
NUMBER = st.none() | st.floats(-MOST, MOST) | st.integers(-(10**29), 10**29) | st.floats(0, 1)
TARGET = st.sampled_from(
    (
        "",
        "at most 0",
        "at least 1",
        "at most 1e-9",
        "at least -3",
        "0 to 0",
        "2 to 1",
        "at most 1.2.3",
    )
)
CHANGE = st.fixed_dictionaries(
    {
        "value": NUMBER,
        "interval": st.lists(NUMBER, min_size=2, max_size=2),
        "n": NUMBER,
        "target": TARGET,
        "verdict": st.none() | st.sampled_from(("met", "breach", "drifted", "of tomorrow")),
        "unit": st.sampled_from(("share", "bps", "ratio", "psi", "USD", "")),
        "because": st.none() | st.just("of tomorrow"),
    },
    optional={
        "by": st.dictionaries(st.sampled_from(("month", "reference", "x")), st.text(max_size=3)),
        "budget": st.none() | st.fixed_dictionaries({"used": NUMBER, "allowed": NUMBER}),
        "expected": NUMBER,
        "kind": st.sampled_from(("promise", "goal", "wish")),
    },
)


@settings(max_examples=60, deadline=None)
@given(
    changes=st.lists(
        st.tuples(
            st.sampled_from(("goals", "money", "calibration", "drift", "fairness")),
            st.integers(0, 200),
            CHANGE,
        ),
        min_size=1,
        max_size=12,
    )
)
def test_any_figures_are_laid_out(
    evaluation: Evaluation, changes: list[tuple[str, int, dict[str, Any]]]
) -> None:
    """However large, small, absent or new: a page, and no place that is no number."""
    changed = {
        name: [*some] if isinstance(some, list) else some for name, some in evaluation.items()
    }
    for section, i, change in changes:
        some = changed[section]
        some[i % len(some)] = {**some[i % len(some)], **change}
    found = read(changed, "x")
    text = report_html(found)
    ElementTree.fromstring(text.removeprefix("<!DOCTYPE html>\n"))
    assert not re.search(r'"(nan|inf|-inf)', text)
    report_markdown(found)


TRIPLE = st.lists(NUMBER, min_size=3, max_size=3)


@settings(max_examples=60, deadline=None)
@example(0, [None] * 3, 1.4e-292, [None, None, -2.4e16], [], "ship")
@given(
    intended=st.floats(-MOST, MOST) | st.just(0),
    came=TRIPLE,
    margin=st.floats(-MOST, MOST) | st.just(0),
    held=TRIPLE,
    goals=st.lists(st.tuples(st.integers(-3, 10**29), TRIPLE), max_size=6),
    verdict=st.sampled_from(("ship", "stop", "continue", "of tomorrow", "")),
)
def test_any_hypotheses_are_laid_out(
    evaluation: Evaluation,
    intended: float,
    came: list[Any],
    margin: float,
    held: list[Any],
    goals: list[tuple[int, list[Any]]],
    verdict: str,
) -> None:
    one = evaluation["hypotheses"][0]
    guardrail = {**one["guardrails"][0], "margin": margin, "value": held[0], "interval": held[1:]}
    changed = {
        **one,
        "verdict": verdict,
        "impact": {"intended": intended, "actual": came[0], "interval": came[1:]},
        "guardrails": [guardrail],
        "looks": [{**one["looks"][0], "day": day, "goal": goal} for day, goal in goals],
    }
    found = read({**evaluation, "hypotheses": [changed]}, "x")
    text = report_html(found)
    ElementTree.fromstring(text.removeprefix("<!DOCTYPE html>\n"))
    assert not re.search(r'"(nan|inf|-inf)', text)
    report_markdown(found)


def test_numbers_in_markdown_are_the_jsons(evaluation: Evaluation) -> None:
    """Each figure's own, in the row that names it."""
    rows = report_markdown(read(evaluation, "x")).splitlines()
    row = next(line for line in rows if "missed" in line and "always-on" in line)
    one = next(x for x in evaluation["goals"] if x["metric"] == "always-on")
    told = re.findall(r"[\d.]+", CELL.split(row)[4])
    exact = [one["value"], *one["interval"]]
    assert all(is_rounded(x, y, percent=True) for x, y in zip(told, exact, strict=False))
    used, allowed = told[3:5]
    assert is_rounded(used, one["budget"]["used"], percent=False)
    assert is_rounded(allowed, one["budget"]["allowed"], percent=False)


def test_everything_judged_has_an_owner_and_operations_gets_its_own(
    evaluation: Evaluation,
) -> None:
    found = read(evaluation, "x")
    assert all(owners_of(line) and set(owners_of(line)) <= set(OWNERS) for line in found.lines)

    def told(owner: str) -> set[str]:
        page = Page(report_html(found, owner))
        return {one.at.rpartition("/interval")[0] or one.at for one in page.numbers}

    of_operations = {
        "/".join(one.split("/")[:3]) for one in told("operations") if one.startswith("/")
    }
    metrics = {at(evaluation, one)["metric"] for one in of_operations}
    assert metrics == {"in-time", "always-on", "reach-you", "step_up_success_rate"}


@pytest.mark.parametrize("owner", ["operations", "engineering"])
def test_who_needs_no_groups_sees_none(evaluation: Evaluation, owner: str) -> None:
    found = read(evaluation, "x")
    for text in (report_html(found, owner), report_markdown(found, owner)):
        assert "age_band" not in text
        assert "35-54" not in text


def line(**more: Any) -> Line:
    values: dict[str, Any] = {
        "at": "/goals/0",
        "section": "goals",
        "product": "p",
        "metric": "m",
        "basis": "all",
        "by": {},
        "unit": "share",
        "value": 0.5,
        "low": 0.4,
        "high": 0.6,
        "n": 9.0,
        "events": 1.0,
        "target": "",
        "verdict": "",
        "because": "",
        "says": "",
        "begin": "",
        "end": "",
        "more": {},
    }
    return Line(**{**values, **more})


def test_a_group_that_is_told_beside_the_gate_counts_only_in_breach() -> None:
    group = {"section": "fairness", "by": {"sex": "F", "reference": "M"}}
    assert is_judged(line(**group, verdict="undecided", more={"gates": True}))
    assert not is_judged(line(**group, verdict="undecided", more={"gates": False}))
    assert is_judged(line(**group, verdict="breach", more={"gates": False}))


WRONG: Mapping[str, Any] = {
    "value": "<b>1</b>",
    "interval": [1],
    "by": ["x"],
    "product": None,
    "n": True,
    "target": 4,
    "unit": {},
}


@pytest.mark.parametrize("field", WRONG)
def test_what_is_no_evaluation_is_refused_by_its_place_and_not_its_value(
    evaluation: Evaluation, field: str
) -> None:
    goals = [{**evaluation["goals"][0], field: WRONG[field]}]
    with pytest.raises(LakeError, match=r"/goals/0") as caught:
        read({**evaluation, "goals": goals}, "x")
    assert "<b>" not in str(caught.value)


def test_what_is_beyond_all_money_is_no_figure(evaluation: Evaluation) -> None:
    for value in ("Infinity", "-Infinity", "NaN", "1e308", "9" * 400):
        text = json.dumps({**evaluation, "goals": [{**evaluation["goals"][0], "value": "?"}]})
        with pytest.raises(LakeError, match="/goals/0/value is no number"):
            read(json.loads(text.replace('"?"', value)), "x")


def test_a_product_that_is_not_there_is_said_with_those_that_are(evaluation: Evaluation) -> None:
    with pytest.raises(UsageError) as caught:
        read(evaluation, "x", "nix")
    assert "cnp" in caught.value.hint


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], ExitCode.USAGE, "gateway report --lake DIR"),
        (["nix.json"], ExitCode.USAGE, "nix.json: cannot be read"),
        (["."], ExitCode.USAGE, "gateway report --lake ."),
        (["e.json", "--lake", "."], ExitCode.USAGE, "Leave one out"),
        (["e.json", "--json", "--markdown"], ExitCode.USAGE, "Leave one out"),
        (["--makrdown"], ExitCode.USAGE, "no option"),
        (["e.json", "--product", "x"], ExitCode.USAGE, "One of cnp"),
        (["e.json", "--html", "nix/page.html"], ExitCode.USAGE, "cannot be written"),
        (["--lake", "nix"], ExitCode.LAKE, "no lake"),
        (["--lake", "empty"], ExitCode.LAKE, "gateway evaluate --lake empty --keep"),
        (["deep.json"], ExitCode.LAKE, "deep.json"),
        (["other.json"], ExitCode.LAKE, "no evaluation"),
    ],
)
def test_wrong_input_says_what_to_try(
    evaluation: Evaluation,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: ExitCode,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("e.json").write_text(json.dumps(evaluation))
    Path("deep.json").write_text("[" * 200_000)
    Path("other.json").write_bytes(b"PAR1\x00\xff")
    Path("empty").mkdir()
    assert run(["report", *arguments]) == code
    shown = capsys.readouterr()
    assert said in shown.err
    assert shown.out == ""


def test_a_lakes_last_evaluation_is_told_alike_by_every_process(tmp_path: Path) -> None:
    """End to end: kept in the lake, read back, byte for byte the same whatever hashes are."""
    world.fill(tmp_path / "lake")
    assert run(["evaluate", "--lake", str(tmp_path / "lake"), "--keep"]) == ExitCode.OK
    told = []
    for seed in ("1", "2"):
        page = tmp_path / f"{seed}.html"
        arguments = ["--lake", str(tmp_path / "lake"), "--markdown", "--html", str(page)]
        ran = subprocess.run(
            [sys.executable, "-m", "gateway", "report", *arguments],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert "Next: gateway" in ran.stderr
        told.append((ran.stdout, page.read_bytes()))
    assert told[0] == told[1]
    assert told[0][0].startswith("**")


def test_a_lakes_owners_are_named_and_for_programs_there_is_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lake, page = str(tmp_path / "lake"), tmp_path / "page.html"
    world.fill(tmp_path / "lake")
    owners = {"operations": f"night shift {SCRIPT}", "science": "models"}
    world.write_product(tmp_path / "lake", owners=owners)
    assert run(["evaluate", "--lake", lake, "--keep", "--json"]) == ExitCode.OK
    evaluation = json.loads(capsys.readouterr().out)
    asked = ["report", "--lake", lake, "--html", str(page), "--json", "--owner", "operations"]
    assert run(asked) == ExitCode.OK
    told = json.loads(capsys.readouterr().out)
    assert told["judged"]
    for one in told["judged"]:
        assert "operations" in one.pop("owners")
        assert at(evaluation, one.pop("at")) == one
    assert told["hypotheses"] == []
    assert owners["operations"] in Page(page.read_text()).names
    assert "models" not in Page(page.read_text()).names
    assert run(["report", "--lake", lake, "--html", str(page)]) == ExitCode.OK
    assert set(owners.values()) <= set(Page(page.read_text()).names)


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

LOOK = """
<iframe id="page" width="WIDTH" height="800" srcdoc="PAGE"></iframe><pre id="told"></pre><script>
const frame = document.getElementById("page");
frame.addEventListener("load", () => {
  const page = frame.contentDocument, seen = page.documentElement;
  page.querySelectorAll("details").forEach(x => { x.open = true; });
  const overlaps = [...page.querySelectorAll(".who")].filter(x => {
    const [badge, name] = [...x.children].map(y => {  // of the words: a box may be too small
      const words = page.createRange(); words.selectNodeContents(y);
      return words.getBoundingClientRect(); });
    return name && badge.right > name.left + 0.5 && badge.bottom > name.top + 0.5;
  }).length;
  const marks = [...page.querySelectorAll(".rows .track")].map(x => x.clientWidth);
  const reach = [...page.querySelectorAll(".wide")].every(x => x.tabIndex === 0);
  document.getElementById("told").textContent = JSON.stringify({
    width: seen.clientWidth, scrolls: seen.scrollWidth, overlaps, reach,
    narrowest: Math.min(...marks), text: page.body.innerText.length,
    ground: getComputedStyle(page.body).backgroundColor });
});
</script>
"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
@pytest.mark.parametrize("width", [400, 1200])
def test_a_browser_lays_it_out_without_scrolling_sideways(
    evaluation: Evaluation, tmp_path: Path, width: int
) -> None:
    assert CHROMIUM is not None
    text = report_html(read(evaluation, "x"))
    policy = re.search(r"<meta http-equiv[^>]+/>", text)
    assert policy is not None
    frame = LOOK.replace("WIDTH", str(width)).replace("PAGE", escape(text.replace(policy[0], "")))
    place = tmp_path / "look.html"
    place.write_text(frame, encoding="utf-8")
    plain = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
    asked = ("--virtual-time-budget=5000", "--window-size=1400,1000", "--dump-dom")
    ran = subprocess.run(
        [CHROMIUM, *plain, f"--user-data-dir={tmp_path / 'user'}", *asked, place.as_uri()],
        capture_output=True,
        text=True,
        check=True,
        timeout=90,
    )
    found = re.search(r'<pre id="told">(.+?)</pre>', ran.stdout)
    assert found is not None, ran.stderr[-2000:]
    told = json.loads(found[1])
    assert told["scrolls"] <= told["width"] <= width
    assert told["overlaps"] == 0
    assert told["reach"]
    assert told["narrowest"] > 200
    assert told["text"] > 2000


def test_day_by_day_a_drift_is_nothing_before_and_its_psi_in_the_end(
    evaluation: Evaluation,
) -> None:
    """All channels are one from day 133 on."""
    (one,) = [x for x in evaluation["drift"] if x["by"] == {"watch": "channel"}]
    assert one["verdict"] == "drifted"
    begun = world.day(133).date().isoformat()
    before = [x["psi"] for x in one["days"] if x["day"] < begun]
    since = [x["psi"] for x in one["days"] if x["day"] >= begun]
    assert len(before) >= 42
    assert abs(sum(before) / len(before)) < 0.05 * one["value"]
    assert min(since) > 5 * max(before)
    assert sum(since) / len(since) == pytest.approx(one["value"], rel=0.2)


SHOULD = {
    "ships": "Ship it: the metric is better for sure",
    "breaks": "Do not ship it: a guardrail is broken for sure",
    "falls-short": "Do not ship it: the change is smaller for sure than what matters",
    "changed": "It is no result, do not decide by it: the declaration",
    "open": "It was not shown, so do not ship it for this: max_days are over",
    "young": "It is too early to say: too few days are mature",
    "unborn": "It is too early to say: too few days are mature",
    "stopped": "It was stopped on 2026-09-09.",
    SCRIPT: "is no started hypothesis",
}


def test_for_programs_hypotheses_are_the_evaluations(
    evaluation: Evaluation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "e.json"
    path.write_text(json.dumps(evaluation))
    assert run(["report", str(path), "--json", "--owner", "product"]) == ExitCode.OK
    told = json.loads(capsys.readouterr().out)["hypotheses"]
    assert [one.pop("owners") for one in told] == [["science", "product"]] * len(SHOULD)
    assert [at(evaluation, one.pop("at")) for one in told] == told


def test_the_page_says_of_each_hypothesis_whether_it_should_ship(evaluation: Evaluation) -> None:
    text = report_html(read(evaluation, "x"))
    section = text.partition(">Hypotheses</h3>")[2].partition("<h3")[0]
    parts = dict(zip(SHOULD, section.split("<h4>")[1:], strict=True))
    for id, part in parts.items():
        words = re.sub(r"<[^>]+>", "", part)
        assert escape(id) in words.split("\n")[0]
        assert SHOULD[id] in words
        assert (HOSTILE[2].split("\n")[0].replace("`", "`") in words) == (id != SCRIPT)
    whole = {"ships", "breaks", "falls-short", "changed", "open", "stopped"}
    assert {id for id, part in parts.items() if 'class="plane"' in part} >= whole
    for owner in ("operations", "engineering"):
        assert ">Hypotheses</h3>" not in report_html(read(evaluation, "x"), owner)


def test_a_band_of_days_is_where_its_looks_are(evaluation: Evaluation) -> None:
    """Each day a step as high as its interval, and the line inside of it."""
    text = report_html(read(evaluation, "x")).removeprefix("<!DOCTYPE html>\n")
    root = ElementTree.fromstring(text)
    planes = [x for x in root.iter("svg") if x.find("rect[@class='band']") is not None]
    plane = next(x for x in planes if x.find("rect[@class='ground']") is not None)
    looks = evaluation["hypotheses"][0]["looks"]
    bands = plane.findall("rect[@class='band']")
    assert len(bands) == len(looks)
    heights = [float(x.attrib["height"]) for x in bands]
    tall = [look["goal"][2] - look["goal"][1] for look in looks]
    scale = heights[-1] / tall[-1]
    # What reaches further than is drawn stands at the edge.
    for height, reach in zip(heights, tall, strict=True):
        assert height <= scale * reach + 0.3
    assert heights[-5:] == pytest.approx([scale * x for x in tall[-5:]], abs=0.3)
    for path in plane.findall("line[@class='path']"):
        day = int(percent(path, "x1") * len(looks) / 100)
        top = float(bands[day].attrib["y"])
        assert top - 0.2 <= float(path.attrib["y1"]) <= top + heights[day] + 0.2


def test_markdown_has_a_row_of_each_verdict_to_act_upon(evaluation: Evaluation) -> None:
    """Within its lines; of what runs on, was stopped or is damaged there is nothing to do."""
    text = report_markdown(read(evaluation, "x"))
    lines = [line for line in text.splitlines() if line]
    assert len(lines) <= LINES
    rows = {}
    for row in lines:
        found = re.search(r"\| [✗✓] (ship|stop|invalid) \| cnp \| ([\w-]+): ", row)
        if found:
            rows[found[2]] = found[1]
            assert len(CELL.split(row)) == 8
            assert row.endswith("| science |")
    assert list(rows.items()) == [
        ("changed", "invalid"),
        ("breaks", "stop"),
        ("falls-short", "stop"),
        ("ships", "ship"),
    ]
    one = next(x for x in evaluation["hypotheses"] if x["id"] == "ships")
    row = next(line for line in lines if "ships: " in line)
    numbers = re.findall(r"-?[\d.]+", CELL.split(row)[4])[:3]
    exact = [one["impact"]["actual"], *one["impact"]["interval"]]
    assert all(is_rounded(x, y, percent=True) for x, y in zip(numbers, exact, strict=True))
    assert "changed" not in report_markdown(read(evaluation, "x"), "operations")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"impact": None}, "/hypotheses/0/impact is no object"),
        ({"verdict": 3}, "/hypotheses/0/verdict is no text"),
        ({"looks": [{"goal": [1]}]}, "/hypotheses/0/looks/0/goal is no value"),
        ({"guardrails": [{"interval": 3}]}, "/hypotheses/0/guardrails/0/margin is no number"),
    ],
)
def test_what_is_no_hypothesis_is_refused_by_its_place(
    evaluation: Evaluation, change: dict[str, Any], said: str
) -> None:
    changed = [{**evaluation["hypotheses"][0], **change}]
    with pytest.raises(LakeError, match=said):
        read({**evaluation, "hypotheses": changed}, "x")
