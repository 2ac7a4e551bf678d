"""A gRPC server of the tests' own over `h2`: it does what a real one does only seldom.

`h2` is another implementation than the client's under test, and a strict one: a frame out of
order, or beyond a window, ends the connection.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    DataReceived,
    PingAckReceived,
    RemoteSettingsChanged,
    RequestReceived,
    SettingsAcknowledged,
    StreamEnded,
)
from h2.settings import SettingCodes

Headers = list[tuple[str, str]]


class Peer:
    """One connection, as the server sees it."""

    def __init__(self, server: Http2Server, number: int, link: socket.socket) -> None:
        self.server = server
        self.number = number
        self.link = link
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self.headers: dict[int, dict[str, str]] = {}
        self.bodies: dict[int, bytes] = {}
        self.open_most = 0
        self.after_ping: list[Callable[[], None]] = []
        self.settings_acked = 0
        self.table_size: int | None = None

    def answer(self, stream: int, message: bytes = b"", status: int = 0, **more: object) -> None:
        """Answer a call as every gRPC server does."""
        self.h2.send_headers(stream, [(":status", "200"), ("content-type", "application/grpc")])
        if status == 0:
            framed = struct.pack(">BI", 0, len(message)) + message
            for at in range(0, len(framed), 16_000):
                self.h2.send_data(stream, framed[at : at + 16_000], **more)
        self.h2.send_headers(stream, [("grpc-status", str(status))], end_stream=True)

    def flush(self) -> None:
        self.link.sendall(self.h2.data_to_send())

    def close(self) -> None:
        with suppress(OSError):
            self.flush()
        with suppress(OSError):
            self.link.shutdown(socket.SHUT_RDWR)

    def run(self) -> None:
        self.h2.initiate_connection()
        if self.server.settings:
            self.h2.update_settings(self.server.settings)
        self.flush()
        while chunk := self.link.recv(65_536):
            for event in self.h2.receive_data(chunk):
                self._take(event)
            self.flush()

    def _take(self, event: object) -> None:
        if isinstance(event, RequestReceived):
            self.headers[event.stream_id] = dict(event.headers)
            self.bodies[event.stream_id] = b""
            self.open_most = max(self.open_most, self.h2.open_inbound_streams)
        elif isinstance(event, DataReceived):
            self.bodies[event.stream_id] += event.data
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, StreamEnded):
            self.server.answer(self, event.stream_id)
        elif isinstance(event, PingAckReceived):
            self.after_ping.pop(0)()
        elif isinstance(event, SettingsAcknowledged):
            self.settings_acked += 1
        elif isinstance(event, RemoteSettingsChanged):
            changed = event.changed_settings.get(SettingCodes.HEADER_TABLE_SIZE)
            self.table_size = changed.new_value if changed else self.table_size


Answer = Callable[[Peer, int], None]


class Http2Server:
    """Accepts connections; `answer` is called for each complete request."""

    def __init__(self, answer: Answer, settings: dict[int, int] | None = None) -> None:
        self.answer = answer
        self.settings = settings or {}
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.peers: list[Peer] = []
        self.failures: list[BaseException] = []
        self._threads: list[threading.Thread] = []

    def accept(self) -> None:
        with suppress(OSError):
            while True:
                link, _ = self.listener.accept()
                link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                peer = Peer(self, len(self.peers), link)
                self.peers.append(peer)
                thread = threading.Thread(target=self._serve, args=(peer,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, peer: Peer) -> None:
        try:
            peer.run()
        except OSError:
            pass  # the client, or an answer, has closed it
        except BaseException as error:
            self.failures.append(error)
        finally:
            peer.link.close()

    def close(self) -> None:
        # Closing alone does not wake accept().
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for peer in self.peers:
            with suppress(OSError):
                peer.link.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(60)


@contextmanager
def http2_server(answer: Answer, settings: dict[int, int] | None = None) -> Iterator[Http2Server]:
    """Serve on a port of the system's choice; what broke on the server's side is raised."""
    server = Http2Server(answer, settings)
    thread = threading.Thread(target=server.accept)
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join(60)
    if server.failures:
        raise server.failures[0]
