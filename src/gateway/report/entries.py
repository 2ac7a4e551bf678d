"""The JSON of an evaluation as frozen values. Each knows its place in it, as a JSON pointer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gateway.errors import LakeError, UsageError

SECTIONS = ("goals", "money", "calibration", "drift", "fairness")
COUNTED = ("mature", "provisional", "pending", "reversed", "without_label_for_ever")
"""States of a payment's label; together they are all decisions."""

_MOST = 1e30
"""No sum of money is as large: beyond it nothing could be drawn to scale."""

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
        return found if _is_number(found) else None


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
class Evaluated:
    """An evaluation, as it was read."""

    as_of: datetime
    products: tuple[str, ...]
    labels: tuple[Labels, ...]
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
        products = tuple(_text(one, f"/products/{i}") for i, one in _items(evaluation, "products"))
        labels = tuple(_labels(one, f"/labels/{i}") for i, one in _items(evaluation, "labels"))
        lines = tuple(
            _line(one, section, f"/{section}/{i}")
            for section in SECTIONS
            for i, one in _items(evaluation, section)
        )
    except _WrongError as error:
        raise LakeError(
            f"is no whole evaluation: {error}",
            subject=subject,
            hint="Make it again: gateway evaluate --lake DIR --json.",
        ) from None
    if product is None:
        return Evaluated(as_of, products, labels, lines)
    if product not in products:
        raise UsageError(
            "is no product of the evaluation",
            subject=f"--product {product}",
            hint=f"One of {', '.join(products)}." if products else "It has none.",
        )
    return Evaluated(
        as_of,
        (product,),
        tuple(one for one in labels if one.product == product),
        tuple(one for one in lines if one.product == product),
    )


class _WrongError(Exception):
    """A place in the JSON, and what is wrong there; never the value itself."""


def _items(evaluation: Mapping[str, Any], name: str) -> Iterator[tuple[int, Any]]:
    some = evaluation.get(name, [])
    if not isinstance(some, list):
        raise _WrongError(f"/{name} is no list")
    yield from enumerate(some)


def _line(one: Any, section: str, at: str) -> Line:
    if not isinstance(one, Mapping):
        raise _WrongError(f"{at} is no object")
    interval = one.get("interval")
    if not isinstance(interval, list) or len(interval) != 2:
        raise _WrongError(f"{at}/interval is no pair")
    by = one.get("by", {})
    if not isinstance(by, Mapping):
        raise _WrongError(f"{at}/by is no object")
    low, high = (_number(end, f"{at}/interval/{i}") for i, end in enumerate(interval))
    known = {*_NUMBERS, *_TEXTS, "product", "metric", "basis", "unit", "by", "interval"}

    def number(name: str) -> float | None:
        return _number(one.get(name), f"{at}/{name}")

    def text(name: str) -> str:
        return _text(one.get(name), f"{at}/{name}")

    def optional(name: str) -> str:
        return _text(one.get(name) or "", f"{at}/{name}")

    return Line(
        at,
        section,
        text("product"),
        text("metric"),
        text("basis"),
        by={_text(key, f"{at}/by"): _text(part, f"{at}/by") for key, part in by.items()},
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


def _labels(one: Any, at: str) -> Labels:
    if not isinstance(one, Mapping):
        raise _WrongError(f"{at} is no object")

    def count(name: str) -> int:
        found = _number(one.get(name), f"{at}/{name}")
        if found is None or found != int(found):
            raise _WrongError(f"{at}/{name} is no count")
        return int(found)

    return Labels(
        at,
        _text(one.get("product"), f"{at}/product"),
        count("decisions"),
        count("maturity_days"),
        _text(one.get("first_day") or "", f"{at}/first_day"),
        _text(one.get("last_day") or "", f"{at}/last_day"),
        _text(one.get("last_mature_day") or "", f"{at}/last_mature_day"),
        {name: count(name) for name in COUNTED},
    )


def _is_number(found: Any) -> bool:
    if isinstance(found, bool) or not isinstance(found, int | float):
        return False
    return -_MOST < found < _MOST  # NaN is not


def _number(found: Any, at: str) -> float | None:
    if found is None:
        return None
    if not _is_number(found):
        raise _WrongError(f"{at} is no number")
    return found  # type: ignore[no-any-return]


def _text(found: Any, at: str) -> str:
    if not isinstance(found, str):
        raise _WrongError(f"{at} is no text")
    return found


def texts(found: Any) -> Sequence[str]:
    """Return the texts of a list that may be missing."""
    return [one for one in found if isinstance(one, str)] if isinstance(found, list) else []
