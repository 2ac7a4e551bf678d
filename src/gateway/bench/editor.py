"""One product's folder, edited while it is served: another generation again and again."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from gateway.bench.machine import resident_bytes
from gateway.bench.phase import Swap
from gateway.bench.product import File, Kind, edition, product_text
from gateway.bench.rig import Rig, Server
from gateway.model.registry import Registry

STORE = "generations"
"""Where the server keeps what it served, below its journal."""


class Editor:
    """Edits the folder, lets the server look at once, and learns from its state what it did."""

    def __init__(self, rig: Rig, kind: Kind) -> None:
        self.folder = rig.folders[kind.name]
        self._kind = kind
        self._server = rig.server
        self._registry = Registry(rig.journal / STORE)
        self._generation = 1
        self._begun_ns: dict[int, int] = {}
        self._served_ns: dict[int, int] = {}
        self._resident: dict[int, int | None] = {}
        self._editions: list[Path] = []

    def serve(self, champion: File, shadow: File | None = None) -> None:
        """Let another generation be served, of models that lie in the folder."""
        self.look()
        self._begun_ns[self._generation + 1] = time.monotonic_ns()
        self._write(champion, shadow)

    def serve_new(self, model: bytes) -> None:
        """Let another generation be served, of a model that nobody has seen."""
        self.look()
        number = self._generation + 1
        # The file is part of the change: what it takes of the machine counts.
        self._begun_ns[number] = time.monotonic_ns()
        content, path = edition(model, number), self.folder / f"edition-{number}.onnx"
        path.write_bytes(content)
        self._editions.append(path)
        self._write(File.of(path.name, content), None)
        while len(self._editions) > 2:
            self._editions.pop(0).unlink()

    def look(self) -> None:
        """Note what the workers hold, and what has been served so far.

        The server remembers ten generations, so this is to be called before ten more are served.
        """
        self._resident[self._generation] = resident_bytes(self._server.workers)
        state = self._registry.state(self._kind.name)
        apart_ns = time.time_ns() - time.monotonic_ns()
        for past in () if state is None else state.history:
            self._served_ns.setdefault(past.generation, past.since_ns - apart_ns)

    def since(self, generation: int) -> tuple[Swap, ...]:
        """Return the swaps to the generations above this one."""
        return tuple(
            Swap(number, begun_ns, self._served_ns.get(number), self._resident.get(number))
            for number, begun_ns in self._begun_ns.items()
            if number > generation
        )

    @property
    def generation(self) -> int:
        """The number that the folder has."""
        return self._generation

    def _write(self, champion: File, shadow: File | None) -> None:
        self._generation += 1
        text = product_text(
            champion,
            name=self._kind.name,
            budget_ms=self._kind.budget_ms,
            generation=self._generation,
            shadow=shadow,
        )
        put(self.folder, text, self._server)


def put(folder: Path, text: str, server: Server) -> None:
    """Let a folder's product.yaml say this, whole, and the server look at once."""
    beside = folder / ".product.yaml.new"
    beside.write_text(text, encoding="utf-8")
    beside.replace(folder / "product.yaml")
    # Without waiting for the folder to rest: that would be time in which nothing happens.
    os.kill(server.pid, signal.SIGUSR1)
