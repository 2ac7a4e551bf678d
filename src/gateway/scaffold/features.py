"""What `features` says of each column of the model: type, range, texts, defaults. Pure.

The promise of a range is to refuse nonsense, not what is merely rare: it goes ten times as
far as the data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.errors import UsageError
from gateway.model.inputs import TEXT, Port
from gateway.model.reading import Reading
from gateway.product import UNSEEN, UNSEEN_TEXT
from gateway.scaffold.columns import KINDS, REPEAT_FROM, Plan, Slot
from gateway.scaffold.table import Column, Table

VALUES_MAX = 1000
"""Texts of one category."""

NAMED_MAX = 2000
"""More features than these do not fit a message by name."""

LISTED_MAX = 6000
"""More features than these do not fit a product.yaml by name: it has at most 20,000 values."""

_ALL_VALUES_MAX = 17_000
_VALUES_A_FEATURE = 8
_CHARACTERS_MAX = 500_000
"""Of all texts together: a product.yaml has at most 1 MiB."""

_WHOLE_FROM = 50
"""So many whole numbers, and no other, are a column of whole numbers."""

_HEADROOM = 10.0
_TEXT_MAX = 100
_RESERVED = ("refuse", "nan", UNSEEN, UNSEEN_TEXT)

Floats = NDArray[np.float64]
Kind = Literal["float", "int", "bool", "category"]
Default = str | float | bool


@dataclass(frozen=True, slots=True)
class Draft:
    """One entry of `features`, with the comment behind it and what it asks.

    `columns`: how many columns of the model it stands for. `reads_text`: a category whose texts
    go to the model; else their index does.
    """

    name: str
    type: Kind
    min: float | None = None
    max: float | None = None
    values: tuple[str, ...] = ()
    missing: Default = "refuse"
    unknown: str = "refuse"
    reference: Default | None = None
    columns: int = 1
    reads_text: bool = False
    note: str = ""
    ask: str = ""


def of_table(
    table: Table, plan: Plan, ports: Sequence[Port], read: Reading
) -> tuple[tuple[Draft, ...], list[NDArray[Any]]]:
    """Return a draft for each column, and the column's values: NaN or None where one is missing.

    Raises:
        UsageError: a column of texts where a number is needed, or without a text to be listed.
    """
    room = _room(plan, table)
    drafts: list[Draft] = []
    values: list[NDArray[Any]] = []
    for slot in plan.slots:
        column, port = table.columns[str(slot.source)], ports[slot.port]
        draft, given = _of_column(slot, column, port.type, table, room)
        rows = read.rows.get((port.name, slot.index))
        if rows is not None and draft.max is not None:
            draft = replace(draft, min=0.0, max=min(draft.max, float(rows - 1)))
        if column.name != draft.name:
            draft = replace(draft, note=_also(f"the data's {_shown(column.name)}", draft.note))
        drafts.append(draft)
        values.append(given)
    if len(drafts) > LISTED_MAX and not any(draft.values for draft in drafts):
        drafts = _repeated(drafts, plan)
    return tuple(drafts), values


class _Room(NamedTuple):
    """How many texts one category may list, and how many characters together."""

    texts: int
    characters: int


def _room(plan: Plan, table: Table) -> _Room:
    columns = [table.columns[str(slot.source)] for slot in plan.slots]
    categories = max(1, sum(column.numbers is None for column in columns))
    left = _ALL_VALUES_MAX - _VALUES_A_FEATURE * len(columns)
    return _Room(
        max(1, min(VALUES_MAX, left // categories)), max(_TEXT_MAX, _CHARACTERS_MAX // categories)
    )


def _repeated(drafts: Sequence[Draft], plan: Plan) -> list[Draft]:
    """Return one draft for all columns of an input: what is too much to be listed."""
    merged: list[Draft] = []
    start = 0
    for i, tail in enumerate(plan.tails):
        width = math.prod(tail)
        part = drafts[start : start + width]
        start += width
        kinds = {draft.type for draft in part}
        only = kinds.pop() if len(kinds) == 1 else "float"
        note = f"{part[0].name} to {part[-1].name} of the data, in its order"
        merged.append(Draft(f"f{i}", only, columns=width, note=note) if width > 1 else part[0])
    return merged


def _of_column(
    slot: Slot, column: Column, port: str, table: Table, room: _Room
) -> tuple[Draft, NDArray[Any]]:
    if port == TEXT:
        return _of_texts(slot.name, column, table, room)
    numbers = column.numbers
    if numbers is None:
        return _encoded_outside(slot.name, column, port, table, room)
    numbers = np.where(np.isinf(numbers), np.nan, numbers)
    there = numbers[~np.isnan(numbers)]
    if not len(there):
        draft = replace(_by_type(slot.name, port), note="no values in the data")
        usual = False if draft.type == "bool" else 0.0
        ask = "science: what stands for a missing value here? The data have no other."
        return replace(draft, missing=usual, ask=ask), numbers
    if port == "tensor(bool)" or column.truths:
        draft = Draft(slot.name, "bool", reference=bool(2 * (there != 0).sum() > len(there)))
        numbers = np.where(np.isnan(numbers), np.nan, numbers != 0)
    else:
        draft = _of_numbers(slot.name, there, port)
    gone = 1 - len(there) / len(numbers)
    if gone and draft.reference is not None:
        note = _also(draft.note, f"{_percent(gone)} missing")
        draft = replace(draft, missing=draft.reference, note=note)
    return draft, numbers


def _of_numbers(name: str, there: Floats, port: str) -> Draft:
    integral = not np.issubdtype(KINDS[port], np.floating)
    whole = bool((there == np.rint(there)).all())
    is_int = integral or (whole and len(there) >= _WHOLE_FROM)
    # The lower median: one that stands in the data, also of whole numbers.
    usual = float(np.sort(there)[(len(there) - 1) // 2])
    low, high = float(there.min()), float(there.max())
    least, most = _range(low, high, port)
    usual = min(max(usual, least), most)
    return Draft(
        name,
        "int" if is_int else "float",
        min=least,
        max=most,
        reference=math.floor(usual) if is_int else usual,
        note=f"{said(low, 4)}..{said(high, 4)}",
        ask="science: the data has fractions here, does the model take whole numbers?"
        if integral and not whole
        else "",
    )


def _range(low: float, high: float, port: str) -> tuple[float, float]:
    """Return min and max with headroom, inside what the input can hold."""
    largest = nice(_HEADROOM * max(abs(low), abs(high))) or 1.0
    least = 0.0 if low >= 0 else -largest
    kind = np.dtype(KINDS[port])
    if kind.kind == "f":
        bound = float(np.finfo(kind).max)
        return max(least, -bound), min(largest, bound)
    bits = 8 * kind.itemsize
    floor, ceiling = (0, 2**bits - 1) if kind.kind == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1))
    return max(least, float(floor)), min(largest, float(ceiling - (kind.kind == "i")))


def _of_texts(name: str, column: Column, table: Table, room: _Room) -> tuple[Draft, NDArray[Any]]:
    """Return a category whose texts go to the model as they are."""
    usable = [text for text, _ in column.distinct if _declarable(text)]
    lengths = np.cumsum([len(text) for text in usable])
    kept = tuple(usable[: min(room.texts, int(np.searchsorted(lengths, room.characters)))])
    if not kept:
        raise UsageError(
            f"column {column.name!r} has no text that product.yaml can list: 1 to {_TEXT_MAX} "
            f"characters, and not {', '.join(_RESERVED[:3])}",
            subject=table.path,
        )
    note = f"{len(column.distinct)} texts in the data"
    if len(kept) < len(column.distinct):
        note += f", the {len(kept)} most frequent that can be listed"
    texts = column.texts
    gone = sum(text is None for text in texts.tolist()) / len(texts)
    if gone:
        note += f"; {_percent(gone)} missing"
    draft = Draft(
        name,
        "category",
        values=kept,
        missing=kept[0] if gone else "refuse",
        unknown=UNSEEN,
        reference=kept[0],
        reads_text=True,
        note=note,
    )
    return draft, texts


def _encoded_outside(
    name: str, column: Column, port: str, table: Table, room: _Room
) -> tuple[Draft, NDArray[Any]]:
    """Return a category that the model takes as an index: whoever trained it encoded the texts."""
    usable = sorted(text for text, _ in column.distinct if _declarable(text))
    if port == "tensor(bool)" or len(usable) != len(column.distinct) or len(usable) > room.texts:
        raise UsageError(
            f"column {column.name!r} feeds an input of numbers, but has texts",
            subject=table.path,
            hint="Give the table as the model was trained on it, its texts already encoded.",
        )
    codes: dict[str | None, float] = {text: float(code) for code, text in enumerate(usable)}
    numbers = np.array([codes.get(text, math.nan) for text in column.texts.tolist()])
    usual, gone = column.distinct[0][0], float(np.isnan(numbers).mean())
    draft = Draft(
        name,
        "category",
        values=tuple(usable),
        missing=usual if gone else "refuse",
        reference=usual,
        note=f"{_percent(gone)} missing" if gone else "",
        ask="science: which number did each text have in training? Here: by the alphabet, from 0.",
    )
    return draft, numbers


def without_table(
    plan: Plan, ports: Sequence[Port], read: Reading, subject: str
) -> tuple[Draft, ...]:
    """Return drafts from what the graph says alone. Nameless columns of an input may repeat.

    Raises:
        UsageError: an input takes texts, and the graph does not say which.
    """
    drafts: list[Draft] = []
    start = 0
    for i, (port, tail) in enumerate(zip(ports, plan.tails, strict=True)):
        width = math.prod(tail)
        slots = plan.slots[start : start + width]
        start += width
        if width >= REPEAT_FROM and not plan.by_name and port.type != TEXT:
            name = "f" if len(ports) == 1 else slots[0].name.rpartition("_")[0] or f"f{i}"
            drafts.append(replace(_by_type(name, port.type), columns=width))
        else:
            drafts += (_by_graph(slot, port, read, subject) for slot in slots)
    return tuple(drafts)


def _by_graph(slot: Slot, port: Port, read: Reading, subject: str) -> Draft:
    place = port.name, slot.index
    if port.type != TEXT:
        draft = _by_type(slot.name, port.type)
        if draft.type != "bool" and place in read.rows:
            high = float(read.rows[place] - 1)
            return replace(draft, min=0.0, max=high, note="rows of the table it is looked up in")
        return draft
    usable = tuple(text for text in read.categories.get(place, ()) if _declarable(text))
    if not usable:
        raise UsageError(
            f"input {port.name!r} takes texts, and its graph does not list them",
            subject=subject,
            hint="Give a table that has them: --data FILE.csv.",
        )
    return Draft(
        slot.name,
        "category",
        values=usable[:VALUES_MAX],
        unknown=UNSEEN,
        reference=usable[0],
        reads_text=True,
        note="texts of the model's own encoder",
    )


def _by_type(name: str, port: str) -> Draft:
    if port == "tensor(bool)":
        return Draft(name, "bool")
    return Draft(name, "float" if np.dtype(KINDS[port]).kind == "f" else "int")


def drawn(drafts: Sequence[Draft], n: int) -> list[NDArray[Any]]:
    """Return n values for each column, where there is no data. The same drafts, the same values."""
    draw = np.random.default_rng(0)
    values: list[NDArray[Any]] = []
    for draft in columns_of(drafts):
        if draft.type == "category":
            codes = draw.integers(0, len(draft.values), n)
            texts = np.array(draft.values, dtype=np.object_)[codes]
            values.append(texts if draft.reads_text else codes.astype(np.float64))
        elif draft.type == "bool":
            values.append(draw.integers(0, 2, n).astype(np.float64))
        elif draft.type == "int":
            most = 19 if draft.max is None else int(draft.max)
            values.append(draw.integers(0, most, n, endpoint=True).astype(np.float64))
        else:
            values.append(np.round(draw.normal(0.0, 2.0, n), 3))
    return values


def columns_of(drafts: Sequence[Draft]) -> list[Draft]:
    """Return a draft for each column."""
    return [draft for draft in drafts for _ in range(draft.columns)]


def filled(drafts: Sequence[Draft], values: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """Return the values with each missing one as the draft's default, where it has one."""
    whole: list[NDArray[Any]] = []
    for draft, given in zip(columns_of(drafts), values, strict=True):
        if draft.missing == "refuse":
            whole.append(given)
        elif draft.reads_text:
            default = draft.missing
            texts = [default if text is None else text for text in given.tolist()]
            whole.append(np.array(texts, dtype=np.object_))
        else:
            number = draft.missing
            if draft.type == "category":
                number = draft.values.index(str(number))
            whole.append(np.where(np.isnan(given), float(number), given))
    return whole


def rows_of(drafts: Sequence[Draft], values: Sequence[NDArray[Any]]) -> Floats:
    """Return rows as the product has them, (n, columns): a text is its index, -1 where unlisted."""
    rows = np.empty((len(values[0]), len(values)))
    for i, (draft, given) in enumerate(zip(columns_of(drafts), values, strict=True)):
        if draft.reads_text:
            codes = {text: code for code, text in enumerate(draft.values)}
            rows[:, i] = [codes.get(text, -1) for text in given.tolist()]
        else:
            rows[:, i] = given
    return rows


def keeps_rules(drafts: Sequence[Draft], rows: Floats) -> NDArray[np.bool_]:
    """Return which rows (n, columns) could be sent as they are: (n,)."""
    kept = np.ones(len(rows), dtype=np.bool_)
    for draft, column in zip(columns_of(drafts), rows.T, strict=True):
        gone = np.isnan(column)
        kept &= gone <= (draft.missing != draft.missing)
        if draft.type == "category":
            kept &= ~(column < 0)
        elif draft.type == "int":
            kept &= gone | (column == np.rint(column))
        if draft.min is not None and draft.max is not None:
            kept &= gone | ((draft.min <= column) & (column <= draft.max))
    return kept


def nice(value: float) -> float:
    """Return the least of 1, 2 or 5 times a power of ten that is not below `value`; 0 for 0."""
    if value <= 0 or not math.isfinite(value):
        return 0.0
    power = math.floor(math.log10(value))
    steps = (
        float(f"{digit}e{tens}") for tens in (power - 1, power, power + 1) for digit in (1, 2, 5)
    )
    return next(step for step in steps if step >= value)


def said(value: float, digits: int = 6) -> str:
    """Return a number as text: whole up to a million, else of at most so many digits."""
    if abs(value) < 1e6 and value == int(value):
        return str(int(value))
    return f"{value:.{digits}g}".replace("e+0", "e").replace("e+", "e").replace("e-0", "e-")


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"


def _declarable(text: str) -> bool:
    return 0 < len(text) <= _TEXT_MAX and text not in _RESERVED


def _shown(name: str) -> str:
    shown = name if len(name) <= 60 else f"{name[:57]}..."
    return repr(shown) if shown.isprintable() else ascii(shown)


def _also(one: str, other: str) -> str:
    return "; ".join(part for part in (one, other) if part)
