"""The decision: from a score to the action with the least expected cost. Pure.

    calibration   score -> probability, and the shift to another base rate
    costs         product.yaml's costs -> a line in p for each action
    envelope      those lines -> which action is the cheapest where
    stand_in      what to answer when the model cannot
    exploration   letting a few declines through to learn their labels
    draw          chance without a random number: a keyed hash of an id
    policy        all of it compiled for one product generation: `Policy.decide`
    explanation   a decision taken apart, and what would have changed it

This room does no I/O, reads no clock and draws no random number; it knows no gRPC, no
ONNX Runtime and no SQL. A decision depends on the request and the generation alone.
"""

from gateway.decide.calibration import EDGE, Calibration, Scaled, from_mapping
from gateway.decide.costs import CostLine, cost_line
from gateway.decide.draw import draw, draw_key
from gateway.decide.envelope import Interval, dominated, lower_envelope
from gateway.decide.explanation import (
    Edge,
    Explanation,
    OtherAmount,
    explain,
    log_odds,
    served_probability,
)
from gateway.decide.policy import (
    Chosen,
    CostClass,
    Decision,
    Flag,
    Policy,
    compile_policy,
    cost_classes,
)

__all__ = [
    "EDGE",
    "Calibration",
    "Chosen",
    "CostClass",
    "CostLine",
    "Decision",
    "Edge",
    "Explanation",
    "Flag",
    "Interval",
    "OtherAmount",
    "Policy",
    "Scaled",
    "compile_policy",
    "cost_classes",
    "cost_line",
    "dominated",
    "draw",
    "draw_key",
    "explain",
    "from_mapping",
    "log_odds",
    "lower_envelope",
    "served_probability",
]
