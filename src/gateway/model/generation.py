"""One generation of a product: everything that serves it, loaded whole or not at all."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gateway import product as product_yaml
from gateway.decide import Calibration, Policy, compile_policy, from_mapping
from gateway.errors import ModelError, ProductError, UsageError, Violation
from gateway.model.features import FeatureSchema, feature_schema
from gateway.model.session import Classifier, digest_of, open_classifier
from gateway.product import Champion, Product

MODEL_BYTES_MAX = 512 * 1024 * 1024
SCORE_TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True)
class Golden:
    """What a bare `session.run` gave for given features, and what this model gives."""

    rows: int
    worst: float


@dataclass(frozen=True, slots=True)
class Generation:
    """A product as it is served: its promises, its features, its model, its decisions.

    `digest` is the sha256 of product.yaml, the model and the calibration together.
    """

    product: Product
    schema: FeatureSchema
    champion: Classifier
    policy: Policy
    digest: str
    golden: Golden | None

    @property
    def name(self) -> str:
        """The product's name."""
        return self.product.name


def read_product(folder: Path) -> Product:
    """Read and check a folder's product.yaml.

    Raises:
        UsageError: there is no such folder or file, or it cannot be read.
        ProductError: with every violation.
    """
    path, text = _read_yaml(folder)
    return product_yaml.parse(text, str(path))


def _read_yaml(folder: Path) -> tuple[Path, str]:
    """Return where a folder's product.yaml is, and its text. Raises as `read_product`."""
    path = folder
    try:
        path = folder / "product.yaml" if folder.is_dir() else folder
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(
            "there is no product.yaml here",
            subject=str(folder),
            hint="Name a product's folder, such as models/card-not-present.",
        ) from None
    except UnicodeDecodeError as error:
        violation = Violation(str(path), 1, "", f"is not UTF-8 (byte {error.start})")
        raise ProductError((violation,)) from None
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", subject=str(path)) from None
    return path, text


def load_generation(folder: Path) -> Generation:
    """Load a product's folder: parse, verify the pinned model, open it, try its golden vectors.

    The champion is not warmed up yet: `champion.warm_up()` before it serves.

    Raises:
        UsageError, ProductError: as `read_product`.
        ModelError: a file that is missing, altered, no classifier, or off its golden vectors.
    """
    yaml_path, text = _read_yaml(folder)
    product = product_yaml.parse(text, str(yaml_path))
    base = yaml_path.parent
    arm = product.models.champion
    path = base / arm.path
    model = _read(path, what="models.champion.path")
    digest = digest_of(model)
    if digest != arm.sha256:
        raise ModelError(
            f"its sha256 is {digest}, product.yaml pins {arm.sha256}",
            subject=str(path),
            hint="If the file is the one you mean, put its sha256 into models.champion.sha256.",
        )
    schema = feature_schema(product.features)
    champion = open_classifier(
        model,
        name=arm.name,
        version=arm.version,
        subject=str(path),
        output=arm.output,
        features=len(product.features),
    )
    calibration, calibration_bytes = _calibration(arm, base)
    golden = None
    if arm.golden is not None:
        golden = _try_golden(champion, base / arm.golden)
    together = hashlib.sha256(text.encode() + digest.encode() + calibration_bytes).hexdigest()
    return Generation(
        product=product,
        schema=schema,
        champion=champion,
        policy=compile_policy(product, calibration),
        digest=together,
        golden=golden,
    )


def _calibration(champion: Champion, base: Path) -> tuple[Calibration, bytes]:
    declared = champion.calibration
    parameters = declared.parameters
    subject, content = "models.champion.calibration", b""
    if parameters is None:
        path = base / str(declared.path)
        subject, content = str(path), _read(path, what="models.champion.calibration.path")
        parameters = _json(content, path)
        if parameters.get("kind", declared.kind) != declared.kind:
            raise ModelError(
                f"is a {parameters['kind']} map, product.yaml says {declared.kind}",
                subject=subject,
            )
    try:
        return from_mapping(declared.kind, parameters), content
    except ValueError as error:
        raise ModelError(str(error), subject=subject) from None


def _try_golden(champion: Classifier, path: Path) -> Golden:
    """Score the golden vectors. Raises ModelError where a score is off by more than 1e-5."""
    vectors = _json(_read(path, what="models.champion.golden"), path)
    try:
        features = np.array(vectors["features"], dtype=np.float32)
        expected = np.array(vectors["scores"], dtype=np.float64)
        if expected.ndim != 1 or not len(expected):
            raise ValueError(f"scores have shape {list(expected.shape)}")
        if features.shape != (len(expected), champion.features):
            raise ValueError(f"features have shape {list(features.shape)}")
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise ModelError(
            f"golden vectors need features [n, {champion.features}] and n scores ({error})",
            subject=str(path),
        ) from None
    try:
        off = np.abs(np.array(champion.score(features)) - expected)
    except Exception as error:  # ONNX Runtime raises its own, unrelated classes
        raise ModelError(
            f"the model fails on them: {type(error).__name__}", subject=str(path)
        ) from None
    worst = float(off.max())
    if not worst <= SCORE_TOLERANCE:
        row = int(np.argmax(np.nan_to_num(off, nan=np.inf)))
        raise ModelError(
            f"golden vector {row}: the score is off by {worst:.3g}, allowed is {SCORE_TOLERANCE:g}",
            subject=str(path),
            hint="The model or its output is not the one that the vectors were made from.",
        )
    return Golden(rows=len(expected), worst=worst)


def _read(path: Path, *, what: str) -> bytes:
    try:
        if path.stat().st_size > MODEL_BYTES_MAX:
            raise ModelError(f"is larger than {MODEL_BYTES_MAX // 2**20} MiB", subject=str(path))
        return path.read_bytes()
    except FileNotFoundError:
        raise ModelError(
            "there is no such file", subject=str(path), hint=f"{what} names it."
        ) from None
    except OSError as error:
        raise ModelError(f"cannot be read: {error.strerror}", subject=str(path)) from None


def _json(content: bytes, path: Path) -> dict[str, Any]:
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError):
        raise ModelError("is not JSON", subject=str(path)) from None
    if not isinstance(parsed, dict):
        raise ModelError("must be a JSON object", subject=str(path))
    return parsed
