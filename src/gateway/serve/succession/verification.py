"""What the supervisor asks of a process that verifies a change of a folder, and what it hears."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from dataclasses import asdict, dataclass
from typing import Any

from gateway.errors import GatewayError
from gateway.model.registry import State
from gateway.serve.crew.control import Load, error_of

VERIFY_S_MAX = 900.0

_STEPPING_BACK = (
    'if command -v chrt >/dev/null; then exec chrt -i 0 "$0" "$@"; '
    'else exec nice -n 19 "$0" "$@"; fi'
)
"""Run when nobody else does, from the first import on: SCHED_IDLE gives way at once, where a nice
process first uses up its slice of some milliseconds.

It counts within a session: Linux shares the processor among sessions first, where
`kernel.sched_autogroup_enabled` is on. So the workers and this have the supervisor's.
"""


@dataclass(frozen=True, slots=True)
class Question:
    """A folder, and what is known of its product.

    `product`: its name, or empty for a folder that is new. `serving` and `number`: the digest and
    the number of what is served, or empty and 0. `numbers`: the digest of each generation that was
    served, by its number. `is_new`: the gateway starts, so that it need not step back behind
    others, and the folder may hold another product. `is_snapshot`: it passed the gates before, and
    the labelled payments are not with it. `trials`: of model files, what other such processes
    learned. `forgotten`: up to this number, what was served may not stand in `numbers` any more.
    """

    folder: str
    store: str
    product: str
    serving: str
    number: int
    numbers: dict[str, str]
    is_new: bool
    is_snapshot: bool
    trials: dict[str, Any]
    forgotten: int = 0


def known_numbers(state: State | None) -> tuple[dict[str, str], int]:
    """Return `numbers` and `forgotten` of a product; None: it was never served."""
    if state is None:
        return {}, 0
    return {str(number): digest for number, digest in state.numbers.items()}, state.forgotten


@dataclass(frozen=True, slots=True)
class Verified:
    """A generation that may be served: `arms` and `gates` as JSON values for `state.json`."""

    load: Load
    arms: list[dict[str, Any]]
    gates: list[dict[str, Any]]
    trials: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Refused:
    """A folder whose content is not to be served. `number` is 0 where it is not known."""

    error: GatewayError
    number: int
    digest: str
    gates: list[dict[str, Any]]


class Unchanged:
    """The folder holds what is served."""


class Moving:
    """The folder changed while it was read: look again."""


Answer = Verified | Refused | Unchanged | Moving


async def verify(question: Question) -> Answer:
    """Ask a process of its own.

    Raises:
        GatewayError: the process died, or did not answer in time.
    """
    # -P: what lies in the current folder is not imported.
    command = [sys.executable, "-P", "-m", "gateway.serve.succession.verifier"]
    if not question.is_new:
        command = ["/bin/sh", "-c", _STEPPING_BACK, *command]
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            process_group=0,  # Ctrl-C is for the supervisor
        )
    except OSError as error:
        raise GatewayError(
            f"no process can be started to verify it: {error.strerror}",
            subject=question.folder,
            hint="Look at the machine's limits: memory, processes, open files.",
        ) from None
    try:
        asked = json.dumps(asdict(question)).encode()
        said, _ = await asyncio.wait_for(process.communicate(asked), VERIFY_S_MAX)
    except TimeoutError:
        raise GatewayError(
            f"it was not verified within {VERIFY_S_MAX:g} s", subject=question.folder
        ) from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    if process.returncode != 0 or not said:
        raise GatewayError(
            f"the process that verified it died ({process.returncode})",
            subject=question.folder,
            hint="What it said before stands above; gateway check does the same.",
        )
    return answer_of(json.loads(said))


def answer_of(row: dict[str, Any]) -> Answer:
    """Read what such a process answered."""
    if "verified" in row:
        verified = row["verified"]
        return Verified(**{**verified, "load": Load(**verified["load"])})
    if "refused" in row:
        refused = row["refused"]
        return Refused(**{**refused, "error": error_of(refused["error"])})
    return Unchanged() if row["unchanged"] else Moving()
