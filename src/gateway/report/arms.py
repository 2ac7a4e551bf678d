"""The page's section of models: which decide how much, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.report.charts import Mark, axis_of, rows
from gateway.report.entries import Line
from gateway.report.figures import bare_table, figure_of
from gateway.report.sentence import Name, Number, Sentence, counted, figure
from gateway.report.tables import Arm, Tables

METRICS = {
    "fraud_loss_bps": "fraud let through",
    "false_positive_rate": "genuine payments declined",
    "approval_rate": "went through",
    "observed_over_expected": "frauds over expected",
}

_OURS = 12
"""Digits of a digest that tell two files apart."""


def arms(lines: Sequence[Line], tables: Tables, *, exact: bool) -> str:  # noqa: ARG001
    """Return the models of a product."""
    return "".join(_models(lines, one.arms) for one in tables.declared if one.arms)


def _models(lines: Sequence[Line], declared: Sequence[Arm]) -> str:
    told = {
        (x.by["arm"], x.metric): x
        for x in lines
        if x.by.keys() == {"arm"} and x.metric in METRICS and x.section in ("money", "calibration")
    }
    deciding = [x for x in declared if x.share]
    beside = len(declared) - len(deciding)
    caption: Sentence = (
        *(*counted(len(deciding), "model"), " decide" if len(deciding) != 1 else " decides"),
        *(("; ", *counted(beside, "shadow"), " scored beside.") if beside else (".",)),
        " What an arm decided is of mature payments, as for the goals. "
        "Two arms differ for sure only where a hypothesis says so: see gateway hypothesis."
        if len(deciding) > 1
        else "",
    )
    heads = ["model", "decides", "version", "file", *METRICS.values()]
    cells = [
        [
            (Name(x.name), f" ({x.role})"),
            (Number(f"{x.at}/share", x.share, "share"),) if x.share is not None else ("nothing",),
            (Name(x.version),),
            (Name(x.digest[:_OURS]),),
            *(figure(line) if (line := told.get((x.name, metric))) else () for metric in METRICS),
        ]
        for x in declared
    ]
    found = figure_of(caption, bare_table(heads, cells))
    compared = [
        told[x.name, "fraud_loss_bps"] for x in deciding if (x.name, "fraud_loss_bps") in told
    ]
    if len(compared) < 2:
        return found
    marks = [Mark((Name(x.by["arm"]),), figure(x), x.value, x.low, x.high) for x in compared]
    axis = axis_of([end for mark in marks for end in (mark.value, mark.low, mark.high)], log=True)
    return found + figure_of(("Fraud let through, by arm.",), rows(marks, axis, "bps"))
