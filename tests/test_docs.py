"""What the documents say, runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_cli import COMMAND, PRODUCTS, patient_budget, serving, unhurried

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_ci_runs_the_readmes_test_command() -> None:
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    command = ".venv/bin/python -m pytest"
    assert f"{command}\n```" in README
    assert f"\n{command}\n" in ci


def test_the_readmes_client_gets_a_decision(tmp_path: Path) -> None:
    """The Python example, word for word but for the port and the deadline: this machine is busy."""
    code, _ = re.findall(r"```python\n(.*?)```", README, re.DOTALL)  # and Triton's client
    assert "timeout=0.1," in code
    code = code.replace("timeout=0.1,", "timeout=20,")
    products = [unhurried(folder, tmp_path) for folder in PRODUCTS]
    with serving(products, tmp_path / "journal") as (address, _):
        ran = subprocess.run(
            [sys.executable, "-c", code.replace("127.0.0.1:50051", address)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    assert ran.stdout.split()[0] in ("APPROVE", "REVIEW", "DECLINE")


@pytest.mark.parametrize(
    "document",
    ["README.md", "src/gateway/README.md", "benchmarks/README.md", "docs/beyond-one-machine.md"],
)
def test_no_document_names_a_file_that_is_not_there(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    named = re.findall(r"`((?:tests|benchmarks|models|examples|train|docs)/[\w./-]+)`", text)
    linked = list(re.findall(r"\]\(([\w./-]+)\)", text))
    assert [name for name in named if not (ROOT / name).exists()] == []
    assert [link for link in linked if not ((ROOT / document).parent / link).exists()] == []


def test_every_dependency_has_its_line() -> None:
    declared = re.findall(r'"([A-Za-z0-9_.-]+)>=', (ROOT / "pyproject.toml").read_text())
    missing = {name for name in declared if f"`{name}`" not in README} - {"hatchling"}
    assert missing == set()


def test_the_readmes_path_from_a_foreign_model_to_an_explained_decision(tmp_path: Path) -> None:
    """Its commands, word for word, but for the address, and for times that a busy machine keeps."""
    section = README[README.index("## Bring your own model") : README.index("## A product is one")]
    lines = [
        line
        for block in re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
        for line in block.splitlines()
    ]
    init, check, serve, decide = (line.split()[1:] for line in lines)
    assert (init[0], check[0], serve[0], decide[0]) == ("init", "check", "serve", "decide")
    (tmp_path / "examples").symlink_to(ROOT / "examples")

    def ran(command: list[str]) -> str:
        done = subprocess.run(
            [*COMMAND, *command], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "output_probability[1]" in ran(init)
    assert "Still asked" in ran(check)
    patient_budget(tmp_path / "bank")
    assert serve[1:] == ["bank", "--journal", "journal"]
    with serving([tmp_path / "bank"], tmp_path / "journal") as (address, _):
        told = ran([*decide, "--to", address, "--timeout-ms", "20000"])
    decision = re.search(r"decision (\S+)", told)
    assert decision is not None
    for part in ("Where P(fraud) comes from", "What would have changed", "What moved it"):
        assert part in told
    explained = ran(["explain", decision[1], "--journal", "journal"])
    assert explained.splitlines()[4:] == told.splitlines()[4:]
