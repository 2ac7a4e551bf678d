"""What one value of product.yaml must be: read strictly, refused with what to try.

A rule is said once, in `says`; messages and the key reference both take it from there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import PurePosixPath
from typing import Annotated, Any, NamedTuple

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from gateway.product.action import Action
from gateway.product.money import EXPONENTS
from gateway.product.suggest import share, suggest


class RefusedError(ValueError):
    """The value breaks its rule. The text is a hint of what to try, or empty."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A pydantic annotation: the `kind` of a value, what it must be, and how it is read."""

    kind: str
    says: str
    read: Callable[[object], object]

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Validate with `read` alone."""
        return core_schema.no_info_plain_validator_function(self._validate)

    def _validate(self, value: object) -> object:
        try:
            return self.read(value)
        except RefusedError as refused:
            hint = str(refused)
            raise PydanticCustomError(
                "rule", "must be {says}", {"says": self.says, "hint": hint}
            ) from None


class Output(NamedTuple):
    """Where a model's score stands: an output's name, and its column, class or key.

    In a matrix `column` is the column's index. In labels it is the class that counts as 1, in
    the maps of a ZipMap the key. None: the output is one number a row.
    """

    name: str
    column: int | str | None = None


class Percentage(float):
    """A share that was written in percent: 0.05 for "5%"."""

    __slots__ = ()


def number(
    low: float = -math.inf,
    high: float = math.inf,
    *,
    above: bool = False,
    below: bool = False,
    percent: bool = False,
) -> Rule:
    """Return the rule of a finite number in low..high; `above` and `below` leave out the ends.

    Where `high` is 1 it is a share, and "5%" is one too; elsewhere only with `percent`, and
    then the section must refuse a `Percentage` where it makes no sense.
    """
    left_out = [end for end, out in ((low, above), (high, below)) if out]

    def read(value: object) -> float:
        if isinstance(value, str) and (percent or high == 1):
            value = _percentage(value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise RefusedError(_as_number(value))
        inside = low <= value <= high and value not in left_out
        if not inside or not math.isfinite(value):
            rate = high == 1 and 1 < value <= 100 and not isinstance(value, Percentage)
            raise RefusedError(f"Did you mean {share(value / 100)}?" if rate else "")
        return value if isinstance(value, Percentage) else float(value)

    return Rule("number", _range(low, high, left_out), read)


def whole(low: int, high: int) -> Rule:
    """Return the rule of a whole number in low..high."""

    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise RefusedError(_as_number(value))
        if not low <= value <= high:
            raise RefusedError("")
        return value

    return Rule("whole number", f"a whole number {low}..{high}", read)


def text(says: str, pattern: str, *, length_max: int = 100, hint: str = "") -> Rule:
    """Return the rule of text that matches the whole `pattern`."""
    shape = re.compile(pattern)

    def read(value: object) -> str:
        if not isinstance(value, str):
            raise RefusedError("Put it in quotes." if isinstance(value, int | float) else "")
        if len(value) > length_max or not shape.fullmatch(value):
            raise RefusedError(hint)
        return value

    return Rule("text", says, read)


def _range(low: float, high: float, left_out: list[float]) -> str:
    if math.isfinite(low) and math.isfinite(high):
        ends = " and ".join(f"{end:g}" for end in left_out)
        return f"{low:g}..{high:g}" + (f" without {ends}" if ends else "")
    if math.isfinite(low):
        return f"a number more than {low:g}" if left_out else f"a number, {low:g} or more"
    return "a number"


def _percentage(word: str) -> Percentage | str:
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?\s?%", word):
        return word
    # Read, not divided: 99.99 / 100 is not 0.9999 in the last bit.
    return Percentage(f"{word[:-1].strip()}e-2")


def _as_number(value: object) -> str:
    if isinstance(value, float):
        return f"Did you mean {round(value)}?" if math.isfinite(value) else ""
    found = re.search(r"-?\d{1,18}(\.\d{1,18})?", value) if isinstance(value, str) else None
    return f"Write {found.group()}, without quotes or a unit." if found else ""


def _read_action(value: object) -> Action:
    if isinstance(value, Action):
        return value
    spellings = {action.spelling: action for action in Action}
    if not isinstance(value, str) or value not in spellings:
        raise RefusedError(suggest(value, spellings) if isinstance(value, str) else "")
    return spellings[value]


def _read_currency(value: object) -> str:
    if not isinstance(value, str) or value not in EXPONENTS:
        raise RefusedError(suggest(value, EXPONENTS) if isinstance(value, str) else "Such as USD.")
    return value


def _read_mcc(value: object) -> str:
    # YAML reads 0742 as the number 742.
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 9999:
        return f"{value:04d}"
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]{4}", value):
        raise RefusedError("")
    return value


_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_LONGEST = timedelta(days=3660)


def _read_duration(value: object) -> timedelta:
    if isinstance(value, timedelta):
        return value
    found = re.fullmatch(r"(\d{1,9})([smhdw])", value) if isinstance(value, str) else None
    if not found:
        number = isinstance(value, int) and not isinstance(value, bool)
        raise RefusedError(f"Did you mean {value}d?" if number else "")
    try:
        duration = timedelta(**{_UNITS[found.group(2)]: int(found.group(1))})
    except OverflowError:
        raise RefusedError("") from None
    if not timedelta(0) < duration <= _LONGEST:
        raise RefusedError("")
    return duration


def _read_date(value: object) -> date:
    if isinstance(value, date):
        return value
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        raise RefusedError("")
    try:
        return date.fromisoformat(value)
    except ValueError as impossible:
        raise RefusedError(f"{str(impossible).capitalize()}.") from None


def _read_path(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > 255:
        raise RefusedError("")
    path = PurePosixPath(value)
    if not value.isprintable() or "\\" in value or path.is_absolute() or ".." in path.parts:
        raise RefusedError(f"Put the file into the folder and write {path.name}.")
    return value


def _read_output(value: object) -> Output:
    if isinstance(value, Output):
        return value
    shape = r"([^\[\]]{0,199}[^\[\]\s])(?:\[([^\[\]]{1,100})\])?"
    found = re.fullmatch(shape, value) if isinstance(value, str) else None
    if not found:
        raise RefusedError('Such as "probabilities[1]".')
    name, column = found.groups()
    if column is None:
        return Output(name)
    return Output(name, int(column) if re.fullmatch(r"-?\d{1,9}", column) else column)


def _read_limit(value: object) -> tuple[float, float]:
    pair = value if isinstance(value, list | tuple) else ()
    if len(pair) != 2 or any(isinstance(x, bool) or not isinstance(x, int | float) for x in pair):
        raise RefusedError("Such as [0.8, 1.25].")
    low, high = float(pair[0]), float(pair[1])
    if not 0 < low < 1 < high < math.inf:
        raise RefusedError(f"Did you mean [{high:g}, {low:g}]?" if 0 < high < 1 < low else "")
    return low, high


def _read_scale(value: object) -> tuple[float, float]:
    pair = value if isinstance(value, list | tuple) else ()
    if len(pair) != 2 or any(isinstance(x, bool) or not isinstance(x, int | float) for x in pair):
        raise RefusedError("Such as [0, 100], or [1, 0] where the output is P(genuine).")
    genuine, fraud = float(pair[0]), float(pair[1])
    if not math.isfinite(genuine) or not math.isfinite(fraud) or genuine == fraud:
        raise RefusedError("")
    return genuine, fraud


_UNBOUNDED = 2
"""Each `*`, `+` or `{n,}` of a pattern multiplies its worst time by the text's length."""


def _read_pattern(value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 200:
        raise RefusedError("")
    if re.search(r"\)[*+?{]|\\[1-9]|\(\?(?!:)", value):
        raise RefusedError("No repeated groups, back references or look-arounds.")
    bare = re.sub(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", "x", value)
    if len(re.findall(r"[*+]|\{\d*,\}", bare)) > _UNBOUNDED:
        raise RefusedError(f"At most {_UNBOUNDED} unbounded repetitions: write {{1,32}}.")
    try:
        re.compile(value)
    except (re.error, OverflowError, RecursionError) as error:
        raise RefusedError(f"{str(error).capitalize()}.") from None
    return value


def _read_default(value: object) -> str | float:
    if isinstance(value, str):
        return math.nan if value == "nan" else value
    if isinstance(value, bool):
        return value
    if not isinstance(value, int | float):
        raise RefusedError("")
    # One NaN for all, so that equal products compare equal.
    return math.nan if math.isnan(value) else float(value)


Amount = Annotated[float, number(0, 1e12)]
Positive = Annotated[float, number(0, above=True)]
Share = Annotated[float, number(0, 1)]
Probability = Annotated[float, number(0, 1)]
Number = Annotated[float, number()]
Name = Annotated[
    str,
    text(
        "a name of letters, digits, '_', '-' and '.', up to 100",
        r"[A-Za-z0-9_][A-Za-z0-9_.-]*",
        hint="Such as card-not-present.",
    ),
]
Text = Annotated[str, text("text of 1 to 1000 characters", r"(?s).*\S.*", length_max=1000)]
Sha256 = Annotated[
    str,
    text(
        "64 lower-case hex digits",
        "[0-9a-f]{64}",
        hint="`sha256sum FILE` or `gateway check` gives it.",
    ),
]
FilePath = Annotated[str, Rule("file", "a file inside the product's own folder", _read_path)]
ActionName = Annotated[
    Action, Rule("action", "one of approve, step_up, review, decline", _read_action)
]
Currency = Annotated[str, Rule("currency", "an active ISO 4217 code", _read_currency)]
Mcc = Annotated[str, Rule("MCC", "a merchant category code of four digits", _read_mcc)]
Duration = Annotated[
    timedelta, Rule("duration", "a duration such as 28d, 12h or 90s, up to 3660d", _read_duration)
]
Date = Annotated[date, Rule("date", "a date such as 2026-11-27", _read_date)]
OutputName = Annotated[Output, Rule("output", 'an output such as "probabilities[1]"', _read_output)]
Limit = Annotated[
    tuple[float, float],
    Rule("two numbers", "two numbers [low, high] with 0 < low < 1 < high", _read_limit),
]
Scale = Annotated[
    tuple[float, float],
    Rule("two numbers", "two different numbers [genuine, fraud]", _read_scale),
]
Pattern = Annotated[
    str, Rule("pattern", "a regular expression of up to 200 characters", _read_pattern)
]
Value = Annotated[str | float, Rule("value", "a value of the feature's type", _read_default)]
Default = Annotated[
    str | float, Rule("default", "refuse, nan, or a value of the feature's type", _read_default)
]
