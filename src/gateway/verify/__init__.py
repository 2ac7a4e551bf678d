"""What a model must hold before it decides.

labelled   a table of labelled payments, as a product's model is fed it
sample     those payments with what a model and its product make of them
gates      figures, rules and verdicts: what fails is refused
cause      what is likely wrong with a model that fails
"""

from gateway.verify.gates import Gate, Report, examined, expect_passed, reasons, run_gates
from gateway.verify.labelled import Labelled, LeftOut, read_labelled
from gateway.verify.sample import cost_lines, probabilities, sample_of, scores_of

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
