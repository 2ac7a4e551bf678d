"""From a stranger's model, and a table, to all that its product.yaml will say."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.errors import ModelError, UsageError
from gateway.model.graph import parsed
from gateway.model.inputs import Port
from gateway.model.outputs import is_label, is_map
from gateway.model.reading import TREES, Reading, reading
from gateway.model.session import open_session, ports_in, ports_out
from gateway.model.trial import Trial, try_model
from gateway.product import UNSEEN, UNSEEN_TEXT, Limits, Output
from gateway.scaffold.bare import Bare, Given, Values
from gateway.scaffold.columns import Plan, plan_with, plan_without
from gateway.scaffold.features import (
    Draft,
    Floats,
    columns_of,
    drawn,
    filled,
    keeps_rules,
    of_table,
    rows_of,
    without_table,
)
from gateway.scaffold.label import Label, find_label, label_by_place
from gateway.scaffold.names import plain
from gateway.scaffold.output import Candidate, Chosen, as_word, candidates, choose
from gateway.scaffold.table import Table, read_table

GOLDEN_ROWS = 32
_GOLDEN_FRAUDS = 8
_DRAWN_ROWS = 256
_TRIED_ROWS = 8
_LOOPED_ROWS_MAX = 20_000
"""Of a model that takes so many rows at a time, and no others."""

_ABOUT_MISSING = {*TREES, "IsNaN", "Imputer"}
"""Operators that know what to do with NaN; elsewhere a finite score of it is an accident."""

_FREE_TEXT = {"TfIdfVectorizer", "Tokenizer", "StringSplit", "RegexFullMatch"}

_AMOUNTS = (
    *("amount", "amt", "txamount", "transactionamount", "transactionamt", "amountusd", "value"),
    *("purchasevalue", "price", "total", "transactionamountusd"),
)

Say = Callable[[str], None]


class Asked(NamedTuple):
    """What the command line says."""

    model: Path
    folder: Path
    data: Path | None = None
    label: str | None = None
    fraud: str | None = None
    features: tuple[str, ...] = ()
    output: Output | None = None
    name: str | None = None
    force: bool = False
    limits: Limits = Limits()


@dataclass(frozen=True, slots=True, eq=False)
class Sketch:
    """All that is known of the product to be.

    `rows` (n, columns) as the product has them, and `scores` (n,) of a bare `session.run`:
    golden vectors. `amounts` (n,): of these payments, in major units, where the data say.
    """

    model: bytes
    table: Table | None
    label: Label | None
    plan: Plan
    drafts: tuple[Draft, ...]
    found: tuple[Candidate, ...]
    chosen: Chosen
    rows: Floats
    scores: Floats
    amounts: Floats | None
    limits: Limits


def sketch(asked: Asked, say: Say) -> Sketch:
    """Read the model and the data, and decide what can be decided. `say` hears what is being done.

    Raises:
        UsageError: a file that cannot be read, or a choice that cannot be made.
        ModelError: a model that can be no product.
    """
    _expect_options(asked)
    subject, limits = str(asked.model), asked.limits
    model = _bytes(asked.model, limits.file_mib)
    say(f"opening {subject} in a child process")
    trial = try_model(model, subject=subject, limits=limits)
    _expect_no_free_text(trial, subject)
    read = reading(parsed(model, subject))
    if asked.data is None:
        table = label = None
        plan = plan_without(trial.inputs, read, subject)
        drafts = without_table(plan, trial.inputs, read, subject)
        values = drawn(drafts, _DRAWN_ROWS)
    else:
        say(f"reading {asked.data}")
        table = read_table(asked.data)
        label, plan = _planned(asked, trial.inputs, read, table)
        drafts, values = of_table(table, plan, trial.inputs, read)
    if plan.batch is not None or not plan.batched:
        kept = _spaced(len(values[0]), _LOOPED_ROWS_MAX)
        values = [one[kept] for one in values]
        label = None if label is None else label.of(kept)

    say("scoring a few rows in a child process")
    _try_rows(model, subject, limits, trial, read, drafts, values)
    session = open_session(model, subject)
    outputs = tuple(port for port in ports_out(session) if _holds_numbers(port))
    bare = Bare(session, ports_in(session), outputs, plan, subject)
    if _ABOUT_MISSING & set(trial.operators):
        drafts = _about_missing(drafts, values, bare)
    drafts = _about_unknown(drafts, values, bare)
    whole = filled(drafts, values)
    say(f"scoring {len(whole[0]):,} rows")
    given = bare.run(whole)
    mixed = bare.run(_mixed(whole))
    if label is not None:
        given = {name: _where(one, label.known) for name, one in given.items()}
    fraud = None if label is None else label.fraud[label.known]
    found = candidates(given, mixed, outputs, read, fraud)
    chosen = choose(found, fraud=fraud, wanted=asked.output, subject=subject)
    rows, scores = _golden(drafts, whole, bare, chosen.candidate, label, subject)
    amounts = _amounts(drafts, rows)
    return Sketch(
        *(model, table, label, plan, drafts, tuple(found), chosen, rows, scores, amounts, limits)
    )


def _expect_options(asked: Asked) -> None:
    if asked.data is None:
        for option in ("label", "fraud", "features"):
            if getattr(asked, option):
                raise UsageError(f"--{option} needs a table", hint="Name it: --data FILE.csv.")


def _expect_no_free_text(trial: Trial, subject: str) -> None:
    found = sorted(_FREE_TEXT & set(trial.operators))
    if found:
        raise ModelError(
            f"it reads free text ({', '.join(found)})",
            subject=subject,
            hint="A feature is a number, or one of the texts that product.yaml lists: turn the "
            "text into numbers before the gateway.",
        )


def _bytes(path: Path, mib_max: int) -> bytes:
    try:
        if path.is_dir():
            raise UsageError(
                "is a folder", subject=str(path), hint="Name the ONNX file in it, then the folder."
            )
        if path.stat().st_size > mib_max << 20:
            raise ModelError(
                f"is larger than {mib_max} MiB",
                subject=str(path),
                hint="--file-mib lets a larger one in.",
            )
        return path.read_bytes()
    except FileNotFoundError:
        raise UsageError(
            "there is no such file",
            subject=str(path),
            hint="gateway init MODEL.onnx DIR: first the model, then the folder to write.",
        ) from None
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", subject=str(path)) from None


def _planned(
    asked: Asked, ports: Sequence[Port], read: Reading, table: Table
) -> tuple[Label | None, Plan]:
    """Return the label, and how the columns feed the model."""
    subject = str(asked.model)
    taken = [*(port.name for port in ports), *read.names, *asked.features]
    label = find_label(table, taken, asked.label, asked.fraud)

    def planned(label: Label | None) -> Plan:
        return plan_with(table, ports, read, label=label, features=asked.features, subject=subject)

    try:
        return label, planned(label)
    except UsageError:
        if label is not None or asked.features:
            raise
        label = label_by_place(table, asked.fraud)
        if label is None:
            raise
        return label, planned(label)


def _spaced(n: int, most: int) -> NDArray[np.intp]:
    """Return the indices of at most `most` of n rows, evenly spaced."""
    return np.linspace(0, n - 1, min(n, most)).astype(np.intp)


def _mixed(values: Values) -> list[NDArray[Any]]:
    """Return rows in which each column is drawn from the data. The same data, the same rows."""
    draw = np.random.default_rng(0)
    return [one[draw.integers(0, len(one), _DRAWN_ROWS)] for one in values]


def _holds_numbers(port: Port) -> bool:
    return is_map(port) or port.type.startswith("tensor(")


def _where(given: Any, chosen: NDArray[np.bool_]) -> Any:
    if isinstance(given, list):
        return [row for row, keep in zip(given, chosen.tolist(), strict=True) if keep]
    return None if given is None else given[chosen]


# What the model says of rows.


def _try_rows(
    model: bytes,
    subject: str,
    limits: Limits,
    trial: Trial,
    read: Reading,
    drafts: Sequence[Draft],
    values: Values,
) -> None:
    """Let a child process score a few rows first. Raises ModelError where it cannot."""
    ports = [port for port in trial.outputs if _holds_numbers(port)]
    if not ports:
        return  # `candidates` finds none either
    port = min(ports, key=lambda port: 2 * is_label(port) + is_map(port))
    column = (read.maps.get(port.name) or (0,))[0] if is_map(port) else 0
    rows = rows_of(drafts, filled(drafts, [one[:512] for one in values]))
    rows = rows[keeps_rules(drafts, rows)][:_TRIED_ROWS]
    try_model(
        model,
        subject=subject,
        limits=limits,
        output=Output(port.name, column),
        columns=[d.values if d.type == "category" else None for d in columns_of(drafts)],
        rows=rows.tolist(),
    )


def _about_missing(drafts: tuple[Draft, ...], values: Values, bare: Bare) -> tuple[Draft, ...]:
    """Let NaN stand for what is missing where the model says something finite of it."""
    found = list(drafts)
    head = [one[:_TRIED_ROWS] for one in filled(drafts, values)]
    for i, draft in enumerate(drafts):
        if draft.missing == "refuse" or draft.type not in ("float", "int"):
            continue
        if bare.inputs[bare.plan.slots[i].port].type in ("tensor(float)", "tensor(double)"):
            tried = [*head[:i], np.full(len(head[i]), math.nan), *head[i + 1 :]]
            if _answers(bare.run(tried), with_scores=True):
                found[i] = replace(draft, missing=math.nan)
    return tuple(found)


def _about_unknown(drafts: tuple[Draft, ...], values: Values, bare: Bare) -> tuple[Draft, ...]:
    """Refuse texts that the model has not seen where it fails on one."""
    found = list(drafts)
    head = [one[:1] for one in filled(drafts, values)]
    for i, draft in enumerate(drafts):
        if draft.unknown == UNSEEN:
            tried = [*head[:i], np.array([UNSEEN_TEXT], dtype=np.object_), *head[i + 1 :]]
            if not _answers(bare.run(tried), with_scores=False):
                found[i] = replace(draft, unknown="refuse")
    return tuple(found)


def _answers(given: Given, *, with_scores: bool) -> bool:
    """Return whether the model answered, with finite scores; `with_scores`: with any."""
    there = [one for one in given.values() if one is not None]
    scores = [
        np.array([list(row.values()) or [math.nan] for row in one], dtype=np.float64)
        if isinstance(one, list)
        else one
        for one in there
        if isinstance(one, list) or one.dtype.kind == "f"
    ]
    finite = all(np.isfinite(one).all() for one in scores)
    return bool(there) and finite and (bool(scores) or not with_scores)


# Golden vectors.


def _golden(
    drafts: Sequence[Draft],
    whole: Values,
    bare: Bare,
    one: Candidate,
    label: Label | None,
    subject: str,
) -> tuple[Floats, Floats]:
    """Return rows that a caller could send, frauds among them, and what a bare session gives."""
    rows = rows_of(drafts, whole)
    usable = np.flatnonzero(keeps_rules(drafts, rows))
    if not len(usable):
        raise UsageError(
            "no row of the data is complete, with listed texts and values in range",
            subject=subject,
            hint="Give data with at least one complete row.",
        )
    picked = usable[_spaced(len(usable), GOLDEN_ROWS)]
    if label is not None:
        frauds, others = usable[label.fraud[usable]], usable[~label.fraud[usable]]
        some = frauds[_spaced(len(frauds), _GOLDEN_FRAUDS)]
        picked = np.union1d(some, others[_spaced(len(others), GOLDEN_ROWS - len(some))])
    scores = _of_output(bare.run([values[picked] for values in whole]), one)
    finite = np.isfinite(scores)
    if not finite.any():
        raise ModelError(
            f"output {one.spelling!r} is finite for none of {len(scores)} rows", subject=subject
        )
    return rows[picked][finite], scores[finite]


def _of_output(given: Given, one: Candidate) -> Floats:
    """Return the scores (n,) of what a session gave."""
    name, column = one.output
    out = given[name]
    if isinstance(out, list):
        by_word = [{as_word(key): value for key, value in row.items()} for row in out]
        return np.array([row.get(column, math.nan) for row in by_word], dtype=np.float64)
    if out.dtype.kind == "f":
        scores: Floats = out[:, int(column or 0)].astype(np.float64)
        return scores
    words = [as_word(label) for label in out[:, 0].tolist()]
    return np.array(words if column is None else [word == column for word in words], dtype=float)


def _amounts(drafts: Sequence[Draft], rows: Floats) -> Floats | None:
    names = [plain(draft.name) for draft in columns_of(drafts)]
    found = next((names.index(name) for name in _AMOUNTS if name in names), None)
    if found is None or not (rows[:, found] >= 0).all():
        return None
    return rows[:, found]
