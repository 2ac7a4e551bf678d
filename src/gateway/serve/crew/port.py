"""The one address that all workers share, held by the supervisor while workers come and go.

A port is bound by a socket that never listens, so that a port of the system's choice is the same
for every worker and for those that replace them. SO_REUSEPORT would let a second gateway of the
same user share it in silence, so the port must be free for a socket without it first.

A Unix socket cannot be shared: its one worker listens beside the path, and is put into its place
by a rename when it answers. So a replacement takes over without a moment in which nobody listens,
and a front that removes its socket when it closes does not remove its successor's.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.errors import ListenError
from gateway.serve.crew.settings import UNIX
from gateway.serve.fronts.front import bound_address

_TRIES = 16
"""For a port of the system's choice that is free on each address of a name."""

_HINT = "Choose another address with --listen; port 0 lets the system choose."
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


@dataclass(frozen=True, slots=True)
class Claim:
    """An address that is ours. `address` has the port that the system gave."""

    address: str

    @property
    def is_unix(self) -> bool:
        """Whether it is a Unix socket."""
        return self.address.startswith(UNIX)

    def listen(self, worker: int) -> str:
        """Return where a worker is to listen."""
        return f"{UNIX}{_beside(_path(self.address), worker)}" if self.is_unix else self.address

    def take_over(self, worker: int) -> None:
        """Let a worker that answers have the address.

        Raises:
            ListenError: its Unix socket cannot be put in its place.
        """
        if self.is_unix:
            path = _path(self.address)
            try:
                os.rename(_beside(path, worker), path)
            except OSError as error:
                raise _refusal(error, self.address) from None


@contextmanager
def claimed(listen: str) -> Iterator[Claim]:
    """Hold an address. `listen` is HOST:PORT or unix:PATH.

    Raises:
        ListenError: it is in use, or cannot be listened on.
    """
    with ExitStack() as held:
        try:
            if listen.startswith(UNIX):
                path = _path(listen)
                _expect_unused(path)
                held.callback(path.unlink, missing_ok=True)
                claim = Claim(listen)
            else:
                claim = Claim(bound_address(listen, _held(listen, held)))
        except OSError as error:
            raise _refusal(error, listen) from None
        yield claim


def _held(listen: str, held: ExitStack) -> int:
    """Bind every address of a name, without listening. Return the port. Raises OSError."""
    host, _, port = listen.rpartition(":")
    names = socket.getaddrinfo(
        host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    places = list(dict.fromkeys((family, place) for family, _, _, _, place in names))
    for _ in range(_TRIES):
        with ExitStack() as tried:
            try:
                bound = _all_bound(places, int(port), tried)
            except OSError as error:
                if int(port) or error.errno != errno.EADDRINUSE:
                    raise
                continue  # the port that one address gave is in use on another
            held.push(tried.pop_all())
            return bound
    raise OSError(errno.EADDRINUSE, "the port is in use")


def _all_bound(places: Sequence[tuple[int, tuple[Any, ...]]], port: int, held: ExitStack) -> int:
    unavailable: OSError | None = None
    count = 0
    for family, (host, _, *rest) in places:
        try:
            with _bound(family, (host, port, *rest), shared=False) as alone:
                # Beside its listener a TCP port takes no second, whoever asks.
                port = alone.getsockname()[1]
            held.enter_context(_bound(family, (host, port, *rest), shared=True))
            count += 1
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise
            unavailable = error  # such as ::1 of localhost, where IPv6 is off
    if not count and unavailable is not None:
        raise unavailable
    return port


def _bound(family: int, place: tuple[Any, ...], *, shared: bool) -> socket.socket:
    """Return a socket that is bound to a place. Raises OSError."""
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        if shared:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        else:
            # As every server: what is left of connections that are over does not count.
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(place)
        except OSError as error:
            if not shared or error.errno != errno.EADDRINUSE:
                raise
            # Such connections may be of a server that did not share its port.
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(place)
    except BaseException:
        one.close()
        raise
    return one


def _path(address: str) -> Path:
    path = address.removeprefix(UNIX)
    return Path(path[2:] if path.startswith("//") else path)


def _beside(path: Path, worker: int) -> Path:
    return path.with_name(f"{path.name}.{worker}")


def _expect_unused(path: Path) -> None:
    """Raises OSError if something stands there that is not an abandoned socket."""
    with socket.socket(socket.AF_UNIX) as asked:
        try:
            if not stat.S_ISSOCK(path.lstat().st_mode):
                raise FileExistsError(errno.EEXIST, "a file that is no socket stands there")
            asked.connect(str(path))
        except FileNotFoundError:
            pass
        except ConnectionRefusedError:
            pass  # whoever listened there was killed
        else:
            raise OSError(errno.EADDRINUSE, "the socket is in use")
    # What keeps a worker from listening is said of this path, not of the worker's own.
    probe = _beside(path, 0)
    probe.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(probe))
    probe.unlink()


def _refusal(error: OSError, listen: str) -> ListenError:
    what = f"cannot be listened on: {error.strerror or error}"
    if error.errno == errno.EADDRINUSE:
        unix = listen.startswith(UNIX)
        what = f"the {'socket' if unix else 'port'} is in use"
    return ListenError(what, subject=listen, hint=_HINT)
