"""The sidecar's pages in a real Chromium: from a figure to its decisions to a trace in two clicks;
axe-core has nothing to say, nothing is fetched from elsewhere, and a keyboard is enough."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import evaluated_lake as world
import pytest

from gateway.cli.lake_terms import columns_of_tables, terms_in
from gateway.cli.looking import Looking
from gateway.cli.sidecar_http import answering
from gateway.evaluate.engine import DuckDb
from gateway.evaluate.evaluation import evaluate
from gateway.report.entries import read
from gateway.report.page import MOST_BYTES, report_html
from gateway.sidecar.lake import Lake
from gateway.sidecar.metrics.evaluated import Evaluated

playwright = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")

TIMEOUT_MS = 60_000
PLAIN = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
NARROW, WIDE = 360, 1200
GROUP = "<b>55-69</b>"
EVALUATED = ("goals", "money", "calibration", "drift", "fairness")


class Site(NamedTuple):
    """A sidecar's pages: where, and the evaluation that they show."""

    root: str
    evaluation: Mapping[str, Any]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    place = tmp_path_factory.mktemp("lake")
    fill(place)
    lake = Lake.at(str(place))
    files = {table: lake.files(table) for table in ("decisions", "labels", "attributes")}
    with DuckDb(files, columns_of_tables()) as engine:
        found = evaluate(engine, terms_in(lake, None), datetime.now(UTC)).as_object()
    evaluation = json.loads(json.dumps(found))
    evaluated = Evaluated(60.0)
    evaluated.take(evaluation)
    looking = Looking(place / "journal", str(place), limit_s=TIMEOUT_MS / 1000)
    with answering("127.0.0.1:0", evaluated, evaluated, looks=looking) as address:
        yield Site(address.removesuffix("/metrics"), evaluation)


def fill(lake: Path) -> None:
    """Write payments of six weeks until just now, some of them of every kind."""
    chance, now = random.Random(3), datetime.now(UTC)
    rows, labels, groups = [], [], []
    for number in range(1, 1201):
        at = now - timedelta(days=42) + timedelta(days=42 * number / 1201)
        fraud = chance.random() < 0.1
        against = chance.random() < (0.5 if fraud else 0.1)
        explored = against and chance.random() < 0.6
        late = chance.random() < 0.03
        row = world.decision(
            number,
            event_time=at,
            action="decline" if against and not explored else "approve",
            explored=explored,
            propensity=0.6 if explored else 0.4 if against else 1.0,
            stand_in="deadline" if chance.random() < 0.04 else "none",
            probability=0.3 if against else 0.01,
            in_time=not late,
            watch={"channel": chance.choice(("app", "web"))},
        )
        rows.append(world.traced(row, replied_us=30_000.0 if late else 18_000.0))
        groups.append(world.attribute(row["subject"], ("35-54", GROUP)[number % 2], worker=1))
        if fraud and row["action"] == "approve":
            told = {"amount_minor": 2_000, "currency": "USD", "liable": "issuer"}
            labels.append(world.label(number, "chargeback", reported_time=at, **told))
    world.write_product(lake, labels={"maturity": {"chargeback": "14d"}})
    for table, some in (("decisions", rows), ("labels", labels), ("attributes", groups)):
        world.write_by_day(lake, table, some)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as running:
        found = running.chromium.launch(executable_path=CHROMIUM, args=list(PLAIN))
        yield found
        found.close()


class Seen(NamedTuple):
    """A tab, and what it has asked for."""

    tab: Any
    requests: list[str]


@pytest.fixture
def opened(browser: Any, site: Site) -> Iterator[Any]:
    """Give what opens a page of the site: at a width, in light or dark."""
    contexts = []

    def at(path: str, width: int = WIDE, scheme: str = "light", *, scripts: bool = True) -> Seen:
        context = browser.new_context(
            viewport={"width": width, "height": 800},
            color_scheme=scheme,
            bypass_csp=scripts,  # axe is a script, and the page allows none
        )
        contexts.append(context)
        context.set_default_timeout(TIMEOUT_MS)
        tab, requests = context.new_page(), []
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto(f"{site.root}{path}")
        return Seen(tab, requests)

    yield at
    for context in contexts:
        context.close()


def figure_of(site: Site, metric: str) -> str:
    """Return the place of a metric's first figure that has a value."""
    for section in EVALUATED:
        for i, one in enumerate(site.evaluation[section]):
            if one["metric"] == metric and one["value"] is not None:
                return f"/{section}/{i}"
    raise AssertionError(metric)


@pytest.fixture(scope="module")
def paths(browser: Any, site: Site) -> Mapping[str, str]:
    """The site's pages by name; a decision is the first of its list."""
    listed = f"/decisions?at={figure_of(site, 'fraud_loss')}"
    context = browser.new_context()
    tab = context.new_page()
    tab.goto(f"{site.root}{listed}", timeout=TIMEOUT_MS)
    decision = tab.locator("main table a").first.get_attribute("href")
    context.close()
    return {
        "report": "/",
        "decisions": listed,
        "decision": decision,
        "traces": "/traces?kind=all&last=7d",
    }


PAGES = ("report", "decisions", "decision", "traces")


@pytest.mark.parametrize("name", PAGES)
def test_axe_has_nothing_to_say_in_light_dark_and_narrow(
    opened: Any, paths: Mapping[str, str], name: str
) -> None:
    for width, scheme in ((WIDE, "light"), (NARROW, "dark")):
        tab = opened(paths[name], width, scheme).tab
        tab.evaluate("document.querySelectorAll('details').forEach(x => { x.open = true; })")
        found = axe.Axe().run(tab).response
        assert [(one["id"], one["nodes"][0]["html"]) for one in found["violations"]] == []
        assert len(found["passes"]) > 10
        scrolls, seen = tab.evaluate(
            "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        )
        assert scrolls <= seen == width


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_one_answer_without_scripts_or_anything_from_elsewhere(
    opened: Any, site: Site, paths: Mapping[str, str], name: str
) -> None:
    tab, requests = opened(paths[name], scripts=False)
    assert requests == [f"{site.root}{paths[name]}"]  # no icon, no font, no style sheet
    text = tab.content()
    assert len(text.encode()) <= MOST_BYTES
    assert tab.locator("script, link, img, iframe, style[src]").count() == 0
    assert tab.locator("style").count() == 1
    for address in tab.eval_on_selector_all("a", "all => all.map(x => x.href)"):
        assert urlsplit(address).netloc == urlsplit(site.root).netloc


def test_the_report_as_a_file_opens_offline_and_says_how_to_ask_for_decisions(
    browser: Any, site: Site, tmp_path: Path
) -> None:
    file = tmp_path / "report.html"
    file.write_text(report_html(read(site.evaluation, "x")), encoding="utf-8")
    context = browser.new_context(offline=True, viewport={"width": NARROW, "height": 800})
    tab, requests = context.new_page(), []
    tab.on("request", lambda request: requests.append(request.url))
    tab.goto(file.as_uri())
    assert requests == [file.as_uri()]
    assert "gateway decisions --lake DIR --at PLACE" in tab.locator("footer").inner_text()
    places = set(tab.locator("code.behind").all_text_contents())
    figures = {
        f"/{x}/{i}" for x in EVALUATED for i, one in enumerate(site.evaluation[x]) if one["n"]
    }
    assert places >= figures - {f"/drift/{i}" for i in range(1000)}
    assert all(at(site.evaluation, one)["metric"] for one in places)
    assert tab.locator("a[href^='/']").count() == 0
    context.close()


def at(evaluation: Mapping[str, Any], pointer: str) -> Any:
    found: Any = evaluation
    for name in pointer.split("/")[1:]:
        found = found[int(name)] if isinstance(found, list) else found[name]
    return found


def test_every_number_is_the_jsons_in_a_browser_too(opened: Any, site: Site) -> None:
    tab = opened("/").tab
    numbers = tab.eval_on_selector_all(
        "data[data-at]", "all => all.map(x => [x.dataset.at, x.value])"
    )
    assert len(numbers) > 100
    for pointer, value in numbers:
        if not pointer.endswith("/target"):
            assert float(value) == at(site.evaluation, pointer), pointer


@pytest.mark.parametrize("metric", ["fraud_loss", "always-on", "decline_rate_ratio"])
def test_from_a_figure_to_a_trace_are_two_clicks(opened: Any, site: Site, metric: str) -> None:
    """Really clicked: a value of the report, then the first decision of the list."""
    tab = opened("/", scripts=False).tab
    pointer = figure_of(site, metric)
    entry = at(site.evaluation, pointer)
    tab.eval_on_selector_all("details", "all => all.forEach(x => { x.open = true; })")
    tab.locator(f'a:has(> data[data-at="{pointer}/value"])').first.click()
    tab.wait_for_url("**/decisions?**")
    assert tab.locator("h1").inner_text().startswith("Decisions behind")
    assert f"{entry['n']:,.0f} payments count for it" in tab.locator("main").inner_text()
    first = tab.locator("main table a").first
    decision = first.inner_text()
    first.click()
    tab.wait_for_url("**/decisions/*")
    assert decision in tab.locator("header").inner_text()
    rows = tab.locator(".stages .who").all_inner_texts()
    assert rows[:1] + rows[-1:] == ["admit", "budget"]
    assert tab.locator(".stages rect").count() == len(rows)
    widths = [box["width"] for x in tab.locator(".stages rect").all() if (box := x.bounding_box())]
    assert min(widths) >= 1
    assert GROUP not in tab.content()


def test_from_a_trace_list_to_a_decision_is_one_click(opened: Any) -> None:
    tab = opened("/traces?kind=stood-in&last=7d").tab
    assert "in all" in tab.locator("main").inner_text()
    assert tab.locator(".calls li").count() > 1
    tab.locator(".calls a").first.click()
    tab.wait_for_url("**/decisions/*")
    assert "stand-in answered" in tab.locator("main").inner_text()
    tab.get_by_role("link", name="Traces").click()
    tab.wait_for_url("**/traces")
    tab.get_by_role("link", name="last 7d").click()
    tab.wait_for_url("**/traces?kind=slow&last=7d")
    assert tab.locator("[aria-current]").all_inner_texts() == ["slow", "last 7d"]


@pytest.mark.parametrize("name", PAGES)
def test_a_keyboard_reaches_every_link_and_shows_where_it_is(
    opened: Any, paths: Mapping[str, str], name: str
) -> None:
    tab = opened(paths[name]).tab
    # Tables may be closed: what is in them is reached when they are open.
    wanted = tab.eval_on_selector_all(
        "a", "all => all.filter(x => x.checkVisibility()).map(x => x.href)"
    )
    here = """() => {
        const one = document.activeElement, style = getComputedStyle(one);
        const box = one.getBoundingClientRect();
        return [one.tagName, one.href || '', parseFloat(style.outlineWidth), style.outlineStyle,
            box.width > 0 && box.right > 0];
    }"""
    tab.keyboard.press("Tab")
    first = tab.evaluate(here)
    assert first[0] == "A"
    assert first[1].endswith("#main")
    assert first[4], "the skip link shows when it has the focus"
    reached = []
    for _ in range(len(wanted) + 200):
        kind, address, outline, style, is_there = tab.evaluate(here)
        if kind == "BODY":
            break
        assert outline >= 2, (kind, address)
        assert style != "none"
        assert is_there
        reached += [address] if kind == "A" else []
        tab.keyboard.press("Tab")
    assert reached == wanted
    tab.keyboard.press("Tab")
    while not tab.evaluate(here)[1].endswith("#main"):
        tab.keyboard.press("Tab")
    tab.keyboard.press("Enter")
    assert tab.url.endswith("#main")
