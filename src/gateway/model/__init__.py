"""The models: the only room that knows ONNX Runtime.

runtime      ONNX Runtime with its telemetry off, one thread, no spinning
session      an ONNX file as a classifier: float32 (n, features) -> n scores
features     what a caller sent -> a row of float32, by the declared rules (pure)
generation   a product's folder, loaded whole: parsed, pinned, opened, verified
"""

from gateway.model.features import FeatureSchema, FieldViolation
from gateway.model.generation import Generation, load_generation, read_product
from gateway.model.session import Classifier

__all__ = [
    "Classifier",
    "FeatureSchema",
    "FieldViolation",
    "Generation",
    "load_generation",
    "read_product",
]
