"""`gateway sidecar` as it is, but that it joins files early, and may die before a step of the lake.

    python sidecar_that_dies.py LOG STEP COUNT ARGUMENTS…

STEP is one of the lake's (`write`, `rename`, `sync`, `delete`), or `none`; before its COUNTth the
process kills itself. LOG takes a line a step.
"""

from __future__ import annotations

import os
import signal
import sys
from functools import partial, partialmethod
from itertools import count
from typing import Any

from gateway.cli import sidecar_consumers
from gateway.cli.main import main
from gateway.sidecar.lake import compaction, shipping
from gateway.sidecar.lake.lake import Lake


def dying(log: str, step: str, number: int) -> None:
    """Patch the lake."""
    steps = count(1)
    opened = Lake.at

    def before(name: str) -> None:
        with open(log, "a") as file:
            file.write(f"{name}\n")
        if name == step and next(steps) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def at(place: str) -> Lake:
        lake = opened(place)
        lake._step = before
        return lake

    patched: Any = Lake
    patched.at = at
    patched.compact = partialmethod(Lake.compact, grace_s=0.0, least_files=3)
    compaction.COMPACT_S = 0.4
    sidecar_consumers.Shipping = partial(shipping.Shipping, ship_s=0.1)  # type: ignore[misc]


if __name__ == "__main__":
    dying(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    main(["sidecar", *sys.argv[4:]])
