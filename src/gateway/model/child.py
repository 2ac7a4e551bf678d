"""The child process of a trial: opens a stranger's file, scores a few rows, and ends.

It reads one line of JSON from stdin, the question of `trial`, and behind it the file's
bytes; it answers on stdout in JSON. What libraries print goes to stderr.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from math import isfinite, nan
from typing import Any

import numpy as np

from gateway.errors import ModelError
from gateway.model.graph import inspected, parsed
from gateway.model.runtime import InferenceSession
from gateway.model.session import (
    classifier_on,
    first_line,
    open_session,
    ports_in,
    ports_out,
)

_COUNTS = (3, 5)
"""Rows are scored so many at a time, too: what holds for one need not hold for several."""

_SAME = 1e-3
"""A row's score may differ by this between runs, or this share of it; kernels do by 1e-6."""

_STACK_BYTES = 8 << 20
"""What a thread has where nobody asks for more; a deep tree needs it."""


def _main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    question, _, model = sys.stdin.buffer.read().partition(b"\n")
    asked = json.loads(question)
    _limit(asked["memory_bytes"] + 2 * len(model))
    try:
        answer = _answer(asked, model)
    except ModelError as error:
        answer = {"error": error.what, "hint": error.hint}
    except MemoryError:
        answer = _too_much(asked)
    json.dump(answer, answers)
    answers.close()


def _limit(memory_bytes: int) -> None:
    """Bound what this process may still map, and let everybody else go first."""
    os.nice(10)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    _, most = resource.getrlimit(resource.RLIMIT_STACK)
    resource.setrlimit(resource.RLIMIT_STACK, (_STACK_BYTES, most))
    if sys.platform == "linux":  # elsewhere address space is no measure of memory
        with open("/proc/self/statm", encoding="ascii") as statm:
            mapped = int(statm.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + memory_bytes, mapped + memory_bytes))


def _answer(asked: dict[str, Any], model: bytes) -> dict[str, Any]:
    subject, memory_bytes = asked["subject"], asked["memory_bytes"]
    facts = inspected(parsed(model, subject), memory_bytes=memory_bytes, subject=subject)
    try:
        session = open_session(model, subject)
        scores = [] if asked["output"] is None else _scores(asked, session)
    except ModelError as error:
        if "alloc" in error.what.lower():
            return _too_much(asked)
        raise
    return {
        **asdict(facts),
        "inputs": ports_in(session),
        "outputs": ports_out(session),
        "scores": [score if isfinite(score) else None for score in scores],
    }


def _scores(asked: dict[str, Any], session: InferenceSession) -> list[float]:
    columns = [None if column is None else tuple(column) for column in asked["columns"]]
    given = [[nan if value is None else value for value in row] for row in asked["rows"]]
    classifier = classifier_on(
        session,
        subject=asked["subject"],
        output=tuple(asked["output"]),
        columns=columns,
        example=given[0] if given else (),
    )
    rows = np.array(given or [[0.0] * len(columns)], dtype=classifier.dtype)
    # A row on which the model fails is a stand-in when it serves, no reason to refuse.
    scores = [_one(classifier.score_one, row.tobytes()) for row in rows]
    sound = [i for i, score in enumerate(scores) if isfinite(score)]
    for count in _COUNTS:
        picked = np.resize(sound or [0], count)
        try:
            together = classifier.score(rows[picked])
        except ModelError:
            raise
        except Exception as error:  # ONNX Runtime raises its own, unrelated classes
            raise ModelError(
                f"it fails on {count} rows at once: {first_line(error)}",
                subject=asked["subject"],
                hint="Export it with a free first dimension, or with one fixed at 1.",
            ) from None
        _expect_same([scores[i] for i in picked], together, asked["subject"])
    return scores


def _expect_same(alone: Sequence[float], together: Sequence[float], subject: str) -> None:
    """Refuse a model whose score of a row depends on chance, or on the rows beside it."""
    off = [abs(a - b) / max(1.0, abs(a)) for a, b in zip(alone, together, strict=True)]
    if off and max(off) > _SAME:
        raise ModelError(
            f"it gives the same row another score beside other rows, by {max(off):.3g}",
            subject=subject,
            hint="A decision must not depend on chance, or on who else pays at the moment.",
        )


def _one(score_one: Callable[[bytes], float], row: bytes) -> float:
    try:
        return float(score_one(row))
    except Exception:  # whatever a model raises is the model's error
        return nan


def _too_much(asked: dict[str, Any]) -> dict[str, Any]:
    return {
        "error": f"it takes more than {asked['memory_bytes'] // 2**20:,} MiB of memory to open",
        "hint": "models.limits.memory_mib can be raised, if the model is only large.",
    }


if __name__ == "__main__":
    _main()
