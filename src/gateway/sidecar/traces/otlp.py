"""Sends spans to an OTLP collector over gRPC, as often as it takes.

What `export` returned from is delivered, or the collector said that it will not have it; until then
the checkpoint stays where it is. A span that is sent again is the same span (`spans`), so a
collector that took a request and could not say so sees nothing new.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
from google.rpc.error_details_pb2 import RetryInfo
from grpc_status import rpc_status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans

from gateway.errors import CollectorError
from gateway.sidecar.traces.attributes import held
from gateway.sidecar.traces.collector import Collector

METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
SPANS_MAX = 2048
"""Spans in one request."""

BYTES_MAX = 1 << 20
"""Bytes of spans in one request: a quarter of what gRPC servers take by default."""

BACKOFF_FIRST_S, BACKOFF_MAX_S, RETRY_AFTER_MAX_S = 0.1, 5.0, 300.0
_MESSAGE_MAX = 200
_FIRST, _SECOND = b"\x0a", b"\x12"  # tags of fields 1 and 2
_RETRYABLE = {
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
}
"""By OTLP's specification; RESOURCE_EXHAUSTED too, where the collector says when to come back."""

_OPTIONS = (
    ("grpc.enable_retries", 0),  # ours are counted, and end when they are told to
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
)


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of spans: `rejected` ones the collector does not want, ever.

    `message`: what it said about them, cut.
    """

    accepted: int = 0
    rejected: int = 0
    message: str = ""

    def __add__(self, other: Sent) -> Sent:
        return Sent(
            self.accepted + other.accepted,
            self.rejected + other.rejected,
            other.message or self.message,
        )


class Exporter:
    """A connection to one collector, a context manager. One thread exports; any may `stop` it.

    `retries` counts requests that were sent again. `jitter`: a number from 0 to 1.
    """

    def __init__(
        self,
        collector: Collector,
        resource: Resource,
        *,
        version: str = "",
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.retries = 0
        self._collector = collector
        self._jitter = jitter
        self._stopped = threading.Event()
        self._under_way: Any = None
        scope = InstrumentationScope(name="gateway.sidecar", version=version)
        self._resource = ResourceSpans(resource=resource).SerializeToString()
        self._scope = ScopeSpans(scope=scope).SerializeToString()
        self._channel = _channel(collector)
        self._export = self._channel.unary_unary(
            METHOD, None, ExportTraceServiceResponse.FromString
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        self._channel.close()

    def stop(self) -> None:
        """End `export`, now and for ever: what waits for the collector raises CollectorError."""
        self._stopped.set()
        under_way = self._under_way
        if under_way is not None:
            under_way.cancel()

    def export(self, spans: Iterable[bytes]) -> Sent:
        """Deliver spans, in as many requests as it takes; waits as long as it takes.

        Raises:
            CollectorError: the collector refuses them for a reason that waiting does not mend, or
                `stop` was called. Some of them may have been delivered.
        """
        sent = Sent()
        for batch in batches(spans):
            sent += self._deliver(batch)
        return sent

    def _deliver(self, spans: list[bytes]) -> Sent:
        request, wait_s = self._request(spans), BACKOFF_FIRST_S
        while not self._stopped.is_set():
            try:
                response = self._send(request)
            except (grpc.RpcError, grpc.FutureCancelledError) as error:
                failure: Any = error
            else:
                return _outcome(response, len(spans))
            if self._stopped.is_set():
                break
            code = grpc.StatusCode.CANCELLED
            if isinstance(failure, grpc.RpcError):
                code = failure.code()
            after_s = _retry_after_s(failure)
            if code is grpc.StatusCode.RESOURCE_EXHAUSTED and after_s is None and len(spans) > 1:
                # Too much for it at once, most likely: a limit on a message's size says so.
                half = len(spans) // 2
                return self._deliver(spans[:half]) + self._deliver(spans[half:])
            if code not in _RETRYABLE and after_s is None:
                raise self._error(f"refuses spans: {code.name}")
            if after_s is None:
                after_s = wait_s * (0.5 + self._jitter() / 2)
                wait_s = min(2 * wait_s, BACKOFF_MAX_S)
            self.retries += 1
            self._stopped.wait(after_s)
        raise self._error("stopped before the collector had everything")

    def _send(self, request: bytes) -> ExportTraceServiceResponse:
        collector = self._collector
        future = self._export.future(
            request,
            timeout=collector.timeout_s,
            metadata=collector.headers,
            compression=grpc.Compression.Gzip if collector.gzip else None,
        )
        self._under_way = future
        if self._stopped.is_set():  # it may have been stopped before there was what to cancel
            future.cancel()
        try:
            response: ExportTraceServiceResponse = future.result()
        finally:
            self._under_way = None
        return response

    def _request(self, spans: list[bytes]) -> bytes:
        """Return an ExportTraceServiceRequest: spans ▸ scope ▸ resource, each with its length."""
        scope = self._scope + b"".join([held(_SECOND, one) for one in spans])
        return held(_FIRST, self._resource + held(_SECOND, scope))

    def _error(self, what: str) -> CollectorError:
        return CollectorError(
            what,
            subject=self._collector.target,
            hint="The spans stay in the journal; look at the collector's own log.",
        )


def batches(spans: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Cut spans into requests of at most SPANS_MAX and, but for a larger one, BYTES_MAX."""
    batch: list[bytes] = []
    size = 0
    for span in spans:
        if batch and (len(batch) >= SPANS_MAX or size + len(span) > BYTES_MAX):
            yield batch
            batch, size = [], 0
        batch.append(span)
        size += len(span)
    if batch:
        yield batch


def _outcome(response: ExportTraceServiceResponse, count: int) -> Sent:
    """Read a partial success: what was rejected is not sent again, says OTLP."""
    partial = response.partial_success
    rejected = min(max(partial.rejected_spans, 0), count)
    return Sent(count - rejected, rejected, partial.error_message[:_MESSAGE_MAX])


def _retry_after_s(error: Any) -> float | None:
    """Return when the collector says to come back, in seconds; None where it does not say."""
    if not isinstance(error, grpc.Call):
        return None
    try:
        status = rpc_status.from_call(error)
    except ValueError:  # details that contradict the status: nothing to rely on
        return None
    for detail in status.details if status is not None else ():
        info = RetryInfo()
        if detail.Unpack(info):
            delay_s = float(info.retry_delay.ToNanoseconds()) / 1e9
            return min(max(delay_s, 0.0), RETRY_AFTER_MAX_S)
    return None


def _channel(collector: Collector) -> grpc.Channel:
    if not collector.is_secure:
        return grpc.insecure_channel(collector.target, options=_OPTIONS)
    credentials = grpc.ssl_channel_credentials(
        _read(collector.certificate),
        _read(collector.client_key),
        _read(collector.client_certificate),
    )
    return grpc.secure_channel(collector.target, credentials, options=_OPTIONS)


def _read(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise CollectorError(
            f"cannot be read: {error.strerror}",
            subject=str(path),
            hint="Look at OTEL_EXPORTER_OTLP_CERTIFICATE, _CLIENT_KEY and _CLIENT_CERTIFICATE.",
        ) from None
