"""`gateway evaluate` as it is typed: what it shows, keeps, and says where it cannot."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import evaluated_lake as world
import pytest

from gateway.cli.main import run
from gateway.evaluate.engine import DuckDb
from gateway.sidecar.lake.evaluations import COUNTS, FOLDER

MODELS = Path(__file__).parents[1] / "models"
COUNTED = Path(FOLDER) / COUNTS


class Said(NamedTuple):
    """What a command ended with, and said."""

    returncode: int
    stdout: str
    stderr: str


Typed = Callable[..., Said]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake of a product whose retirees are declined too often."""
    chance = random.Random(11)
    decisions, labels, attributes = [], [], []
    for number in range(1, 9_000):
        row = world.decision(number, event_time=world.day(chance.random() * 40))
        old = number % 4 == 0
        turned_down = chance.random() < (0.4 if old else 0.1)
        explored = turned_down and chance.random() < 0.5
        row |= {
            "action": "decline" if turned_down and not explored else "approve",
            "explored": explored,
            "propensity": 0.5 if turned_down else 1.0,
        }
        decisions.append(row)
        attributes.append(world.attribute(row["subject"], "70+" if old else "35-54"))
        if row["action"] == "approve" and chance.random() < 0.02:
            reported = row["event_time"] + timedelta(days=9)
            labels.append(world.label(number, "chargeback", reported_time=reported))
    place = tmp_path_factory.mktemp("filled") / "lake"
    for table, rows in (("decisions", decisions), ("labels", labels), ("attributes", attributes)):
        name = f"000-{world.BOOT}-{1:015d}-{len(rows):015d}"
        world.write(place, table, rows, name=name)
    text = (MODELS / "card-not-present" / "product.yaml").read_text()
    folder = place / "products" / "product=cnp"
    folder.mkdir(parents=True)
    folder.joinpath(f"0000000001-{'a' * 12}.yaml").write_text(
        text.replace("product: card-not-present", "product: cnp")
    )
    return place


@pytest.fixture
def lake(filled: Path, tmp_path: Path) -> Path:
    """A lake of its own for each test."""
    return shutil.copytree(filled, tmp_path / "lake")


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Typed:
    monkeypatch.setenv("COLUMNS", "200")

    def run_it(*options: str) -> Said:
        code = run(["evaluate", *options])
        return Said(code, *capsys.readouterr())

    return run_it


def test_what_is_judged_is_shown_and_the_rest_is_counted(lake: Path, typed: Typed) -> None:
    said = typed("--lake", str(lake))
    assert said.returncode == 0, said.stderr
    assert "70+" in said.stdout
    assert "breach" in said.stdout
    assert "honest customers of 70+ are turned away in error more often" in said.stdout
    assert "more figures, by part and by form: --all" in said.stdout
    everything = typed("--lake", str(lake), "--all")
    assert "--all" not in everything.stdout
    assert len(everything.stdout.splitlines()) > 2 * len(said.stdout.splitlines())


def test_what_was_counted_is_kept_and_says_the_same(lake: Path, typed: Typed) -> None:
    as_of = ("--as-of", "2026-11-01", "--json")
    fresh = json.loads(typed("--lake", str(lake), "--counts", "off", *as_of).stdout)
    assert not (lake / COUNTED).exists()
    counts = ("--counts", str(lake.parent / "counts"))
    first, again = (
        json.loads(typed("--lake", str(lake), *counts, *as_of).stdout) for _ in range(2)
    )
    assert first["labels"][0]["decisions"] == 8_999
    assert first == again
    assert first["goals"] == fresh["goals"]
    typed("--lake", str(lake))
    assert (lake / COUNTED).exists()


def test_a_store_that_another_process_has_is_done_without(lake: Path, typed: Typed) -> None:
    kept = lake.parent / "counts"
    command = [sys.executable, "-m", "gateway", "evaluate", "--lake", str(lake), "--json"]
    with DuckDb({}, {}, store=str(kept)):
        child = subprocess.run([*command, "--counts", str(kept)], capture_output=True, check=True)
    assert b"Counted from nothing:" in child.stderr
    assert json.loads(child.stdout)["products"] == ["cnp"]
    kept.write_bytes(b"no database")
    said = typed("--lake", str(lake), "--counts", str(kept), "--json")
    assert said.returncode == 0
    assert "Counted from nothing:" in said.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--as-of", "yesterday"), "is no time"),
        (("--product", "cpn"), "is no product of the lake"),
    ],
)
def test_wrong_input_is_said(lake: Path, typed: Typed, options: tuple[str, ...], said: str) -> None:
    told = typed("--lake", str(lake), *options)
    assert told.returncode == 2
    assert said in told.stderr


def test_a_lake_that_is_none_is_said(tmp_path: Path, typed: Typed) -> None:
    told = typed("--lake", str(tmp_path / "nowhere"))
    assert told.returncode != 0
    assert "there is no such folder" in told.stderr
    assert not (tmp_path / "nowhere").exists()
