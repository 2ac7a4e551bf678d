"""Which columns of a table the model's inputs take, and in which order. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import prod

import numpy as np

from gateway.errors import ModelError, UsageError
from gateway.model.inputs import TEXT, Port, expect_batch_first
from gateway.model.reading import Reading, Width
from gateway.scaffold.label import Label
from gateway.scaffold.names import is_id, is_time, listed, named, plain, tells, unique
from gateway.scaffold.names import without_export as bare_name
from gateway.scaffold.table import Column, Table

KINDS: Mapping[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(bool)": np.bool_,
    **{
        f"tensor({sign}int{bits})": np.dtype(f"{sign}int{bits}").type
        for sign in ("", "u")
        for bits in (8, 16, 32, 64)
    },
    TEXT: np.object_,
}
"""What a bare session is fed, by the type of the input."""

REPEAT_FROM = 41
"""So many nameless columns of one input are one feature that repeats."""

_ENCODED_MAX = 1000
"""Texts of a column that may have been encoded before the model."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A column of the model: column `index` of input `port`, and the table's column, if any."""

    port: int
    index: int
    name: str
    source: str | None


@dataclass(frozen=True, slots=True)
class Plan:
    """The model's columns in order.

    `tails`: of each input, its dimensions behind the batch. `batch`: how many rows a run takes,
    None for any; `batched` is False where a row has no dimension for it. `by_name`: somebody
    named the columns. `left_out` are the table's that it does not take. `why` is the evidence.
    """

    slots: tuple[Slot, ...]
    tails: tuple[tuple[int, ...], ...]
    batch: int | None
    batched: bool
    by_name: bool
    left_out: tuple[str, ...]
    why: str


@dataclass(frozen=True, slots=True)
class _Need:
    """What one input takes: `width` columns, or any multiple of `unit` from `least` on."""

    port: Port
    width: int | None
    unit: int
    least: int
    dims: tuple[int | None, ...]

    def fits(self, count: int) -> bool:
        if self.width is not None:
            return count == self.width
        return count >= max(self.least, 1) and count % self.unit == 0

    def tail(self, count: int) -> tuple[int, ...]:
        return tuple(count // self.unit if dim is None else dim for dim in self.dims)


@dataclass(frozen=True, slots=True)
class _Needs:
    """What all inputs take, and how many rows at once."""

    each: tuple[_Need, ...]
    batch: int | None
    batched: bool

    def plan(
        self,
        names: Sequence[Sequence[str]],
        why: str,
        *,
        table: Sequence[str] | None = None,
        by_name: bool = True,
    ) -> Plan:
        """Return the plan in which each input takes the columns of these names.

        `table`: the names of the table's columns, None without one.
        """
        pairs = [(i, j, name) for i, part in enumerate(names) for j, name in enumerate(part)]
        safe = unique([name for _, _, name in pairs])
        used = {name for _, _, name in pairs}
        return Plan(
            slots=tuple(
                Slot(i, j, feature, None if table is None else name)
                for (i, j, name), feature in zip(pairs, safe, strict=True)
            ),
            tails=tuple(n.tail(len(part)) for n, part in zip(self.each, names, strict=True)),
            batch=self.batch,
            batched=self.batched,
            by_name=by_name,
            left_out=tuple(name for name in table or () if name not in used),
            why=why,
        )


def plan_with(
    table: Table,
    ports: Sequence[Port],
    read: Reading,
    *,
    label: Label | None,
    features: Sequence[str] = (),
    subject: str,
) -> Plan:
    """Lay a table's columns over the model's inputs.

    `features` names the columns in the model's order, A..B for all from A to B; else they are
    found by names that the file holds, by the inputs' names, and last by how many there are.

    Raises:
        UsageError: it cannot be told which columns feed the model.
        ModelError: an input cannot be fed, whatever the columns.
    """
    needs = _needs(ports, read, subject)
    columns = [name for name in table.columns if label is None or name != label.name]
    if features:
        chosen = [name for word in features for name in _between(word, table)]
        dealt = _dealt(needs.each, chosen)
        if dealt is None:
            raise UsageError(
                f"--features names {len(chosen)} columns, but the model takes {_said(needs.each)}",
                subject=table.path,
                hint="Name as many as it takes, in its order: --features a,b,c or A..B.",
            )
        return needs.plan(dealt, "as --features names them", table=columns)
    by_name = {plain(name): name for name in columns}
    if read.names and all(plain(name) in by_name for name in read.names):
        dealt = _dealt(needs.each, [by_name[plain(name)] for name in read.names])
        if dealt is not None:
            return needs.plan(dealt, "by the names in the model's file", table=columns)
    found, why = _by_inputs(table, needs.each, columns, label)
    if found is None:
        raise _cannot_tell(table, needs.each, columns, label)
    return needs.plan(found, why, table=columns)


def plan_without(ports: Sequence[Port], read: Reading, subject: str) -> Plan:
    """Name the model's columns by names in its file, by its inputs', or f0, f1, ...

    Raises:
        UsageError: an input does not say how many columns it takes.
        ModelError: an input cannot be fed, whatever the columns.
    """
    needs = _needs(ports, read, subject)
    dealt = _dealt(needs.each, read.names) if read.names else None
    if dealt is not None:
        return needs.plan(dealt, "by the names in the model's file")
    names: list[list[str]] = []
    for need in needs.each:
        count = need.least if need.width is None else need.width
        if not need.fits(count):
            raise UsageError(
                f"input {need.port.name!r} has shape {said_shape(need.port)}, and its graph does "
                "not say how many columns it takes",
                subject=subject,
                hint="Give a table with those columns: --data FILE.csv.",
            )
        name = bare_name(need.port.name)
        prefix = "f" if len(needs.each) == 1 else f"{name}_"
        names.append([name] if count == 1 else [f"{prefix}{i}" for i in range(count)])
    why = "by the inputs' names" if len(names) > 1 else "by the input's shape"
    return needs.plan(names, why, by_name=False)


def said_shape(port: Port) -> str:
    """Return an input's shape as text, ? where a dimension is free."""
    return f"[{', '.join(str(_fixed(dim) or '?') for dim in port.shape)}]"


# What the inputs take.


def _needs(ports: Sequence[Port], read: Reading, subject: str) -> _Needs:
    if not ports:
        raise ModelError("it has no inputs", subject=subject)
    for port in ports:
        if port.type not in KINDS:
            raise ModelError(
                f"input {port.name!r} is {port.type}, which cannot be fed",
                subject=subject,
                hint="Export it with inputs that are tensors of numbers, texts or truth values.",
            )
        expect_batch_first(port, subject)
    (first, *others) = ports
    if not others and len(first.shape) == 1 and _fixed(first.shape[0]) > 1:
        width = _fixed(first.shape[0])
        return _Needs((_Need(first, width, 1, width, (width,)),), None, batched=False)
    batches = {_fixed(port.shape[0]) for port in ports if port.shape} - {0}
    each = tuple(_need(port, read, subject) for port in ports)
    return _Needs(each, min(batches, default=None), batched=True)


def _need(port: Port, read: Reading, subject: str) -> _Need:
    dims = tuple(_fixed(dim) or None for dim in port.shape[1:]) if port.shape else (None,)
    unit = prod(dim for dim in dims if dim is not None)
    if dims.count(None) > 1:
        raise ModelError(
            f"input {port.name!r} has shape {said_shape(port)}: "
            "more than the batch and one other dimension is free",
            subject=subject,
            hint="Export it with fixed dimensions; only the first, the batch, is free.",
        )
    if None not in dims:
        return _Need(port, unit, 1, unit, dims)
    known = read.widths.get(port.name, Width(0, exact=False))
    exact = known.exact and known.columns % unit == 0
    return _Need(port, known.columns if exact else None, unit, known.columns, dims)


def _fixed(dim: int | str | None) -> int:
    return dim if isinstance(dim, int) and dim > 0 else 0


def _dealt(needs: Sequence[_Need], names: Sequence[str]) -> list[list[str]] | None:
    """Deal names to the inputs in order; None where they are too few or too many."""
    counts = [need.width or 0 for need in needs]
    free = [i for i, need in enumerate(needs) if need.width is None]
    left = len(names) - sum(counts)
    if len(free) == 1 and needs[free[0]].fits(left):
        counts[free[0]] = left
    elif free or left:
        return None
    ends = np.cumsum(counts).tolist()
    return [list(names[end - count : end]) for end, count in zip(ends, counts, strict=True)]


# Whose column it is.


def _between(word: str, table: Table) -> list[str]:
    """Return the column of a name, or for A..B all from A to B in the table's order."""
    first, dots, last = word.partition("..")
    if word in table.columns or not dots:
        return [named(word, table, "--features").name]
    names = list(table.columns)
    start, stop = (names.index(named(end, table, "--features").name) for end in (first, last))
    if start > stop:
        raise UsageError(
            f"column {last!r} stands before {first!r}",
            subject=table.path,
            hint=f"Turn it round: {last}..{first}.",
        )
    return names[start : stop + 1]


_SAME: tuple[Callable[[str], str], ...] = (
    str,
    str.casefold,
    lambda name: plain(bare_name(name)),
)
"""Names are the same as they are, without case, and without punctuation: the first that fits."""


def _by_inputs(
    table: Table, needs: Sequence[_Need], columns: Sequence[str], label: Label | None
) -> tuple[list[list[str]] | None, str]:
    """Return each input's columns by its name; the others' in the table's order, by their count."""
    found: dict[int, list[str]] = {}
    left = list(columns)
    for same in _SAME:
        for i, need in enumerate(needs):
            ours = [name for name in left if same(name) == same(need.port.name)]
            if i not in found and need.fits(1) and len(ours) == 1:
                found[i] = ours
                left.remove(ours[0])
    for i, need in enumerate(needs):
        ours = [name for name in left if _is_numbered(name, need.port.name)]
        if i not in found and len(ours) > 1 and need.fits(len(ours)):
            found[i] = ours
            left = [name for name in left if name not in ours]
    if len(found) == len(needs):
        return [found[i] for i in range(len(needs))], "by the inputs' names"
    others = [i for i in range(len(needs)) if i not in found]
    if found and any(needs[i].width == 1 for i in others):
        return None, ""  # a column is missing rather than named otherwise
    picked = _by_count(table, [needs[i] for i in others], left, label)
    if picked is None:
        return None, ""
    parts = found | dict(zip(others, picked, strict=True))
    why = "in the table's order, by their count"
    return [parts[i] for i in range(len(needs))], (
        f"by the inputs' names, and the others {why}" if found else why
    )


def _is_numbered(name: str, port: str) -> bool:
    """Return whether a column is an input's with a number behind it: history_0, history[1]."""
    return bool(re.fullmatch(re.escape(plain(bare_name(port))) + r"\d+", plain(name)))


def _by_count(
    table: Table, needs: Sequence[_Need], left: Sequence[str], label: Label | None
) -> list[list[str]] | None:
    """Return the columns of each input, in the table's order; None where they do not fit.

    Where there are inputs of texts and of numbers, columns of texts go to those of texts.
    """
    numeric = [name for name in left if table.columns[name].numbers is not None]
    of_texts = [need for need in needs if need.port.type == TEXT]
    if of_texts and len(of_texts) < len(needs):
        of_numbers = [need for need in needs if need.port.type != TEXT]
        words = [name for name in left if name not in numeric]
        for_texts = _by_count(table, of_texts, words, label)
        for_numbers = _by_count(table, of_numbers, numeric, label)
        if for_texts is None or for_numbers is None:
            return None
        return [(for_texts if need.port.type == TEXT else for_numbers).pop(0) for need in needs]
    if of_texts:
        return _fitting(table, needs, left, label)
    fitting = _fitting(table, needs, numeric, label) or _family(needs, numeric)
    if fitting is None and len(numeric) < len(left):
        # Some encode texts before the model: to it they are numbers.
        encoded = [name for name in left if name in numeric or _encodable(table.columns[name])]
        fitting = _fitting(table, needs, encoded, label)
    return fitting


def _encodable(column: Column) -> bool:
    return not is_id(column) and not is_time(column) and 2 <= column.count <= _ENCODED_MAX


def _fitting(
    table: Table, needs: Sequence[_Need], names: Sequence[str], label: Label | None
) -> list[list[str]] | None:
    """Return the columns that the inputs take: all, or all but ids, times and the like.

    As few kinds are left out as need be; where the inputs do not say how many columns they
    take, as many.
    """
    columns = [table.columns[name] for name in names]
    open_width = any(need.width is None for need in needs)
    kinds = (
        {column.name for column in columns if is_id(column)},
        {column.name for column in columns if label is not None and tells(column.name, label.name)},
        {column.name for column in columns if is_time(column)},
        {column.name for column in columns if column.count < 2 and not open_width},
    )
    suspects = [kind for kind in kinds if kind]
    for count in sorted(range(len(suspects) + 1), reverse=open_width):
        for without in combinations(suspects, count):
            kept = [name for name in names if not any(name in kind for kind in without)]
            dealt = _dealt(needs, kept)
            if dealt is not None:
                return dealt
    return None


def _family(needs: Sequence[_Need], names: Sequence[str]) -> list[list[str]] | None:
    """Return the columns of one name and a running number (V1, V2, ...) that are as many."""
    if any(need.width is None for need in needs):
        return None
    families: dict[str, list[str]] = {}
    for name in names:
        if found := re.fullmatch(r"(.*?)\d+", name):
            families.setdefault(found[1], []).append(name)
    fitting = [_dealt(needs, family) for family in families.values() if len(family) > 1]
    there = [dealt for dealt in fitting if dealt is not None]
    return there[0] if len(there) == 1 else None


def _cannot_tell(
    table: Table, needs: Sequence[_Need], columns: Sequence[str], label: Label | None
) -> UsageError:
    numbers = [name for name in columns if table.columns[name].numbers is not None]
    texts = [name for name in columns if name not in numbers]
    alone = [need.port.name for need in needs if need.width == 1]
    absent = [name for name in alone if plain(bare_name(name)) not in map(plain, columns)]
    known = len(needs) > 1 and absent
    none_for = f": there is none for {listed(map(repr, absent))}" if known else ""
    lines = [
        f"it cannot be told which of its columns feed the model{none_for}",
        f"  the model takes {_said(needs)}",
        f"  the data have {len(numbers)} columns of numbers: {listed(numbers)}",
    ]
    if texts:
        lines.append(f"  and {len(texts)} of texts: {listed(texts)}")
    if label is not None:
        lines.append(f"  besides the label, {label.name!r}")
    missing = "" if label is not None else " If one is the label, name it: --label NAME."
    return UsageError(
        "\n".join(lines),
        subject=table.path,
        hint=f"Name the columns in the model's order: --features a,b,c or A..B.{missing} "
        "Or leave --data out: then the model's file alone is read.",
    )


def _said(needs: Sequence[_Need]) -> str:
    shown = [
        f"{need.port.name!r} {said_shape(need.port)} of {need.port.type[7:-1]}"
        for need in needs[:10]
    ]
    more = f" and {len(needs) - 10} inputs more" if len(needs) > 10 else ""
    known = sum(need.width or need.least for need in needs)
    count = f"{known} columns"
    if any(need.width is None for need in needs):
        count = f"at least {known} columns" if known else "columns"
    return f"{count}: {', '.join(shown)}{more}"
