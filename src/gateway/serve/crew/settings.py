"""What `gateway serve` was asked to do, as a value, and as JSON for a worker process."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gateway.journal import Mode
from gateway.serve.fronts.front import Tls

UNIX = "unix:"


@dataclass(frozen=True, slots=True)
class Settings:
    """What one worker serves, and where.

    `worker` is its number: the writer of the journal that it is, its slot on the board, its
    name on health. `journal_max_bytes` is for its own segments. `core`: the processor that it
    keeps to, or None.
    """

    folders: tuple[Path, ...]
    listen: str
    journal: Path
    mode: Mode
    journal_max_bytes: int
    front: str
    tls: Tls | None
    insecure: bool
    worker: int = 0
    reuse_port: bool = False
    core: int | None = None

    @property
    def is_unix(self) -> bool:
        """Whether it listens on a Unix socket."""
        return self.listen.startswith(UNIX)

    def row(self) -> dict[str, Any]:
        """Return the values as JSON values."""
        return {
            **asdict(self),
            "folders": [str(folder) for folder in self.folders],
            "journal": str(self.journal),
            "mode": self.mode.value,
            "tls": None if self.tls is None else _text_of(self.tls),
        }

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Settings:
        """Read what `row` returned."""
        return cls(
            **{
                **row,
                "folders": tuple(map(Path, row["folders"])),
                "journal": Path(row["journal"]),
                "mode": Mode(row["mode"]),
                "tls": None if row["tls"] is None else _tls(row["tls"]),
            }
        )


def _text_of(tls: Tls) -> dict[str, str]:
    """PEM is text, and whatever else a file held comes through as well."""
    parts = {"certificate": tls.certificate, "key": tls.key, "authority": tls.client_authority}
    return {name: part.decode("latin-1") for name, part in parts.items() if part is not None}


def _tls(row: dict[str, str]) -> Tls:
    parts = {name: part.encode("latin-1") for name, part in row.items()}
    return Tls(parts["certificate"], parts["key"], parts.get("authority"))
