"""The dashboard: Grafana's model, a sane layout, and queries that the real Prometheus answers."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import callers
import catalogue
import pytest
from prometheus_server import PROMTOOL, needs_prometheus, needs_promtool, prometheus
from test_alerts import PROMISES
from test_sidecar import beside
from test_supervisor import serving

from gateway.cli.main import run
from gateway.errors import ExitCode
from gateway.model import load_generation
from gateway.sidecar.metrics.dashboard import dashboard_of

ANNOUNCED = {"gateway_labels"}
"""What a sidecar that was told of no label may not show."""

OF_PROMETHEUS = {"ALERTS"}
UNITS = {"s", "reqps", "percentunit", "short", "bytes", "suffix:x"}
Json = dict[str, Any]


def drawn() -> Json:
    """Two products, as Grafana reads them: through JSON."""
    products = [
        catalogue.product(promises=PROMISES),
        catalogue.product(product="other", promises=PROMISES[:2], latency__budget_ms=7),
    ]
    return dict(json.loads(json.dumps(dashboard_of(products))))


def panels(dashboard: Json) -> list[Json]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def expressions(dashboard: Json) -> Iterator[str]:
    """Yield every query, with Grafana's variables replaced as Grafana does."""
    asked = [target["expr"] for panel in panels(dashboard) for target in panel["targets"]]
    asked += [note["expr"] for note in dashboard["annotations"]["list"]]
    for text in asked:
        for product in (".*", "test", "(other|test)"):
            yield text.replace("$__rate_interval", "1m").replace("$product", product)


def test_the_model_is_the_one_that_grafana_documents() -> None:
    """Required fields and closed sets of its `kinds/dashboard` and `panelcfg` schemas."""
    dashboard = drawn()
    assert dashboard["schemaVersion"] >= 39
    assert dashboard["id"] is None
    assert 8 <= len(dashboard["uid"]) <= 40
    assert dashboard["uid"] == drawn()["uid"]
    assert {one["name"]: one["type"] for one in dashboard["templating"]["list"]} == {
        "datasource": "datasource",
        "product": "query",
    }
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    source = {"type": "prometheus", "uid": "${datasource}"}
    for note in dashboard["annotations"]["list"]:
        assert note["datasource"] == source
        assert {"name", "enable", "iconColor"} <= note.keys()
    for panel in panels(dashboard):
        assert panel["type"] in ("timeseries", "stat", "heatmap", "table")
        assert panel["datasource"] == source
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
        assert re.fullmatch(r"[A-Z0-9].{15,}\.", panel["description"]), panel["title"]
        assert panel["title"]
        steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        assert steps[0]["value"] is None, "the first is minus infinity"
        values = [step["value"] for step in steps[1:]]
        assert values == sorted(values)
        assert panel["targets"]
        ids = [target["refId"] for target in panel["targets"]]
        assert len(set(ids)) == len(ids)
        for target in panel["targets"]:
            assert target["datasource"] == source
            assert target["instant"] != target["range"]
        for override in panel["fieldConfig"]["overrides"]:
            assert override["matcher"]["id"] in ("byName", "byRegexp")
            if override["matcher"]["id"] == "byRegexp":
                assert override["matcher"]["options"].strip("/")
                re.compile(override["matcher"]["options"].strip("/"))
    with_traces = {
        panel["title"]
        for panel in panels(dashboard)
        for target in panel["targets"]
        if target["exemplar"]
    }
    assert with_traces == {"Latency against the budget", "Latency, all calls"}


def test_no_two_panels_overlap_and_none_leaves_the_grid() -> None:
    cells: dict[tuple[int, int], str] = {}
    for panel in drawn()["panels"]:
        place = panel["gridPos"]
        assert 0 <= place["x"] < place["x"] + place["w"] <= 24
        assert place["h"] > 0
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in cells, (panel["title"], cells[x, y])
                cells[x, y] = panel["title"]
    lowest = max(y for _, y in cells)
    empty = [y for y in range(lowest) if not any((x, y) in cells for x in range(24))]
    assert empty == []


def test_each_colour_is_one_that_the_colour_blind_can_tell_apart() -> None:
    """Okabe and Ito's, and no colour stands for two series of a panel."""
    palette = {"#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"}
    for panel in panels(drawn()):
        used = [
            prop["value"]["fixedColor"]
            for override in panel["fieldConfig"]["overrides"]
            for prop in override["properties"]
            if prop["id"] == "color" and override["matcher"]["id"] == "byRegexp"
        ]
        assert set(used) <= palette
        assert len(set(used)) == len(used)


@needs_promtool
def test_every_query_is_valid_for_the_real_prometheus(tmp_path: Path) -> None:
    rules = [{"record": f"r{i}", "expr": text} for i, text in enumerate(set(expressions(drawn())))]
    checked = check(tmp_path, rules)
    assert checked.returncode == 0, checked.stderr + checked.stdout
    assert f"{len(rules)} rules found" in checked.stdout
    assert check(tmp_path, [{"record": "r", "expr": rules[0]["expr"] + ")"}]).returncode != 0


def check(folder: Path, rules: list[dict[str, str]]) -> subprocess.CompletedProcess[str]:
    (folder / "rules.yml").write_text(json.dumps({"groups": [{"name": "g", "rules": rules}]}))
    return subprocess.run(
        [str(PROMTOOL), "check", "rules", "rules.yml"], cwd=folder, capture_output=True, text=True
    )


def families(text: str) -> dict[str, set[str]]:
    """Return the names of families, each with the names of its labels; from the sidecar's text."""
    found = {line.split()[2]: set[str]() for line in text.splitlines() if line.startswith("# TYPE")}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, _, rest = line.partition("{")
            labels = re.findall(r'(\w+)="', rest.partition("}")[0])
            found.setdefault(family(name.split()[0], found), set()).update(labels)
    return found


def family(name: str, known: dict[str, set[str]]) -> str:
    """Return the family of a series: its name without the ending that the exposition adds."""
    bare = re.sub(r"_(total|bucket|sum|count|created)$", "", name)
    return name if name in known else bare


OF_PROMISES = ("Error budget left", "Burn rate", "Kept in the last hour")
OF_CALLS = (
    *("Decisions by action", "Latency against the budget", "Share of the budget used"),
    *("Where the time goes", "Batch size", "Generations", "Behind the journal", "Replies"),
)


@needs_prometheus
@pytest.mark.slow
def test_every_metric_and_label_is_one_that_a_real_sidecar_shows(tmp_path: Path) -> None:
    """And the real Prometheus has an answer, for promises, latency and decisions."""
    folder = catalogue.write_folder(tmp_path / "test", promises=PROMISES)
    (tmp_path / "file").mkdir()
    path = tmp_path / "file" / "dashboard.json"
    out = tmp_path / "file" / "rules.yml"
    told = ["alerts", str(folder), "--out", str(out), "--grafana", str(path)]
    assert run(told) == ExitCode.OK
    dashboard = json.loads(path.read_text())
    fingerprint = load_generation(folder).schema.fingerprint
    evaluated = ("--lake", str(tmp_path / "lake"), "--evaluate", "1s")
    with (
        serving(folder, tmp_path / "journal", "--workers", "1") as gateway,
        beside(tmp_path / "journal", *evaluated) as (_, metrics),
        prometheus(tmp_path / "tsdb", urllib.parse.urlsplit(metrics).netloc) as server,
        callers.calling("grpcio", gateway.address, fingerprint),
    ):
        growing = 'sum(rate(gateway_decisions_total{product="test"}[1m])) > 0'
        server.until(lambda: server.value(growing))
        server.until(lambda: server.value("max(gateway_error_budget_left_ratio)") is not None)
        asked = urllib.request.Request(
            metrics, headers={"Accept": "application/openmetrics-text; version=1.0.0"}
        )
        with urllib.request.urlopen(asked, timeout=10) as answer:
            shown = families(answer.read().decode())

        def answers() -> dict[str, dict[str, float | None]]:
            return {
                panel["title"]: {
                    target["legendFormat"]: series(server, target["expr"])
                    for target in panel["targets"]
                }
                for panel in panels(dashboard)
            }

        answered: dict[str, dict[str, float | None]] = {}

        def is_answered() -> bool:
            answered.update(answers())
            return all(None not in answered[title].values() for title in (*OF_PROMISES, *OF_CALLS))

        server.until(is_answered)
    for expression in expressions(dashboard):
        metrics_of = re.findall(r"\b((?:gateway|rpc)_\w+|[A-Z]{6})\b(?:\{([^}]*)\})?", expression)
        assert metrics_of or "vector" in expression
        for name, matchers in metrics_of:
            if name in OF_PROMETHEUS or family(name, shown) in ANNOUNCED | {"gateway_product"}:
                continue
            assert family(name, shown) in shown, name
            labels = set(re.findall(r"(\w+)(?:=~|!=|=)", matchers))
            assert labels <= shown[family(name, shown)] or not shown[family(name, shown)], name
        for by, name in re.findall(r"\w+ by \(([^)]*)\) \(+(?:rate\()?(\w+)", expression):
            known = shown.get(family(name, shown))
            assert not known or set(by.split(", ")) <= known, (name, by)
    for panel in panels(dashboard):
        for target in panel["targets"]:
            named = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            kept = re.findall(r"by \(([^)]*)\)", target["expr"])
            assert all(named <= set(by.split(", ")) for by in kept), target
            assert kept or not named, target
    assert answered["Error budget left"]["test: in-time"] is not None
    for title in ("Goals and promises, shares", "Verdicts", "Age of the evaluation"):
        assert all(found is not None for found in answered[title].values()), (title, answered)
    assert answered["Latency against the budget"]["test: budget"] == catalogue.BUDGET_MS / 1000


def series(server: Any, expression: str) -> float | None:
    """Return a value of the first series of a query; None where it has none."""
    text = expression.replace("$__rate_interval", "1m").replace("$product", ".*")
    found = server.asked("query", query=text)["result"]
    return float(found[0]["value"][1]) if found else None


def test_a_product_without_promises_has_no_row_of_them() -> None:
    first, *_ = dashboard_of([catalogue.product()])["panels"]
    assert (first["type"], first["title"]) == ("row", "Decisions")


def test_a_file_that_cannot_be_written_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = catalogue.write_folder(tmp_path / "test")
    assert run(["alerts", str(folder), "--grafana", str(tmp_path)]) == ExitCode.USAGE
    assert capsys.readouterr().err.count("cannot be written") == 1
