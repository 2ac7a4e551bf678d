"""Rows of the lake against what the journal's records say, one by one."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import catalogue
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lake_calls import (
    BOOT,
    KEY,
    MS,
    SERVED,
    START_NS,
    TRACE,
    call,
    range_of,
    read,
    record,
    request,
    response,
    segment,
)

from gateway.cli.recorded import segment_of
from gateway.errors import UsageError
from gateway.journal import (
    Damage,
    Fault,
    Flag,
    Gap,
    Generation,
    Loss,
    Mode,
    Pause,
    Record,
    Refused,
    Replied,
    Reply,
    Scored,
    ScoredCall,
    Shed,
    Writer,
)
from gateway.model.registry import Registry
from gateway.product import Feature, Product
from gateway.sidecar.lake.decisions import pseudonym
from gateway.sidecar.lake.features import FeatureReader, Shape, segments_of, shape_of
from gateway.sidecar.lake.lake import Lake
from gateway.sidecar.lake.rows import Rows
from gateway.sidecar.lake.schema import SCHEMAS
from gateway.sidecar.lake.snapshots import Snapshots
from gateway.sidecar.tail.call import Batch, Call, Gone, LateReply, LateScored, Position
from gateway.sidecar.tail.tail import Tail
from gateway.v1.decision_pb2 import DecideRequest, DecideResponse

PRODUCT = catalogue.product(watch=["channel", "entry_mode", "amount"])
SHAPE = shape_of(PRODUCT)


def rows_of(*some: Call, shape: Shape | None = SHAPE) -> list[dict[str, Any]]:
    (part,) = Rows(key=KEY, shape=lambda _: shape).parts(some, ())
    rows: list[dict[str, Any]] = part.rows.to_pylist()
    return rows


def test_a_row_says_what_the_record_says() -> None:
    flags = Flag.NEAR_TIE | Flag.EXPLORED
    one = call(5, flags=flags, propensity=0.25, batch_size=9)
    one = replace(one, scored=((1, ScoredCall(5, 0.4, 0.2, 4)),))
    (row,) = rows_of(one)
    arrived_s = START_NS / 10**9 + 0.005
    assert row == {
        "decision_id": f"{BOOT[:8].hex()}-00-{5:012x}",
        "transaction_id": "t-5",
        "generation": 3,
        "digest": "ab" * 32,
        "event_time": datetime.fromtimestamp(START_NS // 10**9 + 5, UTC),
        "received": datetime.fromtimestamp(arrived_s, UTC),
        "amount_minor": 500,
        "currency": "USD",
        "category": "5411",
        "channel": "ecommerce",
        "subject": pseudonym("customer-5", KEY),
        "action": "approve",
        "second_best": "decline",
        "stand_in": "none",
        "arm": "v1",
        "model": "v1",
        "model_version": "1.0",
        "model_digest": "cd" * 32,
        "score": 0.5,
        "probability": 0.25,
        "threshold": 0.75,
        "expected_cost": {"approve": 62.5, "step_up": 60.0, "review": None, "decline": 0.0},
        "margin_minor": 12.0,
        "propensity": 0.25,
        "near_tie": True,
        "explored": True,
        "overridden": False,
        "expired": False,
        "other_arms": [{"arm": "v2", "score": 0.4, "probability": 0.2, "action": "decline"}],
        "budget_us": 25_000,
        "deadline_us": 25_000,
        "admit_us": 1.0,
        "encode_us": 2.0,
        "infer_us": 3.0,
        "decide_us": 4.0,
        "record_us": 340.0,
        "replied_us": 400.0,
        "reply": "left",
        "in_time": True,
        "batch_size": 9,
        "trace_id": TRACE,
        "worker": 0,
        "boot": BOOT[:8].hex(),
        "sequence": 5,
        "watch": {"channel": "ecommerce", "entry_mode": "keyed", "amount": "1 to 10"},
        "features": {"amount": 5.0, "ratio": 5 / 3, "entry_mode": "keyed"},
    }


def test_a_stand_in_has_no_probability_no_model_and_no_costs() -> None:
    stood_in = response(1, stood_in=True).SerializeToString()
    nan = math.nan
    one = call(1, stand_in=2, score=nan, probability=nan, margin=math.inf, response=stood_in)
    (row,) = rows_of(one)
    empty = ("score", "probability", "margin_minor", "model", "model_digest", "threshold")
    assert [row[name] for name in empty] == [None] * len(empty)
    assert row["expected_cost"] is None
    assert row["stand_in"] == "overload"
    assert row["action"] == "approve"


@pytest.mark.parametrize(
    ("reply", "after_ns", "in_time"),
    [
        (Reply.LEFT, 25 * MS, True),
        (Reply.LEFT, 25 * MS + 1, False),
        (Reply.FOUND_NOBODY, None, None),
        (Reply.UNKNOWN, None, None),
    ],
)
def test_in_time_is_known_where_the_reply_is(
    reply: Reply, after_ns: int | None, in_time: bool | None
) -> None:
    replied_ns = None if after_ns is None else 3 * MS + after_ns
    (row,) = rows_of(replace(call(3), reply=reply, replied_ns=replied_ns))
    assert row["in_time"] is in_time
    assert (row["replied_us"] is None) == (after_ns is None)
    assert row["reply"] == reply.value.replace(" ", "_")


def dense(i: int, *values: float) -> DecideRequest:
    one = request(i)
    one.ClearField("features")
    one.dense = np.array(values, "<f4").tobytes()
    one.schema_fingerprint = SHAPE.fingerprint
    return one


def features(*asked: DecideRequest, shape: Shape = SHAPE) -> list[Any]:
    some = [call(i, request=one.SerializeToString()) for i, one in enumerate(asked, 1)]
    return [row.get("features") for row in rows_of(*some, shape=shape)]


def test_dense_and_named_features_are_the_same_columns() -> None:
    named = request(1)
    named.features["amount"].number = 2.0
    named.features["ratio"].number = 0.5
    named.features["entry_mode"].text = "keyed"
    expected = {"amount": 2.0, "ratio": 0.5, "entry_mode": "keyed"}
    assert features(named, dense(2, 2.0, 0.5, 2.0), named) == [expected] * 3


def test_what_was_not_given_or_is_no_feature_is_null_or_absent() -> None:
    bare, odd, nan = request(1), request(2), dense(3, math.nan, 1.0, math.nan)
    bare.ClearField("features")
    odd.ClearField("features")
    odd.features["of another product"].number = 4.0
    odd.features["ratio"].text = "a text where a number is due"
    odd.features["amount"].SetInParent()  # neither a number nor a text
    odd.features["entry_mode"].text = "contactless"  # stood for by a default; it is kept
    empty = {"amount": None, "ratio": None, "entry_mode": None}
    assert features(bare, odd, nan) == [
        empty,
        {**empty, "entry_mode": "contactless"},
        {**empty, "ratio": 1.0},
    ]


def test_dense_of_another_schema_is_not_read_as_this_one() -> None:
    other = dense(1, 1.0, 2.0, 0.0)
    other.schema_fingerprint = "0" * 16
    short = dense(2, 1.0, 2.0)
    assert features(other, short) == [{"amount": None, "ratio": None, "entry_mode": None}] * 2


def test_records_without_features_have_none_and_no_segments_of_them() -> None:
    kept, left_out = call(1), call(2, flags=Flag.FEATURES_LEFT_OUT)
    first, second = rows_of(kept, left_out)
    assert first["features"] is not None
    assert second["features"] is None
    assert second["watch"] == {"channel": "ecommerce", "entry_mode": None, "amount": None}


def test_a_product_that_keeps_no_features_has_no_such_column() -> None:
    shape = shape_of(catalogue.product(records={"features": "none"}))
    (row,) = rows_of(call(1), shape=shape)
    assert "features" not in row
    assert "watch" not in row


VALUES = st.one_of(
    st.floats(),
    st.integers(-5, 5).map(float),
    st.integers(-30, 30).map(lambda power: float(f"1e{power}")),
)
NAMED = st.dictionaries(
    st.sampled_from(["amount", "ratio", "entry_mode", "no feature"]),
    st.one_of(VALUES, st.sampled_from(["chip", "keyed", "none of them", ""])),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(NAMED, max_size=6), st.sampled_from([1, 20]), st.randoms())
def test_every_named_feature_is_read_as_protobuf_reads_it(
    kinds: list[dict[str, Any]], copies: int, chance: random.Random
) -> None:
    """The fast paths by bytes against the message's own map, in one reader for many batches.

    Twenty requests with other numbers of each kind are read by their common layout.
    """
    reader = READER
    given_ = [
        {
            name: value if isinstance(value, str) or i == 0 else float(chance.randrange(-9, 9))
            for name, value in named.items()
        }
        for named in kinds
        for i in range(copies)
    ]
    chance.shuffle(given_)
    asked = []
    for named in given_:
        one = DecideRequest(product="test")
        for name, value in named.items():
            if isinstance(value, str):
                one.features[name].text = value
            else:
                one.features[name].number = value
        asked.append(one)
    if not asked:
        return
    calls = [call(i, request=one.SerializeToString()) for i, one in enumerate(asked, 1)]
    (part,) = READING.parts(calls, ())
    for named, row in zip(given_, part.rows["features"].to_pylist(), strict=True):
        for column in reader.shape.columns:
            value = named.get(column.name)
            if column.type == "category":
                is_index = isinstance(value, float) and value in (0.0, 1.0, 2.0)
                expected = column.values[int(value)] if is_index else value  # type: ignore[arg-type]
                if isinstance(expected, float):
                    continue  # an index of nothing that was declared: the hall refuses it
            else:
                expected = None if isinstance(value, str) or value != value else value
            assert row[column.name] == expected


READER = FeatureReader(SHAPE)
READING = Rows(key=KEY, shape=lambda _: SHAPE)


@settings(max_examples=200, deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=8), st.sampled_from(["float", "bool", "category"]))
@example([0.0, -0.0, 1.0, 0.999, 1000.0, 1e-5, -3.0, math.nan, math.inf, -math.inf], "float")
@example([0.0, 1.0, 2.0, 3.0, 1.5, -1.0, math.nan, math.inf], "category")
def test_segments_are_those_of_whatif(values: list[float], kind: str) -> None:
    texts = {"values": ("a", "b", "c")} if kind == "category" else {}
    feature = Feature(name="f", type=kind, **texts)  # type: ignore[arg-type]
    small = [one for one in values if (not 0 < one < 1e-300 and one < 1e300) or one == math.inf]
    array = np.array(small, dtype=np.float64)
    seen = segments_of(feature, array, np.ones(len(small), dtype=np.bool_)).to_pylist()
    assert seen == [segment_of(feature, one) for one in small]


def refusal(i: int, where: Any, product: int = 0) -> Call:
    entry = Refused(i * MS, 90_000, 3, product, f"00-{TRACE}-b7ad6b7169203331-01", ("amount",))
    generation = SERVED if product == 0 else None
    return Call(Record(where, 0, 0, i, entry), generation, Reply.LEFT, i * MS + 100_000)


def test_refused_shed_lost_and_late_stand_in_tables_of_their_own(tmp_path: Path) -> None:
    where = segment()
    some = [call(1, where), refusal(2, where), refusal(3, where, 0xFFFF)]
    gap = Gap(Loss.DISK_FULL, 8, 9, 2, START_NS, 1, bytes(16))
    scored = Scored(0, 1, 0, 0, 5, (ScoredCall(1, 0.4, 0.2, 4),))
    asides = [
        Record(where, 0, 0, 4, Shed(4 * MS, 6 * MS, 17)),
        Record(where, 0, 0, 5, gap),
        Record(where, 0, 0, 6, Pause(1, 2)),
        LateScored(Record(where, 0, 0, 7, scored), 1, scored.calls[0]),
    ]
    lake = Lake.at(str(tmp_path))
    parts = Rows(key=KEY, shape=lambda _: None).parts(some, asides)
    assert lake.write(range_of(some)._replace(last_sequence=7), parts) == 6
    assert [row["sequence"] for row in read(lake)] == [1]
    known, unknown = read(lake, "refusals")
    assert (known["product"], unknown["product"]) == ("test", None)
    assert known["fields"] == ["amount"]
    assert (known["code"], known["refused_us"], known["replied_us"]) == (3, 90.0, 100.0)
    assert known["trace_id"] == TRACE
    (shed,) = read(lake, "shed")
    assert shed["count"] == 17
    assert (shed["received_last"] - shed["received"]).total_seconds() == 0.002
    (lost,) = read(lake, "gaps")
    assert (lost["reason"], lost["count"], lost["lost_worker"]) == ("disk_full", 2, 1)
    (late,) = read(lake, "late_scores")
    assert late["decision_id"] == read(lake)[0]["decision_id"]
    assert (late["arm"], late["probability"], late["action"]) == ("v2", 0.2, "decline")


def test_what_is_told_ahead_of_a_batch_or_outside_of_it_is_kept_once(tmp_path: Path) -> None:
    """Late entries are told when they are read; a gap may be of sequences that no range holds."""
    where = segment()
    some = [call(1, where), call(2, where)]
    scored = Scored(0, 1, 0, 0, 5, (ScoredCall(1, 0.4, 0.2, 4),))
    replied = Replied(2, 9 * MS, (0,))
    asides = (
        LateScored(Record(where, 0, 0, 90, scored), 1, scored.calls[0]),
        LateReply(Record(where, 0, 0, 95, replied), 2, Reply.LEFT, 9 * MS),
        Gone(1, bytes(16), 10, 19),
        Gone(1, bytes(16), 30, None),
        Damage(Path(str(where.name)), 0, 9, Fault.FRAME, (50, 52)),
        Damage(Path("strange.journal"), 0, 9, Fault.NAME),
    )
    batch = Batch(tuple(some), asides, (range_of(some),), Position())
    for _ in range(2):
        lake = Lake.at(str(tmp_path))
        lake.ship(batch, Rows(key=KEY, shape=lambda _: None))
        (late,) = read(lake, "late_scores")
        assert (late["decision_id"], late["sequence"]) == (read(lake)[0]["decision_id"], 90)
        (answered,) = read(lake, "late_replies")
        assert answered["decision_id"] == read(lake)[1]["decision_id"]
        assert answered["replied"] == datetime.fromtimestamp(START_NS / 10**9 + 0.009, UTC)
        gaps = [(row["reason"], row["first_sequence"], row["count"]) for row in read(lake, "gaps")]
        assert gaps == [("damaged", 50, 3), ("gone", 10, 10), ("gone", 30, None)]


def test_a_journal_followed_by_the_tail_is_in_the_lake_row_for_row(tmp_path: Path) -> None:
    """The real writer and the real tail, started again from nothing and cut otherwise."""
    where = segment()
    table = Generation(0, "test", 3, "ab" * 32, ("v1",))
    with Writer.open(
        tmp_path / "journal", worker=0, boot_id=BOOT, products=(table,), mode=Mode.PROCESS
    ) as writer:
        for i in range(1, 120, 2):
            sequence = writer.append([record(i, where).entry.encode()])
            writer.append([Replied(sequence, i * MS + 400_000, (0,)).encode()])
    lake = Lake.at(str(tmp_path / "lake"))
    rows = Rows(key=KEY, shape=lambda _: SHAPE)
    for records_max in (7, 11, 1000):
        tail = Tail(tmp_path / "journal", records_max=records_max)
        while batch := tail.read():
            lake.ship(batch, rows)
        seen = read(lake)
        assert [row["sequence"] for row in seen] == list(range(1, 120, 2))
        assert {row["reply"] for row in seen} == {"left"}
        assert [row["features"]["amount"] for row in seen] == list(range(1, 120, 2))


def test_bytes_that_no_gateway_wrote_cost_no_row() -> None:
    (row,) = rows_of(call(1, request=b"\xff\xff", response=b"\xff"))
    assert row["probability"] == 0.25
    assert row["expected_cost"] is None
    assert row["transaction_id"] == ""


def test_costs_of_any_encoding_are_read() -> None:
    """Protobuf leaves out a cost of nothing; the gateway's own encoder writes it."""
    answer = DecideResponse(action=1)  # type: ignore[arg-type]
    for action, cost in ((1, 0.0), (2, 3.5)):
        answer.expected_costs.add(action=action, cost=cost)  # type: ignore[arg-type]
    (row,) = rows_of(call(1, response=answer.SerializeToString()))
    assert row["expected_cost"]["approve"] == 0.0
    assert row["expected_cost"]["step_up"] == 3.5


def test_every_column_has_a_name_for_its_unit_and_a_known_type() -> None:
    for schema in SCHEMAS.values():
        for field in schema:
            assert not field.name.endswith("_ns")
            assert not pa.types.is_dictionary(field.type)


def test_a_generation_is_read_from_its_snapshot(tmp_path: Path) -> None:
    folder = catalogue.write_folder(tmp_path / "product")
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    registry = Registry(tmp_path / "journal" / "generations")
    registry.snapshot("test", 3, "ab" * 32, files)
    snapshots = Snapshots(tmp_path / "journal")
    served = snapshots.product(SERVED)
    assert isinstance(served, Product)
    assert snapshots.shape(SERVED) == shape_of(served)
    assert [one.name for one in served.columns] == ["amount", "ratio", "entry_mode"]
    assert snapshots.product(Generation(0, "test", 3, "cd" * 32)) is None
    assert snapshots.product(Generation(0, "gone", 1, "ab" * 32)) is None
    assert set(snapshots.unreadable) == {("test", 3), ("gone", 1)}


def test_a_snapshot_that_cannot_be_read_costs_features_and_no_row(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "generations")
    registry.snapshot("test", 3, "ab" * 32, {"product.yaml": b"product: [", "b": b""})
    snapshots = Snapshots(tmp_path)
    (part,) = Rows(key=KEY, shape=snapshots.shape).parts([call(1)], ())
    assert part.rows.num_rows == 1
    assert "features" not in part.rows.column_names
    assert ("test", 3) in snapshots.unreadable
    with pytest.raises(UsageError):
        registry.snapshots("../outside")
    assert snapshots.product(Generation(0, "../outside", 1, "ab" * 32)) is None
