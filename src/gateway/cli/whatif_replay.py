"""A journal's decisions under two generations: read, scored where they must be, and compared."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from gateway.cli.recorded import Recording, Seen, segment_reader
from gateway.cli.rescored import LEFT_OUT, Scorer
from gateway.cli.terms import money
from gateway.errors import UsageError
from gateway.evaluate.ledger import BANDS_MAJOR, Ledger, Side
from gateway.evaluate.whatif import Comparison, compared
from gateway.model import Generation
from gateway.product import minor_per_major

SEED = 0
"""Of the bootstrap: the same journal gives the same intervals."""

_RUNS = 300
_OF_THE_REQUEST = ("channel", "currency", "category")


@dataclass(frozen=True, slots=True)
class Replay:
    """A journal under two generations.

    `left_out`: why and how many decisions could not be replayed. `reused` scores are the
    records', `rescored` were made anew. `row_us`: p50 and p99 of OLD's and NEW's model for a row,
    measured here, where the models differ. `elapsed_us`, `infer_us`: of the records.
    """

    old: Generation
    new: Generation
    comparison: Comparison
    seen: Seen
    left_out: Counter[str]
    reused: int
    rescored: int
    row_us: tuple[Mapping[str, float], ...] | None
    elapsed_us: Mapping[str, float]
    infer_us: Mapping[str, float]
    band_names: tuple[str, ...]

    @property
    def currency(self) -> str:
        """Of all its money."""
        return self.new.product.costs.currency

    def money(self, minor: float, *, sign: bool = False) -> str:
        """Say an amount of minor units."""
        said = money(abs(minor) if sign else minor, self.currency, minor_per_major(self.currency))
        return f"{'+' if minor > 0 else '-' if minor < 0 else ''}{said}" if sign else said

    @property
    def believes_otherwise(self) -> bool:
        """Whether the two sides see other probabilities: expected costs cannot say who is right."""
        return _beliefs(self.old) != _beliefs(self.new)


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


def changed_keys(old: Generation, new: Generation) -> tuple[str, ...]:
    """Return the keys of product.yaml that differ, by their dotted paths, but `generation`."""
    one = dict(_leaves(old.product.model_dump(mode="json"), ()))
    other = dict(_leaves(new.product.model_dump(mode="json"), ()))
    keys = dict.fromkeys((*one, *other))
    nothing = object()
    return tuple(
        ".".join(key)
        for key in keys
        if key != ("generation",) and one.get(key, nothing) != other.get(key, nothing)
    )


def _leaves(value: Any, key: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict) and value:
        for name, child in value.items():
            yield from _leaves(child, (*key, str(name)))
    else:
        yield key, repr(value)


def day_and_time(seconds: float) -> str:
    """Return a wall-clock time as text, UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(sep=" ", timespec="seconds")[:19]


def _beliefs(generation: Generation) -> tuple[object, ...]:
    champion, policy = generation.product.models.champion, generation.policy
    return (
        generation.champion.digest,
        champion.output,
        policy.calibration,
        champion.base_rate,
        generation.product.calendar,
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
