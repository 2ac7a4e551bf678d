"""Server reflection: what `grpcurl` and its like ask first."""

from __future__ import annotations

from typing import Any

from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection

from gateway.v1 import decision_pb2

SERVICES = (
    decision_pb2.DESCRIPTOR.services_by_name["DecisionService"].full_name,
    health_pb2.DESCRIPTOR.services_by_name["Health"].full_name,
    reflection.SERVICE_NAME,
)


def enable_reflection(server: Any) -> None:
    """Add the reflection service to a `grpc` or `grpc.aio` server."""
    reflection.enable_server_reflection(SERVICES, server)
