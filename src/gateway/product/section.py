"""What every section of product.yaml has in common, and how it states its own rules."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

Key = tuple[str | int, ...]
"""Where a value stands: names of keys, and indices of lists from 0."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A broken rule, before its line is looked up. `key` is relative to who states it."""

    key: Key
    problem: str
    hint: str = ""

    def under(self, parent: Key) -> Problem:
        """Return the same problem, seen from further up."""
        return Problem((*parent, *self.key), self.problem, self.hint)


class Section(BaseModel):
    """A frozen section. Unknown keys are refused; `problems` states its cross-field rules."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_by_alias=True, validate_by_name=True
    )

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong between the fields, each of which is right by itself."""
        return iter(())

    @model_validator(mode="after")
    def _refuse_problems(self) -> Self:
        problems = tuple(self.problems())
        if problems:
            said = "; ".join(f"{problem.key} {problem.problem}" for problem in problems)
            raise PydanticCustomError("problems", "{said}", {"said": said, "problems": problems})
        return self
