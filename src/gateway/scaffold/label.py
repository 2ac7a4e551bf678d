"""Which column of a table says what was fraud, and which of its values. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.errors import UsageError
from gateway.scaffold.names import named, plain
from gateway.scaffold.table import Column, Table

LABELS = (
    *("isfraud", "fraud", "txfraud", "fraudbool", "fraudlabel", "fraudflag", "isfraudulent"),
    *("fraudulent", "fraudind", "class", "label", "labels", "target", "y", "ischargeback"),
    *("chargeback", "outcome", "isdefault", "default", "bad", "isbad", "badflag", "churn"),
    *("defaultpaymentnextmonth", "defaulted", "islaundering", "creditrisk", "risk", "response"),
    "result",
)
"""Names that labels have, the likeliest first; without case and punctuation."""

_FRAUD_WORDS = (
    *("fraud", "fraudulent", "fraudster", "isfraud", "yes", "y", "true", "t", "bad", "default"),
    *("chargeback", "positive", "pos", "1"),
)
_GOOD_NAMES = ("genuine", "legit", "good", "approved", "paid")
_CLASSES_MAX = 10


@dataclass(frozen=True, slots=True, eq=False)
class Label:
    """The label column. `fraud` (n,) where it says fraud, `known` (n,) where it says anything.

    `why` is the evidence for a guess, `ask` what somebody should confirm; either may be empty.
    """

    name: str
    value: str
    fraud: NDArray[np.bool_]
    known: NDArray[np.bool_]
    why: str = ""
    ask: str = ""

    def of(self, rows: NDArray[np.intp]) -> Label:
        """Return the label of some of the rows."""
        return Label(self.name, self.value, self.fraud[rows], self.known[rows], self.why, self.ask)


def find_label(
    table: Table, taken: Iterable[str], name: str | None, value: str | None
) -> Label | None:
    """Return the label column, as named or guessed by its name; None where there is none.

    `taken` are names of the model's own inputs.

    Raises:
        UsageError: no such column, or no such value, or it does not tell two kinds apart.
    """
    if name is not None:
        return _label(named(name, table, "--label"), table, value)
    own = {plain(one) for one in taken}
    columns = [column for column in table.columns.values() if plain(column.name) not in own]
    known = [column for column in columns if plain(column.name) in LABELS]
    for column in sorted(known, key=lambda one: LABELS.index(plain(one.name))):
        if 2 <= column.count <= _CLASSES_MAX:
            return _label(column, table, value, why=f"by its name, {column.count} values")
    for column in columns:
        if "fraud" in plain(column.name) and column.count == 2:
            return _label(column, table, value, why="by its name, 2 values")
    return None


def one_sided(table: Table, taken: Iterable[str]) -> Column | None:
    """Return the column that is a label by its name, and says the same of every row.

    `taken` are names of the model's own inputs.
    """
    own = {plain(one) for one in taken}
    for column in table.columns.values():
        name = plain(column.name)
        if name not in own and (name in LABELS or "fraud" in name) and column.count == 1:
            return column
    return None


def label_by_place(table: Table, value: str | None) -> Label | None:
    """Return the last or first column as the label, where it has two values."""
    names = list(table.columns)
    for name, where in ((names[-1], "last"), (names[0], "first")):
        if table.columns[name].count == 2:
            why = f"the {where} column, 2 values, and the model takes one column fewer"
            ask = f"science: is {name!r} the label?"
            return _label(table.columns[name], table, value, why=why, ask=ask)
    return None


def _label(
    column: Column, table: Table, value: str | None, *, why: str = "", ask: str = ""
) -> Label:
    if not 2 <= column.count <= _CLASSES_MAX:
        count = f"{column.count} value{'s' * (column.count != 1)}"
        raise UsageError(
            f"label {column.name!r} has {count}, must have 2 to {_CLASSES_MAX}",
            subject=table.path,
            hint="Name the column that says which payments were fraud: --label NAME. "
            "Without labels, leave it out.",
        )
    words = [text for text, _ in column.distinct]
    wanted, question = (value, "") if value is not None else _fraud_word(column, words)
    same = [word for word in words if word == wanted or _same_number(word, wanted)]
    if not same:
        raise UsageError(
            f"label {column.name!r} has no value {wanted!r}",
            subject=table.path,
            hint=f"--fraud is one of: {', '.join(sorted(words))}.",
        )
    texts = column.texts.tolist()
    fraud = np.array([text in same for text in texts])
    known = np.array([text is not None for text in texts])
    return Label(column.name, same[0], fraud, known, why, ask or question)


def _fraud_word(column: Column, words: list[str]) -> tuple[str, str]:
    """Return which value of a label is fraud, and what to ask where that is a guess.

    `words`: its values, the most frequent first.
    """
    if column.truths:
        numbers = sorted((float(word.lower() == "true"), word) for word in words)
    else:
        read = [(_as_number(word), word) for word in words]
        numbers = sorted((number, word) for number, word in read if number is not None)
        numbers = numbers if len(numbers) == len(words) else []
    if len(numbers) > 2:
        listed = ", ".join(word for _, word in numbers)
        last = numbers[-1][1]
        ask = (
            f"science: which {column.name!r} is fraud, of {listed}? Here: {last}. --fraud names it"
        )
        return last, ask
    if [number for number, _ in numbers] in ([0.0, 1.0], [-1.0, 1.0]):
        good = any(word in plain(column.name) for word in _GOOD_NAMES)
        return numbers[0 if good else 1][1], ""
    by_word = [word for word in words if plain(word) in _FRAUD_WORDS]
    if len(by_word) == 1:
        return by_word[0], ""
    return words[-1], f"science: does {words[-1]!r} mean fraud? It is the rarest {column.name!r}."


def _same_number(one: str, other: str) -> bool:
    number = _as_number(one)
    return number is not None and number == _as_number(other)


def _as_number(word: str) -> float | None:
    try:
        return float(word.replace(",", "."))
    except ValueError:
        return None
