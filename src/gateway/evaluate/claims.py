"""What came of hypotheses that were started, as a lake tells it. Reads through an engine; pure.

Whoever looks is told the same: `gateway hypothesis show`, an evaluation, the report and the gauges
have it from here. One that cannot be judged is told with what is wrong, and harms no other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from gateway.errors import GatewayError, LakeError
from gateway.evaluate.arms import incomparable, observed
from gateway.evaluate.engine import Engine
from gateway.evaluate.hypotheses import (
    WORSE,
    Look,
    declared_of,
    digest,
    models_digest,
    outcome,
    read_again,
)
from gateway.evaluate.terms import Terms
from gateway.evaluate.view import View

BECAUSE = {
    "declaration_changed": "the declaration, or a model of an arm, is not what it was at the start",
    "sample_ratio_mismatch": "the arms did not get the shares that were declared",
    "guardrail_broken": "a guardrail is broken for sure",
    "goal_not_reached": "the change is smaller for sure than what matters",
    "goal_reached": "the metric is better for sure, and no guardrail is worse than its margin",
    "days_over": "max_days are over, and nothing is sure",
    "too_few_days": "too few days are mature",
    "not_sure": "nothing is sure yet",
}
"""Why a verdict is what it is, in words."""

_BPS = frozenset({"fraud_loss_bps"})


@dataclass(frozen=True, slots=True)
class Started:
    """A hypothesis as it was started, and what is kept of it.

    `declared`: all that it said, as JSON; `digest`: of that; `models`: of what was declared of its
    arms' models. `started`, `stopped`: ISO 8601. `looks`: those that were kept, of the first days
    on. `outcome`: what was known when it was stopped.
    """

    product: str
    id: str
    digest: str
    declared: Mapping[str, Any]
    models: str
    started: str
    looks: Sequence[Mapping[str, Any]] = ()
    stopped: str | None = None
    outcome: Mapping[str, Any] | None = None


def hypotheses(
    engine: Engine, terms: Sequence[Terms], some: Iterable[Started], as_of: datetime
) -> Iterator[Mapping[str, Any]]:
    """Yield what came of each that was started by a time, as JSON.

    The engine has counted what was known then. One that cannot be judged has an `error`.
    """
    views = {one.name: View(engine, one, as_of.astimezone(UTC).date()) for one in terms}
    for one in some:
        try:
            if _time(one, one.started) > as_of:
                continue
            known = one.outcome if is_over(one, as_of) else None
            come = came(views.get(one.product), one) if known is None else known
            yield told(one, come, as_of)
        except GatewayError as refusal:
            yield {"product": one.product, "id": one.id, "error": f"{refusal}"}


def is_over(one: Started, as_of: datetime) -> bool:
    """Return whether a hypothesis had been stopped by a time. Raises LakeError."""
    return one.stopped is not None and _time(one, one.stopped) <= as_of


def came(view: View | None, one: Started) -> Mapping[str, Any]:
    """Return what came of a hypothesis by a view's day, as JSON. `view`: of its product, if known.

    Raises:
        LakeError: it cannot be judged, or the lake cannot be read.
    """
    try:
        frozen = read_again(one.declared)
        declared = declared_of(frozen)
        kept = [Look.of(look) for look in one.looks]
        unknown = incomparable(declared)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise _not_what_was_started(one) from None
    if view is None:
        raise LakeError("is no product of the lake any more", subject=one.product)
    if unknown:
        raise LakeError(f"arms cannot be compared by {', '.join(unknown)}", subject=one.id)
    yesterday = view.today - timedelta(days=1)
    mature = yesterday - (frozen.maturity or view.terms.maturity)
    first = first_day(one)
    seen = observed(view, declared, frozen.unit, first, yesterday, mature)
    is_as_frozen = digest(frozen) == one.digest and not is_changed(one, view.terms)
    return outcome(declared, seen, is_as_frozen=is_as_frozen, kept=kept).as_object()


def is_changed(one: Started, terms: Terms | None) -> bool:
    """Say whether a product declares a hypothesis, or its arms' models, otherwise than it did."""
    declares = () if terms is None else terms.product.hypotheses
    now = next((other for other in declares if other.id == one.id), None)
    if terms is None or now is None or digest(now) != one.digest:
        return True
    return models_digest(terms.product.models, tuple(now.arms)) != one.models


def first_day(one: Started) -> date:
    """Return the first whole day (UTC). Raises LakeError."""
    return _time(one, one.started).date() + timedelta(days=1)


def told(one: Started, come: Mapping[str, Any], as_of: datetime) -> dict[str, Any]:
    """Return a hypothesis, and what came of it, as JSON shows both. Raises LakeError."""
    try:
        metric = str(one.declared["metric"])
        return {
            "product": one.product,
            "id": one.id,
            "claim": one.declared["claim"],
            "metric": metric,
            "unit": unit(metric),
            "arms": {str(arm): float(share) for arm, share in one.declared["arms"]},
            "digest": one.digest,
            "started": one.started,
            "stopped": one.stopped if is_over(one, as_of) else None,
            "verdict": come["verdict"],
            "because": come["because"],
            "says": f"{BECAUSE[come['because']]}",
            "day": come["day"],
            "impact": come["impact"],
            "guardrails": list(_guardrails(one, come)),
            "looks": come["looks"],
        }
    except (ValueError, TypeError, KeyError, AttributeError, IndexError):
        raise _not_what_was_started(one) from None


def unit(metric: str) -> str:
    """Return the unit of a metric that arms are compared by."""
    return "bps" if metric in _BPS else "share"


def _guardrails(one: Started, come: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield each guardrail with what came of it when the verdict fell, or by now."""
    looks = come["looks"]
    decided = next((look for look in looks if look["day"] == come["day"]), (looks or [None])[-1])
    for place, held in enumerate(one.declared["guardrails"]):
        value, low, high = decided["guardrails"][place] if decided else (None, None, None)
        metric, margin = held["metric"], float(held["margin"])
        worst, best = (high, low) if WORSE[metric] > 0 else (_less(low), _less(high))
        broken = best is not None and best > margin
        yield {
            "metric": metric,
            "unit": unit(metric),
            "margin": margin,
            "value": value,
            "interval": [low, high],
            "is_kept": False if broken else True if worst is not None and worst < margin else None,
        }


def _less(end: float | None) -> float | None:
    return None if end is None else -end


def _time(one: Started, text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, TypeError):
        raise _not_what_was_started(one) from None


def _not_what_was_started(one: Started) -> LakeError:
    return LakeError("is not what was started", subject=one.id, hint="Put back the lake's record.")
