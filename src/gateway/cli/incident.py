"""`gateway incident`: something goes wrong, and is to be found in traces and metrics."""

from __future__ import annotations

import json as json_codec
import random
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import numpy as np
from cyclopts import Parameter
from cyclopts.validators import Number

from gateway.bench.incident import INCIDENTS, Incident
from gateway.bench.machine import cores
from gateway.bench.product import MEDIUM, write_kind
from gateway.bench.rig import Rig
from gateway.cli.bench import bar
from gateway.cli.demo_server import interrupted_by_sigterm, serving
from gateway.cli.terms import Json, notes, out
from gateway.errors import ExitCode, UsageError
from gateway.model import read_product
from gateway.product import schema_fingerprint

SETTLE_S = 3.0
SHIPPED_S = 4.0
"""After so long the sidecar has counted what came last, and shipped it."""


def incident(
    name: Annotated[
        str | None,
        Parameter(
            help=f"One of {', '.join(INCIDENTS)}. Where left out: one of them, and you are not "
            "told which."
        ),
    ] = None,
    folder: Annotated[
        Path, Parameter(name="DIR", help="Where models, journal and lake go; it must be new.")
    ] = Path("incident"),
    /,
    *,
    seconds: Annotated[
        float, Parameter(validator=Number(gte=6), help="So long calls come; a third of it is calm.")
    ] = 24.0,
    once: Annotated[
        bool,
        Parameter(
            negative="", show_default=False, help="End when the calls have: metrics end with it."
        ),
    ] = False,
    json: Json = False,
) -> int:
    """Let something go wrong on this machine, to practise on: find out why.

    Serves a product with a sidecar, sends it calls, and after a while something happens. Then it
    stands still until Ctrl-C, so that traces and metrics can be asked; what happened is said last.
    """
    chosen = _chosen(name)
    if folder.exists() and any(folder.iterdir()):
        raise UsageError("is not empty", subject=str(folder), hint="Name a new folder.")
    journal, lake = folder / "journal", folder / "lake"
    places = cores(1)
    sidecar = ("--sidecar", "--lake", str(lake), "--http", "127.0.0.1:0", "--evaluate", "off")
    with interrupted_by_sigterm(), bar(json) as tell:
        tell("making a model", 0.0)
        product = write_kind(folder / "models" / MEDIUM.name, MEDIUM)
        tell("starting the gateway", 0.0)
        with serving([product], journal, options=("--workers", "1", *sidecar)) as server:
            rig = Rig(
                server,
                schema_fingerprint(read_product(product).features),
                places,
                np.random.default_rng(),
                tell,
                folders={MEDIUM.name: product},
                journal=journal,
            )
            time.sleep(SETTLE_S)  # its spare worker loads meanwhile, beside the calls
            chosen.run(rig, seconds)
            time.sleep(SHIPPED_S)
            _announce(folder, server.metrics, json=json)
            if not once:
                with suppress(KeyboardInterrupt):
                    signal.pause()
    if json:
        print(json_codec.dumps({"incident": chosen.name, "truth": chosen.truth}))
    else:
        out.print(f"{chosen.name}: {chosen.truth}.", soft_wrap=True)
    return ExitCode.OK


def _chosen(name: str | None) -> Incident:
    if name is None:
        return random.choice(list(INCIDENTS.values()))
    if name not in INCIDENTS:
        raise UsageError(
            "is no incident", subject=repr(name), hint=f"One of {', '.join(INCIDENTS)}."
        )
    return INCIDENTS[name]


def _announce(folder: Path, metrics: str, *, json: bool) -> None:
    if json:
        where = {"journal": str(folder / "journal"), "lake": str(folder / "lake")}
        print(json_codec.dumps({"metrics": metrics, **where}), flush=True)
        return
    notes.print(
        "Something went wrong. Find out what and why:\n"
        f"  curl -s {metrics} | grep gateway_decisions_total\n"
        f"  gateway trace --stood-in --last 10m --journal {folder / 'journal'}\n"
        f"  gateway trace --slow --last 10m --journal {folder / 'journal'}\n"
        f"  gateway models list --journal {folder / 'journal'}\n"
        "Ctrl-C says what it was.",
        markup=False,
        soft_wrap=True,
    )
