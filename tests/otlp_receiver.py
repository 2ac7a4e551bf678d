"""A small OTLP collector on a socket: takes spans, and misbehaves when told to."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

Fault = Callable[["Receiver", ExportTraceServiceRequest, Any], ExportTraceServiceResponse | None]
"""What happens to one request; None: it is taken as if nothing had been."""


@dataclass
class Receiver(TraceServiceServicer):
    """`faults` stand for the next requests; `spans` by (trace id, span id), as they came first."""

    faults: queue.SimpleQueue[Fault] = field(default_factory=queue.SimpleQueue)
    spans: dict[tuple[bytes, bytes], Span] = field(default_factory=dict)
    requests: list[ExportTraceServiceRequest] = field(default_factory=list)
    metadata: list[dict[str, Any]] = field(default_factory=list)
    sent_again: int = 0
    altered: int = 0
    arrived: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    released: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def Export(self, request: ExportTraceServiceRequest, context: Any) -> Any:  # noqa: N802
        with self.lock:
            self.requests.append(request)
            self.metadata.append(dict(context.invocation_metadata()))
        self.arrived.release()
        try:
            fault = self.faults.get_nowait()
        except queue.Empty:
            fault = None
        answer = fault(self, request, context) if fault else None
        if answer is None:
            self.take(spans_of(request))
            answer = ExportTraceServiceResponse()
        return answer

    def take(self, spans: list[Span]) -> None:
        with self.lock:
            for span in spans:
                known = self.spans.setdefault((span.trace_id, span.span_id), span)
                self.sent_again += known is not span
                self.altered += known != span


def spans_of(request: ExportTraceServiceRequest) -> list[Span]:
    return [
        span
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def is_server(span: Span) -> bool:
    """Say whether a span is the server's of a decision, and no stage's."""
    return span.name == "gateway.v1.DecisionService/Decide"


def server_spans(receiver: Receiver) -> set[tuple[bytes, bytes]]:
    """Return the ids of the server spans that came, each once."""
    with receiver.lock:
        return {ids for ids, span in receiver.spans.items() if is_server(span)}


def refuses(code: grpc.StatusCode, retry_after_s: float | None = None) -> Fault:
    def fault(receiver: Receiver, request: ExportTraceServiceRequest, context: Any) -> None:
        if retry_after_s is None:
            context.abort(code, "no")
        packed = AnyMessage()
        packed.Pack(RetryInfo(retry_delay=Duration(nanos=int(retry_after_s * 1e9))))
        status = Status(code=code.value[0], message="later", details=[packed])
        context.abort_with_status(rpc_status.to_status(status))

    return fault


def takes_and_says_nothing(
    receiver: Receiver, request: ExportTraceServiceRequest, context: Any
) -> None:
    """Take the spans, and fail before the answer: the worst of both."""
    receiver.take(spans_of(request))
    context.abort(grpc.StatusCode.UNAVAILABLE, "died")


def hangs(receiver: Receiver, request: ExportTraceServiceRequest, context: Any) -> None:
    """Answer nothing until the test ends or the caller has given up."""
    gone = threading.Event()
    if context.add_callback(gone.set):
        gone.wait(30)
    context.abort(grpc.StatusCode.ABORTED, "hung")


def is_slow(receiver: Receiver, request: ExportTraceServiceRequest, context: Any) -> None:
    """Take the spans once `released` is set."""
    receiver.released.wait(30)


def rejects(count: int, message: str = "too old") -> Fault:
    def fault(
        receiver: Receiver, request: ExportTraceServiceRequest, context: Any
    ) -> ExportTraceServiceResponse:
        receiver.take(spans_of(request)[count:])
        response = ExportTraceServiceResponse()
        response.partial_success.rejected_spans = count
        response.partial_success.error_message = message
        return response

    return fault


@contextmanager
def listening(
    receiver: Receiver,
    address: str = "127.0.0.1:0",
    credentials: grpc.ServerCredentials | None = None,
) -> Iterator[int]:
    """Serve until the block ends. Yields the port."""
    server = grpc.server(ThreadPoolExecutor(4), options=(("grpc.so_reuseport", 0),))
    add_TraceServiceServicer_to_server(receiver, server)
    if credentials is None:
        port = server.add_insecure_port(address)
    else:
        port = server.add_secure_port(address, credentials)
    server.start()
    try:
        yield port
    finally:
        receiver.released.set()
        server.stop(0).wait()
