"""Whatever is done to a good product.yaml, it parses, or every violation can be found."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from gateway.errors import ProductError
from gateway.product import lint, parse, unenforced

DESIGN = (Path(__file__).parent / "products" / "design.yaml").read_text()
TREE: dict[str, Any] = YAML(typ="safe", pure=True).load(DESIGN)
EXTRA = {
    "records": {"features": "sampled", "share": 0.1},
    "overrides": [
        {
            "action": "decline",
            "at_least": 0.5,
            "category": "fuel",
            "reason": "a wave",
            "approver": "joan",
            "expires": "2026-12-01",
        }
    ],
    "hypotheses": [
        {
            "id": "h1",
            "claim": "v8 saves more",
            "metric": "savings",
            "arms": {"control": 0.5, "v8": 0.5},
            "stop": {"min_days": 14, "max_days": 60},
        }
    ],
}

JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(),
    st.text(max_size=10),
    st.sampled_from(["refuse", "nan", "5%", "approve", "28d", "2026-02-30", "probabilities[1]"]),
    st.lists(st.integers(0, 3), max_size=3),
    st.dictionaries(st.text("ab", max_size=2), st.integers(0, 3), max_size=2),
)


def places(tree: Any) -> list[tuple[Any, Any]]:
    """Every (container, key or index) in a tree of dicts and lists."""
    if isinstance(tree, dict):
        children: list[Any] = list(tree.items())
    elif isinstance(tree, list):
        children = list(enumerate(tree))
    else:
        return []
    return [place for key, child in children for place in [(tree, key), *places(child)]]


def mutate(draw: st.DrawFn, tree: Any) -> None:
    """Drop, rename, retype, rescale or repeat one random key."""
    container, key = draw(st.sampled_from(places(tree)))
    match draw(st.sampled_from(["drop", "rename", "retype", "rescale", "repeat"])):
        case "drop":
            del container[key]
        case "rename" if isinstance(container, dict):
            container[draw(st.sampled_from([f"{key}s", key[1:], key.upper()]))] = container.pop(key)
        case "rescale" if isinstance(container[key], int | float):
            container[key] *= draw(st.sampled_from([-1, 0, 100, 1e9, 1e308]))
        case "repeat" if isinstance(container, list):
            container.append(container[key])
        case _:
            container[key] = draw(JUNK)


def written(tree: Any) -> str:
    yaml = YAML(typ="safe", pure=True)
    # Repeated items are written out, not as aliases.
    yaml.representer.ignore_aliases = lambda _: True
    out = io.StringIO()
    yaml.dump(tree, out)
    return out.getvalue()


def copied(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: copied(child) for key, child in tree.items()}
    return [copied(child) for child in tree] if isinstance(tree, list) else tree


@st.composite
def mutants(draw: st.DrawFn) -> str:
    tree = copied(TREE | EXTRA)
    for _ in range(draw(st.integers(1, 4))):
        mutate(draw, tree)
    return written(tree)


def test_the_tree_that_is_mutated_is_good() -> None:
    parse(written(copied(TREE | EXTRA)), "p.yaml")


def assert_parses_or_is_refused(text: str) -> None:
    try:
        product = parse(text, "p.yaml")
    except ProductError as error:
        violations = error.violations
        assert violations
        assert list(violations) == sorted(violations, key=lambda violation: violation.line)
    else:
        hash(product)
        violations = lint(product)
        assert all(entry.line <= len(text.splitlines()) for entry in unenforced(product))
    for violation in violations:
        assert 1 <= violation.line <= len(text.splitlines())
        assert violation.key
        assert violation.problem


@settings(max_examples=30)
@given(mutants())
def test_a_mutant_parses_or_every_violation_can_be_found(text: str) -> None:
    assert_parses_or_is_refused(text)


@pytest.mark.slow
@settings(max_examples=250)
@given(mutants())
def test_hundreds_of_mutants_parse_or_every_violation_can_be_found(text: str) -> None:
    assert_parses_or_is_refused(text)
