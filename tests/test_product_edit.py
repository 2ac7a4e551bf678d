"""Edits of a product.yaml: what was not named stays, byte for byte."""

from __future__ import annotations

import difflib
import json
import math
from pathlib import Path
from typing import Any

import catalogue
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import UsageError
from gateway.product import parse
from gateway.product.edit import (
    arm_key,
    content_of,
    flow,
    promoted,
    with_calibration,
    with_challenger,
    with_files,
    with_generation,
    with_key,
)
from gateway.product.source import read

HERE = Path(__file__).parent
FILES = sorted([*HERE.glob("products/*.yaml"), *HERE.parent.glob("models/*/product.yaml")])
DESIGN = (HERE / "products" / "design.yaml").read_text(encoding="utf-8")
A, B = "a" * 64, "b" * 64
RIVAL: dict[str, Any] = {"name": "rival", "path": "r.onnx", "sha256": A, "mode": "shadow"}


def changed(before: str, after: str) -> list[str]:
    """Return the changed lines, as `-line` and `+line`."""
    lines = list(difflib.unified_diff(before.splitlines(), after.splitlines(), n=0))
    return [line[0] + line[1:].strip() for line in lines[2:] if line[0] in "-+"]


@pytest.fixture(params=FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def text(request: pytest.FixtureRequest) -> str:
    return str(request.param.read_text(encoding="utf-8"))


def test_only_the_generation_changes(text: str) -> None:
    after = with_generation(text, 4711)
    removed, added = changed(text, after)
    number = content_of(text)["generation"]
    assert added[1:] == removed[1:].replace(f"generation: {number}", "generation: 4711")
    assert with_generation(after, number) == text


def test_a_challenger_comes_and_its_promotion_changes_the_models_alone(text: str) -> None:
    with_rival = with_challenger(text, RIVAL)
    assert parse(with_rival, "").models.challengers[-1].name == "rival"
    for keep in (False, True):
        after = promoted(with_rival, "rival", sha256=B, keep_as_shadow=keep)
        before, product = parse(text, ""), parse(after, "")
        champion = product.models.champion
        assert (champion.name, champion.path, champion.sha256) == ("rival", "r.onnx", B)
        assert champion.output == before.models.champion.output
        assert champion.golden is champion.base_rate is champion.scale is None
        assert product.generation == before.generation + 1
        kept = [c for c in product.models.challengers if c.sha256 == before.models.champion.sha256]
        assert len(kept) == keep
        assert all(c.mode == "shadow" and c.calibration == before.models.champion.calibration
                   for c in kept)  # fmt: skip
        unchanged = before.model_dump(exclude={"models", "generation"})
        assert product.model_dump(exclude={"models", "generation"}) == unchanged
        head, _, tail = text.partition("\nmodels:")
        assert with_generation(after, before.generation).startswith(head)
        assert after.endswith(tail[tail.index("\nfeatures:") :])


def test_promoting_there_and_back_is_the_same_champion(text: str) -> None:
    shadowed = promoted(with_challenger(text, RIVAL), "rival", sha256=A, keep_as_shadow=True)
    former = content_of(shadowed)["models"]["challengers"][-1]
    back = content_of(promoted(shadowed, former["name"], sha256=former["sha256"]))
    assert (
        back["models"]["champion"]
        == {"name": former["name"]} | (content_of(text)["models"]["champion"])
    )
    assert back["generation"] == content_of(text)["generation"] + 2


BLOCK = """\
# above
generation: 3   # rises
models:
  champion:     # the deciding one
    path: "v7.onnx"     # file
    sha256: {b}
    output: probabilities[1]
    calibration:        # by points
      # of the spring
      kind: platt
      path: v7.json   # fitted
    # below the champion
  challengers:  # rivals
    # the first rival
    - name: v8      # eight
      mode: canary
      share: 5%
      calibration:
        kind: isotonic
        x: [0, 0.5,   # half
            1]
        y: [0.0, 0.10, 1.]
    # the second rival
    - # a-dash
      name: v9
      output: "other[0]"
      mode: shadow

# after
costs: {{currency: USD}}
"""


def test_a_block_keeps_its_comments_and_takes_the_values_as_they_were_written() -> None:
    before = BLOCK.format(b=B)
    assert promoted(before, "v8", sha256=A) == f"""\
# above
generation: 4   # rises
models:
  champion:     # the deciding one
    name: v8
    path: v8.onnx     # file
    sha256: {A}
    output: probabilities[1]
    calibration: {{kind: isotonic, x: [0, 0.5, 1], y: [0.0, 0.10, 1.]}}        # by points
      # of the spring   # fitted
    # below the champion
  challengers:  # rivals
    # the first rival
    # the second rival
    - # a-dash
      name: v9
      output: "other[0]"
      mode: shadow

# after
costs: {{currency: USD}}
"""  # fmt: skip


def test_a_block_takes_the_former_champion_in_the_challenger_s_place() -> None:
    before = BLOCK.format(b=B)
    after = promoted(before, "v9", sha256=A, keep_as_shadow=True)
    assert changed(before, after) == [
        "-generation: 3   # rises",
        "+generation: 4   # rises",
        '-path: "v7.onnx"     # file',
        f"-sha256: {B}",
        "-output: probabilities[1]",
        "-calibration:        # by points",
        "-# of the spring",
        "-kind: platt",
        "-path: v7.json   # fitted",
        "+name: v9",
        "+path: v9.onnx     # file",
        f"+sha256: {A}",
        '+output: "other[0]"',
        '+output: "probabilities[1]"',
        "-name: v9",
        '-output: "other[0]"',
        "+name: v7",
        '+path: "v7.onnx"',
        f"+sha256: {B}",
        '+output: "probabilities[1]"',
        "+calibration: {kind: platt, path: v7.json}",
    ]
    # v8 took its output from the former champion, and still has that one.
    assert content_of(after)["models"]["challengers"][0]["output"] == "probabilities[1]"


def test_the_last_rival_leaves_an_empty_list_and_its_comment() -> None:
    text = promoted(promoted(BLOCK.format(b=B), "v8", sha256=A), "v9", sha256=A)
    assert "  challengers: []  # rivals\n" in text
    assert content_of(text)["models"]["challengers"] == []
    assert content_of(with_challenger(text, RIVAL))["models"]["challengers"] == [RIVAL]


def test_line_breaks_of_another_system_stay() -> None:
    before = BLOCK.format(b=B).replace("\n", "\r\n")
    for after in (
        promoted(before, "v8", sha256=A),
        promoted(before, "v9", sha256=A, keep_as_shadow=True),
        with_challenger(before, RIVAL),
        with_key(before, ("latency", "budget_ms"), 25),
    ):
        assert after.count("\n") == after.count("\r\n")


@pytest.mark.parametrize("style", ["flow", "block"])
def test_a_calibration_is_set_for_whichever_model_is_named(style: str) -> None:
    before = DESIGN if style == "flow" else BLOCK.format(b=B)
    calibration = {"kind": "beta", "path": "maps/beta.json"}
    for name, place in (("champion", "champion"), ("v8", "challengers"), ("v9", "challengers")):
        content = content_of(with_calibration(before, name, calibration))
        arms = content["models"][place]
        arm = arms if place == "champion" else next(a for a in arms if a["name"] == name)
        assert arm.pop("calibration") == calibration
        without = content_of(before)
        for one in (*without["models"]["challengers"], without["models"]["champion"]):
            if one.get("name", "champion") == name:
                one.pop("calibration", None)
        assert content == without


def test_a_renamed_file_is_named_anew_wherever_it_is_named() -> None:
    before = BLOCK.format(b=B)
    renamed = {"v7.json": "v7.1234.json", "v8.onnx": "v8.1234.onnx", "none": "x"}
    assert changed(before, with_files(before, renamed)) == [
        "-path: v7.json   # fitted",
        "+path: v7.1234.json   # fitted",
        "+version: v8",
        "+path: v8.1234.onnx",
    ]
    assert parse(with_files(DESIGN, {"v7.onnx": "x.onnx"}), "").models.champion.version == "v7"


def test_keys_are_made_where_there_are_none() -> None:
    text = with_key("product: x # y\n", ("review", "price", "per_hour"), 0.125)
    assert text == "product: x # y\nreview: {price: {per_hour: 0.125}}\n"
    assert with_key(text, ("review", "price", "per_hour"), 2).endswith("{per_hour: 2}}\n")
    assert with_key(text, ("review", "until"), "5%") == text.replace("}}", "}, until: 5%}")
    assert with_key("a:\nb: 1\n", ("a",), 2) == "a: 2\nb: 1\n"
    assert with_key("a: # why\n  - 1\nb: 1", ("a",), []) == "a: [] # why\nb: 1"
    assert with_key("a: b", ("c",), None) == "a: b\nc: null"


def test_a_literal_text_and_what_follows_it_stay() -> None:
    before = "a: |\n  one\n  two\n\n# c\nb: 1\n"
    assert with_key(before, ("b",), 2) == before.replace("b: 1", "b: 2")
    assert with_key(before, ("a",), "x") == "a: x\n\n# c\nb: 1\n"


def test_what_an_anchor_elsewhere_needs_is_not_cut_off() -> None:
    text = BLOCK.format(b=B).replace("      calibration:\n", "      calibration: &map\n")
    text = text.replace('output: "other[0]"', "calibration: *map")
    with pytest.raises(UsageError, match="cannot be changed here"):
        promoted(text, "v8", sha256=A)
    # The other way it can be: the value is written out.
    after = content_of(promoted(text, "v9", sha256=A))
    assert after["models"]["champion"]["calibration"]["kind"] == "isotonic"


@pytest.mark.parametrize(
    ("edit", "says", "hint"),
    [
        (lambda t: promoted(t, "v88", sha256=A), "no model", "Did you mean v8?"),
        (lambda t: promoted(t, "champion", sha256=A), "is the champion already", "v8, v9"),
        (lambda t: with_calibration(t, "nobody", {}), "no model", "Known: champion, v8, v9."),
        (lambda t: with_challenger(t, {"name": "v8"}), "already", "champion, v8, v9"),
        (lambda t: with_key(t, ("generation", "x"), 1), "leads nowhere", "generation ends"),
        (lambda t: with_key(t, ("goals", 9, "x"), 1), "leads nowhere", ""),
        (lambda t: promoted("a: [", "v8", sha256=A), "cannot be read", "gateway check"),
    ],
)
def test_what_cannot_be_edited_says_what_to_try(edit: Any, says: str, hint: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        edit(DESIGN)
    assert hint in caught.value.hint


def test_models_are_found_by_their_names() -> None:
    assert arm_key(DESIGN, "champion") == ("models", "champion")
    assert arm_key(DESIGN, "v9") == ("models", "challengers", 1)


_SCALARS = (
    st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.floats() | st.text(max_size=20)
    | st.sampled_from(["5%", "null", "1e5", "no", "~", "a: b", "# x", "- a", "'", "é", "\x85", ""])
)  # fmt: skip


@given(
    st.recursive(
        _SCALARS,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.text(min_size=1, max_size=9), inner, max_size=3)
        ),
        max_leaves=8,
    )
)
def test_every_plain_value_is_read_as_it_was_written(value: object) -> None:
    try:
        written = f"a: {flow(value)}"
        reading = read(written)
    except UnicodeEncodeError:
        return
    assert "\n" not in written
    assert not reading.problems
    assert repr(reading.content) == repr({"a": value})


def _block(value: object, indent: int, draw: Any) -> str:
    """Write a value in a style that is drawn, with comments that are drawn."""
    comment = draw(st.sampled_from(["", "  # why", " # a, b: {c} - d"]))
    pad = " " * indent
    if isinstance(value, dict) and value and draw(st.booleans()):
        gaps = draw(st.sampled_from(["", f"{pad}# alone\n", "\n"]))
        return comment + "\n" + "".join(
            f"{pad}{k}:{_block(v, indent + 2, draw)}{gaps}" for k, v in value.items()
        )  # fmt: skip
    if isinstance(value, list) and value and draw(st.booleans()):
        return comment + "\n" + "".join(_item(v, indent, draw) for v in value)
    if isinstance(value, list) and value and draw(st.booleans()):
        inner = f",{comment}\n{pad}  ".join(map(flow, value))
        return f" [\n{pad}  {inner}{draw(st.sampled_from(['', ',']))}\n{pad}]{comment}\n"
    quoted = isinstance(value, str) and draw(st.booleans())
    return f" {json.dumps(value) if quoted else flow(value)}{comment}\n"


def _item(value: object, indent: int, draw: Any) -> str:
    pad = " " * indent
    if not isinstance(value, dict) or draw(st.booleans()):
        return f"{pad}- {flow(value)}\n"
    lines = [f"{pad}  {k}:{_block(v, indent + 4, draw)}" for k, v in value.items()]
    return f"{pad}- " + "".join(lines).removeprefix(f"{pad}  ")


_CALIBRATIONS = st.sampled_from(
    [
        {"kind": "identity"},
        {"kind": "platt", "a": 1.5, "b": -0.25},
        {"kind": "isotonic", "x": [0, 0.5, 1], "y": [0.0, 0.1, 1.0]},
        {"kind": "beta", "path": "maps/beta.json"},
    ]
)
_MORE = {
    "version": st.sampled_from(["2026-05", "v8 of May", "1"]),
    "output": st.sampled_from(["probabilities[1]", "score", "p[a b]"]),
    "scale": st.just([0, 100]),
    "calibration": _CALIBRATIONS,
    "base_rate": st.just({"calibrated_at": 0.02, "serving": 0.002}),
    "golden": st.just("golden.json"),
}
_CHAMPIONS = st.fixed_dictionaries(
    {"path": st.just("v7.onnx"), "sha256": st.just(B), "output": st.just("probabilities[1]")},
    optional={"name": st.just("lightgbm")} | {k: v for k, v in _MORE.items() if k != "output"},
)
_RIVALS = st.fixed_dictionaries(
    {"mode": st.sampled_from(["shadow", "canary"]), "share": st.just("5%")},
    optional={"path": st.just("r.onnx"), "sha256": st.just(A)} | _MORE,
)
_LINES = {key: f"{key}: {flow(value)}   # {key}\n" for key, value in catalogue.BASE.items()}
_HEAD = "".join(_LINES[key] for key in ("product", "generation", "owners"))
_TAIL = "\n" + "".join(_LINES[key] for key in (*_LINES,)[3:] if key != "models")


@settings(max_examples=25)
@given(st.data(), _CHAMPIONS, st.lists(_RIVALS, min_size=1, max_size=3), st.booleans())
def test_whatever_the_style_a_promotion_does_what_it_says(
    data: st.DataObject, champion: dict[str, Any], rivals: list[dict[str, Any]], keep: bool
) -> None:
    rivals = [{"name": f"r{i}", **rival} for i, rival in enumerate(rivals)]
    models = {"champion": champion, "challengers": rivals}
    before = f"{_HEAD}models:{_block(models, 2, data.draw)}{_TAIL}"
    product = parse(before, "")
    index = data.draw(st.integers(0, len(rivals) - 1))
    after_text = promoted(before, f"r{index}", sha256=A, keep_as_shadow=keep)
    after = parse(after_text, "")
    assert after_text.startswith(with_generation(_HEAD, product.generation + 1))
    assert after_text.endswith(_TAIL)
    was, now = product.models.challengers[index], after.models.champion
    assert now.model_dump(exclude={"sha256", "output"}) == was.model_dump(
        exclude={"sha256", "output", "mode", "share"}
    )
    assert now.sha256 == A
    assert now.output == (was.output or product.models.champion.output)
    former = product.models.champion
    left = [c for i, c in enumerate(product.models.challengers) if i != index]
    there = [c for c in after.models.challengers if c.sha256 != B]
    for old, new in zip(left, there, strict=True):
        assert new.model_dump(exclude={"output"}) == old.model_dump(exclude={"output"})
        assert (new.output or now.output) == (old.output or former.output)
    kept = [c for c in after.models.challengers if c.sha256 == B]
    assert len(kept) == keep
    for one in kept:
        assert one.model_dump(exclude={"name", "mode", "share", "output"}) == former.model_dump(
            exclude={"name", "output"}
        )
        assert one.output == former.output


def test_a_number_that_is_none_can_be_written() -> None:
    assert (flow(math.inf), flow(-math.inf), flow(math.nan)) == (".inf", "-.inf", ".nan")
