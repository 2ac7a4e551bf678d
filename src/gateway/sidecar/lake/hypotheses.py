"""Hypotheses that were started: what was declared then, when, and what came of it when it ended.

```
hypotheses/product=…/<id>.json
```

A record is begun once and ended once; neither is ever changed, nor is a look that was kept.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

from pyarrow import fs

from gateway.errors import LakeError, UsageError
from gateway.sidecar.lake.parquet import make_folder, refusal, whole

FOLDER = "hypotheses"
SCHEMA = "gateway.hypothesis/1"

_PLACE = re.compile(rf"/{FOLDER}/product=([^/]+)/([^/.][^/]*)\.json$")


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


class Damaged(NamedTuple):
    """A record that cannot be read, by its place. `error`: no word of what stands there."""

    product: str
    id: str
    error: LakeError


def records(filesystem: fs.FileSystem, root: str) -> tuple[Begun | Damaged, ...]:
    """Return what was started, by product and id, damaged records too. Raises LakeError."""
    selector = fs.FileSelector(f"{root}/{FOLDER}", recursive=True, allow_not_found=True)
    found: list[Begun | Damaged] = []
    try:
        for info in filesystem.get_file_info(selector):
            place = _PLACE.search(info.path)
            if place is None:
                continue
            try:
                found.append(_at(filesystem, info.path, place[1], place[2]))
            except LakeError as error:
                found.append(Damaged(place[1], place[2], error))
            except OSError as error:
                wrong = refusal(error, "read a hypothesis", info.path)
                found.append(Damaged(place[1], place[2], wrong))
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
        make_folder(filesystem, folder)
        with _alone(filesystem, root):
            if filesystem.get_file_info(path).type is not fs.FileType.NotFound:
                raise UsageError(
                    "was started already, and is never started twice",
                    subject=one.id,
                    hint="Declare it under another id; what came of this one stays.",
                )
            _write(filesystem, path, one)
    except OSError as error:
        raise refusal(error, "start a hypothesis", path) from error
    return path


def keep(
    filesystem: fs.FileSystem, root: str, one: Begun, looks: Sequence[Mapping[str, Any]]
) -> Begun:
    """Keep looks behind those that are kept. Raises LakeError, UsageError."""
    with _alone(filesystem, root):
        now = _now(filesystem, root, one)
        kept = replace(now, looks=(*now.looks, *looks[len(now.looks) :]))
        _rewrite(filesystem, root, kept, "keep the looks of a hypothesis")
    return kept


def keep_told(filesystem: fs.FileSystem, root: str, told: Sequence[Mapping[str, Any]]) -> None:
    """Keep the looks of hypotheses that run, as an evaluation tells of them; each behind its own.

    A declaration that was changed says nothing of a day, and may be put back: no look of it is
    kept. What was stopped or started anew meanwhile is left alone.

    Raises:
        LakeError: the file system refuses, or a record is damaged; the others were kept.
    """
    wrong: LakeError | None = None
    for one in told:
        if one.get("error") or one.get("stopped") or one.get("because") == "declaration_changed":
            continue
        try:
            with _alone(filesystem, root):
                now = _at(filesystem, _path(root, one), str(one["product"]), str(one["id"]))
                looks = one["looks"]
                same = (now.digest, now.started) == (one["digest"], one["started"])
                days = [look["day"] for look in looks]
                if not same or now.stopped or days != list(range(1, len(days) + 1)):
                    continue
                if len(looks) > len(now.looks):
                    kept = replace(now, looks=(*now.looks, *looks[len(now.looks) :]))
                    _rewrite(filesystem, root, kept, "keep the looks of a hypothesis")
        except (KeyError, TypeError):
            wrong = LakeError("is no hypothesis", subject="the evaluation")
        except LakeError as error:
            wrong = error
        except OSError as error:
            wrong = refusal(error, "read a hypothesis", root)
    if wrong is not None:
        raise wrong


def end(
    filesystem: fs.FileSystem, root: str, one: Begun, outcome: Mapping[str, Any], at: datetime
) -> Begun:
    """Write down what came of a hypothesis that goes on no longer. Raises LakeError, UsageError."""
    looks = outcome.get("looks", ())
    stopped = at.astimezone(UTC).isoformat()
    with _alone(filesystem, root):
        now = _now(filesystem, root, one)
        kept = (*now.looks, *looks[len(now.looks) :])
        ended = replace(now, looks=kept, stopped=stopped, outcome=outcome)
        _rewrite(filesystem, root, ended, "stop a hypothesis")
    return ended


def _now(filesystem: fs.FileSystem, root: str, one: Begun) -> Begun:
    """Return a record as it stands by now. Raises LakeError, UsageError: it was stopped."""
    path = _path(root, asdict(one))
    try:
        now = _at(filesystem, path, one.product, one.id)
    except OSError as error:
        raise refusal(error, "read a hypothesis", path) from error
    if now.stopped is not None:
        raise UsageError(
            f"was stopped at {now.stopped}",
            subject=now.id,
            hint="What came of it stays: gateway hypothesis show.",
        )
    return now


def _rewrite(filesystem: fs.FileSystem, root: str, one: Begun, operation: str) -> None:
    path = _path(root, asdict(one))
    try:
        _write(filesystem, path, one)
    except OSError as error:
        raise refusal(error, operation, path) from error


def _write(filesystem: fs.FileSystem, path: str, one: Begun) -> None:
    with whole(filesystem, path) as sink:
        sink.write(json.dumps({"schema": SCHEMA, **asdict(one)}, indent=1).encode())


def _path(root: str, one: Mapping[str, Any]) -> str:
    return f"{root}/{FOLDER}/product={one['product']}/{one['id']}.json"


@contextmanager
def _alone(filesystem: fs.FileSystem, root: str) -> Iterator[None]:
    """Let nobody else rewrite a record meanwhile, where the lake is a folder: a sidecar keeps looks
    while somebody stops."""
    if not isinstance(filesystem, fs.LocalFileSystem):
        yield
        return
    try:
        lock = os.open(f"{root}/{FOLDER}", os.O_RDONLY)
    except OSError as error:
        raise refusal(error, "write the hypotheses of the lake", root) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _at(filesystem: fs.FileSystem, path: str, product: str, id: str) -> Begun:
    """Return the record of a place. Raises LakeError: it is none; OSError."""
    with filesystem.open_input_stream(path) as source:
        text = source.readall()
    try:
        found = json.loads(text)
        if found.pop("schema") != SCHEMA:
            raise ValueError
        one = Begun(**found)
        texts = (one.digest, one.models, one.started, one.stopped or "")
        lists = (one.looks, *(() if one.outcome is None else (one.outcome.get("looks", []),)))
        if (one.product, one.id) != (product, id) or not isinstance(one.declared, dict):
            raise ValueError
        if not all(isinstance(x, str) for x in texts) or not all(
            isinstance(x, list) for x in lists
        ):
            raise ValueError
        return one
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise LakeError(
            f"is no started hypothesis ({SCHEMA})", subject=path, hint="Put back what stood there."
        ) from None
