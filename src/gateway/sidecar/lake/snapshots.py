"""The products as they were served: what a record's generation meant, from its snapshot."""

from __future__ import annotations

from pathlib import Path

from gateway.errors import GatewayError
from gateway.journal import Generation
from gateway.model.registry import PRODUCT_YAML, Registry
from gateway.product import Product, parse
from gateway.sidecar.lake.features import Shape, shape_of


class Snapshots:
    """Reads the snapshots in a journal's directory; each is read once.

    `unreadable`: what could not be read, and why, by product and generation: its rows come without
    features and watched segments.
    """

    def __init__(self, journal: Path) -> None:
        self.unreadable: dict[tuple[str, int], str] = {}
        self._registry = Registry(journal / "generations")
        self._read: dict[tuple[str, int, str], Product] = {}

    def product(self, generation: Generation) -> Product | None:
        """Return the product of a generation; None where its snapshot is gone or unreadable."""
        key = generation.product, generation.generation, generation.digest
        if key not in self._read:
            found = self._find(generation)
            if found is None:
                return None
            self._read[key] = found
            self.unreadable.pop(key[:2], None)
        return self._read[key]

    def shape(self, generation: Generation) -> Shape | None:
        """Return how a generation's requests are read; None where `product` is."""
        product = self.product(generation)
        return None if product is None else shape_of(product)

    def text(self, generation: Generation) -> str | None:
        """Return a generation's product.yaml; None where its snapshot is gone or unreadable."""
        try:
            path = self._path(generation)
            return None if path is None else path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError, GatewayError):
            return None

    def _path(self, generation: Generation) -> Path | None:
        for snapshot in reversed(self._registry.snapshots(generation.product)):
            same = snapshot.generation == generation.generation
            if same and generation.digest.startswith(snapshot.digest_start):
                return snapshot.path / PRODUCT_YAML
        return None

    def _find(self, generation: Generation) -> Product | None:
        name = generation.product, generation.generation
        try:
            path = self._path(generation)
            if path is not None:
                return parse(path.read_text(encoding="utf-8"), str(path))
        except (OSError, UnicodeDecodeError, GatewayError) as error:
            self.unreadable[name] = str(error)[:500]
            return None
        self.unreadable[name] = "its snapshot is not in the journal's directory"
        return None
