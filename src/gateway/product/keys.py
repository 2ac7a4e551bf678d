"""Every key that a product.yaml may have, read off the sections themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from gateway.product.frozen import FrozenMapping
from gateway.product.product import Product
from gateway.product.rule import Rule
from gateway.product.section import Key, Section

ITEM = "[]"
"""Stands for any index of a list."""
NAME = "NAME"
"""Stands for any name in a mapping of names."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One key: where it stands, what it holds, its kind and what it must be."""

    pattern: tuple[str, ...]
    field: FieldInfo
    kind: str
    says: str


@dataclass(frozen=True, slots=True)
class _Shape:
    """A type: its kind and rule in words, and the section inside it, some parts further down."""

    kind: str
    says: str
    down: tuple[str, ...] = ()
    section: type[Section] | None = None


@cache
def entries() -> dict[tuple[str, ...], Entry]:
    """Return every key by its pattern, in the order of declaration."""
    return {entry.pattern: entry for entry in _walk(Product, ())}


def names_at(parent: Key) -> tuple[str, ...]:
    """Return the keys that the section at `parent` may have."""
    above = _pattern(parent)
    return tuple(pattern[-1] for pattern in entries() if pattern[:-1] == above)


def entry_at(key: Key) -> Entry | None:
    """Return what is known of the key, or None where there is no such key."""
    return entries().get(_pattern(key))


def dotted(key: Key) -> str:
    """Return a key as messages show it: `goals[0].at_most`."""
    words = "".join(f"[{part}]" if isinstance(part, int) else f".{_word(part)}" for part in key)
    return words.removeprefix(".")


def _word(part: str) -> str:
    plain = part.isprintable() and part == part.strip() and 0 < len(part) <= 60
    return part if plain else ascii(part[:60])


@cache
def _prefixes() -> frozenset[tuple[str, ...]]:
    return frozenset(p[:length] for p in entries() for length in range(len(p) + 1))


def _pattern(key: Key) -> tuple[str, ...]:
    pattern: tuple[str, ...] = ()
    for part in key:
        exact = (*pattern, ITEM if isinstance(part, int) else part)
        pattern = exact if exact in _prefixes() else (*pattern, NAME)
    return pattern


def _walk(section: type[Section], parent: tuple[str, ...]) -> Iterator[Entry]:
    for name, field in section.model_fields.items():
        pattern = (*parent, field.alias or name)
        shape = _shape(field.annotation, field.metadata)
        yield Entry(pattern, field, shape.kind, shape.says)
        if shape.section is not None:
            yield from _walk(shape.section, (*pattern, *shape.down))


def _shape(annotation: Any, metadata: Iterable[object] = ()) -> _Shape:
    for rule in metadata:
        if isinstance(rule, Rule):
            return _Shape(rule.kind, rule.says)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _shape(arguments[0], arguments[1:])
    if origin in (Union, UnionType):
        return _shape(next(argument for argument in arguments if argument is not NoneType))
    if origin is Literal:
        return _Shape("word", f"one of {', '.join(arguments)}")
    if origin is tuple:
        inner = _shape(arguments[0])
        says = f"a list, each {inner.says}" if inner.section is None else "a list of mappings"
        return _Shape("list", says, (ITEM, *inner.down), inner.section)
    if origin is FrozenMapping:
        inner = _shape(arguments[1])
        says = f"a mapping of names, each to {inner.says}"
        return _Shape("mapping", says, (NAME, *inner.down), inner.section)
    return _Shape("mapping", "a mapping", (), annotation)
