"""The store of labels: each event once, by its key, whatever comes in whatever order."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.errors import JournalDamaged, JournalError, JournalFull
from gateway.sidecar.feedback.label import Attribute, Label
from gateway.sidecar.feedback.store import FILE, Progress, Store, Taken


def label(i: int, **changes: object) -> Label:
    key = f"t-{i}", "", 1, 10, 20, None, "", 0, "s", f"e-{i}"
    one = Label("test", *key, supersedes="", action=0, category="", subject="")  # type: ignore[arg-type]
    return one._replace(**changes)  # type: ignore[arg-type]


def group(i: int, **changes: object) -> Attribute:
    return Attribute(f"{i:032x}", "age", "a", 5, "s")._replace(**changes)  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / FILE) as one:
        yield one


ROWS = st.lists(
    st.tuples(
        st.sampled_from(["s", "other"]),
        st.integers(0, 6),
        st.sampled_from([None, 0, 1]),
        st.sampled_from(["", "subject-1", "subject-2"]),
    ),
    max_size=6,
)


class Restarts(RuleBasedStateMachine):
    """Adds, conflicts, duplicates, erasures and restarts, against a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.stack = ExitStack()
        self.store = self.stack.enter_context(Store(self.folder / FILE))
        self.store_id = self.store.store_id
        self.labels: dict[tuple[str, str], Label] = {}
        self.groups: dict[tuple[object, ...], Attribute] = {}
        self.highest = Progress()

    def teardown(self) -> None:
        self.stack.close()
        shutil.rmtree(self.folder)

    @rule(rows=ROWS)
    def report(self, rows: list[tuple[str, int, int | None, str]]) -> None:
        some = [label(i, source=s, amount_minor=a, subject=who) for s, i, a, who in rows]
        expected = []
        for one in some:
            known = self.labels.setdefault((one.source, one.source_event_id), one)
            if known is one:
                expected.append(Taken.ACCEPTED)
            else:
                expected.append(Taken.DUPLICATE if known == one else Taken.CONFLICT)
        assert self.store.add_labels(some, 7) == expected

    @rule(rows=ROWS)
    def classify(self, rows: list[tuple[str, int, int | None, str]]) -> None:
        some = [
            group(i, source=s, value=str(a), subject=who or "subject-0") for s, i, a, who in rows
        ]
        expected = []
        for one in some:
            key = (one.subject, one.attribute, one.reported_us, one.source)
            known = self.groups.setdefault(key, one)
            if known is one:
                expected.append(Taken.ACCEPTED)
            else:
                expected.append(Taken.DUPLICATE if known == one else Taken.CONFLICT)
        assert self.store.add_attributes(some, 7) == expected

    @rule(who=st.sampled_from(["subject-1", "subject-2"]), paid=st.integers(0, 6))
    def erase(self, who: str, paid: int) -> None:
        theirs = {
            key
            for key, one in self.labels.items()
            if one.subject == who or one.transaction_id == f"t-{paid}"
        }
        groups = {key for key, one in self.groups.items() if one.subject == who}
        erased = self.store.erase(who, payments=[("test", f"t-{paid}"), ("another", "t-1")])
        assert erased == len(theirs) + len(groups)
        for key in theirs:
            del self.labels[key]
        for place in groups:
            del self.groups[place]

    @rule()
    def restart(self) -> None:
        self.stack.close()
        self.store = self.stack.enter_context(Store(self.folder / FILE))
        assert self.store.store_id == self.store_id

    @invariant()
    def holds_each_once_in_order(self) -> None:
        kept = self.store.labels(0, 999)
        assert [one.label for one in kept] == list(self.labels.values())
        groups = self.store.attributes(0, 999)
        assert [one.attribute for one in groups] == list(self.groups.values())
        for rows in (kept, groups):
            sequences = [one.sequence for one in rows]
            assert sequences == sorted(set(sequences))
        last = self.store.last()
        assert last.labels >= self.highest.labels
        assert last.attributes >= self.highest.attributes, "a sequence was used twice"
        self.highest = last
        assert self.store.behind(Progress()) == (
            len(kept) + len(groups),
            7 if kept or groups else None,
        )


TestRestarts = Restarts.TestCase
TestRestarts.settings = settings(max_examples=25, stateful_step_count=12, deadline=None)


def test_a_sequence_is_not_used_again_after_erasing(store: Store) -> None:
    store.add_labels([label(1, subject="a"), label(2, subject="b")], 1)
    assert store.erase("b") == 1
    store.add_labels([label(2)], 1)
    assert [one.sequence for one in store.labels(0, 9)] == [1, 3]


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_corrections_in_any_order_but_not_in_a_circle(store: Store, order: tuple[int, ...]) -> None:
    """e-3 ▸ e-2 ▸ e-1 ▸ e-0, and e-0 ▸ e-3 that would close it: whichever is last is refused."""
    chain = [label(i, supersedes=f"e-{(i - 1) % 4}") for i in range(4)]
    taken = [store.add_labels([chain[i]], 1)[0] for i in order]
    assert taken == [Taken.ACCEPTED] * 3 + [Taken.CIRCLE]
    other = chain[order[-1]]._replace(source="another")  # its events are not these
    assert store.add_labels([other], 1) == [Taken.ACCEPTED]
    assert store.add_labels([chain[i] for i in order[:3]], 1) == [Taken.DUPLICATE] * 3


def test_a_long_chain_of_corrections_is_followed(store: Store) -> None:
    chain = [label(i, supersedes=f"e-{i - 1}") for i in range(1, 901)]
    assert set(store.add_labels(chain, 1)) == {Taken.ACCEPTED}
    assert store.add_labels([label(0, supersedes="e-900")], 1) == [Taken.CIRCLE]


def test_labels_come_in_order_and_in_pieces(store: Store) -> None:
    for i in range(1, 8):
        store.add_labels([label(i)], i)
    assert [one.sequence for one in store.labels(2, 3)] == [3, 4, 5]
    assert [one.sequence for one in store.labels(0, 9, until_us=4)] == [1, 2, 3, 4]


def test_a_clock_that_jumps_back_makes_no_hole(store: Store) -> None:
    """What is to settle ends the read: a later one that looks older waits behind it."""
    for i, received_us in enumerate((1, 100, 2), 1):
        store.add_labels([label(i)], received_us)
    assert [one.sequence for one in store.labels(0, 9, until_us=50)] == [1]


def test_consumers_have_each_their_own_progress(tmp_path: Path) -> None:
    with Store(tmp_path / FILE) as one:
        assert one.progress("feedback") == Progress()
        one.save_progress("feedback", Progress(3, 1))
        one.save_progress("feedback_traces", Progress(2))
        one.save_links({3: (b"t" * 16, b"s" * 8), 4: None}, 2)
    with Store(tmp_path / FILE) as again:
        assert again.progress("feedback") == Progress(3, 1)
        assert again.progress("feedback_traces") == Progress(2)
        assert again.links(1, 9) == {3: (b"t" * 16, b"s" * 8), 4: None}
        again.save_links({3: None}, 0)
        assert again.links(3, 3) == {3: (b"t" * 16, b"s" * 8)}, "what was found first stands"
        again.save_links({}, 3)
        assert again.links(1, 9) == {4: None}


def test_two_connections_see_each_other(tmp_path: Path) -> None:
    with Store(tmp_path / FILE) as one, Store(tmp_path / FILE) as other:
        assert one.store_id == other.store_id
        one.add_labels([label(1)], 1)
        assert other.add_labels([label(1), label(2)], 2) == [Taken.DUPLICATE, Taken.ACCEPTED]
        assert [kept.sequence for kept in one.labels(0, 9)] == [1, 2]


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    with Store(tmp_path / "sidecar" / FILE) as one:
        one.add_labels([label(1)], 1)
        modes = {
            path.name: stat.S_IMODE(path.stat().st_mode)
            for path in (tmp_path / "sidecar").iterdir()
        }
    assert len(modes) == 3, "the file, its log and the log's index"
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE((tmp_path / "sidecar").stat().st_mode) == 0o700


def test_a_commit_is_synced(store: Store) -> None:
    """`synchronous` is FULL (2) and the journal a log, or a power cut takes what was told."""
    db = store._db
    assert db is not None
    assert db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert db.execute("PRAGMA secure_delete").fetchone() == (1,)


def test_what_is_erased_is_in_no_file(tmp_path: Path) -> None:
    with Store(tmp_path / FILE) as one:
        one.add_labels([label(1, subject="canary-subject", transaction_id="canary-1")], 1)
        one.add_labels([label(2, transaction_id="canary-2"), label(3)], 1)
        one.add_attributes([group(1, subject="canary-subject", value="canary-value")], 1)
        assert one.erase("canary-subject", payments={("test", "canary-2")}) == 3
        for path in tmp_path.iterdir():
            assert b"canary" not in path.read_bytes(), path.name
        assert [kept.label.source_event_id for kept in one.labels(0, 9)] == ["e-3"]


def test_many_payments_are_erased_at_once(store: Store) -> None:
    store.add_labels([label(i, decision_id=f"d-{i}") for i in range(1500)], 1)
    payments = [("test", f"t-{i}") for i in range(900)]
    decisions = [f"d-{i}" for i in range(500, 1400)]
    trial = store.erase("nobody", payments=payments, decisions=decisions, is_trial=True)
    assert (trial, len(store.labels(0, 2000))) == (1400, 1500)
    assert store.erase("nobody", "x", payments=payments, decisions=decisions) == 1400
    assert len(store.labels(0, 2000)) == 100


def test_what_a_reader_keeps_in_the_log_is_said(store: Store) -> None:
    """Who began to read before may see it as long as he reads; then it is erased again."""
    store.add_labels([label(1, subject="canary-subject")], 1)
    reader = sqlite3.connect(store.path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM labels").fetchone()
    assert store._db is not None
    store._db.execute("PRAGMA busy_timeout = 10")
    with pytest.raises(JournalError, match="another process reads there"):
        store.erase("canary-subject")
    reader.close()
    assert store.erase("canary-subject") == 0
    for path in store.path.parent.iterdir():
        assert b"canary" not in path.read_bytes(), path.name


def test_a_full_disk_keeps_nothing_of_a_request(store: Store) -> None:
    db = store._db
    assert db is not None
    store.add_labels([label(0)], 1)
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    db.execute(f"PRAGMA max_page_count = {pages}")
    many = [label(i, transaction_id="x" * 100) for i in range(1, 400)]
    with pytest.raises(JournalFull, match="no space is left") as raised:
        store.add_labels(many, 1)
    assert raised.value.hint
    assert len(store.labels(0, 999)) == 1
    db.execute("PRAGMA max_page_count = 100000")
    assert set(store.add_labels(many, 1)) == {Taken.ACCEPTED}


def test_a_file_that_is_no_store_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"no database" * 100)
    with pytest.raises(JournalDamaged, match="is no store") as raised, Store(tmp_path / FILE):
        pass
    assert raised.value.subject == str(tmp_path / FILE)


def test_a_newer_store_is_left_alone(tmp_path: Path) -> None:
    with Store(tmp_path / FILE) as one:
        one.add_labels([label(1)], 1)
    with sqlite3.connect(tmp_path / FILE) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(JournalError, match="version 99"), Store(tmp_path / FILE):
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_without_rights_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(JournalError, match="permission"), Store(tmp_path / "sidecar" / FILE):
        pass


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "sidecar").write_text("in the way")
    with pytest.raises(JournalError), Store(tmp_path / "sidecar" / FILE):
        pass


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    with Store(tmp_path / FILE) as one:
        pass
    with pytest.raises(JournalError, match="is closed"):
        one.add_labels([label(1)], 1)
