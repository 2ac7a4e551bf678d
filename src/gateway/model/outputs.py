"""From what an ONNX model gave to a score a row. Pure, but for NumPy.

A score is a column of a matrix, the value under a key of a ZipMap, or, of labels, 1 where
the label is the named class. It is the model's number as it came: whether it is a
probability is the calibration's business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from gateway.errors import ModelError
from gateway.model.inputs import TEXT, Port

Output = tuple[str, int | str | None]
"""An output's name, and the column, class or key: as product.yaml's `Output`."""

Reader = Callable[[Any, int], list[float]]
"""(what the model gave for the output, n) -> n scores."""

_FLOATS = ("tensor(float)", "tensor(double)", "tensor(float16)")
_WHOLE = tuple(f"tensor({sign}int{bits})" for sign in ("", "u") for bits in (8, 16, 32, 64))
_LABELS = (*_WHOLE, "tensor(bool)", TEXT)
_MAPS = "seq(map("
_COLUMN = 'For a binary classifier the second column is P(fraud): "probabilities[1]".'


def is_label(port: Port) -> bool:
    """Return whether an output names classes instead of scoring them."""
    return port.type in _LABELS


def is_map(port: Port) -> bool:
    """Return whether an output is a map of class to score for each row (a ZipMap)."""
    return port.type.startswith(_MAPS)


def reader(ports: Sequence[Port], output: Output, subject: str) -> Reader:
    """Return what reads the scores out of the declared output.

    Raises:
        ModelError: there is no such output, or it holds no scores.
    """
    name, column = output
    port = next((port for port in ports if port.name == name), None)
    if port is None:
        raise ModelError(
            f"it has no output {name!r}",
            subject=subject,
            hint=f"Its outputs: {', '.join(sorted(port.name for port in ports))}.",
        )
    if is_map(port):
        return _of_maps(output, subject)
    if is_label(port) and column is not None:
        return _of_labels(output, subject)
    if port.type in _FLOATS or (is_label(port) and port.type != TEXT):
        return _of_matrix(output, subject)
    if port.type == TEXT:
        raise ModelError(
            f"output {name!r} is a class's name, and no class is named",
            subject=subject,
            hint=f'Name the class that is fraud: "{name}[fraud]".',
        )
    raise ModelError(
        f"output {name!r} is {port.type}, which holds no score a row",
        subject=subject,
        hint="Name an output of numbers, or of maps from class to probability.",
    )


def _of_matrix(output: Output, subject: str) -> Reader:
    name, column = output
    if isinstance(column, str) or (column is not None and column < 0):
        raise ModelError(
            f"output {name!r} is a matrix: {column!r} is no column of it",
            subject=subject,
            hint=_COLUMN,
        )

    def read(given: Any, n: int) -> list[float]:
        matrix = _rows(given, n, subject)
        classes = matrix.shape[1]
        if column is None and classes != 1:
            raise ModelError(
                f"output {name!r} has {classes} columns, and none of them is named",
                subject=subject,
                hint=_COLUMN,
            )
        if column is not None and column >= classes:
            raise ModelError(
                f"output {name!r} has {classes} column{'s' * (classes != 1)}, "
                f"there is no column {column}",
                subject=subject,
                hint=_COLUMN,
            )
        scores: list[float] = matrix[:, column or 0].astype(np.float64, copy=False).tolist()
        return scores

    return read


def _of_labels(output: Output, subject: str) -> Reader:
    name, wanted = output[0], str(output[1])

    def read(given: Any, n: int) -> list[float]:
        labels = _rows(given, n, subject)
        if labels.shape[1] != 1:
            raise ModelError(
                f"output {name!r} has {labels.shape[1]} classes a row, must have one",
                subject=subject,
            )
        return [1.0 if str(_number(label)) == wanted else 0.0 for label in labels[:, 0].tolist()]

    return read


def _number(label: Any) -> Any:
    if isinstance(label, bytes):
        return label.decode("utf-8", "replace")
    return int(label) if isinstance(label, bool) else label


def _of_maps(output: Output, subject: str) -> Reader:
    name, key = output
    keys = (key, str(key))

    def read(given: Any, n: int) -> list[float]:
        if not isinstance(given, Sequence) or len(given) != n:
            raise ModelError(f"{n} rows give no {n} maps", subject=subject)
        return [_under(keys, row) for row in given]

    def _under(keys: tuple[Any, str], row: Mapping[Any, float]) -> float:
        for one in keys:
            if one in row:
                return float(row[one])
        there = ", ".join(str(one) for one in list(row)[:10])
        if key is None:
            last = list(row)[-1] if row else 1
            raise ModelError(
                f"output {name!r} has a score for each of {there}, and none is named",
                subject=subject,
                hint=f'Name the class that is fraud: "{name}[{last}]".',
            )
        raise ModelError(
            f"output {name!r} has no class {key!r}",
            subject=subject,
            hint=f"Its classes: {there}.",
        )

    return read


def _rows(given: Any, n: int, subject: str) -> Any:
    """Return what was given as (n, columns). One row may come without its batch dimension."""
    array = np.asarray(given)
    if n == 1 and (array.ndim == 0 or array.shape[0] != 1):
        array = array.reshape(1, -1)
    if array.ndim == 0 or array.shape[0] != n:
        raise ModelError(
            f"{n} rows give an output of shape {list(array.shape)}, "
            f"must be [{n}] or [{n}, classes]",
            subject=subject,
        )
    return array.reshape(n, -1)
