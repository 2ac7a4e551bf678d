"""Groups of customers, each beside its reference: by one attribute, and by two. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, product

from gateway.evaluate.measures import NOTHING, Measures
from gateway.product.promises import Fairness

BESIDE = " × "
"""Between the two names, and the two values, of a pair: as in `queries/memberships.sql`."""

UNKNOWN = "unknown"
"""The group of those of whom an attribute says nothing: as in `queries/memberships.sql`."""


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """A group beside its reference. `by`: its value of each attribute."""

    by: Mapping[str, str]
    reference: str
    sums: Measures
    theirs: Measures

    @property
    def name(self) -> str:
        """The group, in words."""
        return BESIDE.join(named(attribute, value) for attribute, value in self.by.items())

    @property
    def n(self) -> float:
        """How many decisions the group has."""
        return self.sums.total("n")

    @property
    def reference_n(self) -> float:
        """How many the reference has."""
        return self.theirs.total("n")


def named(attribute: str, value: str) -> str:
    """Return a group in words."""
    return f"{UNKNOWN} {attribute}" if value == UNKNOWN else value


def alone(declared: Fairness, groups: Mapping[str, Measures]) -> Iterator[Member]:
    """Yield each attribute's groups but the reference."""
    for attribute, about in declared.attributes.items():
        ours = values(groups, attribute)
        theirs = ours.pop(about.reference, NOTHING)
        for value, sums in ours.items():
            yield Member({attribute: value}, about.reference, sums, theirs)


def crossed(declared: Fairness, groups: Mapping[str, Measures]) -> Iterator[Member]:
    """Yield each two attributes' groups but that of both references; attributes by name."""
    for one, other in combinations(sorted(declared.attributes), 2):
        ours = values(groups, f"{one}{BESIDE}{other}")
        both = (declared.attributes[name].reference for name in (one, other))
        reference = BESIDE.join(both)
        theirs = ours.pop(reference, NOTHING)
        for first, second in product(values(groups, one), values(groups, other)):
            sums = ours.get(f"{first}{BESIDE}{second}")
            if sums is not None:
                yield Member({one: first, other: second}, reference, sums, theirs)


def values(groups: Mapping[str, Measures], names: str) -> dict[str, Measures]:
    """Return the groups of an attribute, or of a pair of them, by value."""
    return {
        part.removeprefix(f"{names}="): sums
        for part, sums in groups.items()
        if part.startswith(f"{names}=")
    }
