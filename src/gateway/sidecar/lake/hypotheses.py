"""Hypotheses that were started: what was declared then, when, and what came of it when it ended.

```
hypotheses/product=…/<id>.json
```

A record is begun once and ended once; neither is ever changed, nor is a look that was kept.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from pyarrow import fs

from gateway.errors import LakeError, UsageError
from gateway.sidecar.lake.parquet import make_folder, refusal, whole

FOLDER = "hypotheses"
SCHEMA = "gateway.hypothesis/1"


@dataclass(frozen=True, slots=True)
class Begun:
    """A hypothesis as it was started. `declared`: all that it said; `digest`: of that; `models`: of
    what was declared of its arms' models.

    `started`, `stopped`: ISO 8601, in UTC. `looks`: those that were kept, of the first days on.
    `outcome`: what was known when it was stopped.
    """

    product: str
    id: str
    digest: str
    declared: Mapping[str, Any]
    models: str
    started: str
    looks: Sequence[Mapping[str, Any]] = ()
    stopped: str | None = None
    outcome: Mapping[str, Any] | None = None


def begun(filesystem: fs.FileSystem, root: str) -> tuple[Begun, ...]:
    """Return what was started, by product and id. Raises LakeError."""
    selector = fs.FileSelector(f"{root}/{FOLDER}", recursive=True, allow_not_found=True)
    found = []
    try:
        for info in filesystem.get_file_info(selector):
            if info.base_name.endswith(".json") and not info.base_name.startswith("."):
                with filesystem.open_input_stream(info.path) as source:
                    found.append(_read(source.readall(), info.path))
    except OSError as error:
        raise refusal(error, "read the hypotheses of the lake", root) from error
    return tuple(sorted(found, key=lambda one: (one.product, one.id)))


def begin(filesystem: fs.FileSystem, root: str, one: Begun) -> str:
    """Write down what is started; return where it stands.

    Raises:
        LakeError: the file system refuses.
        UsageError: it was started already.
    """
    folder = f"{root}/{FOLDER}/product={one.product}"
    path = f"{folder}/{one.id}.json"
    try:
        if filesystem.get_file_info(path).type is not fs.FileType.NotFound:
            raise UsageError(
                "was started already, and is never started twice",
                subject=one.id,
                hint="Declare it under another id; what came of this one stays.",
            )
        make_folder(filesystem, folder)
        _write(filesystem, path, one)
    except OSError as error:
        raise refusal(error, "start a hypothesis", path) from error
    return path


def keep(
    filesystem: fs.FileSystem, root: str, one: Begun, looks: Sequence[Mapping[str, Any]]
) -> Begun:
    """Keep looks behind those that are kept. Raises LakeError, UsageError."""
    kept = replace(one, looks=(*one.looks, *looks[len(one.looks) :]))
    _rewrite(filesystem, root, kept, one, "keep the looks of a hypothesis")
    return kept


def end(
    filesystem: fs.FileSystem, root: str, one: Begun, outcome: Mapping[str, Any], at: datetime
) -> Begun:
    """Write down what came of a hypothesis that goes on no longer. Raises LakeError, UsageError."""
    looks = outcome.get("looks", ())
    kept = (*one.looks, *looks[len(one.looks) :])
    stopped = at.astimezone(UTC).isoformat()
    ended = replace(one, looks=kept, stopped=stopped, outcome=outcome)
    _rewrite(filesystem, root, ended, one, "stop a hypothesis")
    return ended


def _rewrite(
    filesystem: fs.FileSystem, root: str, one: Begun, before: Begun, operation: str
) -> None:
    if before.stopped is not None:
        raise UsageError(
            f"was stopped at {before.stopped}",
            subject=before.id,
            hint="What came of it stays: gateway hypothesis show.",
        )
    path = f"{root}/{FOLDER}/product={one.product}/{one.id}.json"
    try:
        _write(filesystem, path, one)
    except OSError as error:
        raise refusal(error, operation, path) from error


def _write(filesystem: fs.FileSystem, path: str, one: Begun) -> None:
    with whole(filesystem, path) as sink:
        sink.write(json.dumps({"schema": SCHEMA, **asdict(one)}, indent=1).encode())


def _read(text: bytes, path: str) -> Begun:
    try:
        found = json.loads(text)
        if found.pop("schema") != SCHEMA:
            raise ValueError
        return Begun(**found)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise LakeError(
            f"is no started hypothesis ({SCHEMA})", subject=path, hint="Put back what stood there."
        ) from None
