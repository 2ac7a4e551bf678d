"""A change of a product's folder, verified by a process of its own before any worker sees it.

It reads the folder whole, checks that it is a newer generation than what is served, opens its
models and lets them pass the gates, and takes a snapshot of the files: what was verified is what
will be served, whatever happens to the folder then. It reads a question from stdin and writes an
answer.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
import time
from base64 import b64encode
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.errors import ExitCode, GatewayError, ProductError, Violation
from gateway.model.registry import PRODUCT_YAML, Registry, ServedArm
from gateway.serve.crew.control import Load, error_row
from gateway.serve.succession.verification import Question, known_numbers
from gateway.serve.succession.watch import signature

if TYPE_CHECKING:
    from gateway.model import Contents


def main() -> int:
    """Answer the question on stdin."""
    question = Question(**json.load(sys.stdin))
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)  # nothing else gets between the answer's bytes
        json.dump(answer(question), answers)
    return ExitCode.OK


def answer(question: Question) -> dict[str, Any]:
    """Return what is to be said of a folder, as JSON values."""
    from gateway.model import opened, planned, read_folder
    from gateway.model.trial import passed, remember
    from gateway.verify import expect_passed, run_gates

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
        # A file that is not the pinned one first: no number makes it right.
        plan = planned(contents)
        _expect_newer(question, contents, digest)
        generation = opened(plan, lambda name: (contents.files[name], contents.place(name)))
        if not question.is_snapshot:
            found = run_gates(generation, contents.path.parent, time.thread_time_ns)
            gates += (gate.row for gate in found)
            expect_passed(found, str(contents.path))
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
        asdict(ServedArm(arm.name, arm.version, arm.digest, arm.mode, arm.share))
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
    product, served = contents.product, question.number
    numbers, forgotten = question.numbers, question.forgotten
    if product.name != question.product:
        if not question.is_new:
            raise _wrong(
                contents,
                "product",
                f"is {product.name!r}, this folder is served as {question.product!r}.",
                "Serve another product from a folder of its own, with `gateway serve`.",
            )
        # It may have been served from another folder.
        state = Registry(Path(question.store)).state(product.name)
        served, (numbers, forgotten) = 0, known_numbers(state)
    number = product.generation
    known = numbers.get(str(number))
    newest = max((served, forgotten, *map(int, numbers)))
    if known is not None and known != digest:
        raise _wrong(
            contents,
            "generation",
            f"is {number}, and {number} was served with other content.",
            f"Raise it to {newest + 1}.",
        )
    if known is None and number < served:
        raise _wrong(
            contents,
            "generation",
            f"is {number}, older than {served}, which is served.",
            f"Raise it to {newest + 1}; `gateway models rollback` goes back.",
        )
    if known is None and number <= forgotten:
        raise _wrong(
            contents,
            "generation",
            f"is {number}, and numbers up to {forgotten} may have been served with other content.",
            f"Raise it to {newest + 1}.",
        )


def _wrong(contents: Contents, key: str, problem: str, hint: str) -> ProductError:
    line = contents.product.source.lines.get((key,), 1)
    return ProductError((Violation(str(contents.path), line, key, problem, hint),))


if __name__ == "__main__":
    sys.exit(main())
