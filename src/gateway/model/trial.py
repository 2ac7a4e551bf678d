"""A stranger's file is opened in a child process first, with limits on time and memory.

A file may claim more memory than there is, never finish loading, or crash ONNX Runtime:
whatever it does, it does to the child. What the child could open and score, the parent may
open. `child` is what runs there.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isnan, nan
from typing import Any

from gateway.errors import ModelError
from gateway.model.inputs import Column, Port
from gateway.model.outputs import Output
from gateway.model.session import digest_of
from gateway.product import Limits

_REMEMBERED = 64


@dataclass(frozen=True, slots=True)
class Trial:
    """What a child saw of a model that it could open, and score where an output was named.

    `scores`: of the rows it was given, NaN where it failed on one.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    opset: int
    ir_version: int
    producer: str
    operators: tuple[str, ...]
    weights_bytes: int
    scores: tuple[float, ...]


_passed: dict[str, Trial] = {}


def try_model(
    model: bytes,
    *,
    subject: str,
    limits: Limits,
    output: Output | None = None,
    columns: Sequence[Column] = (),
    rows: Sequence[Sequence[float]] = (),
) -> Trial:
    """Open a model in a child process; with an `output`, score `rows` of `columns` with it.

    The first of `rows` must be one that it can score.

    The same question about the same bytes is asked once.

    Raises:
        ModelError: it cannot be opened or scored within its limits, and why.
    """
    question = json.dumps(
        {
            "subject": subject,
            "memory_bytes": limits.memory_mib << 20,
            "output": output,
            "columns": columns,
            "rows": [[None if isnan(value) else value for value in row] for row in rows],
        }
    ).encode()
    key = digest_of(model) + digest_of(question)
    if key not in _passed:
        answer = _ask(question, model, subject, limits)
        if "error" in answer:
            raise ModelError(answer["error"], subject=subject, hint=answer["hint"])
        while len(_passed) >= _REMEMBERED:
            _passed.pop(next(iter(_passed)))
        _passed[key] = _trial(answer)
    return _passed[key]


def passed() -> dict[str, Any]:
    """Return what was asked so far, as JSON values, to `remember` in another process."""
    return {key: _answer(trial) for key, trial in _passed.items()}


def remember(trials: dict[str, Any]) -> None:
    """Take over what another process of this gateway has asked: it is not asked again."""
    _passed.update((key, _trial(answer)) for key, answer in trials.items())


def _answer(trial: Trial) -> dict[str, Any]:
    """Undo `_trial`."""
    scores = [None if isnan(score) else score for score in trial.scores]
    return {**asdict(trial), "scores": scores}


def _signal(number: int) -> str:
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


def _trial(answer: dict[str, Any]) -> Trial:
    ports = {
        side: tuple(Port(name, kind, tuple(shape)) for name, kind, shape in answer[side])
        for side in ("inputs", "outputs")
    }
    scores = tuple(nan if score is None else score for score in answer["scores"])
    operators = tuple(answer["operators"])
    return Trial(**{**answer, **ports, "scores": scores, "operators": operators})


def _ask(question: bytes, model: bytes, subject: str, limits: Limits) -> dict[str, Any]:
    # -P: what lies in the current folder is not imported.
    command = [sys.executable, "-P", "-m", "gateway.model.child"]
    environment = {**os.environ, "MALLOC_ARENA_MAX": "2", "PYTHONWARNINGS": "ignore"}
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        process_group=0,  # Ctrl-C is not for it; and in our session it has our priority
    ) as child:
        # A timeout of `communicate` would look for the end again and again, between sleeps.
        too_late = threading.Event()
        timer = threading.Timer(limits.load_s, _end, (child, too_late))
        timer.start()
        try:
            said, complained = child.communicate(question + b"\n" + model)
        finally:
            timer.cancel()
            child.kill()
    if too_late.is_set():
        raise ModelError(
            f"it took more time than the {limits.load_s:g} s that it has to open and score",
            subject=subject,
            hint="models.limits.load_s can be raised, if the model is only large.",
        )
    if child.returncode == 0:
        answer: dict[str, Any] = json.loads(said)
        return answer
    if child.returncode > 0 and b"MemoryError" not in complained:
        last = (complained.decode("utf-8", "replace").strip().splitlines() or [""])[-1]
        what = f"the child process that opened it failed: {last[:200]}"
    elif child.returncode == -signal.SIGKILL:
        what = "the child process that opened it was killed: the machine has too little memory"
    else:
        what = f"it crashed the child process that opened it ({_signal(-child.returncode)})"
    raise ModelError(
        what, subject=subject, hint="Nothing else was harmed. Export the model again, or smaller."
    )


def _end(child: subprocess.Popen[bytes], too_late: threading.Event) -> None:
    too_late.set()
    child.kill()
