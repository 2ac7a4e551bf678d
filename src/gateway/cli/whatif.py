"""`gateway whatif`: what a changed product folder would have decided about recorded traffic."""

from __future__ import annotations

import json as json_codec
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from gateway.cli.terms import Json, notes, save
from gateway.cli.whatif_answer import as_markdown, show, verdict
from gateway.cli.whatif_object import as_object
from gateway.cli.whatif_picture import flips_picture
from gateway.cli.whatif_replay import replayed
from gateway.errors import ExitCode, UsageError
from gateway.model import Generation, load_generation
from gateway.model.registry import STORE, Registry


def whatif(
    *folders: Annotated[
        Path,
        Parameter(
            name="[OLD] NEW",
            help="Product folders. OLD may be left out: then it is what was served last.",
        ),
    ],
    journal: Annotated[Path, Parameter(help="The folder that serve was given as --journal.")] = (
        Path("journal")
    ),
    labels: Annotated[
        Path | None,
        Parameter(help="Known outcomes: a Parquet file or CSV with transaction_id and a label."),
    ] = None,
    label: Annotated[
        str | None, Parameter(help="The column of --labels that is the label.")
    ] = None,
    fraud: Annotated[str | None, Parameter(help="The label's value that means fraud.")] = None,
    markdown: Annotated[
        Path | None,
        Parameter(
            allow_leading_hyphen=True,
            help="Write the Markdown for a pull request here; - is stdout.",
        ),
    ] = None,
    picture: Annotated[Path | None, Parameter(help="Draw the flips as an SVG.")] = None,
    json: Json = False,
) -> int:
    """Replay recorded decisions under a changed product folder: flips, cost, latency, stand-ins.

    Nothing is served and nothing is asked of a gateway. Scores are taken from the records where
    the model is the same one, else made from the recorded features.
    """
    if json and markdown == Path("-"):
        raise UsageError(
            "--json and --markdown - both want stdout", hint="Write one of them to a file."
        )
    old_folder, new_folder = _folders(folders, journal)
    old, new = load_generation(old_folder), load_generation(new_folder)
    _expect_comparable(old, new, new_folder)
    known = None
    if labels is not None:
        # Only who gives labels pays for what reads tables.
        from gateway.cli.outcomes import read_outcomes

        known = read_outcomes(labels, label, fraud)
    with _bar(json or markdown == Path("-")) as progress:
        replay = replayed(old, new, journal, labels=known, progress=progress)
    if picture is not None:
        save(picture, flips_picture(replay))
    names = (str(old_folder), str(new_folder))
    if markdown is not None and markdown != Path("-"):
        save(markdown, as_markdown(replay), "Wrote")
    if json:
        print(json_codec.dumps(as_object(replay, names, verdict(replay)), indent=2))
    elif markdown == Path("-"):
        print(as_markdown(replay), end="")
    else:
        show(replay, names)
        if markdown is None:
            given = " ".join(map(str, folders))
            notes.print(
                f"Next: gateway whatif {given} --journal {journal} --markdown -", markup=False
            )
    return ExitCode.OK


def _folders(folders: Sequence[Path], journal: Path) -> tuple[Path, Path]:
    if not 1 <= len(folders) <= 2:
        raise UsageError(
            f"takes one or two product folders, not {len(folders)}",
            subject="whatif",
            hint="gateway whatif models/card-present changed/card-present --journal journal",
        )
    if len(folders) == 2:
        return folders[0], folders[1]
    from gateway.model import read_product

    (new,) = folders
    registry, name = Registry(journal / STORE), read_product(new).name
    state = registry.state(name)
    if state is None:
        raise UsageError(
            f"keeps no served generation of {name} to compare with",
            subject=str(journal),
            hint=f"Name the old folder as well: gateway whatif OLD {new} --journal {journal}",
        )
    return registry.path(name, state.serving.snapshot), new


def _expect_comparable(old: Generation, new: Generation, new_folder: Path) -> None:
    for what, one, other in (
        ("product", old.name, new.name),
        ("currency", old.product.costs.currency, new.product.costs.currency),
    ):
        if one != other:
            raise UsageError(
                f"its {what} is {other}, the other folder's is {one}",
                subject=str(new_folder),
                hint=f"Two generations of one product in one {'currency'} can be compared.",
            )


@contextmanager
def _bar(quiet: bool) -> Iterator[Callable[[float], None]]:
    with Progress(
        TextColumn("Replaying the journal"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=notes,
        disable=quiet or not notes.is_terminal,
        transient=True,
    ) as progress:
        task = progress.add_task("", total=1.0)
        yield lambda share: progress.update(task, completed=share)
