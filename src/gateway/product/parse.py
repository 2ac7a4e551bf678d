"""The text of a product.yaml -> one frozen Product, or all its violations at once."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.errors import ProductError, Violation
from gateway.product.checks import check
from gateway.product.keys import dotted
from gateway.product.product import Product
from gateway.product.schema import validate
from gateway.product.section import Problem
from gateway.product.source import Source, questions, read


def parse(text: str, path: str) -> Product:
    """Return the product that `text` declares. `path` is only shown in messages.

    Raises:
        ProductError: with every violation, in the order of lines. Text that is no YAML, or
            more than the limits of `source` allow, gives one.
    """
    reading = read(text)
    source = Source(path, reading.lines, questions(text))
    found = [_violation(path, line, problem) for line, problem in reading.problems]
    if reading.lines:
        sections, problems = validate(reading.content)
        found += locate(source, problems)
        found += locate(source, check(sections))
    if found:
        raise ProductError(tuple(sorted(set(found), key=lambda v: (v.line, v.key, v.problem))))
    product = Product.model_validate(reading.content, by_alias=True, by_name=False)
    product._source = source
    return product


def locate(source: Source, problems: Iterable[Problem]) -> tuple[Violation, ...]:
    """Give each problem the file and the line of its key."""
    return tuple(_violation(source.path, source.line(problem.key), problem) for problem in problems)


def _violation(path: str, line: int, problem: Problem) -> Violation:
    return Violation(path, line, dotted(problem.key), problem.problem, problem.hint)
