"""Plain content -> sections, or problems in words: pydantic does the one, this the other."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from pydantic import ValidationError, create_model
from pydantic_core import ErrorDetails

from gateway.product.keys import entry_at, names_at
from gateway.product.product import Product
from gateway.product.section import Key, Problem, Section
from gateway.product.suggest import shown, suggest


def validate(content: object) -> tuple[dict[str, Any], tuple[Problem, ...]]:
    """Return the top-level sections that are right in themselves, and all problems.

    Sections go by the names of Product's fields; those left out have their defaults.
    """
    if not isinstance(content, dict):
        problem = f"is {shown(content)}, must be a mapping that starts with `product:`."
        return {}, (Problem(("file",), problem),)
    alone = _alone()
    sections: dict[str, Any] = {}
    problems = [_unknown((key,)) for key in content if key not in alone]
    for key, (name, model) in alone.items():
        given = {key: content[key]} if key in content else {}
        try:
            section = model.model_validate(given, by_alias=True, by_name=False)
        except ValidationError as error:
            for details in error.errors(include_url=False):
                problems.extend(_in_words(details))
        else:
            sections[name] = getattr(section, name)
    return sections, tuple(problems)


@cache
def _alone() -> Mapping[str, tuple[str, type[Section]]]:
    """Return a model for each top-level key alone, so that one broken section hides no other."""
    models: dict[str, tuple[str, type[Section]]] = {}
    for name, field in Product.model_fields.items():
        definition: Any = {name: (field.annotation, field)}
        models[field.alias or name] = name, create_model(name, __base__=Section, **definition)
    return models


def _in_words(error: ErrorDetails) -> Iterator[Problem]:
    key: Key = tuple(part for part in error["loc"] if part != "[key]")
    context = error.get("ctx", {})
    value = shown(error["input"])
    match error["type"]:
        case "problems":
            for problem in context["problems"]:
                yield problem.under(key)
        case "rule":
            yield Problem(key, f"is {value}, must be {context['says']}.", context["hint"])
        case "missing":
            yield _missing(key)
        case "extra_forbidden":
            yield _unknown(key)
        case "literal_error":
            words = re.findall(r"'([^']*)'", context["expected"])
            hint = suggest(str(error["input"]), words)
            did_you_mean = hint if hint.startswith("Did") else ""
            yield Problem(key, f"is {value}, must be one of {', '.join(words)}.", did_you_mean)
        case "tuple_type":
            yield Problem(key, f"is {value}, must be a list.", _brackets(error["input"]))
        case "too_short":
            yield Problem(key, "is an empty list, must have at least one item.")
        case "default_factory_not_called":
            return  # another key of the same section is wrong, and says so itself
        case "model_type" | "dict_type" | "model_attributes_type":
            yield Problem(key, f"is {value}, must be a mapping.", _keys_hint(key))
        case _:
            yield Problem(key, f"is {value}: {error['msg']}.")


def _unknown(key: Key) -> Problem:
    return Problem(key, "is no known key.", suggest(str(key[-1]), names_at(key[:-1])))


def _missing(key: Key) -> Problem:
    entry = entry_at(key)
    return Problem(key, "is missing.", f"Add it: {entry.field.description}" if entry else "")


def _brackets(value: object) -> str:
    word = value if isinstance(value, str) else shown(value)
    one_word = isinstance(value, str | int | float) and word.isprintable() and len(word) <= 40
    return f"Write [{word}]." if one_word else ""


def _keys_hint(key: Key) -> str:
    names = names_at(key)
    return f"Its keys: {', '.join(names)}." if names else ""
