"""`gateway sidecar`, as a process that `gateway serve` keeps beside its workers."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gateway.errors import UsageError
from gateway.serve import Companion


@dataclass(frozen=True, slots=True)
class SidecarOptions:
    """Options of `gateway sidecar`; None: its own default. `feedback` is its `--listen`."""

    lake: str | None = None
    otlp: str | None = None
    http: str | None = None
    feedback: str | None = None
    stages: str | None = None
    sampled: float | None = None
    keep: str | None = None
    checkpoints: Path | None = None
    evaluate: str | None = None
    token_file: Path | None = None

    @property
    def given(self) -> dict[str, str]:
        """What is given, by its name."""
        named = {name: getattr(self, name) for name in self.__slots__}
        return {name: str(value) for name, value in named.items() if value is not None}

    @property
    def arguments(self) -> tuple[str, ...]:
        """The same as on the sidecar's command line."""
        return tuple(
            f"--{'listen' if name == 'feedback' else name.replace('_', '-')}={value}"
            for name, value in self.given.items()
        )

    def where_it_was(self, told: Mapping[str, Any] | None) -> SidecarOptions:
        """Return the same on the ports that it had before it died: others know them."""
        if told is None:
            return self
        return replace(self, http=urlsplit(told["metrics"]).netloc, feedback=told["feedback"])


def companion_of(journal: Path, options: SidecarOptions, *, is_asked: bool) -> Companion | None:
    """Return what `serve` is to keep beside its workers; None where no sidecar is asked for.

    Raises:
        UsageError: there are options for one that is not asked for.
    """
    if not is_asked:
        if options.given:
            raise UsageError(
                "is for the sidecar that --sidecar starts",
                subject=" ".join(f"--{name.replace('_', '-')}" for name in options.given),
                hint="Add --sidecar, or leave it out.",
            )
        return None

    def command(told: Mapping[str, Any] | None) -> Sequence[str]:
        # -P: what lies in the current folder is not imported.
        verb = [sys.executable, "-P", "-m", "gateway", "sidecar", "--attached", "--json"]
        asked = options.where_it_was(told).arguments
        return [*verb, f"--journal={journal}", *asked]

    return Companion("sidecar", command)
