"""Panels -> a dashboard in Grafana's classic JSON model. Pure.

The model is that of `kinds/dashboard` and of each panel's `panelcfg` in Grafana's own repository;
version 39 is Grafana 11's, which later ones read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

SCHEMA_VERSION = 39
COLUMNS = 24

BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILLION, PURPLE = (
    *("#888888", "#E69F00", "#56B4E9", "#009E73"),
    *("#F0E442", "#0072B2", "#D55E00", "#CC79A7"),
)
"""Okabe and Ito's colours, which the colour-blind can tell apart; grey for black."""

SOURCE = {"type": "prometheus", "uid": "${datasource}"}

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Query:
    """One expression of a panel, and the legend of its series. `dashed`: a limit that is given."""

    expression: str
    legend: str = ""
    dashed: bool = False
    exemplars: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """What a panel shows. `unit` is one of Grafana's; sizes are in cells of its grid.

    `colours` by a pattern of the legend; `steps` of a stat: from which value on it has which.
    """

    title: str
    says: str
    unit: str
    queries: Sequence[Query]
    kind: Literal["timeseries", "stat", "heatmap", "table"] = "timeseries"
    colours: Sequence[tuple[str, str]] = ()
    steps: Sequence[tuple[float | None, str]] = ((None, BLUE),)
    stacked: bool = False
    from_zero: bool = True
    width: int = 8
    height: int = 8


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under a heading, from left to right, and on."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, slots=True)
class Note:
    """Moments that all panels show: those at which an expression has a value."""

    name: str
    expression: str
    colour: str
    title: str
    text: str


def dashboard(
    uid: str, title: str, says: str, rows: Sequence[Row], notes: Sequence[Note], product: str
) -> Json:
    """Return the dashboard. `product` is the expression of its variable's values."""
    return {
        "id": None,
        "uid": uid,
        "title": title,
        "description": says,
        "tags": ["decision-gateway"],
        "timezone": "browser",
        "editable": True,
        "graphTooltip": 1,
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timepicker": {},
        "fiscalYearStartMonth": 0,
        "links": [],
        "templating": {"list": [_source(), _products(product)]},
        "annotations": {"list": [_annotation(note) for note in notes]},
        "panels": list(_panels(rows)),
    }


def _source() -> Json:
    return {
        "name": "datasource",
        "label": "Prometheus",
        "type": "datasource",
        "query": "prometheus",
        "regex": "",
        "refresh": 1,
        "hide": 0,
        "includeAll": False,
        "multi": False,
        "options": [],
        "current": {},
        "skipUrlSync": False,
    }


def _products(query: str) -> Json:
    return {
        "name": "product",
        "label": "Product",
        "type": "query",
        "datasource": SOURCE,
        "definition": query,
        "query": {"query": query, "refId": "StandardVariableQuery"},
        "regex": "",
        "refresh": 2,
        "sort": 1,
        "hide": 0,
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "options": [],
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "skipUrlSync": False,
    }


def _annotation(note: Note) -> Json:
    return {
        "name": note.name,
        "datasource": SOURCE,
        "enable": True,
        "hide": False,
        "iconColor": note.colour,
        "expr": note.expression,
        "titleFormat": note.title,
        "textFormat": note.text,
        "step": "60s",
    }


def _panels(rows: Sequence[Row]) -> Iterator[Json]:
    """Yield rows and their panels, each behind the last, or below where it has no room."""
    ids = count(1)
    y = 0
    for row in rows:
        yield {
            "id": next(ids),
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1},
            "panels": [],
        }
        y += 1
        x = height = 0
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                x, y, height = 0, y + height, 0
            place = {"x": x, "y": y, "w": panel.width, "h": panel.height}
            yield _panel(panel, next(ids), place)
            x, height = x + panel.width, max(height, panel.height)
        y += height


def _panel(panel: Panel, number: int, place: dict[str, int]) -> Json:
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.says,
        "datasource": SOURCE,
        "gridPos": place,
        "targets": [_target(panel, query, i) for i, query in enumerate(panel.queries)],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": list(_overrides(panel))},
        "options": _OPTIONS[panel.kind](panel),
        "transformations": _LABELS_ONLY if panel.kind == "table" else [],
    }


def _target(panel: Panel, query: Query, place: int) -> Json:
    instant = panel.kind in ("stat", "table")
    formats = {"heatmap": "heatmap", "table": "table"}
    return {
        "refId": chr(ord("A") + place) if place < 26 else f"A{place}",
        "datasource": SOURCE,
        "editorMode": "code",
        "expr": query.expression,
        "legendFormat": query.legend or "__auto",
        "format": formats.get(panel.kind, "time_series"),
        "instant": instant,
        "range": not instant,
        "exemplar": query.exemplars,
    }


def _defaults(panel: Panel) -> Json:
    steps = [{"color": colour, "value": value} for value, colour in panel.steps]
    defaults: Json = {
        "unit": panel.unit,
        "thresholds": {"mode": "absolute", "steps": steps},
        "mappings": [],
    }
    match panel.kind:
        case "stat":
            defaults |= {"color": {"mode": "thresholds"}, "decimals": 1}
        case "timeseries":
            defaults |= {"color": {"mode": "palette-classic"}, "custom": _lines(panel)}
            if panel.from_zero:
                defaults["min"] = 0
        case "heatmap":
            defaults |= {"custom": {"scaleDistribution": {"type": "linear"}}}
    return defaults


def _lines(panel: Panel) -> Json:
    return {
        "drawStyle": "line",
        "lineWidth": 1 if panel.stacked else 2,
        "fillOpacity": 40 if panel.stacked else 0,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
        "thresholdsStyle": {"mode": "off"},
    }


def _overrides(panel: Panel) -> Iterator[Json]:
    """Yield the colour of each series that has one of its own, and how limits are drawn."""
    for pattern, colour in panel.colours:
        yield {
            "matcher": {"id": "byRegexp", "options": f"/{pattern}/"},
            "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}],
        }
    for name in dict.fromkeys(query.legend for query in panel.queries if query.dashed):
        yield {
            "matcher": {"id": "byName", "options": name},
            "properties": [
                {"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [10, 10]}},
                {"id": "custom.stacking", "value": {"mode": "none", "group": "A"}},
                {"id": "color", "value": {"mode": "fixed", "fixedColor": BLACK}},
            ],
        }


def _lined(_: Panel) -> Json:
    return {
        "legend": {
            "displayMode": "table",
            "placement": "bottom",
            "showLegend": True,
            "calcs": ["lastNotNull", "max"],
        },
        "tooltip": {"mode": "multi", "sort": "desc"},
    }


def _single(_: Panel) -> Json:
    return {
        "reduceOptions": {"values": False, "calcs": ["lastNotNull"], "fields": ""},
        "orientation": "auto",
        "textMode": "value_and_name",
        "colorMode": "value",
        "graphMode": "none",
        "justifyMode": "auto",
    }


def _heat(panel: Panel) -> Json:
    return {
        "calculate": False,
        "cellGap": 1,
        "color": {
            "mode": "scheme",
            "scheme": "Cividis",
            "fill": "dark-orange",
            "scale": "exponential",
            "exponent": 0.5,
            "steps": 64,
            "reverse": False,
        },
        "exemplars": {"color": VERMILLION},
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "showValue": "never",
        "tooltip": {"mode": "single", "yHistogram": True, "showColorScale": True},
        "yAxis": {"axisPlacement": "left", "reverse": False, "unit": panel.unit},
    }


def _tabled(_: Panel) -> Json:
    return {"showHeader": True, "cellHeight": "sm", "sortBy": []}


_OPTIONS = {"timeseries": _lined, "stat": _single, "heatmap": _heat, "table": _tabled}

_LABELS_ONLY = [
    {
        "id": "organize",
        "options": {
            "excludeByName": {"Time": True, "__name__": True, "instance": True, "job": True},
            "indexByName": {},
            "renameByName": {"Value": "workers"},
        },
    }
]
