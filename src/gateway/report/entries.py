"""The JSON of an evaluation as frozen values. Each knows its place in it, as a JSON pointer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gateway.errors import LakeError, UsageError
from gateway.report.fields import WrongError, is_number, items, number_in, text_in
from gateway.report.tables import Tables, tables_in

SECTIONS = ("goals", "money", "calibration", "drift", "fairness")


_NUMBERS = ("value", "n", "events")
_TEXTS = ("target", "verdict", "because", "says", "from", "to")


@dataclass(frozen=True, slots=True)
class Line:
    """A figure. `at`: its JSON pointer, such as /goals/3; the rest as `gateway evaluate` says it.

    Texts that are null in the JSON are empty. `more`: what only some figures have.
    """

    at: str
    section: str
    product: str
    metric: str
    basis: str
    by: Mapping[str, str]
    unit: str
    value: float | None
    low: float | None
    high: float | None
    n: float
    events: float
    target: str
    verdict: str
    because: str
    says: str
    begin: str
    end: str
    more: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """`promise` or `goal` in section goals, else empty."""
        return str(self.more.get("kind") or "")

    def number(self, *path: str) -> float | None:
        """Return a number of `more`; None where there is none."""
        found: Any = self.more
        for name in path:
            found = found.get(name) if isinstance(found, Mapping) else None
        return found if is_number(found) else None


@dataclass(frozen=True, slots=True)
class Evaluated:
    """An evaluation, as it was read."""

    as_of: datetime
    products: tuple[str, ...]
    tables: Tables
    lines: tuple[Line, ...]

    def of(self, product: str, *sections: str) -> tuple[Line, ...]:
        """Return a product's lines, of sections."""
        return tuple(x for x in self.lines if x.product == product and x.section in sections)


def read(evaluation: Mapping[str, Any], subject: str, product: str | None = None) -> Evaluated:
    """Return an evaluation's values, or those of one product. `subject`: where it came from.

    Raises:
        LakeError: a field is missing, or is not what it is to be.
        UsageError: it has no such product.
    """
    try:
        as_of = datetime.fromisoformat(evaluation["as_of"])
        products = tuple(text_in(one, f"/products/{i}") for i, one in items(evaluation, "products"))
        tables = tables_in(evaluation)
        lines = tuple(
            _line(one, section, f"/{section}/{i}")
            for section in SECTIONS
            for i, one in items(evaluation, section)
        )
    except WrongError as error:
        raise LakeError(
            f"is no whole evaluation: {error}",
            subject=subject,
            hint="Make it again: gateway evaluate --lake DIR --json.",
        ) from None
    if product is None:
        return Evaluated(as_of, products, tables, lines)
    if product not in products:
        raise UsageError(
            "is no product of the evaluation",
            subject=f"--product {product}",
            hint=f"One of {', '.join(products)}." if products else "It has none.",
        )
    own = tuple(one for one in lines if one.product == product)
    return Evaluated(as_of, (product,), tables.of(product), own)


def _line(one: Any, section: str, at: str) -> Line:
    if not isinstance(one, Mapping):
        raise WrongError(f"{at} is no object")
    interval = one.get("interval")
    if not isinstance(interval, list) or len(interval) != 2:
        raise WrongError(f"{at}/interval is no pair")
    by = one.get("by", {})
    if not isinstance(by, Mapping):
        raise WrongError(f"{at}/by is no object")
    low, high = (number_in(end, f"{at}/interval/{i}") for i, end in enumerate(interval))
    known = {*_NUMBERS, *_TEXTS, "product", "metric", "basis", "unit", "by", "interval"}

    def number(name: str) -> float | None:
        return number_in(one.get(name), f"{at}/{name}")

    def text(name: str) -> str:
        return text_in(one.get(name), f"{at}/{name}")

    def optional(name: str) -> str:
        return text_in(one.get(name) or "", f"{at}/{name}")

    return Line(
        at,
        section,
        text("product"),
        text("metric"),
        text("basis"),
        by={text_in(key, f"{at}/by"): text_in(part, f"{at}/by") for key, part in by.items()},
        unit=text("unit"),
        value=number("value"),
        low=low,
        high=high,
        n=number("n") or 0.0,
        events=number("events") or 0.0,
        target=optional("target"),
        verdict=optional("verdict"),
        because=optional("because"),
        says=optional("says"),
        begin=optional("from"),
        end=optional("to"),
        more={key: one[key] for key in one.keys() - known},
    )


def texts(found: Any) -> Sequence[str]:
    """Return the texts of a list that may be missing."""
    return [one for one in found if isinstance(one, str)] if isinstance(found, list) else []
