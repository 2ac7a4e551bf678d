"""The committed contract is what its proto says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("package", ["v1", "inference"])
def test_generated_code_is_what_the_protos_give(package: str, tmp_path: Path) -> None:
    """It was generated with the oldest grpcio-tools that pyproject.toml allows, or a newer one;
    only the lines that name the generator's version may differ."""
    protos = sorted((ROOT / "proto" / "gateway" / package).glob("*.proto"))
    outputs = [f"--{kind}={tmp_path}" for kind in ("python_out", "pyi_out", "grpc_python_out")]
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'proto'}", *outputs, *protos],
        check=True,
    )
    generated = {path.name: path for path in (tmp_path / "gateway" / package).iterdir()}
    committed = {
        path.name: path
        for path in (ROOT / "src" / "gateway" / package).iterdir()
        if path.suffix in (".py", ".pyi") and path.name != "__init__.py"
    }
    assert generated.keys() == committed.keys()
    for name, path in generated.items():
        assert _unversioned(path) == _unversioned(committed[name])


def _unversioned(path: Path) -> list[str]:
    versioned = ("GENERATED_VERSION", "Protobuf Python Version", "ValidateProtobufRuntimeVersion")
    lines: list[str] = []
    skipping = False
    for line in path.read_text(encoding="utf-8").splitlines():
        if any(word in line for word in versioned):
            skipping = "(" in line and ")" not in line
            continue
        if skipping:
            skipping = ")" not in line
            continue
        lines.append(line)
    return lines
