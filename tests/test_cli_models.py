"""`gateway models`: wrong input first; then what is written, kept, and comes back."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import catalogue
import pytest

from gateway.cli.main import run
from gateway.errors import ExitCode
from gateway.model import load_generation, read_folder, revision
from gateway.model.registry import (
    GateVerdict,
    Refused,
    Registry,
    Served,
    ServedArm,
    State,
)
from gateway.product import parse
from gateway.product.edit import flow

CHAMPION = catalogue.logistic_model()
RIVAL = catalogue.logistic_model((0.001, 0.9, 1.2))
MAP = b'{"a": 1.25, "b": 0.5}'
COMMAND = [sys.executable, "-m", "gateway"]

TEXT = """\
# What a reviewer wrote.
product: test
generation: 3   # rises
{sections}
models:
  champion:     # decides
    name: v1
    version: "1.0"
    path: model.onnx
    sha256: {sha256}    # of model.onnx
    output: "probabilities[1]"
    golden: golden.json
  challengers:
    # the first
    - name: rival   # rises in May
      mode: {mode}
      share: 5%
      calibration: {{kind: platt, path: rival.json}}
    - {{name: other, path: model.onnx, mode: shadow}}
"""
GOLDEN = {"features": [[20.0, 1.0, 0.0]], "scores": [0.0407]}


def golden_score() -> float:
    from math import exp

    z = sum(w * x for w, x in zip(catalogue.WEIGHTS, (20.0, 1.0, 0.0), strict=True))
    return 1 / (1 + exp(-(z + catalogue.BIAS)))


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same path for every test: the same model at the same place is tried once."""
    path = tmp_path_factory.getbasetemp() / "models"
    if path.exists():
        path.rename(tmp_path_factory.mktemp("before") / "models")
    path.mkdir()
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A product with a canary that pins no sha256, and a shadow."""
    place = tmp_path / "cards"
    place.mkdir()
    sections = {
        key: value
        for key, value in catalogue.BASE.items()
        if key not in ("product", "generation", "models")
    }
    text = TEXT.format(
        sections="\n".join(f"{key}: {flow(value)}" for key, value in sections.items()),
        sha256=sha256(CHAMPION).hexdigest(),
        mode="canary",
    )
    (place / "product.yaml").write_text(text, encoding="utf-8")
    (place / "model.onnx").write_bytes(CHAMPION)
    (place / "rival.onnx").write_bytes(RIVAL)
    (place / "rival.json").write_bytes(MAP)
    golden = {**GOLDEN, "scores": [golden_score()]}
    (place / "golden.json").write_text(json.dumps(golden))
    return place


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No journal of another gateway lies in the current folder."""
    monkeypatch.chdir(tmp_path)


Run = Callable[..., Any]


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command that must succeed with --json; return what it prints."""

    def ran(*arguments: object) -> Any:
        capsys.readouterr()
        code = run(["models", *map(str, arguments), "--json"])
        captured = capsys.readouterr()
        assert code == ExitCode.OK, captured.err
        return json.loads(captured.out)

    return ran


@pytest.fixture
def complaint(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that must fail with `code`; return what it says."""

    def said(code: ExitCode, *arguments: object) -> str:
        assert run(["models", *map(str, arguments)]) == code
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        assert captured.err.count("Error:") >= 1
        assert "Try:" in captured.err or code == ExitCode.INVALID_MODEL
        return captured.err

    return said


def text_of(folder: Path) -> str:
    return (folder / "product.yaml").read_bytes().decode()


def champion_of(folder: Path) -> str:
    return read_folder(folder).product.models.champion.name


def keep(folder: Path, store: Registry) -> State:
    """Do what a gateway does that takes a folder into service."""
    contents = read_folder(folder)
    product = contents.product
    files = {"product.yaml": contents.text.encode(), **contents.files}
    path = store.snapshot(product.name, product.generation, contents.digest, files)
    arm = ServedArm("v1", "1.0", product.models.champion.sha256, "champion", 1.0)
    gate = GateVerdict("calibration", "0.98", "0.8 to 1.25", "pass", "v1")
    served = Served(product.generation, contents.digest, time.time_ns(), path.name, (arm,), (gate,))
    state = store.state(product.name)
    if state is None:
        state = State(product.name, str(folder), served, None, (served.past,))
    else:
        state = state.taking(served)
    store.write(state)
    return state


# Wrong input


def test_a_missing_folder(complaint: Callable[..., str]) -> None:
    for verb in (["list"], ["promote"], ["rollback"]):
        said = complaint(
            ExitCode.USAGE, *verb, "nowhere", *(["v2"] if verb[0] == "promote" else [])
        )
        assert "nowhere" in said
        assert "models/card-not-present" in said


def test_an_unknown_challenger_is_answered_with_the_one_that_may_be_meant(
    complaint: Callable[..., str], folder: Path
) -> None:
    before = text_of(folder)
    assert "Did you mean rival?" in complaint(ExitCode.USAGE, "promote", folder, "rivel")
    said = complaint(ExitCode.USAGE, "promote", folder, "v1")
    assert "v1: is the champion already" in said
    assert "Challengers: rival, other." in said
    assert text_of(folder) == before
    assert not (folder / ".generations").exists()


def test_a_product_without_challengers_says_so(
    complaint: Callable[..., str], tmp_path: Path
) -> None:
    folder = catalogue.write_folder(tmp_path / "alone")
    assert "Known: v1." in complaint(ExitCode.USAGE, "promote", folder, "v2000000")
    assert "It has no challengers." in complaint(ExitCode.USAGE, "promote", folder, "v1")


def test_an_invalid_product_is_not_edited(complaint: Callable[..., str], folder: Path) -> None:
    path = folder / "product.yaml"
    budget = f"budget_ms: {catalogue.BUDGET_MS}"
    path.write_text(text_of(folder).replace(budget, "budget_ms: never"))
    before = text_of(folder)
    said = complaint(ExitCode.INVALID_PRODUCT, "promote", folder, "rival")
    assert "latency.budget_ms" in said
    assert text_of(folder) == before


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("rival.onnx", b"no model", "rival.onnx"),
        ("rival.json", b'{"a": 1}', "rival.json"),
        ("rival.json", None, "there is no such file"),
        ("rival.onnx", None, "there is no such file"),
    ],
)
def test_a_challenger_that_does_not_load_is_never_written(
    complaint: Callable[..., str], folder: Path, file: str, content: bytes | None, says: str
) -> None:
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(content)
    before = text_of(folder)
    assert says in complaint(ExitCode.INVALID_MODEL, "promote", folder, "rival")
    assert text_of(folder) == before


def test_another_file_than_the_challenger_pins_is_not_promoted(
    complaint: Callable[..., str], folder: Path
) -> None:
    path = folder / "product.yaml"
    path.write_text(
        text_of(folder).replace("mode: canary", f"sha256: '{'0' * 64}'\n      mode: canary")
    )
    before = text_of(folder)
    said = complaint(ExitCode.INVALID_MODEL, "promote", folder, "rival")
    assert f"product.yaml pins {'0' * 64}" in said
    assert text_of(folder) == before


def test_nothing_to_go_back_to(complaint: Callable[..., str], folder: Path) -> None:
    said = complaint(ExitCode.USAGE, "rollback", folder)
    assert "there is no other generation to go back to" in said
    assert "--journal" in said
    assert "None is kept" in complaint(ExitCode.USAGE, "rollback", folder, "--to", "2")


def test_a_generation_that_never_was_is_answered_with_those_there_are(
    complaint: Callable[..., str], told: Run, folder: Path
) -> None:
    told("promote", folder, "rival")
    told("promote", folder, "other")
    assert "There are: 3, 4." in complaint(ExitCode.USAGE, "rollback", folder, "--to", "9")
    told("rollback", folder, "--to", "3")
    assert "the folder holds what generation 3 was" in complaint(
        ExitCode.USAGE, "rollback", folder, "--to", "3"
    )


def test_a_journal_without_generations_is_no_silent_nothing(
    complaint: Callable[..., str], folder: Path, tmp_path: Path
) -> None:
    for verb in (["list"], ["rollback", folder], ["promote", folder, "rival"]):
        said = complaint(ExitCode.JOURNAL, *verb, "--journal", tmp_path / "none")
        assert "no gateway has kept generations here" in said


def test_a_folder_that_links_lay_out_is_not_torn_apart(
    complaint: Callable[..., str], folder: Path, tmp_path: Path
) -> None:
    """As Kubernetes lays out a ConfigMap."""
    (folder / "product.yaml").rename(tmp_path / "real.yaml")
    (folder / "product.yaml").symlink_to(tmp_path / "real.yaml")
    before = text_of(folder)
    said = complaint(ExitCode.USAGE, "promote", folder, "rival")
    assert "is a link" in said
    assert "--dry-run" in said
    assert (folder / "product.yaml").is_symlink()
    assert text_of(folder) == before


def test_a_folder_that_may_not_be_written_stays(
    complaint: Callable[..., str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may = os.access
    monkeypatch.setattr(os, "access", lambda p, mode: may(p, mode) and Path(p) != folder)
    assert "no permission to write" in complaint(ExitCode.USAGE, "promote", folder, "rival")
    assert not (folder / ".generations").exists()


def test_two_commands_do_not_change_a_folder_at_once(
    complaint: Callable[..., str], folder: Path
) -> None:
    fd = os.open(folder, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    assert "another command changes this folder" in complaint(
        ExitCode.USAGE, "promote", folder, "rival"
    )
    os.close(fd)


def test_an_editor_s_change_meanwhile_is_not_overwritten(
    complaint: Callable[..., str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = revision.opened

    def slowly(*arguments: Any) -> Any:
        (folder / "product.yaml").write_text("# mine\n" + text_of(folder))
        return opened(*arguments)

    monkeypatch.setattr(revision, "opened", slowly)
    assert "has changed meanwhile" in complaint(ExitCode.USAGE, "promote", folder, "rival")
    assert text_of(folder).startswith("# mine\n")
    assert [path.name for path in folder.glob(".product*")] == []


def test_a_challenger_that_fails_a_gate_is_not_promoted(
    complaint: Callable[..., str], told: Run, folder: Path
) -> None:
    path = folder / "product.yaml"
    path.write_text(f"{text_of(folder)}  gates: {{calibration: {{path: labelled.parquet}}}}\n")
    before = text_of(folder)
    said = complaint(ExitCode.INVALID_MODEL, "promote", folder, "rival")
    assert "rival: likely cause: the labelled payments cannot be read" in said
    assert text_of(folder) == before


# Promotion


def test_a_new_model_is_copied_pinned_and_scores_beside(
    told: Run, folder: Path, tmp_path: Path
) -> None:
    """And what stands in the folder under its name is not overwritten."""
    (tmp_path / "v7.onnx").write_bytes(RIVAL)
    (folder / "v7.onnx").write_bytes(CHAMPION)
    before = (folder / "product.yaml").read_text()
    told("add", folder, tmp_path / "v7.onnx")
    product = read_folder(folder).product
    added = product.models.challengers[-1]
    assert (added.name, added.mode, added.sha256) == ("v7", "shadow", sha256(RIVAL).hexdigest())
    assert added.path != "v7.onnx"
    assert (folder / added.path).read_bytes() == RIVAL
    assert (folder / "v7.onnx").read_bytes() == CHAMPION
    assert product.generation == 4
    after = (folder / "product.yaml").read_text()
    kept = [line for line in before.splitlines() if not line.startswith("generation")]
    assert [line for line in after.splitlines() if line in kept] == kept
    assert [arm.mode for arm in load_generation(folder).challengers] == [
        *("canary", "shadow", "shadow"),
    ]


def test_adding_says_what_it_copied(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "v8.onnx").write_bytes(RIVAL)
    assert run(["models", "add", str(folder), str(tmp_path / "v8.onnx")]) == 0
    shown = capsys.readouterr().out
    assert "v8.onnx is written, a copy of " in shown
    assert "comes back" not in shown


def test_a_name_that_cannot_be_is_the_only_thing_that_is_wrong(
    complaint: Callable[..., str], folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "v8.onnx").write_bytes(RIVAL)
    v8 = str(tmp_path / "v8.onnx")
    said = complaint(ExitCode.INVALID_PRODUCT, "add", str(folder), v8, "--name", "two words")
    assert "name is 'two words'" in said
    assert "1 violation." in said
    assert "Undefined" not in said


def test_a_new_model_that_does_not_fit_is_not_added(
    complaint: Callable[..., str], folder: Path, tmp_path: Path
) -> None:
    before = (folder / "product.yaml").read_bytes()
    (tmp_path / "wide.onnx").write_bytes(catalogue.logistic_model((0.1, 0.2, 0.3, 0.4)))
    wide = str(tmp_path / "wide.onnx")
    said = complaint(ExitCode.INVALID_MODEL, "add", str(folder), wide)
    assert "3 features" in said
    assert f"Error: {wide}: " in said  # the caller's file: in the folder there is none
    assert "No such file" in complaint(ExitCode.USAGE, "add", str(folder), "nowhere.onnx")
    (tmp_path / "rival.onnx").write_bytes(RIVAL)
    taken = complaint(ExitCode.USAGE, "add", str(folder), str(tmp_path / "rival.onnx"))
    assert "there is a model 'rival' already" in taken
    (tmp_path / "v7.onnx").write_bytes(RIVAL)
    v7 = str(tmp_path / "v7.onnx")
    share = complaint(ExitCode.INVALID_PRODUCT, "add", str(folder), v7, "--mode", "canary")
    assert "A canary decides a share" in share
    assert (folder / "product.yaml").read_bytes() == before
    assert not (folder / "v7.onnx").exists()


def test_a_promotion_changes_what_it_says_and_nothing_else(told: Run, folder: Path) -> None:
    before, digest = text_of(folder), load_generation(folder).digest
    (folder / "product.yaml").chmod(0o640)
    said = told("promote", folder, "rival")
    assert said["written"] is True
    gates = {gate["name"]: gate["verdict"] for gate in said["gates"] if gate["arm"] == "rival"}
    assert (gates["sha256"], gates["cost"]) == ("pass", "pass")
    assert said["before"]["digest"] == digest
    assert said["before"]["champion"]["sha256"] == sha256(CHAMPION).hexdigest()
    loaded = load_generation(folder)
    assert said["after"] == {
        "generation": 4,
        "digest": loaded.digest,
        "champion": {"name": "rival", "version": "rival", "sha256": sha256(RIVAL).hexdigest()},
    }
    assert (loaded.champion.name, loaded.champion.digest) == ("rival", sha256(RIVAL).hexdigest())
    assert [arm.name for arm in loaded.arms] == ["rival", "other"]
    assert (folder / "product.yaml").stat().st_mode & 0o777 == 0o640
    removed = [line[1:] for line in said["diff"].splitlines()[2:] if line[0] == "-"]
    lines = [line for line in before.splitlines() if line not in removed]
    assert [line for line in text_of(folder).splitlines() if line in lines] == lines
    assert "# What a reviewer wrote." in lines
    assert "    # the first" in lines


def test_a_former_champion_can_stay_as_a_shadow(told: Run, folder: Path) -> None:
    told("promote", folder, "rival", "--keep-as-shadow")
    arms = load_generation(folder).arms
    assert [(arm.name, arm.mode) for arm in arms] == [
        ("rival", "champion"),
        ("v1", "shadow"),
        ("other", "shadow"),
    ]
    assert arms[1].golden is not None


def test_a_dry_run_shows_the_same_and_writes_nothing(told: Run, folder: Path) -> None:
    before = sorted(folder.rglob("*")), text_of(folder)
    shown = told("promote", folder, "rival", "--dry-run")
    assert (sorted(folder.rglob("*")), text_of(folder)) == before
    done = told("promote", folder, "rival")
    # What a row takes is measured anew each time.
    assert {**shown, "gates": []} == {**done, "gates": [], "written": False}
    assert [gate["name"] for gate in shown["gates"]] == [gate["name"] for gate in done["gates"]]


def test_people_see_digests_the_lines_and_the_next_command(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["models", "promote", str(folder), "rival"]) == 0
    shown = capsys.readouterr()
    assert sha256(CHAMPION).hexdigest() in shown.out
    assert sha256(RIVAL).hexdigest() in shown.out
    assert load_generation(folder).digest in shown.out
    assert "-generation: 3   # rises" in shown.out
    assert "+generation: 4   # rises" in shown.out
    assert "Next: gateway serve" in shown.err
    assert "was a shadow" not in shown.err
    assert run(["models", "promote", str(folder), "other"]) == 0
    assert "other was a shadow" in capsys.readouterr().err


# Going back


def test_rollback_without_a_journal_puts_back_what_promotion_replaced(
    told: Run, folder: Path
) -> None:
    first, second = text_of(folder), told("promote", folder, "rival")["after"]
    back = told("rollback", folder)
    assert back["after"]["generation"] == 5
    assert text_of(folder) == first.replace("generation: 3 ", "generation: 5 ")
    forth = told("rollback", folder)
    assert forth["after"]["champion"] == second["champion"]
    assert forth["after"]["generation"] == 6
    again = told("rollback", folder)
    assert again["after"]["champion"]["name"] == "v1"
    assert load_generation(folder).product.generation == 7


def test_rollback_goes_to_what_was_served_though_it_was_edited_by_hand(
    told: Run, folder: Path, tmp_path: Path
) -> None:
    store = Registry(tmp_path / "journal" / "generations")
    keep(folder, store)
    first = text_of(folder)
    path = folder / "product.yaml"
    path.write_text(first.replace("goodwill: 5", "goodwill: 50").replace("on: 3 ", "on: 4 "))
    keep(folder, store)
    # A newer change is refused: the gateway has said so.
    path.write_text(first.replace("goodwill: 5", "goodwill: 0").replace("on: 3 ", "on: 5 "))
    digest = read_folder(folder).digest
    state = store.state("test")
    assert state is not None
    store.write(replace(state, refused=Refused(5, digest, 1, ("too weak",))))
    back = told("rollback", folder)  # ./journal is where it looks by itself
    assert back["after"]["generation"] == 6
    assert "goodwill: 50" in text_of(folder)
    assert Path(back["kept_unserved"]).read_text().count("goodwill: 0") == 1
    keep(folder, store)
    # What was refused is nothing to go back to.
    told("rollback", folder)
    assert text_of(folder) == first.replace("generation: 3 ", "generation: 7 ")


def test_a_copy_of_a_folder_has_a_past_of_its_own(
    complaint: Callable[..., str], told: Run, folder: Path, tmp_path: Path
) -> None:
    store = Registry(tmp_path / "journal" / "generations")
    keep(folder, store)
    told("promote", folder, "rival")
    keep(folder, store)
    copy = shutil.copytree(folder, tmp_path / "copy", ignore=lambda *_: {".generations"})
    assert "no other generation" in complaint(ExitCode.USAGE, "rollback", copy)
    # Unless it is said whose past it is: a container knows the folder by another path.
    assert told("rollback", copy, "--journal", "journal")["after"]["champion"]["name"] == "v1"


def test_a_product_that_cannot_be_read_any_more_goes_back_too(
    told: Run, folder: Path, tmp_path: Path
) -> None:
    first = text_of(folder)
    keep(folder, Registry(tmp_path / "journal" / "generations"))
    (folder / "product.yaml").write_bytes(b"\xff: [")
    back = told("rollback", folder)
    assert back["before"] == {"generation": None, "digest": None, "champion": None}
    assert text_of(folder) == first.replace("generation: 3 ", "generation: 4 ")
    assert Path(back["kept_unserved"]).read_bytes() == b"\xff: ["


def test_files_that_are_gone_come_back_and_those_that_changed_stay(told: Run, folder: Path) -> None:
    told("promote", folder, "rival")
    (folder / "golden.json").unlink()
    (folder / "rival.json").write_text('{"a": 2, "b": 0}')
    (folder / "model.onnx").write_bytes(b"another model of the same name")
    back = told("rollback", folder, "--to", "3")
    model = f"model.{sha256(CHAMPION).hexdigest()[:12]}.onnx"
    first_map = f"rival.{sha256(MAP).hexdigest()[:12]}.json"
    assert back["files_restored"] == sorted(["golden.json", model, first_map])
    assert (folder / "rival.json").read_text() == '{"a": 2, "b": 0}'
    assert (folder / "model.onnx").read_bytes() == b"another model of the same name"
    loaded = load_generation(folder)
    assert (loaded.champion.digest, loaded.champion.version) == (
        sha256(CHAMPION).hexdigest(),
        "1.0",
    )
    assert loaded.product.models.challengers[1].version == "model"


def test_a_damaged_snapshot_is_not_put_back(
    complaint: Callable[..., str], told: Run, folder: Path
) -> None:
    told("promote", folder, "rival")
    kept = next((folder / ".generations" / "test").iterdir()) / "model.onnx"
    kept.chmod(0o600)
    kept.write_bytes(RIVAL)
    before = text_of(folder)
    assert "sha256 is" in complaint(ExitCode.INVALID_MODEL, "rollback", folder)
    assert text_of(folder) == before


def test_a_rollback_killed_before_its_last_step_leaves_what_was(
    told: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told("promote", folder, "rival")
    before = text_of(folder)
    (folder / "golden.json").unlink()
    rename, wrote = Path.rename, []

    def killed(path: Path, target: Path) -> Path:
        if Path(target).name == "product.yaml":
            raise KeyboardInterrupt
        wrote.append(Path(target).name)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", killed)
    assert run(["models", "rollback", str(folder)]) == ExitCode.INTERRUPTED
    assert "golden.json" in wrote
    assert text_of(folder) == before
    assert load_generation(folder).champion.name == "rival"


def test_what_was_replaced_is_no_part_of_what_is_reviewed(told: Run, folder: Path) -> None:
    told("promote", folder, "rival")
    git = shutil.which("git")
    if git is None:
        pytest.skip("there is no git")
    subprocess.run([git, "init", "-q", str(folder)], check=True)
    shown = subprocess.run(
        [git, "-C", str(folder), "status", "--porcelain", "-uall"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert ".generations" not in shown.stdout
    assert "product.yaml" in shown.stdout


# Listing


def test_without_a_gateway_the_list_says_what_stands_in_the_folders(
    told: Run, folder: Path
) -> None:
    (row,) = told("list", folder)
    assert (row["product"], row["serving"], row["in_folder"]["generation"]) == ("test", None, 3)
    assert [(a["name"], a["mode"], a["share"]) for a in row["in_folder"]["arms"]] == [
        ("v1", "champion", 1.0),
        ("rival", "canary", 0.05),
        ("other", "shadow", 1.0),
    ]
    assert row["in_folder"]["arms"][1]["sha256"] == sha256(RIVAL).hexdigest()


def test_the_list_shows_what_is_served_refused_and_was(
    told: Run, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Registry(tmp_path / "journal" / "generations")
    keep(folder, store)
    told("promote", folder, "other")
    state = keep(folder, store).refusing(
        Refused(5, "e" * 64, 10**18, ("models.champion: weak [model]",), state_gates())
    )
    store.write(state)
    (row,) = told("list")
    assert row["serving"]["generation"] == 4
    assert row["refused"]["why"] == ["models.champion: weak [model]"]
    assert [past["generation"] for past in row["history"]] == [3, 4]
    with supervisor(tmp_path / "journal", "takes"):
        assert run(["models", "list", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert f"serving generation 4  digest {state.serving.digest[:12]}" in shown
    assert "refused generation 5 (eeeeeeeeeeee) 2001-09-09 01:46:40Z:" in shown
    assert "models.champion: weak [model]" in shown
    assert re.search(r"calibration +v1 +0.98 +0.8 to 1.25 +pass", shown)
    assert re.search(r"golden +rival +0.5 +≤ 1e-5 +fail", shown)
    assert "before: 3 (" in shown
    assert "not looked at" not in shown
    told("rollback", folder)
    assert run(["models", "list"]) == 0
    assert "which the gateway has not looked at yet" in capsys.readouterr().out


def test_what_no_gateway_serves_any_more_is_not_called_served(
    told: Run, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The journal of a gateway that ended, and of one that serves another product now."""
    store = Registry(tmp_path / "journal" / "generations")
    stale = replace(keep(folder, store), product="stale")
    store.write(stale)
    with supervisor(tmp_path / "journal", "takes"):
        rows = told("list")
        assert run(["models", "list"]) == 0
    assert {row["product"]: row["is_served"] for row in rows} == {"test": True, "stale": False}
    shown = capsys.readouterr().out
    assert shown.count("serving generation 3") == 1
    assert shown.count("not served now, last was generation 3") == 1
    assert [row["is_served"] for row in told("list")] == [False, False]


def state_gates() -> tuple[GateVerdict, ...]:
    return (GateVerdict("golden", 0.5, "≤ 1e-5", "fail", "rival"),)


def test_the_list_tells_of_a_folder_that_is_gone_or_broken(
    told: Run, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(folder, Registry(tmp_path / "journal" / "generations"))
    (folder / "product.yaml").write_text("product: [")
    (row,) = told("list")
    assert "product.yaml:1" in row["in_folder"]["why"][0]
    assert run(["models", "list"]) == 0
    assert "which does not load" in capsys.readouterr().out
    shutil.rmtree(folder)
    assert run(["models", "list"]) == 0
    assert "there is no product.yaml here" in capsys.readouterr().out


# Reloading

_GATEWAY = """
import os, signal, sys, time
from dataclasses import replace
from pathlib import Path
from gateway.model.registry import Refused, Registry
from gateway.serve.crew.board import Gateway, supervised
journal, answer = Path(sys.argv[1]), sys.argv[2]
store = Registry(journal / "generations")
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM})
with supervised(journal) as board:
    board.begin(Gateway(os.getpid(), time.time_ns(), 1, "127.0.0.1:1"))
    for state in store.states():
        if state.product != "stale":
            store.write(state)
    print("ready", flush=True)
    while signal.sigwait({signal.SIGUSR1, signal.SIGTERM}) == signal.SIGUSR1:
        if answer == "dies":
            break
        for state in store.states() if answer != "sleeps" else ():
            if state.product != "stale":
                refused = Refused(9, None, 1, ("because",)) if answer == "refuses" else None
                store.write(replace(state, refused=refused).looked(time.time_ns()))
"""


@contextmanager
def supervisor(journal: Path, answer: str) -> Iterator[None]:
    command = [sys.executable, "-c", _GATEWAY, str(journal), answer]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield
    finally:
        process.terminate()
        assert process.wait(60) == 0
        process.stdout.close()


def test_reload_says_what_came_of_it(told: Run, folder: Path, tmp_path: Path) -> None:
    store = Registry(tmp_path / "journal" / "generations")
    # What another gateway served once is not waited for.
    store.write(replace(keep(folder, store), product="stale", folder="/gone"))
    asked_ns = time.time_ns()
    with supervisor(tmp_path / "journal", "takes"):
        (row,) = told("reload", "--wait", "10")
    assert (row["product"], row["refused"]) == ("test", None)
    assert row["looked_ns"] > asked_ns


def test_reload_ends_with_9_where_a_change_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(folder, Registry(tmp_path / "journal" / "generations"))
    with supervisor(tmp_path / "journal", "refuses"):
        assert run(["models", "reload"]) == ExitCode.REFUSED
    shown = capsys.readouterr()
    assert "test: generation 3 (" in shown.out
    assert "refused generation 9" in shown.out
    assert "because" in shown.out
    assert "the newest change is refused" in shown.err


@pytest.mark.parametrize(
    ("answer", "says"), [("sleeps", "has not said within 0.2 s"), ("dies", "does not run any more")]
)
def test_reload_does_not_wait_for_what_does_not_come(
    complaint: Callable[..., str], folder: Path, tmp_path: Path, answer: str, says: str
) -> None:
    keep(folder, Registry(tmp_path / "journal" / "generations"))
    with supervisor(tmp_path / "journal", answer):
        wait = "0.2" if answer == "sleeps" else "10"
        assert says in complaint(ExitCode.FAILED, "reload", "--wait", wait)


def test_reload_needs_a_gateway(complaint: Callable[..., str], tmp_path: Path) -> None:
    assert "there is no such folder" in complaint(ExitCode.JOURNAL, "reload")
    (tmp_path / "journal").mkdir()
    assert "no gateway has run here" in complaint(ExitCode.JOURNAL, "reload")
    with supervisor(tmp_path / "journal", "takes"):
        pass
    assert "does not run any more" in complaint(ExitCode.FAILED, "reload")


@pytest.mark.slow
def test_a_challenger_is_promoted_and_taken_back_under_a_running_gateway(
    told: Run, folder: Path, tmp_path: Path
) -> None:
    serve = [*COMMAND, "serve", str(folder), "--listen", "127.0.0.1:0", "--journal", "journal"]
    process = subprocess.Popen(
        [*serve, "--workers", "1", "--json"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("{")
        (row,) = told("list")
        assert (row["serving"]["generation"], row["serving"]["arms"][0]["name"]) == (3, "v1")
        promoted = told("promote", folder, "rival", "--keep-as-shadow")
        (row,) = told("reload", "--wait", "120")
        assert row["serving"]["generation"] == 4
        assert row["serving"]["digest"] == promoted["after"]["digest"]
        assert [arm["name"] for arm in row["serving"]["arms"]] == ["rival", "v1", "other"]
        told("rollback", folder)
        (row,) = told("reload", "--wait", "120")
        assert (row["serving"]["generation"], row["refused"]) == (5, None)
        assert row["serving"]["arms"][0]["name"] == "v1"
        assert parse(text_of(folder), "").generation == 5
    finally:
        process.terminate()
        assert process.wait(60) == 0
        process.stdout.close()
