"""Who answers for which figure: the roles of product.yaml's `owners`.

The first one named answers for it; the others need it for their work.
"""

from __future__ import annotations

from gateway.report.entries import Line

OWNERS = ("product", "operations", "engineering", "science")

_OF_SLI = {
    "decided_within_budget": ("engineering", "operations", "product"),
    "scored_in_path": ("engineering", "operations", "product"),
    "contacted_within": ("operations", "product"),
    "customer_loss": ("product",),
}
_OF_METRIC = {
    "step_up_success_rate": ("operations", "product"),
    "review_load": ("operations", "product"),
    "false_positive_rate": ("science", "product"),
    "insult_rate": ("science", "product"),
    "value_detection_rate": ("science", "product"),
    "savings": ("product", "science"),
    "miscalibration_cost": ("science", "product"),
}
_OF_SECTION = {
    "goals": ("product", "science"),
    "money": ("product", "science"),
    "fairness": ("product", "science"),
    "calibration": ("science",),
}


def owners_of(line: Line) -> tuple[str, ...]:
    """Return the roles that a line concerns, who answers for it first."""
    if line.kind == "promise":
        return _OF_SLI.get(str(line.more.get("sli")), ("product",))
    if line.section == "drift":
        # What callers send is theirs to mend, what the model makes of it is science's.
        sent = line.by.keys() & {"feature", "channel", "category", "watch"}
        return ("science", "engineering") if sent else ("science",)
    if line.section in ("goals", "money", "calibration"):
        return _OF_METRIC.get(line.metric, _OF_SECTION[line.section])
    return _OF_SECTION[line.section]


def concerns(line: Line, owner: str | None) -> bool:
    """Return whether an owner needs a line; None: everybody."""
    return owner is None or owner in owners_of(line)


OF_LABELS = ("science", "product")
"""Who needs to know how much is known, and what came of hypotheses; the first answers for them."""
