"""A lake whose eraser is killed before each of its steps; run as a script by test_erase.

After each death every row but the subject's stands once; the run that is not killed any more leaves
none of the subject's, and what is shipped again from the begin brings none back.
"""

from __future__ import annotations

import os
import signal
import tempfile
from functools import partial
from itertools import count

from lake_calls import KEY, call, on_disk, range_of, read
from lake_killed import SHAPE, child

from gateway.sidecar.lake.decisions import pseudonym
from gateway.sidecar.lake.lake import Lake
from gateway.sidecar.lake.rows import Rows

RANGES = ((1, 20), (21, 24), (25, 60))  # of customer-3, who has a row in seven
THEIRS = {i for i in range(1, 61) if i % 7 == 3}


def ship(root: str) -> None:
    """As a sidecar does that has lost its checkpoint."""
    lake, rows = Lake.at(root), Rows(key=KEY, shape=lambda _: SHAPE)
    for first, last in RANGES:
        some = [call(i) for i in range(first, last + 1)]
        lake.write(range_of(some), rows.parts(some, ()))


def erase(root: str, killed_at: int) -> None:
    """Erase; die before step `killed_at`, from 0."""
    steps = count()

    def step(_: str) -> None:
        if next(steps) == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)

    lake = Lake.at(root)
    lake._step = step
    lake.erase(pseudonym("customer-3", KEY), now_ns=2**62)


def look(root: str, *, is_done: bool) -> None:
    """Hold what is seen against what was shipped."""
    seen = [row["sequence"] for row in read(Lake.at(root))]
    assert len(seen) == len(set(seen)), "a row stands twice"
    others = set(range(1, 61)) - THEIRS
    assert others <= set(seen), f"lost: {others - set(seen)}"
    if is_done:
        assert set(seen) == others, f"kept: {set(seen) & THEIRS}"
        names = [path.suffix for path in on_disk(Lake.at(root)) if path.name != ".lock"]
        assert names == [".parquet"] * len(RANGES), f"half written: {names}"


def main() -> None:
    deaths = 0
    for killed_at in count():
        with tempfile.TemporaryDirectory() as root:
            assert child(partial(ship, root)) == 0
            status = child(partial(erase, root, killed_at))
            is_over = not os.WIFSIGNALED(status)
            deaths += not is_over
            assert child(partial(look, root, is_done=is_over)) == 0
            for _ in range(2):
                assert child(partial(erase, root, -1)) == 0
                assert child(partial(ship, root)) == 0
                assert child(partial(look, root, is_done=True)) == 0
            if is_over:
                assert status == 0
                break
    print(deaths)


if __name__ == "__main__":
    main()
