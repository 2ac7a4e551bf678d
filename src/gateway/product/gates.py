"""models.gates: what a model must hold before it decides."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from gateway.product.rule import Amount, FilePath, Limit, Share, Text, number, whole
from gateway.product.section import Problem, Section

_ABOUT_COLUMNS = ("label", "fraud", "amount", "category", "cluster", "time")


class LabelledColumns(Section):
    """Which columns of a labelled table say what; where left out, guessed by their names."""

    label: Text | None = Field(None, description="The column that says which payments were fraud.")
    fraud: Text | None = Field(
        None, description="The label's value that is fraud, where that is no 1 or true."
    )
    amount: Text | None = Field(None, description="The column of amounts, in major units.")
    category: Text | None = Field(
        None, description="The column of MCCs, or of names of costs.categories."
    )
    cluster: Text | None = Field(
        None, description="The column of customers or cards: their payments are not independent."
    )
    time: Text | None = Field(
        None, description="The column of times: Unix seconds, or a date and time."
    )


class CostGate(Section):
    """How long the model may take."""

    share_of_budget: Annotated[float, number(0, 1, above=True)] = Field(
        0.5, description="The most that one row may take (its 99th percentile), of the budget."
    )


class CalibrationGate(LabelledColumns):
    """How well its probabilities must hold on labelled payments that it was not trained on.

    A limit is broken only where the whole confidence interval lies outside it.
    """

    path: FilePath | None = Field(
        None, description="The labelled payments: Parquet, or CSV. Without it nothing is checked."
    )
    rows: Annotated[int, whole(100, 200_000)] = Field(
        100_000, description="The most rows that are scored, evenly spaced over the file."
    )
    genuine_kept: Annotated[float, number(0, 1, above=True)] = Field(
        1.0,
        description="The share of genuine payments that the file kept, where some were left out "
        "and all frauds were kept.",
    )
    frauds: Annotated[int, whole(10, 10**6)] = Field(
        50, description="Of fewer frauds nothing can be said: undecided."
    )
    confidence: Annotated[float, number(0.5, 0.999999)] = Field(
        0.999, description="Of the intervals: the chance that a good model passes one limit."
    )
    auc: Annotated[float, number(0.5, 1, below=True)] = Field(
        0.65, description="The least area under the ROC curve: fraud ranks above genuine."
    )
    observed_over_expected: Limit = Field(
        (0.8, 1.25), description="Frauds that came over frauds expected."
    )
    money: Limit = Field(
        (0.67, 1.5), description="Amounts of fraud that came over amounts expected."
    )
    slope: Limit = Field(
        (0.5, 2.0),
        description="Of the label on the log-odds: below 1 it is too sure, above not sure enough.",
    )
    near_threshold: Limit = Field(
        (0.67, 1.5),
        description="Observed over expected where half to twice a threshold is, overall and in "
        "each category.",
    )
    excess_cost_per_1000: Amount | None = Field(
        None,
        description="The most that miscalibration may cost in 1,000 decisions, in major units. "
        "Where left out, a twentieth of what they cost.",
    )
    savings: Share = Field(
        0.0,
        description="The least that acting on the model must save, of what acting on fraud's share "
        "alone costs.",
    )

    def problems(self) -> Iterator[Problem]:
        """Columns are of a file."""
        for name in _ABOUT_COLUMNS:
            if self.path is None and getattr(self, name) is not None:
                yield Problem((name,), "is of no file.", "Add the path of the labelled payments.")


class Gates(Section):
    """What each model must hold: a champion or canary that does not is refused."""

    cost: CostGate = Field(CostGate(), description="How long it may take.")
    calibration: CalibrationGate = Field(
        CalibrationGate(), description="How well its probabilities must hold."
    )
