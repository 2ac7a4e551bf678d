"""One generation of a product: everything that serves it, loaded whole or not at all."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway import product as product_yaml
from gateway.decide import Calibration, Policy, Scaled, compile_policy, from_mapping
from gateway.errors import ModelError, ProductError, UsageError, Violation
from gateway.model.features import FeatureSchema, feature_schema
from gateway.model.inputs import Column
from gateway.model.outputs import is_label
from gateway.model.sample import sample_rows
from gateway.model.session import Classifier, classifier_on, digest_of, open_session
from gateway.model.trial import Trial, try_model
from gateway.product import UNSEEN_TEXT, Champion, Product

SCORE_TOLERANCE = 1e-5
"""Of a score, or of its share where it is more than 1."""

_FILE_BYTES_MAX = 64 * 2**20
"""Of a calibration or of golden vectors."""


@dataclass(frozen=True, slots=True)
class Golden:
    """What a bare `session.run` gave for given features, and what this model gives."""

    rows: int
    worst: float


@dataclass(frozen=True, slots=True)
class Generation:
    """A product as it is served: its promises, its features, its model, its decisions.

    `digest` is the sha256 of product.yaml, the model and the calibration together. `trial` is
    what the child process saw that opened the model first.
    """

    product: Product
    schema: FeatureSchema
    champion: Classifier
    policy: Policy
    digest: str
    golden: Golden | None
    trial: Trial

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
    """Load a product's folder: parse, verify the pinned model, try it in a child process, open it.

    Its golden vectors must give what they gave, and its scores must be what the calibration
    takes.

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
    limits = product.models.limits
    model = _read(path, limits.file_mib << 20, what="models.champion.path")
    digest = digest_of(model)
    if digest != arm.sha256:
        raise ModelError(
            f"its sha256 is {digest}, product.yaml pins {arm.sha256}",
            subject=str(path),
            hint="If the file is the one you mean, put its sha256 into models.champion.sha256.",
        )
    calibration, calibration_bytes = _calibration(arm, base)
    vectors = None if arm.golden is None else _golden(base / arm.golden, len(product.columns))
    columns = _columns(product)
    rows = sample_rows(product.columns, () if vectors is None else vectors.features)
    trial = try_model(
        model, subject=str(path), limits=limits, output=arm.output, columns=columns, rows=rows
    )
    champion = classifier_on(
        open_session(model, str(path)),
        subject=str(path),
        output=arm.output,
        columns=columns,
        example=rows[0],
        name=arm.name,
        version=arm.version,
        digest=digest,
    )
    schema = feature_schema(product.features, champion.feeds)
    policy = compile_policy(product, calibration)
    golden = None if vectors is None else _try_golden(champion, vectors)
    _expect_probabilities(trial, arm, policy, str(path))
    together = hashlib.sha256(text.encode() + digest.encode() + calibration_bytes).hexdigest()
    return Generation(
        product=product,
        schema=schema,
        champion=champion,
        policy=policy,
        digest=together,
        golden=golden,
        trial=trial,
    )


def _calibration(champion: Champion, base: Path) -> tuple[Calibration, bytes]:
    declared = champion.calibration
    parameters = declared.parameters
    subject, content = "models.champion.calibration", b""
    if parameters is None:
        path = base / str(declared.path)
        subject = str(path)
        content = _read(path, _FILE_BYTES_MAX, what="models.champion.calibration.path")
        parameters = _json(content, path)
        if parameters.get("kind", declared.kind) != declared.kind:
            raise ModelError(
                f"is a {parameters['kind']} map, product.yaml says {declared.kind}",
                subject=subject,
            )
    try:
        calibration = from_mapping(declared.kind, parameters)
    except ValueError as error:
        raise ModelError(str(error), subject=subject) from None
    if champion.scale is not None:
        calibration = Scaled(calibration, *champion.scale)
    return calibration, content


@dataclass(frozen=True, slots=True)
class _Vectors:
    """Golden vectors: rows of columns, and what a bare `session.run` gave for them."""

    path: Path
    features: NDArray[np.float64]
    scores: NDArray[np.float64]


def _golden(path: Path, columns: int) -> _Vectors:
    vectors = _json(_read(path, _FILE_BYTES_MAX, what="models.champion.golden"), path)
    try:
        features = np.array(vectors["features"], dtype=np.float64)  # null is NaN
        expected = np.array(vectors["scores"], dtype=np.float64)
        if expected.ndim != 1 or not len(expected):
            raise ValueError(f"scores have shape {list(expected.shape)}")
        if features.shape != (len(expected), columns):
            raise ValueError(f"features have shape {list(features.shape)}")
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise ModelError(
            f"golden vectors need features [n, {columns}] and n scores ({error})",
            subject=str(path),
        ) from None
    return _Vectors(path, features, expected)


def _try_golden(champion: Classifier, vectors: _Vectors) -> Golden:
    """Score the golden vectors. Raises ModelError where a score is off."""
    expected = vectors.scores
    try:
        off = np.abs(np.array(champion.score(vectors.features.astype(champion.dtype))) - expected)
    except Exception as error:  # ONNX Runtime raises its own, unrelated classes
        raise ModelError(
            f"the model fails on them: {type(error).__name__}", subject=str(vectors.path)
        ) from None
    off /= np.maximum(1.0, np.abs(expected))
    worst = float(off.max())
    if not worst <= SCORE_TOLERANCE:
        row = int(np.argmax(np.nan_to_num(off, nan=np.inf)))
        raise ModelError(
            f"golden vector {row}: the score is off by {worst:.3g}, allowed is {SCORE_TOLERANCE:g}",
            subject=str(vectors.path),
            hint="The model or its output is not the one that the vectors were made from.",
        )
    return Golden(rows=len(expected), worst=worst)


def _columns(product: Product) -> tuple[Column, ...]:
    return tuple(
        (*f.values, UNSEEN_TEXT) if f.type == "category" else None for f in product.columns
    )


def _expect_probabilities(trial: Trial, arm: Champion, policy: Policy, subject: str) -> None:
    """Refuse a model whose scores the calibration map cannot read as probabilities."""
    port = next(port for port in trial.outputs if port.name == arm.output.name)
    if is_label(port) and arm.calibration.kind == "identity":
        raise ModelError(
            f"output {port.name!r} is a label, which is no probability",
            subject=subject,
            hint="Name an output of probabilities, or say how likely fraud is under each label: "
            "models.champion.calibration: {kind: isotonic, x: [0, 1], y: [SHARE, SHARE]}.",
        )
    scores = [score for score in trial.scores if score == score]
    if not scores:
        raise ModelError(
            f"output {port.name!r} is no number for any of {len(trial.scores)} sample rows",
            subject=subject,
            hint="Check the order and the ranges of features, and which of them may be missing.",
        )
    if not policy.takes([policy.snapped(score) for score in scores]):
        low, high = min(scores), max(scores)
        raise ModelError(
            f"output {port.name!r} is no probability: it gave {low:.4g} to {high:.4g} for "
            f"{len(scores)} sample rows, outside {policy.score_low:g}..{policy.score_high:g}",
            subject=subject,
            hint="Say what turns it into one: models.champion.scale: [0, 100] for such a range, "
            "or models.champion.calibration: {kind: logistic, a: SLOPE, b: INTERCEPT} for any "
            "score; `gateway init --data` fits it. Where features cannot go so far, declare "
            "their min and max.",
        )


def _read(path: Path, bytes_max: int, *, what: str) -> bytes:
    try:
        if not path.is_file() and path.exists():
            raise ModelError("is no regular file", subject=str(path))
        if path.stat().st_size > bytes_max:
            raise ModelError(
                f"is larger than {bytes_max // 2**20} MiB",
                subject=str(path),
                hint="models.limits.file_mib is what a model's file may have.",
            )
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
