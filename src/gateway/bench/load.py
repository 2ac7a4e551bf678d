"""One schedule against one server: the generator as a child process, a witness on each core."""

from __future__ import annotations

import pickle
import selectors
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway.bench.generator import Calls, Plan
from gateway.bench.machine import in_the_background
from gateway.bench.witness import Seen, Witnesses
from gateway.errors import GatewayError

LOOK_S = 0.25
"""How often progress is told, and how late a deed may be."""


@dataclass(frozen=True, slots=True)
class Deed:
    """Something done to the server `after_s` into the schedule."""

    after_s: float
    do: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Load:
    """What the generator and the witnesses saw of one schedule."""

    calls: Calls
    witnessed: Seen


def apply(
    plan: Plan,
    witness_cores: tuple[int, ...],
    *,
    progress: Callable[[float], None] = lambda _: None,
    deeds: Sequence[Deed] = (),
) -> Load:
    """Send a plan's schedule. `progress` is told the share of it that is over.

    `deeds` are done one after the other, each as soon as it is time and the one before is done.

    Raises:
        GatewayError: no connection could be made, or the generator died.
    """
    if plan.closed_s is not None:
        lasts_s = plan.closed_s
    else:
        lasts_s = float(plan.schedule_ns[-1]) / 1e9
    command = [sys.executable, "-m", "gateway.bench.generator"]
    with (
        Witnesses(witness_cores) as witnesses,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        ) as child,
        in_the_background(),
    ):
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(pickle.dumps(plan, pickle.HIGHEST_PROTOCOL))
            child.stdin.close()
            zero_ns = int(child.stdout.readline() or b"0")
            if zero_ns:
                _wait(child, zero_ns, lasts_s, progress, deeds)
            said = child.stdout.read()
        except BaseException:
            child.kill()
            raise
        code = child.wait()
    if code or not said:
        raise GatewayError(
            f"the load generator ended with code {code}", hint="Its own words stand above."
        )
    outcome = pickle.loads(said)
    if isinstance(outcome, GatewayError):
        raise outcome
    return Load(outcome, witnesses.seen)


def _wait(
    child: subprocess.Popen[bytes],
    zero_ns: int,
    lasts_s: float,
    progress: Callable[[float], None],
    deeds: Sequence[Deed],
) -> None:
    """Wait until the generator has something to say; do each deed when it is time."""
    left = deque(sorted(deeds, key=lambda deed: deed.after_s))
    with selectors.DefaultSelector() as selector:
        assert child.stdout is not None
        selector.register(child.stdout, selectors.EVENT_READ)
        while True:
            gone_s = (time.monotonic_ns() - zero_ns) / 1e9
            progress(min(1.0, max(0.0, gone_s / lasts_s if lasts_s else 1.0)))
            wait_s = LOOK_S
            if left and gone_s >= left[0].after_s:
                left.popleft().do()
                wait_s = 0.0
            elif left:
                wait_s = min(wait_s, left[0].after_s - gone_s)
            if selector.select(max(wait_s, 0.001)):
                return
