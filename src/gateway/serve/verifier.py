"""A change of a product's folder, verified by a process of its own before any worker sees it.

It reads the folder whole, checks that it is a newer generation than what is served, opens its
models and lets them pass the gates, and takes a snapshot of the files: what was verified is what
will be served, whatever happens to the folder then. It reads a question from stdin and writes an
answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pickle
import sys
from base64 import b64encode
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.errors import ExitCode, GatewayError, ProductError, Violation
from gateway.serve.control import Load, error_of, error_row
from gateway.serve.watch import signature

if TYPE_CHECKING:
    from gateway.model import Contents

PRODUCT_YAML = "product.yaml"
VERIFY_S_MAX = 900.0
_NICENESS = 19


@dataclass(frozen=True, slots=True)
class Question:
    """A folder, and what is known of its product.

    `product`: its name, or empty for a folder that is new. `serving` and `number`: the digest and
    the number of what is served, or empty and 0. `numbers`: the digest of each generation that was
    served, by its number. `is_new`: the gateway starts, so that it need not step back behind
    others, and the folder may hold another product. `trials`: of model files, what other such
    processes learned.
    """

    folder: str
    store: str
    product: str
    serving: str
    number: int
    numbers: dict[str, str]
    is_new: bool
    trials: dict[str, Any]


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
    command = [sys.executable, "-P", "-m", "gateway.serve.verifier"]
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
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
    if process.returncode != 0 or not said:
        raise GatewayError(
            f"the process that verified it died ({process.returncode})",
            subject=question.folder,
            hint="What it said before stands above; gateway check does the same.",
        )
    return _answer(json.loads(said))


def _answer(row: dict[str, Any]) -> Answer:
    if "verified" in row:
        verified = row["verified"]
        return Verified(**{**verified, "load": Load(**verified["load"])})
    if "refused" in row:
        refused = row["refused"]
        return Refused(**{**refused, "error": error_of(refused["error"])})
    return Unchanged() if row["unchanged"] else Moving()


def main() -> int:
    """Answer the question on stdin."""
    question = Question(**json.load(sys.stdin))
    if not question.is_new:
        os.nice(_NICENESS)
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)  # nothing else gets between the answer's bytes
        json.dump(answer(question), answers)
    return ExitCode.OK


def answer(question: Question) -> dict[str, Any]:
    """Return what is to be said of a folder, as JSON values."""
    from gateway.model import opened, planned, read_folder
    from gateway.model.registry import Registry
    from gateway.model.trial import passed, remember

    folder, number, digest = Path(question.folder), 0, ""
    gates: list[dict[str, Any]] = []
    remember(question.trials)
    before = signature(folder)
    try:
        contents = read_folder(folder)
        if signature(folder) != before:
            return {"unchanged": False}
        number, digest = contents.product.generation, contents.digest
        if digest == question.serving:
            return {"unchanged": True}
        _expect_newer(question, contents, digest)
        plan = planned(contents)
        generation = opened(plan, lambda name: (contents.files[name], contents.place(name)))
        files = {PRODUCT_YAML: contents.text.encode(), **contents.files}
        registry = Registry(Path(question.store))
        snapshot = registry.snapshot(plan.product.name, number, digest, files)
    except GatewayError as error:
        if signature(folder) != before:
            return {"unchanged": False}  # half of a change may be what is wrong
        refused = {"error": error_row(error), "number": number, "digest": digest, "gates": gates}
        return {"refused": refused}
    load = Load(
        product=plan.product.name,
        number=number,
        digest=digest,
        snapshot=str(snapshot),
        plan=b64encode(pickle.dumps(plan)).decode(),
    )
    arms = [
        {
            "name": arm.name,
            "version": arm.version,
            "sha256": arm.digest,
            "mode": arm.mode,
            "share": arm.share,
        }
        for arm in plan.arms
    ]
    return {
        "verified": {"load": asdict(load), "arms": arms, "gates": gates, "trials": passed()},
    }


def _expect_newer(question: Question, contents: Contents, digest: str) -> None:
    """Refuse what bears the number of another generation, or an older one.

    Raises:
        ProductError: it does.
    """
    product = contents.product
    if product.name != question.product:
        if question.is_new:
            return
        raise _wrong(
            contents,
            "product",
            f"is {product.name!r}, this folder is served as {question.product!r}.",
            "Serve another product from a folder of its own, with `gateway serve`.",
        )
    number = product.generation
    known = question.numbers.get(str(number))
    newest = max((question.number, *map(int, question.numbers)))
    if known is not None and known != digest:
        raise _wrong(
            contents,
            "generation",
            f"is {number}, and {number} was served with other content.",
            f"Raise it to {newest + 1}.",
        )
    if known is None and number < question.number:
        raise _wrong(
            contents,
            "generation",
            f"is {number}, older than {question.number}, which is served.",
            f"Raise it to {newest + 1}; `gateway models rollback` goes back.",
        )


def _wrong(contents: Contents, key: str, problem: str, hint: str) -> ProductError:
    line = contents.product.source.lines.get((key,), 1)
    return ProductError((Violation(str(contents.path), line, key, problem, hint),))


if __name__ == "__main__":
    sys.exit(main())
