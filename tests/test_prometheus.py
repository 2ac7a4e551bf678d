"""A real Prometheus scrapes a real sidecar: rules, exemplars, and an alert for a broken promise."""

from __future__ import annotations

import os
import signal
import time
import urllib.parse
from pathlib import Path

import catalogue
import grpc
import pytest
from conftest import stand_still
from prometheus_server import needs_prometheus, prometheus
from test_sidecar import beside
from test_supervisor import serving

from gateway.cli.main import run
from gateway.errors import ExitCode
from gateway.sidecar.metrics.alerts import BURNS
from gateway.v1.decision_pb2 import StandIn
from gateway.v1.decision_pb2_grpc import DecisionServiceStub

BUDGET_S = 1.0
CALM, LATE = 10, 100
"""Calls at a time: calm ones until their growth is seen; and so many late ones, in one connection's
streams."""

PROMISES = [
    # 13.4 times 1 % is the highest limit of the rules: a calm call in eight may be late.
    {"id": promise, "says": "x", "sli": sli, "objective": 0.99, "window": "28d"}
    for promise, sli in (("in-time", "decided_within_budget"), ("always-on", "scored_in_path"))
]


def asked(stub: DecisionServiceStub, phase: str, count: int) -> dict[str, grpc.Future]:
    """Send so many calls at once; return them by their trace ids."""
    calls = {}
    for i in range(count):
        trace_id = os.urandom(16).hex()
        calls[trace_id] = stub.Decide.future(
            catalogue.request(transaction_id=f"{phase}-{i}"),
            metadata=(("traceparent", f"00-{trace_id}-{os.urandom(8).hex()}-01"),),
            timeout=30,
        )
    return calls


@needs_prometheus
@pytest.mark.slow
def test_late_answers_fire_the_promises_alerts_and_calm_ones_do_not(tmp_path: Path) -> None:
    """A worker that is stopped for longer than the budget answers late: no counter is edited."""
    folder = catalogue.write_folder(
        tmp_path / "test", promises=PROMISES, latency__budget_ms=BUDGET_S * 1000
    )
    rules = tmp_path / "rules.yml"
    assert run(["alerts", str(folder), "--out", str(rules)]) == ExitCode.OK
    with (
        serving(folder, tmp_path / "journal", "--workers", "1") as gateway,
        beside(tmp_path / "journal") as (_, metrics),
        prometheus(tmp_path / "tsdb", urllib.parse.urlsplit(metrics).netloc, (rules,)) as server,
        grpc.insecure_channel(gateway.address) as channel,
    ):
        stub = DecisionServiceStub(channel)
        began_s = time.time()

        # It is up, and the rules are loaded.
        server.until(lambda: server.value('up{job="gateway"}') == 1.0)
        named = [rule["name"] for rule in server.rules()]
        assert named.count("GatewayErrorBudgetBurns") == 2 * len(BURNS)

        # The control: calls in time, seen to grow, and no alert of what was evaluated since.
        trace_ids: set[str] = set()

        def grows() -> bool:
            calls = asked(stub, "calm", CALM)
            assert all(call.result().stand_in == StandIn.NONE for call in calls.values())
            trace_ids.update(calls)
            return (server.value('sum(rate(gateway_decisions_total{product="test"}[5m]))') or 0) > 0

        server.until(grows)
        calm_s = time.time()
        server.until(lambda: server.evaluated_after(calm_s))
        assert all(rule["health"] == "ok" for rule in server.rules())
        assert server.alerts() == []

        # The worker stands still for longer than the budget, and calls wait in its socket. Their
        # stand-ins are the first: a series that Prometheus has not seen before. What a busy machine
        # reads some milliseconds behind the pause has not waited, by the worker's clock.
        (pid,) = gateway.pids.values()
        counted = server.value("sum(gateway_late_total)") or 0.0
        late: set[str] = set()
        while len(late) < LATE / 2:
            stand_still(pid)
            try:
                calls = asked(stub, "late", LATE)
                time.sleep(1.5 * BUDGET_S)  # the fault itself
            finally:
                os.kill(pid, signal.SIGCONT)
            took_us = {trace_id: call.result().elapsed_us for trace_id, call in calls.items()}
            trace_ids |= took_us.keys()
            late |= {trace_id for trace_id, us in took_us.items() if us > BUDGET_S * 1e6}

        def firing() -> list[dict[str, str]]:
            return [one["labels"] for one in server.alerts() if one["state"] == "firing"]

        server.until(lambda: len(firing()) == 2 * len(BURNS))
        assert server.value("sum(gateway_late_total)") == counted + len(late)
        told = ("alertname", "product", "promise", "severity", "window")
        assert {tuple(one[name] for name in told) for one in firing()} == {
            ("GatewayErrorBudgetBurns", "test", promise["id"], severity, window)
            for promise in PROMISES
            for severity, _, window, _, _ in BURNS
        }

        # Each bucket leads to a trace of a call that was made.
        stored = server.asked(
            "query_exemplars",
            query='rpc_server_call_duration_seconds_bucket{gateway_product="test"}',
            start=began_s,
            end=time.time(),
        )
        seen = [one for series in stored for one in series["exemplars"]]
        assert {one["labels"]["trace_id"] for one in seen} <= trace_ids
        assert any(
            one["labels"]["trace_id"] in late and float(one["value"]) > BUDGET_S for one in seen
        )
