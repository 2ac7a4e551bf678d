"""Who may ask for the page: whoever is on this machine, or whoever has the token.

On a loopback address anybody here may ask. But a page of elsewhere can make a browser that runs
here ask, too, if its name is resolved to 127.0.0.1 (DNS rebinding): so the name that was asked for
has to be a loopback's. Elsewhere a token is asked for, as `Authorization: Bearer`, or for browsers
as the password of HTTP Basic, whoever the user is.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Iterable
from typing import Any

StartResponse = Callable[[str, list[tuple[str, str]]], Any]
Application = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]

LOOPBACK = ("127.0.0.1", "localhost", "::1")

LEAST_TOKEN = 16
"""Characters of a token that nobody guesses."""


class Guard:
    """Asks for a token before an application; without one, for a loopback's name."""

    def __init__(self, application: Application, token: str | None) -> None:
        self._application = application
        self._token = None if token is None else _digest(token.encode())

    def __call__(self, environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
        """Answer a request, as WSGI asks."""
        if self._token is None:
            if host_of(environ.get("HTTP_HOST", "")) not in LOOPBACK:
                return _refused(start, "421 Misdirected Request", "Ask for 127.0.0.1.\n")
        elif not self._is_known(environ.get("HTTP_AUTHORIZATION", "")):
            challenge = ("WWW-Authenticate", 'Basic realm="gateway", charset="UTF-8"')
            says = "A token is asked for: as a bearer's, or as the password of any user.\n"
            return _refused(start, "401 Unauthorized", says, challenge)
        return self._application(environ, start)

    def _is_known(self, authorization: str) -> bool:
        assert self._token is not None
        # Digests are equally long, whatever was sent: the comparison tells nothing by its time.
        return hmac.compare_digest(_digest(token_in(authorization)), self._token)


def token_in(authorization: str) -> bytes:
    """Return the token of a header; empty where it has none."""
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip().encode("utf-8", "surrogateescape")
    if scheme.lower() == "basic":
        try:
            _, _, password = base64.b64decode(rest.strip(), validate=True).partition(b":")
        except (binascii.Error, ValueError):
            return b""
        return password
    return b""


def host_of(header: str) -> str:
    """Return the name of a Host header, without its port and brackets, in lower case."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.partition(":")[0].lower()


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()


def _refused(
    start: StartResponse, status: str, text: str, *more: tuple[str, str]
) -> Iterable[bytes]:
    content = text.encode()
    kind = ("Content-Type", "text/plain; charset=utf-8")
    start(status, [kind, ("Content-Length", str(len(content))), *more])
    return [content]
