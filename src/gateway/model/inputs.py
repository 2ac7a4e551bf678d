"""From rows of columns to what an ONNX model wants to be fed. Pure, but for NumPy.

A row has one number a column, in the declared order: float32, or float64 where an input
takes more precision than that. Each input takes the next columns, as many as its shape
says; a column of texts stands in the row as the index of its text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.errors import ModelError

Column = tuple[str, ...] | None
"""The texts of a category, by index; None for a column of numbers."""

Rows = NDArray[np.floating[Any]]
"""(n, columns), of `Feeds.dtype`."""

TEXT = "tensor(string)"
_DTYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int16)": np.int16,
    "tensor(int8)": np.int8,
    "tensor(uint64)": np.uint64,
    "tensor(uint32)": np.uint32,
    "tensor(uint16)": np.uint16,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
    TEXT: np.object_,
}
_WIDE = (np.float64, np.int64, np.int32, np.uint64, np.uint32)
"""float32 holds whole numbers to 2^24 only, and no double."""


class Port(NamedTuple):
    """An input or output as ONNX Runtime says it: dimensions are numbers, names or None."""

    name: str
    type: str
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True, slots=True)
class Feed:
    """One input: the columns start..stop of each row, as `dtype`, in the shape (n, *tail).

    `texts`: for an input of texts, those of each of its columns.
    """

    name: str
    dtype: type[np.generic]
    start: int
    stop: int
    tail: tuple[int, ...]
    texts: tuple[NDArray[np.object_], ...] = ()

    def of(self, rows: Rows) -> NDArray[Any]:
        """Return this input's array of n rows."""
        part: NDArray[Any] = rows[:, self.start : self.stop]
        if self.texts:
            codes = part.astype(np.intp)
            part = np.empty(codes.shape, dtype=np.object_)
            for i, texts in enumerate(self.texts):
                part[:, i] = texts[codes[:, i]]
        else:
            part = part.astype(self.dtype, copy=False)
        return part.reshape(len(rows), *self.tail)


@dataclass(frozen=True, slots=True)
class Feeds:
    """All inputs of a model.

    `batch` is how many rows it takes at once, None for any number; `batched` is False where
    its only input has no dimension for the batch. `dtype` is that of the rows.
    """

    inputs: tuple[Feed, ...]
    columns: int
    batch: int | None
    batched: bool
    dtype: np.dtype[Any]

    def of(self, rows: Rows) -> dict[str, NDArray[Any]]:
        """Return the arrays of n rows, by input; n is `batch` where that is fixed."""
        if not self.batched:
            (feed,) = self.inputs
            return {feed.name: feed.of(rows).reshape(feed.tail)}
        return {feed.name: feed.of(rows) for feed in self.inputs}


def plan_feeds(ports: Sequence[Port], columns: Sequence[Column], subject: str) -> Feeds:
    """Lay the columns out over a model's inputs.

    Raises:
        ModelError: an input that cannot be fed, or more or fewer columns than the inputs take.
    """
    if not ports:
        raise ModelError("it has no inputs", subject=subject)
    for port in ports:
        if port.type not in _DTYPES:
            raise ModelError(
                f"input {port.name!r} is {port.type}, which cannot be fed",
                subject=subject,
                hint=f"Inputs that can be fed: {', '.join(_DTYPES)}.",
            )
    for port in ports:
        expect_batch_first(port, subject)
    batch, batched = _batch(ports, len(columns), subject)
    tails = [_tail(port, batched) for port in ports]
    widths = _widths(ports, tails, len(columns), subject)
    feeds: list[Feed] = []
    start = 0
    for port, tail, width in zip(ports, tails, widths, strict=True):
        stop = start + width
        shape = _solved(port, tail, width, subject)
        texts = _texts(port, columns, start, stop, subject)
        feeds.append(Feed(port.name, _DTYPES[port.type], start, stop, shape, texts))
        start = stop
    if start != len(columns):
        raise ModelError(
            f"its inputs take {start} columns, but {len(columns)} features are declared",
            subject=subject,
            hint=f"features lists them in this order: {_said(ports, widths)}.",
        )
    wide = any(feed.dtype in _WIDE for feed in feeds)
    dtype = np.dtype("<f8" if wide else "<f4")
    return Feeds(tuple(feeds), len(columns), batch, batched, dtype)


def expect_batch_first(port: Port, subject: str) -> None:
    """Refuse an input whose first dimension is fixed and whose second is free: [steps, batch, ...].

    Raises:
        ModelError: it is such an input.
    """
    if len(port.shape) > 1 and _fixed(port.shape[0]) and not _fixed(port.shape[1]):
        raise ModelError(
            f"input {port.name!r} has shape {_shape(port)}: its first dimension is fixed, and the "
            "second is free, as if the batch were not first",
            subject=subject,
            hint="Export the model with [batch, ...] first in every input (batch_first=True).",
        )


def _fixed(dim: int | str | None) -> bool:
    return isinstance(dim, int) and dim > 0


def _batch(ports: Sequence[Port], columns: int, subject: str) -> tuple[int | None, bool]:
    """Return how many rows a run takes, None for any, and whether inputs have a batch dimension."""
    if len(ports) == 1 and len(ports[0].shape) == 1:
        (dim,) = ports[0].shape
        if isinstance(dim, int) and dim > 0 and dim == columns:
            return 1, False
    fixed = {port.shape[0] for port in ports if port.shape and _fixed(port.shape[0])}
    if not fixed:
        return None, True
    free = [port.name for port in ports if not port.shape or not _fixed(port.shape[0])]
    if len(fixed) > 1 or free:
        first = ", ".join(f"{port.name!r} {list(port.shape)}" for port in ports)
        raise ModelError(
            f"its inputs do not share their first dimension, the batch: {first}",
            subject=subject,
            hint="Export the model with [batch, ...] first in every input.",
        )
    (batch,) = fixed
    assert isinstance(batch, int)
    return batch, True


def _tail(port: Port, batched: bool) -> tuple[int | None, ...]:
    """Return the dimensions behind the batch, None where they are free."""
    shape = port.shape[1:] if batched else port.shape
    if not port.shape:  # nothing is said of it: columns side by side, as most models have them
        return (None,)
    return tuple(dim if isinstance(dim, int) and dim > 0 else None for dim in shape)


def _widths(
    ports: Sequence[Port], tails: Sequence[tuple[int | None, ...]], columns: int, subject: str
) -> list[int]:
    """Return how many columns each input takes; one that is free takes what the others leave."""
    free = [i for i, tail in enumerate(tails) if None in tail]
    for i in free:
        if tails[i].count(None) > 1:
            raise ModelError(
                f"input {ports[i].name!r} has shape {_shape(ports[i])}: "
                "more than the batch and one other dimension is free",
                subject=subject,
                hint="Export the model with fixed dimensions; only the first, the batch, is free.",
            )
    taken = [prod(dim for dim in tail if dim is not None) for tail in tails]
    left = columns - sum(width for i, width in enumerate(taken) if i not in free)
    if len(free) == 1 and left > 0:
        taken[free[0]] = left
    return taken


def _solved(port: Port, tail: tuple[int | None, ...], width: int, subject: str) -> tuple[int, ...]:
    known = prod(dim for dim in tail if dim is not None)
    if width % known:
        raise ModelError(
            f"input {port.name!r} has shape {_shape(port)}, which {width} columns do not fill",
            subject=subject,
            hint=f"Declare a multiple of {known} features for it.",
        )
    return tuple(width // known if dim is None else dim for dim in tail)


def _texts(
    port: Port, columns: Sequence[Column], start: int, stop: int, subject: str
) -> tuple[NDArray[np.object_], ...]:
    if port.type != TEXT:
        return ()
    texts: list[NDArray[np.object_]] = []
    for i, column in enumerate(columns[start:stop], start):
        if column is None:
            raise ModelError(
                f"input {port.name!r} takes texts, but feature {i} (from 0) is a number",
                subject=subject,
                hint="Give the feature `type: category`, and its texts as `values`.",
            )
        texts.append(np.array(column, dtype=np.object_))
    return tuple(texts)


def _said(ports: Sequence[Port], widths: Sequence[int]) -> str:
    shown = [
        port.name if width == 1 else f"{width} of {port.name}"
        for port, width in zip(ports[:20], widths, strict=False)
    ]
    return ", ".join(shown) + (", ..." if len(ports) > len(shown) else "")


def _shape(port: Port) -> str:
    return f"[{', '.join('?' if dim is None else str(dim) for dim in port.shape)}]"
