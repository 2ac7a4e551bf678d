"""A lake whose writer is killed before each of its steps; run as a script by test_lake.

Every life is a process of its own, killed by SIGKILL before its n-th step. After each death what
`files` shows has no row twice; and the life that is not killed any more leaves every row, once.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import count

from lake_calls import KEY, calls, on_disk, range_of, read, segment

from gateway.journal import Decision
from gateway.sidecar.lake.decisions import pseudonym
from gateway.sidecar.lake.features import Shape
from gateway.sidecar.lake.lake import Lake
from gateway.sidecar.lake.rows import Rows
from gateway.sidecar.tail.call import Range

RANGES = ((1, 2), (3, 5), (6, 8))
SHAPE = Shape((), "")
ERASED = pseudonym("customer-3", KEY)
DECIDED = {
    one.record.sequence
    for span in RANGES
    for one in calls(*span)
    if isinstance(one.record.entry, Decision)
}


def live(root: str, killed_at: int) -> None:
    """Ship all ranges, compact, erase a customer; die before step `killed_at`, from 0."""
    steps = count()

    def step(_: str) -> None:
        if next(steps) == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)

    lake = Lake.at(root)
    lake._step = step
    rows = Rows(key=KEY, shape=lambda _: SHAPE)
    for first, last in RANGES:
        some = calls(first, last)
        lake.write(range_of(some), rows.parts(some, ()))
    whole = Range(*segment().boot, 1, 8)
    for _ in range(2):  # the second deletes what the first has joined
        lake.compact([whole], now_ns=2**62, least_files=2, grace_s=0.0)
    lake.erase(ERASED)


def look(root: str, *, is_done: bool) -> None:
    """Hold what is seen against what was shipped."""
    lake = Lake.at(root)
    shipped = {one.record.sequence for span in RANGES for one in calls(*span)}
    seen = [row["sequence"] for table in ("decisions", "refusals") for row in read(lake, table)]
    assert len(seen) == len(set(seen)), "a row stands twice"
    assert set(seen) <= shipped
    if is_done:
        theirs = {i for i in shipped if i % 7 == 3 and i in DECIDED}
        assert set(seen) == shipped - theirs, f"lost or kept: {shipped - theirs ^ set(seen)}"
        names = [path.name for path in on_disk(lake) if path.name != ".lock"]
        assert len(names) == 1, f"what was joined, or half written, is left: {names}"


def child(does: Callable[[], None]) -> int:
    """Run in a process of its own; return its wait status."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            does()
            code = 0
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return os.waitpid(pid, 0)[1]


def main() -> None:
    deaths, chance = 0, random.Random(5)
    for killed_at in count():
        with tempfile.TemporaryDirectory() as root:
            # The second life of each is killed too, wherever it happens to be.
            status = child(partial(live, root, killed_at))
            assert child(partial(look, root, is_done=False)) == 0
            if os.WIFSIGNALED(status):
                deaths += 1
                child(partial(live, root, chance.randrange(10)))
                assert child(partial(live, root, -1)) == 0
            assert child(partial(look, root, is_done=True)) == 0
            if not os.WIFSIGNALED(status):
                assert status == 0
                break
    print(deaths)


if __name__ == "__main__":
    main()
