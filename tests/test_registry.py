"""The store of generations: whole or not at all, and nothing that was kept ever changes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import JournalError, UsageError
from gateway.model.registry import (
    KEEP,
    GateVerdict,
    Past,
    Refused,
    Registry,
    Served,
    ServedArm,
    State,
)

NAME = "card-not-present"


def digest(number: int) -> str:
    return sha256(str(number).encode()).hexdigest()


def files_of(number: int, **more: bytes) -> dict[str, bytes]:
    return {"product.yaml": f"generation: {number}\n".encode(), "v1.onnx": b"model" * 99} | more


def served(number: int, since_ns: int = 0) -> Served:
    arms = (ServedArm("champion", "v1", digest(1), "champion", 1.0),)
    gates = (GateVerdict("calibration", 0.97, "0.9..1.1", "passed"),)
    return Served(
        number, digest(number), since_ns, f"{number}-{digest(number)[:12]}", arms=arms, gates=gates
    )


def state_of(number: int) -> State:
    return State(NAME, "/srv/models/cards", served(number)).taking(served(number))


def tree_of(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "journal" / "generations")


def test_a_snapshot_holds_every_file_at_its_path(registry: Registry) -> None:
    files = files_of(7) | {"maps/v1.json": b"{}"}
    path = registry.snapshot(NAME, 7, digest(7), files)
    assert path == registry.root / NAME / f"7-{digest(7)[:12]}"
    assert tree_of(path) == files


def test_the_same_snapshot_again_is_the_one_that_is_there(registry: Registry) -> None:
    first = registry.snapshot(NAME, 7, digest(7), files_of(7))
    inode = (first / "v1.onnx").stat().st_ino
    assert registry.snapshot(NAME, 7, digest(7), files_of(7)) == first
    assert (first / "v1.onnx").stat().st_ino == inode
    assert len(registry.snapshots(NAME)) == 1


def test_other_files_under_a_taken_name_change_nothing_that_was_kept(registry: Registry) -> None:
    """A digest does not cover golden vectors."""
    first = registry.snapshot(NAME, 7, digest(7), files_of(7))
    other = files_of(7) | {"golden.json": b"[1]"}
    second = registry.snapshot(NAME, 7, digest(7), other)
    assert second != first
    assert (tree_of(first), tree_of(second)) == (files_of(7), other)
    assert registry.snapshot(NAME, 7, digest(7), other) == second
    assert registry.path(NAME, second.name) == second


def test_a_file_that_an_earlier_snapshot_holds_takes_no_space(registry: Registry) -> None:
    first = registry.snapshot(NAME, 1, digest(1), files_of(1))
    second = registry.snapshot(NAME, 2, digest(2), files_of(2) | {"again/v1.onnx": b"model" * 99})
    inodes = {(place / "v1.onnx").stat().st_ino for place in (first, second, second / "again")}
    assert len(inodes) == 1
    assert (first / "product.yaml").stat().st_ino != (second / "product.yaml").stat().st_ino


def test_a_damaged_earlier_file_is_not_linked_to(registry: Registry) -> None:
    first = registry.snapshot(NAME, 1, digest(1), files_of(1))
    (first / "v1.onnx").chmod(0o600)
    (first / "v1.onnx").write_bytes(b"MODEL" * 99)
    second = registry.snapshot(NAME, 2, digest(2), files_of(2))
    assert tree_of(second) == files_of(2)


def test_what_was_kept_is_for_reading_and_for_its_owner_alone(registry: Registry) -> None:
    path = registry.snapshot(NAME, 1, digest(1), files_of(1) | {"a/b.json": b"{}"})
    registry.write(state_of(1))
    modes = {p.relative_to(path.parent).name: p.stat().st_mode & 0o777 for p in path.rglob("*")}
    assert modes == {"product.yaml": 0o400, "v1.onnx": 0o400, "a": 0o500, "b.json": 0o400}
    assert path.stat().st_mode & 0o777 == 0o500
    assert (path.parent / "state.json").stat().st_mode & 0o777 == 0o600
    assert registry.root.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "", ".", "a\0b"])
def test_a_path_that_leaves_the_folder_is_refused(registry: Registry, name: str) -> None:
    with pytest.raises(UsageError, match="leaves the product's folder"):
        registry.snapshot(NAME, 1, digest(1), {name: b""})
    assert not registry.root.exists()


@pytest.mark.parametrize("name", ["", "..", "a/b", "A", ".hidden", "x" * 64, "a\n"])
def test_what_is_no_product_s_name_names_no_folder(registry: Registry, name: str) -> None:
    for call in (
        lambda: registry.state(name),
        lambda: registry.snapshot(name, 1, digest(1), files_of(1)),
        lambda: registry.prune(name),
    ):
        with pytest.raises(UsageError, match="no product's name"):
            call()


@pytest.mark.parametrize("name", ["../1-0123456789ab", "state.json", "1-0123456789ab/..", ""])
def test_what_is_no_snapshot_s_name_leads_nowhere(registry: Registry, name: str) -> None:
    registry.write(state_of(1))
    with pytest.raises(JournalError, match="not in the store"):
        registry.path(NAME, name)


def test_a_state_is_read_as_it_was_written(registry: Registry) -> None:
    gates = (GateVerdict("golden", None, "≤ 1e-5", "failed"),)
    refused = Refused(8, None, 5, ("weak model", "see gate"), gates)
    state = state_of(7).taking(served(8, 3)).refusing(refused).looked(99)
    registry.write(state)
    assert registry.state(NAME) == state
    assert registry.states() == (state,)
    assert state.history == (served(7).past, served(8, 3).past)


def test_an_older_state_without_a_look_can_be_read(registry: Registry) -> None:
    row = state_of(7).row()
    del row["looked_ns"]
    assert State.from_row(json.loads(json.dumps(row))) == state_of(7)


def test_taking_a_generation_forgets_the_refusal_and_keeps_ten() -> None:
    state = state_of(1).refusing(Refused(2, None, 0, ("no",)))
    for number in range(2, 20):
        state = state.taking(served(number))
    assert state.refused is None
    assert [past.generation for past in state.history] == list(range(10, 20))
    assert len(state.history) == KEEP


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        json.dumps(state_of(1).row()).replace(NAME, "another").encode(),
        json.dumps(state_of(1).row()).replace('"since_ns": 0', '"since_ns": "0"').encode(),
        json.dumps(state_of(1).row() | {"serving": None}).encode(),
        json.dumps(state_of(1).row() | {"history": [{"snapshot": "../../etc"}]}).encode(),
        json.dumps(state_of(1).row() | {"refused": {"why": [1]}}).encode(),
    ],
)
def test_a_damaged_state_is_an_error_that_says_what_to_try(
    registry: Registry, content: bytes
) -> None:
    registry.write(state_of(1))
    (registry.root / NAME / "state.json").write_bytes(content)
    with pytest.raises(JournalError, match="is damaged") as caught:
        registry.state(NAME)
    assert "Move it away" in caught.value.hint
    with pytest.raises(JournalError):
        registry.prune(NAME)


@given(st.data())
def test_whatever_key_of_a_state_is_damaged_it_is_a_value_error_or_a_state(
    data: st.DataObject,
) -> None:
    state = state_of(3).refusing(Refused(4, digest(4), 1, ("no",), served(4).gates))
    row = json.loads(json.dumps(state.row()))
    target = row
    for _ in range(4):
        keys = list(target) if isinstance(target, dict) else list(range(len(target)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(target[key], dict | list) or not target[key] or data.draw(st.booleans()):
            break
        target = target[key]
    json_values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
        max_leaves=3,
    )
    target[key] = data.draw(json_values)
    with suppress(ValueError):
        assert isinstance(State.from_row(row), State)


def test_a_store_that_is_not_there_is_empty(registry: Registry) -> None:
    assert registry.states() == ()
    assert registry.state(NAME) is None
    assert registry.snapshots(NAME) == ()
    assert registry.by_folder(Path("models")) is None
    assert registry.prune(NAME) == ()


def test_a_product_is_found_by_its_folder_and_by_where_a_link_leads(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.mkdir()
    link.symlink_to(real)
    state = State(NAME, str(link), served(1))
    registry.write(state)
    monkeypatch.chdir(tmp_path)
    assert registry.by_folder(Path("link/")) == state
    assert registry.by_folder(real) == state
    assert registry.by_folder(tmp_path) is None


def test_pruning_keeps_what_serves_then_the_history_and_removes_leftovers(
    registry: Registry,
) -> None:
    state = state_of(1)
    for number in range(1, 9):
        registry.snapshot(NAME, number, digest(number), files_of(number) | {"d/x": b"x"})
        state = state_of(1) if number == 1 else state.taking(served(number))
    # Number 2 serves again, as far as the state goes.
    registry.write(state.taking(served(2)))
    (registry.root / NAME / ".9-left.123").mkdir()
    gone = registry.prune(NAME, keep=3)
    left = [snapshot.generation for snapshot in registry.snapshots(NAME)]
    assert left == [2, 7, 8]
    assert sorted(int(path.name.split("-")[0]) for path in gone) == [1, 3, 4, 5, 6]
    assert sorted(path.name for path in (registry.root / NAME).iterdir()) == sorted(
        [*(snapshot.path.name for snapshot in registry.snapshots(NAME)), "state.json"]
    )
    assert registry.prune(NAME, keep=0) != ()
    assert [snapshot.generation for snapshot in registry.snapshots(NAME)] == [2]


_NAMES = st.sampled_from(["product.yaml", "v1.onnx", "maps/a.json", "maps/b.json"])
_FILES = st.dictionaries(_NAMES, st.sampled_from([b"", b"a", b"b", b"a" * 4096]), min_size=1)


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 4), _FILES), max_size=12))
def test_whatever_is_kept_is_what_was_given_for_ever(
    generations: list[tuple[int, dict[str, bytes]]],
) -> None:
    root = Path(tempfile.mkdtemp())
    registry, kept = Registry(root / "generations"), {}
    try:
        for number, files in generations:
            path = registry.snapshot(NAME, number, digest(number), files)
            assert kept.setdefault(path, files) == files
            assert all(tree_of(place) == there for place, there in kept.items())
        assert {snapshot.path for snapshot in registry.snapshots(NAME)} == set(kept)
        for content in {file for files in kept.values() for file in files.values()}:
            places = [
                [p / n for n, file in fs.items() if file == content] for p, fs in kept.items()
            ]
            inodes = {place.stat().st_ino for there in places for place in there}
            assert len(inodes) <= max(map(len, places)), "the same bytes are kept twice"
    finally:
        registry.prune(NAME, keep=0)
        shutil.rmtree(root)


_KILLED = """
import os, signal, sys
from pathlib import Path
from gateway.model.registry import Registry
sys.path.insert(0, sys.argv[1])
from test_registry import NAME, digest, files_of, state_of
left = int(sys.argv[3])
def step(name):
    global left
    left -= 1
    if left < 0:
        print(name, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
registry = Registry(Path(sys.argv[2]), step)
registry.snapshot(NAME, 2, digest(2), files_of(2))
registry.write(state_of(2))
registry.prune(NAME, keep=1)
"""


def test_killed_between_any_two_steps_it_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    last_steps: list[str] = []
    for steps in range(20):
        root = tmp_path / str(steps)
        registry = Registry(root)
        registry.snapshot(NAME, 1, digest(1), files_of(1))
        registry.write(state_of(1))
        ended = subprocess.run(
            [sys.executable, "-c", _KILLED, str(Path(__file__).parent), str(root), str(steps)],
            capture_output=True,
            text=True,
            check=False,
        )
        state = registry.state(NAME)
        assert state in (state_of(1), state_of(2)), ended.stderr
        assert tree_of(registry.path(NAME, state.serving.snapshot)) in (files_of(1), files_of(2))
        for snapshot in registry.snapshots(NAME):
            assert tree_of(snapshot.path) == files_of(snapshot.generation)
        # Another goes on where this one was killed.
        registry.snapshot(NAME, 2, digest(2), files_of(2))
        registry.write(state_of(2))
        registry.prune(NAME, keep=1)
        names = sorted(os.listdir(root / NAME))
        assert names == [state_of(2).serving.snapshot, "state.json"]
        if ended.returncode == 0:
            break
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        last_steps.append(ended.stdout.strip())
    assert last_steps == [
        "make the directory",
        "add product.yaml",
        "add v1.onnx",
        "rename the directory",
        "write the state",
        "replace the state",
        "move the snapshot away",
        "remove what is left",
    ]


def test_a_disk_that_refuses_leaves_nothing_behind(registry: Registry) -> None:
    registry.snapshot(NAME, 1, digest(1), files_of(1))

    def refuse(step: str) -> None:
        if step in ("add v1.onnx", "replace the state"):
            raise OSError(28, "No space left on device")

    full = Registry(registry.root, refuse)
    with pytest.raises(JournalError, match="No space left"):
        full.snapshot(NAME, 2, digest(2), files_of(2))
    with pytest.raises(JournalError, match="No space left"):
        full.write(state_of(1))
    assert [path.name for path in (registry.root / NAME).iterdir()] == [f"1-{digest(1)[:12]}"]


def test_the_store_can_be_read_without_loading_a_model() -> None:
    code = (
        "import gateway.model.registry, sys;"
        "assert not {'numpy', 'onnxruntime', 'onnx', 'pydantic'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_past_is_what_the_history_keeps() -> None:
    assert served(3, 5).past == Past(3, digest(3), 5, f"3-{digest(3)[:12]}")
