"""product.yaml: its text -> frozen values, or every violation at once. Pure.

    source      YAML text -> plain content, and the line of every key
    rule        what one value must be: numbers, shares, durations, actions, ...
    section     what sections have in common; each states its own rules
    product     all of the file; with models, gates, features, costs, stand_in, promises
    schema      content -> sections, pydantic's errors in our words
    checks      the rules between sections
    parse       the way through all of it
    lint        what is allowed, but hardly meant
    unenforced  what is declared, but has no effect yet
    keys        every key there is; `reference` prints them
    spans       where everything stands in a text
    edit        a text -> another, changed in what is named and nowhere else

This room does no I/O, reads no clock and knows no gRPC, ONNX Runtime or SQL.

Why pydantic, when msgspec is faster: a product is read once a generation, and pydantic
finds all errors in one go where msgspec stops at the first.
"""

from gateway.product.action import Action, StandIn
from gateway.product.costs import (
    Category,
    Costs,
    FalseNegative,
    FalsePositive,
    Hold,
    Review,
    StepUp,
)
from gateway.product.features import UNSEEN, UNSEEN_TEXT, Feature, columns_of, schema_fingerprint
from gateway.product.frozen import FrozenMapping
from gateway.product.gates import CalibrationGate, CostGate, Gates, LabelledColumns
from gateway.product.lint import lint
from gateway.product.models import (
    BaseRate,
    CalibrationSource,
    Challenger,
    Champion,
    Limits,
    Models,
)
from gateway.product.money import EXPONENTS, minor_per_major, minor_units
from gateway.product.parse import parse
from gateway.product.product import (
    CalendarEvent,
    Exploration,
    Latency,
    Override,
    Owners,
    Product,
    Records,
)
from gateway.product.promises import Fairness, Goal, Guardrail, Hypothesis, Labels, Promise
from gateway.product.reference import reference
from gateway.product.rule import Output
from gateway.product.stand_in import StandInBand, StandIns
from gateway.product.unenforced import Unenforced, unenforced

__all__ = [
    "EXPONENTS",
    "UNSEEN",
    "UNSEEN_TEXT",
    "Action",
    "BaseRate",
    "CalendarEvent",
    "CalibrationGate",
    "CalibrationSource",
    "Category",
    "Challenger",
    "Champion",
    "CostGate",
    "Costs",
    "Exploration",
    "Fairness",
    "FalseNegative",
    "FalsePositive",
    "Feature",
    "FrozenMapping",
    "Gates",
    "Goal",
    "Guardrail",
    "Hold",
    "Hypothesis",
    "LabelledColumns",
    "Labels",
    "Latency",
    "Limits",
    "Models",
    "Output",
    "Override",
    "Owners",
    "Product",
    "Promise",
    "Records",
    "Review",
    "StandIn",
    "StandInBand",
    "StandIns",
    "StepUp",
    "Unenforced",
    "columns_of",
    "lint",
    "minor_per_major",
    "minor_units",
    "parse",
    "reference",
    "schema_fingerprint",
    "unenforced",
]
