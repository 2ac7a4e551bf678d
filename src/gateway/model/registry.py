"""The generations that a gateway served, kept below its journal to go back to.

```
generations/<product>/<number>-<first 12 of digest>/   product.yaml and every file that it names
generations/<product>/state.json                       what is served, what was refused, what was
```

A snapshot appears whole, by rename, and is read-only from then on. A file that an earlier
snapshot holds too is a hard link to that one. One process writes: the supervisor. Anyone reads.

It knows nothing of what the files mean: the supervisor, which loads no model, can import it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Self

from gateway.errors import JournalError, UsageError

KEEP = 10
"""So many generations of a product stay in its history, and in the store."""

PRODUCT_YAML = "product.yaml"
"""The file of a product's folder that says what the others are."""

STORE = "generations"
"""The store's directory below a journal's."""

STATE = "state.json"

_PRODUCT = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}", re.ASCII)
_SNAPSHOT = re.compile(r"([0-9]{1,18})-([0-9a-f]{12})(-[0-9]{1,9})?", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ServedArm:
    """One model of a generation. `mode`: champion, shadow or canary; `share`: of the traffic."""

    name: str
    version: str
    sha256: str
    mode: str
    share: float


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """What a gate found at load: its figure, the rule it was held to, and `verdict` in a word."""

    name: str
    figure: float | str | None
    rule: str
    verdict: str
    arm: str = ""


@dataclass(frozen=True, slots=True)
class Past:
    """A generation that was served from `since_ns` (wall clock) on. `snapshot`: its folder."""

    generation: int
    digest: str
    since_ns: int
    snapshot: str


@dataclass(frozen=True, slots=True)
class Served:
    """The generation that is served."""

    generation: int
    digest: str
    since_ns: int
    snapshot: str
    arms: tuple[ServedArm, ...] = ()
    gates: tuple[GateVerdict, ...] = ()

    @property
    def past(self) -> Past:
        """What the history keeps of it."""
        return Past(self.generation, self.digest, self.since_ns, self.snapshot)


@dataclass(frozen=True, slots=True)
class Refused:
    """The newest edit of the folder, where it was not taken. `why`: lines for people.

    `generation` and `digest` are None where the edit could not be read so far.
    """

    generation: int | None
    digest: str | None
    at_ns: int
    why: tuple[str, ...]
    gates: tuple[GateVerdict, ...] = ()


@dataclass(frozen=True, slots=True)
class State:
    """What became of a product's folder.

    `refused`: None where the newest edit is what is served. `history`: oldest first, the serving
    one last. `looked_ns`: wall clock of the last look at the folder that was asked for and is
    done; 0 before the first. `spreading`: what workers were told to serve last, where it is not
    known that they do: some may have. `forgotten`: the highest number that the history has lost.
    """

    product: str
    folder: str
    serving: Served
    refused: Refused | None = None
    history: tuple[Past, ...] = field(default=())
    looked_ns: int = 0
    spreading: Past | None = None
    forgotten: int = 0

    @property
    def numbers(self) -> dict[int, str]:
        """The digest of each generation that may have served a call, by its number."""
        tried = () if self.spreading is None else (self.spreading,)
        return {past.generation: past.digest for past in (*self.history, *tried)}

    def trying(self, past: Past | None) -> State:
        """Return the state while workers are told of a generation; None: none of them serves it."""
        lost = self.spreading
        if past is None or lost is None or lost.digest == past.digest:
            return replace(self, spreading=past)
        return replace(self, spreading=past, forgotten=max(self.forgotten, lost.generation))

    def taking(self, served: Served) -> State:
        """Return the state after another generation was taken into service."""
        history, tried = (*self.history, served.past), self.trying(served.past)
        lost = (past.generation for past in history[:-KEEP])
        return replace(
            tried,
            serving=served,
            refused=None,
            history=history[-KEEP:],
            spreading=None,
            forgotten=max((tried.forgotten, *lost)),
        )

    def refusing(self, refused: Refused | None) -> State:
        """Return the state after an edit was refused; None: the newest edit is served again."""
        return replace(self, refused=refused)

    def looked(self, at_ns: int) -> State:
        """Return the state after a look at the folder that was asked for. `at_ns`: wall clock."""
        return replace(self, looked_ns=at_ns)

    def row(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)

    @classmethod
    def from_row(cls, row: Any) -> Self:
        """Read what `row` gave.

        Raises:
            ValueError: it is none; the text says which key.
        """
        keys = _Keys(row, "state")
        return cls(
            product=_product(keys.text("product")),
            folder=keys.text("folder"),
            serving=_served(keys.below("serving")),
            refused=None if keys.get("refused") is None else _refused(keys.below("refused")),
            history=tuple(map(_past, keys.each("history"))),
            looked_ns=keys.whole("looked_ns", default=0),
            spreading=_past(keys.below("spreading")) if keys.has("spreading") else None,
            forgotten=keys.whole("forgotten", default=0),
        )


class Snapshot(NamedTuple):
    """A snapshot's folder, and what its name says."""

    generation: int
    digest_start: str
    path: Path


class Registry:
    """The store below `root`, which is `generations` in a journal's directory.

    `step` is called with the name of each step that changes the disk, before it: for tests.
    """

    def __init__(self, root: Path, step: Callable[[str], None] = lambda _: None) -> None:
        self.root = root
        self._step = step

    def state(self, product: str) -> State | None:
        """Return what is known of a product, or None.

        Raises:
            JournalError: its state.json is damaged or cannot be read.
            UsageError: `product` is no product's name.
        """
        path = self._home(product) / STATE
        try:
            content = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _cannot("be read", error, path) from error
        try:
            state = State.from_row(json.loads(content))
            if state.product != product:
                raise ValueError(f"is of product {state.product}")
        except (ValueError, RecursionError) as error:
            what = "is no JSON" if isinstance(error, json.JSONDecodeError) else str(error)
            raise JournalError(
                f"is damaged: {what or 'it cannot be read'}",
                subject=str(path),
                hint="Move it away: the gateway writes it anew at its next start, and the "
                "snapshots beside it stay.",
            ) from None
        return state

    def states(self) -> tuple[State, ...]:
        """Return all products' states, by name. Raises as `state`."""
        return tuple(state for name in self.products() if (state := self.state(name)))

    def products(self) -> tuple[str, ...]:
        """Return the products that the store knows, by name. Raises JournalError."""
        try:
            names = sorted(path.name for path in self.root.iterdir() if path.is_dir())
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise _cannot("be listed", error, self.root) from error
        return tuple(name for name in names if _PRODUCT.fullmatch(name))

    def written_ns(self, product: str) -> int:
        """Return the wall clock at which a product's state was last written; 0: never."""
        try:
            return (self._home(product) / STATE).stat().st_mtime_ns
        except OSError:
            return 0

    def by_folder(self, folder: Path) -> State | None:
        """Return the state of the product that is served from `folder`. Raises as `state`.

        The folder's name counts first, and what it leads to after that: a link may be swapped. Of
        several products it is the one that was served last.
        """
        states = self.states()
        name, place = os.path.abspath(folder), os.path.realpath(folder)
        named = [state for state in states if os.path.abspath(state.folder) == name]
        leading = (state for state in states if os.path.realpath(state.folder) == place)
        return max(named or leading, key=lambda state: self.written_ns(state.product), default=None)

    def write(self, state: State) -> None:
        """Replace a product's state.json: whoever reads finds the old one or the new one.

        Raises:
            JournalError: the disk refuses.
        """
        home = self._made_home(state.product)
        path, beside = home / STATE, home / f".{STATE}.{os.getpid()}"
        try:
            self._step("write the state")
            _write_file(beside, json.dumps(state.row(), indent=1).encode() + b"\n", mode=0o600)
            self._step("replace the state")
            beside.replace(path)
            _sync(home)
        except OSError as error:
            with suppress(OSError):
                beside.unlink(missing_ok=True)
            raise _cannot("be written", error, path) from error

    def snapshot(self, product: str, number: int, digest: str, files: Mapping[str, bytes]) -> Path:
        """Keep a generation's files and return their folder. Again is nothing new.

        `files`: by their paths in the product's folder, product.yaml among them. Where the
        generation's name is taken by other files (a digest does not cover all of them), the
        folder's name has a number more; nothing that was kept is changed.

        Raises:
            JournalError: the disk refuses.
            UsageError: a path that leaves the folder, or no number, digest or product.
        """
        name, tree = _snapshot_name(number, digest), _tree(files)
        home = self._made_home(product)
        beside = home / f".{name}.{os.getpid()}"
        try:
            for place in _places(home, name):
                if _holds(place, tree):
                    return place
                if not place.exists():
                    break
            earlier = _Earlier(home)
            self._step("make the directory")
            _remove(beside)
            beside.mkdir(mode=0o700)
            for path, content in tree.items():
                self._step(f"add {path}")
                _add(beside / path, content, earlier)
            for directory in _directories(beside):
                _sync(directory)
                directory.chmod(0o500)
            self._step("rename the directory")
            beside.rename(place)
            _sync(home)
        except OSError as error:
            with suppress(OSError):
                _remove(beside)
            raise _cannot("be kept", error, home / name) from error
        return place

    def snapshots(self, product: str) -> tuple[Snapshot, ...]:
        """Return a product's snapshots, the oldest generation first. Raises JournalError."""
        home = self._home(product)
        try:
            found = [(path, _SNAPSHOT.fullmatch(path.name)) for path in home.iterdir()]
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise _cannot("be listed", error, home) from error
        return tuple(sorted(Snapshot(int(m[1]), m[2], path) for path, m in found if m))

    def path(self, product: str, snapshot: str) -> Path:
        """Return the folder of a snapshot by its name, as a state gives it.

        Raises:
            JournalError: it is not there.
        """
        path = self._home(product) / snapshot
        if not _SNAPSHOT.fullmatch(snapshot) or not path.is_dir():
            raise JournalError(
                "is not in the store any more", subject=str(path), hint="gateway models list"
            )
        return path

    def prune(self, product: str, keep: int = KEEP) -> tuple[Path, ...]:
        """Remove all but the newest `keep` snapshots, and what a killed process left half made.

        What serves, or is to serve, stays whatever its age, and what the history names goes after
        what it does not. A new generation is to be in the state before this is called.

        Returns what was removed.

        Raises:
            JournalError: the disk refuses, or the state is damaged: then nothing is removed.
        """
        home, state = self._home(product), self.state(product)
        rank = {past.snapshot: i for i, past in enumerate(state.history if state else (), 1)}
        needed = (
            {past.snapshot for past in (state.serving, state.spreading) if past} if state else ()
        )
        by_worth = sorted(
            self.snapshots(product),
            key=lambda one: (one.path.name in needed, rank.get(one.path.name, 0), one),
            reverse=True,
        )
        gone = [one.path for one in by_worth[max(keep, len(needed)) :]]
        try:
            for path in gone:
                self._step("move the snapshot away")
                path.rename(home / f".{path.name}.gone")
            for path in home.glob(".*"):
                self._step("remove what is left")
                _remove(path)
        except OSError as error:
            raise _cannot("be pruned", error, home) from error
        return tuple(gone)

    def _home(self, product: str) -> Path:
        try:
            return self.root / _product(product)
        except ValueError as error:
            raise UsageError(
                str(error), subject="product", hint="Name a product that serve was given."
            ) from None

    def _made_home(self, product: str) -> Path:
        home = self._home(product)
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            home.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise _cannot("be made", error, home) from error
        return home


def _snapshot_name(number: int, digest: str) -> str:
    if not 0 <= number < 10**18 or not _DIGEST.fullmatch(digest):
        raise UsageError("needs a number and 64 hex digits", subject=f"generation {number}")
    return f"{number}-{digest[:12]}"


def _places(home: Path, name: str) -> Iterator[Path]:
    yield home / name
    for i in range(2, 10**9):
        yield home / f"{name}-{i}"


def _tree(files: Mapping[str, bytes]) -> dict[PurePosixPath, bytes]:
    """Return the files by paths that stay inside. Raises UsageError."""
    tree: dict[PurePosixPath, bytes] = {}
    for name, content in files.items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
            raise UsageError(
                "leaves the product's folder",
                subject=repr(name),
                hint="Name files inside the folder, by paths relative to it.",
            )
        tree[path] = content
    return tree


class _Earlier:
    """The files of earlier snapshots, by their size."""

    def __init__(self, home: Path) -> None:
        self._by_size: dict[int, dict[int, Path]] = {}
        for snapshot in home.iterdir():
            if _SNAPSHOT.fullmatch(snapshot.name):
                for path in snapshot.rglob("*"):
                    if path.is_file() and not path.is_symlink():
                        stat = path.stat()
                        self._by_size.setdefault(stat.st_size, {})[stat.st_ino] = path

    def same_as(self, content: bytes) -> Path | None:
        """Return a file of the same content, compared byte for byte."""
        candidates = self._by_size.get(len(content), {}).values()
        return next((path for path in candidates if _is_same(path, content)), None)


def _is_same(path: Path, content: bytes) -> bool:
    view, at = memoryview(content), 0
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                if view[at : at + len(chunk)] != chunk:
                    return False
                at += len(chunk)
    except OSError:
        return False
    return at == len(content)


def _add(path: Path, content: bytes, earlier: _Earlier) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if (same := earlier.same_as(content)) is not None:
        try:
            os.link(same, path)
        except OSError:
            pass  # Too many links, or a file system that has none: a copy does as well.
        else:
            return
    _write_file(path, content, mode=0o400)


def _holds(place: Path, tree: Mapping[PurePosixPath, bytes]) -> bool:
    """Say whether a folder holds these files, unaltered, and no others."""
    there = {path.relative_to(place) for path in place.rglob("*") if not path.is_dir()}
    wanted = {Path(path) for path in tree}
    return there == wanted and all(_is_same(place / p, content) for p, content in tree.items())


def _write_file(path: Path, content: bytes, *, mode: int) -> None:
    """Write a file that is not there yet, durably. Raises OSError."""
    path.unlink(missing_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _directories(top: Path) -> Sequence[Path]:
    """Return a folder and all below it, the deepest first."""
    below = [path for path in top.rglob("*") if path.is_dir()]
    return (*sorted(below, key=lambda path: len(path.parts), reverse=True), top)


def _remove(path: Path) -> None:
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    for directory in reversed(_directories(path)):
        directory.chmod(0o700)
    shutil.rmtree(path)


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _cannot(what: str, error: OSError, subject: Path) -> JournalError:
    return JournalError(
        f"cannot {what}: {error.strerror or type(error).__name__}",
        subject=str(subject),
        hint="Look whether the journal's disk has space, and whether this user may write there.",
    )


def _product(name: str) -> str:
    if not _PRODUCT.fullmatch(name):
        raise ValueError(f"{name[:80]!r} is no product's name")
    return name


class _Keys:
    """A JSON object, read strictly; ValueError says which key is not what it must be."""

    def __init__(self, row: Any, place: str) -> None:
        if not isinstance(row, dict):
            raise ValueError(f"{place} is no object")
        self._row, self._place = row, place

    def get(self, key: str) -> Any:
        if key not in self._row:
            raise ValueError(f"{self._place} has no {key}")
        return self._row[key]

    def has(self, key: str) -> bool:
        return self._row.get(key) is not None

    def text(self, key: str, default: str | None = None) -> str:
        value = self.get(key) if default is None else self._row.get(key, default)
        if not isinstance(value, str):
            raise ValueError(f"{self._place}.{key} is no text")
        return value

    def whole(self, key: str, default: int | None = None) -> int:
        value = self._row.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"{self._place}.{key} is no whole number")
        return value

    def number(self, key: str) -> float:
        value = self.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{self._place}.{key} is no number")
        return float(value)

    def items(self, key: str) -> list[Any]:
        value = self.get(key)
        if not isinstance(value, list):
            raise ValueError(f"{self._place}.{key} is no list")
        return value

    def below(self, key: str) -> _Keys:
        return _Keys(self.get(key), f"{self._place}.{key}")

    def each(self, key: str) -> list[_Keys]:
        return [_Keys(item, f"{self._place}.{key}[]") for item in self.items(key)]


def _past(keys: _Keys) -> Past:
    snapshot = keys.text("snapshot")
    if not _SNAPSHOT.fullmatch(snapshot):
        raise ValueError(f"{snapshot[:80]!r} is no snapshot's name")
    return Past(keys.whole("generation"), keys.text("digest"), keys.whole("since_ns"), snapshot)


def _served(keys: _Keys) -> Served:
    past = _past(keys)
    return Served(
        past.generation,
        past.digest,
        past.since_ns,
        past.snapshot,
        arms=tuple(map(_arm, keys.each("arms"))),
        gates=tuple(map(_gate, keys.each("gates"))),
    )


def _refused(keys: _Keys) -> Refused:
    why = keys.items("why")
    if not all(isinstance(line, str) for line in why):
        raise ValueError("refused.why is no list of lines")
    return Refused(
        generation=None if keys.get("generation") is None else keys.whole("generation"),
        digest=None if keys.get("digest") is None else keys.text("digest"),
        at_ns=keys.whole("at_ns"),
        why=tuple(why),
        gates=tuple(map(_gate, keys.each("gates"))),
    )


def _arm(keys: _Keys) -> ServedArm:
    name, version, sha256 = keys.text("name"), keys.text("version"), keys.text("sha256")
    return ServedArm(name, version, sha256, keys.text("mode"), keys.number("share"))


def _gate(keys: _Keys) -> GateVerdict:
    figure = keys.get("figure")
    if figure is not None and not isinstance(figure, str | int | float):
        raise ValueError("a gate's figure is no number and no text")
    name, rule, verdict = keys.text("name"), keys.text("rule"), keys.text("verdict")
    return GateVerdict(name, figure, rule, verdict, arm=keys.text("arm", default=""))
