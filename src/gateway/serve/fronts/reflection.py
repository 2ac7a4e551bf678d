"""Server reflection: what `grpcurl` and its like ask first.

grpcio's own registration lets it decode the messages, and what cannot be decoded then ends
as INTERNAL or UNKNOWN, with a traceback in the log, and two at once keep its server from
ever stopping. So they are decoded here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from gateway.inference import open_inference_pb2
from gateway.v1 import decision_pb2

SERVICES = (
    decision_pb2.DESCRIPTOR.services_by_name["DecisionService"].full_name,
    open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name,
    health_pb2.DESCRIPTOR.services_by_name["Health"].full_name,
    reflection.SERVICE_NAME,
)
_SERVICER = reflection.ReflectionServicer(SERVICES)
_SERVICER_ASYNC = reflection.aio.ReflectionServicer(SERVICES)
_MALFORMED = (grpc.StatusCode.INVALID_ARGUMENT, "not a ServerReflectionRequest")


def enable_reflection(server: Any) -> None:
    """Add the reflection service to a `grpc` or `grpc.aio` server."""
    handler = grpc.stream_stream_rpc_method_handler(
        _info_async if isinstance(server, grpc.aio.Server) else _info,
        response_serializer=ServerReflectionResponse.SerializeToString,
    )
    handlers = {"ServerReflectionInfo": handler}
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(reflection.SERVICE_NAME, handlers),)
    )


def _info(messages: Iterator[bytes], context: Any) -> Iterator[Any]:
    for message in messages:
        request = _decoded(message)
        if request is None:
            context.abort(*_MALFORMED)
        yield from _SERVICER.ServerReflectionInfo(iter((request,)), context)


async def _info_async(messages: AsyncIterator[bytes], context: Any) -> AsyncIterator[Any]:
    async for message in messages:
        request = _decoded(message)
        if request is None:
            await context.abort(*_MALFORMED)
        async for response in _SERVICER_ASYNC.ServerReflectionInfo(_only(request), context):
            yield response


def _decoded(message: bytes) -> Any:
    try:
        return ServerReflectionRequest.FromString(message)
    except DecodeError:
        return None


async def _only(request: Any) -> AsyncIterator[Any]:
    yield request
