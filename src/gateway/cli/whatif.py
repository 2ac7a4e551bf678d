"""`gateway whatif`: what a changed product folder would have decided about recorded traffic."""

from __future__ import annotations

import json as json_codec
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from cyclopts import Parameter
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from gateway.cli.recorded import Recording, segment_reader
from gateway.cli.rescored import LEFT_OUT, Scorer
from gateway.cli.terms import Json, notes
from gateway.cli.whatif_answer import Replay, as_markdown, as_object, show
from gateway.cli.whatif_picture import flips_picture
from gateway.errors import ExitCode, UsageError
from gateway.evaluate.replay import BANDS_MAJOR, Ledger, Side
from gateway.evaluate.whatif import compared
from gateway.model import Generation, load_generation
from gateway.model.registry import Registry
from gateway.product import minor_per_major

SEED = 0
"""Of the bootstrap: the same journal gives the same intervals."""

_RUNS = 300
_OF_THE_REQUEST = ("channel", "currency", "category")


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
        Path | None, Parameter(help="Write the Markdown for a pull request here; - is stdout.")
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
        _write(picture, flips_picture(replay), "Drew")
    names = (str(old_folder), str(new_folder))
    if markdown is not None and markdown != Path("-"):
        _write(markdown, as_markdown(replay, names), "Wrote")
    if json:
        print(json_codec.dumps(as_object(replay, names), indent=2))
    elif markdown == Path("-"):
        print(as_markdown(replay, names), end="")
    else:
        show(replay, names)
        if markdown is None:
            given = " ".join(map(str, folders))
            notes.print(
                f"Next: gateway whatif {given} --journal {journal} --markdown -", markup=False
            )
    return ExitCode.OK


def replayed(
    old: Generation,
    new: Generation,
    journal: Path,
    *,
    labels: Any = None,
    progress: Callable[[float], None] = lambda _: None,
) -> Replay:
    """Replay a journal's decisions of a product under both generations.

    Raises:
        JournalError: the journal cannot be read.
        UsageError: it holds no decision of the product that can be replayed.
    """
    product = new.product
    unit = minor_per_major(product.costs.currency)
    same_model = _model(old) == _model(new)
    rules_are_other = old.product.features != product.features
    is_rescored = not same_model or rules_are_other
    took_us = None if same_model else (_row_us(old), _row_us(new))
    row_us = (0.0, 0.0) if took_us is None else tuple(float(np.median(one)) for one in took_us)
    ledger = Ledger(
        Side.of(old.product, old.policy, row_us[0]),
        Side.of(product, new.policy, row_us[1]),
        unit,
        labels,
    )
    placed = _Placed()
    schemas = (old.schema, new.schema)
    watched = {
        name: segment_reader(
            feature,
            {
                schema.fingerprint: [one.name for one in schema.features].index(name)
                for schema in schemas
                if name in [one.name for one in schema.features]
            },
        )
        for name in dict.fromkeys((*product.watch, *old.product.watch))
        if name not in _OF_THE_REQUEST
        for feature in [_feature(name, new, old)]
        if feature is not None
    }
    recording = Recording(
        journal,
        product.name,
        watched=watched,
        replied=lambda boot, sequences: ledger.mark_in_time(placed.rows(boot, sequences)),
    )
    scorers = (
        Scorer(old, schemas, rules_are_other=False),
        Scorer(new, schemas, rules_are_other=rules_are_other),
    )
    left_out: Counter[str] = Counter()
    elapsed, infer = _Quantiles(), _Quantiles()
    category_names: list[str] = []
    for part in recording.parts(progress):
        a_scores, why = scorers[0].scores(part)
        b_scores = a_scores
        if is_rescored:
            b_scores, b_why = scorers[1].scores(part)
            why = np.maximum(why, b_why)
        left_out.update(LEFT_OUT[code] for code in why[why > 0].tolist())
        decided = part.payments.stand_in == 0
        elapsed.add(part.answered.elapsed_us[decided])
        infer.add(part.infer_us[decided])
        rows = np.flatnonzero(why == 0)
        if not len(rows):
            continue
        payments, answered = part.payments, part.answered
        categories = _categories(new, old, payments, category_names)
        if len(rows) < len(why):
            payments, answered = payments.of(rows), answered.of(rows)
            a_scores, b_scores, categories = a_scores[rows], b_scores[rows], categories[rows]
        first = ledger.add(payments, answered.also("category", categories), a_scores, b_scores)
        placed.put(part.where.boot, [part.where.sequences[i] for i in rows.tolist()], first)
    if not ledger.rows:
        raise _nothing(journal, product.name, recording, left_out)
    names = {name: one.texts for name, one in recording.names.items()}
    names["category"] = category_names
    found = compared(ledger, names, band_names(unit), np.random.default_rng(SEED))
    return Replay(
        old=old,
        new=new,
        comparison=found,
        seen=recording.seen,
        left_out=left_out,
        reused=scorers[is_rescored].reused,
        rescored=scorers[is_rescored].rescored,
        row_us=None if took_us is None else tuple(map(_p50_p99, took_us)),
        elapsed_us=elapsed.quantiles(),
        infer_us=infer.quantiles(),
        band_names=band_names(unit),
    )


def band_names(unit: int) -> tuple[str, ...]:
    """Return what the bands of amounts are called, in major units."""
    scale = 100 if unit == 1 else 1
    ends = [f"{major * scale:,}" for major in BANDS_MAJOR]
    between = [f"{low} to {high}" for low, high in pairwise(ends)]
    return (f"up to {ends[0]}", *between, f"above {ends[-1]}")


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
    registry, name = Registry(journal / "generations"), read_product(new).name
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


def _model(generation: Generation) -> tuple[str, object]:
    return generation.champion.digest, generation.product.models.champion.output


def _feature(name: str, *generations: Generation) -> Any:
    features = [one for g in generations for one in g.product.columns if one.name == name]
    return features[0] if features else None


def _categories(new: Generation, old: Generation, payments: Any, names: list[str]) -> Any:
    """Return each payment's category by name, as places in `names`: NEW's, else OLD's."""

    def place(mcc: str) -> int:
        for policy in (new.policy, old.policy):
            index = policy.class_of_mcc.get(mcc, 0)
            if index:
                name = policy.classes[index].name
                break
        else:
            name = "any other"
        if name not in names:
            names.append(name)
        return names.index(name)

    places = np.array([place(mcc) for mcc in payments.categories], dtype=np.int64)
    return places[payments.category]


def _row_us(generation: Generation) -> Any:
    """Measure what the champion takes for a row, on this machine, in microseconds a run."""
    classifier = generation.champion
    took = []
    classifier.row_ns(time.perf_counter_ns)
    for _ in range(_RUNS):
        begun_ns = time.perf_counter_ns()
        classifier.score_one(classifier.example)
        took.append((time.perf_counter_ns() - begun_ns) / 1000)
        if sum(took) > 1e6:
            break
    return np.array(took)


def _p50_p99(took_us: Any) -> dict[str, float]:
    p50, p99 = np.quantile(took_us, [0.5, 0.99]).tolist()
    return {"p50": p50, "p99": p99}


class _Placed:
    """Where decisions went, until it is known whether their replies left in time."""

    def __init__(self) -> None:
        self._runs: dict[tuple[int, bytes], list[tuple[Any, int]]] = {}

    def put(self, boot: tuple[int, bytes], sequences: Sequence[int], first: int) -> None:
        """Remember the rows of the last parts of a boot."""
        runs = self._runs.setdefault(boot, [])
        runs.append((np.array(sequences, dtype=np.int64), first))
        del runs[:-2]  # a reply is told with the next append

    def rows(self, boot: tuple[int, bytes], sequences: Sequence[int]) -> Any:
        """Return the rows of the sequences that are remembered."""
        found: list[int] = []
        for known, first in self._runs.get(boot, ()):
            at = np.searchsorted(known, sequences)
            for i, sequence in zip(at.tolist(), sequences, strict=True):
                if i < len(known) and known[i] == sequence:
                    found.append(first + i)
        return np.array(found, dtype=np.int64)


class _Quantiles:
    """Quantiles of any number of durations, to a hundredth of their size, in bounded memory."""

    def __init__(self) -> None:
        self._edges = np.concatenate(([0.0], np.geomspace(1.0, 1e8, 1852)))
        self._counts = np.zeros(len(self._edges) + 1, dtype=np.int64)

    def add(self, us: Any) -> None:
        """Count durations, (n,), in microseconds."""
        place = np.searchsorted(self._edges, us, side="right")
        self._counts += np.bincount(place, minlength=len(self._counts))

    def quantiles(self) -> dict[str, float]:
        """Return p50 and p99, in microseconds; nothing where nothing was added."""
        total = self._counts.sum()
        if not total:
            return {}
        reached = np.cumsum(self._counts)
        return {
            name: float(self._edges[max(int(np.searchsorted(reached, q * total)) - 1, 0)])
            for name, q in (("p50", 0.5), ("p99", 0.99))
        }


def _nothing(
    journal: Path, product: str, recording: Recording, left_out: Counter[str]
) -> UsageError:
    met = recording.seen.decisions
    why = "; ".join(f"{reason}: {count:,}" for reason, count in left_out.items() if count)
    said = f"{met:,} decisions, none of which can be replayed ({why})" if met else "no decisions"
    return UsageError(
        f"holds {said}, of {product}",
        subject=str(journal),
        hint="Another model needs recorded features: records.features: full."
        if met
        else "gateway journal cat shows what it holds.",
    )


def _write(path: Path, text: str, did: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"cannot be written: {error.strerror}",
            subject=str(path),
            hint="Name a file in a folder that is there.",
        ) from None
    notes.print(f"{did} {path}", markup=False)


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
