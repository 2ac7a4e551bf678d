"""What is known of a payment: the same whatever the order, repetition and files of its labels."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import evaluated_lake as world
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.cli.lake_terms import columns_of_tables
from gateway.evaluate.counts import count
from gateway.evaluate.engine import DuckDb

LATER = datetime(2027, 1, 1, tzinfo=UTC)
FRAUD = ("chargeback", "customer_denied", "analyst_fraud", "early_fraud_warning")
GENUINE = ("customer_confirmed", "analyst_genuine")
STRENGTH = {
    "chargeback": 1,
    "customer_denied": 2,
    "customer_confirmed": 2,
    "analyst_fraud": 3,
    "analyst_genuine": 3,
    "early_fraud_warning": 4,
}
KINDS = (*FRAUD, *GENUINE, "refund", "customer_contacted", "step_up_passed", "step_up_failed")

Row = dict[str, Any]


def evidence(
    labels: Sequence[Row], decisions: Sequence[Row] = (), *, as_of: datetime = LATER, parts: int = 1
) -> list[Row]:
    """Return what the query makes of labels that stand in so many files."""
    with tempfile.TemporaryDirectory() as scratch:
        lake = Path(scratch)
        for number in range(parts):
            some = labels[number::parts]
            if some:
                world.write(lake, "labels", some, name=f"{number}")
        world.write(lake, "decisions", decisions or [world.decision(0)])
        with DuckDb(world.files(lake), columns_of_tables()) as engine:
            count(engine, (), as_of)
            rows = engine._connection.execute("select * from evidence order by all").fetchall()
            names = [one[0] for one in engine._connection.description]
    return [dict(zip(names, row, strict=True)) for row in rows]


def by_hand(labels: Sequence[Row], as_of: datetime = LATER) -> dict[str, Row]:
    """The same, payment by payment, in plain loops."""
    told: dict[tuple[str, str], Row] = {}
    for one in sorted(labels, key=lambda row: row["received"]):
        if one["received"] <= as_of:
            told.setdefault((one["source"], one["source_event_id"]), one)
    newest: dict[tuple[str, str], Row] = {}
    kept = [one for one in told.values() if one.get("supersedes") is None]
    for one in told.values():
        if one.get("supersedes") is None:
            continue
        key = one["source"], one["supersedes"]
        before = newest.get(key)
        if before is None or _later(one) > _later(before):
            newest[key] = one
    kept += newest.values()
    replaced = {(one["source"], one["supersedes"]) for one in kept if one.get("supersedes")}
    current = [
        one
        for one in kept
        if (one["source"], one["source_event_id"]) not in replaced and one["kind"] != "withdrawn"
    ]
    taken_back = {
        told[one["source"], one["supersedes"]]["transaction_id"]
        for one in told.values()
        if one["kind"] == "withdrawn"
        and (one["source"], one["supersedes"]) in told
        and told[one["source"], one["supersedes"]]["kind"] in FRAUD
    }
    found: dict[str, Row] = {}
    for payment in {one["transaction_id"] for one in current} | taken_back:
        ours = [one for one in current if one["transaction_id"] == payment]
        weighed = [one for one in ours if one["kind"] in STRENGTH]
        best = min(
            weighed,
            key=lambda one: (
                STRENGTH[one["kind"]],
                -one["reported_time"].timestamp(),
                one["source"],
                one["source_event_id"],
            ),
            default=None,
        )
        frauds = [one["reported_time"] for one in ours if one["kind"] in FRAUD]
        fraud = None if best is None else best["kind"] in FRAUD
        found[payment] = {
            "kind": best and best["kind"],
            "fraud": fraud,
            "fraud_reported": min(frauds, default=None),
            "reversed": payment in taken_back and not fraud,
        }
    return found


def _later(one: Row) -> tuple[Any, ...]:
    return one["reported_time"], one["source_event_id"]


@st.composite
def histories(draw: st.DrawFn) -> list[Row]:
    """Labels of a few payments: of two sources, some that correct or take back earlier ones."""
    labels: list[Row] = []
    for number in range(draw(st.integers(1, 9))):
        source = draw(st.sampled_from(["bank", "shop"]))
        reported = world.day(draw(st.integers(0, 5)))
        row = world.label(
            draw(st.integers(0, 2)),
            draw(st.sampled_from(KINDS)),
            source=source,
            source_event_id=f"e{number}",
            reported_time=reported,
        )
        earlier = [one for one in labels if one["source"] == source]
        if earlier and draw(st.booleans()):
            before = draw(st.sampled_from(earlier))
            row["supersedes"] = before["source_event_id"]
            row["transaction_id"] = before["transaction_id"]
            if draw(st.booleans()):
                row["kind"] = "withdrawn"
        labels.append(row)
    return labels


@given(histories(), st.randoms(use_true_random=False), st.integers(1, 3))
@settings(max_examples=25, deadline=None)
def test_what_is_known_is_a_plain_loops_whatever_the_order(
    labels: list[Row], chance: random.Random, parts: int
) -> None:
    shuffled = [*labels, *chance.sample(labels, len(labels) // 2)]  # some came twice
    chance.shuffle(shuffled)
    found = evidence(shuffled, parts=parts)
    assert found == evidence(labels)
    wanted = by_hand(labels)
    assert {row["transaction_id"] for row in found} == wanted.keys()
    for row in found:
        one = wanted[row["transaction_id"]]
        assert {name: row[name] for name in one} == one


def test_a_label_may_come_before_its_decision_and_name_it_by_its_id_alone() -> None:
    decision = world.decision(7, received=world.day(9))
    early = world.label(7, "chargeback", received=world.day(1))
    assert [row["transaction_id"] for row in evidence([early], [decision])] == ["t-7"]
    by_id = {**early, "transaction_id": None, "decision_id": decision["decision_id"]}
    assert evidence([by_id], [decision]) == evidence([early], [decision])


def test_what_came_later_is_not_known_yet() -> None:
    labels = [
        world.label(1, "early_fraud_warning", reported_time=world.day(1)),
        world.label(1, "customer_confirmed", reported_time=world.day(3)),
        world.label(1, "chargeback", reported_time=world.day(40)),
    ]
    kinds = [evidence(labels, as_of=world.day(at))[0]["kind"] for at in (2, 10, 50)]
    assert kinds == ["early_fraud_warning", "customer_confirmed", "chargeback"]


def test_a_chargeback_that_was_won_is_reversed_and_what_else_is_known_stands() -> None:
    won = world.label(
        1, "withdrawn", supersedes="chargeback-1", source_event_id="w", reported_time=world.day(9)
    )
    charged = world.label(1, "chargeback")
    (row,) = evidence([charged, won])
    assert (row["reversed"], row["fraud"], row["kind"]) == (True, None, None)
    (row,) = evidence([charged, won, world.label(1, "customer_denied")])
    assert (row["reversed"], row["fraud"], row["kind"]) == (False, True, "customer_denied")
