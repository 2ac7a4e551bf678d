"""Counted once, and again where something else is known: what is said is what counting all says."""

from __future__ import annotations

import os
import random
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import evaluated_lake as world
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.cli.lake_terms import columns_of_tables
from gateway.errors import LakeError
from gateway.evaluate.counts import count
from gateway.evaluate.engine import IN_MEMORY, DuckDb
from gateway.evaluate.evaluation import evaluate
from gateway.evaluate.histograms import volumes
from gateway.evaluate.terms import Terms, terms_of
from gateway.product import parse

MODELS = Path(__file__).parents[1] / "models"
KINDS = (
    *("chargeback", "customer_denied", "analyst_fraud", "customer_confirmed", "analyst_genuine"),
    *("early_fraud_warning", "step_up_passed", "step_up_failed", "customer_contacted", "refund"),
)
Row = dict[str, Any]


@cache
def terms(*, contact_within_s: int = 60) -> Terms:
    text = (MODELS / "card-not-present" / "product.yaml").read_text()
    text = text.replace("card-not-present", "cnp")
    return terms_of(
        parse(text.replace("contact_within_s: 60", f"contact_within_s: {contact_within_s}"), "p")
    )


def counted(engine: DuckDb) -> dict[str, list[tuple[Any, ...]]]:
    """Return the cells, added up and rounded; what was taken away again is none."""
    said = {}
    for table, measures in (("cells", 11), ("groups", 11), ("bins", 3)):
        described = engine._connection.execute(f"describe {table}").fetchall()
        names = [row[0] for row in described]
        keys, sums = names[:-measures], names[-measures:]
        added = ", ".join(f"coalesce(round(sum({one}), 6), 0) + 0 as {one}" for one in sums)
        said[table] = engine._connection.execute(
            f"select {', '.join(keys)}, {added} from {table} group by all "
            "having sum(n) > 0 order by all"
        ).fetchall()
    return said


def opened(lake: Path, store: Path | None = None) -> DuckDb:
    files = world.files(lake)
    stamps = {
        path: f"{os.stat(path).st_size}-{os.stat(path).st_mtime_ns}"
        for paths in files.values()
        for path in paths
    }
    kept = IN_MEMORY if store is None else str(store)
    return DuckDb(files, columns_of_tables(), stamps=stamps, store=kept)


def fresh(lake: Path, as_of: datetime) -> dict[str, list[tuple[Any, ...]]]:
    with opened(lake) as engine:
        count(engine, [terms()], as_of)
        return counted(engine)


def kept(lake: Path, store: Path, as_of: datetime) -> dict[str, list[tuple[Any, ...]]]:
    with opened(lake, store) as engine:
        count(engine, [terms()], as_of)
        return counted(engine)


def flat(told: Any, path: str = "") -> dict[str, Any]:
    """Return what JSON holds by its path; None as a number that no figure is."""
    if isinstance(told, Mapping):
        items = list(told.items())
    elif isinstance(told, list | tuple):
        items = list(enumerate(told))
    elif isinstance(told, int | float):
        return {path: float(told)}
    else:
        return {f"{path}={told}": 0.0}
    return {key: value for name, one in items for key, value in flat(one, f"{path}/{name}").items()}


class Growing:
    """A lake that grows by days: payments, answered more than once at times, labels and attributes.

    All of it in any order: labels come before their payment, supersede, take back, name a decision
    alone; files are joined and payments erased.
    """

    def __init__(self, lake: Path, chance: random.Random) -> None:
        self.lake = lake
        self.chance = chance
        self.decisions: list[Row] = []
        self.labels: list[Row] = []
        self.files: dict[str, list[tuple[str, list[Row]]]] = {"decisions": [], "labels": []}
        self.number = self.written = 0

    def day(self, day: int) -> None:
        chance = self.chance
        rows = [self._decision(day) for _ in range(chance.randrange(1, 12))]
        if self.decisions and chance.random() < 0.7:  # answered again, or the answer came late
            before = chance.choice(self.decisions)
            self.number += 1
            rows.append(
                {
                    **before,
                    "decision_id": f"{world.BOOT}-01-{self.number:012x}",
                    "received": world.day(day + chance.random()),
                    "action": chance.choice(("approve", "decline", "step_up")),
                    "in_time": chance.choice((True, False, None)),
                }
            )
        self.decisions += rows
        self._write("decisions", rows)
        labels = [self._label(day) for _ in range(chance.randrange(0, 10))]
        self.labels += labels
        self._write("labels", labels)
        if chance.random() < 0.5:
            world.write(
                self.lake,
                "attributes",
                [
                    world.attribute(
                        row["subject"],
                        chance.choice(("18-34", "35-54", "70+")),
                        reported_time=world.day(day),
                        received=world.day(day + 0.5),
                    )
                    for row in chance.sample(rows, 1)
                ],
                name=f"{day}",
            )

    def joined(self) -> None:
        """Join some files of a table, as a sidecar does."""
        some = self.files[self.chance.choice(("decisions", "labels"))]
        if len(some) < 2:
            return
        table = "decisions" if some is self.files["decisions"] else "labels"
        (one, rows), (other, more) = some.pop(), some.pop()
        for path in (one, other):
            Path(path).unlink()
        self._write(table, [*rows, *more])

    def erased(self) -> None:
        """Rewrite files without a payment and its labels, as `gateway erase` does."""
        path, rows = self.chance.choice(self.files["decisions"])
        gone = self.chance.choice(rows)["transaction_id"]
        for table, some in self.files.items():
            for i, (path, rows) in enumerate(some):
                left = [row for row in rows if row["transaction_id"] != gone]
                if len(left) < len(rows):
                    Path(path).unlink()
                    some[i] = (path, left)
                    if left:
                        world.write(self.lake, table, left, name=Path(path).stem)
            some[:] = [one for one in some if one[1]]
        self.decisions = [row for row in self.decisions if row["transaction_id"] != gone]

    def _write(self, table: str, rows: list[Row]) -> None:
        if rows:
            self.written += 1
            path = world.write(self.lake, table, rows, name=f"{self.written}")
            self.files[table].append((path, rows))

    def _decision(self, day: int) -> Row:
        chance = self.chance
        self.number += 1
        explored = chance.random() < 0.2
        action = chance.choice(("approve", "decline", "step_up", "review"))
        return world.decision(
            self.number,
            event_time=world.day(day + chance.random() - chance.choice((0, 0, 2))),
            received=world.day(day + chance.random()),
            amount_minor=chance.choice((300, 2_000, 70_000)),
            category=chance.choice(("5411", "5912", "5999")),
            subject=f"{chance.randrange(6) * 2_654_435_761 % 2**32:08x}{'0' * 24}",
            action="approve" if explored else action,
            explored=explored,
            propensity=0.25 if explored or action == "decline" else 1.0,
            probability=chance.choice((None, 0.001, 0.2, 0.7)),
            stand_in=chance.choice(("none", "none", "deadline")),
            watch={"channel": chance.choice(("app", "web", None))},
        )

    def _label(self, day: int) -> Row:
        chance = self.chance
        number = chance.randrange(1, self.number + 4)  # some are of payments that are to come
        kind = chance.choice(KINDS)
        row = world.label(
            number,
            kind,
            source=chance.choice(("bank", "shop")),
            source_event_id=f"e{chance.randrange(60)}",
            reported_time=world.day(day + chance.random()),
            received=world.day(day + chance.random()),
            amount_minor=chance.choice((None, 100)),
            liable=chance.choice(("customer", "issuer")),
        )
        if self.labels and chance.random() < 0.4:
            before = chance.choice(self.labels)
            row |= {"source": before["source"], "supersedes": before["source_event_id"]}
            if chance.random() < 0.7:
                row["transaction_id"] = before["transaction_id"]
            if chance.random() < 0.5:
                row["kind"] = "withdrawn"
        elif self.decisions and chance.random() < 0.2:
            decision = chance.choice(self.decisions)
            row |= {"transaction_id": None, "decision_id": decision["decision_id"]}
        return row


@given(st.randoms(use_true_random=False), st.lists(st.booleans(), min_size=2, max_size=5))
@settings(max_examples=5, deadline=None)
def test_what_is_counted_day_by_day_is_what_counting_everything_says(
    chance: random.Random, looks: Sequence[bool]
) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        lake, store = Path(scratch) / "lake", Path(scratch) / "counts"
        growing = Growing(lake, chance)
        for day, looked in enumerate(looks):
            growing.day(day)
            if chance.random() < 0.3:
                growing.joined()
            if chance.random() < 0.2:
                growing.erased()
            if looked:
                # Not all that has come is known at that time.
                as_of = world.day(day + chance.choice((0.5, 1)))
                assert kept(lake, store, as_of) == fresh(lake, as_of)
        assert kept(lake, store, world.day(9)) == fresh(lake, world.day(9))


def test_ids_that_are_alike_are_payments_of_their_own(tmp_path: Path) -> None:
    """DuckDB's hash is the same for such ids: it cannot say that two answers are to one payment."""
    ids = [
        f"aaaaaaa{i % 10}bbbbbbb{i // 10 % 10}ccccccc{i // 100 % 10}{i // 1000}"
        for i in range(3_000)
    ]
    rows = [world.decision(i) | {"transaction_id": one} for i, one in enumerate(ids)]
    world.write(tmp_path, "decisions", rows)
    world.write(tmp_path, "labels", [world.label(0, "chargeback") | {"transaction_id": ids[7]}])
    with opened(tmp_path) as engine:
        count(engine, [terms()], world.day(60))
        hashes = engine._connection.execute(
            "select count(distinct hash(transaction_id)) from decisions"
        ).fetchall()
        n = engine._connection.execute("select sum(n), sum(n) filter (fraud) from cells").fetchall()
    assert hashes[0][0] < len(ids)
    assert n == [(len(ids), 1.0)]


def test_volumes_are_a_plain_loops(tmp_path: Path) -> None:
    growing = Growing(tmp_path, random.Random(9))
    for day in range(5):
        growing.day(day)
    as_of = world.day(3.5)
    with opened(tmp_path) as engine:
        count(engine, [terms()], as_of)
        found = volumes(engine, as_of)
    assert found == {
        "cnp": Counter(
            int(row["event_time"].timestamp()) // 3600
            for row in growing.decisions
            if row["received"] <= as_of
        )
    }


def test_nothing_is_counted_anew_where_nothing_is_new(tmp_path: Path) -> None:
    growing = Growing(tmp_path / "lake", random.Random(5))
    for day in range(4):
        growing.day(day)
    kept(tmp_path / "lake", tmp_path / "counts", world.day(4))
    with opened(tmp_path / "lake", tmp_path / "counts") as one:
        before = one._connection.execute("select count(*) from cells").fetchall()
        count(one, [terms()], world.day(5))
        assert one._connection.execute("select count(*) from touched").fetchall() == [(0,)]
        assert one._connection.execute("select count(*) from cells").fetchall() == before


@pytest.mark.parametrize("differs", ["terms", "time"])
def test_what_other_terms_or_an_earlier_time_say_is_counted_from_nothing(
    tmp_path: Path, differs: str
) -> None:
    growing = Growing(tmp_path / "lake", random.Random(6))
    for day in range(4):
        growing.day(day)
    kept(tmp_path / "lake", tmp_path / "counts", world.day(4))
    other = terms(contact_within_s=3_600) if differs == "terms" else terms()
    as_of = world.day(4 if differs == "terms" else 2)
    found = []
    for store in (tmp_path / "counts", None):
        with opened(tmp_path / "lake", store) as engine:
            count(engine, [other], as_of)
            found.append(counted(engine))
    assert found[0] == found[1]


def test_what_fails_half_way_changes_nothing(tmp_path: Path) -> None:
    growing = Growing(tmp_path / "lake", random.Random(7))
    growing.day(0)
    before = kept(tmp_path / "lake", tmp_path / "counts", world.day(1))
    growing.day(1)
    path, _ = growing.files["decisions"][-1]
    whole = Path(path).read_bytes()
    Path(path).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LakeError):
        kept(tmp_path / "lake", tmp_path / "counts", world.day(2))
    with DuckDb({}, columns_of_tables(), store=str(tmp_path / "counts")) as engine:
        assert counted(engine) == before
    Path(path).write_bytes(whole)
    assert kept(tmp_path / "lake", tmp_path / "counts", world.day(2)) == fresh(
        tmp_path / "lake", world.day(2)
    )


def test_cells_are_joined_when_they_have_grown(tmp_path: Path) -> None:
    lake, store = tmp_path / "lake", tmp_path / "counts"
    growing = Growing(lake, random.Random(8))
    for day in range(7):
        growing.day(day)
        as_of = world.day(day + 1)
        assert kept(lake, store, as_of) == fresh(lake, as_of)
    with opened(lake, store) as engine:
        (rows,) = engine._connection.execute("select count(*) from cells").fetchall()
        (ever,) = engine._connection.execute("select count(*) from facts").fetchall()
        assert rows[0] < 2 * ever[0]
        found = evaluate(engine, [terms()], as_of + timedelta(days=90)).as_object()
    with opened(lake) as engine:
        wanted = evaluate(engine, [terms()], as_of + timedelta(days=90)).as_object()
    assert flat(found) == pytest.approx(flat(wanted), rel=1e-9, abs=1e-12, nan_ok=False)
