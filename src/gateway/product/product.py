"""One product: everything its product.yaml says, in values that cannot change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, PrivateAttr

from gateway.product.costs import Costs
from gateway.product.features import Feature, columns_of
from gateway.product.models import Models
from gateway.product.promises import Fairness, Goal, Hypothesis, Labels, Promise
from gateway.product.rule import (
    ActionName,
    Amount,
    Date,
    Name,
    Pattern,
    Probability,
    Share,
    Text,
    number,
    text,
    whole,
)
from gateway.product.section import Problem, Section
from gateway.product.source import NOWHERE, Source
from gateway.product.stand_in import StandIns

ProductName = Annotated[
    str,
    text(
        "a name of lower-case letters, digits, '_' and '-', up to 63",
        "[a-z0-9][a-z0-9_-]*",
        length_max=63,
        hint="Such as card-not-present.",
    ),
]


class Owners(Section):
    """Who answers for the product: people, teams or addresses."""

    science: Text | None = Field(None, description="Who answers for the model.")
    engineering: Text | None = Field(None, description="Who answers for the calls.")
    product: Text | None = Field(None, description="Who answers for costs, promises and goals.")
    operations: Text | None = Field(None, description="Who is called at night.")


class Latency(Section):
    """How long an answer may take, and the contact after it."""

    budget_ms: Annotated[float, number(0.1, 60_000)] = Field(
        description="Milliseconds from a call's arrival to its answer, whoever gives it."
    )
    contact_within_s: Annotated[float, number(0, 31_536_000, above=True)] | None = Field(
        None, description="Seconds in which a step-up must reach the customer."
    )

    @property
    def budget_us(self) -> int:
        """The budget in whole microseconds."""
        return round(self.budget_ms * 1000)


class Exploration(Section):
    """Letting a few declines through to learn their labels, inside a daily loss."""

    share: Share = Field(description="The most of the eligible declines that are let through.")
    max_amount: Amount = Field(description="Larger payments are never let through; major units.")
    loss_per_day: Amount = Field(description="The most it may cost a day, expected; major units.")
    declines_per_day: Annotated[int, whole(1, 10**12)] = Field(
        10_000, description="Eligible declines a day, from which the propensity is derived."
    )
    salt: Text | None = Field(
        None, description="Another salt draws other payments; where left out, the product's name."
    )


class Override(Section):
    """A threshold set by hand: this action or a more severe one exactly when p ≥ at_least."""

    action: ActionName = Field(description="One of the product's actions, but the least severe.")
    at_least: Probability = Field(description="The probability from which on it is taken.")
    category: Name | None = Field(None, description="Only for this one of costs.categories.")
    reason: Text = Field(description="Why the derived threshold does not do.")
    approver: Text = Field(description="Who approved it.")
    expires: Date = Field(description="The last day (UTC) on which it holds.")


class CalendarEvent(Section):
    """Days (UTC) on which fraud is likelier or rarer than usual. Overlapping shifts add up."""

    event: Name = Field(description="The event's name; unique.")
    starts: Date = Field(alias="from", description="The first day.")
    ends: Date = Field(alias="to", description="The last day.")
    log_odds_shift: Annotated[float, number(-10, 10)] = Field(
        description="Added to the log-odds of fraud on these days."
    )

    def problems(self) -> Iterator[Problem]:
        """It starts before it ends."""
        if self.starts > self.ends:
            yield Problem(("from",), f"is {self.starts}, must not be after to, {self.ends}.")


class Records(Section):
    """What of the features stays in the journal. The decision itself always does."""

    features: Literal["full", "sampled", "none"] = Field(
        "full", description="Keep the features of every call, of a share of them, or of none."
    )
    share: Share | None = Field(None, description="sampled: the share of calls.")

    def problems(self) -> Iterator[Problem]:
        """A sample has a share, and nothing else has."""
        if self.features == "sampled" and self.share is None:
            yield Problem(("share",), "is missing.", "sampled needs it, such as 10%.")
        if self.features != "sampled" and self.share is not None:
            yield Problem(
                ("share",), f"does not go with features: {self.features}.", "Leave it out."
            )


class TransactionId(Section):
    """What a transaction id looks like. It is no card number, though one in ten passes Luhn."""

    pattern: Pattern | None = Field(
        None,
        description="It must match all of this, such as 'txn-[0-9]{16}'. Where left out, anything "
        "of 1 to 128 characters is taken: a card number sent here would be recorded.",
    )


class Product(Section):
    """One product.yaml. Money is in major units of `costs.currency`."""

    name: ProductName = Field(
        alias="product", description="The product's name in requests, records and reports."
    )
    generation: Annotated[int, whole(1, 2**32 - 1)] = Field(
        description="Rises with every change that is served."
    )
    owners: Owners = Field(Owners(), description="Who answers for the product.")
    promises: tuple[Promise, ...] = Field((), description="What customers are promised.")
    latency: Latency = Field(description="How long an answer may take.")
    stand_in: StandIns = Field(description="What to answer when the model cannot.")
    on_record_failure: Literal["continue", "stand_in"] = Field(
        "continue",
        description="When the journal cannot take a record: let decisions out unrecorded "
        "(and say so in the answer), or stand in.",
    )
    records: Records = Field(Records(), description="What of the features is recorded.")
    pan_guard: Literal["refuse", "mask"] = Field(
        "refuse",
        description="Where subject, channel or a feature holds a payment card number: refuse the "
        "call, or go on with all but its first six and last four digits masked.",
    )
    transaction_id: TransactionId = Field(
        TransactionId(), description="What a transaction_id looks like."
    )
    models: Models = Field(description="Which ONNX files score.")
    features: tuple[Feature, ...] = Field(
        min_length=1, description="The model's inputs, in their order."
    )
    costs: Costs = Field(description="What each kind of mistake costs.")
    actions: tuple[ActionName, ...] = Field(
        min_length=1, description="What can be answered; stand-ins choose from these too."
    )
    overrides: tuple[Override, ...] = Field(
        (), description="Thresholds set by hand, against the derived ones."
    )
    exploration: Exploration | None = Field(
        None, description="Letting a few declines through to learn their labels."
    )
    goals: tuple[Goal, ...] = Field((), description="Targets of the owners.")
    fairness: Fairness | None = Field(None, description="Groups that must be treated equally.")
    watch: tuple[Name, ...] = Field(
        (), description="Segments to follow: features, channel, currency or category."
    )
    labels: Labels = Field(Labels(), description="When labels are complete.")
    calendar: tuple[CalendarEvent, ...] = Field(
        (), description="Events that shift the odds of fraud."
    )
    hypotheses: tuple[Hypothesis, ...] = Field((), description="Claims to be tested.")

    _source: Source = PrivateAttr(default=NOWHERE)

    @property
    def columns(self) -> tuple[Feature, ...]:
        """A feature for each column of the model: what repeats stands repeated."""
        return columns_of(self.features)

    @property
    def source(self) -> Source:
        """Where it was written; no part of what it says, so it does not count in `==`."""
        return self._source
