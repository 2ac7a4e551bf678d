"""FeedbackService on a socket: what is good goes in, what is wrong is said, without a value."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from feedback_events import NOW_US, Service, attribute, canary, event, served, stands_for
from google.rpc.error_details_pb2 import BadRequest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from grpc_status import rpc_status

from gateway.errors import JournalFull, ListenError
from gateway.sidecar.feedback.intake import Intake, Products
from gateway.sidecar.feedback.server import FeedbackServer
from gateway.sidecar.feedback.service import MESSAGE_BYTES_MAX, ROWS_MAX
from gateway.sidecar.feedback.together import ROWS_MAX as TOGETHER_MAX
from gateway.sidecar.feedback.together import Together
from gateway.v1.decision_pb2 import Action
from gateway.v1.feedback_pb2 import (
    FeedbackEvent,
    FeedbackKind,
    Liable,
    ReportAttributesRequest,
    ReportFeedbackRequest,
    ReportFeedbackResponse,
    SubjectAttribute,
)

PAN = "4111 1111 1111 1111"
DECISION = "0123456789abcdef-07-00000000002a"
FAR_S = -90_000
"""Before NOW_US: more than a day ahead of it."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with served(tmp_path_factory.mktemp("feedback"), "test", "card-present") as one:
        yield one


def report(service: Service, *events: FeedbackEvent) -> ReportFeedbackResponse:
    answer = service.stub.ReportFeedback(ReportFeedbackRequest(events=events), timeout=10)
    assert isinstance(answer, ReportFeedbackResponse)
    return answer


def summary(answer: Any) -> tuple[int, int, int]:
    return answer.accepted, answer.duplicates, answer.refused


def test_a_good_event_goes_in_though_its_neighbours_are_bad(service: Service) -> None:
    answer = report(
        service,
        event(1, product="tset"),
        event(1, source="mixed"),
        event(1, source="mixed"),
        event(1, source="mixed", amount=5),
        FeedbackEvent(),
    )
    assert summary(answer) == (1, 1, 3)
    assert [v.index for v in answer.violations][:2] == [0, 3]
    assert answer.violations[0].field == "product"
    assert "Did you mean test?" in answer.violations[0].description
    assert answer.violations[1].field == "source_event_id"
    assert "supersedes" in answer.violations[1].description
    (kept,) = [one for one in service.store.labels(0, 999) if one.label.source == "mixed"]
    assert kept.label.amount_minor == 1999
    assert kept.received_us == NOW_US


@pytest.mark.parametrize(
    ("changes", "field", "says"),
    [
        ({"product": ""}, "product", "is missing"),
        ({"transaction_id": ""}, "transaction_id", "so is decision_id"),
        ({"transaction_id": "x" * 129}, "transaction_id", "at most 128"),
        ({"decision_id": "no id"}, "decision_id", "is none"),
        ({"kind": 0}, "kind", "is missing, must be of CHARGEBACK"),
        ({"kind": 99}, "kind", "is unknown"),
        ({"occurred_time": None}, "occurred_time", "is missing"),
        ({"reported_time": None}, "reported_time", "is missing"),
        ({"occurred_time": 50}, "reported_time", "is before occurred_time"),
        ({"reported_time": FAR_S}, "reported_time", "a day ahead"),
        ({"occurred_time": NOW_US // 10**6}, "occurred_time", "no time after 1970"),
        ({"amount": -1}, "amount", "negative"),
        ({"currency": ""}, "currency", "is missing"),
        ({"amount": None}, "amount", "is missing"),
        ({"currency": "usd"}, "currency", "ISO 4217"),
        ({"liable": 9}, "liable", "is unknown"),
        ({"source": ""}, "source", "is missing"),
        ({"source": "two words"}, "source", "letters, digits"),
        ({"source": "4111-1111-1111-1111"}, "source", "payment card number"),
        ({"source_event_id": ""}, "source_event_id", "is missing"),
        ({"source_event_id": PAN}, "source_event_id", "payment card number"),
        ({"supersedes": PAN}, "supersedes", "payment card number"),
        ({"supersedes": "cb-1"}, "supersedes", "the event itself"),
        ({"kind": FeedbackKind.WITHDRAWN}, "supersedes", "is missing"),
        ({"subject": PAN}, "subject", "payment card number"),
        ({"subject": "s" * 257}, "subject", "at most 256"),
        ({"action": Action.DECLINE}, "action", "STAND_IN_ADVICE alone"),
        ({"category": "5411"}, "category", "STAND_IN_ADVICE alone"),
        ({"kind": FeedbackKind.STAND_IN_ADVICE}, "action", "is missing"),
        (
            {"kind": FeedbackKind.STAND_IN_ADVICE, "action": 1, "category": "54"},
            "category",
            "four-digit",
        ),
        (
            {"kind": FeedbackKind.STAND_IN_ADVICE, "action": 1, "decision_id": DECISION},
            "decision_id",
            "decided nothing",
        ),
        (
            {"kind": FeedbackKind.STAND_IN_ADVICE, "action": 77},
            "action",
            "is unknown",
        ),
    ],
)
def test_what_is_wrong_is_named_and_kept_out(
    service: Service, changes: dict[str, Any], field: str, says: str
) -> None:
    before = service.store.last()
    answer = report(service, event(1, **changes))
    assert summary(answer) == (0, 0, 1)
    assert any(v.field == field and says in v.description for v in answer.violations), answer
    assert service.store.last() == before


def test_every_field_is_kept(service: Service) -> None:
    advice = event(
        7,
        kind=FeedbackKind.STAND_IN_ADVICE,
        action=Action.STEP_UP,
        category="5411",
        subject="customer-7",
        source="every-field",
        product="card-present",
    )
    chargeback = event(
        8,
        decision_id=DECISION,
        transaction_id="",
        liable=Liable.CUSTOMER,
        amount=0,
        currency="JPY",
        supersedes="cb-7",
        source="every-field",
    )
    assert summary(report(service, advice, chargeback)) == (2, 0, 0)
    first, second = (
        one.label for one in service.store.labels(0, 999) if one.label.source == "every-field"
    )
    assert first._asdict() == {
        "product": "card-present",
        "transaction_id": "t-7",
        "decision_id": "",
        "kind": FeedbackKind.STAND_IN_ADVICE,
        "occurred_us": NOW_US - 3_600_000_000,
        "reported_us": NOW_US - 60_000_000,
        "amount_minor": 1999,
        "currency": "USD",
        "liable": 0,
        "source": "every-field",
        "source_event_id": "cb-7",
        "supersedes": "",
        "action": Action.STEP_UP,
        "category": "5411",
        "subject": stands_for("customer-7"),
    }
    assert (second.decision_id, second.liable, second.supersedes) == (DECISION, 3, "cb-7")
    assert (second.amount_minor, second.currency) == (0, "JPY")


def test_a_correction_is_kept_and_a_circle_of_them_is_not(service: Service) -> None:
    answer = report(
        service,
        event(2, source="circle", supersedes="cb-1"),
        event(1, source="circle", supersedes="cb-2"),
        event(3, source="circle", supersedes="cb-2", kind=FeedbackKind.WITHDRAWN),
    )
    assert summary(answer) == (2, 0, 1)
    assert [(v.index, v.field) for v in answer.violations] == [(1, "supersedes")]
    assert "leads back" in answer.violations[0].description


def test_a_stream_counts_across_its_messages(service: Service) -> None:
    events = [event(i, source="stream") for i in range(40)]
    events[13].product = "nobody"
    events[29].source = ""
    messages = [ReportFeedbackRequest(events=events[i : i + 8]) for i in range(0, 40, 8)]
    answer = service.stub.StreamFeedback(iter(messages), timeout=10)
    assert summary(answer) == (38, 0, 2)
    assert [(v.index, v.field) for v in answer.violations] == [(13, "product"), (29, "source")]
    assert summary(service.stub.StreamFeedback(iter(messages), timeout=10)) == (0, 38, 2)


def test_what_came_before_a_malformed_message_of_a_stream_is_kept(service: Service) -> None:
    good = ReportFeedbackRequest(events=[event(1, source="half")]).SerializeToString()
    with pytest.raises(grpc.RpcError) as raised:
        service.call("StreamFeedback", good, b"\xff")
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert summary(report(service, event(1, source="half"))) == (0, 1, 0)


def test_a_request_that_is_none_has_a_bad_request(service: Service) -> None:
    for method, payload, field in (
        ("ReportFeedback", b"\xff", "ReportFeedbackRequest"),
        ("ReportFeedback", b"", "events"),
        ("ReportFeedback", b"\x0a\x00" * (ROWS_MAX + 1), "events"),
        ("StreamFeedback", b"", "events"),
        ("ReportAttributes", b"\xff", "ReportAttributesRequest"),
        ("ReportAttributes", b"", "attributes"),
    ):
        with pytest.raises(grpc.RpcError) as raised:
            service.call(method, payload)
        error: Any = raised.value
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        bad = BadRequest()
        assert rpc_status.from_call(error).details[0].Unpack(bad)
        assert [one.field for one in bad.field_violations] == [field]


def test_a_message_that_is_too_long_is_refused(service: Service) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        service.call("ReportFeedback", b"\x0a\x00" * MESSAGE_BYTES_MAX)
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_attributes_are_kept_by_pseudonym_and_the_same_is_a_duplicate(service: Service) -> None:
    def tell(*some: SubjectAttribute) -> Any:
        return service.stub.ReportAttributes(ReportAttributesRequest(attributes=some), timeout=10)

    answer = tell(attribute(1), attribute(2), attribute(1), attribute(1, value="55+"))
    assert summary(answer) == (2, 1, 1)
    assert [(v.index, v.field) for v in answer.violations] == [(3, "value")]
    assert summary(tell(attribute(1, value="55+", reported_time=60))) == (1, 0, 0)
    kept = service.store.attributes(0, 99)
    assert [one.attribute.subject for one in kept] == [
        stands_for(f"customer-{i}") for i in (1, 2, 1)
    ]
    bad = tell(
        attribute(3, subject=PAN),
        attribute(3, value=PAN),
        attribute(3, attribute="age band"),
        attribute(3, value=""),
        attribute(3, source=""),
        attribute(3, reported_time=FAR_S),
        SubjectAttribute(),
    )
    assert summary(bad) == (0, 0, 7)
    assert [v.field for v in bad.violations if v.index < 6] == [
        *("subject", "value", "attribute", "value", "source", "reported_time")
    ]


def test_no_value_that_was_sent_is_in_an_answer_a_log_line_or_a_metric(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Canaries in every text, good and bad; and a store that fails in the middle."""
    texts: list[str] = []

    def word(tail: str = "") -> str:
        texts.append(canary())
        return texts[-1] + tail

    caplog.set_level(logging.DEBUG)
    answers = []
    with served(tmp_path) as service:
        many = [
            event(1, product=word()),
            event(1, transaction_id=word("x" * 200)),
            event(1, decision_id=word()),
            event(1, currency=word()),
            event(1, source=word(" ")),
            event(1, source_event_id=word("x" * 200)),
            event(1, supersedes=word("x" * 200)),
            event(1, subject=word("s" * 300)),
            event(1, category=word()),
            event(2, subject=word(), transaction_id=word(), source_event_id=word()),
        ]
        answers.append(str(service.stub.ReportFeedback(ReportFeedbackRequest(events=many))))
        groups = [
            attribute(1, subject=word("s" * 300)),
            attribute(1, value=word("v" * 300)),
            attribute(1, attribute=word(" ")),
            attribute(1, source=word(" ")),
            attribute(1, subject=word(), value=word()),
            attribute(1, subject=texts[-2], value=word()),
        ]
        request = ReportAttributesRequest(attributes=groups)
        answers.append(str(service.stub.ReportAttributes(request)))
        assert "refused: 5" in answers[-1]
        service.store.__exit__(None, None, None)
        for method, sent in (
            ("ReportFeedback", ReportFeedbackRequest(events=[event(3, subject=word())])),
            ("ReportAttributes", request),
        ):
            with pytest.raises(grpc.RpcError) as raised:
                service.call(method, sent.SerializeToString())
            assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
            answers.append(f"{raised.value.details()} {raised.value.trailing_metadata()}")
        answers.append(str(service.counted()))
    said = "\n".join((*answers, caplog.text))
    assert len(texts) > 15
    assert [text for text in texts if text in said] == []
    assert str(tmp_path) not in "\n".join(answers)


def test_a_fault_of_ours_tells_neither_its_class_nor_its_text(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> None:
        raise KeyError("canary-of-a-bug")

    monkeypatch.setattr(service.store, "add_labels", fails)
    with pytest.raises(grpc.RpcError) as raised:
        report(service, event(1))
    assert raised.value.code() is grpc.StatusCode.INTERNAL
    assert "KeyError" not in raised.value.details()
    assert "canary" not in raised.value.details() + caplog.text
    assert "KeyError at" in caplog.text


def test_a_full_disk_keeps_nothing_and_says_so(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_full(*_: object) -> None:
        raise JournalFull("cannot write: no space is left", subject="/a/path")

    monkeypatch.setattr(service.store, "add_labels", is_full)
    with pytest.raises(grpc.RpcError) as raised:
        report(service, event(1, source="full"))
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert raised.value.details() == "nothing was kept: cannot write: no space is left"
    monkeypatch.undo()
    assert summary(report(service, event(1, source="full"))) == (1, 0, 0)


def test_calls_that_come_together_have_each_their_own_answer(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One commit is held until the others are on their way; one of them meets a bug."""
    keep, entered, released = service.store.add_labels, threading.Event(), threading.Event()

    def held(labels: Any, received_us: int) -> Any:
        entered.set()
        assert released.wait(60)
        if any(one.source_event_id == "cb-13" for one in labels):
            raise KeyError("a bug")
        return keep(labels, received_us)

    monkeypatch.setattr(service.store, "add_labels", held)
    requests = [
        ReportFeedbackRequest(
            events=[event(i, source="together"), event(i, source=f"bad one {i}"), event(0)]
        )
        for i in range(20)
    ]
    calls = [service.stub.ReportFeedback.future(requests[0], timeout=20)]
    assert entered.wait(60)
    calls += [service.stub.ReportFeedback.future(one, timeout=20) for one in requests[1:]]
    released.set()
    failed = calls.pop(13)
    assert failed.code() is grpc.StatusCode.INTERNAL
    answers = [one.result() for one in calls]
    assert {one.accepted + one.duplicates for one in answers} == {2}
    assert {(one.refused, one.violations[0].index) for one in answers} == {(1, 1)}


def test_what_waits_at_the_same_time_is_kept_at_once() -> None:
    """And what is more than fits has the next commit, whole; who is alone waits for nobody."""
    kept: list[list[int]] = []

    def keep(rows: Any) -> list[str]:
        kept.append(list(rows))
        return [f"{row}!" for row in rows]

    async def told() -> None:
        together = Together(keep)
        answers = await asyncio.gather(*(together.take([i, -i]) for i in range(20)))
        assert answers == [[f"{i}!", f"{-i}!"] for i in range(20)]
        assert [len(rows) for rows in kept] == [40]
        assert await together.take([7]) == ["7!"]
        large = [list(range(i, i + TOGETHER_MAX - 1)) for i in (0, 10, 20)]
        answers = await asyncio.gather(*map(together.take, large))
        assert [len(rows) for rows in kept[2:]] == [2 * len(large[0]), len(large[0])]
        assert [len(one) for one in answers] == [len(one) for one in large]
        many = await asyncio.gather(*(together.take([i]) for i in range(500)))
        assert many == [[f"{i}!"] for i in range(500)]

    asyncio.run(told())


def test_a_store_that_fails_fails_all_that_waited_and_a_bug_one() -> None:
    def keep(rows: Any) -> list[int]:
        if 13 in rows:
            raise KeyError("a bug")
        if 666 in rows:
            raise JournalFull("no space")
        return list(rows)

    async def told() -> None:
        together = Together(keep)
        some = [together.take([i]) for i in (12, 13, 14)]
        answers = await asyncio.gather(*some, return_exceptions=True)
        assert [type(one) for one in answers] == [list, KeyError, list]
        some = [together.take([i]) for i in (1, 666, 2)]
        answers = await asyncio.gather(*some, return_exceptions=True)
        assert [type(one) for one in answers] == [JournalFull] * 3
        assert await together.take([1]) == [1]

    asyncio.run(told())


def test_a_caller_that_leaves_is_no_error_and_what_it_sent_is_kept(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It leaves while its events go to the disk; or while a bug keeps them from it."""
    keep, entered, released = service.store.add_labels, threading.Event(), threading.Event()

    def held(labels: Any, received_us: int) -> Any:
        entered.set()
        assert released.wait(60)
        if any(one.transaction_id == "t-666" for one in labels):
            raise KeyError("canary-of-a-bug")
        return keep(labels, received_us)

    monkeypatch.setattr(service.store, "add_labels", held)
    for number in (1, 666):
        request = ReportFeedbackRequest(events=[event(number, source="leaves")])
        entered.clear()
        released.clear()
        call = service.stub.ReportFeedback.future(request, timeout=20)
        assert entered.wait(60)
        call.cancel()
        released.set()
    monkeypatch.undo()
    answer = report(service, event(1, source="leaves"))
    assert summary(answer) == (0, 1, 0)
    gc.collect()
    assert "canary" not in caplog.text
    assert "Traceback" not in caplog.text


def test_labels_are_counted_by_what_became_of_them(tmp_path: Path) -> None:
    with served(tmp_path) as service:
        one, two = event(1), event(2, kind=FeedbackKind.REFUND)
        report(service, one, two, one, event(1, amount=1), event(3, product="x"), event(4, kind=0))
        some = [attribute(1), attribute(1), attribute(1, value="18-34"), attribute(2, subject="")]
        service.stub.ReportAttributes(ReportAttributesRequest(attributes=some))
        assert service.counted() == {
            ("test", "chargeback", "accepted"): 1,
            ("test", "refund", "accepted"): 1,
            ("test", "chargeback", "duplicate"): 1,
            ("test", "chargeback", "refused"): 1,
            ("unknown", "chargeback", "refused"): 1,
            ("test", "unknown", "refused"): 1,
            ("accepted",): 1,
            ("duplicate",): 1,
            ("refused",): 2,
        }


def test_a_product_is_known_once_it_has_been_served(tmp_path: Path) -> None:
    with served(tmp_path, "first") as service:
        assert "Did you mean first?" in str(report(service, event(1, product="firts")))
        assert summary(report(service, event(1))) == (0, 0, 1)
        (tmp_path / "generations" / "test").mkdir()
        assert summary(report(service, event(1))) == (1, 0, 0)


def test_without_a_served_product_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "generations").mkdir()
    (tmp_path / "generations" / "not a product").mkdir()
    with served(tmp_path, "test") as service:
        (tmp_path / "generations" / "test").rmdir()
        assert "has served none yet" in str(report(service, event(1)))


def test_health_and_reflection(tmp_path: Path) -> None:
    rest: list[int] = []
    with served(tmp_path) as service:
        health = HealthStub(service.channel)
        for name in ("", "gateway.v1.FeedbackService"):
            answer = health.Check(HealthCheckRequest(service=name), timeout=5)
            assert answer.status == HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as raised:
            health.Check(HealthCheckRequest(service="nobody"), timeout=5)
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND
        watch = health.Watch(HealthCheckRequest(service=""), timeout=20)
        assert next(watch).status == HealthCheckResponse.SERVING
        listed = ProtoReflectionDescriptorDatabase(service.channel)
        assert "gateway.v1.FeedbackService" in listed.get_services()
        assert "FeedbackEvent" in str(listed.FindFileByName("gateway/v1/feedback.proto"))
        listener = threading.Thread(target=lambda: rest.extend(one.status for one in watch))
        listener.start()
    listener.join(60)
    assert rest == [HealthCheckResponse.NOT_SERVING]


def test_a_port_in_use_is_an_error(service: Service) -> None:
    intake = Intake(service.store, Products(None), stands_for, service.counts)  # type: ignore[arg-type]
    with pytest.raises(ListenError, match="in use"), FeedbackServer(service.address, intake):
        pass


def test_whatever_arrives_has_a_status(service: Service) -> None:
    """Random bytes, and good requests with some bytes changed: no INTERNAL, no UNKNOWN, no hang."""
    chance = random.Random(11)
    good = [
        ReportFeedbackRequest(
            events=[event(i, source="fuzz", subject=f"s-{i}") for i in range(3)]
        ).SerializeToString(),
        ReportAttributesRequest(attributes=[attribute(i) for i in range(3)]).SerializeToString(),
    ]
    seen: dict[str, int] = {}
    for _ in range(1500):
        payload = bytearray(chance.choice(good))
        for _ in range(chance.randrange(1, 5)):
            payload[chance.randrange(len(payload))] = chance.randrange(256)
        if chance.random() < 0.3:
            payload = bytearray(chance.randbytes(chance.randrange(80)))
        method = chance.choice(("ReportFeedback", "StreamFeedback", "ReportAttributes"))
        try:
            service.call(method, bytes(payload))
            code = "OK"
        except grpc.RpcError as error:
            code = error.code().name
        seen[code] = seen.get(code, 0) + 1
    for path in ("/grpc.health.v1.Health/Check", "/gateway.v1.FeedbackService/Nothing"):
        with pytest.raises(grpc.RpcError) as raised:
            service.channel.unary_unary(path)(b"\xff\xff", timeout=10)
        seen.setdefault(raised.value.code().name, 1)
    reflect = service.channel.stream_stream(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    )
    with pytest.raises(grpc.RpcError) as raised:
        list(reflect(iter([b"\xff\xff"]), timeout=10))
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert seen.keys() <= {"OK", "INVALID_ARGUMENT", "UNIMPLEMENTED"}, seen
    assert seen["OK"] > 50
    assert seen["INVALID_ARGUMENT"] > 100
    # What went in can be read, and every label is one that would go in again.
    for kept in service.store.labels(0, 10_000):
        assert kept.label.product in ("test", "card-present")
