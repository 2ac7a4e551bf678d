"""The lake: every row once, whatever is shipped again, killed, refused or erased."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lake_calls import (
    BOOT,
    KEY,
    MS,
    SERVED,
    START_NS,
    call,
    calls,
    on_disk,
    range_of,
    read,
    request,
    response,
    rows_in,
    segment,
)
from pyarrow import fs

from gateway.errors import ExitCode, LakeError
from gateway.journal import Generation
from gateway.sidecar.lake.asides import Part
from gateway.sidecar.lake.decisions import pseudonym
from gateway.sidecar.lake.features import Shape
from gateway.sidecar.lake.lake import Lake
from gateway.sidecar.lake.ranges import TARGET_BYTES, parse_file_name
from gateway.sidecar.lake.rows import Rows
from gateway.sidecar.tail.call import Batch, Call, Position, Range

HERE = Path(__file__).parent
NOW_NS = 2**62
BARE = Shape((), "")


def rows(shape: Shape | None = BARE) -> Rows:
    return Rows(key=KEY, shape=lambda _: shape)


def ship(lake: Lake, some: list[Call], shape: Shape | None = BARE) -> int:
    return lake.write(range_of(some), rows(shape).parts(some, ()))


def sequences(lake: Lake) -> list[int]:
    return [row["sequence"] for row in read(lake)]


def decided(first: int, last: int) -> list[int]:
    """The sequences of `calls` that are decisions."""
    return [
        one.record.sequence
        for one in calls(first, last)
        if type(one.record.entry).__name__ == "Decision"
    ]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake.at(str(tmp_path / "lake"))


def test_a_range_that_is_shipped_again_writes_nothing(lake: Lake) -> None:
    some = calls(1, 60)
    assert ship(lake, some) == len(some)
    before = [(path, path.stat().st_mtime_ns) for path in on_disk(lake)]
    assert ship(Lake.at(lake.root), some) == 0
    assert ship(lake, some) == 0
    assert [(path, path.stat().st_mtime_ns) for path in on_disk(lake)] == before
    assert sequences(lake) == decided(1, 60)


def test_a_files_name_is_its_range(lake: Lake) -> None:
    ship(lake, calls(7, 20))
    (path,) = lake.files("decisions")
    assert path == (
        f"{lake.root}/decisions/product=test/date=2026-11-18/"
        f"000-{BOOT[:8].hex()}-{7:015d}-{20:015d}.parquet"
    )
    name = parse_file_name(Path(path).name)
    assert name is not None
    assert tuple(name) == (0, BOOT[:8].hex(), 7, 20)
    assert rows_in(path).schema.metadata[b"gateway.version"] == b"1"


SPANS = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 15)), min_size=1, max_size=5)


@settings(max_examples=8, deadline=None)
@given(spans=SPANS, compacts=st.lists(st.booleans(), min_size=8, max_size=8))
def test_ranges_cut_in_any_way_double_and_lose_nothing(
    tmp_path_factory: pytest.TempPathFactory,
    spans: list[tuple[int, int]],
    compacts: list[bool],
) -> None:
    """A consumer whose checkpoint was lost may cut the same journal otherwise."""
    lake = Lake.at(str(tmp_path_factory.mktemp("cut")))
    every = {i: call(i) for i in range(1, 60)}
    parts = rows()
    shipped: set[int] = set()
    for (first, more), compact in zip(spans, compacts, strict=False):
        some = [every[i] for i in range(first, first + more + 1)]
        shipped |= set(range(first, first + more + 1))
        lake.write(range_of(some), parts.parts(some, ()))
        if compact:
            closed = [Range(0, BOOT, i, i) for i in shipped]
            lake.compact(closed, now_ns=NOW_NS, least_files=2, grace_s=0.0)
        assert sequences(lake) == sorted(shipped)


def test_another_boot_or_worker_of_the_same_sequences_is_another_file(lake: Lake) -> None:
    for where in (segment(), segment(worker=1), segment(boot=bytes(16))):
        ship(lake, [call(i, where) for i in range(1, 5)])
    assert len(lake.files("decisions")) == 3
    assert len({row["decision_id"] for row in read(lake)}) == 12


@pytest.mark.slow
def test_no_kill_loses_or_doubles_a_row() -> None:
    """Before each step of shipping and compaction, twice in a row, by SIGKILL."""
    told = subprocess.run(
        [sys.executable, HERE / "lake_killed.py"], capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stderr
    assert int(told.stdout) >= 15


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("refused", ["make the folder", "write", "rename", "sync"])
def test_a_refused_step_is_an_error_that_says_what_to_try(
    tmp_path: Path, number: int, refused: str
) -> None:
    def step(name: str) -> None:
        if name == refused:
            raise OSError(number, os.strerror(number))

    lake = Lake(fs.LocalFileSystem(), str(tmp_path), step=step)
    with pytest.raises(LakeError) as raised:
        ship(lake, [call(i) for i in range(1, 20)])
    assert os.strerror(number) in raised.value.what
    assert "--lake" in raised.value.hint
    assert raised.value.exit_code == ExitCode.LAKE
    half = [path for path in on_disk(lake) if not path.name.endswith(".parquet")]
    assert half == []
    lake._step = lambda _: None
    ship(lake, [call(i) for i in range(1, 20)])
    assert sequences(lake) == list(range(1, 20))


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_leaves_nothing_half_written(lake: Lake) -> None:
    """The kernel itself refuses, in the middle of a file."""
    some = [call(i) for i in range(1, 200)]
    parts = rows().parts(some, ())
    with files_of_at_most(4096), pytest.raises(LakeError, match="File too large") as raised:
        lake.write(range_of(some), parts)
    assert "Free space" in raised.value.hint
    assert on_disk(lake) == []
    assert lake.write(range_of(some), parts) == 199


def test_a_full_disk_in_compaction_leaves_what_was_there(lake: Lake) -> None:
    for first in (1, 50, 100):
        ship(lake, [call(i) for i in range(first, first + 50)])
    before = on_disk(lake)
    with files_of_at_most(4096), pytest.raises(LakeError):
        lake.compact([Range(0, BOOT, 1, 149)], now_ns=NOW_NS, least_files=2, grace_s=0.0)
    assert [path for path in on_disk(lake) if path.name != ".lock"] == before


def test_a_damaged_file_is_named_and_the_rest_is_compacted(lake: Lake) -> None:
    midnight = (-START_NS % (86_400 * 10**9)) // MS
    for day in (0, midnight):
        for first in (1, 11):
            some = [call(i, arrival_ns=(day + i) * MS) for i in range(first, first + 10)]
            lake.write(range_of(some), rows().parts(some, ()))
    damaged = lake.files("decisions")[0]
    Path(damaged).write_bytes(b"PAR1 and no more")
    closed = [Range(0, BOOT, 1, 20)]
    with pytest.raises(LakeError) as raised:
        lake.compact(closed, now_ns=NOW_NS, least_files=2, grace_s=0.0)
    assert raised.value.subject == damaged
    assert "Move it away" in raised.value.hint
    assert [Path(path).parent.name for path in lake.files("decisions")] == [
        "date=2026-11-18",
        "date=2026-11-18",
        "date=2026-11-19",
    ]
    Path(damaged).unlink()
    assert len(read(Lake.at(lake.root))) == 30


def test_a_file_in_the_way_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "lake").write_text("no directory")
    with pytest.raises(LakeError) as raised:
        ship(Lake.at(str(tmp_path / "lake")), [call(1)])
    assert "name another --lake" in raised.value.hint


def test_compaction_joins_closed_ranges_alone(lake: Lake) -> None:
    for first in range(1, 101, 10):
        ship(lake, [call(i) for i in range(first, first + 10)])
    joined = lake.compact([Range(0, BOOT, 1, 50)], now_ns=NOW_NS, least_files=2, grace_s=0.0)
    assert joined == 5
    assert len(lake.files("decisions")) == 6
    assert sequences(lake) == list(range(1, 101))


def test_a_joined_file_stays_for_a_reader_until_the_grace_is_over(lake: Lake) -> None:
    for first in (1, 11):
        ship(lake, [call(i) for i in range(first, first + 10)])
    open_one, before = lake.dataset("decisions"), lake.files("decisions")
    closed = [Range(0, BOOT, 1, 20)]
    lake.compact(closed, now_ns=NOW_NS, least_files=2)
    (joined,) = lake.files("decisions")
    made_ns = Path(joined).stat().st_mtime_ns
    lake.compact(closed, now_ns=made_ns + 59 * 10**9)
    assert open_one.to_table().num_rows == 20
    lake.compact(closed, now_ns=made_ns + 61 * 10**9)
    assert not any(Path(path).exists() for path in before)
    assert sequences(lake) == list(range(1, 21))


def test_a_day_is_compacted_alone_where_it_is_named(lake: Lake) -> None:
    for first in (1, 11):
        ship(lake, [call(i) for i in range(first, first + 10)])
    closed = [Range(0, BOOT, 1, 20)]
    assert lake.compact(closed, now_ns=NOW_NS, least_files=2, dates={"2026-11-19"}) == 0
    assert lake.compact(closed, now_ns=NOW_NS, least_files=2, dates={"2026-11-18"}) == 2


def test_who_reads_while_it_grows_and_is_compacted_sees_no_row_twice(tmp_path: Path) -> None:
    done = threading.Event()
    lake = Lake.at(str(tmp_path))
    ship(lake, [call(1)])

    def grow() -> None:
        writer = Lake.at(str(tmp_path))
        for i in range(2, 40):
            ship(writer, [call(i)])
            closed = [Range(0, BOOT, 1, i)]
            writer.compact(closed, now_ns=time.time_ns(), least_files=3)
        done.set()

    thread = threading.Thread(target=grow)
    thread.start()
    seen, reads = [1], 0
    try:
        while not done.is_set():
            before, seen = seen, sequences(lake)
            reads += 1
            assert seen == list(range(1, len(seen) + 1))
            assert len(seen) >= len(before)
    finally:
        thread.join()
    assert reads > 1
    assert sequences(lake) == list(range(1, 40))


def test_compaction_rewrites_a_row_a_few_times_and_not_once_a_file(tmp_path: Path) -> None:
    """A hundred small files: by tiers each row moves once or twice, not fifty times."""
    writes = 0

    def step(name: str) -> None:
        nonlocal writes
        writes += name == "rename"

    lake = Lake(fs.LocalFileSystem(), str(tmp_path), step=step)
    for i in range(1, 65):
        ship(lake, [call(i)])
        lake.compact([Range(0, BOOT, 1, i)], now_ns=NOW_NS, grace_s=0.0)
    joins = writes - 64
    assert 0 < joins <= 16
    assert sequences(lake) == list(range(1, 65))
    assert all(Path(path).stat().st_size < TARGET_BYTES for path in lake.files("decisions"))


def test_files_of_an_older_schema_are_read_and_joined(lake: Lake) -> None:
    """A column that is new is null there; a feature that became a text is a text in both."""
    (part,) = rows().parts([call(i) for i in range(1, 4)], ())
    old = part.rows.drop_columns(["propensity"]).append_column(
        "features",
        pa.array([{"a": 1.0, "gone": 2.0}, None, {"a": None, "gone": None}]),
    )
    lake.write(Range(0, BOOT, 1, 3), [replace(part, rows=old)])
    (part,) = rows().parts([call(i) for i in range(4, 6)], ())
    new = part.rows.append_column("features", pa.array([{"a": "x", "new": 7.0}, {"a": "y"}]))
    new = new.append_column("of the future", pa.array([1, 2]))
    lake.write(Range(0, BOOT, 4, 5), [replace(part, rows=new)])
    before = read(lake)
    lake.compact([Range(0, BOOT, 1, 5)], now_ns=NOW_NS, least_files=2, grace_s=0.0)
    assert len(lake.files("decisions")) == 1
    for seen in (before, read(lake)):
        assert [row["propensity"] for row in seen] == [None, None, None, 1.0, 1.0]
        assert [row["of the future"] for row in seen] == [None, None, None, 1, 2]
        assert seen[1]["features"] is None
        assert seen[0]["features"] == {"a": "1", "gone": 2.0, "new": None}
        assert seen[3]["features"] == {"a": "x", "gone": None, "new": 7.0}


def test_an_erased_subject_is_gone_and_stays_gone(lake: Lake) -> None:
    some = [call(i) for i in range(1, 50)]
    for part in (some[:20], some[20:]):
        ship(lake, part)
    ship(lake, [call(i) for i in (56,)])  # a file that holds nobody else
    customer = pseudonym("customer-0", KEY)
    theirs = [row["sequence"] for row in read(lake) if row["subject"] == customer]
    assert len(theirs) > 3
    assert lake.erase(customer, is_trial=True) == (len(theirs), 3)
    assert len(sequences(lake)) == 50
    assert lake.erase(customer) == (len(theirs), 3)
    for part in (some[:20], some[20:], [call(56)]):
        ship(Lake.at(lake.root), part)
    assert sequences(lake) == [i for i in range(1, 50) if i not in theirs]
    assert not any(customer in str(rows_in(path).to_pylist()) for path in lake.files("decisions"))
    assert lake.erase(customer) == (0, 0)


def test_what_compaction_has_joined_is_erased_too(lake: Lake) -> None:
    for first in (1, 11):
        ship(lake, [call(i) for i in range(first, first + 10)])
    lake.compact([Range(0, BOOT, 1, 20)], now_ns=NOW_NS, least_files=2, grace_s=60.0)
    customer = pseudonym("customer-0", KEY)
    assert lake.erase(customer) == (2, 1)
    left = [
        str(rows_in(str(path))["subject"].to_pylist())
        for path in on_disk(lake)
        if path.suffix == ".parquet"
    ]
    assert len(left) == 3
    assert not any(customer in one for one in left)


def test_one_day_is_one_folder(lake: Lake) -> None:
    """Midnight falls into the range; a row stands on the day of its arrival."""
    to_midnight_ns = -START_NS % (86_400 * 10**9)
    midnight = to_midnight_ns // MS
    some = [call(i, arrival_ns=(midnight + i - 5) * MS) for i in range(1, 10)]
    ship(lake, some)
    assert [Path(path).parent.name for path in lake.files("decisions")] == [
        "date=2026-11-18",
        "date=2026-11-19",
    ]
    assert [row["date"][-2:] for row in read(lake)] == ["18"] * 4 + ["19"] * 5
    assert ship(Lake.at(lake.root), some) == 0


def test_any_reader_of_hive_partitions_reads_it(lake: Lake) -> None:
    ship(lake, calls(1, 60))
    plain = ds.dataset(f"{lake.root}/decisions", partitioning="hive").to_table()
    assert plain["product"].to_pylist() == ["test"] * plain.num_rows
    assert sorted(plain["sequence"].to_pylist()) == decided(1, 60)


def test_a_file_system_that_is_not_local_will_do(tmp_path: Path) -> None:
    lake = Lake(fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem()), "deep/lake")
    for first in (1, 21):
        ship(lake, calls(first, first + 19))
    lake.compact([Range(0, BOOT, 1, 40)], now_ns=NOW_NS, least_files=2, grace_s=0.0)
    assert len(lake.files("decisions")) == 1
    assert sequences(lake) == decided(1, 20) + decided(21, 40)


def test_two_who_compact_do_not_meet(lake: Lake) -> None:
    for first in (1, 11):
        ship(lake, [call(i) for i in range(first, first + 10)])
    other, closed = Lake.at(lake.root), [Range(0, BOOT, 1, 20)]
    with lake._locked(wait=True):
        assert other.compact(closed, now_ns=NOW_NS, least_files=2) == 0
    assert other.compact(closed, now_ns=NOW_NS, least_files=2) == 2


def test_a_batch_is_shipped_range_by_range(lake: Lake) -> None:
    other = segment(worker=1)
    first, second = calls(1, 30), [call(i, other) for i in range(5, 9)]
    batch = Batch((*first, *second), (), (range_of(first), range_of(second)), Position())
    assert lake.ship(batch, rows()) == 34
    assert {Path(path).name[:3] for path in lake.files("decisions")} == {"000", "001"}
    assert lake.ship(batch, rows()) == 0


def test_a_decision_without_features_takes_less_than_200_bytes(
    lake: Lake, capsys: pytest.CaptureFixture[str]
) -> None:
    """Random ids, traces, amounts and scores: what does not compress is counted."""
    chance = random.Random(3)
    some = []
    for i in range(1, 4001):
        asked = request(
            i,
            transaction_id=str(uuid.UUID(int=chance.getrandbits(128))),
            amount=chance.randrange(10**6),
            category=chance.choice(["5411", "5912", "5541", "5732"]),
            subject=f"customer-{chance.randrange(3000)}",
        )
        answer = response(i)
        for cost in answer.expected_costs:
            cost.cost = chance.random() * 1e4
        answer.threshold = chance.random()
        stages = {
            f"{stage}_after_ns": 1000 * k + chance.randrange(1000)
            for k, stage in enumerate(("admit", "encode", "infer", "decide", "record"), 1)
        }
        one = call(
            i,
            request=asked.SerializeToString(),
            response=answer.SerializeToString(),
            score=chance.random(),
            probability=chance.random(),
            margin=chance.random() * 1e4,
            traceparent=f"00-{chance.getrandbits(128):032x}-{chance.getrandbits(64):016x}-01",
            **stages,
        )
        some.append(one)
    ship(lake, some)
    (path,) = lake.files("decisions")
    size = Path(path).stat().st_size / len(some)
    with capsys.disabled():
        print(f" {size:.0f} bytes a decision", end="")
    assert size <= 200


def test_a_range_without_rows_of_a_table_makes_no_file(lake: Lake) -> None:
    assert lake.write(Range(0, BOOT, 1, 9), ()) == 0
    assert on_disk(lake) == []
    assert lake.files("decisions") == ()
    assert read(lake) == []


def test_a_decision_is_found_by_its_id(lake: Lake) -> None:
    other = segment(worker=1)
    ship(lake, [call(i) for i in range(1, 20)])
    ship(lake, [call(i, other) for i in range(10, 40)])
    for row in read(lake):
        found = lake.find(row["decision_id"])
        assert found is not None
        assert found == {name: value for name, value in row.items() if name != "date"}
    assert lake.find(f"{BOOT[:8].hex()}-00-{20:012x}") is None
    assert lake.find(f"{bytes(8).hex()}-00-{2:012x}") is None
    with pytest.raises(ValueError, match="no decision id"):
        lake.find("t-1")


def test_a_table_that_is_none_is_refused(lake: Lake) -> None:
    with pytest.raises(LakeError, match="no table"):
        lake.files("decision")


def test_what_stands_in_the_lake_tells_no_subject(lake: Lake) -> None:
    """Files of people who hold no key: neither the subject nor another key's pseudonym."""
    asked = request(1, subject="canary-customer-4711")
    ship(lake, [call(1, request=asked.SerializeToString())])
    for path in on_disk(lake):
        assert b"canary" not in path.read_bytes()
    (row,) = read(lake)
    assert row["subject"] == pseudonym("canary-customer-4711", KEY)
    assert row["subject"] != pseudonym("canary-customer-4711", b"another key")
    assert "canary" not in json.dumps(row, default=str)


def test_a_generation_that_the_journal_does_not_know_loses_no_row(lake: Lake) -> None:
    where = segment(served=(Generation(9, "another", 1, "", ()),))
    ship(lake, [call(1, where)])
    (row,) = read(lake)
    assert (row["product"], row["digest"], row["arm"]) == ("test", None, "0")
    assert SERVED.product == "test"


def test_parts_of_one_file_are_in_the_order_of_their_sequences() -> None:
    """Two generations of one product in one range: they share the file."""
    later = replace(SERVED, index=1, generation=4)
    where = segment(served=(SERVED, later))
    some = [
        replace(call(i, where, product=i % 2), generation=(SERVED, later)[i % 2])
        for i in range(1, 9)
    ]
    (part,) = rows().parts(some, ())
    assert isinstance(part, Part)
    assert part.rows["sequence"].to_pylist() == list(range(1, 9))
