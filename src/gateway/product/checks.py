"""Rules between the sections of a product.yaml.

A check names the sections it reads as its parameters, and runs when all of them are right
in themselves: what is wrong in one section hides nothing in the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from inspect import signature
from itertools import combinations
from typing import Any

from gateway.product.action import Action
from gateway.product.costs import Costs
from gateway.product.features import COLUMNS_MAX, Feature, columns_of
from gateway.product.product import CalendarEvent, Latency, Override
from gateway.product.promises import Fairness, Hypothesis, Promise
from gateway.product.section import Key, Problem
from gateway.product.stand_in import StandIns
from gateway.product.suggest import suggest

Actions = tuple[Action, ...]

_REQUEST_SEGMENTS = ("channel", "currency", "category")


def check(sections: Mapping[str, Any]) -> Iterator[Problem]:
    """Run every check whose sections are all there; they go by Product's field names."""
    for rule in CHECKS:
        needs = signature(rule).parameters
        if needs.keys() <= sections.keys():
            yield from rule(**{name: sections[name] for name in needs})


def actions_are_usable(actions: Actions) -> Iterator[Problem]:
    """Each action once, and approve among them."""
    yield from _unique("actions", [action.spelling for action in actions], ())
    if Action.APPROVE not in actions:
        yield Problem(("actions",), "has no approve.", "Add approve: nothing else costs nothing.")


def actions_have_costs(actions: Actions, costs: Costs) -> Iterator[Problem]:
    """A step-up and a review have prices of their own."""
    for action, price in ((Action.STEP_UP, costs.step_up), (Action.REVIEW, costs.review)):
        if action in actions and price is None:
            name = action.spelling
            yield Problem(
                ("costs", name),
                f"is missing: actions has {name}.",
                f"Add its costs, or take {name} out of actions.",
            )


def stand_ins_are_available(stand_in: StandIns, actions: Actions) -> Iterator[Problem]:
    """Stand-ins choose from the product's actions."""
    for reason, bands in stand_in.by_reason().items():
        for i, band in enumerate(bands):
            key = ("stand_in", reason.name.lower(), i, "action")
            yield from _available(key, band.action, actions)


def stand_ins_know_categories(stand_in: StandIns, costs: Costs) -> Iterator[Problem]:
    """A band's categories stand in costs.categories."""
    for reason, bands in stand_in.by_reason().items():
        for i, band in enumerate(bands):
            for j, category in enumerate(band.categories):
                key = ("stand_in", reason.name.lower(), i, "categories", j)
                yield from _known_category(key, category, costs)


def overrides_are_available(overrides: tuple[Override, ...], actions: Actions) -> Iterator[Problem]:
    """An override is for one of the actions, and there must be a less severe one below it."""
    for i, override in enumerate(overrides):
        key = ("overrides", i, "action")
        yield from _available(key, override.action, actions)
        if actions and override.action is min(actions):
            yield Problem(
                key,
                f"is {override.action.spelling}, the least severe action.",
                "What is not more severe is taken below the threshold anyway.",
            )


def overrides_know_categories(overrides: tuple[Override, ...], costs: Costs) -> Iterator[Problem]:
    """An override's category stands in costs.categories."""
    for i, override in enumerate(overrides):
        if override.category is not None:
            yield from _known_category(("overrides", i, "category"), override.category, costs)


def overrides_rise(overrides: tuple[Override, ...]) -> Iterator[Problem]:
    """In each category, thresholds rise with severity; an override for all counts in each."""
    for (i, one), (j, other) in combinations(enumerate(overrides), 2):
        if None not in (one.category, other.category) and one.category != other.category:
            continue
        if one.action == other.action:
            yield Problem(
                ("overrides", j, "action"),
                f"is {other.action.spelling}, which overrides[{i}] sets for the same payments.",
                "Keep one of them.",
            )
            continue
        milder, severer = sorted((one, other), key=lambda override: override.action)
        if severer.at_least < milder.at_least:
            yield Problem(
                ("overrides", i if severer is one else j, "at_least"),
                f"is {severer.at_least:g}, must not be below {milder.at_least:g} "
                f"of the less severe {milder.action.spelling}.",
            )


def contact_has_its_time(promises: tuple[Promise, ...], latency: Latency) -> Iterator[Problem]:
    """contacted_within counts against latency.contact_within_s."""
    for i, promise in enumerate(promises):
        if promise.sli == "contacted_within" and latency.contact_within_s is None:
            yield Problem(
                ("promises", i, "sli"),
                "is contacted_within, but latency.contact_within_s is missing.",
                "Add latency.contact_within_s, such as 60.",
            )


def groups_are_no_features(
    fairness: Fairness | None, features: tuple[Feature, ...]
) -> Iterator[Problem]:
    """A group attribute is never fed to the model."""
    attributes = () if fairness is None else tuple(fairness.attributes)
    for i, feature in enumerate(features):
        if feature.name in attributes:
            yield Problem(
                ("features", i, "name"),
                f"is {feature.name!r}, a group attribute of fairness.attributes.",
                "Groups are compared, never fed to the model: take it out of one of the two.",
            )


def segments_exist(watch: tuple[str, ...], features: tuple[Feature, ...]) -> Iterator[Problem]:
    """A watched segment is a field of the request, or a feature."""
    segments = (*_REQUEST_SEGMENTS, *(feature.name for feature in features))
    yield from _unique("watch", watch, ())
    for i, segment in enumerate(watch):
        if segment not in segments:
            hint = suggest(segment, segments)
            yield Problem(
                ("watch", i), f"is {segment!r}, must be a feature or a request's field.", hint
            )


def features_are_unique(features: tuple[Feature, ...]) -> Iterator[Problem]:
    """Names of features are unique, also of those that repeat, and there are not too many."""
    count = sum(feature.repeat or 1 for feature in features)
    if count > COLUMNS_MAX:
        yield Problem(("features",), f"are {count}, must be {COLUMNS_MAX} or fewer.")
        return
    yield from _unique("features", [feature.name for feature in features], ("name",))
    repeated = {column.name for column in columns_of(f for f in features if f.repeat)}
    for i, feature in enumerate(features):
        if feature.repeat is None and feature.name in repeated:
            yield Problem(
                ("features", i, "name"), f"is {feature.name!r}, as one of a repeated feature."
            )


def promises_are_unique(promises: tuple[Promise, ...]) -> Iterator[Problem]:
    """Ids of promises are unique."""
    yield from _unique("promises", [promise.id for promise in promises], ("id",))


def events_are_unique(calendar: tuple[CalendarEvent, ...]) -> Iterator[Problem]:
    """Names of events are unique."""
    yield from _unique("calendar", [event.event for event in calendar], ("event",))


def hypotheses_are_unique(hypotheses: tuple[Hypothesis, ...]) -> Iterator[Problem]:
    """Ids of hypotheses are unique."""
    yield from _unique("hypotheses", [hypothesis.id for hypothesis in hypotheses], ("id",))


CHECKS: tuple[Callable[..., Iterator[Problem]], ...] = (
    actions_are_usable,
    actions_have_costs,
    stand_ins_are_available,
    stand_ins_know_categories,
    overrides_are_available,
    overrides_know_categories,
    overrides_rise,
    contact_has_its_time,
    groups_are_no_features,
    segments_exist,
    features_are_unique,
    promises_are_unique,
    events_are_unique,
    hypotheses_are_unique,
)


def _unique(section: str, names: list[str] | tuple[str, ...], below: Key) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for i, name in enumerate(names):
        if first.setdefault(name, i) != i:
            said = f"is {name!r}, as {section}[{first[name]}] already."
            yield Problem((section, i, *below), said, "Keep one, or rename it.")


def _available(key: Key, action: Action, actions: Actions) -> Iterator[Problem]:
    if action not in actions:
        there = ", ".join(available.spelling for available in sorted(actions))
        yield Problem(key, f"is {action.spelling}, must be one of the product's actions: {there}.")


def _known_category(key: Key, category: str, costs: Costs) -> Iterator[Problem]:
    if category not in costs.categories:
        hint = suggest(category, costs.categories)
        yield Problem(key, f"is {category!r}, must be one of costs.categories.", hint)
