"""Why a decision was made, and what came of it: sentences for a page and a terminal. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gateway.report.sentence import Name, Number, Sentence, count
from gateway.report.words import spoken

Told = Mapping[str, Any]
"""A decision, as `gateway decisions ID --json` has it; or a list of them."""

STOOD_IN = {
    "DEADLINE": "there was no time left inside the budget, or the caller's deadline",
    "OVERLOAD": "more work had arrived than the product's share of capacity",
    "MODEL_UNAVAILABLE": "no model was loaded, or the journal could not take its decision",
    "MODEL_ERROR": "the model failed, or gave what is no probability",
}

DONE = {
    "approve": "Approved",
    "step_up": "Asked for proof",
    "review": "Given to an analyst",
    "decline": "Declined",
}

HINDSIGHT = {
    "right": ("right", "good"),
    "wrong": ("wrong", "bad"),
    "learned": ("let through to learn", "moved"),
    "open": ("not known yet", "open"),
    "never": ("never known", "none"),
}
"""What became of a decision: a word, and how it looks."""


def share(value: float) -> Number:
    """Return a share as a number of a sentence."""
    return Number("", value, "share")


def amount(minor: float, currency: str | None, unit: int) -> Number:
    """Return an amount of minor units as a number of a sentence."""
    return Number("", minor / unit, currency or "minor units")


def action_of(told: Told) -> str:
    """Return a decision's action as the lake spells it; empty for a refusal."""
    return str(told.get("action") or "").lower()


def headline(told: Told) -> Sentence:
    """Say what was answered."""
    if told["kind"] != "decision":
        return ("Refused",)
    return (DONE.get(action_of(told), spoken(action_of(told))),)


def where(told: Told) -> Sentence:
    """Say of which product a call was, when, and who answered it."""
    found: Sentence = (Name(told["product"] or "no product"),)
    if told["generation"]:
        found = (*found, ", generation ", Name(str(told["generation"])))
    if told["arrived"]:
        found = (*found, ", ", Name(f"{told['arrived'][:19].replace('T', ' ')} UTC"))
    return (*found, ", worker ", count(told["worker"]))


def why(told: Told) -> Iterator[Sentence]:
    """Yield why a call was answered as it was."""
    if told["kind"] != "decision":
        named = ", ".join(told["fields"]) or "none is named"
        yield ("It was refused with ", Name(told["code"]), "; fields: ", Name(named), ".")
        return
    flags, more = told["flags"], told["why"]
    if told["stand_in"] != "NONE":
        said = STOOD_IN.get(told["stand_in"], spoken(told["stand_in"].lower()))
        if "expired" in flags:
            said = "the caller's own deadline was over when the call arrived"
        yield (f"The model did not decide ({spoken(told['stand_in'].lower())}): {said}. ",)
        yield ("The product's stand-in answered.",)
    else:
        yield from _by_cost(told)
    if "overridden" in flags:
        yield ("An override of the product took the choice from the cheapest action.",)
    propensity = None if more is None else more["propensity"]
    if "explored" in flags:
        how_many: Sentence = (
            (", as ", share(propensity), " of such payments are") if propensity else ()
        )
        yield (
            "It was let through to learn its label",
            *how_many,
            "; by cost it would have been declined.",
        )
    elif propensity is not None and propensity < 1.0 and action_of(told) == "decline":
        yield (share(1 - propensity), " of such payments are let through to learn; this was not.")
    if "near_tie" in flags:
        yield ("It is a near tie: the last bits of the model's arithmetic may have decided.",)


def _by_cost(told: Told) -> Iterator[Sentence]:
    more, p, threshold = told["why"], told["probability"], told["threshold"]
    if p is not None and threshold is None:
        yield ("P(fraud) is ", share(p), "; no probability would have changed the action.")
    elif p is not None:
        side = "below" if p < threshold else "above"
        yield (
            *("P(fraud) is ", share(p), f", {side} the threshold of ", share(threshold)),
            ": on its other side another action is cheaper.",
        )
    costs = {} if more is None else more["expected_costs_minor"]
    if not costs:
        return
    least = min(costs, key=lambda name: costs[name])
    said: Sentence = (f"By cost, {spoken(least)} is expected to be the cheapest",)
    margin, second = told["margin_minor"], more["second_best"]
    if margin is not None and margin >= 0 and second:
        dearer = amount(margin, more["currency"], more["minor_per_major"])
        said = (*said, f"; {spoken(second)}, the second best, costs ", dearer, " more")
    yield (*said, ".")


def who(told: Told) -> Sequence[tuple[str, Sentence]]:
    """Return what decided, as names and values."""
    found: list[tuple[str, Sentence]] = []
    model = told.get("model")
    if model:
        found.append(("model", (Name(f"{model['name']} {model['version']}".strip()),)))
        found.append(("model's sha256", (Name(model["digest"] or "not known"),)))
    if told.get("arm"):
        found.append(("arm", (Name(told["arm"]),)))
    if told["generation"]:
        found.append(("generation", (Name(str(told["generation"])),)))
        found.append(("product's digest", (Name(told["generation_digest"] or "not known"),)))
    if told.get("batch_size"):
        found.append(("in a batch of", (count(told["batch_size"]),)))
    if told["trace_id"]:
        found.append(("trace", (Name(told["trace_id"]),)))
    return found


def since(told: Told) -> Iterator[Sentence]:
    """Yield what labels have said since."""
    later = told["since"]
    if later is None:
        yield ("Labels are in the lake, and it is not known there.",)
        return
    yield (later["says"],)
    counts = later["counts"]
    if counts and counts["fraud"] and counts["lost_minor"] is not None:
        more = told["why"]
        lost = amount(counts["lost_minor"], more["currency"], more["minor_per_major"])
        liable = (", which the ", Name(counts["liable"]), " pays") if counts["liable"] else ()
        yield ("It took ", lost, *liable, ".")


def label(one: Mapping[str, Any]) -> Sentence:
    """Say a label, without its amount."""
    corrects = ", instead of an earlier one" if one["corrects"] else ""
    when = Name((one["reported"] or "no time")[:16].replace("T", " "))
    return (f"{spoken(one['kind'])}, reported ", when, corrects)


def kinds(told: Told) -> Iterator[Sentence]:
    """Yield of a list what the decisions behind a figure are, and how many."""
    several = len(told["kinds"]) > 1
    for one in told["kinds"]:
        if not one["count"] and not one["against"]:
            continue
        what = one["what"] if several or one["what"] != "others" else "decisions"
        said: Sentence = (count(one["count"]), f" {what}")
        if one["shown"]:
            all_ = one["shown"] == one["count"]
            many: Sentence = ("all shown",) if all_ else (count(one["shown"]), " shown")
            said = (*said, "; ", *many, f", {one['order']}")
        yield (*said, ".")


def came(row: Mapping[str, Any], currency: str, unit: int) -> Sentence:
    """Say what labels said of a decision of a list."""
    if row["fraud"]:
        lost = row["lost_minor"]
        said: Sentence = (f"fraud ({spoken(row['label'] or 'reported')})",)
        return said if lost is None else (*said, ", ", amount(lost, currency, unit))
    return (spoken(row["label"]),) if row["label"] else ()


def answered(row: Mapping[str, Any]) -> Sentence:
    """Say the answer of a decision of a list, and what is unusual of it."""
    said = spoken(row["action"] or "?")
    if row["stand_in"]:
        said += f", stood in: {spoken(row['stand_in'])}"
    if row["explored"]:
        said += ", to learn"
    if row["in_time"] is False:
        said += ", late"
    return (said,)
