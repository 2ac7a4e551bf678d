"""Evaluations of a lake, each kept whole beside what it was made of.

```
evaluations/2026-11-26T032755.123456Z.json    as of that time, as `gateway evaluate --json` says it
```

One appears by rename: whoever was killed, the last one is there to be read. The newest few stay,
and the last of each day, for months; a file's name says which it is, so that no clock is asked.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from pyarrow import fs

from gateway.errors import LakeError
from gateway.sidecar.lake.parquet import TEMPORARY, make_folder, refusal, whole

FOLDER = "evaluations"
COUNTS = "counts.duckdb"
"""What was counted, so that the next evaluation need not; whoever deletes it loses time alone."""

SCHEMA = "gateway.evaluation/1"

NEWEST = 4
DAYS = 90
"""So many are kept, and the last ones of so many days."""

_NAME = re.compile(rf"(\.?)(\d{{4}}-\d\d-\d\dT\d{{6}}\.\d{{6}})Z\.json(?:{re.escape(TEMPORARY)})?")
_TIME = "%Y-%m-%dT%H%M%S.%f"

log = logging.getLogger(__name__)


def forget_counts(filesystem: fs.FileSystem, root: str) -> None:
    """Delete what was counted: numbers that stand for customers and payments are among it.

    Raises:
        LakeError: the file system refuses.
    """
    path = f"{root}/{FOLDER}/{COUNTS}"
    for one in (path, f"{path}.wal"):
        try:
            with suppress(FileNotFoundError):
                filesystem.delete_file(one)
        except OSError as error:
            raise refusal(error, "delete", one) from error


class Kept(NamedTuple):
    """An evaluation's file."""

    as_of: datetime
    path: str


class Evaluations:
    """The evaluations below `root` of a file system. Any number of processes may keep some."""

    def __init__(self, filesystem: fs.FileSystem, root: str) -> None:
        self._filesystem = filesystem
        self._folder = f"{root}/{FOLDER}"

    def keep(self, evaluation: Mapping[str, Any]) -> str:
        """Write an evaluation, delete those that are not to stay, and return where it stands.

        Raises:
            LakeError: the file system refuses, or it is no evaluation.
        """
        as_of = as_of_of(evaluation)
        path = f"{self._folder}/{as_of.strftime(_TIME)}Z.json"
        try:
            make_folder(self._filesystem, self._folder)
            with whole(self._filesystem, path) as sink:
                sink.write(json.dumps(evaluation, separators=(",", ":")).encode())
            self._forget(as_of)
        except OSError as error:
            raise refusal(error, "keep an evaluation in the lake", path) from error
        return path

    def kept(self) -> tuple[Kept, ...]:
        """Return what is there, the newest first. Raises LakeError: the file system refuses."""
        try:
            found = [one for one, is_whole in self._listed() if is_whole]
        except OSError as error:
            raise refusal(error, "look for evaluations in the lake", self._folder) from error
        return tuple(sorted(found, reverse=True))

    def last(self, until: datetime) -> Mapping[str, Any] | None:
        """Return the newest evaluation, none as of a time behind `until`; None: there is none.

        One that cannot be read as an evaluation is left out, with a line in the log.

        Raises:
            LakeError: the file system refuses.
        """
        for one in self.kept():
            if one.as_of > until:
                continue
            try:
                return evaluation_in(self._text(one.path), one.path)
            except LakeError as error:
                log.warning("an evaluation is left out: %s", error)
        return None

    def _text(self, path: str) -> bytes:
        try:
            with self._filesystem.open_input_stream(path) as source:
                return bytes(source.readall())
        except OSError as error:
            raise refusal(error, "read an evaluation of the lake", path) from error

    def _listed(self) -> Iterator[tuple[Kept, bool]]:
        """Yield each file, and whether it is whole. Raises OSError."""
        selector = fs.FileSelector(self._folder, allow_not_found=True)
        for info in self._filesystem.get_file_info(selector):
            match = _NAME.fullmatch(info.base_name)
            if match is not None:
                as_of = datetime.strptime(match[2], _TIME).replace(tzinfo=UTC)
                yield Kept(as_of, info.path), not match[1]

    def _forget(self, now: datetime) -> None:
        """Delete what is not to stay, and what a killed process had begun to write a day ago."""
        listed = list(self._listed())
        stay = staying(one for one, is_whole in listed if is_whole)
        begun_before = now - timedelta(days=1)
        for one, is_whole in listed:
            if one in stay or (not is_whole and one.as_of >= begun_before):
                continue
            with suppress(FileNotFoundError):  # another process was first
                self._filesystem.delete_file(one.path)


def staying(kept: Iterable[Kept]) -> set[Kept]:
    """Return which stay: the newest, and the last of each of the newest days (UTC)."""
    newest_first = sorted(kept, reverse=True)
    last_of_day: dict[Any, Kept] = {}
    for one in newest_first:
        last_of_day.setdefault(one.as_of.date(), one)
    return {*newest_first[:NEWEST], *list(last_of_day.values())[:DAYS]}


def evaluation_in(text: str | bytes, subject: str) -> dict[str, Any]:
    """Read an evaluation, as `gateway evaluate --json` prints it.

    Raises:
        LakeError: it is none, or one of a form that is not known here.
    """
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise LakeError(f"is no evaluation ({SCHEMA})", subject=subject, hint=_HINT)
    as_of_of(found, subject)
    return found


def as_of_of(evaluation: Mapping[str, Any], subject: str = "the evaluation") -> datetime:
    """Return when it was made, or rather as known at which time, in UTC. Raises LakeError."""
    try:
        return datetime.fromisoformat(evaluation["as_of"]).astimezone(UTC)
    except (KeyError, TypeError, ValueError):
        raise LakeError("has no time", subject=subject, hint=_HINT) from None


_HINT = "Make it again: gateway evaluate --lake DIR --keep."
