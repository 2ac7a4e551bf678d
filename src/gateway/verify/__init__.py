"""What a model must hold before it decides.

    labelled   a table of labelled payments, as a product's model is fed it
    sample     those payments with what a model and its product make of them
    gates      figures, rules and verdicts: what fails is refused
    cause      what is likely wrong with a model that fails

What is exported is loaded when it is asked for: a product without labelled payments is verified
without what reads tables.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gateway.verify.gates import Gate, Report, examined, expect_passed, reasons, run_gates
    from gateway.verify.labelled import Labelled, LeftOut, read_labelled
    from gateway.verify.sample import cost_lines, probabilities, sample_of, scores_of

_PLACES = {
    "Gate": "gates",
    "Labelled": "labelled",
    "LeftOut": "labelled",
    "Report": "gates",
    "cost_lines": "sample",
    "examined": "gates",
    "expect_passed": "gates",
    "probabilities": "sample",
    "read_labelled": "labelled",
    "reasons": "gates",
    "run_gates": "gates",
    "sample_of": "sample",
    "scores_of": "sample",
}

__all__ = [
    "Gate",
    "Labelled",
    "LeftOut",
    "Report",
    "cost_lines",
    "examined",
    "expect_passed",
    "probabilities",
    "read_labelled",
    "reasons",
    "run_gates",
    "sample_of",
    "scores_of",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
