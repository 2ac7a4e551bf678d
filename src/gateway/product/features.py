"""features: what the model is fed, in the order of its inputs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from typing import Annotated, Literal

from pydantic import Field

from gateway.product.rule import Default, Name, Number, Value, text, whole
from gateway.product.section import Problem, Section
from gateway.product.suggest import shown, suggest

Label = Annotated[str, text("text of up to 100 characters", r"(?s).*")]

COLUMNS_MAX = 10_000
"""Columns of a model: as many float32 as fit a message, with room for the rest of it."""

UNSEEN = "unseen"
"""`unknown: unseen` feeds the model UNSEEN_TEXT, which it cannot have been trained on."""

UNSEEN_TEXT = "\ufffd"

_WORDS = ("refuse", "nan", UNSEEN)


class Feature(Section):
    """One input of the model. Numbers and categories may be missing, unknown or out of range."""

    name: Name = Field(description="The feature's name in requests.")
    type: Literal["float", "int", "bool", "category"] = Field(
        description="float, int and bool are given as numbers, a category as one of its values."
    )
    min: Number | None = Field(None, description="float, int: the least value in range.")
    max: Number | None = Field(None, description="float, int: the greatest value in range.")
    values: tuple[Label, ...] = Field(
        (), description="category: its values. The model is fed their index, from 0."
    )
    missing: Default = Field(
        "refuse",
        description="Where the request leaves it out: refuse, the value to take instead, or nan.",
    )
    unknown: Label = Field(
        "refuse",
        description="category: where the request has another value: refuse, the value to take, "
        "or unseen: a model that reads texts is fed one that it does not know.",
    )
    out_of_range: Literal["refuse", "clip"] = Field(
        "refuse", description="float, int: where the value is below min or above max."
    )
    reference: Value | None = Field(
        None, description="The usual value, which contributions are told against."
    )
    repeat: Annotated[int, whole(2, COLUMNS_MAX)] | None = Field(
        None, description="So many features of this kind in a row: NAME.0, NAME.1, ..."
    )

    def problems(self) -> Iterator[Problem]:
        """Hold the keys of a feature against its type."""
        if self.type == "category":
            yield from self._category_problems()
        else:
            yield from self._number_problems()
        for key in ("missing", "reference"):
            yield from self._default_problems(key)

    def _category_problems(self) -> Iterator[Problem]:
        yield from self._without("min", "max", "out_of_range")
        if not self.values:
            yield Problem(("values",), "is missing.", "A category lists its values.")
        for i, value in enumerate(self.values):
            if value in self.values[:i]:
                yield Problem(("values", i), f"is {shown(value)} a second time.")
            if value in _WORDS or value == UNSEEN_TEXT:
                yield Problem(
                    ("values", i),
                    f"is {shown(value)}, which means something else in missing and unknown.",
                    "Use another word.",
                )
        if self.unknown not in ("refuse", UNSEEN, *self.values):
            yield Problem(
                ("unknown",),
                f"is {shown(self.unknown)}, must be refuse, unseen or one of values.",
                suggest(self.unknown, self.values),
            )

    def _number_problems(self) -> Iterator[Problem]:
        yield from self._without("values", "unknown")
        if self.type == "bool":
            yield from self._without("min", "max", "out_of_range")
        elif self.min is not None and self.max is not None and self.min > self.max:
            yield Problem(("min",), f"is {self.min:g}, must not be above max, {self.max:g}.")

    def _without(self, *keys: str) -> Iterator[Problem]:
        for key in keys:
            if key in self.model_fields_set:
                yield Problem((key,), f"does not go with type {self.type}.", "Leave it out.")

    def _default_problems(self, key: str) -> Iterator[Problem]:
        value = getattr(self, key)
        if value is None or (key == "missing" and value == "refuse"):
            return
        if isinstance(value, float) and math.isnan(value):
            return
        if self.type == "category":
            if value not in self.values:
                hint = suggest(value, self.values) if isinstance(value, str) else ""
                yield Problem((key,), f"is {shown(value)}, must be one of values.", hint)
        elif self.type == "bool":
            if not isinstance(value, bool):
                yield Problem((key,), f"is {shown(value)}, must be true or false.")
        elif isinstance(value, bool) or not isinstance(value, float):
            yield Problem((key,), f"is {shown(value)}, must be a number.")
        elif not math.isfinite(value) or (self.type == "int" and value != int(value)):
            yield Problem((key,), f"is {value:g}, must be a {self.type}.")
        elif not self.in_range(value):
            yield Problem((key,), f"is {value:g}, outside min and max.")

    def in_range(self, value: float) -> bool:
        """Return whether min ≤ value ≤ max, as far as they are declared."""
        return (self.min is None or self.min <= value) and (self.max is None or value <= self.max)


def columns_of(features: Iterable[Feature]) -> tuple[Feature, ...]:
    """Return a feature for each column of the model, in order: what repeats stands repeated."""
    columns: list[Feature] = []
    for feature in features:
        if feature.repeat is None:
            columns.append(feature)
        else:
            columns += (
                feature.model_copy(update={"name": f"{feature.name}.{i}", "repeat": None})
                for i in range(feature.repeat)
            )
    return tuple(columns)


def schema_fingerprint(features: Sequence[Feature]) -> str:
    """Return 16 hex digits of sha256 over name, type and values of each column, in order.

    Two products with one fingerprint read the same dense features. Ranges and defaults are
    left out: they change what is refused, not what a number means.
    """
    schema = [[column.name, column.type, list(column.values)] for column in columns_of(features)]
    canonical = json.dumps(schema, ensure_ascii=True, separators=(",", ":"))
    return sha256(canonical.encode()).hexdigest()[:16]
