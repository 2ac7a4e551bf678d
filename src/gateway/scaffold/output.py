"""Which output is the score, and what makes a probability of it, with the evidence. Pure.

Candidates are the columns of the outputs that are numbers, the keys of maps, and, last, the
classes of labels. Labels in the data decide; without them form, names and order do, and the
choice is asked about.

Without labels these are a score, and nothing else is guessed to be one:

- probabilities: a column in 0..1, columns whose rows sum to 1, one or two from a Sigmoid;
- columns that the file says are of classes: a ZipMap's, a classifier's, those of listed classes;
- two columns of which one is the other's negative: a margin for and against;
- one or two columns of an output that is named as a score is ("logits", "risk_score");
- the only column, where no other output has just one: log-odds, a distance, an error;
- last, a label.

Several columns of any numbers that nothing names are as likely an embedding, a reconstruction, or a
regression of several targets. So is each of several lone columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.errors import ModelError, UsageError
from gateway.evaluate.fit import fit_logistic
from gateway.model.inputs import TEXT, Port
from gateway.model.outputs import is_label, is_map
from gateway.model.reading import TREES, Reading
from gateway.product import Output
from gateway.scaffold.bare import COLUMNS_MAX, Given
from gateway.scaffold.fit import auc, chance_error
from gateway.scaffold.names import plain

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

PROBABILITY, MARGIN, LABEL = 2, 1, 0
"""Forms of a candidate, the better the higher."""

_FRAUD_CLASSES = ("fraud", "fraudulent", "1", "true", "yes", "bad", "default", "positive", "y")
_TELLING = {"Sigmoid", "HardSigmoid", "Softmax", "Normalizer", *TREES}
_TELLING |= {"LinearClassifier", "SVMClassifier"}
"""Operators that say something of what comes from them."""

_OF_CLASSES = {"LinearClassifier", "SVMClassifier", "TreeEnsembleClassifier"}
_OF_CLASSES |= {"Softmax", "LogSoftmax"}
"""Operators whose columns are of classes, whatever the numbers in them."""

_SIGMOIDS = ("Sigmoid", "HardSigmoid")
"""Operators whose columns are each in 0..1 by themselves."""

_SCORE_WORDS = ("prob", "score", "fraud", "risk")
"""Of names of outputs, of which one is the score."""

_MARGIN_WORDS = (*_SCORE_WORDS, "logit", "margin", "odds", "decision", "anomal", "outlier")
"""Of names of outputs that are scores, if no probabilities."""

_CLASSES_MAX = 10
_LABELS_FROM = 20
"""So many zeros and ones, and nothing else, are labels."""

_SUM_SLACK = 1e-3
_UNIT_SLACK = 1e-6
_OPPOSED_SLACK = 1e-4
"""Of the sum of two opposed columns, as a share of the largest number in them."""

_SURE_ERRORS = 2.0
"""An AUC so many of its standard deviations by chance from 0.5 tells something."""

_WEAK_AUC = 0.6


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """One column of an output: its scores (n,), float64, NaN where the model failed.

    `form`: whether it looks like a probability; `why` says by what. `siblings`: columns of the
    same output; `of_classes`: the file, or their numbers, say that each is a class's. `auc`:
    against the labels, NaN without.
    """

    output: Output
    scores: Floats
    form: int
    siblings: int
    why: str
    klass: str | int | None = None
    of_classes: bool = False
    auc: float = math.nan

    @property
    def spelling(self) -> str:
        """The output as product.yaml has it."""
        name, column = self.output
        return name if column is None else f"{name}[{column}]"

    @property
    def low(self) -> float:
        """The least score."""
        return float(np.nanmin(self.scores))

    @property
    def high(self) -> float:
        """The greatest score."""
        return float(np.nanmax(self.scores))

    @property
    def span(self) -> str:
        """The least and the greatest score."""
        return f"{self.low:.4g}..{self.high:.4g}"


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """The score, and what makes a probability of it.

    `calibration`: kind and parameters, None for a probability as it stands. `why` and `notes`
    are evidence, `asks` what somebody must confirm. `base_rate`: the share of fraud among the
    labels; `expected`: what the probabilities expect it to be.
    """

    candidate: Candidate
    why: str
    scale: tuple[float, float] | None = None
    calibration: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()
    asks: tuple[str, ...] = ()
    base_rate: float | None = None
    expected: float | None = None


def candidates(
    given: Given, mixed: Given, ports: Sequence[Port], read: Reading, fraud: Flags | None
) -> list[Candidate]:
    """Return what may be the score.

    `given`: the outputs for the data, `mixed`: for rows that stand not in them, but could: what
    is a probability is one there too. `fraud` (n,): of the labels, where there are any.
    """
    found: list[Candidate] = []
    for port in ports:
        # An output of such a name cannot be declared.
        if given[port.name] is None or set("[]") & set(port.name):
            continue
        for one in _of_port(port, given[port.name], mixed[port.name], read):
            there = np.isfinite(one.scores)
            if there.any():
                ranks = math.nan if fraud is None else auc(one.scores[there], fraud[there])
                found.append(replace(one, auc=ranks))
    return found


def _of_port(port: Port, given: Any, mixed: Any, read: Reading) -> Iterator[Candidate]:
    if is_map(port):
        yield from _of_maps(port, given)
    elif is_label(port):
        yield from _of_labels(port, given)
    elif given.dtype.kind == "f":
        others = given[:0] if mixed is None or mixed.shape[1:] != given.shape[1:] else mixed
        yield from _of_matrix(port, given.astype(np.float64), others.astype(np.float64), read)


def _of_maps(port: Port, given: Sequence[Mapping[Any, float]]) -> Iterator[Candidate]:
    keys = list(dict.fromkeys(key for row in given[:100] for key in row))
    scores = np.array(
        [[row.get(key, math.nan) for key in keys] for row in given], dtype=np.float64
    ).reshape(len(given), len(keys))
    form, why = _form(scores, "")
    for key, column in zip(keys, scores.T, strict=True):
        word = as_word(key)
        output, why_so = Output(port.name, word), f"{why}, a ZipMap"
        yield Candidate(output, column, form, len(keys), why_so, klass=word, of_classes=True)


def _of_matrix(port: Port, scores: Floats, mixed: Floats, read: Reading) -> Iterator[Candidate]:
    columns = scores.shape[1]
    classes = read.classes_of(columns) or (None,) * columns
    maker = read.makers.get(port.name, "")
    seen = np.concatenate([scores, mixed])
    form, why = _form(seen, maker)
    listed = classes[0] is not None
    sums_to_1 = columns > 1 and form == PROBABILITY and maker not in _SIGMOIDS
    of_classes = listed or sums_to_1 or maker in _OF_CLASSES or _opposed(seen)
    for i, (klass, column) in enumerate(zip(classes, scores.T, strict=True)):
        output = Output(port.name, None if columns == 1 else i)
        yield Candidate(output, column, form, columns, why, klass=klass, of_classes=of_classes)


def _opposed(scores: Floats) -> bool:
    """Return whether these are two columns, and one is the other's negative."""
    there = scores[np.isfinite(scores).all(axis=1)]
    if there.shape[1] != 2 or not there.any():
        return False
    largest = np.abs(there).max()
    return bool((np.abs(there.sum(axis=1)) <= _OPPOSED_SLACK * largest).all())


def _of_labels(port: Port, given: Any) -> Iterator[Candidate]:
    words = [as_word(one) for one in given[:, 0].tolist()]
    classes = sorted({word for word in words if word is not None}, key=str)
    if len(classes) > _CLASSES_MAX and port.type != TEXT:
        # Too many for classes: whole numbers that are a score.
        numbers = given[:, :1].astype(np.float64)
        form, why = _form(numbers, "")
        yield Candidate(Output(port.name), numbers[:, 0], form, 1, why)
        return
    for klass in classes[:_CLASSES_MAX]:
        if not set("[]") & set(str(klass)) and 0 < len(str(klass)) <= 100:
            is_it = np.array([float(word == klass) for word in words])
            why = "a label, 1 where it is"
            yield Candidate(Output(port.name, klass), is_it, LABEL, len(classes), why, klass=klass)


def as_word(label: Any) -> Any:
    """Return a class as product.yaml names it: text, or a whole number."""
    if isinstance(label, bytes):
        return label.decode("utf-8", "replace")
    return int(label) if isinstance(label, bool) else label


def _form(scores: Floats, maker: str) -> tuple[int, str]:
    """Say whether columns (n, k) look like probabilities, and by what."""
    by = f", from {maker}" if maker in _TELLING else ""
    there = scores[np.isfinite(scores).all(axis=1)]
    if not there.size:
        return MARGIN, f"not finite{by}"
    inside = bool(there.min() >= -_UNIT_SLACK and there.max() <= 1 + _UNIT_SLACK)
    if scores.shape[1] > 1:
        if inside and bool((np.abs(there.sum(axis=1) - 1) <= _SUM_SLACK).all()):
            return PROBABILITY, f"rows sum to 1{by}"
        if inside and maker in _SIGMOIDS:
            return PROBABILITY, f"in 0..1{by}"
        return MARGIN, f"rows do not sum to 1{by}"
    if inside and len(there) >= _LABELS_FROM and bool(np.isin(there, (0.0, 1.0)).all()):
        return LABEL, f"0 or 1 and nothing between{by}"
    return (PROBABILITY, f"in 0..1{by}") if inside else (MARGIN, f"not in 0..1{by}")


# The choice.


def choose(
    found: Sequence[Candidate], *, fraud: Flags | None, wanted: Output | None, subject: str
) -> Chosen:
    """Return the score, and what makes a probability of it. `wanted`: the output, if it is named.

    Raises:
        ModelError: nothing that the model gives is a score, or, without labels, is known for one.
        UsageError: `wanted` is no output.
    """
    if not found:
        raise ModelError(
            "none of its outputs is a finite number, a map or a label for each row: they are "
            "NaN, infinite, or of no row's",
            subject=subject,
            hint="Export it with an output [batch, classes] of probabilities.",
        )
    if fraud is not None and (fraud.all() or not fraud.any()):
        fraud = None
    if wanted is not None:
        one = _wanted(found, wanted, subject)
        return _finished(one, fraud, f"as --output names it; {one.span}, {one.why}", ())
    if fraud is None:
        return _by_form(found, subject)
    best_form = max(one.form for one in found)
    return _by_labels([one for one in found if one.form == best_form], fraud)


def _wanted(found: Sequence[Candidate], wanted: Output, subject: str) -> Candidate:
    for one in found:
        same = str(one.output.column) == str(wanted.column)
        if one.output.name == wanted.name and (same or (one.siblings, wanted.column) == (1, 0)):
            return one
    name, column = wanted
    said = name if column is None else f"{name}[{column}]"
    raise UsageError(
        f"has no output {said!r}",
        subject=subject,
        hint=f"--output is one of: {', '.join(one.spelling for one in found[:20])}.",
    )


_TOLD_MAX = 3
"""Of outputs, and of columns, in an error."""

_TIED = 1e-3
"""Candidates whose AUC differs by less rank alike."""


def _by_labels(rivals: Sequence[Candidate], fraud: Flags) -> Chosen:
    def side_of(one: Candidate) -> float:
        return max(one.auc, 1 - one.auc) if one.auc == one.auc else 0.0

    def worth(one: Candidate) -> tuple[bool, float, bool]:
        scores = one.scores
        fits = bool(((scores >= 0.0) & (scores <= 1.0)).all())
        off = abs(float(scores.mean()) - float(fraud.mean())) if fits else 1.0
        return one.auc > 0.5, -round(off, 3), _sounds_like_score(one)

    # P(genuine) beside P(fraud) ranks as well, upside down, and float32 makes other ties of it.
    top = max(map(side_of, rivals))
    best = max((one for one in rivals if side_of(one) > top - _TIED), key=worth)
    side, frauds = max(best.auc, 1 - best.auc), int(fraud.sum())
    tells = side - 0.5 > _SURE_ERRORS * chance_error(frauds, len(fraud) - frauds)
    asks: list[str] = []
    if not tells:
        best = _by_order(rivals)
        asks.append(f"science: is {best.spelling} the score? The labels do not tell.")
    if not side >= _WEAK_AUC:
        asks.append(
            "science: do the data's columns stand in the model's order? AUC "
            f"{side:.3f} is next to chance."
        )
    why = f"AUC {best.auc:.3f} over {len(fraud):,} rows; {best.span}, {best.why}"
    return _finished(best, fraud, why, asks, tells=tells)


def _by_form(found: Sequence[Candidate], subject: str) -> Chosen:
    known = [one for one in found if _is_known(one, found)]
    if not known:
        raise _none_known(found, subject)
    best_form = max(one.form for one in known)
    rivals = [one for one in known if one.form == best_form]
    best = _by_order(rivals)
    sure = len(rivals) == 1 or _sounds_like_fraud(best)
    asks = () if sure else (f"science: is {best.spelling} P(fraud)?",)
    return _finished(
        best, None, f"{_place(best)}, no labels to tell; {best.span}, {best.why}", asks
    )


def _is_known(one: Candidate, found: Sequence[Candidate]) -> bool:
    """Return whether it is known for a score without labels: the rule that stands on top."""
    if one.form == LABEL or one.of_classes:
        return True
    if one.siblings <= 2 and (one.form == PROBABILITY or _sounds_like(one, _MARGIN_WORDS)):
        return True
    alone = [other for other in found if other.form == MARGIN and other.siblings == 1]
    return alone == [one]


def _none_known(found: Sequence[Candidate], subject: str) -> ModelError:
    outputs = list({one.output.name: one for one in found}.values())
    told = [
        f"{one.output.name!r} has {_columns(one)}, {one.why}, and none is named as a class"
        if one.siblings > 1
        else f"{one.output.name!r} has one column, {one.why}"
        for one in outputs[:_TOLD_MAX]
    ]
    if len(outputs) > _TOLD_MAX:
        told.append(f"{len(outputs) - _TOLD_MAX} more")
    spelled = [f"'{one.spelling}'" for one in found[:_TOLD_MAX]]
    more = ", ..." if len(found) > _TOLD_MAX else ""
    return ModelError(
        f"nothing says which of its outputs is a score of fraud: {'; '.join(told)}",
        subject=subject,
        hint="Let labels tell: --data TABLE, payments of which some are labelled fraud. Or say it: "
        f"--output is one of {', '.join(spelled)}{more}. Or export the model with probabilities.",
    )


def _columns(one: Candidate) -> str:
    return f"{one.siblings} columns{' or more' if one.siblings == COLUMNS_MAX else ''}"


def _by_order(rivals: Sequence[Candidate]) -> Candidate:
    """Return the candidate that names and order speak for: the last output of one or two."""
    outputs = list(dict.fromkeys(one.output.name for one in rivals))
    groups = [[one for one in rivals if one.output.name == name] for name in outputs]
    group = max(
        enumerate(groups), key=lambda at: (_sounds_like_score(at[1][0]), len(at[1]) <= 2, at[0])
    )[1]
    by_name = [one for one in group if _sounds_like_fraud(one)]
    return (by_name or group[1:] or group)[0]


def _place(one: Candidate) -> str:
    if one.siblings == 1:
        return "the only column"
    if one.klass is not None:
        return f"class {one.klass}"
    return "the second column, by custom class 1"


def _sounds_like_fraud(one: Candidate) -> bool:
    return one.klass is not None and plain(str(one.klass)) in _FRAUD_CLASSES


def _sounds_like_score(one: Candidate) -> bool:
    return _sounds_like(one, _SCORE_WORDS)


def _sounds_like(one: Candidate, words: Sequence[str]) -> bool:
    name = plain(one.output.name)
    return any(word in name for word in words)


def _sounds_genuine(one: Candidate) -> bool:
    name = plain(one.output.name)
    return any(word in name for word in ("genuine", "good", "legit")) and "fraud" not in name


# From a score to a probability.


def _finished(
    one: Candidate, fraud: Flags | None, why: str, asks: Sequence[str], *, tells: bool = True
) -> Chosen:
    """Return a candidate with what makes a probability of it. `tells`: its AUC means something."""
    there = np.isfinite(one.scores)
    scores = one.scores[there]
    labels = None if fraud is None else fraud[there]
    if labels is not None and (labels.all() or not labels.any()):
        labels = None
    falls = labels is not None and tells and one.auc < 0.5
    chosen = Chosen(one, why, asks=tuple(asks))
    if labels is not None:
        chosen = replace(chosen, base_rate=float(labels.mean()))
    if one.form == PROBABILITY:
        return _of_probability(chosen, scores, labels, falls=falls)
    if one.form == LABEL:
        return _of_label(chosen, scores, labels)
    if labels is None:
        return _without_labels(chosen)
    a, b = fit_logistic(scores, labels)
    if a == 0.0 or not math.isfinite(a + b):
        # The score tells nothing, and a slope of 0 is no map: all but the base rate.
        a, b = 1e-9, _log_odds(float(labels.mean()))
    note = f"no probability: a logistic map fitted to {len(labels):,} labelled rows"
    fitted = {"kind": "logistic", "a": _digits(a), "b": _digits(b)}
    return replace(chosen, calibration=fitted, notes=(note,))


def _of_probability(chosen: Chosen, scores: Floats, labels: Flags | None, *, falls: bool) -> Chosen:
    one = chosen.candidate
    if labels is not None:
        expected = float((1 - scores if falls else scores).mean())
        chosen = replace(chosen, expected=expected)
        note = f"AUC {one.auc:.3f} is below 0.5: it is P(genuine)"
        return replace(chosen, scale=(1.0, 0.0), notes=(note,)) if falls else chosen
    if one.siblings == 1 and _sounds_genuine(one):
        asks = (*chosen.asks, f"science: is {one.spelling} P(genuine)?")
        note = "by its name it is P(genuine)"
        return replace(chosen, scale=(1.0, 0.0), notes=(note,), asks=asks)
    return chosen


def _of_label(chosen: Chosen, scores: Floats, labels: Flags | None) -> Chosen:
    """Return a label with the share of fraud where it is 0, and where it is 1."""
    if labels is None:
        ask = "science: how likely is fraud without this label, and with it? Here: placeholders."
        guessed = {"kind": "isotonic", "x": [0, 1], "y": [0.001, 0.5]}
        note = "a label only: no probability"
        return replace(chosen, calibration=guessed, notes=(note,), asks=(*chosen.asks, ask))
    # Laplace's rule of succession: no finite number of rows makes a label certain.
    without, with_it = (
        _digits((float(labels[scores == x].sum()) + 1) / (int((scores == x).sum()) + 2))
        for x in (0.0, 1.0)
    )
    note = f"a label only: the share of fraud without and with it, of {len(labels):,} rows"
    shares = {"kind": "isotonic", "x": [0, 1], "y": sorted((without, with_it))}
    scale = (1.0, 0.0) if with_it < without else None
    return replace(chosen, calibration=shares, scale=scale, notes=(note,))


def _without_labels(chosen: Chosen) -> Chosen:
    one = chosen.candidate
    if one.low >= 0 and one.high <= 100:
        note = f"{one.span} is no probability; taken as a score of 0 to 100"
        ask = "science: which scores mean surely genuine and surely fraud?"
        return replace(chosen, scale=(0.0, 100.0), notes=(note,), asks=(*chosen.asks, ask))
    note = f"{one.span} is no probability; taken as its log-odds"
    ask = (
        "science: what makes a probability of this score? `gateway init --data` fits it to labels."
    )
    taken = {"kind": "logistic", "a": 1, "b": 0}
    return replace(chosen, calibration=taken, notes=(note,), asks=(*chosen.asks, ask))


def _log_odds(p: float) -> float:
    return math.log(p / (1 - p))


def _digits(value: float) -> float:
    """Return a number of nine significant digits: more no data tells."""
    return float(f"{value:.9g}")
