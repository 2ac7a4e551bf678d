"""Spans of sequences: the first and the last, both included. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Span = tuple[int, int]


def merged(spans: Iterable[Span]) -> list[Span]:
    """Return spans in order; what touches is one."""
    joined: list[Span] = []
    for low, high in sorted(spans):
        if joined and low <= joined[-1][1] + 1:
            joined[-1] = joined[-1][0], max(high, joined[-1][1])
        else:
            joined.append((low, high))
    return joined


def without(hole: Span, spans: Sequence[Span]) -> list[Span]:
    """Return what sorted `spans` leave of `hole`."""
    first, last = hole
    left = []
    for start, end in spans:
        if start > last or end < first:
            continue
        if start > first:
            left.append((first, start - 1))
        first = end + 1
    if first <= last:
        left.append((first, last))
    return left


def size(spans: Iterable[Span]) -> int:
    """Return how many sequences merged spans hold."""
    return sum(last - first + 1 for first, last in spans)
