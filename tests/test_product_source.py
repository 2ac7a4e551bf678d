"""Reading YAML: hostile text gives one clear violation, soon; lines are those of the text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import ProductError
from gateway.product import parse
from gateway.product.source import BYTES_MAX, NODES_MAX, read


def only_violation(text: str) -> str:
    with pytest.raises(ProductError) as caught:
        parse(text, "p.yaml")
    (violation,) = caught.value.violations
    return str(violation)


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "p.yaml:1: file is empty, must be a mapping that starts with `product:`."),
        ("# nothing", "p.yaml:1: file is empty, must be a mapping that starts with `product:`."),
        ("- a", "p.yaml:1: file is a list, must be a mapping that starts with `product:`."),
        ("a: 1\nb: c: d", "p.yaml:2: YAML syntax: mapping values are not allowed here."),
        ("a: [1,\n", "p.yaml:1: YAML syntax: "),
        ("a: 'x", "p.yaml:1: YAML syntax: found unexpected end of stream."),
        ("a:\n\t- b", "p.yaml:2: YAML syntax: found character '\\t' that cannot start any token."),
        ("a: 1\nb: \x07", "p.yaml:2: YAML syntax: the character U+0007 is not allowed."),
        ("a: \x00", "p.yaml:1: YAML syntax: the character U+0000 is not allowed."),
        ("a: \ud800", "p.yaml:1: YAML syntax: the character U+D800 is not allowed."),
        ("---\na: 1\n---\nb: 1", "p.yaml:3: file has a second document. Remove the `---`."),
        ("a: *b", "p.yaml:1: a refers to '*b', which is not defined before it."),
        ("a: &b [*b]", "p.yaml:1: a[0] refers to '*b', which is not defined before it."),
        ("? [a]\n: b", "p.yaml:1: file has a key that is no word."),
        (
            "\n" + "[" * 100_000,
            "p.yaml:2: [0][0][0] is nested more than 32 levels deep.",
        ),
        (BOMB, f"p.yaml:5: file has more than {NODES_MAX} values, aliases repeated."),
        ("- a\n" * 100_000, f"p.yaml:{NODES_MAX}: file has more than {NODES_MAX} values"),
        (
            "a" * (BYTES_MAX + 1),
            f"p.yaml:1: file has {BYTES_MAX + 1} bytes, must have {BYTES_MAX} or fewer.",
        ),
    ],
    ids=lambda value: value[:20].encode("unicode_escape").decode(),
)
def test_text_that_cannot_be_read_gives_one_violation(text: str, said: str) -> None:
    assert only_violation(text).startswith(said)


def test_a_tag_is_refused_and_builds_nothing() -> None:
    with pytest.raises(ProductError) as caught:
        parse("a: 1\nproduct: !!python/object/apply:os.system [id]", "p.yaml")

    tag = next(v for v in caught.value.violations if "tag" in v.problem)
    assert (tag.line, tag.key) == (2, "product")
    assert "tags are not allowed" in tag.problem


def test_an_alias_stands_for_what_it_names() -> None:
    reading = read("a: &bands\n  - {x: 1}\nb: *bands\n")

    assert reading.content == {"a": [{"x": 1}], "b": [{"x": 1}]}
    assert reading.lines[("b",)] == 3
    assert reading.lines[("b", 0, "x")] == 2
    assert not reading.problems


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("7", 7), ("-1", -1), ("0742", 742), ("1e6", 1e6), (".5", 0.5), ("1.", 1.0),
        ("0x1F", "0x1F"),
        ("no", "no"), ("on", "on"), ("true", True), ("~", None), ("", None), (".inf", float("inf")),
        ("-.inf", -float("inf")), ("1_000", "1_000"), ("12:30", "12:30"), ("5%", "5%"),
        ("2026-11-27", "2026-11-27"), ("'7'", "7"), ('"true"', "true"), ("1e999", float("inf")),
        ("9" * 5000, float("inf")),
    ],
)  # fmt: skip
def test_plain_words_are_typed_by_the_core_schema_of_yaml_1_2(word: str, value: object) -> None:
    content = read(f"a: {word}").content

    assert content == {"a": value}
    assert isinstance(content, dict)
    assert type(content["a"]) is type(value)


names = st.text("abc", min_size=1, max_size=3)
leaves = st.integers(-9, 9)
trees = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3)
        | st.dictionaries(names, inner, min_size=1, max_size=3)
    ),
    max_leaves=12,
)


def block(tree: object, indent: str) -> list[str]:
    """Write a tree in YAML's block style, one key or item a line."""
    if isinstance(tree, dict):
        parts = [(f"{name}:", child) for name, child in tree.items()]
    elif isinstance(tree, list):
        parts = [("-", child) for child in tree]
    else:
        return [f"{indent}{tree}"]
    lines: list[str] = []
    for head, child in parts:
        lines += [f"{indent}{head}", *block(child, indent + "  ")]
    return lines


@given(st.dictionaries(names, trees, min_size=1, max_size=4), st.sampled_from(["\n", "\r\n"]))
def test_content_and_lines_are_those_of_the_text(tree: dict[str, object], newline: str) -> None:
    """A key's line is where its name is written, whatever stands before it."""
    text = newline.join(block(tree, ""))
    lines = text.split(newline)

    reading = read(text)

    assert reading.content == tree
    for key, line in reading.lines.items():
        if key and isinstance(key[-1], str):
            assert lines[line - 1].strip() == f"{key[-1]}:"


def assert_refused(text: str) -> None:
    with pytest.raises(ProductError) as caught:
        parse(text, "p.yaml")

    for violation in caught.value.violations:
        assert 1 <= violation.line <= text.count("\n") + 1
        assert violation.key
        assert str(violation).isprintable()


@given(st.text(max_size=200))
def test_any_text_is_refused_with_a_place(text: str) -> None:
    """No short text has all the sections that are required."""
    assert_refused(text)


@given(st.text("ab:-?&*![]{}#|>'\"%@`,~\n\t 0.\\\u2028\x85", max_size=120))
def test_any_punctuation_is_refused_with_a_place(text: str) -> None:
    assert_refused(text)
