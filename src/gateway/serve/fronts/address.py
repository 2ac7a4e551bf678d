"""Where to listen: loopback or a Unix socket, unless the caller shows they mean it."""

from __future__ import annotations

import ipaddress

from gateway.errors import UsageError


def checked_address(listen: str, *, tls: bool, insecure: bool) -> str:
    """Return `listen` if it may be listened on.

    Raises:
        UsageError: it is no HOST:PORT or unix:PATH, or would be open to others without TLS.
    """
    if listen.startswith("unix:") and len(listen) > len("unix:"):
        return listen
    host, _, port = listen.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise UsageError(
            "is no address", subject=listen, hint="Write HOST:PORT, [::1]:PORT or unix:PATH."
        )
    if not (tls or insecure or _is_loopback(host)):
        raise UsageError(
            "is open to other hosts, and without TLS anyone there can ask and listen in",
            subject=listen,
            hint="Listen on 127.0.0.1, give --tls-certificate and --tls-key, or --insecure.",
        )
    return listen


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
