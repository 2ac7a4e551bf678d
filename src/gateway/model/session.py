"""A classifier on ONNX Runtime: a matrix of columns in, a score for each row out."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.errors import ModelError
from gateway.model.inputs import Column, Feeds, Port, Rows, plan_feeds
from gateway.model.outputs import Output, Reader, reader
from gateway.model.runtime import InferenceSession, inference_session

WARM_UP_BATCHES = (1, 2, 3, 4, 8, 16, 32, 64, 128)
WARM_UP_ROUNDS = 5
WARM_UP_NS = 2_000_000_000
"""A heavy model has paid for its first runs long before its warm-up would be over."""

HEAVY_ROW_NS = 500_000
"""A model that takes longer for a row, as measured when it is loaded, runs beside the loop."""

Score = Callable[[Rows], list[float]]


@dataclass(frozen=True, slots=True)
class Session:
    """What a model takes and gives, as ONNX Runtime says it, and how to run it bare.

    `run` maps the names of outputs, and an array for each input, to what the model gives. It may
    be called on any thread; what it raises is ONNX Runtime's own, and may show values.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    run: Callable[[Sequence[str], Mapping[str, NDArray[Any]]], list[Any]]


@dataclass(frozen=True, slots=True)
class Classifier:
    """A loaded model. `example` is a row, as bytes, that it can score.

    `score` maps rows (n, columns) of `dtype` to n scores; `score_one` one row's bytes, little
    endian, to its score, without the fixed costs of a batch. `session` is the model under it.
    """

    name: str
    version: str
    digest: str
    feeds: Feeds
    score: Score
    score_one: Callable[[bytes], float]
    example: bytes
    session: Session

    @property
    def columns(self) -> int:
        """How many numbers a row has."""
        return self.feeds.columns

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of a row: float32, or float64 where an input needs its precision."""
        return self.feeds.dtype

    def taking(self, dtype: np.dtype[Any]) -> Classifier:
        """Return this classifier for rows of `dtype`, which is as precise as its own or more."""
        own, score, score_one = self.dtype, self.score, self.score_one
        if dtype == own:
            return self
        return replace(
            self,
            feeds=replace(self.feeds, dtype=dtype),
            score=lambda rows: score(rows.astype(own)),
            score_one=lambda row: score_one(np.frombuffer(row, dtype=dtype).astype(own).tobytes()),
            example=np.frombuffer(self.example, dtype=own).astype(dtype).tobytes(),
        )

    def warm_up(self, clock_ns: Callable[[], int]) -> dict[int, int]:
        """Run every batch size that the hall may form, so that no caller pays for the first.

        Returns what each took, in nanoseconds: the median of its runs but the first.
        """
        started_ns = clock_ns()
        took_ns: dict[int, int] = {}
        for n in WARM_UP_BATCHES:
            batch = np.frombuffer(self.example * n, dtype=self.dtype).reshape(n, self.columns)
            runs_ns: list[int] = []
            for _ in range(WARM_UP_ROUNDS):
                self.score_one(self.example)
                before_ns = clock_ns()
                self.score(batch)
                after_ns = clock_ns()
                runs_ns.append(after_ns - before_ns)
                took_ns[n] = int(median(runs_ns[1:] or runs_ns))
                if after_ns - started_ns > WARM_UP_NS:
                    return took_ns
        return took_ns

    def row_ns(self, clock_ns: Callable[[], int]) -> int:
        """Return what one row takes, in nanoseconds: the median of a few runs but the first."""
        times_ns = [clock_ns()]
        for _ in range(WARM_UP_ROUNDS):
            self.score_one(self.example)
            times_ns.append(clock_ns())
        return int(median(after - before for before, after in pairwise(times_ns[1:])))


def digest_of(model: bytes) -> str:
    """Return the sha256 of an ONNX file's bytes, in hex."""
    return hashlib.sha256(model).hexdigest()


def open_session(model: bytes | Path, subject: str) -> InferenceSession:
    """Open an ONNX file: its bytes, or where it is.

    By its path, ONNX Runtime does not hold the interpreter while it reads a large file.

    Raises:
        ModelError: ONNX Runtime cannot.
    """
    try:
        return inference_session(model)
    except Exception as error:  # ONNX Runtime raises its own, unrelated classes
        raise ModelError(
            f"ONNX Runtime cannot open it: {first_line(error)}",
            subject=subject,
            hint="Check that the file is an ONNX model of standard operators.",
        ) from None


def ports_in(session: InferenceSession) -> tuple[Port, ...]:
    """Return what a session is fed."""
    return tuple(Port(p.name, p.type, tuple(p.shape or ())) for p in session.get_inputs())


def ports_out(session: InferenceSession) -> tuple[Port, ...]:
    """Return what a session gives."""
    return tuple(Port(p.name, p.type, tuple(p.shape or ())) for p in session.get_outputs())


def classifier_on(
    session: InferenceSession,
    *,
    subject: str,
    output: Output,
    columns: Sequence[Column],
    example: Sequence[float] = (),
    name: str = "",
    version: str = "",
    digest: str = "",
) -> Classifier:
    """Return the classifier of rows of `columns` that scores on a session.

    `example`: a row that the model can score; where left out, zeros.

    Raises:
        ModelError: no such output, inputs that the columns do not fit, or it fails on the example.
    """
    feeds = plan_feeds(ports_in(session), columns, subject)
    read = reader(ports_out(session), output, subject)
    row = np.array([example or [0.0] * feeds.columns], dtype=feeds.dtype)
    try:
        given = session.run([output[0]], feeds.of(np.repeat(row, feeds.batch or 1, axis=0)))[0]
    except Exception as error:  # ONNX Runtime raises its own, unrelated classes
        raise ModelError(
            f"it fails on a row: {first_line(error)}",
            subject=subject,
            hint="Check that features are in the order, and of the types, of its inputs.",
        ) from None
    read(given, feeds.batch or 1)
    score = _scorer(session, feeds, output[0], read)
    score_one = _row_scorer(session, feeds, output, score, given)
    bare = Session(ports_in(session), ports_out(session), session.run)
    return Classifier(name, version, digest, feeds, score, score_one, row.tobytes(), bare)


def _scorer(session: InferenceSession, feeds: Feeds, output: str, read: Reader) -> Score:
    run, wanted, batch = session.run, [output], feeds.batch
    (only, *others), plain = feeds.inputs, np.dtype(np.float32)
    if batch is None and not others and only.dtype == plain and len(only.tail) == 1:
        name = only.name
        return lambda rows: read(run(wanted, {name: rows})[0], len(rows))
    if batch is None:
        return lambda rows: read(run(wanted, feeds.of(rows))[0], len(rows))

    def by_batches(rows: Rows) -> list[float]:
        scores: list[float] = []
        for start in range(0, len(rows), batch):
            part = rows[start : start + batch]
            # The last batch is filled up with its last row.
            full = part[np.minimum(np.arange(batch), len(part) - 1)]
            scores += read(run(wanted, feeds.of(full))[0], batch)[: len(part)]
        return scores

    return by_batches


def _row_scorer(
    session: InferenceSession, feeds: Feeds, output: Output, score: Score, given: Any
) -> Callable[[bytes], float]:
    """Return the scorer of one row, which skips what it can of a batch's fixed costs."""
    (only, *others) = feeds.inputs
    plain = not others and only.dtype is np.float32 and feeds.batch in (None, 1)
    if plain and isinstance(given, np.ndarray) and given.dtype.kind == "f":
        column = output[1] or 0
        assert isinstance(column, int)
        return _bound_row(session, feeds, given, output[0], column)
    columns, dtype = feeds.columns, feeds.dtype
    return lambda row: score(np.frombuffer(row, dtype=dtype).reshape(1, columns))[0]


def _bound_row(
    session: InferenceSession, feeds: Feeds, given: Any, output: str, column: int
) -> Callable[[bytes], float]:
    """Return the scorer of one row: input and output bound once, in place.

    `session.run` makes a dictionary, checks it and allocates its output; on one row of a
    hundred trees that costs as much as the trees. `given`: what the model gave for one row.
    """
    ((name, row),) = feeds.of(np.zeros((1, feeds.columns), dtype=feeds.dtype)).items()
    row, scores = np.zeros_like(row), np.zeros_like(given)
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


_NOISE = re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : |/onnxruntime_src/\S+ .*?\) (?=[A-Z])")


def first_line(error: Exception) -> str:
    """Return the first line of what an error of ONNX Runtime says, of at most 300 characters.

    Without the places in its source.
    """
    said = _NOISE.sub("", str(error).strip())
    return (said.splitlines() or [type(error).__name__])[0][:300]
