"""stand_in: what to answer when the model cannot."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from gateway.product.action import StandIn
from gateway.product.rule import ActionName, Amount, Name
from gateway.product.section import Problem, Section


class StandInBand(Section):
    """The first band that holds a payment's amount and category answers it."""

    up_to: Amount | None = Field(
        None, description="Amounts up to this one, in major units. The last band leaves it out."
    )
    action: ActionName = Field(description="The answer: one of the product's actions.")
    categories: tuple[Name, ...] = Field(
        (), description="Only payments of these costs.categories. The last band leaves it out."
    )

    def covers(self, other: StandInBand) -> bool:
        """Return whether every payment that `other` holds is held by this band too."""
        amounts = self.up_to is None or (other.up_to is not None and other.up_to <= self.up_to)
        return amounts and (
            not self.categories
            or (bool(other.categories) and set(other.categories) <= set(self.categories))
        )


class StandIns(Section):
    """The bands of each reason why the model did not decide."""

    deadline: tuple[StandInBand, ...] = Field(
        min_length=1, description="There was no time left inside the budget."
    )
    overload: tuple[StandInBand, ...] = Field(
        min_length=1, description="More work had arrived than the product's share of capacity."
    )
    model_unavailable: tuple[StandInBand, ...] = Field(
        min_length=1, description="No model was loaded."
    )
    model_error: tuple[StandInBand, ...] = Field(
        min_length=1, description="The model failed, or gave what is no probability."
    )

    def by_reason(self) -> dict[StandIn, tuple[StandInBand, ...]]:
        """Return the bands of every reason but NONE."""
        return {
            StandIn.DEADLINE: self.deadline,
            StandIn.OVERLOAD: self.overload,
            StandIn.MODEL_UNAVAILABLE: self.model_unavailable,
            StandIn.MODEL_ERROR: self.model_error,
        }

    def problems(self) -> Iterator[Problem]:
        """Every payment is answered, and every band is reached."""
        for reason, bands in self.by_reason().items():
            for problem in _band_problems(bands):
                yield problem.under((reason.name.lower(),))


def _band_problems(bands: tuple[StandInBand, ...]) -> Iterator[Problem]:
    for i, band in enumerate(bands):
        before = next((j for j in range(i) if bands[j].covers(band)), None)
        if before is None:
            continue
        if band.up_to is None or bands[before].up_to is None:
            yield Problem((i,), f"is never reached: band {before} answers before it.")
        else:
            yield Problem(
                (i, "up_to"),
                f"is {band.up_to:g}, must be above {bands[before].up_to:g}: bands rise.",
            )
    last = len(bands) - 1
    if bands[last].up_to is not None:
        yield Problem(
            (last, "up_to"),
            "leaves larger amounts without an answer.",
            "End with a band without it.",
        )
    if bands[last].categories:
        yield Problem(
            (last, "categories"),
            "leaves other payments without an answer.",
            "End with a band for all.",
        )
