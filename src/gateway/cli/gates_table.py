"""The gates of a product's models, and how reliable their probabilities are, as tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from gateway.evaluate.calibration import Figures

_STYLES = {"pass": "green", "fail": "red", "undecided": "yellow", "not checked": "dim"}


def gates_tables(rows: Iterable[Mapping[str, str]]) -> Iterator[Table]:
    """Yield a table for each model: of each gate its name, figure, rule and verdict.

    `rows` have those and `arm`, as `Gate.row` gives them.
    """
    for arm, gates in groupby(rows, key=lambda row: row.get("arm", "")):
        table = Table(
            "gate",
            "figure",
            "rule",
            "verdict",
            title=f"What {escape(arm) or 'the model'} must hold",
            title_justify="left",
            box=None,
            pad_edge=False,
            padding=(0, 1, 0, 0),
        )
        for row in gates:
            verdict = escape(row["verdict"])
            style = _STYLES.get(row["verdict"])
            table.add_row(
                *(escape(row[key]) for key in ("name", "figure", "rule")),
                f"[{style}]{verdict}[/{style}]" if style else verdict,
            )
        yield table


def reliability_table(arm: str, figures: Figures) -> Table:
    """Return a table of what a model expected and what came.

    In bins of as many payments each, and near the thresholds: overall and in each category.
    """
    table = Table(
        "payments of",
        "how many",
        "expected",
        "observed",
        "interval",
        title=f"Frauds that {escape(arm)} expected, and that came",
        title_justify="left",
        box=None,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for i, one in enumerate(figures.bins, 1):
        table.add_row(
            f"bin {i}", f"{one.n:,}", *_shares(one.expected, one.observed, one.low, one.high)
        )
    for near in figures.near:
        if near.n:
            where = f"near thresholds{', ' if near.category else ''}{escape(near.category)}"
            shares = _shares(near.expected, near.observed, near.low, near.high)
            table.add_row(where, f"{near.n:,}", *shares)
    return table


def _shares(expected: float, observed: float, low: float, high: float) -> tuple[str, str, str]:
    outside = not low <= expected <= high
    shown = f"{low:.3%} to {high:.3%}"
    return (
        f"{expected:.3%}",
        f"{observed:.3%}",
        f"[yellow]{shown}[/yellow]" if outside else shown,
    )
