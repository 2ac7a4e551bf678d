"""Where spans go, from OpenTelemetry's own environment variables.

`OTEL_EXPORTER_OTLP_TRACES_*` stands before `OTEL_EXPORTER_OTLP_*`, and an empty variable is none,
as OpenTelemetry's specification of the OTLP exporter has it. Without an endpoint nothing is sent:
no connection is made that nobody asked for.

Pure: the environment is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from gateway.errors import UsageError
from gateway.sidecar.traces.attributes import key_value

DEFAULT_PORT = 4317
_PREFIX, _OF_TRACES = "OTEL_EXPORTER_OTLP_", "OTEL_EXPORTER_OTLP_TRACES_"


@dataclass(frozen=True, slots=True)
class Collector:
    """An OTLP receiver over gRPC. `target`: as gRPC takes it.

    `certificate`: what the collector's is signed by; `client_certificate` and `client_key`: ours.
    """

    target: str
    is_secure: bool = False
    headers: tuple[tuple[str, str], ...] = ()
    gzip: bool = False
    timeout_s: float = 10.0
    certificate: Path | None = None
    client_certificate: Path | None = None
    client_key: Path | None = None


def collector_of(environment: Mapping[str, str], endpoint: str = "") -> Collector | None:
    """Return the collector that `endpoint`, or else the environment, names; None without either.

    Raises:
        UsageError: a variable, or the endpoint, says what cannot be.
    """

    def read(name: str) -> str:
        return (environment.get(_OF_TRACES + name) or environment.get(_PREFIX + name, "")).strip()

    def path(name: str) -> Path | None:
        return Path(read(name)) if read(name) else None

    url = endpoint or read("ENDPOINT")
    if not url or environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    protocol, compression = read("PROTOCOL") or "grpc", read("COMPRESSION") or "none"
    if protocol != "grpc":
        raise UsageError(
            "is not spoken",
            subject=f"{_PREFIX}PROTOCOL={protocol}",
            hint="Use grpc, a collector's port 4317.",
        )
    if compression not in ("gzip", "none"):
        raise UsageError(
            "is no compression",
            subject=f"{_PREFIX}COMPRESSION={compression}",
            hint="Use gzip or none.",
        )
    target, is_secure = _target(url, is_insecure=read("INSECURE").lower() == "true")
    key, certificate = path("CLIENT_KEY"), path("CLIENT_CERTIFICATE")
    if (key is None) != (certificate is None):
        raise UsageError(
            "is half of a pair",
            subject=f"{_PREFIX}CLIENT_KEY or _CLIENT_CERTIFICATE",
            hint="Set both or none.",
        )
    return Collector(
        target,
        is_secure,
        _headers(read("HEADERS")),
        compression == "gzip",
        _timeout_s(read("TIMEOUT")),
        path("CERTIFICATE"),
        certificate,
        key,
    )


def resource_of(environment: Mapping[str, str], *, host: str, version: str) -> Resource:
    """Return what all spans have in common: `OTEL_RESOURCE_ATTRIBUTES`, and what we know."""
    said = {"service.name": "gateway", "service.version": version, "host.name": host}
    said.update(_pairs(environment.get("OTEL_RESOURCE_ATTRIBUTES", ""), "OTEL_RESOURCE_ATTRIBUTES"))
    if environment.get("OTEL_SERVICE_NAME"):
        said["service.name"] = environment["OTEL_SERVICE_NAME"]
    return Resource(attributes=[key_value(key, value) for key, value in said.items()])


def _target(url: str, *, is_insecure: bool) -> tuple[str, bool]:
    wrong = UsageError(
        "is no endpoint",
        subject=repr(url.rpartition("@")[2]),  # before it may stand a password
        hint="Write http://HOST:4317, https://HOST:4317 or unix:PATH.",
    )
    if url.startswith("unix:") and url != "unix:":
        return url, False
    is_secure = not is_insecure
    if "://" in url:
        scheme = url.partition("://")[0].lower()
        if scheme not in ("http", "https"):
            raise wrong
        is_secure = scheme == "https"
    else:
        url = f"//{url}"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise wrong from None
    if not host or parts.username or parts.path.strip("/"):
        raise wrong
    shown = f"[{host}]" if ":" in host else host
    return f"{shown}:{DEFAULT_PORT if port is None else port}", is_secure


def _headers(text: str) -> tuple[tuple[str, str], ...]:
    return tuple((key.lower(), value) for key, value in _pairs(text, f"{_PREFIX}HEADERS").items())


def _pairs(text: str, variable: str) -> dict[str, str]:
    """Read `a=1,b=2`, the values as in a URL. An error names no value: it may be a secret."""
    found = {}
    for number, pair in enumerate(filter(None, map(str.strip, text.split(","))), 1):
        key, is_pair, value = pair.partition("=")
        if not is_pair or not key.strip():
            raise UsageError(
                f"entry {number} is no key=value",
                subject=variable,
                hint="Write a=1,b=2, with % escapes in the values.",
            )
        found[unquote(key.strip())] = unquote(value.strip())
    return found


def _timeout_s(text: str) -> float:
    try:
        timeout_ms = float(text or 10_000)
    except ValueError:
        timeout_ms = 0.0
    if not 0 < timeout_ms <= 3_600_000:
        raise UsageError(
            "is no timeout in milliseconds",
            subject=f"{_PREFIX}TIMEOUT={text[:20]}",
            hint="10000 is the default.",
        )
    return timeout_ms / 1000
