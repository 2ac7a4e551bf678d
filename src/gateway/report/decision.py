"""One decision as a page: why, where its time went, and what labels have said since. Pure.

What a caller sent is not on it: no feature, no subject, no group, no amount but those of costs and
of labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from gateway.report.charts import badge_of
from gateway.report.figures import table
from gateway.report.frame import page, paragraphs
from gateway.report.reasons import (
    HINDSIGHT,
    Told,
    action_of,
    amount,
    headline,
    label,
    share,
    since,
    where,
    who,
    why,
)
from gateway.report.sentence import Name, Sentence, html
from gateway.report.waterfall import nearby, waterfall
from gateway.report.words import spoken


def decision_html(told: Told) -> str:
    """Return the page of a decision or a refusal, as `gateway decisions ID --json` has it."""
    below: Sentence = (Name(told["id"]), ", ", *where(told))
    return page(f"Decision {told['id']}", headline(told), below, _parts(told))


def _parts(told: Told) -> Iterator[str]:
    yield f"<h2>Why</h2>{paragraphs(why(told))}"
    if told["kind"] == "decision":
        yield from _costs(told)
        yield f"<h2>What came of it</h2>{_since(told)}"
    yield "<h2>Where its time went</h2>"
    yield _drawn(told)
    if told.get("shadow"):
        yield "<h2>What other arms made of it</h2>"
        yield table("Other arms", ("arm", "P(fraud)", "action", "agreement"), [*_shadows(told)])
    yield "<h2>What decided</h2><dl>"
    for name, value in who(told):
        yield f"<dt>{escape(name)}</dt><dd>{html(value)}</dd>"
    yield "</dl>"


def _costs(told: Told) -> Iterator[str]:
    more = told["why"]
    costs = {} if more is None else more["expected_costs_minor"]
    if not costs:
        return
    least = min(costs.values())
    rows = []
    for name, minor in sorted(costs.items(), key=lambda one: one[1]):
        marks = [
            *(["the least"] if minor == least else []),
            *(["second best"] if name == more["second_best"] and minor > least else []),
            *(["chosen"] if name == action_of(told) else []),
        ]
        cost = html((amount(minor, more["currency"], more["minor_per_major"]),))
        rows.append((spoken(name), cost, ", ".join(marks)))
    yield table("Expected costs", ("action", "expected cost", "which is"), rows)


def _since(told: Told) -> str:
    later = told["since"]
    if later is None:
        return paragraphs(since(told))
    word, standing = HINDSIGHT[later["right"]]
    said = " ".join(html(one) for one in since(told))
    found = f"<p>{badge_of(word, standing)}{said}</p>"
    if later["labels"]:
        labels = "".join(f"<li>{html(label(one))}</li>" for one in later["labels"])
        found += f"<ul>{labels}</ul>"
    return found


def _drawn(told: Told) -> str:
    notes = [*nearby(told)]
    if told["late"]:
        notes.insert(0, "The answer left behind its deadline.")
    if told["reply"] != "left":
        notes.insert(0, f"The reply: {told['reply']}.")
    around = "".join(f"<p>{escape(one)}</p>" for one in notes)
    dashed = '<p class="quiet">The dashed line is the deadline.</p>'
    return f"<figure>{waterfall(told)}</figure>{dashed if told['budget_us'] else ''}{around}"


def _shadows(told: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for one in told["shadow"]:
        p = "" if one["probability"] is None else html((share(one["probability"]),))
        agrees = "agrees" if one["agrees"] else "disagrees"
        yield html((Name(one["arm"]),)), p, spoken(one["action"].lower()), agrees
