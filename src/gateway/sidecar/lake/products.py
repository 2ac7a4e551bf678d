"""What each product said while it decided: its product.yaml by generation, beside the rows.

```
products/product=…/<generation>-<digest's first 12>.yaml
```

Whoever evaluates the lake has promises, goals and costs where the decisions are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from pyarrow import fs

from gateway.journal import Generation
from gateway.sidecar.lake.parquet import make_folder, refusal, whole

FOLDER = "products"

_NAME = re.compile(r"product=([^/]+)/(\d{10})-([0-9a-f]{12})\.yaml", re.ASCII)


class Kept(NamedTuple):
    """A product's file as it was served. `text`: of product.yaml."""

    product: str
    generation: int
    digest_start: str
    path: str
    text: str


class Products:
    """Keeps the files of generations, once each. `text_of`: a generation's; None: not known yet."""

    def __init__(
        self,
        filesystem: fs.FileSystem,
        root: str,
        text_of: Callable[[Generation], str | None],
    ) -> None:
        self._filesystem = filesystem
        self._root = root
        self._text_of = text_of
        self._kept: set[Generation] = set()

    def keep(self, generations: Iterable[Generation]) -> None:
        """Write what is not there yet. Raises LakeError."""
        for one in generations:
            if one in self._kept:
                continue
            text = self._text_of(one)
            if text is not None:
                self._write(one, text)
                self._kept.add(one)

    def _write(self, one: Generation, text: str) -> None:
        folder = f"{self._root}/{FOLDER}/product={one.product}"
        path = f"{folder}/{one.generation:010}-{one.digest[:12]}.yaml"
        try:
            if self._filesystem.get_file_info(path).type is not fs.FileType.NotFound:
                return
            make_folder(self._filesystem, folder)
            with whole(self._filesystem, path) as sink:
                sink.write(text.encode())
        except OSError as error:
            raise refusal(error, "keep a product in the lake", path) from error


def kept(filesystem: fs.FileSystem, root: str) -> tuple[Kept, ...]:
    """Return every product's file, by product and generation.

    Raises:
        LakeError: the file system refuses.
    """
    folder = f"{root}/{FOLDER}"
    found = []
    try:
        selector = fs.FileSelector(folder, recursive=True, allow_not_found=True)
        for info in filesystem.get_file_info(selector):
            match = _NAME.fullmatch(info.path.removeprefix(f"{folder}/"))
            if match is None:
                continue
            with filesystem.open_input_stream(info.path) as source:
                text = source.readall().decode()
            found.append(Kept(match[1], int(match[2]), match[3], info.path, text))
    except OSError as error:
        raise refusal(error, "read the products of the lake", folder) from error
    return tuple(sorted(found))


def newest(filesystem: fs.FileSystem, root: str) -> dict[str, Kept]:
    """Return the file of each product's newest generation, by product. Raises LakeError."""
    return {one.product: one for one in kept(filesystem, root)}
