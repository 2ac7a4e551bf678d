"""An OTLP collector that counts: it takes all spans, and knows which decisions they tell of.

For the demo, which shows that each decision's span arrives; a trace's back end it is not.
"""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from types import TracebackType
from typing import Any, Self

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from gateway.errors import ListenError
from gateway.sidecar.traces.otlp import METHOD

_DECISION_ID = "gateway.decision_id"
_BOOT_DIGITS = 16  # a decision's id begins with its boot


class Receiver:
    """Listens on a loopback port of the system's choice while its context is open.

    What arrives is kept as bytes until somebody counts: who sends calls beside it is not disturbed.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._requests: list[bytes] = []
        self._spans: dict[str, set[tuple[bytes, bytes]]] = {}
        self._server = grpc.server(ThreadPoolExecutor(1), options=(("grpc.so_reuseport", 0),))
        service, _, name = METHOD.strip("/").rpartition("/")
        export = grpc.unary_unary_rpc_method_handler(self._export)
        handler = grpc.method_handlers_generic_handler(service, {name: export})
        self._server.add_generic_rpc_handlers((handler,))
        self._port = 0

    @property
    def address(self) -> str:
        """Where to send: an OTLP endpoint."""
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        try:
            self._port = self._server.add_insecure_port("127.0.0.1:0")
        except RuntimeError:
            raise ListenError("no port is to be had for spans", subject="127.0.0.1:0") from None
        self._server.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.stop(0).wait()

    def decisions(self, boots: Collection[str]) -> int:
        """Count the decisions of those boots (as ids begin) whose server spans have arrived.

        A span that came twice counts once: by its trace and span id.
        """
        with self._lock:
            arrived, self._requests = self._requests, []
        for request in arrived:
            self._take(ExportTraceServiceRequest.FromString(request))
        return sum(len(self._spans.get(boot, ())) for boot in boots)

    def forget(self) -> None:
        """Begin to count anew."""
        with self._lock:
            self._requests, self._spans = [], {}

    def _export(self, request: bytes, _: Any) -> bytes:
        with self._lock:
            self._requests.append(request)
        return ExportTraceServiceResponse().SerializeToString()

    def _take(self, request: ExportTraceServiceRequest) -> None:
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    if span.kind == Span.SPAN_KIND_SERVER and (told := _decision_id(span)):
                        known = self._spans.setdefault(told[:_BOOT_DIGITS], set())
                        known.add((span.trace_id, span.span_id))


def _decision_id(span: Span) -> str:
    for one in span.attributes:
        if one.key == _DECISION_ID:
            return one.value.string_value
    return ""
