"""Where everything stands in a YAML text, to change one thing and leave the rest as it is.

Read from ruamel.yaml's events, as `source` does. Its round trip would not do: it indents and
folds anew what nobody touched.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from ruamel.yaml import YAML
from ruamel.yaml.events import (
    AliasEvent,
    MappingEndEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from gateway.product.section import Key


@dataclass(frozen=True, slots=True)
class Span:
    """A value: text[start:end], without the comments and blank lines around it.

    `flow`: a collection in brackets. `literal`: a scalar on one line that means the same in
    brackets too. `entries` are a mapping's, `items` a list's.
    """

    start: int
    end: int
    kind: Literal["scalar", "alias", "mapping", "list"]
    flow: bool = False
    literal: bool = False
    entries: tuple[Entry, ...] = ()
    items: tuple[Span, ...] = ()

    def entry(self, name: str | int) -> Entry | None:
        """Return a mapping's entry, or None."""
        return next((entry for entry in self.entries if entry.name == name), None)

    def at(self, key: Key) -> Span | None:
        """Return what stands at a key, or None."""
        span = self
        for part in key:
            if isinstance(part, int):
                if part >= len(span.items):
                    return None
                span = span.items[part]
            elif (entry := span.entry(part)) is not None:
                span = entry.value
            else:
                return None
        return span


@dataclass(frozen=True, slots=True)
class Entry:
    """A key and its value. `start`: of the key; `colon`: behind its colon."""

    name: str
    start: int
    colon: int
    value: Span


def spans(text: str) -> Span:
    """Return where everything stands in a text that `source.read` takes."""
    events = iter(YAML(typ="safe", pure=True).parse(text))
    for event in events:
        if isinstance(event, NodeEvent):
            return _span(event, events, text, 0)
    return Span(0, 0, "scalar")


def _span(event: Any, events: Iterator[Any], text: str, after: int) -> Span:
    """Read one value; `after`: behind the colon that it follows."""
    start, end = event.start_mark.index, event.end_mark.index
    if isinstance(event, AliasEvent):
        return Span(start, end, "alias")
    if isinstance(event, ScalarEvent):
        if start == end:  # Nothing stands there; the event is where the next thing begins.
            return Span(after, after, "scalar")
        raw = text[start:end].rstrip()
        literal = event.anchor is None and event.tag is None and "\n" not in raw
        if event.style is None:
            literal = literal and not set(raw) & set(",[]{}")
        literal = literal and event.style not in ("|", ">")
        return Span(start, start + len(raw), "scalar", literal=literal)
    if isinstance(event, SequenceStartEvent):
        return _list(event, events, text)
    return _mapping(event, events, text)


def _list(start: Any, events: Iterator[Any], text: str) -> Span:
    items: list[Span] = []
    while not isinstance(event := next(events), SequenceEndEvent):
        items.append(_span(event, events, text, event.start_mark.index))
    flow = bool(start.flow_style)
    end = event.end_mark.index if flow else items[-1].end
    return Span(start.start_mark.index, end, "list", flow=flow, items=tuple(items))


def _mapping(start: Any, events: Iterator[Any], text: str) -> Span:
    entries: list[Entry] = []
    while not isinstance(event := next(events), MappingEndEvent):
        key_end = event.end_mark.index
        colon = text.find(":", key_end) + 1 or key_end
        value = _span(next(events), events, text, colon)
        entries.append(Entry(event.value, event.start_mark.index, colon, value))
    flow = bool(start.flow_style)
    end = event.end_mark.index if flow else entries[-1].value.end
    return Span(start.start_mark.index, end, "mapping", flow=flow, entries=tuple(entries))
