"""From the store to the lake: every label there once, whatever is shipped again or refused."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from feedback_events import NOW_US, attribute, event, served, stands_for
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from lake_calls import BOOT, call, on_disk, range_of, read, request
from lake_calls import KEY as CALLS_KEY
from pyarrow import fs
from test_feedback_store import group, label

from gateway.cli.main import run
from gateway.errors import ExitCode, LakeError
from gateway.journal import Writer, decision_id
from gateway.sidecar.feedback import shipping as feedback_shipping
from gateway.sidecar.feedback.shipping import LabelShipping
from gateway.sidecar.feedback.store import FILE, Store
from gateway.sidecar.lake.decisions import pseudonym
from gateway.sidecar.lake.features import Shape
from gateway.sidecar.lake.lake import Lake
from gateway.sidecar.lake.rows import Rows
from gateway.sidecar.lake.shipping import subject_key
from gateway.sidecar.tail.call import Range
from gateway.v1.decision_pb2 import Action
from gateway.v1.feedback_pb2 import (
    FeedbackKind,
    Liable,
    ReportAttributesRequest,
    ReportFeedbackRequest,
)

DAY_US = 86_400_000_000
NOW_NS = 2**62


def shipping(store: Store, lake: Lake) -> LabelShipping:
    return LabelShipping(store, lake, ship_s=0.0)


def drained(one: LabelShipping) -> None:
    while one.step() is not None:
        pass


def closed(store: Store) -> list[Range]:
    return [Range(worker, store.store_id, 1, 10**9) for worker in (0, 1)]


def test_a_row_holds_what_was_reported(tmp_path: Path) -> None:
    told = event(
        1,
        kind=FeedbackKind.STAND_IN_ADVICE,
        action=Action.REVIEW,
        category="5912",
        subject="customer-1",
        liable=Liable.MERCHANT,
        supersedes="cb-0",
    )
    bare = event(2, transaction_id="", decision_id="0123456789abcdef-07-00000000002a")
    bare.ClearField("amount")
    bare.ClearField("currency")
    lake = Lake.at(str(tmp_path / "lake"))
    with served(tmp_path / "journal") as service:
        service.stub.ReportFeedback(ReportFeedbackRequest(events=[told, bare]))
        some = [attribute(1), attribute(1, value="55+", reported_time=5)]
        service.stub.ReportAttributes(ReportAttributesRequest(attributes=some))
        drained(shipping(service.store, lake))
        boot = service.store.store_id[:8].hex()
    first, second = read(lake, "labels")
    times = {name: first.pop(name).timestamp() for name in ("occurred_time", "reported_time")}
    assert times == {
        "occurred_time": NOW_US / 1e6 - 3600,
        "reported_time": NOW_US / 1e6 - 60,
    }
    assert first.pop("received").timestamp() == NOW_US / 1e6
    assert first == {
        "transaction_id": "t-1",
        "decision_id": None,
        "kind": "stand_in_advice",
        "amount_minor": 1999,
        "currency": "USD",
        "liable": "merchant",
        "source": "disputes",
        "source_event_id": "cb-1",
        "supersedes": "cb-0",
        "action": "review",
        "category": "5912",
        "subject": stands_for("customer-1"),
        "worker": 0,
        "boot": boot,
        "sequence": 1,
        "product": "test",
        "date": "2026-11-18",
    }
    nothing = ("transaction_id", "amount_minor", "currency", "liable", "supersedes", "action")
    assert [second[name] for name in (*nothing, "category", "subject")] == [None] * 8
    groups = read(lake, "attributes")
    assert [(one["subject"], one["value"], one["sequence"]) for one in groups] == [
        (stands_for("customer-1"), "35-54", 1),
        (stands_for("customer-1"), "55+", 2),
    ]
    assert [(one["product"], one["date"]) for one in groups] == [(None, "2026-11-18")] * 2


def test_a_subject_is_the_same_in_decisions_labels_and_attributes(tmp_path: Path) -> None:
    asked = request(1, subject="customer-1").SerializeToString()
    lake, rows = Lake.at(str(tmp_path / "lake")), Rows(key=CALLS_KEY, shape=lambda _: Shape((), ""))
    some = [call(1, request=asked)]
    lake.write(range_of(some), rows.parts(some, ()))
    (row,) = read(lake)
    assert row["subject"] == pseudonym("customer-1", CALLS_KEY) == stands_for("customer-1")


STEPS = st.lists(
    st.tuples(st.integers(0, 30), st.sampled_from(["a", "b"]), st.integers(0, 2)), max_size=5
)


class Ships(RuleBasedStateMachine):
    """Labels, attributes, shipping, lost checkpoints, compaction, restarts, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.stack = ExitStack()
        self.store = self.stack.enter_context(Store(self.folder / FILE))
        self.lake = Lake.at(str(self.folder / "lake"))
        self.shipping = shipping(self.store, self.lake)

    def teardown(self) -> None:
        self.stack.close()
        shutil.rmtree(self.folder)

    @rule(rows=STEPS)
    def report(self, rows: list[tuple[int, str, int]]) -> None:
        for i, product, day in rows:
            self.store.add_labels([label(i, product=product)], NOW_US + day * DAY_US)

    @rule(rows=STEPS)
    def classify(self, rows: list[tuple[int, str, int]]) -> None:
        for i, name, day in rows:
            self.store.add_attributes([group(i, attribute=name)], NOW_US + day * DAY_US)

    @rule()
    def ship(self) -> None:
        drained(self.shipping)

    @rule()
    def restart(self) -> None:
        """Another process: it knows the lake by its files alone."""
        self.lake = Lake.at(self.lake.root)
        self.shipping = shipping(self.store, self.lake)

    @rule(cut=st.integers(1, 7))
    def lose_the_checkpoint(self, cut: int) -> None:
        """And ship again in other pieces: what is there is left as it is."""
        db = self.store._db
        assert db is not None
        db.execute("DELETE FROM progress")
        rows_max, feedback_shipping.ROWS_MAX = feedback_shipping.ROWS_MAX, cut
        try:
            drained(self.shipping)
        finally:
            feedback_shipping.ROWS_MAX = rows_max

    @rule()
    def compact(self) -> None:
        drained(self.shipping)
        self.lake.compact(closed(self.store), now_ns=NOW_NS, least_files=2, grace_s=0.0)

    @invariant()
    def nothing_stands_twice(self) -> None:
        done = self.store.progress(self.shipping._checkpoint)
        for table, last in (("labels", done.labels), ("attributes", done.attributes)):
            seen = [row["sequence"] for row in read(self.lake, table)]
            kept = self.store.labels if table == "labels" else self.store.attributes
            assert seen == [one.sequence for one in kept(0, 999) if one.sequence <= last]


TestShips = Ships.TestCase
TestShips.settings = settings(max_examples=12, stateful_step_count=10, deadline=None)


def test_a_day_is_the_one_on_which_it_was_received(tmp_path: Path) -> None:
    """Years of labels that come at once are one file a product."""
    lake = Lake.at(str(tmp_path / "lake"))
    with Store(tmp_path / FILE) as store:
        years = [label(i, reported_us=NOW_US - i * DAY_US) for i in range(1000)]
        store.add_labels(years, NOW_US)
        drained(shipping(store, lake))
        store.add_labels([label(5000)], NOW_US + DAY_US)
        drained(shipping(store, lake))
    assert [Path(path).parent.name for path in lake.files("labels")] == [
        "date=2026-11-18",
        "date=2026-11-19",
    ]
    assert len(read(lake, "labels")) == 1001


def test_another_lake_gets_everything(tmp_path: Path) -> None:
    with Store(tmp_path / FILE) as store:
        store.add_labels([label(i) for i in range(5)], NOW_US)
        for name in ("one", "other"):
            lake = Lake.at(str(tmp_path / name))
            drained(shipping(store, lake))
            assert len(read(lake, "labels")) == 5


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC])
def test_a_lake_that_refuses_fails_no_acknowledgement(tmp_path: Path, number: int) -> None:
    refusing = True

    def step(_: str) -> None:
        if refusing:
            raise OSError(number, os.strerror(number))

    lake = Lake(fs.LocalFileSystem(), str(tmp_path / "lake"), step=step)
    with served(tmp_path / "journal") as service:
        ship = shipping(service.store, lake)
        for i in range(3):
            answer = service.stub.ReportFeedback(ReportFeedbackRequest(events=[event(i)]))
            assert answer.accepted == 1
            with pytest.raises(LakeError, match=os.strerror(number)):
                ship.step()
        lag = ship.lag((NOW_US + 5_000_000) * 1000)
        assert (lag.records, lag.age_ns) == (3, 5 * 10**9)
        refusing = False
        drained(ship)
        assert ship.lag(NOW_US * 1000).records == 0
    assert [row["source_event_id"] for row in read(lake, "labels")] == ["cb-0", "cb-1", "cb-2"]


def test_small_files_are_joined_by_the_consumer_itself(tmp_path: Path) -> None:
    clock_s = 0.0
    lake = Lake.at(str(tmp_path / "lake"))
    with Store(tmp_path / FILE) as store:
        one = LabelShipping(
            store, lake, ship_s=0.0, clock_s=lambda: clock_s, wall_ns=lambda: NOW_US * 1000
        )
        for i in range(10):
            store.add_labels([label(i)], NOW_US)
            store.add_attributes([group(i)], NOW_US)
            one.step()
        assert len(lake.files("labels")) == len(lake.files("attributes")) == 10
        clock_s = 61.0
        one.step()
    for table in ("labels", "attributes"):
        assert len(lake.files(table)) == 1
        assert [row["sequence"] for row in read(lake, table)] == list(range(1, 11))


def test_more_than_fits_a_step_follows_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feedback_shipping, "ROWS_MAX", 10)
    lake = Lake.at(str(tmp_path / "lake"))
    with Store(tmp_path / FILE) as store:
        store.add_labels([label(i) for i in range(25)], NOW_US)
        one = LabelShipping(store, lake, clock_s=lambda: 1000.0)
        assert [done and done.labels for done in (one.step(), one.step(), one.step())] == [
            *(10, 20, 25)
        ]
        assert one.step() is None, "it has caught up, and waits"
    assert len(read(lake, "labels")) == 25


def decided(lake: Lake, *subjects: str) -> None:
    some = [
        call(i, request=request(i, subject=who).SerializeToString())
        for i, who in enumerate(subjects, 1)
    ]
    lake.write(range_of(some), Rows(key=CALLS_KEY, shape=lambda _: Shape((), "")).parts(some, ()))


def test_an_erased_subject_is_gone_from_every_table_and_from_the_store(tmp_path: Path) -> None:
    """Its labels too: those that name it, and those of its payments, which name nobody."""
    lake, who = Lake.at(str(tmp_path / "lake")), stands_for("gone")
    decided(lake, "gone", "stays", "gone")
    with Store(tmp_path / FILE) as store:
        rows = [
            *(label(1), label(2), label(3)),  # of the payments t-1, t-2 and t-3
            label(4, subject=who),
            label(5, transaction_id="t-1", product="other"),  # another product's t-1
            label(6, subject=stands_for("stays")),
            label(7, transaction_id="", decision_id=decision_id(BOOT, 0, 3)),
            label(8, transaction_id="", decision_id=decision_id(BOOT, 0, 2)),
        ]
        store.add_labels(rows, NOW_US)
        store.add_attributes([group(1, subject=who), group(2)], NOW_US)
        drained(shipping(store, lake))
        payments = lake.payments_of(who)
        assert payments.transactions == {("test", "t-1"), ("test", "t-3")}
        known = {"payments": payments.transactions, "decisions": payments.decisions}
        assert store.erase(who, **known) == 5  # type: ignore[arg-type]
        assert lake.erase(who, is_trial=True) == lake.erase(who)
        assert lake.erase(who) == (0, 0)
        left = [(one["product"], one["source_event_id"]) for one in read(lake, "labels")]
        assert sorted(left) == [
            *(("other", "e-5"), ("test", "e-2"), ("test", "e-6"), ("test", "e-8")),
        ]
        assert [one["subject"] for one in read(lake, "attributes")] == [f"{2:032x}"]
        assert [one["transaction_id"] for one in read(lake)] == ["t-2"]
        for path in on_disk(lake):
            assert who.encode() not in path.read_bytes()
        # Shipped again from the beginning, and compacted: it stays away.
        assert store._db is not None
        store._db.execute("DELETE FROM progress")
        drained(shipping(store, Lake.at(lake.root)))
        lake.compact(closed(store), now_ns=NOW_NS, least_files=2, grace_s=0.0)
        assert len(read(lake, "labels")) == 4
        assert lake.erase(who).rows == 0


def test_the_command_erases_from_the_store_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal, lake = tmp_path / "journal", Lake.at(str(tmp_path / "lake"))
    with Writer.open(journal, worker=0, boot_id=BOOT):
        pass
    key = subject_key(journal / "sidecar" / "subject.key")
    some = [call(1, request=request(1, subject="gone").SerializeToString()), call(2)]
    lake.write(range_of(some), Rows(key=key, shape=lambda _: Shape((), "")).parts(some, ()))
    where = ["erase", "gone", "--journal", str(journal), "--lake", lake.root]
    path = journal / "sidecar" / FILE
    assert run([*where, "--dry-run", "--json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["store"] == 0
    assert not path.exists(), "it makes no store"
    with Store(path) as store:
        store.add_labels([label(1), label(2), label(3, subject=pseudonym("gone", key))], NOW_US)
        store.add_attributes([group(1, subject=pseudonym("gone", key)), group(2)], NOW_US)
        drained(shipping(store, lake))
        assert run([*where, "--dry-run"]) == ExitCode.OK
        told = capsys.readouterr().out
        assert "Would erase 3 rows in" in told
        assert "store of labels" in told
        assert len(store.labels(0, 9)) == 3
        assert run([*where, "--json"]) == ExitCode.OK
        told = json.loads(capsys.readouterr().out)
        assert (told["store"], told["rows"]) == (3, 4)
        assert [one.label.source_event_id for one in store.labels(0, 9)] == ["e-2"]
        assert len(store.attributes(0, 9)) == 1
    for table, left in (("labels", 1), ("attributes", 1), ("decisions", 1)):
        assert len(read(lake, table)) == left


def test_files_tell_the_whole_id_of_their_boot(tmp_path: Path) -> None:
    """Also once they are joined with files that do not say it, and rewritten."""
    lake = Lake.at(str(tmp_path / "lake"))
    decided(lake, "a", "b")
    with Store(tmp_path / FILE) as store:
        for i in range(3):
            store.add_labels([label(i, subject="x" if i else "")], NOW_US)
            drained(shipping(store, lake))
        lake.compact(closed(store), now_ns=NOW_NS, least_files=2, grace_s=0.0)
        assert lake.erase("x").rows == 2
        (path,) = lake.files("labels")
        said: Any = lake.dataset("labels").schema.metadata
        assert said[b"gateway.boot"] == store.store_id.hex().encode()
        assert Path(path).name.split("-")[1] == store.store_id[:8].hex()
