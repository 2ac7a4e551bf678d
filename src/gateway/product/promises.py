"""What the product promises and is held to: promises, goals, fairness, labels, hypotheses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from gateway.product.frozen import FrozenMapping
from gateway.product.rule import (
    Duration,
    Limit,
    Name,
    Number,
    Percentage,
    Share,
    Text,
    number,
    whole,
)
from gateway.product.section import Problem, Section
from gateway.product.suggest import share

Sli = Literal["decided_within_budget", "scored_in_path", "contacted_within", "customer_loss"]

Metric = Literal[
    "fraud_loss_bps",
    "fraud_loss",
    "false_positive_rate",
    "insult_rate",
    "approval_rate",
    "value_detection_rate",
    "savings",
    "step_up_success_rate",
    "review_load",
]

_RATES = (
    "false_positive_rate",
    "insult_rate",
    "approval_rate",
    "value_detection_rate",
    "step_up_success_rate",
)

_NO_SHARES = ("fraud_loss_bps", "fraud_loss", "review_load")

LabelKind = Literal[
    "chargeback",
    "early_fraud_warning",
    "refund",
    "customer_confirmed",
    "customer_denied",
    "customer_contacted",
    "step_up_passed",
    "step_up_failed",
    "step_up_abandoned",
    "analyst_verdict",
]

Bound = Annotated[float, number(percent=True)]
Count = Annotated[int, whole(1, 10**9)]


class Promise(Section):
    """One promise to customers, and the objective that shows whether it is kept."""

    id: Name = Field(description="The promise's name in reports; unique.")
    says: Text = Field(description="The promise, as the customer reads it.")
    sli: Sli = Field(
        description="What is measured: answers inside the budget; answers by the model, where "
        "stand-ins count against; step-ups that reached the customer within "
        "latency.contact_within_s; fraud that the customer paid for."
    )
    objective: Annotated[float, number(0, percent=True)] = Field(
        description="The share to reach, 0..1 or in percent; for customer_loss the most, "
        "in major units."
    )
    window: Duration = Field(description="The time over which the objective counts, such as 28d.")

    def problems(self) -> Iterator[Problem]:
        """An objective is a share, except for customer_loss."""
        if self.sli != "customer_loss" and self.objective > 1:
            hint = f"Did you mean {share(self.objective / 100)}?" if self.objective <= 100 else ""
            yield Problem(("objective",), f"is {self.objective:g}, must be 0..1.", hint)
        if self.sli == "customer_loss" and isinstance(self.objective, Percentage):
            yield Problem(("objective",), "is a percentage, must be an amount in major units.")


class Goal(Section):
    """A target of the product's owners."""

    metric: Metric = Field(description="What is measured, over matured decisions.")
    at_most: Bound | None = Field(None, description="The metric's greatest value. Or at_least.")
    at_least: Bound | None = Field(None, description="The metric's least value. Or at_most.")

    def problems(self) -> Iterator[Problem]:
        """Exactly one bound; rates lie in 0..1."""
        if (self.at_most is None) == (self.at_least is None):
            said = "has neither at_most nor" if self.at_most is None else "has both at_most and"
            yield Problem((), f"{said} at_least.", "Give exactly one.")
        for key in ("at_most", "at_least"):
            bound = getattr(self, key)
            if isinstance(bound, Percentage) and self.metric in _NO_SHARES:
                yield Problem((key,), f"is a percentage, but {self.metric} is no share.")
            if bound is not None and self.metric in _RATES and not 0 <= bound <= 1:
                hint = f"Did you mean {share(bound / 100)}?" if 1 < bound <= 100 else ""
                yield Problem((key,), f"is {bound:g}, must be 0..1.", hint)


class GroupAttribute(Section):
    """An attribute of subjects, by which groups are compared."""

    reference: Text = Field(description="The group that the others are compared with.")


class Fairness(Section):
    """Which groups must not be treated worse than the reference, and by how much."""

    gate: Literal[
        "false_positive_rate_ratio",
        "true_positive_rate_ratio",
        "approval_rate_ratio",
        "observed_expected_ratio",
    ] = Field(description="The ratio of a group's figure to the reference group's.")
    limit: Limit = Field(description="Where the ratio's interval must lie, around 1.")
    attributes: FrozenMapping[Name, GroupAttribute] = Field(
        description="Group attributes by name. They are reported to the sidecar, never features."
    )
    min_n: Count = Field(100, description="Groups with fewer matured decisions are not judged.")


class Labels(Section):
    """When silence of a source means that there was no fraud."""

    maturity: FrozenMapping[LabelKind, Duration] = Field(
        FrozenMapping(),
        description="By kind of label: the age at which a payment without one counts as genuine.",
    )


class Stop(Section):
    """When a hypothesis is decided."""

    min_days: Count = Field(description="Not before this many days.")
    max_days: Count = Field(description="At the latest after this many days.")

    def problems(self) -> Iterator[Problem]:
        """It starts before it ends."""
        if self.min_days > self.max_days:
            yield Problem(
                ("min_days",), f"is {self.min_days}, must not be above max_days, {self.max_days}."
            )


class Guardrail(Section):
    """A metric that must not get worse by more than a margin, while another gets better."""

    metric: Metric = Field(description="What must not get worse, over matured decisions.")
    margin: Annotated[float, number(0, above=True, percent=True)] = Field(
        description="By how much it may, in the metric's own unit, without a sign."
    )

    def problems(self) -> Iterator[Problem]:
        """Margins of rates are differences of rates."""
        if isinstance(self.margin, Percentage) and self.metric in _NO_SHARES:
            yield Problem(("margin",), f"is a percentage, but {self.metric} is no share.")
        if self.metric in _RATES and self.margin > 1:
            hint = f"Did you mean {share(self.margin / 100)}?" if self.margin <= 100 else ""
            yield Problem(("margin",), f"is {self.margin:g}, must be 1 or less.", hint)


class Hypothesis(Section):
    """A claim, written down before its result is known."""

    id: Name = Field(description="The hypothesis's name in reports; unique.")
    claim: Text = Field(description="What is believed, in a sentence that can turn out false.")
    metric: Metric = Field(description="The metric that decides.")
    minimum_effect: Number | None = Field(
        None,
        description="The least change of the metric that matters, with its sign, in its own unit: "
        "an arm's less the other's.",
    )
    unit: Literal["transaction", "subject"] = Field(
        "subject", description="What is drawn into an arm."
    )
    arms: FrozenMapping[Name, Share] = Field(
        FrozenMapping(),
        description="Share of the traffic by arm; together at most 1. The first is what the "
        "other is compared with: champion, then a canary's name.",
    )
    guardrails: tuple[Guardrail, ...] = Field(
        (), description="What must not get worse, and by how much it may."
    )
    maturity: Duration | None = Field(None, description="The age at which a decision counts.")
    stop: Stop | None = Field(None, description="When it is decided.")

    def problems(self) -> Iterator[Problem]:
        """Arms share the traffic; a metric is one guardrail."""
        taken = sum(self.arms.values())
        if taken > 1 + 1e-9:
            yield Problem(("arms",), f"take {taken:g} of the traffic, must be 1 or less.")
        seen: set[str] = set()
        for i, one in enumerate(self.guardrails):
            if one.metric in seen:
                yield Problem(("guardrails", i, "metric"), f"is {one.metric!r} for a second time.")
            seen.add(one.metric)
