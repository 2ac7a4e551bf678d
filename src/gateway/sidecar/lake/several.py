"""Several lakes as one: those that hosts fill, each its own.

A row stands once in `files`, also where one lake holds a copy of another's files, joined or not.
What an answer, a label or a group says does not depend on which lake it stands in: answers are told
apart by their transaction, labels by their source's event, attributes by their times.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from gateway.sidecar.lake.lake import Lake
from gateway.sidecar.lake.products import Kept, newest
from gateway.sidecar.lake.pseudonyms import marks
from gateway.sidecar.lake.ranges import File, parse_file_name, visible


def files(lakes: Sequence[Lake], table: str) -> tuple[str, ...]:
    """Return the paths of a table's files in all lakes, those of the first lake first.

    Raises:
        LakeError: a file system refuses.
    """
    places: dict[str, str] = {}
    for lake in lakes:
        for path in lake.files(table):
            places.setdefault(path.removeprefix(lake.root), path)
    counting = {one.path for one in visible(_named(places))}
    return tuple(path for within, path in places.items() if within in counting)


def _named(places: Iterable[str]) -> Iterator[File]:
    """Yield files as they lie in their lakes, whichever it is."""
    for within in places:
        name = parse_file_name(within.rpartition("/")[2])
        if name is not None:
            yield File(name, within, 0, 0)


def newest_of(lakes: Sequence[Lake]) -> dict[str, Kept]:
    """Return the file of each product's newest generation in any lake, by product.

    Raises:
        LakeError: a file system refuses.
    """
    found: dict[str, Kept] = {}
    for lake in lakes:
        for product, kept in newest(lake.filesystem, lake.root).items():
            held = found.get(product)
            if held is None or kept[1:3] > held[1:3]:
                found[product] = kept
    return dict(sorted(found.items()))


def differing(lakes: Sequence[Lake]) -> tuple[str, ...]:
    """Return the products whose newest generation is not the same in all lakes that have them."""
    said: dict[str, set[tuple[int, str]]] = {}
    for lake in lakes:
        for product, kept in newest(lake.filesystem, lake.root).items():
            said.setdefault(product, set()).add((kept.generation, kept.digest_start))
    return tuple(sorted(product for product, those in said.items() if len(those) > 1))


def keys(lakes: Sequence[Lake]) -> int:
    """Return by how many keys subjects go, as far as lakes say. Raises LakeError."""
    return len(frozenset().union(*(marks(lake.filesystem, lake.root) for lake in lakes)))
