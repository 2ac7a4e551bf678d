"""`gateway evaluate`."""

from __future__ import annotations

import json as json_codec
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

from cyclopts import Parameter
from pyarrow.fs import LocalFileSystem

from gateway.cli.attached import end_with_starter, step_back
from gateway.cli.evaluate_table import show
from gateway.cli.hypothesis_told import told_in
from gateway.cli.lake_terms import TABLES, columns_of_tables, terms_of_all
from gateway.cli.spark_session import master_of, session_of
from gateway.cli.terms import Json, every_s, notes, out
from gateway.errors import ExitCode, LakeError, UsageError
from gateway.evaluate.engine import IN_MEMORY, DuckDb, StoreError
from gateway.evaluate.evaluation import Evaluation
from gateway.evaluate.evaluation import evaluate as evaluation_of
from gateway.evaluate.terms import Terms
from gateway.sidecar.lake import Lake
from gateway.sidecar.lake.evaluations import COUNTS, FOLDER, Evaluations
from gateway.sidecar.lake.several import differing, keys
from gateway.sidecar.lake.several import files as files_of

WATCH_EVERY = "1m"

DUCKDB = "duckdb"


def evaluate(
    *,
    lake: Annotated[
        list[str],
        Parameter(
            negative="",
            metavar="DIR",
            help="The lake that a sidecar fills: a directory, or a URI. Again for each lake more: "
            "hosts that fill one each are evaluated as one.",
        ),
    ],
    as_of: Annotated[
        str,
        Parameter(help="As known at that time: 2026-11-01, or 2026-11-01T12:00:00Z. Default: now."),
    ] = "",
    product: Annotated[str | None, Parameter(help="Only this one of the lake's products.")] = None,
    watch: Annotated[
        bool | str,
        Parameter(
            negative="",
            show_default=False,
            metavar="[EVERY]",
            help=f"Again and again until Ctrl-C, so often: 30s, 15m; without a time {WATCH_EVERY}. "
            "With --json a line each.",
        ),
    ] = False,
    keep: Annotated[
        bool,
        Parameter(
            negative="",
            show_default=False,
            help="Keep it in the lake, below evaluations/, as sidecars do. One that starts shows "
            "the last that is kept.",
        ),
    ] = False,
    engine: Annotated[
        str,
        Parameter(
            metavar="ENGINE",
            help="What counts: duckdb, in this process, or a Spark whose workers see the lake "
            "under the same path, such as spark://10.0.0.5:7077; spark://local[2] is one of two "
            "threads on this machine, to try it.",
        ),
    ] = DUCKDB,
    attached: Annotated[
        bool,
        Parameter(
            negative="", show=False, help="Started by a sidecar: give way to it, and end with it."
        ),
    ] = False,
    counts: Annotated[
        str | None,
        Parameter(
            show_default=False,
            help="A file that keeps what was counted, so that a day more costs a day; `off` for "
            f"none. Default: {COUNTS} below the lake's {FOLDER}/, where the lake is a directory.",
        ),
    ] = None,
    all: Annotated[
        bool,
        Parameter(
            negative="", show_default=False, help="Show every figure, by part and by form too."
        ),
    ] = False,
    json: Json = False,
) -> int:
    """Say whether products keep their promises, what they cost, and for whom they fail.

    Reads decisions, labels and attributes of a lake. Figures about labels rest on mature payments;
    each has an interval, and a verdict where there is a target: undecided where the data do not
    say. What was declined has no label: figures about it are named explored, model_implied or
    bounds, and only the first decides.
    """
    if attached:
        step_back()
        end_with_starter()
    pause_s = _pause_s(watch)
    when, lakes = time_of(as_of), [Lake.at(one) for one in dict.fromkeys(lake)]
    _can_be(when, as_of, product, watches=pause_s is not None, keeps=keep)
    if engine != DUCKDB:
        master_of(engine)
        if counts not in (None, "off"):
            raise UsageError(
                "keeps what DuckDB counted, and Spark counts all each time",
                subject=f"--counts {counts}",
                hint="Leave --counts or --engine out.",
            )
    lasting = product is None and when is None and len(lakes) == 1 and engine == DUCKDB
    store = store_of(lakes[0], counts, lasting=lasting)

    def told(as_of: datetime) -> None:
        threads = 1 if attached else None
        found = _evaluated(lakes, product, as_of, store, engine=engine, threads=threads)
        if keep:
            path = Evaluations(lakes[0].filesystem, lakes[0].root).keep(found.as_object())
            notes.print(f"Kept as {path}", markup=False)
        if json:
            # Watched, each is a line.
            print(json_codec.dumps(found.as_object(), indent=None if pause_s else 2), flush=True)
        else:
            if pause_s:
                out.clear()
            show(found, everything=all)

    told(when or datetime.now(UTC))
    if pause_s is not None:
        _again_and_again(told, pause_s)
    if not json:
        named = " ".join(f"--lake {one}" for one in lake)
        notes.print(f"Next: gateway evaluate {named} --json", markup=False)
    return ExitCode.OK


def _again_and_again(told: Callable[[datetime], None], pause_s: float) -> NoReturn:
    """Go on until Ctrl-C. What fails is said: a file may have been joined meanwhile."""
    while True:
        time.sleep(pause_s)
        try:
            told(datetime.now(UTC))
        except LakeError as error:
            notes.print(f"Not evaluated: {error}. {error.hint}", markup=False)


def _pause_s(watch: bool | str) -> float | None:
    """Return how long to wait between two evaluations; None: there is one. Raises UsageError."""
    if watch is False:
        return None
    return every_s(WATCH_EVERY if watch is True else watch)


def _can_be(
    as_of: datetime | None, said: str, product: str | None, *, watches: bool, keeps: bool
) -> None:
    """Refuse what contradicts itself. Raises UsageError."""
    if watches and as_of is not None:
        raise UsageError(
            "is one evaluation, and --watch asks for many",
            subject=f"--as-of {said}",
            hint="Leave one of the two out.",
        )
    if keeps and product is not None:
        raise UsageError(
            "is a part, and the lake keeps whole evaluations",
            subject=f"--product {product}",
            hint="Leave --product or --keep out.",
        )
    if keeps and as_of is not None and as_of > datetime.now(UTC):
        raise UsageError(
            "has not come yet, and would be shown as the last evaluation until then",
            subject=f"--as-of {said}",
            hint="Leave --keep out.",
        )


def store_of(lake: Lake, counts: str | None, *, lasting: bool) -> str:
    """Return the file that keeps what is counted; of one product, or of a time that is past, none
    unless it is named.
    """
    if counts is not None:
        return IN_MEMORY if counts == "off" else counts
    if not lasting or not isinstance(lake.filesystem, LocalFileSystem) or not lake.is_there:
        return IN_MEMORY
    return f"{lake.root}/{FOLDER}/{COUNTS}"


def _evaluated(
    lakes: Sequence[Lake],
    product: str | None,
    as_of: datetime,
    store: str,
    *,
    engine: str,
    threads: int | None,
) -> Evaluation:
    terms = terms_of_all(lakes, product)
    _warn(lakes)
    files = {table: files_of(lakes, table) for table in TABLES}
    opened = (
        engine_over(lakes[0], files, store, threads) if engine == DUCKDB else _spark(engine, files)
    )
    with opened:
        try:
            found = evaluation_of(opened, terms, as_of)
            claims = _claims(lakes, opened, terms, as_of, product)
            return replace(found, tables={**found.tables, "hypotheses": claims})
        except RuntimeError as error:
            if str(error) == "Query interrupted":  # DuckDB's word for Ctrl-C
                raise KeyboardInterrupt from None
            raise


def _claims(
    lakes: Sequence[Lake],
    engine: DuckDb,
    terms: Sequence[Terms],
    as_of: datetime,
    product: str | None,
) -> tuple[Mapping[str, Any], ...]:
    """Return what came of each hypothesis; one that several lakes know, as the first does."""
    found: dict[tuple[str, str], Mapping[str, Any]] = {}
    for lake in lakes:
        for one in told_in(lake, engine, terms, as_of, product):
            found.setdefault((one["product"], one["id"]), one)
    return tuple(found[key] for key in sorted(found))


def _warn(lakes: Sequence[Lake]) -> None:
    """Say what keeps lakes, or the hosts of one, from being one."""
    several = keys(lakes)
    if several > 1:
        notes.print(
            f"Subjects go by {several} keys: a customer of several hosts counts as several, and of "
            "groups each host's decisions know only what this host was told. Give all hosts one: "
            "copy sidecar/subject.key of one journal to the others before their sidecars start.",
            markup=False,
        )
    for name in differing(lakes):
        notes.print(
            f"{name}: its newest generation is not the same in all lakes; it is held to the newest "
            "of all.",
            markup=False,
        )


def _spark(engine: str, files: Mapping[str, Sequence[str]]) -> DuckDb:
    session = session_of(engine)
    from gateway.evaluate.spark import Spark  # what it imports may not be there

    return Spark(session, files, columns_of_tables())


def engine_over(
    lake: Lake, files: Mapping[str, Sequence[str]], store: str, threads: int | None
) -> DuckDb:
    """Open an engine; where the store is another's now, or cannot be written, one without."""
    paths = [path for some in files.values() for path in some]
    stamps = {
        one.path: f"{one.size}-{one.mtime_ns}" for one in lake.filesystem.get_file_info(paths)
    }
    try:
        if store != IN_MEMORY:
            Path(store).parent.mkdir(parents=True, exist_ok=True)
        return DuckDb(files, columns_of_tables(), stamps=stamps, store=store, threads=threads)
    except (OSError, StoreError) as error:
        notes.print(f"Counted from nothing: {error}", markup=False)
        return DuckDb(files, columns_of_tables(), stamps=stamps, threads=threads)


def time_of(text: str) -> datetime | None:
    """Return the time that --as-of says; None: now. Raises UsageError."""
    if not text:
        return None
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            "is no time",
            subject=f"--as-of {text}",
            hint="Write it as 2026-11-01 or 2026-11-01T12:00:00Z.",
        ) from None
    return when.replace(tzinfo=when.tzinfo or UTC)
