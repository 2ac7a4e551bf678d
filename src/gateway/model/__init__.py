"""The models: the only room that knows ONNX Runtime.

runtime      ONNX Runtime with its telemetry off, one thread, no spinning
graph        what an ONNX file says of itself, read without running it
inputs       rows of columns -> what each input is fed (pure)
outputs      what an output gave -> a score a row (pure)
session      an ONNX file as a classifier: rows (n, columns) -> n scores
trial        a file is opened and scored in a child process first, with limits
features     what a caller sent -> a row, by the declared rules (pure)
sample       rows to try a model on (pure)
folder       a product's folder, read whole
generation   what is read, as a plan: pinned, tried; and opened, verified, as a generation
registry     the generations that were served, kept below the journal (standard library only)
revision     a product's folder through time: what it was, and how it becomes what is next
attribution  what each feature did to one probability

What is exported is loaded when it is asked for: the child process of a trial, which is started
for each file, needs a third of it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gateway.model.attribution import (
        Attribution,
        Effect,
        FeatureValue,
        attribute,
        golden_features,
        references,
    )
    from gateway.model.features import (
        LOOKS_LIKE_A_PAN,
        FeatureSchema,
        FieldViolation,
        feature_schema,
    )
    from gateway.model.folder import Contents, read_folder, read_product
    from gateway.model.generation import (
        Arm,
        Generation,
        Plan,
        as_decided,
        load_generation,
        opened,
        planned,
    )
    from gateway.model.inputs import Port, Rows
    from gateway.model.session import HEAVY_ROW_NS, Classifier

_PLACES = {
    "Attribution": "attribution",
    "Effect": "attribution",
    "FeatureValue": "attribution",
    "attribute": "attribution",
    "golden_features": "attribution",
    "references": "attribution",
    "FeatureSchema": "features",
    "FieldViolation": "features",
    "feature_schema": "features",
    "LOOKS_LIKE_A_PAN": "features",
    "Contents": "folder",
    "read_folder": "folder",
    "read_product": "folder",
    "Arm": "generation",
    "Generation": "generation",
    "Plan": "generation",
    "as_decided": "generation",
    "load_generation": "generation",
    "opened": "generation",
    "planned": "generation",
    "Port": "inputs",
    "Rows": "inputs",
    "Classifier": "session",
    "HEAVY_ROW_NS": "session",
}

__all__ = [
    "HEAVY_ROW_NS",
    "LOOKS_LIKE_A_PAN",
    "Arm",
    "Attribution",
    "Classifier",
    "Contents",
    "Effect",
    "FeatureSchema",
    "FeatureValue",
    "FieldViolation",
    "Generation",
    "Plan",
    "Port",
    "Rows",
    "as_decided",
    "attribute",
    "feature_schema",
    "golden_features",
    "load_generation",
    "opened",
    "planned",
    "read_folder",
    "read_product",
    "references",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
