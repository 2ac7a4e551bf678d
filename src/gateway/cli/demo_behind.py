"""What the demo knows of what is behind its journal: counted where it arrived."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from gateway.cli.sidecar_lag import Beside, beside
from gateway.sidecar.lake import Lake
from gateway.sidecar.lake.parquet import footer
from gateway.sidecar.lake.ranges import parse_file_name
from gateway.sidecar.traces.receiver import Receiver

STALLED_S = 20.0
"""Where nothing moves for so long, the sidecar is not waited for any more."""

_LOOK_S = 0.1
_WAITED_FOR = ("traces", "lake")


@dataclass(frozen=True, slots=True)
class Places:
    """Where the demo's records go, its rows, how far the sidecar is, and the months' products."""

    journal: Path
    lake: str
    checkpoints: Path
    products: Path

    def options(self, receiver: Receiver, *, evaluated: bool) -> tuple[str, ...]:
        """Return what `gateway serve` is to be asked, for its sidecar.

        The checkpoints are the demo's own: the receiver is new each time, so all of the journal is
        behind neither of them; and a sidecar of one's own begins with all of it afterwards.
        `evaluated`: each minute; not beside calls that are measured.
        """
        ends = ("--otlp", receiver.address, "--lake", self.lake)
        ports = ("--http", "127.0.0.1:0", "--feedback", "127.0.0.1:0")
        kept = ("--checkpoints", str(self.checkpoints))
        return ("--sidecar", *ends, *ports, *kept, "--evaluate", "1m" if evaluated else "off")


@contextmanager
def places(journal: Path | None, lake: str | None) -> Iterator[Places]:
    """Yield the caller's places, and those of a folder that is removed for what is not named."""
    with TemporaryDirectory(prefix="gateway-demo-") as folder:
        here = Path(folder)
        yield Places(
            journal or here / "journal",
            lake or str(here / "lake"),
            here / "sidecar",
            here / "products",
        )


@dataclass(frozen=True, slots=True)
class Counted:
    """Decisions that the journal holds, each counted once, in three places."""

    journal: int
    spans: int
    lake: int

    @property
    def agree(self) -> bool:
        """Whether each is everywhere."""
        return self.journal == self.spans == self.lake

    @property
    def row(self) -> dict[str, dict[str, int]]:
        """The same for the summary."""
        return {
            "journal": {"records": self.journal},
            "spans": {"decisions": self.spans},
            "lake": {"decisions": self.lake},
        }


def counted(recorded: Collection[str], receiver: Receiver, lake: str) -> Counted:
    """Count the decisions `recorded` (their ids): spans that arrived, and rows of the lake.

    Of the lake and the receiver only what is of the same boots counts.

    Raises:
        LakeError: the lake cannot be read.
    """
    boots = {one.partition("-")[0] for one in recorded}
    return Counted(len(recorded), receiver.decisions(boots), _rows(Lake.at(lake), boots))


def wait_until_behind(journal: Path, seen: Callable[[Beside], None]) -> None:
    """Wait until all of the journal is in the lake and at the receiver, as long as it moves on.

    Raises:
        JournalError: how far they are cannot be read.
    """
    left, moved_s = -1, time.monotonic()
    while (sidecar := beside(journal)) is not None:
        behind = records_left(sidecar)
        seen(sidecar)
        if not behind:
            return
        if behind != left:
            left, moved_s = behind, time.monotonic()
        elif time.monotonic() - moved_s > STALLED_S:
            return
        time.sleep(_LOOK_S)


def records_left(sidecar: Beside) -> int:
    """Return how many records the furthest behind has before it, of who is waited for."""
    lags = [lag.records for name, lag in sidecar.lags.items() if lag and name in _WAITED_FOR]
    return max(lags, default=0)


def _rows(lake: Lake, boots: Collection[str]) -> int:
    named = ((parse_file_name(path.rpartition("/")[2]), path) for path in lake.files("decisions"))
    ours = (path for name, path in named if name is not None and name.boot in boots)
    return sum(footer(lake.filesystem, path)[1] for path in ours)
