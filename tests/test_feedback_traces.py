"""A label's span: its own, the same when it is sent again, and linked to its decision's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from feedback_events import NOW_US, attribute, canary, event, served
from grpc import StatusCode
from journalled import ARRIVAL_NS, BOOT, GENERATION, TRACEPARENT, decision
from lake_calls import call, range_of, request, segment
from lake_calls import rows_in as file_at
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from otlp_receiver import Receiver, listening, refuses, takes_and_says_nothing
from test_feedback_store import group, label

from gateway.errors import CollectorError, JournalError
from gateway.journal import Record, Replied, Writer, decision_id, read, segments
from gateway.sidecar.feedback.decided import Decided
from gateway.sidecar.feedback.label import Label
from gateway.sidecar.feedback.store import FILE, Progress, Store
from gateway.sidecar.feedback.traces import LabelTraces
from gateway.sidecar.lake.features import Shape
from gateway.sidecar.lake.lake import BOOT_ID, Lake
from gateway.sidecar.lake.rows import Rows
from gateway.sidecar.tail.call import Call
from gateway.sidecar.traces.collector import Collector, resource_of
from gateway.sidecar.traces.otlp import Exporter
from gateway.sidecar.traces.spans import SpanId, server_span_id
from gateway.v1.feedback_pb2 import ReportAttributesRequest, ReportFeedbackRequest

NAME = "gateway.v1.FeedbackService/ReportFeedback"
ROWS = Rows(key=b"k", shape=lambda _: Shape((), ""))


def ship(lake: Lake, some: list[Call]) -> None:
    lake.write(range_of(some), ROWS.parts(some, ()))


def id_of(one: Call) -> str:
    name = one.record.segment.name
    return decision_id(name.boot_id, name.worker, one.record.sequence)


def of_payment(i: int, **changes: object) -> Label:
    return label(i, **{"transaction_id": f"t-{i}", **changes})


@contextmanager
def sending(store: Store, decided: Decided, port: int, **more: float) -> Iterator[LabelTraces]:
    collector = Collector(f"127.0.0.1:{port}", timeout_s=5)
    with Exporter(collector, resource_of({}, host="h", version="1")) as exporter:
        settings = {"settle_s": 0.0, **more}
        yield LabelTraces(store, decided, exporter, **settings)  # type: ignore[arg-type]


def attributes(span: Span) -> dict[str, str]:
    return {one.key: one.value.string_value for one in span.attributes}


def test_a_decision_is_found_by_its_id_or_its_payment(tmp_path: Path) -> None:
    """With a caller's trace and without; the oracle is what made the decision's own span."""
    lake = Lake.at(str(tmp_path / "lake"))
    traced, untraced = call(1), call(2, traceparent="")
    other_worker = call(3, segment(worker=1), traceparent="")
    ship(lake, [traced, untraced])
    ship(lake, [other_worker])
    decided = Decided(tmp_path / "no journal", lake)
    calls = [traced, untraced, other_worker]
    expected = [server_span_id(one.record) for one in calls]
    by_id = [label(9, transaction_id="", decision_id=id_of(one)) for one in calls]
    assert decided.spans_of(by_id) == expected
    by_payment = [of_payment(i) for i in (1, 2, 3)]
    assert decided.spans_of(by_payment) == expected
    mixed = [by_payment[2], by_id[0], label(77), by_payment[2]]
    assert decided.spans_of(mixed) == [expected[2], expected[0], None, expected[2]]
    assert decided.spans_of([of_payment(1, product="another")]) == [None]
    assert decided.spans_of([label(1, decision_id="0" * 16 + "-00-" + "0" * 12)]) == [None]


def test_of_a_payment_that_was_decided_twice_the_last_counts(tmp_path: Path) -> None:
    lake = Lake.at(str(tmp_path / "lake"))
    again = request(1).SerializeToString()
    first, second = call(1), call(8, request=again)
    ship(lake, [first, second])
    decided = Decided(tmp_path, lake)
    assert decided.spans_of([of_payment(1)]) == [server_span_id(second.record)]
    third = call(20, request=again)
    ship(lake, [third])
    assert decided.spans_of([of_payment(1)]) == [server_span_id(third.record)]
    next_day = call(86_400_000, request=again)
    ship(lake, [next_day])
    assert decided.spans_of([of_payment(1)]) == [server_span_id(next_day.record)]


def test_payments_are_looked_for_as_far_as_a_bound(tmp_path: Path) -> None:
    lake = Lake.at(str(tmp_path / "lake"))
    for first in (1, 11, 21):
        ship(lake, [call(i) for i in range(first, first + 10)])
    far, near = of_payment(3), of_payment(25)
    assert Decided(tmp_path, lake, rows_max=10).spans_of([far, near])[0] is None
    assert Decided(tmp_path, lake, rows_max=10).spans_of([far, near])[1] is not None
    assert None not in Decided(tmp_path, lake, rows_max=30).spans_of([far, near])


def test_a_decision_that_is_in_the_journal_alone_is_found_by_its_id(tmp_path: Path) -> None:
    with Writer.open(tmp_path, worker=2, boot_id=BOOT, products=(GENERATION,)) as writer:
        entries = [decision(), decision(traceparent=TRACEPARENT)]
        first = writer.append([one.encode() for one in entries])
        writer.append([Replied(first, ARRIVAL_NS, (1, 2)).encode()])
    records = [
        item
        for one in segments(tmp_path)
        for item in read(one)
        if isinstance(item, Record) and item.sequence in (first, first + 1)
    ]
    by_id = [
        label(i, decision_id=decision_id(BOOT, 2, one.sequence)) for i, one in enumerate(records)
    ]
    for lake in (None, Lake.at(str(tmp_path / "lake"))):
        found = Decided(tmp_path, lake).spans_of(by_id)
        assert found == [server_span_id(one) for one in records]
    replied = label(9, decision_id=decision_id(BOOT, 2, first + 2))
    assert Decided(tmp_path, None).spans_of([replied]) == [None], "it is the place of no decision"


def test_a_file_of_before_that_does_not_tell_its_boot_has_no_link(tmp_path: Path) -> None:
    lake = Lake.at(str(tmp_path / "lake"))
    (part,) = ROWS.parts([call(1)], ())
    ship(lake, [call(1)])
    (path,) = lake.files("decisions")
    table = file_at(path)
    bare = {k: v for k, v in table.schema.metadata.items() if k != BOOT_ID}
    pq.write_table(table.replace_schema_metadata(bare), path)
    assert part.rows.num_rows == 1
    assert Decided(tmp_path, lake).spans_of([of_payment(1)]) == [None]


def test_each_label_is_a_span_with_a_link(tmp_path: Path) -> None:
    lake = Lake.at(str(tmp_path / "lake"))
    one = call(1)
    ship(lake, [one])
    receiver = Receiver()
    with Store(tmp_path / FILE) as store, listening(receiver) as port:
        store.add_labels([of_payment(1, kind=2, subject="s"), label(50)], NOW_US)
        store.add_labels([label(51, decision_id=id_of(one), transaction_id="")], NOW_US)
        store.add_attributes([group(1)], NOW_US)
        with sending(store, Decided(tmp_path, lake), port) as traces:
            sent = traces.step()
            assert sent is not None
            assert sent.accepted == 3
            assert traces.step() is None
            assert traces.lag(NOW_US * 1000).records == 0
    linked, orphan, by_id = sorted(receiver.spans.values(), key=lambda one: len(one.attributes))
    assert {span.name for span in receiver.spans.values()} == {NAME}
    assert attributes(linked) == {
        "gateway.product": "test",
        "gateway.label.kind": "early_fraud_warning",
        "gateway.label.source": "s",
    }
    expected = server_span_id(one.record)
    assert [SpanId(link.trace_id, link.span_id) for link in linked.links] == [expected]
    assert [SpanId(link.trace_id, link.span_id) for link in by_id.links] == [expected]
    assert attributes(by_id)["gateway.decision_id"] == id_of(one)
    assert list(orphan.links) == []
    assert linked.start_time_unix_nano == linked.end_time_unix_nano == NOW_US * 1000
    assert len({span.trace_id for span in receiver.spans.values()}) == 3


def test_a_span_that_is_sent_again_is_the_same_though_the_lake_knows_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was delivered, and the sidecar died before it could write that down; then the decision
    came to the lake."""
    lake = Lake.at(str(tmp_path / "lake"))
    receiver = Receiver()

    def dies(*_: object) -> None:
        raise JournalError("killed here")

    with Store(tmp_path / FILE) as store, listening(receiver) as port:
        store.add_labels([of_payment(1)], NOW_US)
        with monkeypatch.context() as patched:
            patched.setattr(store, "save_progress", dies)
            with (
                sending(store, Decided(tmp_path, lake), port) as traces,
                pytest.raises(JournalError),
            ):
                traces.step()
        ship(lake, [call(1)])
        store.add_labels([of_payment(1, source="other")], NOW_US)
        with sending(store, Decided(tmp_path, lake), port) as traces:
            assert traces.step() is not None
        assert len(receiver.spans) == 2
        assert receiver.sent_again == 1
        assert receiver.altered == 0
        first, second = receiver.spans.values()
        assert (len(first.links), len(second.links)) == (0, 1)
        store.add_labels([label(3)], NOW_US)
        with sending(store, Decided(tmp_path, lake), port) as traces:
            assert traces.step() is not None
        assert list(store.links(0, 99)) == [3], "what was delivered is forgotten"


def test_a_collector_that_refuses_gets_the_same_again(tmp_path: Path) -> None:
    receiver = Receiver()
    with Store(tmp_path / FILE) as store, listening(receiver) as port:
        store.add_labels([label(1)], NOW_US)
        receiver.faults.put(refuses(StatusCode.PERMISSION_DENIED))
        receiver.faults.put(takes_and_says_nothing)
        with sending(store, Decided(tmp_path, None), port) as traces:
            with pytest.raises(CollectorError):
                traces.step()
            assert store.progress("feedback_traces") == Progress()
            assert traces.step() is not None
            traces.stop()
            store.add_labels([label(2)], NOW_US)
            with pytest.raises(CollectorError):
                traces.step()
    assert (len(receiver.spans), receiver.sent_again, receiver.altered) == (1, 1, 0)


def test_a_label_waits_until_its_decision_can_be_in_the_lake(tmp_path: Path) -> None:
    now_us = NOW_US
    receiver = Receiver()
    with Store(tmp_path / FILE) as store, listening(receiver) as port:
        store.add_labels([label(1)], NOW_US)
        with sending(store, Decided(tmp_path, None), port, settle_s=5.0) as traces:
            traces._wall_ns = lambda: now_us * 1000
            assert traces.step() is None
            now_us = NOW_US + 5_000_000
            assert traces.step() is not None
    assert len(receiver.spans) == 1


def test_a_label_waits_no_longer_where_no_decision_comes_any_more(tmp_path: Path) -> None:
    receiver = Receiver()
    with Store(tmp_path / FILE) as store, listening(receiver) as port:
        store.add_labels([label(1)], NOW_US)
        with sending(store, Decided(tmp_path, None), port, settle_s=5.0) as traces:
            traces._wall_ns = lambda: NOW_US * 1000
            assert traces.step() is None
            traces.hurry()
            assert traces.step() is not None
    assert len(receiver.spans) == 1


def test_no_subject_group_amount_or_payment_is_in_a_span(tmp_path: Path) -> None:
    texts = [canary() for _ in range(8)]
    receiver = Receiver()
    with served(tmp_path) as service, listening(receiver) as port:
        told = event(
            1, transaction_id=texts[0], source_event_id=texts[1], subject=texts[2], amount=987654321
        )
        service.stub.ReportFeedback(ReportFeedbackRequest(events=[told]))
        groups = [attribute(1, subject=texts[3], value=texts[4], attribute=texts[5])]
        service.stub.ReportAttributes(ReportAttributesRequest(attributes=groups))
        assert len(service.store.attributes(0, 9)) == 1
        with sending(service.store, Decided(tmp_path, None), port) as traces:
            assert traces.step() is not None
    assert len(receiver.spans) == 1
    sent = b"".join(one.SerializeToString() for one in receiver.requests)
    assert [text for text in texts if text.encode() in sent] == []
    assert b"987654321" not in sent
