"""Promises and budgets of products -> what a dashboard shows of them. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from gateway.product import Product, Promise
from gateway.sidecar.metrics.alerts import (
    BURNS,
    LAG_S,
    OLD,
    broken_share,
    burn_limit,
    grown,
    is_measured,
)
from gateway.sidecar.metrics.grafana import (
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    YELLOW,
    Note,
    Panel,
    Query,
    Row,
    dashboard,
)

UID = "decision-gateway"

_SHOWN = 'product=~"$product"'
_OR_UNKNOWN = 'product=~"$product|unknown"'
_CALLS = 'rpc_response_status_code="OK",gateway_product=~"$product"'

_ACTIONS = (
    ("^approve$", BLUE),
    ("^step_up$", SKY),
    ("^review$", YELLOW),
    ("^decline$", VERMILLION),
)
_REASONS = (
    ("^deadline$", VERMILLION),
    ("^overload$", ORANGE),
    ("^model_unavailable$", PURPLE),
    ("^model_error$", YELLOW),
)
_STAGES = (
    ("^admit$", SKY),
    ("^encode$", BLUE),
    ("^infer$", ORANGE),
    ("^decide$", GREEN),
    ("^record$", YELLOW),
    ("^reply$", PURPLE),
)
_HIGH = (("p50", 0.5, BLUE), ("p99", 0.99, ORANGE), ("p99.9", 0.999, VERMILLION))
_QUANTILES = tuple((f"{name}$", colour) for name, _, colour in _HIGH)


def dashboard_of(products: Sequence[Product]) -> dict[str, Any]:
    """Return a dashboard in Grafana's JSON model."""
    promises = [*_promises(products)]
    return dashboard(
        UID,
        "Decision gateway",
        "Is every promise kept, what is decided, and where does the time go. "
        "Written by `gateway alerts --grafana`; write it again when a promise or a budget changes.",
        [
            *([Row("Promises", promises)] if promises else []),
            Row("Decisions", _DECISIONS),
            Row("Time", [_latency(products), *_TIME]),
            Row("Models", _MODELS),
            Row("Evaluation", _EVALUATION),
            Row("The gateway itself", _ITSELF),
        ],
        _NOTES,
        "label_values(gateway_decisions_total, product)",
    )


def _promises(products: Sequence[Product]) -> Iterator[Panel]:
    measured = [
        (product, promise)
        for product in products
        for promise in product.promises
        if is_measured(promise) and promise.objective < 1.0
    ]
    if not measured:
        return
    yield Panel(
        "Error budget left",
        "What is left of what each promise allows to fail in its window. At 0 % the promise is "
        "broken for this window; below, by how much.",
        "percentunit",
        [
            Query(f"1 - {_burned(*one, _window(one[1]))}", f"{one[0].name}: {one[1].id}")
            for one in measured
        ],
        kind="stat",
        steps=((None, VERMILLION), (0.25, ORANGE), (0.5, BLUE)),
    )
    limits = {
        f"page ({_window(promise)})": burn_limit(promise, BURNS[0][1], BURNS[0][3])
        for _, promise in measured
    }
    yield Panel(
        "Burn rate",
        "How many times as fast as its window allows each promise's budget went in the last hour. "
        "At 1 it lasts just as long as the window; above the dashed line somebody is paged.",
        "suffix:x",
        [
            *(Query(_burned(*one, "1h"), f"{one[0].name}: {one[1].id}") for one in measured),
            *(Query(f"vector({limit:.6g})", name, dashed=True) for name, limit in limits.items()),
        ],
    )
    yield Panel(
        "Kept in the last hour",
        "Share of calls that kept each promise, beside what was promised (dashed).",
        "percentunit",
        [
            *(
                Query(
                    f"1 - {_share(*one, '1h')}",
                    f"{one[0].name}: {one[1].id}",
                )
                for one in measured
            ),
            *(
                Query(_shown(product, promise.objective), _promised(product, promise), dashed=True)
                for product, promise in measured
            ),
        ],
        from_zero=False,
    )


def _share(product: Product, promise: Promise, window: str) -> str:
    """Return the share that broke the promise: 0 where none did, nothing where nobody asked."""
    broken = broken_share(product, promise, window, _SHOWN)
    return f"({broken} or {_shown(product, 0.0)})"


def _burned(product: Product, promise: Promise, window: str) -> str:
    return f"{_share(product, promise, window)} / {1.0 - promise.objective:.6g}"


def _shown(product: Product, value: float) -> str:
    """Return a constant that is there where its product is, and is chosen."""
    series = f"gateway_decisions_total{{product={json.dumps(product.name)},{_SHOWN}}}"
    return f"(0 * sum({series}) + {value:.6g})"


def _promised(product: Product, promise: Promise) -> str:
    return f"{product.name}: {promise.id}, promised"


def _window(promise: Promise) -> str:
    return f"{round(promise.window.total_seconds() / 3600)}h"


def _rate(metric: str, by: str = "", matchers: str = _SHOWN) -> str:
    """Return the expression of how fast a counter grows, by labels."""
    labels = f"by ({by}) " if by else ""
    return f"sum {labels}(rate({metric}{{{matchers}}}[$__rate_interval]))"


def _quantiles(metric: str, matchers: str, label: str, *, exemplars: bool = False) -> list[Query]:
    return [
        Query(
            _quantile(share, metric, label, matchers),
            f"{{{{{label}}}}} {name}",
            exemplars=exemplars and name == "p99",
        )
        for name, share, _ in _HIGH
    ]


def _quantile(share: float, histogram: str, by: str, matchers: str = _SHOWN) -> str:
    return f"histogram_quantile({share}, {_rate(f'{histogram}_bucket', f'le, {by}', matchers)})"


def _latency(products: Sequence[Product]) -> Panel:
    return Panel(
        "Latency against the budget",
        "From a call's arrival to its reply's leaving: half of the calls, 99 % and 99.9 % were "
        "faster than this. The dashed line is the product's budget; each point is the trace of a "
        "call. Read from buckets, which are cut at shares of the budget.",
        "s",
        [
            *_quantiles(
                "rpc_server_call_duration_seconds", _CALLS, "gateway_product", exemplars=True
            ),
            *(
                Query(
                    _shown(product, product.latency.budget_us / 1e6),
                    f"{product.name}: budget",
                    dashed=True,
                )
                for product in products
            ),
        ],
        colours=_QUANTILES,
        width=12,
        height=10,
    )


_DECISIONS = (
    Panel(
        "Decisions by action",
        "Answers a second, by what was answered.",
        "reqps",
        [Query(_rate("gateway_decisions_total", "action"), "{{action}}")],
        colours=_ACTIONS,
        stacked=True,
    ),
    Panel(
        "Stand-ins by reason",
        "Share of the answers that the model did not give, by why: no time left, no room, no "
        "model, or a model that failed.",
        "percentunit",
        [
            Query(
                _rate("gateway_decisions_total", "stand_in", f'{_SHOWN},stand_in!="none"')
                + f" / on () group_left () {_rate('gateway_decisions_total')}",
                "{{stand_in}}",
            )
        ],
        colours=_REASONS,
        stacked=True,
    ),
    Panel(
        "Refused, shed and late",
        "Calls a second that were the caller's fault (by status), that were turned away unread, "
        "and answers that left past their deadline.",
        "reqps",
        [
            Query(
                _rate("gateway_refusals_total", "status", _OR_UNKNOWN),
                "refused: {{status}}",
            ),
            Query(_rate("gateway_shed_total", matchers=""), "shed, of all products"),
            Query(_rate("gateway_late_total", "product"), "late: {{product}}"),
        ],
        colours=(
            ("^refused: INV", BLUE),
            ("^refused: NOT", SKY),
            ("^shed", ORANGE),
            ("^late", VERMILLION),
        ),
    ),
    Panel(
        "Decisions by model",
        "Answers a second, by the generation and the model that decided; stand-ins, too.",
        "reqps",
        [
            Query(
                _rate("gateway_decisions_total", "product, generation, model"),
                "{{product}} {{generation}}: {{model}}",
            )
        ],
        stacked=True,
    ),
    Panel(
        "Flags",
        "Decisions a second of which more is to be said: near a tie, explored, or with a threshold "
        "that was overridden.",
        "reqps",
        [Query(_rate("gateway_flags_total", "flag"), "{{flag}}")],
        colours=(("^near_tie$", SKY), ("^explored$", ORANGE), ("^overridden$", VERMILLION)),
    ),
    Panel(
        "Replies",
        "What became of replies, a second: left, found nobody any more, or not known.",
        "reqps",
        [
            Query(
                _rate("gateway_replies_total", "reply", _OR_UNKNOWN),
                "{{reply}}",
            )
        ],
        colours=(("^left$", BLUE), ("^found_nobody$", ORANGE), ("^unknown$", VERMILLION)),
    ),
)

_TIME = (
    Panel(
        "Latency, all calls",
        "How many calls a minute took how long: the brighter, the more. Choose one product, as "
        "each has buckets of its own. The points are traces.",
        "s",
        [
            Query(
                f"60 * {_rate('rpc_server_call_duration_seconds_bucket', 'le', _CALLS)}",
                "{{le}}",
                exemplars=True,
            )
        ],
        kind="heatmap",
        width=12,
        height=10,
    ),
    Panel(
        "Share of the budget used",
        "Of the budget, or of the deadline that the caller gave: above 100 % is late.",
        "percentunit",
        [
            *_quantiles("gateway_budget_used_ratio", _SHOWN, "product"),
            Query("vector(1)", "late", dashed=True),
        ],
        colours=_QUANTILES,
    ),
    Panel(
        "Where the time goes",
        "What each stage took on average. infer contains the wait for the model, reply the time "
        "until the answer had left.",
        "s",
        [
            Query(
                f"{_rate('gateway_stage_duration_seconds_sum', 'stage')} / "
                f"{_rate('gateway_stage_duration_seconds_count', 'stage')}",
                "{{stage}}",
            )
        ],
        colours=_STAGES,
        stacked=True,
    ),
    Panel(
        "Stages, 99th percentile",
        "99 % of the decisions spent less than this in a stage.",
        "s",
        [
            Query(
                _quantile(0.99, "gateway_stage_duration_seconds", "stage"),
                "{{stage}}",
            )
        ],
        colours=_STAGES,
    ),
    Panel(
        "Batch size",
        "Rows that went through the model together, of half of the decisions, 99 % and 99.9 %. It "
        "grows with load by itself.",
        "short",
        _quantiles("gateway_batch_size", _SHOWN, "product"),
        colours=_QUANTILES,
    ),
    Panel(
        "Queue",
        "Calls that waited in the same worker, of whatever product, when one arrived: of half of "
        "the decisions, 99 % and 99.9 %.",
        "short",
        _quantiles("gateway_queue_length", _SHOWN, "product"),
        colours=_QUANTILES,
    ),
    Panel(
        "Pauses",
        "Share of the time that loops stood still, and how often they did: a machine that is busy "
        "elsewhere, or a stopped process. Of all products and workers together.",
        "percentunit",
        [
            Query(_rate("gateway_paused_seconds_total", matchers=""), "time that stood still"),
            Query(_rate("gateway_pauses_total", matchers=""), "pauses a second"),
        ],
        colours=(("^time", VERMILLION), ("^pauses", BLUE)),
    ),
)

_MODELS = (
    Panel(
        "Generations",
        "What is served: workers by generation, the content's digest, and the models in it.",
        "short",
        [
            Query(
                "sum by (product, generation, digest, models) "
                f"(gateway_generation_info{{{_SHOWN}}})"
            )
        ],
        kind="table",
    ),
    Panel(
        "Shadow calls",
        "Calls a second that a model scored beside the one that decided, and those that it had no "
        "time for or failed on.",
        "reqps",
        [
            Query(
                _rate("gateway_shadow_calls_total", "product, model, outcome"),
                "{{product}} {{model}}: {{outcome}}",
            )
        ],
        colours=(("scored$", BLUE), ("skipped$", ORANGE), ("failed$", VERMILLION)),
    ),
    Panel(
        "Labels",
        "Labels that arrived in the last hour, by their kind and what became of them.",
        "short",
        [
            Query(
                "sum by (product, kind, outcome) "
                f"({grown(f'gateway_labels_total{{{_SHOWN}}}', '1h')})",
                "{{product}} {{kind}}: {{outcome}}",
            )
        ],
    ),
)

_EVALUATION = (
    Panel(
        "Goals and promises, shares",
        "Each figure with the ends of its 95 % interval, as the lake was evaluated last. The basis "
        "says what it rests on: all decisions, mature labels, or what declines hide.",
        "percentunit",
        [
            Query(
                "max by (product, metric, basis, bound) "
                f'(gateway_evaluation_figure{{{_SHOWN},unit="share"}})',
                "{{product}} {{metric}} ({{basis}}): {{bound}}",
            )
        ],
        from_zero=False,
        width=12,
    ),
    Panel(
        "Goals and promises, other figures",
        "The same in units of their own: basis points, amounts of the costs' currency, ratios.",
        "short",
        [
            Query(
                "max by (product, metric, basis, unit, bound) "
                f'(gateway_evaluation_figure{{{_SHOWN},unit!="share"}})',
                "{{product}} {{metric}} ({{basis}}), {{unit}}: {{bound}}",
            )
        ],
        width=12,
    ),
    Panel(
        "Error budget left, as evaluated",
        "Of every promise with a budget, those that need labels, too. At 0 % it is used up; below, "
        "by how much the promise is broken.",
        "percentunit",
        [
            Query(
                f"min by (product, promise) (gateway_error_budget_left_ratio{{{_SHOWN}}})",
                "{{product}}: {{promise}}",
            )
        ],
        kind="stat",
        steps=((None, VERMILLION), (0.25, ORANGE), (0.5, BLUE)),
    ),
    Panel(
        "Verdicts",
        "Figures by what is said of them; of fairness, groups. What the data do not decide is "
        "undecided. `gateway evaluate` says which they are.",
        "short",
        [
            Query(
                "max by (product, section, metric, verdict) "
                f"(gateway_evaluation_verdicts{{{_SHOWN}}})"
            )
        ],
        kind="table",
    ),
    Panel(
        "Age of the evaluation",
        "Since the lake was evaluated last, and how long that took. Above the dashed line a ticket "
        "is written.",
        "s",
        [
            Query("max(gateway_evaluation_age_seconds)", "age"),
            Query("max(gateway_evaluation_duration_seconds)", "took"),
            Query(f"{OLD} * max(gateway_evaluation_interval_seconds)", "ticket", dashed=True),
        ],
        colours=(("^age$", BLUE), ("^took$", ORANGE)),
    ),
)

_ITSELF = (
    Panel(
        "Behind the journal",
        "Age of the oldest record that a consumer has not had. The dashed line is where a ticket "
        "is written.",
        "s",
        [
            Query("max by (consumer) (gateway_consumer_lag_seconds)", "{{consumer}}"),
            Query(f"vector({LAG_S})", "ticket", dashed=True),
        ],
    ),
    Panel(
        "Records behind",
        "Records that a consumer has not had yet.",
        "short",
        [Query("sum by (consumer) (gateway_consumer_lag_records)", "{{consumer}}")],
    ),
    Panel(
        "Bytes behind",
        "What they take on the disk.",
        "bytes",
        [Query("sum by (consumer) (gateway_consumer_lag_bytes)", "{{consumer}}")],
    ),
    Panel(
        "Records lost",
        "Records that are in no segment any more, since the sidecar began, by why.",
        "short",
        [Query("sum by (reason) (gateway_lost_records_total)", "{{reason}}")],
    ),
    Panel(
        "Changes refused",
        "Changes of a product's folder that are not served, since the sidecar began: "
        "`gateway models list` says why.",
        "short",
        [Query(f"sum by (product) (gateway_rejected_changes_total{{{_SHOWN}}})", "{{product}}")],
    ),
    Panel(
        "Worker starts",
        "Processes that began to write a worker's journal in the last hour. Where nobody replaced "
        "them, workers die.",
        "short",
        [
            Query(
                f"sum by (worker) ({grown('gateway_worker_starts_total', '1h')})",
                "worker {{worker}}",
            )
        ],
    ),
)

_NOTES = (
    Note(
        "Alerts",
        'ALERTS{alertname=~"Gateway.*",alertstate="firing"}',
        VERMILLION,
        "{{alertname}}",
        "{{product}} {{promise}} {{window}}",
    ),
    Note(
        "Generations",
        f"gateway_generation_info{{{_SHOWN}}} unless gateway_generation_info{{{_SHOWN}}} offset 1m",
        BLUE,
        "{{product}} {{generation}}",
        "{{models}}",
    ),
)
