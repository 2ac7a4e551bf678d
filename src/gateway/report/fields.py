"""Fields of an evaluation's JSON: each is what it is to be, or its place is named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_MOST = 1e30
"""No sum of money is as large: beyond it nothing could be drawn to scale."""


class WrongError(Exception):
    """A place in the JSON, and what is wrong there; never the value itself."""


def items(evaluation: Mapping[str, Any], name: str) -> Iterator[tuple[int, Any]]:
    """Return the members of a list with their places; of one that is missing, none."""
    some = evaluation.get(name, [])
    if not isinstance(some, list):
        raise WrongError(f"/{name} is no list")
    yield from enumerate(some)


def object_in(found: Any, at: str) -> Mapping[str, Any]:
    """Return an object. `at`: its JSON pointer, as for the others."""
    if not isinstance(found, Mapping):
        raise WrongError(f"{at} is no object")
    return found


def count_in(found: Any, at: str) -> int:
    """Return a whole number."""
    number = number_in(found, at)
    if number is None or number != int(number):
        raise WrongError(f"{at} is no count")
    return int(number)


def positive_in(found: Any, at: str) -> float:
    """Return a number above 0."""
    number = number_in(found, at)
    if number is None or number <= 0:
        raise WrongError(f"{at} is not above 0")
    return number


def numbers_in(one: Mapping[str, Any], at: str, names: Sequence[str]) -> dict[str, float]:
    """Return those numbers that are there."""
    found = {name: number_in(one.get(name), f"{at}/{name}") for name in names}
    return {name: number for name, number in found.items() if number is not None}


def is_number(found: Any) -> bool:
    """Say whether it is a number that can be drawn to scale."""
    if isinstance(found, bool) or not isinstance(found, int | float):
        return False
    return -_MOST < found < _MOST  # NaN is not


def number_in(found: Any, at: str) -> float | None:
    """Return a number that can be drawn; None where it is null."""
    if found is None:
        return None
    if not is_number(found):
        raise WrongError(f"{at} is no number")
    return found  # type: ignore[no-any-return]


def text_in(found: Any, at: str) -> str:
    """Return a text."""
    if not isinstance(found, str):
        raise WrongError(f"{at} is no text")
    return found
