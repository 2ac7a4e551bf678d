"""A real Prometheus for tests, on a port of the system's choice, and what its API says."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from conftest import WAIT_S

PROMETHEUS = shutil.which("prometheus")
PROMTOOL = shutil.which("promtool")
OFTEN = "200ms"

needs_prometheus = pytest.mark.skipif(PROMETHEUS is None, reason="needs Debian's prometheus")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="needs Debian's prometheus")


@dataclass(frozen=True)
class Prometheus:
    """Where it answers."""

    address: str

    def asked(self, path: str, **parameters: str | float) -> Any:
        """Return the data of one answer of its API.

        Raises:
            urllib.error.HTTPError: 400 for what it cannot read.
        """
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.address}/api/v1/{path}?{query}", timeout=10) as answer:
            return json.load(answer)["data"]

    def value(self, expression: str) -> float | None:
        """Return the one value of an expression, now; None where there is none."""
        found = self.asked("query", query=expression)["result"]
        assert len(found) <= 1, found
        return float(found[0]["value"][1]) if found else None

    def alerts(self) -> list[dict[str, Any]]:
        """Return what is pending or firing."""
        return list(self.asked("alerts")["alerts"])

    def rules(self) -> list[dict[str, Any]]:
        """Return every rule, as it was evaluated last."""
        return [rule for group in self.asked("rules")["groups"] for rule in group["rules"]]

    def until(self, holds: Callable[[], Any]) -> Any:
        """Ask again until it holds, and return what held: its API tells nobody of changes."""
        until_s = time.monotonic() + WAIT_S
        while not (found := holds()):
            assert time.monotonic() < until_s, (self.asked("targets"), self.alerts())
            time.sleep(0.05)
        return found

    def evaluated_after(self, moment_s: float) -> bool:
        """Say whether each rule was evaluated after that Unix time."""
        return all(_unix_s(rule["lastEvaluation"]) > moment_s for rule in self.rules())


def _unix_s(text: str) -> float:
    """Return a time of Go's, which has nine places and may be of any zone."""
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text)).timestamp()


@contextmanager
def prometheus(folder: Path, target: str, rules: tuple[Path, ...] = ()) -> Iterator[Prometheus]:
    """Scrape `host:port` five times a second, and evaluate rules as often, until the block ends."""
    folder.mkdir()
    config = {
        "global": {"scrape_interval": OFTEN, "evaluation_interval": OFTEN},
        "rule_files": [str(rule) for rule in rules],
        "scrape_configs": [{"job_name": "gateway", "static_configs": [{"targets": [target]}]}],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))
    command = [
        str(PROMETHEUS),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'storage'}",
        "--web.listen-address=127.0.0.1:0",
        "--enable-feature=exemplar-storage",
        "--log.format=json",
    ]
    log = folder / "log"
    with (
        log.open("wb") as errors,
        subprocess.Popen(command, stdout=errors, stderr=errors) as process,
    ):
        try:
            yield Prometheus(f"http://{_listening(log, process)}")
        finally:
            process.kill()


def _listening(log: Path, process: subprocess.Popen[bytes]) -> str:
    """Wait until it is ready, and return the address that the system gave it."""
    until_s = time.monotonic() + WAIT_S
    while True:
        lines = [json.loads(line) for line in log.read_text().splitlines(True) if line[-1:] == "\n"]
        if any("ready to receive" in line.get("msg", "") for line in lines):
            return next(line["address"] for line in lines if line.get("msg", "") == "Listening on")
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < until_s, log.read_text()
        time.sleep(0.02)
