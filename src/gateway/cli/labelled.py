"""Labelled payments scored by one of a product's models: what calibrate and thresholds look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from cyclopts import Parameter
from numpy.typing import NDArray
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from gateway.cli.terms import notes
from gateway.errors import ModelError, UsageError
from gateway.evaluate.stakes import Stakes, classes_of, stakes_of
from gateway.model import Arm, Generation, load_generation
from gateway.model.folder import arms_in
from gateway.product import Challenger, Champion, LabelledColumns
from gateway.verify import Labelled, read_labelled
from gateway.verify.sample import probabilities, scores_of

Floats = NDArray[np.float64]

SEED = 20_260_101
"""Of folds and draws: the same file gives the same figures."""

_CHUNK = 4096

ROWS_MAX = 200_000
"""Of a longer file so many rows are taken, evenly spaced."""

_SAMPLED = 2.0
"""Where fraud's share in the file is so many times off the declared one, the file was sampled."""


@dataclass(frozen=True)
class Columns:
    """Which column of the file is what; where left out, as product.yaml says, or by its name."""

    label: Annotated[str | None, Parameter(help="Says which payments were fraud.")] = None
    fraud: Annotated[str | None, Parameter(help="The label's value that means fraud.")] = None
    amount: Annotated[str | None, Parameter(help="The amount, in major units.")] = None
    category: Annotated[str | None, Parameter(help="The MCC.")] = None
    cluster: Annotated[str | None, Parameter(help="The customer or card.")] = None
    time: Annotated[str | None, Parameter(help="When it was paid.")] = None


Data = Annotated[
    Path, Parameter(help="Parquet or CSV of labelled payments, with the model's features.")
]
FileColumns = Annotated[Columns, Parameter(name="*")]
ArmName = Annotated[
    str | None, Parameter(name="--arm", help="A challenger's name; where left out, the champion.")
]


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """n labelled payments with what the model and the policy of one arm make of them.

    `key` is the arm's place in product.yaml. `score` is the model's; `scaled` as a calibration map
    takes it. `served` is P(fraud) as it is answered. `weight` makes of a sample what is served,
    at the share of fraud `serving`; `is_sampled` says whether that differs from the file's own,
    `share`. `without_score` rows of the file had no score that the map takes: the server would
    stand in for them.
    """

    generation: Generation
    arm: Arm
    declared: Champion | Challenger
    key: str
    labelled: Labelled
    scaled: Floats
    served: Floats
    calendar: Floats
    weight: Floats
    share: float
    serving: float
    is_sampled: bool
    without_score: int
    stakes: Stakes

    @property
    def frauds(self) -> int:
        """How many of the payments were fraud."""
        return self.labelled.frauds

    @property
    def base(self) -> Path:
        """The product's folder."""
        return Path(self.generation.product.source.path).parent

    @property
    def is_bounded(self) -> bool:
        """Whether the map that is served takes scores in 0..1 only."""
        low, high = self.arm.policy.calibration.domain
        return bool(np.isfinite(low) and np.isfinite(high))


def scored(folder: Path, data: Path, columns: Columns, arm_name: str | None) -> Scored:
    """Read labelled payments, score them, and say what is served for them today.

    Raises:
        UsageError: no such arm, or the file does not fit the product.
        ProductError, ModelError: as `load_generation`; or the model gives no score.
    """
    with notes.status("loading the product"):
        generation = load_generation(folder)
        arm, declared, key = _arm(generation, arm_name)
    with notes.status("reading the labelled payments"):
        given = LabelledColumns(**asdict(columns))
        labelled = read_labelled(
            data, generation.product, given, schema=generation.schema, rows_max=ROWS_MAX
        )
    score = _scores(arm, labelled)
    policy = arm.policy
    served = probabilities(policy, score, labelled.event_s)
    takes = ~np.isnan(served)
    if not takes.any():
        raise ModelError(
            f"gives no score that its calibration takes, for any of {len(score):,} payments",
            subject=f"{key} ({arm.name})",
            hint=f"gateway check {folder}",
        )
    labelled, served = labelled.of(takes), served[takes]
    # What lies outside by rounding counts as the edge, as when it is served.
    score = np.clip(score[takes], policy.score_low, policy.score_high)
    if not labelled.is_fraud.any() or labelled.is_fraud.all():
        raise UsageError(
            f"all of its {len(score):,} payments are {'fraud' if labelled.frauds else 'genuine'}",
            subject=labelled.path,
            hint="Name the column that says which were fraud, and its value: --label, --fraud.",
        )
    calendar = np.array([policy.odds_ratio(event_s) for event_s in labelled.event_s.tolist()])
    share = labelled.frauds / len(labelled)
    serving, is_sampled = _serving(declared, share)
    return Scored(
        generation=generation,
        arm=arm,
        declared=declared,
        key=key,
        labelled=labelled,
        scaled=_scaled(declared, score, bounded=bool(np.isfinite(policy.calibration.domain[0]))),
        served=served,
        calendar=calendar / policy.base_odds_ratio,
        weight=np.where(labelled.is_fraud, serving / share, (1.0 - serving) / (1.0 - share)),
        share=share,
        serving=serving,
        is_sampled=is_sampled,
        without_score=int((~takes).sum()),
        stakes=stakes_of(
            policy,
            labelled.amount_minor,
            classes_of(policy, labelled.amount_minor, labelled.category.tolist()),
        ),
    )


def told(one: Scored) -> Sequence[str]:
    """Return what there is to say of the payments, in lines."""
    labelled = one.labelled
    used = labelled.columns.model_dump(exclude_none=True)
    clusters = len(np.unique(labelled.cluster))
    lines = [
        f"{one.generation.name}: {one.arm.name} {one.arm.classifier.version} on "
        f"{len(labelled):,} labelled payments, {one.frauds:,} of them fraud ({one.share:.3%})",
        "columns: "
        + ", ".join(f"{role} {name}" for role, name in used.items())
        + f"; {clusters:,} "
        + ("customers" if labelled.columns.cluster else "payments, each taken as independent"),
    ]
    if labelled.rows_in_file > len(labelled) + one.without_score:
        lines.append(f"of {labelled.rows_in_file:,} rows in the file")
    lines += [f"left out: {reason}" for reason in labelled.left_out]
    if one.without_score:
        lines.append(
            f"left out: {one.without_score:,} payments without a score that the map takes; the "
            "server would stand in for them"
        )
    gate = one.generation.product.models.gates.calibration.path
    if gate is not None and _same(one.base / gate, Path(labelled.path)):
        lines.append(
            "these are the payments that the gates look at, too: what is fitted to them will hold "
            "there a little better than it will in traffic"
        )
    if one.is_sampled:
        lines.append(
            f"the file was sampled: product.yaml serves {one.serving:.3%} of fraud, so payments "
            "are weighted to that"
        )
    return lines


def described(one: Scored) -> dict[str, object]:
    """Return the same as JSON values."""
    labelled = one.labelled
    return {
        "path": labelled.path,
        "payments": len(labelled),
        "frauds": one.frauds,
        "share_of_fraud": one.share,
        "share_served": one.serving,
        "weighted": one.is_sampled,
        "clusters": len(np.unique(labelled.cluster)),
        "rows_in_file": labelled.rows_in_file,
        "without_score": one.without_score,
        "left_out": [str(reason) for reason in labelled.left_out],
        "columns": labelled.columns.model_dump(exclude_none=True),
    }


def progress() -> Progress:
    """Return a bar on stderr, which goes when it is done."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        console=notes,
        transient=True,
        disable=not notes.is_terminal,
    )


def _same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


def _arm(generation: Generation, name: str | None) -> tuple[Arm, Champion | Challenger, str]:
    arms = list(zip(generation.arms, arms_in(generation.product), strict=True))
    for arm, (key, declared) in arms:
        if name is None or arm.name == name:
            return arm, declared, key
    names = ", ".join(arm.name for arm, _ in arms)
    raise UsageError(f"{generation.name} has no model {name!r}", hint=f"Its models are {names}.")


def _scores(arm: Arm, labelled: Labelled) -> Floats:
    """Return the score of each payment; NaN where there is none."""
    scores: list[Floats] = []
    with progress() as bar:
        task = bar.add_task("scoring", total=len(labelled))
        for begin in range(0, len(labelled), _CHUNK):
            scores.append(scores_of(arm.classifier.score, labelled.rows[begin : begin + _CHUNK]))
            bar.advance(task, _CHUNK)
    return np.concatenate(scores)


def _scaled(declared: Champion | Challenger, score: Floats, *, bounded: bool) -> Floats:
    if declared.scale is None:
        return score
    genuine, fraud = declared.scale
    t = (score - genuine) / (fraud - genuine)
    return np.clip(t, 0.0, 1.0) if bounded else t


def _serving(declared: Champion | Challenger, share: float) -> tuple[float, bool]:
    """Return fraud's share in traffic, and whether the file has another one on purpose."""
    rate = declared.base_rate
    if rate is None or 1 / _SAMPLED <= share / rate.serving <= _SAMPLED:
        return share, False
    return rate.serving, True
