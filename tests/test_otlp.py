"""Spans over a real socket to a collector that refuses, hangs, is slow, dies and rejects."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import journalled
import pytest
import trustme
from grpc import StatusCode
from otlp_receiver import (
    Fault,
    Receiver,
    hangs,
    is_slow,
    listening,
    refuses,
    rejects,
    takes_and_says_nothing,
)

from gateway.errors import CollectorError, UsageError
from gateway.sidecar.traces import otlp
from gateway.sidecar.traces.collector import Collector, collector_of, resource_of
from gateway.sidecar.traces.otlp import Exporter, Sent, batches
from gateway.sidecar.traces.spans import SpanEncoder

RESOURCE = resource_of({}, host="host-1", version="1.2.3")


def encoded(count: int) -> list[bytes]:
    encoder = SpanEncoder()
    return [
        span for n in range(1, count + 1) for span in encoder.of_call(journalled.call(sequence=n))
    ]


SPANS = encoded(10)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp, "BACKOFF_FIRST_S", 0.01)


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
def exporter(receiver: Receiver) -> Iterator[Exporter]:
    with listening(receiver) as port:
        collector = Collector(f"127.0.0.1:{port}", headers=(("x-tenant", "a b"),), timeout_s=60)
        with Exporter(collector, RESOURCE, version="1.2.3") as one:
            yield one


def told(receiver: Receiver, faults: Sequence[Fault]) -> None:
    for fault in faults:
        receiver.faults.put(fault)


def test_spans_arrive_as_they_were_made_under_their_resource_with_the_headers(
    receiver: Receiver, exporter: Exporter
) -> None:
    assert exporter.export(SPANS) == Sent(accepted=10)
    made = {one.SerializeToString(deterministic=True) for one in receiver.spans.values()}
    assert len(made) == 10
    (request,) = receiver.requests
    (resource,) = request.resource_spans
    named = {one.key: one.value.string_value for one in resource.resource.attributes}
    assert named == {
        "service.name": "gateway", "service.version": "1.2.3", "host.name": "host-1",
    }  # fmt: skip
    assert resource.scope_spans[0].scope.name == "gateway.sidecar"
    assert receiver.metadata[0]["x-tenant"] == "a b"
    assert exporter.export([]) == Sent()
    assert len(receiver.requests) == 1


@pytest.mark.parametrize(
    "faults",
    [
        [refuses(StatusCode.UNAVAILABLE)] * 3,
        [refuses(code) for code in sorted(otlp._RETRYABLE, key=str)],
        [refuses(StatusCode.RESOURCE_EXHAUSTED, retry_after_s=0.01)] * 2,
        [takes_and_says_nothing, takes_and_says_nothing],
    ],
    ids=["unavailable", "each retryable", "exhausted for now", "died before its answer"],
)
def test_what_passes_is_retried_and_nothing_is_lost_or_different(
    faults: list[Fault], receiver: Receiver, exporter: Exporter
) -> None:
    told(receiver, faults)
    assert exporter.export(SPANS) == Sent(accepted=10)
    assert exporter.retries == len(faults)
    assert len(receiver.spans) == 10
    assert receiver.altered == 0
    assert receiver.sent_again == 10 * faults.count(takes_and_says_nothing)


def test_the_collectors_own_word_on_when_to_come_back_is_kept(
    receiver: Receiver, exporter: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []

    def wait(seconds: float) -> bool:
        waited.append(seconds)
        return False

    monkeypatch.setattr(exporter._stopped, "wait", wait)
    told(receiver, [refuses(StatusCode.UNAVAILABLE, retry_after_s=0.75)])
    told(receiver, [refuses(StatusCode.UNAVAILABLE)] * 12)
    exporter.export(SPANS)
    assert waited[0] == 0.75
    assert waited[1:] != sorted(waited[1:], reverse=True)
    assert 0.005 <= waited[1] <= 0.01
    assert otlp.BACKOFF_MAX_S / 2 <= waited[-1] <= otlp.BACKOFF_MAX_S


@pytest.mark.parametrize(
    "code", [StatusCode.UNAUTHENTICATED, StatusCode.UNIMPLEMENTED, StatusCode.INVALID_ARGUMENT]
)
def test_what_does_not_pass_is_said_and_not_retried(
    code: StatusCode, receiver: Receiver, exporter: Exporter
) -> None:
    told(receiver, [refuses(code)])
    with pytest.raises(CollectorError, match=code.name):
        exporter.export(SPANS)
    assert len(receiver.requests) == 1
    assert exporter.export(SPANS) == Sent(accepted=10), "the connection goes on"


def test_rejected_spans_are_counted_and_not_sent_again(
    receiver: Receiver, exporter: Exporter
) -> None:
    told(receiver, [rejects(3, "x" * 5000)])
    sent = exporter.export(SPANS)
    assert (sent.accepted, sent.rejected) == (7, 3)
    assert sent.message == "x" * 200
    assert len(receiver.requests) == 1
    told(receiver, [rejects(0, "a warning")])
    assert exporter.export(SPANS) == Sent(10, 0, "a warning")


@pytest.mark.parametrize("count", [-1, 1000])
def test_a_collector_that_counts_wrong_does_not_make_us_count_wrong(
    count: int, receiver: Receiver, exporter: Exporter
) -> None:
    told(receiver, [rejects(count)])
    sent = exporter.export(SPANS)
    assert sent.accepted + sent.rejected == 10
    assert min(sent.accepted, sent.rejected) == 0


def test_a_collector_that_hangs_is_left_at_the_timeout_and_asked_again(
    receiver: Receiver,
) -> None:
    told(receiver, [hangs, hangs])
    with listening(receiver) as port:
        collector = Collector(f"127.0.0.1:{port}", timeout_s=0.3)
        with Exporter(collector, RESOURCE) as exporter:
            assert exporter.export(SPANS) == Sent(accepted=10)
            assert exporter.retries >= 2


@pytest.mark.parametrize("fault", [hangs, refuses(StatusCode.UNAVAILABLE, retry_after_s=60)])
def test_stopping_ends_what_waits_at_once(
    fault: Fault, receiver: Receiver, exporter: Exporter
) -> None:
    told(receiver, [fault])
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(exporter.export, SPANS)
        assert receiver.arrived.acquire(timeout=60)
        exporter.stop()
        with pytest.raises(CollectorError, match="stopped"):
            waiting.result(timeout=30)
    with pytest.raises(CollectorError, match="stopped"):
        exporter.export(SPANS)


def test_a_slow_collector_slows_the_exporter_and_is_not_asked_twice(
    receiver: Receiver, exporter: Exporter
) -> None:
    told(receiver, [is_slow])
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(exporter.export, SPANS)
        assert receiver.arrived.acquire(timeout=60)
        assert not waiting.done()
        receiver.released.set()
        assert waiting.result(timeout=60) == Sent(accepted=10)
    assert len(receiver.requests) == 1


def test_a_collector_that_comes_later_and_again_gets_everything(tmp_path: Path) -> None:
    """Nobody listens, then one does, dies, and another one takes its place."""
    address = f"unix:{tmp_path / 'collector.sock'}"
    first, second = Receiver(), Receiver()
    with (
        Exporter(Collector(address, timeout_s=5), RESOURCE) as exporter,
        ThreadPoolExecutor(1) as pool,
    ):
        waiting = pool.submit(exporter.export, SPANS)
        with listening(first, address):
            assert waiting.result(timeout=60) == Sent(accepted=10)
        later = pool.submit(exporter.export, encoded(20)[10:])
        with listening(second, address):
            assert later.result(timeout=60) == Sent(accepted=10)
    assert len(first.spans) == len(second.spans) == 10


def test_requests_are_bounded_and_hold_every_span_once(
    receiver: Receiver, exporter: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(otlp, "SPANS_MAX", 4)
    assert exporter.export(SPANS) == Sent(accepted=10)
    assert [len(one.resource_spans[0].scope_spans[0].spans) for one in receiver.requests] == [
        *(4, 4, 2)
    ]
    assert (len(receiver.spans), receiver.sent_again) == (10, 0)
    monkeypatch.setattr(otlp, "BYTES_MAX", 25)
    assert list(batches([b"x" * 10] * 5 + [b"y" * 99, b"z"])) == [
        [b"x" * 10] * 2, [b"x" * 10] * 2, [b"x" * 10], [b"y" * 99], [b"z"],
    ]  # fmt: skip


def test_a_request_that_is_too_large_for_the_collector_is_halved(
    receiver: Receiver, exporter: Exporter
) -> None:
    told(receiver, [refuses(StatusCode.RESOURCE_EXHAUSTED)] * 2)
    assert exporter.export(SPANS) == Sent(accepted=10)
    assert len(receiver.spans) == 10
    told(receiver, [refuses(StatusCode.RESOURCE_EXHAUSTED)])
    with pytest.raises(CollectorError, match="RESOURCE_EXHAUSTED"):
        exporter.export(SPANS[:1])


def test_over_tls_with_compression_and_only_with_the_right_authority(
    tmp_path: Path, receiver: Receiver
) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    credentials = grpc.ssl_server_credentials(
        [(certificate.private_key_pem.bytes(), certificate.cert_chain_pems[0].bytes())]
    )
    for name, one in (("ours", authority), ("strangers", stranger)):
        one.cert_pem.write_to_path(str(tmp_path / name))
    with listening(receiver, credentials=credentials) as port:
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"https://localhost:{port}",
            "OTEL_EXPORTER_OTLP_CERTIFICATE": str(tmp_path / "ours"),
            "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        }
        collector = collector_of(environment)
        assert collector is not None
        with Exporter(collector, RESOURCE) as exporter:
            assert exporter.export(SPANS) == Sent(accepted=10)
        wrong = collector_of(
            {**environment, "OTEL_EXPORTER_OTLP_CERTIFICATE": str(tmp_path / "strangers")}
        )
        assert wrong is not None
        with Exporter(wrong, RESOURCE) as exporter:
            threading.Timer(0.5, exporter.stop).start()
            with pytest.raises(CollectorError):
                exporter.export(SPANS)
    assert len(receiver.requests) == 1


def test_a_collector_that_asks_for_our_certificate_gets_it(
    tmp_path: Path, receiver: Receiver
) -> None:
    authority = trustme.CA()
    theirs, ours = authority.issue_cert("localhost"), authority.issue_cert("client")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    ours.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    ours.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    credentials = grpc.ssl_server_credentials(
        [(theirs.private_key_pem.bytes(), theirs.cert_chain_pems[0].bytes())],
        root_certificates=authority.cert_pem.bytes(),
        require_client_auth=True,
    )
    with listening(receiver, credentials=credentials) as port:
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"https://localhost:{port}",
            "OTEL_EXPORTER_OTLP_CERTIFICATE": str(tmp_path / "ca.pem"),
        }
        without = collector_of(environment)
        both = collector_of(
            {
                **environment,
                "OTEL_EXPORTER_OTLP_CLIENT_KEY": str(tmp_path / "key.pem"),
                "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": str(tmp_path / "cert.pem"),
            }
        )
        assert without is not None
        assert both is not None
        with Exporter(without, RESOURCE) as exporter:
            threading.Timer(0.3, exporter.stop).start()
            with pytest.raises(CollectorError, match="stopped"):
                exporter.export(SPANS)
        assert receiver.requests == []
        with Exporter(both, RESOURCE) as exporter:
            assert exporter.export(SPANS) == Sent(accepted=10)


def test_a_certificate_that_is_not_there_is_named(tmp_path: Path) -> None:
    collector = Collector("localhost:1", is_secure=True, certificate=tmp_path / "absent.pem")
    with pytest.raises(CollectorError, match=r"absent\.pem: cannot be read"):
        Exporter(collector, RESOURCE)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"ENDPOINT": " "}, None),
        ({"ENDPOINT": "http://c"}, Collector("c:4317")),
        ({"ENDPOINT": "https://c:1/"}, Collector("c:1", is_secure=True)),
        ({"ENDPOINT": "c:4317"}, Collector("c:4317", is_secure=True)),
        ({"ENDPOINT": "c:4317", "INSECURE": "true"}, Collector("c:4317")),
        ({"ENDPOINT": "http://[::1]:9"}, Collector("[::1]:9")),
        ({"ENDPOINT": "unix:/run/c"}, Collector("unix:/run/c")),
        ({"ENDPOINT": "http://a", "TRACES_ENDPOINT": "http://b"}, Collector("b:4317")),
        ({"ENDPOINT": "http://c", "TIMEOUT": "2500"}, Collector("c:4317", timeout_s=2.5)),
        ({"ENDPOINT": "http://c", "COMPRESSION": "gzip"}, Collector("c:4317", gzip=True)),
        (
            {"ENDPOINT": "http://c", "HEADERS": "Api-Key=a%20b=c, x=1,"},
            Collector("c:4317", headers=(("api-key", "a b=c"), ("x", "1"))),
        ),
    ],
)
def test_the_environment_says_where_and_how(
    environment: dict[str, str], expected: Collector | None
) -> None:
    named = {f"OTEL_EXPORTER_OTLP_{key}": value for key, value in environment.items()}
    assert collector_of(named) == expected


def test_the_command_line_stands_before_the_environment() -> None:
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a"}
    assert collector_of(environment, "http://b") == Collector("b:4317")
    assert collector_of({**environment, "OTEL_SDK_DISABLED": "true"}, "http://b") is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"ENDPOINT": "ftp://c"},
        {"ENDPOINT": "http://c:port"},
        {"ENDPOINT": "http://c/v1/traces"},
        {"ENDPOINT": "http://u:secret@c"},
        {"PROTOCOL": "http/protobuf"},
        {"COMPRESSION": "zstd"},
        {"TIMEOUT": "soon"},
        {"TIMEOUT": "nan"},
        {"HEADERS": "sesame-open"},
        {"CLIENT_KEY": "k"},
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_without_repeating_a_secret(wrong: dict[str, str]) -> None:
    given = {"ENDPOINT": "http://c", **wrong}
    named = {f"OTEL_EXPORTER_OTLP_{key}": value for key, value in given.items()}
    with pytest.raises(UsageError) as caught:
        collector_of(named)
    assert "sesame" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_the_resource_is_what_the_environment_says_before_what_we_know() -> None:
    environment = {
        "OTEL_RESOURCE_ATTRIBUTES": "service.name=a,deployment.environment.name=p%2C1",
        "OTEL_SERVICE_NAME": "b",
    }
    resource = resource_of(environment, host="h", version="1")
    assert {one.key: one.value.string_value for one in resource.attributes} == {
        "service.name": "b",
        "service.version": "1",
        "host.name": "h",
        "deployment.environment.name": "p,1",
    }
