"""gateway.v1.FeedbackService, with health and reflection beside it, as grpc.aio's handlers.

Messages come and go as bytes: what cannot be decoded is the caller's fault and gets its status, not
a traceback of grpcio's. No text of an error has a value that was sent, a class's name or a path.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest

from gateway.errors import JournalError
from gateway.sidecar.feedback.intake import Answer, Intake
from gateway.sidecar.feedback.store import Taken
from gateway.sidecar.feedback.together import Together
from gateway.v1 import feedback_pb2
from gateway.v1.feedback_pb2 import (
    FeedbackViolation,
    ReportAttributesRequest,
    ReportAttributesResponse,
    ReportFeedbackRequest,
    ReportFeedbackResponse,
)

SERVICE = feedback_pb2.DESCRIPTOR.services_by_name["FeedbackService"].full_name

MESSAGE_BYTES_MAX = 1 << 20
ROWS_MAX = 1000
"""Events or attributes in one message."""

STREAM_VIOLATIONS_MAX = 1000
"""A stream's answer holds so many; the rest is counted."""

_HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
_SERVICES = (SERVICE, _HEALTH, reflection.SERVICE_NAME)
_Serving = health_pb2.HealthCheckResponse

log = logging.getLogger(__name__)


class _RefusalError(Exception):
    """A call ends with a status that its caller may know."""

    def __init__(self, code: grpc.StatusCode, message: str, field: str = "") -> None:
        super().__init__(message)
        self.code, self.message, self.field = code, message, field


class FeedbackService:
    """The methods, over one intake. All of it runs on one event loop."""

    def __init__(self, intake: Intake) -> None:
        self._labels = Together(intake.labels)
        self._groups = Together(intake.attributes)
        self._stopping = asyncio.Event()
        self._reflection = reflection.aio.ReflectionServicer(_SERVICES)

    def add_to(self, server: Any) -> None:
        """Register every method with a grpc.aio server."""
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        for name, handlers in {
            SERVICE: {
                "ReportFeedback": unary(_answered(self._report)),
                "StreamFeedback": grpc.stream_unary_rpc_method_handler(_answered(self._stream)),
                "ReportAttributes": unary(_answered(self._attributes)),
            },
            _HEALTH: {"Check": unary(_answered(self._check)), "Watch": stream(self._watch)},
            reflection.SERVICE_NAME: {
                "ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(self._reflect)
            },
        }.items():
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))

    def stopping(self) -> None:
        """Say NOT_SERVING from now on."""
        self._stopping.set()

    async def _report(self, payload: bytes, _: Any) -> bytes:
        told = _Told()
        told.add(await self._labels.take(_events(payload)))
        return told.response(ReportFeedbackResponse)

    async def _stream(self, payloads: AsyncIterator[bytes], _: Any) -> bytes:
        told = _Told(STREAM_VIOLATIONS_MAX)
        async for payload in payloads:
            told.add(await self._labels.take(_events(payload)))
        return told.response(ReportFeedbackResponse)

    async def _attributes(self, payload: bytes, _: Any) -> bytes:
        request = _decoded(ReportAttributesRequest, payload)
        _expect_rows(len(request.attributes), "attributes")
        told = _Told()
        told.add(await self._groups.take(request.attributes))
        return told.response(ReportAttributesResponse)

    async def _check(self, payload: bytes, _: Any) -> bytes:
        name = _decoded(health_pb2.HealthCheckRequest, payload).service
        if name not in ("", SERVICE):
            raise _RefusalError(grpc.StatusCode.NOT_FOUND, "unknown service")
        return self._status()

    async def _watch(self, payload: bytes, context: Any) -> AsyncIterator[bytes]:
        try:
            name = _decoded(health_pb2.HealthCheckRequest, payload).service
        except _RefusalError as refused:
            await context.abort(refused.code, refused.message)
            return
        if name in ("", SERVICE):
            yield self._status()
        else:
            yield _Serving(status=_Serving.SERVICE_UNKNOWN).SerializeToString()
        await self._stopping.wait()
        if name in ("", SERVICE):
            yield self._status()

    def _status(self) -> bytes:
        stops = self._stopping.is_set()
        status = _Serving.NOT_SERVING if stops else _Serving.SERVING
        encoded: bytes = _Serving(status=status).SerializeToString()
        return encoded

    async def _reflect(self, payloads: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for payload in payloads:
            try:
                request = ServerReflectionRequest.FromString(payload)
            except DecodeError:
                message = "not a ServerReflectionRequest"
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, message)
                return
            async for one in self._reflection.ServerReflectionInfo(_only(request), context):
                yield one.SerializeToString()


def _answered(
    method: Callable[[Any, Any], Awaitable[bytes]],
) -> Callable[[Any, Any], Awaitable[bytes]]:
    """Let what a method raises end its call with a status that tells no more than it should."""

    async def answered(given: Any, context: Any) -> bytes:
        details: tuple[tuple[str, bytes], ...] = ()
        try:
            return await method(given, context)
        except _RefusalError as refused:
            code, message = refused.code, refused.message
            details = _details(refused)
        except JournalError as error:
            # The log of an operator may have the path, a caller's need not.
            log.error("labels are not taken: %s. %s", error, error.hint)
            code, message = grpc.StatusCode.UNAVAILABLE, f"nothing was kept: {error.what}"
        except Exception as error:
            # Its text may hold what was sent; where it was raised does not.
            place = traceback.extract_tb(error.__traceback__)[-1]
            log.error("%s at %s:%s", type(error).__name__, place.filename, place.lineno)
            code = grpc.StatusCode.INTERNAL
            message = "the sidecar failed: its log says where; send it again"
        await context.abort(code, message, details)
        raise AssertionError("abort raises")

    return answered


def _events(payload: bytes) -> Any:
    request = _decoded(ReportFeedbackRequest, payload)
    _expect_rows(len(request.events), "events")
    return request.events


def _decoded(kind: Any, payload: bytes) -> Any:
    try:
        return kind.FromString(payload)
    except DecodeError:
        name = kind.DESCRIPTOR.name
        raise _RefusalError(grpc.StatusCode.INVALID_ARGUMENT, f"not a {name}", name) from None


def _expect_rows(count: int, field: str) -> None:
    said = "is empty" if not count else f"has {count}, at most {ROWS_MAX} are taken"
    if not 0 < count <= ROWS_MAX:
        raise _RefusalError(grpc.StatusCode.INVALID_ARGUMENT, f"{field} {said}", field)


class _Told:
    """What a caller is told, message after message; of at most so many `violations`."""

    def __init__(self, violations_max: int = 2**62) -> None:
        self._counts = Counter[Taken]()
        self._seen = 0
        self._violations: list[FeedbackViolation] = []
        self._violations_max = violations_max

    def add(self, answers: Sequence[Answer]) -> None:
        for index, answer in enumerate(answers, self._seen):
            if isinstance(answer, Taken):
                self._counts[answer] += 1
            elif len(self._violations) < self._violations_max:
                self._violations += [
                    FeedbackViolation(index=index, field=field, description=description)
                    for field, description in answer
                ]
        self._seen += len(answers)

    def response(self, kind: Any) -> bytes:
        accepted, known = self._counts[Taken.ACCEPTED], self._counts[Taken.DUPLICATE]
        response = kind(accepted=accepted, duplicates=known, violations=self._violations)
        response.refused = self._seen - accepted - known
        encoded: bytes = response.SerializeToString()
        return encoded


def _details(refused: _RefusalError) -> tuple[tuple[str, bytes], ...]:
    """Return the trailers of a refusal: google.rpc.Status with a BadRequest."""
    if not refused.field:
        return ()
    bad, held = BadRequest(), AnyMessage()
    bad.field_violations.add(field=refused.field, description=refused.message)
    held.Pack(bad)
    status = Status(code=refused.code.value[0], message=refused.message, details=[held])
    return (("grpc-status-details-bin", status.SerializeToString()),)


async def _only(request: Any) -> AsyncIterator[Any]:
    yield request
