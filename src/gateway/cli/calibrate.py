"""`gateway calibrate`."""

from __future__ import annotations

import hashlib
import json as json_codec
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import numpy as np
from cyclopts import Parameter
from rich.markup import escape
from rich.table import Table

from gateway.cli.edited import Write, change_of, print_change, write_keys
from gateway.cli.labelled import (
    SEED,
    ArmName,
    Columns,
    Data,
    FileColumns,
    Scored,
    described,
    progress,
    scored,
    told,
)
from gateway.cli.reliability_picture import reliability_picture
from gateway.cli.terms import Folder, Json, notes, out, save
from gateway.decide.calibration import base_rate_odds_ratio
from gateway.errors import ExitCode, UsageError
from gateway.evaluate.bootstrap import Interval
from gateway.evaluate.candidates import AS_IT_IS, Candidate, Comparison, Sample, compare
from gateway.evaluate.fit import kinds_for
from gateway.model import Generation
from gateway.product import minor_per_major
from gateway.product.edit import arm_key

_FRAUDS_MIN = 20
_NEAR_FRAUDS_MIN = 10


def calibrate(
    folder: Folder,
    /,
    *,
    data: Data,
    columns: FileColumns = Columns(),  # noqa: B008 - frozen
    arm: ArmName = None,
    kind: Annotated[
        str | None,
        Parameter(help="Take this kind of map, whatever the figures say: platt, isotonic, ..."),
    ] = None,
    picture: Annotated[
        Path | None, Parameter(help="Draw reliability as an SVG: what was said, what came.")
    ] = None,
    write: Write = False,
    json: Json = False,
) -> int:
    """Fit maps from score to P(fraud) on labelled payments, and say which to take.

    Payments should be ones that the model was not trained on, old enough for their labels to be
    known, and drawn as they are served. Each kind of map is fitted with clustered
    cross-validation and judged on the customers that it was not fitted to.

    Writes the map beside the model, under a name with its digest: no file that is served changes.
    What product.yaml is to say of it is printed; --write puts it there, too.
    """
    one = scored(folder, data, columns, arm)
    if one.frauds < _FRAUDS_MIN:
        raise UsageError(
            f"has {one.frauds} frauds with a score; {_FRAUDS_MIN} are the least to fit a map to",
            subject=one.labelled.path,
            hint="Give a longer span of payments.",
        )
    sample = sample_of(one)
    with progress() as bar:
        bar.add_task("fitting and drawing", total=None)
        try:
            comparison = compare(sample, one.stakes, np.random.default_rng(SEED), kinds=_kinds(one))
        except ValueError as error:
            raise UsageError(
                f"cannot be cross-validated: {error}",
                subject=one.labelled.path,
                hint="Give payments of more customers.",
            ) from None
    chosen = _chosen(comparison, kind, one.declared.calibration.kind)
    written = _written(one, chosen) if chosen.fitted is not None else None
    values = None if written is None else _values(one, written)
    if picture is not None:
        today = comparison.candidates[0]
        save(picture, reliability_picture(one, sample, today, chosen))
    after = _edited(one, values) if write and values is not None else None
    if json:
        summary = _summary(one, comparison, chosen, values, after)
        print(json_codec.dumps(summary, indent=2))
        return ExitCode.OK
    _print(one, comparison, chosen)
    if values is None:
        out.print(f"Keep the map as it is ({one.declared.calibration.kind}).")
    else:
        print_change(one.generation, one.key, values, after)
    notes.print(f"Next: gateway check {folder}", markup=False)
    return ExitCode.OK


def sample_of(one: Scored) -> Sample:
    """Return the payments as maps are fitted to and judged on."""
    return Sample(
        score=one.scaled,
        fraud=one.labelled.is_fraud,
        amount_minor=one.labelled.amount_minor,
        cluster=one.labelled.cluster,
        weight=one.weight,
        served=one.served,
        odds_ratio=one.calendar * _base_ratio(one),
        calm=one.calendar == 1.0,
    )


def _base_ratio(one: Scored) -> float:
    """Return what a map that is fitted to the file needs, to be at the served base rate."""
    return base_rate_odds_ratio(one.share, one.serving) if one.is_sampled else 1.0


def _kinds(one: Scored) -> tuple[str, ...]:
    if not one.is_bounded:
        return "logistic", "isotonic"
    return kinds_for(one.scaled)


def _chosen(comparison: Comparison, kind: str | None, present: str) -> Candidate:
    if kind is None:
        return comparison.best
    for one in comparison.candidates:
        if one.kind == kind:
            return one
    if kind == present:
        return comparison.candidates[0]
    why = dict(comparison.failed).get(kind)
    names = ", ".join(one.kind for one in comparison.candidates if one.kind != AS_IT_IS)
    if why:
        raise UsageError(f"--kind {kind} cannot be fitted: {why}", hint=f"Others: {names}.")
    raise UsageError(f"--kind {kind!r} is no map for these scores", hint=f"One of {names}.")


def _written(one: Scored, chosen: Candidate) -> Mapping[str, Any]:
    """Write the map beside the model. Return what product.yaml says of it."""
    assert chosen.fitted is not None
    if chosen.kind == "identity":
        return {"kind": "identity"}
    labelled = one.labelled
    content = {
        "kind": chosen.kind,
        **chosen.fitted.parameters,
        "fitted": {
            "model_sha256": one.arm.classifier.digest,
            "data_sha256": _digest_of(Path(labelled.path)),
            "payments": len(labelled),
            "frauds": one.frauds,
            "share_of_fraud": one.share,
        },
    }
    text = json_codec.dumps(content) + "\n"
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    model = PurePosixPath(one.declared.path)
    name = str(model.with_name(f"{model.stem}.calibration-{digest}.json"))
    _write(one.base / name, text)
    return {"kind": chosen.kind, "path": name}


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all. One of that name has the same text: its digest says so."""
    if path.exists():
        return
    try:
        descriptor, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        raise UsageError(f"cannot be written: {error.strerror}", subject=str(path)) from None


def _values(one: Scored, calibration: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what product.yaml is to say under the arm's key.

    Where a base rate is declared the new map has its own: that of the file, moved to what is
    served, which is the same but for a file that was sampled.
    """
    values: dict[str, dict[str, Any]] = {"calibration": dict(calibration)}
    if one.declared.base_rate is not None:
        share = float(f"{one.share:.6g}")
        serving = one.serving if one.is_sampled else share
        values["base_rate"] = {"calibrated_at": share, "serving": serving}
    return values


def _edited(one: Scored, values: Mapping[str, Mapping[str, Any]]) -> Generation:
    source = Path(one.generation.product.source.path)
    place = arm_key(source.read_text(encoding="utf-8"), one.arm.name)
    path = values["calibration"].get("path")
    files = {} if path is None else {path: (one.base / path).read_bytes()}
    keys = {(*place, key): value for key, value in values.items()}
    return write_keys(one.base, keys, files)


def _print(one: Scored, comparison: Comparison, chosen: Candidate) -> None:
    currency = one.generation.product.costs.currency
    unit = minor_per_major(currency)
    for line in told(one):
        out.print(escape(line), soft_wrap=True)
    out.print()
    table = Table(
        *("map", "log loss", "Brier", "came / expected", "near thresholds"),
        *(f"{currency} per 1,000", "against as it is"),
        title="On customers that a map was not fitted to, with 95% intervals",
        title_justify="left",
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    for candidate in comparison.candidates:
        figures = candidate.figures
        mark = " ◀" if candidate is chosen else ""
        kind = candidate.kind
        if kind == AS_IT_IS:
            kind = f"{kind} ({one.declared.calibration.kind})"
        change = _figure(figures.cost_change, ",.2f", 1 / unit, sign=True)
        table.add_row(
            escape(f"{kind}{mark}"),
            _figure(figures.log_loss, ".5f"),
            _figure(figures.brier, ".5f"),
            _figure(figures.observed_over_expected, ".3f"),
            _figure(figures.near, ".3f"),
            _figure(figures.cost, ",.2f", 1 / unit),
            "" if candidate.kind == AS_IT_IS else change,
        )
    out.print(table)
    for kind, why in comparison.failed:
        out.print(f"  {kind} cannot be fitted: {escape(why)}", soft_wrap=True)
    near, frauds = comparison.near
    if chosen is comparison.best:
        out.print(f"  {_why(chosen)}", style="dim", soft_wrap=True)
    if frauds < _NEAR_FRAUDS_MIN:
        out.print(
            f"  [yellow]Near a threshold[/yellow] there are {frauds} frauds among {near:,} "
            "payments: costs say little here, log loss decides",
            soft_wrap=True,
        )
    out.print()


def _why(chosen: Candidate) -> str:
    if chosen.kind == AS_IT_IS:
        return "No map is surely better than the one that is served."
    change = chosen.figures.log_loss_change
    figures = f"{change.value:+.5f}, {change.low:+.5f} to {change.high:+.5f}"
    if change.high < 0.0:
        against = f"its log loss is surely less than as it is ({figures})"
    else:
        against = (
            f"its log loss is less than as it is ({figures}), and as it is surely another number "
            "of frauds came than was expected"
        )
    return (
        f"{chosen.kind} is the simplest map whose log loss and cost are within one standard error "
        f"of the least; {against}."
    )


def _figure(one: Interval, form: str, times: float = 1.0, *, sign: bool = False) -> str:
    plus = "+" if sign else ""
    if not np.isfinite(one.value):
        return "-"
    value = f"{one.value * times:{plus}{form}}"
    low, high = (f"{bound * times:{plus}{form}}" for bound in (one.low, one.high))
    return f"{value}\n[dim]{low} to {high}[/dim]"


def _summary(
    one: Scored,
    comparison: Comparison,
    chosen: Candidate,
    values: Mapping[str, Mapping[str, Any]] | None,
    after: Generation | None,
) -> dict[str, Any]:
    return {
        "product": one.generation.name,
        "generation": one.generation.product.generation,
        "arm": one.arm.name,
        "currency": one.generation.product.costs.currency,
        "data": described(one),
        "as_it_is": one.declared.calibration.kind,
        "maps": [
            {
                "map": candidate.kind,
                "cross_validated": candidate.fitted is not None,
                "log_loss": _json(candidate.figures.log_loss),
                "brier": _json(candidate.figures.brier),
                "observed_over_expected": _json(candidate.figures.observed_over_expected),
                "money_observed_over_expected": _json(candidate.figures.money),
                "near_thresholds": _json(candidate.figures.near),
                "cost_per_1000_minor": _json(candidate.figures.cost),
                "cost_change_per_1000_minor": _json(candidate.figures.cost_change),
                "log_loss_change": _json(candidate.figures.log_loss_change),
            }
            for candidate in comparison.candidates
        ],
        "failed": dict(comparison.failed),
        "near_thresholds": {"payments": comparison.near[0], "frauds": comparison.near[1]},
        "chosen": chosen.kind,
        "product_yaml": None if values is None else change_of(one.key, values, after),
    }


def _json(one: Interval) -> dict[str, float | None]:
    figures = {"value": one.value, "low": one.low, "high": one.high}
    return {name: figure if np.isfinite(figure) else None for name, figure in figures.items()}
