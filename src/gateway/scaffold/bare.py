"""A bare `session.run`: feeds built straight from the data.

What is served goes through `gateway.model.Classifier`; its golden vectors come from here, so
that they hold one against the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.errors import ModelError
from gateway.model.inputs import Port
from gateway.model.session import first_line
from gateway.scaffold.columns import KINDS, Plan

COLUMNS_MAX = 64
"""Of an output with more columns (an embedding) only the first are looked at."""

_CELLS = 1 << 20
_ROWS = 4096
_FAILED_MAX = 100

Values = Sequence[NDArray[Any]]
"""An array (n,) for each column of the model: texts for an input of texts, else numbers."""

Given = dict[str, Any]
"""What each output gave for n rows: an array (n, columns), a list of n maps, or None where it
has not one for each row."""


@dataclass(frozen=True, slots=True)
class Bare:
    """A session, and how its inputs are laid out."""

    session: Any
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    plan: Plan
    subject: str

    @property
    def at_once(self) -> int:
        """How many rows a run takes, 0 where that is free."""
        return (self.plan.batch or 0) if self.plan.batched else 1

    def run(self, values: Values) -> Given:
        """Score n rows.

        A row on which the model fails is NaN, 0 or None, or an empty map.

        Raises:
            ModelError: it fails on too many of them.
        """
        n = len(values[0])
        step = self.at_once or max(1, min(_ROWS, _CELLS // len(values)))
        runs: list[tuple[int, list[Any]]] = []
        failed = 0
        for start in range(0, n, step):
            rows = np.arange(start, min(start + step, n))
            try:
                runs.append((len(rows), self._once(values, rows)))
            except Exception:  # ONNX Runtime raises its own, unrelated classes
                for row in rows[:, None]:
                    try:
                        runs.append((1, self._once(values, row)))
                    except Exception as error:
                        failed += 1
                        if failed > _FAILED_MAX:
                            raise _fails(error, self.subject) from None
                        runs.append((1, [None] * len(self.outputs)))
        return {
            port.name: _joined([(count, given[i]) for count, given in runs])
            for i, port in enumerate(self.outputs)
        }

    def _once(self, values: Values, rows: NDArray[np.intp]) -> list[Any]:
        count = len(rows)
        # A fixed batch is filled up with its last row.
        rows = rows[np.minimum(np.arange(self.at_once or count), count - 1)]
        feed: dict[str, NDArray[Any]] = {}
        start = 0
        for port, tail in zip(self.inputs, self.plan.tails, strict=True):
            width = prod(tail)
            part = np.empty((len(rows), width), dtype=KINDS[port.type])
            for i in range(width):
                with np.errstate(over="ignore", invalid="ignore"):  # inf is what it is fed, then
                    part[:, i] = values[start + i][rows]
            start += width
            feed[port.name] = part.reshape((len(rows), *tail) if self.plan.batched else tail)
        given = self.session.run([port.name for port in self.outputs], feed)
        return [_by_row(one, count, len(rows)) for one in given]


def _by_row(given: Any, count: int, ran: int) -> Any:
    """Return the first `count` rows of an output of `ran`, or None where it has not as many."""
    if isinstance(given, list):
        return given[:count] if len(given) == ran else None
    array = np.asarray(given)
    if ran == 1 and (array.ndim == 0 or array.shape[0] != 1):
        array = array.reshape(1, -1)
    if array.ndim == 0 or array.shape[0] != ran:
        return None
    return array.reshape(ran, -1)[:count, :COLUMNS_MAX]


def _joined(runs: Sequence[tuple[int, Any]]) -> Any:
    """Join what one output gave in several runs of `count` rows."""
    there = [part for _, part in runs if part is not None]
    if not there:
        return None
    if isinstance(there[0], list):
        return [row for count, part in runs for row in part or [{}] * count]
    shapes = {part.shape[1:] for part in there}
    if len(shapes) > 1:
        return None
    (shape,), dtype = shapes, there[0].dtype
    blank = {"f": np.nan, "O": None}.get(dtype.kind, 0)
    return np.concatenate(
        [np.full((n, *shape), blank, dtype) if part is None else part for n, part in runs]
    )


def _fails(error: Exception, subject: str) -> ModelError:
    return ModelError(
        f"it fails on rows of the data: {first_line(error)}",
        subject=subject,
        hint="Check that the columns come in the model's order, and in its types: "
        "--features a,b,c.",
    )
