"""One generation of a product: everything that serves it, loaded whole or not at all.

A folder becomes a `Plan`, in which everything is checked that can be without a session, and the
plan becomes a `Generation`. A plan can be sent to another process, which opens the same files.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gateway.decide import Calibration, Policy, Scaled, compile_policy, from_mapping
from gateway.errors import ModelError
from gateway.model.features import FeatureSchema, feature_schema
from gateway.model.folder import Contents, arms_in, read_folder
from gateway.model.inputs import Column
from gateway.model.mismatch import mismatch
from gateway.model.outputs import Output, is_label
from gateway.model.sample import sample_rows
from gateway.model.session import Classifier, classifier_on, digest_of, open_session
from gateway.model.trial import Trial, try_model
from gateway.product import UNSEEN_TEXT, Challenger, Champion, Product

SCORE_TOLERANCE = 1e-5
"""Of a score, or of its share where it is more than 1."""

Mode = Literal["champion", "shadow", "canary"]


@dataclass(frozen=True, slots=True)
class Golden:
    """What a bare `session.run` gave for given features, and what this model gives."""

    rows: int
    worst: float


@dataclass(frozen=True, slots=True)
class Arm:
    """One model of a product, and the decisions that follow from its scores.

    `share`: of the traffic that it decides (a canary's, by subject) or scores (a shadow's).
    """

    name: str
    mode: Mode
    share: float
    classifier: Classifier
    policy: Policy
    golden: Golden | None
    trial: Trial


@dataclass(frozen=True, slots=True)
class Generation:
    """A product as it is served: its promises, its features, its model, its decisions.

    `digest` is the sha256 of product.yaml, the models and the calibrations together. `trial` is
    what the child process saw that opened the champion first.
    """

    product: Product
    schema: FeatureSchema
    champion: Classifier
    policy: Policy
    digest: str
    golden: Golden | None
    trial: Trial
    challengers: tuple[Arm, ...] = ()

    @property
    def name(self) -> str:
        """The product's name."""
        return self.product.name

    @property
    def arms(self) -> tuple[Arm, ...]:
        """All models: the champion first, then the challengers in the file's order."""
        champion = Arm(
            self.champion.name,
            "champion",
            1.0,
            self.champion,
            self.policy,
            self.golden,
            self.trial,
        )
        return (champion, *self.challengers)


def as_decided(generation: Generation, name: str, digest: str) -> Generation:
    """Return the generation as if the model that decided were its champion.

    `name` and `digest`: of that model; where it is none of the generation's, nothing is changed.
    """
    models = generation.product.models
    for arm, declared in zip(generation.challengers, models.challengers, strict=True):
        if (arm.name, arm.classifier.digest) == (name, digest):
            own = models.model_copy(update={"champion": declared})
            return replace(
                generation,
                product=generation.product.model_copy(update={"models": own}),
                champion=arm.classifier,
                policy=arm.policy,
                golden=arm.golden,
                trial=arm.trial,
                challengers=(),
            )
    return generation


@dataclass(frozen=True, slots=True)
class _Vectors:
    """Golden vectors: rows of columns, and what a bare `session.run` gave for them."""

    path: Path
    features: NDArray[np.float64]
    scores: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ArmPlan:
    """A model that was read and tried, and is not open. `file`: its name in the folder."""

    name: str
    version: str
    mode: Mode
    share: float
    file: str
    digest: str
    output: Output
    policy: Policy
    vectors: _Vectors | None
    example: tuple[float, ...]
    trial: Trial


@dataclass(frozen=True, slots=True)
class Plan:
    """A generation without its sessions: what another process needs to open it, besides files."""

    product: Product
    digest: str
    columns: tuple[Column, ...]
    arms: tuple[ArmPlan, ...]


def load_generation(folder: Path) -> Generation:
    """Load a product's folder: parse, verify the pinned models, try them in a child process, open
    them.

    Their golden vectors must give what they gave, and their scores must be what the calibration
    takes.

    The models are not warmed up yet: `champion.warm_up()` before it serves.

    Raises:
        UsageError, ProductError: as `read_product`.
        ModelError: a file that is missing, altered, no classifier, or off its golden vectors.
    """
    contents = read_folder(folder)
    plan = planned(contents)
    return opened(plan, lambda name: (contents.files[name], contents.place(name)))


def planned(contents: Contents) -> Plan:
    """Check all that can be checked of a folder before its models are opened here.

    Raises as `load_generation`.
    """
    product = contents.product
    columns = _columns(product)
    arms = tuple(_arm_plan(key, arm, contents, columns=columns) for key, arm in arms_in(product))
    return Plan(product, contents.digest, columns, arms)


def opened(plan: Plan, file: Callable[[str], tuple[bytes | Path, Path]]) -> Generation:
    """Open the models of a plan.

    `file`: for a name, the bytes of the file, or the path where ONNX Runtime itself may read it,
    and the path that errors name.

    Raises:
        ModelError: a model that cannot be opened, or is off its golden vectors.
    """
    arms: list[Arm] = []
    for arm in plan.arms:
        model, subject = file(arm.file)
        classifier = classifier_on(
            open_session(model, str(subject)),
            subject=str(subject),
            output=arm.output,
            columns=plan.columns,
            example=arm.example,
            name=arm.name,
            version=arm.version,
            digest=arm.digest,
        )
        golden = None if arm.vectors is None else _try_golden(classifier, arm.vectors, plan.product)
        arms.append(Arm(arm.name, arm.mode, arm.share, classifier, arm.policy, golden, arm.trial))
    # Rows are made once a call, as precise as the most demanding model needs them.
    widest = max((arm.classifier for arm in arms), key=lambda one: one.dtype.itemsize)
    schema = feature_schema(plan.product.features, widest.feeds)
    for arm_ in arms:
        feature_schema(plan.product.features, arm_.classifier.feeds)  # it fits each of them
    champion, *challengers = (
        replace(arm, classifier=arm.classifier.taking(schema.dtype)) for arm in arms
    )
    return Generation(
        product=plan.product,
        schema=schema,
        champion=champion.classifier,
        policy=champion.policy,
        digest=plan.digest,
        golden=champion.golden,
        trial=champion.trial,
        challengers=tuple(challengers),
    )


def _arm_plan(
    key: str, arm: Champion | Challenger, contents: Contents, *, columns: tuple[Column, ...]
) -> ArmPlan:
    product = contents.product
    path, model = contents.place(arm.path), contents.files[arm.path]
    digest = digest_of(model)
    if arm.sha256 is not None and digest != arm.sha256:
        raise ModelError(
            f"its sha256 is {digest}, product.yaml pins {arm.sha256}",
            subject=str(path),
            hint=f"If the file is the one you mean, put its sha256 into {key}.sha256.",
        )
    calibration = _calibration(key, arm, contents)
    vectors = _golden(arm, contents, len(product.columns))
    rows = sample_rows(product.columns, () if vectors is None else vectors.features)
    output = arm.output or product.models.champion.output
    trial = try_model(
        model,
        subject=str(path),
        limits=product.models.limits,
        output=output,
        columns=columns,
        rows=rows,
    )
    policy = compile_policy(product, calibration, arm)
    _expect_probabilities(trial, key, arm, output, policy, str(path))
    mode: Mode = "champion" if isinstance(arm, Champion) else arm.mode
    share = None if isinstance(arm, Champion) else arm.share
    return ArmPlan(
        name=arm.name,
        version=arm.version,
        mode=mode,
        share=1.0 if share is None else share,
        file=arm.path,
        digest=digest,
        output=output,
        policy=policy,
        vectors=vectors,
        example=tuple(rows[0]),
        trial=trial,
    )


def _calibration(key: str, arm: Champion | Challenger, contents: Contents) -> Calibration:
    declared = arm.calibration
    parameters, subject = declared.parameters, f"{key}.calibration"
    if parameters is None:
        path = contents.place(str(declared.path))
        subject = str(path)
        parameters = _json(contents.files[str(declared.path)], path)
        if parameters.get("kind", declared.kind) != declared.kind:
            raise ModelError(
                f"is a {parameters['kind']} map, product.yaml says {declared.kind}",
                subject=subject,
            )
    try:
        calibration = from_mapping(declared.kind, parameters)
    except ValueError as error:
        raise ModelError(str(error), subject=subject) from None
    return calibration if arm.scale is None else Scaled(calibration, *arm.scale)


def _golden(arm: Champion | Challenger, contents: Contents, columns: int) -> _Vectors | None:
    if arm.golden is None:
        return None
    path = contents.place(arm.golden)
    vectors = _json(contents.files[arm.golden], path)
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


def _try_golden(champion: Classifier, vectors: _Vectors, product: Product) -> Golden:
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
        says, hint = mismatch(
            champion.score,
            vectors.features.astype(champion.dtype),
            expected.tolist(),
            product.columns,
            tolerance=SCORE_TOLERANCE,
        )
        raise ModelError(
            f"golden vector {row}: the score is off by {worst:.3g}, allowed is "
            f"{SCORE_TOLERANCE:g}: {says}",
            subject=str(vectors.path),
            hint=hint,
        )
    return Golden(rows=len(expected), worst=worst)


def _columns(product: Product) -> tuple[Column, ...]:
    return tuple(
        (*f.values, UNSEEN_TEXT) if f.type == "category" else None for f in product.columns
    )


def _expect_probabilities(
    trial: Trial,
    key: str,
    arm: Champion | Challenger,
    output: Output,
    policy: Policy,
    subject: str,
) -> None:
    """Refuse a model whose scores the calibration map cannot read as probabilities."""
    port = next(port for port in trial.outputs if port.name == output[0])
    if is_label(port) and arm.calibration.kind == "identity":
        raise ModelError(
            f"output {port.name!r} is a label, which is no probability",
            subject=subject,
            hint="Name an output of probabilities, or say how likely fraud is under each label: "
            f"{key}.calibration: {{kind: isotonic, x: [0, 1], y: [SHARE, SHARE]}}.",
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
            hint=f"Say what turns it into one: {key}.scale: [0, 100] for such a range, "
            f"or {key}.calibration: {{kind: logistic, a: SLOPE, b: INTERCEPT}} for any "
            "score; `gateway init --data` fits it. Where features cannot go so far, declare "
            "their min and max.",
        )


def _json(content: bytes, path: Path) -> dict[str, Any]:
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError):
        raise ModelError("is not JSON", subject=str(path)) from None
    if not isinstance(parsed, dict):
        raise ModelError("must be a JSON object", subject=str(path))
    return parsed
