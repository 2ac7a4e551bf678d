"""A product's folder through time: what it was, and how it becomes what is next.

There is one memory of one form, a `Registry`, kept by whoever makes something pass: the gateway
keeps what it serves, in `generations` below its journal; a command keeps what it replaces, in
`.generations` in the folder. The first knows the edits that were made by hand, the second is
there where no gateway has run. Both are read together, so that going back needs no flag.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath

from gateway import product as product_yaml
from gateway.errors import GatewayError, ModelError, ProductError, UsageError
from gateway.model.folder import Contents, files_named, read_folder
from gateway.model.generation import Generation, opened, planned
from gateway.model.registry import PRODUCT_YAML, Registry, State
from gateway.product.edit import content_of, with_files, with_generation

MEMORY = ".generations"
"""In a product's folder: what commands have replaced there."""


@dataclass(frozen=True, slots=True)
class Present:
    """What stands in a folder now.

    `number` and `product` are None where product.yaml says none that can be read; `contents` is
    None where it, or a file that it names, is not in order.
    """

    path: Path
    written: bytes
    number: int | None
    product: str | None
    contents: Contents | None

    @property
    def folder(self) -> Path:
        """The product's folder."""
        return self.path.parent

    @property
    def text(self) -> str:
        """What product.yaml says, its line breaks as they are."""
        return self.written.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Revision:
    """A generation that can be gone back to. `at_ns`: when it was taken into service, or replaced.

    `path`: the folder of its snapshot.
    """

    generation: int
    digest_start: str
    at_ns: int
    path: Path


@dataclass(frozen=True, slots=True)
class Draft:
    """What a folder is to become: it loads, and nothing of it is written.

    `missing`: files that it names and the folder does not have.
    """

    present: Present
    text: str
    missing: Mapping[str, bytes]
    contents: Contents
    generation: Generation


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Let no other command change the folder meanwhile.

    Raises:
        UsageError: another one does, or there is no such folder.
    """
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(
            f"cannot be opened: {error.strerror}",
            subject=str(folder),
            hint="Name a product's folder, such as models/card-not-present.",
        ) from None
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError(
                "another command changes this folder", subject=str(folder), hint="Try again."
            ) from None
        yield
    finally:
        os.close(fd)


def present_in(folder: Path) -> Present:
    """Read what stands in a folder, in whatever state that is.

    Raises:
        UsageError: it has no product.yaml that can be read.
    """
    path = folder / PRODUCT_YAML
    try:
        written = path.read_bytes()
    except OSError as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        raise UsageError(
            "there is no product.yaml here" if missing else f"cannot be read: {error.strerror}",
            subject=str(folder if missing else path),
            hint="Name a product's folder, such as models/card-not-present.",
        ) from None
    number, product, contents = None, None, None
    with suppress(UsageError, UnicodeDecodeError):
        content = content_of(written.decode())
        number = found if isinstance(found := content.get("generation"), int) else None
        product = name if isinstance(name := content.get("product"), str) else None
    with suppress(UsageError, ProductError, ModelError):
        contents = read_folder(folder)
    return Present(path, written, number, product, contents)


def revisions(product: str, memory: Registry, store: Registry | None) -> tuple[Revision, ...]:
    """Return what can be gone back to, the oldest first.

    `memory`: what commands replaced in the folder; `store`: what a gateway served.

    Raises:
        JournalError: one of them cannot be read.
    """
    found: list[Revision] = []
    for registry in (memory, store):
        if registry is None:
            continue
        state = registry.state(product)
        since_ns = {past.snapshot: past.since_ns for past in state.history} if state else {}
        for one in registry.snapshots(product):
            if registry is memory:
                at_ns = one.path.stat().st_mtime_ns
            elif (at_ns := since_ns.get(one.path.name, 0)) == 0:
                continue  # it was verified, and never served
            found.append(Revision(one.generation, one.digest_start, at_ns, one.path))
    return tuple(sorted(found, key=lambda one: (one.at_ns, one.generation)))


def before(present: Present, known: Sequence[Revision]) -> Revision | None:
    """Return the newest revision that is another than the present, whatever its number.

    What differs by nothing but its number is the same, so that going back twice is to go forth.
    """
    return next((one for one in reversed(known) if not is_same(present, one)), None)


def is_same(present: Present, revision: Revision) -> bool:
    """Say whether the folder holds a revision, by whatever number."""
    contents = _contents_of(revision)
    if present.contents is None or contents is None:
        return False
    texts = (present.contents.text, contents.text)
    if present.contents.files != contents.files:
        return False
    with suppress(UsageError):
        return len({with_generation(text, 0) for text in texts}) == 1
    return texts[0] == texts[1]


def next_number(present: Present, known: Sequence[Revision], state: State | None) -> int:
    """Return a generation number that nothing had so far."""
    had = [present.number or 0, *(one.generation for one in known)]
    if state is not None:
        had += [*state.numbers, state.forgotten]
        had += [state.serving.generation, (state.refused and state.refused.generation) or 0]
    return max(had) + 1


def restored(present: Present, revision: Revision, number: int) -> Draft:
    """Return a revision as the folder's next generation.

    What it names and the folder does not have is taken from its snapshot. Where another content
    has the name now, that stays, and the revision's file gets a name with its digest.

    Raises:
        UsageError, ProductError, ModelError: the revision's files are not in order any more.
    """
    contents = read_folder(revision.path)
    text = (revision.path / PRODUCT_YAML).read_bytes().decode()
    names = {name: free_name(present.folder, name, it) for name, it in contents.files.items()}
    renamed = {old: new for old, new in names.items() if old != new}
    text = with_generation(with_files(text, renamed) if renamed else text, number)
    return draft(present, text, {names[old]: it for old, it in contents.files.items()})


def draft(present: Present, text: str, files: Mapping[str, bytes]) -> Draft:
    """Load what `text` would make of the folder, with the `files` that it may name.

    Raises:
        ProductError: the text breaks the contract.
        ModelError: a model, a calibration or golden vectors are not in order.
    """
    lines = "\n".join(text.replace("\r\n", "\n").split("\r"))  # as a file is read
    product = product_yaml.parse(lines, str(present.path))
    named = {name: files[name] for name in sorted(files_named(product))}
    contents = Contents(present.path, lines, product, named)
    generation = opened(planned(contents), lambda name: (named[name], contents.place(name)))
    missing = {name: it for name, it in named.items() if not (present.folder / name).exists()}
    return Draft(present, text, missing, contents, generation)


def write(one: Draft, memory: Registry, *, was_refused: bool) -> Path | None:
    """Let the folder be what was drafted: whole, or as it was. The folder is `held`.

    What it was is kept first, in `memory`. Where it is nothing to go back to, because the gateway
    has refused it or it does not load, product.yaml alone is kept, and its path is returned.

    Raises:
        UsageError: product.yaml has changed meanwhile, is a link, or the folder cannot be written.
        JournalError: what it was cannot be kept.
    """
    present = one.present
    _expect_writable(present.path)
    unserved = _kept(present, memory, was_refused=was_refused)
    try:
        for name, content in one.missing.items():
            path = present.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            _replace(path, content, like=None)
        _replace(present.path, one.text.encode(), like=present)
    except OSError as error:
        raise _unwritable(present.folder, error) from error
    return unserved


def _kept(present: Present, memory: Registry, *, was_refused: bool) -> Path | None:
    contents = present.contents
    try:
        memory.root.mkdir(mode=0o700, exist_ok=True)
        # What is kept here is no part of what a team reviews.
        (memory.root / ".gitignore").write_text("*\n")
        if contents is None or was_refused:
            name = f"unserved-{sha256(present.written).hexdigest()[:12]}.yaml"
            (memory.root / name).write_bytes(present.written)
            return memory.root / name
    except OSError as error:
        raise _unwritable(present.folder, error) from error
    files = {PRODUCT_YAML: present.written, **contents.files}
    product = contents.product
    kept = memory.snapshot(product.name, product.generation, contents.digest, files)
    os.utime(kept)  # the latest to be replaced, even where it had been so before
    memory.prune(product.name)
    return None


def _contents_of(revision: Revision) -> Contents | None:
    try:
        return read_folder(revision.path)
    except GatewayError:
        return None


def free_name(folder: Path, name: str, content: bytes) -> str:
    """Return `name`, or one with the content's digest where another content has it."""
    path = folder / name
    if not path.exists() or path.read_bytes() == content:
        return name
    pure = PurePosixPath(name)
    return str(pure.with_name(f"{pure.stem}.{sha256(content).hexdigest()[:12]}{pure.suffix}"))


def _expect_writable(path: Path) -> None:
    if path.is_symlink():
        raise UsageError(
            "is a link: something else lays out this folder",
            subject=str(path),
            hint="Change it where it comes from; --dry-run shows the change.",
        )
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise UsageError(
            "no permission to write",
            subject=str(path.parent),
            hint="Give this user the right to write there; --dry-run shows the change.",
        )


def _replace(path: Path, content: bytes, *, like: Present | None) -> None:
    """Write a file beside and rename it. Raises OSError, and UsageError where it has changed."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.unlink(missing_ok=True)
    try:
        with beside.open("xb") as file:
            if like is not None:
                stat = path.stat()
                os.fchmod(file.fileno(), stat.st_mode & 0o7777)
                with suppress(OSError):
                    os.fchown(file.fileno(), stat.st_uid, stat.st_gid)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if like is not None and path.read_bytes() != like.written:
            raise UsageError(
                "has changed meanwhile", subject=str(path), hint="Look at it, and try again."
            )
        beside.rename(path)
    finally:
        beside.unlink(missing_ok=True)
    fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _unwritable(folder: Path, error: OSError) -> UsageError:
    return UsageError(
        f"cannot be written: {error.strerror or type(error).__name__}",
        subject=str(folder),
        hint="Look whether this user may write there, and whether the disk has space.",
    )
