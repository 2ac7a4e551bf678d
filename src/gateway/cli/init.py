"""`gateway init`."""

from __future__ import annotations

import csv
import json as json_codec
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number
from rich.markup import escape
from rich.table import Table

from gateway.cli.terms import Json, notes, out
from gateway.errors import ExitCode, GatewayError, UsageError
from gateway.model import Generation
from gateway.product import Limits, Output
from gateway.scaffold import Asked, Sketch, Written, checked, write_product

_RIVALS_MAX = 6
_LEFT_OUT_MAX = 8


def init(
    model: Annotated[Path, Parameter(name="MODEL", help="The ONNX file.")],
    folder: Annotated[Path, Parameter(name="DIR", help="The folder to write: new, or empty.")],
    /,
    *,
    data: Annotated[
        Path | None,
        Parameter(
            help="CSV or Parquet with the columns that feed the model, and a label if there is one."
        ),
    ] = None,
    label: Annotated[
        str | None, Parameter(help="The data's column that says which payments were fraud.")
    ] = None,
    fraud: Annotated[str | None, Parameter(help="The label's value that means fraud.")] = None,
    features: Annotated[
        str | None,
        Parameter(help="The data's columns that feed the model, in its order: a,b,c or A..B."),
    ] = None,
    output: Annotated[
        str | None, Parameter(help="The output that is the score, such as 'probabilities[1]'.")
    ] = None,
    name: Annotated[
        str | None, Parameter(help="The product's name; where left out, the folder's.")
    ] = None,
    force: Annotated[
        bool,
        Parameter(negative="", help="Write into a folder that is not empty, over its own files."),
    ] = False,
    load_s: Annotated[
        float | None,
        Parameter(validator=Number(gte=0.1, lte=3600), help="Seconds that opening it may take."),
    ] = None,
    memory_mib: Annotated[
        int | None,
        Parameter(validator=Number(gte=16, lte=1 << 20), help="Memory that opening it may take."),
    ] = None,
    file_mib: Annotated[
        int | None, Parameter(validator=Number(gte=1, lte=1 << 11), help="What the file may have.")
    ] = None,
    json: Json = False,
) -> int:
    """Write a product's folder for any ONNX classifier, of what its file and its data tell.

    What is guessed says so with its evidence; what cannot be known is asked for in comments.
    The folder gets product.yaml, the model, golden.json by a bare `session.run`, and
    request.json, an example for `gateway decide`.

    Exit code 4 where the model can be no product: also where neither labels nor the file nor
    --output say which of its outputs is the score.
    """
    asked = Asked(
        model=model,
        folder=folder,
        data=data,
        label=label,
        fraud=fraud,
        features=_listed(features),
        output=_output(output),
        name=name,
        force=force,
        limits=_limits(load_s=load_s, memory_mib=memory_mib, file_mib=file_mib),
    )
    with notes.status("") as status:
        written = write_product(asked, say=lambda doing: status.update(escape(doing)))
        try:
            generation = checked(written)
        except GatewayError as error:
            left = f"It was written: mend {folder}/product.yaml, then gateway check {folder}"
            error.hint = f"{error.hint}\n{left}" if error.hint else left
            raise
    if json:
        print(json_codec.dumps(_summary(written, generation), indent=2))
        return ExitCode.OK
    _print(written, generation)
    notes.print(f"Next: gateway check {folder}", markup=False)
    return ExitCode.OK


def _limits(**given: float | None) -> Limits:
    return Limits(**{name: value for name, value in given.items() if value is not None})


def _listed(features: str | None) -> tuple[str, ...]:
    """Return names set apart by commas; one that has a comma itself stands in quotes."""
    names = next(csv.reader([features or ""], skipinitialspace=True), [])
    return tuple(name.strip() for name in names if name.strip())


def _output(output: str | None) -> Output | None:
    if output is None:
        return None
    found = re.fullmatch(r"([^\[\]]+)(?:\[([^\[\]]+)\])?", output)
    if found is None:
        raise UsageError(
            f"--output {output!r} is no output", hint="Such as 'probabilities[1]', in quotes."
        )
    name, column = found.groups()
    is_number = column is not None and re.fullmatch(r"-?\d{1,9}", column)
    return Output(name, int(column) if is_number else column)


def _summary(written: Written, generation: Generation) -> dict[str, Any]:
    """Return what init found, as JSON values."""
    sketch = written.sketch
    chosen, label = sketch.chosen, sketch.label
    auc = chosen.candidate.auc
    return {
        "product": written.name,
        "folder": str(written.folder),
        "digest": generation.digest,
        "features": len(generation.product.columns),
        "schema_fingerprint": generation.schema.fingerprint,
        "columns": {"why": sketch.plan.why, "left_out": list(sketch.plan.left_out)},
        "label": None
        if label is None
        else {"name": label.name, "fraud": label.value, "why": label.why},
        "output": {
            "name": chosen.candidate.spelling,
            "why": chosen.why,
            "scale": chosen.scale,
            "calibration": chosen.calibration,
            "notes": list(chosen.notes),
            "auc": auc if auc == auc else None,
            "base_rate": chosen.base_rate,
            "expected_rate": chosen.expected,
        },
        "golden_rows": len(sketch.scores),
        "asks": list(written.questions),
    }


def _print(written: Written, generation: Generation) -> None:
    champion, golden = generation.champion, generation.golden
    vectors = f", {golden.rows} golden vectors" if golden is not None else ""
    out.print(f"[bold]{escape(written.name)}[/bold] in {escape(str(written.folder))}")
    out.print(f"  model {escape(champion.name)} ({champion.digest[:12]}…){vectors}")
    out.print(
        f"  {len(generation.product.columns)} features, schema fingerprint "
        f"{generation.schema.fingerprint}\n"
    )
    guesses = _table("", "guess", "evidence")
    for guess in _guesses(written.sketch):
        guesses.add_row(*map(escape, guess))
    out.print(guesses)
    chosen = written.sketch.chosen.candidate
    others = [one for one in written.sketch.found if one is not chosen]
    if others:
        rivals = _table("\noutput", "\nrange", "\nAUC", "\nlooks like")
        for one in (chosen, *others[: _RIVALS_MAX - 1]):
            ranks = f"{one.auc:.3f}" if one.auc == one.auc else ""
            mark = " ◀" if one is chosen else ""
            rivals.add_row(f"{escape(one.spelling)}{mark}", one.span, ranks, escape(one.why))
        out.print(rivals)
    out.print(f"\nproduct.yaml asks {len(written.questions)} questions:")
    for question in written.questions:
        out.print(f"  {escape(question)}", soft_wrap=True)
    out.print()


def _table(*headings: str) -> Table:
    return Table(*headings, box=None, pad_edge=False, padding=(0, 2, 0, 0))


def _guesses(sketch: Sketch) -> Iterator[tuple[str, str, str]]:
    """Yield what was guessed: about what, the guess, and its evidence."""
    chosen, label, plan = sketch.chosen, sketch.label, sketch.plan
    left = f"; without {', '.join(plan.left_out[:_LEFT_OUT_MAX])}" if plan.left_out else ""
    more = ", ..." if len(plan.left_out) > _LEFT_OUT_MAX else ""
    yield "features", f"{len(plan.slots)} columns", f"{plan.why}{left}{more}"
    if label is not None:
        yield "label", f"{label.name} = {label.value}", label.why or "as --label names it"
    yield "output", chosen.candidate.spelling, chosen.why
    notes_of = "; ".join(chosen.notes)
    if chosen.scale is not None:
        yield "scale", f"[{chosen.scale[0]:g}, {chosen.scale[1]:g}]", notes_of
    if chosen.calibration is not None:
        yield "calibration", str(chosen.calibration["kind"]), notes_of
    if chosen.base_rate is not None:
        expected = "" if chosen.expected is None else f"the scores expect {chosen.expected:.3%}"
        yield "base rate", f"{chosen.base_rate:.3%}", expected
