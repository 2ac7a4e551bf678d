"""`gateway status`."""

from __future__ import annotations

import json as json_codec
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import psutil
from cyclopts import Parameter
from rich.markup import escape
from rich.table import Table

from gateway.cli.sidecar_lag import Beside, beside
from gateway.cli.terms import Json, microseconds, notes, out
from gateway.errors import ExitCode, GatewayError, JournalError
from gateway.serve.crew.backoff import LOOPING, SOUND_S
from gateway.serve.crew.board import NAME, Board, Gateway, State, Worker, seen

SAMPLE_S = 0.5
"""Over how long the rate of calls is measured."""


@dataclass(frozen=True, slots=True)
class Row:
    """A worker, and what is known of it besides its page. `connections`: None if unknown."""

    worker: Worker
    serves: bool
    up_s: float
    connections: int | None
    share: float
    per_s: float

    @property
    def state(self) -> str:
        """What it does; a worker that stands still says wrongly that it serves."""
        spelling = self.worker.state.spelling
        return "not responding" if spelling == "serving" and not self.serves else spelling

    @property
    def is_looping(self) -> bool:
        """Whether it dies again and again."""
        sound = self.serves and self.up_s >= SOUND_S
        return self.worker.deaths >= LOOPING and not sound

    @property
    def stand_in_share(self) -> float:
        """Stand-ins among its decisions."""
        return self.worker.stood_in / max(1, self.worker.stood_in + self.worker.answered)


def status(
    *,
    journal: Annotated[
        Path, Parameter(help="The folder that serve was given as --journal.")
    ] = Path("journal"),
    json: Json = False,
) -> int:
    """Show how each worker of a running gateway is doing.

    Reads what the workers and the sidecar write down; it asks none of them, so it also tells of
    those that stand still. Exit code 1 unless all workers serve.
    """
    if not (journal / NAME).is_file():
        raise JournalError(
            "no gateway has run here" if journal.is_dir() else "there is no such folder",
            subject=str(journal),
            hint="Name the --journal of a running `gateway serve`.",
        )
    with seen(journal) as (board, is_supervised):
        gateway = board.gateway
        rows = _rows(board, gateway, supervised=is_supervised)
    sidecar = _sidecar(journal)
    # While one is replaced, there is one more, which starts or drains.
    all_serve = sum(row.serves for row in rows) >= gateway.workers
    if json:
        summary = _summarised(gateway, rows, supervised=is_supervised)
        summary["sidecar"] = None if sidecar is None else sidecar.row
        print(json_codec.dumps(summary, indent=2))
    else:
        if rows:
            _print(gateway, rows)
        if sidecar is not None:
            style = "" if sidecar.runs else "red"
            out.print(sidecar.in_words, style=style, markup=False, soft_wrap=True)
    if not is_supervised:
        left = f"; {len(rows)} of its workers still drain" if rows else ""
        raise GatewayError(
            f"the gateway that wrote this journal does not run any more{left}",
            subject=str(journal),
            hint=f"gateway serve DIR --journal {journal}",
        )
    if not json:
        notes.print(_next(journal, gateway, rows), markup=False)
    return ExitCode.OK if all_serve else ExitCode.FAILED


def _sidecar(journal: Path) -> Beside | None:
    """Return the sidecar; what of it cannot be read keeps nothing else from being shown."""
    try:
        return beside(journal)
    except JournalError as error:
        notes.print(f"the sidecar: {error}. {error.hint}", markup=False)
        return None


def _rows(board: Board, gateway: Gateway, *, supervised: bool) -> list[Row]:
    before = {(one.number, one.pid): one.calls for one in board.workers()}
    time.sleep(SAMPLE_S)
    workers = board.workers()
    now_ns, wall_ns = time.monotonic_ns(), time.time_ns()
    # Of a worker whose supervisor was killed, nobody says that it has ended.
    workers = tuple(
        one
        for one in workers
        if (supervised and one.state is State.BACKING_OFF) or psutil.pid_exists(one.pid)
    )
    total = sum(one.calls for one in workers)
    return [
        Row(
            worker=one,
            serves=one.serves(now_ns),
            up_s=max(0.0, (wall_ns - one.started_ns) / 1e9),
            connections=_connections(one.pid, gateway.address),
            share=one.calls / max(1, total),
            per_s=max(0, one.calls - before.get((one.number, one.pid), one.calls)) / SAMPLE_S,
        )
        for one in workers
    ]


def _connections(pid: int, address: str) -> int | None:
    """Count the callers' connections of a process, as the operating system knows them."""
    try:
        process = psutil.Process(pid)
        if address.startswith("unix:"):
            # A socket keeps the name that it was bound to, beside the address.
            path = address.removeprefix("unix:").removeprefix("//")
            named = [c for c in process.net_connections("unix") if str(c.laddr).startswith(path)]
            return max(0, len(named) - 1)
        port = int(address.rpartition(":")[2])
        return sum(
            c.status == psutil.CONN_ESTABLISHED and c.laddr.port == port
            for c in process.net_connections("tcp")
        )
    except (psutil.Error, OSError):
        return None


def _summarised(gateway: Gateway, rows: Sequence[Row], *, supervised: bool) -> dict[str, Any]:
    return {
        "address": gateway.address,
        "supervisor": {"pid": gateway.pid, "running": supervised},
        "workers_wanted": gateway.workers,
        "workers": [
            {
                "worker": row.worker.number,
                "pid": row.worker.pid,
                "state": row.state,
                "serving": row.serves,
                "up_s": round(row.up_s, 3),
                "restarts": row.worker.restarts,
                "deaths_in_a_row": row.worker.deaths,
                "crash_loop": row.is_looping,
                "why": row.worker.why or None,
                "connections": row.connections,
                "calls": row.worker.calls,
                "answered": row.worker.answered,
                "stood_in": row.worker.stood_in,
                "refused": row.worker.refused,
                "shed": row.worker.shed,
                "share": row.share,
                "calls_per_s": row.per_s,
                "stand_in_share": row.stand_in_share,
                "worst_pause_us": row.worker.worst_pause_ns / 1000,
            }
            for row in rows
        ],
    }


def _print(gateway: Gateway, rows: Sequence[Row]) -> None:
    table = Table(box=None, pad_edge=False, header_style="")
    for heading in ("worker", "pid", "state", "up", "restarts", "connections", "calls", "share"):
        table.add_column(heading, justify="left" if heading == "state" else "right")
    for heading in ("calls/s", "stand-ins", "shed", "worst pause"):
        table.add_column(heading, justify="right")
    for row in rows:
        one = row.worker
        style = "green" if row.serves else "red"
        table.add_row(
            str(one.number),
            str(one.pid),
            f"[{style}]{escape(row.state)}[/{style}]",
            _duration(row.up_s),
            str(one.restarts),
            "?" if row.connections is None else str(row.connections),
            f"{one.calls:,}",
            f"{row.share:.1%}",
            f"{row.per_s:,.0f}",
            f"{row.stand_in_share:.1%}",
            f"{one.shed:,}",
            microseconds(one.worst_pause_ns / 1000),
        )
    out.print(f"{escape(gateway.address)}, supervisor {gateway.pid}")
    out.print(table)
    for row in rows:
        if row.worker.why:
            died = "dies again and again" if row.is_looping else "last died"
            out.print(
                f"worker {row.worker.number} {died}: {escape(row.worker.why)}", soft_wrap=True
            )


def _next(journal: Path, gateway: Gateway, rows: Sequence[Row]) -> str:
    if any(row.is_looping for row in rows):
        return f"Next: gateway check DIR, then kill -HUP {gateway.pid} to try at once"
    if any(row.state == "not responding" for row in rows):
        stuck = next(row.worker.pid for row in rows if row.state == "not responding")
        return f"Next: kill -KILL {stuck}, and the supervisor starts it again"
    return f"Next: gateway journal cat {journal} --last 20"


def _duration(s: float) -> str:
    if s < 120:
        return f"{s:.0f} s"
    return f"{s / 60:.0f} min" if s < 7200 else f"{s / 3600:.1f} h"
