"""`gateway models list`, `promote`, `rollback` and `reload`."""

from __future__ import annotations

import json as json_codec
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from gateway.cli.models_table import (
    Change,
    Row,
    changed_row,
    print_change,
    print_outcomes,
    print_rows,
    summarised,
)
from gateway.cli.terms import Folder, Json, notes
from gateway.errors import (
    ExitCode,
    GatewayError,
    JournalError,
    ModelError,
    RefusedError,
    UsageError,
)
from gateway.model import read_folder
from gateway.model.registry import STORE, GateVerdict, Registry, State
from gateway.model.revision import (
    MEMORY,
    Draft,
    Present,
    Revision,
    before,
    draft,
    free_name,
    held,
    is_same,
    next_number,
    present_in,
    restored,
    revisions,
    write,
)
from gateway.product.edit import arm_key, promoted, with_challenger, with_generation
from gateway.serve.crew import board as boards
from gateway.verify import expect_passed, run_gates

LOOK_S = 0.05
"""How often `reload` looks what came of it."""

OneFolder = Annotated[Path, Parameter(name="DIR", help="A folder with a product.yaml.")]
Journal = Annotated[
    Path | None,
    Parameter(
        help="The folder that serve was given as --journal. Where left out, `journal`, if a "
        "gateway has served from it.",
    ),
]
DryRun = Annotated[
    bool,
    Parameter(negative="", show_default=False, help="Show the change, and write nothing."),
]


def list_(*folders: Folder, journal: Journal = None, json: Json = False) -> int:
    """Show what is served of each product, the newest change that was refused, and what was.

    Without folders: every product that the gateway of --journal serves. Without a journal: what
    stands in the folders.
    """
    store = _store(journal)
    rows: list[Row] = []
    if folders:
        rows = [_row(folder, store) for folder in folders]
    elif store is not None:
        rows = [_row(Path(state.folder), store, state) for state in store.states()]
    if store is not None:
        # Where no gateway runs, the store says what was served last.
        with suppress(GatewayError):
            gateway = _running(journal or Path("journal"))
            rows = [
                replace(row, is_served=bool(row.state and _serves(gateway, store, row.state)))
                for row in rows
            ]
    if not rows:
        raise UsageError(
            "no product folder is named, and no gateway has served here",
            subject=str(journal or "journal"),
            hint="gateway models list models/card-not-present, or --journal DIR.",
        )
    if json:
        print(json_codec.dumps([summarised(row) for row in rows], indent=2))
    else:
        print_rows(rows)
        notes.print(_next_after_list(rows, journal), markup=False)
    return ExitCode.OK


def add(
    folder: OneFolder,
    model: Annotated[Path, Parameter(name="MODEL.onnx", help="The new model's file.")],
    /,
    *,
    name: Annotated[
        str | None, Parameter(help="Its name. Where left out, that of its file.")
    ] = None,
    mode: Annotated[
        Literal["shadow", "canary"],
        Parameter(help="shadow: it scores, and decides nothing. canary: it decides its share."),
    ] = "shadow",
    share: Annotated[
        str | None, Parameter(help="Share of the traffic, such as 5%: a canary needs it.")
    ] = None,
    output: Annotated[
        str | None,
        Parameter(help="Its output, such as probabilities[1]. Where left out, the champion's."),
    ] = None,
    journal: Journal = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """Put a new model beside the champion: copy its file, pin it, and let it score as a shadow.

    It takes the product's features, in their order. Nothing is written where it does not load.
    """
    try:
        content = model.read_bytes()
    except OSError as error:
        raise UsageError(
            f"cannot be read: {error.strerror}", subject=str(model), hint="Name an ONNX file."
        ) from None
    with held(folder):
        present = present_in(folder)
        contents = present.contents or read_folder(folder)  # which says why it cannot be read
        store, memory = _store(journal), Registry(folder / MEMORY)
        state, known = _known(present, memory, store, is_named=journal is not None)
        file, named = free_name(present.folder, model.name, content), name or model.stem
        optional = {"output": output, "share": share}
        challenger = {
            "name": named,
            "path": file,
            "sha256": sha256(content).hexdigest(),
            "mode": mode,
            **{key: value for key, value in optional.items() if value is not None},
        }
        text = with_challenger(present.text, challenger)
        text = with_generation(text, next_number(present, known, state))
        try:
            change = draft(present, text, {**contents.files, file: content})
        except ModelError as error:
            if error.subject != str(contents.place(file)):
                raise
            # It was not written: no such file is in the folder.
            raise ModelError(error.what, subject=str(model), hint=error.hint) from None
        gates = run_gates(change.generation, folder, time.thread_time_ns)
        expect_passed(gates, str(folder))
        done = _written(change, memory, state, dry_run=dry_run)
    done = replace(
        done,
        gates=tuple(GateVerdict(**gate.row) for gate in gates if gate.arm == named),
        source=f"a copy of {model}",
    )
    what = "scores beside the champion" if mode == "shadow" else f"decides {share}"
    told = _told(done, f"{named} {what}", journal, json=json)
    if not json:
        notes.print(
            f"Its scores are taken for probabilities: gateway calibrate {folder} --arm {named} "
            "--data LABELLED.parquet",
            markup=False,
        )
    return told


def promote(
    folder: OneFolder,
    challenger: Annotated[str, Parameter(name="CHALLENGER", help="The challenger's name.")],
    /,
    *,
    keep_as_shadow: Annotated[
        bool,
        Parameter(
            negative="",
            show_default=False,
            help="Let the former champion be a shadow from now on; else it is no model of the "
            "product any more.",
        ),
    ] = False,
    journal: Journal = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """Let a challenger decide: edit product.yaml, keep its comments, raise its generation.

    The folder is loaded first as it would be, and must pass its gates; what does not is not
    written. A gateway that serves the folder verifies and takes it by itself.
    """
    with held(folder):
        present = present_in(folder)
        contents = present.contents or read_folder(folder)  # which says why it cannot be read
        store, memory = _store(journal), Registry(folder / MEMORY)
        state, known = _known(present, memory, store, is_named=journal is not None)
        *_, index = arm_key(present.text, challenger)
        if not isinstance(index, int):
            promoted(present.text, challenger, sha256="")  # says that it decides already
        arm = contents.product.models.challengers[int(index)]
        text = promoted(
            present.text,
            challenger,
            sha256=arm.sha256 or sha256(contents.files[arm.path]).hexdigest(),
            keep_as_shadow=keep_as_shadow,
        )
        text = with_generation(text, next_number(present, known, state))
        change = draft(present, text, contents.files)
        gates = run_gates(change.generation, folder, time.thread_time_ns)
        expect_passed(gates, str(folder))
        done = _written(change, memory, state, dry_run=dry_run)
    done = replace(done, gates=tuple(GateVerdict(**gate.row) for gate in gates))
    if arm.mode == "shadow" and not json:
        notes.print(
            f"{challenger} was a shadow: it has decided no call so far. "
            "mode: canary lets it decide a share first.",
            markup=False,
        )
    return _told(done, f"{challenger} decides", journal, json=json)


def rollback(
    folder: OneFolder,
    /,
    *,
    to: Annotated[
        int | None,
        Parameter(name="--to", help="Go back to this generation, not to the one before."),
    ] = None,
    journal: Journal = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """Put back what a folder held before: product.yaml, and every file it names, from the store.

    What comes back is a new generation with a higher number. Twice goes back and forth: the
    second rollback undoes the first. Where a file has another content by now, that stays, and
    the one that comes back gets a name of its own, which product.yaml names.
    """
    with held(folder):
        present = present_in(folder)
        store, memory = _store(journal), Registry(folder / MEMORY)
        state, known = _known(present, memory, store, is_named=journal is not None)
        revision = _target(present, known, to)
        # It may have been served for months: no gate that is timed on this machine stops it now.
        change = restored(present, revision, next_number(present, known, state))
        done = _written(change, memory, state, dry_run=dry_run)
    labelled = change.contents.product.models.gates.calibration.path
    if labelled is not None and not (folder / labelled).exists():
        notes.print(
            f"It names {labelled}, which is not in the folder: the gateway will refuse it "
            "until that is back.",
            markup=False,
        )
    return _told(done, f"generation {revision.generation} is back", journal, json=json)


def reload(
    *,
    journal: Annotated[
        Path, Parameter(help="The folder that serve was given as --journal.")
    ] = Path("journal"),
    wait: Annotated[
        float,
        Parameter(validator=Number(gte=0), help="Seconds to wait for what comes of it."),
    ] = 60.0,
    json: Json = False,
) -> int:
    """Let a running gateway look at its folders now, and say what came of it.

    It looks by itself, too; this is for who wants to know. Exit code 9 where a change is refused.
    """
    store = Registry(journal / STORE)
    gateway = _running(journal)
    asked_ns = time.time_ns()
    try:
        os.kill(gateway.pid, signal.SIGUSR1)
    except PermissionError:
        raise UsageError(
            "the gateway is another user's",
            subject=f"process {gateway.pid}",
            hint=f"As that user: gateway models reload --journal {journal}",
        ) from None
    states = _looked(store, journal, gateway, asked_ns, wait_s=wait)
    if json:
        print(
            json_codec.dumps([summarised(Row(state, is_served=True)) for state in states], indent=2)
        )
    else:
        print_outcomes(states)
    refused = [state.product for state in states if state.refused is not None]
    if refused:
        raise RefusedError(
            "the newest change is refused, the generation before it is served on",
            subject=", ".join(refused),
            hint="Change the folder, or go back: gateway models rollback DIR",
        )
    if not json:
        notes.print(f"Next: gateway models list --journal {journal}", markup=False)
    return ExitCode.OK


def _store(journal: Path | None) -> Registry | None:
    """Return the store of a journal; None where none is named and none is there."""
    store = Registry((journal or Path("journal")) / STORE)
    if store.root.is_dir():
        return store
    if journal is None:
        return None
    raise JournalError(
        "no gateway has kept generations here",
        subject=str(journal),
        hint="Name the --journal of a `gateway serve`, or leave it out.",
    )


def _serves(gateway: boards.Gateway, store: Registry, state: State) -> bool:
    """Say whether a gateway serves a product: it writes a state of each when it begins.

    What a gateway before it served may stand in the store, too.
    """
    return store.written_ns(state.product) >= gateway.started_ns


def _row(folder: Path, store: Registry | None, state: State | None = None) -> Row:
    if state is None and store is not None:
        state = store.by_folder(folder)
    try:
        return Row(state, present_in(folder))
    except UsageError as error:
        if state is None:
            raise
        return Row(state, None, str(error))


def _known(
    present: Present, memory: Registry, store: Registry | None, *, is_named: bool
) -> tuple[State | None, tuple[Revision, ...]]:
    """Return what a gateway says of the folder, and what can be gone back to."""
    state = None if store is None else store.by_folder(present.folder)
    if state is None and store is not None and is_named and present.product in store.products():
        # Served from the same folder by another path, as in a container. Only where the journal
        # was named: a copy of a folder is another folder.
        state = store.state(present.product or "")
    names = memory.products()
    product = state.product if state else present.product or (names[0] if names else None)
    if product is None:
        raise UsageError(
            "does not say which product it is, and nothing is kept of it",
            subject=str(present.path),
            hint="gateway check DIR says what is wrong with it.",
        )
    return state, revisions(product, memory, store if state else None)


def _target(present: Present, known: tuple[Revision, ...], to: int | None) -> Revision:
    there = ", ".join(str(number) for number in sorted({one.generation for one in known}))
    if to is None:
        revision = before(present, known)
        if revision is None:
            raise UsageError(
                "there is no other generation to go back to",
                subject=str(present.folder),
                hint="Kept are what `gateway serve` served (name its --journal) and what promote "
                "and rollback replaced.",
            )
        return revision
    revision = next((one for one in reversed(known) if one.generation == to), None)
    if revision is None:
        raise UsageError(
            f"there is no generation {to} to go back to",
            subject=str(present.folder),
            hint=f"There are: {there}." if there else "None is kept: name serve's --journal.",
        )
    if is_same(present, revision):
        raise UsageError(
            f"the folder holds what generation {to} was",
            subject=str(present.folder),
            hint=f"There are: {there}.",
        )
    return revision


def _written(change: Draft, memory: Registry, state: State | None, *, dry_run: bool) -> Change:
    """Write a change, unless it is only to be shown."""
    contents = change.present.contents
    was_refused = bool(
        contents and state and state.refused and state.refused.digest == contents.digest
    )
    if dry_run:
        return Change(change, is_written=False)
    return Change(change, True, write(change, memory, was_refused=was_refused))


def _told(done: Change, what: str, journal: Path | None, *, json: bool) -> int:
    if json:
        print(json_codec.dumps(changed_row(done), indent=2))
        return ExitCode.OK
    print_change(done, what)
    folder = done.draft.present.folder
    if not done.is_written:
        notes.print("Next: the same without --dry-run", markup=False)
    elif _store(journal) is not None:
        served_from = journal or Path("journal")
        notes.print(f"Next: gateway models reload --journal {served_from}", markup=False)
    else:
        notes.print(f"Next: gateway serve {folder} --journal journal", markup=False)
    return ExitCode.OK


def _next_after_list(rows: list[Row], journal: Path | None) -> str:
    for row in rows:
        if row.present is not None and (arms := row.challengers):
            return f"Next: gateway models promote {row.present.folder} {arms[0]} --dry-run"
    if any(row.is_served for row in rows):
        return f"Next: gateway models reload --journal {journal or 'journal'}"
    return f"Next: gateway serve {rows[0].present.folder if rows[0].present else 'DIR'}"


@contextmanager
def _board(journal: Path) -> Iterator[boards.Board]:
    """Open the board of a gateway that runs. Raises JournalError, GatewayError."""
    if not (journal / boards.NAME).is_file():
        raise JournalError(
            "no gateway has run here" if journal.is_dir() else "there is no such folder",
            subject=str(journal),
            hint="Name the --journal of a running `gateway serve`.",
        )
    with boards.seen(journal) as (board, is_supervised):
        if not is_supervised:
            raise GatewayError(
                "the gateway that wrote this journal does not run any more",
                subject=str(journal),
                hint=f"gateway serve DIR --journal {journal}",
            )
        yield board


def _running(journal: Path) -> boards.Gateway:
    with _board(journal) as board:
        return board.gateway


def _looked(
    store: Registry, journal: Path, gateway: boards.Gateway, asked_ns: int, *, wait_s: float
) -> tuple[State, ...]:
    """Wait until the gateway has looked at each of its folders; return what it says of them.

    Raises:
        GatewayError: it does not, or it ends.
    """
    until_s = time.monotonic() + wait_s
    while True:
        served = tuple(state for state in store.states() if _serves(gateway, store, state))
        if served and all(state.looked_ns >= asked_ns for state in served):
            return served
        if _running(journal).pid != gateway.pid:
            raise GatewayError("another gateway has taken over", hint="Ask it again.")
        if time.monotonic() >= until_s:
            waits = [state.product for state in served if state.looked_ns < asked_ns]
            raise GatewayError(
                f"the gateway has not said within {wait_s:g} s what came of it",
                subject=", ".join(waits) or str(journal),
                hint=f"gateway status --journal {journal}, or a longer --wait.",
            )
        time.sleep(LOOK_S)
