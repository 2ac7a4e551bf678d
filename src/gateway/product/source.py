"""YAML text -> plain content, and the line of every key.

Read from ruamel.yaml's events and not by its constructors: an event has its line, nothing
is built that was not asked for (tags are refused), and every limit is checked while
reading. Plain words are typed by YAML 1.2's core schema, so `no` is text and `1e6` a number.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.reader import ReaderError

from gateway.product.section import Key, Problem
from gateway.product.suggest import shown

BYTES_MAX = 1 << 20
DEPTH_MAX = 32
NODES_MAX = 20_000
"""Values in one file, each counted again wherever an alias repeats it."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a product was written: the file, and the line (from 1) of every key in it.

    `questions`: line and text of each comment that begins with ASK, as `gateway init` writes
    what it could not know.
    """

    path: str = field(default="", compare=False)
    lines: Mapping[Key, int] = field(default_factory=dict, compare=False)
    questions: tuple[tuple[int, str], ...] = field(default=(), compare=False)

    def line(self, key: Key) -> int:
        """Return the line of `key`, or of the nearest key above it that the file has."""
        while key and key not in self.lines:
            key = key[:-1]
        return self.lines.get(key, 1)


NOWHERE = Source()
"""The source of a product that was built in code."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a text says: `content` of dicts, lists and scalars, and the problems on the way.

    `content` is None where the text cannot be read to its end.
    """

    content: object
    lines: Mapping[Key, int]
    problems: tuple[tuple[int, Problem], ...]


def questions(text: str) -> tuple[tuple[int, str], ...]:
    """Return line (from 1) and text of each comment that begins with ASK."""
    found = enumerate(map(_QUESTION.search, text.split("\n")), 1)
    return tuple((line, match[1].strip()) for line, match in found if match)


_QUESTION = re.compile(r"(?:^|\s)#\s*ASK\b:?\s*(.+)")


def read(text: str) -> Reading:
    """Read one YAML document; syntax errors, limits and tags become problems with a line."""
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > BYTES_MAX:
        problem = Problem(("file",), f"has {size} bytes, must have {BYTES_MAX} or fewer.")
        return Reading(None, {}, ((1, problem),))
    reader = _Reader(text)
    try:
        root = reader.document()
    except _UnreadableError as unreadable:
        stop: tuple[int, Problem] = (unreadable.line, unreadable.problem)
        return Reading(None, {}, (*reader.problems, stop))
    lines = {(): 1} | dict(_walk(root, ()))
    return Reading(_plain(root), lines, tuple(reader.problems))


@dataclass(slots=True)
class _Node:
    line: int
    value: Any
    """A scalar, a list of nodes, or a dict of key to (line of the key, node)."""
    size: int = 1


class _UnreadableError(Exception):
    def __init__(self, line: int, key: Key, problem: str, hint: str = "") -> None:
        super().__init__(problem)
        self.line = line
        self.problem = Problem(key, problem, hint)


class _Reader:
    """Builds nodes from events, counting what it builds."""

    def __init__(self, text: str) -> None:
        self.problems: list[tuple[int, Problem]] = []
        self._newlines = [found.start() for found in re.finditer("\n", text)]
        self._line_count = len(self._newlines) + (not text.endswith("\n"))
        self._events = _events(text)
        self._anchors: dict[str, _Node] = {}
        self._size = 0

    def document(self) -> _Node:
        event = self._next()
        while not isinstance(event, NodeEvent):
            event = self._next(or_none=True)
            if event is None:
                return _Node(1, None)
        root = self._node(event, ())
        event = self._next()
        while event is not None:
            if isinstance(event, DocumentStartEvent):
                raise _UnreadableError(
                    self._line(event), ("file",), "has a second document.", "Remove the `---`."
                )
            event = self._next(or_none=True)
        return root

    def _next(self, *, or_none: bool = False) -> Any:
        try:
            return next(self._events)
        except StopIteration:
            if or_none:
                return None
            raise _UnreadableError(1, ("file",), "ends too early.") from None
        except (YAMLError, ValueError, OverflowError) as error:
            index, said = _syntax(error)
            raise _UnreadableError(self._line_at(index), ("YAML",), f"syntax: {said}.") from None

    def _line(self, event: Any) -> int:
        return self._line_at(event.start_mark.index)

    def _line_at(self, index: int) -> int:
        # As editors count. ruamel.yaml also counts U+0085 and U+2028, which they do not.
        return min(1 + bisect_left(self._newlines, index), self._line_count)

    def _node(self, event: Any, key: Key) -> _Node:
        line = self._line(event)
        if len(key) > DEPTH_MAX:
            raise _UnreadableError(line, key[:3], f"is nested more than {DEPTH_MAX} levels deep.")
        if isinstance(event, AliasEvent):
            node = self._alias(event, key)
            self._count(node.size, line)
            return node
        if event.tag is not None:
            problem = f"has the tag {shown(str(event.tag))}: tags are not allowed."
            self.problems.append(
                (line, Problem(key or ("file",), problem, "Write the plain value."))
            )
        before = self._size
        self._count(1, line)
        if isinstance(event, ScalarEvent):
            node = _Node(line, _scalar(event.value) if event.style is None else event.value)
        elif isinstance(event, SequenceStartEvent):
            node = _Node(line, self._items(key))
        else:
            assert isinstance(event, MappingStartEvent)
            node = _Node(line, self._entries(key))
        node.size = self._size - before
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _items(self, key: Key) -> list[_Node]:
        items: list[_Node] = []
        while not isinstance(event := self._next(), SequenceEndEvent):
            items.append(self._node(event, (*key, len(items))))
        return items

    def _entries(self, key: Key) -> dict[str, tuple[int, _Node]]:
        entries: dict[str, tuple[int, _Node]] = {}
        while not isinstance(event := self._next(), MappingEndEvent):
            line = self._line(event)
            if not isinstance(event, ScalarEvent):
                raise _UnreadableError(line, key or ("file",), "has a key that is no word.")
            child = (*key, event.value)
            if event.value in entries:
                first = entries[event.value][0]
                problem = Problem(child, f"is set twice, first on line {first}.", "Keep one.")
                self.problems.append((line, problem))
            entries[event.value] = line, self._node(self._next(), child)
        return entries

    def _alias(self, event: Any, key: Key) -> _Node:
        node = self._anchors.get(event.anchor)
        if node is None:
            problem = f"refers to {shown('*' + event.anchor)}, which is not defined before it."
            raise _UnreadableError(self._line(event), key or ("file",), problem)
        return node

    def _count(self, size: int, line: int) -> None:
        self._size += size
        if self._size > NODES_MAX:
            raise _UnreadableError(
                line, ("file",), f"has more than {NODES_MAX} values, aliases repeated."
            )


def _events(text: str) -> Iterator[Any]:
    yield from YAML(typ="safe", pure=True).parse(text)


def _syntax(error: Exception) -> tuple[int, str]:
    """Return the index into the text and the words of ruamel.yaml's error."""
    if isinstance(error, MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        said = str(error.problem or error.context or "cannot be read")
        return (mark.index if mark else 0), _printable(said)
    if isinstance(error, ReaderError):
        return error.position, f"the character U+{error.character:04X} is not allowed"
    return 0, _printable(str(error))


def _printable(said: str) -> str:
    line = " ".join(said.split())[:200]
    return line if line.isprintable() else ascii(line)


_WORDS = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_INT = re.compile(r"[-+]?[0-9]{1,18}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INF = re.compile(r"([-+]?)\.(inf|Inf|INF)")


def _scalar(word: str) -> object:
    """Type a plain word by YAML 1.2's core schema. Octal and hex are left as text."""
    if word in _WORDS:
        return _WORDS[word]
    if _INT.fullmatch(word):
        return int(word)
    if _FLOAT.fullmatch(word):
        return float(word)
    if found := _INF.fullmatch(word):
        return float(f"{found.group(1)}inf")
    return float("nan") if word in (".nan", ".NaN", ".NAN") else word


def _plain(node: _Node) -> object:
    if isinstance(node.value, dict):
        return {key: _plain(child) for key, (_, child) in node.value.items()}
    if isinstance(node.value, list):
        return [_plain(child) for child in node.value]
    return node.value


def _walk(node: _Node, key: Key) -> Iterator[tuple[Key, int]]:
    if isinstance(node.value, dict):
        for name, (line, child) in node.value.items():
            yield (*key, name), line
            yield from _walk(child, (*key, name))
    elif isinstance(node.value, list):
        for index, child in enumerate(node.value):
            yield (*key, index), child.line
            yield from _walk(child, (*key, index))
