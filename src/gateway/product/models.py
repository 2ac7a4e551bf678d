"""models: which ONNX files score, and how a score becomes P(fraud)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field

from gateway.product.gates import Gates
from gateway.product.rule import (
    FilePath,
    Name,
    Number,
    OutputName,
    Scale,
    Sha256,
    Share,
    Text,
    number,
    whole,
)
from gateway.product.section import Problem, Section

_PARAMETERS = {
    "identity": (),
    "platt": ("a", "b"),
    "isotonic": ("x", "y"),
    "beta": ("a", "b", "c"),
    "logistic": ("a", "b"),
}
_SUM_SLACK = 1e-9

BaseRateShare = Annotated[float, number(1e-9, 1 - 1e-9)]


def _stem(champion: dict[str, Any]) -> str:
    return PurePosixPath(champion.get("path", "")).stem


def _file(challenger: dict[str, Any]) -> str:
    return f"{challenger.get('name', '')}.onnx"


class CalibrationSource(Section):
    """Where the map from score to probability is: inline parameters, or a JSON file."""

    kind: Literal["identity", "platt", "isotonic", "beta", "logistic"] = Field(
        description="The form of the map. platt and beta take the log-odds of a score in 0..1; "
        "logistic is sigmoid(a·score + b) of any score; isotonic goes by points."
    )
    path: FilePath | None = Field(
        None, description="JSON file with the parameters, instead of writing them here."
    )
    a: Number | None = Field(
        None, description="platt, logistic: slope of the log-odds. beta: a of a·ln s."
    )
    b: Number | None = Field(None, description="platt, logistic: intercept. beta: b of b·ln(1−s).")
    c: Number | None = Field(None, description="beta: intercept.")
    x: tuple[Number, ...] | None = Field(
        None, description="isotonic: scores, rising strictly, at least two."
    )
    y: tuple[Share, ...] | None = Field(
        None, description="isotonic: the probability at each x, never falling."
    )

    @property
    def parameters(self) -> Mapping[str, object] | None:
        """The parameters given inline by name, or None where they are in the file `path`."""
        if self.path is not None:
            return None
        return {name: getattr(self, name) for name in _PARAMETERS[self.kind]}

    def problems(self) -> Iterator[Problem]:
        """Say which parameters are missing or too many, and where the map would fall."""
        wanted = _PARAMETERS[self.kind]
        given = [name for name in ("a", "b", "c", "x", "y") if getattr(self, name) is not None]
        if self.path is not None and (given or self.kind == "identity"):
            yield Problem(
                ("path",),
                "stands beside parameters." if given else "belongs to no identity map.",
                "Give the path or the parameters." if given else "Leave it out.",
            )
        elif self.path is None:
            for name in wanted:
                if name not in given:
                    yield Problem((name,), "is missing.", f"A {self.kind} map needs it, or a path.")
            for name in given:
                if name not in wanted:
                    yield Problem((name,), f"is no parameter of a map of kind {self.kind}.")
        yield from self._shape_problems()

    def _shape_problems(self) -> Iterator[Problem]:
        if self.kind == "platt" and self.a is not None and self.a <= 0:
            yield Problem(("a",), f"is {self.a:g}, must be more than 0.", "Else the map falls.")
        if self.kind == "logistic" and self.a == 0:
            yield Problem(
                ("a",), "is 0: every score would mean the same.", "Below 0 where low is fraud."
            )
        if self.kind == "beta":
            for name in ("a", "b"):
                slope = getattr(self, name)
                if slope is not None and slope < 0:
                    yield Problem(
                        (name,), f"is {slope:g}, must be 0 or more.", "Else the map falls."
                    )
        if self.x is not None and self.y is not None:
            if len(self.x) != len(self.y) or len(self.x) < 2:
                yield Problem(
                    ("y",),
                    f"has {len(self.y)} values for {len(self.x)} of x.",
                    "Both need the same number, at least 2.",
                )
            if any(right <= left for left, right in pairwise(self.x)):
                yield Problem(("x",), "must rise strictly.")
            if any(right < left for left, right in pairwise(self.y)):
                yield Problem(("y",), "must never fall.")


class BaseRate(Section):
    """Fraud's share where the model was calibrated, and where it serves."""

    calibrated_at: BaseRateShare = Field(
        description="Share of fraud in the data that the calibration map was fitted on."
    )
    serving: BaseRateShare = Field(
        description="Share of fraud in the traffic to be served; the odds are moved to it."
    )


_SCALE = (
    "The output's values that mean surely genuine and surely fraud, where these are not 0 and 1: "
    "[0, 100], or [1, 0] for P(genuine)."
)


class Limits(Section):
    """What a model's file may take of a child process that opens it before it serves."""

    load_s: Annotated[float, number(0.1, 3600)] = Field(
        30.0, description="Seconds to read it, open it and score a few rows."
    )
    memory_mib: Annotated[int, whole(16, 1 << 20)] = Field(
        2048, description="MiB of memory while it is opened and scored."
    )
    file_mib: Annotated[int, whole(1, 1 << 11)] = Field(512, description="MiB of its file.")


class Champion(Section):
    """The deciding model."""

    name: Name = Field("champion", description="The model's name in answers, records and reports.")
    path: FilePath = Field(description="The ONNX file, in the product's folder.")
    version: Text = Field(
        default_factory=_stem,
        description="The model's version. Where left out, the stem of the file's name.",
    )
    sha256: Sha256 = Field(
        description="Digest of the ONNX file. Another file under the same name is refused."
    )
    output: OutputName = Field(
        description="The output that holds the score, with its column where it has several."
    )
    scale: Scale | None = Field(None, description=_SCALE)
    calibration: CalibrationSource = Field(
        CalibrationSource(kind="identity"), description="Map from score to probability."
    )
    base_rate: BaseRate | None = Field(
        None, description="Shift from the base rate of the calibration data to the served one."
    )
    golden: FilePath | None = Field(
        None, description="JSON of features and expected scores, checked before the model serves."
    )


class Challenger(Section):
    """A rival of the champion: scored only (shadow), or deciding a share (canary)."""

    name: Name = Field(description="The model's name; no other model of the product has it.")
    path: FilePath = Field(
        default_factory=_file, description="The ONNX file. Where left out, the name with `.onnx`."
    )
    version: Text = Field(
        default_factory=_stem,
        description="The model's version. Where left out, the stem of the file's name.",
    )
    sha256: Sha256 | None = Field(None, description="Digest of the ONNX file.")
    output: OutputName | None = Field(
        None, description="The output that holds the score; where left out, as the champion's."
    )
    scale: Scale | None = Field(None, description=_SCALE)
    calibration: CalibrationSource = Field(
        CalibrationSource(kind="identity"), description="Map from score to probability."
    )
    base_rate: BaseRate | None = Field(
        None, description="Shift from the base rate of the calibration data to the served one."
    )
    golden: FilePath | None = Field(
        None, description="JSON of features and expected scores, checked before the model serves."
    )
    mode: Literal["shadow", "canary"] = Field(
        description="shadow: scored, never acted on. canary: decides its share of the traffic."
    )
    share: Share | None = Field(
        None,
        description="Share of the traffic. Needed by a canary; a shadow scores all by default.",
    )

    def problems(self) -> Iterator[Problem]:
        """A canary needs its share."""
        if self.mode == "canary" and not self.share:
            yield Problem(("share",), "is missing.", "A canary decides a share, such as 5%.")


class Models(Section):
    """The champion and its challengers."""

    champion: Champion = Field(description="The model that decides.")
    challengers: tuple[Challenger, ...] = Field(
        (), description="Models that run beside the champion, to be compared with it."
    )
    limits: Limits = Field(Limits(), description="What a file may take while it is opened.")
    gates: Gates = Field(Gates(), description="What a model must hold before it decides.")

    def problems(self) -> Iterator[Problem]:
        """Names are unique; canaries leave the champion some traffic."""
        names = [self.champion.name]
        for i, challenger in enumerate(self.challengers):
            if challenger.name in names:
                yield Problem(
                    ("challengers", i, "name"),
                    f"is {challenger.name!r}, as another model's.",
                    "Give each model its own name.",
                )
            names.append(challenger.name)
        taken = sum(c.share or 0.0 for c in self.challengers if c.mode == "canary")
        if taken > 1 + _SUM_SLACK:
            yield Problem(("challengers",), f"take {taken:g} of the traffic, must leave 1 or less.")
