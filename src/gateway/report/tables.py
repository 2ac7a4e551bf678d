"""What stands in an evaluation's JSON beside its figures: a row a product, as frozen values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from gateway.report.claims import Claim, claim_in
from gateway.report.fields import (
    WrongError,
    count_in,
    items,
    number_in,
    numbers_in,
    object_in,
    positive_in,
    text_in,
)

COUNTED = ("mature", "provisional", "pending", "reversed", "without_label_for_ever")
"""States of a payment's label; together they are all decisions."""


@dataclass(frozen=True, slots=True)
class Labels:
    """How many decisions of a product there are, by the state of their labels."""

    at: str
    product: str
    decisions: int
    maturity_days: float
    first_day: str
    last_day: str
    last_mature_day: str
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Times:
    """How long a product's answers took, in µs. `at`: its JSON pointer."""

    at: str
    product: str
    begin: str
    end: str
    budget_us: float
    n: int
    late: int
    quantiles: Mapping[str, float]
    bins: tuple[Mapping[str, float], ...]
    days: tuple[tuple[str, Mapping[str, float]], ...]


@dataclass(frozen=True, slots=True)
class Cohort:
    """A week's payments that went through, and the share reported as fraud by each age; None: not
    known yet."""

    at: str
    begin: str
    end: str
    passed: int
    share: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Cohorts:
    """How labels came in, week by week."""

    at: str
    product: str
    ages_days: tuple[int, ...]
    cohorts: tuple[Cohort, ...]


@dataclass(frozen=True, slots=True)
class Arm:
    """A model of a product. `share`: of the traffic that it decides; None: it decides nothing."""

    at: str
    name: str
    role: str
    share: float | None
    version: str
    digest: str


@dataclass(frozen=True, slots=True)
class Event:
    """Days of a product's calendar, both ends included."""

    name: str
    begin: str
    end: str


@dataclass(frozen=True, slots=True)
class Declared:
    """What a product says of itself."""

    at: str
    product: str
    generation: int
    arms: tuple[Arm, ...]
    calendar: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class Tables:
    """A row a product of each; none where an older evaluation has none."""

    labels: tuple[Labels, ...] = ()
    latency: tuple[Times, ...] = ()
    maturity: tuple[Cohorts, ...] = ()
    declared: tuple[Declared, ...] = ()
    hypotheses: tuple[Claim, ...] = ()

    def of(self, product: str) -> Tables:
        """Return a product's rows."""
        return Tables(
            tuple(one for one in self.labels if one.product == product),
            tuple(one for one in self.latency if one.product == product),
            tuple(one for one in self.maturity if one.product == product),
            tuple(one for one in self.declared if one.product == product),
            tuple(one for one in self.hypotheses if one.product == product),
        )


def tables_in(evaluation: Mapping[str, Any]) -> Tables:
    """Return what an evaluation's JSON has. Raises WrongError."""
    return Tables(
        tuple(_rows(evaluation, "labels", _labels)),
        tuple(_rows(evaluation, "latency", _times)),
        tuple(_rows(evaluation, "maturity", _cohorts)),
        tuple(_rows(evaluation, "declared", _declared)),
        tuple(_rows(evaluation, "hypotheses", claim_in)),
    )


_Row = TypeVar("_Row")


def _rows(
    evaluation: Mapping[str, Any], name: str, row: Callable[[Mapping[str, Any], str], _Row]
) -> Iterator[_Row]:
    for i, one in items(evaluation, name):
        yield row(object_in(one, f"/{name}/{i}"), f"/{name}/{i}")


def _labels(one: Mapping[str, Any], at: str) -> Labels:
    def count(name: str) -> int:
        return count_in(one.get(name), f"{at}/{name}")

    return Labels(
        at,
        text_in(one.get("product"), f"{at}/product"),
        count("decisions"),
        count("maturity_days"),
        text_in(one.get("first_day") or "", f"{at}/first_day"),
        text_in(one.get("last_day") or "", f"{at}/last_day"),
        text_in(one.get("last_mature_day") or "", f"{at}/last_mature_day"),
        {name: count(name) for name in COUNTED},
    )


def _times(one: Mapping[str, Any], at: str) -> Times:
    return Times(
        at,
        text_in(one.get("product"), f"{at}/product"),
        text_in(one.get("from"), f"{at}/from"),
        text_in(one.get("to"), f"{at}/to"),
        positive_in(one.get("budget_us"), f"{at}/budget_us"),
        count_in(one.get("n"), f"{at}/n"),
        count_in(one.get("late"), f"{at}/late"),
        numbers_in(one, at, ("p50_us", "p90_us", "p99_us", "p999_us")),
        tuple(
            numbers_in(
                object_in(found, f"{at}/bins/{i}"),
                f"{at}/bins/{i}",
                ("from_us", "to_us", "by_model", "stood_in", "late"),
            )
            for i, found in items(one, "bins")
        ),
        tuple(
            (
                text_in(object_in(found, f"{at}/days/{i}").get("day"), f"{at}/days/{i}/day"),
                numbers_in(found, f"{at}/days/{i}", ("n", "late", "p50_us", "p99_us")),
            )
            for i, found in items(one, "days")
        ),
    )


def _cohorts(one: Mapping[str, Any], at: str) -> Cohorts:
    ages = tuple(count_in(age, f"{at}/ages_days/{i}") for i, age in items(one, "ages_days"))
    return Cohorts(
        at,
        text_in(one.get("product"), f"{at}/product"),
        ages,
        tuple(
            _cohort(object_in(found, f"{at}/cohorts/{i}"), f"{at}/cohorts/{i}", len(ages))
            for i, found in items(one, "cohorts")
        ),
    )


def _cohort(one: Mapping[str, Any], at: str, ages: int) -> Cohort:
    share = tuple(number_in(found, f"{at}/share/{i}") for i, found in items(one, "share"))
    if len(share) != ages:
        raise WrongError(f"{at}/share has not a value for each age")
    begin, end = (text_in(one.get(name), f"{at}/{name}") for name in ("from", "to"))
    return Cohort(at, begin, end, count_in(one.get("passed"), f"{at}/passed"), share)


def _declared(one: Mapping[str, Any], at: str) -> Declared:
    return Declared(
        at,
        text_in(one.get("product"), f"{at}/product"),
        count_in(one.get("generation"), f"{at}/generation"),
        tuple(
            _arm(object_in(found, f"{at}/arms/{i}"), f"{at}/arms/{i}")
            for i, found in items(one, "arms")
        ),
        tuple(
            Event(
                *(
                    text_in(object_in(found, f"{at}/calendar/{i}").get(name), f"{at}/calendar/{i}")
                    for name in ("event", "from", "to")
                )
            )
            for i, found in items(one, "calendar")
        ),
    )


def _arm(one: Mapping[str, Any], at: str) -> Arm:
    name, role, version = (
        text_in(one.get(key), f"{at}/{key}") for key in ("arm", "role", "version")
    )
    share = number_in(one.get("share"), f"{at}/share")
    return Arm(at, name, role, share, version, text_in(one.get("digest") or "", f"{at}/digest"))
