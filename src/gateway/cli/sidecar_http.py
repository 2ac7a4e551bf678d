"""Where the sidecar answers Prometheus and browsers, and whom."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from socketserver import TCPServer
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer
from prometheus_client.registry import Collector

from gateway.errors import ListenError, UsageError
from gateway.sidecar.guard import LEAST_TOKEN, LOOPBACK, Guard, host_of
from gateway.sidecar.page import Looks, Page, Shown

TOKEN_VARIABLE = "GATEWAY_PAGE_TOKEN"

_MOST_BYTES = 4096


@contextmanager
def answering(
    address: str,
    evaluated: Shown | None,
    *shown: Collector,
    looks: Looks | None = None,
    token: str | None = None,
) -> Iterator[str]:
    """Answer Prometheus and browsers, as long as the context is open; yield where.

    Raises:
        UsageError: the address is none, or not loopback's and there is no token.
        ListenError: it cannot be listened on.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UsageError(
            "is no address with a port", subject=f"--http {address}", hint="127.0.0.1:9464, or :0."
        )
    if host_of(host) not in LOOPBACK and token is None:
        raise UsageError(
            "is no loopback address, and there is no token to ask for",
            subject=f"--http {address}",
            hint=f"Add --token-file FILE (or {TOKEN_VARIABLE} in the environment), or listen on "
            "127.0.0.1:9464.",
        )
    registry = CollectorRegistry(auto_describe=False)
    for one in shown:
        registry.register(one)
    try:
        server = make_server(
            host.strip("[]"),
            int(port),
            Guard(Page(evaluated, make_wsgi_app(registry), looks), token),
            _Server6 if host.startswith("[") else _Server,
            handler_class=_Quiet,
        )
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or "there is no such port"
        raise ListenError(
            f"cannot be listened on: {why}",
            subject=f"--http {address}",
            hint="Another port, or :0 for any.",
        ) from None
    thread = threading.Thread(target=server.serve_forever, name="http", daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def token_of(file: Path | None, environment: Mapping[str, str]) -> str | None:
    """Return the token to ask for; None: none is given. A file goes before the environment.

    Raises:
        UsageError: the file cannot be read, or what is given is too short.
    """
    if file is None:
        given, where = environment.get(TOKEN_VARIABLE, ""), TOKEN_VARIABLE
        if not given:
            return None
    else:
        where = f"--token-file {file}"
        try:
            with file.open("rb") as source:
                given = source.read(_MOST_BYTES).decode()
        except OSError as error:
            raise UsageError(
                f"cannot be read: {error.strerror}",
                subject=where,
                hint="Name a file that holds it.",
            ) from None
        except UnicodeDecodeError:
            given = ""
    token = given.strip()
    if len(token) < LEAST_TOKEN or not token.isprintable():
        raise UsageError(
            f"holds no token of {LEAST_TOKEN} characters or more",
            subject=where,
            hint="For example: openssl rand -hex 32 > token; chmod 600 token",
        )
    return token


class _Server(ThreadingWSGIServer):
    def server_bind(self) -> None:
        """Bind, and ask nobody for the host's name, as HTTPServer would."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]
        self.setup_environ()


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of each request."""
