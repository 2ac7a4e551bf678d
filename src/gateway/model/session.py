"""A classifier on ONNX Runtime: a matrix of features in, a score for each row out.

The seam for the rest of the ONNX world (sequence-of-maps outputs, string inputs, fixed
batch sizes, scores that are no probability) is `open_classifier`: it looks at the file
once and either gives a `Classifier` or says why it cannot.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.errors import ModelError
from gateway.model.runtime import InferenceSession, inference_session
from gateway.product import Output

_SCORES = ("tensor(float)", "tensor(double)", "tensor(float16)")

WARM_UP_BATCHES = (1, 2, 3, 4, 8, 16, 32, 64, 128)
WARM_UP_ROUNDS = 5

_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
}


@dataclass(frozen=True, slots=True)
class Classifier:
    """A loaded model.

    `score` maps float32 (n, features) to n scores; `score_one` one row's bytes, little-endian
    float32, to its score, without the fixed costs of a batch.
    """

    name: str
    version: str
    digest: str
    features: int
    score: Callable[[NDArray[np.float32]], list[float]]
    score_one: Callable[[bytes], float]

    def warm_up(self) -> None:
        """Run every batch size that the hall may form, so that no caller pays for the first."""
        for n in WARM_UP_BATCHES:
            batch = np.zeros((n, self.features), dtype=np.float32)
            for _ in range(WARM_UP_ROUNDS):
                self.score(batch)
                self.score_one(batch[0].tobytes())


def digest_of(model: bytes) -> str:
    """Return the sha256 of an ONNX file's bytes, in hex."""
    return hashlib.sha256(model).hexdigest()


def open_classifier(
    model: bytes, *, name: str, version: str, subject: str, output: Output, features: int
) -> Classifier:
    """Open the bytes of an ONNX file as a classifier of `features` columns.

    With several inputs, each takes the next columns in the declared order: as many as its
    second dimension says, or one. An output of one column needs no `output.column`.

    Raises:
        ModelError: no model, no such output, or inputs that the features do not fit.
    """
    try:
        session = inference_session(model)
    except Exception as error:  # ONNX Runtime raises its own, unrelated classes
        raise ModelError(
            f"ONNX Runtime cannot open it: {_first_line(error)}",
            subject=subject,
            hint="Check that the file is an ONNX model of standard operators.",
        ) from None
    columns = _columns(session.get_inputs(), features, subject)
    _expect_tensor(session.get_outputs(), output.name, subject)
    run, wanted, column = session.run, [output.name], output.column or 0
    only = columns[0].name if len(columns) == 1 and columns[0].dtype is np.float32 else None

    def raw(batch: NDArray[np.float32]) -> NDArray[Any]:
        feed: dict[str, Any]
        if only is not None:
            feed = {only: batch}
        else:
            feed = {c.name: batch[:, c.start : c.stop].astype(c.dtype) for c in columns}
        return run(wanted, feed)[0]  # type: ignore[no-any-return]

    _try_out(raw, features, output, subject)

    def score(batch: NDArray[np.float32]) -> list[float]:
        scores = raw(batch)
        picked: list[float] = (scores[:, column] if scores.ndim == 2 else scores).tolist()
        return picked

    def score_one(row: bytes) -> float:
        return score(np.frombuffer(row, dtype="<f4").reshape(1, features))[0]

    one = _bound_row(session, only, output.name, raw, features, column) if only else score_one
    return Classifier(name, version, digest_of(model), features, score, one)


@dataclass(frozen=True, slots=True)
class _Columns:
    name: str
    dtype: type
    start: int
    stop: int


def _columns(inputs: list[Any], features: int, subject: str) -> tuple[_Columns, ...]:
    columns: list[_Columns] = []
    start = 0
    for tensor in inputs:
        name, kind, shape = tensor.name, tensor.type, tensor.shape
        if kind not in _DTYPES:
            raise ModelError(
                f"input {name!r} is {kind}, which is not served yet",
                subject=subject,
                hint=f"Served inputs: {', '.join(sorted(_DTYPES))}.",
            )
        if len(shape) != 2 or (isinstance(shape[0], int) and shape[0] >= 0):
            raise ModelError(
                f"input {name!r} has shape {shape}, must be [batch, features] with a free batch",
                subject=subject,
                hint="Export the model with a dynamic first dimension.",
            )
        fixed = shape[1] if isinstance(shape[1], int) and shape[1] > 0 else None
        width = fixed or (features - start if len(inputs) == 1 else 1)
        columns.append(_Columns(name, _DTYPES[kind], start, start + width))
        start += width
    if start != features:
        raise ModelError(
            f"its inputs take {start} columns, but {features} features are declared",
            subject=subject,
            hint="features lists the model's inputs in order, one a column.",
        )
    return tuple(columns)


def _expect_tensor(outputs: list[Any], name: str, subject: str) -> None:
    kinds = {tensor.name: tensor.type for tensor in outputs}
    if name not in kinds:
        raise ModelError(
            f"it has no output {name!r}",
            subject=subject,
            hint=f"Its outputs: {', '.join(sorted(kinds))}.",
        )
    if kinds[name] not in _SCORES:
        raise ModelError(
            f"output {name!r} is {kinds[name]}, which is not served: a score is one of "
            f"{', '.join(_SCORES)}",
            subject=subject,
            hint="Name the probabilities, not the label; export with ZipMap off.",
        )


def _bound_row(
    session: InferenceSession,
    name: str,
    output: str,
    raw: Callable[[NDArray[np.float32]], NDArray[Any]],
    features: int,
    column: int,
) -> Callable[[bytes], float]:
    """Return the scorer of one row: input and output bound once, in place.

    `session.run` makes a dictionary, checks it and allocates its output; on one row of a
    hundred trees that costs as much as the trees.
    """
    row = np.zeros((1, features), dtype="<f4")
    scores = np.zeros_like(raw(row))
    binding = session.io_binding()
    binding.bind_input(name, "cpu", 0, row.dtype, row.shape, row.ctypes.data)
    binding.bind_output(output, "cpu", 0, scores.dtype, scores.shape, scores.ctypes.data)
    run, view, item = session.run_with_iobinding, memoryview(row.data).cast("B"), scores.item

    def score_one(features: bytes) -> float:
        view[:] = features
        run(binding)
        score: float = item(column)
        return score

    return score_one


def _try_out(
    raw: Callable[[NDArray[np.float32]], NDArray[Any]],
    features: int,
    output: Output,
    subject: str,
) -> None:
    """Run one row and two: what a file promises of its shapes is not always what it gives."""
    hint = 'For a binary classifier the second column is P(fraud): "probabilities[1]".'
    for n in (1, 2):
        try:
            scores = raw(np.zeros((n, features), dtype=np.float32))
        except Exception as error:
            raise ModelError(
                f"it fails on {n} row{'s' * (n > 1)} of zeros: {_first_line(error)}",
                subject=subject,
            ) from None
        if scores.ndim not in (1, 2) or scores.shape[0] != n:
            raise ModelError(
                f"{n} rows give an output of shape {list(scores.shape)}, "
                f"must be [{n}] or [{n}, classes]",
                subject=subject,
            )
        classes = scores.shape[1] if scores.ndim == 2 else 1
        if output.column is not None and (scores.ndim == 1 or output.column >= classes):
            raise ModelError(
                f"output {output.name!r} has {classes} column{'s' * (classes > 1)}, "
                f"there is no column {output.column}",
                subject=subject,
                hint=hint,
            )
        if output.column is None and classes > 1:
            raise ModelError(
                f"output {output.name!r} has {classes} columns, and none of them is named",
                subject=subject,
                hint=hint,
            )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
