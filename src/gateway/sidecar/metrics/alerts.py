"""Promises -> Prometheus rules: how fast each error budget burns. Pure.

Multi-window, multi-burn-rate alerts as in the Site Reliability Workbook, chapter 5: a page where
2 % of a window's budget goes in an hour, or 5 % in six; a ticket where 10 % goes in a day, or in
three. Each needs a short window, too, so that it ends when the burning does.

`rate` sees nothing of a series that appears with its first event: the first stand-ins of a kind, or
the only refused change. What a series has grown by that the window's begin has not seen is at least
what it says: these counters begin at 0.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.product import Product, Promise

BURNS = (
    ("page", 0.02, "1h", 1.0, "5m"),
    ("page", 0.05, "6h", 6.0, "30m"),
    ("ticket", 0.10, "1d", 24.0, "2h"),
    ("ticket", 0.10, "3d", 72.0, "6h"),
)
"""Severity; share of the window's budget; long window, in hours too; short window."""

LAG_S = 30
"""A consumer that is so far behind is said to be."""

OLD = 4
"""An evaluation that is older than so many intervals is said to be old."""

_BREAKS: dict[str, tuple[str, tuple[str, ...]]] = {
    "decided_within_budget": ("gateway_late_total", ()),
    "scored_in_path": ("gateway_decisions_total", ('stand_in!="none"',)),
}
_ALL = "gateway_decisions_total"


@dataclass(frozen=True, slots=True)
class Unmeasured:
    """A promise that counters cannot tell of: it needs labels, so the evaluator measures it."""

    product: str
    promise: str
    sli: str


def rules_of(products: Sequence[Product]) -> tuple[dict[str, Any], tuple[Unmeasured, ...]]:
    """Return the content of a Prometheus rule file, and the promises that it says nothing of."""
    unmeasured = tuple(
        Unmeasured(product.name, promise.id, promise.sli)
        for product in products
        for promise in product.promises
        if not is_measured(promise)
    )
    groups = [
        {"name": f"gateway-{product.name}", "rules": list(_of_product(product))}
        for product in products
    ]
    groups = [group for group in groups if group["rules"]]
    return {"groups": [*groups, {"name": "gateway", "rules": list(_of_gateway())}]}, unmeasured


def is_measured(promise: Promise) -> bool:
    """Say whether metrics can tell of a promise."""
    return promise.sli in _BREAKS


def broken_share(product: Product, promise: Promise, window: str, *more: str) -> str:
    """Return the expression of the share of a window's calls that broke a promise.

    It has no value where none did. `more` are further matchers of labels.
    """
    bad, every = _series(product, promise, *more)
    return f"(sum({grown(bad, window)}) / sum({grown(every, window)}))"


def grown(series: str, window: str) -> str:
    """Return the expression of what each series of a counter has grown by within a window.

    Where Prometheus itself was away at the window's begin, that is all that the series has.
    """
    seen = f"increase({series}[{window}])"
    return f"(({series} unless {series} offset {window}) > {seen} or {seen})"


def burn_limit(promise: Promise, share: float, hours: float) -> float:
    """Return how many times as fast as its budget a promise burns that uses a share in so long."""
    return share * promise.window.total_seconds() / 3600 / hours


def as_yaml(rules: dict[str, Any], unmeasured: Sequence[Unmeasured]) -> str:
    """Return the rules as a file: JSON is YAML, and says by itself how strings are quoted."""
    notes = "".join(
        f"# {one.product}: {one.promise} ({one.sli}) needs labels: GatewayGoalMissed and "
        "GatewayErrorBudgetUsedUp tell of it.\n"
        for one in unmeasured
    )
    return f"# Written by `gateway alerts`; write it again when a promise changes.\n{notes}" + (
        json.dumps(rules, indent=2, ensure_ascii=False) + "\n"
    )


def _of_product(product: Product) -> Iterator[dict[str, Any]]:
    for promise in product.promises:
        if not is_measured(promise):
            continue
        if promise.objective >= 1.0:
            yield _never(product, promise)
            continue
        for severity, share, window, hours, short in BURNS:
            yield _burning(product, promise, severity, share, window, hours, short)


def _burning(
    product: Product,
    promise: Promise,
    severity: str,
    share: float,
    window: str,
    hours: float,
    short: str,
) -> dict[str, Any]:
    budget = 1.0 - promise.objective
    factor = burn_limit(promise, share, hours)
    limit = f"{factor:.6g} * {budget:.6g}"
    long, brief = (broken_share(product, promise, one) for one in (window, short))
    return {
        "alert": "GatewayErrorBudgetBurns",
        "expr": f"{long} > {limit} and {brief} > {limit}",
        "labels": _labels(product, promise, severity) | {"window": window},
        "annotations": {
            "summary": f"{product.name}: {share:.0%} of the budget of {promise.id} in {window}",
            "description": f"{promise.says} Promised is {promise.objective:g}; what breaks it "
            f"comes {factor:.3g} times as fast as the budget allows.",
        },
    }


def _never(product: Product, promise: Promise) -> dict[str, Any]:
    bad, _ = _series(product, promise)
    return {
        "alert": "GatewayPromiseBroken",
        "expr": f"sum({grown(bad, '5m')}) > 0",
        "labels": _labels(product, promise, "page"),
        "annotations": {
            "summary": f"{product.name}: {promise.id} is broken, and was promised always",
            "description": promise.says,
        },
    }


def _series(product: Product, promise: Promise, *more: str) -> tuple[str, str]:
    """Return the selectors of the calls that broke a promise, and of all."""
    metric, which = _BREAKS[promise.sli]
    own = (f"product={json.dumps(product.name)}", *more)
    return f"{metric}{{{','.join((*own, *which))}}}", f"{_ALL}{{{','.join(own)}}}"


def _labels(product: Product, promise: Promise, severity: str) -> dict[str, str]:
    return {
        "severity": severity,
        "product": product.name,
        "promise": promise.id,
        "owner": product.owners.operations or "",
    }


def _of_gateway() -> Iterator[dict[str, Any]]:
    """Yield what concerns everybody: nothing lost, nothing behind, nothing refused for long, and
    nothing missed as evaluated last."""
    age, interval = "gateway_evaluation_age_seconds", "gateway_evaluation_interval_seconds"
    for alert, expr, hold, severity, summary in (
        (
            "GatewayRecordsLost",
            f"sum by (reason) ({grown('gateway_lost_records_total', '10m')}) > 0",
            "0m",
            "page",
            "Records are lost: {{ $labels.reason }}",
        ),
        (
            "GatewayShedsCalls",
            f"sum({grown('gateway_shed_total', '5m')}) > 0",
            "0m",
            "page",
            "Calls are turned away unread",
        ),
        (
            "GatewayConsumerBehind",
            f"max by (consumer) (gateway_consumer_lag_seconds) > {LAG_S}",
            "5m",
            "ticket",
            "{{ $labels.consumer }} is behind the journal",
        ),
        (
            "GatewayChangeRefused",
            f"sum by (product) ({grown('gateway_rejected_changes_total', '1h')}) > 0",
            "0m",
            "ticket",
            "{{ $labels.product }}: a change of its folder is not served",
        ),
        (
            "GatewayGoalMissed",
            f"max by (product, metric) ({_verdicts('goals', 'missed')}) > 0",
            "0m",
            "ticket",
            "{{ $labels.product }}: {{ $labels.metric }} is missed, by its whole interval",
        ),
        (
            "GatewayErrorBudgetUsedUp",
            "min by (product, promise) (gateway_error_budget_left_ratio) <= 0",
            "0m",
            "ticket",
            "{{ $labels.product }}: nothing is left of the error budget of {{ $labels.promise }}",
        ),
        (
            "GatewayFairnessBreach",
            f"max by (product, metric) ({_verdicts('fairness', 'breach')}) > 0",
            "0m",
            "ticket",
            "{{ $labels.product }}: groups of customers are outside the limits of "
            "{{ $labels.metric }}: gateway evaluate says which",
        ),
        (
            "GatewayHypothesisInvalid",
            "max by (product, hypothesis, because) "
            '(gateway_hypothesis_verdict{verdict="invalid"}) > 0',
            "0m",
            "ticket",
            "{{ $labels.product }}: what comes of {{ $labels.hypothesis }} is no result, "
            "{{ $labels.because }}: gateway hypothesis show says more",
        ),
        (
            "GatewayGuardrailBroken",
            "max by (product, hypothesis) "
            '(gateway_hypothesis_verdict{verdict="stop",because="guardrail_broken"}) > 0',
            "0m",
            "ticket",
            "{{ $labels.product }}: {{ $labels.hypothesis }} breaks a guardrail for sure: take its "
            "canary back, then gateway hypothesis stop",
        ),
        (
            "GatewayEvaluationOld",
            f"{age} > {OLD} * {interval} or (gateway_evaluation_failed > 0 unless {age})",
            "30m",
            "ticket",
            "The lake has not been evaluated for long: the sidecar's log says why",
        ),
    ):
        yield {
            "alert": alert,
            "expr": expr,
            "for": hold,
            "labels": {"severity": severity},
            "annotations": {"summary": summary},
        }


def _verdicts(section: str, verdict: str) -> str:
    return f'gateway_evaluation_verdicts{{section="{section}",verdict="{verdict}"}}'
