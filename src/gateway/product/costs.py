"""costs: what each kind of mistake costs, in major units of one currency.

Everything counts from one baseline: approving a genuine payment costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from gateway.product.frozen import FrozenMapping
from gateway.product.rule import Amount, Currency, Mcc, Name, Positive, Probability, Share, number
from gateway.product.section import Problem, Section


class FalseNegative(Section):
    """c_FN = loss_rate · amount + fee: a fraud that was let through."""

    loss_rate: Share = Field(
        description="Share of the amount that is lost, after recovery and liability shift."
    )
    fee: Amount = Field(description="What a chargeback costs besides, in major units.")


class FalsePositive(Section):
    """c_FP = margin · (1 − retained) · amount + harm · goodwill: a genuine customer turned away."""

    margin: Share = Field(description="What the payment would have earned, as a share of it.")
    retained: Share = Field(
        0.0, description="Share of the customers turned away who pay us in another way."
    )
    goodwill: Amount = Field(
        description="Goodwill and churn, in major units; multiplied by the category's harm."
    )


class StepUp(Section):
    """What it costs to ask the customer for proof, and who passes."""

    fee: Amount = Field(description="Cost of asking once, in major units.")
    genuine_pass: Probability = Field(description="P(passes | genuine).")
    fraud_pass: Probability = Field(description="P(passes | fraud).")
    liability_shift: Share = Field(
        description="Share of the loss that somebody else bears after a passed step-up."
    )
    friction: Amount = Field(
        description="Harm to a genuine customer who passes, in major units; multiplied by harm."
    )


class Hold(Section):
    """What it costs a genuine customer to wait for the analyst."""

    per_hour: Amount = Field(
        0.0, description="Cost of an hour's wait, in major units; multiplied by harm."
    )
    hours: Amount = Field(0.0, description="How long an analyst takes, in hours.")


class Review(Section):
    """What an analyst's look costs, and how often the analyst is right."""

    fee: Amount = Field(description="Cost of one review, in major units.")
    sensitivity: Probability = Field(description="P(analyst finds fraud | fraud).")
    specificity: Probability = Field(description="P(analyst clears | genuine).")
    per_hour: Positive | None = Field(None, description="Cases an hour that the analysts can take.")
    shadow_price: Amount | None = Field(
        None,
        description="What a review costs besides, in major units, because the analysts can take "
        "no more than per_hour; `gateway thresholds` finds it. 0 where they have time left.",
    )
    hold: Hold = Field(Hold(), description="The wait; needed where `meanwhile` is hold.")
    meanwhile: Literal["hold", "approve"] = Field(
        "hold",
        description="Until the analyst has looked: hold the payment, or approve and capture later.",
    )

    def problems(self) -> Iterator[Problem]:
        """A payment that is held needs the price of waiting; a scarcity has its price."""
        if self.meanwhile == "hold" and "hold" not in self.model_fields_set:
            yield Problem(("hold",), "is missing.", "Price the wait: {per_hour: 0.20, hours: 4}.")
        if self.shadow_price and self.per_hour is None:
            yield Problem(
                ("shadow_price",),
                "prices a capacity that is not declared.",
                "Declare per_hour, or leave it out.",
            )


class Category(Section):
    """A kind of merchant where turning a genuine customer away harms more than elsewhere."""

    mcc: tuple[Mcc, ...] = Field(
        min_length=1, description="Merchant category codes; each stands in one category only."
    )
    harm: Annotated[float, number(1)] = Field(
        description="Multiplier κ of goodwill, friction and wait for genuine customers."
    )
    harm_up_to: Positive | None = Field(
        None, description="Amount in major units above which harm is 1."
    )


class Costs(Section):
    """The price of each kind of mistake, in major units of `currency`."""

    currency: Currency = Field(description="The one currency of the product's payments and costs.")
    false_negative: FalseNegative = Field(description="Letting a fraud through.")
    false_positive: FalsePositive = Field(description="Turning a genuine customer away.")
    decline_of_fraud: Amount = Field(
        0.0, description="What a rightly declined fraud still costs, in major units."
    )
    step_up: StepUp | None = Field(
        None, description="Asking for proof. Needed where actions has step_up."
    )
    review: Review | None = Field(
        None, description="Letting an analyst look. Needed where actions has review."
    )
    categories: FrozenMapping[Name, Category] = Field(
        FrozenMapping(), description="Merchant categories by name, with their harm."
    )

    def problems(self) -> Iterator[Problem]:
        """Without these no threshold exists (Elkan 2001, reasonableness); one MCC, one harm."""
        fp, fn = self.false_positive, self.false_negative
        if fp.margin * (1 - fp.retained) == 0 and fp.goodwill == 0:
            yield Problem(
                ("false_positive",),
                "costs nothing: declining everybody would be best.",
                "Set goodwill, or margin with retained below 1, above 0.",
            )
        if fn.loss_rate == 0 and fn.fee <= self.decline_of_fraud:
            yield Problem(
                ("decline_of_fraud",) if self.decline_of_fraud else ("false_negative",),
                "leaves a missed fraud no dearer than a declined one: "
                "approving everybody would be best.",
                "Raise false_negative.loss_rate or fee above decline_of_fraud.",
            )
        category_of: dict[str, str] = {}
        for name, category in self.categories.items():
            for i, mcc in enumerate(category.mcc):
                if mcc in category_of:
                    yield Problem(
                        ("categories", name, "mcc", i),
                        f"is {mcc}, which stands in {category_of[mcc]} already.",
                        "Keep it in one category.",
                    )
                category_of.setdefault(mcc, name)
