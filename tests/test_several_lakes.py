"""Several lakes as one: what counts of their files, and what is said where they do not fit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import evaluated_lake as world
import pytest

from gateway.cli.main import run
from gateway.sidecar.lake import Lake
from gateway.sidecar.lake.decisions import pseudonym
from gateway.sidecar.lake.pseudonyms import Pseudonyms, mark_of, marks
from gateway.sidecar.lake.ranges import FileName
from gateway.sidecar.lake.several import differing, files, keys, newest_of

KEYS = bytes(range(32)), bytes(32)


def lake_at(place: Path) -> Lake:
    place.mkdir(parents=True, exist_ok=True)
    return Lake.at(str(place))


def mark(lake: Lake, key: bytes) -> None:
    for _ in range(2):
        Pseudonyms(lake.filesystem, lake.root, key).leave()


def touch(lake: Lake, first: int, last: int, boot: str = world.BOOT) -> str:
    folder = Path(lake.root) / "decisions" / "product=cnp" / "date=2026-06-01"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / str(FileName(0, boot, first, last))
    path.touch()
    return str(path)


def test_rows_count_once_where_one_lake_is_a_copy_that_is_joined_otherwise(tmp_path: Path) -> None:
    one, other = lake_at(tmp_path / "a"), lake_at(tmp_path / "b")
    small = [touch(one, 1, 10), touch(one, 11, 20)]
    joined, more = touch(other, 1, 20), touch(other, 21, 30)
    elsewhere = touch(other, 1, 20, boot="f" * 16)
    assert set(files([one], "decisions")) == set(small)
    assert set(files([one, other], "decisions")) == {joined, more, elsewhere}
    assert set(files([other, one], "decisions")) == {joined, more, elsewhere}
    again = touch(one, 21, 30)
    assert set(files([one, other], "decisions")) == {joined, again, elsewhere}


def test_a_key_leaves_one_mark_that_does_not_tell_it(tmp_path: Path) -> None:
    lake = lake_at(tmp_path)
    assert marks(lake.filesystem, lake.root) == frozenset()
    mark(lake, KEYS[0])
    assert marks(lake.filesystem, lake.root) == {mark_of(KEYS[0])}
    assert mark_of(KEYS[0]) != mark_of(KEYS[1])
    assert mark_of(KEYS[0]) not in pseudonym("the mark of a key in a lake", KEYS[0])
    assert KEYS[0].hex()[:8] not in mark_of(KEYS[0])


def test_keys_are_counted_over_hosts_of_one_lake_and_over_lakes(tmp_path: Path) -> None:
    one, other = lake_at(tmp_path / "a"), lake_at(tmp_path / "b")
    mark(one, KEYS[0])
    mark(other, KEYS[0])
    assert keys([one, other]) == 1
    mark(other, KEYS[1])
    assert (keys([one]), keys([other]), keys([one, other])) == (1, 2, 2)


def test_a_product_is_held_to_the_newest_generation_of_any_lake(tmp_path: Path) -> None:
    lakes = [lake_at(tmp_path / name) for name in "ab"]
    for number, lake in enumerate(lakes, 1):
        folder = Path(lake.root) / "products" / "product=cnp"
        folder.mkdir(parents=True)
        for generation in range(1, number + 1):
            (folder / f"{generation:010}-{'a' * 12}.yaml").write_text(f"{generation}")
    for order in (lakes, lakes[::-1]):
        assert newest_of(order)["cnp"].text == "2"
    assert differing(lakes) == ("cnp",)
    assert differing(lakes[:1]) == ()


@pytest.fixture
def two(tmp_path: Path) -> list[str]:
    """A lake and a half of it that another host holds."""
    one = tmp_path / "one"
    world.fill(one)
    return [str(one), str(shutil.copytree(one, tmp_path / "two"))]


def typed(lakes: list[str], *options: str) -> int:
    named = [word for lake in lakes for word in ("--lake", lake)]
    return run(["evaluate", *named, "--as-of", "2026-11-26", *options])


def test_a_copy_changes_nothing_and_no_counts_are_left(
    two: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    said = []
    for lakes in (two[:1], two, [*two, two[0]]):
        assert typed(lakes, "--json") == 0
        said.append(json.loads(capsys.readouterr().out))
    assert said[0] == said[1] == said[2]
    assert said[0]["labels"][0]["decisions"] > 100
    assert not list(Path(two[0]).glob("evaluations/*"))


def test_what_keeps_lakes_from_being_one_is_said(
    two: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    def told() -> str:
        assert typed(two) == 0
        return " ".join(capsys.readouterr().err.split())

    assert "keys" not in told()
    for lake, key in zip(two, KEYS, strict=True):
        mark(Lake.at(lake), key)
    assert "Subjects go by 2 keys" in told()
    kept = next(Path(two[1]).glob("products/*/*.yaml"))
    kept.rename(kept.with_name(f"{2:010}-{'b' * 12}.yaml"))
    assert "cnp: its newest generation is not the same in all lakes" in told()


def test_each_lake_has_to_be_there(two: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert typed([two[0], f"{two[1]}/nowhere"]) != 0
    assert "there is no such folder" in capsys.readouterr().err
