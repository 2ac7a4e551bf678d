"""`gateway trace` draws the same of a call from the lake as from the journal."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import journalled
import lake_calls
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journalled import BOOT, GENERATION, MS, TRACE, TRACEPARENT, decision, refusal
from test_cli_trace import S, at, place, said, write

from gateway.cli.calls import call_at, calls_of
from gateway.cli.waterfall import as_line, as_object, waterfall
from gateway.errors import ExitCode
from gateway.journal import (
    FOUND_NOBODY,
    Entry,
    Flag,
    Pause,
    Record,
    Refused,
    Replied,
    Reply,
    Scored,
    ScoredCall,
    Shed,
    Writer,
    parse_decision_id,
    read,
    segments,
)
from gateway.sidecar.lake import parquet
from gateway.sidecar.lake.features import Shape
from gateway.sidecar.lake.lake import Lake
from gateway.sidecar.lake.rows import Rows
from gateway.sidecar.lake.search import find, search
from gateway.sidecar.tail.call import Call, Range
from gateway.sidecar.tail.tail import Tail
from gateway.sidecar.traces.verdict import Kinds
from gateway.v1.decision_pb2 import DECLINE, DecideResponse

__all__ = ["said"]

Said = Callable[..., str]


def shipped(journal: Path, root: Path) -> Lake:
    """Fill a lake with all that a journal holds, by a real tail."""
    lake = Lake.at(str(root))
    now_ns = time.monotonic_ns()
    tail = Tail(journal, clock_ns=lambda: now_ns)
    rows = Rows(key=b"k" * 32, shape=lambda _: Shape((), ""))
    idle = 0
    while idle < 2:
        batch = tail.read()
        now_ns += 10 * S  # nobody waits for a reply any more
        idle = 0 if batch else idle + 1
        if batch:
            lake.ship(batch, rows)
    return lake


@pytest.fixture
def entries() -> list[Entry]:
    """One call of each kind, a tenth of a second ago; and one of two hours ago."""
    now = time.monotonic_ns() - S // 10
    stood_in = DecideResponse(action=1, stand_in=2).SerializeToString()  # type: ignore[arg-type]
    return [
        at(now, traceparent=TRACEPARENT, flags=Flag.NEAR_TIE | Flag.EXPLORED),  # 1
        at(now, record_after_ns=20 * MS),  # 2, slow
        at(now, stand_in=2, response=stood_in),  # 3
        refusal(arrival_ns=now),  # 4
        at(now, record_after_ns=28 * MS, flags=Flag.OVERRIDDEN | Flag.EXPIRED, arm=1),  # 5, late
        at(now),  # 6, found nobody
        at(now),  # 7, nobody knows
        at(now - 2 * 3600 * S, record_after_ns=24 * MS),  # 8
        at(now, record_after_ns=22 * MS, traceparent=TRACEPARENT),  # 9, slow
        refusal(arrival_ns=now, traceparent=TRACEPARENT, code=5, fields=()),  # 10
        Replied(1, now, (300_000, 21 * MS, 300_123, 100_000, 30 * MS, FOUND_NOBODY)),  # 11
        Replied(9, now, (23_456_789, 95_000)),
        Pause(now - 40 * MS, 30 * MS),
        Shed(now + 1 * MS, now + 2 * MS, 1234),
        Shed(now - 5 * S, now - 4 * S, 7),
        Scored(0, 1, 0, 0, 1, (ScoredCall(1, 0.5, 0.97, DECLINE),)),
    ]


@pytest.fixture
def journal(tmp_path: Path, entries: list[Entry]) -> Path:
    return write(tmp_path / "journal", entries)


@pytest.fixture
def lake(tmp_path: Path, journal: Path) -> Path:
    return Path(shipped(journal, tmp_path / "lake").root)


CALLS = range(1, 11)


@pytest.mark.parametrize("sequence", CALLS)
def test_a_call_is_drawn_from_the_lake_as_from_the_journal(
    sequence: int, journal: Path, lake: Path, said: Said
) -> None:
    """Line by line; what the lake's columns do not know is left out and nothing else."""
    of_journal = said(place(sequence), "--journal", journal).splitlines()
    of_lake = said(place(sequence), "--lake", lake).splitlines()
    unknown = [line for line in of_journal if line.startswith("  pause of ")]
    call, _ = call_at(journal, parse_decision_id(place(sequence)))
    if isinstance(call.record.entry, Refused):
        of_journal[0] = of_journal[0].removesuffix(", generation 3")
    if not call.record.entry.traceparent:  # type: ignore[union-attr]
        unknown.append(of_journal[2])
        assert of_journal[2].endswith("its own")
    assert of_lake == [line for line in of_journal if line not in unknown]
    if sequence == 1:
        assert "shed unread: 1,234 calls" in "\n".join(of_lake)
        assert "shadow v2: P(fraud) 97.000%, decline: disagrees" in "\n".join(of_lake)


@pytest.mark.parametrize("sequence", CALLS)
def test_json_from_the_lake_is_that_from_the_journal(
    sequence: int, journal: Path, lake: Path, said: Said
) -> None:
    of_journal, of_lake = (
        json.loads(said(place(sequence), "--json", *source))
        for source in (("--journal", journal), ("--lake", lake))
    )
    assert of_lake["caller_span_id"] is None
    for told in (of_journal, of_lake):
        told["nearby"] = [one for one in told["nearby"] if one["kind"] != "pause"]
        del told["caller_span_id"]
    if of_lake["kind"] == "refused":
        del of_journal["generation"], of_journal["generation_digest"]
        assert (of_lake.pop("generation"), of_lake.pop("generation_digest")) == (None, None)
    if of_lake["trace_id"] is None:
        del of_journal["trace_id"], of_lake["trace_id"]
    assert of_lake == of_journal


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--slow",),
        ("--stood-in",),
        ("--errors",),
        ("--stood-in", "--errors"),
        ("--slow", "--last", "3h"),
        ("--slow", "--errors", "--limit", "3"),
        ("--last", "0.0001s"),
        ("--limit", "2"),
        (TRACE,),
        (TRACE, "--limit", "1"),
    ],
    ids=str,
)
def test_a_list_from_the_lake_is_that_from_the_journal(
    options: tuple[str, ...], journal: Path, lake: Path, said: Said
) -> None:
    expected = ids(said, *options, "--journal", journal)
    assert ids(said, *options, "--lake", lake) == expected
    assert ids(said, *options, "--journal", journal, "--lake", lake) == expected
    if TRACE not in options:
        rows = said(*options, "--lake", lake).splitlines()
        assert rows == said(*options, "--journal", journal).splitlines()


def ids(said: Said, *arguments: object) -> list[str]:
    return [json.loads(line)["id"] for line in said(*arguments, "--json").splitlines()]


def test_what_the_journal_has_dropped_is_drawn_from_the_lake(tmp_path: Path, said: Said) -> None:
    now = time.monotonic_ns() - S
    journal = write(tmp_path / "journal", *([[at(now)] * 100] * 20), segment_bytes=64 << 10)
    lake = Path(shipped(journal, tmp_path / "lake").root)
    before = ids(said, "--journal", journal, "--limit", 5000)
    oldest, *others = segments(journal)
    oldest.path.unlink()
    assert "add --lake" in said(place(1), "--journal", journal, code=ExitCode.JOURNAL)
    assert place(1) in said(place(1), "--journal", journal, "--lake", lake)
    still = others[0].name.first_sequence
    assert place(still) in said(place(still), "--journal", journal, "--lake", lake)
    held = ids(said, "--journal", journal, "--limit", 5000)
    assert len(held) < len(before) == 2000
    both = ids(said, "--journal", journal, "--lake", lake, "--limit", 5000)
    assert sorted(both) == sorted(before)
    for segment in others:
        segment.path.unlink()
    both = ids(said, "--journal", journal, "--lake", lake, "--limit", 5000)
    assert sorted(both) == sorted(before)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("nonsense",), ExitCode.USAGE, "no decision id"),
        ((place(1), "--slow"), ExitCode.USAGE, "do not go together"),
        ((place(11),), ExitCode.LAKE, "holds no such call"),
        ((f"{'0' * 16}-02-{1:012x}",), ExitCode.LAKE, "holds no such call"),
        (("f" * 32,), ExitCode.LAKE, "no call of trace"),
    ],
    ids=str,
)
def test_what_a_lake_does_not_hold_is_said(
    arguments: tuple[str, ...], code: ExitCode, says: str, lake: Path, said: Said
) -> None:
    assert says in said(*arguments, "--lake", lake, code=code)


@pytest.mark.parametrize("arguments", [(), (place(1),), (TRACE,), ("--errors",)], ids=str)
def test_a_lake_that_is_not_there_or_empty_is_said(
    arguments: tuple[str, ...], tmp_path: Path, said: Said
) -> None:
    absent = tmp_path / "absent"
    assert "no such folder" in said(*arguments, "--lake", absent, code=ExitCode.LAKE)
    assert not absent.exists()
    (tmp_path / "empty").mkdir()
    assert "holds no calls" in said(*arguments, "--lake", tmp_path / "empty", code=ExitCode.LAKE)
    assert "no such folder" in said(
        *arguments, "--journal", absent, "--lake", absent, code=ExitCode.LAKE
    )


def test_a_lake_beside_a_journal_may_be_empty_and_not_absent(
    tmp_path: Path, journal: Path, said: Said
) -> None:
    """A sidecar may have begun just now; a name that is wrong is said."""
    (tmp_path / "empty").mkdir()
    expected = ids(said, "--journal", journal)
    assert ids(said, "--journal", journal, "--lake", tmp_path / "empty") == expected
    both = ("--journal", journal, "--lake", tmp_path / "absent")
    assert "no such folder" in said(*both, code=ExitCode.LAKE)
    (tmp_path / "new").mkdir()
    both = ("--journal", tmp_path / "new", "--lake", tmp_path / "empty")
    assert "holds no calls" in said(*both, code=ExitCode.LAKE)


def test_a_damaged_file_of_the_lake_is_said(lake: Path, said: Said) -> None:
    for file in Lake.at(str(lake)).files("decisions"):
        Path(file).write_bytes(b"no Parquet at all")
    for arguments in ((), (place(1),), (TRACE,)):
        assert "no whole Parquet" in said(*arguments, "--lake", lake, code=ExitCode.LAKE)


def test_a_reply_and_a_score_that_came_late_are_told(tmp_path: Path, said: Said) -> None:
    """They stand in tables of their own, behind the call's row."""
    lake, now_ns = Lake.at(str(tmp_path / "lake")), time.monotonic_ns()
    rows = Rows(key=b"k" * 32, shape=lambda _: Shape((), ""))
    with Writer.open(
        tmp_path / "journal", worker=2, boot_id=BOOT, products=(GENERATION,)
    ) as writer:
        writer.append([at(now_ns - S // 10).encode()])
        ahead_ns = now_ns
        tail = Tail(tmp_path / "journal", clock_ns=lambda: ahead_ns)

        def ship() -> None:
            nonlocal ahead_ns
            for _ in range(3):
                batch = tail.read()
                ahead_ns += 10 * S
                if batch:
                    lake.ship(batch, rows)

        ship()
        assert "reply unknown" in said(place(1), "--lake", lake.root)
        assert place(1) in said("--errors", "--lake", lake.root)
        replied = Replied(1, now_ns, (FOUND_NOBODY,))
        scored = Scored(0, 1, 0, 0, 1, (ScoredCall(1, 0.5, 0.75, DECLINE),))
        writer.append([replied.encode(), scored.encode()])
        ship()
        drawn = said(place(1), "--lake", lake.root)
        assert "reply found nobody" in drawn
        assert "shadow v2: P(fraud) 75.000%, decline: disagrees" in drawn
        assert place(1) not in said("--errors", "--lake", lake.root)
        assert (
            said(place(1), "--journal", tmp_path / "journal").splitlines()[5:]
            == (drawn.splitlines()[4:])
        )


def test_a_list_reads_no_other_days_and_no_column_that_it_does_not_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake.at(str(tmp_path))
    rows = Rows(key=b"k" * 32, shape=lambda _: None)
    day_ms = 86_400_000
    some = [lake_calls.call(i) for i in (1, 2, 3)]
    later = [lake_calls.call(i) for i in range(day_ms + 1, day_ms + 4)]
    for calls in (some, later):
        lake.write(lake_calls.range_of(calls), rows.parts(calls, ()))
    earlier, _ = lake.files("decisions")
    Path(earlier).write_bytes(b"no Parquet at all")
    seen: set[str] = set()
    plain = parquet.Groups.read

    def watched(self: parquet.Groups, group: int, columns: Sequence[str] | None = None) -> Any:
        assert columns is not None
        seen.update(columns)
        return plain(self, group, columns)

    monkeypatch.setattr(parquet.Groups, "read", watched)
    since_ns = lake_calls.START_NS + day_ms * MS
    found = search(lake, since_ns, Kinds(), limit=10)
    assert [call.record.sequence for call in found.calls] == [*range(day_ms + 1, day_ms + 4)]
    kept = {"features", "watch", "subject", "transaction_id", "amount_minor", "event_time"}
    assert seen
    assert not seen & kept


def test_row_groups_before_the_time_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "ROW_GROUP_ROWS", 10)
    lake = Lake.at(str(tmp_path))
    calls = [lake_calls.call(1000 * i) for i in range(1, 101)]  # a second apart
    rows = Rows(key=b"k" * 32, shape=lambda _: None)
    lake.write(Range(0, lake_calls.BOOT, 1, 100_000), rows.parts(calls, ()))
    seen: list[int] = []
    plain = parquet.Groups.read
    monkeypatch.setattr(
        parquet.Groups,
        "read",
        lambda self, group, columns=None: seen.append(group) or plain(self, group, columns),
    )
    found = search(lake, lake_calls.START_NS + 85_000 * MS, Kinds(), limit=100)
    assert found.count == 16
    assert set(seen) == {8, 9}
    seen.clear()
    found_one = find(lake, f"{lake_calls.BOOT[:8].hex()}-00-{42_000:012x}")
    assert found_one is not None
    assert found_one[0].record.sequence == 42_000
    assert seen == [4]


TIMES = st.integers(0, 40_000)  # µs: what the lake keeps is exact


@st.composite
def some_calls(draw: st.DrawFn) -> list[Call]:
    calls = []
    for sequence in range(1, draw(st.integers(1, 12)) + 1):
        reply = draw(st.sampled_from(Reply))
        fate: dict[str, Any] = {"reply": reply, "replied_after_ns": 1000 * draw(TIMES)}
        if draw(st.booleans()):
            ends = sorted(draw(st.lists(TIMES, min_size=5, max_size=5)))
            names = ("admit", "encode", "infer", "decide", "record")
            entry: Entry = decision(
                **{f"{name}_after_ns": 1000 * end for name, end in zip(names, ends, strict=True)},
                stand_in=draw(st.integers(0, 4)),
                flags=Flag(draw(st.integers(0, 15))),
                traceparent=draw(st.sampled_from(["", TRACEPARENT])),
                margin=draw(st.sampled_from([12.5, float("inf")])),
            )
        else:
            entry = refusal(
                refused_after_ns=1000 * draw(TIMES),
                traceparent=draw(st.sampled_from(["", TRACEPARENT])),
                code=draw(st.integers(1, 16)),
            )
        calls.append(journalled.call(entry, sequence, **fate))
    return calls


@settings(max_examples=60, deadline=None)
@given(
    calls=some_calls(),
    kinds=st.builds(
        Kinds, st.booleans(), st.booleans(), st.booleans(), st.sampled_from(["", TRACE])
    ),
    limit=st.integers(1, 13),
)
def test_what_is_found_in_the_lake_is_what_a_loop_over_the_calls_finds(
    tmp_path_factory: pytest.TempPathFactory, calls: list[Call], kinds: Kinds, limit: int
) -> None:
    lake = Lake.at(str(tmp_path_factory.mktemp("lake")))
    rows = Rows(key=b"k" * 32, shape=lambda _: None)
    held = Range(2, BOOT, 1, len(calls))
    lake.write(held, rows.parts(calls, ()))
    found = search(lake, 0, kinds, limit=limit)
    expected = [one for one in calls if kinds.holds(one)]
    assert found.count == len(expected)
    by_sequence = {one.record.sequence: one for one in expected}
    if limit >= len(calls):
        assert {one.record.sequence for one in found.calls} == by_sequence.keys()
    for one in found.calls:
        original = by_sequence[one.record.sequence]
        assert as_line(one) == as_line(original)
        bare = [line for line in waterfall(original, (), 100) if "its own" not in line]
        if isinstance(original.record.entry, Refused):
            bare[0] = bare[0].removesuffix(", generation 3")
        assert list(waterfall(one, (), 100)) == bare
        if one.record.entry.traceparent:  # type: ignore[union-attr]
            assert as_object(one, ())["trace_id"] == TRACE


def test_the_calls_of_a_journal_are_those_of_its_lake(journal: Path, lake: Path) -> None:
    records = (item for one in segments(journal) for item in read(one))
    of_journal = {
        one.record.sequence: one for one in calls_of(r for r in records if isinstance(r, Record))
    }
    found = search(Lake.at(str(lake)), 0, Kinds(), limit=100)
    assert {one.record.sequence for one in found.calls} == of_journal.keys()
    # A refusal of a product that nobody serves is of none.
    for product, count in (("test", None), ("another", 0)):
        some = search(Lake.at(str(lake)), 0, Kinds(product=product), limit=100)
        wanted = [one for one in found.calls if Kinds(product=product).holds(one)]
        assert some.count == len(wanted)
        assert count is None or some.count == count
    held = {(2, BOOT[:8].hex()): 3}
    found = search(Lake.at(str(lake)), 0, Kinds(), limit=100, held=held)
    assert {one.record.sequence for one in found.calls} == {1, 2}
