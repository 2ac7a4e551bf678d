"""Incidents to practise on: something goes wrong under load, and is left in traces and metrics.

slow-model   a change brings a model that takes longer than the calls can wait
overload     for a while three times as many calls come as can be decided
bad-swap     a change that every check lets pass declines what it should not
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gateway.bench.capacity import capacity
from gateway.bench.editor import put
from gateway.bench.load import Deed
from gateway.bench.product import MEDIUM, File, Kind, edition, models_of, product_text
from gateway.bench.rig import Rig, Scope
from gateway.bench.schedule import poisson, steps

PER_S = 200.0
"""Calls a second: a few of a hundred of what the model can decide."""

SLOW_ROW_US = 9_000.0
"""Of the slow model: in the budget alone, and twice what there is time for at that rate."""

GATE_OFF = ("models:\n", "models:\n  gates: {cost: {share_of_budget: 1}}\n")
"""Somebody was told that the model takes too long, and let it pass."""

OVERLOAD = 3.0
"""Of capacity."""

SERVING, MISTYPED = "serving: 0.002", "serving: 0.2"
"""The share of fraud in what is served, and two digits that somebody lost."""


@dataclass(frozen=True, slots=True)
class Incident:
    """What goes wrong; `truth` says it to who has looked for it."""

    name: str
    truth: str
    run: Callable[[Rig, float], None]


def slow_model(rig: Rig, seconds: float) -> None:
    """A third of the time all is well; then the slow model is served."""
    slow = Kind(MEDIUM.name, MEDIUM.budget_ms, SLOW_ROW_US, MEDIUM.width)
    content = models_of(slow)[0]
    path = rig.folders[MEDIUM.name] / "model-2.onnx"
    path.write_bytes(content)
    text = product_text(
        File.of(path.name, content), name=MEDIUM.name, budget_ms=MEDIUM.budget_ms, generation=2
    ).replace(*GATE_OFF)
    _send(rig, seconds, Deed(seconds / 3, lambda: _change(rig, text)))


def overload(rig: Rig, seconds: float) -> None:
    """A third of the time all is well; then too much comes, and then all is well again."""
    found = capacity(rig, Scope(2.0, 1), MEDIUM)
    most = found.figures["capacity"]
    third = seconds / 3
    schedule = steps(rig.rng, (PER_S, third), (OVERLOAD * most, third), (PER_S, third))
    rig.send("calls come", schedule, MEDIUM)


def bad_swap(rig: Rig, seconds: float) -> None:
    """A third of the time all is well; then a mistyped base rate is served."""
    folder = rig.folders[MEDIUM.name]
    content = edition((folder / "model.onnx").read_bytes(), 2)
    (folder / "model-2.onnx").write_bytes(content)
    text = product_text(
        File.of("model-2.onnx", content),
        name=MEDIUM.name,
        budget_ms=MEDIUM.budget_ms,
        generation=2,
    ).replace(SERVING, MISTYPED)
    _send(rig, seconds, Deed(seconds / 3, lambda: _change(rig, text)))


INCIDENTS = {
    one.name: one
    for one in (
        Incident(
            "slow-model",
            "generation 2 brought a model of 9 ms a row, and the gate that would have refused it "
            "was opened: two hundred calls a second are twice what it can decide",
            slow_model,
        ),
        Incident(
            "overload",
            "for a third of the time three times as many calls came as can be decided; nothing "
            "of ours had changed",
            overload,
        ),
        Incident(
            "bad-swap",
            f"generation 2 says {MISTYPED} where generation 1 said {SERVING}: every probability "
            "is raised, and nothing is slow",
            bad_swap,
        ),
    )
}


def _send(rig: Rig, seconds: float, deed: Deed) -> None:
    rig.send("calls come", poisson(rig.rng, PER_S, seconds), MEDIUM, deeds=[deed])


def _change(rig: Rig, text: str) -> None:
    put(rig.folders[MEDIUM.name], text, rig.server)
